/*
 * Inside libsessiond: what its files share. sessiond.h is for its users.
 *
 *     sessiond_send ──▶ waiting ──write──▶ sent ──answer──▶ callback, gone
 *                          ▲                │
 *                          └── the connection broke, `busy`, or another page of a long history
 *
 * A client owns its calls; each stands in exactly one of the two lists, or is being answered. A call keeps its packed
 * frame until it is answered, so that it can be sent again with the same bytes. One function, call_finish, answers.
 * Calls are numbered as they are sent; `waiting` is in that order always, which keeps the calls on a session in order.
 *
 * One thread at a time for each client; nothing here is global.
 */
#ifndef SESSIOND_CLIENT_H
#define SESSIOND_CLIENT_H

#include <sys/queue.h>
#include <sys/types.h>

#include "buf.h"
#include "frame.h"
#include "message.h"
#include "proto.h"
#include "sessiond.h"

enum {
    CLIENT_RETRY_MS = 10000,
    CLIENT_SILENCE_MS = 60000,
    CLIENT_CALLS_MAX = 65536,             /* under way at a time */
    CLIENT_BYTES_MAX = 256 * 1024 * 1024, /* of their frames, unless there is only one */
    CLIENT_RESTARTS_MAX = 100,            /* how often removals may make the reading of one history start over */
    CLIENT_MESSAGE_SIZE = 512,
};

/* ---- what calls return ---- */

/* Owns the texts of an answer and the array of what it lists; handed over to the user as `owner`. */
struct results {
    struct page *pages; /* newest first */
    char *elements;     /* of one size */
    size_t n_elements;
    size_t capacity;        /* in elements */
    struct results *beside; /* a second array, without texts of its own; NULL: none */
};

struct page;

struct results *results_new(void);
void results_free(struct results *results); /* accepts NULL */

/* Makes room for texts of `size` bytes in all, their NUL bytes counted. Return: 0, -ENOMEM. */
int results_add_page(struct results *results, size_t size);

/* Copies a text to the newest page, which has the room. A text without data stays so. */
struct sessiond_text results_copy(struct results *results, struct slice text);

/* The second array, made if need be. Return: NULL: no memory. */
struct results *results_beside(struct results *results);

/* Makes room for n more elements. Return: the first of them, zeroed, which count at once; NULL: no memory. */
void *results_add_elements(struct results *results, size_t n, size_t element_size);

/* ---- a call ---- */

/* What is asked, with texts of its own; the members are named as in sessiond_call. */
struct question {
    struct slice store, session, key, digest, prefix, backup;
    struct slice after_id; /* borrowed from what was asked, or from the results so far */
    struct sessiond_number if_revision, if_epoch, from_seq, limit, after, before, offset, top;
    const struct sessiond_text *items; /* borrowed while the call is packed for the first time, then NULL */
    const struct sessiond_text *meta;  /* the same */
    size_t n_items;
    bool with_meta;
};

TAILQ_HEAD(calls, call);

struct call {
    TAILQ_ENTRY(call) link;
    struct calls *list; /* the client's `waiting` or `sent`; NULL: in none */
    const struct method *method;
    struct question question;
    struct buf frame; /* packed, whole */
    size_t charged;   /* its first size, counted in the client's n_bytes */
    uint64_t number;  /* in the order of sessiond_send */
    uint32_t msgid;
    bool begun;        /* some of it has left, now or before */
    bool written;      /* the whole frame left on the connection of now: it may be carried out */
    bool unsure;       /* it was written on a connection that broke before the answer */
    bool refused_busy; /* and waits to be sent again */
    bool paging;       /* some pages have come, more are to come */
    unsigned n_restarts;
    int64_t give_up_at; /* ms; applies while the call waits. 0: no trouble so far */

    struct asked {
        struct sessiond_number limit, after, before, if_epoch;
        struct slice after_id;
    } asked; /* by the user, where the question changes from page to page */
    struct results *results;
    union sessiond_answer answer;

    sessiond_answer_fn *callback;
    void *arg;
};

struct method {
    const char *name;
    bool change; /* has a key; must happen once */
    bool slow;   /* its answer may take as long as it likes */
    const struct parameter *parameters;
    /* Reads one answer (`frame` long) into call->answer; sets *ret_more if another page must be asked for, and has
     * changed the question then. Return: 0, -ENOMEM, or what message_read returns. */
    int (*read)(struct call *call, const struct message *message, size_t frame_size, bool *ret_more, char *why);
};

extern const struct method call_methods[SESSIOND_N_METHODS];

/* Copies and packs what is asked. Return: SESSIOND_TOO_LARGE, -EINVAL, -ENOMEM; the client's error says why. */
int call_new(struct call **ret, struct sessiond *client, const struct sessiond_call *ask);
void call_free(struct call *call); /* accepts NULL */

/* Packs the question (again) under a msgid of its own. Return: 0, -ENOMEM. */
int call_pack(struct call *call, struct sessiond *client);

/* Goes back to the first page. */
void call_restart(struct call *call);

bool call_same_session(const struct call *a, const struct call *b);

/* ---- the client ---- */

