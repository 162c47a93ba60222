/* Scales that move magnitude from inputs to weights: AWQ's search, SmoothQuant's formula. */
#include <math.h>
#include <string.h>
#include "base/mem.h"
#include "quant/quant.h"

enum { SAMPLE_ROWS = 512 };   /* of each reader: enough to rank exponents */

/* s = size^power, halfway between its extremes 1; inputs that never come keep 1. */
static void powers(const float *size, int64_t n, double power, float *s)
{
    double lo = INFINITY, hi = 0;
    for (int64_t i = 0; i < n; i++) {
        s[i] = size[i] > 0.0f ? (float)pow((double)size[i], power) : 0.0f;
        if (!(s[i] > 1e-4f) && size[i] > 0.0f)
            s[i] = 1e-4f;
        if (s[i] > 0.0f) {
            lo = (double)s[i] < lo ? (double)s[i] : lo;
            hi = (double)s[i] > hi ? (double)s[i] : hi;
        }
    }
    double middle = hi > 0 ? sqrt(lo * hi) : 1.0;
    for (int64_t i = 0; i < n; i++)
        s[i] = s[i] > 0.0f ? (float)((double)s[i] / middle) : 1.0f;
}

/* Root mean squares up to a factor, alike where inputs are tied. */
static void sizes(const float *h, int64_t n, struct quant_tie tie, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = h[i * n + i] > 0.0f ? h[i * n + i] : 0.0f;
    if (tie.repeat > 1) {
        int64_t run = tie.repeat * tie.width;
        for (int64_t from = 0; from + run <= n; from += run) {
            for (int64_t j = 0; j < tie.width; j++) {
                double sum = 0;
                for (int64_t r = 0; r < tie.repeat; r++)
                    sum += (double)out[from + r * tie.width + j];
                for (int64_t r = 0; r < tie.repeat; r++)
                    out[from + r * tie.width + j] = (float)(sum / (double)tie.repeat);
            }
        }
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = sqrtf(out[i]);
}

struct trial {
    const struct quant_reader *r;
    const float *h, *s;
    float *diff;               /* [sampled rows][n] */
    float *importance;
    struct quant_codes q;
    int64_t n, rows;
};

static void scale_row(void *arg, int64_t i, int member)
{
    const struct trial *t = arg;
    const float *w = t->r->w + i * t->r->rows / t->rows * t->n;
    (void)member;
    for (int64_t c = 0; c < t->n; c++)
        t->diff[i * t->n + c] = w[c] * t->s[c];
}

static void subtract_row(void *arg, int64_t i, int member)
{
    const struct trial *t = arg;
    const float *w = t->r->w + i * t->r->rows / t->rows * t->n;
    (void)member;
    for (int64_t c = 0; c < t->n; c++)
        t->diff[i * t->n + c] = t->diff[i * t->n + c] / t->s[c] - w[c];
}

/* The error of one reader with its columns scaled by s. */
static bool try_scales(const struct quant_team *team, struct trial *t, double *out, struct err *e)
{
    for (int64_t i = 0; i < t->n; i++)
        t->importance[i] = t->h[i * t->n + i] / (t->s[i] * t->s[i]);
    team->run(team->ctx, t->rows, scale_row, t);
    quant_rtn(team, t->r->grid, t->diff, t->importance, &t->q);
    team->run(team->ctx, t->rows, subtract_row, t);
    if (!quant_error(team, t->diff, t->h, t->rows, t->n, out, e))
        return false;
    *out *= (double)t->r->rows / (double)t->rows;
    return true;
}

static bool sum_errors(const struct quant_team *team, const struct quant_reader *readers, int n_readers, const float *h, const float *s, int64_t n,
                       double *out, struct err *e)
{
    *out = 0;
    for (int i = 0; i < n_readers; i++) {
        double err = 0;
        struct trial t = { .r = &readers[i], .h = h, .s = s, .n = n, .rows = readers[i].rows < SAMPLE_ROWS ? readers[i].rows : SAMPLE_ROWS };
        if (!readers[i].grid)
            continue;
        t.diff = mem_try_alloc((size_t)t.rows * (size_t)n, sizeof *t.diff);
        t.importance = mem_try_alloc((size_t)n, sizeof *t.importance);
        bool ok = (t.diff && t.importance) || err_set(e, ERR_NOMEM, "no memory to try scales of %lld inputs", (long long)n);
        ok = ok && quant_codes_open(&t.q, readers[i].grid, t.rows, n, e) && try_scales(team, &t, &err, e);
        quant_codes_close(&t.q);
        mem_free(t.diff);
        mem_free(t.importance);
        if (!ok)
            return false;
        *out += err;
    }
    return true;
}

bool quant_awq_scales(const struct quant_team *t, const struct quant_reader *readers, int n_readers, const float *h, int64_t n, struct quant_tie tie,
                      int steps, float *s, double *gain, struct err *e)
{
    float *size = mem_try_alloc((size_t)n, sizeof *size), *trial = mem_try_alloc((size_t)n, sizeof *trial);
    double best = 0, plain = 0;
    bool ok = (size && trial) || err_set(e, ERR_NOMEM, "no memory to search scales of %lld inputs", (long long)n);
    if (ok)
        sizes(h, n, tie, size);
    for (int i = 0; ok && i < steps; i++) {
        double err;
        powers(size, n, (double)i / steps, trial);
        ok = sum_errors(t, readers, n_readers, h, trial, n, &err, e);
        if (ok && i == 0)
            plain = err;
        if (ok && (i == 0 || err < best)) {
            best = err;
            memcpy(s, trial, (size_t)n * sizeof *s);
        }
    }
    *gain = plain > 0 ? best / plain : 1.0;
    mem_free(size);
    mem_free(trial);
    return ok;
}

void quant_smooth_scales(const struct quant_reader *readers, int n_readers, const float *input_max, int64_t n, double alpha, float *s)
{
    for (int64_t c = 0; c < n; c++) {
        double most = 0;
        for (int i = 0; i < n_readers; i++)
            for (int64_t r = 0; r < readers[i].rows; r++)
                most = fabs((double)readers[i].w[r * n + c]) > most ? fabs((double)readers[i].w[r * n + c]) : most;
        double v = input_max[c] > 0.0f && most > 0 ? pow((double)input_max[c], alpha) / pow(most, 1 - alpha) : 1.0;
        s[c] = (float)(v < 1e-5 ? 1e-5 : v > 1e5 ? 1e5 : v);
    }
}
