#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config.h"
#include "sessiond-codes.h"

#define FOR_EACH_NUMBER(setting)                                                                                       \
    for (const struct setting *setting = config_settings; setting->name; setting++)                                    \
        if (setting->kind == SETTING_NUMBER)

static char path[32];
static struct config config;

static int set_up(void **state)
{
    int fd;

    (void)state;
    (void)snprintf(path, sizeof(path), "/tmp/sd-XXXXXX");
    fd = mkstemp(path);
    config_init(&config);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    config_deinit(&config);
    return unlink(path);
}

static void expect_child_to_succeed(void)
{
    int status;

    assert_true(wait(&status) > 0);
    assert_int_equal(status, 0);
}

static void write_text(const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fputs(text, file) < 0, 0);
    assert_int_equal(fclose(file), 0);
}

static int read_text(const char *text)
{
    write_text(text);
    return config_read(&config, path);
}

static void test_each_default_is_in_its_range(void **state)
{
    (void)state;
    FOR_EACH_NUMBER(setting)
    {
        assert_true(setting->min <= setting->initial && setting->initial <= setting->max);
        assert_true(setting->max <= INT64_MAX); /* JSON's numbers, as jansson reads them */
        assert_true(setting->unit[0] != '\0');
        assert_int_equal(config_value(&config, setting), setting->initial);
        assert_true(setting->meaning[0] != '\0');
    }
}

static void test_each_setting_is_read(void **state)
{
    char text[128];

    (void)state;
    FOR_EACH_NUMBER(setting)
    {
        const uint64_t values[] = {setting->min, setting->max};

        for (size_t i = 0; i < 2; i++) {
            (void)snprintf(text, sizeof(text), "{\"%s\": %llu}", setting->name, (unsigned long long)values[i]);
            assert_int_equal(read_text(text), 0);
            assert_int_equal(config_value(&config, setting), values[i]);
        }
    }
}

static void test_a_setting_out_of_its_range_is_refused_and_changes_nothing(void **state)
{
    char text[128];

    (void)state;
    FOR_EACH_NUMBER(setting)
    {
        (void)snprintf(text, sizeof(text), "{\"%s\": %llu}", setting->name, (unsigned long long)setting->max + 1);
        assert_int_equal(read_text(text), SESSIOND_INVALID);
        (void)snprintf(text, sizeof(text), "{\"%s\": %lld}", setting->name, (long long)setting->min - 1);
        assert_int_equal(read_text(text), SESSIOND_INVALID);
        assert_int_equal(config_value(&config, setting), setting->initial);
    }
}

static void test_what_is_no_configuration_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "7",
        "\"lanes\"",
        "{\"lanes\": \"2\"}",
        "{\"lanes\": 2.0}",
        "{\"lanes\": true}",
        "{\"lanes\": null}",
        "{\"lanes\": 99999999999999999999}",
        "{\"lane\": 2}",
        "{\"Lanes\": 2}",
        "{\"\": 2}",
        "{\"lanes\": 2, \"lanes\": 3}",
        "{\"lanes\": 2} x",
        "{\"socket\": 7}",
        "{\"state_dir\": null}",
        "{\"log_level\": \"loud\"}",
        "{\"log_level\": 3}",
        "{\"system\": true}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (read_text(texts[i]) != SESSIOND_INVALID)
            fail_msg("%s was taken", texts[i]);
    assert_int_equal(config_read(&config, "/tmp/there/is/no/such/file"), SESSIOND_INVALID);
    assert_int_equal(config_read(&config, "/tmp"), SESSIOND_INVALID);
}

static void test_texts_are_read_and_the_last_word_counts(void **state)
{
    (void)state;
    assert_int_equal(read_text("{}"), 0);
    assert_null(config.socket_path);
    assert_int_equal(read_text("{\"socket\": \"/run/a.sock\", \"state_dir\": \"/a\", \"log_level\": \"debug\"}"), 0);
    assert_int_equal(read_text("{\"socket\": \"/run/b.sock\"}"), 0);
    assert_string_equal(config.socket_path, "/run/b.sock");
    assert_string_equal(config.state_dir, "/a");
    assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
}

