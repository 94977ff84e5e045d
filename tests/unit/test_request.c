/*
 * Requests from their bytes to the bytes of their answers: every method, on real lanes and a real store, without any
 * socket. Parameters and answers are written as JSON, with ' for ", as people read them.
 */
#include <assert.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <uv.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "frame.h"
#include "rpc/memory.h"
#include "rpc/request.h"
#include "tree.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* ---- a daemon without sockets ---- */

struct fixture {
    uv_loop_t loop;
    struct config config;
    struct daemon daemon;
    struct lanes *lanes;
    struct registry *registry;
    struct owner *owner;
    struct caller *caller;
    char top[32];
    const void *back; /* the job that came back last */
    bool in_order;    /* what the connection would say */
    unsigned n_works; /* pieces of work that a pool would have done */
    uint32_t msgid;
    char *answer; /* owned: of the last request, as text */
};

static void on_jobs(void *arg, struct list *jobs)
{
    struct fixture *f = arg;
    struct list *link;

    while ((link = list_pop(jobs)))
        f->back = CONTAINER_OF(link, struct job, link);
}

static int open_registry(struct fixture *f)
{
    const gid_t group = 1234;

    if (registry_open(&f->registry, &f->config, f->lanes, &sqlite_engine) ||
        registry_owner(f->registry, 1234, &f->owner) || caller_new(&f->caller, f->registry, 1234, &group, 1))
        return -1;
    f->caller->owner = f->owner;
    f->daemon.registry = f->registry;
    f->daemon.lanes = f->lanes;
    return 0;
}

static void close_registry(struct fixture *f)
{
    for (enum account_resource what = 0; what < ACCOUNT_SESSIONS; what++)
        assert_int_equal(f->caller->account->used[what], 0); /* all that was charged was given back */
    caller_release(f->caller);
    registry_close(f->registry);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    (void)snprintf(f->top, sizeof(f->top), "/tmp/sd-XXXXXX");
    config_init(&f->config);
    f->config.state_dir = mkdtemp(f->top);
    f->config.socket_path = f->top;
    f->config.lanes = 1;
    f->config.ballast_bytes = 0;
    f->config.history_bytes = 0;
    f->daemon.config = &f->config;
    memset(f->daemon.instance, 'a', RANDOM_ID_SIZE);
    for (size_t i = 0; i < N(f->daemon.libraries); i++)
        f->daemon.libraries[i].name = f->daemon.libraries[i].version = "x";
    *state = f;
    return uv_loop_init(&f->loop) || memory_open(&f->daemon.memory, f->config.history_bytes) ||
                   lanes_open(&f->lanes, &f->loop, &f->config, on_jobs, f) || open_registry(f)
               ? -1
               : 0;
}

static int set_up_with_histories(void **state)
{
    struct fixture *f;

    if (set_up(state))
        return -1;
    f = *state;
    memory_close(f->daemon.memory);
    f->in_order = true;
    return memory_open(&f->daemon.memory, 1 << 20);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(lanes_stop(f->lanes, clock_monotonic_us() + 60000000), 0);
    lanes_close(f->lanes);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    memory_close(f->daemon.memory);
    close_registry(f);
    remove_tree(f->top);
    free(f->answer);
    free(f);
    return 0;
}

/* ---- requests ---- */

static void pack_json(struct buf *buf, json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;

    if (json_is_object(value)) {
        pack_map(buf, json_object_size(value));
        json_object_foreach(value, key, member)
        {
            pack_text(buf, slice_of(key));
            pack_json(buf, member);
        }
    } else if (json_is_array(value)) {
        pack_array(buf, json_array_size(value));
        json_array_foreach (value, i, member)
            pack_json(buf, member);
    } else if (json_is_string(value)) {
        pack_text(buf, (struct slice){json_string_value(value), json_string_length(value)});
    } else if (json_is_integer(value) && json_integer_value(value) < 0) {
        buf_append(buf, &(char){(char)json_integer_value(value)}, 1); /* MessagePack's short form: -32 to -1 */
    } else if (json_is_integer(value)) {
        pack_number(buf, (uint64_t)json_integer_value(value));
    } else if (json_is_boolean(value)) {
        pack_bool(buf, json_is_true(value));
    } else {
        pack_nil(buf);
    }
}

static json_t *read_json(const char *text)
{
    char *copy = strdup(text);
    json_error_t error;
    json_t *value;

    for (char *at = copy; *at; at++)
        if (*at == '\'')
            *at = '"';
    value = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value)
        fail_msg("%s: %s", text, error.text);
    free(copy);
    return value;
}

/* Takes `frame`. */
static struct request *new_request(struct fixture *f, struct buf *frame)
{
    char why[MESSAGE_WHY_SIZE] = "";
    struct request *request;
    int r = request_new(&request, &f->daemon, f->caller, frame->data, frame->size, why);

    if (r)
        fail_msg("%d: %s", r, why);
    request->in_order = f->in_order;
    return request;
}

static struct request *make_request(struct fixture *f, const char *method, const char *params)
{
    json_t *value = read_json(params);
    struct buf frame = BUF_INIT;

    pack_request(&frame, ++f->msgid, method);
    pack_json(&frame, value);
    json_decref(value);
    return new_request(f, &frame);
}

static void wait_for(struct fixture *f, const struct request *request)
{
    while (f->back != &request->job)
        uv_run(&f->loop, UV_RUN_ONCE);
    f->back = NULL;
}

static void drive(struct fixture *f, struct request *request)
{
    for (;;) {
        switch (request_step(request)) {
        case REQUEST_WORK:
            f->n_works++;
            request_work(request);
            break;
        case REQUEST_WAIT:
            wait_for(f, request);
            break;
        case REQUEST_DONE:
            return;
        }
    }
}

/* The answer as text: the result, or "refused: " and the error. It must be one whole response to this request. Frees
 * the request. */
static const char *take_answer(struct fixture *f, struct request *request)
{
    struct frame_scan scan = FRAME_SCAN_INIT;
    struct buf text = BUF_INIT;
    struct message message;
    bool answerable;
    char why[MESSAGE_WHY_SIZE];

    request_own_reply(request);
    assert_false(request->reply.failed);
    assert_int_equal(frame_scan(&scan, request->reply.data, request->reply.size), FRAME_WHOLE);
    assert_int_equal(scan.offset, request->reply.size);
    assert_int_equal(message_parse(&message, buf_slice(&request->reply), &answerable, why), 0);
    assert_int_equal(message.type, MESSAGE_RESPONSE);
    assert_int_equal(message.msgid, request->message.msgid);
    assert_true(!message.error != !message.result);
    if (message.error)
        buf_append(&text, "refused: ", 9);
    message_to_json(message.error ? message.error : message.result, &text);
    buf_append(&text, "", 1);
    for (char *at = text.data; *at; at++)
        if (*at == '"')
            *at = '\'';
    message_deinit(&message);
    request_free(request);
    free(f->answer);
    f->answer = text.data;
    return f->answer;
}

