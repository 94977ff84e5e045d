/*
 * How the tables follow the log. Adding items appends to the log alone; what the tables lack stands in `fresh`. When
 * enough of it has gathered, the sessions that it belongs to are settled, one after the other, and the receipts put
 * into their table, in steps between batches; when all up to a position is there, `followed` says so. A store is opened
 * with what its log has after `followed`.
 *
 * So a crash needs no care here: each row of the log may be followed twice. An item's row and a receipt are put again,
 * and the session's row says up to which position it has counted.
 *
 * A damaged page must not stop the others. When a step meets damage, those after it settle one session or receipt at a
 * time; the one that fails is stuck: it stays in memory, takes no more items, and its rows are written down in
 * left_behind, for the next opening to try again. A receipt is written down apart from the item that may stand in the
 * same row, for the table may have the one and not the other.
 */
#include "store/sqlite.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"

enum {
    STEPS = 4,        /* in which the tables follow what has gathered, or more: */
    STEP_ROWS = 1024, /* those of one take milliseconds */
    LATE = 4,         /* times as much as it takes to begin, and no more is let wait */
    RETRY_US = 10000000,
    LOST_MAX = 1 << 20, /* rows that an opening looks for one by one; more never wait for the tables */
};

/* ---- settling ---- */

int sqlite_settle(struct engine *engine, struct fresh_session *session)
{
    int r;

    fresh_touch(&engine->fresh, session);
    for (size_t i = 0; i < session->n; i++) {
        const struct fresh_item *item = &session->items[i];

        if ((r = sqlite_item_put(engine, session->session.number, OPERATION_ITEM, item->seq, item->position)))
            return r;
    }
    session->settled = true;
    return sqlite_session_save(engine, session->name, &session->session);
}

static struct fresh_session *session_of(struct list *link)
{
    return CONTAINER_OF(link, struct fresh_session, link);
}

static struct fresh_receipt *receipt_of(struct list *link)
{
    return CONTAINER_OF(link, struct fresh_receipt, link);
}

/* ---- steps ---- */

bool sqlite_follow_is_late(const struct engine *engine)
{
    return engine->fresh.n >= LATE * engine->config->follow_rows;
}

/* Rows of the log that the next opening would read. Those of what was written through are among them. */
static uint64_t rows_behind(const struct engine *engine)
{
    uint64_t last = engine->committed.position, followed = engine->fresh.followed;

    return followed < last ? last - followed : 0;
}

bool sqlite_follow_is_due(const struct engine *engine, bool all)
{
    const struct fresh *fresh = &engine->fresh;
    uint64_t enough = engine->config->follow_rows;

    if (fresh->resume_us && clock_monotonic_us() < fresh->resume_us)
        return false;
    if (fresh->target || all)
        return fresh->target || rows_behind(engine) > 0;
    return fresh->n >= enough || rows_behind(engine) >= LATE * enough;
}

static int settle_some(struct engine *engine, size_t *budget)
{
    int r;

    LIST_FOR_EACH(link, &engine->fresh.following)
    {
        struct fresh_session *session = session_of(link);

        if (*budget == 0)
            return 0;
        if ((r = sqlite_settle(engine, session)))
            return r;
        *budget -= *budget > session->n ? session->n : *budget;
    }
    return 0;
}

static int put_some_receipts(struct engine *engine, size_t *budget)
{
    struct fresh *fresh = &engine->fresh;
    int r;

    LIST_FOR_EACH(link, &fresh->receipts)
    {
        const struct fresh_receipt *receipt = receipt_of(link);

        if (*budget == 0 || receipt->position > fresh->target)
            return 0;
        if ((r = sqlite_receipt_put(engine, receipt->key, receipt->position)))
            return r;
        fresh->n_settled++;
        --*budget;
    }
    return 0;
}

/* What was left behind of a row, as left_behind has it. */
static int64_t left_of(uint64_t position, bool receipt_alone)
{
    return receipt_alone ? -(int64_t)position : (int64_t)position;
}

