#include "client.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LONG_PAST = 1 }; /* ms on the clock, in which 0 means that there is no such time */

int64_t client_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- life ---- */

static int copy_string(char **ret, const char *from)
{
    *ret = from ? strdup(from) : NULL;
    return from && !*ret ? -ENOMEM : 0;
}

static int copy_options(struct sessiond *client, const struct sessiond_options *options)
{
    int r = copy_string(&client->socket, options->socket);

    if (r == 0)
        r = copy_string(&client->store, options->store);
    if (r == 0)
        r = copy_string(&client->name, options->name ? options->name : program_invocation_short_name);
    client->owner = options->owner;
    client->retry_ms = options->retry_ms ? options->retry_ms : CLIENT_RETRY_MS;
    client->silence_ms = options->silence_ms ? options->silence_ms : CLIENT_SILENCE_MS;
    return r;
}

static void client_free(struct sessiond *client)
{
    if (client->fd >= 0)
        close(client->fd);
    buf_deinit(&client->input);
    buf_deinit(&client->greeting);
    free(client->socket);
    free(client->store);
    free(client->name);
    free(client);
}

int sessiond_new(struct sessiond **ret, const struct sessiond_options *options)
{
    static const struct sessiond_options defaults;
    struct sessiond *client;

    if (options && options->socket && !*options->socket)
        return -EINVAL;
    client = calloc(1, sizeof(*client));
    if (!client)
        return -ENOMEM;
    client->fd = -1;
    client->pid = getpid();
    client->frame_max = PROTO_FRAME_MAX;
    TAILQ_INIT(&client->waiting);
    TAILQ_INIT(&client->sent);
    if (copy_options(client, options ? options : &defaults)) {
        client_free(client);
        return -ENOMEM;
    }
    *ret = client;
    return 0;
}

void sessiond_free(struct sessiond *client)
{
    struct call *call;

    if (!client)
        return;
    assert(!client->answering);
    client_adopt(client);
    client->closing = true;
    while ((call = TAILQ_FIRST(&client->sent)) || (call = TAILQ_FIRST(&client->waiting)))
        call_fail(client, call, -ECANCELED, "the client was closed before the answer came");
    client_free(client);
}

/* ---- fork ---- */

static void drop_calls(struct sessiond *client, struct calls *calls)
{
    struct call *call;

    while ((call = TAILQ_FIRST(calls))) {
        client_unlink(client, call);
        client->n_calls--;
        client->n_bytes -= call->charged;
        call_free(call);
    }
}

void client_adopt(struct sessiond *client)
{
    pid_t pid = getpid();

    if (client->pid == pid)
        return;
    client->pid = pid;
    if (client->fd >= 0)
        close(client->fd); /* the parent's own descriptor stays open */
    client->fd = -1;
    client->state = CLIENT_DOWN;
    client->n_connections++;
    client->partial = NULL;
    client->scan = FRAME_SCAN_INIT;
    client->connect_at = client->backoff_ms = 0;
    buf_deinit(&client->input);
    drop_calls(client, &client->sent);
    drop_calls(client, &client->waiting);
}

/* ---- the two lists ---- */

void client_requeue(struct sessiond *client, struct call *call)
{
    struct call *other;

    TAILQ_FOREACH (other, &client->waiting, link)
        if (other->number > call->number)
            break;
    if (other)
        TAILQ_INSERT_BEFORE(other, call, link);
    else
        TAILQ_INSERT_TAIL(&client->waiting, call, link);
    call->list = &client->waiting;
}

void client_mark_sent(struct sessiond *client, struct call *call)
{
    TAILQ_INSERT_TAIL(&client->sent, call, link);
    call->list = &client->sent;
    call->begun = true;
    client->n_slow += call->method->slow;
    client->n_reading += call->method == &call_methods[SESSIOND_GET_ITEMS];
}

void client_unlink(struct sessiond *client, struct call *call)
{
    TAILQ_REMOVE(call->list, call, link);
    if (call->list == &client->sent) {
        client->n_slow -= call->method->slow;
        client->n_reading -= call->method == &call_methods[SESSIOND_GET_ITEMS];
    }
    client->n_busy -= call->refused_busy;
    call->refused_busy = false;
    call->list = NULL;
}

/* ---- answering ---- */

/* Whether a refusal also says that an earlier sending of the same change was not carried out: these are decided after
 * the key was looked up, or for any request alike. */
static bool is_final(int code)
{
    static const bool final[SESSIOND_N_CODES] = {
        [SESSIOND_INVALID] = true,  [SESSIOND_UNKNOWN_METHOD] = true, [SESSIOND_NOT_FOUND] = true,
        [SESSIOND_CONFLICT] = true, [SESSIOND_KEY_REUSED] = true,     [SESSIOND_TOO_LARGE] = true,
    };

    return code > 0 && code < SESSIOND_N_CODES && final[code];
}

