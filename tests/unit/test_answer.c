/* test_answer.c: replies, byte by byte: the status line and headers, and the JSON. */
#include "unit.h"

#include "answer.h"

#include <cjson/cJSON.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_ID "req-1"
#define HEAD_GOAL  1024 /* what the longest block of headers stays below */
#define HUGE       (17 * 1024 * 1024)

/* Between what is particular to an answer: the headers that all of them have, in their order. */
#define TYPE   "Content-Type: application/json; charset=utf-8\r\n"
#define COMMON "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

static struct answer answer;
static struct ctx ctx;

/* The whole head, given the status line, the body's length and what follows X-Request-Id. */
static void
assert_head(const char *status, size_t body_len, const char *more)
{
	char expected[2048];

	answer_finish(&answer);
	assert_int_equal(buf_check(&answer.head), ERR_OK);
	snprintf(expected, sizeof(expected),
		"Status: %s\r\n" TYPE "Content-Length: %zu\r\n" COMMON "X-Request-Id: %s\r\n%s\r\n",
		status, body_len, answer.request_id, more);
	assert_string_equal(buf_text(&answer.head), expected);
	assert_int_equal(answer.head.len, strlen(expected));
}

static void
set_request_id(const char *id)
{
	snprintf(answer.request_id, sizeof(answer.request_id), "%s", id);
}

static int
set_up(void **state)
{
	(void)state;
	answer_init(&answer);
	set_request_id(REQUEST_ID);
	memset(&ctx, 0, sizeof(ctx));
	ctx.account.state.status = "active";
	ctx.account.state.warmup_status = "warmed";
	ctx.upstream.outcome = UPSTREAM_REFUSED;
	ctx.upstream.status = 429;
	ctx.upstream.retry_after_s = 17;
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	answer_free(&answer);
	return 0;
}

#define BODY(code, message, more)                                                                  \
	"{\"error\":{\"code\":\"" code "\",\"message\":\"" message                                 \
	"\",\"request_id\":\"" REQUEST_ID "\"" more "}}"
#define STATE ",\"details\":{\"status\":\"active\",\"warmup_status\":\"warmed\"}"

static const struct {
	enum err err;
	const char *status, *more, *body;
} errors[] = {
	{ ERR_INVALID_ID, "400 Bad Request", "",
		BODY("invalid_request", "The account id in the path is not a valid UUID", "") },
	{ ERR_BODY_INCOMPLETE, "400 Bad Request", "",
		BODY("invalid_request",
			"The request body does not have the announced length; send none, this call "
			"needs none",
			"") },
	{ ERR_UNAUTHORIZED, "401 Unauthorized", "WWW-Authenticate: Bearer\r\n",
		BODY("unauthorized",
			"Missing or invalid API key; send it as \\\"Authorization: Bearer "
			"<key>\\\"",
			"") },
	{ ERR_NO_ROUTE, "404 Not Found", "", BODY("not_found", "No such route", "") },
	{ ERR_NO_ACCOUNT, "404 Not Found", "", BODY("not_found", "No such email account", "") },
	{ ERR_METHOD_NOT_ALLOWED, "405 Method Not Allowed", "",
		BODY("method_not_allowed",
			"This path does not take that method; see the Allow header", "") },
	{ ERR_NOT_STUCK, "409 Conflict", "",
		BODY("conflict",
			"Only an account that is pending and whose warmup has not started can be "
			"retried",
			STATE) },
	{ ERR_NO_ADDRESS, "409 Conflict", "",
		BODY("conflict", "The account has no usable email address to warm up", STATE) },
	{ ERR_MOVED_MEANWHILE, "409 Conflict", "",
		BODY("conflict",
			"The account was changed by someone else meanwhile; details show its "
			"present state",
			STATE) },
	{ ERR_BODY_TOO_LARGE, "413 Payload Too Large", "",
		BODY("payload_too_large",
			"The request body is larger than 64 KiB; send none, this call needs none",
			"") },
	{ ERR_NOT_CONFIRMED, "500 Internal Server Error", "",
		BODY("internal_error", "Warmup was enabled but failed to update account status",
			",\"details\":{\"upstream\":\"enabled\"}") },
	{ ERR_INTERNAL, "500 Internal Server Error", "",
		BODY("internal_error", "Something went wrong on our side; it has been logged",
			"") },
	{ ERR_CONFIG, "500 Internal Server Error", "",
		BODY("internal_error",
			"The service is not configured; the server's error log names the setting",
			"") },
	{ ERR_UPSTREAM_REJECTED, "502 Bad Gateway", "Retry-After: 17\r\n",
		BODY("upstream_rejected",
			"Instantly refused to enable warmup; retry after the time in Retry-After",
			",\"details\":{\"upstream_status\":429,\"reason\":\"refused\"}") },
	{ ERR_UNAVAILABLE, "503 Service Unavailable", "Retry-After: 5\r\n",
		BODY("unavailable",
			"The service is temporarily unavailable; retry after the time in "
			"Retry-After",
			"") },
	/* Should these get out, they look like any fault of ours. */
	{ ERR_DB_REFUSED, "500 Internal Server Error", "",
		BODY("internal_error", "Something went wrong on our side; it has been logged",
			"") },
	{ ERR_TOO_LONG, "500 Internal Server Error", "",
		BODY("internal_error", "Something went wrong on our side; it has been logged",
			"") },
};

