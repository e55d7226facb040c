/*
 * test_uuid.c: the pattern of ids: by example, and against a regular expression over every string
 * that differs from a typical one in one byte, every length, and a million strings close by.
 */
#include "unit.h"

#include "uuid.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_STRINGS 1000000
#define LENGTH_MAX     40 /* of a tried string; longer ones differ in nothing but length */

/* As published, but for the line break. */
static const char pattern[] =
	"^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
	"|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$";

static regex_t reference;

static const char *const bases[] = {
	"3f2b8c1d-9e4a-4b7c-8d2e-1a0f5b6c7d8e",
	"3F2B8C1D-9E4A-4B7C-AD2E-1A0F5B6C7D8E",
	"AaBbCcDd-EeFf-1aBc-bDeF-0123456789aB",
	"00000000-0000-0000-0000-000000000000",
	"ffffffff-ffff-ffff-ffff-ffffffffffff",
	"01234567-89ab-8cde-Bf01-23456789abcd",
};

static const struct {
	const char *text;
	size_t len;
	bool valid;
} examples[] = {
	{ BYTES("11111111-1111-4111-8111-111111111111"), true },
	/* The published page's own sample id does not match the page's pattern: variant 1. */
	{ BYTES("aaaa1111-1111-1111-1111-111111111111"), false },
	{ BYTES("AAAAAAAA-AAAA-4AAA-AAAA-AAAAAAAAAAAA"), true },
	{ BYTES("AaBbCcDd-EeFf-1aBc-bDeF-0123456789aB"), true },
	{ BYTES("00000000-0000-0000-0000-000000000000"), true },
	{ BYTES("ffffffff-ffff-ffff-ffff-ffffffffffff"), true },
	/* All ones are an id in lower case only. */
	{ BYTES("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"), false },
	{ BYTES("ffffffff-ffff-ffff-ffff-fffffffffffF"), false },
	{ BYTES("Ffffffff-ffff-ffff-ffff-ffffffffffff"), false },
	/* Nearly nil. */
	{ BYTES("00000000-0000-0000-0000-000000000001"), false },
	{ BYTES("00000000-0000-0000-8000-000000000000"), false },
	{ BYTES("00000000-0000-1000-8000-000000000000"), true },
	{ BYTES("FFFFFFFF-FFFF-8FFF-BFFF-FFFFFFFFFFFF"), true },
	/* Version: 1 to 8. */
	{ BYTES("11111111-1111-0111-8111-111111111111"), false },
	{ BYTES("11111111-1111-9111-8111-111111111111"), false },
	{ BYTES("11111111-1111-a111-8111-111111111111"), false },
	{ BYTES("11111111-1111-1111-8111-111111111111"), true },
	{ BYTES("11111111-1111-7111-8111-111111111111"), true },
	{ BYTES("11111111-1111-8111-8111-111111111111"), true },
	/* Variant: 8 to b. */
	{ BYTES("11111111-1111-4111-7111-111111111111"), false },
	{ BYTES("11111111-1111-4111-c111-111111111111"), false },
	{ BYTES("11111111-1111-4111-C111-111111111111"), false },
	{ BYTES("11111111-1111-4111-9111-111111111111"), true },
	{ BYTES("11111111-1111-4111-b111-111111111111"), true },
	{ BYTES("11111111-1111-4111-B111-111111111111"), true },
	/* Length and form; PostgreSQL would take several of these. */
	{ BYTES("11111111-1111-4111-8111-11111111111"), false },
	{ BYTES("11111111-1111-4111-8111-1111111111111"), false },
	{ BYTES("1111111-11111-4111-8111-111111111111"), false },
	{ BYTES("11111111111141118111111111111111"), false },
	{ BYTES("{11111111-1111-4111-8111-111111111111}"), false },
	{ BYTES("{1111111-1111-4111-8111-11111111111}"), false },
	{ BYTES("urn:uuid:11111111-1111-4111-8111-111111111111"), false },
	/* The trap of "$", which in many libraries matches before a line's end. */
	{ BYTES("11111111-1111-4111-8111-111111111111\n"), false },
	{ BYTES("11111111-1111-4111-8111-111111111111\r\n"), false },
	{ BYTES("11111111-1111-4111-8111-111111111111%0A"), false },
	{ BYTES("11111111-1111-4111-8111-11111111111\n"), false },
	{ BYTES("\n11111111-1111-4111-8111-111111111111"), false },
	{ BYTES(" 11111111-1111-4111-8111-111111111111"), false },
	{ BYTES("11111111-1111-4111-8111-111111111111 "), false },
	{ BYTES("%2011111111-1111-4111-8111-111111111111"), false },
	{ BYTES(" 1111111-1111-4111-8111-111111111111"), false },
	{ BYTES("1111111g-1111-4111-8111-111111111111"), false },
	{ BYTES("11111111-1111-4111-8111-11111111111G"), false },
	/* Several bytes that look like one character: U+2010 and a full-width digit. */
	{ BYTES("11111111\xE2\x80\x90"
		"1111-4111-8111-111111111111"),
		false },
	{ BYTES("111111\xE2\x80\x90"
		"1111-4111-8111-111111111111"),
		false },
	{ BYTES("\xEF\xBC\x91"
		"1111111-1111-4111-8111-111111111111"),
		false },
	{ BYTES("\xEF\xBC\x91"
		"11111-1111-4111-8111-111111111111"),
		false },
	/* What a C string would not show. */
	{ BYTES("11111111-1111-4111-8111-111111111111\0"), false },
	{ BYTES("11111111-1111-4111-8111-11111111111\0"), false },
	{ BYTES("11111111-1111-4111-8111-111111111111%00"), false },
	{ BYTES("\0001111111-1111-4111-8111-111111111111"), false },
	{ BYTES(""), false },
	{ BYTES("11111111-1111-4111-8111-111111111111/"), false },
	{ BYTES("11111111-1111-4111-8111-111111111111/x"), false },
	/* strtoul() and sscanf() would take these. */
	{ BYTES("+1111111-1111-4111-8111-111111111111"), false },
	{ BYTES("0x111111-1111-4111-8111-111111111111"), false },
	{ BYTES("-1111111-1111-4111-8111-111111111111"), false },
	/* Taken as it stands, never decoded once more. */
	{ BYTES("11111111-1111-4111-8111-11111111111%31"), false },
	{ BYTES("11111111-1111-4111-8111-111111111%31"), false },
	{ BYTES("11111111-1111-4111-8111-111111111111' OR 1=1--"), false },
	{ BYTES("11111111-1111-4111-8111-1' OR 1=1--"), false },
};

