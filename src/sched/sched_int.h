/* sched/sched_int.h - what the scheduler's own files share.
 *
 *   sched.c        opening, adding, forking, ending, reading
 *   sched_plan.c   plan and commit
 *   sched_queue.c  order of sequences, the heaps, the running list
 *   sched_check.c  the invariants
 *
 * Invariants, all verified by sched_check():
 *   S1  every page is referenced exactly as often as sequences list it; a sequence lists none twice.
 *   S2  a sequence is RUNNING and in running[], or WAITING and in the waiting heap, or parked: WAITING
 *       with nothing to compute (sched_is_parked) and in neither.  All are on the list of sequences.
 *   S3  running[] is sorted by precedence; the heaps are heaps, and each member knows its place.
 *   S4  slots_used is the sum of the running sequences' slots and at most max_num_seqs.
 *   S5  n_computed <= n_tokens <= cap_tokens; the page table covers the computed positions (and, once
 *       planned, the planned ones), none behind the last token, and is 0 exactly in its first n_given entries.
 *   S6  a WAITING sequence holds no page.
 *   S7  a page that a sequence will write to next (its partial last page) is not published.
 *   S8  pool and prefix index hold their own invariants. */
#ifndef QUIRE_SCHED_SCHED_INT_H
#define QUIRE_SCHED_SCHED_INT_H

#include <stddef.h>
#include "kv/pool.h"
#include "kv/prefix.h"
#include "sched/sched.h"

enum seq_state { SEQ_WAITING, SEQ_RUNNING };
enum seq_heap { HEAP_WAITING, HEAP_DEADLINE, N_HEAPS };     /* which heap: index of pos[] */

struct sched_seq {
    struct sched_seq *prev, *next;      /* list of all sequences */
    void *user;
    enum seq_state state;
    bool preempted;                     /* goes to the front of its priority class */
    bool expired;                       /* was reported past its deadline: takes no part any more */
    bool all_rows;
    int32_t priority;
    int64_t arrival_us, deadline_us, first_scheduled_us;
    uint64_t group, member;             /* break ties of arrival: groups in order of sched_add, then forks */
    uint64_t salt;
    int32_t slots;                      /* of max_num_seqs, itself and the forks it may still make */
    int32_t n_prompt, n_tokens, cap_tokens, n_computed;
    int32_t most_computed;              /* highest n_computed ever: the logits of those rows have been out */
    int32_t n_cached;                   /* -1 before the first admission */
    int32_t n_table, n_given;           /* page table entries; so many at its front are given up */
    int32_t n_published;                /* pages known to the prefix index, as far as chain */
    struct kv_chain chain;
    int32_t pos[N_HEAPS];               /* place in each heap, -1: not in it */
    int32_t wait_pages, wait_plans;     /* see admit() */
    int32_t item;                       /* index into the current plan, -1: not in it */
    kv_block *table;                    /* behind tokens, same allocation */
    int32_t tokens[];
};

struct seq_queue {                      /* binary heap, the first in order at items[0] */
    struct sched_seq **items;
    size_t cap;
    int32_t n;
};

struct sched {
    struct sched_opts opts;
    struct kv_pool *pool;
    struct kv_prefix *prefix;           /* NULL without prefix caching */
    int32_t max_chunk;                  /* most tokens of one sequence in one step */
    int32_t mixed_tokens;               /* see sched_set_mixed_tokens */
    struct sched_seq *all;              /* list */
    int32_t n_seqs, n_parked;           /* parked: see S2 */
    struct sched_seq **running;         /* [max_num_seqs], sorted by precedence */
    int32_t n_running, slots_used;
    struct seq_queue heaps[N_HEAPS];
    /* The plan's arrays. */
    struct sched_item *items;           /* [max_num_seqs] */
    struct sched_copy *copies;          /* [max_num_seqs]: a sequence has at most one partial page */
    struct sched_seq **expired;
    size_t cap_expired;
    int32_t n_items, n_copies, n_expired;
    int32_t *check_refs;                /* [2 * n_blocks], scratch of sched_check */
    uint64_t last_group, last_member;
    uint64_t n_preemptions, prefix_query_tokens, prefix_hit_tokens, n_copies_total;
};

/* sched_queue.c */
/* Whether a has precedence over b: lower priority value, then earlier arrival. */
bool sched_before(const struct sched_seq *a, const struct sched_seq *b);
/* Whether a stands before b in heap h. */
bool sched_heap_before(enum seq_heap h, const struct sched_seq *a, const struct sched_seq *b);
/* Room for n sequences in every array whose length follows their number. */
bool sched_reserve_seqs(struct sched *s, int32_t n);
void sched_heap_push(struct sched *s, enum seq_heap h, struct sched_seq *seq);
void sched_heap_remove(struct sched *s, enum seq_heap h, struct sched_seq *seq);   /* not in it: nothing */
void sched_running_insert(struct sched *s, struct sched_seq *seq);
void sched_running_remove(struct sched *s, struct sched_seq *seq);

/* sched.c */
void sched_seq_drop_pages(struct sched *s, struct sched_seq *seq);
/* A sequence that became WAITING, or has got a new token while WAITING: into the line or parked. */
void sched_wait(struct sched *s, struct sched_seq *seq);

/* Of a WAITING sequence: it takes no part, being past its deadline, or because the logits of its last
 * token have been out already and the caller has not appended the next one. */
static inline bool sched_is_parked(const struct sched_seq *seq)
{
    return seq->expired || seq->most_computed >= seq->n_tokens;
}

static inline int32_t sched_pages_of(const struct sched *s, int64_t n_tokens)
{
    return (int32_t)((n_tokens + s->opts.block_tokens - 1) / s->opts.block_tokens);
}

/* Most pages held at once by a sequence of n_tokens that computes at most chunk of them in a step. */
int32_t sched_peak_pages(const struct sched *s, int64_t n_tokens, int64_t chunk);

#endif
