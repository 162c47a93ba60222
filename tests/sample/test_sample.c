/* The sampler against a plain reference that sorts everything in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "sample/sample.h"
#include "sample/sample_int.h"

struct fixture { struct dev *dev; struct sampler *sampler; int32_t vocab; };

static const int32_t eos[] = {2};

static void open_fixture(struct fixture *f, int32_t vocab, int threads)
{
    struct err e;
    f->vocab = vocab;
    assert_true(dev_open(&f->dev, &(struct dev_opts){.name = "cpu", .n_threads = threads}, &e));
    assert_true(sampler_open(&f->sampler, f->dev, &(struct sample_env){.vocab_size = vocab, .eos_ids = eos, .n_eos = 1}, &e));
}

static void close_fixture(struct fixture *f)
{
    sampler_close(&f->sampler);
    dev_close(&f->dev);
}

static void random_row(struct rng *r, float *x, int32_t n, double scale)
{
    for (int32_t i = 0; i < n; i++)
        x[i] = (float)(rng_next_normal(r) * scale);
}

/* A token and what a cut sorts by. */
struct entry { int32_t id; float key, weight; };

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* ---- the whole chain ---- */

struct ref { double p[512]; };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void normalize(struct ref *out, int32_t vocab)
{
    double sum = 0;
    for (int32_t i = 0; i < vocab; i++)
        sum += out->p[i];
    for (int32_t i = 0; i < vocab; i++)
        out->p[i] /= sum;
}

/* By the paper's words: in order of |surprise - entropy|, as many as reach the mass. */
static void keep_typical_reference(struct ref *out, int32_t vocab, double mass)
{
    double entropy = 0, distance[512];
    for (int32_t i = 0; i < vocab; i++)
        entropy -= out->p[i] > 0 ? out->p[i] * log(out->p[i]) : 0;
    for (int32_t i = 0; i < vocab; i++)
        distance[i] = out->p[i] > 0 ? fabs(-log(out->p[i]) - entropy) : INFINITY;
    struct ref keep = *out;
    for (int32_t i = 0; i < vocab; i++) {
        double nearer = 0;
        for (int32_t k = 0; k < vocab; k++)
            nearer += distance[k] < distance[i] ? out->p[k] : 0;
        if (nearer >= mass)
            keep.p[i] = 0;
    }
    *out = keep;
}

/* Probabilities after every processor, written down as the documentation says them. */
static void reference(const struct sample_params *p, const float *logits, int32_t vocab, const int32_t *prompt, int n_prompt,
                      const int32_t *output, int n_output, struct ref *out)
{
    double x[512], sorted[512];
    for (int32_t i = 0; i < vocab; i++) {
        bool allowed = p->n_allowed == 0;
        for (int32_t k = 0; k < p->n_allowed; k++)
            allowed |= p->allowed_ids[k] == i;
        x[i] = allowed ? logits[i] : -INFINITY;
    }
    for (int32_t w = 0; w < p->n_bad_words; w++) {
        int32_t n = p->bad_words[w].n;
        bool match = n_output >= n - 1;
        for (int32_t k = 0; match && k < n - 1; k++)
            match = output[n_output - (n - 1) + k] == p->bad_words[w].ids[k];
        if (match)
            x[p->bad_words[w].ids[n - 1]] = -INFINITY;
    }
    for (int32_t i = 0; i < p->n_bias; i++)
        x[p->bias[i].id] += p->bias[i].bias;
    if (n_output < p->min_tokens)
        x[eos[0]] = -INFINITY;
    for (int32_t i = 0; i < vocab; i++) {
        int in_prompt = 0, in_output = 0;
        for (int k = 0; k < n_prompt; k++)
            in_prompt += prompt[k] == i;
        for (int k = 0; k < n_output; k++)
            in_output += output[k] == i;
        if (in_prompt || in_output)
            x[i] = x[i] > 0 ? x[i] / p->repetition_penalty : x[i] * p->repetition_penalty;
        x[i] -= p->frequency_penalty * in_output + (in_output ? p->presence_penalty : 0);
        x[i] /= p->temperature;
    }
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < vocab; i++)
        max = x[i] > max ? x[i] : max;
    for (int32_t i = 0; i < vocab; i++)
        sum += out->p[i] = exp(x[i] - max);
    for (int32_t i = 0; i < vocab; i++)
        if (out->p[i] < p->min_p)
            out->p[i] = 0;
    memcpy(sorted, out->p, sizeof sorted);
    qsort(sorted, (size_t)vocab, sizeof *sorted, by_value);
    if (p->top_k > 0 && p->top_k < vocab)
        for (int32_t i = 0; i < vocab; i++)
            if (out->p[i] < sorted[p->top_k - 1])
                out->p[i] = 0;
    sum = 0;
    for (int32_t i = 0; i < vocab; i++)
        sum += out->p[i];
    if (p->top_p < 1) {
        double keep[512];
        for (int32_t i = 0; i < vocab; i++) {
            double larger = 0;
            for (int32_t k = 0; k < vocab; k++)
                larger += out->p[k] > out->p[i] ? out->p[k] : 0;
            keep[i] = larger < p->top_p * sum ? out->p[i] : 0;
        }
        memcpy(out->p, keep, sizeof keep);
    }
    normalize(out, vocab);
    if (p->typical_p < 1) {
        keep_typical_reference(out, vocab, (double)p->typical_p);
        normalize(out, vocab);
    }
}

