/*
 * Keys and receipts: a change with a key happens once.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define A "{\"n\": 1}"
#define B "{\"n\": 2}"

static struct sessiond_changed add(struct sessiond *client, const char *text, struct sessiond_change change)
{
    struct sessiond_text item = SESSIOND_TEXT(text);
    struct sessiond_changed changed;

    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &change, &changed));
    return changed;
}

static void expect_equal(struct sessiond_changed a, struct sessiond_changed b)
{
    assert_int_equal(a.first_seq, b.first_seq);
    assert_int_equal(a.last_seq, b.last_seq);
    assert_int_equal(a.removed, b.removed);
    assert_int_equal(a.revision, b.revision);
    assert_int_equal(a.epoch, b.epoch);
}

static void test_the_same_change_gets_the_first_answer_again(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change change = {.key = "k1"};
    struct sessiond_changed first = add(client, A, change);

    add_item(client, "s", B);
    expect_equal(add(client, A, change), first);
    expect_items(client, "s", A, B, NULL);
    sessiond_free(client);
}

static void test_another_change_with_this_key_is_refused(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change change = {.key = "k1"}, other = {.key = "k1", .if_revision = SESSIOND_SOME(1)};
    struct sessiond_text items[] = {SESSIOND_TEXT(A), SESSIOND_TEXT(B)};

    (void)add(client, A, change);
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", &items[1], 1, &change, NULL));
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", items, 2, &change, NULL));
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "t", &items[0], 1, &change, NULL));
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", &items[0], 1, &other, NULL));
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_replace_items(client, "s", 0, items, 1, &change, NULL));
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_pop_item(client, "s", &change, NULL));
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_clear_session(client, "s", &change, NULL));
    assert_string_equal(sessiond_last_error(client)->key, "k1");
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_a_digest_stands_for_the_request(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change change = {.key = "k1", .digest = "d1"}, other = {.key = "k1", .digest = "d2"};
    struct sessiond_changed first = add(client, A, change);
    struct sessiond_text item = SESSIOND_TEXT(A);

    expect_equal(add(client, B, change), first); /* other bytes, the same change */
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", &item, 1, &other, NULL));
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_a_key_is_looked_up_before_preconditions(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change change = {.key = "k1", .if_revision = SESSIOND_SOME(0)};
    struct sessiond_changed first = add(client, A, change);

    add_item(client, "s", B);
    expect_equal(add(client, A, change), first);
    sessiond_free(client);
}

static void test_a_refusal_leaves_no_receipt(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change late = {.key = "k1", .if_revision = SESSIOND_SOME(5)}, now = {.key = "k1"};
    struct sessiond_text item = SESSIOND_TEXT(A);

    EXPECT(client, SESSIOND_CONFLICT, sessiond_add_items(client, "s", &item, 1, &late, NULL));
    (void)add(client, A, now);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void expect_popped(struct sessiond *client, const char *key, const char *text, bool erased)
{
    struct sessiond_change change = {.key = key};
    struct sessiond_popped popped;

    EXPECT(client, 0, sessiond_pop_item(client, "s", &change, &popped));
    if (text)
        assert_string_equal(popped.item.data, text);
    else
        assert_null(popped.item.data);
    assert_int_equal(popped.erased, erased);
    sessiond_popped_free(&popped);
}

static void test_a_repeated_pop_gives_the_same_item(void **state)
{
    struct sessiond *client = daemon_client(*state);

    add_item(client, "s", A);
    add_item(client, "s", B);
    expect_popped(client, "p1", B, false);
    expect_popped(client, "p1", B, false);
    expect_items(client, "s", A, NULL);
    EXPECT(client, 0, sessiond_clear_session(client, "s", NULL, NULL));
    expect_popped(client, "p1", NULL, true); /* the clear erased it from the receipt as well */
    sessiond_free(client);
}

static void test_a_pop_of_nothing_stays_a_pop_of_nothing(void **state)
{
    struct sessiond *client = daemon_client(*state);

    expect_popped(client, "p1", NULL, false);
    add_item(client, "s", A);
    expect_popped(client, "p1", NULL, false);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_receipts_survive_restart_and_clear(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_change change = {.key = "k1"}, clear = {.key = "c1"};
    struct sessiond_changed first = add(client, A, change), cleared, again;

    EXPECT(client, 0, sessiond_clear_session(client, "s", &clear, &cleared));
    daemon_restart(daemon);
    expect_equal(add(client, A, change), first); /* a late repeat does not bring back what was cleared */
    expect_items(client, "s", NULL);
    daemon_stop(daemon);
    daemon_start(daemon);
    EXPECT(client, 0, sessiond_clear_session(client, "s", &clear, &again));
    expect_equal(again, cleared);
    sessiond_free(client);
}

static void test_delete_takes_the_receipts_but_its_own(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_change change = {.key = "k1"}, deletion = {.key = "d1"};
    struct sessiond_changed deleted, again;

    (void)add(client, A, change);
    EXPECT(client, 0, sessiond_delete_session(client, "s", &deletion, &deleted));
    assert_int_equal(deleted.removed, 1);
    daemon_restart(daemon);
    EXPECT(client, 0, sessiond_delete_session(client, "s", &deletion, &again));
    assert_int_equal(again.removed, 1);
    (void)add(client, A, change);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_keys_belong_to_their_store(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change here = {.key = "k1"}, there = {.key = "k1", .store = "other"};

    (void)add(client, A, here);
    (void)add(client, B, there);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_keys_in_the_memory_store(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_change change = {.key = "k1", .store = "memory"};
    struct sessiond_changed first = add(client, A, change);
    struct sessiond_text item = SESSIOND_TEXT(B);

    expect_equal(add(client, A, change), first);
    EXPECT(client, SESSIOND_KEY_REUSED, sessiond_add_items(client, "s", &item, 1, &change, NULL));
    sessiond_free(client);
}

static void test_keys_of_the_library_are_in_the_order_of_time(void **state)
{
    char before[SESSIOND_KEY_SIZE] = "", key[SESSIOND_KEY_SIZE];
    int64_t end = harness_now_ms() + 20;

    (void)state;
    while (harness_now_ms() < end) {
        assert_int_equal(sessiond_make_key(key), 0);
        assert_int_equal(strlen(key), SESSIOND_KEY_SIZE - 1);
        assert_int_equal(strspn(key, "0123456789abcdef-"), SESSIOND_KEY_SIZE - 1);
        assert_int_equal(key[14], '7');
        assert_non_null(strchr("89ab", key[19]));
        assert_true(strncmp(before, key, 13) <= 0); /* the milliseconds never go back */
        assert_string_not_equal(before, key);
        memcpy(before, key, sizeof(before));
    }
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_same_change_gets_the_first_answer_again),
        TEST(test_another_change_with_this_key_is_refused),
        TEST(test_a_digest_stands_for_the_request),
        TEST(test_a_key_is_looked_up_before_preconditions),
        TEST(test_a_refusal_leaves_no_receipt),
        TEST(test_a_repeated_pop_gives_the_same_item),
        TEST(test_a_pop_of_nothing_stays_a_pop_of_nothing),
        TEST(test_receipts_survive_restart_and_clear),
        TEST(test_delete_takes_the_receipts_but_its_own),
        TEST(test_keys_belong_to_their_store),
        TEST(test_keys_in_the_memory_store),
        cmocka_unit_test(test_keys_of_the_library_are_in_the_order_of_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
