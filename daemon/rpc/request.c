#include "rpc/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "config/config.h"
#include "proto.h"
#include "rpc/methods.h"
#include "store/payment.h"

enum {
    PREPARE_ON_LOOP = 256 * 1024, /* bytes of a frame whose items the loop checks itself: some 0.2 ms */
    RETRY_MIN_MS = 20, /* what is told with `busy`: not before the queue of now is done with, within these bounds */
    RETRY_MAX_MS = 2000,
    SHOWN_METHOD = 64,      /* bytes of a method's name that there is not */
    REFUSAL_RESERVE = 1024, /* a refusal is at most this long */
    BORROW_MIN = 8192,      /* fewer bytes are copied: so small answers that are ready together leave together */
    VALUE_BYTES = 48,       /* memory that a MessagePack value of a request takes at most, once it is read */
};

/* ---- life ---- */

static void request_freep(struct request **request)
{
    request_free(*request);
}

int request_new(struct request **ret, struct daemon *daemon, struct caller *caller, char *frame, size_t size, char *why)
{
    _cleanup_(request_freep) struct request *request = calloc(1, sizeof(*request));
    bool answerable;
    int r;

    if (!request) {
        free(frame);
        return fault(ENOMEM, "request");
    }
    list_init(&request->link);
    list_init(&request->job.link);
    request->daemon = daemon;
    request->caller = caller_hold(caller);
    request->owner = caller->owner;
    request->frame = frame;
    request->frame_size = size;
    request->began_us = clock_monotonic_us();

    r = message_parse(&request->message, (struct slice){frame, size}, &answerable, why);
    if (r < 0)
        return fault(r, "parse a message");
    if (r && answerable)
        r = request_refuse(request, r, "%s", why);
    else if (r)
        return r;
    else if (request->message.type != MESSAGE_REQUEST) {
        snprintf(why, MESSAGE_WHY_SIZE, "only requests are taken from a client");
        return SESSIOND_INVALID;
    }
    request->outcome = r;
    *ret = TAKE(request);
    return 0;
}

void request_free(struct request *request)
{
    if (!request)
        return;
    if (request->backing_up)
        request->store->backing_up = false;
    message_deinit(&request->message);
    buf_deinit(&request->rows);
    buf_deinit(&request->meta_rows);
    buf_deinit(&request->seen);
    buf_deinit(&request->reply);
    free(request->frame);
    account_give_back(request->caller->account, ACCOUNT_BYTES, request->paid + request->paid_rows);
    account_give_back(request->caller->account, ACCOUNT_REQUESTS, request->counted);
    caller_release(request->caller);
    free(request);
}

/* ---- what it costs ---- */

void request_charge(struct request *request, uint64_t n_values)
{
    struct account *account = request->caller->account;
    size_t bytes = sizeof(*request) + request->frame_size + (size_t)n_values * VALUE_BYTES;

    request->counted = account_take(account, ACCOUNT_REQUESTS, 1);
    if (request->counted && account_take(account, ACCOUNT_BYTES, bytes)) {
        request->paid = bytes;
        return;
    }
    caller_note_limit(request->caller, request->counted ? ACCOUNT_BYTES : ACCOUNT_REQUESTS);
    if (!request->outcome)
        request->outcome = request_refuse(request, SESSIOND_BUSY, "%s of yours are at work; nothing was changed",
                                          request->counted ? "too many bytes" : "too many requests");
}

int request_charge_rows(struct request *request, size_t bytes)
{
    if (!account_take(request->caller->account, ACCOUNT_BYTES, bytes))
        return request_refuse(request, SESSIOND_BUSY, "too many bytes of answers wait to be read by you");
    request->paid_rows += bytes;
    return 0;
}

void request_charge_anyway(struct request *request, size_t bytes)
{
    account_take_anyway(request->caller->account, ACCOUNT_BYTES, bytes);
    request->paid_rows += bytes;
}

static void forget_rows(struct request *request)
{
    account_give_back(request->caller->account, ACCOUNT_BYTES, request->paid_rows);
    request->paid_rows = 0;
}

/* ---- answers ---- */

int request_refuse(struct request *request, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(request->details.why, sizeof(request->details.why), format, args);
    va_end(args);
    return code;
}

struct buf *request_answer(struct request *request)
{
    pack_response(&request->reply, request->message.msgid);
    return &request->reply;
}

void request_answer_with(struct request *request, struct slice bytes)
{
    if (bytes.size < BORROW_MIN) {
        buf_append(&request->reply, bytes.data, bytes.size);
        return;
    }
    request->body = bytes;
    request->body_at = request->reply.size;
}

