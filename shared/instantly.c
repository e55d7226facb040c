/*
 * instantly.c: see instantly.h.  Sends and waits; what a reply means is instantly_reply.c.
 */
#include "instantly.h"

#include "clock.h"
#include "http.h"
#include "instantly_reply.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

#define JOB_FIRST_WAIT_MS     100 /* Instantly's recorded job took 200 ms */
#define RETRY_AFTER_DEFAULT_S 5
#define RETRY_AFTER_MAX_S     3600
#define PATH_MAX_BYTES        4096 /* an address of 512 bytes, each percent-encoded, fits */
#define BODY_MAX_BYTES        8192

struct instantly {
	const struct config *config;
	struct http *http;
	struct http_reply reply;
	struct buf path, body;
};

static const char *const reasons[UPSTREAM_MAX] = {
	[UPSTREAM_NONE] = "",
	[UPSTREAM_ACCEPTED] = "",
	[UPSTREAM_REFUSED] = "refused",
	[UPSTREAM_JOB_FAILED] = "job_failed",
	[UPSTREAM_ERROR_MEMBER] = "error",
	[UPSTREAM_UNREACHABLE] = "unreachable",
	[UPSTREAM_TIMEOUT] = "timeout",
	[UPSTREAM_TLS] = "tls",
	[UPSTREAM_INCOMPLETE] = "incomplete",
	[UPSTREAM_OVERSIZED] = "oversized",
	[UPSTREAM_NOT_JSON] = "not_json",
};

/* Exchanges that brought no reply. */
static const enum upstream by_end[] = {
	[HTTP_COMPLETE] = UPSTREAM_NONE,
	[HTTP_UNREACHABLE] = UPSTREAM_UNREACHABLE,
	[HTTP_TIMEOUT] = UPSTREAM_TIMEOUT,
	[HTTP_TLS] = UPSTREAM_TLS,
	[HTTP_INCOMPLETE] = UPSTREAM_INCOMPLETE,
	[HTTP_OVERSIZED] = UPSTREAM_OVERSIZED,
	[HTTP_GARBLED] = UPSTREAM_NOT_JSON,
};

/* Refusals that only the operator can mend; the caller gets a 502 like any other. */
static const struct {
	int status;
	const char *advice;
} operator_faults[] = {
	{ 401, "Instantly refused our key: check INSTANTLY_API_KEY" },
	{ 402, "Instantly wants a paid plan for this workspace" },
	{ 403, "Instantly forbids the call: the key's scopes must include accounts:update" },
};

const char *
instantly_reason(enum upstream outcome)
{
	return (unsigned)outcome < UPSTREAM_MAX ? reasons[outcome] : "";
}

enum err
instantly_open(const struct config *config, struct instantly **out)
{
	const struct http_options options = { config->instantly_api_url, config->instantly_api_key,
		config->instantly_ca_file, config->upstream_connect_timeout_ms, NULL };
	struct instantly *instantly = calloc(1, sizeof(*instantly));
	enum err err;

	if (instantly == NULL)
		return ERR_NO_MEMORY;
	instantly->config = config;
	buf_init(&instantly->reply.body, HTTP_REPLY_MAX);
	buf_init(&instantly->path, PATH_MAX_BYTES);
	buf_init(&instantly->body, BODY_MAX_BYTES);
	err = http_open(&options, &instantly->http);
	if (err != ERR_OK) {
		instantly_close(instantly);
		return err;
	}
	*out = instantly;
	return ERR_OK;
}

void
instantly_close(struct instantly *instantly)
{
	if (instantly == NULL)
		return;
	http_close(instantly->http);
	buf_free(&instantly->reply.body);
	buf_free(&instantly->path);
	buf_free(&instantly->body);
	free(instantly);
}

/* GET prefix + text, percent-encoded; whether a whole 200 came back. */
static bool
get(struct instantly *instantly, const char *prefix, const char *text, int64_t deadline_us)
{
	buf_reset(&instantly->path);
	buf_puts(&instantly->path, prefix);
	http_escape(&instantly->path, text);
	if (buf_check(&instantly->path) != ERR_OK)
		return false;
	http_call(
		instantly->http, buf_text(&instantly->path), NULL, deadline_us, &instantly->reply);
	return instantly->reply.end == HTTP_COMPLETE && instantly->reply.status == 200;
}

/* Follows a queued job for a while: false if it failed for this address.  A job still running, or
   one that cannot be read (the key may lack that scope), leaves the acceptance standing. */
