#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"

enum { MIB = 1024 * 1024 };

/* Bytes that tell where they were. */
static void append_pattern(struct buf *buf, size_t from, size_t size)
{
    for (size_t i = from; i < from + size; i++) {
        char c = (char)(i * 7 + i / 251);

        buf_append(buf, &c, 1);
    }
}

static void assert_pattern(const struct buf *buf, size_t from)
{
    for (size_t i = 0; i < buf->size; i++)
        if (buf->data[i] != (char)((from + i) * 7 + (from + i) / 251))
            fail_msg("byte %zu is another one", i);
}

static void fill(struct buf *buf, size_t size)
{
    char *end = buf_reserve(buf, size);

    assert_non_null(end);
    memset(end, 'x', size);
    buf_grow(buf, size);
}

static void test_what_is_appended_stays_in_order(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    append_pattern(&buf, 0, 100000);
    assert_int_equal(buf.size, 100000);
    assert_pattern(&buf, 0);
    assert_false(buf.failed);
    buf_deinit(&buf);
}

static void test_formatted_text_is_appended_without_its_zero(void **state)
{
    char expected[8192];
    struct buf buf = BUF_INIT;
    size_t size = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) { /* across the edges of its memory */
        size += (size_t)snprintf(expected + size, sizeof(expected) - size, "%d;", i);
        buf_printf(&buf, "%d;", i);
        assert_int_equal(buf.size, size);
    }
    assert_memory_equal(buf.data, expected, size);
    buf.failed = true;
    buf_printf(&buf, "%s", "more");
    assert_int_equal(buf.size, size);
    assert_true(buf.failed);
    buf_deinit(&buf);
}

static void test_an_append_of_nothing_needs_no_memory(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    buf_append(&buf, NULL, 0);
    assert_null(buf.data);
    assert_int_equal(buf.size, 0);
    assert_false(buf.failed);
}

static void test_reserved_bytes_count_only_when_grown(void **state)
{
    struct buf buf = BUF_INIT;
    char *end;

    (void)state;
    end = buf_reserve(&buf, 3);
    assert_non_null(end);
    assert_int_equal(buf.size, 0);
    memcpy(end, "abc", 3);
    buf_grow(&buf, 2);
    assert_true(slice_equal(buf_slice(&buf), slice_of("ab")));
    assert_ptr_equal(buf_reserve(&buf, 1), buf.data + 2);
    buf_deinit(&buf);
}

static void test_a_reserve_of_nothing_still_says_where(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    assert_non_null(buf_reserve(&buf, 0));
    buf_deinit(&buf);
}

static void test_the_capacity_is_at_most_double_of_what_was_needed(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    for (size_t size = 1; size < 300000; size += size / 3 + 1) {
        fill(&buf, size);
        assert_true(buf.capacity >= buf.size);
        assert_true(buf.capacity <= (buf.size < 256 ? 256 : 2 * buf.size));
    }
    buf_deinit(&buf);
}

static void test_a_size_that_no_memory_has_changes_nothing(void **state)
{
    struct buf buf = BUF_INIT;
    volatile size_t huge = SIZE_MAX;

    (void)state;
    buf_append(&buf, "abc", 3);
    assert_null(buf_reserve(&buf, huge));
    assert_null(buf_reserve(&buf, huge / 2));
    assert_null(buf_reserve(&buf, huge - 3));
    assert_true(slice_equal(buf_slice(&buf), slice_of("abc")));
    assert_false(buf.failed);
    buf_deinit(&buf);
}

static void test_a_failed_append_sticks(void **state)
{
    struct buf buf = BUF_INIT;
    volatile size_t huge = SIZE_MAX / 2;

    (void)state;
    buf_append(&buf, "abc", 3);
    buf_append(&buf, "", huge);
    assert_true(buf.failed);
    buf_append(&buf, "def", 3);
    assert_true(slice_equal(buf_slice(&buf), slice_of("abc")));
    buf_drop(&buf, 3);
    assert_true(buf.failed);
    buf_deinit(&buf);
    assert_false(buf.failed);
}

