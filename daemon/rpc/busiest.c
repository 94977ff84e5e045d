#include "rpc/busiest.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(BUSIEST_SESSIONS < UINT16_MAX, "places are counted from 1 in 16 bits");
_Static_assert(PROTO_STORE_MAX + 1 <= UINT8_MAX && PROTO_SESSION_MAX <= UINT8_MAX, "sizes of names have 8 bits");

/* ---- the heap: no rank is lower than the one above it ---- */

static void put(struct busiest *busiest, size_t at, uint64_t rank, uint16_t place)
{
    busiest->heap[at].rank = rank;
    busiest->heap[at].place = place;
    busiest->at[place] = (uint16_t)at;
}

static void move(struct busiest *busiest, size_t to, size_t from)
{
    put(busiest, to, busiest->heap[from].rank, busiest->heap[from].place);
}

/* What is at `at` has one request more. */
static void sink(struct busiest *busiest, size_t at)
{
    uint64_t rank = busiest->heap[at].rank + 1;
    uint16_t place = busiest->heap[at].place;

    for (size_t below = 2 * at + 1; below < busiest->n; below = 2 * at + 1) {
        below += below + 1 < busiest->n && busiest->heap[below + 1].rank < busiest->heap[below].rank;
        if (busiest->heap[below].rank >= rank)
            break;
        move(busiest, at, below);
        at = below;
    }
    put(busiest, at, rank, place);
}

/* A place that was free goes to the top, with no requests yet. */
static void add(struct busiest *busiest, uint16_t place)
{
    size_t at = busiest->n++;

    for (; at > 0; at = (at - 1) / 2)
        move(busiest, at, (at - 1) / 2);
    put(busiest, 0, 0, place);
}

/* ---- the chains: places by their hash ---- */

static uint64_t hash_of(uid_t uid, struct slice store, struct slice session)
{
    return XXH3_64bits_withSeed(session.data, session.size, XXH3_64bits_withSeed(store.data, store.size, uid));
}

static bool is_of(const struct busy_place *place, uid_t uid, struct slice store, struct slice session)
{
    return place->uid == uid && place->store_size == store.size && place->session_size == session.size &&
           memcmp(place->names, store.data, store.size) == 0 &&
           memcmp(place->names + store.size, session.data, session.size) == 0;
}

static uint16_t *chain_of(struct busiest *busiest, uint64_t hash)
{
    return &busiest->chains[hash % BUSIEST_CHAINS];
}

static struct busy_place *find(struct busiest *busiest, uint64_t hash, uid_t uid, struct slice store,
                               struct slice session)
{
    for (uint16_t i = *chain_of(busiest, hash); i; i = busiest->places[i - 1].chain) {
        struct busy_place *place = &busiest->places[i - 1];

        if (place->hash == hash && is_of(place, uid, store, session))
            return place;
    }
    return NULL;
}

static void unchain(struct busiest *busiest, struct busy_place *place)
{
    uint16_t *link = chain_of(busiest, place->hash);

    while (&busiest->places[*link - 1] != place)
        link = &busiest->places[*link - 1].chain;
    *link = place->chain;
}

/* ---- counting ---- */

static void halve(struct busiest *busiest, uint64_t now_us)
{
    uint64_t n = busiest->halved_us ? (now_us - busiest->halved_us) / BUSIEST_HALVING_US : 0;
    unsigned shift = n < 63 ? (unsigned)n : 63;

    if (!busiest->halved_us)
        busiest->halved_us = now_us;
    busiest->halved_us += n * BUSIEST_HALVING_US;
    for (size_t i = 0; shift > 0 && i < busiest->n; i++) { /* which leaves the heap in its order */
        busiest->heap[i].rank >>= shift;
        busiest->places[i].n >>= shift;
    }
}

/* One that is free, or that of the lowest rank, which is at the top of the heap then. */
static struct busy_place *take_place(struct busiest *busiest)
{
    struct busy_place *place;

    if (busiest->n == BUSIEST_SESSIONS) {
        place = &busiest->places[busiest->heap[0].place];
        unchain(busiest, place);
        return place;
    }
    place = &busiest->places[busiest->n];
    add(busiest, (uint16_t)busiest->n);
    return place;
}

static struct busy_place *begin(struct busiest *busiest, uint64_t hash, uid_t uid, struct slice store,
                                struct slice session)
{
    struct busy_place *place = take_place(busiest);
    uint16_t *chain = chain_of(busiest, hash);

    place->hash = hash;
    place->n = 0;
    place->uid = uid;
    place->store_size = (uint8_t)store.size;
    place->session_size = (uint8_t)session.size;
    memcpy(place->names, store.data, store.size);
    memcpy(place->names + store.size, session.data, session.size);
    place->chain = *chain;
    *chain = (uint16_t)(place - busiest->places + 1);
    return place;
}

void busiest_count(struct busiest *busiest, uid_t uid, struct slice store, struct slice session, uint64_t now_us)
{
    uint64_t hash = hash_of(uid, store, session);
    struct busy_place *place;

    assert(store.size > 0 && store.size <= PROTO_STORE_MAX + 1);
    assert(session.size > 0 && session.size <= PROTO_SESSION_MAX);
    halve(busiest, now_us);
    place = find(busiest, hash, uid, store, session);
    if (!place)
        place = begin(busiest, hash, uid, store, session);
    place->n++;
    sink(busiest, busiest->at[place - busiest->places]);
}

/* ---- reading ---- */

static int compare_slices(struct slice a, struct slice b)
{
    int r = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

    return r ? r : (a.size > b.size) - (a.size < b.size);
}

/* Most requests first; the same in the order of their names. */
static int compare(const void *a, const void *b)
{
    const struct busy_session *x = a, *y = b;
    int r;

    if (x->n_requests != y->n_requests)
        return x->n_requests > y->n_requests ? -1 : 1;
    if (x->uid != y->uid)
        return x->uid < y->uid ? -1 : 1;
    r = compare_slices(x->store, y->store);
    return r ? r : compare_slices(x->session, y->session);
}

static struct busy_session session_at(const struct busy_place *place)
{
    return (struct busy_session){.uid = place->uid,
                                 .store = {place->names, place->store_size},
                                 .session = {place->names + place->store_size, place->session_size},
                                 .n_requests = place->n};
}

size_t busiest_read(struct busiest *busiest, enum busiest_whose whose, uid_t uid, uint64_t now_us,
                    struct busy_session *ret, size_t n)
{
    struct busy_session found[BUSIEST_SESSIONS];
    size_t n_found = 0;

    halve(busiest, now_us);
    for (size_t i = 0; i < busiest->n; i++)
        if (busiest->places[i].n > 0 && (whose == BUSIEST_OF_ALL || busiest->places[i].uid == uid))
            found[n_found++] = session_at(&busiest->places[i]);
    if (n_found == 0)
        return 0;
    qsort(found, n_found, sizeof(*found), compare);
    if (n > n_found)
        n = n_found;
    for (size_t i = 0; i < n; i++)
        ret[i] = found[i];
    return n;
}
