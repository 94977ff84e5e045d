/*
 * Random changes and reads against a store and against a model of it that is as plain as it can be written: arrays of
 * texts. Transactions are committed and rolled back, stores closed and opened, keys repeated and reused. What the
 * engine answers must be what the model says.
 *
 * A store on a disk is also killed, in and between transactions, and its reads, writes and syncs fail. Then a change
 * that was committed is there, one that was refused is not, and of one whose commit is uncertain the model follows what
 * the store says when it is opened anew: all of it, or nothing.
 *
 * In every second run receipts expire at once: each restart and what is tended after it sweeps all that stands in the
 * log; then no key is used twice.
 *
 * SESSIOND_TEST_SEED=N repeats a run, SESSIOND_TEST_OPERATIONS=N makes it longer; the seed is printed. `make model`
 * runs many seeds.
 */
#include <inttypes.h>

#include "contract.h"
#include "faulty.h"

enum {
    SESSIONS = 6,
    KEYS = 40,
    ITEMS = 64, /* a session never holds more */
    TEXT = 16,
    OPERATIONS = 20000,
    SMALL_CACHE = 16 * 1024, /* pages come and go: reads and writes, and so faults, in the midst of a transaction */
};

/* What happened in a run. */
static struct {
    uint64_t operations, restarts, kills, faults;
    uint64_t refused, kept, gone; /* transactions: refused by a fault; uncertain, and then there, or not */
} counts;

/* ---- the model ---- */

struct text {
    uint64_t seq;
    char text[TEXT]; /* "item", or "item+what stands beside it" */
};

struct model_session {
    bool exists;
    unsigned life;      /* how many sessions of this name there have been */
    uint64_t epoch_max; /* of them all */
    uint64_t head_seq, revision, epoch;
    size_t n;
    struct text items[ITEMS];
};

enum kind_of_change { ADD, POP, CLEAR, REPLACE, DELETE, N_KINDS };

/* What a key names, and what it answered. */
struct receipt {
    bool exists;
    enum kind_of_change kind;
    unsigned session, life; /* life 0: the session did not exist, so no delete takes the receipt away */
    char print;
    struct change_result done;
    char popped[TEXT]; /* empty: nothing, or erased */
    bool erased;
};

struct model {
    struct model_session sessions[SESSIONS];
    struct receipt receipts[KEYS];
};

static struct model model, before; /* before: as it was when the transaction began */

static const char *const session_ids[SESSIONS] = {"a", "b", "aa", "user_123", "\xc3\xa9", "z"};
static char key_names[KEYS][24];
static bool receipts_expire;

/* ---- chance ---- */

static uint64_t chance_state;

static uint64_t chance(uint64_t n)
{
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state % n;
}

static bool one_in(uint64_t n)
{
    return chance(n) == 0;
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *value = getenv(variable);

    return value ? strtoull(value, NULL, 10) : otherwise;
}

/* What only a fault leads to. */
static bool is_failure(int r)
{
    return r < 0 || r == SESSIOND_FULL;
}

/* ---- what a change does to the model ---- */

static bool receipt_lives(const struct receipt *receipt)
{
    const struct model_session *session = &model.sessions[receipt->session];

    if (!receipt->exists)
        return false;
    return receipt->kind == DELETE || receipt->life == 0 || (session->exists && session->life == receipt->life);
}

static void erase_popped(unsigned session)
{
    if (receipts_expire) /* nobody asks */
        return;
    for (size_t i = 0; i < KEYS; i++)
        if (model.receipts[i].exists && model.receipts[i].session == session && model.receipts[i].popped[0]) {
            model.receipts[i].popped[0] = '\0';
            model.receipts[i].erased = true;
        }
}

/* Takes away the items from a seq on. Return: how many. */
static size_t cut(struct model_session *session, uint64_t from_seq)
{
    size_t n = session->n;

    while (session->n > 0 && session->items[session->n - 1].seq >= from_seq)
        session->n--;
    return n - session->n;
}

