/*
 * A store of which hardly a page is in memory, so that every call reads and a change writes before it is committed.
 * Each of these reads and writes fails in turn. What failed is not there, what had succeeded is; and when the store is
 * made to do the same again, it comes to the same end as without a failure.
 */
#include "contract.h"
#include "faulty.h"

enum { OTHERS = 20, ITEMS = 24, ITEM_SIZE = 1500, SMALL_CACHE = 16 * 1024 };

static char text[ITEM_SIZE + 1];

/* ---- what is done ---- */

static int get_some(struct fixture *f, uint64_t limit, uint64_t after)
{
    struct selection selection = of("s");

    selection.limit = SOME(limit);
    selection.after = SOME(after);
    return get(f, selection);
}

static int read_all(struct fixture *f)
{
    return get(f, of("s"));
}

static int read_the_last(struct fixture *f)
{
    return get_some(f, 5, 0);
}

static int read_the_last_of_a_part(struct fixture *f)
{
    return get_some(f, 5, 3);
}

static int list_all(struct fixture *f)
{
    bool more;

    return list(f, (struct session_range){.limit = 100}, &more);
}

static int tell_sizes(struct fixture *f)
{
    struct store_sizes ret;

    return f->table->sizes(f->engine, &ret);
}

static int repeated(struct fixture *f, int r)
{
    assert_true(r != 0 || f->done.repeated);
    return r;
}

static int repeat_a_replace(struct fixture *f)
{
    return repeated(f, replace(f, keyed("s", "replace", 'a'), SOME(ITEMS), "1", "2"));
}

static int repeat_a_pop(struct fixture *f)
{
    return repeated(f, pop(f, keyed("s", "pop", 'a')));
}

static int repeat_nothing(struct fixture *f)
{
    return repeated(f, clear(f, keyed("never", "nothing", 'a')));
}

static int do_nothing_with_a_key(struct fixture *f)
{
    return clear(f, keyed("never", "nothing-more", 'a'));
}

static int pop_with_a_key(struct fixture *f)
{
    return pop(f, keyed("s", "pop-more", 'a'));
}

static int pop_one(struct fixture *f)
{
    return pop(f, to("s"));
}

static int add_many_with_a_key(struct fixture *f)
{
    const char *texts[16];

    for (size_t i = 0; i < N(texts) - 1; i++)
        texts[i] = text;
    texts[N(texts) - 1] = NULL;
    return add_texts(f, keyed("s", "add", 'a'), texts);
}

static int replace_the_middle(struct fixture *f)
{
    return replace(f, keyed("s", "middle", 'a'), SOME(12), text, text, text);
}

static int replace_without_new_items(struct fixture *f)
{
    return replace(f, to("s"), SOME(6));
}

static int clear_another(struct fixture *f)
{
    return clear(f, keyed("other-3", "clear", 'a'));
}

static int delete_another(struct fixture *f)
{
    return delete (f, keyed("other-4", "delete", 'a'));
}

static int delete_the_large_one(struct fixture *f)
{
    return delete (f, to("s"));
}

/* Not in a transaction: it makes its own. All receipts are old enough to go. */
static int sweep(struct fixture *f)
{
    bool more = true;
    int r = 0;

    while (r == 0 && more)
        r = f->table->tend(f->engine, &more);
    return r;
}

static const struct {
    int (*call)(struct fixture *f);
    bool alone; /* without a transaction */
} steps[] = {
    {read_all, false},       {read_the_last, false},         {list_all, false},     {read_the_last_of_a_part, false},
    {tell_sizes, false},     {repeat_a_replace, false},      {repeat_a_pop, false}, {repeat_nothing, false},
    {pop_with_a_key, false}, {do_nothing_with_a_key, false}, {pop_one, false},      {add_many_with_a_key, false},
    {list_all, false},       {replace_the_middle, false},    {sweep, true},         {replace_without_new_items, false},
    {clear_another, false},  {delete_another, false},        {list_all, false},     {delete_the_large_one, false},
};

static int take_step(struct fixture *f, size_t i)
{
    return steps[i].alone ? steps[i].call(f) : make_change(f, steps[i].call);
}

/* ---- the store ---- */

static const char *place(const struct fixture *f, const char *name)
{
    static char path[64];

    (void)snprintf(path, sizeof(path), "%s/%s", f->top, name);
    return path;
}

static void fill(struct fixture *f)
{
    char id[24];

    must(open_store(f));
    begin(f);
    for (int i = 0; i < OTHERS; i++) {
        (void)snprintf(id, sizeof(id), "other-%d", i);
        must(add(f, to(id), text));
    }
    for (int i = 0; i < ITEMS; i++)
        must(add(f, to("s"), text));
    must(replace(f, keyed("s", "replace", 'a'), SOME(ITEMS), "1", "2"));
    must(pop(f, keyed("s", "pop", 'a')));
    must(clear(f, keyed("never", "nothing", 'a')));
    commit(f);
    close_store(f);
    assert_int_equal(rename(f->directory, place(f, "filled")), 0);
    f->config.cache_bytes = SMALL_CACHE;
    f->config.receipts = 0;
    f->config.receipt_min_seconds = 0;
}

