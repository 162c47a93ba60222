#include "sched/sched.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "sched/sched_int.h"

static bool opts_valid(const struct sched_opts *o, struct err *e)
{
    if (o->n_blocks < 2 || o->block_tokens < 1)
        return err_set(e, ERR_INVALID, "scheduler: %d pages of %d tokens; at least 2 pages (page 0 is reserved) of 1 token are needed",
                       o->n_blocks, o->block_tokens);
    if (o->max_num_seqs < 1 || o->max_batched_tokens < 1 || o->max_model_len < 1)
        return err_set(e, ERR_INVALID, "scheduler: max_num_seqs %d, max_batched_tokens %d and max_model_len %d must be at least 1",
                       o->max_num_seqs, o->max_batched_tokens, o->max_model_len);
    if (o->max_logit_rows < o->max_num_seqs)
        return err_set(e, ERR_INVALID, "scheduler: max_logit_rows %d must be at least max_num_seqs %d", o->max_logit_rows, o->max_num_seqs);
    if (o->window < 0 || o->long_prefill_threshold < 0)
        return err_set(e, ERR_INVALID, "scheduler: window %d and long_prefill_threshold %d must not be negative", o->window,
                       o->long_prefill_threshold);
    return true;
}

bool sched_open(struct sched **out, const struct sched_opts *o, struct err *e)
{
    *out = NULL;
    if (!opts_valid(o, e))
        return false;
    struct sched *s = mem_try_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "scheduler: no memory");
    s->opts = *o;
    s->max_chunk = o->max_batched_tokens;
    if (o->long_prefill_threshold > 0 && o->long_prefill_threshold < s->max_chunk)
        s->max_chunk = o->long_prefill_threshold;
    size_t n = (size_t)o->max_num_seqs;
    s->running = mem_try_alloc(n, sizeof *s->running);
    s->items = mem_try_alloc(n, sizeof *s->items);
    s->copies = mem_try_alloc(n, sizeof *s->copies);
    s->check_refs = mem_try_alloc((size_t)o->n_blocks, 2 * sizeof *s->check_refs);
    if (!s->running || !s->items || !s->copies || !s->check_refs) {
        err_set(e, ERR_NOMEM, "scheduler: no memory for %d sequences and %d pages", o->max_num_seqs, o->n_blocks);
        goto fail;
    }
    if (!kv_pool_open(&s->pool, &(struct kv_pool_opts){.n_blocks = o->n_blocks}, e))
        goto fail;
    if (o->prefix_caching &&
        !kv_prefix_open(&s->prefix, s->pool, &(struct kv_prefix_opts){.block_tokens = o->block_tokens}, e))
        goto fail;
    *out = s;
    return true;
fail:
    sched_close(&s);
    return false;
}

void sched_close(struct sched **sp)
{
    struct sched *s = *sp;
    if (!s)
        return;
    while (s->all)
        sched_end(s, s->all);
    kv_prefix_close(&s->prefix);
    kv_pool_close(&s->pool);
    for (int h = 0; h < N_HEAPS; h++)
        mem_free(s->heaps[h].items);
    mem_free(s->expired);
    mem_free(s->check_refs);
    mem_free(s->copies);
    mem_free(s->items);
    mem_free(s->running);
    mem_free(s);
    *sp = NULL;
}

int32_t sched_peak_pages(const struct sched *s, int64_t n_tokens, int64_t chunk)
{
    int64_t all = sched_pages_of(s, n_tokens);
    if (s->opts.window == 0)
        return (int32_t)all;
    /* A chunk reads from window - 1 positions before its first to its last; at worst that span
     * begins on a page's last position. */
    int64_t span = (int64_t)s->opts.window - 1 + chunk;
    int64_t peak = (span + s->opts.block_tokens - 2) / s->opts.block_tokens + 1;
    return (int32_t)(peak < all ? peak : all);
}

/* R4, and what is wrong with the request itself. */
static bool request_fits(const struct sched *s, const struct sched_request *r, struct err *e)
{
    if (r->n_tokens < 1 || r->max_new_tokens < 0 || r->n_choices < 1)
        return err_set(e, ERR_INVALID, "request: %d prompt tokens, %d new ones, %d choices; at least 1, 0 and 1 are needed", r->n_tokens,
                       r->max_new_tokens, r->n_choices);
    int64_t total = (int64_t)r->n_tokens + r->max_new_tokens;
    if (total > s->opts.max_model_len)
        return err_set(e, ERR_TOO_LARGE, "request: %d prompt + %d new tokens exceed max_model_len %d", r->n_tokens, r->max_new_tokens,
                       s->opts.max_model_len);
    if (r->n_choices > s->opts.max_num_seqs)
        return err_set(e, ERR_TOO_LARGE, "request: %d choices exceed max_num_seqs %d", r->n_choices, s->opts.max_num_seqs);
    int32_t need = sched_peak_pages(s, total, 1), have = s->opts.n_blocks - 1;
    if (need > have)
        return err_set(e, ERR_TOO_LARGE, "request: %lld tokens need %d KV pages of %d tokens; there are %d", (long long)total, need,
                       s->opts.block_tokens, have);
    return true;
}

