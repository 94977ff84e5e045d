/*
 * What libsessiond does when the connection breaks, the daemon is busy, or is another one: against peers that break it
 * on purpose, most of them with the real daemon behind.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define A "{\"n\": 1}"
#define B "{\"n\": 2}"

/* ---- peers ---- */

struct plan {
    const char *method;   /* what this is about */
    unsigned n_seen;      /* requests for it */
    unsigned n_cuts;      /* how often to hang up after the daemon has done it, before the answer */
    unsigned n_busy;      /* how often to say busy */
    const char *instance; /* of hello's answer, where no daemon is behind */
    char keys[8][64];     /* of the requests */
    struct sessiond *meddler;
};

struct key_map {
    struct slice key;
};

/* Notes the key, so that a test sees whether a repeat had the same. */
static void note_key(struct plan *plan, const struct message *request)
{
    static const struct field fields[] = {{"key", FIELD_TEXT, FIELD_NIL, offsetof(struct key_map, key), 0, 0}, {0}};
    struct key_map map = {0};
    char why[MESSAGE_WHY_SIZE];

    if (plan->n_seen <= 8 && message_read(request, request->params, fields, MESSAGE_IGNORE_UNKNOWN, &map, why) == 0)
        (void)snprintf(plan->keys[plan->n_seen - 1], 64, "%.*s", (int)map.key.size, map.key.data ? map.key.data : "");
}

static void pack_busy(struct buf *answer, uint32_t msgid)
{
    pack_refusal(answer, msgid);
    pack_map(answer, 3);
    pack_pair_text(answer, "code", slice_of("busy"));
    pack_pair_text(answer, "message", slice_of("try again"));
    pack_pair_number(answer, "retry_after_ms", 1);
    pack_nil(answer);
}

/* Passes requests on to the daemon; hangs up or says busy as planned. */
static enum peer_action through(struct peer *peer, const struct message *request, struct slice frame,
                                struct buf *answer)
{
    struct plan *plan = peer->arg;
    bool meant = is_method(request, plan->method);

    if (meant) {
        plan->n_seen++;
        note_key(plan, request);
    }
    if (meant && plan->n_busy > 0) {
        plan->n_busy--;
        pack_busy(answer, request->msgid);
        return PEER_SEND;
    }
    if (!peer_forward(peer, frame, answer))
        return PEER_CLOSE;
    if (meant && plan->n_cuts > 0) {
        plan->n_cuts--;
        return PEER_CLOSE;
    }
    return PEER_SEND;
}

struct proxy {
    struct peer peer;
    struct plan plan;
};

static struct sessiond *client_through(struct proxy *proxy, const struct daemon *daemon, struct plan plan)
{
    proxy->plan = plan;
    proxy->peer = (struct peer){.behind = daemon->socket};
    peer_start(&proxy->peer, &daemon->scratch, through, &proxy->plan);
    return client_with((struct sessiond_options){.socket = proxy->peer.socket});
}

/* ---- cut after the commit ---- */

static void test_an_add_whose_answer_is_lost_is_stored_once(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = "add_items", .n_cuts = 3});
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_changed changed;

    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, &changed));
    assert_int_equal(changed.first_seq, 1);
    assert_int_equal(changed.revision, 1);
    peer_stop(&proxy.peer);
    assert_int_equal(proxy.plan.n_seen, 4);
    assert_int_equal(strlen(proxy.plan.keys[0]), 36);
    assert_string_equal(proxy.plan.keys[3], proxy.plan.keys[0]);
    sessiond_free(client);
    client = daemon_client(daemon);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_a_pop_whose_answer_is_lost_takes_one_item(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = "pop_item", .n_cuts = 1});
    struct sessiond_popped popped;

    add_item(client, "s", A);
    add_item(client, "s", B);
    EXPECT(client, 0, sessiond_pop_item(client, "s", NULL, &popped));
    assert_string_equal(popped.item.data, B);
    sessiond_popped_free(&popped);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
    peer_stop(&proxy.peer);
    assert_int_equal(proxy.plan.n_seen, 2);
}

