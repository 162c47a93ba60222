/* Products with packed weights, of the five matrices of a dense layer and the head, with their epilogues.
 *
 * One arena holds panels of a format and K, all alike (their values do not change the time), and weights are images in it:
 * as many as it takes to be cold. */
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "bench/kernels_int.h"
#include "kern/gemm.h"

enum { MAX_WEIGHTS = 256, MAX_HEAD_ROWS = 128 };

static const int32_t all_rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512}, quick_rows[] = {1, 8, 32, 512};

/* A matrix of the model. */
struct matrix {
    const char *name;
    int64_t n_out, k;
    enum dev_epi epi;
    enum dev_act act;
};

struct linear_bench {
    struct kernel_run *r;
    struct bench_arena arena;
    float *x, *out;                      /* device memory [m_max][k], [m_max][n_out] */
    /* the matrix being measured */
    const struct matrix *matrix;
    struct dev_weight *weights[MAX_WEIGHTS];
    int n_weights, next;
    int32_t m;
};

static int64_t out_width(const struct matrix *m)
{
    return m->epi == DEV_EPI_GLU ? m->n_out / 2 : m->n_out;
}

static bool run_products(void *ctx, int n, struct err *e)
{
    struct linear_bench *b = ctx;
    const struct matrix *mx = b->matrix;
    struct dev_linear p = {.epi = mx->epi, .act = mx->act, .scale = 1};
    dev_step_begin(b->r->d, &(struct dev_batch){0});
    for (int i = 0; i < n; i++, b->next = (b->next + 1) % b->n_weights)
        dev_linear(b->r->d, &p, b->weights[b->next], b->x, mx->k, b->out, out_width(mx), b->m);
    return dev_step_end(b->r->d, e);
}

static void close_weights(struct linear_bench *b)
{
    for (int i = 0; i < b->n_weights; i++)
        dev_weight_free(b->r->d, &b->weights[i]);
    b->n_weights = b->next = 0;
}

static enum gemm_format gemm_of(enum dev_format f)
{
    static const enum gemm_format table[DEV_FMT_COUNT] = {
        [DEV_FMT_F32] = GEMM_F32, [DEV_FMT_F16] = GEMM_F16, [DEV_FMT_BF16] = GEMM_BF16, [DEV_FMT_I8] = GEMM_I8,
        [DEV_FMT_I8_G16] = GEMM_I8_G16, [DEV_FMT_I8_G32] = GEMM_I8_G32, [DEV_FMT_I4] = GEMM_I4, [DEV_FMT_U4_G32] = GEMM_U4_G32,
        [DEV_FMT_U4_G64] = GEMM_U4_G64, [DEV_FMT_U4_G128] = GEMM_U4_G128, [DEV_FMT_F8] = GEMM_F8,
        [DEV_FMT_U8_G16] = GEMM_U8_G16, [DEV_FMT_U8_G32] = GEMM_U8_G32, [DEV_FMT_F8_G128] = GEMM_F8_G128,
    };
    return table[f];
}

enum probe_kind bench_rate_of(const struct dev *d, enum dev_format f)
{
    enum kern_isa isa;
    if (!kern_isa_parse(dev_caps(d)->isa, &isa))
        isa = KERN_ISA_SCALAR;
    enum gemm_operand operand = gemm_kern_get(isa, gemm_of(f), dev_caps(d)->float_inputs ? GEMM_INPUTS_FLOAT : GEMM_INPUTS_AUTO)->operand;
    return operand == GEMM_OPERAND_F32 ? PROBE_F32 : operand == GEMM_OPERAND_BF16 ? PROBE_BF16 : PROBE_INT8;
}

static int copies_of(const struct kernel_run *r, size_t bytes)
{
    size_t n = (r->cold_bytes + bytes - 1) / bytes;
    return n < 1 ? 1 : n > MAX_WEIGHTS ? MAX_WEIGHTS : (int)n;
}

/* ---- the arena ---- */

struct fill { unsigned char *arena; size_t panel_bytes, n_panels; };
enum { FILL_PANELS = 16 };

static void fill_panels(void *ctx, int64_t i, int member)
{
    struct fill *f = ctx;
    (void)member;
    /* Panel 0 is the pattern. */
    for (size_t p = (size_t)i * FILL_PANELS; p < (size_t)(i + 1) * FILL_PANELS && p < f->n_panels; p++)
        if (p > 0)
            memcpy(f->arena + p * f->panel_bytes, f->arena, f->panel_bytes);
}

bool bench_arena_open(struct bench_arena *a, struct dev *d, enum dev_format f, int64_t k, size_t bytes, struct err *e)
{
    enum gemm_format g = gemm_of(f);
    size_t panel = gemm_panel_bytes(g, k);
    float *rows = mem_try_alloc((size_t)k, GEMM_COLS * sizeof *rows);
    *a = (struct bench_arena){rows ? mem_try_map(bytes) : NULL, bytes};
    if (!a->p) {
        mem_free(rows);
        return err_set(e, ERR_NOMEM, "no memory for %zu bytes of weights", bytes);
    }
    bench_kernel_fill(rows, (size_t)k * GEMM_COLS, 1);
    gemm_pack(g, a->p, 0, GEMM_COLS, k, rows, k, NULL);
    mem_free(rows);
    struct fill fill = {a->p, panel, bytes / panel};
    dev_for(d, (int64_t)((fill.n_panels + FILL_PANELS - 1) / FILL_PANELS), fill_panels, &fill);
    return true;
}

void bench_arena_close(struct bench_arena *a)
{
    if (a->p)
        mem_unmap(a->p, a->bytes);
    a->p = NULL;
}

/* ---- measuring ---- */

