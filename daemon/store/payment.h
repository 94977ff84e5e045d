/*
 * What the owner of a store pays for what it holds: sessions, and bytes on the disk or in memory (store/account.h). It
 * is charged before a change is made, as far as that can be known, and counted after each commit.
 *
 * On the thread of the store's lane, but for payment_over. A store without an account is free.
 */
#ifndef SESSIOND_STORE_PAYMENT_H
#define SESSIOND_STORE_PAYMENT_H

#include "store/account.h"
#include "store/engine.h"
#include "store/lane.h"

/* What the store has now is what its owner pays for, be it over a limit. One that is closed has what it had. */
void payment_count(struct lane_store *store);

/* Charges what a change may add to the store, and tells the job what the owner may have no more of. */
void payment_before(struct lane_store *store, struct job *job);

/* What the owner of the store, or all together, may have no more of, where a change was refused for that. Any
 * thread. */
enum account_resource payment_over(const struct lane_store *store, enum over over);

/* Charges a session that a change has begun, before it is committed. Return: false if that would be over a limit, which
 * another lane must have reached after the change was told. */
bool payment_after(struct lane_store *store);

#endif
