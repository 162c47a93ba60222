/* The bounds that kern/avx2/vec_avx2.h states for attention's powers of two, over floats of the whole range. */
#include "exp_check.h"
#include "kern/cpu.h"

/* Only these functions are of the instruction set: main asks first whether the CPU has it. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "kern/avx2/vec_avx2.h"

static void exp2_all(float *out, const float *x, int n)
{
    for (int i = 0; i < n; i += VEC_N)
        vec_store_n(out + i, vec_exp2(vec_load_n(x + i, n - i)), n - i);
}
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

enum { STRIDE = 11 };

static void test_exp2(void **state)
{
    (void)state;
    if (kern_isa_best() < KERN_ISA_AVX2)
        skip();
    struct exp_error e = exp_check(exp2_all, exp2, -126.0f, STRIDE);
    assert_true(e.relative < 1.8e-7 && e.ulp < 2.8);
    float far[] = { -127.5f, -128.0f, -1000.0f, -3e38f, -INFINITY, 0.0f, -0.0f, -1.0f }, out[8];
    exp2_all(out, far, 8);
    for (int i = 0; i < 5; i++)
        assert_true(out[i] == 0);
    assert_true(out[5] == 1 && out[6] == 1 && out[7] == 0.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_exp2) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
