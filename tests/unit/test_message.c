#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frame.h"
#include "message.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))
#define BYTES(literal)                                                                                                 \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }

static char why[MESSAGE_WHY_SIZE];

static int parse(struct message *ret, struct slice frame, bool *ret_answerable)
{
    struct frame_scan scan = FRAME_SCAN_INIT;

    why[0] = '\0';
    assert_int_equal(frame_scan(&scan, frame.data, frame.size), FRAME_WHOLE);
    return message_parse(ret, frame, ret_answerable, why);
}

static void parse_right(struct message *ret, struct slice frame)
{
    bool answerable;

    if (parse(ret, frame, &answerable))
        fail_msg("%s", why);
    assert_false(answerable);
}

/* ---- envelopes ---- */

static void test_a_request_is_taken_apart(void **state)
{
    static const struct slice frame = BYTES("\x94\x00\xce\xff\xff\xff\xff\xa4ping\x91\x80");
    struct message message;

    (void)state;
    parse_right(&message, frame);
    assert_int_equal(message.type, MESSAGE_REQUEST);
    assert_int_equal(message.msgid, UINT32_MAX);
    assert_true(slice_equal(message.method, slice_of("ping")));
    assert_non_null(message.params);
    message_deinit(&message);
    assert_null(message.zone);
}

static void test_params_may_be_empty(void **state)
{
    static const struct slice frame = BYTES("\x94\x00\x01\xa4ping\x90");
    struct message message;

    (void)state;
    parse_right(&message, frame);
    assert_null(message.params);
    message_deinit(&message);
}

static void test_a_response_has_an_error_or_a_result(void **state)
{
    static const struct slice done = BYTES("\x94\x01\x07\xc0\x80");
    static const struct slice refused = BYTES("\x94\x01\x07\x80\xc0");
    struct message message;

    (void)state;
    parse_right(&message, done);
    assert_int_equal(message.type, MESSAGE_RESPONSE);
    assert_int_equal(message.msgid, 7);
    assert_null(message.error);
    assert_non_null(message.result);
    message_deinit(&message);
    parse_right(&message, refused);
    assert_non_null(message.error);
    assert_null(message.result);
    message_deinit(&message);
}

static void test_a_notification_is_taken_apart(void **state)
{
    static const struct slice frame = BYTES("\x93\x02\xa5"
                                            "error\x91\x81\xa4"
                                            "code\xa4"
                                            "busy");
    struct message message;

    (void)state;
    parse_right(&message, frame);
    assert_int_equal(message.type, MESSAGE_NOTIFICATION);
    assert_true(slice_equal(message.method, slice_of("error")));
    assert_non_null(message.params);
    message_deinit(&message);
}

static void test_what_is_no_message_cannot_be_answered(void **state)
{
    static const struct slice frames[] = {
        BYTES("\xc0"),                      /* no array */
        BYTES("\x80"),                      /* a map */
        BYTES("\x90"),                      /* empty */
        BYTES("\x93\x00\x01\xa1x"),         /* a request without params */
        BYTES("\x95\x00\x01\xa1x\x90\xc0"), /* one part more */
        BYTES("\x94\x02\xa1x\x90\xc0"),     /* a notification of four parts */
        BYTES("\x94\x03\x01\xa1x\x90"),     /* an unknown type */
        BYTES("\x94\xff\x01\xa1x\x90"),     /* a negative one */
        BYTES("\x94\xa1"
              "0\x01\xa1x\x90"),                                        /* a text for the type */
        BYTES("\x94\xca\x00\x00\x00\x00\x01\xa1x\x90"),                 /* a float */
        BYTES("\x94\x00\xff\xa1x\x90"),                                 /* a negative msgid */
        BYTES("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa1x\x90"), /* 2^32 */
        BYTES("\x94\x00\xc0\xa1x\x90"),                                 /* nil for the msgid */
        BYTES("\x94\x00\x01\xc4\x01x\x90"),                             /* bytes for the method */
        BYTES("\x94\x00\x01\x05\x90"),                                  /* a number for the method */
        BYTES("\x94\x00\x01\xa2\xc3\x28\x90"),                          /* a method that is no UTF-8 */
        BYTES("\x94\x01\xff\xc0\x80"),                                  /* a response with a negative msgid */
        BYTES("\x93\x02\x05\x90"),                                      /* a notification of a number */
        BYTES("\x93\x02\xa1x\x80"),                                     /* params of a notification that are no array */
    };

    (void)state;
    for (size_t i = 0; i < N(frames); i++) {
        struct message message = {.msgid = 99};
        bool answerable = true;

        if (parse(&message, frames[i], &answerable) != SESSIOND_INVALID || answerable || why[0] == '\0')
            fail_msg("frame %zu", i);
        assert_int_equal(message.msgid, 99);
        assert_null(message.zone);
    }
}

