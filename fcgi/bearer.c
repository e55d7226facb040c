/* bearer.c: see bearer.h. */
#include "bearer.h"

#include <string.h>
#include <strings.h>

static const char scheme[] = "Bearer";
static const char token_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				       "0123456789-._~+/=";

enum err
bearer_parse(const char *header, const char **token, size_t *len)
{
	if (header == NULL)
		return ERR_UNAUTHORIZED;
	header += strspn(header, " ");
	if (strncasecmp(header, scheme, strlen(scheme)) != 0)
		return ERR_UNAUTHORIZED;
	header += strlen(scheme);
	if (*header != ' ')
		return ERR_UNAUTHORIZED;
	header += strspn(header, " ");
	*token = header;
	*len = strspn(header, token_characters);
	header += *len;
	header += strspn(header, " ");
	/* Left over: another token, a tab, a comma of two joined headers, a byte of no token. */
	if (*len == 0 || *len > BEARER_TOKEN_MAX || *header != '\0')
		return ERR_UNAUTHORIZED;
	return ERR_OK;
}
