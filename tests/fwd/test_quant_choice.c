/* --quantization: what its forms mean, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "fwd/fwd_int.h"

static void test_one_format(void **state)
{
    (void)state;
    struct fwd_quant q;
    struct err e;
    assert_true(fwd_quant_parse(NULL, &q, &e) && !q.set[FWD_KIND_ATTN]);
    assert_false(q.widen);
    assert_true(fwd_quant_parse("auto", &q, &e) && !q.set[FWD_KIND_HEAD] && !q.widen);
    assert_true(fwd_quant_parse("none", &q, &e) && !q.set[FWD_KIND_HEAD] && q.widen);
    assert_true(fwd_quant_parse("int8", &q, &e));
    for (int k = 0; k < FWD_KIND_COUNT; k++)
        assert_true(q.set[k] && q.format[k] == DEV_FMT_I8);
    assert_true(fwd_quant_parse("int4-g128", &q, &e));
    assert_int_equal(q.format[FWD_KIND_FFN], DEV_FMT_U4_G128);
    assert_int_equal(q.format[FWD_KIND_HEAD], DEV_FMT_I8_G32);
}

static void test_recipe(void **state)
{
    (void)state;
    struct fwd_quant q;
    struct err e;
    assert_true(fwd_quant_parse("ffn=int4,head=bf16", &q, &e));
    assert_false(q.set[FWD_KIND_ATTN]);
    assert_int_equal(q.format[FWD_KIND_FFN], DEV_FMT_I4);
    assert_int_equal(q.format[FWD_KIND_HEAD], DEV_FMT_BF16);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"int3", "int8,int4", "mlp=int8", "attn=", "=int8", "attn=int8,ffn", "int8,", "attn=int8;ffn=int8",
                                      "a format whose name is longer than any that could be meant"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fwd_quant q;
        struct err e;
        assert_false(fwd_quant_parse(bad[i], &q, &e));
        assert_int_equal(e.code, ERR_INVALID);
    }
}

/* The router is never rounded, nor is a table of embeddings that is not the head as well. */
static void test_slots(void **state)
{
    (void)state;
    static struct arch a;
    struct fwd_quant q;
    struct err e;
    enum dev_format f;
    assert_true(fwd_quant_parse("int8", &q, &e));
    assert_true(fwd_quant_format(&q, &a, ARCH_LIN_QKV, &f) && f == DEV_FMT_I8);
    assert_true(fwd_quant_format(&q, &a, ARCH_LIN_EXPERT_DOWN, &f));
    assert_false(fwd_quant_format(&q, &a, ARCH_LIN_ROUTER, &f));
    assert_false(fwd_quant_format(&q, &a, ARCH_LIN_POSITIONS, &f));
    assert_false(fwd_quant_format(&q, &a, ARCH_LIN_EMBED, &f));
    a.tied_head = true;
    assert_true(fwd_quant_format(&q, &a, ARCH_LIN_EMBED, &f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_format), cmocka_unit_test(test_recipe), cmocka_unit_test(test_refused), cmocka_unit_test(test_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