static void
test_answer_error_exact_bytes(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(errors); i++) {
		answer_reset(&answer);
		set_request_id(REQUEST_ID);
		answer_error(&answer, errors[i].err, &ctx);
		assert_string_equal(buf_text(&answer.body), errors[i].body);
		assert_int_equal(answer.status, atoi(errors[i].status));
		assert_string_equal(answer.code, err_info(errors[i].err)->code);
		assert_head(errors[i].status, strlen(errors[i].body), errors[i].more);
	}
}

/* Every reason, each with the one error that it belongs to. */
static void
test_answer_error_upstream_reasons(void **state)
{
	static const struct {
		enum upstream outcome;
		enum err err;
		const char *details;
	} rows[] = {
		{ UPSTREAM_REFUSED, ERR_UPSTREAM_REJECTED,
			"{\"upstream_status\":402,\"reason\":\"refused\"}" },
		{ UPSTREAM_JOB_FAILED, ERR_UPSTREAM_REJECTED,
			"{\"upstream_status\":402,\"reason\":\"job_failed\"}" },
		{ UPSTREAM_ERROR_MEMBER, ERR_UPSTREAM_REJECTED,
			"{\"upstream_status\":402,\"reason\":\"error\"}" },
		{ UPSTREAM_UNREACHABLE, ERR_UPSTREAM_UNAVAILABLE, "{\"reason\":\"unreachable\"}" },
		{ UPSTREAM_TIMEOUT, ERR_UPSTREAM_UNAVAILABLE, "{\"reason\":\"timeout\"}" },
		{ UPSTREAM_TLS, ERR_UPSTREAM_UNAVAILABLE, "{\"reason\":\"tls\"}" },
		{ UPSTREAM_INCOMPLETE, ERR_UPSTREAM_UNAVAILABLE, "{\"reason\":\"incomplete\"}" },
		{ UPSTREAM_OVERSIZED, ERR_UPSTREAM_UNAVAILABLE, "{\"reason\":\"oversized\"}" },
		{ UPSTREAM_NOT_JSON, ERR_UPSTREAM_UNAVAILABLE, "{\"reason\":\"not_json\"}" },
	};
	char expected[512];
	size_t i;

	(void)state;
	ctx.upstream.status = 402;
	ctx.upstream.retry_after_s = 3600;
	for (i = 0; i < COUNT(rows); i++) {
		bool rejected = rows[i].err == ERR_UPSTREAM_REJECTED;

		answer_reset(&answer);
		set_request_id(REQUEST_ID);
		ctx.upstream.outcome = rows[i].outcome;
		answer_error(&answer, rows[i].err, &ctx);
		snprintf(expected, sizeof(expected),
			"{\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"request_id\":\"" REQUEST_ID
			"\",\"details\":%s}}",
			err_info(rows[i].err)->code, err_info(rows[i].err)->message,
			rows[i].details);
		assert_string_equal(buf_text(&answer.body), expected);
		/* Only what Instantly itself refused comes back at Instantly's time. */
		assert_head("502 Bad Gateway", strlen(expected),
			rejected ? "Retry-After: 3600\r\n" : "Retry-After: 5\r\n");
	}
}

