/* What the programs that test the scheduler by example share: a usual set of options, and steps that check
 * the invariants as they go. */
#ifndef QUIRE_TESTS_SCHED_EXAMPLES_H
#define QUIRE_TESTS_SCHED_EXAMPLES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "sched/sched.h"

static const struct sched_opts usual = {
    .n_blocks = 65, .block_tokens = 4, .max_num_seqs = 8, .max_batched_tokens = 32, .max_model_len = 256, .max_logit_rows = 16,
    .prefix_caching = true,
};

static inline struct sched *open_sched(const struct sched_opts *o)
{
    struct sched *s;
    struct err e = {0};
    if (!sched_open(&s, o, &e))
        fail_msg("%s", e.msg);
    return s;
}

/* n tokens first, first + 1, ...: different `first` far apart share nothing. */
static inline struct sched_seq *try_add(struct sched *s, struct sched_request r, int32_t first, int32_t n, struct err *e)
{
    int32_t tokens[512];
    struct sched_seq *seq;
    for (int32_t i = 0; i < n; i++)
        tokens[i] = first + i;
    r.tokens = tokens;
    r.n_tokens = n;
    if (r.n_choices == 0)
        r.n_choices = 1;
    bool ok = sched_add(s, &r, &seq, e);
    assert_int_equal(ok, seq != NULL);
    return seq;
}

static inline struct sched_seq *add(struct sched *s, struct sched_request r, int32_t first, int32_t n)
{
    struct err e = {0};
    if (r.max_new_tokens == 0)
        r.max_new_tokens = 100;
    struct sched_seq *seq = try_add(s, r, first, n, &e);
    if (!seq)
        fail_msg("%s", e.msg);
    return seq;
}

static inline void check(const struct sched *s)
{
    struct err e = {0};
    if (!sched_check(s, &e))
        fail_msg("%s", e.msg);
}

static inline struct sched_plan plan_at(struct sched *s, int64_t now_us)
{
    struct sched_plan p;
    sched_plan(s, now_us, &p);
    check(s);
    return p;
}

static inline struct sched_plan step(struct sched *s)
{
    struct sched_plan p = plan_at(s, 1000);
    sched_commit(s, &p);
    check(s);
    return p;
}

static inline void append(struct sched *s, struct sched_seq *seq, int32_t token)
{
    assert_true(sched_append(s, seq, token));
}

static inline void expect(const struct sched_plan *p, int i, const struct sched_seq *seq, int32_t start, int32_t n_new, bool last)
{
    assert_true(i < p->n_items);
    assert_ptr_equal(p->items[i].seq, seq);
    assert_int_equal(p->items[i].start, start);
    assert_int_equal(p->items[i].n_new, n_new);
    assert_int_equal(p->items[i].last, last);
}

static inline struct sched_stats stats(const struct sched *s)
{
    struct sched_stats st;
    sched_stats(s, &st);
    return st;
}

/* Everything ended: no page may be lost. */
static inline void close_sched(struct sched *s)
{
    struct sched_stats st = stats(s);
    assert_int_equal(st.n_running + st.n_waiting, 0);
    assert_int_equal(st.blocks_held, 0);
    assert_int_equal(st.blocks_free + st.blocks_cached, st.blocks_total);
    sched_close(&s);
    assert_null(s);
}

#endif
