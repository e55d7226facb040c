/*
 * fuzz_bearer.c: any bytes as an Authorization header.
 *
 * Property: a token comes out exactly where the contract, read word by word, has one: two words
 * between spaces, the first "bearer" in any case, the second 1 to 512 bytes of A-Za-z0-9._~+/=-; and
 * it is that second word, in its place.
 */
#include "fuzz.h"

#include "bearer.h"

#include <ctype.h>
#include <strings.h>

/* The words of a header between spaces; gives how many, and the first two of them. */
static size_t
words_of(const char *header, struct span words[2])
{
	size_t count = 0;

	for (const char *at = header; *at != '\0';) {
		size_t len = 0;

		if (*at == ' ') {
			at++;
			continue;
		}
		while (at[len] != '\0' && at[len] != ' ')
			len++;
		if (count < 2)
			words[count] = (struct span){ at, len };
		count++;
		at += len;
	}
	return count;
}

static bool
is_token(struct span word)
{
	for (size_t i = 0; i < word.len; i++) {
		unsigned char c = (unsigned char)word.at[i];

		if (c >= 0x80 || (!isalnum(c) && memchr("._~+/=-", c, 7) == NULL))
			return false;
	}
	return word.len >= 1 && word.len <= 512;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *header = span_copy((struct span){ (const char *)data, size });
	struct span words[2];
	bool expected = words_of(header, words) == 2 && words[0].len == 6 &&
		strncasecmp(words[0].at, "bearer", 6) == 0 && is_token(words[1]);
	const char *token = NULL;
	size_t len = 0;
	enum err err = bearer_parse(header, &token, &len);

	MUST(err == (expected ? ERR_OK : ERR_UNAUTHORIZED), "\"%s\" gave %s", header,
		err_info(err)->name);
	if (expected)
		MUST(token == words[1].at && len == words[1].len, "\"%s\": another token", header);
	free(header);
	return 0;
}
