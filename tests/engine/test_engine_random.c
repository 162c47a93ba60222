/* Random workloads on the real engine: every token and logprob equals, bit for bit, the request run alone (promise 1);
 * afterwards no page is held and none is lost (promise 2). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "base/file.h"
#include "engine/engine.h"

enum { VOCAB = 97, MAX_LEN = 512, MAX_OUT = 4096 };

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":97,\"hidden_size\":64,\"intermediate_size\":96,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"
    "\"hidden_act\":\"silu\",\"eos_token_id\":3,\"bos_token_id\":1,\"tie_word_embeddings\":false,\"torch_dtype\":\"float32\"%s}";

static char folder[64];

static void write_config(const char *extra)
{
    char text[1024], path[96];
    struct err e;
    int n = snprintf(text, sizeof text, config, extra);
    snprintf(folder, sizeof folder, "/tmp/quire-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_true(file_write_atomic(path, text, (size_t)n, &e));
}

static void remove_config(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    rmdir(folder);
}

/* ---- guides, over made-up texts of the tokens ---- */

enum { EOS = 3, N_GUIDES = 3 };
static struct guide_vocab *guide_vocab;
static struct guide *guides[N_GUIDES];
static int32_t n_guided;          /* outputs that finished and were checked */

/* Letters, pairs of letters, and signs; 0 to 3 have none. */
static const char *token_text(int32_t t)
{
    static char text[VOCAB][4];
    static const char signs[] = "0123456789() ";
    if (t < 4 || t >= VOCAB)
        return NULL;
    if (t < 30)
        text[t][0] = (char)('a' + t - 4);
    else if (t < 84)
        memcpy(text[t], (char[]){(char)('a' + t % 26), (char)('a' + t * 7 % 26)}, 2);
    else
        text[t][0] = signs[t - 84];
    return text[t];
}

static int open_guides(void **state)
{
    static const char *const texts[N_GUIDES] = {"[a-z]{5,20}", "([a-z]{1,9}[0-9] ){2,3}", "root ::= \"(\" root \")\" | [a-z]{6,30}"};
    const char *tokens[VOCAB];
    size_t lens[VOCAB];
    struct err e;
    (void)state;
    for (int32_t t = 0; t < VOCAB; t++) {
        tokens[t] = token_text(t);
        lens[t] = tokens[t] ? strlen(tokens[t]) : 0;
    }
    if (!guide_vocab_open_bytes(&guide_vocab, tokens, lens, VOCAB, &(int32_t){EOS}, 1, &e))
        return -1;
    for (int i = 0; i < N_GUIDES; i++) {
        struct guide_spec spec = {.kind = i < 2 ? GUIDE_REGEX : GUIDE_GRAMMAR, .text = texts[i], .len = strlen(texts[i])};
        if (!guide_compile(&guides[i], guide_vocab, &spec, NULL, &e))
            return -1;
    }
    return 0;
}

static int close_guides(void **state)
{
    (void)state;
    for (int i = 0; i < N_GUIDES; i++)
        guide_unref(&guides[i]);
    guide_vocab_close(&guide_vocab);
    print_message("%d guided outputs finished\n", n_guided);
    return n_guided > 40 ? 0 : -1;
}

/* ---- one request and all that came of it ---- */

struct job {
    int32_t *prompt, n_prompt, max_tokens, n, best_of;
    bool beam;
    struct sample_params params;
    const char *salt;
    int32_t cancel_after;        /* < 0: never */
    struct guide *guide;

