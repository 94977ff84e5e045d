/*
 * What a lane's thread does with stores: opens them, runs jobs in them, keeps house between batches, and closes them.
 * It knows nothing of queues, nor of where a store belongs: one that broke is closed and marked ill, and the lane,
 * which owns the worker, sends it away.
 *
 * All of it on the lane's thread, but for the counts, which everybody may read.
 */
#ifndef SESSIOND_STORE_WORKER_H
#define SESSIOND_STORE_WORKER_H

#include "store/lane.h"

struct ballast;

struct worker {
    const struct config *config;
    struct ballast *ballast;
    bool keeps_all;   /* closes none because there are too many */
    struct list open; /* stores, the most recently used last */
    size_t n_open;
    struct list done; /* jobs that have their outcome: for the lane to take, after each call */
    struct lane_counts counts;
};

void worker_init(struct worker *worker, const struct config *config, struct ballast *ballast, bool keeps_all);

/* Return: 0, or what the jobs that wait for the store are answered with. */
int worker_open(struct worker *worker, struct lane_store *store);

/* Puts a store at the end of the list of open ones, as the one used last, whether it could be opened or not. */
void worker_keep(struct worker *worker, struct lane_store *store);

/* Runs a batch: one job that goes on in steps, or others that share a transaction. */
void worker_run(struct worker *worker, struct lane_store *store, struct list *batch);

/* One step of housekeeping and one of a long job. Return: whether there is more to do for this store. */
bool worker_tend(struct worker *worker, struct lane_store *store);

void worker_close(struct worker *worker, struct lane_store *store);

#endif
