/*
 * test_decision.c: the sequence of a retry, over its whole product, against the rules as one would
 * tell them: a list of patterns, the first that matches holds.  Then what must be true whatever
 * the rules say, and every path that outcomes can take.
 */
#include "unit.h"

#include "decision.h"

#include <string.h>

/* Sets of outcomes: one bit a member of an enum, its _MAX (a value that must not occur) too. */
#define BIT(member) (1U << (member))
#define ANY         (~0U)
#define NO          BIT(false)
#define YES         BIT(true)

#define UPSTREAM_SAID_NO                                                                           \
	(BIT(UPSTREAM_REFUSED) | BIT(UPSTREAM_JOB_FAILED) | BIT(UPSTREAM_ERROR_MEMBER))
#define UPSTREAM_SAID_NOTHING                                                                      \
	(BIT(UPSTREAM_UNREACHABLE) | BIT(UPSTREAM_TIMEOUT) | BIT(UPSTREAM_TLS) |                   \
		BIT(UPSTREAM_INCOMPLETE) | BIT(UPSTREAM_OVERSIZED) | BIT(UPSTREAM_NOT_JSON))

struct rule {
	const char *says;
	unsigned gate, upstream, swap, reread, unseen_commit, out_of_time;
	struct decision decision;
};

static const struct rule rules[] = {
	{ "another state is left alone", BIT(GATE_NOT_STUCK), ANY, ANY, ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_NOT_STUCK } },
	{ "so is one without an address", BIT(GATE_NO_ADDRESS), ANY, ANY, ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_NO_ADDRESS } },
	{ "there is no fourth verdict", BIT(GATE_MAX), ANY, ANY, ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_INTERNAL } },
	{ "a stuck account is asked for", ANY, BIT(UPSTREAM_NONE), ANY, ANY, ANY, ANY,
		{ STEP_CALL, ERR_OK } },
	{ "a no of Instantly's is passed on", ANY, UPSTREAM_SAID_NO, ANY, ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_UPSTREAM_REJECTED } },
	{ "so is that it said nothing usable", ANY, UPSTREAM_SAID_NOTHING, ANY, ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_UPSTREAM_UNAVAILABLE } },
	{ "a call that could not be made is our fault", ANY, BIT(UPSTREAM_MAX), ANY, ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_INTERNAL } },

	/* From here on Instantly has accepted. */
	{ "the row moved", ANY, ANY, BIT(SWAP_MOVED), ANY, ANY, ANY, { STEP_ANSWER, ERR_OK } },
	{ "it moved elsewhere, or must not", ANY, ANY, BIT(SWAP_ALTERED) | BIT(SWAP_REFUSED), ANY,
		ANY, ANY, { STEP_ANSWER, ERR_NOT_CONFIRMED } },
	{ "not tried, or failed: try while there is time", ANY, ANY,
		BIT(SWAP_NONE) | BIT(SWAP_LOST) | BIT(SWAP_AGAIN), ANY, ANY, NO,
		{ STEP_SWAP, ERR_OK } },
	{ "there is none left", ANY, ANY, BIT(SWAP_NONE) | BIT(SWAP_LOST) | BIT(SWAP_AGAIN), ANY,
		ANY, YES, { STEP_ANSWER, ERR_NOT_CONFIRMED } },
	{ "there is no such outcome", ANY, ANY, BIT(SWAP_MAX), ANY, ANY, ANY,
		{ STEP_ANSWER, ERR_INTERNAL } },

	/* From here on there was no row to move. */
	{ "not read, or failed: read while there is time", ANY, ANY, ANY,
		BIT(REREAD_NONE) | BIT(REREAD_FAILED), ANY, NO, { STEP_REREAD, ERR_OK } },
	{ "there is none left", ANY, ANY, ANY, BIT(REREAD_NONE) | BIT(REREAD_FAILED), ANY, YES,
		{ STEP_ANSWER, ERR_NOT_CONFIRMED } },
	{ "an earlier try of ours moved it, unseen", ANY, ANY, ANY, BIT(REREAD_WARMING), YES, ANY,
		{ STEP_ANSWER, ERR_OK } },
	{ "somebody else moved it", ANY, ANY, ANY, BIT(REREAD_WARMING) | BIT(REREAD_OTHER), ANY,
		ANY, { STEP_ANSWER, ERR_MOVED_MEANWHILE } },
	{ "it is gone", ANY, ANY, ANY, BIT(REREAD_GONE), ANY, ANY,
		{ STEP_ANSWER, ERR_NO_ACCOUNT } },
	{ "it stays where it was, or cannot be read", ANY, ANY, ANY,
		BIT(REREAD_STUCK) | BIT(REREAD_REFUSED), ANY, ANY,
		{ STEP_ANSWER, ERR_NOT_CONFIRMED } },
	{ "there is no such outcome", ANY, ANY, ANY, BIT(REREAD_MAX), ANY, ANY,
		{ STEP_ANSWER, ERR_INTERNAL } },
};

