/*
 * fuzz_reply.c: any replies of Instantly to one call, through instantly.c and instantly_reply.c.
 *
 * Property: the outcome is the one that the contract gives, read independently, with a strict JSON
 * reader of its own.  So nothing passes for acceptance that is not a 2xx with an empty body or one
 * whole JSON object that carries neither an error member nor a job that failed for our address; and
 * nothing valid is refused but what cJSON is known not to read.  The requests are checked, too: one
 * enable call, its body exactly our address, the job's id and the address safe in their paths, no
 * more polls than the time allows.
 *
 * An input: a line with the address, one with how long the job is followed (ms), then the replies,
 * each "--- STATUS RETRY_AFTER END" on a line of its own and the body up to the next of these.
 */
#include "fuzz.h"
#include "reference_json.h"

#include "clock.h"
#include "config.h"
#include "gate.h"
#include "http.h"
#include "instantly.h"
#include "instantly_reply.h"

#include <ctype.h>
#include <strings.h>

#define REPLIES_MAX 8

/* Refused though it is JSON, which is safe: what is nested deeper, and \uD800 alone.  Longer numbers
   are refused by some versions of cJSON. */
#define CJSON_DEPTH_MAX  1000
#define CJSON_NUMBER_MAX 63

struct reply {
	int status;
	long retry_after_s;
	enum http_end end;
	struct span body;
};

static struct instantly *instantly;
static struct config config;

/* The world of one input: its replies, what was asked, and a clock that only our waits move. */
static struct reply replies[REPLIES_MAX];
static size_t replies_count, calls;
static const char *address;
static char job_id[256];
static int64_t now_us;

int64_t __wrap_clock_deadline_us(int limit_ms);
int __wrap_clock_left_ms(int64_t deadline_us);
void __wrap_clock_sleep_us(int64_t pause_us, int64_t deadline_us);
void __wrap_http_call(struct http *http, const char *path, const char *body, int64_t deadline_us,
	struct http_reply *reply);

int64_t
__wrap_clock_deadline_us(int limit_ms)
{
	return now_us + limit_ms * CLOCK_US_PER_MS;
}

int
__wrap_clock_left_ms(int64_t deadline_us)
{
	return deadline_us > now_us ? (int)((deadline_us - now_us + 999) / 1000) : 0;
}

void
__wrap_clock_sleep_us(int64_t pause_us, int64_t deadline_us)
{
	now_us = now_us + pause_us < deadline_us ? now_us + pause_us : deadline_us;
}

/* --- the requests --------------------------------------------------------------------------- */

static void
check_enable(const char *path, const char *body)
{
	struct span whole = { body, body != NULL ? strlen(body) : 0 }, address_literal;

	MUST(strcmp(path, "/accounts/warmup/enable") == 0, "the first call is %s", path);
	MUST(span_starts(whole, "{\"emails\":[") && whole.len > 13 &&
			strcmp(body + whole.len - 2, "]}") == 0,
		"its body is %s", body);
	address_literal = (struct span){ body + 11, whole.len - 13 };
	MUST(reference_json_valid(whole, NULL) && reference_json_valid(address_literal, NULL) &&
			reference_json_is(address_literal, address),
		"\"%s\" is asked for as %s", address, body);
}

static void
check_job_path(const char *path)
{
	size_t len = strlen("/background-jobs/");

	MUST(strncmp(path, "/background-jobs/", len) == 0 && strcmp(path + len, job_id) == 0,
		"%s for the job %s", path, job_id);
	for (const char *c = path + len; *c != '\0'; c++)
		MUST(isalnum((unsigned char)*c) || *c == '_' || *c == '-', "unsafe: %s", path);
}

static void
check_account_path(const char *path)
{
	const char *at = path + strlen("/accounts/"), *expected = address;
	unsigned byte;

	MUST(strncmp(path, "/accounts/", strlen("/accounts/")) == 0, "asked for %s", path);
	for (; *at != '\0'; at++, expected++) {
		MUST(*at == '%' || isalnum((unsigned char)*at) || strchr("-._~", *at) != NULL,
			"unsafe: %s", path);
		byte = (unsigned char)*at;
		if (*at == '%') {
			MUST(sscanf(at, "%%%2X", &byte) == 1, "unsafe: %s", path);
			at += 2;
		}
		MUST(byte == (unsigned char)*expected, "\"%s\" became %s", address, path);
	}
	MUST(*expected == '\0', "\"%s\" became %s", address, path);
}

void
__wrap_http_call(struct http *http, const char *path, const char *body, int64_t deadline_us,
	struct http_reply *reply)
{
	static const struct reply none = { .end = HTTP_TIMEOUT };
	const struct reply *next = calls < replies_count ? &replies[calls] : &none;

	(void)http;
	MUST(deadline_us > now_us, "a call without time for it");
	if (calls == 0)
		check_enable(path, body);
	else
		MUST(body == NULL, "a second POST");
	if (calls > 0 && replies[0].status / 100 == 2)
		check_job_path(path);
	else if (calls > 0)
		check_account_path(path);
	calls++;
	buf_reset(&reply->body);
	buf_add(&reply->body, next->body.at, next->body.len);
	reply->end = next->end;
	reply->status = next->end == HTTP_COMPLETE ? next->status : 0;
	reply->retry_after_s = next->end == HTTP_COMPLETE ? next->retry_after_s : 0;
}

