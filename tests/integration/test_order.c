/*
 * Many calls under way: their order, the limit of 128, and an event loop of one's own.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

/* ---- order ---- */

struct record {
    unsigned n_answers;
    unsigned n_reads;
    bool wrong;
};

static void on_added(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct record *record = arg;

    (void)client;
    (void)answer;
    record->wrong |= r != 0;
    record->n_answers++;
}

/* Before the nth read there are n adds. */
static void on_read(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct record *record = arg;

    (void)client;
    record->n_answers++;
    record->n_reads++;
    record->wrong |= r != 0 || answer->items.n_items != record->n_reads;
}

static void send_add(struct sessiond *client, const char *session, struct record *record)
{
    struct sessiond_text item = SESSIOND_TEXT("{\"n\": 1}");
    struct sessiond_call call = {.method = SESSIOND_ADD_ITEMS, .session = session, .items = &item, .n_items = 1};

    EXPECT(client, 0, sessiond_send(client, &call, on_added, record));
}

static void send_read(struct sessiond *client, const char *session, struct record *record)
{
    struct sessiond_call call = {.method = SESSIOND_GET_ITEMS, .session = session};

    EXPECT(client, 0, sessiond_send(client, &call, on_read, record));
}

static void test_each_pipelined_read_sees_the_adds_before_it_and_no_more(void **state)
{
    enum { N = 300 };
    struct sessiond *client = daemon_client(*state);
    struct record record = {0};

    for (int i = 0; i < N; i++) {
        send_add(client, "s", &record);
        send_read(client, "s", &record);
    }
    assert_int_equal(sessiond_pending(client), 2 * N);
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(record.n_answers, 2 * N);
    assert_int_equal(record.n_reads, N);
    assert_false(record.wrong);
    sessiond_free(client);
}

/* The same without the library, whose own waiting must not be what makes it true. */
static void test_each_raw_pipelined_read_sees_the_adds_before_it_and_no_more(void **state)
{
    enum { N = 500 };
    struct daemon *daemon = *state;
    struct buf frames = BUF_INIT;
    int fd = raw_connect(daemon->socket);
    unsigned n_reads = 0;

    for (uint32_t i = 0; i < N; i++) {
        pack_request(&frames, 2 * i, "add_items");
        pack_map(&frames, 2);
        pack_pair_text(&frames, "session", slice_of("s"));
        pack_text(&frames, slice_of("items"));
        pack_array(&frames, 1);
        pack_text(&frames, slice_of("{}"));
        pack_request(&frames, 2 * i + 1, "get_items");
        pack_map(&frames, 2);
        pack_pair_text(&frames, "session", slice_of("s"));
        pack_pair_number(&frames, "limit", 1);
    }
    raw_send_buf(fd, &frames);
    for (int i = 0; i < 2 * N; i++) {
        static const struct field fields[] = {{"head_seq", FIELD_NUMBER, FIELD_NIL, 0, 0, 0}, {0}};
        struct number head = {0};
        struct raw_reply reply;
        char why[MESSAGE_WHY_SIZE];

        raw_receive(fd, &reply);
        assert_null(reply.message.error);
        assert_int_equal(message_read(&reply.message, reply.message.result, fields, MESSAGE_IGNORE_UNKNOWN, &head, why),
                         0);
        if (reply.message.msgid % 2) {
            assert_int_equal(head.value, (reply.message.msgid + 1) / 2);
            n_reads++;
        }
        raw_reply_deinit(&reply);
    }
    assert_int_equal(n_reads, N);
    close(fd);
}

static void test_an_add_then_a_clear_then_an_add_leave_one_item(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_call clear = {.method = SESSIOND_CLEAR_SESSION, .session = "s"};
    struct record record = {0};

    for (int i = 0; i < 50; i++) {
        send_add(client, "s", &record);
        EXPECT(client, 0, sessiond_send(client, &clear, on_added, &record));
    }
    send_add(client, "s", &record);
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(record.n_answers, 101);
    assert_false(record.wrong);
    expect_items(client, "s", "{\"n\": 1}", NULL);
    sessiond_free(client);
}

static void test_many_more_than_128_calls_under_way(void **state)
{
    enum { N = 5000, SESSIONS = 20 };
    struct sessiond *client = daemon_client(*state);
    struct sessiond_sessions sessions;
    struct record record = {0};
    char session[16];

    for (int i = 0; i < N; i++) {
        (void)snprintf(session, sizeof(session), "s%d", i % SESSIONS);
        send_add(client, session, &record);
    }
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(record.n_answers, N);
    assert_false(record.wrong);
    EXPECT(client, 0, sessiond_list_sessions(client, NULL, &sessions));
    assert_int_equal(sessions.n_sessions, SESSIONS);
    for (int i = 0; i < SESSIONS; i++) {
        assert_int_equal(sessions.sessions[i].count, N / SESSIONS);
        assert_int_equal(sessions.sessions[i].head_seq, N / SESSIONS);
    }
    sessiond_sessions_free(&sessions);
    sessiond_free(client);
}

