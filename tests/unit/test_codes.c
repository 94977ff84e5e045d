#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto.h"

/* The numbers are part of the C client's interface, the names are the wire's: neither may ever move. */
static const char *const names[] = {
    "done",      "invalid", "unknown_method", "not_found",   "denied",    "conflict",    "key_reused",
    "too_large", "busy",    "full",           "unavailable", "uncertain", "rolled_back", "internal",
};

static void test_each_code_keeps_its_number_and_name(void **state)
{
    (void)state;
    assert_int_equal(SESSIOND_N_CODES, sizeof(names) / sizeof(names[0]));
    for (int code = 0; code < SESSIOND_N_CODES; code++)
        assert_string_equal(proto_code_name(code), names[code]);
}

static void test_each_name_leads_back_to_its_code(void **state)
{
    (void)state;
    for (int code = 1; code < SESSIOND_N_CODES; code++)
        assert_int_equal(proto_code_of(names[code], strlen(names[code])), code);
}

static void test_a_name_that_a_newer_daemon_invented_is_internal(void **state)
{
    (void)state;
    assert_int_equal(proto_code_of("quota", 5), SESSIOND_INTERNAL);
    assert_int_equal(proto_code_of("", 0), SESSIOND_INTERNAL);
    assert_int_equal(proto_code_of("busyness", 8), SESSIOND_INTERNAL);
    assert_int_equal(proto_code_of("bus", 3), SESSIOND_INTERNAL);
}

static void test_done_is_no_code_of_an_error(void **state)
{
    (void)state;
    assert_int_equal(proto_code_of("done", 4), SESSIOND_INTERNAL);
}

static void test_a_name_needs_no_zero_at_its_end(void **state)
{
    (void)state;
    assert_int_equal(proto_code_of("busyness", 4), SESSIOND_BUSY);
}

static void test_each_code_says_what_it_means(void **state)
{
    (void)state;
    for (int code = 0; code < SESSIOND_N_CODES; code++)
        assert_true(strlen(proto_code_meaning(code)) > 0);
}

static void test_what_is_no_code_has_neither_name_nor_meaning_nor_retry(void **state)
{
    static const int no_codes[] = {-1, -12, SESSIOND_N_CODES, SESSIOND_N_CODES + 1, 1000000};

    (void)state;
    for (size_t i = 0; i < sizeof(no_codes) / sizeof(no_codes[0]); i++) {
        assert_null(proto_code_name(no_codes[i]));
        assert_null(proto_code_meaning(no_codes[i]));
        assert_false(proto_code_retry(no_codes[i]));
    }
}

static void test_only_busy_unavailable_and_uncertain_are_worth_a_repeat(void **state)
{
    (void)state;
    for (int code = 0; code < SESSIOND_N_CODES; code++)
        assert_int_equal(proto_code_retry(code),
                         code == SESSIOND_BUSY || code == SESSIOND_UNAVAILABLE || code == SESSIOND_UNCERTAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_code_keeps_its_number_and_name),
        cmocka_unit_test(test_each_name_leads_back_to_its_code),
        cmocka_unit_test(test_a_name_that_a_newer_daemon_invented_is_internal),
        cmocka_unit_test(test_done_is_no_code_of_an_error),
        cmocka_unit_test(test_a_name_needs_no_zero_at_its_end),
        cmocka_unit_test(test_each_code_says_what_it_means),
        cmocka_unit_test(test_what_is_no_code_has_neither_name_nor_meaning_nor_retry),
        cmocka_unit_test(test_only_busy_unavailable_and_uncertain_are_worth_a_repeat),
    };

    return cmocka_run_group_tests_name("codes", tests, NULL, NULL);
}
