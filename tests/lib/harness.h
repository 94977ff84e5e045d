/*
 * For C tests: starts the real daemon in a directory of its own, and looks after it.
 *
 *     static void test_something(void **state)
 *     {
 *         struct daemon *daemon = *state;
 *         struct sessiond *client = daemon_client(daemon);
 *         ...
 *     }
 *     cmocka_unit_test_setup_teardown(test_something, daemon_setup, daemon_teardown)
 *
 * The program is $SESSIOND_BUILD/sessiond (build/release by default), run by $SESSIOND_WRAPPER if that is set (such as
 * valgrind). It says itself when it is ready; nothing here sleeps to wait. The teardown insists that the daemon is
 * alive, has given back every descriptor, and ends with status 0; and it leaves neither process nor file behind.
 *
 * Below the client there are plain connections for bytes that no client sends, and peers: servers in a thread that
 * answer as a test wants, or pass frames on to a daemon and cut where it hurts.
 */
#ifndef SESSIOND_TESTS_HARNESS_H
#define SESSIOND_TESTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "buf.h"
#include "message.h"
#include "sessiond.h"

enum { WAIT_MS = 60000 }; /* how long a state may take to come, on a machine that is busy with other things */

/* Waits until the condition holds; fails the test, naming it, if it does not. */
#define WAIT_UNTIL(condition)                                                                                          \
    do {                                                                                                               \
        int64_t _end = harness_now_ms() + WAIT_MS;                                                                     \
        while (!(condition)) {                                                                                         \
            if (harness_now_ms() > _end)                                                                               \
                fail_msg("waited in vain for: %s", #condition);                                                        \
            harness_breathe();                                                                                         \
        }                                                                                                              \
    } while (0)

/* Whether a sanitizer or valgrind makes everything slow, and large. */
bool harness_is_slow(void);

/* For the client that a test wants to give up: short, and yet long enough to connect. */
unsigned harness_patience_ms(void);

int64_t harness_now_ms(void);
void harness_breathe(void); /* lets others run, between two looks at a state */

/* ---- a directory ---- */

enum { PATH_SIZE = 128 };

struct scratch {
    char path[32]; /* short: a socket's path has 107 bytes at most */
};

void scratch_make(struct scratch *scratch);
void scratch_remove(struct scratch *scratch); /* with all that is in it; accepts a zeroed one */

/* ---- the daemon ---- */

struct daemon {
    struct scratch scratch;
    char socket[PATH_SIZE];
    char state[PATH_SIZE]; /* its directory */
    char log[PATH_SIZE];
    char config[PATH_SIZE];    /* its configuration file; empty: none */
    char store[2 * PATH_SIZE]; /* the file of the store "default" */
    const char *arguments[8];  /* more of them; ends with NULL */
    pid_t pid;                 /* 0: it does not run */
    int n_fds;                 /* when it was ready for the first time */
};

int daemon_setup(void **state);      /* a running one */
int daemon_setup_bare(void **state); /* one that the test starts itself */
int daemon_teardown(void **state);

/* Writes its configuration file, with which it starts from then on. */
void daemon_configure(struct daemon *daemon, const char *json);

void daemon_start(struct daemon *daemon);
void daemon_start_for_all(struct daemon *daemon);          /* with --system, the doors open; root alone can */
int daemon_start_expecting_failure(struct daemon *daemon); /* Return: its exit status */
void daemon_stop(struct daemon *daemon);                   /* SIGTERM; insists on status 0 */
void daemon_kill(struct daemon *daemon);                   /* SIGKILL; nothing happens if it does not run */
void daemon_restart(struct daemon *daemon);                /* kill, then start */
int daemon_n_fds(const struct daemon *daemon);             /* without the files of its stores */

/* Lines of its log, of all its starts, that have the text. */
int daemon_log_lines(const struct daemon *daemon, const char *text);

/* A program of the build, such as "sessionctl", run to its end. Return: its exit status. */
int run_program(const char *name, const char *const arguments[], struct buf *ret_output);

/* ---- clients ---- */

/* Clients that the test must free. */
struct sessiond *daemon_client(const struct daemon *daemon);
struct sessiond *client_with(struct sessiond_options options);

/* Expects that the call returned this, and shows the client's error if not. */
void expect_code(const struct sessiond *client, int r, int expected, const char *file, int line);
#define EXPECT(client, expected, call) expect_code(client, call, expected, __FILE__, __LINE__)

/* Adds one item whose text is printed from the format. */
__attribute__((format(printf, 3, 4))) void add_item(struct sessiond *client, const char *session, const char *format,
                                                    ...);

/* Expects that the session has exactly these items; the list ends with NULL. */
void expect_items(struct sessiond *client, const char *session, ...);

/* ---- plain connections ---- */

int raw_connect(const char *path);

/* Lets other users come to the socket, and connects as one of them: what counts is the effective uid at connect. For
 * root alone; a test that finds itself to be somebody else says that it was not run. */
void daemon_open_doors(const struct daemon *daemon);
int raw_connect_as(const struct daemon *daemon, uid_t uid, size_t n_groups, const gid_t *groups);
void skip_without_root(void);

void raw_send(int fd, const void *data, size_t size);
void raw_send_buf(int fd, struct buf *buf); /* and empties it */

/* One frame from the daemon, parsed; `frame` owns its bytes, `message` its tree. */
struct raw_reply {
    struct buf frame;
    struct message message;
};

void raw_receive(int fd, struct raw_reply *ret);
void raw_reply_deinit(struct raw_reply *reply);

/* Expects a response to msgid with this error code (NULL: none); the code of a notification with msgid -1. */
void raw_expect(int fd, int64_t msgid, const char *code);

/* Expects that the daemon closes the connection; what it sends before is dropped. */
void raw_expect_end(int fd);

/* ---- peers ---- */

enum peer_action {
    PEER_SEND,           /* the answer */
    PEER_SEND_AND_CLOSE, /* the answer, then hang up */
    PEER_CLOSE,          /* hang up without it */
    PEER_SILENCE,        /* neither; go on reading */
};

struct peer;

/* Is given each whole request; runs in the peer's thread, where cmocka must not fail. */
typedef enum peer_action peer_fn(struct peer *peer, const struct message *request, struct slice frame,
                                 struct buf *answer);

struct peer {
    char socket[PATH_SIZE];
    peer_fn *answer;
    void *arg;
    const char *behind;  /* the socket of a daemon that peer_forward asks */
    unsigned n_requests; /* given to `answer` so far, hello included */
    unsigned n_accepted; /* connections so far */
    int listen_fd, behind_fd, stop_fd;
    unsigned long thread;
};

void peer_start(struct peer *peer, const struct scratch *scratch, peer_fn *answer, void *arg);
void peer_stop(struct peer *peer); /* accepts one that was not started */

/* Asks the daemon behind and gives its answer. Return: whether there was one. */
bool peer_forward(struct peer *peer, struct slice frame, struct buf *answer);

/* A hello's answer, with this instance. */
void peer_pack_hello(struct buf *answer, uint32_t msgid, const char *instance);

/* Whether the request is for this method. */
bool is_method(const struct message *request, const char *method);

#endif
