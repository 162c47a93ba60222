#include "bench/guides.h"

#include <stdlib.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

/* A set bit, drawn evenly. */
static int32_t draw(const uint32_t *mask, int32_t vocab, struct rng *r)
{
    int32_t words = (vocab + 31) / 32;
    uint64_t n = 0;
    for (int32_t i = 0; i < words; i++)
        n += (uint64_t)__builtin_popcount(mask[i]);
    uint64_t k = rng_next_below(r, n ? n : 1);
    for (int32_t i = 0; i < words; i++) {
        uint32_t w = mask[i];
        uint64_t c = (uint64_t)__builtin_popcount(w);
        if (k >= c) {
            k -= c;
            continue;
        }
        for (; k > 0; k--)
            w &= w - 1;
        return i * 32 + __builtin_ctz(w);
    }
    return 0;
}

static bool one_round(struct guide *g, int32_t vocab, int32_t eos, int32_t n, int32_t max_len, struct rng *r, double *us, int32_t *n_finished,
                      struct err *e)
{
    struct guide_state *s = NULL;
    int32_t length = 0;
    bool ok = guide_state_open(&s, g, e);
    for (int32_t i = 0; ok && i < n; i++) {
        int64_t t0 = clock_now_ns();
        const uint32_t *mask = guide_state_mask(s, e);
        int64_t t1 = clock_now_ns();
        int32_t token = mask ? draw(mask, vocab, r) : -1;
        int64_t t2 = clock_now_ns();
        ok = mask && guide_state_advance(s, token, e);
        us[i] = (double)(t1 - t0 + clock_now_ns() - t2) / 1e3;
        bool ended = ok && (token == eos || guide_state_ended(s));
        *n_finished += ended;
        if (ok && (ended || ++length >= max_len)) {
            guide_state_close(&s);
            length = 0;
            ok = guide_state_open(&s, g, e);
        }
    }
    guide_state_close(&s);
    return ok;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

bool bench_guide(struct guide_vocab *v, int32_t vocab_size, int32_t eos, const struct guide_spec *spec, int32_t n_tokens, int32_t max_len, uint64_t seed,
                 struct bench_guide_times *out, struct err *e)
{
    struct guide *g = NULL;
    struct rng r = {seed};
    int32_t ignored = 0;
    double *us = mem_try_zalloc((size_t)n_tokens, sizeof *us);
    *out = (struct bench_guide_times){.n_tokens = n_tokens};
    if (!us)
        return err_set(e, ERR_NOMEM, "out of memory");
    int64_t t0 = clock_now_ns();
    bool ok = guide_compile(&g, v, spec, NULL, e);
    out->compile_ms = (double)(clock_now_ns() - t0) / 1e6;
    ok = ok && one_round(g, vocab_size, eos, n_tokens, max_len, &r, us, &out->n_finished, e);
    if (ok) {
        out->first_us = us[0];
        for (int32_t i = 0; i < n_tokens; i++)
            out->mean_us += us[i] / n_tokens;
        qsort(us, (size_t)n_tokens, sizeof *us, compare);
        out->p99_us = us[(size_t)n_tokens * 99 / 100];
        out->max_us = us[n_tokens - 1];
        ok = one_round(g, vocab_size, eos, n_tokens, max_len, &r, us, &ignored, e);
    }
    for (int32_t i = 0; ok && i < n_tokens; i++)
        out->warm_us += us[i] / n_tokens;
    if (ok)
        out->bytes = guide_bytes(g);
    guide_unref(&g);
    mem_free(us);
    return ok;
}
