/*
 * retry.pml: one row under concurrent retries, for Debian's spin.  test_model.py runs it; README.md
 * maps its steps to the code.
 *
 * N requests go through the steps of fcgi/retry_warmup.c.  What follows from their outcomes decides
 * the compiled fcgi/decision.c itself: decisions.inc is printed by it.  Each request may be killed
 * at every step and lose every reply and connection: before the statement ran, after, or while it
 * still runs (then its backend runs it at any later moment, or never).  An outside writer changes
 * the row whenever it likes.  Every order of all that is tried.  When all is quiet, one more retry,
 * without faults, must find or set the row on its way.
 *
 * -DBUG_name builds in a mistake that the search has to find; test_model.py has the list.
 */
#include "decisions.inc"

#ifndef N
#define N 4 /* requests; the last is another owner's */
#endif
#ifndef WRITES
#define WRITES 2 /* of the outside writer */
#endif

/* The row.  JUDGED: active, banned, …: somebody else has decided.  GONE: deleted. */
#define STUCK   0
#define WARMING 1
#define JUDGED  2
#define GONE    3
#define MARKED  4 /* of one of the mistakes */

byte row = STUCK;
bit owner = 0;
byte writes = WRITES; /* that are left to the outside writer */
byte late[2]; /* swaps, by their owner, that are still in flight though the connection was given up */

/* Of the sequence: who has begun, who has come to the end, and what the latest answer was. */
byte begun, ended;
short next, answered;

bit late_unasked; /* for an assertion: one of late is not covered by Instantly's acceptance */

#define SEES (row != GONE && owner == who)

/* Only so many swaps in flight can still find the row stuck; others would come to nothing. */
#define STAYS ((row == STUCK) + writes)

inline forget_idle_swaps()
{
	late[0] = (late[0] > STAYS -> STAYS : late[0]);
	late[1] = (late[1] > STAYS -> STAYS : late[1]);
	late_unasked = late_unasked && (late[0] || late[1])
}

/* The statement SWAP of shared/account.c, as the database runs it: alone and at one instant. */
#define FROM STUCK
#ifdef BUG_no_state_guard
#define MATCHES(whose) (row != GONE && owner == whose)
#endif
#ifdef BUG_no_owner_guard
#define MATCHES(whose) (row == STUCK)
#endif
#ifdef BUG_marks_first
#undef FROM
#define FROM MARKED
#endif
#ifndef MATCHES
#define MATCHES(whose) (row == FROM && owner == whose)
#endif

inline move(whose, covered)
{
	assert(covered);        /* I1: no move without acceptance */
	assert(row == FROM);    /* I2, I3: once in each stay, and over nobody's decision */
	assert(owner == whose); /* I9: nobody else's row */
	row = WARMING;
	forget_idle_swaps()
}

/* Nothing of the request counts any more: one state, however it got here. */
inline leave()
{
	upstream = 0; swap = 0; reread = 0; unseen_commit = 0; out_of_time = 0;
	accepted = 0; ours = 0; told = 0; calls = 0;
	next = 0;
	ended++
}

/* Whatever the step does, a kill -9 may come before the next.  faults is 0 in the last retry. */
#define KILLED faults -> leave(); goto over

/* Every answer is judged at the moment that settles it, the latest look at the row; then the end. */
inline answer(code)
{
	assert(code == 200 || code == 404 || code == 409 || code == 500 || code == 502 || code == 503);
	assert(code != 200 || (SEES && row == WARMING));         /* I4: the row is what the answer shows … */
	assert(code != 200 || ours);                             /* … and perhaps by this very request */
	assert(code != 409 || (SEES && row != STUCK));           /* the conflict is there … */
	assert(code != 409 || !told);                            /* … and is none with ourselves: */
	assert(code != 409 || !(ours && row == WARMING));        /* that is a success */
	assert(code != 404 || !SEES);
	assert(code != 502 || (calls == 1 && !accepted && !ours)); /* I5: the row is untouched, … */
	assert(code != 503 || calls == 0);                       /* … and Instantly was not asked */
	assert(code != 500 || accepted);                         /* I6 */
	answered = code;
	leave();
	goto over
}

/* To the next step, or to the answer: the loop of move_account(). */
inline settle()
{
	if
	:: next == DO_SWAP -> next = 0; goto swap_account
	:: next == DO_REREAD -> next = 0; goto read_account
	:: next == DO_CALL -> next = 0; goto call_instantly
	:: else -> answer(next)
	fi
}

/* Without faults there is time enough. */
inline look_at_clock()
{
	if
	:: out_of_time = 0
	:: faults -> out_of_time = 1
	fi
}

