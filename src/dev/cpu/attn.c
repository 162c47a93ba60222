/* Paged attention over the ragged batch.
 *
 * A block is some query tokens of one sequence; an item is a block, some KV heads (each with the whole group of query
 * heads that shares it) and a run of partitions.  Most blocks are done by one item a head, which walks the
 * partitions in order and joins as it goes.  An item of few query tokens takes several heads and walks them inside
 * each partition, because their slabs lie side by side: what the memory's and the processor's
 * prefetching bring beyond one slab is then the next thing read (random 8 KiB slabs: half the bandwidth).  When there are too few or too unequal blocks for the team, the dearest are split:
 * each item stores the partial result of each of its partitions, and a second phase joins them in order.
 * Both give the same bits (kern/attn.h), so the choice may depend on the batch and the team. */
#include "dev/cpu/cpu_int.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/vec.h"

enum {
    BLOCK_TOKENS = 64,      /* query tokens of a block, at most */
    BLOCK_ROWS = 256,       /* query tokens x group, about */
    SPLIT_TOKENS = 16,      /* blocks up to this size may be split */
    ITEMS_PER_MEMBER = 16,  /* wanted, for an even share */
    TOGETHER_BYTES = 512 << 10,  /* bf16 K and V of one partition of the heads taken together: a quarter of a usual L2 */
    RUN_ITEMS_PER_MEMBER = 6,  /* of short blocks: wanted before heads are taken together */
};

/* ---- the plan ---- */

static int32_t max_of(int32_t a, int32_t b) { return a > b ? a : b; }
static int32_t min_of(int32_t a, int32_t b) { return a < b ? a : b; }

/* Tokens of a block, so that there are enough blocks to share out. */
static int32_t block_tokens(const struct dev *d, const struct cpu_attn_plan *p)
{
    int32_t size = max_of(1, min_of(BLOCK_TOKENS, BLOCK_ROWS / p->group));
    for (; size > SPLIT_TOKENS; size /= 2) {
        int64_t n = 0;
        for (int32_t s = 0; s < d->batch.n_seqs; s++)
            n += (d->batch.seq_start[s + 1] - d->batch.seq_start[s] + size - 1) / size;
        if (n * p->n_kv_heads >= (int64_t)ITEMS_PER_MEMBER * d->caps.n_threads)
            break;
    }
    return size;
}

static void add_block(struct dev *d, const struct cpu_attn_plan *p, int32_t seq, int32_t row, int32_t n)
{
    int32_t pos = d->batch.positions[row], first = p->window > 0 ? max_of(0, pos - p->window + 1) : 0;
    struct cpu_attn_block b = {.seq = seq, .row = row, .n_tokens = n, .part = first / DEV_PARTITION, .end = (pos + n - 1) / DEV_PARTITION + 1};
    if (!vec_reserve((void **)&d->attn_blocks, &d->cap_attn_blocks, d->n_attn_blocks + 1, sizeof b)) {
        d->failed = true;
        return;
    }
    b.cost = (int64_t)(n * p->group + 6) * (pos + n - first + 32);
    d->attn_blocks[d->n_attn_blocks++] = b;
}

static int by_cost(const void *a, const void *b)
{
    const struct cpu_attn_block *x = a, *y = b;
    bool split_x = x->run > 0, split_y = y->run > 0;
    if (split_x != split_y)
        return split_x ? -1 : 1;
    if (x->cost != y->cost)
        return x->cost > y->cost ? -1 : 1;
    return x->row < y->row ? -1 : 1;
}

/* KV heads that items of short blocks take together: many, as long as there are items enough. */
static int32_t heads_together(const struct dev *d, const struct cpu_attn_plan *p, int64_t units)
{
    int32_t heads = max_of(1, min_of(p->n_kv_heads, TOGETHER_BYTES / (DEV_PARTITION * p->dim * 4)));
    while (heads > 1 && units * ((p->n_kv_heads + heads - 1) / heads) < (int64_t)RUN_ITEMS_PER_MEMBER * d->caps.n_threads)
        heads = (heads + 1) / 2;
    return heads;
}

