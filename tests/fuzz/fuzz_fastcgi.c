/*
 * fuzz_fastcgi.c: any bytes on a connection of the FastCGI socket, through transport.c and the real
 * libfcgi, in one worker thread.
 *
 * Properties:
 *   - whatever is sent, the worker comes back: it serves a request or drops the connection, also if
 *     the peer falls silent in the middle (then it is shed);
 *   - what it sends are whole FastCGI records; if it served a request, our answer is in them, exact;
 *   - a stream that is one plain request in proper form is served, with exactly its variables and the
 *     right judgement of its body; one whose body is cut short is served as such;
 *   - the next request, on the next connection, is served.
 *
 * An input: its first byte says whether the peer falls silent ('s') or ends; then the stream.
 *
 * Left out, because libfcgi 2.4.2 itself ends the process or worse, and nothing here can prevent it;
 * it takes somebody who can write to the socket, which is why it is 0660 and never TCP:
 *   - lengths of a name or value over 1 MiB: it asserts that malloc() gives that much;
 *   - FCGI_GET_VALUES with so many known names that the reply outgrows its buffer on the stack.
 */
#include "fuzz.h"

#include "clock.h"
#include "transport.h"

#include <ctype.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LENGTH_MAX (1024 * 1024)
#define GIVE_UP_MS 20000 /* a busy machine's scheduling, at most */

enum { BEGIN = 1, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, RESULT, UNKNOWN };

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_size;
static struct transport *transport;
static struct answer answer;

/* What the worker served last; the main thread looks when the connection is closed. */
static atomic_int served;
static struct {
	char method[4096], script[4096], request_id[4096], length[4096];
	enum err body;
} seen;

/* For transport.c, and so for its judgement who is late: the peer's silence is cut short. */
static _Atomic int64_t ahead_us;
int64_t __wrap_clock_now_us(void);
int64_t __real_clock_now_us(void);

int64_t
__wrap_clock_now_us(void)
{
	return __real_clock_now_us() + atomic_load(&ahead_us);
}

static void
note(char text[4096], const char *value)
{
	snprintf(text, 4096, "%s", value != NULL ? value : "(none)");
}

static void *
run_worker(void *nothing)
{
	struct connection *connection = transport_connection(transport, 0);
	struct request request;

	(void)nothing;
	connection_bind(connection);
	while (connection_receive(connection, &request) == ERR_OK) {
		note(seen.method, request.method);
		note(seen.script, request.script_name);
		note(seen.request_id, request.request_id);
		note(seen.length, request.content_length);
		seen.body = request.body;
		answer.head_only = false;
		atomic_fetch_add(&served, 1);
		connection_send(connection, &answer);
	}
	abort();
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	pthread_t worker;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)argc;
	(void)argv;
	/* In the abstract namespace: no file. */
	address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
		(size_t)snprintf(address.sun_path + 1, 64, "fuzz_fastcgi.%d", (int)getpid()));
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, address_size) != 0 ||
		listen(listener, 16) != 0 || dup2(listener, 0) != 0 || !transport_is_fastcgi() ||
		transport_open(1, 1000, &transport) != ERR_OK)
		abort();
	answer_init(&answer);
	answer.status = 200;
	buf_printf(
		&answer.body, "{\"a\":\"%0*d\"}", 40000, 1); /* more than one write of libfcgi's */
	answer_finish(&answer);
	if (pthread_create(&worker, NULL, run_worker, NULL) != 0)
		abort();
	return 0;
}

/* --- records ---------------------------------------------------------------------------------- */

struct record {
	unsigned version, type, id;
	struct span content;
	bool whole; /* header, content and padding are all there */
	bool padded;
};

