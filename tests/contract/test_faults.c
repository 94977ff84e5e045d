/*
 * Every read, write and sync of the SQLite engine fails in turn, once and from then on, under a series of changes.
 * After each failure the store is opened anew without faults: what was acknowledged is there, what was refused is not,
 * and what was uncertain is there whole or not at all.
 */
#include <sys/wait.h>

#include "contract.h"
#include "faulty.h"

/* ---- a series of changes ---- */

static char large[50001], with_large[sizeof(large) + sizeof("1 b ")];

static int add_some(struct fixture *f)
{
    return add(f, to("s"), "1", "2", "3");
}

static int add_with_key(struct fixture *f)
{
    return add(f, keyed("s", "k", 'a'), "4");
}

static int pop_one(struct fixture *f)
{
    return pop(f, to("s"));
}

static int replace_tail(struct fixture *f)
{
    return replace(f, to("s"), SOME(2), "b");
}

static int add_large(struct fixture *f)
{
    return add(f, to("s"), large);
}

static int clear_all(struct fixture *f)
{
    return clear(f, to("s"));
}

static int add_to_others(struct fixture *f)
{
    char id[24];
    int r = 0;

    for (int i = 0; r == 0 && i < 20; i++) {
        (void)snprintf(id, sizeof(id), "other-%d", i);
        r = add(f, to(id), "x");
    }
    return r ? r : add(f, to("s"), "last");
}

/* What the session holds after each change; the first row is the beginning. */
static const struct {
    int (*change)(struct fixture *f);
    const char *items;
    bool reopen; /* afterwards, which writes the log back into the file */
} series[] = {
    {NULL, "", false},         {add_some, "1 2 3", false},     {add_with_key, "1 2 3 4", false},
    {pop_one, "1 2 3", false}, {replace_tail, "1 b", true},    {add_large, with_large, false},
    {clear_all, "", true},     {add_to_others, "last", false},
};

struct outcome {
    size_t n_acknowledged;
    int r; /* of what failed; 0: nothing did */
};

/* Makes all changes up to the first failure. */
static struct outcome run_series(struct fixture *f)
{
    struct outcome outcome = {0, open_store(f)};

    for (size_t i = 1; i < N(series) && outcome.r == 0; i++) {
        outcome.r = make_change(f, series[i].change);
        if (outcome.r == 0)
            outcome.n_acknowledged = i;
        if (outcome.r == 0 && series[i].reopen) {
            close_store(f);
            outcome.r = open_store(f);
        }
    }
    return outcome;
}

/* ---- what must hold afterwards ---- */

static bool holds(struct fixture *f, size_t n_changes)
{
    must(get(f, of("s")));
    return slice_equal(buf_slice(&f->text), slice_of(series[n_changes].items));
}

static void expect_outcome(struct fixture *f, struct outcome outcome)
{
    bool uncertain = outcome.r == SESSIOND_UNCERTAIN;

    if (!holds(f, outcome.n_acknowledged) && !(uncertain && holds(f, outcome.n_acknowledged + 1)))
        fail_msg("after %zu changes and %d: %.80s", outcome.n_acknowledged, outcome.r, f->text.data);
    assert_int_equal(sizes(f).missing, 0);
}

/* After a failure nothing is written by an engine that no longer trusts what it holds. */
static void close_after_failure(struct fixture *f)
{
    unsigned n_writes = plan.n_calls[CALL_WRITE], n_syncs = plan.n_calls[CALL_SYNC];
    bool broken = f->engine && f->table->is_broken(f->engine);

    close_store(f);
    if (broken) {
        assert_int_equal(plan.n_calls[CALL_WRITE], n_writes);
        assert_int_equal(plan.n_calls[CALL_SYNC], n_syncs);
    }
}

static void expect_sound(struct fixture *f)
{
    char path[80];

    (void)snprintf(path, sizeof(path), "%s/copy", f->top);
    for (bool more = true; more;)
        must(f->table->backup_step(f->engine, path, &more));
    {
        char why[160];

        if (sqlite_verify(path, why, sizeof(why)))
            fail_msg("%s", why);
    }
    must(add(f, to("s"), "after"));
    must(add(f, to("another"), "after"));
    reopen_store(f);
    expect_items(f, "another", "after");
}

/* Return: whether the fault came at all. */
static bool survive(struct fixture *f, enum call call, unsigned n, bool lasting, int rc)
{
    struct outcome outcome;
    unsigned n_hit;

    arm(call, n, lasting, rc);
    outcome = run_series(f);
    if (f->engine && outcome.r && outcome.r != SESSIOND_FULL)
        assert_true(f->table->is_broken(f->engine));
    if (f->engine && outcome.r == SESSIOND_FULL)
        assert_false(f->table->is_broken(f->engine));
    close_after_failure(f);
    n_hit = plan.n_hit;
    disarm();

    must(open_store(f));
    expect_outcome(f, outcome);
    expect_sound(f);
    close_store(f);
    remove_tree(f->directory);
    return n_hit > 0;
}

