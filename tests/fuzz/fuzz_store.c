/*
 * A damaged store, opened with the daemon's own code. At start a store is made, with several sessions, receipts that
 * are kept and some that have expired, pops, clears and an item that fills pages, and is kept as it is after a kill and
 * after a proper stop. An input is a list of edits of its files; with what it says about checksums, the edits may be
 * made to look right. The store is opened, all of it is read, receipts are asked for, a change is tried; it is closed
 * and opened again.
 *
 * Whatever the edits are, nothing may crash, hang or leak, and items come in the order of their numbers. Where the
 * damage is of a kind that must be noticed (is_promised), each part that is answered without an error is what was
 * there, or the store says that something is missing; and a change that succeeded is there afterwards.
 *
 * The files are in memory, and the clock is ours.
 */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "fuzz.h"
#include "store/engine.h"
#include "tree.h"

enum {
    PAGE = 4096,
    LOG_HEADER = 32,
    FRAME_HEADER = 24,
    FRAME = FRAME_HEADER + PAGE,
    HEAD_SLOT = 32,
    N_SESSIONS = 5,
    CHANGES_MAX = 32,
    PAGES_OF_ANSWERS_MAX = 1000,
    OPENED_US = 1000000000, /* when an input begins */
};

enum file { DATABASE, LOG, HEAD, N_FILES };

static const char *const file_names[N_FILES] = {"items.db", "items.db-wal", "items.head"};
static const char *const session_ids[N_SESSIONS] = {"a", "b", "c", "d", "e"};

static struct config config;
static char directory[64];
static uint64_t now_us;

uint64_t clock_now_us(void)
{
    return now_us;
}

uint64_t clock_monotonic_us(void)
{
    return now_us;
}

int clock_random_id(char ret[RANDOM_ID_SIZE + 1])
{
    memset(ret, '0', RANDOM_ID_SIZE);
    ret[RANDOM_ID_SIZE] = '\0';
    return 0;
}

/* ---- SQLite's memory ---- */

/* Opening a store takes some thousand allocations, which the sanitizer's allocator makes slow, and SQLite is not built
 * with the sanitizer anyway. Blocks of a power of two, kept for the next time; what lies before one says which power.
 */
enum { CLASS_MIN = 5, CLASS_MAX = 24, BLOCK_HEAD = 16 };

struct block {
    size_t class;
    struct block *next; /* of those that are free */
};

_Static_assert(sizeof(struct block) <= BLOCK_HEAD, "what is behind it is aligned");

static struct block *free_blocks[CLASS_MAX + 1];

static size_t class_of(size_t size)
{
    size_t class = CLASS_MIN;

    while (class <= CLASS_MAX && (size_t)1 << class < size)
        class ++;
    return class;
}

static struct block *block_of(void *memory)
{
    return (struct block *)((char *)memory - BLOCK_HEAD);
}

static void *pool_malloc(int size)
{
    size_t class = class_of((size_t)size);
    struct block *block;

    if (class > CLASS_MAX)
        return NULL;
    block = free_blocks[class];
    if (block)
        free_blocks[class] = block->next;
    else if (!(block = malloc(BLOCK_HEAD + ((size_t)1 << class))))
        return NULL;
    *block = (struct block){class, NULL};
    return (char *)block + BLOCK_HEAD;
}

static void pool_free(void *memory)
{
    struct block *block = block_of(memory);

    block->next = free_blocks[block->class];
    free_blocks[block->class] = block;
}

static int pool_size(void *memory)
{
    return memory ? 1 << block_of(memory)->class : 0;
}

static void *pool_realloc(void *memory, int size)
{
    void *larger;

    if (size <= pool_size(memory))
        return memory;
    larger = pool_malloc(size);
    if (!larger)
        return NULL;
    memcpy(larger, memory, (size_t)pool_size(memory));
    pool_free(memory);
    return larger;
}

static int pool_roundup(int size)
{
    return (int)class_of((size_t)size) > CLASS_MAX ? size : 1 << class_of((size_t)size);
}

static int pool_init(void *arg)
{
    (void)arg;
    return SQLITE_OK;
}

static void pool_shutdown(void *arg)
{
    (void)arg;
}

