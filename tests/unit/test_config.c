/*
 * test_config.c: the settings: where each may come from, what is refused, what is said about it.
 *
 * Every test begins with an environment without settings and with WARMUP_CONFIG naming an empty
 * file of its own, so that no file of the machine it runs on counts.
 */
#include "unit.h"

#include "config.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOBODY    65534 /* an account that may read nobody else's files */
#define PATH_SIZE 512
#define TEXT_SIZE 9000

#define URL "INSTANTLY_API_URL"
#define KEY "INSTANTLY_API_KEY"
#define CA  "INSTANTLY_CA_FILE"
#define DB  "DATABASE_URL"

/* Stands for a secret; must never be found in what is said of a setting. */
#define CANARY "cAnArY"

extern char **environ;

static char folder[PATH_SIZE], file[PATH_SIZE + 16];
static struct config config;
static struct buf problems;

/* As long as a name is found: removing one moves the others. */
static void
clear_environment(void)
{
	char name[256];
	char **entry = environ;

	while (*entry != NULL) {
		size_t len = strcspn(*entry, "=");

		if (len < sizeof(name) &&
			(strncmp(*entry, "WARMUP_", 7) == 0 ||
				strncmp(*entry, "INSTANTLY_", 10) == 0 ||
				strncmp(*entry, DB "=", len + 1) == 0)) {
			memcpy(name, *entry, len);
			name[len] = '\0';
			unsetenv(name);
			entry = environ;
		} else {
			entry++;
		}
	}
}

static void
write_file_bytes(const char *bytes, size_t len)
{
	FILE *stream;

	unlink(file);
	umask(077);
	stream = fopen(file, "w");
	assert_true(stream != NULL);
	assert_int_equal(fwrite(bytes, 1, len, stream), len);
	assert_int_equal(fclose(stream), 0);
}

static void
write_file(const char *text)
{
	write_file_bytes(text, strlen(text));
}

static void
set_environment(const char *name, const char *value)
{
	assert_int_equal(setenv(name, value, 1), 0);
}

static enum err
load_for(unsigned needs)
{
	memset(&config, 0x55, sizeof(config));
	buf_reset(&problems);
	return config_load(&config, needs, &problems);
}

static enum err
load(void)
{
	return load_for(0);
}

static bool
is_told(const char *text)
{
	return strstr(buf_text(&problems), text) != NULL;
}

static int
create_folder(void **state)
{
	const char *base = getenv("TMPDIR");

	(void)state;
	snprintf(folder, sizeof(folder), "%s/unit-config-XXXXXX", base != NULL ? base : "build");
	if (mkdtemp(folder) == NULL)
		return -1;
	snprintf(file, sizeof(file), "%s/warmup.conf", folder);
	return 0;
}

static int
remove_folder(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(folder);
}

static int
set_up(void **state)
{
	(void)state;
	clear_environment();
	write_file("");
	buf_init(&problems, 64 * 1024);
	return setenv("WARMUP_CONFIG", file, 1);
}

static int
tear_down(void **state)
{
	(void)state;
	buf_free(&problems);
	return 0;
}

/* Fails unless the load went well without a word. */
static void
assert_loads(const char *what)
{
	enum err err = load();

	CHECK(err == ERR_OK && problems.len == 0, "%s: %s, \"%s\"", what, err_info(err)->name,
		buf_text(&problems));
}

/* Fails unless the load is refused because of the one setting. */
static void
assert_refused(const char *name, const char *what)
{
	enum err err = load();

	CHECK(err == ERR_CONFIG, "%s %s was taken", name, what);
	CHECK(strncmp(buf_text(&problems), name, strlen(name)) == 0, "%s %s: \"%s\"", name, what,
		buf_text(&problems));
	CHECK(strchr(buf_text(&problems), '\n') == buf_text(&problems) + problems.len - 1,
		"not one line: \"%s\"", buf_text(&problems));
}

static void
test_config_load_defaults(void **state)
{
	(void)state;
	assert_loads("nothing set");
	assert_string_equal(config.database_url, "");
	assert_string_equal(config.instantly_api_key, "");
	assert_string_equal(config.instantly_api_url, "https://api.instantly.ai/api/v2");
	assert_string_equal(config.instantly_ca_file, "");
	assert_string_equal(config.file, file);
	assert_int_equal(config.workers, 32);
	assert_int_equal(config.db_connections, 8);
	assert_true(config.db_prepared);
	assert_int_equal(config.db_timeout_ms, 5000);
	assert_int_equal(config.upstream_connect_timeout_ms, 3000);
	assert_int_equal(config.upstream_timeout_ms, 10000);
	assert_int_equal(config.job_wait_ms, 1500);
	assert_int_equal(config.log_level, LOG_INFO);
}

static const char full_file[] = "DATABASE_URL=postgresql://u:p@db.example.com:5432/postgres\n"
				"INSTANTLY_API_KEY=key-1\n"
				"INSTANTLY_API_URL=https://instantly.test/api\n"
				"INSTANTLY_CA_FILE=own-ca.pem\n"
				"WARMUP_WORKERS=1\n"
				"WARMUP_DB_CONNECTIONS=2\n"
				"WARMUP_DB_PREPARED=off\n"
				"WARMUP_DB_TIMEOUT_MS=3\n"
				"WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS=4\n"
				"WARMUP_UPSTREAM_TIMEOUT_MS=5\n"
				"WARMUP_JOB_WAIT_MS=6\n"
				"WARMUP_LOG_LEVEL=error\n";

