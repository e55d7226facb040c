/*
 * http.h: HTTP calls to the one fixed place that the settings name.
 *
 * One handle a worker, its connection kept alive.  TLS 1.2 or better and verified; no redirects,
 * no proxies of the environment, no more than HTTP_REPLY_MAX bytes, every call under a deadline.
 */
#ifndef WARMUP_HTTP_H
#define WARMUP_HTTP_H

#include "buf.h"
#include "err.h"

#include <stdint.h>

#define HTTP_REPLY_MAX (64 * 1024) /* of a body; Instantly's replies are about 1 KiB */

struct http;

struct http_options {
	const char *base_url; /* checked by http_base_url_check() */
	const char *bearer;   /* the key; "" = none */
	const char *ca_file;  /* "" = the system's */
	int connect_timeout_ms;
	const char *request_id; /* X-Request-Id of every call; NULL = none */
};

/* How an exchange ended. Only after HTTP_COMPLETE do status and body mean anything. */
enum http_end {
	HTTP_COMPLETE,    /* a whole reply of any status */
	HTTP_UNREACHABLE, /* no address, no connection */
	HTTP_TIMEOUT,     /* no whole reply within the limit */
	HTTP_TLS,         /* the handshake failed, or the certificate is not to be trusted */
	HTTP_INCOMPLETE,  /* connected, then cut short */
	HTTP_OVERSIZED,   /* more than HTTP_REPLY_MAX, or headers without end */
	HTTP_GARBLED      /* not HTTP */
};

struct http_reply {
	enum http_end end;
	int status;
	long retry_after_s; /* Retry-After as seconds from now; 0 or less: none or useless */
	struct buf body;    /* kept by the caller; http_call() empties it first */
};

/* Before any thread is started; once a process. */
enum err http_global_init(void) MUST_CHECK;

/* The texts of the options must live as long as what is opened. */
enum err http_open(const struct http_options *options, struct http **http) MUST_CHECK;
void http_close(struct http *http);

/* GET if body is NULL, else POST of that JSON.  path is appended to the base address and must
   already be percent-encoded.  Always fills reply. */
void http_call(struct http *http, const char *path, const char *body, int64_t deadline_us,
	struct http_reply *reply);

/* The same with any method, and without a body: for an operator's look at a host. */
void http_probe(struct http *http, const char *method, const char *path, int64_t deadline_us,
	struct http_reply *reply);

/* A header of the last reply by its name in any case, the first of several; NULL if there is none.
   Lives until the next call. */
const char *http_header(struct http *http, const char *name);

/* Appends text to path, percent-encoded but for letters, digits and "-._~". */
void http_escape(struct buf *path, const char *text);

/* For the table of settings: an address that may carry our key; takes slashes off its end. */
enum err http_base_url_check(char *url);

#endif
