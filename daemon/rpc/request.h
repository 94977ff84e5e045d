/*
 * One request, from its bytes to the bytes of its answer. Knows nothing of sockets: whoever received the frame makes a
 * request of it and then does what request_step says until it is done:
 *
 *     request_new → request_step ─┬─ REQUEST_WORK: call request_work on a thread of the pool, then step again
 *                                 ├─ REQUEST_WAIT: a lane has its job; step again when the job is back
 *                                 └─ REQUEST_DONE: request->reply is the whole answer; send it and request_free
 *
 * Owned by who made it, on the loop thread; while it is at work or waits, by that thread or lane (never both).
 * Handlers return a code and fill request->reply or request->error: request_step alone turns that into an answer, so
 * every request is answered exactly once.
 */
#ifndef SESSIOND_RPC_REQUEST_H
#define SESSIOND_RPC_REQUEST_H

#include "base/clock.h"
#include "base/list.h"
#include "message.h"
#include "rpc/busiest.h"
#include "rpc/metrics.h"
#include "store/caller.h"
#include "store/engine.h"
#include "store/lane.h"
#include "store/store.h"

struct config;
struct memory;
struct method;

/* What methods may know of the daemon around them. Owned by main; the loop thread. */
struct daemon {
    const struct config *config;
    char instance[RANDOM_ID_SIZE + 1]; /* kept with the data */
    uint64_t started_us;               /* monotonic */
    uint64_t n_connections;
    struct memory *memory; /* of recent histories */
    struct metrics metrics;
    struct busiest busiest; /* sessions */
    struct lanes *lanes;
    struct registry *registry;
    struct {
        const char *name, *version;
    } libraries[5];
};

enum request_stage {
    REQUEST_WORK,
    REQUEST_WAIT,
    REQUEST_DONE,
};

/* Parameters of all methods; each method's table of fields says which of them it reads. */
struct params {
    struct slice session, store, key, digest, after_id, prefix, client, backup;
    struct number limit, after, before, max_bytes, if_epoch, if_revision, from_seq, offset, owner, top;
    struct text_list items, meta;
    bool with_meta;
    const struct value *protocol;
};

/* What goes with a refusal. */
struct details {
    char why[MESSAGE_WHY_SIZE]; /* for people; empty: the code's own meaning */
    struct number item, limit;
    uint64_t revision, epoch; /* with CONFLICT */
};

/* An item that get_items has read, for the memory of histories. */
struct seen_row {
    uint64_t seq;
    size_t end;                 /* in request->rows */
    size_t size;                /* of its text */
    size_t meta_end, meta_size; /* the same of what stands beside it, in request->meta_rows */
};

struct request {
    struct job job;   /* first: a lane's job is a request */
    struct list link; /* in its connection's list; the connection's */
    void *connection; /* where the answer goes; NULL once that is closed. The connection's */
    struct daemon *daemon;
    uint64_t began_us;     /* monotonic: when its frame was whole */
    struct caller *caller; /* held */
    struct owner *owner;   /* the caller's, when the request came */
    size_t paid;           /* bytes that it is charged for, as long as it is there, */
    size_t paid_rows;      /* and those of the answer being made */
    bool counted;          /* as one in flight */
    bool in_order;         /* its connection has no other request under way: it need not wait its turn */
    char *frame;           /* owned; every slice below points into it */
    size_t frame_size;
    struct message message;
    const struct method *method;
    struct params params;
    unsigned char fingerprint[FINGERPRINT_SIZE];
    struct store *store;  /* the one it works on; NULL: none */
    struct store *shared; /* the shared store that it names and that the caller may use so; NULL: none */
    char backup_id[RANDOM_ID_SIZE + 1];
    bool backing_up;             /* it holds its store's backing_up */
    uint64_t n;                  /* rows packed so far */
    struct buf rows;             /* and they themselves */
    struct buf meta_rows;        /* and what stands beside them, where that was asked for */
    uint64_t n_kept;             /* rows that earlier jobs packed: a job that runs twice begins after them */
    size_t rows_kept;            /* and their bytes */
    struct buf seen;             /* of get_items: struct seen_row for each row */
    struct selection_result got; /* of get_items, */
    struct change_result done;   /* of a change: what the job brought back */
    struct buf reply;            /* the whole answer, made before the commit, */
    struct slice body;           /* but for what stands elsewhere already: borrowed until the next request's turn, */
    size_t body_at;              /* it belongs before this byte of it */
    struct details details;      /* of a refusal */
    uint64_t retry_after_ms;     /* said with `busy`; 0: it is not that */
    enum {
        STAGE_CHECK,
        STAGE_PREPARE,
        STAGE_STORE,
        STAGE_SETTLE,
    } stage;     /* which it is in */
    int outcome; /* of what was done last: 0, an outcome, or a fault */
};

/* Makes a request of one whole frame. Takes `frame` (malloced), also when it fails. Return: 0; SESSIOND_INVALID with
 * `why` (MESSAGE_WHY_SIZE) filled if it is no request that could be answered; or a fault. */
int request_new(struct request **ret, struct daemon *daemon, struct caller *caller, char *frame, size_t size,
                char *why);

/* Charges the caller for a request in flight, with so many MessagePack values in its frame, before anything is done
 * for it; over a limit its answer is going to be `busy`. */
void request_charge(struct request *request, uint64_t n_values);

/* Goes on with it, as far as possible. Loop thread. */
enum request_stage request_step(struct request *request);

/* Copies what its answer has borrowed into `reply`, which then is all of it. */
void request_own_reply(struct request *request);

/* The part of its work that would hold up the loop. Any thread. */
void request_work(struct request *request);

/* Accepts NULL. */
void request_free(struct request *request);

/* ---- for the methods ---- */

/* Refuses with a sentence of its own. Return: `code`. */
int request_refuse(struct request *request, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The store that it names, if that exists, else NULL. */
struct store *request_existing_store(struct request *request);

/* Charges so many bytes of an answer, before they are made. Any thread. Return: 0 or SESSIOND_BUSY. */
int request_charge_rows(struct request *request, size_t bytes);

/* The same for what cannot be refused. */
void request_charge_anyway(struct request *request, size_t bytes);

/* Begins the answer: the map of results must follow. */
struct buf *request_answer(struct request *request);

/* These bytes come next in it, once in an answer. Many are not copied: they must stay where they are until it is
 * sent. */
void request_answer_with(struct request *request, struct slice bytes);

#endif
