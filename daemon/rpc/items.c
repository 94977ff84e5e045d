/* get_items and the changes of a session. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "config/config.h"
#include "json.h"
#include "rpc/methods.h"
#include "store/payment.h"

/* ---- checks, before the store sees the request ---- */

int change_check(struct request *request)
{
    if (request->params.digest.data && !request->params.key.data)
        return request_refuse(request, SESSIOND_INVALID, "digest: goes with a key");
    return 0;
}

/* An item, or what stands beside it: the same kind of text, with a limit of its own. */
static int check_text(struct request *request, size_t index, struct slice text, uint64_t limit, const char *what)
{
    const char *wrong;
    size_t offset = 0;

    if (text.size > limit) {
        request->details.item = (struct number){true, index};
        request->details.limit = (struct number){true, limit};
        return request_refuse(request, SESSIOND_TOO_LARGE, "%s %zu: %zu bytes are over the limit of %llu", what, index,
                              text.size, (unsigned long long)limit);
    }
    wrong = json_check_item(text, &offset);
    if (!wrong)
        return 0;
    request->details.item = (struct number){true, index};
    return request_refuse(request, SESSIOND_INVALID, "%s %zu, byte %zu: %s", what, index, offset, wrong);
}

static int check_meta(struct request *request)
{
    const struct text_list *items = &request->params.items, *meta = &request->params.meta;
    int r;

    if (meta->present && meta->n != items->n)
        return request_refuse(request, SESSIOND_INVALID, "meta: %zu for %zu items, there must be one for each (or nil)",
                              meta->n, items->n);
    for (size_t i = 0; i < meta->n; i++)
        if (meta->texts[i].data && (r = check_text(request, i, meta->texts[i], PROTO_META_MAX, "meta")))
            return r;
    return 0;
}

static void hash_number(XXH3_state_t *state, struct number number)
{
    uint64_t parts[2] = {number.present, number.value};

    XXH3_128bits_update(state, parts, sizeof(parts));
}

/* With its size first, so that no two lists of texts run together to the same bytes. */
static void hash_text(XXH3_state_t *state, struct slice text)
{
    hash_number(state, (struct number){text.data != NULL, text.size});
    XXH3_128bits_update(state, text.data, text.size);
}

/* A list of nothing is the same as no list. */
static void hash_meta(XXH3_state_t *state, const struct text_list *meta)
{
    for (size_t i = 0; i < meta->n; i++) {
        if (!meta->texts[i].data)
            continue;
        hash_text(state, slice_of("meta")); /* which no item is */
        hash_number(state, (struct number){true, i});
        hash_text(state, meta->texts[i]);
    }
}

/* What two requests with one key must have in common to be the same change. It only has to tell a client's own requests
 * apart, so a fast hash will do. */
static void take_fingerprint(struct request *request)
{
    const struct params *params = &request->params;
    XXH128_canonical_t canonical;
    XXH3_state_t state;

    _Static_assert(sizeof(canonical) == FINGERPRINT_SIZE, "XXH3 of 128 bits");
    XXH3_128bits_reset(&state);
    hash_text(&state, slice_of(request->method->name));
    hash_text(&state, params->session);
    hash_text(&state, params->digest);
    if (!params->digest.data) {
        hash_number(&state, params->if_revision);
        hash_number(&state, params->if_epoch);
        hash_number(&state, params->from_seq);
        for (size_t i = 0; i < params->items.n; i++)
            hash_text(&state, params->items.texts[i]);
        hash_meta(&state, &params->meta);
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(request->fingerprint, canonical.digest, FINGERPRINT_SIZE);
}

int items_prepare(struct request *request)
{
    const struct text_list *items = &request->params.items;
    int r;

    for (size_t i = 0; i < items->n; i++)
        if ((r = check_text(request, i, items->texts[i], request->daemon->config->item_bytes, "item")))
            return r;
    if ((r = check_meta(request)))
        return r;
    if (request->params.key.data)
        take_fingerprint(request);
    return 0;
}

/* ---- reading ---- */

void pack_meta(struct buf *buf, struct slice meta)
{
    if (meta.data)
        pack_text(buf, meta);
    else
        pack_nil(buf);
}

static int pack_row(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    struct request *request = arg;
    struct seen_row row = {.seq = seq, .size = item.size, .meta_size = meta.size};
    size_t bytes = 2 * (item.size + meta.size + sizeof(row)); /* the rows, and the answer that is made of them */

    if (request->method->kind != JOB_READ)
        request_charge_anyway(request, bytes); /* it has been removed already */
    else if (request_charge_rows(request, bytes))
        return SESSIOND_BUSY;
    pack_text(&request->rows, item);
    if (request->params.with_meta)
        pack_meta(&request->meta_rows, meta);
    row.end = request->rows.size;
    row.meta_end = request->meta_rows.size;
    buf_append(&request->seen, &row, sizeof(row));
    request->n++;
    return 0; /* failures stick in the bufs */
}

static void pack_seq(struct buf *reply, const char *key, uint64_t seq)
{
    if (seq)
        pack_pair_number(reply, key, seq);
    else
        pack_pair_nil(reply, key);
}

int conflict_refuse(struct request *request, uint64_t revision, uint64_t epoch)
{
    request->details.revision = revision;
    request->details.epoch = epoch;
    return SESSIOND_CONFLICT;
}

void get_items_answer(struct request *request, const struct selection_result *got, struct slice rows, struct slice meta)
{
    bool with_meta = request->params.with_meta;
    struct buf *reply = request_answer(request);

    pack_map(reply, 7 + (size_t)with_meta + (size_t)(got->missing > 0));
    pack_text(reply, slice_of("items"));
    pack_array(reply, got->n);
    request_answer_with(request, rows);
    if (with_meta) {
        pack_text(reply, slice_of("meta"));
        pack_array(reply, got->n);
        buf_append(reply, meta.data, meta.size);
    }
    pack_seq(reply, "first_seq", got->first_seq);
    pack_seq(reply, "last_seq", got->last_seq);
    pack_pair_number(reply, "head_seq", got->head_seq);
    pack_pair_number(reply, "revision", got->revision);
    pack_pair_number(reply, "epoch", got->epoch);
    pack_pair_bool(reply, "more", got->more);
    if (got->missing)
        pack_pair_number(reply, "missing", got->missing);
}

int get_items_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    const struct params *params = &request->params;
    struct selection selection = {
        .session = params->session,
        .limit = params->limit,
        .after = params->after,
        .before = params->before,
        .if_epoch = params->if_epoch,
        .max_bytes = params->max_bytes.present ? params->max_bytes.value : PROTO_ANSWER_MAX,
        .with_meta = params->with_meta,
    };
    int r;

    (void)ret_more;
    r = table->get_items(engine, &selection, pack_row, request, &request->got);
    if (r == SESSIOND_CONFLICT)
        return conflict_refuse(request, request->got.revision, request->got.epoch);
    if (r == 0)
        get_items_answer(request, &request->got, buf_slice(&request->rows), buf_slice(&request->meta_rows));
    return r;
}

