/* Truncation of a whole row by threshold: which tokens stay is one value (and one id among those that equal it), found by
 * bisection with the device's row math, so nothing is sorted and no list of candidates is made. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "sample/sample_int.h"

enum { SAMPLE = SAMPLE_CUT_SAMPLE, BLOCK = SAMPLE_CUT_BLOCK, RUN = 16 /* a line of memory */ };

/* Keys and what each weighs; w NULL: all weigh 1. */
struct row { const float *key, *w; int32_t n; };

/* The floors that hold the target (base, what lies above, included) are in [lo, hi): mass(lo) >= target > mass(hi). */
struct bracket { float lo, hi; double base; };

static double mass(const struct dev_math *m, const struct row *r, float floor)
{
    return r->w ? m->sum_above(r->key, r->w, floor, r->n) : m->above(r->key, r->n, floor, NULL, 0);
}

/* Moves an end of the bracket to floor; base is of the mass that `in` does not hold. */
static void move(const struct dev_math *m, const struct row *r, double base, double target, float floor, struct bracket *b)
{
    double here = base + mass(m, r, floor);
    if (here >= target)
        b->lo = floor;
    else
        *b = (struct bracket){b->lo, floor, here};
}

/* A value inside the bracket; false when there is none. */
static bool middle(const struct bracket *b, float *mid)
{
    *mid = b->lo + (b->hi - b->lo) / 2;
    return *mid > b->lo && *mid < b->hi;
}

/* Halves the bracket until it is no wider than `width` or holds one value. */
static void narrow(const struct dev_math *m, const struct row *r, double base, double target, float width, struct bracket *b)
{
    float mid;
    while (b->hi - b->lo > width && middle(b, &mid))
        move(m, r, base, target, mid, b);
}

/* The first bracket of a wide row: where a sample, evenly spaced lines, says that the mass is reached, checked on the row itself. */
static void guess(const struct dev_math *m, struct scratch *sc, const struct row *r, double part, double target, struct bracket *b)
{
    struct row few = {sc->sample, r->w ? sc->sample + SAMPLE : NULL, SAMPLE};
    int32_t stride = r->n / (SAMPLE / RUN);
    for (int32_t i = 0; i < SAMPLE; i += RUN) {
        int64_t from = (int64_t)(i / RUN) * stride;
        memcpy(sc->sample + i, r->key + from, RUN * sizeof(float));
        if (r->w)
            memcpy(sc->sample + SAMPLE + i, r->w + from, RUN * sizeof(float));
    }
    float max = m->max(few.key, SAMPLE), least = b->lo;
    double total = mass(m, &few, -INFINITY), margin = 2.5 * sqrt(part * (1 - part) / SAMPLE) + 2.0 / SAMPLE;   /* of a sample's quantile */
    for (float depth = 1; b->lo == -INFINITY && depth < 1e4f && !(mass(m, &few, least = max - depth) >= (part + margin) * total);)
        depth *= 4;
    for (int side = -1; side <= 1; side += 2) {
        double want = part + side * margin;
        struct bracket in = {least, b->hi, 0};
        if (want <= 0 || want >= 1 || !(least >= -FLT_MAX))
            continue;
        narrow(m, &few, 0, want * total, (in.hi - in.lo) / 4096, &in);
        float floor = side < 0 ? in.hi : in.lo;
        if (floor > b->lo && floor < b->hi)
            move(m, r, 0, target, floor, b);
    }
}

/* Raises lo from -inf to a floor that holds the target, if a finite one does. */
static void raise_floor(const struct dev_math *m, const struct row *r, double target, struct bracket *b)
{
    float top = b->hi;
    for (float depth = 1; b->lo == -INFINITY && depth < FLT_MAX / 8; depth *= 8)
        if (top - depth < b->hi)
            move(m, r, 0, target, top - depth, b);
}

/* Copies what of the row lies inside the bracket to the scratch of cuts (which may be the row itself: in); -1 when it is more than cap. */
static int32_t take_inside(const struct dev_math *m, struct scratch *sc, const struct row *r, const struct bracket *b, int32_t cap)
{
    int32_t k = m->between(r->key, r->n, b->lo, b->hi, sc->ids, cap);
    bool again = r->key == sc->cut_keys;
    if (k > cap)
        return -1;
    for (int32_t i = 0; i < k; i++) {
        sc->cut_keys[i] = r->key[sc->ids[i]];
        sc->cut_ids[i] = again ? sc->cut_ids[sc->ids[i]] : sc->ids[i];
    }
    for (int32_t i = 0; r->w && i < k; i++)
        sc->cut_weights[i] = r->w[sc->ids[i]];
    return k;
}

