/* Raw log-probabilities: a token's own, its rank, and the most likely. */
#include <math.h>
#include "sample/sample_int.h"

int32_t sample_largest(const struct sampler *s, struct scratch *sc, const float *x, float max, int32_t k)
{
    /* Lower a threshold until enough are above it: a few passes over the row instead of a sort. */
    int32_t n = 0;
    if (k > s->vocab)
        k = s->vocab;
    for (float depth = 0.5f;; depth *= 2) {
        float threshold = depth < 1e6f ? max - depth : -INFINITY;
        n = s->math->above(x, s->vocab, threshold, sc->ids, s->vocab);
        if (n >= k || threshold == -INFINITY)
            break;
    }
    for (int32_t i = 0; i < n; i++)
        sc->cands[i] = (struct candidate){.id = sc->ids[i], .key = -x[sc->ids[i]]};
    if (n <= k)
        return n;
    sample_select_smallest(sc->cands, n, k);
    float last = sc->cands[0].key;
    for (int32_t i = 1; i < k; i++)
        last = sc->cands[i].key > last ? sc->cands[i].key : last;
    int32_t kept = k;
    for (int32_t i = k; i < n; i++)
        if (sc->cands[i].key == last)
            sc->cands[kept++] = sc->cands[i];
    return kept;
}

void sample_logprobs_fill(const struct sampler *s, struct scratch *sc, const float *logits, int32_t token, int32_t n_top, bool ties,
                   struct sample_result *out)
{
    float max = s->math->max(logits, s->vocab);
    double lse = max > -INFINITY ? max + log(s->math->sum_exp(logits, s->vocab, max)) : 0;
    out->token = token;
    out->logprob = NAN;
    out->rank = 0;
    out->n_top = 0;
    if (token >= 0) {
        out->logprob = (float)(logits[token] - lse);
        out->rank = s->math->above(logits, s->vocab, logits[token], NULL, 0);
    }
    if (n_top <= 0 || max == -INFINITY)
        return;
    int32_t n = sample_largest(s, sc, logits, max, n_top);
    sample_select_sort(sc->cands, n);
    if (!ties && n > n_top)
        n = n_top;
    if (n > out->top_cap)
        n = out->top_cap;
    for (int32_t i = 0; i < n; i++) {
        out->top_ids[i] = sc->cands[i].id;
        out->top_logprobs[i] = (float)(logits[sc->cands[i].id] - lse);
    }
    out->n_top = n;
}
