/*
 * A layer under SQLite (a VFS) whose reads, writes and syncs fail as a test has planned; everything else is passed on
 * to the real one. It is put there once, after sqlite_setup; the checksums of pages then lie above it. One thread.
 */
#ifndef SESSIOND_CONTRACT_FAULTY_H
#define SESSIOND_CONTRACT_FAULTY_H

#include <stdbool.h>
#include <stdlib.h>

#include <sqlite3.h>

#include "contract.h"
#include "store/sqlite.h"

enum call { CALL_READ, CALL_WRITE, CALL_SYNC, N_CALLS };

static struct {
    enum call call; /* which of them fail */
    unsigned in;    /* so many calls from now; 1 is the next, 0: none */
    bool lasting;   /* and all after it */
    int rc;         /* with this */
    unsigned n_hit; /* so many have failed */
    unsigned n_calls[N_CALLS];
} plan;

static inline void arm(enum call call, unsigned in, bool lasting, int rc)
{
    plan.call = call;
    plan.in = in;
    plan.lasting = lasting;
    plan.rc = rc;
    plan.n_hit = 0;
}

static inline void disarm(void)
{
    plan.in = 0;
}

static bool hits(enum call call)
{
    plan.n_calls[call]++;
    if (call != plan.call || plan.in == 0)
        return false;
    if (plan.in > 1) {
        plan.in--;
        return false;
    }
    plan.n_hit++;
    plan.in = plan.lasting;
    return true;
}

struct faulty_file {
    sqlite3_file file; /* first: SQLite's */
    sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;

#define REAL(file) (((struct faulty_file *)(file))->real)
#define PASS_ON(file, method, ...) (REAL(file)->pMethods->method(REAL(file), ##__VA_ARGS__))

static int on_close(sqlite3_file *file)
{
    return PASS_ON(file, xClose);
}

static int on_read(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    return hits(CALL_READ) ? plan.rc : PASS_ON(file, xRead, data, size, offset);
}

/* A write that fails may have written a part. */
static int on_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    if (!hits(CALL_WRITE))
        return PASS_ON(file, xWrite, data, size, offset);
    (void)PASS_ON(file, xWrite, data, size / 2, offset);
    return plan.rc;
}

static int on_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return PASS_ON(file, xTruncate, size);
}

static int on_sync(sqlite3_file *file, int flags)
{
    return hits(CALL_SYNC) ? plan.rc : PASS_ON(file, xSync, flags);
}

static int on_file_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    return PASS_ON(file, xFileSize, ret);
}

static int on_lock(sqlite3_file *file, int lock)
{
    return PASS_ON(file, xLock, lock);
}

static int on_unlock(sqlite3_file *file, int lock)
{
    return PASS_ON(file, xUnlock, lock);
}

static int on_check_reserved_lock(sqlite3_file *file, int *ret)
{
    return PASS_ON(file, xCheckReservedLock, ret);
}

static int on_file_control(sqlite3_file *file, int what, void *arg)
{
    return PASS_ON(file, xFileControl, what, arg);
}

static int on_sector_size(sqlite3_file *file)
{
    return PASS_ON(file, xSectorSize);
}

static int on_characteristics(sqlite3_file *file)
{
    return PASS_ON(file, xDeviceCharacteristics);
}

/* Shared memory: a store does without, but a copy is made in the ordinary way. */
static int on_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
    return PASS_ON(file, xShmMap, page, size, extend, ret);
}

static int on_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    return PASS_ON(file, xShmLock, offset, n, flags);
}

static void on_shm_barrier(sqlite3_file *file)
{
    PASS_ON(file, xShmBarrier);
}

static int on_shm_unmap(sqlite3_file *file, int delete_too)
{
    return PASS_ON(file, xShmUnmap, delete_too);
}

static const sqlite3_io_methods faulty_methods = {
    .iVersion = 2,
    .xClose = on_close,
    .xRead = on_read,
    .xWrite = on_write,
    .xTruncate = on_truncate,
    .xSync = on_sync,
    .xFileSize = on_file_size,
    .xLock = on_lock,
    .xUnlock = on_unlock,
    .xCheckReservedLock = on_check_reserved_lock,
    .xFileControl = on_file_control,
    .xSectorSize = on_sector_size,
    .xDeviceCharacteristics = on_characteristics,
    .xShmMap = on_shm_map,
    .xShmLock = on_shm_lock,
    .xShmBarrier = on_shm_barrier,
    .xShmUnmap = on_shm_unmap,
};

static int on_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *ret_flags)
{
    struct faulty_file *faulty = (struct faulty_file *)file;
    int rc;

    (void)vfs;
    faulty->real = (sqlite3_file *)(faulty + 1);
    rc = real_vfs->xOpen(real_vfs, path, faulty->real, flags, ret_flags);
    file->pMethods = faulty->real->pMethods ? &faulty_methods : NULL;
    return rc;
}

static inline void put_layer_under_sqlite(void)
{
    static sqlite3_vfs faulty_vfs;

    real_vfs = sqlite3_vfs_find(NULL);
    faulty_vfs = *real_vfs;
    faulty_vfs.zName = "faulty";
    faulty_vfs.szOsFile += (int)sizeof(struct faulty_file);
    faulty_vfs.xOpen = on_open;
    if (sqlite3_vfs_register(&faulty_vfs, 1) != SQLITE_OK || sqlite_pages_setup())
        abort();
}

/* One change in a transaction of its own, which may fail anywhere. */
static inline int make_change(struct fixture *f, int (*change)(struct fixture *))
{
    int r = f->table->begin(f->engine, true);

    if (r)
        return r;
    f->in_transaction = true;
    r = change(f);
    f->in_transaction = false;
    if (r == 0)
        return f->table->commit(f->engine);
    f->table->rollback(f->engine);
    return r;
}

static inline int tear_down_disarmed(void **state)
{
    disarm();
    return tear_down(state);
}

#endif
