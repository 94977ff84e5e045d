#include "client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        int _r = (expression);                                                                                         \
        if (_r)                                                                                                        \
            return _r;                                                                                                 \
    } while (0)

/* ---- what the methods take: parameters in PROTOCOL.md's order ---- */

struct parameter {
    const char *name;
    enum { PARAMETER_TEXT, PARAMETER_NUMBER, PARAMETER_BOOL, PARAMETER_ITEMS, PARAMETER_META } type;
    size_t offset; /* into struct question */
};

#define TEXT(member)                                                                                                   \
    {                                                                                                                  \
#member, PARAMETER_TEXT, offsetof(struct question, member)                                                     \
    }
#define NUMBER(member)                                                                                                 \
    {                                                                                                                  \
#member, PARAMETER_NUMBER, offsetof(struct question, member)                                                   \
    }
#define ITEMS                                                                                                          \
    {                                                                                                                  \
        "items", PARAMETER_ITEMS, 0                                                                                    \
    }
#define META                                                                                                           \
    {                                                                                                                  \
        "meta", PARAMETER_META, 0                                                                                      \
    }
#define WITH_META                                                                                                      \
    {                                                                                                                  \
        "with_meta", PARAMETER_BOOL, offsetof(struct question, with_meta)                                              \
    }
#define OF_A_CHANGE TEXT(key), TEXT(digest), NUMBER(if_revision), NUMBER(if_epoch), TEXT(store)
#define END                                                                                                            \
    {                                                                                                                  \
        0                                                                                                              \
    }

static const struct parameter none[] = {END};
static const struct parameter get_items[] = {TEXT(session), NUMBER(limit),    NUMBER(after), NUMBER(before),
                                             WITH_META,     NUMBER(if_epoch), TEXT(store),   END};
static const struct parameter add_items[] = {TEXT(session), ITEMS, META, OF_A_CHANGE, END};
static const struct parameter pop_item[] = {TEXT(session), WITH_META, OF_A_CHANGE, END};
static const struct parameter replace_items[] = {TEXT(session), NUMBER(from_seq), ITEMS, META, OF_A_CHANGE, END};
static const struct parameter change[] = {TEXT(session), OF_A_CHANGE, END};
static const struct parameter list_sessions[] = {
    {"after", PARAMETER_TEXT, offsetof(struct question, after_id)}, NUMBER(limit), TEXT(prefix), TEXT(store), END};
static const struct parameter of_store[] = {TEXT(store), END};
static const struct parameter backup_read[] = {TEXT(backup), NUMBER(offset), TEXT(store), END};
static const struct parameter stats[] = {NUMBER(top), END};
static const struct parameter backup_delete[] = {TEXT(backup), TEXT(store), END};

static const struct slice *text_of(const struct question *question, const struct parameter *parameter)
{
    return (const struct slice *)((const char *)question + parameter->offset);
}

static const struct sessiond_number *number_of(const struct question *question, const struct parameter *parameter)
{
    return (const struct sessiond_number *)((const char *)question + parameter->offset);
}

static bool bool_of(const struct question *question, const struct parameter *parameter)
{
    return *(const bool *)((const char *)question + parameter->offset);
}

/* ---- packing ---- */

static bool is_given(const struct question *question, const struct parameter *parameter)
{
    switch (parameter->type) {
    case PARAMETER_TEXT:
        return text_of(question, parameter)->data;
    case PARAMETER_NUMBER:
        return number_of(question, parameter)->given;
    case PARAMETER_BOOL:
        return bool_of(question, parameter);
    case PARAMETER_ITEMS:
        return true;
    case PARAMETER_META:
        return question->meta;
    }
    return false;
}

static void pack_texts(struct buf *buf, const struct sessiond_text *texts, size_t n, bool may_be_nil)
{
    pack_array(buf, n);
    for (size_t i = 0; i < n; i++)
        if (may_be_nil && !texts[i].data)
            pack_nil(buf);
        else
            pack_text(buf, (struct slice){texts[i].data, texts[i].size});
}