static int matched[COUNT(rules)];

static const struct rule *
find_rule(const struct facts *facts)
{
	size_t i;

	for (i = 0; i < COUNT(rules); i++)
		if ((rules[i].gate & BIT(facts->gate)) != 0 &&
			(rules[i].upstream & BIT(facts->upstream)) != 0 &&
			(rules[i].swap & BIT(facts->swap)) != 0 &&
			(rules[i].reread & BIT(facts->reread)) != 0 &&
			(rules[i].unseen_commit & BIT(facts->unseen_commit)) != 0 &&
			(rules[i].out_of_time & BIT(facts->out_of_time)) != 0) {
			matched[i]++;
			return &rules[i];
		}
	return NULL;
}

#define FACTS_FORMAT "gate %d, upstream %d, swap %d, reread %d, unseen %d, out of time %d"
#define FACTS_VALUES(facts)                                                                        \
	(int)(facts)->gate, (int)(facts)->upstream, (int)(facts)->swap, (int)(facts)->reread,      \
		(facts)->unseen_commit, (facts)->out_of_time

/* Calls check with every tuple of facts; gives their number. */
static int
for_all(void (*check)(const struct facts *facts))
{
	struct facts facts;
	int gate, upstream, swap, reread, flags, count = 0;

	for (gate = 0; gate <= GATE_MAX; gate++)
		for (upstream = 0; upstream <= UPSTREAM_MAX; upstream++)
			for (swap = 0; swap <= SWAP_MAX; swap++)
				for (reread = 0; reread <= REREAD_MAX; reread++)
					for (flags = 0; flags < 4; flags++) {
						facts.gate = (enum gate)gate;
						facts.upstream = (enum upstream)upstream;
						facts.swap = (enum swap)swap;
						facts.reread = (enum reread)reread;
						facts.unseen_commit = (flags & 1) != 0;
						facts.out_of_time = (flags & 2) != 0;
						check(&facts);
						count++;
					}
	return count;
}

static void
compare(const struct facts *facts)
{
	const struct rule *rule = find_rule(facts);
	struct decision decision = decide(facts);

	CHECK(rule != NULL, "no rule for " FACTS_FORMAT, FACTS_VALUES(facts));
	CHECK(decision.step == rule->decision.step && decision.err == rule->decision.err,
		FACTS_FORMAT ": step %d, %s, but: %s", FACTS_VALUES(facts), (int)decision.step,
		err_info(decision.err)->name, rule->says);
}

static void
test_decide_follows_the_rules(void **state)
{
	size_t i;
	int count;

	(void)state;
	count = for_all(compare);
	TELL("%d tuples, %zu rules\n", count, COUNT(rules));
	assert_int_equal(count, 4 * 12 * 8 * 8 * 2 * 2);
	for (i = 0; i < COUNT(rules); i++)
		CHECK(matched[i] > 0, "nothing ever matches: %s", rules[i].says);
}

/* What must hold for one tuple, rules or no rules. */
static void
check_invariants(const struct facts *facts)
{
	const struct decision decision = decide(facts);
	bool open = facts->gate == GATE_OPEN;
	bool accepted = open && facts->upstream == UPSTREAM_ACCEPTED;
	bool answers = decision.step == STEP_ANSWER;
	bool moved = facts->swap == SWAP_MOVED;
	bool moved_unseen = facts->swap == SWAP_NO_ROW && facts->reread == REREAD_WARMING &&
		facts->unseen_commit;

#define MUST(condition, words) CHECK(condition, words ": " FACTS_FORMAT, FACTS_VALUES(facts))
	MUST(!answers || decision.err != ERR_OK || (accepted && (moved || moved_unseen)),
		"200 without acceptance and move");
	MUST((decision.step != STEP_SWAP && decision.step != STEP_REREAD) || accepted,
		"the row is touched before acceptance");
	MUST(!answers || decision.err != ERR_NOT_CONFIRMED || accepted,
		"\"Warmup was enabled\" before acceptance");
	MUST((decision.step == STEP_CALL) == (open && facts->upstream == UPSTREAM_NONE),
		"Instantly is asked when it must not be, or is not");
	MUST(!accepted || !facts->out_of_time || answers, "goes on when the time is over");
	MUST(decision.step != STEP_SWAP || (!moved && facts->swap != SWAP_NO_ROW),
		"swaps again what is moved or gone");
	MUST(decision.step != STEP_REREAD || facts->swap == SWAP_NO_ROW, "reads without a need");
	MUST(answers || decision.err == ERR_OK, "an err with a step that is no answer");
	MUST(!accepted ||
			(decision.err != ERR_UPSTREAM_REJECTED &&
				decision.err != ERR_UPSTREAM_UNAVAILABLE),
		"502 after acceptance");
	MUST(err_info(decision.err)->status != 503, "503 once the account is loaded");
#undef MUST
}

