/*
 * Where does one MessagePack value end? The scanner walks over headers only: it allocates nothing, recurses nowhere,
 * looks at no byte twice (but a header that was cut off), and refuses what is over a limit as soon as a header claims
 * it. It is the guard in front of msgpack-c, which would allocate from a claimed count. No state but the struct; any
 * thread.
 *
 * Use: zero the struct (FRAME_SCAN_INIT); call frame_scan with all bytes of the frame that are there so far, again and
 * again as more arrive; after FRAME_WHOLE the frame has `scan.offset` bytes, and a fresh struct begins the next one.
 */
#ifndef SESSIOND_FRAME_H
#define SESSIOND_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "proto.h"

enum frame_state {
    FRAME_WHOLE,     /* it ends at scan->offset */
    FRAME_PARTIAL,   /* more bytes are needed, and the limit leaves room for them */
    FRAME_INVALID,   /* no MessagePack: scan->why says what */
    FRAME_TOO_LARGE, /* over a limit: scan->why says which */
};

struct frame_scan {
    size_t size_max;                         /* limit for the frame, in bytes; 0: PROTO_FRAME_MAX */
    size_t offset;                           /* of the next header to look at, or the end of the frame */
    uint64_t values;                         /* begun or claimed so far */
    uint64_t outstanding;                    /* of these, claimed and not begun */
    uint64_t pending[PROTO_FRAME_DEPTH_MAX]; /* values still to come in each open container */
    unsigned depth;                          /* open containers */
    const char *why;                         /* static text; set with INVALID and TOO_LARGE */
};

#define FRAME_SCAN_INIT                                                                                                \
    (struct frame_scan)                                                                                                \
    {                                                                                                                  \
        0                                                                                                              \
    }

enum frame_state frame_scan(struct frame_scan *scan, const char *data, size_t size);

#endif