/* A sequence with room for cap_tokens and their pages, in no list. */
static struct sched_seq *seq_alloc(const struct sched *s, int32_t cap_tokens)
{
    size_t ints = (size_t)cap_tokens + (size_t)sched_pages_of(s, cap_tokens);
    size_t bytes;
    if (!mem_mul(ints, sizeof(int32_t), &bytes) || !mem_add(bytes, sizeof(struct sched_seq), &bytes))
        return NULL;
    struct sched_seq *seq = mem_try_alloc(bytes, 1);
    if (!seq)
        return NULL;
    *seq = (struct sched_seq){.cap_tokens = cap_tokens, .slots = 1, .n_cached = -1, .pos = {-1, -1}, .item = -1};
    seq->table = seq->tokens + cap_tokens;
    return seq;
}

static void seq_link(struct sched *s, struct sched_seq *seq)
{
    seq->next = s->all;
    if (s->all)
        s->all->prev = seq;
    s->all = seq;
    s->n_seqs++;
    if (seq->deadline_us != 0)
        sched_heap_push(s, HEAP_DEADLINE, seq);
}

bool sched_add(struct sched *s, const struct sched_request *r, struct sched_seq **out, struct err *e)
{
    *out = NULL;
    if (!request_fits(s, r, e))
        return false;
    if (s->n_seqs == INT32_MAX || !sched_reserve_seqs(s, s->n_seqs + 1))
        return err_set(e, ERR_NOMEM, "scheduler: no memory for one more than %d sequences", s->n_seqs);
    struct sched_seq *seq = seq_alloc(s, r->n_tokens + r->max_new_tokens);
    if (!seq)
        return err_set(e, ERR_NOMEM, "scheduler: no memory for a sequence of %d tokens", r->n_tokens + r->max_new_tokens);
    memcpy(seq->tokens, r->tokens, (size_t)r->n_tokens * sizeof *r->tokens);
    seq->n_tokens = seq->n_prompt = r->n_tokens;
    seq->slots = r->n_choices;
    seq->priority = s->opts.policy == SCHED_PRIORITY ? r->priority : 0;
    seq->arrival_us = r->arrival_us;
    seq->deadline_us = r->deadline_us;
    seq->group = ++s->last_group;
    seq->member = ++s->last_member;
    seq->salt = r->salt;
    seq->all_rows = r->all_rows;
    seq->user = r->user;
    seq_link(s, seq);
    sched_wait(s, seq);
    *out = seq;
    return true;
}

void sched_wait(struct sched *s, struct sched_seq *seq)
{
    if (sched_is_parked(seq))
        s->n_parked++;
    else
        sched_heap_push(s, HEAP_WAITING, seq);
}

static void share_pages(struct sched *s, struct sched_seq *child, const struct sched_seq *parent)
{
    /* A plan that was never committed may have left pages that nothing is in yet. */
    child->n_table = sched_pages_of(s, parent->n_computed);
    memcpy(child->table, parent->table, (size_t)child->n_table * sizeof *child->table);
    for (int32_t i = child->n_given; i < child->n_table; i++)
        kv_pool_ref(s->pool, child->table[i]);
}

struct sched_seq *sched_fork(struct sched *s, struct sched_seq *parent)
{
    if (parent->item >= 0 || s->n_seqs == INT32_MAX || !sched_reserve_seqs(s, s->n_seqs + 1))
        return NULL;
    struct sched_seq *child = seq_alloc(s, parent->cap_tokens);
    if (!child)
        return NULL;
    int32_t *table = child->table;
    bool reserved = parent->slots > 1, running = parent->state == SEQ_RUNNING;
    *child = *parent;
    child->prev = child->next = NULL;
    child->pos[HEAP_WAITING] = child->pos[HEAP_DEADLINE] = -1;
    child->state = SEQ_WAITING;
    child->member = ++s->last_member;
    child->slots = 1;
    child->table = table;
    memcpy(child->tokens, parent->tokens, (size_t)parent->n_tokens * sizeof *child->tokens);
    seq_link(s, child);
    if (reserved) {
        parent->slots--;
        s->slots_used -= running;
    }
    if (running && s->slots_used < s->opts.max_num_seqs) {
        share_pages(s, child, parent);
        sched_running_insert(s, child);
    } else {
        child->n_table = child->n_given = child->n_published = child->n_computed = 0;
        child->preempted = true;
        sched_wait(s, child);
    }
    return child;
}