/* Decide which blocks to split, order them (split ones first, dearest first) and number the items. */
static void share_out(struct dev *d, struct cpu_attn_plan *p)
{
    struct cpu_attn_block *blocks = d->attn_blocks + p->first;
    int64_t total = 0, units = 0;
    p->n_blocks = d->n_attn_blocks - p->first;
    for (size_t i = 0; i < p->n_blocks; i++) {
        total += blocks[i].cost;
        units += blocks[i].end - blocks[i].part;
    }
    int32_t together = heads_together(d, p, units);
    int64_t limit = total * p->n_kv_heads / ((int64_t)ITEMS_PER_MEMBER * d->caps.n_threads) + 1;
    for (size_t i = 0; i < p->n_blocks; i++) {
        struct cpu_attn_block *b = &blocks[i];
        int32_t parts = b->end - b->part, rows = b->n_tokens * p->group;
        b->heads = b->n_tokens > SPLIT_TOKENS ? 1 : max_of(1, min_of(together, BLOCK_ROWS / rows));
        p->max_rows = max_of(p->max_rows, rows * b->heads);
        if (d->caps.n_threads > 1 && b->cost * b->heads > limit && parts > 1 && b->n_tokens <= SPLIT_TOKENS)
            b->run = max_of(1, (int32_t)(parts * limit / (b->cost * b->heads)));
    }
    qsort(blocks, p->n_blocks, sizeof *blocks, by_cost);
    for (size_t i = 0; i < p->n_blocks; i++) {
        struct cpu_attn_block *b = &blocks[i];
        b->item = p->n_items;
        int32_t parts = b->end - b->part, runs = b->run ? (parts + b->run - 1) / b->run : 1;
        p->n_items += (int64_t)runs * ((p->n_kv_heads + b->heads - 1) / b->heads);
        if (!b->run)
            continue;
        p->n_split++;
        b->partial = p->partial_floats;
        p->partial_floats += (size_t)p->n_kv_heads * (size_t)parts * (size_t)(b->n_tokens * p->group) * (size_t)(p->dim + 2);
        p->partial_floats = (p->partial_floats + 15) & ~(size_t)15;
    }
    p->cost_ns = total * p->n_kv_heads * p->dim / 30;
}

/* The plan for this shape, made at its first layer; its index, or -1 without memory. */
static int find_plan(struct dev *d, const struct dev_attention *a)
{
    struct cpu_attn_plan p = {.window = a->window, .n_kv_heads = a->n_kv_heads, .group = a->n_heads / a->n_kv_heads, .dim = kern_attn_dim(a->head_dim)};
    for (size_t i = 0; i < d->n_attn_plans; i++) {
        const struct cpu_attn_plan *q = &d->attn_plans[i];
        if (q->window == p.window && q->n_kv_heads == p.n_kv_heads && q->group == p.group && q->dim == p.dim)
            return (int)i;
    }
    p.first = d->n_attn_blocks;
    int32_t size = block_tokens(d, &p);
    for (int32_t s = 0; s < d->batch.n_seqs; s++)
        for (int32_t row = d->batch.seq_start[s]; row < d->batch.seq_start[s + 1]; row += size)
            add_block(d, &p, s, row, min_of(size, d->batch.seq_start[s + 1] - row));
    if (d->failed || !vec_reserve((void **)&d->attn_plans, &d->cap_attn_plans, d->n_attn_plans + 1, sizeof p)) {
        d->failed = true;
        return -1;
    }
    share_out(d, &p);
    d->attn_plans[d->n_attn_plans] = p;
    return (int)d->n_attn_plans++;
}

/* ---- running ---- */

struct attn_args {
    struct dev_attention p;
    const float *q;
    float *out;
    int64_t ld, ldo;
    const struct dev_kv *kv;
    int plan;
};

