#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "sessiond-codes.h"
#include "tree.h"

static char top[32];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(top, sizeof(top), "/tmp/sd-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    remove_tree(top);
    return 0;
}

static const char *at(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
    return path;
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 ? status.st_mode : 0;
}

/* ---- directories ---- */

static void test_directories_are_made_with_all_above_them_and_private(void **state)
{
    (void)state;
    assert_int_equal(file_make_directory(at("a/b/c")), 0);
    assert_int_equal(mode_of(at("a")), S_IFDIR | 0700);
    assert_int_equal(mode_of(at("a/b/c")), S_IFDIR | 0700);
    assert_int_equal(file_make_directory(at("a/b/c")), 0);
    assert_int_equal(file_make_directory(at("a/b/d/")), 0);
    assert_int_equal(mode_of(at("a/b/d")), S_IFDIR | 0700);
    assert_int_equal(file_make_directory("/"), 0);
}

static void test_a_directory_that_cannot_be_made(void **state)
{
    char path[5000];

    (void)state;
    assert_int_equal(file_write(at("file"), "x"), 0);
    assert_int_equal(file_make_directory(at("file")), -ENOTDIR);
    assert_true(file_make_directory(at("file/below")) < 0);
    memset(path, 'a', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    assert_true(file_make_directory(path) < 0);
}

/* ---- small files ---- */

static void test_what_is_written_is_read(void **state)
{
    char text[8];

    (void)state;
    assert_int_equal(file_write(at("f"), "1234567"), 0);
    assert_int_equal(mode_of(at("f")), S_IFREG | 0600);
    assert_int_equal(file_read(at("f"), text, sizeof(text)), 0);
    assert_string_equal(text, "1234567");
    assert_int_equal(file_write(at("f"), ""), 0); /* in its place */
    assert_int_equal(file_read(at("f"), text, sizeof(text)), 0);
    assert_string_equal(text, "");
    assert_int_equal(mode_of(at("f.partial")), 0);
}

static void test_what_does_not_fit_is_not_read(void **state)
{
    char text[8];

    (void)state;
    assert_int_equal(file_write(at("f"), "12345678"), 0);
    assert_int_equal(file_read(at("f"), text, sizeof(text)), SESSIOND_TOO_LARGE);
}

static void test_what_is_not_there_is_not_found(void **state)
{
    char text[8];

    (void)state;
    assert_int_equal(file_read(at("f"), text, sizeof(text)), SESSIOND_NOT_FOUND);
    assert_true(file_read(top, text, sizeof(text)) < 0); /* a directory */
}

static void test_links_are_not_followed(void **state)
{
    char text[8];
    int fd;

    (void)state;
    assert_int_equal(file_write(at("f"), "x"), 0);
    assert_int_equal(symlink("f", at("link")), 0);
    assert_int_equal(file_read(at("link"), text, sizeof(text)), -ELOOP);
    assert_int_equal(file_lock(at("link"), &fd), -ELOOP);
    assert_int_equal(file_write(at("link"), "y"), 0); /* takes the link's place, and leaves what it led to */
    assert_int_equal(mode_of(at("link")), S_IFREG | 0600);
    assert_int_equal(file_read(at("f"), text, sizeof(text)), 0);
    assert_string_equal(text, "x");
}

static void test_a_file_that_cannot_be_written_stays_as_it_was(void **state)
{
    char text[8];

    (void)state;
    assert_int_equal(file_write(at("f"), "x"), 0);
    assert_int_equal(mkdir(at("f.partial"), 0700), 0);
    assert_true(file_write(at("f"), "y") < 0);
    assert_int_equal(file_read(at("f"), text, sizeof(text)), 0);
    assert_string_equal(text, "x");
    assert_true(file_write(at("no/such/directory"), "x") < 0);
}

static void test_syncing(void **state)
{
    (void)state;
    assert_int_equal(file_sync(at("nothing")), 0);
    assert_int_equal(file_sync(top), 0);
    assert_int_equal(file_write(at("f"), "x"), 0);
    assert_int_equal(file_sync(at("f")), 0);
    assert_int_equal(file_sync_parent(at("f")), 0);
    assert_int_equal(file_sync_parent("relative"), 0);
}

/* ---- locks ---- */

/* What another process finds. */
static int lock_elsewhere(const char *path)
{
    int status, fd;
    pid_t child = fork();

    if (child == 0)
        _exit(file_lock(path, &fd) & 0xff);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_a_lock_is_had_by_one_until_it_goes(void **state)
{
    int fd = -1;

    (void)state;
    assert_int_equal(file_lock(at("lock"), &fd), 0);
    assert_true(fd >= 0);
    assert_int_equal(mode_of(at("lock")), S_IFREG | 0600);
    assert_int_equal(lock_elsewhere(at("lock")), SESSIOND_BUSY);
    close(fd);
    assert_int_equal(lock_elsewhere(at("lock")), 0);
    assert_int_equal(lock_elsewhere(at("lock")), 0); /* it went with its process */
}

static void test_a_lock_that_cannot_be_had(void **state)
{
    int fd = -1;

    (void)state;
    assert_true(file_lock(at("no/such/directory"), &fd) < 0);
    assert_true(file_lock(top, &fd) < 0);
    assert_int_equal(fd, -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    static const struct CMUnitTest tests[] = {
        TEST(test_directories_are_made_with_all_above_them_and_private),
        TEST(test_a_directory_that_cannot_be_made),
        TEST(test_what_is_written_is_read),
        TEST(test_what_does_not_fit_is_not_read),
        TEST(test_what_is_not_there_is_not_found),
        TEST(test_links_are_not_followed),
        TEST(test_a_file_that_cannot_be_written_stays_as_it_was),
        TEST(test_syncing),
        TEST(test_a_lock_is_had_by_one_until_it_goes),
        TEST(test_a_lock_that_cannot_be_had),
    };

    log_setup((enum log_level)0);
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
