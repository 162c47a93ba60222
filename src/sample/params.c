#include "sample/params.h"

#include <math.h>
#include <string.h>
#include "base/mem.h"

void sample_params_default(struct sample_params *p)
{
    *p = (struct sample_params){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .n_logprobs = -1,
                                .n_prompt_logprobs = -1};
}

static bool check_ids(const char *field, const int32_t *ids, int32_t n, int32_t vocab, struct err *e)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return err_set(e, ERR_INVALID, "%s: token id %d is outside the vocabulary of %d", field, ids[i], vocab);
    return true;
}

/* The negation also catches NaN. */
static bool check_range(const char *field, float v, bool ok, const char *range, struct err *e)
{
    return ok || err_set(e, ERR_INVALID, "%s must be %s, got %g", field, range, (double)v);
}

bool sample_params_check(const struct sample_params *p, const struct sample_limits *l, struct err *e)
{
    if (!check_range("temperature", p->temperature, p->temperature >= 0 && isfinite(p->temperature), "finite and at least 0", e) ||
        !check_range("top_p", p->top_p, p->top_p > 0 && p->top_p <= 1, "in (0, 1]", e) ||
        !check_range("min_p", p->min_p, p->min_p >= 0 && p->min_p <= 1, "in [0, 1]", e) ||
        !check_range("typical_p", p->typical_p, p->typical_p > 0 && p->typical_p <= 1, "in (0, 1]", e) ||
        !check_range("repetition_penalty", p->repetition_penalty, p->repetition_penalty > 0 && isfinite(p->repetition_penalty),
                     "finite and greater than 0", e) ||
        !check_range("frequency_penalty", p->frequency_penalty, p->frequency_penalty >= -2 && p->frequency_penalty <= 2, "in [-2, 2]", e) ||
        !check_range("presence_penalty", p->presence_penalty, p->presence_penalty >= -2 && p->presence_penalty <= 2, "in [-2, 2]", e))
        return false;
    if (p->watermarked && !sample_watermark_check(&p->watermark, e))
        return false;
    if (p->top_k < -1)
        return err_set(e, ERR_INVALID, "top_k must be -1 (off) or at least 0, got %d", p->top_k);
    if (p->min_tokens < 0)
        return err_set(e, ERR_INVALID, "min_tokens must be at least 0, got %d", p->min_tokens);
    if (p->n_logprobs > l->max_logprobs || p->n_prompt_logprobs > l->max_logprobs)
        return err_set(e, ERR_INVALID, "%s must be at most %d, got %d", p->n_logprobs > l->max_logprobs ? "logprobs" : "prompt_logprobs",
                       l->max_logprobs, p->n_logprobs > l->max_logprobs ? p->n_logprobs : p->n_prompt_logprobs);
    if (!check_ids("stop_token_ids", p->stop_ids, p->n_stop_ids, l->vocab_size, e) ||
        !check_ids("allowed_token_ids", p->allowed_ids, p->n_allowed, l->vocab_size, e))
        return false;
    for (int32_t i = 0; i < p->n_bias; i++)
        if (!check_ids("logit_bias", &p->bias[i].id, 1, l->vocab_size, e) ||
            !check_range("logit_bias", p->bias[i].bias, isfinite(p->bias[i].bias), "finite", e))
            return false;
    for (int32_t i = 0; i < p->n_bad_words; i++) {
        if (p->bad_words[i].n < 1)
            return err_set(e, ERR_INVALID, "bad_words must not hold an empty word");
        if (!check_ids("bad_words", p->bad_words[i].ids, p->bad_words[i].n, l->vocab_size, e))
            return false;
    }
    return true;
}

/* Copy n*elem bytes to *at and move it on, 8-byte aligned. */
static const void *place(unsigned char **at, const void *src, int32_t n, size_t elem)
{
    if (n <= 0)
        return NULL;
    void *p = memcpy(*at, src, (size_t)n * elem);
    *at += ((size_t)n * elem + 7) & ~(size_t)7;
    return p;
}

struct sample_params *sample_params_dup(const struct sample_params *p)
{
    size_t words = 0;
    for (int32_t i = 0; i < p->n_bad_words; i++)
        words += ((size_t)p->bad_words[i].n * sizeof(int32_t) + 7) & ~(size_t)7;
    size_t bytes = ((sizeof *p + 7) & ~(size_t)7) + (size_t)p->n_stop_ids * 4 + (size_t)p->n_allowed * 4 +
                   (size_t)p->n_bias * sizeof *p->bias + (size_t)p->n_bad_words * sizeof *p->bad_words + words + 64;
    struct sample_params *out = mem_try_zalloc(1, bytes);
    if (!out)
        return NULL;
    *out = *p;
    unsigned char *at = (unsigned char *)out + ((sizeof *p + 7) & ~(size_t)7);
    out->stop_ids = place(&at, p->stop_ids, p->n_stop_ids, sizeof *p->stop_ids);
    out->allowed_ids = place(&at, p->allowed_ids, p->n_allowed, sizeof *p->allowed_ids);
    out->bias = place(&at, p->bias, p->n_bias, sizeof *p->bias);
    struct sample_word *list = (struct sample_word *)(void *)at;
    at += (size_t)p->n_bad_words * sizeof *list;
    for (int32_t i = 0; i < p->n_bad_words; i++)
        list[i] = (struct sample_word){place(&at, p->bad_words[i].ids, p->bad_words[i].n, sizeof(int32_t)), p->bad_words[i].n};
    out->bad_words = p->n_bad_words ? list : NULL;
    return out;
}
