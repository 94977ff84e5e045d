/*
 * What only the SQLite engine has: its files, their versions, what is left in them after a removal, how receipts age,
 * and how a loss is noticed.
 *
 * `test_sqlite --make-store DIR` makes a store to be kept in tests/contract/stores: of the present schema, with a
 * write-ahead log that is not checkpointed. test_kept_stores_are_opened then expects in it what make_store puts there.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "contract.h"
#include "store/sqlite_schema.h"

#define STORES "tests/contract/stores"

/* ---- files ---- */

static bool contains(const char *path, const char *text)
{
    struct buf bytes = read_file(path);
    bool found = bytes.size > 0 && memmem(bytes.data, bytes.size, text, strlen(text));

    buf_deinit(&bytes);
    return found;
}

static void flip_byte(const char *path, off_t offset)
{
    struct buf bytes = read_file(path);

    assert_true((size_t)offset < bytes.size);
    bytes.data[offset] ^= 0x55;
    write_file(path, buf_slice(&bytes));
    buf_deinit(&bytes);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* ---- new stores ---- */

static void test_a_new_store_is_marked_as_ours(void **state)
{
    struct fixture *f = *state;
    struct stat status;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    assert_false(exists(file_of(f, "items.db-shm"))); /* exclusive: nobody shares memory with us */
    assert_true(exists(file_of(f, "items.db-wal")));
    close_store(f);
    assert_false(exists(file_of(f, "items.db-wal"))); /* checkpointed */
    assert_int_equal(sql(file_of(f, "items.db"), "PRAGMA application_id"), 0x73657373);
    assert_int_equal(sql(file_of(f, "items.db"), "PRAGMA user_version"), SCHEMA_VERSION);
    assert_int_equal(stat(f->directory, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
}

static void test_an_empty_file_becomes_a_store(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->directory, 0700), 0);
    write_file(file_of(f, "items.db"), slice_of(""));
    must(open_store(f));
    must(add(f, to("s"), "1"));
    reopen_store(f);
    expect_items(f, "s", "1");
}

static void test_nobody_else_gets_into_an_open_store(void **state)
{
    struct fixture *f = *state;
    sqlite3 *db;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    assert_int_equal(sqlite3_open(file_of(f, "items.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "SELECT count(*) FROM log", NULL, NULL, NULL), SQLITE_BUSY);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---- files that are refused ---- */

static void expect_refused_untouched(struct fixture *f)
{
    struct buf before = read_file(file_of(f, "items.db")), log_before = read_file(file_of(f, "items.db-wal"));
    struct buf after, log_after;

    for (int i = 0; i < 2; i++) {
        assert_int_not_equal(open_store(f), 0);
        assert_null(f->engine);
        after = read_file(file_of(f, "items.db"));
        log_after = read_file(file_of(f, "items.db-wal"));
        assert_true(slice_equal(buf_slice(&before), buf_slice(&after)));
        assert_true(slice_equal(buf_slice(&log_before), buf_slice(&log_after)));
        buf_deinit(&after);
        buf_deinit(&log_after);
    }
    buf_deinit(&before);
    buf_deinit(&log_before);
}

static void test_a_store_of_another_version_is_refused_untouched(void **state)
{
    static const char *const versions[] = {"PRAGMA user_version = 4", "PRAGMA user_version = 2147483647",
                                           "PRAGMA user_version = 0", "PRAGMA user_version = -1",
                                           "PRAGMA user_version = -2147483648"};
    struct fixture *f = *state;

    for (size_t i = 0; i < N(versions); i++) {
        must(open_store(f));
        must(add(f, to("s"), "1"));
        close_store(f);
        (void)sql(file_of(f, "items.db"), versions[i]);
        expect_refused_untouched(f);
        (void)sql(file_of(f, "items.db"), "PRAGMA user_version = 3");
        must(open_store(f));
        must(get(f, of("s")));
        assert_int_equal(f->n_rows, i + 1);
        close_store(f);
    }
}

/* A newer sessiond was killed, and an older one comes in its place: not even the log may be written back. */
static void test_a_newer_store_with_a_log_is_refused_untouched(void **state)
{
    struct fixture *f = *state;
    pid_t child;
    int status;
    sqlite3 *db;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    close_store(f);
    child = fork();
    if (child == 0) {
        if (sqlite3_open_v2(file_of(f, "items.db"), &db, SQLITE_OPEN_READWRITE, "sessiond") != SQLITE_OK ||
            sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA user_version = 4", NULL, NULL, NULL) != SQLITE_OK)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(exists(file_of(f, "items.db-wal")));
    expect_refused_untouched(f);
    assert_int_equal(sql(file_of(f, "items.db"), "PRAGMA user_version"), 4);
}

static void test_a_foreign_database_is_refused_untouched(void **state)
{
    static const char *const databases[] = {
        "CREATE TABLE t (a)",
        "PRAGMA application_id = 1; CREATE TABLE t (a)",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 1",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)",
    };
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->directory, 0700), 0);
    for (size_t i = 0; i < N(databases); i++) {
        (void)sql_as(NULL, file_of(f, "items.db"), databases[i]);
        expect_refused_untouched(f);
        assert_int_equal(unlink(file_of(f, "items.db")), 0);
        (void)unlink(file_of(f, "items.db-wal"));
    }
}

static void test_what_is_no_database_is_refused_untouched(void **state)
{
    static const struct slice contents[] = {
        {"xy", 2}, {"SQLite format 3", 16}, {"{\"role\": \"user\"}\n", 17}, {"SQLite format 3\0\x10\0\1\1\0@  ", 24}};
    struct fixture *f = *state;
    struct buf noise = BUF_INIT;

    assert_int_equal(mkdir(f->directory, 0700), 0);
    for (size_t i = 0; i < N(contents); i++) {
        write_file(file_of(f, "items.db"), contents[i]);
        expect_refused_untouched(f);
    }
    for (int i = 0; i < 20000; i++)
        buf_append(&noise, &(char){(char)(i * 31 + i / 7)}, 1);
    write_file(file_of(f, "items.db"), buf_slice(&noise));
    expect_refused_untouched(f);
    buf_deinit(&noise);
}

static void test_what_is_no_file_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->directory, 0700), 0);
    assert_int_equal(mkdir(file_of(f, "items.db"), 0700), 0);
    assert_int_not_equal(open_store(f), 0);
    assert_int_equal(rmdir(file_of(f, "items.db")), 0);

    write_file(file_of(f, "elsewhere"), slice_of(""));
    assert_int_equal(symlink("elsewhere", file_of(f, "items.db")), 0);
    assert_int_not_equal(open_store(f), 0);
    assert_int_equal(read_file(file_of(f, "elsewhere")).size, 0);
}

/* ---- kept stores ---- */

/* Four sessions; what was added last is only in the write-ahead log. */
static void fill_store(struct fixture *f)
{
    must(add(f, to("kept"), "1", "2", "3"));
    must(pop(f, keyed("kept", "pop", 'p')));
    must(add(f, keyed("kept", "add", 'a'), "4"));
    must(add(f, to("cleared"), "x", "y"));
    must(clear(f, keyed("cleared", "clear", 'c')));
    must(add(f, to("deleted"), "z"));
    must(delete (f, keyed("deleted", "delete", 'd')));
    must(replace(f, keyed("kept", "replace", 'r'), SOME(2), "b", "c"));
    tend_all(f);
    must(add(f, to("only in the log"), "new"));
    must(pop(f, to("kept")));
}

static void expect_filled(struct fixture *f)
{
    expect_items(f, "kept", "1 b");
    assert_int_equal(f->got.head_seq, 6);
    assert_int_equal(f->got.revision, 5);
    expect_items(f, "cleared", "");
    assert_int_equal(f->got.head_seq, 2);
    assert_int_equal(f->got.revision, 2);
    assert_int_equal(state_of(f, "deleted").revision, 0);
    expect_items(f, "only in the log", "new");
    assert_int_equal(sizes(f).sessions, 3);
    assert_int_equal(sizes(f).missing, 0);

    must(pop(f, keyed("kept", "pop", 'p')));
    expect_rows(f, "3");
    assert_true(f->done.repeated);
    must(add(f, keyed("kept", "add", 'a'), "4"));
    assert_true(f->done.repeated);
    expect_done(f, 4, 4, 0);
    must(clear(f, keyed("cleared", "clear", 'c')));
    assert_true(f->done.repeated);
    expect_done(f, 0, 0, 2);
    must(delete (f, keyed("deleted", "delete", 'd')));
    assert_true(f->done.repeated);
    expect_done(f, 0, 0, 1);
    must(replace(f, keyed("kept", "replace", 'r'), SOME(2), "b", "c"));
    assert_true(f->done.repeated);
    expect_done(f, 5, 6, 2);

    must(add(f, to("kept"), "after"));
    expect_done(f, 7, 7, 0);
    reopen_store(f);
    expect_items(f, "kept", "1 b after");
}

/* Leaves like a process that is killed: nothing is closed, the log is not checkpointed. */
static int make_store(const char *directory)
{
    struct fixture f = {.table = &sqlite_engine, .on_disk = true};

    config_init(&f.config);
    (void)snprintf(f.directory, sizeof(f.directory), "%s", directory);
    if (open_store(&f))
        return EXIT_FAILURE;
    fill_store(&f);
    _exit(EXIT_SUCCESS);
}

/* Each store that was ever released opens, whatever its schema, with all that its log holds. */
static void test_kept_stores_are_opened(void **state)
{
    static const char *const kept[] = {"schema-1", "schema-2"};
    static const char *const files[] = {"items.db", "items.db-wal", "items.head"};
    struct fixture *f = *state;

    for (size_t i = 0; i < N(kept); i++) {
        assert_int_equal(mkdir(f->directory, 0700), 0);
        for (size_t j = 0; j < N(files); j++) {
            char path[128];

            (void)snprintf(path, sizeof(path), STORES "/%s/%s", kept[i], files[j]);
            assert_true(exists(path));
            copy_file(path, file_of(f, files[j]));
        }
        must(open_store(f));
        expect_filled(f);
        close_store(f);
        remove_tree(f->directory);
    }
}

/* A store from before there was anything beside items takes it from now on; its chain goes on. */
static void test_a_kept_store_takes_what_stands_beside_items(void **state)
{
    static const char *const files[] = {"items.db", "items.db-wal", "items.head"};
    struct fixture *f = *state;
    struct selection selection = of("kept");

    assert_int_equal(mkdir(f->directory, 0700), 0);
    for (size_t i = 0; i < N(files); i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), STORES "/schema-1/%s", files[i]);
        copy_file(path, file_of(f, files[i]));
    }
    must(open_store(f));
    must(add(f, to("kept"), "new+beside"));
    close_store(f);
    must(open_store(f));
    selection.with_meta = true;
    must(get(f, selection));
    assert_int_equal(f->got.missing, 0);
    expect_rows(f, "1 b new+beside");
}