static void
assert_full_file(void)
{
	assert_string_equal(config.database_url, "postgresql://u:p@db.example.com:5432/postgres");
	assert_string_equal(config.instantly_api_key, "key-1");
	assert_string_equal(config.instantly_api_url, "https://instantly.test/api");
	assert_string_equal(config.instantly_ca_file, "own-ca.pem");
	assert_int_equal(config.workers, 1);
	assert_int_equal(config.db_connections, 2);
	assert_true(!config.db_prepared);
	assert_int_equal(config.db_timeout_ms, 3);
	assert_int_equal(config.upstream_connect_timeout_ms, 4);
	assert_int_equal(config.upstream_timeout_ms, 5);
	assert_int_equal(config.job_wait_ms, 6);
	assert_int_equal(config.log_level, LOG_ERROR);
}

static void
test_config_load_every_setting_from_file(void **state)
{
	(void)state;
	write_file(full_file);
	assert_loads("a full file");
	assert_full_file();
}

static void
test_config_load_every_setting_from_environment(void **state)
{
	static char lines[sizeof(full_file)]; /* the environment points into it */
	char *line, *next;

	(void)state;
	memcpy(lines, full_file, sizeof(lines));
	for (line = lines; *line != '\0'; line = next) {
		next = strchr(line, '\n');
		*next++ = '\0';
		putenv(line);
	}
	assert_loads("a full environment");
	assert_full_file();
}

static void
test_config_load_environment_beats_file(void **state)
{
	(void)state;
	write_file("WARMUP_WORKERS=5\nWARMUP_DB_CONNECTIONS=6\n" KEY "=of-the-file\n");
	set_environment("WARMUP_WORKERS", "7");
	set_environment(KEY, "of-the-environment");
	assert_loads("both");
	assert_int_equal(config.workers, 7);
	assert_int_equal(config.db_connections, 6);
	assert_string_equal(config.instantly_api_key, "of-the-environment");
}

/* What does not count is not judged either. */
static void
test_config_load_bad_value_that_does_not_count(void **state)
{
	(void)state;
	write_file("WARMUP_WORKERS=many\n");
	set_environment("WARMUP_WORKERS", "7");
	assert_loads("a bad value in the file only");
	assert_int_equal(config.workers, 7);
}

static void
test_config_load_bad_environment_is_no_fallback_to_file(void **state)
{
	(void)state;
	write_file("WARMUP_WORKERS=5\n");
	set_environment("WARMUP_WORKERS", "many");
	assert_refused("WARMUP_WORKERS", "=many");
	assert_true(!is_told("line"));
}

static void
test_config_load_empty_value_is_not_set(void **state)
{
	(void)state;
	write_file("WARMUP_WORKERS=\nWARMUP_DB_CONNECTIONS=''\nWARMUP_LOG_LEVEL=\"\"\n" DB "=\n" URL
		   "=\n");
	set_environment("WARMUP_DB_TIMEOUT_MS", "");
	assert_loads("empty values");
	assert_int_equal(config.workers, 32);
	assert_int_equal(config.db_connections, 8);
	assert_int_equal(config.log_level, LOG_INFO);
	assert_int_equal(config.db_timeout_ms, 5000);
	assert_string_equal(config.database_url, "");
	assert_string_equal(config.instantly_api_url, "https://api.instantly.ai/api/v2");
	assert_int_equal(load_for(CONFIG_NEED_DATABASE), ERR_CONFIG);
	assert_true(is_told(DB ": missing"));
}

static void
test_config_load_empty_environment_leaves_the_file(void **state)
{
	(void)state;
	write_file("WARMUP_WORKERS=5\n");
	set_environment("WARMUP_WORKERS", "");
	assert_loads("an empty variable");
	assert_int_equal(config.workers, 5);
}

#define MEMBER(member) offsetof(struct config, member)
#define WAIT_MAX_MS    600000

static const struct {
	const char *name;
	size_t offset;
	int min, max;
} numbers[] = {
	{ "WARMUP_WORKERS", MEMBER(workers), 1, 1024 },
	{ "WARMUP_DB_CONNECTIONS", MEMBER(db_connections), 1, 256 },
	{ "WARMUP_DB_TIMEOUT_MS", MEMBER(db_timeout_ms), 1, WAIT_MAX_MS },
	{ "WARMUP_UPSTREAM_CONNECT_TIMEOUT_MS", MEMBER(upstream_connect_timeout_ms), 1,
		WAIT_MAX_MS },
	{ "WARMUP_UPSTREAM_TIMEOUT_MS", MEMBER(upstream_timeout_ms), 1, WAIT_MAX_MS },
	{ "WARMUP_JOB_WAIT_MS", MEMBER(job_wait_ms), 0, WAIT_MAX_MS },
};

static int
number_at(size_t offset)
{
	int number;

	memcpy(&number, (const char *)&config + offset, sizeof(number));
	return number;
}

