/* Second moments of inputs, and the errors they predict. */
#include <string.h>
#include "base/mem.h"
#include "quant/quant.h"

enum { PANEL = 512 };   /* columns of H at a time: what lies wholly above the diagonal is left out */

struct transpose { const float *x; float *out; int64_t ldx, rows, n; };

enum { STRIP = 16 };

static void transpose_strip(void *arg, int64_t strip, int member)
{
    const struct transpose *t = arg;
    int64_t from = strip * STRIP, to = from + STRIP < t->n ? from + STRIP : t->n;
    (void)member;
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t c = from; c < to; c++)
            t->out[c * t->rows + r] = t->x[r * t->ldx + c];
}

bool quant_hessian_add(const struct quant_team *t, float *h, const float *x, int64_t ldx, int64_t rows, int64_t n, struct err *e)
{
    if (rows < 1)
        return true;
    struct transpose p = { .x = x, .out = mem_try_alloc((size_t)n * (size_t)rows, sizeof(float)), .ldx = ldx, .rows = rows, .n = n };
    if (!p.out)
        return err_set(e, ERR_NOMEM, "no memory for %lld inputs of %lld tokens", (long long)n, (long long)rows);
    t->run(t->ctx, (n + STRIP - 1) / STRIP, transpose_strip, &p);
    bool ok = true;
    for (int64_t j = 0; ok && j < n; j += PANEL)
        ok = quant_gemm(t, 1.0f, p.out + j * rows, rows, p.out + j * rows, rows, h + j * n + j, n, n - j, n - j < PANEL ? n - j : PANEL, rows, e);
    mem_free(p.out);
    return ok;
}

void quant_hessian_mirror(float *h, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++)
            h[j * n + i] = h[i * n + j];
}

void quant_hessian_divide(float *h, int64_t n, const float *s)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            h[i * n + j] /= s[i] * s[j];
}

bool quant_error(const struct quant_team *t, const float *d, const float *h, int64_t rows, int64_t n, double *out, struct err *e)
{
    float *y = mem_try_zalloc((size_t)rows * (size_t)n, sizeof *y);
    *out = 0;
    if (!y)
        return err_set(e, ERR_NOMEM, "no memory for %lld x %lld errors", (long long)rows, (long long)n);
    bool ok = quant_gemm(t, 1.0f, d, n, h, n, y, n, rows, n, n, e);
    for (int64_t i = 0; ok && i < rows * n; i++)
        *out += (double)y[i] * (double)d[i];
    mem_free(y);
    return ok;
}
