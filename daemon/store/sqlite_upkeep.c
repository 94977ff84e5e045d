/* What goes on between batches, in small steps: checkpoints, tables that follow, the clock, receipts that expire,
 * copies for backups. */
#include "store/sqlite.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "store/sqlite_schema.h"

enum {
    CHECKPOINT_PAGES = 256, /* 1 MiB: of 1,024 pages each hundredth request had to wait for 18 ms and more */
    CLOCK_SECONDS = 60,
    SWEEP_ROWS = 500,
    BACKUP_PAGES = 256,
};

static int checkpoint(struct engine *engine, int mode)
{
    int rc = sqlite3_wal_checkpoint_v2(engine->db, NULL, mode, NULL, NULL);

    if (rc != SQLITE_OK)
        return sqlite_fault(engine, rc, "checkpoint");
    engine->log_pages = 0;
    engine->log_is_old = false;
    sqlite_head_sync(engine);
    return 0;
}

int sqlite_checkpoint(struct engine *engine)
{
    return checkpoint(engine, SQLITE_CHECKPOINT_PASSIVE);
}

/* ---- erasing ---- */

/* The database is overwritten where texts are erased. But what was appended lately stands in the write-ahead log too,
 * and beyond what is used of that now, texts of its earlier rounds. So some time after texts were erased the log is
 * written back and cut off; not each time, for a log that grows costs more than one that is written over. */
static bool erasing_is_due(const struct engine *engine)
{
    return !engine->is_volatile && engine->committed.erasures != engine->erasures_gone &&
           clock_monotonic_us() - engine->erased_us >= engine->config->erase_seconds * 1000000;
}

static int erase_log(struct engine *engine)
{
    int r = checkpoint(engine, SQLITE_CHECKPOINT_TRUNCATE);

    if (r == 0)
        engine->erasures_gone = engine->committed.erasures;
    return r;
}

/* ---- the clock: which position was the last at which uptime ---- */

static int put_clock_row(struct engine *engine)
{
    sqlite3_stmt *put = sqlite_use(engine, SQL_CLOCK_PUT);

    sqlite_bind_number(put, 1, sqlite_uptime_s(engine));
    sqlite_bind_number(put, 2, engine->now.position);
    sqlite_bind_number(put, 3, engine->now.receipts);
    return sqlite_run(engine, put);
}

int sqlite_clock_put(struct engine *engine)
{
    int r = sqlite_in_transaction(engine, put_clock_row);

    if (r)
        return r;
    engine->clocked = engine->committed;
    engine->clocked_s = sqlite_uptime_s(engine);
    return 0;
}

static bool clock_is_due(const struct engine *engine)
{
    return engine->committed.position != engine->clocked.position &&
           sqlite_uptime_s(engine) >= engine->clocked_s + CLOCK_SECONDS;
}

/* The last position that is at least `age` seconds of uptime old; 0 if none is. */
static int position_of_age(struct engine *engine, uint64_t age, uint64_t *ret)
{
    sqlite3_stmt *at = sqlite_use(engine, SQL_CLOCK_AT);
    uint64_t uptime = sqlite_uptime_s(engine);
    bool row;
    int r;

    *ret = 0;
    if (uptime < age)
        return 0;
    sqlite_bind_number(at, 1, uptime - age);
    r = sqlite_step(engine, at, &row);
    if (r == 0 && row)
        *ret = sqlite_column_number(at, 0);
    sqlite3_reset(at);
    return r;
}

/* ---- the sweep: receipts that are old enough go, and with them what only they still needed ---- */

/* Not beyond what the tables have: until then nothing can be taken out of them. */
static int sweep_target(struct engine *engine, uint64_t *ret)
{
    const struct config *config = engine->config;
    bool too_many = engine->committed.receipts - engine->swept.receipts > config->receipts;
    int r = position_of_age(engine, too_many ? config->receipt_min_seconds : config->receipt_seconds, ret);

    if (*ret > engine->fresh.followed)
        *ret = engine->fresh.followed;
    if (*ret > engine->committed.position) /* a damaged clock's */
        *ret = engine->committed.position;
    return r;
}

/* A row of the log on its way past the sweep. */
struct swept_row {
    uint64_t position, session, seq;
    enum operation operation;
    struct slice key;
    bool has_body;
};

static struct swept_row read_swept_row(sqlite3_stmt *row)
{
    return (struct swept_row){
        .position = sqlite_column_number(row, 0),
        .operation = (enum operation)sqlite3_column_int(row, 1),
        .session = sqlite_column_number(row, 2),
        .seq = sqlite_column_number(row, 3),
        .key = sqlite_column_slice(row, 4),
        .has_body = sqlite3_column_int(row, 5),
    };
}

