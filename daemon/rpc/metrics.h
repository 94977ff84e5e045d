/*
 * How the daemon's work goes: what was answered, and how fast. Written down by request_step for each answer, and told
 * by the method `stats` and by net/scrape.h as text that Prometheus reads. Never a session, a key or an item: stores
 * and methods have names that are ours, uids are numbers.
 *
 * Owned by struct daemon; the loop thread's. What the lanes count is theirs (store/lane.h).
 */
#ifndef SESSIOND_RPC_METRICS_H
#define SESSIOND_RPC_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/histogram.h"
#include "buf.h"
#include "sessiond-codes.h"

struct caller;
struct daemon;
struct request;

enum { METRICS_METHODS = 24 }; /* more than there are; the first stands for those that there are not */

struct metrics {
    uint64_t answers[METRICS_METHODS][SESSIOND_N_CODES];
    struct histogram latency_us[METRICS_METHODS]; /* from the whole frame to the answer */
};

/* An answer has been made, with this code (0: done). */
void metrics_count(const struct request *request, int code);

/* Whether the caller is told of all: administrators are, and who has a daemon of his own. Others are told of what is
 * their own uid's. */
bool metrics_tells_all(const struct daemon *daemon, const struct caller *caller);

/* The text, for this caller. */
void metrics_write(struct buf *text, const struct daemon *daemon, const struct caller *caller);

#endif
