#include "reading.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "samples.h"

/* ---- what stands where ---- */

struct reader {
    struct reading *reading;
    size_t uids_capacity;
    bool failed; /* there was no memory */
};

/* Takes one sample. `offset`: of the number that it goes to, in what is meant. */
typedef void take_fn(struct reader *reader, const struct sample *sample, size_t offset);

static double *number_in(void *of, size_t offset)
{
    void *at = (char *)of + offset;

    return at;
}

/* Of several lanes this is the sum. */
static void take_number(struct reader *reader, const struct sample *sample, size_t offset)
{
    *number_in(reader->reading, offset) += sample->value;
}

static void take_info(struct reader *reader, const struct sample *sample, size_t offset)
{
    struct reading *reading = reader->reading;

    (void)offset;
    (void)snprintf(reading->version, sizeof(reading->version), "%s", sample_label(sample, "version"));
    (void)snprintf(reading->instance, sizeof(reading->instance), "%s", sample_label(sample, "instance"));
}

static void take_connections(struct reader *reader, const struct sample *sample, size_t offset)
{
    reader->reading->tells_all = true;
    take_number(reader, sample, offset);
}

/* What is above the largest bound that there is room for counts as infinite. */
static void add_bucket(struct spread *spread, const struct sample *sample)
{
    double at_most = strtod(sample_label(sample, "le"), NULL);
    size_t i = 0;

    while (i < spread->n_buckets && spread->buckets[i].at_most < at_most)
        i++;
    if (i == READING_BUCKETS)
        return;
    if (i == spread->n_buckets) {
        spread->buckets[i].at_most = at_most;
        spread->n_buckets++;
    }
    spread->buckets[i].n += sample->value;
}

static void take_bucket(struct reader *reader, const struct sample *sample, size_t offset)
{
    add_bucket((struct spread *)((char *)reader->reading + offset), sample);
}

/* Return: NULL if there is no room for it. */
static struct method_reading *method_of(struct reading *reading, const struct sample *sample)
{
    const char *name = sample_label(sample, "method");
    struct method_reading *method = reading->methods;

    for (; method < reading->methods + reading->n_methods; method++)
        if (strcmp(method->name, name) == 0)
            return method;
    if (reading->n_methods == READING_METHODS)
        return NULL;
    reading->n_methods++;
    (void)snprintf(method->name, sizeof(method->name), "%s", name);
    return method;
}

static void take_answers(struct reader *reader, const struct sample *sample, size_t offset)
{
    struct method_reading *method = method_of(reader->reading, sample);

    (void)offset;
    if (!method)
        return;
    method->answers += sample->value;
    if (strcmp(sample_label(sample, "outcome"), "done") != 0)
        method->refusals += sample->value;
}

static void take_method_bucket(struct reader *reader, const struct sample *sample, size_t offset)
{
    struct method_reading *method = method_of(reader->reading, sample);

    (void)offset;
    if (method)
        add_bucket(&method->seconds, sample);
}

static void take_method_number(struct reader *reader, const struct sample *sample, size_t offset)
{
    struct method_reading *method = method_of(reader->reading, sample);

    if (method)
        *number_in(method, offset) += sample->value;
}

/* The samples of one name are in the order of uids. Return: NULL without memory. */
static struct uid_reading *uid_of(struct reader *reader, uint64_t uid)
{
    struct reading *reading = reader->reading;
    size_t low = 0, high = reading->n_uids, capacity = reader->uids_capacity ? 2 * reader->uids_capacity : 16;
    struct uid_reading *uids;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (reading->uids[middle].uid < uid)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < reading->n_uids && reading->uids[low].uid == uid)
        return &reading->uids[low];
    if (reading->n_uids == reader->uids_capacity) {
        uids = reallocarray(reading->uids, capacity, sizeof(*uids));
        if (!uids)
            return NULL;
        reading->uids = uids;
        reader->uids_capacity = capacity;
    }
    uids = reading->uids + low;
    memmove(uids + 1, uids, (reading->n_uids++ - low) * sizeof(*uids));
    *uids = (struct uid_reading){.uid = uid};
    return uids;
}

static void take_uid(struct reader *reader, const struct sample *sample, size_t offset)
{
    struct uid_reading *uid = uid_of(reader, strtoull(sample_label(sample, "uid"), NULL, 10));

    if (uid)
        *number_in(uid, offset) += sample->value;
    else
        reader->failed = true;
}

#define OF(member) offsetof(struct reading, member)
#define OF_METHOD(member) offsetof(struct method_reading, member)
#define OF_UID(member) offsetof(struct uid_reading, member)

