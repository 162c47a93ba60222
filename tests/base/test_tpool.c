#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/tpool.h"

static struct tpool *open_team(int n, int spin_us, bool pin)
{
    struct err e = {0};
    struct tpool *tp;
    struct tpool_opts o = {.n_threads = n, .spin_us = spin_us, .pin = pin};
    if (!tpool_open(&tp, &o, &e))
        fail_msg("%s", e.msg);
    return tp;
}

struct work {
    struct tpool *tp;
    int n_members;
    int seen[64];           /* plain: each member writes its own, the leader reads after the run */
    int64_t cells[256];     /* plain: ordered by barriers */
    unsigned char taken[5000];
    atomic_int bad;
};

static void mark(void *arg, int member, int n)
{
    struct work *w = arg;
    w->seen[member]++;
    if (member == 0)
        w->n_members = n;
}

static void every_member_once(void **state)
{
    (void)state;
    for (int n = 1; n <= 9; n += 2)
        for (int spin = -1; spin <= 20; spin += 7) {
            static struct work w;
            memset(&w, 0, sizeof w);
            struct tpool *tp = open_team(n, spin, false);
            assert_int_equal(tpool_size(tp), n);
            for (int run = 1; run <= 50; run++) {
                tpool_run(tp, mark, &w);
                assert_int_equal(w.n_members, n);
                for (int i = 0; i < 64; i++)
                    assert_int_equal(w.seen[i], i < n ? run : 0);
            }
            tpool_close(&tp);
            assert_null(tp);
            tpool_close(&tp);
        }
}

static void take_items(void *arg, int member, int n)
{
    struct work *w = arg;
    (void)member;
    (void)n;
    for (int round = 0; round < 3; round++) {
        int64_t last = -1;
        for (int64_t i; (i = tpool_next(w->tp)) < (int64_t)sizeof w->taken; last = i) {
            if (i <= last)
                w->bad++;
            w->taken[i]++; /* plain: nobody else may have this item */
        }
        tpool_barrier_reset(w->tp, member);
    }
}

static void items_once_each(void **state)
{
    (void)state;
    static struct work w;
    for (int n = 1; n <= 8; n *= 2) {
        memset(&w, 0, sizeof w);
        w.tp = open_team(n, -1, false);
        for (int run = 1; run <= 5; run++) {
            tpool_run(w.tp, take_items, &w);
            for (size_t i = 0; i < sizeof w.taken; i++)
                if (w.taken[i] != 3 * run)
                    fail_msg("item %zu was given %d times in %d rounds", i, w.taken[i], 3 * run);
        }
        assert_int_equal(w.bad, 0);
        tpool_close(&w.tp);
    }
}

/* Each step reads what the neighbour wrote in the step before. */
static void pass_around(void *arg, int member, int n)
{
    struct work *w = arg;
    for (int step = 0; step < 200; step++) {
        int64_t from = w->cells[(member + 1) % n];
        tpool_barrier(w->tp, member);
        w->cells[member] = from + 1;
        tpool_barrier(w->tp, member);
        if (w->cells[(member + 1) % n] != step + 1)
            w->bad++;
        tpool_barrier(w->tp, member);
    }
}

static void barriers(void **state)
{
    (void)state;
    static struct work w;
    for (int n = 1; n <= 8; n *= 2)
        for (int spin = 0; spin <= 30; spin += 30) {
            memset(&w, 0, sizeof w);
            w.tp = open_team(n, spin, false);
            tpool_run(w.tp, pass_around, &w);
            assert_int_equal(w.bad, 0);
            for (int i = 0; i < n; i++)
                assert_true(w.cells[i] == 200);
            tpool_close(&w.tp);
        }
}

static void *lead(void *arg)
{
    struct work *w = arg;
    for (int i = 0; i < 20; i++)
        tpool_run(w->tp, mark, w);
    return NULL;
}

/* Another thread may lead later, and is bound to CPU 0 of the team in its turn. */
static void other_leader(void **state)
{
    (void)state;
    static struct work w;
    memset(&w, 0, sizeof w);
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof before, &before);
    w.tp = open_team(2, -1, true);
    tpool_run(w.tp, mark, &w);
    pthread_t t;
    pthread_create(&t, NULL, lead, &w);
    pthread_join(t, NULL);
    tpool_run(w.tp, mark, &w);
    sched_getaffinity(0, sizeof after, &after);
    assert_int_equal(CPU_COUNT(&after), CPU_COUNT(&before) > 1 ? 1 : CPU_COUNT(&before));
    assert_int_equal(w.seen[0], 22);
    assert_int_equal(w.seen[1], 22);
    tpool_close(&w.tp);
    sched_getaffinity(0, sizeof after, &after);
    assert_true(CPU_EQUAL(&before, &after));
}

struct place { cpu_set_t set[64]; };

static void where(void *arg, int member, int n)
{
    (void)n;
    struct place *p = arg;
    sched_getaffinity(0, sizeof p->set[member], &p->set[member]);
}

static void pins(void **state)
{
    (void)state;
    static struct place p;
    struct tpool *tp = open_team(0, -1, true);
    int n = tpool_size(tp);
    assert_true(n >= 1);
    if (n > 64) {
        tpool_close(&tp);
        skip();
    }
    tpool_run(tp, where, &p);
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int i = 0; i < n; i++) {
        assert_int_equal(CPU_COUNT(&p.set[i]), 1);
        CPU_OR(&all, &all, &p.set[i]);
    }
    assert_int_equal(CPU_COUNT(&all), n); /* all different */
    tpool_close(&tp);
}

/* An idle team sleeps: next to no CPU time over 100 ms. */
static void idle_costs_nothing(void **state)
{
    (void)state;
    static struct work w;
    memset(&w, 0, sizeof w);
    struct tpool *tp = open_team(2, -1, false);
    tpool_run(tp, mark, &w);
    struct timespec a, b;
    nanosleep(&(struct timespec){0, 5000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    assert_true((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9 < 0.02);
    tpool_close(&tp);
}

static void bad_options(void **state)
{
    (void)state;
    struct err e;
    struct tpool *tp;
    const int bad[] = {-1, 5000, 1 << 30};
    for (int i = 0; i < 3; i++) {
        struct tpool_opts o = {.n_threads = bad[i]};
        assert_false(tpool_open(&tp, &o, &e));
        assert_null(tp);
        assert_int_equal(e.code, ERR_INVALID);
    }
    long n = 1;
    for (bool fired = true; fired; n++) {
        struct tpool_opts o = {.n_threads = 2};
        mem_fault_after(n);
        bool ok = tpool_open(&tp, &o, &e);
        fired = mem_fault_fired();
        mem_fault_after(0);
        if (!ok) {
            assert_true(fired && tp == NULL);
            assert_int_equal(e.code, ERR_NOMEM);
        }
        tpool_close(&tp);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_once), cmocka_unit_test(items_once_each), cmocka_unit_test(barriers),
        cmocka_unit_test(other_leader), cmocka_unit_test(pins), cmocka_unit_test(idle_costs_nothing),
        cmocka_unit_test(bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
