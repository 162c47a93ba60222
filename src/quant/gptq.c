/* GPTQ.  With U the upper triangular factor of H^-1 = U^T U, rounding column i with error e = (w_i - v_i) / U_ii moves every later
 * column j by -e U_ij.  Columns go in blocks: within one at once, on what lies behind by one product a block.
 *
 * U needs no inverse of H: when l is the lower factor of H with rows and columns in reverse, U is l^-1 in reverse. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "quant/quant.h"

enum { BLOCK = 128 };

struct column { float weight; int64_t index; };

struct gptq {
    const struct quant_team *t;
    const struct quant_grid *g;
    struct quant_codes *q;
    float *w;                  /* [rows][n], the caller's */
    float *work;               /* [rows][n] in processing order */
    float *inverse;            /* [n][n]: U_ab at [n-1-b][n-1-a] */
    float *errors;             /* [rows][BLOCK] */
    float *ahead;              /* [n][BLOCK]: rows of U behind a block */
    float *importance;         /* [n] in the caller's order */
    struct column *order;      /* [n] */
    bool fixed;                /* scales are chosen beforehand */
    int64_t n, at, width;
};

static float upper(const struct gptq *p, int64_t a, int64_t b)
{
    return p->inverse[(p->n - 1 - b) * p->n + (p->n - 1 - a)];
}

