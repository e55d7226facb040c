/*
 * test_clock.c: times of the calendar, by example and against the C library's; deadlines.
 *
 * A test of a deadline asks for bounds that hold however long the machine takes between two steps.
 */
#include "unit.h"

#include "clock.h"

#include <limits.h>
#include <string.h>
#include <time.h>

#define US_PER_S     INT64_C(1000000)
#define FIRST_SECOND INT64_C(-62135596800) /* 0001-01-01T00:00:00Z */
#define LAST_SECOND  INT64_C(253402300799) /* 9999-12-31T23:59:59Z */
#define RANDOM_TIMES 200000
#define DEADLINES    20000
#define HOUR_US      (3600 * US_PER_S)
#define LIMIT_MAX_MS 600000 /* the longest that a setting can be */

static const struct {
	int64_t unix_us;
	const char *text; /* NULL: a year that cannot be written */
} times[] = {
	{ 0, "1970-01-01T00:00:00Z" },
	{ 1, "1970-01-01T00:00:00.000001Z" },
	{ -1, "1969-12-31T23:59:59.999999Z" },
	{ -US_PER_S, "1969-12-31T23:59:59Z" },
	{ 1776697200 * US_PER_S, "2026-04-20T15:00:00Z" },
	{ 1776845700 * US_PER_S, "2026-04-22T08:15:00Z" },
	{ 2147483647 * US_PER_S, "2038-01-19T03:14:07Z" },
	{ 2147483648 * US_PER_S, "2038-01-19T03:14:08Z" },
	/* A fraction loses its trailing zeros, and itself if nothing else is left. */
	{ 500000, "1970-01-01T00:00:00.5Z" },
	{ 120000, "1970-01-01T00:00:00.12Z" },
	{ 123000, "1970-01-01T00:00:00.123Z" },
	{ 123400, "1970-01-01T00:00:00.1234Z" },
	{ 123450, "1970-01-01T00:00:00.12345Z" },
	{ 123456, "1970-01-01T00:00:00.123456Z" },
	{ 100, "1970-01-01T00:00:00.0001Z" },
	{ 10, "1970-01-01T00:00:00.00001Z" },
	{ 100001, "1970-01-01T00:00:00.100001Z" },
	{ -500000, "1969-12-31T23:59:59.5Z" },
	{ 10 * US_PER_S + 10, "1970-01-01T00:00:10.00001Z" },
	/* Leap days: every fourth year, not every hundredth, but every four hundredth. */
	{ 951782400 * US_PER_S, "2000-02-29T00:00:00Z" },
	{ 951868799 * US_PER_S + 999999, "2000-02-29T23:59:59.999999Z" },
	{ 951868800 * US_PER_S, "2000-03-01T00:00:00Z" },
	{ 1709210096 * US_PER_S, "2024-02-29T12:34:56Z" },
	{ -2203891201 * US_PER_S, "1900-02-28T23:59:59Z" },
	{ -2203891200 * US_PER_S, "1900-03-01T00:00:00Z" },
	{ 4107542399 * US_PER_S, "2100-02-28T23:59:59Z" },
	{ 4107542400 * US_PER_S, "2100-03-01T00:00:00Z" },
	{ 13574563200 * US_PER_S, "2400-02-29T00:00:00Z" },
	{ -11670998400 * US_PER_S, "1600-02-29T00:00:00Z" },
	{ -49539340800 * US_PER_S, "0400-02-29T00:00:00Z" },
	{ -62035891200 * US_PER_S, "0004-02-29T00:00:00Z" },
	/* Days that the Gregorian calendar left out when it began are counted like any. */
	{ -12219724800 * US_PER_S, "1582-10-10T00:00:00Z" },
	/* Both ends. */
	{ FIRST_SECOND * US_PER_S, "0001-01-01T00:00:00Z" },
	{ FIRST_SECOND * US_PER_S + 1, "0001-01-01T00:00:00.000001Z" },
	{ -62104060800000001, "0001-12-31T23:59:59.999999Z" },
	{ FIRST_SECOND * US_PER_S - 1, NULL },
	{ (FIRST_SECOND - 366 * 86400) * US_PER_S, NULL },
	{ LAST_SECOND * US_PER_S, "9999-12-31T23:59:59Z" },
	{ LAST_SECOND * US_PER_S + 999999, "9999-12-31T23:59:59.999999Z" },
	{ (LAST_SECOND + 1) * US_PER_S, NULL },
	{ 2 * LAST_SECOND * US_PER_S, NULL },
	{ INT64_MIN, NULL },
	{ INT64_MIN + 1, NULL },
	{ INT64_MAX, NULL },
	{ INT64_MAX - 1, NULL },
};

