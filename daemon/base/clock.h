/*
 * Time and randomness from the kernel. Wall-clock time is told to clients and never decides anything; what must be
 * measured is measured with the monotonic clock. Any thread.
 */
#ifndef SESSIOND_CLOCK_H
#define SESSIOND_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Microseconds since 1970 UTC; never negative. */
uint64_t clock_now_us(void);

/* Microseconds that only grow, from an arbitrary start. */
uint64_t clock_monotonic_us(void);

enum { RANDOM_ID_SIZE = 32 }; /* hex digits */

/* 128 random bits as hex digits and a NUL. Return: 0 or a fault. */
int clock_random_id(char ret[RANDOM_ID_SIZE + 1]);

#endif
