/* The kernel bench: every kind of kernel runs on every instruction set, its rows are consistent, its filters filter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "bench/kernels.h"
#include "bench/probe.h"
#include "kern/cpu.h"
#include "kern/peak.h"

static const struct bench_shape tiny = {"tiny", 64, 4, 2, 32, 96, 320, 6, 2, 32};

static struct dev *open_dev(const char *isa)
{
    struct err e;
    struct dev *d = NULL;
    if (!dev_open(&d, &(struct dev_opts){.n_threads = 2, .isa = isa}, &e))
        fail_msg("%s", e.msg);
    return d;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    assert_true(json_is_number(v));
    assert_true(isfinite(json_number_value(v)));
    return json_number_value(v);
}

/* ---- ceilings ---- */

static void test_probe(void **state)
{
    (void)state;
    struct err e;
    for (int isa = 0; isa <= (int)kern_isa_best(); isa++) {
        struct dev *d = open_dev(kern_isa_name((enum kern_isa)isa));
        struct probe *p;
        assert_true(probe_open(&p, d, &e));
        assert_int_equal(probe_has_bf16(p), isa >= KERN_ISA_AVX512_BF16);
        for (int k = 0; k < PROBE_COUNT; k++) {
            assert_true(probe_rate(p, (enum probe_kind)k) <= 0);
            double first = probe_slice(p, (enum probe_kind)k);
            assert_true(first > 0.05 && first < 1e6);
            assert_true(fabs(probe_rate(p, (enum probe_kind)k) - first) < 1e-9 * first);
        }
        probe_run(p, 1);
        for (int k = 0; k < PROBE_COUNT; k++)
            assert_true(probe_rate(p, (enum probe_kind)k) > 0);
        probe_close(&p);
        assert_null(p);
        dev_close(&d);
    }
}

/* The loops do what they are counted for: their sums say how often they ran. */
static void test_peak_loops(void **state)
{
    (void)state;
    _Alignas(64) static uint64_t data[4 * KERN_PEAK_READ_STEP / 8 + 4096];
    for (size_t i = 0; i < sizeof data / 8; i++)
        data[i] = i + 1;
    size_t words = 4 * KERN_PEAK_READ_STEP / 8;
    for (int isa = 0; isa <= (int)kern_isa_best(); isa++) {
        struct kern_peak p = kern_peak_get((enum kern_isa)isa);
        assert_int_equal(p.read(data, words * 8), words * (words + 1) / 2);
        assert_true(p.f32.ops > 0 && p.int8.ops > 0 && isfinite(p.f32.run(100)));
        if (isa >= KERN_ISA_AVX2)   /* sums of ones */
            assert_true(p.int8.run(200) >= 1.5f * p.int8.run(100) && p.int8.run(100) > 0);
        if (p.bf16.run)
            assert_true(p.bf16.run(200) > 1.5f * p.bf16.run(100) && p.bf16.run(100) > 0);
    }
}

/* ---- kernels ---- */

static void check_row(const json_t *row, const char *isa)
{
    (void)isa;
    double ns = number(row, "ns"), gb = number(row, "gb_s"), gop = number(row, "gop_s"), percent = number(row, "percent_of_limit");
    double memory = gb / number(row, "limit_gb_s"), compute = gop / number(row, "limit_gop_s");
    const char *limit = json_string_value(json_object_get(row, "limit"));
    assert_non_null(json_string_value(json_object_get(row, "name")));
    assert_non_null(json_string_value(json_object_get(row, "shape")));
    assert_true(ns > 0 && gb > 0 && gop > 0);
    assert_string_equal(limit, memory >= compute ? "memory" : "compute");
    assert_true(fabs(percent - 100 * (memory > compute ? memory : compute)) < 1e-6 * percent);
}

static size_t count_named(const json_t *result, const char *part)
{
    size_t i, n = 0;
    json_t *row;
    json_array_foreach(json_object_get(result, "kernels"), i, row)
        n += strstr(json_string_value(json_object_get(row, "name")), part) != NULL;
    return n;
}

