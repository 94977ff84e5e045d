/*
 * A disk that fails as planned, or a kill -9 at a named point, for a process that preloads this:
 * LD_PRELOAD=preload_faults.so FAULT_PLAN=file sessiond. The calls of all threads are counted together, in the order in
 * which they are made. See plan.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "plan.h"

#define PUBLIC __attribute__((visibility("default")))

enum { HANG_POLL_US = 1000 };

static struct fault_plan *plan;

__attribute__((constructor)) static void map_plan(void)
{
    const char *path = getenv("FAULT_PLAN");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED) {
        static const char why[] = "preload_faults: FAULT_PLAN names no plan\n";

        (void)syscall(SYS_write, STDERR_FILENO, why, sizeof(why) - 1);
        _exit(EXIT_FAILURE);
    }
    (void)syscall(SYS_close, fd);
    plan = map;
}

/* ---- the end ---- */

static _Atomic bool answering_kills;

__attribute__((noreturn)) static void die(void)
{
    (void)kill(getpid(), SIGKILL);
    for (;;)
        (void)pause();
}

/* For a call that was made and returned `n`. */
static ssize_t survive(enum fault_way way, ssize_t n)
{
    if (way == FAULT_KILL_HALF || way == FAULT_KILL_AFTER)
        die();
    if (way == FAULT_KILL_ANSWER)
        atomic_store(&answering_kills, true);
    return n;
}

static void begin_answer(int fd)
{
    struct stat status;

    if (atomic_load(&answering_kills) && fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode))
        die();
}

/* ---- which calls ---- */

static bool counts(enum fault_call call, const char *path)
{
    return (atomic_load(&plan->calls) & call) && fnmatch(plan->pattern, path, FNM_EXTMATCH) == 0;
}

static bool counts_fd(enum fault_call call, int fd)
{
    char link[32], path[PATH_MAX];
    ssize_t size;

    if (!(atomic_load(&plan->calls) & call))
        return false;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = syscall(SYS_readlink, link, path, sizeof(path) - 1);
    if (size < 0)
        return false;
    path[size] = '\0';
    return counts(call, path);
}

static void hang(enum fault_call call)
{
    atomic_fetch_add(&plan->hanging, 1);
    while (atomic_load(&plan->calls) & call)
        (void)usleep(HANG_POLL_US);
    atomic_fetch_sub(&plan->hanging, 1);
}

/* Return: what happens to this call, which counts. errno is set as planned. */
static enum fault_way next_way(enum fault_call call)
{
    int64_t left = atomic_fetch_sub(&plan->countdown, 1) - 1;
    enum fault_way way = left > 0 ? FAULT_NONE : (enum fault_way)atomic_load(left == 0 ? &plan->way : &plan->way_then);

    if (way == FAULT_NONE)
        return way;
    atomic_fetch_add(&plan->failed, 1);
    if (way == FAULT_HANG) {
        hang(call);
        return FAULT_NONE;
    }
    if (way == FAULT_KILL_BEFORE)
        die();
    errno = atomic_load(&plan->error);
    return way;
}

static enum fault_way way_of_fd(enum fault_call call, int fd)
{
    return counts_fd(call, fd) ? next_way(call) : FAULT_NONE;
}

static enum fault_way way_of_path(enum fault_call call, const char *path)
{
    return counts(call, path) ? next_way(call) : FAULT_NONE;
}

/* For calls that succeed with 0. */
#define RETURN_AS_PLANNED(way, really)                                                                                 \
    do {                                                                                                               \
        int planned = errno;                                                                                           \
                                                                                                                       \
        if ((way) == FAULT_SWALLOW)                                                                                    \
            return 0;                                                                                                  \
        if ((way) == FAULT_NONE || (way) >= FAULT_KILL_BEFORE)                                                         \
            return (int)survive((way), (really));                                                                      \
        if ((way) == FAULT_DONE)                                                                                       \
            (void)(really);                                                                                            \
        errno = planned;                                                                                               \
        return -1;                                                                                                     \
    } while (0)

