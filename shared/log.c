/* log.c: see log.h. */
#include "log.h"

#include "buf.h"
#include "clock.h"
#include "json.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A write to a pipe of up to PIPE_BUF (4096) bytes is never mixed with another process's. */
#define LINE_MAX_BYTES 4000

#define REPEAT_US   INT64_C(1000000) /* between two lines of the same fault */
#define PATIENCE_MS 50               /* with a log that does not take a line at once */

static const char *const names[LOG_LEVEL_MAX] = {
	[LOG_DEBUG] = "debug",
	[LOG_INFO] = "info",
	[LOG_WARN] = "warn",
	[LOG_ERROR] = "error",
};

static const char *plain_program; /* set once, before any thread */
static struct buf *collected;     /* a tool's, which has no threads */
static atomic_int threshold = LOG_INFO;
static _Thread_local const char *current_request_id;

void
log_set_level(enum log_level level)
{
	atomic_store(&threshold, (int)level);
}

void
log_set_plain(const char *program)
{
	plain_program = program;
}

void
log_collect(struct buf *lines)
{
	collected = lines;
}

int
log_level_parse(const char *name)
{
	int i;

	for (i = 0; i < LOG_LEVEL_MAX; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

void
log_set_request_id(const char *request_id)
{
	current_request_id = request_id;
}

static void
put_optional(struct buf *line, const char *key, const char *text)
{
	if (text == NULL || text[0] == '\0')
		return;
	json_key(line, key);
	json_text(line, text);
}

static void
put_ms(struct buf *line, const char *key, int64_t us)
{
	json_key(line, key);
	buf_printf(line, "%.3f", (double)us / 1000.0);
}

static void
begin_line(struct buf *line, enum log_level level)
{
	char text[CLOCK_TEXT_MAX] = "";
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	buf_init(line, LINE_MAX_BYTES);
	json_open(line, '{');
	/* Always with six digits of the second, so that lines sort as text. */
	if (clock_format((int64_t)now.tv_sec * 1000000, text) != NULL)
		snprintf(text + strlen(text) - 1, 9, ".%06uZ",
			(unsigned)now.tv_nsec / 1000U % 1000000U);
	put_optional(line, "time", text);
	put_optional(line, "level", names[level]);
	put_optional(line, "request_id", current_request_id);
}

/* Whether the log takes a line now.  Whoever reads it may be stuck: then a moment's patience, and for
   a while none.  Under the lock. */
static bool
takes_line(void)
{
	static int64_t impatient_until_us;
	struct pollfd out = { .fd = STDERR_FILENO, .events = POLLOUT };
	int patience_ms = clock_now_us() < impatient_until_us ? 0 : PATIENCE_MS;

	if (poll(&out, 1, patience_ms) != 0)
		return true;
	impatient_until_us = clock_now_us() + REPEAT_US;
	return false;
}

static void
put_line(const char *text, size_t len)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	ssize_t ignored = 0;

	/* A full, closed or stuck log is nothing a caller should suffer from. */
	pthread_mutex_lock(&lock);
	if (takes_line())
		ignored = write(STDERR_FILENO, text, len);
	(void)ignored;
	pthread_mutex_unlock(&lock);
}

static void
end_line(struct buf *line)
{
	static const char lost[] =
		"{\"level\":\"error\",\"fault\":\"out of memory: a line of the log is lost\"}\n";

	json_close(line, '}');
	buf_puts(line, "\n");
	if (buf_check(line) == ERR_OK)
		put_line(line->data, line->len);
	else if (buf_check(line) == ERR_NO_MEMORY)
		put_line(lost, sizeof(lost) - 1);
	buf_free(line);
}

void
log_request(const struct log_request *request, enum log_level level)
{
	struct buf line;

	if ((int)level < atomic_load(&threshold))
		return;
	begin_line(&line, level);
	put_optional(&line, "method", request->method);
	put_optional(&line, "route", request->route);
	json_key(&line, "status");
	json_int(&line, request->status);
	put_optional(&line, "code", request->code);
	put_ms(&line, "duration_ms", request->duration_us);
	put_ms(&line, "db_ms", request->db_us);
	put_ms(&line, "upstream_ms", request->upstream_us);
	put_optional(&line, "account_id", request->account_id);
	put_optional(&line, "user_id", request->user_id);
	put_optional(&line, "key_prefix", request->key_prefix);
	if (request->upstream_status != 0) {
		json_key(&line, "upstream_status");
		json_int(&line, request->upstream_status);
	}
	end_line(&line);
}

static void
put_plain(const char *what, const char *detail)
{
	if (collected != NULL)
		buf_printf(collected, detail != NULL ? "%s (%s)\n" : "%s\n", what, detail);
	else
		fprintf(stderr, detail != NULL ? "%s: %s (%s)\n" : "%s: %s\n", plain_program, what,
			detail);
}

void
log_fault(enum log_level level, const char *what, const char *detail)
{
	struct buf line;

	if ((int)level < atomic_load(&threshold))
		return;
	if (plain_program != NULL) {
		put_plain(what, detail);
		return;
	}
	begin_line(&line, level);
	put_optional(&line, "fault", what);
	put_optional(&line, "detail", detail);
	end_line(&line);
}

bool
log_is_due(_Atomic int64_t *quiet_until_us)
{
	int64_t until = atomic_load(quiet_until_us), now = clock_now_us();

	return now >= until &&
		atomic_compare_exchange_strong(quiet_until_us, &until, now + REPEAT_US);
}
