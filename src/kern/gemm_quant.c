/* kern/gemm_quant.c - columns of quantized panels, from and to f32. */
#include <assert.h>
#include <math.h>
#include <string.h>
#include "kern/gemm_int.h"

/* Where unit u of a panel begins, scales before it skipped. */
static uint8_t *unit_at(enum gemm_format f, void *panel, int64_t u)
{
    const struct gemm_layout *lay = gemm_layout_of(f);
    int64_t groups = lay->group_units ? u / lay->group_units + 1 : 0;
    return (uint8_t *)panel + groups * lay->head_bytes + u * lay->unit_bytes;
}

static uint8_t *group_head(enum gemm_format f, void *panel, int64_t g)
{
    const struct gemm_layout *lay = gemm_layout_of(f);
    return (uint8_t *)panel + g * (lay->head_bytes + lay->group_units * lay->unit_bytes);
}

static uint8_t *panel_tail(enum gemm_format f, void *panel, int64_t k)
{
    return (uint8_t *)panel + gemm_panel_bytes(f, k) - gemm_layout_of(f)->tail_bytes;
}

static float magnitude(const float *x, int64_t n)
{
    float m = 0;
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        finite &= isfinite(x[i]) != 0;
        m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    }
    return finite ? m : NAN;
}

/* Rounded to nearest even (by adding 1.5 * 2^23) and offset. */
static uint8_t offset_byte(float v, float inverse)
{
    float q = v * inverse;
    q = q > 127 ? 127 : q < -127 ? -127 : q;
    return (uint8_t)((int)((q + 12582912.0f) - 12582912.0f) + 128);
}

/* Nearest E4M3, ties to even; the largest finite one is 448. */
static uint8_t to_e4m3(float v)
{
    uint8_t sign = signbit(v) ? 0x80 : 0;
    v = fabsf(v);
    if (!(v < 464))
        return (uint8_t)(sign | 0x7e);
    int e;
    frexpf(v, &e);
    e = e < -5 ? -5 : e;                       /* below 2^-6 the step stays 2^-9 */
    float step = ldexpf(1, e - 4), q = rintf(v / step) * step;
    if (q < 0.015625f)
        return (uint8_t)(sign | (uint8_t)(q * 512));
    float m = frexpf(q, &e);
    return (uint8_t)(sign | (e + 6) << 3 | ((int)(m * 16) & 7));
}

static void pack_i8(uint8_t *panel, int col, int64_t k, const float *row)
{
    float m = magnitude(row, k), scale = m / 127, inverse = m > 0 ? 127 / m : 0;
    for (int64_t i = 0; i < k; i++)
        unit_at(GEMM_I8, panel, i / 4)[4 * col + i % 4] = inverse > 0 ? offset_byte(row[i], inverse) : 128;
    memcpy(panel_tail(GEMM_I8, panel, k) + 4 * col, &scale, 4);
}

static void pack_f8(uint8_t *panel, int col, int64_t k, const float *row)
{
    float m = magnitude(row, k), scale = m / 448, inverse = m > 0 ? 448 / m : 0;
    for (int64_t i = 0; i < k; i++)
        unit_at(GEMM_F8, panel, i / 2)[gemm_f8_at(col, (int)(i % 2))] = inverse > 0 ? to_e4m3(row[i] * inverse) : 0;
    memcpy(panel_tail(GEMM_F8, panel, k) + 4 * col, &scale, 4);
}

static void pack_f8_groups(uint8_t *panel, int col, int64_t k, const float *row)
{
    for (int64_t from = 0; from < k; from += 128) {
        int64_t end = k - from < 128 ? k : from + 128;
        float m = magnitude(row + from, end - from), scale = m / 448, inverse = m > 0 ? 448 / m : 0;
        for (int64_t i = from; i < end; i++)
            unit_at(GEMM_F8_G128, panel, i / 2)[gemm_f8_at(col, (int)(i % 2))] = inverse > 0 ? to_e4m3(row[i] * inverse) : 0;
        memcpy(group_head(GEMM_F8_G128, panel, from / 128) + 4 * col, &scale, 4);
    }
}

