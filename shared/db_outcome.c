/*
 * db_outcome.c: see db_outcome.h.  With db_link.c the only file that includes libpq-fe.h.
 */
#include "db_outcome.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* What an SQLSTATE means for us.  The first matching row counts; a class is its two characters. */
struct sqlstate {
	const char *prefix;
	enum err err;
	bool sound; /* the connection may be used again */
	const char *advice;
};

static const struct sqlstate sqlstates[] = {
	{ "40003", ERR_DB_LOST, false, "the database lost track of a statement" },
	{ "40", ERR_DB_AGAIN, true, "a concurrent change rolled a statement back" },
	{ "25006", ERR_DB_AGAIN, false,
		"the database is read-only: name the primary in DATABASE_URL, or add "
		"target_session_attrs=read-write" },
	{ "0A000", ERR_DB_AGAIN, false, "a table changed under a prepared statement" },
	{ "42804", ERR_DB_AGAIN, false, "a column's type changed under a prepared statement" },
	{ "42883", ERR_DB_AGAIN, false, "a column's type changed under a prepared statement" },
	{ "26000", ERR_DB_AGAIN, false,
		"a prepared statement is gone: behind a pooler set WARMUP_DB_PREPARED=off" },
	{ "42P05", ERR_DB_AGAIN, false,
		"a prepared statement exists already: behind a pooler set WARMUP_DB_PREPARED=off" },
	{ "42P01", ERR_DB_REFUSED, true, "a table is missing: run warmupctl migrate" },
	{ "42703", ERR_DB_REFUSED, true, "a column is missing: see the list in the manual" },
	{ "42501", ERR_DB_REFUSED, true,
		"the database login lacks a privilege: responder_role.sql holds what the responder "
		"needs, warmupctl wants the tables' owner" },
	{ "57014", ERR_DB_REFUSED, true, "the database's own statement_timeout ended a statement" },
	{ "55P03", ERR_DB_REFUSED, true, "the database's own lock_timeout ended a statement" },
	{ "08", ERR_DB_LOST, false, "the database connection failed" },
	{ "57P", ERR_DB_LOST, false, "the database server ended the connection" },
	{ "", ERR_DB_REFUSED, true, "the database refused a statement" },
};

const char DB_OUTCOME_BROKEN[] = "the database connection broke";

static const struct sqlstate lost = { NULL, ERR_DB_LOST, false, DB_OUTCOME_BROKEN };

enum err
db_outcome_poll(const PGconn *conn, short events, int64_t deadline_us)
{
	struct pollfd fd = { .fd = PQsocket(conn), .events = events };

	if (fd.fd < 0)
		return ERR_DB_LOST;
	for (;;) {
		int ready = poll(&fd, 1, clock_left_ms(deadline_us));

		if (ready > 0)
			return ERR_OK;
		if (ready == 0 || errno != EINTR)
			return ERR_DB_LOST;
	}
}

/* Sends what is buffered, then waits until a whole result has arrived. */
static enum err
flush_and_wait(PGconn *conn, int64_t deadline_us)
{
	int unsent;

	while ((unsent = PQflush(conn)) == 1) {
		/* The server may be sending, too, and not reading until we do. */
		if (db_outcome_poll(conn, POLLIN | POLLOUT, deadline_us) != ERR_OK ||
			!PQconsumeInput(conn))
			return ERR_DB_LOST;
	}
	if (unsent < 0)
		return ERR_DB_LOST;
	while (PQisBusy(conn))
		if (db_outcome_poll(conn, POLLIN, deadline_us) != ERR_OK || !PQconsumeInput(conn))
			return ERR_DB_LOST;
	return ERR_OK;
}

static const struct sqlstate *
find_sqlstate(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const struct sqlstate *row = sqlstates;

	if (state == NULL)
		return &lost; /* libpq's own error: the connection broke */
	while (strncmp(state, row->prefix, strlen(row->prefix)) != 0)
		row++;
	return row;
}

static bool
is_good(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

/*
 * Reads to the very end of a command: for a single statement the commit comes after its rows, so
 * rows prove nothing until the server is ready for the next command without an error in between.
 * Gives the first result, or the error that ended it.
 */
static enum err
collect(PGconn *conn, int64_t deadline_us, PGresult **out)
{
	PGresult *kept = NULL, *next;

	for (;;) {
		if (flush_and_wait(conn, deadline_us) != ERR_OK) {
			PQclear(kept);
			return ERR_DB_LOST;
		}
		next = PQgetResult(conn);
		if (next == NULL)
			break;
		if (kept == NULL || (is_good(kept) && !is_good(next))) {
			PQclear(kept);
			kept = next;
		} else {
			PQclear(next);
		}
	}
	*out = kept;
	return kept != NULL ? ERR_OK : ERR_DB_LOST;
}

enum err
db_outcome_wait(PGconn *conn, int64_t deadline_us, PGresult **out, bool *sound)
{
	const struct sqlstate *row = &lost;
	PGresult *result = NULL;
	enum err err = collect(conn, deadline_us, &result);

	*out = result;
	*sound = err == ERR_OK && PQstatus(conn) == CONNECTION_OK;
	if (err == ERR_OK && is_good(result))
		return ERR_OK;
	if (err == ERR_OK)
		row = find_sqlstate(result);
	*sound = *sound && row->sound;
	log_fault(row->err == ERR_DB_REFUSED ? LOG_ERROR : LOG_WARN, row->advice,
		err == ERR_OK ? PQresultErrorField(result, PG_DIAG_SQLSTATE) :
			clock_left_ms(deadline_us) == 0 ? "no answer in time" :
							  NULL);
	return row->err;
}

int
db_rows(const struct db_result *result)
{
	return PQntuples((const PGresult *)result);
}

const char *
db_value(const struct db_result *result, int row, int column, size_t *length)
{
	const PGresult *rows = (const PGresult *)result;

	if (PQgetisnull(rows, row, column))
		return NULL;
	if (length != NULL)
		*length = (size_t)PQgetlength(rows, row, column);
	return PQgetvalue(rows, row, column);
}

void
db_result_free(struct db_result *result)
{
	PQclear((PGresult *)result);
}

int64_t
db_int64(const char *value)
{
	const unsigned char *byte = (const unsigned char *)value;
	uint64_t number = 0;
	int i;

	for (i = 0; i < 8; i++)
		number = number << 8 | byte[i];
	return (int64_t)number;
}
