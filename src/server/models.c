#include "server/models.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"

enum { FAILED_US = 5000000, TICK_MS = 50, WAIT_LOOK_US = 200000 };

enum state { UNLOADED, QUEUED, LOADING, LOADED, FAILED };
static const char *const state_names[] = {"unloaded", "queued", "loading", "loaded", "failed"};

/* A parked request, or a thread that waits.  granted: unparked with a reference to the model that it takes when it runs again. */
struct waiter { bool over; };      /* it was released, granted or not */
struct parked { struct http_exchange *x; struct waiter *thread; bool granted; };

struct server_model {
    struct server_models *ms;
    char *name;
    struct engine_opts engine_opts;
    struct engine *eng;
    struct api *api;
    enum state state;
    bool closing;                  /* takes no new requests until it has been unloaded */
    int refs;
    uint64_t used, queued;         /* by the models' clock */
    int64_t used_us;               /* when it was loaded, or last left */
    struct parked *parked; size_t n_parked, cap_parked;
    struct err why; int64_t failed_us;
    int64_t created_s;
    int32_t max_model_len;
    struct engine_metrics past;
    struct engine_batches past_batches;
    struct tgi_stats tgi;
    uint64_t n_loads, n_failures;
    double load_s;
};

struct server_models {
    struct server_models_opts o;
    struct server_model *models;
    int n, n_loaded, max_loaded;
    int32_t n_parked;
    bool one;
    struct engine_turns *turns;
    uint64_t clock;
    struct engine_batches view_batches;   /* what a view points to */
    struct tgi_counts view_tgi;

    pthread_mutex_t lock;          /* guards all the above that changes */
    pthread_cond_t wake, released; /* of the loader; of waiting threads */
    pthread_t loader;
    bool loader_started, draining, stop;
};

/* ---- parked requests; the lock is held ---- */

static void release(struct server_models *ms, const struct parked *p)
{
    if (p->x) {
        http_unpark(p->x);
        return;
    }
    p->thread->over = true;
    pthread_cond_broadcast(&ms->released);
}

static void forget_at(struct server_model *m, size_t i)
{
    m->parked[i] = m->parked[--m->n_parked];
    m->ms->n_parked--;
}

static void unpark_at(struct server_model *m, size_t i)
{
    struct parked p = m->parked[i];
    forget_at(m, i);
    release(m->ms, &p);
}

/* To be refused. */
static void unpark_all(struct server_model *m)
{
    for (size_t i = m->n_parked; i-- > 0;)
        if (!m->parked[i].granted)
            unpark_at(m, i);
}

static void grant_all(struct server_model *m)
{
    for (size_t i = 0; i < m->n_parked; i++)
        if (!m->parked[i].granted) {
            m->parked[i].granted = true;
            m->refs++;
            release(m->ms, &m->parked[i]);
        }
}

/* Whether x was granted m, and now has it. */
static bool take_grant(struct server_model *m, const struct http_exchange *x)
{
    for (size_t i = 0; i < m->n_parked; i++)
        if (m->parked[i].x == x && m->parked[i].granted) {
            forget_at(m, i);
            return true;
        }
    return false;
}

static bool add_parked(struct server_model *m, struct http_exchange *x, struct waiter *thread, struct api_error *e)
{
    struct server_models *ms = m->ms;
    if (!vec_reserve((void **)&m->parked, &m->cap_parked, m->n_parked + 1, sizeof *m->parked))
        return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request");
    m->parked[m->n_parked++] = (struct parked){.x = x, .thread = thread};
    ms->n_parked++;
    if (m->state == UNLOADED || m->state == FAILED) {
        m->state = QUEUED;
        m->queued = ++ms->clock;
    }
    pthread_cond_signal(&ms->wake);
    return true;
}

static bool park(struct server_model *m, struct http_exchange *x, struct api_error *e)
{
    struct server_models *ms = m->ms;
    if (ms->o.max_parked > 0 && ms->n_parked >= ms->o.max_parked)
        return api_fail(e, ERR_OVERLOADED, NULL, "%d requests are waiting for models already", ms->n_parked);
    if (!add_parked(m, x, NULL, e))
        return false;
    http_park(x);
    return true;
}

