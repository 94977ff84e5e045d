/*
 * The load of the benchmark: a number of connections, one request in flight on each, for some seconds or for so many
 * requests. The same loop, the same items and the same clock for sessiond, for Redis and for the bare servers of
 * limit.c; only how a request is packed and where an answer ends differs, and that stands in tables of functions.
 *
 * Prints one JSON object: the requests that were counted, and all that were made with those of the warming up; seconds;
 * and the median, the 99th percentile and the worst of the times from the write of a request to the end of its answer.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
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
    FIXED_MSGID = 7, /* one request in flight, so all can have the same */
    PLAIN_HEAD = 8,
    NUMBERS_VARY = 16, /* bytes by which answers with the same items differ: less than an item has */
};

/* ---- what is asked ---- */

enum workload {
    WORKLOAD_GET,     /* the history of the session, or its last items */
    WORKLOAD_ADD,     /* so many items at its end */
    WORKLOAD_SCAN,    /* a long history from one end to the other, page by page, again and again */
    WORKLOAD_MIX,     /* every other connection scans, the others add */
    WORKLOAD_PREPARE, /* histories of so many items, made once */
    WORKLOAD_IDLE,    /* one get on each connection, which then stays until standard input ends */
};

static const char *const workload_names[] = {
    [WORKLOAD_GET] = "get", [WORKLOAD_ADD] = "add",         [WORKLOAD_SCAN] = "scan",
    [WORKLOAD_MIX] = "mix", [WORKLOAD_PREPARE] = "prepare", [WORKLOAD_IDLE] = "idle",
};

struct settings {
    const struct wire *wire;
    const char *socket;
    const char *store;  /* NULL: the default one */
    const char *prefix; /* of the sessions */
    enum workload workload;
    size_t clients;
    size_t sessions; /* over which the requests are spread; 0: one for each connection */
    size_t items;    /* in a request to add, in an answer, or in a history that is made */
    size_t bytes;    /* of each */
    size_t history;  /* items of the session that is scanned */
    size_t batch;    /* items in one request that makes a history */
    size_t requests; /* on each connection; 0: as many as the time allows */
    double seconds;
    bool last; /* ask for the last items only: the history is longer */
    bool keys; /* name every change, as the client libraries do */
    struct slice item;
};

/* One request. */
struct ask {
    enum workload workload; /* get, add or scan */
    char session[128];
    size_t n;               /* items to add, or that the answer has */
    size_t after;           /* scan: items before the page */
    char key[KEY_SIZE + 1]; /* empty: none */
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
    void (*pack)(struct buf *request, const struct settings *settings, const struct ask *ask);
    /* Return: whether all of the answer is there; its size is answer->offset then. Ends the program on a wrong one. */
    bool (*is_whole)(struct answer *answer, const struct ask *ask, const char *data, size_t size);
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

static void sessiond_pack_items(struct buf *request, const struct settings *settings, const struct ask *ask)
{
    pack_text(request, slice_of("items"));
    pack_array(request, ask->n);
    for (size_t i = 0; i < ask->n; i++)
        pack_text(request, settings->item);
}

static void sessiond_pack(struct buf *request, const struct settings *settings, const struct ask *ask)
{
    bool add = ask->workload == WORKLOAD_ADD, scan = ask->workload == WORKLOAD_SCAN;
    bool limit = scan || (!add && settings->last);

    pack_request(request, FIXED_MSGID, add ? "add_items" : "get_items");
    pack_map(request, (size_t)1 + (settings->store ? 1 : 0) + add + (*ask->key ? 1 : 0) + limit + scan);
    pack_pair_text(request, "session", slice_of(ask->session));
    if (settings->store)
        pack_pair_text(request, "store", slice_of(settings->store));
    if (add)
        sessiond_pack_items(request, settings, ask);
    if (*ask->key)
        pack_pair_text(request, "key", slice_of(ask->key));
    if (limit)
        pack_pair_number(request, "limit", ask->n);
    if (scan)
        pack_pair_number(request, "after", ask->after);
}

/* The first answer of a connection is parsed; it must have the items that were prepared. */
static void sessiond_look_into(const struct ask *ask, const char *data, size_t size)
{
    struct {
        struct text_list items;
    } got = {0};
    static const struct field fields[] = {{"items", FIELD_TEXT_LIST, 0, 0, 0, 0}, {0}};
    struct message message;
    char why[MESSAGE_WHY_SIZE] = "";
    bool answerable;

    if (message_parse(&message, (struct slice){data, size}, &answerable, why) || message.type != MESSAGE_RESPONSE ||
        message.error || message_read(&message, message.result, fields, MESSAGE_IGNORE_UNKNOWN, &got, why))
        die("sessiond gave a wrong answer of %zu bytes: %s", size, why);
    if (ask->workload != WORKLOAD_ADD && got.items.n != ask->n)
        die("sessiond gave %zu items and not %zu", got.items.n, ask->n);
    message_deinit(&message);
}

static bool sessiond_is_whole(struct answer *answer, const struct ask *ask, const char *data, size_t size)
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
        sessiond_look_into(ask, data, answer->offset);
    if (answer->offset < sizeof(good) || memcmp(data, good, sizeof(good)) != 0)
        die("sessiond refused a request");
    if (ask->workload == WORKLOAD_GET && answer->first_size &&
        labs((long)answer->offset - (long)answer->first_size) > NUMBERS_VARY)
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

static void redis_pack_number(struct buf *request, long long number)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%lld", number);
    redis_pack_word(request, slice_of(text));
}

