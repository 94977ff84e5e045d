/*
 * The contract of an engine (daemon/store/engine.h, and what PROTOCOL.md promises through it), for every engine and
 * both kinds of its stores. It knows nothing of files and SQL: what only the SQLite engine has is in test_sqlite.c.
 */
#include "contract.h"

/* ---- adding ---- */

static void test_items_come_back_byte_for_byte(void **state)
{
    struct fixture *f = *state;
    char *large = malloc(1 << 20);
    struct slice items[] = {{"{}", 2}, {"a\0b\0", 4}, {"\xff\xfe\x80 ", 4}, {"0", 1}, {large, 1 << 20}};
    struct buf wanted = BUF_INIT;

    for (size_t i = 0; i < 1 << 20; i++)
        large[i] = (char)(i * 7 + i / 251);
    for (size_t i = 0; i < N(items); i++) {
        buf_append(&wanted, " ", i > 0);
        buf_append(&wanted, items[i].data, items[i].size);
    }
    must(add_slices(f, to("s"), items, N(items)));
    must(get(f, of("s")));
    assert_int_equal(f->n_rows, N(items));
    assert_true(slice_equal(buf_slice(&f->text), buf_slice(&wanted)));
    buf_deinit(&wanted);
    free(large);
}

static void test_items_of_an_add_stand_side_by_side(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2", "3"));
    expect_done(f, 1, 3, 0);
    must(add(f, to("other"), "x"));
    expect_done(f, 1, 1, 0);
    must(add(f, to("s"), "4", "5"));
    expect_done(f, 4, 5, 0);
    expect_items(f, "s", "1 2 3 4 5");
    assert_int_equal(f->got.first_seq, 1);
    assert_int_equal(f->got.last_seq, 5);
    assert_int_equal(f->got.head_seq, 5);
    assert_int_equal(f->got.n, 5);
    assert_false(f->got.more);
}

static void test_an_add_of_nothing_changes_nothing_and_succeeds(void **state)
{
    struct fixture *f = *state;
    struct selection_result before;

    must(add(f, to("never")));
    expect_done(f, 0, 0, 0);
    assert_int_equal(f->done.revision, 0);
    assert_int_equal(f->done.epoch, 0);
    assert_int_equal(sizes(f).sessions, 0);

    must(add(f, to("s"), "1"));
    before = state_of(f, "s");
    must(add(f, to("s")));
    expect_done(f, 0, 0, 0);
    assert_int_equal(f->done.revision, before.revision);
    assert_int_equal(f->done.epoch, before.epoch);
    assert_int_equal(state_of(f, "s").revision, before.revision);
}

static void test_session_ids_are_compared_byte_by_byte(void **state)
{
    static const struct slice ids[] = {{"a", 1},        {"a\0", 2},       {"a\0b", 3}, {"A", 1},
                                       {"\xc3\xa9", 2}, {"e\xcc\x81", 3}, {"\0", 1},   {"a ", 2}};
    struct fixture *f = *state;
    char text[2] = "0";

    for (size_t i = 0; i < N(ids); i++) {
        struct change change = to("");

        change.session = ids[i];
        text[0] = (char)('0' + i);
        must(add(f, change, text));
        assert_int_equal(f->done.revision, 1);
    }
    for (size_t i = 0; i < N(ids); i++) {
        text[0] = (char)('0' + i);
        must(get(f, (struct selection){.session = ids[i]}));
        expect_rows(f, text);
    }
}

/* ---- popping ---- */

static void test_a_pop_takes_the_newest_item_and_leaves_a_gap(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2"));
    must(pop(f, to("s")));
    expect_rows(f, "2");
    expect_done(f, 2, 2, 1);
    must(add(f, to("s"), "3"));
    expect_done(f, 3, 3, 0);
    expect_items(f, "s", "1 3");
    must(pop(f, to("s")));
    expect_rows(f, "3");
    must(pop(f, to("s")));
    expect_rows(f, "1");
    expect_items(f, "s", "");
    assert_int_equal(f->got.head_seq, 3);
    assert_int_equal(f->got.first_seq, 0);
    assert_int_equal(f->got.last_seq, 0);
}

static void test_a_pop_of_nothing_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct selection_result before;

    must(pop(f, to("never")));
    assert_int_equal(f->n_rows, 0);
    expect_done(f, 0, 0, 0);
    assert_int_equal(f->done.revision, 0);
    assert_int_equal(sizes(f).sessions, 0);

    must(add(f, to("s"), "1"));
    must(pop(f, to("s")));
    before = state_of(f, "s");
    must(pop(f, to("s")));
    assert_int_equal(f->n_rows, 0);
    expect_done(f, 0, 0, 0);
    assert_int_equal(f->done.revision, before.revision);
    assert_int_equal(f->done.epoch, before.epoch);
    assert_int_equal(state_of(f, "s").revision, before.revision);
}

/* ---- clearing, replacing, deleting ---- */

static void test_a_clear_takes_all_items_and_leaves_the_session(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2", "3"));
    must(add(f, to("other"), "x"));
    must(pop(f, to("s")));
    must(clear(f, to("s")));
    assert_int_equal(f->done.removed, 2);
    assert_int_equal(f->done.revision, 3);
    expect_items(f, "s", "");
    assert_int_equal(f->got.head_seq, 3);
    expect_items(f, "other", "x");
    assert_int_equal(sizes(f).sessions, 2);
}

static void test_a_clear_of_what_never_was_creates_nothing(void **state)
{
    struct fixture *f = *state;

    must(clear(f, to("never")));
    assert_int_equal(f->done.removed, 0);
    assert_int_equal(f->done.revision, 0);
    assert_int_equal(f->done.epoch, 0);
    assert_int_equal(sizes(f).sessions, 0);
}

static void test_a_replace_gives_new_items_new_numbers(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2", "3", "4"));
    must(replace(f, to("s"), SOME(3), "c", "d", "e"));
    expect_done(f, 5, 7, 2);
    expect_items(f, "s", "1 2 c d e");
    must(replace(f, to("s"), FROM_START, "new"));
    expect_done(f, 8, 8, 5);
    expect_items(f, "s", "new");
    must(replace(f, to("s"), SOME(8)));
    expect_done(f, 0, 0, 1);
    expect_items(f, "s", "");
}

static void test_a_replace_in_a_gap_and_beyond_the_end(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2", "3"));
    must(pop(f, to("s")));
    must(pop(f, to("s")));
    must(add(f, to("s"), "4"));
    must(replace(f, to("s"), SOME(2), "x")); /* 2 and 3 are gaps: only 4 goes */
    expect_done(f, 5, 5, 1);
    expect_items(f, "s", "1 x");
    must(replace(f, to("s"), SOME(PROTO_NUMBER_MAX), "y"));
    expect_done(f, 6, 6, 0);
    expect_items(f, "s", "1 x y");
}

static void test_a_replace_of_what_never_was(void **state)
{
    struct fixture *f = *state;

    must(replace(f, to("never"), FROM_START));
    expect_done(f, 0, 0, 0);
    assert_int_equal(f->done.revision, 0);
    assert_int_equal(sizes(f).sessions, 0);
    must(replace(f, to("s"), SOME(5), "1", "2"));
    expect_done(f, 1, 2, 0);
    assert_int_equal(f->done.revision, 1);
    expect_items(f, "s", "1 2");
}

static void test_a_deleted_session_begins_anew(void **state)
{
    struct fixture *f = *state;
    struct selection_result before;

    must(add(f, to("s"), "1", "2"));
    must(clear(f, to("s")));
    must(add(f, to("s"), "3"));
    before = state_of(f, "s");
    must(delete (f, to("s")));
    assert_int_equal(f->done.removed, 1);
    assert_int_equal(state_of(f, "s").revision, 0);
    assert_int_equal(f->got.epoch, 0);
    assert_int_equal(f->got.head_seq, 0);
    assert_int_equal(sizes(f).sessions, 0);

    must(add(f, to("s"), "new"));
    expect_done(f, 1, 1, 0);
    assert_int_equal(f->done.revision, 1);
    assert_true(f->done.epoch > before.epoch);
    expect_items(f, "s", "new");
}

