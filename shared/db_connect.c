/*
 * db_connect.c: see db_connect.h.
 *
 * libpq goes through several hosts by itself, but its asynchronous interface leaves all timing to
 * us and has no way to say "next".  So the list is taken apart here, and each host is tried alone.
 */
#include "db_connect.h"

#include "clock.h"
#include "db_outcome.h"
#include "log.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 64  /* libpq 17 knows 47, plus our own three */
#define HOST_MAX    256 /* of one host in the list; a DNS name has 253 */
#define MS_PER_S    1000

/* The options that may be lists, an item for each host. */
static const char *const lists[] = { "host", "hostaddr", "port" };

#define LIST_COUNT (sizeof(lists) / sizeof(lists[0]))

/* The server's words on a failed connect are an operator's best help; they name host, user and
   database, but should they ever quote the password, they are dropped. */
static void
log_connect_failure(const PGconn *conn, bool late)
{
	static _Atomic int64_t quiet_until_us;
	const char *password = PQpass(conn), *text = PQerrorMessage(conn);

	if (!log_is_due(&quiet_until_us))
		return;
	if (late)
		text = "no answer within WARMUP_DB_TIMEOUT_MS";
	else if (password != NULL && password[0] != '\0' && strstr(text, password) != NULL)
		text = "(the server's text is withheld: it quotes the password)";
	log_fault(LOG_ERROR, "cannot connect to the database: check DATABASE_URL and the server",
		text);
}

static enum err
connect_within(PGconn *conn, int64_t deadline_us)
{
	PostgresPollingStatusType next =
		PGRES_POLLING_WRITING; /* libpq's rule for the first wait */

	while (next != PGRES_POLLING_OK) {
		if (next == PGRES_POLLING_FAILED)
			return ERR_UNAVAILABLE;
		if (db_outcome_poll(conn, next == PGRES_POLLING_READING ? POLLIN : POLLOUT,
			    deadline_us) != ERR_OK)
			return ERR_DB_LOST;
		next = PQconnectPoll(conn);
	}
	return ERR_OK;
}

static const char *
option_of(const PQconninfoOption *options, const char *keyword)
{
	for (; options->keyword != NULL; options++)
		if (strcmp(options->keyword, keyword) == 0)
			return options->val != NULL ? options->val : "";
	return "";
}

/* A whole number of seconds, 0 if it is none or absurd. */
static int
seconds_of(const char *text)
{
	long seconds = strtol(text, NULL, 10);

	return seconds > 0 && seconds < 3600 ? (int)seconds : 0;
}

static int
count_items(const char *list)
{
	int count = 1;

	for (; *list != '\0'; list++)
		count += *list == ',';
	return count;
}

/* Item number `index` of a list.  A single one counts for all, as a single port does in libpq; one
   that is too long, or missing, is empty. */
static const char *
item_of(const char *list, int index, char item[HOST_MAX])
{
	size_t len;

	for (; index > 0 && strchr(list, ',') != NULL; index--)
		list = strchr(list, ',') + 1;
	len = strcspn(list, ",");
	if (len >= HOST_MAX)
		len = 0;
	memcpy(item, list, len);
	item[len] = '\0';
	return item;
}

/* Begins to connect to one host, with our own encoding and name. */
static PGconn *
start(const PQconninfoOption *options, int index)
{
	const char *keywords[OPTIONS_MAX + 1] = { NULL }, *values[OPTIONS_MAX + 1] = { NULL };
	char items[LIST_COUNT][HOST_MAX];
	size_t count = 0, i;

	/* Unless it is asked for: Kerberos would be looked into for every connection, and crashes
	   when memory runs out. */
	if (getenv("PGGSSENCMODE") == NULL) {
		keywords[count] = "gssencmode";
		values[count++] = "disable";
	}
	for (; options->keyword != NULL && count < OPTIONS_MAX - 2; options++) {
		if (options->val == NULL)
			continue;
		keywords[count] = options->keyword;
		values[count] = options->val;
		for (i = 0; i < LIST_COUNT; i++)
			if (strcmp(lists[i], options->keyword) == 0)
				values[count] = item_of(options->val, index, items[i]);
		count++;
	}
	keywords[count] = "client_encoding"; /* whatever the URL says: the later one counts */
	values[count++] = "UTF8";
	keywords[count] = "fallback_application_name";
	values[count++] = "warmup";
	return PQconnectStartParams(keywords, values, 0);
}

/* One host, until its deadline. */
static PGconn *
connect_to(const PQconninfoOption *options, int index, int64_t deadline_us)
{
	PGconn *conn = start(options, index);
	enum err err = ERR_UNAVAILABLE;

	if (conn != NULL && PQstatus(conn) != CONNECTION_BAD)
		err = connect_within(conn, deadline_us);
	if (err == ERR_OK)
		return conn;
	if (conn != NULL)
		log_connect_failure(conn, err == ERR_DB_LOST);
	PQfinish(conn);
	return NULL;
}

PGconn *
db_connect(const char *url, int64_t deadline_us)
{
	PQconninfoOption *options = PQconninfoParse(url, NULL);
	PGconn *conn = NULL;
	const char *list;
	int count, own_ms, i;

	if (options == NULL)
		return NULL; /* out of memory: the settings were checked */
	list = option_of(options, "hostaddr");
	count = count_items(list[0] != '\0' ? list : option_of(options, "host"));
	own_ms = seconds_of(option_of(options, "connect_timeout")) * MS_PER_S;
	for (i = 0; conn == NULL && i < count; i++) {
		int left_ms = clock_left_ms(deadline_us);

		conn = connect_to(options, i,
			clock_share_us(deadline_us,
				own_ms > 0 && count > 1 ? own_ms : left_ms / (count - i)));
	}
	PQconninfoFree(options);
	return conn;
}

/* Whether each item is short enough for item_of(). */
static bool
items_fit(const char *list)
{
	size_t len = strcspn(list, ",");

	for (; len < HOST_MAX && list[len] != '\0'; len = strcspn(list, ","))
		list += len + 1;
	return len < HOST_MAX;
}

enum err
db_url_check(char *url)
{
	char *message = NULL;
	PQconninfoOption *options = PQconninfoParse(url, &message);
	enum err err = ERR_OK;
	size_t i;
	bool memory = message == NULL || strstr(message, "out of memory") != NULL;

	/* libpq's message quotes the string, password and all: dropped. */
	PQfreemem(message);
	if (options == NULL)
		return memory ? ERR_NO_MEMORY : ERR_CONFIG;
	for (i = 0; i < LIST_COUNT; i++)
		if (!items_fit(option_of(options, lists[i])))
			err = ERR_CONFIG;
	PQconninfoFree(options);
	return err;
}
