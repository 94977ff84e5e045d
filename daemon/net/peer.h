/*
 * Who is at the other end of a connection, and what may it be here? The kernel's word at accept is all that counts: the
 * effective uid, and for groups SO_PEERGROUPS, which are those of the process itself when it connected. The user
 * database is not asked: it may be far away and hold up the loop, and knows nothing of groups that a process has given
 * up or was given.
 *
 * In a user namespace whose map is not the full one, a uid outside of it shows as the kernel's overflow uid, and so
 * would all such uids be one. Nobody is served as that. Loop thread.
 */
#ifndef SESSIOND_NET_PEER_H
#define SESSIOND_NET_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct caller;
struct config;
struct registry;

/* What stands for the uids and gids that have no number here; never with a full map. */
struct peer_maps {
    bool partial;
    uid_t unmapped_uid;
    gid_t unmapped_gid;
};

/* Once, at start. */
void peer_read_maps(struct peer_maps *ret);

/* Return: 0 or a fault. */
int peer_caller(int fd, const struct peer_maps *maps, struct registry *registry, struct caller **ret);

/* The uid that a caller acts as. Per user, that is the daemon's own uid, for its own processes and for root's. Return:
 * NULL, or why it is not served, which has been logged. */
const char *peer_owner(struct caller *caller, const struct peer_maps *maps, bool system, uid_t *ret);

#endif
