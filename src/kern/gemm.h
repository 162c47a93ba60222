/* kern/gemm.h - matrix products y = x W^T with packed weights: layouts, kernels, the blocked loop.
 * Prefix: gemm_.
 *
 * Weights are packed into panels of GEMM_COLS output columns (rows of the stored matrix):
 *
 *     panel = [n_units][GEMM_COLS] units, a unit holding `group` consecutive K of one column
 *             F32: 1 x 4 bytes    F16: 1 x 2 bytes    BF16: 2 x 2 bytes (what vdpbf16ps eats)
 *
 * so a panel is one stream through memory and 16 columns of a unit are one vector.  K and the columns are padded
 * with zeros.  The layout is the same for every ISA.  A gated pair (gate, up) shares panels: columns 0..15
 * are gate rows, 16..31 the up rows of the same outputs.
 *
 * Activations are prepared once per product, by tiles of rows:
 *
 *     tile = [n][rows] 4-byte units: f32 values (n = K rounded up to even) or bf16 pairs (n = K/2 rounded up)
 *
 * in the type the kernel multiplies.
 *
 * Promise 1: a tile kernel gives every output element one accumulator that walks K upwards, one
 * unit at a time, whatever the number of rows and wherever K is cut into blocks (accumulators are stored and
 * loaded exactly).  So a row's result depends on that row alone.
 *
 * All functions here are pure and single-threaded; dev/cpu hands pieces of a product to its team. */
#ifndef QUIRE_KERN_GEMM_H
#define QUIRE_KERN_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kern/cpu.h"
#include "tensor/tensor.h"

enum gemm_format { GEMM_F32, GEMM_F16, GEMM_BF16, GEMM_FORMAT_COUNT };
enum { GEMM_COLS = 32, GEMM_ROWS_MAX = 14, GEMM_ALIGN = 64 };

/* One call of a tile kernel: rows x GEMM_COLS outputs over units [u0, u1). */
struct gemm_tile {
    const void *a;           /* the prepared tile (unit 0) */
    const void *b;           /* the panel (unit 0) */
    float *c;                /* [rows][GEMM_COLS] accumulators, 64-byte aligned */
    int rows;                /* 1..rows_max of the kernel */
    bool first;              /* start from zero instead of c */
    int64_t u0, u1;
    /* Where the memory to be read next lies: for each 4 units `prefetch_lines` cache lines are asked for. */
    const char *prefetch;
    int prefetch_lines;
};

struct gemm_kern {
    enum kern_isa isa;       /* where tile comes from; below the asked one when that has none of its own */
    enum gemm_format format;
    int rows_max;
    bool act_bf16;           /* activations are rounded to bf16 */
    void (*tile)(const struct gemm_tile *t);
    /* Prepare one tile of rows: x rows are ldx floats apart. */
    void (*prepare)(const float *x, int64_t ldx, int rows, int64_t k, void *a);
};

/* Never NULL for valid arguments. */
const struct gemm_kern *gemm_kern_get(enum kern_isa isa, enum gemm_format f);

/* ---- layouts ---- */
int64_t gemm_units(enum gemm_format f, int64_t k);            /* K rounded up, in units */
size_t gemm_panel_bytes(enum gemm_format f, int64_t k);       /* a multiple of 64 */
/* Bytes of one prepared row. */
size_t gemm_act_bytes(enum gemm_format f, bool act_bf16, int64_t k);

/* Fill columns [col0, col0 + n) of a zeroed panel from f32 rows (ld floats apart), or from stored rows
 * of the format's own type (stride bytes apart, any alignment). */
void gemm_pack(enum gemm_format f, void *panel, int col0, int n, int64_t k, const float *rows, int64_t ld);
void gemm_pack_raw(enum gemm_format f, void *panel, int col0, int n, int64_t k, const void *rows, size_t stride);
/* The k values of one column, back as f32. */
void gemm_unpack(enum gemm_format f, const void *panel, int col, int64_t k, float *out);

/* ---- epilogues ---- */
enum gemm_act { GEMM_ACT_NONE, GEMM_ACT_SILU, GEMM_ACT_GELU_ERF, GEMM_ACT_GELU_TANH, GEMM_ACT_RELU, GEMM_ACT_RELU2 };
enum gemm_store { GEMM_STORE, GEMM_ADD, GEMM_GLU };

/* y = scale * (c + bias); softcap > 0: y = softcap * tanh(y / softcap); y = act(y); then
 * STORE out = y, ADD out += y.  GLU: out[j] = act(y[j]) * y[16 + j] (no act on the second).
 * Relative error against exact arithmetic, for normal results: tanh and SILU 1e-6, GELU_ERF 2e-6, GELU_TANH 4e-6. */
struct gemm_epilogue {
    enum gemm_store store;
    enum gemm_act act;
    float scale, softcap;
};
/* One panel's rows: c [rows][GEMM_COLS]; bias [GEMM_COLS] or NULL; out rows ldo floats apart, n columns (GLU: at most 16). */
typedef void gemm_epilogue_fn(const struct gemm_epilogue *p, const float *c, int rows, const float *bias, float *out, int64_t ldo, int n);
gemm_epilogue_fn *gemm_epilogue_get(enum kern_isa isa);

/* ---- the blocked loop ---- */

/* M rows are cut into the fewest tiles of nearly equal height. */
struct gemm_rows { int n_tiles, low, n_high; };   /* the first n_high tiles have low + 1 rows, the others low */
struct gemm_rows gemm_rows_split(int64_t m, int rows_max);
int64_t gemm_rows_first(const struct gemm_rows *r, int tile);   /* first row of a tile; m for tile n_tiles */

struct gemm_job {
    const struct gemm_kern *kern;
    gemm_epilogue_fn *epilogue;
    struct gemm_epilogue epi;
    const void *panels;      /* [n_panels] */
    const float *bias;       /* [n_panels][GEMM_COLS] or NULL */
    int64_t k, n_panels;
    int64_t n_out;           /* output columns (GLU: half of the weight's rows) */
    const void *a;           /* prepared tiles, one after the other */
    struct gemm_rows rows;
    float *out;              /* rows ldo floats apart */
    int64_t ldo;
};

/* How a product is cut inside gemm_run; any choice gives the same bits. */
enum {
    GEMM_BLOCK_PANELS = 4,    /* panels that share an L1 resident piece of a tile */
    GEMM_BLOCK_TILES = 16,    /* tiles that share an L2 resident piece of these panels */
    GEMM_BLOCK_UNITS = 256,
};
/* Scratch of one gemm_run: enough for any job; 64-byte aligned. */
size_t gemm_scratch_bytes(void);
/* Compute panels [p0, p1) for tiles [t0, t1); any cut gives the same bits.  next: the panel this thread
 * will read after them, or NULL. */
void gemm_run(const struct gemm_job *j, int64_t p0, int64_t p1, int t0, int t1, const void *next, void *scratch);

#endif
