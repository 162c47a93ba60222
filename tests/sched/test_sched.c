/* Each rule of sched/sched.h by example.  Groups, beams and windows are in test_sched_groups.c, random workloads in
 * test_sched_random.c. */
#include "sched_examples.h"

#include <stdlib.h>
#include "base/clock.h"
#include "base/mem.h"

static void opening(void **state)
{
    (void)state;
    struct sched *s;
    struct err e;
    struct sched_opts o;
#define REFUSED(field, value)                           \
    o = usual;                                          \
    o.field = value;                                    \
    assert_false(sched_open(&s, &o, &e));               \
    assert_int_equal(e.code, ERR_INVALID);              \
    assert_null(s)
    REFUSED(n_blocks, 1);
    REFUSED(block_tokens, 0);
    REFUSED(max_num_seqs, 0);
    REFUSED(max_batched_tokens, 0);
    REFUSED(max_model_len, 0);
    REFUSED(max_logit_rows, 7);
    REFUSED(window, -1);
    REFUSED(long_prefill_threshold, -1);
#undef REFUSED
    for (long n = 1;; n++) {
        mem_fault_after(n);
        bool ok = sched_open(&s, &usual, &e), fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        if (ok)
            break;
        assert_null(s);
        assert_int_equal(e.code, ERR_NOMEM);
    }
    struct sched_plan p = step(s);
    assert_int_equal(p.n_items, 0);
    close_sched(s);
    s = NULL;
    sched_close(&s);
}

/* R1: oldest first, the budget, chunks, and decodes beside a prefill. */
static void budget(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    struct sched_seq *a = add(s, (struct sched_request){.arrival_us = 1}, 0, 10);
    struct sched_seq *b = add(s, (struct sched_request){.arrival_us = 2}, 1000, 60);
    struct sched_seq *c = add(s, (struct sched_request){.arrival_us = 3}, 2000, 5);
    struct sched_plan p = step(s);
    assert_int_equal(p.n_items, 2);
    expect(&p, 0, a, 0, 10, true);
    expect(&p, 1, b, 0, 22, false);
    assert_int_equal(p.n_tokens, 32);
    assert_int_equal(p.n_admitted, 2);
    append(s, a, 7);
    p = step(s);
    assert_int_equal(p.n_items, 2);
    expect(&p, 0, a, 10, 1, true);
    expect(&p, 1, b, 22, 31, false);
    append(s, a, 8);
    p = step(s);
    expect(&p, 0, a, 11, 1, true);
    expect(&p, 1, b, 53, 7, true);
    expect(&p, 2, c, 0, 5, true);
    assert_int_equal(p.n_items, 3);
    assert_int_equal(sched_n_computed(b), 60);
    p = step(s);
    assert_int_equal(p.n_items, 0);     /* all wait for their token */
    sched_end(s, a);
    sched_end(s, b);
    sched_end(s, c);
    close_sched(s);
}

/* An old prefill leaves a token to each decode behind it. */
static void decodes_go_on(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.max_batched_tokens = 8;
    o.policy = SCHED_PRIORITY;
    struct sched *s = open_sched(&o);
    struct sched_seq *b = add(s, (struct sched_request){.arrival_us = 5, .priority = 2}, 0, 4);
    struct sched_seq *c = add(s, (struct sched_request){.arrival_us = 6, .priority = 2}, 1000, 4);
    step(s);
    struct sched_seq *a = add(s, (struct sched_request){.arrival_us = 9, .priority = 1}, 2000, 100);
    append(s, b, 1);
    append(s, c, 1);
    struct sched_plan p = step(s);
    expect(&p, 0, b, 4, 1, true);
    expect(&p, 1, c, 4, 1, true);
    expect(&p, 2, a, 0, 6, false);
    append(s, b, 1);
    append(s, c, 1);
    p = step(s);
    assert_int_equal(p.n_items, 3);
    expect(&p, 0, a, 6, 6, false);
    expect(&p, 1, b, 5, 1, true);
    expect(&p, 2, c, 5, 1, true);
    sched_close(&s);    /* ends what is left */
}

