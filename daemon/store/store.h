/*
 * Who has which stores: the owners that this daemon has met, and their stores by name. A directory of its own for each
 * owner, and in it one for each store, named by the hex digits of the store's name:
 *
 *     STATE/u/UID/HEX/items.db
 *     STATE/shared/HEX/items.db      a shared store, which belongs to nobody
 *
 * The registry owns owners, and they own their stores, until the daemon ends. All of this is used on the loop thread;
 * what a store does on its lane is behind struct lane_store.
 */
#ifndef SESSIOND_STORE_STORE_H
#define SESSIOND_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "config/config.h"
#include "proto.h"
#include "store/lane.h"

struct account;
struct caller;
struct engine_table;
struct registry;

struct store {
    struct lane_store lane;
    struct list link;               /* in owner->stores, by order of meeting */
    char name[PROTO_STORE_MAX + 2]; /* with the @ of a shared one */
    char *directory;                /* owned; NULL: volatile */
    bool exists;                    /* on disk, or a change that will make it has been submitted */
    bool backing_up;                /* a request makes a backup of it; the request clears this */
    uint64_t backup_bytes;          /* of a backup that lies beside it: charged to its account */
    struct account *own;            /* owned; a shared store's, which is no uid's; NULL: its owner's pays */
};

struct owner {
    uid_t uid;
    struct registry *registry;
    struct account *account; /* the registry's: pays for what the stores hold; NULL: each pays for itself */
    struct list stores;
    size_t n_stores;
    void *by_name;   /* tsearch */
    char *directory; /* owned; made, with mode 0700, with the first store in it */
};

/* Return: 0 or a fault. */
int registry_open(struct registry **ret, const struct config *config, struct lanes *lanes,
                  const struct engine_table *engine);

/* Frees all owners and stores; their lanes have stopped. */
void registry_close(struct registry *registry);

/* The owner with this uid; at the first time its directory is looked through, if it is there. Return: 0 or a fault. */
int registry_owner(struct registry *registry, uid_t uid, struct owner **ret);

/* The same for one who has been met, or has a directory. Return: 0, SESSIOND_NOT_FOUND, or a fault. */
int registry_existing_owner(struct registry *registry, uid_t uid, struct owner **ret);

/* The shared store of this name, with its @, and what the caller may do to it. Return: 0, SESSIOND_NOT_FOUND (it is not
 * declared, or the caller must not know), SESSIOND_INVALID (no name of a shared store), or a fault. */
int registry_shared(struct registry *registry, struct slice name, struct caller *caller, enum right *ret_right,
                    struct store **ret);

/* The next shared store that the caller may read, in the order of the configuration. Return: NULL after the last. */
struct store *registry_next_shared(struct registry *registry, struct caller *caller, const struct store *after);

/* Meets all who have something on the disk, where a limit of what all together may hold has been set: else who has not
 * come yet does not count. What cannot be read does not, as the log says. */
void registry_meet_all(struct registry *registry);

/* Calls for the account of each shared store, by its name with the @. */
void registry_each_shared(struct registry *registry,
                          void (*each)(const char *name, const struct account *account, void *arg), void *arg);

/* There is a backup of so many bytes beside the store. */
void store_has_backup(struct store *store, uint64_t bytes);

/* How long what waits for the busiest lane will take. */
uint64_t registry_wait_ms(const struct registry *registry);

const struct config *registry_config(const struct registry *registry);

/* What a uid pays with. Return: NULL if there is no memory for it. */
struct account *registry_account(struct registry *registry, uid_t uid);

/* Calls for each account, in the order of uids. */
void registry_each_account(struct registry *registry, void (*each)(const struct account *account, void *arg),
                           void *arg);

/* The store of that name, `default` for an absent one. If there is none it is made with `create`; without, the answer
 * is a store that is always empty. Return: 0, SESSIOND_INVALID (no name for a store), SESSIOND_NOT_FOUND (a shared
 * store that was not declared), SESSIOND_TOO_LARGE (too many stores), or a fault. */
int owner_store(struct owner *owner, struct slice name, bool create, struct store **ret);

/* The store of that name if it exists, else NULL. */
struct store *owner_existing_store(struct owner *owner, struct slice name);

#endif
