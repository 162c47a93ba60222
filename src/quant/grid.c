/* Scales, zeros and codes of groups of weights; rounding to nearest. */
#include <math.h>
#include <string.h>
#include "base/mem.h"
#include "quant/quant.h"
#include "tensor/tensor.h"

enum { SEARCH_STEPS = 40 };   /* shrinks the range to half, in steps of 1/80 */

uint8_t quant_f8_encode(float x)
{
    uint8_t sign = signbit(x) ? 0x80 : 0;
    float a = fabsf(x);
    if (isnan(x))
        return 0x7f;
    if (a >= 448.0f)
        return sign | 0x7e;
    int exp = -6;
    if (a > 0.0f)
        frexpf(a, &exp);                   /* a in [2^(exp-1), 2^exp) */
    exp = exp - 1 < -6 ? -6 : exp - 1;     /* below 2^-6 steps stay those of subnormals */
    int m = (int)rintf(ldexpf(a, 3 - exp));    /* eighths: 8..16 for normal numbers */
    return (uint8_t)(sign | (m + (exp + 6) * 8));
}

int64_t quant_n_groups(const struct quant_grid *g, int64_t cols)
{
    return g->group > 0 ? (cols + g->group - 1) / g->group : 1;
}

bool quant_codes_open(struct quant_codes *q, const struct quant_grid *g, int64_t rows, int64_t cols, struct err *e)
{
    *q = (struct quant_codes){ .rows = rows, .cols = cols, .n_groups = quant_n_groups(g, cols) };
    bool zeros = !g->fp8 && !g->symmetric;
    q->codes = mem_try_alloc((size_t)rows, (size_t)cols);
    q->scales = mem_try_alloc((size_t)(rows * q->n_groups), sizeof *q->scales);
    q->zeros = zeros ? mem_try_alloc((size_t)(rows * q->n_groups), 1) : NULL;
    if (q->codes && q->scales && (q->zeros || !zeros))
        return true;
    quant_codes_close(q);
    return err_set(e, ERR_NOMEM, "no memory for %lld x %lld codes", (long long)rows, (long long)cols);
}

void quant_codes_close(struct quant_codes *q)
{
    mem_free(q->codes);
    mem_free(q->scales);
    mem_free(q->zeros);
    *q = (struct quant_codes){ 0 };
}

static int code_max(const struct quant_grid *g)
{
    return (1 << (g->bits - 1)) - 1;
}

/* The lowest code.  Of 8 bits that of -128 is left out, so that the largest weight is a code exactly and inputs and weights
 * may be carried alike. */
static int code_min(const struct quant_grid *g)
{
    return g->bits == 8 && g->symmetric ? -127 : -(1 << (g->bits - 1));
}

static float store_scale(const struct quant_grid *g, float s)
{
    if (g->scale_type == QUANT_SCALE_F16) {
        float r = tensor_f16_to_f32(tensor_f32_to_f16(s < 65504.0f ? s : 65504.0f));
        s = r > 0.0f ? r : 0x1p-24f;
    } else if (g->scale_type == QUANT_SCALE_BF16) {
        s = tensor_bf16_to_f32(tensor_f32_to_bf16(s));
    }
    return s >= 0x1p-120f ? s : 0x1p-120f;
}

int8_t quant_grid_code(const struct quant_grid *g, float w, float scale, int8_t zero)
{
    if (g->fp8)
        return (int8_t)quant_f8_encode(w / scale);
    float v = rintf(w / scale) + (float)zero;
    float lo = (float)code_min(g), hi = (float)code_max(g);
    return (int8_t)(v < lo ? lo : v > hi ? hi : v == v ? v : 0.0f);
}

float quant_grid_value(const struct quant_grid *g, int8_t code, float scale, int8_t zero)
{
    if (!g->fp8)
        return scale * (float)(code - zero);
    float v;
    tensor_to_f32(DT_F8_E4M3, &code, 1, &v);
    return v * scale;
}