static void test_there_is_a_limit_to_what_is_under_way(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_call ping = {.method = SESSIOND_PING};
    struct record record = {0};
    unsigned n = 0;
    int r = 0;

    while ((r = sessiond_send(client, &ping, on_added, &record)) == 0)
        n++;
    assert_int_equal(r, -ENOBUFS);
    assert_int_equal(n, 65536);
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(record.n_answers, n);
    assert_false(record.wrong);
    sessiond_free(client);
}

/* ---- a loop of one's own ---- */

static void test_two_clients_in_one_poll_loop(void **state)
{
    enum { N = 200 };
    struct sessiond *clients[2] = {daemon_client(*state), daemon_client(*state)};
    struct record records[2] = {0};

    for (int i = 0; i < N; i++) {
        send_add(clients[0], "a", &records[0]);
        send_add(clients[1], "b", &records[1]);
    }
    while (records[0].n_answers < N || records[1].n_answers < N) {
        struct pollfd fds[2];
        int timeout = -1;

        for (int i = 0; i < 2; i++) {
            int its = sessiond_timeout(clients[i]);

            fds[i] = (struct pollfd){.fd = sessiond_fd(clients[i]), .events = sessiond_events(clients[i])};
            timeout = its >= 0 && (timeout < 0 || its < timeout) ? its : timeout;
        }
        assert_true(poll(fds, 2, timeout) >= 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(sessiond_process(clients[i], fds[i].revents), 0);
    }
    assert_int_equal(sessiond_pending(clients[0]), 0);
    assert_int_equal(sessiond_timeout(clients[0]), -1); /* nothing to wait for */
    assert_int_equal(sessiond_events(clients[0]), POLLIN);
    assert_false(records[0].wrong || records[1].wrong);
    sessiond_free(clients[0]);
    sessiond_free(clients[1]);
}

static void test_a_loop_outlives_its_daemon(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct record record = {0};

    for (int round = 0; round < 3; round++) {
        send_add(client, "s", &record);
        while (sessiond_pending(client) > 0) {
            struct pollfd fd = {.fd = sessiond_fd(client), .events = sessiond_events(client)};

            assert_true(poll(&fd, 1, sessiond_timeout(client)) >= 0);
            assert_int_equal(sessiond_process(client, fd.revents), 0);
        }
        daemon_restart(daemon);
    }
    assert_int_equal(record.n_answers, 3);
    assert_false(record.wrong);
    expect_items(client, "s", "{\"n\": 1}", "{\"n\": 1}", "{\"n\": 1}", NULL);
    sessiond_free(client);
}

/* ---- two clients at once ---- */

static void test_two_pops_never_take_the_same_item(void **state)
{
    enum { N = 200 };
    struct sessiond *clients[2] = {daemon_client(*state), daemon_client(*state)};
    struct sessiond_text items[N];
    bool taken[N + 1] = {false};

    for (int i = 0; i < N; i++)
        items[i] = SESSIOND_TEXT("{}");
    EXPECT(clients[0], 0, sessiond_add_items(clients[0], "s", items, N, NULL, NULL));
    for (int i = 0; i < N; i++) {
        struct sessiond_popped popped;

        EXPECT(clients[i % 2], 0, sessiond_pop_item(clients[i % 2], "s", NULL, &popped));
        assert_true(popped.seq >= 1 && popped.seq <= N && !taken[popped.seq]);
        taken[popped.seq] = true;
        sessiond_popped_free(&popped);
    }
    expect_items(clients[0], "s", NULL);
    sessiond_free(clients[0]);
    sessiond_free(clients[1]);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_pipelined_read_sees_the_adds_before_it_and_no_more),
        TEST(test_each_raw_pipelined_read_sees_the_adds_before_it_and_no_more),
        TEST(test_an_add_then_a_clear_then_an_add_leave_one_item),
        TEST(test_many_more_than_128_calls_under_way),
        TEST(test_there_is_a_limit_to_what_is_under_way),
        TEST(test_two_clients_in_one_poll_loop),
        TEST(test_a_loop_outlives_its_daemon),
        TEST(test_two_pops_never_take_the_same_item),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
