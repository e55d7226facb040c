/*
 * db_link.c: see db_link.h.  Prepares and runs statements on one connection.
 *
 * No call here blocks: sending, receiving and connecting wait in db_outcome_poll(), until a deadline.
 * A connection that missed its deadline is closed without a cancel request, because before
 * libpq 17 sending one blocks; the server's statement_timeout, set at the start of a connection,
 * ends what still runs there, or statements given up on could pile up behind a lock.
 */
#include "db_link.h"

#include "buf.h"
#include "db_connect.h"
#include "db_outcome.h"
#include "log.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPLAIN_MAX (16 * 1024) /* a statement and one word; the longest has 1 KiB */

struct db_link {
	PGconn *conn;
	bool prepared;
	const struct db_options *options;
};

static enum err
prepare(struct db_link *link, const struct db_statement *statement, int64_t deadline_us)
{
	PGresult *result = NULL;
	bool sound;
	enum err err;

	if (!PQsendPrepare(link->conn, statement->name, statement->sql, statement->params, NULL))
		return ERR_UNAVAILABLE;
	err = db_outcome_wait(link->conn, deadline_us, &result, &sound);
	PQclear(result);
	return err == ERR_OK ? ERR_OK : ERR_UNAVAILABLE;
}

/* Runs a statement that sets up a new connection; its rows mean nothing. */
static enum err
set_up(struct db_link *link, const char *sql, const char *value, int64_t deadline_us)
{
	PGresult *result = NULL;
	bool sound;
	enum err err;

	if (!PQsendQueryParams(link->conn, sql, 1, NULL, &value, NULL, NULL, 0))
		return ERR_UNAVAILABLE;
	err = db_outcome_wait(link->conn, deadline_us, &result, &sound);
	PQclear(result);
	return err == ERR_OK ? ERR_OK : ERR_UNAVAILABLE;
}

/* All that a new connection needs before its first statement. */
static enum err
set_up_all(struct db_link *link, int64_t deadline_us)
{
	const struct db_options *options = link->options;
	const char *encoding = PQparameterStatus(link->conn, "server_encoding");
	enum err err = ERR_OK;
	char limit[16];
	size_t i;

	/* Such a database may hold any bytes, and the server would refuse to send some as UTF-8;
	   what is not, the JSON writer replaces. */
	if (encoding != NULL && strcmp(encoding, "SQL_ASCII") == 0)
		err = set_up(link, "SELECT set_config('client_encoding', $1, false)", encoding,
			deadline_us);
	if (err != ERR_OK || !options->prepared)
		return err;
	/* Has the server end what we gave up on; a limit that the role or database has stays. */
	snprintf(limit, sizeof(limit), "%d", options->statement_timeout_ms);
	err = set_up(link,
		"SELECT set_config('statement_timeout', $1, false)"
		" WHERE current_setting('statement_timeout') = '0'",
		limit, deadline_us);
	for (i = 0; err == ERR_OK && i < options->statement_count; i++)
		err = prepare(link, &options->statements[i], deadline_us);
	return err;
}

static void
drop_notice(void *unused, const PGresult *notice)
{
	(void)unused; /* libpq would print it on standard error, which is our log */
	(void)notice;
}

enum err
db_link_open(const struct db_options *options, int64_t deadline_us, struct db_link **out)
{
	struct db_link *link = calloc(1, sizeof(*link));

	if (link == NULL)
		return ERR_UNAVAILABLE;
	link->options = options;
	link->conn = db_connect(options->url, deadline_us);
	if (link->conn == NULL)
		goto fail;
	PQsetNoticeReceiver(link->conn, drop_notice, NULL);
	PQsetnonblocking(link->conn, 1);
	if (set_up_all(link, deadline_us) != ERR_OK)
		goto fail;
	link->prepared = options->prepared;
	*out = link;
	return ERR_OK;
fail:
	db_link_close(link);
	return ERR_UNAVAILABLE;
}

