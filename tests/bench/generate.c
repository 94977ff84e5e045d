/*
 * The load of the benchmark: a number of connections, one request in flight on each, for some seconds. The same loop,
 * the same items and the same clock for sessiond and for Redis; only how a request is packed and where an answer ends
 * differs, and that stands in two tables of functions. Every connection has a session of its own.
 *
 * Prints one line: requests, seconds, and the median, the 99th percentile and the worst of the times from the write of
 * a request to the end of its answer, in nanoseconds.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "frame.h"
#include "message.h"

enum {
    READ_SIZE = 256 * 1024,
    EVENTS_MAX = 256,
    KEY_SIZE = 36,
    PREPARE_BATCH = 100,
    FIXED_MSGID = 7, /* one request in flight, so all can have the same */
};

/* ---- what is asked ---- */

enum workload {
    WORKLOAD_GET,     /* all items of the session */
    WORKLOAD_ADD,     /* so many items at its end */
    WORKLOAD_PREPARE, /* the same, once on each connection and not timed */
};

static const char *const workload_names[] = {
    [WORKLOAD_GET] = "get", [WORKLOAD_ADD] = "add", [WORKLOAD_PREPARE] = "prepare"};

struct settings {
    const struct wire *wire;
    const char *socket;
    const char *prefix; /* of the sessions */
    enum workload workload;
    size_t clients;
    size_t items; /* in a request, or in a history */
    size_t bytes; /* of each */
    double seconds;
    bool keys; /* name every change, as the client libraries do */
};

/* How far an answer has been looked at. */
struct answer {
    size_t offset;
    size_t parts_left; /* Redis: elements of the array */
    bool begun;
    struct frame_scan scan; /* sessiond */
    size_t first_size;      /* of the first answer on this connection, which was looked into; 0: none yet */
};

