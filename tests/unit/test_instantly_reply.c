/*
 * test_instantly_reply.c: what Instantly's replies mean: recorded ones, what else may come, and
 * what must never pass for acceptance.
 *
 * Every body is read in memory of exactly its size and the NUL behind it, so that a sanitizer sees
 * a byte read too far.
 */
#include "unit.h"

#include "instantly_reply.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS   "jane@acme.com"
#define JOB       "675266e304a8e55b17f0228b"
#define UNKNOWN   ((enum upstream) - 1) /* of no interest: it must not crash */
#define DEPTH_MAX 5000

/* A queued job, as the call normally answers. */
#define QUEUED_JOB                                                                                 \
	"{\"id\":\"" JOB "\",\"workspace_id\":\"0197a3a6-6a2c-7d52-9b5c-8f2f6f1f3c11\","           \
	"\"user_id\":null,\"type\":\"update-warmup-accounts\","                                    \
	"\"entity_id\":\"0197a3a6-6a2c-7d52-9b5c-8f2f6f1f3c11\",\"entity_type\":\"workspace\","    \
	"\"data\":{\"emails\":[\"" ADDRESS "\"]},\"progress\":0,\"status\":\"pending\","           \
	"\"created_at\":\"2026-06-11T10:00:00.000Z\",\"updated_at\":\"2026-06-11T10:00:00.000Z\"}"

/* A job that says success and failed for the one address: a recorded reply. */
#define RECORDED_FAILURE                                                                           \
	"{\"id\":\"" JOB "\",\"type\":\"update-warmup-accounts\",\"status\":\"success\","          \
	"\"progress\":100,\"data\":{\"step\":\"DONE\",\"total_to_process\":1,"                     \
	"\"success_count\":0,\"failed_count\":1,\"processed_emails\":[{\"email\":\"" ADDRESS       \
	"\",\"status\":\"failed\",\"error\":\"Account not found\"}]}}"

/* A job's data around what a row is about. */
#define SUCCESS(data)  "{\"status\":\"success\",\"data\":" data "}"
#define EMAILS(items)  "\"processed_emails\":[" items "]"
#define ITEM(email, x) "{\"email\":\"" email "\"" x "}"

static void *
exact_copy(const char *bytes, size_t len)
{
	char *copy = malloc(len + 1);

	assert_true(copy != NULL);
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	return copy;
}

static void
read_enable(const char *body, size_t len, struct enable_verdict *verdict)
{
	char *copy = exact_copy(body, len);

	memset(verdict, 0x55, sizeof(*verdict));
	reply_read_enable(copy, len, ADDRESS, verdict);
	free(copy);
}

