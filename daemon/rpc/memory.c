#include "rpc/memory.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "rpc/methods.h"

enum { HISTORY_PART = 8 }; /* of the memory: so much of it may be one history's */

/* One item in a history's packed bytes. */
struct row {
    uint64_t seq;
    size_t end;          /* of its packed bytes */
    uint64_t texts;      /* bytes of the texts up to its end */
    size_t meta_end;     /* of what stands beside it */
    uint64_t meta_texts; /* bytes of that, up to its end */
};

struct history {
    struct list link; /* in memory->recent, the one used last at the end */
    const struct store *store;
    struct slice session; /* owned */
    unsigned quarantines; /* of the store, at the beginning */
    uint64_t revision, epoch, head_seq;
    uint64_t begins_after; /* a seq; 0: it is known from its beginning */
    struct row *rows;      /* owned; all live items of the session after that */
    size_t n, capacity;
    struct buf packed; /* the items, each as MessagePack's str */
    bool knows_meta;   /* what stands beside the items is known, too: who read them asked for it, or it began here */
    struct buf meta;   /* then that, each as a str or nil */
    size_t charged;    /* bytes that count as its own */
};

struct memory {
    void *by_session; /* tsearch */
    struct list recent;
    uint64_t bytes_max;
    struct memory_use use;
};

/* ---- histories ---- */

static int compare(const void *a, const void *b)
{
    const struct history *x = a, *y = b;

    if (x->store != y->store)
        return x->store < y->store ? -1 : 1;
    if (x->session.size != y->session.size)
        return x->session.size < y->session.size ? -1 : 1;
    return memcmp(x->session.data, y->session.data, x->session.size);
}

static void history_free(struct history *history)
{
    free((char *)history->session.data);
    free(history->rows);
    buf_deinit(&history->packed);
    buf_deinit(&history->meta);
    free(history);
}

static void forget(struct memory *memory, struct history *history)
{
    if (!history)
        return;
    list_remove(&history->link);
    tdelete(history, &memory->by_session, compare);
    memory->use.bytes -= history->charged;
    memory->use.sessions--;
    history_free(history);
}

static struct history *find(struct memory *memory, const struct request *request)
{
    struct history wanted = {.store = request->store, .session = request->params.session}, **found;

    found = tfind(&wanted, &memory->by_session, compare);
    if (found && (*found)->quarantines != request->store->lane.quarantines) {
        forget(memory, *found); /* its store may have come back with less */
        return NULL;
    }
    return found ? *found : NULL;
}

/* Return: NULL if there is no memory for it, which is no fault: the lane can be asked. */
static struct history *begin(struct memory *memory, const struct request *request)
{
    struct slice session = request->params.session;
    struct history *history = memory->bytes_max ? calloc(1, sizeof(*history)) : NULL;
    char *copy = malloc(session.size);

    if (history && copy) {
        memcpy(copy, session.data, session.size);
        history->session = (struct slice){copy, session.size};
        history->store = request->store;
        history->quarantines = request->store->lane.quarantines;
        if (tsearch(history, &memory->by_session, compare)) {
            list_append(&memory->recent, &history->link);
            memory->use.sessions++;
            return history;
        }
    }
    free(history);
    free(copy);
    return NULL;
}

static bool add_row(struct history *history, const struct seen_row *seen)
{
    const struct row none = {0}, *last = history->n ? &history->rows[history->n - 1] : &none;
    struct row row = {
        .seq = seen->seq,
        .end = seen->end,
        .texts = last->texts + seen->size,
        .meta_end = seen->meta_end,
        .meta_texts = last->meta_texts + seen->meta_size,
    };
    size_t capacity = history->capacity ? 2 * history->capacity : 16;
    struct row *rows;

    if (history->n == history->capacity) {
        rows = realloc(history->rows, capacity * sizeof(*rows));
        if (!rows)
            return false;
        history->rows = rows;
        history->capacity = capacity;
    }
    history->rows[history->n++] = row;
    return true;
}

static bool add_item(struct history *history, uint64_t seq, struct slice item, struct slice meta)
{
    struct seen_row row = {.seq = seq, .size = item.size};

    pack_text(&history->packed, item);
    if (history->knows_meta) {
        pack_meta(&history->meta, meta);
        row.meta_size = meta.size;
    }
    row.end = history->packed.size;
    row.meta_end = history->meta.size;
    return !history->packed.failed && !history->meta.failed && add_row(history, &row);
}

