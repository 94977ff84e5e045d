/*
 * What sessionctl top makes of the text of `stats`: each line is read or refused, and what has happened between two
 * texts is their difference.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../client/cli/reading.c"
#include "../../client/cli/samples.c"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* ---- lines ---- */

struct seen {
    size_t n;
    double sum;
    char first[64]; /* name, labels and values of the first */
};

static void see(const struct sample *sample, void *arg)
{
    struct seen *seen = arg;

    seen->sum += sample->value;
    if (seen->n++ > 0)
        return;
    (void)snprintf(seen->first, sizeof(seen->first), "%s", sample->name);
    for (size_t i = 0; i < sample->n_labels; i++) {
        size_t size = strlen(seen->first);

        (void)snprintf(seen->first + size, sizeof(seen->first) - size, " %s=[%s]", sample->labels[i].name,
                       sample->labels[i].value);
    }
}

static size_t read_lines(const char *text, struct seen *ret)
{
    char *copy = strdup(text);
    size_t line;

    assert_non_null(copy);
    *ret = (struct seen){0};
    line = samples_read(copy, see, ret);
    free(copy);
    return line;
}

static void test_lines_that_are_samples(void **state)
{
    static const struct {
        const char *text, *first;
        size_t n;
        double sum;
    } cases[] = {
        {"", "", 0, 0},
        {"\n\n", "", 0, 0},
        {"# HELP a b\n# TYPE a counter\n", "", 0, 0},
        {"a 1\nb 2\n", "a", 2, 3},
        {"a 1\nb 2", "a", 2, 3},
        {"a_b:C9{} 1.5e3\n", "a_b:C9", 1, 1500},
        {"a{b=\"c\"} -1\n", "a b=[c]", 1, -1},
        {"a{b=\"c\",d=\"+Inf\"} 7\n", "a b=[c] d=[+Inf]", 1, 7},
        {"a{b=\"c\",} 7\n", "a b=[c]", 1, 7},
        {"a{b=\" x{y} \\\\ \\\" \\n\"} 7\n", "a b=[ x{y} \\ \" \n]", 1, 7},
        {"a{a=\"\",b=\"\",c=\"\",d=\"\"} 7\n", "a a=[] b=[] c=[] d=[]", 1, 7},
    };
    struct seen seen;

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        assert_int_equal(read_lines(cases[i].text, &seen), 0);
        assert_string_equal(seen.first, cases[i].first);
        assert_int_equal(seen.n, cases[i].n);
        assert_true(seen.sum == cases[i].sum);
    }
}

static void test_lines_that_are_none(void **state)
{
    static const char *const lines[] = {
        " a 1",
        "a",
        "a ",
        "a  1",
        "a 1 ",
        "a 1 2",
        "9a 1",
        "a-b 1",
        "{} 1",
        "a{ 1",
        "a{b} 1",
        "a{b=} 1",
        "a{b=c} 1",
        "a{b=\"c} 1",
        "a{b=\"c\"",
        "a{b=\"c\"}1",
        "a{b=\"\\x\"} 1",
        "a{b=\"\\",
        "a{b=\"c\"d=\"e\"} 1",
        "a{,} 1",
        "a x",
        "a{a=\"\",b=\"\",c=\"\",d=\"\",e=\"\"} 1",
        "a{b=\"c\"}  1",
    };
    struct seen seen;
    char text[128];

    (void)state;
    for (size_t i = 0; i < N(lines); i++) {
        (void)snprintf(text, sizeof(text), "# the first\nb 1\n%s\nc 2\n", lines[i]);
        if (read_lines(text, &seen) != 3)
            fail_msg("this was taken: %s", lines[i]);
        assert_int_equal(seen.n, 1);
    }
}

/* ---- readings ---- */

static struct reading read_text(const char *text)
{
    struct reading reading;
    size_t line;

    assert_int_equal(reading_read(&reading, (struct sessiond_text){text, strlen(text)}, &line), 0);
    return reading;
}

static const char before_text[] = "sessiond_info{version=\"1\",instance=\"i\"} 1\n"
                                  "sessiond_uptime_seconds 10\n"
                                  "sessiond_connections 3\n"
                                  "sessiond_requests_total{method=\"add_items\",outcome=\"done\"} 5\n"
                                  "sessiond_request_duration_seconds_bucket{method=\"add_items\",le=\"1\"} 5\n"
                                  "sessiond_request_duration_seconds_bucket{method=\"add_items\",le=\"+Inf\"} 5\n"
                                  "sessiond_rollbacks_total{lane=\"0\"} 1\n"
                                  "sessiond_uid_answers_total{uid=\"7\"} 5\n";

static const char after_text[] = "sessiond_info{version=\"1\",instance=\"i\"} 1\n"
                                 "sessiond_uptime_seconds 12\n"
                                 "sessiond_connections 2\n"
                                 "sessiond_something_new{of=\"later\"} 2\n"
                                 "sessiond_requests_total{method=\"ping\",outcome=\"done\"} 4\n"
                                 "sessiond_requests_total{method=\"add_items\",outcome=\"done\"} 7\n"
                                 "sessiond_requests_total{method=\"add_items\",outcome=\"busy\"} 1\n"
                                 "sessiond_request_duration_seconds_bucket{method=\"add_items\",le=\"1\"} 6\n"
                                 "sessiond_request_duration_seconds_bucket{method=\"add_items\",le=\"+Inf\"} 8\n"
                                 "sessiond_queue_requests{lane=\"0\"} 2\n"
                                 "sessiond_queue_requests{lane=\"1\"} 3\n"
                                 "sessiond_rollbacks_total{lane=\"0\"} 1\n"
                                 "sessiond_rollbacks_total{lane=\"1\"} 2\n"
                                 "sessiond_uid_answers_total{uid=\"6\"} 1\n"
                                 "sessiond_uid_answers_total{uid=\"7\"} 11\n"
                                 "sessiond_uid_refusals_total{uid=\"7\"} 1\n"
                                 "sessiond_uid_connections{uid=\"7\"} 2\n";