bool sched_append(struct sched *s, struct sched_seq *seq, int32_t token)
{
    if (seq->n_tokens == seq->cap_tokens)
        return false;
    bool parked = seq->state == SEQ_WAITING && sched_is_parked(seq);
    seq->tokens[seq->n_tokens++] = token;
    if (parked && !sched_is_parked(seq)) {
        s->n_parked--;
        sched_wait(s, seq);
    }
    return true;
}

void sched_seq_drop_pages(struct sched *s, struct sched_seq *seq)
{
    kv_pool_drop(s->pool, seq->table, seq->n_table);
    seq->n_table = seq->n_given = seq->n_published = seq->n_computed = 0;
}

void sched_end(struct sched *s, struct sched_seq *seq)
{
    if (seq->item >= 0)
        s->items[seq->item].seq = NULL;
    sched_seq_drop_pages(s, seq);
    if (seq->state == SEQ_RUNNING)
        sched_running_remove(s, seq);
    else if (seq->pos[HEAP_WAITING] < 0)
        s->n_parked--;
    sched_heap_remove(s, HEAP_WAITING, seq);
    sched_heap_remove(s, HEAP_DEADLINE, seq);
    if (seq->prev)
        seq->prev->next = seq->next;
    else
        s->all = seq->next;
    if (seq->next)
        seq->next->prev = seq->prev;
    s->n_seqs--;
    mem_free(seq);
}

void sched_release_slots(struct sched *s, struct sched_seq *seq, int32_t n)
{
    if (n > seq->slots - 1)
        n = seq->slots - 1;
    if (n <= 0)
        return;
    seq->slots -= n;
    if (seq->state == SEQ_RUNNING)
        s->slots_used -= n;
}

void sched_set_mixed_tokens(struct sched *s, int32_t n)
{
    assert(n >= 0);
    s->mixed_tokens = n;
}

void *sched_user(const struct sched_seq *seq)
{
    return seq->user;
}

void sched_set_user(struct sched_seq *seq, void *user)
{
    seq->user = user;
}

const int32_t *sched_tokens(const struct sched_seq *seq, int32_t *n)
{
    *n = seq->n_tokens;
    return seq->tokens;
}

int32_t sched_n_computed(const struct sched_seq *seq)
{
    return seq->n_computed;
}

int32_t sched_n_cached(const struct sched_seq *seq)
{
    return seq->n_cached > 0 ? seq->n_cached : 0;
}

int64_t sched_first_scheduled_us(const struct sched_seq *seq)
{
    return seq->first_scheduled_us;
}

const int32_t *sched_block_table(const struct sched_seq *seq, int32_t *n)
{
    *n = seq->n_table;
    return seq->table;
}

void sched_stats(const struct sched *s, struct sched_stats *out)
{
    struct kv_pool_stats p = kv_pool_stats(s->pool);
    *out = (struct sched_stats){
        .n_running = s->n_running,
        .n_waiting = s->heaps[HEAP_WAITING].n + s->n_parked,
        .blocks_total = p.n_blocks - 1,
        .blocks_free = p.n_free,
        .blocks_cached = p.n_idle,
        .blocks_held = p.n_held,
        .n_preemptions = s->n_preemptions,
        .prefix_query_tokens = s->prefix_query_tokens,
        .prefix_hit_tokens = s->prefix_hit_tokens,
        .n_evictions = p.n_evictions,
        .n_copies = s->n_copies_total,
    };
}

void sched_page_states(const struct sched *s, uint8_t *states)
{
    int32_t n = kv_pool_stats(s->pool).n_blocks;
    for (kv_block id = 1; id < n; id++) {
        int32_t refs = kv_pool_refs(s->pool, id);
        states[id - 1] = (uint8_t)(refs >= 254 ? 255 : refs > 0 ? refs + 1 : kv_pool_is_published(s->pool, id) ? 1 : 0);
    }
}

bool sched_reset_prefix_cache(struct sched *s)
{
    kv_pool_forget_idle(s->pool);
    return kv_pool_stats(s->pool).n_held == 0;
}
