#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "tree.h"

/* ---- time ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = true };
#else
enum { IS_SANITIZED = false };
#endif

bool harness_is_slow(void)
{
    return IS_SANITIZED || getenv("SESSIOND_WRAPPER");
}

unsigned harness_patience_ms(void)
{
    return harness_is_slow() ? 5000 : 200;
}

int64_t harness_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void harness_breathe(void)
{
    (void)poll(NULL, 0, 1);
}

/* ---- a directory ---- */

void scratch_make(struct scratch *scratch)
{
    (void)snprintf(scratch->path, sizeof(scratch->path), "/tmp/sd-XXXXXX");
    assert_non_null(mkdtemp(scratch->path));
}

void scratch_remove(struct scratch *scratch)
{
    if (scratch->path[0])
        remove_tree(scratch->path);
    scratch->path[0] = '\0';
}

/* ---- starting programs ---- */

static const char *build_path(const char *name)
{
    static char path[PATH_MAX];
    const char *build = getenv("SESSIOND_BUILD");

    (void)snprintf(path, sizeof(path), "%s/%s", build ? build : "build/release", name);
    return path;
}

/* The words of $SESSIOND_WRAPPER, the program, then the arguments. The words live as long as the process. */
static char **command_line(const char *program, const char *const arguments[])
{
    const char *wrapper = getenv("SESSIOND_WRAPPER");
    char *words = strdup(wrapper ? wrapper : ""), *rest;
    char **line = calloc(64, sizeof(*line));
    size_t n = 0;

    for (char *word = strtok_r(words, " ", &rest); word && n < 32; word = strtok_r(NULL, " ", &rest))
        line[n++] = word;
    line[n++] = strdup(program);
    for (; *arguments && n < 62; arguments++)
        line[n++] = strdup(*arguments);
    return line;
}

/* Return: in the parent. The child dies with its parent, has its output in `out` and nothing of ours. */
static pid_t spawn(const char *program, const char *const arguments[], int out, const char *notify)
{
    pid_t parent = getpid(), pid = fork();
    char **line;

    if (pid != 0)
        return pid;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
        _exit(127);
    (void)dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    (void)dup2(out, STDOUT_FILENO);
    (void)dup2(out, STDERR_FILENO);
    if (notify)
        (void)setenv("NOTIFY_SOCKET", notify, 1);
    else
        (void)unsetenv("NOTIFY_SOCKET");
    line = command_line(program, arguments);
    (void)execvp(line[0], line);
    (void)dprintf(STDERR_FILENO, "%s: %s\n", line[0], strerror(errno));
    _exit(127);
}

