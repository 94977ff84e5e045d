#include "json.h"

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto.h"
#include "utf8.h"

/* What may come next, where a token begins. */
enum expect {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END, /* after [ */
    EXPECT_KEY,
    EXPECT_KEY_OR_END, /* after { */
    EXPECT_COMMA_OR_END,
};

struct check {
    const char *end; /* of the text */
    enum expect expect;
    bool in_object;                              /* the innermost container is one, not an array */
    unsigned depth;                              /* open containers */
    uint64_t objects[PROTO_JSON_DEPTH_MAX / 64]; /* of these a bit each: is it an object? */
    const char *why;                             /* what is wrong, once something is */
    const char *wrong_at;
};

/* The functions below go over what begins at `at`. They return where it ends, or NULL where it is wrong: then this one
 * was called, and `check` tells. */
static const char *wrong(struct check *check, const char *at, const char *why)
{
    check->wrong_at = at;
    if (at == check->end)
        check->why = "the text ends too early";
    else if ((unsigned char)*at < 0x20)
        check->why = "a raw byte below 0x20 (line ends and tabs are such bytes too)";
    else
        check->why = why;
    return NULL;
}

static const char *skip_spaces(const struct check *check, const char *at)
{
    while (at < check->end && *at == ' ')
        at++;
    return at;
}

/* ---- strings ---- */

static const bool plain[256] = {[0x20 ... 0x21] = true, [0x23 ... 0x5b] = true, [0x5d ... 0x7f] = true};
static const bool escapable[256] = {
    ['"'] = true, ['\\'] = true, ['/'] = true, ['b'] = true, ['f'] = true, ['n'] = true, ['r'] = true, ['t'] = true};
static const bool hex_digit[256] = {['0' ... '9'] = true, ['a' ... 'f'] = true, ['A' ... 'F'] = true};

/* Of eight bytes, the first in the lowest bits: the highest bit of each that is not plain. In these differences a byte
 * that is meant can borrow from those above it and make them look meant too; so only the lowest bit that is set counts.
 */
static inline uint64_t specials(uint64_t bytes)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t quotes = bytes ^ ones * '"';
    uint64_t backslashes = bytes ^ ones * '\\';

    return ((bytes - ones * 0x20) | (quotes - ones) | (backslashes - ones) | bytes) & ones << 7;
}

static inline const char *skip_plain(const struct check *check, const char *at)
{
    uint64_t bytes, found;

    for (; (size_t)(check->end - at) >= sizeof(bytes); at += sizeof(bytes)) {
        memcpy(&bytes, at, sizeof(bytes));
        found = specials(le64toh(bytes));
        if (found)
            return at + __builtin_ctzll(found) / 8;
    }
    while (at < check->end && plain[(unsigned char)*at])
        at++;
    return at;
}

static const char *after_escape(struct check *check, const char *at)
{
    at++;
    if (at < check->end && escapable[(unsigned char)*at])
        return at + 1;
    if (at == check->end || *at != 'u')
        return wrong(check, at, "an escape must be one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
    at++;
    for (int i = 0; i < 4; i++, at++)
        if (at == check->end || !hex_digit[(unsigned char)*at])
            return wrong(check, at, "\\u must have four hexadecimal digits");
    return at;
}

static const char *after_string(struct check *check, const char *at)
{
    at++;
    for (;;) {
        const char *begin;

        at = skip_plain(check, at);
        if (at < check->end && *at == '"')
            return at + 1;
        if (at < check->end && *at == '\\') {
            at = after_escape(check, at);
            if (!at)
                return NULL;
            continue;
        }
        begin = at;
        at = utf8_skip(at, check->end);
        if (at == begin)
            return wrong(check, at, "this is not valid UTF-8");
    }
}

/* ---- numbers and names ---- */

static const char *after_digits(struct check *check, const char *at)
{
    const char *begin = at;

    while (at < check->end && *at >= '0' && *at <= '9')
        at++;
    return at > begin ? at : wrong(check, at, "a digit must come here");
}

static const char *after_number(struct check *check, const char *at)
{
    if (*at == '-')
        at++;
    at = at < check->end && *at == '0' ? at + 1 : after_digits(check, at);
    if (at && at < check->end && *at == '.')
        at = after_digits(check, at + 1);
    if (at && at < check->end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < check->end && (*at == '-' || *at == '+'))
            at++;
        at = after_digits(check, at);
    }
    return at;
}

