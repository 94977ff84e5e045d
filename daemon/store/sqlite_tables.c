/* The rows of the tables that are made from the log: sessions, their items, receipts. Each function runs one statement,
 * in the open transaction. */
#include "store/sqlite.h"

#include <string.h>

#include "base/mem.h"

/* ---- session ---- */

void sqlite_session_read(sqlite3_stmt *row, struct session *ret)
{
    *ret = (struct session){
        .exists = true,
        .number = sqlite_column_number(row, 0),
        .count = sqlite_column_number(row, 1),
        .bytes = sqlite_column_number(row, 2),
        .head_seq = sqlite_column_number(row, 3),
        .revision = sqlite_column_number(row, 4),
        .epoch = sqlite_column_number(row, 5),
        .created_us = sqlite_column_number(row, 6),
        .updated_us = sqlite_column_number(row, 7),
    };
}

int sqlite_session_load(struct engine *engine, struct slice name, struct session *ret)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_SESSION_GET);
    bool row;
    int r;

    *ret = (struct session){0};
    sqlite_bind_slice(get, 1, name);
    r = sqlite_step(engine, get, &row);
    if (r == 0 && row)
        sqlite_session_read(get, ret);
    sqlite3_reset(get);
    return r;
}

/* It includes all its items up to the log's last row. */
int sqlite_session_save(struct engine *engine, struct slice name, const struct session *session)
{
    sqlite3_stmt *save = sqlite_use(engine, session->exists ? SQL_SESSION_UPDATE : SQL_SESSION_INSERT);
    const uint64_t numbers[] = {session->number,     session->count,      session->bytes,
                                session->head_seq,   session->revision,   session->epoch,
                                session->created_us, session->updated_us, engine->now.position};

    sqlite_bind_slice(save, 1, name);
    for (int i = 0; i < (int)N_ELEMENTS(numbers); i++)
        sqlite_bind_number(save, i + 2, numbers[i]);
    engine->now.sessions += !session->exists;
    return sqlite_run(engine, save);
}

int sqlite_session_drop(struct engine *engine, struct slice name)
{
    sqlite3_stmt *drop = sqlite_use(engine, SQL_SESSION_DELETE);

    sqlite_bind_slice(drop, 1, name);
    engine->now.sessions -= engine->now.sessions > 0; /* a head may be forged */
    return sqlite_run(engine, drop);
}

int sqlite_session_exists(struct engine *engine, uint64_t number, bool *ret)
{
    sqlite3_stmt *exists = sqlite_use(engine, SQL_SESSION_EXISTS);
    int r;

    sqlite_bind_number(exists, 1, number);
    r = sqlite_step(engine, exists, ret);
    sqlite3_reset(exists);
    return r;
}

/* ---- item ---- */

int sqlite_item_put(struct engine *engine, uint64_t session, enum operation operation, uint64_t seq, uint64_t position)
{
    sqlite3_stmt *put = sqlite_use(engine, SQL_ITEM_PUT);

    sqlite_bind_number(put, 1, session);
    sqlite_bind_number(put, 2, operation);
    sqlite_bind_number(put, 3, seq);
    sqlite_bind_number(put, 4, position);
    return sqlite_run(engine, put);
}

int sqlite_item_drop(struct engine *engine, uint64_t session, enum operation operation, uint64_t seq)
{
    sqlite3_stmt *drop = sqlite_use(engine, SQL_ITEM_DROP);

    sqlite_bind_number(drop, 1, session);
    sqlite_bind_number(drop, 2, operation);
    sqlite_bind_number(drop, 3, seq);
    return sqlite_run(engine, drop);
}

/* ---- receipt: keys that begin with the time, as our clients make them, are nearly always greater than those before,
 * and then the table, which may have millions, has not to be asked ---- */

static int compare_keys(struct slice a, struct slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;

    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static bool is_beyond_receipts(const struct engine *engine, struct slice key)
{
    const struct key_bound *end = &engine->receipts_end;

    return end->is_known && compare_keys(key, (struct slice){end->key, end->size}) > 0;
}

/* A bound that is too high does no harm: after a rollback, or when the last receipt has expired. */
static void raise_receipts_end(struct engine *engine, struct slice key)
{
    struct key_bound *end = &engine->receipts_end;

    if (key.size > sizeof(end->key)) /* a forged row's */
        end->is_known = false;
    if (!is_beyond_receipts(engine, key))
        return;
    memcpy(end->key, key.data, key.size);
    end->size = key.size;
}

/* Where the page of the last one is damaged, each key is looked for. */
int sqlite_receipts_open(struct engine *engine)
{
    sqlite3_stmt *last = sqlite_use(engine, SQL_RECEIPT_LAST);
    bool row;
    int r = sqlite_step(engine, last, &row);

    engine->receipts_end = (struct key_bound){.is_known = r == 0};
    if (r == 0 && row)
        raise_receipts_end(engine, sqlite_column_slice(last, 0));
    sqlite3_reset(last);
    return r == SESSIOND_ROLLED_BACK ? 0 : r;
}

int sqlite_receipt_get(struct engine *engine, struct slice key, uint64_t *ret_position)
{
    sqlite3_stmt *get;
    bool row;
    int r;

    *ret_position = 0;
    if (is_beyond_receipts(engine, key))
        return 0;
    get = sqlite_use(engine, SQL_RECEIPT_GET);
    sqlite_bind_slice(get, 1, key);
    r = sqlite_step(engine, get, &row);
    if (r == 0 && row)
        *ret_position = sqlite_column_number(get, 0);
    sqlite3_reset(get);
    return r;
}

int sqlite_receipt_put(struct engine *engine, struct slice key, uint64_t position)
{
    sqlite3_stmt *put = sqlite_use(engine, SQL_RECEIPT_PUT);

    raise_receipts_end(engine, key);
    sqlite_bind_slice(put, 1, key);
    sqlite_bind_number(put, 2, position);
    return sqlite_run(engine, put);
}

int sqlite_receipt_drop(struct engine *engine, struct slice key, uint64_t position)
{
    sqlite3_stmt *drop = sqlite_use(engine, SQL_RECEIPT_DROP);

    sqlite_bind_slice(drop, 1, key);
    sqlite_bind_number(drop, 2, position);
    return sqlite_run(engine, drop);
}