int run_program(const char *name, const char *const arguments[], struct buf *ret_output)
{
    char path[] = "/tmp/sd-output-XXXXXX", part[4096];
    int status, fd = mkstemp(path);
    ssize_t n;
    pid_t pid;

    assert_true(fd >= 0);
    (void)unlink(path);
    pid = spawn(build_path(name), arguments, fd, NULL);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)lseek(fd, 0, SEEK_SET);
    while (ret_output && (n = read(fd, part, sizeof(part))) > 0)
        buf_append(ret_output, part, (size_t)n);
    close(fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- the daemon ---- */

static void print_log(const struct daemon *daemon)
{
    char line[1024];
    FILE *file = fopen(daemon->log, "re");

    while (file && fgets(line, sizeof(line), file))
        print_message("# daemon: %s", line);
    if (file)
        (void)fclose(file);
}

int daemon_setup_bare(void **state)
{
    struct daemon *daemon = calloc(1, sizeof(*daemon));
    unsigned uid = (unsigned)getuid();

    (void)unsetenv("SESSIOND_SOCKET");
    (void)unsetenv("SESSIOND_STORE");
    scratch_make(&daemon->scratch);
    (void)snprintf(daemon->socket, PATH_SIZE, "%s/s", daemon->scratch.path);
    (void)snprintf(daemon->state, PATH_SIZE, "%s/state", daemon->scratch.path);
    (void)snprintf(daemon->log, PATH_SIZE, "%s/log", daemon->scratch.path);
    /* A store's file has the name's bytes in hex: this is "default". */
    (void)snprintf(daemon->store, sizeof(daemon->store), "%s/u/%u/64656661756c74/items.db", daemon->state, uid);
    *state = daemon;
    return 0;
}

int daemon_setup(void **state)
{
    (void)daemon_setup_bare(state);
    daemon_start(*state);
    return 0;
}

void daemon_configure(struct daemon *daemon, const char *json)
{
    FILE *file;

    (void)snprintf(daemon->config, PATH_SIZE, "%s/config", daemon->scratch.path);
    file = fopen(daemon->config, "we");
    assert_non_null(file);
    assert_true(fputs(json, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int open_notify(const struct daemon *daemon, char path[PATH_SIZE])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(path, PATH_SIZE, "%s/notify", daemon->scratch.path);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    (void)unlink(path);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static bool says_ready(int notify)
{
    char text[4096] = "";
    ssize_t n = recv(notify, text, sizeof(text) - 1, 0);

    return n > 0 && strstr(text, "READY=1");
}

/* Return: whether it has ended; then it is reaped and *ret_status is its exit status, or 128 + a signal. */
static bool has_ended(struct daemon *daemon, int *ret_status)
{
    int status;

    if (waitpid(daemon->pid, &status, WNOHANG) != daemon->pid)
        return false;
    daemon->pid = 0;
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

/* Return: -1: it is ready; else it has ended with this status. */
static int start(struct daemon *daemon)
{
    const char *arguments[16] = {"--socket", daemon->socket, "--state-dir", daemon->state};
    size_t n = 4;
    int notify, log = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char path[PATH_SIZE];
    int status = -1;

    assert_true(log >= 0);
    assert_int_equal(daemon->pid, 0);
    if (daemon->config[0]) {
        arguments[n++] = "--config";
        arguments[n++] = daemon->config;
    }
    for (size_t i = 0; daemon->arguments[i]; i++)
        arguments[n++] = daemon->arguments[i];
    if (geteuid() != 0) /* else we could not count its descriptors */
        arguments[n] = "--dumpable";
    notify = open_notify(daemon, path);
    daemon->pid = spawn(build_path("sessiond"), arguments, log, path);
    close(log);
    WAIT_UNTIL(says_ready(notify) || has_ended(daemon, &status));
    close(notify);
    (void)unlink(path);
    return status;
}

/* The descriptor through which it said that it is ready may still be open, until its loop has answered something. */
static int count_fds_at_rest(const struct daemon *daemon)
{
    int n, fd = raw_connect(daemon->socket);

    raw_send(fd, "\x94\x00\x00\xa4ping\x90", 9);
    raw_expect(fd, 0, NULL);
    n = daemon_n_fds(daemon) - 1; /* without this connection */
    close(fd);
    return n;
}

void daemon_start(struct daemon *daemon)
{
    int status = start(daemon);

    if (status >= 0) {
        print_log(daemon);
        fail_msg("the daemon ended with status %d", status);
    }
    if (daemon->n_fds == 0) /* later, clients may be back before we can count */
        daemon->n_fds = count_fds_at_rest(daemon);
}

void daemon_start_for_all(struct daemon *daemon)
{
    if (getuid() != 0)
        return;
    daemon->arguments[0] = "--system";
    daemon_start(daemon);
    daemon_open_doors(daemon);
}

int daemon_start_expecting_failure(struct daemon *daemon)
{
    int status = start(daemon);

    if (status < 0)
        fail_msg("the daemon started");
    return status;
}

void daemon_stop(struct daemon *daemon)
{
    int status;

    assert_true(daemon->pid > 0);
    (void)kill(daemon->pid, SIGTERM);
    WAIT_UNTIL(has_ended(daemon, &status));
    if (status != 0) {
        print_log(daemon);
        fail_msg("the daemon ended with status %d", status);
    }
}

void daemon_kill(struct daemon *daemon)
{
    if (daemon->pid <= 0)
        return;
    (void)kill(daemon->pid, SIGKILL);
    (void)waitpid(daemon->pid, NULL, 0);
    daemon->pid = 0;
}

void daemon_restart(struct daemon *daemon)
{
    daemon_kill(daemon);
    daemon_start(daemon);
}

/* Files of stores are opened when they are used first, and kept. */
static bool is_store_file(const struct daemon *daemon, int directory, const char *name)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(directory, name, target, sizeof(target) - 1);

    if (size < 0)
        return true; /* gone meanwhile */
    target[size] = '\0';
    return strncmp(target, daemon->state, strlen(daemon->state)) == 0;
}

int daemon_n_fds(const struct daemon *daemon)
{
    char path[PATH_SIZE];
    struct dirent *entry;
    DIR *directory;
    int n = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon->pid);
    directory = opendir(path);
    if (!directory)
        return -1;
    while ((entry = readdir(directory)))
        if (entry->d_name[0] != '.' && !is_store_file(daemon, dirfd(directory), entry->d_name))
            n++;
    (void)closedir(directory);
    return n;
}

int daemon_log_lines(const struct daemon *daemon, const char *text)
{
    char line[2048];
    FILE *file = fopen(daemon->log, "re");
    int n = 0;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        n += strstr(line, text) != NULL;
    (void)fclose(file);
    return n;
}

/* Return: what is wrong with the daemon at the end of a test; NULL: nothing. */
static const char *complaint_at_end(struct daemon *daemon)
{
    int64_t end = harness_now_ms() + WAIT_MS;
    int status;

    if (daemon->pid == 0)
        return NULL;
    if (has_ended(daemon, &status))
        return "the daemon has died";
    while (daemon_n_fds(daemon) != daemon->n_fds && harness_now_ms() < end)
        harness_breathe();
    if (daemon_n_fds(daemon) != daemon->n_fds)
        return "the daemon has not given back its descriptors";
    (void)kill(daemon->pid, SIGTERM);
    while (!has_ended(daemon, &status))
        if (harness_now_ms() > end)
            return "the daemon does not stop";
        else
            harness_breathe();
    return status ? "the daemon did not end with status 0" : NULL;
}

int daemon_teardown(void **state)
{
    struct daemon *daemon = *state;
    const char *complaint = complaint_at_end(daemon);

    daemon_kill(daemon);
    if (complaint) {
        print_log(daemon);
        print_error("%s\n", complaint);
    }
    scratch_remove(&daemon->scratch);
    free(daemon);
    return complaint ? -1 : 0;
}

/* ---- clients ---- */

struct sessiond *client_with(struct sessiond_options options)
{
    struct sessiond *client;

    assert_int_equal(sessiond_new(&client, &options), 0);
    return client;
}

struct sessiond *daemon_client(const struct daemon *daemon)
{
    return client_with((struct sessiond_options){.socket = daemon->socket});
}

void expect_code(const struct sessiond *client, int r, int expected, const char *file, int line)
{
    if (r == expected)
        return;
    print_error("returned %d (%s), not %d (%s): %s\n", r, sessiond_strerror(r), expected, sessiond_strerror(expected),
                sessiond_last_error(client)->message);
    _fail(file, line);
}

void add_item(struct sessiond *client, const char *session, const char *format, ...)
{
    struct sessiond_text item;
    va_list arguments;
    char *text;

    va_start(arguments, format);
    assert_true(vasprintf(&text, format, arguments) >= 0);
    va_end(arguments);
    item = SESSIOND_TEXT(text);
    EXPECT(client, 0, sessiond_add_items(client, session, &item, 1, NULL, NULL));
    free(text);
}

void expect_items(struct sessiond *client, const char *session, ...)
{
    struct sessiond_items items;
    va_list expected;
    const char *text;
    size_t i = 0;

    EXPECT(client, 0, sessiond_get_items(client, session, NULL, &items));
    va_start(expected, session);
    while ((text = va_arg(expected, const char *))) {
        assert_true(i < items.n_items);
        assert_string_equal(items.items[i++].data, text);
    }
    va_end(expected);
    assert_int_equal(items.n_items, i);
    sessiond_items_free(&items);
}

/* ---- plain connections ---- */

/* Return: -1: nobody listens. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int raw_connect(const char *path)
{
    int fd = connect_to(path);

    assert_true(fd >= 0);
    return fd;
}

/* The daemon may hang up before it has read all. */
void raw_send(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR) {
            assert_true(errno == EPIPE || errno == ECONNRESET);
            return;
        }
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        }
    }
}