static void test_a_killed_process_leaves_all_that_it_committed(void **state)
{
    struct fixture *f = *state;
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(make_store(f->directory));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(exists(file_of(f, "items.db-wal")));
    must(open_store(f));
    expect_filled(f);
}

static void test_a_killed_process_leaves_nothing_of_an_open_transaction(void **state)
{
    struct fixture *f = *state;
    int status;
    pid_t child = fork();

    if (child == 0) {
        must(open_store(f));
        must(add(f, to("s"), "1"));
        begin(f);
        must(add(f, to("s"), "2"));
        must(pop(f, to("s")));
        must(clear(f, to("s")));
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    must(open_store(f));
    expect_items(f, "s", "1");
    assert_int_equal(f->got.revision, 1);
}

/* ---- what is left after a removal ---- */

static void expect_no_trace(struct fixture *f, const char *text)
{
    close_store(f);
    assert_true(contains(file_of(f, "items.db"), "a neighbour"));
    assert_false(contains(file_of(f, "items.db"), text));
    assert_false(contains(file_of(f, "items.db-wal"), text));
    must(open_store(f));
}

static void test_removed_texts_leave_the_file(void **state)
{
    struct fixture *f = *state;
    char large[9001];

    for (size_t i = 0; i < sizeof(large); i++)
        large[i] = "abracadabra"[i % 11];
    large[sizeof(large) - 1] = '\0';
    must(open_store(f));
    must(add(f, to("s"), "a neighbour"));
    for (size_t i = 0; i < 2; i++) {
        const char *secret = i == 0 ? "abracadabra" : large;

        must(add(f, to("s"), secret));
        must(pop(f, to("s")));
        expect_no_trace(f, "abracadabra");
        must(add(f, to("s"), "between", secret));
        must(replace(f, to("s"), SOME(f->done.last_seq), "x"));
        expect_no_trace(f, "abracadabra");
        must(add(f, to("gone"), secret));
        must(clear(f, to("gone")));
        expect_no_trace(f, "abracadabra");
        must(add(f, to("gone"), secret));
        must(pop(f, keyed("gone", "key", 'a'))); /* now the receipt has it */
        must(clear(f, to("gone")));
        expect_no_trace(f, "abracadabra");
        must(add(f, to("s"), "beside"));
        must(add_with(f, to("s"), "x", secret));
        must(pop(f, to("s")));
        expect_no_trace(f, "abracadabra");
        must(add_with(f, to("gone"), "x", secret));
        must(pop(f, keyed("gone", "beside it", 'a')));
        must(clear(f, to("gone")));
        expect_no_trace(f, "abracadabra");
        must(add_with(f, to("gone"), "x", secret));
        must(replace(f, to("gone"), FROM_START, "y"));
        expect_no_trace(f, "abracadabra");
        must(add(f, to("gone"), secret, secret));
        must(pop(f, keyed("gone", "other", 'a')));
        must(delete (f, to("gone")));
        expect_no_trace(f, "abracadabra");
    }
}

/* ---- and in the write-ahead log ---- */

static bool is_in_files(struct fixture *f, const char *text)
{
    return contains(file_of(f, "items.db"), text) || contains(file_of(f, "items.db-wal"), text);
}

/* Of an open store. What was erased may have been in use long before, and the log overwritten since. */
static void test_removed_texts_leave_the_log_in_time(void **state)
{
    struct fixture *f = *state;

    f->config.erase_seconds = 3600;
    must(open_store(f));
    must(add(f, to("s"), "a neighbour", "abracadabra"));
    must(pop(f, to("s")));
    tend_all(f);
    assert_true(contains(file_of(f, "items.db-wal"), "abracadabra"));

    f->config.erase_seconds = 0;
    tend_all(f);
    assert_false(is_in_files(f, "abracadabra"));
    for (int way = 0; way < 4; way++) {
        must(add(f, to("t"), "a neighbour", "abracadabra"));
        if (way % 2) /* it is in the database, too */
            reopen_store(f);
        assert_true(is_in_files(f, "abracadabra"));
        if (way < 2)
            must(replace(f, to("t"), FROM_START, "x"));
        else
            must(delete (f, to("t")));
        tend_all(f);
        assert_false(is_in_files(f, "abracadabra"));
        expect_items(f, "s", "a neighbour");
    }
}

static void test_a_pop_with_a_key_leaves_the_log_when_it_is_cleared(void **state)
{
    struct fixture *f = *state;

    f->config.erase_seconds = 0;
    must(open_store(f));
    must(add(f, to("s"), "abracadabra"));
    must(pop(f, keyed("s", "k", 'a')));
    tend_all(f);
    assert_true(is_in_files(f, "abracadabra")); /* the receipt has it */
    must(clear(f, to("s")));
    tend_all(f);
    assert_false(is_in_files(f, "abracadabra"));
}

static void test_what_was_removed_before_a_kill_leaves_the_log_after_it(void **state)
{
    struct fixture *f = *state;

    f->config.erase_seconds = 3600;
    must(open_store(f));
    must(add(f, to("s"), "a neighbour", "abracadabra"));
    must(pop(f, to("s")));
    kill_store(f, NULL);
    assert_true(contains(file_of(f, "items.db-wal"), "abracadabra"));
    f->config.erase_seconds = 0;
    tend_all(f);
    assert_false(is_in_files(f, "abracadabra"));
    expect_items(f, "s", "a neighbour");
}

/* A log that grows costs more than one that is written over. */
static void test_a_log_from_which_nothing_was_erased_is_not_cut_off(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;

    f->config.erase_seconds = 0;
    must(open_store(f));
    tend_all(f); /* what a new store has written */
    must(add(f, to("s"), "1"));
    assert_int_equal(stat(file_of(f, "items.db-wal"), &before), 0);
    tend_all(f);
    assert_int_equal(stat(file_of(f, "items.db-wal"), &after), 0);
    assert_true(before.st_size > 0 && before.st_size == after.st_size);
}

/* ---- receipts age ---- */

/* Lets so many seconds of uptime pass, of which nothing happened in this store: what the clock would have written. */
static void let_pass(struct fixture *f, uint64_t seconds)
{
    char text[160];

    close_store(f);
    (void)snprintf(text, sizeof(text),
                   "INSERT INTO clock SELECT max(uptime_s) + %llu, position, receipts FROM clock"
                   " WHERE uptime_s = (SELECT max(uptime_s) FROM clock)",
                   (unsigned long long)seconds);
    (void)sql(file_of(f, "items.db"), text);
    must(open_store(f));
}

static int64_t count(struct fixture *f, const char *text)
{
    int64_t n;

    close_store(f);
    n = sql(file_of(f, "items.db"), text);
    must(open_store(f));
    return n;
}

static void test_a_receipt_is_kept_for_its_time_and_then_goes(void **state)
{
    struct fixture *f = *state;
    uint64_t time = f->config.receipt_seconds;

    must(open_store(f));
    must(add(f, keyed("s", "k", 'a'), "1"));
    must(pop(f, keyed("never", "nothing", 'n')));
    let_pass(f, time / 2);
    must(add(f, keyed("s", "later", 'a'), "2"));
    let_pass(f, time / 2 - 60);
    tend_all(f);
    must(add(f, keyed("s", "k", 'a'), "1"));
    assert_true(f->done.repeated);
    must(pop(f, keyed("never", "nothing", 'n')));
    assert_true(f->done.repeated);

    let_pass(f, 120);
    tend_all(f);
    assert_int_equal(count(f, "SELECT count(*) FROM receipt"), 1);
    must(add(f, keyed("s", "later", 'a'), "2"));
    assert_true(f->done.repeated);
    must(add(f, keyed("s", "k", 'b'), "3")); /* the key may name another change now */
    assert_false(f->done.repeated);
    expect_items(f, "s", "1 2 3");
}

static void test_what_a_receipt_held_goes_with_it(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "a neighbour", "abracadabra"));
    must(pop(f, keyed("s", "k", 'a')));
    let_pass(f, f->config.receipt_seconds + 60);
    tend_all(f);
    expect_no_trace(f, "abracadabra");
    must(pop(f, keyed("s", "k", 'a')));
    assert_false(f->done.repeated);
    expect_rows(f, "a neighbour");
}

