/*
 * Starting, stopping, two of them, and what stands in the way.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "config/config.h"
#include "frame.h"
#include "harness.h"
#include "store/engine.h"

enum { EXIT_IN_USE = 4 };

#define A "{\"n\": 1}"

/* ---- two daemons ---- */

/* A daemon that shares some paths with another; it must not outlive the test, even if that fails. */
static int start_second(const struct daemon *first, const char *socket, const char *state)
{
    struct daemon second = {.scratch = first->scratch};

    (void)snprintf(second.socket, PATH_SIZE, "%s", socket);
    (void)snprintf(second.state, PATH_SIZE, "%s", state);
    (void)snprintf(second.log, PATH_SIZE, "%s/log2", first->scratch.path);
    return daemon_start_expecting_failure(&second);
}

static const char *in_scratch(const struct daemon *daemon, const char *name)
{
    static char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s/%s", daemon->scratch.path, name);
    return path;
}

static void test_a_second_daemon_on_the_same_directory_is_refused(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);

    add_item(client, "s", A);
    assert_int_equal(start_second(daemon, in_scratch(daemon, "other"), daemon->state), EXIT_IN_USE);
    expect_items(client, "s", A, NULL);
    assert_int_equal(access(in_scratch(daemon, "other"), F_OK), -1);
    sessiond_free(client);
}