/* While somebody streams, all prompts together take mixed_tokens of a step; alone they take the whole of it. */
static void prompts_beside_streams(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    sched_set_mixed_tokens(s, 5);
    struct sched_seq *a = add(s, (struct sched_request){0}, 0, 12), *b, *c;
    struct sched_plan p = step(s);
    expect(&p, 0, a, 0, 12, true);
    b = add(s, (struct sched_request){.arrival_us = 1}, 1000, 8);
    c = add(s, (struct sched_request){.arrival_us = 2}, 2000, 6);
    append(s, a, 7);
    p = step(s);
    assert_int_equal(p.n_items, 2);
    expect(&p, 0, a, 12, 1, true);
    expect(&p, 1, b, 0, 5, false);
    append(s, a, 7);
    p = step(s);
    assert_int_equal(p.n_items, 3);
    expect(&p, 1, b, 5, 3, true);
    expect(&p, 2, c, 0, 2, false);
    p = step(s);        /* a and b wait for their tokens */
    assert_int_equal(p.n_items, 1);
    expect(&p, 0, c, 2, 4, true);
    sched_close(&s);
}

/* Streams behind prompts that get nothing any more go on. */
static void streams_behind_prompts(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.policy = SCHED_PRIORITY;
    o.long_prefill_threshold = 6;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.priority = 2}, 0, 4);
    step(s);
    struct sched_seq *b = add(s, (struct sched_request){.priority = 1}, 1000, 30);
    struct sched_seq *c = add(s, (struct sched_request){.arrival_us = 1, .priority = 1}, 2000, 30);
    step(s);            /* both begin */
    sched_set_mixed_tokens(s, 5);
    append(s, a, 1);
    struct sched_plan p = step(s);
    assert_int_equal(p.n_items, 2);
    expect(&p, 0, b, 6, 5, false);
    expect(&p, 1, a, 4, 1, true);
    assert_int_equal(sched_n_computed(c), 6);
    sched_close(&s);
}

static void long_prefill(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.long_prefill_threshold = 6;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){0}, 0, 40);
    struct sched_seq *b = add(s, (struct sched_request){0}, 1000, 5);
    struct sched_plan p = step(s);
    expect(&p, 0, a, 0, 6, false);
    expect(&p, 1, b, 0, 5, true);
    sched_close(&s);
}

/* R1: (priority, arrival) order; FCFS ignores priority; nobody overtakes the head of the line. */
static void order(void **state)
{
    (void)state;
    for (int policy = SCHED_FCFS; policy <= SCHED_PRIORITY; policy++) {
        struct sched_opts o = usual;
        o.policy = (enum sched_policy)policy;
        struct sched *s = open_sched(&o);
        struct sched_seq *a = add(s, (struct sched_request){.arrival_us = 2, .priority = 5}, 0, 3);
        struct sched_seq *b = add(s, (struct sched_request){.arrival_us = 3, .priority = -1}, 100, 3);
        struct sched_seq *c = add(s, (struct sched_request){.arrival_us = 1, .priority = 5}, 200, 3);
        struct sched_seq *d = add(s, (struct sched_request){.arrival_us = 1, .priority = 5}, 300, 3);
        struct sched_seq *fcfs[] = {c, d, a, b}, *prio[] = {b, c, d, a};
        struct sched_plan p = step(s);
        assert_int_equal(p.n_items, 4);
        for (int i = 0; i < 4; i++)
            expect(&p, i, policy == SCHED_FCFS ? fcfs[i] : prio[i], 0, 3, true);
        sched_close(&s);
    }
}