static int
compile_reference(void **state)
{
	(void)state;
	return regcomp(&reference, pattern, REG_EXTENDED | REG_NOSUB);
}

static int
free_reference(void **state)
{
	(void)state;
	regfree(&reference);
	return 0;
}

static bool
reference_is_valid(const char *text, size_t len)
{
	char copy[2 * LENGTH_MAX + 1];

	/* A NUL would end the string for regexec(); the pattern has none. */
	if (memchr(text, '\0', len) != NULL)
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	return regexec(&reference, copy, 0, NULL, 0) == 0;
}

/* In memory of exactly that size, so that a sanitizer sees a byte read too far. */
static bool
is_valid_exactly(const char *text, size_t len)
{
	char *copy = malloc(len > 0 ? len : 1);
	bool valid;

	assert_true(copy != NULL);
	memcpy(copy, text, len);
	valid = uuid_is_valid(copy, len);
	free(copy);
	return valid;
}

/* Fails where the two disagree; whether the string is valid, else. */
static bool
compare(const char *text, size_t len)
{
	bool valid = is_valid_exactly(text, len);

	CHECK(valid == reference_is_valid(text, len), "\"%.*s\" (%zu bytes) was %s", (int)len, text,
		len, valid ? "accepted" : "refused");
	return valid;
}

