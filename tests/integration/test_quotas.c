/*
 * What an owner may keep: so many sessions, and so many bytes on the disk, in all of his stores together; and what all
 * owners may. With the real daemon, through libsessiond; where there are many users, over plain connections.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "harness.h"

enum { ALICE = 20001, BOB = 20002, ITEM = 65536 };

static void start_with(struct daemon *daemon, const char *settings)
{
    daemon_configure(daemon, settings);
    daemon_start(daemon);
}

/* Of what stands in `use` of info: of `what` the number with this name. */
static uint64_t use_of(struct sessiond *client, const char *what, const char *name)
{
    json_t *info, *number;
    uint64_t value;
    char *text;

    EXPECT(client, 0, sessiond_info(client, &text));
    info = json_loads(text, 0, NULL);
    number = json_object_get(json_object_get(json_object_get(info, "use"), what), name);
    assert_true(json_is_integer(number));
    value = (uint64_t)json_integer_value(number);
    json_decref(info);
    free(text);
    return value;
}

static int add_to(struct sessiond *client, const char *store, const char *session, size_t size)
{
    static char text[ITEM + 1];
    struct sessiond_text item = {text, size};
    struct sessiond_change change = {.store = store};

    assert_true(size < sizeof(text));
    (void)snprintf(text, sizeof(text), "{\"t\":\"%0*d\"}", (int)size - 8, 0);
    return sessiond_add_items(client, session, &item, 1, &change, NULL);
}

static void expect_full(struct sessiond *client, int r, const char *of)
{
    EXPECT(client, SESSIOND_FULL, r);
    assert_non_null(strstr(sessiond_last_error(client)->message, of));
}

/* ---- sessions ---- */

static void test_an_owner_has_so_many_sessions_in_all_stores_together(void **state)
{
    struct sessiond *client;

    start_with(*state, "{\"sessions_per_owner\": 3}");
    client = daemon_client(*state);
    EXPECT(client, 0, add_to(client, NULL, "a", 10));
    EXPECT(client, 0, add_to(client, "other", "b", 10));
    EXPECT(client, 0, add_to(client, "memory", "c", 10));
    expect_full(client, add_to(client, NULL, "d", 10), "sessions");
    expect_full(client, add_to(client, "third", "d", 10), "sessions");
    EXPECT(client, 0, add_to(client, NULL, "a", 10)); /* those that there are go on, */
    assert_int_equal(use_of(client, "sessions", "used"), 3);
    assert_int_equal(use_of(client, "sessions", "limit"), 3);
    EXPECT(client, 0, sessiond_delete_session(client, "c", &(struct sessiond_change){.store = "memory"}, NULL));
    EXPECT(client, 0, add_to(client, NULL, "d", 10)); /* and one that is deleted makes room */
    expect_full(client, add_to(client, NULL, "e", 10), "sessions");
    sessiond_free(client);
}

static void test_a_limit_that_is_reached_is_written_down_once_a_minute(void **state)
{
    struct sessiond *client;

    start_with(*state, "{\"sessions_per_owner\": 1}");
    client = daemon_client(*state);
    EXPECT(client, 0, add_to(client, NULL, "a", 10));
    for (int i = 0; i < 10; i++)
        expect_full(client, add_to(client, NULL, "b", 10), "sessions");
    assert_in_range(daemon_log_lines(*state, "limit_reached uid="), 1, 2); /* the minute may end meanwhile */
    assert_int_equal(daemon_log_lines(*state, "of=\"sessions\""), daemon_log_lines(*state, "limit_reached uid="));
    sessiond_free(client);
}

static void test_sessions_are_known_after_a_restart_before_their_store_is_opened(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client;

    start_with(daemon, "{\"sessions_per_owner\": 2}");
    client = daemon_client(daemon);
    EXPECT(client, 0, add_to(client, "one", "a", 10));
    EXPECT(client, 0, add_to(client, "two", "b", 10));
    for (int kill = 0; kill < 2; kill++) {
        if (!kill)
            daemon_stop(daemon);
        else
            daemon_kill(daemon);
        daemon_start(daemon);
        expect_full(client, add_to(client, "three", "c", 10), "sessions");
    }
    EXPECT(client, 0, sessiond_delete_session(client, "a", &(struct sessiond_change){.store = "one"}, NULL));
    EXPECT(client, 0, add_to(client, "three", "c", 10));
    sessiond_free(client);
}

