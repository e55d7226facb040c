/*
 * doctor_database.c: the database as the responder's login sees it.
 *
 * A check is a row of the table: one statement that reads catalogs only, or a function where that
 * is not enough.  Nothing is written or left behind, whoever the login is.
 */
#include "doctor.h"

#include "account.h"
#include "clock.h"

#include <stdio.h>
#include <string.h>

/* What a statement may be told: these, as text, from a row's first one on. */
enum argument { CONNECTIONS, PREPARED, BACKEND_PID, ARGUMENTS };

struct check {
	/* Its name is the check's.  Each row it gives has: what was found, whether that is well, and
	   what to do if it is not (NULL: see below), as text, boolean and text. */
	struct db_statement statement;
	enum argument from;         /* the first argument that it takes */
	enum doctor_result problem; /* what a row is that is not well */
	const char *well;           /* found if there are no rows */
	const char *todo;
	void (*run)(struct doctor *doctor, const struct check *check); /* instead */
};

static void connect_first(struct doctor *doctor, const struct check *check);
static void explain_statements(struct doctor *doctor, const struct check *check);
static void read_notes(struct doctor *doctor, const struct check *check);

/* Our tables, as the login finds them; a view of the same shape may stand in for one. */
#define TABLES                                                                                     \
	"(SELECT w.name, c.oid, c.relkind, pg_has_role(c.relowner, 'USAGE') AS owned"              \
	" FROM (VALUES ('accounts'), ('email_domains'), ('api_keys')) AS w (name)"                 \
	" JOIN pg_class c ON c.oid = to_regclass(w.name)) AS t"
#define ME "(SELECT * FROM pg_roles WHERE rolname = current_user) AS me"

static const char sql_connect[] =
	"SELECT 'login ' || current_user || ', database ' || current_database(), true, NULL::text";

static const char sql_version[] =
	"SELECT 'PostgreSQL ' || current_setting('server_version'),"
	" current_setting('server_version_num')::int >= 130000, NULL::text";

static const char sql_encoding[] = "SELECT current_setting('server_encoding'),"
				   " current_setting('server_encoding') = 'UTF8', NULL::text";

static const char sql_writable[] =
	"SELECT CASE WHEN pg_is_in_recovery() THEN 'this server is a standby'"
	" WHEN current_setting('transaction_read_only') = 'on' THEN 'transactions are read-only'"
	" ELSE 'this server takes changes' END,"
	" NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off', NULL::text";

/* As in the schema's 0002_indexes.sql. */
static const char sql_indexes[] =
	"SELECT t.name || ' has no unique index on ' || k.name || ' alone', false, NULL::text"
	" FROM " TABLES
	" JOIN (VALUES ('accounts', 'id'), ('email_domains', 'id'), ('api_keys', 'key_hash'))"
	" AS k (of, name) ON k.of = t.name"
	" WHERE t.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index i"
	" JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
	" WHERE i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL"
	" AND i.indnkeyatts = 1 AND a.attname = k.name)";

static const char sql_stuck_index[] =
	"SELECT 'accounts has no index of the stuck ones', false, NULL::text FROM " TABLES
	" WHERE t.name = 'accounts' AND t.relkind IN ('r', 'p')"
	" AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisvalid"
	" AND pg_get_expr(i.indpred, i.indrelid) LIKE ALL ('{%pending%,%not_started%}'))";