static void
test_uuid_is_valid_examples(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(examples); i++)
		CHECK(is_valid_exactly(examples[i].text, examples[i].len) == examples[i].valid,
			"\"%s\" must be %s", examples[i].text,
			examples[i].valid ? "accepted" : "refused");
}

static void
test_uuid_is_valid_any_byte_at_any_position(void **state)
{
	char text[UUID_TEXT_MAX];
	size_t base, position, tried = 0, valid = 0;
	int byte;

	(void)state;
	for (base = 0; base < COUNT(bases); base++)
		for (position = 0; position < UUID_TEXT_LEN; position++)
			for (byte = 0; byte < 256; byte++) {
				memcpy(text, bases[base], sizeof(text));
				text[position] = (char)byte;
				valid += compare(text, UUID_TEXT_LEN);
				tried++;
			}
	TELL("%zu strings, %zu of them valid, 0 disagreements\n", tried, valid);
	assert_int_equal(tried, 55296);
}

static void
test_uuid_is_valid_any_length(void **state)
{
	static const char fillings[] = "0f-A8 \n";
	char text[LENGTH_MAX + 1];
	size_t i, len;

	(void)state;
	for (len = 0; len <= LENGTH_MAX; len++) {
		for (i = 0; i < COUNT(bases); i++) {
			snprintf(text, sizeof(text), "%s0f-8", bases[i]);
			CHECK(compare(text, len) == (len == UUID_TEXT_LEN), "%zu bytes of \"%s\"",
				len, text);
		}
		for (i = 0; fillings[i] != '\0'; i++) {
			memset(text, fillings[i], sizeof(text));
			assert_true(!compare(text, len));
		}
	}
}

/* A valid id: one of the bases, or a fresh one of the common form. */
static void
pick_valid(uint64_t *seed, char text[UUID_TEXT_MAX])
{
	static const char digits[] = "0123456789abcdefABCDEF";
	size_t i;

	memcpy(text, bases[unit_random_below(seed, COUNT(bases))], UUID_TEXT_MAX);
	if (unit_random_below(seed, 4) == 0)
		return;
	for (i = 0; i < UUID_TEXT_LEN; i++)
		if (bases[0][i] != '-')
			text[i] = digits[unit_random_below(seed, sizeof(digits) - 1)];
	text[14] = "12345678"[unit_random_below(seed, 8)];
	text[19] = "89abAB"[unit_random_below(seed, 6)];
}

/* One small change; gives the new length. */
static size_t
change(uint64_t *seed, char *text, size_t len)
{
	/* The neighbours in ASCII of the allowed characters, and those themselves. */
	static const char near[] = "0123456789abcdefABCDEF-/:@G`g,.\n\r \x10\x1F\x7F\xAD\xB0";
	size_t at = unit_random_below(seed, len), other = unit_random_below(seed, len);
	char kept = text[at];

	switch (unit_random_below(seed, 6)) {
	case 0:
		text[at] = (char)unit_random_below(seed, 256);
		return len;
	case 1:
		text[at] = text[other];
		text[other] = kept;
		return len;
	case 2:
		memmove(text + at, text + at + 1, len - at - 1);
		return len - 1;
	case 3:
		memmove(text + at + 1, text + at, len - at);
		return len + 1;
	default:
		text[at] = near[unit_random_below(seed, sizeof(near) - 1)];
		return len;
	}
}

static void
test_uuid_is_valid_random_strings(void **state)
{
	char text[2 * UUID_TEXT_MAX];
	uint64_t seed = 0x5EED;
	size_t i, len, changes, valid = 0;

	(void)state;
	for (i = 0; i < RANDOM_STRINGS; i++) {
		pick_valid(&seed, text);
		len = UUID_TEXT_LEN;
		for (changes = unit_random_below(&seed, 4); changes > 0; changes--)
			len = change(&seed, text, len);
		valid += compare(text, len);
	}
	TELL("%d strings, %zu of them valid, 0 disagreements\n", RANDOM_STRINGS, valid);
	/* Of little worth if nearly all were of one kind. */
	assert_true(valid > RANDOM_STRINGS / 5 && valid < RANDOM_STRINGS / 5 * 4);
}