/* A member's scratch: everything an item needs for its rows. */
struct attn_scratch {
    void *work;
    unsigned char *q;
    float *m, *l, *o, *slopes;
    int32_t *lo, *hi, *rel;
};

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Lays the scratch out at p (NULL: only counts); returns its bytes. */
static size_t lay_out(struct attn_scratch *s, unsigned char *p, size_t max_rows, size_t dim)
{
    size_t wide = round64(max_rows * dim * 4), narrow = round64(max_rows * 4), at = 0;
    void **block[] = {&s->work, (void **)&s->q, (void **)&s->o, (void **)&s->m, (void **)&s->l, (void **)&s->slopes,
                      (void **)&s->lo, (void **)&s->hi, (void **)&s->rel};
    for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
        *block[i] = p ? p + at : NULL;
        at += i == 0 ? KERN_ATTN_WORK_BYTES : i <= 2 ? wide : narrow;
    }
    return at;
}

struct item {
    const struct cpu_attn_block *block;
    int32_t head, head_end, part, end;
};

/* Item i; false past the last. */
static bool find_item(const struct dev *d, const struct cpu_attn_plan *plan, int64_t i, struct item *out)
{
    const struct cpu_attn_block *blocks = d->attn_blocks + plan->first;
    size_t lo = 0, hi = plan->n_blocks;
    if (i >= plan->n_items)
        return false;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (blocks[mid].item <= i)
            lo = mid;
        else
            hi = mid;
    }
    const struct cpu_attn_block *b = &blocks[lo];
    int32_t k = (int32_t)(i - b->item), groups = (plan->n_kv_heads + b->heads - 1) / b->heads;
    out->block = b;
    out->head = k % groups * b->heads;
    out->head_end = min_of(out->head + b->heads, plan->n_kv_heads);
    out->part = b->part;
    out->end = b->end;
    if (b->run) {
        out->part = b->part + k / groups * b->run;
        out->end = min_of(out->part + b->run, b->end);
    }
    return true;
}

/* Slabs of a partition's pages that hold positions seen by some row of the block; the rest are NULL. */
static void find_slabs(const struct dev *d, const struct attn_args *a, const struct cpu_attn_block *b, int32_t head, int32_t part,
                       const unsigned char **slabs)
{
    const struct dev_kv *kv = a->kv;
    int32_t pos = d->batch.positions[b->row], last = pos + b->n_tokens - 1;
    int32_t first = a->p.window > 0 ? max_of(0, pos - a->p.window + 1) : 0;
    const int32_t *table = d->batch.block_tables + (int64_t)b->seq * d->batch.table_stride;
    const unsigned char *base = kv->base + (size_t)a->p.layer * kv->layer_bytes + (size_t)head * kv->slab_bytes;
    for (int32_t i = 0; i < KERN_ATTN_PAGES; i++) {
        int32_t page = part * KERN_ATTN_PAGES + i;
        slabs[i] = NULL;
        if (page >= first / DEV_BLOCK_TOKENS && page <= last / DEV_BLOCK_TOKENS)
            slabs[i] = base + (size_t)table[page] * kv->page_bytes;
    }
}

/* What this member most likely reads after this partition: the next one of its item, or the first of the next item.
 * Its slabs, page by page and head by head as they lie in memory, are shared out over the it->head_end - it->head calls
 * of this partition; these are the pieces for the k-th. */
static void look_ahead(const struct dev *d, const struct attn_args *a, const struct item *it, const struct item *ahead, int32_t k,
                       int32_t part, const unsigned char **pieces)
{
    const struct item *to = part + 1 < it->end ? it : ahead;
    const unsigned char *slabs[KERN_ATTN_PAGES] = {NULL};
    if (to)
        find_slabs(d, a, to->block, to->head, to == it ? part + 1 : to->part, slabs);
    int32_t heads = to ? to->head_end - to->head : 1;
    for (int32_t i = 0; i < KERN_ATTN_PAGES; i++) {
        int32_t at = k * KERN_ATTN_PAGES + i, page = at / heads;
        pieces[i] = page < KERN_ATTN_PAGES && slabs[page] ? slabs[page] + (size_t)(at % heads) * a->kv->slab_bytes : NULL;
    }
}

