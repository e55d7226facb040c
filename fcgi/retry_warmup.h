/* retry_warmup.h: PATCH /api/email/accounts/{id}/retry-warmup. */
#ifndef WARMUP_RETRY_WARMUP_H
#define WARMUP_RETRY_WARMUP_H

#include "routes.h"

enum err retry_warmup(
	struct ctx *ctx, const struct route_call *call, struct answer *answer) MUST_CHECK;

#endif
