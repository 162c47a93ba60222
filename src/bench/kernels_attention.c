/* Paged attention: decode rows of one and of eight sequences at the end of their contexts, and chunks of a prompt.  Pages lie in
 * random order, and there are as many layers as it takes to be cold. */
#include <math.h>
#include <stdio.h>
#include "base/mem.h"
#include "base/rng.h"
#include "bench/kernels_int.h"

enum { FILL_TOKENS = 512, PREFILL_TOKENS = 512, MAX_LAYERS = 256 };

static const int32_t all_contexts[] = {1024, 8192, 16384}, quick_contexts[] = {8192};

struct attention_bench {
    struct kernel_run *r;
    int32_t n_heads, n_kv_heads, head_dim;
    enum dev_kv_type type;
    /* this case */
    int32_t context, n_seqs, n_new;   /* each sequence's n_new rows come after context tokens */
    struct dev_kv *kv;
    int n_layers, layer;
    int32_t *tables, *positions, *starts;
    int32_t pages_per_seq;
    float *qkv, *out;
    int64_t width;
    struct dev_batch batch;
};

static bool run_attention(void *ctx, int n, struct err *e)
{
    struct attention_bench *b = ctx;
    dev_step_begin(b->r->d, &b->batch);
    for (int i = 0; i < n; i++, b->layer = (b->layer + 1) % b->n_layers) {
        struct dev_attention a = {.n_heads = b->n_heads, .n_kv_heads = b->n_kv_heads, .head_dim = b->head_dim,
                                  .scale = 1 / sqrtf((float)b->head_dim), .layer = b->layer};
        dev_attention(b->r->d, &a, b->qkv, b->width, b->kv, b->out, (int64_t)b->n_heads * b->head_dim);
    }
    return dev_step_end(b->r->d, e);
}

/* Writes K and V of all tokens of all sequences, in chunks. */
static bool fill_pages(struct attention_bench *b, struct err *e)
{
    int32_t positions[FILL_TOKENS], starts[2] = {0, 0}, tokens = b->context + b->n_new;
    for (int32_t s = 0; s < b->n_seqs; s++)
        for (int32_t at = 0; at < tokens; at += FILL_TOKENS) {
            int32_t n = tokens - at < FILL_TOKENS ? tokens - at : FILL_TOKENS;
            for (int32_t i = 0; i < n; i++)
                positions[i] = at + i;
            starts[1] = n;
            struct dev_batch fill = {.n_tokens = n, .n_seqs = 1, .positions = positions, .seq_start = starts,
                                     .block_tables = b->tables + s * b->pages_per_seq, .table_stride = b->pages_per_seq};
            dev_step_begin(b->r->d, &fill);
            for (int l = 0; l < b->n_layers; l++)
                dev_rope_kv(b->r->d, &(struct dev_rope_kv){.n_heads = b->n_heads, .n_kv_heads = b->n_kv_heads, .head_dim = b->head_dim, .layer = l},
                            b->qkv, b->width, b->kv);
            if (!dev_step_end(b->r->d, e))
                return false;
        }
    return true;
}

static void close_case(struct attention_bench *b)
{
    if (b->kv)
        dev_kv_close(b->r->d, &b->kv);
    dev_free(b->r->d, b->qkv);
    dev_free(b->r->d, b->out);
    mem_free(b->tables);
    mem_free(b->positions);
    mem_free(b->starts);
    b->qkv = b->out = NULL;
    b->tables = b->positions = b->starts = NULL;
}

static void shuffle_tables(int32_t *tables, int32_t n)
{
    struct rng rng = {1};
    for (int32_t i = 0; i < n; i++)
        tables[i] = i + 1;   /* page 0 belongs to nobody */
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = (int32_t)rng_next_below(&rng, (uint64_t)i + 1), t = tables[i];
        tables[i] = tables[j];
        tables[j] = t;
    }
}

