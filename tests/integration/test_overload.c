/*
 * More than there is: too few descriptors, clients that never read, floods, and what becomes of the others meanwhile.
 * States are asserted here, not times; the figures stand in RESULTS.md beside this file.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

enum { MIB = 1024 * 1024 };

/* A member of /proc/PID/status, in KiB. */
static long status_kib(const struct daemon *daemon, const char *name)
{
    char path[PATH_SIZE], line[256];
    long kib = -1;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon->pid);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtol(line + strlen(name) + 1, NULL, 10);
    (void)fclose(file);
    return kib;
}

static void send_get(int fd, uint32_t msgid, const char *session)
{
    struct buf request = BUF_INIT;

    pack_request(&request, msgid, "get_items");
    pack_map(&request, 1);
    pack_pair_text(&request, "session", slice_of(session));
    raw_send_buf(fd, &request);
}

static void send_ping(int fd, uint32_t msgid)
{
    struct buf request = BUF_INIT;

    pack_request(&request, msgid, "ping");
    pack_map(&request, 0);
    raw_send_buf(fd, &request);
}

/* ---- descriptors ---- */

static int few_setup(void **state)
{
    (void)daemon_setup_bare(state);
    (void)setenv("SESSIOND_WRAPPER", "prlimit --nofile=64", 1);
    daemon_start(*state);
    return 0;
}

static int few_teardown(void **state)
{
    (void)unsetenv("SESSIOND_WRAPPER");
    return daemon_teardown(state);
}

/* Each is served, or is told `busy` and closed; nobody waits for nothing. */
static void test_500_clients_of_a_daemon_with_64_descriptors(void **state)
{
    enum { CLIENTS = 500 };
    struct daemon *daemon = *state;
    struct sessiond *existing = daemon_client(daemon);
    int fds[CLIENTS], n_served = 0, n_refused = 0;

    add_item(existing, "s", "{}");
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = raw_connect(daemon->socket);
    for (int i = 0; i < CLIENTS; i++) {
        struct raw_reply reply;
        struct buf ping = BUF_INIT;

        pack_request(&ping, 1, "ping");
        pack_map(&ping, 0);
        (void)send(fds[i], ping.data, ping.size, MSG_NOSIGNAL); /* it may be closed already */
        buf_deinit(&ping);
        raw_receive(fds[i], &reply);
        if (reply.message.type == MESSAGE_RESPONSE) {
            n_served++;
            raw_reply_deinit(&reply);
            continue;
        }
        assert_non_null(memmem(reply.frame.data, reply.frame.size, "busy", 4));
        raw_reply_deinit(&reply);
        raw_expect_end(fds[i]);
        fds[i] = -1;
        n_refused++;
    }
    assert_int_equal(n_served + n_refused, CLIENTS);
    assert_true(n_served >= 10 && n_served < 64);
    add_item(existing, "s", "{}"); /* who was there goes on, with stores that have to be opened, too */
    for (int i = 0; i < 8; i++) {
        struct sessiond_change change = {.store = (const char *[]){"a", "b", "c", "d", "e", "f", "g", "h"}[i]};
        struct sessiond_text item = SESSIOND_TEXT("{}");

        EXPECT(existing, 0, sessiond_add_items(existing, "s", &item, 1, &change, NULL));
    }
    for (int i = 0; i < CLIENTS; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    sessiond_free(existing);
}

/* ---- clients that never read ---- */

static int unread_setup(void **state)
{
    (void)daemon_setup_bare(state);
    daemon_configure(*state, "{\"buffered_bytes_per_owner\": 67108864}");
    daemon_start(*state);
    return 0;
}

static int slow_setup(void **state)
{
    (void)daemon_setup_bare(state);
    daemon_configure(*state, "{\"stall_seconds\": 2, \"buffered_bytes_per_owner\": 67108864}");
    ((struct daemon *)*state)->arguments[0] = getuid() == 0 ? "--system" : NULL;
    daemon_start(*state);
    return 0;
}

/* Somebody else, where root may be anybody; else ourselves. */
static int connect_as_other(const struct daemon *daemon)
{
    if (getuid() != 0)
        return raw_connect(daemon->socket);
    daemon_open_doors(daemon);
    return raw_connect_as(daemon, 20001, 0, NULL);
}

static void make_history(struct daemon *daemon, const char *session, size_t size)
{
    struct sessiond *client = daemon_client(daemon);
    char *text = malloc(size + 16);
    struct sessiond_text item;

    assert_non_null(text);
    memcpy(text, "{\"a\":\"", 6);
    memset(text + 6, 'x', size);
    memcpy(text + 6 + size, "\"}", 2);
    item = (struct sessiond_text){text, size + 8};
    EXPECT(client, 0, sessiond_add_items(client, session, &item, 1, NULL, NULL));
    free(text);
    sessiond_free(client);
}

/* Whether this connection gets the history now, or is told that too much is unread. */
static bool is_served(int fd)
{
    struct raw_reply reply;
    bool served;

    send_get(fd, 1, "s");
    raw_receive(fd, &reply);
    served = reply.message.type == MESSAGE_RESPONSE && reply.message.result;
    raw_reply_deinit(&reply);
    return served;
}

static void test_clients_that_never_read_hold_no_more_than_their_limit_and_are_cut(void **state)
{
    enum { CLIENTS = 50, EACH = 40 };
    struct daemon *daemon = *state;
    int fds[CLIENTS], other, mine;
    long before;

    make_history(daemon, "s", MIB);
    other = connect_as_other(daemon);
    before = status_kib(daemon, "VmRSS");
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = raw_connect(daemon->socket);
        for (uint32_t j = 0; j < EACH; j++) /* 2 GB, if all of them were answered */
            send_get(fds[i], j, "s");
    }
    for (uint32_t i = 0; i < 100 && getuid() == 0; i++) { /* of our own we might be told that we have too much */
        send_ping(other, i);
        raw_expect(other, i, NULL);
        send_get(other, i, "s");
        raw_expect(other, i, NULL);
    }
    if (!harness_is_slow()) /* the limit, and as much again for what is made and given back meanwhile */
        assert_in_range(status_kib(daemon, "VmHWM") - before, 0, 2 * 64 * 1024);
    /* Those for whom bytes wait are cut, and what they held is free again, while they are still there. */
    mine = raw_connect(daemon->socket);
    WAIT_UNTIL(is_served(mine));
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    close(mine);
    close(other);
}

