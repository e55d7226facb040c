/*
 * retry_warmup.c: the way out for a stuck inbox: ask Instantly again, then move the row.
 *
 * retry_warmup() is the only place that knows the order of the steps, and decision.c the only one
 * that knows what follows from their outcomes.  Instantly is asked at most once a request, and no
 * connection, lock or transaction is held meanwhile; the swap is a compare-and-swap, so whoever
 * retries concurrently, crashes or hangs up, the row moves once.
 */
#include "retry_warmup.h"

#include "bearer.h"
#include "clock.h"
#include "decision.h"
#include "gate.h"
#include "log.h"
#include "uuid.h"

#include <string.h>

#define PAUSE_FIRST_US 20000  /* before a failed swap is repeated; doubles … */
#define PAUSE_MAX_US   500000 /* … up to this */

/* Steps 1 to 3: the caller and his account.  One round trip, in the documented order of judgement:
   key, body, id, account. */
static enum err
authenticate_and_load(struct ctx *ctx, const struct route_call *call)
{
	const struct request *request = call->request;
	const char *header = request->authorization, *token;
	unsigned char hash[API_KEY_HASH_BYTES];
	bool valid_id = uuid_is_valid(call->id, strlen(call->id));
	int64_t start_us;
	size_t len;
	enum err err;

	if (header == NULL || header[0] == '\0')
		header = request->redirect_authorization;
	err = bearer_parse(header, &token, &len);
	if (err != ERR_OK)
		return err;
	err = api_key_hash(token, len, hash);
	if (err != ERR_OK)
		return err;
	start_us = clock_now_us();
	err = account_load(ctx->db, hash, valid_id && request->body == ERR_OK ? call->id : NULL,
		clock_share_us(request->answer_by_us, ctx->config->db_timeout_ms), &ctx->caller,
		&ctx->account);
	ctx->db_us += clock_now_us() - start_us;
	if (err != ERR_NO_ACCOUNT)
		return err;
	if (request->body != ERR_OK)
		return request->body;
	return valid_id ? ERR_NO_ACCOUNT : ERR_INVALID_ID;
}

/* Until when the call may take: its own limit, and if the process is stopping, no longer than leaves
   the whole time for what comes after it. */
static int64_t
call_deadline_us(const struct ctx *ctx, const struct request *request)
{
	int after_ms = ctx->config->job_wait_ms + ctx->config->db_timeout_ms;

	return clock_share_us(request->answer_by_us - after_ms * CLOCK_US_PER_MS,
		ctx->config->upstream_timeout_ms);
}

/* Step 5. */
static enum upstream
call_instantly(struct ctx *ctx, int64_t deadline_us)
{
	int64_t start_us = clock_now_us();

	if (ctx->instantly == NULL && instantly_open(ctx->config, &ctx->instantly) != ERR_OK)
		return UPSTREAM_MAX; /* out of memory: an internal error, and nobody was asked */
	instantly_enable(ctx->instantly, ctx->account.email_address, deadline_us, &ctx->upstream);
	ctx->upstream_us += clock_now_us() - start_us;
	return ctx->upstream.outcome;
}

/* The account as read anew takes the place of the one in hand. */
static void
keep(struct ctx *ctx, const struct account *fresh)
{
	account_free(&ctx->account);
	ctx->account = *fresh;
}

/* Of the limit for step 6, what one try may take: one that hangs leaves time for another. */
static int64_t
one_try(const struct ctx *ctx, int64_t deadline_us)
{
	return clock_share_us(deadline_us, (ctx->config->db_timeout_ms + 1) / 2);
}

/* Step 6, one try. */
static enum swap
swap_account(struct ctx *ctx, int64_t deadline_us)
{
	struct account moved;
	bool has_row;
	enum err err = account_swap(ctx->db, ctx->account.id, ctx->account.user_id, &ACCOUNT_STUCK,
		&ACCOUNT_WARMING, one_try(ctx, deadline_us), &has_row, &moved);

	if (err == ERR_OK && has_row) {
		keep(ctx, &moved);
		return account_state_equal(&ctx->account.state, &ACCOUNT_WARMING) ? SWAP_MOVED :
										    SWAP_ALTERED;
	}
	account_free(&moved);
	switch ((int)err) {
	case ERR_OK:
		return SWAP_NO_ROW;
	case ERR_DB_LOST:
		return SWAP_LOST;
	case ERR_DB_AGAIN:
	case ERR_UNAVAILABLE: /* never sent */
		return SWAP_AGAIN;
	default:
		return SWAP_REFUSED;
	}
}