static void test_rows_that_nobody_needs_are_swept(void **state)
{
    struct fixture *f = *state;
    struct selection_result was;

    must(open_store(f));
    for (int i = 0; i < 20; i++) {
        must(add(f, keyed("s", "add", (char)i), "1", "2", "3"));
        must(clear(f, to("s")));
        must(delete (f, to("gone")));
        must(add(f, to("gone"), "x"));
        must(add(f, to("s"), "4"));
        must(delete (f, to("s")));
    }
    must(add(f, to("empty"), "1"));
    must(pop(f, to("empty")));
    must(add(f, to("s"), "1", "2"));
    must(pop(f, to("s")));
    was = state_of(f, "s");
    let_pass(f, f->config.receipt_seconds + 60);
    tend_all(f);
    assert_int_equal(count(f, "SELECT count(*) FROM receipt"), 0);
    assert_int_equal(count(f, "SELECT count(*) FROM session WHERE number NOT IN (SELECT position FROM log"
                              " WHERE name = session.name)"),
                     0); /* the log alone tells whose rows these are */
    assert_int_equal(count(f, "SELECT count(*) FROM log WHERE operation = 6"), 0);
    /* Of what is gone only rows that name a session are left, and the last one of each. */
    assert_int_equal(count(f, "SELECT count(*) FROM log WHERE body IS NULL AND position NOT IN"
                              " (SELECT number FROM session UNION SELECT position FROM session)"),
                     0);
    assert_int_equal(count(f, "SELECT count(*) FROM log"), 5);
    expect_items(f, "s", "1");
    assert_int_equal(f->got.revision, was.revision);
    assert_int_equal(f->got.epoch, was.epoch);
    must(delete (f, to("s")));
    must(add(f, to("s"), "new"));
    assert_true(f->done.epoch > was.epoch);
}

