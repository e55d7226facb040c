/* output.c: see output.h. */
#include "output.h"

#include "json.h"

#include <stdio.h>
#include <string.h>

#define COLUMNS_MAX  16
#define DOCUMENT_MAX (64 * 1024 * 1024)

/* Length in bytes of the character that text begins with, *plain: whether it may be printed. */
static size_t
step(const char *text, bool *plain)
{
	unsigned char first = (unsigned char)text[0];
	size_t len = json_utf8_length(text, strlen(text));
	bool c1 = first == 0xC2 && (unsigned char)text[1] < 0xA0;

	*plain = len > 0 && first >= ' ' && first != 0x7F && !c1;
	return len > 0 ? len : 1;
}

/* Characters, not bytes. */
static int
width_of(const char *text)
{
	int width = 0;
	bool plain;

	for (; *text != '\0'; text += step(text, &plain))
		width++;
	return width;
}

void
output_text(const char *text)
{
	size_t len;
	bool plain;

	for (; *text != '\0'; text += len) {
		len = step(text, &plain);
		if (plain)
			fwrite(text, 1, len, stdout);
		else
			putchar('?');
	}
}

static const char *
cell(const struct db_result *rows, int row, int column)
{
	const char *text = db_value(rows, row, column, NULL);

	return text != NULL ? text : "-";
}

static void
put_cell(const char *text, int width, bool last)
{
	output_text(text);
	if (!last)
		printf("%*s", width - width_of(text) + 2, "");
}

static void
put_table(const struct db_result *rows, const char *const *columns, int count)
{
	int widths[COLUMNS_MAX], row, column;

	for (column = 0; column < count; column++) {
		widths[column] = width_of(columns[column]);
		for (row = 0; row < db_rows(rows); row++)
			if (width_of(cell(rows, row, column)) > widths[column])
				widths[column] = width_of(cell(rows, row, column));
	}
	for (row = -1; row < db_rows(rows); row++) {
		for (column = 0; column < count; column++)
			put_cell(row < 0 ? columns[column] : cell(rows, row, column),
				widths[column], column == count - 1);
		putchar('\n');
	}
}

static void
put_json(const struct db_result *rows, const char *name, const char *const *columns, int count)
{
	struct buf document;
	int row, column;

	buf_init(&document, DOCUMENT_MAX);
	json_open(&document, '{');
	json_key(&document, name);
	json_open(&document, '[');
	for (row = 0; row < db_rows(rows); row++) {
		json_open(&document, '{');
		for (column = 0; column < count; column++) {
			json_key(&document, columns[column]);
			json_text(&document, db_value(rows, row, column, NULL));
		}
		json_close(&document, '}');
	}
	json_close(&document, ']');
	json_close(&document, '}');
	puts(buf_text(&document));
	buf_free(&document);
}

void
output_rows(const struct db_result *rows, const char *name, const char *const *columns, int count,
	bool json)
{
	if (json)
		put_json(rows, name, columns, count);
	else if (db_rows(rows) == 0)
		printf("no %s\n", name);
	else
		put_table(rows, columns, count);
}
