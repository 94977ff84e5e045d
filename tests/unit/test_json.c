#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sqlite3.h>

#include "json.h"
#include "proto.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* Where another parser rightly or wrongly says something else, it is not asked. */
enum {
    NOT_JANSSON = 1 << 0, /* refuses big numbers, lone surrogates, NUL in keys; takes arrays at the top, tabs, lines */
    NOT_SQLITE = 1 << 1,  /* 3.40 takes these, scalars, NaN, any UTF-8, a key like {"":""}, anything after a NUL byte */
    ONLY_OURS = NOT_JANSSON | NOT_SQLITE,
};

static const struct item {
    const char *name; /* y_: it is an item; n_: it is none */
    const char *text;
    size_t size;
    size_t wrong_at;
    unsigned without;
} items[] = {
#define Y(name, text, without)                                                                                         \
    {                                                                                                                  \
        "y_" name, text, sizeof(text) - 1, 0, without                                                                  \
    }
#define N_(name, text, wrong_at, without)                                                                              \
    {                                                                                                                  \
        "n_" name, text, sizeof(text) - 1, wrong_at, without                                                           \
    }
    /* whole objects */
    Y("empty", "{}", 0),
    Y("empty key and value", "{\"\":\"\"}", 0),
    Y("all kinds of values", "{\"a\":[1,-2.5e+3,\"x\",true,false,null,{},[]]}", 0),
    Y("spaces everywhere", "  { \"a\" : [ 1 , 2 ] , \"b\" : { } }  ", 0),
    Y("duplicate keys", "{\"a\":1,\"a\":2}", 0),
    Y("nested", "{\"a\":{\"b\":[{\"c\":[[]]}]}}", 0),
    Y("array where an object was", "{\"a\":[{},[[],1]]}", 0),
    Y("object where an array was", "{\"a\":[[],{\"b\":[],\"c\":1}]}", 0),
    N_("empty text", "", 0, 0),
    N_("only a space", " ", 1, 0),
    N_("array at the top", "[{}]", 0, ONLY_OURS),
    N_("text at the top", "\"a\"", 0, ONLY_OURS),
    N_("number at the top", "1", 0, ONLY_OURS),
    N_("null at the top", "null", 0, ONLY_OURS),
    N_("byte order mark", "\xef\xbb\xbf{}", 0, 0),
    N_("second object", "{}{}", 2, 0),
    N_("second object after a space", "{} {}", 3, 0),
    N_("trailing comma", "{},", 2, 0),
    N_("trailing bracket", "{}}", 2, 0),
    N_("NUL after the end", "{}\0", 2, NOT_SQLITE),
    N_("garbage after NUL after the end", "{}\0garbage", 2, NOT_SQLITE),
    N_("comment", "{/* */}", 1, 0),
    N_("comment after the end", "{}//", 2, 0),

    /* commas, colons and brackets */
    N_("open object", "{", 1, 0),
    N_("open array", "{\"a\":[", 6, 0),
    N_("open after a value", "{\"a\":1", 6, 0),
    N_("open after a comma", "{\"a\":1,", 7, 0),
    N_("open after a key", "{\"a\"", 4, 0),
    N_("open after a colon", "{\"a\":", 5, 0),
    N_("comma only", "{,}", 1, 0),
    N_("comma before the end", "{\"a\":1,}", 7, 0),
    N_("comma before the end of an array", "{\"a\":[1,]}", 8, 0),
    N_("comma at the start of an array", "{\"a\":[,1]}", 6, 0),
    N_("two commas", "{\"a\":1,,\"b\":2}", 7, 0),
    N_("no comma", "{\"a\":1 \"b\":2}", 7, 0),
    N_("no comma in an array", "{\"a\":[1 2]}", 8, 0),
    N_("no colon", "{\"a\" 1}", 5, 0),
    N_("two colons", "{\"a\"::1}", 5, 0),
    N_("colon in an array", "{\"a\":[\"b\":1]}", 9, 0),
    N_("no value", "{\"a\"}", 4, 0),
    N_("no value after the colon", "{\"a\":}", 5, 0),
    N_("key is a number", "{1:1}", 1, 0),
    N_("key is a name", "{a:1}", 1, 0),
    N_("key is an object", "{{}:1}", 1, 0),
    N_("key is an object that ends in a string", "{{\"\":\"\"}:1}", 1, NOT_SQLITE),
    N_("key is an array that ends in a string", "{[\"a\"]:1}", 1, NOT_SQLITE),
    N_("key in single quotes", "{'a':1}", 1, 0),
    N_("array closed as an object", "{\"a\":[1}", 7, 0),
    N_("object closed as an array", "{\"a\":1]", 6, 0),
    N_("inner object closed as an array", "{\"a\":[{]]}", 7, 0),
    N_("empty array closed as an object", "{\"a\":[}}", 6, 0),

    /* names */
    N_("name cut off", "{\"a\":tru", 8, 0),
    N_("name misspelt", "{\"a\":trve}", 7, 0),
    N_("name with more", "{\"a\":nulll}", 9, 0),
    N_("name in capitals", "{\"a\":True}", 5, 0),
    N_("NaN", "{\"a\":NaN}", 5, NOT_SQLITE),
    N_("Infinity", "{\"a\":Infinity}", 5, NOT_SQLITE),
    N_("-Infinity", "{\"a\":-Infinity}", 6, NOT_SQLITE),
    N_("undefined", "{\"a\":undefined}", 5, 0),

    /* numbers */
    Y("zero", "{\"a\":0}", 0),
    Y("minus zero", "{\"a\":-0}", 0),
    Y("zero with everything", "{\"a\":-0.0E-0}", 0),
    Y("2^53 + 1", "{\"a\":9007199254740993}", 0),
    Y("2^64", "{\"a\":18446744073709551616}", NOT_JANSSON),
    Y("forty digits", "{\"a\":-1234567890123456789012345678901234567890}", NOT_JANSSON),
    Y("1e400", "{\"a\":1e400}", NOT_JANSSON),
    Y("1E+2", "{\"a\":1E+2}", 0),
    Y("many decimals", "{\"a\":0.1000000000000000055511151231257827021181583404541015625}", 0),
    N_("leading zero", "{\"a\":01}", 6, 0),
    N_("leading zeroes", "{\"a\":-00}", 7, 0),
    N_("plus", "{\"a\":+1}", 5, 0),
    N_("minus only", "{\"a\":-}", 6, 0),
    N_("two minuses", "{\"a\":--1}", 6, 0),
    N_("no digit before the point", "{\"a\":.5}", 5, 0),
    N_("no digit before the point after minus", "{\"a\":-.5}", 6, 0),
    N_("no digit after the point", "{\"a\":1.}", 7, 0),
    N_("exponent without digits", "{\"a\":1e}", 7, 0),
    N_("exponent with a sign only", "{\"a\":1e+}", 8, 0),
    N_("exponent after the point", "{\"a\":1.e1}", 7, 0),
    N_("broken exponent", "{\"a\":1e1.5}", 8, 0),
    N_("two points", "{\"a\":1.2.3}", 8, 0),
    N_("hexadecimal", "{\"a\":0x10}", 6, 0),
    N_("underscore", "{\"a\":1_000}", 6, 0),
    N_("number cut off", "{\"a\":-", 6, 0),
    N_("number at the end of the text", "{\"a\":12", 7, 0),

    /* strings */
    Y("all escapes", "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0123\\u4567\\u89ab\\ucdef\\uABCD\\uEF00\"}", 0),
    Y("escape NUL", "{\"a\":\"x\\u0000y\"}", 0),
    Y("escape NUL in a key", "{\"\\u0000\":1}", NOT_JANSSON),
    Y("surrogate pair", "{\"a\":\"\\ud83d\\ude00\"}", 0),
    Y("lone high surrogate", "{\"a\":\"\\ud800\"}", NOT_JANSSON),
    Y("lone low surrogate", "{\"a\":\"\\udc00\"}", NOT_JANSSON),
    Y("surrogates in the wrong order", "{\"a\":\"\\ude00\\ud83d\"}", NOT_JANSSON),
    Y("DEL", "{\"a\":\"\x7f\"}", 0),
    Y("slash", "{\"a\":\"/\"}", 0),
    Y("long text of plain bytes", "{\"a\":\"0123456789 abcdefghijklmnopqrstuvwxyz !#$%&'()*+,-./:;<=>?@[]^_`{|}~\"}",
      0),
    N_("string cut off", "{\"a\":\"abc", 9, 0),
    N_("string cut off in a key", "{\"abc", 5, 0),
    N_("string cut off after a backslash", "{\"a\":\"\\", 7, 0),
    N_("string cut off in an escape", "{\"a\":\"\\u00", 10, 0),
    N_("quote escaped at the end", "{\"a\":\"\\\"}", 9, 0),
    N_("unknown escape", "{\"a\":\"\\x41\"}", 7, 0),
    N_("escape of a single quote", "{\"a\":\"\\'\"}", 7, 0),
    N_("capital U", "{\"a\":\"\\U0041\"}", 7, 0),
    N_("three hexadecimal digits", "{\"a\":\"\\u004\"}", 11, 0),
    N_("no hexadecimal digit", "{\"a\":\"\\u00g0\"}", 10, 0),
    N_("escape of a raw NUL", "{\"a\":\"\\\0\"}", 7, NOT_SQLITE),

    /* raw bytes below 0x20 */
    N_("raw NUL", "{\"a\":\"\0\"}", 6, NOT_SQLITE),
    N_("raw newline in a string", "{\"a\":\"\n\"}", 6, 0),
    N_("raw tab in a string", "{\"a\":\"\t\"}", 6, 0),
    N_("raw 0x1f in a string", "{\"a\":\"\x1f\"}", 6, 0),
    N_("raw tab in a long string", "{\"a\":\"0123456789abcdef0123456\t\"}", 29, 0),
    N_("newline between tokens", "{\n\"a\":1}", 1, ONLY_OURS),
    N_("tab between tokens", "{\"a\":\t1}", 5, ONLY_OURS),
    N_("newline at the end", "{\"a\":1}\n", 7, ONLY_OURS),
    N_("carriage return at the start", "\r{}", 0, ONLY_OURS),
    N_("form feed between tokens", "{\f}", 1, 0),
    N_("no-break space between tokens", "{\xc2\xa0}", 1, 0),

    /* UTF-8 */
    Y("two bytes", "{\"a\":\"\xc2\x80\xdf\xbf\"}", 0),
    Y("three bytes", "{\"a\":\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"}", 0),
    Y("four bytes", "{\"a\":\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}", 0),
    Y("in a key", "{\"\xf0\x9f\x8c\x89\":1}", 0),
    N_("continuation alone", "{\"a\":\"\x80\"}", 6, NOT_SQLITE),
    N_("two bytes cut off", "{\"a\":\"\xc3\"}", 6, NOT_SQLITE),
    N_("three bytes cut off", "{\"a\":\"\xe2\x82\"}", 6, NOT_SQLITE),
    N_("four bytes cut off", "{\"a\":\"\xf0\x9f\x8c\"}", 6, NOT_SQLITE),
    N_("cut off at the end of the text", "{\"a\":\"\xf0\x9f\x8c", 6, 0),
    N_("overlong NUL", "{\"a\":\"\xc0\x80\"}", 6, NOT_SQLITE),
    N_("overlong slash", "{\"a\":\"\xc1\xaf\"}", 6, NOT_SQLITE),
    N_("overlong in three bytes", "{\"a\":\"\xe0\x9f\xbf\"}", 6, NOT_SQLITE),
    N_("overlong in four bytes", "{\"a\":\"\xf0\x8f\xbf\xbf\"}", 6, NOT_SQLITE),
    N_("first surrogate", "{\"a\":\"\xed\xa0\x80\"}", 6, NOT_SQLITE),
    N_("last surrogate", "{\"a\":\"\xed\xbf\xbf\"}", 6, NOT_SQLITE),
    N_("above U+10FFFF", "{\"a\":\"\xf4\x90\x80\x80\"}", 6, NOT_SQLITE),
    N_("F5", "{\"a\":\"\xf5\x80\x80\x80\"}", 6, NOT_SQLITE),
    N_("FF", "{\"a\":\"\xff\"}", 6, NOT_SQLITE),
    N_("third byte is none", "{\"a\":\"\xe2\x82x\"}", 6, NOT_SQLITE),
    N_("fourth byte is none", "{\"a\":\"\xf0\x9f\x8c\xc0\"}", 6, NOT_SQLITE),
    N_("after good characters", "{\"a\":\"\xc3\xa4\xc3\xa4\xc3\"}", 10, NOT_SQLITE),
    N_("in a key", "{\"\xff\":1}", 2, NOT_SQLITE),
    N_("between tokens", "{\xff}", 1, 0),
    N_("UTF-16", "{\0\"\0a\0\"\0:\0001\0}\0", 1, 0),
#undef Y
#undef N_
};