/* The state is free text, and may be absent. */
static void
test_answer_error_awkward_state(void **state)
{
	(void)state;
	ctx.account.state.status = NULL;
	ctx.account.state.warmup_status = "a\"b\\c\n\xFF";
	answer_error(&answer, ERR_NOT_STUCK, &ctx);
	assert_true(strstr(buf_text(&answer.body),
			    "\"details\":{\"status\":null,\"warmup_status\":"
			    "\"a\\\"b\\\\c\\u000a\xEF\xBF\xBD\"}}}") != NULL);
}

/* A body that was begun before something failed leaves nothing behind. */
static void
test_answer_error_replaces_a_body(void **state)
{
	(void)state;
	assert_int_equal(answer_health(&answer, true), ERR_OK);
	answer_error(&answer, ERR_NO_ROUTE, &ctx);
	assert_string_equal(buf_text(&answer.body), BODY("not_found", "No such route", ""));
	assert_int_equal(answer.status, 404);
}

static void
test_answer_error_allow_of_method_not_allowed(void **state)
{
	(void)state;
	answer.allow = "PATCH, OPTIONS";
	answer_error(&answer, ERR_METHOD_NOT_ALLOWED, &ctx);
	assert_head("405 Method Not Allowed", answer.body.len, "Allow: PATCH, OPTIONS\r\n");
}

static char *
huge_text(void)
{
	char *text = malloc(HUGE + 1);

	assert_true(text != NULL);
	memset(text, 'a', HUGE);
	text[HUGE] = '\0';
	return text;
}

/* Better no body than half of one; the status is told all the same. */
static void
test_answer_error_state_too_long(void **state)
{
	char *text = huge_text();

	(void)state;
	ctx.account.state.status = text;
	answer_error(&answer, ERR_NOT_STUCK, &ctx);
	free(text);
	assert_int_equal(answer.body.len, 0);
	assert_head("409 Conflict", 0, "");
}

static const struct account full = {
	.id = "11111111-1111-4111-8111-111111111111",
	.user_id = "22222222-2222-4222-8222-222222222222",
	.type = "email",
	.email_address = "jane@acme.com",
	.state = { "warming", "warming" },
	.agentmail_inbox_id = "inb_abc123",
	.has_daily_limit = true,
	.daily_limit = 50,
	.has_created_at = true,
	.created_at_us = INT64_C(1776697200000000),
	.has_updated_at = true,
	.updated_at_us = INT64_C(1776845700000000),
	.domain_id = "33333333-3333-4333-8333-333333333333",
	.domain = "acme.com",
	.domain_status = "verified",
};

static const char full_body[] =
	"{\"account\":{\"id\":\"11111111-1111-4111-8111-111111111111\","
	"\"user_id\":\"22222222-2222-4222-8222-222222222222\",\"type\":\"email\","
	"\"email_address\":\"jane@acme.com\",\"status\":\"warming\",\"warmup_status\":\"warming\","
	"\"agentmail_inbox_id\":\"inb_abc123\",\"daily_limit\":50,"
	"\"created_at\":\"2026-04-20T15:00:00Z\",\"updated_at\":\"2026-04-22T08:15:00Z\","
	"\"email_domains\":{\"id\":\"33333333-3333-4333-8333-333333333333\","
	"\"domain\":\"acme.com\",\"status\":\"verified\"}}}";

