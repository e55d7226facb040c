/*
 * main.c: start, signals, workers, stop.
 *
 * Under FastCGI the main thread opens what all share, starts the workers, and then only waits for
 * signals and sheds slow peers.  As plain CGI there are no threads: one request, one answer.  The
 * command line is never read: as CGI, a query string can become arguments.
 */
#include "answer.h"
#include "api_key.h"
#include "cgi.h"
#include "clock.h"
#include "config.h"
#include "ctx.h"
#include "db.h"
#include "environment.h"
#include "http.h"
#include "log.h"
#include "request_id.h"
#include "routes.h"
#include "transport.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define SHED_TICK_MS 250          /* how often slow peers are looked for */
#define JOIN_TICK_MS 5            /* and how often while stopping */
#define STACK_BYTES  (512 * 1024) /* resolver and TLS need under 100 KiB */
#define ARENAS       2            /* of malloc: more cost memory and gain nothing here */

struct worker {
	pthread_t thread;
	struct connection *connection;
	const struct config *config;
	struct db *db;
	bool warms;          /* opens one of the pool's connections ahead of the first request */
	atomic_int *running; /* workers that have not ended */
	atomic_bool *failed;
};

/* Logs each line of a report on settings. */
static void
log_problems(const struct buf *problems, enum log_level level)
{
	const char *line = buf_text(problems);
	char text[CONFIG_PATH_MAX];

	while (*line != '\0') {
		int len = (int)strcspn(line, "\n");

		snprintf(text, sizeof(text), "%.*s", len, line);
		log_fault(level, "settings", text);
		line += len + (line[len] == '\n');
	}
}

static enum err
load_settings(struct config *config)
{
	struct buf problems;
	enum err err;

	buf_init(&problems, 64 * 1024);
	err = config_load(config, CONFIG_NEED_DATABASE | CONFIG_NEED_UPSTREAM, &problems);
	if (err == ERR_OK)
		log_set_level((enum log_level)config->log_level);
	log_problems(&problems, err == ERR_OK ? LOG_WARN : LOG_ERROR);
	if (err == ERR_NO_MEMORY)
		log_fault(LOG_ERROR, "out of memory while the settings were read", NULL);
	buf_free(&problems);
	return err;
}

static enum err
open_pool(const struct config *config, int connections, bool prepared, struct db **db)
{
	const struct db_options options = { config->database_url, connections, prepared,
		config->db_timeout_ms, account_statements, account_statement_count };

	return db_open(&options, db);
}

/* One request, then the end.  Nothing is opened before the request needs it. */
static int
serve_cgi(void)
{
	struct config config;
	struct ctx ctx = { .config = &config };
	struct request_ids ids = { .left = 0 };
	struct request request;
	struct answer answer;
	enum err err;

	answer_init(&answer);
	cgi_receive(&request);
	err = load_settings(&config);
	if (err == ERR_OK)
		/* Preparing pays only for a statement that is run again. */
		err = open_pool(&config, 1, false, &ctx.db);
	if (err == ERR_OK)
		routes_serve(&ctx, &request, &ids, &answer);
	else
		routes_refuse(err, &request, &ids, &answer);
	err = cgi_send(&answer);
	instantly_close(ctx.instantly);
	db_close(ctx.db);
	answer_free(&answer);
	config_wipe(&config);
	(void)err; /* whoever asked has gone: the work is done all the same */
	return EXIT_SUCCESS;
}

static void
serve_requests(struct worker *worker, struct ctx *ctx, struct answer *answer)
{
	struct request_ids ids = { .left = 0 };
	struct request request;
	enum err err;

	while ((err = connection_receive(worker->connection, &request)) == ERR_OK) {
		routes_serve(ctx, &request, &ids, answer);
		connection_send(worker->connection, answer);
	}
	if (err != ERR_STOPPED) {
		atomic_store(worker->failed, true);
		kill(getpid(), SIGTERM);
	}
}

static void *
run_worker(void *argument)
{
	struct worker *worker = argument;
	struct ctx ctx = { .config = worker->config, .db = worker->db };
	struct answer answer;

	answer_init(&answer);
	connection_bind(worker->connection);
	if (instantly_open(worker->config, &ctx.instantly) != ERR_OK)
		log_fault(LOG_WARN, "out of memory at start; the first call will try again", NULL);
	if (worker->warms)
		db_warm(worker->db, clock_deadline_us(worker->config->db_timeout_ms));
	serve_requests(worker, &ctx, &answer);
	instantly_close(ctx.instantly);
	answer_free(&answer);
	atomic_fetch_sub(worker->running, 1);
	return NULL;
}

/* All that may be sent to a process from outside is taken by the main thread, in its own time. */
static void
block_signals(sigset_t *waited)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD,
		SIGPIPE };
	size_t i;

	sigemptyset(waited);
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(waited, signals[i]);
	pthread_sigmask(SIG_BLOCK, waited, NULL);
}

