/*
 * A sequence of requests on one store in memory, from bytes to answers: some are raw frames, most are put together from
 * choices that the input makes, so that they reach the engine. Each is answered exactly once, with one whole response;
 * and what a session counts afterwards must be what the request and its answer say.
 *
 * There are no threads here: this file takes the place of lane.c, and runs a job where it is submitted. One transaction
 * is open from the first request to the last and then rolled back, so that every input finds the store empty.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "frame.h"
#include "fuzz.h"
#include "rpc/memory.h"
#include "rpc/request.h"

/* ---- the world around a request; one for all inputs ---- */

static struct config config;
static struct daemon fuzz_daemon = {.config = &config, .instance = "0123456789abcdef0123456789abcdef"};
static struct engine *engine;  /* of the default store */
static struct engine *nothing; /* of a store that does not exist */
static struct owner *owner;
static struct caller *caller;
static bool rolled_back; /* since somebody looked */

static void begin(void)
{
    MUST(sqlite_engine.begin(engine, true) == 0);
}

/* All that was answered is undone: as after a quarantine, what is remembered of it is not to be trusted. */
static void begin_again(void)
{
    sqlite_engine.rollback(engine);
    begin();
    LIST_FOR_EACH(link, &owner->stores)
    CONTAINER_OF(link, struct store, link)->lane.quarantines++;
    rolled_back = true;
}

bool lanes_read(struct lanes *lanes, size_t index, struct lane_reading *ret)
{
    (void)lanes;
    (void)index;
    (void)ret;
    return false;
}

void lane_adopt(struct lanes *lanes, struct lane_store *store, const struct engine_table *table, const char *directory)
{
    (void)lanes;
    *store = (struct lane_store){.table = table, .directory = directory};
}

uint64_t lane_wait_ms(const struct lane_store *store)
{
    (void)store;
    return 0; /* nothing ever waits here */
}

uint64_t lanes_wait_ms(struct lanes *lanes)
{
    (void)lanes;
    return 0;
}

int lane_submit(struct job *job)
{
    const struct store *store = CONTAINER_OF(job->store, struct store, lane);
    bool exists = store->name[0] != '\0', more = false;

    /* A copy has no place in a transaction, and a second store has no engine. */
    if (job->kind == JOB_STEPS || (exists && strcmp(store->name, "default") != 0)) {
        job->outcome = SESSIOND_UNAVAILABLE;
        return 0;
    }
    if (!exists)
        MUST(sqlite_engine.begin(nothing, false) == 0);
    job->outcome = job->run(job, &sqlite_engine, exists ? engine : nothing, &more);
    MUST(job->outcome >= 0 && job->outcome < SESSIOND_N_CODES);
    if (!exists)
        MUST(sqlite_engine.commit(nothing) == 0);
    else if (job->outcome == SESSIOND_FULL)
        begin_again();
    return 0;
}

static char state_dir[] = "/tmp/sd-fuzz-XXXXXX";

static void remove_state_dir(void)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/u/7", state_dir);
    (void)rmdir(path);
    snprintf(path, sizeof(path), "%s/u", state_dir);
    (void)rmdir(path);
    (void)rmdir(state_dir);
}

static void set_up(void)
{
    config_init(&config);
    log_setup((enum log_level)0);
    config.memory_bytes = 64 * 4096; /* so small that an input can fill it */
    config.item_bytes = 1024;
    config.stores_per_owner = 3;
    config.state_dir = mkdtemp(state_dir);
    config.socket_path = state_dir;
    MUST(config.state_dir);
    (void)atexit(remove_state_dir);
    for (size_t i = 0; i < N_ELEMENTS(fuzz_daemon.libraries); i++)
        fuzz_daemon.libraries[i].name = fuzz_daemon.libraries[i].version = "x";
    MUST(sqlite_setup(&config) == 0);
    MUST(sqlite_engine.open(&engine, NULL, &config) == 0);
    MUST(sqlite_engine.open(&nothing, NULL, &config) == 0);
}

/* ---- choices ---- */

struct choices {
    const uint8_t *data;
    size_t size;
};

static unsigned choose(struct choices *choices, unsigned n)
{
    if (choices->size == 0)
        return 0;
    choices->size--;
    return *choices->data++ % n;
}

static struct slice choose_bytes(struct choices *choices, size_t max)
{
    size_t size = choose(choices, 256);
    struct slice bytes;

    size = size < max ? size : max;
    size = size < choices->size ? size : choices->size;
    bytes = (struct slice){(const char *)choices->data, size};
    choices->data += size;
    choices->size -= size;
    return bytes;
}

