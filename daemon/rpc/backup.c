/*
 * Backups: a copy that the lane makes beside the store in steps, checked and synced on a thread of the pool, then
 * fetched piece by piece. In the store's directory it is
 *
 *     backup.partial  →  backup-ID.unverified  →  backup-ID.db
 *     while copying      whole, from the lane     checked and synced: the only name that is ever read
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "rpc/methods.h"

static int backup_path(const struct request *request, const char *suffix, char ret[PATH_MAX])
{
    int size = snprintf(ret, PATH_MAX, "%s/backup-%s.%s", request->store->directory, request->backup_id, suffix);

    return size >= PATH_MAX ? fault(ENAMETOOLONG, "backup") : 0;
}

static int find_existing(struct request *request)
{
    request->store = request_existing_store(request);
    if (!request->store || !request->store->directory)
        return request_refuse(request, SESSIOND_NOT_FOUND, "there is no such store on disk");
    return 0;
}

/* One at a time, from the first page to the last check: each removes what the others have left. */
int backup_check(struct request *request)
{
    int r = find_existing(request);

    if (r)
        return r;
    if (request->store->backing_up)
        return request_refuse(request, SESSIOND_BUSY, "a backup of this store is being made");
    if (account_is_full(request->store->lane.account, ACCOUNT_DISK))
        return request_refuse(request, SESSIOND_FULL, "the owner of this store may have no more bytes on the disk");
    request->store->backing_up = request->backing_up = true;
    return clock_random_id(request->backup_id);
}

int backup_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    char partial[PATH_MAX], whole[PATH_MAX];
    int r;

    if (snprintf(partial, sizeof(partial), "%s/backup.partial", request->store->directory) >= PATH_MAX)
        return fault(ENAMETOOLONG, "backup");
    if ((r = table->backup_step(engine, partial, ret_more)) || *ret_more)
        return r;
    if ((r = backup_path(request, "unverified", whole)))
        return r;
    return rename(partial, whole) < 0 ? fault(errno, "backup") : 0;
}

/* A store has one backup at most: removes all others, the leavings of interrupted ones included. */
static void remove_others(const struct request *request)
{
    char keep[NAME_MAX + 1];
    struct dirent *entry;
    DIR *directory = opendir(request->store->directory);

    if (!directory)
        return;
    snprintf(keep, sizeof(keep), "backup-%s.db", request->backup_id);
    while ((entry = readdir(directory)))
        if (strncmp(entry->d_name, "backup-", 7) == 0 && strcmp(entry->d_name, keep) != 0)
            (void)unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
}

int backup_settle(struct request *request)
{
    char unverified[PATH_MAX], path[PATH_MAX], why[160];
    struct stat status;
    int r;

    if ((r = backup_path(request, "unverified", unverified)) || (r = backup_path(request, "db", path)))
        return r;
    r = sqlite_verify(unverified, why, sizeof(why));
    if (r) {
        log_error("backup_refused why=\"%s\" path=\"%s\"", why, unverified);
        (void)unlink(unverified);
        return fault(EBADMSG, "a backup that does not check");
    }
    if ((r = file_sync(unverified)))
        return r;
    if (rename(unverified, path) < 0 || stat(path, &status) < 0)
        return fault(errno, "backup");
    if ((r = file_sync_parent(path)))
        return r;
    remove_others(request);
    request->n = (uint64_t)status.st_size;
    return 0;
}

int backup_answer(struct request *request)
{
    struct buf *reply = request_answer(request);

    store_has_backup(request->store, request->n);
    pack_map(reply, 2);
    pack_pair_text(reply, "backup", slice_of(request->backup_id));
    pack_pair_number(reply, "bytes", request->n);
    return 0;
}

/* The id becomes a part of a path, so it is nothing but hex digits. */
int backup_read_check(struct request *request)
{
    static const char digits[] = "0123456789abcdef";
    struct slice id = request->params.backup;
    int r;

    for (size_t i = 0; i < id.size; i++)
        if (!memchr(digits, id.data[i], sizeof(digits) - 1))
            return request_refuse(request, SESSIOND_INVALID, "backup: 32 hex digits, as `backup` gave them");
    if ((r = find_existing(request)))
        return r;
    memcpy(request->backup_id, id.data, RANDOM_ID_SIZE);
    return 0;
}

int backup_read_settle(struct request *request)
{
    _cleanup_(free_pointer) char *data = NULL;
    _cleanup_(close_fd) int fd = -1;
    char path[PATH_MAX];
    struct stat status;
    struct buf *reply;
    ssize_t n;
    int r;

    if ((r = request_charge_rows(request, 2 * (size_t)PROTO_ANSWER_MAX)))
        return r;
    data = malloc(PROTO_ANSWER_MAX);
    if (!data)
        return fault(ENOMEM, "backup");
    if ((r = backup_path(request, "db", path)))
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return request_refuse(request, SESSIOND_NOT_FOUND, "this backup is no longer there; make a new one");
    if (fd < 0 || fstat(fd, &status) < 0 ||
        (n = pread(fd, data, PROTO_ANSWER_MAX, (off_t)request->params.offset.value)) < 0)
        return fault(errno, "read a backup");
    reply = request_answer(request);
    pack_map(reply, 2);
    pack_text(reply, slice_of("data"));
    pack_bytes(reply, (struct slice){data, (size_t)n});
    pack_pair_number(reply, "bytes", (uint64_t)status.st_size);
    return reply->failed ? fault(ENOMEM, "backup") : 0;
}

int backup_delete_settle(struct request *request)
{
    char path[PATH_MAX];
    int r = backup_path(request, "db", path);

    if (r)
        return r;
    request->n = unlink(path) == 0;
    return !request->n && errno != ENOENT ? fault(errno, "delete a backup") : 0;
}

int backup_delete_answer(struct request *request)
{
    if (request->n)
        store_has_backup(request->store, 0);
    pack_map(request_answer(request), 0);
    return 0;
}
