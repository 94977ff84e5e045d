/*
 * Many users of one daemon: whose stores are whose, what strangers learn of them, and who may name an owner. The uid
 * that counts is the effective one at connect, so that root can be anybody for as long as a connect takes; without root
 * these tests say that they were not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

enum { ALICE = 20001, BOB = 20002, NOBODY_YET = 20099 };

/* ---- a daemon of many users ---- */

static int system_setup(void **state)
{
    (void)daemon_setup_bare(state);
    daemon_start_for_all(*state);
    return 0;
}

static void expect_in_log(const struct daemon *daemon, const char *text, int n_expected)
{
    int n = daemon_log_lines(daemon, text);

    if (n != n_expected)
        fail_msg("%d lines of the log say \"%s\", not %d", n, text, n_expected);
}

/* ---- requests ---- */

/* Begins a request with so many parameters; they follow. Every msgid is 1, so that answers can be compared. */
static void begin(struct buf *buf, const char *method, size_t n)
{
    pack_request(buf, 1, method);
    pack_map(buf, n);
}

/* Sends it and gives the bytes of the answer. */
static void ask(int fd, struct buf *request, struct buf *ret_answer)
{
    struct raw_reply reply;

    raw_send_buf(fd, request);
    raw_receive(fd, &reply);
    ret_answer->size = 0;
    buf_append(ret_answer, reply.frame.data, reply.frame.size);
    raw_reply_deinit(&reply);
}

static bool contains(const struct buf *buf, const char *text)
{
    return memmem(buf->data, buf->size, text, strlen(text)) != NULL;
}

/* Both ask the same, but for one name. Expects answers of the same bytes, which are those of this code (NULL: none). */
static void expect_alike(struct buf *one, struct buf *other, const char *code)
{
    assert_int_equal(one->size, other->size);
    assert_memory_equal(one->data, other->data, one->size);
    if (code)
        assert_true(contains(one, code));
    buf_deinit(one);
    buf_deinit(other);
}

static void add_as(int fd, const char *session, const char *store, const char *item)
{
    struct buf request = BUF_INIT;

    begin(&request, "add_items", 2 + (store != NULL));
    pack_pair_text(&request, "session", slice_of(session));
    pack_text(&request, slice_of("items"));
    pack_array(&request, 1);
    pack_text(&request, slice_of(item));
    if (store)
        pack_pair_text(&request, "store", slice_of(store));
    raw_send_buf(fd, &request);
    raw_expect(fd, 1, NULL);
}

static void get_as(int fd, const char *session, const char *store, struct buf *ret_answer)
{
    struct buf request = BUF_INIT;

    begin(&request, "get_items", 1 + (store != NULL));
    pack_pair_text(&request, "session", slice_of(session));
    if (store)
        pack_pair_text(&request, "store", slice_of(store));
    ask(fd, &request, ret_answer);
}

static void hello_for(int fd, uint64_t owner, struct buf *ret_answer)
{
    struct buf request = BUF_INIT;

    begin(&request, "hello", 1);
    pack_pair_number(&request, "owner", owner);
    ask(fd, &request, ret_answer);
}

/* ---- what is whose ---- */

static void test_each_uid_has_stores_of_its_own(void **state)
{
    struct daemon *daemon = *state;
    struct buf answer = BUF_INIT;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "s", NULL, "{\"of\":\"alice\"}");
    add_as(bob, "s", NULL, "{\"of\":\"bob\"}");
    get_as(alice, "s", NULL, &answer);
    assert_true(contains(&answer, "alice") && !contains(&answer, "bob"));
    get_as(bob, "s", NULL, &answer);
    assert_true(contains(&answer, "bob") && !contains(&answer, "alice"));
    buf_deinit(&answer);
    close(alice);
    close(bob);
}

static void test_an_owner_has_a_directory_that_nobody_else_enters(void **state)
{
    struct daemon *daemon = *state;
    char path[2 * PATH_SIZE];
    struct stat status;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "s", NULL, "{}");
    (void)snprintf(path, sizeof(path), "%s/u/%d", daemon->state, ALICE);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    (void)snprintf(path, sizeof(path), "%s/u/%d", daemon->state, BOB); /* who has kept nothing yet */
    assert_int_equal(stat(path, &status), -1);
    close(alice);
    close(bob);
}

