/*
 * libsessiond: the conversation histories of agents, kept by the daemon `sessiond` on this host.
 *
 *     struct sessiond *client;
 *     struct sessiond_items history;
 *     struct sessiond_text item = SESSIOND_TEXT("{\"role\":\"user\",\"content\":\"hello\"}");
 *
 *     sessiond_new(&client, NULL);
 *     sessiond_get_items(client, "user_123", NULL, &history);           history in, before a run
 *     sessiond_add_items(client, "user_123", &item, 1, NULL, NULL);     new items out, after it
 *     sessiond_items_free(&history);
 *     sessiond_free(client);
 *
 * This header is the manual. What sessions, items, stores, revisions, epochs and keys are stands in PROTOCOL.md.
 *
 * Returns
 *     0    done
 *     > 0  an outcome: one of the codes of sessiond-codes.h, most of them from the daemon
 *     < 0  -errno: this side failed, or there is no daemon
 *   sessiond_strerror takes exactly these numbers, and sessiond_last_error tells more. For a change, each return says
 *   whether it was made: 0 made; SESSIOND_UNCERTAIN unknown, repeat it with the key that the error names and it is
 *   made once; everything else not made. Result parameters are written on success only.
 *
 * The connection
 *   A client connects with its first call and stays connected. A client that was never connected and finds no daemon
 *   fails at once and names the paths it tried. Once connected, it reconnects to the same path whenever the connection
 *   breaks, and sends again what was not answered: changes by their key (the library makes one for each change that
 *   brings none), so they happen once, and only to the same instance of the daemon. `busy` is tried again as well. Both
 *   go on for `retry_ms`, then the call fails. A connection that is silent for `silence_ms` counts as broken.
 *
 * Threads, processes, signals
 *   No threads inside, no global state; a client is used by one thread at a time. After fork() the child may go on
 *   using the client: it gets a connection of its own, and the calls that were under way stay the parent's. A signal
 *   does not interrupt a blocking call; SIGPIPE is never raised.
 *
 * Texts
 *   Session ids, store names, keys and digests are C strings in UTF-8. Items have a pointer and a size; in results
 *   every text is also followed by a NUL byte. Items are JSON objects and come back byte for byte.
 */
#ifndef SESSIOND_H
#define SESSIOND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sessiond-codes.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SESSIOND_PUBLIC __attribute__((visibility("default")))
#define SESSIOND_CHECKED SESSIOND_PUBLIC __attribute__((warn_unused_result))

struct sessiond; /* a client: one connection at most, and the calls under way */

struct sessiond_text {
    const char *data; /* NULL: there is none */
    size_t size;
};

/* The text of a C string; borrows it. */
#define SESSIOND_TEXT(string) ((struct sessiond_text){(string), strlen(string)})

/* A number that may be absent: 0 is a value like any other. Write SESSIOND_SOME(20). */
struct sessiond_number {
    bool given;
    uint64_t value;
};

#define SESSIOND_SOME(n) ((struct sessiond_number){true, (n)})

/* ---- a client ---- */

/* Zero or NULL in any field means the default. */
struct sessiond_options {
    const char *socket;  /* path. Default: $SESSIOND_SOCKET if set; else the first that exists of
                            $XDG_RUNTIME_DIR/sessiond/sessiond.sock, /run/user/UID/sessiond/sessiond.sock and
                            /run/sessiond/sessiond.sock */
    const char *store;   /* for calls that name none. Default: the daemon's, "default" */
    const char *name;    /* who calls, for the daemon's log. Default: the name of the program */
    unsigned retry_ms;   /* how long a call goes on after its connection broke. Default: 10,000 */
    unsigned silence_ms; /* how long the daemon may neither take nor send a byte while calls wait (a backup may take
                            longer). Default: 60,000 */
    struct sessiond_number owner; /* the uid whose stores are meant. Default: who connects. Another one is for
                                     administrators of a daemon of many users, and SESSIOND_NOT_FOUND to all calls of
                                     others, as is an owner that there is not */
};

/* Makes a client; options may be NULL. Nothing is connected yet. Return: -ENOMEM, -EINVAL. Release: sessiond_free. */
SESSIOND_CHECKED int sessiond_new(struct sessiond **ret, const struct sessiond_options *options);

/* Closes the connection. Calls still under way get their callback first, with -ECANCELED (a change that was sent:
 * SESSIOND_UNCERTAIN). Accepts NULL. Not from inside a callback. */
SESSIOND_PUBLIC void sessiond_free(struct sessiond *client);

/* ---- what went wrong ---- */

