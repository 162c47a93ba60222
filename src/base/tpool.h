/* base/tpool.h - the compute team: a fixed set of threads that run one function together.
 *
 * The leader calls tpool_run; fn runs once on every member (leader included, as member 0) and
 * tpool_run returns when all are done.  Waiting is a short bounded spin and then a futex:
 * a busy neighbour on a core costs a time slice, not a collapse, and an idle team costs
 * nothing.  Inside fn, tpool_barrier joins the team again, and tpool_next hands out work
 * items from a shared counter, so that a thread that lost its core holds up one item only.
 *
 * Only one thread may lead a team at a time.  fn must not call tpool_run on the same team. */
#ifndef QUIRE_BASE_TPOOL_H
#define QUIRE_BASE_TPOOL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct tpool;

struct tpool_opts {
    int n_threads;     /* >= 1, leader included; 0 = all cores this process may use */
    bool pin;          /* bind member i to the i-th allowed core (not when there are more members than
                        * CPUs); the leader from its first run until another leads or tpool_close.
                        * Threads that a bound leader creates inherit its one core: create them before. */
    int spin_us;       /* how long to spin before sleeping; < 0 = default (50); between runs four times that */
};

bool tpool_open(struct tpool **out, const struct tpool_opts *opts, struct err *e);
void tpool_close(struct tpool **tp);
int tpool_size(const struct tpool *tp);

typedef void tpool_fn(void *arg, int member, int n_members);
void tpool_run(struct tpool *tp, tpool_fn *fn, void *arg);

/* Inside fn only: all members reach it before any leaves it. */
void tpool_barrier(struct tpool *tp, int member);

/* Inside fn only: the next of n items in this run (or since the last barrier that reset it), in ascending order, each given to one
 * member once; n or more means none is left.  tpool_run resets the counter to 0. */
int64_t tpool_next(struct tpool *tp);
/* Inside fn, by every member: barrier, then the item counter starts again at 0. */
void tpool_barrier_reset(struct tpool *tp, int member);

#endif