static void test_a_second_daemon_on_the_same_socket_is_refused(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client = daemon_client(daemon);
    struct stat before, after;

    add_item(client, "s", A);
    assert_int_equal(stat(daemon->socket, &before), 0);
    assert_int_equal(start_second(daemon, daemon->socket, in_scratch(daemon, "other")), EXIT_IN_USE);
    assert_int_equal(stat(daemon->socket, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
    client = daemon_client(daemon);
    expect_items(client, "s", A, NULL);
    sessiond_free(client);
}

/* ---- what is at the socket's path ---- */

static void test_a_stale_socket_is_replaced(void **state)
{
    struct daemon *daemon = *state;
    struct stat before, after;

    assert_int_equal(stat(daemon->socket, &before), 0);
    daemon_kill(daemon);
    assert_int_equal(stat(daemon->socket, &after), 0); /* it is still there */
    daemon_start(daemon);
    assert_int_equal(stat(daemon->socket, &after), 0);
    assert_true(S_ISSOCK(after.st_mode));
}

static void test_a_foreign_live_socket_is_not_stolen(void **state)
{
    struct daemon *daemon = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat before, after;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", daemon->socket);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(stat(daemon->socket, &before), 0);
    assert_int_equal(daemon_start_expecting_failure(daemon), EXIT_IN_USE);
    assert_int_equal(stat(daemon->socket, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    close(fd);
    daemon_start(daemon); /* now it is stale */
}

static void test_a_file_that_is_no_socket_is_left_alone(void **state)
{
    struct daemon *daemon = *state;
    int fd = open(daemon->socket, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, "precious", 8), 8);
    close(fd);
    assert_int_not_equal(daemon_start_expecting_failure(daemon), 0);
    assert_int_equal(access(daemon->socket, R_OK), 0);
    assert_int_equal(unlink(daemon->socket), 0);
    daemon_start(daemon);
}

static void test_a_path_of_more_than_107_bytes_is_refused(void **state)
{
    struct daemon *daemon = *state;
    char path[PATH_SIZE];
    size_t size = strlen(daemon->scratch.path);

    memset(path, 'x', sizeof(path));
    memcpy(path, daemon->scratch.path, size);
    path[size] = '/';
    path[108] = '\0';
    assert_int_not_equal(start_second(daemon, path, daemon->state), 0);
    path[107] = '\0';
    memcpy(daemon->socket, path, 108);
    daemon_start(daemon);
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 07777;
}

static void test_nobody_else_can_read_what_is_kept(void **state)
{
    struct daemon *daemon = *state;
    mode_t before = umask(0);
    struct sessiond *client;

    daemon_start(daemon);
    umask(before);
    client = daemon_client(daemon);
    add_item(client, "s", A);
    assert_int_equal(mode_of(daemon->socket), 0600);
    assert_int_equal(mode_of(daemon->state), 0700);
    assert_int_equal(mode_of(daemon->store), 0600);
    sessiond_free(client);
}

/* ---- stores that are not ours ---- */

static void execute(const char *path, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "sessiond"), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static struct buf content_of(const char *path)
{
    struct buf content = BUF_INIT;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char part[65536];
    ssize_t n;

    assert_true(fd >= 0);
    while ((n = read(fd, part, sizeof(part))) > 0)
        buf_append(&content, part, (size_t)n);
    close(fd);
    return content;
}

/* Changes the store's file as the SQL says; expects that the daemon will not use it and has not touched it. */
static void expect_refused(struct daemon *daemon, const char *sql)
{
    struct sessiond *client = daemon_client(daemon);
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_change other = {.store = "other"};
    struct sessiond_items items;
    struct buf before, after;

    add_item(client, "s", A);
    daemon_stop(daemon);
    execute(daemon->store, sql);
    before = content_of(daemon->store);
    daemon_start(daemon);
    EXPECT(client, SESSIOND_UNAVAILABLE, sessiond_add_items(client, "s", &item, 1, NULL, NULL));
    EXPECT(client, SESSIOND_UNAVAILABLE, sessiond_get_items(client, "s", NULL, &items));
    EXPECT(client, 0, sessiond_add_items(client, "s", &item, 1, &other, NULL)); /* its neighbour works */
    sessiond_free(client);
    daemon_stop(daemon);
    after = content_of(daemon->store);
    assert_true(slice_equal(buf_slice(&before), buf_slice(&after)));
    buf_deinit(&before);
    buf_deinit(&after);
}

static void test_a_newer_schema_is_refused_and_untouched(void **state)
{
    expect_refused(*state, "PRAGMA user_version = 999");
}

static void test_a_database_of_another_program_is_refused_and_untouched(void **state)
{
    expect_refused(*state, "PRAGMA application_id = 77");
}

/* ---- stopping ---- */

static void pack_add(struct buf *buf, uint32_t msgid)
{
    pack_request(buf, msgid, "add_items");
    pack_map(buf, 2);
    pack_pair_text(buf, "session", slice_of("s"));
    pack_text(buf, slice_of("items"));
    pack_array(buf, 1);
    pack_text(buf, slice_of(A));
}

/* Reads answers until the connection ends. Return: how many. */
static size_t count_answers(int fd)
{
    struct buf input = BUF_INIT;
    char part[4096];
    size_t n_answers = 0;
    ssize_t n;

    while ((n = recv(fd, part, sizeof(part), 0)) > 0)
        buf_append(&input, part, (size_t)n);
    for (size_t at = 0; at < input.size;) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        assert_int_equal(frame_scan(&scan, input.data + at, input.size - at), FRAME_WHOLE);
        at += scan.offset;
        n_answers++;
    }
    buf_deinit(&input);
    close(fd);
    return n_answers;
}

static void test_sigterm_with_work_under_way(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client;
    struct sessiond_items items;
    size_t n_answers = 0;

    daemon_configure(daemon, "{\"grace_seconds\": 60}"); /* however slow it is here */
    daemon_start(daemon);
    for (int round = 0; round < 10; round++) {
        struct buf frames = BUF_INIT;
        int fd = raw_connect(daemon->socket);

        for (uint32_t i = 0; i < 500; i++)
            pack_add(&frames, i);
        raw_send_buf(fd, &frames);
        assert_int_equal(kill(daemon->pid, SIGTERM), 0);
        n_answers += count_answers(fd);
        daemon_stop(daemon);
        daemon_start(daemon);
    }
    client = daemon_client(daemon);
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, n_answers); /* what was carried out was answered, and what was answered is there */
    sessiond_items_free(&items);
    sessiond_free(client);
}

static void test_sigterm_again_and_again_until_it_has_ended(void **state)
{
    struct daemon *daemon = *state;
    int status;

    for (int round = 0; round < 20; round++) {
        while (waitpid(daemon->pid, &status, WNOHANG) == 0)
            assert_int_equal(kill(daemon->pid, SIGTERM), 0);
        daemon->pid = 0;
        assert_int_equal(status, 0);
        daemon_start(daemon);
    }
}

static void test_sigterm_with_half_a_frame_on_its_way(void **state)
{
    struct daemon *daemon = *state;
    struct buf frames = BUF_INIT;
    int fd = raw_connect(daemon->socket);

    pack_add(&frames, 1);
    pack_add(&frames, 2);
    frames.size -= 3;
    raw_send_buf(fd, &frames);
    raw_expect(fd, 1, NULL);
    daemon_stop(daemon);
    raw_expect_end(fd);
    daemon_start(daemon);
}

static void test_sigterm_while_nothing_is_read(void **state)
{
    struct daemon *daemon = *state;
    int fd = raw_connect(daemon->socket);
    struct sessiond *client = daemon_client(daemon);

    add_item(client, "s", A);
    daemon_stop(daemon); /* with two idle connections */
    raw_expect_end(fd);
    sessiond_free(client);
    daemon_start(daemon);
}

/* ---- limits of a connection ---- */

static void test_half_a_frame_without_progress_ends_the_connection(void **state)
{
    struct daemon *daemon = *state;
    int fd;

    daemon_configure(daemon, "{\"stall_seconds\": 1}");
    daemon_start(daemon);
    fd = raw_connect(daemon->socket);
    raw_send(fd, "\x94\x00\x01", 3);
    raw_expect_end(fd);
}

static void test_one_connection_too_many_is_told_so(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *clients[3];
    int fd;

    daemon_configure(daemon, "{\"connections\": 3}");
    daemon_start(daemon);
    for (int i = 0; i < 3; i++) {
        clients[i] = daemon_client(daemon);
        EXPECT(clients[i], 0, sessiond_ping(clients[i]));
    }
    fd = raw_connect(daemon->socket);
    raw_expect(fd, -1, "busy");
    raw_expect_end(fd);
    for (int i = 0; i < 3; i++) {
        EXPECT(clients[i], 0, sessiond_ping(clients[i]));
        sessiond_free(clients[i]);
    }
}

static void test_a_configuration_that_is_wrong_is_refused(void **state)
{
    static const char *const wrong[] = {"", "[]", "{\"colour\": 1}", "{\"connections\": \"many\"}",
                                        "{\"connections\": 0}"};
    struct daemon *daemon = *state;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        daemon_configure(daemon, wrong[i]);
        assert_int_equal(daemon_start_expecting_failure(daemon), 2);
    }
}

