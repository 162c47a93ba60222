#include "base/tpool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex_int.h"
#include "base/mem.h"
#include "base/topo_int.h"

/* Between runs members spin longer than inside, to outlast what lies between two steps of one stream, sampling above all: waking a sleeper takes
 * up to 50 us. */
enum { MAX_THREADS = 4096, DEFAULT_SPIN_US = 50, START_SPINS = 4, PAUSES_PER_CLOCK = 16 };
/* A member that has been waited for so long has lost its core to another process: for a while, waits give up their core
 * almost at once, so that it can go on there.  Where a process does compute there, the next loss comes within so many waits. */
enum { LOST_CORE_NS = 300000, SHORT_SPIN_NS = 4000, SHORT_WAITS = 64 };

/* A word that changes when something has happened, and how many sleep on it.  Everything on it
 * is sequentially consistent where it must be: a waiter announces itself and then looks at the
 * word, a waker changes the word and then looks for waiters, so one of them sees the other. */
struct event {
    _Alignas(64) _Atomic(uint32_t) word;
    _Atomic(uint32_t) n_sleeping;
};

struct member {
    struct tpool *tp;
    pthread_t thread;
    int index;
};

struct tpool {
    int n;              /* members, the leader included */
    int64_t spin_ns;    /* 0: sleep at once */
    bool pin;
    struct topo_cpus cpus;

    struct member *members;     /* [n]; 0 is the leader and has no thread of ours */
    int n_started;              /* threads running are 1..n_started */
    pid_t leader;               /* thread id of the bound leader, 0: none (pin only) */
    pthread_t leader_thread;    /* the same, cheap to compare */
    cpu_set_t opener_mask;      /* what a leader may use again once it is unbound */

    /* Written by the leader before a start, read by members after it. */
    tpool_fn *fn;               /* NULL: leave */
    void *arg;

    struct event start;         /* one step a run */
    struct event done;          /* one step a run, by the last member that finishes */
    struct event turn;          /* one step a barrier */
    _Alignas(64) _Atomic(int) n_busy;       /* members other than the leader still inside fn */
    _Alignas(64) _Atomic(int) n_arrived;    /* at the barrier */
    _Alignas(64) _Atomic(int64_t) next_item;
    _Alignas(64) _Atomic(int) n_short;      /* waits that will still spin only shortly; a hint, so races may lose counts */
};

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns once ev's word is no longer `old`: spins for a while, then sleeps.  Returns whether it slept. */
static bool event_wait(struct event *ev, uint32_t old, int64_t spin_ns)
{
    if (atomic_load_explicit(&ev->word, memory_order_acquire) != old)
        return false;
    if (spin_ns > 0) {
        int64_t end = clock_now_ns() + spin_ns;
        do {
            for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
                cpu_relax();
                if (atomic_load_explicit(&ev->word, memory_order_acquire) != old)
                    return false;
            }
        } while (clock_now_ns() < end);
    }
    atomic_fetch_add(&ev->n_sleeping, 1);
    while (atomic_load(&ev->word) == old)
        futex_wait(&ev->word, old, -1);
    atomic_fetch_sub_explicit(&ev->n_sleeping, 1, memory_order_relaxed);
    return true;
}

static void event_step(struct event *ev)
{
    atomic_fetch_add(&ev->word, 1);
    if (atomic_load(&ev->n_sleeping))
        futex_wake_all(&ev->word);
}

static int64_t spin_of(const struct tpool *tp)
{
    bool shortly = atomic_load_explicit(&tp->n_short, memory_order_relaxed) > 0;
    return shortly && tp->spin_ns > SHORT_SPIN_NS ? SHORT_SPIN_NS : tp->spin_ns;
}

/* Waits for other members inside a run, where a long wait tells that one has lost its core. */
static void wait_for_team(struct tpool *tp, struct event *ev, uint32_t old)
{
    if (atomic_load_explicit(&ev->word, memory_order_acquire) != old)
        return;
    int n_short = atomic_load_explicit(&tp->n_short, memory_order_relaxed);
    int64_t start = clock_now_ns();
    if (event_wait(ev, old, spin_of(tp)) && clock_now_ns() - start > LOST_CORE_NS)
        atomic_store_explicit(&tp->n_short, SHORT_WAITS, memory_order_relaxed);
    else if (n_short > 0)
        atomic_store_explicit(&tp->n_short, n_short - 1, memory_order_relaxed);
}

