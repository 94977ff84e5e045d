/*
 * What each uid has taken of what the daemon can give: connections, requests in flight, bytes in memory, sessions, and
 * the bytes of stores on the disk and in memory. All of it is charged here before it is taken, and given back when it
 * goes; the sums cannot overflow. A uid has a limit, and all together have one. A shared store, which is no uid's, has
 * an account of its own.
 *
 * The last eighth of what all may have is kept for those who have less than an even share of it, so that a few greedy
 * uids never leave nothing for a modest one.
 *
 * Charging is atomic: a lane charges the bytes of an answer while it makes it. Accounts are owned by the registry's
 * table of them, or by their shared store, and live as long as the daemon. The audit of an account is the loop
 * thread's.
 */
#ifndef SESSIOND_STORE_ACCOUNT_H
#define SESSIOND_STORE_ACCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"

struct config;

/* X(name, wire name, words for people, setting of one uid, setting of all) */
#define ACCOUNT_RESOURCES(X)                                                                                           \
    X(CONNECTIONS, "connections", "connections", connections_per_owner, connections)                                   \
    X(REQUESTS, "requests", "requests", requests_per_owner, requests)                                                  \
    X(BYTES, "bytes", "buffered bytes", buffered_bytes_per_owner, buffered_bytes)                                      \
    X(SESSIONS, "sessions", "sessions", sessions_per_owner, sessions)                                                  \
    X(DISK, "disk_bytes", "bytes on the disk", disk_bytes_per_owner, disk_bytes)                                       \
    X(MEMORY, "memory_bytes", "bytes in memory", memory_bytes, memory_bytes_total)

enum account_resource {
#define ACCOUNT_RESOURCE(name, ...) ACCOUNT_##name,
    ACCOUNT_RESOURCES(ACCOUNT_RESOURCE)
#undef ACCOUNT_RESOURCE
        ACCOUNT_N_RESOURCES
};

enum { ACCOUNT_AUDITED = 16 }; /* refusals of one uid in a minute that get a line of their own */

struct accounts {
    const struct config *config;
    void *by_uid; /* tsearch; the loop's */
    bool many;    /* there are other uids for whom something is to be kept */
    _Atomic uint64_t used[ACCOUNT_N_RESOURCES];
    _Atomic uint64_t n_users[ACCOUNT_N_RESOURCES]; /* accounts that have any of it */
};

struct account {
    uid_t uid;
    struct accounts *all;
    _Atomic uint64_t used[ACCOUNT_N_RESOURCES];
    uint64_t n_answered, n_refused; /* requests, for metrics; the loop's */
    uint64_t audit_minute;
    unsigned n_audited; /* in that minute, and what: */
    uint64_t audited[ACCOUNT_AUDITED];
};

void accounts_init(struct accounts *accounts, const struct config *config);
void accounts_deinit(struct accounts *accounts);

/* The account of a uid, made when it is first met. Return: NULL if there is no memory for it. */
struct account *accounts_of(struct accounts *accounts, uid_t uid);

/* One that is no uid's; the caller frees it. Return: NULL if there is no memory for it. */
struct account *account_new(struct accounts *accounts);

/* Calls for each account of a uid, in the order of uids. */
void accounts_each(const struct accounts *accounts, void (*each)(const struct account *account, void *arg), void *arg);

/* The limits in force. Any thread, while the configuration may be reloaded. */
enum account_whose { ACCOUNT_OF_ONE, ACCOUNT_OF_ALL, ACCOUNT_N_WHOSE };
uint64_t account_limit(const struct accounts *accounts, enum account_resource what, enum account_whose whose);

/* Return: false if that would be over a limit; then nothing is charged. */
bool account_take(struct account *account, enum account_resource what, uint64_t amount);

/* Of a thing that all take as they take this resource, and of which there is `limit`: how far all together may go for
 * the sake of this uid. */
uint64_t account_share(const struct account *account, enum account_resource what, uint64_t limit);

/* Whether a uid, or all together, have all that they may. */
bool account_is_full(const struct account *account, enum account_resource what);

/* Charges what can no longer be refused. */
void account_take_anyway(struct account *account, enum account_resource what, uint64_t amount);

void account_give_back(struct account *account, enum account_resource what, uint64_t amount);

/* Charges `now` in place of `*charged`, which may be more or less; it is taken already. */
void account_settle(struct account *account, enum account_resource what, uint64_t *charged, uint64_t now);

/* As the wire and the log have it; and for people. */
const char *account_resource_name(enum account_resource what);
const char *account_resource_words(enum account_resource what);

/* Whether a refusal of `thing` is to be logged: once for each thing in a minute. After ACCOUNT_AUDITED things in one
 * minute a last line says so, and then there is silence until the next. */
enum account_audit { AUDIT_SILENCE, AUDIT_LINE, AUDIT_LAST_LINE };
enum account_audit account_audit(struct account *account, struct slice thing, uint64_t now_us);

#endif