static void test_a_delete_of_what_never_was_creates_nothing(void **state)
{
    struct fixture *f = *state;

    must(delete (f, to("never")));
    assert_int_equal(f->done.removed, 0);
    assert_int_equal(sizes(f).sessions, 0);
}

/* ---- numbers ---- */

/* What each change does to the revision (d) and whether the epoch grows (e), from "1 2 3" on. */
static void test_revision_counts_changes_and_epoch_removals(void **state)
{
    struct fixture *f = *state;
    struct selection_result was, is;
    static const struct {
        char change; /* Add, add Nothing, Pop, Clear, Replace the tail, replace behind the end (B), replace by nothing
                        (X) */
        unsigned revision;
        bool epoch;
    } steps[] = {
        {'A', 1, false}, {'N', 0, false}, {'P', 1, true},  {'R', 1, true},  {'B', 1, false},
        {'X', 1, true},  {'X', 1, false}, {'P', 0, false}, {'C', 1, false}, {'A', 1, false},
        {'C', 1, true},  {'C', 1, false}, {'A', 1, false}, {'A', 1, false}, {'P', 1, true},
    };

    must(add(f, to("s"), "1", "2", "3"));
    assert_int_equal(f->done.revision, 1);
    assert_true(f->done.epoch > 0);
    for (size_t i = 0; i < N(steps); i++) {
        was = state_of(f, "s");
        switch (steps[i].change) {
        case 'A':
            must(add(f, to("s"), "4", "5"));
            break;
        case 'N':
            must(add(f, to("s")));
            break;
        case 'P':
            must(pop(f, to("s")));
            break;
        case 'C':
            must(clear(f, to("s")));
            break;
        case 'R':
            must(replace(f, to("s"), SOME(3), "x"));
            break;
        case 'B':
            must(replace(f, to("s"), SOME(100), "y"));
            break;
        case 'X':
            must(replace(f, to("s"), FROM_START));
            break;
        }
        is = state_of(f, "s");
        assert_int_equal(f->done.revision, is.revision);
        assert_int_equal(f->done.epoch, is.epoch);
        assert_int_equal(is.revision, was.revision + steps[i].revision);
        assert_true(steps[i].epoch ? is.epoch > was.epoch : is.epoch == was.epoch);
    }
}

static void test_a_seq_is_never_used_twice(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2"));
    must(pop(f, to("s")));
    must(pop(f, to("s")));
    must(add(f, to("s"), "3"));
    expect_done(f, 3, 3, 0);
    must(clear(f, to("s")));
    must(add(f, to("s"), "4"));
    expect_done(f, 4, 4, 0);
    must(replace(f, to("s"), FROM_START));
    if (f->on_disk)
        reopen_store(f);
    must(add(f, to("s"), "5"));
    expect_done(f, 5, 5, 0);
}

static void test_epochs_of_a_session_that_comes_and_goes_only_grow(void **state)
{
    struct fixture *f = *state;
    uint64_t last = 0;

    for (int life = 0; life < 5; life++) {
        for (int i = 0; i < 7 * (5 - life); i++) {
            must(add(f, to("s"), "1"));
            assert_true(f->done.epoch > last);
            must(pop(f, to("s")));
        }
        last = f->done.epoch;
        must(delete (f, to("s")));
        if (f->on_disk && life == 2)
            reopen_store(f);
    }
}

/* ---- reading ---- */

enum { READ_HEAD = 9 };

/* Ten numbers, of which 3, 6, 7 and 10 are gaps: items 1 2 4 5 8 9. */
static void fill_with_gaps(struct fixture *f)
{
    must(add(f, to("s"), "1", "2", "3"));
    must(pop(f, to("s")));
    must(add(f, to("s"), "4", "5", "6", "7"));
    must(pop(f, to("s")));
    must(pop(f, to("s")));
    must(add(f, to("s"), "8", "9", "10"));
    must(pop(f, to("s")));
    must(add(f, to("neighbour"), "n1", "n2"));
}

/* What the protocol says of limit, after and before, as plainly as it can be written. */
static void select_plainly(const struct selection *selection, char *ret)
{
    static const unsigned seqs[] = {1, 2, 4, 5, 8, 9};
    unsigned chosen[N(seqs)], n = 0, first = 0;

    for (size_t i = 0; i < N(seqs); i++)
        if (seqs[i] > selection->after.value && (!selection->before.present || seqs[i] < selection->before.value))
            chosen[n++] = seqs[i];
    if (selection->limit.present && selection->limit.value < n)
        first = n - (unsigned)selection->limit.value;
    ret[0] = '\0';
    for (unsigned i = first; i < n; i++)
        ret += sprintf(ret, "%s%u", i > first ? " " : "", chosen[i]);
}

static struct number number_of(int n)
{
    return n < 0 ? (struct number){0} : SOME((uint64_t)n);
}

static void test_every_choice_of_limit_after_and_before(void **state)
{
    struct fixture *f = *state;
    char wanted[64];

    fill_with_gaps(f);
    for (int limit = -1; limit < 8; limit++)
        for (int after = -1; after < 12; after++)
            for (int before = -1; before < 12; before++) {
                struct selection selection = of("s");

                selection.limit = number_of(limit);
                selection.after = number_of(after);
                selection.before = number_of(before);
                select_plainly(&selection, wanted);
                must(get(f, selection));
                expect_rows(f, wanted);
                assert_false(f->got.more);
                assert_int_equal(f->got.head_seq, 10);
                assert_int_equal(f->got.n, f->n_rows);
                assert_int_equal(f->got.first_seq, strtoul(wanted, NULL, 10));
                assert_int_equal(f->got.last_seq, f->n_rows ? strtoul(f->text.data + f->text.size - 1, NULL, 10) : 0);
            }
}

static void test_the_largest_numbers_select(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("s");

    fill_with_gaps(f);
    selection.limit = selection.before = SOME(PROTO_NUMBER_MAX);
    must(get(f, selection));
    expect_rows(f, "1 2 4 5 8 9");
    selection.after = SOME(PROTO_NUMBER_MAX);
    must(get(f, selection));
    expect_rows(f, "");
}

static void test_an_answer_is_the_longest_beginning_within_max_bytes(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("s");
    static const struct {
        uint64_t max_bytes;
        const char *wanted;
        bool more;
    } cases[] = {
        {1, "aaa", true},        {3, "aaa", true},          {4, "aaa b", true},         {5, "aaa b", true},
        {8, "aaa b cccc", true}, {9, "aaa b cccc d", true}, {10, "aaa b cccc d", true}, {11, "aaa b cccc d ee", false},
    };

    must(add(f, to("s"), "aaa", "b", "cccc", "d", "ee"));
    for (size_t i = 0; i < N(cases); i++) {
        selection.max_bytes = cases[i].max_bytes;
        must(get(f, selection));
        expect_rows(f, cases[i].wanted);
        assert_int_equal(f->got.more, cases[i].more);
        assert_int_equal(f->got.last_seq, f->n_rows);
    }
    selection.max_bytes = 2;
    selection.limit = SOME(3);
    must(get(f, selection)); /* of the latest three, as many as fit; one in any case */
    expect_rows(f, "cccc");
    assert_true(f->got.more);
    selection.limit = SOME(1);
    must(get(f, selection));
    expect_rows(f, "ee");
    assert_false(f->got.more);
}