static const char *after_name(struct check *check, const char *at, const char *name)
{
    for (; *name; name++, at++)
        if (at == check->end || *at != *name)
            return wrong(check, at, "the only names are true, false and null");
    return at;
}

/* ---- objects and arrays ---- */

static const char *after_opening(struct check *check, const char *at)
{
    unsigned i = check->depth;
    uint64_t bit = UINT64_C(1) << i % 64;

    _Static_assert(PROTO_JSON_DEPTH_MAX == 512, "the text below says so");
    if (i == PROTO_JSON_DEPTH_MAX)
        return wrong(check, at, "objects and arrays are more than 512 levels deep");
    check->in_object = *at == '{';
    check->objects[i / 64] = check->in_object ? check->objects[i / 64] | bit : check->objects[i / 64] & ~bit;
    check->depth++;
    check->expect = check->in_object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
    return at + 1;
}

static const char *after_closing(struct check *check, const char *at)
{
    unsigned outer = --check->depth - 1;

    check->in_object = check->depth > 0 && check->objects[outer / 64] >> outer % 64 & 1;
    check->expect = EXPECT_COMMA_OR_END;
    return at + 1;
}

static const char *after_value(struct check *check, const char *at)
{
    check->expect = EXPECT_COMMA_OR_END;
    switch (*at) {
    case '{':
    case '[':
        return after_opening(check, at);
    case '"':
        return after_string(check, at);
    case '-':
    case '0' ... '9':
        return after_number(check, at);
    case 't':
        return after_name(check, at, "true");
    case 'f':
        return after_name(check, at, "false");
    case 'n':
        return after_name(check, at, "null");
    default:
        return wrong(check, at, "a value must come here");
    }
}

/* A key and its colon. */
static const char *after_key(struct check *check, const char *at)
{
    if (*at != '"')
        return wrong(check, at, "a key in double quotes must come here");
    at = after_string(check, at);
    if (!at)
        return NULL;
    at = skip_spaces(check, at);
    if (at == check->end || *at != ':')
        return wrong(check, at, "a colon must come here");
    check->expect = EXPECT_VALUE;
    return at + 1;
}

static const char *after_comma(struct check *check, const char *at)
{
    if (*at != ',')
        return wrong(check, at, check->in_object ? "a comma or } must come here" : "a comma or ] must come here");
    check->expect = check->in_object ? EXPECT_KEY : EXPECT_VALUE;
    return at + 1;
}

static const char *after_token(struct check *check, const char *at)
{
    bool closing = *at == (check->in_object ? '}' : ']');

    switch (check->expect) {
    case EXPECT_VALUE:
        return after_value(check, at);
    case EXPECT_VALUE_OR_END:
        return closing ? after_closing(check, at) : after_value(check, at);
    case EXPECT_KEY:
        return after_key(check, at);
    case EXPECT_KEY_OR_END:
        return closing ? after_closing(check, at) : after_key(check, at);
    case EXPECT_COMMA_OR_END:
        return closing ? after_closing(check, at) : after_comma(check, at);
    }
    return NULL;
}

static const char *after_object(struct check *check, const char *at)
{
    at = skip_spaces(check, at);
    if (at == check->end || *at != '{')
        return wrong(check, at, "an item must be a JSON object and begin with {");
    at = after_opening(check, at);
    while (at && check->depth > 0) {
        at = skip_spaces(check, at);
        at = at < check->end ? after_token(check, at) : wrong(check, at, NULL);
    }
    return at;
}

const char *json_check_item(struct slice text, size_t *ret_offset)
{
    const char *begin = text.data ? text.data : "";
    struct check check = {.end = begin + text.size};
    const char *at = after_object(&check, begin);

    if (at)
        at = skip_spaces(&check, at);
    if (at && at < check.end)
        (void)wrong(&check, at, "the object has ended before this");
    if (check.why)
        *ret_offset = (size_t)(check.wrong_at - begin);
    return check.why;
}
