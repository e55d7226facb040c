/* instantly_reply.c: see instantly_reply.h.  The only file that includes cJSON.h. */
#include "instantly_reply.h"

#include "json.h"

#include <cjson/cJSON.h>
#include <string.h>
#include <strings.h>

static size_t
count_digits(const char *text, size_t len)
{
	size_t count = 0;

	while (count < len && text[count] >= '0' && text[count] <= '9')
		count++;
	return count;
}

/* Length of the number that text[0..len) begins with, 0 if JSON has no such number. */
static size_t
number_length(const char *text, size_t len)
{
	size_t at = text[0] == '-', digits = count_digits(text + at, len - at);

	if (digits == 0 || (digits > 1 && text[at] == '0'))
		return 0;
	at += digits;
	if (at < len && text[at] == '.') {
		digits = count_digits(text + at + 1, len - at - 1);
		at += 1 + digits;
	}
	if (digits > 0 && at < len && (text[at] == 'e' || text[at] == 'E')) {
		at++;
		if (at < len && (text[at] == '+' || text[at] == '-'))
			at++;
		digits = count_digits(text + at, len - at);
		at += digits;
	}
	return digits > 0 ? at : 0;
}

/* Length of the escape that text[0..len), behind its backslash, begins with; 0 if JSON has none such. */
static size_t
escape_length(const char *text, size_t len)
{
	size_t i;

	if (len == 0 || text[0] != 'u')
		return len > 0 && strchr("\"\\/bfnrt", text[0]) != NULL;
	for (i = 1; i <= 4; i++)
		if (i >= len || strchr("0123456789abcdefABCDEF", text[i]) == NULL)
			return 0;
	return 5;
}

/*
 * What cJSON lets pass: bytes that are no UTF-8, control characters in a string or between tokens,
 * a NUL, escapes like \u12 and numbers like 01 and 1.  A reply with those was damaged on its way,
 * and a damaged one is no acceptance.  An escaped NUL is none of these, but cJSON would end the string
 * or the name there, and take "status\u0000" for "status": it becomes U+FFFD, in place.
 */
static bool
is_clean(char *body, size_t len)
{
	bool in_string = false;
	size_t i, length;

	if (!json_utf8_valid(body, len))
		return false;
	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)body[i];

		if (c < ' ' && (in_string || strchr("\t\r\n", c) == NULL))
			return false;
		if (in_string && c == '\\') {
			length = escape_length(body + i + 1, len - i - 1);
			if (length == 0)
				return false;
			if (length == 5 && memcmp(body + i + 2, "0000", 4) == 0)
				memcpy(body + i + 2, "fffd", 4);
			i += length;
		} else if (c == '"') {
			in_string = !in_string;
		} else if (!in_string && (c == '-' || (c >= '0' && c <= '9'))) {
			length = number_length(body + i, len - i);
			if (length == 0)
				return false;
			i += length - 1;
		}
	}
	return true;
}

/* One whole JSON object and nothing behind it but white space; else NULL. */
static cJSON *
parse_object(const char *body, size_t len)
{
	const char *end = NULL;
	struct buf copy;
	cJSON *root = NULL;

	buf_init(&copy, len);
	buf_add(&copy, body, len);
	if (buf_check(&copy) != ERR_OK || !is_clean(copy.data, len))
		goto out;
	root = cJSON_ParseWithLengthOpts(copy.data, len, &end, 0);
	if (root == NULL)
		goto out;
	while (end < copy.data + len && strchr(" \t\r\n", *end) != NULL && *end != '\0')
		end++;
	if (end != copy.data + len || !cJSON_IsObject(root)) {
		cJSON_Delete(root);
		root = NULL;
	}
out:
	buf_free(&copy);
	return root;
}

static const char *
get_string(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* A non-null member "error", also when a harmless twin comes first. */
static bool
has_error(const cJSON *object)
{
	const cJSON *member;

	cJSON_ArrayForEach (member, object)
		if (member->string != NULL && strcmp(member->string, "error") == 0 &&
			!cJSON_IsNull(member))
			return true;
	return false;
}

/*
 * Whether a job that ended with "success" failed for this address.  Its data list what became of
 * each; a job that lists others only, or nobody, but counts a failure, can only mean ours, because
 * we asked for one address.
 */
static bool
failed_for(const cJSON *job, const char *address)
{
	const cJSON *data = cJSON_GetObjectItemCaseSensitive(job, "data");
	const cJSON *count = cJSON_GetObjectItemCaseSensitive(data, "failed_count"), *item;
	const char *email, *status;
	bool listed = false;

	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(data, "processed_emails")) {
		email = get_string(item, "email");
		if (email == NULL || strcasecmp(email, address) != 0)
			continue;
		status = get_string(item, "status");
		if ((status != NULL && strcmp(status, "failed") == 0) || has_error(item))
			return true;
		listed = true;
	}
	return !listed && cJSON_IsNumber(count) && count->valuedouble > 0;
}

static bool
job_ended(const cJSON *job, const char *address, bool *failed)
{
	const char *status = get_string(job, "status");

	*failed = false;
	if (status == NULL)
		return false;
	if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)
		*failed = true;
	else if (strcmp(status, "success") == 0)
		*failed = failed_for(job, address);
	else
		return false; /* pending, in-progress, draining, paused, and what may be added */
	return true;
}

static const char job_id_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					"0123456789_-";

static void
take_job_id(const cJSON *job, char id[JOB_ID_LEN_MAX + 1])
{
	const char *text = get_string(job, "id");

	if (text != NULL && strlen(text) <= JOB_ID_LEN_MAX &&
		text[strspn(text, job_id_characters)] == '\0')
		memcpy(id, text, strlen(text) + 1);
}

void
reply_read_enable(const char *body, size_t len, const char *address, struct enable_verdict *verdict)
{
	cJSON *root;
	bool failed;

	memset(verdict, 0, sizeof(*verdict));
	verdict->outcome = UPSTREAM_ACCEPTED;
	if (len == 0)
		return;
	root = parse_object(body, len);
	if (root == NULL) {
		verdict->outcome = UPSTREAM_NOT_JSON;
		return;
	}
	verdict->finished = job_ended(root, address, &failed);
	if (verdict->finished && failed)
		verdict->outcome = UPSTREAM_JOB_FAILED;
	else if (has_error(root))
		verdict->outcome = UPSTREAM_ERROR_MEMBER;
	take_job_id(root, verdict->job_id);
	cJSON_Delete(root);
}

bool
reply_read_job(const char *body, size_t len, const char *address, bool *failed)
{
	cJSON *root = parse_object(body, len);
	bool ended = root != NULL && job_ended(root, address, failed);

	if (!ended)
		*failed = false;
	cJSON_Delete(root);
	return ended;
}

bool
reply_read_account(const char *body, size_t len)
{
	cJSON *root = parse_object(body, len);
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(root, "warmup_status");
	bool active = cJSON_IsNumber(status) && status->valuedouble == 1.0;

	cJSON_Delete(root);
	return active;
}

bool
reply_is_object(const char *body, size_t len, const char *array)
{
	cJSON *root = parse_object(body, len);
	bool is = root != NULL &&
		(array == NULL || cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(root, array)));

	cJSON_Delete(root);
	return is;
}

enum err
reply_write_enable_body(struct buf *body, const char *address)
{
	json_open(body, '{');
	json_key(body, "emails");
	json_open(body, '[');
	json_text(body, address);
	json_close(body, ']');
	json_close(body, '}');
	return buf_check(body);
}
