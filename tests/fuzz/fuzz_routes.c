/*
 * fuzz_routes.c: any CGI variables, through request.c, routes.c, retry_warmup.c and answer.c, in a
 * world (the database, Instantly) that the input chooses.
 *
 * Properties:
 *   - the status is the one that the contract's order of judgement gives, read independently: route,
 *     method, key, body, id, account, gate, Instantly;
 *   - the database is asked for exactly the path's segment, as it came, and for no id that is none;
 *     a malformed token costs no call of it;
 *   - the answer's head is lines of known names with no byte in them that a line cannot have, its
 *     Content-Length is exact, its body JSON;
 *   - X-Request-Id is the caller's own only if it is 1 to 64 of A-Za-z0-9._-, else a fresh UUID;
 *   - one log line, JSON, with that id and without control characters or the token.
 *
 * An input is lines NAME=VALUE, as the variables of a request; a line that begins with a space goes
 * on with the value before, behind a line end.  Names with a small letter are the world's: received,
 * cut (of the body), key, account, upstream (numbers), address, status (texts).
 */
#include "fuzz.h"
#include "reference_json.h"

#include "log.h"
#include "routes.h"

#include <ctype.h>
#include <strings.h>
#include <unistd.h>

#define VARIABLES_MAX 32
#define USER_ID       "49970d02-38fd-4cd7-b65a-55d8287bab87"

enum err __wrap_account_load(struct db *db, const unsigned char key_hash[API_KEY_HASH_BYTES],
	const char *id, int64_t deadline_us, struct caller *caller, struct account *account);
enum err __wrap_account_swap(struct db *db, const char *id, const char *user_id,
	const struct account_state *from, const struct account_state *to, int64_t deadline_us,
	bool *moved, struct account *account);
enum err __wrap_db_ping(struct db *db, int64_t deadline_us);
void __wrap_instantly_enable(struct instantly *instantly, const char *address, int64_t deadline_us,
	struct upstream_reply *reply);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);
ssize_t __real_write(int fd, const void *bytes, size_t len);

/* --- the input -------------------------------------------------------------------------------- */

static char *variables[VARIABLES_MAX + 1];

/* The first value of a name; NULL if it is not set. */
static const char *
value_of(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; variables[i] != NULL; i++)
		if (strncmp(variables[i], name, len) == 0 && variables[i][len] == '=')
			return variables[i] + len + 1;
	return NULL;
}

static unsigned
number_of(const char *name)
{
	const char *text = value_of(name);

	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : 0;
}

static void
read_variables(struct span rest)
{
	struct span line, variable = { NULL, 0 };
	size_t count = 0;
	bool more;

	do {
		more = span_cut_line(&rest, &line);
		if (more && variable.at != NULL && span_starts(line, " ")) {
			/* With the line end before it, and without the space: see below. */
			variable.len = (size_t)(line.at + line.len - variable.at);
			continue;
		}
		if (variable.at != NULL && count < VARIABLES_MAX) {
			char *copy = span_copy(variable), *fold;

			while ((fold = strstr(copy, "\n ")) != NULL)
				memmove(fold + 1, fold + 2, strlen(fold + 2) + 1);
			variables[count++] = strdup(copy);
			free(copy);
		}
		variable = line;
	} while (more);
	variables[count] = NULL;
}

/* --- the world -------------------------------------------------------------------------------- */

static bool asked_database;
static char asked_id[4096]; /* "" = for the key alone */
static unsigned char asked_hash[API_KEY_HASH_BYTES];
static char log_lines[8192];
static size_t log_len;

