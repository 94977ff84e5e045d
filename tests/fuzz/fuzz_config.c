/*
 * Any text, as a configuration file. What is taken must be just what the file says, every number within the range of
 * its setting; what is refused must be wrong in some way that jansson and the table of settings name. A file that was
 * taken can be completed, and names a state directory from the root on then.
 *
 * The file is one in memory: config_read opens it by its name, as it does at start.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "config/config.h"
#include "fuzz.h"
#include "sessiond-codes.h"

static int file = -1; /* lives as long as the process */
static char path[64];

static void set_up(void)
{
    log_setup((enum log_level)0);
    MUST(setenv("XDG_RUNTIME_DIR", "/run/user/7", 1) == 0);
    MUST(setenv("XDG_STATE_HOME", "/home/seven/state", 1) == 0);
    file = memfd_create("config", MFD_CLOEXEC);
    MUST(file >= 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
}

static void put(const uint8_t *data, size_t size)
{
    MUST(ftruncate(file, 0) == 0);
    MUST(pwrite(file, data, size, 0) == (ssize_t)size);
}

/* ---- a second opinion ---- */

static const struct setting *setting_of(const char *key)
{
    const struct setting *setting = config_settings;

    while (setting->name && strcmp(setting->name, key) != 0)
        setting++;
    return setting->name ? setting : NULL;
}

static bool is_level(const json_t *value)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        if (json_is_string(value) && strcmp(json_string_value(value), levels[i]) == 0)
            return true;
    return false;
}

/* Whether users and groups are named: which there are is for the host to say. */
static bool names_people(const json_t *root)
{
    return json_object_get(root, "administrators") || json_object_get(root, "shared_stores");
}

static bool is_good(const char *key, const json_t *value)
{
    const struct setting *setting = setting_of(key);
    json_int_t number = json_integer_value(value);

    if (setting && setting->kind == SETTING_NUMBER)
        return json_is_integer(value) && number >= 0 && (uint64_t)number >= setting->min &&
               (uint64_t)number <= setting->max;
    if (strcmp(key, "log_level") == 0)
        return is_level(value);
    return setting && setting->kind == SETTING_PATH && json_is_string(value);
}

static bool is_all_good(json_t *root)
{
    const char *key;
    json_t *value;

    if (!json_is_object(root))
        return false;
    json_object_foreach(root, key, value)
    {
        if (!is_good(key, value))
            return false;
    }
    return true;
}

/* ---- what was taken ---- */

static void check_text(json_t *root, const char *key, const char *taken)
{
    const json_t *wanted = json_object_get(root, key);

    MUST(!wanted == !taken);
    MUST(!taken || strcmp(taken, json_string_value(wanted)) == 0);
}

static void check_taken(const struct config *config, json_t *root)
{
    const json_t *wanted, *level = json_object_get(root, "log_level");

    check_text(root, "socket", config->socket_path);
    check_text(root, "state_dir", config->state_dir);
    check_text(root, "metrics_socket", config->metrics_path);
    MUST(strcmp(log_level_name(config->log_level), level ? json_string_value(level) : "info") == 0);
    for (const struct setting *setting = config_settings; setting->name; setting++) {
        if (setting->kind != SETTING_NUMBER)
            continue;
        wanted = json_object_get(root, setting->name);
        MUST(config->origins[setting - config_settings].source == (wanted ? CONFIG_FILE : CONFIG_DEFAULT));
        MUST(config_value(config, setting) == (wanted ? (uint64_t)json_integer_value(wanted) : setting->initial));
    }
}

static void check_completed(struct config *config)
{
    int r = config_complete(config);
    bool is_one_socket =
        config->metrics_path && config->socket_path && strcmp(config->metrics_path, config->socket_path) == 0;

    MUST(r == (is_one_socket && config->metrics_path[0] ? SESSIOND_INVALID : 0));
    MUST(r || (config->socket_path && config->state_dir && config->state_dir[0] == '/'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    int r;

    if (file < 0)
        set_up();
    put(data, size);
    config_init(&config);
    r = config_read(&config, path);
    MUST(r == 0 || r == SESSIOND_INVALID);
    MUST(names_people(root) || (r == 0) == is_all_good(root));
    if (r == 0) {
        check_taken(&config, root);
        check_completed(&config);
    }
    config_deinit(&config);
    json_decref(root);
    return 0;
}
