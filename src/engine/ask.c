/* Questions to the engine thread: it answers between two steps while the caller sleeps. */
#include <pthread.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_int.h"

struct ask {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done, result;
    struct engine_view *view;     /* NULL: drop the prefix cache */
};

static void fill_view(const struct engine *eng, struct engine_view *v)
{
    v->now_us = clock_now_us();
    v->n_steps = eng->metrics.n_steps;
    v->n_kept = v->n_steps < ENGINE_STEPS_KEPT ? (int32_t)v->n_steps : ENGINE_STEPS_KEPT;
    for (int32_t i = 0; i < v->n_kept; i++)
        v->steps[i] = eng->steps[(v->n_steps - (uint64_t)v->n_kept + (uint64_t)i) % ENGINE_STEPS_KEPT];
    sched_page_states(eng->sched, v->pages);
}

void ask_answer(struct engine *eng, struct ask *a)
{
    bool result = true;
    if (a->view)
        fill_view(eng, a->view);
    else
        result = sched_reset_prefix_cache(eng->sched);
    pthread_mutex_lock(&a->lock);
    a->result = result;
    a->done = true;
    pthread_cond_signal(&a->cond);
    pthread_mutex_unlock(&a->lock);
}

static bool ask(struct engine *eng, struct engine_view *view)
{
    struct ask a = {.view = view};
    struct msg m = {.type = MSG_ASK, .ask = &a};
    pthread_mutex_init(&a.lock, NULL);
    pthread_cond_init(&a.cond, NULL);
    mpsc_push(&eng->inbox, &m.node);
    pthread_mutex_lock(&a.lock);
    while (!a.done)
        pthread_cond_wait(&a.cond, &a.lock);
    pthread_mutex_unlock(&a.lock);
    pthread_mutex_destroy(&a.lock);
    pthread_cond_destroy(&a.cond);
    return a.result;
}

bool engine_reset_prefix_cache(struct engine *eng) { return ask(eng, NULL); }

bool engine_view_open(struct engine *eng, struct engine_view **out, struct err *e)
{
    struct engine_view *v = mem_try_zalloc(1, sizeof *v);
    *out = NULL;
    if (v) {
        v->n_pages = eng->info.n_blocks - 1;
        v->pages = mem_try_zalloc((size_t)v->n_pages, 1);
    }
    if (!v || !v->pages) {
        engine_view_close(&v);
        return err_set(e, ERR_NOMEM, "out of memory for the view");
    }
    ask(eng, v);
    *out = v;
    return true;
}

void engine_view_close(struct engine_view **pv)
{
    struct engine_view *v = *pv;
    if (!v)
        return;
    *pv = NULL;
    mem_free(v->pages);
    mem_free(v);
}
