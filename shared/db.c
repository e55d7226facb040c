/*
 * db.c: see db.h.
 *
 * The pool is a stack of free slots under one mutex: the connection used last is used next, so
 * that as few server processes as possible do the work.  Slots without a connection lie at the
 * bottom.  db_link.c opens connections and speaks on them; this file hands them out.
 */
#include "db.h"

#include "clock.h"
#include "db_link.h"
#include "log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* After a failed connect, requests rather wait for a live connection than try again at once. */
#define CONNECT_PAUSE_MS 1000

struct db {
	struct db_options options;
	pthread_mutex_t lock;
	pthread_cond_t freed;
	struct db_link **links; /* by slot; NULL = not connected */
	int *free_slots;        /* a stack */
	int free_count;
	int live;                    /* connections that exist */
	int64_t connect_again_at_us; /* no new connection before that, if live ones exist */
};

static const struct db_statement ping = { "warmup_ping", "SELECT 1", 0 };

enum err
db_open(const struct db_options *options, struct db **out)
{
	struct db *db = calloc(1, sizeof(*db));
	pthread_condattr_t monotonic;
	int i;

	if (db == NULL)
		return ERR_NO_MEMORY;
	db->options = *options;
	db->links = calloc((size_t)options->connections, sizeof(*db->links));
	db->free_slots = calloc((size_t)options->connections, sizeof(*db->free_slots));
	if (db->links == NULL || db->free_slots == NULL) {
		free(db->links);
		free(db->free_slots);
		free(db);
		return ERR_NO_MEMORY;
	}
	for (i = 0; i < options->connections; i++)
		db->free_slots[db->free_count++] = i;
	pthread_mutex_init(&db->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&db->freed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	*out = db;
	return ERR_OK;
}

void
db_close(struct db *db)
{
	int i;

	if (db == NULL)
		return;
	for (i = 0; i < db->options.connections; i++)
		db_link_close(db->links[i]);
	pthread_cond_destroy(&db->freed);
	pthread_mutex_destroy(&db->lock);
	free(db->links);
	free(db->free_slots);
	free(db);
}

/* Puts a slot back: on top if it has a connection, else at the bottom. */
static void
give_back(struct db *db, int slot)
{
	pthread_mutex_lock(&db->lock);
	if (db->links[slot] != NULL) {
		db->free_slots[db->free_count] = slot;
	} else {
		memmove(db->free_slots + 1, db->free_slots,
			(size_t)db->free_count * sizeof(*db->free_slots));
		db->free_slots[0] = slot;
	}
	db->free_count++;
	pthread_cond_signal(&db->freed);
	pthread_mutex_unlock(&db->lock);
}

static void
discard(struct db *db, int slot)
{
	db_link_close(db->links[slot]);
	db->links[slot] = NULL;
	pthread_mutex_lock(&db->lock);
	db->live--;
	pthread_mutex_unlock(&db->lock);
}

/* Waits for a signal, under the lock, at most until a deadline; false when that has passed. */
static bool
wait_freed(struct db *db, int64_t until_us)
{
	struct timespec at;

	if (clock_now_us() >= until_us)
		return false;
	at.tv_sec = (time_t)(until_us / 1000000);
	at.tv_nsec = (long)(until_us % 1000000) * 1000;
	pthread_cond_timedwait(&db->freed, &db->lock, &at);
	return true;
}

/*
 * Takes a free slot, connected or to be connected by the caller; -1 if none came free in time.
 * While connecting fails and live connections exist, only a connected slot will do: a server that
 * is out of connections should cost us no request that an open one can serve.
 */
static int
take_slot(struct db *db, int64_t deadline_us)
{
	int slot = -1;

	pthread_mutex_lock(&db->lock);
	for (;;) {
		int64_t until_us = deadline_us;

		if (db->free_count > 0) {
			int top = db->free_slots[db->free_count - 1];

			if (db->links[top] != NULL || db->live == 0 ||
				clock_now_us() >= db->connect_again_at_us) {
				slot = top;
				db->free_count--;
				break;
			}
			if (db->connect_again_at_us < until_us)
				until_us = db->connect_again_at_us;
		}
		if (!wait_freed(db, until_us) && until_us == deadline_us)
			break;
	}
	pthread_mutex_unlock(&db->lock);
	return slot;
}

/* Connects a taken slot.  On failure *others tells whether live connections exist. */
static enum err
connect_slot(struct db *db, int slot, int64_t deadline_us, bool *others)
{
	enum err err = db_link_open(&db->options, deadline_us, &db->links[slot]);

	pthread_mutex_lock(&db->lock);
	if (err == ERR_OK)
		db->live++;
	else
		db->connect_again_at_us = clock_deadline_us(CONNECT_PAUSE_MS);
	*others = db->live > 0;
	pthread_mutex_unlock(&db->lock);
	return err;
}

/*
 * A connected slot, or ERR_UNAVAILABLE.  A connection that died while idle is noticed here, before
 * anything is sent on it: a statement that was never sent must not pass for one whose outcome is
 * unknown, and a restart of the server must not cost a request per old connection.
 */
static enum err
take_connected(struct db *db, int64_t deadline_us, int *out)
{
	bool others = false;
	int slot;

	for (;;) {
		slot = take_slot(db, deadline_us);
		if (slot < 0) {
			log_fault(LOG_ERROR,
				"no database connection became free in time: raise "
				"WARMUP_DB_CONNECTIONS or look for slow statements",
				NULL);
			return ERR_UNAVAILABLE;
		}
		*out = slot;
		if (db->links[slot] != NULL) {
			if (db_link_alive(db->links[slot]))
				return ERR_OK;
			discard(db, slot);
		} else if (connect_slot(db, slot, deadline_us, &others) == ERR_OK) {
			return ERR_OK;
		} else if (!others) {
			give_back(db, slot);
			return ERR_UNAVAILABLE;
		}
		give_back(db, slot);
	}
}

void
db_warm(struct db *db, int64_t deadline_us)
{
	bool others;
	int slot = -1;

	/* Not take_slot(): that would give the connection opened last. */
	pthread_mutex_lock(&db->lock);
	if (db->free_count > 0 && db->links[db->free_slots[0]] == NULL) {
		slot = db->free_slots[0];
		db->free_count--;
		memmove(db->free_slots, db->free_slots + 1,
			(size_t)db->free_count * sizeof(*db->free_slots));
	}
	pthread_mutex_unlock(&db->lock);
	if (slot < 0)
		return;
	if (connect_slot(db, slot, deadline_us, &others) != ERR_OK)
		log_fault(LOG_WARN, "started without the database; requests will try again", NULL);
	give_back(db, slot);
}

/* Ends the use of a slot after a statement: what became of it says whether the link is sound. */
static void
finish(struct db *db, int slot, bool sound)
{
	if (!sound)
		discard(db, slot);
	give_back(db, slot);
}

enum err
db_run(struct db *db, const struct db_statement *statement, const struct db_param *params,
	int64_t deadline_us, struct db_result **result)
{
	bool sound = false;
	enum err err;
	int slot;

	err = take_connected(db, deadline_us, &slot);
	if (err != ERR_OK)
		return err;
	err = db_link_run(db->links[slot], statement, params, deadline_us, result, &sound);
	finish(db, slot, sound);
	return err;
}

enum err
db_script(struct db *db, const char *sql, int64_t deadline_us, char *message, size_t size)
{
	bool sound = false;
	enum err err;
	int slot;

	if (size > 0)
		message[0] = '\0';
	err = take_connected(db, deadline_us, &slot);
	if (err != ERR_OK)
		return err;
	err = db_link_script(db->links[slot], sql, deadline_us, message, size, &sound);
	finish(db, slot, sound);
	return err;
}

enum err
db_explain(struct db *db, const struct db_statement *statement, int64_t deadline_us,
	struct db_message *message)
{
	bool sound = false;
	enum err err;
	int slot;

	memset(message, 0, sizeof(*message));
	err = take_connected(db, deadline_us, &slot);
	if (err != ERR_OK)
		return err;
	err = db_link_explain(db->links[slot], statement, deadline_us, message, &sound);
	finish(db, slot, sound);
	return err;
}

enum err
db_backend_pid(struct db *db, int64_t deadline_us, int *pid)
{
	enum err err;
	int slot;

	err = take_connected(db, deadline_us, &slot);
	if (err != ERR_OK)
		return err;
	*pid = db_link_backend_pid(db->links[slot]);
	give_back(db, slot);
	return ERR_OK;
}

enum err
db_ping(struct db *db, int64_t deadline_us)
{
	struct db_result *result = NULL;
	enum err err = db_run(db, &ping, NULL, deadline_us, &result);

	db_result_free(result);
	return err;
}
