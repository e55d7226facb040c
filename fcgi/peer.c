/*
 * peer.c: see peer.h.  libfcgi would do this where it accepts, but transport.c accepts itself.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* IPv4 over an IPv6 socket is known by its IPv4 address. */
#define MAPPED "::ffff:"

static bool
is_listed(const char *address, const char *list)
{
	size_t len = strlen(address);

	while (*list != '\0') {
		size_t item;

		list += strspn(list, ", ");
		item = strcspn(list, ", ");
		if (item == len && strncmp(list, address, len) == 0)
			return true;
		list += item;
	}
	return false;
}

bool
peer_is_allowed(int fd, const char *list)
{
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
	socklen_t size = sizeof(peer);
	char text[INET6_ADDRSTRLEN];
	const void *address = NULL;

	if (list == NULL || list[0] == '\0')
		return true;
	if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
		return false; /* it has gone */
	if (peer.ss_family == AF_UNIX)
		return true;
	if (peer.ss_family == AF_INET)
		address = &((const struct sockaddr_in *)&peer)->sin_addr;
	else if (peer.ss_family == AF_INET6)
		address = &((const struct sockaddr_in6 *)&peer)->sin6_addr;
	if (address == NULL || inet_ntop(peer.ss_family, address, text, sizeof(text)) == NULL)
		return false;
	if (strncmp(text, MAPPED, strlen(MAPPED)) == 0)
		return is_listed(text + strlen(MAPPED), list);
	return is_listed(text, list);
}