/* An error with its texts. */
struct failure {
    struct sessiond_error error;
    char message[CLIENT_MESSAGE_SIZE];
    char key[PROTO_KEY_MAX + 1];
};

enum client_state {
    CLIENT_DOWN,     /* no connection */
    CLIENT_GREETING, /* connected; hello is under way, and nothing else may be sent */
    CLIENT_READY,
};

struct sessiond {
    char *socket; /* from the options, NULL: to be found */
    struct sessiond_number owner;
    char *store;
    char *name;
    int64_t retry_ms;
    int64_t silence_ms;
    bool closing; /* no more calls are taken */
    pid_t pid;    /* whose connection and calls these are */

    enum client_state state;
    int fd;                      /* -1: none */
    struct sessiond_hello hello; /* of the last daemon that greeted; its socket is empty if none ever did */
    size_t frame_max;            /* what this daemon takes */
    struct failure refusal;      /* code 0, or why the daemon did not like our hello: only ping and info may be sent */
    char path[PROTO_SOCKET_PATH_MAX + 1]; /* of this connection */
    char lost[CLIENT_MESSAGE_SIZE];       /* why the last connection ended, or could not be made; may be empty */
    int lost_code;                        /* the same as a code */
    struct buf input;
    struct frame_scan scan;
    struct buf greeting; /* hello's frame */
    uint32_t greeting_msgid;
    size_t n_written;       /* bytes of the frame that is being written: the greeting, or `partial` */
    struct call *partial;   /* the last in `sent`: its frame has begun to leave. NULL: no frame is cut */
    int64_t progress_at;    /* ms: when bytes moved last */
    int64_t connect_at;     /* ms: the next try */
    int64_t backoff_ms;     /* after that one */
    int64_t busy_until;     /* ms: nothing is sent before, while n_busy > 0 */
    unsigned n_connections; /* so far: tells whether a connection is still the same */

    struct calls waiting; /* in the order of their numbers */
    struct calls sent;    /* in the order written */
    size_t n_calls;       /* in both lists */
    size_t n_bytes;       /* of their frames */
    size_t n_busy;        /* calls with refused_busy */
    size_t n_reading;     /* calls of get_items in `sent` */
    size_t n_slow;        /* slow calls in `sent` */
    uint64_t next_number;
    uint32_t next_msgid;
    struct call *answering; /* its callback is running; it is in no list */

    struct failure failure; /* of the last call that failed */
};

int64_t client_now_ms(void); /* monotonic */

/* After fork, in the child: leaves the parent's connection and calls alone and begins with none. */
void client_adopt(struct sessiond *client);

/* Puts a call into `waiting` at its place. */
void client_requeue(struct sessiond *client, struct call *call);

/* Takes a call out of its list, so that it waits for nothing any more. */
void client_unlink(struct sessiond *client, struct call *call);

/* Puts a call that has begun to leave at the end of `sent`. */
void client_mark_sent(struct sessiond *client, struct call *call);

/* The one place that answers. `failure` must be set in the client unless r is 0. Frees the call. */
void call_finish(struct sessiond *client, struct call *call, int r);

/* call_finish with a failure of this side. */
__attribute__((format(printf, 4, 5))) void call_fail(struct sessiond *client, struct call *call, int r,
                                                     const char *format, ...);

/* Fails all calls that wait and that the predicate (NULL: all) picks. */
void client_fail_waiting(struct sessiond *client, bool (*picks)(const struct call *call), int r, const char *message);

/* Handles one response: finishes the call, or sends it again. Return: 0; < 0: the daemon breaks the protocol. */
int client_take_response(struct sessiond *client, const struct message *message, size_t frame_size);

/* Blocks until the call is answered and hands over what it returned (`ret` may be NULL: dropped). The texts in it
 * belong to *ret_results, which may be NULL where the answer has them as its `owner` too, or has no texts. */
int client_perform(struct sessiond *client, const struct sessiond_call *call, union sessiond_answer *ret,
                   struct results **ret_results);

/* ---- errors ---- */

/* Notes a failure in the client. Return: code. */
__attribute__((format(printf, 3, 4))) int failure_set(struct failure *failure, int code, const char *format, ...);

void failure_copy(struct failure *to, const struct failure *from);

/* Reads the error map of a response. Return: its code, or what message_read returns. */
int failure_read(struct failure *failure, const struct message *message, const struct value *error);

/* ---- the connection ---- */

/* Connects and begins the greeting. Return: 0; -EAGAIN: later; < 0: there is no daemon. The client's `lost` says why.
 */
int connection_open(struct sessiond *client);

/* Whether the daemon's refusal of our hello stands against this call. */
bool connection_refuses(const struct sessiond *client, const struct call *call);

/* Closes it; the calls that were sent wait again. `reason` is for people. */
void connection_lose(struct sessiond *client, int code, const char *reason);

/* Read and write what can be without blocking. */
void connection_read(struct sessiond *client);
void connection_write(struct sessiond *client);

bool connection_wants_write(const struct sessiond *client);

/* Whether the daemon owes us something. */
bool connection_expects(const struct sessiond *client);

#endif
