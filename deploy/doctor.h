/*
 * doctor.h: what the parts of warmupctl doctor share: the settings, the connection, the report.
 *
 * Each part takes why_not: if it is not NULL, nothing is looked at, and each of the part's checks
 * is reported as skipped for that reason, so that a report always has the same checks.
 */
#ifndef WARMUP_DOCTOR_H
#define WARMUP_DOCTOR_H

#include "buf.h"
#include "config.h"
#include "db.h"

#include <stdbool.h>

/* The longest token that the responder takes. */
#define DOCTOR_KEY_MAX 512

enum doctor_result { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_SKIP, DOCTOR_RESULT_MAX };

struct doctor {
	bool json;
	struct config config;
	struct db *db;      /* NULL = not connected */
	bool table_missing; /* what is said of the tables is not the whole truth */
	struct buf faults;  /* what modules logged since doctor_listen() */
	struct buf document;
	int counts[DOCTOR_RESULT_MAX];
};

/* Adds a line to the report: what a check found and, after DOCTOR_WARN and DOCTOR_FAIL, what to do
   about it.  Line ends within found become spaces; todo is left out of other results. */
void doctor_report(struct doctor *doctor, const char *check, enum doctor_result result,
	const char *found, const char *todo);

/* Forgets the faults so far; a check begins with this. */
void doctor_listen(struct doctor *doctor);

/* Connects, and looks at the database as the responder's login sees it. */
void doctor_check_database(struct doctor *doctor, const char *why_not);

/* Asks Instantly for what changes nothing. */
void doctor_check_instantly(struct doctor *doctor, const char *why_not);

/* Looks at the responder through the host at url, a checked base address; key is one of a
   customer's, NULL = none was given. */
void doctor_check_host(
	struct doctor *doctor, const char *url, const char *key, const char *why_not);

#endif
