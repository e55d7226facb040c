/*
 * config.c: see config.h.  A new setting is a row of the table, a member of struct config, a line
 * in deploy/warmup.conf.example and one in the manual; a test compares them.
 */
#include "config.h"

#include "config_line.h"
#include "db.h"
#include "http.h"
#include "log.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (64 * 1024)
#define NAME_SHOWN_MAX 64
#define WAIT_MAX_MS    600000 /* no web server waits longer than ten minutes */
#define SYSTEM_FILE    "/etc/warmup/warmup.conf"
#define USER_FILE      ".config/warmup/warmup.conf"

enum kind { KIND_TEXT, KIND_INT, KIND_ON_OFF, KIND_LEVEL };

struct setting {
	const char *name;
	enum kind kind;
	unsigned need; /* enum config_need: required for that, 0 = optional */
	const char *fallback;
	size_t offset;
	size_t size;                    /* of a text member */
	int min, max;                   /* of a number */
	const char *expects;            /* completes "NAME: must be …" */
	enum err (*check)(char *value); /* may shorten the value in place */
};

static enum err check_key(char *value);

#define MEMBER(member)        offsetof(struct config, member)
#define TEXT(member)          MEMBER(member), sizeof(((struct config *)NULL)->member), 0, 0
#define INT(member, min, max) MEMBER(member), 0, min, max

static const struct setting settings[] = {
	{ "DATABASE_URL", KIND_TEXT, CONFIG_NEED_DATABASE, NULL, TEXT(database_url),
		"a PostgreSQL connection URI or keyword string", db_url_check },
	{ "INSTANTLY_API_KEY", KIND_TEXT, CONFIG_NEED_UPSTREAM, NULL, TEXT(instantly_api_key),
		"1 to 512 printable characters without spaces", check_key },
	{ "INSTANTLY_API_URL", KIND_TEXT, 0, "https://api.instantly.ai/api/v2",
		TEXT(instantly_api_url),
		"an https:// address (http:// only to this machine) without user, query or fragment",
		http_base_url_check },
	{ "INSTANTLY_CA_FILE", KIND_TEXT, 0, "", TEXT(instantly_ca_file), "a file's path", NULL },
	{ "WARMUP_WORKERS", KIND_INT, 0, "32", INT(workers, 1, CONFIG_WORKERS_MAX),
		"a whole number", NULL },
	{ "WARMUP_DB_CONNECTIONS", KIND_INT, 0, "8", INT(db_connections, 1, CONFIG_CONNECTIONS_MAX),
		"a whole number", NULL },
	{ "WARMUP_DB_PREPARED", KIND_ON_OFF, 0, "on", INT(db_prepared, 0, 1), "on or off", NULL },
	{ "WARMUP_DB_TIMEOUT_MS", KIND_INT, 0, "5000", INT(db_timeout_ms, 1, WAIT_MAX_MS),
		"a whole number", NULL },
	{ "WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS", KIND_INT, 0, "3000",
		INT(upstream_connect_timeout_ms, 1, WAIT_MAX_MS), "a whole number", NULL },
	{ "WARMUP_UPSTREAM_TIMEOUT_MS", KIND_INT, 0, "10000",
		INT(upstream_timeout_ms, 1, WAIT_MAX_MS), "a whole number", NULL },
	{ "WARMUP_JOB_WAIT_MS", KIND_INT, 0, "1500", INT(job_wait_ms, 0, WAIT_MAX_MS),
		"a whole number", NULL },
	{ "WARMUP_LOG_LEVEL", KIND_LEVEL, 0, "info", INT(log_level, 0, 0),
		"debug, info, warn or error", NULL },
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* The file's own name: a setting too, but only of the environment. */
static const char config_name[] = "WARMUP_CONFIG";

/* What the file says, by the row's number; the values lie in the text. */
struct file_values {
	const char *value[SETTINGS];
	int line[SETTINGS];
	char text[FILE_MAX_BYTES];
};

/* Header text, so nothing that could end the header: the key goes into one unescaped. */
static enum err
check_key(char *value) /* as all in the table: NOLINT(readability-non-const-parameter) */
{
	size_t i;

	for (i = 0; value[i] != '\0'; i++)
		if (value[i] <= ' ' || value[i] > '~')
			return ERR_CONFIG;
	return i > 0 ? ERR_OK : ERR_CONFIG;
}

static int
find_setting(const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < SETTINGS; i++)
		if (strncmp(settings[i].name, name, len) == 0 && settings[i].name[len] == '\0')
			return (int)i;
	return -1;
}

