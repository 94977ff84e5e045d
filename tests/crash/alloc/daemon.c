/*
 * The N-th allocation of the daemon fails, for N = 1, 2, 3, … until what was asked is done before it would have come:
 * for every method, with the store open (warm) or left behind by a killed daemon (cold), once and for ever after, and
 * for the start. The whole daemon runs in a thread of this program; all allocations of its threads count, those of
 * SQLite, libuv, msgpack-c, jansson and the C library as well. Each N is a process of its own, in which
 *
 *   - every request gets its right answer, an error, or a closed connection, and in time;
 *   - when there is memory again, the same daemon makes the same changes by their keys: what was made is made once,
 * what was not is made now, and all of it is what it is without a failure;
 *   - it stops cleanly, the store checks, and (in a sanitizer's build) nothing has leaked.
 *
 * A library that ends the process by itself is named, and is no failure of ours.
 *
 *     daemon [--every N] [--only NAME]        every N-th N only; sweeps whose name contains NAME
 *     daemon --control leak|change            spoils each attempt, and so must find something
 */
#include "failing.h"

int daemon_main(int argc, char **argv);

#define main daemon_main
#include "main.c"
#undef main

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "frame.h"
#include "tree.h"

enum {
    REQUESTS_MAX = 40,
    N_LIBRARIES = 16,
    WAIT_MS = 20000,
    SWEEPS_AT_A_TIME = 2,
    UNTOUCHED = 42, /* exit status of an attempt in which nothing failed */
    LEAKED = 23,    /* the sanitizer's, also where it has found something else */
};

/* Called by a sanitizer. */
extern const char *__asan_default_options(void);

FAILING_PUBLIC FAILING_EARLY const char *__asan_default_options(void)
{
    return "exitcode=23"; /* LEAKED */
}

/* ---- what goes wrong with us ---- */

