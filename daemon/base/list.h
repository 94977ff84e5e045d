/*
 * A doubly linked list whose links stand inside its members. The list owns nothing. No locks: one thread at a time.
 */
#ifndef SESSIOND_LIST_H
#define SESSIOND_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/mem.h"

struct list {
    struct list *next, *previous; /* a head and an unlinked member point at themselves */
};

static inline void list_init(struct list *list)
{
    list->next = list->previous = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_append(struct list *head, struct list *link)
{
    link->previous = head->previous;
    link->next = head;
    head->previous->next = link;
    head->previous = link;
}

static inline void list_remove(struct list *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    list_init(link);
}

/* Removes and returns the first link, NULL if the list is empty. */
static inline struct list *list_pop(struct list *head)
{
    struct list *link = head->next;

    if (link == head)
        return NULL;
    list_remove(link);
    return link;
}

/* Moves all members of `from` to the end of `head`. */
static inline void list_splice(struct list *head, struct list *from)
{
    if (list_is_empty(from))
        return;
    from->next->previous = head->previous;
    head->previous->next = from->next;
    from->previous->next = head;
    head->previous = from->previous;
    list_init(from);
}

#define LIST_FOR_EACH(link, head) for (struct list *link = (head)->next; (link) != (head); (link) = (link)->next)

/* The same when the body may remove `link`. */
#define LIST_FOR_EACH_SAFE(link, head)                                                                                 \
    for (struct list *link = (head)->next, *link##_next = (link)->next; (link) != (head);                              \
         (link) = link##_next, link##_next = (link)->next)

#endif
