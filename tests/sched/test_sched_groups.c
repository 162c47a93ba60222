/* Sequences that share pages (groups, forks, beams) and those that drop them behind a window: rules of sched/sched.h by example. */
#include "sched_examples.h"

/* R5 and R6: n slots from admission; forks share; who writes into a shared page copies it, the last does not. */
static void groups(void **state)
{
    (void)state;
    struct sched *s = open_sched(&usual);
    struct sched_seq *x = add(s, (struct sched_request){.arrival_us = 1}, 500, 2);
    step(s);
    struct sched_seq *a = add(s, (struct sched_request){.arrival_us = 2, .n_choices = 8}, 0, 6);
    struct sched_seq *y = add(s, (struct sched_request){.arrival_us = 3}, 600, 2);
    append(s, x, 1);
    struct sched_plan p = step(s);      /* 7 slots are free: the group waits, y behind it */
    assert_int_equal(p.n_items, 1);
    sched_end(s, x);
    p = step(s);
    assert_int_equal(p.n_items, 1);
    expect(&p, 0, a, 0, 6, true);
    sched_release_slots(s, a, 4);       /* three forks remain */
    check(s);
    struct sched_seq *f[4] = {a};
    for (int i = 1; i < 4; i++) {
        f[i] = sched_fork(s, a);
        assert_non_null(f[i]);
        check(s);
    }
    assert_int_equal(stats(s).blocks_held, 2);
    for (int i = 0; i < 4; i++)
        append(s, f[i], 50 + i);
    p = step(s);
    assert_int_equal(p.n_items, 5);
    expect(&p, 4, y, 0, 2, true);
    assert_int_equal(p.n_copies, 3);
    int32_t n, last[4];
    for (int i = 0; i < 4; i++) {
        expect(&p, i, f[i], 6, 1, true);
        last[i] = sched_block_table(f[i], &n)[1];
        for (int j = 0; j < i; j++)
            assert_int_not_equal(last[i], last[j]);
    }
    for (int i = 0; i < 3; i++) {       /* the last one stays with the original */
        assert_int_equal(p.copies[i].src, last[3]);
        assert_int_equal(p.copies[i].dst, last[i]);
    }
    assert_int_equal(stats(s).n_copies, 3);
    assert_int_equal(stats(s).blocks_held, 6);
    sched_release_slots(s, a, 100);     /* it has but its own */
    check(s);
    for (int i = 3; i >= 0; i--)
        sched_end(s, f[i]);
    sched_end(s, y);
    close_sched(s);
}

/* A fork takes no page; when there is none for the copy, the plan preempts. */
static void copy_preempts(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.n_blocks = 3;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){.n_choices = 2, .max_new_tokens = 2}, 0, 6);
    step(s);
    struct sched_seq *b = sched_fork(s, a);
    assert_non_null(b);
    append(s, a, 1);
    append(s, b, 2);
    struct sched_plan p = step(s);
    assert_int_equal(p.n_items, 1);
    expect(&p, 0, a, 6, 1, true);
    assert_int_equal(p.n_copies, 0);    /* alone, it writes in place */
    assert_int_equal(p.n_preempted, 1);
    append(s, a, 1);
    p = step(s);
    expect(&p, 0, a, 7, 1, true);
    sched_end(s, a);
    p = step(s);
    expect(&p, 0, b, 4, 3, true);
    sched_end(s, b);
    close_sched(s);
}

static void fork_without_slot(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.max_num_seqs = 1;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){0}, 0, 9);
    step(s);
    struct sched_seq *b = sched_fork(s, a);
    assert_non_null(b);
    check(s);
    assert_int_equal(stats(s).n_waiting, 1);
    struct sched_plan p = step(s);
    assert_int_equal(p.n_items, 0);     /* its last logits are known: it waits for its token */
    append(s, b, 5);
    sched_end(s, a);
    p = step(s);
    expect(&p, 0, b, 8, 2, true);
    sched_end(s, b);
    close_sched(s);
}

/* Beams: both must be ready before either goes on, and there are pages for only one. */
static void beams_that_do_not_fit_together(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.n_blocks = 7;     /* 24 positions: 3 shared pages, then 3 of its own for each */
    struct sched *s = open_sched(&o);
    struct sched_seq *beam[2] = {add(s, (struct sched_request){.n_choices = 2, .max_new_tokens = 12}, 0, 12)};
    step(s);
    beam[1] = sched_fork(s, beam[0]);
    int n_steps = 0;
    for (int32_t len = 12; len < 24; len++) {
        append(s, beam[0], 100);
        append(s, beam[1], 200);
        for (bool ready[2] = {false}; !ready[0] || !ready[1];) {
            struct sched_plan p = step(s);
            assert_true(p.n_items > 0);
            assert_true(n_steps++ < 100);
            for (int i = 0; i < p.n_items; i++) {
                bool *r = &ready[p.items[i].seq == beam[1]];
                assert_false(*r);       /* nothing is computed twice for one token */
                *r = p.items[i].last;
            }
        }
    }
    assert_true(stats(s).n_preemptions > 0);
    /* A preempted beam can be the parent of a fork. */
    struct sched_seq *child = sched_fork(s, sched_n_computed(beam[0]) == 0 ? beam[0] : beam[1]);
    assert_non_null(child);
    check(s);
    sched_end(s, child);
    sched_end(s, beam[0]);
    sched_end(s, beam[1]);
    close_sched(s);
}

/* R7 */
static void window(void **state)
{
    (void)state;
    struct sched_opts o = usual;
    o.window = 6;
    struct sched *s = open_sched(&o);
    struct sched_seq *a = add(s, (struct sched_request){0}, 0, 16);
    step(s);
    int32_t n;
    const int32_t *table = sched_block_table(a, &n);
    assert_int_equal(n, 4);
    /* Row 16 sees 11 .. 16: pages 0 and 1 are behind it. */
    assert_true(table[0] == 0 && table[1] == 0 && table[2] != 0 && table[3] != 0);
    assert_int_equal(stats(s).blocks_held, 2);
    assert_int_equal(stats(s).blocks_cached, 2);
    append(s, a, 1);
    step(s);
    assert_true(table[2] == 0 && table[3] != 0);        /* row 17 sees 12 on */
    /* A second one finds the whole chain, but keeps only what it sees. */
    struct sched_seq *b = add(s, (struct sched_request){0}, 0, 17);
    struct sched_plan p = step(s);
    expect(&p, 0, b, 16, 1, true);
    assert_int_equal(sched_block_table(b, &n)[1], 0);
    assert_int_equal(sched_block_table(b, &n)[3], table[3]);
    struct sched_seq *c = sched_fork(s, b);
    append(s, b, 1);
    append(s, c, 2);
    p = step(s);
    assert_int_equal(p.n_copies, 1);
    sched_end(s, a);
    sched_end(s, b);
    sched_end(s, c);
    close_sched(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups),
        cmocka_unit_test(copy_preempts),
        cmocka_unit_test(fork_without_slot),
        cmocka_unit_test(beams_that_do_not_fit_together),
        cmocka_unit_test(window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
