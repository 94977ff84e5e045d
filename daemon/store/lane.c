#include "store/lane.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <uv.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/syncs.h"
#include "config/config.h"
#include "store/account.h"
#include "store/ballast.h"
#include "store/worker.h"

enum {
    PACE_BATCHES = 8,   /* batches that the pace of a lane is told from, about */
    SETTLE_SECONDS = 1, /* after work, an idle lane looks after its stores soon, as the infirmary does always, */
    IDLE_SECONDS = 30,  /* and then now and again; a busy one no more seldom */
};

struct lane {
    struct lanes *lanes;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;  /* there is work, or it is time to stop */
    struct list ready;    /* turns of stores with waiting jobs; the parties are those who pay for them */
    size_t n_jobs, bytes; /* waiting */
    uint64_t job_ns;      /* that one took lately: its share of a batch, and of what was tended after it */
    uint64_t taken_us;    /* when the last batch was taken, */
    size_t n_taken;       /* and of how many jobs; 0: its time has been counted */
    bool stopping;
    bool at_work;        /* not waiting for work */
    uint64_t turns;      /* pieces of work that were begun */
    uint64_t turns_seen; /* when somebody last asked whether it gets on */
    bool ended;          /* its thread touches nothing any more */

    /* The lane's own. */
    bool is_infirmary;
    struct worker worker; /* its open stores; in the infirmary all that are there */
    uint64_t tended_us;   /* when all of them were looked after */
};

struct lanes {
    const struct config *config;
    jobs_done_fn on_done;
    void *arg;
    uv_async_t wake; /* the loop: jobs are done */
    struct ballast *ballast;

    pthread_mutex_t lock;
    struct list done;   /* jobs */
    struct list moving; /* stores */

    size_t next; /* lane for the next store */
    size_t n;    /* lanes, the infirmary included, which is the last */
    struct lane lane[];
};

static void hand_back(struct lanes *lanes, struct list *jobs)
{
    bool first;

    if (list_is_empty(jobs))
        return;
    pthread_mutex_lock(&lanes->lock);
    first = list_is_empty(&lanes->done);
    list_splice(&lanes->done, jobs);
    pthread_mutex_unlock(&lanes->lock);
    if (first)
        uv_async_send(&lanes->wake);
}

/* ---- between home and the infirmary ---- */

static struct lane *infirmary(struct lanes *lanes)
{
    return &lanes->lane[lanes->n - 1];
}

/* The loop puts the store on the other lane, with all that waits for it. This lane must not touch it any more. */
static void send_away(struct lane *lane, struct lane_store *store)
{
    struct lanes *lanes = lane->lanes;

    store->ill = false;
    pthread_mutex_lock(&lane->lock);
    store->away = true;
    turns_remove(&store->ready);
    pthread_mutex_unlock(&lane->lock);

    pthread_mutex_lock(&lanes->lock);
    list_append(&lanes->moving, &store->moving);
    pthread_mutex_unlock(&lanes->lock);
    uv_async_send(&lanes->wake);
}

static void put_ready(struct lane *lane, struct lane_store *store)
{
    store->ready.party = store->account;
    turns_put(&lane->ready, &store->ready);
}

/* On the loop, which alone submits: nobody else touches a store that is away. */
static void move_store(struct lanes *lanes, struct lane_store *store)
{
    bool falls_ill = store->lane == store->home;
    struct lane *from = store->lane, *to = falls_ill ? infirmary(lanes) : store->home;

    pthread_mutex_lock(&from->lock);
    from->n_jobs -= store->n_waiting;
    from->bytes -= store->bytes_waiting;
    pthread_mutex_unlock(&from->lock);

    store->lane = to;
    store->quarantined = falls_ill;
    store->quarantines += falls_ill;
    log_line(falls_ill ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "%s store=\"%s\"",
             falls_ill ? "store_quarantined" : "store_recovered", store->directory ? store->directory : "memory");

    pthread_mutex_lock(&to->lock);
    store->away = false;
    to->n_jobs += store->n_waiting;
    to->bytes += store->bytes_waiting;
    if (falls_ill || store->n_waiting)
        put_ready(to, store);
    pthread_cond_signal(&to->wake);
    pthread_mutex_unlock(&to->lock);
}

/* Both at once, so that no job comes back before the move of its store that it caused. */
static void take_done(struct lanes *lanes, struct list *jobs, struct list *moving)
{
    list_init(jobs);
    list_init(moving);
    pthread_mutex_lock(&lanes->lock);
    list_splice(jobs, &lanes->done);
    list_splice(moving, &lanes->moving);
    pthread_mutex_unlock(&lanes->lock);
}

