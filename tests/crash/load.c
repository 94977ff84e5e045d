/*
 * One client of a crash test: changes and reads sessions as fast as the daemon answers, several calls under way at a
 * time, and writes down what it asked and what it was told. The daemon may die at any moment; libsessiond repeats what
 * was not answered. This program may die as well: started again with the same log, it first repeats, by their keys,
 * the changes that the log has no answer for.
 *
 * The log is for verify.py, which describes its lines. A line is written before the call is sent, or in its callback,
 * by one write(): what the log has no line for was never asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sessiond.h"

#include "item.h"
#include "plan.h"

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

enum {
    LINE_SIZE = 1024,
    BATCH_MAX = 60,
    TAIL = 5,              /* items that a read asks for, and names in the log */
    PATIENCE_MS = 3600000, /* of the library; whether the daemon hangs is for the driver to say */
    N_SHARED = 4,
    KNOCK_MS = 10,
    TURN_MS = 200, /* how soon the wish to stop is noticed when nothing happens */
};

/* A session, and what this client knows of it: the ground for preconditions and for what to replace. */
struct view {
    char id[24];
    bool only_grows;
    uint64_t head_seq, revision, epoch;
};

struct op {
    TAILQ_ENTRY(op) link;
    struct load *load;
    uint64_t number;
    enum sessiond_method method;
    struct view *view;
    char key[SESSIOND_KEY_SIZE];
    unsigned n_items;
    struct sessiond_number from_seq, if_revision, if_epoch;
    bool whole; /* of a read: the whole history, not only its end */
};

TAILQ_HEAD(ops, op);

struct load {
    struct sessiond *client;
    struct plan *plan;
    int log;
    unsigned number;  /* of this client */
    uint64_t next_op; /* counts from 1 */
    uint64_t seed;
    uint64_t ops_left;
    unsigned window; /* calls under way at a time */
    bool forgetful;  /* repeats with fresh keys: the control run, which must double */
    struct view views[2 + 1 + N_SHARED];
    struct ops open; /* sent, and not answered */
    unsigned n_open;
    struct ops again; /* to be sent again by this program, since the library gave up */
};

