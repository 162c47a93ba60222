/* Row functions: every instruction set gives the scalar set's bits, stays inside its arrays, and is right. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "base/rng.h"
#include "exp_check.h"
#include "guard.h"
#include "kern/row.h"

enum { MAX_N = 3000 };
static const int sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 48, 63, 64, 65, 80, 127, 128, 192, 576, 1000, 2048, 2999};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

struct rows {
    struct guard g[6];
    float *x, *w, *b, *y, *out;
    int32_t *idx;
    int n;
};

static void rows_open(struct rows *r, int n, uint64_t seed)
{
    float **p[5] = {&r->x, &r->w, &r->b, &r->y, &r->out};
    struct rng rng = {seed};
    r->n = n;
    for (int i = 0; i < 5; i++)
        *p[i] = guard_alloc(&r->g[i], (size_t)n * 4, 4);
    r->idx = guard_alloc(&r->g[5], (size_t)n * 4, 4);
    for (int i = 0; i < n; i++) {
        r->x[i] = (float)rng_next_normal(&rng) * 3;
        r->w[i] = (float)rng_next_normal(&rng);
        r->b[i] = (float)rng_next_normal(&rng);
        r->y[i] = (float)rng_next_normal(&rng);
    }
}

static void rows_close(struct rows *r)
{
    for (int i = 0; i < 6; i++)
        guard_free(&r->g[i]);
}

static void same(const char *what, int isa, int n, const float *a, const float *b)
{
    if (memcmp(a, b, (size_t)n * 4) == 0)
        return;
    for (int i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], 4) != 0)
            fail_msg("%s, %s, n = %d: element %d is %.9g, expected %.9g", what, kern_isa_name((enum kern_isa)isa), n, i, (double)b[i], (double)a[i]);
}

/* Runs fn for each instruction set better than scalar and each size. */
static void each(void (*fn)(const struct kern_row *k, int isa, struct rows *ref, struct rows *r))
{
    for (int isa = KERN_ISA_SCALAR; isa <= (int)kern_isa_best(); isa++)
        for (int i = 0; i < N_SIZES; i++) {
            struct rows ref, r;
            rows_open(&ref, sizes[i], 100 + (uint64_t)i);
            rows_open(&r, sizes[i], 100 + (uint64_t)i);
            fn(kern_row_table((enum kern_isa)isa), isa, &ref, &r);
            rows_close(&ref);
            rows_close(&r);
        }
}

static void check_norms(const struct kern_row *k, int isa, struct rows *ref, struct rows *r)
{
    int n = r->n;
    kern_row_ref.rms_norm(ref->out, ref->x, ref->w, 1e-5f, n);
    k->rms_norm(r->out, r->x, r->w, 1e-5f, n);
    same("rms_norm", isa, n, ref->out, r->out);
    kern_row_ref.layer_norm(ref->out, ref->x, ref->w, ref->b, 1e-5f, n);
    k->layer_norm(r->out, r->x, r->w, r->b, 1e-5f, n);
    same("layer_norm", isa, n, ref->out, r->out);
    kern_row_ref.layer_norm(ref->out, ref->x, ref->w, NULL, 1e-5f, n);
    k->layer_norm(r->out, r->x, r->w, NULL, 1e-5f, n);
    same("layer_norm without bias", isa, n, ref->out, r->out);
    kern_row_ref.add_scaled(ref->x, ref->y, 0.37f, n);
    k->add_scaled(r->x, r->y, 0.37f, n);
    same("add_scaled", isa, n, ref->x, r->x);
    k->rms_norm(r->x, r->x, r->w, 1e-5f, n);
    kern_row_ref.rms_norm(ref->x, ref->x, ref->w, 1e-5f, n);
    same("rms_norm in place", isa, n, ref->x, r->x);
}

static void test_norms(void **state)
{
    (void)state;
    each(check_norms);
}

