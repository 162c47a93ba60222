/* The CPU device: whole operations against plain formulas, and promise 1: a row's result is the same bits in any batch,
 * chunking, page order and number of threads. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/rng.h"
#include "dev/dev.h"

static struct dev *open_dev(int n_threads, const char *isa)
{
    struct dev *d = NULL;
    struct err e;
    struct dev_opts o = {.name = "cpu", .n_threads = n_threads, .isa = isa};
    if (!dev_open(&d, &o, &e))
        fail_msg("%s", e.msg);
    return d;
}

static int below(struct rng *r, int n)
{
    return (int)rng_next_below(r, (uint64_t)n);
}

static float *noise(struct dev *d, size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *p = dev_alloc(d, n * sizeof *p, NULL);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_next_normal(&r);
    return p;
}

/* ---- attention over a ragged batch ---- */

enum { MAX_SEQS = 5 };

struct shape {
    enum dev_kv_type type;
    int n_heads, n_kv_heads, dim, rope_dim, window, n_seqs, len[MAX_SEQS];
    float softcap;
    bool alibi, sinks, qk_norm;
    enum dev_rope_style style;
};

/* Everything that goes in, and room for what comes out. */
struct world {
    struct shape s;
    int width, out_width, max_len;
    float *qkv[MAX_SEQS], *want[MAX_SEQS], *got[MAX_SEQS];   /* host memory */
    float *cos, *sin;                                        /* [max_len][rope_dim/2] */
};

static void world_open(struct world *w, const struct shape *s, uint64_t seed)
{
    struct rng r = {seed};
    w->s = *s;
    w->width = (s->n_heads + 2 * s->n_kv_heads) * s->dim;
    w->out_width = s->n_heads * s->dim;
    w->max_len = 0;
    for (int i = 0; i < s->n_seqs; i++) {
        size_t n = (size_t)s->len[i];
        w->max_len = s->len[i] > w->max_len ? s->len[i] : w->max_len;
        w->qkv[i] = malloc(n * (size_t)w->width * 4);
        w->want[i] = malloc(n * (size_t)w->out_width * 4);
        w->got[i] = malloc(n * (size_t)w->out_width * 4);
        for (size_t k = 0; k < n * (size_t)w->width; k++)
            w->qkv[i][k] = (float)rng_next_normal(&r);
    }
    size_t half = (size_t)(s->rope_dim / 2), n = (size_t)w->max_len * half;
    w->cos = malloc(n * 4 + 4);
    w->sin = malloc(n * 4 + 4);
    for (size_t i = 0; i < n; i++) {
        double angle = (double)(i / half) * pow(10000, -2.0 * (double)(i % half) / s->rope_dim);
        w->cos[i] = (float)cos(angle);
        w->sin[i] = (float)sin(angle);
    }
}

static void world_close(struct world *w)
{
    for (int i = 0; i < w->s.n_seqs; i++) {
        free(w->qkv[i]);
        free(w->want[i]);
        free(w->got[i]);
    }
    free(w->cos);
    free(w->sin);
}

/* Which rows one step takes of each sequence. */
struct step { int start[MAX_SEQS], n[MAX_SEQS]; };

struct runner {
    struct world *w;
    struct dev *d;
    struct dev_kv *kv;
    int32_t *tables;
    int stride;
    float *norm_q, *norm_k, *slopes, *sinks;
};

static void runner_open(struct runner *r, struct world *w, struct dev *d, uint64_t seed)
{
    struct rng rng = {seed};
    struct err e;
    r->w = w;
    r->d = d;
    r->stride = w->max_len / DEV_BLOCK_TOKENS + 2;
    int n_blocks = w->s.n_seqs * r->stride + 1;
    struct dev_kv_spec spec = {.n_layers = 2, .n_kv_heads = w->s.n_kv_heads, .head_dim = w->s.dim, .n_blocks = n_blocks, .type = w->s.type};
    if (!dev_kv_open(d, &r->kv, &spec, &e))
        fail_msg("%s", e.msg);
    r->tables = malloc((size_t)n_blocks * sizeof *r->tables);
    for (int i = 0; i < n_blocks - 1; i++)
        r->tables[i] = i + 1;
    for (int i = n_blocks - 2; i > 0; i--) {
        int j = below(&rng, i + 1);
        int32_t t = r->tables[i];
        r->tables[i] = r->tables[j];
        r->tables[j] = t;
    }
    r->norm_q = noise(d, (size_t)w->s.dim, 1);
    r->norm_k = noise(d, (size_t)w->s.dim, 2);
    r->slopes = noise(d, (size_t)w->s.n_heads, 3);
    for (int h = 0; h < w->s.n_heads; h++)
        r->slopes[h] = fabsf(r->slopes[h]);
    r->sinks = noise(d, (size_t)w->s.n_heads, 4);
}