struct wire {
    const char *name;
    void (*pack_get)(struct buf *request, const char *session);
    void (*pack_add)(struct buf *request, const char *session, struct slice item, size_t n, const char *key);
    /* Return: whether all of the answer is there; its size is answer->offset then. Ends the program on a wrong one. */
    bool (*is_whole)(struct answer *answer, const struct settings *settings, const char *data, size_t size);
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("generate: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

/* One JSON object of exactly so many bytes. */
static struct slice make_item(size_t size)
{
    static const char head[] = "{\"role\":\"user\",\"content\":\"", tail[] = "\"}";
    size_t frame = sizeof(head) - 1 + sizeof(tail) - 1;
    char *item = malloc(size);

    if (!item || size < frame)
        die("items have at least %zu bytes", frame);
    memset(item, 'x', size);
    memcpy(item, head, sizeof(head) - 1);
    memcpy(item + size - (sizeof(tail) - 1), tail, sizeof(tail) - 1);
    return (struct slice){item, size};
}

/* ---- sessiond ---- */

static void sessiond_pack_get(struct buf *request, const char *session)
{
    pack_request(request, FIXED_MSGID, "get_items");
    pack_map(request, 1);
    pack_pair_text(request, "session", slice_of(session));
}

static void sessiond_pack_add(struct buf *request, const char *session, struct slice item, size_t n, const char *key)
{
    pack_request(request, FIXED_MSGID, "add_items");
    pack_map(request, key ? 3 : 2);
    pack_pair_text(request, "session", slice_of(session));
    pack_text(request, slice_of("items"));
    pack_array(request, n);
    for (size_t i = 0; i < n; i++)
        pack_text(request, item);
    if (key)
        pack_pair_text(request, "key", slice_of(key));
}

/* The first answer of a connection is parsed; it must have the items that were prepared. */
static void sessiond_look_into(const struct settings *settings, const char *data, size_t size)
{
    struct {
        struct text_list items;
        bool more;
    } got = {0};
    static const struct field fields[] = {
        {"items", FIELD_TEXT_LIST, 0, 0, 0, 0},
        {"more", FIELD_BOOL, 0, offsetof(__typeof__(got), more), 0, 0},
        {0},
    };
    struct message message;
    char why[MESSAGE_WHY_SIZE] = "";
    bool answerable;

    if (message_parse(&message, (struct slice){data, size}, &answerable, why) || message.type != MESSAGE_RESPONSE ||
        message.error || message_read(&message, message.result, fields, MESSAGE_IGNORE_UNKNOWN, &got, why))
        die("sessiond gave a wrong answer of %zu bytes: %s", size, why);
    if (settings->workload == WORKLOAD_GET && (got.items.n != settings->items || got.more))
        die("sessiond gave %zu items and not %zu", got.items.n, settings->items);
    message_deinit(&message);
}

static bool sessiond_is_whole(struct answer *answer, const struct settings *settings, const char *data, size_t size)
{
    static const char good[] = {(char)0x94, MESSAGE_RESPONSE, FIXED_MSGID, (char)0xc0};

    switch (frame_scan(&answer->scan, data, size)) {
    case FRAME_PARTIAL:
        return false;
    case FRAME_WHOLE:
        break;
    case FRAME_INVALID:
    case FRAME_TOO_LARGE:
        die("sessiond gave no MessagePack: %s", answer->scan.why);
    }
    answer->offset = answer->scan.offset;
    if (!answer->first_size)
        sessiond_look_into(settings, data, answer->offset);
    if (answer->offset < sizeof(good) || memcmp(data, good, sizeof(good)) != 0)
        die("sessiond refused a request");
    if (settings->workload == WORKLOAD_GET && answer->first_size && answer->offset != answer->first_size)
        die("sessiond gave %zu bytes after %zu", answer->offset, answer->first_size);
    return true;
}

/* ---- Redis ---- */

static void redis_pack_word(struct buf *request, struct slice word)
{
    char head[32];
    int size = snprintf(head, sizeof(head), "$%zu\r\n", word.size);

    buf_append(request, head, (size_t)size);
    buf_append(request, word.data, word.size);
    buf_append(request, "\r\n", 2);
}

static void redis_pack_command(struct buf *request, size_t words, const char *command, const char *session)
{
    char head[32];
    int size = snprintf(head, sizeof(head), "*%zu\r\n", words);

    buf_append(request, head, (size_t)size);
    redis_pack_word(request, slice_of(command));
    redis_pack_word(request, slice_of(session));
}

static void redis_pack_get(struct buf *request, const char *session)
{
    redis_pack_command(request, 4, "LRANGE", session);
    redis_pack_word(request, slice_of("0"));
    redis_pack_word(request, slice_of("-1"));
}

static void redis_pack_add(struct buf *request, const char *session, struct slice item, size_t n, const char *key)
{
    if (key)
        die("Redis knows no keys for changes");
    redis_pack_command(request, 2 + n, "RPUSH", session);
    for (size_t i = 0; i < n; i++)
        redis_pack_word(request, item);
}

/* Reads a line that begins with one of the marks, and the number in it. Return: whether it is all there. */
static bool redis_line(struct answer *answer, const char *data, size_t size, const char *marks, size_t *ret)
{
    const char *line = data + answer->offset, *end = memchr(line, '\n', size - answer->offset);

    if (!end)
        return false;
    if (!memchr(marks, *line, strlen(marks)))
        die("Redis said %.*s", (int)(end - line), line);
    *ret = strtoull(line + 1, NULL, 10);
    answer->offset = (size_t)(end - data) + 1;
    return true;
}

static bool redis_is_whole(struct answer *answer, const struct settings *settings, const char *data, size_t size)
{
    bool get = settings->workload == WORKLOAD_GET;
    size_t number, before;

    if (!answer->begun) {
        if (!redis_line(answer, data, size, get ? "*" : ":", &number))
            return false;
        answer->begun = true;
        answer->parts_left = get ? number : 0;
        if (get && number != settings->items)
            die("Redis gave %zu items and not %zu", number, settings->items);
    }
    for (; answer->parts_left > 0; answer->parts_left--) {
        before = answer->offset;
        if (!redis_line(answer, data, size, "$", &number) || size - answer->offset < number + 2) {
            answer->offset = before;
            return false;
        }
        answer->offset += number + 2;
    }
    return true;
}

static const struct wire wires[] = {
    {"sessiond", sessiond_pack_get, sessiond_pack_add, sessiond_is_whole},
    {"redis", redis_pack_get, redis_pack_add, redis_is_whole},
};

/* ---- a connection ---- */

struct connection {
    int fd;
    struct buf request; /* the bytes of every request; the key in it changes */
    char *key;          /* in the request; NULL: it has none */
    size_t written;
    struct buf input;
    struct answer answer;
    uint64_t begun_ns;
    size_t to_do; /* requests, where their number is fixed */
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void connection_open(struct connection *connection, const struct settings *settings)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(settings->socket) >= sizeof(address.sun_path))
        die("the path of the socket is too long");
    (void)strcpy(address.sun_path, settings->socket);
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("%s: %s", settings->socket, strerror(errno));
}

static void connection_pack(struct connection *connection, const struct settings *settings, size_t number,
                            struct slice item)
{
    static const char blank_key[KEY_SIZE + 1] = "the key of a change: it comes later.";
    char session[128];
    size_t n = settings->workload == WORKLOAD_PREPARE ? PREPARE_BATCH : settings->items;

