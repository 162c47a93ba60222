/* tests/server/api_ask.h - a request through api.h as a blocking call, for tests. */
#ifndef QUIRE_TEST_API_ASK_H
#define QUIRE_TEST_API_ASK_H

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/json.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "server/api.h"

/* An engine with the built-in model, and its api; a's engine is set here. */
static inline bool api_ask_open(struct engine **eng, struct api **api, const struct engine_opts *o, struct api_opts a)
{
    struct err e;
    bool ok = engine_open(eng, o, &e);
    a.engine = *eng;
    ok = ok && api_open(api, &a, &e);
    if (!ok)
        print_error("%s\n", e.msg);
    return ok;
}

static inline void api_ask_post(void *news) { sem_post(news); }

/* The output as text, or the error's body; *status as HTTP would have it.  mem_free it. */
static inline char *api_ask_text(const struct api *a, enum api_endpoint endpoint, const char *body, int *status)
{
    struct api_job *job;
    struct api_error e;
    struct buf out;
    sem_t news;
    sem_init(&news, 0, 0);
    buf_init(&out, 0);
    struct api_job_opts o = {.notify = api_ask_post, .notify_ctx = &news};
    if (!api_job_open(&job, a, endpoint, body, strlen(body), &o, &e)) {
        *status = e.status;
        assert_true(api_error_write(&e, &out));
    } else {
        while (api_job_pull(job, &out) == API_PULL_MORE)
            sem_wait(&news);
        *status = api_job_status(job);
        api_job_close(&job);
    }
    sem_destroy(&news);
    return buf_take(&out);
}

/* The answer, which must have the wanted status and be JSON. */
static inline json_t *api_ask(const struct api *a, enum api_endpoint endpoint, int want_status, const char *body)
{
    int status;
    struct err e;
    char *text = api_ask_text(a, endpoint, body, &status);
    if (status != want_status)
        fail_msg("%s\n-> %d %s", body, status, text);
    json_t *j = json_parse(text, strlen(text), &e);
    assert_non_null(j);
    mem_free(text);
    return j;
}

#endif
