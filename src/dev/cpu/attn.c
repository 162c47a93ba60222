/* Paged attention over the ragged batch.
 *
 * A block is some query tokens of one sequence; an item is a block, one KV head (with the whole group of query heads
 * that shares it) and a run of partitions.  Most blocks are done by one item, which walks the
 * partitions in order and joins as it goes.  When there are too few or too unequal blocks for the team, the dearest are split:
 * each item stores the partial result of each of its partitions, and a second phase joins them in order.
 * Both give the same bits (kern/attn.h), so the choice may depend on the batch and the team. */
#include "dev/cpu/cpu_int.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include "base/vec.h"

enum {
    BLOCK_TOKENS = 64,      /* query tokens of a block, at most */
    BLOCK_ROWS = 256,       /* query tokens x group, about */
    SPLIT_TOKENS = 16,      /* blocks up to this size may be split */
    ITEMS_PER_MEMBER = 16,  /* wanted, for an even share */
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

static void add_block(struct dev *d, struct cpu_attn_plan *p, int32_t seq, int32_t row, int32_t n)
{
    int32_t pos = d->batch.positions[row], first = p->window > 0 ? max_of(0, pos - p->window + 1) : 0;
    struct cpu_attn_block b = {.seq = seq, .row = row, .n_tokens = n, .part = first / DEV_PARTITION, .end = (pos + n - 1) / DEV_PARTITION + 1};
    if (!vec_reserve((void **)&d->attn_blocks, &d->cap_attn_blocks, d->n_attn_blocks + 1, sizeof b)) {
        d->failed = true;
        return;
    }
    b.cost = (int64_t)(n * p->group + 6) * (pos + n - first + 32);
    d->attn_blocks[d->n_attn_blocks++] = b;
    p->max_rows = max_of(p->max_rows, n * p->group);
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

/* Decide which blocks to split, order them (split ones first, dearest first) and number the items. */
static void share_out(struct dev *d, struct cpu_attn_plan *p)
{
    struct cpu_attn_block *blocks = d->attn_blocks + p->first;
    int64_t total = 0;
    p->n_blocks = d->n_attn_blocks - p->first;
    for (size_t i = 0; i < p->n_blocks; i++)
        total += blocks[i].cost;
    total *= p->n_kv_heads;
    int64_t limit = total / ((int64_t)ITEMS_PER_MEMBER * d->caps.n_threads) + 1;
    for (size_t i = 0; i < p->n_blocks; i++) {
        struct cpu_attn_block *b = &blocks[i];
        int32_t parts = b->end - b->part;
        if (d->caps.n_threads == 1 || b->cost <= limit || parts < 2 || b->n_tokens > SPLIT_TOKENS)
            continue;
        b->run = max_of(1, (int32_t)(parts * limit / b->cost));
    }
    qsort(blocks, p->n_blocks, sizeof *blocks, by_cost);
    for (size_t i = 0; i < p->n_blocks; i++) {
        struct cpu_attn_block *b = &blocks[i];
        b->item = p->n_items;
        int32_t parts = b->end - b->part, runs = b->run ? (parts + b->run - 1) / b->run : 1;
        p->n_items += (int64_t)runs * p->n_kv_heads;
        if (!b->run)
            continue;
        p->n_split++;
        b->partial = p->partial_floats;
        p->partial_floats += (size_t)p->n_kv_heads * (size_t)parts * (size_t)(b->n_tokens * p->group) * (size_t)(p->dim + 2);
        p->partial_floats = (p->partial_floats + 15) & ~(size_t)15;
    }
    p->cost_ns = total * p->dim / 30;
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
    void *work, *q;
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
    void **block[] = {&s->work, &s->q, (void **)&s->o, (void **)&s->m, (void **)&s->l, (void **)&s->slopes,
                      (void **)&s->lo, (void **)&s->hi, (void **)&s->rel};
    for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
        *block[i] = p ? p + at : NULL;
        at += i == 0 ? KERN_ATTN_WORK_BYTES : i <= 2 ? wide : narrow;
    }
    return at;
}

struct item {
    const struct cpu_attn_block *block;
    int32_t head, part, end;
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
    int32_t k = (int32_t)(i - b->item);
    out->block = b;
    out->head = k % plan->n_kv_heads;
    out->part = b->part;
    out->end = b->end;
    if (b->run) {
        out->part = b->part + k / plan->n_kv_heads * b->run;
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

static void run_item(struct dev *d, const struct attn_args *a, const struct cpu_attn_plan *plan, int64_t i, struct attn_scratch *s)
{
    const struct kern_attn *kern = a->kv->kern;
    struct item it, ahead;
    if (!find_item(d, plan, i, &it))
        return;
    const struct cpu_attn_block *b = it.block;
    int32_t group = plan->group, n_rows = b->n_tokens * group, head_dim = a->p.head_dim;
    bool has_ahead = find_item(d, plan, i + d->n_members, &ahead);
    for (int32_t r = 0; r < n_rows; r++) {
        int32_t h = it.head * group + r % group;
        kern->pack_q((unsigned char *)s->q + (size_t)r * (size_t)(kern->q_bytes * plan->dim), a->q + (b->row + r / group) * a->ld + (int64_t)h * head_dim, head_dim);
        s->slopes[r] = a->p.alibi_slopes ? a->p.alibi_slopes[h] : 0.0f;
        s->m[r] = -INFINITY;
        s->l[r] = 0.0f;
    }
    struct kern_attn_part p = {
        .head_dim = head_dim, .n_rows = n_rows, .q = s->q, .lo = s->lo, .hi = s->hi, .scale = a->p.scale, .softcap = a->p.softcap,
        .slopes = a->p.alibi_slopes ? s->slopes : NULL, .rel = s->rel, .into = b->run == 0, .m = s->m, .l = s->l, .o = s->o, .work = s->work,
    };
    if (!b->run)
        for (int32_t k = 0; k < n_rows * plan->dim; k++)
            s->o[k] = 0.0f;
    for (int32_t part = it.part; part < it.end; part++) {
        if (b->run) {
            size_t parts = (size_t)(b->end - b->part), at = (size_t)it.head * parts + (size_t)(part - b->part);
            p.m = (float *)(void *)d->scratch + b->partial + at * (size_t)n_rows * (size_t)(plan->dim + 2);
            p.l = p.m + n_rows;
            p.o = p.l + n_rows;
        }
        set_ranges(d, a, b, group, part, s);
        find_slabs(d, a, b, it.head, part, p.slabs);
        if (part + 1 < it.end)
            find_slabs(d, a, b, it.head, part + 1, p.next);
        else if (has_ahead)
            find_slabs(d, a, ahead.block, ahead.head, ahead.part, p.next);
        else
            for (int32_t k = 0; k < KERN_ATTN_PAGES; k++)
                p.next[k] = NULL;
        kern->part(&p);
    }
    if (b->run)
        return;
    for (int32_t r = 0; r < n_rows; r++) {
        int32_t h = it.head * group + r % group;
        kern->finish(a->out + (b->row + r / group) * a->ldo + (int64_t)h * head_dim, s->m[r], s->l[r], s->o + (size_t)r * (size_t)plan->dim,
                     a->p.sinks ? a->p.sinks + h : NULL, head_dim);
    }
}

/* Join the partial results of one split block and head. */
static void join(struct dev *d, const struct attn_args *a, const struct cpu_attn_plan *plan, int64_t i, struct attn_scratch *s)
{
    const struct kern_attn *kern = a->kv->kern;
    const struct cpu_attn_block *b = &d->attn_blocks[plan->first + (size_t)(i / plan->n_kv_heads)];
    int32_t head = (int32_t)(i % plan->n_kv_heads), group = plan->group, n_rows = b->n_tokens * group, head_dim = a->p.head_dim;
    size_t parts = (size_t)(b->end - b->part), step = (size_t)n_rows * (size_t)(plan->dim + 2);
    const float *pm = (float *)(void *)d->scratch + b->partial + (size_t)head * parts * step;
    for (int32_t r = 0; r < n_rows; r++) {
        s->m[r] = -INFINITY;
        s->l[r] = 0.0f;
    }
    for (int32_t k = 0; k < n_rows * plan->dim; k++)
        s->o[k] = 0.0f;
    for (size_t part = 0; part < parts; part++, pm += step)
        kern->merge(n_rows, s->m, s->l, s->o, pm, pm + n_rows, pm + 2 * n_rows, head_dim);
    for (int32_t r = 0; r < n_rows; r++) {
        int32_t h = head * group + r % group;
        kern->finish(a->out + (b->row + r / group) * a->ldo + (int64_t)h * head_dim, s->m[r], s->l[r], s->o + (size_t)r * (size_t)plan->dim,
                     a->p.sinks ? a->p.sinks + h : NULL, head_dim);
    }
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
