/*
 * Accounts: what is charged, what is refused, what is kept for the modest, and what of refusals is written down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/config.h"
#include "store/account.h"

struct fixture {
    struct config config;
    struct accounts accounts;
};

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){0};
    config_init(&f.config);
    f.config.system = true;
    f.config.connections = 80;
    f.config.connections_per_owner = 60;
    accounts_init(&f.accounts, &f.config);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    for (enum account_resource what = 0; what < ACCOUNT_N_RESOURCES; what++) {
        assert_int_equal(f->accounts.used[what], 0);
        assert_int_equal(f->accounts.n_users[what], 0);
    }
    accounts_deinit(&f->accounts);
    return 0;
}

static struct account *account(struct fixture *f, uid_t uid)
{
    struct account *found = accounts_of(&f->accounts, uid);

    assert_non_null(found);
    assert_ptr_equal(accounts_of(&f->accounts, uid), found);
    return found;
}

static void test_what_is_over_the_limit_is_refused_and_nothing_of_it_charged(void **state)
{
    struct account *alice = account(*state, 1);

    assert_true(account_take(alice, ACCOUNT_CONNECTIONS, 59));
    assert_false(account_take(alice, ACCOUNT_CONNECTIONS, 2));
    assert_int_equal(alice->used[ACCOUNT_CONNECTIONS], 59);
    assert_int_equal(alice->all->used[ACCOUNT_CONNECTIONS], 59);
    assert_true(account_take(alice, ACCOUNT_CONNECTIONS, 1));
    assert_false(account_take(alice, ACCOUNT_CONNECTIONS, 1));
    account_give_back(alice, ACCOUNT_CONNECTIONS, 60);
}

static void test_no_sum_overflows(void **state)
{
    struct account *alice = account(*state, 1);

    assert_true(account_take(alice, ACCOUNT_BYTES, 10));
    assert_false(account_take(alice, ACCOUNT_BYTES, UINT64_MAX));
    assert_false(account_take(alice, ACCOUNT_BYTES, UINT64_MAX - 5));
    assert_int_equal(alice->used[ACCOUNT_BYTES], 10);
    account_give_back(alice, ACCOUNT_BYTES, 10);
}

static void test_the_last_eighth_is_kept_for_the_modest(void **state)
{
    struct account *alice = account(*state, 1), *bob = account(*state, 2), *carol = account(*state, 3);

    assert_true(account_take(alice, ACCOUNT_CONNECTIONS, 60));
    assert_true(account_take(bob, ACCOUNT_CONNECTIONS, 10)); /* 70 of 80: the rest is not for alice */
    assert_false(account_take(alice, ACCOUNT_CONNECTIONS, 1));
    assert_true(account_take(carol, ACCOUNT_CONNECTIONS, 1));
    assert_true(account_take(bob, ACCOUNT_CONNECTIONS, 9));
    assert_false(account_take(carol, ACCOUNT_CONNECTIONS, 1)); /* there is nothing left at all */
    account_give_back(alice, ACCOUNT_CONNECTIONS, 60);
    account_give_back(bob, ACCOUNT_CONNECTIONS, 19);
    account_give_back(carol, ACCOUNT_CONNECTIONS, 1);
}

static void test_a_daemon_of_one_user_keeps_nothing_for_others(void **state)
{
    struct fixture *f = *state;
    struct account *alice;

    f->config.system = false;
    f->config.connections_per_owner = 80;
    accounts_init(&f->accounts, &f->config);
    alice = account(f, 1);
    assert_true(account_take(alice, ACCOUNT_CONNECTIONS, 80));
    assert_false(account_take(alice, ACCOUNT_CONNECTIONS, 1));
    account_give_back(alice, ACCOUNT_CONNECTIONS, 80);
}

static void test_what_is_there_already_is_charged_over_any_limit(void **state)
{
    struct account *alice = account(*state, 1);
    size_t charged = 0;

    account_settle(alice, ACCOUNT_CONNECTIONS, &charged, 100);
    assert_int_equal(charged, 100);
    assert_false(account_take(alice, ACCOUNT_CONNECTIONS, 1));
    account_settle(alice, ACCOUNT_CONNECTIONS, &charged, 3);
    assert_true(account_take(alice, ACCOUNT_CONNECTIONS, 1));
    account_give_back(alice, ACCOUNT_CONNECTIONS, 4);
}

static void test_a_refusal_is_written_down_once_a_minute(void **state)
{
    struct account *alice = account(*state, 1);
    const uint64_t minute = 60000000;

    assert_int_equal(account_audit(alice, slice_of("owner 7"), minute), AUDIT_LINE);
    assert_int_equal(account_audit(alice, slice_of("owner 7"), 2 * minute - 1), AUDIT_SILENCE);
    assert_int_equal(account_audit(alice, slice_of("owner 8"), 2 * minute - 1), AUDIT_LINE);
    assert_int_equal(account_audit(alice, slice_of("owner 7"), 2 * minute), AUDIT_LINE);
}

static void test_many_refusals_in_a_minute_end_with_a_last_line(void **state)
{
    struct account *alice = account(*state, 1);
    char thing[2] = "a";

    for (int i = 0; i < ACCOUNT_AUDITED; i++, thing[0]++)
        assert_int_equal(account_audit(alice, slice_of(thing), 1), AUDIT_LINE);
    assert_int_equal(account_audit(alice, slice_of("z1"), 1), AUDIT_LAST_LINE);
    assert_int_equal(account_audit(alice, slice_of("z2"), 1), AUDIT_SILENCE);
    assert_int_equal(account_audit(alice, slice_of("a"), 1), AUDIT_SILENCE);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_over_the_limit_is_refused_and_nothing_of_it_charged),
        TEST(test_no_sum_overflows),
        TEST(test_the_last_eighth_is_kept_for_the_modest),
        TEST(test_a_daemon_of_one_user_keeps_nothing_for_others),
        TEST(test_what_is_there_already_is_charged_over_any_limit),
        TEST(test_a_refusal_is_written_down_once_a_minute),
        TEST(test_many_refusals_in_a_minute_end_with_a_last_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
