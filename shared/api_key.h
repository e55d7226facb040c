/* api_key.h: what API keys look like and how they are stored: as a hash only. */
#ifndef WARMUP_API_KEY_H
#define WARMUP_API_KEY_H

#include "err.h"

#include <stddef.h>

#define API_KEY_HASH_BYTES 32                /* SHA-256 */
#define API_KEY_PREFIX_LEN 24                /* how much of a key may be shown and logged */
#define API_KEY_LEN        (8 + 64)          /* "pk_live_" and 64 hex digits */
#define API_KEY_MAX        (API_KEY_LEN + 1) /* with its NUL */

/* Before the first of them: OpenSSL that could not get ready, for want of memory, never will in this
   process, and every key would be refused. */
enum err api_key_prepare(void) MUST_CHECK;

/* SHA-256 of a whole token, whatever it looks like. */
enum err api_key_hash(
	const char *token, size_t len, unsigned char hash[API_KEY_HASH_BYTES]) MUST_CHECK;

/* A fresh key out of 256 random bits.  The caller wipes it after use. */
enum err api_key_generate(char key[API_KEY_MAX]) MUST_CHECK;

#endif
