/*
 * decisions.c: prints what decide() of fcgi/decision.c says, for retry.pml to include.
 *
 * So what the search goes through is the compiled rules themselves, with the statuses of err.c, and
 * not a copy of them.  test_model.py builds it with the project's files, or with changed ones.
 */
#include "decision.h"

#include <stdio.h>

#define DO_CALL      1
#define DO_SWAP      2
#define DO_REREAD    3
#define NOT_POSSIBLE 599 /* ERR_INTERNAL, which no path may lead to */

#define NAME(member) printf("#define %s %d\n", #member, (int)member)

static int
number(const struct facts *facts)
{
	const struct decision next = decide(facts);

	switch (next.step) {
	case STEP_CALL:
		return DO_CALL;
	case STEP_SWAP:
		return DO_SWAP;
	case STEP_REREAD:
		return DO_REREAD;
	case STEP_ANSWER:
		break;
	}
	return next.err == ERR_INTERNAL ? NOT_POSSIBLE : err_info(next.err)->status;
}

static void
print_names(void)
{
	NAME(DO_CALL), NAME(DO_SWAP), NAME(DO_REREAD), NAME(NOT_POSSIBLE);
	NAME(SWAP_MOVED), NAME(SWAP_ALTERED), NAME(SWAP_NO_ROW), NAME(SWAP_LOST);
	NAME(SWAP_AGAIN), NAME(SWAP_REFUSED), NAME(SWAP_MAX);
	NAME(REREAD_STUCK), NAME(REREAD_WARMING), NAME(REREAD_OTHER), NAME(REREAD_GONE);
	NAME(REREAD_FAILED), NAME(REREAD_REFUSED), NAME(REREAD_MAX);
	NAME(UPSTREAM_ACCEPTED), NAME(UPSTREAM_MAX);
}

int
main(void)
{
	struct facts facts = { .gate = GATE_OPEN };
	int key;

	print_names();
	printf("\ninline decide_on(upstream)\n{\n\td_step {\n\tif\n");
	for (key = 0; key < UPSTREAM_MAX; key++) {
		facts.upstream = (enum upstream)key;
		printf("\t:: upstream == %d -> next = %d\n", key, number(&facts));
	}
	printf("\tfi\n\t}\n}\n\n");
	facts.upstream = UPSTREAM_ACCEPTED;
	printf("#define KEY(swap, reread, unseen, late) "
	       "((((swap) * REREAD_MAX + (reread)) * 2 + (unseen)) * 2 + (late))\n");
	printf("inline decide_step_6(key)\n{\n\td_step {\n\tif\n");
	for (key = 0; key < SWAP_MAX * REREAD_MAX * 4; key++) {
		facts.out_of_time = key & 1;
		facts.unseen_commit = key >> 1 & 1;
		facts.reread = (enum reread)(key / 4 % REREAD_MAX);
		facts.swap = (enum swap)(key / 4 / REREAD_MAX);
		printf("\t:: key == %d -> next = %d\n", key, number(&facts));
	}
	printf("\tfi\n\t}\n}\n");
	return 0;
}