static const char *ask(struct fixture *f, const char *method, const char *params)
{
    struct request *request = make_request(f, method, params);

    drive(f, request);
    return take_answer(f, request);
}

#define expect(f, method, params, wanted) assert_string_equal(ask(f, method, params), wanted)

/* Refused with this code, for a reason that has these words in it. */
static void expect_refusal(struct fixture *f, const char *method, const char *params, const char *code,
                           const char *words)
{
    const char *answer = ask(f, method, params);
    char start[64];

    (void)snprintf(start, sizeof(start), "refused: {'code': '%s', ", code);
    if (strncmp(answer, start, strlen(start)) != 0 || !strstr(answer, words))
        fail_msg("%s %s: %s", method, params, answer);
}

/* A member of the last answer, as JSON; the caller owns it. */
static json_t *member_of_answer(struct fixture *f, const char *name)
{
    json_t *answer = read_json(f->answer), *member = json_incref(json_object_get(answer, name));

    json_decref(answer);
    assert_non_null(member);
    return member;
}

/* ---- methods ---- */

static void test_a_conversation(void **state)
{
    struct fixture *f = *state;

    expect(
        f, "get_items", "{'session': 's'}",
        "{'items': [], 'first_seq': null, 'last_seq': null, 'head_seq': 0, 'revision': 0, 'epoch': 0, 'more': false}");
    expect(f, "add_items", "{'session': 's', 'items': ['{}', '{ }', '{  }']}",
           "{'first_seq': 1, 'last_seq': 3, 'revision': 1, 'epoch': 1}");
    expect(
        f, "get_items", "{'session': 's', 'limit': 2}",
        "{'items': ['{ }', '{  }'], 'first_seq': 2, 'last_seq': 3, 'head_seq': 3, 'revision': 1, 'epoch': 1, 'more': "
        "false}");
    expect(
        f, "get_items", "{'session': 's', 'after': 1, 'before': 3}",
        "{'items': ['{ }'], 'first_seq': 2, 'last_seq': 2, 'head_seq': 3, 'revision': 1, 'epoch': 1, 'more': false}");
    expect(f, "get_items", "{'session': 's', 'max_bytes': 1}",
           "{'items': ['{}'], 'first_seq': 1, 'last_seq': 1, 'head_seq': 3, 'revision': 1, 'epoch': 1, 'more': true}");
    expect(f, "pop_item", "{'session': 's'}", "{'item': '{  }', 'seq': 3, 'revision': 2, 'epoch': 2}");
    expect(f, "replace_items", "{'session': 's', 'from_seq': 2, 'items': ['{   }']}",
           "{'removed': 1, 'first_seq': 4, 'last_seq': 4, 'revision': 3, 'epoch': 3}");
    expect(
        f, "get_items", "{'session': 's'}",
        "{'items': ['{}', '{   }'], 'first_seq': 1, 'last_seq': 4, 'head_seq': 4, 'revision': 3, 'epoch': 3, 'more': "
        "false}");
    expect(f, "clear_session", "{'session': 's'}", "{'removed': 2, 'revision': 4, 'epoch': 4}");
    expect(f, "pop_item", "{'session': 's'}", "{'item': null, 'seq': null, 'revision': 4, 'epoch': 4}");
    expect(
        f, "get_items", "{'session': 's'}",
        "{'items': [], 'first_seq': null, 'last_seq': null, 'head_seq': 4, 'revision': 4, 'epoch': 4, 'more': false}");
    expect(f, "delete_session", "{'session': 's'}", "{'removed': 0}");
    expect(
        f, "get_items", "{'session': 's'}",
        "{'items': [], 'first_seq': null, 'last_seq': null, 'head_seq': 0, 'revision': 0, 'epoch': 0, 'more': false}");
}

static void test_changes_of_nothing(void **state)
{
    struct fixture *f = *state;

    expect(f, "add_items", "{'session': 's', 'items': []}",
           "{'first_seq': null, 'last_seq': null, 'revision': 0, 'epoch': 0}");
    expect(f, "replace_items", "{'session': 's', 'items': []}",
           "{'removed': 0, 'first_seq': null, 'last_seq': null, 'revision': 0, 'epoch': 0}");
    expect(f, "pop_item", "{'session': 's'}", "{'item': null, 'seq': null, 'revision': 0, 'epoch': 0}");
    expect(f, "clear_session", "{'session': 's'}", "{'removed': 0, 'revision': 0, 'epoch': 0}");
    expect(f, "delete_session", "{'session': 's'}", "{'removed': 0}");
    expect(f, "list_stores", "{}", "{'stores': []}"); /* none of these makes a store */
}

static void test_preconditions(void **state)
{
    struct fixture *f = *state;
    static const char *const refusal =
        "refused: {'code': 'conflict', 'message': 'if_revision or if_epoch does not fit; "
        "nothing was changed', 'revision': 1, 'epoch': 1}";

    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'if_revision': 0}");
    expect(f, "add_items", "{'session': 's', 'items': ['{}'], 'if_revision': 0}", refusal);
    expect(f, "pop_item", "{'session': 's', 'if_epoch': 2}", refusal);
    expect(f, "clear_session", "{'session': 's', 'if_revision': 1, 'if_epoch': 0}", refusal);
    expect(f, "replace_items", "{'session': 's', 'items': [], 'if_revision': 2}", refusal);
    expect(f, "delete_session", "{'session': 's', 'if_revision': 9007199254740991}", refusal);
    expect(f, "get_items", "{'session': 's', 'if_epoch': 7}", refusal);
    expect(f, "add_items", "{'session': 's', 'items': ['{}'], 'if_revision': 1, 'if_epoch': 1}",
           "{'first_seq': 2, 'last_seq': 2, 'revision': 2, 'epoch': 1}");
}

static void test_a_repeated_pop_whose_item_is_erased(void **state)
{
    struct fixture *f = *state;

    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    expect(f, "pop_item", "{'session': 's', 'key': 'k'}", "{'item': '{}', 'seq': 1, 'revision': 2, 'epoch': 2}");
    expect(f, "pop_item", "{'session': 's', 'key': 'k'}", "{'item': '{}', 'seq': 1, 'revision': 2, 'epoch': 2}");
    ask(f, "clear_session", "{'session': 's'}");
    expect(f, "pop_item", "{'session': 's', 'key': 'k'}",
           "{'item': null, 'seq': 1, 'revision': 2, 'epoch': 2, 'erased': true}");
}

