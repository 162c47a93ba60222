/* dev/cpu/moe.c - a mixture of experts in one operation.
 *
 * A row that uses k experts has k slots.  Slots are sorted by expert, so that each expert is one product over its rows:
 *
 *   0 route     each row's experts and weights; the row prepared       items: rows
 *   1 group     slots by expert, work of the products                  one item
 *   2 gather    the rows of each expert                                items: tiles
 *   3 gate, up  act(gate) * up of every slot                           items: pieces of an expert's panels
 *   4 prepare   these                                                  items: tiles
 *   5 down      the outputs of every slot                              items: pieces of an expert's panels
 *   6 combine   a row's slots, weighted, in the order of the experts   items: rows
 * or, where there are columns enough for the team and experts are narrow,
 *   5 down      the outputs, weighted and added expert by expert       items: pieces of the columns
 * which spares writing and reading a row for every slot.
 *
 * A row is prepared once, alone, and its experts' tiles are put together from such rows.  That holds for the experts that have the first
 * one's kernel and take columns in their own order; rows of others (a shared expert in another format) are prepared for each in phase 2.
 *
 * The products are those of linear.c, so a slot's output depends on its row alone; so does the order in which slots are added. */
#include <assert.h>
#include <math.h>
#include <string.h>
#include "dev/cpu/cpu_int.h"
#include "dev/cpu/weight_int.h"

enum { MOE_ITEM_BYTES = 96 << 10, MOE_PHASES = 7 };
enum { ADD_PANELS = 8, ADD_FFN = 4096 };
enum { UP, DOWN };

/* How an expert's product is cut into items. */
struct cut {
    const struct gemm_kern *kern;
    int64_t first_item;
    int32_t panels_per_item, tile_blocks, tiles_per_item;
    int32_t first_tile;        /* of this expert among all tiles */
    struct gemm_rows rows;
};

/* An expert that some row uses. */
struct part {
    int32_t expert, slot, n;   /* slots [slot, slot + n) */
    bool join;                 /* its rows are there, prepared */
    struct cut cut[2];
};

/* Where things are in the shared scratch. */
struct places {
    size_t expert, weight, slot, choice, first, parts, totals, row_ready, x, h, h_ready, y, end;
};

struct totals { int64_t items[2]; int32_t tiles[2], n_parts; };

struct moe {
    struct dev_moe p;
    const float *router, *x;
    float *out, scale;
    int32_t n, k, n_all, hidden, ffn;      /* k slots a row; experts, shared one included; the widest ffn */
    int32_t add_panels;                    /* > 0: the second form of phase 5, so many panels of columns an item */
    const struct gemm_kern *kern[2];       /* of the first expert, and so of most */
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
    size_t rows = (size_t)m->n, slots = rows * (size_t)m->k, experts = (size_t)m->n_all + 1, *end = &m->at.end;
    *end = 0;
    m->at.expert = place(end, slots, sizeof(int32_t));
    m->at.weight = place(end, slots, sizeof(float));
    m->at.slot = place(end, slots, sizeof(int32_t));
    m->at.choice = place(end, slots, sizeof(int32_t));
    m->at.first = place(end, experts, sizeof(int32_t));
    m->at.parts = place(end, experts, sizeof(struct part));
    m->at.totals = place(end, 1, sizeof(struct totals));
    m->at.row_ready = place(end, rows, ready_bytes(m->hidden));
    m->at.x = place(end, slots, ready_bytes(m->hidden));
    m->at.h = place(end, slots, (size_t)m->ffn * sizeof(float));
    m->at.h_ready = place(end, slots, ready_bytes(m->ffn));
    m->at.y = place(end, m->add_panels ? 0 : slots, (size_t)m->hidden * sizeof(float));
}

static void *in_scratch(const struct dev *d, size_t at)
{
    return d->scratch + at;
}

static const struct dev_weight *weight_of(const struct moe *m, int32_t expert, int which)
{
    return which == UP ? m->p.gate_up[expert] : m->p.down[expert];
}

