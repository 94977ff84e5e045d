#include "net/scrape.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/listen.h"
#include "net/peer.h"
#include "net/server.h"
#include "rpc/metrics.h"
#include "store/caller.h"

enum {
    BACKLOG = 64,
    TICK_MS = 500, /* how often somebody looks for those that are late */
};

static const char metrics_path[] = "/metrics";

static const struct config *config_of(const struct scrape *scrape)
{
    return scrape->server->daemon->config;
}

static bool is_under_way(const struct scrape_conn *conn)
{
    return conn->stage == SCRAPE_READING || conn->stage == SCRAPE_WRITING;
}

static void begin_stage(struct scrape_conn *conn, enum scrape_stage stage)
{
    conn->stage = stage;
    conn->deadline_us = clock_monotonic_us() + UINT64_C(1000000) * CONFIG_SCRAPE_SECONDS;
}

/* ---- closing ---- */

static void accept_next(struct scrape *scrape);

static void on_closed(uv_handle_t *handle)
{
    struct scrape_conn *conn = (struct scrape_conn *)handle;

    buf_deinit(&conn->body);
    if (conn->caller)
        account_give_back(conn->caller->account, ACCOUNT_BYTES, conn->charged);
    caller_release(TAKE(conn->caller));
    conn->charged = 0;
    conn->stage = SCRAPE_FREE;
    if (conn->scrape->is_open && conn->scrape->is_waited_for)
        accept_next(conn->scrape);
}

static void close_conn(struct scrape_conn *conn)
{
    if (!is_under_way(conn))
        return;
    conn->stage = SCRAPE_CLOSING;
    uv_close((uv_handle_t *)&conn->pipe, on_closed);
}

/* ---- answering ---- */

static void on_written(uv_write_t *write, int status)
{
    (void)status; /* whether it was taken or not, this is the end */
    close_conn(CONTAINER_OF(write, struct scrape_conn, write));
}

/* Sends the head, which begins with the status (and may have another line there), and what is in the body unless it is
 * only asked how long that is. */
static void send_answer(struct scrape_conn *conn, const char *status, bool head_only)
{
    uv_buf_t parts[2];

    (void)snprintf(conn->head, sizeof(conn->head),
                   "HTTP/1.1 %s\r\n"
                   "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                   "Content-Length: %zu\r\n"
                   "Connection: close\r\n\r\n",
                   status, conn->body.size);
    parts[0] = uv_buf_init(conn->head, (unsigned)strlen(conn->head));
    parts[1] = uv_buf_init(conn->body.data, (unsigned)conn->body.size);
    begin_stage(conn, SCRAPE_WRITING);
    uv_read_stop((uv_stream_t *)&conn->pipe);
    if (uv_write(&conn->write, (uv_stream_t *)&conn->pipe, parts, head_only ? 1 : 2, on_written) < 0)
        close_conn(conn);
}

/* Says why not. */
static void refuse(struct scrape_conn *conn, const char *status, const char *why, bool head_only)
{
    buf_deinit(&conn->body);
    buf_printf(&conn->body, "%s\n", why);
    if (conn->body.failed)
        close_conn(conn);
    else
        send_answer(conn, status, head_only);
}

static void answer_metrics(struct scrape_conn *conn, bool head_only)
{
    metrics_write(&conn->body, conn->scrape->server->daemon, conn->caller);
    if (conn->body.failed) {
        (void)fault(ENOMEM, "metrics");
        refuse(conn, "500 Internal Server Error", "there is no memory for the answer", head_only);
    } else if (!account_take(conn->caller->account, ACCOUNT_BYTES, conn->body.size)) {
        refuse(conn, "503 Service Unavailable", "too many bytes of yours, or of all, are buffered", head_only);
    } else {
        conn->charged = conn->body.size;
        send_answer(conn, "200 OK", head_only);
    }
}

/* ---- the request ---- */

