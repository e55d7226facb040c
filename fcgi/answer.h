/* answer.h: replies: status, headers and JSON.  Nothing else writes one. */
#ifndef WARMUP_ANSWER_H
#define WARMUP_ANSWER_H

#include "buf.h"
#include "ctx.h"
#include "err.h"
#include "request.h"

#include <stdbool.h>

struct answer {
	int status;
	const char *code;  /* for the log; "ok" or the error's code */
	const char *allow; /* the value of Allow; NULL = none */
	bool challenge;    /* WWW-Authenticate: Bearer */
	int retry_after_s; /* 0 = none */
	bool head_only;    /* headers as with the body, but without it */
	char request_id[REQUEST_ID_TEXT_MAX + 1];
	struct buf head, body;
};

void answer_init(struct answer *answer);
void answer_free(struct answer *answer);

/* Begins a new answer; keeps the buffers' memory. */
void answer_reset(struct answer *answer);

/* The bodies.  ERR_TOO_LONG or ERR_NO_MEMORY if one could not be built. */
enum err answer_account(struct answer *answer, const struct account *account) MUST_CHECK;
enum err answer_health(struct answer *answer, bool ok) MUST_CHECK;
enum err answer_options(struct answer *answer) MUST_CHECK;

/* The reply to an err, with the details that its row of the contract asks for. */
void answer_error(struct answer *answer, enum err err, const struct ctx *ctx);

/* Fills head with the status line and the headers, in the form of CGI. */
void answer_finish(struct answer *answer);

#endif