/* Looking a kernel up costs more than routing a row. */
static const struct gemm_kern *kern_of(const struct dev *d, const struct moe *m, const struct dev_weight *w, int which)
{
    return w->format == m->kern[which]->format ? m->kern[which] : gemm_kern_get(d->isa, w->format, d->inputs);
}

/* Row i, prepared alone for the first expert's kernel. */
static unsigned char *row_ready(const struct dev *d, const struct moe *m, int64_t i)
{
    return (unsigned char *)in_scratch(d, m->at.row_ready) + (size_t)i * ready_bytes(m->hidden);
}

/* ---- routing ---- */

/* Whether a group is among the best: fewer than n_groups_used groups have a better best expert (or as good, and come first). */
static bool group_is_used(const struct dev_moe *p, const float *logits, int32_t own)
{
    int32_t size = p->n_experts / p->n_groups, better = 0;
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

/* NaN is worse than everything. */
static bool better(float x, float than)
{
    return x > than || (than != than && x == x);
}

/* The best experts of [from, end) join the n chosen so far, best first; of equals the lower comes first.  Returns how many there are. */
static int32_t choose(const struct dev_moe *p, const float *logits, int32_t from, int32_t end, int32_t *expert, int32_t n)
{
    for (int32_t e = from; e < end; e++) {
        float x = logits[e];
        if (n == p->n_used && !better(x, logits[expert[n - 1]]))
            continue;
        int32_t i = n < p->n_used ? n++ : n - 1;
        for (; i > 0 && better(x, logits[expert[i - 1]]); i--)
            expert[i] = expert[i - 1];
        expert[i] = e;
    }
    return n;
}

void dev_moe_route(const struct dev_moe *p, const float *logits, int32_t *expert, float *weight)
{
    int32_t used = p->n_used, groups = p->n_groups > 0 ? p->n_groups : 1, size = p->n_experts / groups, n = 0;
    for (int32_t g = 0; g < groups; g++)
        if (p->n_groups <= 0 || group_is_used(p, logits, g))
            n = choose(p, logits, g * size, (g + 1) * size, expert, n);
    float top = logits[expert[0]], sum = 0.0f;
    for (int32_t r = 0; r < used; r++)
        weight[r] = expf(logits[expert[r]] - top);
    for (int32_t e = 0; e < (p->renormalize ? used : p->n_experts); e++)
        sum += p->renormalize ? weight[e] : expf(logits[e] - top);
    for (int32_t r = 0; r < used; r++)
        weight[r] = weight[r] / sum * p->routed_scale;
    if (p->shared != DEV_MOE_NO_SHARED) {
        expert[used] = p->n_experts;
        weight[used] = p->shared == DEV_MOE_SHARED ? 1.0f : 1.0f / (1.0f + expf(-logits[p->n_experts]));
    }
}

/* By expert, which is the order in which they are added. */
static void sort_slots(int32_t *expert, float *weight, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        int32_t e = expert[i], j = i;
        float w = weight[i];
        for (; j > 0 && expert[j - 1] > e; j--) {
            expert[j] = expert[j - 1];
            weight[j] = weight[j - 1];
        }
        expert[j] = e;
        weight[j] = w;
    }
}

static void route(struct dev *d, const struct moe *m)
{
    int32_t width = m->p.n_experts + (m->p.shared == DEV_MOE_SHARED_GATED), chunk = cpu_chunk(d, m->n);
    int32_t *expert = in_scratch(d, m->at.expert);
    float *weight = in_scratch(d, m->at.weight);
    for (int64_t i; (i = cpu_next(d) * chunk) < m->n;)
        for (int64_t row = i; row < i + chunk && row < m->n; row++) {
            dev_moe_route(&m->p, m->router + row * width, expert + row * m->k, weight + row * m->k);
            sort_slots(expert + row * m->k, weight + row * m->k, m->k);
            gemm_prepare(m->kern[UP], m->x + row * m->hidden, m->hidden, 1, m->hidden, row_ready(d, m, row));
        }
}