static struct sample_params random_params(struct rng *r, struct sample_bias *bias, int32_t *allowed, struct sample_word *words, int32_t *word_ids,
                                          int32_t vocab)
{
    struct sample_params p;
    sample_params_default(&p);
    p.temperature = (float)(0.3 + rng_next_unit(r));
    p.has_seed = true;
    p.seed = rng_next(r);
    if (rng_next_below(r, 2))
        p.top_k = (int32_t)rng_next_below(r, (uint64_t)vocab) + 1;
    if (rng_next_below(r, 2))
        p.top_p = (float)(0.05 + 0.9 * rng_next_unit(r));
    if (rng_next_below(r, 2))
        p.min_p = (float)(0.3 * rng_next_unit(r));
    if (rng_next_below(r, 3) == 0)
        p.typical_p = (float)(0.05 + 0.9 * rng_next_unit(r));
    if (rng_next_below(r, 3) == 0)
        p.repetition_penalty = (float)(0.5 + rng_next_unit(r));
    if (rng_next_below(r, 3) == 0)
        p.frequency_penalty = (float)(rng_next_unit(r) - 0.5);
    if (rng_next_below(r, 3) == 0)
        p.presence_penalty = (float)(rng_next_unit(r) - 0.5);
    if (rng_next_below(r, 3) == 0)
        p.min_tokens = (int32_t)rng_next_below(r, 6);
    p.n_bias = (int32_t)rng_next_below(r, 4);
    for (int32_t i = 0; i < p.n_bias; i++)
        bias[i] = (struct sample_bias){(int32_t)rng_next_below(r, (uint64_t)vocab), (float)(rng_next_normal(r) * 2)};
    p.bias = bias;
    if (rng_next_below(r, 4) == 0) {
        p.n_allowed = 5;
        for (int32_t i = 0; i < 5; i++)
            allowed[i] = i * 3 + 1;
        p.allowed_ids = allowed;
    }
    p.n_bad_words = (int32_t)rng_next_below(r, 3);
    for (int32_t i = 0; i < p.n_bad_words; i++) {
        int32_t n = 1 + (int32_t)rng_next_below(r, 2);
        for (int32_t k = 0; k < n; k++)
            word_ids[2 * i + k] = (int32_t)rng_next_below(r, (uint64_t)vocab);
        words[i] = (struct sample_word){word_ids + 2 * i, n};
    }
    p.bad_words = words;
    return p;
}