static void
test_config_load_numbers_within_limits(void **state)
{
	char value[16], line[64];
	size_t i, j;

	(void)state;
	for (i = 0; i < COUNT(numbers); i++) {
		const int good[] = { numbers[i].min, numbers[i].min + 1, numbers[i].max - 1,
			numbers[i].max };

		for (j = 0; j < COUNT(good); j++) {
			snprintf(value, sizeof(value), "%d", good[j]);
			snprintf(line, sizeof(line), "%s=%s\n", numbers[i].name, value);
			write_file(line);
			assert_loads(line);
			assert_int_equal(number_at(numbers[i].offset), good[j]);
			write_file("");
			set_environment(numbers[i].name, value);
			assert_loads(line);
			assert_int_equal(number_at(numbers[i].offset), good[j]);
			unsetenv(numbers[i].name);
		}
	}
}

static void
test_config_load_numbers_beyond_limits(void **state)
{
	char value[16], range[64];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(numbers); i++) {
		snprintf(range, sizeof(range), "from %d to %d", numbers[i].min, numbers[i].max);
		snprintf(value, sizeof(value), "%d", numbers[i].min - 1);
		set_environment(numbers[i].name, value);
		assert_refused(numbers[i].name, value);
		assert_true(is_told(range));
		snprintf(value, sizeof(value), "%d", numbers[i].max + 1);
		set_environment(numbers[i].name, value);
		assert_refused(numbers[i].name, value);
		unsetenv(numbers[i].name);
	}
}

static void
test_config_load_malformed_numbers(void **state)
{
	static const char *const malformed[] = { "-1", "+1", "1x", "x1", " 1", "1 ", "1\n", "1.5",
		"1e2", "0x10", "1,000", "--1", "-", "one", "99999999999", "4294967297",
		"18446744073709551617", "\xEF\xBC\x91", "1;", "'1'" };
	size_t i, j;

	(void)state;
	for (i = 0; i < COUNT(numbers); i++)
		for (j = 0; j < COUNT(malformed); j++) {
			set_environment(numbers[i].name, malformed[j]);
			assert_refused(numbers[i].name, malformed[j]);
			unsetenv(numbers[i].name);
		}
}

/* Words. */
static const struct {
	const char *name, *value;
	bool good;
	size_t offset;
	int number;
} words[] = {
	{ "WARMUP_DB_PREPARED", "on", true, MEMBER(db_prepared), 1 },
	{ "WARMUP_DB_PREPARED", "off", true, MEMBER(db_prepared), 0 },
	{ "WARMUP_DB_PREPARED", "ON", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "onoff", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "o", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "yes", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "true", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "0", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "1", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", "-1", false, 0, 0 },
	{ "WARMUP_DB_PREPARED", " on", false, 0, 0 },
	{ "WARMUP_LOG_LEVEL", "debug", true, MEMBER(log_level), LOG_DEBUG },
	{ "WARMUP_LOG_LEVEL", "info", true, MEMBER(log_level), LOG_INFO },
	{ "WARMUP_LOG_LEVEL", "warn", true, MEMBER(log_level), LOG_WARN },
	{ "WARMUP_LOG_LEVEL", "error", true, MEMBER(log_level), LOG_ERROR },
	{ "WARMUP_LOG_LEVEL", "warning", false, 0, 0 },
	{ "WARMUP_LOG_LEVEL", "verbose", false, 0, 0 },
	{ "WARMUP_LOG_LEVEL", "0", false, 0, 0 },
	{ "WARMUP_LOG_LEVEL", "-1", false, 0, 0 },
	{ "WARMUP_LOG_LEVEL", "info ", false, 0, 0 },
	{ "WARMUP_LOG_LEVEL", "inf", false, 0, 0 },
};

static void
test_config_load_words(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(words); i++) {
		set_environment(words[i].name, words[i].value);
		if (words[i].good) {
			assert_loads(words[i].value);
			CHECK(number_at(words[i].offset) == words[i].number, "%s", words[i].value);
		} else {
			assert_refused(words[i].name, words[i].value);
		}
		unsetenv(words[i].name);
	}
}

#define X50  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X255 X50 X50 X50 X50 X50 "xxxxx" /* no host has a longer name */

/* Texts that are taken as they are, or refused. */
static const struct {
	const char *name, *value;
	bool good;
	size_t offset;
} texts[] = {
	{ DB, "postgresql://u:p@h:5432/d?sslmode=verify-full", true, MEMBER(database_url) },
	{ DB, "postgres://h1:5432,h2:5433/d?target_session_attrs=read-write", true,
		MEMBER(database_url) },
	{ DB, "postgresql:///d?host=/run/postgresql", true, MEMBER(database_url) },
	{ DB, "host=h dbname=d user=u password='a b'", true, MEMBER(database_url) },
	{ DB, "postgresql://" X255 ",h2," X255 "/d", true, MEMBER(database_url) },
	{ DB, "postgresql://" X255 "x/d", false, 0 },
	{ DB, "postgresql://h1,h2," X255 "x/d", false, 0 },
	{ DB, "host=" X255 "x,h2", false, 0 },
	{ DB, "host=h hostaddr=" X255 "x", false, 0 },
	{ DB, "host=h port=" X255 "x", false, 0 },
	{ DB, "garbage", false, 0 },
	{ DB, "host", false, 0 },
	{ DB, "host=h no_such_option=1", false, 0 },
	{ DB, "postgresql://h/d?no_such_option=1", false, 0 },
	{ DB, "postgresql://h/%zz", false, 0 },
	{ DB, "postgresql://[::1/d", false, 0 },
	{ DB, "host=h password='unclosed", false, 0 },
	{ DB, "mysql://h/d", false, 0 },
	{ KEY, "k", true, MEMBER(instantly_api_key) },
	{ KEY, "NmE3ZTk4YjQtZGVh:a+b/c==", true, MEMBER(instantly_api_key) },
	{ KEY, "!\"#$%&'()*,;<>?@[\\]^`{|}~", true, MEMBER(instantly_api_key) },
	{ KEY, " ", false, 0 },
	{ KEY, "two words", false, 0 },
	{ KEY, " k", false, 0 },
	{ KEY, "k ", false, 0 },
	{ KEY, "k\n", false, 0 },
	{ KEY, "k\r\nX-Header: 1", false, 0 },
	{ KEY, "k\t", false, 0 },
	{ KEY, "k\x7F", false, 0 },
	{ KEY, "k\x01", false, 0 },
	{ KEY, "k\xC3\xA9", false, 0 },
	{ KEY, "k\xFF", false, 0 },
	{ CA, "/certs/own ca.pem", true, MEMBER(instantly_ca_file) },
	{ CA, "certs/own.pem", true, MEMBER(instantly_ca_file) },
};

