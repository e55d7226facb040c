/*
 * buf.h: a string buffer that cannot outgrow the maximum its owner stated.
 *
 * Failure sticks: after the first one (out of memory, over the maximum) every further addition is
 * ignored, and buf_check() tells.  So a writer adds freely and checks once, at its end; nothing is
 * ever cut short unnoticed.
 */
#ifndef WARMUP_BUF_H
#define WARMUP_BUF_H

#include "err.h"

#include <stddef.h>

struct buf {
	char *data; /* NUL-terminated once anything was added; NULL before */
	size_t len;
	size_t size; /* allocated */
	size_t max;  /* most bytes it may ever hold, without the NUL */
	enum err err;
};

void buf_init(struct buf *buf, size_t max);

/* Frees the memory; the buffer may be used again. */
void buf_free(struct buf *buf);

/* Empties it and forgives a failure; keeps memory for the next use, but no more than 64 KiB. */
void buf_reset(struct buf *buf);

/* Makes room ahead, so that so many more bytes need no memory then; if there is none, later will do. */
void buf_reserve(struct buf *buf, size_t room);

void buf_add(struct buf *buf, const void *bytes, size_t len);
void buf_puts(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The text so far; never NULL. */
const char *buf_text(const struct buf *buf);

/* ERR_OK, or why something is missing: ERR_TOO_LONG or ERR_NO_MEMORY. */
enum err buf_check(const struct buf *buf) MUST_CHECK;

#endif
