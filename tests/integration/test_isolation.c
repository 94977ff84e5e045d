/*
 * Twenty users who try to get at each other's histories: random requests with the guessed names of others' sessions,
 * stores, backups, keys and owners. An oracle knows whose each item is: it carries its owner's mark, which must be in
 * no answer to anybody else; and what each has put away must be there, byte for byte, at the end.
 *
 * $SESSIOND_ATTEMPTS: how many, in place of a share. $SESSIOND_SEED: of the choices; it is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

enum { USERS = 20, FIRST_UID = 20100, SESSIONS = 8, SHARE = 20000, NAME_SIZE = 64, MARK_SIZE = 32 };

static struct user {
    int fd;
    char mark[MARK_SIZE];          /* in each of the items, and nowhere else */
    struct buf precious[SESSIONS]; /* what reading them answered at the beginning */
    char backup[NAME_SIZE];        /* of the store that holds them */
} users[USERS];

static unsigned seed;

static unsigned choose(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* ---- requests ---- */

__attribute__((format(printf, 3, 4))) static void text(struct buf *request, const char *name, const char *format, ...)
{
    char value[NAME_SIZE];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(value, sizeof(value), format, arguments);
    va_end(arguments);
    pack_pair_text(request, name, slice_of(value));
}

static void items(struct buf *request, const struct user *user)
{
    char item[NAME_SIZE];

    pack_text(request, slice_of("items"));
    pack_array(request, 1);
    (void)snprintf(item, sizeof(item), "{\"of\":\"%s\"}", user->mark);
    pack_text(request, slice_of(item));
}

static void begin(struct buf *request, const char *method, size_t n)
{
    pack_request(request, 1, method);
    pack_map(request, n);
}

static void ask(const struct user *user, struct buf *request, struct buf *ret)
{
    struct raw_reply reply;

    raw_send_buf(user->fd, request);
    raw_receive(user->fd, &reply);
    assert_int_equal(reply.message.type, MESSAGE_RESPONSE);
    ret->size = 0;
    buf_append(ret, reply.frame.data, reply.frame.size);
    raw_reply_deinit(&reply);
}

/* A session that its owner never changes after the beginning; in a store of a name that all use alike. */
static void pack_precious(struct buf *request, unsigned victim, unsigned which)
{
    text(request, "session", "precious-%02u-%u", victim, which);
    text(request, "store", "%s", which % 2 ? "diary" : "default");
}

/* ---- attempts: `victim` is another user, or one that there is not (for comparison: USERS or above) ---- */

static void try_get(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "get_items", 2);
    pack_precious(request, victim, choose(SESSIONS));
}

static void try_list(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "list_sessions", 2);
    text(request, "prefix", "precious-%02u-", victim);
    text(request, "store", "diary");
}

static void try_store(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "get_items", 2);
    text(request, "session", "s");
    text(request, "store", "private-%02u", victim);
}

static void try_shared(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "get_items", 2);
    text(request, "session", "s");
    text(request, "store", "@team-%02u", victim);
}

static void try_backup(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "backup_read", 3);
    pack_pair_text(request, "backup",
                   victim < USERS ? slice_of(users[victim].backup) : slice_of("00000000000000000000000000000000"));
    pack_pair_number(request, "offset", 0);
    text(request, "store", "diary");
}

static void try_backup_of(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "backup", 1);
    text(request, "store", "private-%02u", victim);
}

static void try_owner(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "hello", 1);
    pack_pair_number(request, "owner", FIRST_UID + victim);
}

static void try_add(struct buf *request, const struct user *user, unsigned victim)
{
    begin(request, "add_items", 4);
    text(request, "session", "shout-%02u-%u", victim, choose(SESSIONS));
    items(request, user);
    text(request, "key", "key-%u-%u", victim, choose(SESSIONS)); /* that the victim has used, too */
    text(request, "store", "diary");
}

static void try_pop(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "pop_item", 2);
    text(request, "session", "shout-%02u-%u", victim, choose(SESSIONS));
    text(request, "store", "diary");
}

