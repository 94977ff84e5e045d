/*
 * How the daemon's work goes: what was answered, and how fast. Written down by request_step for each answer, and told
 * by the method `stats` as text that Prometheus reads. Never a session, a key or an item: stores and methods have names
 * that are ours, uids are numbers.
 *
 * Owned by struct daemon; the loop thread's. What the lanes count is theirs (store/lane.h).
 */
#ifndef SESSIOND_RPC_METRICS_H
#define SESSIOND_RPC_METRICS_H

#include <stdint.h>

#include "base/histogram.h"
#include "sessiond-codes.h"

struct request;

enum { METRICS_METHODS = 24 }; /* more than there are; the first stands for those that there are not */

struct metrics {
    uint64_t answers[METRICS_METHODS][SESSIOND_N_CODES];
    struct histogram latency_us[METRICS_METHODS]; /* from the whole frame to the answer */
};

/* An answer has been made, with this code (0: done). */
void metrics_count(const struct request *request, int code);

#endif