enum err
__wrap_account_load(struct db *db, const unsigned char key_hash[API_KEY_HASH_BYTES], const char *id,
	int64_t deadline_us, struct caller *caller, struct account *account)
{
	static const enum err by_key[] = { ERR_OK, ERR_UNAUTHORIZED, ERR_UNAVAILABLE,
		ERR_INTERNAL };
	enum err err = by_key[number_of("key") % COUNT(by_key)];

	(void)db;
	(void)deadline_us;
	MUST(!asked_database, "a second load");
	asked_database = true;
	memcpy(asked_hash, key_hash, sizeof(asked_hash));
	snprintf(asked_id, sizeof(asked_id), "%s", id != NULL ? id : "");
	if (err != ERR_OK)
		return err;
	snprintf(caller->user_id, sizeof(caller->user_id), USER_ID);
	if (id == NULL || number_of("account") % 4 == 1)
		return ERR_NO_ACCOUNT;
	snprintf(account->id, sizeof(account->id), "%s", id);
	snprintf(account->user_id, sizeof(account->user_id), USER_ID);
	account->type = "email";
	account->email_address = value_of("address");
	account->state.status = value_of("status");
	account->state.warmup_status = "not_started";
	return ERR_OK;
}

void
__wrap_instantly_enable(struct instantly *instantly, const char *address, int64_t deadline_us,
	struct upstream_reply *reply)
{
	(void)instantly;
	(void)deadline_us;
	MUST(strcmp(address, value_of("address")) == 0, "Instantly is asked for %s", address);
	reply->outcome = (enum upstream)(1 + number_of("upstream") % (UPSTREAM_MAX - 1));
	reply->status = 200;
	reply->retry_after_s = 7;
}

enum err
__wrap_account_swap(struct db *db, const char *id, const char *user_id,
	const struct account_state *from, const struct account_state *to, int64_t deadline_us,
	bool *moved, struct account *account)
{
	(void)db;
	(void)deadline_us;
	MUST(strcmp(id, asked_id) == 0 && strcmp(user_id, USER_ID) == 0, "another row is moved");
	MUST(strcmp(from->status, "pending") == 0 && strcmp(to->status, "warming") == 0,
		"another way");
	memset(account, 0, sizeof(*account));
	snprintf(account->id, sizeof(account->id), "%s", id);
	account->email_address = value_of("address");
	account->state = *to;
	account->type = account->domain = account->agentmail_inbox_id = value_of("address");
	snprintf(account->domain_id, sizeof(account->domain_id), USER_ID);
	*moved = true;
	return ERR_OK;
}

enum err
__wrap_db_ping(struct db *db, int64_t deadline_us)
{
	(void)db;
	(void)deadline_us;
	return number_of("key") % 2 == 0 ? ERR_OK : ERR_UNAVAILABLE;
}

ssize_t
__wrap_write(int fd, const void *bytes, size_t len)
{
	if (fd != STDERR_FILENO)
		return __real_write(fd, bytes, len);
	MUST(log_len + len < sizeof(log_lines), "too much is logged");
	memcpy(log_lines + log_len, bytes, len);
	log_len += len;
	log_lines[log_len] = '\0';
	return (ssize_t)len;
}

/* --- what the contract says ------------------------------------------------------------------- */

enum place { NOWHERE, RETRY, HEALTH };

static const char before_id[] = "/api/email/accounts/", behind_id[] = "/retry-warmup";

/* Looked at from both ends: between the two fixed parts one segment that is not empty. */
static enum place
place_of(const char *path, char *id)
{
	size_t len = strlen(path), fixed = strlen(before_id) + strlen(behind_id);

	if (strcmp(path, "/healthz") == 0)
		return HEALTH;
	/* Longer ones count as unknown. */
	if (len <= fixed || len > 2048 || strcmp(path + len - strlen(behind_id), behind_id) != 0 ||
		strncmp(path, before_id, strlen(before_id)) != 0)
		return NOWHERE;
	memcpy(id, path + strlen(before_id), len - fixed);
	id[len - fixed] = '\0';
	return strchr(id, '/') == NULL ? RETRY : NOWHERE;
}

