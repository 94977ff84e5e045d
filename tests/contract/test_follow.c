/*
 * Tables that lag behind the log (sqlite_follow.c), where something is in their way: damage on the pages that they
 * would go to or come from, and a log of which they know nothing. That they agree with the log otherwise is proved by
 * the whole contract, which test_engine also runs with tables that follow at once and with some that lag behind, and by
 * the model.
 */
#include <inttypes.h>

#include "contract.h"

enum {
    SESSIONS = 400,
    ITEMS = 6,             /* of each, before anything is damaged */
    WRITTEN_THROUGH = 300, /* more items than wait in memory */
};

static const char *name_of(unsigned i)
{
    static char names[2][16];
    static unsigned next;
    char *name = names[next++ % N(names)];

    (void)snprintf(name, sizeof(names[0]), "s%03u", i);
    return name;
}

static struct change keyed_for(unsigned session, const char *what)
{
    static char keys[2][32];
    static unsigned next;
    char *key = keys[next++ % N(keys)];

    (void)snprintf(key, sizeof(keys[0]), "%s-%03u", what, session);
    return keyed(name_of(session), key, 'a');
}

/* Leaves it closed. */
static void make_store_of_many(struct fixture *f)
{
    must(open_store(f));
    for (unsigned item = 0; item < ITEMS; item++) {
        begin(f);
        for (unsigned i = 0; i < SESSIONS; i++)
            must(item ? add(f, to(name_of(i)), "old") : add(f, keyed_for(i, "first"), "old"));
        commit(f);
    }
    close_store(f);
}

/* Spoils the leaf of a table in the middle of its leaves; the store is closed. */
static void damage_leaf_in(const char *path, const char *table)
{
    struct buf bytes = read_file(path);
    char text[512];
    int64_t page;

    (void)snprintf(text, sizeof(text),
                   "WITH leaf AS (SELECT pageno, row_number() OVER (ORDER BY path) AS n FROM dbstat WHERE name = '%s'"
                   " AND pagetype = 'leaf') SELECT pageno FROM leaf WHERE n = (SELECT (max(n) + 1) / 2 FROM leaf)",
                   table);
    page = sql(path, text);
    assert_true(page > 1 && (size_t)page * 4096 <= bytes.size);
    bytes.data[(page - 1) * 4096 + 2000] ^= 0x55;
    write_file(path, buf_slice(&bytes));
    buf_deinit(&bytes);
}

static void damage_leaf(struct fixture *f, const char *table)
{
    damage_leaf_in(file_of(f, "items.db"), table);
}

/* As if the process had been killed before the tables could follow the last rows: they follow once more. */
static void forget_following(struct fixture *f, int64_t rows)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "UPDATE followed SET position = position - %" PRId64, rows);
    (void)sql(file_of(f, "items.db"), text);
}

/* Housekeeping as after each batch; it logs what it finds, and never gives up. */
static void tend_often(struct fixture *f)
{
    bool more;

    for (unsigned i = 0; i < 3 * SESSIONS; i++)
        (void)f->table->tend(f->engine, &more);
}

static bool is_readable(struct fixture *f, unsigned session, size_t n)
{
    int r = get(f, of(name_of(session)));

    if (r) {
        assert_int_equal(r, SESSIOND_ROLLED_BACK);
        return false;
    }
    assert_int_equal(f->n_rows, n);
    return true;
}

static unsigned count_readable(struct fixture *f, size_t n)
{
    unsigned readable = 0;

    for (unsigned i = 0; i < SESSIONS; i++)
        readable += is_readable(f, i, n);
    return readable;
}

static int list_all(struct fixture *f)
{
    bool more;

    return list(f, (struct session_range){.limit = 1000}, &more);
}

static void add_to_all(struct fixture *f, const char *what)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        begin(f);
        must(add(f, keyed_for(i, what), "new"));
        commit(f);
    }
}

/* What was acknowledged is there once more if it is asked for by its key, whatever became of the tables. */
static void expect_repeated(struct fixture *f, const char *what)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        must(add(f, keyed_for(i, what), "new"));
        assert_true(f->done.repeated);
    }
}

