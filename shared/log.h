/*
 * log.h: one JSON line a request and one a fault, on standard error, each in a single write.
 *
 * What may be logged is listed here.  Never a token, a key, a password, an email address, a body;
 * text from outside goes through the JSON writer, so a line is always one line.  A log that cannot
 * be written never fails a request.
 */
#ifndef WARMUP_LOG_H
#define WARMUP_LOG_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct buf;

/* Everything that is told of a request.  NULL or "" (0 for upstream_status): not known. */
struct log_request {
	const char *method; /* a known method, or "OTHER": never the client's own text */
	const char *route;  /* the pattern, never the path */
	int status;
	const char *code;
	int64_t duration_us, db_us, upstream_us;
	const char *account_id, *user_id, *key_prefix;
	int upstream_status;
};

void log_set_level(enum log_level level);

/* Faults as plain lines "program: what (detail)" instead of JSON: for a tool that people run. */
void log_set_plain(const char *program);

/* From now on a plain fault goes into lines, as "what (detail)" and a line end, and not to standard
   error; NULL ends that. For a tool of one thread that shows them in its own way. */
void log_collect(struct buf *lines);

/* Of "debug" … "error"; -1 for another name. */
int log_level_parse(const char *name);

/* The id that this thread's lines carry until the next call; NULL for none. The text must live
   that long. */
void log_set_request_id(const char *request_id);

void log_request(const struct log_request *request, enum log_level level);

/* A fault: what happened and what to do, both our own fixed words; detail, if not NULL, is a
   short code such as an SQLSTATE or a setting's name. */
void log_fault(enum log_level level, const char *what, const char *detail);

/* For faults that an outage repeats a thousand times a second: true once a second for each place.
   *quiet_until_us is the place's own memory, 0 at first. */
bool log_is_due(_Atomic int64_t *quiet_until_us);

#endif