static struct config_origin origin(const char *name)
{
    for (const struct setting *setting = config_settings; setting->name; setting++)
        if (strcmp(setting->name, name) == 0)
            return config.origins[setting - config_settings];
    fail_msg("there is no %s", name);
    return config.origins[0];
}

static void test_each_value_says_where_it_came_from(void **state)
{
    (void)state;
    assert_int_equal(config_set_flag(&config, "socket", "/run/flag.sock"), 0);
    assert_int_equal(read_text("{\"lanes\": 2, \"log_level\": \"error\",\n\n \"socket\": \"/run/file.sock\",\n"
                               "\"receipts\":\n5000}"),
                     0);
    assert_string_equal(config.socket_path, "/run/flag.sock"); /* although the file came later */
    assert_int_equal(origin("socket").source, CONFIG_FLAG);
    assert_int_equal(origin("lanes").source, CONFIG_FILE);
    assert_int_equal(origin("lanes").line, 1);
    assert_int_equal(origin("receipts").line, 4);
    assert_int_equal(origin("in_flight").source, CONFIG_DEFAULT);
}

static void test_what_a_flag_outweighs_must_be_right_all_the_same(void **state)
{
    (void)state;
    assert_int_equal(config_set_flag(&config, "socket", "/run/flag.sock"), 0);
    assert_int_equal(read_text("{\"socket\": 7}"), SESSIOND_INVALID);
    assert_int_equal(config_set_flag(&config, "log_level", "loud"), SESSIOND_INVALID);
    assert_int_equal(config_set_flag(&config, "state_dir", "\xff"), SESSIOND_INVALID);
}

static void test_a_file_that_may_be_missing(void **state)
{
    char optional[64];

    (void)state;
    assert_int_equal(config_read(&config, "-/tmp/there/is/no/such/file"), 0);
    assert_int_equal(config_read(&config, NULL), 0);
    assert_int_equal(read_text("{\"lanes\": 5}"), 0);
    (void)snprintf(optional, sizeof(optional), "-%s", path);
    assert_int_equal(config_read(&config, optional), 0);
    assert_int_equal(config.lanes, 5);
    assert_int_equal(read_text("{\"lanes\": 0}"), SESSIOND_INVALID);
    assert_int_equal(config_read(&config, optional), SESSIOND_INVALID); /* missing is fine, wrong is not */
}

/* ---- again ---- */

static void test_shared_stores_and_administrators(void **state)
{
    const gid_t groups[] = {7, 100};
    const struct shared_stores *shared;

    (void)state;
    assert_int_equal(read_text("{\"administrators\": [5, \"%7\"], \"shared_stores\": {\"a.b\": {\"read\": [\"root\"], "
                               "\"change\": [4294967294]}, \"c\": {}}}"),
                     0);
    shared = config.shared_stores;
    assert_int_equal(shared->n, 2);
    assert_string_equal(shared->stores[0].name, "a.b");
    assert_true(who_lists(shared->stores[0].who[RIGHT_READ], 0, NULL, 0));
    assert_false(who_lists(shared->stores[0].who[RIGHT_APPEND], 0, NULL, 0));
    assert_true(who_lists(shared->stores[0].who[RIGHT_CHANGE], 4294967294, NULL, 0));
    assert_true(who_lists(config.administrators, 5, NULL, 0));
    assert_true(who_lists(config.administrators, 6, groups, 2));
    assert_false(who_lists(config.administrators, 7, groups + 1, 1)); /* a group is no user of the same number */
}

