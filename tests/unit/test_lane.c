/*
 * Lanes over an engine that does as it is told: which jobs share a transaction, who fails when something fails, how
 * stores take turns, fall ill and stop. The engine writes down what is done to it; jobs hold their lane up at a gate
 * while others queue, so that batches are what a test wants them to be.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "sessiond-codes.h"
#include "store/account.h"
#include "store/engine.h"
#include "store/lane.h"
#include "tree.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* ---- an engine that does as it is told ---- */

enum { REPLIES = 8 };

/* What a function of the engine answers, call by call; 0 when there is nothing left. */
struct script {
    int replies[REPLIES];
    unsigned next;
};

struct engine {
    bool broken;
};

/* Guarded by the lock; the test looks at it when its jobs are back. */
static struct {
    pthread_mutex_t lock;
    char log[4096];
    struct script begin, commit, open, tend;
    bool tend_more;        /* housekeeping never ends */
    bool break_on_failure; /* a fault breaks the engine */
    unsigned n_tends, n_open;
    struct store_use use;
    unsigned begun;  /* of its sessions, in the open transaction */
    unsigned n_runs; /* of jobs */
} told = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(const char *what)
{
    pthread_mutex_lock(&told.lock);
    if (strlen(told.log) + strlen(what) + 2 < sizeof(told.log)) {
        if (told.log[0])
            strcat(told.log, " ");
        strcat(told.log, what);
    }
    pthread_mutex_unlock(&told.lock);
}

static int reply_of(struct script *script)
{
    int r;

    pthread_mutex_lock(&told.lock);
    r = script->next < REPLIES ? script->replies[script->next++] : 0;
    pthread_mutex_unlock(&told.lock);
    return r;
}

static int fake_open(struct engine **ret, const char *directory, const struct config *config)
{
    struct engine *engine;
    int r = reply_of(&told.open);

    (void)config;
    note(r ? "open-fails" : directory ? directory : "open");
    if (r)
        return r;
    engine = calloc(1, sizeof(*engine));
    if (!engine)
        return -ENOMEM;
    pthread_mutex_lock(&told.lock);
    told.n_open++;
    pthread_mutex_unlock(&told.lock);
    *ret = engine;
    return 0;
}

static void fake_close(struct engine *engine)
{
    note(engine->broken ? "close-broken" : "close");
    pthread_mutex_lock(&told.lock);
    told.n_open--;
    pthread_mutex_unlock(&told.lock);
    free(engine);
}

static bool fake_is_broken(const struct engine *engine)
{
    return engine->broken;
}

static int faulty(struct engine *engine, int r)
{
    if (r < 0 || r == SESSIOND_UNCERTAIN)
        engine->broken = told.break_on_failure;
    return r;
}

static int fake_begin(struct engine *engine, bool writes)
{
    int r = faulty(engine, reply_of(&told.begin));

    note(r ? "begin-fails" : writes ? "begin" : "begin-reading");
    return r;
}

static int fake_commit(struct engine *engine)
{
    int r = faulty(engine, reply_of(&told.commit));

    pthread_mutex_lock(&told.lock);
    told.begun = 0;
    pthread_mutex_unlock(&told.lock);
    note(r ? "commit-fails" : "commit");
    return r;
}

static void fake_rollback(struct engine *engine)
{
    (void)engine;
    pthread_mutex_lock(&told.lock);
    told.use.sessions -= told.begun;
    told.begun = 0;
    pthread_mutex_unlock(&told.lock);
    note("rollback");
}

static int fake_tend(struct engine *engine, bool *ret_more)
{
    pthread_mutex_lock(&told.lock);
    told.n_tends++;
    *ret_more = told.tend_more;
    pthread_mutex_unlock(&told.lock);
    return faulty(engine, reply_of(&told.tend));
}

static void fake_use(const struct engine *engine, struct store_use *ret)
{
    (void)engine;
    pthread_mutex_lock(&told.lock);
    *ret = told.use;
    pthread_mutex_unlock(&told.lock);
}

static const struct engine_table fake_engine = {
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .is_broken = fake_is_broken,
    .begin = fake_begin,
    .commit = fake_commit,
    .rollback = fake_rollback,
    .tend = fake_tend,
    .use = fake_use,
};

/* ---- jobs ---- */

struct task {
    struct job job;
    const char *name;
    struct script runs; /* what its runs return */
    sem_t *gate;        /* a run waits here, once */
    sem_t *at_gate;     /* and says so */
    unsigned n_steps;   /* JOB_STEPS: so many are still to come */
    unsigned n_runs;
    bool back;
    unsigned begins;            /* sessions */
    unsigned run_as;            /* the how manieth of all runs its last one was, from 0 */
    bool no_sessions, no_bytes; /* what it was told */
};

static int run_task(struct job *job, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct task *task = CONTAINER_OF(job, struct task, job);
    sem_t *gate = TAKE(task->gate);
    int r = task->runs.next < REPLIES ? task->runs.replies[task->runs.next++] : 0;

    assert(table == &fake_engine);
    task->n_runs++;
    pthread_mutex_lock(&told.lock);
    task->run_as = told.n_runs++;
    told.use.sessions += task->begins;
    told.begun += task->begins;
    pthread_mutex_unlock(&told.lock);
    task->no_sessions = job->no_sessions;
    task->no_bytes = job->no_bytes;
    note(task->name);
    if (gate) {
        sem_post(task->at_gate);
        sem_wait(gate);
    }
    if (job->kind == JOB_STEPS)
        *ret_more = --task->n_steps > 0;
    return faulty(engine, r);
}

/* ---- the loop ---- */

struct fixture {
    uv_loop_t loop;
    struct config config;
    struct accounts accounts;
    struct lanes *lanes;
    char top[32];
    struct lane_store store, other, third, memory;
    sem_t gate, at_gate;
    struct task holder;
    size_t n_back;
    char order[256]; /* names, as the jobs came back */
};

