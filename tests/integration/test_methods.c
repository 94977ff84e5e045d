/*
 * Every method, through libsessiond and the real daemon.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define A "{\"n\": 1}"
#define B "{\"n\":  2.50, \"n\": 18446744073709551616}"
#define C "{\"\\ud800\": \"\\u0000\", \"e\": \"\xf0\x9f\x8c\x89\"}"

static void test_a_session_begins_with_its_first_item(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_items items;

    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, 0);
    assert_int_equal(items.first_seq, 0);
    assert_int_equal(items.head_seq, 0);
    assert_int_equal(items.revision, 0);
    assert_int_equal(items.epoch, 0);
    sessiond_items_free(&items);

    add_item(client, "s", A);
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, 1);
    assert_int_equal(items.first_seq, 1);
    assert_int_equal(items.last_seq, 1);
    assert_int_equal(items.head_seq, 1);
    assert_int_equal(items.revision, 1);
    assert_true(items.epoch > 0);
    sessiond_items_free(&items);
    assert_null(items.owner);
    sessiond_free(client);
}

static void test_items_come_back_byte_for_byte_and_in_order(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(B), SESSIOND_TEXT(C)};
    struct sessiond_changed changed;

    EXPECT(client, 0, sessiond_add_items(client, "s", items, 3, NULL, &changed));
    assert_int_equal(changed.first_seq, 1);
    assert_int_equal(changed.last_seq, 3);
    assert_int_equal(changed.revision, 1);
    expect_items(client, "s", A, B, C, NULL);
    sessiond_free(client);
}

static void test_an_empty_list_changes_nothing(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_changed changed = {.first_seq = 9};
    struct sessiond_sessions sessions;

    EXPECT(client, 0, sessiond_add_items(client, "s", NULL, 0, NULL, &changed));
    assert_int_equal(changed.first_seq, 0);
    assert_int_equal(changed.last_seq, 0);
    assert_int_equal(changed.revision, 0);
    EXPECT(client, 0, sessiond_list_sessions(client, NULL, &sessions));
    assert_int_equal(sessions.n_sessions, 0);
    sessiond_sessions_free(&sessions);
    sessiond_free(client);
}

static void test_one_bad_item_refuses_the_batch_and_names_its_index(void **state)
{
    static const char *const bad[] = {"",           "[]",
                                      "1",          "null",
                                      "{",          "{\"a\":1}x",
                                      "{a:1}",      "{\"a\":NaN}",
                                      "{\"a\":01}", "{\"a\":\"\n\"}",
                                      "{\"a\":1,}", "{\"a\":\"\xff\"}",
                                      "{\n}",       "{\"a\":\"\\x\"}",
                                      "{\"a\"}"};
    struct sessiond *client = daemon_client(*state);

    add_item(client, "s", A);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(A), SESSIOND_TEXT(bad[i]), SESSIOND_TEXT(A)};

        EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "s", items, 4, NULL, NULL));
        assert_int_equal(sessiond_last_error(client)->item, 2);
        assert_true(strlen(sessiond_last_error(client)->message) > 0);
        EXPECT(client, SESSIOND_INVALID, sessiond_replace_items(client, "s", 0, items, 4, NULL, NULL));
        assert_int_equal(sessiond_last_error(client)->item, 2);
    }
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_items_may_be_512_deep_and_no_deeper(void **state)
{
    struct sessiond *client = daemon_client(*state);
    char deep[2048], deeper[2048];
    struct sessiond_text item;

    memset(deep, 0, sizeof(deep));
    memcpy(deep, "{\"a\":", 5);
    memset(deep + 5, '[', 511);
    memset(deep + 516, ']', 511);
    deep[1027] = '}';
    item = SESSIOND_TEXT(deep);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, NULL));

    memset(deeper, 0, sizeof(deeper));
    memcpy(deeper, "{\"a\":", 5);
    memset(deeper + 5, '[', 512);
    memset(deeper + 517, ']', 512);
    deeper[1029] = '}';
    item = SESSIOND_TEXT(deeper);
    EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    expect_items(client, "s", deep, NULL);
    sessiond_free(client);
}

static void test_an_item_of_ten_mebibytes(void **state)
{
    struct sessiond *client = daemon_client(*state);
    size_t size = 10 * 1024 * 1024;
    char *text = malloc(size + 16);
    struct sessiond_text item;

    memcpy(text, "{\"a\":\"", 6);
    memset(text + 6, 'x', size);
    memcpy(text + 6 + size, "\"}", 3);
    item = SESSIOND_TEXT(text);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    add_item(client, "s", A);
    expect_items(client, "s", text, A, NULL);
    free(text);
    sessiond_free(client);
}

static void test_what_is_over_a_limit_is_not_even_sent(void **state)
{
    struct sessiond *client = daemon_client(*state);
    size_t size = PROTO_ITEM_MAX + (size_t)1;
    char *text = calloc(1, size);
    struct sessiond_text items[] = {SESSIOND_TEXT(A), {text, size}};

    EXPECT(client, SESSIOND_TOO_LARGE, sessiond_add_items(client, "s", items, 2, NULL, NULL));
    assert_int_equal(sessiond_last_error(client)->item, 1);
    assert_int_equal(sessiond_last_error(client)->limit, PROTO_ITEM_MAX);
    EXPECT(client, SESSIOND_TOO_LARGE, sessiond_add_items(client, "s", items, PROTO_ITEMS_MAX + (size_t)1, NULL, NULL));
    assert_int_equal(sessiond_last_error(client)->limit, PROTO_ITEMS_MAX);
    EXPECT(client, 0, sessiond_ping(client));
    free(text);
    sessiond_free(client);
}

static struct sessiond_items get(struct sessiond *client, struct sessiond_range range)
{
    struct sessiond_items items;

    EXPECT(client, 0, sessiond_get_items(client, "s", &range, &items));
    return items;
}

static void expect_seqs(struct sessiond *client, struct sessiond_range range, uint64_t first, uint64_t last, size_t n)
{
    struct sessiond_items items = get(client, range);

    assert_int_equal(items.first_seq, first);
    assert_int_equal(items.last_seq, last);
    assert_int_equal(items.n_items, n);
    assert_int_equal(items.head_seq, 10);
    sessiond_items_free(&items);
}

static void test_ranges_and_limits(void **state)
{
    struct sessiond *client = daemon_client(*state);

    for (int i = 0; i < 10; i++)
        add_item(client, "s", "{\"i\": %d}", i);
    expect_seqs(client, (struct sessiond_range){0}, 1, 10, 10);
    expect_seqs(client, (struct sessiond_range){.limit = SESSIOND_SOME(3)}, 8, 10, 3);
    expect_seqs(client, (struct sessiond_range){.limit = SESSIOND_SOME(0)}, 0, 0, 0);
    expect_seqs(client, (struct sessiond_range){.limit = SESSIOND_SOME(PROTO_NUMBER_MAX)}, 1, 10, 10);
    expect_seqs(client, (struct sessiond_range){.after = SESSIOND_SOME(7)}, 8, 10, 3);
    expect_seqs(client, (struct sessiond_range){.before = SESSIOND_SOME(3)}, 1, 2, 2);
    expect_seqs(
        client,
        (struct sessiond_range){.after = SESSIOND_SOME(2), .before = SESSIOND_SOME(9), .limit = SESSIOND_SOME(2)}, 7, 8,
        2);
    expect_seqs(client, (struct sessiond_range){.after = SESSIOND_SOME(10)}, 0, 0, 0);
    sessiond_free(client);
}

static void test_a_number_beyond_2_to_53_is_invalid(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_range range = {.limit = SESSIOND_SOME(PROTO_NUMBER_MAX + 1)};
    struct sessiond_items items;

    EXPECT(client, SESSIOND_INVALID, sessiond_get_items(client, "s", &range, &items));
    sessiond_free(client);
}

static void test_pop_takes_the_newest_item_once(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_popped popped;

    add_item(client, "s", A);
    add_item(client, "s", B);
    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, &popped));
    assert_string_equal(popped.item.data, B);
    assert_int_equal(popped.item.size, strlen(B));
    assert_int_equal(popped.seq, 2);
    assert_int_equal(popped.revision, 3);
    sessiond_popped_free(&popped);
    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, NULL));
    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, &popped));
    assert_null(popped.item.data);
    assert_int_equal(popped.seq, 0);
    assert_int_equal(popped.revision, 4);
    sessiond_popped_free(&popped);

    add_item(client, "s", C); /* a number is never used twice */
    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, &popped));
    assert_int_equal(popped.seq, 3);
    sessiond_popped_free(&popped);
    sessiond_free(client);
}

