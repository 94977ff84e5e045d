/*
 * Histories longer than one answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

enum {
    BATCH = 1500,
    ITEM_SIZE = 1048, /* 300,000 items of this size are 300 MiB */
    RESIDENT_MAX_KIB = 256 * 1024,
};

/* ---- items with a number ---- */

static char *numbered(unsigned number)
{
    static char text[ITEM_SIZE + 1];
    int n = snprintf(text, sizeof(text), "{\"i\": %u, \"pad\": \"", number);

    memset(text + n, 'x', ITEM_SIZE - 2 - (size_t)n);
    memcpy(text + ITEM_SIZE - 2, "\"}", 3);
    return text;
}

/* Adds items with the numbers first .. first + n - 1, in one batch. */
static int add_numbered(struct sessiond *client, unsigned first, unsigned n)
{
    struct sessiond_text *items = calloc(n, sizeof(*items));
    int r;

    for (unsigned i = 0; i < n; i++)
        items[i] = (struct sessiond_text){strdup(numbered(first + i)), ITEM_SIZE};
    r = sessiond_add_items(client, "s", items, n, NULL, NULL);
    for (unsigned i = 0; i < n; i++)
        free((char *)items[i].data);
    free(items);
    return r;
}

static void fill(struct sessiond *client, unsigned n_batches)
{
    for (unsigned i = 0; i < n_batches; i++)
        EXPECT(client, 0, add_numbered(client, i * BATCH, BATCH));
}

static void expect_numbered(const struct sessiond_items *items, size_t n)
{
    assert_int_equal(items->n_items, n);
    for (size_t i = 0; i < n; i++) {
        if (items->items[i].size != ITEM_SIZE || strcmp(items->items[i].data, numbered((unsigned)i)) != 0)
            fail_msg("item %zu is not what it was", i);
    }
}

/* ---- reading while others write ---- */

static int append_in_child(const struct daemon *daemon, int begin, unsigned first, unsigned n)
{
    struct sessiond *client;
    char byte;

    if (sessiond_new(&client, &(struct sessiond_options){.socket = daemon->socket}) || sessiond_ping(client))
        return 1;
    if (read(begin, &byte, 1) != 1)
        return 1;
    for (unsigned i = 0; i < n; i++)
        if (add_numbered(client, first + i, 1))
            return 1;
    sessiond_free(client);
    return 0;
}

static long resident_kib(const struct daemon *daemon)
{
    char path[PATH_SIZE], line[256];
    long kib = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon->pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (file)
        (void)fclose(file);
    return kib;
}

static void test_a_long_history_is_read_as_it_stood_while_another_process_appends(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client;
    unsigned n_batches = harness_is_slow() ? 20 : 200, n_appended = harness_is_slow() ? 500 : 10000;
    struct sessiond_items items;
    int begin[2], status;
    size_t n = 0;
    pid_t pid;

    assert_int_equal(pipe(begin), 0);
    pid = fork();
    if (pid == 0)
        _exit(append_in_child(daemon, begin[0], n_batches * BATCH, n_appended));
    client = daemon_client(daemon);
    fill(client, n_batches);
    assert_int_equal(write(begin[1], "x", 1), 1);
    for (bool growing = true; growing;) {
        growing = waitpid(pid, &status, WNOHANG) == 0;
        EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
        assert_true(items.n_items >= n);
        n = items.n_items;
        assert_int_equal(items.first_seq, 1);
        assert_int_equal(items.last_seq, items.head_seq); /* all that there was at the first page, and no more */
        expect_numbered(&items, items.head_seq);
        sessiond_items_free(&items);
    }
    assert_int_equal(status, 0);
    assert_int_equal(n, n_batches * BATCH + n_appended);
    if (!harness_is_slow())
        assert_true(resident_kib(daemon) < RESIDENT_MAX_KIB);
    close(begin[0]);
    close(begin[1]);
    sessiond_free(client);
}

/* ---- removals in between ---- */

struct meddling {
    struct sessiond *client; /* of the peer's thread */
    unsigned n_reads;
    unsigned n_pops; /* how often to remove something before another page is read */
};

static enum peer_action meddles(struct peer *peer, const struct message *request, struct slice frame,
                                struct buf *answer)
{
    struct meddling *meddling = peer->arg;

    if (is_method(request, "get_items") && meddling->n_reads++ % 3 == 1 && meddling->n_pops > 0) {
        meddling->n_pops--;
        if (sessiond_pop_item(meddling->client, "s", NULL, NULL))
            return PEER_CLOSE;
    }
    return peer_forward(peer, frame, answer) ? PEER_SEND : PEER_CLOSE;
}

static void test_a_removal_between_two_pages_makes_the_reader_start_over(void **state)
{
    struct daemon *daemon = *state;
    struct meddling meddling = {.client = daemon_client(daemon), .n_pops = 3};
    struct peer peer = {.behind = daemon->socket};
    struct sessiond *client = daemon_client(daemon), *reader;
    struct sessiond_items items;

    fill(client, 10); /* four pages */
    peer_start(&peer, &daemon->scratch, meddles, &meddling);
    reader = client_with((struct sessiond_options){.socket = peer.socket});
    EXPECT(reader, 0, sessiond_get_items(reader, "s", NULL, &items));
    expect_numbered(&items, 10 * BATCH - 3);
    sessiond_items_free(&items);
    sessiond_free(reader);
    peer_stop(&peer);
    assert_int_equal(meddling.n_pops, 0);
    sessiond_free(meddling.client);
    sessiond_free(client);
}

