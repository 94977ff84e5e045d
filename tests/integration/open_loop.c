/*
 * Load that does not wait: so many requests a second over many connections, whether they are answered or not; or, to
 * find the peak, a window of requests on each connection that is kept full.
 *
 *     open_loop SOCKET CONNECTIONS SECONDS rate RATE      open_loop SOCKET CONNECTIONS SECONDS window REQUESTS
 *
 * A request adds one item of 500 bytes, and its msgid is the time when it was due, in microseconds. Prints one JSON
 * object: how many were due, sent, answered well, refused as busy and otherwise, and never answered; the latencies of
 * the good ones in milliseconds; and the least and the greatest retry_after_ms.
 *
 * What a connection's socket does not take waits in a buffer of PENDING_MAX bytes; what is due when that is full is not
 * sent: the daemon has stopped to read from this connection, which is an answer too.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "frame.h"
#include "message.h"

enum {
    ITEM_BYTES = 500,
    PENDING_MAX = 64 * 1024,
    TURN_MS = 2,
    PATIENCE_S = 60, /* for the last answers */
    LATENCIES = 1 << 20,
    MSGID_AT = 3, /* in a request: behind the array's head, the type and the head of a number of four bytes */
    READ_SIZE = 256 * 1024,
};

struct client {
    int fd;
    struct buf request; /* one, with room for its msgid */
    struct buf output;
    struct buf input;
    uint32_t last_msgid;
    size_t n_open; /* not answered */
};

