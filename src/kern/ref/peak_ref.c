/* Ceilings in plain C: what the scalar kernels could reach at most with this compiler. */
#include "kern/peak.h"

enum { CHAINS = 32 };

uint64_t kern_peak_read_ref(const void *p, size_t bytes)
{
    const uint64_t *x = p;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *x; i += 8) {
        __builtin_prefetch(x + i + 256);
        for (size_t k = 0; k < 8; k++)
            sum[k] += x[i + k];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

float kern_peak_f32_ref(int64_t rounds)
{
    volatile float near_one = 0.999999f, small = 1e-6f;
    float acc[CHAINS], x = near_one, y = small, sum = 0;
    for (int i = 0; i < CHAINS; i++)
        acc[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            acc[i] = acc[i] * x + y;
    for (int i = 0; i < CHAINS; i++)
        sum += acc[i];
    return sum;
}

float kern_peak_int8_ref(int64_t rounds)
{
    volatile uint32_t factor = 3, term = 7;
    uint32_t acc[CHAINS], x = factor, y = term, sum = 0;
    for (uint32_t i = 0; i < CHAINS; i++)
        acc[i] = i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            acc[i] = acc[i] * x + y;
    for (int i = 0; i < CHAINS; i++)
        sum += acc[i];
    return (float)sum;
}
