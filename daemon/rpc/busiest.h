/*
 * Which sessions are asked for most, lately: a sketch of fixed size (Space-Saving, Metwally and others 2005), however
 * many sessions there are. Up to BUSIEST_SESSIONS of them it counts exactly; beyond that a session that is new takes
 * the place of the one with the fewest requests, and inherits their number as its rank, so that who asks often is found
 * whoever else asks. What is told of a session is only what was seen of it since it has its place: never too much.
 *
 * Every BUSIEST_HALVING_US all numbers are halved. So a request counts whole when it came in this while, by half when
 * it came in the one before, and so on.
 *
 * To count costs a hash and a few steps in a heap, and no memory is ever asked for. A zeroed one is empty. Owned by
 * struct daemon; the loop thread's.
 */
#ifndef SESSIOND_RPC_BUSIEST_H
#define SESSIOND_RPC_BUSIEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "proto.h"

enum {
    BUSIEST_SESSIONS = 256,
    BUSIEST_CHAINS = 512, /* a power of two */
    BUSIEST_HALVING_US = 10000000,
    BUSIEST_NAME_MAX = PROTO_STORE_MAX + 1 + PROTO_SESSION_MAX, /* the store's name, with the @ of a shared one */
};

/* A session. `uid`: its owner; of a shared store, who asks. The texts are borrowed. */
struct busy_session {
    uid_t uid;
    struct slice store, session;
    uint64_t n_requests; /* lately, at least */
};

struct busiest {
    struct busy_place {
        uint64_t hash;
        uint64_t n;     /* its requests */
        uint16_t chain; /* the next place with a hash alike, counted from 1; 0: none */
        uid_t uid;
        uint8_t store_size, session_size;
        char names[BUSIEST_NAME_MAX]; /* the store's, then the session's */
    } places[BUSIEST_SESSIONS];
    struct {
        uint64_t rank; /* by which a place is kept: its requests, and those of whom it was taken from */
        uint16_t place;
    } heap[BUSIEST_SESSIONS];        /* the lowest rank first */
    uint16_t at[BUSIEST_SESSIONS];   /* where in the heap a place is */
    uint16_t chains[BUSIEST_CHAINS]; /* their first places, counted from 1 */
    size_t n;                        /* places taken */
    uint64_t halved_us;              /* monotonic: when the numbers were halved last; 0: never counted */
};

/* A request of this session. The store's name has 1 to PROTO_STORE_MAX + 1 bytes, the session's id 1 to
 * PROTO_SESSION_MAX. */
void busiest_count(struct busiest *busiest, uid_t uid, struct slice store, struct slice session, uint64_t now_us);

/* The n busiest sessions, those with most requests first: of all, or of one uid alone. The texts are borrowed until the
 * next count. Return: how many there are. */
enum busiest_whose { BUSIEST_OF_ALL, BUSIEST_OF_ONE };
size_t busiest_read(struct busiest *busiest, enum busiest_whose whose, uid_t uid, uint64_t now_us,
                    struct busy_session *ret, size_t n);

#endif