static int on_info(void *arg, const struct session_info *info)
{
    struct buf *buf = arg;
    char line[128];

    (void)snprintf(line, sizeof(line), "%.*s %llu %llu %llu %llu\n", (int)info->id.size, info->id.data,
                   (unsigned long long)info->count, (unsigned long long)info->bytes, (unsigned long long)info->head_seq,
                   (unsigned long long)info->revision);
    buf_append(buf, line, strlen(line));
    return 0;
}

/* All that can be read. */
static struct buf contents(struct fixture *f)
{
    struct session_range range = {.limit = 100};
    struct buf buf = BUF_INIT;
    bool more;

    assert_int_equal(sizes(f).missing, 0);
    enter(f, false);
    must(leave(f, f->table->list_sessions(f->engine, &range, on_info, &buf, &more)));
    must(get(f, of("s")));
    buf_append(&buf, f->text.data, f->text.size);
    buf_append(&buf, "", 1);
    return buf;
}

/* ---- failures ---- */

static struct buf expected[N(steps) + 1]; /* contents before each step, and in the end */

static bool holds(struct fixture *f, size_t i)
{
    struct buf now = contents(f);
    bool same = slice_equal(buf_slice(&now), buf_slice(&expected[i]));

    buf_deinit(&now);
    return same;
}

static void expect_contents(struct fixture *f, size_t i)
{
    if (!holds(f, i))
        fail_msg("before step %zu the store is another than without a failure", i);
}

static void run_without_failures(struct fixture *f)
{
    copy_directory(place(f, "filled"), f->directory);
    must(open_store(f));
    for (size_t i = 0; i < N(steps); i++) {
        expected[i] = contents(f);
        must(take_step(f, i));
    }
    expected[N(steps)] = contents(f);
    close_store(f);
    remove_tree(f->directory);
}

/* Return: whether step i has been taken after all. */
static bool get_over(struct fixture *f, size_t i, int r)
{
    disarm();
    if (f->engine && !f->table->is_broken(f->engine)) {
        assert_true(r == SESSIOND_FULL || r == -ENOMEM);
    } else {
        close_store(f);
        must(open_store(f));
    }
    if (r == SESSIOND_UNCERTAIN && holds(f, i + 1))
        return true;
    expect_contents(f, i);
    return false;
}

/* Return: whether the fault came at all. */
static bool survive(struct fixture *f, enum call call, unsigned n, int rc)
{
    size_t i = 0;
    int r;

    copy_directory(place(f, "filled"), f->directory);
    arm(call, n, false, rc);
    if ((r = open_store(f)))
        (void)get_over(f, 0, r);
    while (i < N(steps))
        if ((r = take_step(f, i)) == 0 || get_over(f, i, r))
            i++;
    disarm();
    expect_contents(f, N(steps));
    close_store(f);
    remove_tree(f->directory);
    return plan.n_hit > 0;
}

static void fail_each(struct fixture *f, enum call call, int rc)
{
    unsigned n = 1;

    fill(f);
    run_without_failures(f);
    while (survive(f, call, n, rc))
        n++;
    assert_true(n > 50); /* a store in memory would prove nothing */
    print_message("%u calls failed in turn\n", n - 1);
    for (size_t i = 0; i < N(expected); i++)
        buf_deinit(&expected[i]);
}

static void test_each_read_fails(void **state)
{
    fail_each(*state, CALL_READ, SQLITE_IOERR_READ);
}

static void test_each_read_finds_no_memory(void **state)
{
    fail_each(*state, CALL_READ, SQLITE_NOMEM);
}

static void test_each_write_fails(void **state)
{
    fail_each(*state, CALL_WRITE, SQLITE_IOERR_WRITE);
}

static void test_the_disk_is_full_at_each_write(void **state)
{
    fail_each(*state, CALL_WRITE, SQLITE_FULL);
}

int main(void)
{
    static struct kind kind = {&sqlite_engine, true, 0};
#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, name, set_up_closed, tear_down_disarmed, &kind                                                          \
    }
    static const struct CMUnitTest tests[] = {
        TEST(test_each_read_fails),
        TEST(test_each_read_finds_no_memory),
        TEST(test_each_write_fails),
        TEST(test_the_disk_is_full_at_each_write),
    };
    struct config config;

    config_init(&config);
    if (!getenv("LOUD"))
        log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    put_layer_under_sqlite();
    if (access("/dev/shm", W_OK) == 0)
        scratch_directory = "/dev/shm"; /* thousands of syncs, and no power cut is played here */
    memset(text, 'x', ITEM_SIZE);
    return cmocka_run_group_tests_name("cold", tests, NULL, NULL);
}
