/* Orders: precedence among running sequences, the waiting line, deadlines. */
#include <string.h>

#include "base/vec.h"
#include "sched/sched_int.h"

static bool arrived_before(const struct sched_seq *a, const struct sched_seq *b)
{
    if (a->arrival_us != b->arrival_us)
        return a->arrival_us < b->arrival_us;
    if (a->group != b->group)
        return a->group < b->group;
    return a->member < b->member;
}

bool sched_before(const struct sched_seq *a, const struct sched_seq *b)
{
    return a->priority != b->priority ? a->priority < b->priority : arrived_before(a, b);
}

bool sched_heap_before(enum seq_heap h, const struct sched_seq *a, const struct sched_seq *b)
{
    if (h == HEAP_DEADLINE)
        return a->deadline_us < b->deadline_us;
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->preempted != b->preempted)
        return a->preempted;
    return arrived_before(a, b);
}

bool sched_reserve_seqs(struct sched *s, int32_t n)
{
    for (int h = 0; h < N_HEAPS; h++)
        if (!vec_reserve((void **)&s->heaps[h].items, &s->heaps[h].cap, (size_t)n, sizeof *s->heaps[h].items))
            return false;
    return vec_reserve((void **)&s->expired, &s->cap_expired, (size_t)n, sizeof *s->expired);
}

static void place(struct seq_queue *q, enum seq_heap h, int32_t at, struct sched_seq *seq)
{
    q->items[at] = seq;
    seq->pos[h] = at;
}

/* Moves seq, whose place is at, to where it belongs; at itself may hold anything. */
static void sift(struct seq_queue *q, enum seq_heap h, int32_t at, struct sched_seq *seq)
{
    while (at > 0 && sched_heap_before(h, seq, q->items[(at - 1) / 2])) {
        place(q, h, at, q->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= q->n)
            break;
        if (child + 1 < q->n && sched_heap_before(h, q->items[child + 1], q->items[child]))
            child++;
        if (!sched_heap_before(h, q->items[child], seq))
            break;
        place(q, h, at, q->items[child]);
        at = child;
    }
    place(q, h, at, seq);
}

void sched_heap_push(struct sched *s, enum seq_heap h, struct sched_seq *seq)
{
    struct seq_queue *q = &s->heaps[h];
    sift(q, h, q->n++, seq);
}

void sched_heap_remove(struct sched *s, enum seq_heap h, struct sched_seq *seq)
{
    struct seq_queue *q = &s->heaps[h];
    int32_t at = seq->pos[h];
    if (at < 0)
        return;
    seq->pos[h] = -1;
    struct sched_seq *last = q->items[--q->n];
    if (last != seq)
        sift(q, h, at, last);
}

void sched_running_insert(struct sched *s, struct sched_seq *seq)
{
    int32_t at = s->n_running++;
    for (; at > 0 && sched_before(seq, s->running[at - 1]); at--)
        s->running[at] = s->running[at - 1];
    s->running[at] = seq;
    seq->state = SEQ_RUNNING;
    s->slots_used += seq->slots;
}

void sched_running_remove(struct sched *s, struct sched_seq *seq)
{
    int32_t at = s->n_running - 1;      /* victims are last */
    while (s->running[at] != seq)
        at--;
    memmove(&s->running[at], &s->running[at + 1], (size_t)(s->n_running - 1 - at) * sizeof *s->running);
    s->n_running--;
    seq->state = SEQ_WAITING;
    s->slots_used -= seq->slots;
}
