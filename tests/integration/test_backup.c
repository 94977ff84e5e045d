/*
 * Backups: made while others write, whole or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define A "{\"n\": 1}"

struct paths {
    char file[PATH_SIZE], partial[PATH_SIZE];
};

static struct paths paths_in(const struct daemon *daemon)
{
    struct paths paths;

    (void)snprintf(paths.file, PATH_SIZE, "%s/backup", daemon->scratch.path);
    (void)snprintf(paths.partial, PATH_SIZE, "%s/backup.partial", daemon->scratch.path);
    return paths;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static int verify(const char *path)
{
    const char *arguments[] = {"--verify", path, NULL};

    return run_program("sessiond", arguments, NULL);
}

/* The log of the store that was there before is none of this one's. */
static void remove_log(const struct daemon *daemon)
{
    char path[3 * PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s-wal", daemon->store);
    (void)unlink(path);
}

/* A daemon whose store is this backup, put there as an operator does who knows that it may be older. */
static struct daemon *restore(const char *file)
{
    void *state;
    struct daemon *daemon;
    struct sessiond *client;

    (void)daemon_setup(&state);
    daemon = state;
    client = daemon_client(daemon);
    add_item(client, "s", "{\"to be\": \"replaced\"}");
    sessiond_free(client);
    daemon_stop(daemon);
    assert_int_equal(rename(file, daemon->store), 0);
    remove_log(daemon);
    daemon_start(daemon);
    client = daemon_client(daemon);
    EXPECT(client, 0, sessiond_recover(client, NULL, NULL));
    sessiond_free(client);
    return daemon;
}

static void test_a_backup_is_a_store_like_the_one_it_was_made_of(void **state)
{
    struct daemon *daemon = *state, *restored;
    struct sessiond *client = daemon_client(daemon);
    struct paths paths = paths_in(daemon);
    struct sessiond_change change = {.key = "k1"};
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_changed before, after;
    struct stat status;

    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &change, &before));
    add_item(client, "t", "{\"n\": 2.50}");
    EXPECT(client, 0, sessiond_backup(client, NULL, paths.file));
    assert_false(is_there(paths.partial));
    assert_int_equal(stat(paths.file, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(verify(paths.file), 0);
    add_item(client, "s", "{\"too\": \"late\"}");
    sessiond_free(client);

    restored = restore(paths.file);
    client = daemon_client(restored);
    expect_items(client, "s", A, NULL);
    expect_items(client, "t", "{\"n\": 2.50}", NULL);
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &change, &after)); /* receipts are in it too */
    assert_int_equal(after.revision, before.revision);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
    assert_int_equal(daemon_teardown((void **)&restored), 0);
}

static void test_an_old_copy_in_the_place_of_a_store_is_noticed(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct paths paths = paths_in(daemon);
    struct sessiond_items items;
    uint64_t missing;

    add_item(client, "s", A);
    EXPECT(client, 0, sessiond_backup(client, NULL, paths.file));
    add_item(client, "s", "{\"n\": 2}");
    daemon_stop(daemon);
    assert_int_equal(rename(paths.file, daemon->store), 0);
    remove_log(daemon);
    daemon_start(daemon);
    EXPECT(client, SESSIOND_ROLLED_BACK, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, 1); /* what is there can be read, and is marked */
    assert_int_equal(items.missing, 1);
    sessiond_items_free(&items);
    EXPECT(client, 0, sessiond_recover(client, NULL, &missing)); /* the operator has seen it and goes on from here */
    assert_int_equal(missing, 1);
    EXPECT(client, 0, sessiond_recover(client, NULL, &missing));
    assert_int_equal(missing, 0);
    add_item(client, "s", "{\"n\": 3}");
    expect_items(client, "s", A, "{\"n\": 3}", NULL);
    sessiond_free(client);
}

/* ---- under load ---- */

static int write_until_told(const struct daemon *daemon, int stop, int report)
{
    struct sessiond *client;
    unsigned n = 0;

    if (fcntl(stop, F_SETFL, O_NONBLOCK) || sessiond_new(&client, &(struct sessiond_options){.socket = daemon->socket}))
        return 1;
    for (char byte; read(stop, &byte, 1) < 0; n++) {
        char text[600];
        struct sessiond_text item;

        (void)snprintf(text, sizeof(text), "{\"i\": %u, \"pad\": \"%0500d\"}", n, 0);
        item = SESSIOND_TEXT(text);
        if (sessiond_add_items(client, "s", &item, 1, NULL, NULL) || write(report, &n, sizeof(n)) != sizeof(n))
            return 1;
    }
    sessiond_free(client);
    return 0;
}

