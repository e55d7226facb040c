/*
 * environment.c: see environment.h.  The manual page names what is in these tables.
 */
#include "environment.h"

#include <stddef.h>
#include <stdlib.h>

static const char *const unwanted[] = {
	"SSLKEYLOGFILE", /* libcurl would write the keys of each TLS session into that file */
	"PGOPTIONS",     /* could change the schema, or make us read-only; poolers refuse it */
	"PGHOSTADDR",    /* leads elsewhere than to the host that DATABASE_URL names */
	"PGSERVICE",     /* the same; DATABASE_URL may name a service itself */
	/* Sent to the server with each connection: useless to us, and a wrong one ends it. */
	"PGDATESTYLE",
	"PGTZ",
	"PGGEQO",
};

void
environment_prepare(void)
{
	size_t i;

	for (i = 0; i < sizeof(unwanted) / sizeof(unwanted[0]); i++)
		unsetenv(unwanted[i]); /* before any thread: NOLINT(concurrency-mt-unsafe) */
	/* libpq resolves names without a time limit of ours: by default that may take 30 s.
	   NOLINTNEXTLINE(concurrency-mt-unsafe) */
	setenv("RES_OPTIONS", "timeout:1 attempts:2", 0);
}