static void test_sessions_are_listed(void **state)
{
    struct fixture *f = *state;
    json_t *sessions, *first;

    expect(f, "list_sessions", "{}", "{'sessions': [], 'more': false}");
    ask(f, "add_items", "{'session': 'b', 'items': ['{}', '{ }']}");
    ask(f, "add_items", "{'session': 'a', 'items': ['{}']}");
    ask(f, "list_sessions", "{'limit': 1}");
    assert_non_null(strstr(f->answer, "'more': true}"));
    sessions = member_of_answer(f, "sessions");
    assert_int_equal(json_array_size(sessions), 1);
    first = json_array_get(sessions, 0);
    assert_string_equal(json_string_value(json_object_get(first, "id")), "a");
    assert_int_equal(json_integer_value(json_object_get(first, "count")), 1);
    assert_int_equal(json_integer_value(json_object_get(first, "bytes")), 2);
    assert_int_equal(json_integer_value(json_object_get(first, "head_seq")), 1);
    assert_int_equal(json_integer_value(json_object_get(first, "revision")), 1);
    assert_true(json_integer_value(json_object_get(first, "epoch")) > 0);
    assert_true(json_integer_value(json_object_get(first, "created_us")) > 0);
    assert_true(json_integer_value(json_object_get(first, "updated_us")) > 0);
    assert_int_equal(json_object_size(first), 8);
    json_decref(sessions);
    ask(f, "list_sessions", "{'after': 'a'}");
    assert_non_null(strstr(f->answer, "{'id': 'b', "));
    assert_null(strstr(f->answer, "{'id': 'a', "));
    expect(f, "list_sessions", "{'prefix': 'c'}", "{'sessions': [], 'more': false}");
}

/* ---- about the daemon ---- */

/* What the last answer says of busy sessions, which is its end. */
static void expect_busiest(struct fixture *f, const char *wanted)
{
    const char *sessions = strstr(f->answer, ", 'sessions': ");

    assert_non_null(sessions);
    assert_string_equal(sessions, wanted);
}

static void test_the_busiest_sessions_are_told_to_who_asks_for_them(void **state)
{
    struct fixture *f = *state;

    ask(f, "stats", "{}");
    assert_null(strstr(f->answer, "'sessions': "));
    ask(f, "stats", "{'top': 0}");
    expect_busiest(f, ", 'sessions': []}");
    ask(f, "add_items", "{'session': 'a', 'items': ['{}']}");
    ask(f, "get_items", "{'session': 'a', 'if_epoch': 99}"); /* refused, but it was work */
    ask(f, "get_items", "{'session': 'b', 'store': 'not_there'}");
    ask(f, "get_items", "{'session': 'c', 'store': '@not_there'}"); /* of which nobody must know whether it is */
    ask(f, "get_items", "{'session': 'd', 'store': 'NOT A NAME'}");
    ask(f, "list_sessions", "{'prefix': 'a'}");
    ask(f, "stats", "{'top': 100}");
    expect_busiest(f, ", 'sessions': [{'uid': 1234, 'store': 'default', 'session': 'a', 'requests': 2}, "
                      "{'uid': 1234, 'store': 'not_there', 'session': 'b', 'requests': 1}]}");
    ask(f, "stats", "{'top': 1}");
    assert_null(strstr(f->answer, "not_there"));
    expect_refusal(f, "stats", "{'top': 101}", "invalid", "top");
    expect_refusal(f, "stats", "{'top': '1'}", "invalid", "top");
}

/* In a daemon of many users: what is another's, and what may be done for another. */
static void test_a_user_is_told_of_his_own_busy_sessions(void **state)
{
    struct fixture *f = *state;

    f->config.system = true;
    busiest_count(&f->daemon.busiest, 99, slice_of("default"), slice_of("theirs"), clock_monotonic_us());
    busiest_count(&f->daemon.busiest, 99, slice_of("@team"), slice_of("theirs too"), clock_monotonic_us());
    ask(f, "get_items", "{'session': 'mine'}");
    ask(f, "stats", "{'top': 100}");
    expect_busiest(f, ", 'sessions': [{'uid': 1234, 'store': 'default', 'session': 'mine', 'requests': 1}]}");
}

static void test_hello(void **state)
{
    struct fixture *f = *state;
    static const char *const hello =
        "{'server': 'sessiond', 'version': '" SESSIOND_VERSION "', 'protocol': 1, "
        "'instance': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'uid': 1234, 'limits': {'frame_bytes': 134217728, "
        "'frame_values': 1100000, 'frame_depth': 16, 'item_bytes': 67108864, 'items': 1048576, "
        "'meta_bytes': 1048576, 'json_depth': 512, "
        "'session_bytes': 255, 'key_bytes': 255, 'answer_bytes': 4194304, 'answer_items': 65536, 'in_flight': 128}}";

    expect(f, "hello", "{}", hello);
    expect(f, "hello", "{'client': 'test', 'protocol': [1, 1]}", hello);
    expect(f, "hello", "{'client': null, 'protocol': null}", hello);
    expect(f, "hello", "{'protocol': [0, 99]}", hello);
    expect_refusal(f, "hello", "{'protocol': [2, 3]}", "invalid", "speaks protocol 1 alone");
    expect_refusal(f, "hello", "{'protocol': [0, 0]}", "invalid", "speaks protocol 1 alone");
    expect_refusal(f, "hello", "{'protocol': [2, 1]}", "invalid", "protocol");
    expect_refusal(f, "hello", "{'protocol': 1}", "invalid", "two numbers");
    expect_refusal(f, "hello", "{'protocol': [1]}", "invalid", "two numbers");
    expect_refusal(f, "hello", "{'protocol': [1, 2, 3]}", "invalid", "two numbers");
    expect_refusal(f, "hello", "{'protocol': ['1', '1']}", "invalid", "two numbers");
    expect_refusal(f, "hello", "{'client': ''}", "invalid", "client");
}

static void test_ping(void **state)
{
    struct fixture *f = *state;

    expect(f, "ping", "{}", "{}");
    expect_refusal(f, "ping", "{'x': 1}", "invalid", "\\'x\\' is unknown here");
}

