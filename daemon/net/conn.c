#include "net/conn.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/peer.h"
#include "net/server.h"
#include "store/caller.h"

enum {
    TURN_REQUESTS = 64, /* of one connection in one turn of the loop, */
    TURN_BYTES = 1024 * 1024,
    REFUSALS = 16,      /* `busy` answers to a connection before it is paused, */
    PAUSE_MAX_MS = 100, /* for so long at most */
    SPARE_INPUT = 2048, /* of a connection whose uid has all that it may: enough to be told so, */
    SPARE_OUTPUT = 4096,
};

static const struct config *config_of(const struct conn *conn)
{
    return conn->server->daemon->config;
}

static size_t unsent(const struct conn *conn)
{
    return conn->output.size + uv_stream_get_write_queue_size((const uv_stream_t *)&conn->pipe);
}

/* The caller pays for what is buffered. What comes from outside is charged before it is taken, in on_read; answers were
 * charged while they were made. */
static void charge(struct conn *conn)
{
    if (conn->caller)
        account_settle(conn->caller->account, ACCOUNT_BYTES, &conn->charged,
                       conn->input.capacity + conn->output.capacity + conn->writing.capacity);
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle)
{
    struct conn *conn = (struct conn *)handle;
    struct server *server = conn->server;

    list_remove(&conn->link);
    buf_deinit(&conn->input);
    buf_deinit(&conn->output);
    buf_deinit(&conn->writing);
    charge(conn);
    if (conn->counted)
        account_give_back(conn->caller->account, ACCOUNT_CONNECTIONS, 1);
    caller_release(conn->caller);
    server->daemon->n_connections--;
    free(conn);
    server_check_stopped(server);
}

void conn_close(struct conn *conn)
{
    struct list *link;

    if (conn->closing)
        return;
    conn->closing = true;
    list_remove(&conn->dirty);
    list_remove(&conn->hungry);
    list_remove(&conn->paused);
    while ((link = list_pop(&conn->requests)))
        CONTAINER_OF(link, struct request, link)->connection = NULL;
    uv_close((uv_handle_t *)&conn->pipe, on_closed);
}

static bool is_idle(const struct conn *conn)
{
    return conn->n_requests == 0 && unsent(conn) == 0 && list_is_empty(&conn->hungry) && list_is_empty(&conn->paused);
}

static void update_reading(struct conn *conn);

void conn_end(struct conn *conn)
{
    conn->ended = true;
    conn_pump(conn);
    conn_flush(conn);
}

/* Says why, and closes when that is written. What was read before is still carried out. */
static void fail(struct conn *conn, int code, const char *why)
{
    struct buf *output = &conn->output;

    if (!conn->caller)
        log_info("connection_refused code=%s why=\"%s\"", proto_code_name(code), why);
    else if (account_audit(conn->caller->account, slice_of(why), clock_monotonic_us()) != AUDIT_SILENCE)
        log_info("connection_refused uid=%u pid=%d code=%s why=\"%s\"", conn->caller->uid, conn->caller->pid,
                 proto_code_name(code), why);
    pack_notification(output, "error");
    pack_map(output, 2);
    pack_pair_text(output, "code", slice_of(proto_code_name(code)));
    pack_pair_text(output, "message", slice_of(why));
    buf_deinit(&conn->input);
    conn->taken = 0;
    conn->ended = true;
    update_reading(conn);
    conn_flush(conn);
}

/* ---- writing ---- */

static void on_written(uv_write_t *write, int status)
{
    struct conn *conn = CONTAINER_OF(write, struct conn, write);

    buf_deinit(&conn->writing);
    if (status < 0) {
        conn_close(conn);
        return;
    }
    conn_flush(conn);
    conn_pump(conn);
}

/* Hands the rest of the output to libuv, which writes it when the client takes it. */
static void write_later(struct conn *conn)
{
    uv_buf_t bytes;

    conn->writing = conn->output;
    conn->output = BUF_INIT;
    bytes = uv_buf_init(conn->writing.data, (unsigned int)conn->writing.size);
    if (uv_write(&conn->write, (uv_stream_t *)&conn->pipe, &bytes, 1, on_written) < 0)
        conn_close(conn);
}

void conn_flush(struct conn *conn)
{
    struct buf *output = &conn->output;
    uv_buf_t bytes;
    int n;

    list_remove(&conn->dirty);
    if (conn->closing || conn->writing.data)
        return;
    if (output->failed) {
        (void)fault(ENOMEM, "an answer's bytes");
        conn_close(conn);
        return;
    }
    if (output->size) {
        bytes = uv_buf_init(output->data, (unsigned int)output->size);
        n = uv_try_write((uv_stream_t *)&conn->pipe, &bytes, 1);
        if (n < 0 && n != UV_EAGAIN) {
            conn_close(conn);
            return;
        }
        buf_drop(output, n > 0 ? (size_t)n : 0);
        if (output->size)
            write_later(conn);
    }
    charge(conn);
    if (conn->ended && !conn->closing && is_idle(conn))
        conn_close(conn);
}

