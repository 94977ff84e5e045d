#include "config/kinds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "sessiond-codes.h"

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
    int r = who_read(&who, value, ret_why);

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
    int r = shared_read(&shared, value, ret_why);

    (void)setting;
    if (r)
        return r;
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

static const char *text_of_level(const void *field)
{
    return log_level_name(__atomic_load_n((const enum log_level *)field, __ATOMIC_RELAXED));
}

static json_t *show_level(const void *field)
{
    return json_string(text_of_level(field));
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

/* To add a kind: a line here. */
const struct kind config_kinds[] = {
    [SETTING_NUMBER] = {.read = read_number, .show = show_number, .take = take_number},
    [SETTING_PATH] = {read_path, show_path, text_of_path, take_path, drop_path, "a path"},
    [SETTING_LEVEL] = {read_level, show_level, text_of_level, take_level, NULL, "error, warning, info or debug"},
    [SETTING_WHO] = {read_who, show_who, text_of_who, swap_pointers, drop_who,
                     "a list of uids, \"user\" and \"%group\""},
    [SETTING_SHARED] =
        {read_shared, show_shared, text_of_shared, swap_pointers, drop_shared,
         "{name: {\"read\": […], \"append\": […], \"change\": […]}}, each such a list; who may append may "
         "read, who may change may append"},
};
