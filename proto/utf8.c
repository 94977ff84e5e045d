#include "utf8.h"

#include <stdint.h>

static inline bool between(uint8_t byte, unsigned min, unsigned max)
{
    return byte >= min && byte <= max;
}

static inline bool continues(uint8_t byte)
{
    return between(byte, 0x80, 0xbf);
}

/* The second byte is where overlong forms, surrogates and what is above U+10FFFF show. */
static inline size_t character(const char *text, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)text;
    uint8_t first = size > 0 ? bytes[0] : 0xff;

    if (first < 0x80)
        return 1;
    if (between(first, 0xc2, 0xdf) && size >= 2)
        return continues(bytes[1]) ? 2 : 0;
    if (between(first, 0xe0, 0xef) && size >= 3)
        return between(bytes[1], first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && continues(bytes[2]) ? 3
                                                                                                                  : 0;
    if (between(first, 0xf0, 0xf4) && size >= 4)
        return between(bytes[1], first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && continues(bytes[2]) &&
                       continues(bytes[3])
                   ? 4
                   : 0;
    return 0;
}

size_t utf8_character(const char *text, size_t size)
{
    return character(text, size);
}

const char *utf8_skip(const char *at, const char *end)
{
    while (at < end && *at & 0x80) {
        size_t size = character(at, (size_t)(end - at));

        if (size == 0)
            return at;
        at += size;
    }
    return at;
}

bool utf8_valid(struct slice text)
{
    size_t at = 0;

    while (at < text.size) {
        size_t size = character(text.data + at, text.size - at);

        if (size == 0)
            return false;
        at += size;
    }
    return true;
}
