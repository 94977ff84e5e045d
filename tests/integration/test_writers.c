/*
 * Many processes that write at the same time.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

enum { WRITERS_MAX = 64 };

struct load {
    const struct daemon *daemon;
    int n_writers;
    int n_items; /* of each writer, one by one */
    bool shared; /* all write to one session */
    int begin;   /* nobody writes before this pipe ends */
};

static struct load load_of(const struct daemon *daemon, bool shared)
{
    return (struct load){.daemon = daemon,
                         .shared = shared,
                         .n_writers = harness_is_slow() ? 8 : WRITERS_MAX,
                         .n_items = harness_is_slow() ? 50 : 1000};
}

static void session_of(const struct load *load, int writer, char session[32])
{
    (void)snprintf(session, 32, "session-%d", load->shared ? 0 : writer);
}

/* Return: 0, if every single item was acknowledged. */
static int write_items(const struct load *load, int writer)
{
    struct sessiond *client;
    char session[32], byte;

    session_of(load, writer, session);
    if (sessiond_new(&client, &(struct sessiond_options){.socket = load->daemon->socket}) || sessiond_ping(client))
        return 1;
    if (read(load->begin, &byte, 1) != 0)
        return 1;
    for (int i = 0; i < load->n_items; i++) {
        char text[64];
        struct sessiond_text item;

        (void)snprintf(text, sizeof(text), "{\"writer\": %d, \"i\": %d}", writer, i);
        item = SESSIOND_TEXT(text);
        if (sessiond_add_items(client, session, &item, 1, NULL, NULL))
            return 1;
    }
    sessiond_free(client);
    return 0;
}

static void run_writers(struct load *load)
{
    pid_t pids[WRITERS_MAX];
    int begin[2], status;

    assert_int_equal(pipe2(begin, O_CLOEXEC), 0);
    load->begin = begin[0];
    for (int i = 0; i < load->n_writers; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            close(begin[1]);
            _exit(write_items(load, i));
        }
        assert_true(pids[i] > 0);
    }
    close(begin[0]);
    close(begin[1]);
    for (int i = 0; i < load->n_writers; i++) {
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

/* Expects as many items as were written, numbered without a gap, and each writer's in its own order. */
static void expect_session(struct sessiond *client, const struct load *load, int writer)
{
    int next[WRITERS_MAX] = {0}, n = load->n_items * (load->shared ? load->n_writers : 1);
    struct sessiond_items items;
    char session[32];

    session_of(load, writer, session);
    EXPECT(client, 0, sessiond_get_items(client, session, NULL, &items));
    assert_int_equal(items.n_items, n);
    assert_int_equal(items.first_seq, 1);
    assert_int_equal(items.last_seq, n);
    assert_int_equal(items.head_seq, n);
    assert_int_equal(items.revision, n);
    for (int i = 0; i < n; i++) {
        int by, number;

        assert_int_equal(sscanf(items.items[i].data, "{\"writer\": %d, \"i\": %d}", &by, &number), 2);
        assert_true(load->shared ? by >= 0 && by < load->n_writers : by == writer);
        assert_int_equal(number, next[by]++);
    }
    sessiond_items_free(&items);
}

static void expect_all(const struct load *load)
{
    struct sessiond *client = daemon_client(load->daemon);

    for (int i = 0; i < (load->shared ? 1 : load->n_writers); i++)
        expect_session(client, load, i);
    sessiond_free(client);
}

static void test_many_processes_each_with_a_session_of_its_own(void **state)
{
    struct load load = load_of(*state, false);

    run_writers(&load);
    expect_all(&load);
}

static void test_many_processes_that_share_one_session(void **state)
{
    struct load load = load_of(*state, true);

    run_writers(&load);
    expect_all(&load);
}

static void test_many_processes_whose_daemon_is_killed_between_them(void **state)
{
    enum { KILLS = 3 };
    struct daemon *daemon = *state;
    struct load load = load_of(daemon, true);
    struct sessiond *client;
    struct sessiond_items items;
    pid_t pid;
    int status;

    load.n_writers = 8;
    pid = fork();
    if (pid == 0) {
        run_writers(&load);
        _exit(0);
    }
    client = daemon_client(daemon);
    for (int i = 1; i <= KILLS; i++) { /* each time when some more has been written */
        WAIT_UNTIL(({
            size_t n;

            EXPECT(client, 0, sessiond_get_items(client, "session-0", NULL, &items));
            n = items.n_items;
            sessiond_items_free(&items);
            n >= (size_t)(load.n_items * load.n_writers / (KILLS + 1) * i);
        }));
        daemon_restart(daemon);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    sessiond_free(client);
    expect_all(&load); /* what was repeated is there once */
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_many_processes_each_with_a_session_of_its_own),
        TEST(test_many_processes_that_share_one_session),
        TEST(test_many_processes_whose_daemon_is_killed_between_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
