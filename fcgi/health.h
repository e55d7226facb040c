/* health.h: GET /healthz. */
#ifndef WARMUP_HEALTH_H
#define WARMUP_HEALTH_H

#include "routes.h"

enum err health(struct ctx *ctx, const struct route_call *call, struct answer *answer) MUST_CHECK;

#endif
