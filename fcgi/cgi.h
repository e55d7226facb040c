/* cgi.h: the one request of a plain CGI process: environment, standard input and output. */
#ifndef WARMUP_CGI_H
#define WARMUP_CGI_H

#include "answer.h"
#include "err.h"
#include "request.h"

#include <stdbool.h>

/* Whether a web server (or a script) started this process for one request. */
bool cgi_is_request(void);

void cgi_receive(struct request *request);

/* ERR_IO if nobody reads the answer any more. */
enum err cgi_send(const struct answer *answer) MUST_CHECK;

#endif
