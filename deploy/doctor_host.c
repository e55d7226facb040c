/*
 * doctor_host.c: the responder as callers meet it, through the host that serves it.
 *
 * Only requests that cannot change a row are sent: health, OPTIONS, a key that nobody has, and a
 * customer's key with an id that is no UUID, which is refused after the key was accepted and before
 * any account is looked for.  So nothing can happen even if the host works on another database.
 */
#include "doctor.h"

#include "api_key.h"
#include "clock.h"
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NIL_ID "00000000-0000-0000-0000-000000000000"
#define BAD_ID "00000000-0000-0000-0000-000000000001" /* version 0 is none but in the nil id */

#define ROUTE(id) "/api/email/accounts/" id "/retry-warmup"

/* Of the right form, and the hash of no key: nobody draws 256 zero bits. */
#define NOBODYS_KEY "pk_live_0000000000000000000000000000000000000000000000000000000000000000"

static const char health_check[] = "host.health", route_check[] = "host.route",
		  bodies_check[] = "host.bodies", authorization_check[] = "host.authorization";

static const char *const names[] = { health_check, route_check, bodies_check, authorization_check };

struct host {
	struct doctor *doctor;
	const char *url;
	char request_id[40];
	struct http *http; /* of the last request, for its headers */
	struct http_reply reply;
};

/* Exchanges that brought no reply. */
static const struct {
	const char *found, *todo;
} no_reply[] = {
	[HTTP_COMPLETE] = { "", "" },
	[HTTP_UNREACHABLE] = { "no connection",
		"start the web server, or correct --url: host, port, name resolution, firewall" },
	[HTTP_TIMEOUT] = { "no answer in time",
		"look into the web server's log: is the responder running, and who may write to its "
		"socket?" },
	[HTTP_TLS] = { "the TLS handshake failed or its certificate is not trusted",
		"mend the web server's certificate, its chain included, or the name in --url" },
	[HTTP_INCOMPLETE] = { "the answer was cut short", "look into the web server's error log" },
	[HTTP_OVERSIZED] = { "an answer that is far too long to be ours", "correct --url" },
	[HTTP_GARBLED] = { "an answer that is no HTTP", "correct --url: is it the right port?" },
};

/* One request.  False if no reply came. */
static bool
ask(struct host *host, const char *bearer, const char *method, const char *path)
{
	const struct config *config = &host->doctor->config;
	const struct http_options options = { host->url, bearer, "",
		config->upstream_connect_timeout_ms, host->request_id };

	http_close(host->http);
	host->http = NULL;
	host->reply.end = HTTP_INCOMPLETE;
	if (http_open(&options, &host->http) != ERR_OK)
		return false;
	http_probe(host->http, method, path, clock_deadline_us(config->upstream_timeout_ms),
		&host->reply);
	return host->reply.end == HTTP_COMPLETE;
}

static bool
has_header(const struct host *host, const char *name, const char *wanted)
{
	const char *value = http_header(host->http, name);

	return value != NULL && strcmp(value, wanted) == 0;
}

/* Whether the reply is an error of ours with that code; "" = any. */
static bool
says(const struct host *host, const char *code)
{
	char start[64];
	int len = snprintf(start, sizeof(start), "{\"error\":{\"code\":\"%s%s", code,
		code[0] != '\0' ? "\"," : "");

	return strncmp(buf_text(&host->reply.body), start, (size_t)len) == 0;
}

static bool
is_body(const struct host *host, const char *body)
{
	return strcmp(buf_text(&host->reply.body), body) == 0;
}

/* What only the responder itself can be blamed for; true if that is what came. */
static bool
report_trouble(struct host *host, const char *check)
{
	if (says(host, "unavailable") || is_body(host, "{\"status\":\"unavailable\"}"))
		doctor_report(host->doctor, check, DOCTOR_FAIL,
			"the responder answers 503: it does not reach its database",
			"compare the settings that the web server starts it with to these here, and "
			"look into the web server's error log");
	else if (says(host, "internal_error"))
		doctor_report(host->doctor, check, DOCTOR_FAIL, "the responder answers 500",
			"look into the web server's error log: it names the setting or the fault");
	else
		return false;
	return true;
}

/* False if nothing answers at all. */
static bool
check_health(struct host *host)
{
	static const char *const paths[] = { "/healthz", "/api/healthz" };
	char found[CONFIG_URL_MAX + 128];
	size_t i;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (!ask(host, "", "GET", paths[i])) {
			snprintf(found, sizeof(found), "%s: %s", host->url,
				no_reply[host->reply.end].found);
			doctor_report(host->doctor, health_check, DOCTOR_FAIL, found,
				no_reply[host->reply.end].todo);
			return false;
		}
		if (is_body(host, "{\"status\":\"ok\"}")) {
			snprintf(found, sizeof(found), "ok, at %s%s", host->url, paths[i]);
			doctor_report(host->doctor, health_check, DOCTOR_OK, found, NULL);
			return true;
		}
		if (report_trouble(host, health_check))
			return true;
	}
	doctor_report(host->doctor, health_check, DOCTOR_WARN,
		"neither /healthz nor /api/healthz is the responder's",
		"give it one of these paths, for monitoring; deploy/hosts has a sample for each "
		"server");
	return true;
}

