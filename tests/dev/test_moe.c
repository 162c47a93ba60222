/* Mixtures of experts on the CPU device: against arithmetic in double, and every row the same alone as among others. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "dev/dev.h"

enum { MAX_EXPERTS = 10, MAX_WIDTH = 1000 };

struct matrix { float *v; int64_t rows, cols; };

static void read_matrix(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    const struct matrix *m = r->ctx;
    memcpy(out, m->v + (r->ctx_offset + row0) * m->cols, (size_t)(n * m->cols) * sizeof *out);
}

/* Values that every format holds exactly. */
static struct matrix random_matrix(struct rng *g, int64_t rows, int64_t cols)
{
    struct matrix m = { mem_try_alloc((size_t)(rows * cols), sizeof(float)), rows, cols };
    for (int64_t i = 0; i < rows * cols; i++)
        m.v[i] = tensor_bf16_to_f32(tensor_f32_to_bf16((float)(rng_next_normal(g) / sqrt((double)cols))));
    return m;
}

struct setup {
    struct dev *d;
    int32_t hidden, ffn, shared_ffn, n_experts, n_all, n_used, n;
    struct matrix up[MAX_EXPERTS], down[MAX_EXPERTS];
    struct dev_weight *wup[MAX_EXPERTS], *wdown[MAX_EXPERTS];
    struct dev_moe p;
    float *router, *x, *out;
};

static struct dev_weight *pack(struct dev *d, const struct matrix *m, bool gated, enum dev_format format)
{
    struct tensor_rows parts[2];
    struct err e;
    int64_t each = gated ? m->rows / 2 : m->rows;
    for (int i = 0; i < 1 + gated; i++)
        parts[i] = (struct tensor_rows){ .n_rows = each, .n_cols = m->cols, .dtype = DT_F32, .read = read_matrix, .ctx = m, .ctx_offset = i * each };
    struct dev_weight_spec spec = { .format = format, .parts = parts, .n_parts = 1 + gated, .gated = gated };
    struct dev_weight *w;
    if (!dev_weight_pack(d, &w, &spec, "test", &e))
        fail_msg("%s", e.msg);
    return w;
}

static void setup_open(struct setup *s, const char *isa, struct rng *g, enum dev_format format, enum dev_moe_shared shared, bool wide, int32_t n, int threads)
{
    struct err e;
    struct dev_opts o = { .n_threads = threads, .isa = isa };
    memset(s, 0, sizeof *s);
    if (!dev_open(&s->d, &o, &e))
        fail_msg("%s", e.msg);
    s->hidden = wide ? MAX_WIDTH - (int32_t)rng_next_below(g, 200) : 1 + (int32_t)rng_next_below(g, 90);
    s->ffn = 1 + (int32_t)rng_next_below(g, 70);
    s->shared_ffn = 1 + (int32_t)rng_next_below(g, 100);
    s->n_experts = 1 + (int32_t)rng_next_below(g, MAX_EXPERTS - 1);
    s->n_used = 1 + (int32_t)rng_next_below(g, (uint64_t)s->n_experts);
    s->n_all = s->n_experts + (shared != DEV_MOE_NO_SHARED);
    s->n = n;
    for (int32_t i = 0; i < s->n_all; i++) {
        int32_t ffn = i == s->n_experts ? s->shared_ffn : s->ffn;
        s->up[i] = random_matrix(g, 2 * ffn, s->hidden);
        s->down[i] = random_matrix(g, s->hidden, ffn);
        /* A shared expert is often kept in a finer format. */
        enum dev_format own = i == s->n_experts && format > DEV_FMT_BF16 && rng_next_below(g, 2) ? DEV_FMT_BF16 : format;
        s->wup[i] = pack(s->d, &s->up[i], true, own);
        s->wdown[i] = pack(s->d, &s->down[i], false, own);
    }
    s->p = (struct dev_moe){ .n_experts = s->n_experts, .n_used = s->n_used, .shared = shared, .renormalize = rng_next_below(g, 2), .routed_scale = 0.75f, .act = DEV_ACT_SILU,
                             .gate_up = s->wup, .down = s->wdown };
    if (s->n_experts % 2 == 0 && rng_next_below(g, 2)) {
        s->p.n_groups = s->n_experts / 2;
        s->p.n_groups_used = (s->n_used + 1) / 2 + (int32_t)rng_next_below(g, (uint64_t)(s->p.n_groups - (s->n_used + 1) / 2 + 1));
    }
    int32_t width = s->n_experts + (shared == DEV_MOE_SHARED_GATED);
    s->router = dev_alloc(s->d, (size_t)(n * width) * sizeof(float), &e);
    s->x = dev_alloc(s->d, (size_t)(n * s->hidden) * sizeof(float), &e);
    s->out = dev_alloc(s->d, (size_t)(n * s->hidden) * sizeof(float), &e);
    for (int32_t i = 0; i < n * width; i++)
        s->router[i] = (float)(2 * rng_next_normal(g));
    for (int32_t i = 0; i < n * s->hidden; i++)
        s->x[i] = tensor_bf16_to_f32(tensor_f32_to_bf16((float)rng_next_normal(g)));
}

