#include "store/sqlite_fresh.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static int compare_slices(struct slice a, struct slice b)
{
    if (a.size != b.size)
        return a.size < b.size ? -1 : 1;
    return a.size > 0 ? memcmp(a.data, b.data, a.size) : 0;
}

static int compare_sessions(const void *a, const void *b)
{
    return compare_slices(((const struct fresh_session *)a)->name, ((const struct fresh_session *)b)->name);
}

static int compare_receipts(const void *a, const void *b)
{
    return compare_slices(((const struct fresh_receipt *)a)->key, ((const struct fresh_receipt *)b)->key);
}

/* Memory for a struct with a copy of the bytes behind it. Only a forged row has none, and no pointer to them. */
static void *alloc_with(size_t size, struct slice bytes, struct slice *ret)
{
    char *memory = calloc(1, size + bytes.size);

    if (!memory)
        return NULL;
    if (bytes.size > 0)
        memcpy(memory + size, bytes.data, bytes.size);
    *ret = (struct slice){memory + size, bytes.size};
    return memory;
}

/* ---- sessions ---- */

struct fresh_session *fresh_find(const struct fresh *fresh, struct slice name)
{
    struct fresh_session wanted = {.name = name}, **found;

    found = tfind(&wanted, &fresh->by_name, compare_sessions);
    return found && !(*found)->settled ? *found : NULL;
}

static void drop_session(struct fresh *fresh, struct fresh_session *session)
{
    tdelete(session, &fresh->by_name, compare_sessions);
    list_remove(&session->link);
    list_remove(&session->touched);
    fresh->n -= session->is_stuck ? 0 : session->n;
    free(session->items);
    free(session);
}

static struct fresh_session *new_session(struct fresh *fresh, struct slice name, const struct session *session)
{
    struct slice copy;
    struct fresh_session *ret = alloc_with(sizeof(*ret), name, &copy), **found;

    if (!ret)
        return NULL;
    ret->name = copy;
    ret->session = *session;
    list_init(&ret->touched);
    found = tsearch(ret, &fresh->by_name, compare_sessions);
    if (!found || *found != ret) {
        free(ret);
        return NULL;
    }
    list_append(&fresh->sessions, &ret->link);
    return ret;
}

static bool make_room(struct fresh_session *session, size_t n)
{
    size_t capacity = session->capacity ? 2 * session->capacity : 4;
    struct fresh_item *items;

    if (session->n + n <= session->capacity)
        return true;
    if (capacity < session->n + n)
        capacity = session->n + n;
    items = realloc(session->items, capacity * sizeof(*items));
    if (!items)
        return false;
    session->items = items;
    session->capacity = capacity;
    return true;
}

struct fresh_session *fresh_begin(struct fresh *fresh, struct fresh_session *found, struct slice name,
                                  const struct session *session, size_t n)
{
    struct fresh_session *ret = found ? found : new_session(fresh, name, session);

    if (!ret)
        return NULL;
    if (!make_room(ret, n)) {
        if (ret->n == 0)
            drop_session(fresh, ret);
        return NULL;
    }
    fresh_touch(fresh, ret);
    return ret;
}

void fresh_touch(struct fresh *fresh, struct fresh_session *session)
{
    if (!list_is_empty(&session->touched))
        return;
    session->before = session->session;
    list_append(&fresh->touched, &session->touched);
}

void fresh_add_item(struct fresh *fresh, struct fresh_session *session, uint64_t seq, uint64_t position)
{
    session->items[session->n++] = (struct fresh_item){seq, position};
    fresh->n++;
}

void fresh_set_aside(struct fresh *fresh, struct fresh_session *session)
{
    session->is_stuck = true;
    fresh->n -= session->n;
    list_remove(&session->link);
    list_append(&fresh->stuck, &session->link);
}

