/*
 * What the contract suites share: a store of its own for each test, on disk or volatile, and the calls of the engine's
 * table as sentences. A call runs in a transaction of its own, unless the test has begun one.
 */
#ifndef SESSIOND_CONTRACT_H
#define SESSIOND_CONTRACT_H

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "buf.h"
#include "config/config.h"
#include "sessiond-codes.h"
#include "store/engine.h"
#include "tree.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))
#define SOME(n) ((struct number){true, (n)})

/* A kind of store that a suite is run for; the state that cmocka hands to set_up. */
struct kind {
    const struct engine_table *table;
    bool on_disk;
    uint64_t follow_rows; /* 0: the default, and then nothing is tended unless the test does; else after each commit */
};

struct fixture {
    const struct engine_table *table;
    bool on_disk;
    bool tends;
    struct config config;
    char top[32];       /* made for this test, and removed with all that is in it */
    char directory[64]; /* the store's own */
    struct engine *engine;
    bool in_transaction; /* the test's own */
    struct change_result done;
    struct selection_result got;
    struct buf text; /* items, or sessions, of the last read, with spaces between them */
    size_t n_rows;
};

static const char *scratch_directory = "/tmp"; /* a suite may choose another, before its tests begin */

static inline void must(int r)
{
    if (r)
        fail_msg("it returned %d", r);
}

/* ---- files ---- */

static inline struct buf read_file(const char *path)
{
    struct buf bytes = BUF_INIT;
    FILE *file = fopen(path, "rb");
    char part[4096];
    size_t n;

    while (file && (n = fread(part, 1, sizeof(part), file)) > 0)
        buf_append(&bytes, part, n);
    if (file)
        (void)fclose(file);
    return bytes;
}

static inline void write_file(const char *path, struct slice bytes)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    if (bytes.size)
        assert_int_equal(fwrite(bytes.data, 1, bytes.size, file), bytes.size);
    assert_int_equal(fclose(file), 0);
}

static inline void copy_file(const char *from, const char *to_path)
{
    struct buf bytes = read_file(from);

    write_file(to_path, buf_slice(&bytes));
    buf_deinit(&bytes);
}

static inline void copy_directory(const char *from_directory, const char *to_directory)
{
    DIR *directory = opendir(from_directory);
    char from[512], to_path[512];
    struct dirent *entry;

    assert_non_null(directory);
    assert_int_equal(mkdir(to_directory, 0700), 0);
    while ((entry = readdir(directory))) {
        if (entry->d_type != DT_REG)
            continue;
        (void)snprintf(from, sizeof(from), "%s/%s", from_directory, entry->d_name);
        (void)snprintf(to_path, sizeof(to_path), "%s/%s", to_directory, entry->d_name);
        copy_file(from, to_path);
    }
    closedir(directory);
}

/* A file of the store. The path is good until the fourth call after this one. */
static inline const char *file_of(const struct fixture *f, const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % N(paths)];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", f->directory, name);
    return path;
}

/* ---- life ---- */

static inline int open_store(struct fixture *f)
{
    return f->table->open(&f->engine, f->on_disk ? f->directory : NULL, &f->config);
}

static inline void close_store(struct fixture *f)
{
    f->table->close(f->engine);
    f->engine = NULL;
}

static inline void reopen_store(struct fixture *f)
{
    close_store(f);
    must(open_store(f));
}

/* As if the process had been killed now: what its files hold at this moment is what the next one finds. `spoil`, which
 * may be NULL, changes them before. */
static inline void kill_store(struct fixture *f, void (*spoil)(const char *directory))
{
    char copy[64];

    (void)snprintf(copy, sizeof(copy), "%s/killed", f->top);
    copy_directory(f->directory, copy);
    if (spoil)
        spoil(copy);
    if (f->in_transaction) {
        f->in_transaction = false;
        f->table->rollback(f->engine);
    }
    close_store(f);
    remove_tree(f->directory);
    assert_int_equal(rename(copy, f->directory), 0);
    must(open_store(f));
}

static inline int set_up_closed(void **state)
{
    const struct kind *kind = *state;
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    f->table = kind->table;
    f->on_disk = kind->on_disk;
    config_init(&f->config);
    if (kind->follow_rows) {
        f->config.follow_rows = kind->follow_rows;
        f->tends = true;
    }
    (void)snprintf(f->top, sizeof(f->top), "%s/sd-XXXXXX", scratch_directory);
    if (!mkdtemp(f->top))
        return -1;
    (void)snprintf(f->directory, sizeof(f->directory), "%s/store", f->top);
    *state = f;
    return 0;
}

