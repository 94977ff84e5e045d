/*
 * Histograms: each value is counted in the first bucket that it is not above.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/histogram.h"

static void test_a_value_counts_in_the_first_bucket_that_it_is_not_above(void **state)
{
    (void)state;
    assert_int_equal(histogram_bucket(0), 0);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        assert_int_equal(histogram_bucket(UINT64_C(1) << i), i);
        assert_int_equal(histogram_bucket((UINT64_C(1) << i) + 1), i + 1);
    }
}

static void test_what_is_above_all_buckets_counts_in_the_last(void **state)
{
    (void)state;
    assert_int_equal(histogram_bucket(UINT64_C(1) << 63), HISTOGRAM_BUCKETS - 1);
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void test_what_was_added_is_counted_and_summed(void **state)
{
    struct histogram histogram = {0};

    (void)state;
    for (uint64_t value = 1; value <= 100; value++)
        histogram_add(&histogram, value);
    assert_int_equal(histogram.sum, 5050);
    assert_int_equal(histogram.n[0], 1);  /* 1 */
    assert_int_equal(histogram.n[1], 1);  /* 2 */
    assert_int_equal(histogram.n[2], 2);  /* 3, 4 */
    assert_int_equal(histogram.n[6], 32); /* 33 to 64 */
    assert_int_equal(histogram.n[7], 36); /* 65 to 100 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_value_counts_in_the_first_bucket_that_it_is_not_above),
        cmocka_unit_test(test_what_is_above_all_buckets_counts_in_the_last),
        cmocka_unit_test(test_what_was_added_is_counted_and_summed),
    };

    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