/* A change that may have been made is never called a failure: its outcome is unknown. */
static int judge(struct sessiond *client, const struct call *call, int r)
{
    bool maybe_made = call->method->change && (call->unsure || (call->written && r < 0));
    char message[CLIENT_MESSAGE_SIZE];

    if (!maybe_made || is_final(r) || r == SESSIOND_UNCERTAIN)
        return r;
    memcpy(message, client->failure.message, sizeof(message));
    return failure_set(&client->failure, SESSIOND_UNCERTAIN,
                       "it is unknown whether the change was made; repeat it with the same key. The reason: %.400s",
                       message);
}

static void name_key(struct sessiond *client, const struct call *call)
{
    struct failure *failure = &client->failure;
    struct slice key = call->question.key;

    if (!call->method->change || !key.data || key.size >= sizeof(failure->key))
        return;
    memcpy(failure->key, key.data, key.size + 1);
    failure->error.key = failure->key;
}

void call_finish(struct sessiond *client, struct call *call, int r)
{
    if (call->list)
        client_unlink(client, call);
    client->n_calls--;
    client->n_bytes -= call->charged;
    if (r) {
        r = judge(client, call, r);
        name_key(client, call);
    }
    client->answering = call;
    call->callback(client, r, r ? NULL : &call->answer, call->arg);
    client->answering = NULL;
    call_free(call);
    client_adopt(client); /* the callback may have forked */
}

void call_fail(struct sessiond *client, struct call *call, int r, const char *format, ...)
{
    char message[CLIENT_MESSAGE_SIZE];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    call_finish(client, call, failure_set(&client->failure, r, "%s", message));
}

/* A callback may send more; what comes in meanwhile is not meant. */
void client_fail_waiting(struct sessiond *client, bool (*picks)(const struct call *call), int r, const char *message)
{
    uint64_t end = client->next_number;
    struct call *call = TAILQ_FIRST(&client->waiting);

    while (call && call->number < end) {
        uint64_t number = call->number;

        if (!picks || picks(call))
            call_fail(client, call, r, "%s", message);
        TAILQ_FOREACH (call, &client->waiting, link)
            if (call->number > number)
                break;
    }
}

/* ---- responses ---- */

static struct call *find_sent(struct sessiond *client, uint32_t msgid)
{
    struct call *call;

    TAILQ_FOREACH (call, &client->sent, link)
        if (call->msgid == msgid && call->written)
            return call;
    return NULL;
}

/* Sends the call again later, unless it has been trying for too long. */
static void retry_busy(struct sessiond *client, struct call *call)
{
    int64_t now = client_now_ms();
    int64_t after = client->failure.error.retry_after_ms > 0 ? client->failure.error.retry_after_ms : 1;

    if (!call->give_up_at)
        call->give_up_at = now + client->retry_ms;
    if (after > call->give_up_at - now) {
        call_finish(client, call, SESSIOND_BUSY);
        return;
    }
    client_unlink(client, call);
    call->written = false;
    call->refused_busy = true;
    client->n_busy++;
    if (client->busy_until < now + after)
        client->busy_until = now + after;
    client_requeue(client, call);
}

/* A later call on its session has succeeded: the busy one must not happen after it. */
static void give_up_overtaken(struct sessiond *client, const struct call *done)
{
    struct call *call;

    TAILQ_FOREACH (call, &client->waiting, link)
        if (call->refused_busy && call->number < done->number && call_same_session(call, done))
            call->give_up_at = LONG_PAST;
}

/* Sends the changed question: another page, or the first one anew. */
static void ask_again(struct sessiond *client, struct call *call)
{
    client_unlink(client, call);
    call->begun = call->written = call->unsure = false;
    call->give_up_at = 0;
    client_requeue(client, call);
    if (call_pack(call, client))
        call_fail(client, call, -ENOMEM, "no memory for the next page");
}

static int take_error(struct sessiond *client, struct call *call, const struct message *message)
{
    int r = failure_read(&client->failure, message, message->error);

    if (r < 0)
        return r;
    if (r == SESSIOND_CONFLICT && call->paging && call->n_restarts++ < CLIENT_RESTARTS_MAX) {
        call_restart(call);
        ask_again(client, call);
    } else if (r == SESSIOND_BUSY) {
        retry_busy(client, call);
    } else {
        call_finish(client, call, r);
    }
    return 0;
}

int client_take_response(struct sessiond *client, const struct message *message, size_t frame_size)
{
    struct call *call = find_sent(client, message->msgid);
    char why[MESSAGE_WHY_SIZE] = "";
    bool more = false;
    int r;

    if (!call)
        return -EPROTO;
    client->backoff_ms = 0; /* this daemon works */
    if (message->error)
        return take_error(client, call, message);
    r = call->method->read(call, message, frame_size, &more, why);
    if (r > 0 || r == -EPROTO)
        return -EPROTO;
    if (client->n_busy > 0)
        give_up_overtaken(client, call);
    if (r < 0) {
        call_fail(client, call, r, "no memory for the answer");
        return 0;
    }
    call->paging = more;
    if (more)
        ask_again(client, call);
    else
        call_finish(client, call, 0);
    return 0;
}

/* ---- time ---- */

/* Whether calls that wait are waiting for better times, and not just for their turn. */
static bool in_trouble(const struct sessiond *client)
{
    return client->state != CLIENT_READY || client->n_busy > 0;
}