/* Cuts a record off; false if there is not even a header. */
static bool
cut_record(struct span *rest, struct record *record)
{
	const unsigned char *header = (const unsigned char *)rest->at;
	size_t len, padding;

	if (rest->len < 8)
		return false;
	len = (size_t)header[4] << 8 | header[5];
	padding = header[6];
	record->version = header[0];
	record->type = header[1];
	record->id = (unsigned)header[2] << 8 | header[3];
	record->padded = padding > 0;
	record->whole = rest->len >= 8 + len + padding;
	record->content.at = rest->at + 8;
	record->content.len = len < rest->len - 8 ? len : rest->len - 8;
	rest->at += record->whole ? 8 + len + padding : rest->len;
	rest->len -= record->whole ? 8 + len + padding : rest->len;
	return true;
}

static bool
take_length(struct span *rest, size_t *length)
{
	const unsigned char *at = (const unsigned char *)rest->at;
	size_t size;

	if (rest->len == 0)
		return false;
	size = at[0] < 0x80 ? 1 : 4;
	if (rest->len < size)
		return false;
	*length = at[0];
	if (size == 4)
		*length = (size_t)(at[0] & 0x7F) << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 |
			at[3];
	rest->at += size;
	rest->len -= size;
	return true;
}

/* The next name and value; false at the end, or if something is missing: then rest is not empty. */
static bool
cut_pair(struct span *rest, struct span *name, struct span *value)
{
	struct span from = *rest;

	if (!take_length(&from, &name->len) || !take_length(&from, &value->len) ||
		name->len > from.len || value->len > from.len - name->len)
		return false;
	name->at = from.at;
	value->at = from.at + name->len;
	rest->at = value->at + value->len;
	rest->len = from.len - name->len - value->len;
	return true;
}

/* --- what is left out ------------------------------------------------------------------------- */

/* Whether a list of pairs claims lengths that are beyond reason; its last may be cut short. */
static bool
claims_too_much(struct span pairs)
{
	struct span name, value;
	size_t length;

	while (cut_pair(&pairs, &name, &value))
		;
	/* Of the one that is cut short, both lengths are there, or the name's alone. */
	for (int i = 0; i < 2; i++)
		if (take_length(&pairs, &length) && length > LENGTH_MAX)
			return true;
	return false;
}

/* An FCGI_GET_VALUES anywhere: after an error libfcgi reads on wherever it is. */
static bool
has_bad_get_values(struct span stream)
{
	struct span rest;
	struct record record;

	for (size_t i = 0; i + 8 <= stream.len; i++) {
		if (memcmp(stream.at + i, "\1\11\0\0", 4) != 0)
			continue;
		rest = (struct span){ stream.at + i, stream.len - i };
		if (cut_record(&rest, &record) &&
			(record.content.len > 56 || claims_too_much(record.content)))
			return true;
	}
	return false;
}

/* The parameters as libfcgi collects them: what it makes of padding behind the beginning, and of
   management records that it does not know, included. Gives how many bytes there are. */
static size_t
collect_params(struct span stream, char *params)
{
	struct record record;
	size_t len = 0;
	unsigned id = 0;

	while (cut_record(&stream, &record) && record.version == 1) {
		bool ours = id != 0 && record.id == id;

		if (record.type == BEGIN && (record.id == 0 || record.content.len != 8))
			break;
		if (record.type == BEGIN && id != 0)
			continue; /* one of another request: passed over */
		if (record.type == BEGIN) {
			id = record.id;
			stream.len += (size_t)(stream.at - record.content.at) - 8;
			stream.at = record.content.at + 8;
			continue;
		}
		if (ours && (record.type != PARAMS || record.content.len == 0))
			break;
		if (ours || (record.id == 0 && record.type != GET_VALUES)) {
			memcpy(params + len, record.content.at, record.content.len);
			len += record.content.len;
		}
	}
	return len;
}

static bool
is_left_out(struct span stream)
{
	char *params = malloc(stream.len + 1);
	bool is;

	if (params == NULL)
		abort();
	is = has_bad_get_values(stream) ||
		claims_too_much((struct span){ params, collect_params(stream, params) });
	free(params);
	return is;
}

/* It loses 48 bytes for each management record that it does not know. */
const char *__lsan_default_suppressions(void);
const char *
__lsan_default_suppressions(void)
{
	return "leak:libfcgi\n";
}

/* --- a request in proper form ----------------------------------------------------------------- */

