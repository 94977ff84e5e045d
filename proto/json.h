/*
 * Is this text one valid item? One JSON object in strict RFC 8259, valid UTF-8, at most PROTO_JSON_DEPTH_MAX deep, no
 * raw byte below 0x20 anywhere (so that JSON lines stay lines). Duplicate keys, numbers of any size, escapes such as
 * \ud800 and \u0000 and any spacing between tokens are fine. Iterative, constant memory; no state; any thread.
 *
 * The bytes are only looked at, never changed: an item is stored and returned byte for byte.
 */
#ifndef SESSIOND_JSON_H
#define SESSIOND_JSON_H

#include "buf.h"

/* Return: NULL if it is one; else a static text that says what is wrong, and *ret_offset is where, in bytes. */
const char *json_check_item(struct slice text, size_t *ret_offset);

#endif
