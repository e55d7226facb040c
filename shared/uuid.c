/* uuid.c: see uuid.h.  The pattern is a table by position; no library's regex is involved. */
#include "uuid.h"

#include <string.h>

/* One letter a position: x hex digit, v version, r variant; '-' stands for itself. */
static const char shape[] = "xxxxxxxx-xxxx-vxxx-rxxx-xxxxxxxxxxxx";
static const char nil[] = "00000000-0000-0000-0000-000000000000";
static const char max[] = "ffffffff-ffff-ffff-ffff-ffffffffffff";

static const char *
allowed(char letter)
{
	switch (letter) {
	case 'x':
		return "0123456789abcdefABCDEF";
	case 'v':
		return "12345678";
	case 'r':
		return "89abAB";
	default:
		return "-";
	}
}

bool
uuid_is_valid(const char *text, size_t len)
{
	size_t i;

	if (len != UUID_TEXT_LEN)
		return false;
	if (memcmp(text, nil, len) == 0 || memcmp(text, max, len) == 0)
		return true;
	for (i = 0; i < len; i++)
		if (text[i] == '\0' || strchr(allowed(shape[i]), text[i]) == NULL)
			return false;
	return true;
}

void
uuid_format(const unsigned char bytes[UUID_BYTES], char text[UUID_TEXT_MAX])
{
	static const char digits[] = "0123456789abcdef";
	size_t i, nibble = 0;

	for (i = 0; i < UUID_TEXT_LEN; i++) {
		if (shape[i] == '-') {
			text[i] = '-';
			continue;
		}
		text[i] = digits[nibble % 2 == 0 ? bytes[nibble / 2] >> 4 : bytes[nibble / 2] & 15];
		nibble++;
	}
	text[UUID_TEXT_LEN] = '\0';
}

void
uuid_from_random(unsigned char bytes[UUID_BYTES], char text[UUID_TEXT_MAX])
{
	bytes[6] = (unsigned char)((bytes[6] & 0x0F) | 0x40);
	bytes[8] = (unsigned char)((bytes[8] & 0x3F) | 0x80);
	uuid_format(bytes, text);
}
