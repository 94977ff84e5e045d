/*
 * Owners and stores: whose they are, what of a directory is a store, and what cannot be had. The Makefile links this
 * program with --wrap, so that each allocation of ours fails in turn, and tsearch's nodes as well.
 */
#include <errno.h>
#include <limits.h>
#include <search.h>
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
#include "config/config.h"
#include "sessiond-codes.h"
#include "store/engine.h"
#include "store/lane.h"
#include "store/store.h"
#include "tree.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* ---- allocations that fail ---- */

static unsigned failing; /* so many from now; 1 is the next, 0: none */

static bool fails(void)
{
    return failing > 0 && --failing == 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_tsearch(const void *key, void **root, __compar_fn_t compare);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_tsearch(const void *key, void **root, __compar_fn_t compare);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

void *__wrap_tsearch(const void *key, void **root, __compar_fn_t compare)
{
    return fails() ? NULL : __real_tsearch(key, root, compare);
}

/* ---- a registry without a daemon ---- */

struct fixture {
    uv_loop_t loop;
    struct config config;
    struct lanes *lanes;
    struct registry *registry;
    char top[32];
};

static void on_jobs(void *arg, struct list *jobs)
{
    (void)arg;
    (void)jobs;
    fail();
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    config_init(&f->config);
    (void)snprintf(f->top, sizeof(f->top), "/tmp/sd-XXXXXX");
    f->config.state_dir = mkdtemp(f->top);
    f->config.lanes = 1;
    f->config.ballast_bytes = 0;
    *state = f;
    return f->config.state_dir && uv_loop_init(&f->loop) == 0 &&
                   lanes_open(&f->lanes, &f->loop, &f->config, on_jobs, f) == 0 &&
                   registry_open(&f->registry, &f->config, f->lanes, &sqlite_engine) == 0
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    failing = 0;
    registry_close(f->registry);
    assert_int_equal(lanes_stop(f->lanes, clock_monotonic_us() + 60000000), 0);
    lanes_close(f->lanes);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    remove_tree(f->top);
    free(f);
    return 0;
}

static struct owner *owner_of(struct fixture *f, uid_t uid)
{
    struct owner *owner = NULL;

    assert_int_equal(registry_owner(f->registry, uid, &owner), 0);
    assert_int_equal(owner->uid, uid);
    return owner;
}

/* Makes a directory below the state directory and, in it, an empty file. */
static void make(const struct fixture *f, const char *directory, const char *name)
{
    char path[512];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/u", f->top);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof(path), "%s/u/7", f->top);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof(path), "%s/u/7/%s", f->top, directory);
    assert_int_equal(mkdir(path, 0700), 0);
    if (!name)
        return;
    (void)snprintf(path, sizeof(path), "%s/u/7/%s/%s", f->top, directory, name);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fclose(file);
}

/* ---- owners ---- */

static void test_an_owner_is_met_once(void **state)
{
    struct fixture *f = *state;
    static const uid_t uids[] = {500, 3, 1000, 3, 0, 4294967294, 500};
    struct owner *met[N(uids)];

    for (size_t i = 0; i < N(uids); i++)
        met[i] = owner_of(f, uids[i]);
    for (size_t i = 0; i < N(uids); i++)
        for (size_t j = 0; j < N(uids); j++)
            assert_int_equal(met[i] == met[j], uids[i] == uids[j]);
}

static void test_a_store_of_one_owner_is_not_seen_by_another(void **state)
{
    struct fixture *f = *state;
    struct store *mine, *theirs;

    assert_int_equal(owner_store(owner_of(f, 1), slice_of("s"), true, &mine), 0);
    assert_int_equal(owner_store(owner_of(f, 2), slice_of("s"), true, &theirs), 0);
    assert_ptr_not_equal(mine, theirs);
    assert_string_not_equal(mine->directory, theirs->directory);
    assert_null(owner_existing_store(owner_of(f, 3), slice_of("s")));
}

static void test_a_store_that_nobody_made_is_read_as_empty_and_does_not_exist(void **state)
{
    struct fixture *f = *state;
    struct owner *owner = owner_of(f, 1);
    struct store *store;

    assert_int_equal(owner_store(owner, slice_of("s"), false, &store), 0);
    assert_null(store->directory);
    assert_null(owner_existing_store(owner, slice_of("s")));
    assert_null(owner_existing_store(owner, slice_of("No name")));
    assert_null(owner_existing_store(owner, slice_of("")));
}

/* ---- what of a directory is a store ---- */

static void test_only_what_is_a_store_is_found_in_a_directory(void **state)
{
    struct fixture *f = *state;
    char longest[257];
    struct store *store;
    struct owner *owner;

    memset(longest, '6', 256);
    longest[256] = '\0';
    make(f, "6f6e65", "items.db");       /* one */
    make(f, "74776f", "items.head");     /* two, whose file is gone */
    make(f, "7468726565", NULL);         /* three, of which nothing was written */
    make(f, "6d656d6f7279", "items.db"); /* memory is never on a disk */
    make(f, "666f7", "items.db");        /* half a byte */
    make(f, "6F", "items.db");           /* hex has small letters */
    make(f, "6x", "items.db");
    make(f, "x6", "items.db");
    make(f, "41", "items.db"); /* A is no name */
    longest[254] = '\0';
    make(f, longest, "items.db"); /* 127 bytes are a name */
    owner = owner_of(f, 7);
    assert_non_null(owner_existing_store(owner, slice_of("one")));
    assert_non_null(owner_existing_store(owner, slice_of("two")));
    assert_null(owner_existing_store(owner, slice_of("three")));
    assert_null(owner_existing_store(owner, slice_of("memory")));
    memset(longest, 'f', 127);
    assert_non_null(owner_existing_store(owner, (struct slice){longest, 127}));
    assert_null(owner_existing_store(owner, (struct slice){longest, 128}));
    assert_int_equal(owner->n_stores, 5);
    assert_int_equal(owner_store(owner, slice_of("three"), false, &store), 0);
    assert_null(store->directory); /* the one that is always empty */
    assert_int_equal(owner_store(owner, slice_of("three"), true, &store), 0);
    assert_non_null(owner_existing_store(owner, slice_of("three")));
}

static void test_an_owner_whose_directory_cannot_be_had_is_a_fault(void **state)
{
    struct fixture *f = *state;
    struct owner *owner = NULL;
    char path[64];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/u", f->top);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fclose(file);
    assert_true(registry_owner(f->registry, 1, &owner) < 0);
    assert_null(owner);
    assert_int_equal(unlink(path), 0);
    (void)owner_of(f, 1); /* and is met when it can be had */
}

static void test_a_path_that_is_too_long_is_a_fault(void **state)
{
    struct fixture *f = *state;
    char *top = f->config.state_dir, longest[PATH_MAX];
    struct owner *owner = NULL;

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    f->config.state_dir = longest;
    assert_true(registry_owner(f->registry, 1, &owner) < 0);
    assert_null(owner);
    f->config.state_dir = top;
    (void)owner_of(f, 1);
}

/* ---- memory ---- */

static void test_each_allocation_fails_and_then_all_goes_on(void **state)
{
    struct fixture *f = *state;
    struct registry *registry;
    struct store *store;
    struct owner *owner;
    unsigned n = 0;
    int r;

    make(f, "6f6e65", "items.db");
    do {
        failing = ++n;
        if ((r = registry_open(&registry, &f->config, f->lanes, &sqlite_engine)) == 0) {
            if ((r = registry_owner(registry, 7, &owner)) == 0 &&
                (r = owner_store(owner, slice_of("new"), true, &store)) == 0)
                assert_non_null(owner_existing_store(owner, slice_of("one")));
            if (r) { /* the same again, with memory */
                assert_int_equal(failing, 0);
                assert_int_equal(registry_owner(registry, 7, &owner), 0);
                assert_non_null(owner_existing_store(owner, slice_of("one")));
                assert_null(owner_existing_store(owner, slice_of("new")));
                assert_int_equal(owner_store(owner, slice_of("new"), true, &store), 0);
            }
            registry_close(registry);
        }
        assert_true(r == 0 || r == -ENOMEM);
    } while (r);
    failing = 0;
    assert_true(n > 6); /* the registry, an owner, its two stores, and where they are kept */
}

static void test_lanes_that_cannot_be_had_are_a_fault(void **state)
{
    struct fixture *f = *state;
    struct lanes *lanes = NULL;
    char *top = f->config.state_dir, longest[PATH_MAX];

    for (unsigned n = 1; n <= 2; n++) { /* themselves, and the ballast */
        failing = n;
        assert_int_equal(lanes_open(&lanes, &f->loop, &f->config, on_jobs, f), -ENOMEM);
        assert_null(lanes);
    }
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    f->config.state_dir = longest;
    assert_true(lanes_open(&lanes, &f->loop, &f->config, on_jobs, f) < 0);
    assert_null(lanes);
    f->config.state_dir = top;
}

static void test_a_store_is_not_opened_without_memory(void **state)
{
    struct fixture *f = *state;
    struct engine *engine = NULL;

    failing = 1;
    assert_int_equal(sqlite_engine.open(&engine, NULL, &f->config), -ENOMEM);
    assert_null(engine);
    assert_int_equal(sqlite_engine.open(&engine, NULL, &f->config), 0);
    sqlite_engine.close(engine);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    static const struct CMUnitTest tests[] = {
        TEST(test_an_owner_is_met_once),
        TEST(test_a_store_of_one_owner_is_not_seen_by_another),
        TEST(test_a_store_that_nobody_made_is_read_as_empty_and_does_not_exist),
        TEST(test_only_what_is_a_store_is_found_in_a_directory),
        TEST(test_an_owner_whose_directory_cannot_be_had_is_a_fault),
        TEST(test_a_path_that_is_too_long_is_a_fault),
        TEST(test_each_allocation_fails_and_then_all_goes_on),
        TEST(test_lanes_that_cannot_be_had_are_a_fault),
        TEST(test_a_store_is_not_opened_without_memory),
    };
    struct config config;

    config_init(&config);
    log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