static int leave_behind(struct engine *engine, int64_t left)
{
    sqlite3_stmt *put = sqlite_use(engine, SQL_LEFT_PUT);

    sqlite3_bind_int64(put, 1, left);
    return sqlite_run(engine, put);
}

static int leave_all_behind(struct engine *engine)
{
    const struct fresh *fresh = &engine->fresh;
    int r = sqlite_run(engine, sqlite_use(engine, SQL_LEFT_CLEAR));

    for (size_t i = 0; r == 0 && i < fresh->n_left; i++)
        r = leave_behind(engine, fresh->left[i].row);
    LIST_FOR_EACH(link, &fresh->stuck)
    {
        for (size_t i = 0; r == 0 && i < session_of(link)->n; i++)
            r = leave_behind(engine, left_of(session_of(link)->items[i].position, false));
    }
    LIST_FOR_EACH(link, &fresh->stuck_receipts)
    {
        if (r == 0)
            r = leave_behind(engine, left_of(receipt_of(link)->position, true));
    }
    return r;
}

/* All that is left of this turn has been done: the tables have all up to the target. */
static int reach_target(struct engine *engine)
{
    sqlite3_stmt *put = sqlite_use(engine, SQL_FOLLOWED_PUT);
    int r = leave_all_behind(engine);

    if (r)
        return r;
    sqlite_bind_number(put, 1, engine->fresh.target);
    engine->fresh.reached = true;
    return sqlite_run(engine, put);
}

static int follow_some(struct engine *engine)
{
    const struct fresh *fresh = &engine->fresh;
    uint64_t rows = engine->config->follow_rows / STEPS;
    size_t budget = 1 + (rows < STEP_ROWS ? rows : STEP_ROWS);
    int r;

    if (fresh->one_by_one)
        budget = 1;
    if ((r = settle_some(engine, &budget)) || (r = put_some_receipts(engine, &budget)))
        return r;
    return budget > 0 ? reach_target(engine) : 0;
}

/* What a step of one could not do. Return: false if it was neither a session nor a receipt. */
static bool set_aside(struct fresh *fresh)
{
    struct fresh_receipt *receipt = receipt_of(fresh->receipts.next);

    if (!list_is_empty(&fresh->following))
        fresh_set_aside(fresh, session_of(fresh->following.next));
    else if (!list_is_empty(&fresh->receipts) && receipt->position <= fresh->target)
        fresh_set_receipt_aside(fresh, receipt);
    else
        return false;
    return true;
}

int sqlite_follow_step(struct engine *engine, bool *ret_more)
{
    struct fresh *fresh = &engine->fresh;
    int r;

    fresh->resume_us = 0;
    if (!fresh->target)
        fresh_begin_following(fresh, engine->committed.position);
    r = sqlite_in_transaction(engine, follow_some);
    *ret_more = fresh->target > 0;
    if (r == 0)
        return 0;
    if (r == SESSIOND_ROLLED_BACK && !fresh->one_by_one) {
        fresh->one_by_one = true;
        return 0;
    }
    if (r == SESSIOND_ROLLED_BACK && set_aside(fresh)) {
        log_error("store_damaged what=\"rows of the log cannot be followed\" path=\"%s\"", engine->path);
        return 0;
    }
    *ret_more = false;
    fresh->resume_us = clock_monotonic_us() + RETRY_US;
    return r;
}

void sqlite_follow_all(struct engine *engine)
{
    bool more;

    while (sqlite_follow_is_due(engine, true) && sqlite_follow_step(engine, &more) == 0)
        ;
}

/* ---- opening ---- */

/* The row's session cannot be read now. Should it be readable later, it must not be taken for whole. */
static int leave(struct fresh *fresh, int64_t row, uint64_t session)
{
    return fresh_leave(fresh, row, session) ? 0 : fault(ENOMEM, "open a store");
}