/* ---- what stands beside items ---- */

static void expect_beside(const struct sessiond_items *got, size_t n, const char *const *wanted)
{
    assert_int_equal(got->n_items, n);
    assert_non_null(got->meta);
    for (size_t i = 0; i < n; i++) {
        if (!wanted[i])
            assert_null(got->meta[i].data);
        else
            assert_string_equal(got->meta[i].data, wanted[i]);
    }
}

/* The first read comes from memory where the session has just begun there; after a restart it comes from the store. */
static void test_what_stands_beside_items_comes_back_to_who_asks(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(B), SESSIOND_TEXT(C)};
    struct sessiond_text meta[] = {SESSIOND_TEXT("{\"name\":  1}"), {0}, SESSIOND_TEXT("{}")};
    static const char *const wanted[] = {"{\"name\":  1}", NULL, "{}", NULL};
    struct sessiond_range range = {.with_meta = true}, tail = {.with_meta = true, .limit = SESSIOND_SOME(2)};
    struct sessiond_change beside = {.meta = meta};
    struct sessiond_items got;

    EXPECT(client, 0, sessiond_add_items(client, "s", items, 3, &beside, NULL));
    add_item(client, "s", A);
    for (int round = 0; round < 4; round++) {
        expect_items(client, "s", A, B, C, A, NULL);
        EXPECT(client, 0, sessiond_get_items(client, "s", &range, &got));
        expect_beside(&got, 4, wanted);
        sessiond_items_free(&got);
        EXPECT(client, 0, sessiond_get_items(client, "s", &tail, &got));
        expect_beside(&got, 2, wanted + 2);
        sessiond_items_free(&got);
        EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &got));
        assert_null(got.meta);
        sessiond_items_free(&got);
        if (round == 1)
            daemon_restart(daemon);
    }
    EXPECT(client, 0, sessiond_replace_items(client, "s", 2, items, 2, &beside, NULL));
    EXPECT(client, 0, sessiond_get_items(client, "s", &range, &got));
    expect_beside(&got, 3, (const char *const[]){wanted[0], wanted[0], NULL});
    sessiond_items_free(&got);
    sessiond_free(client);
}

