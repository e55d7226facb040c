/* output.h: rows of a result, as a table for people or as JSON for scripts. */
#ifndef WARMUP_OUTPUT_H
#define WARMUP_OUTPUT_H

#include "db.h"

#include <stdbool.h>

/*
 * Prints rows of text columns.  People get a table under the columns' names, scripts
 * {"<name>":[{"<column>":…},…]}; SQL NULL is "-" and null.
 */
void output_rows(const struct db_result *rows, const char *name, const char *const *columns,
	int count, bool json);

#endif