/* Whether a name looks like one of ours, so that a misspelt one is reported. */
static int
is_ours(const char *name)
{
	return strncmp(name, "WARMUP_", 7) == 0 || strncmp(name, "INSTANTLY_", 10) == 0;
}

static enum err
set_number(const struct setting *row, const char *value, int *target)
{
	long number = 0;
	const char *digit;

	if (value[0] == '\0' || strlen(value) > 9)
		return ERR_CONFIG;
	for (digit = value; *digit != '\0'; digit++) {
		if (*digit < '0' || *digit > '9')
			return ERR_CONFIG;
		number = number * 10 + (*digit - '0');
	}
	if (number < row->min || number > row->max)
		return ERR_CONFIG;
	*target = (int)number;
	return ERR_OK;
}

static enum err
set_value(struct config *config, const struct setting *row, const char *value)
{
	char *member = (char *)config + row->offset;
	/* The row says that an int is there. NOLINTNEXTLINE(bugprone-casting-through-void) */
	int *number = (int *)(void *)member;

	switch (row->kind) {
	case KIND_INT:
		return set_number(row, value, number);
	case KIND_ON_OFF:
		if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
			return ERR_CONFIG;
		*number = value[1] == 'n';
		return ERR_OK;
	case KIND_LEVEL:
		*number = log_level_parse(value);
		return *number >= 0 ? ERR_OK : ERR_CONFIG;
	case KIND_TEXT:
		break;
	}
	if (strlen(value) >= row->size)
		return ERR_CONFIG;
	memcpy(member, value, strlen(value) + 1);
	return row->check != NULL ? row->check(member) : ERR_OK;
}

static void
explain(struct buf *problems, const struct setting *row, const char *file, int line)
{
	buf_printf(problems, "%s: must be %s", row->name, row->expects);
	if (row->kind == KIND_INT)
		buf_printf(problems, " from %d to %d", row->min, row->max);
	if (line > 0)
		buf_printf(problems, " (%s, line %d)", file, line);
	buf_puts(problems, "\n");
}

/* One line of the file; notes what is wrong with it. */
static void
read_line(
	char *line, int number, struct file_values *values, const char *file, struct buf *problems)
{
	const char *name, *value;
	enum config_line kind = config_line_read(line, &name, &value);
	int row = find_setting(name, strlen(name));

	if (kind == CONFIG_LINE_EMPTY)
		return;
	/* Not even the name is told: where the '=' is missing, it holds the value. */
	if (kind == CONFIG_LINE_NO_SETTING) {
		buf_printf(problems, "%s, line %d: not of the form NAME=value\n", file, number);
		return;
	}
	/* Of other programs' names, too: such a line may swallow the next one, perhaps one of ours. */
	if (kind == CONFIG_LINE_UNCLEAR && row < 0) {
		buf_printf(problems, "%s, line %d: quotes or backslash not understood\n", file,
			number);
		return;
	}
	if (kind == CONFIG_LINE_UNCLEAR) {
		buf_printf(problems,
			"%s: quotes or backslash not understood; try single quotes (%s, line %d)\n",
			name, file, number);
		return;
	}
	if (row < 0) {
		if (is_ours(name))
			buf_printf(problems, "%.64s: no such setting (%s, line %d)\n", name, file,
				number);
		return;
	}
	values->value[row] = value; /* as in systemd, the last one counts */
	values->line[row] = number;
}

/* The file that counts: the named one, else the first default that exists; "" for none. */
static void
choose_file(struct config *config)
{
	const char *named = getenv(config_name);
	const struct passwd *account;

	config->file[0] = '\0';
	if (named != NULL && named[0] != '\0') {
		snprintf(config->file, sizeof(config->file), "%s", named);
		return;
	}
	/* Not $HOME: under a web server it is absent or somebody else's. */
	account = getpwuid(geteuid());
	if (account != NULL && account->pw_dir != NULL) {
		snprintf(config->file, sizeof(config->file), "%s/" USER_FILE, account->pw_dir);
		if (access(config->file, F_OK) == 0)
			return;
	}
	snprintf(config->file, sizeof(config->file), "%s", SYSTEM_FILE);
	if (access(config->file, F_OK) != 0)
		config->file[0] = '\0';
}