/* ---- grouping ---- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Cuts of one product over n rows; adds to the running totals. */
static struct cut cut_product(const struct gemm_kern *kern, const struct dev_weight *w, int32_t n, int64_t *items, int32_t *tiles)
{
    struct cut c = { .kern = kern, .first_item = *items, .first_tile = *tiles, .rows = gemm_rows_of(kern, n), .tile_blocks = 1 };
    int32_t n_tiles = c.rows.n_tiles;
    if (n_tiles > GEMM_BLOCK_TILES)
        c.tile_blocks = (int32_t)ceil_div(n_tiles, GEMM_BLOCK_TILES);
    c.tiles_per_item = (int32_t)ceil_div(n_tiles, c.tile_blocks);
    int64_t want = n_tiles > 1 ? GEMM_BLOCK_PANELS : MOE_ITEM_BYTES / (int64_t)w->panel_bytes;
    c.panels_per_item = (int32_t)(want < 1 ? 1 : want > w->n_panels ? w->n_panels : want);
    *items += ceil_div(w->n_panels, c.panels_per_item) * c.tile_blocks;
    *tiles += n_tiles;
    return c;
}

static void cut_part(const struct dev *d, const struct moe *m, struct part *part, struct totals *t)
{
    for (int which = UP; which <= DOWN; which++) {
        const struct dev_weight *w = weight_of(m, part->expert, which);
        part->cut[which] = cut_product(kern_of(d, m, w, which), w, part->n, &t->items[which], &t->tiles[which]);
    }
    part->join = part->cut[UP].kern == m->kern[UP] && !m->p.gate_up[part->expert]->order;
}

static void group(struct dev *d, const struct moe *m)
{
    if (cpu_next(d) != 0)
        return;
    const int32_t *expert = in_scratch(d, m->at.expert);
    int32_t *first = in_scratch(d, m->at.first), *slot = in_scratch(d, m->at.slot), *choice = in_scratch(d, m->at.choice);
    struct part *parts = in_scratch(d, m->at.parts);
    struct totals *t = in_scratch(d, m->at.totals);
    int32_t n_slots = m->n * m->k;
    memset(first, 0, ((size_t)m->n_all + 1) * sizeof *first);
    for (int32_t i = 0; i < n_slots; i++)
        first[expert[i] + 1]++;
    *t = (struct totals){ 0 };
    for (int32_t e = 0; e < m->n_all; e++) {
        int32_t n = first[e + 1];
        first[e + 1] += first[e];
        if (n == 0)
            continue;
        parts[t->n_parts] = (struct part){ .expert = e, .slot = first[e], .n = n };
        cut_part(d, m, &parts[t->n_parts++], t);
    }
    parts[t->n_parts] = (struct part){ .cut = { { .first_item = INT64_MAX, .first_tile = INT32_MAX }, { .first_item = INT64_MAX, .first_tile = INT32_MAX } } };
    /* Rows in ascending order within an expert; the counts are walked as cursors. */
    for (int32_t i = 0; i < n_slots; i++) {
        slot[i] = first[expert[i]]++;
        choice[slot[i]] = i;
    }
}

/* ---- products ---- */

/* The row of an expert's r-th slot. */
static int64_t row_of(const struct dev *d, const struct moe *m, const struct part *part, int64_t r)
{
    return ((const int32_t *)in_scratch(d, m->at.choice))[part->slot + r] / m->k;
}

static void *ready_at(const struct dev *d, const struct moe *m, const struct part *part, int which)
{
    size_t bytes = ready_bytes(which == UP ? m->hidden : m->ffn);
    return (unsigned char *)in_scratch(d, which == UP ? m->at.x : m->at.h_ready) + (size_t)part->slot * bytes;
}