static void test_a_pop_gives_what_stood_beside_its_item_to_who_asks(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(B)};
    struct sessiond_text meta[] = {SESSIOND_TEXT("{\"of\": \"A\"}"), SESSIOND_TEXT("{\"of\": \"B\"}")};
    struct sessiond_popped popped;

    EXPECT(client, 0, sessiond_add_items(client, "s", items, 2, &(struct sessiond_change){.meta = meta}, NULL));
    for (int i = 0; i < 2; i++) {
        EXPECT(client, 0,
               sessiond_pop_item(client, "s", &(struct sessiond_change){.with_meta = true, .key = "k"}, &popped));
        assert_string_equal(popped.item.data, B);
        assert_string_equal(popped.meta.data, "{\"of\": \"B\"}");
        sessiond_popped_free(&popped);
    }
    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, &popped));
    assert_string_equal(popped.item.data, A);
    assert_null(popped.meta.data);
    sessiond_popped_free(&popped);
    EXPECT(client, 0, sessiond_pop_item(client, "s", &(struct sessiond_change){.with_meta = true}, &popped));
    assert_null(popped.item.data);
    assert_null(popped.meta.data);
    sessiond_popped_free(&popped);
    sessiond_free(client);
}

static void test_what_stands_beside_an_item_is_checked_like_an_item(void **state)
{
    static const char *const bad[] = {"", "[]", "1", "{", "{\"a\":\"\xff\"}"};
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(A)}, meta[] = {SESSIOND_TEXT("{}"), {0}};
    struct sessiond_change change = {.meta = meta};
    char *large = calloc(1, 1024 * 1024 + 2);

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        meta[1] = SESSIOND_TEXT(bad[i]);
        EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "s", items, 2, &change, NULL));
        assert_int_equal(sessiond_last_error(client)->item, 1);
        EXPECT(client, SESSIOND_INVALID, sessiond_replace_items(client, "s", 0, items, 2, &change, NULL));
    }
    memset(large, ' ', 1024 * 1024 + 1);
    large[0] = '{';
    large[1] = '}';
    meta[1] = (struct sessiond_text){large, 1024 * 1024};
    EXPECT(client, 0, sessiond_add_items(client, "s", items, 2, &change, NULL));
    meta[1].size++;
    EXPECT(client, SESSIOND_TOO_LARGE, sessiond_add_items(client, "s", items, 2, &change, NULL));
    assert_int_equal(sessiond_last_error(client)->item, 1);
    assert_int_equal(sessiond_last_error(client)->limit, 1024 * 1024);
    expect_items(client, "s", A, A, NULL);
    free(large);
    sessiond_free(client);
}

