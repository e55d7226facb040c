/* json.c: see json.h. */
#include "json.h"

#include <inttypes.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

static void
separate(struct buf *buf)
{
	char last = '{';

	if (buf->len > 0)
		last = buf->data[buf->len - 1];
	if (last != '{' && last != '[' && last != ':')
		buf_add(buf, ",", 1);
}

void
json_open(struct buf *buf, char bracket)
{
	separate(buf);
	buf_add(buf, &bracket, 1);
}

void
json_close(struct buf *buf, char bracket)
{
	buf_add(buf, &bracket, 1);
}

void
json_key(struct buf *buf, const char *key)
{
	json_text(buf, key);
	buf_add(buf, ":", 1);
}

size_t
json_utf8_length(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	unsigned char low = 0x80, high = 0xBF; /* allowed range of the second byte */
	size_t length, i;

	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return s[0] != 0;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		length = 2;
	else if (s[0] >= 0xE0 && s[0] <= 0xEF)
		length = 3;
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
		length = 4;
	else
		return 0;
	if (length > len)
		return 0;
	if (s[0] == 0xE0)
		low = 0xA0; /* overlong */
	else if (s[0] == 0xED)
		high = 0x9F; /* surrogates */
	else if (s[0] == 0xF0)
		low = 0x90; /* overlong */
	else if (s[0] == 0xF4)
		high = 0x8F; /* beyond U+10FFFF */
	if (s[1] < low || s[1] > high)
		return 0;
	for (i = 2; i < length; i++)
		if (s[i] < 0x80 || s[i] > 0xBF)
			return 0;
	return length;
}

bool
json_utf8_valid(const char *text, size_t len)
{
	size_t length;

	for (; len > 0; text += length, len -= length) {
		length = json_utf8_length(text, len);
		if (length == 0)
			return false;
	}
	return true;
}

/* Writes the character at text, length bytes long (0: invalid), escaped where it must be. */
static void
put_character(struct buf *buf, const char *text, size_t length)
{
	const unsigned char *s = (const unsigned char *)text;
	unsigned char c = s[0];

	if (length == 0)
		buf_puts(buf, REPLACEMENT);
	else if (c == '"' || c == '\\')
		buf_printf(buf, "\\%c", c);
	else if (c < 0x20 || c == 0x7F)
		buf_printf(buf, "\\u%04x", c);
	else if (c == 0xC2 && s[1] < 0xA0) /* C1 controls: terminals obey them */
		buf_printf(buf, "\\u%04x", s[1]);
	else if (c == 0xE2 && s[1] == 0x80 && (s[2] == 0xA8 || s[2] == 0xA9)) /* line separators */
		buf_printf(buf, "\\u%04x", 0x2028 + (s[2] & 1));
	else
		buf_add(buf, text, length);
}

void
json_text(struct buf *buf, const char *text)
{
	if (text == NULL) {
		json_null(buf);
		return;
	}
	separate(buf);
	buf_add(buf, "\"", 1);
	while (*text != '\0') {
		/* Plain runs are copied whole: they are nearly all there is. */
		size_t run = 0, length;

		while ((unsigned char)text[run] >= 0x20 && (unsigned char)text[run] < 0x7F &&
			text[run] != '"' && text[run] != '\\')
			run++;
		buf_add(buf, text, run);
		text += run;
		if (*text == '\0')
			break;
		length = json_utf8_length(text, strnlen(text, 4));
		put_character(buf, text, length);
		text += length != 0 ? length : 1;
	}
	buf_add(buf, "\"", 1);
}

void
json_int(struct buf *buf, int64_t number)
{
	separate(buf);
	buf_printf(buf, "%" PRId64, number);
}

void
json_null(struct buf *buf)
{
	separate(buf);
	buf_puts(buf, "null");
}

void
json_bool(struct buf *buf, int value)
{
	separate(buf);
	buf_puts(buf, value ? "true" : "false");
}
