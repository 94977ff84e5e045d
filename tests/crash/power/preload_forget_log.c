/*
 * For the control run of the power cuts: an fdatasync of a write-ahead log does nothing and says that it has. Loaded
 * before the daemon (LD_PRELOAD), so that the daemon itself needs no such switch.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int fdatasync(int fd);

static bool is_log(int fd)
{
    static const char suffix[] = "-wal";
    char link[32], path[PATH_MAX];
    ssize_t size;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof(path));
    return size > (ssize_t)strlen(suffix) && memcmp(path + size - strlen(suffix), suffix, strlen(suffix)) == 0;
}

EXPORT int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");

    return is_log(fd) ? 0 : real(fd);
}
