/*
 * What the driver and the load programs share, in a mapped file: when the daemon is to be killed, and when the load is
 * to end. A moment is named by progress, not by time: the load program that makes the countdown zero kills the daemon
 * there and then. The driver writes the event last, and reaps the daemon only after it was killed, so the pid is never
 * another process's. tests/crash/run has the same layout in Python.
 */
#ifndef SESSIOND_TESTS_CRASH_PLAN_H
#define SESSIOND_TESTS_CRASH_PLAN_H

#include <stdatomic.h>
#include <stdint.h>

enum plan_event {
    PLAN_NOTHING,
    PLAN_SENT,     /* a change was handed to the kernel */
    PLAN_ANSWERED, /* a change was answered */
};

struct plan {
    _Atomic int32_t event; /* enum plan_event */
    _Atomic int32_t stop;  /* not zero: finish what is under way and end */
    _Atomic int64_t countdown;
    _Atomic int32_t pid;
    int32_t unused;
    _Atomic int64_t answered; /* changes, by all load programs so far */
};

#endif
