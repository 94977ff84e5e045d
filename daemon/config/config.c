#include "config/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "config/kinds.h"
#include "sessiond-codes.h"

enum {
    FIXED_DESCRIPTORS =
        40, /* of the loop, the lanes, the locks; a store more that opens, a backup, a connection to be refused */
    STORE_DESCRIPTORS = 4,
    METRICS_DESCRIPTORS = CONFIG_SCRAPES + 2, /* its connections, its socket and the lock */
};

const struct setting config_settings[] = {
#define CONFIG_OTHER(name, field, kind, when, initial, meaning)                                                        \
    {#name, SETTING_##kind, SETTING_##when, offsetof(struct config, field), "", 0, 0, 0, initial, meaning},
    CONFIG_OTHERS(CONFIG_OTHER)
#undef CONFIG_OTHER
#define CONFIG_NUMBER(name, unit, initial, min, max, when, meaning)                                                    \
    {#name, SETTING_NUMBER, SETTING_##when, offsetof(struct config, name), unit, initial, min, max, NULL, meaning},
        CONFIG_NUMBERS(CONFIG_NUMBER)
#undef CONFIG_NUMBER
            {0}};

const struct setting *config_setting(const char *name)
{
    const struct setting *setting = config_settings;

    while (setting->name && strcmp(setting->name, name) != 0)
        setting++;
    return setting->name ? setting : NULL;
}

const char *config_text(const struct config *config, const struct setting *setting)
{
    return config_kinds[setting->kind].text(config_field(config, setting));
}

void config_init(struct config *config)
{
    *config = (struct config){.log_level = LOG_LEVEL_INFO};
    for (const struct setting *setting = config_settings; setting->name; setting++)
        if (setting->kind == SETTING_NUMBER)
            *(uint64_t *)config_field(config, setting) = setting->initial;
}

void config_deinit(struct config *config)
{
    free(TAKE(config->file));
    for (const struct setting *setting = config_settings; setting->name; setting++)
        if (config_kinds[setting->kind].drop)
            config_kinds[setting->kind].drop(config_field(config, setting));
}

int config_set_flag(struct config *config, const char *name, const char *value)
{
    const struct setting *setting = config_setting(name);
    json_t *text = json_string(value);
    const char *why = NULL;
    int r = text ? config_kinds[setting->kind].read(setting, config_field(config, setting), text, &why) : 0;

    if (!text)
        why = "it is no UTF-8";
    json_decref(text);
    if (why) {
        log_error("flag_refused name=\"%s\" why=\"%s\"", name, why);
        return SESSIOND_INVALID;
    }
    *config_origin(config, setting) = (struct config_origin){CONFIG_FLAG, 0};
    return r;
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

static bool has_metrics_socket(const struct config *config)
{
    return config->metrics_path && config->metrics_path[0];
}

static int check_metrics_socket(const struct config *config)
{
    if (!has_metrics_socket(config) || strcmp(config->metrics_path, config->socket_path) != 0)
        return 0;
    log_error("config_refused key=\"metrics_socket\" why=\"it is the daemon's own socket, which speaks no HTTP\"");
    return SESSIOND_INVALID;
}

/* Connections and open stores share what there is. Each side may have half, and what the other does not need. */
static void fit_descriptors(struct config *config)
{
    uint64_t per_lane = config->lanes * STORE_DESCRIPTORS, stores = per_lane * config->open_stores, room;
    uint64_t fixed = FIXED_DESCRIPTORS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    if (has_metrics_socket(config))
        fixed += METRICS_DESCRIPTORS;
    room = limit.rlim_max > fixed ? limit.rlim_max - fixed : 1;
    if (config->connections + stores <= room)
        return;
    if (stores > room / 2) {
        uint64_t left = room > config->connections ? room - config->connections : 0,
                 mine = left > room / 2 ? left : room / 2;

        if (mine < stores)
            config->open_stores = mine / per_lane > 0 ? mine / per_lane : 1;
        stores = per_lane * config->open_stores;
    }
    if (config->connections + stores > room)
        config->connections = room > stores ? room - stores : 1;
    log_warning("descriptors_are_few limit=%llu connections=%llu open_stores=%llu", (unsigned long long)limit.rlim_max,
                (unsigned long long)config->connections, (unsigned long long)config->open_stores);
}

int config_complete(struct config *config)
{
    int r;

    if (!config->socket_path && (r = default_socket(config)))
        return r;
    if (!config->state_dir && (r = default_state_dir(config)))
        return r;
    if ((r = check_metrics_socket(config)))
        return r;
    fit_descriptors(config);
    return make_absolute(&config->state_dir);
}

/* ---- again ---- */

/* The settings of the next configuration that were said by flags are those of the present one. */
static int copy_flags(struct config *next, struct config *config)
{
    int r = 0;

    next->system = config->system;
    for (const struct setting *setting = config_settings; setting->name && r == 0; setting++)
        if (config_origin(config, setting)->source == CONFIG_FLAG)
            r = config_set_flag(next, setting->name, config_text(config, setting));
    return r;
}

static bool is_same(const struct setting *setting, const struct config *a, const struct config *b)
{
    if (setting->kind != SETTING_NUMBER)
        return strcmp(config_text(a, setting), config_text(b, setting)) == 0;
    return config_value(a, setting) == config_value(b, setting);
}

static void take_over(struct config *config, struct config *next)
{
    unsigned changed = 0, waiting = 0;

    for (const struct setting *setting = config_settings; setting->name; setting++) {
        if (is_same(setting, config, next)) {
            *config_origin(config, setting) = *config_origin(next, setting);
        } else if (setting->when == SETTING_AT_ONCE) {
            config_kinds[setting->kind].take(config_field(config, setting), config_field(next, setting));
            *config_origin(config, setting) = *config_origin(next, setting);
            changed++;
        } else {
            log_warning("setting_needs_restart key=\"%s\"", setting->name);
            waiting++;
        }
    }
    config->generation += changed > 0;
    log_info("config_reloaded changed=%u need_restart=%u", changed, waiting);
}

int config_reload(struct config *config)
{
    struct config next;
    int r;

    config_init(&next);
    if ((r = copy_flags(&next, config)) == 0 && (r = config_read(&next, config->file)) == 0 &&
        (r = config_complete(&next)) == 0)
        take_over(config, &next);
    else
        log_error("config_kept why=\"the new one is wrong, the old one stays in force\"");
    config_deinit(&next);
    return r;
}

/* ---- for people ---- */

static void print_origin(struct buf *ret, const struct config *config, const struct config_origin *origin)
{
    static const char *const words[] = {[CONFIG_DEFAULT] = "default", [CONFIG_FILE] = "file", [CONFIG_FLAG] = "flag"};
    const char *file = config->file ? config->file : "";

    buf_printf(ret, "%s", words[origin->source]);
    if (origin->source == CONFIG_FILE)
        buf_printf(ret, " %s:%d", file[0] == '-' ? file + 1 : file, origin->line);
    buf_printf(ret, "\n");
}

void config_print(const struct config *config, struct buf *ret)
{
    for (const struct setting *setting = config_settings; setting->name; setting++) {
        json_t *value = config_kinds[setting->kind].show(config_field(config, setting));
        char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

        if (!text)
            ret->failed = true;
        buf_printf(ret, "%-25s %-20s ", setting->name, text ? text : "");
        print_origin(ret, config, &config->origins[setting - config_settings]);
        free(text);
        json_decref(value);
    }
}

void config_help(struct buf *ret)
{
    for (const struct setting *setting = config_settings; setting->name; setting++) {
        const char *when = setting->when == SETTING_AT_ONCE ? "with a reload" : "with a restart";

        buf_printf(ret, "%s: %s\n", setting->name, setting->meaning);
        if (setting->kind == SETTING_NUMBER)
            buf_printf(ret, "    %s, %" PRIu64 " to %" PRIu64 "; default %" PRIu64 "; changes %s\n", setting->unit,
                       setting->min, setting->max, setting->initial, when);
        else
            buf_printf(ret, "    %s; default %s; changes %s\n", config_kinds[setting->kind].form, setting->initial_text,
                       when);
    }
}
