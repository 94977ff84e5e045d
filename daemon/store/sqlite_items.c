/* Reading and changing sessions. Every change goes through change_begin and change_end; between them it appends to the
 * log, and what is derived from the log is brought up to date in the same transaction. */
#include "store/sqlite.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

static const struct slice no_text = {0};

/* ---- sessions ---- */

struct session {
    bool exists;
    uint64_t number; /* the position of its first row in the log; never used twice */
    uint64_t count, bytes, head_seq, revision, epoch, created_us;
};

static uint64_t column_number(sqlite3_stmt *statement, int index)
{
    return (uint64_t)sqlite3_column_int64(statement, index);
}

static void bind_number(sqlite3_stmt *statement, int index, uint64_t value)
{
    sqlite3_bind_int64(statement, index, (sqlite3_int64)value);
}

static int session_load(struct engine *engine, struct slice name, struct session *ret)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_SESSION_GET);
    int r;

    *ret = (struct session){0};
    sqlite_bind_slice(get, 1, name);
    r = sqlite_step(engine, get, &ret->exists);
    if (r == 0 && ret->exists) {
        ret->number = column_number(get, 0);
        ret->count = column_number(get, 1);
        ret->bytes = column_number(get, 2);
        ret->head_seq = column_number(get, 3);
        ret->revision = column_number(get, 4);
        ret->epoch = column_number(get, 5);
        ret->created_us = column_number(get, 6);
    }
    sqlite3_reset(get);
    return r;
}

static int session_save(struct engine *engine, struct slice name, struct session *session, uint64_t now_us)
{
    sqlite3_stmt *save = sqlite_use(engine, session->exists ? SQL_SESSION_UPDATE : SQL_SESSION_INSERT);
    const uint64_t numbers[] = {session->number,   session->count,    session->bytes,
                                session->head_seq, session->revision, session->epoch};

    sqlite_bind_slice(save, 1, name);
    for (int i = session->exists; i < 6; i++)
        bind_number(save, i + 2, numbers[i]);
    if (!session->exists)
        bind_number(save, 8, now_us);
    bind_number(save, 9, now_us);
    session->exists = true;
    return sqlite_run(engine, save);
}

static int session_exists(struct engine *engine, uint64_t number, bool *ret)
{
    sqlite3_stmt *exists = sqlite_use(engine, SQL_SESSION_EXISTS);
    int r;

    bind_number(exists, 1, number);
    r = sqlite_step(engine, exists, ret);
    sqlite3_reset(exists);
    return r;
}

/* ---- the log ---- */

/* A change on its way into the log. */
struct writing {
    struct engine *engine;
    const struct change *change;
    struct session session;
    uint64_t span;    /* rows it will have */
    uint64_t removed; /* items it removes */
    bool first;       /* its first row is still to come */
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
        bind_number(insert, i + 1, numbers[i]);
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

/* ---- receipts ---- */

struct receipt {
    bool exists;
    uint64_t position, session, seq, revision, epoch, span, removed;
    enum operation operation;
    bool same;   /* the fingerprints are equal */
    bool erased; /* a pop whose item is gone */
};

static int receipt_position(struct engine *engine, struct slice key, struct receipt *receipt)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_RECEIPT_GET);
    int r;

    sqlite_bind_slice(get, 1, key);
    r = sqlite_step(engine, get, &receipt->exists);
    if (r == 0 && receipt->exists)
        receipt->position = column_number(get, 0);
    sqlite3_reset(get);
    return r;
}

/* Reads the row that a receipt points at. A pop's item, if it is wanted and not erased, goes to the callback. */
static int receipt_read(struct engine *engine, const struct change *change, struct receipt *receipt, item_fn item,
                        void *arg)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_LOG_GET);
    struct slice body;
    bool row;
    int r;

    bind_number(get, 1, receipt->position);
    r = sqlite_step(engine, get, &row);
    if (r)
        return r;
    if (!row)
        return fault(EBADMSG, "a receipt without its change");

    receipt->operation = (enum operation)sqlite3_column_int(get, 0);
    receipt->session = column_number(get, 1);
    receipt->seq = column_number(get, 2);
    receipt->revision = column_number(get, 3);
    receipt->epoch = column_number(get, 4);
    receipt->span = column_number(get, 5);
    receipt->removed = column_number(get, 6);
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

