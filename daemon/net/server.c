#include "net/server.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/conn.h"
#include "net/listen.h"
#include "store/caller.h"

enum {
    BACKLOG = 4096,
    RESUME_MS = 5,        /* how often paused connections are looked at */
    TICKS_PER_STALL = 30, /* how often a connection is looked at in the time that it may be stalled */
};

/* ---- accepting ---- */

static void on_connection(uv_stream_t *listener, int status)
{
    if (status < 0)
        (void)fault(status, "accept");
    else
        conn_accept(CONTAINER_OF(listener, struct server, listener), listener);
}

/* ---- each turn, and each while ---- */

static void on_eager(uv_idle_t *eager)
{
    (void)eager; /* that it runs is enough: the loop does not wait */
}

/* Those that had their share go on with the next one, in turn. */
static void feed_hungry(struct server *server)
{
    struct list hungry, *link;

    server->turn++;
    list_init(&hungry);
    list_splice(&hungry, &server->hungry);
    while ((link = list_pop(&hungry)))
        conn_pump(CONTAINER_OF(link, struct conn, hungry));
    if (list_is_empty(&server->hungry))
        uv_idle_stop(&server->eager);
    else
        uv_idle_start(&server->eager, on_eager);
}

static void on_turn_ended(uv_check_t *flusher)
{
    struct server *server = CONTAINER_OF(flusher, struct server, flusher);
    struct list *link;

    feed_hungry(server);
    while ((link = list_pop(&server->dirty))) {
        struct conn *conn = CONTAINER_OF(link, struct conn, dirty);

        conn_flush(conn);
        if (!conn->closing && !conn->reading)
            conn_pump(conn);
    }
    server_check_stopped(server);
}

static void on_tick(uv_timer_t *ticker)
{
    struct server *server = CONTAINER_OF(ticker, struct server, ticker);
    uint64_t now = clock_monotonic_us(), patience = server->daemon->config->stall_seconds * 1000000;
    uint64_t tick_us = patience / TICKS_PER_STALL; /* who would be over it by the next look is over it now */

    LIST_FOR_EACH_SAFE(link, &server->conns)
    {
        struct conn *conn = CONTAINER_OF(link, struct conn, link);

        if (!conn->closing && conn_is_stalled(conn, now, patience - tick_us)) {
            log_info("connection_stalled uid=%d seconds=%llu", conn->caller ? (int)conn->caller->uid : -1,
                     (unsigned long long)server->daemon->config->stall_seconds);
            conn_close(conn);
        }
    }
}

static void on_resume(uv_timer_t *resumer)
{
    struct server *server = CONTAINER_OF(resumer, struct server, resumer);
    uint64_t now = clock_monotonic_us();

    LIST_FOR_EACH_SAFE(link, &server->paused)
    {
        struct conn *conn = CONTAINER_OF(link, struct conn, paused);

        if (conn->resume_us > now)
            continue;
        list_remove(link);
        conn_pump(conn);
    }
    if (list_is_empty(&server->paused))
        uv_timer_stop(resumer);
}

void server_pause(struct server *server, struct conn *conn)
{
    list_remove(&conn->paused);
    list_append(&server->paused, &conn->paused);
    if (!uv_is_active((uv_handle_t *)&server->resumer))
        uv_timer_start(&server->resumer, on_resume, RESUME_MS, RESUME_MS);
}

void server_on_jobs(void *arg, struct list *jobs)
{
    struct server *server = arg;
    struct list *link;

    while ((link = list_pop(jobs)))
        conn_continue(server, CONTAINER_OF(link, struct request, job.link));
    server_check_stopped(server);
}

/* ---- life ---- */

int server_open(struct server *server, uv_loop_t *loop, struct daemon *daemon, struct registry *registry, int passed_fd)
{
    int fd = passed_fd, r;

    server->loop = loop;
    server->daemon = daemon;
    server->registry = registry;
    server->passed = passed_fd >= 0;
    list_init(&server->conns);
    list_init(&server->dirty);
    list_init(&server->hungry);
    list_init(&server->paused);
    peer_read_maps(&server->maps);
    if (fd < 0 && (r = listen_at(daemon->config->socket_path, daemon->config->system ? 0660 : 0600, &fd)))
        return r;

    /* Bound by ourselves, so that libuv neither cuts the path short nor unlinks it. */
    uv_pipe_init(loop, &server->listener, 0);
    if ((r = uv_pipe_open(&server->listener, fd)) ||
        (r = uv_listen((uv_stream_t *)&server->listener, BACKLOG, on_connection)))
        return fault(r, "listen");
    uv_check_init(loop, &server->flusher);
    uv_check_start(&server->flusher, on_turn_ended);
    uv_idle_init(loop, &server->eager);
    uv_timer_init(loop, &server->resumer);
    uv_timer_init(loop, &server->grace);
    uv_timer_init(loop, &server->ticker);
    server_on_reload(server);
    return scrape_open(&server->scrape, server);
}

void server_on_reload(struct server *server)
{
    uint64_t tick_ms = server->daemon->config->stall_seconds * 1000 / TICKS_PER_STALL;

    registry_meet_all(server->registry);
    if (!server->stopping)
        uv_timer_start(&server->ticker, on_tick, tick_ms, tick_ms);
}

void server_check_stopped(struct server *server)
{
    void (*on_stopped)(struct server *) = server->on_stopped;

    if (!server->stopping || !on_stopped || !list_is_empty(&server->conns) ||
        (server->n_requests && !server->grace_is_over))
        return;
    server->on_stopped = NULL;
    uv_close((uv_handle_t *)&server->flusher, NULL);
    uv_close((uv_handle_t *)&server->eager, NULL);
    uv_close((uv_handle_t *)&server->ticker, NULL);
    uv_close((uv_handle_t *)&server->grace, NULL);
    uv_close((uv_handle_t *)&server->resumer, NULL);
    on_stopped(server);
}

/* The time is over: what is not answered now never will be. */
static void on_grace_over(uv_timer_t *grace)
{
    struct server *server = CONTAINER_OF(grace, struct server, grace);

    log_warning("grace_over requests=%zu", server->n_requests);
    server->grace_is_over = true;
    LIST_FOR_EACH_SAFE(link, &server->conns)
    conn_close(CONTAINER_OF(link, struct conn, link));
    server_check_stopped(server);
}

void server_stop(struct server *server, void (*on_stopped)(struct server *))
{
    if (server->stopping)
        return;
    server->stopping = true;
    server->on_stopped = on_stopped;
    if (!server->passed)
        (void)unlink(server->daemon->config->socket_path);
    uv_close((uv_handle_t *)&server->listener, NULL);
    scrape_stop(&server->scrape);
    uv_timer_start(&server->grace, on_grace_over, server->daemon->config->grace_seconds * 1000, 0);
    LIST_FOR_EACH_SAFE(link, &server->conns)
    conn_end(CONTAINER_OF(link, struct conn, link));
    server_check_stopped(server);
}