/*
 * Whether the path leads to the responder, by an answer to OPTIONS that only it gives; a host may
 * answer OPTIONS by itself, so a PATCH that arrives proves it as well.  The reply to that PATCH is
 * left in place.  False if it did not arrive.
 */
static bool
check_route(struct host *host)
{
	char found[160];
	bool mounted = ask(host, "", "OPTIONS", ROUTE(NIL_ID)) && host->reply.status == 204 &&
		has_header(host, "Allow", "PATCH, OPTIONS");
	int status = host->reply.status;

	if (!ask(host, NOBODYS_KEY, "PATCH", ROUTE(NIL_ID))) {
		doctor_report(host->doctor, route_check, DOCTOR_FAIL,
			no_reply[host->reply.end].found, no_reply[host->reply.end].todo);
		return false;
	}
	if (mounted) {
		doctor_report(host->doctor, route_check, DOCTOR_OK, "the route is here", NULL);
		return true;
	}
	if (says(host, "not_found")) {
		doctor_report(host->doctor, route_check, DOCTOR_FAIL,
			"the responder is here, but this path is no route of it",
			"give as --url what comes before /api/email/accounts/, and mount the "
			"responder as the sample in deploy/hosts does");
		return false;
	}
	if (says(host, "")) {
		snprintf(found, sizeof(found),
			"PATCH arrives, but OPTIONS is answered by something else (%d)", status);
		doctor_report(host->doctor, route_check, DOCTOR_WARN, found,
			"let OPTIONS through to the responder, or ignore this if no browser calls it");
		return true;
	}
	snprintf(found, sizeof(found),
		"the responder is not mounted here: something else answers %d to OPTIONS and %d to "
		"PATCH",
		status, host->reply.status);
	doctor_report(host->doctor, route_check, DOCTOR_FAIL, found,
		"correct --url, or give the route to the responder as the sample in deploy/hosts "
		"does, and reload the web server");
	return false;
}

/* The headers that our 401 must have, as they were sent. */
static bool
check_headers(struct host *host)
{
	const struct {
		const char *name, *wanted;
		enum doctor_result result;
		const char *todo;
	} headers[] = {
		{ "WWW-Authenticate", "Bearer", DOCTOR_FAIL,
			"let the web server pass this header on as it comes" },
		{ "Cache-Control", "no-store", DOCTOR_FAIL,
			"let the web server and every cache before it pass this header on as it comes" },
		{ "X-Request-Id", host->request_id, DOCTOR_WARN,
			"if it is to be the caller's own, let it through in both directions" },
	};
	bool well = true;
	size_t i;

	for (i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		char found[160];

		if (has_header(host, headers[i].name, headers[i].wanted))
			continue;
		well = false;
		snprintf(found, sizeof(found), "the header %s does not come through as %s",
			headers[i].name, headers[i].wanted);
		doctor_report(
			host->doctor, bodies_check, headers[i].result, found, headers[i].todo);
	}
	return well;
}

/* Judges the reply to a key that nobody has.  False if it is not ours. */
static bool
check_bodies(struct host *host)
{
	char found[128];

	if (report_trouble(host, bodies_check))
		return false;
	if (host->reply.status == 401 && says(host, "unauthorized")) {
		if (check_headers(host))
			doctor_report(host->doctor, bodies_check, DOCTOR_OK,
				"errors arrive as the responder wrote them", NULL);
		return true;
	}
	if (host->reply.status == 401) {
		doctor_report(host->doctor, bodies_check, DOCTOR_FAIL,
			"the host puts pages of its own in place of the responder's errors",
			"set ProxyErrorOverride Off (Apache), fastcgi_intercept_errors off (nginx), "
			"server.error-intercept = \"disable\" (lighttpd) for the route; or the host "
			"asks for a password of its own there: take that off");
		return false;
	}
	snprintf(found, sizeof(found), "PATCH does not arrive: the host itself answers %d",
		host->reply.status);
	doctor_report(host->doctor, bodies_check, DOCTOR_FAIL, found,
		"let the method PATCH and the Authorization header through to the responder");
	return false;
}

/* What our own database says of the key. */
enum known { KEY_UNSEEN, KEY_GOOD, KEY_REVOKED, KEY_UNKNOWN };

