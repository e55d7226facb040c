/*
 * db_link.h: one database connection, as db.c's pool uses it.  Nobody else includes this.
 */
#ifndef WARMUP_DB_LINK_H
#define WARMUP_DB_LINK_H

#include "db.h"

struct db_link;

/* Connects, and prepares the statements if the options say so.  ERR_UNAVAILABLE, logged, if that
   fails or takes past the deadline. */
enum err db_link_open(
	const struct db_options *options, int64_t deadline_us, struct db_link **link) MUST_CHECK;
void db_link_close(struct db_link *link);

/* Whether the server has neither closed the connection nor said anything while it was idle. */
bool db_link_alive(struct db_link *link);

int db_link_backend_pid(const struct db_link *link);

/* As db_run(), db_script() and db_explain(); *sound: the connection may be used again. */
enum err db_link_run(struct db_link *link, const struct db_statement *statement,
	const struct db_param *params, int64_t deadline_us, struct db_result **result,
	bool *sound) MUST_CHECK;
enum err db_link_script(struct db_link *link, const char *sql, int64_t deadline_us, char *message,
	size_t size, bool *sound) MUST_CHECK;
enum err db_link_explain(struct db_link *link, const struct db_statement *statement,
	int64_t deadline_us, struct db_message *message, bool *sound) MUST_CHECK;

#endif
