/* One layer's mixture of experts, and the embedding: reading scattered parts of large weights. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/rng.h"
#include "bench/kernels_int.h"

enum { ROUTERS = 16 /* choices of experts that are gone round */, MAX_EXPERTS = 256 };

static const int32_t all_rows[] = {1, 8, 32, 128, 512}, quick_rows[] = {1, 32, 512};

struct moe_bench {
    struct kernel_run *r;
    struct bench_arena up_arena, down_arena;
    struct dev_weight *up[MAX_EXPERTS], *down[MAX_EXPERTS];
    int next;
    int32_t m, most;
    float *router, *x, *out;        /* [ROUTERS][most][n_experts], [most][hidden] */
};

static bool run_moe(void *ctx, int n, struct err *e)
{
    struct moe_bench *b = ctx;
    const struct bench_shape *s = &b->r->o->shape;
    struct dev_moe p = {.n_experts = s->n_experts, .n_used = s->n_used, .renormalize = true, .routed_scale = 1, .act = DEV_ACT_SILU,
                        .gate_up = b->up, .down = b->down};
    dev_step_begin(b->r->d, &(struct dev_batch){0});
    for (int i = 0; i < n; i++, b->next = (b->next + 1) % ROUTERS)
        dev_moe(b->r->d, &p, b->router + (size_t)b->next * (size_t)b->most * (size_t)s->n_experts, b->x, b->out, 1, b->m);
    return dev_step_end(b->r->d, e);
}

/* Experts that some row uses, on average over the routers. */
static double experts_used(const struct moe_bench *b)
{
    const struct bench_shape *s = &b->r->o->shape;
    int64_t sum = 0;
    for (int k = 0; k < ROUTERS; k++) {
        bool used[MAX_EXPERTS] = {false};
        for (int32_t i = 0; i < b->m; i++) {
            const float *x = b->router + ((size_t)k * (size_t)b->most + (size_t)i) * (size_t)s->n_experts;
            for (int32_t j = 0; j < s->n_experts; j++) {
                int32_t better = 0;
                for (int32_t o = 0; o < s->n_experts; o++)
                    better += x[o] > x[j];
                used[j] |= better < s->n_used;
            }
        }
        for (int32_t j = 0; j < s->n_experts; j++)
            sum += used[j];
    }
    return (double)sum / ROUTERS;
}

static void close_experts(struct moe_bench *b)
{
    for (int i = 0; i < MAX_EXPERTS; i++) {
        dev_weight_free(b->r->d, &b->up[i]);
        dev_weight_free(b->r->d, &b->down[i]);
    }
    bench_arena_close(&b->up_arena);
    bench_arena_close(&b->down_arena);
}

static bool open_experts(struct moe_bench *b, enum dev_format f, size_t up, size_t down, struct err *e)
{
    const struct bench_shape *s = &b->r->o->shape;
    struct dev_weight_shape gate_up = {.format = f, .n_out = 2 * (int64_t)s->expert_ffn, .k = s->hidden, .gated = true};
    struct dev_weight_shape back = {.format = f, .n_out = s->hidden, .k = s->expert_ffn};
    size_t n = (size_t)s->n_experts;
    bool ok = bench_arena_open(&b->up_arena, b->r->d, f, s->hidden, n * up, e) &&
              bench_arena_open(&b->down_arena, b->r->d, f, s->expert_ffn, n * down, e);
    for (size_t i = 0; ok && i < n; i++)
        ok = dev_weight_from_image(b->r->d, &b->up[i], &gate_up, b->up_arena.p + i * up, up, e) &&
             dev_weight_from_image(b->r->d, &b->down[i], &back, b->down_arena.p + i * down, down, e);
    return ok;
}

static bool measure_format(struct moe_bench *b, enum dev_format f, const int32_t *rows, int n_rows, struct err *e)
{
    const struct bench_shape *s = &b->r->o->shape;
    size_t up = dev_weight_bytes(f, 2 * (int64_t)s->expert_ffn, s->hidden, false), down = dev_weight_bytes(f, s->hidden, s->expert_ffn, false);
    char name[48];
    snprintf(name, sizeof name, "moe_%s", dev_format_name(f));
    if (!bench_kernel_wanted(b->r, name, dev_format_name(f)) || (size_t)s->n_experts * (up + down) > b->r->memory_bytes)
        return true;
    bool ok = open_experts(b, f, up, down, e);
    for (int i = 0; ok && i < n_rows; i++) {
        b->m = rows[i];
        double used = experts_used(b);
        struct kernel_case c = {
            .name = name, .format = dev_format_name(f), .m = b->m, .bytes = used * (double)(up + down),
            .ops = 6.0 * b->m * s->n_used * (double)s->hidden * s->expert_ffn, .rate = bench_rate_of(b->r->d, f), .max_ops = ROUTERS,
            .run = run_moe, .run_ctx = b,
        };
        snprintf(c.shape, sizeof c.shape, "m=%d %d of %d experts k=%d ffn=%d", (int)b->m, (int)s->n_used, (int)s->n_experts, (int)s->hidden,
                 (int)s->expert_ffn);
        ok = bench_kernel_measure(b->r, &c, e);
    }
    close_experts(b);
    return ok;
}

