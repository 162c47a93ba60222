/* engine/pace.h - how many tokens of prompts a step may compute while other sequences stream.
 *
 * A step's time is what a reader waits between two tokens.  Where a whole budget of prompt tokens takes seconds, as it does on a CPU, streams stop
 * for seconds whenever somebody comes.  The pace holds such mixed steps near a target, or near twice the time of a step without prompts where
 * that is more, so that prompts always get about half of the time.  It learns from the steps themselves: one factor a step, at most a half or two.
 * Every so many mixed steps one goes without prompts, to know what streams alone cost by then.
 *
 * Plain arithmetic: no clock, no scheduler. */
#ifndef QUIRE_ENGINE_PACE_H
#define QUIRE_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    int64_t target_ns;      /* 0: no limit */
    int64_t streams_ns;     /* of a step without prompts; 0: not seen yet */
    int32_t tokens, most;
    int32_t n_mixed;        /* mixed steps since the last without prompts */
    bool settled;           /* tokens comes from a mixed step */
};

/* most: of any step, >= 1. */
void pace_open(struct pace *p, int64_t target_ns, int32_t most);
/* Prompt tokens of the next step if it has streams too (sched_set_mixed_tokens): >= 1, or 0 for no limit. */
int32_t pace_tokens(const struct pace *p);
/* A step took so long, with n_prompt tokens of prompts and n_streams sequences of one token. */
void pace_note(struct pace *p, int64_t step_ns, int32_t n_prompt, int32_t n_streams);

#endif
