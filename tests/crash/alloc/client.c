/*
 * The N-th allocation of a client fails, for N = 1, 2, 3, … until its call is done before it would have come: for every
 * call of libsessiond, once and for ever after, those of msgpack-c and the C library included. Against a real daemon:
 *
 *   - the call returns in time, and what it returns about a change is true: made, not made, or uncertain;
 *   - with memory again, the same client makes the same change by its key, and it is made once;
 *   - nothing leaks (in a sanitizer's build, which looks at the end).
 *
 *     client [--every N]          every N-th N only
 */
#include "failing.h"

#include <inttypes.h>

#include "harness.h"

enum { N_PREPARED = 3, N_ADDED = 2, N_PIPELINED = 12, RETRY_MS = 300 };

static struct sessiond_text items[] = {{"{\"n\": 1}", 8}, {"{\"n\": 2}", 8}, {"{\"n\": 3}", 8}};
static char backup_path[PATH_SIZE];
static uint64_t every = 1;

/* ---- what a client can do ---- */

static int adds(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    return sessiond_add_items(client, session, items, N_ADDED, change, NULL);
}

static int pops(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    struct sessiond_popped popped;
    int r = sessiond_pop_item(client, session, change, &popped);

    if (r)
        return r;
    assert_int_equal(popped.seq, N_PREPARED);
    sessiond_popped_free(&popped);
    return 0;
}

static int clears(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    return sessiond_clear_session(client, session, change, NULL);
}

static int replaces(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    return sessiond_replace_items(client, session, 3, items, N_ADDED, change, NULL);
}

static int deletes(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    return sessiond_delete_session(client, session, change, NULL);
}

static int gets(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    struct sessiond_items got;
    int r = sessiond_get_items(client, session, NULL, &got);

    (void)change;
    if (r)
        return r;
    assert_int_equal(got.n_items, N_PREPARED);
    assert_memory_equal(got.items[N_PREPARED - 1].data, items[N_PREPARED - 1].data, items[N_PREPARED - 1].size);
    sessiond_items_free(&got);
    return 0;
}

static int lists(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    struct sessiond_listing listing = {.prefix = session, .after = "a"};
    struct sessiond_sessions sessions;
    int r = sessiond_list_sessions(client, &listing, &sessions);

    (void)change;
    if (r)
        return r;
    assert_int_equal(sessions.n_sessions, 1);
    sessiond_sessions_free(&sessions);
    return 0;
}

static int lists_stores(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    struct sessiond_stores stores;
    int r = sessiond_list_stores(client, &stores);

    (void)session;
    (void)change;
    if (r)
        return r;
    assert_int_equal(stores.n_stores, 1);
    sessiond_stores_free(&stores);
    return 0;
}

static int informs(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    char *json;
    int r = sessiond_info(client, &json);

    (void)session;
    (void)change;
    if (r == 0)
        free(json);
    return r;
}

static int counts(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    char *text;
    int r = sessiond_stats(client, &text);

    (void)session;
    (void)change;
    if (r == 0)
        free(text);
    return r;
}

static int tops(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    struct sessiond_top top;
    int r = sessiond_stats_top(client, 5, &top);

    (void)session;
    (void)change;
    if (r)
        return r;
    assert_true(top.n_sessions <= 5);
    sessiond_top_free(&top);
    return 0;
}

static int greets(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    (void)session;
    (void)change;
    return sessiond_hello(client, NULL);
}

static int pings(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    (void)session;
    (void)change;
    return sessiond_ping(client);
}

static int backs_up(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    (void)session;
    (void)change;
    return sessiond_backup(client, NULL, backup_path);
}

static int recovers(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    (void)session;
    (void)change;
    return sessiond_recover(client, NULL, NULL);
}

static void on_pipelined(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    int *worst = arg;

    (void)client;
    (void)answer;
    if (r)
        *worst = r;
}

/* Many calls under way: the change, with reads before and behind it. */
static int pipelines(struct sessiond *client, const char *session, const struct sessiond_change *change)
{
    struct sessiond_call add = {
        .method = SESSIOND_ADD_ITEMS, .session = session, .items = items, .n_items = N_ADDED, .key = change->key};
    struct sessiond_call get = {.method = SESSIOND_GET_ITEMS, .session = session};
    int r = 0, of_the_change = 0, of_reads = 0;

    for (int i = 0; i < N_PIPELINED && r == 0; i++)
        r = sessiond_send(client, i == 5 ? &add : &get, on_pipelined, i == 5 ? &of_the_change : &of_reads);
    if (sessiond_wait(client))
        return -EDEADLK;
    if (of_the_change)
        return of_the_change;
    return r ? r : of_reads;
}

/* ---- what becomes of a session ---- */

