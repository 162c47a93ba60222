/* Attention kernels: every instruction set and KV type against the scalar set, and the promise that a row's
 * result depends on that row alone, bit for bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "base/rng.h"
#include "guard.h"
#include "kern/attn.h"

enum { MAX_ROWS = 20 };
static const int dims[] = {2, 6, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 192, 256};
static const char *const type_names[] = {"f32", "f16", "bf16", "i8", "f8"};

/* Pages of one partition, rows of queries, and what the rows see. */
struct part_case {
    enum kern_kv type;
    int dim, wide, n_rows, n_written;
    struct guard g_slab[KERN_ATTN_PAGES];
    unsigned char *slabs[KERN_ATTN_PAGES];
    float q[MAX_ROWS * KERN_ATTN_MAX_DIM];
    int32_t lo[MAX_ROWS], hi[MAX_ROWS], rel[MAX_ROWS];
    float slopes[MAX_ROWS];
    float softcap, scale;
    bool sloped;
};

static void fill(struct rng *r, float *x, int n, float scale)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)rng_next_normal(r) * scale;
}

static int below(struct rng *r, int n)
{
    return (int)rng_next_below(r, (uint64_t)n);
}

/* Pages as after earlier use: any bytes in K, finite numbers in V, zeros in V's padding. */
static void make_stale(struct part_case *c, const struct kern_attn *kern, float k_stale, float v_stale)
{
    float k[KERN_ATTN_MAX_DIM], v[KERN_ATTN_MAX_DIM];
    for (int d = 0; d < c->dim; d++) {
        k[d] = k_stale;
        v[d] = d % 2 ? v_stale : -v_stale;
    }
    size_t bytes = kern_attn_slab_bytes(c->type, c->dim);
    for (int p = 0; p < KERN_ATTN_PAGES; p++) {
        memset(c->slabs[p], 0, bytes);
        for (int t = 0; t < KERN_ATTN_PAGE; t++)
            kern->write(c->slabs[p], t, k, v, c->dim);
    }
}

static void write_tokens(struct part_case *c, const struct kern_attn *kern, uint64_t seed)
{
    struct rng r = {seed};
    float k[KERN_ATTN_MAX_DIM], v[KERN_ATTN_MAX_DIM];
    for (int t = 0; t < c->n_written; t++) {
        fill(&r, k, c->dim, 1);
        fill(&r, v, c->dim, 1);
        kern->write(c->slabs[t / KERN_ATTN_PAGE], t % KERN_ATTN_PAGE, k, v, c->dim);
    }
}

static void case_open(struct part_case *c, const struct kern_attn *kern, enum kern_kv type, uint64_t seed)
{
    struct rng r = {seed};
    c->type = type;
    c->dim = dims[below(&r, sizeof dims / sizeof *dims)];
    c->wide = kern_attn_dim(c->dim);
    c->n_rows = 1 + below(&r, MAX_ROWS);
    c->n_written = 1 + below(&r, KERN_ATTN_PART);
    c->scale = (float)(1 / sqrt(c->dim) * (0.5 + 2 * rng_next_unit(&r)));
    c->softcap = below(&r, 4) == 0 ? 3.0f : 0.0f;
    c->sloped = below(&r, 4) == 0;
    for (int p = 0; p < KERN_ATTN_PAGES; p++)
        c->slabs[p] = guard_alloc(&c->g_slab[p], kern_attn_slab_bytes(type, c->dim), 64);
    make_stale(c, kern, below(&r, 2) ? NAN : 3e4f, 1e4f);
    write_tokens(c, kern, seed + 1);
    fill(&r, c->q, c->n_rows * c->dim, 1);
    int window = below(&r, 2) ? 1 + below(&r, 300) : 0;
    for (int i = 0; i < c->n_rows; i++) {
        int end = c->n_written - (below(&r, 3) ? 0 : below(&r, c->n_written));
        c->hi[i] = below(&r, 12) ? end : 0;
        c->lo[i] = window && end > window ? end - window : 0;
        c->rel[i] = end - 1;
        c->slopes[i] = -(float)rng_next_unit(&r);
    }
}

static void case_close(struct part_case *c)
{
    for (int p = 0; p < KERN_ATTN_PAGES; p++)
        guard_free(&c->g_slab[p]);
}

struct result { float m[MAX_ROWS], l[MAX_ROWS], o[MAX_ROWS * KERN_ATTN_MAX_DIM]; };