/* Items are removed long after the sweep has passed them, sessions go on, end and begin again. */
static void test_the_log_of_a_store_that_is_used_for_ever_does_not_grow(void **state)
{
    struct fixture *f = *state;
    int64_t rows[6];
    char key[32];

    must(open_store(f));
    must(add(f, to("long"), "1"));
    for (size_t i = 0; i < N(rows); i++) {
        for (int j = 0; j < 10; j++) {
            (void)snprintf(key, sizeof(key), "%zu-%d", i, j);
            must(add(f, keyed("long", key, 'a'), "2", "3", "4"));
            must(pop(f, to("long")));
            must(replace(f, to("long"), SOME(f->done.last_seq - 1), "5"));
            must(add(f, to("short"), "6"));
        }
        tend_all(f);
        let_pass(f, f->config.receipt_seconds + 60);
        tend_all(f); /* they are items still, and stay */
        must(clear(f, to("long")));
        must(pop(f, to("short")));
        must(delete (f, to("short")));
        must(add(f, to("long"), "1"));
        let_pass(f, f->config.receipt_seconds + 60);
        tend_all(f);
        rows[i] = count(f, "SELECT count(*) FROM log");
    }
    assert_int_equal(rows[N(rows) - 1], rows[0]);
    expect_items(f, "long", "1");
    assert_int_equal(f->got.head_seq, 1 + N(rows) * 41);
    reopen_store(f);
    assert_int_equal(sizes(f).missing, 0);
    must(add(f, to("long"), "2"));
    assert_int_equal(f->done.first_seq, 2 + N(rows) * 41);
}

/* Where nothing follows a removal, its row alone tells which numbers were given. */
static void test_the_last_row_of_each_session_is_not_swept(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("cleared"), "1", "2"));
    must(clear(f, to("cleared")));
    must(replace(f, to("replaced"), FROM_START, "1"));
    must(replace(f, to("replaced"), FROM_START));
    must(add(f, to("popped"), "1"));
    must(pop(f, to("popped")));
    must(pop(f, to("another")));
    must(add(f, to("another"), "1"));
    let_pass(f, f->config.receipt_seconds + 60);
    tend_all(f);
    assert_int_equal(count(f, "SELECT count(*) FROM log JOIN session ON log.position = session.position"), 4);
    assert_int_equal(count(f, "SELECT count(*) FROM log JOIN session ON log.position = session.number"), 4);
    assert_int_equal(count(f, "SELECT count(*) FROM log"), 7); /* that of `another` is both */
}

static void test_a_deleted_session_leaves_no_trace_in_the_end(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("a neighbour"), "a neighbour"));
    must(add(f, to("abracadabra"), "1"));
    must(clear(f, to("abracadabra")));
    must(delete (f, to("abracadabra")));
    must(add(f, to("a neighbour"), "2"));
    let_pass(f, f->config.receipt_seconds + 60);
    assert_true(contains(file_of(f, "items.db"), "abracadabra"));
    tend_all(f);
    expect_no_trace(f, "abracadabra");
}

/* The log's last row tells where positions go on, and that nothing is missing. */
static void test_the_last_row_is_not_swept(void **state)
{
    static const char *const keys[] = {"k0", "k1", "k2"};
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    for (size_t i = 0; i < N(keys); i++)
        must(pop(f, keyed("never", keys[i], 'a')));
    let_pass(f, f->config.receipt_seconds + 60);
    tend_all(f);
    assert_int_equal(count(f, "SELECT count(*) FROM log"), 2);
    assert_int_equal(sizes(f).missing, 0);
    must(pop(f, keyed("never", keys[2], 'b')));
    assert_false(f->done.repeated);
}

static void add_keyed(struct fixture *f, const char *prefix, int n)
{
    char key[32];

    begin(f);
    for (int i = 0; i < n; i++) {
        (void)snprintf(key, sizeof(key), "%s-%d", prefix, i);
        must(add(f, keyed("s", key, 'a'), "1"));
        assert_false(f->done.repeated);
    }
    commit(f);
}

static void test_of_too_many_receipts_the_oldest_go(void **state)
{
    struct fixture *f = *state;
    int64_t n;

    f->config.receipts = 1000;
    must(open_store(f));
    add_keyed(f, "old", 2500);
    let_pass(f, f->config.receipt_min_seconds + 60);
    add_keyed(f, "new", 100);
    tend_all(f);
    n = count(f, "SELECT count(*) FROM receipt");
    assert_true(n <= 1000 && n > 400); /* and not many more than have to */
    must(add(f, keyed("s", "new-0", 'a'), "1"));
    assert_true(f->done.repeated);
    must(add(f, keyed("s", "old-0", 'a'), "1"));
    assert_false(f->done.repeated);
}

static void test_no_receipt_goes_before_its_shortest_time(void **state)
{
    struct fixture *f = *state;

    f->config.receipts = 1000;
    must(open_store(f));
    add_keyed(f, "k", 1500);
    let_pass(f, f->config.receipt_min_seconds - 60);
    tend_all(f);
    assert_int_equal(count(f, "SELECT count(*) FROM receipt"), 1500);
}

/* More than one step of the sweep, after a long time without any: the clock's row that it goes by must stay. */
static void test_a_late_sweep_sweeps_all(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    add_keyed(f, "k", 1500);
    let_pass(f, 2 * f->config.receipt_seconds);
    tend_all(f);
    assert_int_equal(count(f, "SELECT count(*) FROM receipt"), 0);
}

static void test_the_clock_is_trimmed(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    for (int day = 0; day < 10; day++) {
        char prefix[16];

        (void)snprintf(prefix, sizeof(prefix), "day-%d", day);
        add_keyed(f, prefix, 3);
        let_pass(f, f->config.receipt_seconds);
        tend_all(f);
    }
    assert_true(count(f, "SELECT count(*) FROM clock") < 8);
}