static void test_clear_replace_and_delete_happen_once_too(void **state)
{
    static const char *const methods[] = {"clear_session", "replace_items", "delete_session"};
    struct daemon *daemon = *state;
    struct sessiond_text item = SESSIOND_TEXT(B);
    struct sessiond_changed changed;

    for (size_t i = 0; i < 3; i++) {
        struct proxy proxy;
        struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = methods[i], .n_cuts = 1});
        struct sessiond_changed before;

        EXPECT(client, 0, sessiond_add_items(client, methods[i], &item, 1, NULL, &before));
        if (i == 0)
            EXPECT(client, 0, sessiond_clear_session(client, methods[i], NULL, &changed));
        else if (i == 1)
            EXPECT(client, 0, sessiond_replace_items(client, methods[i], 0, &item, 1, NULL, &changed));
        else
            EXPECT(client, 0, sessiond_delete_session(client, methods[i], NULL, &changed));
        assert_int_equal(changed.removed, 1);
        assert_true(i == 2 || changed.revision == before.revision + 1);
        sessiond_free(client);
        peer_stop(&proxy.peer);
        assert_int_equal(proxy.plan.n_seen, 2);
        assert_string_equal(proxy.plan.keys[0], proxy.plan.keys[1]);
    }
}

static void test_a_read_whose_answer_is_lost_is_repeated(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = "get_items", .n_cuts = 2});

    add_item(client, "s", A);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
    peer_stop(&proxy.peer);
    assert_int_equal(proxy.plan.n_seen, 3);
}

/* ---- a daemon that goes away ---- */

struct heard {
    int r;
    unsigned n;
    unsigned order[8]; /* of the answers, by the number in `arg` */
};

struct hearing {
    struct heard *heard;
    unsigned number;
};

static void on_answer(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct hearing *hearing = arg;

    (void)client;
    assert_true((answer == NULL) == (r != 0));
    hearing->heard->r = r;
    hearing->heard->order[hearing->heard->n++ % 8] = hearing->number;
}

static void send_add(struct sessiond *client, const char *session, const char *text, struct hearing *hearing)
{
    struct sessiond_text item = SESSIOND_TEXT(text);
    struct sessiond_call call = {.method = SESSIOND_ADD_ITEMS, .session = session, .items = &item, .n_items = 1};

    EXPECT(client, 0, sessiond_send(client, &call, on_answer, hearing));
}

static void test_a_call_waits_for_a_daemon_that_restarts(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct heard heard = {.r = -1};

    add_item(client, "s", A);
    daemon_kill(daemon);
    send_add(client, "s", B, &(struct hearing){&heard, 0});
    assert_int_equal(sessiond_process(client, 0), 0);
    assert_int_equal(sessiond_process(client, POLLIN), 0);
    assert_int_equal(sessiond_pending(client), 1);
    daemon_start(daemon);
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(heard.r, 0);
    expect_items(client, "s", A, B, NULL);
    sessiond_free(client);
}

static void test_a_daemon_that_stays_away_is_no_uncertainty_for_what_was_not_sent(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client =
        client_with((struct sessiond_options){.socket = daemon->socket, .retry_ms = harness_patience_ms()});
    struct sessiond_text item = SESSIOND_TEXT(A);

    EXPECT(client, 0, sessiond_ping(client));
    daemon_stop(daemon);
    assert_true(sessiond_add_items(client, "s", &item, 1, NULL, NULL) < 0);
    assert_true(sessiond_last_error(client)->code < 0);
    assert_non_null(strstr(sessiond_last_error(client)->message, daemon->socket));
    assert_non_null(sessiond_last_error(client)->key);
    sessiond_free(client);
}

