#include "engine/pace.h"

enum { LEAST_TOKENS = 16, FIRST_TOKENS = 64, MIXED_IN_A_ROW = 32 };

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void pace_open(struct pace *p, int64_t target_ns, int32_t most)
{
    *p = (struct pace){.target_ns = target_ns, .most = most, .tokens = most < FIRST_TOKENS ? most : FIRST_TOKENS};
}

int32_t pace_tokens(const struct pace *p)
{
    return p->target_ns == 0 ? 0 : p->n_mixed >= MIXED_IN_A_ROW ? 1 : p->tokens;
}

/* n tokens took so long in a step: how many would take `limit`. */
static int32_t scaled(const struct pace *p, int32_t n, int64_t step_ns, int64_t limit)
{
    double want = (double)n * (double)limit / (double)step_ns;
    int64_t least = p->most < LEAST_TOKENS ? p->most : LEAST_TOKENS;
    return (int32_t)clamp(want > (double)p->most ? p->most : (int64_t)want, least, p->most);
}

void pace_note(struct pace *p, int64_t step_ns, int32_t n_prompt, int32_t n_streams)
{
    if (p->target_ns == 0 || step_ns <= 0)
        return;
    if (n_streams == 0) {
        /* Prompts alone: how fast they are, until a mixed step tells. */
        if (!p->settled && n_prompt >= FIRST_TOKENS)
            p->tokens = scaled(p, n_prompt, step_ns, p->target_ns / 2);
        return;
    }
    if (n_prompt == 0) {
        p->streams_ns = p->streams_ns ? (p->streams_ns + step_ns) / 2 : step_ns;
        p->n_mixed = 0;
        return;
    }
    p->n_mixed++;
    int64_t limit = p->target_ns > 2 * p->streams_ns ? p->target_ns : 2 * p->streams_ns;
    /* A step of fewer prompt tokens than it might have had says little of one with all of them, unless it was too long. */
    if (n_prompt < p->tokens - p->tokens / 4 && step_ns <= limit)
        return;
    int32_t want = scaled(p, n_prompt, step_ns, limit);
    p->tokens = (int32_t)clamp(want, p->tokens / 2 > 0 ? p->tokens / 2 : 1, 2 * (int64_t)p->tokens);
    p->settled = true;
}
