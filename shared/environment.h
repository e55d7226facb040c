/*
 * environment.h: what the process's environment may do to the libraries beneath us.
 *
 * They read variables of their own.  Most are the operator's word and stay: PGHOST, PGSSLMODE,
 * PGPASSFILE and their like fill in what DATABASE_URL leaves open, OPENSSL_CONF is the system's
 * policy.  What would give keys away, or change behind DATABASE_URL's back where we connect or what
 * our statements mean, is taken away.
 */
#ifndef WARMUP_ENVIRONMENT_H
#define WARMUP_ENVIRONMENT_H

/* First thing in main(), before any library is called and any thread is started. */
void environment_prepare(void);

#endif