static void
test_decide_invariants(void **state)
{
	(void)state;
	TELL("%d tuples\n", for_all(check_invariants));
}

/* One path of outcomes: how far it got, and what happened on it. */
struct path {
	struct facts facts;
	int steps, calls, swaps;
	int steps_in_time; /* after as many, the time for swap and reading is over */
	bool committed;    /* a try of the swap did move the row, seen or not */
};

static long paths;

static void walk(struct path path);

static void
walk_call(const struct path *path)
{
	struct path after;
	int upstream;

	for (upstream = UPSTREAM_ACCEPTED; upstream <= UPSTREAM_MAX; upstream++) {
		after = *path;
		after.calls++;
		after.facts.upstream = (enum upstream)upstream;
		walk(after);
	}
}

/* A lost try may have committed, or not: two paths. */
static void
walk_swap(const struct path *path)
{
	struct path after;
	int swap;

	for (swap = SWAP_MOVED; swap < SWAP_MAX; swap++) {
		after = *path;
		after.swaps++;
		after.facts.swap = (enum swap)swap;
		if (swap == SWAP_LOST) {
			after.facts.unseen_commit = true;
			walk(after);
		}
		if (swap == SWAP_MOVED || swap == SWAP_LOST)
			after.committed = true;
		walk(after);
	}
}

static void
walk_reread(const struct path *path)
{
	struct path after;
	int reread;

	for (reread = REREAD_STUCK; reread < REREAD_MAX; reread++) {
		after = *path;
		after.facts.reread = (enum reread)reread;
		walk(after);
	}
}

static void
end_path(const struct path *path, enum err err)
{
	bool open = path->facts.gate == GATE_OPEN;
	bool accepted = path->facts.upstream == UPSTREAM_ACCEPTED;

	paths++;
	CHECK(path->calls == (open ? 1 : 0), "%d calls: " FACTS_FORMAT, path->calls,
		FACTS_VALUES(&path->facts));
	CHECK((path->swaps > 0) == (open && accepted), "%d swaps: " FACTS_FORMAT, path->swaps,
		FACTS_VALUES(&path->facts));
	CHECK(err != ERR_OK || path->committed || path->facts.unseen_commit,
		"200, but no try can have moved the row: " FACTS_FORMAT,
		FACTS_VALUES(&path->facts));
}

static void
walk(struct path path)
{
	struct decision decision = decide(&path.facts);

	if (decision.step == STEP_ANSWER) {
		end_path(&path, decision.err);
		return;
	}
	path.steps++;
	CHECK(path.steps <= path.steps_in_time + 2, "does not end: " FACTS_FORMAT,
		FACTS_VALUES(&path.facts));
	/* The call has a limit of its own; the time that runs out is that of swap and reading. */
	path.facts.out_of_time = decision.step != STEP_CALL && path.steps > path.steps_in_time;
	if (decision.step == STEP_CALL)
		walk_call(&path);
	else if (decision.step == STEP_SWAP)
		walk_swap(&path);
	else
		walk_reread(&path);
}

/* A number that no enum has: memory went bad, and nothing may follow from that. */
static void
test_decide_impossible_facts_are_internal(void **state)
{
	static const struct facts rows[] = {
		{ .gate = (enum gate)99 },
		{ .upstream = (enum upstream)99 },
		{ .upstream = UPSTREAM_ACCEPTED, .swap = (enum swap)99 },
		{ .upstream = UPSTREAM_ACCEPTED, .swap = SWAP_NO_ROW, .reread = (enum reread)99 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		struct decision decision = decide(&rows[i]);

		CHECK(decision.step == STEP_ANSWER && decision.err == ERR_INTERNAL, "row %zu", i);
	}
}

static void
test_decide_every_path_ends(void **state)
{
	struct path start;
	int gate, steps;

	(void)state;
	for (gate = 0; gate < GATE_MAX; gate++)
		for (steps = 0; steps <= 10; steps++) {
			memset(&start, 0, sizeof(start));
			start.facts.gate = (enum gate)gate;
			start.steps_in_time = steps;
			walk(start);
		}
	TELL("%ld paths\n", paths);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decide_follows_the_rules),
		cmocka_unit_test(test_decide_invariants),
		cmocka_unit_test(test_decide_impossible_facts_are_internal),
		cmocka_unit_test(test_decide_every_path_ends),
	};

	return cmocka_run_group_tests_name("decision", tests, NULL, NULL);
}
