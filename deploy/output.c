/* output.c: see output.h. */
#include "output.h"

#include "json.h"

#include <stdio.h>
#include <string.h>

#define COLUMNS_MAX  16
#define DOCUMENT_MAX (64 * 1024 * 1024)

/* Characters, not bytes. */
static int
width_of(const char *text)
{
	int width = 0;

	for (; *text != '\0'; text++)
		width += ((unsigned char)*text & 0xC0) != 0x80;
	return width;
}

static const char *
cell(const struct db_result *rows, int row, int column)
{
	const char *text = db_value(rows, row, column, NULL);

	return text != NULL ? text : "-";
}

/* A terminal obeys control characters, so none gets through. */
static void
put_cell(const char *text, int width, bool last)
{
	int used = width_of(text);

	for (; *text != '\0'; text++)
		putchar((unsigned char)*text < ' ' || *text == 0x7F ? '?' : *text);
	if (!last)
		printf("%*s", width - used + 2, "");
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
