#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"
#include "sessiond-codes.h"

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

static int read_text(const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fputs(text, file) < 0, 0);
    assert_int_equal(fclose(file), 0);
    return config_read(&config, path);
}

static void test_each_default_is_in_its_range(void **state)
{
    (void)state;
    for (const struct setting *setting = config_settings; setting->name; setting++) {
        assert_true(setting->min <= setting->initial && setting->initial <= setting->max);
        assert_true(setting->max <= INT64_MAX); /* JSON's numbers, as jansson reads them */
        assert_int_equal(config_value(&config, setting), setting->initial);
        assert_true(setting->meaning[0] != '\0');
    }
}

static void test_each_setting_is_read(void **state)
{
    char text[128];

    (void)state;
    for (const struct setting *setting = config_settings; setting->name; setting++) {
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
    for (const struct setting *setting = config_settings; setting->name; setting++) {
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
        TEST(test_paths_of_a_user_come_from_the_environment),
        TEST(test_without_a_home_the_state_directory_must_be_named),
        TEST(test_paths_of_the_system_service_are_fixed),
        TEST(test_a_state_directory_is_made_absolute),
    };

    log_setup((enum log_level)0);
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