static void test_info_tells_settings_and_stores(void **state)
{
    struct fixture *f = *state;
    json_t *member;

    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'myapp'}");
    ask(f, "info", "{}");
    member = member_of_answer(f, "settings");
    for (const struct setting *setting = config_settings; setting->name; setting++) {
        const json_t *value = json_object_get(member, setting->name);

        if (setting->kind == SETTING_NUMBER)
            assert_int_equal(json_integer_value(value), config_value(&f->config, setting));
        else if (setting->kind == SETTING_WHO || setting->kind == SETTING_SHARED)
            assert_true(json_is_null(value)); /* not for everybody */
        else
            assert_string_equal(json_string_value(value), config_text(&f->config, setting));
    }
    json_decref(member);
    member = member_of_answer(f, "stores");
    assert_int_equal(json_array_size(member), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(member, 0), "name")), "myapp");
    json_decref(member);
    member = member_of_answer(f, "pid");
    assert_int_equal(json_integer_value(member), getpid());
    json_decref(member);
    member = member_of_answer(f, "libraries");
    assert_true(json_object_size(member) > 0);
    json_decref(member);
}

/* ---- stores ---- */

static void test_stores_are_separate_and_listed(void **state)
{
    struct fixture *f = *state;
    json_t *stores, *store;

    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'one'}");
    ask(f, "add_items", "{'session': 's', 'items': ['{ }'], 'store': 'memory'}");
    ask(f, "add_items", "{'session': 's', 'items': ['{  }']}");
    ask(f, "get_items", "{'session': 's', 'store': 'one'}");
    assert_non_null(strstr(f->answer, "'items': ['{}']"));
    ask(f, "get_items", "{'session': 's', 'store': 'memory'}");
    assert_non_null(strstr(f->answer, "'items': ['{ }']"));
    ask(f, "get_items", "{'session': 's', 'store': 'default'}");
    assert_non_null(strstr(f->answer, "'items': ['{  }']"));
    ask(f, "get_items", "{'session': 's', 'store': 'none'}");
    assert_non_null(strstr(f->answer, "'items': []"));

    ask(f, "list_stores", "{}");
    stores = member_of_answer(f, "stores");
    assert_int_equal(json_array_size(stores), 3);
    store = json_array_get(stores, 0);
    assert_string_equal(json_string_value(json_object_get(store, "name")), "one");
    assert_string_equal(json_string_value(json_object_get(store, "engine")), "sqlite");
    assert_string_equal(json_string_value(json_object_get(store, "durability")), "full");
    assert_int_equal(json_integer_value(json_object_get(store, "sessions")), 1);
    assert_true(json_integer_value(json_object_get(store, "bytes")) > 0);
    store = json_array_get(stores, 1);
    assert_string_equal(json_string_value(json_object_get(store, "name")), "memory");
    assert_string_equal(json_string_value(json_object_get(store, "durability")), "volatile");
    json_decref(stores);
}

static void test_a_store_that_cannot_be_opened_is_listed_without_sizes(void **state)
{
    struct fixture *f = *state;
    char path[64];

    (void)snprintf(path, sizeof(path), "%s/u/1234/626164", f->top); /* "bad" */
    strcat(path, "/items.db");
    assert_int_equal(file_make_directory(path), 0); /* no file */
    close_registry(f);
    assert_int_equal(open_registry(f), 0);
    expect(f, "list_stores", "{}",
           "{'stores': [{'name': 'bad', 'engine': 'sqlite', 'durability': 'full', 'sessions': null, 'bytes': null, "
           "'log_bytes': null, 'missing': null}]}");
    expect_refusal(f, "get_items", "{'session': 's', 'store': 'bad'}", "unavailable", "");
    expect_refusal(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'bad'}", "unavailable", "");
}

static void test_names_of_stores(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"A",   "-a",      ".a",       "_a", "..", "a/b",
                                      "a b", "\\u00e9", "a\\u0000", "@",  "@A", "@@a"};
    char params[256];

    for (size_t i = 0; i < N(bad); i++) {
        (void)snprintf(params, sizeof(params), "{'session': 's', 'store': '%s'}", bad[i]);
        expect_refusal(f, "get_items", params, "invalid", "a name is 1 to 127 of");
        expect_refusal(f, "clear_session", params, "invalid", "a name is 1 to 127 of");
    }
    expect_refusal(f, "get_items", "{'session': 's', 'store': ''}", "invalid", "at least 1");
    expect_refusal(f, "get_items", "{'session': 's', 'store': '@team'}", "not_found", "shared store");
    expect_refusal(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': '@team'}", "not_found", "shared store");
    (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{}'], 'store': '%0127d'}", 7);
    expect(f, "add_items", params, "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
    (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{}'], 'store': '%0128d'}", 7);
    expect_refusal(f, "add_items", params, "invalid", "a name is 1 to 127 of");
    expect(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'a.b_c-d.9'}",
           "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
}

static void test_an_owner_has_so_many_stores(void **state)
{
    struct fixture *f = *state;

    f->config.stores_per_owner = 2;
    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'a'}");
    ask(f, "pop_item", "{'session': 's', 'key': 'k', 'store': 'b'}"); /* leaves a receipt, so it makes a store */
    expect(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'c'}",
           "refused: {'code': 'too_large', 'message': 'too many stores', 'limit': 2}");
    ask(f, "get_items", "{'session': 's', 'store': 'c'}"); /* reading makes none */
    assert_non_null(strstr(f->answer, "'items': []"));
    expect(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'a'}",
           "{'first_seq': 2, 'last_seq': 2, 'revision': 2, 'epoch': 1}");
}

/* ---- wrong requests ---- */