/* The scale and zero that just cover [lo, hi] (lo <= 0 <= hi). */
static void cover(const struct quant_grid *g, float lo, float hi, float *scale, int8_t *zero)
{
    float most = -lo > hi ? -lo : hi;
    *zero = 0;
    if (g->fp8) {
        *scale = store_scale(g, most / 448.0f);
    } else if (g->symmetric) {
        *scale = store_scale(g, 2.0f * most / (float)(code_max(g) - code_min(g)));
    } else {
        *scale = store_scale(g, (hi - lo) / (float)((1 << g->bits) - 1));
        float z = rintf((float)code_min(g) - lo / *scale);
        *zero = (int8_t)(z < (float)code_min(g) ? (float)code_min(g) : z > (float)code_max(g) ? (float)code_max(g) : z);
    }
    if (!(most > 0.0f))
        *scale = store_scale(g, 1.0f);
}

/* Of integer codes, as quant_grid_code and quant_grid_value have them.  Sums in lanes, and rounding by adding a number whose last bit is one:
 * compilers make vectors of these at any instruction set, and the search is most of what rounding costs. */
static double loss(const struct quant_grid *g, const float *w, const float *importance, int64_t n, float scale, int8_t zero)
{
    enum { LANES = 4 };
    const float big = 0x1.8p23f, lo = (float)(code_min(g) - zero), hi = (float)(code_max(g) - zero);
    double sum[LANES] = { 0 };
    for (int64_t from = 0; from < n; from += LANES) {
        int64_t lanes = n - from < LANES ? n - from : LANES;
        float d[LANES] = { 0 }, weight[LANES] = { 1, 1, 1, 1 };
        for (int64_t i = 0; i < lanes; i++) {
            d[i] = w[from + i];
            weight[i] = importance ? importance[from + i] : 1.0f;
        }
        for (int i = 0; i < LANES; i++) {
            float v = d[i] / scale;
            v = v < lo ? lo : v > hi ? hi : v;
            d[i] -= scale * (v + big - big);
        }
        for (int i = 0; i < LANES; i++)
            sum[i] += (double)d[i] * (double)d[i] * (double)weight[i];
    }
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

void quant_grid_fit(const struct quant_grid *g, const float *w, const float *importance, int64_t n, float *scale, int8_t *zero)
{
    float lo = 0.0f, hi = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    cover(g, lo, hi, scale, zero);
    if (!g->search || g->fp8 || !(hi - lo > 0.0f))
        return;
    double best = loss(g, w, importance, n, *scale, *zero);
    for (int i = 1; i <= SEARCH_STEPS; i++) {
        float by = 1.0f - (float)i / (2 * SEARCH_STEPS), s;
        int8_t z;
        cover(g, lo * by, hi * by, &s, &z);
        double l = loss(g, w, importance, n, s, z);
        if (l < best) {
            best = l;
            *scale = s;
            *zero = z;
        }
    }
}

void quant_codes_row(const struct quant_codes *q, const struct quant_grid *g, int64_t row, float *out)
{
    int64_t size = g->group > 0 ? g->group : q->cols;
    for (int64_t c = 0; c < q->cols; c++) {
        int64_t at = row * q->n_groups + c / size;
        out[c] = quant_grid_value(g, q->codes[row * q->cols + c], q->scales[at], q->zeros ? q->zeros[at] : 0);
    }
}

struct rtn { const struct quant_grid *g; float *w; const float *importance; struct quant_codes *q; };

static void rtn_row(void *arg, int64_t row, int member)
{
    struct rtn *r = arg;
    struct quant_codes *q = r->q;
    int64_t size = r->g->group > 0 ? r->g->group : q->cols;
    float *w = r->w + row * q->cols;
    (void)member;
    for (int64_t i = 0; i < q->n_groups; i++) {
        int64_t from = i * size, n = q->cols - from < size ? q->cols - from : size, at = row * q->n_groups + i;
        int8_t zero;
        quant_grid_fit(r->g, w + from, r->importance ? r->importance + from : NULL, n, &q->scales[at], &zero);
        if (q->zeros)
            q->zeros[at] = zero;
        for (int64_t c = from; c < from + n; c++)
            q->codes[row * q->cols + c] = quant_grid_code(r->g, w[c], q->scales[at], zero);
    }
    quant_codes_row(q, r->g, row, w);
}

void quant_rtn(const struct quant_team *t, const struct quant_grid *g, float *w, const float *importance, struct quant_codes *q)
{
    struct rtn r = { g, w, importance, q };
    t->run(t->ctx, q->rows, rtn_row, &r);
}
