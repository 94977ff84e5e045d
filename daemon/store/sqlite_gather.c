/*
 * Writes that follow each other in a file go to the kernel as one. SQLite writes a frame of its log in two calls, and
 * a page of its database in one; a batch of changes made some twenty, which took as long as all the rest of its work.
 *
 * What is gathered is written before anything else is done with the file, so that nobody sees the difference: it is
 * read, cut, measured and synced as it would be without. Only an error comes later, with the call that made the bytes
 * be written; SQLite syncs its log before it calls a transaction committed, so that it hears of each in time.
 *
 * This is a VFS above the one that is the default when it is set up. A file's state belongs to the file, which one
 * thread uses at a time.
 */
#include "store/sqlite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/syncs.h"

/* Bytes in one write: what 50 clients append between two commits. SQLite takes the size of a write modulo 128 KiB. (The
 * kernel counts a large piece of its page cache as written by us when a part of it becomes dirty, in /proc/PID/io; the
 * disk gets the part.) */
enum { GATHERED_MAX = 64 * 1024 };

/* Lies behind the real VFS's object for a file, and lives as long. */
struct gathering {
    sqlite3_io_methods methods; /* the real ones, but for some */
    const sqlite3_io_methods *real;
    char *bytes; /* owned; NULL until there are some */
    size_t size;
    sqlite3_int64 begin; /* where they go */
};

static sqlite3_vfs gathering_vfs;
static sqlite3_vfs *real_vfs;

static struct gathering *gathering_of(sqlite3_file *file)
{
    return (struct gathering *)((char *)file + sqlite_vfs_size(real_vfs, _Alignof(struct gathering)));
}

static int write_gathered(sqlite3_file *file)
{
    struct gathering *gathering = gathering_of(file);
    size_t size = gathering->size;

    gathering->size = 0; /* after an error, too: who hears of it begins anew */
    return size ? gathering->real->xWrite(file, gathering->bytes, (int)size, gathering->begin) : SQLITE_OK;
}

static bool follows(const struct gathering *gathering, size_t size, sqlite3_int64 offset)
{
    return gathering->size > 0 && offset == gathering->begin + (sqlite3_int64)gathering->size &&
           gathering->size + size <= GATHERED_MAX;
}

static int gather(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct gathering *gathering = gathering_of(file);
    int rc;

    if (!follows(gathering, (size_t)size, offset)) {
        if ((rc = write_gathered(file)))
            return rc;
        gathering->begin = offset;
    }
    if (!gathering->bytes)
        gathering->bytes = malloc(GATHERED_MAX);
    if (!gathering->bytes || size > GATHERED_MAX)
        return gathering->real->xWrite(file, data, size, offset);
    memcpy(gathering->bytes + gathering->size, data, (size_t)size);
    gathering->size += (size_t)size;
    return SQLITE_OK;
}

static int read_after(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    int rc = write_gathered(file);

    return rc ? rc : gathering_of(file)->real->xRead(file, data, size, offset);
}

static int truncate_after(sqlite3_file *file, sqlite3_int64 size)
{
    int rc = write_gathered(file);

    return rc ? rc : gathering_of(file)->real->xTruncate(file, size);
}

static int sync_after(sqlite3_file *file, int flags)
{
    int rc = write_gathered(file);
    uint64_t began_us = clock_monotonic_us();

    if (rc)
        return rc;
    rc = gathering_of(file)->real->xSync(file, flags);
    syncs_count(began_us);
    return rc;
}

static int measure_after(sqlite3_file *file, sqlite3_int64 *ret)
{
    int rc = write_gathered(file);

    return rc ? rc : gathering_of(file)->real->xFileSize(file, ret);
}

/* SQLite says so before each sync, and also where a transaction is not synced, as in a copy for a backup. What it says
 * otherwise it only mentions: it would not hear of an error. */
static int control_after(sqlite3_file *file, int what, void *arg)
{
    int rc = what == SQLITE_FCNTL_SYNC ? write_gathered(file) : SQLITE_OK;

    return rc ? rc : gathering_of(file)->real->xFileControl(file, what, arg);
}

static int close_after(sqlite3_file *file)
{
    struct gathering *gathering = gathering_of(file);

    (void)write_gathered(file); /* no transaction's: that has ended before */
    free(gathering->bytes);
    return gathering->real->xClose(file);
}

static int open_gathering(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *ret_flags)
{
    int rc = real_vfs->xOpen(real_vfs, path, file, flags, ret_flags);
    struct gathering *gathering = gathering_of(file);

    (void)vfs;
    if (rc != SQLITE_OK || !(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)))
        return rc;
    *gathering = (struct gathering){.methods = *file->pMethods, .real = file->pMethods};
    gathering->methods.iVersion = 2; /* nobody reads by mmap what is not written yet */
    gathering->methods.xWrite = gather;
    gathering->methods.xRead = read_after;
    gathering->methods.xTruncate = truncate_after;
    gathering->methods.xSync = sync_after;
    gathering->methods.xFileSize = measure_after;
    gathering->methods.xFileControl = control_after;
    gathering->methods.xClose = close_after;
    file->pMethods = &gathering->methods;
    return SQLITE_OK;
}

size_t sqlite_vfs_size(const sqlite3_vfs *vfs, size_t align)
{
    return ((size_t)vfs->szOsFile + align - 1) / align * align;
}

int sqlite_gather_setup(sqlite3_vfs **ret)
{
    real_vfs = sqlite3_vfs_find(NULL);
    if (!real_vfs)
        return fault(ENOTSUP, "find SQLite's way to files");
    gathering_vfs = *real_vfs;
    gathering_vfs.zName = "sessiond-gather";
    gathering_vfs.szOsFile = (int)(sqlite_vfs_size(real_vfs, _Alignof(struct gathering)) + sizeof(struct gathering));
    gathering_vfs.xOpen = open_gathering;
    *ret = &gathering_vfs;
    return 0;
}
