/* Changing sessions. Every change goes through change_begin and change_end; between them it appends to the log. What is
 * made from the log is brought up to date in the same transaction, but for items that are added, which can wait: their
 * tables follow (sqlite_follow.c). */
#include "store/sqlite.h"

#include <errno.h>

#include "base/error.h"
#include "base/mem.h"

enum {
    WAITING_ITEMS_MAX = 256, /* more in one change are written through: they share pages anyway */
};

static const struct slice no_text = {0};

/* ---- the log ---- */

/* A change on its way into the log. */
struct writing {
    struct engine *engine;
    const struct change *change;
    struct session session;
    struct fresh_session *fresh; /* its items wait here; NULL: all is written through */
    uint64_t span;               /* rows it will have */
    uint64_t removed;            /* items it removes */
    bool first;                  /* its first row is still to come */
};

/* Appends a row. The first one of a change carries what belongs to the whole of it. */
static int log_append(struct writing *w, enum operation operation, uint64_t seq, struct slice body, struct slice meta)
{
    sqlite3_stmt *insert = sqlite_use(w->engine, SQL_LOG_INSERT);
    struct counters *now = &w->engine->now;
    const uint64_t numbers[] = {++now->position,     w->change->now_us, operation, w->session.number, seq,
                                w->session.revision, w->session.epoch,  w->span,   w->removed};
    const struct slice print = {(const char *)w->change->fingerprint, FINGERPRINT_SIZE};
    bool keyed = w->first && w->change->key.data;

    now->chain = sqlite_chain(now->chain, numbers, N_ELEMENTS(numbers), body, meta);
    for (int i = 0; i < (int)N_ELEMENTS(numbers); i++)
        sqlite_bind_number(insert, i + 1, numbers[i]);
    if (!w->first) {
        sqlite3_bind_null(insert, 8);
        sqlite3_bind_null(insert, 9);
    }
    sqlite3_bind_int64(insert, 10, (sqlite3_int64)now->chain);
    sqlite_bind_slice(insert, 11, keyed ? w->change->key : no_text);
    sqlite_bind_slice(insert, 12, keyed ? print : no_text);
    sqlite_bind_slice(insert, 13, now->position == w->session.number ? w->change->session : no_text);
    sqlite_bind_slice(insert, 14, body);
    sqlite_bind_slice(insert, 15, meta);
    w->first = false;
    return sqlite_run(w->engine, insert);
}

/* Appends a row with a text, and makes it known where it is. */
static int log_append_text(struct writing *w, enum operation operation, uint64_t seq, struct slice body,
                           struct slice meta)
{
    int r = log_append(w, operation, seq, body, meta);

    if (r)
        return r;
    if (!w->fresh)
        return sqlite_item_put(w->engine, w->session.number, operation, seq, w->engine->now.position);
    fresh_add_item(&w->engine->fresh, w->fresh, seq, w->engine->now.position);
    return 0;
}

/* ---- receipts ---- */

struct receipt {
    uint64_t position, session, seq, revision, epoch, span, removed;
    enum operation operation;
    bool same;   /* the fingerprints are equal */
    bool erased; /* a pop whose item is gone */
};

/* Reads the row that a receipt points at. A pop's item, if it is wanted and not erased, goes to the callback. */
static int receipt_read(struct engine *engine, const struct change *change, struct receipt *receipt, item_fn item,
                        void *arg)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_LOG_GET);
    struct slice body;
    bool row;
    int r;

    sqlite_bind_number(get, 1, receipt->position);
    r = sqlite_step(engine, get, &row);
    if (r)
        return r;
    if (!row)
        return fault(EBADMSG, "a receipt without its change");

    receipt->operation = (enum operation)sqlite3_column_int(get, 0);
    receipt->session = sqlite_column_number(get, 1);
    receipt->seq = sqlite_column_number(get, 2);
    receipt->revision = sqlite_column_number(get, 3);
    receipt->epoch = sqlite_column_number(get, 4);
    receipt->span = sqlite_column_number(get, 5);
    receipt->removed = sqlite_column_number(get, 6);
    receipt->same =
        slice_equal(sqlite_column_slice(get, 7), (struct slice){(const char *)change->fingerprint, FINGERPRINT_SIZE});
    body = sqlite_column_slice(get, 8);
    if (receipt->same && receipt->operation == OPERATION_POP) {
        receipt->erased = !body.data;
        if (body.data && item)
            r = item(arg, receipt->seq, body, sqlite_column_slice(get, 9));
    }
    sqlite3_reset(get);
    return r;
}

