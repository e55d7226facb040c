/*
 * fuzz.h: what all fuzz targets share: how a broken property is told, and how an input is cut up.
 *
 * A target is one file, fuzz_NAME.c.  libFuzzer calls LLVMFuzzerTestOneInput() with inputs that it
 * makes up; the target runs the project's own objects on each, beside an independent reading of the
 * contract, and MUST() ends the process where the two disagree.  Inputs are text where possible, so
 * that those in corpus/ can be read and written by hand.
 */
#ifndef WARMUP_TESTS_FUZZ_H
#define WARMUP_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer's interface. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* A format and its values say what was expected. */
#define MUST(condition, ...)                                                                       \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "\n%s:%d: property broken: ", __FILE__, __LINE__);         \
			fprintf(stderr, __VA_ARGS__);                                              \
			fputs("\n", stderr);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* For a target whose library is not instrumented: feature number i was seen, and inputs that show a
   new one are kept. i is below 4096. */
static uint8_t fuzz_features[4096] __attribute__((section("__libfuzzer_extra_counters"), used));
#define FUZZ_FEATURE(i) (fuzz_features[(size_t)(i) % sizeof(fuzz_features)] = 1)

/* Bytes of an input; no NUL behind them. at is NULL where there are none at all. */
struct span {
	const char *at;
	size_t len;
};

static inline bool
span_is(struct span span, const char *text)
{
	return span.at != NULL && span.len == strlen(text) && memcmp(span.at, text, span.len) == 0;
}

static inline bool
span_starts(struct span span, const char *text)
{
	return span.len >= strlen(text) && memcmp(span.at, text, strlen(text)) == 0;
}

/* Cuts the first line off; false if there is nothing left. */
static inline bool
span_cut_line(struct span *rest, struct span *line)
{
	const char *end;

	if (rest->len == 0)
		return false;
	end = memchr(rest->at, '\n', rest->len);
	line->at = rest->at;
	line->len = end != NULL ? (size_t)(end - rest->at) : rest->len;
	rest->at += line->len + (end != NULL);
	rest->len -= line->len + (end != NULL);
	return true;
}

/* A NUL-terminated copy in memory of exactly that size, so that reading past it is noticed; a NUL
   within ends it early, as it would a CGI variable. */
static inline char *
span_copy(struct span span)
{
	char *copy = malloc(span.len + 1);

	if (copy == NULL)
		abort();
	if (span.len > 0)
		memcpy(copy, span.at, span.len);
	copy[span.len] = '\0';
	return copy;
}

#endif