static void on_back(void *arg, struct list *jobs)
{
    struct fixture *f = arg;
    struct list *link;

    while ((link = list_pop(jobs))) {
        struct task *task = CONTAINER_OF(link, struct task, job.link);

        assert_false(task->back);
        task->back = true;
        f->n_back++;
        if (strlen(f->order) + strlen(task->name) + 2 < sizeof(f->order))
            (void)sprintf(f->order + strlen(f->order), "%s%s", f->order[0] ? " " : "", task->name);
    }
}

static void wait_for(struct fixture *f, size_t n)
{
    while (f->n_back < n)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(f->n_back, n);
}

static void start(struct fixture *f)
{
    assert_int_equal(lanes_open(&f->lanes, &f->loop, &f->config, on_back, f), 0);
    lane_adopt(f->lanes, &f->store, &fake_engine, "open-store");
    lane_adopt(f->lanes, &f->other, &fake_engine, "open-other");
}

static void stop(struct fixture *f)
{
    if (!f->lanes)
        return;
    assert_int_equal(lanes_stop(f->lanes, clock_monotonic_us() + 60000000), 0);
    lanes_close(f->lanes);
    f->lanes = NULL;
    uv_run(&f->loop, UV_RUN_DEFAULT);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    told.log[0] = '\0';
    told.begin = told.commit = told.open = told.tend = (struct script){0};
    told.tend_more = told.break_on_failure = false;
    told.n_tends = 0;
    told.use = (struct store_use){0};
    told.n_runs = 0;
    (void)snprintf(f->top, sizeof(f->top), "/tmp/sd-XXXXXX");
    config_init(&f->config);
    f->config.state_dir = mkdtemp(f->top);
    f->config.lanes = 1;
    f->config.ballast_bytes = 4096;
    f->config.system = true;
    accounts_init(&f->accounts, &f->config);
    sem_init(&f->gate, 0, 0);
    sem_init(&f->at_gate, 0, 0);
    *state = f;
    return f->config.state_dir && uv_loop_init(&f->loop) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    stop(f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(told.n_open, 0);
    remove_tree(f->top);
    accounts_deinit(&f->accounts);
    sem_destroy(&f->gate);
    sem_destroy(&f->at_gate);
    free(f);
    return 0;
}

static struct task task(const char *name, enum job_kind kind)
{
    return (struct task){.name = name, .job = {.kind = kind, .run = run_task, .size = 1}};
}

static int submit(struct task *task, struct lane_store *store)
{
    list_init(&task->job.link);
    task->job.store = store;
    task->job.outcome = -1000; /* nobody's */
    return lane_submit(&task->job);
}

static struct account *uid(struct fixture *f, uid_t number)
{
    return accounts_of(&f->accounts, number);
}

static struct task task_of(struct account *account, const char *name, enum job_kind kind)
{
    struct task made = task(name, kind);

    made.job.account = account;
    return made;
}

static void submit_all(struct task *tasks, size_t n, struct lane_store *store)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(submit(&tasks[i], store), 0);
}

/* Holds the lane up in a job of its own, until let_go. What is submitted in between waits together. */
static void hold(struct fixture *f, struct lane_store *store)
{
    f->holder = task("hold", JOB_READ);
    f->holder.gate = &f->gate;
    f->holder.at_gate = &f->at_gate;
    assert_int_equal(submit(&f->holder, store), 0);
    sem_wait(&f->at_gate);
}

static void let_go(struct fixture *f)
{
    sem_post(&f->gate);
}

/* What was done after the batch that held the lane up. */
#define HELD "open-store begin-reading hold commit "
#define expect_log(wanted) assert_string_equal(told.log, wanted)

/* ---- batches ---- */

static void test_what_waits_shares_a_transaction(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_READ), task("c", JOB_CHANGE)};

    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 4);
    expect_log(HELD "begin a b c commit");
    assert_string_equal(f->order, "hold a b c");
    for (size_t i = 0; i < N(tasks); i++)
        assert_int_equal(tasks[i].job.outcome, 0);
}

static void test_reads_alone_need_no_writing(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ)};

    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 3);
    expect_log(HELD "begin-reading a b commit");
}

static void test_a_batch_has_so_many_requests_at_most(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("c", JOB_CHANGE), task("d", JOB_CHANGE),
                           task("e", JOB_CHANGE)};

    f->config.batch_requests = 2;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 6);
    expect_log(HELD "begin a b commit begin c d commit begin e commit");
}

static void test_a_batch_has_so_many_bytes_or_one_larger_request(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("large", JOB_CHANGE),
                           task("c", JOB_CHANGE)};

    f->config.batch_bytes = 100;
    tasks[0].job.size = 60;
    tasks[1].job.size = 40;
    tasks[2].job.size = 5000;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 5);
    expect_log(HELD "begin a b commit begin large commit begin c commit");
}

static void test_stores_take_turns(void **state)
{
    struct fixture *f = *state;
    struct task here[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("c", JOB_CHANGE)};
    struct task there[] = {task("x", JOB_CHANGE), task("y", JOB_CHANGE)};

    f->config.batch_requests = 1;
    start(f);
    hold(f, &f->store);
    submit_all(here, N(here), &f->store);
    submit_all(there, N(there), &f->other);
    let_go(f);
    wait_for(f, 6);
    expect_log(HELD "begin a commit open-other begin x commit begin b commit begin y commit begin c commit");
}

/* ---- fairness ---- */

enum { FLOOD = 1000 };

/* Alice asks a thousand times, and then bob once. Return: how many of hers were answered before he was. */
static size_t flood_before(struct fixture *f, struct account *alice, struct account *bob)
{
    static struct task flood[FLOOD];
    struct task his = task_of(bob, "his", JOB_CHANGE);

    start(f);
    hold(f, &f->store);
    for (size_t i = 0; i < FLOOD; i++)
        flood[i] = task_of(alice, "hers", JOB_CHANGE);
    submit_all(flood, FLOOD, &f->store);
    assert_int_equal(submit(&his, &f->store), 0);
    let_go(f);
    wait_for(f, FLOOD + 2);
    assert_int_equal(his.n_runs, 1);
    return his.run_as - 1; /* the one that held the lane up was the first */
}