static void test_who_has_too_much_unread_is_told_busy(void **state)
{
    struct daemon *daemon = *state;
    struct raw_reply reply;
    int n_busy = 0, n_read = 0, fds[10];

    make_history(daemon, "s", 4 * MIB - 100);
    for (size_t i = 0; i < N(fds); i++) {
        fds[i] = raw_connect(daemon->socket);
        for (uint32_t j = 0; j < 20; j++)
            send_get(fds[i], j, "s");
    }
    for (size_t i = 0; i < N(fds); i++) {
        for (uint32_t j = 0; j < 20; j++) { /* every request is answered, one way or the other */
            raw_receive(fds[i], &reply);
            assert_int_equal(reply.message.type, MESSAGE_RESPONSE);
            if (reply.message.error) {
                assert_non_null(memmem(reply.frame.data, reply.frame.size, "retry_after_ms", 14));
                n_busy++;
            } else {
                n_read++;
            }
            raw_reply_deinit(&reply);
        }
        close(fds[i]);
    }
    assert_true(n_busy > 0 && n_read > 0);
}

/* Sends one item of so many bytes that is none: it is looked through to its end, and nothing is stored. */
static void send_large(int fd, uint32_t msgid, size_t size)
{
    struct buf item = BUF_INIT, request = BUF_INIT;

    buf_append(&item, "{\"text\":\"", 9);
    for (size_t i = 0; i < size; i++)
        buf_append(&item, "x", 1);
    pack_request(&request, msgid, "add_items");
    pack_map(&request, 2);
    pack_pair_text(&request, "session", slice_of("s"));
    pack_text(&request, slice_of("items"));
    pack_array(&request, 1);
    pack_text(&request, buf_slice(&item));
    raw_send_buf(fd, &request);
    buf_deinit(&item);
}