/* Who has all rights by his role or as the owner is told of that alone. */
static const char sql_privileges[] =
	"SELECT 'the login is a superuser', false, NULL::text FROM " ME " WHERE rolsuper UNION ALL"
	" SELECT 'the login ' || v.what, false, NULL FROM " ME ", LATERAL (VALUES"
	" (rolcreaterole, 'may make roles'), (rolcreatedb, 'may make databases'),"
	" (rolbypassrls, 'passes row level security by')) AS v (has, what)"
	" WHERE v.has AND NOT rolsuper UNION ALL"
	" SELECT 'the login owns ' || t.name, false, NULL FROM " TABLES ", " ME
	" WHERE t.owned AND NOT rolsuper UNION ALL"
	" SELECT 'the login may ' || g.list || ' ' || t.name, false, NULL FROM " TABLES ", " ME ","
	" LATERAL (SELECT string_agg(p, ', ') AS list FROM unnest(ARRAY['INSERT', 'UPDATE',"
	" 'DELETE', 'TRUNCATE']) AS p WHERE CASE p"
	" WHEN 'INSERT' THEN has_any_column_privilege(t.oid, p)"
	" WHEN 'UPDATE' THEN t.name <> 'accounts' AND has_any_column_privilege(t.oid, p)"
	" ELSE has_table_privilege(t.oid, p) END) AS g"
	" WHERE NOT t.owned AND NOT rolsuper AND g.list IS NOT NULL UNION ALL"
	" SELECT 'the login may UPDATE ' || CASE WHEN has_table_privilege(t.oid, 'UPDATE')"
	" THEN 'every column' ELSE string_agg(a.attname::text, ', ' ORDER BY a.attnum) END"
	" || ' of accounts', false, NULL FROM " TABLES
	" JOIN pg_attribute a ON a.attrelid = t.oid, " ME
	" WHERE t.name = 'accounts' AND NOT t.owned AND NOT rolsuper AND a.attnum > 0"
	" AND NOT a.attisdropped AND a.attname NOT IN ('status', 'warmup_status', 'updated_at')"
	" AND has_column_privilege(t.oid, a.attnum, 'UPDATE') GROUP BY t.oid";

static const char sql_row_security[] =
	"SELECT 'row level security lets the login ' || w.verb || ' no row of ' || w.name || ': '"
	" || w.effect, false, format('as the owner of %I: CREATE POLICY %s ON %I FOR %s TO %I USING"
	" (true)', w.name, w.policy, w.name, w.verb, current_user)"
	" FROM (VALUES"
	" ('api_keys', 'SELECT', 'r', 'warmup_keys', 'every key gets a 401'),"
	" ('accounts', 'SELECT', 'r', 'warmup_accounts', 'every account is a 404'),"
	" ('accounts', 'UPDATE', 'w', 'warmup_move', 'every call ends in a 500'),"
	" ('email_domains', 'SELECT', 'r', 'warmup_domains', 'no answer has its domain'))"
	" AS w (name, verb, letter, policy, effect)"
	" WHERE row_security_active(to_regclass(w.name)::oid) AND NOT EXISTS (SELECT FROM pg_policy p"
	" WHERE p.polrelid = to_regclass(w.name) AND p.polpermissive"
	" AND p.polcmd::text IN ('*', w.letter) AND EXISTS (SELECT FROM unnest(p.polroles) AS r"
	" WHERE r = 0 OR pg_has_role(r, 'USAGE')))";

static const char sql_connections[] =
	"SELECT 'WARMUP_DB_CONNECTIONS is ' || $1 || ', the server takes ' || l.most || ' of this login',"
	" $1::int <= l.most, NULL::text FROM (SELECT least(current_setting('max_connections')::int"
	" - current_setting('superuser_reserved_connections')::int"
	" - coalesce(current_setting('reserved_connections', true)::int, 0),"
	" nullif(rolconnlimit, -1), (SELECT nullif(datconnlimit, -1) FROM pg_database"
	" WHERE datname = current_database())) AS most FROM " ME ") AS l";

static const char sql_timeout[] =
	"SELECT 'statement_timeout is ' || s || CASE WHEN s <> '0' THEN '' WHEN $1::text = 'on'"
	" THEN ': under FastCGI the responder sets its own, as plain CGI nobody does'"
	" ELSE ': what the responder gave up on goes on in the server' END,"
	" s <> '0' OR $1 = 'on',"
	" format('as an administrator: ALTER ROLE %I SET statement_timeout = ''5s''', current_user)"
	" FROM current_setting('statement_timeout') AS s";

static const char sql_pooler[] =
	"SELECT CASE WHEN $2::int = pg_backend_pid() THEN 'none between us and the server'"
	" ELSE 'a pooler is between us and the server; WARMUP_DB_PREPARED is ' || $1 END,"
	" $2::int = pg_backend_pid() OR $1::text = 'off', NULL::text";

static const char sql_keys[] =
	"SELECT CASE WHEN f.found THEN 'there are keys' ELSE 'there is no key that is not revoked' END,"
	" f.found, NULL::text"
	" FROM (SELECT EXISTS (SELECT FROM api_keys WHERE revoked_at IS NULL) AS found) AS f";