static void fail_each(struct fixture *f, enum call call, bool lasting, int rc)
{
    unsigned n = 1;

    while (survive(f, call, n, lasting, rc))
        n++;
    assert_true(n > 3); /* a series without these calls would prove nothing */
    print_message("%u calls failed in turn\n", n - 1);
}

static void test_each_read_fails(void **state)
{
    fail_each(*state, CALL_READ, false, SQLITE_IOERR_READ);
}

static void test_each_read_and_all_after_it_fail(void **state)
{
    fail_each(*state, CALL_READ, true, SQLITE_IOERR_READ);
}

static void test_each_write_fails(void **state)
{
    fail_each(*state, CALL_WRITE, false, SQLITE_IOERR_WRITE);
}

static void test_each_write_and_all_after_it_fail(void **state)
{
    fail_each(*state, CALL_WRITE, true, SQLITE_IOERR_WRITE);
}

static void test_the_disk_is_full_at_each_write(void **state)
{
    fail_each(*state, CALL_WRITE, false, SQLITE_FULL);
}

static void test_the_disk_is_full_from_each_write_on(void **state)
{
    fail_each(*state, CALL_WRITE, true, SQLITE_FULL);
}

static void test_each_sync_fails(void **state)
{
    fail_each(*state, CALL_SYNC, false, SQLITE_IOERR_FSYNC);
}

static void test_each_sync_and_all_after_it_fail(void **state)
{
    fail_each(*state, CALL_SYNC, true, SQLITE_IOERR_FSYNC);
}

/* ---- single cases ---- */

static void test_a_sync_that_fails_in_a_commit_leaves_it_uncertain(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    arm(CALL_SYNC, 1, false, SQLITE_IOERR_FSYNC);
    assert_int_equal(make_change(f, add_with_key), SESSIOND_UNCERTAIN);
    assert_int_equal(plan.n_hit, 1);
    assert_true(f->table->is_broken(f->engine));
    reopen_store(f);
    must(add(f, keyed("s", "k", 'a'), "4")); /* with its key it is stored once */
    expect_items(f, "s", "1 4");
}

/* Two calls a page would take as long as all the rest of a commit. These are three pages. */
static void test_a_commit_writes_to_its_log_at_once(void **state)
{
    struct fixture *f = *state;
    unsigned n_writes;

    must(open_store(f));
    must(add(f, to("s"), "the first one, for which the log gets a head that is synced"));
    begin(f);
    for (unsigned i = 0; i < 30; i++)
        must(add(f, to("s"),
                 "an item of some bytes, of which thirty and what the log says of them do not fit in a page"));
    n_writes = plan.n_calls[CALL_WRITE];
    commit(f);
    assert_int_equal(plan.n_calls[CALL_WRITE], n_writes + 1);
}

static void test_a_full_disk_refuses_and_the_engine_goes_on(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    for (int i = 0; i < 3; i++) {
        arm(CALL_WRITE, 1, true, SQLITE_FULL);
        assert_int_equal(make_change(f, add_large), SESSIOND_FULL);
        assert_int_equal(make_change(f, pop_one), SESSIOND_FULL);
        expect_items(f, "s", "1");
        disarm();
        assert_false(f->table->is_broken(f->engine));
    }
    must(make_change(f, add_with_key));
    expect_items(f, "s", "1 4");
    reopen_store(f);
    expect_items(f, "s", "1 4");
}