static void setup_close(struct setup *s)
{
    for (int32_t i = 0; i < s->n_all; i++) {
        mem_free(s->up[i].v);
        mem_free(s->down[i].v);
        dev_weight_free(s->d, &s->wup[i]);
        dev_weight_free(s->d, &s->wdown[i]);
    }
    dev_free(s->d, s->router);
    dev_free(s->d, s->x);
    dev_free(s->d, s->out);
    dev_close(&s->d);
}

static void run(struct setup *s, int32_t from, int32_t n, float *out)
{
    int32_t zero[2] = { 0, n }, table = 1, width = s->n_experts + (s->p.shared == DEV_MOE_SHARED_GATED);
    struct dev_batch b = { .n_tokens = n, .n_seqs = 1, .token_ids = zero, .positions = zero, .seq_start = zero, .block_tables = &table, .table_stride = 1 };
    struct err e;
    dev_step_begin(s->d, &b);
    dev_moe(s->d, &s->p, s->router + (int64_t)from * width, s->x + (int64_t)from * s->hidden, out, 0.5f, n);
    if (!dev_step_end(s->d, &e))
        fail_msg("%s", e.msg);
}

static double dot(const float *a, const double *b, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void add_expert(const struct setup *s, int32_t e, double weight, const float *x, double *y)
{
    double xd[MAX_WIDTH], h[MAX_WIDTH];
    int32_t ffn = (int32_t)s->down[e].cols;
    for (int32_t i = 0; i < s->hidden; i++)
        xd[i] = x[i];
    for (int32_t j = 0; j < ffn; j++) {
        double gate = dot(s->up[e].v + (int64_t)j * s->hidden, xd, s->hidden);
        h[j] = gate / (1 + exp(-gate)) * dot(s->up[e].v + (int64_t)(ffn + j) * s->hidden, xd, s->hidden);
    }
    for (int32_t i = 0; i < s->hidden; i++)
        y[i] += weight * dot(s->down[e].v + (int64_t)i * ffn, h, ffn);
}

/* Pairs of experts are the groups: those outside the best ones cannot be chosen. */
static void mask_groups(const struct setup *s, const float *logits, bool *taken)
{
    for (int32_t e = 0; e < s->n_experts; e++)
        taken[e] = true;
    for (int32_t k = 0; k < s->p.n_groups_used; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < s->n_experts; e++)
            if (taken[e] && (best < 0 || logits[e] > logits[best]))
                best = e;
        taken[best / 2 * 2] = taken[best / 2 * 2 + 1] = false;
    }
}

