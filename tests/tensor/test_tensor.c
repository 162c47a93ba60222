/* Conversions are checked against every 16-bit pattern and against arithmetic done another way. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tensor/tensor.h"

static void names(void **state)
{
    (void)state;
    for (int i = 0; i < DT_COUNT; i++) {
        enum dtype t = DT_COUNT;
        assert_true(dtype_parse(dtype_name((enum dtype)i), &t));
        assert_int_equal(t, i);
        assert_true(dtype_bytes(t) >= 1 && dtype_bytes(t) <= 8);
    }
    enum dtype t;
    assert_false(dtype_parse("F12", &t));
    assert_false(dtype_parse("", &t));
    assert_int_equal(dtype_bytes(DT_BF16), 2);
    assert_true(dtype_is_float(DT_F8_E4M3));
    assert_false(dtype_is_float(DT_U8));
}

static void count(void **state)
{
    (void)state;
    size_t n = 0;
    struct tensor t = {.n_dims = 3, .dims = {2, 3, 5}};
    assert_true(tensor_count(&t, &n));
    assert_int_equal(n, 30);
    t.n_dims = 0;
    assert_true(tensor_count(&t, &n));
    assert_int_equal(n, 1);
    t = (struct tensor){.n_dims = 3, .dims = {INT64_MAX, INT64_MAX, 0}};
    assert_true(tensor_count(&t, &n));
    assert_int_equal(n, 0);
    t.n_dims = 2;
    assert_false(tensor_count(&t, &n));
    t = (struct tensor){.n_dims = 2, .dims = {3, -1}};
    assert_false(tensor_count(&t, &n));
}

static double f16_value(uint16_t h)
{
    int exp = h >> 10 & 31;
    double m = h & 1023, s = h >> 15 ? -1 : 1;
    if (exp == 31)
        return m != 0 ? NAN : s * INFINITY;
    return s * (exp ? ldexp(1024 + m, exp - 25) : ldexp(m, -24));
}

static void f16_all(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double want = f16_value((uint16_t)h);
        float got = tensor_f16_to_f32((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(got));
            assert_true(isnan(tensor_f16_to_f32(tensor_f32_to_f16(got))));
            continue;
        }
        assert_true(got == want && (signbit(got) != 0) == (h >> 15 != 0));
        assert_int_equal(tensor_f32_to_f16(got), h);
    }
}

/* The nearest f16 to a value between two neighbours, by distance, ties to the even pattern. */
static void f16_rounding(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double a = f16_value((uint16_t)h), b = f16_value((uint16_t)(h + 1)), mid = (a + b) / 2;
        float below = nextafterf((float)mid, 0), above = nextafterf((float)mid, INFINITY);
        assert_int_equal(tensor_f32_to_f16(below), h);
        assert_int_equal(tensor_f32_to_f16(above), h + 1);
        assert_int_equal(tensor_f32_to_f16((float)mid), h & 1 ? h + 1 : h);
        assert_int_equal(tensor_f32_to_f16(-above), (h + 1) | 0x8000);
    }
    assert_int_equal(tensor_f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(tensor_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(tensor_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(tensor_f32_to_f16(1e-30f), 0);
}

static void bf16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = tensor_bf16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(tensor_bf16_to_f32(tensor_f32_to_bf16(f))));
        else
            assert_int_equal(tensor_f32_to_bf16(f), h);
    }
    assert_int_equal(tensor_f32_to_bf16(1.00390625f), 0x3f80);   /* half way, to even */
    assert_int_equal(tensor_f32_to_bf16(1.01171875f), 0x3f82);
    assert_int_equal(tensor_f32_to_bf16(3.4e38f), 0x7f80);
}

static void f8(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++) {
        uint8_t v = (uint8_t)b;
        float got;
        int exp = b >> 3 & 15, man = b & 7;
        double s = b >> 7 ? -1 : 1;
        tensor_to_f32(DT_F8_E4M3, &v, 1, &got);
        if ((b & 127) == 127)
            assert_true(isnan(got));
        else
            assert_true(got == s * (exp ? ldexp(8 + man, exp - 10) : ldexp(man, -9)));
        exp = b >> 2 & 31;
        man = b & 3;
        tensor_to_f32(DT_F8_E5M2, &v, 1, &got);
        if (exp == 31)
            assert_true(man ? isnan(got) : got == s * INFINITY);
        else
            assert_true(got == s * (exp ? ldexp(4 + man, exp - 17) : ldexp(man, -16)));
    }
}

static void rows(void **state)
{
    (void)state;
    uint16_t data[4 * 3];
    for (int i = 0; i < 12; i++)
        data[i] = tensor_f32_to_bf16((float)i);
    struct tensor t = {.name = "w", .dtype = DT_BF16, .n_dims = 2, .dims = {4, 3}, .data = data, .bytes = sizeof data};
    struct tensor_rows r;
    tensor_rows_of(&r, &t, 1, 3);
    assert_int_equal(r.n_rows, 3);
    assert_int_equal(r.n_cols, 3);
    assert_int_equal(r.dtype, DT_BF16);
    assert_ptr_equal(r.raw, data + 3);
    assert_int_equal(r.raw_stride_bytes, 6);
    float out[6];
    r.read(&r, 1, 2, out);
    for (int i = 0; i < 6; i++)
        assert_true(out[i] == (float)(6 + i));

    /* Unaligned bytes, and a type that has no raw form. */
    unsigned char bytes[1 + 8 * 3];
    double d[3] = {1, -2.5, 1e300};
    memcpy(bytes + 1, d, sizeof d);
    struct tensor u = {.name = "u", .dtype = DT_F64, .n_dims = 1, .dims = {3}, .data = bytes + 1, .bytes = sizeof d};
    tensor_rows_of(&r, &u, 0, 1);
    assert_null(r.raw);
    assert_int_equal(r.dtype, DT_F32);
    r.read(&r, 0, 1, out);
    assert_true(out[0] == 1 && out[1] == -2.5f && isinf(out[2]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names), cmocka_unit_test(count), cmocka_unit_test(f16_all), cmocka_unit_test(f16_rounding),
        cmocka_unit_test(bf16),  cmocka_unit_test(f8),    cmocka_unit_test(rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
