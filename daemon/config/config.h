/*
 * What an operator can tune: every limit and setting that is not part of the protocol (those are in proto.h), with its
 * unit, range and default, in one table. The command line, the configuration file, `info`, --print-config,
 * --help-config and the manual page know what stands in it.
 *
 * Filled at start from the command line and the file. Later the loop thread alone changes it (config_reload), and only
 * settings that are marked SETTING_AT_ONCE: those the loop alone reads. All others stay as they were at start, and any
 * thread reads them.
 */
#ifndef SESSIOND_CONFIG_H
#define SESSIOND_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/log.h"
#include "buf.h"
#include "config/sharing.h"

/* When a setting that was changed in the file takes effect. */
enum setting_when {
    SETTING_AT_START, /* other threads read it, or something was made to its measure: it needs a restart */
    SETTING_AT_ONCE,  /* with the next reload */
};

/* X(name, unit, default, min, max, when, meaning): the numbers. */
#define CONFIG_NUMBERS(X)                                                                                              \
    X(frame_bytes, "bytes", 134217728, 65536, 134217728, AT_START, "one message")                                      \
    X(item_bytes, "bytes", 67108864, 1024, 67108864, AT_START, "one item")                                             \
    X(in_flight, "requests", 128, 1, 4096, AT_ONCE,                                                                    \
      "unanswered requests of one connection before it is no longer read")                                             \
    X(unsent_bytes, "bytes", 8388608, 65536, 1073741824, AT_ONCE,                                                      \
      "unsent bytes of one connection before it is no longer read")                                                    \
    X(stall_seconds, "seconds", 30, 1, 3600, AT_ONCE,                                                                  \
      "a half frame or unsent bytes without progress for this long: closed")                                           \
    X(connections, "connections", 10000, 1, 1000000, AT_START, "connections at a time")                                \
    X(connections_per_owner, "connections", 8192, 1, 1000000, AT_ONCE, "connections of one owner at a time")           \
    X(requests, "requests", 65536, 1, 100000000, AT_ONCE, "requests in flight")                                        \
    X(requests_per_owner, "requests", 16384, 1, 100000000, AT_ONCE, "requests in flight of one owner")                 \
    X(buffered_bytes, "bytes", 1073741824, 1048576, 1099511627776, AT_ONCE, "buffered and queued bytes of all owners") \
    X(buffered_bytes_per_owner, "bytes", 536870912, 1048576, 1099511627776, AT_ONCE,                                   \
      "buffered and queued bytes of one owner")                                                                        \
    X(sessions, "sessions", 1000000000, 1, 1000000000, AT_ONCE, "sessions of all owners; the default is no limit")     \
    X(sessions_per_owner, "sessions", 1000000000, 1, 1000000000, AT_ONCE,                                              \
      "sessions of one owner, and of one shared store; the default is no limit")                                       \
    X(disk_bytes, "bytes", 1125899906842624, 1048576, 1125899906842624, AT_ONCE,                                       \
      "stores of all owners on the disk; the default is no limit")                                                     \
    X(disk_bytes_per_owner, "bytes", 1125899906842624, 1048576, 1125899906842624, AT_ONCE,                             \
      "stores of one owner on the disk, and one shared store; the default is no limit")                                \
    X(lanes, "threads", 2, 1, 64, AT_START, "threads that own stores")                                                 \
    X(lane_requests, "requests", 4096, 1, 1000000, AT_ONCE, "requests waiting for one lane")                           \
    X(lane_bytes, "bytes", 268435456, 1048576, 1099511627776, AT_ONCE, "requests waiting for one lane")                \
    X(batch_requests, "requests", 256, 1, 65536, AT_START, "requests that share a transaction")                        \
    X(batch_bytes, "bytes", 8388608, 4096, 1073741824, AT_START,                                                       \
      "requests that share a transaction, or one larger request")                                                      \
    X(stores_per_owner, "stores", 1024, 1, 100000, AT_ONCE, "stores of one owner")                                     \
    X(open_stores, "stores", 64, 1, 4096, AT_START,                                                                    \
      "stores that one lane keeps open; the least recently used is closed")                                            \
    X(cache_bytes, "bytes", 67108864, 1048576, 1099511627776, AT_START, "page cache of one store")                     \
    X(cache_bytes_total, "bytes", 536870912, 8388608, 1099511627776, AT_START, "page cache of all stores together")    \
    X(log_bytes, "bytes", 67108864, 4194304, 1099511627776, AT_START,                                                  \
      "size to which a store's write-ahead log is cut back")                                                           \
    X(history_bytes, "bytes", 134217728, 0, 1099511627776, AT_START,                                                   \
      "recent histories kept in memory, all owners together")                                                          \
    X(ballast_bytes, "bytes", 16777216, 0, 1073741824, AT_START, "kept free for removals on a full disk, in one file") \
    X(memory_bytes, "bytes", 268435456, 1048576, 1099511627776, AT_START, "the memory store of one owner")             \
    X(memory_bytes_total, "bytes", 1073741824, 1048576, 1099511627776, AT_ONCE, "memory stores of all owners")         \
    X(follow_rows, "rows", 16384, 1, 1000000, AT_START,                                                                \
      "changes that wait in memory before a store's tables follow its log")                                            \
    X(receipt_seconds, "seconds", 86400, 60, 31536000, AT_START, "uptime for which receipts are kept")                 \
    X(receipt_min_seconds, "seconds", 3600, 1, 31536000, AT_START, "uptime for which a receipt is kept in any case")   \
    X(receipts, "receipts", 4000000, 1000, 1000000000, AT_START, "receipts of one store; then the oldest go")          \
    X(erase_seconds, "seconds", 20, 0, 86400, AT_START,                                                                \
      "time after which what was removed is erased from a store's write-ahead log, too, within half a minute")         \
    X(grace_seconds, "seconds", 3, 1, 300, AT_ONCE, "time to finish what was read when the daemon stops")