/* Rows [row, row + n) of the case in one call.  into: as part of a merge. */
static void run(const struct part_case *c, const struct kern_attn *kern, int row, int n, bool into, bool ahead, struct result *out)
{
    struct guard g_work, g_q, g_o;
    size_t q_row = (size_t)(kern->q_bytes * c->wide);
    unsigned char *q = guard_alloc(&g_q, q_row * (size_t)n, 4);
    float *o = guard_alloc(&g_o, (size_t)(n * c->wide) * 4, 4);
    struct kern_attn_part p = {
        .head_dim = c->dim, .n_rows = n, .q = q, .lo = c->lo + row, .hi = c->hi + row, .scale = c->scale, .softcap = c->softcap,
        .slopes = c->sloped ? c->slopes + row : NULL, .rel = c->rel + row, .into = into,
        .m = out->m + row, .l = out->l + row, .o = o, .work = guard_alloc(&g_work, KERN_ATTN_WORK_BYTES, 64),
    };
    int lo = KERN_ATTN_PART, hi = 0;
    for (int i = 0; i < n; i++) {
        kern->pack_q(q + (size_t)i * q_row, c->q + (row + i) * c->dim, c->dim);
        if (p.lo[i] < p.hi[i]) {
            lo = p.lo[i] < lo ? p.lo[i] : lo;
            hi = p.hi[i] > hi ? p.hi[i] : hi;
        }
        if (into) {
            p.m[i] = -INFINITY;
            p.l[i] = 0;
            memset(o + i * c->wide, 0, (size_t)c->wide * 4);
        }
    }
    for (int i = 0; i < KERN_ATTN_PAGES; i++) {
        bool seen = i >= lo / KERN_ATTN_PAGE && i * KERN_ATTN_PAGE < hi;
        p.slabs[i] = seen ? c->slabs[i] : NULL;
        p.next[i] = ahead ? c->slabs[KERN_ATTN_PAGES - 1 - i] : NULL;
    }
    kern->part(&p);
    memcpy(out->o + row * c->wide, o, (size_t)(n * c->wide) * 4);
    guard_free(&g_work);
    guard_free(&g_q);
    guard_free(&g_o);
}

static void finished(const struct part_case *c, const struct kern_attn *kern, const struct result *r, int row, const float *sink, float *out)
{
    struct guard g;
    float *x = guard_alloc(&g, (size_t)c->dim * 4, 4);
    kern->finish(x, r->m[row], r->l[row], r->o + row * c->wide, sink, c->dim);
    memcpy(out, x, (size_t)c->dim * 4);
    guard_free(&g);
}

/* Relative; a row whose values cancel counts as one of size 0.1. */
static double distance(const float *a, const float *b, int n)
{
    double d = 0, s = 0.01 * n;
    for (int i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        s += pow((double)a[i], 2);
    }
    return sqrt(d / s);
}

static const struct kern_attn *ref_of(enum kern_kv t)
{
    return kern_attn_table(KERN_ISA_SCALAR, t);
}

static void test_against_reference(void **state)
{
    (void)state;
    static struct result want, got;
    static struct part_case c;
    for (int isa = KERN_ISA_SCALAR + 1; isa <= (int)kern_isa_best(); isa++)
        for (int t = 0; t < KERN_KV_COUNT; t++) {
            const struct kern_attn *kern = kern_attn_table((enum kern_isa)isa, (enum kern_kv)t), *ref = ref_of((enum kern_kv)t);
            double limit = kern->q_bytes == 2 ? 2e-2 : 2e-5, worst = 0;
            for (int i = 0; i < 300; i++) {
                case_open(&c, kern, (enum kern_kv)t, (uint64_t)(1000 + i));
                memset(&got, 0xff, sizeof got);
                run(&c, ref, 0, c.n_rows, false, false, &want);
                run(&c, kern, 0, c.n_rows, i % 2, i % 3 == 0, &got);
                for (int r = 0; r < c.n_rows; r++) {
                    float a[KERN_ATTN_MAX_DIM], b[KERN_ATTN_MAX_DIM], sink = 0.5f;
                    if (c.lo[r] >= c.hi[r]) {
                        assert_true(got.m[r] == -INFINITY && got.l[r] == 0);
                        continue;
                    }
                    finished(&c, ref, &want, r, i % 5 ? NULL : &sink, a);
                    finished(&c, kern, &got, r, i % 5 ? NULL : &sink, b);
                    double dist = distance(a, b, c.dim);
                    worst = dist > worst || dist != dist ? dist : worst;
                    if (!(dist < limit))
                        fail_msg("%s %s case %d row %d (dim %d, rows %d, [%d, %d)): off by %g", kern_isa_name((enum kern_isa)isa), type_names[t], i, r,
                                 c.dim, c.n_rows, (int)c.lo[r], (int)c.hi[r], dist);
                }
                case_close(&c);
            }
            print_message("%s %s: worst distance %.2g\n", kern_isa_name((enum kern_isa)isa), type_names[t], worst);
        }
}

