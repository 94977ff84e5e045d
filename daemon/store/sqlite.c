#include "store/sqlite.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "store/sqlite_schema.h"

enum {
    MEASURE_PAGES = 16, /* written to the log since it was last looked how large the database is */
};

static const char *const statement_texts[SQL_N] = {
#define SQLITE_STATEMENT_TEXT(name, text) text,
    SQLITE_STATEMENTS(SQLITE_STATEMENT_TEXT)
#undef SQLITE_STATEMENT_TEXT
};

/* ---- errors and steps ---- */

int sqlite_judge(sqlite3 *db, int rc, const char *what)
{
    const char *message = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);

    if ((rc & 0xff) == SQLITE_FULL)
        return SESSIOND_FULL;
    log_error("sqlite what=\"%s\" code=%d error=\"%s\"", what, rc, message);
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return fault(ENOMEM, what);
    case SQLITE_CORRUPT: /* what stands on a damaged page is lost; the rest of the store is not */
    case SQLITE_NOTADB:
        return SESSIOND_ROLLED_BACK;
    case SQLITE_CANTOPEN:
        return fault(ENOENT, what);
    default:
        return fault(rc == SQLITE_IOERR_NOMEM ? ENOMEM : EIO, what);
    }
}

int sqlite_fault(struct engine *engine, int rc, const char *what)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_CORRUPT:
        break;
    default:
        engine->broken = true;
    }
    return sqlite_judge(engine->db, rc, what);
}

sqlite3_stmt *sqlite_use(struct engine *engine, enum statement which)
{
    return engine->statements[which];
}

int sqlite_step(struct engine *engine, sqlite3_stmt *statement, bool *ret_row)
{
    int rc = sqlite3_step(statement);

    if (rc == SQLITE_ROW) {
        *ret_row = true;
        return 0;
    }
    *ret_row = false;
    if (rc != SQLITE_DONE) {
        int r = sqlite_fault(engine, rc, sqlite3_sql(statement));

        sqlite3_reset(statement);
        return r;
    }
    sqlite3_reset(statement);
    return 0;
}

int sqlite_run(struct engine *engine, sqlite3_stmt *statement)
{
    bool row;
    int r = sqlite_step(engine, statement, &row);

    sqlite3_reset(statement);
    return r;
}

void sqlite_bind_slice(sqlite3_stmt *statement, int index, struct slice slice)
{
    if (!slice.data)
        sqlite3_bind_null(statement, index);
    else if (slice.size == 0)
        sqlite3_bind_zeroblob(statement, index, 0);
    else
        sqlite3_bind_blob64(statement, index, slice.data, slice.size, SQLITE_STATIC);
}

struct slice sqlite_column_slice(sqlite3_stmt *statement, int index)
{
    const char *data = sqlite3_column_blob(statement, index);

    return (struct slice){data, data ? (size_t)sqlite3_column_bytes(statement, index) : 0};
}

uint64_t sqlite_column_number(sqlite3_stmt *statement, int index)
{
    return (uint64_t)sqlite3_column_int64(statement, index);
}

void sqlite_bind_number(sqlite3_stmt *statement, int index, uint64_t value)
{
    sqlite3_bind_int64(statement, index, (sqlite3_int64)value);
}

/* Reads one row of up to three numbers; a missing row and NULL leave them as they are. */
static int read_numbers(struct engine *engine, sqlite3_stmt *statement, uint64_t **ret, size_t n)
{
    bool row;
    int r = sqlite_step(engine, statement, &row);

    for (size_t i = 0; r == 0 && row && i < n; i++)
        *ret[i] = sqlite_column_number(statement, (int)i);
    sqlite3_reset(statement);
    return r;
}

/* ---- transactions ---- */

/* Nothing is built on a log that opening could not write back: its syncs may have failed before, and then the kernel
 * calls pages clean that are not. */
static int sqlite_begin(struct engine *engine, bool writes)
{
    int r = writes && engine->log_is_old ? sqlite_checkpoint(engine) : 0;

    if (r)
        return r;
    return sqlite_run(engine, sqlite_use(engine, writes ? SQL_BEGIN_WRITE : SQL_BEGIN_READ));
}

static void sqlite_rollback(struct engine *engine)
{
    engine->now = engine->committed;
    engine->recovering = false;
    fresh_rollback(&engine->fresh, engine->committed.position);
    /* After some errors SQLite has rolled back by itself already. */
    if (!sqlite3_get_autocommit(engine->db) && sqlite_run(engine, sqlite_use(engine, SQL_ROLLBACK)))
        engine->broken = true;
}