/* Deadlines pass while waiting, too. */
static void expire(struct server_models *ms)
{
    for (int k = 0; k < ms->n; k++)
        for (size_t i = ms->models[k].n_parked; i-- > 0;) {
            const struct parked *p = &ms->models[k].parked[i];
            if (!p->x)
                continue;          /* it looks for itself */
            int64_t timeout = http_timeout_us(p->x, ms->o.api.request_timeout_us);
            if (!p->granted && ((timeout > 0 && http_age_us(p->x) > timeout) || http_client_gone(p->x)))
                unpark_at(&ms->models[k], i);
        }
}

/* ---- the loader ---- */

static struct server_model *next_queued(const struct server_models *ms)
{
    struct server_model *first = NULL;
    for (int i = 0; i < ms->n; i++)
        if (ms->models[i].state == QUEUED && (!first || ms->models[i].queued < first->queued))
            first = &ms->models[i];
    return first;
}

/* Least recently used among those that are loaded: that nobody uses, else any. */
static struct server_model *victim(const struct server_models *ms, bool idle)
{
    struct server_model *least = NULL;
    for (int i = 0; i < ms->n; i++) {
        struct server_model *m = &ms->models[i];
        if (m->state == LOADED && (!idle || m->refs == 0) && (!least || m->used < least->used))
            least = m;
    }
    return least;
}

/* Nobody needs a place any more: who was to make room goes on. */
static void reopen(struct server_models *ms)
{
    for (int i = 0; i < ms->n; i++) {
        struct server_model *m = &ms->models[i];
        if (m->closing && m->state == LOADED && !ms->draining) {
            m->closing = false;
            grant_all(m);
        }
    }
}

/* A queued model that lost its last request needs not be loaded. */
static void forget_unwanted(struct server_models *ms)
{
    for (int i = 0; i < ms->n; i++)
        if (ms->models[i].state == QUEUED && ms->models[i].n_parked == 0)
            ms->models[i].state = UNLOADED;
}

static bool open_model(const struct server_model *m, struct engine **eng, struct api **api, struct err *e)
{
    struct api_opts o = m->ms->o.api;
    const char *const names[] = {m->name};
    if (!engine_open(eng, &m->engine_opts, e))
        return false;
    o.engine = *eng;
    o.served_names = names;
    o.n_served_names = 1;
    if (api_open(api, &o, e))
        return true;
    engine_close(eng);
    return false;
}

/* Called and returns with the lock held; opening runs without it. */
static void load(struct server_model *m)
{
    struct server_models *ms = m->ms;
    struct engine *eng = NULL;
    struct api *api = NULL;
    struct err e = {0};
    int64_t t0 = clock_now_us();
    m->state = LOADING;
    ms->n_loaded++;
    pthread_mutex_unlock(&ms->lock);
    bool ok = open_model(m, &eng, &api, &e);
    pthread_mutex_lock(&ms->lock);
    if (!ok) {
        ms->n_loaded--;
        m->state = FAILED;
        m->why = e;
        m->failed_us = clock_now_us();
        m->n_failures++;
        log_error(ms->o.api.log, "models", "%s could not be loaded: %s", m->name, e.msg);
        unpark_all(m);
        return;
    }
    m->eng = eng;
    m->api = api;
    m->state = LOADED;
    m->used = ++ms->clock;
    m->used_us = clock_now_us();
    m->max_model_len = engine_info(eng)->max_model_len;
    m->n_loads++;
    m->load_s += (double)(clock_now_us() - t0) / 1e6;
    log_info(ms->o.api.log, "models", "%s loaded in %.2f s; %d of %d places are taken", m->name, (double)(clock_now_us() - t0) / 1e6, ms->n_loaded,
             ms->max_loaded);
    if (ms->draining) {
        engine_drain(eng);
        unpark_all(m);
    } else {
        grant_all(m);
    }
}

static void unload(struct server_model *m)
{
    struct server_models *ms = m->ms;
    struct engine_metrics last;
    struct engine_batches *batches = &ms->view_batches;
    struct engine *eng = m->eng;
    struct api *api = m->api;
    engine_metrics(eng, &last);
    engine_metrics_add(&last, &m->past);
    m->past = last;
    engine_batches(eng, batches);
    engine_batches_add(batches, &m->past_batches);
    m->past_batches = *batches;
    m->eng = NULL;
    m->api = NULL;
    m->state = LOADING;            /* neither to be used nor to be loaded */
    pthread_mutex_unlock(&ms->lock);
    api_close(&api);
    engine_close(&eng);
    pthread_mutex_lock(&ms->lock);
    ms->n_loaded--;
    m->closing = false;
    m->state = UNLOADED;
    log_info(ms->o.api.log, "models", "%s unloaded; %d of %d places are taken", m->name, ms->n_loaded, ms->max_loaded);
    if (m->n_parked > 0) {
        m->state = QUEUED;
        m->queued = ++ms->clock;
    }
}

