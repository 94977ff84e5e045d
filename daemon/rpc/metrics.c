#include "rpc/metrics.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "config/config.h"
#include "rpc/memory.h"
#include "rpc/methods.h"

enum { UIDS_SHOWN = 1000 }; /* in the order of uids: the answer stays small */

void metrics_count(const struct request *request, int code)
{
    struct metrics *metrics = &request->daemon->metrics;
    struct account *account = request->caller->account;
    size_t index = request->method ? method_index(request->method) + 1 : 0;

    metrics->answers[index][code]++;
    histogram_add(&metrics->latency_us[index], clock_monotonic_us() - request->began_us);
    account->n_answered++;
    account->n_refused += code != 0;
}

/* ---- lines ---- */

static void head(struct buf *text, const char *name, const char *type, const char *help)
{
    buf_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(struct buf *text, const char *name, const char *type, const char *help, uint64_t value)
{
    head(text, name, type, help);
    buf_printf(text, "%s %" PRIu64 "\n", name, value);
}

/* `scale`: what a unit of the histogram is, as Prometheus has it: 1e-6 makes seconds of microseconds. */
static void histogram(struct buf *text, const char *name, const char *label, const char *of,
                      const struct histogram *histogram, double scale)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        n += counter_read(&histogram->n[i]);
        buf_printf(text, "%s_bucket{%s=\"%s\",le=\"%.9g\"} %" PRIu64 "\n", name, label, of,
                   (double)(UINT64_C(1) << i) * scale, n);
    }
    n += counter_read(&histogram->n[HISTOGRAM_BUCKETS - 1]);
    buf_printf(text, "%s_bucket{%s=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, label, of, n);
    buf_printf(text, "%s_sum{%s=\"%s\"} %.9g\n", name, label, of, (double)counter_read(&histogram->sum) * scale);
    buf_printf(text, "%s_count{%s=\"%s\"} %" PRIu64 "\n", name, label, of, n);
}

/* ---- the daemon ---- */

static const char *method_name_at(size_t index)
{
    return index ? method_at(index - 1) : "unknown";
}

static void write_answers(struct buf *text, const struct metrics *metrics)
{
    head(text, "sessiond_requests_total", "counter", "Requests answered, by method and outcome.");
    for (size_t i = 0; method_name_at(i); i++)
        for (int code = 0; code < SESSIOND_N_CODES; code++)
            if (metrics->answers[i][code] || (code == 0 && i))
                buf_printf(text, "sessiond_requests_total{method=\"%s\",outcome=\"%s\"} %" PRIu64 "\n",
                           method_name_at(i), code ? proto_code_name(code) : "done", metrics->answers[i][code]);
    head(text, "sessiond_request_duration_seconds", "histogram", "From the whole frame to the answer, by method.");
    for (size_t i = 1; method_name_at(i); i++)
        histogram(text, "sessiond_request_duration_seconds", "method", method_name_at(i), &metrics->latency_us[i],
                  1e-6);
}

static void write_lane_histograms(struct buf *text, struct lanes *lanes)
{
    struct lane_reading lane;

    head(text, "sessiond_batch_requests", "histogram", "Requests that shared a transaction.");
    for (size_t i = 0; lanes_read(lanes, i, &lane); i++)
        histogram(text, "sessiond_batch_requests", "lane", lane.name, &lane.counts->batch, 1);
    head(text, "sessiond_commit_duration_seconds", "histogram", "To commit changes: to write the log and sync it.");
    for (size_t i = 0; lanes_read(lanes, i, &lane); i++)
        histogram(text, "sessiond_commit_duration_seconds", "lane", lane.name, &lane.counts->commit_us, 1e-6);
    head(text, "sessiond_sync_duration_seconds", "histogram",
         "To sync a database or its log (fdatasync), in commits, checkpoints and all else.");
    for (size_t i = 0; lanes_read(lanes, i, &lane); i++)
        histogram(text, "sessiond_sync_duration_seconds", "lane", lane.name, &lane.counts->sync_us, 1e-6);
}

