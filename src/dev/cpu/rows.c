/* Operations that work row by row: norms, learned positions, gathering. */
#include "dev/cpu/cpu_int.h"

#include <assert.h>
#include <string.h>

struct norm_args {
    struct dev_norm p;
    float *out, *x;
    const float *add;
    float add_scale;
    int32_t n;
};

static void run_norm(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct norm_args *a = (const void *)op->args;
    int32_t chunk = cpu_chunk(d, a->n), dim = a->p.dim;
    (void)phase;
    (void)member;
    for (int64_t i; (i = cpu_next(d) * chunk) < a->n;)
        for (int64_t row = i; row < i + chunk && row < a->n; row++) {
            float *x = a->x + row * a->p.ld;
            if (a->add)
                d->row->add_scaled(x, a->add + row * a->p.ld, a->add_scale, dim);
            if (!a->p.weight)
                continue;
            if (a->p.kind == DEV_NORM_RMS)
                d->row->rms_norm(a->out + row * a->p.ld, x, a->p.weight, a->p.eps, dim);
            else
                d->row->layer_norm(a->out + row * a->p.ld, x, a->p.weight, a->p.bias, a->p.eps, dim);
        }
}

void dev_norm(struct dev *d, const struct dev_norm *p, float *out, float *x, const float *add, float add_scale, int32_t n)
{
    assert(p->dim > 0 && n >= 0 && (p->ld == 0 || p->ld >= p->dim));
    assert(p->kind == DEV_NORM_LAYER || !p->bias);
    struct norm_args *a = cpu_op_add(d, "norm", -1, 1, run_norm, sizeof *a, (int64_t)n * (40 + p->dim / 4));
    *a = (struct norm_args){*p, out, x, add, add_scale, n};
    if (p->ld == 0)
        a->p.ld = p->dim;
}

struct positions_args {
    float *x;
    const float *table;
    int32_t dim, offset;
};

static void run_positions(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct positions_args *a = (const void *)op->args;
    int32_t n = d->batch.n_tokens, chunk = cpu_chunk(d, n);
    (void)phase;
    (void)member;
    for (int64_t i; (i = cpu_next(d) * chunk) < n;)
        for (int64_t row = i; row < i + chunk && row < n; row++)
            d->row->add_scaled(a->x + row * a->dim, a->table + ((int64_t)d->batch.positions[row] + a->offset) * a->dim, 1.0f, a->dim);
}

void dev_add_positions(struct dev *d, float *x, const float *table, int32_t dim, int32_t offset)
{
    assert(dim > 0);
    struct positions_args *a = cpu_op_add(d, "add_positions", -1, 1, run_positions, sizeof *a, (int64_t)d->batch.n_tokens * (20 + dim / 8));
    *a = (struct positions_args){x, table, dim, offset};
}

struct gather_args {
    float *out;
    const float *x;
    const int32_t *rows;
    int32_t n, dim;
};

static void run_gather(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct gather_args *a = (const void *)op->args;
    int32_t chunk = cpu_chunk(d, a->n);
    (void)phase;
    (void)member;
    for (int64_t i; (i = cpu_next(d) * chunk) < a->n;)
        for (int64_t row = i; row < i + chunk && row < a->n; row++)
            memcpy(a->out + row * a->dim, a->x + (int64_t)a->rows[row] * a->dim, (size_t)a->dim * sizeof *a->x);
}

void dev_gather_rows(struct dev *d, float *out, const float *x, const int32_t *rows, int32_t n, int32_t dim)
{
    assert(n >= 0 && dim > 0);
    struct gather_args *a = cpu_op_add(d, "gather_rows", -1, 1, run_gather, sizeof *a, (int64_t)n * (20 + dim / 8));
    *a = (struct gather_args){out, x, rows, n, dim};
}