/* A list of nothing is no other change than no list. */
static void test_what_stands_beside_items_belongs_to_the_change_that_a_key_names(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(B)}, meta[] = {{0}, {0}};
    struct sessiond_change change = {.key = "k"};

    EXPECT(client, 0, sessiond_add_items(client, "s", items, 2, &change, NULL));
    change.meta = meta;
    EXPECT(client, 0, sessiond_add_items(client, "s", items, 2, &change, NULL));
    meta[0] = SESSIOND_TEXT("{}");
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", items, 2, &change, NULL));
    change.key = "another";
    EXPECT(client, 0, sessiond_add_items(client, "s", items, 2, &change, NULL));
    EXPECT(client, 0, sessiond_add_items(client, "s", items, 2, &change, NULL));
    meta[1] = meta[0];
    meta[0] = (struct sessiond_text){0};
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", items, 2, &change, NULL));
    expect_items(client, "s", A, B, A, B, NULL);
    sessiond_free(client);
}

static void test_removing_from_what_never_existed_creates_nothing(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_changed changed;
    struct sessiond_sessions sessions;
    struct sessiond_popped popped;

    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, &popped));
    assert_null(popped.item.data);
    sessiond_popped_free(&popped);
    EXPECT(client, 0, sessiond_clear_session(client, "s", NULL, &changed));
    assert_int_equal(changed.revision, 0);
    EXPECT(client, 0, sessiond_delete_session(client, "s", NULL, &changed));
    assert_int_equal(changed.removed, 0);
    EXPECT(client, 0, sessiond_list_sessions(client, NULL, &sessions));
    assert_int_equal(sessions.n_sessions, 0);
    sessiond_sessions_free(&sessions);
    sessiond_free(client);
}

static void test_clear_keeps_the_session_and_its_numbers(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_items before = {0}, after = {0};
    struct sessiond_changed changed;

    add_item(client, "s", A);
    add_item(client, "s", B);
    before = get(client, (struct sessiond_range){0});
    EXPECT(client, 0, sessiond_clear_session(client, "s", NULL, &changed));
    assert_int_equal(changed.removed, 2);
    assert_int_equal(changed.revision, before.revision + 1);
    assert_true(changed.epoch > before.epoch);
    EXPECT(client, 0, sessiond_clear_session(client, "s", NULL, &changed)); /* of an empty one: a change too */
    assert_int_equal(changed.removed, 0);
    assert_int_equal(changed.revision, before.revision + 2);
    after = get(client, (struct sessiond_range){0});
    assert_int_equal(after.n_items, 0);
    assert_int_equal(after.head_seq, 2);
    sessiond_items_free(&before);
    sessiond_items_free(&after);
    sessiond_free(client);
}

static void test_replace_gives_the_tail_new_items(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text items[] = {SESSIOND_TEXT("{\"new\": 1}"), SESSIOND_TEXT("{\"new\": 2}")};
    struct sessiond_changed changed;

    for (int i = 1; i <= 4; i++)
        add_item(client, "s", "{\"i\": %d}", i);
    EXPECT(client, 0, sessiond_replace_items(client, "s", 3, items, 2, NULL, &changed));
    assert_int_equal(changed.removed, 2);
    assert_int_equal(changed.first_seq, 5);
    assert_int_equal(changed.last_seq, 6);
    expect_items(client, "s", "{\"i\": 1}", "{\"i\": 2}", "{\"new\": 1}", "{\"new\": 2}", NULL);
    EXPECT(client, 0, sessiond_replace_items(client, "s", 0, items, 1, NULL, &changed));
    assert_int_equal(changed.removed, 4);
    expect_items(client, "s", "{\"new\": 1}", NULL);
    EXPECT(client, 0, sessiond_replace_items(client, "s", 0, NULL, 0, NULL, &changed));
    assert_int_equal(changed.removed, 1);
    assert_int_equal(changed.first_seq, 0);
    expect_items(client, "s", NULL);
    sessiond_free(client);
}