    (void)snprintf(session, sizeof(session), "%s-%zu", settings->prefix, number);
    if (settings->workload == WORKLOAD_GET)
        settings->wire->pack_get(&connection->request, session);
    else
        settings->wire->pack_add(&connection->request, session, item, n, settings->keys ? blank_key : NULL);
    if (connection->request.failed)
        die("no memory");
    if (settings->keys)
        connection->key = memmem(connection->request.data, connection->request.size, blank_key, KEY_SIZE);
    connection->to_do = settings->workload == WORKLOAD_PREPARE ? settings->items / PREPARE_BATCH : SIZE_MAX;
}

/* Keys as the client libraries make them: the time first, then what no other has. */
static void connection_name_change(struct connection *connection)
{
    char key[KEY_SIZE + 1];

    (void)snprintf(key, sizeof(key), "%016" PRIx64 "%08x%012x", now_ns(), (unsigned)connection->fd, (unsigned)getpid());
    memcpy(connection->key, key, KEY_SIZE);
}

static void watch(int epoll, struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};

    if (epoll_ctl(epoll, operation, connection->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

/* Writes what is left of the request; where the socket is full, the rest goes when it is not. */
static void connection_write(struct connection *connection, int epoll, bool was_waiting)
{
    struct buf *request = &connection->request;
    ssize_t n = send(connection->fd, request->data + connection->written, request->size - connection->written,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    bool waits;

    if (n < 0 && errno != EAGAIN)
        die("write: %s", strerror(errno));
    connection->written += n < 0 ? 0 : (size_t)n;
    waits = connection->written < request->size;
    if (waits != was_waiting)
        watch(epoll, connection, EPOLL_CTL_MOD, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void connection_ask(struct connection *connection, int epoll)
{
    if (connection->key)
        connection_name_change(connection);
    connection->written = 0;
    connection->answer = (struct answer){.first_size = connection->answer.first_size};
    connection->begun_ns = now_ns();
    connection_write(connection, epoll, false);
}

/* Return: whether the answer is whole. */
static bool connection_read(struct connection *connection, const struct settings *settings)
{
    struct buf *input = &connection->input;
    char *into = buf_reserve(input, READ_SIZE);
    ssize_t n;

    if (!into)
        die("no memory");
    n = recv(connection->fd, into, READ_SIZE, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        die("the connection ended: %s", n < 0 ? strerror(errno) : "closed");
    buf_grow(input, (size_t)n);
    if (!settings->wire->is_whole(&connection->answer, settings, input->data, input->size))
        return false;
    if (connection->answer.offset != input->size)
        die("more came than was asked for");
    connection->answer.first_size = connection->answer.offset;
    buf_drop(input, input->size);
    return true;
}

/* ---- the run ---- */

struct samples {
    uint64_t *ns;
    size_t n, capacity;
};

static void sample(struct samples *samples, uint64_t ns)
{
    if (samples->n == samples->capacity) {
        samples->capacity = samples->capacity ? 2 * samples->capacity : 65536;
        samples->ns = realloc(samples->ns, samples->capacity * sizeof(*samples->ns));
        if (!samples->ns)
            die("no memory");
    }
    samples->ns[samples->n++] = ns;
}

static int compare_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void report(struct samples *samples, double seconds)
{
    if (samples->n == 0)
        die("nothing was answered in time");
    qsort(samples->ns, samples->n, sizeof(*samples->ns), compare_ns);
    (void)printf("%zu %.6f %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", samples->n, seconds, samples->ns[samples->n / 2],
                 samples->ns[samples->n * 99 / 100], samples->ns[samples->n - 1]);
}

/* Asks on all connections until the time is over or nothing is to do. A tenth of the time is for warming up; what is
 * asked then is not counted. */
static void run(const struct settings *settings, struct connection *connections, int epoll)
{
    uint64_t length = (uint64_t)(settings->seconds * 1e9), start = now_ns() + length / 10, end = start + length, now;
    struct epoll_event events[EVENTS_MAX];
    struct samples samples = {0};
    size_t n_busy = settings->clients;

    for (size_t i = 0; i < settings->clients; i++)
        connection_ask(&connections[i], epoll);
    while (n_busy > 0) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);

        for (int i = 0; i < n; i++) {
            struct connection *connection = events[i].data.ptr;

            if (events[i].events & EPOLLOUT)
                connection_write(connection, epoll, true);
            if (!(events[i].events & ~(uint32_t)EPOLLOUT) || !connection_read(connection, settings))
                continue;
            now = now_ns();
            if (connection->begun_ns >= start)
                sample(&samples, now - connection->begun_ns);
            if (--connection->to_do > 0 && (now < end || settings->workload == WORKLOAD_PREPARE))
                connection_ask(connection, epoll);
            else
                n_busy--;
        }
    }
    if (settings->workload != WORKLOAD_PREPARE)
        report(&samples, (double)(now_ns() - start) / 1e9);
    free(samples.ns);
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: generate --wire sessiond|redis --socket PATH --workload get|add|prepare --prefix NAME\n"
    "                [--clients N] [--items N] [--bytes N] [--seconds N] [--keys]\n"
    "\n"
    "  prepare makes histories of --items items (a multiple of 100) for get.\n";

static const struct option options[] = {
    {"wire", required_argument, NULL, 'w'},    {"socket", required_argument, NULL, 's'},
    {"prefix", required_argument, NULL, 'p'},  {"workload", required_argument, NULL, 'l'},
    {"clients", required_argument, NULL, 'c'}, {"items", required_argument, NULL, 'i'},
    {"bytes", required_argument, NULL, 'b'},   {"seconds", required_argument, NULL, 't'},
    {"keys", no_argument, NULL, 'k'},          {0},
};

static const struct wire *find_wire(const char *name)
{
    for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++)
        if (strcmp(wires[i].name, name) == 0)
            return &wires[i];
    die("%s", usage);
}

static enum workload find_workload(const char *name)
{
    for (size_t i = 0; i < sizeof(workload_names) / sizeof(workload_names[0]); i++)
        if (strcmp(workload_names[i], name) == 0)
            return (enum workload)i;
    die("%s", usage);
}

static void read_options(struct settings *settings, int argc, char **argv)
{
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'w':
            settings->wire = find_wire(optarg);
            break;
        case 's':
            settings->socket = optarg;
            break;
        case 'p':
            settings->prefix = optarg;
            break;
        case 'l':
            settings->workload = find_workload(optarg);
            break;
        case 'c':
            settings->clients = strtoul(optarg, NULL, 10);
            break;
        case 'i':
            settings->items = strtoul(optarg, NULL, 10);
            break;
        case 'b':
            settings->bytes = strtoul(optarg, NULL, 10);
            break;
        case 't':
            settings->seconds = strtod(optarg, NULL);
            break;
        case 'k':
            settings->keys = true;
            break;
        default:
            die("%s", usage);
        }
    if (!settings->wire || !settings->socket || !settings->prefix || !settings->clients || optind < argc ||
        (settings->workload == WORKLOAD_PREPARE && (!settings->items || settings->items % PREPARE_BATCH)))
        die("%s", usage);
}

int main(int argc, char **argv)
{
    struct settings settings = {.clients = 1, .items = 1, .bytes = 500, .seconds = 1};
    struct connection *connections;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct slice item;

    read_options(&settings, argc, argv);
    item = make_item(settings.bytes);
    connections = calloc(settings.clients, sizeof(*connections));
    if (!connections || epoll < 0)
        die("no memory");
    for (size_t i = 0; i < settings.clients; i++) {
        connection_open(&connections[i], &settings);
        connection_pack(&connections[i], &settings, i, item);
        watch(epoll, &connections[i], EPOLL_CTL_ADD, EPOLLIN);
    }
    run(&settings, connections, epoll);
    for (size_t i = 0; i < settings.clients; i++) {
        close(connections[i].fd);
        buf_deinit(&connections[i].request);
        buf_deinit(&connections[i].input);
    }
    free(connections);
    free((char *)item.data);
    close(epoll);
    return EXIT_SUCCESS;
}
