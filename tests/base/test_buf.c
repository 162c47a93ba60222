#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/rng.h"

static void appends(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    assert_null(b.data);
    assert_true(buf_append(&b, NULL, 0));
    assert_string_equal(b.data, "");
    assert_true(buf_puts(&b, "ab") && buf_putc(&b, 'c') && buf_printf(&b, "-%d-%s", 42, "x"));
    assert_string_equal(b.data, "abc-42-x");
    assert_int_equal(b.len, 8);
    buf_consume(&b, 3);
    assert_string_equal(b.data, "-42-x");
    buf_consume(&b, 5);
    assert_string_equal(b.data, "");
    buf_puts(&b, "y");
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_free(&b);
    assert_null(b.data);
    buf_free(&b);
}

static void limit_keeps_content(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_true(buf_puts(&b, "0123456"));
    assert_false(buf_printf(&b, "%s", "abcd"));
    assert_true(b.failed);
    assert_string_equal(b.data, "0123456");
    assert_int_equal(b.len, 7);
    assert_false(buf_putc(&b, 'x')); /* would fit, but a hole in the text would be worse */
    assert_string_equal(b.data, "0123456");
    buf_clear(&b);
    assert_true(buf_puts(&b, "0123456789"));
    assert_int_equal(b.cap, 11);
    assert_false(buf_putc(&b, 'x'));
    assert_null(buf_take(&b));
    assert_false(b.failed);
    assert_int_equal(b.limit, 10);
    assert_null(b.data);
}

static void huge_requests_fail(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "x");
    assert_false(buf_reserve(&b, SIZE_MAX));
    assert_true(b.failed);
    buf_clear(&b);
    assert_false(buf_reserve(&b, SIZE_MAX - 1));
    buf_clear(&b);
    assert_false(buf_reserve(&b, SIZE_MAX / 2 + 5));
    assert_string_equal(b.data, "");
    buf_free(&b);
}

static void take(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    char *empty = buf_take(&b);
    assert_string_equal(empty, "");
    mem_free(empty);
    buf_puts(&b, "given");
    char *text = buf_take(&b);
    assert_string_equal(text, "given");
    assert_null(b.data);
    assert_int_equal(b.len + b.cap, 0);
    mem_free(text);
}

static void out_of_memory(void **state)
{
    (void)state;
    char want[400];
    memset(want, 'q', sizeof want - 1);
    want[sizeof want - 1] = '\0';
    for (long n = 1;; n++) {
        struct buf b;
        buf_init(&b, 0);
        mem_fault_after(n);
        bool ok = true;
        size_t good = 0;
        for (int i = 0; i < 40; i++) {
            ok = (i & 1 ? buf_printf(&b, "%s", "q") : buf_append(&b, want, 10)) && ok;
            if (ok)
                good = b.len;
        }
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        assert_int_equal(b.failed, fired);
        assert_int_equal(b.len, good);
        if (b.data)
            assert_memory_equal(b.data, want, good);
        if (b.data)
            assert_int_equal(b.data[good], 0);
        buf_free(&b);
        if (!fired) {
            assert_true(n > 2);
            break;
        }
    }
}

/* Random operations against a plain array. */
static void random_against_model(void **state)
{
    (void)state;
    static char model[1 << 16];
    struct rng r = {11};
    struct buf b;
    buf_init(&b, 0);
    size_t len = 0;
    for (int i = 0; i < 20000; i++) {
        char piece[256];
        size_t n = rng_next_below(&r, sizeof piece);
        for (size_t k = 0; k < n; k++)
            piece[k] = (char)('a' + rng_next_below(&r, 26));
        switch (rng_next_below(&r, 4)) {
        case 0:
            if (len + n < sizeof model) {
                assert_true(buf_append(&b, piece, n));
                memcpy(model + len, piece, n);
                len += n;
            }
            break;
        case 1:
            if (len + n < sizeof model) {
                assert_true(buf_printf(&b, "%.*s", (int)n, piece));
                memcpy(model + len, piece, n);
                len += n;
            }
            break;
        case 2:
            n = rng_next_below(&r, len + 1);
            buf_consume(&b, n);
            memmove(model, model + n, len - n);
            len -= n;
            break;
        default:
            assert_true(buf_reserve(&b, n));
            assert_true(b.cap - b.len > n);
        }
        assert_int_equal(b.len, len);
        if (len)
            assert_memory_equal(b.data, model, len);
        assert_true(!b.data || b.data[len] == 0);
    }
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends), cmocka_unit_test(limit_keeps_content), cmocka_unit_test(huge_requests_fail),
        cmocka_unit_test(take),    cmocka_unit_test(out_of_memory),       cmocka_unit_test(random_against_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
