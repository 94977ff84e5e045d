/*
 * Lanes: threads that own stores. A lane takes everything that waits for one store, runs it in one transaction,
 * commits, and hands the jobs back to the loop: group commit.
 *
 * Nobody is held up by how much another has to do: those who pay for stores take turns, and so do the stores of each;
 * in a store those who ask take turns. The jobs of one who asks run in the order in which they were submitted. The last
 * eighth of a lane's queue is kept for those who have little in flight, as account.h says.
 *
 * After an I/O error a store is quarantined: it leaves its lane for the infirmary, a lane more, so that a stuck disk
 * holds up nobody else. There it is closed, synced, opened anew, and compared with what was acknowledged, again and
 * again until that succeeds; then it comes back. Meanwhile changes are refused, and reads wait for it or are told
 * `unavailable`.
 *
 * A job is embedded in what wants it done (a request). From lane_submit until the done callback the lane owns it and
 * all it points at; before and after, the loop does. The queues are the only things that both touch, under a lock.
 * Everything here is called on the loop thread, but for the run function of a job.
 */
#ifndef SESSIOND_STORE_LANE_H
#define SESSIOND_STORE_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/histogram.h"
#include "base/list.h"
#include "store/engine.h"
#include "store/turns.h"

struct account;
struct config;
struct engine;
struct engine_table;
struct job;
struct lane;
struct lanes;
struct lane_store;
struct uv_loop_s;

enum job_kind {
    JOB_READ,   /* shares a transaction; changes nothing */
    JOB_CHANGE, /* shares a transaction */
    JOB_STEPS,  /* outside of transactions, again and again between batches, until *ret_more is false */
};

/* On the lane's thread. May run twice (after a rollback) and then starts from scratch. What it allocates for the answer
 * it allocates here, before the commit. Return: 0, an outcome, or a fault: what the job's outcome becomes. */
typedef int (*job_run_fn)(struct job *job, const struct engine_table *table, struct engine *engine, bool *ret_more);

/* On the loop thread: jobs are back, job->outcome says how it went. They are linked by job->link. */
typedef void (*jobs_done_fn)(void *arg, struct list *jobs);

struct job {
    struct list link;
    struct turn turn; /* while it waits: the lane's */
    struct lane_store *store;
    struct account *account; /* of the one who asks; NULL: nobody in particular */
    enum job_kind kind;
    job_run_fn run;
    bool frees;                 /* it removes items: on a full disk the ballast is given up for it */
    size_t size;                /* bytes that it holds while it waits, and about what a change adds to the store */
    bool no_sessions, no_bytes; /* told to run: the store's owner may have no more of them; see struct change */
    bool refused;               /* told by run: SESSIOND_FULL is for that, and nothing has been changed */
    int outcome;                /* 0: done and committed; an outcome; or a fault */
};

/* A store, as its lane sees it. Embedded in struct store; set up by lane_adopt, then the lane's. */
struct lane_store {
    struct lane *home; /* its lane when it is well */
    struct lane *lane; /* home, or the infirmary; changed by the loop alone, while the store is away */
    const struct engine_table *table;
    const char *directory;           /* NULL: volatile */
    struct list waiting;             /* turns of jobs, under the lane's lock */
    size_t n_waiting, bytes_waiting; /* the same */
    struct turn ready;               /* among the lane's stores with waiting jobs, under its lock */
    struct list open;                /* in the lane's list of open stores, the most recently used last */
    struct engine *engine;           /* NULL: closed */
    struct job *steps;               /* the job that is run between batches, NULL: none */
    uint64_t log_bytes;              /* that its lane counts for it */
    struct account *account;         /* who pays for what it holds; NULL: nobody. Set after lane_adopt, as is */
    struct store_use paid; /* what it has been charged: the lane's from the first job on. `bytes` with what the batch
                              under way may add, `spare` without */
    bool tend;             /* housekeeping has more to do */
    bool ill;              /* its engine broke, and it is to leave the lane */
    bool away;             /* under the lane's lock: on its way to the other lane, no batch takes it */
    bool quarantined;      /* the loop's: changes are refused */
    unsigned quarantines;  /* the loop's: how often it was; what was known of it before is not to be trusted */
    struct list moving;    /* in the list of stores that are away, under its lock */
};

/* Starts the threads. Return: 0 or a fault. */
int lanes_open(struct lanes **ret, struct uv_loop_s *loop, const struct config *config, jobs_done_fn done, void *arg);

/* Puts a store on a lane. Nobody pays for what it holds, unless the caller says who. */
void lane_adopt(struct lanes *lanes, struct lane_store *store, const struct engine_table *table, const char *directory);

/* How long the jobs that wait for this store's lane, or for the busiest one, will take, as far as those before them
 * tell. */
uint64_t lane_wait_ms(const struct lane_store *store);
uint64_t lanes_wait_ms(struct lanes *lanes);

/* Hands a job over. Return: 0; SESSIOND_BUSY if the lane's queue is full; SESSIOND_UNAVAILABLE for a change of a store
 * in quarantine. */
int lane_submit(struct job *job);

/* What a lane counts; its own, for all to read. */
struct lane_counts {
    struct histogram batch;     /* requests in a transaction */
    struct histogram commit_us; /* of transactions that change something */
    struct histogram sync_us;   /* of databases and logs: in commits, checkpoints and what else is written */
    uint64_t rollbacks;
    uint64_t log_bytes; /* of its open stores */
};

struct lane_reading {
    char name[16];
    const struct lane_counts *counts; /* the lane's */
    uint64_t rollbacks, log_bytes;    /* out of these */
    uint64_t n_jobs, bytes;           /* that wait */
};

/* How the i-th lane, the infirmary being the last, does. Return: false after that. */
bool lanes_read(struct lanes *lanes, size_t index, struct lane_reading *ret);

/* Whether every lane but the infirmary has gone on since this was asked last, or has nothing to do. Lanes that are at
 * the same piece of work as then are named in the log. */
bool lanes_get_on(struct lanes *lanes);

/* Stops the threads when their queues are empty; each closes its stores. Waits for them until `deadline_us` of the
 * monotonic clock, and hands back what they did last. Return: 0, or SESSIOND_UNAVAILABLE if one is stuck: the process
 * should end without more ado. */
int lanes_stop(struct lanes *lanes, uint64_t deadline_us);

/* After lanes_stop returned 0: closes the loop's handle; frees when that is done. */
void lanes_close(struct lanes *lanes);

#endif