static void test_a_damaged_page_of_items_stops_the_sessions_on_it_alone(void **state)
{
    struct fixture *f = *state;
    unsigned readable, n = 0;
    bool refused[SESSIONS];

    make_store_of_many(f);
    damage_leaf(f, "item");
    f->config.follow_rows = SESSIONS / 2;
    must(open_store(f));
    add_to_all(f, "second");
    tend_often(f);
    readable = count_readable(f, ITEMS + 1);
    assert_in_range(readable, SESSIONS / 2, SESSIONS - 1);
    for (unsigned i = 0; i < SESSIONS; i++) {
        int r = add(f, to(name_of(i)), "newer");

        assert_true(r == 0 || r == SESSIOND_ROLLED_BACK);
        n += refused[i] = r != 0;
    }
    assert_in_range(n, 1, SESSIONS / 2);
    expect_repeated(f, "second");
    close_store(f);

    assert_true(sql(file_of(f, "items.db"), "SELECT count(*) FROM left_behind") > 0);
    must(open_store(f));
    for (unsigned i = 0; i < SESSIONS; i++)
        readable -= is_readable(f, i, ITEMS + 2 - refused[i]);
    assert_int_equal(readable, 0);
    expect_repeated(f, "second");
}

/* A change whose key would be on that page is refused, for it may have been made before. */
static void test_a_damaged_page_of_receipts_loses_none_of_the_new_ones(void **state)
{
    struct fixture *f = *state;
    bool accepted[SESSIONS];
    unsigned n = 0;

    make_store_of_many(f);
    damage_leaf(f, "receipt");
    f->config.follow_rows = SESSIONS / 2;
    must(open_store(f));
    for (unsigned i = 0; i < SESSIONS; i++)
        n += accepted[i] = add(f, keyed_for(i, i % 2 ? "first-" : "z"), "new") == 0;
    assert_in_range(n, 1, SESSIONS - 1);
    tend_often(f);
    for (int opening = 0; opening < 2; opening++) {
        for (unsigned i = 0; i < SESSIONS; i++) {
            int r = add(f, keyed_for(i, i % 2 ? "first-" : "z"), "new");

            assert_int_equal(r, accepted[i] ? 0 : SESSIOND_ROLLED_BACK);
            assert_true(r || f->done.repeated);
            assert_true(is_readable(f, i, ITEMS + accepted[i]));
        }
        reopen_store(f);
    }
}

/* Return: how many were told so; the others are refused, for their receipt cannot be looked for. */
static unsigned count_repeated(struct fixture *f, const char *what)
{
    unsigned repeated = 0;

    for (unsigned i = 0; i < SESSIONS; i++) {
        int r = add(f, keyed_for(i, what), "new", "newer");

        assert_true(r == SESSIOND_ROLLED_BACK || (r == 0 && f->done.repeated));
        repeated += r == 0;
    }
    return repeated;
}

/* A receipt that finds its page damaged only when it follows is left behind by itself: its row of the log may be that
 * of an item, too, which the tables have, as they have those that came with it. (One key can be put into its table and
 * not be found there: that which stands above the damaged page, between two.) */
static void test_items_whose_receipt_is_left_behind_are_all_there(void **state)
{
    struct fixture *f = *state;

    make_store_of_many(f);
    must(open_store(f));
    for (unsigned i = 0; i < SESSIONS; i++)
        must(add(f, keyed_for(i, "second"), "new", "newer"));
    close_store(f);
    forget_following(f, 2 * SESSIONS);
    damage_leaf(f, "receipt");
    for (int opening = 0; opening < 3; opening++) {
        must(open_store(f));
        assert_int_equal(count_readable(f, ITEMS + 2), SESSIONS);
        assert_true(count_repeated(f, "second") >= SESSIONS - 1);
        tend_often(f);
        close_store(f);
        assert_true(sql(file_of(f, "items.db"), "SELECT count(*) FROM left_behind") > 0);
    }
}

/* The rows of the log say which session they belong to, but not where it stands. */
static void test_rows_whose_session_is_damaged_are_not_taken_for_all(void **state)
{
    struct fixture *f = *state;
    unsigned readable;

    make_store_of_many(f);
    forget_following(f, SESSIONS);
    damage_leaf(f, "session");
    must(open_store(f));
    readable = count_readable(f, ITEMS);
    assert_in_range(readable, 1, SESSIONS - 1);
    for (unsigned i = 0; i < SESSIONS; i++) {
        int r = add(f, to(name_of(i)), "new");

        assert_true(r == 0 || r == SESSIOND_ROLLED_BACK);
        assert_int_equal(r == 0, is_readable(f, i, ITEMS + 1));
    }
    assert_int_equal(list_all(f), SESSIOND_ROLLED_BACK);
    close_store(f);
    must(open_store(f));
    assert_int_equal(count_readable(f, ITEMS + 1), readable);
}

/* Nor are they in a list, though the table has an older word of them: what is damaged is only how they are found. */
static void test_sessions_of_which_rows_are_left_are_not_listed_as_the_table_has_them(void **state)
{
    struct fixture *f = *state;

    make_store_of_many(f);
    must(open_store(f));
    must(list_all(f));
    close_store(f);
    forget_following(f, SESSIONS);
    damage_leaf(f, "session_number");
    must(open_store(f));
    assert_in_range(count_readable(f, ITEMS), 1, SESSIONS - 1);
    assert_int_equal(list_all(f), SESSIOND_ROLLED_BACK);
}

