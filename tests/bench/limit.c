/*
 * The two limits that the benchmark compares with: what any server on libuv and a Unix socket can reach that
 * understands nothing and keeps nothing (echo), and what any can that has on disk what it answers (log).
 *
 * A request says how many bytes follow and how many it wants back (two uint32_t), and they follow; the answer has that
 * many bytes and begins with their number. With --log the bytes that follow are written, before the answer, to a file
 * of a fixed size that is overwritten from its beginning whenever its end is reached: one write and one fdatasync for
 * all requests that waited. The loop thread reads and answers; a second thread writes one batch while the next gathers.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "buf.h"

enum {
    READ_SIZE = 64 * 1024,
    ANSWER_MAX = 8 * 1024 * 1024,
    LOG_SIZE = 64 * 1024 * 1024,
    PAGE = 4096,
    CLIENTS_MAX = 1024,
    BACKLOG = 1024,
    HEAD = 2 * sizeof(uint32_t),
};

struct client {
    uv_pipe_t pipe;
    struct buf input;
    bool closed;  /* its handle is; the rest stays until nothing is written for it */
    bool waiting; /* it stands in a batch */
};

/* What is written together: the requests' bytes, and who gets how much for it. */
struct batch {
    struct buf bytes;
    struct {
        struct client *client;
        uint32_t size;
    } answers[CLIENTS_MAX];
    size_t n;
};

static struct {
    int fd; /* < 0: there is no log */
    off_t position;
    struct batch batches[2];
    struct batch *gathering; /* the loop's */
    struct batch *writing;   /* the writer's, from the wake-up until `done`; NULL: it sleeps */
    uv_sem_t wake;
    uv_async_t done;
} journal = {.fd = -1};

static char zeros[ANSWER_MAX];

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("limit: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static void check(int error, const char *what)
{
    if (error < 0)
        die("%s: %s", what, uv_strerror(error));
}

/* ---- answers ---- */

static void client_free(struct client *client)
{
    buf_deinit(&client->input);
    free(client);
}

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;

    client->closed = true;
    if (!client->waiting)
        client_free(client);
}

static void client_close(struct client *client)
{
    if (!uv_is_closing((uv_handle_t *)&client->pipe))
        uv_close((uv_handle_t *)&client->pipe, on_closed);
}

/* What is left of an answer when the socket is full. */
struct rest {
    uv_write_t request;
    uint32_t size; /* of the whole answer: its first bytes */
};

static void on_written(uv_write_t *request, int status)
{
    if (status < 0)
        client_close(request->handle->data);
    free(request);
}

static void client_answer_rest(struct client *client, uint32_t size, uint32_t written)
{
    struct rest *rest = malloc(sizeof(*rest));
    uint32_t head = written < sizeof(size) ? (uint32_t)sizeof(size) - written : 0;
    uv_buf_t bufs[2];

    if (!rest)
        die("no memory");
    rest->size = size;
    bufs[0] = uv_buf_init((char *)&rest->size + sizeof(size) - head, head);
    bufs[1] = uv_buf_init(zeros, size - written - head);
    check(uv_write(&rest->request, (uv_stream_t *)&client->pipe, bufs, 2, on_written), "write");
}

static void client_answer(struct client *client, uint32_t size)
{
    uv_buf_t bufs[] = {{(char *)&size, sizeof(size)}, {zeros, size - sizeof(size)}};
    int n = uv_try_write((uv_stream_t *)&client->pipe, bufs, 2);

    if (n < 0 && n != UV_EAGAIN)
        client_close(client);
    else if (n < (int)size)
        client_answer_rest(client, size, n < 0 ? 0 : (uint32_t)n);
}

/* ---- the log ---- */

static void journal_write(const struct batch *batch)
{
    size_t size = batch->bytes.size;

    if (size > LOG_SIZE)
        die("a batch is larger than the log");
    if (journal.position + (off_t)size > LOG_SIZE)
        journal.position = 0;
    if (pwrite(journal.fd, batch->bytes.data, size, journal.position) != (ssize_t)size || fdatasync(journal.fd) < 0)
        die("the log: %s", strerror(errno));
    journal.position += (off_t)size;
}

/* The second thread. */
static void writer(void *nothing)
{
    (void)nothing;
    for (;;) {
        uv_sem_wait(&journal.wake);
        journal_write(journal.writing);
        uv_async_send(&journal.done);
    }
}

static void journal_hand_over(void)
{
    if (journal.writing || journal.gathering->n == 0)
        return;
    journal.writing = journal.gathering;
    journal.gathering = &journal.batches[journal.gathering == &journal.batches[0]];
    uv_sem_post(&journal.wake);
}