/* Texts live exactly as long as they are, so that a checker that reads on is caught. */
static char *exact_copy(const char *text, size_t size)
{
    char *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    memcpy(copy, text, size);
    return copy;
}

static bool is_item(const char *text, size_t size, size_t *ret_wrong_at)
{
    char *copy = exact_copy(text, size);
    const char *why = json_check_item((struct slice){copy, size}, ret_wrong_at);

    free(copy);
    assert_true(!why || *why);
    return !why;
}

static bool jansson_takes(const char *text, size_t size)
{
    json_t *json = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    bool taken = json != NULL;

    json_decref(json);
    return taken;
}

static bool sqlite_takes(const char *text, size_t size)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    bool taken;

    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT json_valid(?)", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_bind_text64(statement, 1, text, size, SQLITE_STATIC, SQLITE_UTF8), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    taken = sqlite3_column_int(statement, 0) != 0;
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return taken;
}

static void test_each_item_is_judged_right_and_where(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(items); i++) {
        const struct item *item = &items[i];
        size_t wrong_at = 0;

        if (is_item(item->text, item->size, &wrong_at) != (item->name[0] == 'y') || wrong_at != item->wrong_at)
            fail_msg("%s: wrong at %zu", item->name, wrong_at);
    }
}

static void test_jansson_judges_alike(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(items); i++)
        if (!(items[i].without & NOT_JANSSON) &&
            jansson_takes(items[i].text, items[i].size) != (items[i].name[0] == 'y'))
            fail_msg("%s", items[i].name);
}

