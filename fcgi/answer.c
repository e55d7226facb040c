/*
 * answer.c: see answer.h.  The order of members is part of the promise.  No byte from outside gets
 * into a header: values are our own words, numbers, and a request id of checked characters.
 */
#include "answer.h"

#include "clock.h"
#include "json.h"

#include <string.h>

#define HEAD_MAX      2048               /* nginx takes 4 KiB, the longest of ours is under 1 */
#define BODY_MAX      (16 * 1024 * 1024) /* columns of a megabyte each still fit */
#define BODY_RESERVE  2048               /* every error's, and most accounts' */
#define RETRY_AFTER_S 5

static const struct {
	int status;
	const char *phrase;
} phrases[] = {
	{ 200, "OK" },
	{ 204, "No Content" },
	{ 400, "Bad Request" },
	{ 401, "Unauthorized" },
	{ 404, "Not Found" },
	{ 405, "Method Not Allowed" },
	{ 409, "Conflict" },
	{ 413, "Payload Too Large" },
	{ 500, "Internal Server Error" },
	{ 502, "Bad Gateway" },
	{ 503, "Service Unavailable" },
};

void
answer_init(struct answer *answer)
{
	memset(answer, 0, sizeof(*answer));
	buf_init(&answer->head, HEAD_MAX);
	buf_init(&answer->body, BODY_MAX);
	/* Out of memory, there is still an answer. */
	buf_reserve(&answer->head, HEAD_MAX);
	buf_reserve(&answer->body, BODY_RESERVE);
}

void
answer_free(struct answer *answer)
{
	buf_free(&answer->head);
	buf_free(&answer->body);
}

void
answer_reset(struct answer *answer)
{
	struct buf head = answer->head, body = answer->body;

	memset(answer, 0, sizeof(*answer));
	answer->head = head;
	answer->body = body;
	buf_reset(&answer->head);
	buf_reset(&answer->body);
}

static enum err
done(struct answer *answer, int status, const char *code)
{
	answer->status = status;
	answer->code = code;
	return buf_check(&answer->body);
}

static void
put_text(struct buf *body, const char *key, const char *text)
{
	json_key(body, key);
	json_text(body, text);
}

static void
put_time(struct buf *body, const char *key, bool has, int64_t unix_us)
{
	char text[CLOCK_TEXT_MAX];

	put_text(body, key, has ? clock_format(unix_us, text) : NULL);
}

static void
put_domain(struct buf *body, const struct account *account)
{
	json_key(body, "email_domains");
	if (account->domain_id[0] == '\0') {
		json_null(body);
		return;
	}
	json_open(body, '{');
	put_text(body, "id", account->domain_id);
	put_text(body, "domain", account->domain);
	put_text(body, "status", account->domain_status);
	json_close(body, '}');
}

enum err
answer_account(struct answer *answer, const struct account *account)
{
	struct buf *body = &answer->body;

	json_open(body, '{');
	json_key(body, "account");
	json_open(body, '{');
	put_text(body, "id", account->id);
	put_text(body, "user_id", account->user_id);
	put_text(body, "type", account->type);
	put_text(body, "email_address", account->email_address);
	put_text(body, "status", account->state.status);
	put_text(body, "warmup_status", account->state.warmup_status);
	put_text(body, "agentmail_inbox_id", account->agentmail_inbox_id);
	json_key(body, "daily_limit");
	if (account->has_daily_limit)
		json_int(body, account->daily_limit);
	else
		json_null(body);
	put_time(body, "created_at", account->has_created_at, account->created_at_us);
	put_time(body, "updated_at", account->has_updated_at, account->updated_at_us);
	put_domain(body, account);
	json_close(body, '}');
	json_close(body, '}');
	return done(answer, 200, "ok");
}

enum err
answer_health(struct answer *answer, bool ok)
{
	json_open(&answer->body, '{');
	put_text(&answer->body, "status", ok ? "ok" : "unavailable");
	json_close(&answer->body, '}');
	return done(answer, ok ? 200 : 503, ok ? "ok" : "unavailable");
}

enum err
answer_options(struct answer *answer)
{
	return done(answer, 204, "ok");
}

static void
put_state(struct buf *body, const struct account_state *state)
{
	json_open(body, '{');
	put_text(body, "status", state->status);
	put_text(body, "warmup_status", state->warmup_status);
	json_close(body, '}');
}

static void
put_upstream(struct buf *body, const struct upstream_reply *upstream, bool with_status)
{
	json_open(body, '{');
	if (with_status) {
		json_key(body, "upstream_status");
		json_int(body, upstream->status);
	}
	put_text(body, "reason", instantly_reason(upstream->outcome));
	json_close(body, '}');
}

/* The details member, for the errors that have one. */
static void
put_details(struct buf *body, enum err err, const struct ctx *ctx)
{
	bool rejected = err == ERR_UPSTREAM_REJECTED;
	bool upstream = rejected || err == ERR_UPSTREAM_UNAVAILABLE;
	bool state = err == ERR_NOT_STUCK || err == ERR_NO_ADDRESS || err == ERR_MOVED_MEANWHILE;

	if (!upstream && !state && err != ERR_NOT_CONFIRMED)
		return;
	json_key(body, "details");
	if (state) {
		put_state(body, &ctx->account.state);
	} else if (upstream) {
		put_upstream(body, &ctx->upstream, rejected);
	} else {
		json_open(body, '{');
		put_text(body, "upstream", "enabled");
		json_close(body, '}');
	}
}

void
answer_error(struct answer *answer, enum err err, const struct ctx *ctx)
{
	const struct err_info *info = err_info(err);
	struct buf *body = &answer->body;

	buf_reset(body);
	json_open(body, '{');
	json_key(body, "error");
	json_open(body, '{');
	put_text(body, "code", info->code);
	put_text(body, "message", info->message);
	put_text(body, "request_id", answer->request_id);
	put_details(body, err, ctx);
	json_close(body, '}');
	json_close(body, '}');
	answer->challenge = info->status == 401;
	if (err == ERR_UPSTREAM_REJECTED)
		answer->retry_after_s = ctx->upstream.retry_after_s;
	else if (info->status == 502 || info->status == 503)
		answer->retry_after_s = RETRY_AFTER_S;
	/* A state too long for a body: better no body than half of one. */
	if (done(answer, info->status, info->code) != ERR_OK)
		buf_reset(body);
}

static const char *
phrase_of(int status)
{
	size_t i;

	for (i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
		if (phrases[i].status == status)
			return phrases[i].phrase;
	return "Unknown";
}

void
answer_finish(struct answer *answer)
{
	struct buf *head = &answer->head;

	buf_reset(head);
	buf_printf(head, "Status: %d %s\r\n", answer->status, phrase_of(answer->status));
	if (answer->status != 204)
		buf_printf(head,
			"Content-Type: application/json; charset=utf-8\r\n"
			"Content-Length: %zu\r\n",
			answer->body.len);
	buf_puts(head, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
	buf_printf(head, "X-Request-Id: %s\r\n", answer->request_id);
	if (answer->challenge)
		buf_puts(head, "WWW-Authenticate: Bearer\r\n");
	if (answer->retry_after_s > 0)
		buf_printf(head, "Retry-After: %d\r\n", answer->retry_after_s);
	if (answer->allow != NULL)
		buf_printf(head, "Allow: %s\r\n", answer->allow);
	buf_puts(head, "\r\n");
}