static void
test_config_load_texts(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(texts); i++) {
		set_environment(texts[i].name, texts[i].value);
		if (texts[i].good) {
			assert_loads(texts[i].value);
			assert_string_equal(
				(const char *)&config + texts[i].offset, texts[i].value);
		} else {
			assert_refused(texts[i].name, texts[i].value);
		}
		unsetenv(texts[i].name);
	}
}

/* Up to its maximum a text is kept whole, beyond it is refused: never cut. */
static const struct {
	const char *name, *begins; /* filled up with x */
	size_t offset, max;
} lengths[] = {
	{ DB, "postgresql://h/", MEMBER(database_url), CONFIG_DATABASE_URL_MAX },
	{ KEY, "k", MEMBER(instantly_api_key), CONFIG_KEY_MAX },
	{ URL, "https://h/", MEMBER(instantly_api_url), CONFIG_URL_MAX },
	{ CA, "/", MEMBER(instantly_ca_file), CONFIG_PATH_MAX },
};

static void
fill(char *text, const char *begins, size_t len)
{
	memset(text, 'x', len);
	memcpy(text, begins, strlen(begins));
	text[len] = '\0';
}

static void
test_config_load_lengths(void **state)
{
	char value[TEXT_SIZE], line[TEXT_SIZE + 32];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(lengths); i++) {
		fill(value, lengths[i].begins, lengths[i].max);
		set_environment(lengths[i].name, value);
		assert_loads("the longest value");
		assert_string_equal((const char *)&config + lengths[i].offset, value);
		unsetenv(lengths[i].name);
		snprintf(line, sizeof(line), "%s=%s\n", lengths[i].name, value);
		write_file(line);
		assert_loads("the longest value in a file");
		assert_string_equal((const char *)&config + lengths[i].offset, value);
		write_file("");

		fill(value, lengths[i].begins, lengths[i].max + 1);
		set_environment(lengths[i].name, value);
		assert_refused(lengths[i].name, "one byte too long");
		fill(value, lengths[i].begins, 8192);
		set_environment(lengths[i].name, value);
		assert_refused(lengths[i].name, "of 8 KiB");
		unsetenv(lengths[i].name);
	}
}