static inline int set_up(void **state)
{
    return set_up_closed(state) || open_store(*state) ? -1 : 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->engine && f->in_transaction)
        f->table->rollback(f->engine);
    close_store(f);
    remove_tree(f->top);
    buf_deinit(&f->text);
    config_deinit(&f->config);
    free(f);
    return 0;
}

/* ---- transactions ---- */

static inline void begin(struct fixture *f)
{
    assert_false(f->in_transaction);
    must(f->table->begin(f->engine, true));
    f->in_transaction = true;
}

/* As a lane does between batches. */
static inline void tend(struct fixture *f)
{
    bool more;

    must(f->table->tend(f->engine, &more));
}

static inline void commit(struct fixture *f)
{
    assert_true(f->in_transaction);
    f->in_transaction = false;
    must(f->table->commit(f->engine));
    if (f->tends)
        tend(f);
}

static inline void roll_back(struct fixture *f)
{
    assert_true(f->in_transaction);
    f->in_transaction = false;
    f->table->rollback(f->engine);
}

static inline void enter(struct fixture *f, bool writes)
{
    if (!f->in_transaction)
        must(f->table->begin(f->engine, writes));
}

/* A refusal leaves the transaction as it was, and so it can be committed; anything worse has to be rolled back. */
static inline int leave(struct fixture *f, int r)
{
    if (f->in_transaction)
        return r;
    if (r == 0 || r == SESSIOND_CONFLICT || r == SESSIOND_KEY_REUSED || r == SESSIOND_NOT_FOUND ||
        (r == SESSIOND_FULL && f->done.over != OVER_DISK))
        must(f->table->commit(f->engine));
    else
        f->table->rollback(f->engine);
    if (f->tends)
        tend(f);
    return r;
}

/* ---- changes ---- */

static inline struct change to(const char *session)
{
    static uint64_t now_us = 1700000000000000;

    return (struct change){.session = slice_of(session), .now_us = ++now_us};
}

/* A change with a key. Two of them are the same change if `print` is the same. */
static inline struct change keyed(const char *session, const char *key, char print)
{
    struct change change = to(session);

    change.key = slice_of(key);
    memset(change.fingerprint, print, sizeof(change.fingerprint));
    return change;
}

/* Items, and what stands beside them: a text "1+one" is the item "1" with "one" beside it. */
static inline size_t slices_of(const char *const *texts, struct slice *ret, struct slice *ret_meta)
{
    const char *plus;
    size_t n = 0;

    for (; texts[n]; n++) {
        ret[n] = slice_of(texts[n]);
        plus = strchr(texts[n], '+');
        ret_meta[n] = plus ? slice_of(plus + 1) : (struct slice){0};
        if (plus)
            ret[n].size = (size_t)(plus - texts[n]);
    }
    return n;
}

static inline int add_slices(struct fixture *f, struct change change, const struct slice *items, size_t n)
{
    enter(f, true);
    return leave(f, f->table->add_items(f->engine, &change, items, n, &f->done));
}

static inline int add_texts(struct fixture *f, struct change change, const char *const *texts)
{
    struct slice items[64], meta[64];
    size_t n = slices_of(texts, items, meta);

    change.meta = meta;
    return add_slices(f, change, items, n);
}

static inline int add_with(struct fixture *f, struct change change, const char *item, const char *beside)
{
    struct slice text = slice_of(item), meta = slice_of(beside);

    change.meta = &meta;
    return add_slices(f, change, &text, 1);
}

static inline int replace_texts(struct fixture *f, struct change change, struct number from_seq,
                                const char *const *texts)
{
    struct slice items[64], meta[64];
    size_t n = slices_of(texts, items, meta);

    change.meta = meta;
    enter(f, true);
    return leave(f, f->table->replace_items(f->engine, &change, from_seq, items, n, &f->done));
}

#define TEXTS(...) ((const char *const[]){NULL, ##__VA_ARGS__, NULL} + 1)
#define add(f, change, ...) add_texts(f, change, TEXTS(__VA_ARGS__))
#define replace(f, change, from_seq, ...) replace_texts(f, change, from_seq, TEXTS(__VA_ARGS__))
#define FROM_START ((struct number){0})

