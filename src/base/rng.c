#include "base/rng.h"

#include <math.h>
#include <sys/random.h>

#include "base/clock.h"

struct rng_block rng_philox(uint64_t key, uint64_t ctr_hi, uint64_t ctr_lo)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)ctr_lo, c1 = (uint32_t)(ctr_lo >> 32);
    uint32_t c2 = (uint32_t)ctr_hi, c3 = (uint32_t)(ctr_hi >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* Weyl sequence: golden ratio, sqrt(3) - 1 */
        k1 += 0xBB67AE85u;
    }
    return (struct rng_block){{c0, c1, c2, c3}};
}

float rng_unit_f32(uint32_t bits)
{
    float u = (float)(((double)bits + 0.5) * 0x1p-32);
    return u < 1.0f ? u : 0x1.fffffep-1f; /* the conversion may have rounded up */
}

double rng_unit_f64(uint64_t bits)
{
    double u = ((double)(bits >> 11) + 0.5) * 0x1p-53;
    return u < 1.0 ? u : 0x1.fffffffffffffp-1;
}

uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

double rng_next_unit(struct rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

double rng_next_normal(struct rng *r)
{
    double radius = sqrt(-2.0 * log(rng_unit_f64(rng_next(r))));
    return radius * cos(6.283185307179586 * rng_next_unit(r));
}

uint64_t rng_next_below(struct rng *r, uint64_t n)
{
    /* Lemire, "Fast random integer generation in an interval", 2019. */
    unsigned __int128 m = (unsigned __int128)rng_next(r) * n;
    if ((uint64_t)m < n) {
        uint64_t reject_below = -n % n;
        while ((uint64_t)m < reject_below)
            m = (unsigned __int128)rng_next(r) * n;
    }
    return (uint64_t)(m >> 64);
}

uint64_t rng_entropy(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) == (long)sizeof seed)
        return seed;
    /* No entropy source: time and address layout still differ between processes. */
    struct rng r = {(uint64_t)clock_now_ns() ^ (uint64_t)(uintptr_t)&seed};
    return rng_next(&r);
}
