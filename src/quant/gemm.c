/* Products in F32 by the kernels of kern/. */
#include <string.h>
#include "base/mem.h"
#include "kern/gemm.h"
#include "quant/quant.h"

struct product {
    struct gemm_job job;
    char *panels, *acts, *scratch;
    size_t panel_bytes;
    const float *a, *b;
    int64_t lda, ldb;
};

static void pack(void *arg, int64_t p, int member)
{
    const struct product *g = arg;
    int64_t first = p * GEMM_COLS, n = g->job.n_out - first;
    (void)member;
    gemm_pack(GEMM_F32, g->panels + (size_t)p * g->panel_bytes, 0, n < GEMM_COLS ? (int)n : GEMM_COLS, g->job.k, g->b + first * g->ldb, g->ldb, NULL);
}

static void prepare(void *arg, int64_t tile, int member)
{
    const struct product *g = arg;
    int64_t row = gemm_rows_first(&g->job.rows, (int)tile), end = gemm_rows_first(&g->job.rows, (int)tile + 1);
    (void)member;
    gemm_prepare(g->job.kern, g->a + row * g->lda, g->lda, (int)(end - row), g->job.k, g->acts + (size_t)row * gemm_act_bytes(g->job.kern, g->job.k));
}

static void multiply(void *arg, int64_t p, int member)
{
    const struct product *g = arg;
    gemm_run(&g->job, p, p + 1, 0, g->job.rows.n_tiles, NULL, g->scratch + (size_t)member * gemm_scratch_bytes());
}

bool quant_gemm(const struct quant_team *t, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc,
                int64_t m, int64_t n, int64_t k, struct err *e)
{
    if (m < 1 || n < 1 || k < 1)
        return true;
    const struct gemm_kern *kern = gemm_kern_get(t->isa, GEMM_F32, GEMM_INPUTS_AUTO);
    struct product g = {
        .job = { .kern = kern, .epilogue = gemm_epilogue_get(t->isa), .epi = { .store = GEMM_ADD, .act = GEMM_ACT_NONE, .scale = alpha },
                 .k = k, .n_panels = (n + GEMM_COLS - 1) / GEMM_COLS, .n_out = n, .rows = gemm_rows_split(m, kern->rows_max), .out = c, .ldo = ldc },
        .panel_bytes = gemm_panel_bytes(GEMM_F32, k), .a = a, .b = b, .lda = lda, .ldb = ldb,
    };
    size_t panels, acts;
    bool ok = mem_mul(g.panel_bytes, (size_t)g.job.n_panels, &panels) && mem_mul(gemm_act_bytes(kern, k), (size_t)m, &acts);
    g.panels = ok ? mem_try_aligned(panels) : NULL;
    g.acts = ok ? mem_try_aligned(acts) : NULL;
    g.scratch = mem_try_aligned(gemm_scratch_bytes() * (size_t)t->n_members);
    ok = g.panels && g.acts && g.scratch;
    if (ok) {
        g.job.panels = g.panels;
        g.job.a = g.acts;
        t->run(t->ctx, g.job.n_panels, pack, &g);
        t->run(t->ctx, g.job.rows.n_tiles, prepare, &g);
        t->run(t->ctx, g.job.n_panels, multiply, &g);
    }
    mem_free(g.panels);
    mem_free(g.acts);
    mem_free(g.scratch);
    return ok || err_set(e, ERR_NOMEM, "no memory for a product of %lld x %lld x %lld", (long long)m, (long long)n, (long long)k);
}
