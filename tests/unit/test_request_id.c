/* test_request_id.c: a caller's own id if it can do no harm, else a fresh one. */
#include "unit.h"

#include "request_id.h"

#include <string.h>

#define FRESH_IDS 1000 /* many times the stock of random bytes */

static struct request_ids ids;

/* Fails unless the caller's id is taken, or a fresh version 4 comes in its place. */
static void
compare(const char *callers, bool taken, const char *what)
{
	char id[REQUEST_ID_TEXT_MAX + 1];

	memset(id, '?', sizeof(id));
	request_id_choose(&ids, callers, id);
	if (taken)
		CHECK(strcmp(id, callers) == 0, "%s became \"%s\"", what, id);
	else
		CHECK(strnlen(id, sizeof(id)) == UUID_TEXT_LEN &&
				uuid_is_valid(id, UUID_TEXT_LEN) && id[14] == '4',
			"%s became \"%.*s\"", what, (int)sizeof(id), id);
}

static void
test_request_id_choose_examples(void **state)
{
	static const struct {
		const char *callers;
		bool taken;
	} rows[] = {
		{ NULL, false },
		{ "", false },
		{ "a", true },
		{ "req-1", true },
		{ "A-Z_a.z-0_9", true },
		{ "...", true },
		{ "3f2b8c1d-9e4a-4b7c-8d2e-1a0f5b6c7d8e", true },
		{ "a b", false },
		{ " a", false },
		{ "a ", false },
		{ "a\r\nSet-Cookie: x=y", false },
		{ "a\"b", false },
		{ "a/b", false },
		{ "a,b", false },
		{ "a%20b", false },
		{ "\xC3\xA9", false },
		{ "a\xFF", false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++)
		compare(rows[i].callers, rows[i].taken,
			rows[i].callers != NULL ? rows[i].callers : "(none)");
}

static void
test_request_id_choose_any_byte(void **state)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	char callers[4] = "a?z", what[16];
	int byte;

	(void)state;
	for (byte = 1; byte < 256; byte++) {
		callers[1] = (char)byte;
		snprintf(what, sizeof(what), "byte 0x%02X", (unsigned)byte);
		compare(callers, strchr(allowed, byte) != NULL, what);
	}
}

static void
test_request_id_choose_any_length(void **state)
{
	char callers[256], what[16];
	size_t len;

	(void)state;
	for (len = 0; len < sizeof(callers); len++) {
		memset(callers, 'x', len);
		callers[len] = '\0';
		snprintf(what, sizeof(what), "%zu bytes", len);
		compare(callers, len >= 1 && len <= 64, what);
	}
}

static void
test_request_id_choose_fresh_ones_differ(void **state)
{
	static char fresh[FRESH_IDS][REQUEST_ID_TEXT_MAX + 1];
	size_t i, j;

	(void)state;
	for (i = 0; i < FRESH_IDS; i++) {
		request_id_choose(&ids, NULL, fresh[i]);
		for (j = 0; j < i; j++)
			CHECK(strcmp(fresh[i], fresh[j]) != 0, "%zu and %zu are the same", i, j);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_id_choose_examples),
		cmocka_unit_test(test_request_id_choose_any_byte),
		cmocka_unit_test(test_request_id_choose_any_length),
		cmocka_unit_test(test_request_id_choose_fresh_ones_differ),
	};

	return cmocka_run_group_tests_name("request_id", tests, NULL, NULL);
}
