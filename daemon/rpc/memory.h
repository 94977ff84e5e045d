/*
 * Recent histories in memory: the items of a session as ready-made bytes of an answer, so that most reads are answered
 * by the loop without asking the lane. Of a long one the end is kept. Loop thread only; owned by struct daemon.
 *
 * What is kept of a session is always what has been acknowledged of it: it is learnt from the jobs that come back,
 * which for one session come in the order of their commits, and forgotten whenever that is in doubt. It may be asked
 * only for a request whose connection has no other one under way, because those take effect in the order sent.
 */
#ifndef SESSIOND_RPC_MEMORY_H
#define SESSIOND_RPC_MEMORY_H

#include "rpc/request.h"

struct memory_use {
    uint64_t bytes, sessions, hits, misses;
};

/* Return: 0 or a fault. */
int memory_open(struct memory **ret, uint64_t bytes_max);

/* Accepts NULL. */
void memory_close(struct memory *memory);

/* Answers a get_items. Return: false if the history is not known; else request->outcome and reply are set. */
bool memory_recall(struct request *request);

/* What a get_items or a change, which has just come back, tells. */
void memory_learn(struct request *request);

struct memory_use memory_use(const struct memory *memory);

#endif
