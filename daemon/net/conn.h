/*
 * One client. Bytes in: appended to the input, cut into frames, each a request. Bytes out: the answers, in the order in
 * which they become ready. conn_pump alone decides whether more is read: over a limit it stops, and the socket's own
 * back-pressure does the rest. In one turn of the loop a connection begins so many requests and no more, so that a
 * flood on one holds up the others for a moment only. A connection that was told `busy` several times is not read for a
 * part of the time that it was told to wait: refusing what is sent all the same would take the time that the work
 * needs.
 *
 * Owned by its server, freed in libuv's close callback and nowhere else. A request that is at work when its connection
 * closes lives on without it, and its answer is dropped. Loop thread only.
 */
#ifndef SESSIOND_NET_CONN_H
#define SESSIOND_NET_CONN_H

#include <uv.h>

#include "buf.h"
#include "frame.h"
#include "rpc/request.h"

struct caller;
struct server;

struct conn {
    uv_pipe_t pipe; /* first: libuv's handle is the connection */
    struct server *server;
    struct caller *caller; /* held; NULL until it is known, and it pays for one connection */
    struct list link;      /* in server->conns */
    struct list dirty;     /* in server->dirty, while there is output to be flushed */
    struct list hungry;    /* in server->hungry, while it has had its share of this turn of the loop and wants more */
    struct list paused;    /* in server->paused, while nothing is read of it */
    uint64_t resume_us;    /* until then */
    size_t n_busy;         /* answers since it was paused last */
    uint64_t turn;         /* of the loop, in which it has begun */
    size_t turn_requests;  /* so many requests */
    size_t turn_bytes;     /* of so many bytes */
    struct list requests;  /* unanswered */
    size_t n_requests;
    struct request *working; /* with the pool, or NULL: later frames have to wait for it */

    struct buf input;       /* what came */
    size_t taken;           /* bytes of it that have become requests */
    struct frame_scan scan; /* of the frame behind them */
    struct buf output;      /* to be written next */
    struct buf writing;     /* being written by libuv */
    uv_write_t write;
    uint64_t charged; /* bytes that the caller pays for input and output */

    uint64_t progress_us; /* monotonic: when the last bytes came or went */
    size_t unsent_then;   /* what was unsent at that time */
    bool counted;         /* as one of the caller's connections */
    bool reading;
    bool ended;   /* nothing more is read; it closes when all is answered */
    bool closing; /* uv_close has been called */
};

/* Accepts what waits at the listening socket. Whatever goes wrong concerns this connection only. */
void conn_accept(struct server *server, uv_stream_t *listener);

/* Goes on with what has come: makes requests of whole frames, as many as the limits allow, and reads on or not. */
void conn_pump(struct conn *conn);

/* Nothing more is read; it closes when all that was read is answered. */
void conn_end(struct conn *conn);

/* The job or the pool's work of a request is done. Frees the request if it is answered. */
void conn_continue(struct server *server, struct request *request);

/* Writes what is to be written, and closes if that was the end. */
void conn_flush(struct conn *conn);

/* Whether it has half a frame, or unsent bytes, and nothing has moved for so long. */
bool conn_is_stalled(struct conn *conn, uint64_t now_us, uint64_t patience_us);

void conn_close(struct conn *conn);

#endif
