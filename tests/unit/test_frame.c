#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "frame.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* A value: its head, and how many zeroes follow it. (A zero is a number too, so it also stands for any one value.) */
static const struct whole {
    const char *name;
    const char *head;
    size_t head_size, zeroes;
} wholes[] = {
#define WHOLE(name, head, zeroes)                                                                                      \
    {                                                                                                                  \
        name, head, sizeof(head) - 1, zeroes                                                                           \
    }
    WHOLE("positive fixint", "\x00", 0),
    WHOLE("largest positive fixint", "\x7f", 0),
    WHOLE("empty fixmap", "\x80", 0),
    WHOLE("fixmap of one", "\x81", 2),
    WHOLE("fixmap of fifteen", "\x8f", 30),
    WHOLE("empty fixarray", "\x90", 0),
    WHOLE("fixarray of fifteen", "\x9f", 15),
    WHOLE("empty fixstr", "\xa0", 0),
    WHOLE("fixstr of 31", "\xbf", 31),
    WHOLE("nil", "\xc0", 0),
    WHOLE("false", "\xc2", 0),
    WHOLE("true", "\xc3", 0),
    WHOLE("empty bin 8", "\xc4\x00", 0),
    WHOLE("bin 8", "\xc4\xff", 255),
    WHOLE("bin 16", "\xc5\x01\x02", 258),
    WHOLE("bin 32", "\xc6\x00\x01\x00\x02", 65538),
    WHOLE("ext 8", "\xc7\x03", 1 + 3),
    WHOLE("ext 16", "\xc8\x01\x00", 1 + 256),
    WHOLE("ext 32", "\xc9\x00\x01\x00\x00", 1 + 65536),
    WHOLE("float 32", "\xca", 4),
    WHOLE("float 64", "\xcb", 8),
    WHOLE("uint 8", "\xcc", 1),
    WHOLE("uint 16", "\xcd", 2),
    WHOLE("uint 32", "\xce", 4),
    WHOLE("uint 64", "\xcf", 8),
    WHOLE("int 8", "\xd0", 1),
    WHOLE("int 16", "\xd1", 2),
    WHOLE("int 32", "\xd2", 4),
    WHOLE("int 64", "\xd3", 8),
    WHOLE("fixext 1", "\xd4", 1 + 1),
    WHOLE("fixext 2", "\xd5", 1 + 2),
    WHOLE("fixext 4", "\xd6", 1 + 4),
    WHOLE("fixext 8", "\xd7", 1 + 8),
    WHOLE("fixext 16", "\xd8", 1 + 16),
    WHOLE("str 8", "\xd9\x20", 32),
    WHOLE("empty str 16", "\xda\x00\x00", 0),
    WHOLE("str 16", "\xda\x02\x01", 513),
    WHOLE("str 32", "\xdb\x00\x01\x00\x01", 65537),
    WHOLE("empty array 16", "\xdc\x00\x00", 0),
    WHOLE("array 16", "\xdc\x01\x01", 257),
    WHOLE("array 32", "\xdd\x00\x01\x00\x01", 65537),
    WHOLE("empty map 16", "\xde\x00\x00", 0),
    WHOLE("map 16", "\xde\x01\x01", 514),
    WHOLE("map 32", "\xdf\x00\x01\x00\x01", 131074),
    WHOLE("negative fixint", "\xe0", 0),
    WHOLE("minus one", "\xff", 0),
    WHOLE("empty containers inside", "\x93\x90\x80\x91", 1),
    WHOLE("the last value ends three containers", "\x92\x00\x92\x00\x92\x00", 1),
#undef WHOLE
};

/* The caller frees it; there is one byte more that belongs to the next frame. */
static char *bytes_of(const struct whole *whole, size_t *ret_size)
{
    char *data = calloc(1, whole->head_size + whole->zeroes + 1);

    assert_non_null(data);
    memcpy(data, whole->head, whole->head_size);
    *ret_size = whole->head_size + whole->zeroes;
    return data;
}

static void test_each_format_ends_where_it_should(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(wholes); i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;
        size_t size;
        char *data = bytes_of(&wholes[i], &size);

        if (frame_scan(&scan, data, size + 1) != FRAME_WHOLE || scan.offset != size)
            fail_msg("%s: ends at %zu and not %zu", wholes[i].name, scan.offset, size);
        free(data);
    }
}

