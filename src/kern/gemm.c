/* kern/gemm.c - kernel tables, panel layouts and the blocked loop over one thread's piece of a product. */
#include "kern/gemm.h"

#include <assert.h>
#include <string.h>
#include "kern/gemm_int.h"

/* ---- tables ---- */

static const struct gemm_kern kernels[KERN_ISA_COUNT][GEMM_FORMAT_COUNT] = {
    [KERN_ISA_SCALAR] = {
        [GEMM_F32] = {KERN_ISA_SCALAR, GEMM_F32, 8, false, gemm_tile_f32_ref, gemm_prepare_f32_ref},
        [GEMM_F16] = {KERN_ISA_SCALAR, GEMM_F16, 8, false, gemm_tile_f16_ref, gemm_prepare_f32_ref},
        [GEMM_BF16] = {KERN_ISA_SCALAR, GEMM_BF16, 8, false, gemm_tile_bf16_ref, gemm_prepare_f32_ref},
    },
    [KERN_ISA_AVX2] = {
        [GEMM_F32] = {KERN_ISA_AVX2, GEMM_F32, 6, false, gemm_tile_f32_avx2, gemm_prepare_f32_ref},
        [GEMM_F16] = {KERN_ISA_AVX2, GEMM_F16, 6, false, gemm_tile_f16_avx2, gemm_prepare_f32_ref},
        [GEMM_BF16] = {KERN_ISA_AVX2, GEMM_BF16, 6, false, gemm_tile_bf16_avx2, gemm_prepare_f32_ref},
    },
    [KERN_ISA_AVX512] = {
        [GEMM_F32] = {KERN_ISA_AVX512, GEMM_F32, 14, false, gemm_tile_f32_avx512, gemm_prepare_f32_avx512},
        [GEMM_F16] = {KERN_ISA_AVX512, GEMM_F16, 14, false, gemm_tile_f16_avx512, gemm_prepare_f32_avx512},
        [GEMM_BF16] = {KERN_ISA_AVX512, GEMM_BF16, 14, false, gemm_tile_bf16_avx512, gemm_prepare_f32_avx512},
    },
    [KERN_ISA_AVX512_BF16] = {
        [GEMM_F32] = {KERN_ISA_AVX512, GEMM_F32, 14, false, gemm_tile_f32_avx512, gemm_prepare_f32_avx512},
        [GEMM_F16] = {KERN_ISA_AVX512, GEMM_F16, 14, false, gemm_tile_f16_avx512, gemm_prepare_f32_avx512},
        [GEMM_BF16] = {KERN_ISA_AVX512_BF16, GEMM_BF16, 14, true, gemm_tile_bf16_avx512bf16, gemm_prepare_bf16_avx512bf16},
    },
};

const struct gemm_kern *gemm_kern_get(enum kern_isa isa, enum gemm_format f)
{
    assert((unsigned)isa < KERN_ISA_COUNT && (unsigned)f < GEMM_FORMAT_COUNT);
    return &kernels[isa][f];
}

gemm_epilogue_fn *gemm_epilogue_get(enum kern_isa isa)
{
    static gemm_epilogue_fn *const epilogues[KERN_ISA_COUNT] = {
        [KERN_ISA_SCALAR] = gemm_epilogue_ref,
        [KERN_ISA_AVX2] = gemm_epilogue_avx2,
        [KERN_ISA_AVX512] = gemm_epilogue_avx512,
        [KERN_ISA_AVX512_BF16] = gemm_epilogue_avx512,
    };
    assert((unsigned)isa < KERN_ISA_COUNT);
    return epilogues[isa];
}

/* ---- layouts ---- */

static const struct { uint8_t group, unit_bytes; } layouts[GEMM_FORMAT_COUNT] = {
    [GEMM_F32] = {1, 4},
    [GEMM_F16] = {1, 2},
    [GEMM_BF16] = {2, 4},
};

int64_t gemm_units(enum gemm_format f, int64_t k)
{
    return (k + layouts[f].group - 1) / layouts[f].group;
}

size_t gemm_panel_bytes(enum gemm_format f, int64_t k)
{
    return (size_t)gemm_units(f, k) * GEMM_COLS * layouts[f].unit_bytes;
}

size_t gemm_act_bytes(enum gemm_format f, bool act_bf16, int64_t k)
{
    (void)f;
    return act_bf16 ? (size_t)(k + 1) / 2 * 4 : (size_t)(k + 1) / 2 * 8;
}

