#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/mem.h"
#include "sessiond-codes.h"

int file_sync(const char *path)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : fault(errno, path);
    return fsync(fd) < 0 ? fault(errno, path) : 0;
}

int file_sync_parent(const char *path)
{
    char copy[PATH_MAX];

    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return fault(ENAMETOOLONG, path);
    return file_sync(dirname(copy));
}

static int make_one(const char *path)
{
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : fault(errno, path);
    return file_sync_parent(path);
}

int file_make_directory(const char *path)
{
    char part[PATH_MAX];
    struct stat status;
    int r;

    if (stat(path, &status) == 0)
        return S_ISDIR(status.st_mode) ? 0 : fault(ENOTDIR, path);
    if (strlen(path) >= sizeof(part))
        return fault(ENAMETOOLONG, path);

    for (size_t i = 1; path[i]; i++)
        if (path[i] == '/') {
            memcpy(part, path, i);
            part[i] = '\0';
            if ((r = make_one(part)))
                return r;
        }
    return make_one(path);
}

int file_lock(const char *path, int *ret_fd)
{
    _cleanup_(close_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return fault(errno, path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? SESSIOND_BUSY : fault(errno, path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int file_read(const char *path, char *ret, size_t size)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? SESSIOND_NOT_FOUND : fault(errno, path);
    n = read(fd, ret, size);
    if (n < 0)
        return fault(errno, path);
    if ((size_t)n == size)
        return SESSIOND_TOO_LARGE;
    ret[n] = '\0';
    return 0;
}

int file_write(const char *path, const char *text)
{
    _cleanup_(close_fd) int fd = -1;
    char partial[PATH_MAX];

    if (snprintf(partial, sizeof(partial), "%s.partial", path) >= (int)sizeof(partial))
        return fault(ENAMETOOLONG, path);
    fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fault(errno, partial);
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) < 0 || rename(partial, path) < 0)
        return fault(errno, partial);
    return file_sync_parent(path);
}