static const sqlite3_mem_methods pool = {
    pool_malloc, pool_free, pool_realloc, pool_size, pool_roundup, pool_init, pool_shutdown, NULL,
};

/* ---- files ---- */

struct files {
    bool exists[N_FILES];
    size_t size[N_FILES];
    unsigned char *data[N_FILES]; /* of `room` bytes each */
};

enum { ROOM = 512 * 1024 };

static void files_alloc(struct files *files)
{
    for (int i = 0; i < N_FILES; i++) {
        files->data[i] = malloc(ROOM);
        MUST(files->data[i]);
    }
}

static void files_copy(struct files *to, const struct files *from)
{
    for (int i = 0; i < N_FILES; i++) {
        to->exists[i] = from->exists[i];
        to->size[i] = from->size[i];
        memcpy(to->data[i], from->data[i], from->size[i]);
    }
}

static void path_of(enum file file, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", directory, file_names[file]);
}

static void files_put(const struct files *files)
{
    char path[PATH_MAX];
    int fd;

    for (int i = 0; i < N_FILES; i++) {
        path_of((enum file)i, path);
        (void)unlink(path);
        if (!files->exists[i])
            continue;
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        MUST(fd >= 0);
        MUST(write(fd, files->data[i], files->size[i]) == (ssize_t)files->size[i]);
        close(fd);
    }
}

static void files_get(struct files *files)
{
    char path[PATH_MAX];
    ssize_t n;
    int fd;

    for (int i = 0; i < N_FILES; i++) {
        path_of((enum file)i, path);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        files->exists[i] = fd >= 0;
        files->size[i] = 0;
        if (fd < 0)
            continue;
        n = read(fd, files->data[i], ROOM);
        MUST(n >= 0 && n < ROOM);
        files->size[i] = (size_t)n;
        close(fd);
    }
}

/* An empty log is as good as none. */
static bool same_content(const struct files *a, const struct files *b, enum file i)
{
    return a->size[i] == b->size[i] && memcmp(a->data[i], b->data[i], a->size[i]) == 0;
}

/* ---- changes ---- */

enum kind { ADD, POP, CLEAR, REPLACE, DELETE, N_KINDS };

struct attempt {
    enum kind kind;
    unsigned session;
    unsigned n_items;
    unsigned key; /* 0: none */
};

static uint64_t hash_item(uint64_t hash, uint64_t seq, struct slice item, struct slice meta)
{
    MUST(item.data || item.size == 0);
    hash = XXH3_64bits_withSeed(item.data ? item.data : "", item.size, hash + seq);
    return XXH3_64bits_withSeed(meta.data ? meta.data : "", meta.size, hash);
}

static int on_popped(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    uint64_t *hash = arg;

    *hash = hash_item(*hash, seq, item, meta);
    return 0;
}

/* Items that differ, some of a few bytes, some that fill pages. */
static size_t make_items(const struct attempt *attempt, struct slice items[64], struct slice meta[64])
{
    static char texts[64][9100];
    size_t size;

    MUST(attempt->n_items <= 64);
    for (unsigned i = 0; i < attempt->n_items; i++) {
        size = attempt->n_items == 1 ? 9000 : 20 + (size_t)i * 7;
        memset(texts[i], 'a' + (int)(i % 26), size);
        texts[i][0] = '{';
        texts[i][size - 1] = '}';
        items[i] = (struct slice){texts[i], size};
        meta[i] = i % 3 == 0 ? slice_of("{\"at\":1}") : (struct slice){0};
    }
    return attempt->n_items;
}

/* In a transaction. */
static int change(struct engine *engine, const struct attempt *attempt, uint64_t *popped, struct change_result *ret)
{
    struct slice items[64], meta[64];
    struct change change = {.session = slice_of(session_ids[attempt->session]), .now_us = now_us, .meta = meta};
    char key[8];
    size_t n;

    snprintf(key, sizeof(key), "k%u", attempt->key);
    if (attempt->key)
        change.key = slice_of(key);
    memcpy(change.fingerprint, key, strlen(key));
    n = make_items(attempt, items, meta);
    switch (attempt->kind) {
    case ADD:
        return sqlite_engine.add_items(engine, &change, items, n, ret);
    case POP:
        return sqlite_engine.pop_item(engine, &change, on_popped, popped, ret);
    case CLEAR:
        return sqlite_engine.clear_session(engine, &change, ret);
    case REPLACE:
        return sqlite_engine.replace_items(engine, &change, (struct number){true, 2}, items, n, ret);
    case DELETE:
        return sqlite_engine.delete_session(engine, &change, ret);
    case N_KINDS:
        break;
    }
    abort();
}