static void test_sqlite_judges_alike(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(items); i++)
        if (!(items[i].without & NOT_SQLITE) && sqlite_takes(items[i].text, items[i].size) != (items[i].name[0] == 'y'))
            fail_msg("%s", items[i].name);
}

/* Every beginning of an item but itself and its trailing spaces is cut off too early. */
static void test_no_beginning_of_an_item_is_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(items); i++) {
        size_t size = items[i].size;
        size_t wrong_at;

        if (items[i].name[0] != 'y')
            continue;
        while (items[i].text[size - 1] == ' ')
            size--;
        while (size-- > 0)
            if (is_item(items[i].text, size, &wrong_at))
                fail_msg("%s is one with %zu bytes", items[i].name, size);
    }
}

/* {"a":[[[…]]]} or {"a":{"a":…{}}}, `depth` levels in all. The caller frees it. */
static char *nested(unsigned depth, bool objects, size_t *ret_size)
{
    char *text = malloc(6 * (size_t)depth + 1);
    char *end = text;

    assert_non_null(text);
    for (unsigned i = 1; i < depth; i++)
        end = stpcpy(end, objects || i == 1 ? "{\"a\":" : "[");
    end = stpcpy(end, objects || depth == 1 ? "{}" : "[]");
    for (unsigned i = depth - 1; i > 0; i--)
        end = stpcpy(end, objects || i == 1 ? "}" : "]");
    *ret_size = (size_t)(end - text);
    return text;
}

