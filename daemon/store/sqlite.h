/*
 * The inside of the SQLite engine, shared by the sqlite*.c files alone: one connection per store file in the whole
 * process, EXCLUSIVE, WAL, synchronous FULL. An engine is owned by its store and used by the store's lane.
 */
#ifndef SESSIOND_STORE_SQLITE_H
#define SESSIOND_STORE_SQLITE_H

#include <limits.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "proto.h"
#include "store/engine.h"
#include "store/sqlite_fresh.h"

enum { PAGE_SIZE = 4096 };

/* What a row of the log says; the numbers are in the files. */
enum operation {
    OPERATION_ITEM = 1,
    OPERATION_POP = 2,
    OPERATION_CLEAR = 3,
    OPERATION_REPLACE = 4,
    OPERATION_DELETE = 5,
    OPERATION_NOTHING = 6, /* a change with a key that changed nothing */
    OPERATION_RECOVER = 7, /* an operator accepted a loss: positions before this one may be missing */
};

/* The row of the log that an item's row stands for; if it has none, its columns are NULL. */
#define SQLITE_ITEM_ROW                                                                                                \
    " LEFT JOIN log ON log.position = item.position AND log.session = item.session AND log.seq = item.seq"

/* X(name, text): every statement, prepared once when the store is opened. */
#define SQLITE_STATEMENTS(X)                                                                                           \
    X(BEGIN_READ, "BEGIN")                                                                                             \
    X(BEGIN_WRITE, "BEGIN IMMEDIATE")                                                                                  \
    X(COMMIT, "COMMIT")                                                                                                \
    X(ROLLBACK, "ROLLBACK")                                                                                            \
    X(LOG_INSERT, "INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)")         \
    X(LOG_GET, "SELECT operation, session, seq, revision, epoch, span, removed, fingerprint, body, meta"               \
               " FROM log WHERE position = ?1")                                                                        \
    X(LOG_LAST, "SELECT position, chain FROM log ORDER BY position DESC LIMIT 1")                                      \
    X(LOG_CHAIN, "SELECT chain FROM log WHERE position = ?1")                                                          \
    X(LOG_KEYS_AFTER, "SELECT count(key) FROM log WHERE position > ?1")                                                \
    X(LOG_TAIL, "SELECT position, operation, session, seq, revision, time_us, key, length(body),"                      \
                " ifnull(length(meta), 0) FROM log WHERE position >= ?1 AND position <= ?2 ORDER BY position")         \
    X(ITEMS_FLOOR, "SELECT seq FROM item WHERE session = ?1 AND operation = 1 AND seq > ?2 AND seq < ?3"               \
                   " ORDER BY seq DESC LIMIT 1 OFFSET ?4")                                                             \
    X(ITEMS_GET,                                                                                                       \
      "SELECT item.seq, body FROM item" SQLITE_ITEM_ROW                                                                \
      " WHERE item.session = ?1 AND item.operation = 1 AND item.seq >= ?2 AND item.seq < ?3 ORDER BY item.seq")        \
    X(ITEMS_GET_META,                                                                                                  \
      "SELECT item.seq, body, meta FROM item" SQLITE_ITEM_ROW                                                          \
      " WHERE item.session = ?1 AND item.operation = 1 AND item.seq >= ?2 AND item.seq < ?3 ORDER BY item.seq")        \
    X(ITEM_GET, "SELECT seq, body, meta FROM log WHERE position = ?1")                                                 \
    X(ITEM_LAST, "SELECT item.position, item.seq, body, meta FROM item" SQLITE_ITEM_ROW                                \
                 " WHERE item.session = ?1 AND item.operation = 1 ORDER BY item.seq DESC LIMIT 1")                     \
    X(ITEMS_SUM, "SELECT count(*), total(length(body) + ifnull(length(meta), 0)) FROM item" SQLITE_ITEM_ROW            \
                 " WHERE item.session = ?1 AND item.operation = 1 AND item.seq >= ?2")                                 \
    X(ITEM_PUT, "INSERT OR REPLACE INTO item VALUES (?1, ?2, ?3, ?4)")                                                 \
    X(ITEM_DROP, "DELETE FROM item WHERE session = ?1 AND operation = ?2 AND seq = ?3")                                \
    X(ITEMS_DROP, "DELETE FROM item WHERE session = ?1 AND operation = ?2 AND seq >= ?3")                              \
    X(ITEM_ERASE, "UPDATE log SET body = NULL, meta = NULL WHERE position = ?1")                                       \
    X(ITEMS_FORGET, "DELETE FROM log WHERE session = ?1 AND position <> ?1 AND position <= ?4 AND position IN"         \
                    " (SELECT position FROM item WHERE session = ?1 AND operation = ?2 AND seq >= ?3)")                \
    X(ITEMS_ERASE, "UPDATE log SET body = NULL, meta = NULL WHERE session = ?1 AND position IN"                        \
                   " (SELECT position FROM item WHERE session = ?1 AND operation = ?2 AND seq >= ?3)")                 \
    X(SESSION_GET, "SELECT number, count, bytes, head_seq, revision, epoch, created_us, updated_us FROM session"       \
                   " WHERE name = ?1")                                                                                 \
    X(SESSION_BY_NUMBER,                                                                                               \
      "SELECT number, count, bytes, head_seq, revision, epoch, created_us, updated_us, position, name"                 \
      " FROM session WHERE number = ?1")                                                                               \
    X(SESSION_EXISTS, "SELECT 1 FROM session WHERE number = ?1")                                                       \
    X(SESSION_INSERT, "INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")                          \
    X(SESSION_UPDATE, "UPDATE session SET count = ?3, bytes = ?4, head_seq = ?5, revision = ?6, epoch = ?7,"           \
                      " updated_us = ?9, position = ?10 WHERE name = ?1")                                              \
    X(SESSIONS_RAISE_EPOCH, "UPDATE session SET epoch = ?1, revision = revision + 1")                                  \
    X(SESSION_DELETE, "DELETE FROM session WHERE name = ?1")                                                           \
    X(SESSIONS_LIST,                                                                                                   \
      "SELECT number, count, bytes, head_seq, revision, epoch, created_us, updated_us, name FROM session"              \
      " WHERE name > ?1 AND name >= ?2 AND name < ?3 ORDER BY name LIMIT ?4")                                          \
    X(SESSIONS_COUNT, "SELECT count(*) FROM session")                                                                  \
    X(RECEIPT_GET, "SELECT position FROM receipt WHERE key = ?1")                                                      \
    X(RECEIPT_LAST, "SELECT key FROM receipt ORDER BY key DESC LIMIT 1")                                               \
    X(RECEIPT_PUT, "INSERT INTO receipt VALUES (?1, ?2)"                                                               \
                   " ON CONFLICT DO UPDATE SET position = excluded.position WHERE excluded.position > position")       \
    X(RECEIPT_DROP, "DELETE FROM receipt WHERE key = ?1 AND position = ?2")                                            \
    X(CLOCK_LAST, "SELECT uptime_s, position, receipts FROM clock ORDER BY uptime_s DESC LIMIT 1")                     \
    X(CLOCK_AT, "SELECT position FROM clock WHERE uptime_s <= ?1 ORDER BY uptime_s DESC LIMIT 1")                      \
    X(CLOCK_PUT, "INSERT OR REPLACE INTO clock VALUES (?1, ?2, ?3)")                                                   \
    X(CLOCK_TRIM, "DELETE FROM clock WHERE uptime_s < (SELECT max(uptime_s) FROM clock WHERE uptime_s <= ?1)")         \
    X(SWEPT_GET, "SELECT position, receipts FROM swept")                                                               \
    X(SWEPT_PUT, "UPDATE swept SET position = ?1, receipts = ?2")                                                      \
    X(SWEEP_ROWS, "SELECT position, operation, session, seq, key, body IS NOT NULL FROM log WHERE position > ?1"       \
                  " AND position <= ?2 ORDER BY position LIMIT ?3")                                                    \
    X(SWEEP_DROP, "DELETE FROM log WHERE position = ?1")                                                               \
    X(SWEEP_DROP_ERASED, "DELETE FROM log WHERE position = ?1 AND body IS NULL")                                       \
    X(FOLLOWED_GET, "SELECT position FROM followed")                                                                   \
    X(FOLLOWED_PUT, "UPDATE followed SET position = ?1")                                                               \
    X(LEFT_GET, "SELECT position FROM left_behind ORDER BY max(position, -position)")                                  \
    X(LEFT_PUT, "INSERT OR IGNORE INTO left_behind VALUES (?1)")                                                       \
    X(LEFT_CLEAR, "DELETE FROM left_behind")                                                                           \
    X(PAGES, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")                             \
    X(PAGE_COUNT, "PRAGMA page_count")                                                                                 \
    X(FREE_COUNT, "PRAGMA freelist_count")

enum statement {
#define SQLITE_STATEMENT_ENUM(name, text) SQL_##name,
    SQLITE_STATEMENTS(SQLITE_STATEMENT_ENUM)
#undef SQLITE_STATEMENT_ENUM
        SQL_N
};

/* What counts up in memory and is only true once committed. */
struct counters {
    uint64_t position; /* of the log's last row */
    uint64_t receipts; /* ever written */
    uint64_t chain;    /* running hash of the log's rows */
    uint64_t erasures; /* of texts, since the opening */
    uint64_t sessions; /* that there are */
};

/* No key in the table of receipts is greater, as SQLite compares blobs; one that is greater need not be looked for. */
struct key_bound {
    bool is_known;
    size_t size;
    char key[PROTO_KEY_MAX];
};

struct engine {
    const struct config *config;
    char path[PATH_MAX];
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_N];
    bool is_volatile;
    bool broken;                    /* an I/O error or damage was seen */
    struct counters now, committed; /* now: with what the open transaction adds */
    struct counters swept;          /* receipts up to here are gone */
    int head_fd;                    /* -1: a volatile store has none */
    int head_slot;                  /* written last: 0 or 1 */
    bool head_dirty;                /* not yet synced */
    uint64_t head_synced_us;        /* monotonic */
    struct counters head;           /* what was acknowledged, as the head says */
    bool head_counts;               /* it also says how many sessions there were then */
    bool recovering;                /* the open transaction accepts the loss */
    uint64_t missing;               /* rows of the log that were acknowledged and are not there; 0: none */
    struct key_bound receipts_end;  /* of what the table has, or has had since the opening */
    struct fresh fresh;             /* what the log has and the tables do not have yet */
    uint64_t uptime_base_s;         /* of the store, before this opening */
    uint64_t opened_us;             /* monotonic */
    struct counters clocked;        /* at the last row of `clock` */
    uint64_t clocked_s;             /* its uptime */
    int log_pages;                  /* in the write-ahead log, */
    int measured_log_pages;         /* and when these were looked up: */
    uint64_t pages, free_pages;     /* of the database */
    bool log_is_old;                /* some of it is from before the opening */
    uint64_t erasures_gone;         /* so many have left the write-ahead log, too */
    uint64_t erased_us;             /* monotonic: the first that has not */
    sqlite3_backup *backup;         /* an unfinished copy, NULL: none */
    sqlite3 *backup_db;             /* its file */
};

