/*
 * The blocking calls: each sends one call and turns the client until that one is answered.
 */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

/* Waits for the client's descriptor or time, and processes what comes. Return: 0; -errno of poll. */
static int turn(struct sessiond *client)
{
    struct pollfd pollfd = {.fd = sessiond_fd(client), .events = sessiond_events(client)};

    if (poll(&pollfd, 1, sessiond_timeout(client)) < 0 && errno != EINTR)
        return -errno;
    return sessiond_process(client, pollfd.revents);
}

/* Where a blocking call finds its answer. */
struct outcome {
    struct call *call; /* NULL: it is answered */
    int r;
    union sessiond_answer *ret;
    struct results *results; /* the owner of what is in ret */
};

/* What was returned now belongs to the one who waits. */
static void on_answer(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct outcome *outcome = arg;

    outcome->call = NULL;
    outcome->r = r;
    if (r || !outcome->ret)
        return;
    *outcome->ret = *answer;
    outcome->results = client->answering->results;
    client->answering->results = NULL;
}

int client_perform(struct sessiond *client, const struct sessiond_call *call, union sessiond_answer *ret,
                   struct results **ret_results)
{
    struct outcome outcome = {.ret = ret};
    pid_t pid;
    int r;

    if (client->answering)
        return failure_set(&client->failure, -EDEADLK, "a callback must not block: use sessiond_send");
    r = sessiond_send(client, call, on_answer, &outcome);
    if (r)
        return r;
    outcome.call = TAILQ_LAST(&client->waiting, calls);
    pid = client->pid;
    r = sessiond_process(client, 0);
    while (outcome.call && r == 0 && client->pid == pid)
        r = turn(client);
    if (client->pid != pid)
        return failure_set(&client->failure, -ECANCELED, "this process was forked while its parent waited");
    if (outcome.call)
        call_fail(client, outcome.call, r, "waiting for the answer failed");
    if (ret_results)
        *ret_results = outcome.results;
    return outcome.r;
}

int sessiond_wait(struct sessiond *client)
{
    int r;

    if (client->answering)
        return failure_set(&client->failure, -EDEADLK, "a callback must not block");
    r = sessiond_process(client, 0);
    while (r == 0 && sessiond_pending(client) > 0)
        r = turn(client);
    return r ? failure_set(&client->failure, r, "waiting for answers failed") : 0;
}

/* ---- reading ---- */

int sessiond_get_items(struct sessiond *client, const char *session, const struct sessiond_range *range,
                       struct sessiond_items *ret)
{
    struct sessiond_call call = {.method = SESSIOND_GET_ITEMS, .session = session};
    union sessiond_answer answer;
    int r;

    if (range) {
        call.store = range->store;
        call.limit = range->limit;
        call.after = range->after;
        call.before = range->before;
        call.if_epoch = range->if_epoch;
        call.with_meta = range->with_meta;
    }
    r = client_perform(client, &call, &answer, NULL);
    if (r == 0)
        *ret = answer.items;
    return r;
}

int sessiond_list_sessions(struct sessiond *client, const struct sessiond_listing *listing,
                           struct sessiond_sessions *ret)
{
    struct sessiond_call call = {.method = SESSIOND_LIST_SESSIONS};
    union sessiond_answer answer;
    int r;

    if (listing) {
        call.store = listing->store;
        call.prefix = listing->prefix;
        call.after_id = listing->after;
        call.limit = listing->limit;
    }
    r = client_perform(client, &call, &answer, NULL);
    if (r == 0)
        *ret = answer.sessions;
    return r;
}

int sessiond_list_stores(struct sessiond *client, struct sessiond_stores *ret)
{
    struct sessiond_call call = {.method = SESSIOND_LIST_STORES};
    union sessiond_answer answer;
    int r = client_perform(client, &call, &answer, NULL);

    if (r == 0)
        *ret = answer.stores;
    return r;
}

/* ---- changes ---- */

static int perform_change(struct sessiond *client, struct sessiond_call *call, const struct sessiond_change *change,
                          union sessiond_answer *ret)
{
    if (change) {
        call->store = change->store;
        call->key = change->key;
        call->digest = change->digest;
        call->if_revision = change->if_revision;
        call->if_epoch = change->if_epoch;
        call->meta = change->meta;
        call->with_meta = change->with_meta;
    }
    return client_perform(client, call, ret, NULL);
}

