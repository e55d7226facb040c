/* request_id.h: the id under which a request is answered and logged. */
#ifndef WARMUP_REQUEST_ID_H
#define WARMUP_REQUEST_ID_H

#include "request.h"
#include "uuid.h"

/* One worker's stock of random bytes, so that the kernel is asked once in 16 requests. */
struct request_ids {
	unsigned char random[16 * UUID_BYTES];
	size_t left; /* bytes not yet used, at the end */
};

/* The caller's own id if it is 1 to 64 characters of A-Za-z0-9._-, else a fresh UUID. */
void request_id_choose(
	struct request_ids *ids, const char *callers, char id[REQUEST_ID_TEXT_MAX + 1]);

#endif
