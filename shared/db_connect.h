/*
 * db_connect.h: connects to the first host of the URL that answers.  Only for db_link.c.
 */
#ifndef WARMUP_DB_CONNECT_H
#define WARMUP_DB_CONNECT_H

#include <libpq-fe.h>
#include <stdint.h>

/*
 * A connection that is ready for statements, or NULL: then the reason is logged.  Of several hosts
 * each gets its connect_timeout if the URL states one, else an even share of the time left, so that
 * a silent host does not keep us from the others; all of them together end at the deadline.
 */
PGconn *db_connect(const char *url, int64_t deadline_us);

#endif
