/* One tile call at a time from L2, least time of many: how near a kernel comes to the dot-product rate, whatever else runs.
 *   bench/lab/build.sh /tmp/lab && /tmp/lab/tile_lab [K [NAME-PART]] */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "kern/gemm.h"

enum { REPS = 800 };

static double peak(int kind)
{
    double best = 1e9;
    for (int rep = 0; rep < REPS; rep++) {
        __m512i v[14], x = _mm512_set1_epi8(1);
        __m512 f = _mm512_set1_ps(1e-9f);
        for (int i = 0; i < 14; i++) { v[i] = _mm512_setzero_si512(); __asm__ volatile("" : "+v"(v[i])); }
        int64_t t0 = clock_now_ns();
        __asm__ volatile("" ::: "memory");
        for (int l = 0; l < 2000; l++) {
#pragma GCC unroll 14
            for (int i = 0; i < 14; i++)
                v[i] = kind == 0 ? (__m512i)_mm512_fmadd_ps(f, f, (__m512)v[i]) : kind == 1 ? (__m512i)_mm512_dpbf16_ps((__m512)v[i], (__m512bh)x, (__m512bh)x)
                     : _mm512_dpbusd_epi32(v[i], x, x);
        }
        for (int i = 0; i < 14; i++) __asm__ volatile("" : "+v"(v[i]));
        for (int i = 1; i < 14; i++) v[0] = _mm512_xor_si512(v[0], v[i]);
        volatile int sink = _mm512_reduce_add_epi32(v[0]); (void)sink;
        double t = (double)(clock_now_ns() - t0);
        if (t < best) best = t;
    }
    return 2000.0 * 14 * (kind == 0 ? 32 : kind == 1 ? 64 : 128) / best;
}

int main(int argc, char **argv)
{
    int64_t k = argc > 1 ? atol(argv[1]) : 2048;
    float *x = mem_try_map(16 * k * 4);
    for (int i = 0; i < 16 * k; i++) x[i] = (float)(i % 37 - 18) / 16;
    float *c = mem_try_map(16 * 32 * 4);
    for (int i = 0; gemm_kern_at(i); i++) {
        const struct gemm_kern *kn = gemm_kern_at(i);
        if ((argc > 2 && !strstr(kn->name, argv[2])) || strstr(kn->name, "_ref")) continue;
        char *panel = mem_try_map(gemm_panel_bytes(kn->format, k)), *a = mem_try_map(16 * gemm_act_bytes(kn, k));
        gemm_pack(kn->format, panel, 0, 16, k, x, k, NULL);
        gemm_pack(kn->format, panel, 16, 16, k, x, k, NULL);
        double top = peak(kn->operand == GEMM_OPERAND_F32 ? 0 : kn->operand == GEMM_OPERAND_BF16 ? 1 : 2);
        printf("%-20s of %5.0f Gop/s:", kn->name, top);
        int tries[] = {1, 2, 4, kn->rows_max - 1, kn->rows_max};
        for (int j = 0; j < 5; j++) {
            int rows = tries[j];
            gemm_prepare(kn, x, k, rows, k, a);
            struct gemm_tile t = {.a = a, .b = panel, .c = c, .rows = rows, .first = true, .u0 = 0, .u1 = gemm_units(kn->format, k), .units = gemm_units(kn->format, k)};
            double best = 1e9, prep = 1e9;
            for (int rep = 0; rep < REPS; rep++) {
                int64_t t0 = clock_now_ns();
                kn->tile(&t);
                double d = (double)(clock_now_ns() - t0);
                if (d < best) best = d;
                if (rep % 8 == 0) {
                    t0 = clock_now_ns();
                    gemm_prepare(kn, x, k, rows, k, a);
                    d = (double)(clock_now_ns() - t0);
                    if (d < prep) prep = d;
                }
            }
            printf("  %d: %.0f%% (prepare %.2f ns/value)", rows, 100 * 2.0 * rows * 32 * k / best / top, prep / rows / k);
        }
        printf("\n");
    }
}