static const struct {
	const char *body;
	size_t len;
	enum upstream outcome;
	bool finished;
	const char *job_id;
} enables[] = {
	/* Accepted: a queued job, an empty reply, any other object. */
	{ BYTES(QUEUED_JOB), UPSTREAM_ACCEPTED, false, JOB },
	{ BYTES(""), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES(" \r\n\t{ } \r\n\t"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"success\":true}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":\"in-progress\",\"id\":\"a\"}"), UPSTREAM_ACCEPTED, false, "a" },
	{ BYTES("{\"status\":\"draining\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":\"paused\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":\"unheard of\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":\"FAILED\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":\"failed \"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":1}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\":null}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"Status\":\"failed\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"job\":{\"status\":\"failed\"}}"), UPSTREAM_ACCEPTED, false, "" },
	/* A job that has ended well. */
	{ BYTES("{\"id\":\"a\",\"status\":\"success\"}"), UPSTREAM_ACCEPTED, true, "a" },
	{ BYTES(SUCCESS("null")), UPSTREAM_ACCEPTED, true, "" },
	/* A job that has not. */
	{ BYTES("{\"status\":\"failed\"}"), UPSTREAM_JOB_FAILED, true, "" },
	{ BYTES("{\"status\":\"cancelled\"}"), UPSTREAM_JOB_FAILED, true, "" },
	{ BYTES("{\"status\":\"failed\",\"error\":\"x\"}"), UPSTREAM_JOB_FAILED, true, "" },
	{ BYTES(RECORDED_FAILURE), UPSTREAM_JOB_FAILED, true, JOB },
	/* A member "error" of any kind but null; also where it stands twice. */
	{ BYTES("{\"error\":\"x\"}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":\"\"}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":false}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":0}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":{}}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":[]}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"id\":\"a\",\"status\":\"pending\",\"error\":\"x\"}"), UPSTREAM_ERROR_MEMBER,
		false, "a" },
	{ BYTES("{\"status\":\"success\",\"error\":\"x\"}"), UPSTREAM_ERROR_MEMBER, true, "" },
	{ BYTES("{\"statusCode\":401,\"error\":\"Unauthorized\",\"message\":\"x\"}"),
		UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":null,\"error\":\"x\"}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":\"x\",\"error\":null}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"err\\u006fr\":\"x\"}"), UPSTREAM_ERROR_MEMBER, false, "" },
	{ BYTES("{\"error\":null}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"error\":null,\"error\":null}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"errors\":\"x\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"Error\":\"x\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"data\":{\"error\":\"x\"}}"), UPSTREAM_ACCEPTED, false, "" },
	/* No object. */
	{ BYTES("[]"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("[{}]"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("null"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("true"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("1"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\"{}\""), UPSTREAM_NOT_JSON, false, "" },
	/* No JSON. */
	{ BYTES("OK"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("error code: 1010"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("<!DOCTYPE html><html><body>{}</body></html>"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES(" "), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\r\n"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\0"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\xFF\xFE{\0}\0"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\xEF\xBB\xBF"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{a:1}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{'a':1}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":1,}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\uD800\"}"), UPSTREAM_NOT_JSON, false, "" },
	/* Cut short: where nothing announces the length only the parser can tell. */
	{ BYTES("{"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"id\":\"" JOB "\",\"status\":\"pend"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":{}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\u12"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":tru"), UPSTREAM_NOT_JSON, false, "" },
	/* Something behind the object. */
	{ BYTES("{}x"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{}}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{} {}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{}\n{\"error\":\"x\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{},"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{}\0"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{}\0{\"error\":\"x\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{} \n\0"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{}\v"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{}\xC2\xA0"), UPSTREAM_NOT_JSON, false, "" },
	/* A byte order mark is no part of JSON, but parsers may pass over it. */
	{ BYTES("\xEF\xBB\xBF{}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("\xEF\xBB\xBF{\"error\":\"x\"}"), UPSTREAM_ERROR_MEMBER, false, "" },
	/* Valid, but odd: numbers of many digits, escapes. */
	{ BYTES("{\"a\":1234567890123456789012345678901234567890123456789012345678901234567890}"),
		UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"a\":1e999,\"b\":-1e-999}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"\":\"\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"a\":\"\x7F\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"a\":\"\\\"\\\\\\n\\u00e9\xC3\xA9\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"a\":\"\\\"\",\n\"b\":1}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"a\":\"\\\\\",\n\"b\":1}"), UPSTREAM_ACCEPTED, false, "" },
	/* An escaped NUL ends neither a string nor a name. */
	{ BYTES("{\"status\":\"failed\\u0000x\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"status\\u0000\":\"pending\",\"status\":\"failed\"}"), UPSTREAM_JOB_FAILED, true,
		"" },
	{ BYTES("{\"error\\u0000\":\"x\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"id\":\"a\\u0000b\"}"), UPSTREAM_ACCEPTED, false, "" },
	{ BYTES("{\"a\\u0000b\":\"\\u0000\\\\u0000\"}"), UPSTREAM_ACCEPTED, false, "" },
	/* Damaged on its way, though a lenient parser would take it. */
	{ BYTES("{\"a\":\"x\0y\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\0b\":1}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\0}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\0{}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\xFF\xFE\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\xC3\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"\xC3\":\"\xED\xA0\x80\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\xC0\x80\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"status\":\"failed\xFF\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\n\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\t\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\x01\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\\"\t\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\\"\x1F\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\\n\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\\\\",\"b\":\"\x1F\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\n\":1}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\u12\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\u12g4\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\U0041\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\x41\"}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\":\"\\"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\f}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("{\"a\"\x01:1}"), UPSTREAM_NOT_JSON, false, "" },
	{ BYTES("\x1F{}"), UPSTREAM_NOT_JSON, false, "" },
	/* Numbers in no form of JSON's: parsers differ. */
	{ BYTES("{\"a\":01}"), UNKNOWN, false, "" },
	{ BYTES("{\"a\":.5}"), UNKNOWN, false, "" },
	{ BYTES("{\"a\":1.}"), UNKNOWN, false, "" },
};

static void
test_reply_read_enable_examples(void **state)
{
	struct enable_verdict verdict;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(enables); i++) {
		read_enable(enables[i].body, enables[i].len, &verdict);
		if (enables[i].outcome == UNKNOWN)
			continue;
		CHECK(verdict.outcome == enables[i].outcome, "row %zu: %s: \"%s\"", i,
			enables[i].body, instantly_reason(verdict.outcome));
		CHECK(verdict.finished == enables[i].finished, "row %zu: %s: finished", i,
			enables[i].body);
		CHECK(strcmp(verdict.job_id, enables[i].job_id) == 0, "row %zu: %s: job \"%s\"", i,
			enables[i].body, verdict.job_id);
	}
}

/* A reply that ends anywhere before its end is no reply; the whole one is. */
static void
test_reply_read_enable_cut_short_anywhere(void **state)
{
	static const char *const replies[] = { QUEUED_JOB, RECORDED_FAILURE };
	struct enable_verdict verdict;
	size_t i, len;

	(void)state;
	for (i = 0; i < COUNT(replies); i++)
		for (len = 1; len < strlen(replies[i]); len++) {
			read_enable(replies[i], len, &verdict);
			CHECK(verdict.outcome == UPSTREAM_NOT_JSON, "%.*s", (int)len, replies[i]);
		}
}

/* Any byte instead of any other: whatever it means then, reading it does no harm. */
static void
test_reply_read_enable_any_byte_anywhere(void **state)
{
	static const char reply[] = RECORDED_FAILURE;
	char body[sizeof(reply) - 1];
	struct enable_verdict verdict;
	size_t place;
	int byte;

	(void)state;
	for (place = 0; place < sizeof(body); place++)
		for (byte = 0; byte < 256; byte++) {
			memcpy(body, reply, sizeof(body));
			body[place] = (char)byte;
			read_enable(body, sizeof(body), &verdict);
			assert_true(memchr(verdict.job_id, '\0', sizeof(verdict.job_id)) != NULL);
		}
}

/* Opens one bracket as often as told, within an object. */
static void
test_reply_read_enable_deep_nesting(void **state)
{
	static char body[2 * DEPTH_MAX + 16];
	static const size_t depths[] = { 1, 100, 998, 1001, DEPTH_MAX };
	struct enable_verdict verdict;
	size_t i, depth, len;

	(void)state;
	for (i = 0; i < COUNT(depths); i++) {
		depth = depths[i];
		memcpy(body, "{\"a\":", 5);
		memset(body + 5, '[', depth);
		memset(body + 5 + depth, ']', depth);
		body[5 + 2 * depth] = '}';
		len = 6 + 2 * depth;
		read_enable(body, len, &verdict);
		CHECK(verdict.outcome == (depth < 1000 ? UPSTREAM_ACCEPTED : UPSTREAM_NOT_JSON),
			"%zu deep", depth);
		/* Without its end. */
		read_enable(body, 5 + depth, &verdict);
		assert_int_equal(verdict.outcome, UPSTREAM_NOT_JSON);
		memset(body, '[', len);
		read_enable(body, len, &verdict);
		assert_int_equal(verdict.outcome, UPSTREAM_NOT_JSON);
	}
}

/* Reads a reply whose id is that JSON value; what is kept of it. */
static const char *
job_id_of(const char *value, struct enable_verdict *verdict)
{
	char body[4096];
	int len = snprintf(body, sizeof(body), "{\"status\":\"pending\",\"id\":%s}", value);

	assert_true(len > 0 && (size_t)len < sizeof(body));
	read_enable(body, (size_t)len, verdict);
	CHECK(verdict->outcome == UPSTREAM_ACCEPTED, "an id is no reason to refuse: %s", value);
	return verdict->job_id;
}

static void
test_reply_read_enable_job_id_of_wrong_type(void **state)
{
	static const char *const values[] = { "null", "true", "false", "1", "1.5", "[]", "[\"a\"]",
		"{}", "{\"id\":\"a\"}", "\"\"" };
	struct enable_verdict verdict;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(values); i++)
		CHECK(job_id_of(values[i], &verdict)[0] == '\0', "%s gave \"%s\"", values[i],
			verdict.job_id);
}

static void
test_reply_read_enable_job_id_of_any_length(void **state)
{
	char value[4 * JOB_ID_LEN_MAX];
	struct enable_verdict verdict;
	size_t len, expected;

	(void)state;
	for (len = 1; len < sizeof(value) - 3; len++) {
		value[0] = '"';
		memset(value + 1, 'a', len);
		memcpy(value + 1 + len, "\"", 2);
		expected = len <= JOB_ID_LEN_MAX ? len : 0;
		CHECK(strlen(job_id_of(value, &verdict)) == expected, "%zu bytes", len);
	}
}

/* What would be another path, or none: an id goes into one. */
static void
test_reply_read_enable_job_id_of_strange_characters(void **state)
{
	static const char *const values[] = { "\".\"", "\"..\"", "\"../accounts\"", "\"a/b\"",
		"\"a?b\"", "\"a#b\"", "\"a b\"", "\"a\\nb\"", "\"\\u00e9\"", "\"a%2Fb\"",
		"\"a\\\\b\"", "\" \"" };
	struct enable_verdict verdict;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(values); i++)
		CHECK(job_id_of(values[i], &verdict)[0] == '\0', "%s gave \"%s\"", values[i],
			verdict.job_id);
}

static const struct {
	const char *body;
	size_t len;
	bool ended, failed;
} jobs[] = {
	{ BYTES(QUEUED_JOB), false, false },
	{ BYTES("{\"status\":\"in-progress\"}"), false, false },
	{ BYTES("{\"status\":\"draining\"}"), false, false },
	{ BYTES("{\"status\":\"paused\"}"), false, false },
	{ BYTES("{\"status\":\"unheard of\"}"), false, false },
	{ BYTES("{\"status\":\"failed\"}"), true, true },
	{ BYTES("{\"status\":\"cancelled\"}"), true, true },
	{ BYTES("{\"status\":\"success\"}"), true, false },
	/* Unreadable: it has not ended, as far as can be known. */
	{ BYTES(""), false, false },
	{ BYTES(" "), false, false },
	{ BYTES("{}"), false, false },
	{ BYTES("[]"), false, false },
	{ BYTES("null"), false, false },
	{ BYTES("Forbidden"), false, false },
	{ BYTES("{\"status\":\"failed\""), false, false },
	{ BYTES("{\"status\":\"failed\"}x"), false, false },
	{ BYTES("{\"status\":\"failed\"}\0"), false, false },
	{ BYTES("{\"status\":null}"), false, false },
	{ BYTES("{\"status\":[\"failed\"]}"), false, false },
	{ BYTES("{\"data\":{\"status\":\"failed\"}}"), false, false },
	/* Success, but not for our address. */
	{ BYTES(RECORDED_FAILURE), true, true },
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS, ",\"status\":\"failed\"")) "}")), true, true },
	{ BYTES(SUCCESS(
		  "{\"failed_count\":0," EMAILS(ITEM(ADDRESS, ",\"status\":\"failed\"")) "}")),
		true, true },
	{ BYTES(SUCCESS("{" EMAILS(ITEM("JANE@Acme.COM", ",\"status\":\"failed\"")) "}")), true,
		true },
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS, ",\"error\":\"x\"")) "}")), true, true },
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS, ",\"status\":\"success\",\"error\":\"x\"")) "}")),
		true, true },
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS, ",\"error\":null,\"error\":\"x\"")) "}")), true,
		true },
	{ BYTES(SUCCESS("{" EMAILS(ITEM("a@b.c", ",\"status\":\"success\"") "," ITEM(
		  ADDRESS, ",\"status\":\"failed\"")) "}")),
		true, true },
	/* Success, for our address. */
	{ BYTES(SUCCESS(
		  "{\"failed_count\":0," EMAILS(ITEM(ADDRESS, ",\"status\":\"success\"")) "}")),
		true, false },
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS, ",\"status\":\"success\",\"error\":null")) "}")),
		true, false },
	{ BYTES(SUCCESS("{" EMAILS(ITEM("Jane@ACME.com", "")) "}")), true, false },
	{ BYTES(SUCCESS("{\"failed_count\":1," EMAILS(ITEM("a@b.c",
		  ",\"status\":\"failed\"") "," ITEM(ADDRESS, ",\"status\":\"success\"")) "}")),
		true, false },
	/* A failure that is counted, but not told whose: we asked for one address. */
	{ BYTES(SUCCESS("{\"failed_count\":1}")), true, true },
	{ BYTES(SUCCESS("{\"failed_count\":1,\"success_count\":0," EMAILS("") "}")), true, true },
	{ BYTES(SUCCESS("{\"failed_count\":1,\"processed_emails\":null}")), true, true },
	{ BYTES(SUCCESS(
		  "{\"failed_count\":1," EMAILS(ITEM("a@b.c", ",\"status\":\"failed\"")) "}")),
		true, true },
	{ BYTES(SUCCESS("{\"failed_count\":2}")), true, true },
	/* None counted. */
	{ BYTES(SUCCESS("{\"failed_count\":0}")), true, false },
	{ BYTES(SUCCESS(
		  "{\"failed_count\":0," EMAILS(ITEM("a@b.c", ",\"status\":\"failed\"")) "}")),
		true, false },
	{ BYTES(SUCCESS("{\"success_count\":1}")), true, false },
	{ BYTES(SUCCESS("{\"failed_count\":-1}")), true, false },
	/* Members of other types say nothing. */
	{ BYTES(SUCCESS("null")), true, false },
	{ BYTES(SUCCESS("[]")), true, false },
	{ BYTES(SUCCESS("\"x\"")), true, false },
	{ BYTES(SUCCESS("1")), true, false },
	{ BYTES(SUCCESS("{\"failed_count\":\"1\"}")), true, false },
	{ BYTES(SUCCESS("{\"failed_count\":true}")), true, false },
	{ BYTES(SUCCESS("{\"failed_count\":null}")), true, false },
	{ BYTES(SUCCESS("{\"processed_emails\":1}")), true, false },
	{ BYTES(SUCCESS("{\"processed_emails\":\"x\"}")), true, false },
	{ BYTES(SUCCESS("{" EMAILS("1,\"x\",null,[],{}") "}")), true, false },
	{ BYTES(SUCCESS("{" EMAILS("\"" ADDRESS "\"") "}")), true, false },
	{ BYTES(SUCCESS("{" EMAILS("{\"email\":1,\"status\":\"failed\"}") "}")), true, false },
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS, ",\"status\":1")) "}")), true, false },
	/* Addresses that only resemble ours. */
	{ BYTES(SUCCESS("{" EMAILS(ITEM(ADDRESS ".uk", ",\"status\":\"failed\"")) "}")), true,
		false },
	{ BYTES(SUCCESS("{" EMAILS(ITEM("jane@acme.co", ",\"status\":\"failed\"")) "}")), true,
		false },
	{ BYTES(SUCCESS("{" EMAILS(ITEM("", ",\"status\":\"failed\"")) "}")), true, false },
};