struct sessiond_error {
    int code;               /* what the call returned, > 0 or < 0 */
    const char *message;    /* for people: what is wrong and what to do */
    const char *key;        /* of the change that failed; NULL: the call was no change */
    int64_t item;           /* index of the item at fault; -1: none */
    int64_t revision;       /* with SESSIOND_CONFLICT: the session's present ones; else -1 */
    int64_t epoch;          /* */
    int64_t limit;          /* with SESSIOND_TOO_LARGE: the limit; else -1 */
    int64_t retry_after_ms; /* with SESSIOND_BUSY; else -1 */
};

/* About the last call that failed; inside a callback, about the call that is being answered. Borrowed until the next
 * call on this client. Return: never NULL; code 0 if nothing failed yet. */
SESSIOND_PUBLIC const struct sessiond_error *sessiond_last_error(const struct sessiond *client);

/* A sentence for any return of this library. Static text. */
SESSIOND_PUBLIC const char *sessiond_strerror(int r);

/* ---- reading ---- */

/* Which items; all of them where the struct is zero or the pointer NULL. */
struct sessiond_range {
    const char *store;
    struct sessiond_number limit;    /* the latest that many; 0: none */
    struct sessiond_number after;    /* only seq > after */
    struct sessiond_number before;   /* only seq < before */
    struct sessiond_number if_epoch; /* SESSIOND_CONFLICT unless the session's epoch is this */
    bool with_meta;                  /* give what stands beside the items as well */
};

struct sessiond_items {
    const struct sessiond_text *items; /* oldest first */
    size_t n_items;
    uint64_t first_seq; /* of these items; 0: there are none */
    uint64_t last_seq;
    uint64_t head_seq; /* the highest that the session ever gave; 0: it never existed, as with the next two */
    uint64_t revision;
    uint64_t epoch;
    uint64_t missing; /* the store is rolled back: so many rows of its log were acknowledged and are not there */
    const struct sessiond_text *meta; /* with_meta: what stands beside each item; data NULL: nothing. Else NULL */
    void *owner;                      /* private: what the texts live in */
};

/* Reads a history as it stood at one moment, however long it is and whoever appends meanwhile (long ones come in
 * pages, unseen; an interfering removal starts the reading over). Release: sessiond_items_free, which leaves an empty
 * struct. */
SESSIOND_CHECKED int sessiond_get_items(struct sessiond *client, const char *session,
                                        const struct sessiond_range *range, struct sessiond_items *ret);
SESSIOND_PUBLIC void sessiond_items_free(struct sessiond_items *items);

struct sessiond_listing {
    const char *store;
    const char *prefix;           /* only ids that begin with it */
    const char *after;            /* only ids greater than it, byte by byte */
    struct sessiond_number limit; /* the first that many. Default: all */
};

struct sessiond_session {
    struct sessiond_text id;
    uint64_t count; /* of items */
    uint64_t bytes; /* of their texts */
    uint64_t head_seq;
    uint64_t revision;
    uint64_t epoch;
    uint64_t created_us; /* since 1970 UTC, in microseconds */
    uint64_t updated_us;
};

struct sessiond_sessions {
    const struct sessiond_session *sessions; /* in the order of their ids */
    size_t n_sessions;
    bool more; /* there are more than the limit */
    void *owner;
};

/* Release: sessiond_sessions_free. */
SESSIOND_CHECKED int sessiond_list_sessions(struct sessiond *client, const struct sessiond_listing *listing,
                                            struct sessiond_sessions *ret);
SESSIOND_PUBLIC void sessiond_sessions_free(struct sessiond_sessions *sessions);

struct sessiond_store {
    struct sessiond_text name;
    struct sessiond_text engine;
    struct sessiond_number sessions; /* not given: the store cannot be opened at the moment */
    uint64_t bytes;                  /* on disk */
    uint64_t missing;                /* as in struct sessiond_items; 0: nothing */
};

struct sessiond_stores {
    const struct sessiond_store *stores;
    size_t n_stores;
    void *owner;
};

/* Release: sessiond_stores_free. */
SESSIOND_CHECKED int sessiond_list_stores(struct sessiond *client, struct sessiond_stores *ret);
SESSIOND_PUBLIC void sessiond_stores_free(struct sessiond_stores *stores);

/* ---- changes ---- */

/* How to make a change; the pointer may be NULL. */
struct sessiond_change {
    const char *store;
    const char *key;    /* names this change once and for all. Default: a fresh one from the library */
    const char *digest; /* with key: what makes two requests the same change, in place of the request itself */
    struct sessiond_number if_revision; /* SESSIOND_CONFLICT unless the session's are these; revision 0: */
    struct sessiond_number if_epoch;    /* the session must not exist yet */
    const struct sessiond_text *meta;   /* of add_items, replace_items: what to keep beside each of the items, a JSON
                                           object of up to 1 MiB or nothing (data NULL). Default: nothing */
    bool with_meta;                     /* of pop_item: give what stood beside the item as well */
};

