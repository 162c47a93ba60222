/* quant/quant.h - rounding matrices to few bits: the mathematics, knowing neither models nor files.
 *
 *   round to nearest   each weight to the nearest code under its group's scale
 *   GPTQ               columns are rounded one after the other; what each loses is made up for by those still to come
 *                      (Frantar et al., 2022: Accurate Post-Training Quantization for Generative Pre-trained Transformers)
 *   AWQ                inputs that are large get finer weights: columns are multiplied by s before rounding and the inputs divided
 *                      by it, s = (root mean square of the input)^a for the best a (Lin et al., 2023)
 *   SmoothQuant        the same s for the sake of rounded inputs: max|x|^a / max|w|^(1-a) (Xiao et al., 2022)
 *
 * A matrix is [rows][cols], rows outputs, row major f32.  Inputs are known by their second moments, the "Hessian"
 * H[cols][cols] = sum of x x^T over calibration tokens: the squared error of rounding W to V is tr((W-V) H (W-V)^T).
 *
 * Everything here gives the same bits for any number of threads. */
#ifndef QUIRE_QUANT_QUANT_H
#define QUIRE_QUANT_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "kern/cpu.h"

/* Who computes: run calls fn(arg, i, member) for i in [0, n), each once, with member < n_members, and returns when all are done. */
struct quant_team {
    enum kern_isa isa;
    int n_members;
    void (*run)(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int member), void *arg);
    void *ctx;
};

/* c[m][n] += alpha * a[m][k] b[n][k]^T, rows lda, ldb, ldc floats apart.  Each element sums over k in one order. */
bool quant_gemm(const struct quant_team *t, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc,
                int64_t m, int64_t n, int64_t k, struct err *e);

/* ---- grids ---- */

/* What scales are stored as: they are rounded to it before codes are chosen. */
enum quant_scale_type { QUANT_SCALE_F32, QUANT_SCALE_F16, QUANT_SCALE_BF16 };

struct quant_grid {
    bool fp8;                  /* E4M3 codes and one scale a row; else integers */
    int bits;                  /* of integers: 2 to 8 */
    bool symmetric;            /* zero is code 0 */
    int64_t group;             /* columns under one scale; 0: the row.  The last group of a row may be shorter */
    enum quant_scale_type scale_type;
    /* Scales are searched below the one that covers the largest weight, for the least (weighted) squared error. */
    bool search;
};

/* Rounded: value = scale * (code - zero), or scale * E4M3(code). */
struct quant_codes {
    int64_t rows, cols, n_groups;
    int8_t *codes;             /* [rows][cols]; of E4M3 its bits */
    float *scales;             /* [rows][n_groups] */
    int8_t *zeros;             /* [rows][n_groups]; NULL: 0 */
};
int64_t quant_n_groups(const struct quant_grid *g, int64_t cols);
bool quant_codes_open(struct quant_codes *q, const struct quant_grid *g, int64_t rows, int64_t cols, struct err *e);
void quant_codes_close(struct quant_codes *q);
/* One row's values. */
void quant_codes_row(const struct quant_codes *q, const struct quant_grid *g, int64_t row, float *out);

/* The scale and zero of n weights; importance [n] weighs their squared errors in the search, NULL: all alike. */
void quant_grid_fit(const struct quant_grid *g, const float *w, const float *importance, int64_t n, float *scale, int8_t *zero);
int8_t quant_grid_code(const struct quant_grid *g, float w, float scale, int8_t zero);
float quant_grid_value(const struct quant_grid *g, int8_t code, float scale, int8_t zero);
/* Nearest E4M3 (ties to even), beyond 448 the largest. */
uint8_t quant_f8_encode(float x);

/* ---- round to nearest ---- */
/* w becomes the rounded values. importance [cols] or NULL. */
void quant_rtn(const struct quant_team *t, const struct quant_grid *g, float *w, const float *importance, struct quant_codes *q);

/* ---- second moments ---- */
/* h[n][n] += x^T x for rows of x, ldx floats apart; only h[i][j] with j <= i (and some above) is kept up. */
bool quant_hessian_add(const struct quant_team *t, float *h, const float *x, int64_t ldx, int64_t rows, int64_t n, struct err *e);
/* Copies the lower half over the upper. */
void quant_hessian_mirror(float *h, int64_t n);
/* tr(d h d^T) for d[rows][n]; h mirrored. */
bool quant_error(const struct quant_team *t, const float *d, const float *h, int64_t rows, int64_t n, double *out, struct err *e);

/* ---- triangular factors ---- */
/* a[n][n] -> its lower Cholesky factor, in the lower half; the rest is undefined.  ERR_INVALID when a is not positive definite. */
bool quant_cholesky(const struct quant_team *t, float *a, int64_t n, struct err *e);
/* out = (l^-1)^T for a lower triangular l: upper triangular, zeros below. */
bool quant_invert_lower(const struct quant_team *t, const float *l, float *out, int64_t n, struct err *e);

/* ---- GPTQ ---- */
struct quant_gptq {
    double damp;               /* of the mean of H's diagonal, added to it; raised tenfold while H is not positive definite */
    /* Columns in descending order of H's diagonal; groups keep their places and their scales are fixed beforehand. */
    bool act_order;
};
/* w becomes the rounded values.  h is mirrored and is destroyed. */
bool quant_gptq(const struct quant_team *t, const struct quant_grid *g, const struct quant_gptq *o, float *w, float *h, struct quant_codes *q, struct err *e);

/* ---- scales between two operations ---- */

/* A matrix that reads the inputs to be divided. */
struct quant_reader { const float *w; int64_t rows; const struct quant_grid *grid; };

/* AWQ: the s[n] of which the sum of the readers' errors is least, of `steps` exponents from 0 (all ones) to below 1.  h is mirrored;
 * tie > 1: s is the same for `tie` inputs of n / (tie * width) runs: input i shares with those of its own offset in blocks of width
 * (heads that share a key-value head).  *gain: best error / error of s = 1. */
struct quant_tie { int64_t repeat, width; };
bool quant_awq_scales(const struct quant_team *t, const struct quant_reader *readers, int n_readers, const float *h, int64_t n, struct quant_tie tie,
                      int steps, float *s, double *gain, struct err *e);
/* SmoothQuant: from the largest magnitudes of each input. */
void quant_smooth_scales(const struct quant_reader *readers, int n_readers, const float *input_max, int64_t n, double alpha, float *s);
/* h of the inputs divided by s. */
void quant_hessian_divide(float *h, int64_t n, const float *s);

#endif
