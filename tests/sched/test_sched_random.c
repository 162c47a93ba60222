/* A million random events on a fake device.
 *
 * The device remembers for every slot of every page what was written there: a hash of the salt and
 * of all tokens up to that position.  Its attention looks at every position that a planned row sees,
 * before the step's writes (as far as they were computed) and after them (all), and fails unless
 * each holds exactly the content of this sequence.  So a page that was shared wrongly, recycled too
 * early, published before it was full or written without a copy is found by the first read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "sched/sched.h"

enum { MAX_LEN = 192, MAX_LIVE = 96, MAX_BLOCKS = 256, MAX_SLOTS = 4096, N_TEMPLATES = 5 };

struct group {
    int32_t n_live, forks_left;     /* forks that have a slot reserved */
    int32_t extra_forks;            /* forks without a slot still allowed */
    bool beams;                     /* members get their next token only when all are ready for it */
    int64_t deadline;
    int64_t born_step;
};

struct seq {
    struct sched_seq *h;
    struct group *group;
    int32_t at;                     /* place in world.live */
    int32_t target;                 /* ends with so many tokens */
    int32_t n_prompt;
    bool every_row, leader, pending, in_plan;
    int32_t rows_seen;              /* rows [0, rows_seen) have been computed at least once */
    uint64_t content[MAX_LEN + 1];  /* [p + 1]: salt and tokens up to position p */
};

struct world {
    struct sched *s;
    struct sched_opts o;
    struct rng rng;
    int64_t now, n_events, n_steps, n_reads, n_expired, n_forks, n_aborted, n_ended;
    int64_t oldest_steps;
    struct seq *live[MAX_LIVE];
    int32_t n_live;
    bool draining;
    int32_t mixed;
    int32_t templates[N_TEMPLATES][MAX_LEN];
    uint64_t slots[MAX_SLOTS];      /* content written, 0: nothing */
};

static uint64_t below(struct world *w, uint64_t n)
{
    return rng_next_below(&w->rng, n);
}

static bool chance(struct world *w, uint64_t one_in)
{
    return below(w, one_in) == 0;
}

static void check_all(struct world *w)
{
    struct err e = {0};
    if (!sched_check(w->s, &e))
        fail_msg("step %lld: %s", (long long)w->n_steps, e.msg);
    struct sched_stats st;
    sched_stats(w->s, &st);
    int32_t count[3] = {0};
    uint8_t *states = malloc((size_t)st.blocks_total);
    sched_page_states(w->s, states);
    for (int32_t i = 0; i < st.blocks_total; i++)
        count[states[i] < 2 ? states[i] : 2]++;
    free(states);
    assert_int_equal(count[0], st.blocks_free);
    assert_int_equal(count[1], st.blocks_cached);
    assert_int_equal(count[2], st.blocks_held);
}

static void note_token(struct seq *q, int32_t pos, int32_t token)
{
    q->content[pos + 1] = hash_mix(q->content[pos], (uint64_t)(uint32_t)token + 1) | 1;
}

static struct seq *track(struct world *w, struct sched_seq *h, struct group *g)
{
    struct seq *q = calloc(1, sizeof *q);
    q->h = h;
    q->group = g;
    q->at = w->n_live;
    g->n_live++;
    w->live[w->n_live++] = q;
    return q;
}

static void end(struct world *w, struct seq *q)
{
    sched_end(w->s, q->h);
    w->n_events++;
    w->n_ended++;
    w->live[q->at] = w->live[--w->n_live];
    w->live[q->at]->at = q->at;
    if (--q->group->n_live == 0) {
        if (w->n_steps - q->group->born_step > w->oldest_steps)
            w->oldest_steps = w->n_steps - q->group->born_step;
        free(q->group);
    }
    free(q);
}

