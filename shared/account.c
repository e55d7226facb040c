/*
 * account.c: see account.h.
 *
 * A column is a line of COLUMNS and a row of the table below it, in the same order.  Casts make a
 * view, an enum, a varchar or a bigint as good as the documented type.  The linked domain is shown
 * only if it belongs to the account's owner.
 */
#include "account.h"

#include "clock.h"
#include "log.h"

#include <stddef.h>
#include <string.h>

#define COLUMNS                                                                                    \
	" a.id::uuid, a.user_id::uuid, a.type::text, a.email_address::text, a.status::text,"       \
	" a.warmup_status::text, a.agentmail_inbox_id::text, a.daily_limit::bigint,"               \
	" a.created_at::timestamptz, a.updated_at::timestamptz,"                                   \
	" d.id::uuid, d.domain::text, d.status::text "
#define JOIN_DOMAIN " LEFT JOIN email_domains d ON d.id = a.domain_id AND d.user_id = a.user_id "

struct column {
	enum account_kind kind;
	size_t offset;     /* of the value in struct account */
	size_t has_offset; /* of its flag, for numbers */
};

#define AT(member) offsetof(struct account, member)

static const struct column columns[] = {
	{ ACCOUNT_UUID, AT(id), 0 },
	{ ACCOUNT_UUID, AT(user_id), 0 },
	{ ACCOUNT_TEXT, AT(type), 0 },
	{ ACCOUNT_TEXT, AT(email_address), 0 },
	{ ACCOUNT_TEXT, AT(state.status), 0 },
	{ ACCOUNT_TEXT, AT(state.warmup_status), 0 },
	{ ACCOUNT_TEXT, AT(agentmail_inbox_id), 0 },
	{ ACCOUNT_INTEGER, AT(daily_limit), AT(has_daily_limit) },
	{ ACCOUNT_TIME, AT(created_at_us), AT(has_created_at) },
	{ ACCOUNT_TIME, AT(updated_at_us), AT(has_updated_at) },
	{ ACCOUNT_UUID, AT(domain_id), 0 },
	{ ACCOUNT_TEXT, AT(domain), 0 },
	{ ACCOUNT_TEXT, AT(domain_status), 0 },
};

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

/* PostgreSQL counts microseconds from 2000-01-01 UTC, with both ends of the range infinite. */
#define EPOCH_2000_US INT64_C(946684800000000)

#define READ_TRIES 4 /* a server that breaks that many connections in a row is not there */

enum { LOAD, READ, SWAP };

const struct db_statement account_statements[] = {
	/* One row if the key is good; its account columns are NULL if there is no such account. */
	[LOAD] = { "warmup_load",
		"SELECT k.user_id::uuid, k.prefix::text," COLUMNS
		"FROM api_keys k LEFT JOIN accounts a"
		" ON a.id = $2::uuid AND a.user_id = k.user_id AND a.type = 'email'" JOIN_DOMAIN
		"WHERE k.key_hash = $1::bytea AND k.revoked_at IS NULL",
		2 },
	[READ] = { "warmup_read",
		"SELECT" COLUMNS "FROM accounts a" JOIN_DOMAIN
		"WHERE a.id = $1::uuid AND a.user_id = $2::uuid AND a.type = 'email'",
		2 },
	/* The states carry no cast: they take the columns' own type, text or enum. */
	[SWAP] = { "warmup_swap",
		"WITH a AS (UPDATE accounts SET status = $5, warmup_status = $6, updated_at = now()"
		" WHERE id = $1::uuid AND user_id = $2::uuid AND type = 'email'"
		" AND status = $3 AND warmup_status = $4"
		" RETURNING id, user_id, type, email_address, status, warmup_status,"
		" agentmail_inbox_id, daily_limit, created_at, updated_at, domain_id)"
		" SELECT" COLUMNS "FROM a" JOIN_DOMAIN,
		6 },
};
const size_t account_statement_count = sizeof(account_statements) / sizeof(account_statements[0]);

const struct account_state ACCOUNT_STUCK = { "pending", "not_started" };
const struct account_state ACCOUNT_WARMING = { "warming", "warming" };

