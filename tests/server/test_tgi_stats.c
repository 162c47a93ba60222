/* Requests as TGI counts them: buckets, classes of failures, and jobs that end without an end. */
#include <math.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "engine/engine_int.h"
#include "server/api_int.h"
#include "server/tgi_int.h"
#include "server/tgi_stats.h"
#include "api_ask.h"

static struct engine *eng;
static struct api *api;

static int open_all(void **state)
{
    struct engine_opts o;
    (void)state;
    engine_opts_default(&o);
    o.max_num_seqs = 4;
    o.num_kv_blocks = 129;
    o.n_threads = 1;
    return api_ask_open(&eng, &api, &o, (struct api_opts){0}) ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    api_close(&api);
    engine_close(&eng);
    return 0;
}

static void bounds_are_tgis(void **state)
{
    (void)state;
    double bound = 0.0001;
    for (int i = 0; i < ENGINE_TGI_SECONDS; i++) {
        bound *= 1.5;
        assert_true(fabs(engine_tgi_seconds[i] / bound - 1) < 1e-12);
    }
}

/* The bucket of n is the first whose bound is not below it. */
static void lengths_fall_into_their_buckets(void **state)
{
    (void)state;
    int32_t total = tgi_max_total_tokens(api);
    for (int32_t n = 0; n <= total + 1; n++) {
        struct tgi_stats s;
        struct tgi_counts c;
        tgi_stats_init(&s);
        tgi_stats_valid(&s, api, &(struct api_job_stats){.n_prompt = 1, .max_new = n});
        tgi_stats_get(&s, &c);
        int i = 0;
        while (i < TGI_LENGTHS && n > total / 100.0 * (i + 1))
            i++;
        assert_int_equal(c.max_new.most, total);
        assert_int_equal(c.max_new.counts[i], 1);
        assert_true(c.max_new.total == 1 && c.max_new.sum == n);
        assert_int_equal(c.input.most, total - 1);
        tgi_stats_free(&s);
    }
}

static void failures_have_their_classes(void **state)
{
    (void)state;
    static const struct { struct api_error e; enum tgi_failure refused; } cases[] = {
        {{.status = 400}, TGI_VALIDATION}, {{.status = 404}, TGI_VALIDATION}, {{.status = 413}, TGI_VALIDATION}, {{.status = 429}, TGI_OVERLOADED},
        {{.status = 400, .in_template = true}, TGI_TEMPLATE}, {{.status = 499}, TGI_DROPPED}, {{.status = 500}, TGI_GENERATION},
        {{.status = 503}, TGI_GENERATION}, {{.status = 504}, TGI_GENERATION},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(tgi_failure_of(&cases[i].e), cases[i].refused);
    struct tgi_stats s;
    struct tgi_counts c;
    tgi_stats_init(&s);
    tgi_stats_ended(&s, &(struct api_job_stats){.error = 500}, 0);
    tgi_stats_ended(&s, &(struct api_job_stats){.error = 499}, 0);
    tgi_stats_ended(&s, &(struct api_job_stats){.error = 504}, 0);
    tgi_stats_get(&s, &c);
    assert_true(c.n_ok == 0 && c.n_failed[TGI_GENERATION] == 2 && c.n_failed[TGI_INCOMPLETE] == 1 && c.duration.total == 0);
    tgi_stats_free(&s);
}

/* A step that the device failed has no times; numbers of an engine that is gone are added. */
static void failed_steps_are_counted(void **state)
{
    (void)state;
    static struct engine_batches before, after, sum;
    engine_batches(eng, &before);
    metrics_step(eng, &(struct metrics_step){.prefill = true, .failed = true, .n_seqs = 3, .n_admitted = 2000});
    engine_batches(eng, &after);
    assert_int_equal(after.of[ENGINE_PREFILL].n_failed, before.of[ENGINE_PREFILL].n_failed + 1);
    assert_int_equal(after.of[ENGINE_PREFILL].n_ok, before.of[ENGINE_PREFILL].n_ok);
    assert_int_equal(after.of[ENGINE_PREFILL].forward.total, before.of[ENGINE_PREFILL].forward.total);
    assert_int_equal(after.next_size[ENGINE_BATCH_SIZES], before.next_size[ENGINE_BATCH_SIZES] + 1);
    engine_batches_add(&sum, &after);
    engine_batches_add(&sum, &after);
    assert_int_equal(sum.of[ENGINE_PREFILL].n_failed, 2 * after.of[ENGINE_PREFILL].n_failed);
    assert_int_equal(sum.n_next, 2 * after.n_next);
    assert_true(sum.concat.n == ENGINE_TGI_SECONDS && sum.concat.bounds == engine_tgi_seconds);
}

/* A generation that is cut off under its reader. */
static void a_cut_is_told(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"Once\",\"max_tokens\":900,\"ignore_eos\":true}", tgi_body[] = "{\"inputs\":\"Once\",\"parameters\":{\"max_new_tokens\":900}}";
    struct api_job *job;
    struct tgi_job *tgi;
    struct api_error e;
    struct api_job_stats st;
    struct buf out;
    sem_t news;
    sem_init(&news, 0, 0);
    buf_init(&out, 0);
    struct api_job_opts o = {.notify = api_ask_post, .notify_ctx = &news};
    assert_true(api_job_open(&job, api, API_COMPLETIONS, body, strlen(body), &o, &e));
    api_job_stats(job, &st);
    assert_true(st.error == 0 && st.max_new == 900 && st.n_prompt > 0);
    gen_cancel(job->prompts[0].gen);
    while (api_job_pull(job, &out) == API_PULL_MORE)
        sem_wait(&news);
    api_job_stats(job, &st);
    assert_int_equal(st.error, 499);
    api_job_close(&job);
    buf_clear(&out);
    assert_true(tgi_job_open(&tgi, api, TGI_GENERATE, tgi_body, strlen(tgi_body), &o, &e));
    tgi_job_stats(tgi, &st);
    assert_true(st.error == 0 && st.max_new == 900);
    gen_cancel(tgi->job->prompts[0].gen);
    while (tgi_job_pull(tgi, &out) == API_PULL_MORE)
        sem_wait(&news);
    tgi_job_stats(tgi, &st);
    assert_int_equal(st.error, 499);
    assert_int_equal(tgi_job_status(tgi), 500);
    assert_non_null(strstr(out.data, "\"error_type\":\"incomplete_generation\""));
    tgi_job_close(&tgi);
    buf_free(&out);
    sem_destroy(&news);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_are_tgis), cmocka_unit_test(lengths_fall_into_their_buckets), cmocka_unit_test(failures_have_their_classes),
        cmocka_unit_test(failed_steps_are_counted), cmocka_unit_test(a_cut_is_told),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