static void test_an_answer_has_65536_items_at_most(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("s");
    size_t n = PROTO_ANSWER_ITEMS_MAX + 1;
    struct slice *items = calloc(n, sizeof(*items));

    assert_non_null(items);
    for (size_t i = 0; i < n; i++)
        items[i] = slice_of("0");
    must(add_slices(f, to("s"), items, n));
    must(get(f, selection));
    assert_int_equal(f->n_rows, PROTO_ANSWER_ITEMS_MAX);
    assert_true(f->got.more);
    selection.after = SOME(f->got.last_seq);
    must(get(f, selection));
    assert_int_equal(f->n_rows, 1);
    assert_int_equal(f->got.last_seq, n);
    assert_false(f->got.more);
    selection = of("s");
    selection.limit = SOME(PROTO_ANSWER_ITEMS_MAX);
    must(get(f, selection));
    assert_int_equal(f->got.first_seq, 2);
    assert_false(f->got.more);
    free(items);
}

/* As the protocol tells a reader to do it, while somebody appends between the pages. */
static void test_a_long_history_is_read_as_it_stood(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("s");
    struct buf all = BUF_INIT;
    size_t n_pages = 0;

    must(add(f, to("s"), "1", "2", "3", "4", "5", "6", "7"));
    selection.max_bytes = 2;
    do {
        must(get(f, selection));
        buf_append(&all, f->text.data, f->text.size);
        if (n_pages++ == 0) {
            selection.before = SOME(f->got.head_seq + 1);
            selection.if_epoch = SOME(f->got.epoch);
        }
        selection.after = SOME(f->got.last_seq);
        must(add(f, to("s"), "new"));
    } while (f->got.more);
    buf_append(&all, "", 1);
    assert_string_equal(all.data, "1 23 45 67");
    assert_int_equal(n_pages, 4);
    buf_deinit(&all);

    must(pop(f, to("s")));
    assert_int_equal(get(f, selection), SESSIOND_CONFLICT);
    assert_int_equal(f->n_rows, 0);
    assert_int_equal(f->got.revision, state_of(f, "s").revision);
    assert_true(f->got.epoch > selection.if_epoch.value);
}

static void test_reading_what_never_was_creates_nothing(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("never");

    expect_items(f, "never", "");
    assert_int_equal(f->got.head_seq + f->got.revision + f->got.epoch + f->got.first_seq, 0);
    selection.if_epoch = SOME(0);
    must(get(f, selection));
    selection.if_epoch = SOME(1);
    assert_int_equal(get(f, selection), SESSIOND_CONFLICT);
    assert_int_equal(f->got.epoch, 0);
    assert_int_equal(sizes(f).sessions, 0);
}

static int on_row_that_fails(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    (void)seq;
    (void)item;
    (void)meta;
    return ++*(int *)arg == 2 ? -ENOMEM : 0;
}

static void test_a_row_that_cannot_be_taken_ends_the_reading(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("s");
    int n = 0;

    must(add(f, to("s"), "1", "2", "3"));
    selection.max_bytes = PROTO_ANSWER_MAX;
    begin(f);
    assert_int_equal(f->table->get_items(f->engine, &selection, on_row_that_fails, &n, &f->got), -ENOMEM);
    roll_back(f);
    assert_int_equal(n, 2);
    assert_false(f->table->is_broken(f->engine));
    expect_items(f, "s", "1 2 3");
}

static int on_session_that_fails(void *arg, const struct session_info *session)
{
    (void)session;
    return ++*(int *)arg == 2 ? -ENOMEM : 0;
}

static void test_a_session_that_cannot_be_taken_ends_the_listing(void **state)
{
    struct session_range range = {.limit = 10};
    struct fixture *f = *state;
    bool more;
    int n = 0;

    for (int i = 0; i < 3; i++)
        must(add(f, to((const char *[]){"a", "b", "c"}[i]), "1"));
    begin(f);
    assert_int_equal(f->table->list_sessions(f->engine, &range, on_session_that_fails, &n, &more), -ENOMEM);
    roll_back(f);
    assert_int_equal(n, 2);
    assert_false(f->table->is_broken(f->engine));
    must(list(f, range, &more));
    expect_rows(f, "a b c");
}

static void test_an_item_that_cannot_be_taken_is_not_popped(void **state)
{
    struct fixture *f = *state;
    struct change change = to("s");
    int n = 1;

    must(add(f, to("s"), "1", "2"));
    begin(f);
    assert_int_equal(f->table->pop_item(f->engine, &change, on_row_that_fails, &n, &f->done), -ENOMEM);
    roll_back(f);
    assert_false(f->table->is_broken(f->engine));
    expect_items(f, "s", "1 2");
}

/* ---- lists ---- */

static void test_sessions_are_listed_in_the_order_of_their_bytes(void **state)
{
    struct fixture *f = *state;
    bool more;
    static const struct {
        const char *after, *prefix;
        uint64_t limit;
        const char *wanted;
        bool more;
    } cases[] = {
        {NULL, NULL, 1000, "B a a% aa ab b \xc3\xa9 \xf4\x8f\xbf\xbf", false},
        {NULL, NULL, 3, "B a a%", true},
        {NULL, NULL, 8, "B a a% aa ab b \xc3\xa9 \xf4\x8f\xbf\xbf", false},
        {"a", NULL, 2, "a% aa", true},
        {"a%", NULL, 2, "aa ab", true},
        {"az", NULL, 9, "b \xc3\xa9 \xf4\x8f\xbf\xbf", false},
        {"\xf4\x8f\xbf\xbf", NULL, 9, "", false},
        {NULL, "a", 9, "a a% aa ab", false},
        {NULL, "a", 4, "a a% aa ab", false},
        {NULL, "a", 3, "a a% aa", true},
        {"aa", "a", 3, "ab", false},
        {NULL, "a%", 3, "a%", false},
        {"b", "a", 3, "", false},
        {"A", "a", 9, "a a% aa ab", false},
        {NULL, "\xf4\x8f\xbf\xbf", 9, "\xf4\x8f\xbf\xbf", false},
        {"", "", 2, "B a", true},
        {NULL, "none", 9, "", false},
    };

    for (size_t i = 0; i < 8; i++)
        must(add(f, to(((const char *[]){"ab", "a", "\xf4\x8f\xbf\xbf", "b", "B", "aa", "a%", "\xc3\xa9"})[i]), "1"));
    for (size_t i = 0; i < N(cases); i++) {
        struct session_range range = {.limit = cases[i].limit};

        if (cases[i].after)
            range.after = slice_of(cases[i].after);
        if (cases[i].prefix)
            range.prefix = slice_of(cases[i].prefix);
        must(list(f, range, &more));
        expect_rows(f, cases[i].wanted);
        assert_int_equal(more, cases[i].more);
    }
}

static int on_info(void *arg, const struct session_info *session)
{
    *(struct session_info *)arg = *session;
    return 0;
}

static struct session_info info_of(struct fixture *f, const char *session)
{
    struct session_range range = {.prefix = slice_of(session), .limit = 1};
    struct session_info info = {.count = UINT64_MAX};
    bool more;

    enter(f, false);
    must(leave(f, f->table->list_sessions(f->engine, &range, on_info, &info, &more)));
    info.id = (struct slice){0}; /* it was valid during the call only */
    return info;
}

static void test_a_listed_session_is_described(void **state)
{
    struct fixture *f = *state;
    struct change first = to("s"), last = to("s");
    struct session_info info;

    must(add(f, first, "1234", "56", "7"));
    must(pop(f, to("s")));
    must(replace(f, last, SOME(2), "890"));
    info = info_of(f, "s");
    assert_int_equal(info.count, 2);
    assert_int_equal(info.bytes, 7);
    assert_int_equal(info.head_seq, 4);
    assert_int_equal(info.revision, 3);
    assert_int_equal(info.epoch, state_of(f, "s").epoch);
    assert_int_equal(info.created_us, first.now_us);
    assert_int_equal(info.updated_us, last.now_us);
    must(clear(f, to("s")));
    info = info_of(f, "s");
    assert_int_equal(info.count, 0);
    assert_int_equal(info.bytes, 0);
    assert_int_equal(info.created_us, first.now_us);
}

