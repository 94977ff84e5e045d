/*
 * Runs the golden messages of proto/vectors (its README.md tells the format): bytes -> meaning -> the same bytes.
 * Run it from the top of the repository, as `make test` does.
 */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "frame.h"
#include "message.h"

#define VECTORS "proto/vectors/"

struct vector {
    json_t *json; /* the file */
    const char *name, *direction;
    json_t *meaning; /* inside it */
    struct buf bytes;
};

static glob_t files;

/* ---- reading a vector ---- */

static void append_hex(struct buf *buf, const char *hex)
{
    for (; hex[0] && hex[1]; hex += 2) {
        const char digits[] = {hex[0], hex[1], '\0'};
        char *end;
        char c = (char)strtoul(digits, &end, 16);

        assert_ptr_equal(end, digits + 2);
        buf_append(buf, &c, 1);
    }
    assert_int_equal(hex[0], '\0');
}

static struct vector read_vector(const char *path)
{
    json_error_t error;
    struct vector vector = {.json = json_load_file(path, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error)};
    const char *bytes;

    if (!vector.json)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    vector.name = json_string_value(json_object_get(vector.json, "name"));
    vector.direction = json_string_value(json_object_get(vector.json, "direction"));
    vector.meaning = json_object_get(vector.json, "meaning");
    bytes = json_string_value(json_object_get(vector.json, "bytes"));
    assert_true(vector.name && vector.direction && vector.meaning && bytes);
    append_hex(&vector.bytes, bytes);
    return vector;
}

static void free_vector(struct vector *vector)
{
    json_decref(vector->json);
    buf_deinit(&vector->bytes);
}

static bool is_direction(const struct vector *vector, const char *direction)
{
    return strcmp(vector->direction, direction) == 0;
}

static json_t *part(const struct vector *vector, const char *name)
{
    json_t *json = json_object_get(vector->meaning, name);

    if (!json)
        fail_msg("%s has no %s", vector->name, name);
    return json;
}

static struct slice text_of(const json_t *json)
{
    return (struct slice){json_string_value(json), json_string_length(json)};
}

/* The hexadecimal text of bytes. Return: NULL if the value is something else. */
static const char *hex_of(const json_t *json)
{
    return json_string_value(json_object_get(json, "$bytes"));
}

/* ---- bytes -> meaning ---- */

/* What a field may be read into: one for each type. */
union into {
    struct slice text;
    struct number number;
    bool boolean;
    const struct value *value;
};

static bool is_same(const struct message *message, const struct value *value, json_t *meaning, char *why);

/* How a field with this meaning is read. Arrays, bytes and maps are values, and looked into one by one. */
static struct field field_of(const char *name, const json_t *meaning, size_t offset)
{
    struct field field = {name, FIELD_VALUE, FIELD_REQUIRED, offset, 0, 0};

    if (json_is_string(meaning))
        field.type = FIELD_TEXT;
    else if (json_is_integer(meaning))
        field.type = FIELD_NUMBER;
    else if (json_is_boolean(meaning))
        field.type = FIELD_BOOL;
    else if (json_is_null(meaning))
        field.flags |= FIELD_NIL;
    return field;
}

static bool is_field_same(const struct message *message, const struct field *field, const union into *into,
                          json_t *meaning, char *why)
{
    switch (field->type) {
    case FIELD_TEXT:
        return into->text.data && slice_equal(into->text, text_of(meaning));
    case FIELD_NUMBER:
        return into->number.present && into->number.value == (uint64_t)json_integer_value(meaning);
    case FIELD_BOOL:
        return into->boolean == json_is_true(meaning);
    case FIELD_VALUE:
        return json_is_null(meaning) ? !into->value : is_same(message, into->value, meaning, why);
    case FIELD_TEXT_LIST:
        break;
    }
    return false;
}

/* Reads the map by a table that is made of its meaning: then it has these keys and types, and no others. */
static bool is_map_same(const struct message *message, const struct value *map, json_t *meaning, char *why)
{
    size_t n = json_object_size(meaning), i = 0;
    struct field *fields = calloc(n + 1, sizeof(*fields));
    union into *into = calloc(n + 1, sizeof(*into));
    const char *key;
    json_t *value;
    bool same;

    assert_true(fields && into);
    json_object_foreach(meaning, key, value)
    {
        fields[i] = field_of(key, value, i * sizeof(*into));
        i++;
    }
    same = message_read(message, map, fields, MESSAGE_REFUSE_UNKNOWN, into, why) == 0;
    for (i = 0; same && i < n; i++)
        same = is_field_same(message, &fields[i], &into[i], json_object_get(meaning, fields[i].name), why);
    free(fields);
    free(into);
    return same;
}

static bool is_array_same(const struct message *message, const struct value *array, json_t *meaning, char *why)
{
    bool same = message_n_elements(array) == json_array_size(meaning);

    for (size_t i = 0; same && i < json_array_size(meaning); i++)
        same = is_same(message, message_element(array, i), json_array_get(meaning, i), why);
    return same;
}