static void test_each_shorter_beginning_is_partial(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(wholes); i++) {
        size_t size;
        char *data = bytes_of(&wholes[i], &size);

        for (size_t n = 0; n < size; n += n < 600 ? 1 : 997) {
            struct frame_scan scan = FRAME_SCAN_INIT;

            if (frame_scan(&scan, data, n) != FRAME_PARTIAL)
                fail_msg("%s: %zu of its bytes are not partial", wholes[i].name, n);
        }
        free(data);
    }
}

static void test_byte_by_byte_it_ends_at_the_same_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(wholes); i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;
        size_t size;
        char *data = bytes_of(&wholes[i], &size);

        for (size_t n = 0; n < size; n++)
            assert_int_equal(frame_scan(&scan, data, n), FRAME_PARTIAL);
        assert_int_equal(frame_scan(&scan, data, size), FRAME_WHOLE);
        assert_int_equal(scan.offset, size);
        assert_int_equal(frame_scan(&scan, data, size + 1), FRAME_WHOLE);
        assert_int_equal(scan.offset, size);
        free(data);
    }
}

static void test_what_was_looked_at_is_not_looked_at_again(void **state)
{
    char data[] = "\x93\xa3"
                  "abc\xc0\xc0";
    struct frame_scan scan = FRAME_SCAN_INIT;

    (void)state;
    assert_int_equal(frame_scan(&scan, data, 6), FRAME_PARTIAL);
    memset(data, 0xc1, scan.offset);
    assert_int_equal(frame_scan(&scan, data, 7), FRAME_WHOLE);
    assert_int_equal(scan.offset, 7);
}

static void test_frames_follow_each_other(void **state)
{
    static const char data[] = "\x92\x01\xa1x\xc0\x81\x01\x02";
    static const size_t ends[] = {4, 1, 3};
    size_t at = 0;

    (void)state;
    for (size_t i = 0; i < N(ends); i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        assert_int_equal(frame_scan(&scan, data + at, sizeof(data) - 1 - at), FRAME_WHOLE);
        assert_int_equal(scan.offset, ends[i]);
        at += scan.offset;
    }
    assert_int_equal(at, sizeof(data) - 1);
}

static void test_the_byte_c1_is_invalid_wherever_a_value_begins(void **state)
{
    static const struct slice cases[] = {{"\xc1", 1}, {"\x91\xc1", 2}, {"\x82\x01\x02\xc1", 4}};

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        assert_int_equal(frame_scan(&scan, cases[i].data, cases[i].size), FRAME_INVALID);
        assert_non_null(scan.why);
        assert_int_equal(frame_scan(&scan, cases[i].data, cases[i].size), FRAME_INVALID);
    }
}

static void test_the_byte_c1_inside_a_text_is_a_byte(void **state)
{
    struct frame_scan scan = FRAME_SCAN_INIT;

    (void)state;
    assert_int_equal(frame_scan(&scan, "\xa2\xc1\xc1", 3), FRAME_WHOLE);
}

static void test_a_claim_over_a_limit_is_refused_at_its_header(void **state)
{
    static const struct slice cases[] = {
        {"\xdd\x00\xff\xff\xff", 5},                                  /* 16 million values */
        {"\xdd\xff\xff\xff\xff", 5},     {"\xdf\x80\x00\x00\x00", 5}, /* twice that many overflows 32 bits */
        {"\xdf\x00\x08\x64\x71", 5},                                  /* 550,001 pairs */
        {"\xdd\x00\x10\xc8\xe0", 5},                                  /* 1,100,000 values and the array itself */
        {"\xdb\xff\xff\xff\xff", 5},                                  /* 4 GiB of text */
        {"\xdb\x08\x00\x00\x00", 5},                                  /* 128 MiB of text and its header */
        {"\xc6\x08\x00\x00\x00", 5},                                  /* the same of bytes */
        {"\xc9\x07\xff\xff\xfb", 5},     /* of an extension type, with the byte of its type */
        {"\x92\xdb\x07\xff\xff\xfa", 6}, /* room for the text, none for the value after it */
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        if (frame_scan(&scan, cases[i].data, cases[i].size) != FRAME_TOO_LARGE)
            fail_msg("case %zu is not too large", i);
        assert_non_null(scan.why);
        assert_int_equal(frame_scan(&scan, cases[i].data, cases[i].size), FRAME_TOO_LARGE);
        scan = FRAME_SCAN_INIT;
        assert_int_equal(frame_scan(&scan, cases[i].data, cases[i].size - 1), FRAME_PARTIAL); /* claims nothing yet */
    }
}

