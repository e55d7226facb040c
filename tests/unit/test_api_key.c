/* test_api_key.c: hashes against published ones, and what fresh keys look like. */
#include "unit.h"

#include "api_key.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>

#define FRESH_KEYS  1000
#define MILLION     1000000
#define DIGITS_SEEN 0xFFFF /* a bit for each of the 16 */

/* The vectors of FIPS 180, and a key as issued. */
static const struct {
	const char *token;
	size_t len;
	const char *hash;
} vectors[] = {
	{ BYTES(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	{ BYTES("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
	{ BYTES("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
		"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
	{ BYTES("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
		"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"),
		"cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
	{ BYTES("pk_live_0000000000000000000000000000000000000000000000000000000000000000"),
		"ad6488b73a68bbfd1c5300bcf63a86c1c9111e2842c86f220b2e28c49efcae13" },
	/* By length: a NUL is a byte like any. */
	{ BYTES("a\0b"), "59b271ae1bbcb1d31d41929817f4b16fb439eb4f31520b5ad1d5ce98920a7138" },
};

static void
assert_hash(const char *token, size_t len, const char *expected)
{
	unsigned char hash[API_KEY_HASH_BYTES];
	char text[2 * API_KEY_HASH_BYTES + 1];
	size_t i;

	assert_int_equal(api_key_hash(token, len, hash), ERR_OK);
	for (i = 0; i < sizeof(hash); i++)
		snprintf(text + 2 * i, 3, "%02x", hash[i]);
	assert_string_equal(text, expected);
}

static void
test_api_key_hash_known_vectors(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(vectors); i++)
		assert_hash(vectors[i].token, vectors[i].len, vectors[i].hash);
}

static void
test_api_key_hash_of_a_million_bytes(void **state)
{
	char *token = malloc(MILLION);

	(void)state;
	assert_true(token != NULL);
	memset(token, 'a', MILLION);
	assert_hash(
		token, MILLION, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	free(token);
}

/* The digits that a key consists of, as bits. */
static unsigned
digits_of(const char *key)
{
	static const char digits[] = "0123456789abcdef";
	unsigned seen = 0;

	for (key += 8; *key != '\0'; key++)
		seen |= 1U << (strchr(digits, *key) - digits);
	return seen;
}

static void
test_api_key_generate_form(void **state)
{
	char key[API_KEY_MAX + 1];
	unsigned seen = 0;
	regex_t form;
	int i;

	(void)state;
	assert_int_equal(regcomp(&form, "^pk_live_[0-9a-f]{64}$", REG_EXTENDED | REG_NOSUB), 0);
	for (i = 0; i < FRESH_KEYS; i++) {
		memset(key, '?', sizeof(key));
		assert_int_equal(api_key_generate(key), ERR_OK);
		CHECK(memchr(key, '\0', sizeof(key)) == key + API_KEY_LEN, "%s: its length", key);
		CHECK(regexec(&form, key, 0, NULL, 0) == 0, "%s: its form", key);
		CHECK(key[API_KEY_MAX] == '?', "%s: written past its end", key);
		seen |= digits_of(key);
	}
	regfree(&form);
	assert_int_equal(seen, DIGITS_SEEN);
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Not even the part that may be shown is the same in two. */
static void
test_api_key_generate_keys_differ(void **state)
{
	static char keys[FRESH_KEYS][API_KEY_MAX];
	int i;

	(void)state;
	for (i = 0; i < FRESH_KEYS; i++)
		assert_int_equal(api_key_generate(keys[i]), ERR_OK);
	qsort(keys, FRESH_KEYS, sizeof(keys[0]), compare_keys);
	for (i = 1; i < FRESH_KEYS; i++)
		CHECK(strncmp(keys[i - 1], keys[i], API_KEY_PREFIX_LEN) != 0, "%s came twice",
			keys[i]);
}

/* Each byte of a key varies: none of them is a constant or forgotten. */
static void
test_api_key_generate_varies_at_every_place(void **state)
{
	char first[API_KEY_MAX], key[API_KEY_MAX];
	bool varies[API_KEY_LEN] = { false };
	int i, place;

	(void)state;
	assert_int_equal(api_key_generate(first), ERR_OK);
	for (i = 0; i < FRESH_KEYS; i++) {
		assert_int_equal(api_key_generate(key), ERR_OK);
		for (place = 0; place < API_KEY_LEN; place++)
			varies[place] = varies[place] || key[place] != first[place];
	}
	for (place = 0; place < API_KEY_LEN; place++)
		CHECK(varies[place] == (place >= 8), "place %d", place);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_api_key_hash_known_vectors),
		cmocka_unit_test(test_api_key_hash_of_a_million_bytes),
		cmocka_unit_test(test_api_key_generate_form),
		cmocka_unit_test(test_api_key_generate_keys_differ),
		cmocka_unit_test(test_api_key_generate_varies_at_every_place),
	};

	return cmocka_run_group_tests_name("api_key", tests, NULL, NULL);
}
