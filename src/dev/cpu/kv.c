/* KV pages: memory, copies, and rows written into them. */
#include "dev/cpu/cpu_int.h"

#include <assert.h>
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"

static_assert((int)DEV_KV_F32 == KERN_KV_F32 && (int)DEV_KV_F16 == KERN_KV_F16 && (int)DEV_KV_BF16 == KERN_KV_BF16 &&
              (int)DEV_KV_I8 == KERN_KV_I8 && (int)DEV_KV_F8 == KERN_KV_F8 && (int)DEV_KV_COUNT == KERN_KV_COUNT, "one numbering of KV types");
static_assert((int)DEV_BLOCK_TOKENS == KERN_ATTN_PAGE && (int)DEV_PARTITION == KERN_ATTN_PART, "one page size");

static bool spec_is_valid(const struct dev_kv_spec *s)
{
    return s->n_layers > 0 && s->n_kv_heads > 0 && s->head_dim >= 2 && s->head_dim <= KERN_ATTN_MAX_DIM && s->head_dim % 2 == 0 &&
           (unsigned)s->type < DEV_KV_COUNT;
}

size_t dev_kv_block_bytes(const struct dev_kv_spec *s)
{
    size_t bytes;
    if (!spec_is_valid(s))
        return 0;
    size_t slab = kern_attn_slab_bytes((enum kern_kv)s->type, s->head_dim);
    if (!mem_mul(slab, (size_t)s->n_kv_heads, &bytes) || !mem_mul(bytes, (size_t)s->n_layers, &bytes))
        return 0;
    return bytes;
}

bool dev_kv_open(struct dev *d, struct dev_kv **out, const struct dev_kv_spec *s, struct err *e)
{
    *out = NULL;
    if (!spec_is_valid(s) || s->n_blocks < 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "KV pages for %d layers, %d heads of %d, %d pages: head size must be even and at most %d, the rest positive",
                       s->n_layers, s->n_kv_heads, s->head_dim, (int)s->n_blocks, KERN_ATTN_MAX_DIM);
    size_t total, block = dev_kv_block_bytes(s);
    if (!block || !mem_mul(block, (size_t)s->n_blocks, &total))
        return err_set(e, ERR_TOO_LARGE, "%d KV pages do not fit any memory", (int)s->n_blocks);
    struct dev_kv *kv = mem_try_zalloc(1, sizeof *kv);
    if (!kv)
        return err_set(e, ERR_NOMEM, "no memory for KV pages");
    kv->spec = *s;
    kv->kern = kern_attn_table(d->isa, (enum kern_kv)s->type);
    kv->slab_bytes = kern_attn_slab_bytes((enum kern_kv)s->type, s->head_dim);
    kv->page_bytes = kv->slab_bytes * (size_t)s->n_kv_heads;
    kv->layer_bytes = kv->page_bytes * (size_t)s->n_blocks;
    kv->total_bytes = total;
    kv->base = mem_try_map(total);
    if (!kv->base) {
        mem_free(kv);
        return err_set(e, ERR_NOMEM, "cannot map %zu bytes for %d KV pages: ask for fewer", total, (int)s->n_blocks);
    }
    *out = kv;
    return true;
}

void dev_kv_close(struct dev *d, struct dev_kv **kvp)
{
    (void)d;
    struct dev_kv *kv = *kvp;
    if (!kv)
        return;
    mem_unmap(kv->base, kv->total_bytes);
    mem_free(kv);
    *kvp = NULL;
}

struct copy_job {
    struct dev_kv *kv;
    const int32_t *src, *dst;
};

static void copy_page(void *ctx, int64_t i, int member)
{
    struct copy_job *j = ctx;
    struct dev_kv *kv = j->kv;
    (void)member;
    int64_t n = i / kv->spec.n_layers, layer = i % kv->spec.n_layers;
    unsigned char *pages = kv->base + (size_t)layer * kv->layer_bytes;
    memcpy(pages + (size_t)j->dst[n] * kv->page_bytes, pages + (size_t)j->src[n] * kv->page_bytes, kv->page_bytes);
}

void dev_kv_copy(struct dev *d, struct dev_kv *kv, const int32_t *src, const int32_t *dst, int n)
{
    struct copy_job j = {kv, src, dst};
    for (int i = 0; i < n; i++)
        assert(src[i] >= 0 && src[i] < kv->spec.n_blocks && dst[i] >= 0 && dst[i] < kv->spec.n_blocks && src[i] != dst[i]);
    dev_for(d, (int64_t)n * kv->spec.n_layers, copy_page, &j);
}

/* ---- rope and write ---- */