static void
test_answer_account_as_published(void **state)
{
	(void)state;
	assert_int_equal(answer_account(&answer, &full), ERR_OK);
	assert_string_equal(buf_text(&answer.body), full_body);
	assert_int_equal(answer.status, 200);
	assert_string_equal(answer.code, "ok");
	assert_head("200 OK", sizeof(full_body) - 1, "");
}

static void
test_answer_account_everything_absent(void **state)
{
	const struct account empty = { .id = "11111111-1111-4111-8111-111111111111",
		.user_id = "22222222-2222-4222-8222-222222222222",
		/* Flags say that they are absent, so the numbers must not count. */
		.daily_limit = 50,
		.created_at_us = 1,
		.updated_at_us = 1,
		.domain = "acme.com" };

	(void)state;
	assert_int_equal(answer_account(&answer, &empty), ERR_OK);
	assert_string_equal(buf_text(&answer.body),
		"{\"account\":{\"id\":\"11111111-1111-4111-8111-111111111111\","
		"\"user_id\":\"22222222-2222-4222-8222-222222222222\",\"type\":null,"
		"\"email_address\":null,\"status\":null,\"warmup_status\":null,"
		"\"agentmail_inbox_id\":null,\"daily_limit\":null,\"created_at\":null,"
		"\"updated_at\":null,\"email_domains\":null}}");
}

/* A linked domain may lack everything but its id. */
static void
test_answer_account_domain_without_values(void **state)
{
	struct account account = full;

	(void)state;
	account.domain = account.domain_status = NULL;
	assert_int_equal(answer_account(&answer, &account), ERR_OK);
	assert_true(strstr(buf_text(&answer.body),
			    "\"email_domains\":{\"id\":\"33333333-3333-4333-8333-333333333333\","
			    "\"domain\":null,\"status\":null}}}") != NULL);
}

/* A text of the database, and what it must come back as. */
static void
assert_address(const char *text, const char *expected)
{
	struct account account = full;
	const cJSON *address;
	cJSON *root;

	account.email_address = text;
	answer_reset(&answer);
	assert_int_equal(answer_account(&answer, &account), ERR_OK);
	assert_true(strpbrk(buf_text(&answer.body), "\r\n\t\x1B") == NULL);
	root = cJSON_ParseWithOpts(buf_text(&answer.body), NULL, 1);
	address = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(root, "account"), "email_address");
	assert_true(cJSON_IsString(address));
	assert_string_equal(address->valuestring, expected);
	cJSON_Delete(root);
}