/* An answer that has borrowed most of its bytes is written from where they are; what the socket does not take of it now
 * is copied after all. */
static void send_borrowed(struct conn *conn, struct request *request)
{
    char *reply = request->reply.data;
    uv_buf_t parts[] = {
        uv_buf_init(reply, (unsigned int)request->body_at),
        uv_buf_init((char *)request->body.data, (unsigned int)request->body.size),
        uv_buf_init(reply + request->body_at, (unsigned int)(request->reply.size - request->body_at)),
    };
    size_t all = request->reply.size + request->body.size;
    bool may = conn->output.size == 0 && !conn->output.failed && !conn->writing.data && !conn->closing;
    int n = may ? uv_try_write((uv_stream_t *)&conn->pipe, parts, N_ELEMENTS(parts)) : 0; /* errors come again */

    if (n > 0 && (size_t)n == all) {
        request->body = (struct slice){0};
        request->reply.size = 0;
        return;
    }
    request_own_reply(request);
    if (!request->reply.failed)
        buf_drop(&request->reply, n > 0 ? (size_t)n : 0);
}

static void send_reply(struct conn *conn, struct request *request)
{
    struct server *server = conn->server;
    struct buf *reply = &request->reply;

    if (request->body.size && !reply->failed)
        send_borrowed(conn, request);
    if (reply->failed)
        conn->output.failed = true;
    else if (conn->output.size == 0) {
        buf_deinit(&conn->output);
        conn->output = *reply;
        *reply = BUF_INIT;
    } else
        buf_append(&conn->output, reply->data, reply->size);
    if (list_is_empty(&conn->dirty))
        list_append(&server->dirty, &conn->dirty);
    charge(conn);
}

/* ---- requests ---- */

static void release(struct request *request, struct server *server)
{
    struct conn *conn = request->connection;

    if (conn) {
        list_remove(&request->link);
        conn->n_requests--;
    }
    request_free(request);
    server->n_requests--;
}

struct work {
    uv_work_t work;
    struct server *server;
    struct request *request;
};

static void drive(struct server *server, struct request *request);

static void work_on_pool(uv_work_t *work)
{
    request_work(((struct work *)work)->request);
}

static void on_worked(uv_work_t *uv_work, int status)
{
    struct work *work = (struct work *)uv_work;
    struct conn *conn = work->request->connection;

    (void)status; /* nobody cancels */
    if (conn)
        conn->working = NULL;
    drive(work->server, work->request);
    if (conn)
        conn_pump(conn);
    else
        server_check_stopped(work->server);
    free(work);
}

/* Return: false if it could not be begun. */
static bool begin_work(struct server *server, struct request *request)
{
    struct conn *conn = request->connection;
    struct work *work = malloc(sizeof(*work));

    if (!work)
        return false;
    work->server = server;
    work->request = request;
    if (uv_queue_work(server->loop, &work->work, work_on_pool, on_worked) < 0) {
        free(work);
        return false;
    }
    if (conn)
        conn->working = request; /* requests take effect in the order sent: later ones wait */
    return true;
}

/* Half of the time that it was told: it is back before the queue is empty, and the lane has work all the while. */
static void note_busy(struct conn *conn, uint64_t retry_after_ms)
{
    uint64_t pause_ms;

    if (++conn->n_busy < REFUSALS)
        return;
    conn->n_busy = 0;
    pause_ms = retry_after_ms / 2 < PAUSE_MAX_MS ? retry_after_ms / 2 : PAUSE_MAX_MS;
    conn->resume_us = clock_monotonic_us() + pause_ms * 1000;
    server_pause(conn->server, conn);
}

static void drive(struct server *server, struct request *request)
{
    for (;;) {
        switch (request_step(request)) {
        case REQUEST_WORK:
            if (begin_work(server, request))
                return;
            request_work(request); /* no memory for better manners */
            break;
        case REQUEST_WAIT:
            return;
        case REQUEST_DONE:
            if (request->connection)
                send_reply(request->connection, request);
            if (request->connection && request->retry_after_ms)
                note_busy(request->connection, request->retry_after_ms);
            release(request, server);
            return;
        }
    }
}

void conn_continue(struct server *server, struct request *request)
{
    struct conn *conn = request->connection;

    drive(server, request);
    if (conn && (!conn->reading || conn->input.size))
        conn_pump(conn);
}

