/* buf.c: see buf.h. */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST 512         /* most log lines and answers fit after one doubling */
#define BUF_KEEP  (64 * 1024) /* memory worth keeping between requests */

void
buf_init(struct buf *buf, size_t max)
{
	memset(buf, 0, sizeof(*buf));
	buf->max = max;
}

void
buf_free(struct buf *buf)
{
	free(buf->data);
	buf_init(buf, buf->max);
}

void
buf_reset(struct buf *buf)
{
	if (buf->size > BUF_KEEP)
		buf_free(buf);
	buf->len = 0;
	buf->err = ERR_OK;
	if (buf->data != NULL)
		buf->data[0] = '\0';
}

/* Makes room for more bytes and the NUL; false, and the failure noted, if there can be none. */
static int
grow(struct buf *buf, size_t more)
{
	size_t size = buf->size != 0 ? buf->size : BUF_FIRST;
	char *data;

	if (buf->err != ERR_OK)
		return 0;
	if (more > buf->max - buf->len) {
		buf->err = ERR_TOO_LONG;
		return 0;
	}
	while (size < buf->len + more + 1)
		size *= 2;
	if (size == buf->size)
		return 1;
	data = realloc(buf->data, size);
	if (data == NULL) {
		buf->err = ERR_NO_MEMORY;
		return 0;
	}
	buf->data = data;
	buf->size = size;
	return 1;
}

void
buf_reserve(struct buf *buf, size_t room)
{
	enum err before = buf->err;

	/* No memory now may well be memory later, when it is needed. */
	if (!grow(buf, room))
		buf->err = before;
	else if (buf->data != NULL)
		buf->data[buf->len] = '\0';
}

void
buf_add(struct buf *buf, const void *bytes, size_t len)
{
	if (!grow(buf, len))
		return;
	if (len > 0)
		memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void
buf_puts(struct buf *buf, const char *text)
{
	buf_add(buf, text, strlen(text));
}

void
buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0 || !grow(buf, (size_t)len))
		return;
	va_start(args, format);
	vsnprintf(buf->data + buf->len, (size_t)len + 1, format, args);
	va_end(args);
	buf->len += (size_t)len;
}

const char *
buf_text(const struct buf *buf)
{
	return buf->data != NULL ? buf->data : "";
}

enum err
buf_check(const struct buf *buf)
{
	return buf->err;
}