static void test_a_directory_that_was_opened_to_others_is_closed_again(void **state)
{
    struct daemon *daemon = *state;
    char path[2 * PATH_SIZE];
    struct stat status;
    int alice;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "s", NULL, "{}");
    close(alice);
    daemon_stop(daemon);
    (void)snprintf(path, sizeof(path), "%s/u/%d", daemon->state, ALICE);
    assert_int_equal(chmod(path, 0755), 0);
    daemon_start_for_all(daemon);
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    raw_send(alice, "\x94\x00\x01\xa4ping\x90", 9);
    raw_expect(alice, 1, NULL);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    expect_in_log(daemon, "directory_was_open", 1);
    close(alice);
}

/* ---- what strangers learn ---- */

static void test_a_session_of_others_reads_as_one_that_never_was(void **state)
{
    struct buf foreign = BUF_INIT, absent = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "her-secret", "diary", "{\"of\":\"alice\"}");
    get_as(bob, "her-secret", "diary", &foreign);
    get_as(bob, "no--secret", "diary", &absent);
    expect_alike(&foreign, &absent, NULL);
    get_as(bob, "her-secret", "diary", &foreign);
    get_as(bob, "her-secret", "never", &absent);
    expect_alike(&foreign, &absent, NULL);
    close(alice);
    close(bob);
}

/* Asks for a store with a method that finds it or not. */
static void ask_of_store(int fd, const char *method, const char *store, struct buf *ret_answer)
{
    struct buf request = BUF_INIT;

    begin(&request, method, 1);
    pack_pair_text(&request, "store", slice_of(store));
    ask(fd, &request, ret_answer);
}

static void test_a_store_of_others_is_as_absent_as_one_that_is_not(void **state)
{
    static const char *const methods[] = {"recover", "backup", "list_sessions"};
    struct buf foreign = BUF_INIT, absent = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "s", "diary", "{\"of\":\"alice\"}");
    for (size_t i = 0; i < N(methods); i++) {
        ask_of_store(bob, methods[i], "diary", &foreign);
        ask_of_store(bob, methods[i], "never", &absent);
        expect_alike(&foreign, &absent, i < 2 ? "not_found" : NULL);
    }
    close(alice);
    close(bob);
}

/* ---- who may name an owner ---- */

static void test_root_may_act_as_another_owner_and_that_is_noted(void **state)
{
    struct buf answer = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, root;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "s", NULL, "{\"of\":\"alice\"}");
    root = raw_connect(daemon->socket);
    get_as(root, "s", NULL, &answer);
    assert_false(contains(&answer, "alice"));
    hello_for(root, ALICE, &answer);
    get_as(root, "s", NULL, &answer);
    assert_true(contains(&answer, "alice"));
    hello_for(root, 0, &answer); /* and back */
    get_as(root, "s", NULL, &answer);
    assert_false(contains(&answer, "alice"));
    expect_in_log(daemon, "owner_named uid=0", 2);
    buf_deinit(&answer);
    close(alice);
    close(root);
}

static void test_for_all_others_no_other_owner_is_there(void **state)
{
    struct buf foreign = BUF_INIT, absent = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob, root;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    root = raw_connect(daemon->socket);
    add_as(alice, "s", NULL, "{\"of\":\"alice\"}");
    for (int i = 0; i < 3; i++) {
        hello_for(bob, ALICE, &foreign);
        hello_for(bob, NOBODY_YET, &absent);
        expect_alike(&foreign, &absent, "not_found");
    }
    hello_for(bob, ALICE, &foreign);
    hello_for(root, NOBODY_YET, &absent); /* not even a mistaken administrator hears another word */
    expect_alike(&foreign, &absent, "not_found");
    get_as(bob, "s", NULL, &foreign);
    assert_false(contains(&foreign, "alice"));
    expect_in_log(daemon, "access_refused uid=20002", 2); /* once for each thing in this minute */
    buf_deinit(&foreign);
    close(alice);
    close(bob);
    close(root);
}

