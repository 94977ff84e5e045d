/*
 * What the text of `stats` says, in numbers: at one moment, or of what has happened between two. One thread.
 */
#ifndef SESSIOND_CLI_READING_H
#define SESSIOND_CLI_READING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sessiond.h"

enum {
    READING_METHODS = 32,
    READING_BUCKETS = 40,
};

/* A histogram: so many were at most so much. */
struct spread {
    struct {
        double at_most, n;
    } buckets[READING_BUCKETS];
    size_t n_buckets;
    double sum, n;
};

struct method_reading {
    char name[32];
    double answers, refusals; /* these are among those */
    struct spread seconds;
};

struct uid_reading {
    uint64_t uid;
    double answers, refusals;            /* counters; */
    double connections, requests, bytes; /* what it has at the moment */
};

struct reading {
    char version[32], instance[40];
    double uptime; /* seconds */
    bool tells_all;
    double connections;
    double queue_requests, queue_bytes, log_bytes; /* of all lanes */
    double history_bytes, history_sessions;
    double history_hits, history_misses, rollbacks; /* counters, as the next three */
    struct spread batch, commit;
    struct method_reading methods[READING_METHODS];
    size_t n_methods;
    struct uid_reading *uids; /* owned; in the order of uids */
    size_t n_uids;
};

/* Return: 0; -ENOMEM; -EPROTO, and `*ret_line` says which line is no sample. Release: reading_deinit. */
int reading_read(struct reading *ret, struct sessiond_text text, size_t *ret_line);
void reading_deinit(struct reading *reading); /* accepts a zeroed one */

/* Takes from the counters of `now` what they were before, and so leaves what has happened since. A reading of another
 * daemon, or of one before its restart, counts as nothing. Return: for how many seconds this is. */
double reading_since(struct reading *now, const struct reading *before);

/* The value that a part `q` of them (0.99) does not exceed, between bounds in a straight line. Return: NAN without any;
 * the largest bound where it is above all of them. */
double spread_quantile(const struct spread *spread, double q);

/* Return: NAN without any. */
double spread_mean(const struct spread *spread);

#endif