static void test_one_request_is_not_held_up_by_a_thousand_of_another_uid(void **state)
{
    struct fixture *f = *state;

    f->config.batch_requests = 4;
    assert_int_equal(flood_before(f, uid(f, 1), uid(f, 2)), 1);
}

/* The control: who asks last is answered last, where nobody else asks. */
static void test_the_requests_of_one_uid_are_done_in_their_order(void **state)
{
    struct fixture *f = *state;

    f->config.batch_requests = 4;
    assert_int_equal(flood_before(f, uid(f, 1), uid(f, 1)), FLOOD);
}

static void test_uids_take_turns_in_a_store(void **state)
{
    struct fixture *f = *state;
    struct account *alice = uid(f, 1), *bob = uid(f, 2), *carol = uid(f, 3);
    struct task tasks[] = {task_of(alice, "a1", JOB_CHANGE), task_of(alice, "a2", JOB_READ),
                           task_of(alice, "a3", JOB_CHANGE), task_of(alice, "a4", JOB_CHANGE),
                           task_of(bob, "b1", JOB_CHANGE),   task_of(bob, "b2", JOB_CHANGE),
                           task_of(carol, "c1", JOB_CHANGE)};

    f->config.batch_requests = 4;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, N(tasks) + 1);
    expect_log(HELD "begin a1 b1 c1 a2 commit begin b2 a3 a4 commit");
}

static void test_who_has_many_stores_has_no_more_turns_on_a_lane(void **state)
{
    struct fixture *f = *state;
    struct task one = task("a1", JOB_CHANGE), two = task("a2", JOB_CHANGE), his = task("b", JOB_CHANGE);

    start(f);
    lane_adopt(f->lanes, &f->third, &fake_engine, "open-third");
    f->store.account = f->other.account = uid(f, 1);
    f->third.account = uid(f, 2);
    hold(f, &f->store);
    assert_int_equal(submit(&one, &f->store), 0);
    assert_int_equal(submit(&two, &f->other), 0);
    assert_int_equal(submit(&his, &f->third), 0);
    let_go(f);
    wait_for(f, 4);
    expect_log(HELD "begin a1 commit open-third begin b commit open-other begin a2 commit");
}

static void test_the_end_of_a_queue_is_kept_for_who_has_little_in_flight(void **state)
{
    struct fixture *f = *state;
    struct account *alice = uid(f, 1), *bob = uid(f, 2);
    struct task flood[8], his = task_of(bob, "b", JOB_CHANGE);

    f->config.lane_requests = 8;
    assert_true(account_take(alice, ACCOUNT_REQUESTS, 8));
    assert_true(account_take(bob, ACCOUNT_REQUESTS, 1));
    start(f);
    hold(f, &f->store);
    for (size_t i = 0; i < 8; i++)
        flood[i] = task_of(alice, "a", JOB_CHANGE);
    submit_all(flood, 7, &f->store);
    assert_int_equal(submit(&flood[7], &f->store), SESSIOND_BUSY);
    assert_int_equal(submit(&flood[7], &f->other), SESSIOND_BUSY); /* which is on the same lane */
    assert_int_equal(submit(&his, &f->store), 0);
    assert_int_equal(submit(&flood[7], &f->store), SESSIOND_BUSY);
    let_go(f);
    wait_for(f, 9);
    account_give_back(alice, ACCOUNT_REQUESTS, 8);
    account_give_back(bob, ACCOUNT_REQUESTS, 1);
}

/* ---- what an owner may keep ---- */

static void test_what_a_store_holds_is_charged_to_who_pays_for_it(void **state)
{
    struct fixture *f = *state;
    struct account *alice = uid(f, 1);
    struct task one = task("a", JOB_CHANGE);

    start(f);
    f->store.account = alice;
    told.use = (struct store_use){.sessions = 3, .bytes = 4096};
    assert_int_equal(submit(&one, &f->store), 0);
    wait_for(f, 1);
    stop(f);
    assert_int_equal(alice->used[ACCOUNT_SESSIONS], 3); /* a store that is closed has what it had */
    assert_int_equal(alice->used[ACCOUNT_DISK], 4096);
}

static void test_a_change_is_told_that_its_owner_may_have_no_more(void **state)
{
    struct fixture *f = *state;
    struct account *alice = uid(f, 1);
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("c", JOB_CHANGE)};

    f->config.disk_bytes_per_owner = 100;
    f->config.sessions_per_owner = 5;
    start(f);
    f->store.account = alice;
    told.use = (struct store_use){.sessions = 5, .bytes = 50, .spare = 20};
    hold(f, &f->store);
    for (size_t i = 0; i < N(tasks); i++)
        tasks[i].job.size = 40; /* 20 of it spare, and then 40 of the 50 that are left; and then there is too little */
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 4);
    assert_true(!tasks[0].no_bytes && tasks[1].no_bytes && tasks[2].no_bytes);
    assert_true(tasks[0].no_sessions);
    stop(f);
    assert_int_equal(alice->used[ACCOUNT_DISK], 50); /* what it came to in the end */
}

/* Another lane was faster, after the change had been told that there was room. */
static void test_a_session_too_many_is_rolled_back(void **state)
{
    struct fixture *f = *state;
    struct account *alice = uid(f, 1);
    struct task one = task("a", JOB_CHANGE);

    f->config.sessions_per_owner = 5;
    one.begins = 6;
    start(f);
    f->store.account = alice;
    assert_int_equal(submit(&one, &f->store), 0);
    wait_for(f, 1);
    assert_int_equal(alice->used[ACCOUNT_SESSIONS], 0);
    assert_int_equal(one.job.outcome, SESSIOND_FULL);
    assert_false(one.job.refused);
}

static void test_lanes_do_not_wait_for_each_other(void **state)
{
    struct fixture *f = *state;
    struct task there = task("x", JOB_CHANGE);

    f->config.lanes = 2;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&there, &f->other), 0);
    wait_for(f, 1);
    assert_true(there.back);
    let_go(f);
    wait_for(f, 2);
}

