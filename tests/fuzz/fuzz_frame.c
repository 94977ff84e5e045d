/*
 * Any bytes, as they may come from a socket. What frame_scan says must not depend on the pieces that they come in, must
 * keep a lower limit to the byte, and must be what msgpack-c finds, which is only asked where frame_scan says that it
 * is safe. (`make fuzz` limits each allocation, so a claim that msgpack-c would allocate for is noticed.)
 */
#include <stdbool.h>

#include <msgpack.h>

#include "frame.h"
#include "fuzz.h"

enum { CHEAP_VALUES = 256 };

/* A number that is the same for the same input: the input itself has no bytes to spare for our choices. */
static uint64_t hash_of(const uint8_t *data, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

/* The next of some random-looking numbers. */
static uint64_t next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static enum frame_state scan_at_once(const char *data, size_t size, size_t size_max, struct frame_scan *ret)
{
    enum frame_state state;

    *ret = (struct frame_scan){.size_max = size_max};
    state = frame_scan(ret, data, size);
    MUST((ret->why != NULL) == (state == FRAME_INVALID || state == FRAME_TOO_LARGE));
    MUST(state != FRAME_WHOLE || ret->offset <= size);
    return state;
}

/* As a connection does it: each call gets all bytes that are there so far. The pieces have up to `piece_max` bytes. */
static void scan_in_pieces(const char *data, size_t size, size_t size_max, size_t piece_max,
                           const struct frame_scan *wanted, enum frame_state wanted_state)
{
    struct frame_scan scan = {.size_max = size_max};
    uint64_t random = size + piece_max;
    enum frame_state state = FRAME_PARTIAL;
    size_t there = 0;

    while (state == FRAME_PARTIAL && there < size) {
        there += 1 + next(&random) % piece_max;
        there = there < size ? there : size;
        state = frame_scan(&scan, data, there);
    }
    if (size == 0)
        state = frame_scan(&scan, data, 0);
    MUST(state == wanted_state);
    MUST(scan.offset == wanted->offset && scan.values == wanted->values && scan.depth == wanted->depth);
}

static void compare_with_msgpack(const char *data, size_t size, const struct frame_scan *scan, enum frame_state state)
{
    msgpack_unpacked unpacked;
    msgpack_unpack_return r;
    size_t offset = 0;

    if (state == FRAME_TOO_LARGE)
        return;
    msgpack_unpacked_init(&unpacked);
    r = msgpack_unpack_next(&unpacked, data, size, &offset);
    if (state == FRAME_WHOLE)
        MUST(r == MSGPACK_UNPACK_SUCCESS && offset == scan->offset);
    else
        MUST(r == (state == FRAME_PARTIAL ? MSGPACK_UNPACK_CONTINUE : MSGPACK_UNPACK_PARSE_ERROR));
    msgpack_unpacked_destroy(&unpacked);
}

/* msgpack-c allocates for the values that a frame claims to have, which half a frame can claim by the million: nobody
 * parses half a frame, so that only some of those are tried. */
static bool is_cheap(const struct frame_scan *scan, enum frame_state state, uint64_t *random)
{
    return state == FRAME_WHOLE || scan->values <= CHEAP_VALUES || next(random) % 256 == 0;
}

/* With a lower limit, the only other thing that may be said is "too large"; never of a frame that fits, and always of
 * one that does not, or has not ended when the limit is reached. */
static void scan_with_limit(const char *data, size_t size, size_t size_max, const struct frame_scan *free_scan,
                            enum frame_state free_state)
{
    struct frame_scan scan;
    enum frame_state state = scan_at_once(data, size, size_max, &scan);

    MUST(state == free_state || state == FRAME_TOO_LARGE);
    if (free_state == FRAME_WHOLE)
        MUST((state == FRAME_WHOLE) == (free_scan->offset <= size_max));
    if (state == FRAME_PARTIAL)
        MUST(size < size_max);
    scan_in_pieces(data, size, size_max, 5, &scan, state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    uint64_t random = hash_of(data, size);
    struct frame_scan scan;
    enum frame_state state = scan_at_once(bytes, size, 0, &scan);

    MUST(scan.values <= PROTO_FRAME_VALUES_MAX && scan.depth <= PROTO_FRAME_DEPTH_MAX);
    scan_in_pieces(bytes, size, 0, 1, &scan, state);
    scan_in_pieces(bytes, size, 0, 1 + next(&random) % 64, &scan, state);
    if (is_cheap(&scan, state, &random))
        compare_with_msgpack(bytes, size, &scan, state);
    scan_with_limit(bytes, size, 1 + next(&random) % (size + 2), &scan, state);
    return 0;
}
