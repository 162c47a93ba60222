/* Attention, scalar: plain loops over single values of any KV type. */
#include "kern/attn.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include "kern/attn_narrow.h"
#include "tensor/tensor.h"

static const float LOG2E = 1.44269504f;

/* Element d of token t of a slab, K's or V's, without the scale. */
static size_t k_at(enum kern_kv type, int d, int t)
{
    if (type == KERN_KV_I8 || type == KERN_KV_F8)
        return kern_attn_k8_at(d, t);
    if (type == KERN_KV_BF16)
        return (size_t)((d / 2 * KERN_ATTN_PAGE + t) * 4 + d % 2 * 2);
    return (size_t)(d * KERN_ATTN_PAGE + t) * (type == KERN_KV_F32 ? 4 : 2);
}

static size_t v_at(enum kern_kv type, int d, int t, int head_dim)
{
    if (type == KERN_KV_I8 || type == KERN_KV_F8)
        return kern_attn_v8_at(d, t, head_dim);
    size_t k_bytes = kern_attn_slab_bytes(type, head_dim) / 2;
    int dim = kern_attn_dim(head_dim);
    if (type == KERN_KV_BF16)
        return k_bytes + (size_t)((t / 2 * dim + d) * 4 + t % 2 * 2);
    return k_bytes + (size_t)(t * dim + d) * (type == KERN_KV_F32 ? 4 : 2);
}

static float load(enum kern_kv type, const unsigned char *p)
{
    float f;
    uint16_t h;
    if (type == KERN_KV_F32) {
        memcpy(&f, p, 4);
        return f;
    }
    if (type == KERN_KV_I8 || type == KERN_KV_F8) {
        h = (type == KERN_KV_I8 ? kern_attn_i8_bf16 : kern_attn_f8_bf16)[*p & 0x7f];
        return tensor_bf16_to_f32((uint16_t)(h | (*p & 0x80u) << 8));
    }
    memcpy(&h, p, 2);
    return type == KERN_KV_F16 ? tensor_f16_to_f32(h) : tensor_bf16_to_f32(h);
}

/* The scale of token t's K (half 0) or V (1). */
static float load_scale(enum kern_kv type, const unsigned char *slab, int half, int t, int head_dim)
{
    float f = 1;
    if (type == KERN_KV_I8)
        memcpy(&f, slab + kern_attn_scales_at(head_dim) + (size_t)(half * KERN_ATTN_PAGE + t) * 4, 4);
    return f;
}

static void store(enum kern_kv type, unsigned char *p, float f)
{
    const float max = type == KERN_KV_F32 ? FLT_MAX : type == KERN_KV_F16 ? 65504.0f : 3.38953139e38f;
    f = f > max ? max : f < -max ? -max : f;
    if (type == KERN_KV_F32) {
        memcpy(p, &f, 4);
        return;
    }
    uint16_t h = type == KERN_KV_F16 ? tensor_f32_to_f16(f) : tensor_f32_to_bf16(f);
    memcpy(p, &h, 2);
}

static void write(enum kern_kv type, void *slab, int t, const float *k, const float *v, int head_dim)
{
    unsigned char *p = slab;
    for (int d = 0; d < head_dim; d++) {
        store(type, p + k_at(type, d, t), k[d]);
        store(type, p + v_at(type, d, t, head_dim), v[d] != v[d] ? -INFINITY : v[d]);
    }
}

static void write8(enum kern_kv type, void *slab, int t, const float *k, const float *v, int head_dim)
{
    unsigned char *p = slab;
    uint8_t e[2][KERN_ATTN_MAX_DIM];
    for (int half = 0; half < 2; half++) {
        float scale;
        if (type == KERN_KV_F8) {
            attn_narrow_f8(e[half], half ? v : k, head_dim, !half);
            continue;
        }
        attn_narrow_i8(e[half], &scale, half ? v : k, head_dim, !half);
        memcpy(p + kern_attn_scales_at(head_dim) + (size_t)(half * KERN_ATTN_PAGE + t) * 4, &scale, 4);
    }
    for (int d = 0; d < head_dim; d++) {
        p[k_at(type, d, t)] = e[0][d];
        p[v_at(type, d, t, head_dim)] = e[1][d];
    }
}

static void pack_q(void *dst, const float *q, int head_dim)
{
    memcpy(dst, q, (size_t)head_dim * 4);
}

static float score(enum kern_kv type, const struct kern_attn_part *p, int r, int t)
{
    const float *q = (const float *)p->q + (size_t)r * (size_t)kern_attn_dim(p->head_dim);
    const unsigned char *slab = p->slabs[t / KERN_ATTN_PAGE];
    float s = 0;
    for (int d = 0; d < p->head_dim; d++)
        s += q[d] * load(type, slab + k_at(type, d, t % KERN_ATTN_PAGE));
    s *= load_scale(type, slab, 0, t % KERN_ATTN_PAGE, p->head_dim) * p->scale;
    if (p->softcap > 0)
        s = p->softcap * tanhf(s / p->softcap);
    if (p->slopes)
        s += p->slopes[r] * (float)(t - p->rel[r]);
    return s * LOG2E;
}

