/* api_key.c: see api_key.h. */
#include "api_key.h"

#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum err
api_key_hash(const char *token, size_t len, unsigned char hash[API_KEY_HASH_BYTES])
{
	return SHA256((const unsigned char *)token, len, hash) != NULL ? ERR_OK : ERR_INTERNAL;
}

enum err
api_key_prepare(void)
{
	unsigned char hash[API_KEY_HASH_BYTES], random;

	return api_key_hash("", 0, hash) == ERR_OK && RAND_bytes(&random, 1) == 1 ? ERR_OK :
										    ERR_INTERNAL;
}

enum err
api_key_generate(char key[API_KEY_MAX])
{
	static const char mark[] = "pk_live_";
	unsigned char random[32];
	size_t i;

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return ERR_IO;
	memcpy(key, mark, sizeof(mark));
	for (i = 0; i < sizeof(random); i++)
		snprintf(key + sizeof(mark) - 1 + 2 * i, 3, "%02x", random[i]);
	explicit_bzero(random, sizeof(random));
	return ERR_OK;
}
