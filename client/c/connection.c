#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "utf8.h"

enum {
    READ_SIZE = 64 * 1024,
    READS_MAX = 64,    /* in one turn, so that a talkative daemon leaves time for writing */
    WRITE_FRAMES = 64, /* in one system call */
    BACKOFF_FIRST_MS = 10,
    BACKOFF_LAST_MS = 1000,
    CANDIDATE_SIZE = 4096,
};

/* ---- where is the daemon? ---- */

struct candidates {
    char paths[3][CANDIDATE_SIZE];
    unsigned n;
    bool only; /* there was no choice: the path was given */
};

__attribute__((format(printf, 2, 3))) static void add_candidate(struct candidates *candidates, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(candidates->paths[candidates->n++], CANDIDATE_SIZE, format, arguments);
    va_end(arguments);
}

static void find_candidates(struct candidates *candidates, const struct sessiond *client)
{
    const char *given = client->hello.socket[0] ? client->hello.socket : client->socket;
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    candidates->n = 0;
    if (!given)
        given = getenv("SESSIOND_SOCKET");
    candidates->only = given && *given;
    if (candidates->only) {
        add_candidate(candidates, "%s", given);
        return;
    }
    if (runtime && *runtime)
        add_candidate(candidates, "%s/sessiond/sessiond.sock", runtime);
    add_candidate(candidates, "/run/user/%u/sessiond/sessiond.sock", (unsigned)getuid());
    add_candidate(candidates, "/run/sessiond/sessiond.sock");
}

/* A path that cannot be looked at is there as far as we know: to go past it could split a history. */
static bool exists(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* Notes that there is no daemon, and what to do about it. */
static int not_found(struct sessiond *client, const struct candidates *candidates)
{
    char tried[CLIENT_MESSAGE_SIZE] = "";
    size_t size = 0;

    for (unsigned i = 0; i < candidates->n && size < sizeof(tried); i++)
        size += (size_t)snprintf(tried + size, sizeof(tried) - size, "%s%s", i > 0 ? ", " : "", candidates->paths[i]);
    (void)snprintf(
        client->lost, sizeof(client->lost),
        "no sessiond is there (tried %.300s); start it: `systemctl --user start sessiond`, or run `sessiond`", tried);
    return client->lost_code = -ENOENT;
}

/* Notes why there is no connection to this path. */
static int not_connected(struct sessiond *client, const char *path, int error)
{
    const char *advice =
        error == ECONNREFUSED ? "; start it: `systemctl --user start sessiond`, or run `sessiond`" : "";

    (void)snprintf(client->lost, sizeof(client->lost), "no connection to sessiond at %.300s: %s%s", path,
                   strerrordesc_np(error), advice);
    return client->lost_code = -error;
}

static int choose_path(struct sessiond *client, char ret[PROTO_SOCKET_PATH_MAX + 1])
{
    struct candidates candidates;

    find_candidates(&candidates, client);
    for (unsigned i = 0; i < candidates.n; i++) {
        const char *path = candidates.paths[i];

        if (!exists(path))
            continue;
        if (strlen(path) > PROTO_SOCKET_PATH_MAX)
            return not_connected(client, path, ENAMETOOLONG);
        (void)snprintf(ret, PROTO_SOCKET_PATH_MAX + 1, "%.*s", PROTO_SOCKET_PATH_MAX, path);
        return 0;
    }
    return not_found(client, &candidates);
}

/* ---- connecting and greeting ---- */

static int pack_greeting(struct sessiond *client)
{
    struct buf *greeting = &client->greeting;
    struct slice name = {client->name, strnlen(client->name, PROTO_CLIENT_NAME_MAX)};
    bool named = name.size > 0 && utf8_valid(name);

    buf_deinit(greeting);
    client->greeting_msgid = client->next_msgid++;
    pack_request(greeting, client->greeting_msgid, "hello");
    pack_map(greeting, 1 + (size_t)named + (size_t)client->owner.given);
    if (named)
        pack_pair_text(greeting, "client", name);
    pack_text(greeting, slice_of("protocol"));
    pack_array(greeting, 2);
    pack_number(greeting, PROTO_VERSION);
    pack_number(greeting, PROTO_VERSION);
    if (client->owner.given)
        pack_pair_number(greeting, "owner", client->owner.value);
    return greeting->failed ? -ENOMEM : 0;
}

/* Connecting to a Unix socket succeeds or fails at once; a full backlog shows as EAGAIN. */
static int connect_to(struct sessiond *client, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error;

    if (fd < 0)
        return not_connected(client, path, errno);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    error = errno;
    close(fd);
    return not_connected(client, path, error);
}

/* When to try again: at once the first time, then after longer and longer times, until an answer has come. */
static void back_off(struct sessiond *client)
{
    client->connect_at = client_now_ms() + client->backoff_ms;
    client->backoff_ms = client->backoff_ms ? client->backoff_ms * 2 : BACKOFF_FIRST_MS;
    if (client->backoff_ms > BACKOFF_LAST_MS)
        client->backoff_ms = BACKOFF_LAST_MS;
}

/* Return: a connected socket, or < 0. */
static int find_and_connect(struct sessiond *client)
{
    int r = choose_path(client, client->path);

    if (r)
        return r;
    if (pack_greeting(client))
        return not_connected(client, client->path, ENOMEM);
    return connect_to(client, client->path);
}

int connection_open(struct sessiond *client)
{
    int fd = find_and_connect(client);

    if (fd < 0) {
        back_off(client);
        return fd;
    }
    client->fd = fd;
    client->state = CLIENT_GREETING;
    client->n_connections++;
    client->n_written = 0;
    client->lost_code = 0;
    client->progress_at = client_now_ms();
    return 0;
}

struct hello_map {
    struct slice version, instance;
    struct number protocol, uid;
    const struct value *limits;
};

static const struct field hello_fields[] = {
    {"version", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct hello_map, version), 0, 0},
    {"instance", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct hello_map, instance), 1,
     sizeof(((struct sessiond_hello *)NULL)->instance) - 1},
    {"protocol", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct hello_map, protocol), 0, 0},
    {"uid", FIELD_NUMBER, FIELD_REQUIRED, offsetof(struct hello_map, uid), 0, 0},
    {"limits", FIELD_VALUE, FIELD_NIL, offsetof(struct hello_map, limits), 0, 0},
    {0},
};