static void test_a_deleted_session_begins_anew_with_a_larger_epoch(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_changed first, again;
    struct sessiond_text item = SESSIOND_TEXT(A);

    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, &first));
    EXPECT(client, 0, sessiond_delete_session(client, "s", NULL, &again));
    assert_int_equal(again.removed, 1);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, &again));
    assert_int_equal(again.revision, 1);
    assert_true(again.epoch > first.epoch);
    sessiond_free(client);
}

static void test_preconditions_that_do_not_fit_are_conflicts(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change fresh = {.if_revision = SESSIOND_SOME(0)};
    struct sessiond_change second = {.if_revision = SESSIOND_SOME(1)};
    struct sessiond_change past = {.if_epoch = SESSIOND_SOME(77)};
    struct sessiond_range range = {.if_epoch = SESSIOND_SOME(77)};
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_items items;

    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &fresh, NULL));
    EXPECT(client, SESSIOND_CONFLICT, sessiond_add_items(client, "s", &item, 1, &fresh, NULL));
    assert_int_equal(sessiond_last_error(client)->revision, 1);
    assert_true(sessiond_last_error(client)->epoch > 0);
    assert_non_null(sessiond_last_error(client)->key);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &second, NULL));
    EXPECT(client, SESSIOND_CONFLICT, sessiond_pop_item(client, "s", &past, NULL));
    EXPECT(client, SESSIOND_CONFLICT, sessiond_clear_session(client, "s", &fresh, NULL));
    EXPECT(client, SESSIOND_CONFLICT, sessiond_replace_items(client, "s", 0, &item, 1, &past, NULL));
    EXPECT(client, SESSIOND_CONFLICT, sessiond_delete_session(client, "s", &past, NULL));
    EXPECT(client, SESSIOND_CONFLICT, sessiond_get_items(client, "s", &range, &items));
    assert_null(sessiond_last_error(client)->key);
    expect_items(client, "s", A, A, NULL);
    sessiond_free(client);
}

static void expect_ids(struct sessiond *client, struct sessiond_listing listing, bool more, const char *ids)
{
    struct sessiond_sessions sessions;
    char found[4096] = "";

    EXPECT(client, 0, sessiond_list_sessions(client, &listing, &sessions));
    for (size_t i = 0; i < sessions.n_sessions; i++)
        strcat(strcat(found, sessions.sessions[i].id.data), " ");
    assert_string_equal(found, ids);
    assert_int_equal(sessions.more, more);
    sessiond_sessions_free(&sessions);
}

static void test_listing_in_order_by_prefix_and_in_pages(void **state)
{
    struct sessiond *client = daemon_client(*state);
    const char *ids[] = {"b2", "a", "b1", "c", "B", "\xc3\xa9"};

    for (size_t i = 0; i < 6; i++)
        add_item(client, ids[i], A);
    expect_ids(client, (struct sessiond_listing){0}, false, "B a b1 b2 c \xc3\xa9 ");
    expect_ids(client, (struct sessiond_listing){.prefix = "b"}, false, "b1 b2 ");
    expect_ids(client, (struct sessiond_listing){.after = "b1"}, false, "b2 c \xc3\xa9 ");
    expect_ids(client, (struct sessiond_listing){.limit = SESSIOND_SOME(2)}, true, "B a ");
    expect_ids(client, (struct sessiond_listing){.prefix = "b", .limit = SESSIOND_SOME(2)}, false, "b1 b2 ");
    expect_ids(client, (struct sessiond_listing){.prefix = "zz"}, false, "");
    sessiond_free(client);
}

static void on_done(struct sessiond *client, int r, const union sessiond_answer *answer, void *n_done)
{
    (void)client;
    *(size_t *)n_done += r == 0 && answer != NULL;
}

