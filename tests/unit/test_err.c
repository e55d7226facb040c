/* test_err.c: the table of errors: no holes, and the statuses and codes that callers rely on. */
#include "unit.h"

#include "err.h"

#include <string.h>

#define NAME(member) [member] = #member

/* Every member of the enum, in its order. */
static const char *const names[] = {
	NAME(ERR_OK),
	NAME(ERR_INVALID_ID),
	NAME(ERR_BODY_INCOMPLETE),
	NAME(ERR_UNAUTHORIZED),
	NAME(ERR_NO_ROUTE),
	NAME(ERR_NO_ACCOUNT),
	NAME(ERR_METHOD_NOT_ALLOWED),
	NAME(ERR_NOT_STUCK),
	NAME(ERR_NO_ADDRESS),
	NAME(ERR_MOVED_MEANWHILE),
	NAME(ERR_BODY_TOO_LARGE),
	NAME(ERR_NOT_CONFIRMED),
	NAME(ERR_INTERNAL),
	NAME(ERR_CONFIG),
	NAME(ERR_UPSTREAM_REJECTED),
	NAME(ERR_UPSTREAM_UNAVAILABLE),
	NAME(ERR_UNAVAILABLE),
	NAME(ERR_DB_LOST),
	NAME(ERR_DB_AGAIN),
	NAME(ERR_DB_REFUSED),
	NAME(ERR_TOO_LONG),
	NAME(ERR_NO_MEMORY),
	NAME(ERR_IO),
	NAME(ERR_STOPPED),
};

/* What callers are told, in the order of the manual's table. */
static const struct {
	enum err err;
	int status;
	const char *code;
} told[] = {
	{ ERR_OK, 200, "ok" },
	{ ERR_INVALID_ID, 400, "invalid_request" },
	{ ERR_BODY_INCOMPLETE, 400, "invalid_request" },
	{ ERR_UNAUTHORIZED, 401, "unauthorized" },
	{ ERR_NO_ROUTE, 404, "not_found" },
	{ ERR_NO_ACCOUNT, 404, "not_found" },
	{ ERR_METHOD_NOT_ALLOWED, 405, "method_not_allowed" },
	{ ERR_NOT_STUCK, 409, "conflict" },
	{ ERR_NO_ADDRESS, 409, "conflict" },
	{ ERR_MOVED_MEANWHILE, 409, "conflict" },
	{ ERR_BODY_TOO_LARGE, 413, "payload_too_large" },
	{ ERR_NOT_CONFIRMED, 500, "internal_error" },
	{ ERR_INTERNAL, 500, "internal_error" },
	{ ERR_CONFIG, 500, "internal_error" },
	{ ERR_UPSTREAM_REJECTED, 502, "upstream_rejected" },
	{ ERR_UPSTREAM_UNAVAILABLE, 502, "upstream_unavailable" },
	{ ERR_UNAVAILABLE, 503, "unavailable" },
};

static const char not_confirmed[] = "Warmup was enabled but failed to update account status";

static void
test_err_info_has_no_holes(void **state)
{
	const struct err_info *info;
	int i;

	(void)state;
	assert_int_equal(COUNT(names), ERR_MAX);
	for (i = 0; i < ERR_MAX; i++) {
		info = err_info((enum err)i);
		CHECK(names[i] != NULL && info->name != NULL, "row %d is empty", i);
		assert_string_equal(info->name, names[i]);
		assert_true(info->code != NULL && info->code[0] != '\0');
		assert_true(info->message != NULL && info->message[0] != '\0');
		assert_true((unsigned)info->level < LOG_LEVEL_MAX);
	}
}

static void
test_err_info_statuses_and_codes(void **state)
{
	const struct err_info *info;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(told); i++) {
		info = err_info(told[i].err);
		CHECK(info->status == told[i].status, "%s: %d", info->name, info->status);
		CHECK(strcmp(info->code, told[i].code) == 0, "%s: %s", info->name, info->code);
	}
}

/* Should a code that only modules pass among themselves get out, it tells nothing. */
static void
test_err_info_of_modules_is_internal(void **state)
{
	const struct err_info *internal = err_info(ERR_INTERNAL), *info;
	int i;

	(void)state;
	for (i = (int)COUNT(told); i < ERR_MAX; i++) {
		info = err_info((enum err)i);
		assert_int_equal(info->status, 500);
		assert_string_equal(info->code, internal->code);
		assert_string_equal(info->message, internal->message);
		assert_int_equal(info->level, LOG_ERROR);
	}
}

/* Clients tell this 500 from others by its message alone. */
static void
test_err_info_message_of_not_confirmed(void **state)
{
	int i;

	(void)state;
	assert_string_equal(err_info(ERR_NOT_CONFIRMED)->message, not_confirmed);
	for (i = 0; i < ERR_MAX; i++)
		CHECK((strcmp(err_info((enum err)i)->message, not_confirmed) == 0) ==
				(i == ERR_NOT_CONFIRMED),
			"%s says the same", names[i]);
}

/* Messages are one plain line, whatever is done with them. */
static void
test_err_info_messages_are_plain(void **state)
{
	const char *c;
	int i;

	(void)state;
	for (i = 0; i < ERR_MAX; i++)
		for (c = err_info((enum err)i)->message; *c != '\0'; c++)
			CHECK(*c >= ' ' && *c <= '~', "%s", names[i]);
}

/* Faults of our own or of the way to Instantly are not lost at the usual level. */
static void
test_err_info_levels(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(told); i++)
		CHECK((err_info(told[i].err)->level >= LOG_WARN) ==
				(told[i].status >= 500 || told[i].err == ERR_NO_ADDRESS),
			"%s", err_info(told[i].err)->name);
}

static void
test_err_info_unknown_value_is_internal(void **state)
{
	static const int unknown[] = { ERR_MAX, ERR_MAX + 1, 1000000, -1, INT32_MAX, INT32_MIN };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(unknown); i++)
		CHECK(err_info((enum err)unknown[i]) == err_info(ERR_INTERNAL), "%d", unknown[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_info_has_no_holes),
		cmocka_unit_test(test_err_info_statuses_and_codes),
		cmocka_unit_test(test_err_info_of_modules_is_internal),
		cmocka_unit_test(test_err_info_message_of_not_confirmed),
		cmocka_unit_test(test_err_info_messages_are_plain),
		cmocka_unit_test(test_err_info_levels),
		cmocka_unit_test(test_err_info_unknown_value_is_internal),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
