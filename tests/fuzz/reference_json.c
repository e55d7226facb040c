/* reference_json.c: see reference_json.h. */
#include "reference_json.h"

struct reader {
	const char *at, *end;
	struct reference_json facts;
};

/* By arithmetic on the code point, not by ranges of bytes. */
size_t
reference_utf8_length(struct span text)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *s = (const unsigned char *)text.at;
	size_t length, i;
	uint32_t point;

	if (text.len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xC0 || s[0] >= 0xF8)
		return 0;
	length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
	if (length > text.len)
		return 0;
	point = s[0] & (0x7Fu >> length);
	for (i = 1; i < length; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		point = point << 6 | (s[i] & 0x3F);
	}
	return point >= least[length] && point <= 0x10FFFF && point >> 11 != 0x1B ? length : 0;
}

static bool
take(struct reader *reader, const char *text)
{
	size_t len = strlen(text);

	if ((size_t)(reader->end - reader->at) < len || memcmp(reader->at, text, len) != 0)
		return false;
	reader->at += len;
	return true;
}

static bool
next_is(const struct reader *reader, const char *set)
{
	return reader->at < reader->end && *reader->at != '\0' && strchr(set, *reader->at) != NULL;
}

static void
skip_white(struct reader *reader)
{
	while (next_is(reader, " \t\r\n"))
		reader->at++;
}

static size_t
skip_digits(struct reader *reader)
{
	const char *start = reader->at;

	while (next_is(reader, "0123456789"))
		reader->at++;
	return (size_t)(reader->at - start);
}

static bool
read_number(struct reader *reader)
{
	const char *start = reader->at;
	size_t len;

	take(reader, "-");
	if (!take(reader, "0") && skip_digits(reader) == 0)
		return false;
	if (take(reader, ".") && skip_digits(reader) == 0)
		return false;
	if (take(reader, "e") || take(reader, "E")) {
		if (!take(reader, "+"))
			take(reader, "-");
		if (skip_digits(reader) == 0)
			return false;
	}
	len = (size_t)(reader->at - start);
	if (len > reader->facts.longest_number)
		reader->facts.longest_number = len;
	return true;
}

/* Four hex digits, -1 if they are none. */
static int
read_hex(struct reader *reader)
{
	int unit = 0, i;

	for (i = 0; i < 4; i++) {
		static const char digits[] = "0123456789abcdef0123456789ABCDEF";

		if (!next_is(reader, digits))
			return -1;
		unit = unit * 16 + (int)((strchr(digits, *reader->at++) - digits) % 16);
	}
	return unit;
}

/* Behind "\u"; its partner, too, if it is the first of a pair. -1: malformed. */
static int32_t
read_escaped_point(struct reader *reader)
{
	int unit = read_hex(reader), low;
	const char *start = reader->at;

	if (unit < 0xD800 || unit > 0xDFFF)
		return unit;
	if (unit < 0xDC00 && take(reader, "\\u")) {
		low = read_hex(reader);
		if (low >= 0xDC00 && low <= 0xDFFF)
			return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
		reader->at = start;
	}
	reader->facts.lone_surrogate = true;
	return 0xFFFD;
}