static void runner_close(struct runner *r)
{
    dev_kv_close(r->d, &r->kv);
    free(r->tables);
    dev_free(r->d, r->norm_q);
    dev_free(r->d, r->norm_k);
    dev_free(r->d, r->slopes);
    dev_free(r->d, r->sinks);
}

static void run_step(struct runner *r, const struct step *st)
{
    struct world *w = r->w;
    const struct shape *s = &w->s;
    int32_t start[MAX_SEQS + 1] = {0}, n = 0, n_seqs = 0;
    int32_t *tables = calloc((size_t)(s->n_seqs * r->stride), sizeof *tables);
    for (int i = 0; i < s->n_seqs; i++)
        n += st->n[i];
    int32_t *positions = calloc((size_t)n + 1, sizeof *positions);
    size_t half = (size_t)(s->rope_dim / 2);
    float *cos = malloc((size_t)n * half * 4 + 4), *sin = malloc((size_t)n * half * 4 + 4);
    float *qkv = dev_alloc(r->d, (size_t)n * (size_t)w->width * 4 + 4, NULL), *out = dev_alloc(r->d, (size_t)n * (size_t)w->out_width * 4 + 4, NULL);
    int32_t row = 0;
    for (int i = 0; i < s->n_seqs; i++) {
        if (st->n[i] == 0)
            continue;
        for (int k = 0; k < st->n[i]; k++, row++) {
            positions[row] = st->start[i] + k;
            memcpy(qkv + (size_t)row * (size_t)w->width, w->qkv[i] + (size_t)positions[row] * (size_t)w->width, (size_t)w->width * 4);
            memcpy(cos + (size_t)row * half, w->cos + (size_t)positions[row] * half, half * 4);
            memcpy(sin + (size_t)row * half, w->sin + (size_t)positions[row] * half, half * 4);
        }
        for (int p = 0; p < r->stride; p++) {   /* pages wholly behind every row's window are given back */
            bool behind = s->window > 0 && (p + 1) * DEV_BLOCK_TOKENS <= st->start[i] - s->window + 1;
            tables[n_seqs * r->stride + p] = behind ? 0 : r->tables[i * r->stride + p];
        }
        start[++n_seqs] = row;
    }
    struct dev_batch b = {.n_tokens = n, .n_seqs = n_seqs, .positions = positions, .seq_start = start, .block_tables = tables, .table_stride = r->stride};
    struct dev_rope_kv rope = {.n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->dim, .style = s->style, .rope_dim = s->rope_dim,
                               .cos = cos, .sin = sin, .q_norm = s->qk_norm ? r->norm_q : NULL, .k_norm = s->qk_norm ? r->norm_k : NULL,
                               .qk_norm_eps = 1e-5f, .layer = 1};
    struct dev_attention a = {.n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->dim, .scale = 1 / sqrtf((float)s->dim),
                              .softcap = s->softcap, .window = s->window, .alibi_slopes = s->alibi ? r->slopes : NULL,
                              .sinks = s->sinks ? r->sinks : NULL, .layer = 1};
    struct err e;
    dev_step_begin(r->d, &b);
    dev_rope_kv(r->d, &rope, qkv, w->width, r->kv);
    dev_attention(r->d, &a, qkv, w->width, r->kv, out, w->out_width);
    assert_true(dev_step_end(r->d, &e));
    row = 0;
    for (int i = 0; i < s->n_seqs; i++)
        for (int k = 0; k < st->n[i]; k++, row++)
            memcpy(w->got[i] + (size_t)(st->start[i] + k) * (size_t)w->out_width, out + (size_t)row * (size_t)w->out_width, (size_t)w->out_width * 4);
    dev_free(r->d, qkv);
    dev_free(r->d, out);
    free(cos);
    free(sin);
    free(positions);
    free(tables);
}

