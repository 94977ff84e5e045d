#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <jansson.h>

#include "base/error.h"
#include "base/mem.h"
#include "sessiond-codes.h"

enum {
    FILE_MAX = 1 << 20,
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

static void *field_of(const struct config *config, const struct setting *setting)
{
    return (char *)config + setting->offset;
}

static struct config_origin *origin_of(struct config *config, const struct setting *setting)
{
    return &config->origins[setting - config_settings];
}

static const struct setting *setting_of(const char *name)
{
    const struct setting *setting = config_settings;

    while (setting->name && strcmp(setting->name, name) != 0)
        setting++;
    return setting->name ? setting : NULL;
}

/* ---- who may what ---- */

static void who_free(struct who *who)
{
    if (who)
        free(who->text);
    free(who);
}

static void shared_free(struct shared_stores *shared)
{
    for (size_t i = 0; shared && i < shared->n; i++)
        for (enum right right = 0; right < N_RIGHTS; right++)
            who_free(shared->stores[i].who[right]);
    if (shared)
        free(shared->text);
    free(shared);
}

/* A number is a uid, "alice" a user, "%staff" a group, "%50" a gid. Return: false if there is none of this name. */
static bool read_id(const json_t *value, bool *ret_is_group, unsigned *ret)
{
    const char *name = json_string_value(value), *digits;
    const struct passwd *user;
    const struct group *group;

    *ret_is_group = name && name[0] == '%';
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= PROTO_UID_MAX) {
        *ret = (unsigned)json_integer_value(value);
        return true;
    }
    if (!name)
        return false;
    digits = name + 1;
    if (*ret_is_group && *digits && strspn(digits, "0123456789") == strlen(digits) && strlen(digits) < 10) {
        *ret = (unsigned)strtoul(digits, NULL, 10);
        return true;
    }
    user = *ret_is_group ? NULL : getpwnam(name);
    group = *ret_is_group ? getgrnam(digits) : NULL;
    *ret = user ? user->pw_uid : group ? group->gr_gid : 0;
    return user || group;
}

static int compare_ids(const void *a, const void *b)
{
    const struct who_id *x = a, *y = b;

    return x->is_group != y->is_group ? x->is_group - y->is_group : (x->id > y->id) - (x->id < y->id);
}

static int read_ids(struct who **ret, const json_t *value, const char **ret_why)
{
    size_t n = json_array_size(value);
    struct who *who;

    if (!json_is_array(value)) {
        *ret_why = "it has to be a list of uids, \"user\" and \"%group\"";
        return SESSIOND_INVALID;
    }
    who = calloc(1, sizeof(*who) + n * sizeof(who->ids[0]));
    if (!who || !(who->text = json_dumps(value, 0))) {
        who_free(who);
        return fault(ENOMEM, "configuration");
    }
    for (; who->n < n; who->n++)
        if (!read_id(json_array_get(value, who->n), &who->ids[who->n].is_group, &who->ids[who->n].id)) {
            who_free(who);
            *ret_why = "there is no such user or group on this host";
            return SESSIOND_INVALID;
        }
    qsort(who->ids, n, sizeof(who->ids[0]), compare_ids);
    *ret = who;
    return 0;
}

static int read_rights(struct shared_store *store, const json_t *value, const char **ret_why)
{
    static const char *const names[] = {[RIGHT_READ] = "read", [RIGHT_APPEND] = "append", [RIGHT_CHANGE] = "change"};
    const json_t *list;
    size_t n = 0;
    int r;

    for (enum right right = RIGHT_READ; right < N_RIGHTS; right++) {
        list = json_object_get(value, names[right]);
        if (!list)
            continue;
        n++;
        if ((r = read_ids(&store->who[right], list, ret_why)))
            return r;
    }
    if (json_is_object(value) && n == json_object_size(value))
        return 0;
    *ret_why = "a shared store has \"read\", \"append\" and \"change\", and nothing else";
    return SESSIOND_INVALID;
}

static int read_stores(struct shared_stores *shared, const json_t *value, const char **ret_why)
{
    const char *name;
    json_t *rights;
    int r;

    json_object_foreach((json_t *)value, name, rights)
    {
        struct shared_store *store = &shared->stores[shared->n++];

        if (!proto_is_store_name(name, strlen(name))) {
            *ret_why = "a name is 1 to 127 of a-z 0-9 . _ -, and begins with a-z 0-9; the @ is left out";
            return SESSIOND_INVALID;
        }
        memcpy(store->name, name, strlen(name) + 1);
        if ((r = read_rights(store, rights, ret_why)))
            return r;
    }
    return 0;
}

