#include "store/worker.h"

#include "base/clock.h"
#include "base/mem.h"
#include "config/config.h"
#include "store/ballast.h"
#include "store/payment.h"

void worker_init(struct worker *worker, const struct config *config, struct ballast *ballast, bool keeps_all)
{
    *worker = (struct worker){.config = config, .ballast = ballast, .keeps_all = keeps_all};
    list_init(&worker->open);
    list_init(&worker->done);
}

/* ---- opening and closing stores ---- */

/* What its log has now counts as the worker's. */
static void count_log(struct worker *worker, struct lane_store *store)
{
    uint64_t now = store->engine && store->table->log_bytes ? store->table->log_bytes(store->engine) : 0;

    counter_add(&worker->counts.log_bytes, now - store->log_bytes);
    store->log_bytes = now;
}

void worker_close(struct worker *worker, struct lane_store *store)
{
    struct job *steps = TAKE(store->steps);

    if (steps) {
        steps->outcome = SESSIOND_UNAVAILABLE;
        list_append(&worker->done, &steps->link);
    }
    if (store->engine)
        store->table->close(TAKE(store->engine));
    count_log(worker, store);
    payment_count(store);
    store->tend = false;
    if (!list_is_empty(&store->open))
        worker->n_open--;
    list_remove(&store->open);
}

/* Closes the store that was not used for longest, if there are too many. */
static void close_oldest(struct worker *worker, const struct lane_store *keep)
{
    if (worker->n_open <= worker->config->open_stores || worker->keeps_all)
        return;
    LIST_FOR_EACH(link, &worker->open)
    {
        struct lane_store *store = CONTAINER_OF(link, struct lane_store, open);

        if (store != keep && store->directory && !store->steps) {
            worker_close(worker, store);
            return;
        }
    }
}

void worker_keep(struct worker *worker, struct lane_store *store)
{
    if (list_is_empty(&store->open))
        worker->n_open++;
    list_remove(&store->open);
    list_append(&worker->open, &store->open);
}

int worker_open(struct worker *worker, struct lane_store *store)
{
    int r;

    if (!store->engine) {
        r = store->table->open(&store->engine, store->directory, worker->config);
        if (r)
            return r < 0 ? SESSIOND_UNAVAILABLE : r;
        payment_count(store);
    }
    worker_keep(worker, store);
    close_oldest(worker, store);
    return 0;
}

/* After an I/O error nothing that the engine holds in memory is trusted: it is closed without touching its files. */
static void close_if_broken(struct worker *worker, struct lane_store *store)
{
    if (!store->engine || !store->table->is_broken(store->engine))
        return;
    worker_close(worker, store);
    store->ill = true;
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
        payment_before(store, job);
    job->outcome = job->run(job, store->table, store->engine, &more);
    if (job->kind == JOB_CHANGE && job->outcome == 0 && !payment_after(store))
        job->outcome = SESSIOND_FULL;
}

/* Runs the jobs in one transaction. Return: 0 (all have their outcome), or an outcome or fault with which the
 * transaction was rolled back, and nothing of it is stored. */
static int run_together(struct worker *worker, struct lane_store *store, struct list *batch)
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
            payment_count(store);
            counter_add(&worker->counts.rollbacks, 1);
            return r;
        }
        n++;
    }
    before_us = writes ? clock_monotonic_us() : 0;
    r = table->commit(store->engine);
    if (writes)
        histogram_add(&worker->counts.commit_us, clock_monotonic_us() - before_us);
    histogram_add(&worker->counts.batch, n);
    if (writes)
        payment_count(store);
    if (r == SESSIOND_UNCERTAIN) {
        answer_failed_commit(batch, r);
        return 0;
    }
    return r;
}

/* One job in a transaction of its own. */
static void run_alone(struct worker *worker, struct lane_store *store, struct list *one)
{
    struct job *job = job_of(one->next);
    int r = store->engine ? run_together(worker, store, one) : SESSIOND_UNAVAILABLE;

    if (r == SESSIOND_FULL && job->frees && store->directory && ballast_release(worker->ballast))
        r = run_together(worker, store, one);
    if (r)
        job->outcome = r;
    close_if_broken(worker, store);
}

/* A batch that failed is run again job by job, so that only the guilty one fails. */
static void run_apart(struct worker *worker, struct lane_store *store, struct list *batch)
{
    struct list one, done;
    struct list *link;

    list_init(&done);
    while ((link = list_pop(batch))) {
        list_init(&one);
        list_append(&one, link);
        run_alone(worker, store, &one);
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

void worker_run(struct worker *worker, struct lane_store *store, struct list *batch)
{
    int r = worker_open(worker, store);

    if (list_is_empty(batch))
        return; /* a patient without visitors */
    if (r) {
        answer_all(batch, r);
    } else if (job_of(batch->next)->kind == JOB_STEPS) {
        begin_steps(store, batch);
    } else {
        r = run_together(worker, store, batch);
        close_if_broken(worker, store);
        if (r)
            run_apart(worker, store, batch);
    }
    count_log(worker, store);
    list_splice(&worker->done, batch);
}

/* ---- between batches ---- */

static void take_step(struct worker *worker, struct lane_store *store)
{
    struct job *job = store->steps;
    bool more = false;
    int r = job->run(job, store->table, store->engine, &more);

    if (r == 0 && more)
        return;
    store->steps = NULL;
    job->outcome = r;
    list_append(&worker->done, &job->link);
}

bool worker_tend(struct worker *worker, struct lane_store *store)
{
    if (store->engine && store->table->tend(store->engine, &store->tend))
        store->tend = false; /* it has been logged; the next batch meets it again */
    if (store->engine && store->steps)
        take_step(worker, store);
    close_if_broken(worker, store);
    count_log(worker, store);
    payment_count(store);
    return store->tend || store->steps;
}