/* What the first answer said, from the row it left. */
static int receipt_answer(struct engine *engine, const struct receipt *receipt, struct change_result *ret)
{
    struct receipt next = {.position = receipt->position + 1};
    struct change none = {0};
    int r;

    ret->repeated = true;
    ret->erased = receipt->erased;
    ret->revision = receipt->revision;
    ret->epoch = receipt->epoch;
    ret->removed = receipt->removed;
    switch (receipt->operation) {
    case OPERATION_ITEM:
        ret->first_seq = receipt->seq;
        ret->last_seq = receipt->seq + receipt->span - 1;
        break;
    case OPERATION_POP:
        ret->first_seq = ret->last_seq = receipt->seq;
        break;
    case OPERATION_REPLACE:
        if (receipt->span == 1)
            break;
        if ((r = receipt_read(engine, &none, &next, NULL, NULL)))
            return r;
        ret->first_seq = next.seq;
        ret->last_seq = next.seq + receipt->span - 2;
        break;
    case OPERATION_CLEAR:
    case OPERATION_DELETE:
    case OPERATION_NOTHING:
    case OPERATION_RECOVER:
        break;
    }
    return 0;
}

/* Return: as receipt_find, for the receipt at a position; 0: none. One whose session has been deleted since is none. */
static int receipt_try(struct engine *engine, const struct change *change, uint64_t position, item_fn item, void *arg,
                       struct change_result *ret)
{
    struct receipt receipt = {.position = position};
    bool alive = true;
    int r;

    if (position <= engine->swept.position) /* none, or expired: one that its table cannot forget */
        return 0;
    if ((r = receipt_read(engine, change, &receipt, item, arg)))
        return r;
    if (receipt.operation != OPERATION_DELETE && receipt.session != 0 &&
        (r = sqlite_session_exists(engine, receipt.session, &alive)))
        return r;
    if (!alive)
        return 0;
    return receipt.same ? receipt_answer(engine, &receipt, ret) : SESSIOND_KEY_REUSED;
}

/* Looks the key up. Return: 0 (ret->repeated: this was done before, and here is its answer; else: go on), KEY_REUSED,
 * or a fault. */
static int receipt_find(struct engine *engine, const struct change *change, item_fn item, void *arg,
                        struct change_result *ret)
{
    const struct fresh_receipt *fresh;
    uint64_t position;
    int r;

    if (!change->key.data)
        return 0;
    fresh = fresh_find_receipt(&engine->fresh, change->key);
    if (fresh && ((r = receipt_try(engine, change, fresh->position, item, arg, ret)) || ret->repeated))
        return r;
    if ((r = sqlite_receipt_get(engine, change->key, &position)))
        return r;
    return receipt_try(engine, change, position, item, arg, ret);
}

static int receipt_put(struct writing *w, uint64_t position)
{
    if (!w->change->key.data)
        return 0;
    w->engine->now.receipts++;
    if (!sqlite_follow_is_late(w->engine) && fresh_add_receipt(&w->engine->fresh, w->change->key, position))
        return 0;
    return sqlite_receipt_put(w->engine, w->change->key, position);
}

/* ---- what all changes share ---- */

