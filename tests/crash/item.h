/*
 * Items that say who made them, so that whoever reads one knows whether it is whole and where it belongs. An item is a
 * function of its name alone: the same client, operation and index give the same bytes in every program and every run.
 *
 *     {"client":3,"op":17,"index":0,"of":4,"text":"defghijkl…"}        its name: 3.17.0/4
 */
#ifndef SESSIOND_TESTS_CRASH_ITEM_H
#define SESSIOND_TESTS_CRASH_ITEM_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item_name {
    unsigned client;
    uint64_t op;
    unsigned index;
    unsigned of; /* items in the batch */
};

enum { ITEM_NAME_SIZE = 64 }; /* of the name as text, its NUL included */

/* Mostly the size of a short message; one in 64 is longer than a page of the database. */
static inline size_t item_text_size(struct item_name name)
{
    uint64_t chance = (name.client * UINT64_C(2654435761) + name.op) * UINT64_C(0x9e3779b97f4a7c15) + name.index;

    chance ^= chance >> 29;
    return chance % 64 == 0 ? 4000 + chance % 8000 : 20 + chance % 500;
}

/* Return: the item, `*ret_size` bytes and a NUL, to be freed; ends the program without memory. */
static inline char *item_make(struct item_name name, size_t *ret_size)
{
    size_t text_size = item_text_size(name), capacity = text_size + 128, head;
    char *item = malloc(capacity);

    if (!item)
        abort();
    head = (size_t)snprintf(item, capacity, "{\"client\":%u,\"op\":%" PRIu64 ",\"index\":%u,\"of\":%u,\"text\":\"",
                            name.client, name.op, name.index, name.of);
    for (size_t i = 0; i < text_size; i++)
        item[head + i] = (char)('a' + (name.op + name.index + i) % 26);
    memcpy(item + head + text_size, "\"}", sizeof("\"}"));
    *ret_size = head + text_size + 2;
    return item;
}

/* Writes the name of an item, or "altered" if these are not exactly the bytes that its maker sent. `item` ends with
 * a NUL. */
static inline void item_identify(const char *item, size_t size, char ret_name[ITEM_NAME_SIZE])
{
    struct item_name name;
    size_t whole_size = 0;
    char *whole = NULL;

    if (sscanf(item, "{\"client\":%u,\"op\":%" SCNu64 ",\"index\":%u,\"of\":%u,\"text\":\"", &name.client, &name.op,
               &name.index, &name.of) == 4)
        whole = item_make(name, &whole_size);
    if (whole && whole_size == size && memcmp(whole, item, size) == 0)
        (void)snprintf(ret_name, ITEM_NAME_SIZE, "%u.%" PRIu64 ".%u/%u", name.client, name.op, name.index, name.of);
    else
        (void)snprintf(ret_name, ITEM_NAME_SIZE, "altered");
    free(whole);
}

#endif
