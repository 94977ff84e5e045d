#include "net/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/caller.h"

/* ---- the maps ---- */

static bool is_full(const char *path)
{
    unsigned long inside, outside, n;
    char text[128], *rest = text;

    if (file_read(path, text, sizeof(text)))
        return false;
    inside = strtoul(rest, &rest, 10);
    outside = strtoul(rest, &rest, 10);
    n = strtoul(rest, &rest, 10);
    return inside == 0 && outside == 0 && n == UINT32_MAX;
}

static unsigned read_overflow(const char *path)
{
    char text[32];

    return file_read(path, text, sizeof(text)) ? 65534 : (unsigned)strtoul(text, NULL, 10);
}

void peer_read_maps(struct peer_maps *ret)
{
    ret->partial = !is_full("/proc/self/uid_map") || !is_full("/proc/self/gid_map");
    ret->unmapped_uid = read_overflow("/proc/sys/kernel/overflowuid");
    ret->unmapped_gid = read_overflow("/proc/sys/kernel/overflowgid");
    if (ret->partial)
        log_info("user_namespace map=partial why=\"peers without a uid here will be refused\"");
}

/* ---- the peer ---- */

/* Its primary group first. Return: 0 or a fault. */
static int read_groups(int fd, gid_t primary, gid_t **ret, size_t *ret_n)
{
    gid_t none, *groups;
    socklen_t size = 0;

    /* Not known to kernels before 4.13: then only the primary group counts. */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, &none, &size) < 0 && errno != ERANGE)
        size = 0;
    groups = malloc(sizeof(*groups) + size);
    if (!groups)
        return fault(ENOMEM, "groups");
    groups[0] = primary;
    if (size > 0 && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups + 1, &size) < 0) {
        free(groups);
        return fault(errno, "SO_PEERGROUPS");
    }
    *ret = groups;
    *ret_n = 1 + size / sizeof(*groups);
    return 0;
}

/* A group without a number here gives no rights: any other group without one would look the same. */
static size_t drop_unmapped(const struct peer_maps *maps, gid_t *groups, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (!maps->partial || groups[i] != maps->unmapped_gid)
            groups[kept++] = groups[i];
    return kept;
}

int peer_caller(int fd, const struct peer_maps *maps, struct registry *registry, struct caller **ret)
{
    _cleanup_(free_pointer) gid_t *groups = NULL;
    struct ucred peer;
    socklen_t size = sizeof(peer);
    size_t n = 0;
    int r;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return fault(errno, "SO_PEERCRED");
    r = read_groups(fd, peer.gid, &groups, &n);
    if (r)
        return r;
    r = caller_new(ret, registry, peer.uid, groups, drop_unmapped(maps, groups, n));
    if (r == 0)
        (*ret)->pid = peer.pid;
    return r;
}

const char *peer_owner(struct caller *caller, const struct peer_maps *maps, bool system, uid_t *ret)
{
    if (maps->partial && caller->uid == maps->unmapped_uid) {
        caller_audit(caller, "peer", slice_of("unmapped"));
        return "your uid has no number in the user namespace of this daemon, which cannot tell you from others; "
               "map it, or run a daemon of your own";
    }
    if (!system && caller->uid != geteuid() && caller->uid != 0) {
        caller_audit(caller, "peer", slice_of("another user"));
        return "this daemon serves another user";
    }
    *ret = system ? caller->uid : geteuid();
    return NULL;
}