static void
test_clock_format_examples(void **state)
{
	char text[CLOCK_TEXT_MAX];
	const char *got;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(times); i++) {
		got = clock_format(times[i].unix_us, text);
		if (times[i].text == NULL) {
			CHECK(got == NULL, "%lld gave %s", (long long)times[i].unix_us, got);
			continue;
		}
		assert_true(got == text);
		assert_string_equal(got, times[i].text);
	}
}

/* The same by way of the C library. */
static void
format_by_library(int64_t seconds, int micros, char text[64])
{
	time_t when = (time_t)seconds;
	int digits = 6, used;
	struct tm tm;

	assert_true(gmtime_r(&when, &tm) != NULL);
	used = snprintf(text, 64, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1,
		tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (micros != 0) {
		for (; micros % 10 == 0; micros /= 10)
			digits--;
		used += snprintf(text + used, 64 - (size_t)used, ".%0*d", digits, micros);
	}
	snprintf(text + used, 64 - (size_t)used, "Z");
}

static void
test_clock_format_random_times(void **state)
{
	static const int units[] = { 1, 10, 100, 1000, 10000, 100000, 1000000 };
	const size_t range = (size_t)(LAST_SECOND - FIRST_SECOND + 1);
	char text[CLOCK_TEXT_MAX], expected[64];
	uint64_t seed = 0xC10C;
	int64_t seconds;
	int i, micros;

	(void)state;
	for (i = 0; i < RANDOM_TIMES; i++) {
		seconds = FIRST_SECOND + (int64_t)unit_random_below(&seed, range);
		micros = (int)unit_random_below(&seed, 1000000);
		micros -= micros % units[unit_random_below(&seed, COUNT(units))];
		format_by_library(seconds, micros, expected);
		assert_true(clock_format(seconds * US_PER_S + micros, text) != NULL);
		assert_string_equal(text, expected);
	}
	TELL("%d times, the same as the C library's\n", RANDOM_TIMES);
}

/* The last second and the first of each year. */
static void
test_clock_format_every_year(void **state)
{
	struct tm tm = { .tm_mday = 1 };
	char text[CLOCK_TEXT_MAX], expected[64];
	int64_t new_year;
	int year;

	(void)state;
	for (year = 1; year <= 9999; year++) {
		tm.tm_year = year - 1900;
		new_year = (int64_t)timegm(&tm);
		assert_true(clock_format(new_year * US_PER_S, text) != NULL);
		snprintf(expected, sizeof(expected), "%04d-01-01T00:00:00Z", year);
		assert_string_equal(text, expected);
		if (year == 1)
			continue;
		assert_true(clock_format(new_year * US_PER_S - 1, text) != NULL);
		snprintf(expected, sizeof(expected), "%04d-12-31T23:59:59.999999Z", year - 1);
		assert_string_equal(text, expected);
	}
}

static void
test_clock_now_us_never_goes_back(void **state)
{
	int64_t last = clock_now_us(), now;
	int i;

	(void)state;
	for (i = 0; i < 100000; i++) {
		now = clock_now_us();
		assert_true(now >= last);
		last = now;
	}
}

static void
test_clock_deadline_us_lies_ahead(void **state)
{
	static const int limits_ms[] = { 0, 1, 10, 1500, LIMIT_MAX_MS, INT_MAX };
	int64_t before, deadline, after;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(limits_ms); i++) {
		before = clock_now_us();
		deadline = clock_deadline_us(limits_ms[i]);
		after = clock_now_us();
		CHECK(deadline >= before + limits_ms[i] * CLOCK_US_PER_MS &&
				deadline <= after + limits_ms[i] * CLOCK_US_PER_MS,
			"%d ms", limits_ms[i]);
	}
}

/* What is left of a deadline at a moment, in whole milliseconds that do not end before it. */
static int64_t
left_at(int64_t deadline_us, int64_t now_us)
{
	int64_t left_us = deadline_us - now_us;

	return left_us <= 0 ? 0 : (left_us + CLOCK_US_PER_MS - 1) / CLOCK_US_PER_MS;
}

