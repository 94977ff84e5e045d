/*
 * The sketch of the busiest sessions: exact while they are few, and when they are many those with many requests are
 * found whatever the others do. Nothing is ever told of a session that it did not do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/busiest.h"

enum {
    START_US = 1000,
    UID = 7,
    ALL = 2 * BUSIEST_SESSIONS,
    RANKS = 100000,     /* sessions of the Zipf stream */
    REQUESTS = 1000000, /* of it */
};

static struct busiest *sketch; /* empty before each test */

static int begin(void **state)
{
    (void)state;
    sketch = calloc(1, sizeof(*sketch));
    return sketch ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    free(sketch);
    return 0;
}

static void count(uid_t uid, const char *store, const char *session, unsigned n, uint64_t now_us)
{
    while (n-- > 0)
        busiest_count(sketch, uid, slice_of(store), slice_of(session), now_us);
}

/* What is told of all, as text: "7 store session 3" a line. */
static const char *told(uint64_t now_us)
{
    static char text[4096];
    struct busy_session found[ALL];
    size_t n = busiest_read(sketch, BUSIEST_OF_ALL, 0, now_us, found, ALL), at = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%u %.*s %.*s %llu\n", found[i].uid,
                               (int)found[i].store.size, found[i].store.data, (int)found[i].session.size,
                               found[i].session.data, (unsigned long long)found[i].n_requests);
    return text;
}

static void test_nothing_is_told_of_nothing(void **state)
{
    (void)state;
    assert_string_equal(told(START_US), "");
}

static void test_few_sessions_are_counted_exactly(void **state)
{
    struct busy_session found[ALL];
    char session[16];

    (void)state;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 1; i <= BUSIEST_SESSIONS; i++) {
            (void)snprintf(session, sizeof(session), "s%u", i);
            count(UID, "default", session, i, START_US);
        }
    assert_int_equal(busiest_read(sketch, BUSIEST_OF_ALL, 0, START_US, found, ALL), BUSIEST_SESSIONS);
    for (unsigned i = 0; i < BUSIEST_SESSIONS; i++) {
        (void)snprintf(session, sizeof(session), "s%u", BUSIEST_SESSIONS - i);
        assert_true(slice_equal(found[i].session, slice_of(session)));
        assert_int_equal(found[i].n_requests, 3 * (BUSIEST_SESSIONS - i));
    }
}

static void test_what_has_the_same_id_elsewhere_is_another_session(void **state)
{
    (void)state;
    count(1, "default", "s", 4, START_US);
    count(1, "myapp", "s", 3, START_US);
    count(2, "default", "s", 2, START_US);
    count(2, "@myapp", "s", 1, START_US);
    count(2, "@myapps", "s", 1, START_US);
    count(2, "@myapp", "ss", 1, START_US);
    assert_string_equal(told(START_US), "1 default s 4\n1 myapp s 3\n2 default s 2\n"
                                        "2 @myapp s 1\n2 @myapp ss 1\n2 @myapps s 1\n");
}

static void test_names_of_every_length(void **state)
{
    struct busy_session found[2];
    char store[PROTO_STORE_MAX + 1], session[PROTO_SESSION_MAX];

    (void)state;
    memset(store, 'x', sizeof(store));
    memset(session, '\0', sizeof(session));
    busiest_count(sketch, UID, (struct slice){store, sizeof(store)}, (struct slice){session, sizeof(session)},
                  START_US);
    busiest_count(sketch, UID, (struct slice){store, 1}, (struct slice){session, 1}, START_US);
    assert_int_equal(busiest_read(sketch, BUSIEST_OF_ALL, 0, START_US, found, 2), 2);
    assert_int_equal(found[0].session.size, 1);
    assert_true(slice_equal(found[1].store, (struct slice){store, sizeof(store)}));
    assert_true(slice_equal(found[1].session, (struct slice){session, sizeof(session)}));
}

static void test_of_one_uid_its_own_alone_and_no_more_than_was_asked_for(void **state)
{
    struct busy_session found[2] = {{0}, {.n_requests = 99}};

    (void)state;
    count(1, "default", "a", 9, START_US);
    count(2, "default", "b", 2, START_US);
    count(2, "default", "c", 3, START_US);
    assert_int_equal(busiest_read(sketch, BUSIEST_OF_ONE, 2, START_US, found, 1), 1);
    assert_true(slice_equal(found[0].session, slice_of("c")));
    assert_int_equal(found[1].n_requests, 99);
    assert_int_equal(busiest_read(sketch, BUSIEST_OF_ONE, 3, START_US, found, 2), 0);
    assert_int_equal(busiest_read(sketch, BUSIEST_OF_ALL, 3, START_US, found, 0), 0);
}

