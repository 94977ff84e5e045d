/*
 * `sessionctl top`: what the daemon is doing, from one look at `stats` to the next. On a terminal a screen that is
 * drawn anew each while; elsewhere, or with --json, one page or so many as --times says.
 *
 * One loop waits for the daemon, the clock, the keys and the signals, so that a daemon that is slow or away never makes
 * a screen that cannot be left.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "reading.h"
#include "screen.h"

enum {
    SESSIONS = 20,     /* that are asked for */
    PAGE_ROWS = 10,    /* of the other tables, where there is no terminal to fill */
    EVERY_MAX = 86400, /* seconds */
    ID_BYTES = 256,    /* a store's name or a session's id at most, and a NUL */
    TROUBLE_BYTES = 256,
};

struct busy {
    uint64_t uid, requests;
    size_t store_size, session_size;
    char store[ID_BYTES], session[ID_BYTES];
};

struct top {
    struct sessiond *client;
    struct screen screen;
    uint64_t every_ms;
    uint64_t times;   /* pages that are wanted; 0: until somebody ends it */
    uint64_t n_pages; /* so far */
    int64_t ask_at;   /* ms: when it is time to ask again */

    struct reading last;   /* what the counters were, */
    struct reading change; /* what has happened then, */
    double seconds;        /* and in how many */
    struct busy busy[SESSIONS];
    size_t n_busy;

    bool json;
    bool asking;      /* an answer is to come */
    bool has_looked;  /* `last` and the rest are there */
    bool since_start; /* `change` is all since the daemon's start */
    bool over;
    int status;                  /* of the program, when it is over, */
    int signal;                  /* and the one that ended it; 0: none did */
    char trouble[TROUBLE_BYTES]; /* why there is no answer at the moment; empty: there is one */
};

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static double rate(const struct top *top, double n)
{
    return top->seconds > 0 ? n / top->seconds : 0;
}

static void end(struct top *top, int status)
{
    top->over = true;
    top->status = status;
}

/* ---- numbers for people: each in eight columns at most ---- */

struct shown {
    char text[24];
};

static struct shown show_scaled(double value, double step, const char *const units[], size_t n_units)
{
    struct shown shown;
    size_t i = 0;

    while (i + 1 < n_units && value >= 999.5) {
        value /= step;
        i++;
    }
    (void)snprintf(shown.text, sizeof(shown.text),
                   value < 9.95 && (i > 0 || value != (double)(long)value) ? "%.1f%s" : "%.0f%s", value, units[i]);
    return shown;
}

static struct shown show_number(double value)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};

    return show_scaled(value, 1000, units, 5);
}

static struct shown show_bytes(double value)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};

    return show_scaled(value, 1024, units, 5);
}

static struct shown show_seconds(double value)
{
    static const char *const units[] = {" us", " ms", " s"};
    struct shown none = {"-"};

    return isnan(value) ? none : show_scaled(value * 1e6, 1000, units, 3);
}

static struct shown show_mean(double value)
{
    struct shown none = {"-"};

    return isnan(value) ? none : show_number(value);
}

/* ---- what is busiest ---- */

static int compare_methods(const void *a, const void *b)
{
    const struct method_reading *x = a, *y = b;

    return (x->answers < y->answers) - (x->answers > y->answers);
}

static int compare_uids(const void *a, const void *b)
{
    const struct uid_reading *x = a, *y = b;

    if (x->answers != y->answers)
        return x->answers < y->answers ? 1 : -1;
    if (x->requests != y->requests)
        return x->requests < y->requests ? 1 : -1;
    return (x->uid > y->uid) - (x->uid < y->uid);
}

static void sum_up(struct reading *change, double *ret_answers, double *ret_refusals)
{
    *ret_answers = *ret_refusals = 0;
    for (size_t i = 0; i < change->n_methods; i++) {
        *ret_answers += change->methods[i].answers;
        *ret_refusals += change->methods[i].refusals;
    }
}

/* ---- the page ---- */

