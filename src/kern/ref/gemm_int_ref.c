/* kern/ref/gemm_int_ref.c - scalar kernels of the quantized formats. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "kern/gemm_int.h"

#include "kern/gemm_prepare_body.inc"

void gemm_prepare_int_ref(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    prepare_int(kern, x, ldx, rows, k, a);
}

/* One unit's 4 x GEMM_COLS integers, by column. */
static void unit_weights(bool four, const uint8_t *b, uint8_t w[GEMM_COLS][4])
{
    if (!four) {
        memcpy(w, b, 4 * GEMM_COLS);
        return;
    }
    for (int i = 0; i < 64; i++) {
        w[i / 4][i % 4] = b[i] & 15;
        w[16 + i / 4][i % 4] = b[i] >> 4;
    }
}

/* acc[rows][GEMM_COLS] += units of weights times activations; wraps as the vector instruction does. */
static void dot_units(bool four, const uint8_t *b, const int8_t *a, int64_t units, int rows, uint32_t *acc)
{
    for (int64_t u = 0; u < units; u++, b += four ? 64 : 128, a += 4 * rows) {
        uint8_t w[GEMM_COLS][4];
        unit_weights(four, b, w);
        for (int r = 0; r < rows; r++) {
            const int8_t *x = a + 4 * r;
            for (int j = 0; j < GEMM_COLS; j++)
                acc[r * GEMM_COLS + j] += (uint32_t)(w[j][0] * x[0] + w[j][1] * x[1] + w[j][2] * x[2] + w[j][3] * x[3]);
        }
    }
}

void gemm_tile_i8_ref(const struct gemm_tile *t)
{
    const int8_t *a = t->a;
    const float *tail = (const float *)t->a + t->units * t->rows;
    const uint8_t *b = t->b;
    uint32_t acc[16 * GEMM_COLS];
    size_t bytes = (size_t)t->rows * GEMM_COLS * 4;
    memcpy(acc, t->c, bytes);
    for (int i = 0; t->first && i < t->rows * GEMM_COLS; i++)
        memcpy(&acc[i], tail + t->rows + i / GEMM_COLS, 4);
    dot_units(false, b + t->u0 * 128, a + 4 * t->u0 * t->rows, t->u1 - t->u0, t->rows, acc);
    if (t->u1 < t->units) {
        memcpy(t->c, acc, bytes);
        return;
    }
    float scale[GEMM_COLS];
    memcpy(scale, b + t->units * 128, sizeof scale);
    for (int i = 0; i < t->rows * GEMM_COLS; i++)
        t->c[i] = (float)(int32_t)acc[i] * tail[i / GEMM_COLS] * scale[i % GEMM_COLS];
}

static void group_tile(bool four, bool minima, int units, const struct gemm_tile *t)
{
    int head = minima ? 128 : 64, bytes = head + units * (four ? 64 : 128);
    for (int i = 0; t->first && i < t->rows * GEMM_COLS; i++)
        t->c[i] = 0;
    for (int64_t g = t->u0 / units; g < t->u1 / units; g++) {
        const uint8_t *b = (const uint8_t *)t->b + g * bytes;
        const float *aux = (const float *)t->a + (t->units + 2 * g) * t->rows;
        uint16_t h[2 * GEMM_COLS];
        uint32_t acc[16 * GEMM_COLS] = {0};
        memcpy(h, b, (size_t)head);
        for (int i = 0; !minima && i < t->rows * GEMM_COLS; i++)
            memcpy(&acc[i], aux + t->rows + i / GEMM_COLS, 4);
        dot_units(four, b + head, (const int8_t *)t->a + 4 * g * units * t->rows, units, t->rows, acc);
        for (int i = 0; i < t->rows * GEMM_COLS; i++) {
            int r = i / GEMM_COLS, j = i % GEMM_COLS;
            t->c[i] += (float)(int32_t)acc[i] * tensor_f16_to_f32(h[j]) * aux[r];
            if (minima)
                t->c[i] += tensor_f16_to_f32(h[GEMM_COLS + j]) * aux[t->rows + r];
        }
    }
}

void gemm_tile_i8_g16_ref(const struct gemm_tile *t)
{
    group_tile(false, false, 4, t);
}

void gemm_tile_i8_g32_ref(const struct gemm_tile *t)
{
    group_tile(false, false, 8, t);
}

void gemm_tile_u8_g16_ref(const struct gemm_tile *t)
{
    group_tile(false, true, 4, t);
}

void gemm_tile_u8_g32_ref(const struct gemm_tile *t)
{
    group_tile(false, true, 8, t);
}

void gemm_tile_u4_g32_ref(const struct gemm_tile *t)
{
    group_tile(true, true, 8, t);
}

void gemm_tile_u4_g64_ref(const struct gemm_tile *t)
{
    group_tile(true, true, 16, t);
}

void gemm_tile_u4_g128_ref(const struct gemm_tile *t)
{
    group_tile(true, true, 32, t);
}

#include "kern/gemm_f8_groups_body.inc"

void gemm_tile_f8_g128_ref(const struct gemm_tile *t)
{
    f8_groups(t, gemm_tile_f8_ref, 8);
}

void gemm_tile_f8_ref(const struct gemm_tile *t)
{
    for (int i = 0; t->first && i < t->rows * GEMM_COLS; i++)
        t->c[i] = 0;
    for (int64_t u = t->u0; u < t->u1; u++) {
        float w[2 * GEMM_COLS];
        tensor_to_f32(DT_F8_E4M3, (const uint8_t *)t->b + u * 64, 2 * GEMM_COLS, w);
        for (int i = 0; i < 2; i++) {
            for (int r = 0; r < t->rows; r++) {
                float x = ((const float *)t->a)[(2 * u + i) * t->rows + r];
                for (int j = 0; j < GEMM_COLS; j++)
                    t->c[r * GEMM_COLS + j] += x * w[gemm_f8_at(j, i)];
            }
        }
    }
    if (t->u1 < t->units)
        return;
    float scale[GEMM_COLS];
    memcpy(scale, (const uint8_t *)t->b + t->units * 64, sizeof scale);
    for (int i = 0; i < t->rows * GEMM_COLS; i++)
        t->c[i] *= scale[i % GEMM_COLS];
}