static void expected(const struct setup *s, int32_t row, double *y)
{
    int32_t width = s->n_experts + (s->p.shared == DEV_MOE_SHARED_GATED);
    const float *logits = s->router + (int64_t)row * width, *x = s->x + (int64_t)row * s->hidden;
    double total = 0, used = 0;
    bool taken[MAX_EXPERTS] = { false }, chosen[MAX_EXPERTS] = { false };
    if (s->p.n_groups)
        mask_groups(s, logits, taken);
    for (int32_t e = 0; e < s->n_experts; e++)
        total += exp(logits[e]);
    for (int32_t r = 0; r < s->n_used; r++) {
        int32_t best = -1;
        for (int32_t e = 0; e < s->n_experts; e++)
            if (!taken[e] && (best < 0 || logits[e] > logits[best]))
                best = e;
        taken[best] = chosen[best] = true;
        used += exp(logits[best]);
    }
    for (int32_t e = 0; e < s->n_experts; e++)
        if (chosen[e])
            add_expert(s, e, 0.75 * exp(logits[e]) / (s->p.renormalize ? used : total), x, y);
    if (s->p.shared != DEV_MOE_NO_SHARED)
        add_expert(s, s->n_experts, s->p.shared == DEV_MOE_SHARED ? 1.0 : 1 / (1 + exp(-logits[s->n_experts])), x, y);
}

static void check(const char *isa, enum dev_format format, enum dev_moe_shared shared, struct rng *g, bool wide, int32_t n)
{
    struct setup s;
    setup_open(&s, isa, g, format, shared, wide, n, 3);
    run(&s, 0, n, s.out);
    double tolerance = format == DEV_FMT_F32 ? 2e-5 : format <= DEV_FMT_BF16 ? 3e-2 : format >= DEV_FMT_I4 && format <= DEV_FMT_U4_G128 ? 1 : 0.4;
    for (int32_t row = 0; row < n; row += wide ? 60 : 1) {
        double y[MAX_WIDTH] = { 0 };
        expected(&s, row, y);
        for (int32_t i = 0; i < s.hidden; i++)
            if (!(fabs(0.5 * y[i] - s.out[(int64_t)row * s.hidden + i]) < tolerance))
                fail_msg("%s format %d row %d of %d, %d: %g, expected %g", isa ? isa : "best", (int)format, row, n, i,
                         s.out[(int64_t)row * s.hidden + i], 0.5 * y[i]);
    }
    struct err e;
    float *part = dev_alloc(s.d, (size_t)(n * s.hidden) * sizeof(float), &e);
    for (int32_t from = 0, len; from < n; from += wide ? len + 60 : len) {
        len = 1 + (int32_t)rng_next_below(g, 5);
        len = len < n - from ? len : n - from;
        memset(part, 0, (size_t)(len * s.hidden) * sizeof *part);
        run(&s, from, len, part);
        assert_memory_equal(part, s.out + (int64_t)from * s.hidden, (size_t)(len * s.hidden) * sizeof *part);
    }
    dev_free(s.d, part);
    setup_close(&s);
}

static void test_moe(void **state)
{
    (void)state;
    static const char *const isas[] = { "scalar", "avx2", NULL };
    struct rng g = { .state = 3 };
    for (int i = 0; i < 3; i++)
        for (int f = 0; f < DEV_FMT_COUNT; f++)
            for (int round = 0; round < 6; round++)
                check(isas[i], (enum dev_format)f, (enum dev_moe_shared)(round % 3), &g, false, round == 5 ? 700 : 1 + (int32_t)rng_next_below(&g, 60));
}

/* So many columns that a team of three adds outputs expert by expert; a larger one does not, and has the same bits. */
static void check_wide(const char *isa, enum dev_format format, enum dev_moe_shared shared, struct rng *g)
{
    struct rng again = *g;
    struct setup a, b;
    check(isa, format, shared, g, true, 700);
    *g = again;
    setup_open(&a, isa, g, format, shared, true, 700, 3);
    setup_open(&b, isa, &again, format, shared, true, 700, 7);
    run(&a, 0, 700, a.out);
    run(&b, 0, 700, b.out);
    assert_memory_equal(a.out, b.out, (size_t)(700 * a.hidden) * sizeof *a.out);
    setup_close(&a);
    setup_close(&b);
}

static void test_wide(void **state)
{
    (void)state;
    static const char *const isas[] = { "scalar", "avx2", NULL };
    struct rng g = { .state = 4 };
    for (int i = 0; i < 3; i++)
        for (int f = i == 2 ? 0 : DEV_FMT_I8 + i; f < DEV_FMT_COUNT; f += i == 2 ? 1 : 4)
            check_wide(isas[i], (enum dev_format)f, (enum dev_moe_shared)(f % 3), &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_moe), cmocka_unit_test(test_wide) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