/* Takes the text before the next blank from the line. */
static struct slice take_word(struct slice *line)
{
    const char *blank = memchr(line->data, ' ', line->size);
    struct slice word = {line->data, blank ? (size_t)(blank - line->data) : line->size};
    size_t taken = word.size + (blank != NULL);

    *line = (struct slice){line->data + taken, line->size - taken};
    return word;
}

static bool begins_with(struct slice text, const char *prefix)
{
    return text.size >= strlen(prefix) && memcmp(text.data, prefix, strlen(prefix)) == 0;
}

/* What is asked for, whatever is asked about it, and whoever we are called. */
static struct slice path_of(struct slice target)
{
    const char *slash, *mark;

    if (begins_with(target, "http://")) {
        slash = memchr(target.data + 7, '/', target.size - 7);
        target = slash ? (struct slice){slash, target.size - (size_t)(slash - target.data)} : slice_of("/");
    }
    mark = memchr(target.data, '?', target.size);
    return mark ? (struct slice){target.data, (size_t)(mark - target.data)} : target;
}

/* The head of a request has come. */
static void answer(struct scrape_conn *conn)
{
    const char *end = memchr(conn->request, '\n', conn->size);
    struct slice line = {conn->request, (size_t)(end - conn->request)}, method, target;
    bool head_only;

    line.size -= line.size > 0 && end[-1] == '\r';
    method = take_word(&line);
    target = take_word(&line);
    head_only = slice_equal(method, slice_of("HEAD"));
    if (method.size == 0 || target.size == 0 || !begins_with(line, "HTTP/"))
        refuse(conn, "400 Bad Request", "this is no request of HTTP/1", false);
    else if (!begins_with(line, "HTTP/1.") || line.size != 8)
        refuse(conn, "505 HTTP Version Not Supported", "HTTP/1 alone is spoken here", false);
    else if (conn->refusal)
        refuse(conn, "403 Forbidden", conn->refusal, head_only);
    else if (!slice_equal(path_of(target), slice_of(metrics_path)))
        refuse(conn, "404 Not Found", "there is /metrics, and nothing else", head_only);
    else if (!head_only && !slice_equal(method, slice_of("GET")))
        refuse(conn, "405 Method Not Allowed\r\nAllow: GET, HEAD",
               "it can be read, with GET and HEAD, and nothing else", false);
    else
        answer_metrics(conn, head_only);
}

/* ---- reading ---- */

/* Whether an empty line has come. What was there before the last n bytes has been looked through. */
static bool is_whole(const struct scrape_conn *conn, size_t n)
{
    size_t from = conn->size - n > 2 ? conn->size - n - 2 : 0;
    const char *at = conn->request + from;
    size_t size = conn->size - from;

    return memmem(at, size, "\n\r\n", 3) || memmem(at, size, "\n\n", 2);
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    struct scrape_conn *conn = (struct scrape_conn *)handle;

    (void)wanted;
    *ret = uv_buf_init(conn->request + conn->size, (unsigned)(sizeof(conn->request) - conn->size));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
    struct scrape_conn *conn = (struct scrape_conn *)stream;

    (void)bytes;
    if (n < 0)
        close_conn(conn);
    if (n <= 0)
        return;
    conn->size += (size_t)n;
    if (is_whole(conn, (size_t)n))
        answer(conn);
    else if (conn->size == sizeof(conn->request))
        refuse(conn, "431 Request Header Fields Too Large", "the head of a request has 8 KiB at most", false);
}

static void on_tick(uv_timer_t *ticker)
{
    struct scrape *scrape = CONTAINER_OF(ticker, struct scrape, ticker);
    uint64_t now = clock_monotonic_us();
    bool is_idle = true;

    for (size_t i = 0; i < CONFIG_SCRAPES; i++) {
        struct scrape_conn *conn = &scrape->conns[i];

        is_idle &= !is_under_way(conn);
        if (!is_under_way(conn) || conn->deadline_us > now)
            continue;
        log_info("scrape_stalled uid=%d seconds=%d", conn->caller ? (int)conn->caller->uid : -1, CONFIG_SCRAPE_SECONDS);
        if (conn->stage == SCRAPE_READING)
            refuse(conn, "408 Request Timeout", "the request did not come in time", false);
        else
            close_conn(conn);
    }
    if (is_idle)
        uv_timer_stop(ticker);
}