struct sessiond_changed {
    uint64_t first_seq; /* of the items added; 0: none were */
    uint64_t last_seq;
    uint64_t removed; /* how many items are gone */
    uint64_t revision;
    uint64_t epoch;
};

struct sessiond_popped {
    struct sessiond_text item; /* data NULL: there was none */
    uint64_t seq;              /* 0: there was none */
    uint64_t revision;
    uint64_t epoch;
    bool erased;               /* this pop happened before, and a clear has erased what it took */
    struct sessiond_text meta; /* with_meta: what stood beside it; data NULL: nothing */
    void *owner;
};

/* Appends n items, side by side and in order, or none of them. `ret` may be NULL here and below. */
SESSIOND_CHECKED int sessiond_add_items(struct sessiond *client, const char *session, const struct sessiond_text *items,
                                        size_t n_items, const struct sessiond_change *change,
                                        struct sessiond_changed *ret);

/* Takes the newest item. Release: sessiond_popped_free. */
SESSIOND_CHECKED int sessiond_pop_item(struct sessiond *client, const char *session,
                                       const struct sessiond_change *change, struct sessiond_popped *ret);
SESSIOND_PUBLIC void sessiond_popped_free(struct sessiond_popped *popped);

/* Removes all items; the session stays. */
SESSIOND_CHECKED int sessiond_clear_session(struct sessiond *client, const char *session,
                                            const struct sessiond_change *change, struct sessiond_changed *ret);

/* The items with seq >= from_seq (0: all) give way to these, in one step. */
SESSIOND_CHECKED int sessiond_replace_items(struct sessiond *client, const char *session, uint64_t from_seq,
                                            const struct sessiond_text *items, size_t n_items,
                                            const struct sessiond_change *change, struct sessiond_changed *ret);

/* Removes the session with everything that is known of it. */
SESSIOND_CHECKED int sessiond_delete_session(struct sessiond *client, const char *session,
                                             const struct sessiond_change *change, struct sessiond_changed *ret);

enum { SESSIOND_KEY_SIZE = 37 }; /* bytes of a key that the library makes, its NUL included */

/* Makes a key, for a program that wants to repeat a change even after its own death: time first, random after. */
SESSIOND_CHECKED int sessiond_make_key(char ret_key[SESSIOND_KEY_SIZE]);

/* ---- the daemon ---- */

struct sessiond_hello {
    char socket[108];  /* the path that the client is connected to */
    char instance[64]; /* of the daemon's data */
    char version[64];
    uint64_t protocol;
    uint64_t uid; /* whose histories these are */
};

/* Connects if need be, and tells to whom. `ret` may be NULL. */
SESSIOND_CHECKED int sessiond_hello(struct sessiond *client, struct sessiond_hello *ret);

/* Whether the daemon answers. */
SESSIOND_CHECKED int sessiond_ping(struct sessiond *client);

/* What the daemon says of itself, as one JSON object for people. Release: free(). */
SESSIOND_CHECKED int sessiond_info(struct sessiond *client, char **ret_json);

/* How its work goes, as text that Prometheus reads. Release: free(). */
SESSIOND_CHECKED int sessiond_stats(struct sessiond *client, char **ret_text);

/* A session that is asked for often. */
struct sessiond_busy {
    uint64_t uid;                 /* of its owner; of a shared store, who asks */
    struct sessiond_text store;   /* "@name": a shared one */
    struct sessiond_text session; /* its id */
    uint64_t requests;            /* lately: see `stats` in PROTOCOL.md */
};

struct sessiond_top {
    struct sessiond_text text;            /* as of sessiond_stats */
    const struct sessiond_busy *sessions; /* those with most requests first */
    size_t n_sessions;
    void *owner;
};

/* The same with the n busiest sessions, 100 at most; of a daemon of many users, those that the caller may know of.
 * Release: sessiond_top_free. */
SESSIOND_CHECKED int sessiond_stats_top(struct sessiond *client, uint64_t n, struct sessiond_top *ret);
SESSIOND_PUBLIC void sessiond_top_free(struct sessiond_top *top);

/* Writes a verified copy of a store (NULL: the client's) to a file of mode 0600, while the daemon works on. It grows as
 * PATH.partial and gets its name, in place of an older file, when it is whole and on disk: what has the name is good.
 * Return: also -EBUSY, if another backup to the same path is under way. */
SESSIOND_CHECKED int sessiond_backup(struct sessiond *client, const char *store, const char *path);

/* Accepts that a store (NULL: the client's) has less than was acknowledged, after somebody has looked: from now on it
 * makes changes again instead of refusing them with SESSIOND_ROLLED_BACK. `ret_missing` (may be NULL) gets what was
 * missing, as in struct sessiond_items. */