/* Key first, then the session, then the preconditions. If ret->repeated is set afterwards, there is nothing to do. */
static int change_begin(struct writing *w, struct engine *engine, const struct change *change, item_fn item, void *arg,
                        struct change_result *ret)
{
    int r;

    *w = (struct writing){.engine = engine, .change = change, .span = 1, .first = true};
    *ret = (struct change_result){0};
    if (engine->missing)
        return SESSIOND_ROLLED_BACK;
    if ((r = receipt_find(engine, change, item, arg, ret)) || ret->repeated)
        return r;
    if ((r = sqlite_session_find(engine, change->session, &w->session, &w->fresh)))
        return r;
    ret->revision = w->session.revision;
    ret->epoch = w->session.epoch;
    if (w->fresh && w->fresh->is_stuck)
        return SESSIOND_ROLLED_BACK;
    if (!sqlite_fits(change->if_revision, w->session.revision) || !sqlite_fits(change->if_epoch, w->session.epoch))
        return SESSIOND_CONFLICT;
    return 0;
}

/* From here on the tables have all of the session, and its changes go there. */
static int change_settles(struct writing *w)
{
    struct fresh_session *fresh = TAKE(w->fresh);

    return fresh ? sqlite_settle(w->engine, fresh) : 0;
}

/* The same where all items are removed: those that are fresh never come into the table, which on a full disk could not
 * take them. */
static int change_empties(struct writing *w)
{
    struct fresh_session *fresh = TAKE(w->fresh);
    sqlite3_stmt *erase = sqlite_use(w->engine, SQL_ITEM_ERASE);
    int r = 0;

    if (!fresh)
        return 0;
    fresh_touch(&w->engine->fresh, fresh);
    for (size_t i = 0; r == 0 && i < fresh->n; i++) {
        sqlite_bind_number(erase, 1, fresh->items[i].position);
        r = sqlite_run(w->engine, erase);
    }
    fresh->settled = true;
    return r;
}

/* Whether the owner may have what a change adds. Return: 0, or SESSIOND_FULL before anything has been changed. */
static int change_fits(const struct writing *w, bool begins_session, struct change_result *ret)
{
    if (w->change->no_bytes)
        ret->over = OVER_BYTES;
    else if (begins_session && w->change->no_sessions)
        ret->over = OVER_SESSIONS;
    return ret->over ? SESSIOND_FULL : 0;
}

/* Whether so many bytes of items in place of what the session has are a removal: what an owner who may have no more can
 * do about it. */
static bool change_removes(const struct writing *w, bool of_all, const struct slice *items, size_t n)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += items[i].size + (w->change->meta ? w->change->meta[i].size : 0);
    return w->session.count > 0 && (n == 0 || (of_all && bytes <= w->session.bytes));
}

/* The items that are added may wait if they are few, and not too much waits already. */
static int change_waits(struct writing *w, size_t n)
{
    struct engine *engine = w->engine;
    struct fresh_session *fresh = NULL;

    if (n <= WAITING_ITEMS_MAX && !sqlite_follow_is_late(engine))
        fresh = fresh_begin(&engine->fresh, w->fresh, w->change->session, &w->session, n);
    if (!fresh)
        return change_settles(w);
    w->fresh = fresh;
    return 0;
}

/* From here on the session exists, and this change counts. A session begins with the position of its first row for its
 * number and its first epoch: larger than any that an earlier session of this name can have reached. */
static void change_counts(struct writing *w)
{
    if (!w->session.exists) {
        w->session.number = w->engine->now.position + 1;
        w->session.epoch = w->session.number;
        w->session.created_us = w->change->now_us;
    } else if (w->removed) {
        w->session.epoch++;
    }
    w->session.revision++;
    w->session.updated_us = w->change->now_us;
}

/* The table has each session that exists; where one stands may wait along with its items. */
static int change_saves(struct writing *w)
{
    bool is_new = !w->session.exists;
    int r = 0;

    if (!w->fresh || is_new)
        r = sqlite_session_save(w->engine, w->change->session, &w->session);
    w->session.exists = true;
    if (w->fresh)
        w->fresh->session = w->session;
    return r;
}

