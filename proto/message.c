#include "message.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include <msgpack.h>

#include "utf8.h"

/* ---- values are msgpack-c's objects, which only this file knows ---- */

static const struct value *value_of(const msgpack_object *object)
{
    return (const struct value *)object;
}

static const msgpack_object *object_of(const struct value *value)
{
    return (const msgpack_object *)value;
}

static bool is_nil(const msgpack_object *object)
{
    return object->type == MSGPACK_OBJECT_NIL;
}

static struct slice text_of(const msgpack_object *object)
{
    return (struct slice){object->via.str.ptr, object->via.str.size};
}

static const char *type_name(const msgpack_object *object)
{
    switch (object->type) {
    case MSGPACK_OBJECT_NIL:
        return "nil";
    case MSGPACK_OBJECT_BOOLEAN:
        return "a boolean";
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return "an integer";
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return "a float";
    case MSGPACK_OBJECT_STR:
        return "a text (str)";
    case MSGPACK_OBJECT_BIN:
        return "bytes (bin)";
    case MSGPACK_OBJECT_ARRAY:
        return "an array";
    case MSGPACK_OBJECT_MAP:
        return "a map";
    case MSGPACK_OBJECT_EXT:
        return "an extension type";
    }
    return "unknown";
}

__attribute__((format(printf, 3, 4))) static int refuse(char *why, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(why, MESSAGE_WHY_SIZE, format, arguments);
    va_end(arguments);
    return code;
}

/* ---- parsing ---- */

enum { ENVELOPE_REQUEST = 4, ENVELOPE_RESPONSE = 4, ENVELOPE_NOTIFICATION = 3 };

/* Parses the bytes into `unpacked`, which is left empty on failure. */
static int unpack(msgpack_unpacked *unpacked, struct slice frame, char *why)
{
    size_t offset = 0;
    msgpack_unpack_return r = msgpack_unpack_next(unpacked, frame.data, frame.size, &offset);

    if (r == MSGPACK_UNPACK_SUCCESS && offset == frame.size)
        return 0;
    msgpack_unpacked_destroy(unpacked);
    /* This result also stands for "too deep", which frame_scan has refused before; so here it is the memory. */
    if (r == MSGPACK_UNPACK_NOMEM_ERROR)
        return -ENOMEM;
    return refuse(why, SESSIOND_INVALID, "the frame is not exactly one MessagePack value");
}

static int parse_msgid(struct message *message, const msgpack_object *object, char *why)
{
    if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER || object->via.u64 > UINT32_MAX)
        return refuse(why, SESSIOND_INVALID, "the msgid must be an integer from 0 to 2^32-1");
    message->msgid = (uint32_t)object->via.u64;
    return 0;
}

static int parse_method(struct message *message, const msgpack_object *object, char *why)
{
    if (object->type != MSGPACK_OBJECT_STR || !utf8_valid(text_of(object)))
        return refuse(why, SESSIOND_INVALID, "the method must be a text (str) in UTF-8");
    message->method = text_of(object);
    return 0;
}

static int parse_params(struct message *message, const msgpack_object *object, char *why)
{
    if (object->type != MSGPACK_OBJECT_ARRAY || object->via.array.size > 1)
        return refuse(why, SESSIOND_INVALID, "params must be an array of exactly one map, or empty");
    if (object->via.array.size == 0)
        return 0;
    if (object->via.array.ptr[0].type != MSGPACK_OBJECT_MAP)
        return refuse(why, SESSIOND_INVALID, "params must hold a map, not %s", type_name(&object->via.array.ptr[0]));
    message->params = value_of(&object->via.array.ptr[0]);
    return 0;
}

static int parse_request(struct message *message, const msgpack_object *parts, bool *ret_answerable, char *why)
{
    int r = parse_msgid(message, &parts[1], why);

    if (r == 0)
        r = parse_method(message, &parts[2], why);
    if (r)
        return r;
    r = parse_params(message, &parts[3], why);
    *ret_answerable = r != 0;
    return r;
}

static int parse_response(struct message *message, const msgpack_object *parts, char *why)
{
    int r = parse_msgid(message, &parts[1], why);

    if (r)
        return r;
    message->error = is_nil(&parts[2]) ? NULL : value_of(&parts[2]);
    message->result = is_nil(&parts[3]) ? NULL : value_of(&parts[3]);
    return 0;
}

static int parse_notification(struct message *message, const msgpack_object *parts, char *why)
{
    int r = parse_method(message, &parts[1], why);

    return r ? r : parse_params(message, &parts[2], why);
}

