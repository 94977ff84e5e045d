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
#include "config.h"
#include "store/account.h"
#include "store/ballast.h"

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
    struct list open; /* stores, the most recently used last; in the infirmary all that are there */
    size_t n_open;
    uint64_t tended_us; /* when all of them were looked after */
    struct lane_counts counts;
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

/* ---- handing jobs back ---- */

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

static void hand_back_one(struct lanes *lanes, struct job *job)
{
    struct list jobs;

    list_init(&jobs);
    list_append(&jobs, &job->link);
    hand_back(lanes, &jobs);
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

/* ---- what a store holds ---- */

/* What its log has now counts as the lane's. */
static void count_log(struct lane *lane, struct lane_store *store)
{
    uint64_t now = store->engine && store->table->log_bytes ? store->table->log_bytes(store->engine) : 0;

    counter_add(&lane->counts.log_bytes, now - store->log_bytes);
    store->log_bytes = now;
}

static bool is_paid_for(const struct lane_store *store)
{
    return store->account && store->table->use;
}

static enum account_resource bytes_of(const struct lane_store *store)
{
    return store->directory ? ACCOUNT_DISK : ACCOUNT_MEMORY;
}

static void read_use(const struct lane_store *store, struct store_use *ret)
{
    if (store->engine)
        store->table->use(store->engine, ret);
}

/* What it has now is what its owner pays for, be it over a limit. One that is closed has what it had. */
static void count_use(struct lane_store *store)
{
    struct store_use now = store->paid;

    if (!is_paid_for(store))
        return;
    read_use(store, &now);
    account_settle(store->account, ACCOUNT_SESSIONS, &store->paid.sessions, now.sessions);
    account_settle(store->account, bytes_of(store), &store->paid.bytes, now.bytes);
    store->paid.spare = now.spare;
}

/* Charges what a change may add to a store, before it does; what it really was is counted after the commit. Return:
 * false if that would be over a limit. */
static bool pays_for_bytes(struct lane_store *store, uint64_t bytes)
{
    uint64_t of_spare = bytes < store->paid.spare ? bytes : store->paid.spare;

    if (!is_paid_for(store))
        return true;
    if (!account_take(store->account, bytes_of(store), bytes - of_spare))
        return false;
    store->paid.bytes += bytes - of_spare;
    store->paid.spare -= of_spare;
    return true;
}

/* Charges a session that a change has begun, before it is committed. Return: false if that would be over a limit, which
 * another lane must have reached after the change was told. */
static bool pays_for_sessions(struct lane_store *store)
{
    struct store_use now = store->paid;

    if (!is_paid_for(store))
        return true;
    read_use(store, &now);
    if (now.sessions > store->paid.sessions &&
        !account_take(store->account, ACCOUNT_SESSIONS, now.sessions - store->paid.sessions))
        return false;
    if (now.sessions < store->paid.sessions)
        account_give_back(store->account, ACCOUNT_SESSIONS, store->paid.sessions - now.sessions);
    store->paid.sessions = now.sessions;
    return true;
}

static void tell_of_room(struct lane_store *store, struct job *job)
{
    job->refused = false;
    job->no_sessions = is_paid_for(store) && account_is_full(store->account, ACCOUNT_SESSIONS);
    job->no_bytes = !pays_for_bytes(store, job->size);
}

/* ---- opening and closing stores ---- */

static void close_store(struct lane *lane, struct lane_store *store)
{
    struct job *steps = TAKE(store->steps);

    if (steps) {
        steps->outcome = SESSIOND_UNAVAILABLE;
        hand_back_one(lane->lanes, steps);
    }
    if (store->engine)
        store->table->close(TAKE(store->engine));
    count_log(lane, store);
    count_use(store);
    store->tend = false;
    if (!list_is_empty(&store->open))
        lane->n_open--;
    list_remove(&store->open);
}

/* Closes the store that was not used for longest, if there are too many. */
static void close_oldest(struct lane *lane, const struct lane_store *keep)
{
    if (lane->n_open <= lane->lanes->config->open_stores || lane->is_infirmary)
        return;
    LIST_FOR_EACH(link, &lane->open)
    {
        struct lane_store *store = CONTAINER_OF(link, struct lane_store, open);

        if (store != keep && store->directory && !store->steps) {
            close_store(lane, store);
            return;
        }
    }
}

/* Puts it at the end of the list of stores, as the one used last. */
static void list_use(struct lane *lane, struct lane_store *store)
{
    if (list_is_empty(&store->open))
        lane->n_open++;
    list_remove(&store->open);
    list_append(&lane->open, &store->open);
}

/* Return: 0, or what the jobs that wait for the store are answered with. */
static int open_store(struct lane *lane, struct lane_store *store)
{
    int r;

    if (!store->engine) {
        r = store->table->open(&store->engine, store->directory, lane->lanes->config);
        if (r)
            return r < 0 ? SESSIOND_UNAVAILABLE : r;
        count_use(store);
    }
    list_use(lane, store);
    close_oldest(lane, store);
    return 0;
}

/* After an I/O error nothing that the engine holds in memory is trusted: it is closed without touching its files. */
static void close_if_broken(struct lane *lane, struct lane_store *store)
{
    if (!store->engine || !store->table->is_broken(store->engine))
        return;
    close_store(lane, store);
    store->ill = true;
}

/* The last thing in a store's turn. Return: whether it has left. */
static bool leaves_if_ill(struct lane *lane, struct lane_store *store)
{
    if (!store->ill || lane->is_infirmary)
        return false;
    send_away(lane, store);
    return true;
}

/* ---- batches ---- */

static struct job *job_of(struct list *link)
{
    return CONTAINER_OF(link, struct job, link);
}

static void answer_all(struct list *batch, int outcome)
{
    LIST_FOR_EACH(link, batch)
    job_of(link)->outcome = outcome;
}

static bool batch_writes(struct list *batch)
{
    LIST_FOR_EACH(link, batch)
    {
        if (job_of(link)->kind == JOB_CHANGE)
            return true;
    }
    return false;
}

/* What the jobs of a batch are told whose commit failed. A refusal may have been due to a neighbour that is not stored
 * now, and a read may have seen one: these are asked to come again. */
static void answer_failed_commit(struct list *batch, int r)
{
    LIST_FOR_EACH(link, batch)
    {
        struct job *job = job_of(link);

        job->outcome = job->kind == JOB_CHANGE && job->outcome == 0 ? r : SESSIOND_UNAVAILABLE;
    }
}

/* As engine.h says. */
static bool must_roll_back(const struct job *job)
{
    int outcome = job->outcome;

    return outcome < 0 || (outcome == SESSIOND_FULL && !job->refused) || outcome == SESSIOND_ROLLED_BACK;
}

static void run_job(struct lane_store *store, struct job *job)
{
    bool more;

    if (job->kind == JOB_CHANGE)
        tell_of_room(store, job);
    job->outcome = job->run(job, store->table, store->engine, &more);
    if (job->kind == JOB_CHANGE && job->outcome == 0 && !pays_for_sessions(store))
        job->outcome = SESSIOND_FULL;
}

/* Runs the jobs in one transaction. Return: 0 (all have their outcome), or an outcome or fault with which the
 * transaction was rolled back, and nothing of it is stored. */
static int run_together(struct lane *lane, struct lane_store *store, struct list *batch)
{
    const struct engine_table *table = store->table;
    bool writes = batch_writes(batch);
    uint64_t n = 0, before_us;
    int r;

    r = table->begin(store->engine, writes);
    if (r)
        return r;
    LIST_FOR_EACH(link, batch)
    {
        struct job *job = job_of(link);

        run_job(store, job);
        if (must_roll_back(job)) {
            r = job->outcome;
            table->rollback(store->engine);
            count_use(store);
            counter_add(&lane->counts.rollbacks, 1);
            return r;
        }
        n++;
    }
    before_us = writes ? clock_monotonic_us() : 0;
    r = table->commit(store->engine);
    if (writes)
        histogram_add(&lane->counts.commit_us, clock_monotonic_us() - before_us);
    histogram_add(&lane->counts.batch, n);
    if (writes)
        count_use(store);
    if (r == SESSIOND_UNCERTAIN) {
        answer_failed_commit(batch, r);
        return 0;
    }
    return r;
}

/* One job in a transaction of its own. */
static void run_alone(struct lane *lane, struct lane_store *store, struct list *one)
{
    struct job *job = job_of(one->next);
    int r = store->engine ? run_together(lane, store, one) : SESSIOND_UNAVAILABLE;

    if (r == SESSIOND_FULL && job->frees && store->directory && ballast_release(lane->lanes->ballast))
        r = run_together(lane, store, one);
    if (r)
        job->outcome = r;
    close_if_broken(lane, store);
}

/* A batch that failed is run again job by job, so that only the guilty one fails. */
static void run_apart(struct lane *lane, struct lane_store *store, struct list *batch)
{
    struct list one, done;
    struct list *link;

    list_init(&done);
    while ((link = list_pop(batch))) {
        list_init(&one);
        list_append(&one, link);
        run_alone(lane, store, &one);
        list_splice(&done, &one);
    }
    list_splice(batch, &done);
}

static void begin_steps(struct lane_store *store, struct list *batch)
{
    struct job *job = job_of(batch->next);

    if (store->steps) {
        job->outcome = SESSIOND_BUSY;
        return;
    }
    list_remove(&job->link);
    store->steps = job;
}

/* Return: whether the store has left, and then it did before its jobs are back: who hears of a failure finds the store
 * in quarantine. */
static bool run_batch(struct lane *lane, struct lane_store *store, struct list *batch)
{
    int r = open_store(lane, store);
    bool left;

    if (list_is_empty(batch))
        return false; /* a patient without visitors */
    if (r) {
        answer_all(batch, r);
    } else if (job_of(batch->next)->kind == JOB_STEPS) {
        begin_steps(store, batch);
    } else {
        r = run_together(lane, store, batch);
        close_if_broken(lane, store);
        if (r)
            run_apart(lane, store, batch);
    }
    count_log(lane, store);
    left = leaves_if_ill(lane, store);
    hand_back(lane->lanes, batch);
    return left;
}

/* ---- between batches ---- */

static void take_step(struct lane *lane, struct lane_store *store)
{
    struct job *job = store->steps;
    bool more = false;
    int r = job->run(job, store->table, store->engine, &more);

    if (r == 0 && more)
        return;
    store->steps = NULL;
    job->outcome = r;
    hand_back_one(lane->lanes, job);
}

/* One step of housekeeping and one of a long job. Return: whether there is more to do for this store. */
static bool tend_store(struct lane *lane, struct lane_store *store)
{
    if (store->engine && store->table->tend(store->engine, &store->tend))
        store->tend = false; /* it has been logged; the next batch meets it again */
    if (store->engine && store->steps)
        take_step(lane, store);
    close_if_broken(lane, store);
    count_log(lane, store);
    count_use(store);
    return !leaves_if_ill(lane, store) && (store->tend || store->steps);
}

/* In the infirmary: tries to open a store. Opening syncs it and compares it with what was acknowledged. */
static void nurse(struct lane *lane, struct lane_store *store)
{
    if (open_store(lane, store) == 0) {
        close_store(lane, store);
        send_away(lane, store);
    } else {
        list_use(lane, store); /* tried again each second */
    }
}

static bool tend_all(struct lane *lane)
{
    bool more = false;

    lane->tended_us = clock_monotonic_us();
    ballast_restore(lane->lanes->ballast);
    LIST_FOR_EACH_SAFE(link, &lane->open)
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
    LIST_FOR_EACH_SAFE(link, &lane->open)
    close_store(lane, CONTAINER_OF(link, struct lane_store, open));

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
    list_init(&lane->open);
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
    *ret = (struct lane_reading){.counts = &lane->counts,
                                 .rollbacks = counter_read(&lane->counts.rollbacks),
                                 .log_bytes = counter_read(&lane->counts.log_bytes)};
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