struct limits_map {
    struct number frame_bytes;
};

static const struct field limits_fields[] = {
    {"frame_bytes", FIELD_NUMBER, FIELD_NIL, offsetof(struct limits_map, frame_bytes), 0, 0},
    {0},
};

static void copy_text(char *to, size_t size, struct slice text)
{
    (void)snprintf(to, size, "%.*s", (int)(text.size < size ? text.size : size - 1), text.data);
}

/* Another instance never saw what was sent to the last one: a change may have happened there or not, and that is for
 * its sender to find out; a read begins anew. */
static void leave_instance(struct sessiond *client)
{
    struct call *call, *next;

    for (call = TAILQ_FIRST(&client->waiting); call; call = next) {
        next = TAILQ_NEXT(call, link);
        if (call->unsure && call->method->change) {
            call_fail(client, call, SESSIOND_UNCERTAIN, "the daemon at %s is another one now, with other data",
                      client->path);
            next = TAILQ_FIRST(&client->waiting);
        } else if (call->paging) {
            call_restart(call);
            if (call_pack(call, client)) {
                call_fail(client, call, -ENOMEM, "no memory to begin reading anew");
                next = TAILQ_FIRST(&client->waiting);
            }
        }
    }
}

static bool is_any(const struct call *call)
{
    (void)call;
    return true;
}

static bool is_more_than_a_question(const struct call *call)
{
    return call->method != &call_methods[SESSIOND_PING] && call->method != &call_methods[SESSIOND_INFO];
}

bool connection_refuses(const struct sessiond *client, const struct call *call)
{
    return client->state == CLIENT_READY && client->refusal.error.code &&
           (client->owner.given || is_more_than_a_question(call));
}

/* The daemon does not speak our version: ping and info work all the same, unless they were for another owner. */
static int take_refusal(struct sessiond *client, const struct message *message)
{
    int r = failure_read(&client->refusal, message, message->error);

    if (r < 0)
        return r;
    client->state = CLIENT_READY;
    client->n_written = 0;
    client_fail_waiting(client, client->owner.given ? is_any : is_more_than_a_question, r, client->refusal.message);
    return 0;
}

static void become_ready(struct sessiond *client)
{
    struct call *call;

    client->refusal.error.code = 0;
    client->state = CLIENT_READY;
    client->n_written = 0;
    TAILQ_FOREACH (call, &client->waiting, link)
        if (!call->begun)
            call->give_up_at = 0; /* it only waited for the greeting */
}