static void test_a_limit_that_is_raised_holds_with_the_reload(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client;

    start_with(daemon, "{\"sessions_per_owner\": 1}");
    client = daemon_client(daemon);
    EXPECT(client, 0, add_to(client, NULL, "a", 10));
    expect_full(client, add_to(client, NULL, "b", 10), "sessions");
    daemon_configure(daemon, "{\"sessions_per_owner\": 2}");
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    WAIT_UNTIL(use_of(client, "sessions", "limit") == 2);
    EXPECT(client, 0, add_to(client, NULL, "b", 10));
    daemon_configure(daemon, "{\"sessions_per_owner\": 1}");
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    WAIT_UNTIL(use_of(client, "sessions", "limit") == 1);
    EXPECT(client, 0, add_to(client, NULL, "b", 10)); /* nothing that is there is lost */
    expect_full(client, add_to(client, NULL, "c", 10), "sessions");
    sessiond_free(client);
}

/* ---- bytes on the disk ---- */

/* Return: how many items of 64 KiB went in. */
static unsigned fill(struct sessiond *client, const char *store)
{
    unsigned n = 0;
    int r;

    while ((r = add_to(client, store, "s", ITEM)) == 0)
        assert_true(++n < 100);
    expect_full(client, r, "bytes on the disk");
    return n;
}

static void test_an_owner_has_so_many_bytes_in_all_stores_together(void **state)
{
    struct sessiond_items items;
    struct sessiond *client;
    unsigned n;

    start_with(*state, "{\"disk_bytes_per_owner\": 4194304}");
    client = daemon_client(*state);
    n = fill(client, NULL);
    assert_in_range(n, 20, 64);
    assert_in_range(use_of(client, "disk_bytes", "used"), 4194304 - 2 * ITEM, 4194304 + 2 * ITEM);
    expect_full(client, add_to(client, "other", "s", ITEM), "bytes on the disk");
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, n);
    sessiond_items_free(&items);
    EXPECT(client, 0, sessiond_clear_session(client, "s", NULL, NULL)); /* removals are always possible, */
    assert_true(fill(client, NULL) >= n / 2);                           /* and what is free is used again */
    EXPECT(client, 0, add_to(client, "memory", "s", ITEM));
    sessiond_free(client);
}

/* What a clean stop writes back of the log makes a little room. */
static void test_bytes_are_known_after_a_restart_before_their_store_is_opened(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client;
    unsigned n;

    start_with(daemon, "{\"disk_bytes_per_owner\": 2097152}");
    client = daemon_client(daemon);
    n = fill(client, "one");
    daemon_stop(daemon);
    daemon_start(daemon);
    n += fill(client, "two");
    daemon_restart(daemon);
    n += fill(client, "three");
    assert_in_range(n, 20, 2097152 / ITEM);
    sessiond_free(client);
}

static void test_stores_in_memory_have_a_limit_of_all_owners(void **state)
{
    struct sessiond *client;
    unsigned n = 0;
    int r;

    start_with(*state, "{\"memory_bytes_total\": 2097152}");
    client = daemon_client(*state);
    while ((r = add_to(client, "memory", "s", ITEM)) == 0)
        assert_true(++n < 100);
    expect_full(client, r, "bytes in memory");
    assert_in_range(n, 20, 2097152 / ITEM);
    assert_in_range(use_of(client, "memory_bytes", "used"), 2097152 - 2 * ITEM, 2097152);
    EXPECT(client, 0, add_to(client, NULL, "s", ITEM));
    EXPECT(client, 0, sessiond_clear_session(client, "s", &(struct sessiond_change){.store = "memory"}, NULL));
    EXPECT(client, 0, add_to(client, "memory", "s", ITEM));
    sessiond_free(client);
}

/* ---- many users ---- */

static void add_as(int fd, const char *session, const char *store, const char *code)
{
    struct buf request = BUF_INIT;

    pack_request(&request, 1, "add_items");
    pack_map(&request, 2 + (store != NULL));
    pack_pair_text(&request, "session", slice_of(session));
    pack_text(&request, slice_of("items"));
    pack_array(&request, 1);
    pack_text(&request, slice_of("{}"));
    if (store)
        pack_pair_text(&request, "store", slice_of(store));
    raw_send_buf(fd, &request);
    raw_expect(fd, 1, code);
}