static void test_an_epoch_that_the_reader_asked_for_is_a_conflict_for_it(void **state)
{
    struct daemon *daemon = *state;
    struct meddling meddling = {.client = daemon_client(daemon), .n_pops = 1};
    struct peer peer = {.behind = daemon->socket};
    struct sessiond *client = daemon_client(daemon), *reader;
    struct sessiond_range range = {.if_epoch = SESSIOND_SOME(0)};
    struct sessiond_items items;

    fill(client, 6);
    EXPECT(client, 0, sessiond_get_items(client, "s", &(struct sessiond_range){.limit = SESSIOND_SOME(0)}, &items));
    range.if_epoch.value = items.epoch;
    sessiond_items_free(&items);
    peer_start(&peer, &daemon->scratch, meddles, &meddling);
    reader = client_with((struct sessiond_options){.socket = peer.socket});
    EXPECT(reader, SESSIOND_CONFLICT, sessiond_get_items(reader, "s", &range, &items));
    sessiond_free(reader);
    peer_stop(&peer);
    sessiond_free(meddling.client);
    sessiond_free(client);
}

/* ---- limits over several pages ---- */

static void test_the_latest_items_over_several_pages(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_range range = {.limit = SESSIOND_SOME(8 * BATCH), .before = SESSIOND_SOME(10 * BATCH - 99)};
    struct sessiond_items items;

    fill(client, 10);
    EXPECT(client, 0, sessiond_get_items(client, "s", &range, &items));
    assert_int_equal(items.n_items, 8 * BATCH);
    assert_int_equal(items.last_seq, 10 * BATCH - 100);
    assert_int_equal(items.first_seq, 2 * BATCH - 99);
    assert_int_equal(items.head_seq, 10 * BATCH);
    assert_string_equal(items.items[0].data, numbered(2 * BATCH - 100));
    sessiond_items_free(&items);
    sessiond_free(client);
}

struct seen {
    size_t n_items;
    bool cleared;
};

static void on_read(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct seen *seen = arg;

    (void)client;
    assert_int_equal(r, 0);
    assert_false(seen->cleared);
    seen->n_items = answer->items.n_items;
}

static void on_cleared(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct seen *seen = arg;

    (void)client;
    assert_int_equal(r, 0);
    seen->cleared = answer->changed.removed == 10 * BATCH;
}

static void test_a_long_read_is_whole_though_a_clear_was_sent_right_behind_it(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_call read = {.method = SESSIOND_GET_ITEMS, .session = "s"};
    struct sessiond_call clear = {.method = SESSIOND_CLEAR_SESSION, .session = "s"};
    struct seen seen = {0};

    fill(client, 10);
    EXPECT(client, 0, sessiond_send(client, &read, on_read, &seen));
    EXPECT(client, 0, sessiond_send(client, &clear, on_cleared, &seen));
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(seen.n_items, 10 * BATCH);
    assert_true(seen.cleared);
    expect_items(client, "s", NULL);
    sessiond_free(client);
}

static void test_an_item_larger_than_a_page_between_small_ones(void **state)
{
    enum { SIZE = 6 * 1024 * 1024 };
    struct sessiond *client = daemon_client(*state);
    char *large = malloc(SIZE + 16);
    struct sessiond_text items[3] = {SESSIOND_TEXT("{\"i\": 0}"), {0}, SESSIOND_TEXT("{\"i\": 2}")};

    memcpy(large, "{\"a\":\"", 6);
    memset(large + 6, 'x', SIZE);
    memcpy(large + 6 + SIZE, "\"}", 3);
    items[1] = SESSIOND_TEXT(large);
    EXPECT(client, 0, sessiond_add_items(client, "s", items, 3, NULL, NULL));
    EXPECT(client, 0, sessiond_add_items(client, "s", &items[1], 1, NULL, NULL));
    expect_items(client, "s", "{\"i\": 0}", large, "{\"i\": 2}", large, NULL);
    free(large);
    sessiond_free(client);
}

static void test_a_hundred_thousand_tiny_items_in_one_batch(void **state)
{
    enum { N = 100000 };
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text *texts = calloc(N, sizeof(*texts));
    struct sessiond_items items;

    for (size_t i = 0; i < N; i++)
        texts[i] = SESSIOND_TEXT("{}");
    EXPECT(client, 0, sessiond_add_items(client, "s", texts, N, NULL, NULL));
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, N); /* more than the 65,536 of one answer */
    assert_int_equal(items.last_seq, N);
    sessiond_items_free(&items);
    free(texts);
    sessiond_free(client);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_long_history_is_read_as_it_stood_while_another_process_appends),
        TEST(test_a_removal_between_two_pages_makes_the_reader_start_over),
        TEST(test_an_epoch_that_the_reader_asked_for_is_a_conflict_for_it),
        TEST(test_the_latest_items_over_several_pages),
        TEST(test_a_long_read_is_whole_though_a_clear_was_sent_right_behind_it),
        TEST(test_an_item_larger_than_a_page_between_small_ones),
        TEST(test_a_hundred_thousand_tiny_items_in_one_batch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