static void append(struct model_session *session, const char *const *texts, size_t n, struct change_result *done)
{
    for (size_t i = 0; i < n; i++) {
        struct text *item = &session->items[session->n++];

        item->seq = ++session->head_seq;
        (void)snprintf(item->text, TEXT, "%s", texts[i]);
    }
    done->first_seq = n ? session->head_seq - n + 1 : 0;
    done->last_seq = n ? session->head_seq : 0;
}

struct step {
    enum kind_of_change kind;
    unsigned session;
    int key; /* -1: none */
    char print;
    struct number if_revision, if_epoch, from_seq;
    size_t n;
    char texts[4][TEXT];
};

/* The model's answer to a change that has no receipt. `epoch` of *done is left to compare_epoch. */
static int apply(const struct step *operation, const char *const *texts, struct change_result *done, char *popped)
{
    struct model_session *session = &model.sessions[operation->session];
    bool adds = operation->kind == ADD || operation->kind == REPLACE;

    if ((operation->if_revision.present && operation->if_revision.value != session->revision) ||
        (operation->if_epoch.present && operation->if_epoch.value != session->epoch))
        return SESSIOND_CONFLICT;
    if ((operation->kind == ADD && operation->n == 0) || (operation->kind == POP && session->n == 0) ||
        (!session->exists && !(adds && operation->n > 0)))
        return 0; /* changes nothing */

    if (!session->exists) {
        session->exists = true;
        session->life++;
    }
    session->revision++;
    if (operation->kind == POP) {
        (void)snprintf(popped, TEXT, "%s", session->items[session->n - 1].text);
        done->first_seq = done->last_seq = session->items[session->n - 1].seq;
        done->removed = cut(session, done->first_seq);
    } else if (operation->kind != ADD) {
        done->removed = cut(session, operation->kind == REPLACE ? operation->from_seq.value : 0);
    }
    if (adds)
        append(session, texts, operation->n, done);
    if (operation->kind == CLEAR || operation->kind == DELETE)
        erase_popped(operation->session);
    done->revision = session->revision;
    return 0;
}

/* Which epoch comes is the engine's choice, within the rules. */
static void compare_epoch(struct model_session *session, bool was_there, const struct change_result *got)
{
    if (was_there && got->removed == 0)
        assert_int_equal(got->epoch, session->epoch);
    else
        assert_true(got->epoch > session->epoch_max);
    session->epoch = got->epoch;
    session->epoch_max = got->epoch > session->epoch_max ? got->epoch : session->epoch_max;
}

/* ---- the same on both ---- */

static int run_on_store(struct fixture *f, const struct step *operation, const char *const *texts)
{
    struct change change = to(session_ids[operation->session]);

    if (operation->key >= 0)
        change = keyed(session_ids[operation->session], key_names[operation->key], operation->print);
    change.if_revision = operation->if_revision;
    change.if_epoch = operation->if_epoch;
    switch (operation->kind) {
    case ADD:
        return add_texts(f, change, texts);
    case POP:
        return pop(f, change);
    case CLEAR:
        return clear(f, change);
    case REPLACE:
        return replace_texts(f, change, operation->from_seq, texts);
    case DELETE:
        return delete (f, change);
    case N_KINDS:
        break;
    }
    return -1;
}

static void expect_same(const struct change_result *got, const struct change_result *wanted, enum kind_of_change kind)
{
    assert_int_equal(got->first_seq, wanted->first_seq);
    assert_int_equal(got->last_seq, wanted->last_seq);
    assert_int_equal(got->removed, wanted->removed);
    if (kind == DELETE) /* what is gone has neither revision nor epoch */
        return;
    assert_int_equal(got->revision, wanted->revision);
}