/* ---- somebody fails ---- */

static void test_a_refusal_is_its_own_affair(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("c", JOB_CHANGE)};

    tasks[1].runs.replies[0] = SESSIOND_CONFLICT;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 4);
    expect_log(HELD "begin a b c commit");
    assert_int_equal(tasks[0].job.outcome, 0);
    assert_int_equal(tasks[1].job.outcome, SESSIOND_CONFLICT);
    assert_int_equal(tasks[2].job.outcome, 0);
}

static void expect_only_b_fails(struct fixture *f, int failure)
{
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("c", JOB_CHANGE)};

    for (int i = 0; i < REPLIES; i++)
        tasks[1].runs.replies[i] = failure;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 4);
    expect_log(HELD "begin a b rollback begin a commit begin b rollback begin c commit");
    assert_string_equal(f->order, "hold a b c");
    assert_int_equal(tasks[0].job.outcome, 0);
    assert_int_equal(tasks[1].job.outcome, failure);
    assert_int_equal(tasks[2].job.outcome, 0);
}

static void test_of_a_batch_only_the_guilty_one_fails(void **state)
{
    expect_only_b_fails(*state, -ENOMEM);
}

static void test_who_does_not_fit_is_refused_alone(void **state)
{
    expect_only_b_fails(*state, SESSIOND_FULL);
}

static void test_who_meets_damage_is_refused_alone(void **state)
{
    expect_only_b_fails(*state, SESSIOND_ROLLED_BACK);
}

static void test_a_failure_that_does_not_come_again_fails_nobody(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE)};

    tasks[0].runs.replies[0] = -ENOMEM;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 3);
    expect_log(HELD "begin a rollback begin a commit begin b commit");
    assert_int_equal(tasks[0].job.outcome, 0);
    assert_int_equal(tasks[1].job.outcome, 0);
}

static void test_a_transaction_that_cannot_begin(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE)};

    told.begin = (struct script){{0, -EIO, -EIO}, 0};
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 3);
    expect_log(HELD "begin-fails begin-fails begin b commit");
    assert_int_equal(tasks[0].job.outcome, -EIO);
    assert_int_equal(tasks[0].n_runs, 0);
    assert_int_equal(tasks[1].job.outcome, 0);
}

/* ---- commits that fail ---- */

static void expect_apart_after_commit(struct fixture *f, int failure)
{
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_READ), task("c", JOB_CHANGE)};

    told.commit = (struct script){{0, failure, 0, 0, failure}, 0};
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 4);
    expect_log(HELD "begin a b c commit-fails begin a commit begin-reading b commit begin c commit-fails");
    assert_int_equal(tasks[0].job.outcome, 0);
    assert_int_equal(tasks[1].job.outcome, 0);
    assert_int_equal(tasks[2].job.outcome, failure);
}

static void test_a_commit_that_is_certainly_not_stored_is_tried_one_by_one(void **state)
{
    expect_apart_after_commit(*state, -EIO);
}

static void test_a_commit_that_finds_the_disk_full_is_tried_one_by_one(void **state)
{
    expect_apart_after_commit(*state, SESSIOND_FULL);
}

static void test_an_uncertain_commit_is_told_to_changes_and_not_repeated(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("read", JOB_READ), task("refused", JOB_CHANGE),
                           task("c", JOB_CHANGE)};

    tasks[2].runs.replies[0] = SESSIOND_CONFLICT;
    told.commit = (struct script){{0, SESSIOND_UNCERTAIN}, 0};
    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 5);
    expect_log(HELD "begin a read refused c commit-fails");
    assert_int_equal(tasks[0].job.outcome, SESSIOND_UNCERTAIN);
    assert_int_equal(tasks[1].job.outcome, SESSIOND_UNAVAILABLE); /* it may have seen what is not there */
    assert_int_equal(tasks[2].job.outcome, SESSIOND_UNAVAILABLE); /* that may have been why */
    assert_int_equal(tasks[3].job.outcome, SESSIOND_UNCERTAIN);
}

/* ---- opening ---- */

static void test_a_store_that_cannot_be_opened_is_unavailable_and_tried_again(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE), task("c", JOB_CHANGE)};

    told.open = (struct script){{-EIO, SESSIOND_FULL}, 0};
    start(f);
    for (size_t i = 0; i < N(tasks); i++) {
        assert_int_equal(submit(&tasks[i], &f->store), 0);
        wait_for(f, i + 1);
    }
    expect_log("open-fails open-fails open-store begin c commit");
    assert_int_equal(tasks[0].job.outcome, SESSIOND_UNAVAILABLE); /* it is in the log why */
    assert_int_equal(tasks[1].job.outcome, SESSIOND_FULL);
    assert_int_equal(tasks[2].job.outcome, 0);
}

static void test_the_store_that_was_not_used_for_longest_is_closed(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ), task("c", JOB_READ), task("d", JOB_READ)};

    f->config.open_stores = 2;
    start(f);
    lane_adopt(f->lanes, &f->third, &fake_engine, "open-third");
    assert_int_equal(submit(&tasks[0], &f->store), 0);
    wait_for(f, 1);
    assert_int_equal(submit(&tasks[1], &f->other), 0);
    wait_for(f, 2);
    assert_int_equal(submit(&tasks[2], &f->store), 0); /* now the other one is the older */
    wait_for(f, 3);
    assert_int_equal(submit(&tasks[3], &f->third), 0);
    wait_for(f, 4);
    expect_log("open-store begin-reading a commit open-other begin-reading b commit begin-reading c commit"
               " open-third close begin-reading d commit");
    assert_non_null(f->store.engine);
    assert_null(f->other.engine);
}

static void test_a_volatile_store_is_never_closed_for_another(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ), task("c", JOB_READ)};

    f->config.open_stores = 1;
    start(f);
    lane_adopt(f->lanes, &f->memory, &fake_engine, NULL);
    assert_int_equal(submit(&tasks[0], &f->memory), 0);
    wait_for(f, 1);
    assert_int_equal(submit(&tasks[1], &f->store), 0);
    wait_for(f, 2);
    assert_int_equal(submit(&tasks[2], &f->other), 0);
    wait_for(f, 3);
    assert_non_null(f->memory.engine);
    assert_null(f->store.engine);
    assert_non_null(f->other.engine);
}

