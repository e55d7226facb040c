/*
 * gate.c: see gate.h.  A state that is not in the table is closed: the columns are free text, and
 * an unknown value is simply not the gate.
 */
#include "gate.h"

#include "json.h"

#include <string.h>

static const struct {
	const struct account_state *state;
	enum gate gate;
} table[] = {
	{ &ACCOUNT_STUCK, GATE_OPEN },
};

/* An address that can be put into a request: not empty, no blanks or control characters, valid
   UTF-8.  Whether it is a good one, Instantly knows. */
static bool
is_usable(const char *address)
{
	const char *c;

	if (address == NULL || address[0] == '\0' || strlen(address) > GATE_ADDRESS_MAX)
		return false;
	for (c = address; *c != '\0'; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7F)
			return false;
	return json_utf8_valid(address, strlen(address));
}

enum gate
gate_check(const struct account_state *state, const char *email_address)
{
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (account_state_equal(table[i].state, state))
			return table[i].gate == GATE_OPEN && !is_usable(email_address) ?
				GATE_NO_ADDRESS :
				table[i].gate;
	return GATE_NOT_STUCK;
}