/* ---- what stands beside items ---- */

static struct selection with_meta(struct selection selection)
{
    selection.with_meta = true;
    return selection;
}

static void test_what_stands_beside_items_is_given_to_who_asks(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1+one", "2", "3+three"));
    must(add(f, to("s"), "4"));
    expect_items(f, "s", "1 2 3 4");
    must(get(f, with_meta(of("s"))));
    expect_rows(f, "1+one 2 3+three 4");
    assert_int_equal(info_of(f, "s").bytes, 4 + strlen("one"
                                                       "three"));
    must(replace(f, to("s"), SOME(2), "b+B", "c"));
    must(get(f, with_meta(of("s"))));
    expect_rows(f, "1+one b+B c");
    assert_int_equal(info_of(f, "s").bytes, 3 + strlen("one"
                                                       "B"));
    must(pop(f, to("s")));
    expect_rows(f, "c");
    must(pop(f, to("s")));
    expect_rows(f, "b+B");
    assert_int_equal(info_of(f, "s").bytes, strlen("1"
                                                   "one"));
    must(clear(f, to("s")));
    assert_int_equal(info_of(f, "s").bytes, 0);
}

static void test_what_stands_beside_items_counts_in_an_answer_that_has_it(void **state)
{
    struct fixture *f = *state;
    struct selection selection = of("s");

    must(add(f, to("s"), "1+one", "2+two", "3"));
    selection.max_bytes = 7;
    must(get(f, selection));
    expect_rows(f, "1 2 3");
    must(get(f, with_meta(selection)));
    expect_rows(f, "1+one");
    assert_true(f->got.more);
    selection.max_bytes = 8;
    must(get(f, with_meta(selection)));
    expect_rows(f, "1+one 2+two");
}

static void test_a_repeated_pop_has_what_stood_beside_its_item(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2+two"));
    for (int i = 0; i < 2; i++) {
        must(pop(f, keyed("s", "k", 'a')));
        expect_rows(f, "2+two");
    }
    must(clear(f, to("s")));
    must(pop(f, keyed("s", "k", 'a')));
    assert_true(f->done.erased);
    assert_int_equal(f->n_rows, 0);
}

/* ---- preconditions ---- */

typedef int change_fn(struct fixture *f, struct change change);

static int add_one(struct fixture *f, struct change change)
{
    return add(f, change, "new");
}

static int add_nothing(struct fixture *f, struct change change)
{
    return add(f, change);
}

static int replace_tail(struct fixture *f, struct change change)
{
    return replace(f, change, SOME(2), "new");
}

static change_fn *const all_changes[] = {add_one, add_nothing, pop, clear, replace_tail, delete};

static void test_a_precondition_that_does_not_fit_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct selection_result was, is;

    must(add(f, to("s"), "1", "2"));
    must(pop(f, to("s")));
    was = state_of(f, "s");
    for (size_t i = 0; i < N(all_changes); i++)
        for (int which = 0; which < 3; which++) {
            struct change change = to("s");

            if (which == 0)
                change.if_revision = SOME(was.revision + 1);
            else
                change.if_epoch = SOME(was.epoch - 1);
            if (which == 2)
                change.if_revision = SOME(was.revision); /* fits, and does not help */
            assert_int_equal(all_changes[i](f, change), SESSIOND_CONFLICT);
            assert_int_equal(f->done.revision, was.revision);
            assert_int_equal(f->done.epoch, was.epoch);
            expect_items(f, "s", "1");
            is = f->got;
            assert_int_equal(is.revision, was.revision);
            assert_int_equal(is.head_seq, was.head_seq);
        }
}

static void test_a_precondition_that_fits(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < N(all_changes); i++) {
        struct change change = to("s");
        struct selection_result was;

        must(add(f, to("s"), "1", "2"));
        was = state_of(f, "s");
        change.if_revision = SOME(was.revision);
        change.if_epoch = SOME(was.epoch);
        must(all_changes[i](f, change));
        must(delete (f, to("s")));
    }
}

static void test_revision_0_means_must_not_exist_yet(void **state)
{
    struct fixture *f = *state;
    struct change change = to("s");

    change.if_revision = SOME(0);
    must(add(f, change, "1"));
    assert_int_equal(add(f, change, "2"), SESSIOND_CONFLICT);
    must(clear(f, to("s")));
    assert_int_equal(add(f, change, "2"), SESSIOND_CONFLICT); /* empty, but it exists */
    must(delete (f, to("s")));
    must(add(f, change, "3"));
    change = to("never");
    change.if_revision = SOME(1);
    for (size_t i = 0; i < N(all_changes); i++)
        assert_int_equal(all_changes[i](f, change), SESSIOND_CONFLICT);
    assert_int_equal(f->done.revision, 0);
    assert_int_equal(sizes(f).sessions, 1);
}

static void test_a_transaction_goes_on_after_a_refusal(void **state)
{
    struct fixture *f = *state;
    struct change refused = to("s");

    refused.if_revision = SOME(77);
    begin(f);
    must(add(f, to("s"), "1"));
    assert_int_equal(add(f, refused, "x"), SESSIOND_CONFLICT);
    must(add(f, keyed("s", "k", 'a'), "2"));
    assert_int_equal(add(f, keyed("s", "k", 'b'), "y"), SESSIOND_KEY_REUSED);
    must(add(f, to("s"), "3"));
    commit(f);
    expect_items(f, "s", "1 2 3");
    assert_int_equal(f->got.head_seq, 3);
    assert_int_equal(f->got.revision, 3);
}

/* ---- keys ---- */

static bool same_answer(const struct change_result *a, const struct change_result *b)
{
    return a->revision == b->revision && a->epoch == b->epoch && a->first_seq == b->first_seq &&
           a->last_seq == b->last_seq && a->removed == b->removed;
}

static int replace_all_by_nothing(struct fixture *f, struct change change)
{
    return replace(f, change, FROM_START);
}

static int replace_all(struct fixture *f, struct change change)
{
    return replace(f, change, FROM_START, "x", "y");
}

static int add_three(struct fixture *f, struct change change)
{
    return add(f, change, "x", "y", "z");
}

static change_fn *const keyed_changes[] = {add_three,   add_nothing, pop, clear, replace_all, replace_all_by_nothing,
                                           replace_tail};

/* Each change is made with a key, repeated at once, after other changes and after a restart; what it answers is the
 * first answer, and nothing else happens. */
static void test_a_repeat_answers_as_the_first_time_and_does_nothing(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < N(keyed_changes); i++) {
        struct change_result first;
        struct selection_result was, is;
        char first_rows[64];

        must(add(f, to("s"), "1", "2", "3"));
        must(keyed_changes[i](f, keyed("s", "key", 'a')));
        assert_false(f->done.repeated);
        first = f->done;
        buf_append(&f->text, "", 1);
        (void)snprintf(first_rows, sizeof(first_rows), "%s", f->text.data);

        for (int repeat = 0; repeat < 3; repeat++) {
            if (repeat == 1)
                must(add(f, to("s"), "more"));
            if (repeat == 2 && f->on_disk)
                reopen_store(f);
            was = state_of(f, "s");
            must(keyed_changes[i](f, keyed("s", "key", 'a')));
            assert_true(f->done.repeated);
            assert_false(f->done.erased);
            assert_true(same_answer(&f->done, &first));
            if (keyed_changes[i] == pop)
                expect_rows(f, first_rows);
            is = state_of(f, "s");
            assert_int_equal(is.revision, was.revision);
            assert_int_equal(is.head_seq, was.head_seq);
        }
        must(delete (f, to("s")));
    }
}

