/* Reading sessions: where one stands, its items, and the list of all. What the tables do not have yet is fresh, and
 * read from the log. */
#include "store/sqlite.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"

/* Where a session stands of which the table says `session`, and which may be fresh. What cannot be told, for its page
 * is damaged, must not be taken for whole. */
static int session_stands(const struct engine *engine, const struct fresh_session *fresh, struct session *session)
{
    if (fresh)
        *session = fresh->session;
    return session->exists && fresh_is_left(&engine->fresh, session->number) ? SESSIOND_ROLLED_BACK : 0;
}

int sqlite_session_find(struct engine *engine, struct slice name, struct session *ret, struct fresh_session **ret_fresh)
{
    struct fresh_session *fresh = *ret_fresh = fresh_find(&engine->fresh, name);
    int r;

    if (!fresh && (r = sqlite_session_load(engine, name, ret)))
        return r;
    return session_stands(engine, fresh, ret);
}

int sqlite_item_is_gone(sqlite3_stmt *row)
{
    sqlite3_reset(row);
    log_error("store_damaged what=\"an item that is not in the log\"");
    return SESSIOND_ROLLED_BACK;
}

/* An answer on its way: of the session's items the latest so many between two bounds, first those that the table has,
 * then those that are fresh. */
struct reading {
    struct engine *engine;
    const struct selection *selection;
    struct session session;
    struct fresh_session *fresh; /* NULL: the table has all */
    uint64_t from, before;       /* seqs of those in the table; none if from >= before */
    size_t fresh_from, fresh_to; /* indexes of those that are fresh */
    item_fn item;
    void *arg;
    uint64_t bytes;
    struct selection_result *ret;
};

/* The seq at which the table's part of the answer begins: that of the last `limit` of its items. */
static int find_floor(struct reading *reading, uint64_t limit)
{
    sqlite3_stmt *floor = sqlite_use(reading->engine, SQL_ITEMS_FLOOR);
    bool row;
    int r;

    sqlite_bind_number(floor, 1, reading->session.number);
    sqlite_bind_number(floor, 2, reading->selection->after.value);
    sqlite_bind_number(floor, 3, reading->before);
    sqlite_bind_number(floor, 4, limit - 1);
    r = sqlite_step(reading->engine, floor, &row);
    if (r == 0 && row)
        reading->from = sqlite_column_number(floor, 0);
    sqlite3_reset(floor);
    return r;
}

static int find_bounds(struct reading *reading)
{
    const struct selection *selection = reading->selection;
    const struct fresh_session *fresh = reading->fresh;
    uint64_t limit = selection->limit.value;

    reading->from = selection->after.value + 1;
    reading->before = selection->before.present ? selection->before.value : PROTO_NUMBER_MAX;
    if (fresh) {
        reading->fresh_from = fresh_item_at(fresh, reading->from);
        reading->fresh_to = fresh_item_at(fresh, reading->before);
        if (reading->before > fresh->items[0].seq)
            reading->before = fresh->items[0].seq;
    }
    if (reading->fresh_from > reading->fresh_to)
        reading->fresh_from = reading->fresh_to;
    if (!selection->limit.present || limit >= reading->session.count)
        return 0;
    if (limit > reading->fresh_to - reading->fresh_from)
        return find_floor(reading, limit - (reading->fresh_to - reading->fresh_from));
    reading->fresh_from = reading->fresh_to - limit;
    reading->before = 0;
    return 0;
}

/* Gives one row, if the answer is not full yet. Whoever reads page by page would never come to an end if the numbers
 * did not rise. */