/* Judges what SQLite returned, in this one place. `rc` is none of OK, ROW, DONE. Return: SESSIOND_FULL; ROLLED_BACK
 * for damage; or a fault. */
int sqlite_judge(sqlite3 *db, int rc, const char *what);

/* The same, and marks the engine broken where the disk is no longer to be trusted. */
int sqlite_fault(struct engine *engine, int rc, const char *what);

/* A statement, reset and ready for its parameters. */
sqlite3_stmt *sqlite_use(struct engine *engine, enum statement which);

/* Steps once. An error never looks like the end: the return is 0 (*ret_row: a row, or the end) or as sqlite_judge's.
 * The statement is reset at the end and after an error; after a row the caller resets it. */
int sqlite_step(struct engine *engine, sqlite3_stmt *statement, bool *ret_row);

/* Runs a statement that gives no rows, and resets it. */
int sqlite_run(struct engine *engine, sqlite3_stmt *statement);

/* Binds texts as blobs: they are compared byte by byte, and may hold NULs. They must live until the statement is reset.
 */
void sqlite_bind_slice(sqlite3_stmt *statement, int index, struct slice slice);
struct slice sqlite_column_slice(sqlite3_stmt *statement, int index);

/* Reads or binds a number that is never negative. */
uint64_t sqlite_column_number(sqlite3_stmt *statement, int index);
void sqlite_bind_number(sqlite3_stmt *statement, int index, uint64_t value);