static const char *const method_names[SESSIOND_N_METHODS] = {
    [SESSIOND_GET_ITEMS] = "get_items",         [SESSIOND_ADD_ITEMS] = "add_items",
    [SESSIOND_POP_ITEM] = "pop_item",           [SESSIOND_CLEAR_SESSION] = "clear_session",
    [SESSIOND_REPLACE_ITEMS] = "replace_items",
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("load: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    _exit(EXIT_FAILURE);
}

static uint64_t chance(struct load *load, uint64_t below)
{
    load->seed ^= load->seed << 13;
    load->seed ^= load->seed >> 7;
    load->seed ^= load->seed << 17;
    return load->seed % below;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- the log ---- */

struct line {
    char text[LINE_SIZE];
    size_t size;
};

__attribute__((format(printf, 2, 3))) static void line_add(struct line *line, const char *format, ...)
{
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(line->text + line->size, LINE_SIZE - line->size, format, arguments);
    va_end(arguments);
    if (size < 0 || line->size + (size_t)size >= LINE_SIZE)
        die("a line is too long");
    line->size += (size_t)size;
}

static void line_begin(struct line *line, const char *what, const struct op *op)
{
    line->size = 0;
    line_add(line, "%s %u.%" PRIu64 " %" PRIu64, what, op->load->number, op->number, now_us());
}

static void line_add_number(struct line *line, struct sessiond_number number)
{
    if (number.given)
        line_add(line, " %" PRIu64, number.value);
    else
        line_add(line, " -");
}

static void line_end(struct line *line, const struct load *load)
{
    line_add(line, "\n");
    if (write(load->log, line->text, line->size) != (ssize_t)line->size)
        die("the log: %s", strerror(errno));
}

static void log_sent(const struct op *op)
{
    struct line line;

    line_begin(&line, "sent", op);
    line_add(&line, " %s %s %s %u", method_names[op->method], op->view->id, op->key, op->n_items);
    line_add_number(&line, op->from_seq);
    line_add_number(&line, op->if_revision);
    line_add_number(&line, op->if_epoch);
    line_end(&line, op->load);
}

static void line_add_item(struct line *line, struct sessiond_text item)
{
    char name[ITEM_NAME_SIZE];

    item_identify(item.data, item.size, name);
    line_add(line, " %s", name);
}

static void log_read(const struct op *op, const struct sessiond_items *items)
{
    size_t n_shown = items->n_items < TAIL ? items->n_items : TAIL;
    struct line line;

    line_begin(&line, "read", op);
    line_add(&line, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %zu", items->revision, items->epoch,
             items->head_seq, items->first_seq, items->last_seq, items->n_items);
    for (size_t i = items->n_items - n_shown; i < items->n_items; i++)
        line_add_item(&line, items->items[i]);
    line_end(&line, op->load);
}

static void log_changed(const struct op *op, const struct sessiond_changed *changed)
{
    struct line line;

    line_begin(&line, "done", op);
    line_add(&line, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, changed->revision, changed->epoch,
             changed->first_seq, changed->last_seq, changed->removed);
    line_end(&line, op->load);
}

static void log_popped(const struct op *op, const struct sessiond_popped *popped)
{
    struct line line;

    line_begin(&line, "done", op);
    line_add(&line, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d", popped->revision, popped->epoch, popped->seq,
             popped->seq, popped->item.data || popped->erased);
    if (popped->item.data)
        line_add_item(&line, popped->item);
    else
        line_add(&line, popped->erased ? " erased" : " -");
    line_end(&line, op->load);
}

static void log_failed(const struct op *op, int r)
{
    struct line line;

    line_begin(&line, "failed", op);
    line_add(&line, " %d", r);
    line_end(&line, op->load);
}

/* ---- what happens on an answer ---- */

static void plan_count(struct load *load, enum plan_event event)
{
    struct plan *plan = load->plan;

    if (!plan)
        return;
    if (event == PLAN_ANSWERED)
        atomic_fetch_add(&plan->answered, 1);
    if (atomic_load(&plan->event) == (int32_t)event && atomic_fetch_sub(&plan->countdown, 1) == 1)
        kill(atomic_load(&plan->pid), SIGKILL);
}

static void op_end(struct op *op)
{
    TAILQ_REMOVE(&op->load->open, op, link);
    op->load->n_open--;
    free(op);
}

static void learn(struct op *op, const union sessiond_answer *answer)
{
    struct view *view = op->view;

    switch (op->method) {
    case SESSIOND_GET_ITEMS:
        log_read(op, &answer->items);
        view->head_seq = answer->items.head_seq;
        view->revision = answer->items.revision;
        view->epoch = answer->items.epoch;
        return;
    case SESSIOND_POP_ITEM:
        log_popped(op, &answer->popped);
        view->revision = answer->popped.revision;
        view->epoch = answer->popped.epoch;
        return;
    default:
        log_changed(op, &answer->changed);
        view->revision = answer->changed.revision;
        view->epoch = answer->changed.epoch;
        if (answer->changed.last_seq)
            view->head_seq = answer->changed.last_seq;
    }
}

/* Whether this program has to find out itself what became of the change. A forgetful one does not trouble to. */
static bool ask_again(const struct op *op, int r)
{
    return op->method != SESSIOND_GET_ITEMS && (r == SESSIOND_UNCERTAIN || (r < 0 && op->load->forgetful));
}

static void on_answer(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct op *op = arg;
    struct load *load = op->load;

    if (ask_again(op, r)) {
        TAILQ_REMOVE(&load->open, op, link);
        TAILQ_INSERT_TAIL(&load->again, op, link);
        return;
    }
    if (r < 0 && !load->forgetful)
        die("%s: %s", method_names[op->method], sessiond_last_error(client)->message);
    if (r)
        log_failed(op, r);
    else
        learn(op, answer);
    if (op->method != SESSIOND_GET_ITEMS)
        plan_count(load, PLAN_ANSWERED);
    op_end(op);
}

/* ---- asking ---- */

/* Hands the call to the library, which copies what it points at. Return: what sessiond_send returns. */
static int op_send(struct op *op)
{
    struct sessiond_text items[BATCH_MAX];
    struct sessiond_call call = {
        .method = op->method,
        .session = op->view->id,
        .items = items,
        .n_items = op->n_items,
        .key = op->method == SESSIOND_GET_ITEMS ? NULL : op->key,
        .from_seq = op->from_seq,
        .if_revision = op->if_revision,
        .if_epoch = op->if_epoch,
        .limit = {.given = op->method == SESSIOND_GET_ITEMS && !op->whole, .value = TAIL},
    };
    int r;

    for (unsigned i = 0; i < op->n_items; i++)
        items[i].data = item_make((struct item_name){op->load->number, op->number, i, op->n_items}, &items[i].size);
    r = sessiond_send(op->load->client, &call, on_answer, op);
    for (unsigned i = 0; i < op->n_items; i++)
        free((char *)items[i].data);
    return r;
}

static struct op *op_new(struct load *load, uint64_t number)
{
    struct op *op = calloc(1, sizeof(*op));

    if (!op)
        abort();
    op->load = load;
    op->number = number;
    TAILQ_INSERT_TAIL(&load->open, op, link);
    load->n_open++;
    return op;
}

static void choose_key(struct op *op)
{
    if (sessiond_make_key(op->key))
        die("no randomness");
}

/* What a session that only grows never sees has a weight of 0 there. */
static const struct {
    enum sessiond_method method;
    unsigned weight, weight_where_only_grows;
} mix[] = {
    {SESSIOND_ADD_ITEMS, 56, 84},    {SESSIOND_GET_ITEMS, 16, 16},   {SESSIOND_POP_ITEM, 14, 0},
    {SESSIOND_REPLACE_ITEMS, 10, 0}, {SESSIOND_CLEAR_SESSION, 4, 0},
};

static enum sessiond_method choose_method(struct load *load, const struct view *view)
{
    uint64_t point = chance(load, 100);
    size_t i = 0;

    for (;; i++) {
        unsigned weight = view->only_grows ? mix[i].weight_where_only_grows : mix[i].weight;

        if (point < weight || i == N_ELEMENTS(mix) - 1)
            return mix[i].method;
        point -= weight;
    }
}

/* Half of the batches are single items; a few are large, and a few empty. */
static unsigned choose_n_items(struct load *load)
{
    uint64_t kind = chance(load, 100);

    if (kind < 50)
        return 1;
    if (kind < 92)
        return 2 + (unsigned)chance(load, 7);
    return (unsigned)chance(load, BATCH_MAX + 1);
}

static void choose_preconditions(struct load *load, struct op *op)
{
    switch (chance(load, 20)) {
    case 0:
        op->if_revision = SESSIOND_SOME(op->view->revision);
        break;
    case 1:
        op->if_epoch = SESSIOND_SOME(op->view->epoch);
        break;
    default:
        break;
    }
}

static void ask(struct load *load)
{
    struct op *op = op_new(load, load->next_op++);
    int r;

    op->view = &load->views[chance(load, N_ELEMENTS(load->views))];
    op->method = choose_method(load, op->view);
    if (op->method == SESSIOND_ADD_ITEMS)
        op->n_items = choose_n_items(load);
    if (op->method == SESSIOND_REPLACE_ITEMS) {
        op->n_items = (unsigned)chance(load, 4);
        if (chance(load, 4) && op->view->head_seq)
            op->from_seq =
                SESSIOND_SOME(op->view->head_seq - chance(load, op->view->head_seq < 8 ? op->view->head_seq : 8));
    }
    choose_preconditions(load, op);
    op->whole = chance(load, 8) == 0;
    if (op->method == SESSIOND_GET_ITEMS) {
        op->if_revision = op->if_epoch = (struct sessiond_number){0};
        (void)strcpy(op->key, "-");
    } else {
        choose_key(op);
    }
    log_sent(op);
    if ((r = op_send(op)))
        die("%s: %s", method_names[op->method], sessiond_last_error(load->client)->message);
    if (op->method != SESSIOND_GET_ITEMS)
        plan_count(load, PLAN_SENT);
}

static void log_again(const struct op *op)
{
    struct line line;

    line_begin(&line, "again", op);
    line_end(&line, op->load);
}

/* Repeats what the library gave up: in order, before anything new. */
static void ask_what_is_open(struct load *load)
{
    struct op *op;
    int r;

    while ((op = TAILQ_FIRST(&load->again))) {
        TAILQ_REMOVE(&load->again, op, link);
        TAILQ_INSERT_TAIL(&load->open, op, link);
        if (load->forgetful)
            choose_key(op);
        log_again(op);
        if ((r = op_send(op)))
            die("%s again: %s", method_names[op->method], sessiond_last_error(load->client)->message);
    }
}

/* ---- a log that is there already ---- */

static struct sessiond_number read_number(const char *word)
{
    return strcmp(word, "-") == 0 ? (struct sessiond_number){0} : SESSIOND_SOME(strtoull(word, NULL, 10));
}

static struct view *find_view(struct load *load, const char *id)
{
    for (size_t i = 0; i < N_ELEMENTS(load->views); i++)
        if (strcmp(load->views[i].id, id) == 0)
            return &load->views[i];
    die("the log names a session of another client: %s", id);
}

static enum sessiond_method find_method(const char *name)
{
    for (size_t i = 0; i < N_ELEMENTS(method_names); i++)
        if (method_names[i] && strcmp(method_names[i], name) == 0)
            return (enum sessiond_method)i;
    die("the log names no method: %s", name);
}

static struct op *find_open(struct load *load, uint64_t number)
{
    struct op *op;

    TAILQ_FOREACH (op, &load->open, link)
        if (op->number == number)
            return op;
    die("the log answers what was not asked: %" PRIu64, number);
}

/* A read that was never answered needs no answer any more. */
static void recall_sent(struct load *load, const char *line, uint64_t number)
{
    char method[24], session[24], key[SESSIOND_KEY_SIZE], from_seq[24], if_revision[24], if_epoch[24];
    unsigned n_items;
    struct op *op;

    if (sscanf(line, "%*s %*s %*s %23s %23s %36s %u %23s %23s %23s", method, session, key, &n_items, from_seq,
               if_revision, if_epoch) != 7 ||
        n_items > BATCH_MAX)
        die("the log has a line that is none: %s", line);
    op = op_new(load, number);
    op->method = find_method(method);
    op->view = find_view(load, session);
    (void)strcpy(op->key, key);
    op->n_items = n_items;
    op->from_seq = read_number(from_seq);
    op->if_revision = read_number(if_revision);
    op->if_epoch = read_number(if_epoch);
    if (number >= load->next_op)
        load->next_op = number + 1;
}

static void recall(struct load *load, const char *path)
{
    FILE *log = fopen(path, "re");
    char line[LINE_SIZE], what[8];
    unsigned client;
    uint64_t number;
    struct op *op, *next;

    if (!log)
        return;
    while (fgets(line, sizeof(line), log)) {
        if (sscanf(line, "%7s %u.%" SCNu64, what, &client, &number) != 3 || client != load->number)
            die("the log has a line that is none: %s", line);
        if (strcmp(what, "sent") == 0)
            recall_sent(load, line, number);
        else if (strcmp(what, "again") != 0)
            op_end(find_open(load, number));
    }
    (void)fclose(log);
    for (op = TAILQ_FIRST(&load->open); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->method == SESSIOND_GET_ITEMS) {
            op_end(op);
            continue;
        }
        TAILQ_REMOVE(&load->open, op, link);
        TAILQ_INSERT_TAIL(&load->again, op, link);
    }
}

/* ---- the program ---- */

static bool wants_more(const struct load *load)
{
    return load->ops_left > 0 && !(load->plan && atomic_load(&load->plan->stop));
}

static void turn(struct load *load)
{
    struct pollfd pollfd;
    int timeout;

    /* What was asked leaves now; a plan may have the daemon die before it is answered. */
    if (sessiond_process(load->client, 0))
        die("sessiond_process");
    pollfd = (struct pollfd){.fd = sessiond_fd(load->client), .events = sessiond_events(load->client)};
    timeout = sessiond_timeout(load->client);
    if (poll(&pollfd, 1, timeout < 0 || timeout > TURN_MS ? TURN_MS : timeout) < 0 && errno != EINTR)
        die("poll: %s", strerror(errno));
    if (sessiond_process(load->client, pollfd.revents))
        die("sessiond_process");
}

/* A client that was never connected fails at once where no daemon is; but this one knows that it will come back. */
static void await_daemon(struct load *load)
{
    uint64_t end = now_us() + PATIENCE_MS * UINT64_C(1000);

    while (sessiond_hello(load->client, NULL)) {
        if (now_us() > end)
            die("%s", sessiond_last_error(load->client)->message);
        poll(NULL, 0, KNOCK_MS);
    }
}

static void work(struct load *load)
{
    await_daemon(load);
    ask_what_is_open(load);
    while (wants_more(load) || load->n_open > 0) {
        while (wants_more(load) && load->n_open < load->window) {
            ask(load);
            load->ops_left--;
        }
        turn(load);
        ask_what_is_open(load);
    }
}

static void name_sessions(struct load *load)
{
    struct view *view = load->views;

    *view = (struct view){.only_grows = true};
    (void)snprintf(view++->id, sizeof(view->id), "grows-%u", load->number);
    *view = (struct view){.only_grows = true};
    (void)snprintf(view++->id, sizeof(view->id), "grows-shared");
    (void)snprintf(view++->id, sizeof(view->id), "own-%u", load->number);
    for (unsigned i = 0; i < N_SHARED; i++)
        (void)snprintf(view++->id, sizeof(view->id), "shared-%u", i);
}

static struct plan *map_plan(const char *path)
{
    struct plan *plan;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    plan = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (plan == MAP_FAILED)
        die("%s: %s", path, strerror(errno));
    close(fd);
    return plan;
}

static const char usage[] = "usage: load --log FILE [--recall FILE] [--client N] [--seed N] [--ops N] [--window N] "
                            "[--plan FILE] [--forgetful]\n"
                            "\n"
                            "  --log FILE    what was asked and answered; one that is there is continued\n"
                            "  --recall FILE what to continue, where the log is a line that cannot be read again\n"
                            "  --client N    its number, which no other client has (0)\n"
                            "  --seed N      of its choices, not 0 (1)\n"
                            "  --ops N       end after that many calls (when the plan says so)\n"
                            "  --window N    calls under way at a time (6)\n"
                            "  --plan FILE   of the driver; see plan.h\n"
                            "  --forgetful   repeat unanswered changes with fresh keys, for the control run\n"
                            "\n"
                            "The daemon is found through $SESSIOND_SOCKET.\n";

static const struct option options[] = {
    {"log", required_argument, NULL, 'l'},
    {"recall", required_argument, NULL, 'r'},
    {"client", required_argument, NULL, 'c'},
    {"seed", required_argument, NULL, 's'},
    {"ops", required_argument, NULL, 'o'},
    {"window", required_argument, NULL, 'w'},
    {"plan", required_argument, NULL, 'p'},
    {"forgetful", no_argument, NULL, 'f'},
    {0},
};

static const char *read_options(struct load *load, int argc, char **argv, const char **ret_recall)
{
    const char *log = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'l':
            log = optarg;
            break;
        case 'r':
            *ret_recall = optarg;
            break;
        case 'c':
            load->number = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            load->seed = strtoull(optarg, NULL, 10);
            break;
        case 'o':
            load->ops_left = strtoull(optarg, NULL, 10);
            break;
        case 'w':
            load->window = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'p':
            load->plan = map_plan(optarg);
            break;
        case 'f':
            load->forgetful = true;
            break;
        default:
            die("%s", usage);
        }
    if (!log || load->seed == 0 || load->window == 0 || optind < argc)
        die("%s", usage);
    return log;
}

int main(int argc, char **argv)
{
    static struct load load = {.next_op = 1, .seed = 1, .ops_left = UINT64_MAX, .window = 6};
    struct sessiond_options client_options = {.retry_ms = PATIENCE_MS, .silence_ms = PATIENCE_MS};
    const char *log, *earlier = NULL;

    TAILQ_INIT(&load.open);
    TAILQ_INIT(&load.again);
    log = read_options(&load, argc, argv, &earlier);
    name_sessions(&load);
    recall(&load, earlier ? earlier : log);
    load.log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (load.log < 0)
        die("%s: %s", log, strerror(errno));
    if (load.forgetful)
        client_options.retry_ms = 1;
    if (sessiond_new(&load.client, &client_options))
        die("no client");
    work(&load);
    sessiond_free(load.client);
    close(load.log);
    return EXIT_SUCCESS;
}
