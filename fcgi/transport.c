/*
 * transport.c: see transport.h.  The only file that includes fcgiapp.h.
 *
 * libfcgi's own accepting cannot be stopped with several threads, loses what is queued, and waits
 * for ever for a silent peer.  So we accept ourselves and hand the descriptor over:
 *
 *   - each worker waits in its own epoll for the listener (EPOLLEXCLUSIVE: one is woken, not all)
 *     and for the stop event; accept4() never blocks.
 *   - to stop, the main thread takes all that is queued into a list and raises the event; workers
 *     empty the list, then end.  The socket stays open for a successor that shares it.
 *   - a peer that does not finish sending or receiving in time is shed by a signal to that one
 *     worker: it interrupts libfcgi's read or write and ends the input, which libfcgi takes for the
 *     end of the connection.  All other signals are blocked in workers, so nothing else can cut
 *     one short.
 *
 * Handing over writes two members of FCGX_Request that its header calls private, ipcFd and
 * keepConnection: the latter makes FCGX_Accept_r() leave the descriptor alone when it finishes the
 * (absent) request before.  They are the same from libfcgi 2.4.0 to 2.4.7; a test serves requests
 * through them.
 */
#include "transport.h"

#include "clock.h"
#include "log.h"
#include "peer.h"

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENER        0
#define SHED_SIGNAL     (SIGRTMIN + 5) /* ours alone: nobody sends it from outside */
#define PRESSED_READ_MS 500            /* instead of REQUEST_READ_MS while no worker is idle */
#define ACCEPT_PAUSE_MS 50             /* out of descriptors or memory: do not spin */
#define LINGER_MS       200  /* for a peer that still sends to see our answer before our close */
#define QUEUED_MAX      4096 /* as much as a kernel queues for a listener */

struct connection {
	struct transport *transport;
	FCGX_Request fcgx;
	int epoll;
	pthread_mutex_t lock; /* over the three below: the main thread looks at them */
	pthread_t thread;
	int64_t exchange_since_us; /* since when libfcgi reads or writes; 0 = it does not */
	bool bound;
	bool drained; /* nothing of the request is left unread */
};

struct transport {
	int stop_event;
	int workers;
	int drain_ms;
	const char *allowed; /* peers over TCP; NULL = all */
	atomic_int idle;     /* workers waiting for a connection */
	atomic_bool stopping;
	pthread_mutex_t lock; /* over the list of what was queued at the stop */
	int *queued;
	int queued_count, queued_next;
	int64_t drain_until_us;
	struct connection connections[];
};