/* Nobody has used it for long enough.  *next_us: when the next of the others will have been idle for so long. */
static struct server_model *idle_model(const struct server_models *ms, int64_t *next_us)
{
    int64_t now = clock_now_us();
    *next_us = INT64_MAX;
    for (int i = 0; ms->o.idle_us > 0 && i < ms->n; i++) {
        struct server_model *m = &ms->models[i];
        if (m->state != LOADED || m->refs > 0)
            continue;
        if (now - m->used_us >= ms->o.idle_us)
            return m;
        *next_us = m->used_us + ms->o.idle_us < *next_us ? m->used_us + ms->o.idle_us : *next_us;
    }
    return NULL;
}

/* With the lock held. */
static void wait_until(struct server_models *ms, pthread_cond_t *cond, int64_t until_us)
{
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000), .tv_nsec = (long)(until_us % 1000000) * 1000};
    pthread_cond_timedwait(cond, &ms->lock, &until);
}

/* With the lock held: until something happens, or until_us, or a tick when parked requests have to be looked at. */
static void nap(struct server_models *ms, int64_t until_us)
{
    int64_t tick = clock_now_us() + TICK_MS * 1000;
    if (ms->n_parked > 0 && tick < until_us)
        until_us = tick;
    if (until_us == INT64_MAX) {
        pthread_cond_wait(&ms->wake, &ms->lock);
        return;
    }
    wait_until(ms, &ms->wake, until_us);
}

static void *loader_main(void *arg)
{
    struct server_models *ms = arg;
    pthread_setname_np(pthread_self(), "quire-loader");
    pthread_mutex_lock(&ms->lock);
    while (!ms->stop) {
        expire(ms);
        forget_unwanted(ms);
        int64_t next_us;
        struct server_model *m = ms->draining ? NULL : next_queued(ms), *v;
        if (m && ms->n_loaded < ms->max_loaded)
            load(m);
        else if (m && (v = victim(ms, true)) != NULL)
            unload(v);
        else if ((v = idle_model(ms, &next_us)) != NULL)
            unload(v);
        else {
            if (!m)
                reopen(ms);
            else if ((v = victim(ms, false)) != NULL)
                v->closing = true;
            nap(ms, next_us);
        }
    }
    pthread_mutex_unlock(&ms->lock);
    return NULL;
}

/* ---- opening and closing ---- */

static struct server_models *alloc_models(int n, const struct api_opts *api)
{
    struct server_models *ms = mem_try_zalloc(1, sizeof *ms);
    pthread_condattr_t attr;
    if (!ms)
        return NULL;
    ms->o.api = *api;
    pthread_mutex_init(&ms->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ms->wake, &attr);
    pthread_cond_init(&ms->released, &attr);
    pthread_condattr_destroy(&attr);
    ms->models = mem_try_zalloc((size_t)n, sizeof *ms->models);
    ms->n = ms->models ? n : 0;
    for (int i = 0; i < ms->n; i++) {
        ms->models[i].ms = ms;
        tgi_stats_init(&ms->models[i].tgi);
    }
    return ms;
}