static void
read_lines(struct file_values *values, const char *file, struct buf *problems)
{
	char *line, *next = values->text;
	int number = 0;

	while ((line = strsep(&next, "\n")) != NULL)
		read_line(line, ++number, values, file, problems);
}

static void
read_file(
	struct config *config, struct file_values *values, struct buf *problems, struct buf *hints)
{
	char *text = values->text;
	struct stat status;
	size_t len;
	FILE *file;

	choose_file(config);
	if (config->file[0] == '\0')
		return;
	file = fopen(config->file, "re");
	if (file == NULL && errno == EACCES && getenv(config_name) == NULL) {
		/* systemd may have read it for us as root, and all is in the environment. */
		buf_printf(hints, "%s is not readable for this account and was left out\n",
			config->file);
		return;
	}
	if (file == NULL || fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode)) {
		buf_printf(problems, "%s: settings file %s cannot be read (%s)\n", config_name,
			config->file, file == NULL ? strerror(errno) : "not a regular file");
		if (file != NULL)
			fclose(file);
		return;
	}
	if ((status.st_mode & S_IROTH) != 0)
		buf_printf(
			hints, "%s is readable by everyone; run chmod o-r on it\n", config->file);
	setvbuf(file, NULL, _IONBF, 0); /* a buffer would be freed with the secrets in it */
	len = fread(text, 1, FILE_MAX_BYTES - 1, file);
	text[len] = '\0';
	if (len == FILE_MAX_BYTES - 1 || memchr(text, '\0', len) != NULL)
		buf_printf(problems, "%s is too long, or no text\n", config->file);
	else
		read_lines(values, config->file, problems);
	fclose(file);
}

/* Reports names in the environment that look like ours and do not exist. */
static void
check_environment(struct buf *problems)
{
	char **entry;

	for (entry = environ; entry != NULL && *entry != NULL; entry++) {
		size_t len = strcspn(*entry, "=");

		if (is_ours(*entry) && find_setting(*entry, len) < 0 &&
			(strncmp(*entry, config_name, len) != 0 || config_name[len] != '\0'))
			buf_printf(problems, "%.*s: no such setting (environment)\n",
				len < NAME_SHOWN_MAX ? (int)len : NAME_SHOWN_MAX, *entry);
	}
}

static void
apply(struct config *config, const struct setting *row, const char *in_file, int line,
	unsigned needs, struct buf *problems)
{
	const char *value = getenv(row->name);
	enum err err;

	/* An empty value means: not set. */
	if (value != NULL && value[0] != '\0')
		line = 0;
	else
		value = in_file;
	if (value == NULL || value[0] == '\0')
		value = row->fallback;
	if (value == NULL) {
		if ((row->need & needs) != 0)
			buf_printf(
				problems, "%s: missing; set it to %s\n", row->name, row->expects);
		return;
	}
	err = set_value(config, row, value);
	if (err == ERR_NO_MEMORY)
		problems->err = err;
	else if (err != ERR_OK)
		explain(problems, row, config->file, line);
}

enum err
config_load(struct config *config, unsigned needs, struct buf *problems)
{
	struct file_values values;
	struct buf hints;
	enum err err = ERR_OK;
	size_t i;

	memset(config, 0, sizeof(*config));
	memset(&values, 0, sizeof(values));
	buf_init(&hints, CONFIG_PATH_MAX + 256);
	read_file(config, &values, problems, &hints);
	check_environment(problems);
	for (i = 0; i < SETTINGS; i++)
		apply(config, &settings[i], values.value[i], values.line[i], needs, problems);
	explicit_bzero(values.text, sizeof(values.text));
	if (problems->len > 0 || buf_check(problems) != ERR_OK)
		err = buf_check(problems) == ERR_NO_MEMORY ? ERR_NO_MEMORY : ERR_CONFIG;
	buf_puts(problems, buf_text(&hints));
	buf_free(&hints);
	return err;
}

void
config_wipe(struct config *config)
{
	explicit_bzero(config->database_url, sizeof(config->database_url));
	explicit_bzero(config->instantly_api_key, sizeof(config->instantly_api_key));
}
