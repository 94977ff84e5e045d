/*
 * The socket for a scraper: whoever asks `GET /metrics` over HTTP on it is given the text of `stats`, as it is for his
 * uid, and the connection closes. The one setting is `metrics_socket`; without it nothing of this exists.
 *
 *     a place is free ─ accept ─ READING ─ the head of the request is whole ─ WRITING ─ all of it is taken ─ CLOSING
 *
 * Connections have places of their own, and so few of them that a flood takes nothing else from the daemon: who comes
 * when all are taken waits in the kernel's queue. A uid has a quarter of the places at most. A connection that is
 * READING or WRITING for too long is closed. Part of struct server; the loop thread.
 */
#ifndef SESSIOND_NET_SCRAPE_H
#define SESSIOND_NET_SCRAPE_H

#include <uv.h>

#include "buf.h"
#include "config/config.h"

struct caller;
struct server;

enum scrape_stage {
    SCRAPE_FREE, /* nobody has this place */
    SCRAPE_READING,
    SCRAPE_WRITING,
    SCRAPE_CLOSING,
};

struct scrape_conn {
    uv_pipe_t pipe; /* first: libuv's handle is the connection */
    struct scrape *scrape;
    enum scrape_stage stage;
    uint64_t deadline_us;  /* monotonic: by then the stage is over */
    struct caller *caller; /* held; NULL: not known */
    const char *refusal;   /* why it is told nothing; NULL: it may ask. Static text */
    char request[CONFIG_SCRAPE_BYTES];
    size_t size;    /* of what has come of it */
    char head[256]; /* of the answer, */
    struct buf body;
    size_t charged; /* for the body, to the caller's account */
    uv_write_t write;
};

struct scrape {
    struct server *server;
    bool is_open;
    bool is_waited_for; /* a connection waits for a place: libuv accepts no other until it has one */
    uv_pipe_t listener;
    uv_timer_t ticker; /* looks for those that are late, while there are any */
    struct scrape_conn conns[CONFIG_SCRAPES];
};

/* Makes the socket if there is to be one. The server is open. Return: as server_open. */
int scrape_open(struct scrape *scrape, struct server *server);

/* No more connections; those that there are are closed. */
void scrape_stop(struct scrape *scrape);

#endif