struct plain {
	char *params;
	size_t params_len, body_len;
};

/* What a stream is: begin, parameters, an empty record of them, a body, an empty record of it, and
   nothing else: whole; the same that ends within the body, between records: cut; or something else.
   Without padding where libfcgi would take it for the next record. */
enum form { OTHER, CUT, WHOLE };

static enum form
read_plain(struct span stream, struct plain *plain)
{
	struct record record;
	unsigned id, expected = PARAMS;

	if (!cut_record(&stream, &record) || record.version != 1 || record.type != BEGIN ||
		record.id == 0 || record.content.len != 8 || !record.whole || record.padded ||
		memcmp(record.content.at, "\0\1", 2) != 0)
		return OTHER;
	id = record.id;
	while (cut_record(&stream, &record)) {
		if (record.version != 1 || record.type != expected || record.id != id ||
			!record.whole || (record.content.len == 0 && record.padded))
			return OTHER;
		if (record.content.len == 0 && expected == STDIN)
			return stream.len == 0 ? WHOLE : OTHER;
		if (record.content.len == 0) {
			expected = STDIN;
			continue;
		}
		if (expected == STDIN) {
			plain->body_len += record.content.len;
			continue;
		}
		memcpy(plain->params + plain->params_len, record.content.at, record.content.len);
		plain->params_len += record.content.len;
	}
	return expected == STDIN && stream.len == 0 ? CUT : OTHER;
}

/* The first value of a name among well-formed pairs, as a C string would hold it. */
static bool
find_value(const struct plain *plain, const char *wanted, char value[4096])
{
	struct span rest = { plain->params, plain->params_len }, name, text;
	bool found = false;

	memcpy(value, "(none)", 7);
	while (cut_pair(&rest, &name, &text)) {
		if (memchr(name.at, '\0', name.len) != NULL ||
			memchr(name.at, '=', name.len) != NULL)
			return false; /* then it is a matter of how they are joined */
		if (!found && span_is(name, wanted)) {
			found = true;
			snprintf(value, 4096, "%.*s", (int)text.len, text.at);
		}
	}
	return rest.len == 0;
}

static enum err
expected_body(const char *announced, size_t received)
{
	char exactly[32];
	size_t digits = strspn(announced, "0123456789");

	while (announced[0] == '0' && announced[1] != '\0')
		announced++, digits--;
	snprintf(exactly, sizeof(exactly), "%zu", received);
	if (strcmp(announced, "(none)") == 0 || announced[0] == '\0')
		return received > REQUEST_BODY_MAX ? ERR_BODY_TOO_LARGE : ERR_OK;
	if (received > REQUEST_BODY_MAX ||
		(announced[digits] == '\0' && (digits > 5 || atoi(announced) > REQUEST_BODY_MAX)))
		return ERR_BODY_TOO_LARGE;
	return announced[digits] == '\0' && strcmp(announced, exactly) == 0 ? ERR_OK :
									      ERR_BODY_INCOMPLETE;
}

static void
check_plain(struct span stream, bool was_served)
{
	struct plain plain = { .params = malloc(stream.len + 1) };
	char value[4096];
	enum form form;

	if (plain.params == NULL)
		abort();
	form = read_plain(stream, &plain);
	if (form != OTHER && find_value(&plain, "REQUEST_METHOD", value)) {
		MUST(was_served, "a plain request was not served");
		MUST(strcmp(seen.method, value) == 0, "method %s for %s", seen.method, value);
		find_value(&plain, "SCRIPT_NAME", value);
		MUST(strcmp(seen.script, value) == 0, "script %s for %s", seen.script, value);
		find_value(&plain, "HTTP_X_REQUEST_ID", value);
		MUST(strcmp(seen.request_id, value) == 0, "id %s for %s", seen.request_id, value);
		find_value(&plain, "CONTENT_LENGTH", value);
		MUST(form == WHOLE || seen.body != ERR_OK, "a body cut short is whole");
		MUST(form == CUT || seen.body == expected_body(value, plain.body_len),
			"%zu bytes for %s: %s", plain.body_len, value, err_info(seen.body)->name);
	}
	free(plain.params);
}

