/*
 * The listening socket, the connections, and how the daemon stops. Everything on the loop thread. The server owns the
 * connections and the lock on the socket's path.
 *
 * Stopping: no more connections, no more reading; what was read is answered; then the connections close and
 * the done callback is called, after the grace time at the latest. Requests that are at work then are still counted.
 */
#ifndef SESSIOND_NET_SERVER_H
#define SESSIOND_NET_SERVER_H

#include <uv.h>

#include "net/peer.h"
#include "net/scrape.h"
#include "rpc/request.h"

struct registry;

struct server {
    uv_loop_t *loop;
    struct daemon *daemon;
    struct registry *registry;
    uv_pipe_t listener;
    uv_pipe_t turned_away; /* a connection for which there was no memory, while it closes, */
    bool turning_away;
    bool another_waits;   /* and the next one */
    uv_timer_t ticker;    /* looks for stalled connections */
    uv_timer_t grace;     /* while stopping */
    uv_check_t flusher;   /* after each turn of the loop: writes what has become ready in it */
    uv_timer_t resumer;   /* looks for those that have been paused long enough */
    uv_idle_t eager;      /* keeps the loop from sleeping while connections are hungry */
    struct scrape scrape; /* the other socket, for metrics */
    struct peer_maps maps;
    struct list conns;
    struct list dirty;   /* connections with output */
    struct list hungry;  /* connections that go on in the next turn */
    struct list paused;  /* connections that were told `busy`, and are not read for a while */
    uint64_t turn;       /* of the loop */
    size_t n_requests;   /* at work, those of closed connections included */
    char scratch[65536]; /* what libuv reads into; copied to its connection at once */
    bool passed;         /* the socket came from systemd: its path is not ours */
    bool stopping;
    bool grace_is_over;
    void (*on_stopped)(struct server *server);
};

/* Makes and locks the socket (or takes the one that systemd passed as `passed_fd`, -1: none) and listens.
 * Return: 0; SESSIOND_BUSY if another daemon has the path; SESSIOND_INVALID after a line in the log; or a fault. */
int server_open(struct server *server, uv_loop_t *loop, struct daemon *daemon, struct registry *registry,
                int passed_fd);

/* Settings may have changed. */
void server_on_reload(struct server *server);

void server_stop(struct server *server, void (*on_stopped)(struct server *));

struct conn;

/* For conn: reads nothing of it until its resume_us; then it is pumped. */
void server_pause(struct server *server, struct conn *conn);

/* For conn: a connection or a request is gone. */
void server_check_stopped(struct server *server);

/* For the lanes: jobs are done. `arg` is the server. */
void server_on_jobs(void *arg, struct list *jobs);

#endif