/* Each sequence alone, its whole prompt in one step. */
static void run_alone(struct runner *r)
{
    for (int i = 0; i < r->w->s.n_seqs; i++) {
        struct step st = {0};
        st.n[i] = r->w->s.len[i];
        run_step(r, &st);
    }
}

/* All together: chunks of random sizes, ending token by token. */
static void run_mixed(struct runner *r, uint64_t seed)
{
    struct rng rng = {seed};
    struct step st = {0};
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < r->w->s.n_seqs; i++) {
            st.start[i] += st.n[i];
            int left = r->w->s.len[i] - st.start[i];
            int n = left <= 6 ? left > 0 : below(&rng, 3) == 0 ? 0 : below(&rng, 2) ? 1 + below(&rng, left - 5) : 1 + below(&rng, 40);
            st.n[i] = n < left ? n : left;
            more = more || left > st.n[i] || st.n[i] > 0;
        }
        run_step(r, &st);
    }
}

/* ---- the same in double ---- */

static void naive_head(const struct world *w, const float *x, const float *norm, int pos, double *out)
{
    const struct shape *s = &w->s;
    double square = 0;
    int half = s->rope_dim / 2;
    for (int d = 0; d < s->dim; d++)
        square += (double)x[d] * (double)x[d];
    for (int d = 0; d < s->dim; d++)
        out[d] = norm ? (double)x[d] / sqrt(square / s->dim + 1e-5) * (double)norm[d] : (double)x[d];
    for (int i = 0; i < half && s->style != DEV_ROPE_NONE; i++) {
        int a = s->style == DEV_ROPE_HALF ? i : 2 * i, b = s->style == DEV_ROPE_HALF ? i + half : 2 * i + 1;
        double c = (double)w->cos[pos * half + i], n = (double)w->sin[pos * half + i], x0 = out[a], x1 = out[b];
        out[a] = x0 * c - x1 * n;
        out[b] = x1 * c + x0 * n;
    }
}

static double naive_worst(const struct runner *r, int i, int step)
{
    const struct world *w = r->w;
    const struct shape *s = &w->s;
    double worst = 0, q[256], k[256], o[256];
    double *p = malloc((size_t)s->len[i] * sizeof *p);
    for (int pos = step - 1; pos < s->len[i]; pos += step)
        for (int h = 0; h < s->n_heads; h++) {
            int kvh = h / (s->n_heads / s->n_kv_heads), lo = s->window > 0 && pos >= s->window ? pos - s->window + 1 : 0;
            double m = -INFINITY, sum = 0;
            naive_head(w, w->qkv[i] + (size_t)pos * (size_t)w->width + h * s->dim, s->qk_norm ? r->norm_q : NULL, pos, q);
            for (int t = lo; t <= pos; t++) {
                naive_head(w, w->qkv[i] + (size_t)t * (size_t)w->width + (s->n_heads + kvh) * s->dim, s->qk_norm ? r->norm_k : NULL, t, k);
                p[t] = 0;
                for (int d = 0; d < s->dim; d++)
                    p[t] += q[d] * k[d];
                p[t] /= sqrt(s->dim);
                p[t] = s->softcap > 0 ? (double)s->softcap * tanh(p[t] / (double)s->softcap) : p[t];
                p[t] += s->alibi ? (double)r->slopes[h] * (t - pos) : 0;
                m = p[t] > m ? p[t] : m;
            }
            if (s->sinks) {
                m = (double)r->sinks[h] > m ? (double)r->sinks[h] : m;
                sum = exp((double)r->sinks[h] - m);
            }
            memset(o, 0, sizeof o);
            for (int t = lo; t <= pos; t++) {
                const float *v = w->qkv[i] + (size_t)t * (size_t)w->width + (s->n_heads + s->n_kv_heads + kvh) * s->dim;
                sum += exp(p[t] - m);
                for (int d = 0; d < s->dim; d++)
                    o[d] += exp(p[t] - m) * (double)v[d];
            }
            for (int d = 0; d < s->dim; d++)
                worst = fmax(worst, fabs(o[d] / sum - (double)w->got[i][(size_t)pos * (size_t)w->out_width + (size_t)(h * s->dim + d)]));
        }
    free(p);
    return worst;
}