static const char *const session_ids[] = {"a", "b", "c", "d"};
static const char *const keys[] = {"k0", "k1", "k2", "k3", "k4", "k5"};

static struct slice choose_item(struct choices *choices, char large[1025])
{
    static const char *const items[] = {"{}", "{ }", "{\"role\":\"user\",\"content\":\"\\ud800\"}", "{\"a\":[1,{}]}"};
    unsigned which = choose(choices, 8);

    if (which < N_ELEMENTS(items))
        return slice_of(items[which]);
    if (which == 4)
        return choose_bytes(choices, 64);
    memset(large, ' ', 1024);
    large[0] = '{';
    large[1023 + (which == 5)] = '}'; /* as large as may be, or a byte too large */
    return (struct slice){large, 1024 + (which == 5)};
}

/* ---- sessions as they are ---- */

struct standing {
    uint64_t count, head_seq, revision, epoch;
};

static int on_session(void *arg, const struct session_info *info)
{
    *(struct standing *)arg = (struct standing){info->count, info->head_seq, info->revision, info->epoch};
    return 0;
}

static struct standing standing_of(unsigned session)
{
    struct session_range range = {.prefix = slice_of(session_ids[session]), .limit = 1};
    struct standing standing = {0};
    bool more;

    MUST(sqlite_engine.list_sessions(engine, &range, on_session, &standing, &more) == 0);
    return standing;
}

static bool same(const struct standing *a, const struct standing *b)
{
    return a->count == b->count && a->head_seq == b->head_seq && a->revision == b->revision && a->epoch == b->epoch;
}

/* ---- one request ---- */

struct answer {
    bool refused;
    struct number removed, first_seq, last_seq, seq, revision, epoch, head_seq;
    struct text_list items, meta;
    bool more;
    struct slice item;
    struct message message;
    struct buf bytes;
};

static void read_answer(struct answer *answer, uint32_t msgid)
{
#define NUMBER(member)                                                                                                 \
    {                                                                                                                  \
#member, FIELD_NUMBER, FIELD_NIL, offsetof(struct answer, member), 0, 0                                        \
    }
    static const struct field fields[] = {
        NUMBER(removed),
        NUMBER(first_seq),
        NUMBER(last_seq),
        NUMBER(seq),
        NUMBER(revision),
        NUMBER(epoch),
        NUMBER(head_seq),
        {"items", FIELD_TEXT_LIST, 0, offsetof(struct answer, items), 0, 0},
        {"meta", FIELD_TEXT_LIST, FIELD_NIL_ELEMENTS, offsetof(struct answer, meta), 0, 0},
        {"more", FIELD_BOOL, 0, offsetof(struct answer, more), 0, 0},
        {"item", FIELD_TEXT, FIELD_NIL, offsetof(struct answer, item), 0, 0},
        {0},
    };
    static const struct field error_fields[] = {
        {"code", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct answer, item), 1, 0},
        {"message", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct answer, item), 1, 0},
        NUMBER(revision),
        NUMBER(epoch),
        {0},
    };
    struct frame_scan scan = FRAME_SCAN_INIT;
    char why[MESSAGE_WHY_SIZE];
    bool answerable;

    MUST(!answer->bytes.failed);
    MUST(frame_scan(&scan, answer->bytes.data, answer->bytes.size) == FRAME_WHOLE);
    MUST(scan.offset == answer->bytes.size);
    MUST(message_parse(&answer->message, buf_slice(&answer->bytes), &answerable, why) == 0);
    MUST(answer->message.type == MESSAGE_RESPONSE && answer->message.msgid == msgid);
    MUST(!answer->message.error != !answer->message.result);
    answer->refused = answer->message.error;
    MUST(message_read(&answer->message, answer->refused ? answer->message.error : answer->message.result,
                      answer->refused ? error_fields : fields, MESSAGE_IGNORE_UNKNOWN, answer, why) == 0);
}

static void answer_deinit(struct answer *answer)
{
    message_deinit(&answer->message);
    buf_deinit(&answer->bytes);
}

/* Drives it as a connection does. Takes the request. */
static void run(struct request *request, struct answer *ret)
{
    uint32_t msgid = request->message.msgid;
    enum request_stage stage;
    unsigned n_steps = 0;

    *ret = (struct answer){0};
    request->in_order = true;
    while ((stage = request_step(request)) != REQUEST_DONE) {
        if (stage == REQUEST_WORK)
            request_work(request);
        MUST(++n_steps < 100);
    }
    request_own_reply(request);
    ret->bytes = request->reply;
    request->reply = BUF_INIT;
    request_free(request);
    read_answer(ret, msgid);
}