static bool is_in_flight(const struct conn *conn, uint32_t msgid)
{
    LIST_FOR_EACH(link, &conn->requests)
    {
        if (CONTAINER_OF(link, struct request, link)->message.msgid == msgid)
            return true;
    }
    return false;
}

/* The frame at the beginning of the input, in memory of its own. NULL: none was found for it. */
static char *take_frame(struct conn *conn, size_t size)
{
    char *frame;

    if (conn->taken == 0 && size == conn->input.size) {
        conn->input.size = conn->input.capacity = 0;
        return TAKE(conn->input.data);
    }
    frame = malloc(size);
    if (frame) {
        memcpy(frame, conn->input.data + conn->taken, size);
        conn->taken += size;
    }
    return frame;
}

static void start_request(struct conn *conn, size_t size, uint64_t n_values)
{
    char why[MESSAGE_WHY_SIZE] = "", *frame = take_frame(conn, size);
    struct server *server = conn->server;
    struct request *request;
    int r;

    r = frame ? request_new(&request, server->daemon, conn->caller, frame, size, why) : fault(ENOMEM, "a frame");
    if (r) {
        fail(conn, r < 0 ? SESSIOND_INTERNAL : r, r < 0 ? proto_code_meaning(SESSIOND_INTERNAL) : why);
        return;
    }
    if (is_in_flight(conn, request->message.msgid)) {
        request_free(request);
        fail(conn, SESSIOND_INVALID, "this msgid is still unanswered");
        return;
    }
    request->connection = conn;
    request->in_order = conn->n_requests == 0;
    request_charge(request, n_values);
    list_append(&conn->requests, &request->link);
    conn->n_requests++;
    server->n_requests++;
    drive(server, request);
}

/* Whether it has begun enough in this turn of the loop: then it goes on in the next. */
static bool had_its_share(struct conn *conn)
{
    if (conn->turn != conn->server->turn) {
        conn->turn = conn->server->turn;
        conn->turn_requests = conn->turn_bytes = 0;
    }
    return conn->turn_requests >= TURN_REQUESTS || conn->turn_bytes >= TURN_BYTES;
}

/* Who is refused before it is known who he is has no account. */
static size_t unsent_max(const struct conn *conn)
{
    bool is_spare = !conn->caller || account_is_full(conn->caller->account, ACCOUNT_BYTES);

    return is_spare ? SPARE_OUTPUT : config_of(conn)->unsent_bytes;
}

/* Whether another request may begin, as far as the limits go. */
static bool has_room(const struct conn *conn)
{
    return !conn->closing && !conn->working && list_is_empty(&conn->paused) &&
           conn->n_requests < config_of(conn)->in_flight && unsent(conn) < unsent_max(conn);
}

/* Makes a request of the next frame. Return: false if there is no whole one. */
static bool pump_one(struct conn *conn)
{
    struct slice rest = {conn->input.data + conn->taken, conn->input.size - conn->taken};
    uint64_t n_values;
    size_t size;

    if (rest.size == 0)
        return false;
    conn->scan.size_max = config_of(conn)->frame_bytes;
    switch (frame_scan(&conn->scan, rest.data, rest.size)) {
    case FRAME_PARTIAL:
        return false;
    case FRAME_INVALID:
        fail(conn, SESSIOND_INVALID, conn->scan.why);
        return false;
    case FRAME_TOO_LARGE:
        fail(conn, SESSIOND_TOO_LARGE, conn->scan.why);
        return false;
    case FRAME_WHOLE:
        size = conn->scan.offset;
        n_values = conn->scan.values;
        conn->scan = FRAME_SCAN_INIT;
        conn->turn_requests++;
        conn->turn_bytes += size;
        start_request(conn, size, n_values);
        return true;
    }
    return false;
}

