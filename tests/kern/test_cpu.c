#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "kern/cpu.h"

static void names(void **state)
{
    (void)state;
    for (int i = 0; i < KERN_ISA_COUNT; i++) {
        enum kern_isa isa = KERN_ISA_COUNT;
        assert_true(kern_isa_parse(kern_isa_name((enum kern_isa)i), &isa));
        assert_int_equal(isa, i);
    }
    enum kern_isa isa;
    assert_false(kern_isa_parse("avx1024", &isa));
}

/* The compiler's own detection is the second opinion. */
static void best(void **state)
{
    (void)state;
    enum kern_isa isa = kern_isa_best();
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512dq");
    assert_true((isa >= KERN_ISA_AVX2) == avx2);
    assert_true((isa >= KERN_ISA_AVX512) == avx512);
#endif
    int n;
    const char *const *f = kern_cpu_features(&n);
    bool bf16 = false;
    for (int i = 0; i < n; i++)
        bf16 |= strcmp(f[i], "avx512bf16") == 0;
    assert_true(isa < KERN_ISA_AVX512_BF16 || bf16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(best)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
