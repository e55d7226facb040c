/*
 * instantly.h: the provider's calls, and what their replies mean for one address.
 */
#ifndef WARMUP_INSTANTLY_H
#define WARMUP_INSTANTLY_H

#include "config.h"
#include "err.h"

#include <stdint.h>

struct instantly;

/* What asking Instantly to warm up one address led to. */
enum upstream {
	UPSTREAM_NONE, /* not asked */
	UPSTREAM_ACCEPTED,
	UPSTREAM_REFUSED,      /* its status says no */
	UPSTREAM_JOB_FAILED,   /* accepted, but its job failed for this address */
	UPSTREAM_ERROR_MEMBER, /* a 2xx with an "error" in it */
	UPSTREAM_UNREACHABLE,
	UPSTREAM_TIMEOUT,
	UPSTREAM_TLS,
	UPSTREAM_INCOMPLETE,
	UPSTREAM_OVERSIZED,
	UPSTREAM_NOT_JSON,
	UPSTREAM_MAX
};

struct upstream_reply {
	enum upstream outcome;
	int status;        /* of the enable call, 0 = none */
	int retry_after_s; /* what to tell the caller: 1 to 3600 */
};

/* error.details.reason of a 502; "" for UPSTREAM_NONE and UPSTREAM_ACCEPTED. */
const char *instantly_reason(enum upstream outcome);

/* For one worker, or for one CGI request.  config must outlive it. */
enum err instantly_open(const struct config *config, struct instantly **instantly) MUST_CHECK;
void instantly_close(struct instantly *instantly);

/*
 * Asks for one address: the enable call, then, as its reply demands, the background job or the
 * account's state.  The enable call and the account's state take until the deadline at most, the
 * job another job_wait_ms.  Repeats nothing.
 */
void instantly_enable(struct instantly *instantly, const char *address, int64_t deadline_us,
	struct upstream_reply *reply);

/* Questions that change nothing, each under one scope of the key: accounts:read (are there any
   accounts?) and background-jobs:read (a job that never was). */
enum instantly_question { INSTANTLY_ACCOUNTS, INSTANTLY_JOBS };

/*
 * Asks such a question, for an operator.  The outcome is ACCEPTED: the scope is there; REFUSED: a
 * status that says no, in Instantly's JSON; NOT_JSON: any status, but not in its words; or how the
 * exchange failed.  Logs nothing.
 */
void instantly_probe(struct instantly *instantly, enum instantly_question question,
	int64_t deadline_us, struct upstream_reply *reply);

#endif
