/*
 * decision.h: what follows from what is known.  Pure: no clock, no connection, no memory.
 *
 * The handler asks after every step; the answer is the next step or the end.  So each rule of the
 * sequence stands here once, and its whole product can be tested.
 */
#ifndef WARMUP_DECISION_H
#define WARMUP_DECISION_H

#include "err.h"
#include "gate.h"
#include "instantly.h"

#include <stdbool.h>

/* How the latest try of the swap went. */
enum swap {
	SWAP_NONE,    /* not tried */
	SWAP_MOVED,   /* the row came back in the new state */
	SWAP_ALTERED, /* the row came back, but something made it another state */
	SWAP_NO_ROW,  /* no row had the loaded state any more, or the write was vetoed */
	SWAP_LOST,    /* sent, outcome unknown */
	SWAP_AGAIN,   /* not done; may succeed when repeated */
	SWAP_REFUSED, /* not done; repeating is no use */
	SWAP_MAX
};

/* What the latest reading after a swap without a row found. */
enum reread {
	REREAD_NONE,    /* not read */
	REREAD_STUCK,   /* still the loaded state */
	REREAD_WARMING, /* where we wanted it */
	REREAD_OTHER,   /* somewhere else */
	REREAD_GONE,    /* deleted, or another owner's now */
	REREAD_FAILED,  /* no answer; may succeed when repeated */
	REREAD_REFUSED, /* no answer; repeating is no use */
	REREAD_MAX
};

struct facts {
	enum gate gate;
	enum upstream upstream;
	enum swap swap;
	enum reread reread;
	bool unseen_commit; /* an earlier try of the swap was lost: it may have committed */
	bool out_of_time;   /* the limit for swap and reading has passed */
};

enum step { STEP_CALL, STEP_SWAP, STEP_REREAD, STEP_ANSWER };

struct decision {
	enum step step;
	enum err err; /* with STEP_ANSWER: ERR_OK is the 200 */
};

struct decision decide(const struct facts *facts);

#endif