/* What each row of the block sees of a partition. */
static void set_ranges(const struct dev *d, const struct attn_args *a, const struct cpu_attn_block *b, int32_t group, int32_t part,
                       struct attn_scratch *s)
{
    int32_t pos = d->batch.positions[b->row] - part * DEV_PARTITION;
    for (int32_t j = 0; j < b->n_tokens; j++) {
        int32_t hi = max_of(0, min_of(DEV_PARTITION, pos + j + 1));
        int32_t lo = a->p.window > 0 ? max_of(0, min_of(DEV_PARTITION, pos + j - a->p.window + 1)) : 0;
        for (int32_t g = 0; g < group; g++) {
            s->lo[j * group + g] = lo;
            s->hi[j * group + g] = hi;
            s->rel[j * group + g] = pos + j;
        }
    }
}

/* Rows of a block under one KV head: [token][query head of the group]. */
struct rows {
    const struct cpu_attn_block *block;
    int32_t head, group, n;
};

/* Empty results, and queries unless q is NULL. */
static void start_rows(const struct attn_args *a, const struct cpu_attn_plan *plan, const struct rows *r, float *m, float *l, float *o,
                       unsigned char *q, float *slopes)
{
    const struct kern_attn *kern = a->kv->kern;
    size_t q_bytes = (size_t)(kern->q_bytes * plan->dim);
    for (int32_t i = 0; i < r->n; i++) {
        int32_t h = r->head * r->group + i % r->group;
        m[i] = -INFINITY;
        l[i] = 0.0f;
        if (!q)
            continue;
        kern->pack_q(q + (size_t)i * q_bytes, a->q + (r->block->row + i / r->group) * a->ld + (int64_t)h * a->p.head_dim, a->p.head_dim);
        slopes[i] = a->p.alibi_slopes ? a->p.alibi_slopes[h] : 0.0f;
    }
    memset(o, 0, (size_t)r->n * (size_t)plan->dim * sizeof *o);
}

static void finish_rows(const struct attn_args *a, const struct cpu_attn_plan *plan, const struct rows *r, const float *m, const float *l, const float *o)
{
    for (int32_t i = 0; i < r->n; i++) {
        int32_t h = r->head * r->group + i % r->group;
        a->kv->kern->finish(a->out + (r->block->row + i / r->group) * a->ldo + (int64_t)h * a->p.head_dim, m[i], l[i],
                            o + (size_t)i * (size_t)plan->dim, a->p.sinks ? a->p.sinks + h : NULL, a->p.head_dim);
    }
}

/* Floats of the partial results of one head and partition: m, l, o of n rows. */
static float *partial_of(struct dev *d, const struct cpu_attn_plan *plan, const struct rows *r, int32_t part)
{
    size_t parts = (size_t)(r->block->end - r->block->part), at = (size_t)r->head * parts + (size_t)(part - r->block->part);
    return (float *)(void *)d->scratch + r->block->partial + at * (size_t)r->n * (size_t)(plan->dim + 2);
}

