#include "store/sqlite_schema.h"

#include <errno.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/sqlite.h"

/*
 * To change the schema: append a migration, raise SCHEMA_VERSION, add a store of the last release to
 * tests/contract/stores. Never edit an entry that was released.
 *
 * log.operation is enum operation in sqlite.h. The first row of a change carries span (its number of rows), removed,
 * key and fingerprint; the row that begins a session carries its name, and its position is the session's number.
 *   - item: seq; body is the text, NULL once it is removed
 *   - pop: seq of the item taken; body is its text while the receipt holds it
 *   - replace: seq from which items went; its new items are the rows that follow
 *   - clear, delete, nothing: seq 0
 * When its receipt has expired, a row without a text is of no use any more, and goes (sqlite_upkeep.c), unless its
 * session exists and it names it, or is its last one and tells where its numbers stand. The log's last row stays, for
 * positions go on from it, and so do the rows by which losses were accepted.
 *
 * The body comes last, with meta, what stands beside it: what else a row says is read without them, though the page
 * that they go on may be damaged.
 *
 * item, session and receipt are made from the log and may lag behind it (sqlite_follow.c): they have all up to
 * followed.position, but for the rows in left_behind: positions in the log, negative where it is the row's receipt
 * alone that its table lacks. item has the log's rows that have a body, by session; what a session's row says includes
 * all its items up to its own position.
 */
static const char *const migrations[] = {
    "CREATE TABLE log ("
    "  position INTEGER PRIMARY KEY,"
    "  time_us INTEGER NOT NULL,"
    "  operation INTEGER NOT NULL,"
    "  session INTEGER NOT NULL,"
    "  seq INTEGER NOT NULL,"
    "  revision INTEGER NOT NULL,"
    "  epoch INTEGER NOT NULL,"
    "  span INTEGER,"
    "  removed INTEGER,"
    "  chain INTEGER NOT NULL," /* running hash of all rows up to this one, see sqlite_head.c */
    "  key BLOB,"
    "  fingerprint BLOB,"
    "  name BLOB,"
    "  body BLOB"
    ");"
    "CREATE INDEX live ON log (session, operation, seq) WHERE body IS NOT NULL;"
    "CREATE TABLE session ("
    "  name BLOB PRIMARY KEY,"
    "  number INTEGER NOT NULL,"
    "  count INTEGER NOT NULL,"
    "  bytes INTEGER NOT NULL,"
    "  head_seq INTEGER NOT NULL,"
    "  revision INTEGER NOT NULL,"
    "  epoch INTEGER NOT NULL,"
    "  created_us INTEGER NOT NULL,"
    "  updated_us INTEGER NOT NULL"
    ") WITHOUT ROWID;"
    "CREATE UNIQUE INDEX session_number ON session (number);"
    "CREATE TABLE receipt ("
    "  key BLOB PRIMARY KEY,"
    "  position INTEGER NOT NULL"
    ") WITHOUT ROWID;"
    "CREATE TABLE clock ("
    "  uptime_s INTEGER PRIMARY KEY,"
    "  position INTEGER NOT NULL," /* the log's last one at that uptime */
    "  receipts INTEGER NOT NULL"  /* ever written up to there */
    ");"
    "CREATE TABLE swept ("
    "  position INTEGER NOT NULL," /* receipts up to here are gone */
    "  receipts INTEGER NOT NULL"  /* and were so many */
    ");"
    "INSERT INTO swept VALUES (0, 0);",

    "ALTER TABLE log ADD COLUMN meta BLOB;", /* NULL: nothing */

    "CREATE TABLE item ("
    "  session INTEGER NOT NULL,"
    "  operation INTEGER NOT NULL,"
    "  seq INTEGER NOT NULL,"
    "  position INTEGER NOT NULL,"
    "  PRIMARY KEY (session, operation, seq)"
    ") WITHOUT ROWID;"
    "INSERT INTO item SELECT session, operation, seq, position FROM log INDEXED BY live WHERE body IS NOT NULL"
    "  ORDER BY session, operation, seq;"
    "DROP INDEX live;"
    "ALTER TABLE session ADD COLUMN position INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE followed (position INTEGER NOT NULL);"
    "INSERT INTO followed SELECT ifnull(max(position), 0) FROM log;"
    "CREATE TABLE left_behind (position INTEGER PRIMARY KEY);",
};

_Static_assert(N_ELEMENTS(migrations) == SCHEMA_VERSION, "each migration counts");

static int read_number(sqlite3 *db, const char *sql, int *ret)
{
    sqlite3_stmt *statement;
    int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (rc == SQLITE_OK && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        *ret = sqlite3_column_int(statement, 0);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    return rc;
}

static int read_identity(sqlite3 *db, int *ret_application, int *ret_version, int *ret_tables)
{
    int rc = read_number(db, "PRAGMA application_id", ret_application);

    if (rc == SQLITE_OK)
        rc = read_number(db, "PRAGMA user_version", ret_version);
    if (rc == SQLITE_OK)
        rc = read_number(db, "SELECT count(*) FROM sqlite_schema", ret_tables);
    return rc;
}

const char *schema_check(sqlite3 *db, int *ret_version)
{
    int application = 0, tables = 0;

    *ret_version = 0;
    if (read_identity(db, &application, ret_version, &tables) != SQLITE_OK)
        return "it cannot be read as a database";
    if (application != SCHEMA_APPLICATION_ID || *ret_version < 1)
        return "it is no store of sessiond";
    if (*ret_version > SCHEMA_VERSION)
        return "its schema is of a newer version than this sessiond";
    return NULL;
}

static int migrate_one(sqlite3 *db, int version)
{
    char identity[96];
    int rc;

    snprintf(identity, sizeof(identity), "PRAGMA application_id = %d; PRAGMA user_version = %d", SCHEMA_APPLICATION_ID,
             version);
    rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, migrations[version - 1], NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, identity, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    if (rc != SQLITE_OK && !sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

int schema_migrate(sqlite3 *db, const char *path)
{
    int application = 0, version = 0, tables = 0, rc;
    bool is_empty;

    rc = read_identity(db, &application, &version, &tables);
    if (rc != SQLITE_OK)
        return sqlite_judge(db, rc, "read the schema's version");
    is_empty = application == 0 && version == 0 && tables == 0; /* ours to fill */
    if (!is_empty && (application != SCHEMA_APPLICATION_ID || version < 1)) {
        log_error("store_refused why=\"it is no store of sessiond\" application_id=%d schema=%d path=\"%s\"",
                  application, version, path);
        return SESSIOND_UNAVAILABLE;
    }
    if (version > SCHEMA_VERSION) {
        log_error("store_refused why=\"its schema is newer than this sessiond\" schema=%d known=%d path=\"%s\"",
                  version, SCHEMA_VERSION, path);
        return SESSIOND_UNAVAILABLE;
    }

    while (version < SCHEMA_VERSION) {
        rc = migrate_one(db, ++version);
        if (rc != SQLITE_OK)
            return sqlite_judge(db, rc, "migrate the schema");
        if (!is_empty)
            log_info("store_migrated schema=%d path=\"%s\"", version, path);
    }
    return 0;
}
