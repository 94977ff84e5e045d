/*
 * Any bytes, as frames one after another: scanned, parsed, and read by the tables of all methods and of answers. What
 * is read must keep what the table promises and lie inside the frame; what is refused must come with a plain reason.
 */
#include <stdbool.h>
#include <string.h>

#include "frame.h"
#include "fuzz.h"
#include "json.h"
#include "message.h"
#include "utf8.h"

enum { FIELDS_MAX = 9 };

/* A field's value, of whichever type. The tables below have no offsets: a field's place is its index. */
union slot {
    struct slice text;
    struct number number;
    bool boolean;
    struct text_list list;
    const struct value *value;
};

/* clang-format off */
#define SESSION {"session", FIELD_TEXT, FIELD_REQUIRED, 0, 1, PROTO_SESSION_MAX}
#define STORE {"store", FIELD_TEXT, FIELD_NIL, 0, 1, PROTO_STORE_MAX + 1}
#define ITEMS {"items", FIELD_TEXT_LIST, FIELD_REQUIRED, 0, 0, PROTO_ITEMS_MAX}
#define NUMBER(name) {name, FIELD_NUMBER, FIELD_NIL, 0, 0, 0}
#define BACKUP {"backup", FIELD_TEXT, FIELD_REQUIRED, 0, 32, 32}
#define CHANGE {"key", FIELD_TEXT, FIELD_NIL, 0, 1, PROTO_KEY_MAX}, \
               {"digest", FIELD_TEXT, FIELD_NIL, 0, 1, PROTO_KEY_MAX}, \
               NUMBER("if_revision"), NUMBER("if_epoch"), STORE

static const struct {
    enum message_unknown unknown;
    struct field fields[FIELDS_MAX + 1];
} tables[] = {
    /* hello */
    {MESSAGE_REFUSE_UNKNOWN, {{"client", FIELD_TEXT, FIELD_NIL, 0, 1, PROTO_CLIENT_NAME_MAX},
                              {"protocol", FIELD_VALUE, FIELD_NIL, 0, 0, 0}}},
    /* ping, info, list_stores */
    {MESSAGE_REFUSE_UNKNOWN, {{0}}},
    /* get_items */
    {MESSAGE_REFUSE_UNKNOWN, {SESSION, NUMBER("limit"), NUMBER("after"), NUMBER("before"),
                              {"max_bytes", FIELD_NUMBER, FIELD_NIL, 0, 1, PROTO_ANSWER_MAX}, NUMBER("if_epoch"),
                              STORE}},
    /* list_sessions */
    {MESSAGE_REFUSE_UNKNOWN, {{"after", FIELD_TEXT, FIELD_NIL, 0, 0, PROTO_SESSION_MAX},
                              {"limit", FIELD_NUMBER, FIELD_NIL, 0, 1, PROTO_LIST_MAX},
                              {"prefix", FIELD_TEXT, FIELD_NIL, 0, 0, PROTO_SESSION_MAX}, STORE}},
    /* add_items */
    {MESSAGE_REFUSE_UNKNOWN, {SESSION, ITEMS, CHANGE}},
    /* pop_item, clear_session, delete_session */
    {MESSAGE_REFUSE_UNKNOWN, {SESSION, CHANGE}},
    /* replace_items */
    {MESSAGE_REFUSE_UNKNOWN, {SESSION, {"from_seq", FIELD_NUMBER, FIELD_NIL, 0, 1, 0}, ITEMS, CHANGE}},
    /* recover and backup, backup_read, backup_delete */
    {MESSAGE_REFUSE_UNKNOWN, {STORE}},
    {MESSAGE_REFUSE_UNKNOWN, {BACKUP, {"offset", FIELD_NUMBER, FIELD_REQUIRED, 0, 0, 0}, STORE}},
    {MESSAGE_REFUSE_UNKNOWN, {BACKUP, STORE}},
    /* answers, and the error */
    {MESSAGE_IGNORE_UNKNOWN, {{"code", FIELD_TEXT, FIELD_REQUIRED, 0, 0, 0}, {"message", FIELD_TEXT, 0, 0, 0, 0},
                              NUMBER("item"), NUMBER("limit"), NUMBER("revision"), NUMBER("epoch"),
                              NUMBER("retry_after_ms")}},
    {MESSAGE_IGNORE_UNKNOWN, {{"items", FIELD_TEXT_LIST, FIELD_REQUIRED, 0, 0, 0}, NUMBER("first_seq"),
                              NUMBER("last_seq"), {"more", FIELD_BOOL, FIELD_REQUIRED, 0, 0, 0}}},
    {MESSAGE_IGNORE_UNKNOWN, {{"item", FIELD_TEXT, FIELD_NIL | FIELD_REQUIRED, 0, 0, 0}, NUMBER("seq"),
                              {"erased", FIELD_BOOL, 0, 0, 0, 0}}},
    {MESSAGE_IGNORE_UNKNOWN, {{"sessions", FIELD_VALUE, FIELD_REQUIRED, 0, 0, 0},
                              {"data", FIELD_VALUE, 0, 0, 0, 0}, {"limits", FIELD_VALUE, 0, 0, 0, 0}}},
};
/* clang-format on */