static void head_of_line(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.n_blocks = 11;    /* 40 positions */
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.max_new_tokens = 4}, 0, 24);
    step(s);
    struct sched_seq *b = add(s, (struct sched_request){.max_new_tokens = 4}, 100, 20);
    struct sched_seq *c = add(s, (struct sched_request){.max_new_tokens = 4}, 200, 2);
    append(s, a, 1);
    struct sched_plan p = step(s);
    expect(&p, 0, a, 24, 1, true);
    assert_int_equal(p.n_items, 1);     /* b needs 5 of 3 pages; c would fit but does not overtake */
    sched_end(s, a);
    p = step(s);
    assert_int_equal(p.n_items, 2);
    expect(&p, 0, b, 0, 20, true);
    expect(&p, 1, c, 0, 2, true);
    sched_end(s, b);
    sched_end(s, c);
    close_sched(s);
}

/* Pages for the chunk are there, but not for the rest of the prompt beside those that run. */
static void admission_keeps_promises(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.n_blocks = 21;    /* 80 positions */
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.max_new_tokens = 4}, 0, 60);
    struct sched_plan p = step(s);
    expect(&p, 0, a, 0, 32, false);
    struct sched_seq *b = add(s, (struct sched_request){.max_new_tokens = 4}, 100, 24);
    p = step(s);
    expect(&p, 0, a, 32, 28, true);
    assert_int_equal(p.n_items, 1);     /* 4 tokens and 5 pages are left, b needs 6 */
    append(s, a, 1);
    sched_end(s, b);
    b = add(s, (struct sched_request){.max_new_tokens = 4}, 100, 16);
    p = step(s);
    expect(&p, 1, b, 0, 16, true);
    sched_end(s, a);
    sched_end(s, b);
    close_sched(s);
}

/* It does not fit until another has published the prefix that both have: found some plans later. */
static void admission_by_a_growing_prefix(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.n_blocks = 14;
    o.long_prefill_threshold = 4;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.max_new_tokens = 24}, 0, 24);
    step(s);
    struct sched_seq *b = add(s, (struct sched_request){.max_new_tokens = 2}, 0, 36);
    int waited = 0;
    while (sched_first_scheduled_us(b) == 0) {
        struct sched_plan p = step(s);
        if (p.items[0].last)
            append(s, a, 1);
        assert_true(waited++ < 22);
    }
    assert_true(waited > 5);
    assert_int_equal(sched_n_cached(b), 24);
    assert_int_equal(stats(s).n_preemptions, 0);
    sched_end(s, a);
    sched_end(s, b);
    close_sched(s);
}

static void max_num_seqs(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    struct sched_seq *all[10];
    for (int i = 0; i < 10; i++)
        all[i] = add(s, (struct sched_request){.arrival_us = i}, i * 100, 2);
    struct sched_plan p = step(s);
    assert_int_equal(p.n_items, 8);
    assert_int_equal(stats(s).n_waiting, 2);
    for (int i = 0; i < 8; i++)
        append(s, all[i], 1);
    sched_end(s, all[3]);
    p = step(s);
    assert_int_equal(p.n_items, 8);
    expect(&p, 7, all[8], 0, 2, true);
    for (int i = 0; i < 10; i++)
        if (i != 3)
            sched_end(s, all[i]);
    close_sched(s);
}