static void test_shared_stores_that_are_wrong_are_refused(void **state)
{
    static const char *const texts[] = {
        "{\"shared_stores\": []}",
        "{\"shared_stores\": {\"@a\": {}}}",
        "{\"shared_stores\": {\"A\": {}}}",
        "{\"shared_stores\": {\"a\": []}}",
        "{\"shared_stores\": {\"a\": {\"write\": []}}}",
        "{\"shared_stores\": {\"a\": {\"read\": 5}}}",
        "{\"shared_stores\": {\"a\": {\"read\": [-1]}}}",
        "{\"shared_stores\": {\"a\": {\"read\": [4294967295]}}}",
        "{\"shared_stores\": {\"a\": {\"read\": [\"no such user\"]}}}",
        "{\"shared_stores\": {\"a\": {\"read\": [\"%no such group\"]}}}",
        "{\"shared_stores\": {\"a\": {\"read\": [\"%\"]}}}",
        "{\"administrators\": {}}",
        "{\"administrators\": [null]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(read_text(texts[i]), SESSIOND_INVALID);
        assert_null(config.shared_stores);
        assert_null(config.administrators);
    }
}

/* valgrind keeps descriptors for itself, and tells another limit. */
static bool has_limit(const struct rlimit *wanted)
{
    struct rlimit now;

    return setrlimit(RLIMIT_NOFILE, wanted) == 0 && getrlimit(RLIMIT_NOFILE, &now) == 0 &&
           now.rlim_max == wanted->rlim_max;
}

static void test_few_descriptors_are_shared_out(void **state)
{
    struct rlimit before, few;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    if (fork() == 0) { /* a hard limit does not come back */
        few = (struct rlimit){64, 64};
        _exit(!has_limit(&few) ? 0 : config_complete(&config) || config.connections != 16 || config.open_stores != 1);
    }
    expect_child_to_succeed();
    if (fork() == 0) {
        few = (struct rlimit){1024, 1024};
        _exit(!has_limit(&few) ? 0
                               : config_complete(&config) ||
                                     config.connections + config.open_stores * config.lanes * 4 > 1024 - 40 ||
                                     config.connections < 400);
    }
    expect_child_to_succeed();
}

static void test_a_reload_takes_what_can_change_at_once_and_nothing_else(void **state)
{
    char text[128];

    (void)state;
    FOR_EACH_NUMBER(setting)
    {
        uint64_t other = setting->initial == setting->max ? setting->min : setting->max;

        config_deinit(&config);
        config_init(&config);
        config.file = strdup(path);
        assert_int_equal(read_text("{\"state_dir\": \"/a\"}"), 0);
        assert_int_equal(config_complete(&config), 0);
        (void)snprintf(text, sizeof(text), "{\"state_dir\": \"/b\", \"%s\": %llu}", setting->name,
                       (unsigned long long)other);
        write_text(text);
        assert_int_equal(config_reload(&config), 0);
        assert_int_equal(config_value(&config, setting), setting->when == SETTING_AT_ONCE ? other : setting->initial);
        assert_string_equal(config.state_dir, "/a");
    }
}

static void test_a_reload_of_a_wrong_file_changes_nothing(void **state)
{
    (void)state;
    config.file = strdup(path);
    config.state_dir = strdup("/a");
    assert_int_equal(read_text("{\"in_flight\": 7}"), 0);
    assert_int_equal(config_complete(&config), 0);
    write_text("{\"in_flight\": 8, \"log_level\": \"error\", \"colour\": 1}");
    assert_int_equal(config_reload(&config), SESSIOND_INVALID);
    assert_int_equal(config.in_flight, 7);
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
}

static void test_a_reload_leaves_what_flags_said(void **state)
{
    (void)state;
    config.file = strdup(path);
    assert_int_equal(config_set_flag(&config, "log_level", "error"), 0);
    assert_int_equal(config_set_flag(&config, "state_dir", "/flag"), 0);
    assert_int_equal(read_text("{}"), 0);
    assert_int_equal(config_complete(&config), 0);
    write_text("{\"log_level\": \"warning\", \"in_flight\": 9}");
    assert_int_equal(config_reload(&config), 0);
    assert_int_equal(config.log_level, LOG_LEVEL_ERROR);
    assert_int_equal(config.in_flight, 9);
    assert_int_equal(origin("in_flight").source, CONFIG_FILE);
    assert_int_equal(origin("log_level").source, CONFIG_FLAG);
}