static void
test_reply_read_job_examples(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(jobs); i++) {
		char *copy = exact_copy(jobs[i].body, jobs[i].len);
		bool failed = !jobs[i].failed;
		bool ended = reply_read_job(copy, jobs[i].len, ADDRESS, &failed);

		free(copy);
		CHECK(ended == jobs[i].ended, "row %zu: %s: %s", i, jobs[i].body,
			ended ? "ended" : "not ended");
		CHECK(failed == jobs[i].failed, "row %zu: %s: %s", i, jobs[i].body,
			failed ? "failed" : "not failed");
	}
}

/* Listed twice, our address is among the failed if one of the two has failed. */
static void
test_reply_read_job_address_listed_twice(void **state)
{
	static const char body[] = SUCCESS("{\"failed_count\":1," EMAILS(ITEM(ADDRESS,
		",\"status\":\"success\"") "," ITEM(ADDRESS, ",\"status\":\"failed\"")) "}");
	bool failed = false;

	(void)state;
	assert_true(reply_read_job(body, sizeof(body) - 1, ADDRESS, &failed));
	assert_true(failed);
}

static const struct {
	const char *body;
	size_t len;
	bool warming;
} accounts[] = {
	{ BYTES("{\"warmup_status\":1}"), true },
	{ BYTES("{\"email\":\"" ADDRESS "\",\"stat_warmup_score\":null,\"warmup_status\":1}\n"),
		true },
	{ BYTES("{\"warmup_status\":1.0}"), true },
	{ BYTES("{\"warmup_status\":0}"), false },
	{ BYTES("{\"warmup_status\":-1}"), false },
	{ BYTES("{\"warmup_status\":-2}"), false },
	{ BYTES("{\"warmup_status\":-3}"), false },
	{ BYTES("{\"warmup_status\":2}"), false },
	{ BYTES("{\"warmup_status\":1.5}"), false },
	{ BYTES("{\"warmup_status\":10}"), false },
	{ BYTES("{\"warmup_status\":\"1\"}"), false },
	{ BYTES("{\"warmup_status\":true}"), false },
	{ BYTES("{\"warmup_status\":null}"), false },
	{ BYTES("{\"warmup_status\":[1]}"), false },
	{ BYTES("{\"Warmup_Status\":1}"), false },
	{ BYTES("{\"warmup_status \":1}"), false },
	{ BYTES("{\"status\":1}"), false },
	{ BYTES("{\"data\":{\"warmup_status\":1}}"), false },
	{ BYTES("{}"), false },
	{ BYTES(""), false },
	{ BYTES("1"), false },
	{ BYTES("[{\"warmup_status\":1}]"), false },
	{ BYTES("{\"warmup_status\":1"), false },
	{ BYTES("{\"warmup_status\":1}x"), false },
	{ BYTES("{\"warmup_status\":1}\0"), false },
	{ BYTES("{\"statusCode\":404,\"error\":\"Not Found\"}"), false },
};