/* X(name, field, kind, when, default, meaning): the others. The default is for people. */
#define CONFIG_OTHERS(X)                                                                                               \
    X(socket, socket_path, PATH, AT_START,                                                                             \
      "$XDG_RUNTIME_DIR/sessiond/sessiond.sock, with --system /run/sessiond/sessiond.sock",                            \
      "the socket; 107 bytes at most")                                                                                 \
    X(state_dir, state_dir, PATH, AT_START,                                                                            \
      "$XDG_STATE_HOME/sessiond or ~/.local/state/sessiond, with --system /var/lib/sessiond",                          \
      "the directory of the stores")                                                                                   \
    X(metrics_socket, metrics_path, PATH, AT_START, "\"\", which is none",                                             \
      "a socket on which a scraper is told over HTTP (GET /metrics) what sessionctl metrics prints; 107 bytes at "     \
      "most")                                                                                                          \
    X(log_level, log_level, LEVEL, AT_ONCE, "info", "what is logged: this and what is graver")                         \
    X(administrators, administrators, WHO, AT_ONCE, "[], which is root alone",                                         \
      "who may name another owner (sessionctl --owner)")                                                               \
    X(shared_stores, shared_stores, SHARED, AT_ONCE, "{}",                                                             \
      "the stores that owners share, by name without the @, and who may read, append to and change each")

/* Of the metrics socket; nobody needs to tune these. */
enum {
    CONFIG_SCRAPES = 16,       /* connections at a time, */
    CONFIG_SCRAPES_OF_ONE = 4, /* of one uid */
    CONFIG_SCRAPE_BYTES = 8192,
    CONFIG_SCRAPE_SECONDS = 5, /* for a request to come, and for its answer to be taken */
};

#define CONFIG_COUNT(...) +1
enum { CONFIG_N_SETTINGS = 0 CONFIG_OTHERS(CONFIG_COUNT) CONFIG_NUMBERS(CONFIG_COUNT) };

/* Who said so. A flag outweighs the file, wherever it stands. */
enum config_source { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_FLAG };

struct config_origin {
    enum config_source source;
    int line; /* of the file */
};

struct config {
    uint64_t generation; /* grows with each reload that changes something; the loop's */
    char *file;          /* owned; the configuration file, as --config has it; NULL: none */
    bool system;         /* many owners, each peer's uid its own */
    char *socket_path;   /* owned; NULL until config_complete */
    char *state_dir;     /* owned; NULL until config_complete */
    char *metrics_path;  /* owned; NULL or empty: none */
    enum log_level log_level;
    struct who *administrators;          /* owned; NULL: none but root. The loop's, as is the next */
    struct shared_stores *shared_stores; /* owned; NULL: none */
#define CONFIG_FIELD(name, ...) uint64_t name;
    CONFIG_NUMBERS(CONFIG_FIELD)
#undef CONFIG_FIELD
    struct config_origin origins[CONFIG_N_SETTINGS]; /* in the order of config_settings */
};

enum setting_kind {
    SETTING_NUMBER, /* uint64_t */
    SETTING_PATH,   /* char *, owned */
    SETTING_LEVEL,  /* enum log_level */
    SETTING_WHO,    /* struct who *, owned */
    SETTING_SHARED, /* struct shared_stores *, owned */
};

struct setting {
    const char *name;
    enum setting_kind kind;
    enum setting_when when;
    size_t offset; /* in struct config */
    const char *unit;
    uint64_t initial, min, max; /* of a number */
    const char *initial_text;   /* of another, for people */
    const char *meaning;
};

/* All settings, ended by a NULL name. */
extern const struct setting config_settings[];

/* The value of a number. Any thread: a lane answers `info` while the loop may reload. */
static inline uint64_t config_value_at(const struct config *config, size_t offset)
{
    return __atomic_load_n((const uint64_t *)((const char *)config + offset), __ATOMIC_RELAXED);
}

static inline uint64_t config_value(const struct config *config, const struct setting *setting)
{
    return config_value_at(config, setting->offset);
}

/* Return: NULL if there is none of this name. */
const struct setting *config_setting(const char *name);

/* The value of a setting that is no number, as a text. */
const char *config_text(const struct config *config, const struct setting *setting);

/* Fills in the defaults. */
void config_init(struct config *config);
void config_deinit(struct config *config);

/* Sets what a flag says, by the setting's name. Return: as config_read. */
int config_set_flag(struct config *config, const char *name, const char *value);

/* Reads a configuration file (NULL: none; with a '-' in front of its name it may be missing): one JSON object whose
 * keys are settings. What it names is set, unless a flag has said otherwise; a key that we do not know, a wrong type or
 * range is refused. Return: 0, SESSIOND_INVALID after a line in the log that says where, or a fault. */
int config_read(struct config *config, const char *path);

/* Works out the socket and the state directory that nobody named, and lowers what there are not enough descriptors for,
 * under RLIMIT_NOFILE's hard limit. Return: as config_read. */
int config_complete(struct config *config);

/* Reads config->file again and takes over what can change at once; says in the log what needs a restart. If anything in
 * the file is wrong, nothing changes. Loop thread. Return: as config_read. */
int config_reload(struct config *config);

/* For --print-config: each setting, its value as JSON, and who said so. For --help-config: what there is to set. */
void config_print(const struct config *config, struct buf *ret);
void config_help(struct buf *ret);

#endif