/* The prepared tiles of an expert.  A single row is taken from where it is. */
static const void *tiles_of(const struct dev *d, const struct moe *m, const struct part *part, int which)
{
    return which == UP && part->join && part->n == 1 ? row_ready(d, m, row_of(d, m, part, 0)) : ready_at(d, m, part, which);
}

/* Rows [r0, r1) of an expert: gathered from x, or in place in h; brought into the weight's order. */
static void prepare_rows(struct dev *d, const struct moe *m, const struct part *part, int which, int64_t r0, int64_t r1, float *temp, void *ready)
{
    const struct dev_weight *w = weight_of(m, part->expert, which);
    const float *h = (const float *)in_scratch(d, m->at.h) + (int64_t)part->slot * m->ffn;
    if (which == DOWN && !w->order) {
        gemm_prepare(part->cut[which].kern, h + r0 * m->ffn, m->ffn, (int)(r1 - r0), w->k, ready);
        return;
    }
    for (int64_t r = r0; r < r1; r++) {
        const float *x = which == DOWN ? h + r * m->ffn : m->x + row_of(d, m, part, r) * m->hidden;
        if (w->order)
            dev_cpu_take_columns(w->order, w->k, x, temp + (r - r0) * w->k);
        else
            memcpy(temp + (r - r0) * w->k, x, (size_t)w->k * sizeof(float));
    }
    gemm_prepare(part->cut[which].kern, temp, w->k, (int)(r1 - r0), w->k, ready);
}

static void join_rows(struct dev *d, const struct moe *m, const struct part *part, int64_t r0, int64_t r1, void *ready)
{
    const void *rows[GEMM_ROWS_MAX];
    for (int64_t r = r0; r < r1; r++)
        rows[r - r0] = row_ready(d, m, row_of(d, m, part, r));
    gemm_prepare_join(m->kern[UP], rows, (int)(r1 - r0), m->hidden, ready);
}

static void prepare_tiles(struct dev *d, const struct moe *m, int which, float *temp)
{
    const struct part *part = in_scratch(d, m->at.parts);
    const struct totals *t = in_scratch(d, m->at.totals);
    for (int64_t i; (i = cpu_next(d)) < t->tiles[which];) {
        while (part[1].cut[which].first_tile <= i)
            part++;
        const struct cut *c = &part->cut[which];
        int tile = (int)(i - c->first_tile);
        int64_t r0 = gemm_rows_first(&c->rows, tile), r1 = gemm_rows_first(&c->rows, tile + 1);
        unsigned char *ready = (unsigned char *)ready_at(d, m, part, which)
                             + (size_t)r0 * gemm_act_bytes(c->kern, weight_of(m, part->expert, which)->k);
        if (which == DOWN || !part->join)
            prepare_rows(d, m, part, which, r0, r1, temp, ready);
        else if (part->n > 1)
            join_rows(d, m, part, r0, r1, ready);
    }
}

/* Where item's panels begin. */
static int64_t first_panel(const struct cut *c, int64_t item)
{
    return (item - c->first_item) / c->tile_blocks * c->panels_per_item;
}

static void run_item(struct dev *d, const struct moe *m, const struct part *part, int which, int64_t item, const void *next, void *scratch)
{
    const struct cut *c = &part->cut[which];
    const struct dev_weight *w = weight_of(m, part->expert, which);
    enum gemm_act act = dev_cpu_gemm_act(m->p.act);
    int64_t ld = which == DOWN ? m->hidden : m->ffn;
    struct gemm_job job = {
        .kern = c->kern, .epilogue = gemm_epilogue_get(d->isa),
        .epi = { which == DOWN ? GEMM_STORE : GEMM_GLU, which == DOWN ? GEMM_ACT_NONE : act, 1.0f, 0.0f },
        .panels = w->panels, .bias = w->bias, .k = w->k, .n_panels = w->n_panels, .n_out = which == DOWN ? w->n_out : w->n_out / 2,
        .a = tiles_of(d, m, part, which), .rows = c->rows,
        .out = (float *)in_scratch(d, which == DOWN ? m->at.y : m->at.h) + part->slot * ld, .ldo = ld,
    };
    int64_t p0 = first_panel(c, item), p1 = p0 + c->panels_per_item;
    int t0 = (int)((item - c->first_item) % c->tile_blocks) * c->tiles_per_item, t1 = t0 + c->tiles_per_item;
    gemm_run(&job, p0, p1 < w->n_panels ? p1 : w->n_panels, t0, t1 < c->rows.n_tiles ? t1 : c->rows.n_tiles, next, scratch);
}