/* Whether the log needs it of its session, as long as that exists: the row that names it, and its last one, which tells
 * where its numbers stand. (The table's position may be beyond that, and then the last row is an item's.) A last row
 * stays for ever, though others may follow when the sweep has passed it: one at most for each pause of a session that
 * is as long as receipts are kept. Of a session whose page is damaged nobody knows. */
static int session_needs(struct engine *engine, const struct swept_row *row, bool *ret)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_SESSION_BY_NUMBER);
    bool exists;
    int r;

    sqlite_bind_number(get, 1, row->session);
    r = sqlite_step(engine, get, &exists);
    *ret = r || (exists && (row->position == row->session || row->position == sqlite_column_number(get, 8)));
    sqlite3_reset(get);
    return r == SESSIOND_ROLLED_BACK ? 0 : r;
}

/* The log is not needed to know that something is gone: the tables, which have all up to here, have it no more. */
static int row_is_needed(struct engine *engine, const struct swept_row *row, bool *ret)
{
    *ret = true;
    if (row->position == engine->committed.position) /* it tells where positions go on */
        return 0;
    switch (row->operation) {
    case OPERATION_RECOVER:
        return 0;
    case OPERATION_ITEM:
        return row->has_body ? 0 : session_needs(engine, row, ret);
    case OPERATION_POP:
    case OPERATION_CLEAR:
    case OPERATION_REPLACE:
        return session_needs(engine, row, ret);
    case OPERATION_NOTHING:
    case OPERATION_DELETE:
        break;
    }
    *ret = false;
    return 0;
}

static int run_at(struct engine *engine, enum statement which, uint64_t position)
{
    sqlite3_stmt *statement = sqlite_use(engine, which);

    sqlite_bind_number(statement, 1, position);
    return sqlite_run(engine, statement);
}

static int expire_receipt(struct engine *engine, const struct swept_row *row)
{
    if (!row->key.data)
        return 0;
    engine->swept.receipts++;
    return sqlite_receipt_drop(engine, row->key, row->position);
}

/* What only the receipt of a pop has kept. */
static int erase_popped(struct engine *engine, const struct swept_row *row)
{
    int r;

    if (row->operation != OPERATION_POP || !row->has_body)
        return 0;
    engine->now.erasures++;
    r = sqlite_item_drop(engine, row->session, OPERATION_POP, row->seq);
    return r ? r : run_at(engine, SQL_ITEM_ERASE, row->position);
}

/* The row that named a session which is gone now. */
static int forget_name(struct engine *engine, const struct swept_row *row)
{
    if (row->operation != OPERATION_DELETE)
        return 0;
    engine->now.erasures++;
    return run_at(engine, SQL_SWEEP_DROP_ERASED, row->session);
}

/* A row that its receipt no longer holds. */
static int sweep_row(struct engine *engine, sqlite3_stmt *statement)
{
    struct swept_row row = read_swept_row(statement);
    bool needed;
    int r;

    if ((r = expire_receipt(engine, &row)) || (r = erase_popped(engine, &row)) || (r = forget_name(engine, &row)) ||
        (r = row_is_needed(engine, &row, &needed)))
        return r;
    return needed ? 0 : run_at(engine, SQL_SWEEP_DROP, row.position);
}

/* Rows that no sweep goes by any more: all before the last one that is old enough. */
static int trim_clock(struct engine *engine)
{
    sqlite3_stmt *trim = sqlite_use(engine, SQL_CLOCK_TRIM);
    uint64_t uptime = sqlite_uptime_s(engine), keep = engine->config->receipt_seconds + UINT64_C(2) * CLOCK_SECONDS;

    if (uptime < keep)
        return 0;
    sqlite_bind_number(trim, 1, uptime - keep);
    return sqlite_run(engine, trim);
}

static int sweep_rows(struct engine *engine)
{
    sqlite3_stmt *rows = sqlite_use(engine, SQL_SWEEP_ROWS), *put = sqlite_use(engine, SQL_SWEPT_PUT);
    uint64_t target, n = 0;
    bool row;
    int r;

    if ((r = sweep_target(engine, &target)))
        return r;
    sqlite_bind_number(rows, 1, engine->swept.position);
    sqlite_bind_number(rows, 2, target);
    sqlite_bind_number(rows, 3, SWEEP_ROWS);
    for (; (r = sqlite_step(engine, rows, &row)) == 0 && row; n++) {
        engine->swept.position = sqlite_column_number(rows, 0);
        if ((r = sweep_row(engine, rows)))
            break;
    }
    sqlite3_reset(rows);
    if (r)
        return r;
    if (n < SWEEP_ROWS) /* those are all, whatever the clock says */
        engine->swept.position = target;
    sqlite_bind_number(put, 1, engine->swept.position);
    sqlite_bind_number(put, 2, engine->swept.receipts);
    return (r = sqlite_run(engine, put)) ? r : trim_clock(engine);
}