static void test_parameters_are_checked(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *method, *params, *code, *words;
    } cases[] = {
        {"nothing", "{}", "unknown_method", "there is no method \\'nothing\\'"},
        {"", "{}", "unknown_method", "there is no method"},
        {"Get_items", "{}", "unknown_method", "there is no method"},
        {"get_items", "{}", "invalid", "\\'session\\' is missing"},
        {"get_items", "{'session': null}", "invalid", "must not be nil"},
        {"get_items", "{'session': ''}", "invalid", "at least 1"},
        {"get_items", "{'session': 7}", "invalid", "must be a text"},
        {"get_items", "{'session': ['s']}", "invalid", "must be a text"},
        {"get_items", "{'session': 's', 'sesion': 's'}", "invalid", "\\'sesion\\' is unknown here"},
        {"get_items", "{'session': 's', 'limit': -1}", "invalid", "from 0 to 9007199254740991"},
        {"get_items", "{'session': 's', 'limit': 9007199254740992}", "invalid", "from 0 to 9007199254740991"},
        {"get_items", "{'session': 's', 'limit': '3'}", "invalid", "must be an integer"},
        {"get_items", "{'session': 's', 'limit': true}", "invalid", "must be an integer"},
        {"get_items", "{'session': 's', 'max_bytes': 0}", "invalid", "from 1 to 4194304"},
        {"get_items", "{'session': 's', 'max_bytes': 4194305}", "invalid", "from 1 to 4194304"},
        {"get_items", "{'session': 's', 'key': 'k'}", "invalid", "\\'key\\' is unknown here"},
        {"get_items", "{'session': 's', 'if_revision': 0}", "invalid", "unknown here"},
        {"add_items", "{'session': 's'}", "invalid", "\\'items\\' is missing"},
        {"add_items", "{'session': 's', 'items': null}", "invalid", "must not be nil"},
        {"add_items", "{'session': 's', 'items': '{}'}", "invalid", "must be an array"},
        {"add_items", "{'session': 's', 'items': ['{}', 7]}", "invalid", "\\'items\\'[1]"},
        {"add_items", "{'session': 's', 'items': [{}]}", "invalid", "\\'items\\'[0]"},
        {"add_items", "{'session': 's', 'items': ['{}'], 'key': ''}", "invalid", "at least 1"},
        {"add_items", "{'session': 's', 'items': ['{}'], 'digest': 'd'}", "invalid", "goes with a key"},
        {"add_items", "{'session': 's', 'items': ['{}'], 'from_seq': 1}", "invalid", "unknown here"},
        {"pop_item", "{'session': 's', 'items': []}", "invalid", "unknown here"},
        {"pop_item", "{'session': 's', 'digest': 'd'}", "invalid", "goes with a key"},
        {"replace_items", "{'session': 's', 'items': [], 'from_seq': 0}", "invalid", "from 1 to"},
        {"list_sessions", "{'limit': 0}", "invalid", "from 1 to 1000"},
        {"list_sessions", "{'limit': 1001}", "invalid", "from 1 to 1000"},
        {"list_sessions", "{'session': 's'}", "invalid", "unknown here"},
        {"list_stores", "{'store': 'default'}", "invalid", "unknown here"},
        {"backup_read", "{'offset': 0}", "invalid", "\\'backup\\' is missing"},
        {"backup_read", "{'backup': 'abc', 'offset': 0}", "invalid", "at least 32"},
        {"backup_read", "{'backup': '../../../../../../../etc/passwd/', 'offset': 0}", "invalid", "hex digits"},
        {"backup_read", "{'backup': '0123456789ABCDEF0123456789ABCDEF', 'offset': 0}", "invalid", "hex digits"},
        {"backup_delete", "{'backup': '................................'}", "invalid", "hex digits"},
    };

    for (size_t i = 0; i < N(cases); i++)
        expect_refusal(f, cases[i].method, cases[i].params, cases[i].code, cases[i].words);
    expect(f, "list_stores", "{}", "{'stores': []}"); /* nothing came of any of it */
}

static void test_a_long_name_is_cut_between_characters(void **state)
{
    struct fixture *f = *state;
    char method[200] = "";

    for (size_t i = 0; i < 4; i++) {
        memset(method, 'x', i);
        for (size_t j = 0; j < 30; j++)
            memcpy(method + i + 4 * j, "\xf0\x9f\x98\x80", 5);
        ask(f, method, "{}"); /* an answer that is not UTF-8 would show a replacement character */
        assert_non_null(strstr(f->answer, "unknown_method"));
        assert_null(strstr(f->answer, "\xef\xbf\xbd"));
        assert_non_null(strstr(f->answer, "\xf0\x9f\x98\x80\\'"));
    }
}