static int change(struct sessiond *client, struct sessiond_call *call, const struct sessiond_change *change,
                  struct sessiond_changed *ret)
{
    union sessiond_answer answer;
    int r = perform_change(client, call, change, &answer);

    if (r == 0 && ret)
        *ret = answer.changed;
    return r;
}

int sessiond_add_items(struct sessiond *client, const char *session, const struct sessiond_text *items, size_t n_items,
                       const struct sessiond_change *how, struct sessiond_changed *ret)
{
    struct sessiond_call call = {.method = SESSIOND_ADD_ITEMS, .session = session, .items = items, .n_items = n_items};

    return change(client, &call, how, ret);
}

int sessiond_clear_session(struct sessiond *client, const char *session, const struct sessiond_change *how,
                           struct sessiond_changed *ret)
{
    struct sessiond_call call = {.method = SESSIOND_CLEAR_SESSION, .session = session};

    return change(client, &call, how, ret);
}

int sessiond_replace_items(struct sessiond *client, const char *session, uint64_t from_seq,
                           const struct sessiond_text *items, size_t n_items, const struct sessiond_change *how,
                           struct sessiond_changed *ret)
{
    struct sessiond_call call = {
        .method = SESSIOND_REPLACE_ITEMS, .session = session, .items = items, .n_items = n_items};

    call.from_seq = (struct sessiond_number){from_seq > 0, from_seq};
    return change(client, &call, how, ret);
}

int sessiond_delete_session(struct sessiond *client, const char *session, const struct sessiond_change *how,
                            struct sessiond_changed *ret)
{
    struct sessiond_call call = {.method = SESSIOND_DELETE_SESSION, .session = session};

    return change(client, &call, how, ret);
}

int sessiond_pop_item(struct sessiond *client, const char *session, const struct sessiond_change *how,
                      struct sessiond_popped *ret)
{
    struct sessiond_call call = {.method = SESSIOND_POP_ITEM, .session = session};
    union sessiond_answer answer;
    int r = perform_change(client, &call, how, &answer);

    if (r)
        return r;
    if (ret)
        *ret = answer.popped;
    else
        sessiond_popped_free(&answer.popped);
    return 0;
}

/* ---- the daemon ---- */

int sessiond_ping(struct sessiond *client)
{
    struct sessiond_call call = {.method = SESSIOND_PING};

    return client_perform(client, &call, NULL, NULL);
}

int sessiond_hello(struct sessiond *client, struct sessiond_hello *ret)
{
    int r = sessiond_ping(client); /* which cannot come before the greeting */

    if (r)
        return r;
    if (client->refusal.error.code) {
        failure_copy(&client->failure, &client->refusal);
        return client->failure.error.code;
    }
    if (ret)
        *ret = client->hello;
    return 0;
}

int sessiond_recover(struct sessiond *client, const char *store, uint64_t *ret_missing)
{
    struct sessiond_call call = {.method = SESSIOND_RECOVER, .store = store};
    union sessiond_answer answer;
    int r = client_perform(client, &call, &answer, NULL);

    if (r == 0 && ret_missing)
        *ret_missing = answer.missing;
    return r;
}

/* Calls what answers with one text. */
static int get_text(struct sessiond *client, enum sessiond_method method, char **ret)
{
    struct sessiond_call call = {.method = method};
    union sessiond_answer answer;
    struct results *results;
    char *text;
    int r = client_perform(client, &call, &answer, &results);

    if (r)
        return r;
    text = strdup(method == SESSIOND_STATS ? answer.top.text.data : answer.info.data);
    results_free(results);
    if (!text)
        return failure_set(&client->failure, -ENOMEM, "no memory for the answer");
    *ret = text;
    return 0;
}

int sessiond_info(struct sessiond *client, char **ret_json)
{
    return get_text(client, SESSIOND_INFO, ret_json);
}

int sessiond_stats(struct sessiond *client, char **ret_text)
{
    return get_text(client, SESSIOND_STATS, ret_text);
}

int sessiond_stats_top(struct sessiond *client, uint64_t n, struct sessiond_top *ret)
{
    struct sessiond_call call = {.method = SESSIOND_STATS, .top = SESSIOND_SOME(n)};
    union sessiond_answer answer;
    int r = client_perform(client, &call, &answer, NULL);

    if (r == 0)
        *ret = answer.top;
    return r;
}