/* Gives "item" or, where something stands beside it, "item+meta". */
static inline int on_row(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    struct fixture *f = arg;

    (void)seq;
    if (f->n_rows++ > 0)
        buf_append(&f->text, " ", 1);
    buf_append(&f->text, item.data, item.size);
    if (meta.data) {
        buf_append(&f->text, "+", 1);
        buf_append(&f->text, meta.data, meta.size);
    }
    return 0;
}

static inline void forget_rows(struct fixture *f)
{
    f->n_rows = 0;
    f->text.size = 0;
}

static inline int pop(struct fixture *f, struct change change)
{
    forget_rows(f);
    enter(f, true);
    return leave(f, f->table->pop_item(f->engine, &change, on_row, f, &f->done));
}

static inline int clear(struct fixture *f, struct change change)
{
    enter(f, true);
    return leave(f, f->table->clear_session(f->engine, &change, &f->done));
}

static inline int delete (struct fixture *f, struct change change)
{
    enter(f, true);
    return leave(f, f->table->delete_session(f->engine, &change, &f->done));
}

/* ---- reading ---- */

static inline int get(struct fixture *f, struct selection selection)
{
    if (!selection.max_bytes)
        selection.max_bytes = PROTO_ANSWER_MAX;
    forget_rows(f);
    enter(f, false);
    return leave(f, f->table->get_items(f->engine, &selection, on_row, f, &f->got));
}

static inline struct selection of(const char *session)
{
    return (struct selection){.session = slice_of(session)};
}

static inline int on_session(void *arg, const struct session_info *session)
{
    return on_row(arg, 0, session->id, (struct slice){0});
}

static inline int list(struct fixture *f, struct session_range range, bool *ret_more)
{
    forget_rows(f);
    enter(f, false);
    return leave(f, f->table->list_sessions(f->engine, &range, on_session, f, ret_more));
}

static inline struct store_sizes sizes(struct fixture *f)
{
    struct store_sizes sizes;

    enter(f, false);
    must(leave(f, f->table->sizes(f->engine, &sizes)));
    return sizes;
}

static inline struct store_use use_of(struct fixture *f)
{
    struct store_use use;

    f->table->use(f->engine, &use);
    return use;
}

/* ---- what is expected ---- */

/* That the last read gave these rows, written with spaces between them. */
#define expect_rows(f, wanted)                                                                                         \
    do {                                                                                                               \
        buf_append(&(f)->text, "", 1);                                                                                 \
        assert_string_equal((f)->text.data, wanted);                                                                   \
        (f)->text.size--;                                                                                              \
    } while (0)

#define expect_items(f, session_id, wanted)                                                                            \
    do {                                                                                                               \
        must(get(f, of(session_id)));                                                                                  \
        expect_rows(f, wanted);                                                                                        \
    } while (0)

/* That the last change answered so. */
#define expect_done(f, wanted_first, wanted_last, wanted_removed)                                                      \
    do {                                                                                                               \
        assert_int_equal((f)->done.first_seq, wanted_first);                                                           \
        assert_int_equal((f)->done.last_seq, wanted_last);                                                             \
        assert_int_equal((f)->done.removed, wanted_removed);                                                           \
    } while (0)

static inline struct selection_result state_of(struct fixture *f, const char *session)
{
    struct selection selection = of(session);

    selection.limit = SOME(0);
    must(get(f, selection));
    assert_int_equal(f->n_rows, 0);
    return f->got;
}

/* Housekeeping until there is nothing more to do; it must come to an end. */
static inline void tend_all(struct fixture *f)
{
    bool more = true;

    for (int i = 0; more; i++) {
        assert_true(i < 10000);
        must(f->table->tend(f->engine, &more));
    }
}

/* ---- files behind the store's back ---- */

/* Runs SQL on a file that nobody has open. `vfs`: "sessiond" for a store, whose pages have checksums; NULL for what is
 * none. Return: the first number of the first row, or -1. */
static inline int64_t sql_as(const char *vfs, const char *path, const char *text)
{
    sqlite3_stmt *statement;
    int64_t number = -1;
    sqlite3 *db;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs), SQLITE_OK);
    while (text[0]) {
        if (sqlite3_prepare_v2(db, text, -1, &statement, &text) != SQLITE_OK)
            fail_msg("%s", sqlite3_errmsg(db));
        if (sqlite3_step(statement) == SQLITE_ROW)
            number = sqlite3_column_int64(statement, 0);
        if (sqlite3_finalize(statement) != SQLITE_OK)
            fail_msg("%s", sqlite3_errmsg(db));
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return number;
}

static inline int64_t sql(const char *path, const char *text)
{
    return sql_as("sessiond", path, text);
}

#endif