/* From the least value of each group to the greatest in 255 steps. */
static void pack_u8_groups(enum gemm_format f, uint8_t *panel, int col, int64_t k, const float *row)
{
    int group = gemm_layout_of(f)->group_units * 4;
    for (int64_t g = 0; g * group < k; g++) {
        const float *x = row + g * group;
        int n = k - g * group < group ? (int)(k - g * group) : group;
        float low = x[0], high = x[0];
        for (int i = 1; i < n; i++) {
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        bool finite = isfinite(magnitude(x, n));
        uint16_t h[2] = { tensor_f32_to_f16(finite ? (high - low) / 255 : NAN), tensor_f32_to_f16(low) };
        float scale = tensor_f16_to_f32(h[0]), minimum = tensor_f16_to_f32(h[1]), inverse = scale > 0 ? 1 / scale : 0;
        uint8_t *b = unit_at(f, panel, g * group / 4) + 4 * col;
        for (int i = 0; i < n; i++) {
            float q = finite ? rintf((x[i] - minimum) * inverse) : 0;
            b[i / 4 * 128 + i % 4] = q > 255 ? 255 : q < 0 ? 0 : (uint8_t)q;
        }
        memcpy(group_head(f, panel, g) + 2 * col, &h[0], 2);
        memcpy(group_head(f, panel, g) + 64 + 2 * col, &h[1], 2);
    }
}

static void pack_i8_groups(enum gemm_format f, uint8_t *panel, int col, int64_t k, const float *row)
{
    int group = gemm_layout_of(f)->group_units * 4;
    for (int64_t g = 0; g * group < k; g++) {
        const float *x = row + g * group;
        int n = k - g * group < group ? (int)(k - g * group) : group;
        float m = magnitude(x, n);
        uint16_t h = tensor_f32_to_f16(m / 127);
        float scale = tensor_f16_to_f32(h), inverse = scale > 0 ? 1 / scale : 0;
        uint8_t *b = unit_at(f, panel, g * group / 4) + 4 * col;
        for (int i = 0; i < n; i++)
            b[i / 4 * 128 + i % 4] = inverse > 0 ? offset_byte(x[i], inverse) : 128;
        memcpy(group_head(f, panel, g) + 2 * col, &h, 2);
    }
}

/* Codes of K [from, end) of one column; the last unit's missing ones are those of zeros. */
static void put_codes(enum gemm_format f, uint8_t *panel, int col, int64_t from, int64_t end, const uint8_t *codes)
{
    const struct gemm_layout *lay = gemm_layout_of(f);
    uint8_t *b = unit_at(f, panel, from / lay->unit_k);
    for (; from < end; from += lay->unit_k, codes += lay->unit_k, b += lay->unit_bytes) {
        int n = end - from < lay->unit_k ? (int)(end - from) : lay->unit_k;
        if (f == GEMM_F8 || f == GEMM_F8_G128) {
            for (int i = 0; i < n; i++)
                b[gemm_f8_at(col, i)] = codes[i];
        } else if (lay->unit_bytes == 64) {
            uint32_t four = 0, *at = (uint32_t *)(void *)(b + col % 16 * 4);
            memcpy(&four, codes, (size_t)n);
            *at = col < 16 ? (*at & 0xf0f0f0f0u) | four : (*at & 0x0f0f0f0fu) | four << 4;
        } else {
            memcpy(b + 4 * col, codes, (size_t)n);
        }
    }
}

/* A column whose groups are searched for. */
struct column { const float *row, *importance; int64_t k; };

/* The values and weights of K [from, from + group): what lies past K repeats the last value, so that it pulls the range nowhere, and weighs
 * nothing.  Returns how many there are. */
static int column_group(const struct column *c, int64_t from, int group, float *x, float *weight)
{
    int n = c->k - from < group ? (int)(c->k - from) : group;
    for (int i = 0; i < group; i++) {
        x[i] = c->row[from + (i < n ? i : n - 1)];
        weight[i] = i >= n ? 0 : c->importance ? c->importance[from + i] : 1;
    }
    return n;
}

static gemm_quant_fn *quant_u4(void)
{
    enum kern_isa isa = kern_isa_best();
    return isa >= KERN_ISA_AVX512 ? gemm_quant_u4_avx512 : isa >= KERN_ISA_AVX2 ? gemm_quant_u4_avx2 : gemm_quant_u4_ref;
}

static void pack_u4(enum gemm_format f, uint8_t *panel, int col, const struct column *c)
{
    gemm_quant_fn *quant = quant_u4();
    int group = gemm_layout_of(f)->group_units * 4;
    for (int64_t g = 0; g * group < c->k; g++) {
        float x[GEMM_GROUP_MAX], weight[GEMM_GROUP_MAX];
        uint8_t q[GEMM_GROUP_MAX];
        uint16_t h[2];
        int n = column_group(c, g * group, group, x, weight);
        if (isfinite(magnitude(x, n))) {
            quant(x, weight, group, q, &h[0], &h[1]);
        } else {
            memset(q, 0, sizeof q);
            h[0] = h[1] = tensor_f32_to_f16(NAN);
        }
        put_codes(f, panel, col, g * group, g * group + n, q);
        memcpy(group_head(f, panel, g) + 2 * col, &h[0], 2);
        memcpy(group_head(f, panel, g) + 64 + 2 * col, &h[1], 2);
    }
}

/* ---- 4 bits, 8-bit scales ---- */

enum { I4_GROUP = 32 };

/* The best float scale of group g, and what its code 8 stands for. */
static void i4_search(const struct column *c, int64_t g, float out[2])
{
    float x[I4_GROUP], weight[I4_GROUP];
    uint8_t q[I4_GROUP];
    uint16_t h[2];
    column_group(c, g * I4_GROUP, I4_GROUP, x, weight);
    quant_u4()(x, weight, I4_GROUP, q, &h[0], &h[1]);
    out[0] = tensor_f16_to_f32(h[0]);
    out[1] = tensor_f16_to_f32(h[1]) + 8 * out[0];
}

/* The column's scale is the least by which all groups' scales and offsets fit their bytes. */
static void pack_i4(uint8_t *panel, int col, const struct column *c)
{
    enum { HELD = 2048 };   /* of longer columns the rest is searched twice */
    enum kern_isa isa = kern_isa_best();
    gemm_quant_i4_fn *quant = isa >= KERN_ISA_AVX512 ? gemm_quant_i4_avx512 : isa >= KERN_ISA_AVX2 ? gemm_quant_i4_avx2 : gemm_quant_i4_ref;
    int64_t groups = (c->k + I4_GROUP - 1) / I4_GROUP;
    float held[HELD][2], d = 0;
    bool finite = isfinite(magnitude(c->row, c->k));
    for (int64_t g = 0; finite && g < groups; g++) {
        float found[2];
        i4_search(c, g, found);
        d = fmaxf(d, fmaxf(found[0] / 255, fabsf(found[1]) / (8 * 127)));
        if (g < HELD)
            memcpy(held[g], found, sizeof found);
    }
    if (!finite)
        d = NAN;
    memcpy(panel_tail(GEMM_I4, panel, c->k) + 4 * col, &d, 4);
    for (int64_t g = 0; d > 0 && g < groups; g++) {
        float x[I4_GROUP], weight[I4_GROUP], near[2];
        uint8_t q[I4_GROUP], *head = group_head(GEMM_I4, panel, g / GEMM_I4_GROUPS);
        int8_t offset;
        int n = column_group(c, g * I4_GROUP, I4_GROUP, x, weight), in = (int)(g % GEMM_I4_GROUPS);
        if (g < HELD)
            memcpy(near, held[g], sizeof near);
        else
            i4_search(c, g, near);
        near[0] /= d;
        near[1] /= 8 * d;
        quant(x, weight, I4_GROUP, d, near, q, head + gemm_i4_scale_at(col, in), &offset);
        memcpy(head + gemm_i4_offset_at(col, in), &offset, 1);
        put_codes(GEMM_I4, panel, col, g * I4_GROUP, g * I4_GROUP + n, q);
    }
}

static void unpack_i4(uint8_t *panel, int col, int64_t k, float *out)
{
    float d;
    memcpy(&d, panel_tail(GEMM_I4, panel, k) + 4 * col, 4);
    for (int64_t i = 0; i < k; i++) {
        const uint8_t *head = group_head(GEMM_I4, panel, i / (4 * GEMM_I4_UNITS));
        int g = (int)(i / I4_GROUP % GEMM_I4_GROUPS);
        int q = unit_at(GEMM_I4, panel, i / 4)[col % 16 * 4 + i % 4] >> (col < 16 ? 0 : 4) & 15;
        out[i] = d * (float)(head[gemm_i4_scale_at(col, g)] * (q - 8) + 8 * (int8_t)head[gemm_i4_offset_at(col, g)]);
    }
}

void gemm_quant_pack(enum gemm_format f, void *panel, int col, int64_t k, const float *row, const float *importance)
{
    const struct column c = {row, importance, k};
    if (f == GEMM_I8)
        pack_i8(panel, col, k, row);
    else if (f == GEMM_F8)
        pack_f8(panel, col, k, row);
    else if (f == GEMM_F8_G128)
        pack_f8_groups(panel, col, k, row);
    else if (f == GEMM_U8_G16 || f == GEMM_U8_G32)
        pack_u8_groups(f, panel, col, k, row);
    else if (f == GEMM_I8_G16 || f == GEMM_I8_G32)
        pack_i8_groups(f, panel, col, k, row);
    else if (f == GEMM_I4)
        pack_i4(panel, col, &c);
    else
        pack_u4(f, panel, col, &c);
}

void gemm_pack_codes(enum gemm_format f, void *panel, int col0, int n, int64_t k, const struct gemm_codes *c)
{
    const struct gemm_layout *lay = gemm_layout_of(f);
    int64_t group = lay->group_units ? lay->group_units * lay->unit_k : k;
    assert(f >= GEMM_I8 && f != GEMM_I4 && (c->group >= k || c->group % group == 0));
    for (int64_t from = 0; from < k; from += group) {
        int64_t end = k - from < group ? k : from + group, g = from / c->group;
        for (int j = 0; j < n; j++) {
            float scale = c->scales[j * c->ld_scales + g], minimum = c->minima ? c->minima[j * c->ld_scales + g] : 0;
            put_codes(f, panel, col0 + j, from, end, c->codes + j * c->ld + from);
            if (!lay->group_units) {
                memcpy(panel_tail(f, panel, k) + 4 * (col0 + j), &scale, 4);
                continue;
            }
            if (f == GEMM_F8_G128) {
                memcpy(group_head(f, panel, from / group) + 4 * (col0 + j), &scale, 4);
                continue;
            }
            uint16_t h[2] = { tensor_f32_to_f16(scale), tensor_f32_to_f16(minimum) };
            memcpy(group_head(f, panel, from / group) + 2 * (col0 + j), &h[0], 2);
            if (lay->head_bytes == 128)
                memcpy(group_head(f, panel, from / group) + 64 + 2 * (col0 + j), &h[1], 2);
        }
    }
}

void gemm_quant_unpack(enum gemm_format f, const void *const_panel, int col, int64_t k, float *out)
{
    const struct gemm_layout *lay = gemm_layout_of(f);
    uint8_t *panel = (uint8_t *)(uintptr_t)const_panel;   /* only read */
    float scale = 0, minimum = 0;
    if (f == GEMM_I4) {
        unpack_i4(panel, col, k, out);
        return;
    }
    if (lay->tail_bytes)
        memcpy(&scale, panel_tail(f, panel, k) + 4 * col, 4);
    for (int64_t i = 0; i < k; i++) {
        const uint8_t *u = unit_at(f, panel, i / lay->unit_k);
        if (f == GEMM_F8_G128 && i % 128 == 0)
            memcpy(&scale, group_head(f, panel, i / 128) + 4 * col, 4);
        if (f != GEMM_F8_G128 && lay->group_units && i % (lay->group_units * 4) == 0) {
            uint16_t h[2] = {0, 0};
            const uint8_t *head = group_head(f, panel, i / (lay->group_units * 4));
            memcpy(&h[0], head + 2 * col, 2);
            if (lay->head_bytes == 128)
                memcpy(&h[1], head + 64 + 2 * col, 2);
            scale = tensor_f16_to_f32(h[0]);
            minimum = tensor_f16_to_f32(h[1]);
        }
        if (f == GEMM_F8 || f == GEMM_F8_G128) {
            tensor_to_f32(DT_F8_E4M3, u + gemm_f8_at(col, (int)(i % 2)), 1, out + i);
            out[i] *= scale;
        } else if (lay->unit_bytes == 64) {
            int q = u[col % 16 * 4 + i % 4] >> (col < 16 ? 0 : 4) & 15;
            out[i] = scale * (float)q + minimum;
        } else if (gemm_has_minima(f)) {
            out[i] = scale * (float)u[4 * col + i % 4] + minimum;
        } else {
            out[i] = scale * (float)(u[4 * col + i % 4] - 128);
        }
    }
}
