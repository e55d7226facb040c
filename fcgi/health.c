/* health.c: whether the database answers, and nothing else: not a word on Instantly or why. */
#include "health.h"

#include "clock.h"

enum err
health(struct ctx *ctx, const struct route_call *call, struct answer *answer)
{
	int64_t start_us = clock_now_us();
	enum err err = db_ping(ctx->db, clock_deadline_us(ctx->config->db_timeout_ms));

	(void)call;
	ctx->db_us += clock_now_us() - start_us;
	return answer_health(answer, err == ERR_OK);
}