static void test_who_guesses_many_names_does_not_fill_the_log(void **state)
{
    struct buf answer = BUF_INIT;
    struct daemon *daemon = *state;
    int bob;

    skip_without_root();
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    for (uint64_t owner = 0; owner < 1000; owner++)
        hello_for(bob, owner, &answer);
    expect_in_log(daemon, "access_refused uid=20002", 17); /* unless the minute has just ended */
    expect_in_log(daemon, "no further lines", 1);
    buf_deinit(&answer);
    close(bob);
}

static void test_sessionctl_names_an_owner(void **state)
{
    struct daemon *daemon = *state;
    const char *get[] = {"--socket", daemon->socket, "--owner", "20001", "get", "s", NULL};
    const char *info[] = {"--socket", daemon->socket, "--owner", "20099", "info", NULL};
    struct buf output = BUF_INIT;
    int alice;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "s", NULL, "{\"of\":\"alice\"}");
    assert_int_equal(run_program("sessionctl", get, &output), 0);
    assert_true(contains(&output, "{\"of\":\"alice\"}\n"));
    assert_int_equal(run_program("sessionctl", info, &output), 1);
    assert_true(contains(&output, "not_found"));
    buf_deinit(&output);
    close(alice);
}

/* ---- shared stores ---- */

static int sharing_setup(void **state)
{
    (void)daemon_setup_bare(state);
    daemon_configure(
        *state, "{\"shared_stores\": {\"team\": {\"read\": [\"%30000\"], \"append\": [20001], \"change\": [20003]},"
                " \"hers\": {\"change\": [20001]}}, \"administrators\": [\"%30001\"]}");
    daemon_start_for_all(*state);
    return 0;
}

/* What a store does with a request of each kind. Expects this code for each (NULL: none). */
static void expect_of_store(int fd, const char *store, const char *get, const char *add, const char *clear)
{
    struct buf answer = BUF_INIT;
    const struct {
        const char *method, *code;
    } asked[] = {{"get_items", get}, {"add_items", add}, {"clear_session", clear}};

    for (size_t i = 0; i < N(asked); i++) {
        struct buf request = BUF_INIT;

        begin(&request, asked[i].method, 2 + (i == 1));
        pack_pair_text(&request, "session", slice_of("s"));
        pack_pair_text(&request, "store", slice_of(store));
        if (i == 1) {
            pack_text(&request, slice_of("items"));
            pack_array(&request, 1);
            pack_text(&request, slice_of("{\"of\":\"all\"}"));
        }
        raw_send_buf(fd, &request);
        raw_expect(fd, 1, asked[i].code);
    }
    buf_deinit(&answer);
}

static void test_a_shared_store_grants_what_was_declared(void **state)
{
    const gid_t readers = 30000;
    struct daemon *daemon = *state;
    int appender, reader, changer, stranger;

    skip_without_root();
    appender = raw_connect_as(daemon, ALICE, 0, NULL);
    reader = raw_connect_as(daemon, BOB, 1, &readers);
    changer = raw_connect_as(daemon, 20003, 0, NULL);
    stranger = raw_connect_as(daemon, BOB, 0, NULL); /* the same uid, in no group */
    expect_of_store(appender, "@team", NULL, NULL, "denied");
    expect_of_store(reader, "@team", NULL, "denied", "denied");
    expect_of_store(stranger, "@team", "not_found", "not_found", "not_found");
    expect_of_store(changer, "@team", NULL, NULL, NULL);
    close(appender);
    close(reader);
    close(changer);
    close(stranger);
}

static void test_what_is_shared_is_one_history_for_all(void **state)
{
    const gid_t readers = 30000;
    struct buf answer = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 1, &readers);
    add_as(alice, "s", "@team", "{\"of\":\"alice\"}");
    add_as(bob, "s", "team", "{\"of\":\"bob\"}"); /* a store of his own, which has nothing to do with it */
    get_as(bob, "s", "@team", &answer);
    assert_true(contains(&answer, "alice") && !contains(&answer, "bob"));
    get_as(alice, "s", "team", &answer);
    assert_false(contains(&answer, "bob"));
    daemon_stop(daemon);
    daemon_start_for_all(daemon);
    close(alice);
    close(bob);
    bob = raw_connect_as(daemon, BOB, 1, &readers);
    get_as(bob, "s", "@team", &answer);
    assert_true(contains(&answer, "alice"));
    buf_deinit(&answer);
    close(bob);
}