static void add(struct world *w)
{
    if (w->n_live == MAX_LIVE)
        return;
    int32_t tokens[MAX_LEN], n = 1 + (int32_t)below(w, 90), from = (int32_t)below(w, (uint64_t)n + 1);
    if (chance(w, 4))
        from = n;
    memcpy(tokens, w->templates[below(w, N_TEMPLATES)], (size_t)from * sizeof *tokens);
    for (int32_t i = from; i < n; i++)
        tokens[i] = (int32_t)below(w, 2);
    struct sched_request r = {
        .tokens = tokens, .n_tokens = n, .max_new_tokens = (int32_t)below(w, 60),
        .n_choices = chance(w, 5) ? 1 + (int32_t)below(w, 4) : 1,
        .priority = (int32_t)below(w, 3), .arrival_us = w->now, .salt = below(w, 2),
        .deadline_us = chance(w, 12) ? w->now + 1 + (int64_t)below(w, 3000) : 0,
        .all_rows = chance(w, 6),
    };
    struct sched_seq *h;
    struct err e = {0};
    long fault = chance(w, 30) ? 1 + (long)below(w, 3) : 0;
    mem_fault_after(fault);
    bool ok = sched_add(w->s, &r, &h, &e);
    bool fired = mem_fault_fired();
    mem_fault_after(0);
    w->n_events++;
    if (!ok) {
        assert_null(h);
        if (fired)
            assert_int_equal(e.code, ERR_NOMEM);
        else
            assert_int_equal(e.code, ERR_TOO_LARGE);
        return;
    }
    struct group *g = calloc(1, sizeof *g);
    *g = (struct group){.forks_left = r.n_choices - 1, .extra_forks = 3, .beams = r.n_choices > 1 && chance(w, 3), .deadline = r.deadline_us, .born_step = w->n_steps};
    struct seq *q = track(w, h, g);
    sched_set_user(h, q);
    assert_ptr_equal(sched_user(h), q);
    q->leader = true;
    q->every_row = r.all_rows;
    q->n_prompt = n;
    q->target = n + (int32_t)below(w, (uint64_t)r.max_new_tokens + 1);
    q->content[0] = hash_mix(r.salt, 77);
    for (int32_t i = 0; i < n; i++)
        note_token(q, i, tokens[i]);
}

static struct seq *fork_seq(struct world *w, struct seq *parent)
{
    mem_fault_after(chance(w, 40) ? 1 : 0);
    struct sched_seq *h = sched_fork(w->s, parent->h);
    bool fired = mem_fault_fired();
    mem_fault_after(0);
    w->n_events++;
    if (!h) {
        assert_true(fired || !parent->leader || parent->group->forks_left == 0);
        return NULL;
    }
    w->n_forks++;
    struct seq *q = track(w, h, parent->group);
    int32_t at = q->at;
    *q = *parent;
    q->h = h;
    q->at = at;
    q->leader = false;
    sched_set_user(h, q);
    return q;
}

/* A sampled token; few different ones, so that siblings often agree and pages become duplicates. */
static void append(struct world *w, struct seq *q)
{
    int32_t n, token = chance(w, 4) ? (int32_t)below(w, 3) : 0;
    q->pending = false;
    sched_tokens(q->h, &n);
    if (n < q->target) {
        assert_true(sched_append(w->s, q->h, token));
        note_token(q, n++, token);
        w->n_events++;
    }
    if (n >= q->target)
        end(w, q);
}

static void sampled(struct world *w, struct seq *q)
{
    struct seq *all[8] = {q};
    int32_t n = 1;
    bool beams = q->group->beams;
    while (q->leader && q->group->forks_left > 0) {
        if (w->n_live < MAX_LIVE && !chance(w, 20)) {
            struct seq *child = fork_seq(w, q);
            if (child)
                all[n++] = child;
            else
                sched_release_slots(w->s, q->h, 1);
        } else {
            sched_release_slots(w->s, q->h, 1);
        }
        q->group->forks_left--;
    }
    if (q->group->extra_forks > 0 && w->n_live < MAX_LIVE && chance(w, 40)) {
        struct seq *child = fork_seq(w, q);
        q->group->extra_forks--;
        if (child)
            all[n++] = child;
    }
    for (int32_t i = 0; i < n; i++) {
        all[i]->pending = true;
        if (!beams && (w->draining || !chance(w, 50)))
            append(w, all[i]);
    }
}

/* Every position of [first, end) must hold this sequence's content. */
static void attend(struct world *w, const struct seq *q, int32_t first, int32_t last_excl)
{
    int32_t n_table, bt = w->o.block_tokens;
    const int32_t *table = sched_block_table(q->h, &n_table);
    for (int32_t p = first; p < last_excl; p++) {
        assert_true(p / bt < n_table);
        int32_t page = table[p / bt];
        if (page <= 0 || page >= w->o.n_blocks || w->slots[page * bt + p % bt] != q->content[p + 1])
            fail_msg("step %lld: position %d of %d reads page %d: wrong content", (long long)w->n_steps, p, last_excl, page);
    }
    w->n_reads += last_excl > first ? last_excl - first : 0;
}

