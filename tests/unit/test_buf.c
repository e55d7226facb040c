/* test_buf.c: the buffer with a maximum: nothing is lost or cut without buf_check() telling. */
#include "unit.h"

#include "buf.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_MAX (64 * 1024) /* memory that buf_reset() may keep */

/* The linker puts these in place of realloc() for the code under test. */
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static bool memory_is_out;

void *
__wrap_realloc(void *memory, size_t size)
{
	return memory_is_out ? NULL : __real_realloc(memory, size);
}

static char pattern[3 * KEPT_MAX];

static int
fill_pattern(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(pattern); i++)
		pattern[i] = (char)(i * 7 + i / 256);
	return 0;
}

/* Fails unless the buffer holds the first bytes of the pattern, and a NUL behind them. */
static void
assert_pattern(const struct buf *buf, size_t len)
{
	assert_int_equal(buf->len, len);
	assert_true(buf->data == NULL || buf->size > len);
	assert_true(memcmp(buf_text(buf), pattern, len) == 0);
	assert_int_equal(buf_text(buf)[len], '\0');
}

static void
test_buf_init_is_empty(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 10);
	assert_int_equal(buf.len, 0);
	assert_int_equal(buf.max, 10);
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_string_equal(buf_text(&buf), "");
	buf_free(&buf);
}

static void
test_buf_add_grows_byte_by_byte(void **state)
{
	struct buf buf;
	size_t i;

	(void)state;
	buf_init(&buf, sizeof(pattern));
	for (i = 0; i < 5000; i++) {
		buf_add(&buf, pattern + i, 1);
		assert_pattern(&buf, i + 1);
	}
	assert_int_equal(buf_check(&buf), ERR_OK);
	buf_free(&buf);
}

/* Each size around those at which memory doubles, at once and in two parts. */
static void
test_buf_add_any_size(void **state)
{
	struct buf buf;
	size_t len;

	(void)state;
	for (len = 0; len <= 2100; len++) {
		buf_init(&buf, len);
		buf_add(&buf, pattern, len);
		assert_pattern(&buf, len);
		buf_reset(&buf);
		buf_add(&buf, pattern, len / 2);
		buf_add(&buf, pattern + len / 2, len - len / 2);
		assert_pattern(&buf, len);
		assert_int_equal(buf_check(&buf), ERR_OK);
		buf_free(&buf);
	}
}

static void
test_buf_add_keeps_nul_bytes(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 8);
	buf_add(&buf, "a\0b", 3);
	buf_add(&buf, "\0", 1);
	assert_int_equal(buf.len, 4);
	assert_true(memcmp(buf_text(&buf), "a\0b\0", 5) == 0);
	buf_free(&buf);
}

static void
test_buf_add_nothing(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 0);
	buf_add(&buf, NULL, 0);
	buf_add(&buf, "", 0);
	buf_puts(&buf, "");
	buf_printf(&buf, "%s", "");
	assert_int_equal(buf.len, 0);
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_string_equal(buf_text(&buf), "");
	buf_free(&buf);
}

/* One byte too many: nothing of it is taken, and what would fit later is not taken either. */
static void
test_buf_add_over_maximum_sticks(void **state)
{
	static const size_t maxima[] = { 0, 1, 10, 511, 512, 513, 4096 };
	struct buf buf;
	size_t i, max;

	(void)state;
	for (i = 0; i < COUNT(maxima); i++) {
		max = maxima[i];
		buf_init(&buf, max);
		buf_add(&buf, pattern, max);
		assert_int_equal(buf_check(&buf), ERR_OK);
		buf_add(&buf, pattern + max, 1);
		CHECK(buf_check(&buf) == ERR_TOO_LONG, "a maximum of %zu was passed", max);
		assert_pattern(&buf, max);
		buf_free(&buf);

		buf_init(&buf, max);
		buf_add(&buf, pattern, max + 1);
		buf_puts(&buf, "");
		buf_add(&buf, pattern, max / 2);
		buf_printf(&buf, "%s", "");
		assert_int_equal(buf_check(&buf), ERR_TOO_LONG);
		assert_int_equal(buf.len, 0);
		assert_string_equal(buf_text(&buf), "");
		buf_free(&buf);
	}
}

static void
test_buf_add_enormous_length(void **state)
{
	static const size_t lengths[] = { SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, SIZE_MAX - 3 };
	struct buf buf;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(lengths); i++) {
		buf_init(&buf, 100);
		buf_puts(&buf, "abc");
		buf_add(&buf, pattern, lengths[i]);
		assert_int_equal(buf_check(&buf), ERR_TOO_LONG);
		assert_string_equal(buf_text(&buf), "abc");
		buf_free(&buf);
	}
}

static void
test_buf_puts_up_to_maximum(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 6);
	buf_puts(&buf, "abc");
	buf_puts(&buf, "def");
	assert_string_equal(buf_text(&buf), "abcdef");
	assert_int_equal(buf_check(&buf), ERR_OK);
	buf_puts(&buf, "g");
	assert_string_equal(buf_text(&buf), "abcdef");
	assert_int_equal(buf_check(&buf), ERR_TOO_LONG);
	buf_free(&buf);
}