static void test_a_listing_of_many_sessions_is_whole(void **state)
{
    enum { N = 2345 };
    struct sessiond *client = daemon_client(*state);
    struct sessiond_listing listing = {.limit = SESSIOND_SOME(2100)};
    struct sessiond_sessions sessions;
    size_t n_done = 0;
    char id[32];

    for (int i = 0; i < N; i++) {
        struct sessiond_text item = SESSIOND_TEXT(A);
        struct sessiond_call call = {
            .method = SESSIOND_ADD_ITEMS, .session = id, .items = &item, .n_items = 1, .store = "memory"};

        (void)snprintf(id, sizeof(id), "session-%06d", i);
        EXPECT(client, 0, sessiond_send(client, &call, on_done, &n_done));
    }
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(n_done, N);
    listing.store = "memory";
    EXPECT(client, 0, sessiond_list_sessions(client, &listing, &sessions));
    assert_int_equal(sessions.n_sessions, 2100);
    assert_true(sessions.more);
    sessiond_sessions_free(&sessions);
    listing.limit = (struct sessiond_number){0};
    EXPECT(client, 0, sessiond_list_sessions(client, &listing, &sessions));
    assert_int_equal(sessions.n_sessions, N);
    assert_false(sessions.more);
    for (int i = 0; i < N; i++) {
        (void)snprintf(id, sizeof(id), "session-%06d", i);
        assert_string_equal(sessions.sessions[i].id.data, id);
    }
    sessiond_sessions_free(&sessions);
    sessiond_free(client);
}

static void test_a_listing_tells_counts_and_times(void **state)
{
    struct sessiond *client = daemon_client(*state);
    uint64_t now_us = (uint64_t)time(NULL) * 1000000;
    struct sessiond_sessions sessions;
    const struct sessiond_session *session;

    add_item(client, "s", A);
    add_item(client, "s", B);
    EXPECT(client, 0, sessiond_list_sessions(client, NULL, &sessions));
    assert_int_equal(sessions.n_sessions, 1);
    session = &sessions.sessions[0];
    assert_int_equal(session->count, 2);
    assert_int_equal(session->bytes, strlen(A) + strlen(B));
    assert_int_equal(session->head_seq, 2);
    assert_int_equal(session->revision, 2);
    assert_true(session->created_us >= now_us && session->updated_us >= session->created_us);
    assert_true(session->updated_us < now_us + UINT64_C(3600000000));
    sessiond_sessions_free(&sessions);
    sessiond_free(client);
}

static void test_stores_are_apart_and_listed(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change myapp = {.store = "myapp"}, memory = {.store = "memory"};
    struct sessiond_range range = {.store = "myapp"};
    struct sessiond_text item = SESSIOND_TEXT(B);
    struct sessiond_stores stores;
    struct sessiond_items items;
    char names[256] = "";

    add_item(client, "s", A);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &myapp, NULL));
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &memory, NULL));
    expect_items(client, "s", A, NULL);
    EXPECT(client, 0, sessiond_get_items(client, "s", &range, &items));
    assert_int_equal(items.n_items, 1);
    assert_string_equal(items.items[0].data, B);
    sessiond_items_free(&items);

    EXPECT(client, 0, sessiond_list_stores(client, &stores));
    for (size_t i = 0; i < stores.n_stores; i++) {
        strcat(strcat(names, stores.stores[i].name.data), " ");
        assert_true(stores.stores[i].engine.size > 0);
        assert_true(stores.stores[i].sessions.given);
        assert_int_equal(stores.stores[i].sessions.value, 1);
    }
    assert_non_null(strstr(names, "default "));
    assert_non_null(strstr(names, "myapp "));
    sessiond_stores_free(&stores);
    sessiond_free(client);
}

static void test_the_store_of_the_options(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = client_with((struct sessiond_options){.socket = daemon->socket, .store = "mine"});
    struct sessiond *other = daemon_client(daemon);

    add_item(client, "s", A);
    expect_items(client, "s", A, NULL);
    expect_items(other, "s", NULL);
    sessiond_free(client);
    sessiond_free(other);
}