static int parse_envelope(struct message *message, const msgpack_object *root, bool *ret_answerable, char *why)
{
    const msgpack_object *parts = root->via.array.ptr;
    uint32_t n = root->type == MSGPACK_OBJECT_ARRAY ? root->via.array.size : 0;
    uint64_t type = n > 0 && parts[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER ? parts[0].via.u64 : UINT64_MAX;

    if (type == MESSAGE_REQUEST && n == ENVELOPE_REQUEST) {
        message->type = MESSAGE_REQUEST;
        return parse_request(message, parts, ret_answerable, why);
    }
    if (type == MESSAGE_RESPONSE && n == ENVELOPE_RESPONSE) {
        message->type = MESSAGE_RESPONSE;
        return parse_response(message, parts, why);
    }
    if (type == MESSAGE_NOTIFICATION && n == ENVELOPE_NOTIFICATION) {
        message->type = MESSAGE_NOTIFICATION;
        return parse_notification(message, parts, why);
    }
    return refuse(why, SESSIOND_INVALID,
                  "a message is [0, msgid, method, params], [1, msgid, error, result] or [2, method, params]");
}

int message_parse(struct message *ret, struct slice frame, bool *ret_answerable, char *why)
{
    struct message message = {0};
    bool answerable = false;
    msgpack_unpacked unpacked;
    int r;

    msgpack_unpacked_init(&unpacked);
    *ret_answerable = false;
    r = unpack(&unpacked, frame, why);
    if (r)
        return r;
    r = parse_envelope(&message, &unpacked.data, &answerable, why);
    if (r) {
        msgpack_unpacked_destroy(&unpacked);
        *ret_answerable = answerable;
        if (answerable)
            *ret = (struct message){.type = message.type, .msgid = message.msgid};
        return r;
    }
    message.zone = msgpack_unpacked_release_zone(&unpacked);
    *ret = message;
    return 0;
}

void message_deinit(struct message *message)
{
    if (message->zone)
        msgpack_zone_free(message->zone);
    *message = (struct message){0};
}

/* ---- reading a map by a table ---- */

enum { FIELDS_MAX = 64 }; /* message_read has a bit for each */
enum { SHOWN_KEY_MAX = 40, SHOWN_KEY_SIZE = SHOWN_KEY_MAX + sizeof("...") };

/* A key as it may stand in a message for people, whatever it was. */
static const char *shown_key(char shown[SHOWN_KEY_SIZE], struct slice key)
{
    size_t size = key.size < SHOWN_KEY_MAX ? key.size : SHOWN_KEY_MAX;

    for (size_t i = 0; i < size; i++) {
        shown[i] = key.data[i];
        if (shown[i] < 0x20 || shown[i] >= 0x7f)
            shown[i] = '?';
    }
    (void)snprintf(shown + size, SHOWN_KEY_SIZE - size, "%s", key.size > size ? "..." : "");
    return shown;
}

/* A field with its value and where to put it. */
struct reading {
    const struct message *message; /* in its zone are the lists */
    const struct field *field;
    const msgpack_object *object;
    void *into;
    char *why;
};

static int wrong_type(const struct reading *reading, const char *wanted)
{
    return refuse(reading->why, SESSIOND_INVALID, "\"%s\" must be %s, not %s", reading->field->name, wanted,
                  type_name(reading->object));
}

/* The size of a text in bytes, or of a list in texts. */
static int check_size(const struct reading *reading, uint64_t size, const char *unit)
{
    const struct field *field = reading->field;

    if (size < field->min)
        return refuse(reading->why, SESSIOND_INVALID, "\"%s\" must have at least %" PRIu64 " %s", field->name,
                      field->min, unit);
    if (field->max && size > field->max)
        return refuse(reading->why, SESSIOND_TOO_LARGE, "\"%s\" has %" PRIu64 " %s, the limit is %" PRIu64, field->name,
                      size, unit, field->max);
    return 0;
}

static int read_text(const struct reading *reading)
{
    struct slice text;
    int r;

    if (reading->object->type != MSGPACK_OBJECT_STR)
        return wrong_type(reading, "a text (str)");
    text = text_of(reading->object);
    r = check_size(reading, text.size, "bytes");
    if (r)
        return r;
    if (!utf8_valid(text))
        return refuse(reading->why, SESSIOND_INVALID, "\"%s\" is not valid UTF-8", reading->field->name);
    memcpy(reading->into, &text, sizeof(text));
    return 0;
}

static int read_number(const struct reading *reading)
{
    const struct field *field = reading->field;
    const msgpack_object *object = reading->object;
    uint64_t max = field->max ? field->max : PROTO_NUMBER_MAX;
    struct number number = {.present = true};

    if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER && object->type != MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return wrong_type(reading, "an integer");
    number.value = object->via.u64;
    if (object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER || number.value < field->min || number.value > max)
        return refuse(reading->why, SESSIOND_INVALID, "\"%s\" must be an integer from %" PRIu64 " to %" PRIu64,
                      field->name, field->min, max);
    memcpy(reading->into, &number, sizeof(number));
    return 0;
}

static int read_bool(const struct reading *reading)
{
    if (reading->object->type != MSGPACK_OBJECT_BOOLEAN)
        return wrong_type(reading, "a boolean");
    memcpy(reading->into, &reading->object->via.boolean, sizeof(bool));
    return 0;
}

static int read_text_list(const struct reading *reading)
{
    const msgpack_object_array *array = &reading->object->via.array;
    struct text_list list = {.present = true};
    int r;

    if (reading->object->type != MSGPACK_OBJECT_ARRAY)
        return wrong_type(reading, "an array of texts");
    r = check_size(reading, array->size, "texts");
    if (r)
        return r;
    list.n = array->size;
    if (list.n > 0) {
        list.texts = msgpack_zone_malloc(reading->message->zone, list.n * sizeof(*list.texts));
        if (!list.texts)
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < array->size; i++) {
        if (is_nil(&array->ptr[i]) && reading->field->flags & FIELD_NIL_ELEMENTS) {
            list.texts[i] = (struct slice){0};
            continue;
        }
        if (array->ptr[i].type != MSGPACK_OBJECT_STR)
            return refuse(reading->why, SESSIOND_INVALID, "\"%s\"[%" PRIu32 "] must be a text (str), not %s",
                          reading->field->name, i, type_name(&array->ptr[i]));
        list.texts[i] = text_of(&array->ptr[i]);
    }
    memcpy(reading->into, &list, sizeof(list));
    return 0;
}

static int read_value(const struct reading *reading)
{
    const struct value *value = value_of(reading->object);

    memcpy(reading->into, &value, sizeof(value));
    return 0;
}

static int (*const read_type[])(const struct reading *reading) = {
    [FIELD_TEXT] = read_text,           [FIELD_NUMBER] = read_number, [FIELD_BOOL] = read_bool,
    [FIELD_TEXT_LIST] = read_text_list, [FIELD_VALUE] = read_value,
};

static int read_field(const struct reading *reading)
{
    if (!is_nil(reading->object))
        return read_type[reading->field->type](reading);
    if (reading->field->flags & FIELD_NIL)
        return 0;
    return refuse(reading->why, SESSIOND_INVALID, "\"%s\" must not be nil", reading->field->name);
}

static const struct field *find_field(const struct field *fields, struct slice name)
{
    for (const struct field *field = fields; field->name; field++)
        if (slice_equal(slice_of(field->name), name))
            return field;
    return NULL;
}

static int check_required(const struct field *fields, uint64_t seen, char *why)
{
    for (unsigned i = 0; fields[i].name; i++) {
        assert(i < FIELDS_MAX);
        if (fields[i].flags & FIELD_REQUIRED && !(seen & UINT64_C(1) << i))
            return refuse(why, SESSIOND_INVALID, "\"%s\" is missing", fields[i].name);
    }
    return 0;
}

int message_read(const struct message *message, const struct value *map, const struct field *fields,
                 enum message_unknown unknown, void *into, char *why)
{
    const msgpack_object *object = object_of(map);
    uint32_t n = object && object->type == MSGPACK_OBJECT_MAP ? object->via.map.size : 0;
    char shown[SHOWN_KEY_SIZE];
    uint64_t seen = 0; /* one bit for each field */

    if (object && object->type != MSGPACK_OBJECT_MAP)
        return refuse(why, SESSIOND_INVALID, "this must be a map, not %s", type_name(object));
    for (uint32_t i = 0; i < n; i++) {
        const msgpack_object_kv *pair = &object->via.map.ptr[i];
        const struct field *field;
        struct reading reading;
        uint64_t bit;
        int r;

        if (pair->key.type != MSGPACK_OBJECT_STR)
            return refuse(why, SESSIOND_INVALID, "a key must be a text (str), not %s", type_name(&pair->key));
        field = find_field(fields, text_of(&pair->key));
        if (!field && unknown == MESSAGE_IGNORE_UNKNOWN)
            continue;
        if (!field)
            return refuse(why, SESSIOND_INVALID, "\"%s\" is unknown here", shown_key(shown, text_of(&pair->key)));
        bit = UINT64_C(1) << (field - fields);
        if (seen & bit)
            return refuse(why, SESSIOND_INVALID, "\"%s\" is given twice", field->name);
        seen |= bit;
        reading = (struct reading){message, field, &pair->val, (char *)into + field->offset, why};
        r = read_field(&reading);
        if (r)
            return r;
    }
    return check_required(fields, seen, why);
}

/* ---- single values ---- */

size_t message_n_elements(const struct value *array)
{
    const msgpack_object *object = object_of(array);

    return object && object->type == MSGPACK_OBJECT_ARRAY ? object->via.array.size : 0;
}

const struct value *message_element(const struct value *array, size_t index)
{
    return index < message_n_elements(array) ? value_of(&object_of(array)->via.array.ptr[index]) : NULL;
}

bool message_is_nil(const struct value *value)
{
    return !value || is_nil(object_of(value));
}

struct slice message_text(const struct value *value)
{
    return value && object_of(value)->type == MSGPACK_OBJECT_STR ? text_of(object_of(value)) : (struct slice){0};
}

struct slice message_bytes(const struct value *value)
{
    const msgpack_object *object = object_of(value);

    if (!object || object->type != MSGPACK_OBJECT_BIN)
        return (struct slice){0};
    return (struct slice){object->via.bin.ptr, object->via.bin.size};
}

struct number message_number(const struct value *value)
{
    const msgpack_object *object = object_of(value);

    if (!object || object->type != MSGPACK_OBJECT_POSITIVE_INTEGER || object->via.u64 > PROTO_NUMBER_MAX)
        return (struct number){0};
    return (struct number){true, object->via.u64};
}

/* ---- JSON for people ---- */

static void append_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void append_format(struct buf *buf, const char *format, ...)
{
    char text[64];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    append_text(buf, text);
}

/* Writes the character that `text` begins with. Return: its size. */
static size_t json_character(struct buf *buf, struct slice text)
{
    size_t size = utf8_character(text.data, text.size);
    char c = text.data[0];

    if (size == 0) {
        append_text(buf, "\xef\xbf\xbd"); /* U+FFFD */
        return 1;
    }
    if (c == '"' || c == '\\')
        append_format(buf, "\\%c", c);
    else if (size == 1 && (c < 0x20 || c == 0x7f))
        append_format(buf, "\\u%04x", (unsigned)c);
    else
        buf_append(buf, text.data, size);
    return size;
}

static void json_text(struct buf *buf, struct slice text)
{
    size_t at = 0;

    append_text(buf, "\"");
    while (at < text.size)
        at += json_character(buf, (struct slice){text.data + at, text.size - at});
    append_text(buf, "\"");
}

static void json_value(struct buf *buf, const msgpack_object *object);

static void json_array(struct buf *buf, const msgpack_object_array *array)
{
    append_text(buf, "[");
    for (uint32_t i = 0; i < array->size; i++) {
        append_text(buf, i > 0 ? ", " : "");
        json_value(buf, &array->ptr[i]);
    }
    append_text(buf, "]");
}

/* JSON's keys are texts; of a key that is none, its type has to do. */
static void json_map(struct buf *buf, const msgpack_object_map *map)
{
    append_text(buf, "{");
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object *key = &map->ptr[i].key;

        append_text(buf, i > 0 ? ", " : "");
        json_text(buf, key->type == MSGPACK_OBJECT_STR ? text_of(key) : slice_of(type_name(key)));
        append_text(buf, ": ");
        json_value(buf, &map->ptr[i].val);
    }
    append_text(buf, "}");
}