/* Nobody can say whose they were: changes are refused until somebody has looked. */
static void test_rows_that_are_damaged_before_they_were_followed_are_missed(void **state)
{
    struct fixture *f = *state;
    uint64_t missing;

    make_store_of_many(f);
    forget_following(f, (int64_t)SESSIONS * ITEMS);
    damage_leaf(f, "log");
    must(open_store(f));
    assert_int_equal(add(f, to(name_of(0)), "new"), SESSIOND_ROLLED_BACK);
    must(get(f, of(name_of(0))));
    assert_in_range(f->got.missing, 1, SESSIONS / 2); /* those of a page */
    begin(f);
    must(f->table->recover(f->engine, &missing));
    commit(f);
    must(add(f, to("another"), "new"));
    expect_items(f, "another", "new");
    tend_all(f);
    reopen_store(f);
    assert_int_equal(sizes(f).missing, 0);
    expect_items(f, "another", "new");
}

/* With the log as it was, all tables are made again. */
static void test_tables_that_know_nothing_of_the_log_follow_all_of_it(void **state)
{
    struct fixture *f = *state;
    struct selection_result before;

    make_store_of_many(f);
    must(open_store(f));
    before = state_of(f, name_of(7));
    close_store(f);
    forget_following(f, (int64_t)SESSIONS * ITEMS);
    (void)sql(file_of(f, "items.db"),
              "DELETE FROM item; DELETE FROM receipt;"
              "UPDATE session SET count = 0, bytes = 0, head_seq = 0, revision = 0, position = 0");
    must(open_store(f));
    assert_int_equal(count_readable(f, ITEMS), SESSIONS);
    assert_int_equal(state_of(f, name_of(7)).revision, before.revision);
    assert_int_equal(state_of(f, name_of(7)).head_seq, before.head_seq);
    expect_repeated(f, "first");
    close_store(f);
    assert_int_equal(sql(file_of(f, "items.db"), "SELECT count(*) FROM item"), SESSIONS * ITEMS);
    must(open_store(f));
    assert_int_equal(count_readable(f, ITEMS), SESSIONS);
}

static void test_an_item_that_the_log_does_not_have_is_told(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("a"), "1", "2"));
    must(add(f, to("b"), "1"));
    close_store(f);
    (void)sql(file_of(f, "items.db"), "DELETE FROM log WHERE position = 2");
    must(open_store(f));
    assert_int_equal(get(f, of("a")), SESSIOND_ROLLED_BACK);
    assert_int_equal(pop(f, to("a")), SESSIOND_ROLLED_BACK);
    expect_items(f, "b", "1");
}

static void test_a_clock_ahead_of_the_log_does_not_sweep_for_ever(void **state)
{
    struct fixture *f = *state;
    uint64_t missing;

    must(open_store(f));
    must(add(f, keyed("a", "k", 'a'), "1"));
    close_store(f);
    (void)sql(file_of(f, "items.db"), "UPDATE clock SET position = 1 << 40; UPDATE followed SET position = 1 << 40");
    f->config.receipt_seconds = f->config.receipt_min_seconds = 0;
    must(open_store(f));
    tend_all(f);
    expect_items(f, "a", "1");
    assert_int_equal(add(f, to("a"), "2"), SESSIOND_ROLLED_BACK); /* the tables know of what the log has not */
    begin(f);
    must(f->table->recover(f->engine, &missing));
    commit(f);
    tend_all(f);
    must(add(f, to("a"), "2"));
    expect_items(f, "a", "1 2");
}

/* As the files of the open store have it. */
static int64_t followed(struct fixture *f)
{
    char copy[64];
    int64_t position;

    (void)snprintf(copy, sizeof(copy), "%s/copy", f->top);
    copy_directory(f->directory, copy);
    (void)strncat(copy, "/items.db", sizeof(copy) - strlen(copy) - 1);
    position = sql(copy, "SELECT position FROM followed");
    *strrchr(copy, '/') = '\0';
    remove_tree(copy);
    return position;
}

/* Nothing waits for the tables then, and yet what an opening has to read again must not grow without end. */
static void test_changes_that_are_written_through_are_followed_too(void **state)
{
    struct fixture *f = *state;
    struct slice items[WRITTEN_THROUGH];
    struct change change = to("a");
    struct change_result done;

    for (size_t i = 0; i < N(items); i++)
        items[i] = slice_of("1");
    f->config.follow_rows = 8;
    must(open_store(f));
    begin(f);
    must(f->table->add_items(f->engine, &change, items, N(items), &done));
    commit(f);
    assert_int_equal(followed(f), 0);
    tend_all(f);
    assert_int_equal(followed(f), N(items));
}