/* Draw many times by position: frequencies must match the reference, and nothing of probability 0 may appear. */
static void test_distribution(void **state)
{
    (void)state;
    enum { VOCAB = 40, DRAWS = 4000 };
    struct fixture f;
    struct rng r = {5};
    open_fixture(&f, VOCAB, 2);
    for (int round = 0; round < 60; round++) {
        float logits[VOCAB];
        struct sample_bias bias[4];
        int32_t allowed[8], word_ids[8], prompt[6], output[6];
        struct sample_word words[4];
        struct err e;
        struct sample_seq *seq;
        struct ref ref;
        random_row(&r, logits, VOCAB, 1.5);
        struct sample_params p = random_params(&r, bias, allowed, words, word_ids, VOCAB);
        int n_prompt = 1 + (int)rng_next_below(&r, 6), n_output = (int)rng_next_below(&r, 6);
        for (int i = 0; i < 6; i++) {
            prompt[i] = (int32_t)rng_next_below(&r, VOCAB);
            output[i] = (int32_t)rng_next_below(&r, VOCAB);
        }
        assert_true(sample_params_check(&p, &(struct sample_limits){20, VOCAB}, &e));
        assert_true(sample_seq_open(&seq, f.sampler, &p, 0, 0, prompt, n_prompt, &e));
        for (int i = 0; i < n_output; i++)
            assert_true(sample_seq_push(seq, output[i]));
        reference(&p, logits, VOCAB, prompt, n_prompt, output, n_output, &ref);
        static struct sample_row rows[DRAWS];
        for (int i = 0; i < DRAWS; i++)
            rows[i] = (struct sample_row){.logits = logits, .seq = seq, .position = i, .n_generated = n_output};
        sample_rows(f.sampler, rows, DRAWS);
        double seen[VOCAB] = {0}, distance = 0;
        for (int i = 0; i < DRAWS; i++) {
            assert_true(ref.p[rows[i].out.token] > 0);
            seen[rows[i].out.token] += 1.0 / DRAWS;
        }
        for (int i = 0; i < VOCAB; i++)
            distance += fabs(seen[i] - ref.p[i]) / 2;
        assert_true(distance < 0.08);
        sample_seq_close(&seq);
    }
    close_fixture(&f);
}

static void test_greedy_and_logprobs(void **state)
{
    (void)state;
    enum { VOCAB = 5000 };
    struct fixture f;
    struct rng r = {9};
    struct err e;
    open_fixture(&f, VOCAB, 1);
    for (int round = 0; round < 40; round++) {
        float *x = mem_must_zalloc(VOCAB, sizeof *x);
        random_row(&r, x, VOCAB, 0.01 + 3 * rng_next_unit(&r));
        x[100] = x[4000]; /* a tie */
        struct sample_params p;
        sample_params_default(&p);
        p.temperature = 0;
        p.n_logprobs = (int32_t)rng_next_below(&r, 20);
        struct sample_seq *seq;
        assert_true(sample_seq_open(&seq, f.sampler, &p, 1, 0, (int32_t[]){1}, 1, &e));
        int32_t ids[32];
        float lps[32];
        struct sample_row row = {.logits = x, .seq = seq, .out = {.top_cap = 32, .top_ids = ids, .top_logprobs = lps}};
        sample_rows(f.sampler, &row, 1);
        int32_t best = 0;
        double sum = 0;
        for (int32_t i = 0; i < VOCAB; i++) {
            best = x[i] > x[best] ? i : best;
            sum += exp(x[i]);
        }
        assert_int_equal(row.out.token, best);
        assert_int_equal(row.out.rank, 1);
        assert_true(fabs(row.out.logprob - (x[best] - log(sum))) < 1e-4);
        assert_int_equal(row.out.n_top, p.n_logprobs);
        for (int32_t i = 0; i < row.out.n_top; i++) {
            assert_true(fabs(lps[i] - (x[ids[i]] - log(sum))) < 1e-4);
            int32_t better = 0;
            for (int32_t k = 0; k < VOCAB; k++)
                better += x[k] > x[ids[i]] || (x[k] == x[ids[i]] && k < ids[i]);
            assert_int_equal(better, i);
        }
        struct sample_lookup look = {.logits = x, .token = 4000, .n_top = 0};
        sample_lookups(f.sampler, &look, 1);
        int32_t rank = 0;
        for (int32_t k = 0; k < VOCAB; k++)
            rank += x[k] >= x[4000];
        assert_int_equal(look.out.rank, rank);
        sample_seq_close(&seq);
        mem_free(x);
    }
    close_fixture(&f);
}