static void test_a_lost_answer_is_uncertain_and_its_key_settles_it(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client;
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_change again = {0};
    struct sessiond_changed changed;
    char key[64];

    proxy.plan = (struct plan){.method = "add_items", .n_cuts = UINT32_MAX};
    proxy.peer = (struct peer){.behind = daemon->socket};
    peer_start(&proxy.peer, &daemon->scratch, through, &proxy.plan);
    client = client_with((struct sessiond_options){.socket = proxy.peer.socket, .retry_ms = harness_patience_ms()});
    EXPECT(client, SESSIOND_UNCERTAIN, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    assert_non_null(sessiond_last_error(client)->key);
    (void)snprintf(key, sizeof(key), "%s", sessiond_last_error(client)->key);
    sessiond_free(client);
    peer_stop(&proxy.peer);

    client = daemon_client(daemon);
    again.key = key;
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &again, &changed));
    assert_int_equal(changed.revision, 1);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

static void test_never_connected_fails_at_once_and_names_the_paths(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct heard heard = {0};
    struct sessiond_call call = {.method = SESSIOND_PING};
    int64_t begin = harness_now_ms();

    assert_int_equal(sessiond_ping(client), -ENOENT);
    assert_non_null(strstr(sessiond_last_error(client)->message, daemon->socket));
    assert_int_equal(sessiond_send(client, &call, on_answer, &heard), -ENOENT);
    assert_int_equal(sessiond_pending(client), 0);
    assert_true(harness_now_ms() - begin < 10000); /* and not after the time of retries */
    daemon_start(daemon);
    EXPECT(client, 0, sessiond_ping(client));
    sessiond_free(client);
}

static void test_a_socket_that_nobody_listens_on_is_refused(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);

    daemon_start(daemon);
    daemon_kill(daemon);
    assert_int_equal(sessiond_ping(client), -ECONNREFUSED);
    assert_non_null(strstr(sessiond_last_error(client)->message, daemon->socket));
    assert_non_null(strstr(sessiond_last_error(client)->message, "start it"));
    sessiond_free(client);
}

static void test_the_socket_is_looked_for_where_it_should_be(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = client_with((struct sessiond_options){0});
    char directory[PATH_SIZE], path[2 * PATH_SIZE];
    struct sessiond_hello hello;

    (void)snprintf(directory, sizeof(directory), "%s/run", daemon->scratch.path);
    (void)setenv("SESSIOND_SOCKET", daemon->log, 1); /* a path that is there, but no socket: the only candidate */
    assert_int_equal(sessiond_ping(client), -ECONNREFUSED);
    assert_non_null(strstr(sessiond_last_error(client)->message, daemon->log));
    (void)setenv("SESSIOND_SOCKET", daemon->socket, 1);
    EXPECT(client, 0, sessiond_hello(client, &hello));
    assert_string_equal(hello.socket, daemon->socket);
    sessiond_free(client);

    (void)unsetenv("SESSIOND_SOCKET");
    assert_int_equal(mkdir(directory, 0700), 0);
    (void)setenv("XDG_RUNTIME_DIR", directory, 1);
    client = client_with((struct sessiond_options){0});
    (void)snprintf(path, sizeof(path), "%s/sessiond", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/sessiond/sessiond.sock", directory);
    assert_int_equal(link(daemon->socket, path), 0);
    EXPECT(client, 0, sessiond_hello(client, &hello));
    assert_string_equal(hello.socket, path);
    (void)unsetenv("XDG_RUNTIME_DIR");
    sessiond_free(client);
}

/* ---- another instance ---- */

/* Answers hello; loses every change and becomes another instance. */
static enum peer_action another(struct peer *peer, const struct message *request, struct slice frame,
                                struct buf *answer)
{
    struct plan *plan = peer->arg;

    (void)frame;
    if (is_method(request, "hello")) {
        peer_pack_hello(answer, request->msgid, plan->instance);
        return PEER_SEND;
    }
    if (is_method(request, plan->method)) {
        plan->n_seen++;
        plan->instance = "bbbb";
        return PEER_CLOSE;
    }
    pack_response(answer, request->msgid);
    pack_map(answer, 0);
    return PEER_SEND;
}

static void test_a_change_is_never_repeated_to_another_instance(void **state)
{
    struct daemon *daemon = *state;
    struct plan plan = {.method = "add_items", .instance = "aaaa"};
    struct peer peer = {0};
    struct sessiond *client;
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_hello hello;

    peer_start(&peer, &daemon->scratch, another, &plan);
    client = client_with((struct sessiond_options){.socket = peer.socket});
    EXPECT(client, SESSIOND_UNCERTAIN, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    assert_non_null(sessiond_last_error(client)->key);
    EXPECT(client, 0, sessiond_hello(client, &hello));
    assert_string_equal(hello.instance, "bbbb");
    sessiond_free(client);
    peer_stop(&peer);
    assert_int_equal(plan.n_seen, 1);
}

/* ---- busy ---- */

static void test_busy_is_tried_again(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = "add_items", .n_busy = 3});

    add_item(client, "s", A);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
    peer_stop(&proxy.peer);
    assert_int_equal(proxy.plan.n_seen, 4);
    assert_string_equal(proxy.plan.keys[0], proxy.plan.keys[3]);
}