/* One item is claimed ahead, so that its first panel, of whichever expert, can be on its way. */
static void run_products(struct dev *d, const struct moe *m, int which, void *scratch)
{
    const struct part *part = in_scratch(d, m->at.parts);
    const struct totals *t = in_scratch(d, m->at.totals);
    int64_t n = t->items[which];
    for (int64_t i = cpu_next(d), ahead; i < n; i = ahead) {
        ahead = cpu_next(d);
        while (part[1].cut[which].first_item <= i)
            part++;
        const void *next = NULL;
        if (ahead < n) {
            const struct part *then = part;
            while (then[1].cut[which].first_item <= ahead)
                then++;
            const struct dev_weight *w = weight_of(m, then->expert, which);
            next = w->panels + (size_t)first_panel(&then->cut[which], ahead) * w->panel_bytes;
        }
        run_item(d, m, part, which, i, next, scratch);
    }
}

/* Tiles [t0, t1) of an expert times `panels` panels from p0 of its second weight, added to the rows of out. */
static void add_tiles(struct dev *d, const struct moe *m, const struct part *part, int64_t p0, int64_t panels, int t0, int t1, const void *next,
                      void *scratch, float *y)
{
    const struct cut *c = &part->cut[DOWN];
    const struct dev_weight *w = weight_of(m, part->expert, DOWN);
    int64_t r0 = gemm_rows_first(&c->rows, t0), r1 = gemm_rows_first(&c->rows, t1), col = p0 * GEMM_COLS;
    int32_t cols = (int32_t)(w->n_out - col < panels * GEMM_COLS ? w->n_out - col : panels * GEMM_COLS);
    int high = c->rows.n_high < t0 ? 0 : c->rows.n_high < t1 ? c->rows.n_high - t0 : t1 - t0;
    struct gemm_job job = {
        .kern = c->kern, .epilogue = gemm_epilogue_get(d->isa), .epi = { GEMM_STORE, GEMM_ACT_NONE, 1.0f, 0.0f },
        .panels = w->panels + (size_t)p0 * w->panel_bytes, .bias = w->bias ? w->bias + col : NULL, .k = w->k, .n_panels = panels, .n_out = cols,
        .a = (const unsigned char *)tiles_of(d, m, part, DOWN) + (size_t)r0 * gemm_act_bytes(c->kern, w->k),
        .rows = { t1 - t0, c->rows.low, high }, .out = y, .ldo = panels * GEMM_COLS,
    };
    gemm_run(&job, 0, panels, 0, t1 - t0, next, scratch);
    const int32_t *choice = (const int32_t *)in_scratch(d, m->at.choice) + part->slot;
    const float *weight = in_scratch(d, m->at.weight);
    for (int64_t r = r0; r < r1; r++)
        d->row->add_scaled(m->out + (int64_t)(choice[r] / m->k) * m->hidden + col, y + (r - r0) * job.ldo, weight[choice[r]] * m->scale, cols);
}

static const void *down_panel(const struct moe *m, const struct part *part, int64_t p)
{
    const struct dev_weight *w = weight_of(m, part->expert, DOWN);
    return w->panels + (size_t)p * w->panel_bytes;
}