static void test_counters_tell_what_has_happened_and_gauges_what_is(void **state)
{
    struct reading before = read_text(before_text), now = read_text(after_text);

    (void)state;
    assert_true(reading_since(&now, &before) == 2);
    assert_true(now.tells_all);
    assert_true(now.connections == 2 && now.queue_requests == 5 && now.rollbacks == 2);
    assert_int_equal(now.n_methods, 2);
    assert_string_equal(now.methods[0].name, "ping");
    assert_true(now.methods[0].answers == 4 && now.methods[0].refusals == 0);
    assert_true(now.methods[1].answers == 3 && now.methods[1].refusals == 1);
    assert_true(now.methods[1].seconds.buckets[0].n == 1 && now.methods[1].seconds.buckets[1].n == 3);
    assert_int_equal(now.n_uids, 2);
    assert_true(now.uids[0].uid == 6 && now.uids[0].answers == 1);
    assert_true(now.uids[1].uid == 7 && now.uids[1].answers == 6 && now.uids[1].refusals == 1);
    assert_true(now.uids[1].connections == 2);
    reading_deinit(&before);
    reading_deinit(&now);
}

static void test_before_a_restart_is_nothing(void **state)
{
    struct reading before = read_text(after_text), now = read_text(before_text), none = {0};

    (void)state;
    assert_true(reading_since(&now, &before) == 10);
    assert_true(now.methods[0].answers == 5 && now.uids[0].answers == 5);
    assert_true(reading_since(&now, &none) == 10);
    assert_true(now.methods[0].answers == 5);
    reading_deinit(&before);
    reading_deinit(&now);
}

static void test_what_is_no_text_of_stats_is_refused_with_its_line(void **state)
{
    static const char text[] = "sessiond_uid_answers_total{uid=\"7\"} 5\nno sample\n";
    struct reading reading;
    size_t line;

    (void)state;
    assert_int_equal(reading_read(&reading, (struct sessiond_text){text, strlen(text)}, &line), -EPROTO);
    assert_int_equal(line, 2);
    assert_null(reading.uids);
}

static void test_many_uids_in_whatever_order(void **state)
{
    struct reading reading;
    static char text[20000];
    size_t line, at = 0;

    (void)state;
    for (unsigned i = 0; i < 300; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "sessiond_uid_answers_total{uid=\"%u\"} %u\n", i * 7 % 300,
                               i);
    assert_int_equal(reading_read(&reading, (struct sessiond_text){text, at}, &line), 0);
    assert_int_equal(reading.n_uids, 300);
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(reading.uids[i * 7 % 300].uid, i * 7 % 300);
        assert_true(reading.uids[i * 7 % 300].answers == i);
    }
    reading_deinit(&reading);
}

/* ---- spreads ---- */

static void test_quantiles_lie_in_a_straight_line_between_bounds(void **state)
{
    struct spread spread = {.buckets = {{1, 0}, {2, 10}, {4, 10}, {8, 20}, {INFINITY, 20}}, .n_buckets = 5};

    (void)state;
    assert_true(spread_quantile(&spread, 0.5) == 2);
    assert_true(spread_quantile(&spread, 0.25) == 1.5);
    assert_true(spread_quantile(&spread, 0.75) == 6);
    assert_true(spread_quantile(&spread, 1) == 8);
    spread.buckets[4].n = 40; /* half of them above all bounds */
    assert_true(spread_quantile(&spread, 0.99) == 8);
}

static void test_of_nothing_there_is_no_quantile_and_no_mean(void **state)
{
    struct spread spread = {.buckets = {{1, 0}, {INFINITY, 0}}, .n_buckets = 2}, none = {.n_buckets = 0};

    (void)state;
    assert_true(isnan(spread_quantile(&spread, 0.5)) && isnan(spread_quantile(&none, 0.5)));
    assert_true(isnan(spread_mean(&none)));
    none = (struct spread){.sum = 6, .n = 4};
    assert_true(spread_mean(&none) == 1.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_that_are_samples),
        cmocka_unit_test(test_lines_that_are_none),
        cmocka_unit_test(test_counters_tell_what_has_happened_and_gauges_what_is),
        cmocka_unit_test(test_before_a_restart_is_nothing),
        cmocka_unit_test(test_what_is_no_text_of_stats_is_refused_with_its_line),
        cmocka_unit_test(test_many_uids_in_whatever_order),
        cmocka_unit_test(test_quantiles_lie_in_a_straight_line_between_bounds),
        cmocka_unit_test(test_of_nothing_there_is_no_quantile_and_no_mean),
    };

    return cmocka_run_group_tests_name("reading", tests, NULL, NULL);
}