static void test_a_repeat_in_the_transaction_of_the_first(void **state)
{
    struct fixture *f = *state;

    begin(f);
    must(add(f, keyed("s", "k", 'a'), "1"));
    must(add(f, keyed("s", "k", 'a'), "1"));
    assert_true(f->done.repeated);
    commit(f);
    expect_items(f, "s", "1");
}

static void test_a_key_names_one_change_only(void **state)
{
    struct fixture *f = *state;

    must(add(f, keyed("s", "k", 'a'), "1"));
    for (size_t i = 0; i < N(all_changes); i++) {
        assert_int_equal(all_changes[i](f, keyed("s", "k", 'b')), SESSIOND_KEY_REUSED);
        assert_int_equal(all_changes[i](f, keyed("another", "k", 'b')), SESSIOND_KEY_REUSED);
    }
    expect_items(f, "s", "1");
    assert_int_equal(f->got.revision, 1);
    assert_int_equal(sizes(f).sessions, 1);
    must(add(f, keyed("s", "k", 'a'), "1"));
    assert_true(f->done.repeated);
}

/* Greater and less than those before, and the beginning of others. */
static void test_each_key_is_found_in_whatever_order_they_come(void **state)
{
    static const char *const keys[] = {"m", "a", "ab", "aa", "mm", "z", "\xff", "\x01", "m1", "\xff\xff", "y"};
    struct fixture *f = *state;

    for (size_t n = 0; n < N(keys); n++) {
        for (size_t i = 0; i <= n; i++) {
            must(add(f, keyed("s", keys[i], 'a'), "1"));
            assert_int_equal(f->done.repeated, i < n);
            assert_int_equal(f->done.first_seq, i + 1);
        }
        tend_all(f);
        if (n % 2 == 1 && f->on_disk)
            reopen_store(f);
    }
}

static void test_keys_are_compared_byte_by_byte(void **state)
{
    static const struct slice keys[] = {{"k", 1}, {"K", 1}, {"k\0", 2}, {"kk", 2}, {"\0", 1}};
    struct fixture *f = *state;

    for (size_t i = 0; i < N(keys); i++) {
        struct change change = keyed("s", "", 'a');

        change.key = keys[i];
        must(add(f, change, "1"));
        assert_false(f->done.repeated);
    }
    assert_int_equal(state_of(f, "s").head_seq, N(keys));
}

static void test_a_key_is_looked_up_before_any_precondition(void **state)
{
    struct fixture *f = *state;
    struct change change = keyed("s", "k", 'a');

    change.if_revision = SOME(0);
    must(add(f, change, "1"));
    must(add(f, change, "1"));
    assert_true(f->done.repeated);
    assert_int_equal(f->done.revision, 1);
    memset(change.fingerprint, 'b', sizeof(change.fingerprint));
    assert_int_equal(add(f, change, "1"), SESSIOND_KEY_REUSED);
}

static void test_a_refusal_leaves_no_receipt(void **state)
{
    struct fixture *f = *state;
    struct change change = keyed("s", "k", 'a');

    change.if_revision = SOME(1);
    assert_int_equal(add(f, change, "1"), SESSIOND_CONFLICT);
    must(add(f, keyed("s", "k", 'b'), "2")); /* the key is still free for another change */
    assert_false(f->done.repeated);
    assert_int_equal(f->done.revision, 1);
}

static void test_a_pop_of_nothing_leaves_a_receipt(void **state)
{
    struct fixture *f = *state;

    must(pop(f, keyed("s", "k", 'a')));
    assert_int_equal(sizes(f).sessions, 0);
    must(add(f, to("s"), "1"));
    must(pop(f, keyed("s", "k", 'a')));
    assert_true(f->done.repeated);
    assert_int_equal(f->n_rows, 0);
    assert_int_equal(f->done.first_seq, 0);
    assert_int_equal(f->done.revision, 0);
    assert_false(f->done.erased);
    expect_items(f, "s", "1");
}

static void test_changes_of_nothing_leave_receipts(void **state)
{
    struct fixture *f = *state;
    static change_fn *const changes[] = {add_nothing, clear, replace_all_by_nothing, delete};
    static const char *const keys[] = {"k0", "k1", "k2", "k3"};

    for (size_t i = 0; i < N(changes); i++) {
        must(changes[i](f, keyed("s", keys[i], 'a')));
        assert_false(f->done.repeated);
    }
    assert_int_equal(sizes(f).sessions, 0);
    must(add(f, to("s"), "1"));
    for (size_t i = 0; i < N(changes); i++) {
        must(changes[i](f, keyed("s", keys[i], 'a')));
        assert_true(f->done.repeated);
        assert_int_equal(f->done.removed + f->done.revision + f->done.epoch, 0);
        assert_int_equal(changes[i](f, keyed("s", keys[i], 'b')), SESSIOND_KEY_REUSED);
    }
    expect_items(f, "s", "1");
}

static void test_a_clear_erases_what_the_receipts_of_pops_hold(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1", "2"));
    must(add(f, to("other"), "o"));
    must(pop(f, keyed("s", "k", 'a')));
    must(pop(f, keyed("other", "o", 'a')));
    must(clear(f, to("s")));
    must(pop(f, keyed("s", "k", 'a')));
    assert_true(f->done.repeated);
    assert_true(f->done.erased);
    assert_int_equal(f->n_rows, 0);
    assert_int_equal(f->done.first_seq, 2);
    must(pop(f, keyed("other", "o", 'a')));
    assert_false(f->done.erased);
    expect_rows(f, "o");
}

static void test_a_delete_takes_the_receipts_with_it_but_its_own(void **state)
{
    struct fixture *f = *state;

    must(add(f, keyed("s", "add", 'a'), "1", "2"));
    must(pop(f, keyed("s", "pop", 'a')));
    must(add(f, keyed("other", "o", 'a'), "o"));
    must(delete (f, keyed("s", "delete", 'a')));
    assert_int_equal(f->done.removed, 1);

    must(delete (f, keyed("s", "delete", 'a')));
    assert_true(f->done.repeated);
    assert_int_equal(f->done.removed, 1);
    must(add(f, keyed("other", "o", 'a'), "o"));
    assert_true(f->done.repeated);
    must(add(f, keyed("s", "add", 'b'), "new")); /* even as the name of another change */
    assert_false(f->done.repeated);
    must(delete (f, keyed("s", "delete", 'a')));
    assert_true(f->done.repeated);
    expect_items(f, "s", "new");
}

static void test_a_pop_with_a_key_that_a_delete_has_freed(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "old"));
    must(pop(f, keyed("s", "k", 'a')));
    must(delete (f, to("s")));
    must(add(f, to("s"), "new"));
    must(pop(f, keyed("s", "k", 'a')));
    expect_rows(f, "new");
    assert_false(f->done.repeated);
    assert_false(f->done.erased);
    expect_items(f, "s", "");
}

static void test_receipts_outlive_clear_and_restart(void **state)
{
    struct fixture *f = *state;

    must(add(f, keyed("s", "k", 'a'), "1", "2"));
    must(clear(f, to("s")));
    tend_all(f);
    if (f->on_disk)
        reopen_store(f);
    must(add(f, keyed("s", "k", 'a'), "1", "2"));
    assert_true(f->done.repeated);
    expect_done(f, 1, 2, 0);
    expect_items(f, "s", "");
}

/* ---- transactions ---- */

