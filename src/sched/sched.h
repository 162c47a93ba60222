/* sched/sched.h - which sequences compute which tokens in the next step.
 *
 * There is no prefill or decode phase: a sequence has n_tokens known and n_computed in the
 * KV cache, and each step spends a token budget closing gaps (the shape of vLLM V1's
 * scheduler).  Plain host code: no model, no device; ids and counts only, so its tests replay
 * millions of events.  Time comes in as a parameter.
 *
 *   WAITING -- admitted --> RUNNING -- sched_end --> gone
 *      ^--- preempted (pages back, n_computed = 0, front of its class) ---'
 *
 * One step:  sched_plan -> engine runs it (page copies first) -> sched_commit -> for each
 * sampled sequence: sched_fork / sched_append / sched_end.
 *
 * Rules:
 *  R1 budget = max_batched_tokens; running sequences first (oldest first), then waiting ones in (priority, arrival)
 *     order while budget, max_num_seqs and pages allow; strict head of line.
 *  R2 a waiting sequence shares the pages of its longest cached prefix, never all of its tokens.
 *  R3 when a page is needed and none is free: evict cached pages (LRU, tail first), else preempt the running sequence of
 *     lowest priority, then latest arrival.  A plan that preempts admits nobody, unless no running sequence has anything to
 *     compute: then one by one they give way until the head of the line is admitted.
 *  R4 a request that cannot fit even alone is refused by sched_add (ERR_TOO_LARGE).
 *  R5 a group (n choices) is one sequence until its prompt is computed, then forks; it occupies n slots from admission.
 *  R6 writing into a page shared with another sequence copies it first (plan.copies).
 *  R7 pages wholly behind the attention window are given up.
 *  R8 a step never asks for more than max_logit_rows rows of logits.
 *
 * Invariants are checked by sched_check(): every page is free, cached, or held by exactly the
 * sequences that count it.  Thread: the engine's.  */
#ifndef QUIRE_SCHED_SCHED_H
#define QUIRE_SCHED_SCHED_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct sched;
struct sched_seq;

enum sched_policy { SCHED_FCFS, SCHED_PRIORITY };  /* FCFS ignores priority */

struct sched_opts {
    int32_t n_blocks, block_tokens;       /* page 0 is reserved and never handed out */
    int32_t max_num_seqs, max_batched_tokens, max_model_len;
    int32_t max_logit_rows;               /* rows of logits one step may ask for; >= max_num_seqs */
    int32_t window;                       /* all layers' attention window, 0 when any layer sees everything */
    int32_t long_prefill_threshold;       /* > 0: a prefill takes at most so many tokens of a step */
    bool prefix_caching;
    enum sched_policy policy;
};

struct sched_request {
    const int32_t *tokens;                /* prompt, copied */
    int32_t n_tokens;                     /* >= 1 */
    int32_t max_new_tokens;               /* room reserved in the token array; prompt + new <= max_model_len */
    int32_t n_choices;                    /* >= 1, <= max_num_seqs: slots this group will occupy */
    int32_t priority;                     /* lower is sooner */
    int64_t arrival_us;
    int64_t deadline_us;                  /* 0: none; past it the group shows up in plan.expired */
    uint64_t salt;                        /* only sequences of equal salt share pages */
    bool all_rows;                        /* the logits of every prompt token are wanted: no prefix is read from the cache, and
                                             each prompt token of a step counts against max_logit_rows (others count 1 a sequence) */
    void *user;                           /* the caller's, returned by sched_user */
};

bool sched_open(struct sched **out, const struct sched_opts *o, struct err *e);
void sched_close(struct sched **s);       /* ends what is left */

bool sched_add(struct sched *s, const struct sched_request *r, struct sched_seq **out, struct err *e);

struct sched_item {
    struct sched_seq *seq;
    int32_t start;             /* position of the first token to compute (= tokens already in the cache) */
    int32_t n_new;             /* how many, >= 1 */
    bool last;                 /* the step reaches the last known token: its logits give the next one */
};
struct sched_copy { int32_t src, dst; };
struct sched_plan {            /* arrays belong to s, valid until the next sched_plan */
    const struct sched_item *items;  int32_t n_items;
    int32_t n_tokens;
    const struct sched_copy *copies; int32_t n_copies;     /* to be done before the step, in order */
    struct sched_seq *const *expired; int32_t n_expired;   /* past their deadline: the caller ends them */
    int32_t n_preempted, n_admitted;
};
/* n_items == 0 means there is nothing to compute now. */
void sched_plan(struct sched *s, int64_t now_us, struct sched_plan *plan);
/* The plan's tokens are now in the cache: advance, publish full pages. */
void sched_commit(struct sched *s, const struct sched_plan *plan);

/* A new sequence with the same tokens, sharing all pages; not between plan and commit.  It uses a slot that the parent has reserved,
 * else a free one.  When there is none, or the parent is WAITING, the child is WAITING.  NULL when out of memory.  user is copied. */
struct sched_seq *sched_fork(struct sched *s, struct sched_seq *parent);
/* Append a sampled token.  False when the sequence is at its reserved length. */
bool sched_append(struct sched *s, struct sched_seq *seq, int32_t token);
/* The sequence is done or cancelled, in whatever state: its pages return to the cache at once. */
void sched_end(struct sched *s, struct sched_seq *seq);
/* Slots that the group reserved for forks and will not use any more. */
void sched_release_slots(struct sched *s, struct sched_seq *seq, int32_t n);

void *sched_user(const struct sched_seq *seq);
void sched_set_user(struct sched_seq *seq, void *user);
const int32_t *sched_tokens(const struct sched_seq *seq, int32_t *n);    /* prompt and output */
int32_t sched_n_computed(const struct sched_seq *seq);
int32_t sched_n_cached(const struct sched_seq *seq);      /* prompt tokens its first admission found in the prefix cache */
int64_t sched_first_scheduled_us(const struct sched_seq *seq);           /* 0: not yet */
/* Page table: entry i holds positions [i*block_tokens, ...); 0 for pages given up behind the window. */
const int32_t *sched_block_table(const struct sched_seq *seq, int32_t *n);

struct sched_stats {
    int32_t n_running, n_waiting;
    int32_t blocks_total, blocks_free, blocks_cached, blocks_held;  /* total excludes page 0 */
    uint64_t n_preemptions, prefix_query_tokens, prefix_hit_tokens, n_evictions, n_copies;
};
void sched_stats(const struct sched *s, struct sched_stats *out);
/* Forget cached pages that nobody holds.  Returns false when pages are still in use (those stay). */
bool sched_reset_prefix_cache(struct sched *s);
/* Every invariant of scheduler and pool; O(pages + sequences). */
bool sched_check(const struct sched *s, struct err *e);

#endif
