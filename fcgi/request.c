/* request.c: see request.h. */
#include "request.h"

#include <string.h>

#define AT(member) offsetof(struct request, member)

static const struct {
	const char *name;
	size_t offset;
} variables_used[] = {
	{ "REQUEST_METHOD", AT(method) },
	{ "SCRIPT_NAME", AT(script_name) },
	{ "PATH_INFO", AT(path_info) },
	{ "REQUEST_URI", AT(request_uri) },
	{ "HTTP_AUTHORIZATION", AT(authorization) },
	{ "REDIRECT_HTTP_AUTHORIZATION", AT(redirect_authorization) },
	{ "HTTP_X_REQUEST_ID", AT(request_id) },
	{ "CONTENT_LENGTH", AT(content_length) },
	{ "HTTP_TRANSFER_ENCODING", AT(transfer_encoding) },
};

static void
take_variable(struct request *request, const char *variable)
{
	size_t i, len = strcspn(variable, "=");

	if (variable[len] == '\0')
		return;
	for (i = 0; i < sizeof(variables_used) / sizeof(variables_used[0]); i++) {
		char *member = (char *)request + variables_used[i].offset;
		const char *value = variable + len + 1, *present;

		if (strncmp(variable, variables_used[i].name, len) != 0 ||
			variables_used[i].name[len] != '\0')
			continue;
		memcpy(&present, member, sizeof(present));
		if (present == NULL)
			memcpy(member, &value, sizeof(value));
		return;
	}
}

void
request_read_variables(struct request *request, char *const *variables)
{
	memset(request, 0, sizeof(*request));
	request->answer_by_us = REQUEST_NO_HASTE;
	for (; variables != NULL && *variables != NULL; variables++)
		take_variable(request, *variables);
}

int64_t
request_content_length(const struct request *request)
{
	const char *text = request->content_length;
	int64_t length = 0;

	if (text == NULL || text[0] == '\0')
		return REQUEST_LENGTH_NONE;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return REQUEST_LENGTH_BAD;
		/* Far too large is all that matters then; no overflow. */
		if (length <= INT64_MAX / 10 - 9)
			length = length * 10 + (*text - '0');
	}
	return length;
}

enum err
request_judge_body(const struct request *request, int64_t received, bool whole)
{
	int64_t announced = request_content_length(request);

	if (received > REQUEST_BODY_MAX || announced > REQUEST_BODY_MAX)
		return ERR_BODY_TOO_LARGE;
	if (!whole || announced == REQUEST_LENGTH_BAD)
		return ERR_BODY_INCOMPLETE;
	if (announced >= 0 && announced != received)
		return ERR_BODY_INCOMPLETE;
	return ERR_OK;
}

void
request_wipe_keys(char **variables)
{
	for (; variables != NULL && *variables != NULL; variables++) {
		char *value = strstr(*variables, "AUTHORIZATION=");

		if (value != NULL)
			explicit_bzero(value, strlen(value));
	}
}
