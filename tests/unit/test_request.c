/* test_request.c: CGI variables, and what is made of a body's length. */
#include "unit.h"

#include "request.h"

#include <string.h>

#define VARIABLES_MAX 16

/* Texts of a request by name, so that a row can say which it means. */
static const struct {
	const char *name;
	size_t offset;
} members[] = {
	{ "REQUEST_METHOD", offsetof(struct request, method) },
	{ "SCRIPT_NAME", offsetof(struct request, script_name) },
	{ "PATH_INFO", offsetof(struct request, path_info) },
	{ "REQUEST_URI", offsetof(struct request, request_uri) },
	{ "HTTP_AUTHORIZATION", offsetof(struct request, authorization) },
	{ "REDIRECT_HTTP_AUTHORIZATION", offsetof(struct request, redirect_authorization) },
	{ "HTTP_X_REQUEST_ID", offsetof(struct request, request_id) },
	{ "CONTENT_LENGTH", offsetof(struct request, content_length) },
	{ "HTTP_TRANSFER_ENCODING", offsetof(struct request, transfer_encoding) },
};

static const char *
member(const struct request *request, const char *name)
{
	const char *value = NULL;
	size_t i;

	for (i = 0; i < COUNT(members); i++)
		if (strcmp(members[i].name, name) == 0)
			memcpy(&value, (const char *)request + members[i].offset, sizeof(value));
	return value;
}

/* As a server passes them; strings are never written to, whatever the type says. */
static void
read_variables(struct request *request, const char *const *variables, size_t count)
{
	char copies[VARIABLES_MAX][64], *list[VARIABLES_MAX + 1];
	static char kept[VARIABLES_MAX][64]; /* the request points into them */
	size_t i;

	assert_true(count <= VARIABLES_MAX);
	memset(request, 0x55, sizeof(*request));
	for (i = 0; i < count; i++) {
		assert_true(strlen(variables[i]) < sizeof(kept[i]));
		snprintf(kept[i], sizeof(kept[i]), "%s", variables[i]);
		memcpy(copies[i], kept[i], sizeof(kept[i]));
		list[i] = kept[i];
	}
	list[count] = NULL;
	request_read_variables(request, list);
	for (i = 0; i < count; i++)
		assert_string_equal(kept[i], copies[i]);
}

static void
assert_nothing_but(const struct request *request, const char *name, const char *value)
{
	const char *found;
	size_t i;

	for (i = 0; i < COUNT(members); i++) {
		found = member(request, members[i].name);
		if (strcmp(members[i].name, name) == 0)
			CHECK(found != NULL && strcmp(found, value) == 0, "%s is \"%s\"", name,
				found != NULL ? found : "(none)");
		else
			CHECK(found == NULL, "%s also set %s", name, members[i].name);
	}
	assert_int_equal(request->body, ERR_OK);
}

static void
test_request_read_variables_each_alone(void **state)
{
	char variable[64];
	const char *list[] = { variable };
	struct request request;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(members); i++) {
		snprintf(variable, sizeof(variable), "%s=value=%zu", members[i].name, i);
		read_variables(&request, list, 1);
		assert_nothing_but(&request, members[i].name, strchr(variable, '=') + 1);
	}
}

static void
test_request_read_variables_all(void **state)
{
	static const char *const list[] = { "GATEWAY_INTERFACE=CGI/1.1", "REQUEST_METHOD=PATCH",
		"SCRIPT_NAME=/cgi-bin/warmup.cgi", "PATH_INFO=/api", "REQUEST_URI=/x?y=z",
		"HTTP_AUTHORIZATION=Bearer a", "REDIRECT_HTTP_AUTHORIZATION=Bearer b",
		"HTTP_X_REQUEST_ID=id-1", "CONTENT_LENGTH=5", "HTTP_TRANSFER_ENCODING=chunked",
		"SERVER_NAME=h" };
	struct request request;

	(void)state;
	read_variables(&request, list, COUNT(list));
	assert_string_equal(request.method, "PATCH");
	assert_string_equal(request.script_name, "/cgi-bin/warmup.cgi");
	assert_string_equal(request.path_info, "/api");
	assert_string_equal(request.request_uri, "/x?y=z");
	assert_string_equal(request.authorization, "Bearer a");
	assert_string_equal(request.redirect_authorization, "Bearer b");
	assert_string_equal(request.request_id, "id-1");
	assert_string_equal(request.content_length, "5");
	assert_string_equal(request.transfer_encoding, "chunked");
}

