/* Row functions, scalar.  The order of every operation here is the order of all sets (kern/row.h). */
#include "kern/row.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { LANES = 64 };

static float reduce(float lane[LANES])
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

static void rms_norm(float *out, const float *x, const float *w, float eps, int32_t n)
{
    float lane[LANES] = {0};
    for (int32_t i = 0; i < n; i++)
        lane[i % LANES] += x[i] * x[i];
    float r = 1.0f / sqrtf(reduce(lane) / (float)n + eps);
    for (int32_t i = 0; i < n; i++)
        out[i] = x[i] * r * w[i];
}

static void layer_norm(float *out, const float *x, const float *w, const float *bias, float eps, int32_t n)
{
    float lane[LANES] = {0};
    for (int32_t i = 0; i < n; i++)
        lane[i % LANES] += x[i];
    float mean = reduce(lane) / (float)n;
    memset(lane, 0, sizeof lane);
    for (int32_t i = 0; i < n; i++) {
        float c = x[i] - mean;
        lane[i % LANES] += c * c;
    }
    float r = 1.0f / sqrtf(reduce(lane) / (float)n + eps);
    for (int32_t i = 0; i < n; i++) {
        float y = (x[i] - mean) * r * w[i];
        out[i] = bias ? y + bias[i] : y;
    }
}

static void add_scaled(float *x, const float *y, float scale, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        x[i] += scale * y[i];
}

static void rope_half(float *x, const float *cos, const float *sin, int32_t n)
{
    for (int32_t i = 0; i < n / 2; i++) {
        float a = x[i], b = x[i + n / 2];
        x[i] = a * cos[i] - b * sin[i];
        x[i + n / 2] = b * cos[i] + a * sin[i];
    }
}

static void rope_interleaved(float *x, const float *cos, const float *sin, int32_t n)
{
    for (int32_t i = 0; i < n / 2; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

static float row_max(const float *x, int32_t n)
{
    float m = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m + 0.0f;
}

static int32_t argmax(const float *x, int32_t n)
{
    float m = row_max(x, n);
    for (int32_t i = 0; i < n; i++)
        if (x[i] == m)
            return i;
    return 0;
}

/* e^t for t <= 0: t = k ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 6 in r (2e-8), and k added to its exponent.
 * Within 1.2 units in the last place (1.1e-7); below -87.3 and of NaN it is 0. */
static float exp_one(float t)
{
    if (!(t >= -87.3f))
        return 0.0f;
    float shifted = fmaf(t, 1.44269504f, 12582912.0f), k = shifted - 12582912.0f; /* k is in the low bits of shifted */
    float r = fmaf(k, 2.12194440e-4f, fmaf(k, -0.693359375f, t));
    float p = 1.40618981e-3f;
    p = fmaf(p, r, 8.37918436e-3f);
    p = fmaf(p, r, 4.16647629e-2f);
    p = fmaf(p, r, 1.66663632e-1f);
    p = fmaf(p, r, 5.00000044e-1f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits, exponent;
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &shifted, 4);
    bits += exponent << 23;
    memcpy(&p, &bits, 4);
    return p;
}

static double total(double lane[16])
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

static double weights(float *out, const float *x, float max, float scale, float floor, int32_t n)
{
    double lane[16] = {0};
    for (int32_t i = 0; i < n; i += 64) {
        float four[16] = {0};
        bool whole = i + 64 <= n;
        for (int32_t j = i; j < n && j < i + 64; j++) {
            float w = x[j] >= floor ? exp_one((x[j] - max) * scale) : 0.0f;
            if (whole)
                four[j % 16] += w;   /* four weights are summed before they are widened */
            else
                lane[j % 16] += (double)w;
            if (out)
                out[j] = w;
        }
        for (int l = 0; whole && l < 16; l++)
            lane[l] += (double)four[l];
    }
    return total(lane);
}

static double sum_above(const float *key, const float *w, float floor, int32_t n)
{
    double lane[16] = {0};
    for (int32_t i = 0; i < n; i++)
        lane[i % 16] += key[i] >= floor ? (double)w[i] : 0.0;
    return total(lane);
}

static double moment(const float *x, const float *w, float max, int32_t n)
{
    double lane[16] = {0};
    for (int32_t i = 0; i < n; i++)
        lane[i % 16] += w[i] > 0 ? (double)(w[i] * (x[i] - max)) : 0.0;
    return total(lane);
}

static void nearness(float *out, const float *x, const float *w, float to, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = w[i] > 0 ? -fabsf(x[i] - to) : -INFINITY;
}

static int32_t split(const float *x, const float *w, int32_t n, const float *near, float lo, float hi, float *keys, float *weights_out,
                     double *sum)
{
    double lane[16] = {0};
    int32_t found = 0;
    for (int32_t i = 0; i < n; i++) {
        float weight = w ? w[i] : 1, key = !near ? x[i] : weight > 0 ? -fabsf(x[i] - *near) : -INFINITY;
        lane[i % 16] += key >= hi ? (double)weight : 0.0;
        if (!(key >= lo && key < hi))
            continue;
        keys[found] = key;
        if (w)
            weights_out[found] = weight;
        found++;
    }
    *sum = total(lane);
    return found;
}

static int32_t above(const float *x, int32_t n, float threshold, int32_t *idx, int32_t cap)
{
    int32_t found = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!(x[i] >= threshold))
            continue;
        if (found < cap)
            idx[found] = i;
        found++;
    }
    return found;
}

static int32_t between(const float *x, int32_t n, float lo, float hi, int32_t *idx, int32_t cap)
{
    int32_t found = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!(x[i] >= lo && x[i] < hi))
            continue;
        if (found < cap)
            idx[found] = i;
        found++;
    }
    return found;
}

static void mask(float *out, const float *x, const uint32_t *bits, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = bits[i / 32] >> (i % 32) & 1 ? x[i] : -INFINITY;
}

const struct kern_row kern_row_ref = {
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add_scaled = add_scaled,
    .rope_half = rope_half,
    .rope_interleaved = rope_interleaved,
    .argmax = argmax,
    .max = row_max,
    .above = above,
    .between = between,
    .weights = weights,
    .sum_above = sum_above,
    .moment = moment,
    .nearness = nearness,
    .split = split,
    .mask = mask,
};
