/* The workers: handlers that may take long run here. */
#include "base/clock.h"
#include "base/mem.h"
#include "server/http_int.h"

enum { SMALL, LARGE, SMALL_BODY_BYTES = 64 << 10 };

static struct http_exchange *take(struct http *h, int kind)
{
    struct http_exchange *x = h->work_first[kind];
    if (x && !(h->work_first[kind] = x->next_work))
        h->work_last[kind] = NULL;
    return x;
}

bool http_work_add(struct http_exchange *x)
{
    struct http *h = x->h;
    int kind = x->body.len <= SMALL_BODY_BYTES ? SMALL : LARGE;
    pthread_mutex_lock(&h->work_lock);
    if (h->work_stop) {
        pthread_mutex_unlock(&h->work_lock);
        return false;
    }
    http_exchange_ref(x);
    x->next_work = NULL;
    if (h->work_last[kind])
        h->work_last[kind]->next_work = x;
    else
        h->work_first[kind] = x;
    h->work_last[kind] = x;
    pthread_cond_broadcast(&h->work_cond); /* not every worker may take a large one */
    pthread_mutex_unlock(&h->work_lock);
    return true;
}

/* ---- parking ---- */

void http_park(struct http_exchange *x)
{
    x->parks = true;
    http_exchange_ref(x);                 /* until it is in the queue again */
    pthread_mutex_lock(&x->lock);
    x->park = HTTP_PARK_ASKED;
    pthread_mutex_unlock(&x->lock);
}

static void done(struct http_exchange *x);

/* Drops the reference that parking took. */
static void run_again(struct http_exchange *x)
{
    if (!http_work_add(x)) {
        struct api_error e;
        api_fail(&e, ERR_DRAINING, NULL, "the server is shutting down");
        http_reply_error(x, &e);
        done(x);
    }
    http_exchange_unref(x);
}

void http_unpark(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool held = x->park == HTTP_PARK_HELD;
    x->park = held ? HTTP_PARK_NONE : HTTP_PARK_RELEASED;
    pthread_mutex_unlock(&x->lock);
    if (held)
        run_again(x);
}

/* The handler has returned without a reply. */
static void hold(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool released = x->park == HTTP_PARK_RELEASED;
    x->park = released ? HTTP_PARK_NONE : HTTP_PARK_HELD;
    pthread_mutex_unlock(&x->lock);
    if (released)
        run_again(x);
}

bool http_client_gone(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool gone = x->abandoned;
    pthread_mutex_unlock(&x->lock);
    return gone || atomic_load(&x->gone);
}

int64_t http_age_us(const struct http_exchange *x) { return clock_now_us() - x->start_us; }

/* ---- working ---- */

/* There is a reply. */
static void done(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->worked = true;
    bool abandoned = x->abandoned;
    pthread_mutex_unlock(&x->lock);
    if (!abandoned)
        http_exchange_resume(x);
    else if (x->is_pull)
        x->pull.close(x->pull.ctx);
}

static void work(struct http_exchange *x)
{
    http_run_handler(x);
    if (x->parks)
        hold(x);
    else
        done(x);
    http_exchange_unref(x);
}

static void work_loop(struct http *h, bool small_only)
{
    pthread_setname_np(pthread_self(), "quire-work");
    pthread_mutex_lock(&h->work_lock);
    for (;;) {
        struct http_exchange *x = take(h, SMALL);
        if (!x && !small_only)
            x = take(h, LARGE);
        if (x) {
            pthread_mutex_unlock(&h->work_lock);
            work(x);
            pthread_mutex_lock(&h->work_lock);
        } else if (h->work_stop) {
            break;
        } else {
            pthread_cond_wait(&h->work_cond, &h->work_lock);
        }
    }
    pthread_mutex_unlock(&h->work_lock);
}

static void *work_any(void *arg)
{
    work_loop(arg, false);
    return NULL;
}

static void *work_small(void *arg)
{
    work_loop(arg, true);
    return NULL;
}

bool http_work_open(struct http *h, struct err *e)
{
    h->workers = mem_try_zalloc((size_t)h->o.n_workers, sizeof *h->workers);
    if (!h->workers)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < h->o.n_workers; i++, h->n_workers_started++)
        if (pthread_create(&h->workers[i], NULL, i == 1 ? work_small : work_any, h) != 0)
            return err_set(e, ERR_IO, "worker thread %d could not be started", i);
    return true;
}

void http_work_stop(struct http *h)
{
    pthread_mutex_lock(&h->work_lock);
    h->work_stop = true;
    pthread_cond_broadcast(&h->work_cond);
    pthread_mutex_unlock(&h->work_lock);
    for (int i = 0; i < h->n_workers_started; i++)
        pthread_join(h->workers[i], NULL);
    h->n_workers_started = 0;
}

void http_work_close(struct http *h)
{
    mem_free(h->workers);
    pthread_cond_destroy(&h->work_cond);
    pthread_mutex_destroy(&h->work_lock);
}