static enum known
look_up(struct doctor *doctor, const char *key)
{
	static const struct db_statement find = { "doctor_key",
		"SELECT (revoked_at IS NULL)::int::text FROM api_keys WHERE key_hash = $1::bytea"
		" ORDER BY 1 DESC LIMIT 1",
		1 };
	unsigned char hash[API_KEY_HASH_BYTES];
	const struct db_param params[] = { { (char *)hash, sizeof(hash) } };
	struct db_result *result = NULL;
	enum known known = KEY_UNSEEN;

	doctor_listen(doctor);
	if (doctor->db == NULL || api_key_hash(key, strlen(key), hash) != ERR_OK ||
		db_run(doctor->db, &find, params, clock_deadline_us(doctor->config.db_timeout_ms),
			&result) != ERR_OK)
		return KEY_UNSEEN;
	if (db_rows(result) == 0)
		known = KEY_UNKNOWN;
	else
		known = db_value(result, 0, 0, NULL)[0] == '1' ? KEY_GOOD : KEY_REVOKED;
	db_result_free(result);
	return known;
}

#define PASS_ON                                                                                    \
	"CGIPassAuth On, or SetEnvIf Authorization \"(.+)\" HTTP_AUTHORIZATION=$1 (Apache); "      \
	"elsewhere pass the Authorization header on to the responder"

/* What follows from both: [known][whether the responder took the key]. */
static const struct {
	enum doctor_result result;
	const char *found, *todo;
} verdicts[][2] = {
	[KEY_UNSEEN] = { { DOCTOR_FAIL,
				 "the key is refused, and cannot be looked up in the database from here",
				 "either the key is wrong or revoked (warmupctl key list), or the host drops it: " PASS_ON },
		{ DOCTOR_OK, "the key arrives and is good", NULL } },
	[KEY_GOOD] = { { DOCTOR_FAIL,
			       "the host drops the Authorization header: the key is good, and refused "
			       "through the host",
			       PASS_ON },
		{ DOCTOR_OK, "the key arrives and is good", NULL } },
	[KEY_REVOKED] = { { DOCTOR_FAIL, "the key is revoked",
				  "give a key that is not: warmupctl key list" },
		{ DOCTOR_FAIL, "the responder takes a key that is revoked in this database",
			"it works on another one: compare the settings that the web server starts it "
			"with to these here" } },
	[KEY_UNKNOWN] = { { DOCTOR_FAIL, "the key is not in the database",
				  "give one that is: warmupctl key list, or make one: warmupctl key add" },
		{ DOCTOR_FAIL, "the responder takes a key that is not in this database",
			"it works on another one: compare the settings that the web server starts it "
			"with to these here" } },
};

static void
check_authorization(struct host *host, const char *key)
{
	enum known known = look_up(host->doctor, key);
	char found[96];
	bool taken;

	if (!ask(host, key, "PATCH", ROUTE(BAD_ID))) {
		doctor_report(host->doctor, authorization_check, DOCTOR_FAIL,
			no_reply[host->reply.end].found, no_reply[host->reply.end].todo);
		return;
	}
	if (report_trouble(host, authorization_check))
		return;
	taken = says(host, "invalid_request");
	if (!taken && !says(host, "unauthorized")) {
		snprintf(found, sizeof(found), "an answer that should not come (%d)",
			host->reply.status);
		doctor_report(host->doctor, authorization_check, DOCTOR_FAIL, found,
			"look into the web server's error log");
		return;
	}
	doctor_report(host->doctor, authorization_check, verdicts[known][taken].result,
		verdicts[known][taken].found, verdicts[known][taken].todo);
}

/* The checks in their order; gives how many were made. */
static size_t
check_all(struct host *host, const char *key, const char **why_not)
{
	*why_not = "not looked at: the check above comes first";
	if (!check_health(host))
		return 1;
	if (!check_route(host))
		return 2;
	if (!check_bodies(host))
		return 3;
	if (key == NULL) {
		*why_not = "not looked at: give one of your keys with --key-file FILE, or - for "
			   "standard input";
		return 3;
	}
	check_authorization(host, key);
	return 4;
}

void
doctor_check_host(struct doctor *doctor, const char *url, const char *key, const char *why_not)
{
	struct host host = { .doctor = doctor, .url = url };
	size_t made = 0;

	snprintf(host.request_id, sizeof(host.request_id), "doctor-%ld-%llx", (long)getpid(),
		(unsigned long long)clock_now_us());
	buf_init(&host.reply.body, HTTP_REPLY_MAX);
	if (why_not == NULL)
		made = check_all(&host, key, &why_not);
	for (; made < sizeof(names) / sizeof(names[0]); made++)
		doctor_report(doctor, names[made], DOCTOR_SKIP, why_not, NULL);
	http_close(host.http);
	buf_free(&host.reply.body);
}