static void on_done(uv_async_t *async)
{
    struct batch *batch = journal.writing;

    (void)async;
    journal.writing = NULL;
    journal_hand_over();
    for (size_t i = 0; i < batch->n; i++) {
        struct client *client = batch->answers[i].client;

        client->waiting = false;
        if (client->closed)
            client_free(client);
        else if (!uv_is_closing((uv_handle_t *)&client->pipe))
            client_answer(client, batch->answers[i].size);
    }
    batch->n = 0;
    buf_drop(&batch->bytes, batch->bytes.size);
}

static void journal_add(struct client *client, const char *data, size_t size, uint32_t answer)
{
    struct batch *batch = journal.gathering;

    if (client->waiting || batch->n == CLIENTS_MAX)
        die("one request at a time, and %d clients", CLIENTS_MAX);
    client->waiting = true;
    buf_append(&batch->bytes, data, size);
    if (batch->bytes.failed)
        die("no memory");
    batch->answers[batch->n].client = client;
    batch->answers[batch->n++].size = answer;
}

static void journal_open(const char *path)
{
    uv_thread_t thread;

    journal.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (journal.fd < 0)
        die("%s: %s", path, strerror(errno));
    /* In pages: the kernel counts a large folio as written where one byte of it is, and makes large ones of large
     * writes. */
    for (off_t position = 0; position < LOG_SIZE; position += PAGE)
        if (pwrite(journal.fd, zeros, PAGE, position) != PAGE)
            die("%s: %s", path, strerror(errno));
    if (fsync(journal.fd) < 0)
        die("%s: %s", path, strerror(errno));
    journal.gathering = &journal.batches[0];
    check(uv_sem_init(&journal.wake, 0), "semaphore");
    check(uv_async_init(uv_default_loop(), &journal.done, on_done), "async");
    check(uv_thread_create(&thread, writer, NULL), "thread");
}

/* ---- requests ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct client *client = handle->data;

    (void)suggested;
    ret->base = buf_reserve(&client->input, READ_SIZE);
    ret->len = ret->base ? READ_SIZE : 0;
}

/* Return: the bytes of the request at the beginning of the input, or 0: it is not all there. */
static size_t take_request(struct client *client)
{
    uint32_t head[2];

    if (client->input.size < HEAD)
        return 0;
    memcpy(head, client->input.data, HEAD);
    if (client->input.size < HEAD + head[0])
        return 0;
    if (head[1] < sizeof(uint32_t) || head[1] > ANSWER_MAX)
        die("an answer has 4 to %d bytes", ANSWER_MAX);
    if (journal.fd < 0)
        client_answer(client, head[1]);
    else
        journal_add(client, client->input.data + HEAD, head[0], head[1]);
    return HEAD + head[0];
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *unused)
{
    struct client *client = stream->data;
    size_t size;

    (void)unused;
    if (n < 0) {
        client_close(client);
        return;
    }
    buf_grow(&client->input, (size_t)n);
    while ((size = take_request(client)) > 0)
        buf_drop(&client->input, size);
}

/* After all that could be read: as sessiond's lane, the writer gets what has gathered. */
static void on_check(uv_check_t *handle)
{
    (void)handle;
    journal_hand_over();
}

static void on_connection(uv_stream_t *server, int status)
{
    struct client *client = calloc(1, sizeof(*client));

    check(status, "connection");
    if (!client)
        die("no memory");
    check(uv_pipe_init(server->loop, &client->pipe, 0), "pipe");
    client->pipe.data = client;
    check(uv_accept(server, (uv_stream_t *)&client->pipe), "accept");
    check(uv_read_start((uv_stream_t *)&client->pipe, on_alloc, on_read), "read");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"log", required_argument, NULL, 'l'}, {0}};
    uv_loop_t *loop = uv_default_loop();
    uv_pipe_t server;
    uv_check_t after_reading;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == 'l')
            journal_open(optarg);
        else
            die("usage: limit [--log FILE] SOCKET");
    if (optind + 1 != argc)
        die("usage: limit [--log FILE] SOCKET");
    (void)signal(SIGPIPE, SIG_IGN);
    check(uv_pipe_init(loop, &server, 0), "pipe");
    check(uv_pipe_bind(&server, argv[optind]), argv[optind]);
    check(uv_listen((uv_stream_t *)&server, BACKLOG, on_connection), "listen");
    if (journal.fd >= 0) {
        check(uv_check_init(loop, &after_reading), "check");
        check(uv_check_start(&after_reading, on_check), "check");
    }
    return uv_run(loop, UV_RUN_DEFAULT);
}