static void add_products(struct dev *d, const struct moe *m, void *scratch, float *y)
{
    const struct part *parts = in_scratch(d, m->at.parts);
    int32_t n_parts = ((const struct totals *)in_scratch(d, m->at.totals))->n_parts;
    int64_t n_panels = m->p.down[0]->n_panels, n = ceil_div(n_panels, m->add_panels);
    for (int64_t i = cpu_next(d), ahead; i < n; i = ahead) {
        ahead = cpu_next(d);
        int64_t p0 = i * m->add_panels, panels = n_panels - p0 < m->add_panels ? n_panels - p0 : m->add_panels;
        for (int32_t k = 0; k < n_parts; k++) {
            const struct part *part = &parts[k], *then = k + 1 < n_parts ? part + 1 : parts;
            const void *again = down_panel(m, part, p0), *next = down_panel(m, then, then > parts ? p0 : ahead < n ? ahead * m->add_panels : 0);
            int n_tiles = part->cut[DOWN].rows.n_tiles;
            for (int t = 0; t < n_tiles; t += GEMM_BLOCK_TILES) {
                int end = t + GEMM_BLOCK_TILES < n_tiles ? t + GEMM_BLOCK_TILES : n_tiles;
                add_tiles(d, m, part, p0, panels, t, end, end < n_tiles ? again : next, scratch, y);
            }
        }
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
    case 2: prepare_tiles(d, m, UP, temp); break;
    case 3: run_products(d, m, UP, scratch); break;
    case 4: prepare_tiles(d, m, DOWN, temp); break;
    case 5:
        if (m->add_panels)
            add_products(d, m, scratch, temp);
        else
            run_products(d, m, DOWN, scratch);
        break;
    default: combine(d, m);
    }
}

/* Panels of columns an item, when there are some for every member and a row's products are short enough for its output to matter; or 0. */
static int32_t add_panels(const struct moe *m, int n_threads)
{
    int64_t n = m->p.down[0]->n_panels / (4 * (int64_t)n_threads);
    return n < 2 || m->ffn > ADD_FFN ? 0 : n < ADD_PANELS ? (int32_t)n : ADD_PANELS;
}

/* Experts may differ in format, and the shared one in its width. */
static inline bool shapes_fit(const struct moe *m)
{
    bool fit = true;
    for (int32_t e = 0; e < m->n_all; e++) {
        const struct dev_weight *up = m->p.gate_up[e], *down = m->p.down[e];
        fit &= up->gated && !down->gated && up->k == m->hidden && down->n_out == m->hidden && down->k == up->n_out / 2 && down->k <= m->ffn;
    }
    return fit;
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
    const struct dev_weight *ends[] = { p->gate_up[0], p->down[0], p->gate_up[m.n_all - 1], p->down[m.n_all - 1] };
    m.ffn = (int32_t)(ends[1]->k > ends[3]->k ? ends[1]->k : ends[3]->k);
    assert(shapes_fit(&m));
    for (int which = UP; which <= DOWN; which++)
        m.kern[which] = gemm_kern_get(d->isa, ends[which]->format, d->inputs);
    int64_t bytes = (int64_t)(ends[0]->bytes + ends[1]->bytes);
    m.add_panels = add_panels(&m, tpool_size(d->team));
    lay(&m);
    /* Of the experts at most one a slot is read. */
    int64_t slots = (int64_t)n * m.k, read = bytes * (slots < m.n_all ? slots : m.n_all);
    int64_t macs = 3 * slots * m.hidden * m.ffn;
    struct moe *args = cpu_op_add(d, "moe", -1, m.add_panels ? MOE_PHASES - 1 : MOE_PHASES, run_moe, sizeof m, read / 20 + macs / 50);
    *args = m;
    int64_t temp = GEMM_ROWS_MAX * (int64_t)(m.hidden > m.ffn ? m.hidden : m.ffn), y = (int64_t)GEMM_ROWS_MAX * GEMM_BLOCK_TILES * m.add_panels * GEMM_COLS;
    cpu_need(d, m.at.end, gemm_scratch_bytes() + (size_t)(temp > y ? temp : y) * sizeof(float));
}
