/*
 * fuzz_settings.c: any text as the settings file.
 *
 * Properties:
 *   - problems are told by setting, file and line alone: every line of the report is one of the few
 *     that there are, word by word, so no value can be in it;
 *   - a file that is accepted is read as systemd's EnvironmentFile reads it, by an independent
 *     reading of what systemd documents and does;
 *   - reading it again gives the same;
 *   - settings that were accepted, written out as a file, are read back the same.
 */
#include "fuzz.h"
#include "reference_json.h"

#include "config.h"
#include "log.h"

#include <ctype.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALUE_MAX (64 * 1024)

/* The settings by the contract, and how a wrong one is told. */
static const struct {
	const char *name, *told;
	size_t offset;
	enum { TEXT, NUMBER, ON_OFF, LEVEL } kind;
} settings[] = {
#define ROW(name, told, member, kind)                                                              \
	{                                                                                          \
		name, told, offsetof(struct config, member), kind                                  \
	}
	ROW("DATABASE_URL", "a PostgreSQL connection URI or keyword string", database_url, TEXT),
	ROW("INSTANTLY_API_KEY", "1 to 512 printable characters without spaces", instantly_api_key,
		TEXT),
	ROW("INSTANTLY_API_URL",
		"an https:// address (http:// only to this machine) without user, query or "
		"fragment",
		instantly_api_url, TEXT),
	ROW("INSTANTLY_CA_FILE", "a file's path", instantly_ca_file, TEXT),
	ROW("WARMUP_WORKERS", "a whole number from 1 to 1024", workers, NUMBER),
	ROW("WARMUP_DB_CONNECTIONS", "a whole number from 1 to 256", db_connections, NUMBER),
	ROW("WARMUP_DB_PREPARED", "on or off", db_prepared, ON_OFF),
	ROW("WARMUP_DB_TIMEOUT_MS", "a whole number from 1 to 600000", db_timeout_ms, NUMBER),
	ROW("WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS", "a whole number from 1 to 600000",
		upstream_connect_timeout_ms, NUMBER),
	ROW("WARMUP_UPSTREAM_TIMEOUT_MS", "a whole number from 1 to 600000", upstream_timeout_ms,
		NUMBER),
	ROW("WARMUP_JOB_WAIT_MS", "a whole number from 0 to 600000", job_wait_ms, NUMBER),
	ROW("WARMUP_LOG_LEVEL", "debug, info, warn or error", log_level, LEVEL),
#undef ROW
};

static int file;
static char file_name[64];

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	file = memfd_create("settings", MFD_CLOEXEC);
	if (file < 0 || fchmod(file, 0600) != 0)
		abort();
	snprintf(file_name, sizeof(file_name), "/proc/self/fd/%d", file);
	clearenv();
	setenv("WARMUP_CONFIG", file_name, 1);
	return 0;
}

static enum err
load(const char *text, size_t len, struct config *config, struct buf *problems)
{
	if (ftruncate(file, 0) != 0 || pwrite(file, text, len, 0) != (ssize_t)len)
		abort();
	buf_init(problems, 1024 * 1024);
	return config_load(config, CONFIG_NEED_DATABASE | CONFIG_NEED_UPSTREAM, problems);
}

/* --- as systemd reads it -------------------------------------------------------------------- */

struct systemd {
	const char *at;
	char name[VALUE_MAX], value[VALUE_MAX];
};

static bool
is_white(char c)
{
	return c != '\0' && strchr(" \t\r\n", c) != NULL;
}

static bool
ends_line(char c)
{
	return c == '\n' || c == '\r' || c == '\0';
}

/* A quoted part of a value; a backslash within "" counts before these four only. */
static size_t
take_quoted(struct systemd *systemd, size_t len)
{
	char quote = *systemd->at++;

	for (; *systemd->at != '\0' && *systemd->at != quote; systemd->at++) {
		if (quote == '"' && *systemd->at == '\\' && systemd->at[1] != '\0') {
			systemd->at++;
			if (*systemd->at == '\n')
				continue;
			if (strchr("\"\\`$", *systemd->at) == NULL)
				systemd->value[len++] = '\\';
		}
		systemd->value[len++] = *systemd->at;
	}
	systemd->at += *systemd->at == quote;
	return len;
}

/* An unquoted one, to the end of the line: white space at its end is dropped, a backslash takes the
   next character as it is. */