static int by_weight(const void *a, const void *b)
{
    const struct column *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void choose_order(struct gptq *p, const float *h, bool act_order)
{
    for (int64_t i = 0; i < p->n; i++)
        p->order[i] = (struct column){ h[i * p->n + i], i };
    if (act_order)
        qsort(p->order, (size_t)p->n, sizeof *p->order, by_weight);
}

/* Inputs that never come have no say: a diagonal of their own keeps the others apart from them. */
static double prepare_diagonal(float *h, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += h[i * n + i];
    double mean = sum > 0 && isfinite(sum) ? sum / (double)n : 1.0;
    for (int64_t i = 0; i < n; i++)
        if (!(h[i * n + i] > 0.0f))
            h[i * n + i] = (float)mean;
    return mean;
}

/* inverse from h, damped until it works. */
static bool factor(struct gptq *p, const float *h, double damp, double mean, struct err *e)
{
    int64_t n = p->n;
    float *l = mem_try_alloc((size_t)n * (size_t)n, sizeof *l);
    bool ok = false;
    if (!l)
        return err_set(e, ERR_NOMEM, "no memory to factor %lld x %lld", (long long)n, (long long)n);
    for (int tries = 0; !ok && tries < 6; tries++, damp *= 10) {
        for (int64_t i = 0; i < n; i++) {
            const float *from = h + p->order[n - 1 - i].index * n;
            for (int64_t j = 0; j <= i; j++)
                l[i * n + j] = from[p->order[n - 1 - j].index];
            l[i * n + i] += (float)(damp * mean);
        }
        ok = quant_cholesky(p->t, l, n, e);
        if (!ok && e && e->code == ERR_NOMEM)
            break;
    }
    for (int64_t i = 0; ok && i < n; i++)
        memset(l + i * n + i + 1, 0, (size_t)(n - 1 - i) * sizeof *l);
    ok = ok && quant_invert_lower(p->t, l, p->inverse, n, e);
    mem_free(l);
    return ok;
}

static int64_t group_size(const struct gptq *p)
{
    return p->g->group > 0 ? p->g->group : p->n;
}

static void fit(struct gptq *p, int64_t row, int64_t group, const float *w)
{
    int64_t size = group_size(p), from = group * size, n = p->n - from < size ? p->n - from : size, at = row * p->q->n_groups + group;
    int8_t zero;
    quant_grid_fit(p->g, w, p->importance + from, n, &p->q->scales[at], &zero);
    if (p->q->zeros)
        p->q->zeros[at] = zero;
}

static void start_row(void *arg, int64_t row, int member)
{
    struct gptq *p = arg;
    const float *w = p->w + row * p->n;
    (void)member;
    for (int64_t i = 0; i < p->n; i++)
        p->work[row * p->n + i] = w[p->order[i].index];
    for (int64_t i = 0; p->fixed && i < p->q->n_groups; i++)
        fit(p, row, i, w + i * group_size(p));
}

static void block_row(void *arg, int64_t row, int member)
{
    struct gptq *p = arg;
    float *w = p->work + row * p->n;
    (void)member;
    for (int64_t i = 0; i < p->width; i++) {
        int64_t col = p->order[p->at + i].index, group = col / group_size(p), at = row * p->q->n_groups + group;
        /* In their own order a group's columns are neighbours, and its scale is that of what has become of them.  Those behind this block
         * have not yet heard of its errors: groups that reach there are at most a block apart from what they should be. */
        if (!p->fixed && col % group_size(p) == 0)
            fit(p, row, group, w + p->at + i);
        float scale = p->q->scales[at];
        int8_t zero = p->q->zeros ? p->q->zeros[at] : 0, code = quant_grid_code(p->g, w[p->at + i], scale, zero);
        p->q->codes[row * p->n + col] = code;
        float err = (w[p->at + i] - quant_grid_value(p->g, code, scale, zero)) / upper(p, p->at + i, p->at + i);
        p->errors[row * BLOCK + i] = err;
        const float *u = p->ahead + i * BLOCK;
        for (int64_t j = i + 1; j < p->width; j++)
            w[p->at + j] -= err * u[j];
    }
}

static void finish_row(void *arg, int64_t row, int member)
{
    struct gptq *p = arg;
    (void)member;
    quant_codes_row(p->q, p->g, row, p->w + row * p->n);
}

static bool run_blocks(struct gptq *p, struct err *e)
{
    int64_t n = p->n, rows = p->q->rows;
    for (p->at = 0; p->at < n; p->at += BLOCK) {
        p->width = n - p->at < BLOCK ? n - p->at : BLOCK;
        int64_t next = p->at + p->width;
        for (int64_t i = 0; i < p->width; i++)
            for (int64_t j = i; j < p->width; j++)
                p->ahead[i * BLOCK + j] = upper(p, p->at + i, p->at + j);
        p->t->run(p->t->ctx, rows, block_row, p);
        for (int64_t j = next; j < n; j++)
            for (int64_t i = 0; i < p->width; i++)
                p->ahead[(j - next) * BLOCK + i] = upper(p, p->at + i, j);
        if (!quant_gemm(p->t, -1.0f, p->errors, BLOCK, p->ahead, BLOCK, p->work + next, n, rows, n - next, p->width, e))
            return false;
    }
    return true;
}

bool quant_gptq(const struct quant_team *t, const struct quant_grid *g, const struct quant_gptq *o, float *w, float *h, struct quant_codes *q, struct err *e)
{
    int64_t n = q->cols, rows = q->rows;
    size_t square = (size_t)n * (size_t)n, most = (size_t)(n > BLOCK ? n : BLOCK);
    struct gptq p = {
        .t = t, .g = g, .q = q, .w = w, .n = n,
        /* One scale for the whole row is chosen before anything moves; so are those of groups whose columns come apart. */
        .fixed = o->act_order || g->group <= 0 || g->fp8,
        .work = mem_try_alloc((size_t)rows * (size_t)n, sizeof(float)), .inverse = mem_try_alloc(square, sizeof(float)),
        .errors = mem_try_alloc((size_t)rows, BLOCK * sizeof(float)), .ahead = mem_try_alloc(most, BLOCK * sizeof(float)),
        .importance = mem_try_alloc((size_t)n, sizeof(float)), .order = mem_try_alloc((size_t)n, sizeof(struct column)),
    };
    bool ok = p.work && p.inverse && p.errors && p.ahead && p.importance && p.order;
    if (!ok)
        err_set(e, ERR_NOMEM, "no memory for GPTQ of %lld x %lld", (long long)rows, (long long)n);
    if (ok) {
        double mean = prepare_diagonal(h, n);
        for (int64_t i = 0; i < n; i++)
            p.importance[i] = h[i * n + i];
        choose_order(&p, h, o->act_order);
        ok = factor(&p, h, o->damp, mean, e);
    }
    if (ok) {
        t->run(t->ctx, rows, start_row, &p);
        ok = run_blocks(&p, e);
    }
    if (ok)
        t->run(t->ctx, rows, finish_row, &p);
    mem_free(p.work);
    mem_free(p.inverse);
    mem_free(p.errors);
    mem_free(p.ahead);
    mem_free(p.importance);
    mem_free(p.order);
    return ok;
}
