/* Triangular factors, in blocks so that nearly all the work is products. */
#include <math.h>
#include <string.h>
#include "base/mem.h"
#include "quant/quant.h"

enum { BLOCK = 64, STRIPE = 512 };

/* The diagonal block at `at`, n wide.  Sums in double: the block is small and its error spreads. */
static bool factor_block(float *a, int64_t ld, int64_t at, int64_t n)
{
    float *d = a + at * ld + at;
    for (int64_t j = 0; j < n; j++) {
        double sum = d[j * ld + j];
        for (int64_t k = 0; k < j; k++)
            sum -= (double)d[j * ld + k] * (double)d[j * ld + k];
        if (!(sum > 0.0) || !isfinite(sum))
            return false;
        double root = sqrt(sum);
        d[j * ld + j] = (float)root;
        for (int64_t i = j + 1; i < n; i++) {
            double v = d[i * ld + j];
            for (int64_t k = 0; k < j; k++)
                v -= (double)d[i * ld + k] * (double)d[j * ld + k];
            d[i * ld + j] = (float)(v / root);
        }
    }
    return true;
}

struct solve { float *a; int64_t ld, at, n; };

/* One row below the block: row := row * L^-T. */
static void solve_row(void *arg, int64_t i, int member)
{
    const struct solve *s = arg;
    const float *l = s->a + s->at * s->ld + s->at;
    float *row = s->a + (s->at + s->n + i) * s->ld + s->at;
    (void)member;
    for (int64_t j = 0; j < s->n; j++) {
        double v = row[j];
        for (int64_t k = 0; k < j; k++)
            v -= (double)row[k] * (double)l[j * s->ld + k];
        row[j] = (float)(v / (double)l[j * s->ld + j]);
    }
}

bool quant_cholesky(const struct quant_team *t, float *a, int64_t n, struct err *e)
{
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t b = n - at < BLOCK ? n - at : BLOCK, next = at + b;
        if (!factor_block(a, n, at, b))
            return err_set(e, ERR_INVALID, "the second moments of %lld inputs are not positive definite", (long long)n);
        struct solve s = { a, n, at, b };
        t->run(t->ctx, n - next, solve_row, &s);
        /* The rest -= panel panel^T, below the diagonal. */
        for (int64_t j = next; j < n; j += STRIPE) {
            int64_t width = n - j < STRIPE ? n - j : STRIPE;
            if (!quant_gemm(t, -1.0f, a + j * n + at, n, a + j * n + at, n, a + j * n + j, n, n - j, width, b, e))
                return false;
        }
    }
    return true;
}

struct invert { const float *l; float *out, *sum; int64_t n, at, b; };

/* Column j of the block's rows of l^-1, which is a stretch of row j of out. */
static void invert_column(void *arg, int64_t j, int member)
{
    const struct invert *v = arg;
    float *x = v->out + j * v->n + v->at;
    (void)member;
    for (int64_t i = 0; i < v->b; i++) {
        int64_t row = v->at + i;
        double sum = row == j ? 1.0 : j < v->at ? -(double)v->sum[i * v->at + j] : 0.0;
        for (int64_t k = 0; k < i; k++)
            sum -= (double)v->l[row * v->n + v->at + k] * (double)x[k];
        x[i] = row < j ? 0.0f : (float)(sum / (double)v->l[row * v->n + row]);
    }
}

bool quant_invert_lower(const struct quant_team *t, const float *l, float *out, int64_t n, struct err *e)
{
    memset(out, 0, (size_t)n * (size_t)n * sizeof *out);
    float *sum = mem_try_alloc((size_t)n, BLOCK * sizeof *sum);
    if (!sum)
        return err_set(e, ERR_NOMEM, "no memory to invert %lld x %lld", (long long)n, (long long)n);
    bool ok = true;
    for (int64_t at = 0; ok && at < n; at += BLOCK) {
        struct invert v = { l, out, sum, n, at, n - at < BLOCK ? n - at : BLOCK };
        memset(sum, 0, (size_t)v.b * (size_t)at * sizeof *sum);
        ok = quant_gemm(t, 1.0f, l + at * n, n, out, n, sum, at, v.b, at, at, e);
        if (ok)
            t->run(t->ctx, at + v.b, invert_column, &v);
    }
    mem_free(sum);
    return ok;
}