static void test_a_shared_store_for_others_is_as_absent_as_one_that_is_not_declared(void **state)
{
    static const char *const methods[] = {"get_items",     "pop_item", "clear_session", "delete_session",
                                          "list_sessions", "recover",  "backup"};
    struct buf foreign = BUF_INIT, absent = BUF_INIT, request = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    bob = raw_connect_as(daemon, BOB, 0, NULL);
    add_as(alice, "s", "@hers", "{\"of\":\"alice\"}");
    for (size_t i = 0; i < N(methods); i++) {
        for (int j = 0; j < 2; j++) {
            begin(&request, methods[i], 1 + (i < 4));
            pack_pair_text(&request, "store", slice_of(j ? "@none" : "@hers"));
            if (i < 4)
                pack_pair_text(&request, "session", slice_of("s"));
            ask(bob, &request, j ? &absent : &foreign);
        }
        expect_alike(&foreign, &absent, "not_found");
    }
    expect_in_log(daemon, "access_refused uid=20002", 2);
    begin(&request, "list_stores", 0);
    ask(bob, &request, &foreign);
    assert_false(contains(&foreign, "hers") || contains(&foreign, "team"));
    begin(&request, "info", 0);
    ask(bob, &request, &foreign);
    assert_false(contains(&foreign, "hers") || contains(&foreign, "team"));
    begin(&request, "list_stores", 0);
    ask(alice, &request, &foreign);
    assert_true(contains(&foreign, "@hers") && contains(&foreign, "@team"));
    buf_deinit(&foreign);
    close(alice);
    close(bob);
}

static void test_access_that_is_revoked_ends_with_the_reload(void **state)
{
    struct buf answer = BUF_INIT;
    struct daemon *daemon = *state;
    int alice;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "s", "hers", "{\"of\":\"her own\"}");
    add_as(alice, "s", "@hers", "{\"of\":\"alice\"}");
    daemon_configure(daemon, "{\"shared_stores\": {\"hers\": {\"read\": [20001]}}}");
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    WAIT_UNTIL(daemon_log_lines(daemon, "config_reloaded") == 1);
    expect_of_store(alice, "@hers", NULL, "denied", "denied");
    daemon_configure(daemon, "{\"shared_stores\": {\"hers\": {\"read\": [20002]}}}");
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    WAIT_UNTIL(daemon_log_lines(daemon, "config_reloaded") == 2);
    expect_of_store(alice, "@hers", "not_found", "not_found", "not_found");
    get_as(alice, "s", "@hers", &answer);
    assert_false(contains(&answer, "her own") ||
                 contains(&answer, "alice")); /* neither the one history nor the other */
    buf_deinit(&answer);
    close(alice);
}

static void test_a_configured_group_administers(void **state)
{
    const gid_t administrators = 30001;
    struct buf answer = BUF_INIT;
    struct daemon *daemon = *state;
    int alice, bob;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "s", NULL, "{\"of\":\"alice\"}");
    bob = raw_connect_as(daemon, BOB, 1, &administrators);
    hello_for(bob, ALICE, &answer);
    get_as(bob, "s", NULL, &answer);
    assert_true(contains(&answer, "alice"));
    expect_in_log(daemon, "owner_named uid=20002", 1);
    buf_deinit(&answer);
    close(alice);
    close(bob);
}

/* ---- user namespaces ---- */

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), r;

    if (fd < 0)
        return -1;
    r = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
    close(fd);
    return r;
}

/* The daemon runs in a user namespace in which only root has a number, as in a container; `unshare` makes it so. */
static int contained_setup(void **state)
{
    (void)daemon_setup_bare(state);
    if (getuid() != 0 || system("unshare -r true 2>/dev/null") != 0)
        return 0;
    (void)setenv("SESSIOND_WRAPPER", "unshare --user --map-root-user", 1);
    daemon_start_for_all(*state);
    return 0;
}