/* Whether all of it is letters, digits and some more. */
static bool
is_of(const char *text, size_t len, const char *more)
{
	for (size_t i = 0; i < len; i++)
		if (!isascii(text[i]) ||
			(!isalnum((unsigned char)text[i]) &&
				(text[i] == '\0' || strchr(more, text[i]) == NULL)))
			return false;
	return true;
}

/* The path of a request target, "" if it has none. */
static const char *
path_of_uri(char *uri)
{
	char *behind;

	uri[strcspn(uri, "?")] = '\0';
	behind = strstr(uri, "://");
	if (behind == NULL || behind == uri || !is_of(uri, (size_t)(behind - uri), "+-."))
		return uri;
	behind = strchr(behind + 3, '/');
	return behind != NULL ? behind : "";
}

/* The first of the documented ways to a path that leads somewhere. */
static enum place
find_place(char *id)
{
	const char *script = value_of("SCRIPT_NAME"), *info = value_of("PATH_INFO");
	const char *uri = value_of("REQUEST_URI");
	char *paths[4] = { NULL }, *slash;
	enum place place = NOWHERE;

	script = script != NULL ? script : "";
	info = info != NULL ? info : "";
	if (asprintf(&paths[0], "%s%s", script, info) < 0 || (paths[1] = strdup(info)) == NULL)
		abort();
	slash = strrchr(script, '/');
	if (slash != NULL && info[0] != '\0' &&
		asprintf(&paths[2], "%.*s%s", (int)(slash - script), script, info) < 0)
		abort();
	if (info[0] == '\0' && uri != NULL)
		paths[3] = strdup(uri);
	for (size_t i = 0; place == NOWHERE && i < COUNT(paths); i++)
		if (paths[i] != NULL)
			place = place_of(i == 3 ? path_of_uri(paths[i]) : paths[i], id);
	for (size_t i = 0; i < COUNT(paths); i++)
		free(paths[i]);
	return place;
}

/* Whether the published pattern takes an id: by groups, and not by positions. */
static bool
is_uuid(const char *id)
{
	static const int lengths[] = { 8, 4, 4, 4, 12 };
	const char *groups[5], *at = id;

	if (strcmp(id, "00000000-0000-0000-0000-000000000000") == 0 ||
		strcmp(id, "ffffffff-ffff-ffff-ffff-ffffffffffff") == 0)
		return true;
	for (int i = 0; i < 5; i++) {
		int len = 0;

		for (groups[i] = at; isascii(*at) && isxdigit((unsigned char)*at); at++)
			len++;
		if (len != lengths[i] || *at++ != (i < 4 ? '-' : '\0'))
			return false;
	}
	return groups[2][0] >= '1' && groups[2][0] <= '8' && strchr("89abAB", groups[3][0]) != NULL;
}

/* The token of a header, "" for none.  fuzz_bearer.c is about this one. */
static void
find_token(char token[513])
{
	const char *header = value_of("HTTP_AUTHORIZATION");
	char scheme[8], rest[2];
	const char *at;

	token[0] = '\0';
	if (header == NULL || header[0] == '\0')
		header = value_of("REDIRECT_HTTP_AUTHORIZATION");
	if (header == NULL || strpbrk(header, "\t\n\v\f\r") != NULL)
		return;
	if (sscanf(header, " %7s", scheme) < 1 || strcasecmp(scheme, "Bearer") != 0)
		return;
	at = header + strspn(header, " ") + 6;
	at += strspn(at, " ");
	if (strcspn(at, " ") > 512 || sscanf(at, "%512s %1s", token, rest) != 1 ||
		!is_of(token, strlen(token), "._~+/=-"))
		token[0] = '\0';
}

/* 0: nothing is wrong with it. */
static int
status_of_body(void)
{
	const char *announced = value_of("CONTENT_LENGTH");
	unsigned received = number_of("received");
	char exactly[16];
	bool number;

	announced = announced != NULL ? announced : "";
	number = announced[strspn(announced, "0123456789")] == '\0';
	while (announced[0] == '0' && announced[1] != '\0')
		announced++;
	if (received > 65536 || (number && (strlen(announced) > 5 || atoi(announced) > 65536)))
		return 413;
	snprintf(exactly, sizeof(exactly), "%u", received);
	if (number_of("cut") % 2 == 1 || !number ||
		(announced[0] != '\0' && strcmp(announced, exactly) != 0))
		return 400;
	return 0;
}