static void test_nil_is_the_same_as_leaving_out(void **state)
{
    struct fixture *f = *state;

    expect(f, "add_items",
           "{'session': 's', 'items': ['{}'], 'key': null, 'digest': null, 'if_revision': null, 'if_epoch': null, "
           "'store': null}",
           "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
    ask(f, "get_items",
        "{'session': 's', 'limit': null, 'after': null, 'before': null, 'max_bytes': null, 'if_epoch': null}");
    assert_non_null(strstr(f->answer, "'items': ['{}']"));
    ask(f, "list_sessions", "{'after': null, 'limit': null, 'prefix': null}");
    assert_non_null(strstr(f->answer, "'id': 's'"));
    expect_refusal(f, "replace_items", "{'session': 's', 'items': null, 'from_seq': null}", "invalid", "items");
}

static void test_texts_have_limits(void **state)
{
    struct fixture *f = *state;
    char params[1024];

    (void)snprintf(params, sizeof(params),
                   "{'session': '%0255d', 'items': ['{}'], 'key': '%0255d', 'digest': '%0255d'}", 1, 2, 3);
    expect(f, "add_items", params, "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
    (void)snprintf(params, sizeof(params), "{'session': '%0256d', 'items': ['{}']}", 1);
    expect_refusal(f, "add_items", params, "too_large", "the limit is 255");
    (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{}'], 'key': '%0256d'}", 1);
    expect_refusal(f, "add_items", params, "too_large", "the limit is 255");
    (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{}'], 'key': 'k', 'digest': '%0256d'}", 1);
    expect_refusal(f, "add_items", params, "too_large", "the limit is 255");
}

static void test_an_item_that_is_none_refuses_all_and_names_its_index(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"", "x", "[]", "1", "null", "{}x", "{\\n}", "{\\u0000}", "{{}}", "\\ufeff{}"};
    char params[128];

    for (size_t i = 0; i < N(bad); i++) {
        (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{}', '%s', '{}']}", bad[i]);
        expect_refusal(f, "add_items", params, "invalid", "'item': 1}");
        (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['%s']}", bad[i]);
        expect_refusal(f, "replace_items", params, "invalid", "'item': 0}");
    }
    ask(f, "get_items", "{'session': 's'}");
    assert_non_null(strstr(f->answer, "'revision': 0"));
}

static void test_an_item_over_the_limit(void **state)
{
    struct fixture *f = *state;
    char params[2048];

    f->config.item_bytes = 1024;
    (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{%1022s}']}", "");
    expect(f, "add_items", params, "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
    (void)snprintf(params, sizeof(params), "{'session': 's', 'items': ['{}', '{%1023s}']}", "");
    expect(f, "add_items", params,
           "refused: {'code': 'too_large', 'message': 'item 1: 1025 bytes are over the limit of 1024', 'limit': 1024, "
           "'item': 1}");
}

static void test_items_come_back_byte_for_byte(void **state)
{
    struct fixture *f = *state;

    ask(f, "add_items", "{'session': 's', 'items': ['{\\'a\\': 1.10, \\'a\\' :\\'\\\\ud800\\\\u0000\\u00e9\\'}']}");
    ask(f, "get_items", "{'session': 's'}");
    assert_non_null(strstr(f->answer, "['{\\'a\\': 1.10, \\'a\\' :\\'\\\\ud800\\\\u0000\u00e9\\'}']"));
}

/* ---- bytes that are no request ---- */

#define FRAME(literal)                                                                                                 \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }

static void test_what_cannot_be_answered_is_no_request(void **state)
{
    struct fixture *f = *state;
    static const struct slice frames[] = {
        FRAME("\xc0"),
        FRAME("\x90"),
        FRAME("\x80"),
        FRAME("\x94\x00\x01\x02\x90"),     /* the method is a number */
        FRAME("\x94\x00\xff\xa4ping\x90"), /* the msgid is negative */
        FRAME("\x94\x00\xcf\0\0\0\1\0\0\0\0\xa4ping\x90"),
        FRAME("\x93\x00\x01\xa4ping"),         /* no params */
        FRAME("\x95\x00\x01\xa4ping\x90\x90"), /* too much */
        FRAME("\x94\x03\x01\xa4ping\x90"),
        FRAME("\x94\x01\x01\xc0\x80"),         /* a response */
        FRAME("\x93\x02\xa4ping\x90"),         /* a notification */
        FRAME("\x94\x00\x01\xc4\x04ping\x90"), /* bin for text */
    };

    for (size_t i = 0; i < N(frames); i++) {
        char why[MESSAGE_WHY_SIZE] = "", *copy = malloc(frames[i].size);
        struct request *request = NULL;

        memcpy(copy, frames[i].data, frames[i].size);
        assert_int_equal(request_new(&request, &f->daemon, f->caller, copy, frames[i].size, why), SESSIOND_INVALID);
        assert_null(request);
        assert_true(why[0] != '\0');
    }
}

static const char *ask_bytes(struct fixture *f, struct slice bytes)
{
    struct buf frame = BUF_INIT;
    struct request *request;

    buf_append(&frame, bytes.data, bytes.size);
    request = new_request(f, &frame);
    drive(f, request);
    return take_answer(f, request);
}

static void test_wrong_params_are_answered(void **state)
{
    struct fixture *f = *state;
    static const struct slice frames[] = {
        FRAME("\x94\x00\x01\xa4ping\xc0"),         FRAME("\x94\x00\x01\xa4ping\x80"),
        FRAME("\x94\x00\x01\xa4ping\x92\x80\x80"), FRAME("\x94\x00\x01\xa4ping\x91\x01"),
        FRAME("\x94\x00\x01\xa4nope\x91\xc0"),
    };
    static const struct slice good[] = {FRAME("\x94\x00\x01\xa4ping\x90"), FRAME("\x94\x00\x01\xa4ping\x91\x80")};
    static const struct slice twice = FRAME("\x94\x00\x01\xa9get_items\x91\x82\xa7session\xa1s\xa7session\xa1s");
    static const struct slice bin = FRAME("\x94\x00\x01\xa9get_items\x91\x81\xa7session\xc4\x01s");
    static const struct slice no_utf8 = FRAME("\x94\x00\x01\xa9get_items\x91\x81\xa7session\xa1\xff");
    static const struct slice number_key = FRAME("\x94\x00\x01\xa9get_items\x91\x81\x01\xa1s");

    for (size_t i = 0; i < N(frames); i++)
        assert_non_null(strstr(ask_bytes(f, frames[i]), "refused: {'code': 'invalid'"));
    for (size_t i = 0; i < N(good); i++)
        assert_string_equal(ask_bytes(f, good[i]), "{}");
    assert_non_null(strstr(ask_bytes(f, twice), "given twice"));
    assert_non_null(strstr(ask_bytes(f, bin), "must be a text (str), not bytes"));
    assert_non_null(strstr(ask_bytes(f, no_utf8), "not valid UTF-8"));
    assert_non_null(strstr(ask_bytes(f, number_key), "a key must be a text"));
}

/* ---- what makes two requests the same change ---- */

static void test_what_makes_two_requests_the_same_change(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *method, *first, *other_method, *second;
        bool same;
    } cases[] = {
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{}']", true},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'items': ['{}'], 'session': 's'", true},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{}'], 'store': 'default'",
         true},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{}'], 'if_epoch': null",
         true},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 't', 'items': ['{}']", false},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{ }']", false},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{}', '{}']", false},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': []", false},
        {"add_items", "'session': 's', 'items': ['{}', '{ }']", NULL, "'session': 's', 'items': ['{ }', '{}']", false},
        {"add_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{}'], 'if_revision': 0",
         false},
        {"add_items", "'session': 's', 'items': ['{}'], 'if_revision': 0", NULL,
         "'session': 's', 'items': ['{}'], 'if_epoch': 0", false},
        {"add_items", "'session': 's', 'items': ['{}']", "replace_items", "'session': 's', 'items': ['{}']", false},
        {"replace_items", "'session': 's', 'items': ['{}']", NULL, "'session': 's', 'items': ['{}'], 'from_seq': 1",
         false},
        {"pop_item", "'session': 's'", "clear_session", "'session': 's'", false},
        {"pop_item", "'session': 's'", NULL, "'session': 's'", true},
        {"add_items", "'session': 's', 'items': []", "pop_item", "'session': 's'", false},
        {"add_items", "'session': 's', 'items': ['{}'], 'digest': 'd'", NULL,
         "'session': 's', 'items': ['{ }', '{}'], 'digest': 'd', 'if_revision': 77", true},
        {"add_items", "'session': 's', 'items': ['{}'], 'digest': 'd'", NULL,
         "'session': 's', 'items': ['{}'], 'digest': 'e'", false},
        {"add_items", "'session': 's', 'items': ['{}'], 'digest': 'd'", NULL, "'session': 's', 'items': ['{}']", false},
        {"add_items", "'session': 's', 'items': ['{}'], 'digest': 'd'", NULL,
         "'session': 't', 'items': ['{}'], 'digest': 'd'", false},
        {"add_items", "'session': 's', 'items': ['{}'], 'digest': 'd'", "replace_items",
         "'session': 's', 'items': ['{}'], 'digest': 'd'", false},
        {"replace_items", "'session': 's', 'items': ['{}'], 'digest': 'd'", NULL,
         "'session': 's', 'items': [], 'from_seq': 9, 'digest': 'd'", true},
    };
    char params[256], *first;

    for (size_t i = 0; i < N(cases); i++) {
        (void)snprintf(params, sizeof(params), "{%s, 'key': 'k%zu'}", cases[i].first, i);
        first = strdup(ask(f, cases[i].method, params));
        assert_int_equal(first[0], '{');
        (void)snprintf(params, sizeof(params), "{%s, 'key': 'k%zu'}", cases[i].second, i);
        ask(f, cases[i].other_method ? cases[i].other_method : cases[i].method, params);
        if (cases[i].same && strcmp(f->answer, first) != 0)
            fail_msg("case %zu: %s is not %s", i, f->answer, first);
        if (!cases[i].same && !strstr(f->answer, "refused: {'code': 'key_reused'"))
            fail_msg("case %zu: %s", i, f->answer);
        free(first);
        ask(f, "delete_session", "{'session': 's'}"); /* the next case begins anew */
    }
}

static void test_a_key_is_known_in_its_store_only(void **state)
{
    struct fixture *f = *state;

    expect(f, "add_items", "{'session': 's', 'items': ['{}'], 'key': 'k', 'store': 'one'}",
           "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
    expect(f, "add_items", "{'session': 's', 'items': ['{ }'], 'key': 'k', 'store': 'two'}",
           "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
}

/* ---- stages ---- */

static void test_large_requests_are_checked_on_the_pool(void **state)
{
    struct fixture *f = *state;
    char *params = malloc(400000);

    (void)snprintf(params, 400000, "{'session': 's', 'items': ['{}', '{%300000s}']}", "");
    expect(f, "add_items", params, "{'first_seq': 1, 'last_seq': 2, 'revision': 1, 'epoch': 1}");
    assert_int_equal(f->n_works, 1);
    (void)snprintf(params, 400000, "{'session': 's', 'items': ['{}', '{%300000s']}", "");
    expect_refusal(f, "add_items", params, "invalid", "'item': 1}");
    assert_int_equal(f->n_works, 2);
    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    assert_int_equal(f->n_works, 2);
    free(params);
}

/* A job that holds the lane up. */
struct holder {
    struct job job;
    sem_t gate, at_gate;
};

static int hold(struct job *job, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct holder *holder = CONTAINER_OF(job, struct holder, job);

    (void)table;
    (void)engine;
    (void)ret_more;
    sem_post(&holder->at_gate);
    sem_wait(&holder->gate);
    return 0;
}

static void test_a_full_queue_is_answered_with_busy(void **state)
{
    struct fixture *f = *state;
    struct holder holder = {.job = {.kind = JOB_READ, .run = hold, .size = 1}};
    struct request *waiting;
    struct store *store;

    f->config.lane_requests = 1;
    sem_init(&holder.gate, 0, 0);
    sem_init(&holder.at_gate, 0, 0);
    assert_int_equal(owner_store(f->owner, (struct slice){0}, true, &store), 0);
    holder.job.store = &store->lane;
    assert_int_equal(lane_submit(&holder.job), 0);
    sem_wait(&holder.at_gate);

    waiting = make_request(f, "get_items", "{'session': 's'}");
    assert_int_equal(request_step(waiting), REQUEST_WAIT);
    expect_refusal(f, "add_items", "{'session': 's', 'items': ['{}']}", "busy", "'retry_after_ms': ");
    expect(f, "ping", "{}", "{}"); /* asks no lane */
    sem_post(&holder.gate);
    wait_for(f, waiting);
    assert_int_equal(request_step(waiting), REQUEST_DONE);
    assert_non_null(strstr(take_answer(f, waiting), "'items': []"));
    expect(f, "add_items", "{'session': 's', 'items': ['{}']}",
           "{'first_seq': 1, 'last_seq': 1, 'revision': 1, 'epoch': 1}");
    sem_destroy(&holder.gate);
    sem_destroy(&holder.at_gate);
}

/* After a rollback a job runs again. What the first run left must not count, a lack of memory included. */
static void test_a_job_that_runs_again_starts_from_scratch(void **state)
{
    struct fixture *f = *state;
    static const char *const methods[] = {"get_items", "pop_item", "list_sessions"};

    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    for (size_t i = 0; i < N(methods); i++) {
        struct request *request = make_request(f, methods[i], i == 2 ? "{}" : "{'session': 's'}");

        buf_append(&request->rows, "left over", 9);
        request->rows.size = 0;
        request->rows.failed = request->reply.failed = request->seen.failed = true;
        drive(f, request);
        assert_int_equal(take_answer(f, request)[0], '{');
    }
}

/* ---- backups ---- */

static char *text_member(struct fixture *f, const char *name)
{
    json_t *member = member_of_answer(f, name);
    char *copy = strdup(json_string_value(member));

    json_decref(member);
    return copy;
}

static void test_a_backup_is_made_read_and_deleted(void **state)
{
    struct fixture *f = *state;
    char params[256], path[128], why[160], *id;
    json_t *bytes;
    struct stat status;
    struct request *request;

    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'one'}");
    ask(f, "backup", "{'store': 'one'}");
    id = text_member(f, "backup");
    bytes = member_of_answer(f, "bytes");
    assert_int_equal(strlen(id), RANDOM_ID_SIZE);
    (void)snprintf(path, sizeof(path), "%s/u/1234/6f6e65/backup-%s.db", f->top, id);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(json_integer_value(bytes), status.st_size);
    assert_int_equal(sqlite_verify(path, why, sizeof(why)), 0);

    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'offset': 0, 'store': 'one'}", id);
    request = make_request(f, "backup_read", params);
    drive(f, request);
    {
        char *file = malloc((size_t)status.st_size);
        FILE *stream = fopen(path, "rb");

        assert_int_equal(fread(file, 1, (size_t)status.st_size, stream), status.st_size);
        (void)fclose(stream);
        assert_non_null(memmem(request->reply.data, request->reply.size, file, (size_t)status.st_size));
        free(file);
    }
    (void)take_answer(f, request);
    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'offset': %lld, 'store': 'one'}", id,
                   (long long)status.st_size);
    ask(f, "backup_read", params);
    assert_non_null(strstr(f->answer, "{'data': '', 'bytes': "));
    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'offset': 9007199254740991, 'store': 'one'}", id);
    ask(f, "backup_read", params);
    assert_non_null(strstr(f->answer, "{'data': '', 'bytes': "));

    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'store': 'one'}", id);
    expect(f, "backup_delete", params, "{}");
    expect(f, "backup_delete", params, "{}");
    assert_int_not_equal(stat(path, &status), 0);
    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'offset': 0, 'store': 'one'}", id);
    expect_refusal(f, "backup_read", params, "not_found", "no longer there");
    json_decref(bytes);
    free(id);
}