static bool
job_went_well(struct instantly *instantly, const char *id, const char *address)
{
	int64_t deadline_us = clock_deadline_us(instantly->config->job_wait_ms);
	const struct buf *body = &instantly->reply.body;
	int wait_ms;
	bool failed;

	for (wait_ms = JOB_FIRST_WAIT_MS; wait_ms < clock_left_ms(deadline_us); wait_ms *= 2) {
		clock_sleep_us(wait_ms * CLOCK_US_PER_MS, deadline_us);
		if (!get(instantly, "/background-jobs/", id, deadline_us))
			return true;
		if (reply_read_job(buf_text(body), body->len, address, &failed))
			return !failed;
	}
	return true;
}

/* 400, 409 and 422 may mean "already warming": the account's own state decides.  Within what the
   enable call left of its limit, so that both together take no longer than one may. */
static bool
is_warming_already(
	struct instantly *instantly, int status, const char *address, int64_t deadline_us)
{
	const struct buf *body = &instantly->reply.body;

	if (status != 400 && status != 409 && status != 422)
		return false;
	return get(instantly, "/accounts/", address, deadline_us) &&
		reply_read_account(buf_text(body), body->len);
}

static void
log_refusal(int status)
{
	size_t i;

	for (i = 0; i < sizeof(operator_faults) / sizeof(operator_faults[0]); i++)
		if (operator_faults[i].status == status)
			log_fault(LOG_ERROR, operator_faults[i].advice, NULL);
}

/* What a whole reply of the enable call leads to. */
static enum upstream
judge(struct instantly *instantly, int status, const char *address, int64_t deadline_us)
{
	struct enable_verdict verdict;

	if (status < 200 || status > 299) {
		log_refusal(status);
		return is_warming_already(instantly, status, address, deadline_us) ?
			UPSTREAM_ACCEPTED :
			UPSTREAM_REFUSED;
	}
	reply_read_enable(
		buf_text(&instantly->reply.body), instantly->reply.body.len, address, &verdict);
	if (verdict.outcome == UPSTREAM_ACCEPTED && !verdict.finished &&
		verdict.job_id[0] != '\0' && !job_went_well(instantly, verdict.job_id, address))
		return UPSTREAM_JOB_FAILED;
	return verdict.outcome;
}

void
instantly_enable(struct instantly *instantly, const char *address, int64_t deadline_us,
	struct upstream_reply *out)
{
	const struct http_reply *reply = &instantly->reply;

	memset(out, 0, sizeof(*out));
	out->retry_after_s = RETRY_AFTER_DEFAULT_S;
	out->outcome = UPSTREAM_NOT_JSON;
	buf_reset(&instantly->body);
	if (reply_write_enable_body(&instantly->body, address) != ERR_OK)
		return; /* the gate lets no such address through */
	http_call(instantly->http, "/accounts/warmup/enable", buf_text(&instantly->body),
		deadline_us, &instantly->reply);
	out->status = reply->status;
	if (reply->retry_after_s >= 1 && reply->retry_after_s <= RETRY_AFTER_MAX_S)
		out->retry_after_s = (int)reply->retry_after_s;
	out->outcome = reply->end != HTTP_COMPLETE ?
		by_end[reply->end] :
		judge(instantly, out->status, address, deadline_us);
}

void
instantly_probe(struct instantly *instantly, enum instantly_question question, int64_t deadline_us,
	struct upstream_reply *out)
{
	/* What is asked, and how it is answered where the scope is there. */
	static const struct {
		const char *path, *array;
		int other_status;
	} questions[] = {
		[INSTANTLY_ACCOUNTS] = { "/accounts?limit=1", "items", 0 },
		[INSTANTLY_JOBS] = { "/background-jobs/000000000000000000000000", NULL, 404 },
	};
	const struct http_reply *reply = &instantly->reply;
	const struct buf *body = &reply->body;

	memset(out, 0, sizeof(*out));
	http_call(instantly->http, questions[question].path, NULL, deadline_us, &instantly->reply);
	out->status = reply->status;
	if (reply->end != HTTP_COMPLETE)
		out->outcome = by_end[reply->end];
	else if (!reply_is_object(buf_text(body), body->len,
			 reply->status == 200 ? questions[question].array : NULL))
		out->outcome = UPSTREAM_NOT_JSON;
	else if (reply->status == 200 || reply->status == questions[question].other_status)
		out->outcome = UPSTREAM_ACCEPTED;
	else
		out->outcome = UPSTREAM_REFUSED;
}