static void
test_reply_read_account_examples(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(accounts); i++) {
		char *copy = exact_copy(accounts[i].body, accounts[i].len);
		bool warming = reply_read_account(copy, accounts[i].len);

		free(copy);
		CHECK(warming == accounts[i].warming, "row %zu: %s", i, accounts[i].body);
	}
}

static const struct {
	const char *address;
	const char *body;
} written[] = {
	{ ADDRESS, "{\"emails\":[\"jane@acme.com\"]}" },
	{ "a+b/c=d%e&f@acme.com", "{\"emails\":[\"a+b/c=d%e&f@acme.com\"]}" },
	{ "\"a b\"@acme.com", "{\"emails\":[\"\\\"a b\\\"@acme.com\"]}" },
	{ "a\\b@acme.com", "{\"emails\":[\"a\\\\b@acme.com\"]}" },
	{ "J\xC3\xB6rg@b\xC3\xBC"
	  "cher.de",
		"{\"emails\":[\"J\xC3\xB6rg@b\xC3\xBC"
		"cher.de\"]}" },
	{ "\xF0\x9F\x98\x80@acme.com", "{\"emails\":[\"\xF0\x9F\x98\x80@acme.com\"]}" },
	/* An address that would like to be more than one, or another member. */
	{ "a@b.c\",\"d@e.f", "{\"emails\":[\"a@b.c\\\",\\\"d@e.f\"]}" },
	{ "\"],\"include_all_emails\":true,\"x\":[\"",
		"{\"emails\":[\"\\\"],\\\"include_all_emails\\\":true,\\\"x\\\":[\\\"\"]}" },
};

