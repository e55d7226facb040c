/*
 * instantly_reply.h: reads Instantly's JSON.  Pure: bytes in, a verdict out.  Lenient about
 * members it does not know, strict about what may pass for acceptance.
 */
#ifndef WARMUP_INSTANTLY_REPLY_H
#define WARMUP_INSTANTLY_REPLY_H

#include "instantly.h"

#include <stdbool.h>
#include <stddef.h>

/* A job's id goes into a path: hex in practice, anything longer or stranger counts as none. */
#define JOB_ID_LEN_MAX 128

/* What a whole 2xx reply to the enable call says. */
struct enable_verdict {
	enum upstream outcome;           /* ACCEPTED, JOB_FAILED, ERROR_MEMBER or NOT_JSON */
	bool finished;                   /* the job ended already: nothing to follow */
	char job_id[JOB_ID_LEN_MAX + 1]; /* "" = none */
};

void reply_read_enable(
	const char *body, size_t len, const char *address, struct enable_verdict *verdict);

/* Whether a reply to GET background-jobs/{id} says that the job ended; if so, *failed tells
   whether it failed for this address. An unreadable one has not. */
bool reply_read_job(const char *body, size_t len, const char *address, bool *failed);

/* Whether a reply to GET accounts/{email} says that the address is being warmed up. */
bool reply_read_account(const char *body, size_t len);

/* Whether a reply is one JSON object at all and has an array of that name; NULL: any object. */
bool reply_is_object(const char *body, size_t len, const char *array);

/* {"emails":["<address>"]} and not a byte more: other members reach far beyond one inbox. */
enum err reply_write_enable_body(struct buf *body, const char *address) MUST_CHECK;

#endif