/* Step 6, when no row moved: what is there now? */
static enum reread
read_account(struct ctx *ctx, int64_t deadline_us)
{
	struct account now;
	enum err err = account_read(
		ctx->db, ctx->account.id, ctx->account.user_id, one_try(ctx, deadline_us), &now);

	if (err == ERR_OK) {
		keep(ctx, &now);
		if (account_state_equal(&ctx->account.state, &ACCOUNT_WARMING))
			return REREAD_WARMING;
		return account_state_equal(&ctx->account.state, &ACCOUNT_STUCK) ? REREAD_STUCK :
										  REREAD_OTHER;
	}
	account_free(&now);
	switch ((int)err) {
	case ERR_NO_ACCOUNT:
		return REREAD_GONE;
	case ERR_DB_LOST:
	case ERR_DB_AGAIN:
	case ERR_UNAVAILABLE:
		return REREAD_FAILED;
	default:
		return REREAD_REFUSED;
	}
}

/* Step 6 to its end: swap, and where needed swap or read again, until the outcome is known or the
   time for it is over. */
static enum err
move_account(struct ctx *ctx, struct facts *facts)
{
	int64_t start_us = clock_now_us(), pause_us = PAUSE_FIRST_US;
	int64_t deadline_us = clock_deadline_us(ctx->config->db_timeout_ms);
	struct decision next;

	while ((next = decide(facts)).step != STEP_ANSWER) {
		if (next.step == STEP_SWAP)
			facts->swap = swap_account(ctx, deadline_us);
		else
			facts->reread = read_account(ctx, deadline_us);
		if (facts->swap == SWAP_LOST)
			facts->unseen_commit = true;
		if (facts->swap == SWAP_AGAIN || facts->swap == SWAP_LOST ||
			facts->reread == REREAD_FAILED) {
			clock_sleep_us(pause_us, deadline_us);
			pause_us = pause_us * 2 < PAUSE_MAX_US ? pause_us * 2 : PAUSE_MAX_US;
		}
		facts->out_of_time = clock_left_ms(deadline_us) == 0;
	}
	ctx->db_us += clock_now_us() - start_us;
	if (facts->swap == SWAP_ALTERED || facts->reread == REREAD_STUCK)
		log_fault(LOG_ERROR, "a trigger or a policy keeps accounts from moving to warming",
			NULL);
	return next.err;
}

enum err
retry_warmup(struct ctx *ctx, const struct route_call *call, struct answer *answer)
{
	struct facts facts = { 0 };
	struct decision next;
	int64_t deadline_us;
	enum err err;

	/* 1. authenticate, 2. validate, 3. load */
	err = authenticate_and_load(ctx, call);
	if (err != ERR_OK)
		return err;

	/* 4. gate: anything but stuck is left alone, and Instantly is not called */
	facts.gate = gate_check(&ctx->account.state, ctx->account.email_address);
	next = decide(&facts);
	if (next.step != STEP_CALL)
		return next.err;

	/* 5. call, once: the caller repeats, we do not */
	deadline_us = call_deadline_us(ctx, call->request);
	if (clock_left_ms(deadline_us) == 0)
		return ERR_UNAVAILABLE;
	facts.upstream = call_instantly(ctx, deadline_us);
	next = decide(&facts);
	if (next.step != STEP_SWAP)
		return next.err;

	/* 6. swap: from here on the row is moved even if the caller has hung up */
	err = move_account(ctx, &facts);
	if (err != ERR_OK)
		return err;

	/* 7. answer */
	err = answer_account(answer, &ctx->account);
	return err == ERR_OK ? ERR_OK : ERR_NOT_CONFIRMED;
}