/* A format's result of any length around its room, at the beginning and behind something. */
static void
test_buf_printf_any_length(void **state)
{
	char expected[1100];
	struct buf buf;
	int len;

	(void)state;
	for (len = 1; len < 1050; len++) {
		snprintf(expected, sizeof(expected), "<%*d>", len, 7);
		buf_init(&buf, (size_t)len + 2);
		buf_printf(&buf, "<%*d>", len, 7);
		assert_string_equal(buf_text(&buf), expected);
		buf_reset(&buf);
		buf_puts(&buf, "<");
		buf_printf(&buf, "%*d%c", len, 7, '>');
		assert_string_equal(buf_text(&buf), expected);
		assert_int_equal(buf_check(&buf), ERR_OK);
		buf_printf(&buf, "%d", 1);
		assert_int_equal(buf_check(&buf), ERR_TOO_LONG);
		assert_string_equal(buf_text(&buf), expected);
		buf_free(&buf);
	}
}

static void
test_buf_reset_forgives(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 4);
	buf_puts(&buf, "abc");
	buf_puts(&buf, "too long");
	buf_reset(&buf);
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_int_equal(buf.len, 0);
	assert_string_equal(buf_text(&buf), "");
	buf_puts(&buf, "abcd");
	assert_string_equal(buf_text(&buf), "abcd");
	assert_int_equal(buf_check(&buf), ERR_OK);
	buf_free(&buf);
}

static void
test_buf_reset_keeps_no_more_than_64_kib(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, sizeof(pattern));
	buf_add(&buf, pattern, 1000);
	buf_reset(&buf);
	assert_true(buf.size >= 1000);

	buf_add(&buf, pattern, sizeof(pattern));
	assert_pattern(&buf, sizeof(pattern));
	assert_true(buf.size > KEPT_MAX);
	buf_reset(&buf);
	assert_true(buf.size <= KEPT_MAX);
	assert_string_equal(buf_text(&buf), "");
	assert_int_equal(buf.max, sizeof(pattern));
	buf_add(&buf, pattern, sizeof(pattern));
	assert_pattern(&buf, sizeof(pattern));
	buf_free(&buf);
}

static void
test_buf_free_leaves_a_usable_buffer(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 3);
	buf_puts(&buf, "abcd");
	buf_free(&buf);
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_int_equal(buf.max, 3);
	assert_string_equal(buf_text(&buf), "");
	buf_puts(&buf, "abc");
	assert_string_equal(buf_text(&buf), "abc");
	buf_free(&buf);
	buf_free(&buf);
}

/* The text from before the failure stays, and memory that comes back changes nothing. */
static void
test_buf_add_out_of_memory_sticks(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, sizeof(pattern));
	buf_add(&buf, pattern, 100);
	memory_is_out = true;
	buf_add(&buf, pattern + 100, 5000);
	memory_is_out = false;
	assert_int_equal(buf_check(&buf), ERR_NO_MEMORY);
	buf_add(&buf, pattern + 100, 1);
	buf_printf(&buf, "%d", 1);
	assert_int_equal(buf_check(&buf), ERR_NO_MEMORY);
	assert_pattern(&buf, 100);
	buf_reset(&buf);
	buf_add(&buf, pattern, 5000);
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_pattern(&buf, 5000);
	buf_free(&buf);
}

static void
test_buf_add_out_of_memory_at_first(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 100);
	memory_is_out = true;
	buf_printf(&buf, "%d", 1);
	memory_is_out = false;
	assert_int_equal(buf_check(&buf), ERR_NO_MEMORY);
	assert_string_equal(buf_text(&buf), "");
	buf_free(&buf);
}

static void
test_buf_reserve_serves_when_memory_is_out(void **state)
{
	struct buf buf;
	size_t i;

	(void)state;
	buf_init(&buf, 2000);
	buf_reserve(&buf, 2000);
	assert_string_equal(buf_text(&buf), "");
	memory_is_out = true;
	for (i = 0; i < 2000; i++)
		buf_add(&buf, "x", 1);
	memory_is_out = false;
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_int_equal(strlen(buf_text(&buf)), 2000);
	buf_free(&buf);
}

static void
test_buf_reserve_without_memory_is_forgiven(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 100);
	memory_is_out = true;
	buf_reserve(&buf, 100);
	memory_is_out = false;
	assert_int_equal(buf_check(&buf), ERR_OK);
	buf_puts(&buf, "later");
	buf_reserve(&buf, 10);
	buf_reserve(&buf, 1000); /* more than it may ever hold */
	assert_int_equal(buf_check(&buf), ERR_OK);
	assert_string_equal(buf_text(&buf), "later");
	buf_free(&buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_init_is_empty),
		cmocka_unit_test(test_buf_add_grows_byte_by_byte),
		cmocka_unit_test(test_buf_add_any_size),
		cmocka_unit_test(test_buf_add_keeps_nul_bytes),
		cmocka_unit_test(test_buf_add_nothing),
		cmocka_unit_test(test_buf_add_over_maximum_sticks),
		cmocka_unit_test(test_buf_add_enormous_length),
		cmocka_unit_test(test_buf_puts_up_to_maximum),
		cmocka_unit_test(test_buf_printf_any_length),
		cmocka_unit_test(test_buf_reset_forgives),
		cmocka_unit_test(test_buf_reset_keeps_no_more_than_64_kib),
		cmocka_unit_test(test_buf_free_leaves_a_usable_buffer),
		cmocka_unit_test(test_buf_add_out_of_memory_sticks),
		cmocka_unit_test(test_buf_add_out_of_memory_at_first),
		cmocka_unit_test(test_buf_reserve_serves_when_memory_is_out),
		cmocka_unit_test(test_buf_reserve_without_memory_is_forgiven),
	};

	return cmocka_run_group_tests_name("buf", tests, fill_pattern, NULL);
}
