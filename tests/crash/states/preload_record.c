/*
 * Writes down what a program does to the files below a directory: every call that changes them or syncs them, in order,
 * with the bytes. Loaded before the program (LD_PRELOAD); recording.py reads the record and describes it.
 *
 *     SESSIOND_RECORD        the record, to which is appended
 *     SESSIOND_RECORD_ROOT   the directory
 *     SESSIOND_RECORD_END    if not 0, the program is killed right after so many calls
 *
 * A call is made and written down under one lock, so the order of the record is the order on the disk. What a program
 * did behind our back (by another call, or mapped memory) would make the states wrong that are built from the record;
 * that the whole record leads to the very files that the program left is therefore checked each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The names are given to the linker, since the headers may have definitions of their own for the compiler. */
#define REPLACES(name) __asm__(name) __attribute__((visibility("default")))

enum kind {
    KIND_CREATE = 1,
    KIND_MAKE_DIRECTORY = 2,
    KIND_WRITE = 3,
    KIND_TRUNCATE = 4,
    KIND_SYNC = 5,
    KIND_UNLINK = 6,
    KIND_RENAME = 7,
};

struct call {
    uint64_t at_us; /* before it was made */
    uint64_t inode; /* of what it was made on, or of what it made */
    uint64_t offset;
    uint32_t kind;
    uint32_t path_size; /* bytes of the path that follows: of a rename two, with a NUL between */
    uint64_t data_size; /* bytes of the data that follow the path */
};

