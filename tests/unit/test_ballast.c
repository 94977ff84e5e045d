/* The ballast: made where there is room, given up once, and made again. */
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "store/ballast.h"
#include "tree.h"

enum { SIZE = 65536 };

struct fixture {
    struct config config;
    struct ballast *ballast;
    char top[32];
    char path[64]; /* where it is made */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    config_init(&f->config);
    (void)snprintf(f->top, sizeof(f->top), "/tmp/sd-XXXXXX");
    f->config.state_dir = mkdtemp(f->top);
    f->config.ballast_bytes = SIZE;
    (void)snprintf(f->path, sizeof(f->path), "%s/ballast", f->top);
    *state = f;
    return f->config.state_dir ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->ballast)
        ballast_close(f->ballast);
    remove_tree(f->top);
    free(f);
    return 0;
}

static void begin(struct fixture *f)
{
    assert_int_equal(ballast_open(&f->ballast, &f->config), 0);
}

/* Return: the bytes that it takes from the disk; -1: it is not there. */
static int64_t size_of(const struct fixture *f)
{
    struct stat status;

    return lstat(f->path, &status) == 0 ? (int64_t)status.st_blocks * 512 : -1;
}

static void write_whole(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_it_takes_its_room_and_keeps_it_for_the_next_start(void **state)
{
    struct fixture *f = *state;

    begin(f);
    assert_true(size_of(f) >= SIZE);
    ballast_close(TAKE(f->ballast));
    assert_true(size_of(f) >= SIZE);
    begin(f);
    assert_true(ballast_release(f->ballast));
}

static void test_it_can_be_given_up_once_and_made_again(void **state)
{
    struct fixture *f = *state;

    begin(f);
    assert_true(ballast_release(f->ballast));
    assert_int_equal(size_of(f), -1);
    assert_false(ballast_release(f->ballast));
    ballast_restore(f->ballast);
    assert_true(size_of(f) >= SIZE);
    ballast_restore(f->ballast); /* it is there */
    assert_true(ballast_release(f->ballast));
}

static void test_what_somebody_removed_cannot_be_given_up(void **state)
{
    struct fixture *f = *state;

    begin(f);
    assert_int_equal(unlink(f->path), 0);
    assert_false(ballast_release(f->ballast));
    ballast_restore(f->ballast);
    assert_true(size_of(f) >= SIZE);
}

static void test_half_a_ballast_is_made_whole(void **state)
{
    struct fixture *f = *state;

    write_whole(f->path, "what an earlier start could not finish");
    begin(f);
    assert_true(size_of(f) >= SIZE);
}

static void test_none_is_wanted(void **state)
{
    struct fixture *f = *state;

    f->config.ballast_bytes = 0;
    begin(f);
    ballast_restore(f->ballast);
    assert_int_equal(size_of(f), -1);
    assert_false(ballast_release(f->ballast));
}

/* A start without it is a start all the same. */
static void expect_none(struct fixture *f)
{
    begin(f);
    assert_false(ballast_release(f->ballast));
    ballast_restore(f->ballast);
    assert_false(ballast_release(f->ballast));
    ballast_close(TAKE(f->ballast));
}

static void test_a_disk_without_plenty_is_left_alone(void **state)
{
    struct fixture *f = *state;

    f->config.ballast_bytes = INT64_MAX / 8;
    expect_none(f);
    assert_int_equal(size_of(f), -1);
}

static void test_a_directory_that_is_gone_has_no_room(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(rmdir(f->top), 0);
    expect_none(f);
    assert_int_equal(mkdir(f->top, 0700), 0);
}

/* The file that it names may be anybody's. */
static void test_a_link_in_its_place_is_not_followed(void **state)
{
    struct fixture *f = *state;
    char other[64];
    struct stat status;

    (void)snprintf(other, sizeof(other), "%s/other", f->top);
    write_whole(other, "precious");
    assert_int_equal(symlink(other, f->path), 0);
    expect_none(f);
    assert_int_equal(stat(other, &status), 0);
    assert_int_equal(status.st_size, 8);
}

static void test_room_that_is_refused_half_way_is_given_back(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, small;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = SIZE / 2;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    begin(f);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(size_of(f), -1);
    assert_false(ballast_release(f->ballast));
    ballast_restore(f->ballast);
    assert_true(size_of(f) >= SIZE);
}

static void test_a_path_that_is_too_long_is_a_fault(void **state)
{
    struct fixture *f = *state;
    char *top = f->config.state_dir, longest[PATH_MAX];

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    f->config.state_dir = longest;
    assert_true(ballast_open(&f->ballast, &f->config) < 0);
    assert_null(f->ballast);
    f->config.state_dir = top;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    static const struct CMUnitTest tests[] = {
        TEST(test_it_takes_its_room_and_keeps_it_for_the_next_start),
        TEST(test_it_can_be_given_up_once_and_made_again),
        TEST(test_what_somebody_removed_cannot_be_given_up),
        TEST(test_half_a_ballast_is_made_whole),
        TEST(test_none_is_wanted),
        TEST(test_a_disk_without_plenty_is_left_alone),
        TEST(test_a_directory_that_is_gone_has_no_room),
        TEST(test_a_link_in_its_place_is_not_followed),
        TEST(test_room_that_is_refused_half_way_is_given_back),
        TEST(test_a_path_that_is_too_long_is_a_fault),
    };

    log_setup((enum log_level)0);
    return cmocka_run_group_tests_name("ballast", tests, NULL, NULL);
}
