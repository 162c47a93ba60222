#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/utf8.h"

static void sets_and_returns_false(void **state)
{
    (void)state;
    struct err e = {0};
    assert_false(err_set(&e, ERR_FORMAT, "%s: line %d", "a.json", 7));
    assert_int_equal(e.code, ERR_FORMAT);
    assert_string_equal(e.msg, "a.json: line 7");
    assert_false(err_prefix(&e, "model %d", 3));
    assert_string_equal(e.msg, "model 3: a.json: line 7");
    assert_int_equal(e.code, ERR_FORMAT);
}

static void null_is_fine(void **state)
{
    (void)state;
    assert_false(err_set(NULL, ERR_IO, "%d", 1));
    assert_false(err_prefix(NULL, "%d", 1));
}

static void may_quote_itself(void **state)
{
    (void)state;
    struct err e;
    err_set(&e, ERR_IO, "inner");
    err_set(&e, ERR_INVALID, "outer (%s)", e.msg);
    assert_string_equal(e.msg, "outer (inner)");
    err_prefix(&e, "%s", e.msg);
    assert_string_equal(e.msg, "outer (inner): outer (inner)");
}

static void is_one_line(void **state)
{
    (void)state;
    struct err e;
    err_set(&e, ERR_IO, "a\nb\r\tc\x7f" "d\x1b[1m");
    assert_string_equal(e.msg, "a b  c d [1m");
    err_prefix(&e, "x\ny");
    assert_string_equal(e.msg, "x y: a b  c d [1m");
}

/* Long messages are cut at a character, whatever the alignment. */
static void cuts_between_characters(void **state)
{
    (void)state;
    char text[2048];
    for (int shift = 0; shift < 4; shift++) {
        memset(text, 'x', (size_t)shift);
        size_t n = (size_t)shift;
        while (n + 4 < sizeof text) {
            memcpy(text + n, "\xf0\x9f\x98\x80", 4);
            n += 4;
        }
        text[n] = '\0';
        struct err e;
        err_set(&e, ERR_IO, "%s", text);
        size_t len = strlen(e.msg);
        assert_true(len > sizeof e.msg - 5 && len < sizeof e.msg);
        assert_true(utf8_valid(e.msg, len));
        for (int i = 0; i < 5; i++) {
            err_prefix(&e, "ab");
            len = strlen(e.msg);
            assert_true(len > sizeof e.msg - 5 && len < sizeof e.msg);
            assert_true(utf8_valid(e.msg, len));
            assert_int_equal(strncmp(e.msg, "ab: ", 4), 0);
        }
        err_prefix(&e, "%s", text);
        assert_true(strlen(e.msg) < sizeof e.msg && utf8_valid(e.msg, strlen(e.msg)));
    }
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(err_code_name(ERR_OK), "ok");
    assert_string_equal(err_code_name(ERR_TOO_LARGE), "too_large");
    assert_string_equal(err_code_name(ERR_INTERNAL), "internal");
    assert_string_equal(err_code_name(ERR_N_CODES), "unknown");
    assert_string_equal(err_code_name((enum err_code)-1), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_returns_false), cmocka_unit_test(null_is_fine),
        cmocka_unit_test(may_quote_itself),       cmocka_unit_test(is_one_line),
        cmocka_unit_test(cuts_between_characters), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