static const struct {
	const char *value;
	const char *becomes; /* NULL: refused */
} addresses[] = {
	/* Encrypted, anywhere. */
	{ "https://api.instantly.ai/api/v2", "https://api.instantly.ai/api/v2" },
	{ "https://h", "https://h" },
	{ "https://h:8443/x/y", "https://h:8443/x/y" },
	{ "https://10.0.0.1/api", "https://10.0.0.1/api" },
	{ "https://[2001:db8::1]/api", "https://[2001:db8::1]/api" },
	{ "HTTPS://h/api", "HTTPS://h/api" },
	/* Slashes at the end. */
	{ "https://h/", "https://h" },
	{ "https://h/api/v2/", "https://h/api/v2" },
	{ "https://h/api/v2///", "https://h/api/v2" },
	/* Unencrypted, to this machine only. */
	{ "http://localhost", "http://localhost" },
	{ "http://localhost:8080/api/v2", "http://localhost:8080/api/v2" },
	{ "http://localhost/", "http://localhost" },
	{ "http://LOCALHOST/x", "http://LOCALHOST/x" },
	{ "http://127.0.0.1", "http://127.0.0.1" },
	{ "http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x" },
	{ "http://127.1.2.3/x", "http://127.1.2.3/x" },
	{ "http://127.255.255.254", "http://127.255.255.254" },
	{ "http://[::1]", "http://[::1]" },
	{ "http://[::1]:8080/x", "http://[::1]:8080/x" },
	{ "http://api.instantly.ai/api/v2", NULL },
	{ "http://h", NULL },
	{ "http://10.0.0.1", NULL },
	{ "http://128.0.0.1", NULL },
	{ "http://126.255.255.255", NULL },
	{ "http://0.0.0.0", NULL },
	{ "http://[::2]", NULL },
	{ "http://[::]", NULL },
	{ "http://[2001:db8::1]", NULL },
	{ "http://169.254.169.254/", NULL },
	/* What begins like this machine and is another. */
	{ "http://localhost.evil.com", NULL },
	{ "http://localhost.evil.com/", NULL },
	{ "http://localhostx", NULL },
	{ "http://127.0.0.1.evil.com", NULL },
	{ "http://127.evil.com", NULL },
	{ "http://127.0.0.1x", NULL },
	{ "http://evil.com/127.0.0.1", NULL },
	{ "http://evil.com/localhost", NULL },
	{ "http://127.0.0.1@evil.com", NULL },
	{ "http://127.0.0.1:80@evil.com", NULL },
	{ "http://localhost@evil.com", NULL },
	{ "http://localhost:80@evil.com/", NULL },
	{ "http://evil.com#localhost", NULL },
	{ "http://evil.com?localhost", NULL },
	{ "http://evil.com\\@localhost", NULL },
	{ "http://localhost\\@evil.com", NULL },
	/* User, query, fragment. */
	{ "https://u:p@h/", NULL },
	{ "https://u:p@h", NULL },
	{ "https://u@h", NULL },
	{ "https://:p@h", NULL },
	{ "https://@h", NULL },
	{ "https://:@h", NULL },
	{ "http://u:p@localhost", NULL },
	{ "https://h/?", NULL },
	{ "https://h/?a=b", NULL },
	{ "https://h?a", NULL },
	{ "https://h/?/", NULL },
	{ "https://h/#", NULL },
	{ "https://h/#a", NULL },
	{ "https://h#", NULL },
	{ "https://h/api#/", NULL },
	/* Other schemes, or none, or no host. */
	{ "ftp://h/", NULL },
	{ "ftp://localhost/", NULL },
	{ "file:///etc/passwd", NULL },
	{ "file://localhost/etc/passwd", NULL },
	{ "gopher://h/", NULL },
	{ "httpss://h/", NULL },
	{ "javascript:alert(1)", NULL },
	{ "h.example.com", NULL },
	{ "h.example.com/api/v2", NULL },
	{ "localhost:8080", NULL },
	{ "//h/api", NULL },
	{ "/api/v2", NULL },
	{ "https", NULL },
	{ "https:", NULL },
	{ "https://", NULL },
	{ "https:////", NULL },
	{ "/", NULL },
	{ " ", NULL },
	/* What is no address at all. */
	{ "https://h:port/", NULL },
	{ "https://h:99999/", NULL },
	{ "https://[::1/", NULL },
	{ "https://h h/", NULL },
	{ "https://h/a b", NULL },
	{ "https://h/\n", NULL },
	{ "https://h/\r\nX: y", NULL },
	{ "https://h\n", NULL },
	{ "https://h/\x7F", NULL },
	{ " https://h", NULL },
	{ "https://h ", NULL },
};

static void
test_config_load_addresses(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(addresses); i++) {
		set_environment(URL, addresses[i].value);
		if (addresses[i].becomes != NULL) {
			assert_loads(addresses[i].value);
			assert_string_equal(config.instantly_api_url, addresses[i].becomes);
		} else {
			assert_refused(URL, addresses[i].value);
		}
	}
}

