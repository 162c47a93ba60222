/* bench/guides.h - what structured output costs: compiling, and a mask a token.
 *
 * Tokens are drawn uniformly from each mask, which is the hardest case: every state is met, strings are long and of all scripts. */
#ifndef QUIRE_BENCH_GUIDES_H
#define QUIRE_BENCH_GUIDES_H

#include "base/err.h"
#include "guide/guide.h"

struct bench_guide_times {
    double compile_ms;
    double first_us, mean_us, p99_us, max_us;   /* mask and advance of one token in the first n_tokens; first: the very first */
    double warm_us;                             /* mean of as many tokens again */
    int32_t n_tokens, n_finished;               /* of the first round */
    size_t bytes;                               /* held by the guide afterwards */
};
/* Outputs are drawn one after the other until n_tokens were; one that is longer than max_len is given up. */
bool bench_guide(struct guide_vocab *v, int32_t vocab_size, int32_t eos, const struct guide_spec *spec, int32_t n_tokens, int32_t max_len, uint64_t seed,
                 struct bench_guide_times *out, struct err *e);

#endif