bool server_models_open_one(struct server_models **out, const struct api_opts *o, struct err *e)
{
    struct server_models *ms = alloc_models(1, o);
    *out = NULL;
    if (!ms || ms->n != 1) {
        server_models_close(&ms);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    ms->one = true;
    ms->models[0].state = LOADED;
    ms->models[0].eng = o->engine;
    if (!api_open(&ms->models[0].api, o, e)) {
        server_models_close(&ms);
        return false;
    }
    *out = ms;
    return true;
}

static bool copy_model(struct server_models *ms, int i, const struct server_model_opts *o, struct err *e)
{
    struct server_model *m = &ms->models[i];
    for (int k = 0; k < i; k++)
        if (strcmp(ms->models[k].name, o->name) == 0)
            return err_set(e, ERR_INVALID, "two models are called '%s'", o->name);
    m->engine_opts = o->engine;
    m->engine_opts.turns = ms->turns;
    m->created_s = clock_unix_s();
    m->name = mem_try_strdup(o->name);
    return m->name || err_set(e, ERR_NOMEM, "out of memory");
}

bool server_models_open(struct server_models **out, const struct server_models_opts *o, struct err *e)
{
    struct server_models *ms = alloc_models(o->n_models, &o->api);
    bool ok = ms && ms->n == o->n_models && ms->n > 0;
    *out = NULL;
    if (ok) {
        ms->o = *o;
        ms->max_loaded = o->max_loaded > 0 && o->max_loaded < ms->n ? o->max_loaded : ms->n;
        ms->turns = engine_turns_open();
        ok = ms->turns != NULL;
    }
    if (!ok)
        err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; ok && i < ms->n; i++)
        ok = copy_model(ms, i, &o->models[i], e);
    if (ok) {
        ok = pthread_create(&ms->loader, NULL, loader_main, ms) == 0 || err_set(e, ERR_IO, "the thread that loads models could not be started");
        ms->loader_started = ok;
    }
    if (!ok) {
        server_models_close(&ms);
        return false;
    }
    *out = ms;
    return true;
}

void server_models_drain(struct server_models *ms)
{
    pthread_mutex_lock(&ms->lock);
    ms->draining = true;
    for (int i = 0; i < ms->n; i++) {
        unpark_all(&ms->models[i]);
        if (ms->models[i].eng)
            engine_drain(ms->models[i].eng);
    }
    pthread_mutex_unlock(&ms->lock);
}

void server_models_stop(struct server_models *ms)
{
    if (ms->one)
        return;                    /* nothing is ever parked, and the engine is another's */
    server_models_drain(ms);
    pthread_mutex_lock(&ms->lock);
    ms->stop = true;
    pthread_cond_signal(&ms->wake);
    pthread_mutex_unlock(&ms->lock);
    if (ms->loader_started)
        pthread_join(ms->loader, NULL);
    ms->loader_started = false;
}

void server_models_close(struct server_models **pms)
{
    struct server_models *ms = *pms;
    if (!ms)
        return;
    *pms = NULL;
    server_models_stop(ms);
    for (int i = 0; i < ms->n; i++) {
        struct server_model *m = &ms->models[i];
        api_close(&m->api);
        if (!ms->one)
            engine_close(&m->eng);
        tgi_stats_free(&m->tgi);
        mem_free(m->name);
        mem_free(m->parked);
    }
    engine_turns_close(&ms->turns);
    pthread_mutex_destroy(&ms->lock);
    pthread_cond_destroy(&ms->wake);
    pthread_cond_destroy(&ms->released);
    mem_free(ms->models);
    mem_free(ms);
}

bool server_models_alive(struct server_models *ms, int64_t stall_us, struct err *why)
{
    bool ok = true;
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; ok && i < ms->n; i++)
        ok = !ms->models[i].eng || engine_alive(ms->models[i].eng, stall_us, why);
    pthread_mutex_unlock(&ms->lock);
    return ok;
}

bool server_models_is_one(const struct server_models *ms) { return ms->one; }

/* ---- requests ---- */

/* What the body's "model" says; everything else that may be wrong with the body is for the model's own api to tell. */
static bool read_name(const char *body, size_t len, struct buf *name, struct api_error *e)
{
    struct err err;
    const char *text = NULL;
    json_t *doc = json_parse(body, len, &err);
    if (!doc)
        return api_fail_err(e, NULL, &err);
    bool ok = json_get_str(json_is_object(doc) ? doc : NULL, "model", "", &text, &err) || api_fail_err(e, "model", &err);
    if (ok)
        buf_puts(name, text);
    json_decref(doc);
    return ok && (!name->failed || api_fail(e, ERR_NOMEM, NULL, "out of memory for the request"));
}

static struct server_model *find(struct server_models *ms, const char *name)
{
    for (int i = 0; i < ms->n; i++)
        if (!*name || strcmp(ms->models[i].name, name) == 0)
            return &ms->models[i];
    return api_model_is_any(name) ? &ms->models[0] : NULL;
}

static enum server_enter refuse_failed(const struct server_model *m, struct api_error *e)
{
    bool memory = m->why.code == ERR_NOMEM || m->why.code == ERR_TOO_LARGE;
    api_fail_status(e, memory ? 503 : 500, "The model `%.256s` could not be loaded: %s", m->name, m->why.msg);
    return SERVER_REFUSED;
}

