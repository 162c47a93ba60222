/* Log-probabilities: a token's own, its rank, and the most likely. */
#include <math.h>
#include <stdlib.h>
#include "sample/sample_int.h"

static int compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The k largest of x (finite ones), descending and ties by id, then with `ties` those that equal the k-th, cap in all: to sc->cands. */
static int32_t largest(const struct sampler *s, struct scratch *sc, const float *x, float max, int32_t k, bool ties, int32_t cap)
{
    const struct dev_math *m = s->math;
    struct candidate *c = sc->cands;
    k = k < s->vocab ? k : s->vocab;
    cap = cap < s->vocab ? cap : s->vocab;
    float last = sample_cut_count(s, sc, x, max, k);
    int32_t n = m->above(x, s->vocab, nextafterf(last, INFINITY), sc->ids, s->vocab), room = (ties ? cap : k) - n;
    if (last > -INFINITY && room > 0) {
        int32_t equal = m->between(x, s->vocab, last, nextafterf(last, INFINITY), sc->ids + n, room);
        n += equal < room ? equal : room;
    }
    for (int32_t i = 0; i < n; i++)
        c[i] = (struct candidate){sc->ids[i], x[sc->ids[i]]};
    if (n > 1)
        qsort(c, (size_t)n, sizeof *c, compare);
    return n < cap ? n : cap;
}

void sample_logprobs_of(const struct sampler *s, struct scratch *sc, const struct sample_law *law, int32_t token, int32_t n_top, bool ties,
                        struct sample_result *out)
{
    const float *x = law->x;
    double log_total = log(law->total), scale = (double)law->scale, max = (double)law->max;
    out->token = token;
    out->logprob = NAN;
    out->rank = 0;
    out->n_top = 0;
    if (token >= 0) {
        out->logprob = (float)(((double)x[token] - max) * scale - log_total);
        out->rank = s->math->above(x, s->vocab, x[token], NULL, 0);
    }
    if (n_top <= 0)
        return;
    out->n_top = largest(s, sc, x, law->max, n_top, ties, out->top_cap);
    for (int32_t i = 0; i < out->n_top; i++) {
        out->top_ids[i] = sc->cands[i].id;
        out->top_logprobs[i] = (float)(((double)sc->cands[i].key - max) * scale - log_total);
    }
}

void sample_logprobs_fill(const struct sampler *s, struct scratch *sc, const float *logits, int32_t token, int32_t n_top, bool ties,
                          struct sample_result *out)
{
    float max = s->math->max(logits, s->vocab);
    struct sample_law law = {logits, max, 1, 1};
    if (max > -INFINITY)
        law.total = s->math->weights(NULL, logits, max, 1, -INFINITY, s->vocab);
    else
        law.max = 0, n_top = 0;
    sample_logprobs_of(s, sc, &law, token, n_top, ties, out);
}