static void draw_head(struct top *top)
{
    const struct reading *now = &top->last;
    uint64_t up = (uint64_t)now->uptime;

    if (!screen_line(&top->screen))
        return;
    if (top->trouble[0]) {
        (void)printf("no answer: %s", top->trouble);
        return;
    }
    if (!top->has_looked)
        return;
    (void)printf("sessiond %s, up %" PRIu64 " d %02" PRIu64 ":%02" PRIu64 ":%02" PRIu64, now->version, up / 86400,
                 up / 3600 % 24, up / 60 % 60, up % 60);
    if (now->tells_all)
        (void)printf(", %.0f connections", now->connections);
    if (top->since_start)
        (void)fputs("; since its start", stdout);
    else
        (void)printf("; in %.1f s", top->seconds);
}

static void draw_daemon(struct top *top)
{
    struct reading *change = &top->change;
    double answers, refusals, reads = change->history_hits + change->history_misses;

    sum_up(change, &answers, &refusals);
    if (screen_line(&top->screen))
        (void)printf("requests %s/s, refused %s/s; waiting %.0f (%s); write-ahead logs %s",
                     show_number(rate(top, answers)).text, show_number(rate(top, refusals)).text,
                     change->queue_requests, show_bytes(change->queue_bytes).text, show_bytes(change->log_bytes).text);
    if (screen_line(&top->screen))
        (void)printf("batches of %s; commits %s/s, p50 %s, p99 %s; rolled back %s/s",
                     show_mean(spread_mean(&change->batch)).text, show_number(rate(top, change->commit.n)).text,
                     show_seconds(spread_quantile(&change->commit, 0.5)).text,
                     show_seconds(spread_quantile(&change->commit, 0.99)).text,
                     show_number(rate(top, change->rollbacks)).text);
    if (screen_line(&top->screen))
        (void)printf("in memory %s of %s sessions; %.1f %% of %s reads/s from there",
                     show_bytes(change->history_bytes).text, show_number(change->history_sessions).text,
                     reads > 0 ? 100 * change->history_hits / reads : 0, show_number(rate(top, reads)).text);
}

/* How many rows a table of n may have that has `after` tables behind it: an even share of what there is. */
static size_t share_of(const struct top *top, size_t n, int after)
{
    int room = top->screen.is_live ? screen_room(&top->screen) / (1 + after) - 2 : PAGE_ROWS;

    return room <= 0 ? 0 : n < (size_t)room ? n : (size_t)room;
}

static bool begin_table(struct top *top, const char *title)
{
    return screen_line(&top->screen) && screen_title(&top->screen, title);
}

static void draw_methods(struct top *top)
{
    struct reading *change = &top->change;
    size_t n = 0;

    qsort(change->methods, change->n_methods, sizeof(change->methods[0]), compare_methods);
    while (n < change->n_methods && change->methods[n].answers > 0)
        n++;
    if (!begin_table(top, "       /s  refused/s       p50       p99  METHOD"))
        return;
    n = share_of(top, n, 2);
    for (size_t i = 0; i < n && screen_line(&top->screen); i++) {
        const struct method_reading *method = &change->methods[i];

        (void)printf("%9s  %9s %9s %9s  %s", show_number(rate(top, method->answers)).text,
                     show_number(rate(top, method->refusals)).text,
                     show_seconds(spread_quantile(&method->seconds, 0.5)).text,
                     show_seconds(spread_quantile(&method->seconds, 0.99)).text, method->name);
    }
}

static void draw_uids(struct top *top)
{
    struct reading *change = &top->change;
    size_t n = share_of(top, change->n_uids, 1);

    qsort(change->uids, change->n_uids, sizeof(change->uids[0]), compare_uids);
    if (!begin_table(top, "       /s  refused/s in flight     bytes  connections  UID"))
        return;
    for (size_t i = 0; i < n && screen_line(&top->screen); i++) {
        const struct uid_reading *uid = &change->uids[i];

        (void)printf("%9s  %9s %9.0f %9s  %11.0f  %" PRIu64, show_number(rate(top, uid->answers)).text,
                     show_number(rate(top, uid->refusals)).text, uid->requests, show_bytes(uid->bytes).text,
                     uid->connections, uid->uid);
    }
}