static enum server_enter enter(struct server_model *m, struct http_exchange *x, struct api_error *e)
{
    struct server_models *ms = m->ms;
    int64_t timeout = http_timeout_us(x, ms->o.api.request_timeout_us);
    bool failed = m->state == FAILED && clock_now_us() - m->failed_us < FAILED_US;
    if (take_grant(m, x))
        return SERVER_ENTERED;
    if (ms->draining) {
        api_fail(e, ERR_DRAINING, NULL, "the server is shutting down");
        return SERVER_REFUSED;
    }
    if (timeout > 0 && http_age_us(x) > timeout) {
        api_fail(e, ERR_TIMEOUT, NULL, "the request's deadline passed while it waited for its model");
        return SERVER_REFUSED;
    }
    if (http_client_gone(x)) {
        api_fail(e, ERR_CANCELLED, NULL, "the client has gone");
        return SERVER_REFUSED;
    }
    if (m->state == LOADED && !m->closing) {
        m->refs++;
        return SERVER_ENTERED;
    }
    if (failed)
        return refuse_failed(m, e);
    return park(m, x, e) ? SERVER_PARKED : SERVER_REFUSED;
}

enum server_enter server_models_enter(struct server_models *ms, struct http_exchange *x, struct server_model **m, struct api_error *e)
{
    struct buf name;
    size_t len;
    const char *body = http_body(x, &len);
    enum server_enter how = SERVER_REFUSED;
    *m = &ms->models[0];
    if (ms->one)
        return SERVER_ENTERED;
    buf_init(&name, 0);
    *m = NULL;
    if (read_name(body, len, &name, e)) {
        const char *text = name.data ? name.data : "";
        *m = find(ms, text);
        if (*m) {
            pthread_mutex_lock(&ms->lock);
            how = enter(*m, x, e);
            if (how == SERVER_ENTERED)
                (*m)->used = ++ms->clock;
            pthread_mutex_unlock(&ms->lock);
        } else {
            api_fail(e, ERR_NOT_FOUND, "model", "The model `%.256s` does not exist.", text);
        }
    }
    buf_free(&name);
    return how;
}

/* ---- threads ---- */

struct server_model *server_models_named(struct server_models *ms, const char *name) { return ms->one ? &ms->models[0] : find(ms, name); }

bool server_model_is_wanted(struct server_model *m)
{
    pthread_mutex_lock(&m->ms->lock);
    bool wanted = m->closing;
    pthread_mutex_unlock(&m->ms->lock);
    return wanted;
}

static bool still_wanted(struct server_models *ms, bool (*go_on)(void *ctx), void *ctx, struct api_error *e)
{
    pthread_mutex_unlock(&ms->lock);
    bool ok = go_on(ctx);
    pthread_mutex_lock(&ms->lock);
    return ok || api_fail(e, ERR_CANCELLED, NULL, "what waited for its model was given up");
}

/* Waits for its turn; true with *granted: the model is its own.  The lock is held. */
static bool wait_parked(struct server_model *m, bool (*go_on)(void *ctx), void *ctx, bool *granted, struct api_error *e)
{
    struct server_models *ms = m->ms;
    struct waiter w = {0};
    *granted = false;
    if (!add_parked(m, NULL, &w, e))
        return false;
    bool ok = true;
    while (ok && !w.over) {
        wait_until(ms, &ms->released, clock_now_us() + WAIT_LOOK_US);
        ok = w.over || still_wanted(ms, go_on, ctx, e);
    }
    for (size_t i = m->n_parked; i-- > 0;)
        if (m->parked[i].thread == &w) {
            *granted = m->parked[i].granted;
            forget_at(m, i);
        }
    if (!ok && *granted) {         /* at the very moment that it gave up */
        m->refs--;
        *granted = false;
        pthread_cond_signal(&ms->wake);
    }
    return ok;
}

