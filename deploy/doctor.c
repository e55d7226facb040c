/*
 * doctor.c: warmupctl doctor: the order of the checks, and their report.
 *
 * Checks that a deployment is right, and changes nothing: no row, no setting, no warm-up.  It has
 * the responder's settings and login, because what those may and see is the question.  The report
 * comes line by line for people, as one document for scripts; neither holds a secret.
 */
#include "doctor.h"

#include "command.h"
#include "http.h"
#include "json.h"
#include "log.h"
#include "output.h"

#include <stdio.h>
#include <string.h>

#define NAME_WIDTH   21          /* of the longest check's name */
#define FAULTS_MAX   (16 * 1024) /* of one check */
#define FOUND_MAX    (64 * 1024) /* of one line: the settings' problems are the longest */
#define DOCUMENT_MAX (1024 * 1024)

static const char *const words[DOCTOR_RESULT_MAX] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_WARN] = "warn",
	[DOCTOR_FAIL] = "fail",
	[DOCTOR_SKIP] = "skip",
};

void
doctor_listen(struct doctor *doctor)
{
	buf_reset(&doctor->faults);
}

/* On one line: libpq's texts have several, and end with a line end, within parentheses of ours. */
static void
put_line(struct buf *line, const char *text)
{
	size_t len;

	for (; *text != '\0'; text += len) {
		len = strspn(text, " \t\r\n");
		if (len > 0 && text[len] != '\0' && text[len] != ')')
			buf_puts(line, " ");
		text += len;
		len = strcspn(text, " \t\r\n");
		buf_add(line, text, len);
	}
}

void
doctor_report(struct doctor *doctor, const char *check, enum doctor_result result,
	const char *found, const char *todo)
{
	struct buf line;

	if (result != DOCTOR_WARN && result != DOCTOR_FAIL)
		todo = NULL;
	doctor->counts[result]++;
	buf_init(&line, FOUND_MAX);
	put_line(&line, found);
	if (doctor->json) {
		json_open(&doctor->document, '{');
		json_key(&doctor->document, "check");
		json_text(&doctor->document, check);
		json_key(&doctor->document, "result");
		json_text(&doctor->document, words[result]);
		json_key(&doctor->document, "found");
		json_text(&doctor->document, buf_text(&line));
		json_key(&doctor->document, "todo");
		json_text(&doctor->document, todo);
		json_close(&doctor->document, '}');
	} else {
		printf("%-4s  %-*s  ", words[result], NAME_WIDTH, check);
		output_text(buf_text(&line));
		if (todo != NULL) {
			printf("\n      -> ");
			output_text(todo);
		}
		putchar('\n');
		fflush(stdout); /* a check may take seconds */
	}
	buf_free(&line);
}

/* The settings, as the responder would load them.  False if it would not run with them. */
static bool
check_settings(struct doctor *doctor)
{
	char found[CONFIG_PATH_MAX + 64];
	struct buf problems;
	const char *line;
	char *next;
	enum err err;

	buf_init(&problems, FOUND_MAX);
	err = config_load(&doctor->config, CONFIG_NEED_DATABASE | CONFIG_NEED_UPSTREAM, &problems);
	next = problems.data;
	while (next != NULL && (line = strsep(&next, "\n")) != NULL)
		if (line[0] != '\0')
			doctor_report(doctor, "settings", err == ERR_OK ? DOCTOR_WARN : DOCTOR_FAIL,
				line,
				err == ERR_OK ? "mend the settings file's permissions" :
						"mend it in the settings file or the environment; "
						"warmup.fcgi(8) has the list");
	if (err == ERR_OK && problems.len == 0) {
		if (doctor->config.file[0] != '\0')
			snprintf(found, sizeof(found), "from %s and the environment",
				doctor->config.file);
		else
			snprintf(found, sizeof(found), "from the environment, no settings file");
		doctor_report(doctor, "settings", DOCTOR_OK, found, NULL);
	}
	buf_free(&problems);
	return err == ERR_OK;
}