static void try_clear(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, choose(2) ? "clear_session" : "delete_session", 2);
    pack_precious(request, victim, choose(SESSIONS));
}

static void try_recover(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    begin(request, "recover", 1);
    text(request, "store", "private-%02u", victim);
}

static void try_stores(struct buf *request, const struct user *user, unsigned victim)
{
    (void)user;
    (void)victim;
    begin(request, choose(2) ? "list_stores" : "info", 0);
}

static const struct kind {
    void (*make)(struct buf *request, const struct user *user, unsigned victim);
    unsigned weight;
    bool alike; /* the answer for a victim is, byte for byte, the one for nobody */
} kinds[] = {
    {try_get, 30, true},   {try_list, 10, true},     {try_store, 10, true}, {try_shared, 10, true},
    {try_backup, 6, true}, {try_backup_of, 6, true}, {try_owner, 10, true}, {try_recover, 6, true},
    {try_add, 4, false},   {try_pop, 3, false},      {try_clear, 3, false}, {try_stores, 2, false},
};

static const struct kind *choose_kind(void)
{
    unsigned which = choose(100), i = 0;

    while (which >= kinds[i].weight)
        which -= kinds[i++].weight;
    return &kinds[i];
}

/* ---- the oracle ---- */

static bool holds_mark_of(unsigned owner, const struct buf *answer)
{
    return memmem(answer->data, answer->size, users[owner].mark, strlen(users[owner].mark));
}

static void expect_no_mark_of_others(const struct user *user, const struct buf *answer)
{
    for (unsigned i = 0; i < USERS; i++)
        if (&users[i] != user && holds_mark_of(i, answer))
            fail_msg("%s was given what is %s's", user->mark, users[i].mark);
}

/* The same question about a victim, and about nobody, whose number has as many digits. */
static void expect_alike(const struct user *user, const struct kind *kind, unsigned victim, unsigned nobody)
{
    struct buf request = BUF_INIT, foreign = BUF_INIT, absent = BUF_INIT;
    unsigned before = seed;

    kind->make(&request, user, victim);
    ask(user, &request, &foreign);
    seed = before;
    kind->make(&request, user, nobody);
    ask(user, &request, &absent);
    expect_no_mark_of_others(user, &foreign);
    assert_int_equal(foreign.size, absent.size);
    assert_memory_equal(foreign.data, absent.data, foreign.size);
    buf_deinit(&foreign);
    buf_deinit(&absent);
}

static void read_precious(unsigned owner, unsigned which, struct buf *ret)
{
    struct buf request = BUF_INIT;

    begin(&request, "get_items", 2);
    pack_precious(&request, owner, which);
    ask(&users[owner], &request, ret);
}

/* That it can be read by its owner shows that the others' failure to do so means something. */
static void expect_untouched(unsigned owner, unsigned which)
{
    struct buf now = BUF_INIT;
    const struct buf *then = &users[owner].precious[which];

    read_precious(owner, which, &now);
    assert_true(holds_mark_of(owner, &now));
    assert_int_equal(now.size, then->size);
    assert_memory_equal(now.data, then->data, now.size);
    buf_deinit(&now);
}

/* ---- the users ---- */

static void add(unsigned owner, const char *session, const char *store)
{
    struct buf request = BUF_INIT;

    begin(&request, "add_items", 3);
    text(&request, "session", "%s", session);
    items(&request, &users[owner]);
    text(&request, "store", "%s", store);
    raw_send_buf(users[owner].fd, &request);
    raw_expect(users[owner].fd, 1, NULL);
}