static const struct ability {
    const char *name;
    int (*call)(struct sessiond *client, const char *session, const struct sessiond_change *change);
    int64_t n_items, head_seq; /* of the session when it is made */
    bool is_sequence;          /* what it returns is also about other calls */
} abilities[] = {
    {"add_items", adds, N_PREPARED + N_ADDED, N_PREPARED + N_ADDED, false},
    {"pop_item", pops, N_PREPARED - 1, N_PREPARED, false},
    {"clear_session", clears, 0, N_PREPARED, false},
    {"replace_items", replaces, N_PREPARED - 1 + N_ADDED, N_PREPARED + N_ADDED, false},
    {"delete_session", deletes, 0, 0, false},
    {"get_items", gets, N_PREPARED, N_PREPARED, false},
    {"list_sessions", lists, N_PREPARED, N_PREPARED, false},
    {"list_stores", lists_stores, N_PREPARED, N_PREPARED, false},
    {"info", informs, N_PREPARED, N_PREPARED, false},
    {"stats", counts, N_PREPARED, N_PREPARED, false},
    {"stats of the busiest", tops, N_PREPARED, N_PREPARED, false},
    {"hello", greets, N_PREPARED, N_PREPARED, false},
    {"ping", pings, N_PREPARED, N_PREPARED, false},
    {"backup", backs_up, N_PREPARED, N_PREPARED, false},
    {"recover", recovers, N_PREPARED, N_PREPARED, false},
    {"12 calls under way", pipelines, N_PREPARED + N_ADDED, N_PREPARED + N_ADDED, true},
};

enum state { BEFORE, MADE, WRONG };

static enum state look(struct sessiond *watcher, const struct ability *ability, const char *session)
{
    struct sessiond_items got;
    enum state state = WRONG;

    EXPECT(watcher, 0, sessiond_get_items(watcher, session, NULL, &got));
    if ((int64_t)got.n_items == ability->n_items && (int64_t)got.head_seq == ability->head_seq)
        state = MADE;
    else if (got.n_items == N_PREPARED && got.head_seq == N_PREPARED)
        state = BEFORE;
    sessiond_items_free(&got);
    return state;
}

/* ---- one attempt ---- */

static void check_word(const struct ability *ability, int r, enum state state, uint64_t n)
{
    if (state == WRONG)
        fail_msg("%s, N = %" PRIu64 ": a part of it was made", ability->name, n);
    if (r == 0 && state != MADE)
        fail_msg("%s, N = %" PRIu64 ": it was not made, and is said to be", ability->name, n);
    if (r != 0 && r != SESSIOND_UNCERTAIN && !ability->is_sequence && state == MADE && ability->n_items != N_PREPARED)
        fail_msg("%s, N = %" PRIu64 ": it was made, and is said not to be: %s", ability->name, n, sessiond_strerror(r));
}

/* Return: whether an allocation failed. */
static bool attempt(const struct daemon *daemon, struct sessiond *watcher, const struct ability *ability, bool lasts,
                    uint64_t n)
{
    static unsigned counter;
    struct sessiond_options options = {.socket = daemon->socket, .retry_ms = RETRY_MS};
    struct sessiond *client = NULL;
    char session[24];
    struct sessiond_change change = {.key = session};
    bool failed;
    int r;

    (void)snprintf(session, sizeof(session), "s-%08u", counter++);
    EXPECT(watcher, 0, sessiond_add_items(watcher, session, items, N_PREPARED, NULL, NULL));
    failing_arm(n, lasts);
    r = sessiond_new(&client, &options);
    if (r == 0)
        r = ability->call(client, session, &change);
    failed = failing_disarm() > 0;
    if (!failed && r)
        fail_msg("%s, with all its memory: %s", ability->name, sessiond_strerror(r));
    check_word(ability, r, look(watcher, ability, session), n);
    if (!client)
        EXPECT(NULL, 0, sessiond_new(&client, &options));
    WAIT_UNTIL((r = ability->call(client, session, &change)) !=
               -ETIMEDOUT); /* a busy machine may need longer than that */
    EXPECT(client, 0, r);
    check_word(ability, 0, look(watcher, ability, session), n);
    sessiond_free(client);
    return failed;
}

static void sweep(const struct daemon *daemon, const struct ability *ability, bool lasts)
{
    struct sessiond *watcher = client_with((struct sessiond_options){.socket = daemon->socket});
    uint64_t n = 1;

    while (attempt(daemon, watcher, ability, lasts, n))
        n += every;
    assert_true(n > 5); /* else no allocation came here */
    print_message("%s, %s: up to N = %" PRIu64 "\n", ability->name, lasts ? "for ever" : "once", n - every);
    sessiond_free(watcher);
}

static void test_each_allocation_of_a_client_may_fail(void **state)
{
    struct daemon *daemon = *state;

    (void)snprintf(backup_path, sizeof(backup_path), "%s/backup", daemon->scratch.path);
    for (size_t i = 0; i < sizeof(abilities) / sizeof(abilities[0]); i++) {
        sweep(daemon, &abilities[i], false);
        sweep(daemon, &abilities[i], true);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_allocation_of_a_client_may_fail, daemon_setup, daemon_teardown),
    };

    if (argc == 3 && strcmp(argv[1], "--every") == 0)
        every = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