void raw_send_buf(int fd, struct buf *buf)
{
    assert_false(buf->failed);
    raw_send(fd, buf->data, buf->size);
    buf_deinit(buf);
}

/* Reads exactly one frame. Return: 1 done; 0 the connection ended; < 0: -errno, -ETIMEDOUT, -EPROTO. */
static int read_frame(int fd, struct buf *frame)
{
    struct frame_scan scan = FRAME_SCAN_INIT;
    struct pollfd pollfd = {fd, POLLIN, 0};
    char byte;

    for (;;) {
        enum frame_state state = frame_scan(&scan, frame->data, frame->size);
        size_t missing = state == FRAME_PARTIAL && scan.offset > frame->size ? scan.offset - frame->size : 1;
        ssize_t n;

        if (state != FRAME_PARTIAL)
            return state == FRAME_WHOLE ? 1 : -EPROTO;
        if (poll(&pollfd, 1, WAIT_MS) <= 0)
            return -ETIMEDOUT;
        if (missing > 1) {
            char *room = buf_reserve(frame, missing);

            n = room ? recv(fd, room, missing, 0) : -1;
            if (n > 0)
                buf_grow(frame, (size_t)n);
        } else {
            n = recv(fd, &byte, 1, 0);
            if (n > 0)
                buf_append(frame, &byte, 1);
        }
        if (n <= 0)
            return n == 0 || errno == ECONNRESET ? 0 : -errno;
    }
}

