/* kern/attn_narrow.h - rounding rows to the 8-bit KV types.  Plain C without branches, which every
 * instruction set's compiler flags vectorise to the same results. */
#ifndef QUIRE_KERN_ATTN_NARROW_H
#define QUIRE_KERN_ATTN_NARROW_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t attn_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

/* Sign and magnitude of x / scale with scale = max |x| / 127, to nearest even.  Infinities count as 1e38.  NaN: in K the scale becomes
 * NaN, so that it shows; in V it is 0. */
static inline void attn_narrow_i8(uint8_t *out, float *scale, const float *x, int n, bool is_k)
{
    float max = 0, nan = 0;
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        max = a > max ? a : max;
        nan = x[i] != x[i] ? x[i] : nan;
    }
    max = max > 1e38f ? 1e38f : max;
    bool tiny = max < 1e-30f;
    float inverse = tiny ? 0.0f : 127.0f / max;
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        a = (a < max ? a : x[i] != x[i] ? 0.0f : max) * inverse + 12582912.0f;
        out[i] = (uint8_t)((attn_bits(a) & 0x7f) | (attn_bits(x[i]) >> 31 << 7));
    }
    *scale = nan != nan && is_k ? nan : tiny ? 0.0f : max / 127.0f;
}

/* E4M3, to nearest even; larger than 448 becomes 448.  NaN: in K the code for NaN, in V 0. */
static inline void attn_narrow_f8(uint8_t *out, const float *x, int n, bool is_k)
{
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        a = a < 448.0f ? a : 448.0f;
        uint32_t u = attn_bits(a), small = attn_bits(a * 512.0f + 12582912.0f) & 0xff;
        uint32_t normal = ((u + 0x7ffffu + (u >> 20 & 1)) >> 20) - 960;
        uint32_t q = a < 0.015625f ? small : normal;
        q = x[i] != x[i] ? (is_k ? 0x7fu : 0u) : q;
        out[i] = (uint8_t)(q | attn_bits(x[i]) >> 31 << 7);
    }
}

#endif