/* --- what the contract says of the replies ---------------------------------------------------- */

static bool long_numbers_are_read;

static bool
is_beyond_us(const struct reference_json *facts)
{
	return facts->depth > CJSON_DEPTH_MAX || facts->lone_surrogate ||
		(facts->longest_number > CJSON_NUMBER_MAX && !long_numbers_are_read);
}

/* A body that is one whole JSON object, without white space around it; no bytes for any other. */
static struct span
object_of(struct span body)
{
	struct span none = { NULL, 0 };
	struct reference_json facts;

	if (span_starts(body, "\xEF\xBB\xBF")) /* may be passed over, says RFC 8259 */
		body = (struct span){ body.at + 3, body.len - 3 };
	if (!reference_json_valid(body, &facts) || is_beyond_us(&facts))
		return none;
	body = reference_json_trim(body);
	return body.at[0] == '{' ? body : none;
}

static double
number_of(struct span value)
{
	char *text;
	double number;

	if (value.len == 0 || (value.at[0] != '-' && !isdigit((unsigned char)value.at[0])))
		return 0;
	text = span_copy(value);
	number = strtod(text, NULL);
	free(text);
	return number;
}

/* Any member of that name, not only the first. */
static bool
has_error(struct span object)
{
	struct span key, value;
	size_t at = 0;

	while (span_starts(object, "{") && reference_json_next(object, &at, &key, &value))
		if (reference_json_is(key, "error") && !span_is(value, "null"))
			return true;
	return false;
}

static bool
is_address(struct span literal)
{
	char *text;
	size_t len;
	bool is;

	if (!span_starts(literal, "\""))
		return false;
	text = span_copy(literal);
	len = reference_json_decode(literal, text);
	is = len == strlen(address) && strncasecmp(text, address, len) == 0;
	free(text);
	return is;
}

static bool
failed_for_address(struct span job)
{
	struct span data = reference_json_member(job, "data"), key, item;
	struct span items = reference_json_member(data, "processed_emails");
	bool listed = false;
	size_t at = 0;

	while ((span_starts(items, "[") || span_starts(items, "{")) &&
		reference_json_next(items, &at, &key, &item)) {
		if (!is_address(reference_json_member(item, "email")))
			continue;
		listed = true;
		if (reference_json_is(reference_json_member(item, "status"), "failed") ||
			has_error(item))
			return true;
	}
	return !listed && number_of(reference_json_member(data, "failed_count")) > 0;
}

enum job { JOB_GOES_ON, JOB_WENT_WELL, JOB_FAILED };

static enum job
job_of(struct span object)
{
	struct span status = reference_json_member(object, "status");

	if (reference_json_is(status, "failed") || reference_json_is(status, "cancelled"))
		return JOB_FAILED;
	if (!reference_json_is(status, "success"))
		return JOB_GOES_ON;
	return failed_for_address(object) ? JOB_FAILED : JOB_WENT_WELL;
}

/* The id of a job that can be followed, "" for none. */
static void
take_job_id(struct span object)
{
	struct span id = reference_json_member(object, "id");
	char *text;
	size_t len, i;

	job_id[0] = '\0';
	if (!span_starts(id, "\""))
		return;
	text = span_copy(id);
	len = reference_json_decode(id, text);
	for (i = 0; i < len; i++)
		if (!isascii(text[i]) ||
			(!isalnum((unsigned char)text[i]) && text[i] != '_' && text[i] != '-'))
			break;
	if (i == len && len <= 128) {
		memcpy(job_id, text, len);
		job_id[len] = '\0';
	}
	free(text);
}

/* Follows the job through the replies behind the first. */
static enum upstream
follow(void)
{
	int elapsed_ms = 0, wait_ms;
	size_t next = 1;

	for (wait_ms = 100; elapsed_ms + wait_ms < config.job_wait_ms; wait_ms *= 2, next++) {
		enum job job;

		elapsed_ms += wait_ms;
		if (next >= replies_count || replies[next].end != HTTP_COMPLETE ||
			replies[next].status != 200)
			return UPSTREAM_ACCEPTED;
		job = job_of(object_of(replies[next].body));
		if (job != JOB_GOES_ON)
			return job == JOB_FAILED ? UPSTREAM_JOB_FAILED : UPSTREAM_ACCEPTED;
	}
	return UPSTREAM_ACCEPTED;
}

static enum upstream
refused_or_warming(int status)
{
	struct span warmup_status;

	if ((status != 400 && status != 409 && status != 422) || replies_count < 2 ||
		replies[1].end != HTTP_COMPLETE || replies[1].status != 200)
		return UPSTREAM_REFUSED;
	warmup_status = reference_json_member(object_of(replies[1].body), "warmup_status");
	return number_of(warmup_status) == 1.0 ? UPSTREAM_ACCEPTED : UPSTREAM_REFUSED;
}