/* R2: whole pages, never all tokens, only under the same salt; generated tokens are cached too. */
static void prefix(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    struct sched_seq *a = add(s, (struct sched_request){.salt = 1}, 0, 12);
    step(s);
    for (int i = 0; i < 8; i++) {       /* 12 .. 19 follow */
        append(s, a, 12 + i);
        step(s);
    }
    int32_t n, n_table;
    const int32_t *table = sched_block_table(a, &n_table);
    assert_int_equal(n_table, 5);
    struct sched_seq *b = add(s, (struct sched_request){.salt = 1}, 0, 12);
    struct sched_seq *c = add(s, (struct sched_request){.salt = 1}, 0, 30);
    struct sched_seq *d = add(s, (struct sched_request){.salt = 2}, 0, 5);
    struct sched_plan p = step(s);
    expect(&p, 0, b, 8, 4, true);       /* not the third page: a token must be computed */
    expect(&p, 1, c, 20, 10, true);
    expect(&p, 2, d, 0, 5, true);
    assert_memory_equal(sched_block_table(b, &n), table, 2 * sizeof *table);
    assert_memory_equal(sched_block_table(c, &n), table, 5 * sizeof *table);
    assert_int_equal(sched_n_cached(b), 8);
    assert_int_equal(sched_n_cached(c), 20);
    assert_int_equal(sched_n_cached(d), 0);
    assert_int_equal(stats(s).prefix_query_tokens, 12 + 12 + 30 + 5);
    assert_int_equal(stats(s).prefix_hit_tokens, 28);
    /* Still there when all have ended; forgotten by a reset, which says whether pages were in use. */
    sched_end(s, a);
    sched_end(s, c);
    sched_end(s, d);
    assert_false(sched_reset_prefix_cache(s));
    check(s);
    assert_int_equal(stats(s).blocks_cached, 0);
    sched_end(s, b);
    assert_true(stats(s).blocks_cached > 0);
    a = add(s, (struct sched_request){.salt = 1}, 0, 30);
    p = step(s);
    expect(&p, 0, a, 8, 22, true);      /* b's third page was a copy of a's and was not kept */
    sched_end(s, a);
    assert_true(sched_reset_prefix_cache(s));
    assert_int_equal(stats(s).blocks_free, stats(s).blocks_total);
    close_sched(s);
}

static void no_caching(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.prefix_caching = false;
    struct sched *s = open_sched(&o);
    for (int i = 0; i < 2; i++) {
        struct sched_seq *a = add(s, (struct sched_request){0}, 0, 12);
        struct sched_plan p = step(s);
        expect(&p, 0, a, 0, 12, true);
        sched_end(s, a);
        assert_int_equal(stats(s).blocks_free, stats(s).blocks_total);
    }
    close_sched(s);
}

/* R3: cached pages first, then the latest of the lowest class; it comes back before its class. */
static void preemption(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.n_blocks = 13;    /* 48 positions */
    o.policy = SCHED_PRIORITY;
    struct sched *s = open_sched(&o);
    struct sched_seq *old = add(s, (struct sched_request){.max_new_tokens = 1}, 900, 8);
    step(s);
    sched_end(s, old);
    assert_int_equal(stats(s).blocks_cached, 2);
    struct sched_seq *a = add(s, (struct sched_request){.arrival_us = 1, .priority = 1, .max_new_tokens = 20}, 0, 16);
    struct sched_seq *b = add(s, (struct sched_request){.arrival_us = 3, .priority = 0, .max_new_tokens = 20}, 100, 16);
    step(s);
    struct sched_seq *c = add(s, (struct sched_request){.arrival_us = 2, .priority = 1, .max_new_tokens = 20}, 200, 8);
    append(s, a, 1);
    append(s, b, 1);
    struct sched_plan p = step(s);      /* 5 + 5 + 2 pages: the cached ones had to go */
    assert_int_equal(p.n_items, 3);
    assert_int_equal(stats(s).n_evictions, 2);
    assert_int_equal(stats(s).blocks_held, 12);
    struct sched_seq *d = add(s, (struct sched_request){.arrival_us = 0, .priority = 1, .max_new_tokens = 20}, 300, 1);
    for (int i = 0; i < 3; i++) {
        append(s, a, 1);
        append(s, b, 1);
        if (i == 0)
            append(s, c, 1);
        p = step(s);
        if (i == 0) {   /* c needs a third page and is the last itself */
            assert_int_equal(p.n_preempted, 1);
            assert_int_equal(p.n_admitted, 0);
            assert_int_equal(p.n_items, 2);
            assert_int_equal(sched_n_computed(c), 0);
        }
    }
    /* c was preempted and so stands before d, which came earlier; c's two full pages are still cached. */
    assert_int_equal(stats(s).n_preemptions, 1);
    assert_int_equal(p.n_items, 2);
    assert_int_equal(stats(s).n_waiting, 2);
    sched_end(s, b);
    p = step(s);
    expect(&p, 0, c, 8, 1, true);
    expect(&p, 1, d, 0, 1, true);
    assert_int_equal(sched_n_cached(c), 0);     /* of the first admission */
    sched_end(s, a);
    sched_end(s, c);
    sched_end(s, d);
    close_sched(s);
}

