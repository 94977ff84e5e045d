/* The configuration file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "config/kinds.h"
#include "sessiond-codes.h"

enum { FILE_MAX = 1 << 20 };

/* A file that is being read. jansson does not say where a key stands, but it keeps keys in their order: the text is
 * looked through again for the key that was the n-th. Whoever looks into an object within counts its keys, too. */
struct reading {
    const char *path;
    struct buf text;
    size_t n_keys; /* that were looked at so far, in the order of the text */
};

struct place {
    int line, column; /* from 1; columns in characters */
};

static const char *end_of_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at + 1;
}

/* Where the n-th key of a valid text begins: a string with a colon behind it. */
static const char *find_key(const char *at, const char *end, size_t n)
{
    while (at < end) {
        const char *after;

        if (*at != '"') {
            at++;
            continue;
        }
        after = end_of_string(at, end);
        while (after < end && strchr(" \t\r\n", *after))
            after++;
        if (after < end && *after == ':' && --n == 0)
            return at;
        at = after;
    }
    return end;
}

static struct place place_of(const struct reading *reading)
{
    const char *text = reading->text.data, *key = find_key(text, text + reading->text.size, reading->n_keys);
    struct place place = {1, 1};

    for (const char *at = text; at < key; at++) {
        if (*at == '\n')
            place = (struct place){place.line + 1, 1};
        else if (((unsigned char)*at & 0xc0) != 0x80) /* a character's first byte */
            place.column++;
    }
    return place;
}

static int refuse_key(const struct reading *reading, const char *key, const char *why)
{
    struct place place = place_of(reading);

    log_error("config_refused file=\"%s\" line=%d column=%d key=\"%s\" why=\"%s\"", reading->path, place.line,
              place.column, key, why);
    return SESSIOND_INVALID;
}

static int refuse_file(const char *path, const char *why)
{
    log_error("config_refused file=\"%s\" why=\"%s\"", path, why);
    return SESSIOND_INVALID;
}

static int read_key(struct config *config, const struct reading *reading, const char *key, const json_t *value)
{
    const struct setting *setting = config_setting(key);
    struct config ignored = {0};
    const char *why = NULL;
    bool by_flag;
    int r;

    if (!setting)
        return refuse_key(reading, key, "there is no such setting");
    by_flag = config_origin(config, setting)->source == CONFIG_FLAG; /* it must be right all the same */
    r = config_kinds[setting->kind].read(setting, config_field(by_flag ? &ignored : config, setting), value, &why);
    if (by_flag)
        config_deinit(&ignored);
    else if (r == 0)
        *config_origin(config, setting) = (struct config_origin){CONFIG_FILE, place_of(reading).line};
    return why ? refuse_key(reading, key, why) : r;
}

/* Return: 0, SESSIOND_NOT_FOUND, SESSIOND_INVALID or a fault. */
static int read_all(struct buf *ret, const char *path)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? SESSIOND_NOT_FOUND : refuse_file(path, strerrordesc_np(errno));
    do {
        char *room = buf_reserve(ret, 4096);

        if (!room)
            return fault(ENOMEM, "configuration");
        n = read(fd, room, 4096);
        if (n < 0)
            return refuse_file(path, strerrordesc_np(errno));
        buf_grow(ret, (size_t)n);
    } while (n > 0 && ret->size <= FILE_MAX);
    return ret->size > FILE_MAX ? refuse_file(path, "it has more than a megabyte") : 0;
}

static int read_keys(struct config *config, struct reading *reading, json_t *root)
{
    const char *key;
    json_t *value;
    int r;

    if (!json_is_object(root))
        return refuse_file(reading->path, "it has to be one JSON object");
    json_object_foreach(root, key, value)
    {
        reading->n_keys++;
        if ((r = read_key(config, reading, key, value)))
            return r;
    }
    return 0;
}

static int read_text(struct config *config, struct reading *reading)
{
    json_error_t error;
    json_t *root = json_loadb(reading->text.data, reading->text.size, JSON_REJECT_DUPLICATES, &error);
    int r;

    if (!root) {
        log_error("config_refused file=\"%s\" line=%d column=%d why=\"%s\"", reading->path, error.line, error.column,
                  error.text);
        return SESSIOND_INVALID;
    }
    r = read_keys(config, reading, root);
    json_decref(root);
    return r;
}

int config_read(struct config *config, const char *path)
{
    bool may_be_missing = path && path[0] == '-';
    struct reading reading = {.path = may_be_missing ? path + 1 : path};
    int r;

    if (!path)
        return 0;
    r = read_all(&reading.text, reading.path);
    if (r == SESSIOND_NOT_FOUND)
        r = may_be_missing ? 0 : refuse_file(reading.path, "there is no such file");
    else if (r == 0)
        r = read_text(config, &reading);
    buf_deinit(&reading.text);
    return r;
}
