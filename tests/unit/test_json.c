/*
 * test_json.c: the JSON writer: its text against literal bytes, and every short byte sequence and
 * every character of Unicode through it and back through another library's parser.
 */
#include "unit.h"

#include "json.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define REPLACED   "\xEF\xBF\xBD" /* U+FFFD */
#define OUTPUT_MAX (64 * 1024)

static const struct {
	const char *text;
	const char *json;
} texts[] = {
	{ NULL, "null" },
	{ "", "\"\"" },
	{ "plain text, 100 %", "\"plain text, 100 %\"" },
	{ "{[:,]}", "\"{[:,]}\"" },
	{ "\"", "\"\\\"\"" },
	{ "\\", "\"\\\\\"" },
	{ "\\\"\\", "\"\\\\\\\"\\\\\"" },
	{ "</script>", "\"</script>\"" },
	{ "%s%n%d", "\"%s%n%d\"" },
	{ "a\tb\nc\rd", "\"a\\u0009b\\u000ac\\u000dd\"" },
	{ "\x01\x1F", "\"\\u0001\\u001f\"" },
	{ " ~", "\" ~\"" },
	{ "\x7F", "\"\\u007f\"" },
	{ "\x1B[2J", "\"\\u001b[2J\"" },
	/* The second control block, and its neighbour that is a space. */
	{ "\xC2\x80", "\"\\u0080\"" },
	{ "\xC2\x9B", "\"\\u009b\"" },
	{ "\xC2\x9F", "\"\\u009f\"" },
	{ "\xC2\xA0", "\"\xC2\xA0\"" },
	/* Line separators, which end a line in JavaScript, and their neighbours. */
	{ "\xE2\x80\xA7", "\"\xE2\x80\xA7\"" },
	{ "\xE2\x80\xA8", "\"\\u2028\"" },
	{ "\xE2\x80\xA9", "\"\\u2029\"" },
	{ "\xE2\x80\xAA", "\"\xE2\x80\xAA\"" },
	{ "\xE2\x81\xA8", "\"\xE2\x81\xA8\"" },
	{ "\xE3\x80\xA8", "\"\xE3\x80\xA8\"" },
	/* Valid: the ends of each length, and those around the surrogates. */
	{ "\xC3\xA9", "\"\xC3\xA9\"" },
	{ "\xDF\xBF", "\"\xDF\xBF\"" },
	{ "\xE0\xA0\x80", "\"\xE0\xA0\x80\"" },
	{ "\xED\x9F\xBF", "\"\xED\x9F\xBF\"" },
	{ "\xEE\x80\x80", "\"\xEE\x80\x80\"" },
	{ "\xEF\xBF\xBF", "\"\xEF\xBF\xBF\"" },
	{ "\xF0\x90\x80\x80", "\"\xF0\x90\x80\x80\"" },
	{ "\xF0\x9F\x98\x80", "\"\xF0\x9F\x98\x80\"" },
	{ "\xF4\x8F\xBF\xBF", "\"\xF4\x8F\xBF\xBF\"" },
	{ REPLACED, "\"" REPLACED "\"" },
	/* No first byte. */
	{ "\x80", "\"" REPLACED "\"" },
	{ "a\xBFz", "\"a" REPLACED "z\"" },
	{ "\xFE\xFF", "\"" REPLACED REPLACED "\"" },
	/* Overlong: the same character in more bytes than it takes. */
	{ "\xC0\x80", "\"" REPLACED REPLACED "\"" },
	{ "\xC1\xBF", "\"" REPLACED REPLACED "\"" },
	{ "\xC0\xA2", "\"" REPLACED REPLACED "\"" },
	{ "\xE0\x80\x80", "\"" REPLACED REPLACED REPLACED "\"" },
	{ "\xE0\x9F\xBF", "\"" REPLACED REPLACED REPLACED "\"" },
	{ "\xF0\x80\x80\x80", "\"" REPLACED REPLACED REPLACED REPLACED "\"" },
	{ "\xF0\x8F\xBF\xBF", "\"" REPLACED REPLACED REPLACED REPLACED "\"" },
	/* Surrogates, alone and as a pair. */
	{ "\xED\xA0\x80", "\"" REPLACED REPLACED REPLACED "\"" },
	{ "\xED\xBF\xBF", "\"" REPLACED REPLACED REPLACED "\"" },
	{ "\xED\xA0\xBD\xED\xB8\x80",
		"\"" REPLACED REPLACED REPLACED REPLACED REPLACED REPLACED "\"" },
	/* Beyond U+10FFFF. */
	{ "\xF4\x90\x80\x80", "\"" REPLACED REPLACED REPLACED REPLACED "\"" },
	{ "\xF5\x80\x80\x80", "\"" REPLACED REPLACED REPLACED REPLACED "\"" },
	{ "\xF8\x88\x80\x80\x80", "\"" REPLACED REPLACED REPLACED REPLACED REPLACED "\"" },
	/* Cut short by the end of the text: what lies behind the NUL is not read. */
	{ "\xC3\0\xA9", "\"" REPLACED "\"" },
	{ "\xE2\x82\0\xAC", "\"" REPLACED REPLACED "\"" },
	{ "\xF0\x9F\x98\0\x80", "\"" REPLACED REPLACED REPLACED "\"" },
	{ "\xF0\x9F\0\x98\x80", "\"" REPLACED REPLACED "\"" },
	{ "\xF0\0\x9F\x98\x80", "\"" REPLACED "\"" },
	/* Cut short by another character, which is kept. */
	{ "\xC3x", "\"" REPLACED "x\"" },
	{ "\xC3\"", "\"" REPLACED "\\\"\"" },
	{ "\xE2\x82x", "\"" REPLACED REPLACED "x\"" },
	{ "\xF0\x9F\x98x", "\"" REPLACED REPLACED REPLACED "x\"" },
	{ "\xE2\xC3\xA9", "\"" REPLACED "\xC3\xA9\"" },
	{ "\xF0\x9F\xE2\x82\xAC", "\"" REPLACED REPLACED "\xE2\x82\xAC\"" },
};