/* A long history is known by its end alone, which is what is read again and again. */
static void drop_first_half(struct history *history)
{
    size_t n = (history->n + 1) / 2;
    struct row dropped = history->rows[n - 1];

    history->begins_after = dropped.seq;
    history->n -= n;
    memmove(history->rows, history->rows + n, history->n * sizeof(*history->rows));
    for (size_t i = 0; i < history->n; i++) {
        history->rows[i].end -= dropped.end;
        history->rows[i].texts -= dropped.texts;
        history->rows[i].meta_end -= dropped.meta_end;
        history->rows[i].meta_texts -= dropped.meta_texts;
    }
    buf_drop(&history->packed, dropped.end);
    buf_drop(&history->meta, dropped.meta_end);
}

/* Counts what it holds, and makes room by forgetting what was not used for longest. */
static void settle(struct memory *memory, struct history *history)
{
    size_t now;

    while (history->n > 0 && history->packed.size + history->meta.size > memory->bytes_max / HISTORY_PART)
        drop_first_half(history);
    now = sizeof(*history) + history->session.size + history->capacity * sizeof(struct row) + history->packed.capacity +
          history->meta.capacity;
    memory->use.bytes += now - history->charged;
    history->charged = now;
    list_remove(&history->link);
    list_append(&memory->recent, &history->link);
    while (memory->use.bytes > memory->bytes_max && !list_is_empty(&memory->recent))
        forget(memory, CONTAINER_OF(memory->recent.next, struct history, link));
}

/* ---- recalling ---- */

