/*
 * fuzz_http.c: any bytes as the reply to a call, through http.c and the real libcurl, from a server
 * on this machine.
 *
 * Properties:
 *   - a call returns within its deadline, or soon after, whatever the server does;
 *   - one call is one request: no redirect is followed, nothing is repeated on a fresh connection;
 *   - what a complete reply says is in its bounds: a status of three digits in a line of HTTP/1, Retry-After, at most
 *     HTTP_REPLY_MAX bytes of body, and those are bytes of the input;
 *   - a reply in the simplest form (a status line, known headers, an exact length) is read exactly as
 *     it is meant, and one that is shorter than it announces is never complete;
 *   - nothing of a reply is left for the next call on the same handle.
 *
 * An input: its first byte says what the server does when it has sent the rest ('h': holds on to the
 * connection until the call gives up; else: ends it), its second how much is sent at once, the third
 * how many times 4 KiB of 'x' follow; then the reply.
 */
#include "fuzz.h"

#include "clock.h"
#include "http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIMIT_MS      10000 /* of a call that ends by itself, also on a busy machine */
#define HOLD_LIMIT_MS 8     /* and of one that does not */
#define LATE_MS       8000  /* a busy machine's scheduling, at most */
#define PAD           4096

static int listener;
static struct sockaddr_in address;
static char base_url[64];

/* What the server is to do; the main thread changes it between calls only. */
static struct span served;
static size_t served_at_once;
static bool holds;
static atomic_int requests, connections;

#define GOOD_BODY "{\"fresh\":\"reply\"}"

static const char good_reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n" GOOD_BODY;

/* Reads one request, head and body; false if there is none. */
static bool
read_request(int fd)
{
	char text[4096];
	size_t len = 0;
	ssize_t got;
	const char *end;

	for (;;) {
		got = recv(fd, text + len, sizeof(text) - 1 - len, 0);
		if (got <= 0)
			return false;
		len += (size_t)got;
		text[len] = '\0';
		end = strstr(text, "\r\n\r\n");
		/* The body of our calls is "{}". */
		if (end != NULL && (strncmp(text, "POST", 4) != 0 || strcmp(end + 4, "{}") == 0))
			return true;
	}
}

static void
serve(int fd)
{
	struct span rest = served;

	while (rest.len > 0) {
		size_t part = rest.len < served_at_once ? rest.len : served_at_once;
		ssize_t sent = send(fd, rest.at, part, MSG_NOSIGNAL);

		if (sent <= 0)
			break;
		rest.at += sent;
		rest.len -= (size_t)sent;
	}
	if (!holds)
		shutdown(fd, SHUT_WR);
	while (read_request(fd)) {
		/* On a connection that was kept: this is what must come back, and it alone. */
		atomic_fetch_add(&requests, 1);
		if (holds && send(fd, good_reply, strlen(good_reply), MSG_NOSIGNAL) <= 0)
			break;
	}
}

static void *
run_server(void *nothing)
{
	int one = 1;

	(void)nothing;
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			abort();
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (read_request(fd)) {
			atomic_fetch_add(&requests, 1);
			atomic_fetch_add(&connections, 1);
			serve(fd);
		}
		close(fd);
	}
	return NULL;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	socklen_t size = sizeof(address);
	pthread_t server;

	(void)argc;
	(void)argv;
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 ||
		listen(listener, 16) != 0 ||
		getsockname(listener, (struct sockaddr *)&address, &size) != 0 ||
		http_global_init() != ERR_OK)
		abort();
	snprintf(base_url, sizeof(base_url), "http://127.0.0.1:%d", ntohs(address.sin_port));
	if (pthread_create(&server, NULL, run_server, NULL) != 0)
		abort();
	return 0;
}

/* Waits until the server is done with all connections so far: it takes one after the other. */
static void
wait_for_server(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char nothing;

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
		shutdown(fd, SHUT_WR) != 0 || recv(fd, &nothing, 1, 0) != 0)
		abort();
	close(fd);
}

/* --- replies in the simplest form ------------------------------------------------------------- */

struct simple {
	int status;
	long retry_after_s; /* -1: in no form that is looked at here */
	struct span body;   /* what there is of it */
	size_t announced;
};

