#include "net/listen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto.h"

static int refuse_path(const char *path, const char *why)
{
    log_error("socket_refused path=\"%s\" why=\"%s\"", path, why);
    return SESSIOND_INVALID;
}

/* Whether somebody answers at this path. */
static bool is_live(const struct sockaddr_un *address)
{
    _cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return true;
    /* EAGAIN is a live socket with a full backlog. */
    return connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN;
}

/* Removes a socket that nobody listens on any more; never anything else. The path's lock is ours already. */
static int remove_stale(const struct sockaddr_un *address)
{
    struct stat status;

    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : fault(errno, address->sun_path);
    if (!S_ISSOCK(status.st_mode))
        return refuse_path(address->sun_path, "there is something that is no socket");
    if (is_live(address)) {
        log_error("socket_in_use path=\"%s\"", address->sun_path);
        return SESSIOND_BUSY;
    }
    return unlink(address->sun_path) < 0 ? fault(errno, address->sun_path) : 0;
}

/* Binds, so that the socket has its mode from the first instant. */
static int bind_socket(const struct sockaddr_un *address, mode_t mode, int *ret_fd)
{
    _cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before;
    int r;

    if (fd < 0)
        return fault(errno, "socket");
    if (fchmod(fd, mode) < 0)
        return fault(errno, "socket mode");
    before = umask(0777 & ~mode);
    r = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    umask(before);
    if (r < 0)
        return fault(errno, address->sun_path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int lock_socket(const char *path)
{
    char lock[PROTO_SOCKET_PATH_MAX + 8];
    int fd, r;

    snprintf(lock, sizeof(lock), "%s.lock", path);
    r = file_lock(lock, &fd); /* the descriptor stays open until the process ends */
    if (r == SESSIOND_BUSY)
        log_error("socket_in_use path=\"%s\" why=\"another sessiond has its lock\"", path);
    return r;
}

static int make_directory_of(const char *path)
{
    char directory[PROTO_SOCKET_PATH_MAX + 1], *slash;

    memcpy(directory, path, strlen(path) + 1);
    slash = strrchr(directory, '/');
    if (!slash || slash == directory)
        return 0;
    *slash = '\0';
    return file_make_directory(directory);
}

int listen_at(const char *path, mode_t mode, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int r;

    if (strlen(path) > PROTO_SOCKET_PATH_MAX)
        return refuse_path(path, "it has more than 107 bytes, which is all that the kernel takes");
    memcpy(address.sun_path, path, strlen(path) + 1);
    if ((r = make_directory_of(path)) || (r = lock_socket(path)) || (r = remove_stale(&address)))
        return r;
    return bind_socket(&address, mode, ret_fd);
}