static void pack_parameter(struct buf *buf, const struct question *question, const struct parameter *parameter)
{
    pack_text(buf, slice_of(parameter->name));
    switch (parameter->type) {
    case PARAMETER_TEXT:
        pack_text(buf, *text_of(question, parameter));
        break;
    case PARAMETER_NUMBER:
        pack_number(buf, number_of(question, parameter)->value);
        break;
    case PARAMETER_BOOL:
        pack_bool(buf, bool_of(question, parameter));
        break;
    case PARAMETER_ITEMS:
        pack_texts(buf, question->items, question->n_items, false);
        break;
    case PARAMETER_META:
        pack_texts(buf, question->meta, question->n_items, true);
        break;
    }
}

int call_pack(struct call *call, struct sessiond *client)
{
    const struct question *question = &call->question;
    const struct parameter *parameter;
    size_t n = 0;

    for (parameter = call->method->parameters; parameter->name; parameter++)
        n += is_given(question, parameter);
    buf_deinit(&call->frame);
    call->msgid = client->next_msgid++;
    pack_request(&call->frame, call->msgid, call->method->name);
    pack_map(&call->frame, n);
    for (parameter = call->method->parameters; parameter->name; parameter++)
        if (is_given(question, parameter))
            pack_parameter(&call->frame, question, parameter);
    return call->frame.failed ? -ENOMEM : 0;
}

/* ---- reading answers ---- */

static struct sessiond_number some(struct number number)
{
    return (struct sessiond_number){number.present, number.value};
}

/* Makes sure that there are results, with room for all texts of an answer. */
static int make_room(struct call *call, size_t frame_size)
{
    if (!call->results)
        call->results = results_new();
    if (!call->results)
        return -ENOMEM;
    /* In the frame each text has a byte of its own at least, so its NUL byte has room too. */
    return results_add_page(call->results, frame_size);
}

struct items_map {
    struct text_list items, meta;
    struct number first_seq, last_seq, head_seq, revision, epoch, missing;
    bool more;
};

static const struct field items_fields[] = {
    {"items", FIELD_TEXT_LIST, FIELD_REQUIRED, offsetof(struct items_map, items), 0, 0},
    {"meta", FIELD_TEXT_LIST, FIELD_NIL_ELEMENTS, offsetof(struct items_map, meta), 0, 0},
    {"first_seq", FIELD_NUMBER, FIELD_REQUIRED | FIELD_NIL, offsetof(struct items_map, first_seq), 0, 0},
    {"last_seq", FIELD_NUMBER, FIELD_REQUIRED | FIELD_NIL, offsetof(struct items_map, last_seq), 0, 0},
    {"head_seq", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct items_map, head_seq), 0, 0},
    {"revision", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct items_map, revision), 0, 0},
    {"epoch", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct items_map, epoch), 0, 0},
    {"more", FIELD_BOOL, FIELD_REQUIRED, offsetof(struct items_map, more), 0, 0},
    {"missing", FIELD_NUMBER, 0, offsetof(struct items_map, missing), 0, 0},
    {0},
};

/* Copies texts to the call's results, and lists them in `to`: these, or the array beside them. */
static int append_texts(struct call *call, struct results *to, const struct text_list *list)
{
    struct sessiond_text *texts = to ? results_add_elements(to, list->n, sizeof(*texts)) : NULL;

    if (!texts)
        return -ENOMEM;
    for (size_t i = 0; i < list->n; i++)
        texts[i] = results_copy(call->results, list->texts[i]);
    return 0;
}

static int append_items(struct call *call, const struct items_map *map, size_t frame_size)
{
    if (call->question.with_meta && map->meta.n != map->items.n)
        return -EPROTO;
    TRY(make_room(call, frame_size));
    TRY(append_texts(call, call->results, &map->items));
    return call->question.with_meta ? append_texts(call, results_beside(call->results), &map->meta) : 0;
}

