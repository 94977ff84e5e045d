/*
 * The head: a second small file beside a store, which says how far its log had come when the last changes were
 * acknowledged. SQLite drops everything behind a damaged frame of its write-ahead log without a word, and an old copy
 * of a store looks as good as the store; the head tells.
 *
 * It holds the log's last position and the running hash of all rows up to there, twice, in turn, each with a checksum.
 * It is written after each commit, and synced each second and with each checkpoint. So a loss is noticed, unless the
 * same power cut also took the head.
 *
 * Behind each of the two stands how many sessions the store had then, for who must know and has not opened it. Heads of
 * earlier releases have nothing there.
 */
#include "store/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

enum {
    SLOT_DISTANCE = 4096, /* the two slots never share a sector or a page */
    SYNC_US = 1000000,
};

struct slot {
    char magic[8];
    uint64_t position, chain;
    uint64_t checksum; /* of the fields before it */
    uint64_t sessions;
    uint64_t sessions_checksum; /* of all before it */
};

enum { SLOT_SIZE = offsetof(struct slot, sessions) }; /* without which it is none */

static const char magic[8] = "sdhead1";

static uint64_t checksum_of(const struct slot *slot)
{
    return XXH3_64bits(slot, offsetof(struct slot, checksum));
}

static uint64_t sessions_checksum_of(const struct slot *slot)
{
    return XXH3_64bits(slot, offsetof(struct slot, sessions_checksum));
}

/* Reads the newer of the two slots. A head without a valid slot says nothing: position 0. */
static int read_slots(int fd, struct counters *ret, bool *ret_counts)
{
    struct slot slot;
    ssize_t n;

    *ret = (struct counters){0};
    *ret_counts = false;
    for (off_t i = 0; i < 2; i++) {
        n = pread(fd, &slot, sizeof(slot), i * SLOT_DISTANCE);
        if (n < 0)
            return fault(errno, "read a store's head");
        if (n < (ssize_t)SLOT_SIZE || memcmp(slot.magic, magic, sizeof(magic)) != 0 ||
            slot.checksum != checksum_of(&slot) || slot.position < ret->position)
            continue;
        *ret_counts = n == (ssize_t)sizeof(slot) && slot.sessions_checksum == sessions_checksum_of(&slot);
        *ret = (struct counters){
            .position = slot.position, .chain = slot.chain, .sessions = *ret_counts ? slot.sessions : 0};
    }
    return 0;
}

int sqlite_head_open(struct engine *engine, bool *ret_exists)
{
    char path[PATH_MAX + 8];
    int r;

    /* items.db becomes items.head */
    snprintf(path, sizeof(path), "%.*s.head", (int)(strlen(engine->path) - strlen(".db")), engine->path);
    *ret_exists = access(path, F_OK) == 0;
    engine->head_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (engine->head_fd < 0)
        return fault(errno, path);
    if (!*ret_exists && (r = file_sync_parent(path)))
        return r;
    return read_slots(engine->head_fd, &engine->head, &engine->head_counts);
}

uint64_t sqlite_head_sessions(const char *directory)
{
    struct counters head = {0};
    char path[PATH_MAX];
    bool counts;
    int fd;

    if (snprintf(path, sizeof(path), "%s/items.head", directory) >= (int)sizeof(path))
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    if (read_slots(fd, &head, &counts))
        head.sessions = 0;
    close(fd);
    return head.sessions;
}

void sqlite_head_close(struct engine *engine)
{
    if (engine->head_fd < 0)
        return;
    sqlite_head_sync(engine);
    close(engine->head_fd);
    engine->head_fd = -1;
}

int sqlite_head_write(struct engine *engine)
{
    struct slot slot = {.position = engine->committed.position,
                        .chain = engine->committed.chain,
                        .sessions = engine->committed.sessions};

    if (engine->head_fd < 0 || engine->missing)
        return 0;
    memcpy(slot.magic, magic, sizeof(magic));
    slot.checksum = checksum_of(&slot);
    slot.sessions_checksum = sessions_checksum_of(&slot);
    engine->head_slot = !engine->head_slot;
    if (pwrite(engine->head_fd, &slot, sizeof(slot), (off_t)engine->head_slot * SLOT_DISTANCE) != (ssize_t)sizeof(slot))
        return fault(errno, "write a store's head");
    engine->head = engine->committed;
    engine->head_dirty = true;
    return 0;
}

void sqlite_head_sync(struct engine *engine)
{
    if (!engine->head_dirty)
        return;
    engine->head_dirty = false;
    engine->head_synced_us = clock_monotonic_us();
    if (fdatasync(engine->head_fd) < 0)
        (void)fault(errno, "sync a store's head");
}

bool sqlite_head_is_due(const struct engine *engine)
{
    return engine->head_dirty && clock_monotonic_us() - engine->head_synced_us >= SYNC_US;
}

/* The running hash of the log after one more row. */
uint64_t sqlite_chain(uint64_t before, const uint64_t numbers[], size_t n, struct slice body, struct slice meta)
{
    uint64_t hash = XXH3_64bits_withSeed(numbers, n * sizeof(numbers[0]), before);

    if (body.data)
        hash = XXH3_64bits_withSeed(body.data, body.size, hash);
    return meta.data ? XXH3_64bits_withSeed(meta.data, meta.size, hash) : hash;
}

/* The chain at the head's position, as the store has it. A row that is no longer there was swept, and then there are
 * later ones. */
static int chain_at(struct engine *engine, uint64_t position, uint64_t *ret)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_LOG_CHAIN);
    bool row;
    int r;

    sqlite_bind_number(get, 1, position);
    r = sqlite_step(engine, get, &row);
    if (r == 0 && row)
        *ret = sqlite_column_number(get, 0);
    sqlite3_reset(get);
    return r;
}

int sqlite_head_compare(struct engine *engine)
{
    uint64_t chain = engine->head.chain, present = engine->committed.position;
    int r;

    engine->missing = 0;
    if (engine->head_fd < 0)
        return 0;
    if (engine->head.position > present)
        engine->missing = engine->head.position - present;
    else if ((r = chain_at(engine, engine->head.position, &chain)))
        return r;
    else if (chain != engine->head.chain)
        engine->missing = 1; /* another history, of which we cannot know where it left this one */
    if (engine->missing)
        log_error("store_rolled_back missing=%llu has=%llu acknowledged=%llu path=\"%s\"",
                  (unsigned long long)engine->missing, (unsigned long long)present,
                  (unsigned long long)engine->head.position, engine->path);
    return 0;
}
