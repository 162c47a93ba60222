/* dev/cpu/moe.c - a mixture of experts in one operation.
 *
 * A row that uses k experts has k slots.  Slots are sorted by expert, so that each expert is one product over its rows:
 *
 *   0 route     each row's experts and weights                         items: rows
 *   1 group     slots by expert, work of the products                  one item
 *   2 gather    the rows of each expert, prepared                      items: tiles
 *   3 gate, up  act(gate) * up of every slot                           items: pieces of an expert's panels
 *   4 prepare   these                                                  items: tiles
 *   5 down      the outputs of every slot                              items: pieces of an expert's panels
 *   6 combine   a row's slots, weighted, in the order of its choice    items: rows
 *
 * The products are those of linear.c, so a slot's output depends on its row alone; so does the order of phase 6. */
#include <assert.h>
#include <math.h>
#include <string.h>
#include "dev/cpu/cpu_int.h"
#include "dev/cpu/weight_int.h"

enum { MOE_ITEM_BYTES = 96 << 10, MOE_PHASES = 7 };

/* How an expert's product is cut into items. */
struct cut {
    int64_t first_item;
    int32_t panels_per_item, tile_blocks, tiles_per_item;
    int32_t first_tile;        /* of this expert among all tiles */
    struct gemm_rows rows;
};

/* Where things are in the shared scratch. */
struct places {
    size_t expert, weight, slot, row, first, up, down, totals, x, h, h_ready, y, end;
};

struct totals { int64_t up_items, down_items; int32_t up_tiles, down_tiles; };

struct moe {
    struct dev_moe p;
    const float *router, *x;
    float *out, scale;
    int32_t n, k, n_all, hidden, ffn;      /* k slots a row; experts, shared one included; the widest ffn */
    struct places at;
};

static size_t place(size_t *end, size_t count, size_t bytes)
{
    size_t at = *end;
    *end = (at + count * bytes + 63) & ~(size_t)63;
    return at;
}

/* A prepared row is at most this wide in any format: f32, or integers with K rounded up to whole groups. */
static size_t ready_bytes(int32_t k)
{
    return ((size_t)k + 127) / 128 * 512;
}

static void lay(struct moe *m)
{
    size_t slots = (size_t)m->n * (size_t)m->k, experts = (size_t)m->n_all + 1, *end = &m->at.end;
    *end = 0;
    m->at.expert = place(end, slots, sizeof(int32_t));
    m->at.weight = place(end, slots, sizeof(float));
    m->at.slot = place(end, slots, sizeof(int32_t));
    m->at.row = place(end, slots, sizeof(int32_t));
    m->at.first = place(end, experts, sizeof(int32_t));
    m->at.up = place(end, experts, sizeof(struct cut));
    m->at.down = place(end, experts, sizeof(struct cut));
    m->at.totals = place(end, 1, sizeof(struct totals));
    m->at.x = place(end, slots, ready_bytes(m->hidden));
    m->at.h = place(end, slots, (size_t)m->ffn * sizeof(float));
    m->at.h_ready = place(end, slots, ready_bytes(m->ffn));
    m->at.y = place(end, slots, (size_t)m->hidden * sizeof(float));
}

static void *in_scratch(const struct dev *d, size_t at)
{
    return d->scratch + at;
}

/* ---- routing ---- */

/* Whether expert e's group is among the best: fewer than n_groups_used groups have a better best expert (or as good, and come first). */
static bool group_is_used(const struct dev_moe *p, const float *logits, int32_t e)
{
    int32_t size = p->n_experts / p->n_groups, own = e / size, better = 0;
    float own_best = -INFINITY;
    for (int32_t i = own * size; i < (own + 1) * size; i++)
        own_best = logits[i] > own_best ? logits[i] : own_best;
    for (int32_t g = 0; g < p->n_groups; g++) {
        float best = -INFINITY;
        for (int32_t i = g * size; i < (g + 1) * size; i++)
            best = logits[i] > best ? logits[i] : best;
        better += best > own_best || (best == own_best && g < own);
    }
    return better < p->n_groups_used;
}

