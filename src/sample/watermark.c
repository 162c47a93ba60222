#include "sample/watermark.h"

#include <math.h>
#include "base/hash.h"
#include "base/rng.h"

void sample_watermark_default(struct sample_watermark *w)
{
    *w = (struct sample_watermark){.gamma = 0.5f, .delta = 2, .key = 15485863};
}

bool sample_watermark_check(const struct sample_watermark *w, struct err *e)
{
    if (!(w->gamma > 0 && w->gamma < 1))
        return err_set(e, ERR_INVALID, "the watermark's gamma must be in (0, 1), found %g", (double)w->gamma);
    if (!(w->delta > 0 && w->delta <= 100))
        return err_set(e, ERR_INVALID, "the watermark's delta must be in (0, 100], found %g", (double)w->delta);
    return true;
}

uint64_t sample_watermark_key(const void *secret, size_t n)
{
    const char *s = secret;
    while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r' || s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    return hash_bytes(s, n, 0x71756972u);
}

/* Below it a token's bits make it green. */
static uint32_t threshold(const struct sample_watermark *w)
{
    return (uint32_t)((double)w->gamma * 4294967296.0);
}

/* Four tokens share a block of the generator. */
static struct rng_block colours(const struct sample_watermark *w, int32_t previous, int32_t token)
{
    return rng_philox(w->key, (uint64_t)(uint32_t)previous, (uint64_t)(uint32_t)token / 4);
}

bool sample_watermark_green(const struct sample_watermark *w, int32_t previous, int32_t token)
{
    return colours(w, previous, token).v[token % 4] < threshold(w);
}

void sample_watermark_add(const struct sample_watermark *w, int32_t previous, float *logits, int32_t vocab)
{
    uint32_t below = threshold(w);
    for (int32_t i = 0; i < vocab; i += 4) {
        struct rng_block b = colours(w, previous, i);
        for (int32_t k = 0; k < 4 && i + k < vocab; k++)
            logits[i + k] += b.v[k] < below ? w->delta : 0;
    }
}

bool sample_watermark_detect(const struct sample_watermark *w, const int32_t *ids, size_t n, struct sample_watermark_score *out)
{
    struct hash_u64 *seen = hash_u64_open(n);
    bool ok = seen != NULL;
    int64_t unused;
    *out = (struct sample_watermark_score){.p = 1};
    for (size_t i = 1; ok && i < n; i++) {
        uint64_t pair = (uint64_t)(uint32_t)ids[i - 1] << 32 | (uint32_t)ids[i];
        if (hash_u64_get(seen, pair, &unused))
            continue;
        ok = hash_u64_put(seen, pair, 1);
        out->n_scored++;
        out->n_green += sample_watermark_green(w, ids[i - 1], ids[i]);
    }
    hash_u64_close(&seen);
    if (!ok || out->n_scored == 0)
        return ok;
    double t = (double)out->n_scored, g = (double)w->gamma;
    out->z = ((double)out->n_green - g * t) / sqrt(t * g * (1 - g));
    out->p = 0.5 * erfc(out->z / sqrt(2));
    return true;
}