static void test_a_claim_exactly_at_a_limit_is_taken(void **state)
{
    static const struct slice cases[] = {
        {"\xdd\x00\x10\xc8\xdf", 5},     /* 1,099,999 values and the array itself */
        {"\xdf\x00\x08\x64\x6f", 5},     /* 549,999 pairs */
        {"\xdb\x07\xff\xff\xfb", 5},     /* 128 MiB with the header */
        {"\xc9\x07\xff\xff\xfa", 5},     /* the same with the byte of the type */
        {"\x92\xdb\x07\xff\xff\xf9", 6}, /* one byte is left for the value after the text */
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        if (frame_scan(&scan, cases[i].data, cases[i].size) != FRAME_PARTIAL)
            fail_msg("case %zu is not partial", i);
    }
}

static void test_values_count_wherever_they_are(void **state)
{
    /* 1,000 arrays of 1,100 values are 1,101,001 values. */
    struct buf buf = BUF_INIT;
    struct frame_scan scan = FRAME_SCAN_INIT;
    static const char zeroes[1100];

    (void)state;
    buf_append(&buf, "\xdc\x03\xe8", 3);
    for (int i = 0; i < 1000; i++) {
        buf_append(&buf, "\xdc\x04\x4c", 3);
        buf_append(&buf, zeroes, sizeof(zeroes));
    }
    assert_int_equal(frame_scan(&scan, buf.data, buf.size), FRAME_TOO_LARGE);
    assert_int_equal(scan.offset, 3 + 999 * (3 + sizeof(zeroes)));
    buf_deinit(&buf);
}

static void test_containers_may_be_sixteen_deep_and_no_more(void **state)
{
    static const char innermost[] = "\x90\x80"; /* an empty container is one too */
    char data[17];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct frame_scan scan = FRAME_SCAN_INIT;

        memset(data, 0x91, sizeof(data));
        data[15] = innermost[i];
        assert_int_equal(frame_scan(&scan, data, 16), FRAME_WHOLE);

        scan = FRAME_SCAN_INIT;
        data[15] = (char)0x91;
        data[16] = innermost[i];
        assert_int_equal(frame_scan(&scan, data, 17), FRAME_TOO_LARGE);
        assert_int_equal(scan.offset, 16);
    }
}

static void test_containers_side_by_side_are_not_deep(void **state)
{
    char data[1 + 15 * 2];
    struct frame_scan scan = FRAME_SCAN_INIT;

    (void)state;
    data[0] = (char)0x9f;
    for (size_t i = 1; i < sizeof(data); i += 2)
        memcpy(data + i, "\x91\x00", 2);
    assert_int_equal(frame_scan(&scan, data, sizeof(data)), FRAME_WHOLE);
}

static void test_a_lower_limit_holds_to_the_byte(void **state)
{
    static const char data[] = "\x92\xa3"
                               "abc\xcd\x01\x00";
    const size_t size = sizeof(data) - 1;

    (void)state;
    for (size_t size_max = 1; size_max <= size + 1; size_max++) {
        struct frame_scan scan = {.size_max = size_max};

        assert_int_equal(frame_scan(&scan, data, size), size <= size_max ? FRAME_WHOLE : FRAME_TOO_LARGE);
    }
}

static void test_partial_always_leaves_room_under_the_limit(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(wholes); i++) {
        size_t size;
        char *data = bytes_of(&wholes[i], &size);

        for (size_t size_max = 1; size_max < size && size_max < 40; size_max++) {
            struct frame_scan scan = {.size_max = size_max};

            if (frame_scan(&scan, data, size_max) == FRAME_PARTIAL)
                fail_msg("%s: waits for more than %zu bytes", wholes[i].name, size_max);
        }
        free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_format_ends_where_it_should),
        cmocka_unit_test(test_each_shorter_beginning_is_partial),
        cmocka_unit_test(test_byte_by_byte_it_ends_at_the_same_place),
        cmocka_unit_test(test_what_was_looked_at_is_not_looked_at_again),
        cmocka_unit_test(test_frames_follow_each_other),
        cmocka_unit_test(test_the_byte_c1_is_invalid_wherever_a_value_begins),
        cmocka_unit_test(test_the_byte_c1_inside_a_text_is_a_byte),
        cmocka_unit_test(test_a_claim_over_a_limit_is_refused_at_its_header),
        cmocka_unit_test(test_a_claim_exactly_at_a_limit_is_taken),
        cmocka_unit_test(test_values_count_wherever_they_are),
        cmocka_unit_test(test_containers_may_be_sixteen_deep_and_no_more),
        cmocka_unit_test(test_containers_side_by_side_are_not_deep),
        cmocka_unit_test(test_a_lower_limit_holds_to_the_byte),
        cmocka_unit_test(test_partial_always_leaves_room_under_the_limit),
    };

    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