static bool
is_usable_address(const char *address)
{
	struct span rest = { address, address != NULL ? strlen(address) : 0 };
	size_t length;

	if (rest.len == 0 || rest.len > 512)
		return false;
	for (; rest.len > 0; rest.at += length, rest.len -= length) {
		length = reference_utf8_length(rest);
		if (length == 0 || (unsigned char)rest.at[0] <= ' ' || rest.at[0] == 0x7F)
			return false;
	}
	return true;
}

static int
status_of_retry(const char *method, const char *id, const char *token)
{
	static const int by_key[] = { 0, 401, 503, 500 };
	unsigned key = number_of("key") % COUNT(by_key);
	const char *status = value_of("status");

	if (strcmp(method, "PATCH") != 0)
		return 405;
	if (token[0] == '\0')
		return 401;
	if (key != 0)
		return by_key[key];
	if (status_of_body() != 0)
		return status_of_body();
	if (!is_uuid(id))
		return 400;
	if (number_of("account") % 4 == 1)
		return 404;
	if (status == NULL || strcmp(status, "pending") != 0 ||
		!is_usable_address(value_of("address")))
		return 409;
	return number_of("upstream") % (UPSTREAM_MAX - 1) == 0 ? 200 : 502;
}

static int
expected_status(enum place place, const char *id, const char *token)
{
	const char *method = value_of("REQUEST_METHOD");

	method = method != NULL ? method : "";
	if (place == NOWHERE)
		return 404;
	if (strcmp(method, "OPTIONS") == 0)
		return 204;
	if (place == RETRY)
		return status_of_retry(method, id, token);
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return 405;
	return number_of("key") % 2 == 0 ? 200 : 503;
}

/* --- what must be so -------------------------------------------------------------------------- */

static void
check_head(const struct answer *answer, enum place place)
{
	static const char *const names[] = { "Status", "Content-Type", "Content-Length",
		"Cache-Control", "X-Content-Type-Options", "X-Request-Id", "WWW-Authenticate",
		"Retry-After", "Allow" };
	const char *at = buf_text(&answer->head), *end = at + answer->head.len;
	unsigned seen = 0, length = 0;
	int status = 0;

	MUST(strlen(at) == answer->head.len, "a NUL in the head");
	while (strncmp(at, "\r\n", 2) != 0) {
		const char *line_end = strstr(at, "\r\n"), *colon = strstr(at, ": ");
		size_t i;

		MUST(line_end != NULL && colon != NULL && colon < line_end, "no header: %s", at);
		for (i = 0; i < COUNT(names); i++)
			if (strlen(names[i]) == (size_t)(colon - at) &&
				strncmp(at, names[i], strlen(names[i])) == 0)
				break;
		MUST(i < COUNT(names) && (seen & 1u << i) == 0, "unknown or double: %s", at);
		seen |= 1u << i;
		for (const char *c = at; c < line_end; c++)
			MUST(*c >= ' ' && *c <= '~', "byte %d in a header", *c);
		at = line_end + 2;
	}
	MUST(at + 2 == end, "something behind the head: %s", at);
	MUST(sscanf(buf_text(&answer->head), "Status: %d ", &status) == 1 &&
			status == answer->status,
		"another status");
	MUST((seen & 0x39) == 0x39 && ((seen & 6) == 6) == (status != 204), "headers are missing");
	MUST(((seen & 0x40) != 0) == (status == 401) &&
			((seen & 0x80) != 0) ==
				(place != HEALTH && (status == 502 || status == 503)) &&
			((seen & 0x100) != 0) == (status == 405 || status == 204),
		"WWW-Authenticate, Retry-After or Allow");
	at = strstr(buf_text(&answer->head), "Content-Length: ");
	MUST(at == NULL ||
			(sscanf(at, "Content-Length: %u", &length) == 1 &&
				length == answer->body.len),
		"another length");
}

