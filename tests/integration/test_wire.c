/*
 * Bytes that no client of ours sends: each is answered with an error or with the end of the connection, never with a
 * crash, and the next connection works.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define A "{\"n\": 1}"
#define BYTES(text) (text), sizeof(text) - 1

static void expect_well(const struct daemon *daemon)
{
    int fd = raw_connect(daemon->socket);

    raw_send(fd, BYTES("\x94\x00\x07\xa4ping\x90"));
    raw_expect(fd, 7, NULL);
    close(fd);
}

static long resident_kib(const struct daemon *daemon)
{
    char path[PATH_SIZE], line[256];
    long kib = -1;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon->pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    if (file)
        (void)fclose(file);
    return kib;
}

static size_t count_items(struct sessiond *client, const char *session)
{
    struct sessiond_items items;
    size_t n;

    EXPECT(client, 0, sessiond_get_items(client, session, NULL, &items));
    n = items.n_items;
    sessiond_items_free(&items);
    return n;
}

/* ---- frames ---- */

struct ending {
    const char *what;
    const char *bytes;
    size_t size;
    const char *code;
};

static void test_frames_that_end_the_connection(void **state)
{
    static const struct ending endings[] = {
        {"no MessagePack", BYTES("\xc1"), "invalid"},
        {"a huge count", BYTES("\xdd\x00\xff\xff\xff"), "too_large"},
        {"the largest count", BYTES("\xdd\xff\xff\xff\xff"), "too_large"},
        {"the largest map", BYTES("\xdf\xff\xff\xff\xff"), "too_large"},
        {"the largest text", BYTES("\xdb\xff\xff\xff\xff"), "too_large"},
        {"the largest bytes", BYTES("\xc6\xff\xff\xff\xff"), "too_large"},
        {"huge counts inside each other", BYTES("\xdd\x00\x0f\xff\xff\xdd\x00\x0f\xff\xff"), "too_large"},
        {"deep arrays", BYTES("\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91"), "too_large"},
        {"a number", BYTES("\x05"), "invalid"},
        {"a text", BYTES("\xa4ping"), "invalid"},
        {"a map", BYTES("\x80"), "invalid"},
        {"an empty array", BYTES("\x90"), "invalid"},
        {"a request of three parts", BYTES("\x93\x00\x01\xa4ping"), "invalid"},
        {"an unknown type", BYTES("\x94\x03\x01\xa4ping\x90"), "invalid"},
        {"a response", BYTES("\x94\x01\x01\xc0\x80"), "invalid"},
        {"a notification", BYTES("\x93\x02\xa4ping\x90"), "invalid"},
        {"a msgid that is a text", BYTES("\x94\x00\xa1x\xa4ping\x90"), "invalid"},
        {"a negative msgid", BYTES("\x94\x00\xff\xa4ping\x90"), "invalid"},
        {"a msgid of 2^32", BYTES("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa4ping\x90"), "invalid"},
        {"a method that is a number", BYTES("\x94\x00\x01\x05\x90"), "invalid"},
        {"a method in bin", BYTES("\x94\x00\x01\xc4\x04ping\x90"), "invalid"},
        {"HTTP", BYTES("GET / HTTP/1.1\r\n\r\n"), "invalid"},
    };
    struct daemon *daemon = *state;

    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        int fd = raw_connect(daemon->socket);

        print_message("# %s\n", endings[i].what);
        raw_send(fd, endings[i].bytes, endings[i].size);
        raw_expect(fd, -1, endings[i].code);
        raw_expect_end(fd);
    }
    expect_well(daemon);
}

static void test_no_memory_is_reserved_from_a_claimed_size(void **state)
{
    enum { N = 50 };
    struct daemon *daemon = *state;
    long before = resident_kib(daemon);
    int fds[N];

    for (int i = 0; i < N; i++) {
        fds[i] = raw_connect(daemon->socket);
        raw_send(fds[i], BYTES("\x94\x00\x01\xa9"
                               "add_items\x91\x82\xa7session\xa1s\xa5items\x91\xdb\x03\xff\x00\x00{"));
    }
    expect_well(daemon);
    assert_true(before < 0 || resident_kib(daemon) - before < 64 * 1024); /* 3.2 GB are claimed */
    for (int i = 0; i < N; i++)
        close(fds[i]);
}