/* Expects the items 0, 1, 2, … Return: how many. */
static size_t expect_unbroken(struct sessiond *client)
{
    struct sessiond_items items;
    size_t n;

    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    for (size_t i = 0; i < items.n_items; i++) {
        unsigned number;

        assert_int_equal(sscanf(items.items[i].data, "{\"i\": %u", &number), 1);
        assert_int_equal(number, i);
    }
    n = items.n_items;
    sessiond_items_free(&items);
    return n;
}

static void test_a_backup_under_load_holds_all_that_was_acknowledged_before_it(void **state)
{
    struct daemon *daemon = *state, *restored;
    struct sessiond *client;
    struct paths paths = paths_in(daemon);
    unsigned acknowledged = 0;
    int stop[2], report[2], status;
    pid_t pid;

    assert_int_equal(pipe2(stop, O_CLOEXEC), 0);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        close(stop[1]);
        close(report[0]);
        _exit(write_until_told(daemon, stop[0], report[1]));
    }
    close(report[1]);
    client = daemon_client(daemon);
    while (acknowledged < 500)
        assert_int_equal(read(report[0], &acknowledged, sizeof(acknowledged)), sizeof(acknowledged));
    for (int i = 0; i < 5; i++)
        EXPECT(client, 0, sessiond_backup(client, NULL, paths.file));
    assert_int_equal(verify(paths.file), 0);
    close(stop[1]);
    while (read(report[0], &acknowledged, sizeof(acknowledged)) > 0)
        ;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(stop[0]);
    close(report[0]);
    assert_true(expect_unbroken(client) == acknowledged + 1);
    sessiond_free(client);

    restored = restore(paths.file);
    client = daemon_client(restored);
    assert_true(expect_unbroken(client) > 500);
    sessiond_free(client);
    assert_int_equal(daemon_teardown((void **)&restored), 0);
}

/* ---- interrupted ---- */

static void fill(struct sessiond *client)
{
    size_t size = 1024 * 1024;
    char *text = malloc(size + 16);
    struct sessiond_text item;

    memcpy(text, "{\"a\":\"", 6);
    memset(text + 6, 'x', size);
    memcpy(text + 6 + size, "\"}", 3);
    item = SESSIOND_TEXT(text);
    for (int i = 0; i < 10; i++)
        EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    free(text);
}

struct trouble {
    unsigned n_reads;
    unsigned n_not_found; /* how often the daemon has lost its copy */
    bool cuts;            /* hangs up at every second part */
    bool stops;           /* is silent from the second part on */
};

static enum peer_action troubles(struct peer *peer, const struct message *request, struct slice frame,
                                 struct buf *answer)
{
    struct trouble *trouble = peer->arg;
    bool later = is_method(request, "backup_read") && __atomic_add_fetch(&trouble->n_reads, 1, __ATOMIC_RELAXED) > 1;

    if (later && trouble->stops)
        return PEER_SILENCE;
    if (later && trouble->n_not_found > 0) {
        trouble->n_not_found--;
        trouble->n_reads = 0;
        pack_refusal(answer, request->msgid);
        pack_map(answer, 2);
        pack_pair_text(answer, "code", slice_of("not_found"));
        pack_pair_text(answer, "message", slice_of("this backup is gone"));
        pack_nil(answer);
        return PEER_SEND;
    }
    if (!peer_forward(peer, frame, answer))
        return PEER_CLOSE;
    return later && trouble->cuts ? PEER_CLOSE : PEER_SEND;
}

static void test_a_backup_whose_connection_breaks_leaves_the_old_one(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon), *other;
    struct paths paths = paths_in(daemon);
    struct trouble trouble = {.cuts = true};
    struct peer peer = {.behind = daemon->socket};
    struct stat before, after;

    add_item(client, "s", A);
    EXPECT(client, 0, sessiond_backup(client, NULL, paths.file));
    assert_int_equal(stat(paths.file, &before), 0);
    fill(client);
    peer_start(&peer, &daemon->scratch, troubles, &trouble);
    other = client_with((struct sessiond_options){.socket = peer.socket, .retry_ms = harness_patience_ms()});
    assert_int_not_equal(sessiond_backup(other, NULL, paths.file), 0);
    assert_int_equal(stat(paths.file, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_false(is_there(paths.partial));
    sessiond_free(other);
    sessiond_free(client);
    peer_stop(&peer);
}

static void test_a_backup_that_the_daemon_has_lost_is_made_again(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon), *other;
    struct paths paths = paths_in(daemon);
    struct trouble trouble = {.n_not_found = 2};
    struct peer peer = {.behind = daemon->socket};

    fill(client);
    peer_start(&peer, &daemon->scratch, troubles, &trouble);
    other = client_with((struct sessiond_options){.socket = peer.socket});
    EXPECT(other, 0, sessiond_backup(other, NULL, paths.file));
    assert_int_equal(verify(paths.file), 0);
    sessiond_free(other);
    sessiond_free(client);
    peer_stop(&peer);
}

