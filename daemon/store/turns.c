#include "store/turns.h"

#include <stddef.h>

static struct turn *turn_of(struct list *link)
{
    return CONTAINER_OF(link, struct turn, link);
}

void turns_put(struct list *ring, struct turn *turn)
{
    LIST_FOR_EACH(link, ring)
    if (turn_of(link)->party == turn->party) {
        list_append(&turn_of(link)->behind, &turn->link);
        return;
    }
    list_append(ring, &turn->link);
}

struct turn *turns_first(const struct list *ring)
{
    return list_is_empty(ring) ? NULL : turn_of(ring->next);
}

/* The next of its party, with the others behind it. NULL: there is none. */
static struct turn *successor_of(struct turn *turn)
{
    struct list *link = list_pop(&turn->behind);

    if (!link)
        return NULL;
    list_splice(&turn_of(link)->behind, &turn->behind);
    return turn_of(link);
}

struct turn *turns_take(struct list *ring)
{
    struct turn *turn = turns_first(ring), *next;

    if (!turn)
        return NULL;
    list_remove(&turn->link);
    next = successor_of(turn);
    if (next)
        list_append(ring, &next->link);
    return turn;
}

void turns_remove(struct turn *turn)
{
    struct turn *next = successor_of(turn);

    if (next)
        list_append(&turn->link, &next->link); /* before the one that follows in the ring, for a moment beside it */
    list_remove(&turn->link);
}
