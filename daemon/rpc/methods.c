#include "rpc/methods.h"

#include <stddef.h>

#include "base/mem.h"
#include "rpc/memory.h"

#define FIELD(name, field, type, flags, min, max)                                                                      \
    {                                                                                                                  \
        name, type, flags, offsetof(struct params, field), min, max                                                    \
    }

/* The rows that many methods share. */
#define SESSION FIELD("session", session, FIELD_TEXT, FIELD_REQUIRED, 1, PROTO_SESSION_MAX)
#define STORE FIELD("store", store, FIELD_TEXT, FIELD_NIL, 1, PROTO_STORE_MAX + 1)
#define NUMBER(name) FIELD(#name, name, FIELD_NUMBER, FIELD_NIL, 0, PROTO_NUMBER_MAX)
#define ITEMS FIELD("items", items, FIELD_TEXT_LIST, FIELD_REQUIRED, 0, PROTO_ITEMS_MAX)
#define META FIELD("meta", meta, FIELD_TEXT_LIST, FIELD_NIL | FIELD_NIL_ELEMENTS, 0, PROTO_META_ITEMS_MAX)
#define WITH_META FIELD("with_meta", with_meta, FIELD_BOOL, FIELD_NIL, 0, 0)
#define CHANGE                                                                                                         \
    FIELD("key", key, FIELD_TEXT, FIELD_NIL, 1, PROTO_KEY_MAX),                                                        \
        FIELD("digest", digest, FIELD_TEXT, FIELD_NIL, 1, PROTO_KEY_MAX), NUMBER(if_revision), NUMBER(if_epoch), STORE
#define BACKUP FIELD("backup", backup, FIELD_TEXT, FIELD_REQUIRED, RANDOM_ID_SIZE, RANDOM_ID_SIZE)

/* clang-format off */
static const struct field no_fields[] = {{0}};
static const struct field hello_fields[] = {
    FIELD("client", client, FIELD_TEXT, FIELD_NIL, 1, PROTO_CLIENT_NAME_MAX),
    FIELD("protocol", protocol, FIELD_VALUE, FIELD_NIL, 0, 0),
    FIELD("owner", owner, FIELD_NUMBER, FIELD_NIL, 0, PROTO_UID_MAX),
    {0}};
static const struct field stats_fields[] = {FIELD("top", top, FIELD_NUMBER, FIELD_NIL, 0, PROTO_TOP_MAX), {0}};
static const struct field get_items_fields[] = {
    SESSION, NUMBER(limit), NUMBER(after), NUMBER(before),
    FIELD("max_bytes", max_bytes, FIELD_NUMBER, FIELD_NIL, 1, PROTO_ANSWER_MAX),
    WITH_META, NUMBER(if_epoch), STORE,
    {0}};
static const struct field add_items_fields[] = {SESSION, ITEMS, META, CHANGE, {0}};
static const struct field pop_item_fields[] = {SESSION, WITH_META, CHANGE, {0}};
static const struct field session_fields[] = {SESSION, CHANGE, {0}};
static const struct field replace_items_fields[] = {
    SESSION, FIELD("from_seq", from_seq, FIELD_NUMBER, FIELD_NIL, 1, PROTO_NUMBER_MAX), ITEMS, META, CHANGE,
    {0}};
static const struct field list_sessions_fields[] = {
    FIELD("after", after_id, FIELD_TEXT, FIELD_NIL, 0, PROTO_SESSION_MAX),
    FIELD("limit", limit, FIELD_NUMBER, FIELD_NIL, 1, PROTO_LIST_MAX),
    FIELD("prefix", prefix, FIELD_TEXT, FIELD_NIL, 0, PROTO_SESSION_MAX),
    STORE,
    {0}};
static const struct field store_fields[] = {STORE, {0}};
static const struct field backup_read_fields[] = {
    BACKUP, FIELD("offset", offset, FIELD_NUMBER, FIELD_REQUIRED, 0, PROTO_NUMBER_MAX), STORE,
    {0}};
static const struct field backup_delete_fields[] = {BACKUP, STORE, {0}};

static const struct method methods[] = {
    {"hello", hello_fields, .answer = hello_answer},
    {"ping", no_fields, .answer = ping_answer},
    {"info", no_fields, JOB_READ, .again = stores_again, .run = stores_run, .answer = info_answer},
    {"stats", stats_fields, .answer = stats_answer},

    {"get_items", get_items_fields, JOB_READ, RIGHT_READ, .recall = memory_recall, .learn = memory_learn,
     .run = get_items_run},
    {"list_sessions", list_sessions_fields, JOB_READ, RIGHT_READ, .run = list_sessions_run},
    {"list_stores", no_fields, JOB_READ, .again = stores_again, .run = stores_run, .answer = list_stores_answer},

    {"add_items", add_items_fields, JOB_CHANGE, RIGHT_APPEND, .check = change_check, .prepare = items_prepare,
     .learn = memory_learn, .run = add_items_run},
    {"pop_item", pop_item_fields, JOB_CHANGE, RIGHT_CHANGE, .frees = true, .check = change_check, .prepare = items_prepare,
     .learn = memory_learn, .run = pop_item_run},
    {"clear_session", session_fields, JOB_CHANGE, RIGHT_CHANGE, .frees = true, .check = change_check, .prepare = items_prepare,
     .learn = memory_learn, .run = clear_session_run},
    {"replace_items", replace_items_fields, JOB_CHANGE, RIGHT_CHANGE, .check = change_check, .prepare = items_prepare,
     .learn = memory_learn, .run = replace_items_run},
    {"delete_session", session_fields, JOB_CHANGE, RIGHT_CHANGE, .frees = true, .check = change_check, .prepare = items_prepare,
     .learn = memory_learn, .run = delete_session_run},

    {"recover", store_fields, JOB_CHANGE, RIGHT_CHANGE, .check = recover_check, .run = recover_run},
    {"backup", store_fields, JOB_STEPS, RIGHT_CHANGE, .check = backup_check, .run = backup_run, .settle = backup_settle,
     .answer = backup_answer},
    {"backup_read", backup_read_fields, .right = RIGHT_CHANGE, .check = backup_read_check, .settle = backup_read_settle},
    {"backup_delete", backup_delete_fields, .right = RIGHT_CHANGE, .check = backup_read_check, .settle = backup_delete_settle,
     .answer = backup_delete_answer},
};
/* clang-format on */

const struct method *method_find(struct slice name)
{
    for (size_t i = 0; i < N_ELEMENTS(methods); i++)
        if (slice_equal(name, slice_of(methods[i].name)))
            return &methods[i];
    return NULL;
}

_Static_assert(N_ELEMENTS(methods) < METRICS_METHODS, "metrics.h has room for all methods");

size_t method_index(const struct method *method)
{
    return (size_t)(method - methods);
}

const char *method_at(size_t index)
{
    return index < N_ELEMENTS(methods) ? methods[index].name : NULL;
}