/* --- a peer ----------------------------------------------------------------------------------- */

static char received[256 * 1024];
static size_t received_len;

static int
connect_peer(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_size) != 0)
		abort();
	return fd;
}

/* Sends a stream, and takes what comes back until the end. */
static void
talk(struct span stream, bool falls_silent)
{
	int fd = connect_peer();
	int64_t give_up_us = __real_clock_now_us() + GIVE_UP_MS * CLOCK_US_PER_MS;
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	ssize_t got = 1;

	/* Small enough for the socket's own buffer, so this cannot wait. */
	if (send(fd, stream.at, stream.len, MSG_NOSIGNAL) < 0) {
		/* It has been dropped already. */
	}
	if (!falls_silent)
		shutdown(fd, SHUT_WR);
	received_len = 0;
	while (got > 0) {
		MUST(__real_clock_now_us() < give_up_us, "the worker does not come back");
		if (poll(&ready, 1, falls_silent ? 2 : 1000) == 0) {
			/* Twice its limit has passed, as far as it knows. */
			atomic_fetch_add(&ahead_us, 2 * REQUEST_READ_MS * CLOCK_US_PER_MS);
			transport_shed(transport);
			continue;
		}
		MUST(received_len < sizeof(received), "too much comes back");
		got = recv(fd, received + received_len, sizeof(received) - received_len, 0);
		received_len += got > 0 ? (size_t)got : 0;
	}
	close(fd);
}

/* Whether what came back has our answer in it; in any case it must be whole records. */
static bool
read_answer(bool was_served)
{
	static char output[256 * 1024];
	struct span rest = { received, received_len };
	struct record record;
	size_t len = 0, ends = 0, head = answer.head.len, body = answer.body.len;

	while (cut_record(&rest, &record)) {
		MUST(record.version == 1 && record.whole, "half a record");
		MUST(record.type == STDOUT || record.type == END || record.type == STDERR ||
				record.type == RESULT || record.type == UNKNOWN,
			"a record of type %u", record.type);
		ends += record.type == END && record.content.len == 8 && record.content.at[4] == 0;
		if (record.type != STDOUT)
			continue;
		memcpy(output + len, record.content.at, record.content.len);
		len += record.content.len;
	}
	MUST(rest.len == 0, "half a header");
	if (!was_served) {
		MUST(len == 0 && ends == 0, "an answer to no request");
		return false;
	}
	/* A peer that has gone gets none of it, or the beginning. */
	return ends == 1 && len == head + body && memcmp(output, answer.head.data, head) == 0 &&
		memcmp(output + head, answer.body.data, body) == 0;
}

/* The worker is alone, so that another one is served means that it is done with the last. */
static void
check_next(void)
{
	static const char good[] = "\1\1\0\1\0\10\0\0\0\1\0\0\0\0\0\0"
				   "\1\4\0\1\0\23\0\0\16\3REQUEST_METHODGET"
				   "\1\4\0\1\0\0\0\0\1\5\0\1\0\0\0\0";
	int before = atomic_load(&served);

	talk((struct span){ good, sizeof(good) - 1 }, false);
	MUST(atomic_load(&served) == before + 1 && strcmp(seen.method, "GET") == 0 &&
			read_answer(true),
		"the next request is not served");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span stream = { (const char *)data + 1, size - 1 };
	int before = atomic_load(&served);
	bool silent, was_served;

	if (size < 2 || size > 64 * 1024 || is_left_out(stream))
		return 0;
	silent = data[0] == 's';
	talk(stream, silent);
	was_served = atomic_load(&served) > before;
	MUST(read_answer(was_served) || !was_served, "half an answer");
	check_plain(stream, was_served);
	for (size_t i = 0; i < received_len && i < 64; i++)
		FUZZ_FEATURE(received[i] & 15);
	FUZZ_FEATURE(32 + was_served);
	FUZZ_FEATURE(40 + (was_served ? seen.body : 0));
	check_next();
	return 0;
}