/* Cut the step's rows at sequence and page borders, once a step. */
static void find_segments(struct dev *d)
{
    const struct dev_batch *b = &d->batch;
    if (d->n_segments > 0)
        return;
    for (int32_t s = 0; s < b->n_seqs; s++)
        for (int32_t row = b->seq_start[s]; row < b->seq_start[s + 1];) {
            int32_t pos = b->positions[row], slot = pos % DEV_BLOCK_TOKENS;
            int32_t n = DEV_BLOCK_TOKENS - slot, rest = b->seq_start[s + 1] - row;
            n = n < rest ? n : rest;
            if (!vec_reserve((void **)&d->segments, &d->cap_segments, d->n_segments + 1, sizeof *d->segments)) {
                d->failed = true;
                return;
            }
            int32_t page = b->block_tables[(int64_t)s * b->table_stride + pos / DEV_BLOCK_TOKENS];
            d->segments[d->n_segments++] = (struct cpu_segment){row, n, page, slot};
            row += n;
        }
}

struct rope_args {
    struct dev_rope_kv p;
    float *qkv;
    int64_t ld;
    struct dev_kv *kv;
};

static void prepare_head(const struct dev *d, const struct dev_rope_kv *p, float *x, const float *norm, int32_t row)
{
    const float *cos = p->cos + (int64_t)row * (p->rope_dim / 2), *sin = p->sin + (int64_t)row * (p->rope_dim / 2);
    if (norm)
        d->row->rms_norm(x, x, norm, p->qk_norm_eps, p->head_dim);
    if (p->style == DEV_ROPE_HALF)
        d->row->rope_half(x, cos, sin, p->rope_dim);
    else if (p->style == DEV_ROPE_INTERLEAVED)
        d->row->rope_interleaved(x, cos, sin, p->rope_dim);
}

/* Begins to fetch n floats. */
static void fetch(const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += 16)
        __builtin_prefetch(x + i, 1, 3);
}

static void run_rope_kv(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct rope_args *a = (const void *)op->args;
    const struct dev_rope_kv *p = &a->p;
    struct dev_kv *kv = a->kv;
    (void)phase;
    (void)member;
    for (int64_t i; (i = cpu_next(d)) < (int64_t)d->n_segments;) {
        const struct cpu_segment *seg = &d->segments[i];
        unsigned char *page = kv->base + (size_t)p->layer * kv->layer_bytes + (size_t)seg->page * kv->page_bytes;
        for (int32_t j = 0; j < seg->n_rows; j++) {
            int32_t row = seg->row + j;
            float *q = a->qkv + row * a->ld, *k = q + (int64_t)p->n_heads * p->head_dim, *v = k + (int64_t)p->n_kv_heads * p->head_dim;
            bool ahead = j + 1 < seg->n_rows;   /* the next row comes while this one is worked on */
            for (int32_t h = 0; h < p->n_heads; h++) {
                if (ahead)
                    fetch(q + a->ld + (int64_t)h * p->head_dim, p->head_dim);
                prepare_head(d, p, q + (int64_t)h * p->head_dim, p->q_norm, row);
            }
            for (int32_t h = 0; h < p->n_kv_heads; h++, k += p->head_dim, v += p->head_dim) {
                if (ahead) {
                    fetch(k + a->ld, p->head_dim);
                    fetch(v + a->ld, p->head_dim);
                }
                prepare_head(d, p, k, p->k_norm, row);
                kv->kern->write(page + (size_t)h * kv->slab_bytes, seg->slot + j, k, v, p->head_dim);
            }
        }
    }
}

void dev_rope_kv(struct dev *d, const struct dev_rope_kv *p, float *qkv, int64_t ld, struct dev_kv *kv)
{
    assert(p->n_kv_heads == kv->spec.n_kv_heads && p->head_dim == kv->spec.head_dim);
    assert(p->layer >= 0 && p->layer < kv->spec.n_layers);
    assert(p->rope_dim % 2 == 0 && p->rope_dim >= 0 && p->rope_dim <= p->head_dim);
    assert(p->style == DEV_ROPE_NONE || p->rope_dim == 0 || (p->cos && p->sin));
    assert(ld >= (int64_t)(p->n_heads + 2 * p->n_kv_heads) * p->head_dim);
    find_segments(d);
    for (size_t i = 0; i < d->n_segments; i++)
        assert(d->segments[i].page >= 0 && d->segments[i].page < kv->spec.n_blocks);
    int64_t cost = (int64_t)d->batch.n_tokens * (p->n_heads + 4 * p->n_kv_heads) * (15 + p->head_dim / 8);
    struct rope_args *a = cpu_op_add(d, "rope_kv", p->layer, 1, run_rope_kv, sizeof *a, cost);
    a->p = *p;
    if (p->rope_dim == 0)
        a->p.style = DEV_ROPE_NONE;
    a->qkv = qkv;
    a->ld = ld;
    a->kv = kv;
}