static void write_lane_numbers(struct buf *text, struct lanes *lanes)
{
    static const struct {
        const char *name, *type, *help;
        size_t offset;
    } numbers[] = {
        {"sessiond_rollbacks_total", "counter", "Transactions that were rolled back.",
         offsetof(struct lane_reading, rollbacks)},
        {"sessiond_queue_requests", "gauge", "Requests that wait for a lane.", offsetof(struct lane_reading, n_jobs)},
        {"sessiond_queue_bytes", "gauge", "Bytes of requests that wait for a lane.",
         offsetof(struct lane_reading, bytes)},
        {"sessiond_wal_bytes", "gauge", "In the write-ahead logs of a lane's open stores.",
         offsetof(struct lane_reading, log_bytes)},
    };
    struct lane_reading lane;

    for (size_t n = 0; n < N_ELEMENTS(numbers); n++) {
        head(text, numbers[n].name, numbers[n].type, numbers[n].help);
        for (size_t i = 0; lanes_read(lanes, i, &lane); i++)
            buf_printf(text, "%s{lane=\"%s\"} %" PRIu64 "\n", numbers[n].name, lane.name,
                       *(const uint64_t *)((const char *)&lane + numbers[n].offset));
    }
}

static void write_daemon(struct buf *text, const struct daemon *daemon)
{
    struct memory_use use = memory_use(daemon->memory);

    one(text, "sessiond_connections", "gauge", "Open connections.", daemon->n_connections);
    write_answers(text, &daemon->metrics);
    write_lane_histograms(text, daemon->lanes);
    write_lane_numbers(text, daemon->lanes);
    one(text, "sessiond_history_bytes", "gauge", "Recent histories kept in memory.", use.bytes);
    one(text, "sessiond_history_sessions", "gauge", "Sessions whose history is kept in memory.", use.sessions);
    one(text, "sessiond_history_hits_total", "counter", "Reads answered from memory.", use.hits);
    one(text, "sessiond_history_misses_total", "counter", "Reads that a lane had to answer.", use.misses);
}

/* ---- the uids ---- */

struct shown {
    const struct account *accounts[UIDS_SHOWN];
    size_t n;
};

static void show(const struct account *account, void *arg)
{
    struct shown *shown = arg;

    if (shown->n < UIDS_SHOWN)
        shown->accounts[shown->n++] = account;
}

static void write_uids_taken(struct buf *text, const struct shown *shown, enum account_resource what)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "sessiond_uid_%s", account_resource_name(what));
    head(text, name, "gauge", "What a uid has taken of a limited thing; see `use` in info.");
    for (size_t i = 0; i < shown->n; i++)
        buf_printf(text, "%s{uid=\"%u\"} %" PRIu64 "\n", name, shown->accounts[i]->uid,
                   (uint64_t)atomic_load(&shown->accounts[i]->used[what]));
}

static void write_limits(struct buf *text, const struct accounts *all, enum account_whose whose, const char *name,
                         const char *help)
{
    head(text, name, "gauge", help);
    for (enum account_resource what = 0; what < ACCOUNT_N_RESOURCES; what++)
        buf_printf(text, "%s{what=\"%s\"} %" PRIu64 "\n", name, account_resource_name(what),
                   account_limit(all, what, whose));
}

static void write_uids(struct buf *text, const struct shown *shown)
{
    head(text, "sessiond_uid_answers_total", "counter", "Requests of a uid that were answered.");
    for (size_t i = 0; i < shown->n; i++)
        buf_printf(text, "sessiond_uid_answers_total{uid=\"%u\"} %" PRIu64 "\n", shown->accounts[i]->uid,
                   shown->accounts[i]->n_answered);
    head(text, "sessiond_uid_refusals_total", "counter", "Of those, the ones that were refused or failed.");
    for (size_t i = 0; i < shown->n; i++)
        buf_printf(text, "sessiond_uid_refusals_total{uid=\"%u\"} %" PRIu64 "\n", shown->accounts[i]->uid,
                   shown->accounts[i]->n_refused);
    for (enum account_resource what = 0; what < ACCOUNT_N_RESOURCES; what++)
        write_uids_taken(text, shown, what);
}

/* ---- shared stores, which are no uid's ---- */

