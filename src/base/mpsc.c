#include "base/mpsc.h"

#include <stddef.h>

#include "base/clock.h"
#include "base/futex_int.h"

/* D. Vyukov's intrusive queue: producers swap themselves in at head and then link the node
 * before them; the consumer follows the links from tail.  The stub keeps the list non-empty. */

void mpsc_init(struct mpsc *q)
{
    atomic_init(&q->stub.next, NULL);
    atomic_init(&q->head, &q->stub);
    q->tail = &q->stub;
    atomic_init(&q->signal, 0);
    atomic_init(&q->sleeping, 0);
    q->seen = 0;
}

static void link_node(struct mpsc *q, struct mpsc_node *node)
{
    atomic_store_explicit(&node->next, NULL, memory_order_relaxed);
    struct mpsc_node *before = atomic_exchange_explicit(&q->head, node, memory_order_acq_rel);
    /* Between these two lines the node is not reachable yet: the push is half done. */
    atomic_store_explicit(&before->next, node, memory_order_release);
}

void mpsc_wake(struct mpsc *q)
{
    /* Sequentially consistent, as in mpsc_wait: either we see the consumer about to sleep or
     * it sees the new signal. */
    atomic_fetch_add(&q->signal, 1);
    if (atomic_load(&q->sleeping))
        futex_wake_all(&q->signal);
}

void mpsc_push(struct mpsc *q, struct mpsc_node *node)
{
    link_node(q, node);
    mpsc_wake(q);
}

struct mpsc_node *mpsc_pop(struct mpsc *q)
{
    struct mpsc_node *tail = q->tail;
    struct mpsc_node *next = atomic_load_explicit(&tail->next, memory_order_acquire);
    if (tail == &q->stub) {
        if (!next)
            return NULL;
        q->tail = tail = next;
        next = atomic_load_explicit(&tail->next, memory_order_acquire);
    }
    if (next) {
        q->tail = next;
        return tail;
    }
    if (tail != atomic_load_explicit(&q->head, memory_order_acquire))
        return NULL; /* the push after tail is half done */
    /* tail is the last node: put the stub behind it, so that it can be given out. */
    link_node(q, &q->stub);
    next = atomic_load_explicit(&tail->next, memory_order_acquire);
    if (!next)
        return NULL;
    q->tail = next;
    return tail;
}

void mpsc_wait(struct mpsc *q, int64_t timeout_us)
{
    int64_t end = timeout_us < 0 ? 0 : clock_now_us() + timeout_us;
    atomic_store(&q->sleeping, 1);
    while (atomic_load(&q->signal) == q->seen) {
        int64_t left = timeout_us < 0 ? -1 : end - clock_now_us();
        if (timeout_us >= 0 && left <= 0)
            break;
        futex_wait(&q->signal, q->seen, left);
    }
    atomic_store(&q->sleeping, 0);
    q->seen = atomic_load(&q->signal);
}