/* ---- full queues ---- */

static void test_a_full_queue_is_busy_until_it_is_empty_again(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ), task("c", JOB_READ)};

    f->config.lane_requests = 2;
    start(f);
    hold(f, &f->store);
    submit_all(tasks, 2, &f->store);
    assert_int_equal(submit(&tasks[2], &f->other), SESSIOND_BUSY); /* the queue is the lane's, not the store's */
    assert_int_equal(submit(&tasks[2], &f->store), SESSIOND_BUSY);
    let_go(f);
    wait_for(f, 3);
    assert_int_equal(submit(&tasks[2], &f->store), 0);
    wait_for(f, 4);
}

static void test_how_long_a_queue_will_take_is_told_from_what_went_before(void **state)
{
    enum { JOB_MS = 3, JOBS = 4 };
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ), task("c", JOB_READ), task("d", JOB_READ)};
    uint64_t begun_us;

    start(f);
    assert_int_equal(lane_wait_ms(&f->store), 0);
    hold(f, &f->store);
    begun_us = clock_monotonic_us();
    while (clock_monotonic_us() - begun_us < JOB_MS * 1000)
        sched_yield();
    let_go(f);
    wait_for(f, 1);
    hold(f, &f->store);
    submit_all(tasks, JOBS, &f->store);
    assert_true(lane_wait_ms(&f->store) >= (JOBS + 1) * JOB_MS); /* with the one that is at work */
    assert_true(lanes_wait_ms(f->lanes) >= (JOBS + 1) * JOB_MS);
    let_go(f);
    wait_for(f, 2 + JOBS);
}

static void test_a_queue_has_so_many_bytes_or_one_larger_request(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ)};

    f->config.lane_bytes = 100;
    tasks[0].job.size = 1000;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&tasks[0], &f->store), 0); /* alone, whatever its size */
    assert_int_equal(submit(&tasks[1], &f->store), SESSIOND_BUSY);
    let_go(f);
    wait_for(f, 2);
    assert_int_equal(submit(&tasks[1], &f->store), 0);
    wait_for(f, 3);
}

/* ---- long work in steps ---- */

static void test_steps_are_made_between_batches(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS);
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE)};

    f->config.batch_requests = 1;
    copy.n_steps = 4;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&copy, &f->store), 0);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    wait_for(f, 4);
    expect_log(HELD "step begin a commit step begin b commit step step");
    assert_string_equal(f->order, "hold a b step");
    assert_int_equal(copy.job.outcome, 0);
}

/* What was submitted before is in the copy: it has its batch first. */
static void test_steps_wait_for_what_came_before(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS), before = task("a", JOB_CHANGE);

    copy.n_steps = 1;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&before, &f->store), 0);
    assert_int_equal(submit(&copy, &f->store), 0);
    let_go(f);
    wait_for(f, 3);
    expect_log(HELD "begin a commit step");
}

static void test_a_store_has_one_job_in_steps_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct task copies[] = {task("step", JOB_STEPS), task("second", JOB_STEPS)}, there = task("other", JOB_STEPS);

    copies[0].n_steps = 3;
    there.n_steps = 1;
    start(f);
    hold(f, &f->store);
    submit_all(copies, N(copies), &f->store);
    assert_int_equal(submit(&there, &f->other), 0);
    let_go(f);
    wait_for(f, 4);
    assert_int_equal(copies[0].job.outcome, 0);
    assert_int_equal(copies[1].job.outcome, SESSIOND_BUSY);
    assert_int_equal(copies[1].n_runs, 0);
    assert_int_equal(there.job.outcome, 0);
}

static void test_a_step_that_fails_ends_the_job(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS), after = task("a", JOB_READ);

    copy.n_steps = 5;
    copy.runs.replies[1] = SESSIOND_FULL;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&copy, &f->store), 0);
    let_go(f);
    wait_for(f, 2);
    assert_int_equal(copy.job.outcome, SESSIOND_FULL);
    assert_int_equal(copy.n_runs, 2);
    assert_int_equal(submit(&after, &f->store), 0);
    wait_for(f, 3);
}

static void test_a_store_with_a_job_in_steps_is_not_closed_for_another(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS), there = task("x", JOB_READ);
    sem_t gate, at_gate;

    sem_init(&gate, 0, 0);
    sem_init(&at_gate, 0, 0);
    f->config.open_stores = 1;
    copy.n_steps = 2;
    copy.gate = &gate;
    copy.at_gate = &at_gate;
    start(f);
    assert_int_equal(submit(&copy, &f->store), 0);
    sem_wait(&at_gate);
    assert_int_equal(submit(&there, &f->other), 0);
    sem_post(&gate);
    wait_for(f, 2);
    assert_int_equal(copy.job.outcome, 0);
    assert_int_equal(copy.n_runs, 2);
    sem_destroy(&gate);
    sem_destroy(&at_gate);
}

/* ---- housekeeping ---- */

static void test_a_store_is_tended_after_each_batch(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ)};

    start(f);
    for (size_t i = 0; i < N(tasks); i++) {
        assert_int_equal(submit(&tasks[i], &f->store), 0);
        wait_for(f, i + 1);
    }
    stop(f);
    assert_true(told.n_tends >= 2);
}

static unsigned n_tends(void)
{
    unsigned n;

    pthread_mutex_lock(&told.lock);
    n = told.n_tends;
    pthread_mutex_unlock(&told.lock);
    return n;
}

static void test_housekeeping_goes_on_while_nobody_waits_and_holds_nobody_up(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ)};

    told.tend_more = true;
    start(f);
    assert_int_equal(submit(&tasks[0], &f->store), 0);
    wait_for(f, 1);
    while (n_tends() < 100)
        sched_yield();
    assert_int_equal(submit(&tasks[1], &f->store), 0);
    wait_for(f, 2);
    stop(f); /* it ends although there is always more to do */
}