static void test_busy_for_ever_is_an_answer_in_the_end(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client =
        client_through(&proxy, daemon, (struct plan){.method = "add_items", .n_busy = UINT32_MAX});
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond *hasty =
        client_with((struct sessiond_options){.socket = proxy.peer.socket, .retry_ms = harness_patience_ms()});

    EXPECT(hasty, SESSIOND_BUSY, sessiond_add_items(hasty, "s", &item, 1, NULL, NULL));
    assert_non_null(sessiond_last_error(hasty)->key);
    sessiond_free(hasty);
    sessiond_free(client);
    peer_stop(&proxy.peer);
}

static void test_calls_that_are_all_busy_keep_their_order(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = "add_items", .n_busy = 3});
    struct heard heard = {0};
    struct hearing hearings[4];

    for (unsigned i = 0; i < 4; i++)
        hearings[i] = (struct hearing){&heard, i};
    send_add(client, "s", "{\"i\": 0}", &hearings[0]);
    send_add(client, "s", "{\"i\": 1}", &hearings[1]);
    send_add(client, "s", "{\"i\": 2}", &hearings[2]);
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(heard.n, 3);
    assert_int_equal(heard.r, 0);
    expect_items(client, "s", "{\"i\": 0}", "{\"i\": 1}", "{\"i\": 2}", NULL);
    sessiond_free(client);
    peer_stop(&proxy.peer);
}

static void test_a_busy_call_is_given_up_when_a_later_one_on_its_session_succeeds(void **state)
{
    struct daemon *daemon = *state;
    struct proxy proxy;
    struct sessiond *client = client_through(&proxy, daemon, (struct plan){.method = "add_items", .n_busy = 1});
    struct heard first = {0}, second = {.r = -1}, other = {.r = -1};

    send_add(client, "s", A, &(struct hearing){&first, 0});
    send_add(client, "s", B, &(struct hearing){&second, 1});
    send_add(client, "other", A, &(struct hearing){&other, 2});
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(first.r, SESSIOND_BUSY);
    assert_int_equal(second.r, 0);
    assert_int_equal(other.r, 0);
    expect_items(client, "s", B, NULL);
    sessiond_free(client);
    peer_stop(&proxy.peer);
}

/* ---- peers that are no good ---- */

static enum peer_action silent(struct peer *peer, const struct message *request, struct slice frame, struct buf *answer)
{
    (void)peer;
    (void)frame;
    if (!is_method(request, "hello"))
        return PEER_SILENCE;
    peer_pack_hello(answer, request->msgid, "aaaa");
    return PEER_SEND;
}