static void test_what_is_rolled_back_never_was(void **state)
{
    struct fixture *f = *state;
    struct selection_result was;

    must(add(f, to("s"), "1", "2"));
    must(pop(f, keyed("s", "pop", 'a')));
    must(add(f, to("gone"), "x"));
    was = state_of(f, "s");
    for (int i = 0; i < 3; i++) {
        begin(f);
        must(add(f, keyed("s", "add", 'a'), "3"));
        must(pop(f, to("s")));
        must(replace(f, to("s"), FROM_START, "r"));
        must(clear(f, to("s")));
        must(delete (f, to("gone")));
        must(add(f, to("fresh"), "f"));
        roll_back(f);

        expect_items(f, "s", "1");
        assert_int_equal(f->got.revision, was.revision);
        assert_int_equal(f->got.epoch, was.epoch);
        assert_int_equal(f->got.head_seq, was.head_seq);
        expect_items(f, "gone", "x");
        assert_int_equal(sizes(f).sessions, 2);
        must(pop(f, keyed("s", "pop", 'a')));
        expect_rows(f, "2"); /* the clear that was rolled back has not erased it */
    }
    must(add(f, keyed("s", "add", 'b'), "3"));
    assert_false(f->done.repeated);
    expect_done(f, 3, 3, 0);
}

static void test_changes_of_a_transaction_see_each_other(void **state)
{
    struct fixture *f = *state;

    begin(f);
    must(add(f, to("s"), "1", "2"));
    must(pop(f, to("s")));
    expect_rows(f, "2");
    must(add(f, to("s"), "3"));
    expect_items(f, "s", "1 3");
    must(delete (f, to("s")));
    must(add(f, to("s"), "4"));
    expect_done(f, 1, 1, 0);
    must(add(f, to("other"), "o"));
    commit(f);
    expect_items(f, "s", "4");
    expect_items(f, "other", "o");
}

static void test_a_transaction_of_reads_only(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("s"), "1"));
    must(f->table->begin(f->engine, false));
    f->in_transaction = true;
    expect_items(f, "s", "1");
    commit(f);
    must(f->table->begin(f->engine, false));
    f->in_transaction = true;
    expect_items(f, "s", "1");
    roll_back(f);
    must(add(f, to("s"), "2"));
    expect_items(f, "s", "1 2");
}

static void test_an_empty_transaction_and_a_rollback_of_nothing(void **state)
{
    struct fixture *f = *state;

    begin(f);
    commit(f);
    begin(f);
    roll_back(f);
    must(add(f, to("s"), "1"));
    assert_false(f->table->is_broken(f->engine));
}

/* ---- life ---- */

static void test_all_is_there_after_close_and_open(void **state)
{
    struct fixture *f = *state;
    struct selection_result was;
    struct session_info info;

    must(add(f, to("s"), "1", "2", "3"));
    must(pop(f, to("s")));
    must(clear(f, to("cleared")));
    was = state_of(f, "s");
    info = info_of(f, "s");
    reopen_store(f);
    if (!f->on_disk) { /* volatile is what it says */
        assert_int_equal(sizes(f).sessions, 0);
        return;
    }
    expect_items(f, "s", "1 2");
    assert_int_equal(f->got.revision, was.revision);
    assert_int_equal(f->got.epoch, was.epoch);
    assert_int_equal(f->got.head_seq, was.head_seq);
    assert_int_equal(info_of(f, "s").bytes, info.bytes);
    assert_int_equal(info_of(f, "s").created_us, info.created_us);
    must(add(f, to("s"), "4"));
    expect_done(f, 4, 4, 0);
}

static void test_a_fresh_store_is_empty(void **state)
{
    struct fixture *f = *state;
    struct session_range range = {.limit = 10};
    bool more = true;

    must(list(f, range, &more));
    assert_false(more);
    assert_int_equal(f->n_rows, 0);
    assert_int_equal(sizes(f).sessions, 0);
    tend_all(f);
}

static void test_sizes_grow_with_what_is_stored(void **state)
{
    struct fixture *f = *state;
    uint64_t before = sizes(f).bytes;
    char *text = malloc(100001);

    memset(text, 'x', 100000);
    text[100000] = '\0';
    must(add(f, to("a"), text));
    must(add(f, to("b"), "1"));
    assert_int_equal(sizes(f).sessions, 2);
    assert_true(sizes(f).bytes >= before + 90000); /* some of it fits into pages that are there */
    free(text);
}

static void test_housekeeping_changes_nothing_that_can_be_read(void **state)
{
    struct fixture *f = *state;
    char text[1001];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < 30; i++) {
        struct slice items[200];

        for (size_t j = 0; j < N(items); j++)
            items[j] = slice_of(text);
        must(add_slices(f, to("large"), items, N(items)));
        tend_all(f);
    }
    assert_int_equal(info_of(f, "large").count, 6000);
    assert_int_equal(info_of(f, "large").bytes, 6000 * 1000);
    must(clear(f, to("large")));
    tend_all(f);
    assert_int_equal(f->done.removed, 6000);
}

static void test_closing_nothing(void **state)
{
    struct fixture *f = *state;

    f->table->close(NULL);
}

/* ---- a store that is full ---- */

static int set_up_small(void **state)
{
    struct fixture *f;

    if (set_up_closed(state))
        return -1;
    f = *state;
    f->config.memory_bytes = 1 << 20;
    return open_store(f) ? -1 : 0;
}

static size_t fill(struct fixture *f, const char *session, const char *text)
{
    size_t n = 0;
    int r;

    while ((r = add(f, to(session), text)) == 0)
        assert_true(++n < 100000);
    assert_int_equal(r, SESSIOND_FULL);
    return n;
}

static void test_a_full_store_refuses_and_goes_on_after_a_clear(void **state)
{
    struct fixture *f = *state;
    struct selection_result was;
    char text[501];
    size_t n, again;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    must(add(f, to("kept"), "1"));
    n = fill(f, "s", text);
    assert_true(n > 500);
    was = state_of(f, "s");
    assert_int_equal(was.head_seq, n);
    assert_int_equal(was.revision, n);
    assert_int_equal(info_of(f, "s").count, n);
    assert_int_equal(add(f, to("s"), text), SESSIOND_FULL);
    assert_int_equal(state_of(f, "s").revision, was.revision);
    assert_false(f->table->is_broken(f->engine));

    must(clear(f, to("s")));
    assert_int_equal(f->done.removed, n);
    again = fill(f, "s", text);
    assert_true(again > 0);
    expect_items(f, "kept", "1");
}

static void test_a_change_too_large_for_the_rest_of_the_store(void **state)
{
    struct fixture *f = *state;
    char *huge = malloc((2 << 20) + 1);

    memset(huge, 'x', 2 << 20);
    huge[2 << 20] = '\0';
    must(add(f, to("s"), "1"));
    begin(f);
    must(add(f, to("s"), "2"));
    assert_int_equal(add(f, to("s"), huge), SESSIOND_FULL);
    roll_back(f);
    expect_items(f, "s", "1");
    must(add(f, to("s"), "2"));
    expect_items(f, "s", "1 2");
    free(huge);
}

/* ---- backups ---- */

/* Opens the copy as a store of its own. */
static void expect_in_copy(struct fixture *f, const char *path, const char *session, const char *wanted)
{
    struct fixture copy = {.table = f->table, .on_disk = true, .config = f->config};
    char file[96];

    (void)snprintf(copy.directory, sizeof(copy.directory), "%s/restored", f->top);
    (void)snprintf(file, sizeof(file), "%s/items.db", copy.directory);
    assert_int_equal(mkdir(copy.directory, 0700), 0);
    assert_int_equal(rename(path, file), 0);
    must(open_store(&copy));
    expect_items(&copy, session, wanted);
    must(add(&copy, to(session), "restored"));
    close_store(&copy);
    buf_deinit(&copy.text);
    remove_tree(copy.directory);
}

static void copy_path(const struct fixture *f, char ret[64])
{
    (void)snprintf(ret, 64, "%s/copy", f->top);
}

static void expect_good_copy(const char *path)
{
    char why[160] = "";

    if (sqlite_verify(path, why, sizeof(why)))
        fail_msg("%s", why);
}

