/* gate.h: which accounts may be retried.  Pure. */
#ifndef WARMUP_GATE_H
#define WARMUP_GATE_H

#include "account.h"

#define GATE_ADDRESS_MAX 512 /* bytes; RFC 5321 allows 254, quoted oddities fit twice over */

enum gate { GATE_OPEN, GATE_NOT_STUCK, GATE_NO_ADDRESS, GATE_MAX };

/* What the gate says of a state, and, where that is "open", of the address. */
enum gate gate_check(const struct account_state *state, const char *email_address);

#endif
