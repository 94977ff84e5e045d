/*
 * Bytes, in two kinds: a slice borrows them, a buf owns them. A slice is valid as long as what it points into.
 * No state of their own, any thread, one thread at a time for each buf.
 */
#ifndef SESSIOND_BUF_H
#define SESSIOND_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
    const char *data; /* NULL: there is none; an empty one has data and size 0 */
    size_t size;
};

struct buf {
    char *data; /* owned */
    size_t size;
    size_t capacity;
    bool failed; /* sticky: an append found no memory. Asked once, at the end. */
};

#define BUF_INIT                                                                                                       \
    (struct buf)                                                                                                       \
    {                                                                                                                  \
        0                                                                                                              \
    }

static inline struct slice slice_of(const char *text)
{
    return (struct slice){text, strlen(text)};
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline struct slice buf_slice(const struct buf *buf)
{
    return (struct slice){buf->data, buf->size};
}

/* Frees what the buf owns and leaves an empty one; its failure is forgotten. */
void buf_deinit(struct buf *buf);

/* Makes room for `size` more bytes. Return: where they go (they do not count until buf_grow), or NULL: no memory. */
char *buf_reserve(struct buf *buf, size_t size);

/* Counts `size` bytes that were written where buf_reserve said. */
void buf_grow(struct buf *buf, size_t size);

/* Copies `size` bytes to the end; a failure is kept in buf->failed. */
void buf_append(struct buf *buf, const void *data, size_t size);

/* The same with a formatted text. */
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drops the first `size` bytes; the memory is kept for what comes next. */
void buf_drop(struct buf *buf, size_t size);

#endif