static bool
cut_crlf(struct span *rest, struct span *line)
{
	const char *end = rest->len > 1 ? memmem(rest->at, rest->len, "\r\n", 2) : NULL;

	if (end == NULL)
		return false;
	*line = (struct span){ rest->at, (size_t)(end - rest->at) };
	rest->len -= line->len + 2;
	rest->at = end + 2;
	return memchr(line->at, '\0', line->len) == NULL &&
		memchr(line->at, '\r', line->len) == NULL &&
		memchr(line->at, '\n', line->len) == NULL;
}

/* The number that is all of a header's value; false if it is another header or no such number. */
static bool
take_number(struct span line, const char *name, long *number)
{
	if (line.len <= strlen(name) || strncasecmp(line.at, name, strlen(name)) != 0)
		return false;
	line.at += strlen(name);
	line.len -= strlen(name);
	if (line.len > 6)
		return false;
	*number = 0;
	for (size_t i = 0; i < line.len; i++) {
		if (!isdigit((unsigned char)line.at[i]))
			return false;
		*number = *number * 10 + (line.at[i] - '0');
	}
	return true;
}

/* Whether a reply is one that this target knows the meaning of. */
static bool
read_simple(struct span rest, struct simple *simple)
{
	struct span line;
	long number, length = -1, retry_after_s = -1;

	if (!cut_crlf(&rest, &line) || line.len != 15 || !span_starts(line, "HTTP/1.1 ") ||
		memcmp(line.at + 12, " OK", 3) != 0)
		return false;
	for (int i = 9; i < 12; i++)
		if (!isdigit((unsigned char)line.at[i]))
			return false;
	simple->status = atoi(line.at + 9);
	/* Others end at once, go on, or have no body. */
	if (simple->status < 200 || simple->status > 599 || simple->status == 204 ||
		simple->status == 304)
		return false;
	while (cut_crlf(&rest, &line) && line.len > 0) {
		if (length < 0 && take_number(line, "Content-Length: ", &number))
			length = number;
		else if (retry_after_s < 0 && take_number(line, "Retry-After: ", &number))
			retry_after_s = number;
		else if (!span_is(line, "Content-Type: application/json"))
			return false;
	}
	if (line.len > 0 || length < 0 || rest.at[-1] != '\n')
		return false;
	simple->retry_after_s = retry_after_s < 0 ? 0 : retry_after_s;
	simple->announced = (size_t)length;
	simple->body = rest;
	return true;
}

static void
compare_simple(struct span text, const struct http_reply *reply)
{
	struct simple simple;

	if (!read_simple(text, &simple))
		return;
	if (simple.announced > HTTP_REPLY_MAX) {
		MUST(reply->end != HTTP_COMPLETE, "%zu bytes are complete", simple.announced);
		return;
	}
	if (simple.body.len < simple.announced) {
		MUST(reply->end == (holds ? HTTP_TIMEOUT : HTTP_INCOMPLETE),
			"%zu of %zu bytes end as %d", simple.body.len, simple.announced,
			(int)reply->end);
		return;
	}
	MUST(reply->end == HTTP_COMPLETE && reply->status == simple.status,
		"%d ends as %d with status %d", simple.status, (int)reply->end, reply->status);
	MUST(reply->retry_after_s == simple.retry_after_s, "Retry-After: %ld for %ld",
		reply->retry_after_s, simple.retry_after_s);
	MUST(reply->body.len == simple.announced &&
			memcmp(buf_text(&reply->body), simple.body.at, simple.announced) == 0,
		"another body: %s", buf_text(&reply->body));
}

/* --- any reply -------------------------------------------------------------------------------- */

static void
call(struct http *http, const char *body, int limit_ms, struct http_reply *reply)
{
	int64_t deadline_us = clock_deadline_us(limit_ms);

	http_call(http, "/accounts", body, deadline_us, reply);
	MUST(clock_now_us() < deadline_us + LATE_MS * CLOCK_US_PER_MS, "it took %d ms too long",
		(int)((clock_now_us() - deadline_us) / CLOCK_US_PER_MS));
	MUST((int)reply->end >= HTTP_COMPLETE && reply->end <= HTTP_GARBLED, "it ended as %d",
		(int)reply->end);
	MUST(reply->retry_after_s >= 0 && reply->retry_after_s < 1000000, "Retry-After %ld",
		reply->retry_after_s);
	MUST(reply->body.len <= HTTP_REPLY_MAX, "%zu bytes", reply->body.len);
	if (reply->end == HTTP_COMPLETE)
		MUST(reply->status >= 100 && reply->status <= 999, "status %d", reply->status);
	else
		MUST(reply->status == 0 && reply->retry_after_s == 0, "status %d of no reply",
			reply->status);
}