static void test_receipts_are_counted_across_a_kill(void **state)
{
    struct fixture *f = *state;
    int status;
    pid_t child = fork();

    f->config.receipts = 1000;
    if (child == 0) {
        must(open_store(f));
        add_keyed(f, "k", 1500);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    must(open_store(f));
    let_pass(f, f->config.receipt_min_seconds + 60);
    tend_all(f);
    assert_true(count(f, "SELECT count(*) FROM receipt") <= 1000);
}

/* ---- losses ---- */

/* A store of five changes, whose file is then put back to what it was after three. */
static void lose_two_changes(struct fixture *f)
{
    must(open_store(f));
    must(add(f, to("s"), "1"));
    must(add(f, to("s"), "2"));
    must(add(f, keyed("s", "k", 'a'), "3"));
    close_store(f);
    copy_file(file_of(f, "items.db"), file_of(f, "old"));
    must(open_store(f));
    must(add(f, to("s"), "4"));
    must(pop(f, to("s")));
    close_store(f);
    copy_file(file_of(f, "old"), file_of(f, "items.db"));
    must(open_store(f));
}

static void expect_missing(struct fixture *f, uint64_t missing)
{
    expect_items(f, "s", "1 2 3");
    assert_int_equal(f->got.missing, missing);
    assert_int_equal(sizes(f).missing, missing);
    assert_int_equal(add(f, to("s"), "x"), SESSIOND_ROLLED_BACK);
    assert_int_equal(add(f, keyed("s", "k", 'a'), "3"), SESSIOND_ROLLED_BACK);
    assert_int_equal(pop(f, to("s")), SESSIOND_ROLLED_BACK);
    assert_int_equal(clear(f, to("never")), SESSIOND_ROLLED_BACK);
    assert_int_equal(delete (f, to("s")), SESSIOND_ROLLED_BACK);
    assert_int_equal(replace(f, to("s"), FROM_START), SESSIOND_ROLLED_BACK);
    assert_false(f->table->is_broken(f->engine));
    tend_all(f);
}

static uint64_t recover(struct fixture *f)
{
    uint64_t missing;

    begin(f);
    must(f->table->recover(f->engine, &missing));
    commit(f);
    return missing;
}

static void test_an_old_copy_in_place_of_the_store_is_noticed(void **state)
{
    struct fixture *f = *state;

    lose_two_changes(f);
    expect_missing(f, 2);
    reopen_store(f); /* it is not forgotten */
    expect_missing(f, 2);
}

static void test_a_loss_that_is_accepted(void **state)
{
    struct fixture *f = *state;
    uint64_t epoch;

    lose_two_changes(f);
    epoch = state_of(f, "s").epoch;
    begin(f);
    must(f->table->recover(f->engine, &epoch));
    roll_back(f);
    expect_missing(f, 2); /* not accepted after all */

    epoch = state_of(f, "s").epoch;
    assert_int_equal(recover(f), 2);
    expect_items(f, "s", "1 2 3");
    assert_int_equal(f->got.missing, 0);
    assert_true(f->got.epoch > epoch + 1); /* the pop that is lost told epoch + 1 */
    must(add(f, keyed("s", "k", 'a'), "3"));
    assert_true(f->done.repeated);
    must(add(f, to("s"), "new"));
    reopen_store(f);
    expect_items(f, "s", "1 2 3 new");
    assert_int_equal(sizes(f).missing, 0);
    assert_int_equal(recover(f), 0);
}

static void test_epochs_go_on_growing_after_losses(void **state)
{
    struct fixture *f = *state;
    uint64_t epoch;

    for (int i = 0; i < 3; i++) {
        lose_two_changes(f);
        (void)recover(f);
        epoch = state_of(f, "s").epoch;
        must(delete (f, to("s")));
        must(add(f, to("s"), "new"));
        assert_true(f->done.epoch > epoch);
        must(delete (f, to("s")));
        close_store(f);
    }
}

static void test_a_log_that_is_cut_off_is_noticed(void **state)
{
    struct fixture *f = *state;
    int status;
    pid_t child = fork();

    if (child == 0) { /* as a process that is killed */
        must(open_store(f));
        must(add(f, to("s"), "1", "2", "3"));
        must(add(f, to("s"), "4"));
        must(add(f, to("s"), "5", "6"));
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(stat(file_of(f, "items.db-wal"), &(struct stat){0}), 0);
    {
        struct buf log = read_file(file_of(f, "items.db-wal"));

        log.size -= 100; /* of the last frame, which is the last commit's */
        write_file(file_of(f, "items.db-wal"), buf_slice(&log));
        buf_deinit(&log);
    }
    must(open_store(f));
    expect_items(f, "s", "1 2 3 4");
    assert_int_equal(f->got.missing, 2);
}

static void test_another_history_of_the_same_length_is_noticed(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    close_store(f);
    copy_file(file_of(f, "items.db"), file_of(f, "old"));
    copy_file(file_of(f, "items.head"), file_of(f, "old.head"));
    must(open_store(f));
    must(add(f, to("s"), "2", "3", "4"));
    close_store(f);
    copy_file(file_of(f, "items.db"), file_of(f, "other"));
    copy_file(file_of(f, "old"), file_of(f, "items.db"));
    copy_file(file_of(f, "old.head"), file_of(f, "items.head"));
    must(open_store(f));
    must(add(f, to("s"), "two"));
    close_store(f);
    copy_file(file_of(f, "other"), file_of(f, "items.db"));
    must(open_store(f));
    expect_items(f, "s", "1 2 3 4");
    assert_true(f->got.missing > 0);
    assert_int_equal(add(f, to("s"), "x"), SESSIOND_ROLLED_BACK);
    (void)recover(f);
    must(add(f, to("s"), "5"));
    reopen_store(f);
    assert_int_equal(sizes(f).missing, 0);
}

static void test_a_store_whose_file_is_gone_does_not_begin_anew(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    close_store(f);
    assert_int_equal(rename(file_of(f, "items.db"), file_of(f, "moved")), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_store(f), SESSIOND_ROLLED_BACK);
        assert_false(exists(file_of(f, "items.db")));
    }
    assert_int_equal(rename(file_of(f, "moved"), file_of(f, "items.db")), 0);
    must(open_store(f));
    expect_items(f, "s", "1");
}

/* By head and log, by the log alone, by the head alone: an empty file in the place of a store is no new store. (SQLite
 * takes a file of one byte for an empty one.) */
static void test_an_empty_file_does_not_take_the_place_of_a_store(void **state)
{
    static const char *const gone[] = {"", "items.head", "items.db-wal"};
    struct fixture *f = *state;
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(make_store(f->directory));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    copy_file(file_of(f, "items.db"), file_of(f, "kept.db"));
    copy_file(file_of(f, "items.db-wal"), file_of(f, "kept.db-wal"));
    copy_file(file_of(f, "items.head"), file_of(f, "kept.head"));
    for (size_t i = 0; i < 2 * N(gone); i++) {
        copy_file(file_of(f, "kept.db-wal"), file_of(f, "items.db-wal"));
        copy_file(file_of(f, "kept.head"), file_of(f, "items.head"));
        (void)unlink(file_of(f, gone[i / 2]));
        write_file(file_of(f, "items.db"), slice_of(i % 2 ? "S" : ""));
        expect_refused_untouched(f);
        assert_int_equal(open_store(f), SESSIOND_ROLLED_BACK);
        assert_int_equal(unlink(file_of(f, "items.db")), 0);
        assert_int_equal(open_store(f), SESSIOND_ROLLED_BACK);
        assert_false(exists(file_of(f, "items.db")));
    }
    copy_file(file_of(f, "kept.db"), file_of(f, "items.db"));
    copy_file(file_of(f, "kept.db-wal"), file_of(f, "items.db-wal"));
    must(open_store(f));
    expect_filled(f);
}

/* As when a page of the log is on the disk as it once was. The tables know better. */
static void test_a_loss_is_noticed_without_a_head(void **state)
{
    struct fixture *f = *state;
    uint64_t epoch;

    must(open_store(f));
    must(add(f, to("kept"), "1", "2"));
    must(add(f, to("lost"), "3"));
    must(add(f, to("lost"), "4"));
    epoch = state_of(f, "lost").epoch;
    close_store(f);
    (void)sql(file_of(f, "items.db"), "DELETE FROM log WHERE position > 2");
    assert_int_equal(unlink(file_of(f, "items.head")), 0);

    must(open_store(f));
    assert_int_equal(sizes(f).missing, 2);
    assert_int_equal(add(f, to("kept"), "x"), SESSIOND_ROLLED_BACK);
    assert_int_equal(get(f, of("lost")), SESSIOND_ROLLED_BACK);
    assert_int_equal(recover(f), 2);
    must(add(f, to("kept"), "5"));
    expect_items(f, "kept", "1 2 5");
    must(delete (f, to("lost")));
    must(add(f, to("lost"), "new"));
    assert_true(f->done.epoch > epoch);
    reopen_store(f);
    expect_items(f, "kept", "1 2 5");
    expect_items(f, "lost", "new");
    assert_int_equal(sizes(f).missing, 0);
}

static void test_a_damaged_head_is_made_up_for_by_its_twin(void **state)
{
    struct fixture *f = *state;

    for (int slot = 0; slot < 2; slot++) {
        lose_two_changes(f);
        close_store(f);
        flip_byte(file_of(f, "items.head"), slot * 4096 + 9);
        must(open_store(f));
        assert_true(sizes(f).missing >= 1);
        close_store(f);
        remove_tree(f->directory);
    }
}

static void test_a_store_without_a_head_gets_one(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    close_store(f);
    assert_int_equal(unlink(file_of(f, "items.head")), 0);
    must(open_store(f));
    expect_items(f, "s", "1");
    assert_int_equal(f->got.missing, 0);
    must(add(f, to("s"), "2"));
    assert_true(exists(file_of(f, "items.head")));
}

/* Heads of earlier releases say nothing of sessions, and damaged ones nothing that is true. */
static void forget_sessions(const char *directory)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/items.head", directory);
    for (off_t slot = 0; slot < 2; slot++)
        flip_byte(path, slot * 4096 + 33);
}