static void check_repeat(struct fixture *f, const struct step *operation, int r)
{
    const struct receipt *receipt = &model.receipts[operation->key];

    if (receipt->print != operation->print) {
        assert_int_equal(r, SESSIOND_KEY_REUSED);
        return;
    }
    assert_int_equal(r, 0);
    assert_true(f->done.repeated);
    expect_same(&f->done, &receipt->done, receipt->kind);
    if (receipt->kind != DELETE)
        assert_int_equal(f->done.epoch, receipt->done.epoch);
    if (receipt->kind != POP)
        return;
    assert_int_equal(f->done.erased, receipt->erased);
    expect_rows(f, receipt->popped);
}

static void check_change(struct fixture *f, const struct step *operation, const char *const *texts, int r)
{
    struct model_session *session = &model.sessions[operation->session];
    struct change_result wanted = {0};
    char popped[TEXT] = "";
    uint64_t revision = session->revision;
    bool was_there = session->exists, changed;
    unsigned life;

    wanted.revision = revision;
    assert_int_equal(r, apply(operation, texts, &wanted, popped));
    changed = wanted.revision != revision;
    life = session->exists ? session->life : 0;
    if (r == SESSIOND_CONFLICT) {
        assert_int_equal(f->done.revision, session->revision);
        assert_int_equal(f->done.epoch, session->epoch);
        return;
    }
    assert_false(f->done.repeated);
    assert_false(f->done.erased);
    expect_same(&f->done, &wanted, operation->kind);
    if (operation->kind == POP)
        expect_rows(f, popped);
    if (operation->kind == DELETE && changed) {
        session->exists = false;
        session->n = 0;
        session->head_seq = session->revision = session->epoch = 0;
    } else if (changed) {
        compare_epoch(session, was_there, &f->done);
    } else {
        assert_true(operation->kind == DELETE || f->done.epoch == session->epoch);
    }
    if (operation->key < 0)
        return;
    model.receipts[operation->key] =
        (struct receipt){true, operation->kind, operation->session, life, operation->print, f->done, {0}, false};
    (void)snprintf(model.receipts[operation->key].popped, TEXT, "%s", popped);
}

static void make_new_key(int key)
{
    static unsigned n_keys;

    (void)snprintf(key_names[key], sizeof(key_names[key]), "new-%u", ++n_keys);
    model.receipts[key].exists = false;
}

static struct step choose_operation(void)
{
    static const enum kind_of_change kinds[] = {ADD, ADD, ADD,   ADD,     ADD,     POP,
                                                POP, POP, CLEAR, REPLACE, REPLACE, DELETE};
    static unsigned n_texts;
    struct step operation = {.kind = kinds[chance(N(kinds))], .session = (unsigned)chance(SESSIONS), .key = -1};
    const struct model_session *session = &model.sessions[operation.session];

    if ((operation.kind == CLEAR || operation.kind == DELETE) && !one_in(4))
        operation.kind = ADD;
    operation.n = operation.kind == ADD || operation.kind == REPLACE ? chance(4) : 0;
    if (session->n + operation.n > ITEMS)
        operation = (struct step){.kind = CLEAR, .session = operation.session, .key = -1};
    for (size_t i = 0; i < operation.n; i++)
        (void)snprintf(operation.texts[i], TEXT, one_in(3) ? "t%u+m" : "t%u", ++n_texts);
    if (operation.kind == REPLACE && !one_in(4))
        operation.from_seq = SOME(1 + chance(session->head_seq + 2));
    if (one_in(5))
        operation.if_revision = SOME(one_in(3) ? chance(5) : session->revision);
    if (one_in(8))
        operation.if_epoch = SOME(one_in(3) ? chance(5) : session->epoch);
    if (one_in(2)) {
        operation.key = (int)chance(KEYS);
        operation.print = (char)('a' + chance(20));
        if (receipts_expire)
            make_new_key(operation.key);
    }
    return operation;
}

/* A key that names something already mostly comes with the same change again, else with another. */
static void aim_at_receipt(struct step *operation, const struct receipt *receipt)
{
    if (one_in(4))
        operation->print = (char)(receipt->print + 1);
    else
        *operation = (struct step){
            .kind = receipt->kind, .session = receipt->session, .key = operation->key, .print = receipt->print};
}