static void test_requests_fade(void **state)
{
    uint64_t now = START_US;

    (void)state;
    count(UID, "default", "before", 12, now);
    count(UID, "default", "once", 1, now);
    now += BUSIEST_HALVING_US - 1;
    assert_string_equal(told(now), "7 default before 12\n7 default once 1\n");
    now += 1;
    assert_string_equal(told(now), "7 default before 6\n");
    count(UID, "default", "now", 8, now);
    assert_string_equal(told(now), "7 default now 8\n7 default before 6\n");
    now += 2 * BUSIEST_HALVING_US;
    assert_string_equal(told(now), "7 default now 2\n7 default before 1\n");
    now += UINT64_C(1000) * BUSIEST_HALVING_US;
    assert_string_equal(told(now), "");
    count(UID, "default", "once", 1, now);
    assert_string_equal(told(now), "7 default once 1\n");
}

static void test_one_who_comes_late_finds_a_place(void **state)
{
    struct busy_session found[1];
    char session[16];

    (void)state;
    for (unsigned i = 0; i < BUSIEST_SESSIONS; i++) {
        (void)snprintf(session, sizeof(session), "s%u", i);
        count(UID, "default", session, 100, START_US);
    }
    count(UID, "default", "late", 150, START_US);
    assert_int_equal(busiest_read(sketch, BUSIEST_OF_ALL, 0, START_US, found, 1), 1);
    assert_true(slice_equal(found[0].session, slice_of("late")));
    assert_int_equal(found[0].n_requests, 150); /* and nothing of him whose place it has */
}

/* ---- many sessions, asked for by Zipf's law: the k-th in one of k requests ---- */

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Where the sums of 1/k stand for the ranks. */
static double *make_sums(void)
{
    double *sums = calloc(RANKS, sizeof(*sums)), sum = 0;

    assert_non_null(sums);
    for (size_t i = 0; i < RANKS; i++)
        sums[i] = sum += 1.0 / (double)(i + 1);
    return sums;
}

static unsigned choose_rank(const double *sums)
{
    double wanted = (double)(next_random() >> 11) / 9007199254740992.0 * sums[RANKS - 1];
    unsigned low = 0, high = RANKS - 1;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;

        if (sums[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static unsigned rank_of(const struct busy_session *session)
{
    char text[16] = "";

    memcpy(text, session->session.data, session->session.size);
    return (unsigned)strtoul(text, NULL, 10);
}

static void test_the_heavy_ones_among_very_many_are_found(void **state)
{
    unsigned *truth = calloc(RANKS, sizeof(*truth)), n_heavy = 0, n_found = 0;
    double *sums = make_sums();
    struct busy_session found[ALL];
    char session[16];
    size_t n;

    (void)state;
    assert_non_null(truth);
    random_state = 88172645463325252;
    for (unsigned i = 0; i < REQUESTS; i++) {
        unsigned rank = choose_rank(sums);

        truth[rank]++;
        (void)snprintf(session, sizeof(session), "%u", rank);
        count(UID, "default", session, 1, START_US);
    }
    n = busiest_read(sketch, BUSIEST_OF_ALL, 0, START_US, found, ALL);
    assert_int_equal(n, BUSIEST_SESSIONS);
    for (size_t i = 0; i < n; i++) {
        assert_true(found[i].n_requests <= truth[rank_of(&found[i])]); /* never too much */
        n_found += truth[rank_of(&found[i])] > REQUESTS / BUSIEST_SESSIONS;
    }
    for (size_t i = 0; i < RANKS; i++)
        n_heavy += truth[i] > REQUESTS / BUSIEST_SESSIONS;
    assert_true(n_heavy >= 10);
    assert_int_equal(n_found, n_heavy); /* the promise of the sketch */
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(rank_of(&found[i]), i); /* and those that stand out are in their order */
    free(truth);
    free(sums);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_told_of_nothing),
        TEST(test_few_sessions_are_counted_exactly),
        TEST(test_what_has_the_same_id_elsewhere_is_another_session),
        TEST(test_names_of_every_length),
        TEST(test_of_one_uid_its_own_alone_and_no_more_than_was_asked_for),
        TEST(test_requests_fade),
        TEST(test_one_who_comes_late_finds_a_place),
        TEST(test_the_heavy_ones_among_very_many_are_found),
    };

    return cmocka_run_group_tests_name("busiest", tests, NULL, NULL);
}