static enum upstream
expected_outcome(void)
{
	static const enum upstream by_end[] = { UPSTREAM_NONE, UPSTREAM_UNREACHABLE,
		UPSTREAM_TIMEOUT, UPSTREAM_TLS, UPSTREAM_INCOMPLETE, UPSTREAM_OVERSIZED,
		UPSTREAM_NOT_JSON };
	const struct reply *reply = &replies[0];
	struct span object;
	enum job job;

	if (replies_count == 0)
		return UPSTREAM_TIMEOUT;
	if (reply->end != HTTP_COMPLETE)
		return by_end[reply->end];
	if (reply->status / 100 != 2)
		return refused_or_warming(reply->status);
	if (reply->body.len == 0)
		return UPSTREAM_ACCEPTED;
	object = object_of(reply->body);
	if (object.len == 0)
		return UPSTREAM_NOT_JSON;
	take_job_id(object);
	job = job_of(object);
	if (job == JOB_FAILED)
		return UPSTREAM_JOB_FAILED;
	if (has_error(object))
		return UPSTREAM_ERROR_MEMBER;
	return job == JOB_GOES_ON && job_id[0] != '\0' ? follow() : UPSTREAM_ACCEPTED;
}

/* --- an input --------------------------------------------------------------------------------- */

static bool
read_reply(struct span line, struct reply *reply)
{
	char *text = span_copy(line);
	int status = 200, end = 0;
	long retry_after_s = 0;
	bool is = strncmp(text, "---", 3) == 0;

	if (is) {
		sscanf(text + 3, "%9d %9ld %9d", &status, &retry_after_s, &end);
		*reply = (struct reply){ status, retry_after_s,
			(enum http_end)((unsigned)end % (HTTP_GARBLED + 1)), { NULL, 0 } };
	}
	free(text);
	return is;
}

static void
read_replies(struct span rest)
{
	struct span line;

	replies_count = 0;
	while (span_cut_line(&rest, &line)) {
		struct span *body = replies_count > 0 ? &replies[replies_count - 1].body : NULL;

		if (replies_count < REPLIES_MAX && read_reply(line, &replies[replies_count]))
			replies_count++;
		else if (body != NULL && body->at == NULL)
			*body = line;
		else if (body != NULL)
			body->len = (size_t)(line.at + line.len - body->at);
	}
}

/* The same bodies without a NUL behind them, in memory of exactly their size. */
static void
read_bare(struct span body)
{
	char *bare = malloc(body.len > 0 ? body.len : 1);
	struct enable_verdict verdict;
	bool failed;

	if (bare == NULL)
		abort();
	if (body.len > 0)
		memcpy(bare, body.at, body.len);
	reply_read_enable(bare, body.len, address, &verdict);
	MUST(body.len == 0 || verdict.outcome == UPSTREAM_NOT_JSON || object_of(body).len > 0,
		"taken for an object: %.*s", (int)body.len, body.at);
	reply_read_job(bare, body.len, address, &failed);
	reply_read_account(bare, body.len);
	MUST(!reply_is_object(bare, body.len, NULL) || object_of(body).len > 0,
		"taken for an object: %.*s", (int)body.len, body.at);
	free(bare);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const char long_number[] =
		"{\"a\":1234567890123456789012345678901234567890123456789012345678901234567890}";

	(void)argc;
	(void)argv;
	long_numbers_are_read = reply_is_object(long_number, strlen(long_number), NULL);
	snprintf(config.instantly_api_url, sizeof(config.instantly_api_url), "http://localhost");
	if (instantly_open(&config, &instantly) != ERR_OK)
		abort();
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = { (const char *)data, size }, line;
	enum upstream expected;
	struct upstream_reply out;
	char *text;

	if (!span_cut_line(&rest, &line))
		return 0;
	address = text = span_copy(line);
	config.job_wait_ms = 0;
	if (span_cut_line(&rest, &line)) {
		char *number = span_copy(line);

		config.job_wait_ms = abs(atoi(number)) % 20000;
		free(number);
	}
	read_replies(rest);
	if (gate_check(&ACCOUNT_STUCK, address) == GATE_OPEN) {
		calls = 0;
		now_us = 1;
		job_id[0] = '\0';
		expected = expected_outcome();
		instantly_enable(instantly, address, now_us + 10000 * CLOCK_US_PER_MS, &out);
		MUST(out.outcome == expected, "outcome %d, by the contract %d", (int)out.outcome,
			(int)expected);
		MUST(out.retry_after_s >= 1 && out.retry_after_s <= 3600, "Retry-After %d",
			out.retry_after_s);
		MUST(replies_count == 0 || replies[0].end != HTTP_COMPLETE ||
				replies[0].retry_after_s < 1 || replies[0].retry_after_s > 3600 ||
				out.retry_after_s == replies[0].retry_after_s,
			"Retry-After %d for %ld", out.retry_after_s, replies[0].retry_after_s);
	}
	for (size_t i = 0; i < replies_count; i++)
		read_bare(replies[i].body);
	free(text);
	return 0;
}