static bool measure_matrix(struct linear_bench *b, const struct matrix *mx, enum dev_format f, const int32_t *rows, int n_rows, struct err *e)
{
    size_t bytes = dev_weight_bytes(f, mx->n_out, mx->k, false);
    char name[48];
    bool ok = true;
    b->matrix = mx;
    for (int n = copies_of(b->r, bytes); ok && b->n_weights < n; b->n_weights += ok) {
        struct dev_weight_shape s = {.format = f, .n_out = mx->n_out, .k = mx->k, .gated = mx->epi == DEV_EPI_GLU};
        ok = dev_weight_from_image(b->r->d, &b->weights[b->n_weights], &s, b->arena.p + (size_t)b->n_weights * bytes, bytes, e);
    }
    snprintf(name, sizeof name, "linear_%s_%s", mx->name, dev_format_name(f));
    for (int i = 0; ok && i < n_rows; i++) {
        if (strcmp(mx->name, "head") == 0 && rows[i] > MAX_HEAD_ROWS)   /* no step asks for the logits of so many rows */
            continue;
        b->m = rows[i];
        struct kernel_case c = {
            .name = name, .format = dev_format_name(f), .m = b->m, .bytes = (double)bytes, .ops = 2.0 * b->m * (double)mx->n_out * (double)mx->k,
            .rate = bench_rate_of(b->r->d, f), .max_ops = b->n_weights, .run = run_products, .run_ctx = b,
        };
        snprintf(c.shape, sizeof c.shape, "m=%d n=%lld k=%lld", (int)b->m, (long long)mx->n_out, (long long)mx->k);
        ok = bench_kernel_measure(b->r, &c, e);
    }
    close_weights(b);
    return ok;
}

/* All matrices of one K in one format, from one arena. */
static bool measure_k(struct linear_bench *b, const struct matrix *list, int n, int64_t k, enum dev_format f, const int32_t *rows, int n_rows,
                      struct err *e)
{
    size_t need = 0;
    bool wanted[8] = {false}, ok = true;
    for (int i = 0; i < n; i++) {
        char name[48];
        size_t bytes = dev_weight_bytes(f, list[i].n_out, list[i].k, false);
        snprintf(name, sizeof name, "linear_%s_%s", list[i].name, dev_format_name(f));
        wanted[i] = list[i].k == k && bytes < b->r->memory_bytes && bench_kernel_wanted(b->r, name, dev_format_name(f));
        if (wanted[i] && bytes * (size_t)copies_of(b->r, bytes) > need)
            need = bytes * (size_t)copies_of(b->r, bytes);
    }
    if (need == 0)
        return true;
    ok = bench_arena_open(&b->arena, b->r->d, f, k, need, e);
    for (int i = 0; ok && i < n; i++)
        ok = !wanted[i] || measure_matrix(b, &list[i], f, rows, n_rows, e);
    bench_arena_close(&b->arena);
    return ok;
}

bool bench_kernels_linear(struct kernel_run *r, struct err *e)
{
    const struct bench_shape *s = &r->o->shape;
    const int64_t hidden = s->hidden, q = (int64_t)s->n_heads * s->head_dim;
    const struct matrix list[] = {
        {"qkv", q + 2 * (int64_t)s->n_kv_heads * s->head_dim, hidden, DEV_EPI_STORE, DEV_ACT_NONE},
        {"o", hidden, q, DEV_EPI_ADD, DEV_ACT_NONE},
        {"gate_up", 2 * (int64_t)s->ffn, hidden, DEV_EPI_GLU, DEV_ACT_SILU},
        {"down", hidden, s->ffn, DEV_EPI_ADD, DEV_ACT_NONE},
        {"head", s->vocab, hidden, DEV_EPI_STORE, DEV_ACT_NONE},
    };
    enum { N = sizeof list / sizeof list[0] };
    const int32_t *rows = r->o->n_rows ? r->o->rows : r->o->quick ? quick_rows : all_rows;
    int n_rows = r->o->n_rows ? r->o->n_rows : r->o->quick ? 4 : 9;
    struct linear_bench b = {.r = r};
    size_t x_floats = 0, out_floats = 0;
    bool any = false, ok = true;
    for (int i = 0; i < N; i++) {
        int32_t most = 0;
        for (int j = 0; j < n_rows; j++)
            if (rows[j] > most && !(i == N - 1 && rows[j] > MAX_HEAD_ROWS))
                most = rows[j];
        size_t x = (size_t)most * (size_t)list[i].k, y = (size_t)most * (size_t)out_width(&list[i]);
        x_floats = x > x_floats ? x : x_floats;
        out_floats = y > out_floats ? y : out_floats;
        for (int f = 0; f < DEV_FMT_COUNT; f++) {
            char name[48];
            snprintf(name, sizeof name, "linear_%s_%s", list[i].name, dev_format_name((enum dev_format)f));
            any |= bench_kernel_wanted(r, name, dev_format_name((enum dev_format)f));
        }
    }
    if (!any)
        return true;
    b.x = dev_alloc(r->d, x_floats * sizeof *b.x, e);
    b.out = b.x ? dev_alloc(r->d, out_floats * sizeof *b.out, e) : NULL;
    ok = b.out != NULL;
    if (ok)
        bench_kernel_fill(b.x, x_floats, 2);
    for (int f = 0; ok && f < DEV_FMT_COUNT; f++)
        for (int i = 0; ok && i < N; i++) {
            bool seen = false;
            for (int j = 0; j < i; j++)
                seen |= list[j].k == list[i].k;
            ok = seen || measure_k(&b, list, N, list[i].k, (enum dev_format)f, rows, n_rows, e);
        }
    dev_free(r->d, b.x);
    dev_free(r->d, b.out);
    return ok;
}
