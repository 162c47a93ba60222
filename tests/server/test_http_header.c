/* Header texts, good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "server/http_header.h"

static void ids(void **state)
{
    (void)state;
    char many[130];
    memset(many, 'x', sizeof many);
    many[129] = 0;
    assert_false(http_header_is_id(many));
    many[128] = 0;
    assert_true(http_header_is_id(many));
    assert_true(http_header_is_id("a-b.c:7"));
    assert_false(http_header_is_id(""));
    assert_false(http_header_is_id("a b"));
    assert_false(http_header_is_id("a\nb"));
    assert_false(http_header_is_id("\303\251"));
}

#define T "0af7651916cd43dd8448eb211c80319c"
#define S "b7ad6b7169203331"

static void traceparent(void **state)
{
    (void)state;
    char trace[33], span[17];
    assert_true(http_header_traceparent("00-" T "-" S "-01", trace, span));
    assert_string_equal(trace, T);
    assert_string_equal(span, S);
    assert_true(http_header_traceparent("cc-" T "-" S "-01-what-comes-later", trace, span));
    static const char *const bad[] = {
        "", "00", "00-" T "-" S, "00-" T "-" S "-1", "00-" T "-" S "-01-more", "00-" T "-" S "-01x", "cc-" T "-" S "-01x", "ff-" T "-" S "-01",
        "00-00000000000000000000000000000000-" S "-01", "00-" T "-0000000000000000-01", "0-" T "-" S "-01", "000-" T "-" S "-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" S "-01", "00_" T "-" S "-01", "00-" T "_" S "-01", "00-" T "-" S "_01", "00-" T "-" S "-0g",
        "00-" S "-" T "-01", " 00-" T "-" S "-01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (http_header_traceparent(bad[i], trace, span))
            fail_msg("taken: %s", bad[i]);
}

static void seconds(void **state)
{
    (void)state;
    int64_t us;
    assert_true(http_header_seconds("30", &us) && us == 30000000);
    assert_true(http_header_seconds("2.5", &us) && us == 2500000);
    assert_true(http_header_seconds("0.000001", &us) && us == 1);
    assert_true(http_header_seconds("1000000000", &us));
    static const char *const bad[] = {"", "0", "0.0", "-1", "+1", " 1", "1 ", "1s", "1e3", "inf", "nan", ".5", "1000000001",
                                      "99999999999999999999999999999999999999", "1,5", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (http_header_seconds(bad[i], &us))
            fail_msg("taken: '%s'", bad[i]);
}

static void accept(void **state)
{
    (void)state;
    /* what Prometheus sends */
    assert_true(http_header_wants_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
                                              "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"));
    assert_true(http_header_wants_openmetrics("Application/OpenMetrics-Text"));
    assert_true(http_header_wants_openmetrics("text/html, application/openmetrics-text"));
    assert_false(http_header_wants_openmetrics(""));
    assert_false(http_header_wants_openmetrics("*/*"));
    assert_false(http_header_wants_openmetrics("text/plain"));
    assert_false(http_header_wants_openmetrics("text/plain;version=0.0.4,application/openmetrics-text;q=0.5"));
    assert_false(http_header_wants_openmetrics("application/openmetrics-text;q=0"));
    assert_false(http_header_wants_openmetrics("application/openmetrics-text;q=x"));
    assert_false(http_header_wants_openmetrics("application/openmetrics-textual"));
    assert_false(http_header_wants_openmetrics(",;,;q=;;,  ;"));
}

static void flags(void **state)
{
    (void)state;
    assert_true(http_header_is_true("1") && http_header_is_true("True"));
    assert_false(http_header_is_true("0") || http_header_is_true("") || http_header_is_true("yes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids), cmocka_unit_test(traceparent), cmocka_unit_test(seconds), cmocka_unit_test(accept), cmocka_unit_test(flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
