/* The sampler: a step's rows of logits to tokens, by the truncations that requests ask for.  Bytes are the rows once, so that the percentage says
 * how near the sampler is to reading them only. */
#include <stdio.h>
#include "base/mem.h"
#include "base/rng.h"
#include "bench/kernels_int.h"
#include "sample/sample.h"

enum { ROWS = 32, MAX_COPIES = 64, TOPS = 8 };

struct sample_bench {
    struct kernel_run *r;
    struct sampler *sampler;
    struct sample_seq *seq;
    float *x;                        /* [n_copies][ROWS][vocab] */
    int n_copies, next, n_steps;
    struct sample_row rows[ROWS];
    int32_t top_ids[ROWS][TOPS];
    float top_logprobs[ROWS][TOPS];
};

static bool run_sample(void *ctx, int n, struct err *e)
{
    struct sample_bench *b = ctx;
    size_t vocab = (size_t)b->r->o->shape.vocab;
    (void)e;
    for (int i = 0; i < n; i++, b->next = (b->next + 1) % b->n_copies) {
        for (int k = 0; k < ROWS; k++)
            b->rows[k] = (struct sample_row){
                .logits = b->x + ((size_t)b->next * ROWS + (size_t)k) * vocab, .seq = b->seq, .position = b->n_steps++,
                .out = {.top_cap = TOPS, .top_ids = b->top_ids[k], .top_logprobs = b->top_logprobs[k]},
            };
        sample_rows(b->sampler, b->rows, ROWS);
    }
    return true;
}

struct how { const char *name; struct sample_params p; };

/* What requests ask for: the defaults with one or two things changed. */
static int list_of(struct how *list)
{
    int n = 0;
    struct how base = {.name = "sample_temperature"};
    sample_params_default(&base.p);
    base.p.temperature = 0.8f;
    list[n++] = base;
#define ADD(NAME, ...) do { struct how h = base; h.name = "sample_" NAME; __VA_ARGS__; list[n++] = h; } while (0)
    ADD("greedy", h.p.temperature = 0);
    ADD("top_p", h.p.top_p = 0.95f);
    ADD("top_k", h.p.top_k = 50);
    ADD("top_k_top_p", h.p.top_k = 50; h.p.top_p = 0.95f);
    ADD("min_p", h.p.min_p = 0.05f);
    ADD("typical_p", h.p.typical_p = 0.95f);
    ADD("penalties", h.p.repetition_penalty = 1.1f);
    ADD("logprobs", h.p.n_logprobs = 5);
#undef ADD
    return n;
}

static bool measure(struct sample_bench *b, const struct how *h, struct err *e)
{
    const struct bench_shape *s = &b->r->o->shape;
    static const int32_t prompt[] = {1, 2, 3, 4, 5, 6, 7, 8};
    if (!sample_seq_open(&b->seq, b->sampler, &h->p, 1, 0, prompt, 8, e))
        return false;
    struct kernel_case c = {.name = h->name, .format = "f32", .m = ROWS, .bytes = 4.0 * ROWS * s->vocab, .ops = 10.0 * ROWS * s->vocab,
                            .rate = PROBE_F32, .max_ops = b->n_copies, .run = run_sample, .run_ctx = b};
    snprintf(c.shape, sizeof c.shape, "m=%d n=%d", ROWS, (int)s->vocab);
    bool ok = bench_kernel_measure(b->r, &c, e);
    sample_seq_close(&b->seq);
    return ok;
}

bool bench_kernels_sample(struct kernel_run *r, struct err *e)
{
    struct how list[16];
    struct rng g = {12};
    int n = list_of(list);
    size_t vocab = (size_t)r->o->shape.vocab, copy = ROWS * vocab, n_copies = r->cold_bytes / (copy * sizeof(float)) + 1;
    bool any = false, ok;
    for (int i = 0; i < n; i++)
        any |= bench_kernel_wanted(r, list[i].name, "f32");
    if (!any)
        return true;
    struct sample_bench *b = mem_try_zalloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory");
    b->r = r;
    b->n_copies = n_copies > MAX_COPIES ? MAX_COPIES : (int)n_copies;
    ok = sampler_open(&b->sampler, r->d, &(struct sample_env){.vocab_size = r->o->shape.vocab}, e) &&
         (b->x = dev_alloc(r->d, copy * (size_t)b->n_copies * sizeof(float), e));
    /* Logits of a normal distribution: a few rows of values, moved along. */
    for (size_t i = 0; ok && i < copy * (size_t)b->n_copies; i++)
        b->x[i] = i < 4 * vocab ? (float)rng_next_normal(&g) : b->x[i - 4 * vocab + (i / vocab) % 3];
    for (int i = 0; ok && i < n; i++)
        ok = !bench_kernel_wanted(r, list[i].name, "f32") || measure(b, &list[i], e);
    if (b->sampler)
        sampler_close(&b->sampler);
    dev_free(r->d, b->x);
    mem_free(b);
    return ok;
}