/* It calls itself for what is inside a container, PROTO_FRAME_DEPTH_MAX deep at most. */
static void json_value(struct buf *buf, const msgpack_object *object)
{
    switch (object->type) {
    case MSGPACK_OBJECT_NIL:
        append_text(buf, "null");
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        append_text(buf, object->via.boolean ? "true" : "false");
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        append_format(buf, "%" PRIu64, object->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        append_format(buf, "%" PRId64, object->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        if (isfinite(object->via.f64))
            append_format(buf, "%.17g", object->via.f64);
        else
            append_text(buf, "null");
        break;
    case MSGPACK_OBJECT_STR:
        json_text(buf, text_of(object));
        break;
    case MSGPACK_OBJECT_BIN:
        json_text(buf, (struct slice){object->via.bin.ptr, object->via.bin.size});
        break;
    case MSGPACK_OBJECT_EXT:
        json_text(buf, (struct slice){object->via.ext.ptr, object->via.ext.size});
        break;
    case MSGPACK_OBJECT_ARRAY:
        json_array(buf, &object->via.array);
        break;
    case MSGPACK_OBJECT_MAP:
        json_map(buf, &object->via.map);
        break;
    }
}

void message_to_json(const struct value *value, struct buf *buf)
{
    if (value)
        json_value(buf, object_of(value));
    else
        append_text(buf, "null");
}

const char *message_library_version(void)
{
    return msgpack_version();
}

/* ---- packing ---- */

static int append_packed(void *buf, const char *data, size_t size)
{
    buf_append(buf, data, size);
    return 0;
}

static msgpack_packer packer_of(struct buf *buf)
{
    return (msgpack_packer){.data = buf, .callback = append_packed};
}

/* MessagePack's counts have 32 bits. Nothing that is over our own limits gets near it, but a caller may be wrong. */
static bool fits(struct buf *buf, size_t n)
{
    if (n > UINT32_MAX)
        buf->failed = true;
    return n <= UINT32_MAX;
}

void pack_nil(struct buf *buf)
{
    msgpack_packer packer = packer_of(buf);

    msgpack_pack_nil(&packer);
}

void pack_bool(struct buf *buf, bool value)
{
    msgpack_packer packer = packer_of(buf);

    if (value)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_false(&packer);
}

void pack_number(struct buf *buf, uint64_t value)
{
    msgpack_packer packer = packer_of(buf);

    msgpack_pack_uint64(&packer, value);
}

void pack_text(struct buf *buf, struct slice text)
{
    msgpack_packer packer = packer_of(buf);

    if (!fits(buf, text.size))
        return;
    msgpack_pack_str(&packer, text.size);
    msgpack_pack_str_body(&packer, text.data, text.size);
}

void pack_bytes(struct buf *buf, struct slice bytes)
{
    msgpack_packer packer = packer_of(buf);

    if (!fits(buf, bytes.size))
        return;
    msgpack_pack_bin(&packer, bytes.size);
    msgpack_pack_bin_body(&packer, bytes.data, bytes.size);
}

void pack_array(struct buf *buf, size_t n)
{
    msgpack_packer packer = packer_of(buf);

    if (fits(buf, n))
        msgpack_pack_array(&packer, n);
}

void pack_map(struct buf *buf, size_t n)
{
    msgpack_packer packer = packer_of(buf);

    if (fits(buf, n))
        msgpack_pack_map(&packer, n);
}

void pack_pair_nil(struct buf *buf, const char *key)
{
    pack_text(buf, slice_of(key));
    pack_nil(buf);
}

void pack_pair_bool(struct buf *buf, const char *key, bool value)
{
    pack_text(buf, slice_of(key));
    pack_bool(buf, value);
}

void pack_pair_number(struct buf *buf, const char *key, uint64_t value)
{
    pack_text(buf, slice_of(key));
    pack_number(buf, value);
}

void pack_pair_text(struct buf *buf, const char *key, struct slice text)
{
    pack_text(buf, slice_of(key));
    pack_text(buf, text);
}

void pack_request(struct buf *buf, uint32_t msgid, const char *method)
{
    pack_array(buf, ENVELOPE_REQUEST);
    pack_number(buf, MESSAGE_REQUEST);
    pack_number(buf, msgid);
    pack_text(buf, slice_of(method));
    pack_array(buf, 1);
}

/* The error comes next, then the result. */
static void pack_response_head(struct buf *buf, uint32_t msgid)
{
    pack_array(buf, ENVELOPE_RESPONSE);
    pack_number(buf, MESSAGE_RESPONSE);
    pack_number(buf, msgid);
}

void pack_response(struct buf *buf, uint32_t msgid)
{
    pack_response_head(buf, msgid);
    pack_nil(buf);
}

void pack_refusal(struct buf *buf, uint32_t msgid)
{
    pack_response_head(buf, msgid);
}

void pack_notification(struct buf *buf, const char *method)
{
    pack_array(buf, ENVELOPE_NOTIFICATION);
    pack_number(buf, MESSAGE_NOTIFICATION);
    pack_text(buf, slice_of(method));
    pack_array(buf, 1);
}
