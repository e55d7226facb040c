/*
 * decision.c: see decision.h.
 *
 * A lost try is simply swapped again: the statement is its own guard.  If the lost one committed,
 * the repeat finds no row, and the re-reading finds it warming: then the move was ours.
 */
#include "decision.h"

static struct decision
answer(enum err err)
{
	return (struct decision){ STEP_ANSWER, err };
}

static struct decision
next(enum step step)
{
	return (struct decision){ step, ERR_OK };
}

/* A step that may succeed when repeated, while there is time. */
static struct decision
again(enum step step, const struct facts *facts)
{
	return facts->out_of_time ? answer(ERR_NOT_CONFIRMED) : next(step);
}

static struct decision
after_reread(const struct facts *facts)
{
	switch (facts->reread) {
	case REREAD_NONE:
	case REREAD_FAILED:
		return again(STEP_REREAD, facts);
	case REREAD_WARMING:
		return answer(facts->unseen_commit ? ERR_OK : ERR_MOVED_MEANWHILE);
	case REREAD_OTHER:
		return answer(ERR_MOVED_MEANWHILE);
	case REREAD_GONE:
		return answer(ERR_NO_ACCOUNT);
	case REREAD_STUCK: /* a trigger vetoed the write */
	case REREAD_REFUSED:
		return answer(ERR_NOT_CONFIRMED);
	case REREAD_MAX:
		break;
	}
	return answer(ERR_INTERNAL);
}

static struct decision
after_swap(const struct facts *facts)
{
	switch (facts->swap) {
	case SWAP_NONE:
	case SWAP_LOST:
	case SWAP_AGAIN:
		return again(STEP_SWAP, facts);
	case SWAP_MOVED:
		return answer(ERR_OK);
	case SWAP_NO_ROW:
		return after_reread(facts);
	case SWAP_ALTERED:
	case SWAP_REFUSED:
		return answer(ERR_NOT_CONFIRMED);
	case SWAP_MAX:
		break;
	}
	return answer(ERR_INTERNAL);
}

static struct decision
after_call(const struct facts *facts)
{
	switch (facts->upstream) {
	case UPSTREAM_NONE:
		return next(STEP_CALL);
	case UPSTREAM_ACCEPTED:
		return after_swap(facts);
	case UPSTREAM_REFUSED:
	case UPSTREAM_JOB_FAILED:
	case UPSTREAM_ERROR_MEMBER:
		return answer(ERR_UPSTREAM_REJECTED);
	case UPSTREAM_UNREACHABLE:
	case UPSTREAM_TIMEOUT:
	case UPSTREAM_TLS:
	case UPSTREAM_INCOMPLETE:
	case UPSTREAM_OVERSIZED:
	case UPSTREAM_NOT_JSON:
		return answer(ERR_UPSTREAM_UNAVAILABLE);
	case UPSTREAM_MAX:
		break;
	}
	return answer(ERR_INTERNAL);
}

struct decision
decide(const struct facts *facts)
{
	switch (facts->gate) {
	case GATE_OPEN:
		return after_call(facts);
	case GATE_NOT_STUCK:
		return answer(ERR_NOT_STUCK);
	case GATE_NO_ADDRESS:
		return answer(ERR_NO_ADDRESS);
	case GATE_MAX:
		break;
	}
	return answer(ERR_INTERNAL);
}