/* Some servers turn two headers of one meaning into two variables of one name. */
static void
test_request_read_variables_first_of_several_counts(void **state)
{
	static const char *const list[] = { "HTTP_X_REQUEST_ID=first",
		"PATH_INFO=", "HTTP_X_REQUEST_ID=second", "PATH_INFO=/second",
		"HTTP_X_REQUEST_ID=" };
	struct request request;

	(void)state;
	read_variables(&request, list, COUNT(list));
	assert_string_equal(request.request_id, "first");
	assert_string_equal(request.path_info, "");
}

static void
test_request_read_variables_similar_names_are_others(void **state)
{
	static const char *const list[] = { "PATH=/bin", "PATH_INFO_2=/x", "PATH_INF=/x",
		"XPATH_INFO=/x", "path_info=/x", "Path_Info=/x", "PATH_INFO", "PATH_INFO2", "=x",
		"", "P=x", " PATH_INFO=/x", "PATH_INFO =/x", "ORIG_PATH_INFO=/x",
		"REDIRECT_REQUEST_METHOD=GET", "HTTP_CONTENT_LENGTH=7" };
	struct request request;

	(void)state;
	read_variables(&request, list, COUNT(list));
	assert_nothing_but(&request, "", "");
}

static void
test_request_read_variables_empty_is_set(void **state)
{
	static const char *const list[] = { "HTTP_AUTHORIZATION=" };
	struct request request;

	(void)state;
	read_variables(&request, list, COUNT(list));
	assert_nothing_but(&request, "HTTP_AUTHORIZATION", "");
}

static void
test_request_read_variables_none(void **state)
{
	struct request request;

	(void)state;
	read_variables(&request, NULL, 0);
	assert_nothing_but(&request, "", "");
	memset(&request, 0x55, sizeof(request));
	request_read_variables(&request, NULL);
	assert_nothing_but(&request, "", "");
}

static const struct {
	const char *text;
	int64_t length;
} lengths[] = {
	{ NULL, REQUEST_LENGTH_NONE },
	{ "", REQUEST_LENGTH_NONE },
	{ "0", 0 },
	{ "5", 5 },
	{ "05", 5 },
	{ "000", 0 },
	{ "65536", 65536 },
	{ "65537", 65537 },
	{ "4294967296", INT64_C(4294967296) },
	{ "1000000000000000", INT64_C(1000000000000000) },
	{ " 5", REQUEST_LENGTH_BAD },
	{ "5 ", REQUEST_LENGTH_BAD },
	{ " ", REQUEST_LENGTH_BAD },
	{ "\t5", REQUEST_LENGTH_BAD },
	{ "5\r", REQUEST_LENGTH_BAD },
	{ "-1", REQUEST_LENGTH_BAD },
	{ "-0", REQUEST_LENGTH_BAD },
	{ "+5", REQUEST_LENGTH_BAD },
	{ "5x", REQUEST_LENGTH_BAD },
	{ "x5", REQUEST_LENGTH_BAD },
	{ "0x5", REQUEST_LENGTH_BAD },
	{ "5.0", REQUEST_LENGTH_BAD },
	{ "5e1", REQUEST_LENGTH_BAD },
	{ "5,5", REQUEST_LENGTH_BAD },
	{ "5, 5", REQUEST_LENGTH_BAD },
	{ "\xEF\xBC\x95", REQUEST_LENGTH_BAD },
	{ "999999999999999999999999999999x", REQUEST_LENGTH_BAD },
};

static void
test_request_content_length_examples(void **state)
{
	struct request request = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(lengths); i++) {
		request.content_length = lengths[i].text;
		CHECK(request_content_length(&request) == lengths[i].length, "\"%s\" is %lld",
			lengths[i].text != NULL ? lengths[i].text : "(none)",
			(long long)request_content_length(&request));
	}
}

/* Numbers that wrap around in 32 or 64 bits stay far too large. */
static void
test_request_content_length_beyond_range(void **state)
{
	static const char *const huge[] = { "9223372036854775807", "9223372036854775808",
		"18446744073709551615", "18446744073709551616", "18446744073709551621",
		"340282366920938463463374607431768211456", "999999999999999999999999999999",
		"100000000000000000000000000000" };
	struct request request = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(huge); i++) {
		request.content_length = huge[i];
		CHECK(request_content_length(&request) > INT64_C(1000000000000), "%s is %lld",
			huge[i], (long long)request_content_length(&request));
	}
}