/* Forms of the file, told by a setting that may be any text: NULL for one that is refused. */
static const struct {
	const char *text;
	const char *value;
} forms[] = {
	{ CA "=/a\n", "/a" },
	{ CA "=/a", "/a" },
	{ CA "=/a\r\n", "/a" },
	{ "\r\n" CA "=/a\r\n\r\n", "/a" },
	{ "  " CA "=/a\n", "/a" },
	{ "\t" CA "\t=\t/a\t\n", "/a" },
	{ CA " = /a  \n", "/a" },
	{ "\n\n\n" CA "=/a\n\n", "/a" },
	{ "# comment\n" CA "=/a\n", "/a" },
	{ "; comment\n" CA "=/a\n", "/a" },
	{ "  # " CA "=/b\n" CA "=/a\n", "/a" },
	{ "# no form at all\n;\n#\n" CA "=/a\n", "/a" },
	{ "#" CA "=/b\n", "" },
	{ ";" CA "=/b\n", "" },
	/* A comment is a line of its own. */
	{ CA "=/a#b\n", "/a#b" },
	{ CA "=/a # b\n", "/a # b" },
	{ CA "=/a;b\n", "/a;b" },
	{ CA "=#\n", "#" },
	/* More signs of equality belong to the value. */
	{ CA "=a=b==\n", "a=b==" },
	{ CA "==\n", "=" },
	/* Quotes. */
	{ CA "='/a b'\n", "/a b" },
	{ CA "=\"/a b\"\n", "/a b" },
	{ CA "= '/a' \n", "/a" },
	{ CA "=\"/a\"\r\n", "/a" },
	{ CA "=' /a '\n", " /a " },
	{ CA "=\" /a \"\n", " /a " },
	{ CA "=''\n", "" },
	{ CA "=\"\"\n", "" },
	{ CA "='/a\"b'\n", "/a\"b" },
	{ CA "=\"/a'b\"\n", "/a'b" },
	{ CA "=\"/a\\\"b\"\n", "/a\"b" },
	{ CA "=\"/a\\\\b\"\n", "/a\\b" },
	{ CA "=\"\\\"\\\\\\\"\"\n", "\"\\\"" },
	{ CA "='/a\\b'\n", "/a\\b" },
	{ CA "='/a\\'\n", "/a\\" },
	/* Between double quotes a backslash protects these four, and stands for itself elsewhere. */
	{ CA "=\"/a\\$b\\`c\"\n", "/a$b`c" },
	{ CA "=\"/a\\b\\'\\ \"\n", "/a\\b\\'\\ " },
	{ CA "='#/a'\n", "#/a" },
	{ CA "='/a=b'\n", "/a=b" },
	/* Quotes within a value are part of it. */
	{ CA "=/a'b'\n", "/a'b'" },
	{ CA "=/a\"b\n", "/a\"b" },
	/* The last one counts, also when it is empty. */
	{ CA "=/a\n" CA "=/b\n", "/b" },
	{ CA "=/a\nWARMUP_WORKERS=1\n" CA "=/b\n" CA "=/c", "/c" },
	{ CA "=/a\n" CA "=\n", "" },
	/* Names of others are none of our business. */
	{ "PATH=/bin\nPGHOST=h\nXWARMUP_A=1\nwarmup_a=1\n" CA "=/a\n", "/a" },
	{ "instantly_ca_file=/b\n" CA "=/a\n", "/a" },
	/* What systemd would read differently is refused. */
	{ CA "='/a\n", NULL },
	{ CA "=\"/a\n", NULL },
	{ CA "='\n", NULL },
	{ CA "=\"\n", NULL },
	{ CA "=\"/a\\\"\n", NULL },
	{ CA "='/a'b\n", NULL },
	{ CA "=\"/a\"b\n", NULL },
	{ CA "='/a' 'b'\n", NULL },
	{ CA "=\"/a\" # comment\n", NULL },
	{ CA "=/a\\\n/b\n", NULL },
	{ CA "=\\\n", NULL },
	{ CA "=/a\\b\n", NULL },
	{ CA "=/a\rWARMUP_WORKERS=1\n", NULL },
	{ CA "='/a\rb'\n", NULL },
	{ CA "\r=/a\n", NULL },
	/* So are lines that to systemd go on in the next one, whatever they set. */
	{ "OTHER='a\n" CA "=/a'\n", NULL },
	{ "OTHER=a\\\n" CA "=/a\n", NULL },
	{ "# comment \\\n" CA "=/a\n", NULL },
	{ "# comment\r" CA "=/a\n", NULL },
	{ "=x\n" CA "=/a\n", NULL },
	/* No setting, no comment. */
	{ CA "\n", NULL },
	{ CA " /a\n", NULL },
	{ CA ": /a\n", NULL },
	{ "export " CA "=/a\n", NULL },
	{ "something\n", NULL },
	{ "[section]\n", NULL },
};

static void
test_config_load_forms_of_the_file(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(forms); i++) {
		write_file(forms[i].text);
		if (forms[i].value == NULL) {
			CHECK(load() == ERR_CONFIG && is_told("line 1"), "\"%s\" was taken",
				forms[i].text);
			continue;
		}
		assert_loads(forms[i].text);
		CHECK(strcmp(config.instantly_ca_file, forms[i].value) == 0, "\"%s\" became \"%s\"",
			forms[i].text, config.instantly_ca_file);
	}
}

static void
test_config_load_tells_file_and_line(void **state)
{
	char where[PATH_SIZE + 64];

	(void)state;
	write_file("# one\nWARMUP_WORKERS=5\n\nWARMUP_WORKERS=many\n");
	assert_refused("WARMUP_WORKERS", "=many");
	snprintf(where, sizeof(where), "(%s, line 4)", file);
	assert_true(is_told(where));

	write_file("\n\nWARMUP_WORKER=5\n");
	assert_refused("WARMUP_WORKER", "is no setting");
	snprintf(where, sizeof(where), "(%s, line 3)", file);
	assert_true(is_told(where));
}

static void
test_config_load_line_too_long(void **state)
{
	static char text[3 * TEXT_SIZE];

	(void)state;
	fill(text, "WARMUP_WORKERS=5\n" CA "=", TEXT_SIZE);
	memcpy(text + TEXT_SIZE, "\nWARMUP_WORKERS=6\n", 19);
	write_file(text);
	assert_int_equal(load(), ERR_CONFIG);
	assert_true(is_told(CA) && is_told("line 2"));
	assert_true(!is_told("xxx"));
}

/* What stands behind a NUL would be lost without a word. */
static void
test_config_load_nul_in_the_file(void **state)
{
	(void)state;
	write_file_bytes(BYTES(CA "=/a\0b\nWARMUP_WORKERS=5\n"));
	assert_int_equal(load(), ERR_CONFIG);
	write_file_bytes(BYTES(CA "=/a\0b"));
	assert_int_equal(load(), ERR_CONFIG);
}

static void
test_config_load_unknown_names_in_file(void **state)
{
	static const char *const unknown[] = { "WARMUP_WORKER", "WARMUP_", "WARMUP_workers",
		"WARMUP_WORKERS2", "INSTANTLY_KEY", "INSTANTLY_API", "WARMUP_CONFIG" };
	char line[64];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(unknown); i++) {
		snprintf(line, sizeof(line), "%s=1\n", unknown[i]);
		write_file(line);
		assert_refused(unknown[i], "is no setting");
	}
}