void daemon_open_doors(const struct daemon *daemon)
{
    assert_int_equal(chmod(daemon->scratch.path, 0711), 0);
    assert_int_equal(chmod(daemon->socket, 0666), 0);
}

int raw_connect_as(const struct daemon *daemon, uid_t uid, size_t n_groups, const gid_t *groups)
{
    int fd;

    assert_int_equal(setgroups(n_groups, groups), 0);
    assert_int_equal(setegid(uid), 0);
    assert_int_equal(seteuid(uid), 0);
    fd = raw_connect(daemon->socket);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(setegid(0), 0);
    assert_int_equal(setgroups(0, NULL), 0);
    return fd;
}

void skip_without_root(void)
{
    if (getuid() != 0) {
        print_message("# not run: it takes root to be somebody else\n");
        skip();
    }
}

void raw_receive(int fd, struct raw_reply *ret)
{
    char why[MESSAGE_WHY_SIZE];
    bool answerable;

    *ret = (struct raw_reply){0};
    assert_int_equal(read_frame(fd, &ret->frame), 1);
    assert_int_equal(message_parse(&ret->message, buf_slice(&ret->frame), &answerable, why), 0);
}

void raw_reply_deinit(struct raw_reply *reply)
{
    message_deinit(&reply->message);
    buf_deinit(&reply->frame);
}

struct error_code {
    struct slice code, message;
};

static void expect_error(const struct message *message, const struct value *error, const char *code)
{
    static const struct field fields[] = {
        {"code", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct error_code, code), 0, 0},
        {"message", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct error_code, message), 1, 0},
        {0},
    };
    struct error_code found = {0};
    char why[MESSAGE_WHY_SIZE] = "";

    if (!code && !error)
        return;
    assert_non_null(error);
    if (message_read(message, error, fields, MESSAGE_IGNORE_UNKNOWN, &found, why))
        fail_msg("%s", why);
    if (!code || !slice_equal(found.code, slice_of(code)))
        fail_msg("%.*s (%.*s) instead of %s", (int)found.code.size, found.code.data, (int)found.message.size,
                 found.message.data, code ? code : "no error");
}

void raw_expect(int fd, int64_t msgid, const char *code)
{
    struct raw_reply reply;

    raw_receive(fd, &reply);
    if (msgid < 0) {
        assert_int_equal(reply.message.type, MESSAGE_NOTIFICATION);
        assert_true(slice_equal(reply.message.method, slice_of("error")));
        expect_error(&reply.message, reply.message.params, code);
    } else {
        assert_int_equal(reply.message.type, MESSAGE_RESPONSE);
        assert_int_equal(reply.message.msgid, msgid);
        expect_error(&reply.message, reply.message.error, code);
        assert_true(code ? !reply.message.result : reply.message.result != NULL);
    }
    raw_reply_deinit(&reply);
}

void raw_expect_end(int fd)
{
    struct pollfd pollfd = {fd, POLLIN, 0};
    char part[4096];
    ssize_t n;

    do {
        assert_int_equal(poll(&pollfd, 1, WAIT_MS), 1);
        n = recv(fd, part, sizeof(part), 0);
    } while (n > 0);
    assert_true(n == 0 || errno == ECONNRESET);
    close(fd);
}

