/*
 * peer.h: who may speak FastCGI to us over TCP.
 */
#ifndef WARMUP_PEER_H
#define WARMUP_PEER_H

#include <stdbool.h>

/*
 * Whether the peer of an accepted connection is in a list of addresses, separated by commas: that
 * of FCGI_WEB_SERVER_ADDRS, from the FastCGI specification.  A Unix socket has its permissions
 * instead, and NULL or "" is no list: then all are allowed.
 */
bool peer_is_allowed(int fd, const char *list);

#endif