static void write_shared_sessions(const char *name, const struct account *account, void *arg)
{
    buf_printf(arg, "sessiond_shared_sessions{store=\"%s\"} %" PRIu64 "\n", name,
               (uint64_t)atomic_load(&account->used[ACCOUNT_SESSIONS]));
}

static void write_shared_disk_bytes(const char *name, const struct account *account, void *arg)
{
    buf_printf(arg, "sessiond_shared_disk_bytes{store=\"%s\"} %" PRIu64 "\n", name,
               (uint64_t)atomic_load(&account->used[ACCOUNT_DISK]));
}

static void write_shared(struct buf *text, struct registry *registry)
{
    head(text, "sessiond_shared_sessions", "gauge", "Sessions of a shared store.");
    registry_each_shared(registry, write_shared_sessions, text);
    head(text, "sessiond_shared_disk_bytes", "gauge", "Bytes of a shared store on the disk.");
    registry_each_shared(registry, write_shared_disk_bytes, text);
}

/* ---- the text ---- */

bool metrics_tells_all(const struct daemon *daemon, const struct caller *caller)
{
    return !daemon->config->system || caller_is_administrator(caller);
}

void metrics_write(struct buf *text, const struct daemon *daemon, const struct caller *caller)
{
    struct shown shown = {.n = 0};

    buf_printf(text, "# HELP sessiond_info The daemon.\n# TYPE sessiond_info gauge\n");
    buf_printf(text, "sessiond_info{version=\"" SESSIOND_VERSION "\",instance=\"%s\"} 1\n", daemon->instance);
    head(text, "sessiond_uptime_seconds", "gauge", "Since the daemon started.");
    buf_printf(text, "sessiond_uptime_seconds %.6f\n", (double)(clock_monotonic_us() - daemon->started_us) / 1e6);
    if (metrics_tells_all(daemon, caller)) {
        write_daemon(text, daemon);
        registry_each_account(daemon->registry, show, &shown);
    } else {
        show(caller->account, &shown);
    }
    write_uids(text, &shown);
    write_limits(text, caller->account->all, ACCOUNT_OF_ONE, "sessiond_uid_limit",
                 "What a uid may take of each thing.");
    if (!metrics_tells_all(daemon, caller))
        return;
    write_limits(text, caller->account->all, ACCOUNT_OF_ALL, "sessiond_limit", "What all together may take of it.");
    write_shared(text, daemon->registry);
}

/* ---- the method ---- */

static void pack_busiest(struct buf *reply, const struct busy_session *sessions, size_t n)
{
    pack_array(reply, n);
    for (size_t i = 0; i < n; i++) {
        pack_map(reply, 4);
        pack_pair_number(reply, "uid", sessions[i].uid);
        pack_pair_text(reply, "store", sessions[i].store);
        pack_pair_text(reply, "session", sessions[i].session);
        pack_pair_number(reply, "requests", sessions[i].n_requests);
    }
}

static void answer(struct request *request, const struct buf *text)
{
    struct daemon *daemon = request->daemon;
    struct number top = request->params.top;
    enum busiest_whose whose = metrics_tells_all(daemon, request->caller) ? BUSIEST_OF_ALL : BUSIEST_OF_ONE;
    struct busy_session sessions[PROTO_TOP_MAX];
    struct buf *reply = request_answer(request);

    pack_map(reply, 1 + (size_t)top.present);
    pack_pair_text(reply, "text", buf_slice(text));
    if (top.present) {
        pack_text(reply, slice_of("sessions"));
        pack_busiest(
            reply, sessions,
            busiest_read(&daemon->busiest, whose, request->caller->uid, clock_monotonic_us(), sessions, top.value));
    }
    reply->failed |= text->failed;
}

int stats_answer(struct request *request)
{
    size_t session_bytes = request->params.top.value * sizeof(struct busy_place);
    struct buf text = BUF_INIT;
    int r;

    metrics_write(&text, request->daemon, request->caller);
    r = request_charge_rows(request, 2 * text.size + session_bytes);
    if (r == 0)
        answer(request, &text);
    buf_deinit(&text);
    return r;
}