static void test_wrong_params_can_be_answered(void **state)
{
    static const struct slice frames[] = {
        BYTES("\x94\x00\x05\xa4ping\xc0"),         /* nil */
        BYTES("\x94\x00\x05\xa4ping\x80"),         /* a map that is in no array */
        BYTES("\x94\x00\x05\xa4ping\x92\x80\x80"), /* two maps */
        BYTES("\x94\x00\x05\xa4ping\x91\xc0"),     /* nil in the array */
        BYTES("\x94\x00\x05\xa4ping\x91\x90"),     /* an array in the array */
        BYTES("\x94\x00\x05\xa4ping\x91\xa1s"),    /* a text in the array */
    };

    (void)state;
    for (size_t i = 0; i < N(frames); i++) {
        struct message message;
        bool answerable = false;

        memset(&message, 0xee, sizeof(message));
        if (parse(&message, frames[i], &answerable) != SESSIOND_INVALID || !answerable || why[0] == '\0')
            fail_msg("frame %zu", i);
        assert_int_equal(message.type, MESSAGE_REQUEST);
        assert_int_equal(message.msgid, 5);
        assert_null(message.zone);
    }
}

static void test_a_frame_with_bytes_after_it_is_no_frame(void **state)
{
    static const struct slice frame = BYTES("\x94\x00\x01\xa4ping\x90\xc0");
    struct message message = {0};
    bool answerable = true;

    (void)state;
    assert_int_equal(message_parse(&message, frame, &answerable, why), SESSIOND_INVALID);
    assert_false(answerable);
    assert_int_equal(message_parse(&message, (struct slice){frame.data, frame.size - 2}, &answerable, why),
                     SESSIOND_INVALID);
    assert_int_equal(message_parse(&message, (struct slice){frame.data, 0}, &answerable, why), SESSIOND_INVALID);
}

static void test_a_zeroed_message_may_be_freed(void **state)
{
    struct message message = {0};

    (void)state;
    message_deinit(&message);
}

/* ---- fields ---- */

struct into {
    struct slice text;
    struct slice choice;
    struct number number;
    struct number small;
    bool flag;
    struct text_list list;
    const struct value *value;
};

static const struct field fields[] = {
    {"text", FIELD_TEXT, FIELD_NIL, offsetof(struct into, text), 1, 5},
    {"choice", FIELD_TEXT, 0, offsetof(struct into, choice), 0, 0},
    {"number", FIELD_NUMBER, FIELD_NIL, offsetof(struct into, number), 0, 0},
    {"small", FIELD_NUMBER, 0, offsetof(struct into, small), 1, 10},
    {"flag", FIELD_BOOL, FIELD_NIL, offsetof(struct into, flag), 0, 0},
    {"list", FIELD_TEXT_LIST, 0, offsetof(struct into, list), 0, 3},
    {"value", FIELD_VALUE, 0, offsetof(struct into, value), 0, 0},
    {0},
};

/* A map that was read, with what the slices in `into` point at. */
struct reading {
    struct buf frame;
    struct message message;
    struct into into;
};

static int read_by(const struct field *table, struct slice map, enum message_unknown unknown, struct reading *ret)
{
    bool answerable;

    memset(ret, 0, sizeof(*ret)); /* the padding too: tests compare it */
    pack_notification(&ret->frame, "x");
    buf_append(&ret->frame, map.data, map.size);
    assert_int_equal(parse(&ret->message, buf_slice(&ret->frame), &answerable), 0);
    return message_read(&ret->message, ret->message.params, table, unknown, &ret->into, why);
}