static void test_norm_values(void **state)
{
    (void)state;
    struct rows r;
    rows_open(&r, 777, 5);
    double sum = 0, square = 0, var = 0;
    for (int i = 0; i < r.n; i++) {
        sum += (double)r.x[i];
        square += (double)r.x[i] * (double)r.x[i];
    }
    for (int i = 0; i < r.n; i++)
        var += pow((double)r.x[i] - sum / r.n, 2);
    kern_row_ref.rms_norm(r.out, r.x, r.w, 0.1f, r.n);
    for (int i = 0; i < r.n; i++)
        assert_float_equal(r.out[i], (double)r.x[i] / sqrt(square / r.n + 0.1) * (double)r.w[i], 1e-5);
    kern_row_ref.layer_norm(r.out, r.x, r.w, r.b, 0.1f, r.n);
    for (int i = 0; i < r.n; i++)
        assert_float_equal(r.out[i], ((double)r.x[i] - sum / r.n) / sqrt(var / r.n + 0.1) * (double)r.w[i] + (double)r.b[i], 1e-5);
    rows_close(&r);
}

static void check_rope(const struct kern_row *k, int isa, struct rows *ref, struct rows *r)
{
    int n = r->n & ~1;   /* w, b stand for the cosines and sines; their ends lie in the guarded arrays */
    const float *cos = r->w + r->n - n / 2, *sin = r->b + r->n - n / 2;
    float *x = r->x + r->n - n, *x_ref = ref->x + r->n - n;
    kern_row_ref.rope_half(x_ref, cos, sin, n);
    k->rope_half(x, cos, sin, n);
    same("rope_half", isa, n, x_ref, x);
    kern_row_ref.rope_interleaved(x_ref, cos, sin, n);
    k->rope_interleaved(x, cos, sin, n);
    same("rope_interleaved", isa, n, x_ref, x);
}

static void test_rope(void **state)
{
    (void)state;
    each(check_rope);
    float x[4] = {1, 2, 3, 4}, c[2] = {0, 1}, s[2] = {1, 0};
    kern_row_ref.rope_half(x, c, s, 4);
    float half[4] = {-3, 2, 1, 4};
    same("rope_half", 0, 4, half, x);
    float y[4] = {1, 2, 3, 4};
    kern_row_ref.rope_interleaved(y, c, s, 4);
    float inter[4] = {-2, 1, 3, 4};
    same("rope_interleaved", 0, 4, inter, y);
}