static void test_silence_counts_as_a_broken_connection(void **state)
{
    struct daemon *daemon = *state;
    struct peer peer = {0};
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_items items;
    struct sessiond *client;

    peer_start(&peer, &daemon->scratch, silent, NULL);
    client = client_with((struct sessiond_options){
        .socket = peer.socket, .silence_ms = harness_patience_ms(), .retry_ms = harness_patience_ms() * 3 / 2});
    assert_int_equal(sessiond_get_items(client, "s", NULL, &items), -ETIMEDOUT);
    EXPECT(client, SESSIOND_UNCERTAIN, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    sessiond_free(client);
    peer_stop(&peer);
    assert_true(peer.n_accepted >= 2);
}

static enum peer_action garbage(struct peer *peer, const struct message *request, struct slice frame,
                                struct buf *answer)
{
    const struct slice *bytes = peer->arg;

    (void)request;
    (void)frame;
    buf_append(answer, bytes->data, bytes->size);
    return PEER_SEND;
}

static void test_what_is_no_sessiond_is_told_at_once(void **state)
{
    struct daemon *daemon = *state;
    struct slice answers[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 28}, /* 'H' is a small integer: a frame, but no message */
        {"\xc1", 1},                              /* no MessagePack */
        {"\xdd\xff\xff\xff\xff", 5},              /* claims four billion values */
        {"\x94\x01\xcd\x01\x2c\xc0\x80", 7},      /* an answer to what was never asked */
        {"\x94\x01\x00\xc0\x90", 5},              /* an array for a map */
        {"\x94\x01\x00\xc0\x80", 5},              /* a hello's answer that says nothing */
        {"\x94\x00\x00\xa4ping\x90", 9},          /* a request */
    };

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct peer peer = {0};
        struct sessiond *client;

        peer_start(&peer, &daemon->scratch, garbage, &answers[i]);
        client = client_with((struct sessiond_options){.socket = peer.socket});
        EXPECT(client, -EPROTO, sessiond_ping(client));
        sessiond_free(client);
        peer_stop(&peer);
    }
}

/* Answers like a daemon, but one byte of each answer after hello's is another. */
static enum peer_action mutates(struct peer *peer, const struct message *request, struct slice frame,
                                struct buf *answer)
{
    uint64_t *random = peer->arg;

    if (!peer_forward(peer, frame, answer))
        return PEER_CLOSE;
    if (is_method(request, "hello"))
        return PEER_SEND;
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    answer->data[(*random >> 33) % answer->size] = (char)(*random >> 24);
    return PEER_SEND;
}

static void test_answers_with_a_wrong_byte_never_crash_a_client(void **state)
{
    struct daemon *daemon = *state;
    uint64_t random = 1;
    struct peer peer = {.behind = daemon->socket};
    struct sessiond *client = daemon_client(daemon);

    add_item(client, "s", A);
    add_item(client, "s", B);
    add_item(client, "t", B);
    peer_start(&peer, &daemon->scratch, mutates, &random);
    for (int i = 0; i < 300; i++) {
        struct sessiond_options options = {.socket = peer.socket, .retry_ms = 1, .silence_ms = 5};
        struct sessiond *victim = client_with(options);
        struct sessiond_sessions sessions;
        struct sessiond_stores stores;
        struct sessiond_popped popped;
        struct sessiond_items items;
        char *json;

        if (sessiond_get_items(victim, "s", NULL, &items) == 0)
            sessiond_items_free(&items);
        if (sessiond_list_sessions(victim, NULL, &sessions) == 0)
            sessiond_sessions_free(&sessions);
        if (sessiond_list_stores(victim, &stores) == 0)
            sessiond_stores_free(&stores);
        if (sessiond_pop_item(victim, "empty", NULL, &popped) == 0)
            sessiond_popped_free(&popped);
        if (i % 10 == 0 && sessiond_info(victim, &json) == 0)
            free(json);
        sessiond_free(victim);
    }
    peer_stop(&peer);
    expect_items(client, "s", A, B, NULL);
    sessiond_free(client);
}

static enum peer_action refuses_hello(struct peer *peer, const struct message *request, struct slice frame,
                                      struct buf *answer)
{
    (void)peer;
    (void)frame;
    if (is_method(request, "hello")) {
        pack_refusal(answer, request->msgid);
        pack_map(answer, 2);
        pack_pair_text(answer, "code", slice_of("invalid"));
        pack_pair_text(answer, "message", slice_of("this daemon speaks protocol 2 to 3"));
        pack_nil(answer);
    } else {
        pack_response(answer, request->msgid);
        pack_map(answer, 1);
        pack_pair_text(answer, "version", slice_of("2.0"));
    }
    return PEER_SEND;
}