/* ---- the memory store ---- */

static void test_the_memory_store_ends_with_the_daemon_and_is_limited(void **state)
{
    struct daemon *daemon = *state;
    struct sessiond *client;
    struct sessiond_range range = {.store = "memory"};
    struct sessiond_items items;
    char text[65536];
    size_t n = 0;
    int r;

    daemon_configure(daemon, "{\"memory_bytes\": 1048576}");
    daemon_start(daemon);
    client = client_with((struct sessiond_options){.socket = daemon->socket, .store = "memory"});
    memset(text, ' ', sizeof(text));
    memcpy(text, "{", 1);
    memcpy(text + sizeof(text) - 2, "}", 2);
    do {
        struct sessiond_text item = SESSIOND_TEXT(text);

        r = sessiond_add_items(client, "s", &item, 1, NULL, NULL);
        n += r == 0;
    } while (r == 0 && n < 1000);
    EXPECT(client, SESSIOND_FULL, r);
    assert_true(n >= 4 && n <= 16);
    EXPECT(client, 0, sessiond_get_items(client, "s", NULL, &items));
    assert_int_equal(items.n_items, n);
    sessiond_items_free(&items);
    EXPECT(client, 0, sessiond_clear_session(client, "s", NULL, NULL)); /* makes room */
    add_item(client, "s", A);
    sessiond_free(client);

    daemon_restart(daemon);
    client = daemon_client(daemon);
    EXPECT(client, 0, sessiond_get_items(client, "s", &range, &items));
    assert_int_equal(items.n_items, 0);
    sessiond_items_free(&items);
    sessiond_free(client);
}