static const struct shape shapes[] = {
    {DEV_KV_F32, 4, 2, 16, 16, 0, 3, {70, 33, 5}, 0, false, false, false, DEV_ROPE_HALF},
    {DEV_KV_F32, 6, 2, 48, 16, 40, 2, {300, 90}, 0, false, false, true, DEV_ROPE_INTERLEAVED},
    {DEV_KV_F32, 4, 4, 8, 8, 0, 2, {600, 257}, 5, false, false, false, DEV_ROPE_HALF},
    {DEV_KV_F32, 8, 1, 64, 0, 0, 3, {40, 513, 31}, 0, true, false, false, DEV_ROPE_NONE},
    {DEV_KV_F32, 4, 2, 64, 64, 128, 2, {700, 66}, 0, false, true, false, DEV_ROPE_HALF},
    {DEV_KV_BF16, 8, 2, 64, 64, 0, 4, {900, 64, 1, 300}, 0, false, false, false, DEV_ROPE_HALF},
    {DEV_KV_BF16, 4, 1, 128, 128, 100, 2, {520, 270}, 0, false, false, true, DEV_ROPE_HALF},
    {DEV_KV_BF16, 5, 5, 80, 80, 0, 3, {290, 31, 32}, 20, true, true, false, DEV_ROPE_INTERLEAVED},
    {DEV_KV_F16, 6, 3, 96, 48, 0, 3, {530, 10, 100}, 0, false, false, false, DEV_ROPE_HALF},
    {DEV_KV_I8, 8, 2, 64, 64, 0, 3, {600, 40, 300}, 0, false, false, false, DEV_ROPE_HALF},
    {DEV_KV_I8, 8, 1, 112, 112, 90, 2, {290, 35}, 0, false, true, true, DEV_ROPE_HALF},
    {DEV_KV_F8, 4, 2, 128, 128, 0, 3, {550, 33, 31}, 0, false, false, true, DEV_ROPE_HALF},
    {DEV_KV_F8, 3, 3, 80, 80, 50, 2, {300, 64}, 10, true, false, false, DEV_ROPE_INTERLEAVED},
    {DEV_KV_F16, 16, 1, 32, 32, 33, 2, {300, 100}, 0, false, true, false, DEV_ROPE_HALF},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512_bf16"};

static bool has_isa(const char *isa)
{
    struct dev *d = NULL;
    struct dev_opts o = {.n_threads = 1, .isa = isa};
    bool ok = dev_open(&d, &o, NULL);
    dev_close(&d);
    return ok;
}

static void test_attention_value(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < N_SHAPES && has_isa(isas[k]); i++) {
            struct world w;
            struct runner r;
            struct dev *d = open_dev(2, isas[k]);
            world_open(&w, &shapes[i], (uint64_t)(7 + i));
            runner_open(&r, &w, d, (uint64_t)i);
            run_alone(&r);
            double limit = shapes[i].type == DEV_KV_F32 ? 2e-5 : shapes[i].type == DEV_KV_F16 ? 8e-3 : shapes[i].type == DEV_KV_F8 ? 0.5 : 6e-2;
            for (int s = 0; s < w.s.n_seqs; s++) {
                double worst = naive_worst(&r, s, w.s.len[s] > 64 ? 61 : 7);
                if (!(worst < limit))
                    fail_msg("shape %d sequence %d on %s: off by %g", i, s, isas[k], worst);
            }
            runner_close(&r);
            world_close(&w);
            dev_close(&d);
        }
}