void request_own_reply(struct request *request)
{
    struct slice body = request->body;
    struct buf *reply = &request->reply;
    size_t behind = reply->size - request->body_at;
    char *at;

    request->body = (struct slice){0};
    if (body.size == 0 || reply->failed)
        return;
    if (!buf_reserve(reply, body.size)) {
        reply->failed = true;
        return;
    }
    at = reply->data + request->body_at;
    memmove(at + body.size, at, behind);
    memcpy(at, body.data, body.size);
    buf_grow(reply, body.size);
}

/* Where the lane is not yet known, or not what is short, the busiest one tells when others will be done. */
static uint64_t retry_after_ms(const struct request *request)
{
    uint64_t ms = request->store ? lane_wait_ms(&request->store->lane) : registry_wait_ms(request->daemon->registry);

    return ms < RETRY_MIN_MS ? RETRY_MIN_MS : ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
}

static void pack_details(struct buf *reply, int code, const struct details *details, uint64_t retry_ms)
{
    bool conflict = code == SESSIOND_CONFLICT, busy = retry_ms > 0;

    pack_map(reply, 2 + (size_t)details->item.present + (size_t)details->limit.present + 2 * (size_t)conflict + busy);
    pack_pair_text(reply, "code", slice_of(proto_code_name(code)));
    pack_pair_text(reply, "message", slice_of(details->why[0] ? details->why : proto_code_meaning(code)));
    if (details->limit.present)
        pack_pair_number(reply, "limit", details->limit.value);
    if (details->item.present)
        pack_pair_number(reply, "item", details->item.value);
    if (conflict) {
        pack_pair_number(reply, "revision", details->revision);
        pack_pair_number(reply, "epoch", details->epoch);
    }
    if (busy)
        pack_pair_number(reply, "retry_after_ms", retry_ms);
}

/* What found its way to a store, whatever came of it. A shared store is everybody's: there it is counted for who asks,
 * so that nobody is told of a session by what others do with it. */
static void count_session(struct request *request)
{
    struct slice name = request->params.store;
    uid_t uid = request->shared ? request->caller->uid : request->owner->uid;

    if (request->store && request->params.session.data)
        busiest_count(&request->daemon->busiest, uid, name.data ? name : slice_of("default"), request->params.session,
                      request->began_us);
}

/* The one place where a code becomes an answer. */
static enum request_stage finish(struct request *request)
{
    int code = request->outcome < 0 ? SESSIOND_INTERNAL : request->outcome;

    if (request->job.refused)
        caller_note_limit(request->caller, payment_over(&request->store->lane, request->done.over));
    if (request->outcome < 0)
        request->details = (struct details){0};
    if (code) {
        request->retry_after_ms = code == SESSIOND_BUSY ? retry_after_ms(request) : 0;
        request->body = (struct slice){0};
        request->reply.size = 0;
        request->reply.failed = false;
        pack_refusal(&request->reply, request->message.msgid);
        pack_details(&request->reply, code, &request->details, request->retry_after_ms);
        pack_nil(&request->reply);
    }
    metrics_count(request, code);
    count_session(request);
    return REQUEST_DONE;
}

/* ---- stages ---- */

/* So many bytes of a text at most, and no half character: what is told to a client is UTF-8. */
static int shown_size(struct slice text, size_t max)
{
    size_t size = text.size < max ? text.size : max;

    while (size > 0 && size < text.size && ((unsigned char)text.data[size] & 0xc0) == 0x80)
        size--;
    return (int)size;
}

/* What the caller may not read is not there: the rest of the way finds no store then, whether it is declared or not. */
static int check_right(struct request *request)
{
    struct slice name = request->params.store;
    enum right right = RIGHT_NONE;
    int r;

    if (request->method->right == RIGHT_NONE || name.size < 2 || name.data[0] != '@')
        return 0;
    r = registry_shared(request->daemon->registry, name, request->caller, &right, &request->shared);
    if (r == SESSIOND_NOT_FOUND || (r == 0 && right < request->method->right))
        caller_audit(request->caller, "store", name);
    if (r < 0)
        return r;
    return r || right >= request->method->right
               ? 0
               : request_refuse(request, SESSIOND_DENIED, "you may read this store%s",
                                right == RIGHT_APPEND ? " and append to it, but not do this" : ", but not do this");
}

struct store *request_existing_store(struct request *request)
{
    struct slice name = request->params.store;

    return request->shared ? request->shared
                           : owner_existing_store(request->owner, name.data ? name : slice_of("default"));
}

static int read_parameters(struct request *request)
{
    const struct message *message = &request->message;
    char why[MESSAGE_WHY_SIZE];
    int r;

    request->method = method_find(message->method);
    if (!request->method)
        return request_refuse(request, SESSIOND_UNKNOWN_METHOD, "there is no method \"%.*s\"",
                              shown_size(message->method, SHOWN_METHOD), message->method.data);
    r = message_read(message, message->params, request->method->fields, MESSAGE_REFUSE_UNKNOWN, &request->params, why);
    if (r < 0)
        return fault(r, "read parameters");
    if (r)
        return request_refuse(request, r, "%s", why);
    if ((r = check_right(request)))
        return r;
    return request->method->check ? request->method->check(request) : 0;
}

