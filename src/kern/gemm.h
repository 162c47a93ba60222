/* kern/gemm.h - matrix products y = x W^T with packed weights: layouts, kernels, the blocked loop.
 * Prefix: gemm_.
 *
 * Weights are packed into panels of GEMM_COLS output columns (rows of the stored matrix):
 *
 *     panel = [n_units][GEMM_COLS] units, a unit holding `group` consecutive K of one column
 *             F32: 1 x 4 bytes    F16: 1 x 2 bytes    BF16: 2 x 2 bytes (what vdpbf16ps eats)
 *             I8:  4 x 1 byte, unsigned, the value + 128 (what vpdpbusd eats)
 *             U4:  4 nibbles; byte j of the unit's 64 holds column j/4 (low) and 16 + j/4 (high)
 *             U8:  4 x 1 byte, unsigned
 *             I4:  as U4, the value + 8
 *             F8:  2 x 1 byte, E4M3, in the order of gemm_f8_at (gemm_int.h)
 *
 * so a panel is one stream through memory and 16 columns of a unit are one vector.  K and the columns are padded
 * with zeros.  Quantized by groups of K, each group's units follow its f16 scales [GEMM_COLS] (and minima, for U4 and U8):
 * w = scale * q + minimum; F8's scales are f32, and its last group ends with K.  Quantized by column, f32 scales [GEMM_COLS] end the panel.
 * I4 has both: w = d * (s * (q - 8) + 8 * o), d the column's f32, s (0..255) and o (-127..127) bytes of each 32 K; those of 128 K come
 * together (gemm_int.h): 4.5 bits a weight.  The layout is the same for every ISA.  A gated pair (gate, up) shares panels: columns 0..15
 * are gate rows, 16..31 the up rows of the same outputs.
 *
 * Activations are prepared once per product, by tiles of rows:
 *
 *     tile = [n][rows] 4-byte units: f32 values (n = K rounded up to even) or bf16 pairs (n = K/2 rounded up)
 *
 * in the type the kernel multiplies (integer weights with float inputs: n of the whole panel, zeros behind K); or, for integer kernels, signed 8-bit values of 4 K (or the same as 16-bit pairs
 * (0,2) and (1,3), n = 2 x units) and behind them, for each group of K, [2][rows]: the scales, and what makes up for the
 * weights' offset: -128 times the sum of the group's integers (int32), or for U4 and U8 scale times that sum (f32); I4: for each 128 K
 * [GEMM_I4_AUX][rows], see gemm_int.h.
 * Integers are scaled so that the group's largest magnitude (the whole row's, for I8) becomes 127.
 * A row that is not finite gets the scale NaN.
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

enum gemm_format {
    GEMM_F32, GEMM_F16, GEMM_BF16,
    GEMM_I8,                                  /* a scale for each column */
    GEMM_I8_G16, GEMM_I8_G32,                 /* a scale for each column and group of K */
    GEMM_I4,                                  /* 4 bits; 8-bit scale and offset for each column and 32 K, and a scale for each column */
    GEMM_U4_G32, GEMM_U4_G64, GEMM_U4_G128,   /* scale and minimum for each column and group */
    GEMM_U8_G16, GEMM_U8_G32,                 /* the same with bytes */
    GEMM_F8,                                  /* a scale for each column */
    GEMM_F8_G128,                             /* a scale for each column and group */
    GEMM_FORMAT_COUNT
};
enum gemm_operand { GEMM_OPERAND_F32, GEMM_OPERAND_BF16, GEMM_OPERAND_S8, GEMM_OPERAND_S16 };
enum { GEMM_COLS = 32, GEMM_ROWS_MAX = 14, GEMM_ALIGN = 64 };

/* One call of a tile kernel: rows x GEMM_COLS outputs over units [u0, u1). */
struct gemm_tile {
    const void *a;           /* the prepared tile (unit 0) */
    const void *b;           /* the panel (unit 0) */
    float *c;                /* [rows][GEMM_COLS] accumulators (I8: int32 until the last unit), 64-byte aligned */
    int rows;                /* 1..rows_max of the kernel */
    bool first;              /* start from zero instead of c */
    int64_t u0, u1;          /* on group borders */
    int64_t units;           /* of the panel: at u1 == units c becomes the result */
    /* Where the memory to be read next lies: for each 4 units `prefetch_lines` cache lines are asked for. */
    const char *prefetch;
    int prefetch_lines;
};

