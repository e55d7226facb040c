/*
 * json.h: writes JSON into a buf.  cJSON reads what Instantly sends; we write our own, because
 * cJSON passes invalid UTF-8 through, squeezes integers through a double and has no size limit.
 *
 * Commas need no state: a member or an item that does not follow '{', '[' or ':' gets one.
 */
#ifndef WARMUP_JSON_H
#define WARMUP_JSON_H

#include "buf.h"

#include <stdbool.h>
#include <stdint.h>

/* '{' and '}' or '[' and ']'. */
void json_open(struct buf *buf, char bracket);
void json_close(struct buf *buf, char bracket);

/* "key":  - the next call writes its value. */
void json_key(struct buf *buf, const char *key);

/* A value.  A NULL text is null.  Control characters (C0, DEL, C1) and U+2028/2029 are escaped,
   invalid UTF-8 becomes U+FFFD, so the output is always one line of valid JSON. */
void json_text(struct buf *buf, const char *text);
void json_int(struct buf *buf, int64_t number);
void json_null(struct buf *buf);
void json_bool(struct buf *buf, int value);

/* Length in bytes (1 to 4) of the valid UTF-8 sequence that text[0..len) begins with, 0 if there is
   none.  A NUL is none. */
size_t json_utf8_length(const char *text, size_t len);

/* Whether text[0..len) is valid UTF-8 throughout, without a NUL. */
bool json_utf8_valid(const char *text, size_t len);

#endif