static void test_a_backup_is_charged_as_long_as_it_is_there(void **state)
{
    struct fixture *f = *state;
    const struct store *store;
    char params[128], *id;
    json_t *bytes;

    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'one'}");
    store = owner_existing_store(f->owner, slice_of("one"));
    ask(f, "backup", "{'store': 'one'}");
    id = text_member(f, "backup");
    bytes = member_of_answer(f, "bytes");
    assert_int_equal(store->backup_bytes, json_integer_value(bytes));
    assert_true(f->owner->account->used[ACCOUNT_DISK] > store->backup_bytes);
    ask(f, "backup_delete", "{'store': 'one', 'backup': '00000000000000000000000000000000'}");
    assert_int_equal(store->backup_bytes, json_integer_value(bytes));
    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'store': 'one'}", id);
    ask(f, "backup_delete", params);
    assert_int_equal(store->backup_bytes, 0);
    f->config.disk_bytes_per_owner = 1;
    expect_refusal(f, "backup", "{'store': 'one'}", "full", "bytes on the disk");
    json_decref(bytes);
    free(id);
}

static void test_a_new_backup_takes_the_place_of_the_old(void **state)
{
    struct fixture *f = *state;
    char params[256], *first, *second;

    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    ask(f, "backup", "{}");
    first = text_member(f, "backup");
    ask(f, "backup", "{}");
    second = text_member(f, "backup");
    assert_string_not_equal(first, second);
    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'offset': 0}", first);
    expect_refusal(f, "backup_read", params, "not_found", "");
    (void)snprintf(params, sizeof(params), "{'backup': '%s', 'offset': 0}", second);
    assert_int_equal(ask(f, "backup_read", params)[0], '{');
    free(first);
    free(second);
}