struct gemm_kern {
    const char *name;        /* "bf16_avx512bf16" */
    enum kern_isa isa;       /* the least that has it */
    const char *feature;     /* and a CPU feature that the ISA does not imply, or NULL */
    enum gemm_format format;
    enum gemm_operand operand;   /* what activations become */
    int rows_max;
    void (*tile)(const struct gemm_tile *t);
    void (*prepare)(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a);
    int rows_many;           /* more than rows_max rows are cut into tiles of at most so many; 0: rows_max */
    /* Kernels that make floats of a piece of a panel before they multiply it, for several tiles of rows at once: units [u0, u1) of t->b become units of a
     * float panel at out (F32, or BF16 where the operand is that), which `tile` would have made for itself.  NULL in other kernels. */
    void (*widen)(const struct gemm_tile *t, char *out);
};

/* What inputs become: AUTO as the format wants (8 bits for integer weights), FLOAT: bf16 or f32 for integer weights too; other formats have one way only. */
enum gemm_inputs { GEMM_INPUTS_AUTO, GEMM_INPUTS_FLOAT };
/* The best one of a format that this CPU has and isa allows.  Never NULL for valid arguments. */
const struct gemm_kern *gemm_kern_get(enum kern_isa isa, enum gemm_format f, enum gemm_inputs inputs);
/* All kernels this CPU can run, for tests and measurements: number i, or NULL past the end. */
const struct gemm_kern *gemm_kern_at(int i);

/* Prepare one tile of rows: x rows are ldx floats apart.  Where gemm_prepare_step is not 0, K may be cut
 * into pieces at its multiples. */
void gemm_prepare(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a);
int64_t gemm_prepare_step(const struct gemm_kern *kern);
/* n rows that were each prepared as a tile of one, as one tile: the same bytes as from gemm_prepare. */
void gemm_prepare_join(const struct gemm_kern *kern, const void *const *rows, int n, int64_t k, void *a);

/* ---- layouts ---- */
int64_t gemm_units(enum gemm_format f, int64_t k);            /* K rounded up, in units */
size_t gemm_panel_bytes(enum gemm_format f, int64_t k);       /* a multiple of 64 */
/* Bytes of one prepared row. */
size_t gemm_act_bytes(const struct gemm_kern *kern, int64_t k);

/* Fill columns [col0, col0 + n) of a zeroed panel from f32 rows (ld floats apart), quantizing where the format does
 * (importance [k] or NULL: weights of the squared errors in the search for 4-bit scales), or (F32, F16, BF16 only) from stored rows of the format's own type (stride bytes apart, any alignment). */
void gemm_pack(enum gemm_format f, void *panel, int col0, int n, int64_t k, const float *rows, int64_t ld, const float *importance);
void gemm_pack_raw(enum gemm_format f, void *panel, int col0, int n, int64_t k, const void *rows, size_t stride);
/* The same from codes that are quantized already, kept as they are (quantized formats only, and not I4): codes [n][ld] as the format has them (U4: below 16; I8:
 * the value + 128; F8: E4M3), scales and minima [n][ld_scales], one for each `group` of K: a multiple of the format's own group, or at least k.
 * Only where the format keeps scales as f16 are they rounded.  minima NULL: zeros. */
struct gemm_codes { const uint8_t *codes; int64_t ld, group, ld_scales; const float *scales, *minima; };
void gemm_pack_codes(enum gemm_format f, void *panel, int col0, int n, int64_t k, const struct gemm_codes *c);
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
struct gemm_rows gemm_rows_of(const struct gemm_kern *kern, int64_t m);   /* the best heights for this kernel */
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
    GEMM_BLOCK_PANELS = 4,    /* panels of a work item when there are many rows */
    GEMM_BLOCK_TILES = 16,    /* tiles that share a piece of a panel */
    GEMM_BLOCK_UNITS = 512,   /* units in such a piece; a multiple of every group */
    GEMM_WIDE_UNITS = 128,    /* and in one that is widened: 32 KiB of bf16 */
};
/* Scratch of one gemm_run: enough for any job; 64-byte aligned. */
size_t gemm_scratch_bytes(void);
/* Compute panels [p0, p1) for tiles [t0, t1); any cut gives the same bits.  next: the panel this thread
 * will read after them, or NULL. */
void gemm_run(const struct gemm_job *j, int64_t p0, int64_t p1, int t0, int t1, const void *next, void *scratch);

#endif