/* ---- accepting ---- */

static struct scrape_conn *free_place(struct scrape *scrape)
{
    for (size_t i = 0; i < CONFIG_SCRAPES; i++)
        if (scrape->conns[i].stage == SCRAPE_FREE)
            return &scrape->conns[i];
    return NULL;
}

static bool has_too_many(const struct scrape *scrape, uid_t uid)
{
    size_t n = 0;

    for (size_t i = 0; i < CONFIG_SCRAPES; i++)
        n += is_under_way(&scrape->conns[i]) && scrape->conns[i].caller && scrape->conns[i].caller->uid == uid;
    return n > CONFIG_SCRAPES_OF_ONE;
}

/* Who is it, and what may it be told? */
static void admit(struct scrape_conn *conn)
{
    struct server *server = conn->scrape->server;
    uv_os_fd_t fd;
    uid_t uid;

    if (uv_fileno((uv_handle_t *)&conn->pipe, &fd) < 0 ||
        peer_caller(fd, &server->maps, server->registry, &conn->caller)) {
        refuse(conn, "500 Internal Server Error", "the kernel does not say who you are; the daemon's log says more",
               false);
        return;
    }
    if (has_too_many(conn->scrape, conn->caller->uid)) {
        refuse(conn, "503 Service Unavailable", "too many connections of yours at once", false);
        return;
    }
    conn->refusal = peer_owner(conn->caller, &server->maps, config_of(conn->scrape)->system, &uid);
    if (uv_read_start((uv_stream_t *)&conn->pipe, on_alloc, on_read) < 0)
        close_conn(conn);
}

static void accept_next(struct scrape *scrape)
{
    struct scrape_conn *conn = free_place(scrape);

    scrape->is_waited_for = !conn;
    if (!conn)
        return;
    conn->scrape = scrape;
    conn->size = 0;
    conn->refusal = NULL;
    uv_pipe_init(scrape->server->loop, &conn->pipe, 0);
    begin_stage(conn, SCRAPE_READING);
    if (!uv_is_active((uv_handle_t *)&scrape->ticker))
        uv_timer_start(&scrape->ticker, on_tick, TICK_MS, TICK_MS);
    if (uv_accept((uv_stream_t *)&scrape->listener, (uv_stream_t *)&conn->pipe) < 0)
        close_conn(conn);
    else
        admit(conn);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status < 0)
        (void)fault(status, "accept a scraper");
    else
        accept_next(CONTAINER_OF(listener, struct scrape, listener));
}

/* ---- life ---- */

int scrape_open(struct scrape *scrape, struct server *server)
{
    const struct config *config = server->daemon->config;
    int fd, r;

    scrape->server = server;
    if (!config->metrics_path || !config->metrics_path[0])
        return 0;
    if ((r = listen_at(config->metrics_path, config->system ? 0660 : 0600, &fd)))
        return r;
    uv_pipe_init(server->loop, &scrape->listener, 0);
    uv_timer_init(server->loop, &scrape->ticker);
    if ((r = uv_pipe_open(&scrape->listener, fd)) ||
        (r = uv_listen((uv_stream_t *)&scrape->listener, BACKLOG, on_connection)))
        return fault(r, "listen for scrapers");
    scrape->is_open = true;
    log_info("metrics socket=\"%s\"", config->metrics_path);
    return 0;
}

void scrape_stop(struct scrape *scrape)
{
    if (!scrape->is_open)
        return;
    scrape->is_open = false;
    (void)unlink(config_of(scrape)->metrics_path);
    uv_close((uv_handle_t *)&scrape->listener, NULL);
    uv_close((uv_handle_t *)&scrape->ticker, NULL);
    for (size_t i = 0; i < CONFIG_SCRAPES; i++)
        close_conn(&scrape->conns[i]);
}