static void test_sessions_are_counted_where_the_head_does_not_tell(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("a"), "1"));
    must(add(f, to("b"), "1"));
    assert_int_equal(f->table->closed_sessions(f->directory), 2);
    kill_store(f, forget_sessions);
    assert_int_equal(use_of(f).sessions, 2);
    must(add(f, to("c"), "1"));
    close_store(f);
    assert_int_equal(f->table->closed_sessions(f->directory), 3);
    forget_sessions(f->directory);
    assert_int_equal(f->table->closed_sessions(f->directory), 0);
    assert_int_equal(unlink(file_of(f, "items.head")), 0);
    assert_int_equal(f->table->closed_sessions(f->directory), 0);
    must(open_store(f));
    assert_int_equal(use_of(f).sessions, 3);
}

/* Puts a file that takes no byte, and cannot be synced, in the place of the open head. */
static void make_head_unwritable(struct fixture *f)
{
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    struct stat head, status;
    bool found = false;

    assert_true(full >= 0);
    assert_int_equal(stat(file_of(f, "items.head"), &head), 0);
    for (int fd = 3; fd < 100 && !found; fd++) {
        found = fd != full && fstat(fd, &status) == 0 && status.st_ino == head.st_ino && status.st_dev == head.st_dev;
        if (found)
            assert_int_equal(dup2(full, fd), fd);
    }
    assert_true(found);
    close(full);
}

/* Without it a loss would go unnoticed, but there is none. */
static void test_a_head_that_cannot_be_written_fails_no_change(void **state)
{
    struct fixture *f = *state;
    bool more;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    make_head_unwritable(f);
    must(add(f, keyed("s", "k", 'a'), "2"));
    must(f->table->tend(f->engine, &more));
    assert_false(f->table->is_broken(f->engine));
    reopen_store(f);
    expect_items(f, "s", "1 2");
    assert_int_equal(f->got.missing, 0);
    must(add(f, keyed("s", "k", 'a'), "2"));
    assert_true(f->done.repeated);
}

/* ---- damage ---- */

/* Makes a store, and leaves it closed. */
static void make_small_and_large_session(struct fixture *f)
{
    char text[1001];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    must(open_store(f));
    must(add(f, to("good"), "1"));
    for (int i = 0; i < 200; i++)
        must(add(f, to("bad"), text));
    close_store(f);
}

/* The pages of the large session; the small one, that was there before, can still be read. */
static void damage_large_session(struct fixture *f)
{
    struct buf bytes = read_file(file_of(f, "items.db"));

    for (size_t page = 20; (page + 1) * 4096 < bytes.size; page++)
        memset(bytes.data + page * 4096, 0x5a, 4096);
    write_file(file_of(f, "items.db"), buf_slice(&bytes));
    buf_deinit(&bytes);
}

static void test_a_damaged_page_is_told_and_the_rest_goes_on(void **state)
{
    struct fixture *f = *state;

    make_small_and_large_session(f);
    damage_large_session(f);
    must(open_store(f));
    expect_items(f, "good", "1");
    assert_int_equal(get(f, of("bad")), SESSIOND_ROLLED_BACK);
    expect_items(f, "good", "1");
}

/* As after a kill, when the rows since the clock's last one have to be looked through for receipts. */
static void test_receipts_that_damage_hides_do_not_keep_a_store_closed(void **state)
{
    struct fixture *f = *state;

    make_small_and_large_session(f);
    (void)sql(file_of(f, "items.db"), "DELETE FROM clock");
    damage_large_session(f);
    must(open_store(f));
    expect_items(f, "good", "1");
    assert_int_equal(get(f, of("bad")), SESSIOND_ROLLED_BACK);
    must(add(f, keyed("good", "k", 'a'), "2"));
    expect_items(f, "good", "1 2");
}

static void flip_bit(struct buf *bytes, size_t bit)
{
    bytes->data[bit / 8] ^= (char)(1 << bit % 8);
}

/* Opens a store of two sessions, in whose file one bit is wrong. Return: whether somebody said so. */
static bool is_noticed(struct fixture *f, const char *text)
{
    bool noticed = open_store(f) != 0;

    for (int i = 0; !noticed && i < 2; i++) {
        if (get(f, of(i ? "b" : "a")))
            noticed = true;
        else
            expect_items(f, i ? "b" : "a", i ? "1" : text);
    }
    close_store(f);
    return noticed;
}

/* Wherever it is: in a text, in a number, in the structure of a page. */
static void test_a_bit_that_flips_is_noticed_or_does_not_matter(void **state)
{
    enum { STEP = 509 };
    struct fixture *f = *state;
    const char *path = file_of(f, "items.db");
    size_t n_noticed = 0, n_flipped = 0;
    struct buf bytes, head;
    char text[3001];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    must(open_store(f));
    must(add(f, to("a"), text));
    must(add(f, to("b"), "1"));
    close_store(f);
    bytes = read_file(path);
    head = read_file(file_of(f, "items.head"));
    for (size_t bit = 0; bit < bytes.size * 8; bit += STEP) {
        flip_bit(&bytes, bit);
        write_file(path, buf_slice(&bytes));
        write_file(file_of(f, "items.head"), buf_slice(&head));
        n_noticed += is_noticed(f, text);
        n_flipped++;
        flip_bit(&bytes, bit);
    }
    assert_true(n_noticed > n_flipped / 2); /* the rest is on pages that nobody has read */
    buf_deinit(&bytes);
    buf_deinit(&head);
}