static bool lists(const struct who *who, bool is_group, unsigned id)
{
    struct who_id wanted = {is_group, id};

    return bsearch(&wanted, who->ids, who->n, sizeof(wanted), compare_ids);
}

bool config_lists(const struct who *who, uid_t uid, const gid_t *groups, size_t n_groups)
{
    bool found = who && lists(who, false, uid);

    for (size_t i = 0; who && !found && i < n_groups; i++)
        found = lists(who, true, groups[i]);
    return found;
}

/* ---- the kinds of settings ---- */

static int replace_text(char **text, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return fault(ENOMEM, "configuration");
    free(*text);
    *text = copy;
    return 0;
}

static int read_number(const struct setting *setting, void *field, const json_t *value, const char **ret_why)
{
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value))
        *ret_why = "it has to be a number without a fraction";
    else if (number < (json_int_t)setting->min || number > (json_int_t)setting->max)
        *ret_why = "it is out of range";
    if (*ret_why)
        return SESSIOND_INVALID;
    *(uint64_t *)field = (uint64_t)number;
    return 0;
}

static int read_path(const struct setting *setting, void *field, const json_t *value, const char **ret_why)
{
    (void)setting;
    if (json_is_string(value))
        return replace_text(field, json_string_value(value));
    *ret_why = "it has to be a text";
    return SESSIOND_INVALID;
}

static int read_level(const struct setting *setting, void *field, const json_t *value, const char **ret_why)
{
    (void)setting;
    if (json_is_string(value) && log_level_of(json_string_value(value), field))
        return 0;
    *ret_why = "it is one of error, warning, info, debug";
    return SESSIOND_INVALID;
}

static int read_who(const struct setting *setting, void *field, const json_t *value, const char **ret_why)
{
    struct who *who;
    int r = read_ids(&who, value, ret_why);

    (void)setting;
    if (r)
        return r;
    who_free(*(struct who **)field);
    *(struct who **)field = who;
    return 0;
}

static int read_shared(const struct setting *setting, void *field, const json_t *value, const char **ret_why)
{
    struct shared_stores *shared;
    int r;

    (void)setting;
    if (!json_is_object(value)) {
        *ret_why = "it has to be an object with an object for each store";
        return SESSIOND_INVALID;
    }
    shared = calloc(1, sizeof(*shared) + json_object_size(value) * sizeof(shared->stores[0]));
    r = shared && (shared->text = json_dumps(value, 0)) ? read_stores(shared, value, ret_why)
                                                        : fault(ENOMEM, "configuration");
    if (r) {
        shared_free(shared);
        return r;
    }
    shared_free(*(struct shared_stores **)field);
    *(struct shared_stores **)field = shared;
    return 0;
}

static json_t *show_number(const void *field)
{
    return json_integer((json_int_t) * (const uint64_t *)field);
}

static const char *text_of_path(const void *field)
{
    const char *path = *(char *const *)field;

    return path ? path : "";
}

static json_t *show_path(const void *field)
{
    return json_string(text_of_path(field));
}

static const char *text_of_who(const void *field)
{
    const struct who *who = *(struct who *const *)field;

    return who ? who->text : "[]";
}

static const char *text_of_shared(const void *field)
{
    const struct shared_stores *shared = *(struct shared_stores *const *)field;

    return shared ? shared->text : "{}";
}

static json_t *show_who(const void *field)
{
    return json_loads(text_of_who(field), 0, NULL);
}

static json_t *show_shared(const void *field)
{
    return json_loads(text_of_shared(field), 0, NULL);
}

static json_t *show_level(const void *field)
{
    return json_string(log_level_name(*(const enum log_level *)field));
}

/* Of those that can change at once. What they replace is dropped. */
static void take_number(void *into, void *from)
{
    __atomic_store_n((uint64_t *)into, *(uint64_t *)from, __ATOMIC_RELAXED);
}

static void take_level(void *into, void *from)
{
    __atomic_store_n((enum log_level *)into, *(enum log_level *)from, __ATOMIC_RELAXED);
    log_set_level(*(enum log_level *)from);
}

