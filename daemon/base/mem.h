/*
 * Ownership made visible in code: a local that owns says _cleanup_(f), handing it over says TAKE. No state; any thread.
 */
#ifndef SESSIOND_MEM_H
#define SESSIOND_MEM_H

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* The value of `p`, which is NULL afterwards: what it pointed to has a new owner. */
#define TAKE(p)                                                                                                        \
    ({                                                                                                                 \
        __typeof__(p) _taken = (p);                                                                                    \
        (p) = NULL;                                                                                                    \
        _taken;                                                                                                        \
    })

/* The same for a descriptor, which is -1 afterwards. */
#define TAKE_FD(fd)                                                                                                    \
    ({                                                                                                                 \
        int _taken = (fd);                                                                                             \
        (fd) = -1;                                                                                                     \
        _taken;                                                                                                        \
    })

/* The struct that `member` is part of. */
#define CONTAINER_OF(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

static inline void free_pointer(void *p)
{
    free(*(void **)p);
}

static inline void close_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#endif
