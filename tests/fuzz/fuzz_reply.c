/*
 * Any bytes, as what a daemon sends to a C client with requests under way. The client must neither crash nor hang nor
 * leak; each request is answered exactly once, with an error or with a value that is whole.
 *
 * There is no socket here: the Makefile links this program with --wrap, so that this file takes the place of the
 * kernel. It accepts what is written, gives the bytes of the input to whoever reads, and owns the clock.
 *
 * The first byte of an input says what is asked, the second one how the world is. In the bytes behind them 0xc1, which
 * MessagePack never has, and one of `enum event` tell what happens on the way.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "fuzz.h"
#include "json.h"
#include "utf8.h"

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

enum { FAKE_FD = 1 << 20, TURNS_MAX = 100000, N_BUSY = 3 };

enum flag {
    FLAG_SILENT = 1,    /* the daemon's greeting is in the input; else it comes by itself */
    FLAG_RUN_OUT = 2,   /* the client is not closed at the end of the input, but gives up by itself */
    FLAG_ASK_MORE = 4,  /* the first callback sends another call */
    FLAG_PIECES = 0x18, /* how much is read at a time */
};

enum event {
    EVENT_END,        /* the daemon hangs up */
    EVENT_RESET,      /* the same, with an error */
    EVENT_PAUSE,      /* nothing comes for a moment */
    EVENT_LONG_PAUSE, /* for longer than anybody waits */
    EVENT_CUT,        /* a read ends here */
    EVENT_FULL,       /* nothing can be written, until this comes again */
    EVENT_BACKLOG,    /* the next connection is put off */
    N_EVENTS,
    EVENT_BYTE = 0xc1,
};

/* ---- the world ---- */

static struct {
    bool runs; /* else calls are somebody else's */
    const uint8_t *data;
    size_t size;
    unsigned flags;
    int64_t now_ms;
    bool full, backlog;
    struct sessiond *client;
    struct buf greeting; /* that is still to be read */
    unsigned turns;
    bool asked_more;
} world;

static void greet(void)
{
    struct buf *greeting = &world.greeting;

    pack_response(greeting, world.client->greeting_msgid);
    pack_map(greeting, 4);
    pack_pair_text(greeting, "version", slice_of("1"));
    pack_pair_text(greeting, "instance", slice_of("0123456789abcdef0123456789abcdef"));
    pack_pair_number(greeting, "protocol", 1);
    pack_pair_number(greeting, "uid", 7);
}

int __wrap_socket(int domain, int type, int protocol);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_close(int fd);
int __real_close(int fd);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_recv(int fd, void *to, size_t size, int flags);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __real_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_socket(int domain, int type, int protocol)
{
    (void)domain;
    (void)type;
    (void)protocol;
    return FAKE_FD;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    bool backlog = world.backlog;

    (void)address;
    (void)size;
    MUST(fd == FAKE_FD);
    world.backlog = false;
    world.greeting.size = 0;
    if (world.size > 0 && !backlog)
        return 0;
    errno = backlog ? EAGAIN : ECONNREFUSED;
    return -1;
}

int __wrap_close(int fd)
{
    return fd == FAKE_FD ? 0 : __real_close(fd);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t size = 0;

    (void)flags;
    MUST(fd == FAKE_FD);
    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    MUST(size > 0);
    if (world.full) {
        errno = EAGAIN;
        return -1;
    }
    if (world.client->state == CLIENT_GREETING && !(world.flags & FLAG_SILENT))
        greet();
    return (ssize_t)size;
}

/* Return: what the read returns. */
static ssize_t happen(enum event event)
{
    world.data += 2;
    world.size -= 2;
    world.full ^= event == EVENT_FULL;
    world.backlog |= event == EVENT_BACKLOG;
    world.now_ms += event == EVENT_LONG_PAUSE ? 100000 : event == EVENT_PAUSE ? 20 : 0;
    if (event == EVENT_END)
        return 0;
    errno = event == EVENT_RESET ? ECONNRESET : EAGAIN;
    return -1;
}

static ssize_t read_greeting(void *to, size_t size)
{
    size = world.greeting.size < size ? world.greeting.size : size;
    memcpy(to, world.greeting.data, size);
    buf_drop(&world.greeting, size);
    return (ssize_t)size;
}