static void run_item(struct dev *d, const struct attn_args *a, const struct cpu_attn_plan *plan, int64_t i, struct attn_scratch *s)
{
    struct item it, ahead;
    if (!find_item(d, plan, i, &it))
        return;
    const struct cpu_attn_block *b = it.block;
    struct rows r = {b, it.head, plan->group, b->n_tokens * plan->group};
    bool has_ahead = find_item(d, plan, i + d->n_members, &ahead);
    size_t n = (size_t)r.n, q_bytes = n * (size_t)(a->kv->kern->q_bytes * plan->dim), o_floats = n * (size_t)plan->dim;
    for (size_t k = 0; r.head < it.head_end; r.head++, k++)
        start_rows(a, plan, &r, s->m + k * n, s->l + k * n, s->o + k * o_floats, s->q + k * q_bytes, s->slopes + k * n);
    struct kern_attn_part p = {
        .head_dim = a->p.head_dim, .n_rows = r.n, .lo = s->lo, .hi = s->hi, .scale = a->p.scale, .softcap = a->p.softcap,
        .rel = s->rel, .into = b->run == 0, .work = s->work,
    };
    for (int32_t part = it.part; part < it.end; part++) {
        set_ranges(d, a, b, plan->group, part, s);
        r.head = it.head;
        for (size_t k = 0; r.head < it.head_end; r.head++, k++) {
            float *partial = b->run ? partial_of(d, plan, &r, part) : NULL;
            p.m = partial ? partial : s->m + k * n;
            p.l = partial ? partial + n : s->l + k * n;
            p.o = partial ? partial + 2 * n : s->o + k * o_floats;
            p.q = s->q + k * q_bytes;
            p.slopes = a->p.alibi_slopes ? s->slopes + k * n : NULL;
            find_slabs(d, a, b, r.head, part, p.slabs);
            look_ahead(d, a, &it, has_ahead ? &ahead : NULL, (int32_t)k, part, p.next);
            a->kv->kern->part(&p);
        }
    }
    r.head = it.head;
    for (size_t k = 0; !b->run && r.head < it.head_end; r.head++, k++)
        finish_rows(a, plan, &r, s->m + k * n, s->l + k * n, s->o + k * o_floats);
}

/* Join the partial results of one split block and head. */
static void join(struct dev *d, const struct attn_args *a, const struct cpu_attn_plan *plan, int64_t i, struct attn_scratch *s)
{
    const struct cpu_attn_block *b = &d->attn_blocks[plan->first + (size_t)(i / plan->n_kv_heads)];
    struct rows r = {b, (int32_t)(i % plan->n_kv_heads), plan->group, b->n_tokens * plan->group};
    start_rows(a, plan, &r, s->m, s->l, s->o, NULL, NULL);
    for (int32_t part = b->part; part < b->end; part++) {
        const float *pm = partial_of(d, plan, &r, part);
        a->kv->kern->merge(r.n, s->m, s->l, s->o, pm, pm + r.n, pm + 2 * r.n, a->p.head_dim);
    }
    finish_rows(a, plan, &r, s->m, s->l, s->o);
}

static void run_attention(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct attn_args *a = (const void *)op->args;
    const struct cpu_attn_plan *plan = &d->attn_plans[a->plan];
    struct attn_scratch s;
    lay_out(&s, cpu_member_scratch(d, member), (size_t)plan->max_rows, (size_t)plan->dim);
    int64_t n = phase == 0 ? plan->n_items : (int64_t)plan->n_split * plan->n_kv_heads;
    for (int64_t i; (i = cpu_next(d)) < n;) {
        if (phase == 0)
            run_item(d, a, plan, i, &s);
        else
            join(d, a, plan, i, &s);
    }
}

void dev_attention(struct dev *d, const struct dev_attention *p, const float *q, int64_t ld, const struct dev_kv *kv, float *out, int64_t ldo)
{
    assert(p->n_kv_heads == kv->spec.n_kv_heads && p->head_dim == kv->spec.head_dim);
    assert(p->n_heads > 0 && p->n_heads % p->n_kv_heads == 0 && p->scale > 0 && p->softcap >= 0 && p->window >= 0);
    assert(p->layer >= 0 && p->layer < kv->spec.n_layers);
    assert(ld >= (int64_t)p->n_heads * p->head_dim && ldo >= (int64_t)p->n_heads * p->head_dim);
    if (d->batch.n_tokens == 0)
        return;
    int plan = find_plan(d, p);
    if (plan < 0)
        return;
    const struct cpu_attn_plan *pl = &d->attn_plans[plan];
    struct attn_args *a = cpu_op_add(d, "attention", p->layer, pl->n_split > 0 ? 2 : 1, run_attention, sizeof *a, pl->cost_ns);
    *a = (struct attn_args){*p, q, out, ld, ldo, kv, plan};
    struct attn_scratch count;
    cpu_need(d, pl->partial_floats * 4, lay_out(&count, NULL, (size_t)pl->max_rows, (size_t)pl->dim));
}
