/* output.h: rows of a result, as a table for people or as JSON for scripts. */
#ifndef WARMUP_OUTPUT_H
#define WARMUP_OUTPUT_H

#include "db.h"

#include <stdbool.h>

/* Prints text that may have come from outside, on one line: a terminal obeys control characters, so
   each becomes a "?", and so does what is no UTF-8. */
void output_text(const char *text);

/*
 * Prints rows of text columns.  People get a table under the columns' names, scripts
 * {"<name>":[{"<column>":…},…]}; SQL NULL is "-" and null.
 */
void output_rows(const struct db_result *rows, const char *name, const char *const *columns,
	int count, bool json);

#endif