static void expire(struct sessiond *client, int64_t now)
{
    struct call *call, *next;

    for (call = TAILQ_FIRST(&client->waiting); call && in_trouble(client); call = next) {
        next = TAILQ_NEXT(call, link);
        if (!call->give_up_at || call->give_up_at > now)
            continue;
        if (call->refused_busy)
            call_fail(client, call, SESSIOND_BUSY, "the daemon was busy, and stayed so or went on with later calls");
        else
            call_fail(client, call, client->lost_code ? client->lost_code : -ETIMEDOUT, "%s",
                      client->lost_code ? client->lost : "sessiond does not answer");
        next = TAILQ_FIRST(&client->waiting);
    }
}

/* Return: 0; < 0: there is no daemon, and there never was one. */
static int try_to_connect(struct sessiond *client)
{
    int r = connection_open(client);

    return client->hello.socket[0] || r == -EAGAIN ? 0 : r;
}

/* What is due. */
static void tend(struct sessiond *client)
{
    int64_t now = client_now_ms();
    int r;

    if (connection_expects(client) && client->n_slow == 0 && now - client->progress_at >= client->silence_ms)
        connection_lose(client, -ETIMEDOUT, "sessiond has not answered for too long");
    if (in_trouble(client))
        expire(client, now);
    if (client->state != CLIENT_DOWN || TAILQ_EMPTY(&client->waiting) || client->connect_at > now)
        return;
    r = try_to_connect(client);
    if (r)
        client_fail_waiting(client, NULL, r, client->lost);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int sessiond_timeout(const struct sessiond *client)
{
    int64_t at = INT64_MAX, left;
    const struct call *call;

    if (client->state == CLIENT_DOWN && !TAILQ_EMPTY(&client->waiting))
        at = client->connect_at;
    if (connection_expects(client) && client->n_slow == 0)
        at = earlier(at, client->progress_at + client->silence_ms);
    if (in_trouble(client))
        TAILQ_FOREACH (call, &client->waiting, link)
            at = earlier(at, call->give_up_at ? call->give_up_at : at);
    if (client->state == CLIENT_READY && client->n_busy > 0 && TAILQ_EMPTY(&client->sent))
        at = earlier(at, client->busy_until);
    if (at == INT64_MAX)
        return -1;
    left = at - client_now_ms();
    return left < 0 ? 0 : (int)earlier(left, INT_MAX);
}

/* ---- sending and processing ---- */

static int check_room(struct sessiond *client, const struct call *call)
{
    if (client->n_calls == 0 ||
        (client->n_calls < CLIENT_CALLS_MAX && client->n_bytes + call->frame.size <= CLIENT_BYTES_MAX))
        return 0;
    return failure_set(&client->failure, -ENOBUFS, "too many calls are under way: wait for some to be answered");
}

/* There is no use in accepting calls that are sure to fail. */
static int check_daemon(struct sessiond *client, const struct call *call)
{
    int r = 0;

    if (client->state == CLIENT_DOWN && !client->hello.socket[0] && client->connect_at <= client_now_ms())
        r = try_to_connect(client);
    if (r)
        return failure_set(&client->failure, r, "%s", client->lost);
    if (connection_refuses(client, call)) {
        failure_copy(&client->failure, &client->refusal);
        return client->failure.error.code;
    }
    return 0;
}

int sessiond_send(struct sessiond *client, const struct sessiond_call *ask, sessiond_answer_fn *callback, void *arg)
{
    struct call *call;
    int r;

    client_adopt(client);
    if (client->closing)
        return failure_set(&client->failure, -ECANCELED, "the client is being closed");
    if (!callback)
        return failure_set(&client->failure, -EINVAL, "a call needs a callback: nobody would hear of its failure");
    r = call_new(&call, client, ask);
    if (r)
        return r;
    r = check_room(client, call);
    if (r == 0)
        r = check_daemon(client, call);
    if (r) {
        name_key(client, call);
        call_free(call);
        return r;
    }
    call->callback = callback;
    call->arg = arg;
    call->number = client->next_number++;
    call->charged = call->frame.size;
    if (client->state != CLIENT_READY)
        call->give_up_at = client_now_ms() + client->retry_ms;
    client->n_calls++;
    client->n_bytes += call->charged;
    TAILQ_INSERT_TAIL(&client->waiting, call, link);
    call->list = &client->waiting;
    return 0;
}

size_t sessiond_pending(const struct sessiond *client)
{
    return client->pid == getpid() ? client->n_calls : 0;
}

int sessiond_fd(const struct sessiond *client)
{
    return client->pid == getpid() ? client->fd : -1;
}

short sessiond_events(const struct sessiond *client)
{
    if (sessiond_fd(client) < 0)
        return 0;
    return connection_wants_write(client) ? POLLIN | POLLOUT : POLLIN;
}

int sessiond_process(struct sessiond *client, short revents)
{
    if (client->answering)
        return -EDEADLK;
    client_adopt(client);
    if (client->fd >= 0 && revents & ~POLLOUT)
        connection_read(client);
    tend(client);
    connection_write(client);
    return 0;
}
