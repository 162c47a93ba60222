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

/* exp by Cody and Waite's reduction and the polynomial of Cephes' expf (S. Moshier): within 2 ulp.
 * Below -87.3 it is 0, above 88 it is exp(88). */
static float exp_one(float x)
{
    if (x != x)
        return x;
    bool zero = x < -87.3f;
    x = zero ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x;
    float k = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &p, 4);
    bits += (uint32_t)(int32_t)k << 23;
    memcpy(&p, &bits, 4);
    return zero ? 0.0f : p;
}

static double sum_exp(const float *x, int32_t n, float max)
{
    double lane[16] = {0};
    for (int32_t i = 0; i < n; i++)
        lane[i % 16] += (double)exp_one(x[i] - max);
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
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

static double sum_exp_above(const float *x, int32_t n, float max, float floor)
{
    double lane[16] = {0};
    for (int32_t i = 0; i < n; i++)
        lane[i % 16] += x[i] >= floor ? (double)exp_one(x[i] - max) : 0.0;
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
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

static void exps(float *out, const float *x, float max, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = exp_one(x[i] - max);
}

static void divide(float *out, const float *x, float by, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = x[i] / by;
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
    .sum_exp = sum_exp,
    .above = above,
    .sum_exp_above = sum_exp_above,
    .between = between,
    .exps = exps,
    .divide = divide,
    .mask = mask,
};
