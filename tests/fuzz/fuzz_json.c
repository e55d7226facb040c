/*
 * fuzz_json.c: any sequence of calls of the JSON writer, with any texts and numbers.
 *
 * Properties: what comes out is one line of valid JSON by an independent reading of RFC 8259, with
 * no control character in it; it reads back, by that reading and by cJSON, to the same structure,
 * numbers and texts, where each byte that is no UTF-8 became U+FFFD; and into a buffer that is too
 * small it comes not at all rather than cut short.
 *
 * An input is a list of calls, one a line, the first character saying which: { [ } ] as they are, t a
 * text, i a number, n null, b a boolean.  Inside an object the line's text is the member's name, too.
 */
#include "fuzz.h"
#include "reference_json.h"

#include "json.h"

#include <cjson/cJSON.h>
#include <inttypes.h>

#define DEPTH_MAX 64

struct writer {
	struct buf *buf;
	char open[DEPTH_MAX];
	size_t depth;
};

/* What a text must read back as: by the code point, a byte at a time where there is none. */
static void
mend(const char *text, char *mended)
{
	while (*text != '\0') {
		size_t length = reference_utf8_length((struct span){ text, strlen(text) });

		if (length == 0) {
			memcpy(mended, "\xEF\xBF\xBD", 3);
			mended += 3;
			text++;
			continue;
		}
		memcpy(mended, text, length);
		mended += length;
		text += length;
	}
	*mended = '\0';
}

/* One call as a line says; lines that would make no document are passed over. */
static void
write_line(struct writer *writer, char call, const char *text)
{
	bool opens = call == '{' || call == '[', closes = call == '}' || call == ']';

	if ((opens && writer->depth == DEPTH_MAX) || (closes && writer->depth <= 1) ||
		strchr("{[}]tinb", call) == NULL)
		return;
	if (closes) {
		json_close(writer->buf, writer->open[--writer->depth] == '{' ? '}' : ']');
		return;
	}
	if (writer->open[writer->depth - 1] == '{')
		json_key(writer->buf, text);
	if (opens) {
		json_open(writer->buf, call);
		writer->open[writer->depth++] = call;
	} else if (call == 't') {
		json_text(writer->buf, text);
	} else if (call == 'i') {
		json_int(writer->buf, (int64_t)strtoull(text, NULL, 0));
	} else if (call == 'b') {
		json_bool(writer->buf, text[0] & 1);
	} else {
		json_null(writer->buf);
	}
}

static void
write_all(struct span lines, struct buf *buf)
{
	struct writer writer = { buf, "[", 1 };
	struct span line;

	json_open(buf, '[');
	while (span_cut_line(&lines, &line)) {
		char *text = span_copy(line);

		if (text[0] != '\0')
			write_line(&writer, text[0], text + 1);
		free(text);
	}
	while (writer.depth > 0)
		json_close(buf, writer.open[--writer.depth] == '{' ? '}' : ']');
}

/* Where in the document a line's value stands, for both readers. */
struct place {
	struct span container;
	size_t at;
	const cJSON *next;
};

static void
compare_text(struct span literal, const char *by_cjson, const char *text)
{
	char *mended = malloc(3 * strlen(text) + 1);

	if (mended == NULL)
		abort();
	mend(text, mended);
	MUST(reference_json_is(literal, mended), "\"%s\" was written as %.*s", text,
		(int)literal.len, literal.at);
	MUST(by_cjson != NULL && strcmp(by_cjson, mended) == 0, "cJSON reads \"%s\" for \"%s\"",
		by_cjson != NULL ? by_cjson : "(none)", text);
	free(mended);
}

static void
compare_value(struct span value, const cJSON *item, char call, const char *text)
{
	char number[32];

	snprintf(number, sizeof(number), "%" PRId64, (int64_t)strtoull(text, NULL, 0));
	if (call == 't')
		compare_text(value, cJSON_GetStringValue(item), text);
	else if (call == 'i')
		MUST(span_is(value, number), "%s was written as %.*s", number, (int)value.len,
			value.at);
	else if (call == 'b')
		MUST(span_is(value, text[0] & 1 ? "true" : "false"), "another boolean");
	else if (call == 'n')
		MUST(span_is(value, "null"), "null is %.*s", (int)value.len, value.at);
	else
		MUST(value.len >= 2 && value.at[0] == call, "%c became %c", call, value.at[0]);
}

/* Walks the document beside the lines that made it. */
static void
read_back(struct span lines, struct span document, const cJSON *root)
{
	struct place places[DEPTH_MAX] = { { document, 0, root->child } };
	size_t depth = 1;
	struct span line, key, value;

	while (span_cut_line(&lines, &line)) {
		struct place *place = &places[depth - 1];
		char *text = span_copy(line), call = text[0];
		const cJSON *item = place->next;

		if (call == '}' || call == ']') {
			depth -= depth > 1;
		} else if (call != '\0' && strchr("{[tinb", call) != NULL &&
			!(depth == DEPTH_MAX && (call == '{' || call == '['))) {
			MUST(item != NULL &&
					reference_json_next(
						place->container, &place->at, &key, &value),
				"a value is missing");
			if (key.at != NULL)
				compare_text(key, item->string, text + 1);
			compare_value(value, item, call, text + 1);
			place->next = item->next;
			if (call == '{' || call == '[')
				places[depth++] = (struct place){ value, 0, item->child };
		}
		free(text);
	}
	while (depth-- > 0)
		MUST(places[depth].next == NULL, "a value too many");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span lines = { (const char *)data, size }, document;
	struct buf whole, small;
	const cJSON *root;

	buf_init(&whole, 1024 * 1024);
	write_all(lines, &whole);
	MUST(buf_check(&whole) == ERR_OK, "it did not fit");
	document = (struct span){ whole.data, whole.len };
	MUST(reference_json_valid(document, NULL), "no JSON: %s", whole.data);
	for (size_t i = 0; i < whole.len; i++)
		MUST((unsigned char)whole.data[i] >= ' ' && whole.data[i] != 0x7F &&
				(whole.data[i] != '\xC2' ||
					(unsigned char)whole.data[i + 1] >= 0xA0),
			"a control character in %s", whole.data);
	MUST(strstr(whole.data, "\xE2\x80\xA8") == NULL &&
			strstr(whole.data, "\xE2\x80\xA9") == NULL,
		"a line separator in %s", whole.data);
	root = cJSON_ParseWithLength(whole.data, whole.len);
	MUST(root != NULL, "cJSON cannot read %s", whole.data);
	read_back(lines, document, root);
	cJSON_Delete((cJSON *)(uintptr_t)root);

	/* Just too small, just large enough, or something else that the input decides. */
	buf_init(&small, size > 0 && data[0] % 4 < 3 ? whole.len - 1 + data[0] % 4 : size);
	write_all(lines, &small);
	if (whole.len <= small.max)
		MUST(buf_check(&small) == ERR_OK && small.len == whole.len &&
				memcmp(small.data, whole.data, whole.len + 1) == 0,
			"it fits, but is not the same");
	else
		MUST(buf_check(&small) == ERR_TOO_LONG && small.len <= small.max,
			"%zu bytes in %zu", whole.len, small.max);
	buf_free(&small);
	buf_free(&whole);
	return 0;
}