static void test_batch_invariance(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < N_SHAPES && has_isa(isas[k]); i++) {
            if (k == 0 && shapes[i].len[0] * shapes[i].dim * shapes[i].n_heads > 60000)
                continue;   /* scalar code is slow, and the same for all shapes */
            struct world w;
            struct runner r;
            struct dev *d = open_dev(1, isas[k]);
            world_open(&w, &shapes[i], (uint64_t)(70 + i));
            runner_open(&r, &w, d, 11);
            run_alone(&r);
            for (int s = 0; s < w.s.n_seqs; s++)
                memcpy(w.want[s], w.got[s], (size_t)w.s.len[s] * (size_t)w.out_width * 4);
            runner_close(&r);
            dev_close(&d);
            for (int threads = 1; threads <= 3; threads += 2) {
                d = open_dev(threads, isas[k]);
                runner_open(&r, &w, d, (uint64_t)(20 + threads));
                for (int again = 0; again < (threads > 1 ? 2 : 1); again++) {   /* the second time on pages with stale contents */
                    for (int s = 0; s < w.s.n_seqs; s++)
                        memset(w.got[s], 0xff, (size_t)w.s.len[s] * (size_t)w.out_width * 4);
                    run_mixed(&r, (uint64_t)(threads * 10 + again));
                    for (int s = 0; s < w.s.n_seqs; s++)
                        for (int t = 0; t < w.s.len[s]; t++)
                            if (memcmp(w.want[s] + (size_t)t * (size_t)w.out_width, w.got[s] + (size_t)t * (size_t)w.out_width, (size_t)w.out_width * 4) != 0)
                                fail_msg("shape %d sequence %d position %d on %s with %d threads differs", i, s, t, isas[k], threads);
                }
                runner_close(&r);
                dev_close(&d);
            }
            world_close(&w);
        }
}

/* A long context of one sequence: decode rows are split over partitions. */
static void test_long_decode(void **state)
{
    (void)state;
    struct shape s = {DEV_KV_BF16, 4, 2, 64, 64, 0, 2, {5000, 3000}, 0, false, true, false, DEV_ROPE_HALF};
    struct world w;
    world_open(&w, &s, 5);
    for (int threads = 1; threads <= 4; threads += 3) {
        struct runner r;
        struct dev *d = open_dev(threads, NULL);
        runner_open(&r, &w, d, 3);
        struct step st = {{0, 0}, {s.len[0] - (threads > 1 ? 5 : 0), s.len[1] - (threads > 1 ? 3 : 0)}};
        run_step(&r, &st);
        for (int k = 0; k < 5 && threads > 1; k++) {
            struct step one = {{s.len[0] - 5 + k, s.len[1] - 3 + k}, {1, k < 3}};
            run_step(&r, &one);
        }
        for (int i = 0; i < s.n_seqs; i++) {
            size_t bytes = (size_t)s.len[i] * (size_t)w.out_width * 4;
            if (threads == 1)
                memcpy(w.want[i], w.got[i], bytes);
            else
                assert_memory_equal(w.want[i], w.got[i], bytes);
        }
        runner_close(&r);
        dev_close(&d);
    }
    world_close(&w);
}

/* ---- the other operations ---- */

