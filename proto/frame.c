#include "frame.h"

#include <stdbool.h>

/* The formats c0 to df, each with a header of its own. The others keep their count in the first byte. */
static const struct format {
    uint8_t count_size; /* bytes of the count, big-endian, after the first byte */
    uint8_t body;       /* bytes of the value after the first byte, besides what is counted */
    uint8_t per_count;  /* values for each that is counted; 0: it counts bytes */
    bool invalid;
} formats[32] = {
    {0, 0, 0, false},  /* c0 nil */
    {0, 0, 0, true},   /* c1 never used */
    {0, 0, 0, false},  /* c2 false */
    {0, 0, 0, false},  /* c3 true */
    {1, 0, 0, false},  /* c4 bin */
    {2, 0, 0, false},  /* c5 bin */
    {4, 0, 0, false},  /* c6 bin */
    {1, 1, 0, false},  /* c7 ext: its type is the one byte more */
    {2, 1, 0, false},  /* c8 ext */
    {4, 1, 0, false},  /* c9 ext */
    {0, 4, 0, false},  /* ca float */
    {0, 8, 0, false},  /* cb float */
    {0, 1, 0, false},  /* cc unsigned integer */
    {0, 2, 0, false},  /* cd unsigned integer */
    {0, 4, 0, false},  /* ce unsigned integer */
    {0, 8, 0, false},  /* cf unsigned integer */
    {0, 1, 0, false},  /* d0 integer */
    {0, 2, 0, false},  /* d1 integer */
    {0, 4, 0, false},  /* d2 integer */
    {0, 8, 0, false},  /* d3 integer */
    {0, 2, 0, false},  /* d4 ext */
    {0, 3, 0, false},  /* d5 ext */
    {0, 5, 0, false},  /* d6 ext */
    {0, 9, 0, false},  /* d7 ext */
    {0, 17, 0, false}, /* d8 ext */
    {1, 0, 0, false},  /* d9 str */
    {2, 0, 0, false},  /* da str */
    {4, 0, 0, false},  /* db str */
    {2, 0, 1, false},  /* dc array */
    {4, 0, 1, false},  /* dd array */
    {2, 0, 2, false},  /* de map */
    {4, 0, 2, false},  /* df map */
};

/* One value's header, read. */
struct header {
    bool container;
    uint64_t size;     /* bytes of the value without the values inside it */
    uint64_t n_values; /* inside it */
};

static enum frame_state refuse(struct frame_scan *scan, enum frame_state state, const char *why)
{
    scan->why = why;
    return state;
}

/* The formats whose first byte holds the count. */
static struct header read_fixed(uint8_t first)
{
    if (first >= 0x80 && first <= 0x8f)
        return (struct header){.container = true, .size = 1, .n_values = UINT64_C(2) * (first & 0x0fU)};
    if (first >= 0x90 && first <= 0x9f)
        return (struct header){.container = true, .size = 1, .n_values = first & 0x0fU};
    if (first >= 0xa0 && first <= 0xbf)
        return (struct header){.size = 1 + (first & 0x1fU)};
    return (struct header){.size = 1}; /* small integers */
}

/* Return: FRAME_WHOLE if all of the header is there; PARTIAL, with the bytes that it has at least; or INVALID. */
static enum frame_state read_header(struct frame_scan *scan, const uint8_t *data, size_t size, struct header *ret)
{
    const struct format *format;
    uint64_t count = 0;

    if (data[0] < 0xc0 || data[0] > 0xdf) {
        *ret = read_fixed(data[0]);
        return FRAME_WHOLE;
    }
    format = &formats[data[0] - 0xc0];
    if (format->invalid)
        return refuse(scan, FRAME_INVALID, "the byte c1 begins no MessagePack value");
    *ret = (struct header){.container = format->per_count > 0, .size = 1U + format->count_size + format->body};
    if (size <= format->count_size)
        return FRAME_PARTIAL;
    for (unsigned i = 1; i <= format->count_size; i++)
        count = count << 8 | data[i];
    ret->size += ret->container ? 0 : count;
    ret->n_values = count * format->per_count;
    return FRAME_WHOLE;
}

/* Every limit is looked at before anything is made of a claim. A value that is still to come has at least one byte. */
static enum frame_state check_limits(struct frame_scan *scan, const struct header *header)
{
    size_t size_max = scan->size_max ? scan->size_max : PROTO_FRAME_MAX;

    if (header->size + header->n_values + scan->outstanding - 1 > size_max - scan->offset)
        return refuse(scan, FRAME_TOO_LARGE, "the message is larger than the limit for one message");
    if (header->n_values > PROTO_FRAME_VALUES_MAX - scan->values)
        return refuse(scan, FRAME_TOO_LARGE, "the message has more values than the limit for one message");
    if (header->container && scan->depth == PROTO_FRAME_DEPTH_MAX)
        return refuse(scan, FRAME_TOO_LARGE, "the message has more containers inside each other than the limit");
    return FRAME_WHOLE;
}

/* Counts the value in, and closes the containers that it completes. */
static void step_over(struct frame_scan *scan, const struct header *header)
{
    scan->offset += (size_t)header->size;
    scan->values += header->n_values;
    scan->outstanding += header->n_values - 1;
    if (header->n_values > 0) {
        scan->pending[scan->depth++] = header->n_values;
        return;
    }
    while (scan->depth > 0 && --scan->pending[scan->depth - 1] == 0)
        scan->depth--;
}

enum frame_state frame_scan(struct frame_scan *scan, const char *data, size_t size)
{
    if (scan->values == 0)
        scan->values = scan->outstanding = 1; /* the frame itself; every other value is claimed by its container */
    while (scan->outstanding > 0) {
        struct header header;
        enum frame_state state, limits;

        if (scan->offset >= size)
            return FRAME_PARTIAL;
        state = read_header(scan, (const uint8_t *)data + scan->offset, size - scan->offset, &header);
        if (state == FRAME_INVALID)
            return state;
        limits = check_limits(scan, &header);
        if (limits != FRAME_WHOLE)
            return limits;
        if (state == FRAME_PARTIAL)
            return state;
        step_over(scan, &header);
    }
    return scan->offset <= size ? FRAME_WHOLE : FRAME_PARTIAL;
}
