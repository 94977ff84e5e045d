/*
 * The outcomes of a request, as programs see them: the codes of the wire, and the numbers that C code
 * returns for them. Shared by the daemon and the C client, and installed beside sessiond.h.
 *
 * The convention everywhere in this project: 0 is done, > 0 is one of these outcomes, < 0 is a fault (-errno).
 */
#ifndef SESSIOND_CODES_H
#define SESSIOND_CODES_H

/* X(name, wire name, whether the same request may simply be sent again, what it means) */
#define SESSIOND_CODES(X)                                                                                              \
    X(INVALID, "invalid", 0, "the request is wrong; nothing was changed")                                              \
    X(UNKNOWN_METHOD, "unknown_method", 0, "there is no such method; nothing was changed")                             \
    X(NOT_FOUND, "not_found", 0, "no such thing, or none that you may see; nothing was changed")                       \
    X(DENIED, "denied", 0, "you may read it but not do this; nothing was changed")                                     \
    X(CONFLICT, "conflict", 0, "if_revision or if_epoch does not fit; nothing was changed")                            \
    X(KEY_REUSED, "key_reused", 0, "this key named another change; nothing was changed")                               \
    X(TOO_LARGE, "too_large", 0, "over a limit; nothing was changed")                                                  \
    X(BUSY, "busy", 1, "a queue or quota is full; nothing was changed, try again after retry_after_ms")                \
    X(FULL, "full", 0, "no space left on the disk, or for the owner; nothing was changed")                             \
    X(UNAVAILABLE, "unavailable", 1, "the store is away or in quarantine; nothing was changed")                        \
    X(UNCERTAIN, "uncertain", 1, "the change may or may not have happened; repeat it with the same key")               \
    X(ROLLED_BACK, "rolled_back", 0, "the store holds less than was acknowledged; nothing was changed")                \
    X(INTERNAL, "internal", 0, "a fault of the daemon, which is in its log; nothing was changed")

enum sessiond_code {
    SESSIOND_DONE = 0,
#define SESSIOND_CODE_ENUM(name, wire, retry, meaning) SESSIOND_##name,
    SESSIOND_CODES(SESSIOND_CODE_ENUM)
#undef SESSIOND_CODE_ENUM
        SESSIOND_N_CODES
};

#endif