static void
check_request_id(const char *id)
{
	const char *own = value_of("HTTP_X_REQUEST_ID");

	if (own != NULL && own[0] != '\0' && strlen(own) <= 64 && is_of(own, strlen(own), "._-"))
		MUST(strcmp(id, own) == 0, "%s for the caller's %s", id, own);
	else
		MUST(is_uuid(id) && id[14] == '4', "%s is not fresh", id);
}

static void
check_log(const struct answer *answer, const char *token)
{
	struct span line = { log_lines, log_len };
	char status[16];

	MUST(log_len > 0 && log_lines[log_len - 1] == '\n' &&
			memchr(log_lines, '\n', log_len - 1) == NULL,
		"not one line: %s", log_lines);
	for (size_t i = 0; i + 1 < log_len; i++)
		MUST(log_lines[i] >= ' ' && log_lines[i] <= '~', "byte %d in %s", log_lines[i],
			log_lines);
	MUST(reference_json_valid(line, NULL) &&
			reference_json_is(
				reference_json_member(line, "request_id"), answer->request_id),
		"logged: %s", log_lines);
	snprintf(status, sizeof(status), "%d", answer->status);
	MUST(span_is(reference_json_member(line, "status"), status), "logged: %s", log_lines);
	/* Others may be words of the line; and one can be sent as the request's id, too, though not a
	   key of ours, which is longer than those may be. */
	if (strncmp(token, "pk_live_", 8) == 0 && strlen(token) > 24 &&
		strstr(answer->request_id, token) == NULL)
		MUST(strstr(log_lines, token) == NULL, "the token is logged: %s", log_lines);
}

static void
check_database(enum place place, const char *id, const char *token, int status)
{
	unsigned char hash[API_KEY_HASH_BYTES];
	bool expected = place == RETRY && token[0] != '\0' && status != 405 && status != 204;

	MUST(asked_database == expected, "the database was %sasked", expected ? "not " : "");
	if (!expected)
		return;
	MUST(api_key_hash(token, strlen(token), hash) == ERR_OK &&
			memcmp(hash, asked_hash, sizeof(hash)) == 0,
		"another token than %s", token);
	MUST(strcmp(asked_id, is_uuid(id) && status_of_body() == 0 ? id : "") == 0,
		"asked for \"%s\", the path says \"%s\"", asked_id, id);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config config = { .db_timeout_ms = 5000, .upstream_timeout_ms = 10000 };
	static struct request_ids ids;
	static struct answer answer;
	static char id[4096], token[513];
	struct ctx ctx = { .config = &config, .instantly = (struct instantly *)(void *)&config };
	struct request request;
	enum place place;
	int expected;

	read_variables((struct span){ (const char *)data, size });
	if (answer.head.max == 0)
		answer_init(&answer);
	asked_database = false;
	log_len = 0;
	id[0] = '\0';
	request_read_variables(&request, variables);
	request.body =
		request_judge_body(&request, number_of("received"), number_of("cut") % 2 == 0);
	place = find_place(id);
	find_token(token);
	expected = expected_status(place, id, token);
	routes_serve(&ctx, &request, &ids, &answer);
	MUST(answer.status == expected, "%d, by the contract %d", answer.status, expected);
	check_database(place, id, token, expected);
	check_head(&answer, place);
	check_request_id(answer.request_id);
	check_log(&answer, token);
	MUST(expected == 204 ||
			reference_json_valid(
				(struct span){ buf_text(&answer.body), answer.body.len }, NULL),
		"no JSON: %s", buf_text(&answer.body));
	for (size_t i = 0; variables[i] != NULL; i++)
		free(variables[i]);
	return 0;
}
