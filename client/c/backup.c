/*
 * A backup is made by the daemon beside the store and fetched in parts. It grows under another name, and its own name
 * is given to it when every byte is on the disk: a backup that was interrupted is never mistaken for a good one.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FETCHES_MAX = 3 }; /* a restart of the daemon loses the copy it made; then it makes another one */

struct target {
    const char *path;
    char *partial; /* owned: the name until it is whole */
    int fd;        /* locked, so that no other backup writes to it */
};

static int fail(struct sessiond *client, int r, const char *what, const char *path)
{
    return failure_set(&client->failure, r, "%s %.300s: %s", what, path, strerrordesc_np(-r));
}

/* ---- the file ---- */

/* Whether the name still means the open file: another backup may have finished between opening and locking. */
static bool is_ours(const struct target *target)
{
    struct stat ours, named;

    return fstat(target->fd, &ours) == 0 && lstat(target->partial, &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

static int open_locked(struct target *target)
{
    target->fd = open(target->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (target->fd < 0)
        return -errno;
    if (flock(target->fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (!is_ours(target))
        return -EBUSY;
    return fchmod(target->fd, 0600) || ftruncate(target->fd, 0) ? -errno : 0;
}

static void target_close(struct target *target)
{
    if (target->fd >= 0)
        close(target->fd);
    free(target->partial);
}

static int target_open(struct sessiond *client, struct target *target, const char *path)
{
    int r;

    *target = (struct target){.path = path, .fd = -1};
    if (asprintf(&target->partial, "%s.partial", path) < 0) {
        target->partial = NULL;
        return fail(client, -ENOMEM, "cannot write", path);
    }
    r = open_locked(target);
    if (r) {
        (void)fail(client, r, r == -EBUSY ? "another backup writes to" : "cannot write", target->partial);
        target_close(target);
    }
    return r;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

/* A new name is on the disk when its directory is. */
static int sync_directory(const char *path)
{
    char *copy = strdup(path);
    int r, fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    r = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    free(copy);
    return r;
}

static int target_finish(struct target *target, uint64_t bytes)
{
    struct stat status;

    if (fsync(target->fd) || fstat(target->fd, &status))
        return -errno;
    if ((uint64_t)status.st_size != bytes)
        return -EIO;
    if (rename(target->partial, target->path))
        return -errno;
    return sync_directory(target->path);
}

/* ---- fetching ---- */

/* Writes the part at *offset and moves it on. */
static int fetch_part(struct sessiond *client, const struct sessiond_call *call, struct target *target, uint64_t bytes,
                      uint64_t *offset)
{
    union sessiond_answer answer;
    struct results *results;
    int r = client_perform(client, call, &answer, &results);

    if (r)
        return r;
    if (answer.part.bytes != bytes || answer.part.data.size == 0 || answer.part.data.size > bytes - *offset)
        r = failure_set(&client->failure, -EPROTO, "the daemon sent another part of the backup than was asked for");
    else
        r = write_all(target->fd, answer.part.data.data, answer.part.data.size);
    if (r < 0 && r != -EPROTO)
        (void)fail(client, r, "cannot write", target->partial);
    *offset += answer.part.data.size;
    results_free(results);
    return r;
}

static int fetch(struct sessiond *client, const char *store, const char *backup, uint64_t bytes, struct target *target)
{
    struct sessiond_call call = {.method = SESSIOND_BACKUP_READ, .store = store, .backup = backup};
    int r = 0;

    if (ftruncate(target->fd, 0) || lseek(target->fd, 0, SEEK_SET) < 0)
        return fail(client, -errno, "cannot write", target->partial);
    while (r == 0 && call.offset < bytes)
        r = fetch_part(client, &call, target, bytes, &call.offset);
    return r;
}

/* The daemon's copy is of no use any more. If it cannot be told so, the next backup takes that place anyway. */
static void drop_copy(struct sessiond *client, const char *store, const char *backup)
{
    struct sessiond_call call = {.method = SESSIOND_BACKUP_DELETE, .store = store, .backup = backup};
    struct failure failure;

    failure_copy(&failure, &client->failure);
    (void)client_perform(client, &call, NULL, NULL);
    failure_copy(&client->failure, &failure);
}

/* Makes and fetches one copy. *ret_again: the daemon lost it meanwhile. */
static int copy_store(struct sessiond *client, const char *store, struct target *target, bool *ret_again)
{
    struct sessiond_call call = {.method = SESSIOND_BACKUP, .store = store};
    union sessiond_answer answer;
    struct results *results;
    int r = client_perform(client, &call, &answer, &results);

    *ret_again = false;
    if (r)
        return r;
    r = fetch(client, store, answer.part.backup.data, answer.part.bytes, target);
    *ret_again = r == SESSIOND_NOT_FOUND;
    if (r == 0) {
        r = target_finish(target, answer.part.bytes);
        if (r)
            (void)fail(client, r, "cannot finish", target->path);
    }
    drop_copy(client, store, answer.part.backup.data);
    results_free(results);
    return r;
}

int sessiond_backup(struct sessiond *client, const char *store, const char *path)
{
    struct target target;
    bool again = true;
    int r = target_open(client, &target, path);

    if (r)
        return r;
    for (unsigned i = 0; i < FETCHES_MAX && again; i++)
        r = copy_store(client, store, &target, &again);
    if (r)
        (void)unlink(target.partial); /* what is left there has no use, and no harm is in it either */
    target_close(&target);
    return r;
}