static bool open_case(struct attention_bench *b, struct err *e)
{
    int32_t tokens = b->context + b->n_new, rows = b->n_seqs * b->n_new, most = rows > FILL_TOKENS ? rows : FILL_TOKENS;
    b->pages_per_seq = (tokens + DEV_BLOCK_TOKENS - 1) / DEV_BLOCK_TOKENS;
    int32_t n_pages = b->pages_per_seq * b->n_seqs;
    struct dev_kv_spec spec = {.n_layers = 1, .n_kv_heads = b->n_kv_heads, .head_dim = b->head_dim, .n_blocks = n_pages + 1, .type = b->type};
    size_t layer = dev_kv_block_bytes(&spec) * (size_t)n_pages;
    b->n_layers = spec.n_layers = layer >= b->r->cold_bytes ? 1 : b->r->cold_bytes / layer + 1 > MAX_LAYERS ? MAX_LAYERS : (int)(b->r->cold_bytes / layer + 1);
    b->layer = 0;
    b->width = (int64_t)(b->n_heads + 2 * b->n_kv_heads) * b->head_dim;
    b->tables = mem_try_alloc((size_t)n_pages, sizeof *b->tables);
    b->positions = mem_try_alloc((size_t)rows, sizeof *b->positions);
    b->starts = mem_try_alloc((size_t)b->n_seqs + 1, sizeof *b->starts);
    if (!b->tables || !b->positions || !b->starts)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (!dev_kv_open(b->r->d, &b->kv, &spec, e) || !(b->qkv = dev_alloc(b->r->d, (size_t)most * (size_t)b->width * sizeof *b->qkv, e)) ||
        !(b->out = dev_alloc(b->r->d, (size_t)rows * (size_t)(b->n_heads * b->head_dim) * sizeof *b->out, e)))
        return false;
    shuffle_tables(b->tables, n_pages);
    bench_kernel_fill(b->qkv, (size_t)most * (size_t)b->width, 3);
    for (int32_t i = 0; i < rows; i++)
        b->positions[i] = b->context + i % b->n_new;
    for (int32_t s = 0; s <= b->n_seqs; s++)
        b->starts[s] = s * b->n_new;
    b->batch = (struct dev_batch){.n_tokens = rows, .n_seqs = b->n_seqs, .positions = b->positions, .seq_start = b->starts,
                                  .block_tables = b->tables, .table_stride = b->pages_per_seq};
    return fill_pages(b, e);
}

static bool measure(struct attention_bench *b, const char *name, struct err *e)
{
    int32_t tokens = b->context + b->n_new;
    struct dev_kv_spec one = {.n_layers = 1, .n_kv_heads = b->n_kv_heads, .head_dim = b->head_dim, .n_blocks = 2, .type = b->type};
    double bytes = (double)dev_kv_block_bytes(&one) / DEV_BLOCK_TOKENS * tokens * b->n_seqs;
    if (bytes > (double)b->r->memory_bytes)
        return true;
    double seen = (double)b->n_new * b->context + (double)b->n_new * (b->n_new + 1) / 2;
    struct kernel_case c = {
        .name = name, .format = bench_kv_names[b->type], .m = b->n_seqs * b->n_new, .bytes = bytes,
        .ops = 4.0 * b->n_heads * b->head_dim * seen * b->n_seqs,
        .rate = b->type == DEV_KV_F32 || b->type == DEV_KV_F16 ? PROBE_F32 : PROBE_BF16, .run = run_attention, .run_ctx = b,
    };
    snprintf(c.shape, sizeof c.shape, "seqs=%d new=%d context=%d heads=%d/%d dim=%d", (int)b->n_seqs, (int)b->n_new, (int)b->context,
             (int)b->n_heads, (int)b->n_kv_heads, (int)b->head_dim);
    bool ok = open_case(b, e);
    c.max_ops = b->n_layers;
    ok = ok && bench_kernel_measure(b->r, &c, e);
    close_case(b);
    return ok;
}

static bool measure_type(struct attention_bench *b, const int32_t *contexts, int n_contexts, struct err *e)
{
    char decode[48], prefill[48];
    const char *format = bench_kv_names[b->type];
    bool ok = true;
    snprintf(decode, sizeof decode, "attention_decode_%s", format);
    snprintf(prefill, sizeof prefill, "attention_prefill_%s", format);
    bool want_decode = bench_kernel_wanted(b->r, decode, format), want_prefill = bench_kernel_wanted(b->r, prefill, format);
    b->n_new = 1;
    for (int i = 0; ok && want_decode && i < n_contexts; i++)
        for (b->n_seqs = 1; ok && b->n_seqs <= 8; b->n_seqs += 7) {
            b->context = contexts[i] - 1;
            ok = (b->n_seqs > 1 && contexts[i] > 8192) || measure(b, decode, e);
        }
    b->n_seqs = 1;
    b->n_new = PREFILL_TOKENS;
    b->context = 0;
    ok = ok && (!want_prefill || measure(b, prefill, e));
    for (int i = 0; ok && want_prefill && i < n_contexts; i++) {
        b->context = contexts[i] > PREFILL_TOKENS ? contexts[i] - PREFILL_TOKENS : 0;
        ok = b->context == 0 || measure(b, prefill, e);
    }
    return ok;
}

bool bench_kernels_attention(struct kernel_run *r, struct err *e)
{
    static const int32_t dims[] = {64, 128, 256};
    const struct bench_shape *s = &r->o->shape;
    const int32_t *contexts = r->o->n_contexts ? r->o->contexts : r->o->quick ? quick_contexts : all_contexts;
    int n_contexts = r->o->n_contexts ? r->o->n_contexts : r->o->quick ? 1 : 3;
    bool ok = true;
    for (int type = 0; ok && type < DEV_KV_COUNT; type++) {
        struct attention_bench b = {.r = r, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim,
                                    .type = (enum dev_kv_type)type};
        ok = measure_type(&b, contexts, n_contexts, e);
        for (size_t i = 0; ok && !r->o->quick && i < sizeof dims / sizeof dims[0]; i++) {
            b.head_dim = dims[i];
            ok = dims[i] == s->head_dim || measure_type(&b, contexts, n_contexts, e);
        }
    }
    return ok;
}