/* Until SIGTERM or SIGINT; the other signals mean nothing to us. */
static void
wait_for_stop(struct transport *transport, const sigset_t *waited)
{
	const struct timespec tick = { 0, SHED_TICK_MS * 1000000L };
	int got;

	do {
		got = sigtimedwait(waited, NULL, &tick);
		transport_shed(transport);
	} while (got != SIGTERM && got != SIGINT);
}

/* Starts as many as it can; one is enough to serve. */
static int
start_workers(struct worker *workers, int count)
{
	pthread_attr_t attributes;
	int started = 0;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	for (; started < count; started++) {
		atomic_fetch_add(workers[started].running, 1);
		if (pthread_create(&workers[started].thread, &attributes, run_worker,
			    &workers[started]) == 0)
			continue;
		atomic_fetch_sub(workers[started].running, 1);
		break;
	}
	pthread_attr_destroy(&attributes);
	if (started < count)
		log_fault(
			LOG_ERROR, "not all workers could be started: lower WARMUP_WORKERS", NULL);
	return started;
}

/* Waits for the workers to end, while still shedding peers that would hold them. */
static void
join_workers(struct worker *workers, int count, struct transport *transport, atomic_int *running)
{
	while (atomic_load(running) > 0) {
		transport_shed(transport);
		clock_sleep_us(JOIN_TICK_MS * CLOCK_US_PER_MS, INT64_MAX);
	}
	for (int i = 0; i < count; i++)
		pthread_join(workers[i].thread, NULL);
}

/* What the slowest request may take, by the settings. */
static int
longest_request_ms(const struct config *config)
{
	return 2 * config->db_timeout_ms + config->upstream_timeout_ms + config->job_wait_ms;
}

/* A standard descriptor that is closed would become a socket of ours, and the log would go there. */
static void
fill_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

/* A worker needs up to six descriptors; the usual soft limit of 1024 is for programs with select(). */
static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* A core file would hold our secrets and callers' keys.  Not dumpable also means that no process of
   the same account can look into our memory or environment: that takes root. */
static void
forbid_dumps(void)
{
	const struct rlimit none = { 0, 0 };

	prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L);
	setrlimit(RLIMIT_CORE, &none);
}

static int
serve_fastcgi(const struct config *config, struct worker *workers, const sigset_t *waited)
{
	struct transport *transport = NULL;
	struct db *db = NULL;
	atomic_bool failed = false;
	atomic_int running = 0;
	int started = 0;

	raise_descriptor_limit();
	mallopt(M_ARENA_MAX, ARENAS);
	if (http_global_init() != ERR_OK || api_key_prepare() != ERR_OK) {
		log_fault(LOG_ERROR, "cannot start: OpenSSL or libcurl did not get ready", NULL);
		atomic_store(&failed, true);
		goto out;
	}
	if (open_pool(config, config->db_connections, config->db_prepared, &db) != ERR_OK ||
		transport_open(config->workers, longest_request_ms(config), &transport) != ERR_OK) {
		log_fault(LOG_ERROR,
			"cannot start: lower WARMUP_WORKERS or raise the limit on open files",
			NULL);
		atomic_store(&failed, true);
		goto out;
	}
	for (int i = 0; i < config->workers; i++) {
		workers[i].connection = transport_connection(transport, i);
		workers[i].config = config;
		workers[i].db = db;
		workers[i].warms = i < config->db_connections;
		workers[i].running = &running;
		workers[i].failed = &failed;
	}
	started = start_workers(workers, config->workers);
	if (started > 0)
		wait_for_stop(transport, waited);
	else
		atomic_store(&failed, true);
	transport_stop(transport);
	join_workers(workers, started, transport, &running);
out:
	transport_close(transport);
	db_close(db);
	return atomic_load(&failed) ? EXIT_FAILURE : EXIT_SUCCESS;
}

int
main(void)
{
	struct config config;
	struct worker *workers;
	sigset_t waited;
	enum err err;
	int status;

	forbid_dumps();
	fill_standard_descriptors();
	environment_prepare();
	/* As CGI, too: a server that loses patience must not end us between call and swap. */
	block_signals(&waited);
	if (!transport_is_fastcgi()) {
		if (cgi_is_request())
			return serve_cgi();
		fputs("warmup.fcgi: to be started by a web server: neither a listening socket on "
		      "standard input (FastCGI) nor REQUEST_METHOD in the environment (CGI)\n",
			stderr);
		return EX_USAGE;
	}
	err = load_settings(&config);
	if (err != ERR_OK)
		/* Wrong settings do not mend themselves; being out of memory may. */
		return err == ERR_CONFIG ? EX_CONFIG : EXIT_FAILURE;
	workers = calloc((size_t)config.workers, sizeof(*workers));
	status = EXIT_FAILURE;
	if (workers != NULL)
		status = serve_fastcgi(&config, workers, &waited);
	else
		log_fault(LOG_ERROR, "cannot start: out of memory", NULL);
	free(workers);
	config_wipe(&config);
	return status;
}