static void make_user(const struct daemon *daemon, unsigned i)
{
    struct user *user = &users[i];
    struct buf request = BUF_INIT, answer = BUF_INIT;
    char name[NAME_SIZE];
    const char *id;

    *user = (struct user){.fd = raw_connect_as(daemon, FIRST_UID + i, 0, NULL)};
    (void)snprintf(user->mark, sizeof(user->mark), "mark-of-%02u-%08x", i, choose(1u << 30));
    for (unsigned which = 0; which < SESSIONS; which++) {
        (void)snprintf(name, sizeof(name), "precious-%02u-%u", i, which);
        add(i, name, which % 2 ? "diary" : "default");
        read_precious(i, which, &user->precious[which]);
    }
    (void)snprintf(name, sizeof(name), "private-%02u", i);
    add(i, "s", name);
    (void)snprintf(name, sizeof(name), "@team-%02u", i);
    add(i, "s", name);
    begin(&request, "backup", 1);
    text(&request, "store", "diary");
    ask(user, &request, &answer);
    id = memmem(answer.data, answer.size, "backup\xd9\x20", 8); /* a text of 32 bytes */
    assert_non_null(id);
    memcpy(user->backup, id + 8, 32);
    buf_deinit(&answer);
}

static int system_setup(void **state)
{
    char json[2048] = "{\"shared_stores\": {";
    size_t size = strlen(json);

    (void)daemon_setup_bare(state);
    for (unsigned i = 0; i < USERS; i++)
        size += (size_t)snprintf(json + size, sizeof(json) - size, "%s\"team-%02u\": {\"change\": [%u]}", i ? ", " : "",
                                 i, FIRST_UID + i);
    assert_true(size + 3 < sizeof(json));
    memcpy(json + size, "}}", 3);
    daemon_configure(*state, json);
    daemon_start_for_all(*state);
    return 0;
}

static void attempt(unsigned by, unsigned victim)
{
    const struct kind *kind = choose_kind();
    struct buf request = BUF_INIT, answer = BUF_INIT;

    if (kind->alike) {
        expect_alike(&users[by], kind, victim, victim + 60);
        return;
    }
    kind->make(&request, &users[by], victim);
    ask(&users[by], &request, &answer);
    expect_no_mark_of_others(&users[by], &answer);
    buf_deinit(&answer);
}

static void test_nobody_gets_at_what_is_anothers(void **state)
{
    struct daemon *daemon = *state;
    unsigned long n = SHARE;

    skip_without_root();
    if (getenv("SESSIOND_ATTEMPTS"))
        n = strtoul(getenv("SESSIOND_ATTEMPTS"), NULL, 10);
    seed = getenv("SESSIOND_SEED") ? (unsigned)strtoul(getenv("SESSIOND_SEED"), NULL, 10) : (unsigned)getpid();
    print_message("# seed %u, %lu attempts\n", seed, n);
    for (unsigned i = 0; i < USERS; i++)
        make_user(daemon, i);
    for (unsigned long i = 0; i < n; i++) {
        unsigned by = choose(USERS);

        attempt(by, (by + 1 + choose(USERS - 1)) % USERS);
        if (i % 16 == 0)
            expect_untouched(choose(USERS), choose(SESSIONS));
    }
    for (unsigned i = 0; i < USERS; i++) {
        for (unsigned which = 0; which < SESSIONS; which++) {
            expect_untouched(i, which);
            buf_deinit(&users[i].precious[which]);
        }
        close(users[i].fd);
    }
}

/* The control: an administrator who names an owner is given what the oracle would not let pass. */
static void test_the_oracle_knows_a_mark_when_it_sees_one(void **state)
{
    struct buf request = BUF_INIT, answer = BUF_INIT;
    struct daemon *daemon = *state;
    struct user root;

    skip_without_root();
    make_user(daemon, 0);
    root = (struct user){.fd = raw_connect(daemon->socket)};
    try_owner(&request, &root, 0);
    ask(&root, &request, &answer);
    try_get(&request, &root, 0);
    ask(&root, &request, &answer);
    assert_true(holds_mark_of(0, &answer));
    for (unsigned which = 0; which < SESSIONS; which++)
        buf_deinit(&users[0].precious[which]);
    buf_deinit(&answer);
    close(users[0].fd);
    close(root.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_oracle_knows_a_mark_when_it_sees_one, system_setup, daemon_teardown),
        cmocka_unit_test_setup_teardown(test_nobody_gets_at_what_is_anothers, system_setup, daemon_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