/* ---- what nobody named ---- */

static void set_home(const char *runtime, const char *state_home, const char *home)
{
    const char *const names[] = {"XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"}, *values[] = {runtime, state_home, home};

    for (size_t i = 0; i < 3; i++)
        assert_int_equal(values[i] ? setenv(names[i], values[i], 1) : unsetenv(names[i]), 0);
}

static void test_paths_of_a_user_come_from_the_environment(void **state)
{
    char expected[64];

    (void)state;
    set_home("/run/user/7", "/home/u/state", "/home/u");
    assert_int_equal(config_complete(&config), 0);
    assert_string_equal(config.socket_path, "/run/user/7/sessiond/sessiond.sock");
    assert_string_equal(config.state_dir, "/home/u/state/sessiond");

    config_deinit(&config);
    set_home(NULL, NULL, "/home/u");
    assert_int_equal(config_complete(&config), 0);
    (void)snprintf(expected, sizeof(expected), "/run/user/%u/sessiond/sessiond.sock", getuid());
    assert_string_equal(config.socket_path, expected);
    assert_string_equal(config.state_dir, "/home/u/.local/state/sessiond");

    config_deinit(&config);
    set_home("relative", "relative", "/home/u"); /* the specification says: ignore these */
    assert_int_equal(config_complete(&config), 0);
    assert_string_equal(config.socket_path, expected);
    assert_string_equal(config.state_dir, "/home/u/.local/state/sessiond");
}

static void test_without_a_home_the_state_directory_must_be_named(void **state)
{
    (void)state;
    set_home("/run/user/7", NULL, NULL);
    assert_int_equal(config_complete(&config), SESSIOND_INVALID);
    config.state_dir = strdup("/named");
    assert_int_equal(config_complete(&config), 0);
    assert_string_equal(config.state_dir, "/named");
}

static void test_paths_of_the_system_service_are_fixed(void **state)
{
    (void)state;
    set_home("/run/user/7", "/home/u/state", "/home/u");
    config.system = true;
    assert_int_equal(config_complete(&config), 0);
    assert_string_equal(config.socket_path, "/run/sessiond/sessiond.sock");
    assert_string_equal(config.state_dir, "/var/lib/sessiond");
}

static void test_a_state_directory_is_made_absolute(void **state)
{
    char *here = getcwd(NULL, 0), expected[4096];

    (void)state;
    config.socket_path = strdup("/s");
    config.state_dir = strdup("some/where");
    assert_int_equal(config_complete(&config), 0);
    (void)snprintf(expected, sizeof(expected), "%s/some/where", here);
    assert_string_equal(config.state_dir, expected);
    free(here);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    static const struct CMUnitTest tests[] = {
        TEST(test_each_default_is_in_its_range),
        TEST(test_each_setting_is_read),
        TEST(test_a_setting_out_of_its_range_is_refused_and_changes_nothing),
        TEST(test_what_is_no_configuration_is_refused),
        TEST(test_texts_are_read_and_the_last_word_counts),
        TEST(test_each_value_says_where_it_came_from),
        TEST(test_what_a_flag_outweighs_must_be_right_all_the_same),
        TEST(test_a_file_that_may_be_missing),
        TEST(test_few_descriptors_are_shared_out),
        TEST(test_shared_stores_that_are_wrong_are_refused),
        TEST(test_shared_stores_and_administrators),
        TEST(test_a_reload_takes_what_can_change_at_once_and_nothing_else),
        TEST(test_a_reload_of_a_wrong_file_changes_nothing),
        TEST(test_a_reload_leaves_what_flags_said),
        TEST(test_paths_of_a_user_come_from_the_environment),
        TEST(test_without_a_home_the_state_directory_must_be_named),
        TEST(test_paths_of_the_system_service_are_fixed),
        TEST(test_a_state_directory_is_made_absolute),
    };

    log_setup((enum log_level)0);
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
