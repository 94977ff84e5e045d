/*
 * What is in a store's log and not yet in the tables that are made from it: the last items, where their sessions stand,
 * and the last receipts. Adding items only appends to the log, in order; the tables, whose pages lie all about, follow
 * in steps (sqlite_follow.c), and until then this is what they lack.
 *
 * Part of the SQLite engine, used by the store's lane. It obeys the engine's transactions: what a transaction puts here
 * or settles counts for what follows in it, stays if it is committed, and is undone if it is rolled back.
 */
#ifndef SESSIOND_STORE_SQLITE_FRESH_H
#define SESSIOND_STORE_SQLITE_FRESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "buf.h"

/* Where a session stands. */
struct session {
    bool exists;
    uint64_t number; /* the position of its first row in the log; never used twice */
    uint64_t count, bytes, head_seq, revision, epoch, created_us, updated_us;
};

struct fresh_item {
    uint64_t seq, position;
};

/* A session that the tables do not have as it is. Owned by the struct fresh. */
struct fresh_session {
    struct list link;       /* in sessions, following or stuck */
    struct list touched;    /* in fresh->touched: the open transaction has changed it */
    struct session session; /* as it is */
    struct session before;  /* as it was when the open transaction began */
    struct slice name;
    struct fresh_item *items; /* that the tables lack; both numbers rise */
    size_t n, capacity;
    bool settled;  /* the open transaction has brought the tables up to date: they count now, and not this */
    bool is_stuck; /* it cannot be settled, for its pages are damaged */
};

struct fresh_receipt {
    struct list link; /* in receipts or stuck_receipts */
    uint64_t position;
    struct slice key;
    bool is_stuck;
};

struct fresh_left {
    int64_t row;      /* as left_behind has it */
    uint64_t session; /* its number; 0: it is all sessions' */
};

struct fresh {
    void *by_name; /* tsearch: all sessions */
    void *by_key;  /* tsearch: all receipts */
    struct list sessions;
    struct list following; /* sessions whose turn to be settled it is */
    struct list stuck;
    struct list touched;
    struct list receipts;       /* by position */
    struct list stuck_receipts; /* whose pages are damaged */
    size_t n_settled; /* receipts at the beginning of the list that the open transaction has put into the table */
    size_t n;         /* items and receipts that wait for the tables */

    /* The state of following; sqlite_follow.c. */
    uint64_t followed;       /* position in the log up to which the tables have all but what was left behind */
    uint64_t target;         /* the next one; 0: no following is under way */
    bool reached;            /* in the open transaction `followed` becomes `target` */
    bool one_by_one;         /* a step met damage: the next ones are of one session or receipt, to find whose it is */
    uint64_t resume_us;      /* monotonic: after a failure, not before */
    struct fresh_left *left; /* owned: rows that opening could not place, for their session's page is damaged, */
    size_t n_left;           /* and those by which a loss was accepted, which raised what waited then */
};

void fresh_init(struct fresh *fresh);
void fresh_deinit(struct fresh *fresh);

/* Return: NULL if the tables have the session as it is, or have it first. */
struct fresh_session *fresh_find(const struct fresh *fresh, struct slice name);

/* `found`: what fresh_find gives. Return: the session, touched and with room for n more items; if it is new here, it
 * stands as `session` says. NULL: it cannot wait here, for the open transaction has settled it, or there is no memory.
 */
struct fresh_session *fresh_begin(struct fresh *fresh, struct fresh_session *found, struct slice name,
                                  const struct session *session, size_t n);

/* It is about to change. */
void fresh_touch(struct fresh *fresh, struct fresh_session *session);

/* There must be room. */
void fresh_add_item(struct fresh *fresh, struct fresh_session *session, uint64_t seq, uint64_t position);

/* It cannot come into the tables; it no longer counts as waiting for them. */
void fresh_set_aside(struct fresh *fresh, struct fresh_session *session);
void fresh_set_receipt_aside(struct fresh *fresh, struct fresh_receipt *receipt);

/* The tables are to follow up to `target`, the log's last position: all sessions that wait, in the order in which the
 * table of items has them, so that neighbours share a page. */
void fresh_begin_following(struct fresh *fresh, uint64_t target);

/* The index of its first item whose seq is not less. */
size_t fresh_item_at(const struct fresh_session *session, uint64_t seq);

/* Return: NULL if there is none. */
struct fresh_receipt *fresh_find_receipt(const struct fresh *fresh, struct slice key);

/* Return: false if it cannot wait here, for there is one with that key, or no memory. */
bool fresh_add_receipt(struct fresh *fresh, struct slice key, uint64_t position);

/* A row is left. Return: false: no memory. */
bool fresh_leave(struct fresh *fresh, int64_t row, uint64_t session);

/* Whether rows of this session were left: nobody knows where it stands. */
bool fresh_is_left(const struct fresh *fresh, uint64_t number);

/* The end of a transaction; `position` is the log's last one that is committed. */
void fresh_commit(struct fresh *fresh);
void fresh_rollback(struct fresh *fresh, uint64_t position);

#endif