/* How large the database is, from its first page, which is in memory. Each page by which it grows is in the log first,
 * so that a look now and again will do. */
static void measure(struct engine *engine)
{
    uint64_t *pages[] = {&engine->pages}, *free_pages[] = {&engine->free_pages};

    if (engine->pages && !engine->is_volatile && abs(engine->log_pages - engine->measured_log_pages) < MEASURE_PAGES)
        return;
    engine->measured_log_pages = engine->log_pages;
    if (read_numbers(engine, sqlite_use(engine, SQL_PAGE_COUNT), pages, 1) == 0)
        (void)read_numbers(engine, sqlite_use(engine, SQL_FREE_COUNT), free_pages, 1);
}

static int sqlite_commit(struct engine *engine)
{
    int rc = sqlite3_step(sqlite_use(engine, SQL_COMMIT));

    sqlite3_reset(sqlite_use(engine, SQL_COMMIT));
    if (rc == SQLITE_DONE) {
        if (engine->committed.erasures == engine->erasures_gone)
            engine->erased_us = clock_monotonic_us(); /* if any: the first */
        engine->committed = engine->now;
        fresh_commit(&engine->fresh);
        if (engine->recovering)
            engine->missing = 0;
        engine->recovering = false;
        (void)sqlite_head_write(engine); /* without it a loss would go unnoticed; nothing is lost now */
        measure(engine);
        return 0;
    }
    if ((rc & 0xff) == SQLITE_FULL) { /* the frame that would make it valid is not in the log */
        sqlite_rollback(engine);
        return SESSIOND_FULL;
    }
    /* Whether the log's last frame reached the disk is not known; only reopening can tell. */
    sqlite_judge(engine->db, rc, "commit");
    engine->broken = true;
    sqlite_rollback(engine);
    return SESSIOND_UNCERTAIN;
}

int sqlite_in_transaction(struct engine *engine, int (*work)(struct engine *))
{
    int r = sqlite_begin(engine, true);

    if (r)
        return r;
    r = work(engine);
    if (r) {
        sqlite_rollback(engine);
        return r;
    }
    return sqlite_commit(engine);
}

static bool sqlite_is_broken(const struct engine *engine)
{
    return engine->broken;
}

/* ---- opening ---- */