/* Return: 0, or a failure. */
static int change_something(struct fixture *f)
{
    struct step operation = choose_operation();
    const char *texts[5] = {NULL};
    bool repeats;
    int r;

    repeats = operation.key >= 0 && receipt_lives(&model.receipts[operation.key]);
    if (repeats)
        aim_at_receipt(&operation, &model.receipts[operation.key]);
    for (size_t i = 0; i < operation.n; i++)
        texts[i] = operation.texts[i];
    r = run_on_store(f, &operation, texts);
    if (is_failure(r))
        return r;
    if (repeats)
        check_repeat(f, &operation, r);
    else
        check_change(f, &operation, texts, r);
    return 0;
}

/* ---- reading ---- */

static size_t item_size(const struct text *item)
{
    return strcspn(item->text, "+");
}

static size_t size_with_meta(const struct text *item)
{
    return strlen(item->text) - (strchr(item->text, '+') != NULL);
}

static void append_item(struct buf *wanted, const struct text *item, bool with_meta)
{
    if (wanted->size > 0)
        buf_append(wanted, " ", 1);
    buf_append(wanted, item->text, with_meta ? strlen(item->text) : item_size(item));
}

/* Return: 0, or a failure. */
static int read_something(struct fixture *f)
{
    unsigned which = (unsigned)chance(SESSIONS);
    const struct model_session *session = &model.sessions[which];
    struct selection selection = of(session_ids[which]);
    struct buf wanted = BUF_INIT;
    size_t chosen[ITEMS], n = 0, i, size;
    uint64_t bytes = 0;
    int r;

    if (one_in(3))
        selection.limit = SOME(chance(8));
    if (one_in(3))
        selection.after = SOME(chance(session->head_seq + 2));
    if (one_in(3))
        selection.before = SOME(chance(session->head_seq + 2));
    selection.with_meta = one_in(2);
    selection.max_bytes = one_in(3) ? 1 + chance(60) : PROTO_ANSWER_MAX;
    for (i = 0; i < session->n; i++)
        if (session->items[i].seq > selection.after.value &&
            (!selection.before.present || session->items[i].seq < selection.before.value))
            chosen[n++] = i;
    i = selection.limit.present && selection.limit.value < n ? n - selection.limit.value : 0;
    for (size_t first = i; i < n; i++) {
        const struct text *item = &session->items[chosen[i]];

        size = selection.with_meta ? size_with_meta(item) : item_size(item);
        if (i > first && bytes + size > selection.max_bytes)
            break;
        bytes += size;
        append_item(&wanted, item, selection.with_meta);
    }
    buf_append(&wanted, "", 1);

    r = get(f, selection);
    if (!is_failure(r)) {
        must(r);
        expect_rows(f, wanted.data);
        assert_int_equal(f->got.more, i < n);
        assert_int_equal(f->got.revision, session->revision);
        assert_int_equal(f->got.epoch, session->epoch);
        assert_int_equal(f->got.head_seq, session->head_seq);
    }
    buf_deinit(&wanted);
    return r;
}

static int compare_info(void *arg, const struct session_info *info)
{
    size_t *n = arg, bytes = 0;
    struct model_session *session = NULL;

    for (size_t i = 0; i < SESSIONS; i++)
        if (slice_equal(info->id, slice_of(session_ids[i])))
            session = &model.sessions[i];
    assert_non_null(session);
    assert_true(session->exists);
    for (size_t i = 0; i < session->n; i++)
        bytes += size_with_meta(&session->items[i]);
    assert_int_equal(info->count, session->n);
    assert_int_equal(info->bytes, bytes);
    assert_int_equal(info->head_seq, session->head_seq);
    assert_int_equal(info->revision, session->revision);
    assert_int_equal(info->epoch, session->epoch);
    ++*n;
    return 0;
}