static void forget(struct reading *reading)
{
    message_deinit(&reading->message);
    buf_deinit(&reading->frame);
}

static int outcome_of(struct slice map, enum message_unknown unknown)
{
    struct reading reading;
    int r = read_by(fields, map, unknown, &reading);

    forget(&reading);
    assert_true((r != 0) == (why[0] != '\0'));
    return r;
}

static void test_each_type_of_field_is_read(void **state)
{
    static const struct slice map = BYTES("\x87\xa4text\xa3"
                                          "abc\xa6"
                                          "choice\xa0\xa6number\xcd\x01\x00\xa5small\x0a\xa4"
                                          "flag\xc3\xa4list\x92\xa1x\xa0\xa5value\x91\xc4\x02yz");
    struct reading reading;

    (void)state;
    assert_int_equal(read_by(fields, map, MESSAGE_REFUSE_UNKNOWN, &reading), 0);
    assert_true(slice_equal(reading.into.text, slice_of("abc")));
    assert_non_null(reading.into.choice.data);
    assert_int_equal(reading.into.choice.size, 0);
    assert_true(reading.into.number.present);
    assert_int_equal(reading.into.number.value, 256);
    assert_int_equal(reading.into.small.value, 10);
    assert_true(reading.into.flag);
    assert_true(reading.into.list.present);
    assert_int_equal(reading.into.list.n, 2);
    assert_true(slice_equal(reading.into.list.texts[0], slice_of("x")));
    assert_true(slice_equal(reading.into.list.texts[1], slice_of("")));
    assert_int_equal(message_n_elements(reading.into.value), 1);
    assert_true(slice_equal(message_bytes(message_element(reading.into.value, 0)), slice_of("yz")));
    forget(&reading);
}

static void test_what_is_absent_stays_zero(void **state)
{
    static const struct into zero;
    struct message message = {0};
    struct into into;

    (void)state;
    memset(&into, 0, sizeof(into));
    assert_int_equal(message_read(&message, NULL, fields, MESSAGE_REFUSE_UNKNOWN, &into, why), 0);
    assert_memory_equal(&into, &zero, sizeof(into));
}

static void test_nil_is_absent_where_it_is_allowed(void **state)
{
    static const struct slice map = BYTES("\x83\xa4text\xc0\xa6number\xc0\xa4"
                                          "flag\xc0");
    struct reading reading;
    static const struct into zero;

    (void)state;
    assert_int_equal(read_by(fields, map, MESSAGE_REFUSE_UNKNOWN, &reading), 0);
    assert_memory_equal(&reading.into, &zero, sizeof(zero));
    forget(&reading);
}

static void test_an_empty_list_is_present(void **state)
{
    static const struct slice map = BYTES("\x81\xa4list\x90");
    struct reading reading;

    (void)state;
    assert_int_equal(read_by(fields, map, MESSAGE_REFUSE_UNKNOWN, &reading), 0);
    assert_true(reading.into.list.present);
    assert_int_equal(reading.into.list.n, 0);
    forget(&reading);
}

static void test_texts_of_a_list_are_not_checked_for_utf8(void **state)
{
    static const struct slice map = BYTES("\x81\xa4list\x91\xa2\xc3\x28");

    (void)state;
    assert_int_equal(outcome_of(map, MESSAGE_REFUSE_UNKNOWN), 0);
}

static void test_a_number_has_one_value_in_every_width(void **state)
{
    static const struct {
        struct slice map;
        uint64_t value;
    } cases[] = {
        {BYTES("\x81\xa6number\x05"), 5},
        {BYTES("\x81\xa6number\xcc\x05"), 5},
        {BYTES("\x81\xa6number\xcd\x00\x05"), 5},
        {BYTES("\x81\xa6number\xcf\x00\x00\x00\x00\x00\x00\x00\x05"), 5},
        {BYTES("\x81\xa6number\xd0\x05"), 5},
        {BYTES("\x81\xa6number\xd3\x00\x00\x00\x00\x00\x00\x00\x05"), 5},
        {BYTES("\x81\xa6number\x00"), 0},
        {BYTES("\x81\xa6number\xcf\x00\x1f\xff\xff\xff\xff\xff\xff"), PROTO_NUMBER_MAX},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct reading reading;

        assert_int_equal(read_by(fields, cases[i].map, MESSAGE_REFUSE_UNKNOWN, &reading), 0);
        assert_true(reading.into.number.present);
        assert_true(reading.into.number.value == cases[i].value);
        forget(&reading);
    }
}

