/*
 * keys.c: warmupctl key: API keys, of which the table holds hashes only.
 */
#include "api_key.h"
#include "clock.h"
#include "command.h"
#include "json.h"
#include "output.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 200
#define PREFIX_MIN     12 /* "pk_live_" and four more: enough to mean one key */

/* All columns as text, so that binary results are text. */
#define SHOWN                                                                                      \
	"id::text, user_id::text, prefix::text, name::text,"                                       \
	" to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"               \
	" to_char(revoked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

static const char *const shown[] = { "id", "user", "prefix", "name", "created", "revoked" };

#define SHOWN_COUNT ((int)(sizeof(shown) / sizeof(shown[0])))

static const struct db_statement add = { "key_add",
	"INSERT INTO api_keys (user_id, key_hash, prefix, name)"
	" VALUES ($1::uuid, $2::bytea, $3, $4) RETURNING id::text",
	4 };

static const struct db_statement list = { "key_list",
	"SELECT " SHOWN " FROM api_keys WHERE $1::uuid IS NULL OR user_id = $1::uuid"
	" ORDER BY created_at, id",
	1 };

/* Revokes if exactly one key is meant; the rows tell which were meant. */
static const struct db_statement revoke = { "key_revoke",
	"WITH meant AS (SELECT * FROM api_keys WHERE id::text = lower($1) OR starts_with(prefix, $1)),"
	" done AS (UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL"
	" AND id = (SELECT id FROM meant WHERE (SELECT count(*) FROM meant) = 1) RETURNING *)"
	" SELECT " SHOWN " FROM done UNION ALL"
	" SELECT " SHOWN " FROM meant WHERE NOT EXISTS (SELECT FROM done)",
	1 };

/* The form of a UUID; which versions and variants users have is their business. */
static bool
is_uuid(const char *text)
{
	static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	size_t i;

	if (strlen(text) != sizeof(shape) - 1)
		return false;
	for (i = 0; text[i] != '\0'; i++)
		if (shape[i] == 'x' ? !isxdigit((unsigned char)text[i]) : text[i] != '-')
			return false;
	return true;
}

static int
misused(const char *why)
{
	fprintf(stderr, "warmupctl: %s\n", why);
	return EXIT_MISUSED;
}

static void
show_new_key(
	const struct tool *tool, const char *id, const struct options *options, const char *key)
{
	struct buf text;

	if (!tool->json) {
		printf("id    %s\nuser  %s\nname  %s\nkey   %s\n", id, options->user,
			options->name != NULL ? options->name : "-", key);
		fputs("Keep the key now: only its hash is stored, it cannot be shown again.\n",
			stderr);
		return;
	}
	buf_init(&text, 8192);
	json_open(&text, '{');
	json_key(&text, "id");
	json_text(&text, id);
	json_key(&text, "user");
	json_text(&text, options->user);
	json_key(&text, "name");
	json_text(&text, options->name);
	json_key(&text, "key");
	json_text(&text, key);
	json_close(&text, '}');
	puts(buf_text(&text));
	buf_free(&text);
}

int
key_add_run(const struct tool *tool, const struct options *options)
{
	unsigned char hash[API_KEY_HASH_BYTES];
	char key[API_KEY_MAX], prefix[API_KEY_PREFIX_LEN + 1];
	const struct db_param params[] = { { options->user, 0 }, { (char *)hash, sizeof(hash) },
		{ prefix, 0 }, { options->name, 0 } };
	struct db_result *result = NULL;
	enum err err;

	if (options->user == NULL || !is_uuid(options->user))
		return misused("key add: --user takes the UUID of the key's owner");
	if (options->name != NULL &&
		(strlen(options->name) > NAME_MAX_BYTES ||
			!json_utf8_valid(options->name, strlen(options->name))))
		return misused("key add: --name takes up to 200 bytes of UTF-8");
	err = api_key_generate(key);
	if (err == ERR_OK)
		err = api_key_hash(key, API_KEY_LEN, hash);
	if (err != ERR_OK) {
		fputs("warmupctl: key add: no random numbers to be had\n", stderr);
		return EXIT_FAILED;
	}
	memcpy(prefix, key, API_KEY_PREFIX_LEN);
	prefix[API_KEY_PREFIX_LEN] = '\0';
	err = db_run(
		tool->db, &add, params, clock_deadline_us(tool->config->db_timeout_ms), &result);
	if (err == ERR_OK && db_rows(result) == 0) {
		fputs("warmupctl: key add: a trigger or a rule keeps keys out of api_keys\n",
			stderr);
		err = ERR_DB_REFUSED;
	}
	if (err == ERR_OK)
		show_new_key(tool, db_value(result, 0, 0, NULL), options, key);
	explicit_bzero(key, sizeof(key));
	db_result_free(result);
	return err == ERR_OK ? EXIT_DONE : EXIT_FAILED;
}

int
key_list_run(const struct tool *tool, const struct options *options)
{
	const struct db_param params[] = { { options->user, 0 } };
	struct db_result *result = NULL;

	if (options->user != NULL && !is_uuid(options->user))
		return misused("key list: --user takes a UUID");
	if (db_run(tool->db, &list, params, clock_deadline_us(tool->config->db_timeout_ms),
		    &result) != ERR_OK)
		return EXIT_FAILED;
	output_rows(result, "keys", shown, SHOWN_COUNT, tool->json);
	db_result_free(result);
	return EXIT_DONE;
}

int
key_revoke_run(const struct tool *tool, const struct options *options)
{
	char meant[API_KEY_LEN + 1];
	const struct db_param params[] = { { meant, 0 } };
	struct db_result *result = NULL;
	size_t len = options->operand != NULL ? strlen(options->operand) : 0;
	int found;

	if (len < PREFIX_MIN || len > API_KEY_LEN)
		return misused(
			"key revoke: takes a key's id, or at least 12 characters of its prefix");
	snprintf(meant, sizeof(meant), "%s", options->operand);
	/* Somebody pasted the whole key: what is stored of it is enough. */
	if (!is_uuid(meant) && len > API_KEY_PREFIX_LEN)
		memset(meant + API_KEY_PREFIX_LEN, 0, sizeof(meant) - API_KEY_PREFIX_LEN);
	if (db_run(tool->db, &revoke, params, clock_deadline_us(tool->config->db_timeout_ms),
		    &result) != ERR_OK)
		return EXIT_FAILED;
	found = db_rows(result);
	if (found == 1)
		output_rows(result, "keys", shown, SHOWN_COUNT, tool->json);
	else
		fprintf(stderr,
			found == 0 ?
				"warmupctl: key revoke: no such key; see warmupctl key list\n" :
				"warmupctl: key revoke: several keys begin like that; nothing was "
				"revoked, give more of it\n");
	db_result_free(result);
	return found == 1 ? EXIT_DONE : EXIT_FAILED;
}