    struct engine_stream *st;
    int32_t n_got;               /* records below */
    struct record { int32_t choice, token, finish, rank, type; uint32_t logprob; int32_t top; uint32_t top_logprob; } *got;
    bool done, cancelled;
};

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static void make_job(struct rng *r, struct job *j, int32_t *shared_prefix)
{
    memset(j, 0, sizeof *j);
    j->n_prompt = 1 + (int32_t)rng_next_below(r, rng_next_below(r, 4) ? 60 : 300);
    j->prompt = mem_must_zalloc((size_t)j->n_prompt, sizeof *j->prompt);
    int32_t common = rng_next_below(r, 2) ? (int32_t)rng_next_below(r, 200) : 0;
    for (int32_t i = 0; i < j->n_prompt; i++)
        j->prompt[i] = i < common ? shared_prefix[i] : (int32_t)rng_next_below(r, VOCAB);
    j->max_tokens = 1 + (int32_t)rng_next_below(r, 60);
    j->n = rng_next_below(r, 4) ? 1 : 1 + (int32_t)rng_next_below(r, 4);
    j->cancel_after = rng_next_below(r, 8) ? -1 : (int32_t)rng_next_below(r, 20);
    struct sample_params *p = &j->params;
    sample_params_default(p);
    p->has_seed = true;
    p->seed = rng_next(r);
    p->temperature = rng_next_below(r, 3) ? 1.0f : 0.0f;
    if (rng_next_below(r, 3) == 0)
        p->top_p = 0.9f;
    if (rng_next_below(r, 4) == 0)
        p->repetition_penalty = 1.2f;
    p->n_logprobs = rng_next_below(r, 2) ? 1 : -1;
    if (rng_next_below(r, 6) == 0)
        p->n_prompt_logprobs = 1;
    p->ignore_eos = rng_next_below(r, 2);
    if (rng_next_below(r, 8) == 0) {
        j->beam = true;
        j->best_of = j->n + (int32_t)rng_next_below(r, 2);
        p->n_prompt_logprobs = -1;
        j->cancel_after = -1;
    } else if (rng_next_below(r, 8) == 0) {
        j->best_of = j->n + 2;
        j->cancel_after = -1;
    }
    if (!j->beam && rng_next_below(r, 3) == 0)
        j->guide = guides[rng_next_below(r, N_GUIDES)];
    j->salt = rng_next_below(r, 6) ? NULL : "salted";
    j->got = mem_must_zalloc(MAX_OUT, sizeof *j->got);
}

static void submit(struct engine *eng, struct job *j)
{
    struct err e;
    struct engine_request q = {.kind = ENGINE_GENERATE, .tokens = j->prompt, .n_tokens = j->n_prompt, .params = &j->params,
                               .max_tokens = j->max_tokens, .n = j->n, .best_of = j->best_of, .beam_search = j->beam, .length_penalty = 1,
                               .cache_salt = j->salt, .guide = j->guide};
    j->n_got = 0;
    j->done = j->cancelled = false;
    if (!engine_submit(eng, &q, NULL, NULL, &j->st, &e))
        fail_msg("%s", e.msg);
}

/* Takes what is there.  Returns whether the request is over. */
static bool collect(struct job *j)
{
    struct engine_event ev;
    while (!j->done && engine_stream_next(j->st, &ev)) {
        assert_int_not_equal(ev.type, ENGINE_EV_ERROR);
        if (ev.type == ENGINE_EV_DONE) {
            j->done = true;
            engine_stream_close(&j->st);
            break;
        }
        assert_true(j->n_got < MAX_OUT);
        j->got[j->n_got++] = (struct record){.choice = ev.choice, .token = ev.token, .finish = (int32_t)ev.finish, .rank = ev.rank,
                                             .type = (int32_t)ev.type, .logprob = ev.rank ? bits(ev.logprob) : 0,
                                             .top = ev.lp.n ? ev.lp.ids[0] : -1, .top_logprob = ev.lp.n ? bits(ev.lp.logprobs[0]) : 0};
        if (j->cancel_after >= 0 && j->n_got > j->cancel_after && !j->cancelled) {
            engine_stream_cancel(j->st, -1, ENGINE_FINISH_ABORT);
            j->cancelled = true;
        }
    }
    return j->done;
}

static void finish(struct job *j)
{
    while (!collect(j))
        engine_stream_wait(j->st, 1000000);
}

/* Records of one choice, in order: neighbours may interleave choices differently. */
static int32_t next_of(const struct job *j, int32_t at, int32_t type, int32_t choice)
{
    while (at < j->n_got && (j->got[at].type != type || j->got[at].choice != choice))
        at++;
    return at;
}

/* What a choice said is in its guide's language when it finished, and could have gone on to be when it did not. */
static void check_guided(const struct job *j)
{
    for (int32_t c = 0; j->guide && c < j->n; c++) {
        char text[4096];
        size_t n = 0;
        int32_t finish = ENGINE_FINISH_NONE;
        for (int32_t i = 0; i < j->n_got; i++) {
            const struct record *g = &j->got[i];
            if (g->choice != c || g->type != ENGINE_EV_TOKEN)
                continue;
            finish = g->finish;
            if (g->token == EOS)
                break;
            assert_non_null(token_text(g->token));
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", token_text(g->token));
        }
        if (finish != ENGINE_FINISH_STOP)
            continue;
        n_guided++;
        if (!guide_matches(j->guide, text, n))
            fail_msg("finished as '%.*s'", (int)n, text);
    }
}