/* A session as the table has it. Its name stays until the statement is reset. */
static int try_session(struct engine *engine, uint64_t number, struct session *ret, uint64_t *ret_position,
                       struct slice *ret_name)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_SESSION_BY_NUMBER);
    bool row;
    int r;

    *ret = (struct session){0};
    sqlite_bind_number(get, 1, number);
    if ((r = sqlite_step(engine, get, &row)) || !row)
        return r;
    sqlite_session_read(get, ret);
    *ret_position = sqlite_column_number(get, 8);
    *ret_name = sqlite_column_slice(get, 9);
    return 0;
}

/* Damage is looked at twice: SQLite takes a read that fails for damage, too, and that may be over. A session of which a
 * row was left has none of those that follow. */
static int load_session(struct engine *engine, uint64_t number, struct session *ret, uint64_t *ret_position,
                        struct slice *ret_name)
{
    int r;

    if (fresh_is_left(&engine->fresh, number))
        return SESSIOND_ROLLED_BACK;
    r = try_session(engine, number, ret, ret_position, ret_name);
    return r == SESSIOND_ROLLED_BACK ? try_session(engine, number, ret, ret_position, ret_name) : r;
}

/* An item that the table may have or not, and the session's row may count or not. */
static int load_item(struct fresh *fresh, sqlite3_stmt *row, struct slice name, const struct session *saved,
                     bool is_counted)
{
    uint64_t position = sqlite_column_number(row, 0), seq = sqlite_column_number(row, 3);
    struct fresh_session *session = fresh_begin(fresh, fresh_find(fresh, name), name, saved, 1);

    if (!session)
        return fault(ENOMEM, "open a store");
    if (session->n > 0 && session->items[session->n - 1].seq >= seq)
        return fault(EBADMSG, "items whose numbers do not rise");
    fresh_add_item(fresh, session, seq, position);
    if (is_counted)
        return 0;
    session->session.count++;
    session->session.bytes += sqlite_column_number(row, 7) + sqlite_column_number(row, 8);
    session->session.head_seq = seq;
    session->session.revision = sqlite_column_number(row, 4);
    session->session.updated_us = sqlite_column_number(row, 5);
    return 0;
}

/* An old receipt of the same key is one of a session that is gone. */
static int load_receipt(struct fresh *fresh, struct slice key, uint64_t position)
{
    struct fresh_receipt *receipt = fresh_find_receipt(fresh, key);

    if (receipt)
        receipt->position = position;
    else if (!fresh_add_receipt(fresh, key, position))
        return fault(ENOMEM, "open a store");
    return 0;
}

/* All epochs were raised when a loss was accepted, with a revision each, and the table says so itself; but where it
 * does not count all items, the revision is that of the last one. Should these be left behind, so is this row. */
static int load_recovery(struct fresh *fresh, uint64_t position)
{
    if (list_is_empty(&fresh->sessions))
        return 0;
    LIST_FOR_EACH(link, &fresh->sessions)
    {
        struct fresh_session *session = session_of(link);

        session->session.revision += session->session.count != session->before.count;
    }
    return leave(fresh, left_of(position, false), 0);
}

/* What is known of a session that is gone is of no use any more. */
static int load_row(struct engine *engine, sqlite3_stmt *row, bool receipt_alone)
{
    enum operation operation = (enum operation)sqlite3_column_int(row, 1);
    uint64_t position = sqlite_column_number(row, 0), number = sqlite_column_number(row, 2), counted = 0;
    bool has_session = number != 0 && operation != OPERATION_DELETE;
    bool is_item = operation == OPERATION_ITEM && sqlite3_column_type(row, 7) != SQLITE_NULL && !receipt_alone;
    struct slice key = sqlite_column_slice(row, 6), name = {0};
    struct session saved;
    int r = 0;

    if (operation == OPERATION_RECOVER && (r = load_recovery(&engine->fresh, position)))
        return r;
    if (has_session && (r = load_session(engine, number, &saved, &counted, &name)))
        return r == SESSIOND_ROLLED_BACK ? leave(&engine->fresh, left_of(position, receipt_alone), number) : r;
    if (!has_session || saved.exists) {
        if (key.data)
            r = load_receipt(&engine->fresh, key, position);
        if (r == 0 && is_item)
            r = load_item(&engine->fresh, row, name, &saved, position <= counted);
    }
    sqlite3_reset(sqlite_use(engine, SQL_SESSION_BY_NUMBER));
    return r;
}