ssize_t __wrap_recv(int fd, void *to, size_t size, int flags)
{
    static const size_t piece_max[] = {SIZE_MAX, 1, 7, 64};
    size_t piece = piece_max[(world.flags & FLAG_PIECES) / 8];
    const uint8_t *end;

    (void)flags;
    MUST(fd == FAKE_FD && size > 0);
    if (world.greeting.size > 0)
        return read_greeting(to, size);
    if (world.size > 1 && world.data[0] == EVENT_BYTE && world.data[1] < N_EVENTS)
        return happen((enum event)world.data[1]);
    size = size < piece ? size : piece;
    size = size < world.size ? size : world.size;
    end = size > 1 ? memchr(world.data + 1, EVENT_BYTE, size - 1) : NULL;
    size = end ? (size_t)(end - world.data) : size;
    memcpy(to, world.data, size);
    world.data += size;
    world.size -= size;
    return (ssize_t)size; /* 0 at the end of the input: the daemon hangs up */
}

/* Time passes where there is nothing to wait for but time. */
static void pass_time(const struct pollfd *fd, int timeout)
{
    MUST(++world.turns < TURNS_MAX);
    MUST(fd->fd == FAKE_FD || timeout >= 0);
    if (fd->fd != FAKE_FD && timeout > 0)
        world.now_ms += timeout;
    else
        world.now_ms++;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    if (!world.runs)
        return __real_poll(fds, n, timeout);
    pass_time(fds, timeout);
    fds->revents = fds->fd == FAKE_FD ? fds->events : 0;
    return fds->revents != 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (!world.runs || clock != CLOCK_MONOTONIC)
        return __real_clock_gettime(clock, ret);
    *ret = (struct timespec){.tv_sec = world.now_ms / 1000, .tv_nsec = world.now_ms % 1000 * 1000000};
    return 0;
}

/* ---- what comes back ---- */

static void check_text(struct sessiond_text text)
{
    MUST(text.data || text.size == 0);
    MUST(!text.data || (strnlen(text.data, text.size) <= text.size && text.data[text.size] == '\0'));
}

static void check_required(struct sessiond_text text)
{
    MUST(text.data);
    check_text(text);
}

static void check_utf8(struct sessiond_text text)
{
    check_required(text);
    MUST(utf8_valid((struct slice){text.data, text.size}));
}

static void check_items(const union sessiond_answer *answer)
{
    for (size_t i = 0; i < answer->items.n_items; i++)
        check_required(answer->items.items[i]);
    MUST(answer->items.missing <= PROTO_NUMBER_MAX && answer->items.head_seq <= PROTO_NUMBER_MAX);
}

static void check_popped(const union sessiond_answer *answer)
{
    check_text(answer->popped.item);
}

static void check_sessions(const union sessiond_answer *answer)
{
    for (size_t i = 0; i < answer->sessions.n_sessions; i++)
        check_utf8(answer->sessions.sessions[i].id);
}

static void check_stores(const union sessiond_answer *answer)
{
    for (size_t i = 0; i < answer->stores.n_stores; i++) {
        check_utf8(answer->stores.stores[i].name);
        check_utf8(answer->stores.stores[i].engine);
    }
}

static void check_info(const union sessiond_answer *answer)
{
    size_t wrong_at;

    check_utf8(answer->info);
    MUST(json_check_item((struct slice){answer->info.data, answer->info.size}, &wrong_at) == NULL);
}

static void check_part(const union sessiond_answer *answer)
{
    check_text(answer->part.backup);
    check_text(answer->part.data);
}

static void check_top(const union sessiond_answer *answer)
{
    const struct sessiond_top *top = &answer->top;

    check_utf8(top->text);
    MUST(top->n_sessions <= N_BUSY);
    for (size_t i = 0; i < top->n_sessions; i++) {
        check_utf8(top->sessions[i].store);
        check_utf8(top->sessions[i].session);
    }
}

static void (*const checks[SESSIOND_N_METHODS])(const union sessiond_answer *answer) = {
    [SESSIOND_GET_ITEMS] = check_items,
    [SESSIOND_POP_ITEM] = check_popped,
    [SESSIOND_LIST_SESSIONS] = check_sessions,
    [SESSIOND_LIST_STORES] = check_stores,
    [SESSIOND_INFO] = check_info,
    [SESSIOND_BACKUP] = check_part,
    [SESSIOND_BACKUP_READ] = check_part,
    [SESSIOND_STATS] = check_top,
};