static void must_be_inside(struct slice part, struct slice frame)
{
    MUST(part.size <= frame.size);
    MUST(part.data >= frame.data && part.data + part.size <= frame.data + frame.size);
}

/* A reason goes to people, and onto the wire as a text. */
static void must_be_plain(const char *why)
{
    size_t size = strnlen(why, MESSAGE_WHY_SIZE);

    MUST(size > 0 && size < MESSAGE_WHY_SIZE);
    for (size_t i = 0; i < size; i++)
        MUST(why[i] >= 0x20 && why[i] < 0x7f);
}

static void check_field(const struct field *field, const union slot *slot, struct slice frame)
{
    switch (field->type) {
    case FIELD_TEXT:
        if (!slot->text.data)
            break;
        must_be_inside(slot->text, frame);
        MUST(slot->text.size >= field->min && (!field->max || slot->text.size <= field->max));
        MUST(utf8_valid(slot->text));
        break;
    case FIELD_NUMBER:
        MUST(slot->number.value <= (field->max ? field->max : PROTO_NUMBER_MAX));
        MUST(slot->number.present ? slot->number.value >= field->min : slot->number.value == 0);
        break;
    case FIELD_TEXT_LIST:
        MUST(!field->max || slot->list.n <= field->max);
        for (size_t i = 0; i < slot->list.n; i++)
            must_be_inside(slot->list.texts[i], frame);
        break;
    case FIELD_VALUE:
        MUST(message_element(slot->value, message_n_elements(slot->value)) == NULL);
        break;
    case FIELD_BOOL:
        break;
    }
}

static void read_by(size_t table, const struct message *message, const struct value *map, struct slice frame)
{
    struct field fields[FIELDS_MAX + 1];
    union slot slots[FIELDS_MAX + 1];
    char why[MESSAGE_WHY_SIZE];
    int r;

    memset(slots, 0, sizeof(slots));
    memset(why, 0xff, sizeof(why));
    memcpy(fields, tables[table].fields, sizeof(fields));
    for (size_t i = 0; i <= FIELDS_MAX; i++)
        fields[i].offset = i * sizeof(slots[0]);
    r = message_read(message, map, fields, tables[table].unknown, slots, why);
    MUST(r == 0 || r == SESSIOND_INVALID || r == SESSIOND_TOO_LARGE);
    if (r)
        must_be_plain(why);
    else
        for (size_t i = 0; fields[i].name; i++)
            check_field(&fields[i], &slots[i], frame);
}

/* What is written for people must be JSON, whatever it was; our own checker is the strictest there is. */
static void write_as_json(const struct value *value)
{
    struct buf json = BUF_INIT;
    size_t wrong_at;

    buf_append(&json, "{\"value\":", 9);
    message_to_json(value, &json);
    buf_append(&json, "}", 1);
    MUST(!json.failed);
    MUST(json_check_item(buf_slice(&json), &wrong_at) == NULL);
    buf_deinit(&json);
}

/* A map that is not there reads as an empty one, and that by one table is enough. */
static void read_by_all(const struct message *message, const struct value *map, struct slice frame)
{
    size_t n = map ? sizeof(tables) / sizeof(tables[0]) : 1;

    for (size_t i = 0; i < n; i++)
        read_by(i, message, map, frame);
    write_as_json(map);
}

static void parse(struct slice frame)
{
    struct message message = {0};
    char why[MESSAGE_WHY_SIZE];
    bool answerable;
    int r;

    memset(why, 0xff, sizeof(why));
    r = message_parse(&message, frame, &answerable, why);
    MUST(r == 0 || r == SESSIOND_INVALID);
    MUST(!answerable || (r && message.type == MESSAGE_REQUEST));
    if (r) {
        must_be_plain(why);
        MUST(!message.zone);
        return;
    }
    if (message.type != MESSAGE_RESPONSE) {
        must_be_inside(message.method, frame);
        MUST(utf8_valid(message.method));
    }
    read_by_all(&message, message.params, frame);
    read_by_all(&message, message.error, frame);
    read_by_all(&message, message.result, frame);
    message_deinit(&message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = {(const char *)data, size};

    for (;;) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        if (frame_scan(&scan, rest.data, rest.size) != FRAME_WHOLE)
            return 0;
        parse((struct slice){rest.data, scan.offset});
        rest = (struct slice){rest.data + scan.offset, rest.size - scan.offset};
    }
}