static void check_search(const struct kern_row *k, int isa, struct rows *ref, struct rows *r)
{
    (void)ref;
    int n = r->n;
    float *x = r->x;
    int32_t best = 0;
    for (int i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    assert_int_equal(k->argmax(x, n), best);
    assert_true(k->max(x, n) == x[best]);
    float threshold = x[n / 2];
    int32_t count = 0;
    for (int i = 0; i < n; i++)
        count += x[i] >= threshold;
    for (int32_t cap = 0; cap <= count; cap += cap + 1) {
        memset(r->idx, 0xff, (size_t)n * 4);
        assert_int_equal(k->above(x, n, threshold, r->idx + n - cap, cap), count);
        int32_t at = 0;
        for (int i = 0; i < n && at < cap; i++)
            if (x[i] >= threshold)
                assert_int_equal(r->idx[n - cap + at++], i);
        assert_true(cap == n || r->idx[n - cap - 1] == -1);
    }
    /* Ties, NaN, infinities. */
    x[n - 1] = x[n / 2] = INFINITY;
    x[0] = n > 2 ? NAN : x[0];
    assert_int_equal(k->argmax(x, n), n / 2);
    assert_true(k->max(x, n) == INFINITY);
    for (int i = 0; i < n; i++)
        x[i] = NAN;
    assert_int_equal(k->argmax(x, n), 0);
    assert_true(k->max(x, n) == -INFINITY);
    assert_int_equal(k->above(x, n, -INFINITY, r->idx, n), 0);
    x[n - 1] = -INFINITY;
    assert_int_equal(k->argmax(x, n), n - 1);
    (void)isa;
}

static void test_search(void **state)
{
    (void)state;
    each(check_search);
}

static void check_mask(const struct kern_row *k, int isa, struct rows *ref, struct rows *r)
{
    int n = r->n;
    struct guard g;
    struct rng rng = {77 + (uint64_t)n};
    uint32_t *bits = guard_alloc(&g, (size_t)((n + 31) / 32) * 4, 4);
    for (int i = 0; i < (n + 31) / 32; i++)
        bits[i] = (uint32_t)rng_next(&rng);
    r->x[n / 2] = ref->x[n / 2] = -INFINITY;
    k->mask(r->out, r->x, bits, n);
    for (int i = 0; i < n; i++) {
        float want = bits[i / 32] >> (i % 32) & 1 ? ref->x[i] : -INFINITY;
        same("mask", isa, 1, &want, &r->out[i]);
    }
    k->mask(r->x, r->x, bits, n);
    same("mask in place", isa, n, r->out, r->x);
    guard_free(&g);
}

static void test_mask(void **state)
{
    (void)state;
    each(check_mask);
}

static void same_sum(const char *what, int isa, int n, double a, double b)
{
    if (memcmp(&a, &b, sizeof a) != 0)
        fail_msg("%s, %s, n = %d: %.17g, expected %.17g", what, kern_isa_name((enum kern_isa)isa), n, b, a);
}

static void check_weights(const struct kern_row *k, int isa, struct rows *ref, struct rows *r)
{
    int n = r->n;
    float max = kern_row_ref.max(r->x, n), floors[] = {-INFINITY, r->x[n / 2], 0.0f, max, INFINITY}, scale = n % 2 ? 1 : 1.7f;
    r->x[n / 2] = ref->x[n / 2] = max - 100;
    r->x[n / 3] = ref->x[n / 3] = n > 40 ? NAN : -INFINITY;
    for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
        double a = kern_row_ref.weights(ref->out, ref->x, max, scale, floors[i], n), want = 0;
        same_sum("weights", isa, n, a, k->weights(r->out, r->x, max, scale, floors[i], n));
        same("weights", isa, n, ref->out, r->out);
        same_sum("weights without out", isa, n, a, k->weights(NULL, r->x, max, scale, floors[i], n));
        for (int j = 0; j < n; j++)
            want += r->x[j] >= floors[i] ? exp((double)((r->x[j] - max) * scale)) : 0;
        assert_true(fabs(a - want) <= 2e-7 * want + 1e-37);
        float lo = floors[i], hi = lo + 1;
        int32_t count = 0, at = 0;
        for (int j = 0; j < n; j++)
            count += r->x[j] >= lo && r->x[j] < hi;
        int32_t cap = count - count / 3;
        assert_int_equal(k->between(r->x, n, lo, hi, r->idx + n - cap, cap), count);
        for (int j = 0; j < n && at < cap; j++)
            if (r->x[j] >= lo && r->x[j] < hi)
                assert_int_equal(r->idx[n - cap + at++], j);
    }
    k->weights(r->y, r->x, max, scale, -INFINITY, n);
    memcpy(ref->y, r->x, (size_t)n * 4);
    k->weights(ref->y, ref->y, max, scale, -INFINITY, n);
    same("weights in place", isa, n, r->y, ref->y);
    for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
        double a = kern_row_ref.sum_above(r->x, r->y, floors[i], n), want = 0;
        same_sum("sum_above", isa, n, a, k->sum_above(r->x, r->y, floors[i], n));
        for (int j = 0; j < n; j++)
            want += r->x[j] >= floors[i] ? (double)r->y[j] : 0;
        assert_true(fabs(a - want) <= 1e-12 * want);
    }
    double a = kern_row_ref.moment(r->x, r->y, max, n), want = 0;
    same_sum("moment", isa, n, a, k->moment(r->x, r->y, max, n));
    for (int j = 0; j < n; j++)
        want += r->y[j] > 0 ? (double)r->y[j] * (double)(r->x[j] - max) : 0;
    assert_true(fabs(a - want) <= 1e-6 * fabs(want));
    kern_row_ref.nearness(ref->out, r->x, r->y, -1.5f, n);
    k->nearness(r->out, r->x, r->y, -1.5f, n);
    same("nearness", isa, n, ref->out, r->out);
    for (int j = 0; j < n; j++)
        assert_true(r->out[j] == (r->y[j] > 0 ? -fabsf(r->x[j] + 1.5f) : -INFINITY));
    assert_true(k->weights(NULL, r->x, 0.0f, 1, -1.0f, 0) == 0.0);
    for (int i = 0; i < n; i++)
        r->x[i] = -INFINITY;
    assert_true(k->weights(r->out, r->x, 0.0f, 1, -INFINITY, n) == 0.0);
}