static void
test_config_load_unknown_names_in_environment(void **state)
{
	static const char *const unknown[] = { "WARMUP_WORKER", "WARMUP_", "WARMUP_workers",
		"WARMUP_WORKERS2", "WARMUP_CONFIG_FILE", "INSTANTLY_KEY" };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(unknown); i++) {
		set_environment(unknown[i], "1");
		assert_refused(unknown[i], "is no setting");
		unsetenv(unknown[i]);
		set_environment(unknown[i], "");
		assert_refused(unknown[i], "is no setting");
		unsetenv(unknown[i]);
	}
	set_environment("XWARMUP_WORKER", "1");
	assert_loads("a name of somebody else's");
	unsetenv("XWARMUP_WORKER");
}

/* However long it is: a misspelt setting is one that silently does not count. */
static void
test_config_load_unknown_long_name_in_environment(void **state)
{
	char name[256];
	size_t len;

	(void)state;
	for (len = 60; len < sizeof(name) - 1; len += 4) {
		fill(name, "WARMUP_", len);
		set_environment(name, "1");
		CHECK(load() == ERR_CONFIG && is_told("WARMUP_xxx"), "a name of %zu bytes", len);
		unsetenv(name);
	}
}

static void
test_config_load_missing_by_need(void **state)
{
	static const struct {
		unsigned needs;
		bool database, key;
	} rows[] = {
		{ 0, false, false },
		{ CONFIG_NEED_DATABASE, true, false },
		{ CONFIG_NEED_UPSTREAM, false, true },
		{ CONFIG_NEED_DATABASE | CONFIG_NEED_UPSTREAM, true, true },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		assert_int_equal(load_for(rows[i].needs) == ERR_OK, rows[i].needs == 0);
		assert_int_equal(is_told(DB ": missing"), rows[i].database);
		assert_int_equal(is_told(KEY ": missing"), rows[i].key);
	}
	set_environment(DB, "dbname=d");
	set_environment(KEY, "k");
	assert_int_equal(load_for(CONFIG_NEED_DATABASE | CONFIG_NEED_UPSTREAM), ERR_OK);
	assert_int_equal(problems.len, 0);
}

/* A malformed one is no better for not being needed: it was set for a reason. */
static void
test_config_load_malformed_without_need(void **state)
{
	(void)state;
	set_environment(DB, "garbage");
	assert_refused(DB, "garbage");
}

static void
test_config_load_tells_every_problem(void **state)
{
	(void)state;
	write_file("WARMUP_JOB_WAIT_MS=-1\nWARMUP_WORKER=1\nWARMUP_DB_PREPARED=maybe\n");
	set_environment("WARMUP_WORKERS", "0");
	set_environment("WARMUP_CONFIGURATION", "x");
	assert_int_equal(load_for(CONFIG_NEED_DATABASE | CONFIG_NEED_UPSTREAM), ERR_CONFIG);
	assert_true(is_told("WARMUP_JOB_WAIT_MS: "));
	assert_true(is_told("WARMUP_WORKER: "));
	assert_true(is_told("WARMUP_DB_PREPARED: "));
	assert_true(is_told("WARMUP_WORKERS: "));
	assert_true(is_told("WARMUP_CONFIGURATION: "));
	assert_true(is_told(DB ": missing"));
	assert_true(is_told(KEY ": missing"));
}

/* A buffer too small to tell it must not make it good. */
static void
test_config_load_problem_that_cannot_be_told(void **state)
{
	struct buf small;

	(void)state;
	buf_init(&small, 4);
	assert_int_equal(config_load(&config, CONFIG_NEED_DATABASE, &small), ERR_CONFIG);
	buf_free(&small);
}

static void
test_config_load_file_missing(void **state)
{
	(void)state;
	unlink(file);
	assert_int_equal(load(), ERR_CONFIG);
	assert_true(is_told("WARMUP_CONFIG: "));
	assert_true(is_told(file));
}

static void
test_config_load_folder_as_file(void **state)
{
	(void)state;
	set_environment("WARMUP_CONFIG", folder);
	assert_refused("WARMUP_CONFIG", "names a folder");
	assert_true(is_told(folder));
}

static void
test_config_load_file_unreadable(void **state)
{
	bool is_root = geteuid() == 0;
	enum err err;

	(void)state;
	/* Root may read anything, so it becomes somebody who may not. */
	if (is_root && seteuid(NOBODY) != 0)
		skip();
	if (!is_root)
		assert_int_equal(chmod(file, 0), 0);
	err = load();
	if (is_root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(err, ERR_CONFIG);
	assert_true(is_told("WARMUP_CONFIG: "));
	assert_true(is_told(strerror(EACCES)));
}

static void
test_config_load_file_readable_by_others(void **state)
{
	static const struct {
		mode_t mode;
		bool warns;
	} rows[] = { { 0600, false }, { 0640, false }, { 0660, false }, { 0644, true },
		{ 0604, true }, { 0666, true } };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		assert_int_equal(chmod(file, rows[i].mode), 0);
		assert_int_equal(load(), ERR_OK);
		CHECK((problems.len > 0) == rows[i].warns, "mode %04o: \"%s\"",
			(unsigned)rows[i].mode, buf_text(&problems));
		if (rows[i].warns)
			assert_true(is_told(file) && is_told("readable by everyone"));
	}
}

