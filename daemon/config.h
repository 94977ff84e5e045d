/*
 * What an operator can tune: every limit and setting that is not part of the protocol (those are in proto.h), its
 * default, range and unit. Filled once at start from the command line and the configuration file, then only read,
 * by any thread.
 */
#ifndef SESSIOND_CONFIG_H
#define SESSIOND_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* X(name, default, min, max, meaning). The names are those of the configuration file and of `info`. */
#define CONFIG_SETTINGS(X)                                                                                             \
    X(frame_bytes, 134217728, 65536, 134217728, "bytes of one message")                                                \
    X(item_bytes, 67108864, 1024, 67108864, "bytes of one item")                                                       \
    X(in_flight, 128, 1, 4096, "unanswered requests of one connection before it is no longer read")                    \
    X(unsent_bytes, 8388608, 65536, 1073741824, "unsent bytes of one connection before it is no longer read")          \
    X(stall_seconds, 30, 1, 3600, "a half frame or unsent bytes without progress for this long: closed")               \
    X(connections, 10000, 1, 1000000, "connections at a time")                                                         \
    X(connections_per_owner, 8192, 1, 1000000, "connections of one owner at a time")                                   \
    X(buffered_bytes_per_owner, 536870912, 1048576, 1099511627776, "buffered and queued bytes of one owner")           \
    X(lanes, 2, 1, 64, "threads that own stores")                                                                      \
    X(lane_requests, 4096, 1, 1000000, "requests waiting for one lane")                                                \
    X(lane_bytes, 268435456, 1048576, 1099511627776, "bytes of requests waiting for one lane")                         \
    X(batch_requests, 256, 1, 65536, "requests that share a transaction")                                              \
    X(batch_bytes, 8388608, 4096, 1073741824, "bytes of requests that share a transaction, or one larger request")     \
    X(stores_per_owner, 1024, 1, 100000, "stores of one owner")                                                        \
    X(open_stores, 64, 1, 4096, "stores that one lane keeps open; the least recently used is closed")                  \
    X(cache_bytes, 67108864, 1048576, 1099511627776, "page cache of one store")                                        \
    X(cache_bytes_total, 536870912, 8388608, 1099511627776, "page cache of all stores together")                       \
    X(log_bytes, 67108864, 4194304, 1099511627776, "size to which a store's write-ahead log is cut back")              \
    X(history_bytes, 134217728, 0, 1099511627776, "recent histories kept in memory, all owners together")              \
    X(ballast_bytes, 16777216, 0, 1073741824, "kept free for removals on a full disk, in one file")                    \
    X(memory_bytes, 268435456, 1048576, 1099511627776, "the memory store of one owner")                                \
    X(receipt_seconds, 86400, 60, 31536000, "uptime for which receipts are kept")                                      \
    X(receipt_min_seconds, 3600, 1, 31536000, "uptime for which a receipt is kept in any case")                        \
    X(receipts, 4000000, 1000, 1000000000, "receipts of one store; then the oldest go")                                \
    X(grace_seconds, 3, 1, 300, "time to finish what was read when the daemon stops")

struct config {
    char *socket_path; /* owned; NULL until config_complete */
    char *state_dir;   /* owned; NULL until config_complete */
    bool system;       /* many owners, each peer's uid its own */
    enum log_level log_level;
#define CONFIG_FIELD(name, initial, min, max, meaning) uint64_t name;
    CONFIG_SETTINGS(CONFIG_FIELD)
#undef CONFIG_FIELD
};

struct setting {
    const char *name;
    size_t offset; /* of a uint64_t in struct config */
    uint64_t initial, min, max;
    const char *meaning;
};

/* All settings, ended by a NULL name. */
extern const struct setting config_settings[];

static inline uint64_t config_value(const struct config *config, const struct setting *setting)
{
    return *(const uint64_t *)((const char *)config + setting->offset);
}

/* Fills in the defaults. */
void config_init(struct config *config);
void config_deinit(struct config *config);

/* Reads a configuration file: one JSON object whose keys are settings, or "socket", "state_dir", "log_level". What it
 * names is set; a key that we do not know, a wrong type or range is refused. Return: 0, SESSIOND_INVALID after a line
 * in the log that says where, or a fault. */
int config_read(struct config *config, const char *path);

/* Works out the socket and the state directory that nobody named. Return: as config_read. */
int config_complete(struct config *config);

#endif