static void compare(const struct job *a, const struct job *b)
{
    const int32_t types[] = {ENGINE_EV_PROMPT, ENGINE_EV_TOKEN};
    for (int t = 0; t < 2; t++)
        for (int32_t c = 0; c < a->n; c++) {
            int32_t x = 0, y = 0;
            for (;; x++, y++) {
                x = next_of(a, x, types[t], c);
                y = next_of(b, y, types[t], c);
                if (x >= a->n_got || y >= b->n_got)
                    break;
                assert_memory_equal(&a->got[x], &b->got[y], sizeof a->got[x]);
            }
            if (a->cancel_after < 0)
                assert_true(x >= a->n_got && y >= b->n_got);
        }
}

static void check_pages(struct engine *eng)
{
    struct engine_metrics m;
    for (int i = 0; i < 2000; i++) {
        engine_metrics(eng, &m);
        if (engine_idle(eng) && m.blocks_held == 0 && m.num_requests_running == 0 && m.num_requests_waiting == 0)
            break;
        usleep(1000);
    }
    assert_int_equal(m.blocks_held, 0);
    assert_int_equal(m.blocks_free + m.blocks_cached, m.blocks_total);
}

static const char *quantization, *kv_dtype = "auto";

static struct engine *open_engine(int threads, int32_t blocks, int32_t batched, bool prefix, const char *dtype)
{
    struct engine_opts o;
    struct engine *eng;
    struct err e;
    engine_opts_default(&o);
    o.model = folder;
    o.load_format = "dummy";
    o.seed = 1234;
    o.dtype = dtype;
    o.quantization = quantization;
    o.kv_cache_dtype = kv_dtype;
    o.n_threads = threads;
    o.max_num_seqs = 16;
    o.max_num_batched_tokens = batched;
    o.num_kv_blocks = blocks;
    o.enable_prefix_caching = prefix;
    o.step_target_ms = threads > 1 ? 1 : 0;     /* chunks that follow the clock: results do not */
    if (!engine_open(&eng, &o, &e))
        fail_msg("%s", e.msg);
    return eng;
}

/* References alone on a roomy engine with one thread; the workload on cramped ones with two. */
static void run_workload(const char *extra, const char *dtype, uint64_t seed, int n_jobs)
{
    struct rng r = {seed};
    int32_t prefix[256];
    for (int i = 0; i < 256; i++)
        prefix[i] = (int32_t)rng_next_below(&r, VOCAB);
    struct job *alone = mem_must_zalloc((size_t)n_jobs, sizeof *alone), *together = mem_must_zalloc((size_t)n_jobs, sizeof *together);
    write_config(extra);
    struct engine *eng = open_engine(1, 400, 2048, false, dtype);
    for (int i = 0; i < n_jobs; i++) {
        make_job(&r, &alone[i], prefix);
        submit(eng, &alone[i]);
        finish(&alone[i]);
        check_guided(&alone[i]);
    }
    check_pages(eng);
    engine_close(&eng);
    const struct { int32_t blocks, batched; bool prefix; } shapes[] = {{400, 64, true}, {40, 24, true}, {24, 512, false}, {400, 2048, true}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        eng = open_engine(2, shapes[s].blocks, shapes[s].batched, shapes[s].prefix, dtype);
        for (int i = 0; i < n_jobs; i++) {
            together[i] = alone[i];
            together[i].got = mem_must_zalloc(MAX_OUT, sizeof *together[i].got);
            submit(eng, &together[i]);
            for (int k = 0; k < i; k++) /* keep reading, so that cancels happen in the midst */
                if (!together[k].done)
                    collect(&together[k]);
            if (rng_next_below(&r, 4) == 0)
                usleep((useconds_t)rng_next_below(&r, 3000));
        }
        for (int i = 0; i < n_jobs; i++)
            finish(&together[i]);
        for (int i = 0; i < n_jobs; i++) {
            compare(&alone[i], &together[i]);
            mem_free(together[i].got);
        }
        check_pages(eng);
        engine_close(&eng);
    }
    for (int i = 0; i < n_jobs; i++) {
        mem_free(alone[i].prompt);
        mem_free(alone[i].got);
    }
    mem_free(alone);
    mem_free(together);
    remove_config();
}