enum { FDS = 65536 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool recorded[FDS]; /* under the lock, but for a look at an fd of one's own */
static int record = -1;
static const char *root;
static uint64_t end, n_calls;

static void __attribute__((constructor)) begin(void)
{
    const char *path = getenv("SESSIOND_RECORD"), *last = getenv("SESSIOND_RECORD_END");

    root = getenv("SESSIOND_RECORD_ROOT");
    end = last ? strtoull(last, NULL, 10) : 0;
    if (path && root)
        record = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (record < 0)
        abort();
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool is_below_root(const char *path)
{
    size_t size = strlen(root);

    return strncmp(path, root, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

static bool is_recorded(int fd)
{
    return fd >= 0 && fd < FDS && recorded[fd];
}

static uint64_t inode_of(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

static uint64_t inode_at(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 ? status.st_ino : 0;
}

static void write_down(struct call call, const char *path, const void *data)
{
    const struct iovec parts[] = {
        {&call, sizeof(call)}, {(void *)path, call.path_size}, {(void *)data, call.data_size}};
    size_t size = sizeof(call) + call.path_size + call.data_size;

    if (syscall(SYS_writev, record, parts, 3) != (long)size)
        abort();
    if (++n_calls == end)
        kill(getpid(), SIGKILL);
}

static struct call call_on(enum kind kind, const char *path)
{
    return (struct call){.at_us = now_us(), .kind = kind, .path_size = path ? (uint32_t)strlen(path) : 0};
}

/* ---- opening and closing ---- */

static int record_open(const char *path, int flags, mode_t mode)
{
    struct call call;
    uint64_t before;
    int fd;

    if (!is_below_root(path))
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&lock);
    before = inode_at(path);
    call = call_on(before ? KIND_TRUNCATE : KIND_CREATE, path);
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= FDS)
        abort();
    if (fd >= 0) {
        recorded[fd] = true;
        call.inode = inode_of(fd);
        if (!before || (flags & O_TRUNC))
            write_down(call, path, NULL);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

int replaced_open(const char *path, int flags, ...) REPLACES("open");
int replaced_open64(const char *path, int flags, ...) REPLACES("open64");
int replaced_close(int fd) REPLACES("close");

static mode_t mode_of(int flags, va_list arguments)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

int replaced_open(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;

    va_start(arguments, flags);
    mode = mode_of(flags, arguments);
    va_end(arguments);
    return record_open(path, flags, mode);
}

int replaced_open64(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;

    va_start(arguments, flags);
    mode = mode_of(flags, arguments);
    va_end(arguments);
    return record_open(path, flags | O_LARGEFILE, mode);
}

int replaced_close(int fd)
{
    if (is_recorded(fd)) {
        pthread_mutex_lock(&lock);
        recorded[fd] = false;
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_close, fd);
}

/* ---- files ---- */

ssize_t replaced_write(int fd, const void *data, size_t size) REPLACES("write");
ssize_t replaced_pwrite(int fd, const void *data, size_t size, off_t offset) REPLACES("pwrite");
ssize_t replaced_pwrite64(int fd, const void *data, size_t size, off_t offset) REPLACES("pwrite64");
int replaced_ftruncate(int fd, off_t size) REPLACES("ftruncate");
int replaced_ftruncate64(int fd, off_t size) REPLACES("ftruncate64");
int replaced_posix_fallocate(int fd, off_t offset, off_t size) REPLACES("posix_fallocate");
int replaced_posix_fallocate64(int fd, off_t offset, off_t size) REPLACES("posix_fallocate64");
int replaced_fsync(int fd) REPLACES("fsync");
int replaced_fdatasync(int fd) REPLACES("fdatasync");

static ssize_t record_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct call call;
    ssize_t n;

    if (!is_recorded(fd))
        return syscall(SYS_pwrite64, fd, data, size, offset);
    pthread_mutex_lock(&lock);
    call = call_on(KIND_WRITE, NULL);
    n = syscall(SYS_pwrite64, fd, data, size, offset);
    if (n > 0) {
        call.inode = inode_of(fd);
        call.offset = (uint64_t)offset;
        call.data_size = (uint64_t)n;
        write_down(call, NULL, data);
    }
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t replaced_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return record_pwrite(fd, data, size, offset);
}

ssize_t replaced_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return record_pwrite(fd, data, size, offset);
}

/* Nobody opens these files for appending, or shares their offset. */
ssize_t replaced_write(int fd, const void *data, size_t size)
{
    off_t offset;
    ssize_t n;

    if (!is_recorded(fd))
        return syscall(SYS_write, fd, data, size);
    offset = lseek(fd, 0, SEEK_CUR);
    n = record_pwrite(fd, data, size, offset);
    if (n > 0)
        lseek(fd, offset + n, SEEK_SET);
    return n;
}

static int record_ftruncate(int fd, off_t size)
{
    struct call call;
    int r;

    if (!is_recorded(fd))
        return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    call = call_on(KIND_TRUNCATE, NULL);
    r = (int)syscall(SYS_ftruncate, fd, size);
    if (r == 0) {
        call.inode = inode_of(fd);
        call.offset = (uint64_t)size;
        write_down(call, NULL, NULL);
    }
    pthread_mutex_unlock(&lock);
    return r;
}

int replaced_ftruncate(int fd, off_t size)
{
    return record_ftruncate(fd, size);
}

int replaced_ftruncate64(int fd, off_t size)
{
    return record_ftruncate(fd, size);
}

/* As a truncation to a larger size, which to a reader it is. */
static int record_fallocate(int fd, off_t offset, off_t size)
{
    struct stat status;

    if (!is_recorded(fd))
        return syscall(SYS_fallocate, fd, 0, offset, size) == 0 ? 0 : errno;
    if (fstat(fd, &status) < 0)
        return errno;
    if (status.st_size >= offset + size)
        return 0;
    return record_ftruncate(fd, offset + size) == 0 ? 0 : errno;
}

int replaced_posix_fallocate(int fd, off_t offset, off_t size)
{
    return record_fallocate(fd, offset, size);
}

int replaced_posix_fallocate64(int fd, off_t offset, off_t size)
{
    return record_fallocate(fd, offset, size);
}

static int record_sync(int fd, long number)
{
    struct call call;
    int r;

    if (!is_recorded(fd))
        return (int)syscall(number, fd);
    pthread_mutex_lock(&lock);
    call = call_on(KIND_SYNC, NULL);
    r = (int)syscall(number, fd);
    if (r == 0) {
        call.inode = inode_of(fd);
        write_down(call, NULL, NULL);
    }
    pthread_mutex_unlock(&lock);
    return r;
}

int replaced_fsync(int fd)
{
    return record_sync(fd, SYS_fsync);
}

int replaced_fdatasync(int fd)
{
    return record_sync(fd, SYS_fdatasync);
}

/* ---- names ---- */

int replaced_mkdir(const char *path, mode_t mode) REPLACES("mkdir");
int replaced_unlink(const char *path) REPLACES("unlink");
int replaced_rename(const char *from, const char *to) REPLACES("rename");

int replaced_mkdir(const char *path, mode_t mode)
{
    struct call call;
    int r;

    if (!is_below_root(path))
        return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    pthread_mutex_lock(&lock);
    call = call_on(KIND_MAKE_DIRECTORY, path);
    r = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (r == 0) {
        call.inode = inode_at(path);
        write_down(call, path, NULL);
    }
    pthread_mutex_unlock(&lock);
    return r;
}

int replaced_unlink(const char *path)
{
    struct call call;
    int r;

    if (!is_below_root(path))
        return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    call = call_on(KIND_UNLINK, path);
    r = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (r == 0)
        write_down(call, path, NULL);
    pthread_mutex_unlock(&lock);
    return r;
}

int replaced_rename(const char *from, const char *to)
{
    char both[2 * PATH_MAX];
    struct call call;
    int r;

    if (!is_below_root(from) && !is_below_root(to))
        return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    pthread_mutex_lock(&lock);
    call = call_on(KIND_RENAME, from);
    r = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (r == 0) {
        call.path_size = (uint32_t)snprintf(both, sizeof(both), "%s%c%s", from, '\0', to);
        write_down(call, both, NULL);
    }
    pthread_mutex_unlock(&lock);
    return r;
}
