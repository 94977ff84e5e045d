#include "proto.h"

#include <string.h>

static const struct {
    const char *name;
    const char *meaning;
    int retry;
} codes[SESSIOND_N_CODES] = {[SESSIOND_DONE] = {"done", "done", 0},
#define CODE_ROW(code, wire, may_retry, text) [SESSIOND_##code] = {wire, text, may_retry},
                             SESSIOND_CODES(CODE_ROW)
#undef CODE_ROW
};

const char *proto_code_name(int code)
{
    return code >= 0 && code < SESSIOND_N_CODES ? codes[code].name : NULL;
}

const char *proto_code_meaning(int code)
{
    return code >= 0 && code < SESSIOND_N_CODES ? codes[code].meaning : NULL;
}

int proto_code_of(const char *name, size_t size)
{
    /* "done" is no code of the wire: an answer without an error is done. */
    for (int code = SESSIOND_DONE + 1; code < SESSIOND_N_CODES; code++)
        if (strlen(codes[code].name) == size && memcmp(codes[code].name, name, size) == 0)
            return code;
    return SESSIOND_INTERNAL;
}

int proto_code_retry(int code)
{
    return code >= 0 && code < SESSIOND_N_CODES && codes[code].retry;
}

bool proto_is_store_name(const char *name, size_t size)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789", rest[] = "._-";

    if (size == 0 || size > PROTO_STORE_MAX || !memchr(first, name[0], sizeof(first) - 1))
        return false;
    for (size_t i = 1; i < size; i++)
        if (!memchr(first, name[i], sizeof(first) - 1) && !memchr(rest, name[i], sizeof(rest) - 1))
            return false;
    return true;
}
