/*
 * test_routes.c: route and method to status and headers, for what needs neither the database nor
 * Instantly; the handlers' answers are for tests/cases.
 */
#include "unit.h"

#include "log.h"
#include "routes.h"

#include <string.h>

#define RETRY   "/api/email/accounts/84fce275-2785-44e6-b059-87ab9e379ab5/retry-warmup"
#define OF_LONG 2100 /* longer than any path that is looked at */

static const struct config config;
static struct ctx ctx = { .config = &config };
static struct request_ids ids;
static struct answer answer;

static int
set_up(void **state)
{
	(void)state;
	answer_init(&answer);
	log_set_level(LOG_LEVEL_MAX); /* no lines */
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	answer_free(&answer);
	return 0;
}

static void
serve(const char *method, const char *script_name, const char *path_info, const char *request_uri)
{
	const struct request request = {
		.method = method,
		.script_name = script_name,
		.path_info = path_info,
		.request_uri = request_uri,
		.request_id = "req-1",
		.answer_by_us = REQUEST_NO_HASTE,
	};

	routes_serve(&ctx, &request, &ids, &answer);
}

static void
test_routes_serve_status_and_allow(void **state)
{
	static char longer[OF_LONG + 1];
	static const struct {
		const char *method, *script, *info, *uri;
		int status;
		const char *allow; /* NULL: no such header */
	} rows[] = {
		{ "OPTIONS", "", RETRY, NULL, 204, "PATCH, OPTIONS" },
		{ "OPTIONS", RETRY, NULL, NULL, 204, "PATCH, OPTIONS" },
		{ "OPTIONS", "/cgi-bin/warmup.cgi", RETRY, NULL, 204, "PATCH, OPTIONS" },
		{ "OPTIONS", "/api/index.cgi", "/email/accounts/1/retry-warmup", NULL, 204,
			"PATCH, OPTIONS" },
		{ "OPTIONS", "/index.cgi", NULL, RETRY "?x=/y", 204, "PATCH, OPTIONS" },
		{ "OPTIONS", "/index.cgi", NULL, "http://a.example" RETRY, 204, "PATCH, OPTIONS" },
		{ "OPTIONS", NULL, "/healthz", NULL, 204, "GET, HEAD, OPTIONS" },
		{ "POST", "", RETRY, NULL, 405, "PATCH, OPTIONS" },
		{ "HEAD", "", RETRY, NULL, 405, "PATCH, OPTIONS" },
		{ "BREW", "", RETRY, NULL, 405, "PATCH, OPTIONS" },
		{ NULL, "", "/healthz", NULL, 405, "GET, HEAD, OPTIONS" },
		{ "PATCH", "", RETRY, NULL, 401, NULL },
		{ "PATCH", NULL, NULL, NULL, 404, NULL },
		{ "PATCH", "", "/", NULL, 404, NULL },
		{ "PATCH", "", RETRY "/", NULL, 404, NULL },
		{ "PATCH", "", "/api/email/accounts//retry-warmup", NULL, 404, NULL },
		{ "PATCH", "", "/healthz/", NULL, 404, NULL },
		{ "PATCH", "/index.cgi", NULL, "http://a.example", 404, NULL },
		{ "PATCH", "/index.cgi", NULL, "a.example", 404, NULL },
		{ "PATCH", "/index.cgi", "/other", RETRY, 404, NULL },
		{ "PATCH", longer, "/", NULL, 404, NULL },
		{ "PATCH", "/x", longer, NULL, 404, NULL },
		{ "PATCH", "/x", NULL, longer, 404, NULL },
	};
	size_t i;

	(void)state;
	memset(longer, '/', OF_LONG);
	for (i = 0; i < COUNT(rows); i++) {
		serve(rows[i].method, rows[i].script, rows[i].info, rows[i].uri);
		CHECK(answer.status == rows[i].status, "row %zu: %d instead of %d", i,
			answer.status, rows[i].status);
		CHECK((answer.allow == NULL) == (rows[i].allow == NULL) &&
				(answer.allow == NULL || strcmp(answer.allow, rows[i].allow) == 0),
			"row %zu: Allow: %s", i, answer.allow != NULL ? answer.allow : "(none)");
	}
}

static void
test_routes_serve_too_late_is_unavailable(void **state)
{
	const struct request request = {
		.method = "OPTIONS", .path_info = RETRY, .request_id = "req-1", .answer_by_us = 1
	};

	(void)state;
	routes_serve(&ctx, &request, &ids, &answer);
	assert_int_equal(answer.status, 503);
	assert_null(answer.allow);
	assert_int_equal(answer.retry_after_s, 5);
}

static void
test_routes_refuse_knows_no_route(void **state)
{
	static const char *const methods[] = { "PATCH", "HEAD", NULL };
	struct request request = { .path_info = "/other", .request_id = "req-1" };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(methods); i++) {
		request.method = methods[i];
		routes_refuse(ERR_CONFIG, &request, &ids, &answer);
		assert_int_equal(answer.status, 500);
		assert_int_equal(answer.head_only, i == 1);
		assert_string_equal(answer.request_id, "req-1");
	}
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_routes_serve_status_and_allow),
		TEST(test_routes_serve_too_late_is_unavailable),
		TEST(test_routes_refuse_knows_no_route),
	};

	return cmocka_run_group_tests_name("routes", tests, NULL, NULL);
}