/* Return: as commit; with an error nothing was changed, and the engine may be broken. */
static int commit_change(struct engine *engine, const struct attempt *attempt)
{
    struct change_result result;
    uint64_t popped = 0;
    int r = sqlite_engine.begin(engine, true);

    if (r)
        return r;
    r = change(engine, attempt, &popped, &result);
    if (r == 0)
        return sqlite_engine.commit(engine);
    sqlite_engine.rollback(engine);
    return r;
}

/* ---- what a store says ---- */

struct session_reading {
    int r; /* of reading its items */
    uint64_t n, hash;
    uint64_t head_seq, revision, epoch;
    bool listed;
    uint64_t count, bytes;
};

struct receipt_reading {
    int r;
    struct change_result result;
    uint64_t popped;
};

struct reading {
    uint64_t missing;
    int listing; /* what listing the sessions returned */
    unsigned n_strangers;
    struct session_reading sessions[N_SESSIONS];
    struct receipt_reading receipts[CHANGES_MAX];
};

/* All changes that were made with keys, the latest last. */
static struct attempt changes[CHANGES_MAX];
static unsigned n_changes;

static void must_be_an_outcome(int r)
{
    MUST(r < SESSIOND_N_CODES);
}

static int on_session(void *arg, const struct session_info *info)
{
    struct reading *reading = arg;

    for (unsigned i = 0; i < N_SESSIONS; i++)
        if (info->id.data && slice_equal(info->id, slice_of(session_ids[i]))) {
            reading->sessions[i].listed = true;
            reading->sessions[i].count = info->count;
            reading->sessions[i].bytes = info->bytes;
            return 0;
        }
    reading->n_strangers++;
    return 0;
}

struct items_reading {
    uint64_t last_seq, hash;
};

static int on_item(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    struct items_reading *items = arg;

    MUST(seq > items->last_seq);
    items->last_seq = seq;
    items->hash = hash_item(items->hash, seq, item, meta);
    return 0;
}

static void read_session(struct engine *engine, unsigned session, struct session_reading *ret)
{
    struct selection selection = {.session = slice_of(session_ids[session]), .max_bytes = 2000, .with_meta = true};
    struct selection_result result = {.more = true};
    struct items_reading items = {0};

    for (unsigned i = 0; ret->r == 0 && result.more; i++) {
        MUST(i < PAGES_OF_ANSWERS_MAX);
        ret->r = sqlite_engine.get_items(engine, &selection, on_item, &items, &result);
        must_be_an_outcome(ret->r);
        MUST(ret->r || !result.more || result.n > 0);
        selection.after = (struct number){true, result.last_seq};
        ret->n += result.n;
    }
    ret->hash = items.hash;
    ret->head_seq = result.head_seq;
    ret->revision = result.revision;
    ret->epoch = result.epoch;
}

/* A change is asked for once more, and all of it undone. */
static void read_receipt(struct engine *engine, const struct attempt *attempt, struct receipt_reading *ret)
{
    ret->r = sqlite_engine.begin(engine, true);
    must_be_an_outcome(ret->r);
    if (ret->r)
        return;
    ret->r = change(engine, attempt, &ret->popped, &ret->result);
    must_be_an_outcome(ret->r);
    sqlite_engine.rollback(engine);
}

static void read_all(struct engine *engine, struct reading *ret)
{
    const struct session_range range = {.limit = 1000};
    struct store_sizes sizes = {0};
    bool more;

    memset(ret, 0, sizeof(*ret));
    must_be_an_outcome(ret->listing = sqlite_engine.begin(engine, false));
    if (ret->listing)
        return;
    must_be_an_outcome(sqlite_engine.sizes(engine, &sizes));
    ret->missing = sizes.missing;
    ret->listing = sqlite_engine.list_sessions(engine, &range, on_session, ret, &more);
    must_be_an_outcome(ret->listing);
    for (unsigned i = 0; i < N_SESSIONS; i++)
        read_session(engine, i, &ret->sessions[i]);
    sqlite_engine.rollback(engine);
    for (unsigned i = 0; i < n_changes; i++)
        read_receipt(engine, &changes[i], &ret->receipts[i]);
}

