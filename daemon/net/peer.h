/*
 * Who is at the other end of a connection, and what may it be here? The kernel's word at accept is all that counts.
 * Loop thread; no state.
 */
#ifndef SESSIOND_NET_PEER_H
#define SESSIOND_NET_PEER_H

#include <stdbool.h>
#include <sys/types.h>

/* The uid that a connected socket acts as. Per user, that is the daemon's own uid, for its own processes and for
 * root's. Return: 0, SESSIOND_DENIED, or a fault. */
int peer_owner(int fd, bool system, uid_t *ret);

#endif