static void run_on_device(struct world *w, const struct sched_plan *plan)
{
    int32_t bt = w->o.block_tokens, n_table;
    for (int32_t i = 0; i < plan->n_copies; i++) {
        struct sched_copy c = plan->copies[i];
        assert_true(c.src > 0 && c.dst > 0 && c.src < w->o.n_blocks && c.dst < w->o.n_blocks && c.src != c.dst);
        memcpy(w->slots + c.dst * bt, w->slots + c.src * bt, (size_t)bt * sizeof *w->slots);
    }
    for (int pass = 0; pass < 3; pass++)    /* read, write, read */
        for (int32_t i = 0; i < plan->n_items; i++) {
            const struct sched_item *it = &plan->items[i];
            const struct seq *q = sched_user(it->seq);
            int32_t first = w->o.window > 0 && it->start >= w->o.window ? it->start - w->o.window + 1 : 0;
            const int32_t *table = sched_block_table(it->seq, &n_table);
            if (pass == 0)
                attend(w, q, first, it->start);
            else if (pass == 2)
                attend(w, q, first, it->start + it->n_new);
            else
                for (int32_t p = it->start; p < it->start + it->n_new; p++)
                    w->slots[table[p / bt] * bt + p % bt] = q->content[p + 1];
        }
}

static void check_item(struct world *w, const struct sched_item *it)
{
    int32_t n;
    struct seq *q = sched_user(it->seq);
    sched_tokens(it->seq, &n);
    assert_ptr_equal(q->h, it->seq);
    assert_false(q->in_plan);
    q->in_plan = true;
    assert_true(it->n_new >= 1 && it->start == sched_n_computed(it->seq) && it->start + it->n_new <= n);
    assert_int_equal(it->last, it->start + it->n_new == n);
    assert_true(w->o.long_prefill_threshold == 0 || it->n_new <= w->o.long_prefill_threshold);
    assert_true(q->group->deadline == 0 || q->group->deadline > w->now);
    assert_true(!q->every_row || it->start <= q->rows_seen);
    if (it->start + it->n_new > q->rows_seen)
        q->rows_seen = it->start + it->n_new;
}

static int32_t logit_rows(const struct sched_item *it)
{
    const struct seq *q = sched_user(it->seq);
    int32_t n = 0;
    for (int32_t p = it->start; p < it->start + it->n_new; p++)
        n += (q->every_row && p < q->n_prompt) || p == it->start + it->n_new - 1;
    return n;
}

/* While somebody streams, prompts take no more than they may together. */
static void check_mixed(const struct world *w, const struct sched_plan *plan)
{
    int32_t n_streaming = 0, sum = 0, n;
    for (int32_t i = 0; i < plan->n_items; i++) {
        const struct sched_item *it = &plan->items[i];
        sched_tokens(it->seq, &n);
        bool streams = n - it->start == 1 && i < plan->n_items - plan->n_admitted;
        n_streaming += streams;
        sum += streams ? 0 : it->n_new;
    }
    assert_true(w->mixed == 0 || n_streaming == 0 || sum <= w->mixed);
}

static void check_plan(struct world *w, const struct sched_plan *plan)
{
    struct sched_stats st;
    int32_t sum = 0, n_rows = 0, n_due = 0, n_gap = 0, n;
    for (int32_t i = 0; i < w->n_live; i++)
        w->live[i]->in_plan = false;
    for (int32_t i = 0; i < plan->n_items; i++) {
        check_item(w, &plan->items[i]);
        sum += plan->items[i].n_new;
        n_rows += logit_rows(&plan->items[i]);
    }
    for (int32_t i = 0; i < w->n_live; i++) {
        const struct seq *q = w->live[i];
        sched_tokens(q->h, &n);
        if (q->group->deadline != 0 && q->group->deadline <= w->now)
            n_due++;
        else if (!q->pending && sched_n_computed(q->h) < n)
            n_gap++;
    }
    assert_int_equal(plan->n_tokens, sum);
    assert_true(sum <= w->o.max_batched_tokens);
    check_mixed(w, plan);
    assert_int_equal(plan->n_expired, n_due);
    assert_true(n_rows <= w->o.max_logit_rows);
    sched_stats(w->s, &st);
    assert_int_equal(st.blocks_free + st.blocks_cached + st.blocks_held, st.blocks_total);
    assert_int_equal(st.n_running + st.n_waiting, w->n_live);
    assert_true(st.n_running <= w->o.max_num_seqs);
    /* Progress: nothing is planned only when nothing is left to compute. */
    assert_true(plan->n_items > 0 || n_gap == 0 || n_due > 0);
}