static int take_greeting(struct sessiond *client, const struct message *message)
{
    struct sessiond_hello *hello = &client->hello;
    struct hello_map map = {0};
    struct limits_map limits = {0};
    char why[MESSAGE_WHY_SIZE];
    bool moved;

    if (message->error)
        return take_refusal(client, message);
    if (message_read(message, message->result, hello_fields, MESSAGE_IGNORE_UNKNOWN, &map, why) ||
        message_read(message, map.limits, limits_fields, MESSAGE_IGNORE_UNKNOWN, &limits, why))
        return -EPROTO;
    moved = hello->socket[0] && !slice_equal(slice_of(hello->instance), map.instance);
    memcpy(hello->socket, client->path, sizeof(hello->socket));
    copy_text(hello->instance, sizeof(hello->instance), map.instance);
    copy_text(hello->version, sizeof(hello->version), map.version);
    hello->protocol = map.protocol.value;
    hello->uid = map.uid.value;
    client->frame_max = limits.frame_bytes.present ? limits.frame_bytes.value : PROTO_FRAME_MAX;
    become_ready(client);
    if (moved)
        leave_instance(client);
    return 0;
}

/* ---- losing it ---- */

static void forget_connection(struct sessiond *client)
{
    close(client->fd);
    client->fd = -1;
    client->state = CLIENT_DOWN;
    client->partial = NULL;
    client->n_written = 0;
    client->scan = FRAME_SCAN_INIT;
    buf_deinit(&client->input);
}

void connection_lose(struct sessiond *client, int code, const char *reason)
{
    int64_t now = client_now_ms();
    struct call *call;

    forget_connection(client);
    if (!client->lost_code) { /* else the daemon has said why */
        client->lost_code = code;
        (void)snprintf(client->lost, sizeof(client->lost), "%s", reason);
    }
    while ((call = TAILQ_LAST(&client->sent, calls))) {
        client_unlink(client, call);
        call->unsure |= call->written;
        call->written = false;
        client_requeue(client, call);
    }
    TAILQ_FOREACH (call, &client->waiting, link)
        if (!call->give_up_at)
            call->give_up_at = now + client->retry_ms;
    back_off(client);
    if (code == -EPROTO && !client->hello.socket[0])
        client_fail_waiting(client, NULL, code, client->lost); /* it never was a sessiond */
}

/* ---- reading ---- */

/* The daemon says why it is about to hang up. */
static void take_notification(struct sessiond *client, const struct message *message)
{
    struct failure failure;
    int r;

    if (!slice_equal(message->method, slice_of("error")))
        return; /* of a newer daemon */
    r = failure_read(&failure, message, message->params);
    if (r > 0) {
        client->lost_code = r;
        (void)snprintf(client->lost, sizeof(client->lost), "sessiond hung up: %.400s", failure.message);
    }
}

static int take_message(struct sessiond *client, const struct message *message, size_t frame_size)
{
    if (message->type == MESSAGE_NOTIFICATION) {
        take_notification(client, message);
        return 0;
    }
    if (message->type != MESSAGE_RESPONSE)
        return -EPROTO;
    if (client->state == CLIENT_GREETING)
        return message->msgid == client->greeting_msgid ? take_greeting(client, message) : -EPROTO;
    return client_take_response(client, message, frame_size);
}

static int take_frame(struct sessiond *client, struct slice frame)
{
    struct message message = {0};
    char why[MESSAGE_WHY_SIZE];
    bool answerable;
    int r = message_parse(&message, frame, &answerable, why);

    if (r)
        return r < 0 ? r : -EPROTO;
    r = take_message(client, &message, frame.size);
    message_deinit(&message);
    return r;
}

/* Takes all whole frames of the input. A callback may have forked: in the child the connection is another one then. */
static int take_input(struct sessiond *client)
{
    unsigned connection = client->n_connections;
    size_t taken = 0;
    int r = 0;

    while (r == 0 && client->n_connections == connection && client->input.size > taken) {
        const char *data = client->input.data + taken;
        enum frame_state state = frame_scan(&client->scan, data, client->input.size - taken);
        size_t size = client->scan.offset;

        if (state == FRAME_PARTIAL)
            break;
        if (state != FRAME_WHOLE)
            return -EPROTO;
        client->scan = FRAME_SCAN_INIT;
        r = take_frame(client, (struct slice){data, size});
        taken += size;
    }
    if (client->n_connections == connection)
        buf_drop(&client->input, taken);
    return r;
}

/* Return: > 0 bytes read; 0: nothing there at the moment; < 0: the connection ended. *ret_drained: that was all. */
static ssize_t read_some(struct sessiond *client, bool *ret_drained)
{
    char *room = buf_reserve(&client->input, READ_SIZE);
    size_t size = client->input.capacity - client->input.size;
    ssize_t n;

    if (!room)
        return -ENOMEM;
    do
        n = recv(client->fd, room, size, 0);
    while (n < 0 && errno == EINTR);
    *ret_drained = n < (ssize_t)size;
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n == 0)
        return -ECONNRESET;
    buf_grow(&client->input, (size_t)n);
    client->progress_at = client_now_ms();
    return n;
}

