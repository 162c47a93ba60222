/* Errors of an exponential over the floats of a range, in units in the last place of the exact result and relative. */
#ifndef QUIRE_TESTS_EXP_CHECK_H
#define QUIRE_TESTS_EXP_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { EXP_CHUNK = 4096 };

struct exp_error { double ulp, relative; };

/* Every stride-th float from -0 down to `least`, given to fn a chunk at a time: fn(out, x, n), which must be f. */
static inline struct exp_error exp_check(void (*fn)(float *out, const float *x, int n), double (*f)(double), float least, uint32_t stride)
{
    static float x[EXP_CHUNK], y[EXP_CHUNK];
    struct exp_error worst = { 0, 0 };
    uint32_t end;
    memcpy(&end, &least, 4);
    for (uint64_t u = 0x80000000u; u <= end;) {
        int n = 0;
        for (; n < EXP_CHUNK && u <= end; u += stride, n++) {
            uint32_t bits = (uint32_t)u;
            memcpy(&x[n], &bits, 4);
        }
        fn(y, x, n);
        for (int i = 0; i < n; i++) {
            double want = f((double)x[i]), off = fabs((double)y[i] - want);
            double unit = ldexp(1, ilogb(want) - 23);
            worst.ulp = fmax(worst.ulp, off / unit);
            worst.relative = fmax(worst.relative, off / want);
        }
    }
    return worst;
}

#endif
