/*
 * config.h: the settings: one table of what exists, one way to read them.
 *
 * Each setting comes from the process environment, else from the settings file, else from the
 * table's default.  Never from a request.  Problems are named by setting, never by value, because
 * a value may be a secret.
 */
#ifndef WARMUP_CONFIG_H
#define WARMUP_CONFIG_H

#include "buf.h"
#include "err.h"

#include <stddef.h>

/* A libpq string with several hosts and options; longer than any seen in use. */
#define CONFIG_DATABASE_URL_MAX 4096
#define CONFIG_KEY_MAX          512
#define CONFIG_URL_MAX          1024
#define CONFIG_PATH_MAX         4096
#define CONFIG_WORKERS_MAX      1024
#define CONFIG_CONNECTIONS_MAX  256

struct config {
	char database_url[CONFIG_DATABASE_URL_MAX + 1]; /* secret: may hold a password */
	char instantly_api_key[CONFIG_KEY_MAX + 1];     /* secret */
	char instantly_api_url[CONFIG_URL_MAX + 1];     /* without a slash at its end */
	char instantly_ca_file[CONFIG_PATH_MAX + 1];    /* "" = the system's */
	char file[CONFIG_PATH_MAX + 1];                 /* the settings file read, "" = none */
	int workers;
	int db_connections;
	int db_prepared; /* boolean */
	int db_timeout_ms;
	int upstream_connect_timeout_ms;
	int upstream_timeout_ms;
	int job_wait_ms;
	int log_level; /* enum log_level */
};

/* Which of the required settings a program cannot do without. */
enum config_need { CONFIG_NEED_DATABASE = 1, CONFIG_NEED_UPSTREAM = 2 };

/*
 * Fills config.  On ERR_CONFIG problems holds one line for each setting that is missing, unknown
 * or malformed; on ERR_OK it may hold warnings, one a line.
 */
enum err config_load(struct config *config, unsigned needs, struct buf *problems) MUST_CHECK;

/* Wipes the secrets. */
void config_wipe(struct config *config);

#endif