/* As a beam search does: when all are ready, some end, others fork, and all get a token.  By then a
 * parent may have been preempted. */
static void advance_beams(struct world *w, struct group *g)
{
    struct seq *all[MAX_LIVE];
    int32_t n = 0;
    for (int32_t i = 0; i < w->n_live; i++)
        if (w->live[i]->group == g) {
            if (!w->live[i]->pending)
                return;
            all[n++] = w->live[i];
        }
    if (n > 1 && chance(w, 3)) {
        end(w, all[--n]);
        struct seq *child = fork_seq(w, all[below(w, (uint64_t)n)]);
        if (child)
            all[n++] = child;
    }
    for (int32_t i = 0; i < n; i++)
        append(w, all[i]);
}

/* Those whose token is late get it some steps later, wherever they are by then. */
static void append_late(struct world *w)
{
    for (int32_t i = w->n_live - 1; i >= 0; i--) {
        if (i >= w->n_live || !w->live[i]->pending)
            continue;
        if (w->live[i]->group->beams)
            advance_beams(w, w->live[i]->group);
        else if (w->draining || chance(w, 4))
            append(w, w->live[i]);
    }
}

static void step(struct world *w)
{
    struct sched_plan plan;
    append_late(w);
    w->now += 1 + (int64_t)below(w, 20);
    if (chance(w, 200)) {
        w->mixed = (int32_t)below(w, 12);
        sched_set_mixed_tokens(w->s, w->mixed);
    }
    mem_fault_after(1);
    sched_plan(w->s, w->now, &plan);
    assert_false(mem_fault_fired());    /* neither plan nor commit allocates */
    w->n_events++;
    w->n_steps++;
    mem_fault_after(0);
    check_plan(w, &plan);
    run_on_device(w, &plan);
    if (!w->draining && chance(w, 300)) /* the step failed: planned again later */
        return;
    if (!w->draining && w->n_live > 0 && chance(w, 500)) {
        end(w, w->live[below(w, (uint64_t)w->n_live)]);
        w->n_aborted++;
        plan.n_expired = 0;     /* may hold the ended one */
    }
    mem_fault_after(1);
    sched_commit(w->s, &plan);
    assert_false(mem_fault_fired());
    mem_fault_after(0);
    w->n_events++;
    for (int32_t i = 0; i < plan.n_items; i++)
        if (plan.items[i].seq && plan.items[i].last)
            sampled(w, sched_user(plan.items[i].seq));
    for (int32_t i = 0; i < plan.n_expired; i++)
        if (w->draining || !chance(w, 10)) {
            end(w, sched_user(plan.expired[i]));
            w->n_expired++;
        }
    if (w->n_steps % 61 == 0)
        check_all(w);
}

static void random_event(struct world *w)
{
    uint64_t dice = below(w, 1000);
    struct seq *q = w->n_live > 0 ? w->live[below(w, (uint64_t)w->n_live)] : NULL;
    if (dice < 120) {
        add(w);
    } else if (dice < 122 && q) {
        end(w, q);
        w->n_aborted++;
    } else if (dice < 124) {
        sched_reset_prefix_cache(w->s);
        w->n_events++;
    } else if (dice < 126) {
        if (q && q->leader && q->group->forks_left > 0) {
            sched_release_slots(w->s, q->h, 1);
            q->group->forks_left--;
            w->n_events++;
        }
    } else {
        step(w);
    }
}

