/*
 * How long the disk takes to sync. What syncs may be far below what is told of it (a VFS of SQLite, below a commit or a
 * checkpoint), so each thread says once where its syncs are counted.
 */
#ifndef SESSIOND_SYNCS_H
#define SESSIOND_SYNCS_H

#include <stdint.h>

#include "base/histogram.h"

/* From now on the calling thread's syncs are added to `us_of_each`, which must live as long as the thread syncs. A
 * thread that never calls this is not counted. */
void syncs_count_into(struct histogram *us_of_each);

/* The calling thread has synced a file since then (clock_monotonic_us), be it without success. */
void syncs_count(uint64_t began_us);

#endif