/* Log-probabilities of what the token was drawn from, against the reference chain. */
static void test_processed_logprobs(void **state)
{
    (void)state;
    enum { VOCAB = 300 };
    struct fixture f;
    struct rng r = {15};
    struct err e;
    open_fixture(&f, VOCAB, 1);
    for (int round = 0; round < 400; round++) {
        float logits[VOCAB], lps[16];
        int32_t ids[16];
        struct sample_params p;
        struct ref ref;
        struct sample_seq *seq;
        random_row(&r, logits, VOCAB, 2);
        sample_params_default(&p);
        p.temperature = (float)(0.3 + rng_next_unit(&r));
        p.top_k = round % 2 ? 1 + (int32_t)rng_next_below(&r, VOCAB) : 0;
        p.top_p = round % 3 ? (float)(0.05 + 0.9 * rng_next_unit(&r)) : 1;
        p.min_p = round % 5 ? 0 : 0.01f;
        p.typical_p = round % 7 ? 1 : 0.7f;
        p.n_logprobs = (int32_t)rng_next_below(&r, 12);
        p.logprobs_mode = SAMPLE_LOGPROBS_PROCESSED;
        reference(&p, logits, VOCAB, NULL, 0, NULL, 0, &ref);
        assert_true(sample_seq_open(&seq, f.sampler, &p, (uint64_t)round, 0, (int32_t[]){1}, 1, &e));
        struct sample_row row = {.logits = logits, .seq = seq, .position = round, .out = {.top_cap = 16, .top_ids = ids, .top_logprobs = lps}};
        sample_rows(f.sampler, &row, 1);
        int32_t n_kept = 0, rank = 0;
        for (int32_t i = 0; i < VOCAB; i++) {
            n_kept += ref.p[i] > 0;
            rank += ref.p[i] > 0 && ref.p[i] >= ref.p[row.out.token];
        }
        assert_true(ref.p[row.out.token] > 0);
        assert_true(fabs((double)row.out.logprob - log(ref.p[row.out.token])) < 1e-4);
        assert_int_equal(row.out.rank, rank);
        assert_int_equal(row.out.n_top, p.n_logprobs < n_kept ? p.n_logprobs : n_kept);
        for (int32_t k = 0; k < row.out.n_top; k++) {
            int32_t better = 0;
            for (int32_t i = 0; i < VOCAB; i++)
                better += ref.p[i] > ref.p[ids[k]];
            assert_int_equal(better, k);
            assert_true(fabs((double)lps[k] - log(ref.p[ids[k]])) < 1e-4);
        }
        sample_seq_close(&seq);
    }
    close_fixture(&f);
}

/* The same row, seed, choice and position draw the same token whatever stands beside them and however many threads run. */
static void test_draws_do_not_depend_on_neighbours(void **state)
{
    (void)state;
    enum { VOCAB = 3000, N = 37 };
    struct rng r = {21};
    struct err e;
    float *x = mem_must_zalloc((size_t)VOCAB * N, sizeof *x);
    random_row(&r, x, VOCAB * N, 1);
    int32_t alone[N];
    for (int threads = 1; threads <= 2; threads++) {
        struct fixture f;
        open_fixture(&f, VOCAB, threads);
        struct sample_params p[2];
        for (int k = 0; k < 2; k++) {
            sample_params_default(&p[k]);
            p[k].has_seed = true;
            p[k].seed = 77;
        }
        p[1].top_p = 0.8f;
        struct sample_seq *seq[N];
        struct sample_row rows[N];
        for (int i = 0; i < N; i++) {
            assert_true(sample_seq_open(&seq[i], f.sampler, &p[i % 2], 0, i / 5, (int32_t[]){1}, 1, &e));
            rows[i] = (struct sample_row){.logits = x + (size_t)i * VOCAB, .seq = seq[i], .position = i};
        }
        if (threads == 1)
            for (int i = 0; i < N; i++) {
                sample_rows(f.sampler, &rows[i], 1);
                alone[i] = rows[i].out.token;
            }
        sample_rows(f.sampler, rows, N);
        for (int i = 0; i < N; i++) {
            assert_int_equal(rows[i].out.token, alone[i]);
            sample_seq_close(&seq[i]);
        }
        close_fixture(&f);
    }
    mem_free(x);
}

/* Makes the lines that a guess reads unlike the rest of the row: lower, higher, all alike or nothing. */
static void mislead(float *y, int32_t vocab, int round)
{
    int32_t stride = vocab / (SAMPLE_CUT_SAMPLE / 16);
    for (int32_t i = 0; stride > 16 && i < vocab; i++)
        if (i % stride < 16)
            y[i] = round % 4 == 0 ? y[i] - 6 : round % 4 == 1 ? y[i] + 6 : round % 4 == 2 ? 0.5f : -INFINITY;
}