static void run(const struct sched_opts *o, uint64_t seed, int64_t n_events)
{
    struct world *w = calloc(1, sizeof *w);
    struct err e = {0};
    w->o = *o;
    w->rng.state = seed;
    for (int i = 0; i < N_TEMPLATES; i++)
        for (int j = 0; j < MAX_LEN; j++)
            w->templates[i][j] = (int32_t)below(w, 3);
    if (!sched_open(&w->s, o, &e))
        fail_msg("%s", e.msg);
    while (w->n_events < n_events)
        random_event(w);

    /* Nothing new: every request must end, in a bounded number of steps. */
    int64_t steps_left = (int64_t)MAX_LIVE * MAX_LEN;
    w->draining = true;
    while (w->n_live > 0) {
        step(w);
        assert_true(steps_left-- > 0);
    }
    check_all(w);
    struct sched_stats st;
    sched_stats(w->s, &st);
    assert_int_equal(st.blocks_held, 0);
    assert_int_equal(st.blocks_free + st.blocks_cached, st.blocks_total);
    assert_int_equal(st.n_running + st.n_waiting, 0);
    /* First come, first served: nobody waits for those that came later.  At most MAX_LIVE others were before,
     * each of which gets a token in every step in which it is the first, unless the caller dawdles. */
    if (o->policy == SCHED_FCFS)
        assert_true(w->oldest_steps < 2 * (int64_t)MAX_LIVE * MAX_LEN);
    print_message("%lld events, %lld steps, %lld reads; %lld ended, %lld aborted, %lld expired, %lld forks; %llu preemptions, %llu copies, "
                  "%llu evictions, %llu of %llu prompt tokens cached; longest life %lld steps\n",
                  (long long)w->n_events, (long long)w->n_steps, (long long)w->n_reads, (long long)w->n_ended,
                  (long long)w->n_aborted, (long long)w->n_expired, (long long)w->n_forks,
                  (unsigned long long)st.n_preemptions, (unsigned long long)st.n_copies, (unsigned long long)st.n_evictions,
                  (unsigned long long)st.prefix_hit_tokens, (unsigned long long)st.prefix_query_tokens,
                  (long long)w->oldest_steps);
    assert_true(st.n_preemptions > 0 && st.n_copies > 0 && w->n_expired > 0);
    assert_true(o->prefix_caching == (st.prefix_hit_tokens > 0));
    assert_true(sched_reset_prefix_cache(w->s));
    sched_stats(w->s, &st);
    assert_int_equal(st.blocks_free, st.blocks_total);
    sched_close(&w->s);
    free(w);
}

enum { EVENTS = 300000 };      /* in each of eight runs */

static void plain(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 80, .block_tokens = 4, .max_num_seqs = 16, .max_logit_rows = 22, .max_batched_tokens = 48,
                             .max_model_len = 150, .prefix_caching = true}, 1, EVENTS);
}

static void tight(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 11, .block_tokens = 16, .max_num_seqs = 8, .max_logit_rows = 14, .max_batched_tokens = 32,
                             .max_model_len = 160, .prefix_caching = true, .long_prefill_threshold = 20}, 2, EVENTS);
}

static void priority(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 64, .block_tokens = 8, .max_num_seqs = 12, .max_logit_rows = 18, .max_batched_tokens = 64,
                             .max_model_len = 190, .prefix_caching = true, .policy = SCHED_PRIORITY}, 3, EVENTS);
}

static void windowed(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 24, .block_tokens = 4, .max_num_seqs = 10, .max_logit_rows = 16, .max_batched_tokens = 40,
                             .max_model_len = 190, .prefix_caching = true, .window = 13}, 4, EVENTS);
}

static void windowed_tight(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 5, .block_tokens = 4, .max_num_seqs = 6, .max_logit_rows = 12, .max_batched_tokens = 24,
                             .max_model_len = 190, .prefix_caching = true, .window = 10}, 5, EVENTS);
}

/* Narrower than a page: a page is behind the window before its child is full. */
static void windowed_narrow(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 14, .block_tokens = 8, .max_num_seqs = 8, .max_logit_rows = 14, .max_batched_tokens = 24,
                             .max_model_len = 190, .prefix_caching = true, .window = 3}, 8, EVENTS);
}

static void uncached(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 48, .block_tokens = 8, .max_num_seqs = 16, .max_logit_rows = 22, .max_batched_tokens = 30,
                             .max_model_len = 150}, 6, EVENTS);
}

static void small_budget(void **state)
{
    (void)state;
    run(&(struct sched_opts){.n_blocks = 90, .block_tokens = 2, .max_num_seqs = 24, .max_logit_rows = 30, .max_batched_tokens = 5,
                             .max_model_len = 150, .prefix_caching = true, .policy = SCHED_PRIORITY}, 7, EVENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),          cmocka_unit_test(tight),    cmocka_unit_test(priority),     cmocka_unit_test(windowed),
        cmocka_unit_test(windowed_tight), cmocka_unit_test(windowed_narrow), cmocka_unit_test(uncached), cmocka_unit_test(small_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
