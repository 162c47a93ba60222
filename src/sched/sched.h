/* sched/sched.h - which sequences compute which tokens in the next step.
 *
 * There is no prefill or decode phase: a sequence has n_tokens known and n_computed of them in
 * the KV cache, and each step spends a token budget closing gaps (the shape of vLLM V1's
 * scheduler).  Plain host code: no model, no device; ids and counts only, so its tests replay
 * millions of events.  Time comes in as a parameter.
 *
 *   WAITING -- admitted --> RUNNING -- sched_end --> gone       (sched_end works in any state)
 *      ^--- preempted: its pages go back, it will be computed anew (mostly from the cache) ---'
 *
 * One step:  sched_plan -> the engine runs it (page copies first) -> sched_commit -> for each
 * sampled sequence sched_fork / sched_append / sched_end.
 *
 * Rules:
 *  R1  The budget is max_batched_tokens.  Running sequences first, oldest first; a chunk leaves one
 *      token to each sequence behind it that needs only one, so a long prompt does not hold up the
 *      streams of others.  Then waiting ones in order of (priority, arrival) while budget, slots and
 *      pages allow.  Strict head of line: when the first does not fit, nobody is admitted.  To fit,
 *      there must be pages for all its known tokens beside what the running ones still need
 *      for theirs; chunks of it are computed only then.  While any running sequence needs only one token,
 *      those that need more share the mixed_tokens of sched_set_mixed_tokens.
 *  R2  A waiting sequence shares the pages of its longest cached prefix, whole pages only and never
 *      all of its tokens: one is computed, for its logits.
 *  R3  When a running sequence needs a page and none is free: evict cached pages (least recently used,
 *      tail first), else preempt the running sequence of lowest priority, then latest arrival.  It
 *      goes to the front of its priority class.  A plan that preempts admits nobody, unless no
 *      running sequence has anything to compute: then these, from the last, give way to the head
 *      of the line (beams wait for each other, and may not fit side by side).
 *  R4  A request that cannot fit even alone is refused by sched_add (ERR_TOO_LARGE).  Therefore
 *      every request ends: the first in order always gets on.
 *  R5  A group (n choices) is one sequence until its prompt is computed, then it forks; it occupies
 *      n slots of max_num_seqs from admission.
 *  R6  Writing into a page shared with another sequence copies it first (plan.copies).  A fork
 *      itself takes no page.
 *  R7  Pages wholly behind the attention window are given up.
 *  R8  A step never asks for more than max_logit_rows rows of logits.
 *
 * The invariants are listed in sched_int.h and checked by sched_check(); above all, every page is
 * free, cached, or held by exactly the sequences that list it.
 *
 * Thread: the engine's only.  Cost: a plan is O(running + pages taken + pages of the prefixes looked up),
 * sched_add and sched_end O(log waiting + own pages); sched_plan, sched_commit and sched_append
 * never allocate. */
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
    int32_t max_num_seqs, max_batched_tokens, max_model_len;     /* all >= 1 */
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
    bool all_rows;                        /* the logits of every prompt token are wanted: no prefix is read from the cache (but what
                                             this sequence computed before a preemption), and each prompt token of a step
                                             counts against max_logit_rows (others count 1 a sequence) */
    void *user;                           /* the caller's, returned by sched_user */
};

/* On failure *out is NULL. */
bool sched_open(struct sched **out, const struct sched_opts *o, struct err *e);
void sched_close(struct sched **s);       /* ends what is left; NULL is fine */

/* Refuses with ERR_INVALID, ERR_TOO_LARGE (R4) or ERR_NOMEM, *out is NULL then and nothing has changed.
 * The sequence belongs to the scheduler until sched_end. */
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
/* n_items == 0 means there is nothing to compute now (unless some expired ones wait to be ended).
 * Expired sequences are not in items.  If the step fails do not commit: the next plan begins at the same
 * positions, but copies are not listed again. */
void sched_plan(struct sched *s, int64_t now_us, struct sched_plan *plan);
/* From the next plan on, and while a sequence streams (has one token to compute), prompts take at most n >= 1 tokens of a step, so that the
 * step stays short; 0: no such limit, as in the beginning. */
void sched_set_mixed_tokens(struct sched *s, int32_t n);
/* The plan's tokens are now in the cache: advance, publish full pages.  An item whose sequence was
 * ended since sched_plan has seq == NULL and is skipped. */
void sched_commit(struct sched *s, const struct sched_plan *plan);

/* A new sequence with the same tokens, sharing all pages; user is copied.  It uses a slot that the parent
 * has reserved, else a free one; if there is none, or the parent is WAITING, the child is WAITING.
 * NULL when out of memory, or when parent is in a plan not yet committed. */
struct sched_seq *sched_fork(struct sched *s, struct sched_seq *parent);
/* Append a sampled token, in any state.  False when the sequence is at its reserved length.  A sequence whose
 * last logits have been out and that has been preempted stays out of the line until its next token comes. */
bool sched_append(struct sched *s, struct sched_seq *seq, int32_t token);
/* The sequence is done or cancelled, in whatever state: its pages return to the cache at once. */
void sched_end(struct sched *s, struct sched_seq *seq);
/* Slots that the group reserved for forks and will not use any more; at most what it has beside its own. */
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
/* Forget cached pages that nobody holds.  Returns false when pages are still in use (those stay, and can
 * still be matched). */
bool sched_reset_prefix_cache(struct sched *s);

/* What each page holds, for people to look at: 0 free, 1 cached and evictable, k + 1 held by k sequences (255: by 254 or more).
 * states[blocks_total], page 1 first. */
void sched_page_states(const struct sched *s, uint8_t *states);
/* Every invariant of scheduler, pool and prefix index; O(pages + sequences). */
bool sched_check(const struct sched *s, struct err *e);

#endif