static int sweep(struct engine *engine, bool *ret_more)
{
    struct counters before = engine->swept;
    uint64_t target;
    int r;

    *ret_more = false;
    if ((r = sweep_target(engine, &target)) || target <= engine->swept.position)
        return r;
    if ((r = sqlite_in_transaction(engine, sweep_rows))) {
        engine->swept = before;
        return r;
    }
    *ret_more = engine->swept.position < target;
    return 0;
}

int sqlite_tend(struct engine *engine, bool *ret_more)
{
    *ret_more = false;
    if (sqlite_head_is_due(engine))
        sqlite_head_sync(engine);
    if (engine->missing)
        return 0; /* nothing is changed until somebody has looked */
    if (erasing_is_due(engine)) {
        *ret_more = true;
        return erase_log(engine);
    }
    if (engine->log_pages >= CHECKPOINT_PAGES)
        return sqlite_checkpoint(engine);
    if (sqlite_follow_is_due(engine, clock_is_due(engine) && engine->fresh.followed <= engine->clocked.position))
        return sqlite_follow_step(engine, ret_more);
    if (clock_is_due(engine))
        return sqlite_clock_put(engine);
    return sweep(engine, ret_more);
}

/* ---- backups ---- */

static int backup_begin(struct engine *engine, const char *path)
{
    int rc;

    if (unlink(path) < 0 && errno != ENOENT)
        return fault(errno, "remove an old backup");
    rc = sqlite3_open_v2(path, &engine->backup_db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
                         SQLITE_PAGES_VFS);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(engine->backup_db, "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        engine->backup = sqlite3_backup_init(engine->backup_db, "main", engine->db, "main");
    if (engine->backup)
        return 0;
    rc = sqlite_judge(engine->backup_db, sqlite3_errcode(engine->backup_db), "begin a backup");
    sqlite_backup_end(engine);
    return rc;
}

void sqlite_backup_end(struct engine *engine)
{
    sqlite3_backup_finish(TAKE(engine->backup));
    sqlite3_close(TAKE(engine->backup_db));
}

/* The copy becomes a file that needs no log beside it. */
static int backup_finish(struct engine *engine)
{
    int rc = sqlite3_backup_finish(TAKE(engine->backup));

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(engine->backup_db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    rc = rc == SQLITE_OK ? 0 : sqlite_judge(engine->backup_db, rc, "finish a backup");
    sqlite_backup_end(engine);
    return rc;
}

int sqlite_backup_step(struct engine *engine, const char *path, bool *ret_more)
{
    int r, rc;

    *ret_more = false;
    if (!engine->backup && (r = backup_begin(engine, path)))
        return r;
    rc = sqlite3_backup_step(engine->backup, BACKUP_PAGES);
    if (rc == SQLITE_OK) {
        *ret_more = true;
        return 0;
    }
    if (rc == SQLITE_DONE)
        return backup_finish(engine);
    r = sqlite_judge(engine->backup_db, rc, "write a backup");
    sqlite_backup_end(engine);
    return r;
}

static void close_db(sqlite3 **db)
{
    sqlite3_close(*db);
}

/* One row: "ok", or the first problem. */
static int on_quick_check(void *arg, int n, char **values, char **names)
{
    struct slice *problem = arg;

    (void)n;
    (void)names;
    snprintf((char *)problem->data, problem->size, "%s", values[0]);
    return 0;
}

int sqlite_verify(const char *path, char *why, size_t size)
{
    _cleanup_(close_db) sqlite3 *db = NULL;
    char problem[160] = "";
    const char *wrong;
    int version;

    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, SQLITE_PAGES_VFS) != SQLITE_OK) {
        snprintf(why, size, "it cannot be opened: %s", sqlite3_errmsg(db));
        return SESSIOND_INVALID;
    }
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    wrong = schema_check(db, &version);
    if (!wrong && sqlite3_exec(db, "PRAGMA cell_size_check = ON; PRAGMA quick_check(1)", on_quick_check,
                               &(struct slice){problem, sizeof(problem)}, NULL) != SQLITE_OK)
        wrong = sqlite3_errmsg(db);
    if (!wrong && strcmp(problem, "ok") != 0)
        wrong = problem;
    if (!wrong)
        return 0;
    snprintf(why, size, "%s", wrong);
    return SESSIOND_INVALID;
}