static const struct {
    int what, value;
} db_switches[] = {
    {SQLITE_DBCONFIG_DEFENSIVE, 1},
    {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
    {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},
    {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
    {SQLITE_DBCONFIG_DQS_DML, 0},
    {SQLITE_DBCONFIG_DQS_DDL, 0},
    {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
};

static const struct {
    int what, value;
} db_limits[] = {
    {SQLITE_LIMIT_SQL_LENGTH, 100000}, {SQLITE_LIMIT_VARIABLE_NUMBER, 32}, {SQLITE_LIMIT_COLUMN, 100},
    {SQLITE_LIMIT_EXPR_DEPTH, 20},     {SQLITE_LIMIT_ATTACHED, 0},         {SQLITE_LIMIT_COMPOUND_SELECT, 3},
};

/* A pragma that must answer with a certain value, or the promise of this daemon does not hold. */
struct pragma {
    const char *text;
    const char *want; /* NULL: it has no answer */
};

static const struct pragma pragmas_first[] = {
    {"PRAGMA locking_mode = EXCLUSIVE", "exclusive"}, /* before the first look into the WAL: no -shm file */
    {"PRAGMA mmap_size = 0", NULL},
    {NULL, NULL},
};
static const struct pragma pragmas_disk[] = {
    {"PRAGMA journal_mode = WAL", "wal"},
    {"PRAGMA synchronous = FULL", NULL},
    {"PRAGMA synchronous", "2"},
    {NULL, NULL},
};
static const struct pragma pragmas_volatile[] = {
    {"PRAGMA journal_mode = MEMORY", "memory"},
    {NULL, NULL},
};
static const struct pragma pragmas_all[] = {
    {"PRAGMA temp_store = MEMORY", NULL},
    {"PRAGMA secure_delete = ON", "1"},
    {"PRAGMA cell_size_check = ON", NULL},
    {"PRAGMA wal_autocheckpoint = 0", "0"}, /* checkpoints are made by sqlite_tend */
    {NULL, NULL},
};

static int run_pragma(struct engine *engine, const struct pragma *pragma)
{
    sqlite3_stmt *statement;
    const char *got;
    int r = 0, rc = sqlite3_prepare_v2(engine->db, pragma->text, -1, &statement, NULL);

    if (rc != SQLITE_OK)
        return sqlite_judge(engine->db, rc, pragma->text);
    rc = sqlite3_step(statement);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        r = sqlite_judge(engine->db, rc, pragma->text);
    } else if (pragma->want) {
        got = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
        if (!got || strcmp(got, pragma->want) != 0) {
            log_error("sqlite_setting_refused pragma=\"%s\" got=\"%s\"", pragma->text, got ? got : "nothing");
            r = fault(ENOTSUP, "a setting that durability needs");
        }
    }
    sqlite3_finalize(statement);
    return r;
}

static int run_pragmas(struct engine *engine, const struct pragma *pragmas)
{
    int r = 0;

    for (; pragmas->text && r == 0; pragmas++)
        r = run_pragma(engine, pragmas);
    return r;
}

static int set_pragma(struct engine *engine, const char *name, int64_t value)
{
    char text[96];

    snprintf(text, sizeof(text), "PRAGMA %s = %lld", name, (long long)value);
    return run_pragma(engine, &(struct pragma){text, NULL});
}

static int on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct engine *engine = arg;

    (void)db;
    (void)name;
    engine->log_pages = pages;
    return SQLITE_OK;
}

/* What a crash left in the page cache is made to be on the disk before anybody builds on it. (After a failed sync the
 * kernel may call pages clean that are not: what the log holds is therefore written anew, by the checkpoint in
 * sqlite_open.) */
static int sync_before_open(const char *path)
{
    char log[PATH_MAX + 8];
    int r;

    snprintf(log, sizeof(log), "%s-wal", path);
    if ((r = file_sync(path)) || (r = file_sync(log)))
        return r;
    return file_sync_parent(path);
}

/* A file that is not there is empty, and so is one of a single byte, as SQLite sees it; one that cannot be looked at is
 * not, and opening it will say why. */
static bool is_empty(const char *path)
{
    struct stat status;

    return stat(path, &status) < 0 ? errno == ENOENT : status.st_size <= 1;
}

/* A store whose head or log tells of changes, and whose file is gone or empty, has lost everything. A new one must not
 * take its place: SQLite would even remove the log. */
static int open_head(struct engine *engine)
{
    char log[PATH_MAX + 8];
    bool exists;
    int r;

    if (engine->is_volatile)
        return 0;
    if ((r = sqlite_head_open(engine, &exists)))
        return r;
    snprintf(log, sizeof(log), "%s-wal", engine->path);
    engine->now.erasures = !is_empty(log); /* who knows what the one before has erased */
    if (!is_empty(engine->path) || (engine->head.position == 0 && is_empty(log)))
        return 0;
    log_error("store_gone acknowledged=%llu path=\"%s\" do=\"put a backup in its place, or remove the directory\"",
              (unsigned long long)engine->head.position, engine->path);
    return SESSIOND_ROLLED_BACK;
}

static int open_database(struct engine *engine)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    int r, rc;

    if (!engine->is_volatile && (r = sync_before_open(engine->path)))
        return r;
    flags |= engine->is_volatile ? SQLITE_OPEN_MEMORY : SQLITE_OPEN_NOFOLLOW;
    rc = sqlite3_open_v2(engine->path, &engine->db, flags, engine->is_volatile ? NULL : SQLITE_PAGES_VFS);
    if (rc != SQLITE_OK)
        return sqlite_judge(engine->db, rc, "open a store");
    sqlite_pages_reserve(engine->db);

    for (size_t i = 0; i < N_ELEMENTS(db_switches); i++)
        sqlite3_db_config(engine->db, db_switches[i].what, db_switches[i].value, NULL);
    for (size_t i = 0; i < N_ELEMENTS(db_limits); i++)
        sqlite3_limit(engine->db, db_limits[i].what, db_limits[i].value);
    /* Until we know that this store is ours, closing it must not touch its file. */
    sqlite3_db_config(engine->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return engine->is_volatile ? 0 : run_pragmas(engine, pragmas_first);
}

static int settle_database(struct engine *engine)
{
    const struct config *config = engine->config;
    int r;

    if ((r = run_pragmas(engine, engine->is_volatile ? pragmas_volatile : pragmas_disk)) ||
        (r = run_pragmas(engine, pragmas_all)) ||
        (r = set_pragma(engine, "cache_size", -(int64_t)(config->cache_bytes / 1024))) || /* negative: in KiB */
        (r = set_pragma(engine, "journal_size_limit", (int64_t)config->log_bytes)))
        return r;
    sqlite3_wal_hook(engine->db, on_wal, engine); /* after wal_autocheckpoint, which takes any hook away */
    if (engine->is_volatile)
        r = set_pragma(engine, "max_page_count", (int64_t)(config->memory_bytes / PAGE_SIZE));
    return r;
}

static int prepare_statements(struct engine *engine)
{
    int rc;

    for (size_t i = 0; i < SQL_N; i++) {
        rc = sqlite3_prepare_v3(engine->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &engine->statements[i],
                                NULL);
        if (rc != SQLITE_OK)
            return sqlite_judge(engine->db, rc, statement_texts[i]);
    }
    return 0;
}

static int read_counters(struct engine *engine)
{
    sqlite3_stmt *keys = sqlite_use(engine, SQL_LOG_KEYS_AFTER);
    uint64_t since = 0;
    int r;

    if ((r = read_numbers(engine, sqlite_use(engine, SQL_LOG_LAST),
                          (uint64_t *[]){&engine->now.position, &engine->now.chain}, 2)) ||
        (r = read_numbers(engine, sqlite_use(engine, SQL_SWEPT_GET),
                          (uint64_t *[]){&engine->swept.position, &engine->swept.receipts}, 2)) ||
        (r = read_numbers(engine, sqlite_use(engine, SQL_CLOCK_LAST),
                          (uint64_t *[]){&engine->clocked_s, &engine->clocked.position, &engine->clocked.receipts}, 3)))
        return r;
    /* What came after the last row of the clock is counted: a minute's worth, unless the daemon was killed. */
    sqlite_bind_number(keys, 1, engine->clocked.position);
    r = read_numbers(engine, keys, (uint64_t *[]){&since}, 1);
    if (r == SESSIOND_ROLLED_BACK) /* on a damaged page each row may be a receipt; nobody's session depends on it */
        since = engine->now.position - engine->clocked.position;
    else if (r)
        return r;
    if (engine->swept.position > engine->now.position) /* of a damaged clock; what comes now has not been swept */
        engine->swept.position = engine->now.position;
    engine->now.receipts = engine->clocked.receipts + since;
    engine->committed = engine->now;
    engine->uptime_base_s = engine->clocked_s;
    engine->opened_us = clock_monotonic_us();
    return 0;
}

/* The head's number is that of its position; behind another one they are counted. Where a page of them is damaged,
 * nobody knows better than the head. */
static int count_sessions(struct engine *engine)
{
    const struct counters *head = &engine->head;
    uint64_t sessions = head->sessions;
    int r = 0;

    if (!engine->head_counts || head->position != engine->now.position || head->chain != engine->now.chain)
        r = read_numbers(engine, sqlite_use(engine, SQL_SESSIONS_COUNT), (uint64_t *[]){&sessions}, 1);
    engine->now.sessions = engine->committed.sessions = sessions;
    return r == SESSIOND_ROLLED_BACK ? 0 : r;
}

static void engine_free(struct engine *engine)
{
    sqlite_backup_end(engine);
    sqlite_head_close(engine);
    for (size_t i = 0; i < SQL_N; i++)
        sqlite3_finalize(engine->statements[i]);
    sqlite3_close(engine->db);
    fresh_deinit(&engine->fresh);
    free(engine);
}

static void engine_freep(struct engine **engine)
{
    if (*engine)
        engine_free(*engine);
}

/* Writes back what an earlier process, or the time before an I/O error, has left in the log. On a full disk that has to
 * wait for the first change: the store can be read all the same. */
static int empty_log(struct engine *engine)
{
    int r;

    if (engine->is_volatile)
        return 0;
    engine->log_is_old = true;
    r = sqlite_checkpoint(engine);
    return r == SESSIOND_FULL ? 0 : r;
}

static int sqlite_open(struct engine **ret, const char *directory, const struct config *config)
{
    _cleanup_(engine_freep) struct engine *engine = calloc(1, sizeof(*engine));
    int r;

    if (!engine)
        return fault(ENOMEM, "open a store");
    engine->config = config;
    engine->head_fd = -1;
    fresh_init(&engine->fresh);
    engine->is_volatile = !directory;
    if (engine->is_volatile)
        memcpy(engine->path, ":memory:", sizeof(":memory:"));
    else if (snprintf(engine->path, sizeof(engine->path), "%s/items.db", directory) >= (int)sizeof(engine->path))
        return fault(ENAMETOOLONG, "open a store");

    if ((!engine->is_volatile && (r = file_make_directory(directory))) || (r = open_head(engine)) ||
        (r = open_database(engine)) || (r = schema_migrate(engine->db, engine->path)) ||
        (r = settle_database(engine)) || (r = prepare_statements(engine)) || (r = read_counters(engine)) ||
        (r = sqlite_head_compare(engine)) || (r = count_sessions(engine)) || (r = sqlite_receipts_open(engine)) ||
        (r = sqlite_fresh_load(engine)) || (r = empty_log(engine)))
        return r;
    measure(engine);
    sqlite3_db_config(engine->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    *ret = TAKE(engine);
    return 0;
}

static void sqlite_finish(struct engine *engine)
{
    sqlite_follow_all(engine);
    if (!engine->broken)
        (void)sqlite_clock_put(engine);
}

static void sqlite_close(struct engine *engine)
{
    if (!engine)
        return;
    if (engine->broken)
        sqlite3_db_config(engine->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    else if (!engine->is_volatile && !engine->missing)
        sqlite_finish(engine); /* only spares the next opening some work */
    engine_free(engine);
}

/* ---- sizes ---- */

static uint64_t sqlite_log_bytes(const struct engine *engine)
{
    return (uint64_t)engine->log_pages * PAGE_SIZE;
}

static void sqlite_count_use(const struct engine *engine, struct store_use *ret)
{
    *ret = (struct store_use){
        .sessions = engine->now.sessions,
        .bytes = engine->pages * PAGE_SIZE + sqlite_log_bytes(engine),
        .spare = engine->free_pages * PAGE_SIZE,
    };
}

static int sqlite_sizes(struct engine *engine, struct store_sizes *ret)
{
    int r;

    *ret = (struct store_sizes){.log_bytes = sqlite_log_bytes(engine), .missing = engine->missing};
    if ((r = read_numbers(engine, sqlite_use(engine, SQL_SESSIONS_COUNT), (uint64_t *[]){&ret->sessions}, 1)))
        return r;
    return read_numbers(engine, sqlite_use(engine, SQL_PAGES), (uint64_t *[]){&ret->bytes}, 1);
}

uint64_t sqlite_uptime_s(const struct engine *engine)
{
    return engine->uptime_base_s + (clock_monotonic_us() - engine->opened_us) / 1000000;
}

/* ---- the library ---- */

static void on_sqlite_log(void *arg, int code, const char *message)
{
    (void)arg;
    /* Schema changes re-prepare statements, and WAL recovery after a crash is no error. */
    if (code == SQLITE_SCHEMA || code == SQLITE_NOTICE_RECOVER_WAL || code == SQLITE_FULL)
        log_debug("sqlite code=%d message=\"%s\"", code, message);
    else
        log_warning("sqlite code=%d message=\"%s\"", code, message);
}

int sqlite_setup(const struct config *config)
{
    if (sqlite3_config(SQLITE_CONFIG_LOG, on_sqlite_log, NULL) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_URI, 0) != SQLITE_OK || sqlite3_config(SQLITE_CONFIG_MULTITHREAD) != SQLITE_OK ||
        sqlite3_initialize() != SQLITE_OK)
        return fault(ENOTSUP, "set up SQLite");
    sqlite3_soft_heap_limit64((sqlite3_int64)config->cache_bytes_total);
    return sqlite_pages_setup();
}

const char *sqlite_version(void)
{
    return sqlite3_libversion();
}

const char *sqlite_source(void)
{
    return sqlite3_sourceid();
}

const struct engine_table sqlite_engine = {
    .name = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .is_broken = sqlite_is_broken,
    .log_bytes = sqlite_log_bytes,
    .use = sqlite_count_use,
    .closed_sessions = sqlite_head_sessions,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .get_items = sqlite_get_items,
    .list_sessions = sqlite_list_sessions,
    .sizes = sqlite_sizes,
    .add_items = sqlite_add_items,
    .pop_item = sqlite_pop_item,
    .clear_session = sqlite_clear_session,
    .replace_items = sqlite_replace_items,
    .delete_session = sqlite_delete_session,
    .recover = sqlite_recover,
    .tend = sqlite_tend,
    .backup_step = sqlite_backup_step,
    .backup_end = sqlite_backup_end,
};