/* The pages after the first hold what the session was at the first: nothing younger, and nothing if it lost items. */
static void ask_next_items(struct call *call, const struct items_map *map)
{
    struct question *question = &call->question;
    uint64_t before = call->answer.items.head_seq + 1;

    if (call->asked.before.given && call->asked.before.value < before)
        before = call->asked.before.value;
    question->after = SESSIOND_SOME(map->last_seq.value);
    question->before = SESSIOND_SOME(before);
    question->if_epoch = SESSIOND_SOME(call->answer.items.epoch);
    question->limit = (struct sessiond_number){0};
}

static int read_items(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct sessiond_items *items = &call->answer.items;
    struct items_map map = {0};

    TRY(message_read(message, message->result, items_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    if (map.more && (map.items.n == 0 || !map.last_seq.present))
        return -EPROTO;
    TRY(append_items(call, &map, frame_size));
    if (!call->paging)
        *items = (struct sessiond_items){.first_seq = map.first_seq.value,
                                         .head_seq = map.head_seq.value,
                                         .revision = map.revision.value,
                                         .epoch = map.epoch.value,
                                         .missing = map.missing.value};
    if (map.items.n > 0)
        items->last_seq = map.last_seq.value;
    items->items = (const struct sessiond_text *)call->results->elements;
    items->n_items = call->results->n_elements;
    if (call->results->beside)
        items->meta = (const struct sessiond_text *)call->results->beside->elements;
    items->owner = call->results;
    *ret_more = map.more;
    if (map.more)
        ask_next_items(call, &map);
    return 0;
}

struct changed_map {
    struct slice item, meta;
    struct number seq, first_seq, last_seq, removed, revision, epoch;
    bool erased;
};

static const struct field changed_fields[] = {
    {"item", FIELD_TEXT, FIELD_NIL, offsetof(struct changed_map, item), 0, 0},
    {"meta", FIELD_TEXT, FIELD_NIL, offsetof(struct changed_map, meta), 0, 0},
    {"seq", FIELD_NUMBER, FIELD_NIL, offsetof(struct changed_map, seq), 0, 0},
    {"first_seq", FIELD_NUMBER, FIELD_NIL, offsetof(struct changed_map, first_seq), 0, 0},
    {"last_seq", FIELD_NUMBER, FIELD_NIL, offsetof(struct changed_map, last_seq), 0, 0},
    {"removed", FIELD_NUMBER, FIELD_NIL, offsetof(struct changed_map, removed), 0, 0},
    {"revision", FIELD_NUMBER, FIELD_NIL, offsetof(struct changed_map, revision), 0, 0},
    {"epoch", FIELD_NUMBER, FIELD_NIL, offsetof(struct changed_map, epoch), 0, 0},
    {"erased", FIELD_BOOL, FIELD_NIL, offsetof(struct changed_map, erased), 0, 0},
    {0},
};

static int read_changed(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct changed_map map = {0};

    (void)frame_size;
    (void)ret_more;
    TRY(message_read(message, message->result, changed_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    call->answer.changed = (struct sessiond_changed){.first_seq = map.first_seq.value,
                                                     .last_seq = map.last_seq.value,
                                                     .removed = map.removed.value,
                                                     .revision = map.revision.value,
                                                     .epoch = map.epoch.value};
    return 0;
}

static int read_popped(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct changed_map map = {0};

    (void)ret_more;
    TRY(message_read(message, message->result, changed_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    TRY(make_room(call, frame_size));
    call->answer.popped = (struct sessiond_popped){.item = results_copy(call->results, map.item),
                                                   .seq = map.seq.value,
                                                   .revision = map.revision.value,
                                                   .epoch = map.epoch.value,
                                                   .erased = map.erased,
                                                   .meta = results_copy(call->results, map.meta),
                                                   .owner = call->results};
    return 0;
}

struct list_map {
    const struct value *list;
    bool more;
};

static const struct field sessions_fields[] = {
    {"sessions", FIELD_VALUE, FIELD_REQUIRED, offsetof(struct list_map, list), 0, 0},
    {"more", FIELD_BOOL, FIELD_REQUIRED, offsetof(struct list_map, more), 0, 0},
    {0},
};

struct session_map {
    struct slice id;
    struct number count, bytes, head_seq, revision, epoch, created_us, updated_us;
};

static const struct field session_fields[] = {
    {"id", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct session_map, id), 0, 0},
    {"count", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, count), 0, 0},
    {"bytes", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, bytes), 0, 0},
    {"head_seq", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, head_seq), 0, 0},
    {"revision", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, revision), 0, 0},
    {"epoch", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, epoch), 0, 0},
    {"created_us", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, created_us), 0, 0},
    {"updated_us", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct session_map, updated_us), 0, 0},
    {0},
};