static size_t
take_plain(struct systemd *systemd, size_t len)
{
	size_t end = len;

	for (; !ends_line(*systemd->at); systemd->at++) {
		bool escaped = *systemd->at == '\\' && systemd->at[1] != '\0';

		if (escaped && *++systemd->at == '\n')
			continue;
		systemd->value[len++] = *systemd->at;
		if (escaped || !is_white(*systemd->at))
			end = len;
	}
	return end;
}

/* The next assignment; false at the end. */
static bool
take_assignment(struct systemd *systemd)
{
	size_t len;

	for (;;) {
		while (is_white(*systemd->at))
			systemd->at++;
		if (*systemd->at == '\0')
			return false;
		if (*systemd->at == '#' || *systemd->at == ';') {
			/* Up to version 253 a backslash at its end makes the next line part of it. */
			for (; !ends_line(*systemd->at); systemd->at++)
				if (*systemd->at == '\\' && systemd->at[1] != '\0')
					systemd->at++;
			continue;
		}
		for (len = 0; !ends_line(*systemd->at) && *systemd->at != '='; systemd->at++)
			systemd->name[len++] = *systemd->at;
		while (len > 0 && is_white(systemd->name[len - 1]))
			len--;
		systemd->name[len] = '\0';
		if (*systemd->at == '=')
			break;
	}
	systemd->at++;
	for (len = 0; !ends_line(*systemd->at);) {
		if (is_white(*systemd->at))
			systemd->at++;
		else if (*systemd->at == '\'' || *systemd->at == '"')
			len = take_quoted(systemd, len);
		else
			len = take_plain(systemd, len);
	}
	systemd->value[len] = '\0';
	return true;
}

/* The last value of a name, "" if there is none. */
static const char *
systemd_value(const char *text, const char *name)
{
	static struct systemd systemd;
	static char value[VALUE_MAX];

	systemd.at = text;
	value[0] = '\0';
	while (take_assignment(&systemd))
		if (strcmp(systemd.name, name) == 0)
			memcpy(value, systemd.value, strlen(systemd.value) + 1);
	return value;
}

/* --- the properties ------------------------------------------------------------------------- */

static const void *
member(const struct config *config, size_t row)
{
	return (const char *)config + settings[row].offset;
}

static int
number_of(const struct config *config, size_t row)
{
	int number;

	memcpy(&number, member(config, row), sizeof(number));
	return number;
}

/* As a file may have it. */
static const char *const levels[] = { "debug", "info", "warn", "error" };

static void
write_value(const struct config *config, size_t row, char *text)
{
	if (settings[row].kind == TEXT)
		snprintf(text, CONFIG_PATH_MAX + 1, "%s", (const char *)member(config, row));
	else if (settings[row].kind == NUMBER)
		snprintf(text, 16, "%d", number_of(config, row));
	else if (settings[row].kind == ON_OFF)
		snprintf(text, 16, "%s", number_of(config, row) ? "on" : "off");
	else
		snprintf(text, 16, "%s", levels[number_of(config, row)]);
}

static bool
is_valid_utf8(const char *text)
{
	struct span rest = { text, strlen(text) };
	size_t length;

	for (; rest.len > 0; rest.at += length, rest.len -= length)
		if ((length = reference_utf8_length(rest)) == 0)
			return false;
	return true;
}

static void
compare_with_systemd(const struct config *config, const char *text)
{
	char value[CONFIG_PATH_MAX + 1];

	for (size_t i = 0; i < COUNT(settings); i++) {
		const char *expected = systemd_value(text, settings[i].name);
		size_t len = strlen(expected);

		if (len == 0) { /* the default, where there is one */
			MUST(settings[i].offset != offsetof(struct config, database_url) &&
					settings[i].offset !=
						offsetof(struct config, instantly_api_key),
				"%s is not set, to systemd", settings[i].name);
			continue;
		}
		write_value(config, i, value);
		if (settings[i].kind == NUMBER)
			while (len > 1 && expected[0] == '0')
				expected++, len--;
		/* The address alone is kept without the slashes at its end. */
		if (strcmp(settings[i].name, "INSTANTLY_API_URL") == 0)
			while (len > 0 && expected[len - 1] == '/')
				len--;
		MUST(strlen(value) == len && memcmp(value, expected, len) == 0,
			"%s is \"%s\", to systemd \"%.*s\"", settings[i].name, value, (int)len,
			expected);
	}
}