static void draw_sessions(struct top *top)
{
    if (!begin_table(top, "   lately         UID  SESSION"))
        return;
    for (size_t i = 0; i < top->n_busy && screen_line(&top->screen); i++) {
        const struct busy *busy = &top->busy[i];

        (void)printf("%9" PRIu64 "  %10" PRIu64 "  ", busy->requests, busy->uid);
        print_escaped((struct sessiond_text){busy->store, busy->store_size});
        (void)fputs(" ", stdout);
        print_escaped((struct sessiond_text){busy->session, busy->session_size});
    }
}

static void draw(struct top *top)
{
    screen_begin(&top->screen);
    draw_head(top);
    if (top->has_looked && top->last.tells_all) {
        draw_daemon(top);
        draw_methods(top);
    } else if (top->has_looked && screen_line(&top->screen)) {
        (void)fputs("what concerns you; administrators see all", stdout);
    }
    if (top->has_looked) {
        draw_uids(top);
        draw_sessions(top);
    }
    screen_end(&top->screen);
}

/* ---- the same as JSON, on one line ---- */

static void print_json_number(const char *name, double value)
{
    if (isnan(value))
        (void)printf("\"%s\": null, ", name);
    else
        (void)printf("\"%s\": %.9g, ", name, value);
}

static void print_json_spread(const char *name, const struct top *top, const struct spread *spread)
{
    (void)printf("\"%s\": {", name);
    print_json_number("per_s", rate(top, spread->n));
    print_json_number("mean", spread_mean(spread));
    print_json_number("p50", spread_quantile(spread, 0.5));
    (void)printf("\"p99\": ");
    if (isnan(spread_quantile(spread, 0.99)))
        (void)printf("null}");
    else
        (void)printf("%.9g}", spread_quantile(spread, 0.99));
}

static void print_json_daemon(struct top *top)
{
    const struct reading *change = &top->change;
    double answers, refusals;

    sum_up(&top->change, &answers, &refusals);
    print_json_number("connections", change->connections);
    print_json_number("requests_per_s", rate(top, answers));
    print_json_number("refused_per_s", rate(top, refusals));
    print_json_number("queue_requests", change->queue_requests);
    print_json_number("queue_bytes", change->queue_bytes);
    print_json_number("wal_bytes", change->log_bytes);
    print_json_number("history_bytes", change->history_bytes);
    print_json_number("history_sessions", change->history_sessions);
    print_json_number("history_hits_per_s", rate(top, change->history_hits));
    print_json_number("history_misses_per_s", rate(top, change->history_misses));
    print_json_number("rollbacks_per_s", rate(top, change->rollbacks));
    print_json_spread("batch_requests", top, &change->batch);
    (void)printf(", ");
    print_json_spread("commit_seconds", top, &change->commit);
    (void)printf(", \"methods\": [");
    for (size_t i = 0; i < change->n_methods; i++) {
        const struct method_reading *method = &change->methods[i];

        (void)printf("%s{\"method\": ", i > 0 ? ", " : "");
        print_json_text(SESSIOND_TEXT(method->name));
        (void)printf(", ");
        print_json_number("per_s", rate(top, method->answers));
        print_json_number("refused_per_s", rate(top, method->refusals));
        print_json_spread("seconds", top, &method->seconds);
        (void)printf("}");
    }
    (void)printf("], ");
}

static void print_json_uids(const struct top *top)
{
    (void)printf("\"uids\": [");
    for (size_t i = 0; i < top->change.n_uids; i++) {
        const struct uid_reading *uid = &top->change.uids[i];

        (void)printf("%s{\"uid\": %" PRIu64 ", ", i > 0 ? ", " : "", uid->uid);
        print_json_number("per_s", rate(top, uid->answers));
        print_json_number("refused_per_s", rate(top, uid->refusals));
        (void)printf("\"connections\": %.0f, \"requests\": %.0f, \"bytes\": %.0f}", uid->connections, uid->requests,
                     uid->bytes);
    }
    (void)printf("], ");
}