/* Of the tokens in the bracket with this key, those that the mass still needs, lowest id first: the id of the last. */
static int32_t last_tie(const struct scratch *sc, const struct row *in, float key, double missing)
{
    int32_t last = INT32_MAX;
    double sum = 0;
    for (int32_t i = 0; i < in->n && (last == INT32_MAX || sum < missing); i++) {
        if (in->key[i] != key)
            continue;
        last = sc->cut_ids[i];
        sum += in->w ? (double)in->w[i] : 1;
    }
    return last;
}

struct sample_cut sample_cut_mass(const struct sampler *s, struct scratch *sc, const float *key, const float *w, float max, float floor,
                                  double total, double part)
{
    enum { ROUNDS = 5 };
    const struct dev_math *m = s->math;
    struct row all = {key, w, s->vocab}, in;
    struct bracket b = {floor, nextafterf(max, INFINITY), 0};
    double target = part * total;
    if (s->vocab >= 4 * SAMPLE)
        guess(m, sc, &all, part, target, &b);
    raise_floor(m, &all, target, &b);
    int32_t n;
    float mid;
    while ((n = take_inside(m, sc, &all, &b, s->vocab / 8)) < 0 && b.lo > -INFINITY && middle(&b, &mid))
        move(m, &all, 0, target, mid, &b);
    if (n < 0)
        n = take_inside(m, sc, &all, &b, s->vocab);
    in = (struct row){sc->cut_keys, w ? sc->cut_weights : NULL, n};
    while (in.n > 1 && middle(&b, &mid)) {
        /* A few halvings, then what lies outside is dropped: what lies above is in the base. */
        double above = b.base;
        narrow(m, &in, above, target, (b.hi - b.lo) / (1 << ROUNDS), &b);
        in.n = take_inside(m, sc, &in, &b, in.n);
    }
    if (in.n == 0)
        return (struct sample_cut){b.lo, INT32_MAX};
    float last = m->max(in.key, in.n);
    return (struct sample_cut){last, last_tie(sc, &in, last, target - b.base)};
}

float sample_cut_count(const struct sampler *s, struct scratch *sc, const float *key, float max, int32_t k)
{
    if (k >= s->vocab)
        return -INFINITY;
    /* Half a token less: rounding must not make it k + 1. */
    return sample_cut_mass(s, sc, key, NULL, max, -INFINITY, s->vocab, (k - 0.5) / s->vocab).floor;
}

/* Sum of the kept weights of [i, i + n). */
static double kept_sum(const struct dev_math *m, const float *key, const float *w, int32_t i, int32_t n, const struct sample_cut *c)
{
    float above = c->last == INT32_MAX ? c->floor : nextafterf(c->floor, INFINITY);
    int32_t k = c->last < i ? 0 : c->last - i >= n ? n : c->last - i + 1;   /* so many of them with their ties */
    double sum = k > 0 ? m->sum_above(key + i, w + i, c->floor, k) : 0;
    return k < n ? sum + m->sum_above(key + i + k, w + i + k, above, n - k) : sum;
}

double sample_cut_sum(const struct sampler *s, struct scratch *sc, const float *key, const float *w, const struct sample_cut *c)
{
    double total = 0;
    for (int32_t i = 0; i < s->vocab; i += BLOCK)
        total += sc->blocks[i / BLOCK] = kept_sum(s->math, key, w, i, s->vocab - i < BLOCK ? s->vocab - i : BLOCK, c);
    return total;
}

int32_t sample_cut_draw(const struct sampler *s, const struct scratch *sc, const float *key, const float *w, const struct sample_cut *c,
                        double target)
{
    double sum = 0;
    int32_t last = -1;
    for (int32_t i = 0; i < s->vocab; i += BLOCK) {
        if (sum + sc->blocks[i / BLOCK] <= target && i + BLOCK < s->vocab) {
            sum += sc->blocks[i / BLOCK];
            continue;
        }
        for (int32_t k = i; k < i + BLOCK && k < s->vocab; k++) {
            if (!(w[k] > 0) || !sample_cut_keeps(c, key, k))
                continue;
            last = k;
            sum += (double)w[k];
            if (sum > target)
                return k;
        }
    }
    return last >= 0 ? last : s->math->argmax(key, s->vocab); /* rounding left a sliver beyond the last */
}