/* Runs `work` in a transaction of its own. */
int sqlite_in_transaction(struct engine *engine, int (*work)(struct engine *));

/* Uptime of the store, in seconds, all openings together. */
uint64_t sqlite_uptime_s(const struct engine *engine);

/* sqlite_head.c. Opens the head, which may be new; reads what it says into engine->head. */
int sqlite_head_open(struct engine *engine, bool *ret_exists);
void sqlite_head_close(struct engine *engine);
/* Says that all that is committed has been acknowledged. */
int sqlite_head_write(struct engine *engine);
void sqlite_head_sync(struct engine *engine);
bool sqlite_head_is_due(const struct engine *engine);
/* Sets engine->missing by what the store has and the head says. */
int sqlite_head_compare(struct engine *engine);
/* The sessions of a store that is closed, as its head says; 0: it does not. */
uint64_t sqlite_head_sessions(const char *directory);
uint64_t sqlite_chain(uint64_t before, const uint64_t numbers[], size_t n, struct slice body, struct slice meta);

/* sqlite_pages.c. Databases are opened with this VFS, and a new one is told to leave room for the checksums. It lies
 * above the VFS that is the default one when it is set up. */
#define SQLITE_PAGES_VFS "sessiond"
int sqlite_pages_setup(void);
void sqlite_pages_reserve(sqlite3 *db);

