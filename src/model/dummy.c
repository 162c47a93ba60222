/* Seeded noise in place of weights: to measure any shape without its checkpoint. */
#include <math.h>
#include "base/hash.h"
#include "model/weights_int.h"

/* Finalizer of SplitMix64 (Steele et al., OOPSLA 2014): 64 bits from a counter. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Values are k * 2^-e for k from -127 to 127: eight bits hold them in every type, and one mix makes eight. */
static void read_noise(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    int exponent = (int)r->ctx_offset;
    float unit = ldexpf(1.0f, -exponent);
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = mix(r->seed ^ mix((uint64_t)(row0 + i) + 0x9e3779b97f4a7c15u));
        float *row = out + i * r->n_cols;
        for (int64_t c = 0; c < r->n_cols; c += 8) {
            uint64_t bits = mix(key + (uint64_t)c * 0x9e3779b97f4a7c15u);
            int64_t end = r->n_cols - c < 8 ? r->n_cols - c : 8;
            for (int64_t j = 0; j < end; j++) {
                int k = (int)(bits >> (8 * j) & 255) - 128;
                row[c + j] = (float)(k == -128 ? 0 : k) * unit;
            }
        }
    }
}

void model_dummy_rows(struct tensor_rows *r, enum dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed)
{
    /* Uniform in +-127 units has a standard deviation of 73.6 units; the nearest power of two brings it to 1/sqrt(n_cols). */
    double exponent = round(log2(73.6 * sqrt((double)n_cols)));
    *r = (struct tensor_rows){
        .n_rows = n_rows, .n_cols = n_cols, .dtype = dtype, .read = read_noise, .ctx_offset = (int64_t)exponent, .seed = seed,
    };
}

uint64_t model_dummy_seed(uint64_t seed, int kind, int slot, int layer, int part)
{
    uint64_t place = (uint64_t)kind << 56 | (uint64_t)slot << 48 | (uint64_t)(uint16_t)layer << 32 | (uint64_t)part;
    return hash_mix(hash_mix(seed, 0x71756972u), place);
}