/* Which sequences of two and three bytes are one character: made by encoding every character, so
   that no rule of decoding is repeated here. */
static bool is_character_2[1 << 16];
static bool is_character_3[1 << 24];

static struct buf json;

static size_t
encode(uint32_t character, char out[4])
{
	if (character < 0x80) {
		out[0] = (char)character;
		return 1;
	}
	if (character < 0x800) {
		out[0] = (char)(0xC0 | character >> 6);
		out[1] = (char)(0x80 | (character & 0x3F));
		return 2;
	}
	if (character < 0x10000) {
		out[0] = (char)(0xE0 | character >> 12);
		out[1] = (char)(0x80 | (character >> 6 & 0x3F));
		out[2] = (char)(0x80 | (character & 0x3F));
		return 3;
	}
	out[0] = (char)(0xF0 | character >> 18);
	out[1] = (char)(0x80 | (character >> 12 & 0x3F));
	out[2] = (char)(0x80 | (character >> 6 & 0x3F));
	out[3] = (char)(0x80 | (character & 0x3F));
	return 4;
}

static bool
is_surrogate(uint32_t character)
{
	return character >= 0xD800 && character <= 0xDFFF;
}

static size_t
index_of(const char *bytes, size_t len)
{
	size_t index = 0, i;

	for (i = 0; i < len; i++)
		index = index << 8 | (unsigned char)bytes[i];
	return index;
}

static int
prepare(void **state)
{
	char bytes[4];
	uint32_t character;

	(void)state;
	for (character = 0x80; character < 0x10000; character++) {
		if (is_surrogate(character))
			continue;
		if (encode(character, bytes) == 2)
			is_character_2[index_of(bytes, 2)] = true;
		else
			is_character_3[index_of(bytes, 3)] = true;
	}
	buf_init(&json, OUTPUT_MAX);
	return 0;
}