static void test_what_one_has_is_not_what_another_pays(void **state)
{
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    daemon_configure(daemon, "{\"sessions_per_owner\": 2}");
    daemon_start_for_all(daemon);
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "a", NULL, NULL);
    add_as(alice, "b", NULL, NULL);
    add_as(alice, "c", NULL, "full");
    add_as(bob, "a", NULL, NULL);
    add_as(bob, "b", NULL, NULL);
    close(alice);
    close(bob);
}

/* Its name is no uid, though it begins with one or is one modulo 2^32. */
static void make_stray_folder(const struct daemon *daemon, const char *name)
{
    char path[PATH_SIZE + 32];

    assert_in_range(snprintf(path, sizeof(path), "%s/u/%s", daemon->state, name), 1, sizeof(path) - 1);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void test_who_has_not_come_yet_counts_in_what_all_have(void **state)
{
    const char *metrics[] = {"--socket", ((struct daemon *)*state)->socket, "metrics", NULL};
    struct buf output = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    daemon_configure(daemon, "{\"sessions\": 4, \"shared_stores\": {\"team\": {\"append\": [20001]}}}");
    daemon_start_for_all(daemon);
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "a", NULL, NULL);
    add_as(alice, "b", NULL, NULL);
    add_as(alice, "c", "@team", NULL);
    close(alice);
    daemon_stop(daemon);
    make_stray_folder(daemon, "alice");
    make_stray_folder(daemon, "20003.old");
    make_stray_folder(daemon, "4294987300");
    daemon_start_for_all(daemon);
    assert_int_equal(run_program("sessionctl", metrics, &output), 0);
    buf_append(&output, "", 1);
    assert_non_null(strstr(output.data, "uid=\"20001\""));
    assert_null(strstr(output.data, "uid=\"20003\""));
    assert_null(strstr(output.data, "uid=\"20004\""));
    buf_deinit(&output);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(bob, "a", NULL, NULL);
    add_as(bob, "b", NULL, "full");
    close(bob);
}

static void test_a_shared_store_pays_for_itself(void **state)
{
    const char *metrics[] = {"--socket", ((struct daemon *)*state)->socket, "metrics", NULL};
    struct buf output = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    daemon_configure(daemon,
                     "{\"sessions_per_owner\": 2, \"shared_stores\": {\"team\": {\"append\": [20001, 20002]}}}");
    daemon_start_for_all(daemon);
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "a", "@team", NULL);
    add_as(bob, "b", "@team", NULL);
    add_as(alice, "c", "@team", "full");
    add_as(bob, "c", "@team", "full");
    add_as(alice, "a", "@team", NULL);
    add_as(alice, "own", NULL, NULL);
    assert_int_equal(run_program("sessionctl", metrics, &output), 0);
    buf_append(&output, "", 1);
    assert_non_null(strstr(output.data, "sessiond_uid_sessions{uid=\"20001\"} 1\n"));
    assert_non_null(strstr(output.data, "sessiond_uid_sessions{uid=\"20002\"} 0\n"));
    assert_non_null(strstr(output.data, "sessiond_shared_sessions{store=\"@team\"} 2\n"));
    assert_non_null(strstr(output.data, "sessiond_uid_limit{what=\"sessions\"} 2\n"));
    assert_non_null(strstr(output.data, "sessiond_uid_disk_bytes{uid=\"20001\"} "));
    buf_deinit(&output);
    close(alice);
    close(bob);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup_bare, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_owner_has_so_many_sessions_in_all_stores_together),
        TEST(test_a_limit_that_is_reached_is_written_down_once_a_minute),
        TEST(test_sessions_are_known_after_a_restart_before_their_store_is_opened),
        TEST(test_a_limit_that_is_raised_holds_with_the_reload),
        TEST(test_an_owner_has_so_many_bytes_in_all_stores_together),
        TEST(test_bytes_are_known_after_a_restart_before_their_store_is_opened),
        TEST(test_stores_in_memory_have_a_limit_of_all_owners),
        TEST(test_what_one_has_is_not_what_another_pays),
        TEST(test_who_has_not_come_yet_counts_in_what_all_have),
        TEST(test_a_shared_store_pays_for_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
