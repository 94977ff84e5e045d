/*
 * Each allocation of proto/ fails in turn. The Makefile links this program with --wrap, so malloc, calloc and realloc
 * of our own objects come here; msgpack-c is a library of its own, and so its two functions that allocate for us are
 * replaced.
 */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frame.h"
#include "json.h"
#include "message.h"

enum { MIB = 1024 * 1024 };

/* ---- allocations that fail ---- */

static size_t n_allocations; /* so far, in this run */
static size_t failing;       /* which of them fails, from 1; 0: none */

static bool fails(void)
{
    return ++n_allocations == failing;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

/* The linker prefers these to the library's. Visible ones are also called by the library itself, for the arrays and
 * maps that it makes. */
__attribute__((visibility("default"))) void *msgpack_zone_malloc_expand(void *zone, size_t size);
__attribute__((visibility("default"))) int msgpack_unpack_next(void *result, const char *data, size_t size,
                                                               size_t *offset);

void *msgpack_zone_malloc_expand(void *zone, size_t size)
{
    void *(*real)(void *, size_t) = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "msgpack_zone_malloc_expand");

    return fails() ? NULL : real(zone, size);
}

/* It fails at its start where the library would not find memory for a zone. */
int msgpack_unpack_next(void *result, const char *data, size_t size, size_t *offset)
{
    int (*real)(void *, const char *, size_t, size_t *) =
        (int (*)(void *, const char *, size_t, size_t *))dlsym(RTLD_NEXT, "msgpack_unpack_next");

    return fails() ? -2 : real(result, data, size, offset);
}

/* Runs `scenario` with each of its allocations failing, then with none. Return: how many there are.
 * A scenario asserts for itself that what it called kept its promise. */
static size_t sweep(void (*scenario)(void))
{
    for (failing = 1;; failing++) {
        n_allocations = 0;
        scenario();
        if (n_allocations < failing)
            break;
    }
    failing = 0;
    n_allocations = 0;
    scenario();
    return n_allocations;
}

/* Whether an allocation has failed in this run. */
static bool has_failed(void)
{
    return failing > 0 && n_allocations >= failing;
}

/* ---- scenarios ---- */

/* A message with a list of 2,000 texts: larger than what a buf and a zone begin with. */
static void pack_large(struct buf *buf)
{
    pack_request(buf, 1, "add_items");
    pack_map(buf, 2);
    pack_pair_text(buf, "session", slice_of("s"));
    pack_text(buf, slice_of("items"));
    pack_array(buf, 2000);
    for (int i = 0; i < 2000; i++)
        pack_text(buf, slice_of("{\"role\": \"user\"}"));
}

static void pack(void)
{
    struct buf buf = BUF_INIT;

    pack_large(&buf);
    assert_int_equal(buf.failed, has_failed());
    if (!buf.failed)
        assert_int_equal(buf.size, 2000 * 17 + 34);
    buf_deinit(&buf);
}

static void test_packing_keeps_a_failure(void **state)
{
    (void)state;
    assert_true(sweep(pack) >= 8);
}

struct add_items {
    struct slice session;
    struct text_list items;
};

static const struct field fields[] = {
    {"session", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct add_items, session), 1, 255},
    {"items", FIELD_TEXT_LIST, FIELD_REQUIRED, offsetof(struct add_items, items), 0, 0},
    {0},
};

static struct buf large; /* packed once, for what only reads it */

static void parse_and_read(void)
{
    struct message message = {0};
    struct add_items into = {0};
    char why[MESSAGE_WHY_SIZE] = "";
    bool answerable;
    int r = message_parse(&message, buf_slice(&large), &answerable, why);

    if (r == 0)
        r = message_read(&message, message.params, fields, MESSAGE_REFUSE_UNKNOWN, &into, why);
    else
        assert_null(message.zone);
    assert_false(answerable);
    assert_string_equal(why, "");
    assert_int_equal(r, has_failed() ? -ENOMEM : 0);
    if (r == 0)
        assert_true(slice_equal(into.items.texts[1999], slice_of("{\"role\": \"user\"}")));
    message_deinit(&message);
}

static void test_parsing_and_reading_say_that_memory_is_missing(void **state)
{
    (void)state;
    assert_true(sweep(parse_and_read) >= 3); /* the zone, the array, the list */
}

static void write_json(void)
{
    size_t counted = failing;
    struct message message;
    struct buf json = BUF_INIT;
    char why[MESSAGE_WHY_SIZE];
    bool answerable;

    failing = 0;
    assert_int_equal(message_parse(&message, buf_slice(&large), &answerable, why), 0);
    n_allocations = 0;
    failing = counted;
    message_to_json(message.params, &json);
    assert_int_equal(json.failed, has_failed());
    message_deinit(&message);
    buf_deinit(&json);
}

static void test_writing_json_keeps_a_failure(void **state)
{
    (void)state;
    assert_true(sweep(write_json) >= 8);
}

/* Memory that cannot be given back is no reason to lose what is left. */
static void drop(void)
{
    size_t counted = failing;
    struct buf buf = BUF_INIT;

    failing = 0;
    memset(buf_reserve(&buf, 20 * MIB), 'x', 20 * MIB);
    buf_grow(&buf, 20 * MIB);
    buf_append(&buf, "rest", 4);
    n_allocations = 0;
    failing = counted;
    buf_drop(&buf, 20 * MIB);
    assert_true(slice_equal(buf_slice(&buf), slice_of("rest")));
    assert_false(buf.failed);
    assert_int_equal(buf.capacity > MIB, has_failed());
    buf_deinit(&buf);
}

static void test_a_drop_needs_no_memory(void **state)
{
    (void)state;
    assert_true(sweep(drop) >= 1);
}

static void test_a_failed_reserve_leaves_the_buf_as_it_was(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    buf_append(&buf, "abc", 3);
    n_allocations = 0;
    failing = 1;
    assert_null(buf_reserve(&buf, MIB));
    failing = 0;
    assert_true(slice_equal(buf_slice(&buf), slice_of("abc")));
    assert_non_null(buf_reserve(&buf, MIB));
    buf_deinit(&buf);
}

static void test_the_scanner_and_the_checker_allocate_nothing(void **state)
{
    struct frame_scan scan = FRAME_SCAN_INIT;
    size_t wrong_at;

    (void)state;
    n_allocations = 0;
    assert_int_equal(frame_scan(&scan, large.data, large.size), FRAME_WHOLE);
    assert_null(json_check_item(slice_of("{\"a\": [[[[{}, \"b\", 1e5, true]]]]}"), &wrong_at));
    assert_int_equal(n_allocations, 0);
}

static int pack_for_all(void **state)
{
    (void)state;
    pack_large(&large);
    return large.failed;
}

static int free_for_all(void **state)
{
    (void)state;
    buf_deinit(&large);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing_keeps_a_failure),
        cmocka_unit_test(test_parsing_and_reading_say_that_memory_is_missing),
        cmocka_unit_test(test_writing_json_keeps_a_failure),
        cmocka_unit_test(test_a_drop_needs_no_memory),
        cmocka_unit_test(test_a_failed_reserve_leaves_the_buf_as_it_was),
        cmocka_unit_test(test_the_scanner_and_the_checker_allocate_nothing),
    };

    return cmocka_run_group_tests_name("oom", tests, pack_for_all, free_for_all);
}