static int give_item(struct reading *reading, sqlite3_stmt *row)
{
    struct selection_result *ret = reading->ret;
    uint64_t seq = sqlite_column_number(row, 0);
    struct slice body = sqlite_column_slice(row, 1), meta = {0};

    if (!body.data)
        return sqlite_item_is_gone(row);
    if (seq <= (ret->n ? ret->last_seq : reading->selection->after.value))
        return fault(EBADMSG, "items whose numbers do not rise");
    if (reading->selection->with_meta)
        meta = sqlite_column_slice(row, 2);
    reading->bytes += body.size + meta.size;
    if (ret->n == PROTO_ANSWER_ITEMS_MAX || (ret->n > 0 && reading->bytes > reading->selection->max_bytes)) {
        ret->more = true;
        return 0;
    }
    ret->last_seq = seq;
    if (ret->n++ == 0)
        ret->first_seq = seq;
    return reading->item(reading->arg, seq, body, meta);
}

/* Until the answer is full; then one more only to know that there is more. */
static int give_items(struct reading *reading)
{
    sqlite3_stmt *get = sqlite_use(reading->engine, reading->selection->with_meta ? SQL_ITEMS_GET_META : SQL_ITEMS_GET);
    bool row;
    int r = 0;

    if (reading->from >= reading->before)
        return 0;
    sqlite_bind_number(get, 1, reading->session.number);
    sqlite_bind_number(get, 2, reading->from);
    sqlite_bind_number(get, 3, reading->before);
    while (!reading->ret->more && (r = sqlite_step(reading->engine, get, &row)) == 0 && row) {
        if ((r = give_item(reading, get)))
            break;
    }
    sqlite3_reset(get);
    return r;
}

static int give_fresh_item(struct reading *reading, const struct fresh_item *item)
{
    sqlite3_stmt *get = sqlite_use(reading->engine, SQL_ITEM_GET);
    bool row;
    int r;

    sqlite_bind_number(get, 1, item->position);
    if ((r = sqlite_step(reading->engine, get, &row)))
        return r;
    r = row ? give_item(reading, get) : fault(EBADMSG, "an item that is not in the log");
    sqlite3_reset(get);
    return r;
}

static int give_fresh_items(struct reading *reading)
{
    int r = 0;

    for (size_t i = reading->fresh_from; r == 0 && !reading->ret->more && i < reading->fresh_to; i++)
        r = give_fresh_item(reading, &reading->fresh->items[i]);
    return r;
}

int sqlite_get_items(struct engine *engine, const struct selection *selection, item_fn item, void *arg,
                     struct selection_result *ret)
{
    struct reading reading = {
        .engine = engine,
        .selection = selection,
        .item = item,
        .arg = arg,
        .ret = ret,
    };
    int r;

    *ret = (struct selection_result){.missing = engine->missing};
    if ((r = sqlite_session_find(engine, selection->session, &reading.session, &reading.fresh)))
        return r;
    ret->head_seq = reading.session.head_seq;
    ret->revision = reading.session.revision;
    ret->epoch = reading.session.epoch;
    if (!sqlite_fits(selection->if_epoch, reading.session.epoch))
        return SESSIOND_CONFLICT;
    if (reading.session.count == 0 || (selection->limit.present && selection->limit.value == 0))
        return 0;
    if ((r = find_bounds(&reading)) || (r = give_items(&reading)))
        return r;
    return give_fresh_items(&reading);
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

/* The table has the names of all sessions, and where they stand unless that is fresh. */
static int session_listed(struct engine *engine, sqlite3_stmt *row, struct session_info *ret)
{
    struct slice name = sqlite_column_slice(row, 8);
    struct session session;
    int r;

    sqlite_session_read(row, &session);
    r = session_stands(engine, fresh_find(&engine->fresh, name), &session);
    *ret = (struct session_info){
        .id = name,
        .count = session.count,
        .bytes = session.bytes,
        .head_seq = session.head_seq,
        .revision = session.revision,
        .epoch = session.epoch,
        .created_us = session.created_us,
        .updated_us = session.updated_us,
    };
    return r;
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
    sqlite_bind_number(list, 4, range->limit + 1);
    while ((r = sqlite_step(engine, list, &row)) == 0 && row) {
        if (n++ == range->limit) {
            *ret_more = true;
            break;
        }
        if ((r = session_listed(engine, list, &info)) || (r = session(arg, &info)))
            break;
    }
    sqlite3_reset(list);
    return r;
}