/* Looks the key up. Return: 0 (ret->repeated: this was done before, and here is its answer; else: go on), KEY_REUSED,
 * or a fault. A receipt whose session has been deleted since is none. */
static int receipt_find(struct engine *engine, const struct change *change, item_fn item, void *arg,
                        struct change_result *ret)
{
    struct receipt receipt = {0};
    bool alive = true;
    int r;

    if (!change->key.data)
        return 0;
    if ((r = receipt_position(engine, change->key, &receipt)) || !receipt.exists)
        return r;
    if ((r = receipt_read(engine, change, &receipt, item, arg)))
        return r;
    if (receipt.operation != OPERATION_DELETE && receipt.session != 0 &&
        (r = session_exists(engine, receipt.session, &alive)))
        return r;
    if (!alive)
        return 0;
    return receipt.same ? receipt_answer(engine, &receipt, ret) : SESSIOND_KEY_REUSED;
}

static int receipt_put(struct writing *w, uint64_t position)
{
    sqlite3_stmt *put = sqlite_use(w->engine, SQL_RECEIPT_PUT);

    if (!w->change->key.data)
        return 0;
    w->engine->now.receipts++;
    sqlite_bind_slice(put, 1, w->change->key);
    bind_number(put, 2, position);
    return sqlite_run(w->engine, put);
}

/* ---- what all changes share ---- */

static bool fits(struct number wanted, uint64_t present)
{
    return !wanted.present || wanted.value == present;
}

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
    if ((r = session_load(engine, change->session, &w->session)))
        return r;
    ret->revision = w->session.revision;
    ret->epoch = w->session.epoch;
    if (!fits(change->if_revision, w->session.revision) || !fits(change->if_epoch, w->session.epoch))
        return SESSIOND_CONFLICT;
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
}

/* Saves what the change made of the session, and its receipt. `position` is that of its first row. */
static int change_end(struct writing *w, uint64_t position, struct change_result *ret)
{
    int r;

    if ((r = session_save(w->engine, w->change->session, &w->session, w->change->now_us)))
        return r;
    ret->revision = w->session.revision;
    ret->epoch = w->session.epoch;
    ret->removed = w->removed;
    return receipt_put(w, position);
}

/* A success that changed nothing leaves a row only to hold its receipt. */
static int change_nothing(struct writing *w)
{
    int r;

    if (!w->change->key.data)
        return 0;
    if ((r = log_append(w, OPERATION_NOTHING, 0, no_text, no_text)))
        return r;
    return receipt_put(w, w->engine->now.position);
}

