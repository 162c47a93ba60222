/* Streams: the events of a request between the engine thread and its reader. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include "base/mem.h"
#include "engine/engine_int.h"

/* ---- event queue ---- */

enum { CHUNK_BYTES = 4096 };

/* A record is its size, the event, and behind it whatever the event points to. */
struct record { size_t bytes; struct engine_event ev; };

static size_t align16(size_t n) { return (n + 15) & ~(size_t)15; }

static struct evq_chunk *chunk_for(struct evq *q, size_t bytes)
{
    if (q->last && q->last->cap - q->last->used >= bytes)
        return q->last;
    size_t cap = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    struct evq_chunk *c = mem_try_alloc(1, sizeof *c + cap);
    if (!c)
        return NULL;
    *c = (struct evq_chunk){.cap = cap};
    if (q->last)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
    return c;
}

/* Copy bytes behind the record; NULL for none. */
static const void *append(unsigned char **p, const void *src, size_t bytes)
{
    if (!bytes)
        return NULL;
    void *at = memcpy(*p, src, bytes);
    *p += align16(bytes);
    return at;
}

bool evq_push(struct evq *q, const struct engine_event *ev, int32_t vocab, int32_t hidden)
{
    size_t ids = (size_t)ev->lp.n * sizeof(int32_t), lps = (size_t)ev->lp.n * sizeof(float);
    size_t message = ev->message ? strlen(ev->message) + 1 : 0;
    size_t logits = ev->logits ? (size_t)vocab * sizeof(float) : 0, state = ev->hidden ? (size_t)hidden * sizeof(float) : 0;
    size_t bytes = align16(sizeof(struct record)) + align16(ids) + align16(lps) + align16(message) + align16(logits) + align16(state);
    struct evq_chunk *c = chunk_for(q, bytes);
    if (!c) {
        q->failed = true;
        return false;
    }
    struct record *r = (struct record *)(void *)(c->data + c->used);
    unsigned char *p = (unsigned char *)r + align16(sizeof *r);
    *r = (struct record){bytes, *ev};
    r->ev.lp.ids = append(&p, ev->lp.ids, ids);
    r->ev.lp.logprobs = append(&p, ev->lp.logprobs, lps);
    r->ev.message = append(&p, ev->message, message);
    r->ev.logits = append(&p, ev->logits, logits);
    r->ev.hidden = append(&p, ev->hidden, state);
    c->used += bytes;
    return true;
}

bool evq_pop(struct evq *q, struct engine_event *ev)
{
    while (q->first && q->read == q->first->used) {
        if (!q->first->next)
            return false; /* the last chunk is kept: the reader may still look at its last event */
        struct evq_chunk *next = q->first->next;
        mem_free(q->first);
        q->first = next;
        q->read = 0;
    }
    if (!q->first)
        return false;
    const struct record *r = (const struct record *)(const void *)(q->first->data + q->read);
    *ev = r->ev;
    q->read += r->bytes;
    return true;
}

void evq_free(struct evq *q)
{
    for (struct evq_chunk *c = q->first; c;) {
        struct evq_chunk *next = c->next;
        mem_free(c);
        c = next;
    }
    *q = (struct evq){0};
}

/* ---- engine side ---- */

void stream_touch(struct engine_stream *st)
{
    if (st->touched)
        return;
    st->touched = true;
    st->next_touched = st->eng->touched;
    st->eng->touched = st;
}

void stream_emit(struct engine_stream *st, struct choice *c, const struct engine_event *ev)
{
    const struct engine_info *info = &st->eng->info;
    if (c && st->n_total > st->n && !st->beam) {
        evq_push(&c->held, ev, info->vocab_size, info->hidden_size);
        return;
    }
    pthread_mutex_lock(&st->lock);
    if (!st->reader_closed)
        evq_push(&st->events, ev, info->vocab_size, info->hidden_size); /* without memory the queue's failed flag tells the reader */
    pthread_mutex_unlock(&st->lock);
    stream_touch(st);
}

void stream_flush(struct engine *eng)
{
    for (struct engine_stream *st = eng->touched, *next; st; st = next) {
        next = st->next_touched;
        st->touched = false;
        pthread_mutex_lock(&st->lock);
        pthread_cond_signal(&st->cond);
        if (st->notify && !st->reader_closed)
            st->notify(st->notify_ctx);
        pthread_mutex_unlock(&st->lock);
        if (st->finished)
            stream_unref(st); /* the engine's reference: nothing of it is left here */
    }
    eng->touched = NULL;
}

void stream_unref(struct engine_stream *st)
{
    if (atomic_fetch_sub_explicit(&st->refs, 1, memory_order_acq_rel) != 1)
        return;
    evq_free(&st->events);
    pthread_mutex_destroy(&st->lock);
    pthread_cond_destroy(&st->cond);
    guide_unref(&st->guide);
    mem_free(st->params);
    mem_free(st->pooled);
    mem_free(st->mean);
    mem_free(st->tokens);
    mem_free(st->choices);
    mem_free(st);
}

/* ---- reader side ---- */

bool engine_stream_next(struct engine_stream *st, struct engine_event *ev)
{
    pthread_mutex_lock(&st->lock);
    bool got = evq_pop(&st->events, ev);
    if (!got && st->events.failed) {
        st->events.failed = false;
        *ev = (struct engine_event){.type = ENGINE_EV_ERROR, .code = ERR_NOMEM, .stop_token = -1,
                                    .message = "out of memory while generating"};
        got = true;
    }
    pthread_mutex_unlock(&st->lock);
    return got;
}

static bool has_event(const struct engine_stream *st)
{
    const struct evq *q = &st->events;
    return q->failed || (q->first && (q->read < q->first->used || q->first->next));
}

bool engine_stream_wait(struct engine_stream *st, int64_t timeout_us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (timeout_us > 0 ? timeout_us % 1000000 * 1000 : 0);
    until.tv_sec += (timeout_us > 0 ? timeout_us / 1000000 : 0) + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&st->lock);
    int rc = 0;
    while (!has_event(st) && rc == 0 && timeout_us != 0)
        rc = timeout_us < 0 ? pthread_cond_wait(&st->cond, &st->lock) : pthread_cond_timedwait(&st->cond, &st->lock, &until);
    bool got = has_event(st);
    pthread_mutex_unlock(&st->lock);
    return got;
}

void engine_stream_times(const struct engine_stream *cst, struct engine_times *out)
{
    struct engine_stream *st = (struct engine_stream *)cst; /* the lock is not part of what const promises */
    pthread_mutex_lock(&st->lock);
    *out = st->times;
    pthread_mutex_unlock(&st->lock);
}

void engine_stream_cancel(struct engine_stream *st, int32_t choice, enum engine_finish finish)
{
    struct msg *m = mem_try_zalloc(1, sizeof *m);
    if (!m)
        return; /* closing the stream still cancels: its message is preallocated */
    atomic_fetch_add_explicit(&st->refs, 1, memory_order_relaxed);
    m->type = MSG_CANCEL;
    m->stream = st;
    m->choice = choice;
    m->finish = finish;
    mpsc_push(&st->eng->inbox, &m->node);
}

void engine_stream_close(struct engine_stream **pst)
{
    struct engine_stream *st = *pst;
    if (!st)
        return;
    *pst = NULL;
    pthread_mutex_lock(&st->lock);
    st->reader_closed = true;
    st->notify = NULL;
    pthread_mutex_unlock(&st->lock);
    st->close_msg.type = MSG_CLOSE;
    st->close_msg.stream = st; /* the reader's reference travels with the message */
    mpsc_push(&st->eng->inbox, &st->close_msg.node);
}