static void check_failure(enum sessiond_method method, int r)
{
    const struct sessiond_error *error = sessiond_last_error(world.client);

    MUST(r < SESSIOND_N_CODES);
    MUST(error->code == r && error->message && strnlen(error->message, CLIENT_MESSAGE_SIZE) < CLIENT_MESSAGE_SIZE);
    MUST(!error->key == !call_methods[method].change);
    MUST(error->item >= -1 && error->revision >= -1 && error->epoch >= -1 && error->limit >= -1);
    MUST(sessiond_strerror(r));
}

static void check(enum sessiond_method method, int r, const union sessiond_answer *answer)
{
    MUST(!answer == (r != 0));
    if (r)
        check_failure(method, r);
    else if (checks[method])
        checks[method](answer);
}

/* ---- many calls under way ---- */

static struct waiter {
    enum sessiond_method method;
    unsigned n_answers;
} waiters[SESSIOND_N_METHODS + 1];

static const struct sessiond_text items[] = {{"{}", 2}, {"{\"a\":1}", 7}};

static void on_answer(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg);

static void ask(struct waiter *to, enum sessiond_method method)
{
    static const char *const sessions[] = {"a", "b", "c", "d", "e"};
    struct sessiond_call call = {.method = method,
                                 .session = sessions[method % N_ELEMENTS(sessions)],
                                 .key = "k",
                                 .items = items,
                                 .n_items = N_ELEMENTS(items),
                                 .backup = "0123456789abcdef0123456789abcdef",
                                 .top = SESSIOND_SOME(N_BUSY)};
    int r;

    *to = (struct waiter){.method = method};
    r = sessiond_send(world.client, &call, on_answer, to);
    if (r == 0)
        return;
    to->n_answers++;
    check_failure(method, r);
}

static void on_answer(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct waiter *to = arg;

    MUST(client == world.client && to->n_answers++ == 0);
    check(to->method, r, answer);
    if (!(world.flags & FLAG_ASK_MORE) || world.asked_more)
        return;
    world.asked_more = true;
    MUST(sessiond_ping(client) == -EDEADLK);
    ask(&waiters[SESSIOND_N_METHODS], SESSIOND_GET_ITEMS);
}

static bool goes_on(void)
{
    return sessiond_pending(world.client) > 0 && (world.size > 0 || world.flags & FLAG_RUN_OUT);
}

static void check_idle(const struct sessiond *client)
{
    MUST(TAILQ_EMPTY(&client->waiting) && TAILQ_EMPTY(&client->sent));
    MUST(client->n_calls == 0 && client->n_bytes == 0 && client->n_busy == 0 && client->n_reading == 0);
    MUST(client->n_slow == 0);
}

static void ask_and_wait(unsigned first, unsigned end)
{
    struct pollfd fd;

    for (unsigned i = first; i < end; i++)
        ask(&waiters[i], (enum sessiond_method)i);
    while (goes_on()) {
        fd = (struct pollfd){.fd = sessiond_fd(world.client), .events = sessiond_events(world.client)};
        (void)__wrap_poll(&fd, 1, sessiond_timeout(world.client));
        MUST(sessiond_process(world.client, fd.revents) == 0);
    }
    if (sessiond_pending(world.client) == 0)
        check_idle(world.client);
}

static void check_all_answered(unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        MUST(waiters[i].n_answers == 1);
    MUST(!world.asked_more || waiters[SESSIOND_N_METHODS].n_answers == 1);
}

/* ---- calls that block ---- */

static void block_on_items(struct sessiond *client)
{
    union sessiond_answer answer = {0};
    int r = sessiond_get_items(client, "a", NULL, &answer.items);

    check(SESSIOND_GET_ITEMS, r, r ? NULL : &answer);
    sessiond_items_free(&answer.items);
}

static void block_on_popped(struct sessiond *client)
{
    union sessiond_answer answer = {0};
    int r = sessiond_pop_item(client, "a", &(struct sessiond_change){.key = "k"}, &answer.popped);

    check(SESSIOND_POP_ITEM, r, r ? NULL : &answer);
    sessiond_popped_free(&answer.popped);
}