static void on_jobs_done(uv_async_t *wake)
{
    struct lanes *lanes = CONTAINER_OF(wake, struct lanes, wake);
    struct list jobs, moving, *link;

    take_done(lanes, &jobs, &moving);
    while ((link = list_pop(&moving)))
        move_store(lanes, CONTAINER_OF(link, struct lane_store, moving));
    if (!list_is_empty(&jobs))
        lanes->on_done(lanes->arg, &jobs);
}

/* ---- a turn of a store ---- */

/* The last thing in it, and before its jobs are back: who hears of a failure finds the store in quarantine. Return:
 * whether it has left. */
static bool end_turn(struct lane *lane, struct lane_store *store)
{
    bool leaves = store->ill && !lane->is_infirmary;

    if (leaves)
        send_away(lane, store);
    hand_back(lane->lanes, &lane->worker.done);
    return leaves;
}

/* Return: whether the store has left. */
static bool run_batch(struct lane *lane, struct lane_store *store, struct list *batch)
{
    worker_run(&lane->worker, store, batch);
    return end_turn(lane, store);
}

/* Return: whether there is more to do for this store. */
static bool tend_store(struct lane *lane, struct lane_store *store)
{
    bool more = worker_tend(&lane->worker, store);

    return !end_turn(lane, store) && more;
}

/* In the infirmary: tries to open a store. Opening syncs it and compares it with what was acknowledged. */
static void nurse(struct lane *lane, struct lane_store *store)
{
    if (worker_open(&lane->worker, store) == 0) {
        worker_close(&lane->worker, store);
        send_away(lane, store);
    } else {
        worker_keep(&lane->worker, store); /* tried again each second */
    }
}

static bool tend_all(struct lane *lane)
{
    bool more = false;

    lane->tended_us = clock_monotonic_us();
    ballast_restore(lane->lanes->ballast);
    LIST_FOR_EACH_SAFE(link, &lane->worker.open)
    if (lane->is_infirmary)
        nurse(lane, CONTAINER_OF(link, struct lane_store, open));
    else
        more |= tend_store(lane, CONTAINER_OF(link, struct lane_store, open));
    return more;
}

/* A lane that one store keeps busy is never idle, and the others would wait for ever. */
static bool all_are_due(const struct lane *lane)
{
    return clock_monotonic_us() - lane->tended_us >= UINT64_C(1000000) * IDLE_SECONDS;
}

/* ---- the thread ---- */

static bool batch_is_full(const struct config *config, size_t n, size_t bytes, const struct job *next)
{
    return n > 0 && (n >= config->batch_requests || bytes + next->size > config->batch_bytes);
}

static struct job *first_waiting(const struct lane_store *store)
{
    struct turn *turn = turns_first(&store->waiting);

    return turn ? CONTAINER_OF(turn, struct job, turn) : NULL;
}

/* Takes the next store's jobs, as many as share a transaction. Called with the lock held. Return: the store, or NULL.
 */
static struct lane_store *take_batch(struct lane *lane, struct list *batch)
{
    const struct config *config = lane->lanes->config;
    struct turn *ready = turns_take(&lane->ready);
    struct lane_store *store;
    size_t n = 0, bytes = 0;
    struct job *job;

    if (!ready)
        return NULL;
    store = CONTAINER_OF(ready, struct lane_store, ready);
    while ((job = first_waiting(store))) {
        if (batch_is_full(config, n, bytes, job) || (n > 0 && job->kind == JOB_STEPS))
            break;
        (void)turns_take(&store->waiting);
        list_append(batch, &job->link);
        n++;
        bytes += job->size;
        if (job->kind == JOB_STEPS)
            break;
    }
    store->n_waiting -= n;
    store->bytes_waiting -= bytes;
    lane->taken_us = clock_monotonic_us();
    lane->n_taken = n;
    lane->n_jobs -= n;
    lane->bytes -= bytes;
    if (store->n_waiting)
        put_ready(lane, store);
    return store;
}

/* The last batch is done. Called with the lock held. */
static void note_pace(struct lane *lane)
{
    uint64_t job_ns;

    if (!lane->n_taken)
        return;
    job_ns = (clock_monotonic_us() - lane->taken_us) * 1000 / lane->n_taken;
    lane->job_ns = lane->job_ns ? lane->job_ns - lane->job_ns / PACE_BATCHES + job_ns / PACE_BATCHES : job_ns;
    lane->n_taken = 0;
}

