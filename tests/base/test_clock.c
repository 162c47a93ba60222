#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"

static void monotonic(void **state)
{
    (void)state;
    int64_t last = clock_now_ns();
    for (int i = 0; i < 10000; i++) {
        int64_t now = clock_now_ns();
        assert_true(now >= last);
        last = now;
    }
    int64_t us = clock_now_us(), ns = clock_now_ns();
    assert_true(ns / 1000 - us >= 0 && ns / 1000 - us < 10000000);
    int64_t before = clock_now_us();
    nanosleep(&(struct timespec){0, 3000000}, NULL);
    assert_true(clock_now_us() - before >= 3000);
}

static void wall(void **state)
{
    (void)state;
    int64_t diff = clock_unix_s() - (int64_t)time(NULL);
    assert_true(diff >= -1 && diff <= 1);
    char out[32];
    clock_format_utc(out, sizeof out);
    assert_int_equal(strlen(out), 24);
    struct tm tm = {0};
    int ms;
    assert_int_equal(sscanf(out, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
                            &tm.tm_min, &tm.tm_sec, &ms), 7);
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    assert_true(out[23] == 'Z' && ms >= 0 && ms < 1000);
    diff = (int64_t)timegm(&tm) - (int64_t)time(NULL);
    assert_true(diff >= -2 && diff <= 1);
    char tiny[5] = "....";
    clock_format_utc(tiny, sizeof tiny); /* cut, still terminated */
    assert_int_equal(strlen(tiny), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(monotonic), cmocka_unit_test(wall)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