static bool is_same(const struct message *message, const struct value *value, json_t *meaning, char *why)
{
    struct buf bytes = BUF_INIT;
    bool same;

    if (hex_of(meaning)) {
        append_hex(&bytes, hex_of(meaning));
        same = message_bytes(value).data && slice_equal(message_bytes(value), buf_slice(&bytes));
        buf_deinit(&bytes);
        return same;
    }
    if (json_is_object(meaning))
        return is_map_same(message, value, meaning, why);
    if (json_is_array(meaning))
        return is_array_same(message, value, meaning, why);
    if (json_is_string(meaning))
        return message_text(value).data && slice_equal(message_text(value), text_of(meaning));
    if (json_is_integer(meaning))
        return message_number(value).present && message_number(value).value == (uint64_t)json_integer_value(meaning);
    return json_is_null(meaning) && message_is_nil(value);
}

/* A map that may be nil, which a message has as NULL. */
static void assert_map(const struct vector *vector, const struct message *message, const struct value *map,
                       const char *name)
{
    json_t *meaning = part(vector, name);
    char why[MESSAGE_WHY_SIZE] = "not the same";

    if (json_is_null(meaning) ? map != NULL : !map || !is_map_same(message, map, meaning, why))
        fail_msg("%s: %s: %s", vector->name, name, why);
}

static void read_request(const struct vector *vector, const struct message *message)
{
    assert_int_equal(message->type, MESSAGE_REQUEST);
    assert_int_equal(message->msgid, json_integer_value(part(vector, "msgid")));
    assert_true(slice_equal(message->method, text_of(part(vector, "method"))));
    assert_map(vector, message, message->params, "params");
}

static void read_response(const struct vector *vector, const struct message *message)
{
    assert_int_equal(message->type, MESSAGE_RESPONSE);
    assert_int_equal(message->msgid, json_integer_value(part(vector, "msgid")));
    assert_map(vector, message, message->error, "error");
    assert_map(vector, message, message->result, "result");
}

static void read_notification(const struct vector *vector, const struct message *message)
{
    assert_int_equal(message->type, MESSAGE_NOTIFICATION);
    assert_true(slice_equal(message->method, text_of(part(vector, "method"))));
    assert_map(vector, message, message->params, "params");
}

/* ---- meaning -> bytes ---- */

static void pack(struct buf *buf, json_t *meaning)
{
    struct buf bytes = BUF_INIT;
    const char *key;
    json_t *value;
    size_t i;

    if (hex_of(meaning)) {
        append_hex(&bytes, hex_of(meaning));
        pack_bytes(buf, buf_slice(&bytes));
        buf_deinit(&bytes);
    } else if (json_is_object(meaning)) {
        pack_map(buf, json_object_size(meaning));
        json_object_foreach(meaning, key, value)
        {
            pack_text(buf, slice_of(key));
            pack(buf, value);
        }
    } else if (json_is_array(meaning)) {
        pack_array(buf, json_array_size(meaning));
        json_array_foreach (meaning, i, value)
            pack(buf, value);
    } else if (json_is_string(meaning)) {
        pack_text(buf, text_of(meaning));
    } else if (json_is_integer(meaning)) {
        pack_number(buf, (uint64_t)json_integer_value(meaning));
    } else if (json_is_boolean(meaning)) {
        pack_bool(buf, json_is_true(meaning));
    } else {
        assert_true(json_is_null(meaning));
        pack_nil(buf);
    }
}

static void write_request(const struct vector *vector, struct buf *buf)
{
    uint32_t msgid = (uint32_t)json_integer_value(part(vector, "msgid"));
    const char *method = json_string_value(part(vector, "method"));

    pack_request(buf, msgid, method);
    if (json_is_null(part(vector, "params")))
        buf->data[buf->size - 1] = (char)0x90; /* an empty array in place of that of one map */
    else
        pack(buf, part(vector, "params"));
}

static void write_response(const struct vector *vector, struct buf *buf)
{
    uint32_t msgid = (uint32_t)json_integer_value(part(vector, "msgid"));

    if (json_is_null(part(vector, "error"))) {
        pack_response(buf, msgid);
        pack(buf, part(vector, "result"));
    } else {
        pack_refusal(buf, msgid);
        pack(buf, part(vector, "error"));
        pack_nil(buf);
    }
}

static void write_notification(const struct vector *vector, struct buf *buf)
{
    pack_notification(buf, json_string_value(part(vector, "method")));
    pack(buf, part(vector, "params"));
}

static const struct {
    const char *name;
    void (*read)(const struct vector *vector, const struct message *message);
    void (*write)(const struct vector *vector, struct buf *buf);
} directions[] = {
    {"request", read_request, write_request},
    {"response", read_response, write_response},
    {"notification", read_notification, write_notification},
};