/* What is said of a bad setting names it, and shows nothing of what it was set to. */
static const struct {
	const char *name, *value; /* in the environment, unless name is NULL */
	const char *text;         /* the file */
} secrets[] = {
	{ DB, CANARY, "" },
	{ DB, "postgresql://u:" CANARY "@h/d?no_such_option=1", "" },
	{ DB, "postgresql://h/d?" CANARY "=1", "" },
	{ DB, "host=h password='" CANARY, "" },
	{ KEY, CANARY " " CANARY, "" },
	{ KEY, CANARY "\n", "" },
	{ URL, "http://u:" CANARY "@h/", "" },
	{ URL, CANARY, "" },
	{ "WARMUP_WORKERS", CANARY, "" },
	{ "WARMUP_LOG_LEVEL", CANARY, "" },
	{ "WARMUP_DB_PREPARED", CANARY, "" },
	{ "WARMUP_UNKNOWN", CANARY, "" },
	{ NULL, NULL, DB "=" CANARY "\n" },
	{ NULL, NULL, DB "='" CANARY "\n" },
	{ NULL, NULL, DB "=\"" CANARY "\"" CANARY "\n" },
	{ NULL, NULL, DB "=" CANARY "\\\n" },
	{ NULL, NULL, DB " " CANARY "\n" },
	{ NULL, NULL, DB "\n" CANARY "\n" },
	{ NULL, NULL, CANARY "\n" },
	{ NULL, NULL, KEY "=" CANARY " " CANARY "\n" },
	{ NULL, NULL, KEY "='" CANARY " '\n" },
	{ NULL, NULL, KEY ": " CANARY "\n" },
	{ NULL, NULL, URL "=https://u:" CANARY "@h\n" },
	{ NULL, NULL, "WARMUP_WORKERS=" CANARY "\n" },
	{ NULL, NULL, "WARMUP_UNKNOWN=" CANARY "\n" },
	{ NULL, NULL, "INSTANTLY_UNKNOWN='" CANARY "\n" },
};

static void
test_config_load_never_tells_values(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(secrets); i++) {
		if (secrets[i].name != NULL)
			set_environment(secrets[i].name, secrets[i].value);
		write_file(secrets[i].text);
		CHECK(load() == ERR_CONFIG && problems.len > 0, "row %zu was taken", i);
		CHECK(!is_told(CANARY), "row %zu: \"%s\"", i, buf_text(&problems));
		if (secrets[i].name != NULL)
			unsetenv(secrets[i].name);
	}
}

/* A key of Instantly's ends in "=", so a line with a colon for its first sign of equality still
   has one: then the key is what seems to be the name. */
static void
test_config_load_never_tells_values_taken_for_names(void **state)
{
	static const char *const lines[] = { KEY ": " CANARY "==\n", KEY " " CANARY "==\n",
		KEY ":" CANARY "=\n", "WARMUP_X " CANARY "=1\n" };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(lines); i++) {
		write_file(lines[i]);
		assert_int_equal(load(), ERR_CONFIG);
		CHECK(!is_told(CANARY), "told: %s", buf_text(&problems));
	}
}

static void
test_config_wipe_leaves_no_secret(void **state)
{
	const char *at = (const char *)&config;
	size_t i;

	(void)state;
	set_environment(DB, "host=h password=" CANARY);
	set_environment(KEY, CANARY);
	set_environment("WARMUP_WORKERS", "7");
	assert_loads("secrets");
	config_wipe(&config);
	for (i = 0; i + sizeof(CANARY) <= sizeof(config); i++)
		assert_true(memcmp(at + i, CANARY, sizeof(CANARY) - 1) != 0);
	assert_string_equal(config.database_url, "");
	assert_string_equal(config.instantly_api_key, "");
	assert_int_equal(config.workers, 7);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config_load_defaults),
		TEST(test_config_load_every_setting_from_file),
		TEST(test_config_load_every_setting_from_environment),
		TEST(test_config_load_environment_beats_file),
		TEST(test_config_load_bad_value_that_does_not_count),
		TEST(test_config_load_bad_environment_is_no_fallback_to_file),
		TEST(test_config_load_empty_value_is_not_set),
		TEST(test_config_load_empty_environment_leaves_the_file),
		TEST(test_config_load_numbers_within_limits),
		TEST(test_config_load_numbers_beyond_limits),
		TEST(test_config_load_malformed_numbers),
		TEST(test_config_load_words),
		TEST(test_config_load_texts),
		TEST(test_config_load_lengths),
		TEST(test_config_load_addresses),
		TEST(test_config_load_forms_of_the_file),
		TEST(test_config_load_tells_file_and_line),
		TEST(test_config_load_line_too_long),
		TEST(test_config_load_nul_in_the_file),
		TEST(test_config_load_unknown_names_in_file),
		TEST(test_config_load_unknown_names_in_environment),
		TEST(test_config_load_unknown_long_name_in_environment),
		TEST(test_config_load_missing_by_need),
		TEST(test_config_load_malformed_without_need),
		TEST(test_config_load_tells_every_problem),
		TEST(test_config_load_problem_that_cannot_be_told),
		TEST(test_config_load_file_missing),
		TEST(test_config_load_folder_as_file),
		TEST(test_config_load_file_unreadable),
		TEST(test_config_load_file_readable_by_others),
		TEST(test_config_load_never_tells_values),
		TEST(test_config_load_never_tells_values_taken_for_names),
		TEST(test_config_wipe_leaves_no_secret),
	};

	return cmocka_run_group_tests_name("config", tests, create_folder, remove_folder);
}
