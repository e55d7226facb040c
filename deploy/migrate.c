/*
 * migrate.c: warmupctl migrate: applies the files of deploy/schema/ in the order of their numbers.
 *
 * Each is applied in one transaction with the note that it was, in warmup_migrations; a file that
 * is noted is left alone, one that somebody applied with psql is applied again, without harm.
 */
#include "clock.h"
#include "command.h"
#include "json.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1024 * 1024)
#define APPLY_MS       (60 * 60 * 1000) /* an index on a large table takes its time */
#define ROLE_FILE      "responder_role.sql"

/* Where the files are, seen from the program's own folder: installed, and in the source tree. */
static const char *const places[] = { "../share/warmup/schema", "../deploy/schema",
	"../../deploy/schema" };

/* One migration at a time; the number is "warm" in ASCII. */
#define PROLOGUE                                                                                   \
	"SELECT pg_advisory_xact_lock(2002874989);"                                                \
	"CREATE TABLE IF NOT EXISTS warmup_migrations"                                             \
	" (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());\n"

static const struct db_statement noted = { "migration_noted",
	"SELECT name::text FROM warmup_migrations WHERE name = $1", 1 };

enum outcome { APPLIED, PRESENT, FAILED };

static int
is_migration(const struct dirent *entry)
{
	const char *name = entry->d_name;
	size_t len = strlen(name);

	/* The name goes into SQL: nothing but these characters. */
	return len > 9 && strspn(name, "0123456789") == 4 && name[4] == '_' &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len - 4 &&
		strcmp(name + len - 4, ".sql") == 0;
}

/* The folder with the files: the one that was asked for, or the first place that exists. */
static bool
find_folder(const char *wanted, char folder[PATH_MAX])
{
	char self[PATH_MAX], *slash;
	ssize_t len;
	size_t i;

	if (wanted != NULL) {
		snprintf(folder, PATH_MAX, "%s", wanted);
		return access(folder, R_OK | X_OK) == 0;
	}
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len <= 0)
		return false;
	self[len] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (snprintf(folder, PATH_MAX, "%s/%s", self, places[i]) < PATH_MAX &&
			access(folder, R_OK | X_OK) == 0)
			return true;
	}
	return false;
}

/* Appends a whole file. */
static enum err
read_file(const char *folder, const char *name, struct buf *sql)
{
	char path[PATH_MAX], part[8192];
	FILE *file;
	size_t got;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return ERR_TOO_LONG;
	file = fopen(path, "re");
	if (file == NULL)
		return ERR_IO;
	do {
		got = fread(part, 1, sizeof(part), file);
		buf_add(sql, part, got);
	} while (got == sizeof(part));
	got = (size_t)ferror(file);
	fclose(file);
	return got != 0 ? ERR_IO : buf_check(sql);
}

/* Whether a file was applied before.  Without the table of notes: no. */
static bool
is_noted(const struct tool *tool, const char *name)
{
	const struct db_param params[] = { { name, 0 } };
	struct db_result *result = NULL;
	enum err err = db_run(
		tool->db, &noted, params, clock_deadline_us(tool->config->db_timeout_ms), &result);
	bool is = err == ERR_OK && db_rows(result) > 0;

	db_result_free(result);
	return is;
}

static enum outcome
apply(const struct tool *tool, const char *folder, const char *name, bool note)
{
	char message[1024] = "it is too long";
	struct buf sql;
	enum err err;

	if (note && is_noted(tool, name))
		return PRESENT;
	buf_init(&sql, FILE_MAX_BYTES);
	buf_puts(&sql, PROLOGUE);
	err = read_file(folder, name, &sql);
	if (err != ERR_OK) {
		fprintf(stderr, "warmupctl: %s/%s cannot be read\n", folder, name);
	} else {
		if (note)
			buf_printf(&sql,
				"\n;INSERT INTO warmup_migrations (name) VALUES ('%s')"
				" ON CONFLICT DO NOTHING",
				name);
		err = buf_check(&sql);
		if (err == ERR_OK)
			err = db_script(tool->db, buf_text(&sql), clock_deadline_us(APPLY_MS),
				message, sizeof(message));
		if (err != ERR_OK)
			fprintf(stderr, "warmupctl: %s was not applied: %s\n", name, message);
	}
	buf_free(&sql);
	return err == ERR_OK ? APPLIED : FAILED;
}

static void
report(const struct tool *tool, struct buf *document, const char *name, enum outcome outcome)
{
	static const char *const words[] = { "applied", "already applied", "failed" };

	if (!tool->json) {
		printf("%-28s %s\n", name, words[outcome]);
		return;
	}
	json_open(document, '{');
	json_key(document, "file");
	json_text(document, name);
	json_key(document, "result");
	json_text(document, words[outcome]);
	json_close(document, '}');
}

/* Makes sure that asking for notes is no error, which would be logged as one. */
static bool
prepare_notes(const struct tool *tool)
{
	char message[1024];

	if (db_script(tool->db, PROLOGUE, clock_deadline_us(APPLY_MS), message, sizeof(message)) ==
		ERR_OK)
		return true;
	fprintf(stderr, "warmupctl: migrate: %s\n", message);
	return false;
}

int
migrate_run(const struct tool *tool, const struct options *options)
{
	char folder[PATH_MAX];
	struct dirent **files = NULL;
	struct buf document;
	enum outcome outcome = APPLIED;
	int count, i;

	count = find_folder(options->schema, folder) ?
		scandir(folder, &files, is_migration, alphasort) :
		-1;
	if (count <= 0) {
		fputs("warmupctl: migrate: no schema files found; name their folder with --schema\n",
			stderr);
		free(files);
		return EXIT_FAILED;
	}
	if (!prepare_notes(tool))
		outcome = FAILED;
	buf_init(&document, FILE_MAX_BYTES);
	json_open(&document, '{');
	json_key(&document, "migrations");
	json_open(&document, '[');
	for (i = 0; i < count; i++) {
		if (outcome != FAILED) {
			outcome = apply(tool, folder, files[i]->d_name, true);
			report(tool, &document, files[i]->d_name, outcome);
		}
		free(files[i]);
	}
	free(files);
	if (outcome != FAILED && options->role) {
		outcome = apply(tool, folder, ROLE_FILE, false);
		report(tool, &document, ROLE_FILE, outcome);
	}
	json_close(&document, ']');
	json_close(&document, '}');
	if (tool->json)
		puts(buf_text(&document));
	buf_free(&document);
	return outcome == FAILED ? EXIT_FAILED : EXIT_DONE;
}