static bool
text_equal(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool
account_state_equal(const struct account_state *a, const struct account_state *b)
{
	return text_equal(a->status, b->status) && text_equal(a->warmup_status, b->warmup_status);
}

void
account_free(struct account *account)
{
	db_result_free(account->row);
	memset(account, 0, sizeof(*account));
}

static enum err
take_number(struct account *account, const struct column *column, const char *value, size_t length)
{
	int64_t number;
	bool has;

	if (value != NULL && length != sizeof(number))
		return ERR_INTERNAL;
	number = value != NULL ? db_int64(value) : 0;
	has = value != NULL;
	if (has && column->kind == ACCOUNT_TIME) {
		/* Neither infinity is a point in time. */
		has = number != INT64_MAX && number != INT64_MIN &&
			number < INT64_MAX - EPOCH_2000_US;
		number = has ? number + EPOCH_2000_US : 0;
	}
	memcpy((char *)account + column->offset, &number, sizeof(number));
	memcpy((char *)account + column->has_offset, &has, sizeof(has));
	return ERR_OK;
}

static enum err
take_value(struct account *account, const struct column *column, int number)
{
	char *member = (char *)account + column->offset;
	size_t length = 0;
	const char *value = db_value(account->row, 0, number, &length);

	switch (column->kind) {
	case ACCOUNT_UUID:
		member[0] = '\0';
		if (value == NULL)
			return ERR_OK;
		if (length != UUID_BYTES)
			return ERR_INTERNAL;
		uuid_format((const unsigned char *)value, member);
		return ERR_OK;
	case ACCOUNT_TEXT:
		memcpy(member, &value, sizeof(value));
		return ERR_OK;
	case ACCOUNT_INTEGER:
	case ACCOUNT_TIME:
		return take_number(account, column, value, length);
	}
	return ERR_INTERNAL;
}

/* Fills account from its row, whose first column of ours is the given one. */
static enum err
take_row(struct account *account, int first)
{
	size_t i;
	enum err err;

	for (i = 0; i < COLUMN_COUNT; i++) {
		err = take_value(account, &columns[i], first + (int)i);
		if (err != ERR_OK)
			return err;
	}
	return ERR_OK;
}

/* More rows than a key allows: a view that stands in for a table is wrong. */
static enum err
check_single(const struct db_result *result)
{
	if (db_rows(result) <= 1)
		return ERR_OK;
	log_fault(LOG_ERROR,
		"several rows for one id or key: mend the view that stands for a table", NULL);
	return ERR_INTERNAL;
}

static enum err
take_caller(struct caller *caller, const struct db_result *result)
{
	size_t length = 0;
	const char *user_id = db_value(result, 0, 0, &length),
		   *prefix = db_value(result, 0, 1, NULL);

	memset(caller, 0, sizeof(*caller));
	if (user_id == NULL || length != UUID_BYTES)
		return ERR_INTERNAL;
	uuid_format((const unsigned char *)user_id, caller->user_id);
	/* Only what may be shown of a key, whoever filled that column. */
	if (prefix != NULL && strlen(prefix) <= API_KEY_PREFIX_LEN)
		memcpy(caller->key_prefix, prefix, strlen(prefix));
	return ERR_OK;
}

/* Runs a reading statement; one whose connection broke is sent again on another one.  One that is
   merely slow is not: a second copy of it would not help the database. */
static enum err
read_only(struct db *db, int which, const struct db_param *params, int64_t deadline_us,
	struct db_result **result)
{
	enum err err = ERR_DB_AGAIN;
	int tries;

	for (tries = 0; tries < READ_TRIES && clock_left_ms(deadline_us) > 0; tries++) {
		err = db_run(db, &account_statements[which], params, deadline_us, result);
		if (err != ERR_DB_LOST && err != ERR_DB_AGAIN)
			break;
	}
	return err;
}

enum err
account_load(struct db *db, const unsigned char key_hash[API_KEY_HASH_BYTES], const char *id,
	int64_t deadline_us, struct caller *caller, struct account *account)
{
	const struct db_param params[] = { { (const char *)key_hash, API_KEY_HASH_BYTES },
		{ id, 0 } };
	enum err err;

	memset(account, 0, sizeof(*account));
	if (read_only(db, LOAD, params, deadline_us, &account->row) != ERR_OK)
		return ERR_UNAVAILABLE;
	if (db_rows(account->row) == 0)
		return ERR_UNAUTHORIZED;
	err = check_single(account->row);
	if (err == ERR_OK)
		err = take_caller(caller, account->row);
	if (err == ERR_OK)
		err = take_row(account, 2);
	if (err == ERR_OK && account->id[0] == '\0')
		err = ERR_NO_ACCOUNT;
	return err;
}

enum err
account_read(struct db *db, const char *id, const char *user_id, int64_t deadline_us,
	struct account *account)
{
	const struct db_param params[] = { { id, 0 }, { user_id, 0 } };
	enum err err;

	memset(account, 0, sizeof(*account));
	err = db_run(db, &account_statements[READ], params, deadline_us, &account->row);
	if (err != ERR_OK)
		return err;
	if (db_rows(account->row) == 0)
		return ERR_NO_ACCOUNT;
	err = check_single(account->row);
	return err == ERR_OK ? take_row(account, 0) : err;
}

enum err
account_swap(struct db *db, const char *id, const char *user_id, const struct account_state *from,
	const struct account_state *to, int64_t deadline_us, bool *moved, struct account *account)
{
	const struct db_param params[] = { { id, 0 }, { user_id, 0 }, { from->status, 0 },
		{ from->warmup_status, 0 }, { to->status, 0 }, { to->warmup_status, 0 } };
	enum err err;

	*moved = false;
	memset(account, 0, sizeof(*account));
	err = db_run(db, &account_statements[SWAP], params, deadline_us, &account->row);
	if (err != ERR_OK)
		return err;
	*moved = db_rows(account->row) > 0;
	if (!*moved)
		return ERR_OK;
	err = check_single(account->row);
	return err == ERR_OK ? take_row(account, 0) : err;
}