/* ---- peers ---- */

static bool send_all(int fd, const struct buf *buf)
{
    for (size_t at = 0; at < buf->size;) {
        ssize_t n = send(fd, buf->data + at, buf->size - at, MSG_NOSIGNAL);

        if (n < 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

bool is_method(const struct message *request, const char *method)
{
    return slice_equal(request->method, slice_of(method));
}

bool peer_forward(struct peer *peer, struct slice frame, struct buf *answer)
{
    struct buf copy = BUF_INIT;
    bool done;

    if (peer->behind_fd < 0)
        peer->behind_fd = connect_to(peer->behind);
    buf_append(&copy, frame.data, frame.size);
    done = peer->behind_fd >= 0 && send_all(peer->behind_fd, &copy) && read_frame(peer->behind_fd, answer) == 1;
    buf_deinit(&copy);
    return done;
}

void peer_pack_hello(struct buf *answer, uint32_t msgid, const char *instance)
{
    pack_response(answer, msgid);
    pack_map(answer, 5);
    pack_pair_text(answer, "server", slice_of("sessiond"));
    pack_pair_text(answer, "version", slice_of("9.9.9"));
    pack_pair_number(answer, "protocol", 1);
    pack_pair_text(answer, "instance", slice_of(instance));
    pack_pair_number(answer, "uid", (uint64_t)getuid());
}

/* Return: whether the connection goes on. */
static bool answer_request(struct peer *peer, int fd, struct slice frame)
{
    struct message request = {0};
    struct buf answer = BUF_INIT;
    char why[MESSAGE_WHY_SIZE];
    enum peer_action action;
    bool answerable, goes_on;

    if (message_parse(&request, frame, &answerable, why))
        return false;
    __atomic_add_fetch(&peer->n_requests, 1, __ATOMIC_RELAXED);
    action = peer->answer(peer, &request, frame, &answer);
    goes_on = action == PEER_SEND || action == PEER_SILENCE;
    if (action == PEER_SEND || action == PEER_SEND_AND_CLOSE)
        goes_on &= send_all(fd, &answer);
    message_deinit(&request);
    buf_deinit(&answer);
    return goes_on;
}

/* Return: whether there is something to read; false: the peer is to stop. */
static bool peer_wait(const struct peer *peer, int fd)
{
    struct pollfd fds[] = {{fd, POLLIN, 0}, {peer->stop_fd, POLLIN, 0}};

    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    return fds[1].revents == 0;
}

static void serve(struct peer *peer, int fd)
{
    struct buf frame = BUF_INIT;
    bool goes_on = true;

    while (goes_on && peer_wait(peer, fd)) {
        goes_on = read_frame(fd, &frame) == 1 && answer_request(peer, fd, buf_slice(&frame));
        buf_deinit(&frame);
    }
    buf_deinit(&frame);
    close(fd);
    if (peer->behind_fd >= 0)
        close(peer->behind_fd);
    peer->behind_fd = -1;
}

static void *peer_run(void *arg)
{
    struct peer *peer = arg;

    while (peer_wait(peer, peer->listen_fd)) {
        int fd = accept4(peer->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            continue;
        __atomic_add_fetch(&peer->n_accepted, 1, __ATOMIC_RELAXED);
        serve(peer, fd);
    }
    return NULL;
}

void peer_start(struct peer *peer, const struct scratch *scratch, peer_fn *answer, void *arg)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;

    (void)snprintf(peer->socket, PATH_SIZE, "%s/peer", scratch->path);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", peer->socket);
    peer->answer = answer;
    peer->arg = arg;
    peer->behind_fd = -1;
    peer->stop_fd = eventfd(0, EFD_CLOEXEC);
    peer->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->stop_fd >= 0 && peer->listen_fd >= 0);
    (void)unlink(peer->socket);
    assert_int_equal(bind(peer->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(peer->listen_fd, 16), 0);
    assert_int_equal(pthread_create(&thread, NULL, peer_run, peer), 0);
    peer->thread = thread;
}

void peer_stop(struct peer *peer)
{
    if (!peer->answer)
        return;
    (void)eventfd_write(peer->stop_fd, 1);
    (void)pthread_join(peer->thread, NULL);
    close(peer->listen_fd);
    close(peer->stop_fd);
    (void)unlink(peer->socket);
    peer->answer = NULL;
}