static void test_weights(void **state)
{
    (void)state;
    each(check_weights);
}

/* One split by a set, against the scalar set's and what it must be; the lists are poisoned and end at guard pages. */
static void check_one_split(const struct kern_row *k, int isa, struct rows *ref, struct rows *r, const float *w, const float *near, float lo, float hi)
{
    int n = r->n, found = 0;
    double sum, sum_ref, want = 0;
    memset(r->out, 0xff, (size_t)n * 4);
    memset(r->b, 0xff, (size_t)n * 4);
    int n_ref = kern_row_ref.split(r->x, w, n, near, lo, hi, ref->out, ref->b, &sum_ref);
    assert_int_equal(k->split(r->x, w, n, near, lo, hi, r->out, r->b, &sum), n_ref);
    same_sum("split", isa, n, sum_ref, sum);
    same("split keys", isa, n_ref, ref->out, r->out);
    if (w)
        same("split weights", isa, n_ref, ref->b, r->b);
    else
        for (int i = 0; i < n; i++)
            assert_true(isnan(r->b[i]));
    for (int i = 0; i < n; i++) {
        float weight = w ? w[i] : 1, key = r->x[i];
        if (near)
            key = weight > 0 ? -fabsf(key - *near) : -INFINITY;
        want += key >= hi ? (double)weight : 0;
        if (!(key >= lo && key < hi))
            continue;
        assert_true(found < n_ref && r->out[found] == key && (!w || r->b[found] == weight));
        found++;
    }
    assert_int_equal(found, n_ref);
    assert_true(fabs(sum - want) <= 1e-12 * want);
}

static void check_split(const struct kern_row *k, int isa, struct rows *ref, struct rows *r)
{
    int n = r->n;
    float near = 0.7f, ends[] = {-INFINITY, -4, -1.5f, -0.25f, 0, 0.8f, 3, INFINITY};
    enum { ENDS = sizeof ends / sizeof *ends };
    r->x[n / 2] = -INFINITY;
    r->x[n / 3] = n > 40 ? NAN : 1;
    k->weights(r->y, r->x, kern_row_ref.max(r->x, n), 1, -2, n);
    for (int lo = 0; lo < ENDS; lo++)
        for (int hi = lo; hi < ENDS; hi++) {
            check_one_split(k, isa, ref, r, r->y, NULL, ends[lo], ends[hi]);
            check_one_split(k, isa, ref, r, r->y, &near, ends[lo], ends[hi]);
            check_one_split(k, isa, ref, r, NULL, NULL, ends[lo], ends[hi]);
        }
    double sum, in_place;
    int found = k->split(r->x, r->y, n, NULL, -1.5f, 3, r->out, r->b, &sum);
    assert_int_equal(k->split(r->x, r->y, n, NULL, -1.5f, 3, r->x, r->y, &in_place), found);
    same("split in place", isa, found, r->out, r->x);
    same("split in place", isa, found, r->b, r->y);
    same_sum("split in place", isa, n, sum, in_place);
    assert_int_equal(k->split(r->x, r->y, 0, NULL, -1, 1, r->out, r->b, &sum), 0);
    assert_true(sum == 0);
}

static void test_split(void **state)
{
    (void)state;
    each(check_split);
}

static const struct kern_row *exp_row;

static void exp_all(float *out, const float *x, int n)
{
    exp_row->weights(out, x, 0.0f, 1.0f, -INFINITY, n);
}

/* The bound that ref/row_ref.c states, on each instruction set. */
static void test_exp(void **state)
{
    (void)state;
    for (int isa = KERN_ISA_SCALAR; isa <= (int)kern_isa_best(); isa++) {
        exp_row = kern_row_table((enum kern_isa)isa);
        struct exp_error e = exp_check(exp_all, exp, -87.3f, 11);
        assert_true(e.ulp < 1.2 && e.relative < 1.1e-7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_norm_values),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