static void test_a_killed_backup_is_never_mistaken_for_a_good_one(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct paths paths = paths_in(daemon);
    struct trouble trouble = {.stops = true};
    struct peer peer = {.behind = daemon->socket};
    pid_t pid;

    fill(client);
    peer_start(&peer, &daemon->scratch, troubles, &trouble);
    pid = fork();
    if (pid == 0) {
        struct sessiond *other = client_with((struct sessiond_options){.socket = peer.socket});

        _exit(sessiond_backup(other, NULL, paths.file) == 0);
    }
    WAIT_UNTIL(__atomic_load_n(&trouble.n_reads, __ATOMIC_RELAXED) > 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(is_there(paths.file));
    assert_true(is_there(paths.partial));
    assert_int_not_equal(verify(paths.partial), 0);
    EXPECT(client, 0, sessiond_backup(client, NULL, paths.file)); /* goes over what was left */
    assert_false(is_there(paths.partial));
    assert_int_equal(verify(paths.file), 0);
    sessiond_free(client);
    peer_stop(&peer);
}

static void test_two_backups_to_one_path_do_not_mix(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct paths paths = paths_in(daemon);
    int fd;

    add_item(client, "s", A);
    fd = open(paths.partial, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* as another backup does */
    EXPECT(client, -EBUSY, sessiond_backup(client, NULL, paths.file));
    assert_true(is_there(paths.partial));
    close(fd);
    EXPECT(client, 0, sessiond_backup(client, NULL, paths.file));
    sessiond_free(client);
}

static void test_what_cannot_be_backed_up(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct paths paths = paths_in(daemon);
    char nowhere[2 * PATH_SIZE];

    EXPECT(client, SESSIOND_NOT_FOUND, sessiond_backup(client, "never-used", paths.file));
    EXPECT(client, SESSIOND_NOT_FOUND, sessiond_backup(client, "memory", paths.file));
    assert_false(is_there(paths.file));
    assert_false(is_there(paths.partial));
    add_item(client, "s", A);
    (void)snprintf(nowhere, sizeof(nowhere), "%s/no/such/directory", daemon->scratch.path);
    EXPECT(client, -ENOENT, sessiond_backup(client, NULL, nowhere));
    EXPECT(client, -EISDIR, sessiond_backup(client, NULL, daemon->scratch.path));
    EXPECT(client, 0, sessiond_ping(client));
    sessiond_free(client);
}

/* ---- verify ---- */

static void test_verify_finds_damage(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct paths paths = paths_in(daemon);
    struct stat status;
    int fd;

    fill(client);
    EXPECT(client, 0, sessiond_backup(client, NULL, paths.file));
    sessiond_free(client);
    assert_int_equal(verify(paths.file), 0);
    assert_int_equal(stat(paths.file, &status), 0);

    fd = open(paths.file, O_RDWR | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, status.st_size / 2), 0);
    assert_int_not_equal(verify(paths.file), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_not_equal(verify(paths.file), 0);
    assert_int_equal(write(fd, "this is no database at all", 26), 26);
    assert_int_not_equal(verify(paths.file), 0);
    close(fd);
    assert_int_equal(unlink(paths.file), 0);
    assert_int_not_equal(verify(paths.file), 0);
    assert_false(is_there(paths.file));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_backup_is_a_store_like_the_one_it_was_made_of),
        TEST(test_an_old_copy_in_the_place_of_a_store_is_noticed),
        TEST(test_a_backup_under_load_holds_all_that_was_acknowledged_before_it),
        TEST(test_a_backup_whose_connection_breaks_leaves_the_old_one),
        TEST(test_a_backup_that_the_daemon_has_lost_is_made_again),
        TEST(test_a_killed_backup_is_never_mistaken_for_a_good_one),
        TEST(test_two_backups_to_one_path_do_not_mix),
        TEST(test_what_cannot_be_backed_up),
        TEST(test_verify_finds_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