static void
test_answer_account_awkward_texts(void **state)
{
	static const char *const valid[] = { "", "\"", "\\", "\"}}", "a\r\nSet-Cookie: x=y",
		"</script>", "\x01\x1B[2J\x7F", "\xE2\x80\xA8", "\xF0\x9F\x98\x80", "%s%n",
		"J\xC3\xB6rg@acme.com", "null", "\xC2\x85" };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(valid); i++)
		assert_address(valid[i], valid[i]);
	assert_address("a\xFF"
		       "b",
		"a\xEF\xBF\xBD"
		"b");
	assert_address("\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

/* Looks for the member as it was written. */
static void
assert_limit(int64_t limit, const char *expected)
{
	struct account account = full;

	account.daily_limit = limit;
	answer_reset(&answer);
	assert_int_equal(answer_account(&answer, &account), ERR_OK);
	CHECK(strstr(buf_text(&answer.body), expected) != NULL, "%s: %s", expected,
		buf_text(&answer.body));
}

static void
test_answer_account_daily_limits(void **state)
{
	(void)state;
	assert_limit(0, "\"daily_limit\":0,");
	assert_limit(-1, "\"daily_limit\":-1,");
	assert_limit(INT32_MAX, "\"daily_limit\":2147483647,");
	assert_limit(INT64_C(9007199254740993), "\"daily_limit\":9007199254740993,");
	assert_limit(INT64_MAX, "\"daily_limit\":9223372036854775807,");
	assert_limit(INT64_MIN, "\"daily_limit\":-9223372036854775808,");
}

static void
assert_time(int64_t unix_us, const char *expected)
{
	struct account account = full;

	account.created_at_us = unix_us;
	answer_reset(&answer);
	assert_int_equal(answer_account(&answer, &account), ERR_OK);
	CHECK(strstr(buf_text(&answer.body), expected) != NULL, "%s: %s", expected,
		buf_text(&answer.body));
}

static void
test_answer_account_times(void **state)
{
	(void)state;
	assert_time(0, "\"created_at\":\"1970-01-01T00:00:00Z\",");
	assert_time(-500000, "\"created_at\":\"1969-12-31T23:59:59.5Z\",");
	assert_time(INT64_C(1776697200123456), "\"created_at\":\"2026-04-20T15:00:00.123456Z\",");
	/* Years that RFC 3339 cannot write. */
	assert_time(INT64_MAX, "\"created_at\":null,");
	assert_time(INT64_MIN, "\"created_at\":null,");
}

/* As when a row was moved that cannot be told of: the error that says so still can. */
static void
test_answer_account_too_long(void **state)
{
	struct account account = full;
	char *text = huge_text();

	(void)state;
	account.email_address = text;
	assert_int_equal(answer_account(&answer, &account), ERR_TOO_LONG);
	free(text);
	answer_error(&answer, ERR_NOT_CONFIRMED, &ctx);
	assert_string_equal(buf_text(&answer.body),
		BODY("internal_error", "Warmup was enabled but failed to update account status",
			",\"details\":{\"upstream\":\"enabled\"}"));
	assert_head("500 Internal Server Error", answer.body.len, "");
}

/* Text of a megabyte is awkward, but no reason to fail. */
static void
test_answer_account_megabyte(void **state)
{
	char *text = huge_text();

	(void)state;
	text[1024 * 1024] = '\0';
	assert_address(text, text);
	free(text);
}

static void
test_answer_health_exact_bytes(void **state)
{
	(void)state;
	assert_int_equal(answer_health(&answer, true), ERR_OK);
	assert_string_equal(buf_text(&answer.body), "{\"status\":\"ok\"}");
	assert_head("200 OK", 15, "");

	answer_reset(&answer);
	set_request_id(REQUEST_ID);
	assert_int_equal(answer_health(&answer, false), ERR_OK);
	assert_string_equal(buf_text(&answer.body), "{\"status\":\"unavailable\"}");
	assert_head("503 Service Unavailable", 24, "");
}

/* No body, so nothing is said of one. */
static void
test_answer_options_exact_bytes(void **state)
{
	(void)state;
	answer.allow = "GET, HEAD, OPTIONS";
	assert_int_equal(answer_options(&answer), ERR_OK);
	answer_finish(&answer);
	assert_string_equal(buf_text(&answer.head),
		"Status: 204 No Content\r\n" COMMON "X-Request-Id: " REQUEST_ID
		"\r\nAllow: GET, HEAD, OPTIONS\r\n\r\n");
	assert_int_equal(answer.body.len, 0);
}

/* The answer to HEAD is that to GET, but for the body, which the sender leaves out. */
static void
test_answer_finish_head_only(void **state)
{
	(void)state;
	answer.head_only = true;
	assert_int_equal(answer_health(&answer, true), ERR_OK);
	assert_head("200 OK", 15, "");
	assert_true(answer.head_only);
	answer_error(&answer, ERR_NO_ROUTE, &ctx);
	assert_head("404 Not Found", strlen(BODY("not_found", "No such route", "")), "");
}

/* Twice is once: the head is made anew. */
static void
test_answer_finish_again(void **state)
{
	(void)state;
	assert_int_equal(answer_health(&answer, true), ERR_OK);
	answer_finish(&answer);
	assert_head("200 OK", 15, "");
}

static void
test_answer_finish_order_of_headers(void **state)
{
	static const char *const order[] = { "Status: ", "\r\nContent-Type: ",
		"\r\nContent-Length: ", "\r\nCache-Control: ", "\r\nX-Content-Type-Options: ",
		"\r\nX-Request-Id: ", "\r\nWWW-Authenticate: ", "\r\nRetry-After: ", "\r\nAllow: ",
		"\r\n\r\n" };
	const char *at, *before = NULL;
	size_t i;

	(void)state;
	assert_int_equal(answer_health(&answer, true), ERR_OK);
	answer.allow = "PATCH, OPTIONS";
	answer.challenge = true;
	answer.retry_after_s = 1;
	answer_finish(&answer);
	for (i = 0; i < COUNT(order); i++) {
		at = strstr(buf_text(&answer.head), order[i]);
		CHECK(at != NULL && (i == 0 || at > before), "\"%s\" is not in its place",
			order[i]);
		before = at;
	}
}

/* Servers take a block of headers of some KiB: ours has room, with everything at its longest. */
static void
test_answer_finish_longest_head(void **state)
{
	char id[REQUEST_ID_TEXT_MAX + 1];

	(void)state;
	memset(id, 'x', REQUEST_ID_TEXT_MAX);
	id[REQUEST_ID_TEXT_MAX] = '\0';
	set_request_id(id);
	answer_error(&answer, ERR_INTERNAL, &ctx);
	answer.challenge = true;
	answer.allow = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE";
	answer.retry_after_s = INT_MAX;
	answer_finish(&answer);
	assert_int_equal(buf_check(&answer.head), ERR_OK);
	assert_true(strstr(buf_text(&answer.head), id) != NULL);
	CHECK(answer.head.len < HEAD_GOAL, "%zu bytes", answer.head.len);
}

/* Nothing of one answer gets into the next. */
/* A status that the table lacks still makes a valid status line. */
static void
test_answer_finish_status_without_a_phrase(void **state)
{
	(void)state;
	answer.status = 299;
	assert_head("299 Unknown", 0, "");
}

static void
test_answer_reset_forgets(void **state)
{
	(void)state;
	answer.allow = "GET";
	answer.head_only = true;
	answer_error(&answer, ERR_UNAUTHORIZED, &ctx);
	answer.retry_after_s = 9;
	answer_finish(&answer);
	answer_reset(&answer);
	assert_int_equal(answer.status, 0);
	assert_string_equal(answer.request_id, "");
	assert_true(!answer.head_only);
	assert_string_equal(buf_text(&answer.head), "");
	assert_string_equal(buf_text(&answer.body), "");
	set_request_id(REQUEST_ID);
	assert_int_equal(answer_account(&answer, &full), ERR_OK);
	assert_string_equal(buf_text(&answer.body), full_body);
	assert_head("200 OK", sizeof(full_body) - 1, "");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_answer_error_exact_bytes),
		TEST(test_answer_error_upstream_reasons),
		TEST(test_answer_error_awkward_state),
		TEST(test_answer_error_replaces_a_body),
		TEST(test_answer_error_allow_of_method_not_allowed),
		TEST(test_answer_error_state_too_long),
		TEST(test_answer_account_as_published),
		TEST(test_answer_account_everything_absent),
		TEST(test_answer_account_domain_without_values),
		TEST(test_answer_account_awkward_texts),
		TEST(test_answer_account_daily_limits),
		TEST(test_answer_account_times),
		TEST(test_answer_account_too_long),
		TEST(test_answer_account_megabyte),
		TEST(test_answer_health_exact_bytes),
		TEST(test_answer_options_exact_bytes),
		TEST(test_answer_finish_head_only),
		TEST(test_answer_finish_again),
		TEST(test_answer_finish_order_of_headers),
		TEST(test_answer_finish_longest_head),
		TEST(test_answer_finish_status_without_a_phrase),
		TEST(test_answer_reset_forgets),
	};

	return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
