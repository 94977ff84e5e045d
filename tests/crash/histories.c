/*
 * Writes down what the daemon holds, read through libsessiond, for verify.py, which describes the lines: every session
 * with its numbers, every item with its seq and its name. The daemon is found through $SESSIOND_SOCKET.
 */
#include "sessiond.h"

#include "item.h"

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        if (call) {                                                                                                    \
            (void)fprintf(stderr, "histories: %s\n", sessiond_last_error(client)->message);                            \
            exit(EXIT_FAILURE);                                                                                        \
        }                                                                                                              \
    } while (0)

static void print_items(const struct sessiond_items *items)
{
    char name[ITEM_NAME_SIZE];

    for (size_t i = 0; i < items->n_items; i++) {
        item_identify(items->items[i].data, items->items[i].size, name);
        (void)printf("item %" PRIu64 " %s\n", items->first_seq + i, name);
    }
}

/* Answers do not say the seq of each item. Where a range has no gap, it follows; a range with gaps is halved. */
static void print_range(struct sessiond *client, const char *session, uint64_t first, uint64_t last)
{
    struct sessiond_range range = {.after = SESSIOND_SOME(first - 1), .before = SESSIOND_SOME(last + 1)};
    struct sessiond_items items;
    uint64_t middle;

    CHECK(sessiond_get_items(client, session, &range, &items));
    first = items.first_seq;
    last = items.last_seq;
    if (items.n_items > 0 && last - first + 1 == items.n_items) {
        print_items(&items);
        first = last = 0;
    }
    sessiond_items_free(&items);
    if (first == last)
        return;
    middle = first + (last - first) / 2;
    print_range(client, session, first, middle);
    print_range(client, session, middle + 1, last);
}

int main(void)
{
    struct sessiond_sessions sessions;
    struct sessiond *client;

    if (sessiond_new(&client, NULL))
        return EXIT_FAILURE;
    CHECK(sessiond_list_sessions(client, NULL, &sessions));
    for (size_t i = 0; i < sessions.n_sessions; i++) {
        const struct sessiond_session *s = &sessions.sessions[i];

        (void)printf("session %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", s->id.data, s->count, s->head_seq,
                     s->revision, s->epoch);
        if (s->head_seq)
            print_range(client, s->id.data, 1, s->head_seq);
    }
    sessiond_sessions_free(&sessions);
    sessiond_free(client);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