void connection_read(struct sessiond *client)
{
    unsigned connection = client->n_connections;
    bool drained = false;

    for (unsigned i = 0; i < READS_MAX && !drained && client->n_connections == connection; i++) {
        ssize_t n = read_some(client, &drained);
        int r = n > 0 ? take_input(client) : (int)n;

        if (n == 0 || client->n_connections != connection)
            return;
        if (r == -EPROTO)
            connection_lose(client, r, "what answers there does not speak the protocol of sessiond");
        else if (r < 0)
            connection_lose(client, r, "the connection to sessiond broke");
        if (r < 0)
            return;
    }
}

/* ---- writing ---- */

/* While a history is being read in pages, later changes to it wait: the reader must not see them. And after `busy`
 * nothing leaves before all that was sent is answered: what comes next may have to come after the refused call. */
static bool must_wait(const struct sessiond *client, const struct call *call)
{
    const struct call *other;

    if (client->n_busy > 0 && (!TAILQ_EMPTY(&client->sent) || client_now_ms() < client->busy_until))
        return true;
    if (call->method->change && client->n_reading > 0)
        TAILQ_FOREACH (other, &client->sent, link)
            if (other->method == &call_methods[SESSIOND_GET_ITEMS] && call_same_session(other, call))
                return true;
    return false;
}

bool connection_wants_write(const struct sessiond *client)
{
    const struct call *next = TAILQ_FIRST(&client->waiting);

    switch (client->state) {
    case CLIENT_DOWN:
        return false;
    case CLIENT_GREETING:
        return client->n_written < client->greeting.size;
    case CLIENT_READY:
        return client->partial || (next && !must_wait(client, next));
    }
    return false;
}

bool connection_expects(const struct sessiond *client)
{
    return client->state == CLIENT_GREETING || !TAILQ_EMPTY(&client->sent);
}

/* Return: > 0 bytes written; 0: no room at the moment; < 0: the connection ended. */
static ssize_t write_some(struct sessiond *client, struct iovec *parts, size_t n_parts)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = n_parts};
    ssize_t n;

    do
        n = sendmsg(client->fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    client->progress_at = client_now_ms();
    return n;
}

static struct iovec rest_of(const struct buf *frame, size_t n_written)
{
    return (struct iovec){frame->data + n_written, frame->size - n_written};
}

static ssize_t write_greeting(struct sessiond *client)
{
    struct iovec part = rest_of(&client->greeting, client->n_written);
    ssize_t n = write_some(client, &part, 1);

    if (n > 0)
        client->n_written += (size_t)n;
    return n;
}

/* What leaves next: the rest of the frame that is cut, then calls that wait. */
static size_t gather(struct sessiond *client, struct iovec parts[WRITE_FRAMES])
{
    struct call *call;
    size_t n = 0;

    if (client->partial)
        parts[n++] = rest_of(&client->partial->frame, client->n_written);
    TAILQ_FOREACH (call, &client->waiting, link) {
        if (n == WRITE_FRAMES || must_wait(client, call))
            break;
        parts[n++] = rest_of(&call->frame, 0);
        if (call->method == &call_methods[SESSIOND_GET_ITEMS])
            break; /* once it counts as sent, must_wait sees it */
    }
    return n;
}

/* The next call in line has begun to leave. */
static struct call *begin_call(struct sessiond *client)
{
    struct call *call = TAILQ_FIRST(&client->waiting);

    client_unlink(client, call);
    client_mark_sent(client, call);
    return call;
}

static void count_written(struct sessiond *client, size_t n)
{
    while (n > 0) {
        struct call *call = client->partial ? client->partial : begin_call(client);
        size_t rest = call->frame.size - client->n_written;

        if (n < rest) {
            client->partial = call;
            client->n_written += n;
            return;
        }
        n -= rest;
        call->written = true;
        client->partial = NULL;
        client->n_written = 0;
    }
}

static ssize_t write_calls(struct sessiond *client)
{
    struct iovec parts[WRITE_FRAMES];
    ssize_t n = write_some(client, parts, gather(client, parts));

    if (n > 0)
        count_written(client, (size_t)n);
    return n;
}

void connection_write(struct sessiond *client)
{
    unsigned connection = client->n_connections;
    ssize_t n = 1;

    while (n > 0 && connection_wants_write(client))
        n = client->state == CLIENT_GREETING ? write_greeting(client) : write_calls(client);
    if (n >= 0)
        return;
    connection_read(client); /* answers may have come before it broke, and the reason */
    if (client->fd >= 0 && client->n_connections == connection)
        connection_lose(client, (int)n, "the connection to sessiond broke");
}