static void compare_all(struct fixture *f)
{
    struct session_range range = {.limit = 100};
    size_t n = 0, wanted = 0;
    bool more;

    for (size_t i = 0; i < SESSIONS; i++)
        wanted += model.sessions[i].exists;
    enter(f, false);
    must(leave(f, f->table->list_sessions(f->engine, &range, compare_info, &n, &more)));
    assert_int_equal(n, wanted);
    assert_int_equal(sizes(f).sessions, wanted);
    assert_int_equal(use_of(f).sessions, wanted);
    assert_false(more);
}

/* ---- kills and faults ---- */

/* Whether the sessions of the store are those of a model, by what no change leaves as it was. */
static bool has_sessions_of(struct fixture *f, const struct model *wanted)
{
    bool same = true;

    for (size_t i = 0; i < SESSIONS; i++) {
        struct selection_result got = state_of(f, session_ids[i]);

        assert_int_equal(got.missing, 0);
        same = same && got.head_seq == wanted->sessions[i].head_seq && got.revision == wanted->sessions[i].revision &&
               got.epoch == wanted->sessions[i].epoch;
    }
    return same;
}

/* A change that changed nothing leaves only a receipt: whether it is there shows when it is made again. */
static bool has_receipt(struct fixture *f, int key)
{
    const struct receipt *receipt = &model.receipts[key];
    struct step again = {.kind = receipt->kind, .session = receipt->session, .key = key, .print = receipt->print};
    bool repeated;

    begin(f);
    must(run_on_store(f, &again, (const char *[]){NULL}));
    repeated = f->done.repeated;
    roll_back(f);
    return repeated;
}

/* Whether the last transaction is in the store. */
static bool is_there(struct fixture *f)
{
    if (!has_sessions_of(f, &model))
        return false;
    for (int i = 0; i < KEYS; i++)
        if (receipt_lives(&model.receipts[i]) &&
            memcmp(&model.receipts[i], &before.receipts[i], sizeof(before.receipts[i])))
            return has_receipt(f, i);
    return true;
}

static void follow(struct fixture *f)
{
    if (is_there(f)) {
        counts.kept++;
    } else {
        model = before;
        counts.gone++;
    }
    assert_true(has_sessions_of(f, &model));
}

/* A store that a fault has broken is opened anew, as it would be in the infirmary. */
static void get_over(struct fixture *f, int r)
{
    bool uncertain = r == SESSIOND_UNCERTAIN;

    counts.faults += plan.n_hit;
    disarm();
    if (!r && !f->table->is_broken(f->engine))
        return;
    assert_int_equal(f->table->is_broken(f->engine), r != SESSIOND_FULL);
    if (f->table->is_broken(f->engine))
        reopen_store(f);
    if (uncertain)
        follow(f);
    else if (r)
        counts.refused++;
    compare_all(f);
}

static void prepare_fault(struct fixture *f)
{
    static const struct {
        enum call call;
        int rc;
    } faults[] = {{CALL_READ, SQLITE_IOERR_READ},
                  {CALL_WRITE, SQLITE_IOERR_WRITE},
                  {CALL_WRITE, SQLITE_FULL},
                  {CALL_SYNC, SQLITE_IOERR_FSYNC}};
    size_t which = chance(N(faults));

    plan.n_hit = 0;
    if (f->on_disk && one_in(8))
        arm(faults[which].call, 1 + (unsigned)chance(10), one_in(3), faults[which].rc);
}

static void remove_log(const char *directory)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/items.db-wal", directory);
    assert_int_equal(unlink(path), 0);
}

static void kill_and_count(struct fixture *f)
{
    kill_store(f, getenv("SESSIOND_TEST_CONTROL") ? remove_log : NULL);
    counts.kills++;
}

/* Closes the store, perhaps with a fault in it, and opens it again. */
static void restart(struct fixture *f)
{
    int r;

    prepare_fault(f);
    close_store(f);
    r = open_store(f);
    counts.faults += plan.n_hit;
    disarm();
    if (r)
        must(open_store(f));
    counts.restarts++;
}

