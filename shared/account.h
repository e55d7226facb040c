/*
 * account.h: a customer's inbox: the row, and all SQL on it.
 *
 * The row moves along one arrow only, ACCOUNT_STUCK to ACCOUNT_WARMING, and only by
 * account_swap(), a compare-and-swap in one statement.
 */
#ifndef WARMUP_ACCOUNT_H
#define WARMUP_ACCOUNT_H

#include "api_key.h"
#include "db.h"
#include "err.h"
#include "uuid.h"

#include <stdbool.h>
#include <stdint.h>

/* The two columns that make up an account's state; free text, known and unknown values. */
struct account_state {
	const char *status;
	const char *warmup_status;
};

extern const struct account_state ACCOUNT_STUCK;   /* pending / not_started */
extern const struct account_state ACCOUNT_WARMING; /* warming / warming */

/* Whether two states are the same; NULL equals only NULL. */
bool account_state_equal(const struct account_state *a, const struct account_state *b);

enum account_kind { ACCOUNT_UUID, ACCOUNT_TEXT, ACCOUNT_INTEGER, ACCOUNT_TIME };

/*
 * One row as loaded or as moved.  Texts point into the database's reply and live until
 * account_free(); they may be any length, hold any bytes but NUL, and NULL is SQL NULL.
 */
struct account {
	struct db_result *row; /* owns the texts */
	char id[UUID_TEXT_MAX], user_id[UUID_TEXT_MAX];
	const char *type, *email_address;
	struct account_state state;
	const char *agentmail_inbox_id;
	bool has_daily_limit;
	int64_t daily_limit;
	bool has_created_at, has_updated_at;  /* false for NULL and for infinity */
	int64_t created_at_us, updated_at_us; /* since 1970, UTC */
	char domain_id[UUID_TEXT_MAX];        /* "" = no linked domain of the same owner */
	const char *domain, *domain_status;
};

/* The caller, as the key's row tells. */
struct caller {
	char user_id[UUID_TEXT_MAX];
	char key_prefix[API_KEY_PREFIX_LEN + 1]; /* may be logged; "" = none stored */
};

/* The statements of this file, for the pool that runs them. */
extern const struct db_statement account_statements[];
extern const size_t account_statement_count;

void account_free(struct account *account);

/*
 * Finds the caller by his key's hash and, if id is not NULL, his email account of that id, in one
 * round trip.  Repeats a lost try: reading is harmless.
 * ERR_OK; ERR_UNAUTHORIZED; ERR_NO_ACCOUNT (caller is filled; the only outcome for a NULL id of a
 * known caller); ERR_UNAVAILABLE; ERR_INTERNAL if the tables hold what they must not.
 */
enum err account_load(struct db *db, const unsigned char key_hash[API_KEY_HASH_BYTES],
	const char *id, int64_t deadline_us, struct caller *caller,
	struct account *account) MUST_CHECK;

/* Reads the row again.  ERR_NO_ACCOUNT: gone, or no longer this owner's. Else as db_run(). */
enum err account_read(struct db *db, const char *id, const char *user_id, int64_t deadline_us,
	struct account *account) MUST_CHECK;

/*
 * Moves the row from one state to the other if it is still in the first and still this owner's,
 * and reads it back.  *moved: whether there was such a row; then account is filled.  Else as
 * db_run(): after ERR_DB_LOST the move may have happened.
 */
enum err account_swap(struct db *db, const char *id, const char *user_id,
	const struct account_state *from, const struct account_state *to, int64_t deadline_us,
	bool *moved, struct account *account) MUST_CHECK;

#endif
