/* Plan and commit.  A plan goes through the running sequences in order of precedence and then
 * through the head of the waiting line.  Victims are never sequences that this plan has given
 * something: items are only added.
 *
 * Why every request ends.  The first running sequence that has something to compute gets at least
 * a token: all behind it can be preempted, and so can those before it, which only wait for the
 * caller; R4 let it in only if it fits alone.  When no running one has anything to compute, the head
 * of the line is admitted, for the same reason.  So a plan is empty only when nothing is left to do, and the
 * request of highest precedence is never set back. */
#include "sched/sched_int.h"

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t gap(const struct sched_seq *seq)
{
    return seq->expired ? 0 : seq->n_tokens - seq->n_computed;
}

/* ---- deadlines ---- */

static void expire(struct sched *s, struct sched_seq *seq)
{
    if (seq->state == SEQ_WAITING && !sched_is_parked(seq)) {
        sched_heap_remove(s, HEAP_WAITING, seq);
        s->n_parked++;
    }
    seq->expired = true;
    s->expired[s->n_expired++] = seq;
}

/* Lists all that are due below place `at` of the deadline heap: as deep as the heap is high. */
static void find_expired(struct sched *s, int32_t at, int64_t now_us)
{
    const struct seq_queue *q = &s->heaps[HEAP_DEADLINE];
    if (at >= q->n || q->items[at]->deadline_us > now_us)
        return;
    expire(s, q->items[at]);
    find_expired(s, 2 * at + 1, now_us);
    find_expired(s, 2 * at + 2, now_us);
}

/* ---- pages of one sequence ---- */

/* R6: the page that the next token goes to already has tokens that another sequence reads too. */
static bool must_copy(const struct sched *s, const struct sched_seq *seq)
{
    int32_t bt = s->opts.block_tokens;
    return seq->n_computed % bt != 0 && kv_pool_refs(s->pool, seq->table[seq->n_computed / bt]) > 1;
}

/* Pages to take before n more tokens can be computed. */
static int32_t pages_short(const struct sched *s, const struct sched_seq *seq, int32_t n)
{
    int32_t grow = sched_pages_of(s, (int64_t)seq->n_computed + n) - seq->n_table;
    return (grow > 0 ? grow : 0) + must_copy(s, seq);
}

/* How many of the next n tokens can be computed with what the pool has now. */
static int32_t tokens_that_fit(const struct sched *s, const struct sched_seq *seq, int32_t n)
{
    int64_t spare = (int64_t)kv_pool_available(s->pool) - must_copy(s, seq);
    int64_t fit = (seq->n_table + spare) * s->opts.block_tokens - seq->n_computed;
    return spare < 0 || fit <= 0 ? 0 : fit < n ? (int32_t)fit : n;
}

static void copy_shared_page(struct sched *s, struct sched_seq *seq)
{
    kv_block *entry = &seq->table[seq->n_computed / s->opts.block_tokens], old = *entry;
    kv_pool_take(s->pool, 1, entry);
    kv_pool_drop(s->pool, &old, 1);     /* others hold it, so it keeps its content until the copy */
    s->copies[s->n_copies++] = (struct sched_copy){.src = old, .dst = *entry};
    s->n_copies_total++;
}

/* R7: pages whose last position no row from n_computed on can see. */
static void give_up_behind_window(struct sched *s, struct sched_seq *seq)
{
    int32_t first_seen = seq->n_computed - s->opts.window + 1;
    if (s->opts.window == 0 || first_seen <= 0)
        return;
    int32_t n = first_seen / s->opts.block_tokens;
    if (n <= seq->n_given)
        return;
    kv_pool_drop(s->pool, seq->table + seq->n_given, n - seq->n_given);
    while (seq->n_given < n)
        seq->table[seq->n_given++] = KV_BLOCK_NULL;
}

/* Pages that seq may still ask for until all its known tokens are computed. */
static int32_t pages_to_come(const struct sched *s, const struct sched_seq *seq)
{
    int32_t held = seq->n_table - seq->n_given;
    int32_t peak = sched_peak_pages(s, seq->n_tokens, s->max_chunk);
    return peak > held ? peak - held : 0;
}

/* ---- running sequences ---- */

static void preempt(struct sched *s, struct sched_seq *seq)
{
    sched_running_remove(s, seq);
    sched_seq_drop_pages(s, seq);
    seq->preempted = true;
    s->n_preemptions++;
    sched_wait(s, seq);
}

/* R3.  Makes room for up to want tokens of a running sequence by preempting from the end.  The last
 * of all makes do with what is there, unless nobody else gets anything in this plan: then those before it
 * all wait for the caller and can give way.  Returns how many tokens have room; 0: seq was preempted. */