proctype Request(byte me; bit who; bit faults)
{
	byte upstream, swap, reread; /* of struct facts, as the two below */
	bit unseen_commit, out_of_time;

	/* For the assertions: Instantly did accept; a swap of ours committed or may yet; and we were told. */
	bit accepted, ours, told;
	byte calls;

	/* 3. load, 4. gate.  Requests of one owner are alike: they may as well begin in order. */
	atomic {
		(begun >= me || me >= N - 1);
		begun = (me < N - 1 -> begun + 1 : begun);
		if
		:: KILLED
		:: faults -> answer(503)
		:: !SEES -> answer(404)
		:: SEES && row != STUCK -> answer(409)
		:: SEES && row == STUCK
		fi
	}
#ifdef BUG_swap_first
	atomic {
		if
		:: MATCHES(who) -> move(who, accepted); ours = 1
		:: !MATCHES(who)
		fi
	}
#endif
#ifdef BUG_marks_first
	atomic {
		if
		:: row == STUCK && owner == who -> row = MARKED
		:: else -> unseen_commit = 0; next = DO_REREAD; settle()
		fi
	}
#endif
call_instantly:	/* 5. call, once */
	atomic {
		calls++;
		assert(calls == 1); /* I10 */
		if
		:: KILLED
		:: accepted = 1; upstream = UPSTREAM_ACCEPTED
		:: faults -> select(upstream : UPSTREAM_ACCEPTED + 1 .. UPSTREAM_MAX - 1)
		fi;
		decide_on(upstream);
		upstream = 0;
		settle()
	}
swap_account:	/* 6. swap */
	atomic {
		if
		:: KILLED
		:: MATCHES(who) ->
			move(who, accepted);
			ours = 1; told = 1;
			if
			:: swap = SWAP_MOVED
			:: faults -> answer(500) /* no memory for the answer */
			fi
		:: !MATCHES(who) -> swap = SWAP_NO_ROW
		:: faults && row == STUCK -> swap = SWAP_NO_ROW /* a trigger vetoed it */
		:: faults && MATCHES(who) -> /* a trigger made it something else */
			move(who, accepted);
			row = JUDGED;
			ours = 1; told = 1;
			swap = SWAP_ALTERED
		:: faults && MATCHES(who) -> /* the connection was lost after the commit */
			move(who, accepted);
			ours = 1;
			swap = SWAP_LOST
		:: faults -> /* or before it ran */
			ours = 1;
			swap = SWAP_LOST
		:: faults && late[who] < STAYS -> /* or it will run later */
			late[who]++;
			late_unasked = late_unasked || !accepted;
			ours = 1;
			swap = SWAP_LOST
		:: faults -> swap = SWAP_AGAIN
		:: faults -> swap = SWAP_REFUSED
		fi;
		unseen_commit = unseen_commit || swap == SWAP_LOST;
		look_at_clock();
		decide_step_6(KEY(swap, 0, unseen_commit, out_of_time));
		swap = 0; out_of_time = 0; /* what follows does not look at them */
		settle()
	}
read_account:	/* 6. read again */
	atomic {
		if
		:: KILLED
		:: SEES && row == WARMING -> reread = REREAD_WARMING
		:: SEES && (row == JUDGED || row == MARKED) -> reread = REREAD_OTHER
		:: SEES && row == STUCK -> reread = REREAD_STUCK
		:: !SEES -> reread = REREAD_GONE
		:: faults -> reread = REREAD_FAILED
		:: faults -> reread = REREAD_REFUSED
		fi;
		look_at_clock();
		decide_step_6(KEY(SWAP_NO_ROW, reread, unseen_commit, out_of_time));
		out_of_time = 0;
		reread = 0;
		settle()
	}
over:	skip
}

/* The backends of connections that were given up: what they still hold runs at any time or never. */
active proctype Backends()
{
	byte whose;

endless:
	do
	:: atomic {
		if
		:: late[0] > 0 -> whose = 0
		:: late[1] > 0 -> whose = 1
		fi;
		late[whose]--;
		if
		:: MATCHES(whose) -> move(whose, !late_unasked)
		:: else
		fi;
		whose = 0
	}
	od
}

/* An administrator, a job, a webhook: bans, graduates, moves, deletes, puts back, hands over. */
active proctype Writer()
{
	do
	:: atomic {
		writes > 0;
		writes--;
		if
		:: row != JUDGED -> row = JUDGED
		:: row != WARMING -> row = WARMING
		:: row != GONE -> row = GONE
		:: row != STUCK -> row = STUCK
		:: owner = 1 - owner
		fi;
		forget_idle_swaps()
	}
	:: atomic { writes = 0; forget_idle_swaps(); ended++; break }
	od
}

init
{
	byte i;

	atomic {
		for (i : 0 .. N - 1) {
			run Request(i, (i == N - 1 -> 1 : 0), 1)
		}
	}
	/* I7: once all faults are over, one retry is enough.  Swaps may still be in flight. */
	atomic {
		ended == N + 1;
		ended = 0; answered = 0;
		run Request((owner -> N - 1 : N), owner, 0)
	}
	ended == 1;
	assert((row == GONE -> answered == 404 : answered == 200 || answered == 409));
	assert(row == WARMING || row == JUDGED || row == GONE)
}
