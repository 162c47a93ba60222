#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/mpsc.h"

struct item { struct mpsc_node node; int producer, number; };

static struct item *take(struct mpsc *q)
{
    struct mpsc_node *n = mpsc_pop(q);
    return n ? (struct item *)((char *)n - offsetof(struct item, node)) : NULL;
}

static void in_order(void **state)
{
    (void)state;
    struct mpsc q;
    static struct item it[100];
    mpsc_init(&q);
    assert_null(mpsc_pop(&q));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            it[i].number = i;
            mpsc_push(&q, &it[i].node);
            if (i % 3 == 0) /* taken while others go in: 34 of the 100 */
                assert_int_equal(take(&q)->number, i / 3);
        }
        int next = 34;
        for (struct item *t; (t = take(&q));)
            assert_int_equal(t->number, next++);
        assert_int_equal(next, 100);
        assert_null(mpsc_pop(&q));
    }
}

static void same_node_again(void **state)
{
    (void)state;
    struct mpsc q;
    struct item a = {.number = 1};
    mpsc_init(&q);
    for (int i = 0; i < 1000; i++) {
        mpsc_push(&q, &a.node);
        assert_ptr_equal(take(&q), &a);
        assert_null(mpsc_pop(&q));
    }
}

/* A producer stopped between its two steps: the consumer sees what came before, and later all. */
static void half_done_push(void **state)
{
    (void)state;
    struct mpsc q;
    struct item a, b, c;
    mpsc_init(&q);
    mpsc_push(&q, &a.node);
    atomic_init(&b.node.next, NULL);
    struct mpsc_node *before = atomic_exchange(&q.head, &b.node);
    for (int i = 0; i < 3; i++)
        assert_null(mpsc_pop(&q));
    mpsc_push(&q, &c.node); /* another one overtakes */
    assert_null(mpsc_pop(&q));
    atomic_store(&before->next, &b.node);
    assert_ptr_equal(take(&q), &a);
    assert_ptr_equal(take(&q), &b);
    assert_ptr_equal(take(&q), &c);
    assert_null(mpsc_pop(&q));
}

static void wait_times_out(void **state)
{
    (void)state;
    struct mpsc q;
    mpsc_init(&q);
    int64_t t0 = clock_now_us();
    mpsc_wait(&q, 20000);
    assert_true(clock_now_us() - t0 >= 20000);
    mpsc_wake(&q); /* before the wait: not lost */
    t0 = clock_now_us();
    mpsc_wait(&q, -1);
    mpsc_wait(&q, 0);
    assert_true(clock_now_us() - t0 < 10000000);
    struct item a = {.number = 5};
    mpsc_push(&q, &a.node);
    mpsc_wait(&q, -1); /* would hang if the push were lost */
    assert_ptr_equal(take(&q), &a);
}

enum { PRODUCERS = 4, EACH = 20000 };
static struct mpsc shared;
static struct item items[PRODUCERS][EACH];

static void *produce(void *arg)
{
    int p = (int)(intptr_t)arg;
    for (int i = 0; i < EACH; i++) {
        items[p][i].producer = p;
        items[p][i].number = i;
        mpsc_push(&shared, &items[p][i].node);
        if (i % 1000 == 0)
            sched_yield(); /* lets the queue run empty, so that the consumer sleeps */
    }
    return NULL;
}

static void many_producers(void **state)
{
    (void)state;
    pthread_t t[PRODUCERS];
    int next[PRODUCERS] = {0}, n = 0;
    mpsc_init(&shared);
    for (intptr_t p = 0; p < PRODUCERS; p++)
        pthread_create(&t[p], NULL, produce, (void *)p);
    while (n < PRODUCERS * EACH) {
        struct item *it = take(&shared);
        if (!it) {
            mpsc_wait(&shared, -1); /* no timeout: a lost wake-up hangs the test */
            continue;
        }
        assert_int_equal(it->number, next[it->producer]++);
        n++;
    }
    for (int p = 0; p < PRODUCERS; p++)
        pthread_join(t[p], NULL);
    assert_null(mpsc_pop(&shared));
}

static struct mpsc ping, pong;

static void *echo(void *arg)
{
    for (int i = 0; i < *(int *)arg;) {
        struct item *it = take(&ping);
        if (!it) {
            mpsc_wait(&ping, -1);
            continue;
        }
        mpsc_push(&pong, &it->node);
        i++;
    }
    return NULL;
}

/* Both sides sleep nearly every time: each wake-up is needed. */
static void ping_pong(void **state)
{
    (void)state;
    int n = 3000;
    pthread_t t;
    struct item it = {.number = 0};
    mpsc_init(&ping);
    mpsc_init(&pong);
    pthread_create(&t, NULL, echo, &n);
    for (int i = 0; i < n; i++) {
        it.number = i;
        mpsc_push(&ping, &it.node);
        struct item *back;
        while (!(back = take(&pong)))
            mpsc_wait(&pong, -1);
        assert_ptr_equal(back, &it);
    }
    pthread_join(t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order), cmocka_unit_test(same_node_again), cmocka_unit_test(half_done_push), cmocka_unit_test(wait_times_out),
        cmocka_unit_test(many_producers), cmocka_unit_test(ping_pong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