/* Saves what the change made of the session, and its receipt. `position` is that of its first row. */
static int change_end(struct writing *w, uint64_t position, struct change_result *ret)
{
    int r;

    if ((r = change_saves(w)))
        return r;
    ret->revision = w->session.revision;
    ret->epoch = w->session.epoch;
    ret->removed = w->removed;
    return receipt_put(w, position);
}

/* A success that changed nothing leaves a row only to hold its receipt. */
static int change_nothing(struct writing *w, struct change_result *ret)
{
    int r;

    if (!w->change->key.data)
        return 0;
    if ((r = change_fits(w, false, ret)) || (r = log_append(w, OPERATION_NOTHING, 0, no_text, no_text)))
        return r;
    return receipt_put(w, w->engine->now.position);
}

static int append_items(struct writing *w, const struct slice *items, size_t n, struct change_result *ret)
{
    struct slice meta;
    int r;

    for (size_t i = 0; i < n; i++) {
        meta = w->change->meta ? w->change->meta[i] : no_text;
        if ((r = log_append_text(w, OPERATION_ITEM, ++w->session.head_seq, items[i], meta)))
            return r;
        w->session.count++;
        w->session.bytes += items[i].size + meta.size;
    }
    if (n) {
        ret->first_seq = w->session.head_seq - n + 1;
        ret->last_seq = w->session.head_seq;
    }
    return 0;
}

/* A row without its text is kept for its receipt alone. Those that the sweep has passed would stay for ever. */
static int erase(struct writing *w, enum operation operation, uint64_t from_seq)
{
    /* the old rows, the others' texts, then where they were */
    static const enum statement each[] = {SQL_ITEMS_FORGET, SQL_ITEMS_ERASE, SQL_ITEMS_DROP};
    int r = 0;

    w->engine->now.erasures++;
    for (size_t i = 0; r == 0 && i < N_ELEMENTS(each); i++) {
        sqlite3_stmt *all = sqlite_use(w->engine, each[i]);

        sqlite_bind_number(all, 1, w->session.number);
        sqlite_bind_number(all, 2, operation);
        sqlite_bind_number(all, 3, from_seq);
        if (each[i] == SQL_ITEMS_FORGET)
            sqlite_bind_number(all, 4, w->engine->swept.position);
        r = sqlite_run(w->engine, all);
    }
    return r;
}

/* Counts the items from a seq on, which are about to be removed. */
static int count_tail(struct writing *w, uint64_t from_seq, uint64_t *ret_count, uint64_t *ret_bytes)
{
    sqlite3_stmt *sum = sqlite_use(w->engine, SQL_ITEMS_SUM);
    bool row;
    int r;

    if (from_seq <= 1) {
        *ret_count = w->session.count;
        *ret_bytes = w->session.bytes;
        return 0;
    }
    sqlite_bind_number(sum, 1, w->session.number);
    sqlite_bind_number(sum, 2, from_seq);
    r = sqlite_step(w->engine, sum, &row);
    if (r == 0 && row) {
        *ret_count = sqlite_column_number(sum, 0);
        *ret_bytes = (uint64_t)sqlite3_column_double(sum, 1);
    }
    sqlite3_reset(sum);
    return r;
}

/* Takes the items from a seq on out of the session and erases their texts. */
static int remove_tail(struct writing *w, uint64_t from_seq)
{
    uint64_t bytes = 0;
    int r;

    if (!w->session.exists)
        return 0;
    if ((r = count_tail(w, from_seq, &w->removed, &bytes)) || w->removed == 0)
        return r;
    w->session.count -= w->removed;
    w->session.bytes -= bytes;
    return erase(w, OPERATION_ITEM, from_seq);
}

/* ---- the changes ---- */

