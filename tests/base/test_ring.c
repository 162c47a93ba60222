#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include "base/mem.h"
#include "base/ring.h"
#include "base/rng.h"

static void capacity(void **state)
{
    (void)state;
    const size_t want[][2] = {{0, 1}, {1, 1}, {2, 2}, {3, 4}, {5, 8}, {1000, 1024}};
    for (size_t i = 0; i < 6; i++) {
        struct ring *r = ring_open(want[i][0], 4);
        assert_int_equal(ring_capacity(r), want[i][1]);
        int v = 7;
        for (size_t k = 0; k < want[i][1]; k++)
            assert_true(ring_push(r, &v));
        assert_false(ring_push(r, &v));
        assert_int_equal(ring_count(r), want[i][1]);
        ring_close(&r);
        assert_null(r);
        ring_close(&r);
    }
    assert_null(ring_open(SIZE_MAX, 1));
    assert_null(ring_open(SIZE_MAX / 4, 64));
    for (long n = 1; n <= 2; n++) {
        mem_fault_after(n);
        assert_null(ring_open(4, 4));
        assert_true(mem_fault_fired());
    }
    mem_fault_after(0);
}

static void against_model(void **state)
{
    (void)state;
    struct item { char bytes[13]; } in, out;
    struct rng r = {21};
    struct ring *q = ring_open(16, sizeof in);
    unsigned pushed = 0, popped = 0;
    for (int i = 0; i < 100000; i++) {
        if (rng_next_below(&r, i / 1000 % 2 ? 3 : 2)) {
            memset(&in, (int)(pushed & 0xff), sizeof in);
            bool ok = ring_push(q, &in);
            assert_int_equal(ok, pushed - popped < 16);
            pushed += ok;
        } else {
            bool ok = ring_pop(q, &out);
            assert_int_equal(ok, pushed != popped);
            for (size_t k = 0; ok && k < sizeof out; k++)
                assert_int_equal((unsigned char)out.bytes[k], popped & 0xff);
            popped += ok;
        }
        assert_int_equal(ring_count(q), pushed - popped);
    }
    ring_close(&q);
}

enum { N = 300000 };
struct pair { uint64_t a, b; };

static void *producer(void *arg)
{
    for (uint64_t i = 0; i < N;) {
        struct pair p = {i, ~i};
        if (ring_push(arg, &p))
            i++;
        else
            sched_yield();
    }
    return NULL;
}

static void two_threads(void **state)
{
    (void)state;
    struct ring *r = ring_open(64, sizeof(struct pair));
    pthread_t t;
    pthread_create(&t, NULL, producer, r);
    for (uint64_t i = 0; i < N;) {
        struct pair p;
        if (!ring_pop(r, &p)) {
            sched_yield();
            continue;
        }
        if (p.a != i || p.b != ~i)
            fail_msg("item %llu is torn or out of order", (unsigned long long)i);
        i++;
        if (ring_count(r) > 64)
            fail_msg("count above capacity");
    }
    pthread_join(t, NULL);
    assert_int_equal(ring_count(r), 0);
    ring_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(capacity), cmocka_unit_test(against_model), cmocka_unit_test(two_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