/* ---- changes ---- */

static struct change change_of(const struct request *request)
{
    struct change change = {
        .session = request->params.session,
        .key = request->params.key,
        .if_revision = request->params.if_revision,
        .if_epoch = request->params.if_epoch,
        .now_us = clock_now_us(),
        .meta = request->params.meta.texts,
        .no_sessions = request->job.no_sessions,
        .no_bytes = request->job.no_bytes,
    };

    memcpy(change.fingerprint, request->fingerprint, FINGERPRINT_SIZE);
    return change;
}

/* What came of a change that was not made. */
static int change_refuse(struct request *request, int r)
{
    const struct change_result *done = &request->done;

    if (r == SESSIOND_CONFLICT)
        return conflict_refuse(request, done->revision, done->epoch);
    request->job.refused = r == SESSIOND_FULL && done->over != OVER_DISK;
    if (!request->job.refused)
        return r;
    return request_refuse(request, r, "the owner of this store, or all together, may have no more %s; remove some",
                          account_resource_words(payment_over(&request->store->lane, done->over)));
}

static void pack_state(struct buf *reply, const struct change_result *done)
{
    pack_pair_number(reply, "revision", done->revision);
    pack_pair_number(reply, "epoch", done->epoch);
}

int add_items_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct change change = change_of(request);
    struct change_result *done = &request->done;
    struct buf *reply;
    int r;

    (void)ret_more;
    r = table->add_items(engine, &change, request->params.items.texts, request->params.items.n, done);
    if (r)
        return change_refuse(request, r);
    reply = request_answer(request);
    pack_map(reply, 4);
    pack_seq(reply, "first_seq", done->first_seq);
    pack_seq(reply, "last_seq", done->last_seq);
    pack_state(reply, done);
    return 0;
}

/* What was taken, packed already; nil where nothing was. */
static void pack_popped(struct buf *reply, const char *key, const struct buf *row)
{
    pack_text(reply, slice_of(key));
    if (row->size)
        buf_append(reply, row->data, row->size);
    else
        pack_nil(reply);
}

int pop_item_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct change change = change_of(request);
    struct change_result *done = &request->done;
    struct buf *reply;
    int r;

    (void)ret_more;
    r = table->pop_item(engine, &change, pack_row, request, done);
    if (r)
        return change_refuse(request, r);
    reply = request_answer(request);
    pack_map(reply, 4 + (size_t)request->params.with_meta + (size_t)done->erased);
    pack_popped(reply, "item", &request->rows);
    if (request->params.with_meta)
        pack_popped(reply, "meta", &request->meta_rows);
    pack_seq(reply, "seq", done->first_seq);
    pack_state(reply, done);
    if (done->erased)
        pack_pair_bool(reply, "erased", true);
    return 0;
}

int clear_session_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct change change = change_of(request);
    struct change_result *done = &request->done;
    struct buf *reply;
    int r;

    (void)ret_more;
    r = table->clear_session(engine, &change, done);
    if (r)
        return change_refuse(request, r);
    reply = request_answer(request);
    pack_map(reply, 3);
    pack_pair_number(reply, "removed", done->removed);
    pack_state(reply, done);
    return 0;
}

int replace_items_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    const struct params *params = &request->params;
    struct change change = change_of(request);
    struct change_result *done = &request->done;
    struct buf *reply;
    int r;

    (void)ret_more;
    r = table->replace_items(engine, &change, params->from_seq, params->items.texts, params->items.n, done);
    if (r)
        return change_refuse(request, r);
    reply = request_answer(request);
    pack_map(reply, 5);
    pack_pair_number(reply, "removed", done->removed);
    pack_seq(reply, "first_seq", done->first_seq);
    pack_seq(reply, "last_seq", done->last_seq);
    pack_state(reply, done);
    return 0;
}

int delete_session_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct change change = change_of(request);
    struct change_result *done = &request->done;
    struct buf *reply;
    int r;

    (void)ret_more;
    r = table->delete_session(engine, &change, done);
    if (r)
        return change_refuse(request, r);
    reply = request_answer(request);
    pack_map(reply, 1);
    pack_pair_number(reply, "removed", done->removed);
    return 0;
}