/* A key as one line of a file, so that it stands on no command line. */
static bool
read_key(const char *name, char key[DOCTOR_KEY_MAX + 1])
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-._~+/=";
	FILE *file = strcmp(name, "-") == 0 ? stdin : fopen(name, "re");
	char text[DOCTOR_KEY_MAX + 16];
	size_t len = 0, start;
	bool good = false;

	if (file == NULL)
		return false;
	setvbuf(file, NULL, _IONBF, 0); /* no copy of it stays in a buffer */
	len = fread(text, 1, sizeof(text) - 1, file);
	text[len] = '\0';
	start = strspn(text, " \t\r\n");
	while (len > start && strchr(" \t\r\n", text[len - 1]) != NULL)
		text[--len] = '\0';
	if (len > start && len - start <= DOCTOR_KEY_MAX &&
		start + strspn(text + start, allowed) == len) {
		memcpy(key, text + start, len - start + 1);
		good = true;
	}
	explicit_bzero(text, sizeof(text));
	fclose(file);
	return good;
}

/* The command line's own values.  False, and said, if they cannot be used. */
static bool
take_options(
	const struct options *options, char url[CONFIG_URL_MAX + 1], char key[DOCTOR_KEY_MAX + 1])
{
	const char *why = NULL;

	if (options->key_file != NULL && options->url == NULL)
		why = "--key-file is for --url";
	else if (options->url != NULL && strlen(options->url) > CONFIG_URL_MAX)
		why = "--url is too long";
	if (why == NULL && options->url != NULL) {
		memcpy(url, options->url, strlen(options->url) + 1);
		if (http_base_url_check(url) != ERR_OK)
			why = "--url takes an https:// address (http:// only to this machine) "
			      "without user, query or fragment";
	}
	if (why == NULL && options->key_file != NULL && !read_key(options->key_file, key))
		why = "--key-file takes a file with one key in it, or - for standard input";
	if (why != NULL)
		fprintf(stderr, "warmupctl: doctor: %s\n", why);
	return why == NULL;
}

static void
print_end(struct doctor *doctor)
{
	const int *counts = doctor->counts;
	enum doctor_result worst = counts[DOCTOR_FAIL] > 0 ? DOCTOR_FAIL :
		counts[DOCTOR_WARN] > 0                    ? DOCTOR_WARN :
							     DOCTOR_OK;

	if (!doctor->json) {
		printf("%d ok, %d warn, %d fail, %d skip\n", counts[DOCTOR_OK], counts[DOCTOR_WARN],
			counts[DOCTOR_FAIL], counts[DOCTOR_SKIP]);
		return;
	}
	json_close(&doctor->document, ']');
	json_key(&doctor->document, "result");
	json_text(&doctor->document, words[worst]);
	json_close(&doctor->document, '}');
	puts(buf_text(&doctor->document));
}

int
doctor_run(const struct tool *tool, const struct options *options)
{
	struct doctor doctor = { .json = tool->json };
	char url[CONFIG_URL_MAX + 1] = "", key[DOCTOR_KEY_MAX + 1] = "";
	const char *why_not = NULL;

	if (http_global_init() != ERR_OK || !take_options(options, url, key))
		return EXIT_MISUSED;
	buf_init(&doctor.faults, FAULTS_MAX);
	buf_init(&doctor.document, DOCUMENT_MAX);
	json_open(&doctor.document, '{');
	json_key(&doctor.document, "checks");
	json_open(&doctor.document, '[');
	log_collect(&doctor.faults);

	if (!check_settings(&doctor))
		why_not = "not looked at: the settings come first";
	doctor_check_database(&doctor, why_not);
	doctor_check_instantly(&doctor, why_not);
	if (why_not == NULL && options->url == NULL)
		why_not = "not looked at: tell where it is served with --url";
	doctor_check_host(&doctor, url, key[0] != '\0' ? key : NULL, why_not);

	log_collect(NULL);
	print_end(&doctor);
	db_close(doctor.db);
	config_wipe(&doctor.config);
	explicit_bzero(key, sizeof(key));
	buf_free(&doctor.faults);
	buf_free(&doctor.document);
	return doctor.counts[DOCTOR_FAIL] > 0 ? EXIT_FAILED : EXIT_DONE;
}