/* Waits for a batch, for so long; *ret is NULL if none came. Return: false to stop. */
static bool next_batch(struct lane *lane, time_t seconds, struct list *batch, struct lane_store **ret)
{
    struct timespec until;
    bool over = seconds == 0, stop;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    list_init(batch);
    pthread_mutex_lock(&lane->lock);
    lane->at_work = false;
    note_pace(lane);
    while (!(*ret = take_batch(lane, batch)) && !lane->stopping && !over)
        over = pthread_cond_timedwait(&lane->wake, &lane->lock, &until) == ETIMEDOUT;
    lane->at_work = true;
    lane->turns++;
    stop = !*ret && lane->stopping;
    pthread_mutex_unlock(&lane->lock);
    return !stop;
}

static void *run_lane(void *arg)
{
    struct lane *lane = arg;
    struct lane_store *store;
    struct list batch;
    bool more = false, settled = !lane->is_infirmary; /* more: housekeeping that need not wait */

    syncs_count_into(&lane->worker.counts.sync_us);
    while (next_batch(lane, more ? 0 : settled ? IDLE_SECONDS : SETTLE_SECONDS, &batch, &store)) {
        if (store) {
            if (run_batch(lane, store, &batch))
                more = more && tend_all(lane);
            else if (lane->is_infirmary)
                nurse(lane, store);
            else
                more = more || all_are_due(lane) ? tend_all(lane) : tend_store(lane, store);
            settled = false;
        } else {
            settled = !more && !lane->is_infirmary;
            more = tend_all(lane);
        }
    }
    LIST_FOR_EACH_SAFE(link, &lane->worker.open)
    worker_close(&lane->worker, CONTAINER_OF(link, struct lane_store, open));
    hand_back(lane->lanes, &lane->worker.done);

    pthread_mutex_lock(&lane->lock);
    lane->ended = true;
    pthread_cond_signal(&lane->wake);
    pthread_mutex_unlock(&lane->lock);
    return NULL;
}

/* ---- for the loop ---- */

void lane_adopt(struct lanes *lanes, struct lane_store *store, const struct engine_table *table, const char *directory)
{
    *store = (struct lane_store){.table = table, .directory = directory};
    store->home = store->lane = &lanes->lane[lanes->next++ % (lanes->n - 1)];
    list_init(&store->moving);
    list_init(&store->waiting);
    turn_init(&store->ready, NULL);
    list_init(&store->open);
}

/* Who has much in flight leaves the end of the queue to others. */
static bool queue_is_full(const struct lane *lane, const struct job *job)
{
    uint64_t jobs = lane->lanes->config->lane_requests, bytes = lane->lanes->config->lane_bytes;

    if (job->account) {
        jobs = account_share(job->account, ACCOUNT_REQUESTS, jobs);
        bytes = account_share(job->account, ACCOUNT_BYTES, bytes);
    }
    return lane->n_jobs >= jobs || (lane->n_jobs > 0 && lane->bytes + job->size > bytes);
}

int lane_submit(struct job *job)
{
    struct lane_store *store = job->store;
    struct lane *lane = store->lane;
    int r = 0;

    if (store->quarantined && job->kind == JOB_CHANGE)
        return SESSIOND_UNAVAILABLE;
    pthread_mutex_lock(&lane->lock);
    if (queue_is_full(lane, job)) {
        r = SESSIOND_BUSY;
    } else {
        lane->n_jobs++;
        lane->bytes += job->size;
        store->bytes_waiting += job->size;
        if (store->n_waiting++ == 0 && !store->away && !turn_waits(&store->ready))
            put_ready(lane, store);
        turn_init(&job->turn, job->account);
        turns_put(&store->waiting, &job->turn);
        pthread_cond_signal(&lane->wake);
    }
    pthread_mutex_unlock(&lane->lock);
    return r;
}

static uint64_t wait_ms(struct lane *lane)
{
    uint64_t ns;

    pthread_mutex_lock(&lane->lock);
    ns = (lane->n_jobs + lane->n_taken) * lane->job_ns;
    pthread_mutex_unlock(&lane->lock);
    return ns / 1000000;
}

uint64_t lane_wait_ms(const struct lane_store *store)
{
    return wait_ms(store->lane);
}

uint64_t lanes_wait_ms(struct lanes *lanes)
{
    uint64_t longest = 0, ms;

    for (size_t i = 0; i < lanes->n - 1; i++) /* the infirmary's are not told to come again soon */
        if ((ms = wait_ms(&lanes->lane[i])) > longest)
            longest = ms;
    return longest;
}

/* Signals are the loop's business: a new thread inherits a mask that blocks them all. */
static int start_lane(struct lane *lane, struct lanes *lanes, size_t index)
{
    pthread_condattr_t monotonic;
    sigset_t all, before;
    char name[16];
    int error;

    lane->lanes = lanes;
    lane->is_infirmary = lane == infirmary(lanes);
    list_init(&lane->ready);
    worker_init(&lane->worker, lanes->config, lanes->ballast, lane->is_infirmary);
    pthread_mutex_init(&lane->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&lane->thread, NULL, run_lane, lane);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return fault(error, "start a lane");
    snprintf(name, sizeof(name), "lane-%zu", index);
    pthread_setname_np(lane->thread, name);
    return 0;
}