/* A status is one of a status line of HTTP/1.0 or 1.1, whose reply this is or a 1xx before it. */
static void
check_status(struct span text, const struct http_reply *reply)
{
	char lines[2][16];

	if (reply->end != HTTP_COMPLETE)
		return;
	for (int i = 0; i < 2; i++)
		snprintf(lines[i], sizeof(lines[i]), "HTTP/1.%d %03d", i, reply->status);
	MUST(memmem(text.at, text.len, lines[0], 12) != NULL ||
			memmem(text.at, text.len, lines[1], 12) != NULL,
		"status %d from nowhere", reply->status);
}

/* A body is made of the reply's own bytes, in one piece unless it came in chunks. */
static void
check_body(struct span text, const struct http_reply *reply)
{
	if (reply->end != HTTP_COMPLETE || reply->body.len == 0 ||
		memmem(text.at, text.len, ":", 1) == NULL)
		return;
	for (size_t i = 0; i + 8 <= text.len; i++)
		if (strncasecmp(text.at + i, "encoding", 8) == 0)
			return;
	MUST(memmem(text.at, text.len, reply->body.data, reply->body.len) != NULL,
		"a body from elsewhere: %s", reply->body.data);
}

static struct span
make_reply(const uint8_t *data, size_t size)
{
	size_t padding = (size_t)(data[2] % 32) * PAD;
	char *text = malloc(size - 3 + padding + 1);

	if (text == NULL)
		abort();
	memcpy(text, data + 3, size - 3);
	memset(text + size - 3, 'x', padding);
	return (struct span){ text, size - 3 + padding };
}

/* libcurl is not instrumented: what tells inputs apart is what came of them. */
static void
tell_apart(const struct http_reply *reply)
{
	size_t bits = 0, len = reply->body.len;

	for (; len > 0; len >>= 1)
		bits++;
	FUZZ_FEATURE(reply->end);
	FUZZ_FEATURE(16 + reply->status % 1024);
	FUZZ_FEATURE(2048 + bits);
	FUZZ_FEATURE(2080 + (reply->retry_after_s > 0) + (reply->retry_after_s > 100));
}

/* Whether a call must come to its end without its limit. */
static bool
ends_by_itself(struct span text)
{
	struct simple simple;

	return !holds || (read_simple(text, &simple) && simple.body.len >= simple.announced);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_options options = { base_url, "key", "", 2000, NULL };
	struct http_reply reply = { 0 };
	struct http *http;
	int before;

	if (size < 3)
		return 0;
	holds = data[0] == 'h';
	served_at_once = data[1] % 16 == 0 ? 1 + data[1] : 1024 * 1024;
	served = make_reply(data, size);
	if (http_open(&options, &http) != ERR_OK)
		abort();
	buf_init(&reply.body, HTTP_REPLY_MAX);
	before = atomic_load(&requests);
	call(http, size % 2 == 0 ? "{}" : NULL, ends_by_itself(served) ? LIMIT_MS : HOLD_LIMIT_MS,
		&reply);
	compare_simple(served, &reply);
	check_status(served, &reply);
	check_body(served, &reply);
	tell_apart(&reply);
	MUST(atomic_load(&requests) - before <= 1, "%d requests for a call",
		atomic_load(&requests) - before);

	/* What came at once is in our hands by now, all of it. */
	if (holds && reply.end == HTTP_COMPLETE && served_at_once >= served.len) {
		before = atomic_load(&connections);
		call(http, NULL, HOLD_LIMIT_MS, &reply);
		MUST(reply.end != HTTP_COMPLETE || atomic_load(&connections) > before ||
				strcmp(buf_text(&reply.body), GOOD_BODY) == 0,
			"the next reply is %s", buf_text(&reply.body));
	}
	http_close(http);
	wait_for_server();
	buf_free(&reply.body);
	free((char *)(uintptr_t)served.at);
	return 0;
}
