/* The pace of prompts beside streams, against devices whose step times are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "engine/pace.h"

enum { MS = 1000000 };

/* A device: fixed time for streams, and for each prompt token. */
struct device { int64_t streams_ns, token_ns; };

/* n steps with prompts without end; the longest and shortest of the second half, and what the streams' own steps were. */
static void run(struct pace *p, struct device d, int n, int64_t *longest, int64_t *shortest, int *n_alone)
{
    *longest = *n_alone = 0;
    *shortest = INT64_MAX;
    for (int i = 0; i < n; i++) {
        int32_t tokens = pace_tokens(p);
        assert_true(tokens >= 1 && tokens <= p->most);
        int64_t t = d.streams_ns + (tokens > 1 ? tokens * d.token_ns : 0);
        pace_note(p, t, tokens > 1 ? tokens : 0, 8);
        if (tokens == 1)
            ++*n_alone;
        else if (i >= n / 2) {
            *longest = t > *longest ? t : *longest;
            *shortest = t < *shortest ? t : *shortest;
        }
    }
}

static void test_target(void **state)
{
    (void)state;
    /* Fast and slow devices, and streams from nothing to half of the target. */
    static const struct device devices[] = {{20 * MS, MS}, {50 * MS, MS}, {5 * MS, 100000}, {MS, 4 * MS}, {49 * MS, 2 * MS}};
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        struct pace p;
        int64_t longest, shortest;
        int n_alone;
        pace_open(&p, 100 * MS, 2048);
        run(&p, devices[i], 400, &longest, &shortest, &n_alone);
        assert_in_range(longest, 90 * MS, 115 * MS);
        assert_in_range(shortest, 80 * MS, 110 * MS);
        assert_in_range(n_alone, 10, 14);
    }
}

/* Streams that alone take longer than the target leave prompts half of the time all the same. */
static void test_slow_streams(void **state)
{
    (void)state;
    struct pace p;
    int64_t longest, shortest;
    int n_alone;
    pace_open(&p, 100 * MS, 2048);
    run(&p, (struct device){400 * MS, 5 * MS}, 400, &longest, &shortest, &n_alone);
    assert_in_range(longest, 750 * MS, 850 * MS);
    assert_in_range(shortest, 700 * MS, 810 * MS);
    /* They become fast again: so do the steps. */
    run(&p, (struct device){10 * MS, 5 * MS}, 400, &longest, &shortest, &n_alone);
    assert_in_range(longest, 80 * MS, 115 * MS);
}

static void test_limits(void **state)
{
    (void)state;
    struct pace p;
    pace_open(&p, 0, 2048);
    pace_note(&p, 500 * MS, 100, 3);
    assert_int_equal(pace_tokens(&p), 0);
    /* Never fewer than a few, nor more than a step has. */
    pace_open(&p, MS, 2048);
    for (int i = 0; i < 20; i++)
        pace_note(&p, 900 * MS, pace_tokens(&p), 1);
    assert_int_equal(pace_tokens(&p), 16);
    pace_open(&p, 1000 * MS, 100);
    for (int i = 0; i < 20; i++)
        pace_note(&p, MS, pace_tokens(&p), 1);
    assert_int_equal(pace_tokens(&p), 100);
    pace_open(&p, MS, 3);
    pace_note(&p, 900 * MS, 3, 1);
    assert_int_equal(pace_tokens(&p), 3);
}

/* The first prompt, alone, tells how slow the device is; small and idle steps tell nothing. */
static void test_what_counts(void **state)
{
    (void)state;
    struct pace p;
    pace_open(&p, 100 * MS, 2048);
    pace_note(&p, 2048 * (int64_t)MS, 2048, 0);
    assert_int_equal(pace_tokens(&p), 50);
    pace_note(&p, 10 * MS, 5, 0);
    pace_note(&p, 30 * MS, 20, 4);
    pace_note(&p, 0, 20, 4);
    assert_int_equal(pace_tokens(&p), 50);
    pace_note(&p, 200 * MS, 20, 4);     /* too long, though small */
    assert_int_equal(pace_tokens(&p), 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target), cmocka_unit_test(test_slow_streams), cmocka_unit_test(test_limits), cmocka_unit_test(test_what_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