static int on_lane(struct job *job, const struct engine_table *table, struct engine *engine, bool *ret_more)
{
    struct request *request = CONTAINER_OF(job, struct request, job);
    int r;

    forget_rows(request);
    request->n = request->n_kept;
    request->rows.size = request->rows_kept;
    request->meta_rows.size = 0;
    request->seen.size = 0;
    request->reply.size = 0;
    request->body = (struct slice){0};
    request->rows.failed = request->meta_rows.failed = request->seen.failed = request->reply.failed = false;
    if (!buf_reserve(&request->reply, REFUSAL_RESERVE))
        return fault(ENOMEM, "reserve an answer");
    r = request->method->run(request, table, engine, ret_more);
    if (r == 0 && (request->reply.failed || request->rows.failed || request->meta_rows.failed || request->seen.failed))
        return fault(ENOMEM, "make an answer");
    return r;
}

/* A change with a key leaves a receipt, and one with items leaves items: these make a store that is not there. */
static bool makes_store(const struct request *request)
{
    return request->method->kind == JOB_CHANGE && (request->params.key.data || request->params.items.n > 0);
}

static int find_store(struct request *request)
{
    struct slice name = request->params.store;
    int r;

    if (request->shared) {
        request->store = request->shared;
        return 0;
    }
    r = owner_store(request->owner, name, makes_store(request), &request->store);

    if (r == SESSIOND_INVALID)
        return request_refuse(request, r, "store: a name is 1 to 127 of a-z 0-9 . _ -, and begins with a-z 0-9");
    if (r == SESSIOND_NOT_FOUND)
        return request_refuse(request, r, "no shared store of this name is declared for you");
    if (r == SESSIOND_TOO_LARGE) {
        request->details.limit = (struct number){true, request->daemon->config->stores_per_owner};
        return request_refuse(request, r, "too many stores");
    }
    return r;
}

static int submit(struct request *request)
{
    request->job.store = &request->store->lane;
    request->job.account = request->caller->account;
    request->job.kind = request->method->kind;
    request->job.frees = request->method->frees;
    request->job.run = on_lane;
    request->job.size = request->frame_size;
    request->n_kept = request->n;
    request->rows_kept = request->rows.size;
    return lane_submit(&request->job);
}

/* Each of these begins a stage. Return: true if something else has to happen before the next one. */
static bool begin_prepare(struct request *request, enum request_stage *ret)
{
    request->stage = STAGE_PREPARE;
    if (request->outcome || !request->method->prepare)
        return false;
    *ret = REQUEST_WORK;
    if (request->frame_size > PREPARE_ON_LOOP)
        return true;
    request_work(request);
    return false;
}

static bool begin_store(struct request *request, enum request_stage *ret)
{
    const struct method *method = request->method;
    bool first = request->stage != STAGE_STORE;

    request->stage = STAGE_STORE;
    if (!method || !method->run || (first && request->outcome))
        return false;
    if (method->again && !method->again(request, request->outcome)) {
        request->outcome = 0;
        return false;
    }
    if (!method->again && (!first || (request->outcome = find_store(request))))
        return false;
    if (method->recall && method->recall(request))
        return false;
    request->outcome = submit(request);
    *ret = REQUEST_WAIT;
    return request->outcome == 0;
}

static bool begin_settle(struct request *request, enum request_stage *ret)
{
    request->stage = STAGE_SETTLE;
    *ret = REQUEST_WORK;
    return !request->outcome && request->method->settle;
}

static void make_answer(struct request *request)
{
    if (request->outcome || !request->method->answer)
        return;
    request->outcome = request->method->answer(request);
    if (!request->outcome && (request->reply.failed || request->rows.failed))
        request->outcome = fault(ENOMEM, "make an answer");
}

enum request_stage request_step(struct request *request)
{
    enum request_stage next;

    switch (request->stage) {
    case STAGE_CHECK:
        if (!request->outcome)
            request->outcome = read_parameters(request);
        if (begin_prepare(request, &next))
            return next;
        __attribute__((fallthrough));
    case STAGE_PREPARE:
        if (begin_store(request, &next))
            return next;
        break;
    case STAGE_STORE:
        request->outcome = request->job.outcome;
        if (request->method->learn)
            request->method->learn(request);
        if (begin_store(request, &next))
            return next;
        break;
    case STAGE_SETTLE:
        make_answer(request);
        return finish(request);
    }
    if (begin_settle(request, &next))
        return next;
    make_answer(request);
    return finish(request);
}

void request_work(struct request *request)
{
    const struct method *method = request->method;

    request->outcome = request->stage == STAGE_PREPARE ? method->prepare(request) : method->settle(request);
}