/* The first is copied and not yet checked when the second comes. */
static void test_one_backup_of_a_store_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct request *first;

    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'other'}");
    first = make_request(f, "backup", "{}");
    assert_int_equal(request_step(first), REQUEST_WAIT);
    expect_refusal(f, "backup", "{}", "busy", "being made");
    wait_for(f, first);
    assert_int_equal(request_step(first), REQUEST_WORK);
    expect_refusal(f, "backup", "{'store': 'default'}", "busy", "'retry_after_ms': ");
    assert_int_equal(ask(f, "backup", "{'store': 'other'}")[0], '{');
    request_work(first);
    assert_int_equal(request_step(first), REQUEST_DONE);
    assert_int_equal(take_answer(f, first)[0], '{');
    assert_int_equal(ask(f, "backup", "{}")[0], '{');
}

static void test_what_has_no_backup(void **state)
{
    struct fixture *f = *state;

    expect_refusal(f, "backup", "{}", "not_found", "no such store on disk");
    expect_refusal(f, "backup", "{'store': 'never'}", "not_found", "no such store on disk");
    ask(f, "add_items", "{'session': 's', 'items': ['{}'], 'store': 'memory'}");
    expect_refusal(f, "backup", "{'store': 'memory'}", "not_found", "no such store on disk");
    expect_refusal(f, "backup_read", "{'backup': '00000000000000000000000000000000', 'offset': 0, 'store': 'memory'}",
                   "not_found", "");
    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    expect_refusal(f, "backup_read", "{'backup': '00000000000000000000000000000000', 'offset': 0}", "not_found",
                   "no longer there");
}

/* ---- losses ---- */

static void test_recover_without_a_loss(void **state)
{
    struct fixture *f = *state;

    expect_refusal(f, "recover", "{}", "not_found", "no such store");
    ask(f, "add_items", "{'session': 's', 'items': ['{}']}");
    expect(f, "recover", "{}", "{'missing': 0}");
    ask(f, "get_items", "{'session': 's'}");
    assert_null(strstr(f->answer, "missing"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_WITH_HISTORIES(name)                                                                                      \
    {                                                                                                                  \
#name " (histories in memory)", name, set_up_with_histories, tear_down, NULL                                   \
    }
    static const struct CMUnitTest tests[] = {
        TEST(test_a_conversation),
        TEST_WITH_HISTORIES(test_a_conversation),
        TEST(test_changes_of_nothing),
        TEST_WITH_HISTORIES(test_changes_of_nothing),
        TEST(test_preconditions),
        TEST_WITH_HISTORIES(test_preconditions),
        TEST(test_a_repeated_pop_whose_item_is_erased),
        TEST(test_sessions_are_listed),
        TEST(test_hello),
        TEST(test_ping),
        TEST(test_info_tells_settings_and_stores),
        TEST(test_stores_are_separate_and_listed),
        TEST_WITH_HISTORIES(test_stores_are_separate_and_listed),
        TEST(test_a_store_that_cannot_be_opened_is_listed_without_sizes),
        TEST(test_names_of_stores),
        TEST(test_an_owner_has_so_many_stores),
        TEST(test_the_busiest_sessions_are_told_to_who_asks_for_them),
        TEST(test_a_user_is_told_of_his_own_busy_sessions),
        TEST(test_parameters_are_checked),
        TEST(test_a_long_name_is_cut_between_characters),
        TEST(test_nil_is_the_same_as_leaving_out),
        TEST(test_texts_have_limits),
        TEST(test_an_item_that_is_none_refuses_all_and_names_its_index),
        TEST(test_an_item_over_the_limit),
        TEST(test_items_come_back_byte_for_byte),
        TEST_WITH_HISTORIES(test_items_come_back_byte_for_byte),
        TEST(test_what_cannot_be_answered_is_no_request),
        TEST(test_wrong_params_are_answered),
        TEST(test_what_makes_two_requests_the_same_change),
        TEST_WITH_HISTORIES(test_what_makes_two_requests_the_same_change),
        TEST(test_a_key_is_known_in_its_store_only),
        TEST(test_large_requests_are_checked_on_the_pool),
        TEST(test_a_full_queue_is_answered_with_busy),
        TEST(test_a_job_that_runs_again_starts_from_scratch),
        TEST(test_a_backup_is_made_read_and_deleted),
        TEST(test_a_backup_is_charged_as_long_as_it_is_there),
        TEST(test_a_new_backup_takes_the_place_of_the_old),
        TEST(test_one_backup_of_a_store_at_a_time),
        TEST(test_what_has_no_backup),
        TEST(test_recover_without_a_loss),
    };
    struct config config;

    config_init(&config);
    log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