static const struct {
	const char *announced;
	int64_t received;
	bool whole;
	enum err err;
} bodies[] = {
	{ NULL, 0, true, ERR_OK },
	{ "", 0, true, ERR_OK },
	{ "0", 0, true, ERR_OK },
	{ "5", 5, true, ERR_OK },
	/* Without an announcement, chunked for example, the end tells. */
	{ NULL, 5, true, ERR_OK },
	{ NULL, 0, false, ERR_BODY_INCOMPLETE },
	{ NULL, 5, false, ERR_BODY_INCOMPLETE },
	{ "", 5, false, ERR_BODY_INCOMPLETE },
	/* Fewer or more than announced. */
	{ "5", 0, true, ERR_BODY_INCOMPLETE },
	{ "5", 4, true, ERR_BODY_INCOMPLETE },
	{ "5", 4, false, ERR_BODY_INCOMPLETE },
	{ "5", 5, false, ERR_BODY_INCOMPLETE },
	{ "5", 6, true, ERR_BODY_INCOMPLETE },
	{ "0", 1, true, ERR_BODY_INCOMPLETE },
	/* Announced in no way that could be right. */
	{ "5x", 5, true, ERR_BODY_INCOMPLETE },
	{ "-1", 0, true, ERR_BODY_INCOMPLETE },
	{ "-2", 0, true, ERR_BODY_INCOMPLETE },
	{ " 5", 5, true, ERR_BODY_INCOMPLETE },
	/* The limit, by what came and by what was announced. */
	{ NULL, 65535, true, ERR_OK },
	{ NULL, 65536, true, ERR_OK },
	{ NULL, 65537, true, ERR_BODY_TOO_LARGE },
	{ "65536", 65536, true, ERR_OK },
	{ "65536", 65535, true, ERR_BODY_INCOMPLETE },
	{ "65536", 65537, true, ERR_BODY_TOO_LARGE },
	{ "65537", 65537, true, ERR_BODY_TOO_LARGE },
	{ "65537", 65536, true, ERR_BODY_TOO_LARGE },
	{ "65537", 0, false, ERR_BODY_TOO_LARGE },
	{ "5", 65537, true, ERR_BODY_TOO_LARGE },
	/* Too large is told first: it is the one thing that the caller can mend. */
	{ NULL, 65537, false, ERR_BODY_TOO_LARGE },
	{ "x", 65537, true, ERR_BODY_TOO_LARGE },
	{ NULL, INT64_MAX, false, ERR_BODY_TOO_LARGE },
	{ "999999999999999999999999999999", 0, false, ERR_BODY_TOO_LARGE },
	{ "18446744073709551621", 5, true, ERR_BODY_TOO_LARGE },
};

static void
test_request_judge_body_examples(void **state)
{
	struct request request = { 0 };
	enum err err;
	size_t i;

	(void)state;
	assert_int_equal(REQUEST_BODY_MAX, 65536);
	for (i = 0; i < COUNT(bodies); i++) {
		request.content_length = bodies[i].announced;
		err = request_judge_body(&request, bodies[i].received, bodies[i].whole);
		CHECK(err == bodies[i].err, "row %zu: %s, not %s", i, err_info(err)->name,
			err_info(bodies[i].err)->name);
	}
}

static void
test_request_wipe_keys_wipes_them_and_nothing_else(void **state)
{
	char one[] = "HTTP_AUTHORIZATION=Bearer pk_live_1", two[] = "PATH_INFO=/healthz",
	     three[] = "REDIRECT_HTTP_AUTHORIZATION=Bearer pk_live_2",
	     four[] = "HTTP_AUTHORIZATION=";
	char *variables[] = { one, two, three, four, NULL };
	size_t i;

	(void)state;
	request_wipe_keys(variables);
	for (i = strlen(one); i < sizeof(one); i++)
		assert_int_equal(one[i], 0);
	for (i = strlen(three); i < sizeof(three); i++)
		assert_int_equal(three[i], 0);
	assert_string_equal(two, "PATH_INFO=/healthz");
	request_wipe_keys(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_read_variables_each_alone),
		cmocka_unit_test(test_request_read_variables_all),
		cmocka_unit_test(test_request_read_variables_first_of_several_counts),
		cmocka_unit_test(test_request_read_variables_similar_names_are_others),
		cmocka_unit_test(test_request_read_variables_empty_is_set),
		cmocka_unit_test(test_request_read_variables_none),
		cmocka_unit_test(test_request_content_length_examples),
		cmocka_unit_test(test_request_content_length_beyond_range),
		cmocka_unit_test(test_request_judge_body_examples),
		cmocka_unit_test(test_request_wipe_keys_wipes_them_and_nothing_else),
	};

	return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