static void
compare_written_out(const struct config *config)
{
	char value[CONFIG_PATH_MAX + 1];
	struct config again;
	struct buf text, problems;

	buf_init(&text, 1024 * 1024);
	for (size_t i = 0; i < COUNT(settings); i++) {
		write_value(config, i, value);
		buf_printf(&text, "%s=\"", settings[i].name);
		for (const char *c = value; *c != '\0'; c++)
			buf_printf(&text, strchr("\"\\`$", *c) != NULL ? "\\%c" : "%c", *c);
		buf_puts(&text, "\"\n");
	}
	MUST(load(text.data, text.len, &again, &problems) == ERR_OK, "refused: %s of\n%s",
		buf_text(&problems), text.data);
	MUST(memcmp(config, &again, sizeof(again)) == 0, "read back as something else:\n%s",
		text.data);
	buf_free(&problems);
	buf_free(&text);
}

/* Whether line `number` of the file begins with that name and an equals sign. */
static bool
names_line(const char *text, long number, const char *name, size_t len)
{
	while (number-- > 1 && text != NULL) {
		text = strchr(text, '\n');
		text = text != NULL ? text + 1 : NULL;
	}
	if (text == NULL)
		return false;
	text += strspn(text, " \t\r");
	if (strncmp(text, name, len) != 0)
		return false;
	text += len;
	return text[strspn(text,
		       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_ \t\r")] ==
		'=';
}

/* A line of the report without its name, file and number: what there is to tell. */
static bool
is_known_problem(const char *name, const char *what)
{
	char text[256];

	for (size_t i = 0; i < COUNT(settings); i++) {
		if (strcmp(settings[i].name, name) != 0)
			continue;
		snprintf(text, sizeof(text), "must be %s", settings[i].told);
		if (strcmp(what, text) == 0 ||
			strcmp(what, "quotes or backslash not understood; try single quotes") == 0)
			return true;
		snprintf(text, sizeof(text), "missing; set it to %s", settings[i].told);
		return strcmp(what, text) == 0;
	}
	return strcmp(what, "no such setting") == 0 &&
		(strncmp(name, "WARMUP_", 7) == 0 || strncmp(name, "INSTANTLY_", 10) == 0);
}

static void
check_problem(struct span line, const char *text)
{
	char where[96], *copy = span_copy(line), *what = strstr(copy, ": "), *place;
	long number = 0;

	snprintf(where, sizeof(where), "%s is too long, or no text", file_name);
	if (span_is(line, where))
		goto out;
	MUST(what != NULL, "\"%s\" tells too much", copy);
	*what = '\0';
	what += 2;
	snprintf(where, sizeof(where), "%s, line ", file_name);
	if (strncmp(copy, where, strlen(where)) == 0) {
		MUST(strcmp(what, "not of the form NAME=value") == 0 ||
				strcmp(what, "quotes or backslash not understood") == 0,
			"\"%s\" tells too much", what);
		MUST(copy[strlen(where) + strspn(copy + strlen(where), "0123456789")] == '\0',
			"\"%s\" tells too much", copy);
		goto out;
	}
	snprintf(where, sizeof(where), " (%s, line ", file_name);
	place = strstr(what, where);
	if (place != NULL) {
		number = strtol(place + strlen(where), NULL, 10);
		*place = '\0';
		MUST(names_line(text, number, copy, strlen(copy)), "%s is not the name in line %ld",
			copy, number);
	}
	MUST(is_known_problem(copy, what), "\"%s: %s\" tells too much", copy, what);
out:
	free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config config, again;
	struct buf problems, more_problems;
	struct span text = { (const char *)data, size }, rest, line;
	char *copy;
	enum err err;

	if (size >= VALUE_MAX)
		return 0;
	copy = span_copy(text);
	err = load(text.at, text.len, &config, &problems);
	MUST(err == (problems.len == 0 ? ERR_OK : ERR_CONFIG), "%s", err_info(err)->name);
	rest = (struct span){ buf_text(&problems), problems.len };
	while (span_cut_line(&rest, &line))
		check_problem(line, copy);
	MUST(load(text.at, text.len, &again, &more_problems) == err &&
			memcmp(&config, &again, sizeof(again)) == 0 &&
			strcmp(buf_text(&problems), buf_text(&more_problems)) == 0,
		"read again, it gives something else");
	if (err == ERR_OK) {
		if (is_valid_utf8(copy)) /* systemd reads no others */
			compare_with_systemd(&config, copy);
		compare_written_out(&config);
	}
	buf_free(&problems);
	buf_free(&more_problems);
	free(copy);
	return 0;
}