/* The cut of typical_p, by the distance to a value, against a sort. */
static void test_cut_near(void **state)
{
    (void)state;
    enum { VOCAB = 20000 };
    struct rng r = {43};
    float *y = mem_must_zalloc(VOCAB, sizeof *y), *w = mem_must_zalloc(VOCAB, sizeof *w);
    struct entry *sorted = mem_must_zalloc(VOCAB, sizeof *sorted);
    for (int round = 0; round < 90; round++) {
        struct fixture f;
        int32_t vocab = round % 3 ? VOCAB - round : 1 + (int32_t)rng_next_below(&r, 600), n = 0;
        open_fixture(&f, vocab, 1);
        const struct dev_math *m = dev_math(f.dev);
        random_row(&r, y, vocab, round % 4 == 0 ? 0.02 : round % 4 == 1 ? 6 : 1);
        for (int32_t i = 0; round % 5 == 4 && i < vocab; i++)
            y[i] = floorf(y[i] * 4) / 4;
        for (int32_t i = 0; round % 7 == 6 && i < 1 + round % 3; i++)
            y[(vocab / 2 + 40 * i) % vocab] = round % 2 ? 9 : 30;
        if (round >= 60)
            mislead(y, vocab, round);
        float max = m->max(y, vocab), least = -88;
        double total = m->weights(w, y, max, 1, round % 2 ? -INFINITY : max - 3, vocab), before = 0, kept;
        float near = (float)((double)max + m->moment(y, w, max, vocab) / total);
        double part = 0.001 + 0.998 * rng_next_unit(&r);
        struct sample_keys keys = {.x = y, .w = w, .near = &near, .keep_ties = true};
        struct sample_cut c = sample_cut_mass(f.sampler, f.sampler->scratch, &keys, 0, least, total, part, &kept);
        for (int32_t i = 0; i < vocab; i++)
            sorted[i] = (struct entry){.id = i, .key = w[i] > 0 ? -fabsf(y[i] - near) : -INFINITY, .weight = w[i]};
        qsort(sorted, (size_t)vocab, sizeof *sorted, by_key);
        while (n < vocab && sorted[n].key >= c.floor)
            before += (double)sorted[n++].weight;
        assert_true(n > 0 && sorted[n - 1].key == c.floor && c.last == INT32_MAX);
        assert_true(before >= part * total * (1 - 1e-9));
        double above = before;
        for (int32_t i = n - 1; i >= 0 && sorted[i].key == c.floor; i--)
            above -= (double)sorted[i].weight;
        assert_true(above < part * total * (1 + 1e-9));
        assert_true(fabs(kept - before) <= 1e-9 * before);
        for (int i = 1; i < 200; i++) {
            int32_t id = sample_cut_draw(f.sampler, f.sampler->scratch, y, w, &c, kept * i / 200);
            assert_true(w[id] > 0 && sample_cut_keeps(&c, y, id));
        }
        close_fixture(&f);
    }
    mem_free(y);
    mem_free(w);
    mem_free(sorted);
}