static int
clean_up(void **state)
{
	(void)state;
	buf_free(&json);
	return 0;
}

/* The length of the character that begins a sequence of up to three bytes, 0 if none does. */
static size_t
character_at(const char *bytes, size_t left)
{
	if ((unsigned char)bytes[0] < 0x80)
		return 1;
	if (left >= 2 && is_character_2[index_of(bytes, 2)])
		return 2;
	return left >= 3 && is_character_3[index_of(bytes, 3)] ? 3 : 0;
}

/* Appends what is to come back for a sequence, each stray byte as one U+FFFD; whether it was valid
   throughout, that is: is to come back as it is. */
static bool
expect(char **to, const char *bytes, size_t len)
{
	bool valid = true;
	size_t at, step;

	for (at = 0; at < len; at += step) {
		step = character_at(bytes + at, len - at);
		if (step > 0) {
			memcpy(*to, bytes + at, step);
			*to += step;
			continue;
		}
		valid = false;
		memcpy(*to, REPLACED, 3);
		*to += 3;
		step = 1;
	}
	return valid;
}

/* Whether a line of a log or of a terminal can hold it: nothing that ends or steers one. */
static bool
is_one_plain_line(const char *text)
{
	const unsigned char *s;

	for (s = (const unsigned char *)text; *s != '\0'; s++) {
		if (*s < 0x20 || *s == 0x7F || (*s == 0xC2 && s[1] < 0xA0))
			return false;
		if (*s == 0xE2 && s[1] == 0x80 && (s[2] == 0xA8 || s[2] == 0xA9))
			return false;
	}
	return true;
}

/* Writes a text, checks the line, parses it and checks what comes back. */
static void
compare(const char *text, const char *expected)
{
	cJSON *parsed;
	bool same;

	buf_reset(&json);
	json_text(&json, text);
	assert_int_equal(buf_check(&json), ERR_OK);
	CHECK(is_one_plain_line(buf_text(&json)), "not one plain line: %s", buf_text(&json));
	parsed = cJSON_ParseWithOpts(buf_text(&json), NULL, 1);
	same = cJSON_IsString(parsed) && strcmp(parsed->valuestring, expected) == 0;
	cJSON_Delete(parsed);
	CHECK(same, "%s is not %s", buf_text(&json), expected);
}

static void
test_json_text_examples(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(texts); i++) {
		buf_reset(&json);
		json_text(&json, texts[i].text);
		CHECK(strcmp(buf_text(&json), texts[i].json) == 0, "row %zu: %s is not %s", i,
			buf_text(&json), texts[i].json);
	}
}

static void
test_json_text_every_control_character(void **state)
{
	char text[4], expected[16];
	unsigned c;

	(void)state;
	for (c = 1; c < 0xA0; c++) {
		if (c >= 0x20 && c < 0x7F)
			continue;
		text[encode(c, text)] = '\0';
		snprintf(expected, sizeof(expected), "\"\\u%04x\"", c);
		buf_reset(&json);
		json_text(&json, text);
		assert_string_equal(buf_text(&json), expected);
	}
}

/* One and two bytes, each sequence a text of its own, so that the NUL cuts it short. */
static void
test_json_text_every_sequence_of_one_and_two_bytes(void **state)
{
	char text[3], expected[8], *end;
	size_t tried = 0, valid = 0, len;
	unsigned first, second;

	(void)state;
	for (first = 1; first < 256; first++)
		for (second = 0; second < 256; second++) {
			text[0] = (char)first;
			text[1] = (char)second;
			text[2] = '\0';
			len = second == 0 ? 1 : 2;
			end = expected;
			valid += expect(&end, text, len);
			*end = '\0';
			compare(text, expected);
			tried++;
		}
	TELL("%zu sequences, %zu of them valid\n", tried, valid);
}

/* What is written of one or more sequences, and what is to come back. */
struct batch {
	char text[255 * 4 + 1], expected[255 * 10 + 1];
	char *to, *end; /* of each */
};