/* Rounded down, poll() would return before the deadline, again and again. */
static void
test_clock_left_ms_rounds_up(void **state)
{
	int64_t before, deadline, after;
	uint64_t seed = 7;
	int i, left;

	(void)state;
	for (i = 0; i < DEADLINES; i++) {
		deadline = clock_now_us() + (int64_t)unit_random_below(&seed, 8000) - 3000;
		before = clock_now_us();
		left = clock_left_ms(deadline);
		after = clock_now_us();
		CHECK(left >= 0 && left <= left_at(deadline, before) &&
				left >= left_at(deadline, after),
			"%d ms are not left of %lld us", left, (long long)(deadline - before));
	}
}

static void
test_clock_left_ms_never_negative(void **state)
{
	static const int64_t ago_us[] = { 0, 1, 999, 1000, 1001, HOUR_US, 100000 * HOUR_US };
	size_t i;

	(void)state;
	assert_int_equal(clock_left_ms(0), 0);
	assert_int_equal(clock_left_ms(-1), 0);
	for (i = 0; i < COUNT(ago_us); i++)
		assert_int_equal(clock_left_ms(clock_now_us() - ago_us[i]), 0);
}

static void
test_clock_left_ms_of_long_limits(void **state)
{
	static const int limits_ms[] = { 1000, LIMIT_MAX_MS, INT_MAX };
	int left;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(limits_ms); i++) {
		left = clock_left_ms(clock_deadline_us(limits_ms[i]));
		CHECK(left > limits_ms[i] - 1000 && left <= limits_ms[i], "%d of %d ms left", left,
			limits_ms[i]);
	}
}

/* The share or the deadline, whichever comes first. */
static void
test_clock_share_us_is_the_earlier(void **state)
{
	static const int limits_ms[] = { 0, 1, 2500, LIMIT_MAX_MS, INT_MAX };
	int64_t before, share, after, limit_us, deadline;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(limits_ms); i++) {
		limit_us = limits_ms[i] * CLOCK_US_PER_MS;
		before = clock_now_us();
		share = clock_share_us(INT64_MAX, limits_ms[i]);
		after = clock_now_us();
		CHECK(share >= before + limit_us && share <= after + limit_us, "%d ms",
			limits_ms[i]);
		/* The clock does not stand still: this deadline is the earlier one for sure. */
		deadline = before + limit_us - 1;
		assert_true(clock_share_us(deadline, limits_ms[i]) == deadline);
	}
	assert_true(clock_share_us(0, 1000) == 0);
}

static void
test_clock_sleep_us_pauses(void **state)
{
	int64_t start = clock_now_us();

	(void)state;
	clock_sleep_us(5000, start + HOUR_US);
	assert_true(clock_now_us() >= start + 5000);
	start = clock_now_us();
	clock_sleep_us(5000, INT64_MAX);
	assert_true(clock_now_us() >= start + 5000);
}

/* An hour's pause that ends at its deadline: generous, so that a busy machine passes, too. */
static void
test_clock_sleep_us_ends_at_deadline(void **state)
{
	int64_t start = clock_now_us();

	(void)state;
	clock_sleep_us(HOUR_US, start + 5000);
	assert_true(clock_now_us() >= start + 5000);
	clock_sleep_us(HOUR_US, start);
	clock_sleep_us(HOUR_US, start - HOUR_US);
	clock_sleep_us(0, start + HOUR_US);
	assert_true(clock_now_us() < start + 60 * US_PER_S);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock_format_examples),
		cmocka_unit_test(test_clock_format_random_times),
		cmocka_unit_test(test_clock_format_every_year),
		cmocka_unit_test(test_clock_now_us_never_goes_back),
		cmocka_unit_test(test_clock_deadline_us_lies_ahead),
		cmocka_unit_test(test_clock_left_ms_rounds_up),
		cmocka_unit_test(test_clock_left_ms_never_negative),
		cmocka_unit_test(test_clock_left_ms_of_long_limits),
		cmocka_unit_test(test_clock_share_us_is_the_earlier),
		cmocka_unit_test(test_clock_sleep_us_pauses),
		cmocka_unit_test(test_clock_sleep_us_ends_at_deadline),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
