/*
 * What daemon and clients agree on, in C: codes, method names and the limits that clients see.
 * PROTOCOL.md is the same in words, and normative. No state, any thread.
 */
#ifndef SESSIOND_PROTO_H
#define SESSIOND_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sessiond-codes.h"

#define PROTO_VERSION 1
#define SESSIOND_VERSION "0.1.0"

#define PROTO_UID_MAX UINT32_C(4294967294)         /* the next one stands for "none" */
#define PROTO_NUMBER_MAX ((UINT64_C(1) << 53) - 1) /* every number stays readable to JavaScript */

enum {
    PROTO_FRAME_MAX = 128 * 1024 * 1024, /* bytes of one message (the operator may lower it) */
    PROTO_FRAME_VALUES_MAX = 1100000,    /* MessagePack values in one message, containers included */
    PROTO_FRAME_DEPTH_MAX = 16,          /* containers inside containers */
    PROTO_ITEM_MAX = 64 * 1024 * 1024,   /* bytes of one item (the operator may lower it) */
    PROTO_ITEMS_MAX = 1048576,           /* items in one request */
    PROTO_META_MAX = 1024 * 1024,        /* bytes of what stands beside one item */
    PROTO_META_ITEMS_MAX = 524288,       /* items in one request that has a list beside them */
    PROTO_JSON_DEPTH_MAX = 512,          /* objects and arrays inside each other in one item */
    PROTO_SESSION_MAX = 255,             /* bytes of a session id */
    PROTO_KEY_MAX = 255,                 /* bytes of a key or a digest */
    PROTO_STORE_MAX = 127,               /* bytes of a store's name, without the @ of a shared one */
    PROTO_ANSWER_MAX = 4 * 1024 * 1024,  /* bytes of items in one answer, unless one item alone is larger */
    PROTO_ANSWER_ITEMS_MAX = 65536,      /* items in one answer */
    PROTO_LIST_MAX = 1000,               /* sessions in one answer of list_sessions */
    PROTO_TOP_MAX = 100,                 /* sessions in one answer of stats */
    PROTO_IN_FLIGHT_MAX = 128,           /* unanswered requests of one connection that are worked on */
    PROTO_CLIENT_NAME_MAX = 255,         /* bytes of hello's client */
    PROTO_PATH_MAX = 4096,               /* bytes of a path in a request (backup) */
    PROTO_SOCKET_PATH_MAX = 107,         /* bytes of a Unix socket's path, set by the kernel */
};

/* The name of a code on the wire, "done" for 0. Return: NULL for what is no code. */
const char *proto_code_name(int code);

/* The sentence that goes with a code. Return: NULL for what is no code. */
const char *proto_code_meaning(int code);

/* The code of a wire name of `size` bytes. Return: SESSIOND_INTERNAL for a name this version does not know. */
int proto_code_of(const char *name, size_t size);

/* Whether this is a name for a store: [a-z0-9][a-z0-9._-]{0,126}. Any bytes. */
bool proto_is_store_name(const char *name, size_t size);

/* Whether the same request may simply be sent again after this code. */
int proto_code_retry(int code);

#endif