SESSIOND_CHECKED int sessiond_recover(struct sessiond *client, const char *store, uint64_t *ret_missing);

/* ---- many calls under way ---- */

enum sessiond_method {
    SESSIOND_PING,
    SESSIOND_INFO,
    SESSIOND_GET_ITEMS,
    SESSIOND_ADD_ITEMS,
    SESSIOND_POP_ITEM,
    SESSIOND_CLEAR_SESSION,
    SESSIOND_REPLACE_ITEMS,
    SESSIOND_DELETE_SESSION,
    SESSIOND_LIST_SESSIONS,
    SESSIOND_LIST_STORES,
    SESSIOND_RECOVER,
    SESSIOND_BACKUP,
    SESSIOND_BACKUP_READ,
    SESSIOND_BACKUP_DELETE,
    SESSIOND_STATS,
    SESSIOND_N_METHODS
};

/* A call. Only what the method knows is looked at; zero means absent. The fields mean what they mean above. */
struct sessiond_call {
    enum sessiond_method method;
    const char *store;
    const char *session;
    const struct sessiond_text *items;
    size_t n_items;
    const struct sessiond_text *meta; /* of add_items and replace_items, n_items of them; NULL: none */
    bool with_meta;                   /* of get_items and pop_item */
    const char *key;
    const char *digest;
    struct sessiond_number if_revision;
    struct sessiond_number if_epoch;
    struct sessiond_number from_seq; /* of replace_items */
    struct sessiond_number limit;    /* of get_items and list_sessions */
    struct sessiond_number after;    /* of get_items */
    struct sessiond_number before;   /* of get_items */
    const char *after_id;            /* of list_sessions */
    const char *prefix;              /* of list_sessions */
    const char *backup;              /* of backup_read and backup_delete */
    uint64_t offset;                 /* of backup_read */
    struct sessiond_number top;      /* of stats: so many of the busiest sessions */
};

struct sessiond_backup_part {
    struct sessiond_text backup; /* its name, from backup */
    struct sessiond_text data;   /* from backup_read */
    uint64_t bytes;              /* of the whole */
};

/* What the method answers; borrowed, valid during the callback. */
union sessiond_answer {
    struct sessiond_items items;       /* get_items, all pages of it */
    struct sessiond_changed changed;   /* add_items, clear_session, replace_items, delete_session */
    struct sessiond_popped popped;     /* pop_item */
    struct sessiond_sessions sessions; /* list_sessions, all pages of it */
    struct sessiond_stores stores;     /* list_stores */
    struct sessiond_text info;         /* info, as JSON */
    struct sessiond_top top;           /* stats */
    uint64_t missing;                  /* recover */
    struct sessiond_backup_part part;  /* backup, backup_read */
};

/* Gets what a blocking call would return; `answer` is NULL unless r is 0. It may send further calls, but not block and
 * not free the client. */
typedef void sessiond_answer_fn(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg);

/* Sends a call without waiting. What the call points at is copied. The callback comes exactly once, from
 * sessiond_process, sessiond_wait, sessiond_free or a blocking call, if and only if this returns 0. Calls on one
 * session take effect in the order sent. Where a call is answered `busy` after a later call on its session succeeded,
 * it is not tried again. Return: -ENOBUFS: 65,536 calls or 256 MiB are under way; SESSIOND_TOO_LARGE; -errno of
 * connecting. */
SESSIOND_CHECKED int sessiond_send(struct sessiond *client, const struct sessiond_call *call,
                                   sessiond_answer_fn *callback, void *arg);

/* How many calls have not been answered. */
SESSIOND_PUBLIC size_t sessiond_pending(const struct sessiond *client);

/* Blocks until none is. Return: -EDEADLK inside a callback, as for all blocking calls. */
SESSIOND_CHECKED int sessiond_wait(struct sessiond *client);

/* For any event loop: wait until the descriptor has one of the events, or the time is over, then call
 * sessiond_process with what was seen (0: the time). Ask for all three anew after each sessiond_process and
 * sessiond_send: the descriptor changes when the client reconnects. */
SESSIOND_PUBLIC int sessiond_fd(const struct sessiond *client);       /* -1: none at the moment, or none needed */
SESSIOND_PUBLIC short sessiond_events(const struct sessiond *client); /* of poll(): POLLIN, POLLOUT */
SESSIOND_PUBLIC int sessiond_timeout(const struct sessiond *client);  /* in milliseconds; -1: no limit */

/* Reads and writes what can be without blocking, and calls back. Errors reach the calls that they concern.
 * Return: -EDEADLK inside a callback. */
SESSIOND_PUBLIC int sessiond_process(struct sessiond *client, short revents);

/* The version of this library, such as "0.1.0". */
SESSIOND_PUBLIC const char *sessiond_version(void);

#ifdef __cplusplus
}
#endif

#endif