/* Each row alone, and rows cut elsewhere, on pages with other garbage: the same bits. */
static void test_row_alone(void **state)
{
    (void)state;
    static struct result want, got;
    static struct part_case c;
    for (int isa = KERN_ISA_SCALAR; isa <= (int)kern_isa_best(); isa++)
        for (int t = 0; t < KERN_KV_COUNT; t++) {
            const struct kern_attn *kern = kern_attn_table((enum kern_isa)isa, (enum kern_kv)t);
            for (int i = 0; i < 100; i++) {
                case_open(&c, kern, (enum kern_kv)t, (uint64_t)(5000 + i));
                run(&c, kern, 0, c.n_rows, false, false, &want);
                make_stale(&c, kern, i % 2 ? 1.0f : NAN, -77.0f);
                write_tokens(&c, kern, (uint64_t)(5000 + i + 1));
                for (int row = 0, n; row < c.n_rows; row += n) {
                    n = i % 2 || row + 2 > c.n_rows ? 1 : 2;
                    run(&c, kern, row, n, i % 3 == 0, i % 4 == 0, &got);
                }
                for (int r = 0; r < c.n_rows; r++) {
                    float a[KERN_ATTN_MAX_DIM], b[KERN_ATTN_MAX_DIM];
                    if (c.lo[r] >= c.hi[r])
                        continue;
                    finished(&c, kern, &want, r, NULL, a);
                    finished(&c, kern, &got, r, NULL, b);
                    assert_memory_equal(&want.m[r], &got.m[r], 4);
                    assert_memory_equal(&want.l[r], &got.l[r], 4);
                    assert_memory_equal(a, b, (size_t)c.dim * 4);
                }
                case_close(&c);
            }
        }
}

/* The scalar set against float64 softmax over f32 KV, with soft cap, slopes and sink. */
static void test_reference_value(void **state)
{
    (void)state;
    static struct result got;
    static struct part_case c;
    const struct kern_attn *ref = ref_of(KERN_KV_F32);
    for (int i = 0; i < 50; i++) {
        case_open(&c, ref, KERN_KV_F32, (uint64_t)(300 + i));
        run(&c, ref, 0, c.n_rows, false, false, &got);
        for (int r = 0; r < c.n_rows; r++) {
            double o[KERN_ATTN_MAX_DIM] = {0}, sum = exp(0.25);
            float out[KERN_ATTN_MAX_DIM], sink = 0.25f;
            for (int t = c.lo[r]; t < c.hi[r]; t++) {
                const float *k = (const float *)(void *)c.slabs[t / 32], *v = k + 32 * c.wide;
                double s = 0;
                for (int d = 0; d < c.dim; d++)
                    s += (double)c.q[r * c.dim + d] * (double)k[d * 32 + t % 32];
                s *= (double)c.scale;
                s = c.softcap > 0 ? (double)c.softcap * tanh(s / (double)c.softcap) : s;
                s += c.sloped ? (double)c.slopes[r] * (t - c.rel[r]) : 0;
                sum += exp(s);
                for (int d = 0; d < c.dim; d++)
                    o[d] += exp(s) * (double)v[t % 32 * c.wide + d];
            }
            if (c.lo[r] >= c.hi[r])
                continue;
            finished(&c, ref, &got, r, &sink, out);
            for (int d = 0; d < c.dim; d++)
                assert_true(fabs(o[d] / sum - (double)out[d]) < 2e-5);
        }
        case_close(&c);
    }
}

/* Stored numbers: rounding, saturation, and no NaN in V; the same bytes on every instruction set. */
static void test_write(void **state)
{
    (void)state;
    for (int isa = KERN_ISA_SCALAR; isa <= (int)kern_isa_best(); isa++)
        for (int t = 0; t < KERN_KV_COUNT; t++)
            for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
                const struct kern_attn *kern = kern_attn_table((enum kern_isa)isa, (enum kern_kv)t), *ref = ref_of((enum kern_kv)t);
                size_t bytes = kern_attn_slab_bytes((enum kern_kv)t, dims[i]);
                struct guard ga, gb, gk, gv;
                unsigned char *a = guard_alloc(&ga, bytes, 64), *b = guard_alloc(&gb, bytes, 64);
                float *k = guard_alloc(&gk, (size_t)dims[i] * 4, 4), *v = guard_alloc(&gv, (size_t)dims[i] * 4, 4);
                struct rng r = {42 + i};
                for (int n = 0; n < 40; n++) {
                    fill(&r, k, dims[i], 10);
                    fill(&r, v, dims[i], 10);
                    k[0] = n % 4 == 0 ? INFINITY : 1e5f;
                    v[0] = n % 4 == 0 ? NAN : n % 4 == 1 ? INFINITY : -1e5f;
                    int slot = below(&r, KERN_ATTN_PAGE);
                    ref->write(a, slot, k, v, dims[i]);
                    kern->write(b, slot, k, v, dims[i]);
                    assert_memory_equal(a, b, bytes);
                }
                guard_free(&ga);
                guard_free(&gb);
                guard_free(&gk);
                guard_free(&gv);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_value),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_row_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