static void test_one_bit_of_a_text_makes_its_session_unreadable_and_no_other(void **state)
{
    struct fixture *f = *state;
    const char *path = file_of(f, "items.db");
    char text[9001];
    struct buf bytes;
    char *at;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    must(open_store(f));
    must(add(f, to("good"), "1"));
    must(add(f, to("bad"), text));
    close_store(f);
    bytes = read_file(path);
    at = memmem(bytes.data, bytes.size, text, 4000); /* on a page of its own: the text is longer than two */
    assert_non_null(at);
    at[3000] ^= 1;
    write_file(path, buf_slice(&bytes));
    buf_deinit(&bytes);
    must(open_store(f));
    assert_int_equal(get(f, of("bad")), SESSIOND_ROLLED_BACK);
    expect_items(f, "good", "1");
    must(add(f, to("good"), "2"));
    expect_items(f, "good", "1 2");
}

/* SQLite fills such a page up with zeros, and the text goes up to its end. */
static void test_a_file_that_ends_within_a_page_of_text_is_noticed(void **state)
{
    struct fixture *f = *state;
    const char *path = file_of(f, "items.db");
    char text[11701];
    struct buf bytes;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    must(open_store(f));
    must(add(f, to("s"), text));
    close_store(f);
    bytes = read_file(path);
    assert_true(bytes.size % 4096 == 0 && bytes.data[bytes.size - 1000] == 'x');
    bytes.size -= 1500;
    write_file(path, buf_slice(&bytes));
    buf_deinit(&bytes);
    must(open_store(f));
    assert_int_equal(get(f, of("s")), SESSIOND_ROLLED_BACK);
}

static void test_a_page_in_the_place_of_another_is_noticed(void **state)
{
    struct fixture *f = *state;
    const char *path = file_of(f, "items.db");
    char text[20001];
    struct buf bytes;
    char *at;

    for (size_t i = 0; i < sizeof(text) - 1; i++)
        text[i] = (char)('a' + i / 4096); /* so that each page has another letter */
    text[sizeof(text) - 1] = '\0';
    must(open_store(f));
    must(add(f, to("s"), text));
    close_store(f);
    bytes = read_file(path);
    at = memmem(bytes.data, bytes.size, "bbbbbbbb", 8);
    assert_non_null(at);
    at = bytes.data + ((at - bytes.data) / 4096 + 1) * 4096; /* wholly of the text, as its successor is */
    memcpy(at, at + 4096, 4096);
    write_file(path, buf_slice(&bytes));
    buf_deinit(&bytes);
    must(open_store(f));
    assert_int_equal(get(f, of("s")), SESSIOND_ROLLED_BACK);
}

/* ---- what a store cannot be made of ---- */

static void expect_not_opened(struct fixture *f)
{
    assert_true(open_store(f) < 0);
    assert_null(f->engine);
}

static void test_a_directory_that_cannot_be_had(void **state)
{
    struct fixture *f = *state;
    char longest[PATH_MAX];

    write_file(f->directory, slice_of("a file"));
    expect_not_opened(f);
    assert_int_equal(unlink(f->directory), 0);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_true(f->table->open(&f->engine, longest, &f->config) < 0);
    assert_null(f->engine);
    must(open_store(f));
}

static void test_a_head_that_is_no_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->directory, 0700), 0);
    assert_int_equal(mkdir(file_of(f, "items.head"), 0700), 0);
    expect_not_opened(f);
    assert_false(exists(file_of(f, "items.db")));
    assert_int_equal(rmdir(file_of(f, "items.head")), 0);
    must(open_store(f));
}

/* Neither the store nor its log can be synced before somebody builds on them. */
static void test_a_link_that_leads_nowhere(void **state)
{
    static const char *const names[] = {"items.db", "items.db-wal"};
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    close_store(f);
    for (size_t i = 0; i < N(names); i++) {
        const char *path = file_of(f, names[i]), *aside = file_of(f, "aside");

        (void)rename(path, aside);
        assert_int_equal(symlink(names[i], path), 0);
        expect_not_opened(f);
        assert_int_equal(unlink(path), 0);
        (void)rename(aside, path);
    }
    must(open_store(f));
    expect_items(f, "s", "1");
}

static void test_a_store_that_lacks_a_table_is_not_opened(void **state)
{
    static const char *const tables[] = {"log", "session", "receipt", "clock", "swept"};
    struct fixture *f = *state;
    char statement[64];

    for (size_t i = 0; i < N(tables); i++) {
        must(open_store(f));
        must(add(f, to("s"), "1"));
        close_store(f);
        (void)snprintf(statement, sizeof(statement), "DROP TABLE %s", tables[i]);
        (void)sql(file_of(f, "items.db"), statement);
        expect_refused_untouched(f);
        remove_tree(f->directory);
    }
}

/* ---- a store that contradicts itself ---- */

static void test_a_receipt_without_its_change_harms_nobody_else(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, keyed("s", "k", 'a'), "1"));
    must(add(f, to("s"), "2"));
    close_store(f);
    (void)sql(file_of(f, "items.db"), "DELETE FROM item WHERE seq = 1; DELETE FROM log WHERE key = CAST('k' AS BLOB)");
    must(open_store(f));
    assert_true(add(f, keyed("s", "k", 'a'), "1") < 0);
    assert_false(f->table->is_broken(f->engine));
    must(add(f, keyed("s", "another", 'a'), "3"));
    expect_items(f, "s", "2 3");
}

static void test_a_session_that_counts_more_items_than_it_has(void **state)
{
    struct fixture *f = *state;

    must(open_store(f));
    must(add(f, to("s"), "1"));
    must(add(f, to("good"), "1"));
    must(clear(f, to("s")));
    close_store(f);
    (void)sql(file_of(f, "items.db"), "UPDATE session SET count = 1 WHERE count = 0");
    must(open_store(f));
    assert_true(pop(f, to("s")) < 0);
    assert_false(f->table->is_broken(f->engine));
    must(pop(f, to("good")));
    expect_rows(f, "1");
}

/* ---- copies ---- */

static const char *make_copy(struct fixture *f)
{
    const char *path = file_of(f, "copy");
    bool more = true;

    while (more)
        must(f->table->backup_step(f->engine, path, &more));
    return path;
}

static void test_a_copy_is_one_file(void **state)
{
    struct fixture *f = *state;
    const char *path;
    struct buf bytes;
    char why[160];

    must(open_store(f));
    fill_store(f);
    path = make_copy(f);
    must(sqlite_verify(path, why, sizeof(why)));
    assert_false(exists(file_of(f, "copy-wal")));
    assert_false(exists(file_of(f, "copy-shm")));
    assert_false(exists(file_of(f, "copy-journal")));
    bytes = read_file(path);
    assert_int_equal(bytes.data[18], 1); /* no write-ahead log goes with it: whoever opens it may only read */
    assert_int_equal(bytes.data[19], 1);
    buf_deinit(&bytes);
}

static void expect_not_good(const char *path)
{
    char why[160] = "";

    assert_int_equal(sqlite_verify(path, why, sizeof(why)), SESSIOND_INVALID);
    assert_true(why[0] != '\0');
}

