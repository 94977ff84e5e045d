#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/error.h"
#include "base/mem.h"
#include "sessiond-codes.h"

const struct setting config_settings[] = {
#define CONFIG_SETTING(name, initial, min, max, meaning)                                                               \
    {#name, offsetof(struct config, name), initial, min, max, meaning},
    CONFIG_SETTINGS(CONFIG_SETTING)
#undef CONFIG_SETTING
        {0}};

static uint64_t *field_of(struct config *config, const struct setting *setting)
{
    return (uint64_t *)((char *)config + setting->offset);
}

void config_init(struct config *config)
{
    *config = (struct config){.log_level = LOG_LEVEL_INFO};
    for (const struct setting *setting = config_settings; setting->name; setting++)
        *field_of(config, setting) = setting->initial;
}

void config_deinit(struct config *config)
{
    free(TAKE(config->socket_path));
    free(TAKE(config->state_dir));
}

/* ---- the file ---- */

static int refuse(const char *path, const char *key, const char *why)
{
    log_error("config_refused file=\"%s\" key=\"%s\" why=\"%s\"", path, key, why);
    return SESSIOND_INVALID;
}

static int read_text(char **ret, const char *path, const char *key, const json_t *value)
{
    char *copy;

    if (!json_is_string(value))
        return refuse(path, key, "it has to be a text");
    copy = strdup(json_string_value(value));
    if (!copy)
        return fault(ENOMEM, "configuration");
    free(*ret);
    *ret = copy;
    return 0;
}

static int read_setting(struct config *config, const char *path, const char *key, const json_t *value)
{
    for (const struct setting *setting = config_settings; setting->name; setting++) {
        if (strcmp(setting->name, key) != 0)
            continue;
        if (!json_is_integer(value))
            return refuse(path, key, "it has to be a number");
        if (json_integer_value(value) < (json_int_t)setting->min ||
            json_integer_value(value) > (json_int_t)setting->max)
            return refuse(path, key, "it is out of range");
        *field_of(config, setting) = (uint64_t)json_integer_value(value);
        return 0;
    }
    return refuse(path, key, "there is no such setting");
}

static int read_key(struct config *config, const char *path, const char *key, const json_t *value)
{
    if (strcmp(key, "socket") == 0)
        return read_text(&config->socket_path, path, key, value);
    if (strcmp(key, "state_dir") == 0)
        return read_text(&config->state_dir, path, key, value);
    if (strcmp(key, "log_level") == 0)
        return json_is_string(value) && log_level_of(json_string_value(value), &config->log_level)
                   ? 0
                   : refuse(path, key, "it is one of error, warning, info, debug");
    return read_setting(config, path, key, value);
}

int config_read(struct config *config, const char *path)
{
    json_error_t error;
    json_auto_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    const char *key;
    json_t *value;
    int r;

    if (!root) {
        log_error("config_refused file=\"%s\" line=%d column=%d why=\"%s\"", path, error.line, error.column,
                  error.text);
        return SESSIOND_INVALID;
    }
    if (!json_is_object(root))
        return refuse(path, "", "it has to be one JSON object");
    json_object_foreach(root, key, value)
    {
        if ((r = read_key(config, path, key, value)))
            return r;
    }
    return 0;
}

/* ---- what nobody named ---- */

static int format_path(char **ret, const char *directory, const char *rest)
{
    return asprintf(ret, "%s/%s", directory, rest) < 0 ? fault(ENOMEM, "configuration") : 0;
}

static int default_socket(struct config *config)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char fallback[64];

    if (config->system)
        return format_path(&config->socket_path, "/run/sessiond", "sessiond.sock");
    snprintf(fallback, sizeof(fallback), "/run/user/%u", getuid());
    return format_path(&config->socket_path, runtime && runtime[0] == '/' ? runtime : fallback,
                       "sessiond/sessiond.sock");
}

static int default_state_dir(struct config *config)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (config->system)
        return format_path(&config->state_dir, "/var/lib", "sessiond");
    if (state && state[0] == '/')
        return format_path(&config->state_dir, state, "sessiond");
    if (home && home[0] == '/')
        return format_path(&config->state_dir, home, ".local/state/sessiond");
    log_error("no_state_dir why=\"neither XDG_STATE_HOME nor HOME is set; use --state-dir\"");
    return SESSIOND_INVALID;
}

/* A store may be opened long after somebody has changed the working directory of the world around us. */
static int make_absolute(char **path)
{
    _cleanup_(free_pointer) char *directory = NULL, *relative = NULL;

    if ((*path)[0] == '/')
        return 0;
    directory = getcwd(NULL, 0);
    if (!directory)
        return fault(errno, "working directory");
    relative = TAKE(*path);
    return format_path(path, directory, relative);
}

int config_complete(struct config *config)
{
    int r;

    if (!config->socket_path && (r = default_socket(config)))
        return r;
    if (!config->state_dir && (r = default_state_dir(config)))
        return r;
    return make_absolute(&config->state_dir);
}