static void redis_pack(struct buf *request, const struct settings *settings, const struct ask *ask)
{
    bool add = ask->workload == WORKLOAD_ADD;
    long long from = (long long)ask->after, to = -1;
    char head[32];

    if (*ask->key)
        die("Redis knows no keys for changes");
    buf_append(request, head, (size_t)snprintf(head, sizeof(head), "*%zu\r\n", 2 + (add ? ask->n : 2)));
    redis_pack_word(request, slice_of(add ? "RPUSH" : "LRANGE"));
    redis_pack_word(request, slice_of(ask->session));
    for (size_t i = 0; add && i < ask->n; i++)
        redis_pack_word(request, settings->item);
    if (add)
        return;
    if (ask->workload == WORKLOAD_SCAN)
        to = from + (long long)ask->n - 1;
    else if (settings->last)
        from = -(long long)ask->n;
    redis_pack_number(request, from);
    redis_pack_number(request, to);
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

static bool redis_is_whole(struct answer *answer, const struct ask *ask, const char *data, size_t size)
{
    bool get = ask->workload != WORKLOAD_ADD;
    size_t number, before;

    if (!answer->begun) {
        if (!redis_line(answer, data, size, get ? "*" : ":", &number))
            return false;
        answer->begun = true;
        answer->parts_left = get ? number : 0;
        if (get && number != ask->n)
            die("Redis gave %zu items and not %zu", number, ask->n);
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

/* ---- the bare servers of limit.c ---- */

/* How many bytes follow, and how many are wanted back; then they follow. An answer has as many bytes as one of sessiond
 * to the same request. */
static size_t plain_answer_size(const struct settings *settings, const struct ask *ask)
{
    enum { OF_ADD = 43, OF_GET = 68, OF_ITEM = 3 };

    return ask->workload == WORKLOAD_ADD ? OF_ADD : OF_GET + ask->n * (settings->bytes + OF_ITEM);
}

static void plain_pack(struct buf *request, const struct settings *settings, const struct ask *ask)
{
    size_t n = ask->workload == WORKLOAD_ADD ? ask->n : 0;
    uint32_t head[2] = {(uint32_t)(strlen(ask->session) + n * settings->item.size),
                        (uint32_t)plain_answer_size(settings, ask)};

    _Static_assert(sizeof(head) == PLAIN_HEAD, "as limit.c reads it");
    buf_append(request, head, sizeof(head));
    buf_append(request, ask->session, strlen(ask->session));
    for (size_t i = 0; i < n; i++)
        buf_append(request, settings->item.data, settings->item.size);
}

/* It begins with its own size. */
static bool plain_is_whole(struct answer *answer, const struct ask *ask, const char *data, size_t size)
{
    uint32_t whole;

    (void)ask;
    if (size < sizeof(whole))
        return false;
    memcpy(&whole, data, sizeof(whole));
    answer->offset = whole;
    return size >= whole;
}

static const struct wire wires[] = {
    {"sessiond", sessiond_pack, sessiond_is_whole},
    {"redis", redis_pack, redis_is_whole},
    {"plain", plain_pack, plain_is_whole},
};

/* ---- a connection ---- */

struct connection {
    int fd;
    size_t number;
    struct ask ask;
    size_t session;     /* the number of the session that is asked for */
    size_t left;        /* prepare: items that this session still gets */
    struct buf request; /* the bytes of the ask */
    size_t written;
    struct buf input;
    struct answer answer;
    uint64_t begun_ns;
    size_t asked;
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

/* ---- what a connection asks next ---- */

static uint64_t random_number(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Keys as the client libraries make them: the time first, then what no other has. */
static void name_change(struct connection *connection)
{
    (void)snprintf(connection->ask.key, sizeof(connection->ask.key), "%016" PRIx64 "%08x%012x", now_ns(),
                   (unsigned)connection->fd, (unsigned)getpid());
}

static bool next_get_or_add(struct connection *connection, const struct settings *settings)
{
    if (settings->sessions > settings->clients)
        connection->session = random_number() % settings->sessions;
    else
        connection->session = settings->sessions ? connection->number % settings->sessions : connection->number;
    connection->ask.n = settings->items;
    return !settings->requests || connection->asked < settings->requests;
}

static bool next_scan(struct connection *connection, const struct settings *settings)
{
    connection->session = 0;
    connection->ask.n = settings->items;
    connection->ask.after += connection->asked ? settings->items : 0;
    if (connection->ask.after + settings->items > settings->history)
        connection->ask.after = 0;
    return true;
}

/* Connection i makes the sessions i, i + clients and so on, one after the other. */
static bool next_prepare(struct connection *connection, const struct settings *settings)
{
    size_t sessions = settings->sessions ? settings->sessions : settings->clients;

    if (!connection->asked)
        connection->session = connection->number;
    else if (!connection->left)
        connection->session += settings->clients;
    if (!connection->left)
        connection->left = settings->items;
    connection->ask.n = connection->left < settings->batch ? connection->left : settings->batch;
    connection->left -= connection->ask.n;
    return connection->session < sessions;
}

/* How each workload goes on. As long as `varies` says no, the bytes of a request are those of the one before. */
static const struct {
    enum workload as;
    bool (*next)(struct connection *connection, const struct settings *settings);
} courses[] = {
    [WORKLOAD_GET] = {WORKLOAD_GET, next_get_or_add},  [WORKLOAD_ADD] = {WORKLOAD_ADD, next_get_or_add},
    [WORKLOAD_SCAN] = {WORKLOAD_SCAN, next_scan},      [WORKLOAD_PREPARE] = {WORKLOAD_ADD, next_prepare},
    [WORKLOAD_IDLE] = {WORKLOAD_GET, next_get_or_add},
};

static enum workload course_of(const struct connection *connection, const struct settings *settings)
{
    if (settings->workload != WORKLOAD_MIX)
        return settings->workload;
    return connection->number % 2 ? WORKLOAD_ADD : WORKLOAD_SCAN;
}

static bool varies(enum workload course, const struct settings *settings)
{
    return settings->keys || settings->sessions > settings->clients || course == WORKLOAD_SCAN ||
           course == WORKLOAD_PREPARE;
}

/* Return: whether there is more to ask. */
static bool connection_pack(struct connection *connection, const struct settings *settings)
{
    enum workload course = course_of(connection, settings);
    struct ask *ask = &connection->ask;

    if (!courses[course].next(connection, settings))
        return false;
    if (connection->asked && !varies(course, settings))
        return true;
    ask->workload = courses[course].as;
    (void)snprintf(ask->session, sizeof(ask->session), "%s-%08zu", settings->prefix, connection->session);
    if (settings->keys && ask->workload == WORKLOAD_ADD)
        name_change(connection);
    buf_drop(&connection->request, connection->request.size);
    settings->wire->pack(&connection->request, settings, ask);
    if (connection->request.failed)
        die("no memory");
    return true;
}

/* ---- asking and reading ---- */

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

/* Return: whether there was more to ask. */
static bool connection_ask(struct connection *connection, const struct settings *settings, int epoll)
{
    if (!connection_pack(connection, settings))
        return false;
    connection->asked++;
    connection->written = 0;
    connection->answer = (struct answer){.first_size = connection->answer.first_size};
    connection->begun_ns = now_ns();
    connection_write(connection, epoll, false);
    return true;
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
    if (!settings->wire->is_whole(&connection->answer, &connection->ask, input->data, input->size))
        return false;
    if (connection->answer.offset != input->size)
        die("more came than was asked for");
    connection->answer.first_size = connection->answer.offset;
    if (settings->workload == WORKLOAD_IDLE)
        buf_deinit(input);
    else
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

static void report(struct samples *samples, size_t all, double seconds)
{
    if (samples->n == 0)
        die("nothing was answered in time");
    qsort(samples->ns, samples->n, sizeof(*samples->ns), compare_ns);
    (void)printf("{\"requests\": %zu, \"all\": %zu, \"seconds\": %.6f, \"median_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64
                 ", \"worst_ns\": %" PRIu64 "}\n",
                 samples->n, all, seconds, samples->ns[samples->n / 2], samples->ns[samples->n * 99 / 100],
                 samples->ns[samples->n - 1]);
    (void)fflush(stdout);
}

/* What goes on while a run does. */
struct run {
    const struct settings *settings;
    struct samples samples;
    uint64_t start, end; /* what is asked before the start is not counted */
    size_t n_busy, n_answers;
    int epoll;
};

static void on_event(struct run *run, struct connection *connection, uint32_t events)
{
    uint64_t now;

    if (events & EPOLLOUT)
        connection_write(connection, run->epoll, true);
    if (!(events & ~(uint32_t)EPOLLOUT) || !connection_read(connection, run->settings))
        return;
    now = now_ns();
    run->n_answers++;
    if (connection->begun_ns >= run->start)
        sample(&run->samples, now - connection->begun_ns);
    if (now >= run->end || !connection_ask(connection, run->settings, run->epoll))
        run->n_busy--;
}

/* Asks on all connections until the time is over or nothing is to do. A tenth of the time is for warming up; where the
 * number of requests is given there is no time and nothing to warm. */
static void run(const struct settings *settings, struct connection *connections, int epoll)
{
    bool by_number = settings->requests || settings->workload == WORKLOAD_PREPARE;
    uint64_t length = (uint64_t)(settings->seconds * 1e9), now = now_ns();
    struct run run = {.settings = settings, .epoll = epoll, .start = by_number ? now : now + length / 10};
    struct epoll_event events[EVENTS_MAX];

    run.end = by_number ? UINT64_MAX : run.start + length;
    for (size_t i = 0; i < settings->clients; i++)
        run.n_busy += connection_ask(&connections[i], settings, epoll);
    while (run.n_busy > 0) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);

        for (int i = 0; i < n; i++)
            on_event(&run, events[i].data.ptr, events[i].events);
    }
    report(&run.samples, run.n_answers, (double)(now_ns() - run.start) / 1e9);
    free(run.samples.ns);
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: generate --wire sessiond|redis|plain --socket PATH --workload get|add|scan|mix|prepare|idle --prefix NAME\n"
    "                [--store NAME] [--clients N] [--sessions N] [--items N] [--bytes N] [--history N] [--batch N]\n"
    "                [--seconds N | --requests N] [--last] [--keys]\n"
    "\n"
    "  --sessions   over which the requests are spread, at random if there are more than clients; 0: one each\n"
    "  --items      in a request to add, in an answer, or, with prepare, in each history, made --batch at a time\n"
    "  --history    items of the session that is scanned; scan needs --items to divide it\n"
    "  --requests   on each connection, instead of some seconds\n"
    "  --last       the history is longer: ask for its last items\n"
    "  --keys       name every change\n";

#define NUMBER(name, letter)                                                                                           \
    {                                                                                                                  \
        name, required_argument, NULL, letter                                                                          \
    }

static const struct option options[] = {
    NUMBER("wire", 'w'),
    NUMBER("socket", 's'),
    NUMBER("prefix", 'p'),
    NUMBER("workload", 'l'),
    NUMBER("clients", 'c'),
    NUMBER("items", 'i'),
    NUMBER("bytes", 'b'),
    NUMBER("seconds", 't'),
    NUMBER("sessions", 'n'),
    NUMBER("history", 'h'),
    NUMBER("batch", 'B'),
    NUMBER("requests", 'r'),
    NUMBER("store", 'S'),
    {"last", no_argument, NULL, 'L'},
    {"keys", no_argument, NULL, 'k'},
    {0},
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

/* Where the number that an option names goes; NULL: it names none. */
static size_t *number_of(struct settings *settings, int option)
{
    switch (option) {
    case 'c':
        return &settings->clients;
    case 'i':
        return &settings->items;
    case 'b':
        return &settings->bytes;
    case 'n':
        return &settings->sessions;
    case 'h':
        return &settings->history;
    case 'B':
        return &settings->batch;
    case 'r':
        return &settings->requests;
    default:
        return NULL;
    }
}

static void read_option(struct settings *settings, int option)
{
    size_t *number = number_of(settings, option);

    if (number)
        *number = strtoul(optarg, NULL, 10);
    else if (option == 'w')
        settings->wire = find_wire(optarg);
    else if (option == 's')
        settings->socket = optarg;
    else if (option == 'S')
        settings->store = optarg;
    else if (option == 'p')
        settings->prefix = optarg;
    else if (option == 'l')
        settings->workload = find_workload(optarg);
    else if (option == 't')
        settings->seconds = strtod(optarg, NULL);
    else if (option == 'L')
        settings->last = true;
    else if (option == 'k')
        settings->keys = true;
    else
        die("%s", usage);
}

static void read_options(struct settings *settings, int argc, char **argv)
{
    bool scans;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        read_option(settings, option);
    scans = settings->workload == WORKLOAD_SCAN || settings->workload == WORKLOAD_MIX;
    if (!settings->wire || !settings->socket || !settings->prefix || !settings->clients || optind < argc ||
        !settings->batch || (scans && (!settings->items || settings->history % settings->items)))
        die("%s", usage);
    settings->item = make_item(settings->bytes);
    if (settings->workload == WORKLOAD_IDLE)
        settings->requests = 1;
}

/* As many descriptors as we may have. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct settings settings = {.clients = 1, .items = 1, .bytes = 500, .batch = 100, .seconds = 1};
    struct connection *connections;
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    read_options(&settings, argc, argv);
    raise_limit();
    connections = calloc(settings.clients, sizeof(*connections));
    if (!connections || epoll < 0)
        die("no memory");
    for (size_t i = 0; i < settings.clients; i++) {
        connections[i].number = i;
        connection_open(&connections[i], &settings);
        watch(epoll, &connections[i], EPOLL_CTL_ADD, EPOLLIN);
    }
    run(&settings, connections, epoll);
    if (settings.workload == WORKLOAD_IDLE)
        while (getchar() != EOF)
            ;
    for (size_t i = 0; i < settings.clients; i++) {
        close(connections[i].fd);
        buf_deinit(&connections[i].request);
        buf_deinit(&connections[i].input);
    }
    free(connections);
    free((char *)settings.item.data);
    close(epoll);
    return EXIT_SUCCESS;
}