/* To show another number: a line here. A name that is not in it is passed over: newer daemons tell more. */
static const struct row {
    const char *name;
    take_fn *take;
    size_t offset;
    bool is_counter; /* of the numbers of the daemon itself */
} rows[] = {
    {"sessiond_info", take_info, 0, false},
    {"sessiond_uptime_seconds", take_number, OF(uptime), false},
    {"sessiond_connections", take_connections, OF(connections), false},
    {"sessiond_queue_requests", take_number, OF(queue_requests), false},
    {"sessiond_queue_bytes", take_number, OF(queue_bytes), false},
    {"sessiond_wal_bytes", take_number, OF(log_bytes), false},
    {"sessiond_history_bytes", take_number, OF(history_bytes), false},
    {"sessiond_history_sessions", take_number, OF(history_sessions), false},
    {"sessiond_history_hits_total", take_number, OF(history_hits), true},
    {"sessiond_history_misses_total", take_number, OF(history_misses), true},
    {"sessiond_rollbacks_total", take_number, OF(rollbacks), true},
    {"sessiond_batch_requests_bucket", take_bucket, OF(batch), false},
    {"sessiond_batch_requests_sum", take_number, OF(batch.sum), true},
    {"sessiond_batch_requests_count", take_number, OF(batch.n), true},
    {"sessiond_commit_duration_seconds_bucket", take_bucket, OF(commit), false},
    {"sessiond_commit_duration_seconds_sum", take_number, OF(commit.sum), true},
    {"sessiond_commit_duration_seconds_count", take_number, OF(commit.n), true},
    {"sessiond_requests_total", take_answers, 0, false},
    {"sessiond_request_duration_seconds_bucket", take_method_bucket, 0, false},
    {"sessiond_request_duration_seconds_sum", take_method_number, OF_METHOD(seconds.sum), false},
    {"sessiond_request_duration_seconds_count", take_method_number, OF_METHOD(seconds.n), false},
    {"sessiond_uid_answers_total", take_uid, OF_UID(answers), false},
    {"sessiond_uid_refusals_total", take_uid, OF_UID(refusals), false},
    {"sessiond_uid_connections", take_uid, OF_UID(connections), false},
    {"sessiond_uid_requests", take_uid, OF_UID(requests), false},
    {"sessiond_uid_bytes", take_uid, OF_UID(bytes), false},
};

enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

/* ---- reading ---- */

static void take(const struct sample *sample, void *arg)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, sample->name) == 0) {
            rows[i].take(arg, sample, rows[i].offset);
            return;
        }
}

int reading_read(struct reading *ret, struct sessiond_text text, size_t *ret_line)
{
    struct reader reader = {.reading = ret};
    char *copy = strndup(text.data, text.size);
    int r = 0;

    if (!copy)
        return -ENOMEM;
    *ret = (struct reading){0};
    *ret_line = samples_read(copy, take, &reader);
    free(copy);
    if (*ret_line)
        r = -EPROTO;
    else if (reader.failed)
        r = -ENOMEM;
    if (r)
        reading_deinit(ret);
    return r;
}

void reading_deinit(struct reading *reading)
{
    free(reading->uids);
    *reading = (struct reading){0};
}

/* ---- what has happened ---- */

static void spread_since(struct spread *now, const struct spread *before)
{
    for (size_t i = 0; i < now->n_buckets && i < before->n_buckets; i++)
        now->buckets[i].n -= before->buckets[i].n;
}

static void methods_since(struct reading *now, const struct reading *before)
{
    for (size_t i = 0; i < now->n_methods; i++)
        for (size_t j = 0; j < before->n_methods; j++) {
            struct method_reading *method = &now->methods[i];
            const struct method_reading *then = &before->methods[j];

            if (strcmp(method->name, then->name) != 0)
                continue;
            method->answers -= then->answers;
            method->refusals -= then->refusals;
            method->seconds.sum -= then->seconds.sum;
            method->seconds.n -= then->seconds.n;
            spread_since(&method->seconds, &then->seconds);
        }
}

static void uids_since(struct reading *now, const struct reading *before)
{
    size_t j = 0;

    for (size_t i = 0; i < now->n_uids; i++) {
        while (j < before->n_uids && before->uids[j].uid < now->uids[i].uid)
            j++;
        if (j == before->n_uids || before->uids[j].uid != now->uids[i].uid)
            continue;
        now->uids[i].answers -= before->uids[j].answers;
        now->uids[i].refusals -= before->uids[j].refusals;
    }
}

double reading_since(struct reading *now, const struct reading *before)
{
    if (strcmp(now->instance, before->instance) != 0 || now->uptime <= before->uptime)
        return now->uptime;
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].is_counter)
            *number_in(now, rows[i].offset) -= *number_in((struct reading *)before, rows[i].offset);
    spread_since(&now->batch, &before->batch);
    spread_since(&now->commit, &before->commit);
    methods_since(now, before);
    uids_since(now, before);
    return now->uptime - before->uptime;
}

/* ---- spreads ---- */

double spread_quantile(const struct spread *spread, double q)
{
    double total = spread->n_buckets ? spread->buckets[spread->n_buckets - 1].n : 0, wanted = q * total;
    double bound = 0, n = 0;

    if (total <= 0)
        return NAN;
    for (size_t i = 0; i < spread->n_buckets; i++) {
        double next = spread->buckets[i].at_most, n_next = spread->buckets[i].n;

        if (isinf(next))
            break;
        if (n_next >= wanted && n_next > n)
            return bound + (next - bound) * (wanted - n) / (n_next - n);
        bound = next;
        n = n_next;
    }
    return bound;
}

double spread_mean(const struct spread *spread)
{
    return spread->n > 0 ? spread->sum / spread->n : NAN;
}