static void test_housekeeping_that_fails_does_not_go_round_in_circles(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_READ), task("b", JOB_READ)};

    told.tend_more = true;
    for (int i = 0; i < REPLIES; i++)
        told.tend.replies[i] = -EIO;
    start(f);
    for (size_t i = 0; i < N(tasks); i++) {
        assert_int_equal(submit(&tasks[i], &f->store), 0);
        wait_for(f, i + 1);
    }
    stop(f);
    assert_true(told.n_tends <= 4);
}

/* ---- a store falls ill ---- */

/* Breaks the engine of f->store in a batch of three. */
static void break_store(struct fixture *f, struct task tasks[3])
{
    told.break_on_failure = true;
    tasks[0] = task("a", JOB_CHANGE);
    tasks[1] = task("b", JOB_CHANGE);
    tasks[2] = task("c", JOB_READ);
    tasks[1].runs.replies[0] = -EIO;
    hold(f, &f->store);
    submit_all(tasks, 3, &f->store);
    let_go(f);
    wait_for(f, 4);
}

static void wait_until_well(struct fixture *f)
{
    while (f->store.quarantined || f->store.quarantines == 0)
        uv_run(&f->loop, UV_RUN_ONCE);
}

static void test_a_broken_store_is_opened_anew_in_the_infirmary(void **state)
{
    struct fixture *f = *state;
    struct task tasks[3], after = task("after", JOB_CHANGE);

    start(f);
    break_store(f, tasks);
    for (size_t i = 0; i < N(tasks); i++) {
        assert_int_equal(tasks[i].job.outcome, SESSIOND_UNAVAILABLE);
        assert_true(tasks[i].n_runs <= 1);
    }
    wait_until_well(f);
    assert_ptr_equal(f->store.lane, f->store.home);
    assert_int_equal(submit(&after, &f->store), 0);
    wait_for(f, 5);
    assert_int_equal(after.job.outcome, 0);
    expect_log(HELD "begin a b rollback close-broken open-store close open-store begin after commit");
}

/* While the lane still answers those who came with the one that broke the store, the infirmary has it already. It takes
 * luck to meet there, so it is tried some times, and ThreadSanitizer sees more than we do. */
static void test_a_store_that_left_is_not_touched_by_its_lane(void **state)
{
    enum { CROWD = 2000, ROUNDS = 20 };
    static struct task crowd[CROWD];
    struct fixture *f = *state;
    struct task breaks;

    told.break_on_failure = true;
    f->config.batch_requests = CROWD + 1;
    start(f);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        breaks = task("", JOB_CHANGE);
        breaks.runs.replies[0] = -EIO;
        hold(f, &f->store);
        assert_int_equal(submit(&breaks, &f->store), 0);
        for (size_t i = 0; i < CROWD; i++)
            crowd[i] = task("", JOB_READ);
        submit_all(crowd, CROWD, &f->store);
        let_go(f);
        wait_for(f, round * (CROWD + 2));
        for (size_t i = 0; i < CROWD; i++) {
            assert_int_equal(crowd[i].n_runs, 0);
            assert_int_equal(crowd[i].job.outcome, SESSIOND_UNAVAILABLE);
        }
        while (f->store.quarantined || f->store.quarantines < round)
            uv_run(&f->loop, UV_RUN_ONCE);
    }
}

static void test_a_store_in_the_infirmary_takes_no_changes(void **state)
{
    struct fixture *f = *state;
    struct task tasks[3], change = task("change", JOB_CHANGE), read = task("read", JOB_READ);

    told.open = (struct script){{0, -EIO, -EIO, -EIO}, 0};
    start(f);
    break_store(f, tasks);
    while (!f->store.quarantined)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(submit(&change, &f->store), SESSIOND_UNAVAILABLE);
    assert_int_equal(submit(&read, &f->store), 0);
    wait_for(f, 5);
    assert_true(read.job.outcome == SESSIOND_UNAVAILABLE || read.job.outcome == 0);
    wait_until_well(f); /* it is tried until it opens */
    assert_int_equal(submit(&change, &f->store), 0);
    wait_for(f, 6);
    assert_int_equal(change.job.outcome, 0);
}

static void test_a_store_in_the_infirmary_is_tried_until_it_opens_though_nobody_asks(void **state)
{
    struct fixture *f = *state;
    struct task tasks[3];

    told.open = (struct script){{0, -EIO, -EIO, -EIO}, 0}; /* more than are tried when it comes there */
    start(f);
    break_store(f, tasks);
    wait_until_well(f);
    expect_log(HELD "begin a b rollback close-broken open-fails open-fails open-fails open-store close");
}

static void test_what_waits_for_a_store_goes_with_it(void **state)
{
    struct fixture *f = *state;
    struct task breaks = task("breaks", JOB_CHANGE);
    struct task waiting[] = {task("w1", JOB_READ), task("w2", JOB_CHANGE), task("w3", JOB_READ)};
    struct task there = task("x", JOB_CHANGE);

    told.break_on_failure = true;
    f->config.batch_requests = 1;
    breaks.runs.replies[0] = -EIO;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&breaks, &f->store), 0);
    submit_all(waiting, N(waiting), &f->store);
    assert_int_equal(submit(&there, &f->other), 0);
    let_go(f);
    wait_for(f, 6);
    assert_int_equal(there.job.outcome, 0);
    for (size_t i = 0; i < N(waiting); i++)
        assert_true(waiting[i].job.outcome == 0 || waiting[i].job.outcome == SESSIOND_UNAVAILABLE);
    wait_until_well(f);
}

static void test_a_broken_store_ends_its_job_in_steps(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS), breaks = task("breaks", JOB_CHANGE);

    told.break_on_failure = true;
    copy.n_steps = 1000000;
    breaks.runs.replies[0] = -EIO;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&copy, &f->store), 0);
    assert_int_equal(submit(&breaks, &f->store), 0);
    let_go(f);
    wait_for(f, 3);
    assert_int_equal(copy.job.outcome, SESSIOND_UNAVAILABLE);
    wait_until_well(f);
}