static void test_an_item_is_at_most_512_levels_deep(void **state)
{
    static const unsigned depths[] = {1, 2, 63, 64, 65, 128, 500, 511, 512, 513, 514, 1900};

    (void)state;
    assert_int_equal(PROTO_JSON_DEPTH_MAX, 512);
    for (size_t i = 0; i < 2 * N(depths); i++) {
        unsigned depth = depths[i / 2];
        size_t size, wrong_at;
        char *text = nested(depth, i % 2, &size);

        assert_true(jansson_takes(text, size));
        assert_true(sqlite_takes(text, size));
        if (is_item(text, size, &wrong_at) != (depth <= 512))
            fail_msg("%u levels", depth);
        free(text);
    }
}

static void test_too_deep_is_noticed_at_the_bracket(void **state)
{
    size_t size, wrong_at;
    char *text = nested(600, false, &size);

    (void)state;
    assert_false(is_item(text, size, &wrong_at));
    assert_int_equal(wrong_at, strlen("{\"a\":") + 511);
    free(text);
}

/* The kinds of all open containers must be remembered, not only of the innermost. */
static void test_brackets_must_match_at_every_level(void **state)
{
    size_t size, wrong_at;
    char *text = nested(512, false, &size);

    (void)state;
    for (size_t i = 0; i < 511; i++) {
        size_t at = size - 2 - i;

        assert_int_equal(text[at], ']');
        text[at] = '}';
        assert_false(is_item(text, size, &wrong_at));
        assert_int_equal(wrong_at, at);
        text[at] = ']';
    }
    assert_true(is_item(text, size, &wrong_at));
    free(text);
}

