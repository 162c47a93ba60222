/* What works row by row: norms, rotation with the writing of K and V, and the sampler's passes over a row of logits.  (Activations are
 * part of gate_up's epilogue.)  All count as bound by memory, which they are when nothing else has just used their rows. */
#include <math.h>
#include <stdio.h>
#include "base/mem.h"
#include "bench/kernels_int.h"

enum { TOKENS = 512, MAX_COPIES = 512 };

struct rows_bench {
    struct kernel_run *r;
    enum dev_norm_kind kind;
    int32_t dim;                     /* floats of a row */
    float *x, *add, *weight, *bias;  /* x, add: [n_copies][TOKENS][dim]; the others [dim] */
    int n_copies, next;
    /* rotation */
    enum dev_kv_type type;
    struct dev_kv *kv;
    float *cos, *sin;
    int32_t positions[TOKENS], tables[TOKENS / DEV_BLOCK_TOKENS], starts[2];
    /* logits */
    int32_t n_rows;                  /* rows of vocab floats in x */
    void (*logits)(struct rows_bench *b, int64_t row);
    double *sinks;                   /* [n_rows] */
    int32_t *found;                  /* [n_rows][FOUND] */
};
enum { FOUND = 256 };

static int copies_of(const struct kernel_run *r, size_t bytes)
{
    size_t n = r->cold_bytes / bytes + 1;
    return n > MAX_COPIES ? MAX_COPIES : (int)n;
}

static void close_rows(struct rows_bench *b)
{
    struct dev *d = b->r->d;
    if (b->kv)
        dev_kv_close(d, &b->kv);
    dev_free(d, b->x);
    dev_free(d, b->add);
    dev_free(d, b->weight);
    dev_free(d, b->bias);
    mem_free(b->cos);
    mem_free(b->sin);
    mem_free(b->sinks);
    mem_free(b->found);
}

/* ---- norms ---- */

static bool run_norms(void *ctx, int n, struct err *e)
{
    struct rows_bench *b = ctx;
    struct dev_norm p = {.kind = b->kind, .weight = b->weight, .bias = b->kind == DEV_NORM_LAYER ? b->bias : NULL, .eps = 1e-5f, .dim = b->dim};
    dev_step_begin(b->r->d, &(struct dev_batch){0});
    for (int i = 0; i < n; i++, b->next = (b->next + 1) % b->n_copies) {
        size_t at = (size_t)b->next * TOKENS * (size_t)b->dim;
        dev_norm(b->r->d, &p, b->add + at, b->x + at, b->add + at, 0.5f, TOKENS);
    }
    return dev_step_end(b->r->d, e);
}

static bool measure_norm(struct kernel_run *r, enum dev_norm_kind kind, struct err *e)
{
    struct rows_bench b = {.r = r, .kind = kind, .dim = r->o->shape.hidden};
    const char *name = kind == DEV_NORM_RMS ? "norm_rms_f32" : "norm_layer_f32";
    size_t row_bytes = (size_t)b.dim * sizeof(float), copy = TOKENS * row_bytes;
    if (!bench_kernel_wanted(r, name, "f32"))
        return true;
    b.n_copies = copies_of(r, 2 * copy);
    bool ok = (b.x = dev_alloc(r->d, copy * (size_t)b.n_copies, e)) && (b.add = dev_alloc(r->d, copy * (size_t)b.n_copies, e)) &&
              (b.weight = dev_alloc(r->d, row_bytes, e)) && (b.bias = dev_alloc(r->d, row_bytes, e));
    if (ok) {
        bench_kernel_fill(b.x, (size_t)b.n_copies * TOKENS * (size_t)b.dim, 4);
        bench_kernel_fill(b.add, (size_t)b.n_copies * TOKENS * (size_t)b.dim, 5);
        bench_kernel_fill(b.weight, (size_t)b.dim, 6);
        struct kernel_case c = {.name = name, .format = "f32", .m = TOKENS, .bytes = 4.0 * (double)copy, .ops = 6.0 * TOKENS * b.dim,
                                .rate = PROBE_F32, .max_ops = b.n_copies, .run = run_norms, .run_ctx = &b};
        snprintf(c.shape, sizeof c.shape, "m=%d n=%d, added to the residual", TOKENS, (int)b.dim);
        ok = bench_kernel_measure(r, &c, e);
    }
    close_rows(&b);
    return ok;
}