static bool wait_loaded(struct server_model *m, bool (*go_on)(void *ctx), void *ctx, struct api_error *e)
{
    struct server_models *ms = m->ms;
    for (bool asked = false, granted = false;;) {
        if (ms->draining)
            return api_fail(e, ERR_DRAINING, NULL, "the server is shutting down");
        if (!still_wanted(ms, go_on, ctx, e))
            return false;
        if (m->state == LOADED && !m->closing) {
            m->refs++;
            return true;
        }
        if (m->state == FAILED && asked)
            return refuse_failed(m, e) == SERVER_ENTERED;
        if (m->state == FAILED && clock_now_us() - m->failed_us < FAILED_US) {
            wait_until(ms, &ms->released, clock_now_us() + WAIT_LOOK_US);
            continue;
        }
        if (!wait_parked(m, go_on, ctx, &granted, e))
            return false;
        if (granted)
            return true;
        asked = true;
    }
}

bool server_model_wait(struct server_model *m, bool (*go_on)(void *ctx), void *ctx, struct api_error *e)
{
    if (m->ms->one)
        return true;
    pthread_mutex_lock(&m->ms->lock);
    bool ok = wait_loaded(m, go_on, ctx, e);
    if (ok)
        m->used = ++m->ms->clock;
    pthread_mutex_unlock(&m->ms->lock);
    return ok;
}

void server_model_leave(struct server_model *m)
{
    struct server_models *ms = m->ms;
    if (ms->one)
        return;
    pthread_mutex_lock(&ms->lock);
    m->used = ++ms->clock;
    m->used_us = clock_now_us();
    if (--m->refs == 0)
        pthread_cond_signal(&ms->wake);
    pthread_mutex_unlock(&ms->lock);
}

struct server_model *server_models_peek(struct server_models *ms, const char *name)
{
    struct server_model *found = NULL;
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; i < ms->n && !found; i++)
        if (ms->models[i].state == LOADED && (!*name || ms->one || strcmp(ms->models[i].name, name) == 0))
            found = &ms->models[i];
    if (found)
        found->refs += !ms->one;
    pthread_mutex_unlock(&ms->lock);
    return found;
}

int server_model_retry_after_s(const struct server_model *m)
{
    struct engine_metrics now;
    engine_metrics(m->eng, &now);
    double mean_s = now.inference_time.total ? now.inference_time.sum / (double)now.inference_time.total : 1;
    double s = mean_s * (now.num_requests_waiting + 1) / engine_info(m->eng)->max_num_seqs;
    return s < 1 ? 1 : s > 60 ? 60 : (int)(s + 0.999);
}

const struct api *server_model_api(const struct server_model *m) { return m->api; }
struct engine *server_model_engine(const struct server_model *m) { return m->eng; }
struct tgi_stats *server_model_tgi(struct server_model *m) { return &m->tgi; }

bool server_models_reset_prefix_cache(struct server_models *ms)
{
    bool ok = true;
    for (int i = 0; i < ms->n; i++) {
        struct server_model *m = &ms->models[i];
        pthread_mutex_lock(&ms->lock);
        bool loaded = m->state == LOADED;
        m->refs += loaded && !ms->one;
        pthread_mutex_unlock(&ms->lock);
        if (!loaded)
            continue;
        ok &= engine_reset_prefix_cache(m->eng);
        server_model_leave(m);
    }
    return ok;
}

void server_models_visit(struct server_models *ms, void (*visit)(void *ctx, const struct server_model_view *v), void *ctx)
{
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; i < ms->n; i++) {
        struct server_model *m = &ms->models[i];
        struct server_model_view v = {.name = m->name, .state = state_names[m->state], .api = m->api, .max_model_len = m->max_model_len,
                                      .created_s = m->created_s, .n_loads = m->n_loads, .n_failures = m->n_failures, .load_s = m->load_s,
                                      .n_parked = (int32_t)m->n_parked};
        if (m->eng) {
            v.info = engine_info(m->eng);
            engine_metrics(m->eng, &v.metrics);
        }
        engine_metrics_add(&v.metrics, &m->past);
        ms->view_batches = m->past_batches;
        if (m->eng) {
            engine_batches(m->eng, &ms->view_batches);
            engine_batches_add(&ms->view_batches, &m->past_batches);
        }
        v.batches = &ms->view_batches;
        tgi_stats_get(&m->tgi, &ms->view_tgi);
        v.tgi = &ms->view_tgi;
        if (ms->one)
            v.name = api_model_name(m->api);
        v.root = v.info ? v.info->model_name : m->engine_opts.model_name ? m->engine_opts.model_name : v.name;
        visit(ctx, &v);
    }
    pthread_mutex_unlock(&ms->lock);
}
