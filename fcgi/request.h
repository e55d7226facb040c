/*
 * request.h: a request as the web server describes it, in CGI variables; the same for plain CGI
 * and for FastCGI.
 */
#ifndef WARMUP_REQUEST_H
#define WARMUP_REQUEST_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REQUEST_BODY_MAX    (64 * 1024)   /* more is answered 413 */
#define REQUEST_DRAIN_MAX   (1024 * 1024) /* under FastCGI no more than that is read and dropped */
#define REQUEST_READ_MS     5000          /* to receive a whole request */
#define REQUEST_ID_TEXT_MAX 64            /* of a caller's own X-Request-Id */

#define REQUEST_NO_HASTE INT64_MAX

/* Texts live as long as the request; NULL = the server did not set it. */
struct request {
	const char *method;
	const char *script_name, *path_info, *request_uri;
	const char *authorization;          /* HTTP_AUTHORIZATION */
	const char *redirect_authorization; /* the same after an Apache rewrite */
	const char *request_id;
	const char *content_length, *transfer_encoding;
	int64_t answer_by_us; /* a deadline if the process is stopping, else REQUEST_NO_HASTE */
	enum err body;        /* ERR_OK, ERR_BODY_TOO_LARGE or ERR_BODY_INCOMPLETE */
};

/* Picks the variables out of a NULL-terminated array of "NAME=value"; of several with one name
   the first counts. */
void request_read_variables(struct request *request, char *const *variables);

/* Wipes what such an array holds of callers' keys; what was picked out of it is gone, too. */
void request_wipe_keys(char **variables);

/* The announced length of the body: a number, or one of the two below. */
#define REQUEST_LENGTH_NONE (-1) /* absent or empty */
#define REQUEST_LENGTH_BAD  (-2) /* not a number */
int64_t request_content_length(const struct request *request);

/* What to make of a body of which `received` bytes came, `whole` if its end was seen. */
enum err request_judge_body(const struct request *request, int64_t received, bool whole);

#endif