/* One member, one item, and that the address: other members reach the whole workspace. */
static void
assert_one_address(const char *body, const char *address)
{
	cJSON *root = cJSON_ParseWithOpts(body, NULL, 1);
	const cJSON *emails = cJSON_GetObjectItemCaseSensitive(root, "emails");

	assert_int_equal(cJSON_GetArraySize(root), 1);
	assert_true(cJSON_IsArray(emails));
	assert_int_equal(cJSON_GetArraySize(emails), 1);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(emails, 0)), address);
	cJSON_Delete(root);
}

static const struct {
	const char *body;
	size_t len;
	bool object, items;
} objects[] = {
	{ BYTES("{\"items\":[]}"), true, true },
	{ BYTES("{\"items\":[{\"email\":\"" ADDRESS "\"}],\"next_starting_after\":null}"), true,
		true },
	{ BYTES(" {\"items\" : [1] }\n"), true, true },
	{ BYTES("{}"), true, false },
	{ BYTES("{\"items\":{}}"), true, false },
	{ BYTES("{\"items\":null}"), true, false },
	{ BYTES("{\"Items\":[]}"), true, false },
	{ BYTES("{\"statusCode\":403}"), true, false },
	{ BYTES(""), false, false },
	{ BYTES("[]"), false, false },
	{ BYTES("null"), false, false },
	{ BYTES("{\"items\":[]"), false, false },
	{ BYTES("{\"items\":[]}}"), false, false },
	{ BYTES("{\"items\":[]}\0"), false, false },
	{ BYTES("{\"items\":[\"\xff\"]}"), false, false },
	{ BYTES("error code: 1010"), false, false },
	{ BYTES("<!doctype html>"), false, false },
};