int sqlite_add_items(struct engine *engine, const struct change *change, const struct slice *items, size_t n,
                     struct change_result *ret)
{
    struct writing w;
    uint64_t position;
    int r;

    if ((r = change_begin(&w, engine, change, NULL, NULL, ret)) || ret->repeated)
        return r;
    if (n == 0)
        return change_nothing(&w, ret);

    w.span = n;
    if ((r = change_fits(&w, !w.session.exists, ret)) || (r = change_waits(&w, n)))
        return r;
    change_counts(&w);
    position = engine->now.position + 1;
    if ((r = append_items(&w, items, n, ret)))
        return r;
    return change_end(&w, position, ret);
}

/* The text of one item; as erase does for many. */
static int erase_one(struct writing *w, uint64_t position)
{
    bool is_swept = position <= w->engine->swept.position && position != w->session.number;
    sqlite3_stmt *statement = sqlite_use(w->engine, is_swept ? SQL_SWEEP_DROP : SQL_ITEM_ERASE);

    w->engine->now.erasures++;
    sqlite_bind_number(statement, 1, position);
    return sqlite_run(w->engine, statement);
}

int sqlite_pop_item(struct engine *engine, const struct change *change, item_fn item, void *arg,
                    struct change_result *ret)
{
    sqlite3_stmt *last = sqlite_use(engine, SQL_ITEM_LAST);
    struct slice body, meta;
    struct writing w;
    uint64_t position;
    bool row = false;
    int r;

    if ((r = change_begin(&w, engine, change, item, arg, ret)) || ret->repeated)
        return r;
    if (w.session.count == 0)
        return change_nothing(&w, ret);
    if ((r = change_settles(&w)))
        return r;

    sqlite_bind_number(last, 1, w.session.number);
    if ((r = sqlite_step(engine, last, &row)))
        return r;
    if (!row)
        return fault(EBADMSG, "a session that counts more items than it has");
    body = sqlite_column_slice(last, 2);
    meta = sqlite_column_slice(last, 3);
    if (!body.data)
        return sqlite_item_is_gone(last);
    position = sqlite_column_number(last, 0);
    ret->first_seq = ret->last_seq = sqlite_column_number(last, 1);
    w.removed = 1;
    w.session.count--;
    w.session.bytes -= body.size + meta.size;
    change_counts(&w);
    /* The receipt has to be able to say what was taken; without a key nobody can ask. */
    r = item(arg, ret->first_seq, body, meta);
    if (r == 0 && change->key.data)
        r = log_append_text(&w, OPERATION_POP, ret->first_seq, body, meta);
    else if (r == 0)
        r = log_append(&w, OPERATION_POP, ret->first_seq, no_text, no_text);
    sqlite3_reset(last);
    if (r || (r = erase_one(&w, position)) ||
        (r = sqlite_item_drop(engine, w.session.number, OPERATION_ITEM, ret->first_seq)))
        return r;
    return change_end(&w, engine->now.position, ret);
}

int sqlite_clear_session(struct engine *engine, const struct change *change, struct change_result *ret)
{
    struct writing w;
    int r;

    if ((r = change_begin(&w, engine, change, NULL, NULL, ret)) || ret->repeated)
        return r;
    if (!w.session.exists)
        return change_nothing(&w, ret);
    if (w.session.count == 0 && (r = change_fits(&w, false, ret)))
        return r;
    if ((r = change_empties(&w)) || (r = remove_tail(&w, 0)) || (r = erase(&w, OPERATION_POP, 0)))
        return r;
    change_counts(&w);
    if ((r = log_append(&w, OPERATION_CLEAR, 0, no_text, no_text)))
        return r;
    return change_end(&w, engine->now.position, ret);
}

