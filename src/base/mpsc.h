/* base/mpsc.h - unbounded intrusive queue, many producers, one consumer (Vyukov).
 *
 * Push never blocks.  The consumer waits with mpsc_wait, which sleeps on a futex. */
#ifndef QUIRE_BASE_MPSC_H
#define QUIRE_BASE_MPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mpsc_node { _Atomic(struct mpsc_node *) next; };  /* embed in the message */

struct mpsc {
    _Atomic(struct mpsc_node *) head;   /* producers swap in here */
    struct mpsc_node *tail;             /* consumer's */
    struct mpsc_node stub;
    _Atomic(uint32_t) signal;           /* futex word: counts pushes and wakes */
    _Atomic(uint32_t) sleeping;
    uint32_t seen;                      /* consumer's: signal at its last wait */
};

void mpsc_init(struct mpsc *q);
void mpsc_push(struct mpsc *q, struct mpsc_node *node);
struct mpsc_node *mpsc_pop(struct mpsc *q);   /* NULL: empty (or a push is half done) */
/* Sleep until something was pushed or mpsc_wake was called since the last mpsc_wait returned, or timeout_us
 * passed (< 0: none).  So a push that was popped meanwhile makes one wait return at once: pop until
 * NULL, then wait, in a loop. */
void mpsc_wait(struct mpsc *q, int64_t timeout_us);
void mpsc_wake(struct mpsc *q);

#endif
