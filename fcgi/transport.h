/*
 * transport.h: receives requests over FastCGI and sends the answers.
 *
 * One struct transport a process: the listening socket on file descriptor 0.  One struct
 * connection a worker thread: it accepts, receives one request, and answers it; then the
 * connection is closed, also when the server asked to keep it, because idle kept connections
 * would each hold a worker.
 */
#ifndef WARMUP_TRANSPORT_H
#define WARMUP_TRANSPORT_H

#include "answer.h"
#include "err.h"
#include "request.h"

#include <stdbool.h>

struct transport;
struct connection;

/* Whether file descriptor 0 is a listening socket, that is: whether this is FastCGI. */
bool transport_is_fastcgi(void);

/* Before any thread is started.  drain_ms: within that time after a stop all that was queued is to
   be answered. */
enum err transport_open(int workers, int drain_ms, struct transport **transport) MUST_CHECK;
void transport_close(struct transport *transport);

/* Called by the main thread a few times a second: sheds peers that are too slow. */
void transport_shed(struct transport *transport);

/* Takes what is queued on the socket, then lets the workers finish: nothing queued is lost. */
void transport_stop(struct transport *transport);

/* A worker's connection: created and freed by the main thread, used by one worker. */
struct connection *transport_connection(struct transport *transport, int worker);

/* Binds a connection to the calling thread; before its first use. */
void connection_bind(struct connection *connection);

/*
 * Waits for a request.  ERR_OK; ERR_STOPPED; ERR_IO: the socket is unusable.  The request's texts
 * live until connection_send().
 */
enum err connection_receive(struct connection *connection, struct request *request) MUST_CHECK;

/* Sends an answer and closes.  A peer that has gone is no error: the work is done all the same. */
void connection_send(struct connection *connection, const struct answer *answer);

#endif