static void test_an_uncertain_commit_sends_the_store_to_the_infirmary(void **state)
{
    struct fixture *f = *state;
    struct task change = task("a", JOB_CHANGE);

    told.break_on_failure = true;
    told.commit = (struct script){{0, SESSIOND_UNCERTAIN}, 0};
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&change, &f->store), 0);
    let_go(f);
    wait_for(f, 2);
    assert_int_equal(change.job.outcome, SESSIOND_UNCERTAIN);
    assert_int_equal(f->store.quarantines, 1); /* whoever hears of it finds the store in quarantine already */
    wait_until_well(f);
}

static void test_housekeeping_that_breaks_a_store_sends_it_to_the_infirmary(void **state)
{
    struct fixture *f = *state;
    struct task change = task("a", JOB_CHANGE), after = task("b", JOB_CHANGE);

    told.break_on_failure = true;
    told.tend = (struct script){{-EIO}, 0};
    start(f);
    assert_int_equal(submit(&change, &f->store), 0);
    wait_for(f, 1);
    assert_int_equal(change.job.outcome, 0);
    wait_until_well(f);
    assert_int_equal(submit(&after, &f->store), 0);
    wait_for(f, 2);
    assert_int_equal(after.job.outcome, 0);
    expect_log("open-store begin a commit close-broken open-store close open-store begin b commit");
}

static void test_a_step_that_breaks_a_store_sends_it_to_the_infirmary(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS);

    told.break_on_failure = true;
    copy.n_steps = 5;
    copy.runs = (struct script){{0, -EIO}, 0};
    start(f);
    assert_int_equal(submit(&copy, &f->store), 0);
    wait_for(f, 1);
    assert_int_equal(copy.job.outcome, -EIO);
    wait_until_well(f);
    expect_log("open-store step step close-broken open-store close");
}

/* What it held is lost, as it always is when it is closed. */
static void test_a_broken_store_in_memory_is_opened_anew_as_well(void **state)
{
    struct fixture *f = *state;
    struct task breaks = task("breaks", JOB_CHANGE), after = task("after", JOB_CHANGE);

    told.break_on_failure = true;
    breaks.runs.replies[0] = -EIO;
    start(f);
    lane_adopt(f->lanes, &f->memory, &fake_engine, NULL);
    assert_int_equal(submit(&breaks, &f->memory), 0);
    wait_for(f, 1);
    while (f->memory.quarantined || f->memory.quarantines == 0)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(submit(&after, &f->memory), 0);
    wait_for(f, 2);
    assert_int_equal(after.job.outcome, 0);
}

/* ---- the ballast ---- */

static void test_the_ballast_is_given_up_for_a_removal(void **state)
{
    struct fixture *f = *state;
    struct task adds = task("add", JOB_CHANGE), removes = task("remove", JOB_CHANGE);
    char path[64];

    (void)snprintf(path, sizeof(path), "%s/ballast", f->top);
    adds.runs = removes.runs = (struct script){{SESSIOND_FULL, SESSIOND_FULL}, 0};
    removes.job.frees = true;
    start(f);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(submit(&adds, &f->store), 0);
    wait_for(f, 1);
    assert_int_equal(adds.job.outcome, SESSIOND_FULL);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(submit(&removes, &f->store), 0);
    wait_for(f, 2);
    assert_int_equal(removes.job.outcome, 0);
    assert_int_equal(removes.n_runs, 3);
}

static void test_a_removal_without_a_ballast_is_refused(void **state)
{
    struct fixture *f = *state;
    struct task removes = task("remove", JOB_CHANGE);

    removes.runs = (struct script){{SESSIOND_FULL, SESSIOND_FULL}, 0};
    removes.job.frees = true;
    f->config.ballast_bytes = 0;
    start(f);
    assert_int_equal(submit(&removes, &f->store), 0);
    wait_for(f, 1);
    assert_int_equal(removes.job.outcome, SESSIOND_FULL);
    assert_int_equal(removes.n_runs, 2);
}

static void test_a_full_store_in_memory_leaves_the_ballast_alone(void **state)
{
    struct fixture *f = *state;
    struct task removes = task("remove", JOB_CHANGE);

    for (int i = 0; i < REPLIES; i++)
        removes.runs.replies[i] = SESSIOND_FULL;
    removes.job.frees = true;
    start(f);
    lane_adopt(f->lanes, &f->memory, &fake_engine, NULL);
    assert_int_equal(submit(&removes, &f->memory), 0);
    wait_for(f, 1);
    assert_int_equal(removes.job.outcome, SESSIOND_FULL);
    assert_int_equal(removes.n_runs, 2);
}

/* ---- does it get on? ---- */

static void test_a_lane_that_is_stuck_makes_no_progress(void **state)
{
    struct fixture *f = *state;
    struct task after = task("after", JOB_READ);

    start(f);
    assert_true(lanes_get_on(f->lanes));
    hold(f, &f->store);
    (void)lanes_get_on(f->lanes); /* it had begun since it was asked last */
    assert_false(lanes_get_on(f->lanes));
    assert_false(lanes_get_on(f->lanes));
    assert_int_equal(submit(&after, &f->store), 0);
    assert_false(lanes_get_on(f->lanes));
    let_go(f);
    wait_for(f, 2);
    assert_true(lanes_get_on(f->lanes));
}

/* ---- stopping ---- */

static void test_stopping_finishes_what_waits_and_closes_the_stores(void **state)
{
    struct fixture *f = *state;
    struct task tasks[] = {task("a", JOB_CHANGE), task("b", JOB_CHANGE)};

    start(f);
    hold(f, &f->store);
    submit_all(tasks, N(tasks), &f->store);
    let_go(f);
    assert_int_equal(lanes_stop(f->lanes, clock_monotonic_us() + 60000000), 0);
    expect_log(HELD "begin a b commit close");
    wait_for(f, 3); /* they are still handed back */
    lanes_close(TAKE(f->lanes));
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(tasks[1].job.outcome, 0);
}

