/* From the engine's thread to the socket threads: a queue, and one thread that resumes what was put into it. */
#include "server/http_int.h"

void http_wake(void *exchange)
{
    struct http_exchange *x = exchange;
    if (atomic_exchange_explicit(&x->wake_queued, true, memory_order_acq_rel))
        return;
    http_exchange_ref(x);
    mpsc_push(&x->h->wakes, &x->wake_node);
}

static void *wake_main(void *arg)
{
    struct http *h = arg;
    pthread_setname_np(pthread_self(), "quire-wake");
    while (!atomic_load(&h->stopping)) {
        struct mpsc_node *node;
        while ((node = mpsc_pop(&h->wakes)) != NULL) {
            struct http_exchange *x = (struct http_exchange *)((char *)node - offsetof(struct http_exchange, wake_node));
            /* Before the resume: what is announced from now on needs a wake of its own. */
            atomic_store_explicit(&x->wake_queued, false, memory_order_release);
            http_exchange_resume(x);
            http_exchange_unref(x);
        }
        mpsc_wait(&h->wakes, -1);
    }
    return NULL;
}

bool http_wake_open(struct http *h, struct err *e)
{
    mpsc_init(&h->wakes);
    if (pthread_create(&h->wake_thread, NULL, wake_main, h) != 0)
        return err_set(e, ERR_IO, "the thread that resumes requests could not be started");
    h->wake_started = true;
    return true;
}

void http_wake_close(struct http *h)
{
    if (!h->wake_started)
        return;
    mpsc_wake(&h->wakes);
    pthread_join(h->wake_thread, NULL);
    struct mpsc_node *node;
    while ((node = mpsc_pop(&h->wakes)) != NULL)
        http_exchange_unref((struct http_exchange *)((char *)node - offsetof(struct http_exchange, wake_node)));
}