void gemm_pack(enum gemm_format f, void *panel, int col0, int n, int64_t k, const float *rows, int64_t ld)
{
    for (int j = 0; j < n; j++) {
        const float *x = rows + j * ld;
        uint32_t *w = (uint32_t *)panel + col0 + j;
        uint16_t *h = (uint16_t *)panel + (f == GEMM_F16 ? 1 : 2) * (col0 + j);
        if (f == GEMM_F32) {
            for (int64_t u = 0; u < k; u++)
                memcpy(w + u * GEMM_COLS, x + u, 4);
        } else if (f == GEMM_F16) {
            for (int64_t u = 0; u < k; u++)
                h[u * GEMM_COLS] = tensor_f32_to_f16(x[u]);
        } else {
            for (int64_t u = 0; u < k; u++)
                h[u / 2 * 2 * GEMM_COLS + u % 2] = tensor_f32_to_bf16(x[u]);
        }
    }
}

/* Blocks of K, so that the lines written stay in L1 while the columns go by. */
void gemm_pack_raw(enum gemm_format f, void *panel, int col0, int n, int64_t k, const void *rows, size_t stride)
{
    enum { BLOCK = 128 };
    size_t unit = layouts[f].unit_bytes;
    int64_t whole = k / layouts[f].group;
    for (int64_t u0 = 0; u0 < whole; u0 += BLOCK) {
        int64_t u1 = u0 + BLOCK < whole ? u0 + BLOCK : whole;
        for (int j = 0; j < n; j++) {
            const char *src = (const char *)rows + (size_t)j * stride;
            char *dst = (char *)panel + (size_t)(col0 + j) * unit;
            if (unit == 4) {
                for (int64_t u = u0; u < u1; u++)
                    memcpy(dst + (size_t)u * GEMM_COLS * 4, src + (size_t)u * 4, 4);
            } else {
                for (int64_t u = u0; u < u1; u++)
                    memcpy(dst + (size_t)u * GEMM_COLS * 2, src + (size_t)u * 2, 2);
            }
        }
    }
    /* Odd K of a pair format: the second half stays zero. */
    for (int j = 0; whole * layouts[f].group < k && j < n; j++)
        memcpy((char *)panel + ((size_t)whole * GEMM_COLS + (size_t)(col0 + j)) * unit,
               (const char *)rows + (size_t)j * stride + (size_t)whole * unit, 2);
}

void gemm_unpack(enum gemm_format f, const void *panel, int col, int64_t k, float *out)
{
    const uint16_t *h = (const uint16_t *)panel + (f == GEMM_F16 ? 1 : 2) * col;
    if (f == GEMM_F32) {
        for (int64_t u = 0; u < k; u++)
            out[u] = ((const float *)panel)[u * GEMM_COLS + col];
    } else if (f == GEMM_F16) {
        for (int64_t u = 0; u < k; u++)
            out[u] = tensor_f16_to_f32(h[u * GEMM_COLS]);
    } else {
        for (int64_t u = 0; u < k; u++)
            out[u] = tensor_bf16_to_f32(h[u / 2 * 2 * GEMM_COLS + u % 2]);
    }
}

/* ---- rows ---- */

struct gemm_rows gemm_rows_split(int64_t m, int rows_max)
{
    int n = (int)((m + rows_max - 1) / rows_max);
    if (n == 0)
        return (struct gemm_rows){0, 0, 0};
    return (struct gemm_rows){n, (int)(m / n), (int)(m % n)};
}

int64_t gemm_rows_first(const struct gemm_rows *r, int tile)
{
    return (int64_t)tile * r->low + (tile < r->n_high ? tile : r->n_high);
}

/* ---- the blocked loop ---- */

enum { TILE_FLOATS = 16 * GEMM_COLS };   /* room for GEMM_ROWS_MAX rows */

size_t gemm_scratch_bytes(void)
{
    return (size_t)GEMM_BLOCK_PANELS * GEMM_BLOCK_TILES * TILE_FLOATS * sizeof(float);
}

/* One rectangle of a product: panels [p0, p1), tiles [t0, t1). */
struct block {
    int64_t p0, p1;
    int t0, t1;
    float *c;             /* [t1 - t0][p1 - p0][TILE_FLOATS] */
    const char *next;     /* memory wanted after this block, or NULL */
};

static const char *panel_at(const struct gemm_job *j, int64_t p)
{
    return (const char *)j->panels + (size_t)p * gemm_panel_bytes(j->kern->format, j->k);
}

static void store_tile(const struct gemm_job *j, int64_t p, int tile, int rows, const float *c)
{
    int width = j->epi.store == GEMM_GLU ? GEMM_COLS / 2 : GEMM_COLS;
    int64_t col = p * width;
    int n = j->n_out - col < width ? (int)(j->n_out - col) : width;
    j->epilogue(&j->epi, c, rows, j->bias ? j->bias + p * GEMM_COLS : NULL,
                j->out + gemm_rows_first(&j->rows, tile) * j->ldo + col, j->ldo, n);
}

