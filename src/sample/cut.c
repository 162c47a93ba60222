/* Truncation of a whole row by threshold: which tokens stay is one value (and one id among those that equal it).  A sample says between which
 * two values it lies, one pass over the row checks that, sums what lies above and lists what lies between, and bisection goes on in that list.
 * Nothing is sorted. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "sample/sample_int.h"

enum { SAMPLE = SAMPLE_CUT_SAMPLE, BLOCK = SAMPLE_CUT_BLOCK, RUN = 16 /* a line of memory */, SIGMAS = 4 /* of a sample's sums */ };

/* Keys and what each weighs; w NULL: all weigh 1. */
struct row { const float *key, *w; int32_t n; };

/* The floors that hold the target (base, what lies above, included) are in [lo, hi): mass(lo) >= target > mass(hi). */
struct bracket { float lo, hi; double base; };

static double mass(const struct dev_math *m, const struct row *r, float floor)
{
    return r->w ? m->sum_above(r->key, r->w, floor, r->n) : m->above(r->key, r->n, floor, NULL, 0);
}

static double below_of(const struct dev_math *m, const struct row *r, float floor)
{
    return mass(m, r, -INFINITY) - mass(m, r, floor);
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

/* What of the list lies inside the bracket, in scratch of its own (which may be the list's). */
static struct row inside(const struct dev_math *m, struct scratch *sc, const struct row *in, const struct bracket *b)
{
    double above;
    int32_t n = m->split(in->key, in->w, in->n, NULL, b->lo, b->hi, sc->keys, sc->near_weights, &above);
    return (struct row){sc->keys, in->w ? sc->near_weights : NULL, n};
}

/* Narrows the bracket as narrow() does, and the row to what is left in it. */
static void close_in(const struct dev_math *m, struct scratch *sc, struct row *r, double target, float width, struct bracket *b)
{
    enum { ROUNDS = 4 };   /* of halvings before what lies outside is dropped */
    float mid;
    while (r->n > 1 && b->hi - b->lo > width && middle(b, &mid)) {
        narrow(m, r, b->base, target, fmaxf((b->hi - b->lo) / (1 << ROUNDS), width), b);
        *r = inside(m, sc, r, b);
    }
}

/* Where in [lo, hi) the sample's mass reaches `want`, nearly. */
static struct bracket reach(const struct dev_math *m, struct scratch *sc, const struct row *few, double want, float lo, float hi)
{
    struct bracket b = {lo, hi, 0};
    struct row r = *few;
    close_in(m, sc, &r, want, (hi - lo) / 2048, &b);
    return b;
}

/* Raises lo from -inf to a floor that holds the target, if a finite one does. */
static void raise_floor(const struct dev_math *m, const struct row *r, double target, struct bracket *b)
{
    float top = b->hi;
    double base = b->base;
    for (float depth = 1; b->lo == -INFINITY && depth < FLT_MAX / 8; depth *= 8)
        if (top - depth < b->hi)
            move(m, r, base, target, top - depth, b);
}

/* Lines of a wide row, evenly spaced; each token's weight stands for all that were passed over. */
static struct row take_lines(struct scratch *sc, const struct sample_keys *r, int32_t n)
{
    int32_t stride = n / (SAMPLE / RUN);
    float each = (float)n / SAMPLE;
    for (int32_t i = 0; i < SAMPLE; i += RUN) {
        int64_t from = (int64_t)(i / RUN) * stride;
        memcpy(sc->few_keys + i, r->x + from, RUN * sizeof(float));
        for (int k = 0; k < RUN; k++) {
            float w = each * (r->w ? r->w[from + k] : 1);
            sc->few_weights[i + k] = w;
            sc->few_squares[i + k] = w * w;
        }
    }
    return (struct row){sc->few_keys, sc->few_weights, SAMPLE};
}

/* Puts the few tokens with the largest logits, which may have most of the mass, each for itself in place of what the lines have of them,
 * unless all of these are kept as it seems: the others have more mass than is to be cut off. */
static void add_heavy(const struct dev_math *m, struct scratch *sc, const struct sample_keys *r, int32_t n, double below, struct row *few)
{
    enum { IN_LINES = 4, MOST = SAMPLE_CUT_HEAVY };
    struct row x = {few->key, NULL, SAMPLE};
    struct bracket b = {-INFINITY, nextafterf(m->max(x.key, SAMPLE), INFINITY), 0};
    raise_floor(m, &x, IN_LINES, &b);
    narrow(m, &x, 0, IN_LINES, (b.hi - b.lo) / 256, &b);
    struct row squares = {few->key, sc->few_squares, SAMPLE};
    if (!r->near && below_of(m, few, b.hi) > below + SIGMAS * sqrt(below_of(m, &squares, b.hi)))
        return;
    int32_t heavy = m->above(r->x, n, b.hi, sc->ids, MOST);
    if (heavy > MOST)
        return;
    for (int32_t i = 0; i < SAMPLE; i++)
        if (sc->few_keys[i] >= b.hi)
            sc->few_weights[i] = sc->few_squares[i] = 0;
    for (int32_t i = 0; i < heavy; i++) {
        sc->few_keys[SAMPLE + i] = r->x[sc->ids[i]];
        sc->few_weights[SAMPLE + i] = r->w[sc->ids[i]];
        sc->few_squares[SAMPLE + i] = 0;
    }
    few->n += heavy;
}

/* Narrows a first bracket of a wide row to where its end probably lies, by a sample; not proven. */
static void guess(const struct dev_math *m, struct scratch *sc, const struct sample_keys *r, int32_t n, double target, double total,
                  struct bracket *b)
{
    struct row few = take_lines(sc, r, n), squares = {sc->few_keys, sc->few_squares, SAMPLE};
    if (r->w && m->above(few.w, SAMPLE, FLT_MIN, NULL, 0) <= SAMPLE / 32)
        return;   /* So few weigh anything, as after top_k, that they may all be listed. */
    if (r->w)
        add_heavy(m, sc, r, n, total - target, &few);
    if (r->near)
        m->nearness(sc->few_keys, sc->few_keys, sc->few_weights, *r->near, few.n);
    /* What lies below the end has a sum over many tokens, of which a sample tells most. */
    double below = total - target, sum = mass(m, &few, -INFINITY);
    float least = b->lo, max = m->max(few.key, few.n);
    for (float depth = 1; b->lo == -INFINITY && depth < 1e4f && !(mass(m, &few, least = max - depth) >= sum - below / 2);)
        depth *= 4;
    if (!(least >= -FLT_MAX && least < b->hi))
        return;
    struct bracket at = reach(m, sc, &few, sum - below, least, b->hi);
    double variance = below_of(m, &squares, at.hi);
    if (!r->w)
        variance = below * (1 - below / total) * n / SAMPLE + (double)n / SAMPLE * n / SAMPLE;   /* of a count; one more */
    double margin = SIGMAS * sqrt(variance);
    float lo = reach(m, sc, &few, fmax(sum - below + margin, DBL_MIN), least, b->hi).lo, hi = reach(m, sc, &few, sum - below - margin, at.lo, b->hi).hi;
    *b = (struct bracket){lo > least ? lo : b->lo, hi, 0};
}

/* Lists what of the row has a key in [lo, hi) as candidates, and sums what lies above to the blocks; returns the sum of these. */
static double list(const struct sampler *s, struct scratch *sc, const struct sample_keys *r, float lo, float hi, struct row *in)
{
    double above = 0;
    int32_t found = 0, b = 0;
    for (int32_t i = 0; i < s->vocab; i += BLOCK, b++) {
        int32_t n = s->vocab - i < BLOCK ? s->vocab - i : BLOCK;
        sc->from[b] = found;
        found += s->math->split(r->x + i, r->w ? r->w + i : NULL, n, r->near, lo, hi, sc->cut_keys + found, sc->cut_weights + found, &sc->blocks[b]);
        above += sc->blocks[b];
    }
    sc->from[b] = found;
    *in = (struct row){sc->cut_keys, r->w ? sc->cut_weights : NULL, found};
    return above;
}

/* The first bracket and its candidates: what a guess says, or the side of it where the end is after all. */
static struct bracket first(const struct sampler *s, struct scratch *sc, const struct sample_keys *r, const struct bracket *whole,
                            double target, double total, struct row *in)
{
    const struct dev_math *m = s->math;
    struct bracket b = *whole;
    if (s->vocab >= 4 * SAMPLE)
        guess(m, sc, r, s->vocab, target, total, &b);
    b.base = list(s, sc, r, b.lo, b.hi, in);
    if (b.base >= target && b.hi < whole->hi) {
        b = (struct bracket){b.hi, whole->hi, 0};
        b.base = list(s, sc, r, b.lo, b.hi, in);
    } else if (b.lo > whole->lo && b.base + mass(m, in, -INFINITY) < target) {
        b = (struct bracket){whole->lo, b.lo, 0};
        b.base = list(s, sc, r, b.lo, b.hi, in);
    }
    return b;
}

/* Of the tokens that have this key, all in the list, the mass needs so many. */
static int32_t ties_needed(const struct row *in, float key, double missing, int32_t *n_ties)
{
    int32_t needed = 0;
    double sum = 0;
    *n_ties = 0;
    for (int32_t i = 0; i < in->n; i++) {
        if (in->key[i] != key)
            continue;
        if (*n_ties == 0 || sum < missing)
            needed++;
        sum += in->w ? (double)in->w[i] : 1;
        ++*n_ties;
    }
    return needed;
}

/* Where in the list of candidates the k-th, from 1, with this key stands. */
static int32_t place_of(const struct row *in, float key, int32_t k)
{
    int32_t i = 0;
    for (; i < in->n - 1; i++)
        if (in->key[i] == key && --k == 0)
            break;
    return i;
}

/* The id of the candidate at a place. */
static int32_t id_of(const struct sampler *s, const struct scratch *sc, const struct sample_keys *r, int32_t place)
{
    int32_t b = 0, k = 0;
    while ((b + 1) * BLOCK < s->vocab && sc->from[b + 1] <= place)
        b++;
    for (int32_t i = sc->from[b]; i <= place; i++)
        k += sc->cut_keys[i] == sc->cut_keys[place];
    int32_t id = b * BLOCK;
    for (; id < s->vocab - 1; id++) {
        bool counts = !r->near || r->w[id] > 0;
        float key = r->near ? -fabsf(r->x[id] - *r->near) : r->x[id];
        if (counts && key == sc->cut_keys[place] && --k == 0)
            break;
    }
    return id;
}

/* Adds to the blocks the candidates that are kept: key > floor, and of key == floor those up to a place.  Returns the sum of all blocks. */
static double add_kept(const struct sampler *s, struct scratch *sc, const struct row *in, float floor, int32_t place)
{
    const struct dev_math *m = s->math;
    float above = nextafterf(floor, INFINITY);
    double total = 0;
    for (int32_t b = 0; b * BLOCK < s->vocab; b++) {
        int32_t i = sc->from[b], end = sc->from[b + 1], tied = place < i ? i : place < end ? place + 1 : end;
        if (i < tied)
            sc->blocks[b] += m->sum_above(in->key + i, in->w + i, floor, tied - i);
        if (tied < end)
            sc->blocks[b] += m->sum_above(in->key + tied, in->w + tied, above, end - tied);
        total += sc->blocks[b];
    }
    return total;
}

struct sample_cut sample_cut_mass(const struct sampler *s, struct scratch *sc, const struct sample_keys *r, float max, float floor,
                                  double total, double part, double *kept)
{
    const struct dev_math *m = s->math;
    struct bracket whole = {floor, nextafterf(max, INFINITY), 0};
    struct row all, in;
    double target = part * total;
    struct bracket b = first(s, sc, r, &whole, target, total, &all);
    struct sample_cut c = {.last = INT32_MAX, .folded = r->near != NULL, .to = r->near ? *r->near : 0};
    in = all;
    if (b.lo == -INFINITY) {
        raise_floor(m, &in, target, &b);
        in = inside(m, sc, &in, &b);
    }
    close_in(m, sc, &in, target, 0, &b);
    c.floor = in.n ? m->max(in.key, in.n) : b.lo;
    int32_t place = INT32_MAX, n_ties, needed = r->keep_ties ? 0 : ties_needed(&in, c.floor, target - b.base, &n_ties);
    if (!r->keep_ties && needed < n_ties) {
        place = place_of(&all, c.floor, needed);
        c.last = id_of(s, sc, r, place);
    }
    if (kept)
        *kept = add_kept(s, sc, &all, c.floor, place);
    return c;
}

float sample_cut_count(const struct sampler *s, struct scratch *sc, const float *key, float max, int32_t k)
{
    if (k >= s->vocab)
        return -INFINITY;
    /* Half a token less: rounding must not make it k + 1. */
    struct sample_keys keys = {.x = key, .keep_ties = true};
    return sample_cut_mass(s, sc, &keys, max, -INFINITY, s->vocab, (k - 0.5) / s->vocab, NULL).floor;
}

double sample_cut_weigh(const struct sampler *s, struct scratch *sc, const float *x, float max, float scale, float floor, double *moment)
{
    double total = 0, sum = 0;
    for (int32_t i = 0; i < s->vocab; i += BLOCK) {
        int32_t n = s->vocab - i < BLOCK ? s->vocab - i : BLOCK;
        total += sc->blocks[i / BLOCK] = s->math->weights(sc->weights + i, x + i, max, scale, floor, n);
        if (moment)
            sum += s->math->moment(x + i, sc->weights + i, max, n);
    }
    if (moment)
        *moment = sum;
    return total;
}

int32_t sample_cut_draw(const struct sampler *s, const struct scratch *sc, const float *x, const float *w, const struct sample_cut *c,
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
            if (!(w[k] > 0) || !sample_cut_keeps(c, x, k))
                continue;
            last = k;
            sum += (double)w[k];
            if (sum > target)
                return k;
        }
    }
    return last >= 0 ? last : s->math->argmax(x, s->vocab); /* rounding left a sliver beyond the last */
}