/* sqlite_gather.c: a VFS that writes what follows each other in a file at once, above the one that is the default now;
 * it is not registered. And the bytes of a VFS's object for a file, so that another object can lie behind. */
int sqlite_gather_setup(sqlite3_vfs **ret);
size_t sqlite_vfs_size(const sqlite3_vfs *vfs, size_t align);

/* sqlite_tables.c: the rows of the tables that are made from the log. */
int sqlite_session_load(struct engine *, struct slice name, struct session *ret);
int sqlite_session_save(struct engine *, struct slice name, const struct session *);
int sqlite_session_drop(struct engine *, struct slice name);
int sqlite_session_exists(struct engine *, uint64_t number, bool *ret);
/* Reads a session from the statement's row: number, count, bytes, head_seq, revision, epoch, created_us, updated_us. */
void sqlite_session_read(sqlite3_stmt *row, struct session *ret);
int sqlite_item_put(struct engine *, uint64_t session, enum operation, uint64_t seq, uint64_t position);
int sqlite_item_drop(struct engine *, uint64_t session, enum operation, uint64_t seq);
/* Return: 0 with *ret_position, 0 if there is none; or as sqlite_judge. */
int sqlite_receipts_open(struct engine *); /* before the others */
int sqlite_receipt_get(struct engine *, struct slice key, uint64_t *ret_position);
int sqlite_receipt_put(struct engine *, struct slice key, uint64_t position);
int sqlite_receipt_drop(struct engine *, struct slice key, uint64_t position);

/* sqlite_follow.c. Brings the tables up to date for one session, within the open transaction. */
int sqlite_settle(struct engine *, struct fresh_session *);
/* Is so much fresh that changes have to be written through? */
bool sqlite_follow_is_late(const struct engine *);
/* Whether a step is due. `all`: let the tables follow all that is fresh, not only when there is much. */
bool sqlite_follow_is_due(const struct engine *, bool all);
int sqlite_follow_step(struct engine *, bool *ret_more);
/* All that can follow does; at the end. */
void sqlite_follow_all(struct engine *);
/* Reads what the log has and the tables do not have. Rows that cannot be read count as missing. */
int sqlite_fresh_load(struct engine *);

/* Whether a precondition, if there is one, holds. */
static inline bool sqlite_fits(struct number wanted, uint64_t present)
{
    return !wanted.present || wanted.value == present;
}

/* sqlite_read.c. Where a session stands; *ret_fresh is what the tables lack of it, NULL: nothing. Return: 0,
 * ROLLED_BACK where that cannot be told, or as sqlite_judge. */
int sqlite_session_find(struct engine *, struct slice name, struct session *ret, struct fresh_session **ret_fresh);
/* The table of items has a row for which the log has no text. Resets the statement. Return: ROLLED_BACK. */
int sqlite_item_is_gone(sqlite3_stmt *row);
int sqlite_get_items(struct engine *, const struct selection *, item_fn, void *, struct selection_result *);
int sqlite_list_sessions(struct engine *, const struct session_range *, session_fn, void *, bool *);

/* sqlite_items.c */
int sqlite_add_items(struct engine *, const struct change *, const struct slice *, size_t, struct change_result *);
int sqlite_pop_item(struct engine *, const struct change *, item_fn, void *, struct change_result *);
int sqlite_clear_session(struct engine *, const struct change *, struct change_result *);
int sqlite_replace_items(struct engine *, const struct change *, struct number, const struct slice *, size_t,
                         struct change_result *);
int sqlite_delete_session(struct engine *, const struct change *, struct change_result *);
int sqlite_recover(struct engine *, uint64_t *ret_missing);

/* sqlite_upkeep.c */
int sqlite_tend(struct engine *, bool *ret_more);
int sqlite_clock_put(struct engine *);
int sqlite_checkpoint(struct engine *);
int sqlite_backup_step(struct engine *, const char *path, bool *ret_more);
void sqlite_backup_end(struct engine *);

#endif
