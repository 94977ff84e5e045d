/*
 * Each allocation of libsessiond fails in turn, while it does all that it can do: it may fail, never crash or leak, and
 * it works again afterwards. (The program is linked with --wrap, so only allocations of our own objects are meant.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *data, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *data, size_t size);

static unsigned countdown; /* the allocation that fails; 0: none */

static bool fails(void)
{
    return countdown > 0 && --countdown == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *data, size_t size)
{
    return fails() ? NULL : __real_realloc(data, size);
}

/* ---- what a client can do ---- */

static struct sessiond_text items[] = {{"{\"n\": 1}", 8}, {"{\"n\": 2}", 8}};

static int adds(struct sessiond *client)
{
    return sessiond_add_items(client, "s", items, 2, NULL, NULL);
}

static int gets(struct sessiond *client)
{
    struct sessiond_items got;
    int r = sessiond_get_items(client, "s", NULL, &got);

    if (r == 0)
        sessiond_items_free(&got);
    return r;
}

static int lists(struct sessiond *client)
{
    struct sessiond_listing listing = {.prefix = "s", .after = "a"};
    struct sessiond_sessions sessions;
    int r = sessiond_list_sessions(client, &listing, &sessions);

    if (r == 0)
        sessiond_sessions_free(&sessions);
    return r;
}

static int lists_stores(struct sessiond *client)
{
    struct sessiond_stores stores;
    int r = sessiond_list_stores(client, &stores);

    if (r == 0)
        sessiond_stores_free(&stores);
    return r;
}

static int pops(struct sessiond *client)
{
    struct sessiond_popped popped;
    int r = sessiond_pop_item(client, "s", NULL, &popped);

    if (r == 0)
        sessiond_popped_free(&popped);
    return r;
}

static int asks(struct sessiond *client)
{
    char *json;
    int r = sessiond_info(client, &json);

    if (r == 0)
        free(json);
    return r;
}

static int tops(struct sessiond *client)
{
    struct sessiond_top top;
    int r = sessiond_stats_top(client, 5, &top);

    if (r == 0)
        sessiond_top_free(&top);
    return r;
}

static char backup_path[PATH_SIZE];

static int backs_up(struct sessiond *client)
{
    return sessiond_backup(client, NULL, backup_path);
}

static int (*const abilities[])(struct sessiond *client) = {adds, gets, lists, lists_stores,
                                                            pops, asks, tops,  backs_up};

/* Return: whether an allocation failed. */
static bool try(const struct daemon *daemon, int (*ability)(struct sessiond *client), unsigned nth)
{
    struct sessiond_options options = {.socket = daemon->socket, .retry_ms = harness_patience_ms()};
    struct sessiond *client;
    bool failed;

    countdown = nth;
    if (sessiond_new(&client, &options) == 0) {
        int r = ability(client);

        failed = countdown == 0;
        countdown = 0;
        assert_true(r <= 0 || r == SESSIOND_UNCERTAIN);
        assert_true(failed || r == 0);
        EXPECT(client, 0, ability(client)); /* it works again */
        sessiond_free(client);
        return failed;
    }
    return true;
}

static void test_each_allocation_may_fail(void **state)
{
    struct daemon *daemon = *state;

    (void)snprintf(backup_path, sizeof(backup_path), "%s/backup", daemon->scratch.path);
    for (size_t i = 0; i < sizeof(abilities) / sizeof(abilities[0]); i++) {
        unsigned nth = 1;

        while (try(daemon, abilities[i], nth))
            nth++;
        assert_true(nth > 5); /* else nothing was wrapped */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_allocation_may_fail, daemon_setup, daemon_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
