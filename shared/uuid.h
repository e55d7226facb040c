/* uuid.h: the ids of the API. */
#ifndef WARMUP_UUID_H
#define WARMUP_UUID_H

#include <stdbool.h>
#include <stddef.h>

#define UUID_TEXT_LEN 36
#define UUID_TEXT_MAX (UUID_TEXT_LEN + 1)
#define UUID_BYTES    16

/*
 * Whether text[0..len) matches, exactly,
 *   ^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}
 *     |00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$
 * which is what the published page of the API demands (the last alternative is lower case only).
 */
bool uuid_is_valid(const char *text, size_t len);

/* Writes 16 bytes in the canonical, lower case form. */
void uuid_format(const unsigned char bytes[UUID_BYTES], char text[UUID_TEXT_MAX]);

/* A fresh random (version 4) UUID out of 16 random bytes. */
void uuid_from_random(unsigned char bytes[UUID_BYTES], char text[UUID_TEXT_MAX]);

#endif
