/*
 * routes.c: see routes.h.  A route is a row of the table and a handler in its own file.
 */
#include "routes.h"

#include "clock.h"
#include "health.h"
#include "log.h"
#include "retry_warmup.h"

#include <stdio.h>
#include <string.h>

#define PATH_MAX_BYTES 2048 /* the longest known path is under 100; a longer one is no route */
#define ALLOW_MAX      64

struct route {
	const char *method; /* GET serves HEAD, too */
	const char *pattern;
	const char *allow; /* what a 405 and OPTIONS say of this path */
	enum err (*handler)(struct ctx *ctx, const struct route_call *call, struct answer *answer);
};

static const struct route table[] = {
	{ "PATCH", "/api/email/accounts/{id}/retry-warmup", "PATCH, OPTIONS", retry_warmup },
	{ "GET", "/healthz", "GET, HEAD, OPTIONS", health },
};

/* Methods that may stand in the log by name. */
static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
	"TRACE" };

static const char scheme_characters[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-.";

/*
 * Whether a path matches a pattern, exactly; {id} stands for one segment that is not empty, whose
 * place is then in *id and *id_len.
 */
static bool
match(const char *pattern, const char *path, const char **id, size_t *id_len)
{
	size_t before = strcspn(pattern, "{");

	*id_len = 0;
	if (strncmp(pattern, path, before) != 0)
		return false;
	if (pattern[before] == '\0')
		return path[before] == '\0';
	*id = path + before;
	*id_len = strcspn(*id, "/");
	return *id_len > 0 && strcmp(*id + *id_len, strchr(pattern, '}') + 1) == 0;
}

static const struct route *
find(const char *path, const char **id, size_t *id_len)
{
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (match(table[i].pattern, path, id, id_len))
			return &table[i];
	return NULL;
}

/* Joins a first part (its first `len` bytes) and a second into path; false if it does not fit. */
static bool
join(char path[PATH_MAX_BYTES + 1], const char *first, size_t len, const char *second)
{
	size_t second_len = strlen(second);

	if (len + second_len > PATH_MAX_BYTES)
		return false;
	memcpy(path, first, len);
	memcpy(path + len, second, second_len + 1);
	return true;
}

/* The path part of a request target: neither query nor, in its absolute form, scheme and host. */
static bool
join_uri(char path[PATH_MAX_BYTES + 1], const char *uri)
{
	size_t len = strspn(uri, scheme_characters);

	if (len > 0 && strncmp(uri + len, "://", 3) == 0) {
		uri += len + 3;
		uri += strcspn(uri, "/?");
	}
	len = strcspn(uri, "?");
	if (len > PATH_MAX_BYTES)
		return false;
	memcpy(path, uri, len);
	path[len] = '\0';
	return true;
}

/*
 * Finds the route by each way in which a host may describe the path, in the documented order; the
 * first known one counts.  path holds it, so id points into it.
 */
static const struct route *
find_route(const struct request *request, char path[PATH_MAX_BYTES + 1], const char **id,
	size_t *id_len)
{
	const char *script = request->script_name != NULL ? request->script_name : "";
	const char *info = request->path_info != NULL ? request->path_info : "";
	const char *last = strrchr(script, '/');
	const struct route *route = NULL;

	if (join(path, script, strlen(script), info))
		route = find(path, id, id_len);
	if (route == NULL && join(path, "", 0, info))
		route = find(path, id, id_len);
	/* A rewrite made SCRIPT_NAME the program's own file: its folder is the mount.  Not without
	   PATH_INFO: then a known path with anything behind it would pass for that path. */
	if (route == NULL && info[0] != '\0' && last != NULL &&
		join(path, script, (size_t)(last - script), info))
		route = find(path, id, id_len);
	/* Last, and only without PATH_INFO: it is raw, while hosts decide on the decoded path. */
	if (route == NULL && info[0] == '\0' && request->request_uri != NULL &&
		join_uri(path, request->request_uri))
		route = find(path, id, id_len);
	return route;
}

static const char *
known_method(const char *method)
{
	size_t i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strcmp(methods[i], method) == 0)
			return methods[i];
	return "OTHER";
}

/* Route and method, then the handler. */
static enum err
dispatch(struct ctx *ctx, const struct request *request, const struct route *route,
	const char *method, const char *id, struct answer *answer)
{
	const struct route_call call = { request, id };

	if (clock_left_ms(request->answer_by_us) == 0)
		return ERR_UNAVAILABLE; /* the process is stopping, and this one came too late */
	if (route == NULL)
		return ERR_NO_ROUTE;
	if (strcmp(method, "OPTIONS") == 0) {
		answer->allow = route->allow;
		return answer_options(answer);
	}
	if (answer->head_only)
		method = "GET";
	if (strcmp(method, route->method) != 0) {
		answer->allow = route->allow;
		return ERR_METHOD_NOT_ALLOWED;
	}
	return route->handler(ctx, &call, answer);
}

static void
log_served(const struct ctx *ctx, const struct answer *answer, const char *method,
	const struct route *route, int64_t start_us, enum err err)
{
	const struct log_request line = {
		.method = method,
		.route = route != NULL ? route->pattern : "-",
		.status = answer->status,
		.code = answer->code,
		.duration_us = clock_now_us() - start_us,
		.db_us = ctx->db_us,
		.upstream_us = ctx->upstream_us,
		.account_id = ctx->account.id,
		.user_id = ctx->caller.user_id,
		.key_prefix = ctx->caller.key_prefix,
		.upstream_status = ctx->upstream.status,
	};

	log_request(
		&line, err == ERR_OK && answer->status >= 500 ? LOG_WARN : err_info(err)->level);
}

void
routes_serve(struct ctx *ctx, const struct request *request, struct request_ids *ids,
	struct answer *answer)
{
	int64_t start_us = clock_now_us();
	char path[PATH_MAX_BYTES + 1], *id_end;
	const char *id = "", *method = known_method(request->method != NULL ? request->method : "");
	const struct route *route;
	size_t id_len = 0;
	enum err err;

	answer_reset(answer);
	answer->head_only = strcmp(method, "HEAD") == 0;
	request_id_choose(ids, request->request_id, answer->request_id);
	log_set_request_id(answer->request_id);
	route = find_route(request, path, &id, &id_len);
	if (route != NULL && id_len > 0) {
		id_end = path + (id - path) + id_len;
		*id_end = '\0';
	}
	err = dispatch(ctx, request, route, method, id_len > 0 ? id : "", answer);
	if (err != ERR_OK)
		answer_error(answer, err, ctx);
	answer_finish(answer);
	log_served(ctx, answer, method, route, start_us, err);
	log_set_request_id(NULL);

	account_free(&ctx->account);
	memset(&ctx->caller, 0, sizeof(ctx->caller));
	memset(&ctx->upstream, 0, sizeof(ctx->upstream));
	ctx->db_us = ctx->upstream_us = 0;
}

void
routes_refuse(
	enum err err, const struct request *request, struct request_ids *ids, struct answer *answer)
{
	static const struct ctx nothing;
	const char *method = known_method(request->method != NULL ? request->method : "");

	answer_reset(answer);
	request_id_choose(ids, request->request_id, answer->request_id);
	log_set_request_id(answer->request_id);
	answer_error(answer, err, &nothing);
	answer->head_only = strcmp(method, "HEAD") == 0;
	answer_finish(answer);
	log_served(&nothing, answer, method, NULL, clock_now_us(), err);
	log_set_request_id(NULL);
}
