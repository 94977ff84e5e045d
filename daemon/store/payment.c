#include "store/payment.h"

static bool is_paid_for(const struct lane_store *store)
{
    return store->account && store->table->use;
}

static enum account_resource bytes_of(const struct lane_store *store)
{
    return store->directory ? ACCOUNT_DISK : ACCOUNT_MEMORY;
}

enum account_resource payment_over(const struct lane_store *store, enum over over)
{
    return over == OVER_SESSIONS ? ACCOUNT_SESSIONS : bytes_of(store);
}

static void read_use(const struct lane_store *store, struct store_use *ret)
{
    if (store->engine)
        store->table->use(store->engine, ret);
}

void payment_count(struct lane_store *store)
{
    struct store_use now = store->paid;

    if (!is_paid_for(store))
        return;
    read_use(store, &now);
    account_settle(store->account, ACCOUNT_SESSIONS, &store->paid.sessions, now.sessions);
    account_settle(store->account, bytes_of(store), &store->paid.bytes, now.bytes);
    store->paid.spare = now.spare;
}

/* Charges what a change may add to a store, before it does; what it really was is counted after the commit. Return:
 * false if that would be over a limit. */
static bool pays_for_bytes(struct lane_store *store, uint64_t bytes)
{
    uint64_t of_spare = bytes < store->paid.spare ? bytes : store->paid.spare;

    if (!is_paid_for(store))
        return true;
    if (!account_take(store->account, bytes_of(store), bytes - of_spare))
        return false;
    store->paid.bytes += bytes - of_spare;
    store->paid.spare -= of_spare;
    return true;
}

bool payment_after(struct lane_store *store)
{
    struct store_use now = store->paid;

    if (!is_paid_for(store))
        return true;
    read_use(store, &now);
    if (now.sessions > store->paid.sessions &&
        !account_take(store->account, ACCOUNT_SESSIONS, now.sessions - store->paid.sessions))
        return false;
    if (now.sessions < store->paid.sessions)
        account_give_back(store->account, ACCOUNT_SESSIONS, store->paid.sessions - now.sessions);
    store->paid.sessions = now.sessions;
    return true;
}

void payment_before(struct lane_store *store, struct job *job)
{
    job->refused = false;
    job->no_sessions = is_paid_for(store) && account_is_full(store->account, ACCOUNT_SESSIONS);
    job->no_bytes = !pays_for_bytes(store, job->size);
}