/* ---- rotation and KV writing ---- */

static bool run_rope(void *ctx, int n, struct err *e)
{
    struct rows_bench *b = ctx;
    const struct bench_shape *s = &b->r->o->shape;
    struct dev_batch batch = {.n_tokens = TOKENS, .n_seqs = 1, .positions = b->positions, .seq_start = b->starts, .block_tables = b->tables,
                              .table_stride = TOKENS / DEV_BLOCK_TOKENS};
    dev_step_begin(b->r->d, &batch);
    for (int i = 0; i < n; i++, b->next = (b->next + 1) % b->n_copies) {
        struct dev_rope_kv p = {.n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim, .style = DEV_ROPE_HALF,
                                .rope_dim = s->head_dim, .cos = b->cos, .sin = b->sin, .layer = b->next};
        dev_rope_kv(b->r->d, &p, b->x + (size_t)b->next * TOKENS * (size_t)b->dim, b->dim, b->kv);
    }
    return dev_step_end(b->r->d, e);
}

static bool open_rope(struct rows_bench *b, size_t copy, struct err *e)
{
    const struct bench_shape *s = &b->r->o->shape;
    struct dev_kv_spec spec = {.n_layers = b->n_copies, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim,
                               .n_blocks = TOKENS / DEV_BLOCK_TOKENS + 1, .type = b->type};
    size_t half = (size_t)s->head_dim / 2;
    if (!(b->cos = mem_try_alloc(TOKENS * half, sizeof *b->cos)) || !(b->sin = mem_try_alloc(TOKENS * half, sizeof *b->sin)))
        return err_set(e, ERR_NOMEM, "out of memory");
    if (!dev_kv_open(b->r->d, &b->kv, &spec, e) || !(b->x = dev_alloc(b->r->d, copy * (size_t)b->n_copies, e)))
        return false;
    bench_kernel_fill(b->x, copy / sizeof(float) * (size_t)b->n_copies, 7);
    for (int32_t i = 0; i < TOKENS; i++) {
        b->positions[i] = i;
        b->tables[i / DEV_BLOCK_TOKENS] = i / DEV_BLOCK_TOKENS + 1;
        for (size_t j = 0; j < half; j++) {
            b->cos[(size_t)i * half + j] = cosf((float)i * powf(1e4f, -(float)j / (float)half));
            b->sin[(size_t)i * half + j] = sinf((float)i * powf(1e4f, -(float)j / (float)half));
        }
    }
    b->starts[1] = TOKENS;
    return true;
}

static bool measure_rope(struct kernel_run *r, enum dev_kv_type type, struct err *e)
{
    const struct bench_shape *s = &r->o->shape;
    struct rows_bench b = {.r = r, .type = type, .dim = (s->n_heads + 2 * s->n_kv_heads) * s->head_dim};
    struct dev_kv_spec one = {.n_layers = 1, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim, .n_blocks = 2, .type = type};
    size_t copy = TOKENS * (size_t)b.dim * sizeof(float);
    char name[48];
    snprintf(name, sizeof name, "rope_kv_%s", bench_kv_names[type]);
    if (!bench_kernel_wanted(r, name, bench_kv_names[type]))
        return true;
    b.n_copies = copies_of(r, copy);
    bool ok = open_rope(&b, copy, e);
    double kv_bytes = (double)dev_kv_block_bytes(&one) / DEV_BLOCK_TOKENS * TOKENS, q_bytes = 4.0 * TOKENS * s->n_heads * s->head_dim;
    struct kernel_case c = {.name = name, .format = bench_kv_names[type], .m = TOKENS, .bytes = (double)copy + q_bytes + kv_bytes,
                            .ops = 3.0 * TOKENS * (s->n_heads + s->n_kv_heads) * s->head_dim, .rate = PROBE_F32, .max_ops = b.n_copies,
                            .run = run_rope, .run_ctx = &b};
    snprintf(c.shape, sizeof c.shape, "m=%d heads=%d/%d dim=%d", TOKENS, (int)s->n_heads, (int)s->n_kv_heads, (int)s->head_dim);
    /* Once round first: the pages' memory comes from the system when it is first touched, which takes longer than writing it. */
    ok = ok && run_rope(&b, b.n_copies, e) && bench_kernel_measure(r, &c, e);
    close_rows(&b);
    return ok;
}