static int read_session(struct call *call, const struct message *message, const struct value *value,
                        struct sessiond_session *session, char *why)
{
    struct session_map map = {0};

    TRY(message_read(message, value, session_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    *session = (struct sessiond_session){.id = results_copy(call->results, map.id),
                                         .count = map.count.value,
                                         .bytes = map.bytes.value,
                                         .head_seq = map.head_seq.value,
                                         .revision = map.revision.value,
                                         .epoch = map.epoch.value,
                                         .created_us = map.created_us.value,
                                         .updated_us = map.updated_us.value};
    return 0;
}

/* How many sessions are still to come, as far as the user has set a limit. */
static uint64_t n_wanted(const struct call *call)
{
    uint64_t n = call->results ? call->results->n_elements : 0;

    return call->asked.limit.given ? call->asked.limit.value - n : UINT64_MAX;
}

/* The next page begins after the last id of this one. The results keep its text as long as it is needed. */
static void ask_next_sessions(struct call *call, const struct sessiond_session *last)
{
    uint64_t wanted = n_wanted(call);

    call->question.after_id = (struct slice){last->id.data, last->id.size};
    call->question.limit = SESSIOND_SOME(wanted < PROTO_LIST_MAX ? wanted : PROTO_LIST_MAX);
}

static int read_sessions(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct sessiond_session *sessions;
    struct list_map map = {0};
    size_t n;

    TRY(message_read(message, message->result, sessions_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    n = message_n_elements(map.list);
    if (n > n_wanted(call) || (map.more && n == 0))
        return -EPROTO;
    TRY(make_room(call, frame_size));
    sessions = results_add_elements(call->results, n, sizeof(*sessions));
    if (!sessions)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        TRY(read_session(call, message, message_element(map.list, i), &sessions[i], why));
    call->answer.sessions =
        (struct sessiond_sessions){.sessions = (const struct sessiond_session *)call->results->elements,
                                   .n_sessions = call->results->n_elements,
                                   .more = map.more,
                                   .owner = call->results};
    *ret_more = map.more && n_wanted(call) > 0;
    if (*ret_more)
        ask_next_sessions(call, &sessions[n - 1]);
    return 0;
}

static const struct field stores_fields[] = {
    {"stores", FIELD_VALUE, FIELD_REQUIRED, offsetof(struct list_map, list), 0, 0},
    {0},
};

struct store_map {
    struct slice name, engine;
    struct number sessions, bytes, missing;
};

static const struct field store_fields[] = {
    {"name", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct store_map, name), 0, 0},
    {"engine", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct store_map, engine), 0, 0},
    {"sessions", FIELD_NUMBER, FIELD_NIL, offsetof(struct store_map, sessions), 0, 0},
    {"bytes", FIELD_NUMBER, FIELD_NIL, offsetof(struct store_map, bytes), 0, 0},
    {"missing", FIELD_NUMBER, FIELD_NIL, offsetof(struct store_map, missing), 0, 0},
    {0},
};

static int read_store(struct call *call, const struct message *message, const struct value *value,
                      struct sessiond_store *store, char *why)
{
    struct store_map map = {0};

    TRY(message_read(message, value, store_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    *store = (struct sessiond_store){.name = results_copy(call->results, map.name),
                                     .engine = results_copy(call->results, map.engine),
                                     .sessions = some(map.sessions),
                                     .bytes = map.bytes.value,
                                     .missing = map.missing.value};
    return 0;
}

static int read_stores(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct sessiond_store *stores;
    struct list_map map = {0};
    size_t n;

    (void)ret_more;
    TRY(message_read(message, message->result, stores_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    TRY(make_room(call, frame_size));
    n = message_n_elements(map.list);
    stores = results_add_elements(call->results, n, sizeof(*stores));
    if (!stores)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        TRY(read_store(call, message, message_element(map.list, i), &stores[i], why));
    call->answer.stores = (struct sessiond_stores){.stores = stores, .n_stores = n, .owner = call->results};
    return 0;
}

struct part_map {
    struct slice backup;
    const struct value *data;
    struct number bytes;
};

static const struct field part_fields[] = {
    {"backup", FIELD_TEXT, FIELD_NIL, offsetof(struct part_map, backup), 0, 0},
    {"data", FIELD_VALUE, FIELD_NIL, offsetof(struct part_map, data), 0, 0},
    {"bytes", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct part_map, bytes), 0, 0},
    {0},
};

static int read_part(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct part_map map = {0};

    (void)ret_more;
    TRY(message_read(message, message->result, part_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    TRY(make_room(call, frame_size));
    call->answer.part = (struct sessiond_backup_part){.backup = results_copy(call->results, map.backup),
                                                      .data = results_copy(call->results, message_bytes(map.data)),
                                                      .bytes = map.bytes.value};
    return 0;
}

static int read_info(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    static const struct field any[] = {{0}}; /* of a map: nothing else is information */
    struct buf json = BUF_INIT;
    int r = -ENOMEM;

    (void)frame_size;
    (void)ret_more;
    if (!message->result)
        return -EPROTO;
    TRY(message_read(message, message->result, any, MESSAGE_IGNORE_UNKNOWN, &json, why));
    message_to_json(message->result, &json);
    if (!json.failed)
        r = make_room(call, json.size + 1);
    if (r == 0)
        call->answer.info = results_copy(call->results, buf_slice(&json));
    buf_deinit(&json);
    return r;
}

struct stats_map {
    struct slice text;
    const struct value *sessions;
};

static const struct field stats_fields[] = {
    {"text", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct stats_map, text), 0, 0},
    {"sessions", FIELD_VALUE, 0, offsetof(struct stats_map, sessions), 0, 0},
    {0},
};

struct busy_map {
    struct number uid, requests;
    struct slice store, session;
};

static const struct field busy_fields[] = {
    {"uid", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct busy_map, uid), 0, 0},
    {"store", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct busy_map, store), 0, 0},
    {"session", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct busy_map, session), 0, 0},
    {"requests", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct busy_map, requests), 0, 0},
    {0},
};

static int read_busy(struct call *call, const struct message *message, const struct value *value,
                     struct sessiond_busy *busy, char *why)
{
    struct busy_map map = {0};

    TRY(message_read(message, value, busy_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    *busy = (struct sessiond_busy){.uid = map.uid.value,
                                   .store = results_copy(call->results, map.store),
                                   .session = results_copy(call->results, map.session),
                                   .requests = map.requests.value};
    return 0;
}

static int read_stats(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    struct stats_map map = {0};
    struct sessiond_busy *sessions;
    size_t n;

    (void)ret_more;
    TRY(message_read(message, message->result, stats_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    TRY(make_room(call, frame_size));
    n = message_n_elements(map.sessions);
    if (n > call->question.top.value)
        return -EPROTO;
    sessions = results_add_elements(call->results, n, sizeof(*sessions));
    if (!sessions)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        TRY(read_busy(call, message, message_element(map.sessions, i), &sessions[i], why));
    call->answer.top = (struct sessiond_top){
        .text = results_copy(call->results, map.text), .sessions = sessions, .n_sessions = n, .owner = call->results};
    return 0;
}

struct recovered_map {
    struct number missing;
};

static const struct field recovered_fields[] = {
    {"missing", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct recovered_map, missing), 0, 0},
    {0},
};

static int read_recovered(struct call *call, const struct message *message, size_t frame_size, bool *ret_more,
                          char *why)
{
    struct recovered_map map = {0};

    (void)frame_size;
    (void)ret_more;
    TRY(message_read(message, message->result, recovered_fields, MESSAGE_IGNORE_UNKNOWN, &map, why));
    call->answer.missing = map.missing.value;
    return 0;
}

static int read_nothing(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why)
{
    (void)call;
    (void)message;
    (void)frame_size;
    (void)ret_more;
    (void)why;
    return 0;
}

/* ---- the methods ---- */

const struct method call_methods[SESSIOND_N_METHODS] = {
    [SESSIOND_PING] = {"ping", false, false, none, read_nothing},
    [SESSIOND_INFO] = {"info", false, false, none, read_info},
    [SESSIOND_GET_ITEMS] = {"get_items", false, false, get_items, read_items},
    [SESSIOND_ADD_ITEMS] = {"add_items", true, false, add_items, read_changed},
    [SESSIOND_POP_ITEM] = {"pop_item", true, false, pop_item, read_popped},
    [SESSIOND_CLEAR_SESSION] = {"clear_session", true, false, change, read_changed},
    [SESSIOND_REPLACE_ITEMS] = {"replace_items", true, false, replace_items, read_changed},
    [SESSIOND_DELETE_SESSION] = {"delete_session", true, false, change, read_changed},
    [SESSIOND_LIST_SESSIONS] = {"list_sessions", false, false, list_sessions, read_sessions},
    [SESSIOND_LIST_STORES] = {"list_stores", false, false, none, read_stores},
    [SESSIOND_RECOVER] = {"recover", false, false, of_store, read_recovered},
    [SESSIOND_BACKUP] = {"backup", false, true, of_store, read_part},
    [SESSIOND_BACKUP_READ] = {"backup_read", false, false, backup_read, read_part},
    [SESSIOND_BACKUP_DELETE] = {"backup_delete", false, false, backup_delete, read_nothing},
    [SESSIOND_STATS] = {"stats", false, false, stats, read_stats},
};

/* ---- the life of a call ---- */

/* Copies a text; NULL stays NULL. */
static int copy_text(struct slice *text, const char *from)
{
    if (!from)
        return 0;
    *text = (struct slice){strdup(from), strlen(from)};
    return text->data ? 0 : -ENOMEM;
}

static int copy_texts(struct call *call, const struct sessiond_call *ask, const char *store)
{
    struct question *question = &call->question;

    TRY(copy_text(&question->store, ask->store ? ask->store : store));
    TRY(copy_text(&question->session, ask->session));
    TRY(copy_text(&question->key, ask->key));
    TRY(copy_text(&question->digest, ask->digest));
    TRY(copy_text(&call->asked.after_id, ask->after_id));
    TRY(copy_text(&question->prefix, ask->prefix));
    return copy_text(&question->backup, ask->backup);
}

static void free_texts(struct call *call)
{
    struct question *question = &call->question;

    free((char *)question->store.data);
    free((char *)question->session.data);
    free((char *)question->key.data);
    free((char *)question->digest.data);
    free((char *)call->asked.after_id.data);
    free((char *)question->prefix.data);
    free((char *)question->backup.data);
}

static int make_key(struct question *question)
{
    char key[SESSIOND_KEY_SIZE];

    TRY(sessiond_make_key(key));
    return copy_text(&question->key, key);
}

/* Asks for the first page. */
static void ask_first(struct call *call)
{
    struct question *question = &call->question;

    question->limit = call->asked.limit;
    question->after = call->asked.after;
    question->before = call->asked.before;
    question->if_epoch = call->asked.if_epoch;
    question->after_id = call->asked.after_id;
    if (call->method == &call_methods[SESSIOND_LIST_SESSIONS] && question->limit.value > PROTO_LIST_MAX)
        question->limit.value = PROTO_LIST_MAX;
}

static int ask(struct call *call, const struct sessiond *client, const struct sessiond_call *ask)
{
    struct question *question = &call->question;

    *question = (struct question){.if_revision = ask->if_revision,
                                  .from_seq = ask->from_seq,
                                  .offset = SESSIOND_SOME(ask->offset),
                                  .top = ask->top,
                                  .items = ask->items,
                                  .meta = ask->meta,
                                  .n_items = ask->n_items,
                                  .with_meta = ask->with_meta};
    TRY(copy_texts(call, ask, client->store));
    call->asked.limit = ask->limit;
    call->asked.after = ask->after;
    call->asked.before = ask->before;
    call->asked.if_epoch = ask->if_epoch;
    ask_first(call);
    return call->method->change && !question->key.data ? make_key(question) : 0;
}

static int check_sizes(struct sessiond *client, const struct sessiond_text *texts, size_t n, size_t limit,
                       const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (texts[i].size <= limit)
            continue;
        (void)failure_set(&client->failure, SESSIOND_TOO_LARGE, "%s %zu has %zu bytes, the limit is %zu", what, i,
                          texts[i].size, limit);
        client->failure.error.item = (int64_t)i;
        client->failure.error.limit = (int64_t)limit;
        return SESSIOND_TOO_LARGE;
    }
    return 0;
}

/* What no daemon would take is not sent: a frame over a limit would cost the connection. */
static int check_items(struct sessiond *client, const struct sessiond_call *ask)
{
    size_t max = ask->meta ? PROTO_META_ITEMS_MAX : PROTO_ITEMS_MAX;

    if (ask->n_items > max) {
        (void)failure_set(&client->failure, SESSIOND_TOO_LARGE, "%zu items in one call are too many, the limit is %zu",
                          ask->n_items, max);
        client->failure.error.limit = (int64_t)max;
        return SESSIOND_TOO_LARGE;
    }
    TRY(check_sizes(client, ask->items, ask->n_items, PROTO_ITEM_MAX, "item"));
    return ask->meta ? check_sizes(client, ask->meta, ask->n_items, PROTO_META_MAX, "meta") : 0;
}

static int check_frame(struct sessiond *client, const struct call *call)
{
    if (call->frame.size <= client->frame_max)
        return 0;
    (void)failure_set(&client->failure, SESSIOND_TOO_LARGE, "the request has %zu bytes, the limit is %zu",
                      call->frame.size, client->frame_max);
    client->failure.error.limit = (int64_t)client->frame_max;
    return SESSIOND_TOO_LARGE;
}

int call_new(struct call **ret, struct sessiond *client, const struct sessiond_call *asked)
{
    struct call *call;
    int r;

    if ((unsigned)asked->method >= SESSIOND_N_METHODS || (asked->n_items > 0 && !asked->items))
        return failure_set(&client->failure, -EINVAL, "there is no such method, or no items where some were promised");
    TRY(check_items(client, asked));
    call = calloc(1, sizeof(*call));
    if (!call)
        return failure_set(&client->failure, -ENOMEM, "no memory for the request");
    call->method = &call_methods[asked->method];
    r = ask(call, client, asked);
    if (r == 0)
        r = call_pack(call, client);
    call->question.items = call->question.meta = NULL;
    if (r < 0)
        (void)failure_set(&client->failure, r, "the request could not be made: %s", strerrordesc_np(-r));
    if (r == 0)
        r = check_frame(client, call);
    if (r) {
        call_free(call);
        return r;
    }
    *ret = call;
    return 0;
}

void call_free(struct call *call)
{
    if (!call)
        return;
    free_texts(call);
    buf_deinit(&call->frame);
    results_free(call->results);
    free(call);
}

void call_restart(struct call *call)
{
    results_free(call->results);
    call->results = NULL;
    call->answer = (union sessiond_answer){0};
    call->paging = false;
    ask_first(call);
}

bool call_same_session(const struct call *a, const struct call *b)
{
    return a->question.session.data && b->question.session.data &&
           slice_equal(a->question.session, b->question.session) && slice_equal(a->question.store, b->question.store);
}