static void merge(int n, float *m, float *l, float *o, const float *pm, const float *pl, const float *po, int head_dim)
{
    size_t dim = (size_t)kern_attn_dim(head_dim);
    for (int r = 0; r < n; r++) {
        if (pm[r] == -INFINITY)
            continue;
        float top = m[r] > pm[r] ? m[r] : pm[r];
        float a = exp2f(m[r] - top), b = exp2f(pm[r] - top);
        l[r] = l[r] * a + pl[r] * b;
        for (size_t d = 0; d < dim; d++)
            o[(size_t)r * dim + d] = o[(size_t)r * dim + d] * a + po[(size_t)r * dim + d] * b;
        m[r] = top;
    }
}

static void row(enum kern_kv type, const struct kern_attn_part *p, int r)
{
    float w[KERN_ATTN_PART], o[KERN_ATTN_MAX_DIM] = {0}, m = -INFINITY, l = 0;
    for (int t = p->lo[r]; t < p->hi[r]; t++) {
        w[t] = score(type, p, r, t);
        m = w[t] > m || w[t] != w[t] ? w[t] : m;
    }
    for (int t = p->lo[r]; t < p->hi[r]; t++) {
        const unsigned char *slab = p->slabs[t / KERN_ATTN_PAGE];
        float x = exp2f(w[t] - m);
        l += x;
        x *= load_scale(type, slab, 1, t % KERN_ATTN_PAGE, p->head_dim);
        for (int d = 0; d < p->head_dim; d++)
            o[d] += x * load(type, slab + v_at(type, d, t % KERN_ATTN_PAGE, p->head_dim));
    }
    size_t dim = (size_t)kern_attn_dim(p->head_dim);
    if (p->into) {
        merge(1, p->m + r, p->l + r, p->o + (size_t)r * dim, &m, &l, o, p->head_dim);
        return;
    }
    p->m[r] = m;
    p->l[r] = l;
    if (p->lo[r] < p->hi[r])
        memcpy(p->o + (size_t)r * dim, o, dim * 4);
}

static void finish(float *out, float m, float l, const float *o, const float *sink, int head_dim)
{
    float a = 1;
    if (sink) {
        float s = *sink * LOG2E, top = m > s ? m : s;
        a = exp2f(m - top);
        l = l * a + exp2f(s - top);
    }
    for (int d = 0; d < head_dim; d++)
        out[d] = o[d] * (a / l) + 0.0f;
}

static void write_f32(void *slab, int t, const float *k, const float *v, int head_dim)
{
    write(KERN_KV_F32, slab, t, k, v, head_dim);
}
static void write_f16(void *slab, int t, const float *k, const float *v, int head_dim)
{
    write(KERN_KV_F16, slab, t, k, v, head_dim);
}
static void write_bf16(void *slab, int t, const float *k, const float *v, int head_dim)
{
    write(KERN_KV_BF16, slab, t, k, v, head_dim);
}
static void write_i8(void *slab, int t, const float *k, const float *v, int head_dim)
{
    write8(KERN_KV_I8, slab, t, k, v, head_dim);
}
static void write_f8(void *slab, int t, const float *k, const float *v, int head_dim)
{
    write8(KERN_KV_F8, slab, t, k, v, head_dim);
}

static void part_f32(const struct kern_attn_part *p)
{
    for (int r = 0; r < p->n_rows; r++)
        row(KERN_KV_F32, p, r);
}
static void part_f16(const struct kern_attn_part *p)
{
    for (int r = 0; r < p->n_rows; r++)
        row(KERN_KV_F16, p, r);
}
static void part_bf16(const struct kern_attn_part *p)
{
    for (int r = 0; r < p->n_rows; r++)
        row(KERN_KV_BF16, p, r);
}
static void part_i8(const struct kern_attn_part *p)
{
    for (int r = 0; r < p->n_rows; r++)
        row(KERN_KV_I8, p, r);
}
static void part_f8(const struct kern_attn_part *p)
{
    for (int r = 0; r < p->n_rows; r++)
        row(KERN_KV_F8, p, r);
}

const struct kern_attn kern_attn_f32_ref = {4, pack_q, write_f32, part_f32, merge, finish};
const struct kern_attn kern_attn_f16_ref = {4, pack_q, write_f16, part_f16, merge, finish};
const struct kern_attn kern_attn_bf16_ref = {4, pack_q, write_bf16, part_bf16, merge, finish};
const struct kern_attn kern_attn_i8_ref = {4, pack_q, write_i8, part_i8, merge, finish};
const struct kern_attn kern_attn_f8_ref = {4, pack_q, write_f8, part_f8, merge, finish};
