/* test_bearer.c: the Authorization header: one token comes out, or nothing does. */
#include "unit.h"

#include "bearer.h"

#include <string.h>

#define LONGEST_HEADER (16 * 1024)

static const char token_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				       "0123456789-._~+/=";

static const struct {
	const char *header;
	const char *token; /* NULL: unauthorized */
} headers[] = {
	{ NULL, NULL },
	{ "", NULL },
	{ " ", NULL },
	/* The scheme alone. */
	{ "Bearer", NULL },
	{ "Bearer ", NULL },
	{ "Bearer     ", NULL },
	{ "  Bearer  ", NULL },
	{ "Beare", NULL },
	/* The scheme in any case. */
	{ "Bearer x", "x" },
	{ "bearer x", "x" },
	{ "BEARER x", "x" },
	{ "bEaReR x", "x" },
	/* Another scheme, or none. */
	{ "Basic x", NULL },
	{ "Basic Zm9vOmJhcg==", NULL },
	{ "Digest username=\"x\"", NULL },
	{ "Bearers x", NULL },
	{ "Bear er x", NULL },
	{ "Token x", NULL },
	{ "x", NULL },
	{ "Bearerx", NULL },
	{ "Bearer:x", NULL },
	{ "Bearer: x", NULL },
	{ "Bearer=x", NULL },
	{ "Authorization: Bearer x", NULL },
	/* Spaces: one or more between, any number at the ends. */
	{ "Bearer   x", "x" },
	{ "  Bearer x", "x" },
	{ "Bearer x  ", "x" },
	{ "   Bearer    x   ", "x" },
	/* A tab is no space, nor is any other blank. */
	{ "Bearer\tx", NULL },
	{ "Bearer \tx", NULL },
	{ "Bearer x\t", NULL },
	{ "\tBearer x", NULL },
	{ "Bearer x\ty", NULL },
	{ "Bearer x\n", NULL },
	{ "Bearer x\r\n", NULL },
	{ "Bearer\nx", NULL },
	{ "Bearer\vx", NULL },
	{ "Bearer\xC2\xA0x", NULL },
	/* More than one token; two headers arrive joined by a comma. */
	{ "Bearer x y", NULL },
	{ "Bearer a, Bearer b", NULL },
	{ "Bearer a,Bearer b", NULL },
	{ "Bearer a,", NULL },
	{ "Bearer ,a", NULL },
	{ "Bearer Bearer x", NULL },
	{ "Basic x, Bearer y", NULL },
	/* A word may look like the scheme. */
	{ "Bearer Bearer", "Bearer" },
	/* Bytes of no token. */
	{ "Bearer \"x\"", NULL },
	{ "Bearer <x>", NULL },
	{ "Bearer x;y", NULL },
	{ "Bearer \xFF", NULL },
	{ "Bearer x\xFFy", NULL },
	{ "Bearer \xC3\xA9", NULL },
	{ "Bearer x\x7F", NULL },
	{ "Bearer x\x01", NULL },
	{ "Bearer %78", NULL },
	{ "Bearer x'--", NULL },
	/* A NUL ends the header, as it ends every CGI variable: nothing behind it is read. */
	{ "Bearer \0x", NULL },
	{ "Bearer\0 x", NULL },
	/* Every character that a token may have, and a key as issued. */
	{ "Bearer ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=",
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=" },
	{ "Bearer pk_live_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"pk_live_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" },
	{ "Bearer =", "=" },
	{ "Bearer -._~+/=", "-._~+/=" },
};

/* Fails unless the token is found in its place in the header, or none is if it is NULL. */
static void
compare(const char *header, const char *token, const char *where)
{
	const char *found = NULL;
	size_t len = 0;
	enum err err = bearer_parse(header, &found, &len);

	if (token == NULL) {
		CHECK(err == ERR_UNAUTHORIZED, "%s was taken", where);
		return;
	}
	CHECK(err == ERR_OK, "%s was refused", where);
	CHECK(len == strlen(token) && memcmp(found, token, len) == 0, "%s gave \"%.*s\"", where,
		(int)len, found);
	CHECK((uintptr_t)found - (uintptr_t)header < strlen(header), "%s: a token from elsewhere",
		where);
}

static void
test_bearer_parse_examples(void **state)
{
	char where[LONGEST_HEADER];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(headers); i++) {
		snprintf(where, sizeof(where), "row %zu: \"%s\"", i,
			headers[i].header != NULL ? headers[i].header : "(none)");
		compare(headers[i].header, headers[i].token, where);
	}
}

/* Every byte alone, and within a token. */
static void
test_bearer_parse_any_byte(void **state)
{
	char header[16], token[8], where[32];
	int byte;

	(void)state;
	for (byte = 1; byte < 256; byte++) {
		bool good = strchr(token_characters, byte) != NULL;

		snprintf(where, sizeof(where), "byte 0x%02X alone", (unsigned)byte);
		snprintf(token, sizeof(token), "%c", byte);
		snprintf(header, sizeof(header), "Bearer %s", token);
		compare(header, good ? token : NULL, where);

		snprintf(where, sizeof(where), "byte 0x%02X within", (unsigned)byte);
		snprintf(token, sizeof(token), "a%cz", byte);
		snprintf(header, sizeof(header), "Bearer %s", token);
		compare(header, good ? token : NULL, where);
	}
}

static void
test_bearer_parse_any_length(void **state)
{
	static const size_t lengths[] = { 1, 2, BEARER_TOKEN_MAX - 1, BEARER_TOKEN_MAX,
		BEARER_TOKEN_MAX + 1, 2 * BEARER_TOKEN_MAX, LONGEST_HEADER };
	char header[8 + LONGEST_HEADER], where[32];
	size_t i;

	(void)state;
	assert_int_equal(BEARER_TOKEN_MAX, 512);
	for (i = 0; i < COUNT(lengths); i++) {
		memcpy(header, "Bearer ", 7);
		memset(header + 7, 'k', lengths[i]);
		header[7 + lengths[i]] = '\0';
		snprintf(where, sizeof(where), "%zu bytes", lengths[i]);
		compare(header, lengths[i] <= BEARER_TOKEN_MAX ? header + 7 : NULL, where);
	}
}

/* Spaces are no part of the token, so any number of them leaves room for the longest. */
static void
test_bearer_parse_longest_token_among_spaces(void **state)
{
	char header[LONGEST_HEADER + 1], token[BEARER_TOKEN_MAX + 1];

	(void)state;
	memset(token, 't', BEARER_TOKEN_MAX);
	token[BEARER_TOKEN_MAX] = '\0';
	memset(header, ' ', LONGEST_HEADER);
	memcpy(header + 1000, "Bearer", 6);
	memcpy(header + 2000, token, BEARER_TOKEN_MAX);
	header[LONGEST_HEADER] = '\0';
	compare(header, token, "the longest token among spaces");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bearer_parse_examples),
		cmocka_unit_test(test_bearer_parse_any_byte),
		cmocka_unit_test(test_bearer_parse_any_length),
		cmocka_unit_test(test_bearer_parse_longest_token_among_spaces),
	};

	return cmocka_run_group_tests_name("bearer", tests, NULL, NULL);
}
