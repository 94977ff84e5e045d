/*
 * Any text, and three opinions on whether it is JSON. json_check_item must agree with jansson and with SQLite, except:
 *
 *   jansson refuses   integers over 2^63-1 and numbers over 1.8e308; escapes of lone surrogates; \u0000 in a key.
 *   both take         arrays at the top; tabs and line ends between tokens; more than 512 levels. (We do not.)
 *   SQLite 3.40 takes scalars at the top; any bytes for UTF-8; NaN and Infinity in several spellings. It ends at a
 *                     NUL byte, so it is not asked about texts that have one. And it takes an object or array for a key
 *                     if the last thing inside it is a string: {["a"]:1}.
 */
#include <stdbool.h>
#include <string.h>

#include <jansson.h>
#include <sqlite3.h>

#include "fuzz.h"
#include "json.h"
#include "proto.h"
#include "utf8.h"

static bool has_control_byte(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] < 0x20)
            return true;
    return false;
}

static bool begins_as_object(const uint8_t *data, size_t size)
{
    size_t i = 0;

    while (i < size && data[i] == ' ')
        i++;
    return i < size && data[i] == '{';
}

/* jansson stops at 2,048 levels, so this does not go deeper. */
static unsigned depth_of(json_t *json)
{
    unsigned depth = 0, inner;
    const char *key;
    json_t *value;
    size_t i;

    json_object_foreach(json, key, value)
    {
        inner = depth_of(value);
        depth = inner > depth ? inner : depth;
    }
    json_array_foreach (json, i, value) {
        inner = depth_of(value);
        depth = inner > depth ? inner : depth;
    }
    return depth + (json_is_object(json) || json_is_array(json));
}

static bool is_known_refusal(const json_error_t *error)
{
    return json_error_code(error) == json_error_numeric_overflow ||
           json_error_code(error) == json_error_null_byte_in_key || strncmp(error->text, "invalid Unicode", 15) == 0;
}

static void compare_with_jansson(const uint8_t *data, size_t size, bool taken)
{
    json_error_t error;
    json_t *json = json_loadb((const char *)data, size, JSON_ALLOW_NUL, &error);

    if (taken)
        MUST(json || is_known_refusal(&error));
    else if (json)
        MUST(!json_is_object(json) || has_control_byte(data, size) || depth_of(json) > PROTO_JSON_DEPTH_MAX);
    json_decref(json);
}

static bool sqlite_takes(const uint8_t *data, size_t size)
{
    static sqlite3_stmt *statement; /* lives as long as the process */
    sqlite3 *db;
    bool taken;

    if (!statement) {
        MUST(sqlite3_open(":memory:", &db) == SQLITE_OK);
        MUST(sqlite3_prepare_v2(db, "SELECT json_valid(?)", -1, &statement, NULL) == SQLITE_OK);
    }
    MUST(sqlite3_bind_text64(statement, 1, (const char *)data, size, SQLITE_STATIC, SQLITE_UTF8) == SQLITE_OK);
    MUST(sqlite3_step(statement) == SQLITE_ROW);
    taken = sqlite3_column_int(statement, 0) != 0;
    MUST(sqlite3_reset(statement) == SQLITE_OK);
    MUST(sqlite3_clear_bindings(statement) == SQLITE_OK);
    return taken;
}

/* The names that SQLite takes for numbers begin with an I, N, Q or S where a value begins, in either case. */
static bool has_name_of_number(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (strchr("iInNqQsS", data[i]) && !(size - i >= 4 && memcmp(data + i, "null", 4) == 0))
            return true;
    return false;
}

/* Whether what we found wrong is one of the things that SQLite takes in our place. */
static bool is_known_lapse(const uint8_t *data, size_t size, const char *why, size_t wrong_at)
{
    bool container = wrong_at < size && (data[wrong_at] == '{' || data[wrong_at] == '[');

    return !begins_as_object(data, size) || has_control_byte(data, size) || has_name_of_number(data, size) ||
           !utf8_valid((struct slice){(const char *)data, size}) || strstr(why, "512 levels") ||
           (container && strstr(why, "a key in double quotes"));
}

static void compare_with_sqlite(const uint8_t *data, size_t size, const char *why, size_t wrong_at)
{
    if (memchr(data, '\0', size))
        return;
    if (!why)
        MUST(sqlite_takes(data, size));
    else if (sqlite_takes(data, size))
        MUST(is_known_lapse(data, size, why, wrong_at));
}

/* A shorter text cannot be an item as well, but for the spaces at its end. */
static void check_shorter(const uint8_t *data, size_t size)
{
    size_t wrong_at;

    while (size > 0 && data[size - 1] == ' ')
        size--;
    MUST(json_check_item((struct slice){(const char *)data, size}, &wrong_at) == NULL);
    MUST(json_check_item((struct slice){(const char *)data, size - 1}, &wrong_at) != NULL);
    MUST(wrong_at == size - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t wrong_at = 0, again = 0;
    const char *why = json_check_item((struct slice){(const char *)data, size}, &wrong_at);

    if (why) {
        MUST(wrong_at <= size && *why);
        MUST(json_check_item((struct slice){(const char *)data, size}, &again) == why && again == wrong_at);
    } else {
        MUST(begins_as_object(data, size) && !has_control_byte(data, size));
        check_shorter(data, size);
    }
    compare_with_jansson(data, size, !why);
    compare_with_sqlite(data, size, why, wrong_at);
    return 0;
}