static const struct check checks[] = {
	{ { "database.connect", sql_connect, 0 }, 0, DOCTOR_FAIL, "",
		"correct DATABASE_URL, start the server, or open the way to it", connect_first },
	{ { "database.version", sql_version, 0 }, 0, DOCTOR_FAIL, "",
		"upgrade to PostgreSQL 13 or newer", NULL },
	{ { "database.encoding", sql_encoding, 0 }, 0, DOCTOR_WARN, "",
		"move to a database with ENCODING 'UTF8': in this one not all text can be kept or told",
		NULL },
	{ { "database.writable", sql_writable, 0 }, 0, DOCTOR_FAIL, "",
		"name the primary in DATABASE_URL, or all hosts and target_session_attrs=read-write; "
		"on a primary take back default_transaction_read_only",
		NULL },
	{ { "database.statements", NULL, 0 }, 0, DOCTOR_FAIL,
		"the responder's statements find their tables, columns, types and rights", NULL,
		explain_statements },
	{ { "database.indexes", sql_indexes, 0 }, 0, DOCTOR_FAIL,
		"the rows of a request are found by unique indexes",
		"run warmupctl migrate as the tables' owner", NULL },
	{ { "database.stuck_index", sql_stuck_index, 0 }, 0, DOCTOR_WARN,
		"the stuck accounts have an index", "run warmupctl migrate as the tables' owner",
		NULL },
	{ { "database.migrations",
		  "SELECT 'the newest that is noted: ' || max(name), true, NULL::text"
		  " FROM warmup_migrations",
		  0 },
		0, DOCTOR_WARN, "", "", read_notes },
	{ { "database.privileges", sql_privileges, 0 }, 0, DOCTOR_WARN,
		"the login has no rights that the responder does not need",
		"use a login that has what responder_role.sql grants and no more: CREATE ROLE warmup "
		"LOGIN PASSWORD '...' IN ROLE warmup_responder",
		NULL },
	{ { "database.row_security", sql_row_security, 0 }, 0, DOCTOR_FAIL,
		"row level security hides no table", NULL, NULL },
	{ { "database.connections", sql_connections, 1 }, CONNECTIONS, DOCTOR_WARN, "",
		"lower WARMUP_DB_CONNECTIONS, which each process opens, or raise the limit of the "
		"server, database or role",
		NULL },
	{ { "database.timeout", sql_timeout, 1 }, PREPARED, DOCTOR_WARN, "", NULL, NULL },
	{ { "database.pooler", sql_pooler, 2 }, PREPARED, DOCTOR_WARN, "",
		"set WARMUP_DB_PREPARED=off if it lends connections by transaction", NULL },
	{ { "database.keys", sql_keys, 0 }, 0, DOCTOR_WARN, "",
		"make one: warmupctl key add --user UUID, as the table's owner", NULL },
};

#define MISSING_TABLE "42P01"

/* What to do about an SQLSTATE of the responder's statements; the first row that fits counts. */
static const struct {
	const char *sqlstate, *todo;
} remedies[] = {
	{ MISSING_TABLE,
		"run warmupctl migrate; if the table is there, set the login's search_path, and run "
		"warmupctl migrate --role for the right to its schema" },
	{ "42703", "add the column; README.md and warmup.fcgi(8) have the list" },
	{ "42501",
		"run warmupctl migrate --role as the tables' owner, and GRANT warmup_responder to the "
		"login" },
	{ "", "give the tables the columns and types that README.md and warmup.fcgi(8) list" },
};

static int64_t
deadline_us(const struct doctor *doctor)
{
	return clock_deadline_us(doctor->config.db_timeout_ms);
}

/* A check that could not be made.  What the server refuses is about the login, which its own check
   judges; anything else is a server in trouble. */
static void
report_unmade(struct doctor *doctor, const struct check *check, enum err err)
{
	char found[512];

	snprintf(found, sizeof(found), "cannot be judged: %s", buf_text(&doctor->faults));
	doctor_report(doctor, check->statement.name,
		err == ERR_DB_REFUSED ? DOCTOR_WARN : DOCTOR_FAIL, found,
		err == ERR_DB_REFUSED ?
			"mend what failed above, then run this again" :
			"see whether the server is up and quick, then run this again");
}

