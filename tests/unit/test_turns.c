/*
 * Turns: parties in a ring, and the order within a party.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/turns.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

static const char parties[4]; /* each is its own address */

struct waiter {
    struct turn turn;
    char name[3]; /* of its party, and which of it */
};

/* One after the other, as "a1 a2 b1": who waits. */
static void put_all(struct list *ring, struct waiter *waiters, const char *names)
{
    for (size_t i = 0; *names; i++, names += strcspn(names, " "), names += strspn(names, " ")) {
        memcpy(waiters[i].name, names, 2);
        waiters[i].name[2] = '\0';
        turn_init(&waiters[i].turn, &parties[names[0] - 'a']);
        turns_put(ring, &waiters[i].turn);
    }
}

static void expect_taken(struct list *ring, const char *wanted)
{
    char taken[128] = "";
    struct turn *turn, *first;

    while ((first = turns_first(ring)) && (turn = turns_take(ring))) {
        assert_ptr_equal(turn, first);
        assert_false(turn_waits(turn));
        strcat(strcat(taken, taken[0] ? " " : ""), CONTAINER_OF(turn, struct waiter, turn)->name);
    }
    assert_string_equal(taken, wanted);
    assert_null(turns_take(ring));
}

static void test_one_of_each_party_is_taken_in_turn(void **state)
{
    static const struct {
        const char *put, *taken;
    } cases[] = {
        {"", ""},
        {"a1", "a1"},
        {"a1 a2 a3", "a1 a2 a3"},
        {"a1 a2 a3 b1", "a1 b1 a2 a3"},
        {"a1 a2 a3 b1 b2 c1", "a1 b1 c1 a2 b2 a3"},
        {"b1 a1 b2 a2", "b1 a1 b2 a2"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct waiter waiters[8];
        struct list ring;

        list_init(&ring);
        put_all(&ring, waiters, cases[i].put);
        expect_taken(&ring, cases[i].taken);
    }
}

static void test_who_comes_again_waits_behind_all_others(void **state)
{
    struct waiter waiters[4], again;
    struct list ring;

    (void)state;
    list_init(&ring);
    put_all(&ring, waiters, "a1 a2 b1 c1");
    assert_ptr_equal(turns_take(&ring), &waiters[0].turn);
    put_all(&ring, &again, "a3");
    expect_taken(&ring, "b1 c1 a2 a3");
}

static void test_one_that_is_removed_leaves_its_party_where_it_was(void **state)
{
    static const struct {
        size_t removed;
        const char *taken;
    } cases[] = {{0, "a2 b1 c1 a3"}, {1, "a1 b1 c1 a3"}, {2, "a1 b1 c1 a2"}, {3, "a1 c1 a2 a3"}, {4, "a1 b1 a2 a3"}};

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct waiter waiters[5];
        struct list ring;

        list_init(&ring);
        put_all(&ring, waiters, "a1 a2 a3 b1 c1");
        turns_remove(&waiters[cases[i].removed].turn);
        assert_false(turn_waits(&waiters[cases[i].removed].turn));
        turns_remove(&waiters[cases[i].removed].turn); /* it does not wait any more */
        expect_taken(&ring, cases[i].taken);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_each_party_is_taken_in_turn),
        cmocka_unit_test(test_who_comes_again_waits_behind_all_others),
        cmocka_unit_test(test_one_that_is_removed_leaves_its_party_where_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