/* Return: NULL if it is no request. */
static struct request *new_request(struct slice frame)
{
    char why[MESSAGE_WHY_SIZE] = "", *copy = malloc(frame.size);
    struct request *request = NULL;
    int r;

    MUST(copy);
    memcpy(copy, frame.data, frame.size);
    r = request_new(&request, &fuzz_daemon, caller, copy, frame.size, why);
    MUST(r == 0 ? request != NULL : r == SESSIOND_INVALID && why[0]);
    return request;
}

static void send_raw(struct choices *choices)
{
    struct slice bytes = choose_bytes(choices, 255);
    struct frame_scan scan = FRAME_SCAN_INIT;
    struct request *request;
    struct answer answer;

    while (bytes.size > 0 && frame_scan(&scan, bytes.data, bytes.size) == FRAME_WHOLE) {
        request = new_request((struct slice){bytes.data, scan.offset});
        if (!request)
            return;
        run(request, &answer);
        answer_deinit(&answer);
        bytes.data += scan.offset;
        bytes.size -= scan.offset;
        scan = FRAME_SCAN_INIT;
    }
}

/* ---- requests that are put together ---- */

enum kind { ADD, POP, CLEAR, REPLACE, DELETE, GET, N_KINDS };

static const char *const method_names[] = {"add_items",     "pop_item",       "clear_session",
                                           "replace_items", "delete_session", "get_items"};

struct plan {
    enum kind kind;
    unsigned session;
    bool keyed, with_meta;
    size_t n_items;
};

static uint64_t choose_number(struct choices *choices, uint64_t near)
{
    const uint64_t numbers[] = {0, 1, 2, 3, near, near + 1, near / 2, PROTO_NUMBER_MAX};

    return numbers[choose(choices, N_ELEMENTS(numbers))];
}

/* A map grows pair by pair; its head comes last. */
struct map {
    struct buf pairs;
    size_t n;
};

static void put_text(struct map *map, const char *key, struct slice text)
{
    pack_pair_text(&map->pairs, key, text);
    map->n++;
}

static void put_number(struct map *map, struct choices *choices, const char *key, uint64_t near)
{
    if (choose(choices, 4) != 0)
        return;
    pack_pair_number(&map->pairs, key, choose_number(choices, near));
    map->n++;
}

static void put_items(struct map *map, struct choices *choices, struct plan *plan)
{
    char large[1025];

    plan->n_items = choose(choices, 5);
    pack_text(&map->pairs, slice_of("items"));
    pack_array(&map->pairs, plan->n_items);
    for (size_t i = 0; i < plan->n_items; i++)
        pack_text(&map->pairs, choose_item(choices, large));
    map->n++;
}

/* Mostly one for each item, and mostly nothing. */
static void put_meta(struct map *map, struct choices *choices, const struct plan *plan)
{
    size_t n = plan->n_items + (choose(choices, 8) == 1);
    char large[1025];

    pack_text(&map->pairs, slice_of("meta"));
    pack_array(&map->pairs, n);
    for (size_t i = 0; i < n; i++)
        if (choose(choices, 2) == 1)
            pack_text(&map->pairs, choose_item(choices, large));
        else
            pack_nil(&map->pairs);
    map->n++;
}

static void put_change(struct map *map, struct choices *choices, struct plan *plan, const struct standing *was)
{
    plan->keyed = choose(choices, 2);
    if (plan->keyed)
        put_text(map, "key", slice_of(keys[choose(choices, N_ELEMENTS(keys))]));
    if (choose(choices, 8) == 1)
        put_text(map, "digest", slice_of("d"));
    put_number(map, choices, "if_revision", was->revision);
    put_number(map, choices, "if_epoch", was->epoch);
}

static void plan_request(struct choices *choices, struct plan *plan, const struct standing *was, struct map *map)
{
    put_text(map, "session", slice_of(session_ids[plan->session]));
    if (plan->kind == ADD || plan->kind == REPLACE)
        put_items(map, choices, plan);
    if (plan->kind == REPLACE)
        put_number(map, choices, "from_seq", was->head_seq);
    if (plan->kind == GET) {
        put_number(map, choices, "limit", was->count);
        put_number(map, choices, "after", was->head_seq);
        put_number(map, choices, "before", was->head_seq);
        put_number(map, choices, "max_bytes", 8);
        put_number(map, choices, "if_epoch", was->epoch);
        plan->with_meta = choose(choices, 2) == 1;
    } else {
        put_change(map, choices, plan, was);
    }
    if ((plan->kind == ADD || plan->kind == REPLACE) && choose(choices, 4) == 1)
        put_meta(map, choices, plan);
    if (plan->with_meta) {
        pack_pair_bool(&map->pairs, "with_meta", true);
        map->n++;
    }
}