static int32_t make_room(struct sched *s, struct sched_seq *seq, int32_t want, int32_t *n_preempted)
{
    while (pages_short(s, seq, want) > kv_pool_available(s->pool)) {
        struct sched_seq *victim = s->running[s->n_running - 1];
        if (victim == seq) {
            int32_t fit = tokens_that_fit(s, seq, want);
            if (fit > 0)
                return fit;
            if (s->n_items == 0 && s->n_running > 1)
                victim = s->running[s->n_running - 2];
        }
        preempt(s, victim);
        ++*n_preempted;
        if (victim == seq)
            return 0;
    }
    return want;
}

/* Takes the pages for n tokens, which fit, and puts them on the plan. */
static void add_item(struct sched *s, struct sched_seq *seq, int32_t n)
{
    if (must_copy(s, seq))
        copy_shared_page(s, seq);
    int32_t grow = pages_short(s, seq, n);
    kv_pool_take(s->pool, grow, seq->table + seq->n_table);
    seq->n_table += grow;
    seq->item = s->n_items;
    s->items[s->n_items++] = (struct sched_item){
        .seq = seq, .start = seq->n_computed, .n_new = n, .last = seq->n_computed + n == seq->n_tokens};
}

/* What is left of a step.  prompt: of the tokens, what sequences that have several to compute may take. */
struct budget { int32_t tokens, rows, prompt; };

/* R8: rows of logits that computing the next n tokens may ask for. */
static int32_t rows_of(const struct sched_seq *seq, int32_t n)
{
    int32_t prompt_left = seq->n_prompt - seq->n_computed;
    if (!seq->all_rows || prompt_left <= 0)
        return 1;
    return n > prompt_left ? prompt_left + 1 : n;
}

/* The next chunk of seq: of n tokens to do, at most so many tokens and rows. */
static int32_t chunk(const struct sched *s, const struct sched_seq *seq, int32_t n, struct budget most)
{
    if (n > 1)
        n = min32(min32(n, s->max_chunk), most.prompt);
    n = min32(n, most.tokens);
    return rows_of(seq, n) <= most.rows ? n : min32(most.rows, seq->n_prompt - seq->n_computed);
}

/* A chunk leaves a token of the budget to each sequence behind it that needs only one, so that a
 * long prompt, wherever it stands, does not hold up the streams of others; and a row to each. */
static void grow_running(struct sched *s, struct budget *left, int32_t *n_preempted)
{
    struct budget behind = {0};
    for (int32_t i = 0; i < s->n_running; i++) {
        behind.tokens += gap(s->running[i]) == 1;
        behind.rows += gap(s->running[i]) > 0;
    }
    if (s->mixed_tokens > 0 && behind.tokens > 0)
        left->prompt = min32(left->prompt, s->mixed_tokens);
    for (int32_t i = 0; i < s->n_running && left->tokens > 0; i++) {
        struct sched_seq *seq = s->running[i];
        int32_t want = gap(seq);
        if (want <= 0)
            continue;
        bool prompt = want > 1;
        behind.tokens -= !prompt;
        behind.rows--;
        if (prompt && left->prompt == 0)
            continue;
        struct budget most = {left->tokens > behind.tokens ? left->tokens - behind.tokens : 1, left->rows - behind.rows, left->prompt};
        want = make_room(s, seq, chunk(s, seq, want, most), n_preempted);
        if (want == 0)
            break;
        left->tokens -= want;
        left->prompt -= prompt ? want : 0;
        left->rows -= rows_of(seq, want);
        add_item(s, seq, want);
    }
}

/* ---- waiting sequences ---- */

/* R2 */
static void match_prefix(struct sched *s, struct sched_seq *seq)
{
    seq->chain = kv_chain_root(seq->salt);
    if (!s->prefix)
        return;
    int32_t most = seq->n_tokens - 1;
    if (seq->all_rows)  /* what was computed before a preemption has been seen */
        most = min32(most, seq->most_computed);
    int32_t n = kv_prefix_match(s->prefix, &seq->chain, seq->tokens, most / s->opts.block_tokens, seq->table);
    seq->n_table = seq->n_published = n;
    seq->n_computed = n * s->opts.block_tokens;
}

static void count_first_admission(struct sched *s, struct sched_seq *seq, int64_t now_us)
{
    if (seq->n_cached >= 0)
        return;
    seq->n_cached = seq->n_computed;
    seq->first_scheduled_us = now_us;
    if (s->prefix) {
        s->prefix_query_tokens += (uint64_t)seq->n_tokens;
        s->prefix_hit_tokens += (uint64_t)seq->n_cached;
    }
}

enum { PLANS_BETWEEN_LOOKUPS = 16 };

/* Whether it is not worth looking up the prefix of the head of the line again: it lacked pages in an earlier
 * plan, and no more are there now.  What others publish meanwhile may lower its need, so it is looked up
 * every few plans all the same; without this a long prompt that waits would cost a walk over it each step. */
static bool still_short(const struct sched *s, struct sched_seq *seq, int64_t promised)
{
    if (seq->wait_plans == 0 || s->n_items == 0 || promised + seq->wait_pages <= kv_pool_available(s->pool))
        return false;
    seq->wait_plans--;
    return true;
}

