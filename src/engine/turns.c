/* Who computes next: a ticket lock whose waiters sleep. */
#include <pthread.h>
#include "base/mem.h"
#include "engine/engine_int.h"

struct engine_turns {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint64_t next, serving;
};

struct engine_turns *engine_turns_open(void)
{
    struct engine_turns *t = mem_try_zalloc(1, sizeof *t);
    if (t) {
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->cond, NULL);
    }
    return t;
}

void engine_turns_close(struct engine_turns **t)
{
    if (!*t)
        return;
    pthread_mutex_destroy(&(*t)->lock);
    pthread_cond_destroy(&(*t)->cond);
    mem_free(*t);
    *t = NULL;
}

void engine_turns_take(struct engine_turns *t)
{
    pthread_mutex_lock(&t->lock);
    for (uint64_t mine = t->next++; t->serving != mine;)
        pthread_cond_wait(&t->cond, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

void engine_turns_give(struct engine_turns *t)
{
    pthread_mutex_lock(&t->lock);
    t->serving++;
    pthread_cond_broadcast(&t->cond);
    pthread_mutex_unlock(&t->lock);
}
