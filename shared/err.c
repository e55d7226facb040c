/*
 * err.c: the one table of errors.  A unit test finds holes in it, and the manual's list of
 * responses is checked against it.
 */
#include "err.h"

#include <stddef.h>

/* A row that only modules see: should it ever reach a caller, it is an internal error. */
#define INSIDE(member)                                                                             \
	[member] = { #member, 500, "internal_error",                                               \
		"Something went wrong on our side; it has been logged", LOG_ERROR }

static const struct err_info table[ERR_MAX] = {
	[ERR_OK] = { "ERR_OK", 200, "ok", "OK", LOG_INFO },
	[ERR_INVALID_ID] = { "ERR_INVALID_ID", 400, "invalid_request",
		"The account id in the path is not a valid UUID", LOG_INFO },
	[ERR_BODY_INCOMPLETE] = { "ERR_BODY_INCOMPLETE", 400, "invalid_request",
		"The request body does not have the announced length; send none, this call needs none",
		LOG_INFO },
	[ERR_UNAUTHORIZED] = { "ERR_UNAUTHORIZED", 401, "unauthorized",
		"Missing or invalid API key; send it as \"Authorization: Bearer <key>\"",
		LOG_INFO },
	[ERR_NO_ROUTE] = { "ERR_NO_ROUTE", 404, "not_found", "No such route", LOG_INFO },
	[ERR_NO_ACCOUNT] = { "ERR_NO_ACCOUNT", 404, "not_found", "No such email account",
		LOG_INFO },
	[ERR_METHOD_NOT_ALLOWED] = { "ERR_METHOD_NOT_ALLOWED", 405, "method_not_allowed",
		"This path does not take that method; see the Allow header", LOG_INFO },
	[ERR_NOT_STUCK] = { "ERR_NOT_STUCK", 409, "conflict",
		"Only an account that is pending and whose warmup has not started can be retried",
		LOG_INFO },
	[ERR_NO_ADDRESS] = { "ERR_NO_ADDRESS", 409, "conflict",
		"The account has no usable email address to warm up", LOG_WARN },
	[ERR_MOVED_MEANWHILE] = { "ERR_MOVED_MEANWHILE", 409, "conflict",
		"The account was changed by someone else meanwhile; details show its present state",
		LOG_INFO },
	[ERR_BODY_TOO_LARGE] = { "ERR_BODY_TOO_LARGE", 413, "payload_too_large",
		"The request body is larger than 64 KiB; send none, this call needs none",
		LOG_INFO },
	[ERR_NOT_CONFIRMED] = { "ERR_NOT_CONFIRMED", 500, "internal_error",
		"Warmup was enabled but failed to update account status", LOG_ERROR },
	[ERR_INTERNAL] = { "ERR_INTERNAL", 500, "internal_error",
		"Something went wrong on our side; it has been logged", LOG_ERROR },
	[ERR_CONFIG] = { "ERR_CONFIG", 500, "internal_error",
		"The service is not configured; the server's error log names the setting",
		LOG_ERROR },
	[ERR_UPSTREAM_REJECTED] = { "ERR_UPSTREAM_REJECTED", 502, "upstream_rejected",
		"Instantly refused to enable warmup; retry after the time in Retry-After",
		LOG_WARN },
	[ERR_UPSTREAM_UNAVAILABLE] = { "ERR_UPSTREAM_UNAVAILABLE", 502, "upstream_unavailable",
		"Instantly gave no usable answer; retry after the time in Retry-After", LOG_WARN },
	[ERR_UNAVAILABLE] = { "ERR_UNAVAILABLE", 503, "unavailable",
		"The service is temporarily unavailable; retry after the time in Retry-After",
		LOG_ERROR },
	INSIDE(ERR_DB_LOST),
	INSIDE(ERR_DB_AGAIN),
	INSIDE(ERR_DB_REFUSED),
	INSIDE(ERR_TOO_LONG),
	INSIDE(ERR_NO_MEMORY),
	INSIDE(ERR_IO),
	INSIDE(ERR_STOPPED),
};

const struct err_info *
err_info(enum err err)
{
	if ((unsigned)err >= ERR_MAX || table[err].name == NULL)
		return &table[ERR_INTERNAL];
	return &table[err];
}