static void
run_statement(struct doctor *doctor, const struct check *check)
{
	char connections[16], pid_text[16];
	const struct db_param arguments[ARGUMENTS] = {
		[CONNECTIONS] = { connections, 0 },
		[PREPARED] = { doctor->config.db_prepared ? "on" : "off", 0 },
		[BACKEND_PID] = { pid_text, 0 },
	};
	struct db_result *result = NULL;
	int pid = 0, row;
	enum err err;

	doctor_listen(doctor);
	err = db_backend_pid(doctor->db, deadline_us(doctor), &pid);
	snprintf(connections, sizeof(connections), "%d", doctor->config.db_connections);
	snprintf(pid_text, sizeof(pid_text), "%d", pid);
	if (err == ERR_OK)
		err = db_run(doctor->db, &check->statement, &arguments[check->from],
			deadline_us(doctor), &result);
	if (err != ERR_OK) {
		report_unmade(doctor, check, err);
		return;
	}
	if (db_rows(result) == 0 && doctor->table_missing)
		doctor_report(doctor, check->statement.name, DOCTOR_SKIP,
			"not looked at: a table is missing", NULL);
	else if (db_rows(result) == 0)
		doctor_report(doctor, check->statement.name, DOCTOR_OK, check->well, NULL);
	for (row = 0; row < db_rows(result); row++) {
		const char *found = db_value(result, row, 0, NULL);
		const char *good = db_value(result, row, 1, NULL);
		const char *todo = db_value(result, row, 2, NULL);

		doctor_report(doctor, check->statement.name,
			good != NULL && good[0] != 0 ? DOCTOR_OK : check->problem,
			found != NULL ? found : "", todo != NULL ? todo : check->todo);
	}
	db_result_free(result);
}

static void
connect_first(struct doctor *doctor, const struct check *check)
{
	const struct db_options options = { doctor->config.database_url, 1, false, 0, NULL, 0 };

	doctor_listen(doctor);
	if (db_open(&options, &doctor->db) == ERR_OK &&
		db_ping(doctor->db, deadline_us(doctor)) == ERR_OK) {
		run_statement(doctor, check);
		return;
	}
	doctor_report(
		doctor, check->statement.name, DOCTOR_FAIL, buf_text(&doctor->faults), check->todo);
	db_close(doctor->db);
	doctor->db = NULL;
}

/* One line for each different complaint: what one statement misses, the next may, too. */
static void
explain_statements(struct doctor *doctor, const struct check *check)
{
	struct db_message message, before = { "", "" };
	const char *name = check->statement.name;
	bool well = true;
	size_t i, row;
	enum err err;

	for (i = 0; i < account_statement_count; i++) {
		doctor_listen(doctor);
		err = db_explain(doctor->db, &account_statements[i], deadline_us(doctor), &message);
		if (err == ERR_OK)
			continue;
		well = false;
		if (message.sqlstate[0] == '\0') {
			report_unmade(doctor, check, err);
			return;
		}
		if (strcmp(message.text, before.text) == 0)
			continue;
		before = message;
		doctor->table_missing |= strcmp(message.sqlstate, MISSING_TABLE) == 0;
		for (row = 0; strncmp(remedies[row].sqlstate, message.sqlstate,
				      strlen(remedies[row].sqlstate)) != 0;)
			row++;
		doctor_report(doctor, name, DOCTOR_FAIL, message.text, remedies[row].todo);
	}
	if (well)
		doctor_report(doctor, name, DOCTOR_OK, check->well, NULL);
}

/* What warmupctl migrate noted is the owner's; the responder's login need not see it. */
static void
read_notes(struct doctor *doctor, const struct check *check)
{
	static const struct db_statement readable = { "migrations_readable",
		"SELECT FROM pg_class WHERE oid = to_regclass('warmup_migrations')"
		" AND has_table_privilege(oid, 'SELECT')",
		0 };
	struct db_result *result = NULL;
	enum err err;

	doctor_listen(doctor);
	err = db_run(doctor->db, &readable, NULL, deadline_us(doctor), &result);
	if (err != ERR_OK)
		report_unmade(doctor, check, err);
	else if (db_rows(result) > 0)
		run_statement(doctor, check);
	else
		doctor_report(doctor, check->statement.name, DOCTOR_SKIP,
			"not looked at: this login cannot read warmup_migrations", NULL);
	db_result_free(result);
}

void
doctor_check_database(struct doctor *doctor, const char *why_not)
{
	size_t i;

	for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		const struct check *check = &checks[i];

		if (why_not != NULL)
			doctor_report(doctor, check->statement.name, DOCTOR_SKIP, why_not, NULL);
		else if (check->run != NULL)
			check->run(doctor, check);
		else
			run_statement(doctor, check);
		if (doctor->db == NULL && why_not == NULL)
			why_not = "not looked at: there is no connection";
	}
}
