/* What sessions and stores there are. */
#include "rpc/methods.h"

enum { SESSION_BYTES = 160 }; /* of an entry at most, without its id */

static int pack_session(void *arg, const struct session_info *session)
{
    struct request *request = arg;
    struct buf *rows = &request->rows;

    if (request_charge_rows(request, 2 * (session->id.size + SESSION_BYTES)))
        return SESSIOND_BUSY;
    request->n++;
    pack_map(rows, 8);
    pack_pair_text(rows, "id", session->id);
    pack_pair_number(rows, "count", session->count);
    pack_pair_number(rows, "bytes", session->bytes);
    pack_pair_number(rows, "head_seq", session->head_seq);
    pack_pair_number(rows, "revision", session->revision);
    pack_pair_number(rows, "epoch", session->epoch);
    pack_pair_number(rows, "created_us", session->created_us);
    pack_pair_number(rows, "updated_us", session->updated_us);
    return 0;
}

int list_sessions_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    const struct params *params = &request->params;
    struct session_range range = {
        .after = params->after_id,
        .prefix = params->prefix,
        .limit = params->limit.present ? params->limit.value : PROTO_LIST_MAX,
    };
    struct buf *reply;
    bool more;
    int r;

    (void)ret_more;
    r = table->list_sessions(engine, &range, pack_session, request, &more);
    if (r)
        return r;
    reply = request_answer(request);
    pack_map(reply, 2);
    pack_text(reply, slice_of("sessions"));
    pack_array(reply, request->n);
    buf_append(reply, request->rows.data, request->rows.size);
    pack_pair_bool(reply, "more", more);
    return 0;
}

/* ---- from store to store: list_stores and info ---- */

static void pack_store(struct request *request, const struct engine_table *table, const struct store_sizes *sizes)
{
    struct buf *rows = &request->rows;
    const struct store *store = request->store;

    request->n++;
    pack_map(rows, 7);
    pack_pair_text(rows, "name", slice_of(store->name));
    pack_pair_text(rows, "engine", slice_of(table->name));
    pack_pair_text(rows, "durability", slice_of(store->directory ? "full" : "volatile"));
    if (sizes) {
        pack_pair_number(rows, "sessions", sizes->sessions);
        pack_pair_number(rows, "bytes", sizes->bytes);
        pack_pair_number(rows, "log_bytes", sizes->log_bytes);
        pack_pair_number(rows, "missing", sizes->missing);
    } else {
        pack_pair_nil(rows, "sessions");
        pack_pair_nil(rows, "bytes");
        pack_pair_nil(rows, "log_bytes");
        pack_pair_nil(rows, "missing");
    }
}

int stores_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct store_sizes sizes;
    int r;

    (void)ret_more;
    r = table->sizes(engine, &sizes);
    if (r == 0)
        pack_store(request, table, &sizes);
    return r;
}

/* The owner's stores, then those that others share with the caller. */
static struct store *next_store(struct request *request)
{
    struct list *stores = &request->owner->stores, *link = stores->next;
    struct store *store = request->store;
    bool is_shared = store && store->name[0] == '@';

    if (store)
        link = is_shared ? stores : store->link.next;
    while (link != stores && !CONTAINER_OF(link, struct store, link)->exists)
        link = link->next;
    if (link != stores)
        return CONTAINER_OF(link, struct store, link);
    return registry_next_shared(request->daemon->registry, request->caller, is_shared ? store : NULL);
}

bool stores_again(struct request *request, int outcome)
{
    struct store *store;

    if (request->store && outcome) /* it cannot be opened at the moment, and is listed all the same */
        pack_store(request, request->store->lane.table, NULL);
    store = next_store(request);
    if (!store)
        return false;
    request->store = store;
    return true;
}

/* Only for a store that is there: whoever mistypes a name should be told. */
int recover_check(struct request *request)
{
    if (!request_existing_store(request))
        return request_refuse(request, SESSIOND_NOT_FOUND, "there is no such store");
    return 0;
}

int recover_run(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct buf *reply;
    uint64_t missing;
    int r;

    (void)ret_more;
    r = table->recover(engine, &missing);
    if (r)
        return r;
    reply = request_answer(request);
    pack_map(reply, 1);
    pack_pair_number(reply, "missing", missing);
    return 0;
}

int list_stores_answer(struct request *request)
{
    struct buf *reply = request_answer(request);

    pack_map(reply, 1);
    pack_text(reply, slice_of("stores"));
    pack_array(reply, request->n);
    buf_append(reply, request->rows.data, request->rows.size);
    return 0;
}