size_t fresh_item_at(const struct fresh_session *session, uint64_t seq)
{
    size_t low = 0, high = session->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (session->items[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- receipts ---- */

struct fresh_receipt *fresh_find_receipt(const struct fresh *fresh, struct slice key)
{
    struct fresh_receipt wanted = {.key = key}, **found;

    found = tfind(&wanted, &fresh->by_key, compare_receipts);
    return found ? *found : NULL;
}

bool fresh_add_receipt(struct fresh *fresh, struct slice key, uint64_t position)
{
    struct slice copy;
    struct fresh_receipt *receipt = alloc_with(sizeof(*receipt), key, &copy), **found;

    if (!receipt)
        return false;
    receipt->key = copy;
    receipt->position = position;
    found = tsearch(receipt, &fresh->by_key, compare_receipts);
    if (!found || *found != receipt) {
        free(receipt);
        return false;
    }
    list_append(&fresh->receipts, &receipt->link);
    fresh->n++;
    return true;
}

static struct fresh_receipt *receipt_of(struct list *link)
{
    return CONTAINER_OF(link, struct fresh_receipt, link);
}

static void drop_receipt(struct fresh *fresh, struct fresh_receipt *receipt)
{
    tdelete(receipt, &fresh->by_key, compare_receipts);
    list_remove(&receipt->link);
    fresh->n -= !receipt->is_stuck;
    free(receipt);
}

void fresh_set_receipt_aside(struct fresh *fresh, struct fresh_receipt *receipt)
{
    receipt->is_stuck = true;
    fresh->n--;
    list_remove(&receipt->link);
    list_append(&fresh->stuck_receipts, &receipt->link);
}

/* ---- what was left ---- */

bool fresh_leave(struct fresh *fresh, int64_t row, uint64_t session)
{
    struct fresh_left *left = realloc(fresh->left, (fresh->n_left + 1) * sizeof(*left));

    if (!left)
        return false;
    fresh->left = left;
    left[fresh->n_left++] = (struct fresh_left){row, session};
    return true;
}

bool fresh_is_left(const struct fresh *fresh, uint64_t number)
{
    for (size_t i = 0; i < fresh->n_left; i++) {
        if (fresh->left[i].session == number)
            return true;
    }
    return false;
}

/* ---- the end of a transaction ---- */

static struct fresh_session *pop_touched(struct fresh *fresh)
{
    struct list *link = list_pop(&fresh->touched);

    return link ? CONTAINER_OF(link, struct fresh_session, touched) : NULL;
}

void fresh_commit(struct fresh *fresh)
{
    struct fresh_session *session;

    while ((session = pop_touched(fresh))) {
        if (session->settled)
            drop_session(fresh, session);
    }
    for (; fresh->n_settled > 0; fresh->n_settled--)
        drop_receipt(fresh, receipt_of(fresh->receipts.next));
    if (!fresh->reached)
        return;
    fresh->followed = fresh->target;
    fresh->target = 0;
    fresh->reached = fresh->one_by_one = false;
}

void fresh_rollback(struct fresh *fresh, uint64_t position)
{
    struct fresh_session *session;

    while ((session = pop_touched(fresh))) {
        session->settled = false;
        session->session = session->before;
        for (; session->n > 0 && session->items[session->n - 1].position > position; session->n--)
            fresh->n--;
        if (session->n == 0)
            drop_session(fresh, session);
    }
    while (!list_is_empty(&fresh->receipts) && receipt_of(fresh->receipts.previous)->position > position)
        drop_receipt(fresh, receipt_of(fresh->receipts.previous));
    while (fresh->n_left > 0 && fresh->left[fresh->n_left - 1].row > (int64_t)position)
        fresh->n_left--;
    fresh->n_settled = 0;
    fresh->reached = false;
}

/* ---- following ---- */

static int compare_numbers(const void *a, const void *b)
{
    const struct fresh_session *x = *(struct fresh_session *const *)a, *y = *(struct fresh_session *const *)b;

    return x->session.number < y->session.number ? -1 : x->session.number > y->session.number;
}

static void sort_by_number(struct list *sessions)
{
    struct fresh_session **sorted;
    size_t n = 0, i = 0;

    LIST_FOR_EACH(link, sessions)
    n++;
    sorted = n ? malloc(n * sizeof(struct fresh_session *)) : NULL;
    if (!sorted)
        return; /* it only takes longer */
    LIST_FOR_EACH(link, sessions)
    sorted[i++] = CONTAINER_OF(link, struct fresh_session, link);
    qsort(sorted, n, sizeof(struct fresh_session *), compare_numbers);
    for (i = 0; i < n; i++) {
        list_remove(&sorted[i]->link);
        list_append(sessions, &sorted[i]->link);
    }
    free(sorted);
}

void fresh_begin_following(struct fresh *fresh, uint64_t target)
{
    fresh->target = target;
    list_splice(&fresh->following, &fresh->sessions);
    sort_by_number(&fresh->following);
}

/* ---- life ---- */

void fresh_init(struct fresh *fresh)
{
    *fresh = (struct fresh){0};
    list_init(&fresh->sessions);
    list_init(&fresh->following);
    list_init(&fresh->stuck);
    list_init(&fresh->touched);
    list_init(&fresh->receipts);
    list_init(&fresh->stuck_receipts);
}

void fresh_deinit(struct fresh *fresh)
{
    list_splice(&fresh->sessions, &fresh->following);
    list_splice(&fresh->sessions, &fresh->stuck);
    while (!list_is_empty(&fresh->sessions))
        drop_session(fresh, CONTAINER_OF(fresh->sessions.next, struct fresh_session, link));
    list_splice(&fresh->receipts, &fresh->stuck_receipts);
    while (!list_is_empty(&fresh->receipts))
        drop_receipt(fresh, receipt_of(fresh->receipts.next));
    free(fresh->left);
}