static void test_f32(void **state) { (void)state; run_workload("", "f32", 1, 40); }
static void test_bf16(void **state) { (void)state; run_workload("", "bf16", 2, 40); }
static void test_f16(void **state) { (void)state; run_workload("", "f16", 3, 30); }
static void test_window(void **state)
{
    (void)state;
    run_workload(",\"sliding_window\":48,\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"", "f32", 4, 40);
}
static void test_dynamic_rope(void **state)
{
    (void)state;
    run_workload(",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":4.0},\"max_position_embeddings\":128", "f32", 5, 40);
}

static void run_quantized(const char *weights, const char *kv, uint64_t seed)
{
    quantization = weights;
    kv_dtype = kv;
    run_workload("", "bf16", seed, 25);
    quantization = NULL;
    kv_dtype = "auto";
}

static void test_int8(void **state) { (void)state; run_quantized("int8", "int8", 6); }
static void test_int4(void **state) { (void)state; run_quantized("int4", "fp8", 7); }
static void test_mixed(void **state) { (void)state; run_quantized("attn=fp8,ffn=int8-g16,head=bf16", "f32", 8); }

/* ---- looking in ---- */

static void test_view(void **state)
{
    (void)state;
    write_config("");
    struct engine *eng = open_engine(1, 60, 64, true, "f32"); /* room for all three to run together */
    struct sample_params p;
    sample_params_default(&p);
    p.ignore_eos = true;
    int32_t prompt[70] = {0};
    struct engine_request q = {.kind = ENGINE_GENERATE, .tokens = prompt, .n_tokens = 70, .params = &p, .max_tokens = 300, .n = 3};
    struct engine_stream *st;
    struct engine_view *v;
    struct err e;
    assert_true(engine_view_open(eng, &v, &e));
    assert_int_equal(v->n_steps, 0);
    assert_int_equal(v->n_kept, 0);
    assert_int_equal(v->n_pages, 59);
    engine_view_close(&v);
    int32_t most = 0;
    for (int tries = 0; most < 4 && tries < 200; tries++) { /* a look may come after all is over: this thread runs when it is let */
        assert_true(engine_submit(eng, &q, NULL, NULL, &st, &e));
        for (bool over = false; !over;) {
            struct engine_event ev;
            engine_stream_wait(st, -1);
            while (!over && engine_stream_next(st, &ev))
                over = ev.type == ENGINE_EV_DONE || ev.type == ENGINE_EV_ERROR;
            assert_true(engine_view_open(eng, &v, &e));
            for (int32_t i = 0; i < v->n_pages; i++)
                most = v->pages[i] > most ? v->pages[i] : most;
            engine_view_close(&v);
        }
        engine_stream_close(&st);
    }
    assert_int_equal(most, 4); /* the prompt's full pages, held by all three */
    assert_true(engine_view_open(eng, &v, &e));
    assert_int_equal(v->n_kept, v->n_steps < ENGINE_STEPS_KEPT ? v->n_steps : ENGINE_STEPS_KEPT);
    for (int32_t i = 0; i < v->n_kept; i++) {
        const struct engine_step *s = &v->steps[i];
        assert_true(s->n_tokens > 0 && s->n_seqs > 0 && s->n_prefill <= s->n_tokens);
        assert_true(i == 0 || s->start_us >= v->steps[i - 1].start_us);
        assert_true(s->start_us + s->schedule_us + s->forward_us + s->sample_us + s->emit_us <= v->now_us);
    }
    engine_view_close(&v);
    engine_close(&eng);
    remove_config();
}

/* Prompt tokens of the first step kept that has a stream beside them; 0: there is none. */
static int32_t first_mixed(struct engine *eng)
{
    struct engine_view *v;
    struct err e;
    int32_t n = 0;
    assert_true(engine_view_open(eng, &v, &e));
    for (int32_t i = 0; i < v->n_kept && n == 0; i++)
        n = v->steps[i].n_tokens > v->steps[i].n_prefill ? v->steps[i].n_prefill : 0;
    engine_view_close(&v);
    return n;
}