void
db_link_close(struct db_link *link)
{
	if (link == NULL)
		return;
	PQfinish(link->conn);
	free(link);
}

bool
db_link_alive(struct db_link *link)
{
	/* A farewell (57P01) or an end of file lies readable; a live idle link has nothing to read. */
	struct pollfd fd = { .fd = PQsocket(link->conn), .events = POLLIN };

	if (poll(&fd, 1, 0) <= 0)
		return true;
	return PQconsumeInput(link->conn) && PQstatus(link->conn) == CONNECTION_OK &&
		!PQisBusy(link->conn) && poll(&fd, 1, 0) == 0;
}

enum err
db_link_run(struct db_link *link, const struct db_statement *statement,
	const struct db_param *params, int64_t deadline_us, struct db_result **out, bool *sound)
{
	const char *values[DB_PARAMS_MAX];
	int lengths[DB_PARAMS_MAX], formats[DB_PARAMS_MAX], sent, i;
	PGresult *result = NULL;
	enum err err;

	for (i = 0; i < statement->params; i++) {
		values[i] = params[i].value;
		lengths[i] = params[i].length;
		formats[i] = params[i].length > 0;
	}
	if (link->prepared && statement >= link->options->statements &&
		statement < link->options->statements + link->options->statement_count)
		sent = PQsendQueryPrepared(link->conn, statement->name, statement->params, values,
			lengths, formats, 1);
	else
		sent = PQsendQueryParams(link->conn, statement->sql, statement->params, NULL,
			values, lengths, formats, 1);
	*sound = false;
	if (!sent) {
		/* libpq may have sent a part before it noticed. */
		log_fault(LOG_WARN, DB_OUTCOME_BROKEN, NULL);
		return ERR_DB_LOST;
	}
	err = db_outcome_wait(link->conn, deadline_us, &result, sound);
	if (err == ERR_OK)
		*out = (struct db_result *)result;
	else
		PQclear(result);
	return err;
}

enum err
db_link_script(struct db_link *link, const char *sql, int64_t deadline_us, char *message,
	size_t size, bool *sound)
{
	PGresult *result = NULL;
	enum err err;

	*sound = false;
	if (!PQsendQuery(link->conn, sql))
		return ERR_DB_LOST;
	err = db_outcome_wait(link->conn, deadline_us, &result, sound);
	if (err != ERR_OK)
		snprintf(message, size, "%s",
			result != NULL ? PQresultErrorMessage(result) : PQerrorMessage(link->conn));
	PQclear(result);
	return err;
}

int
db_link_backend_pid(const struct db_link *link)
{
	return PQbackendPID(link->conn);
}

static void
take_message(struct db_message *message, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	if (state == NULL || text == NULL)
		return;
	snprintf(message->sqlstate, sizeof(message->sqlstate), "%s", state);
	snprintf(message->text, sizeof(message->text), "%s", text);
}

enum err
db_link_explain(struct db_link *link, const struct db_statement *statement, int64_t deadline_us,
	struct db_message *message, bool *sound)
{
	const char *nulls[DB_PARAMS_MAX] = { NULL };
	PGresult *result = NULL;
	struct buf sql;
	enum err err;
	int sent;

	*sound = false;
	buf_init(&sql, EXPLAIN_MAX);
	buf_printf(&sql, "EXPLAIN %s", statement->sql);
	err = buf_check(&sql);
	if (err != ERR_OK)
		goto out;
	sent = PQsendQueryParams(
		link->conn, buf_text(&sql), statement->params, NULL, nulls, NULL, NULL, 0);
	if (!sent) {
		log_fault(LOG_WARN, DB_OUTCOME_BROKEN, NULL);
		err = ERR_DB_LOST;
		goto out;
	}
	err = db_outcome_wait(link->conn, deadline_us, &result, sound);
	if (err != ERR_OK)
		take_message(message, result);
out:
	PQclear(result);
	buf_free(&sql);
	return err;
}