static struct {
    struct client *clients;
    size_t n_clients, next;
    int epoll;
    uint64_t due, sent, good, busy, other, open;
    uint64_t retry_min, retry_max;
    uint32_t *latencies_us; /* of the good ones, until there is no more room */
    size_t n_latencies;
} all;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("open_loop: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- one client ---- */

static void make_request(struct client *client, size_t number)
{
    char item[ITEM_BYTES + 1], session[32];
    struct buf *request = &client->request;

    memset(item, 'x', ITEM_BYTES);
    memcpy(item, "{\"content\":\"", 12);
    memcpy(item + ITEM_BYTES - 2, "\"}", 3);
    (void)snprintf(session, sizeof(session), "session-%zu", number);
    pack_request(request, UINT32_MAX, "add_items");
    pack_map(request, 2);
    pack_pair_text(request, "session", slice_of(session));
    pack_text(request, slice_of("items"));
    pack_array(request, 1);
    pack_text(request, slice_of(item));
}

static void connect_client(struct client *client, const char *path, size_t number)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        fcntl(client->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(all.epoll, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("connect: %s", strerror(errno));
    make_request(client, number);
}

static void flush(struct client *client)
{
    ssize_t n = 1;

    while (client->output.size > 0 && n > 0) {
        n = send(client->fd, client->output.data, client->output.size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            die("send: %s", strerror(errno));
        buf_drop(&client->output, n > 0 ? (size_t)n : 0);
    }
}

/* Return: false if the connection takes no more. */
static bool put_request(struct client *client)
{
    uint32_t msgid = (uint32_t)now_us();
    char *at;

    if (client->output.size + client->request.size > PENDING_MAX)
        return false;
    if (client->n_open > 0 && (int32_t)(msgid - client->last_msgid) <= 0)
        msgid = client->last_msgid + 1;
    client->last_msgid = msgid;
    buf_append(&client->output, client->request.data, client->request.size);
    if (client->output.failed)
        die("no memory");
    at = client->output.data + client->output.size - client->request.size + MSGID_AT;
    for (int i = 0; i < 4; i++)
        at[i] = (char)(msgid >> (24 - 8 * i));
    client->n_open++;
    all.open++;
    all.sent++;
    return true;
}

/* ---- answers ---- */

static void note_retry(struct slice frame)
{
    static const char name[] = "\xae" /* a text of 14 bytes; the message says the words, too */
                               "retry_after_ms";
    const unsigned char *at = memmem(frame.data, frame.size, name, sizeof(name) - 1);
    uint64_t ms;

    if (!at)
        die("a refusal that does not say when to come again");
    at += sizeof(name) - 1;
    ms = at[0] < 0x80 ? at[0] : at[0] == 0xcc ? at[1] : (uint64_t)(at[1] << 8 | at[2]);
    all.retry_min = all.busy == 0 || ms < all.retry_min ? ms : all.retry_min;
    all.retry_max = ms > all.retry_max ? ms : all.retry_max;
}

static uint32_t msgid_of(const unsigned char **at)
{
    size_t n = **at == 0xce ? 4 : **at == 0xcd ? 2 : **at == 0xcc ? 1 : 0;
    uint32_t msgid = n == 0 ? **at : 0;

    ++*at;
    for (; n > 0; n--)
        msgid = msgid << 8 | *(*at)++;
    return msgid;
}

static void take_answer(struct client *client, struct slice frame)
{
    const unsigned char *at = (const unsigned char *)frame.data + 2;
    uint32_t msgid;

    if (frame.data[1] != MESSAGE_RESPONSE)
        die("the daemon says: %.*s", (int)frame.size, frame.data);
    msgid = msgid_of(&at);
    client->n_open--;
    all.open--;
    if (*at == 0xc0) {
        all.good++;
        if (all.n_latencies < LATENCIES)
            all.latencies_us[all.n_latencies++] = (uint32_t)now_us() - msgid;
    } else if (memmem(frame.data, frame.size,
                      "\xa4"
                      "busy",
                      5)) {
        note_retry(frame);
        all.busy++;
    } else {
        all.other++;
    }
}

static void receive(struct client *client)
{
    static char bytes[READ_SIZE];
    struct frame_scan scan = FRAME_SCAN_INIT;
    size_t taken = 0;
    ssize_t n;

    while ((n = recv(client->fd, bytes, sizeof(bytes), 0)) > 0)
        buf_append(&client->input, bytes, (size_t)n);
    if (n == 0 || errno != EAGAIN)
        die("the daemon hung up");
    while (taken < client->input.size &&
           frame_scan(&scan, client->input.data + taken, client->input.size - taken) == FRAME_WHOLE) {
        take_answer(client, (struct slice){client->input.data + taken, scan.offset});
        taken += scan.offset;
        scan = (struct frame_scan)FRAME_SCAN_INIT;
    }
    buf_drop(&client->input, taken);
}

static void wait_for_events(void)
{
    struct epoll_event events[256];
    int n = epoll_wait(all.epoll, events, 256, TURN_MS);

    for (int i = 0; i < n; i++) {
        flush(events[i].data.ptr);
        receive(events[i].data.ptr);
    }
}

/* ---- the two kinds of load ---- */

/* What is due by now goes to the connections in turn, each turn's share of one in one piece. */
static void offer(uint64_t due)
{
    size_t share = (size_t)((due - all.due) / all.n_clients) + 1;

    while (all.due < due) {
        struct client *client = &all.clients[all.next++ % all.n_clients];

        for (size_t i = 0; i < share && all.due < due; i++, all.due++)
            (void)put_request(client);
        flush(client);
    }
}

static void fill_windows(size_t window)
{
    for (size_t i = 0; i < all.n_clients; i++) {
        struct client *client = &all.clients[i];
        bool some = client->n_open < window;

        for (; client->n_open < window; all.due++)
            if (!put_request(client))
                die("a window of %zu is too large", window);
        if (some)
            flush(client);
    }
}

static void run(double seconds, uint64_t rate, size_t window)
{
    uint64_t begun = now_us(), end = begun + (uint64_t)(seconds * 1e6), now;

    while ((now = now_us()) < end) {
        if (window)
            fill_windows(window);
        else
            offer(rate * (now - begun) / 1000000);
        wait_for_events();
    }
}

static void await_answers(void)
{
    uint64_t end = now_us() + UINT64_C(1000000) * PATIENCE_S;

    while (all.open > 0 && now_us() < end)
        wait_for_events();
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static double latency_ms(double part)
{
    return all.n_latencies ? all.latencies_us[(size_t)(part * (double)(all.n_latencies - 1))] / 1e3 : 0;
}

int main(int argc, char **argv)
{
    double seconds, good;
    bool is_rate;
    uint64_t value;

    if (argc != 6 || (strcmp(argv[4], "rate") != 0 && strcmp(argv[4], "window") != 0))
        die("SOCKET CONNECTIONS SECONDS rate RATE | window REQUESTS");
    all.n_clients = strtoul(argv[2], NULL, 10);
    seconds = strtod(argv[3], NULL);
    is_rate = argv[4][0] == 'r';
    value = strtoull(argv[5], NULL, 10);
    all.clients = calloc(all.n_clients, sizeof(*all.clients));
    all.latencies_us = calloc(LATENCIES, sizeof(*all.latencies_us));
    all.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all.n_clients || !value || !all.clients || !all.latencies_us || all.epoll < 0)
        die("cannot begin");
    for (size_t i = 0; i < all.n_clients; i++)
        connect_client(&all.clients[i], argv[1], i);
    run(seconds, is_rate ? value : 0, is_rate ? 0 : value);
    good = (double)all.good / seconds; /* those in time: what comes later is not part of the rate */
    await_answers();
    qsort(all.latencies_us, all.n_latencies, sizeof(*all.latencies_us), compare);
    printf("{\"due\": %lu, \"sent\": %lu, \"good\": %lu, \"busy\": %lu, \"other\": %lu, \"unanswered\": %lu, "
           "\"good_rate\": %.0f, \"p50_ms\": %.1f, \"p99_ms\": %.1f, \"retry_min\": %lu, \"retry_max\": %lu}\n",
           all.due, all.sent, all.good, all.busy, all.other, all.open, good, latency_ms(0.5), latency_ms(0.99),
           all.retry_min, all.retry_max);
    return 0;
}
