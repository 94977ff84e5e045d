#include "client.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct page {
    struct page *next;
    size_t size; /* used */
    size_t capacity;
    char bytes[];
};

struct results *results_new(void)
{
    return calloc(1, sizeof(struct results));
}

void results_free(struct results *results)
{
    if (!results)
        return;
    while (results->pages) {
        struct page *page = results->pages;

        results->pages = page->next;
        free(page);
    }
    results_free(results->beside);
    free(results->elements);
    free(results);
}

int results_add_page(struct results *results, size_t size)
{
    struct page *page = malloc(sizeof(*page) + size);

    if (!page)
        return -ENOMEM;
    *page = (struct page){.next = results->pages, .capacity = size};
    results->pages = page;
    return 0;
}

struct sessiond_text results_copy(struct results *results, struct slice text)
{
    struct page *page = results->pages;
    char *copy = page->bytes + page->size;

    if (!text.data)
        return (struct sessiond_text){0};
    assert(text.size < page->capacity - page->size);
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    page->size += text.size + 1;
    return (struct sessiond_text){copy, text.size};
}

struct results *results_beside(struct results *results)
{
    if (!results->beside)
        results->beside = results_new();
    return results->beside;
}

void *results_add_elements(struct results *results, size_t n, size_t element_size)
{
    size_t capacity = results->capacity ? results->capacity : 16;
    char *elements = results->elements;

    while (capacity - results->n_elements < n)
        capacity *= 2;
    if (capacity != results->capacity) {
        elements = reallocarray(results->elements, capacity, element_size);
        if (!elements)
            return NULL;
        results->elements = elements;
        results->capacity = capacity;
    }
    elements += results->n_elements * element_size;
    memset(elements, 0, n * element_size);
    results->n_elements += n;
    return elements;
}

void sessiond_items_free(struct sessiond_items *items)
{
    results_free(items->owner);
    *items = (struct sessiond_items){0};
}

void sessiond_top_free(struct sessiond_top *top)
{
    results_free(top->owner);
    *top = (struct sessiond_top){0};
}

void sessiond_popped_free(struct sessiond_popped *popped)
{
    results_free(popped->owner);
    *popped = (struct sessiond_popped){0};
}

void sessiond_sessions_free(struct sessiond_sessions *sessions)
{
    results_free(sessions->owner);
    *sessions = (struct sessiond_sessions){0};
}

void sessiond_stores_free(struct sessiond_stores *stores)
{
    results_free(stores->owner);
    *stores = (struct sessiond_stores){0};
}