/* The first row whose seq is not less. */
static size_t row_at(const struct history *history, uint64_t seq)
{
    size_t low = 0, high = history->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (history->rows[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Bytes that the first n rows count in an answer. */
static uint64_t bytes_to(const struct history *history, size_t n, bool with_meta)
{
    const struct row *last;

    if (n == 0)
        return 0;
    last = &history->rows[n - 1];
    return last->texts + (with_meta ? last->meta_texts : 0);
}

/* Where an answer that begins with row `from` has to end: the longest within the limits, but one row at least. */
static size_t answer_end(const struct history *history, size_t from, size_t to, uint64_t max_bytes, bool with_meta)
{
    uint64_t before = bytes_to(history, from, with_meta);
    size_t low = from + 1, high = to - from > PROTO_ANSWER_ITEMS_MAX ? from + PROTO_ANSWER_ITEMS_MAX : to;

    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;

        if (bytes_to(history, middle, with_meta) - before <= max_bytes)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static struct slice part_of(const struct buf *buf, size_t from, size_t to)
{
    return (struct slice){buf->data + from, to - from};
}

/* Which rows are asked for. Return: false if some of them are not known. */
static bool select_rows(const struct history *history, const struct params *params, size_t *ret_from, size_t *ret_to)
{
    size_t from = params->after.value >= PROTO_NUMBER_MAX ? history->n : row_at(history, params->after.value + 1);
    size_t to = params->before.present ? row_at(history, params->before.value) : history->n;
    bool enough;

    if (from > to)
        from = to;
    enough = params->limit.present && to - from >= params->limit.value;
    *ret_from = enough ? to - params->limit.value : from;
    *ret_to = to;
    return enough || params->after.value >= history->begins_after;
}

static void answer(struct request *request, const struct history *history, size_t from, size_t to)
{
    const struct params *params = &request->params;
    struct selection_result got = {
        .head_seq = history->head_seq, .revision = history->revision, .epoch = history->epoch};
    struct slice rows = {"", 0}, meta = {"", 0};
    size_t end;

    if (from < to) {
        end = answer_end(history, from, to, params->max_bytes.present ? params->max_bytes.value : PROTO_ANSWER_MAX,
                         params->with_meta);
        rows = part_of(&history->packed, from ? history->rows[from - 1].end : 0, history->rows[end - 1].end);
        if (params->with_meta)
            meta =
                part_of(&history->meta, from ? history->rows[from - 1].meta_end : 0, history->rows[end - 1].meta_end);
        got.n = end - from;
        got.first_seq = history->rows[from].seq;
        got.last_seq = history->rows[end - 1].seq;
        got.more = end < to;
    }
    request->outcome = request_charge_rows(request, rows.size + meta.size);
    if (!request->outcome)
        get_items_answer(request, &got, rows, meta);
}

bool memory_recall(struct request *request)
{
    struct memory *memory = request->daemon->memory;
    struct history *history = request->in_order ? find(memory, request) : NULL;
    size_t from, to;

    if (!history || (request->params.with_meta && !history->knows_meta) ||
        !select_rows(history, &request->params, &from, &to)) {
        memory->use.misses++;
        return false;
    }
    memory->use.hits++;
    list_remove(&history->link);
    list_append(&memory->recent, &history->link);
    if (request->params.if_epoch.present && request->params.if_epoch.value != history->epoch)
        request->outcome = conflict_refuse(request, history->revision, history->epoch);
    else
        answer(request, history, from, to);
    return true;
}

/* ---- learning ---- */

/* Whether what was read goes to the session's end, and after which seq it has all. */
static bool reaches_end(const struct request *request, uint64_t *ret_begins_after)
{
    const struct params *params = &request->params;
    const struct selection_result *got = &request->got;

    if (params->before.present || got->more || got->missing || got->revision == 0)
        return false;
    if (params->limit.present && request->n >= params->limit.value)
        *ret_begins_after = request->n ? got->first_seq - 1 : got->head_seq;
    else
        *ret_begins_after = params->after.value < got->head_seq ? params->after.value : got->head_seq;
    return true;
}

/* A history has been read, or its end. The rows take the place of what was known, if they are more. */
static void learn_reading(struct memory *memory, struct request *request)
{
    struct history *history = find(memory, request);
    bool with_meta = request->params.with_meta, done = true;
    uint64_t begins_after;

    if (history && history->revision > request->got.revision)
        return;
    if (history && history->revision < request->got.revision)
        forget(memory, TAKE(history));
    if (!reaches_end(request, &begins_after))
        return;
    if (history && history->begins_after <= begins_after && (history->knows_meta || !with_meta))
        return;
    forget(memory, history);
    history = begin(memory, request);
    if (!history)
        return;
    history->begins_after = begins_after;
    history->revision = request->got.revision;
    history->epoch = request->got.epoch;
    history->head_seq = request->got.head_seq;
    history->knows_meta = with_meta;
    for (size_t i = 0; done && i < request->n; i++)
        done = add_row(history, (const struct seen_row *)request->seen.data + i);
    buf_append(&history->packed, request->rows.data, request->rows.size);
    buf_append(&history->meta, request->meta_rows.data, request->meta_rows.size);
    if (!done || history->packed.failed || history->meta.failed)
        forget(memory, history);
    else
        settle(memory, history);
}

static void learn_adding(struct memory *memory, struct request *request, struct history *history)
{
    const struct change_result *done = &request->done;
    const struct text_list *items = &request->params.items, *meta = &request->params.meta;
    bool is_new = !history && done->revision == 1, fits = true; /* then this is all of it */

    if (items->n == 0)
        return;
    if (is_new && (history = begin(memory, request)))
        history->knows_meta = true;
    if (!history)
        return;
    for (size_t i = 0; fits && i < items->n; i++)
        fits = add_item(history, done->first_seq + i, items->texts[i], meta->n ? meta->texts[i] : (struct slice){0});
    history->revision = done->revision;
    history->epoch = done->epoch;
    history->head_seq = done->last_seq;
    if (!fits)
        forget(memory, history);
    else
        settle(memory, history);
}

static void learn_change(struct memory *memory, struct request *request)
{
    struct history *history = find(memory, request);
    const struct change_result *done = &request->done;

    if (done->repeated) {
        /* Nothing was done now. But what is repeated may have been uncertain before, and never learnt. */
        if (history && done->revision > history->revision)
            forget(memory, history);
    } else if (request->method->run != add_items_run) {
        forget(memory, history); /* items were removed: the next reader will tell */
    } else if (history && request->params.items.n && done->revision != history->revision + 1) {
        forget(memory, history);
    } else {
        learn_adding(memory, request, history);
    }
}

void memory_learn(struct request *request)
{
    struct memory *memory = request->daemon->memory;
    bool is_change = request->method->kind == JOB_CHANGE;

    if (request->outcome == 0 && is_change)
        learn_change(memory, request);
    else if (request->outcome == 0)
        learn_reading(memory, request);
    else if (is_change && (request->outcome < 0 || request->outcome == SESSIOND_UNCERTAIN))
        forget(memory, find(memory, request));
}

/* ---- life ---- */

int memory_open(struct memory **ret, uint64_t bytes_max)
{
    struct memory *memory = calloc(1, sizeof(*memory));

    if (!memory)
        return fault(ENOMEM, "memory of histories");
    list_init(&memory->recent);
    memory->bytes_max = bytes_max;
    *ret = memory;
    return 0;
}

void memory_close(struct memory *memory)
{
    if (!memory)
        return;
    while (!list_is_empty(&memory->recent))
        forget(memory, CONTAINER_OF(memory->recent.next, struct history, link));
    free(memory);
}

struct memory_use memory_use(const struct memory *memory)
{
    return memory->use;
}
