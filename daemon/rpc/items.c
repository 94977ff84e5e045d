/* get_items and the changes of a session. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "config.h"
#include "json.h"
#include "rpc/methods.h"

/* ---- checks, before the store sees the request ---- */

int change_check(struct request *request)
{
    if (request->params.digest.data && !request->params.key.data)
        return request_refuse(request, SESSIOND_INVALID, "digest: goes with a key");
    return 0;
}

static int check_item(struct request *request, size_t index)
{
    uint64_t limit = request->daemon->config->item_bytes;
    struct slice item = request->params.items.texts[index];
    const char *wrong;
    size_t offset = 0;

    if (item.size > limit) {
        request->details.item = (struct number){true, index};
        request->details.limit = (struct number){true, limit};
        return request_refuse(request, SESSIOND_TOO_LARGE, "item %zu: %zu bytes are over the limit of %llu", index,
                              item.size, (unsigned long long)limit);
    }
    wrong = json_check_item(item, &offset);
    if (!wrong)
        return 0;
    request->details.item = (struct number){true, index};
    return request_refuse(request, SESSIOND_INVALID, "item %zu, byte %zu: %s", index, offset, wrong);
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
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(request->fingerprint, canonical.digest, FINGERPRINT_SIZE);
}

int items_prepare(struct request *request)
{
    int r;

    for (size_t i = 0; i < request->params.items.n; i++)
        if ((r = check_item(request, i)))
            return r;
    if (request->params.key.data)
        take_fingerprint(request);
    return 0;
}

/* ---- reading ---- */

static int pack_row(void *arg, uint64_t seq, struct slice item)
{
    struct request *request = arg;
    struct seen_row row = {.seq = seq, .size = item.size};

    pack_text(&request->rows, item);
    row.end = request->rows.size;
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

void get_items_answer(struct request *request, const struct selection_result *got, struct slice rows)
{
    struct buf *reply = request_answer(request);

    pack_map(reply, got->missing ? 8 : 7);
    pack_text(reply, slice_of("items"));
    pack_array(reply, got->n);
    buf_append(reply, rows.data, rows.size);
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
    };
    int r;

    (void)ret_more;
    r = table->get_items(engine, &selection, pack_row, request, &request->got);
    if (r == SESSIOND_CONFLICT)
        return conflict_refuse(request, request->got.revision, request->got.epoch);
    if (r == 0)
        get_items_answer(request, &request->got, buf_slice(&request->rows));
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
    };

    memcpy(change.fingerprint, request->fingerprint, FINGERPRINT_SIZE);
    return change;
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
        return r == SESSIOND_CONFLICT ? conflict_refuse(request, done->revision, done->epoch) : r;
    reply = request_answer(request);
    pack_map(reply, 4);
    pack_seq(reply, "first_seq", done->first_seq);
    pack_seq(reply, "last_seq", done->last_seq);
    pack_state(reply, done);
    return 0;
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
        return r == SESSIOND_CONFLICT ? conflict_refuse(request, done->revision, done->epoch) : r;
    reply = request_answer(request);
    pack_map(reply, done->erased ? 5 : 4);
    pack_text(reply, slice_of("item"));
    if (request->rows.size)
        buf_append(reply, request->rows.data, request->rows.size);
    else
        pack_nil(reply);
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
        return r == SESSIOND_CONFLICT ? conflict_refuse(request, done->revision, done->epoch) : r;
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
        return r == SESSIOND_CONFLICT ? conflict_refuse(request, done->revision, done->epoch) : r;
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
        return r == SESSIOND_CONFLICT ? conflict_refuse(request, done->revision, done->epoch) : r;
    reply = request_answer(request);
    pack_map(reply, 1);
    pack_pair_number(reply, "removed", done->removed);
    return 0;
}
