/*
 * db.h: PostgreSQL: a pool of connections, each statement under one deadline.
 *
 * All waiting goes through libpq's asynchronous interface and poll() against a monotonic deadline,
 * connecting included: connect_timeout is per host and on the wall clock, statement_timeout does
 * not cover the wait for a commit, and TCP timers do not notice a stopped server process.
 *
 * A worker holds a connection only while a statement runs.  Connections are opened when needed and
 * replaced when broken.  No transaction is ever open between two calls.  Results are binary, so
 * neither the session's time zone nor its date style matters.
 */
#ifndef WARMUP_DB_H
#define WARMUP_DB_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct db;
struct db_result;

#define DB_PARAMS_MAX 6 /* the most any statement takes */

struct db_statement {
	const char *name; /* of the prepared statement */
	const char *sql;
	int params;
};

/* A parameter: text, or length bytes of binary data. NULL is SQL NULL. */
struct db_param {
	const char *value;
	int length; /* of binary data; 0 = NUL-terminated text */
};

struct db_options {
	const char *url; /* libpq connection URI or keyword string; must outlive the pool */
	int connections; /* most to open */
	bool prepared;   /* prepare the statements on each new connection, and have the server end
			    what we gave up on after statement_timeout_ms; neither behind a pooler */
	int statement_timeout_ms;
	const struct db_statement *statements;
	size_t statement_count;
};

enum err db_open(const struct db_options *options, struct db **db) MUST_CHECK;
void db_close(struct db *db);

/* Opens one of the pool's connections ahead of its first use; a failure is logged only. */
void db_warm(struct db *db, int64_t deadline_us);

/*
 * Runs one of the pool's statements.  ERR_OK: *result must be freed with db_result_free().
 * ERR_UNAVAILABLE: never sent, no connection was to be had in time.  ERR_DB_LOST, ERR_DB_AGAIN,
 * ERR_DB_REFUSED: see err.h.  Logs the fault, never the server's text: it may quote a row.
 */
enum err db_run(struct db *db, const struct db_statement *statement, const struct db_param *params,
	int64_t deadline_us, struct db_result **result) MUST_CHECK;

/* Runs a script of several statements as one transaction; the server's text of a failure goes to
   message (of size bytes), for an operator's eyes. */
enum err db_script(
	struct db *db, const char *sql, int64_t deadline_us, char *message, size_t size) MUST_CHECK;

/* Why a statement would fail, in the server's own words: for an operator's eyes. */
struct db_message {
	char sqlstate[6]; /* "" = the connection failed, which is logged; text is "" then, too */
	char text[512];
};

/* Has the server parse and plan a statement and judge the login's right to it, without running it
   and without leaving anything behind, even on a connection that a pooler lends to many. */
enum err db_explain(struct db *db, const struct db_statement *statement, int64_t deadline_us,
	struct db_message *message) MUST_CHECK;

/* The number of our server process as told on connecting; a pooler tells one of its own. */
enum err db_backend_pid(struct db *db, int64_t deadline_us, int *pid) MUST_CHECK;

/* Whether the database answers a trivial statement. */
enum err db_ping(struct db *db, int64_t deadline_us) MUST_CHECK;

/* Reading a result: number of rows; a value's bytes (NUL-terminated, too), NULL for SQL NULL. */
int db_rows(const struct db_result *result);
const char *db_value(const struct db_result *result, int row, int column, size_t *length);
void db_result_free(struct db_result *result);

/* Values of binary results, in network byte order. */
int64_t db_int64(const char *value);

/* For the table of settings: whether libpq can make sense of a connection string. */
enum err db_url_check(char *url);

#endif
