/* request_id.c: see request_id.h. */
#include "request_id.h"

#include <string.h>
#include <sys/random.h>

static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

void
request_id_choose(struct request_ids *ids, const char *callers, char id[REQUEST_ID_TEXT_MAX + 1])
{
	size_t len = callers != NULL ? strspn(callers, allowed) : 0;

	if (len >= 1 && len <= REQUEST_ID_TEXT_MAX && callers[len] == '\0') {
		memcpy(id, callers, len + 1);
		return;
	}
	if (ids->left == 0) {
		/* 256 bytes or fewer never come short, and an id is no secret. */
		if (getrandom(ids->random, sizeof(ids->random), 0) < 0)
			memset(ids->random, 0, sizeof(ids->random));
		ids->left = sizeof(ids->random);
	}
	uuid_from_random(ids->random + sizeof(ids->random) - ids->left, id);
	ids->left -= UUID_BYTES;
}