/* Admits seq, the head of the line, within what is left, if that leaves the running ones the pages
 * that their known tokens still need; otherwise it would be preempted before it gets anywhere.
 * False when it has to wait. */
static bool admit(struct sched *s, struct sched_seq *seq, struct budget *left, int64_t *promised, int64_t now_us)
{
    if (seq->slots > s->opts.max_num_seqs - s->slots_used || still_short(s, seq, *promised))
        return false;
    match_prefix(s, seq);
    give_up_behind_window(s, seq);
    int32_t want = tokens_that_fit(s, seq, chunk(s, seq, seq->n_tokens - seq->n_computed, *left));
    int32_t need = pages_to_come(s, seq);
    if (want == 0 || (s->n_running > 0 && *promised + need > kv_pool_available(s->pool))) {
        sched_seq_drop_pages(s, seq);
        seq->wait_pages = need;
        seq->wait_plans = PLANS_BETWEEN_LOOKUPS;
        return false;
    }
    sched_heap_remove(s, HEAP_WAITING, seq);
    sched_running_insert(s, seq);
    seq->preempted = false;
    seq->wait_plans = 0;
    count_first_admission(s, seq, now_us);
    left->tokens -= want;
    left->prompt -= want;
    left->rows -= rows_of(seq, want);
    add_item(s, seq, want);
    *promised += pages_to_come(s, seq);
    return true;
}

/* Returns how many were admitted. */
static int32_t admit_waiting(struct sched *s, struct budget *left, int32_t *n_preempted, int64_t now_us)
{
    const struct seq_queue *line = &s->heaps[HEAP_WAITING];
    int32_t n_admitted = 0;
    int64_t promised = 0;
    for (int32_t i = 0; i < s->n_running && line->n > 0; i++)
        promised += pages_to_come(s, s->running[i]);
    while (left->tokens > 0 && left->prompt > 0 && left->rows > 0 && line->n > 0) {
        if (admit(s, line->items[0], left, &promised, now_us)) {
            n_admitted++;
            continue;
        }
        /* Those who run have nothing to compute before somebody in the line has (the beams of a search
         * wait for each other): one gives way.  If some are to be ended, that makes room first. */
        if (s->n_items > 0 || s->n_expired > 0 || s->n_running == 0)
            break;
        struct sched_seq *idle = s->running[s->n_running - 1];
        promised -= pages_to_come(s, idle);
        preempt(s, idle);
        ++*n_preempted;
    }
    return n_admitted;
}

/* ---- the two calls ---- */

static void forget_items(struct sched *s)
{
    for (int32_t i = 0; i < s->n_items; i++)
        if (s->items[i].seq)
            s->items[i].seq->item = -1;
    s->n_items = 0;
}

void sched_plan(struct sched *s, int64_t now_us, struct sched_plan *plan)
{
    int32_t n_preempted = 0, n_admitted = 0;
    forget_items(s);
    s->n_copies = s->n_expired = 0;
    find_expired(s, 0, now_us);
    struct budget left = {s->opts.max_batched_tokens, s->opts.max_logit_rows, s->opts.max_batched_tokens};
    grow_running(s, &left, &n_preempted);
    if (n_preempted == 0)
        n_admitted = admit_waiting(s, &left, &n_preempted, now_us);
    *plan = (struct sched_plan){.items = s->items, .n_items = s->n_items, .copies = s->copies, .n_copies = s->n_copies,
                                .expired = s->expired, .n_expired = s->n_expired,
                                .n_preempted = n_preempted, .n_admitted = n_admitted};
    for (int32_t i = 0; i < s->n_items; i++)
        plan->n_tokens += s->items[i].n_new;
}

static void publish_full_pages(struct sched *s, struct sched_seq *seq)
{
    int32_t bt = s->opts.block_tokens;
    while (s->prefix && seq->n_published < seq->n_computed / bt) {
        int32_t i = seq->n_published;
        if (i < seq->n_given)   /* its head is gone, so what follows could not be found */
            return;
        if (kv_prefix_publish(s->prefix, &seq->chain, seq->table[i], seq->tokens + (size_t)i * (size_t)bt)) {
            seq->n_published++;
        } else {
            /* Its place in the index hung on a page that is gone: begin again with its own. */
            seq->chain = kv_chain_root(seq->salt);
            seq->n_published = 0;
        }
    }
}

void sched_commit(struct sched *s, const struct sched_plan *plan)
{
    for (int32_t i = 0; i < plan->n_items; i++) {
        struct sched_seq *seq = plan->items[i].seq;
        if (!seq)       /* ended since it was planned */
            continue;
        seq->n_computed += plan->items[i].n_new;
        if (seq->n_computed > seq->most_computed)
            seq->most_computed = seq->n_computed;
        publish_full_pages(s, seq);
        give_up_behind_window(s, seq);
    }
    forget_items(s);
}