static void test_a_copy_that_is_not_whole_is_told_from_a_good_one(void **state)
{
    struct fixture *f = *state;
    const char *path, *bad = file_of(f, "bad");
    struct buf bytes;
    char text[1001];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    must(open_store(f));
    for (int i = 0; i < 50; i++)
        must(add(f, to("s"), text));
    path = make_copy(f);
    bytes = read_file(path);

    expect_not_good(file_of(f, "nothing"));
    write_file(bad, slice_of(""));
    expect_not_good(bad);
    write_file(bad, slice_of("no database at all, but a text of some length"));
    expect_not_good(bad);
    for (size_t size = 100; size < bytes.size; size += 4096) {
        write_file(bad, (struct slice){bytes.data, size});
        expect_not_good(bad);
    }
    write_file(bad, (struct slice){bytes.data, bytes.size - 4096});
    expect_not_good(bad);
    for (size_t page = 2; page * 4096 < bytes.size; page += 3) {
        write_file(bad, buf_slice(&bytes));
        flip_byte(bad, (off_t)(page * 4096)); /* the page's type */
        expect_not_good(bad);
    }
    buf_deinit(&bytes);
}

static void test_a_good_database_that_is_no_store_of_ours_is_no_good_copy(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->directory, 0700), 0);
    (void)sql_as(NULL, file_of(f, "foreign"), "CREATE TABLE t (a)");
    expect_not_good(file_of(f, "foreign"));
    must(open_store(f));
    (void)make_copy(f);
    (void)sql(file_of(f, "copy"), "PRAGMA user_version = 4");
    expect_not_good(file_of(f, "copy"));
    (void)sql(file_of(f, "copy"), "PRAGMA user_version = 0");
    expect_not_good(file_of(f, "copy"));
}

static void test_a_copy_takes_the_place_of_an_older_one(void **state)
{
    struct fixture *f = *state;
    char why[160];

    must(open_store(f));
    write_file(file_of(f, "copy"), slice_of("left by an interrupted one"));
    write_file(file_of(f, "copy-journal"), slice_of("and so is this"));
    fill_store(f);
    must(sqlite_verify(make_copy(f), why, sizeof(why)));
    must(sqlite_verify(make_copy(f), why, sizeof(why)));
}

static void test_a_copy_that_cannot_be_made(void **state)
{
    struct fixture *f = *state;
    bool more = true;
    char why[160];

    must(open_store(f));
    fill_store(f);
    assert_int_equal(mkdir(file_of(f, "copy"), 0700), 0); /* in its place */
    assert_true(f->table->backup_step(f->engine, file_of(f, "copy"), &more) < 0);
    assert_false(more);
    assert_int_equal(rmdir(file_of(f, "copy")), 0);
    assert_true(f->table->backup_step(f->engine, file_of(f, "nowhere/copy"), &more) < 0);
    assert_false(f->table->is_broken(f->engine));
    must(sqlite_verify(make_copy(f), why, sizeof(why)));
}

/* ---- the suite ---- */

int main(int argc, char **argv)
{
    static struct kind kind = {&sqlite_engine, true, 0};
#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, name, set_up_closed, tear_down, &kind                                                                   \
    }
    static const struct CMUnitTest tests[] = {
        TEST(test_a_new_store_is_marked_as_ours),
        TEST(test_an_empty_file_becomes_a_store),
        TEST(test_nobody_else_gets_into_an_open_store),
        TEST(test_a_store_of_another_version_is_refused_untouched),
        TEST(test_a_newer_store_with_a_log_is_refused_untouched),
        TEST(test_a_foreign_database_is_refused_untouched),
        TEST(test_what_is_no_database_is_refused_untouched),
        TEST(test_what_is_no_file_is_refused),
        TEST(test_kept_stores_are_opened),
        TEST(test_a_kept_store_takes_what_stands_beside_items),
        TEST(test_a_killed_process_leaves_all_that_it_committed),
        TEST(test_a_killed_process_leaves_nothing_of_an_open_transaction),
        TEST(test_removed_texts_leave_the_file),
        TEST(test_removed_texts_leave_the_log_in_time),
        TEST(test_a_pop_with_a_key_leaves_the_log_when_it_is_cleared),
        TEST(test_what_was_removed_before_a_kill_leaves_the_log_after_it),
        TEST(test_a_log_from_which_nothing_was_erased_is_not_cut_off),
        TEST(test_a_receipt_is_kept_for_its_time_and_then_goes),
        TEST(test_what_a_receipt_held_goes_with_it),
        TEST(test_rows_that_nobody_needs_are_swept),
        TEST(test_the_log_of_a_store_that_is_used_for_ever_does_not_grow),
        TEST(test_the_last_row_of_each_session_is_not_swept),
        TEST(test_a_deleted_session_leaves_no_trace_in_the_end),
        TEST(test_the_last_row_is_not_swept),
        TEST(test_of_too_many_receipts_the_oldest_go),
        TEST(test_no_receipt_goes_before_its_shortest_time),
        TEST(test_a_late_sweep_sweeps_all),
        TEST(test_the_clock_is_trimmed),
        TEST(test_receipts_are_counted_across_a_kill),
        TEST(test_an_old_copy_in_place_of_the_store_is_noticed),
        TEST(test_a_loss_that_is_accepted),
        TEST(test_epochs_go_on_growing_after_losses),
        TEST(test_a_log_that_is_cut_off_is_noticed),
        TEST(test_another_history_of_the_same_length_is_noticed),
        TEST(test_a_store_whose_file_is_gone_does_not_begin_anew),
        TEST(test_an_empty_file_does_not_take_the_place_of_a_store),
        TEST(test_a_damaged_head_is_made_up_for_by_its_twin),
        TEST(test_a_store_without_a_head_gets_one),
        TEST(test_a_loss_is_noticed_without_a_head),
        TEST(test_sessions_are_counted_where_the_head_does_not_tell),
        TEST(test_a_head_that_cannot_be_written_fails_no_change),
        TEST(test_a_damaged_page_is_told_and_the_rest_goes_on),
        TEST(test_receipts_that_damage_hides_do_not_keep_a_store_closed),
        TEST(test_a_bit_that_flips_is_noticed_or_does_not_matter),
        TEST(test_one_bit_of_a_text_makes_its_session_unreadable_and_no_other),
        TEST(test_a_file_that_ends_within_a_page_of_text_is_noticed),
        TEST(test_a_page_in_the_place_of_another_is_noticed),
        TEST(test_a_directory_that_cannot_be_had),
        TEST(test_a_head_that_is_no_file),
        TEST(test_a_link_that_leads_nowhere),
        TEST(test_a_store_that_lacks_a_table_is_not_opened),
        TEST(test_a_receipt_without_its_change_harms_nobody_else),
        TEST(test_a_session_that_counts_more_items_than_it_has),
        TEST(test_a_copy_is_one_file),
        TEST(test_a_copy_that_is_not_whole_is_told_from_a_good_one),
        TEST(test_a_good_database_that_is_no_store_of_ours_is_no_good_copy),
        TEST(test_a_copy_takes_the_place_of_an_older_one),
        TEST(test_a_copy_that_cannot_be_made),
    };
    struct config config;

    config_init(&config);
    log_setup((enum log_level)0);
    if (sqlite_setup(&config))
        return 1;
    if (argc == 3 && strcmp(argv[1], "--make-store") == 0)
        return make_store(argv[2]);
    return cmocka_run_group_tests_name("sqlite", tests, NULL, NULL);
}
