#include "utf8.h"

#include <stdint.h>

/* By first byte: how long the character is, and the range of its second byte, which is where overlong forms,
 * surrogates and what is above U+10FFFF show. The bytes after the second are 80 to BF. */
static const struct lead {
    uint8_t first, last, size, second_min, second_max;
} leads[] = {
    {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf}, {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f},
    {0xee, 0xef, 3, 0x80, 0xbf}, {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};

static const struct lead *lead_of(uint8_t byte)
{
    for (size_t i = 0; i < sizeof(leads) / sizeof(leads[0]); i++)
        if (byte >= leads[i].first && byte <= leads[i].last)
            return &leads[i];
    return NULL;
}

size_t utf8_character(const char *text, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)text;
    const struct lead *lead;

    if (size == 0)
        return 0;
    if (bytes[0] < 0x80)
        return 1;
    lead = lead_of(bytes[0]);
    if (!lead || size < lead->size || bytes[1] < lead->second_min || bytes[1] > lead->second_max)
        return 0;
    for (size_t i = 2; i < lead->size; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    return lead->size;
}

bool utf8_valid(struct slice text)
{
    size_t at = 0;

    while (at < text.size) {
        size_t size = utf8_character(text.data + at, text.size - at);

        if (size == 0)
            return false;
        at += size;
    }
    return true;
}