static void test_row_operations(void **state)
{
    (void)state;
    enum { N = 7, DIM = 20, LD = 24 };
    struct dev *d = open_dev(2, NULL);
    float *x = noise(d, N * LD, 1), *add = noise(d, N * LD, 2), *w = noise(d, DIM, 3), *bias = noise(d, DIM, 4), *table = noise(d, 64 * DIM, 5);
    float *out = dev_alloc(d, N * LD * 4, NULL), *picked = dev_alloc(d, 3 * DIM * 4, NULL), before[N * LD];
    memcpy(before, x, sizeof before);
    int32_t positions[N] = {9, 10, 11, 12, 0, 1, 2}, start[3] = {0, 4, 7}, tables[2] = {1, 2}, rows[3] = {6, 0, 3};
    struct dev_batch b = {.n_tokens = N, .n_seqs = 2, .positions = positions, .seq_start = start, .block_tables = tables, .table_stride = 1};
    struct dev_norm rms = {.kind = DEV_NORM_RMS, .weight = w, .eps = 1e-6f, .dim = DIM, .ld = LD};
    struct dev_norm only_add = {.kind = DEV_NORM_RMS, .dim = DIM, .ld = LD};
    dev_step_begin(d, &b);
    dev_norm(d, &rms, out, x, add, 0.5f, N);
    dev_norm(d, &only_add, NULL, x, add, 2.0f, N);
    assert_true(dev_step_end(d, NULL));
    for (int r = 0; r < N; r++) {
        double square = 0;
        for (int i = 0; i < DIM; i++)
            square += pow((double)before[r * LD + i] + 0.5 * (double)add[r * LD + i], 2);
        for (int i = 0; i < LD; i++) {
            double sum = (double)before[r * LD + i] + 0.5 * (double)add[r * LD + i];
            if (i < DIM) {
                assert_float_equal(out[r * LD + i], sum / sqrt(square / DIM + 1e-6) * (double)w[i], 1e-5);
                assert_float_equal(x[r * LD + i], sum + 2 * (double)add[r * LD + i], 1e-5);
            } else {
                assert_true(out[r * LD + i] == 0);
                assert_memory_equal(&x[r * LD + i], &before[r * LD + i], 4);
            }
        }
    }
    struct dev_norm layer = {.kind = DEV_NORM_LAYER, .weight = w, .bias = bias, .eps = 1e-6f, .dim = DIM};
    memcpy(before, x, sizeof before);
    dev_step_begin(d, &b);
    dev_add_positions(d, x, table, DIM, 2);
    dev_gather_rows(d, picked, x, rows, 3, DIM);
    dev_norm(d, &layer, picked, picked, NULL, 0, 3);
    assert_true(dev_step_end(d, NULL));
    for (int r = 0; r < 3; r++) {
        double y[DIM], mean = 0, var = 0;
        for (int i = 0; i < DIM; i++) {
            y[i] = (double)before[rows[r] * DIM + i] + (double)table[(positions[rows[r]] + 2) * DIM + i];
            mean += y[i] / DIM;
        }
        for (int i = 0; i < DIM; i++)
            var += (y[i] - mean) * (y[i] - mean) / DIM;
        for (int i = 0; i < DIM; i++)
            assert_float_equal(picked[r * DIM + i], (y[i] - mean) / sqrt(var + 1e-6) * (double)w[i] + (double)bias[i], 1e-5);
    }
    float *all[] = {x, add, w, bias, table, out, picked};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        dev_free(d, all[i]);
    dev_close(&d);
}

/* A page copied is the same to attention. */
static void test_kv_copy(void **state)
{
    (void)state;
    struct shape s = {DEV_KV_F32, 2, 1, 16, 16, 0, 2, {20, 20}, 0, false, false, false, DEV_ROPE_HALF};
    struct world w;
    struct runner r;
    struct dev *d = open_dev(2, NULL);
    world_open(&w, &s, 5);
    memcpy(w.qkv[1], w.qkv[0], 20 * (size_t)w.width * 4);
    runner_open(&r, &w, d, 3);
    struct step st = {{0, 0}, {19, 0}}, last = {{19, 19}, {1, 1}};
    run_step(&r, &st);
    dev_kv_copy(d, r.kv, &r.tables[0], &r.tables[r.stride], 1);
    run_step(&r, &last);
    assert_memory_equal(w.got[0] + 19 * w.out_width, w.got[1] + 19 * w.out_width, (size_t)w.out_width * 4);
    runner_close(&r);
    world_close(&w);
    dev_close(&d);
}