static void test_stopping_gives_up_a_job_in_steps(void **state)
{
    struct fixture *f = *state;
    struct task copy = task("step", JOB_STEPS);

    copy.n_steps = 1000000000;
    start(f);
    hold(f, &f->store);
    assert_int_equal(submit(&copy, &f->store), 0);
    let_go(f);
    wait_for(f, 1);
    assert_int_equal(lanes_stop(f->lanes, clock_monotonic_us() + 60000000), 0);
    wait_for(f, 2);
    assert_int_equal(copy.job.outcome, SESSIOND_UNAVAILABLE);
    lanes_close(TAKE(f->lanes));
    uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void test_a_stuck_lane_is_not_waited_for_for_ever(void **state)
{
    struct fixture *f = *state;

    start(f);
    hold(f, &f->store);
    assert_int_equal(lanes_stop(f->lanes, clock_monotonic_us()), SESSIOND_UNAVAILABLE);
    let_go(f);
    wait_for(f, 1);
}

static void test_stopping_while_a_store_is_in_the_infirmary(void **state)
{
    struct fixture *f = *state;
    struct task tasks[3];

    told.open = (struct script){{0, -EIO, -EIO, -EIO, -EIO, -EIO, -EIO, -EIO}, 0};
    start(f);
    break_store(f, tasks);
    while (!f->store.quarantined)
        uv_run(&f->loop, UV_RUN_ONCE);
    stop(f);
    assert_true(f->store.quarantined);
    assert_int_equal(told.n_open, 0);
}

static void test_stopping_without_ever_having_worked(void **state)
{
    struct fixture *f = *state;

    f->config.lanes = 4;
    start(f);
    stop(f);
    expect_log("");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    static const struct CMUnitTest tests[] = {
        TEST(test_what_waits_shares_a_transaction),
        TEST(test_reads_alone_need_no_writing),
        TEST(test_a_batch_has_so_many_requests_at_most),
        TEST(test_a_batch_has_so_many_bytes_or_one_larger_request),
        TEST(test_stores_take_turns),
        TEST(test_one_request_is_not_held_up_by_a_thousand_of_another_uid),
        TEST(test_the_requests_of_one_uid_are_done_in_their_order),
        TEST(test_uids_take_turns_in_a_store),
        TEST(test_who_has_many_stores_has_no_more_turns_on_a_lane),
        TEST(test_the_end_of_a_queue_is_kept_for_who_has_little_in_flight),
        TEST(test_what_a_store_holds_is_charged_to_who_pays_for_it),
        TEST(test_a_change_is_told_that_its_owner_may_have_no_more),
        TEST(test_a_session_too_many_is_rolled_back),
        TEST(test_lanes_do_not_wait_for_each_other),
        TEST(test_a_refusal_is_its_own_affair),
        TEST(test_of_a_batch_only_the_guilty_one_fails),
        TEST(test_who_does_not_fit_is_refused_alone),
        TEST(test_who_meets_damage_is_refused_alone),
        TEST(test_a_failure_that_does_not_come_again_fails_nobody),
        TEST(test_a_transaction_that_cannot_begin),
        TEST(test_a_commit_that_is_certainly_not_stored_is_tried_one_by_one),
        TEST(test_a_commit_that_finds_the_disk_full_is_tried_one_by_one),
        TEST(test_an_uncertain_commit_is_told_to_changes_and_not_repeated),
        TEST(test_a_store_that_cannot_be_opened_is_unavailable_and_tried_again),
        TEST(test_the_store_that_was_not_used_for_longest_is_closed),
        TEST(test_a_volatile_store_is_never_closed_for_another),
        TEST(test_a_full_queue_is_busy_until_it_is_empty_again),
        TEST(test_how_long_a_queue_will_take_is_told_from_what_went_before),
        TEST(test_a_queue_has_so_many_bytes_or_one_larger_request),
        TEST(test_steps_are_made_between_batches),
        TEST(test_steps_wait_for_what_came_before),
        TEST(test_a_store_has_one_job_in_steps_at_a_time),
        TEST(test_a_step_that_fails_ends_the_job),
        TEST(test_a_store_with_a_job_in_steps_is_not_closed_for_another),
        TEST(test_a_store_is_tended_after_each_batch),
        TEST(test_housekeeping_goes_on_while_nobody_waits_and_holds_nobody_up),
        TEST(test_housekeeping_that_fails_does_not_go_round_in_circles),
        TEST(test_a_broken_store_is_opened_anew_in_the_infirmary),
        TEST(test_a_store_that_left_is_not_touched_by_its_lane),
        TEST(test_a_store_in_the_infirmary_takes_no_changes),
        TEST(test_a_store_in_the_infirmary_is_tried_until_it_opens_though_nobody_asks),
        TEST(test_what_waits_for_a_store_goes_with_it),
        TEST(test_a_broken_store_ends_its_job_in_steps),
        TEST(test_an_uncertain_commit_sends_the_store_to_the_infirmary),
        TEST(test_housekeeping_that_breaks_a_store_sends_it_to_the_infirmary),
        TEST(test_a_step_that_breaks_a_store_sends_it_to_the_infirmary),
        TEST(test_a_broken_store_in_memory_is_opened_anew_as_well),
        TEST(test_the_ballast_is_given_up_for_a_removal),
        TEST(test_a_removal_without_a_ballast_is_refused),
        TEST(test_a_full_store_in_memory_leaves_the_ballast_alone),
        TEST(test_a_lane_that_is_stuck_makes_no_progress),
        TEST(test_stopping_finishes_what_waits_and_closes_the_stores),
        TEST(test_stopping_gives_up_a_job_in_steps),
        TEST(test_a_stuck_lane_is_not_waited_for_for_ever),
        TEST(test_stopping_while_a_store_is_in_the_infirmary),
        TEST(test_stopping_without_ever_having_worked),
    };

    log_setup((enum log_level)0);
    return cmocka_run_group_tests_name("lane", tests, NULL, NULL);
}