/* What the session counts now, by what it counted before and what was answered. */
static void check_change(const struct plan *plan, const struct standing *was, const struct standing *is,
                         const struct answer *answer)
{
    bool adds = plan->kind == ADD || plan->kind == REPLACE;
    uint64_t removed = plan->kind == POP ? answer->item.data != NULL : answer->removed.value;
    uint64_t added = adds ? plan->n_items : 0;

    if (plan->kind == DELETE) {
        MUST(removed == was->count || plan->keyed);
        MUST(is->revision == 0 && is->count == 0);
        return;
    }
    MUST(answer->revision.value == is->revision && answer->epoch.value == is->epoch);
    MUST(is->count == was->count - removed + added);
    MUST(is->head_seq == was->head_seq + added);
    MUST(was->revision == 0 || removed == 0 ? is->epoch >= was->epoch : is->epoch > was->epoch);
    MUST(is->revision == was->revision || is->revision == was->revision + 1);
    MUST(added == 0 || answer->last_seq.value == is->head_seq);
    MUST(plan->kind != CLEAR || is->count == 0);
}

static void check_reading(const struct plan *plan, const struct standing *is, const struct answer *answer)
{
    MUST(answer->meta.present == plan->with_meta && answer->meta.n == (plan->with_meta ? answer->items.n : 0));
    MUST(answer->revision.value == is->revision && answer->epoch.value == is->epoch);
    MUST(answer->head_seq.value == is->head_seq);
    MUST(answer->items.n <= is->count);
    MUST(answer->first_seq.present == (answer->items.n > 0));
    MUST(answer->items.n == 0 || answer->last_seq.value - answer->first_seq.value + 1 >= answer->items.n);
    MUST(!answer->more || answer->items.n > 0);
}

static void send_planned(struct choices *choices, enum kind kind)
{
    struct plan plan = {.kind = kind, .session = choose(choices, N_ELEMENTS(session_ids))};
    struct standing was = standing_of(plan.session), is;
    struct buf frame = BUF_INIT;
    struct map map = {0};
    struct request *request;
    struct answer answer;

    plan_request(choices, &plan, &was, &map);
    pack_request(&frame, choose(choices, 256), method_names[kind]);
    pack_map(&frame, map.n);
    buf_append(&frame, map.pairs.data, map.pairs.size);
    rolled_back = false;
    request = new_request(buf_slice(&frame));
    MUST(request);
    run(request, &answer);

    is = standing_of(plan.session);
    if (answer.refused)
        MUST(rolled_back || same(&is, &was));
    else if (kind == GET)
        check_reading(&plan, &is, &answer);
    else if (!plan.keyed || !same(&is, &was)) /* with a key it may be a repeat, of which nothing came */
        check_change(&plan, &was, &is, &answer);
    answer_deinit(&answer);
    buf_deinit(&map.pairs);
    buf_deinit(&frame);
}

/* ---- an input ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct choices choices = {data, size};
    struct registry *registry;
    struct store_sizes sizes;
    unsigned which;

    if (!engine)
        set_up();
    MUST(memory_open(&fuzz_daemon.memory, 1 << 20) == 0);
    MUST(registry_open(&registry, &config, NULL, &sqlite_engine) == 0);
    fuzz_daemon.registry = registry;
    MUST(registry_owner(registry, 7, &owner) == 0);
    MUST(caller_new(&caller, registry, 7, &(const gid_t){7}, 1) == 0);
    caller->owner = owner;
    begin();
    while (choices.size > 0) {
        which = choose(&choices, N_KINDS + 2);
        if (which < N_KINDS)
            send_planned(&choices, (enum kind)which);
        else if (which == N_KINDS)
            send_raw(&choices);
        else if (choose(&choices, 16) == 0)
            begin_again();
    }
    sqlite_engine.rollback(engine);
    MUST(sqlite_engine.begin(engine, false) == 0);
    MUST(sqlite_engine.sizes(engine, &sizes) == 0);
    MUST(sizes.sessions == 0);
    MUST(sqlite_engine.commit(engine) == 0);
    memory_close(fuzz_daemon.memory);
    MUST(caller->account->used[ACCOUNT_BYTES] == 0);
    caller_release(caller);
    registry_close(registry);
    return 0;
}
