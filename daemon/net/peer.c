#include "net/peer.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "sessiond-codes.h"

int peer_owner(int fd, bool system, uid_t *ret)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return fault(errno, "SO_PEERCRED");
    if (system) {
        *ret = peer.uid;
        return 0;
    }
    if (peer.uid != geteuid() && peer.uid != 0) {
        log_warning("peer_denied uid=%u pid=%d", peer.uid, peer.pid);
        return SESSIOND_DENIED;
    }
    *ret = geteuid();
    return 0;
}