/* Some megabytes, so that a copy takes several steps. */
static void fill_for_backup(struct fixture *f)
{
    char text[1001];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < 50; i++) {
        struct slice items[100];

        for (size_t j = 0; j < N(items); j++)
            items[j] = slice_of(text);
        must(add_slices(f, to("large"), items, N(items)));
    }
}

static void test_a_backup_has_what_was_committed_while_it_was_made(void **state)
{
    struct fixture *f = *state;
    char path[64], text[16];
    size_t n_steps = 0;
    bool more = true;

    copy_path(f, path);
    fill_for_backup(f);
    must(add(f, to("s"), "before"));
    while (more) {
        must(f->table->backup_step(f->engine, path, &more));
        if (!more)
            break;
        (void)snprintf(text, sizeof(text), "%zu", n_steps++);
        must(add(f, to("between"), text));
        must(pop(f, to("large")));
        tend_all(f);
        if (n_steps == 3) { /* after a rollback SQLite begins the copy anew */
            begin(f);
            must(add(f, to("s"), "never"));
            roll_back(f);
        }
        assert_true(n_steps < 100);
    }
    assert_true(n_steps > 3);
    must(add(f, to("s"), "after"));
    expect_good_copy(path);
    expect_in_copy(f, path, "s", "before");
    must(f->table->backup_step(f->engine, path, &more)); /* a new one, now */
    while (more)
        must(f->table->backup_step(f->engine, path, &more));
    expect_in_copy(f, path, "s", "before after");
}

static void test_a_backup_that_is_given_up(void **state)
{
    struct fixture *f = *state;
    char path[64];
    bool more;

    copy_path(f, path);
    f->table->backup_end(f->engine); /* there is none */
    fill_for_backup(f);
    must(add(f, to("s"), "1"));
    must(f->table->backup_step(f->engine, path, &more));
    assert_true(more);
    f->table->backup_end(f->engine);
    must(add(f, to("s"), "2"));
    do
        must(f->table->backup_step(f->engine, path, &more)); /* over what the first has left */
    while (more);
    expect_good_copy(path);
    expect_in_copy(f, path, "s", "1 2");
    must(f->table->backup_step(f->engine, path, &more));
    assert_true(more);
    close_store(f); /* with a copy that is unfinished */
}

static void test_a_backup_that_cannot_be_written(void **state)
{
    struct fixture *f = *state;
    char path[64];
    bool more = true;

    (void)snprintf(path, sizeof(path), "%s/no/such/directory", f->top);
    must(add(f, to("s"), "1"));
    assert_true(f->table->backup_step(f->engine, path, &more) < 0);
    assert_false(more);
    assert_false(f->table->is_broken(f->engine));
    expect_items(f, "s", "1");
}

/* ---- the suite ---- */

static struct kind on_disk = {&sqlite_engine, true, 0}, in_memory = {&sqlite_engine, false, 0};
static struct kind followed = {&sqlite_engine, true, 1}, lagging = {&sqlite_engine, true, 8}; /* see sqlite_follow.c */

/* ---- what an owner may have ---- */

static struct change without(struct change change, bool sessions, bool bytes)
{
    change.no_sessions = sessions;
    change.no_bytes = bytes;
    return change;
}

static void expect_over(struct fixture *f, int r, enum over over)
{
    assert_int_equal(r, SESSIOND_FULL);
    assert_int_equal(f->done.over, over);
}

static void test_sessions_are_counted_as_they_come_and_go(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(use_of(f).sessions, 0);
    must(add(f, to("a"), "1"));
    must(add(f, to("a"), "2"));
    must(add(f, to("b"), "1"));
    assert_int_equal(use_of(f).sessions, 2);
    begin(f);
    must(add(f, to("c"), "1"));
    assert_int_equal(use_of(f).sessions, 3);
    must(delete (f, to("a")));
    assert_int_equal(use_of(f).sessions, 2);
    must(delete (f, to("b")));
    roll_back(f);
    assert_int_equal(use_of(f).sessions, 2);
    must(clear(f, to("a")));
    must(pop(f, to("b")));
    must(pop(f, keyed("never", "k", 1)));
    assert_int_equal(use_of(f).sessions, 2);
    must(delete (f, to("b")));
    assert_int_equal(use_of(f).sessions, 1);
    if (!f->on_disk)
        return;
    reopen_store(f);
    assert_int_equal(use_of(f).sessions, 1);
    must(add(f, to("b"), "2"));
    kill_store(f, NULL);
    assert_int_equal(use_of(f).sessions, 2);
}

static void test_who_may_have_no_more_sessions_goes_on_in_those_that_there_are(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("a"), "1"));
    expect_over(f, add(f, without(to("b"), true, false), "1"), OVER_SESSIONS);
    expect_over(f, replace(f, without(to("b"), true, false), FROM_START, "1"), OVER_SESSIONS);
    must(add(f, without(to("b"), true, false)));
    must(add(f, without(to("a"), true, false), "2"));
    must(replace(f, without(to("a"), true, false), SOME(2), "3", "4"));
    must(pop(f, without(keyed("b", "k", 1), true, false)));
    expect_items(f, "a", "1 3 4");
    assert_int_equal(state_of(f, "b").revision, 0);
    must(delete (f, without(to("a"), true, false)));
    must(add(f, to("b"), "1"));
}

static void test_who_may_have_no_more_bytes_can_still_remove(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("a"), "1", "2", "33333"));
    must(add(f, to("b"), "1"));
    expect_over(f, add(f, without(to("a"), false, true), "4"), OVER_BYTES);
    expect_over(f, replace(f, without(to("a"), false, true), FROM_START, "1", "2", "3", "12345"), OVER_BYTES);
    expect_over(f, replace(f, without(to("a"), false, true), SOME(3), "3"), OVER_BYTES);
    expect_items(f, "a", "1 2 33333");
    must(pop(f, without(to("a"), false, true)));
    must(replace(f, without(to("a"), false, true), SOME(2)));
    must(replace(f, without(to("a"), false, true), FROM_START, "5")); /* as a compaction does */
    expect_items(f, "a", "5");
    must(clear(f, without(to("a"), false, true)));
    must(delete (f, without(to("b"), false, true)));
}

/* Else the log would grow by removals of nothing. */
static void test_who_may_have_no_more_bytes_removes_nothing_in_vain(void **state)
{
    struct fixture *f = *state;

    must(add(f, to("a"), "1"));
    must(pop(f, to("a")));
    expect_over(f, clear(f, without(to("a"), false, true)), OVER_BYTES);
    expect_over(f, pop(f, without(keyed("a", "k", 1), false, true)), OVER_BYTES);
    expect_over(f, add(f, without(keyed("b", "l", 1), false, true)), OVER_BYTES);
    must(add(f, to("a"), "2"));
    expect_over(f, replace(f, without(to("a"), false, true), SOME(9)), OVER_BYTES);
    must(pop(f, without(to("b"), false, true))); /* writes nothing */
    must(delete (f, without(to("a"), false, true)));
}

static void test_a_repeat_is_answered_though_nothing_more_may_be_added(void **state)
{
    struct fixture *f = *state;

    must(add(f, keyed("a", "k", 1), "1"));
    must(add(f, without(keyed("a", "k", 1), true, true), "1"));
    assert_true(f->done.repeated);
    expect_over(f, add(f, without(keyed("b", "l", 1), true, true), "1"), OVER_BYTES);
    must(add(f, keyed("b", "l", 1), "1")); /* a refusal left no receipt */
    assert_false(f->done.repeated);
}

