/*
 * Allocations that fail: the N-th one from now on, or that one and all after it, whoever asks for it: this program, the
 * libraries that it uses, or the C library itself, because the program's malloc comes before theirs. Allocations of
 * threads that called failing_never do not count. Included once by each program of this folder, since it defines
 * malloc.
 *
 * A library that ends the process because it has no memory is caught in abort, and named.
 */
#ifndef SESSIOND_TESTS_ALLOC_FAILING_H
#define SESSIOND_TESTS_ALLOC_FAILING_H

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Called before a sanitizer has set itself up. */
#define FAILING_EARLY __attribute__((no_sanitize("address", "undefined")))
#define FAILING_PUBLIC __attribute__((visibility("default")))

enum { FAILING_LIBRARY_ABORTED = 77 }; /* exit status */

static _Atomic uint64_t failing_left; /* 0: not armed; 1: the next one */
static _Atomic bool failing_lasts;
static _Atomic uint64_t failing_failed; /* so many have */
static __thread bool failing_exempt;

/* ---- whose memory it is ---- */

extern void *__interceptor_malloc(size_t size) __attribute__((weak));
extern void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__interceptor_realloc(void *memory, size_t size) __attribute__((weak));
extern int __interceptor_posix_memalign(void **ret, size_t alignment, size_t size) __attribute__((weak));
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

FAILING_EARLY static bool fails(void)
{
    uint64_t left = atomic_load(&failing_left);

    if (left == 0 || failing_exempt)
        return false;
    while (left > 1)
        if (atomic_compare_exchange_weak(&failing_left, &left, left - 1))
            return false;
    if (left == 0 || (!atomic_load(&failing_lasts) && atomic_exchange(&failing_left, 0) == 0))
        return false;
    atomic_fetch_add(&failing_failed, 1);
    errno = ENOMEM;
    return true;
}

FAILING_PUBLIC FAILING_EARLY void *malloc(size_t size);
FAILING_PUBLIC FAILING_EARLY void *calloc(size_t n, size_t size);
FAILING_PUBLIC FAILING_EARLY void *realloc(void *memory, size_t size);
FAILING_PUBLIC FAILING_EARLY int posix_memalign(void **ret, size_t alignment, size_t size);
FAILING_PUBLIC char *strdup(const char *text);

void *malloc(size_t size)
{
    if (fails())
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    if (fails())
        return NULL;
    return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

void *realloc(void *memory, size_t size)
{
    if (fails())
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(memory, size) : __libc_realloc(memory, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    void *memory;

    if (fails())
        return ENOMEM;
    if (__interceptor_posix_memalign)
        return __interceptor_posix_memalign(ret, alignment, size);
    memory = __libc_memalign(alignment, size);
    if (memory)
        *ret = memory;
    return memory ? 0 : ENOMEM;
}

/* A sanitizer's own would not come here. */
char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);

    return copy ? memcpy(copy, text, size) : NULL;
}

/* ---- who gave up ---- */

static int failing_report = STDERR_FILENO; /* where the name of a library goes */

FAILING_PUBLIC __attribute__((noreturn)) void abort(void);

void abort(void)
{
    const char *path, *file, *symbol;
    Dl_info info = {0};
    char line[256];
    int size;

    atomic_store(&failing_left, 0);
    (void)dladdr(__builtin_return_address(0), &info);
    path = info.dli_fname ? info.dli_fname : "?";
    symbol = info.dli_sname ? info.dli_sname : "?";
    file = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size = snprintf(line, sizeof(line), "%s, %s\n", file, symbol);
    if (!strstr(file, ".so") || write(failing_report, line, (size_t)size) < 0)
        _exit(128 + 6); /* it was us */
    _exit(FAILING_LIBRARY_ABORTED);
}

/* ---- for the programs ---- */

/* The calling thread's allocations succeed and do not count. */
__attribute__((unused)) static void failing_never(void)
{
    failing_exempt = true;
}

static void failing_arm(uint64_t n, bool lasts)
{
    atomic_store(&failing_failed, 0);
    atomic_store(&failing_lasts, lasts);
    atomic_store(&failing_left, n);
}

/* Return: how many failed. */
static uint64_t failing_disarm(void)
{
    atomic_store(&failing_left, 0);
    return atomic_load(&failing_failed);
}

#endif
