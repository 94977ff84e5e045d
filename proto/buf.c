#include "buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BUF_CAPACITY_MIN = 256,
    BUF_CAPACITY_KEPT = 1024 * 1024, /* a buf keeps this much for what comes next; more was for one huge frame */
};

void buf_deinit(struct buf *buf)
{
    free(buf->data);
    *buf = BUF_INIT;
}

/* Return: whether the capacity is what was asked for; if not, nothing changed. */
static bool set_capacity(struct buf *buf, size_t capacity)
{
    char *data = realloc(buf->data, capacity);

    if (!data)
        return false;
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

char *buf_reserve(struct buf *buf, size_t size)
{
    size_t capacity = buf->capacity ? buf->capacity : BUF_CAPACITY_MIN;
    size_t wanted;

    if (__builtin_add_overflow(buf->size, size, &wanted))
        return NULL;
    while (capacity < wanted)
        if (__builtin_mul_overflow(capacity, 2, &capacity))
            return NULL;
    if (capacity != buf->capacity && !set_capacity(buf, capacity))
        return NULL;
    return buf->data + buf->size;
}

void buf_grow(struct buf *buf, size_t size)
{
    assert(size <= buf->capacity - buf->size);
    buf->size += size;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    char *end;

    if (buf->failed || size == 0)
        return;
    end = buf_reserve(buf, size);
    if (!end) {
        buf->failed = true;
        return;
    }
    memcpy(end, data, size);
    buf->size += size;
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list arguments;
    char *end = NULL;
    int size;

    va_start(arguments, format);
    size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (!buf->failed && size >= 0)
        end = buf_reserve(buf, (size_t)size + 1); /* vsnprintf ends it with a zero, which does not count */
    if (!end) {
        buf->failed = true;
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(end, (size_t)size + 1, format, arguments);
    va_end(arguments);
    buf->size += (size_t)size;
}

/* A huge frame must not pin its memory for the life of a connection, not even if a few bytes of the next one follow it.
 * What is left is a quarter at most, so a buf neither shrinks at every drop nor grows again at the next append. */
static void give_back(struct buf *buf)
{
    bool failed = buf->failed;

    if (buf->size == 0) {
        buf_deinit(buf);
        buf->failed = failed;
        return;
    }
    while (buf->capacity > BUF_CAPACITY_KEPT && buf->size <= buf->capacity / 4)
        if (!set_capacity(buf, buf->capacity / 2))
            return; /* it is only larger than it should be */
}

void buf_drop(struct buf *buf, size_t size)
{
    assert(size <= buf->size);
    buf->size -= size;
    if (size > 0 && buf->size > 0) /* of nothing: a large frame that is still coming in is not to be copied each time */
        memmove(buf->data, buf->data + size, buf->size);
    if (buf->capacity > BUF_CAPACITY_KEPT)
        give_back(buf);
}
