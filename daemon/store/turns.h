/*
 * Who waits, in turn: a ring of parties. Of each party the first stands in the ring, and the others behind it, in the
 * order in which they came; one of each party is taken, and then the next of each. So a party that has much waits for
 * itself, and holds up another one by as much as that has, and no more.
 *
 * The links stand inside of what waits; nothing is owned or allocated, and nothing locked. To put something looks
 * through the parties that wait at the moment.
 */
#ifndef SESSIOND_STORE_TURNS_H
#define SESSIOND_STORE_TURNS_H

#include <stdbool.h>

#include "base/list.h"

struct turn {
    struct list link;   /* in the ring, or behind the first of its party */
    struct list behind; /* of the first: the others */
    const void *party;
};

static inline void turn_init(struct turn *turn, const void *party)
{
    list_init(&turn->link);
    list_init(&turn->behind);
    turn->party = party;
}

/* Whether it stands somewhere. */
static inline bool turn_waits(const struct turn *turn)
{
    return !list_is_empty(&turn->link);
}

/* The last of its party; a new party is the last of the ring. It must not wait already. */
void turns_put(struct list *ring, struct turn *turn);

/* The one that turns_take would take. Return: NULL if nobody waits. */
struct turn *turns_first(const struct list *ring);

/* Takes the first one out; its party is the last of the ring then. */
struct turn *turns_take(struct list *ring);

/* Takes one out that waits, or does not; the turns of its party stay where they were. */
void turns_remove(struct turn *turn);

#endif