static void block_on_added(struct sessiond *client)
{
    union sessiond_answer answer = {0};
    const struct sessiond_change change = {.key = "k"};
    int r = sessiond_add_items(client, "a", items, N_ELEMENTS(items), &change, &answer.changed);

    check(SESSIOND_ADD_ITEMS, r, r ? NULL : &answer);
}

static void block_on_sessions(struct sessiond *client)
{
    union sessiond_answer answer = {0};
    const struct sessiond_listing listing = {.limit = SESSIOND_SOME(3)};
    int r = sessiond_list_sessions(client, &listing, &answer.sessions);

    check(SESSIOND_LIST_SESSIONS, r, r ? NULL : &answer);
    MUST(answer.sessions.n_sessions <= listing.limit.value);
    sessiond_sessions_free(&answer.sessions);
}

static void block_on_stores(struct sessiond *client)
{
    union sessiond_answer answer = {0};
    int r = sessiond_list_stores(client, &answer.stores);

    check(SESSIOND_LIST_STORES, r, r ? NULL : &answer);
    sessiond_stores_free(&answer.stores);
}

static void block_on_info(struct sessiond *client)
{
    char *json = NULL;
    int r = sessiond_info(client, &json);
    union sessiond_answer answer = {.info = {json, json ? strlen(json) : 0}};

    check(SESSIOND_INFO, r, r ? NULL : &answer);
    free(json);
}

static void block_on_hello(struct sessiond *client)
{
    struct sessiond_hello hello = {.socket = ""};
    int r = sessiond_hello(client, &hello);

    if (r)
        check_failure(SESSIOND_PING, r);
    MUST(r || (hello.instance[0] && memchr(hello.version, 0, sizeof(hello.version))));
}

static void block_on_top(struct sessiond *client)
{
    union sessiond_answer answer = {0};
    int r = sessiond_stats_top(client, N_BUSY, &answer.top);

    check(SESSIOND_STATS, r, r ? NULL : &answer);
    sessiond_top_free(&answer.top);
}

static char directory[] = "/tmp/sd-fuzz-XXXXXX";

static void remove_directory(void)
{
    (void)rmdir(directory);
}

/* A backup has its name only if the call says that it is good, and leaves nothing else behind. */
static void block_on_backup(struct sessiond *client)
{
    static char path[64];
    int r;

    if (!path[0]) {
        MUST(mkdtemp(directory));
        (void)atexit(remove_directory);
        snprintf(path, sizeof(path), "%s/backup", directory);
    }
    r = sessiond_backup(client, NULL, path);
    if (r)
        check_failure(SESSIOND_BACKUP, r);
    MUST((unlink(path) == 0) == (r == 0));
    MUST(rmdir(directory) == 0 && mkdir(directory, 0700) == 0);
}

static void (*const blocking[])(struct sessiond *client) = {
    block_on_items, block_on_popped, block_on_added,  block_on_sessions, block_on_stores,
    block_on_info,  block_on_hello,  block_on_backup, block_on_top,
};

/* ---- an input ---- */

/* What is asked: the first byte means one method, one call that blocks, or all methods at once. */
static void run(unsigned what)
{
    unsigned first = 0, end = 0;

    if (what < SESSIOND_N_METHODS) {
        first = what;
        end = what + 1;
    } else if (what - SESSIOND_N_METHODS < N_ELEMENTS(blocking)) {
        blocking[what - SESSIOND_N_METHODS](world.client);
    } else {
        end = SESSIOND_N_METHODS;
    }
    ask_and_wait(first, end);
    sessiond_free(world.client);
    check_all_answered(first, end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct sessiond_options options = {.socket = "/", .name = "fuzz"};

    if (size < 2)
        return 0;
    world.data = data + 2;
    world.size = size - 2;
    world.flags = data[1];
    world.now_ms = 1000;
    world.full = world.backlog = world.asked_more = false;
    world.turns = 0;
    world.runs = true;
    MUST(sessiond_new(&world.client, &options) == 0);
    run(data[0] % 32);
    world.runs = false;
    buf_deinit(&world.greeting);
    world.greeting = BUF_INIT;
    return 0;
}
