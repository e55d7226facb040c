/*
 * command.h: a command of warmupctl: what it is called, what it is told, what it returns.
 */
#ifndef WARMUP_COMMAND_H
#define WARMUP_COMMAND_H

#include "config.h"
#include "db.h"

#include <stdbool.h>

/* Exit statuses. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_MISUSED = 2 };

/* What all commands share. */
struct tool {
	const struct config *config;
	struct db *
		db; /* open and known to answer; both NULL for a command that sees to that itself */
	bool json;  /* for scripts: one JSON document on standard output */
};

/* The options of a command line, by name; each command's table row says which it takes. */
struct options {
	const char *user, *name, *schema, *url, *key_file;
	bool role;
	const char *operand; /* what is no option: at most one */
};

int migrate_run(const struct tool *tool, const struct options *options);
int key_add_run(const struct tool *tool, const struct options *options);
int key_list_run(const struct tool *tool, const struct options *options);
int key_revoke_run(const struct tool *tool, const struct options *options);
int doctor_run(const struct tool *tool, const struct options *options);

#endif
