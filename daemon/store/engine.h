/*
 * What a kind of database must be able to do to hold a store: one table of functions, in the words of the domain.
 *
 * Rules, proved for every engine by tests/contract:
 *  - Used by one thread at a time, the lane of its store; every call is synchronous.
 *  - Several requests may share a transaction: begin, any number of operations, commit or rollback.
 *  - An operation returns 0 (done), an outcome, or a fault. After CONFLICT, KEY_REUSED or NOT_FOUND, and after
 *    SESSIOND_FULL because the owner may have no more (enum over), it has changed nothing and the transaction goes on.
 *    After any other SESSIOND_FULL, SESSIOND_ROLLED_BACK (damage, or less than was acknowledged) or a fault the
 *    transaction must be rolled back.
 *  - commit returns 0 (all of it is on disk), SESSIOND_UNCERTAIN (it may or may not be), SESSIOND_FULL or a fault
 *    (certainly nothing of it is stored).
 *  - After a fault is_broken may say that the engine's view of the disk is no longer to be trusted: close and reopen.
 *  - Rows go to a callback; what it is given is valid during the call only.
 */
#ifndef SESSIOND_STORE_ENGINE_H
#define SESSIOND_STORE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "message.h"

struct config;
struct engine; /* one open store; owned by its struct store */

enum { FINGERPRINT_SIZE = 16 };

/* What all changes have in common. */
struct change {
    struct slice session;
    struct slice key;                            /* data NULL: none */
    unsigned char fingerprint[FINGERPRINT_SIZE]; /* of the request, where there is a key */
    struct number if_revision, if_epoch;
    uint64_t now_us;          /* wall clock, for people */
    const struct slice *meta; /* what stands beside each item that is added; data NULL: nothing. NULL: beside none */
    bool no_sessions;         /* its owner may have no more of them; a change that begins one is refused, */
    bool no_bytes;            /* or no more bytes; any that adds some is refused, a removal is not */
};

/* What a change was refused for, with SESSIOND_FULL. */
enum over {
    OVER_DISK, /* there is no space, and the transaction must be rolled back */
    OVER_SESSIONS,
    OVER_BYTES, /* this and the one before: its owner may have no more; nothing has been changed */
};

struct change_result {
    uint64_t revision, epoch;     /* after the change; with SESSIOND_CONFLICT the present ones */
    uint64_t first_seq, last_seq; /* of the items added, or of the item popped; 0: none */
    uint64_t removed;             /* items */
    bool repeated;                /* the answer is an old receipt's: nothing was done now */
    bool erased;                  /* a repeated pop whose item a clear has erased */
    enum over over;               /* with SESSIOND_FULL */
};

struct selection {
    struct slice session;
    struct number limit, after, before, if_epoch;
    uint64_t max_bytes;
    bool with_meta; /* give it, and count its bytes */
};

struct selection_result {
    uint64_t first_seq, last_seq; /* of the rows given; 0: none */
    uint64_t head_seq, revision, epoch;
    uint64_t n;
    bool more;
    uint64_t missing; /* the store has lost so many rows that were acknowledged; 0: none */
};

struct session_range {
    struct slice after, prefix; /* data NULL: none */
    uint64_t limit;
};

struct session_info {
    struct slice id;
    uint64_t count, bytes, head_seq, revision, epoch, created_us, updated_us;
};

struct store_sizes {
    uint64_t sessions, bytes, log_bytes;
    uint64_t missing; /* as above */
};

/* What a store holds that its owner has to pay for. */
struct store_use {
    uint64_t sessions; /* with those that the open transaction begins, and without those that it deletes */
    uint64_t bytes;    /* of the database and its log, by the last commit or step */
    uint64_t spare;    /* of these bytes those that are free, and used before the database grows */
};

/* `meta`: data NULL where the item has none, or nobody asked. Return: 0 to go on, or a fault (of a reading, or an
 * outcome) that ends the operation and is what it returns. */
typedef int (*item_fn)(void *arg, uint64_t seq, struct slice item, struct slice meta);
typedef int (*session_fn)(void *arg, const struct session_info *session);

struct engine_table {
    const char *name;

    /* `directory` belongs to the store alone and exists; NULL: the store is volatile. */
    int (*open)(struct engine **ret, const char *directory, const struct config *config);
    /* Syncs, tidies and frees. After an is_broken it only frees. Accepts NULL. */
    void (*close)(struct engine *engine);
    bool (*is_broken)(const struct engine *engine);

    /* Bytes in its write-ahead log, without asking the disk. NULL: it has none. */
    uint64_t (*log_bytes)(const struct engine *engine);

    /* What it holds, without asking the disk. NULL: it does not count. */
    void (*use)(const struct engine *engine, struct store_use *ret);
    /* The sessions of a store that is closed, as far as that is written down; 0: opening it will tell. */
    uint64_t (*closed_sessions)(const char *directory);

    int (*begin)(struct engine *engine, bool writes);
    int (*commit)(struct engine *engine);
    void (*rollback)(struct engine *engine);

    int (*get_items)(struct engine *engine, const struct selection *selection, item_fn item, void *arg,
                     struct selection_result *ret);
    int (*list_sessions)(struct engine *engine, const struct session_range *range, session_fn session, void *arg,
                         bool *ret_more);
    int (*sizes)(struct engine *engine, struct store_sizes *ret);

    int (*add_items)(struct engine *engine, const struct change *change, const struct slice *items, size_t n,
                     struct change_result *ret);
    int (*pop_item)(struct engine *engine, const struct change *change, item_fn item, void *arg,
                    struct change_result *ret);
    int (*clear_session)(struct engine *engine, const struct change *change, struct change_result *ret);
    int (*replace_items)(struct engine *engine, const struct change *change, struct number from_seq,
                         const struct slice *items, size_t n, struct change_result *ret);
    int (*delete_session)(struct engine *engine, const struct change *change, struct change_result *ret);

    /* An operator accepts that something is missing: from the commit of this on, changes are made again. */
    int (*recover)(struct engine *engine, uint64_t *ret_missing);

    /* One small step of housekeeping, outside of transactions: checkpoints, tables that follow the log, receipts that
     * expire. *ret_more: another step is worth doing as soon as nobody waits. */
    int (*tend)(struct engine *engine, bool *ret_more);

    /* One step of a copy of the store into a file, outside of transactions; changes between steps are in the copy.
     * The first step of a copy has `path` new; *ret_more false: it is complete, with all that was committed so far,
     * and closed, but not synced. backup_end gives up an unfinished copy. */
    int (*backup_step)(struct engine *engine, const char *path, bool *ret_more);
    void (*backup_end)(struct engine *engine);
};

extern const struct engine_table sqlite_engine;

/* Checks a file made by backup_step: that it is a whole store of a version we know. Any thread; the file must not be
 * an open store's. Return: 0, SESSIOND_INVALID with `why` filled, or a fault. */
int sqlite_verify(const char *path, char *why, size_t size);

/* For info: the library's version and the exact build. */
const char *sqlite_version(void);
const char *sqlite_source(void);

/* Process-wide settings of the library; once, before the first open. Return: 0 or a fault. */
int sqlite_setup(const struct config *config);

#endif