/* Units [u0, u1) of a block.  `ahead` is the memory to be asked for meanwhile, spread over all tile calls. */
static void run_units(const struct gemm_job *j, const struct block *b, int64_t u0, int64_t u1, const char *ahead)
{
    enum gemm_format f = j->kern->format;
    size_t act = gemm_act_bytes(f, j->kern->act_bf16, j->k);
    int64_t units = gemm_units(f, j->k);
    int lines = 4 * GEMM_COLS * layouts[f].unit_bytes / 64, n_tiles = b->t1 - b->t0;
    int share = (lines + n_tiles - 1) / n_tiles;
    size_t part = (size_t)share * 64 * (size_t)((u1 - u0) / 4);
    for (int t = b->t0; t < b->t1; t++) {
        int64_t row = gemm_rows_first(&j->rows, t);
        int rows = (int)(gemm_rows_first(&j->rows, t + 1) - row);
        for (int64_t p = b->p0; p < b->p1; p++) {
            float *c = b->c + ((size_t)(t - b->t0) * (size_t)(b->p1 - b->p0) + (size_t)(p - b->p0)) * TILE_FLOATS;
            struct gemm_tile tile = {
                .a = (const char *)j->a + (size_t)row * act, .b = panel_at(j, p), .c = c, .rows = rows,
                .first = u0 == 0, .u0 = u0, .u1 = u1,
                .prefetch = ahead, .prefetch_lines = ahead ? share : 0,
            };
            if (ahead)
                tile.prefetch += (size_t)(t - b->t0) * part;
            j->kern->tile(&tile);
            if (u1 == units)
                store_tile(j, p, t, rows, c);
        }
    }
}

/* One tile of rows: panels stream by; what is read next is asked for a fixed distance ahead. */
static void run_stream(const struct gemm_job *j, const struct block *b)
{
    enum { AHEAD = 4096 };
    for (int64_t p = b->p0; p < b->p1; p++) {
        struct block one = {p, p + 1, b->t0, b->t1, b->c, NULL};
        run_units(j, &one, 0, gemm_units(j->kern->format, j->k), panel_at(j, p) + AHEAD);
    }
}

/* A few tiles, one panel at a time: each piece of a panel is read from memory once and while it is used
 * the next piece comes in. */
static void run_few(const struct gemm_job *j, const struct block *b)
{
    int64_t units = gemm_units(j->kern->format, j->k);
    size_t unit = (size_t)GEMM_COLS * layouts[j->kern->format].unit_bytes;
    for (int64_t p = b->p0; p < b->p1; p++) {
        struct block one = {p, p + 1, b->t0, b->t1, b->c, NULL};
        for (int64_t u = 0; u < units; u += GEMM_BLOCK_UNITS) {
            int64_t end = u + GEMM_BLOCK_UNITS < units ? u + GEMM_BLOCK_UNITS : units;
            const char *ahead = end < units || p + 1 < b->p1 ? panel_at(j, p) + (size_t)end * unit : b->next;
            run_units(j, &one, u, end, ahead);
        }
    }
}

static void run_many(const struct gemm_job *j, const struct block *b)
{
    int64_t units = gemm_units(j->kern->format, j->k);
    for (int64_t u = 0; u < units; u += GEMM_BLOCK_UNITS) {
        int64_t end = u + GEMM_BLOCK_UNITS < units ? u + GEMM_BLOCK_UNITS : units;
        run_units(j, b, u, end, NULL);
    }
}

void gemm_run(const struct gemm_job *j, int64_t p0, int64_t p1, int t0, int t1, const void *next, void *scratch)
{
    struct block b = {p0, p1, t0, t1, scratch, next};
    if (t1 - t0 == 1) {
        run_stream(j, &b);
        return;
    }
    if (t1 - t0 <= GEMM_BLOCK_TILES) {
        run_few(j, &b);
        return;
    }
    for (int64_t p = p0; p < p1; p += GEMM_BLOCK_PANELS) {
        b.p0 = p;
        b.p1 = p + GEMM_BLOCK_PANELS < p1 ? p + GEMM_BLOCK_PANELS : p1;
        for (int t = t0; t < t1; t += GEMM_BLOCK_TILES) {
            b.t0 = t;
            b.t1 = t + GEMM_BLOCK_TILES < t1 ? t + GEMM_BLOCK_TILES : t1;
            run_many(j, &b);
        }
    }
}