void dev_moe_route(const struct dev_moe *p, const float *logits, int32_t *expert, float *weight)
{
    int32_t used = p->n_used;
    for (int32_t r = 0; r < used; r++) {
        int32_t best = -1;
        for (int32_t e = 0; e < p->n_experts; e++) {
            bool taken = p->n_groups > 0 && !group_is_used(p, logits, e);
            for (int32_t i = 0; i < r; i++)
                taken |= expert[i] == e;
            /* NaN is never better; all NaN: the first that is free. */
            if (!taken && (best < 0 || logits[e] > logits[best]))
                best = e;
        }
        expert[r] = best;
    }
    float top = logits[expert[0]], sum = 0.0f;
    for (int32_t e = 0; e < (p->renormalize ? used : p->n_experts); e++)
        sum += expf(logits[p->renormalize ? expert[e] : e] - top);
    for (int32_t r = 0; r < used; r++)
        weight[r] = expf(logits[expert[r]] - top) / sum * p->routed_scale;
    if (p->shared != DEV_MOE_NO_SHARED) {
        expert[used] = p->n_experts;
        weight[used] = p->shared == DEV_MOE_SHARED ? 1.0f : 1.0f / (1.0f + expf(-logits[p->n_experts]));
    }
}

static void route(struct dev *d, const struct moe *m)
{
    int32_t width = m->p.n_experts + (m->p.shared == DEV_MOE_SHARED_GATED), chunk = cpu_chunk(d, m->n);
    int32_t *expert = in_scratch(d, m->at.expert);
    float *weight = in_scratch(d, m->at.weight);
    for (int64_t i; (i = cpu_next(d) * chunk) < m->n;)
        for (int64_t row = i; row < i + chunk && row < m->n; row++)
            dev_moe_route(&m->p, m->router + row * width, expert + row * m->k, weight + row * m->k);
}

/* ---- grouping ---- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static const struct gemm_kern *kern_of(const struct dev *d, const struct dev_weight *w)
{
    return gemm_kern_get(d->isa, w->format, d->inputs);
}

/* Cuts of one product over n rows, as linear.c makes them; adds to the running totals. */
static void cut_product(const struct dev *d, const struct dev_weight *w, int32_t n, struct cut *c, int64_t *items, int32_t *tiles)
{
    *c = (struct cut){ .first_item = *items, .first_tile = *tiles, .rows = gemm_rows_of(kern_of(d, w), n) };
    if (n == 0) {
        c->rows.n_tiles = 0;
        c->panels_per_item = c->tile_blocks = c->tiles_per_item = 1;
        return;
    }
    if (c->rows.n_tiles > GEMM_BLOCK_TILES) {
        c->panels_per_item = GEMM_BLOCK_PANELS;
        c->tile_blocks = (int32_t)ceil_div(c->rows.n_tiles, GEMM_BLOCK_TILES);
        c->tiles_per_item = (int32_t)ceil_div(c->rows.n_tiles, c->tile_blocks);
    } else {
        int64_t want = MOE_ITEM_BYTES / (int64_t)w->panel_bytes / c->rows.n_tiles;
        c->panels_per_item = (int32_t)(want < 1 ? 1 : want > w->n_panels ? w->n_panels : want);
        c->tile_blocks = 1;
        c->tiles_per_item = c->rows.n_tiles;
    }
    *items += ceil_div(w->n_panels, c->panels_per_item) * c->tile_blocks;
    *tiles += c->rows.n_tiles;
}

static void group(struct dev *d, const struct moe *m)
{
    if (cpu_next(d) != 0)
        return;
    const int32_t *expert = in_scratch(d, m->at.expert);
    int32_t *first = in_scratch(d, m->at.first), *slot = in_scratch(d, m->at.slot), *row = in_scratch(d, m->at.row);
    struct cut *up = in_scratch(d, m->at.up), *down = in_scratch(d, m->at.down);
    struct totals *t = in_scratch(d, m->at.totals);
    int32_t n_slots = m->n * m->k;
    memset(first, 0, ((size_t)m->n_all + 1) * sizeof *first);
    for (int32_t i = 0; i < n_slots; i++)
        first[expert[i] + 1]++;
    for (int32_t e = 0; e < m->n_all; e++)
        first[e + 1] += first[e];
    /* Rows in ascending order within an expert: the counts are walked as cursors and then put back. */
    for (int32_t i = 0; i < n_slots; i++) {
        slot[i] = first[expert[i]]++;
        row[slot[i]] = i / m->k;
    }
    memmove(first + 1, first, (size_t)m->n_all * sizeof *first);
    first[0] = 0;
    *t = (struct totals){ 0 };
    for (int32_t e = 0; e < m->n_all; e++) {
        int32_t n = first[e + 1] - first[e];
        cut_product(d, m->p.gate_up[e], n, &up[e], &t->up_items, &t->up_tiles);
        cut_product(d, m->p.down[e], n, &down[e], &t->down_items, &t->down_tiles);
    }
    up[m->n_all] = (struct cut){ .first_item = t->up_items, .first_tile = t->up_tiles };
    down[m->n_all] = (struct cut){ .first_item = t->down_items, .first_tile = t->down_tiles };
}