static void test_names_that_are_none(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_change shared = {.store = "@team"}, bad = {.store = "../up"}, empty = {.key = ""};
    char id[257];

    EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "", &item, 1, NULL, NULL));
    EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, NULL, &item, 1, NULL, NULL));
    EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "\xff", &item, 1, NULL, NULL));
    EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "s", &item, 1, &bad, NULL));
    EXPECT(client, SESSIOND_INVALID, sessiond_add_items(client, "s", &item, 1, &empty, NULL));
    EXPECT(client, SESSIOND_NOT_FOUND, sessiond_add_items(client, "s", &item, 1, &shared, NULL));
    memset(id, 'x', 256);
    id[256] = '\0';
    EXPECT(client, SESSIOND_TOO_LARGE, sessiond_add_items(client, id, &item, 1, NULL, NULL));
    id[255] = '\0';
    EXPECT(client, 0, sessiond_add_items(client, id, &item, 1, NULL, NULL));
    expect_items(client, id, A, NULL);
    EXPECT(client, 0, sessiond_add_items(client, "../../etc/passwd", &item, 1, NULL, NULL));
    expect_items(client, "../../etc/passwd", A, NULL);
    sessiond_free(client);
}

static void test_hello_ping_and_info(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_hello hello;
    char *json;

    EXPECT(client, 0, sessiond_hello(client, &hello));
    assert_string_equal(hello.socket, daemon->socket);
    assert_int_equal(strlen(hello.instance), 32);
    assert_string_equal(hello.version, sessiond_version());
    assert_int_equal(hello.protocol, 1);
    assert_int_equal(hello.uid, getuid());
    EXPECT(client, 0, sessiond_ping(client));
    EXPECT(client, 0, sessiond_info(client, &json));
    assert_non_null(strstr(json, hello.instance));
    assert_non_null(strstr(json, "\"settings\""));
    free(json);
    sessiond_free(client);
}

static void test_the_instance_stays_with_the_data(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_hello before, after;

    EXPECT(client, 0, sessiond_hello(client, &before));
    daemon_restart(daemon);
    EXPECT(client, 0, sessiond_hello(client, &after));
    assert_string_equal(before.instance, after.instance);
    sessiond_free(client);
}

static void test_what_was_acknowledged_survives_kill(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);

    add_item(client, "s", A);
    daemon_restart(daemon);
    add_item(client, "s", B);
    daemon_stop(daemon);
    daemon_start(daemon);
    expect_items(client, "s", A, B, NULL);
    sessiond_free(client);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_session_begins_with_its_first_item),
        TEST(test_items_come_back_byte_for_byte_and_in_order),
        TEST(test_an_empty_list_changes_nothing),
        TEST(test_one_bad_item_refuses_the_batch_and_names_its_index),
        TEST(test_items_may_be_512_deep_and_no_deeper),
        TEST(test_an_item_of_ten_mebibytes),
        TEST(test_what_is_over_a_limit_is_not_even_sent),
        TEST(test_ranges_and_limits),
        TEST(test_a_number_beyond_2_to_53_is_invalid),
        TEST(test_pop_takes_the_newest_item_once),
        TEST(test_what_stands_beside_items_comes_back_to_who_asks),
        TEST(test_a_pop_gives_what_stood_beside_its_item_to_who_asks),
        TEST(test_what_stands_beside_an_item_is_checked_like_an_item),
        TEST(test_what_stands_beside_items_belongs_to_the_change_that_a_key_names),
        TEST(test_removing_from_what_never_existed_creates_nothing),
        TEST(test_clear_keeps_the_session_and_its_numbers),
        TEST(test_replace_gives_the_tail_new_items),
        TEST(test_a_deleted_session_begins_anew_with_a_larger_epoch),
        TEST(test_preconditions_that_do_not_fit_are_conflicts),
        TEST(test_listing_in_order_by_prefix_and_in_pages),
        TEST(test_a_listing_of_many_sessions_is_whole),
        TEST(test_a_listing_tells_counts_and_times),
        TEST(test_stores_are_apart_and_listed),
        TEST(test_the_store_of_the_options),
        TEST(test_names_that_are_none),
        TEST(test_hello_ping_and_info),
        TEST(test_the_instance_stays_with_the_data),
        TEST(test_what_was_acknowledged_survives_kill),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
