/*
 * How a disk fails, or where the daemon is killed, in a file that the harness and the preloaded library in the daemon
 * both map: which calls on which files, and when. The harness writes `calls` last; the library reads it first, and 0
 * means that the disk is well. disk.py has the same layout.
 */
#ifndef SESSIOND_TESTS_FAULTS_PLAN_H
#define SESSIOND_TESTS_FAULTS_PLAN_H

#include <stdatomic.h>
#include <stdint.h>

enum fault_call {
    FAULT_SYNC = 1,     /* fdatasync, fsync */
    FAULT_WRITE = 2,    /* pwrite, write */
    FAULT_TRUNCATE = 4, /* ftruncate */
    FAULT_READ = 8,     /* pread */
    FAULT_OPEN = 16,
    FAULT_UNLINK = 32,
    FAULT_HEADER = 64, /* pwrite at a file's beginning */
};

enum fault_way {
    FAULT_NONE,
    FAULT_UNDONE,  /* nothing happens, and the call says so */
    FAULT_HALF,    /* half of the bytes are written; the call says that it failed */
    FAULT_DONE,    /* all of it happens; the call says that it failed */
    FAULT_SWALLOW, /* nothing happens, and the call says that all is well: no disk may do this. For control runs */
    FAULT_HANG,    /* the call returns when the disk is well again */
    /* The others end the process, as kill -9 does: */
    FAULT_KILL_BEFORE, /* and nothing happens */
    FAULT_KILL_HALF,   /* when half of the bytes are written */
    FAULT_KILL_AFTER,  /* when all of it has happened */
    FAULT_KILL_ANSWER, /* all of it happens, and the next bytes for a client are the end */
};

struct fault_plan {
    _Atomic uint32_t calls;    /* those that count, as bits */
    _Atomic uint32_t way;      /* of the call that makes the countdown zero */
    _Atomic uint32_t way_then; /* of all calls after it */
    _Atomic int32_t error;     /* errno */
    _Atomic int64_t countdown;
    _Atomic int64_t failed;
    _Atomic int64_t hanging;
    char pattern[512]; /* of the paths, for fnmatch with FNM_EXTMATCH */
};

#endif
