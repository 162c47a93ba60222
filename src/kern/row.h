/* kern/row.h - functions of single rows of f32: norms, rotations, and the sampler's sums.
 *
 * One thread, no state.  Every function gives the same bits on every instruction set: sums run in 64
 * lanes (element i goes to lane i mod 64, ascending; then lane i += lane i + 32, 16, 8, 4, 2, 1),
 * and multiplication and addition are rounded separately, but for the exponential, which is fused everywhere alike.  So the
 * scalar set is not only a reference but an equal.  Pointers need no alignment; rows may have any length >= 0. */
#ifndef QUIRE_KERN_ROW_H
#define QUIRE_KERN_ROW_H

#include <stdint.h>
#include "kern/cpu.h"

struct kern_row {
    /* out = x / sqrt(mean(x^2) + eps) * w.  out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *w, float eps, int32_t n);
    /* out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + bias; bias may be NULL.  out may be x. */
    void (*layer_norm)(float *out, const float *x, const float *w, const float *bias, float eps, int32_t n);
    /* x += scale * y */
    void (*add_scaled)(float *x, const float *y, float scale, int32_t n);
    /* Rotate pairs (i, i + n/2) of x by the angles of cos, sin [n/2]; n even. */
    void (*rope_half)(float *x, const float *cos, const float *sin, int32_t n);
    /* Rotate pairs (2i, 2i + 1). */
    void (*rope_interleaved)(float *x, const float *cos, const float *sin, int32_t n);

    /* As struct dev_math says. */
    int32_t (*argmax)(const float *x, int32_t n);
    float (*max)(const float *x, int32_t n);
    int32_t (*above)(const float *x, int32_t n, float threshold, int32_t *idx, int32_t cap);
    int32_t (*between)(const float *x, int32_t n, float lo, float hi, int32_t *idx, int32_t cap);
    double (*weights)(float *out, const float *x, float max, float scale, float floor, int32_t n);
    double (*sum_above)(const float *key, const float *w, float floor, int32_t n);
    double (*moment)(const float *x, const float *w, float max, int32_t n);
    void (*nearness)(float *out, const float *x, const float *w, float to, int32_t n);
    int32_t (*split)(const float *x, const float *w, int32_t n, const float *near, float lo, float hi, float *keys, float *weights,
                     double *above);
    void (*mask)(float *out, const float *x, const uint32_t *bits, int32_t n);
};

/* isa must not be better than kern_isa_best(). */
const struct kern_row *kern_row_table(enum kern_isa isa);

extern const struct kern_row kern_row_ref, kern_row_avx2, kern_row_avx512;

#endif