static void test_open_errors(void **state)
{
    (void)state;
    struct dev *d = NULL;
    struct err e;
    struct dev_opts bad_name = {.name = "tpu"}, bad_isa = {.isa = "mmx"}, bad_threads = {.n_threads = -1};
    assert_false(dev_open(&d, &bad_name, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_false(dev_open(&d, &bad_isa, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_false(dev_open(&d, &bad_threads, &e));
    assert_null(d);
    for (int k = 0; k < 4; k++) {
        struct dev_opts o = {.n_threads = 1, .isa = isas[k]};
        if (dev_open(&d, &o, &e))
            assert_string_equal(dev_caps(d)->isa, isas[k]);
        else
            assert_int_equal(e.code, ERR_UNSUPPORTED);
        dev_close(&d);
    }
    d = open_dev(1, NULL);
    struct dev_kv *kv;
    struct dev_kv_spec odd = {1, 1, 33, 4, DEV_KV_F32}, huge = {1 << 30, 1 << 30, 256, 1 << 30, DEV_KV_F32};
    assert_false(dev_kv_open(d, &kv, &odd, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_int_equal(dev_kv_block_bytes(&huge), 0);
    assert_false(dev_kv_open(d, &kv, &huge, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    struct dev_kv_spec good = {2, 4, 64, 4, DEV_KV_BF16};
    assert_int_equal(dev_kv_block_bytes(&good), 2 * 4 * 64 * 32 * 2 * 2);
    dev_close(&d);
}

static void test_memory(void **state)
{
    (void)state;
    struct dev *d = open_dev(1, NULL);
    size_t sizes[] = {0, 1, 4096, 1 << 20, 3 << 20};
    void *p[5];
    for (int i = 0; i < 5; i++) {
        p[i] = dev_alloc(d, sizes[i], NULL);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(((unsigned char *)p[i])[k], 0);
    }
    dev_upload(d, p[2], "quire", 6);
    char back[6];
    dev_download(d, back, p[2], 6);
    assert_string_equal(back, "quire");
    for (int i = 0; i < 4; i++)   /* the last one is left to dev_close */
        dev_free(d, p[i]);
    dev_free(d, NULL);
    dev_close(&d);
    assert_null(d);
}

static void count_up(void *ctx, int64_t i, int member)
{
    (void)member;
    atomic_fetch_add((atomic_int *)ctx + i, 1);
}

struct traced { int n, members; bool order; };

static void on_trace(void *ctx, const struct dev_trace_event *ev, int n)
{
    struct traced *t = ctx;
    t->n += n;
    for (int i = 0; i < n; i++) {
        t->members |= 1 << ev[i].member;
        t->order = t->order && ev[i].op && ev[i].end_ns >= ev[i].start_ns;
    }
}

static void test_for_math_trace(void **state)
{
    (void)state;
    struct dev *d = open_dev(3, NULL);
    atomic_int seen[100];
    for (int i = 0; i < 100; i++)
        atomic_init(&seen[i], 0);
    dev_for(d, 100, count_up, seen);
    dev_for(d, 1, count_up, seen);
    dev_for(d, 0, count_up, seen);
    for (int i = 0; i < 100; i++)
        assert_int_equal(atomic_load(&seen[i]), 1 + (i == 0));
    float x[3] = {1, 7, 7};
    assert_int_equal(dev_math(d)->argmax(x, 3), 1);
    assert_true(dev_math(d)->max(x, 3) == 7);
    assert_float_equal(dev_math(d)->weights(NULL, x, 7, 1, -INFINITY, 3), 2 + exp(-6), 1e-6);

    struct traced t = {0, 0, true};
    float *y = noise(d, 5000 * 64, 1), *w = noise(d, 64, 2);
    struct dev_norm p = {.kind = DEV_NORM_RMS, .weight = w, .dim = 64};
    int32_t start[1] = {0};
    struct dev_batch none = {.seq_start = start};
    dev_set_trace(d, on_trace, &t);
    dev_step_begin(d, &none);
    dev_norm(d, &p, y, y, NULL, 0, 5000);
    dev_norm(d, &p, y, y, NULL, 0, 5000);
    assert_true(dev_step_end(d, NULL));
    assert_int_equal(t.n, 6);
    assert_int_equal(t.members, 7);
    assert_true(t.order);
    dev_set_trace(d, NULL, NULL);
    dev_step_begin(d, &none);
    assert_true(dev_step_end(d, NULL));
    assert_int_equal(t.n, 6);
    dev_free(d, y);
    dev_free(d, w);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_errors),     cmocka_unit_test(test_memory),          cmocka_unit_test(test_for_math_trace),
        cmocka_unit_test(test_row_operations),  cmocka_unit_test(test_kv_copy),         cmocka_unit_test(test_attention_value),
        cmocka_unit_test(test_batch_invariance), cmocka_unit_test(test_long_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