static void test_a_daemon_of_another_protocol_can_still_be_asked_who_it_is(void **state)
{
    struct daemon *daemon = *state;
    struct peer peer = {0};
    struct sessiond *client;
    struct sessiond_items items;
    char *json;

    peer_start(&peer, &daemon->scratch, refuses_hello, NULL);
    client = client_with((struct sessiond_options){.socket = peer.socket});
    EXPECT(client, SESSIOND_INVALID, sessiond_get_items(client, "s", NULL, &items));
    assert_non_null(strstr(sessiond_last_error(client)->message, "protocol 2 to 3"));
    EXPECT(client, SESSIOND_INVALID, sessiond_get_items(client, "s", NULL, &items));
    EXPECT(client, SESSIOND_INVALID, sessiond_hello(client, NULL));
    EXPECT(client, 0, sessiond_ping(client));
    EXPECT(client, 0, sessiond_info(client, &json));
    assert_string_equal(json, "{\"version\": \"2.0\"}");
    free(json);
    sessiond_free(client);
    peer_stop(&peer);
}

static enum peer_action turns_away(struct peer *peer, const struct message *request, struct slice frame,
                                   struct buf *answer)
{
    unsigned *n_left = peer->arg;

    (void)frame;
    if (*n_left == 0) {
        peer_pack_hello(answer, request->msgid, "aaaa");
        return PEER_SEND;
    }
    --*n_left;
    pack_notification(answer, "error");
    pack_map(answer, 2);
    pack_pair_text(answer, "code", slice_of("busy"));
    pack_pair_text(answer, "message", slice_of("too many connections"));
    return PEER_SEND_AND_CLOSE;
}

static void test_a_daemon_with_too_many_connections_is_tried_again(void **state)
{
    struct daemon *daemon = *state;
    unsigned n_left = 3;
    struct peer peer = {0};
    struct sessiond *client;
    struct sessiond_hello hello;

    peer_start(&peer, &daemon->scratch, turns_away, &n_left);
    client = client_with((struct sessiond_options){.socket = peer.socket});
    EXPECT(client, 0, sessiond_hello(client, &hello)); /* its ping is answered by a second hello, which will do */
    assert_string_equal(hello.instance, "aaaa");
    sessiond_free(client);

    n_left = UINT32_MAX;
    client = client_with((struct sessiond_options){.socket = peer.socket, .retry_ms = harness_patience_ms()});
    EXPECT(client, SESSIOND_BUSY, sessiond_ping(client));
    assert_non_null(strstr(sessiond_last_error(client)->message, "too many connections"));
    sessiond_free(client);
    peer_stop(&peer);
}

/* ---- fork ---- */

