/*
 * MessagePack-RPC messages: parsing them, reading maps of parameters or results into structs by a table of fields, and
 * packing them. The only user of msgpack-c. A message owns its parsed tree; what is read from it (slices, lists,
 * values) borrows from the message and from the frame it was parsed from, and is valid as long as both live.
 * No state of its own; any thread, one thread at a time for each message.
 *
 * Only bytes that frame_scan called whole are parsed: it has bounded size, depth and counts.
 * Returns are 0, SESSIOND_INVALID or SESSIOND_TOO_LARGE (and `why` is filled), or -ENOMEM.
 */
#ifndef SESSIOND_MESSAGE_H
#define SESSIOND_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "proto.h"

enum { MESSAGE_WHY_SIZE = 160 };

enum message_type {
    MESSAGE_REQUEST = 0,
    MESSAGE_RESPONSE = 1,
    MESSAGE_NOTIFICATION = 2,
};

struct value; /* one MessagePack value inside a message, borrowed */

struct message {
    enum message_type type;
    uint32_t msgid;             /* of a request or response */
    struct slice method;        /* of a request or notification */
    const struct value *params; /* of a request or notification: the one map, or NULL where params is empty */
    const struct value *error;  /* of a response: NULL where it is nil */
    const struct value *result; /* of a response: NULL where it is nil */
    void *zone;                 /* owned: the parsed tree */
};

/* Parses one whole frame. On failure nothing is owned; `why` (MESSAGE_WHY_SIZE bytes) says what is wrong.
 * A request whose envelope is right but whose params is not "empty, or exactly one map" is the one failure that can
 * be answered: the return is SESSIOND_INVALID, and *ret_answerable is true with type and msgid filled. */
int message_parse(struct message *ret, struct slice frame, bool *ret_answerable, char *why);

/* Frees the tree. Accepts a zeroed message. */
void message_deinit(struct message *message);

/* ---- reading a map by a table ---- */

struct number {
    bool present;
    uint64_t value;
};

struct text_list {
    bool present;
    size_t n;
    struct slice *texts; /* in the message's zone; data NULL: nil, where FIELD_NIL_ELEMENTS allows it */
};

enum field_type {
    FIELD_TEXT,      /* str in valid UTF-8   -> struct slice      (data NULL: absent or nil) */
    FIELD_NUMBER,    /* integer 0 .. 2^53-1  -> struct number     (present false: absent or nil) */
    FIELD_BOOL,      /* boolean              -> bool */
    FIELD_TEXT_LIST, /* array of str         -> struct text_list  (their UTF-8 is not checked: the item checker does) */
    FIELD_VALUE,     /* anything             -> const struct value * */
};

enum {
    FIELD_REQUIRED = 1 << 0,     /* the key must be there, if only with nil where that is allowed */
    FIELD_NIL = 1 << 1,          /* nil is read as absent; without this nil is invalid, for FIELD_VALUE too */
    FIELD_NIL_ELEMENTS = 1 << 2, /* a text list may have nil in the place of texts */
};

struct field {
    const char *name;
    enum field_type type;
    unsigned flags;
    size_t offset; /* into the struct that is filled */
    uint64_t min;  /* of a number; of a text's length in bytes */
    uint64_t max;  /* the same; of a text list the number of texts. 0: no limit but the type's own */
};

enum message_unknown {
    MESSAGE_REFUSE_UNKNOWN, /* a daemon says so instead of ignoring what it does not know */
    MESSAGE_IGNORE_UNKNOWN, /* a client lets a newer daemon add to its answers */
};

/* Fills the fields of `into` (zeroed by the caller) from a map; `map` NULL reads as an empty one. `fields` ends with
 * a NULL name. Unknown keys (unless ignored), duplicate keys, keys that are no str and wrong types (bin for text
 * included) are SESSIOND_INVALID; a text or list over its max is SESSIOND_TOO_LARGE; a number out of range is INVALID.
 * At most 64 fields.
 */
int message_read(const struct message *message, const struct value *map, const struct field *fields,
                 enum message_unknown unknown, void *into, char *why);

/* The elements of an array value. Return: NULL beyond its end, or if it is no array. */
const struct value *message_element(const struct value *array, size_t index);
size_t message_n_elements(const struct value *array);

/* Whether the value is nil; a text value's bytes (data NULL if it is no text); a number's value (absent if none). */
bool message_is_nil(const struct value *value);
struct slice message_text(const struct value *value);
struct slice message_bytes(const struct value *value); /* of a bin */
struct number message_number(const struct value *value);

/* Writes any value as JSON text, for people (sessionctl info); a text that is no UTF-8 gets U+FFFD. */
void message_to_json(const struct value *value, struct buf *buf);

/* For info: msgpack-c's version. */
const char *message_library_version(void);

/* ---- packing: each appends to `buf` in MessagePack's shortest form; failures stick in buf->failed ----
 * What has 2^32 bytes or elements is a failure too: MessagePack cannot say it. */

void pack_nil(struct buf *buf);
void pack_bool(struct buf *buf, bool value);
void pack_number(struct buf *buf, uint64_t value);
void pack_text(struct buf *buf, struct slice text);
void pack_bytes(struct buf *buf, struct slice bytes); /* a bin: file contents, never text */
void pack_array(struct buf *buf, size_t n);           /* the n elements follow */
void pack_map(struct buf *buf, size_t n);             /* n pairs follow, key then value */

/* A pair of a map in one call. */
void pack_pair_nil(struct buf *buf, const char *key);
void pack_pair_bool(struct buf *buf, const char *key, bool value);
void pack_pair_number(struct buf *buf, const char *key, uint64_t value);
void pack_pair_text(struct buf *buf, const char *key, struct slice text);

/* The heads of messages; what is named must follow. */
void pack_request(struct buf *buf, uint32_t msgid, const char *method); /* follows: the map of parameters */
void pack_response(struct buf *buf, uint32_t msgid);                    /* follows: the map of results */
void pack_refusal(struct buf *buf, uint32_t msgid);          /* follows: the map of the error, then pack_nil */
void pack_notification(struct buf *buf, const char *method); /* follows: the map of parameters */

#endif