static void print_json(struct top *top)
{
    (void)printf("{\"version\": ");
    print_json_text(SESSIOND_TEXT(top->last.version));
    (void)printf(", \"instance\": ");
    print_json_text(SESSIOND_TEXT(top->last.instance));
    (void)printf(", ");
    print_json_number("uptime_seconds", top->last.uptime);
    print_json_number("seconds", top->seconds);
    if (top->last.tells_all)
        print_json_daemon(top);
    print_json_uids(top);
    (void)printf("\"sessions\": [");
    for (size_t i = 0; i < top->n_busy; i++) {
        const struct busy *busy = &top->busy[i];

        (void)printf("%s{\"uid\": %" PRIu64 ", \"store\": ", i > 0 ? ", " : "", busy->uid);
        print_json_text((struct sessiond_text){busy->store, busy->store_size});
        (void)printf(", \"session\": ");
        print_json_text((struct sessiond_text){busy->session, busy->session_size});
        (void)printf(", \"requests\": %" PRIu64 "}", busy->requests);
    }
    (void)puts("]}");
    (void)fflush(stdout);
}

/* ---- looking ---- */

static void copy_id(char to[ID_BYTES], size_t *ret_size, struct sessiond_text text)
{
    *ret_size = text.size < ID_BYTES ? text.size : ID_BYTES - 1;
    memcpy(to, text.data, *ret_size);
}

static void keep_busy(struct top *top, const struct sessiond_top *answer)
{
    top->n_busy = answer->n_sessions < SESSIONS ? answer->n_sessions : SESSIONS;
    for (size_t i = 0; i < top->n_busy; i++) {
        const struct sessiond_busy *session = &answer->sessions[i];

        top->busy[i] = (struct busy){.uid = session->uid, .requests = session->requests};
        copy_id(top->busy[i].store, &top->busy[i].store_size, session->store);
        copy_id(top->busy[i].session, &top->busy[i].session_size, session->session);
    }
}

/* Return: 0, or -errno and the trouble says why. */
static int read_text(struct top *top, struct reading *ret, struct sessiond_text text)
{
    size_t line;
    int r = reading_read(ret, text, &line);

    if (r == -EPROTO)
        (void)snprintf(top->trouble, sizeof(top->trouble), "line %zu of what the daemon tells is no sample", line);
    else if (r)
        (void)snprintf(top->trouble, sizeof(top->trouble), "there is no memory");
    return r;
}

/* Keeps the counters for the next look. Return: 0 or -errno. */
static int compare_with_last(struct top *top, struct sessiond_text text)
{
    struct reading now, change;
    int r = read_text(top, &now, text);

    if (r)
        return r;
    r = read_text(top, &change, text);
    if (r) {
        reading_deinit(&now);
        return r;
    }
    top->seconds = reading_since(&change, &top->last);
    top->since_start = top->seconds >= now.uptime;
    reading_deinit(&top->last);
    reading_deinit(&top->change);
    top->last = now;
    top->change = change;
    return 0;
}

/* Whether what is there now is a page: a terminal shows at once what was since the daemon's start, and elsewhere a page
 * is what happens in a while. */
static void show(struct top *top, bool is_first)
{
    if (is_first && !top->screen.is_live)
        return;
    if (top->json)
        print_json(top);
    else
        draw(top);
    if (++top->n_pages == top->times || ferror(stdout))
        end(top, EXIT_DONE);
}

/* A screen waits for better times; a page does not. */
static void on_failure(struct top *top, int r)
{
    if (!top->screen.is_live || r > 0) {
        if (top->screen.is_live)
            screen_close(&top->screen);
        top->screen.is_live = false;
        end(top, refused(top->client, r));
        return;
    }
    (void)snprintf(top->trouble, sizeof(top->trouble), "%s", sessiond_last_error(top->client)->message);
    draw(top);
}