/* A long prompt that comes while a sequence streams begins with a small chunk, not with all that a step holds. */
static void test_step_target(void **state)
{
    (void)state;
    write_config("");
    struct sample_params p;
    sample_params_default(&p);
    p.ignore_eos = true;
    int32_t prompt[200], n = 0;
    for (int i = 0; i < 200; i++)
        prompt[i] = i % VOCAB;
    struct engine_request first = {.kind = ENGINE_GENERATE, .tokens = prompt, .n_tokens = 8, .params = &p, .max_tokens = 250, .n = 1};
    struct engine_request second = {.kind = ENGINE_GENERATE, .tokens = prompt, .n_tokens = 200, .params = &p, .max_tokens = 1, .n = 1};
    for (int tries = 0; n == 0 && tries < 200; tries++) {   /* the first may be over before the second comes */
        struct engine *eng = open_engine(2, 60, 512, false, "f32");
        struct engine_stream *a, *b;
        struct engine_event ev;
        struct err e;
        assert_true(engine_submit(eng, &first, NULL, NULL, &a, &e));
        engine_stream_wait(a, -1);
        assert_true(engine_submit(eng, &second, NULL, NULL, &b, &e));
        for (bool over = false; !over;) {
            engine_stream_wait(b, -1);
            while (!over && engine_stream_next(b, &ev))
                over = ev.type == ENGINE_EV_DONE || ev.type == ENGINE_EV_ERROR;
        }
        n = first_mixed(eng);
        engine_stream_close(&a);
        engine_stream_close(&b);
        engine_close(&eng);
    }
    assert_in_range(n, 1, 64);
    remove_config();
}

/* ---- refusals and ends ---- */

static void test_refusals(void **state)
{
    (void)state;
    write_config("");
    struct engine *eng = open_engine(1, 10, 64, true, "f32"); /* 9 pages: a context of 288 */
    struct sample_params p;
    sample_params_default(&p);
    p.temperature = 0;
    p.ignore_eos = true;
    int32_t prompt[MAX_LEN] = {0};
    struct engine_stream *st;
    struct err e;
    struct engine_request q = {.kind = ENGINE_GENERATE, .tokens = prompt, .n_tokens = 280, .params = &p, .max_tokens = 9, .n = 1};
    assert_int_equal(engine_info(eng)->max_model_len, 288);
    assert_false(engine_submit(eng, &q, NULL, NULL, &st, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    q.max_tokens = 8;
    for (int round = 0; round < 3; round++) { /* the next request works, and fits exactly */
        struct engine_event ev;
        int32_t n = 0;
        assert_true(engine_submit(eng, &q, NULL, NULL, &st, &e));
        do {
            engine_stream_wait(st, -1);
            while (engine_stream_next(st, &ev) && ev.type != ENGINE_EV_DONE)
                n += ev.type == ENGINE_EV_TOKEN;
        } while (ev.type != ENGINE_EV_DONE);
        assert_int_equal(n, 8);
        engine_stream_close(&st);
    }
    q.n_tokens = 0;
    assert_false(engine_submit(eng, &q, NULL, NULL, &st, &e));
    q.n_tokens = 3;
    prompt[1] = VOCAB;
    assert_false(engine_submit(eng, &q, NULL, NULL, &st, &e));
    assert_int_equal(e.code, ERR_INVALID);
    prompt[1] = 0;
    q.n = 17;
    assert_false(engine_submit(eng, &q, NULL, NULL, &st, &e));
    q.n = 1;
    q.max_tokens = 200;
    q.timeout_us = 1; /* over before it starts */
    assert_true(engine_submit(eng, &q, NULL, NULL, &st, &e));
    struct engine_event ev;
    for (bool over = false; !over;) {
        assert_true(engine_stream_wait(st, 5000000));
        while (!over && engine_stream_next(st, &ev))
            over = ev.type == ENGINE_EV_DONE || ev.type == ENGINE_EV_ERROR;
    }
    assert_int_equal(ev.type, ENGINE_EV_ERROR);
    assert_int_equal(ev.code, ERR_TIMEOUT);
    engine_stream_close(&st);
    q.timeout_us = 0;
    assert_true(engine_submit(eng, &q, NULL, NULL, &st, &e)); /* closing cancels */
    engine_stream_close(&st);
    check_pages(eng);
    assert_true(engine_reset_prefix_cache(eng));
    engine_drain(eng);
    assert_false(engine_submit(eng, &q, NULL, NULL, &st, &e));
    assert_int_equal(e.code, ERR_DRAINING);
    engine_close(&eng);
    remove_config();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32), cmocka_unit_test(test_bf16), cmocka_unit_test(test_f16), cmocka_unit_test(test_window),
        cmocka_unit_test(test_dynamic_rope), cmocka_unit_test(test_int8), cmocka_unit_test(test_int4), cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_view), cmocka_unit_test(test_step_target), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_guides, close_guides);
}