int sqlite_replace_items(struct engine *engine, const struct change *change, struct number from_seq,
                         const struct slice *items, size_t n, struct change_result *ret)
{
    struct writing w;
    uint64_t position;
    int r;

    if ((r = change_begin(&w, engine, change, NULL, NULL, ret)) || ret->repeated)
        return r;
    if (!w.session.exists && n == 0)
        return change_nothing(&w, ret);
    if (!change_removes(&w, from_seq.value <= 1, items, n) && (r = change_fits(&w, !w.session.exists, ret)))
        return r;
    if ((r = change_settles(&w)) || (r = remove_tail(&w, from_seq.value)))
        return r;
    if (n == 0 && w.removed == 0 && (r = change_fits(&w, false, ret)))
        return r;

    w.span = n + 1;
    change_counts(&w);
    position = engine->now.position + 1;
    if ((r = log_append(&w, OPERATION_REPLACE, from_seq.value, no_text, no_text)) ||
        (r = append_items(&w, items, n, ret)))
        return r;
    return change_end(&w, position, ret);
}

int sqlite_delete_session(struct engine *engine, const struct change *change, struct change_result *ret)
{
    struct writing w;
    int r;

    if ((r = change_begin(&w, engine, change, NULL, NULL, ret)) || ret->repeated)
        return r;
    if (!w.session.exists)
        return change_nothing(&w, ret);
    if ((r = change_empties(&w)) || (r = remove_tail(&w, 0)) || (r = erase(&w, OPERATION_POP, 0)))
        return r;
    change_counts(&w);
    ret->removed = w.removed;
    if ((r = log_append(&w, OPERATION_DELETE, 0, no_text, no_text)) ||
        (r = sqlite_session_drop(engine, change->session)))
        return r;
    return receipt_put(&w, engine->now.position);
}

/* ---- accepting a loss ---- */

/* Positions go on behind those that are missing, and all epochs rise to the new one, above any that was ever told:
 * whoever kept what he had read starts over. (An epoch is never larger than the log's last position, or a session that
 * begins anew would not be above its earlier ones.) */
static void raise_fresh_list(struct fresh *fresh, struct list *sessions, uint64_t epoch)
{
    LIST_FOR_EACH(link, sessions)
    {
        struct fresh_session *session = CONTAINER_OF(link, struct fresh_session, link);

        fresh_touch(fresh, session);
        session->session.epoch = epoch;
        session->session.revision++;
    }
}

/* `position` is that of the row that says so, and the new epoch. Whatever of this cannot follow is left behind with it.
 */
static int raise_fresh(struct fresh *fresh, uint64_t position)
{
    raise_fresh_list(fresh, &fresh->sessions, position);
    raise_fresh_list(fresh, &fresh->following, position);
    raise_fresh_list(fresh, &fresh->stuck, position);
    if (list_is_empty(&fresh->touched))
        return 0;
    return fresh_leave(fresh, (int64_t)position, 0) ? 0 : fault(ENOMEM, "accept a loss");
}

/* The last position that anybody, log, head or tables, knows of. */
static uint64_t beyond_all(const struct engine *engine)
{
    uint64_t beyond = engine->now.position;

    if (beyond < engine->head.position)
        beyond = engine->head.position;
    return beyond < engine->fresh.followed ? engine->fresh.followed : beyond;
}

int sqlite_recover(struct engine *engine, uint64_t *ret_missing)
{
    sqlite3_stmt *raise = sqlite_use(engine, SQL_SESSIONS_RAISE_EPOCH);
    uint64_t beyond = beyond_all(engine);
    struct change change = {0};
    struct writing w = {.engine = engine, .change = &change, .span = 1, .first = true};
    int r;

    *ret_missing = engine->missing;
    if (!engine->missing)
        return 0;
    engine->recovering = true;
    engine->now.position = beyond;
    sqlite_bind_number(raise, 1, beyond + 1);
    if ((r = sqlite_run(engine, raise)) || (r = raise_fresh(&engine->fresh, beyond + 1)))
        return r;
    return log_append(&w, OPERATION_RECOVER, 0, no_text, no_text);
}
