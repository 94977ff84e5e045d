#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct sessiond_error no_error = {
    .message = "", .item = -1, .revision = -1, .epoch = -1, .limit = -1, .retry_after_ms = -1};

int failure_set(struct failure *failure, int code, const char *format, ...)
{
    va_list arguments;

    failure->error = no_error;
    failure->error.code = code;
    failure->error.message = failure->message;
    va_start(arguments, format);
    (void)vsnprintf(failure->message, sizeof(failure->message), format, arguments);
    va_end(arguments);
    return code;
}

void failure_copy(struct failure *to, const struct failure *from)
{
    *to = *from;
    to->error.message = to->message;
    to->error.key = from->error.key ? to->key : NULL;
}

struct error_map {
    struct slice code, message;
    struct number item, revision, epoch, limit, retry_after_ms;
};

static const struct field error_fields[] = {
    {"code", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct error_map, code), 0, 0},
    {"message", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct error_map, message), 0, 0},
    {"item", FIELD_NUMBER, FIELD_NIL, offsetof(struct error_map, item), 0, 0},
    {"revision", FIELD_NUMBER, FIELD_NIL, offsetof(struct error_map, revision), 0, 0},
    {"epoch", FIELD_NUMBER, FIELD_NIL, offsetof(struct error_map, epoch), 0, 0},
    {"limit", FIELD_NUMBER, FIELD_NIL, offsetof(struct error_map, limit), 0, 0},
    {"retry_after_ms", FIELD_NUMBER, FIELD_NIL, offsetof(struct error_map, retry_after_ms), 0, 0},
    {0},
};

static int64_t number_or_none(struct number number)
{
    return number.present ? (int64_t)number.value : -1;
}

int failure_read(struct failure *failure, const struct message *message, const struct value *error)
{
    char why[MESSAGE_WHY_SIZE];
    struct error_map map = {0};
    int size, r = message_read(message, error, error_fields, MESSAGE_IGNORE_UNKNOWN, &map, why);

    if (r)
        return -EPROTO;
    size = map.message.size < CLIENT_MESSAGE_SIZE ? (int)map.message.size : CLIENT_MESSAGE_SIZE - 1;
    r = failure_set(failure, proto_code_of(map.code.data, map.code.size), "%.*s", size, map.message.data);
    failure->error.item = number_or_none(map.item);
    failure->error.revision = number_or_none(map.revision);
    failure->error.epoch = number_or_none(map.epoch);
    failure->error.limit = number_or_none(map.limit);
    failure->error.retry_after_ms = number_or_none(map.retry_after_ms);
    return r;
}

const struct sessiond_error *sessiond_last_error(const struct sessiond *client)
{
    return client->failure.error.code ? &client->failure.error : &no_error;
}

const char *sessiond_strerror(int r)
{
    const char *text = r < 0 ? strerrordesc_np(-r) : proto_code_meaning(r);

    return text ? text : "no code of sessiond";
}

const char *sessiond_version(void)
{
    return SESSIOND_VERSION;
}