static void test_a_failure_outlives_the_memory_that_is_given_back(void **state)
{
    struct buf buf = BUF_INIT;
    volatile size_t huge = SIZE_MAX / 2;

    (void)state;
    fill(&buf, 2 * MIB);
    buf_append(&buf, "", huge);
    buf_drop(&buf, 2 * MIB);
    assert_null(buf.data);
    assert_true(buf.failed);
}

static void test_a_drop_keeps_what_comes_after(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    append_pattern(&buf, 0, 5000);
    buf_drop(&buf, 0);
    assert_int_equal(buf.size, 5000);
    buf_drop(&buf, 1234);
    assert_int_equal(buf.size, 5000 - 1234);
    assert_pattern(&buf, 1234);
    append_pattern(&buf, 5000, 2000);
    assert_pattern(&buf, 1234);
    buf_deinit(&buf);
}

static void test_the_memory_of_ordinary_frames_is_kept(void **state)
{
    struct buf buf = BUF_INIT;
    const char *data;

    (void)state;
    fill(&buf, MIB);
    data = buf.data;
    buf_drop(&buf, MIB);
    assert_int_equal(buf.capacity, MIB);
    assert_ptr_equal(buf.data, data);
    buf_deinit(&buf);
}

static void test_an_emptied_huge_buf_gives_its_memory_back(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    fill(&buf, 5 * MIB);
    buf_drop(&buf, 5 * MIB);
    assert_null(buf.data);
    assert_int_equal(buf.capacity, 0);
    append_pattern(&buf, 0, 10);
    assert_pattern(&buf, 0);
    buf_deinit(&buf);
}

static void test_a_few_bytes_behind_a_huge_frame_do_not_pin_its_memory(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    fill(&buf, 40 * MIB);
    append_pattern(&buf, 0, 300);
    buf_drop(&buf, 40 * MIB);
    assert_int_equal(buf.size, 300);
    assert_pattern(&buf, 0);
    assert_true(buf.capacity <= MIB);
    buf_deinit(&buf);
}

static void test_a_buf_that_is_still_rather_full_keeps_its_memory(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    fill(&buf, 8 * MIB);
    buf_drop(&buf, 5 * MIB);
    assert_int_equal(buf.capacity, 8 * MIB);
    buf_deinit(&buf);
}

static void test_slices_are_equal_by_their_bytes(void **state)
{
    const struct slice none = {NULL, 0};

    (void)state;
    assert_true(slice_equal(slice_of("ab"), slice_of("ab")));
    assert_false(slice_equal(slice_of("ab"), slice_of("ac")));
    assert_false(slice_equal(slice_of("ab"), slice_of("abc")));
    assert_true(slice_equal(slice_of(""), none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_appended_stays_in_order),
        cmocka_unit_test(test_formatted_text_is_appended_without_its_zero),
        cmocka_unit_test(test_an_append_of_nothing_needs_no_memory),
        cmocka_unit_test(test_reserved_bytes_count_only_when_grown),
        cmocka_unit_test(test_a_reserve_of_nothing_still_says_where),
        cmocka_unit_test(test_the_capacity_is_at_most_double_of_what_was_needed),
        cmocka_unit_test(test_a_size_that_no_memory_has_changes_nothing),
        cmocka_unit_test(test_a_failed_append_sticks),
        cmocka_unit_test(test_a_failure_outlives_the_memory_that_is_given_back),
        cmocka_unit_test(test_a_drop_keeps_what_comes_after),
        cmocka_unit_test(test_the_memory_of_ordinary_frames_is_kept),
        cmocka_unit_test(test_an_emptied_huge_buf_gives_its_memory_back),
        cmocka_unit_test(test_a_few_bytes_behind_a_huge_frame_do_not_pin_its_memory),
        cmocka_unit_test(test_a_buf_that_is_still_rather_full_keeps_its_memory),
        cmocka_unit_test(test_slices_are_equal_by_their_bytes),
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