static size_t
encode(int32_t point, char *out)
{
	static const int first[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
	size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4, i;

	for (i = length; i-- > 1; point >>= 6)
		out[i] = (char)(0x80 | (point & 0x3F));
	out[0] = (char)(first[length] | point);
	return length;
}

/* Reads a string and, if out is not NULL, decodes it. */
static bool
read_string(struct reader *reader, char *out, size_t *out_len)
{
	static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	char dropped[4], *to = out;

	if (!take(reader, "\""))
		return false;
	while (!take(reader, "\"")) {
		size_t length;

		if (out == NULL)
			to = dropped;
		if (take(reader, "\\u")) {
			int32_t point = read_escaped_point(reader);

			if (point < 0)
				return false;
			to += encode(point, to);
			continue;
		}
		if (take(reader, "\\")) {
			if (!next_is(reader, escapes))
				return false;
			*to++ = meant[strchr(escapes, *reader->at++) - escapes];
			continue;
		}
		length = reference_utf8_length(
			(struct span){ reader->at, (size_t)(reader->end - reader->at) });
		if (length == 0 || (unsigned char)*reader->at < 0x20)
			return false;
		memcpy(to, reader->at, length);
		to += length;
		reader->at += length;
	}
	if (out_len != NULL)
		*out_len = (size_t)(to - out);
	return true;
}

static bool read_value(struct reader *reader, size_t depth);

static bool
read_member(struct reader *reader, size_t depth, bool keyed)
{
	skip_white(reader);
	if (keyed) {
		if (!read_string(reader, NULL, NULL))
			return false;
		skip_white(reader);
		if (!take(reader, ":"))
			return false;
		skip_white(reader);
	}
	if (!read_value(reader, depth))
		return false;
	skip_white(reader);
	return true;
}

static bool
read_container(struct reader *reader, size_t depth)
{
	bool keyed = *reader->at++ == '{';
	const char *close = keyed ? "}" : "]";

	if (depth > reader->facts.depth)
		reader->facts.depth = depth;
	skip_white(reader);
	if (take(reader, close))
		return true;
	do {
		if (!read_member(reader, depth, keyed))
			return false;
	} while (take(reader, ","));
	return take(reader, close);
}

static bool
read_value(struct reader *reader, size_t depth)
{
	if (next_is(reader, "{["))
		return read_container(reader, depth + 1);
	if (next_is(reader, "\""))
		return read_string(reader, NULL, NULL);
	if (take(reader, "true") || take(reader, "false") || take(reader, "null"))
		return true;
	return read_number(reader);
}

static struct reader
reader_of(struct span text)
{
	const char *at = text.at != NULL ? text.at : "";

	return (struct reader){ .at = at, .end = at + text.len };
}

bool
reference_json_valid(struct span text, struct reference_json *facts)
{
	struct reader reader = reader_of(text);
	bool valid = text.len > 0 && read_member(&reader, 0, false) && reader.at == reader.end;

	if (facts != NULL)
		*facts = reader.facts;
	return valid;
}

struct span
reference_json_trim(struct span text)
{
	struct reader reader = reader_of(text);

	skip_white(&reader);
	text.len -= (size_t)(reader.at - text.at);
	text.at = reader.at;
	while (text.len > 0 && strchr(" \t\r\n", text.at[text.len - 1]) != NULL)
		text.len--;
	return text;
}

bool
reference_json_next(struct span container, size_t *at, struct span *key, struct span *value)
{
	struct reader reader = reader_of(container);
	bool keyed = container.len > 0 && container.at[0] == '{';

	reader.at += *at == 0 ? 1 : *at;
	skip_white(&reader);
	if (next_is(&reader, "}]"))
		return false;
	take(&reader, ",");
	skip_white(&reader);
	*key = (struct span){ NULL, 0 };
	if (keyed) {
		key->at = reader.at;
		read_string(&reader, NULL, NULL);
		key->len = (size_t)(reader.at - key->at);
		skip_white(&reader);
		take(&reader, ":");
		skip_white(&reader);
	}
	value->at = reader.at;
	read_value(&reader, 0);
	value->len = (size_t)(reader.at - value->at);
	*at = (size_t)(reader.at - container.at);
	return true;
}

struct span
reference_json_member(struct span object, const char *name)
{
	struct span key, value;
	size_t at = 0;

	while (span_starts(object, "{") && reference_json_next(object, &at, &key, &value))
		if (reference_json_is(key, name))
			return value;
	return (struct span){ NULL, 0 };
}

size_t
reference_json_decode(struct span literal, char *text)
{
	struct reader reader = reader_of(literal);
	size_t len = 0;

	if (!read_string(&reader, text, &len))
		return 0;
	return len;
}

bool
reference_json_is(struct span literal, const char *text)
{
	char *decoded;
	size_t len;
	bool is;

	if (literal.len == 0 || literal.at[0] != '"')
		return false;
	decoded = span_copy(literal);
	len = reference_json_decode(literal, decoded);
	is = span_is((struct span){ decoded, len }, text);
	free(decoded);
	return is;
}