void conn_pump(struct conn *conn)
{
    list_remove(&conn->hungry);
    while (has_room(conn) && !had_its_share(conn) && pump_one(conn))
        ;
    if (conn->closing)
        return;
    if (has_room(conn) && had_its_share(conn))
        list_append(&conn->server->hungry, &conn->hungry);
    buf_drop(&conn->input, conn->taken);
    conn->taken = 0;
    update_reading(conn);
    charge(conn);
    if (conn->ended && is_idle(conn) && list_is_empty(&conn->dirty))
        conn_flush(conn);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    struct conn *conn = (struct conn *)handle;

    (void)wanted;
    *ret = uv_buf_init(conn->server->scratch, account_is_full(conn->caller->account, ACCOUNT_BYTES)
                                                  ? SPARE_INPUT
                                                  : sizeof(conn->server->scratch));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
    struct conn *conn = (struct conn *)stream;
    bool is_over = false;

    if (n == 0)
        return;
    if (n == UV_EOF) {
        conn_end(conn);
        return;
    }
    if (n < 0) {
        conn_close(conn);
        return;
    }
    conn->progress_us = clock_monotonic_us();
    if (!account_take(conn->caller->account, ACCOUNT_BYTES, (size_t)n)) {
        account_take_anyway(conn->caller->account, ACCOUNT_BYTES, (size_t)n);
        is_over = conn->input.size + (size_t)n > SPARE_INPUT;
    }
    conn->charged += (size_t)n;
    if (is_over) {
        fail(conn, SESSIOND_BUSY, "too many bytes of yours, or of all, are buffered");
        return;
    }
    buf_append(&conn->input, bytes->base, (size_t)n);
    if (conn->input.failed) {
        (void)fault(ENOMEM, "input");
        conn_close(conn);
        return;
    }
    conn_pump(conn);
}

static void update_reading(struct conn *conn)
{
    bool wanted = has_room(conn) && list_is_empty(&conn->hungry) && !conn->ended;

    if (wanted == conn->reading || conn->closing)
        return;
    conn->reading = wanted;
    if (!wanted)
        uv_read_stop((uv_stream_t *)&conn->pipe);
    else if (uv_read_start((uv_stream_t *)&conn->pipe, on_alloc, on_read) < 0)
        conn_close(conn);
}

bool conn_is_stalled(struct conn *conn, uint64_t now_us, uint64_t patience_us)
{
    bool half_a_frame = conn->reading && conn->input.size > 0;
    size_t left = unsent(conn);

    if (left != conn->unsent_then || (left == 0 && !half_a_frame)) {
        conn->unsent_then = left;
        conn->progress_us = now_us;
    }
    return now_us - conn->progress_us >= patience_us;
}

/* ---- accepting ---- */

/* Return: NULL, or why this connection is refused. */
static const char *admit(struct conn *conn, int *ret_code)
{
    struct server *server = conn->server;
    const char *why;
    uv_os_fd_t fd;
    uid_t uid;

    *ret_code = SESSIOND_INTERNAL;
    if (uv_fileno((uv_handle_t *)&conn->pipe, &fd) < 0 ||
        peer_caller(fd, &server->maps, server->registry, &conn->caller))
        return "the kernel does not say who you are; the daemon's log says more";
    *ret_code = SESSIOND_DENIED;
    why = peer_owner(conn->caller, &server->maps, config_of(conn)->system, &uid);
    if (why)
        return why;
    *ret_code = SESSIOND_BUSY;
    conn->counted = account_take(conn->caller->account, ACCOUNT_CONNECTIONS, 1);
    if (!conn->counted) {
        caller_note_limit(conn->caller, ACCOUNT_CONNECTIONS);
        return "too many connections, of yours or of all";
    }
    *ret_code = SESSIOND_INTERNAL;
    return registry_owner(server->registry, uid, &conn->caller->owner)
               ? "your directory cannot be opened; the daemon's log says why"
               : NULL;
}

static void on_turned_away(uv_handle_t *handle)
{
    struct server *server = CONTAINER_OF(handle, struct server, turned_away);

    server->turning_away = false;
    if (server->another_waits && !server->stopping)
        conn_accept(server, (uv_stream_t *)&server->listener);
}

/* Accepts and closes what there is no memory for, with a handle that is kept for this: libuv stops to listen while a
 * connection is not accepted. */
static void turn_away(struct server *server, uv_stream_t *listener)
{
    server->another_waits = server->turning_away;
    if (server->turning_away)
        return;
    server->turning_away = true;
    uv_pipe_init(server->loop, &server->turned_away, 0);
    (void)uv_accept(listener, (uv_stream_t *)&server->turned_away);
    uv_close((uv_handle_t *)&server->turned_away, on_turned_away);
}

void conn_accept(struct server *server, uv_stream_t *listener)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    const char *why;
    int code;

    server->another_waits = false;
    if (!conn) {
        (void)fault(ENOMEM, "a connection");
        turn_away(server, listener);
        return;
    }
    conn->server = server;
    conn->progress_us = clock_monotonic_us();
    list_init(&conn->dirty);
    list_init(&conn->hungry);
    list_init(&conn->paused);
    list_init(&conn->requests);
    list_append(&server->conns, &conn->link);
    server->daemon->n_connections++;
    uv_pipe_init(server->loop, &conn->pipe, 0);
    if (uv_accept(listener, (uv_stream_t *)&conn->pipe) < 0) {
        conn_close(conn);
        return;
    }
    why = admit(conn, &code);
    if (why)
        fail(conn, code, why);
    else
        conn_pump(conn);
}