/* Binds the calling thread to the i-th CPU.  A refusal costs speed only, so it is ignored. */
static void bind_to(const struct tpool *tp, int i)
{
    cpu_set_t set;
    int cpu = tp->cpus.cpus[i];
    if (cpu >= CPU_SETSIZE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

static void *member_main(void *arg)
{
    struct member *me = arg;
    struct tpool *tp = me->tp;
    char name[16];
    snprintf(name, sizeof name, "quire-team%d", me->index);
    (void)pthread_setname_np(pthread_self(), name);
    if (tp->pin)
        bind_to(tp, me->index);
    for (uint32_t seen = 0;; seen++) {
        event_wait(&tp->start, seen, START_SPINS * spin_of(tp));
        if (!tp->fn)
            return NULL;
        tp->fn(tp->arg, me->index, tp->n);
        if (atomic_fetch_sub_explicit(&tp->n_busy, 1, memory_order_acq_rel) == 1)
            event_step(&tp->done);
    }
}

/* The program's signals are for its own threads: the team is created with all blocked. */
static bool start_members(struct tpool *tp, struct err *e)
{
    sigset_t all, old;
    int failed = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 1; i < tp->n && !failed; i++) {
        tp->members[i].tp = tp;
        tp->members[i].index = i;
        failed = pthread_create(&tp->members[i].thread, NULL, member_main, &tp->members[i]);
        if (!failed)
            tp->n_started = i;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!failed)
        return true;
    char text[128];
    return err_set(e, ERR_IO, "cannot start compute thread %d of %d: %s", tp->n_started + 1, tp->n,
                   strerror_r(failed, text, sizeof text));
}

/* CPUs the team may count on at the same time. */
static int usable(int n_cpus, int quota)
{
    return quota > 0 && quota < n_cpus ? quota : n_cpus;
}

bool tpool_open(struct tpool **out, const struct tpool_opts *opts, struct err *e)
{
    *out = NULL;
    if (opts->n_threads < 0 || opts->n_threads > MAX_THREADS)
        return err_set(e, ERR_INVALID, "number of threads is %d: expected 0 (all cores) to %d", opts->n_threads, MAX_THREADS);
    struct tpool *tp = mem_try_aligned(sizeof *tp);
    if (!tp || !topo_cpus_read(&tp->cpus)) {
        mem_free(tp);
        return err_set(e, ERR_NOMEM, "no memory for the compute team");
    }
    int quota = topo_cpu_quota();
    tp->n = opts->n_threads ? opts->n_threads : usable(tp->cpus.n_cores, quota);
    /* With fewer CPUs than members, spinning keeps the one that is waited for from running. */
    if (tp->n <= usable(tp->cpus.n_pus, quota))
        tp->spin_ns = (int64_t)(opts->spin_us < 0 ? DEFAULT_SPIN_US : opts->spin_us) * 1000;
    tp->pin = opts->pin && tp->n <= tp->cpus.n_pus &&
              sched_getaffinity(0, sizeof tp->opener_mask, &tp->opener_mask) == 0;
    tp->members = mem_try_zalloc((size_t)tp->n, sizeof *tp->members);
    if (!tp->members) {
        err_set(e, ERR_NOMEM, "no memory for %d compute threads", tp->n);
        tpool_close(&tp);
        return false;
    }
    if (!start_members(tp, e)) {
        tpool_close(&tp);
        return false;
    }
    *out = tp;
    return true;
}

/* The former leader may have ended long ago; its number must still be one of our threads. */
static void unbind_leader(struct tpool *tp)
{
    if (tp->leader && tgkill(getpid(), tp->leader, 0) == 0)
        (void)sched_setaffinity(tp->leader, sizeof tp->opener_mask, &tp->opener_mask);
    tp->leader = 0;
}

void tpool_close(struct tpool **pool)
{
    struct tpool *tp = *pool;
    if (!tp)
        return;
    tp->fn = NULL;
    event_step(&tp->start);
    for (int i = 1; i <= tp->n_started; i++)
        pthread_join(tp->members[i].thread, NULL);
    unbind_leader(tp);
    mem_free(tp->members);
    mem_free(tp->cpus.cpus);
    mem_free(tp);
    *pool = NULL;
}

int tpool_size(const struct tpool *tp)
{
    return tp->n;
}

/* The leader is whoever calls: it is bound at its first run. */
static void bind_leader(struct tpool *tp)
{
    if (tp->leader && pthread_equal(tp->leader_thread, pthread_self()))
        return;
    unbind_leader(tp);
    tp->leader = gettid();
    tp->leader_thread = pthread_self();
    bind_to(tp, 0);
}

void tpool_run(struct tpool *tp, tpool_fn *fn, void *arg)
{
    if (tp->pin)
        bind_leader(tp);
    atomic_store_explicit(&tp->next_item, 0, memory_order_relaxed);
    if (tp->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    uint32_t before = atomic_load_explicit(&tp->done.word, memory_order_relaxed);
    tp->fn = fn;
    tp->arg = arg;
    atomic_store_explicit(&tp->n_busy, tp->n - 1, memory_order_relaxed);
    event_step(&tp->start); /* publishes the four stores above */
    fn(arg, 0, tp->n);
    wait_for_team(tp, &tp->done, before);
}

/* The last to arrive opens the barrier; what all did before it is then visible to all. */
static void barrier(struct tpool *tp, bool reset)
{
    uint32_t before = atomic_load_explicit(&tp->turn.word, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&tp->n_arrived, 1, memory_order_acq_rel) + 1 < tp->n) {
        wait_for_team(tp, &tp->turn, before);
        return;
    }
    atomic_store_explicit(&tp->n_arrived, 0, memory_order_relaxed);
    if (reset)
        atomic_store_explicit(&tp->next_item, 0, memory_order_relaxed);
    event_step(&tp->turn);
}

void tpool_barrier(struct tpool *tp, int member)
{
    (void)member; /* named in the interface so that a barrier could be a tree; a counter needs no name */
    barrier(tp, false);
}

void tpool_barrier_reset(struct tpool *tp, int member)
{
    (void)member;
    barrier(tp, true);
}

int64_t tpool_next(struct tpool *tp)
{
    return atomic_fetch_add_explicit(&tp->next_item, 1, memory_order_relaxed);
}
