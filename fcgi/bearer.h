/* bearer.h: the Authorization header.  Pure. */
#ifndef WARMUP_BEARER_H
#define WARMUP_BEARER_H

#include "err.h"

#include <stddef.h>

#define BEARER_TOKEN_MAX 512

/*
 * Finds the token in "Bearer TOKEN": scheme in any case, one or more spaces, one token of the
 * characters A-Z a-z 0-9 - . _ ~ + / =, spaces at the ends.  *token points into header.
 * ERR_UNAUTHORIZED for anything else, NULL and empty included.
 */
enum err bearer_parse(const char *header, const char **token, size_t *len) MUST_CHECK;

#endif
