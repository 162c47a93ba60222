/* The invariants S1 to S8 of sched_int.h. */
#include <string.h>

#include "sched/sched_int.h"

/* Adds the sequence's pages to refs[]; seen[id] is the last sequence (by number) that listed id. */
static bool count_pages(const struct sched *s, const struct sched_seq *seq, int32_t number, int32_t *refs, int32_t *seen,
                        struct err *e)
{
    for (int32_t i = 0; i < seq->n_table; i++) {
        kv_block id = seq->table[i];
        if (i < seq->n_given) {
            if (id != KV_BLOCK_NULL)
                return err_set(e, ERR_INTERNAL, "S5: entry %d of a page table is %d though given up", i, id);
            continue;
        }
        if (id <= 0 || id >= s->opts.n_blocks)
            return err_set(e, ERR_INTERNAL, "S5: entry %d of a page table is %d, no page", i, id);
        if (seen[id] == number)
            return err_set(e, ERR_INTERNAL, "S1: a sequence lists page %d twice", id);
        seen[id] = number;
        refs[id]++;
    }
    return true;
}

static bool check_pages(const struct sched *s, struct err *e)
{
    int32_t *refs = s->check_refs, *seen = s->check_refs + s->opts.n_blocks, number = 0;
    memset(refs, 0, (size_t)s->opts.n_blocks * 2 * sizeof *refs);
    for (const struct sched_seq *seq = s->all; seq; seq = seq->next)
        if (!count_pages(s, seq, ++number, refs, seen, e))
            return false;
    for (kv_block id = 1; id < s->opts.n_blocks; id++)
        if (refs[id] != kv_pool_refs(s->pool, id))
            return err_set(e, ERR_INTERNAL, "S1: page %d has %d references, %d sequences list it", id,
                           kv_pool_refs(s->pool, id), refs[id]);
    return true;
}

static bool check_seq(const struct sched *s, const struct sched_seq *seq, struct err *e)
{
    int32_t bt = s->opts.block_tokens, covered = seq->n_computed;
    if (seq->item >= 0) {
        if (seq->item >= s->n_items || s->items[seq->item].seq != seq)
            return err_set(e, ERR_INTERNAL, "S3: a sequence is not at its place %d of the plan", seq->item);
        covered += s->items[seq->item].n_new;
    }
    if (covered > seq->n_tokens || seq->n_tokens > seq->cap_tokens)
        return err_set(e, ERR_INTERNAL, "S5: %d computed or planned, %d known, %d at most", covered, seq->n_tokens, seq->cap_tokens);
    if (seq->n_table < sched_pages_of(s, covered) || seq->n_table > sched_pages_of(s, seq->n_tokens) ||
        seq->n_given > seq->n_table)
        return err_set(e, ERR_INTERNAL, "S5: %d table entries, %d of them given up, for %d of %d tokens", seq->n_table, seq->n_given,
                       covered, seq->n_tokens);
    if (seq->state == SEQ_WAITING && seq->n_table > 0)
        return err_set(e, ERR_INTERNAL, "S6: a waiting sequence lists %d pages", seq->n_table);
    for (int32_t i = seq->n_computed / bt; i < seq->n_table; i++)
        if (kv_pool_is_published(s->pool, seq->table[i]))
            return err_set(e, ERR_INTERNAL, "S7: page %d is published but not full", seq->table[i]);
    return true;
}

static bool check_list(const struct sched *s, struct err *e)
{
    int32_t n = 0, n_running = 0, n_parked = 0;
    for (const struct sched_seq *seq = s->all; seq; seq = seq->next, n++) {
        bool in_line = seq->pos[HEAP_WAITING] >= 0;
        bool parked = seq->state == SEQ_WAITING && sched_is_parked(seq);
        if (in_line != (seq->state == SEQ_WAITING && !parked))
            return err_set(e, ERR_INTERNAL, "S2: a sequence in state %d is %sin the waiting line", seq->state, in_line ? "" : "not ");
        if ((seq->pos[HEAP_DEADLINE] >= 0) != (seq->deadline_us != 0))
            return err_set(e, ERR_INTERNAL, "S2: a sequence with deadline %lld has place %d among them",
                           (long long)seq->deadline_us, seq->pos[HEAP_DEADLINE]);
        n_running += seq->state == SEQ_RUNNING;
        n_parked += parked;
        if (!check_seq(s, seq, e))
            return false;
    }
    if (n != s->n_seqs || n_running != s->n_running || n_parked != s->n_parked ||
        n != s->n_running + s->n_parked + s->heaps[HEAP_WAITING].n)
        return err_set(e, ERR_INTERNAL, "S2: %d sequences, %d running, %d parked, %d in line do not add up", n, n_running, n_parked,
                       s->heaps[HEAP_WAITING].n);
    return true;
}

static bool check_orders(const struct sched *s, struct err *e)
{
    int32_t slots = 0;
    for (int32_t i = 0; i < s->n_running; i++) {
        const struct sched_seq *seq = s->running[i];
        if (seq->state != SEQ_RUNNING || seq->slots < 1 || (i > 0 && !sched_before(s->running[i - 1], seq)))
            return err_set(e, ERR_INTERNAL, "S3: running[%d] is out of order or not running", i);
        slots += seq->slots;
    }
    if (slots != s->slots_used || slots > s->opts.max_num_seqs)
        return err_set(e, ERR_INTERNAL, "S4: %d slots counted, %d noted, %d allowed", slots, s->slots_used, s->opts.max_num_seqs);
    for (int h = 0; h < N_HEAPS; h++)
        for (int32_t i = 0; i < s->heaps[h].n; i++) {
            const struct sched_seq *seq = s->heaps[h].items[i];
            if (seq->pos[h] != i || (i > 0 && sched_heap_before((enum seq_heap)h, seq, s->heaps[h].items[(i - 1) / 2])))
                return err_set(e, ERR_INTERNAL, "S3: heap %d is out of order at %d", h, i);
        }
    return true;
}

bool sched_check(const struct sched *s, struct err *e)
{
    return check_list(s, e) && check_orders(s, e) && check_pages(s, e) && kv_pool_check(s->pool, e) &&
           (!s->prefix || kv_prefix_check(s->prefix, e));
}
