/*
 * Who is at the other end of a connection: what the kernel said at accept, the account that pays for what is done, and
 * the owner whose stores are meant, which is the caller's own unless an administrator named another.
 *
 * Counted: a connection holds one, and so does each of its requests, which may outlive it. Loop thread.
 */
#ifndef SESSIOND_STORE_CALLER_H
#define SESSIOND_STORE_CALLER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "store/account.h"
#include "store/store.h"

struct caller {
    size_t n_holders;
    pid_t pid; /* for the log only: pids are used again */
    uid_t uid;
    const struct config *config;
    struct account *account; /* the registry's */
    struct owner *owner;     /* the registry's; NULL: none yet */
    enum right *rights;      /* owned; see caller_rights; NULL: nobody has asked yet */
    uint64_t rights_of;      /* the generation of the configuration that they were worked out from */
    size_t n_groups;
    gid_t groups[]; /* the primary group and the others */
};

/* The one who asks holds the new caller. `groups` is copied. Return: 0 or a fault. */
int caller_new(struct caller **ret, struct registry *registry, uid_t uid, const gid_t *groups, size_t n_groups);

struct caller *caller_hold(struct caller *caller);

/* Accepts NULL. */
void caller_release(struct caller *caller);

/* Whether it may name other owners. */
bool caller_is_administrator(const struct caller *caller);

/* Acts as this owner from now on, which must be itself, or one that is there and that it may name as an administrator.
 * Return: 0, SESSIOND_NOT_FOUND (whether there is no such owner, or it must not know), or a fault. */
int caller_act_as(struct caller *caller, struct registry *registry, uid_t uid);

/* What it may do to each shared store, in the order of the configuration, and RIGHT_NONE behind them for one that is
 * not declared. It is worked out once, and again after a reload: so the time of an answer tells nothing of the lists,
 * and whether there are any. Valid until the next call. Return: 0 or a fault. */
int caller_rights(struct caller *caller, const enum right **ret);

/* Writes down that something was refused, once for each thing in a minute. Never an item's, session's or key's text. */
void caller_audit(struct caller *caller, const char *what, struct slice thing);

/* The same where it was refused for a limit of this. */
void caller_note_limit(struct caller *caller, enum account_resource of);

#endif