/* Each thread has a heap, and must not keep as much of it free as it ever had in use. */
static void test_what_large_requests_took_goes_back(void **state)
{
    struct daemon *daemon = *state;
    int fds[8];
    long before;

    for (size_t i = 0; i < N(fds); i++) {
        fds[i] = raw_connect(daemon->socket);
        send_large(fds[i], 0, 1);
        raw_expect(fds[i], 0, "invalid");
    }
    before = status_kib(daemon, "RssAnon");
    for (uint32_t round = 1; round < 6; round++) {
        for (size_t i = 0; i < N(fds); i++)
            send_large(fds[i], round, (size_t)MIB * 6 * round);
        for (size_t i = 0; i < N(fds); i++)
            raw_expect(fds[i], round, "invalid");
    }
    for (size_t i = 0; i < N(fds); i++)
        close(fds[i]);
    if (!harness_is_slow())
        WAIT_UNTIL(status_kib(daemon, "RssAnon") < before + 12 * 1024);
}

/* ---- floods ---- */

/* One writes without end and reads nothing; the others are served all the same. */
static void test_a_flood_on_one_connection_leaves_the_others_their_turn(void **state)
{
    struct daemon *daemon = *state;
    struct buf flood = BUF_INIT;
    size_t at = 0;
    ssize_t n;
    int noisy = raw_connect(daemon->socket), other = raw_connect(daemon->socket);

    for (uint32_t i = 0; i < 10000; i++) {
        pack_request(&flood, i, "ping");
        pack_map(&flood, 0);
    }
    assert_int_equal(fcntl(noisy, F_SETFL, O_NONBLOCK), 0);
    for (uint32_t i = 0; i < 200; i++) {
        do {
            n = send(noisy, flood.data + at, flood.size - at, MSG_NOSIGNAL);
            at = n > 0 ? (at + (size_t)n) % flood.size : at;
        } while (n > 0);
        send_ping(other, i);
        raw_expect(other, i, NULL);
    }
    buf_deinit(&flood);
    close(noisy);
    close(other);
}

static void test_requests_sent_before_hanging_up_are_all_carried_out(void **state)
{
    enum { ITEMS = 500 }; /* more than a connection begins in one turn of the loop */
    struct daemon *daemon = *state;
    struct sessiond *client;
    struct sessiond_items items;
    struct buf flood = BUF_INIT;
    int fd = raw_connect(daemon->socket);

    for (uint32_t i = 0; i < ITEMS; i++) {
        pack_request(&flood, i, "add_items");
        pack_map(&flood, 2);
        pack_pair_text(&flood, "session", slice_of("s"));
        pack_text(&flood, slice_of("items"));
        pack_array(&flood, 1);
        pack_text(&flood, slice_of("{}"));
    }
    raw_send_buf(fd, &flood);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    for (uint32_t i = 0; i < ITEMS; i++)
        raw_expect(fd, i, NULL);
    raw_expect_end(fd);
    client = daemon_client(daemon);
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, ITEMS);
    sessiond_items_free(&items);
    sessiond_free(client);
}

static int small_setup(void **state)
{
    (void)daemon_setup_bare(state);
    daemon_configure(*state, "{\"requests_per_owner\": 8, \"in_flight\": 4096}");
    daemon_start(*state);
    return 0;
}

static void test_too_many_requests_are_refused_each_with_an_answer(void **state)
{
    enum { REQUESTS = 1000 };
    struct daemon *daemon = *state;
    struct buf flood = BUF_INIT;
    struct raw_reply reply;
    int fd = raw_connect(daemon->socket), n_busy = 0;

    for (uint32_t i = 0; i < REQUESTS; i++) {
        pack_request(&flood, i, "clear_session");
        pack_map(&flood, 1);
        pack_pair_text(&flood, "session", slice_of("s"));
    }
    raw_send_buf(fd, &flood);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        raw_receive(fd, &reply);
        assert_int_equal(reply.message.type, MESSAGE_RESPONSE);
        n_busy += reply.message.error != NULL;
        raw_reply_deinit(&reply);
    }
    assert_true(n_busy > 0 && n_busy < REQUESTS);
    close(fd);
}

#define WITH(setup, test) cmocka_unit_test_setup_teardown(test, setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_500_clients_of_a_daemon_with_64_descriptors, few_setup, few_teardown),
        WITH(slow_setup, test_clients_that_never_read_hold_no_more_than_their_limit_and_are_cut),
        WITH(unread_setup, test_who_has_too_much_unread_is_told_busy),
        WITH(daemon_setup, test_what_large_requests_took_goes_back),
        WITH(daemon_setup, test_a_flood_on_one_connection_leaves_the_others_their_turn),
        WITH(daemon_setup, test_requests_sent_before_hanging_up_are_all_carried_out),
        WITH(small_setup, test_too_many_requests_are_refused_each_with_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