static void test_wrong_fields_are_refused_and_named(void **state)
{
    static const struct {
        struct slice map;
        int r;
        const char *named;
    } cases[] = {
        {BYTES("\x81\xa4text\xc4\x01x"), SESSIOND_INVALID, "bytes (bin)"},
        {BYTES("\x81\xa4text\x05"), SESSIOND_INVALID, "\"text\" must be a text (str), not an integer"},
        {BYTES("\x81\xa4text\x81\x01\x02"), SESSIOND_INVALID, "not a map"},
        {BYTES("\x81\xa4text\xa0"), SESSIOND_INVALID, "at least 1 bytes"},
        {BYTES("\x81\xa4text\xa6"
               "abcdef"),
         SESSIOND_TOO_LARGE, "\"text\" has 6 bytes, the limit is 5"},
        {BYTES("\x81\xa4text\xa2\xed\xa0"), SESSIOND_INVALID, "UTF-8"},
        {BYTES("\x81\xa6"
               "choice\xc0"),
         SESSIOND_INVALID, "\"choice\" must not be nil"},
        {BYTES("\x81\xa6number\xff"), SESSIOND_INVALID, "\"number\" must be an integer from 0 to 9007199254740991"},
        {BYTES("\x81\xa6number\xcf\x00\x20\x00\x00\x00\x00\x00\x00"), SESSIOND_INVALID, "from 0 to"},
        {BYTES("\x81\xa6number\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), SESSIOND_INVALID, "from 0 to"},
        {BYTES("\x81\xa6number\xca\x40\x00\x00\x00"), SESSIOND_INVALID, "not a float"},
        {BYTES("\x81\xa6number\xcb\x40\x00\x00\x00\x00\x00\x00\x00"), SESSIOND_INVALID, "not a float"},
        {BYTES("\x81\xa6number\xa1"
               "5"),
         SESSIOND_INVALID, "not a text"},
        {BYTES("\x81\xa6number\xc3"), SESSIOND_INVALID, "not a boolean"},
        {BYTES("\x81\xa5small\x00"), SESSIOND_INVALID, "\"small\" must be an integer from 1 to 10"},
        {BYTES("\x81\xa5small\x0b"), SESSIOND_INVALID, "from 1 to 10"},
        {BYTES("\x81\xa5small\xc0"), SESSIOND_INVALID, "nil"},
        {BYTES("\x81\xa4"
               "flag\x01"),
         SESSIOND_INVALID, "\"flag\" must be a boolean"},
        {BYTES("\x81\xa4list\xa1x"), SESSIOND_INVALID, "\"list\" must be an array of texts, not a text (str)"},
        {BYTES("\x81\xa4list\x93\xa0\xa0\xc4\x00"), SESSIOND_INVALID, "\"list\"[2] must be a text (str)"},
        {BYTES("\x81\xa4list\x92\xa0\xc0"), SESSIOND_INVALID, "\"list\"[1] must be a text (str), not nil"},
        {BYTES("\x81\xa4list\x91\xd4\x01\x00"), SESSIOND_INVALID, "an extension type"},
        {BYTES("\x81\xa4list\x94\xa0\xa0\xa0\xa0"), SESSIOND_TOO_LARGE, "has 4 texts, the limit is 3"},
        {BYTES("\x81\xa5value\xc0"), SESSIOND_INVALID, "nil"},
        {BYTES("\x82\xa4text\xa1x\xa4text\xa1x"), SESSIOND_INVALID, "\"text\" is given twice"},
        {BYTES("\x82\xa4text\xc0\xa4text\xc0"), SESSIOND_INVALID, "\"text\" is given twice"},
        {BYTES("\x81\xa5texts\xa1x"), SESSIOND_INVALID, "\"texts\" is unknown here"},
        {BYTES("\x81\xa3tex\xa1x"), SESSIOND_INVALID, "\"tex\" is unknown here"},
        {BYTES("\x81\xa0\xa1x"), SESSIOND_INVALID, "\"\" is unknown here"},
        {BYTES("\x81\x01\xa1x"), SESSIOND_INVALID, "a key must be a text (str), not an integer"},
        {BYTES("\x81\xc4\x04text\xa1x"), SESSIOND_INVALID, "a key must be a text (str), not bytes (bin)"},
        {BYTES("\x81\xc0\xa1x"), SESSIOND_INVALID, "a key must be a text (str), not nil"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        int r = outcome_of(cases[i].map, MESSAGE_REFUSE_UNKNOWN);

        if (r != cases[i].r || !strstr(why, cases[i].named))
            fail_msg("case %zu: %d, %s", i, r, why);
    }
}

static void test_an_unknown_key_is_shown_as_plain_text(void **state)
{
    static const struct slice odd = BYTES("\x81\xa7"
                                          "a\n\xff\x00\xc3z\x7f\x01");
    char map[3 + 200 + 1];

    (void)state;
    assert_int_equal(outcome_of(odd, MESSAGE_REFUSE_UNKNOWN), SESSIOND_INVALID);
    assert_string_equal(why, "\"a????z?\" is unknown here");
    memcpy(map, "\x81\xd9\xc8", 3);
    memset(map + 3, 'k', 200);
    map[203] = 1;
    assert_int_equal(outcome_of((struct slice){map, sizeof(map)}, MESSAGE_REFUSE_UNKNOWN), SESSIOND_INVALID);
    assert_string_equal(why, "\"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk...\" is unknown here");
}

static void test_a_client_ignores_what_a_newer_daemon_adds(void **state)
{
    static const struct slice map = BYTES("\x83\xa3new\x93\x01\x02\x03\xa4text\xa1x\xa5newer\xc0");
    static const struct slice twice = BYTES("\x82\xa4text\xa1x\xa4text\xa1x");
    struct reading reading;

    (void)state;
    assert_int_equal(read_by(fields, map, MESSAGE_IGNORE_UNKNOWN, &reading), 0);
    assert_true(slice_equal(reading.into.text, slice_of("x")));
    forget(&reading);
    assert_int_equal(outcome_of(twice, MESSAGE_IGNORE_UNKNOWN), SESSIOND_INVALID);
}

static void test_a_required_field_must_be_there(void **state)
{
    static const struct field table[] = {
        {"text", FIELD_TEXT, FIELD_REQUIRED, offsetof(struct into, text), 0, 0},
        {"number", FIELD_NUMBER, FIELD_REQUIRED | FIELD_NIL, offsetof(struct into, number), 0, 0},
        {0},
    };
    static const struct {
        struct slice map;
        int r;
        const char *why;
    } cases[] = {
        {BYTES("\x82\xa4text\xa0\xa6number\x01"), 0, ""},
        {BYTES("\x82\xa4text\xa0\xa6number\xc0"), 0, ""},
        {BYTES("\x81\xa4text\xa0"), SESSIOND_INVALID, "\"number\" is missing"},
        {BYTES("\x81\xa6number\xc0"), SESSIOND_INVALID, "\"text\" is missing"},
        {BYTES("\x80"), SESSIOND_INVALID, "\"text\" is missing"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct reading reading;

        assert_int_equal(read_by(table, cases[i].map, MESSAGE_REFUSE_UNKNOWN, &reading), cases[i].r);
        assert_string_equal(why, cases[i].why);
        forget(&reading);
    }
    assert_int_equal(message_read(&(struct message){0}, NULL, table, MESSAGE_REFUSE_UNKNOWN, &(struct into){0}, why),
                     SESSIOND_INVALID);
}

static void test_what_is_no_map_is_refused(void **state)
{
    static const struct slice frame = BYTES("\x94\x01\x01\xa4"
                                            "busy\xc0");
    struct message message;
    struct into into = {0};

    (void)state;
    parse_right(&message, frame);
    assert_int_equal(message_read(&message, message.error, fields, MESSAGE_IGNORE_UNKNOWN, &into, why),
                     SESSIOND_INVALID);
    assert_non_null(strstr(why, "must be a map, not a text"));
    message_deinit(&message);
}

/* ---- single values ---- */

static void test_single_values_are_read_or_absent(void **state)
{
    static const struct slice frame = BYTES("\x94\x01\x01\xc0\x97\xc0\xa1x\x07\xc4\x01y\xff\xcb\x3f\xf0\x00\x00\x00\x00"
                                            "\x00\x00\xcf\x00\x20\x00\x00\x00\x00\x00\x00");
    struct message message;
    const struct value *array;

    (void)state;
    parse_right(&message, frame);
    array = message.result;
    assert_int_equal(message_n_elements(array), 7);
    assert_null(message_element(array, 7));
    assert_null(message_element(array, SIZE_MAX));
    for (size_t i = 0; i < 7; i++) {
        const struct value *value = message_element(array, i);

        assert_int_equal(message_is_nil(value), i == 0);
        assert_int_equal(message_text(value).data != NULL, i == 1);
        assert_int_equal(message_number(value).present, i == 2);
        assert_int_equal(message_bytes(value).data != NULL, i == 3);
        assert_int_equal(message_n_elements(value), 0);
        assert_null(message_element(value, 0));
    }
    assert_true(slice_equal(message_text(message_element(array, 1)), slice_of("x")));
    assert_int_equal(message_number(message_element(array, 2)).value, 7);
    assert_true(slice_equal(message_bytes(message_element(array, 3)), slice_of("y")));
    message_deinit(&message);
}

static void test_no_value_reads_as_nil(void **state)
{
    (void)state;
    assert_true(message_is_nil(NULL));
    assert_null(message_text(NULL).data);
    assert_null(message_bytes(NULL).data);
    assert_false(message_number(NULL).present);
    assert_int_equal(message_n_elements(NULL), 0);
    assert_null(message_element(NULL, 0));
}

/* ---- JSON for people ---- */

static void test_any_value_is_written_as_json(void **state)
{
    static const struct {
        struct slice value;
        const char *json;
    } cases[] = {
        {BYTES("\xc2"), "false"},
        {BYTES("\xc3"), "true"},
        {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615"},
        {BYTES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), "-9223372036854775808"},
        {BYTES("\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00"), "0.5"},
        {BYTES("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), "null"},
        {BYTES("\xca\x7f\xc0\x00\x00"), "null"},
        {BYTES("\xa0"), "\"\""},
        {BYTES("\xa8"
               "a\"\\\n\x7f\xc3\xa4z"),
         "\"a\\\"\\\\\\u000a\\u007f\xc3\xa4z\""},
        {BYTES("\xa3\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {BYTES("\xa2"
               "a\xf0"),
         "\"a\xef\xbf\xbd\""},
        {BYTES("\xc4\x02\x00z"), "\"\\u0000z\""},
        {BYTES("\xd4\x05z"), "\"z\""},
        {BYTES("\x90"), "[]"},
        {BYTES("\x93\x01\x91\xc0\x80"), "[1, [null], {}]"},
        {BYTES("\x82\xa1"
               "a\x01\x07\x81\xa1"
               "b\xc3"),
         "{\"a\": 1, \"an integer\": {\"b\": true}}"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct buf frame = BUF_INIT, json = BUF_INIT;
        struct message message;

        pack_response(&frame, 1);
        buf_append(&frame, cases[i].value.data, cases[i].value.size);
        parse_right(&message, buf_slice(&frame));
        message_to_json(message.result, &json);
        if (!slice_equal(buf_slice(&json), slice_of(cases[i].json)))
            fail_msg("%.*s is not %s", (int)json.size, json.data, cases[i].json);
        message_deinit(&message);
        buf_deinit(&frame);
        buf_deinit(&json);
    }
}

static void test_no_value_is_written_as_null(void **state)
{
    struct buf json = BUF_INIT;

    (void)state;
    message_to_json(NULL, &json);
    assert_true(slice_equal(buf_slice(&json), slice_of("null")));
    buf_deinit(&json);
}

/* ---- packing ---- */

static void assert_packed(struct buf *buf, const char *bytes, size_t size)
{
    assert_false(buf->failed);
    assert_true(buf->size >= size);
    assert_memory_equal(buf->data, bytes, size);
    buf_drop(buf, buf->size);
}
#define ASSERT_PACKED(buf, literal) assert_packed(buf, literal, sizeof(literal) - 1)

static void test_numbers_take_the_shortest_form(void **state)
{
    static const struct {
        uint64_t value;
        struct slice bytes;
    } cases[] = {
        {0, BYTES("\x00")},
        {127, BYTES("\x7f")},
        {128, BYTES("\xcc\x80")},
        {255, BYTES("\xcc\xff")},
        {256, BYTES("\xcd\x01\x00")},
        {65535, BYTES("\xcd\xff\xff")},
        {65536, BYTES("\xce\x00\x01\x00\x00")},
        {UINT32_MAX, BYTES("\xce\xff\xff\xff\xff")},
        {UINT64_C(1) << 32, BYTES("\xcf\x00\x00\x00\x01\x00\x00\x00\x00")},
        {PROTO_NUMBER_MAX, BYTES("\xcf\x00\x1f\xff\xff\xff\xff\xff\xff")},
    };
    struct buf buf = BUF_INIT;

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        pack_number(&buf, cases[i].value);
        assert_int_equal(buf.size, cases[i].bytes.size);
        assert_packed(&buf, cases[i].bytes.data, cases[i].bytes.size);
    }
    buf_deinit(&buf);
}

static void test_texts_bytes_and_containers_take_the_shortest_form(void **state)
{
    static const struct {
        size_t n;
        struct slice text, bytes, array, map;
    } cases[] = {
        {0, BYTES("\xa0"), BYTES("\xc4\x00"), BYTES("\x90"), BYTES("\x80")},
        {15, BYTES("\xaf"), BYTES("\xc4\x0f"), BYTES("\x9f"), BYTES("\x8f")},
        {16, BYTES("\xb0"), BYTES("\xc4\x10"), BYTES("\xdc\x00\x10"), BYTES("\xde\x00\x10")},
        {31, BYTES("\xbf"), BYTES("\xc4\x1f"), BYTES("\xdc\x00\x1f"), BYTES("\xde\x00\x1f")},
        {32, BYTES("\xd9\x20"), BYTES("\xc4\x20"), BYTES("\xdc\x00\x20"), BYTES("\xde\x00\x20")},
        {255, BYTES("\xd9\xff"), BYTES("\xc4\xff"), BYTES("\xdc\x00\xff"), BYTES("\xde\x00\xff")},
        {256, BYTES("\xda\x01\x00"), BYTES("\xc5\x01\x00"), BYTES("\xdc\x01\x00"), BYTES("\xde\x01\x00")},
        {65535, BYTES("\xda\xff\xff"), BYTES("\xc5\xff\xff"), BYTES("\xdc\xff\xff"), BYTES("\xde\xff\xff")},
        {65536, BYTES("\xdb\x00\x01\x00\x00"), BYTES("\xc6\x00\x01\x00\x00"), BYTES("\xdd\x00\x01\x00\x00"),
         BYTES("\xdf\x00\x01\x00\x00")},
    };
    static const char zeroes[65536];
    struct buf buf = BUF_INIT;

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct slice content = {zeroes, cases[i].n};

        pack_text(&buf, content);
        assert_int_equal(buf.size, cases[i].text.size + content.size);
        assert_packed(&buf, cases[i].text.data, cases[i].text.size);
        pack_bytes(&buf, content);
        assert_int_equal(buf.size, cases[i].bytes.size + content.size);
        assert_packed(&buf, cases[i].bytes.data, cases[i].bytes.size);
        pack_array(&buf, cases[i].n);
        assert_int_equal(buf.size, cases[i].array.size);
        assert_packed(&buf, cases[i].array.data, cases[i].array.size);
        pack_map(&buf, cases[i].n);
        assert_int_equal(buf.size, cases[i].map.size);
        assert_packed(&buf, cases[i].map.data, cases[i].map.size);
    }
    buf_deinit(&buf);
}

static void test_pairs_and_heads_are_packed(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    pack_pair_nil(&buf, "a");
    pack_pair_bool(&buf, "b", true);
    pack_pair_bool(&buf, "c", false);
    pack_pair_number(&buf, "d", 200);
    pack_pair_text(&buf, "e", slice_of("x"));
    ASSERT_PACKED(&buf, "\xa1"
                        "a\xc0\xa1"
                        "b\xc3\xa1"
                        "c\xc2\xa1"
                        "d\xcc\xc8\xa1"
                        "e\xa1x");
    pack_request(&buf, 300, "ping");
    ASSERT_PACKED(&buf, "\x94\x00\xcd\x01\x2c\xa4ping\x91");
    pack_response(&buf, 1);
    ASSERT_PACKED(&buf, "\x94\x01\x01\xc0");
    pack_refusal(&buf, 1);
    ASSERT_PACKED(&buf, "\x94\x01\x01");
    pack_notification(&buf, "error");
    ASSERT_PACKED(&buf, "\x93\x02\xa5"
                        "error\x91");
    buf_deinit(&buf);
}

static void test_an_absent_text_is_packed_as_an_empty_one(void **state)
{
    struct buf buf = BUF_INIT;

    (void)state;
    pack_text(&buf, (struct slice){0});
    ASSERT_PACKED(&buf, "\xa0");
    buf_deinit(&buf);
}

static void test_what_32_bits_cannot_count_fails(void **state)
{
    const size_t n = (size_t)UINT32_MAX + 1;
    struct buf bufs[4] = {BUF_INIT};

    (void)state;
    pack_array(&bufs[0], n);
    pack_map(&bufs[1], n);
    pack_text(&bufs[2], (struct slice){"", n});
    pack_bytes(&bufs[3], (struct slice){"", n});
    for (size_t i = 0; i < N(bufs); i++) {
        assert_true(bufs[i].failed);
        assert_int_equal(bufs[i].size, 0);
        buf_deinit(&bufs[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_taken_apart),
        cmocka_unit_test(test_params_may_be_empty),
        cmocka_unit_test(test_a_response_has_an_error_or_a_result),
        cmocka_unit_test(test_a_notification_is_taken_apart),
        cmocka_unit_test(test_what_is_no_message_cannot_be_answered),
        cmocka_unit_test(test_wrong_params_can_be_answered),
        cmocka_unit_test(test_a_frame_with_bytes_after_it_is_no_frame),
        cmocka_unit_test(test_a_zeroed_message_may_be_freed),
        cmocka_unit_test(test_each_type_of_field_is_read),
        cmocka_unit_test(test_what_is_absent_stays_zero),
        cmocka_unit_test(test_nil_is_absent_where_it_is_allowed),
        cmocka_unit_test(test_an_empty_list_is_present),
        cmocka_unit_test(test_texts_of_a_list_are_not_checked_for_utf8),
        cmocka_unit_test(test_a_number_has_one_value_in_every_width),
        cmocka_unit_test(test_wrong_fields_are_refused_and_named),
        cmocka_unit_test(test_an_unknown_key_is_shown_as_plain_text),
        cmocka_unit_test(test_a_client_ignores_what_a_newer_daemon_adds),
        cmocka_unit_test(test_a_required_field_must_be_there),
        cmocka_unit_test(test_what_is_no_map_is_refused),
        cmocka_unit_test(test_single_values_are_read_or_absent),
        cmocka_unit_test(test_no_value_reads_as_nil),
        cmocka_unit_test(test_any_value_is_written_as_json),
        cmocka_unit_test(test_no_value_is_written_as_null),
        cmocka_unit_test(test_numbers_take_the_shortest_form),
        cmocka_unit_test(test_texts_bytes_and_containers_take_the_shortest_form),
        cmocka_unit_test(test_pairs_and_heads_are_packed),
        cmocka_unit_test(test_an_absent_text_is_packed_as_an_empty_one),
        cmocka_unit_test(test_what_32_bits_cannot_count_fails),
    };

    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