static void test_a_level_that_was_left_does_not_count(void **state)
{
    struct buf text = BUF_INIT;
    size_t wrong_at;

    (void)state;
    buf_append(&text, "{\"a\":[0", 7);
    for (int i = 0; i < 2000; i++)
        buf_append(&text, ",[],{}", 6);
    buf_append(&text, "]}", 2);
    assert_true(is_item(text.data, text.size, &wrong_at));
    buf_deinit(&text);
}

/* Wherever a byte stands in a word of eight, and whatever is around it. */
static void test_every_byte_is_judged_at_every_place_of_a_string(void **state)
{
    static const char fillings[] = {0x20, 'x', 0x7f};
    char text[34];

    (void)state;
    for (unsigned i = 0; i < N(fillings) * 256 * 24; i++) {
        unsigned byte = i % 256, at = 2 + i / 256 % 24;
        bool plain = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
        size_t wrong_at;

        memset(text, fillings[i / 256 / 24], sizeof(text));
        memcpy(text, "{\"", 2);
        text[at] = (char)byte;
        memcpy(text + 30, "\":1}", 4);
        if (is_item(text, sizeof(text), &wrong_at) != plain)
            fail_msg("byte %02x at %u among %02x", byte, at, fillings[i / 256 / 24]);
    }
}

static void test_ten_mebibytes_of_text_are_an_item(void **state)
{
    const size_t size = 10 * 1024 * 1024;
    char *text = malloc(size);
    size_t wrong_at;

    (void)state;
    assert_non_null(text);
    memset(text, 'x', size);
    memcpy(text, "{\"a\":\"", 6);
    memcpy(text + size - 2, "\"}", 2);
    assert_null(json_check_item((struct slice){text, size}, &wrong_at));
    text[size - 3] = '\n';
    assert_non_null(json_check_item((struct slice){text, size}, &wrong_at));
    assert_int_equal(wrong_at, size - 3);
    free(text);
}

static void test_no_text_is_no_item(void **state)
{
    size_t wrong_at = 99;

    (void)state;
    assert_non_null(json_check_item((struct slice){0}, &wrong_at));
    assert_int_equal(wrong_at, 0);
}

static void test_what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"[]", "begin with {"},
        {"{", "too early"},
        {"{\"a\":\"\n\"}", "below 0x20"},
        {"{\"a\":\"\xff\"}", "UTF-8"},
        {"{\"a\":\"\\x\"}", "escape"},
        {"{\"a\":\"\\u12\"}", "four hexadecimal digits"},
        {"{\"a\":1.}", "digit"},
        {"{\"a\":nil}", "true, false and null"},
        {"{\"a\":x}", "value"},
        {"{a:1}", "key in double quotes"},
        {"{\"a\"}", "colon"},
        {"{\"a\":1]", "comma or }"},
        {"{\"a\":[1}", "comma or ]"},
        {"{} x", "ended"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        size_t wrong_at;
        const char *why = json_check_item(slice_of(cases[i].text), &wrong_at);

        if (!why || !strstr(why, cases[i].said))
            fail_msg("%s: %s", cases[i].text, why ? why : "nothing");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_item_is_judged_right_and_where),
        cmocka_unit_test(test_jansson_judges_alike),
        cmocka_unit_test(test_sqlite_judges_alike),
        cmocka_unit_test(test_no_beginning_of_an_item_is_one),
        cmocka_unit_test(test_an_item_is_at_most_512_levels_deep),
        cmocka_unit_test(test_too_deep_is_noticed_at_the_bracket),
        cmocka_unit_test(test_brackets_must_match_at_every_level),
        cmocka_unit_test(test_a_level_that_was_left_does_not_count),
        cmocka_unit_test(test_every_byte_is_judged_at_every_place_of_a_string),
        cmocka_unit_test(test_ten_mebibytes_of_text_are_an_item),
        cmocka_unit_test(test_no_text_is_no_item),
        cmocka_unit_test(test_what_is_wrong_is_said),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