/* Each part that was answered is as it is wanted. */
static void must_be_as(const struct reading *is, const struct reading *wanted)
{
    for (unsigned i = 0; i < N_SESSIONS; i++) {
        const struct session_reading *a = &is->sessions[i], *b = &wanted->sessions[i];

        if (is->listing == 0)
            MUST(a->listed == b->listed && a->count == b->count && a->bytes == b->bytes);
        if (a->r == 0)
            MUST(a->n == b->n && a->hash == b->hash && a->head_seq == b->head_seq && a->revision == b->revision &&
                 a->epoch == b->epoch);
    }
    for (unsigned i = 0; i < n_changes; i++)
        if (is->receipts[i].r == 0)
            MUST(memcmp(&is->receipts[i], &wanted->receipts[i], sizeof(is->receipts[i])) == 0);
    MUST(is->n_strangers == 0);
}

/* ---- the store that is damaged ---- */

static struct base {
    struct files files;
    struct reading reading;
} killed, stopped;

static void make_changes(struct engine *engine, const struct attempt *attempts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        MUST(commit_change(engine, &attempts[i]) == 0);
        if (!attempts[i].key)
            continue;
        MUST(n_changes < CHANGES_MAX);
        changes[n_changes++] = attempts[i];
    }
}

static void pass_time(struct engine *engine, uint64_t seconds)
{
    bool more = true;

    now_us += seconds * 1000000;
    while (more)
        if (sqlite_engine.tend(engine, &more))
            return;
}

static void make_first_half(struct engine *engine)
{
    static const struct attempt expire[] = {{ADD, 0, 3, 1}, {POP, 0, 0, 2}, {CLEAR, 4, 0, 3}, {ADD, 1, 2, 4}};
    static const struct attempt stay[] = {
        {ADD, 0, 60, 0}, {ADD, 0, 2, 5},     {POP, 0, 0, 6},  {ADD, 1, 20, 7},    {CLEAR, 1, 0, 8},
        {ADD, 1, 2, 0},  {ADD, 2, 1, 9},     {POP, 1, 0, 10}, {REPLACE, 2, 3, 0}, {ADD, 2, 1, 11},
        {ADD, 3, 4, 12}, {DELETE, 3, 0, 13}, {ADD, 4, 30, 0},
    };

    make_changes(engine, expire, N_ELEMENTS(expire));
    pass_time(engine, 61);
    pass_time(engine, 61);
    pass_time(engine, 61);
    make_changes(engine, stay, N_ELEMENTS(stay));
}

static void make_second_half(struct engine *engine)
{
    static const struct attempt attempts[] = {
        {ADD, 0, 2, 14}, {POP, 0, 0, 15}, {ADD, 4, 3, 16}, {ADD, 3, 2, 17}, {REPLACE, 1, 2, 18}, {ADD, 2, 20, 0},
    };

    make_changes(engine, attempts, N_ELEMENTS(attempts));
}

static void read_base(struct base *base)
{
    struct engine *engine;

    files_put(&base->files);
    MUST(sqlite_engine.open(&engine, directory, &config) == 0);
    read_all(engine, &base->reading);
    MUST(base->reading.missing == 0 && base->reading.listing == 0);
    for (unsigned i = 0; i < n_changes; i++)
        MUST(base->reading.receipts[i].r == 0);
    sqlite_engine.close(engine);
}

static void make_bases(void)
{
    struct engine *engine;

    files_alloc(&killed.files);
    files_alloc(&stopped.files);
    MUST(sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, 1, NULL) == SQLITE_OK); /* salts of the log */
    MUST(sqlite_engine.open(&engine, directory, &config) == 0);
    make_first_half(engine);
    sqlite_engine.close(engine);
    MUST(sqlite_engine.open(&engine, directory, &config) == 0);
    make_second_half(engine);
    files_get(&killed.files);
    sqlite_engine.close(engine);
    files_get(&stopped.files);
    MUST(killed.files.size[LOG] > LOG_HEADER + FRAME);
    read_base(&killed);
    read_base(&stopped);
}

