/*
 * A checksum in each page of a store's database. SQLite has them in its log alone, so that a bit that flips in the
 * database would change what is read, and nobody would say so.
 *
 * The last eight bytes of a page are kept free for it (SQLite calls them reserved bytes). They are filled in when the
 * page is written to the database, and compared when it is read from there; the page's number goes in as well, so that
 * a page in another's place is noticed. A page that does not fit is damage as SQLite knows it: what stands on it cannot
 * be read, the rest can.
 *
 * This is a VFS that differs from the one below it (sqlite_gather.c) in two functions. Any thread; nothing is shared
 * but the VFS itself, which is made before there are threads.
 */
#include "store/sqlite.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "base/log.h"
#include "store/sqlite_schema.h"

enum {
    RESERVED = sizeof(uint64_t),
    CHECKED = PAGE_SIZE - RESERVED,
    APPLICATION_ID_AT = 68, /* in the first page */
};

/* Lies behind SQLite's own object for a file, and lives as long. */
struct checked_file {
    sqlite3_io_methods methods; /* the real ones, but for two */
    const sqlite3_io_methods *real;
    const char *path; /* SQLite's, until the file is closed */
};

static sqlite3_vfs checked_vfs;
static sqlite3_vfs *real_vfs;

static struct checked_file *checked_of(sqlite3_file *file)
{
    return (struct checked_file *)((char *)file + sqlite_vfs_size(real_vfs, _Alignof(struct checked_file)));
}

static uint64_t checksum_of(const void *page, sqlite3_int64 offset)
{
    return XXH3_64bits_withSeed(page, CHECKED, (uint64_t)(offset / PAGE_SIZE));
}

/* SQLite reads and writes whole pages, but for a look at the header. */
static bool is_page(int size, sqlite3_int64 offset)
{
    return size == PAGE_SIZE && offset % PAGE_SIZE == 0;
}

/* The first page of a database that is not ours is let through, so that the schema can say what it is. */
static bool is_foreign(const unsigned char *page, sqlite3_int64 offset)
{
    const unsigned char *id = page + APPLICATION_ID_AT;

    return offset == 0 && ((uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3]) !=
                              (uint32_t)SCHEMA_APPLICATION_ID;
}

/* SQLite takes a page that the file ends in for one with zeros at its end; only one behind the end is new. */
static bool is_cut(sqlite3_file *file, sqlite3_int64 offset)
{
    sqlite3_int64 end;

    return checked_of(file)->real->xFileSize(file, &end) != SQLITE_OK || end > offset;
}

static int read_checked(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    const struct checked_file *checked = checked_of(file);
    int rc = checked->real->xRead(file, data, size, offset);
    uint64_t checksum;

    if (!is_page(size, offset) || (rc != SQLITE_OK && (rc != SQLITE_IOERR_SHORT_READ || !is_cut(file, offset))))
        return rc;
    memcpy(&checksum, (const char *)data + CHECKED, sizeof(checksum));
    if ((rc == SQLITE_OK && checksum == checksum_of(data, offset)) || is_foreign(data, offset))
        return rc;
    log_error("store_page_damaged page=%lld path=\"%s\"", (long long)(offset / PAGE_SIZE + 1), checked->path);
    return SQLITE_CORRUPT;
}

static int write_checked(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    const struct checked_file *checked = checked_of(file);
    char page[PAGE_SIZE];
    uint64_t checksum;

    if (!is_page(size, offset))
        return checked->real->xWrite(file, data, size, offset);
    checksum = checksum_of(data, offset);
    memcpy(page, data, CHECKED);
    memcpy(page + CHECKED, &checksum, sizeof(checksum));
    return checked->real->xWrite(file, page, size, offset);
}

/* The log and journals have checksums of their own. */
static int open_checked(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *ret_flags)
{
    int rc = real_vfs->xOpen(real_vfs, path, file, flags, ret_flags);
    struct checked_file *checked = checked_of(file);

    (void)vfs;
    if (rc != SQLITE_OK || !(flags & SQLITE_OPEN_MAIN_DB))
        return rc;
    checked->real = file->pMethods;
    checked->path = path;
    checked->methods = *file->pMethods;
    checked->methods.iVersion = 2; /* no pages by mmap, which nobody would compare */
    checked->methods.xRead = read_checked;
    checked->methods.xWrite = write_checked;
    file->pMethods = &checked->methods;
    return SQLITE_OK;
}

int sqlite_pages_setup(void)
{
    int r = sqlite_gather_setup(&real_vfs);

    if (r)
        return r;
    checked_vfs = *real_vfs;
    checked_vfs.zName = SQLITE_PAGES_VFS;
    checked_vfs.szOsFile =
        (int)(sqlite_vfs_size(real_vfs, _Alignof(struct checked_file)) + sizeof(struct checked_file));
    checked_vfs.xOpen = open_checked;
    return sqlite3_vfs_register(&checked_vfs, false) == SQLITE_OK ? 0 : fault(ENOTSUP, "set up checksums of pages");
}

void sqlite_pages_reserve(sqlite3 *db)
{
    int reserved = RESERVED;

    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
}
