/*
 * ctx.h: what a handler works with: the worker's tools, and what became known of the request in
 * hand.  One a worker, never shared.
 */
#ifndef WARMUP_CTX_H
#define WARMUP_CTX_H

#include "account.h"
#include "config.h"
#include "db.h"
#include "instantly.h"

#include <stdint.h>

struct ctx {
	/* Of the worker. */
	const struct config *config;
	struct db *db;               /* shared by all workers */
	struct instantly *instantly; /* opened by the first call, or ahead of it */

	/* Of the request in hand: for the answer and for the log line. */
	struct caller caller;
	struct account account; /* as read last */
	struct upstream_reply upstream;
	int64_t db_us, upstream_us; /* time spent waiting for each */
};

#endif
