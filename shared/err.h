/*
 * err.h: every way in which something can fail, in one enum.
 *
 * Everything that can fail returns enum err and is checked on the next line.  Whoever detects a
 * fault logs its detail once; callers only pass the code up.  The table in err.c says what a
 * caller of the API is told.
 */
#ifndef WARMUP_ERR_H
#define WARMUP_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
	ERR_OK = 0,

	/* What a caller may be told. */
	ERR_INVALID_ID,           /* {id} is not a UUID of the documented form */
	ERR_BODY_INCOMPLETE,      /* fewer or more body bytes than announced */
	ERR_UNAUTHORIZED,         /* no key, a malformed, an unknown or a revoked one */
	ERR_NO_ROUTE,             /* no such path */
	ERR_NO_ACCOUNT,           /* absent, somebody else's, or not an email account */
	ERR_METHOD_NOT_ALLOWED,   /* known path, other method */
	ERR_NOT_STUCK,            /* the gate: the account is in another state */
	ERR_NO_ADDRESS,           /* stuck, but there is no address to warm up */
	ERR_MOVED_MEANWHILE,      /* somebody else moved the row while we called Instantly */
	ERR_BODY_TOO_LARGE,       /* over REQUEST_BODY_MAX */
	ERR_NOT_CONFIRMED,        /* Instantly accepted, the row's move is not confirmed */
	ERR_INTERNAL,             /* what should never happen */
	ERR_CONFIG,               /* a setting is missing, unknown or malformed */
	ERR_UPSTREAM_REJECTED,    /* Instantly answered no */
	ERR_UPSTREAM_UNAVAILABLE, /* no usable answer from Instantly */
	ERR_UNAVAILABLE,          /* no database connection, or no answer from it */

	/* What only modules tell each other. */
	ERR_DB_LOST,    /* sent, then the connection or our patience ended: outcome unknown */
	ERR_DB_AGAIN,   /* certainly not done; the same statement may succeed later */
	ERR_DB_REFUSED, /* certainly not done; repeating it would not help */
	ERR_TOO_LONG,   /* over a buffer's stated maximum */
	ERR_NO_MEMORY,
	ERR_IO,      /* a file or descriptor could not be read or written */
	ERR_STOPPED, /* there is no next request: the process is stopping */
	ERR_MAX
};

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_LEVEL_MAX };

struct err_info {
	const char *name;    /* for logs and tests */
	int status;          /* HTTP status */
	const char *code;    /* error.code of the answer */
	const char *message; /* error.message of the answer: what happened, what to do next */
	enum log_level level;
};

/* The row of an err; an unknown value gives the row of ERR_INTERNAL.  Never NULL. */
const struct err_info *err_info(enum err err);

#endif