static void remove_directory(void)
{
    remove_tree(directory);
}

static void set_up(void)
{
    snprintf(directory, sizeof(directory), "%s/sd-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    MUST(mkdtemp(directory));
    (void)atexit(remove_directory);
    log_setup((enum log_level)0);
    config_init(&config);
    config.receipt_seconds = config.receipt_min_seconds = 60;
    now_us = 1000000;
    MUST(sqlite3_config(SQLITE_CONFIG_MALLOC, &pool) == SQLITE_OK);
    MUST(sqlite_setup(&config) == 0);
    make_bases();
}

/* ---- choices ---- */

struct choices {
    const uint8_t *data;
    size_t size;
};

static unsigned choose(struct choices *choices, unsigned n)
{
    if (choices->size == 0)
        return 0;
    choices->size--;
    return *choices->data++ % n;
}

static size_t choose_offset(struct choices *choices, size_t end)
{
    size_t offset = choose(choices, 256);

    offset = offset << 8 | choose(choices, 256);
    offset = offset << 8 | choose(choices, 256);
    return end ? offset % end : 0;
}

/* ---- damage ---- */

struct damage {
    struct files files;
    bool edited[N_FILES];
    bool forged; /* made to look right */
};

/* Where page i of a file begins, the page that belongs to a frame of the log. */
static size_t page_offset(enum file file, size_t i)
{
    return file == LOG ? LOG_HEADER + i * FRAME + FRAME_HEADER : i * PAGE;
}

/* Return: page i of those that are whole; NULL: there is none. */
static unsigned char *choose_page(struct choices *choices, struct damage *damage, enum file file)
{
    size_t end = damage->files.size[file], n = 0;

    while (page_offset(file, n) + PAGE <= end)
        n++;
    return n ? damage->files.data[file] + page_offset(file, choose(choices, 256) % n) : NULL;
}

static void flip(struct choices *choices, struct damage *damage, enum file file)
{
    size_t offset = choose_offset(choices, damage->files.size[file]);

    if (damage->files.size[file] > 0)
        damage->files.data[file][offset] ^= (unsigned char)(1U << choose(choices, 8));
}

static void overwrite(struct choices *choices, struct damage *damage, enum file file)
{
    size_t offset = choose_offset(choices, damage->files.size[file]);

    for (unsigned n = 1 + choose(choices, 8); n > 0 && offset < damage->files.size[file]; n--)
        damage->files.data[file][offset++] = (unsigned char)choose(choices, 256);
}

static void cut(struct choices *choices, struct damage *damage, enum file file)
{
    damage->files.size[file] = choose_offset(choices, damage->files.size[file] + 1);
}

/* At the edge of a page or frame, or a byte beside it. */
static void cut_at_edge(struct choices *choices, struct damage *damage, enum file file)
{
    size_t i = choose(choices, 256);
    size_t edge = (file == LOG ? LOG_HEADER + i * FRAME : i * PAGE) + choose(choices, 3);

    if (edge > 0 && edge - 1 < damage->files.size[file])
        damage->files.size[file] = edge - 1;
}

static void blank(struct choices *choices, struct damage *damage, enum file file)
{
    unsigned char *page = choose_page(choices, damage, file);

    if (page)
        memset(page, 0, PAGE);
}

/* What was written elsewhere, or at another time. */
static void misplace(struct choices *choices, struct damage *damage, enum file file)
{
    unsigned char *to = choose_page(choices, damage, file);
    unsigned char *from = choose_page(choices, damage, choose(choices, 2) ? LOG : DATABASE);

    if (to && from)
        memmove(to, from, PAGE);
}

static void lose(struct choices *choices, struct damage *damage, enum file file)
{
    (void)choices;
    damage->files.exists[file] = false;
    damage->files.size[file] = 0;
}

/* The structure of a page, or the head of a frame, is in its first bytes. */
static void change_head(struct choices *choices, struct damage *damage, enum file file)
{
    unsigned char *page = choose_page(choices, damage, file);
    int offset = (int)choose(choices, 128);

    if (!page)
        return;
    page += file == LOG ? offset - FRAME_HEADER : offset;
    page[0] = (unsigned char)choose(choices, 256);
    page[1] = (unsigned char)choose(choices, 256);
}

static void (*const edits[])(struct choices *choices, struct damage *damage, enum file file) = {
    flip, overwrite, cut, cut_at_edge, blank, misplace, lose, change_head,
};

static void edit(struct choices *choices, struct damage *damage)
{
    enum file file = (enum file)choose(choices, N_FILES);
    unsigned which = choose(choices, N_ELEMENTS(edits));

    edits[which](choices, damage, file);
    damage->edited[file] = true;
}

/* ---- checksums that are made to look right ---- */

static uint32_t read_word(const unsigned char *at, bool big_endian)
{
    uint32_t word;

    memcpy(&word, at, sizeof(word));
    return big_endian ? __builtin_bswap32(word) : word;
}

static void write_word(unsigned char *at, uint32_t word)
{
    word = __builtin_bswap32(word);
    memcpy(at, &word, sizeof(word));
}

__attribute__((no_sanitize("address", "undefined"))) static void sum(const unsigned char *data, size_t size,
                                                                     bool big_endian, uint32_t sums[2])
{
    for (size_t i = 0; i < size; i += 8) {
        sums[0] += read_word(data + i, big_endian) + sums[1];
        sums[1] += read_word(data + i + 4, big_endian) + sums[0];
    }
}

/* Of a page and its number, in its last bytes. */
static void forge_pages(struct files *files)
{
    unsigned char *page;
    uint64_t checksum;

    for (size_t i = 0; (i + 1) * PAGE <= files->size[DATABASE]; i++) {
        page = files->data[DATABASE] + i * PAGE;
        checksum = XXH3_64bits_withSeed(page, PAGE - sizeof(checksum), i);
        memcpy(page + PAGE - sizeof(checksum), &checksum, sizeof(checksum));
    }
}

/* SQLite's sums run on from the head of the log to its last frame. */
static void forge_log(struct files *files)
{
    unsigned char *data = files->data[LOG], *frame;
    uint32_t sums[2] = {0, 0};
    bool big_endian;

    if (files->size[LOG] < LOG_HEADER)
        return;
    big_endian = data[3] & 1;
    sum(data, 24, big_endian, sums);
    write_word(data + 24, sums[0]);
    write_word(data + 28, sums[1]);
    for (size_t at = LOG_HEADER; at + FRAME <= files->size[LOG]; at += FRAME) {
        frame = data + at;
        memcpy(frame + 8, data + 16, 8); /* its salts */
        sum(frame, 8, big_endian, sums);
        sum(frame + FRAME_HEADER, PAGE, big_endian, sums);
        write_word(frame + 16, sums[0]);
        write_word(frame + 20, sums[1]);
    }
}

static void forge_head(struct files *files)
{
    uint64_t checksum;

    for (size_t at = 0; at + HEAD_SLOT <= files->size[HEAD]; at += PAGE) {
        checksum = XXH3_64bits(files->data[HEAD] + at, HEAD_SLOT - sizeof(checksum));
        memcpy(files->data[HEAD] + at + HEAD_SLOT - sizeof(checksum), &checksum, sizeof(checksum));
    }
}

static void (*const forgers[])(struct files *files) = {forge_pages, forge_log, forge_head};

static void forge(struct damage *damage, unsigned which)
{
    for (size_t i = 0; i < N_ELEMENTS(forgers); i++)
        if (which >> i & 1) {
            forgers[i](&damage->files);
            damage->forged = true;
        }
}

/* Whether the damage must be noticed where it matters. Without the head, a log or a directory may be those of an
 * earlier time. */
static bool is_promised(const struct damage *damage)
{
    bool is_gone = damage->files.size[DATABASE] <= 1; /* as SQLite sees it */

    return !damage->forged && !(damage->edited[HEAD] && (damage->edited[LOG] || is_gone));
}

/* ---- an input ---- */

enum flag {
    FLAG_STOPPED = 1,  /* the store was stopped properly */
    FLAG_FORGE = 2,    /* three bits: which checksums are made to look right */
    FLAG_RECOVER = 16, /* what is missing is accepted */
    FLAG_TIME = 32,    /* some time passes */
    FLAG_VERIFY = 64,  /* the database is checked as a backup is */
    FLAG_AGAIN = 128,  /* it is opened once more */
};

static void must_be_untouched(const struct damage *damage)
{
    static struct files files; /* lives as long as the process */

    if (!files.data[0])
        files_alloc(&files);
    files_get(&files);
    MUST(same_content(&files, &damage->files, DATABASE) && same_content(&files, &damage->files, LOG));
}

static int recover(struct engine *engine)
{
    uint64_t missing;
    int r = sqlite_engine.begin(engine, true);

    if (r)
        return r;
    r = sqlite_engine.recover(engine, &missing);
    if (r == 0)
        return sqlite_engine.commit(engine);
    sqlite_engine.rollback(engine);
    return r;
}

/* Return: whether the store holds now what `reading` says. */
static bool use(struct engine *engine, const struct attempt *attempt, unsigned flags, struct reading *reading)
{
    int r;

    if (reading->missing) {
        MUST(commit_change(engine, attempt) == SESSIOND_ROLLED_BACK);
        if (!(flags & FLAG_RECOVER) || recover(engine))
            return false;
    }
    r = commit_change(engine, attempt);
    must_be_an_outcome(r);
    if (flags & FLAG_TIME)
        pass_time(engine, 61);
    if (r || sqlite_engine.is_broken(engine))
        return false;
    read_all(engine, reading);
    MUST(reading->missing == 0);
    return true;
}

static void open_again(bool holds, const struct reading *wanted, unsigned flags)
{
    static struct reading reading;
    char path[PATH_MAX], why[160];
    struct engine *engine;
    int r = sqlite_engine.open(&engine, directory, &config);

    must_be_an_outcome(r);
    if (r == 0) {
        read_all(engine, &reading);
        if (holds && !reading.missing && !(flags & FLAG_TIME))
            must_be_as(&reading, wanted);
        sqlite_engine.close(engine);
    }
    if (!(flags & FLAG_VERIFY))
        return;
    path_of(DATABASE, path);
    r = sqlite_verify(path, why, sizeof(why));
    MUST(r <= 0 || r == SESSIOND_INVALID);
}

static void try_store(const struct damage *damage, const struct base *base, const struct attempt *attempt,
                      unsigned flags)
{
    static struct reading reading;
    bool promised = is_promised(damage), holds;
    struct engine *engine;
    int r = sqlite_engine.open(&engine, directory, &config);

    must_be_an_outcome(r);
    if (r) {
        if (promised)
            must_be_untouched(damage);
        return;
    }
    read_all(engine, &reading);
    if (promised && !reading.missing)
        must_be_as(&reading, &base->reading);
    holds = use(engine, attempt, flags, &reading);
    sqlite_engine.close(engine);
    if (flags & FLAG_AGAIN)
        open_again(holds && promised, &reading, flags);
}

static int lowest_free_fd(void)
{
    int fd = dup(STDERR_FILENO);

    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct damage damage; /* its memory lives as long as the process */
    struct choices choices = {data, size};
    const struct base *base;
    struct attempt attempt;
    sqlite3_int64 memory;
    unsigned flags;
    int fd;

    if (!damage.files.data[0]) {
        files_alloc(&damage.files);
        set_up();
    }
    flags = choose(&choices, 256);
    attempt = (struct attempt){.kind = (enum kind)choose(&choices, N_KINDS),
                               .session = choose(&choices, N_SESSIONS),
                               .n_items = choose(&choices, 4),
                               .key = choose(&choices, 40)};
    base = flags & FLAG_STOPPED ? &stopped : &killed;
    files_copy(&damage.files, &base->files);
    damage = (struct damage){.files = damage.files};
    for (unsigned i = 0; choices.size > 0 && i < 32; i++)
        edit(&choices, &damage);
    forge(&damage, flags / FLAG_FORGE & 7);

    now_us = OPENED_US;
    fd = lowest_free_fd();
    memory = sqlite3_memory_used();
    files_put(&damage.files);
    try_store(&damage, base, &attempt, flags);
    MUST(lowest_free_fd() == fd && sqlite3_memory_used() == memory);
    return 0;
}