static void take_path(void *into, void *from)
{
    free(*(char **)into);
    *(char **)into = TAKE(*(char **)from);
}

/* All that is owned is behind one pointer, so that it changes hands: what was there is dropped with `from`. */
static void swap_pointers(void *into, void *from)
{
    void *before = *(void **)into;

    *(void **)into = *(void **)from;
    *(void **)from = before;
}

static void drop_who(void *field)
{
    who_free(TAKE(*(struct who **)field));
}

static void drop_shared(void *field)
{
    shared_free(TAKE(*(struct shared_stores **)field));
}

static void drop_path(void *field)
{
    free(TAKE(*(char **)field));
}

/* To add a kind: a line here. `read` sets the field, or says why not. */
static const struct {
    int (*read)(const struct setting *setting, void *field, const json_t *value, const char **ret_why);
    json_t *(*show)(const void *field); /* Return: a new reference, NULL without memory */
    void (*take)(void *into, void *from);
    void (*drop)(void *field); /* NULL: it owns nothing */
    const char *form;          /* for people; NULL: a number */
} kinds[] = {
    [SETTING_NUMBER] = {read_number, show_number, take_number, NULL, NULL},
    [SETTING_PATH] = {read_path, show_path, take_path, drop_path, "a path"},
    [SETTING_LEVEL] = {read_level, show_level, take_level, NULL, "error, warning, info or debug"},
    [SETTING_WHO] = {read_who, show_who, swap_pointers, drop_who, "a list of uids, \"user\" and \"%group\""},
    [SETTING_SHARED] =
        {read_shared, show_shared, swap_pointers, drop_shared,
         "{name: {\"read\": […], \"append\": […], \"change\": […]}}, each such a list; who may append may "
         "read, who may change may append"},
};

const char *config_text(const struct config *config, const struct setting *setting)
{
    const void *field = field_of(config, setting);

    if (setting->kind == SETTING_WHO || setting->kind == SETTING_SHARED)
        return setting->kind == SETTING_WHO ? text_of_who(field) : text_of_shared(field);
    return setting->kind == SETTING_PATH
               ? text_of_path(field)
               : log_level_name(__atomic_load_n((const enum log_level *)field, __ATOMIC_RELAXED));
}

void config_init(struct config *config)
{
    *config = (struct config){.log_level = LOG_LEVEL_INFO};
    for (const struct setting *setting = config_settings; setting->name; setting++)
        if (setting->kind == SETTING_NUMBER)
            *(uint64_t *)field_of(config, setting) = setting->initial;
}

void config_deinit(struct config *config)
{
    free(TAKE(config->file));
    for (const struct setting *setting = config_settings; setting->name; setting++)
        if (kinds[setting->kind].drop)
            kinds[setting->kind].drop(field_of(config, setting));
}

int config_set_flag(struct config *config, const char *name, const char *value)
{
    const struct setting *setting = setting_of(name);
    json_t *text = json_string(value);
    const char *why = NULL;
    int r = text ? kinds[setting->kind].read(setting, field_of(config, setting), text, &why) : 0;

    if (!text)
        why = "it is no UTF-8";
    json_decref(text);
    if (why) {
        log_error("flag_refused name=\"%s\" why=\"%s\"", name, why);
        return SESSIOND_INVALID;
    }
    *origin_of(config, setting) = (struct config_origin){CONFIG_FLAG, 0};
    return r;
}

/* ---- the file ---- */

/* A file that is being read. jansson does not say where a key stands, but it keeps keys in their order: the text is
 * looked through again for the key that was the n-th. Whoever looks into an object within counts its keys, too. */
struct reading {
    const char *path;
    struct buf text;
    size_t n_keys; /* that were looked at so far, in the order of the text */
};

struct place {
    int line, column; /* from 1; columns in characters */
};

static const char *end_of_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at + 1;
}

/* Where the n-th key of a valid text begins: a string with a colon behind it. */
static const char *find_key(const char *at, const char *end, size_t n)
{
    while (at < end) {
        const char *after;

        if (*at != '"') {
            at++;
            continue;
        }
        after = end_of_string(at, end);
        while (after < end && strchr(" \t\r\n", *after))
            after++;
        if (after < end && *after == ':' && --n == 0)
            return at;
        at = after;
    }
    return end;
}