static int contained_teardown(void **state)
{
    (void)unsetenv("SESSIOND_WRAPPER");
    return daemon_teardown(state);
}

static void test_a_peer_without_a_number_in_the_namespace_is_refused(void **state)
{
    struct daemon *daemon = *state;
    struct raw_reply reply;
    int fd, root;

    skip_without_root();
    if (daemon->pid == 0) {
        print_message("# not run: no user namespaces here\n");
        skip();
    }
    root = raw_connect(daemon->socket); /* has one */
    raw_send(root, "\x94\x00\x01\xa4ping\x90", 9);
    raw_expect(root, 1, NULL);
    for (uid_t uid = ALICE; uid <= BOB; uid++) {
        fd = raw_connect_as(daemon, uid, 0, NULL);
        raw_receive(fd, &reply);
        assert_int_equal(reply.message.type, MESSAGE_NOTIFICATION);
        assert_true(contains(&reply.frame, "denied"));
        assert_true(contains(&reply.frame, "no number in the user namespace"));
        raw_reply_deinit(&reply);
        raw_expect_end(fd);
    }
    expect_in_log(daemon, "user_namespace map=partial", 1);
    close(root);
}

/* The other way about: clients in containers, each with a root of its own. The daemon sees who they are outside. */
static void test_roots_of_containers_are_who_they_are_outside(void **state)
{
    struct daemon *daemon = *state;
    struct buf answer = BUF_INIT;
    int fds[2], status, alice;
    char line[64] = "";
    pid_t pid;

    skip_without_root();
    alice = raw_connect_as(daemon, ALICE, 0, NULL);
    add_as(alice, "s", NULL, "{\"of\":\"alice\"}");
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        char map[32];
        int fd;

        (void)snprintf(map, sizeof(map), "0 %d 1", ALICE);
        if (setgroups(0, NULL) || setresgid(ALICE, ALICE, ALICE) || setresuid(ALICE, ALICE, ALICE) ||
            prctl(PR_SET_DUMPABLE, 1) || unshare(CLONE_NEWUSER) || write_file("/proc/self/uid_map", map) ||
            getuid() != 0)
            _exit(77);
        fd = raw_connect(daemon->socket);
        get_as(fd, "s", NULL, &answer);
        (void)dprintf(fds[1], "%s", contains(&answer, "alice") ? "her own" : "another's");
        hello_for(fd, BOB, &answer); /* its root is nobody here */
        (void)dprintf(fds[1], ", %s", contains(&answer, "not_found") ? "no administrator" : "administrator");
        _exit(0);
    }
    close(fds[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("# not run: no user namespaces here\n");
    } else {
        assert_int_equal(status, 0);
        assert_true(read(fds[0], line, sizeof(line) - 1) > 0);
        assert_string_equal(line, "her own, no administrator");
    }
    close(fds[0]);
    close(alice);
}

#define SHARING(test) cmocka_unit_test_setup_teardown(test, sharing_setup, daemon_teardown)
#define TEST(test) cmocka_unit_test_setup_teardown(test, system_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_uid_has_stores_of_its_own),
        TEST(test_an_owner_has_a_directory_that_nobody_else_enters),
        TEST(test_a_directory_that_was_opened_to_others_is_closed_again),
        TEST(test_a_session_of_others_reads_as_one_that_never_was),
        TEST(test_a_store_of_others_is_as_absent_as_one_that_is_not),
        TEST(test_root_may_act_as_another_owner_and_that_is_noted),
        TEST(test_for_all_others_no_other_owner_is_there),
        TEST(test_who_guesses_many_names_does_not_fill_the_log),
        TEST(test_sessionctl_names_an_owner),
        SHARING(test_a_shared_store_grants_what_was_declared),
        SHARING(test_what_is_shared_is_one_history_for_all),
        SHARING(test_a_shared_store_for_others_is_as_absent_as_one_that_is_not_declared),
        SHARING(test_access_that_is_revoked_ends_with_the_reload),
        SHARING(test_a_configured_group_administers),
        cmocka_unit_test_setup_teardown(test_a_peer_without_a_number_in_the_namespace_is_refused, contained_setup,
                                        contained_teardown),
        TEST(test_roots_of_containers_are_who_they_are_outside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