static void test_a_frame_over_the_limit_is_refused_before_it_is_sent_whole(void **state)
{
    struct daemon *daemon = *state;
    int fd = raw_connect(daemon->socket);

    raw_send(fd, BYTES("\x94\x00\x01\xa9"
                       "add_items\x91\x82\xa7session\xa1s\xa5items\x91\xdb\x08\x00\x00\x00"));
    raw_expect(fd, -1, "too_large");
    raw_expect_end(fd);
    expect_well(daemon);
}

static void test_half_a_frame_then_hang_up(void **state)
{
    static const char frame[] = "\x94\x00\x01\xa9"
                                "add_items\x91\x82\xa7session\xa1s\xa5items\x91\xa8{\"n\": 1}";
    struct daemon *daemon = *state;

    for (size_t size = 0; size < sizeof(frame) - 1; size++) {
        int fd = raw_connect(daemon->socket);

        raw_send(fd, frame, size);
        close(fd);
    }
    expect_well(daemon);
}

static void test_a_frame_may_come_byte_by_byte(void **state)
{
    static const char frame[] = "\x94\x00\x01\xa9"
                                "add_items\x91\x82\xa7session\xa1s\xa5items\x91\xa8{\"n\": 1}";
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    int fd = raw_connect(daemon->socket);

    for (size_t at = 0; at < sizeof(frame) - 1; at++)
        raw_send(fd, frame + at, 1);
    raw_expect(fd, 1, NULL);
    close(fd);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_many_frames_may_come_at_once(void **state)
{
    enum { N = 1000 };
    struct daemon *daemon = *state;
    struct buf frames = BUF_INIT;
    int fd = raw_connect(daemon->socket);
    bool seen[N] = {false};

    for (uint32_t i = 0; i < N; i++) {
        pack_request(&frames, i, "ping");
        pack_map(&frames, 0);
    }
    raw_send_buf(fd, &frames);
    for (int i = 0; i < N; i++) {
        struct raw_reply reply;

        raw_receive(fd, &reply);
        assert_true(reply.message.msgid < N && !seen[reply.message.msgid]);
        seen[reply.message.msgid] = true;
        raw_reply_deinit(&reply);
    }
    close(fd);
}

static void test_a_msgid_that_is_still_unanswered_ends_the_connection(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct buf frames = BUF_INIT;
    struct raw_reply reply;
    int fd = raw_connect(daemon->socket);
    bool told = false;

    for (int i = 0; i < 2; i++) {
        pack_request(&frames, 5, "add_items");
        pack_map(&frames, 2);
        pack_pair_text(&frames, "session", slice_of("s"));
        pack_text(&frames, slice_of("items"));
        pack_array(&frames, 1);
        pack_text(&frames, slice_of(A));
    }
    raw_send_buf(fd, &frames);
    while (!told) { /* the first may be answered before it ends */
        raw_receive(fd, &reply);
        told = reply.message.type == MESSAGE_NOTIFICATION;
        raw_reply_deinit(&reply);
    }
    raw_expect_end(fd);
    WAIT_UNTIL(count_items(client, "s") == 1); /* what was read whole before is carried out, once */
    sessiond_free(client);
}

/* ---- requests ---- */

/* Packs a request whose parameters are packed by hand. */
static struct buf request(uint32_t msgid, const char *method, size_t n_pairs)
{
    struct buf buf = BUF_INIT;

    pack_request(&buf, msgid, method);
    pack_map(&buf, n_pairs);
    return buf;
}

static void expect_answer(int fd, struct buf *buf, uint32_t msgid, const char *code)
{
    raw_send_buf(fd, buf);
    raw_expect(fd, msgid, code);
}

static void test_what_is_wrong_in_a_request_is_answered_and_the_connection_lives(void **state)
{
    struct daemon *daemon = *state;
    int fd = raw_connect(daemon->socket);
    struct buf buf;

    buf = request(1, "no_such_method", 0);
    expect_answer(fd, &buf, 1, "unknown_method");

    buf = request(2, "get_items", 0);
    expect_answer(fd, &buf, 2, "invalid"); /* session is missing */

    buf = request(3, "get_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_pair_number(&buf, "colour", 1);
    expect_answer(fd, &buf, 3, "invalid"); /* an unknown key */

    buf = request(4, "get_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_pair_text(&buf, "session", slice_of("s"));
    expect_answer(fd, &buf, 4, "invalid"); /* a key twice */

    buf = request(5, "get_items", 1);
    pack_pair_number(&buf, "session", 5);
    expect_answer(fd, &buf, 5, "invalid"); /* a wrong type */

    buf = request(6, "get_items", 1);
    pack_text(&buf, slice_of("session"));
    pack_bytes(&buf, slice_of("s"));
    expect_answer(fd, &buf, 6, "invalid"); /* bin for a text */

    buf = request(7, "add_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_text(&buf, slice_of("items"));
    pack_array(&buf, 1);
    pack_bytes(&buf, slice_of(A));
    expect_answer(fd, &buf, 7, "invalid"); /* bin for an item */

    buf = request(8, "add_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_pair_text(&buf, "items", slice_of(A));
    expect_answer(fd, &buf, 8, "invalid"); /* no list */

    buf = request(9, "get_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_text(&buf, slice_of("limit"));
    buf_append(&buf, "\xff", 1);
    expect_answer(fd, &buf, 9, "invalid"); /* -1 */

    buf = request(10, "get_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_text(&buf, slice_of("limit"));
    buf_append(&buf, "\xcb\x40\x00\x00\x00\x00\x00\x00\x00", 9);
    expect_answer(fd, &buf, 10, "invalid"); /* 2.0 */

    buf = request(11, "get_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_pair_number(&buf, "max_bytes", 0);
    expect_answer(fd, &buf, 11, "invalid");

    buf = request(12, "add_items", 3);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_text(&buf, slice_of("items"));
    pack_array(&buf, 0);
    pack_pair_text(&buf, "digest", slice_of("d"));
    expect_answer(fd, &buf, 12, "invalid"); /* a digest without a key */

    raw_send(fd, BYTES("\x94\x00\x0d\xa4ping\x92\x80\x80")); /* two maps */
    raw_expect(fd, 13, "invalid");
    raw_send(fd, BYTES("\x94\x00\x0e\xa4ping\x91\x05")); /* no map */
    raw_expect(fd, 14, "invalid");
    raw_send(fd, BYTES("\x94\x00\x0f\xa4ping\x91\x81\x01\x01")); /* a key that is no text */
    raw_expect(fd, 15, "invalid");

    buf = request(16, "get_items", 3);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_pair_nil(&buf, "limit");
    pack_pair_nil(&buf, "store");
    expect_answer(fd, &buf, 16, NULL); /* nil is the same as leaving it out */

    for (uint32_t n = 0; n < 4; n++) {
        buf = request(17 + n, "add_items", 3);
        pack_pair_text(&buf, "session", slice_of("s"));
        pack_text(&buf, slice_of("items"));
        pack_array(&buf, 2);
        pack_text(&buf, slice_of(A));
        pack_text(&buf, slice_of(A));
        pack_text(&buf, slice_of("meta"));
        pack_array(&buf, n);
        for (uint32_t i = 0; i < n; i++)
            pack_nil(&buf);
        expect_answer(fd, &buf, 17 + n, n == 2 ? NULL : "invalid"); /* as many as there are items */
    }
    buf = request(21, "get_items", 2);
    pack_pair_text(&buf, "session", slice_of("s"));
    pack_pair_number(&buf, "with_meta", 1);
    expect_answer(fd, &buf, 21, "invalid"); /* no boolean */
    close(fd);
}

static void test_a_session_id_may_hold_any_byte_of_utf8(void **state)
{
    struct daemon *daemon = *state;
    int fd = raw_connect(daemon->socket);
    struct buf buf = request(1, "add_items", 2);

    pack_pair_text(&buf, "session", (struct slice){"a\0b\n\x01", 5});
    pack_text(&buf, slice_of("items"));
    pack_array(&buf, 1);
    pack_text(&buf, slice_of(A));
    expect_answer(fd, &buf, 1, NULL);
    close(fd);
}

static void test_hello_with_versions_that_do_not_meet_ours(void **state)
{
    struct daemon *daemon = *state;
    int fd = raw_connect(daemon->socket);

    raw_send(fd, BYTES("\x94\x00\x01\xa5hello\x91\x81\xa8protocol\x92\x02\x05"));
    raw_expect(fd, 1, "invalid");
    raw_send(fd, BYTES("\x94\x00\x02\xa4ping\x90"));
    raw_expect(fd, 2, NULL);
    raw_send(fd, BYTES("\x94\x00\x03\xa5hello\x91\x81\xa8protocol\x92\x01\x05"));
    raw_expect(fd, 3, NULL);
    close(fd);
}

/* ---- back-pressure ---- */

static void pack_get(struct buf *buf, uint32_t msgid, const char *session)
{
    pack_request(buf, msgid, "get_items");
    pack_map(buf, 1);
    pack_pair_text(buf, "session", slice_of(session));
}

static void test_a_client_that_does_not_read_does_not_fill_the_memory(void **state)
{
    enum { N = 100 };
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    size_t size = 3 * 1024 * 1024;
    char *text = malloc(size + 16);
    struct sessiond_text item;
    struct buf frames = BUF_INIT;
    long before;
    int fd = raw_connect(daemon->socket);

    memcpy(text, "{\"a\":\"", 6);
    memset(text + 6, 'x', size);
    memcpy(text + 6 + size, "\"}", 3);
    item = SESSIOND_TEXT(text);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    before = resident_kib(daemon);
    for (uint32_t i = 0; i < N; i++)
        pack_get(&frames, i, "s");
    raw_send_buf(fd, &frames); /* 300 MB of answers, of which none is read yet */
    for (int i = 0; i < 20; i++)
        expect_well(daemon);
    assert_true(before < 0 || resident_kib(daemon) - before < 128 * 1024);
    for (uint32_t i = 0; i < N; i++) {
        struct raw_reply reply;

        raw_receive(fd, &reply);
        assert_int_equal(reply.message.msgid, i); /* reads of one session, in the order sent */
        assert_true(reply.frame.size > size);
        raw_reply_deinit(&reply);
    }
    close(fd);
    free(text);
    sessiond_free(client);
}

static void test_hang_up_with_work_under_way(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);

    for (int round = 0; round < 20; round++) {
        struct buf frames = BUF_INIT;
        int fd = raw_connect(daemon->socket);

        for (uint32_t i = 0; i < 100; i++) {
            pack_request(&frames, i, "add_items");
            pack_map(&frames, 2);
            pack_pair_text(&frames, "session", slice_of("s"));
            pack_text(&frames, slice_of("items"));
            pack_array(&frames, 1);
            pack_text(&frames, slice_of(A));
        }
        pack_get(&frames, 1000, "s");
        raw_send_buf(fd, &frames);
        close(fd);
    }
    EXPECT(client, 0, sessiond_ping(client));
    WAIT_UNTIL(count_items(client, "s") == 2000); /* what was read whole is carried out */
    sessiond_free(client);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frames_that_end_the_connection),
        TEST(test_no_memory_is_reserved_from_a_claimed_size),
        TEST(test_a_frame_over_the_limit_is_refused_before_it_is_sent_whole),
        TEST(test_half_a_frame_then_hang_up),
        TEST(test_a_frame_may_come_byte_by_byte),
        TEST(test_many_frames_may_come_at_once),
        TEST(test_a_msgid_that_is_still_unanswered_ends_the_connection),
        TEST(test_what_is_wrong_in_a_request_is_answered_and_the_connection_lives),
        TEST(test_a_session_id_may_hold_any_byte_of_utf8),
        TEST(test_hello_with_versions_that_do_not_meet_ours),
        TEST(test_a_client_that_does_not_read_does_not_fill_the_memory),
        TEST(test_hang_up_with_work_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