/* ---- first use ---- */

static int use_first(const struct daemon *daemon, int begin, int number)
{
    struct sessiond *client;
    struct sessiond_text item = SESSIOND_TEXT(A);
    struct sessiond_changed changed;
    char session[16], byte;

    if (sessiond_new(&client, &(struct sessiond_options){.socket = daemon->socket}))
        return 1;
    (void)snprintf(session, sizeof(session), "s%d", number % 4);
    if (read(begin, &byte, 1) != 0) /* all go when the parent closes the pipe */
        return 1;
    if (sessiond_add_items(client, session, &item, 1, NULL, &changed))
        return 1;
    sessiond_free(client);
    return 0;
}

static void test_eight_clients_open_a_fresh_directory_at_once(void **state)
{
    enum { ROUNDS = 20, CLIENTS = 8 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int begin[2], status;
        pid_t pids[CLIENTS];
        void *fresh;
        struct daemon *daemon;

        (void)daemon_setup(&fresh);
        daemon = fresh;
        assert_int_equal(pipe2(begin, O_CLOEXEC), 0);
        for (int i = 0; i < CLIENTS; i++) {
            pids[i] = fork();
            if (pids[i] == 0) {
                close(begin[1]);
                _exit(use_first(daemon, begin[0], i));
            }
        }
        close(begin[0]);
        close(begin[1]);
        for (int i = 0; i < CLIENTS; i++) {
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_int_equal(status, 0);
        }
        assert_int_equal(daemon_teardown(&fresh), 0);
    }
}

static void test_a_thousand_connections_leave_nothing_behind(void **state)
{
    struct daemon *daemon = *state;

    for (int i = 0; i < 1000; i++) {
        struct sessiond *client = daemon_client(daemon);

        EXPECT(client, 0, sessiond_ping(client));
        sessiond_free(client);
    }
    WAIT_UNTIL(daemon_n_fds(daemon) == daemon->n_fds);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, daemon_setup, daemon_teardown)
#define BARE(test) cmocka_unit_test_setup_teardown(test, daemon_setup_bare, daemon_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_second_daemon_on_the_same_directory_is_refused),
        TEST(test_a_second_daemon_on_the_same_socket_is_refused),
        TEST(test_a_stale_socket_is_replaced),
        BARE(test_a_foreign_live_socket_is_not_stolen),
        BARE(test_a_file_that_is_no_socket_is_left_alone),
        BARE(test_a_path_of_more_than_107_bytes_is_refused),
        BARE(test_nobody_else_can_read_what_is_kept),
        TEST(test_a_newer_schema_is_refused_and_untouched),
        TEST(test_a_database_of_another_program_is_refused_and_untouched),
        BARE(test_sigterm_with_work_under_way),
        TEST(test_sigterm_again_and_again_until_it_has_ended),
        TEST(test_sigterm_with_half_a_frame_on_its_way),
        TEST(test_sigterm_while_nothing_is_read),
        BARE(test_half_a_frame_without_progress_ends_the_connection),
        BARE(test_one_connection_too_many_is_told_so),
        BARE(test_a_configuration_that_is_wrong_is_refused),
        BARE(test_the_memory_store_ends_with_the_daemon_and_is_limited),
        cmocka_unit_test(test_eight_clients_open_a_fresh_directory_at_once),
        TEST(test_a_thousand_connections_leave_nothing_behind),
    };
    struct config config;

    config_init(&config);
    if (sqlite_setup(&config)) /* the pages of a store have checksums, which a test that changes one must get right */
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