/*
 * Adds a sequence, with a full stop behind it; whether it is valid, on which json_utf8_valid() must
 * agree.  Left out is an invalid one that begins with a plain byte: behind that, it is one of the
 * sequences of two bytes.
 */
static bool
add_sequence(struct batch *batch, const char bytes[3])
{
	char *end = batch->end;
	bool valid;

	memcpy(batch->to, bytes, 3);
	batch->to[3] = '\0';
	valid = expect(&batch->end, batch->to, 3);
	CHECK((json_utf8_valid(batch->to, strlen(batch->to)) != 0) == valid, "\"%s\" must be %s",
		batch->to, valid ? "valid" : "invalid");
	if (!valid && (unsigned char)bytes[0] < 0x80) {
		batch->end = end;
		return valid;
	}
	batch->to += 3;
	*batch->to++ = *batch->end++ = '.';
	return valid;
}

/* Three bytes: all that begin with the same two go through the writer together. */
static void
test_json_text_every_sequence_of_three_bytes(void **state)
{
	struct batch batch;
	char bytes[3];
	size_t tried = 0, valid = 0;
	unsigned first, second, third;

	(void)state;
	for (first = 1; first < 256; first++)
		for (second = 1; second < 256; second++) {
			batch.to = batch.text;
			batch.end = batch.expected;
			bytes[0] = (char)first;
			bytes[1] = (char)second;
			for (third = 1; third < 256; third++) {
				bytes[2] = (char)third;
				valid += add_sequence(&batch, bytes);
				tried++;
			}
			*batch.to = *batch.end = '\0';
			compare(batch.text, batch.expected);
		}
	TELL("%zu sequences, %zu of them valid\n", tried, valid);
	assert_int_equal(tried, 255 * 255 * 255);
}

/* All of Unicode but NUL comes back as it is, 256 characters a text. */
static void
test_json_text_every_character(void **state)
{
	char text[256 * 4 + 1];
	uint32_t character = 1;
	size_t len, tried = 0;

	(void)state;
	while (character <= 0x10FFFF) {
		len = 0;
		do {
			if (!is_surrogate(character)) {
				len += encode(character, text + len);
				tried++;
			}
		} while (++character % 256 != 0);
		text[len] = '\0';
		assert_true(json_utf8_valid(text, strlen(text)));
		compare(text, text);
	}
	TELL("%zu characters\n", tried);
	assert_int_equal(tried, 0x110000 - 0x800 - 1);
}

/* Characters of four bytes, cut short behind the third by the end of the text. */
static void
test_json_text_four_bytes_cut_short(void **state)
{
	char bytes[4], text[4], expected[16], *end;
	uint32_t character;

	(void)state;
	for (character = 0x10000; character < 0x110000; character += 64) {
		encode(character, bytes);
		memcpy(text, bytes, 3);
		text[3] = '\0';
		end = expected;
		assert_true(!expect(&end, text, 3));
		*end = '\0';
		compare(text, expected);
		assert_true(!json_utf8_valid(text, strlen(text)));
	}
}

