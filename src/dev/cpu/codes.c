/* dev/cpu/codes.c - packing matrices that are quantized already: their integers as they are. */
#include <math.h>
#include <string.h>
#include "dev/cpu/weight_int.h"

/* ---- which format ---- */

/* Codes of up to four bits with a zero anywhere: the widest groups that cut those of the matrix, or a whole row, evenly. */
static bool four_bits(const struct tensor_quant *q, int64_t n_cols, enum dev_format *out)
{
    static const struct { int64_t group; enum dev_format format; } widths[] = {
        { 128, DEV_FMT_U4_G128 }, { 64, DEV_FMT_U4_G64 }, { 32, DEV_FMT_U4_G32 },
    };
    bool row = q->group >= n_cols;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        if ((row ? n_cols : q->group) % widths[i].group == 0 || (row && widths[i].group == 32))
            return *out = widths[i].format, true;
    return false;
}

/* Signed integers when the zero is in the middle, else unsigned ones and a minimum. */
static bool eight_bits(const struct tensor_quant *q, int64_t n_cols, enum dev_format *out)
{
    bool row = q->group >= n_cols;
    if (!q->fixed_zero || q->has_minimum) {
        *out = row || q->group % 32 == 0 ? DEV_FMT_U8_G32 : DEV_FMT_U8_G16;
        return row || q->group % 16 == 0;
    }
    if (row && q->int8_inputs)
        return *out = DEV_FMT_I8, true;
    if (row || q->group % 32 == 0)
        return *out = DEV_FMT_I8_G32, true;
    return q->group % 16 == 0 && (*out = DEV_FMT_I8_G16, true);
}

bool dev_format_of_codes(const struct tensor_quant *q, int64_t n_cols, enum dev_format *out)
{
    if (q->bits < 1 || q->bits > 8)
        return false;
    if (q->e4m3)
        return *out = q->group >= n_cols ? DEV_FMT_F8 : DEV_FMT_F8_G128, q->group >= n_cols || q->group % 128 == 0;
    return (q->bits <= 4 && four_bits(q, n_cols, out)) || eight_bits(q, n_cols, out);
}

/* ---- packing ---- */

size_t dev_cpu_codes_bytes(const struct tensor_quant *q, int64_t n_cols, int n)
{
    size_t groups = (size_t)tensor_quant_groups(q, n_cols);
    return (size_t)n * (3 * groups * sizeof(float) + (size_t)n_cols) + (size_t)n_cols;
}

bool dev_cpu_codes_order(const struct tensor_quant *q, int64_t n_cols, int32_t *order)
{
    int64_t groups = tensor_quant_groups(q, n_cols), done = 0;
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t k = 0; k < n_cols; k++) {
            int32_t own;
            memcpy(&own, (const char *)q->column_groups + 4 * k, 4);
            if (own == g)
                order[done++] = (int32_t)k;
        }
        if (done != ((g + 1) * q->group < n_cols ? (g + 1) * q->group : n_cols))
            return false;
    }
    return true;
}

static void put_in_order(const int32_t *order, int64_t k, uint8_t *codes, uint8_t *temp)
{
    memcpy(temp, codes, (size_t)k);
    for (int64_t i = 0; i < k; i++)
        codes[i] = temp[order[i]];
}

/* Zeros become part of the minimum, or of the codes (signed ones are stored 128 higher). */
static bool kernel_terms(const struct dev_weight *w, const struct tensor_quant *q, int n, int64_t groups, uint8_t *codes, float *scales,
                         const float *zeros, float *minima)
{
    bool fits = true;
    if (w->format == GEMM_F8 || w->format == GEMM_F8_G128) {
        /* A group with a NaN is NaN: kernels do not know that code. */
        for (int64_t i = 0; i < n * w->k; i++)
            if ((codes[i] & 0x7f) == 0x7f)
                scales[i / w->k * groups + i % w->k / q->group] = NAN;
        return true;
    }
    if (w->format == GEMM_I8 || w->format == GEMM_I8_G16 || w->format == GEMM_I8_G32) {
        uint8_t up = (uint8_t)(128 - (1 << (q->bits - 1)));
        for (int64_t i = 0; up && i < n * w->k; i++)
            codes[i] = (uint8_t)(codes[i] + up);
        for (int64_t i = 0; w->format != GEMM_I8 && i < n * groups; i++)
            fits &= !(fabsf(scales[i]) >= 65520.0f);
        return fits;
    }
    for (int64_t i = 0; i < n * groups; i++) {
        minima[i] -= scales[i] * zeros[i];
        fits &= !(fabsf(scales[i]) >= 65520.0f) && !(fabsf(minima[i]) >= 65520.0f);
    }
    return fits;
}

bool dev_cpu_pack_codes(const struct dev_weight *w, const struct tensor_rows *r, int64_t row0, int n, void *panel, int col0, void *work)
{
    const struct tensor_quant *q = r->quant;
    int64_t groups = tensor_quant_groups(q, w->k);
    float *scales = work, *zeros = scales + n * groups, *minima = zeros + n * groups;
    uint8_t *codes = (uint8_t *)(minima + n * groups);
    q->read(r, row0, n, codes, scales, zeros, minima);
    for (int j = 0; w->order && j < n; j++)
        put_in_order(w->order, w->k, codes + j * w->k, codes + n * w->k);
    bool fits = kernel_terms(w, q, n, groups, codes, scales, zeros, minima);
    bool has_minima = w->format >= GEMM_U4_G32 && w->format <= GEMM_U8_G32;
    struct gemm_codes c = { .codes = codes, .ld = w->k, .group = q->group, .ld_scales = groups, .scales = scales, .minima = has_minima ? minima : NULL };
    gemm_pack_codes(w->format, panel, col0, n, w->k, &c);
    return fits;
}