static void
test_reply_is_object_examples(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(objects); i++) {
		char *copy = exact_copy(objects[i].body, objects[i].len);

		assert_int_equal(reply_is_object(copy, objects[i].len, NULL), objects[i].object);
		assert_int_equal(reply_is_object(copy, objects[i].len, "items"), objects[i].items);
		free(copy);
	}
}

static void
test_reply_write_enable_body_exact_bytes(void **state)
{
	struct buf body;
	size_t i;

	(void)state;
	buf_init(&body, 1024);
	for (i = 0; i < COUNT(written); i++) {
		buf_reset(&body);
		assert_int_equal(reply_write_enable_body(&body, written[i].address), ERR_OK);
		assert_string_equal(buf_text(&body), written[i].body);
		assert_int_equal(body.len, strlen(written[i].body));
		assert_one_address(buf_text(&body), written[i].address);
	}
	buf_free(&body);
}

/* Half an address could be somebody else's. */
static void
test_reply_write_enable_body_too_long(void **state)
{
	static const char whole[] = "{\"emails\":[\"jane@acme.com\"]}";
	struct buf body;
	size_t max;

	(void)state;
	for (max = 0; max < sizeof(whole) - 1; max++) {
		buf_init(&body, max);
		assert_int_equal(reply_write_enable_body(&body, ADDRESS), ERR_TOO_LONG);
		buf_free(&body);
	}
	buf_init(&body, max);
	assert_int_equal(reply_write_enable_body(&body, ADDRESS), ERR_OK);
	assert_string_equal(buf_text(&body), whole);
	buf_free(&body);
}