static void put_old_files_back(const char *directory)
{
    static const char *const names[] = {"items.db", "items.db-wal"};
    char old[128], path[128];

    for (size_t i = 0; i < N(names); i++) {
        (void)snprintf(old, sizeof(old), "%s/../old/%s", directory, names[i]);
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        copy_file(old, path);
    }
}

static void accept_loss(struct fixture *f)
{
    uint64_t missing;

    begin(f);
    must(f->table->recover(f->engine, &missing));
    commit(f);
    assert_int_equal(missing, 1);
}

/* Of a session that the tables lack something of, only memory was raised; of all others, the table. */
static void test_a_loss_that_was_accepted_raises_each_session_once(void **state)
{
    static const char *const names[] = {"followed", "later", "waits", "settled"};
    struct fixture *f = *state;
    struct selection_result before[N(names)];
    char old[64];

    must(open_store(f));
    must(add(f, to("followed"), "1"));
    must(add(f, to("later"), "1"));
    reopen_store(f);
    must(add(f, to("waits"), "1"));
    must(add(f, to("settled"), "1", "2"));
    (void)snprintf(old, sizeof(old), "%s/old", f->top);
    copy_directory(f->directory, old);
    must(add(f, to("followed"), "lost"));
    kill_store(f, put_old_files_back);
    accept_loss(f);
    must(add(f, to("later"), "2"));
    must(pop(f, to("settled")));
    for (size_t i = 0; i < N(names); i++)
        before[i] = state_of(f, names[i]);
    for (int kills = 0; kills < 3; kills++) {
        kill_store(f, NULL);
        for (size_t i = 0; i < N(names); i++) {
            assert_int_equal(state_of(f, names[i]).revision, before[i].revision);
            assert_int_equal(state_of(f, names[i]).epoch, before[i].epoch);
        }
    }
}

static void lose_the_last_and_damage_items(const char *directory)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/items.db", directory);
    (void)sql(path, "DELETE FROM log WHERE position = (SELECT max(position) FROM log)");
    damage_leaf_in(path, "item");
}

/* What cannot follow waits for ever, and so must the loss that raised it. */
static void test_a_loss_that_was_accepted_raises_what_is_left_behind(void **state)
{
    static struct selection_result before[SESSIONS];
    struct fixture *f = *state;

    make_store_of_many(f);
    must(open_store(f));
    add_to_all(f, "second");
    kill_store(f, lose_the_last_and_damage_items);
    accept_loss(f);
    for (unsigned i = 0; i < SESSIONS; i++)
        before[i] = state_of(f, name_of(i));
    for (int opening = 0; opening < 3; opening++) {
        close_store(f);
        assert_true(sql(file_of(f, "items.db"), "SELECT count(*) FROM left_behind") > 1);
        must(open_store(f));
        for (unsigned i = 0; i < SESSIONS; i++) {
            assert_int_equal(state_of(f, name_of(i)).revision, before[i].revision);
            assert_int_equal(state_of(f, name_of(i)).epoch, before[i].epoch);
        }
    }
}

int main(void)
{
    static struct kind kind = {&sqlite_engine, true, 0};
#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, name, set_up_closed, tear_down, &kind                                                                   \
    }
    static const struct CMUnitTest tests[] = {
        TEST(test_a_damaged_page_of_items_stops_the_sessions_on_it_alone),
        TEST(test_a_damaged_page_of_receipts_loses_none_of_the_new_ones),
        TEST(test_items_whose_receipt_is_left_behind_are_all_there),
        TEST(test_rows_whose_session_is_damaged_are_not_taken_for_all),
        TEST(test_sessions_of_which_rows_are_left_are_not_listed_as_the_table_has_them),
        TEST(test_rows_that_are_damaged_before_they_were_followed_are_missed),
        TEST(test_tables_that_know_nothing_of_the_log_follow_all_of_it),
        TEST(test_an_item_that_the_log_does_not_have_is_told),
        TEST(test_a_clock_ahead_of_the_log_does_not_sweep_for_ever),
        TEST(test_changes_that_are_written_through_are_followed_too),
        TEST(test_a_loss_that_was_accepted_raises_each_session_once),
        TEST(test_a_loss_that_was_accepted_raises_what_is_left_behind),
    };
    struct config config;

    config_init(&config);
    log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    if (access("/dev/shm", W_OK) == 0)
        scratch_directory = "/dev/shm"; /* no power cut is played here */
    return cmocka_run_group_tests_name("follow", tests, NULL, NULL);
}
