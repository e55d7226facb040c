/* routes.h: from a request to its answer. */
#ifndef WARMUP_ROUTES_H
#define WARMUP_ROUTES_H

#include "answer.h"
#include "ctx.h"
#include "err.h"
#include "request.h"
#include "request_id.h"

/* What a handler is given beside its ctx. */
struct route_call {
	const struct request *request;
	const char *id; /* the {id} of the path as it came, NUL-terminated; "" if it has none */
};

/* Serves one request and logs it. Always leaves a complete answer. */
void routes_serve(struct ctx *ctx, const struct request *request, struct request_ids *ids,
	struct answer *answer);

/* Answers with an err without looking at the route: what a process says that cannot serve. */
void routes_refuse(enum err err, const struct request *request, struct request_ids *ids,
	struct answer *answer);

#endif
