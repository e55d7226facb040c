/* test_gate.c: runs the lines of gate.tbl, which explains itself. */
#include "unit.h"

#include "gate.h"

#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 128

static const char *const verdicts[GATE_MAX] = {
	[GATE_OPEN] = "open",
	[GATE_NOT_STUCK] = "not-stuck",
	[GATE_NO_ADDRESS] = "no-address",
};

struct value {
	char text[VALUE_MAX];
	bool is_null;
};

static const char *
text_of(const struct value *value)
{
	return value->is_null ? NULL : value->text;
}

static FILE *
open_table(void)
{
	const char *folder = getenv("WARMUP_TEST_DATA");
	char path[4096];
	FILE *table;

	snprintf(path, sizeof(path), "%s/gate.tbl", folder != NULL ? folder : "tests/unit");
	table = fopen(path, "r");
	CHECK(table != NULL, "%s cannot be read", path);
	return table;
}

/* The character at *at, or the byte that \xNN stands for; *at moves behind it. */
static char
read_character(const char **at)
{
	char digits[3] = { 0 }, *end, c;

	if (strncmp(*at, "\\x", 2) != 0)
		return *(*at)++;
	memcpy(digits, *at + 2, strnlen(*at + 2, 2));
	c = (char)strtoul(digits, &end, 16);
	CHECK(end == digits + 2, "not of the form \\xNN: %s", *at);
	*at += 4;
	return c;
}

/* The next value of a line; *at moves behind it. */
static void
read_value(const char **at, struct value *value)
{
	size_t len = 0;
	bool quoted;

	*at += strspn(*at, " \t");
	quoted = **at == '"';
	if (quoted)
		(*at)++;
	while (**at != '\0' && strchr(quoted ? "\"" : " \t\n", **at) == NULL) {
		assert_true(len + 1 < sizeof(value->text));
		value->text[len++] = read_character(at);
	}
	value->text[len] = '\0';
	if (quoted)
		CHECK(*(*at)++ == '"', "a quote without its pair");
	value->is_null = !quoted && strcmp(value->text, "-") == 0;
	CHECK(quoted || len > 0, "four values are needed");
}

static enum gate
parse_verdict(const struct value *value)
{
	int i;

	for (i = 0; i < GATE_MAX; i++)
		if (strcmp(verdicts[i], value->text) == 0)
			return (enum gate)i;
	fail_msg("no such verdict: %s", value->text);
	return GATE_MAX;
}

static void
run_line(const char *line, int number)
{
	struct value status, warmup_status, address, verdict;
	struct account_state state;
	enum gate gate;

	read_value(&line, &status);
	read_value(&line, &warmup_status);
	read_value(&line, &address);
	read_value(&line, &verdict);
	state.status = text_of(&status);
	state.warmup_status = text_of(&warmup_status);
	gate = gate_check(&state, text_of(&address));
	CHECK(gate == parse_verdict(&verdict), "gate.tbl, line %d: %s, not %s", number,
		(unsigned)gate < GATE_MAX ? verdicts[gate] : "unknown", verdict.text);
}

static void
test_gate_check_table(void **state)
{
	FILE *table = open_table();
	int number = 0, rows[GATE_MAX] = { 0 }, i;
	char line[512];

	(void)state;
	while (fgets(line, sizeof(line), table) != NULL) {
		number++;
		if (line[strspn(line, " \t\n")] == '\0' || line[0] == '#')
			continue;
		run_line(line, number);
		for (i = 0; i < GATE_MAX; i++)
			rows[i] += strstr(line, verdicts[i]) != NULL;
	}
	fclose(table);
	TELL("%d rows open, %d not stuck, %d without an address\n", rows[GATE_OPEN],
		rows[GATE_NOT_STUCK], rows[GATE_NO_ADDRESS]);
	/* An empty table would prove nothing. */
	for (i = 0; i < GATE_MAX; i++)
		assert_true(rows[i] > 0);
}

/* Up to its maximum an address is taken, in bytes and not in characters. */
static void
test_gate_check_length_of_address(void **state)
{
	static const char *const characters[] = { "a", "\xC3\xA9", "\xF0\x9F\x98\x80" };
	char address[GATE_ADDRESS_MAX + 8];
	size_t i, len, width;

	(void)state;
	for (i = 0; i < COUNT(characters); i++) {
		width = strlen(characters[i]);
		for (len = 0; len <= GATE_ADDRESS_MAX; len += width)
			memcpy(address + len, characters[i], width + 1);
		CHECK(gate_check(&ACCOUNT_STUCK, address) == GATE_NO_ADDRESS, "%zu bytes", len);
		address[len - width] = '\0';
		CHECK(gate_check(&ACCOUNT_STUCK, address) == GATE_OPEN, "%zu bytes", len - width);
	}
}

/* Only the two states that the program itself knows by name. */
static void
test_gate_check_named_states(void **state)
{
	(void)state;
	assert_string_equal(ACCOUNT_STUCK.status, "pending");
	assert_string_equal(ACCOUNT_STUCK.warmup_status, "not_started");
	assert_string_equal(ACCOUNT_WARMING.status, "warming");
	assert_string_equal(ACCOUNT_WARMING.warmup_status, "warming");
	assert_int_equal(gate_check(&ACCOUNT_STUCK, "a@acme.com"), GATE_OPEN);
	assert_int_equal(gate_check(&ACCOUNT_WARMING, "a@acme.com"), GATE_NOT_STUCK);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gate_check_table),
		cmocka_unit_test(test_gate_check_length_of_address),
		cmocka_unit_test(test_gate_check_named_states),
	};

	return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
