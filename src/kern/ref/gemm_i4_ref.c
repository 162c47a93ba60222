/* kern/ref/gemm_i4_ref.c - scalar kernel of 4-bit weights with 8-bit scales. */
#include <string.h>
#include "kern/gemm_int.h"

enum { GROUP = 8 };   /* units */

/* sum += scale * products + offset * 8 * activations, of one group and column. */
static int32_t group_sum(const uint8_t *b, int col, const int8_t *a, int rows, int scale, int offset)
{
    int32_t dot = 0, sum = 0;
    for (int u = 0; u < GROUP; u++, b += 64, a += 4 * rows) {
        for (int i = 0; i < 4; i++) {
            int q = b[col % 16 * 4 + i] >> (col < 16 ? 0 : 4) & 15;
            dot += (q - 8) * a[i];
            sum += a[i];
        }
    }
    return scale * dot + offset * 8 * sum;
}

void gemm_tile_i4_ref(const struct gemm_tile *t)
{
    for (int i = 0; t->first && i < t->rows * GEMM_COLS; i++)
        t->c[i] = 0;
    for (int64_t g = t->u0 / GEMM_I4_UNITS; g < t->u1 / GEMM_I4_UNITS; g++) {
        const uint8_t *b = (const uint8_t *)t->b + g * GEMM_I4_BYTES;
        const float *scale = (const float *)t->a + (t->units + GEMM_I4_AUX * g) * t->rows;
        for (int i = 0; i < t->rows * GEMM_COLS; i++) {
            int r = i / GEMM_COLS, col = i % GEMM_COLS;
            int32_t sum = 0;
            for (int j = 0; j < GEMM_I4_GROUPS; j++) {
                const int8_t *a = (const int8_t *)t->a + (g * GEMM_I4_UNITS + GROUP * j) * 4 * t->rows + 4 * r;
                sum += group_sum(b + GEMM_I4_HEAD + GROUP * j * 64, col, a, t->rows, b[gemm_i4_scale_at(col, j)],
                                 (int8_t)b[gemm_i4_offset_at(col, j)]);
            }
            t->c[i] += (float)sum * scale[r];
        }
    }
    if (t->u1 < t->units)
        return;
    float scale[GEMM_COLS];
    memcpy(scale, (const uint8_t *)t->b + t->units / GEMM_I4_UNITS * GEMM_I4_BYTES, sizeof scale);
    for (int i = 0; i < t->rows * GEMM_COLS; i++)
        t->c[i] *= scale[i % GEMM_COLS];
}