/* ---- the calls ---- */

PUBLIC int fdatasync(int fd);
PUBLIC int fsync(int fd);
PUBLIC int ftruncate(int fd, off_t size);
PUBLIC int ftruncate64(int fd, off64_t size);
PUBLIC int unlink(const char *path);
PUBLIC ssize_t pwrite(int fd, const void *data, size_t size, off_t offset);
PUBLIC ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);
PUBLIC ssize_t write(int fd, const void *data, size_t size);
PUBLIC ssize_t writev(int fd, const struct iovec *parts, int n);
PUBLIC ssize_t pread(int fd, void *data, size_t size, off_t offset);
PUBLIC ssize_t pread64(int fd, void *data, size_t size, off64_t offset);
PUBLIC int open(const char *path, int flags, ...);
PUBLIC int open64(const char *path, int flags, ...);

int fdatasync(int fd)
{
    enum fault_way way = way_of_fd(FAULT_SYNC, fd);

    RETURN_AS_PLANNED(way, syscall(SYS_fdatasync, fd));
}

int fsync(int fd)
{
    enum fault_way way = way_of_fd(FAULT_SYNC, fd);

    RETURN_AS_PLANNED(way, syscall(SYS_fsync, fd));
}

int ftruncate64(int fd, off64_t size)
{
    enum fault_way way = way_of_fd(FAULT_TRUNCATE, fd);

    RETURN_AS_PLANNED(way, syscall(SYS_ftruncate, fd, size));
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int unlink(const char *path)
{
    enum fault_way way = way_of_path(FAULT_UNLINK, path);

    RETURN_AS_PLANNED(way, syscall(SYS_unlink, path));
}

/* `offset` < 0: where the file stands. */
static ssize_t write_as_planned(int fd, const void *data, size_t size, off64_t offset)
{
    enum fault_way way = way_of_fd(offset == 0 ? FAULT_HEADER | FAULT_WRITE : FAULT_WRITE, fd);
    bool half = way == FAULT_HALF || way == FAULT_KILL_HALF;
    size_t part = half ? size / 2 : way == FAULT_UNDONE || way == FAULT_SWALLOW ? 0 : size;
    int planned = errno;
    ssize_t n = 0;

    if (part || size == 0)
        n = offset < 0 ? syscall(SYS_write, fd, data, part) : syscall(SYS_pwrite64, fd, data, part, offset);
    if (way == FAULT_NONE || way >= FAULT_KILL_BEFORE)
        return survive(way, n);
    errno = planned;
    return way == FAULT_SWALLOW ? (ssize_t)size : -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return write_as_planned(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_as_planned(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    begin_answer(fd);
    return write_as_planned(fd, data, size, -1);
}

ssize_t writev(int fd, const struct iovec *parts, int n)
{
    begin_answer(fd);
    return syscall(SYS_writev, fd, parts, n);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
    if (way_of_fd(FAULT_READ, fd) != FAULT_NONE)
        return -1;
    return syscall(SYS_pread64, fd, data, size, offset);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return pread64(fd, data, size, offset);
}

static int open_as_planned(const char *path, int flags, mode_t mode)
{
    if (way_of_path(FAULT_OPEN, path) != FAULT_NONE)
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define MODE_AFTER(flags)                                                                                              \
    ({                                                                                                                 \
        mode_t _mode = 0;                                                                                              \
        va_list _arguments;                                                                                            \
                                                                                                                       \
        if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                       \
            va_start(_arguments, flags);                                                                               \
            _mode = va_arg(_arguments, mode_t);                                                                        \
            va_end(_arguments);                                                                                        \
        }                                                                                                              \
        _mode;                                                                                                         \
    })

int open(const char *path, int flags, ...)
{
    return open_as_planned(path, flags, MODE_AFTER(flags));
}

int open64(const char *path, int flags, ...)
{
    return open_as_planned(path, flags, MODE_AFTER(flags));
}