static bool count_row(void *ctx, const struct bench_kernel_row *r)
{
    assert_true(r->ns > 0 && r->percent_of_limit > 0);
    ++*(size_t *)ctx;
    return true;
}

static void test_every_kind(void **state)
{
    (void)state;
    static const int32_t rows[] = {1, 5}, contexts[] = {64};
    struct err e;
    for (int isa = 0; isa <= (int)kern_isa_best(); isa++) {
        struct dev *d = open_dev(kern_isa_name((enum kern_isa)isa));
        struct bench_kernels_opts o = {.shape = tiny, .rows = rows, .n_rows = 2, .contexts = contexts, .n_contexts = 1, .quick = true, .budget_ms = 1, .cold_bytes = 1 << 20};
        json_t *result = NULL, *row;
        size_t i, called = 0;
        if (!bench_kernels(d, &o, count_row, &called, &result, &e))
            fail_msg("%s", e.msg);
        const json_t *list = json_object_get(result, "kernels"), *machine = json_object_get(result, "machine");
        json_array_foreach(list, i, row)
            check_row(row, kern_isa_name((enum kern_isa)isa));
        assert_int_equal(called, json_array_size(list));
        assert_true(number(machine, "read_gb_s") > 0 && number(machine, "bf16_gflop_s") > 0 && number(machine, "int8_gop_s") > 0);
        assert_string_equal(json_string_value(json_object_get(machine, "isa")), kern_isa_name((enum kern_isa)isa));
        assert_int_equal(count_named(result, "linear_"), 5 * 2 * 4);   /* matrices, rows, quick formats */
        assert_int_equal(count_named(result, "attention_decode_"), 3 * 2);
        assert_int_equal(count_named(result, "attention_prefill_"), 3);
        assert_int_equal(count_named(result, "moe_"), 2 * 4);
        assert_int_equal(count_named(result, "embed_"), 4);
        assert_int_equal(count_named(result, "sample_"), 9);
        assert_int_equal(count_named(result, "norm_") + count_named(result, "logits_"), 5);
        json_decref(result);
        dev_close(&d);
    }
}

static void test_all_formats(void **state)
{
    (void)state;
    static const char *const kernels[] = {"linear_o"};
    static const int32_t rows[] = {1};
    struct err e;
    struct dev *d = open_dev(NULL);
    struct bench_kernels_opts o = {.shape = tiny, .kernels = kernels, .n_kernels = 1, .rows = rows, .n_rows = 1, .budget_ms = 1, .cold_bytes = 1 << 20};
    json_t *result = NULL;
    assert_true(bench_kernels(d, &o, NULL, NULL, &result, &e));
    assert_int_equal(json_array_size(json_object_get(result, "kernels")), DEV_FMT_COUNT);
    assert_int_equal(count_named(result, "linear_o_"), DEV_FMT_COUNT);
    json_decref(result);
    dev_close(&d);
}

static bool stop_row(void *ctx, const struct bench_kernel_row *r)
{
    (void)r;
    return ++*(int *)ctx < 2;
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const kernels[] = {"linear_qkv", "nothing"}, *const none[] = {"nothing"}, *const formats[] = {"int3"};
    static const int32_t rows[] = {1, 2, 3};
    struct err e;
    struct dev *d = open_dev(NULL);
    json_t *result = NULL;
    int calls = 0;
    struct bench_kernels_opts o = {.shape = tiny, .kernels = none, .n_kernels = 1, .rows = rows, .n_rows = 3, .budget_ms = 1, .cold_bytes = 1 << 20};
    assert_false(bench_kernels(d, &o, NULL, NULL, &result, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(result);
    o.kernels = kernels;
    o.formats = formats;
    o.n_formats = 1;
    assert_false(bench_kernels(d, &o, NULL, NULL, &result, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_non_null(strstr(e.msg, "int3"));
    o.n_formats = 0;
    assert_false(bench_kernels(d, &o, stop_row, &calls, &result, &e));
    assert_int_equal(calls, 2);
    assert_null(bench_shape_find("no-such-model"));
    assert_int_equal(bench_shape_find("llama-3.2-1b")->hidden, 2048);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_peak_loops),
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_all_formats),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
