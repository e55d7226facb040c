/*
 * warmupctl.c: the operator's tool: finds the command in the table, reads its options, opens the
 * database.  A command is a row here and a function in its own file.
 */
#include "command.h"

#include "clock.h"
#include "environment.h"
#include "log.h"
#include "version.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum {
	TAKES_USER = 1,
	TAKES_NAME = 2,
	TAKES_SCHEMA = 4,
	TAKES_ROLE = 8,
	TAKES_URL = 16,
	TAKES_KEY_FILE = 32,
	TAKES_OPERAND = 64
};

/* Whether a command gets the settings and an open database, or not even starts. */
enum needs { NEEDS_NOTHING, NEEDS_DATABASE };

struct command {
	const char *words[2];
	unsigned takes;
	enum needs needs;
	int (*run)(const struct tool *tool, const struct options *options);
	const char *usage;
	const char *what;
};

static const struct command commands[] = {
	{ { "migrate", NULL }, TAKES_SCHEMA | TAKES_ROLE, NEEDS_DATABASE, migrate_run,
		"migrate [--schema DIR] [--role] [--json]",
		"Creates or completes the tables and indexes; may be run again at any time.\n"
		"  --schema DIR  the folder with the NNNN_*.sql files; found by itself otherwise\n"
		"  --role        also makes the least-privilege role warmup_responder\n" },
	{ { "key", "add" }, TAKES_USER | TAKES_NAME, NEEDS_DATABASE, key_add_run,
		"key add --user UUID [--name TEXT] [--json]",
		"Makes an API key for a user and prints it, this once.\n"
		"  --user UUID   whose accounts the key may retry\n"
		"  --name TEXT   a note on what the key is for\n" },
	{ { "key", "list" }, TAKES_USER, NEEDS_DATABASE, key_list_run,
		"key list [--user UUID] [--json]",
		"Lists the keys, oldest first; of each only the prefix is known.\n"
		"  --user UUID   only this user's\n" },
	{ { "key", "revoke" }, TAKES_OPERAND, NEEDS_DATABASE, key_revoke_run,
		"key revoke PREFIX_OR_ID [--json]",
		"Revokes a key, from this moment on; one that is revoked already stays so.\n"
		"  PREFIX_OR_ID  the key's id, or at least 12 characters of its prefix\n" },
	{ { "doctor", NULL }, TAKES_URL | TAKES_KEY_FILE, NEEDS_NOTHING, doctor_run,
		"doctor [--url URL] [--key-file FILE] [--json]",
		"Checks the responder's settings, database and Instantly, and changes nothing.\n"
		"Run it with the responder's own settings; each problem comes with what to do.\n"
		"  --url URL        also look through the web server; the route lies behind this\n"
		"  --key-file FILE  a customer's key, to see that it arrives; - is standard input\n" },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct option long_options[] = {
	{ "user", required_argument, NULL, TAKES_USER },
	{ "name", required_argument, NULL, TAKES_NAME },
	{ "schema", required_argument, NULL, TAKES_SCHEMA },
	{ "role", no_argument, NULL, TAKES_ROLE },
	{ "url", required_argument, NULL, TAKES_URL },
	{ "key-file", required_argument, NULL, TAKES_KEY_FILE },
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static void
print_overview(FILE *to)
{
	size_t i;

	fputs("warmupctl: looks after warmup.fcgi: its database, its keys, its deployment\n\n", to);
	for (i = 0; i < COMMANDS; i++)
		fprintf(to, "  warmupctl %s\n", commands[i].usage);
	fputs("\n  warmupctl COMMAND --help    what a command does\n"
	      "  warmupctl --version\n\n"
	      "DATABASE_URL comes from the environment or from the settings file (WARMUP_CONFIG).\n"
	      "--json prints one JSON document. Exit status: 0 done, 1 failed, 2 wrong usage.\n",
		to);
}

static void
print_help(const struct command *command)
{
	printf("usage: warmupctl %s\n\n%s  --json        one JSON document, for scripts\n",
		command->usage, command->what);
}

/* Finds the command and how many words it took. */
static const struct command *
find_command(int argc, char **argv, int *words)
{
	size_t i;

	for (i = 0; i < COMMANDS; i++) {
		const char *second = commands[i].words[1];

		if (argc < 2 || strcmp(argv[1], commands[i].words[0]) != 0)
			continue;
		if (second != NULL && (argc < 3 || strcmp(argv[2], second) != 0))
			continue;
		*words = second != NULL ? 2 : 1;
		return &commands[i];
	}
	return NULL;
}

/* Reads what follows the command's words.  False if that is not what it takes; *help is set if
   help was asked for. */
static bool
read_options(const struct command *command, int argc, char **argv, struct options *options,
	bool *json, bool *help)
{
	int got;

	while ((got = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (got == '?' || (got < TAKES_OPERAND && (command->takes & (unsigned)got) == 0))
			return false;
		switch (got) {
		case TAKES_USER:
			options->user = optarg;
			break;
		case TAKES_NAME:
			options->name = optarg;
			break;
		case TAKES_SCHEMA:
			options->schema = optarg;
			break;
		case TAKES_URL:
			options->url = optarg;
			break;
		case TAKES_KEY_FILE:
			options->key_file = optarg;
			break;
		case TAKES_ROLE:
			options->role = true;
			break;
		case 'j':
			*json = true;
			break;
		default:
			*help = true;
			break;
		}
	}
	if (optind < argc && (command->takes & TAKES_OPERAND) != 0)
		options->operand = argv[optind++];
	return optind == argc;
}

static bool
load_settings(struct config *config)
{
	struct buf problems;
	enum err err;

	buf_init(&problems, 64 * 1024);
	err = config_load(config, CONFIG_NEED_DATABASE, &problems);
	fputs(buf_text(&problems), stderr);
	buf_free(&problems);
	return err == ERR_OK;
}

/* Opens the database and makes sure that it answers. */
static bool
open_database(const struct config *config, struct db **db)
{
	const struct db_options options = { config->database_url, 1, false, 0, NULL, 0 };

	return db_open(&options, db) == ERR_OK &&
		db_ping(*db, clock_deadline_us(config->db_timeout_ms)) == ERR_OK;
}

/* Runs a command on the settings' database. */
static int
run_on_database(const struct command *command, const struct options *options, bool json)
{
	struct config config;
	struct db *db = NULL;
	int status = EXIT_FAILED;

	if (load_settings(&config) && open_database(&config, &db)) {
		const struct tool tool = { &config, db, json };

		status = command->run(&tool, options);
	}
	db_close(db);
	config_wipe(&config);
	return status;
}

static int
run(const struct command *command, const struct options *options, bool json)
{
	const struct tool alone = { NULL, NULL, json };
	int status = command->needs == NEEDS_DATABASE ? run_on_database(command, options, json) :
							command->run(&alone, options);

	if (fflush(stdout) != 0)
		status = EXIT_FAILED;
	return status;
}

int
main(int argc, char **argv)
{
	struct options options = { 0 };
	const struct command *command;
	bool json = false, help = false;
	int words = 0;

	log_set_plain("warmupctl");
	environment_prepare();
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("warmupctl " WARMUP_VERSION);
		return EXIT_DONE;
	}
	command = find_command(argc, argv, &words);
	if (command == NULL) {
		bool asked = argc > 1 &&
			(strcmp(argv[argc - 1], "--help") == 0 ||
				strcmp(argv[argc - 1], "-h") == 0);

		print_overview(asked ? stdout : stderr);
		return asked ? EXIT_DONE : EXIT_MISUSED;
	}
	argv[words] = argv[0]; /* getopt's messages begin with it */
	if (!read_options(command, argc - words, argv + words, &options, &json, &help)) {
		fprintf(stderr, "usage: warmupctl %s\n", command->usage);
		return EXIT_MISUSED;
	}
	if (help) {
		print_help(command);
		return EXIT_DONE;
	}
	return run(command, &options, json);
}