static int
hex_value(char digit)
{
	return digit <= '9' ? digit - '0' : digit - 'a' + 10;
}

/* The reverse of uuid_format(). */
static void
parse(const char *text, unsigned char bytes[UUID_BYTES])
{
	size_t i, nibble = 0;

	memset(bytes, 0, UUID_BYTES);
	for (i = 0; text[i] != '\0'; i++)
		if (text[i] != '-') {
			bytes[nibble / 2] =
				(unsigned char)(bytes[nibble / 2] << 4 | hex_value(text[i]));
			nibble++;
		}
	assert_int_equal(nibble, 2 * UUID_BYTES);
}

static void
fill(uint64_t *seed, unsigned char bytes[UUID_BYTES])
{
	size_t i;

	for (i = 0; i < UUID_BYTES; i++)
		bytes[i] = (unsigned char)unit_random_below(seed, 256);
}

static void
test_uuid_format_known_bytes(void **state)
{
	unsigned char bytes[UUID_BYTES];
	char text[UUID_TEXT_MAX];
	size_t i;

	(void)state;
	memset(bytes, 0x00, sizeof(bytes));
	uuid_format(bytes, text);
	assert_string_equal(text, "00000000-0000-0000-0000-000000000000");
	memset(bytes, 0xFF, sizeof(bytes));
	uuid_format(bytes, text);
	assert_string_equal(text, "ffffffff-ffff-ffff-ffff-ffffffffffff");
	for (i = 0; i < UUID_BYTES; i++)
		bytes[i] = (unsigned char)(0x11 * i);
	uuid_format(bytes, text);
	assert_string_equal(text, "00112233-4455-6677-8899-aabbccddeeff");
}

static void
test_uuid_format_round_trip(void **state)
{
	unsigned char bytes[UUID_BYTES], back[UUID_BYTES];
	char text[UUID_TEXT_MAX];
	uint64_t seed = 1;
	int i;

	(void)state;
	for (i = 0; i < 100000; i++) {
		fill(&seed, bytes);
		uuid_format(bytes, text);
		parse(text, back);
		CHECK(strlen(text) == UUID_TEXT_LEN && memcmp(bytes, back, sizeof(bytes)) == 0,
			"\"%s\" is not what was to be written", text);
	}
}

/* Every value of the two bytes that carry version and variant; all other bits stay random. */
static void
test_uuid_from_random_gives_version_4(void **state)
{
	unsigned char random[UUID_BYTES], bytes[UUID_BYTES], back[UUID_BYTES];
	char text[UUID_TEXT_MAX];
	uint64_t seed = 1;
	int i;

	(void)state;
	for (i = 0; i < 65536; i++) {
		fill(&seed, random);
		random[6] = (unsigned char)(i >> 8);
		random[8] = (unsigned char)(i & 0xFF);
		memcpy(bytes, random, sizeof(bytes));
		uuid_from_random(bytes, text);
		CHECK(uuid_is_valid(text, strlen(text)) && text[14] == '4' &&
				strchr("89ab", text[19]) != NULL,
			"\"%s\" is no version 4", text);
		parse(text, back);
		random[6] = (unsigned char)((random[6] & 0x0F) | 0x40);
		random[8] = (unsigned char)((random[8] & 0x3F) | 0x80);
		CHECK(memcmp(random, back, sizeof(back)) == 0, "\"%s\" lost random bits", text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uuid_is_valid_examples),
		cmocka_unit_test(test_uuid_is_valid_any_byte_at_any_position),
		cmocka_unit_test(test_uuid_is_valid_any_length),
		cmocka_unit_test(test_uuid_is_valid_random_strings),
		cmocka_unit_test(test_uuid_format_known_bytes),
		cmocka_unit_test(test_uuid_format_round_trip),
		cmocka_unit_test(test_uuid_from_random_gives_version_4),
	};

	return cmocka_run_group_tests_name("uuid", tests, compile_reference, free_reference);
}
