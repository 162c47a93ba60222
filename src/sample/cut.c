/* Truncation of a whole row by threshold: which tokens stay is one value (and one id among those that equal it), found by
 * bisection with the device's row math, so nothing is sorted and no list of candidates is made. */
#include <math.h>
#include <string.h>
#include "sample/sample_int.h"

enum { SAMPLE = 2048, BLOCK = SAMPLE_CUT_BLOCK };
static const float DEEPEST = 88.0f;     /* exp(-DEEPEST) is 0 to sum_exp */
static const double MARGIN = 0.03;      /* of the mass: three standard errors of a sample's quantile */

/* The floors that hold target of v's mass (plus base) lie in [lo, hi): mass(lo) >= target > mass(hi). */
struct bracket { float lo, hi; double base; };

/* Halves the bracket until it is narrower than `width` or holds one value; base stays as it is. */
static struct bracket narrow(const struct dev_math *m, const float *v, int32_t n, float max, double target, struct bracket b, float width)
{
    float hi = b.hi, lo = b.lo;
    while (hi - lo > width) {
        float mid = lo + (hi - lo) / 2;
        if (!(mid > lo && mid < hi))
            break;
        if (b.base + m->sum_exp_above(v, n, max, mid) >= target)
            lo = mid;
        else
            hi = mid;
    }
    return (struct bracket){lo, hi, b.base};
}

/* A floor of the row that is likely to hold about that part of its mass, from a sample of it. */
static float guess(const struct dev_math *m, const float *sample, float max, double part, struct bracket all)
{
    double total = m->sum_exp_above(sample, SAMPLE, max, all.lo);
    if (part <= 0)
        return all.hi;
    if (part >= 1)
        return all.lo;
    return narrow(m, sample, SAMPLE, max, part * total, all, 1e-4f).lo;
}

/* Keeps the values of v inside the bracket, moving them to the front of out (which may be v); returns how many. */
static int32_t take_inside(const struct dev_math *m, const float *v, int32_t n, const struct bracket *b, int32_t *ids, float *out)
{
    int32_t k = m->between(v, n, b->lo, b->hi, ids, n);
    for (int32_t i = 0; i < k; i++)
        out[i] = v[ids[i]];
    return k;
}

/* The first bracket of a wide row: where a sample says that the mass is reached, checked on the row itself. */
static struct bracket first_bracket(const struct sampler *s, struct scratch *sc, const float *y, float max, double part, double target,
                                    struct bracket all)
{
    const struct dev_math *m = s->math;
    int32_t stride = s->vocab / SAMPLE;
    for (int32_t i = 0; i < SAMPLE; i++)
        sc->values[i] = y[(int64_t)i * stride];
    float floors[] = {guess(m, sc->values, max, part - MARGIN, all), guess(m, sc->values, max, part + MARGIN, all)};
    for (int i = 0; i < 2; i++) {
        if (!(floors[i] > all.lo && floors[i] < all.hi))
            continue;
        double mass = m->sum_exp_above(y, s->vocab, max, floors[i]);
        if (mass >= target) {
            all.lo = floors[i];
        } else {
            all.hi = floors[i];
            all.base = mass;
        }
    }
    return all;
}

/* Of the n_ties tokens whose logit is exactly floor, those that the mass still needs, lowest id first: the id of the last. */
static int32_t last_tie(const struct sampler *s, struct scratch *sc, const float *y, float max, float floor, double missing)
{
    float above = nextafterf(floor, INFINITY), weight;
    int32_t n = s->math->between(y, s->vocab, floor, above, sc->ids, s->vocab), k = 1;
    if (n == 0)
        return INT32_MAX;
    s->math->exps(&weight, &floor, max, 1);
    while (k < n && k * (double)weight < missing)
        k++;
    return sc->ids[k - 1];
}

struct sample_cut sample_cut_mass(const struct sampler *s, struct scratch *sc, const float *y, float max, float floor, double part)
{
    enum { ROUNDS = 5 };
    const struct dev_math *m = s->math;
    float deepest = max - DEEPEST;
    struct bracket b = {floor > deepest ? floor : deepest, nextafterf(max, INFINITY), 0};
    double target = part * m->sum_exp_above(y, s->vocab, max, b.lo);
    if (s->vocab >= 4 * SAMPLE)
        b = first_bracket(s, sc, y, max, part, target, b);
    int32_t n = take_inside(m, y, s->vocab, &b, sc->ids, sc->values);
    while (n > 1 && nextafterf(b.lo, INFINITY) < b.hi) {
        /* A few halvings, then what lies outside is dropped and what lies above goes to the base. */
        struct bracket in = narrow(m, sc->values, n, max, target, b, (b.hi - b.lo) / (1 << ROUNDS));
        double base = b.base + m->sum_exp_above(sc->values, n, max, in.hi);
        if (in.lo == b.lo && in.hi == b.hi)
            break;
        b = (struct bracket){in.lo, in.hi, base};
        n = take_inside(m, sc->values, n, &b, sc->ids, sc->values);
    }
    float last = n > 0 ? m->max(sc->values, n) : b.lo;
    return (struct sample_cut){last, last_tie(s, sc, y, max, last, target - b.base)};
}

/* Sum of the kept weights of y[i, i + n). */
static double kept_sum(const struct dev_math *m, const float *y, int32_t i, int32_t n, float max, const struct sample_cut *c)
{
    float above = c->last == INT32_MAX ? c->floor : nextafterf(c->floor, INFINITY);
    int32_t k = c->last < i ? 0 : c->last - i >= n ? n : c->last - i + 1;   /* so many of them with their ties */
    double sum = k > 0 ? m->sum_exp_above(y + i, k, max, c->floor) : 0;
    return k < n ? sum + m->sum_exp_above(y + i + k, n - k, max, above) : sum;
}

int32_t sample_cut_draw(const struct sampler *s, struct scratch *sc, const float *y, float max, const struct sample_cut *c, double u)
{
    double total = 0, sum = 0;
    for (int32_t i = 0; i < s->vocab; i += BLOCK)
        total += sc->blocks[i / BLOCK] = kept_sum(s->math, y, i, s->vocab - i < BLOCK ? s->vocab - i : BLOCK, max, c);
    double target = u * total;
    int32_t last = -1;
    for (int32_t i = 0; i < s->vocab; i += BLOCK) {
        if (sum + sc->blocks[i / BLOCK] <= target && i + BLOCK < s->vocab) {
            sum += sc->blocks[i / BLOCK];
            continue;
        }
        for (int32_t k = i; k < i + BLOCK && k < s->vocab; k++) {
            double w = exp((double)y[k] - (double)max);
            if (!(w > 0) || !(y[k] > c->floor || (y[k] == c->floor && k <= c->last)))
                continue;
            last = k;
            sum += w;
            if (sum > target)
                return k;
        }
    }
    return last >= 0 ? last : s->math->argmax(y, s->vocab); /* rounding left a sliver beyond the last */
}