int lanes_open(struct lanes **ret, uv_loop_t *loop, const struct config *config, jobs_done_fn done, void *arg)
{
    size_t n = config->lanes + 1;
    struct lanes *lanes = calloc(1, sizeof(*lanes) + n * sizeof(struct lane));
    int r;

    if (!lanes)
        return fault(ENOMEM, "lanes");
    lanes->config = config;
    lanes->on_done = done;
    lanes->arg = arg;
    list_init(&lanes->done);
    list_init(&lanes->moving);
    pthread_mutex_init(&lanes->lock, NULL);
    if ((r = ballast_open(&lanes->ballast, config))) {
        free(lanes);
        return r;
    }
    r = uv_async_init(loop, &lanes->wake, on_jobs_done);
    if (r) {
        ballast_close(lanes->ballast);
        free(lanes);
        return fault(r, "lanes");
    }
    lanes->n = n;
    for (size_t i = 0; i < n; i++)
        if ((r = start_lane(&lanes->lane[i], lanes, i)))
            return r; /* at start only, and then the process ends */
    *ret = lanes;
    return 0;
}

bool lanes_read(struct lanes *lanes, size_t index, struct lane_reading *ret)
{
    struct lane *lane = &lanes->lane[index];

    if (index >= lanes->n)
        return false;
    *ret = (struct lane_reading){.counts = &lane->worker.counts,
                                 .rollbacks = counter_read(&lane->worker.counts.rollbacks),
                                 .log_bytes = counter_read(&lane->worker.counts.log_bytes)};
    (void)snprintf(ret->name, sizeof(ret->name), lane->is_infirmary ? "infirmary" : "%zu", index);
    pthread_mutex_lock(&lane->lock);
    ret->n_jobs = lane->n_jobs;
    ret->bytes = lane->bytes;
    pthread_mutex_unlock(&lane->lock);
    return true;
}

static bool gets_on(struct lane *lane)
{
    bool r;

    pthread_mutex_lock(&lane->lock);
    r = lane->turns != lane->turns_seen || (!lane->at_work && list_is_empty(&lane->ready));
    lane->turns_seen = lane->turns;
    pthread_mutex_unlock(&lane->lock);
    return r;
}

bool lanes_get_on(struct lanes *lanes)
{
    bool all = true;

    for (size_t i = 0; i < lanes->n - 1; i++) { /* the infirmary waits for sick disks: that is what it is for */
        if (gets_on(&lanes->lane[i]))
            continue;
        log_warning("lane_makes_no_progress lane=%zu", i);
        all = false;
    }
    return all;
}

/* Return: false if it is still at work when the time is over. */
static bool wait_for_end(struct lane *lane, const struct timespec *until)
{
    bool ended;

    pthread_mutex_lock(&lane->lock);
    while (!lane->ended && pthread_cond_timedwait(&lane->wake, &lane->lock, until) != ETIMEDOUT)
        ;
    ended = lane->ended;
    pthread_mutex_unlock(&lane->lock);
    if (ended)
        pthread_join(lane->thread, NULL);
    return ended;
}

int lanes_stop(struct lanes *lanes, uint64_t deadline_us)
{
    struct timespec until = {(time_t)(deadline_us / 1000000), (long)(deadline_us % 1000000) * 1000};
    struct list jobs, moving;

    for (size_t i = 0; i < lanes->n; i++) {
        pthread_mutex_lock(&lanes->lane[i].lock);
        lanes->lane[i].stopping = true;
        pthread_cond_signal(&lanes->lane[i].wake);
        pthread_mutex_unlock(&lanes->lane[i].lock);
    }
    for (size_t i = 0; i < lanes->n; i++) {
        if (!wait_for_end(&lanes->lane[i], &until)) {
            log_error("lane_stuck lane=%zu", i);
            return SESSIOND_UNAVAILABLE;
        }
        pthread_mutex_destroy(&lanes->lane[i].lock);
        pthread_cond_destroy(&lanes->lane[i].wake);
    }
    take_done(lanes, &jobs, &moving); /* stores that were to move are closed now */
    if (!list_is_empty(&jobs))
        lanes->on_done(lanes->arg, &jobs);
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct lanes *lanes = CONTAINER_OF(handle, struct lanes, wake);

    pthread_mutex_destroy(&lanes->lock);
    ballast_close(lanes->ballast);
    free(lanes);
}

void lanes_close(struct lanes *lanes)
{
    uv_close((uv_handle_t *)&lanes->wake, on_closed);
}