static void test_after_fork_the_child_has_a_connection_of_its_own(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct heard heard = {.r = -1};
    int status;
    pid_t pid;

    add_item(client, "s", "{\"by\": \"parent\"}");
    send_add(client, "pending", A, &(struct hearing){&heard, 0}); /* the parent's, and not to be sent by the child */
    pid = fork();
    if (pid == 0) {
        struct sessiond_text item = SESSIOND_TEXT("{\"by\": \"child\"}");
        bool fine = sessiond_pending(client) == 0 && sessiond_fd(client) == -1 &&
                    sessiond_add_items(client, "s", &item, 1, NULL, NULL) == 0;

        sessiond_free(client);
        _exit(fine ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_items(client, "s", "{\"by\": \"parent\"}", "{\"by\": \"child\"}", NULL);
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(heard.r, 0);
    assert_int_equal(heard.n, 1);
    expect_items(client, "pending", A, NULL);
    sessiond_free(client);
}

/* ---- the end of a client ---- */

static void test_freeing_a_client_answers_what_is_under_way(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct heard heard = {0};

    EXPECT(client, 0, sessiond_ping(client));
    send_add(client, "s", A, &(struct hearing){&heard, 0});
    sessiond_free(client);
    assert_int_equal(heard.n, 1);
    assert_int_equal(heard.r, -ECANCELED); /* it never left */

    heard = (struct heard){0};
    client = daemon_client(daemon);
    EXPECT(client, 0, sessiond_ping(client));
    send_add(client, "s", A, &(struct hearing){&heard, 0});
    assert_int_equal(sessiond_process(client, 0), 0);
    sessiond_free(client);
    assert_int_equal(heard.n, 1);
    assert_int_equal(heard.r, SESSIOND_UNCERTAIN);
}

static void blocks(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    (void)answer;
    *(bool *)arg = r == 0 && sessiond_ping(client) == -EDEADLK && sessiond_wait(client) == -EDEADLK &&
                   sessiond_process(client, 0) == -EDEADLK;
}

static void test_a_callback_that_blocks_is_told_so(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_call call = {.method = SESSIOND_PING};
    bool told = false;

    EXPECT(client, 0, sessiond_send(client, &call, blocks, &told));
    EXPECT(client, 0, sessiond_wait(client));
    assert_true(told);
    sessiond_free(client);
}

static void sends_more(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct sessiond_call call = {.method = SESSIOND_PING};
    unsigned *n_left = arg;

    assert_int_equal(r, 0);
    assert_non_null(answer);
    if (*n_left > 0) {
        --*n_left;
        EXPECT(client, 0, sessiond_send(client, &call, sends_more, arg));
    }
}

static void retries(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct sessiond_call call = {.method = SESSIOND_PING};
    int *said = arg;

    assert_null(answer);
    if (r < 0)
        *said = sessiond_send(client, &call, retries, arg);
}

static void test_a_callback_cannot_keep_a_client_from_being_freed(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_call call = {.method = SESSIOND_PING};
    int said = 0;

    EXPECT(client, 0, sessiond_send(client, &call, retries, &said));
    sessiond_free(client);
    assert_int_equal(said, -ECANCELED);
}

static void test_a_callback_may_send_more(void **state)
{
    struct sessiond *client = daemon_client(*state);
    struct sessiond_call call = {.method = SESSIOND_PING};
    unsigned n_left = 100;

    EXPECT(client, 0, sessiond_send(client, &call, sends_more, &n_left));
    EXPECT(client, 0, sessiond_wait(client));
    assert_int_equal(n_left, 0);
    sessiond_free(client);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)
#define BARE(test) cmocka_unit_test_setup_teardown(test, daemon_setup_bare, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_add_whose_answer_is_lost_is_stored_once),
        TEST(test_a_pop_whose_answer_is_lost_takes_one_item),
        TEST(test_clear_replace_and_delete_happen_once_too),
        TEST(test_a_read_whose_answer_is_lost_is_repeated),
        TEST(test_a_call_waits_for_a_daemon_that_restarts),
        TEST(test_a_daemon_that_stays_away_is_no_uncertainty_for_what_was_not_sent),
        TEST(test_a_lost_answer_is_uncertain_and_its_key_settles_it),
        BARE(test_never_connected_fails_at_once_and_names_the_paths),
        BARE(test_a_socket_that_nobody_listens_on_is_refused),
        TEST(test_the_socket_is_looked_for_where_it_should_be),
        BARE(test_a_change_is_never_repeated_to_another_instance),
        TEST(test_busy_is_tried_again),
        TEST(test_busy_for_ever_is_an_answer_in_the_end),
        TEST(test_calls_that_are_all_busy_keep_their_order),
        TEST(test_a_busy_call_is_given_up_when_a_later_one_on_its_session_succeeds),
        BARE(test_silence_counts_as_a_broken_connection),
        BARE(test_what_is_no_sessiond_is_told_at_once),
        TEST(test_answers_with_a_wrong_byte_never_crash_a_client),
        BARE(test_a_daemon_of_another_protocol_can_still_be_asked_who_it_is),
        BARE(test_a_daemon_with_too_many_connections_is_tried_again),
        TEST(test_after_fork_the_child_has_a_connection_of_its_own),
        TEST(test_freeing_a_client_answers_what_is_under_way),
        TEST(test_a_callback_that_blocks_is_told_so),
        TEST(test_a_callback_may_send_more),
        TEST(test_a_callback_cannot_keep_a_client_from_being_freed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