/* The cut of top_p against a sort: flat, peaked and tied rows, vocabularies below and above what is sampled first. */
static void test_cut_mass(void **state)
{
    (void)state;
    enum { VOCAB = 20000 };
    struct rng r = {41};
    float *y = mem_must_zalloc(VOCAB, sizeof *y), *w = mem_must_zalloc(VOCAB, sizeof *w);
    struct entry *sorted = mem_must_zalloc(VOCAB, sizeof *sorted);
    for (int round = 0; round < 90; round++) {
        struct fixture f;
        int32_t vocab = round % 3 ? VOCAB - round : 1 + (int32_t)rng_next_below(&r, 600);
        open_fixture(&f, vocab, 1);
        const struct dev_math *m = dev_math(f.dev);
        random_row(&r, y, vocab, round % 4 == 0 ? 0.02 : round % 4 == 1 ? 6 : 1);
        for (int32_t i = 0; round % 5 == 4 && i < vocab; i++)
            y[i] = floorf(y[i] * 4) / 4;
        if (round % 7 == 6)
            y[vocab / 2] = 30;
        if (round >= 60)
            mislead(y, vocab, round);
        float max = m->max(y, vocab), floor = round % 2 ? -INFINITY : max - 3;
        double part = 0.001 + 0.998 * rng_next_unit(&r), total = m->weights(w, y, max, 1, floor, vocab), before = 0, kept;
        struct sample_keys keys = {.x = y, .w = w};
        struct sample_cut c = sample_cut_mass(f.sampler, f.sampler->scratch, &keys, max, floor, total, part, &kept);
        for (int32_t i = 0; i < vocab; i++)
            sorted[i] = (struct entry){.id = i, .key = y[i], .weight = w[i]};
        qsort(sorted, (size_t)vocab, sizeof *sorted, by_key);
        int32_t k = 1 + (int32_t)rng_next_below(&r, (uint64_t)vocab);
        assert_true(sample_cut_count(f.sampler, f.sampler->scratch, y, max, k) == (k < vocab ? sorted[k - 1].key : -INFINITY));
        /* Sums in another order may move the end by one token where it falls between two: within 1e-9 of the mass. */
        int32_t n = 0;
        while (n < vocab && (sorted[n].key > c.floor || (sorted[n].key == c.floor && sorted[n].id <= c.last)))
            before += (double)sorted[n++].weight;
        assert_true(n > 0);
        assert_true(before >= part * total * (1 - 1e-9));
        assert_true(before - (double)sorted[n - 1].weight < part * total * (1 + 1e-9));
        assert_true(fabs(kept - before) <= 1e-9 * before);
        for (int i = 1; i < 200; i++)
            assert_true(sample_cut_keeps(&c, y, sample_cut_draw(f.sampler, f.sampler->scratch, y, w, &c, kept * i / 200)));
        close_fixture(&f);
    }
    mem_free(y);
    mem_free(w);
    mem_free(sorted);
}

/* A row's mask: nothing outside is ever drawn, what is drawn is the draw from a row that says -inf there, and a mask of which the
 * processors leave nothing gives its lowest token. */
static void test_row_mask(void **state)
{
    (void)state;
    enum { VOCAB = 1003, WORDS = (VOCAB + 31) / 32, N = 200 };
    struct fixture f;
    struct rng r = {31};
    struct err e;
    open_fixture(&f, VOCAB, 2);
    float *x = mem_must_zalloc(VOCAB, sizeof *x), *cut = mem_must_zalloc(VOCAB, sizeof *x);
    static struct sample_row rows[2 * N];
    for (int round = 0; round < 24; round++) {
        uint32_t mask[WORDS];
        struct sample_params p;
        sample_params_default(&p);
        p.temperature = round % 3 ? 0.9f : 0;
        p.top_p = round % 2 ? 0.8f : 1;
        p.top_k = round % 4 == 3 ? 7 : 0;
        p.repetition_penalty = round % 5 == 4 ? 1.5f : 1;
        struct sample_seq *seq;
        assert_true(sample_seq_open(&seq, f.sampler, &p, 3, 0, (int32_t[]){1, 50}, 2, &e));
        random_row(&r, x, VOCAB, 2);
        for (int i = 0; i < WORDS; i++)
            mask[i] = (uint32_t)rng_next(&r) & (uint32_t)rng_next(&r);
        mask[round % WORDS] |= 1;
        for (int32_t i = 0; i < VOCAB; i++)
            cut[i] = mask[i / 32] >> (i % 32) & 1 ? x[i] : -INFINITY;
        for (int i = 0; i < N; i++) {
            rows[i] = (struct sample_row){.logits = x, .allowed = mask, .seq = seq, .position = i};
            rows[N + i] = (struct sample_row){.logits = cut, .seq = seq, .position = i};
        }
        sample_rows(f.sampler, rows, 2 * N);
        for (int i = 0; i < N; i++) {
            assert_true(cut[rows[i].out.token] > -INFINITY);
            assert_int_equal(rows[i].out.token, rows[N + i].out.token);
        }
        sample_seq_close(&seq);
    }
    /* The only allowed tokens are ends, and min_tokens forbids them; the request's own ids lie outside the mask. */
    for (int kind = 0; kind < 3; kind++) {
        uint32_t mask[WORDS] = {[0] = 4, [9] = 2};
        int32_t own[] = {700, 289, 3};
        struct sample_params p;
        sample_params_default(&p);
        p.min_tokens = 5;
        p.stop_ids = &(int32_t){289};
        p.n_stop_ids = 1;
        p.allowed_ids = own;
        p.n_allowed = kind == 0 ? 0 : kind == 1 ? 3 : 1;
        struct sample_seq *seq;
        assert_true(sample_seq_open(&seq, f.sampler, &p, 3, 0, (int32_t[]){1}, 1, &e));
        struct sample_row row = {.logits = x, .allowed = mask, .seq = seq};
        sample_rows(f.sampler, &row, 1);
        assert_int_equal(row.out.token, kind == 1 ? 289 : 2);
        sample_seq_close(&seq);
    }
    mem_free(x);
    mem_free(cut);
    close_fixture(&f);
}