static size_t direction_of(const struct vector *vector)
{
    for (size_t i = 0; i < sizeof(directions) / sizeof(directions[0]); i++)
        if (is_direction(vector, directions[i].name))
            return i;
    fail_msg("%s has no direction", vector->name);
    return 0;
}

/* ---- the tests: each for every vector ---- */

static void for_each_vector(void (*test)(const struct vector *vector))
{
    for (size_t i = 0; i < files.gl_pathc; i++) {
        struct vector vector = read_vector(files.gl_pathv[i]);

        test(&vector);
        free_vector(&vector);
    }
}

static void is_one_frame(const struct vector *vector)
{
    struct frame_scan scan = FRAME_SCAN_INIT;

    if (frame_scan(&scan, vector->bytes.data, vector->bytes.size) != FRAME_WHOLE || scan.offset != vector->bytes.size)
        fail_msg("%s", vector->name);
}

static void test_each_vector_is_one_frame(void **state)
{
    (void)state;
    for_each_vector(is_one_frame);
}

static void reads_as_meant(const struct vector *vector)
{
    struct message message;
    char why[MESSAGE_WHY_SIZE];
    bool answerable;

    if (message_parse(&message, buf_slice(&vector->bytes), &answerable, why))
        fail_msg("%s: %s", vector->name, why);
    directions[direction_of(vector)].read(vector, &message);
    message_deinit(&message);
}

static void test_the_bytes_of_each_vector_are_read_as_meant(void **state)
{
    (void)state;
    for_each_vector(reads_as_meant);
}

static void packs_as_written(const struct vector *vector)
{
    struct buf buf = BUF_INIT;

    directions[direction_of(vector)].write(vector, &buf);
    assert_false(buf.failed);
    if (!slice_equal(buf_slice(&buf), buf_slice(&vector->bytes)))
        fail_msg("%s is packed in other bytes", vector->name);
    buf_deinit(&buf);
}

static void test_the_meaning_of_each_vector_is_packed_in_its_bytes(void **state)
{
    (void)state;
    for_each_vector(packs_as_written);
}

static void has_the_name_of_its_file(const struct vector *vector)
{
    char path[256];
    FILE *file;

    (void)snprintf(path, sizeof(path), VECTORS "%s.json", vector->name);
    file = fopen(path, "r");
    if (!file)
        fail_msg("there is no %s", path);
    fclose(file);
}

static void test_each_vector_has_the_name_of_its_file(void **state)
{
    (void)state;
    for_each_vector(has_the_name_of_its_file);
}

static void assert_each_has_a_vector(const char *const *names, size_t n,
                                     bool (*fits)(const struct vector *vector, const char *name))
{
    for (size_t i = 0; i < n; i++) {
        bool found = false;

        for (size_t j = 0; j < files.gl_pathc && !found; j++) {
            struct vector vector = read_vector(files.gl_pathv[j]);

            found = fits(&vector, names[i]);
            free_vector(&vector);
        }
        if (!found)
            fail_msg("there is no vector of %s", names[i]);
    }
}

static bool is_request_of(const struct vector *vector, const char *method)
{
    return is_direction(vector, "request") && strcmp(json_string_value(part(vector, "method")), method) == 0;
}

static void test_each_method_has_a_vector(void **state)
{
    static const char *const methods[] = {
        "hello",     "ping",        "info",          "get_items",     "list_sessions",  "list_stores",
        "add_items", "pop_item",    "clear_session", "replace_items", "delete_session", "recover",
        "backup",    "backup_read", "backup_delete", "stats",
    };

    (void)state;
    assert_each_has_a_vector(methods, sizeof(methods) / sizeof(methods[0]), is_request_of);
}

static bool is_error_of(const struct vector *vector, const char *code)
{
    return is_direction(vector, "response") && json_is_object(part(vector, "error")) &&
           strcmp(json_string_value(json_object_get(part(vector, "error"), "code")), code) == 0;
}

static void test_each_code_has_a_vector(void **state)
{
    const char *codes[SESSIOND_N_CODES];

    (void)state;
    for (int code = 1; code < SESSIOND_N_CODES; code++)
        codes[code - 1] = proto_code_name(code);
    assert_each_has_a_vector(codes, SESSIOND_N_CODES - 1, is_error_of);
}

static int find_files(void **state)
{
    (void)state;
    return glob(VECTORS "*.json", 0, NULL, &files);
}

static int forget_files(void **state)
{
    (void)state;
    globfree(&files);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_vector_is_one_frame),
        cmocka_unit_test(test_the_bytes_of_each_vector_are_read_as_meant),
        cmocka_unit_test(test_the_meaning_of_each_vector_is_packed_in_its_bytes),
        cmocka_unit_test(test_each_vector_has_the_name_of_its_file),
        cmocka_unit_test(test_each_method_has_a_vector),
        cmocka_unit_test(test_each_code_has_a_vector),
    };

    return cmocka_run_group_tests_name("vectors", tests, find_files, forget_files);
}