/* One after the other, from *from on; *from is the next one then. In a damaged tree they may go round in circles. */
static int load_rows(struct engine *engine, sqlite3_stmt *rows, bool receipts_alone, uint64_t *from, bool *row)
{
    int r;

    while ((r = sqlite_step(engine, rows, row)) == 0 && *row) {
        uint64_t position = sqlite_column_number(rows, 0);

        if (position < *from)
            return SESSIOND_ROLLED_BACK;
        *from = position + 1;
        if ((r = load_row(engine, rows, receipts_alone)))
            break;
    }
    return r;
}

/* Of a row that cannot be read nobody can say whose it was: it counts as missing, and the operator has to look. */
static int load_log(struct engine *engine, uint64_t from, uint64_t to, bool receipts_alone)
{
    sqlite3_stmt *rows = sqlite_use(engine, SQL_LOG_TAIL);
    uint64_t failed_at = 0, before = engine->missing;
    bool row = true, again = false;
    int r;

    for (; from <= to && row; from += !again) {
        sqlite_bind_number(rows, 1, from);
        sqlite_bind_number(rows, 2, to);
        r = load_rows(engine, rows, receipts_alone, &from, &row);
        sqlite3_reset(rows);
        if (r && r != SESSIOND_ROLLED_BACK)
            return r;
        row = r != 0;
        again = r && failed_at != from; /* as for a session */
        failed_at = from;
        engine->missing += r && !again;
        if (engine->missing - before > LOST_MAX)
            return fault(EBADMSG, "read the log");
    }
    return 0;
}

static int load_left_behind(struct engine *engine)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_LEFT_GET);
    bool row;
    int r;

    while ((r = sqlite_step(engine, get, &row)) == 0 && row) {
        int64_t left = sqlite3_column_int64(get, 0);
        uint64_t position = left < 0 ? -(uint64_t)left : (uint64_t)left;

        if ((r = load_log(engine, position, position, left < 0)))
            break;
    }
    sqlite3_reset(get);
    return r;
}

/* The tables cannot know more than the log: what it has lost is missed even where the head, which says what was
 * acknowledged, is lost as well. */
static void compare_with_log(struct engine *engine)
{
    uint64_t present = engine->committed.position, followed = engine->fresh.followed;

    if (engine->missing || followed <= present)
        return;
    engine->missing = followed - present;
    log_error("store_rolled_back missing=%llu has=%llu followed=%llu path=\"%s\"", (unsigned long long)engine->missing,
              (unsigned long long)present, (unsigned long long)followed, engine->path);
}

int sqlite_fresh_load(struct engine *engine)
{
    sqlite3_stmt *get = sqlite_use(engine, SQL_FOLLOWED_GET);
    struct fresh *fresh = &engine->fresh;
    uint64_t before;
    bool row;
    int r;

    if ((r = sqlite_step(engine, get, &row)))
        return r;
    fresh->followed = row ? sqlite_column_number(get, 0) : 0;
    sqlite3_reset(get);
    compare_with_log(engine);
    before = engine->missing;
    if ((r = load_left_behind(engine)) ||
        (r = load_log(engine, fresh->followed + 1, engine->committed.position, false)))
        return r;
    fresh_commit(fresh);
    if (engine->missing > before)
        log_error("store_damaged what=\"rows of the log\" missing=%llu path=\"%s\"",
                  (unsigned long long)(engine->missing - before), engine->path);
    return 0;
}
