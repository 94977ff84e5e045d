#include "base/syncs.h"

#include <stddef.h>

#include "base/clock.h"

static _Thread_local struct histogram *of_this_thread;

void syncs_count_into(struct histogram *us_of_each)
{
    of_this_thread = us_of_each;
}

void syncs_count(uint64_t began_us)
{
    if (of_this_thread)
        histogram_add(of_this_thread, clock_monotonic_us() - began_us);
}