static void
test_json_utf8_length_examples(void **state)
{
	static const struct {
		const char *text;
		size_t length;
	} rows[] = {
		{ "", 0 },
		{ "a", 1 },
		{ "\x7F", 1 },
		{ "\xC3\xA9", 2 },
		{ "\xE2\x82\xAC", 3 },
		{ "\xF0\x9F\x98\x80", 4 },
		{ "\xF0\x9F\x98", 0 },
		{ "\x80", 0 },
		{ "\xC3", 0 },
		{ "\xF4\x90\x80\x80", 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++)
		CHECK(json_utf8_length(rows[i].text, strlen(rows[i].text)) == rows[i].length,
			"row %zu: \"%s\"", i, rows[i].text);
	assert_true(json_utf8_valid("", 0));
}

/* Digit by digit: a number that goes through a double would lose some of these. */
static void
test_json_int_extremes(void **state)
{
	static const struct {
		int64_t number;
		const char *json;
	} rows[] = {
		{ 0, "0" },
		{ -1, "-1" },
		{ 50, "50" },
		{ INT32_MAX, "2147483647" },
		{ INT64_C(9007199254740993), "9007199254740993" },
		{ INT64_C(-9007199254740993), "-9007199254740993" },
		{ INT64_MAX, "9223372036854775807" },
		{ INT64_MIN, "-9223372036854775808" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		buf_reset(&json);
		json_int(&json, rows[i].number);
		assert_string_equal(buf_text(&json), rows[i].json);
	}
}

/* Every kind of value at every kind of place. */
static void
write_sample(struct buf *buf)
{
	json_open(buf, '{');
	json_key(buf, "empty object");
	json_open(buf, '{');
	json_close(buf, '}');
	json_key(buf, "empty array");
	json_open(buf, '[');
	json_close(buf, ']');
	json_key(buf, "a \"key\"\n");
	json_open(buf, '[');
	json_text(buf, "[");
	json_text(buf, "{");
	json_text(buf, ":");
	json_int(buf, 1);
	json_int(buf, -2);
	json_null(buf);
	json_bool(buf, 1);
	json_bool(buf, 0);
	json_text(buf, NULL);
	json_open(buf, '{');
	json_key(buf, "x");
	json_null(buf);
	json_key(buf, "y");
	json_bool(buf, 42);
	json_close(buf, '}');
	json_open(buf, '[');
	json_open(buf, '[');
	json_close(buf, ']');
	json_open(buf, '[');
	json_int(buf, 0);
	json_close(buf, ']');
	json_close(buf, ']');
	json_close(buf, ']');
	json_key(buf, "");
	json_text(buf, "");
	json_close(buf, '}');
}

static const char sample[] =
	"{\"empty object\":{},\"empty array\":[],\"a \\\"key\\\"\\u000a\":[\"[\",\"{\",\":\",1,-2,"
	"null,true,false,null,{\"x\":null,\"y\":true},[[],[0]]],\"\":\"\"}";

static void
test_json_nesting_and_commas(void **state)
{
	(void)state;
	buf_reset(&json);
	write_sample(&json);
	assert_string_equal(buf_text(&json), sample);
}

/* With any smaller maximum the failure is told, and stays; what is there is a beginning. */
static void
test_json_maximum_of_the_buffer(void **state)
{
	struct buf small;
	size_t max;

	(void)state;
	for (max = 0; max < sizeof(sample) - 1; max++) {
		buf_init(&small, max);
		write_sample(&small);
		CHECK(buf_check(&small) == ERR_TOO_LONG, "a maximum of %zu went unnoticed", max);
		json_null(&small);
		json_text(&small, "");
		assert_int_equal(buf_check(&small), ERR_TOO_LONG);
		assert_true(small.len <= max && memcmp(buf_text(&small), sample, small.len) == 0);
		buf_free(&small);
	}
	buf_init(&small, sizeof(sample) - 1);
	write_sample(&small);
	assert_int_equal(buf_check(&small), ERR_OK);
	assert_string_equal(buf_text(&small), sample);
	buf_free(&small);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_text_examples),
		cmocka_unit_test(test_json_text_every_control_character),
		cmocka_unit_test(test_json_text_every_sequence_of_one_and_two_bytes),
		cmocka_unit_test(test_json_text_every_sequence_of_three_bytes),
		cmocka_unit_test(test_json_text_every_character),
		cmocka_unit_test(test_json_text_four_bytes_cut_short),
		cmocka_unit_test(test_json_utf8_length_examples),
		cmocka_unit_test(test_json_int_extremes),
		cmocka_unit_test(test_json_nesting_and_commas),
		cmocka_unit_test(test_json_maximum_of_the_buffer),
	};

	return cmocka_run_group_tests_name("json", tests, prepare, clean_up);
}
