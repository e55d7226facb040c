/*
 * reference_json.h: JSON as RFC 8259 has it, written for the fuzz targets alone: strict, and sharing
 * nothing with cJSON or with shared/json.c, which it judges.
 */
#ifndef WARMUP_TESTS_REFERENCE_JSON_H
#define WARMUP_TESTS_REFERENCE_JSON_H

#include "fuzz.h"

/* Of a valid text: what other readers may refuse all the same. */
struct reference_json {
	size_t depth;          /* of arrays and objects */
	size_t longest_number; /* in bytes */
	bool lone_surrogate;   /* \uD800 without its partner */
};

/* Whether text is one JSON value, in UTF-8, with nothing but white space around it. facts may be
   NULL. */
bool reference_json_valid(struct span text, struct reference_json *facts);

/* The value alone.  This and all below: of valid text only. */
struct span reference_json_trim(struct span text);

/* The members of an object, or the items of an array (then the key has no bytes), one after the
   other; *at is 0 at first. */
bool reference_json_next(struct span container, size_t *at, struct span *key, struct span *value);

/* The first member of that name; no bytes if there is none, or if it is no object. */
struct span reference_json_member(struct span object, const char *name);

/* Decodes a string to UTF-8, at most as long as the literal; gives its length. */
size_t reference_json_decode(struct span literal, char *text);
bool reference_json_is(struct span literal, const char *text);

/* Length of the UTF-8 sequence at the beginning, 0 if it is none. */
size_t reference_utf8_length(struct span text);

#endif