bool
transport_is_fastcgi(void)
{
	int listening = 0;
	socklen_t size = sizeof(listening);

	return getsockopt(LISTENER, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

/* On which libfcgi reads or writes in this thread, for the handler below; NULL = on none. */
static _Thread_local struct connection *volatile exchanging;

/* A call that waits ends with EINTR; a peer that never lets one wait, because it floods us, comes to
   its end of file. */
static void
on_shed(int signal)
{
	int saved = errno;

	(void)signal;
	/* libfcgi sets it to -1 as soon as it has closed it. */
	if (exchanging != NULL && exchanging->fcgx.ipcFd >= 0)
		shutdown(exchanging->fcgx.ipcFd, SHUT_RD);
	errno = saved;
}

static enum err
prepare_process(void)
{
	struct sigaction action = { .sa_handler = on_shed };
	int flags = fcntl(LISTENER, F_GETFL);

	/* Without SA_RESTART: the interrupted call must fail. */
	if (sigaction(SHED_SIGNAL, &action, NULL) != 0 || flags < 0 ||
		fcntl(LISTENER, F_SETFL, flags | O_NONBLOCK) != 0)
		return ERR_IO;
	if (FCGX_Init() != 0)
		return ERR_IO;
	signal(SIGPIPE, SIG_IGN); /* libfcgi put its own handler here */
	return ERR_OK;
}

static enum err
open_connection(struct transport *transport, struct connection *connection)
{
	struct epoll_event listener = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = LISTENER };
	struct epoll_event stop = { .events = EPOLLIN, .data.fd = transport->stop_event };

	connection->transport = transport;
	pthread_mutex_init(&connection->lock, NULL);
	connection->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (connection->epoll < 0 ||
		epoll_ctl(connection->epoll, EPOLL_CTL_ADD, LISTENER, &listener) != 0 ||
		epoll_ctl(connection->epoll, EPOLL_CTL_ADD, transport->stop_event, &stop) != 0)
		return ERR_IO;
	return FCGX_InitRequest(&connection->fcgx, -1, 0) == 0 ? ERR_OK : ERR_IO;
}

enum err
transport_open(int workers, int drain_ms, struct transport **out)
{
	struct transport *transport =
		calloc(1, sizeof(*transport) + (size_t)workers * sizeof(struct connection));
	enum err err = ERR_OK;

	if (transport == NULL)
		return ERR_NO_MEMORY;
	transport->workers = workers;
	transport->drain_ms = drain_ms;
	/* Of the FastCGI specification.  Before any thread: NOLINTNEXTLINE(concurrency-mt-unsafe) */
	transport->allowed = getenv("FCGI_WEB_SERVER_ADDRS");
	pthread_mutex_init(&transport->lock, NULL);
	transport->queued = calloc(QUEUED_MAX, sizeof(int));
	transport->stop_event = eventfd(0, EFD_CLOEXEC);
	if (transport->queued == NULL || transport->stop_event < 0 || prepare_process() != ERR_OK)
		err = ERR_IO;
	for (int i = 0; err == ERR_OK && i < workers; i++)
		err = open_connection(transport, &transport->connections[i]);
	*out = transport;
	return err;
}

void
transport_close(struct transport *transport)
{
	if (transport == NULL)
		return;
	for (int i = 0; i < transport->workers; i++) {
		if (transport->connections[i].transport == NULL)
			continue;
		if (transport->connections[i].epoll >= 0)
			close(transport->connections[i].epoll);
		pthread_mutex_destroy(&transport->connections[i].lock);
	}
	if (transport->stop_event >= 0)
		close(transport->stop_event);
	pthread_mutex_destroy(&transport->lock);
	free(transport->queued);
	free(transport);
}

struct connection *
transport_connection(struct transport *transport, int worker)
{
	return &transport->connections[worker];
}

/* Notes that libfcgi begins to read or write, or (0) that it is done. */
static void
note_exchange(struct connection *connection, int64_t since_us)
{
	exchanging = since_us != 0 ? connection : NULL;
	pthread_mutex_lock(&connection->lock);
	connection->exchange_since_us = since_us;
	pthread_mutex_unlock(&connection->lock);
}

void
connection_bind(struct connection *connection)
{
	sigset_t shed;

	sigemptyset(&shed);
	sigaddset(&shed, SHED_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &shed, NULL);
	pthread_mutex_lock(&connection->lock);
	connection->thread = pthread_self();
	connection->bound = true;
	pthread_mutex_unlock(&connection->lock);
}

void
transport_shed(struct transport *transport)
{
	bool pressed = atomic_load(&transport->idle) == 0;
	int64_t limit_us = (pressed ? PRESSED_READ_MS : REQUEST_READ_MS) * CLOCK_US_PER_MS;

	for (int i = 0; i < transport->workers; i++) {
		struct connection *connection = &transport->connections[i];

		/* Under the lock: when the signal arrives, the exchange is the one that was late. */
		pthread_mutex_lock(&connection->lock);
		if (connection->bound && connection->exchange_since_us != 0 &&
			clock_now_us() - connection->exchange_since_us > limit_us)
			pthread_kill(connection->thread, SHED_SIGNAL);
		pthread_mutex_unlock(&connection->lock);
	}
}

void
transport_stop(struct transport *transport)
{
	uint64_t one = 1;
	ssize_t written;
	int fd;

	/* First: the kernel tells one worker of a new connection, and one of ours that is about to
	   end would keep it from those of another process on this socket. */
	for (int i = 0; i < transport->workers; i++)
		epoll_ctl(transport->connections[i].epoll, EPOLL_CTL_DEL, LISTENER, NULL);
	pthread_mutex_lock(&transport->lock);
	transport->drain_until_us = clock_deadline_us(transport->drain_ms);
	while (transport->queued_count < QUEUED_MAX &&
		(fd = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		transport->queued[transport->queued_count++] = fd;
	atomic_store(&transport->stopping, true);
	pthread_mutex_unlock(&transport->lock);
	written = write(transport->stop_event, &one, sizeof(one));
	(void)written; /* cannot fail: the counter is at zero */
}

/* The next of those that were queued at the stop; -1 when there are no more. */
static int
next_queued(struct transport *transport)
{
	int fd = -1;

	pthread_mutex_lock(&transport->lock);
	if (transport->queued_next < transport->queued_count)
		fd = transport->queued[transport->queued_next++];
	pthread_mutex_unlock(&transport->lock);
	return fd;
}

/* Accepts without waiting; *fd is -1 if there was nothing after all. */
static enum err
accept_one(int *fd)
{
	static _Atomic int64_t quiet_until_us;

	*fd = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC);
	if (*fd >= 0)
		return ERR_OK;
	switch (errno) {
	case EAGAIN: /* another worker was faster */
	case EINTR:
	case ECONNABORTED:
		return ERR_OK;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		if (log_is_due(&quiet_until_us))
			log_fault(LOG_ERROR, "cannot accept: raise the limit on open files", NULL);
		clock_sleep_us(ACCEPT_PAUSE_MS * CLOCK_US_PER_MS, INT64_MAX);
		return ERR_OK;
	default:
		log_fault(LOG_ERROR, "the listening socket is unusable", NULL);
		return ERR_IO;
	}
}

/* The next accepted descriptor, and by when its request must be answered. */
static enum err
next_descriptor(struct connection *connection, int *fd, int64_t *answer_by_us)
{
	struct transport *transport = connection->transport;
	struct epoll_event event;
	enum err err;

	*answer_by_us = REQUEST_NO_HASTE;

	do {
		if (!atomic_load(&transport->stopping)) {
			atomic_fetch_add(&transport->idle, 1);
			epoll_wait(connection->epoll, &event, 1, -1);
			atomic_fetch_sub(&transport->idle, 1);
		}
		if (atomic_load(&transport->stopping)) {
			*fd = next_queued(transport);
			*answer_by_us = transport->drain_until_us;
			return *fd < 0 ? ERR_STOPPED : ERR_OK;
		}
		err = accept_one(fd);
	} while (err == ERR_OK && *fd < 0);
	return err;
}

/* Reads the body and drops it; it is kept nowhere. */
static void
drain_body(struct connection *connection, struct request *request)
{
	FCGX_Request *fcgx = &connection->fcgx;
	char dropped[8192];
	int64_t received = 0;
	int got;

	do {
		got = FCGX_GetStr(dropped, sizeof(dropped), fcgx->in);
		received += got;
	} while (got == (int)sizeof(dropped) && received < REQUEST_DRAIN_MAX);
	connection->drained = got < (int)sizeof(dropped) && FCGX_GetError(fcgx->in) == 0;
	request->body = request_judge_body(request, received, connection->drained);
}

enum err
connection_receive(struct connection *connection, struct request *request)
{
	FCGX_Request *fcgx = &connection->fcgx;
	int64_t answer_by_us;
	enum err err;
	int fd;

	for (;;) {
		err = next_descriptor(connection, &fd, &answer_by_us);
		if (err != ERR_OK)
			return err;
		if (!peer_is_allowed(fd, connection->transport->allowed)) {
			close(fd);
			continue;
		}
		fcgx->ipcFd = fd;
		fcgx->keepConnection = 1;
		/* Or libfcgi's close would wait for the peer to close first: 2 seconds for a silent
		   one, without a limit for one that keeps sending. */
		FCGX_Detach(fcgx);
		note_exchange(connection, clock_now_us());
		if (FCGX_Accept_r(fcgx) == 0)
			break;
		/* Silent, cut short or no FastCGI: libfcgi has closed it. */
		note_exchange(connection, 0);
	}
	fcgx->keepConnection = 0;
	request_read_variables(request, fcgx->envp);
	request->answer_by_us = answer_by_us;
	drain_body(connection, request);
	note_exchange(connection, 0);
	return ERR_OK;
}

/* Closes a connection on which more may arrive: closing with unread data is a reset, which over
   TCP can overtake the answer. */
static void
linger(int fd)
{
	int64_t deadline_us = clock_deadline_us(LINGER_MS);
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	char dropped[8192];

	shutdown(fd, SHUT_WR);
	while (clock_left_ms(deadline_us) > 0 &&
		poll(&readable, 1, clock_left_ms(deadline_us)) > 0 &&
		recv(fd, dropped, sizeof(dropped), MSG_DONTWAIT) > 0)
		;
	close(fd);
}

void
connection_send(struct connection *connection, const struct answer *answer)
{
	FCGX_Request *fcgx = &connection->fcgx;
	int lingering;

	note_exchange(connection, clock_now_us());
	FCGX_PutStr(buf_text(&answer->head), (int)answer->head.len, fcgx->out);
	if (!answer->head_only)
		FCGX_PutStr(buf_text(&answer->body), (int)answer->body.len, fcgx->out);
	/* Before libfcgi frees them.  In the buffer that it received the request with, which is out
	   of reach, they stay until the next one. */
	request_wipe_keys(fcgx->envp);
	lingering = connection->drained ? -1 : dup(fcgx->ipcFd);
	FCGX_Finish_r(fcgx);
	note_exchange(connection, 0);
	if (lingering >= 0)
		linger(lingering);
}