/* ---- the test ---- */

/* Some changes and reads that share a transaction. */
static void do_something(struct fixture *f)
{
    size_t n = 1 + chance(8);
    int r;

    before = model;
    prepare_fault(f);
    r = f->table->begin(f->engine, true);
    f->in_transaction = r == 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = one_in(3) ? read_something(f) : change_something(f);
        counts.operations++;
    }
    if (r == 0 && f->on_disk && one_in(300)) {
        disarm();
        kill_and_count(f);
        model = before;
    } else if (f->in_transaction && (r || one_in(10))) {
        roll_back(f);
        model = before;
    } else if (f->in_transaction) {
        f->in_transaction = false;
        r = f->table->commit(f->engine);
        if (r == SESSIOND_FULL)
            model = before;
    }
    get_over(f, r);
}

static void look_after(struct fixture *f)
{
    bool more;

    prepare_fault(f);
    get_over(f, f->table->tend(f->engine, &more));
}

static void print_counts(const struct fixture *f)
{
    printf("# %s %" PRIu64 " operations %" PRIu64 " restarts %" PRIu64 " kills %" PRIu64 " faults: %" PRIu64
           " refused, %" PRIu64 " uncertain and there, %" PRIu64 " uncertain and not\n",
           f->on_disk ? "disk" : "memory", counts.operations, counts.restarts, counts.kills, counts.faults,
           counts.refused, counts.kept, counts.gone);
}

static void test_the_store_and_its_model_agree(void **state)
{
    static const uint64_t follow_rows[] = {1, 4, 32, 4096};
    struct fixture *f = *state;
    uint64_t seed = number_from("SESSIOND_TEST_SEED", (uint64_t)getpid() * 2654435761u + (uint64_t)f->on_disk);
    uint64_t n = number_from("SESSIOND_TEST_OPERATIONS", OPERATIONS);

    printf("seed %" PRIu64 "\n", seed);
    chance_state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15); /* seeds that follow each other begin apart */
    memset(&counts, 0, sizeof(counts));
    model = (struct model){0};
    for (size_t i = 0; i < KEYS; i++)
        (void)snprintf(key_names[i], sizeof(key_names[i]), "key-%zu", i);
    if (one_in(2))
        f->config.cache_bytes = SMALL_CACHE;
    if (one_in(2))
        f->config.erase_seconds = 0;
    receipts_expire = one_in(2);
    if (receipts_expire)
        f->config.receipt_seconds = f->config.receipt_min_seconds = 0;
    f->config.follow_rows = follow_rows[chance(N(follow_rows))];
    must(open_store(f));
    while (counts.operations < n) {
        do_something(f);
        if (one_in(50))
            compare_all(f);
        if (one_in(f->config.follow_rows > 32 ? 20 : 2))
            look_after(f);
        if (f->on_disk && one_in(200))
            restart(f);
        if (f->on_disk && one_in(300))
            kill_and_count(f);
    }
    compare_all(f);
    print_counts(f);
}

int main(void)
{
    static struct kind on_disk = {&sqlite_engine, true, 0}, in_memory = {&sqlite_engine, false, 0};
    static const struct CMUnitTest disk_tests[] = {
        cmocka_unit_test_prestate_setup_teardown(test_the_store_and_its_model_agree, set_up_closed, tear_down_disarmed,
                                                 &on_disk),
    };
    static const struct CMUnitTest memory_tests[] = {
        cmocka_unit_test_prestate_setup_teardown(test_the_store_and_its_model_agree, set_up_closed, tear_down_disarmed,
                                                 &in_memory),
    };
    struct config config;

    config_init(&config);
    log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    put_layer_under_sqlite();
    if (access("/dev/shm", W_OK) == 0)
        scratch_directory = "/dev/shm"; /* no power cut is played here */
    return cmocka_run_group_tests_name("model on disk", disk_tests, NULL, NULL) +
           cmocka_run_group_tests_name("model in memory", memory_tests, NULL, NULL);
}
