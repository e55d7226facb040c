/*
 * cgi.c: see cgi.h.
 *
 * The body is read even though nobody wants it: Apache's mod_cgid drops the answer of a script
 * that leaves a large one unread.  Without an announced length there is none, and standard input,
 * which may be a terminal, is not touched.
 */
#include "cgi.h"

#include "clock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SEND_MS 30000 /* a web server that takes longer to read an answer has gone */

bool
cgi_is_request(void)
{
	return getenv("REQUEST_METHOD") != NULL;
}

static bool
wait_ready(int fd, short events, int64_t deadline_us)
{
	struct pollfd ready = { .fd = fd, .events = events };
	int count;

	do {
		count = poll(&ready, 1, clock_left_ms(deadline_us));
	} while (count < 0 && errno == EINTR);
	return count > 0;
}

/* Reads and drops up to `most` bytes; *whole: it ended by itself or with the last of them. */
static int64_t
drain(int64_t most, bool *whole)
{
	int64_t deadline_us = clock_deadline_us(REQUEST_READ_MS), received = 0;
	char dropped[8192];
	int waiting = 0;

	*whole = false;
	while (received < most) {
		int64_t want = most - received;
		ssize_t got;

		if (!wait_ready(STDIN_FILENO, POLLIN, deadline_us))
			return received;
		got = read(STDIN_FILENO, dropped,
			want < (int64_t)sizeof(dropped) ? (size_t)want : sizeof(dropped));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			*whole = got == 0;
			return received;
		}
		received += got;
	}
	*whole = true;
	/* More than was announced: not the request that was announced. */
	if (ioctl(STDIN_FILENO, FIONREAD, &waiting) == 0 && waiting > 0)
		received += waiting;
	return received;
}

void
cgi_receive(struct request *request)
{
	int64_t announced, received = 0;
	bool whole = true;

	request_read_variables(request, environ);
	announced = request_content_length(request);
	if (announced >= 0)
		received = drain(announced, &whole);
	else if (announced == REQUEST_LENGTH_NONE && request->transfer_encoding != NULL)
		received = drain(INT64_MAX, &whole); /* chunked: until it ends */
	request->body = request_judge_body(request, received, whole);
}

static enum err
send_all(const char *data, size_t len, int64_t deadline_us)
{
	while (len > 0) {
		/* So much a pipe that is ready takes without blocking. */
		size_t part = len < PIPE_BUF ? len : PIPE_BUF;
		ssize_t sent;

		if (!wait_ready(STDOUT_FILENO, POLLOUT, deadline_us))
			return ERR_IO;
		sent = write(STDOUT_FILENO, data, part);
		if (sent < 0 && errno != EINTR && errno != EAGAIN)
			return ERR_IO;
		if (sent > 0) {
			data += sent;
			len -= (size_t)sent;
		}
	}
	return ERR_OK;
}

enum err
cgi_send(const struct answer *answer)
{
	int64_t deadline_us = clock_deadline_us(SEND_MS);
	enum err err = send_all(buf_text(&answer->head), answer->head.len, deadline_us);

	if (err == ERR_OK && !answer->head_only)
		err = send_all(buf_text(&answer->body), answer->body.len, deadline_us);
	return err;
}