/* What a killed daemon has left in the log cannot be written back into the file, but it can be read. */
static void test_a_store_can_be_read_on_a_disk_that_is_full(void **state)
{
    struct fixture *f = *state;
    int status;
    pid_t child = fork();

    if (child == 0) {
        must(open_store(f));
        must(add(f, to("s"), "1", "2"));
        must(make_change(f, add_large));
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    arm(CALL_WRITE, 1, true, SQLITE_FULL);
    must(open_store(f));
    assert_true(plan.n_hit > 0);
    must(get(f, of("s")));
    assert_int_equal(f->n_rows, 3);
    assert_int_equal(make_change(f, clear_all), SESSIOND_FULL);
    disarm();
    must(make_change(f, clear_all));
    expect_items(f, "s", "");
}

static void test_a_checkpoint_on_a_full_disk_loses_nothing(void **state)
{
    struct fixture *f = *state;
    bool more;

    must(open_store(f));
    for (int i = 0; i < 120; i++)
        must(make_change(f, add_large));
    arm(CALL_WRITE, 1, true, SQLITE_FULL);
    (void)f->table->tend(f->engine, &more);
    assert_true(plan.n_hit > 0);
    disarm();
    assert_false(f->table->is_broken(f->engine));
    must(add(f, to("s"), "1"));
    tend_all(f);
    reopen_store(f);
    assert_int_equal(state_of(f, "s").head_seq, 121);
}

static void test_a_backup_of_what_cannot_be_read(void **state)
{
    struct fixture *f = *state;
    char path[80];
    bool more = true;
    int r = 0;

    f->config.cache_bytes = 1 << 20;
    must(open_store(f));
    for (int i = 0; i < 120; i++)
        must(make_change(f, add_large));
    reopen_store(f);
    (void)snprintf(path, sizeof(path), "%s/copy", f->top);
    arm(CALL_READ, 200, true, SQLITE_IOERR_READ);
    while (r == 0 && more)
        r = f->table->backup_step(f->engine, path, &more);
    assert_true(r < 0);
    disarm();
    close_store(f);
    must(open_store(f));
    expect_sound(f);
}

/* A copy whose writing fails is none, and its store knows nothing of it. */
static void test_each_write_of_a_backup_fails(void **state)
{
    struct fixture *f = *state;
    char path[80], why[160];
    unsigned n = 0;
    bool more;
    int r;

    must(open_store(f));
    for (int i = 0; i < 30; i++)
        must(make_change(f, add_large));
    (void)snprintf(path, sizeof(path), "%s/copy", f->top);
    do {
        n++;
        arm(CALL_WRITE, n, false, n % 2 ? SQLITE_IOERR_WRITE : SQLITE_FULL);
        more = true;
        for (r = 0; r == 0 && more;)
            r = f->table->backup_step(f->engine, path, &more);
        assert_int_equal(r != 0, plan.n_hit);
        assert_true(r <= 0 || r == SESSIOND_FULL);
        disarm();
        assert_false(f->table->is_broken(f->engine));
    } while (r);
    assert_true(n > 20); /* some 16 pages each */
    must(sqlite_verify(path, why, sizeof(why)));
    must(add(f, to("s"), "1"));
}

static void test_a_copy_that_cannot_be_read_is_not_called_good(void **state)
{
    struct fixture *f = *state;
    char path[80], why[160];
    unsigned n = 0;
    int r;

    must(open_store(f));
    must(make_change(f, add_large));
    (void)snprintf(path, sizeof(path), "%s/copy", f->top);
    for (bool more = true; more;)
        must(f->table->backup_step(f->engine, path, &more));
    do {
        n++;
        arm(CALL_READ, n, false, SQLITE_IOERR_READ);
        r = sqlite_verify(path, why, sizeof(why));
        assert_int_equal(r != 0, plan.n_hit);
        disarm();
    } while (r);
    assert_true(n > 10);
}

static void test_memory_that_the_disk_needs_is_missing(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    reopen_store(f);
    arm(CALL_READ, 1, false, SQLITE_IOERR_NOMEM);
    assert_int_equal(get(f, of("s")), -ENOMEM);
    assert_int_equal(plan.n_hit, 1);
    reopen_store(f);
    expect_items(f, "s", "1");
}

int main(void)
{
    static struct kind kind = {&sqlite_engine, true, 0};
#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, name, set_up_closed, tear_down_disarmed, &kind                                                          \
    }
    static const struct CMUnitTest tests[] = {
        TEST(test_each_read_fails),
        TEST(test_each_read_and_all_after_it_fail),
        TEST(test_each_write_fails),
        TEST(test_each_write_and_all_after_it_fail),
        TEST(test_the_disk_is_full_at_each_write),
        TEST(test_the_disk_is_full_from_each_write_on),
        TEST(test_each_sync_fails),
        TEST(test_each_sync_and_all_after_it_fail),
        TEST(test_a_sync_that_fails_in_a_commit_leaves_it_uncertain),
        TEST(test_a_commit_writes_to_its_log_at_once),
        TEST(test_a_full_disk_refuses_and_the_engine_goes_on),
        TEST(test_a_store_can_be_read_on_a_disk_that_is_full),
        TEST(test_a_checkpoint_on_a_full_disk_loses_nothing),
        TEST(test_a_backup_of_what_cannot_be_read),
        TEST(test_each_write_of_a_backup_fails),
        TEST(test_a_copy_that_cannot_be_read_is_not_called_good),
        TEST(test_memory_that_the_disk_needs_is_missing),
    };
    struct config config;

    config_init(&config);
    if (!getenv("LOUD"))
        log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    put_layer_under_sqlite();
    if (access("/dev/shm", W_OK) == 0)
        scratch_directory = "/dev/shm"; /* thousands of syncs, and no power cut is played here */
    memset(large, 'x', sizeof(large) - 1);
    (void)snprintf(with_large, sizeof(with_large), "1 b %s", large);
    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
