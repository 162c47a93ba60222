/* dev/cpu/linear.c - products with packed weights, and rows gathered out of them.
 *
 * A product has two phases: prepare the activations (tiles of rows, pieces of K), then the panels.  A product of
 * few values prepares them on every member by itself, which costs less than meeting. */
#include <assert.h>
#include "dev/cpu/cpu_int.h"
#include "dev/cpu/weight_int.h"

enum {
    LINEAR_ITEM_BYTES = 96 << 10,      /* weights in the last work items of few rows: some 5 us of reading */
    LINEAR_FIRST_BYTES = 2 << 20,      /* and at most in the first ones: claiming an item costs a quarter of a microsecond */
    LINEAR_LEVELS = 8,
    LINEAR_SELF_VALUES = 16384,        /* so many activations each member prepares for itself */
    LINEAR_PREPARE_K = 2048,           /* K of one item of preparing */
};

/* Items from `item` on have `size` panels, beginning with `panel`. */
struct level {
    int32_t item, panel, size;
};

struct linear {
    struct gemm_job job;
    const float *x;
    int64_t ldx;
    const int32_t *order;    /* of the weight's columns, or NULL */
    struct level levels[LINEAR_LEVELS];
    int32_t n_levels, n_panel_items, tiles_per_item, tile_blocks, k_pieces;
    bool self;
    size_t temp_bytes;       /* of a tile of rows in the weight's order */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int tile_height(const struct gemm_job *j, int tile)
{
    return (int)(gemm_rows_first(&j->rows, tile + 1) - gemm_rows_first(&j->rows, tile));
}

void dev_cpu_take_columns(const int32_t *order, int64_t k, const float *x, float *out)
{
    for (int64_t i = 0; i < k; i++)
        out[i] = x[order[i]];
}

/* Piece `piece` of the K of one tile; whole rows, brought into the weight's order, when it has one. */
static void prepare(const struct linear *l, void *a, int tile, int64_t piece, float *temp)
{
    const struct gemm_job *j = &l->job;
    int64_t row = gemm_rows_first(&j->rows, tile), k0 = piece * LINEAR_PREPARE_K;
    int rows = tile_height(j, tile);
    char *at = (char *)a + (size_t)row * gemm_act_bytes(j->kern, j->k);
    if (l->order) {
        for (int r = 0; r < rows; r++)
            dev_cpu_take_columns(l->order, j->k, l->x + (row + r) * l->ldx, temp + r * j->k);
        gemm_prepare(j->kern, temp, j->k, rows, j->k, at);
        return;
    }
    if (l->k_pieces == 1) {
        gemm_prepare(j->kern, l->x + row * l->ldx, l->ldx, rows, j->k, at);
        return;
    }
    int64_t k = j->k - k0 < LINEAR_PREPARE_K ? j->k - k0 : LINEAR_PREPARE_K;
    gemm_prepare(j->kern, l->x + row * l->ldx + k0, l->ldx, rows, k, at + (size_t)rows * gemm_act_bytes(j->kern, k0));
}

/* First panel of an item; its end is the first of the next one. */
static int64_t item_panel(const struct linear *l, int64_t item)
{
    int i = l->n_levels - 1;
    while (l->levels[i].item > item)
        i--;
    int64_t p = l->levels[i].panel + (item - l->levels[i].item) * l->levels[i].size;
    return p < l->job.n_panels ? p : l->job.n_panels;
}

static void run_panels(struct dev *d, const struct linear *l, const void *a, void *scratch)
{
    struct gemm_job job = l->job;
    job.a = a;
    size_t panel_bytes = gemm_panel_bytes(job.kern->format, job.k);
    int64_t n = (int64_t)l->n_panel_items * l->tile_blocks;
    /* Few rows: one item is claimed ahead, so that its first panel can be on its way. */
    bool claim = job.rows.n_tiles <= GEMM_BLOCK_TILES;
    int64_t item = cpu_next(d), ahead;
    for (; item < n; item = ahead) {
        ahead = claim ? cpu_next(d) : n;
        int64_t p0 = item_panel(l, item / l->tile_blocks), p1 = item_panel(l, item / l->tile_blocks + 1);
        int t0 = (int)(item % l->tile_blocks) * l->tiles_per_item, t1 = t0 + l->tiles_per_item;
        const char *next = NULL;
        if (ahead < n)
            next = (const char *)job.panels + (size_t)item_panel(l, ahead / l->tile_blocks) * panel_bytes;
        gemm_run(&job, p0, p1, t0, t1 < job.rows.n_tiles ? t1 : job.rows.n_tiles, next, scratch);
        if (!claim)
            ahead = cpu_next(d);
    }
}

static void run_linear(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct linear *l = (const struct linear *)op->args;
    char *scratch = cpu_member_scratch(d, member);
    float *temp = (float *)(void *)(scratch + gemm_scratch_bytes());
    if (l->self) {
        char *a = scratch + gemm_scratch_bytes() + l->temp_bytes;
        for (int t = 0; t < l->job.rows.n_tiles; t++)
            prepare(l, a, t, 0, temp);
        run_panels(d, l, a, scratch);
    } else if (phase == 0) {
        int64_t n = (int64_t)l->job.rows.n_tiles * l->k_pieces;
        for (int64_t i; (i = cpu_next(d)) < n;)
            prepare(l, d->scratch, (int)(i / l->k_pieces), i % l->k_pieces, temp);
    } else {
        run_panels(d, l, d->scratch, scratch);
    }
}

/* Items of n panels in all, from `first` panels down to `last`: each size halves when what is left would be a last turn of it for every thread.
 * So claims are few, and threads still end together. */
static void choose_levels(struct linear *l, int64_t n, int64_t first, int64_t last, int n_threads)
{
    int64_t size = first, item = 0, panel = 0, count;
    l->n_levels = 0;
    do {
        if (size < last || l->n_levels == LINEAR_LEVELS - 1)
            size = last;
        count = size == last ? ceil_div(n - panel, size) : (n - panel) / size - n_threads;
        if (count > 0) {
            l->levels[l->n_levels++] = (struct level){(int32_t)item, (int32_t)panel, (int32_t)size};
            item += count;
            panel += count * size;
        }
        size /= 2;
    } while (panel < n);
    l->n_panel_items = (int32_t)item;
}

/* Work items: small enough that a member that loses its core holds up little, large enough to pay. */
static void choose_items(struct linear *l, int n_threads)
{
    const struct gemm_job *j = &l->job;
    if (j->rows.n_tiles > GEMM_BLOCK_TILES) {
        l->tile_blocks = (int32_t)ceil_div(j->rows.n_tiles, GEMM_BLOCK_TILES);
        l->tiles_per_item = (int32_t)ceil_div(j->rows.n_tiles, l->tile_blocks);
        choose_levels(l, j->n_panels, GEMM_BLOCK_PANELS, GEMM_BLOCK_PANELS, n_threads);
        return;
    }
    int64_t cost = (int64_t)gemm_panel_bytes(j->kern->format, j->k) * j->rows.n_tiles, share = j->n_panels / (2 * (int64_t)n_threads);
    int64_t first = LINEAR_FIRST_BYTES / cost, last = LINEAR_ITEM_BYTES / cost;
    l->tile_blocks = 1;
    l->tiles_per_item = j->rows.n_tiles;
    last = last < share ? last : share;
    first = first < share ? first : share;
    choose_levels(l, j->n_panels, first, last < 1 ? 1 : last, n_threads);
}

enum gemm_act dev_cpu_gemm_act(enum dev_act act)
{
    static const enum gemm_act acts[] = {
        [DEV_ACT_NONE] = GEMM_ACT_NONE, [DEV_ACT_SILU] = GEMM_ACT_SILU, [DEV_ACT_GELU_ERF] = GEMM_ACT_GELU_ERF,
        [DEV_ACT_GELU_TANH] = GEMM_ACT_GELU_TANH, [DEV_ACT_RELU] = GEMM_ACT_RELU, [DEV_ACT_RELU2] = GEMM_ACT_RELU2,
    };
    return acts[act];
}

static struct gemm_epilogue epilogue_of(const struct dev_linear *p)
{
    static const enum gemm_store stores[] = {
        [DEV_EPI_STORE] = GEMM_STORE, [DEV_EPI_ADD] = GEMM_ADD, [DEV_EPI_GLU] = GEMM_GLU,
    };
    return (struct gemm_epilogue){stores[p->epi], dev_cpu_gemm_act(p->act), p->scale, p->softcap};
}

void dev_linear(struct dev *d, const struct dev_linear *p, const struct dev_weight *w,
                const float *x, int64_t ldx, float *out, int64_t ldo, int32_t n)
{
    int64_t n_out = w->gated ? w->n_out / 2 : w->n_out;
    assert(n >= 0 && ldx >= w->k && ldo >= n_out);
    assert((p->epi == DEV_EPI_GLU) == w->gated);
    if (n == 0)
        return;
    const struct gemm_kern *kern = gemm_kern_get(d->isa, w->format, d->inputs);
    bool self = n * w->k <= LINEAR_SELF_VALUES;
    double macs = (double)n * (double)w->n_out * (double)w->k;
    int64_t cost = (int64_t)w->bytes / 20 + (int64_t)(macs / 50);
    struct linear *l = cpu_op_add(d, "linear", -1, self ? 1 : 2, run_linear, sizeof *l, cost);
    l->job = (struct gemm_job){
        .kern = kern, .epilogue = gemm_epilogue_get(d->isa), .epi = epilogue_of(p),
        .panels = w->panels, .bias = w->bias, .k = w->k, .n_panels = w->n_panels, .n_out = n_out,
        .rows = gemm_rows_of(kern, n), .out = out, .ldo = ldo,
    };
    l->x = x;
    l->ldx = ldx;
    l->self = self;
    l->order = w->order;
    l->temp_bytes = w->order ? ((size_t)kern->rows_max * (size_t)w->k * sizeof(float) + 63) & ~(size_t)63 : 0;
    l->k_pieces = self || w->order || gemm_prepare_step(kern) == 0 ? 1 : (int32_t)ceil_div(w->k, LINEAR_PREPARE_K);
    choose_items(l, tpool_size(d->team));
    size_t a_bytes = (size_t)n * gemm_act_bytes(kern, w->k);
    cpu_need(d, self ? 0 : a_bytes, gemm_scratch_bytes() + l->temp_bytes + (self ? a_bytes : 0));
}

/* ---- embedding ---- */

struct embed {
    const struct dev_weight *table;
    float *out;
    float scale;
};

static void run_embed(struct dev *d, const struct cpu_op *op, int phase, int member)
{
    const struct embed *g = (const struct embed *)op->args;
    const struct dev_weight *w = g->table;
    (void)phase;
    (void)member;
    for (int64_t i; (i = cpu_next(d)) < d->batch.n_tokens;) {
        int64_t id = d->batch.token_ids[i];
        float *out = g->out + i * w->k;
        assert(id >= 0 && id < w->n_out);
        gemm_unpack(w->format, w->panels + (size_t)(id / GEMM_COLS) * w->panel_bytes, (int)(id % GEMM_COLS), w->k, out);
        for (int64_t c = 0; g->scale != 1 && c < w->k; c++)
            out[c] *= g->scale;
    }
}

void dev_embed(struct dev *d, float *out, const struct dev_weight *table, float scale)
{
    assert(!table->gated && !table->order);
    struct embed *g = cpu_op_add(d, "embed", -1, 1, run_embed, sizeof *g, (int64_t)d->batch.n_tokens * table->k);
    *g = (struct embed){table, out, scale};
}