static struct place place_of(const struct reading *reading)
{
    const char *text = reading->text.data, *key = find_key(text, text + reading->text.size, reading->n_keys);
    struct place place = {1, 1};

    for (const char *at = text; at < key; at++) {
        if (*at == '\n')
            place = (struct place){place.line + 1, 1};
        else if (((unsigned char)*at & 0xc0) != 0x80) /* a character's first byte */
            place.column++;
    }
    return place;
}

static int refuse_key(const struct reading *reading, const char *key, const char *why)
{
    struct place place = place_of(reading);

    log_error("config_refused file=\"%s\" line=%d column=%d key=\"%s\" why=\"%s\"", reading->path, place.line,
              place.column, key, why);
    return SESSIOND_INVALID;
}

static int refuse_file(const char *path, const char *why)
{
    log_error("config_refused file=\"%s\" why=\"%s\"", path, why);
    return SESSIOND_INVALID;
}

static int read_key(struct config *config, const struct reading *reading, const char *key, const json_t *value)
{
    const struct setting *setting = setting_of(key);
    struct config ignored = {0};
    const char *why = NULL;
    bool by_flag;
    int r;

    if (!setting)
        return refuse_key(reading, key, "there is no such setting");
    by_flag = origin_of(config, setting)->source == CONFIG_FLAG; /* it must be right all the same */
    r = kinds[setting->kind].read(setting, field_of(by_flag ? &ignored : config, setting), value, &why);
    if (by_flag)
        config_deinit(&ignored);
    else if (r == 0)
        *origin_of(config, setting) = (struct config_origin){CONFIG_FILE, place_of(reading).line};
    return why ? refuse_key(reading, key, why) : r;
}

/* Return: 0, SESSIOND_NOT_FOUND, SESSIOND_INVALID or a fault. */
static int read_all(struct buf *ret, const char *path)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? SESSIOND_NOT_FOUND : refuse_file(path, strerrordesc_np(errno));
    do {
        char *room = buf_reserve(ret, 4096);

        if (!room)
            return fault(ENOMEM, "configuration");
        n = read(fd, room, 4096);
        if (n < 0)
            return refuse_file(path, strerrordesc_np(errno));
        buf_grow(ret, (size_t)n);
    } while (n > 0 && ret->size <= FILE_MAX);
    return ret->size > FILE_MAX ? refuse_file(path, "it has more than a megabyte") : 0;
}

static int read_keys(struct config *config, struct reading *reading, json_t *root)
{
    const char *key;
    json_t *value;
    int r;

    if (!json_is_object(root))
        return refuse_file(reading->path, "it has to be one JSON object");
    json_object_foreach(root, key, value)
    {
        reading->n_keys++;
        if ((r = read_key(config, reading, key, value)))
            return r;
    }
    return 0;
}

static int read_text(struct config *config, struct reading *reading)
{
    json_error_t error;
    json_t *root = json_loadb(reading->text.data, reading->text.size, JSON_REJECT_DUPLICATES, &error);
    int r;

    if (!root) {
        log_error("config_refused file=\"%s\" line=%d column=%d why=\"%s\"", reading->path, error.line, error.column,
                  error.text);
        return SESSIOND_INVALID;
    }
    r = read_keys(config, reading, root);
    json_decref(root);
    return r;
}

int config_read(struct config *config, const char *path)
{
    bool may_be_missing = path && path[0] == '-';
    struct reading reading = {.path = may_be_missing ? path + 1 : path};
    int r;

    if (!path)
        return 0;
    r = read_all(&reading.text, reading.path);
    if (r == SESSIOND_NOT_FOUND)
        r = may_be_missing ? 0 : refuse_file(reading.path, "there is no such file");
    else if (r == 0)
        r = read_text(config, &reading);
    buf_deinit(&reading.text);
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
        if (origin_of(config, setting)->source == CONFIG_FLAG)
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
            *origin_of(config, setting) = *origin_of(next, setting);
        } else if (setting->when == SETTING_AT_ONCE) {
            kinds[setting->kind].take(field_of(config, setting), field_of(next, setting));
            *origin_of(config, setting) = *origin_of(next, setting);
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
        json_t *value = kinds[setting->kind].show(field_of(config, setting));
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
            buf_printf(ret, "    %s; default %s; changes %s\n", kinds[setting->kind].form, setting->initial_text, when);
    }
}
