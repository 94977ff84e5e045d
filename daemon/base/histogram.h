/*
 * Counts of what happened, and histograms of how long or how much: buckets at the powers of two, so that to add costs
 * some ten instructions and no memory is ever asked for.
 *
 * One thread alone adds to a counter or a histogram, its owner's; any thread may read it at the same time, and sees
 * each number whole, though not all of them of the same instant.
 */
#ifndef SESSIOND_HISTOGRAM_H
#define SESSIOND_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 28 }; /* the i-th for what is at most 2^i, the last for all else */

struct histogram {
    uint64_t n[HISTOGRAM_BUCKETS];
    uint64_t sum;
};

static inline uint64_t counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* No atomic addition is needed where one thread alone writes. */
static inline void counter_add(uint64_t *counter, uint64_t amount)
{
    __atomic_store_n(counter, counter_read(counter) + amount, __ATOMIC_RELAXED);
}

static inline unsigned histogram_bucket(uint64_t value)
{
    unsigned bits = value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(value - 1);

    return bits < HISTOGRAM_BUCKETS - 1 ? bits : HISTOGRAM_BUCKETS - 1;
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    counter_add(&histogram->n[histogram_bucket(value)], 1);
    counter_add(&histogram->sum, value);
}

#endif
