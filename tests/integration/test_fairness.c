/*
 * Many requests of one uid beside a few of another, in one store and on one lane, with the real daemon. What is counted
 * is how many of the one's were done while the other waited: all of them append to one session, whose numbers tell.
 * Nothing here depends on how fast anything is.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "harness.h"
#include "proto.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

enum {
    ALICE = 20001,
    BOB = 20002,
    FLOODING = 4,   /* connections of alice's, */
    IN_FLIGHT = 75, /* each with so many requests on their way */
    ASKED = 10,     /* one after the other */
};

static int set_up(void **state)
{
    (void)daemon_setup_bare(state);
    if (getuid() != 0)
        return 0;
    daemon_configure(*state, "{\"batch_requests\": 1, \"lanes\": 1,"
                             " \"shared_stores\": {\"team\": {\"append\": [20001, 20002]}}}");
    daemon_start_for_all(*state);
    return 0;
}

static void pack_add(struct buf *request, uint32_t msgid)
{
    pack_request(request, msgid, "add_items");
    pack_map(request, 3);
    pack_pair_text(request, "session", slice_of("s"));
    pack_text(request, slice_of("items"));
    pack_array(request, 1);
    pack_text(request, slice_of("{}"));
    pack_pair_text(request, "store", slice_of("@team"));
}

/* ---- the flood, in a thread of its own, where cmocka must not fail ---- */

struct flood {
    int fds[FLOODING];
    pthread_t thread;
    atomic_bool over;
    atomic_size_t n_answered;
};

struct stream {
    struct frame_scan scan;
    struct buf input;
    uint32_t msgid;
    size_t in_flight;
};

static bool send_more(int fd, struct stream *stream)
{
    struct buf requests = BUF_INIT;
    bool sent;

    for (; stream->in_flight < IN_FLIGHT; stream->in_flight++)
        pack_add(&requests, ++stream->msgid);
    sent = requests.size == 0 || send(fd, requests.data, requests.size, MSG_NOSIGNAL) == (ssize_t)requests.size;
    buf_deinit(&requests);
    return sent;
}

/* Return: how many answers came, -1 at the end. */
static int take_answers(int fd, struct stream *stream)
{
    char *room = buf_reserve(&stream->input, 65536);
    ssize_t n = room ? recv(fd, room, 65536, 0) : -1;
    size_t at = 0;
    int n_answers = 0;

    if (n <= 0)
        return -1;
    buf_grow(&stream->input, (size_t)n);
    while (at < stream->input.size &&
           frame_scan(&stream->scan, stream->input.data + at, stream->input.size - at) == FRAME_WHOLE) {
        at += stream->scan.offset;
        stream->scan = FRAME_SCAN_INIT;
        n_answers++;
    }
    buf_drop(&stream->input, at);
    return n_answers;
}

static void *run_flood(void *arg)
{
    struct flood *flood = arg;
    struct stream streams[FLOODING] = {0};
    struct pollfd polled[FLOODING];
    bool goes_on = true;
    int n;

    for (size_t i = 0; i < FLOODING; i++) {
        streams[i].scan = FRAME_SCAN_INIT;
        polled[i] = (struct pollfd){.fd = flood->fds[i], .events = POLLIN};
        goes_on = goes_on && send_more(flood->fds[i], &streams[i]);
    }
    while (goes_on && !flood->over) {
        if (poll(polled, FLOODING, 100) < 0)
            continue; /* a change of the uid interrupts all threads */
        for (size_t i = 0; i < FLOODING && goes_on; i++) {
            if (!polled[i].revents)
                continue;
            n = take_answers(flood->fds[i], &streams[i]);
            streams[i].in_flight -= n > 0 ? (size_t)n : 0;
            flood->n_answered += n > 0 ? (size_t)n : 0;
            goes_on = n >= 0 && send_more(flood->fds[i], &streams[i]);
        }
    }
    for (size_t i = 0; i < FLOODING; i++)
        buf_deinit(&streams[i].input);
    return NULL;
}

static void flood_begin(struct flood *flood, const struct daemon *daemon)
{
    *flood = (struct flood){0};
    for (size_t i = 0; i < FLOODING; i++)
        flood->fds[i] = raw_connect_as(daemon, ALICE, 0, NULL);
    assert_int_equal(pthread_create(&flood->thread, NULL, run_flood, flood), 0);
    WAIT_UNTIL(flood->n_answered >= FLOODING * IN_FLIGHT); /* it is in full swing */
}

static void flood_end(struct flood *flood)
{
    flood->over = true;
    assert_int_equal(pthread_join(flood->thread, NULL), 0);
    for (size_t i = 0; i < FLOODING; i++)
        close(flood->fds[i]);
}

/* ---- beside it ---- */

/* Adds one item. Return: its number in the session that all append to. */
static uint64_t add_one(int fd, uint32_t msgid)
{
    struct buf request = BUF_INIT;
    struct raw_reply reply;
    struct number seq = {0};
    static const struct field fields[] = {{"last_seq", FIELD_NUMBER, 0, 0, 0, PROTO_NUMBER_MAX}, {0}};
    char why[MESSAGE_WHY_SIZE];

    pack_add(&request, msgid);
    raw_send_buf(fd, &request);
    raw_receive(fd, &reply);
    assert_int_equal(reply.message.msgid, msgid);
    assert_null(reply.message.error); /* above all it was not told to come again */
    assert_int_equal(message_read(&reply.message, reply.message.result, fields, MESSAGE_IGNORE_UNKNOWN, &seq, why), 0);
    raw_reply_deinit(&reply);
    return seq.value;
}

/* Asks one after the other. Return: how many of the others' were done from the first answer to the last. */
static uint64_t others_done_meanwhile(const struct daemon *daemon, uid_t uid)
{
    int fd = raw_connect_as(daemon, uid, 0, NULL);
    uint64_t first = add_one(fd, 1), last = first;

    for (uint32_t i = 0; i < ASKED; i++)
        last = add_one(fd, 2 + i);
    close(fd);
    return last - first - ASKED;
}

/* The control is one more connection of alice's: it stands in her line, behind all that she has in flight. */
static void test_who_asks_little_does_not_wait_for_all_that_another_uid_asks(void **state)
{
    struct daemon *daemon = *state;
    uint64_t beside_bob, beside_alice;
    struct flood flood;

    skip_without_root();
    flood_begin(&flood, daemon);
    beside_bob = others_done_meanwhile(daemon, BOB);
    beside_alice = others_done_meanwhile(daemon, ALICE);
    flood_end(&flood);
    print_message("# of the flood, for each of ten requests: %.1f beside another uid, %.1f beside its own\n",
                  (double)beside_bob / ASKED, (double)beside_alice / ASKED);
    assert_true(beside_alice >= ASKED * FLOODING * IN_FLIGHT / 2);
    assert_true(beside_bob <= beside_alice / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_asks_little_does_not_wait_for_all_that_another_uid_asks, set_up,
                                        daemon_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
