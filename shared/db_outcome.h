/*
 * db_outcome.h: waits on a connection, and says what became of a command.  Only for db_link.c.
 */
#ifndef WARMUP_DB_OUTCOME_H
#define WARMUP_DB_OUTCOME_H

#include "db.h"

#include <libpq-fe.h>

/* Waits until the connection's socket is ready for some of the events; ERR_DB_LOST if that does
   not happen in time. */
enum err db_outcome_poll(const PGconn *conn, short events, int64_t deadline_us) MUST_CHECK;

/*
 * Waits for the end of a command that was handed to libpq.  *result is its result, also that of an
 * error, or NULL; the caller clears it.  *sound: the connection may be used again.  Logs an error:
 * its SQLSTATE, never the server's text, which may quote a row.
 */
enum err db_outcome_wait(
	PGconn *conn, int64_t deadline_us, PGresult **result, bool *sound) MUST_CHECK;

/* What to log of a command that could not even be handed over. */
extern const char DB_OUTCOME_BROKEN[];

#endif