static void
test_instantly_reason_words(void **state)
{
	static const char *const reasons[] = { "", "", "refused", "job_failed", "error",
		"unreachable", "timeout", "tls", "incomplete", "oversized", "not_json" };
	int i;

	(void)state;
	assert_int_equal(COUNT(reasons), UPSTREAM_MAX);
	for (i = 0; i < UPSTREAM_MAX; i++)
		assert_string_equal(instantly_reason((enum upstream)i), reasons[i]);
	assert_string_equal(instantly_reason(UPSTREAM_MAX), "");
	assert_string_equal(instantly_reason(UNKNOWN), "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reply_read_enable_examples),
		cmocka_unit_test(test_reply_read_enable_cut_short_anywhere),
		cmocka_unit_test(test_reply_read_enable_any_byte_anywhere),
		cmocka_unit_test(test_reply_read_enable_deep_nesting),
		cmocka_unit_test(test_reply_read_enable_job_id_of_wrong_type),
		cmocka_unit_test(test_reply_read_enable_job_id_of_any_length),
		cmocka_unit_test(test_reply_read_enable_job_id_of_strange_characters),
		cmocka_unit_test(test_reply_read_job_examples),
		cmocka_unit_test(test_reply_read_job_address_listed_twice),
		cmocka_unit_test(test_reply_read_account_examples),
		cmocka_unit_test(test_reply_is_object_examples),
		cmocka_unit_test(test_reply_write_enable_body_exact_bytes),
		cmocka_unit_test(test_reply_write_enable_body_too_long),
		cmocka_unit_test(test_instantly_reason_words),
	};

	return cmocka_run_group_tests_name("instantly_reply", tests, NULL, NULL);
}