__attribute__((noreturn, format(printf, 1, 2))) static void broken(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("BROKEN: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    _exit(EXIT_FAILURE);
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            broken("line %d: %s (%s)", __LINE__, #condition, strerror(errno));                                         \
    } while (0)

/* ---- requests ---- */

static uint32_t next_msgid;

static void begin(struct buf *frames, const char *method, const char *session, size_t n_more)
{
    pack_request(frames, next_msgid++, method);
    pack_map(frames, 1 + n_more);
    pack_pair_text(frames, "session", slice_of(session));
}

static void pack_items(struct buf *frames, size_t n, size_t size)
{
    char *item = malloc(size + 1);

    CHECK(item);
    memset(item, ' ', size);
    item[0] = '{';
    item[size - 1] = '}';
    pack_text(frames, slice_of("items"));
    pack_array(frames, n);
    for (size_t i = 0; i < n; i++)
        pack_text(frames, (struct slice){item, size});
    free(item);
}

static void pack_meta(struct buf *frames, size_t n)
{
    pack_text(frames, slice_of("meta"));
    pack_array(frames, n);
    for (size_t i = 0; i < n; i++)
        pack_text(frames, slice_of("{\"of\": \"mine\"}"));
}

static void pack_prepare(struct buf *frames)
{
    begin(frames, "add_items", "s", 3);
    pack_items(frames, 3, 40);
    pack_meta(frames, 3);
    pack_pair_text(frames, "key", slice_of("key-0"));
    begin(frames, "add_items", "large", 1);
    pack_items(frames, 12, 30000);
}

static void pack_get(struct buf *frames)
{
    begin(frames, "get_items", "s", 0);
}

static void pack_get_meta(struct buf *frames)
{
    begin(frames, "get_items", "s", 1);
    pack_pair_bool(frames, "with_meta", true);
}

static void pack_get_large(struct buf *frames)
{
    begin(frames, "get_items", "large", 0);
}

static void pack_add(struct buf *frames)
{
    begin(frames, "add_items", "s", 2);
    pack_items(frames, 2, 500);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_add_meta(struct buf *frames)
{
    begin(frames, "add_items", "s", 3);
    pack_items(frames, 2, 500);
    pack_meta(frames, 2);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_add_new(struct buf *frames)
{
    begin(frames, "add_items", "new", 3);
    pack_items(frames, 1, 50);
    pack_pair_text(frames, "key", slice_of("key-1"));
    pack_pair_text(frames, "store", slice_of("another"));
}

/* Over what the loop checks itself: goes to a thread of libuv's pool. */
static void pack_add_large(struct buf *frames)
{
    begin(frames, "add_items", "s", 2);
    pack_items(frames, 8, 40000);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_add_many(struct buf *frames)
{
    char key[16];

    for (int i = 0; i < REQUESTS_MAX; i++) {
        (void)snprintf(key, sizeof(key), "key-%02d", i + 1);
        begin(frames, "add_items", "s", 2);
        pack_items(frames, 1, 100);
        pack_pair_text(frames, "key", slice_of(key));
    }
}

static void pack_pop(struct buf *frames)
{
    begin(frames, "pop_item", "s", 1);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_pop_meta(struct buf *frames)
{
    begin(frames, "pop_item", "s", 2);
    pack_pair_bool(frames, "with_meta", true);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_clear(struct buf *frames)
{
    begin(frames, "clear_session", "s", 1);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_replace(struct buf *frames)
{
    begin(frames, "replace_items", "s", 3);
    pack_pair_number(frames, "from_seq", 2);
    pack_items(frames, 3, 60);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_delete(struct buf *frames)
{
    begin(frames, "delete_session", "s", 1);
    pack_pair_text(frames, "key", slice_of("key-1"));
}

static void pack_plain(struct buf *frames, const char *method)
{
    pack_request(frames, next_msgid++, method);
    pack_map(frames, 0);
}

static void pack_hello(struct buf *frames)
{
    pack_plain(frames, "hello");
}

static void pack_ping(struct buf *frames)
{
    pack_plain(frames, "ping");
}

static void pack_info(struct buf *frames)
{
    pack_plain(frames, "info");
}

static void pack_stats(struct buf *frames)
{
    pack_plain(frames, "stats");
}

static void pack_stats_top(struct buf *frames)
{
    pack_request(frames, next_msgid++, "stats");
    pack_map(frames, 1);
    pack_pair_number(frames, "top", 100);
}

static void pack_list_sessions(struct buf *frames)
{
    pack_plain(frames, "list_sessions");
}

static void pack_list_stores(struct buf *frames)
{
    pack_plain(frames, "list_stores");
}

static void pack_recover(struct buf *frames)
{
    pack_plain(frames, "recover");
}

static void pack_backup(struct buf *frames)
{
    pack_plain(frames, "backup");
}

static void pack_backup_part(struct buf *frames, const char *method, bool reads)
{
    pack_request(frames, next_msgid++, method);
    pack_map(frames, reads ? 2 : 1);
    pack_pair_text(frames, "backup", slice_of("0123456789abcdef0123456789abcdef"));
    if (reads)
        pack_pair_number(frames, "offset", 0);
}

static void pack_backup_read(struct buf *frames)
{
    pack_backup_part(frames, "backup_read", true);
}

static void pack_backup_delete(struct buf *frames)
{
    pack_backup_part(frames, "backup_delete", false);
}

/* Refused with a sentence, where no memory is needed for the good case. */
static void pack_invalid(struct buf *frames)
{
    begin(frames, "add_items", "s", 1);
    pack_text(frames, slice_of("items"));
    pack_array(frames, 1);
    pack_text(frames, slice_of("no JSON"));
}

/* What one sweep asks. */
struct operation {
    const char *name;
    void (*pack)(struct buf *frames); /* NULL: it is asked over HTTP */
    bool varies;                      /* its answer is not the same in each process */
    bool cold; /* worth a sweep with a store that must be opened first: some 2,000 allocations, alike for all */
};

static const struct operation operations[] = {
    {"get_items", pack_get, false, true},
    {"get_items with meta", pack_get_meta, false, false},
    {"get_items of 360 KB", pack_get_large, false, false},
    {"add_items", pack_add, false, true},
    {"add_items with meta", pack_add_meta, false, false},
    {"add_items to a new store", pack_add_new, false, false}, /* it opens one in any case */
    {"add_items of 320 KB", pack_add_large, false, false},
    {"add_items, 40 at once", pack_add_many, false, false},
    {"pop_item", pack_pop, false, false},
    {"pop_item with meta", pack_pop_meta, false, false},
    {"clear_session", pack_clear, false, false},
    {"replace_items", pack_replace, false, false},
    {"delete_session", pack_delete, false, false},
    {"hello", pack_hello, true, false},
    {"ping", pack_ping, false, false},
    {"info", pack_info, true, false},
    {"stats", pack_stats, true, false},
    {"stats of the busiest", pack_stats_top, true, false},
    {"a scrape", NULL, true, false},
    {"list_sessions", pack_list_sessions, true, false},
    {"list_stores", pack_list_stores, true, true},
    {"recover", pack_recover, false, false},
    {"backup", pack_backup, true, true},
    {"backup_read", pack_backup_read, false, false},
    {"backup_delete", pack_backup_delete, false, false},
    {"an invalid item", pack_invalid, false, false},
};

/* ---- the daemon, in a thread ---- */

static struct {
    char directory[64], socket[80], state[80], notify[80], metrics[80], config[80];
    char *arguments[8];
    int notify_fd;
    pthread_t thread;
} d;

static void *run_daemon(void *unused)
{
    int n = 0;

    (void)unused;
    while (d.arguments[n])
        n++;
    return (void *)(intptr_t)daemon_main(n, d.arguments);
}

static void name_files(const char *directory)
{
    static char program[] = "sessiond", socket_option[] = "--socket", state_option[] = "--state-dir";
    static char config_option[] = "--config";
    char *const arguments[] = {program, socket_option, d.socket, state_option, d.state, config_option, d.config, NULL};

    (void)snprintf(d.directory, sizeof(d.directory), "%s", directory);
    (void)snprintf(d.socket, sizeof(d.socket), "%s/s", directory);
    (void)snprintf(d.state, sizeof(d.state), "%s/state", directory);
    (void)snprintf(d.notify, sizeof(d.notify), "%s/n", directory);
    (void)snprintf(d.metrics, sizeof(d.metrics), "%s/m", directory);
    (void)snprintf(d.config, sizeof(d.config), "%s/conf", directory);
    memcpy(d.arguments, arguments, sizeof(arguments));
}

static void write_config(void)
{
    char text[128];
    int fd = open(d.config, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
        size = snprintf(text, sizeof(text), "{\"metrics_socket\": \"%s\"}", d.metrics);

    CHECK(fd >= 0 && write(fd, text, (size_t)size) == size);
    close(fd);
}

static void daemon_begin(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    write_config();
    d.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(d.notify_fd >= 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", d.notify);
    CHECK(bind(d.notify_fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(setenv("NOTIFY_SOCKET", d.notify, 1) == 0);
    CHECK(pthread_create(&d.thread, NULL, run_daemon, NULL) == 0);
}

/* Return: false if it ended instead. */
static bool daemon_is_ready(void)
{
    struct pollfd pollfd = {.fd = d.notify_fd, .events = POLLIN};

    for (int i = 0; i < WAIT_MS / 10; i++) {
        if (poll(&pollfd, 1, 10) == 1)
            return true;
        if (pthread_tryjoin_np(d.thread, NULL) == 0)
            return false;
    }
    broken("the daemon is neither ready nor gone");
}

static bool is_asleep(const char *thread)
{
    char path[300], text[256] = "", *end;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%s/stat", thread);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* it is gone */
    CHECK(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    end = strrchr(text, ')');
    return end && end[2] == 'S';
}

/* Until all of its threads wait for something: also those that have just been made, whose beginning is the sanitizer's
 * business and not ours. */
static void await_daemon_asleep(void)
{
    bool all = false;

    for (int i = 0; i < WAIT_MS && !all; i++) {
        DIR *tasks = opendir("/proc/self/task");
        struct dirent *entry;

        CHECK(tasks);
        all = true;
        while ((entry = readdir(tasks)))
            all &= entry->d_name[0] == '.' || atoi(entry->d_name) == gettid() || is_asleep(entry->d_name);
        closedir(tasks);
        if (!all)
            (void)poll(NULL, 0, 1);
    }
    CHECK(all);
}

static void daemon_end(void)
{
    struct timespec until;
    void *status;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    CHECK(kill(getpid(), SIGTERM) == 0);
    if (pthread_timedjoin_np(d.thread, &status, &until))
        broken("the daemon does not stop");
    if (status)
        broken("the daemon stopped with status %d", (int)(intptr_t)status);
    close(d.notify_fd);
}

/* ---- asking it ---- */

struct answers {
    unsigned n_requests;
    int codes[REQUESTS_MAX];   /* 0: a result; -1: none came */
    char *texts[REQUESTS_MAX]; /* the results, as JSON; owned */
};

static void answers_free(struct answers *answers)
{
    for (unsigned i = 0; i < answers->n_requests; i++)
        free(answers->texts[i]);
}

static int dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

static int code_of(const struct message *message)
{
    struct {
        struct slice code;
    } error = {0};
    static const struct field fields[] = {{"code", FIELD_TEXT, FIELD_REQUIRED, 0, 0, 0}, {0}};
    char why[MESSAGE_WHY_SIZE];

    if (!message->error)
        return 0;
    CHECK(message_read(message, message->error, fields, MESSAGE_IGNORE_UNKNOWN, &error, why) == 0);
    return proto_code_of(error.code.data, error.code.size);
}

static void take_answer(struct answers *answers, struct slice frame)
{
    struct message message = {0};
    struct buf json = BUF_INIT;
    char why[MESSAGE_WHY_SIZE];
    bool answerable;

    CHECK(message_parse(&message, frame, &answerable, why) == 0);
    if (message.type == MESSAGE_RESPONSE) {
        CHECK(message.msgid < answers->n_requests && answers->codes[message.msgid] == -1);
        answers->codes[message.msgid] = code_of(&message);
        message_to_json(message.result, &json);
        buf_append(&json, "", 1);
        answers->texts[message.msgid] = json.data;
    } else {
        CHECK(message.type == MESSAGE_NOTIFICATION);
    }
    message_deinit(&message);
}

static bool all_came(const struct answers *answers)
{
    for (unsigned i = 0; i < answers->n_requests; i++)
        if (answers->codes[i] == -1)
            return false;
    return true;
}

/* Until all answers are there, or the connection is closed. */
static void read_answers(int fd, struct answers *answers)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    struct frame_scan scan = FRAME_SCAN_INIT;
    struct buf input = BUF_INIT;
    ssize_t n = 1;

    while (n > 0 && !all_came(answers)) {
        if (poll(&pollfd, 1, WAIT_MS) != 1)
            broken("no answer, and the connection is open");
        n = recv(fd, buf_reserve(&input, 65536), 65536, 0);
        buf_grow(&input, n > 0 ? (size_t)n : 0);
        while (frame_scan(&scan, input.data, input.size) == FRAME_WHOLE) {
            take_answer(answers, (struct slice){input.data, scan.offset});
            buf_drop(&input, scan.offset);
            scan = FRAME_SCAN_INIT;
        }
    }
    buf_deinit(&input);
}

/* One that is answered at all is answered whole. */
static void ask_http(struct answers *answers)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\n\r\n";
    struct buf answer = BUF_INIT;
    int fd = dial(d.metrics);
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    ssize_t n = 1;

    (void)send(fd, request, strlen(request), MSG_NOSIGNAL);
    while (n > 0) {
        if (poll(&pollfd, 1, WAIT_MS) != 1)
            broken("no answer to a scraper, and the connection is open");
        n = recv(fd, buf_reserve(&answer, 65536), 65536, 0);
        buf_grow(&answer, n > 0 ? (size_t)n : 0);
    }
    buf_append(&answer, "", 1);
    *answers = (struct answers){.n_requests = 1, .codes = {-1}, .texts = {answer.data}};
    if (strncmp(answer.data, "HTTP/1.1 200 ", 13) != 0)
        return;
    answers->codes[0] = 0;
    if (!strstr(answer.data, "\nsessiond_uid_bytes{") || answer.data[answer.size - 2] != '\n')
        broken("a scraper was told half: %.300s", answer.data);
}

static void ask(const struct operation *operation, struct answers *answers)
{
    struct buf frames = BUF_INIT;
    int fd;

    if (!operation->pack) {
        ask_http(answers);
        return;
    }
    fd = dial(d.socket);
    next_msgid = 0;
    operation->pack(&frames);
    CHECK(!frames.failed);
    *answers = (struct answers){.n_requests = next_msgid};
    for (unsigned i = 0; i < REQUESTS_MAX; i++)
        answers->codes[i] = -1;
    /* It may hang up before it has read all. */
    for (size_t sent = 0; sent < frames.size;) {
        ssize_t n = send(fd, frames.data + sent, frames.size - sent, MSG_NOSIGNAL);

        if (n < 0)
            break;
        sent += (size_t)n;
    }
    read_answers(fd, answers);
    close(fd);
    buf_deinit(&frames);
}

/* ---- what is expected ---- */

/* What an operation answers and leaves behind when nothing fails; shared by the processes of a sweep. */
struct expected {
    bool known;
    unsigned n_requests;
    int codes[REQUESTS_MAX];
    uint64_t answers; /* a hash of their texts */
    uint64_t histories;
    char directory[64]; /* of the attempt under way */
};

static struct expected *expected;

static uint64_t hash(uint64_t before, const char *text)
{
    for (; *text; text++)
        before = (before ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return before;
}

static void pack_histories(struct buf *frames)
{
    static const char *const sessions[][2] = {{"s", "default"}, {"large", "default"}, {"new", "another"}};

    for (size_t i = 0; i < N_ELEMENTS(sessions); i++) {
        begin(frames, "get_items", sessions[i][0], 2);
        pack_pair_bool(frames, "with_meta", true);
        pack_pair_text(frames, "store", slice_of(sessions[i][1]));
    }
}

/* In whatever order: of many requests some may be refused and others made, and then a repetition makes those that are
 * left as the last. */
static uint64_t hash_answers(const struct answers *answers)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < answers->n_requests; i++)
        sum += hash(0, answers->texts[i] ? answers->texts[i] : "-");
    return sum;
}

static uint64_t hash_histories(void)
{
    static const struct operation histories = {"the histories", pack_histories, false, false};
    struct answers answers;
    uint64_t sum;

    ask(&histories, &answers);
    for (unsigned i = 0; i < answers.n_requests; i++)
        if (answers.codes[i])
            broken("afterwards a read was told %s", proto_code_name(answers.codes[i]));
    sum = hash_answers(&answers);
    answers_free(&answers);
    return sum;
}

static bool is_excuse(int code)
{
    return code == -1 || code == SESSIOND_INTERNAL || code == SESSIOND_UNAVAILABLE || code == SESSIOND_UNCERTAIN ||
           code == SESSIOND_BUSY;
}

static void check_code(const struct operation *operation, unsigned i, int code)
{
    if (!is_excuse(code) && code != expected->codes[i])
        broken("without memory, %s was told %s", operation->name, proto_code_name(code));
}

/* While memory is missing: each answer is right, or an excuse. */
static void check_answers(const struct operation *operation, const struct answers *answers)
{
    for (unsigned i = 0; i < answers->n_requests; i++)
        check_code(operation, i, answers->codes[i]);
    if (answers->n_requests == 1 && answers->codes[0] == 0 && !operation->varies &&
        hash_answers(answers) != expected->answers)
        broken("without memory, %s was answered %.300s", operation->name, answers->texts[0]);
}

static bool has_excuses(const struct answers *answers)
{
    for (unsigned i = 0; i < answers->n_requests; i++)
        if (is_excuse(answers->codes[i]) && answers->codes[i] != expected->codes[i])
            return true;
    return false;
}

/* With memory: the same again must give what it gives without a failure, soon. */
static void check_repetition(const struct operation *operation)
{
    struct answers answers;
    bool right;

    for (int i = 0; i < WAIT_MS / 10; i++) {
        ask(operation, &answers);
        if (!has_excuses(&answers))
            break;
        answers_free(&answers);
        (void)poll(NULL, 0, 10);
    }
    right = operation->varies || hash_answers(&answers) == expected->answers;
    for (unsigned i = 0; i < answers.n_requests; i++)
        right &= answers.codes[i] == expected->codes[i];
    if (!right)
        broken("with memory again, %s was told %d: %.300s", operation->name, answers.codes[0], answers.texts[0]);
    answers_free(&answers);
    if (hash_histories() != expected->histories)
        broken("with memory again, %s left something else than it should", operation->name);
}

/* ---- files ---- */

static void make_scratch(char ret[64])
{
    (void)strcpy(ret, access("/dev/shm", W_OK) == 0 ? "/dev/shm/alloc-XXXXXX" : "/tmp/alloc-XXXXXX");
    CHECK(mkdtemp(ret));
}

static void store_path(char ret[256], const char *directory, const char *name, const char *file)
{
    char hex[64] = "";

    for (size_t i = 0; name[i]; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", (unsigned char)name[i]);
    (void)snprintf(ret, 256, "%s/state/u/%u/%s%s%s", directory, getuid(), hex, *file ? "/" : "", file);
}

static void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char *block = malloc(65536);
    ssize_t n;

    CHECK(in >= 0 && out >= 0 && block);
    while ((n = read(in, block, 65536)) > 0)
        CHECK(write(out, block, (size_t)n) == n);
    free(block);
    close(in);
    close(out);
}

/* The store as a killed daemon left it, and a backup to be read. */
static void copy_template(const char *template)
{
    static const char *const files[][2] = {
        {"items.db", "items.db"},
        {"items.db-wal", "items.db-wal"},
        {"items.head", "items.head"},
        {"items.head", "backup-0123456789abcdef0123456789abcdef.db"},
    };
    char from[256], to[256];

    store_path(to, d.directory, "default", "");
    CHECK(file_make_directory(to) == 0);
    for (size_t i = 0; i < N_ELEMENTS(files); i++) {
        store_path(from, template, "default", files[i][0]);
        store_path(to, d.directory, "default", files[i][1]);
        copy_file(from, to);
    }
}

/* In a process that ends as if it were killed. */
static void make_template(const char *directory)
{
    static const struct operation prepare = {"the preparation", pack_prepare, false, false};
    struct answers answers;
    pid_t pid = fork();
    int status;

    CHECK(pid >= 0);
    if (pid == 0) {
        failing_never();
        CHECK(freopen("/dev/null", "w", stderr));
        name_files(directory);
        daemon_begin();
        CHECK(daemon_is_ready());
        ask(&prepare, &answers);
        CHECK(answers.codes[0] == 0 && answers.codes[1] == 0);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status)
        broken("no template: status %d", status);
}

static void check_store(const char *name)
{
    char path[256], why[160];

    store_path(path, d.directory, name, "items.db");
    if (access(path, F_OK) == 0 && sqlite_verify(path, why, sizeof(why)))
        broken("the store %s: %s", name, why);
}

/* ---- one attempt ---- */

/* For the control runs: what is done to an attempt between its failure and the checks. */
static void spoil_nothing(void)
{
}

static void lose_memory(void)
{
    void *volatile lost = malloc(100);

    CHECK(lost);
    memset(lost, 1, 100);
    lost = NULL;
}

static void pack_another_add(struct buf *frames)
{
    begin(frames, "add_items", "s", 1);
    pack_items(frames, 1, 20);
}

static void change_more(void)
{
    static const struct operation more = {"another change", pack_another_add, false, false};
    struct answers answers;

    ask(&more, &answers);
    answers_free(&answers);
}

static void (*spoil)(void) = spoil_nothing;

struct sweep {
    const struct operation *operation; /* NULL: the start of the daemon */
    bool warm, lasts;
};

static void name_sweep(const struct sweep *sweep, char ret[128])
{
    (void)snprintf(ret, 128, "%s, %s, %s", sweep->operation ? sweep->operation->name : "start",
                   sweep->warm ? "warm" : "cold", sweep->lasts ? "for ever" : "once");
}

static int end_attempt(uint64_t failed)
{
    check_store("default");
    check_store("another");
    uv_library_shutdown();
    return failed ? EXIT_SUCCESS : UNTOUCHED;
}

static void remember(const struct answers *answers)
{
    expected->known = true;
    expected->n_requests = answers->n_requests;
    memcpy(expected->codes, answers->codes, sizeof(expected->codes));
    expected->answers = hash_answers(answers);
    expected->histories = hash_histories();
}

static int attempt_operation(const struct sweep *sweep, uint64_t n)
{
    static const struct operation warm_up = {"a read", pack_get, false, false};
    struct answers answers;
    uint64_t failed;

    daemon_begin();
    CHECK(daemon_is_ready());
    if (sweep->warm) {
        ask(&warm_up, &answers);
        CHECK(answers.codes[0] == 0);
        answers_free(&answers);
    }
    await_daemon_asleep();
    if (n)
        failing_arm(n, sweep->lasts);
    ask(sweep->operation, &answers);
    failed = failing_disarm();
    if (!expected->known)
        remember(&answers);
    check_answers(sweep->operation, &answers);
    answers_free(&answers);
    if (n)
        spoil();
    check_repetition(sweep->operation);
    daemon_end();
    return end_attempt(failed);
}

/* It starts, or says why not; then it can be started. Without a daemon that runs, leaks do not count: the process is at
 * its end. */
static int attempt_start(const struct sweep *sweep, uint64_t n)
{
    bool ready;

    failing_arm(n, sweep->lasts);
    daemon_begin();
    ready = daemon_is_ready();
    if (failing_disarm() == 0) {
        daemon_end();
        return end_attempt(0);
    }
    if (ready) {
        daemon_end();
        return end_attempt(1);
    }
    _exit(EXIT_SUCCESS);
}

static int attempt(const struct sweep *sweep, const char *template, uint64_t n)
{
    char log[80];
    int fd;

    failing_never();
    name_files(expected->directory);
    (void)snprintf(log, sizeof(log), "%s/log", d.directory);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
    copy_template(template);
    return sweep->operation ? attempt_operation(sweep, n) : attempt_start(sweep, n);
}

/* ---- sweeps ---- */

struct tally {
    unsigned runs;
    uint64_t last; /* N of the last run */
    unsigned gave_up;
    struct {
        char name[128];
        unsigned n;
    } libraries[N_LIBRARIES];
};

static void count_library(struct tally *tally, int report)
{
    char name[128];
    ssize_t size = read(report, name, sizeof(name) - 1);
    size_t i = 0;

    if (size <= 0)
        return;
    name[size - 1] = '\0';
    tally->gave_up++;
    while (i < N_LIBRARIES - 1 && tally->libraries[i].n && strcmp(tally->libraries[i].name, name) != 0)
        i++;
    (void)snprintf(tally->libraries[i].name, sizeof(tally->libraries[i].name), "%s", name);
    tally->libraries[i].n++;
}

static void show_log(void)
{
    char path[80], text[4096];
    FILE *log;
    size_t n;

    (void)snprintf(path, sizeof(path), "%s/log", expected->directory);
    log = fopen(path, "re");
    while (log && (n = fread(text, 1, sizeof(text), log)) > 0)
        (void)fwrite(text, 1, n, stdout);
    if (log)
        (void)fclose(log);
}

/* Return: the exit status of the attempt, 128 and more for a signal. */
static int run_attempt(const struct sweep *sweep, const char *template, uint64_t n, struct tally *tally)
{
    int status, report[2];
    pid_t pid;

    make_scratch(expected->directory);
    CHECK(pipe(report) == 0);
    (void)fflush(stdout);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        failing_report = report[1];
        exit(attempt(sweep, template, n));
    }
    close(report[1]);
    CHECK(waitpid(pid, &status, 0) == pid);
    count_library(tally, report[0]);
    close(report[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void report_failure(const struct sweep *sweep, uint64_t n, int status)
{
    char name[128];

    name_sweep(sweep, name);
    printf("BROKEN %s, N = %" PRIu64 ": %s, status %d\n", name, n,
           status == LEAKED ? "a sanitizer's report" : "it failed", status);
    show_log();
}

static void report_tally(const struct sweep *sweep, const struct tally *tally)
{
    char name[128], line[2048];
    int size;

    name_sweep(sweep, name);
    size = snprintf(line, sizeof(line), "%s: %u runs, up to N = %" PRIu64, name, tally->runs, tally->last);
    for (size_t i = 0; i < N_LIBRARIES && tally->libraries[i].n; i++)
        size += snprintf(line + size, sizeof(line) - (size_t)size, "; %u times %s gave up", tally->libraries[i].n,
                         tally->libraries[i].name);
    puts(line);
}

/* In a process of its own. Return: its exit status. */
static int run_sweep(const struct sweep *sweep, const char *template, uint64_t every)
{
    struct tally tally = {0};
    int status = EXIT_SUCCESS, broke = 0;

    if (sweep->operation && (status = run_attempt(sweep, template, 0, &tally)) != UNTOUCHED) {
        report_failure(sweep, 0, status);
        return EXIT_FAILURE;
    }
    remove_tree(expected->directory);
    for (uint64_t n = 1; broke < 3; n += every) {
        status = run_attempt(sweep, template, n, &tally);
        if (status != EXIT_SUCCESS && status != FAILING_LIBRARY_ABORTED && status != UNTOUCHED) {
            report_failure(sweep, n, status);
            broke++;
        }
        remove_tree(expected->directory);
        if (status == UNTOUCHED)
            break;
        tally.runs++;
        tally.last = n;
    }
    report_tally(sweep, &tally);
    return broke ? EXIT_FAILURE : EXIT_SUCCESS;
}

static bool reap_one(void)
{
    int status;

    CHECK(wait(&status) > 0);
    return status == 0;
}

/* At most so many at a time. Return: false if one has failed. */
static bool begin_sweep(const struct sweep *sweep, const char *template, uint64_t every, const char *only)
{
    static int n_running;
    char name[128];
    bool good = true;
    pid_t pid;

    if (!sweep) {
        while (n_running-- > 0)
            good &= reap_one();
        return good;
    }
    name_sweep(sweep, name);
    if (only && !strstr(name, only))
        return true;
    if (n_running == SWEEPS_AT_A_TIME)
        good = reap_one();
    else
        n_running++;
    (void)fflush(stdout);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        expected = mmap(NULL, sizeof(*expected), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(expected != MAP_FAILED);
        exit(run_sweep(sweep, template, every));
    }
    return good;
}

static bool sweep_all(const char *template, uint64_t every, const char *only)
{
    bool good = true;

    for (int lasts = 0; lasts < 2; lasts++) {
        if (!__interceptor_malloc) /* a sanitizer ends the process when a thread cannot begin */
            good &= begin_sweep(&(struct sweep){NULL, false, lasts}, template, every, only);
        for (int warm = 0; warm < 2; warm++)
            for (size_t i = 0; i < N_ELEMENTS(operations); i++)
                if (warm || operations[i].cold)
                    good &= begin_sweep(&(struct sweep){&operations[i], warm, lasts}, template, every, only);
    }
    return begin_sweep(NULL, NULL, 0, NULL) && good;
}

/* Return: false if nothing was found. */
static bool run_control(const char *template, const char *name)
{
    static const struct operation add = {"add_items", pack_add, false, false};
    const struct sweep sweep = {&add, true, false};
    bool leaks = strcmp(name, "leak") == 0;
    struct tally tally = {0};
    int status;

    if (leaks && !__interceptor_malloc) {
        puts("control: leaks are found in a sanitizer's build alone: NOT RUN");
        return true;
    }
    expected = mmap(NULL, sizeof(*expected), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(expected != MAP_FAILED);
    CHECK(run_attempt(&sweep, template, 0, &tally) == UNTOUCHED);
    remove_tree(expected->directory);
    spoil = leaks ? lose_memory : change_more;
    status = run_attempt(&sweep, template, 1, &tally);
    remove_tree(expected->directory);
    printf("control: %s ended with status %d%s\n",
           leaks ? "an attempt that loses memory" : "an attempt that changes more", status,
           status ? "" : ", and must not have ended well");
    return leaks ? status == LEAKED : status == EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *control = NULL;
    char template[64];
    uint64_t every = 1;
    bool good;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--every") == 0)
            every = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--control") == 0)
            control = argv[i + 1];
        else
            broken("usage: daemon [--every N] [--only NAME] | --control leak|change");
    }
    make_scratch(template);
    make_template(template);
    good = control ? run_control(template, control) : sweep_all(template, every ? every : 1, only);
    remove_tree(template);
    if (!control)
        printf("%s\n", good ? "every failure was survived" : "NOT every failure was survived");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