static void test_rows_without_hope(void **state)
{
    (void)state;
    struct fixture f;
    struct err e;
    float x[16];
    open_fixture(&f, 16, 1);
    for (int kind = 0; kind < 3; kind++)
        for (int greedy = 0; greedy < 2; greedy++) {
            for (int i = 0; i < 16; i++)
                x[i] = kind == 0 ? NAN : -INFINITY;
            if (kind == 2)
                x[9] = 1;
            struct sample_params p;
            sample_params_default(&p);
            p.temperature = greedy ? 0 : 1;
            p.top_p = 0.5f;
            p.n_logprobs = 3;
            struct sample_seq *seq;
            int32_t ids[4];
            float lps[4];
            assert_true(sample_seq_open(&seq, f.sampler, &p, 3, 0, (int32_t[]){1}, 1, &e));
            struct sample_row row = {.logits = x, .seq = seq, .out = {.top_cap = 4, .top_ids = ids, .top_logprobs = lps}};
            sample_rows(f.sampler, &row, 1);
            assert_int_equal(row.out.token, kind == 2 ? 9 : 0);
            sample_seq_close(&seq);
        }
    close_fixture(&f);
}

static void test_params_are_checked(void **state)
{
    (void)state;
    struct sample_limits l = {20, 100};
    struct sample_params good, p;
    struct err e;
    sample_params_default(&good);
    assert_true(sample_params_check(&good, &l, &e));
#define BAD(field, value) (p = good, p.field = (value), assert_false(sample_params_check(&p, &l, &e)), assert_int_equal(e.code, ERR_INVALID))
    BAD(temperature, -1);
    BAD(temperature, NAN);
    BAD(temperature, INFINITY);
    BAD(top_p, 0);
    BAD(top_p, 1.5f);
    BAD(min_p, -0.1f);
    BAD(typical_p, 0);
    BAD(repetition_penalty, 0);
    BAD(frequency_penalty, 3);
    BAD(presence_penalty, -3);
    BAD(top_k, -2);
    BAD(min_tokens, -1);
    BAD(n_logprobs, 21);
    BAD(n_prompt_logprobs, 21);
#undef BAD
    int32_t ids[] = {5, 100};
    p = good;
    p.stop_ids = ids;
    p.n_stop_ids = 2;
    assert_false(sample_params_check(&p, &l, &e));
    assert_non_null(strstr(e.msg, "stop_token_ids"));
}

static void test_dup_is_deep(void **state)
{
    (void)state;
    int32_t stop[] = {1, 2, 3}, allowed[] = {4}, word[] = {5, 6};
    struct sample_bias bias[] = {{7, 1}};
    struct sample_word words[] = {{word, 2}, {word, 1}};
    struct sample_params p;
    sample_params_default(&p);
    p.stop_ids = stop, p.n_stop_ids = 3;
    p.allowed_ids = allowed, p.n_allowed = 1;
    p.bias = bias, p.n_bias = 1;
    p.bad_words = words, p.n_bad_words = 2;
    struct sample_params *d = sample_params_dup(&p);
    assert_non_null(d);
    memset(stop, 0, sizeof stop);
    memset(word, 0, sizeof word);
    bias[0].id = 0;
    assert_int_equal(d->stop_ids[2], 3);
    assert_int_equal(d->allowed_ids[0], 4);
    assert_int_equal(d->bias[0].id, 7);
    assert_int_equal(d->bad_words[0].ids[1], 6);
    assert_int_equal(d->bad_words[1].ids[0], 5);
    mem_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_greedy_and_logprobs),
        cmocka_unit_test(test_processed_logprobs),
        cmocka_unit_test(test_draws_do_not_depend_on_neighbours),
        cmocka_unit_test(test_cut_mass),
        cmocka_unit_test(test_cut_near),
        cmocka_unit_test(test_row_mask),
        cmocka_unit_test(test_rows_without_hope),
        cmocka_unit_test(test_params_are_checked),
        cmocka_unit_test(test_dup_is_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