static int append_items(struct writing *w, const struct slice *items, size_t n, struct change_result *ret)
{
    struct slice meta;
    int r;

    for (size_t i = 0; i < n; i++) {
        meta = w->change->meta ? w->change->meta[i] : no_text;
        if ((r = log_append(w, OPERATION_ITEM, ++w->session.head_seq, items[i], meta)))
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

static int erase(struct writing *w, enum operation operation, uint64_t from_seq)
{
    sqlite3_stmt *all = sqlite_use(w->engine, SQL_ITEMS_ERASE);

    bind_number(all, 1, w->session.number);
    sqlite3_bind_int(all, 2, operation);
    bind_number(all, 3, from_seq);
    return sqlite_run(w->engine, all);
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
    bind_number(sum, 1, w->session.number);
    bind_number(sum, 2, from_seq);
    r = sqlite_step(w->engine, sum, &row);
    if (r == 0 && row) {
        *ret_count = column_number(sum, 0);
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
        return change_nothing(&w);

    w.span = n;
    change_counts(&w);
    position = engine->now.position + 1;
    if ((r = append_items(&w, items, n, ret)))
        return r;
    return change_end(&w, position, ret);
}

int sqlite_pop_item(struct engine *engine, const struct change *change, item_fn item, void *arg,
                    struct change_result *ret)
{
    sqlite3_stmt *last = sqlite_use(engine, SQL_ITEM_LAST), *erase_one = sqlite_use(engine, SQL_ITEM_ERASE);
    struct slice body, meta;
    struct writing w;
    bool row = false;
    int r;

    if ((r = change_begin(&w, engine, change, item, arg, ret)) || ret->repeated)
        return r;
    if (w.session.count == 0)
        return change_nothing(&w);

    bind_number(last, 1, w.session.number);
    if ((r = sqlite_step(engine, last, &row)))
        return r;
    if (!row)
        return fault(EBADMSG, "a session that counts more items than it has");
    body = sqlite_column_slice(last, 2);
    meta = sqlite_column_slice(last, 3);
    bind_number(erase_one, 1, column_number(last, 0));
    ret->first_seq = ret->last_seq = column_number(last, 1);
    w.removed = 1;
    w.session.count--;
    w.session.bytes -= body.size + meta.size;
    change_counts(&w);
    /* The receipt has to be able to say what was taken; without a key nobody can ask. */
    r = item(arg, ret->first_seq, body, meta);
    if (r == 0 && change->key.data)
        r = log_append(&w, OPERATION_POP, ret->first_seq, body, meta);
    else if (r == 0)
        r = log_append(&w, OPERATION_POP, ret->first_seq, no_text, no_text);
    sqlite3_reset(last);
    if (r || (r = sqlite_run(engine, erase_one)))
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
        return change_nothing(&w);
    if ((r = remove_tail(&w, 0)) || (r = erase(&w, OPERATION_POP, 0)))
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
        return change_nothing(&w);
    if ((r = remove_tail(&w, from_seq.value)))
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
    sqlite3_stmt *drop = sqlite_use(engine, SQL_SESSION_DELETE);
    struct writing w;
    int r;

    if ((r = change_begin(&w, engine, change, NULL, NULL, ret)) || ret->repeated)
        return r;
    if (!w.session.exists)
        return change_nothing(&w);
    if ((r = remove_tail(&w, 0)) || (r = erase(&w, OPERATION_POP, 0)))
        return r;
    change_counts(&w);
    ret->removed = w.removed;
    sqlite_bind_slice(drop, 1, change->session);
    if ((r = log_append(&w, OPERATION_DELETE, 0, no_text, no_text)) || (r = sqlite_run(engine, drop)))
        return r;
    return receipt_put(&w, engine->now.position);
}

/* ---- accepting a loss ---- */

/* Positions go on behind those that are missing, and all epochs rise to the new one, above any that was ever told:
 * whoever kept what he had read starts over. (An epoch is never larger than the log's last position, or a session that
 * begins anew would not be above its earlier ones.) */
int sqlite_recover(struct engine *engine, uint64_t *ret_missing)
{
    sqlite3_stmt *raise = sqlite_use(engine, SQL_SESSIONS_RAISE_EPOCH);
    uint64_t beyond = engine->now.position > engine->head.position ? engine->now.position : engine->head.position;
    struct change change = {0};
    struct writing w = {.engine = engine, .change = &change, .span = 1, .first = true};
    int r;

    *ret_missing = engine->missing;
    if (!engine->missing)
        return 0;
    engine->recovering = true;
    engine->now.position = beyond;
    bind_number(raise, 1, beyond + 1);
    if ((r = sqlite_run(engine, raise)))
        return r;
    return log_append(&w, OPERATION_RECOVER, 0, no_text, no_text);
}

/* ---- reading ---- */

/* The seq at which the answer begins: of the items between the bounds the latest `limit`. */
static int find_floor(struct engine *engine, const struct session *session, const struct selection *selection,
                      uint64_t before, uint64_t *ret)
{
    sqlite3_stmt *floor = sqlite_use(engine, SQL_ITEMS_FLOOR);
    bool row;
    int r;

    *ret = selection->after.value + 1;
    if (!selection->limit.present || selection->limit.value >= session->count)
        return 0;
    bind_number(floor, 1, session->number);
    bind_number(floor, 2, selection->after.value);
    bind_number(floor, 3, before);
    bind_number(floor, 4, selection->limit.value - 1);
    r = sqlite_step(engine, floor, &row);
    if (r == 0 && row)
        *ret = column_number(floor, 0);
    sqlite3_reset(floor);
    return r;
}

/* Gives rows until the answer is full; then one more only to know that there is more. Whoever reads page by page would
 * never come to an end if the numbers did not rise. */
static int give_items(struct engine *engine, const struct selection *selection, sqlite3_stmt *get, item_fn item,
                      void *arg, struct selection_result *ret)
{
    struct slice body, meta = no_text;
    uint64_t bytes = 0, seq;
    bool row;
    int r;

    while ((r = sqlite_step(engine, get, &row)) == 0 && row) {
        seq = column_number(get, 0);
        if (seq <= (ret->n ? ret->last_seq : selection->after.value)) {
            r = fault(EBADMSG, "items whose numbers do not rise");
            break;
        }
        body = sqlite_column_slice(get, 1);
        if (selection->with_meta)
            meta = sqlite_column_slice(get, 2);
        bytes += body.size + meta.size;
        if (ret->n == PROTO_ANSWER_ITEMS_MAX || (ret->n > 0 && bytes > selection->max_bytes)) {
            ret->more = true;
            break;
        }
        ret->last_seq = seq;
        if (ret->n++ == 0)
            ret->first_seq = seq;
        if ((r = item(arg, seq, body, meta)))
            break;
    }
    sqlite3_reset(get);
    return r;
}

int sqlite_get_items(struct engine *engine, const struct selection *selection, item_fn item, void *arg,
                     struct selection_result *ret)
{
    sqlite3_stmt *get = sqlite_use(engine, selection->with_meta ? SQL_ITEMS_GET_META : SQL_ITEMS_GET);
    uint64_t before = selection->before.present ? selection->before.value : PROTO_NUMBER_MAX, floor;
    struct session session;
    int r;

    *ret = (struct selection_result){.missing = engine->missing};
    if ((r = session_load(engine, selection->session, &session)))
        return r;
    ret->head_seq = session.head_seq;
    ret->revision = session.revision;
    ret->epoch = session.epoch;
    if (!fits(selection->if_epoch, session.epoch))
        return SESSIOND_CONFLICT;
    if (session.count == 0 || (selection->limit.present && selection->limit.value == 0))
        return 0;
    if ((r = find_floor(engine, &session, selection, before, &floor)))
        return r;
    bind_number(get, 1, session.number);
    bind_number(get, 2, floor);
    bind_number(get, 3, before);
    return give_items(engine, selection, get, item, arg, ret);
}

/* The smallest bytes greater than all that begin with the prefix. UTF-8 has no byte 0xff. */
static struct slice prefix_end(struct slice prefix, char copy[PROTO_SESSION_MAX])
{
    if (!prefix.data || prefix.size == 0)
        return slice_of("\xff");
    memcpy(copy, prefix.data, prefix.size);
    copy[prefix.size - 1]++;
    return (struct slice){copy, prefix.size};
}

int sqlite_list_sessions(struct engine *engine, const struct session_range *range, session_fn session, void *arg,
                         bool *ret_more)
{
    sqlite3_stmt *list = sqlite_use(engine, SQL_SESSIONS_LIST);
    const struct slice none = {"", 0};
    char end[PROTO_SESSION_MAX];
    struct session_info info;
    uint64_t n = 0;
    bool row;
    int r;

    *ret_more = false;
    sqlite_bind_slice(list, 1, range->after.data ? range->after : none);
    sqlite_bind_slice(list, 2, range->prefix.data ? range->prefix : none);
    sqlite_bind_slice(list, 3, prefix_end(range->prefix, end));
    bind_number(list, 4, range->limit + 1);
    while ((r = sqlite_step(engine, list, &row)) == 0 && row) {
        if (n++ == range->limit) {
            *ret_more = true;
            break;
        }
        info = (struct session_info){
            .id = sqlite_column_slice(list, 0),
            .count = column_number(list, 1),
            .bytes = column_number(list, 2),
            .head_seq = column_number(list, 3),
            .revision = column_number(list, 4),
            .epoch = column_number(list, 5),
            .created_us = column_number(list, 6),
            .updated_us = column_number(list, 7),
        };
        if ((r = session(arg, &info)))
            break;
    }
    sqlite3_reset(list);
    return r;
}