/* The expert whose range holds item (or tile): the last one that starts at or before it and is not empty. */
static int32_t expert_of(const struct cut *cuts, int32_t n, int64_t at, bool by_tile)
{
    int32_t low = 0, high = n;
    while (high - low > 1) {
        int32_t mid = low + (high - low) / 2;
        if ((by_tile ? cuts[mid].first_tile : cuts[mid].first_item) <= at)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* ---- products ---- */

/* One tile of an expert's rows: gathered from x, or in place in src; prepared at the place of its first slot. */
static void prepare_tiles(struct dev *d, const struct moe *m, bool second, float *temp)
{
    const struct cut *cuts = in_scratch(d, second ? m->at.down : m->at.up);
    const struct totals *t = in_scratch(d, m->at.totals);
    const int32_t *first = in_scratch(d, m->at.first), *row = in_scratch(d, m->at.row);
    int64_t n_tiles = second ? t->down_tiles : t->up_tiles;
    for (int64_t i; (i = cpu_next(d)) < n_tiles;) {
        int32_t e = expert_of(cuts, m->n_all, i, true);
        const struct dev_weight *w = second ? m->p.down[e] : m->p.gate_up[e];
        const struct gemm_kern *kern = kern_of(d, w);
        int tile = (int)(i - cuts[e].first_tile);
        int64_t r0 = gemm_rows_first(&cuts[e].rows, tile), r1 = gemm_rows_first(&cuts[e].rows, tile + 1), s0 = first[e] + r0;
        const float *src = (const float *)in_scratch(d, m->at.h) + s0 * m->ffn;
        int64_t ld = m->ffn;
        for (int64_t s = 0; (!second || w->order) && s < r1 - r0; s++) {
            const float *x = second ? src + s * ld : m->x + (int64_t)row[s0 + s] * m->hidden;
            if (w->order)
                dev_cpu_take_columns(w->order, w->k, x, temp + s * w->k);
            else
                memcpy(temp + s * m->hidden, x, (size_t)m->hidden * sizeof(float));
        }
        if (!second || w->order) {
            src = temp;
            ld = w->k;
        }
        unsigned char *ready = (unsigned char *)in_scratch(d, second ? m->at.h_ready : m->at.x)
                             + (size_t)first[e] * ready_bytes(second ? m->ffn : m->hidden);
        gemm_prepare(kern, src, ld, (int)(r1 - r0), w->k, ready + (size_t)r0 * gemm_act_bytes(kern, w->k));
    }
}

static void run_products(struct dev *d, const struct moe *m, bool second, void *scratch)
{
    const struct cut *cuts = in_scratch(d, second ? m->at.down : m->at.up);
    const struct totals *t = in_scratch(d, m->at.totals);
    const int32_t *first = in_scratch(d, m->at.first);
    enum gemm_act act = dev_cpu_gemm_act(m->p.act);
    int64_t n = second ? t->down_items : t->up_items;
    for (int64_t i; (i = cpu_next(d)) < n;) {
        int32_t e = expert_of(cuts, m->n_all, i, false);
        const struct cut *c = &cuts[e];
        const struct dev_weight *w = second ? m->p.down[e] : m->p.gate_up[e];
        int64_t ld = second ? m->hidden : m->ffn;
        struct gemm_job job = {
            .kern = kern_of(d, w), .epilogue = gemm_epilogue_get(d->isa),
            .epi = { second ? GEMM_STORE : GEMM_GLU, second ? GEMM_ACT_NONE : act, 1.0f, 0.0f },
            .panels = w->panels, .bias = w->bias, .k = w->k, .n_panels = w->n_panels, .n_out = second ? w->n_out : w->n_out / 2,
            .a = (unsigned char *)in_scratch(d, second ? m->at.h_ready : m->at.x) + (size_t)first[e] * ready_bytes(second ? m->ffn : m->hidden),
            .rows = c->rows, .out = (float *)in_scratch(d, second ? m->at.y : m->at.h) + first[e] * ld, .ldo = ld,
        };
        int64_t item = i - c->first_item, p0 = item / c->tile_blocks * c->panels_per_item, p1 = p0 + c->panels_per_item;
        int t0 = (int)(item % c->tile_blocks) * c->tiles_per_item, t1 = t0 + c->tiles_per_item;
        gemm_run(&job, p0, p1 < w->n_panels ? p1 : w->n_panels, t0, t1 < c->rows.n_tiles ? t1 : c->rows.n_tiles, NULL, scratch);
    }
}

static void combine(struct dev *d, const struct moe *m)
{
    const float *weight = in_scratch(d, m->at.weight), *y = in_scratch(d, m->at.y);
    const int32_t *slot = in_scratch(d, m->at.slot);
    int32_t chunk = cpu_chunk(d, m->n);
    for (int64_t i; (i = cpu_next(d) * chunk) < m->n;)
        for (int64_t row = i; row < i + chunk && row < m->n; row++)
            for (int32_t r = 0; r < m->k; r++)
                d->row->add_scaled(m->out + row * m->hidden, y + (int64_t)slot[row * m->k + r] * m->hidden, weight[row * m->k + r] * m->scale,
                                   m->hidden);
}

static void run_moe(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct moe *m = (const void *)op->args;
    unsigned char *scratch = cpu_member_scratch(d, member);
    float *temp = (float *)(void *)(scratch + gemm_scratch_bytes());
    switch (phase) {
    case 0: route(d, m); break;
    case 1: group(d, m); break;
    case 2: prepare_tiles(d, m, false, temp); break;
    case 3: run_products(d, m, false, scratch); break;
    case 4: prepare_tiles(d, m, true, temp); break;
    case 5: run_products(d, m, true, scratch); break;
    default: combine(d, m);
    }
}

void dev_moe(struct dev *d, const struct dev_moe *p, const float *router, const float *x, float *out, float scale, int32_t n)
{
    assert(p->n_groups == 0 || (p->n_experts % p->n_groups == 0 && p->n_used <= p->n_experts / p->n_groups * p->n_groups_used));
    assert(p->n_experts > 0 && p->n_used > 0 && p->n_used <= p->n_experts && n >= 0);
    if (n == 0)
        return;
    struct moe m = { .p = *p, .router = router, .x = x, .out = out, .scale = scale, .n = n };
    bool shared = p->shared != DEV_MOE_NO_SHARED;
    m.k = p->n_used + shared;
    m.n_all = p->n_experts + shared;
    m.hidden = (int32_t)p->gate_up[0]->k;
    int64_t bytes = 0;
    for (int32_t e = 0; e < m.n_all; e++) {
        const struct dev_weight *up = p->gate_up[e], *down = p->down[e];
        assert(up->gated && !down->gated && up->k == m.hidden && down->n_out == m.hidden && down->k == up->n_out / 2);
        m.ffn = down->k > m.ffn ? (int32_t)down->k : m.ffn;
        bytes += (int64_t)(up->bytes + down->bytes);
    }
    lay(&m);
    /* Of the experts at most one a slot is read. */
    int64_t read = n * (int64_t)m.k < m.n_all ? bytes / m.n_all * n * m.k : bytes;
    int64_t macs = 3 * (int64_t)n * m.k * m.hidden * m.ffn;
    struct moe *args = cpu_op_add(d, "moe", -1, MOE_PHASES, run_moe, sizeof m, read / 20 + macs / 50);
    *args = m;
    cpu_need(d, m.at.end, gemm_scratch_bytes() + (size_t)GEMM_ROWS_MAX * (size_t)(m.hidden > m.ffn ? m.hidden : m.ffn) * sizeof(float));
}