static bool measure_moe(struct kernel_run *r, struct err *e)
{
    const struct bench_shape *s = &r->o->shape;
    const int32_t *rows = r->o->n_rows ? r->o->rows : r->o->quick ? quick_rows : all_rows;
    int n_rows = r->o->n_rows ? r->o->n_rows : r->o->quick ? 3 : 5;
    struct moe_bench b = {.r = r};
    struct rng g = {9};
    bool any = false;
    for (int f = 0; f < DEV_FMT_COUNT; f++) {
        char name[48];
        snprintf(name, sizeof name, "moe_%s", dev_format_name((enum dev_format)f));
        any |= bench_kernel_wanted(r, name, dev_format_name((enum dev_format)f));
    }
    if (!any || s->n_experts < 1 || s->n_experts > MAX_EXPERTS)
        return true;
    for (int i = 0; i < n_rows; i++)
        b.most = rows[i] > b.most ? rows[i] : b.most;
    size_t n_router = (size_t)ROUTERS * (size_t)b.most * (size_t)s->n_experts, n_x = (size_t)b.most * (size_t)s->hidden;
    bool ok = (b.router = dev_alloc(r->d, n_router * sizeof *b.router, e)) && (b.x = dev_alloc(r->d, n_x * sizeof *b.x, e)) &&
              (b.out = dev_alloc(r->d, n_x * sizeof *b.out, e));
    for (size_t i = 0; ok && i < n_router; i++)
        b.router[i] = (float)rng_next_normal(&g);
    if (ok) {
        bench_kernel_fill(b.x, n_x, 10);
        memset(b.out, 0, n_x * sizeof *b.out);
    }
    for (int f = 0; ok && f < DEV_FMT_COUNT; f++)
        ok = measure_format(&b, (enum dev_format)f, rows, n_rows, e);
    dev_free(r->d, b.router);
    dev_free(r->d, b.x);
    dev_free(r->d, b.out);
    return ok;
}

/* ---- embedding ---- */

enum { TOKENS = 512, ID_SETS = 16 };

struct embed_bench {
    struct kernel_run *r;
    struct bench_arena arena;
    struct dev_weight *table;
    int32_t ids[ID_SETS][TOKENS], positions[TOKENS], starts[2], pages[TOKENS / DEV_BLOCK_TOKENS];
    int next;
    float *out;
};

static bool run_embed(void *ctx, int n, struct err *e)
{
    struct embed_bench *b = ctx;
    bool ok = true;
    for (int i = 0; ok && i < n; i++, b->next = (b->next + 1) % ID_SETS) {
        struct dev_batch batch = {.n_tokens = TOKENS, .n_seqs = 1, .token_ids = b->ids[b->next], .positions = b->positions,
                                  .seq_start = b->starts, .block_tables = b->pages, .table_stride = TOKENS / DEV_BLOCK_TOKENS};
        dev_step_begin(b->r->d, &batch);
        dev_embed(b->r->d, b->out, b->table, 1);
        ok = dev_step_end(b->r->d, e);
    }
    return ok;
}

static bool measure_embed(struct embed_bench *b, enum dev_format f, struct err *e)
{
    const struct bench_shape *s = &b->r->o->shape;
    size_t bytes = dev_weight_bytes(f, s->vocab, s->hidden, false);
    char name[48];
    snprintf(name, sizeof name, "embed_%s", dev_format_name(f));
    if (!bench_kernel_wanted(b->r, name, dev_format_name(f)) || bytes > b->r->memory_bytes)
        return true;
    struct dev_weight_shape shape = {.format = f, .n_out = s->vocab, .k = s->hidden};
    bool ok = bench_arena_open(&b->arena, b->r->d, f, s->hidden, bytes, e) && dev_weight_from_image(b->r->d, &b->table, &shape, b->arena.p, bytes, e);
    if (ok) {
        struct kernel_case c = {
            .name = name, .format = dev_format_name(f), .m = TOKENS, .bytes = TOKENS * ((double)bytes / s->vocab + 4.0 * s->hidden),
            .ops = (double)TOKENS * s->hidden, .rate = PROBE_F32, .max_ops = ID_SETS, .run = run_embed, .run_ctx = b,
        };
        snprintf(c.shape, sizeof c.shape, "m=%d n=%d vocab=%d", TOKENS, (int)s->hidden, (int)s->vocab);
        ok = bench_kernel_measure(b->r, &c, e);
    }
    dev_weight_free(b->r->d, &b->table);
    bench_arena_close(&b->arena);
    return ok;
}

static bool measure_embeds(struct kernel_run *r, struct err *e)
{
    struct embed_bench *b = mem_try_zalloc(1, sizeof *b);
    struct rng g = {11};
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory");
    b->r = r;
    b->starts[1] = TOKENS;
    for (int32_t i = 0; i < TOKENS; i++) {
        b->positions[i] = i;
        b->pages[i / DEV_BLOCK_TOKENS] = i / DEV_BLOCK_TOKENS + 1;
        for (int k = 0; k < ID_SETS; k++)
            b->ids[k][i] = (int32_t)rng_next_below(&g, (uint64_t)r->o->shape.vocab);
    }
    bool ok = (b->out = dev_alloc(r->d, (size_t)TOKENS * (size_t)r->o->shape.hidden * sizeof *b->out, e));
    for (int f = 0; ok && f < DEV_FMT_COUNT; f++)
        ok = measure_embed(b, (enum dev_format)f, e);
    dev_free(r->d, b->out);
    mem_free(b);
    return ok;
}

bool bench_kernels_moe(struct kernel_run *r, struct err *e)
{
    return measure_moe(r, e) && measure_embeds(r, e);
}