static void test_a_transaction_goes_on_after_an_owner_had_no_room(void **state)
{
    struct fixture *f = *state;

    begin(f);
    must(add(f, to("a"), "1"));
    expect_over(f, add(f, without(to("b"), true, false), "1"), OVER_SESSIONS);
    expect_over(f, replace(f, without(to("a"), false, true), SOME(9)), OVER_BYTES);
    must(add(f, to("a"), "2"));
    commit(f);
    expect_items(f, "a", "1 2");
    assert_int_equal(state_of(f, "b").revision, 0);
}

static void test_the_bytes_of_a_store_are_known(void **state)
{
    static char text[1 << 16];
    struct fixture *f = *state;
    struct slice item = {text, sizeof(text)};
    struct store_use before = use_of(f), full, cleared;

    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 32; i++)
        must(add_slices(f, to("a"), &item, 1));
    tend_all(f);
    full = use_of(f);
    must(clear(f, to("a")));
    tend_all(f);
    cleared = use_of(f);
    assert_true(before.bytes < 32 * 4096);
    assert_in_range(full.bytes, 32 * sizeof(text), 48 * sizeof(text) + before.bytes);
    assert_true(full.spare < 32 * 4096);
    assert_true(cleared.spare > 31 * sizeof(text)); /* the file keeps them, and they are used again */
}

#define TEST(kind, name)                                                                                               \
    {                                                                                                                  \
#name, name, set_up, tear_down, &(kind)                                                                        \
    }
#define SUITE(kind)                                                                                                    \
    TEST(kind, test_items_come_back_byte_for_byte), TEST(kind, test_items_of_an_add_stand_side_by_side),               \
        TEST(kind, test_an_add_of_nothing_changes_nothing_and_succeeds),                                               \
        TEST(kind, test_session_ids_are_compared_byte_by_byte),                                                        \
        TEST(kind, test_a_pop_takes_the_newest_item_and_leaves_a_gap),                                                 \
        TEST(kind, test_a_pop_of_nothing_changes_nothing),                                                             \
        TEST(kind, test_a_clear_takes_all_items_and_leaves_the_session),                                               \
        TEST(kind, test_a_clear_of_what_never_was_creates_nothing),                                                    \
        TEST(kind, test_a_replace_gives_new_items_new_numbers),                                                        \
        TEST(kind, test_a_replace_in_a_gap_and_beyond_the_end), TEST(kind, test_a_replace_of_what_never_was),          \
        TEST(kind, test_a_deleted_session_begins_anew), TEST(kind, test_a_delete_of_what_never_was_creates_nothing),   \
        TEST(kind, test_revision_counts_changes_and_epoch_removals), TEST(kind, test_a_seq_is_never_used_twice),       \
        TEST(kind, test_epochs_of_a_session_that_comes_and_goes_only_grow),                                            \
        TEST(kind, test_every_choice_of_limit_after_and_before), TEST(kind, test_the_largest_numbers_select),          \
        TEST(kind, test_an_answer_is_the_longest_beginning_within_max_bytes),                                          \
        TEST(kind, test_an_answer_has_65536_items_at_most), TEST(kind, test_a_long_history_is_read_as_it_stood),       \
        TEST(kind, test_reading_what_never_was_creates_nothing),                                                       \
        TEST(kind, test_a_row_that_cannot_be_taken_ends_the_reading),                                                  \
        TEST(kind, test_a_session_that_cannot_be_taken_ends_the_listing),                                              \
        TEST(kind, test_an_item_that_cannot_be_taken_is_not_popped),                                                   \
        TEST(kind, test_what_stands_beside_items_is_given_to_who_asks),                                                \
        TEST(kind, test_what_stands_beside_items_counts_in_an_answer_that_has_it),                                     \
        TEST(kind, test_a_repeated_pop_has_what_stood_beside_its_item),                                                \
        TEST(kind, test_sessions_are_listed_in_the_order_of_their_bytes),                                              \
        TEST(kind, test_a_listed_session_is_described),                                                                \
        TEST(kind, test_a_precondition_that_does_not_fit_changes_nothing), TEST(kind, test_a_precondition_that_fits),  \
        TEST(kind, test_revision_0_means_must_not_exist_yet), TEST(kind, test_a_transaction_goes_on_after_a_refusal),  \
        TEST(kind, test_a_repeat_answers_as_the_first_time_and_does_nothing),                                          \
        TEST(kind, test_a_repeat_in_the_transaction_of_the_first), TEST(kind, test_a_key_names_one_change_only),       \
        TEST(kind, test_keys_are_compared_byte_by_byte),                                                               \
        TEST(kind, test_each_key_is_found_in_whatever_order_they_come),                                                \
        TEST(kind, test_a_key_is_looked_up_before_any_precondition), TEST(kind, test_a_refusal_leaves_no_receipt),     \
        TEST(kind, test_a_pop_of_nothing_leaves_a_receipt), TEST(kind, test_changes_of_nothing_leave_receipts),        \
        TEST(kind, test_a_clear_erases_what_the_receipts_of_pops_hold),                                                \
        TEST(kind, test_a_delete_takes_the_receipts_with_it_but_its_own),                                              \
        TEST(kind, test_a_pop_with_a_key_that_a_delete_has_freed),                                                     \
        TEST(kind, test_receipts_outlive_clear_and_restart), TEST(kind, test_what_is_rolled_back_never_was),           \
        TEST(kind, test_changes_of_a_transaction_see_each_other), TEST(kind, test_a_transaction_of_reads_only),        \
        TEST(kind, test_an_empty_transaction_and_a_rollback_of_nothing),                                               \
        TEST(kind, test_all_is_there_after_close_and_open), TEST(kind, test_a_fresh_store_is_empty),                   \
        TEST(kind, test_sizes_grow_with_what_is_stored),                                                               \
        TEST(kind, test_housekeeping_changes_nothing_that_can_be_read), TEST(kind, test_closing_nothing),              \
        TEST(kind, test_sessions_are_counted_as_they_come_and_go),                                                     \
        TEST(kind, test_who_may_have_no_more_sessions_goes_on_in_those_that_there_are),                                \
        TEST(kind, test_who_may_have_no_more_bytes_can_still_remove),                                                  \
        TEST(kind, test_who_may_have_no_more_bytes_removes_nothing_in_vain),                                           \
        TEST(kind, test_a_repeat_is_answered_though_nothing_more_may_be_added),                                        \
        TEST(kind, test_a_transaction_goes_on_after_an_owner_had_no_room),                                             \
        TEST(kind, test_the_bytes_of_a_store_are_known)

int main(void)
{
    static const struct CMUnitTest disk_tests[] = {
        SUITE(on_disk),
        TEST(on_disk, test_a_backup_has_what_was_committed_while_it_was_made),
        TEST(on_disk, test_a_backup_that_is_given_up),
        TEST(on_disk, test_a_backup_that_cannot_be_written),
    };
    static const struct CMUnitTest followed_tests[] = {SUITE(followed)}, lagging_tests[] = {SUITE(lagging)};
    static const struct CMUnitTest memory_tests[] = {
        SUITE(in_memory),
        cmocka_unit_test_prestate_setup_teardown(test_a_full_store_refuses_and_goes_on_after_a_clear, set_up_small,
                                                 tear_down, &in_memory),
        cmocka_unit_test_prestate_setup_teardown(test_a_change_too_large_for_the_rest_of_the_store, set_up_small,
                                                 tear_down, &in_memory),
    };
    struct config config;

    config_init(&config);
    log_setup((enum log_level)0); /* faults are wanted here */
    if (sqlite_setup(&config))
        return 1;
    return cmocka_run_group_tests_name("engine on disk", disk_tests, NULL, NULL) +
           cmocka_run_group_tests_name("engine on disk, whose tables follow at once", followed_tests, NULL, NULL) +
           cmocka_run_group_tests_name("engine on disk, whose tables lag behind", lagging_tests, NULL, NULL) +
           cmocka_run_group_tests_name("engine in memory", memory_tests, NULL, NULL);
}