/* R4, with groups, windows and whole pages. */
static void refusals(void **state)
{
    (void)state;
    struct err e;
    struct sched_opts o = usual;
    o.n_blocks = 6;     /* 20 positions */
    struct sched *s = open_sched(&o);
    assert_null(try_add(s, (struct sched_request){.max_new_tokens = 1}, 0, 20, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_null(try_add(s, (struct sched_request){.max_new_tokens = INT32_MAX}, 0, 20, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_null(try_add(s, (struct sched_request){.n_choices = 9}, 0, 1, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_null(try_add(s, (struct sched_request){.max_new_tokens = -1}, 0, 1, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(try_add(s, (struct sched_request){.n_choices = -1}, 0, 1, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(try_add(s, (struct sched_request){0}, 0, 0, &e));
    assert_int_equal(e.code, ERR_INVALID);
    struct sched_seq *a = try_add(s, (struct sched_request){.max_new_tokens = 1, .n_choices = 8}, 0, 19, &e);
    assert_non_null(a);
    sched_end(s, a);
    close_sched(s);

    /* A window of 10 spans at most 4 pages of 4 (1 + 4 + 4 + 1). */
    o.window = 10;
    for (o.n_blocks = 4; o.n_blocks <= 5; o.n_blocks++) {
        s = open_sched(&o);
        a = try_add(s, (struct sched_request){.max_new_tokens = 200}, 0, 50, &e);
        assert_int_equal(a != NULL, o.n_blocks == 5);
        while (a && sched_n_computed(a) < 250) {
            struct sched_plan p = step(s);
            assert_int_equal(p.n_items, 1);
            if (p.items[0].last)
                sched_append(s, a, 1);
        }
        if (a)
            sched_end(s, a);
        close_sched(s);
    }
}

/* R8: rows of logits; the cache is not read for what has not been seen. */
static void rows(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.max_num_seqs = o.max_logit_rows = 8;
    o.n_blocks = 10;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.max_new_tokens = 4}, 0, 14);
    struct sched_plan p = step(s);
    append(s, a, 1);
    struct sched_seq *b = add(s, (struct sched_request){.all_rows = true, .max_new_tokens = 4}, 0, 14);
    p = step(s);
    expect(&p, 0, a, 14, 1, true);
    expect(&p, 1, b, 0, 7, false);
    append(s, a, 1);
    struct sched_seq *c = add(s, (struct sched_request){.max_new_tokens = 4}, 300, 2);
    p = step(s);
    expect(&p, 1, b, 7, 7, true);
    assert_int_equal(p.n_items, 2);     /* no row is left for c */
    append(s, b, 1);
    append(s, a, 1);
    p = step(s);        /* a takes its fifth page, b has four, nothing is left */
    expect(&p, 0, a, 16, 1, true);
    expect(&p, 1, b, 14, 1, true);
    append(s, b, 2);
    append(s, b, 3);
    p = step(s);        /* b needs a fifth page: it makes do with the rest of its fourth */
    expect(&p, 0, b, 15, 1, false);
    assert_int_equal(p.n_items, 1);
    append(s, a, 1);
    p = step(s);
    assert_int_equal(p.n_preempted, 1);
    assert_int_equal(sched_n_computed(b), 0);
    sched_end(s, a);
    p = step(s);        /* what it computed before may come from the cache: those rows have been seen */
    expect(&p, 0, b, 16, 1, true);
    expect(&p, 1, c, 0, 2, true);
    sched_end(s, b);
    sched_end(s, c);
    close_sched(s);
}

static void deadlines(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.max_num_seqs = 2;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.deadline_us = 100}, 0, 5);
    struct sched_seq *b = add(s, (struct sched_request){.deadline_us = 300}, 100, 5);
    struct sched_seq *c = add(s, (struct sched_request){.deadline_us = 100}, 200, 5);
    struct sched_seq *d = add(s, (struct sched_request){.deadline_us = 0}, 300, 5);
    struct sched_plan p = plan_at(s, 99);
    assert_int_equal(p.n_expired, 0);
    assert_int_equal(p.n_items, 2);
    assert_int_equal(sched_first_scheduled_us(a), 99);
    assert_int_equal(sched_first_scheduled_us(c), 0);
    sched_commit(s, &p);
    append(s, a, 1);
    append(s, b, 1);
    for (int i = 0; i < 2; i++) {       /* as long as they are not ended */
        p = plan_at(s, 100);
        assert_int_equal(p.n_expired, 2);
        assert_true((p.expired[0] == a && p.expired[1] == c) || (p.expired[0] == c && p.expired[1] == a));
        assert_int_equal(p.n_items, 1);
        expect(&p, 0, b, 5, 1, true);
    }
    append(s, a, 1);
    append(s, c, 1);
    assert_int_equal(stats(s).n_waiting, 2);
    sched_end(s, a);
    sched_end(s, c);
    sched_commit(s, &p);
    p = plan_at(s, 101);
    assert_int_equal(p.n_expired, 0);
    expect(&p, 0, d, 0, 5, true);
    sched_commit(s, &p);
    p = plan_at(s, 1000);
    assert_int_equal(p.n_expired, 1);
    assert_ptr_equal(p.expired[0], b);
    sched_end(s, b);
    sched_end(s, d);
    close_sched(s);
}

/* Ending in every state, also between plan and commit; a plan that is given up is planned again. */
static void ending(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    struct sched_seq *a = add(s, (struct sched_request){0}, 0, 20);
    struct sched_seq *b = add(s, (struct sched_request){0}, 100, 9);
    struct sched_seq *c = add(s, (struct sched_request){0}, 200, 9);
    struct sched_plan p = plan_at(s, 1);
    assert_int_equal(p.n_items, 3);
    sched_end(s, b);
    check(s);
    assert_null(p.items[1].seq);
    sched_commit(s, &p);
    check(s);
    assert_int_equal(sched_n_computed(a), 20);
    assert_int_equal(sched_n_computed(c), 3);
    p = plan_at(s, 1);
    expect(&p, 0, c, 3, 6, true);
    p = plan_at(s, 1);          /* the step failed */
    expect(&p, 0, c, 3, 6, true);
    assert_null(sched_fork(s, c));      /* not while it is planned */
    sched_commit(s, &p);
    struct sched_seq *waiting = add(s, (struct sched_request){0}, 300, 9);
    sched_end(s, waiting);
    sched_end(s, a);
    sched_end(s, c);
    close_sched(s);
}

static void appending(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    struct sched_seq *a = add(s, (struct sched_request){.max_new_tokens = 2, .user = &s}, 7, 3);
    int32_t n;
    assert_ptr_equal(sched_user(a), &s);
    sched_set_user(a, NULL);
    assert_null(sched_user(a));
    append(s, a, 1);            /* also before it was ever planned */
    struct sched_plan p = step(s);
    expect(&p, 0, a, 0, 4, true);
    append(s, a, 2);
    assert_false(sched_append(s, a, 3));
    const int32_t want[5] = {7, 8, 9, 1, 2};
    assert_memory_equal(sched_tokens(a, &n), want, sizeof want);
    assert_int_equal(n, 5);
    sched_end(s, a);
    close_sched(s);
}

static void out_of_memory(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    int32_t n_failed = 0;
    for (int i = 0; i < 40; i++)
        for (long n = 1;; n++) {
            struct err e = {0};
            mem_fault_after(n);
            struct sched_seq *a = try_add(s, (struct sched_request){.max_new_tokens = 2}, i * 50, 12, &e);
            bool fired = mem_fault_fired();
            mem_fault_after(0);
            check(s);
            assert_int_equal(a == NULL, fired);
            if (a)
                break;
            n_failed++;
            assert_int_equal(e.code, ERR_NOMEM);
        }
    assert_true(n_failed >= 40);
    struct sched_plan p = step(s);
    struct sched_seq *a = p.items[0].seq;
    mem_fault_after(1);
    assert_null(sched_fork(s, a));
    mem_fault_after(0);
    check(s);
    assert_non_null(sched_fork(s, a));
    check(s);
    sched_close(&s);
}

/* The line is cheap: 100,000 requests come, one at a time is admitted, half are cancelled where they stand. */
static void long_line(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct sched_opts o = usual;
    o.max_num_seqs = 1;
    struct sched *s = open_sched(&o);
    struct sched_seq **all = malloc(N * sizeof(struct sched_seq *));
    int64_t t0 = clock_now_us();
    for (int i = 0; i < N; i++)
        all[i] = add(s, (struct sched_request){.arrival_us = i * 7919 % N, .deadline_us = 10000 + i, .user = &all[i]}, i, 6);
    int64_t t1 = clock_now_us();
    for (int i = 0; i < 1000; i++) {
        struct sched_plan p;
        sched_plan(s, 1, &p);
        assert_int_equal(p.n_items, 1);
        sched_commit(s, &p);
        *(struct sched_seq **)sched_user(p.items[0].seq) = NULL;
        sched_end(s, p.items[0].seq);
    }
    int64_t t2 = clock_now_us();
    check(s);
    for (int i = 0; i < N; i++)
        if (all[i])
            sched_end(s, all[i]);
    int64_t t3 = clock_now_us();
    print_message("%d waiting: %.2f us an add, %.2f us a step, %.2f us an end\n", N, (double)(t1 - t0) / N,
                  (double)(t2 - t1) / 1000, (double)(t3 - t2) / N);
    assert_true(t3 - t0 < 20 * 1000000);        /* quadratic work would take minutes */
    free(all);
    close_sched(s);
}

/* What a step of many streams costs; printed, and bounded only against blunders. */
static void wide_batch(void **state)
{
    (void)state;
    enum { N = 256, STEPS = 500 };
    struct sched_opts o = {.n_blocks = 64 * N, .block_tokens = 32, .max_num_seqs = N, .max_batched_tokens = 2048,
                           .max_model_len = 2048, .max_logit_rows = N, .prefix_caching = true};
    struct sched *s = open_sched(&o);
    struct sched_plan p = {0};
    for (int i = 0; i < N; i++)
        add(s, (struct sched_request){.max_new_tokens = 1000}, i, 500);
    while (p.n_items < N || p.n_tokens > N) {
        sched_plan(s, 1, &p);
        sched_commit(s, &p);
        for (int i = 0; i < p.n_items; i++)
            if (p.items[i].last)
                append(s, p.items[i].seq, 1);
    }
    int64_t t0 = clock_now_us();
    for (int step_no = 0; step_no < STEPS; step_no++) {
        sched_plan(s, 1, &p);
        sched_commit(s, &p);
        assert_int_equal(p.n_items, N);
        for (int i = 0; i < N; i++)
            append(s, p.items[i].seq, step_no);
    }
    double us = (double)(clock_now_us() - t0) / STEPS;
    print_message("%d streams: %.1f us a step\n", N, us);
    assert_true(us < 20000);
    check(s);
    sched_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening),
        cmocka_unit_test(budget),
        cmocka_unit_test(decodes_go_on),
        cmocka_unit_test(prompts_beside_streams), cmocka_unit_test(streams_behind_prompts), cmocka_unit_test(long_prefill),
        cmocka_unit_test(order),
        cmocka_unit_test(head_of_line),
        cmocka_unit_test(admission_keeps_promises),
        cmocka_unit_test(admission_by_a_growing_prefix),
        cmocka_unit_test(max_num_seqs),
        cmocka_unit_test(prefix),
        cmocka_unit_test(no_caching),
        cmocka_unit_test(preemption),
        cmocka_unit_test(refusals),
        cmocka_unit_test(rows),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(ending),
        cmocka_unit_test(appending),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(long_line),
        cmocka_unit_test(wide_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