static void on_answer(struct sessiond *client, int r, const union sessiond_answer *answer, void *arg)
{
    struct top *top = arg;
    bool is_first = !top->has_looked;

    (void)client;
    top->asking = false;
    if (top->over)
        return;
    if (r) {
        on_failure(top, r);
        return;
    }
    top->trouble[0] = '\0';
    if (compare_with_last(top, answer->top.text) == 0) {
        top->has_looked = true;
        keep_busy(top, &answer->top);
    } else if (!top->screen.is_live) {
        end(top, complain(EXIT_REFUSED, "%s", top->trouble));
        return;
    }
    show(top, is_first);
}

static void ask(struct top *top)
{
    struct sessiond_call call = {.method = SESSIOND_STATS, .top = SESSIOND_SOME(SESSIONS)};
    int r = sessiond_send(top->client, &call, on_answer, top);

    top->ask_at = now_ms() + (int64_t)top->every_ms;
    top->asking = r == 0;
    if (r)
        on_failure(top, r);
}

/* ---- the loop ---- */

static int time_left(const struct top *top)
{
    int64_t left = top->ask_at - now_ms();
    int of_client = sessiond_timeout(top->client);

    left = top->asking ? INT32_MAX : left < 0 ? 0 : left;
    return of_client >= 0 && of_client < left ? of_client : (int)left;
}

static void grant(struct top *top, enum screen_wish wish)
{
    if (wish == SCREEN_QUIT)
        end(top, EXIT_DONE);
    else if (wish == SCREEN_DRAW && !top->over)
        draw(top);
}

static void turn(struct top *top)
{
    bool is_live = top->screen.is_live;
    struct pollfd fds[] = {
        {.fd = sessiond_fd(top->client), .events = sessiond_events(top->client)},
        {.fd = top->screen.signals, .events = POLLIN},
        {.fd = is_live ? STDIN_FILENO : -1, .events = POLLIN},
    };
    int n = poll(fds, 3, time_left(top));

    if (n < 0 && errno != EINTR) {
        end(top, EXIT_REFUSED);
        return;
    }
    if (fds[1].revents)
        grant(top, screen_read_signals(&top->screen, &top->signal));
    if (fds[2].revents & POLLIN)
        grant(top, screen_read_keys());
    if (fds[2].revents & (POLLHUP | POLLERR | POLLNVAL))
        end(top, EXIT_DONE); /* the terminal is gone */
    if (!top->over)
        (void)sessiond_process(top->client, n > 0 ? fds[0].revents : 0);
    if (!top->over && !top->asking && now_ms() >= top->ask_at)
        ask(top);
}

/* What was told to end by a signal ends by it, but for the one of a key. */
static void end_by_signal(int number)
{
    if (number == 0 || number == SIGINT)
        return;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* A terminal that can draw a page in place. */
static bool is_terminal(void)
{
    const char *term = getenv("TERM");

    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

static int read_flags(struct top *top, const struct invocation *invocation)
{
    struct sessiond_number every = invocation->every, times = invocation->times;

    if (every.given && (every.value < 1 || every.value > EVERY_MAX))
        return complain(EXIT_USAGE, "--every takes 1 to %d seconds", EVERY_MAX);
    top->every_ms = (every.given ? every.value : 1) * 1000;
    top->json = invocation->json;
    top->screen.is_live = !top->json && !times.given && is_terminal();
    top->times = times.given ? times.value : top->screen.is_live ? 0 : 1;
    return 0;
}

int command_top(struct sessiond *client, const struct invocation *invocation)
{
    static struct top top; /* a call that is under way is answered when the client goes, after this */
    int r, status = read_flags(&top, invocation);

    if (status)
        return status;
    top.client = client;
    r = screen_open(&top.screen, top.screen.is_live);
    if (r)
        return complain(EXIT_REFUSED, "the terminal: %s", strerrordesc_np(-r));
    while (!top.over)
        turn(&top);
    screen_close(&top.screen);
    reading_deinit(&top.last);
    reading_deinit(&top.change);
    end_by_signal(top.signal);
    return top.status;
}
