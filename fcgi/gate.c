/*
 * gate.c: see gate.h.  A state that is not in the list is closed: the columns are free text, and
 * an unknown value is simply not the gate.
 */
#include "gate.h"

#include "json.h"

#include <string.h>

static const struct account_state *const open_states[] = {
	&ACCOUNT_STUCK,
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

	for (i = 0; i < sizeof(open_states) / sizeof(open_states[0]); i++)
		if (account_state_equal(open_states[i], state))
			return is_usable(email_address) ? GATE_OPEN : GATE_NO_ADDRESS;
	return GATE_NOT_STUCK;
}