/* ---- logits ---- */

static const float *logits_at(const struct rows_bench *b, int64_t row)
{
    return b->x + (size_t)row * (size_t)b->dim;
}

static void argmax_row(struct rows_bench *b, int64_t row)
{
    b->sinks[row] = dev_math(b->r->d)->argmax(logits_at(b, row), b->dim);
}

static void softmax_row(struct rows_bench *b, int64_t row)
{
    const struct dev_math *m = dev_math(b->r->d);
    const float *x = logits_at(b, row);
    b->sinks[row] = m->weights(NULL, x, m->max(x, b->dim), 1, -INFINITY, b->dim);
}

/* The candidates of a top-k: all logits above a threshold that few pass. */
static void above_row(struct rows_bench *b, int64_t row)
{
    b->sinks[row] = dev_math(b->r->d)->above(logits_at(b, row), b->dim, 1.999f, b->found + row * FOUND, FOUND);
}

static void run_row(void *ctx, int64_t i, int member)
{
    struct rows_bench *b = ctx;
    (void)member;
    b->logits(b, (b->next + i) % b->n_rows);
}

/* An operation is 32 rows, a step's worth. */
enum { LOGITS_ROWS = 32 };

static bool run_logits(void *ctx, int n, struct err *e)
{
    struct rows_bench *b = ctx;
    (void)e;
    for (int i = 0; i < n; i++) {
        dev_for(b->r->d, LOGITS_ROWS, run_row, b);
        b->next = (b->next + LOGITS_ROWS) % b->n_rows;
    }
    return true;
}

static bool measure_logits(struct kernel_run *r, struct err *e)
{
    static const struct { const char *name; void (*fn)(struct rows_bench *b, int64_t row); double ops; } list[] = {
        {"logits_argmax_f32", argmax_row, 1}, {"logits_softmax_f32", softmax_row, 10}, {"logits_above_f32", above_row, 1},
    };
    enum { N = sizeof list / sizeof list[0] };
    struct rows_bench b = {.r = r, .dim = r->o->shape.vocab};
    size_t row_bytes = (size_t)b.dim * sizeof(float);
    bool any = false, ok = true;
    for (int i = 0; i < N; i++)
        any |= bench_kernel_wanted(r, list[i].name, "f32");
    if (!any)
        return true;
    b.n_rows = (copies_of(r, LOGITS_ROWS * row_bytes)) * LOGITS_ROWS;
    b.sinks = mem_try_zalloc((size_t)b.n_rows, sizeof *b.sinks);
    b.found = mem_try_zalloc((size_t)b.n_rows, FOUND * sizeof *b.found);
    if (!b.sinks || !b.found)
        ok = err_set(e, ERR_NOMEM, "out of memory");
    ok = ok && (b.x = dev_alloc(r->d, (size_t)b.n_rows * row_bytes, e));
    if (ok)
        bench_kernel_fill(b.x, (size_t)b.n_rows * (size_t)b.dim, 8);
    for (int i = 0; ok && i < N; i++) {
        if (!bench_kernel_wanted(r, list[i].name, "f32"))
            continue;
        b.logits = list[i].fn;
        struct kernel_case c = {.name = list[i].name, .format = "f32", .m = LOGITS_ROWS, .bytes = (double)(LOGITS_ROWS * row_bytes),
                                .ops = list[i].ops * LOGITS_ROWS * b.dim, .rate = PROBE_F32, .max_ops = b.n_rows / LOGITS_ROWS,
                                .run = run_logits, .run_ctx = &b};
        snprintf(c.shape, sizeof c.shape, "m=%d n=%d", LOGITS_ROWS, (int)b.dim);
        ok = bench_kernel_measure(r, &c, e);
    }
    close_rows(&b);
    return ok;
}

bool bench_kernels_rows(struct kernel_run *r, struct err *e)
{
    bool ok = measure_norm(r, DEV_NORM_RMS, e) && measure_norm(r, DEV_NORM_LAYER, e);
    for (int type = 0; ok && type < DEV_KV_COUNT; type++)
        ok = measure_rope(r, (enum dev_kv_type)type, e);
    return ok && measure_logits(r, e);
}
