/* Opening, planning memory, the engine thread, submission. */
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_int.h"
#include "model/packed.h"

enum { DEFAULT_SEQS = 256, DEFAULT_BATCHED = 2048, DEFAULT_LOGPROBS = 20 };
/* Prompt logprobs are computed in pieces whose logits fit this. */
static const int64_t SCORE_LOGITS_BYTES = (int64_t)32 << 20;

void engine_opts_default(struct engine_opts *o)
{
    *o = (struct engine_opts){.load_format = "auto", .dtype = "auto", .kv_cache_dtype = "auto", .memory_fraction = 0.9,
                              .enable_prefix_caching = true};
}

/* ---- opening ---- */

static bool parse_dtype(const char *flag, const char *name, enum fwd_dtype *out, struct err *e)
{
    static const struct { const char *name; enum fwd_dtype type; } names[] = {
        {"auto", FWD_DTYPE_AUTO}, {"f32", FWD_DTYPE_F32}, {"float32", FWD_DTYPE_F32}, {"float", FWD_DTYPE_F32},
        {"f16", FWD_DTYPE_F16}, {"float16", FWD_DTYPE_F16}, {"half", FWD_DTYPE_F16},
        {"bf16", FWD_DTYPE_BF16}, {"bfloat16", FWD_DTYPE_BF16},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name ? name : "auto", names[i].name) == 0)
            return *out = names[i].type, true;
    return err_set(e, ERR_INVALID, "%s '%s' is not auto, f32, f16 or bf16", flag, name);
}

/* KV pages may have fewer bits than weights that are computed with. */
static bool parse_kv_dtype(const char *name, enum fwd_dtype *out, struct err *e)
{
    static const struct { const char *name; enum fwd_dtype type; } kv_only[] = {
        {"int8", FWD_DTYPE_INT8}, {"fp8", FWD_DTYPE_FP8}, {"fp8_e4m3", FWD_DTYPE_FP8},
    };
    for (size_t i = 0; name && i < sizeof kv_only / sizeof kv_only[0]; i++)
        if (strcmp(name, kv_only[i].name) == 0)
            return *out = kv_only[i].type, true;
    return parse_dtype("kv-cache-dtype", name, out, NULL) ||
           err_set(e, ERR_INVALID, "kv-cache-dtype '%s' is not auto, f32, f16, bf16, int8 or fp8", name);
}

static const char *dtype_text(enum fwd_dtype t, const struct model *m)
{
    if (t == FWD_DTYPE_INT8 || t == FWD_DTYPE_FP8)
        return t == FWD_DTYPE_INT8 ? "int8" : "fp8";
    enum dtype stored = model_dtype(m);
    if (t == FWD_DTYPE_AUTO)
        t = stored == DT_F16 ? FWD_DTYPE_F16 : stored == DT_BF16 ? FWD_DTYPE_BF16 : FWD_DTYPE_F32;
    return t == FWD_DTYPE_F16 ? "f16" : t == FWD_DTYPE_BF16 ? "bf16" : "f32";
}

static int32_t clamp32(int64_t v, int64_t lo, int64_t hi)
{
    return (int32_t)(v < lo ? lo : v > hi ? hi : v);
}

/* Limits that follow from the options and the model, before memory is looked at. */
static bool set_limits(struct engine *eng, struct err *e)
{
    const struct engine_opts *o = &eng->opts;
    const struct arch *a = model_arch(eng->model);
    struct engine_info *info = &eng->info;
    if (o->max_model_len < 0 || o->max_num_seqs < 0 || o->max_num_batched_tokens < 0 || o->num_kv_blocks < 0 || o->max_logprobs < 0 ||
        o->step_target_ms < 0)
        return err_set(e, ERR_INVALID, "engine limits must not be negative");
    if (o->max_model_len > a->max_len && a->pos == ARCH_POS_LEARNED)
        return err_set(e, ERR_INVALID, "max-model-len %d is past the model's %d learned positions", o->max_model_len, a->max_len);
    info->max_model_len = o->max_model_len ? o->max_model_len : a->max_len;
    info->max_num_seqs = o->max_num_seqs ? o->max_num_seqs : DEFAULT_SEQS;
    info->max_num_batched_tokens = o->max_num_batched_tokens ? o->max_num_batched_tokens : DEFAULT_BATCHED;
    if (info->max_num_batched_tokens < info->max_num_seqs) /* every running sequence must be able to decode */
        info->max_num_batched_tokens = info->max_num_seqs;
    info->vocab_size = a->vocab_size;
    info->hidden_size = a->hidden;
    info->max_logprobs = o->max_logprobs ? o->max_logprobs : DEFAULT_LOGPROBS;
    if (info->max_logprobs > info->vocab_size)
        info->max_logprobs = info->vocab_size;
    info->block_tokens = dev_caps(eng->dev)->block_tokens;
    int64_t score_rows = clamp32(SCORE_LOGITS_BYTES / ((int64_t)info->vocab_size * 4), 1, info->max_num_batched_tokens);
    eng->max_logits = clamp32(info->max_num_seqs + score_rows, 1, INT32_MAX);
    return true;
}

static void fill_fwd_opts(const struct engine *eng, struct fwd_opts *f)
{
    f->max_tokens = eng->info.max_num_batched_tokens;
    f->max_seqs = eng->info.max_num_seqs;
    f->max_logits = eng->max_logits;
    f->max_model_len = eng->info.max_model_len;
    f->n_blocks = eng->info.n_blocks;
    f->progress = eng->opts.progress;
    f->progress_ctx = eng->opts.progress_ctx;
}

/* Pages: as many as were asked for, or as fit beside weights and workspace; never more than all sequences could use. */
static bool plan_pages(struct engine *eng, struct fwd_opts *f, struct err *e)
{
    struct engine_info *info = &eng->info;
    struct fwd_plan plan;
    info->n_blocks = 2;
    fill_fwd_opts(eng, f);
    if (!fwd_plan_bytes(&plan, eng->model, f, e))
        return false;
    info->n_params = plan.n_params;
    int64_t per_seq = (info->max_model_len + info->block_tokens - 1) / info->block_tokens;
    int64_t blocks = eng->opts.num_kv_blocks;
    if (blocks == 0) {
        double fraction = eng->opts.memory_fraction > 0 ? eng->opts.memory_fraction : 0.9;
        double budget = eng->opts.memory_bytes > 0 ? (double)eng->opts.memory_bytes : (double)dev_caps(eng->dev)->memory_bytes * fraction;
        double room = budget - (double)plan.weight_bytes - (double)plan.workspace_bytes;
        double fit = plan.kv_block_bytes ? room / (double)plan.kv_block_bytes : 0;
        blocks = fit > (double)(1 << 30) ? 1 << 30 : (int64_t)fit;
        int64_t most = per_seq * info->max_num_seqs + 1;
        if (blocks > most)
            blocks = most;
        if (blocks < 2)
            return err_set(e, ERR_TOO_LARGE,
                           "the model does not fit: weights %.2f GiB and workspace %.2f GiB leave no room for KV pages in %.2f GiB; "
                           "lower --max-num-batched-tokens or raise --memory-utilization",
                           (double)plan.weight_bytes / (1 << 30), (double)plan.workspace_bytes / (1 << 30),
                           budget / (1 << 30));
    }
    if (blocks < 2)
        return err_set(e, ERR_INVALID, "num-kv-blocks must be at least 2 (page 0 is reserved)");
    int64_t held = (blocks - 1) * info->block_tokens;
    if (eng->opts.max_model_len && held < info->max_model_len)
        return err_set(e, ERR_TOO_LARGE, "max-model-len %d needs %lld KV pages, but only %lld fit; lower it to %lld or give more memory",
                       info->max_model_len, (long long)per_seq, (long long)blocks - 1, (long long)held);
    if (held < info->max_model_len) {
        log_warn(eng->opts.log, "engine", "context cut from %d to %lld tokens: that is what the KV pages hold", info->max_model_len, (long long)held);
        info->max_model_len = (int32_t)held;
    }
    info->n_blocks = (int32_t)blocks;
    fill_fwd_opts(eng, f);
    return true;
}

/* All attention layers' common window, or 0. */
static int32_t common_window(const struct arch *a)
{
    int32_t w = 0;
    for (int32_t i = 0; i < a->n_layers; i++) {
        if (a->layer_window[i] <= 0)
            return 0;
        w = a->layer_window[i] > w ? a->layer_window[i] : w;
    }
    return w;
}

static void name_things(struct engine *eng, const struct fwd_opts *f)
{
    struct engine_info *info = &eng->info;
    const struct dev_caps *caps = dev_caps(eng->dev);
    snprintf(eng->names[0], sizeof eng->names[0], "%s", eng->opts.model_name ? eng->opts.model_name : model_name(eng->model));
    snprintf(eng->names[1], sizeof eng->names[1], "%s", model_arch(eng->model)->architecture);
    snprintf(eng->names[2], sizeof eng->names[2], "%s", dtype_text(f->dtype, eng->model));
    snprintf(eng->names[3], sizeof eng->names[3], "%s", dtype_text(f->kv_dtype == FWD_DTYPE_AUTO ? f->dtype : f->kv_dtype, eng->model));
    info->model_name = eng->names[0];
    info->architecture = eng->names[1];
    info->dtype = eng->names[2];
    info->kv_dtype = eng->names[3];
    info->device = caps->name;
    info->isa = caps->isa;
    info->n_threads = caps->n_threads;
    info->prefix_caching = eng->opts.enable_prefix_caching;
    info->priority_scheduling = eng->opts.priority_scheduling;
}

/* A folder without a tokenizer still serves token ids; a broken tokenizer is an error. */
static bool open_tokenizer(struct engine *eng, struct err *e)
{
    const struct file_set *files = model_files(eng->model);
    if (!tok_has(files)) {
        log_warn(eng->opts.log, "engine", "no tokenizer: only token ids are accepted");
        return true;
    }
    return tok_open(&eng->tok, files, e);
}

static bool open_sched(struct engine *eng, struct err *e)
{
    const struct engine_info *info = &eng->info;
    struct sched_opts so = {
        .n_blocks = info->n_blocks, .block_tokens = info->block_tokens, .max_num_seqs = info->max_num_seqs,
        .max_batched_tokens = info->max_num_batched_tokens, .max_model_len = info->max_model_len, .max_logit_rows = eng->max_logits,
        .window = common_window(model_arch(eng->model)), .long_prefill_threshold = eng->opts.long_prefill_token_threshold,
        .prefix_caching = eng->opts.enable_prefix_caching, .policy = eng->opts.priority_scheduling ? SCHED_PRIORITY : SCHED_FCFS,
    };
    pace_open(&eng->pace, (int64_t)eng->opts.step_target_ms * 1000000, info->max_num_batched_tokens);
    return sched_open(&eng->sched, &so, e);
}

static void *engine_thread(void *arg);

/* Packing less than this is faster than looking the file up. */
static const size_t PACKED_MIN_BYTES = (size_t)64 << 20;

static bool open_fwd(struct engine *eng, struct fwd_opts *f, struct err *e)
{
    const char *choice = eng->opts.packed_cache;
    char *dir = choice ? NULL : packed_default_dir();
    f->packed_dir = !choice ? dir : strcmp(choice, "off") == 0 ? NULL : choice;
    f->packed_min_bytes = choice ? 0 : PACKED_MIN_BYTES;
    bool ok = fwd_open(&eng->fwd, eng->dev, eng->model, f, e);
    if (ok) {
        log_info(eng->opts.log, "engine", "packed weights: %s", fwd_packed_state(eng->fwd));
        log_info(eng->opts.log, "engine", "weight formats: %s", fwd_formats(eng->fwd));
        eng->info.weight_formats = fwd_formats(eng->fwd);
    }
    mem_free(dir);
    return ok;
}

bool engine_parse_activation_dtype(const char *name, bool *float_inputs, struct err *e)
{
    *float_inputs = name && strcmp(name, "bf16") == 0;
    return *float_inputs || !name || strcmp(name, "auto") == 0 || strcmp(name, "int8") == 0 ||
           err_set(e, ERR_INVALID, "activation-dtype '%s': one of auto, int8, bf16", name);
}

/* The options' names, the model's headers and the limits that follow. */
static bool open_headers(struct engine *eng, struct fwd_opts *f, struct err *e)
{
    const struct engine_opts *o = &eng->opts;
    bool dummy = o->load_format && strcmp(o->load_format, "dummy") == 0;
    if (!dummy && o->load_format && strcmp(o->load_format, "auto") != 0)
        return err_set(e, ERR_INVALID, "load-format '%s' is neither auto nor dummy", o->load_format);
    struct model_opts mo = {.load_format = dummy ? MODEL_LOAD_DUMMY : MODEL_LOAD_AUTO, .dummy_seed = o->seed};
    struct dev_opts dv = {.name = o->device, .n_threads = o->n_threads, .isa = o->isa};
    return parse_dtype("dtype", o->dtype, &f->dtype, e) && parse_kv_dtype(o->kv_cache_dtype, &f->kv_dtype, e) &&
           engine_parse_activation_dtype(o->activation_dtype, &dv.float_inputs, e) && fwd_quant_parse(o->quantization, &f->quant, e) && model_open(&eng->model, o->model, &mo, e) && dev_open(&eng->dev, &dv, e) &&
           set_limits(eng, e);
}

bool engine_plan(const struct engine_opts *o, struct engine_plan *out, struct err *e)
{
    struct fwd_opts f = {0};
    struct fwd_plan plan;
    struct engine *eng = mem_try_zalloc(1, sizeof *eng);
    if (!eng)
        return err_set(e, ERR_NOMEM, "out of memory");
    eng->opts = *o;
    eng->info.n_blocks = 2;
    bool ok = open_headers(eng, &f, e);
    if (ok) {
        fill_fwd_opts(eng, &f);
        ok = fwd_plan_bytes(&plan, eng->model, &f, e);
    }
    if (ok)
        *out = (struct engine_plan){.weight_bytes = (int64_t)plan.weight_bytes, .workspace_bytes = (int64_t)plan.workspace_bytes,
                                    .page_bytes = (int64_t)plan.kv_block_bytes, .machine_bytes = (int64_t)dev_caps(eng->dev)->memory_bytes,
                                    .max_model_len = eng->info.max_model_len};
    dev_close(&eng->dev);
    model_close(&eng->model);
    mem_free(eng);
    return ok;
}

static bool open_all(struct engine *eng, struct err *e)
{
    const struct engine_opts *o = &eng->opts;
    struct fwd_opts f = {0};
    if (!open_headers(eng, &f, e) || !open_tokenizer(eng, e) || !plan_pages(eng, &f, e))
        return false;
    eng->generation = *model_generation(eng->model);
    name_things(eng, &f);
    if (!open_fwd(eng, &f, e) || !open_sched(eng, e))
        return false;
    struct sample_env env = {.vocab_size = eng->info.vocab_size, .eos_ids = eng->generation.eos_ids, .n_eos = eng->generation.n_eos_ids,
                             .seed = o->seed};
    eng->space = sampler_open(&eng->sampler, eng->dev, &env, e) ? step_space_open(eng, e) : NULL;
    if (!eng->space || (o->profile_path && !trace_open(&eng->trace, o->profile_path, eng->dev, e)))
        return false;
    metrics_publish(eng);
    if (pthread_create(&eng->thread, NULL, engine_thread, eng) != 0)
        return err_set(e, ERR_NOMEM, "the engine's thread could not be started");
    eng->thread_started = true;
    return true;
}

bool engine_open(struct engine **out, const struct engine_opts *o, struct err *e)
{
    int64_t t0 = clock_now_us();
    struct engine *eng = mem_try_zalloc(1, sizeof *eng);
    *out = NULL;
    if (!eng)
        return err_set(e, ERR_NOMEM, "out of memory");
    eng->opts = *o;
    mpsc_init(&eng->inbox);
    pthread_mutex_init(&eng->metrics_lock, NULL);
    pthread_mutex_init(&eng->guide_lock, NULL);
    metrics_init(eng);
    if (!open_all(eng, e)) {
        engine_close(&eng);
        return false;
    }
    eng->info.load_s = (double)(clock_now_us() - t0) / 1e6;
    const struct engine_info *i = &eng->info;
    log_info(o->log, "engine", "model=%s arch=%s params=%lld dtype=%s kv=%s pages=%d max_model_len=%d threads=%d isa=%s load_s=%.3f",
             i->model_name, i->architecture, (long long)i->n_params, i->dtype, i->kv_dtype, i->n_blocks - 1, i->max_model_len,
             i->n_threads, i->isa, i->load_s);
    *out = eng;
    return true;
}

void engine_close(struct engine **peng)
{
    struct engine *eng = *peng;
    if (!eng)
        return;
    *peng = NULL;
    if (eng->thread_started) {
        struct msg stop = {.type = MSG_STOP};
        mpsc_push(&eng->inbox, &stop.node);
        pthread_join(eng->thread, NULL);
    }
    trace_close(&eng->trace);
    step_space_close(&eng->space);
    sampler_close(&eng->sampler);
    sched_close(&eng->sched);
    fwd_close(&eng->fwd);
    dev_close(&eng->dev);
    guide_vocab_close(&eng->guide_vocab);
    tok_close(&eng->tok);
    model_close(&eng->model);
    pthread_mutex_destroy(&eng->metrics_lock);
    pthread_mutex_destroy(&eng->guide_lock);
    mem_free(eng);
}

const struct engine_info *engine_info(const struct engine *eng) { return &eng->info; }
const struct tok *engine_tok(const struct engine *eng) { return eng->tok; }

struct guide_vocab *engine_guide_vocab(struct engine *eng, struct err *e)
{
    if (!eng->tok) {
        err_set(e, ERR_UNSUPPORTED, "structured output needs a tokenizer, which this model does not have");
        return NULL;
    }
    pthread_mutex_lock(&eng->guide_lock);
    if (!eng->guide_vocab)
        guide_vocab_open(&eng->guide_vocab, eng->tok, eng->info.vocab_size, eng->generation.eos_ids, eng->generation.n_eos_ids, e);
    struct guide_vocab *v = eng->guide_vocab;
    pthread_mutex_unlock(&eng->guide_lock);
    return v;
}

const struct model_generation *engine_generation(const struct engine *eng) { return &eng->generation; }

/* ---- the thread ---- */

static void handle(struct engine *eng, struct msg *m)
{
    struct engine_stream *st = m->stream;
    switch (m->type) {
    case MSG_SUBMIT:
        request_admit(eng, st);
        if (eng->lost)
            request_fail(eng, st, ERR_INTERNAL, "the device has failed; restart the server");
        break;
    case MSG_CANCEL:
        request_cancel(eng, st, m->choice, m->finish);
        mem_free(m);
        stream_unref(st);
        break;
    case MSG_CLOSE:
        request_cancel(eng, st, -1, ENGINE_FINISH_ABORT);
        stream_unref(st);
        break;
    case MSG_ASK:
        ask_answer(eng, m->ask);
        break;
    case MSG_STOP:
        atomic_store(&eng->stopping, true);
        break;
    }
}

static void *engine_thread(void *arg)
{
    struct engine *eng = arg;
    pthread_setname_np(pthread_self(), "quire-engine");
    while (!atomic_load(&eng->stopping)) {
        struct mpsc_node *node;
        bool any = false;
        while ((node = mpsc_pop(&eng->inbox))) {
            handle(eng, (struct msg *)(void *)((char *)node - offsetof(struct msg, node)));
            any = true;
        }
        struct engine_turns *turns = eng->streams ? eng->opts.turns : NULL;
        if (turns)
            engine_turns_take(turns);
        atomic_store_explicit(&eng->step_began_us, eng->streams ? clock_now_us() : 0, memory_order_relaxed);
        bool worked = step_run(eng);
        atomic_store_explicit(&eng->step_began_us, 0, memory_order_relaxed);
        if (turns)
            engine_turns_give(turns);
        if (any || worked) {
            int64_t t0 = clock_now_ns();
            metrics_publish(eng);
            stream_flush(eng);
            eng->metrics.schedule_seconds += (double)(clock_now_ns() - t0) / 1e9; /* told with the next step */
        }
        if (!worked && !atomic_load(&eng->stopping))
            mpsc_wait(&eng->inbox, eng->streams ? 10000 : -1); /* with requests but nothing to compute only deadlines can pass */
    }
    while (eng->streams)
        request_fail(eng, eng->streams, ERR_DRAINING, "the engine is shutting down");
    stream_flush(eng);
    return NULL;
}

/* ---- submission ---- */

static bool check_request(const struct engine *eng, const struct engine_request *r, int32_t *max_new, int32_t *n_total, struct err *e)
{
    const struct engine_info *info = &eng->info;
    struct sample_limits limits = {.max_logprobs = info->max_logprobs, .vocab_size = info->vocab_size};
    if (atomic_load(&eng->draining))
        return err_set(e, ERR_DRAINING, "the server is shutting down");
    if (eng->opts.max_queue > 0 && atomic_load(&eng->n_waiting) >= eng->opts.max_queue)
        return err_set(e, ERR_OVERLOADED, "%d requests are waiting already", eng->opts.max_queue);
    if (r->n_tokens < 1)
        return err_set(e, ERR_INVALID, "the prompt is empty");
    for (int32_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= info->vocab_size)
            return err_set(e, ERR_INVALID, "token id %d is outside the vocabulary of %d", r->tokens[i], info->vocab_size);
    if (!sample_params_check(r->params, &limits, e))
        return false;
    *n_total = r->best_of > r->n ? r->best_of : r->n;
    if (r->n < 1 || (r->best_of && r->best_of < r->n))
        return err_set(e, ERR_INVALID, "n must be at least 1 and best_of at least n");
    if (*n_total > info->max_num_seqs)
        return err_set(e, ERR_INVALID, "%d choices are more than the %d sequences this server computes together", *n_total, info->max_num_seqs);
    if (r->guide && r->beam_search)
        return err_set(e, ERR_UNSUPPORTED, "use_beam_search cannot be combined with structured output");
    if (r->beam_search && 2 * *n_total > info->max_logprobs * 2 + 2)
        return err_set(e, ERR_INVALID, "a beam width of %d is more than %d", *n_total, info->max_logprobs + 1);
    int64_t room = (int64_t)info->max_model_len - r->n_tokens;
    *max_new = r->kind == ENGINE_GENERATE ? r->max_tokens ? r->max_tokens : (int32_t)room : 0;
    if (*max_new < 0 || room < *max_new || (r->kind == ENGINE_GENERATE && room < 1))
        return err_set(e, ERR_TOO_LARGE, "the prompt of %d tokens and %d new tokens do not fit the context of %d", r->n_tokens,
                       r->max_tokens, info->max_model_len);
    return true;
}

/* Only sequences of equal salt and equal rope scaling may share pages. */
static uint64_t page_salt(const struct engine *eng, const struct engine_request *r, int32_t rope_len)
{
    uint64_t salt = fwd_rope_key(eng->fwd, rope_len);
    return r->cache_salt ? hash_bytes(r->cache_salt, strlen(r->cache_salt), salt ^ 1) : salt;
}

bool engine_submit(struct engine *eng, const struct engine_request *r, engine_notify *notify, void *ctx, struct engine_stream **out,
                   struct err *e)
{
    int32_t max_new = 0, n_total = 0;
    *out = NULL;
    if (!check_request(eng, r, &max_new, &n_total, e))
        return false;
    struct engine_stream *st = mem_try_zalloc(1, sizeof *st);
    if (!st)
        goto nomem;
    st->tokens = mem_try_alloc((size_t)r->n_tokens, sizeof *st->tokens);
    st->params = sample_params_dup(r->params);
    st->choices = mem_try_zalloc((size_t)n_total, sizeof *st->choices);
    if (!st->tokens || !st->params || !st->choices)
        goto nomem;
    memcpy(st->tokens, r->tokens, (size_t)r->n_tokens * sizeof *st->tokens);
    st->eng = eng;
    atomic_init(&st->refs, 2);
    st->kind = r->kind;
    st->n_tokens = r->n_tokens;
    st->max_new = max_new;
    st->n = r->n;
    st->n_total = n_total;
    st->beam = r->beam_search && r->kind == ENGINE_GENERATE;
    st->guide = r->guide && r->kind == ENGINE_GENERATE ? guide_ref(r->guide) : NULL;
    st->want_logits = r->want_logits;
    st->pooling = r->pooling;
    if (st->kind == ENGINE_EMBED && st->pooling == ENGINE_POOL_MEAN) {
        st->pooled = mem_try_zalloc((size_t)eng->info.hidden_size, sizeof *st->pooled);
        st->mean = mem_try_zalloc((size_t)eng->info.hidden_size, sizeof *st->mean);
        if (!st->pooled || !st->mean)
            goto nomem;
    }
    st->want_logprob = r->params->n_logprobs >= 0 || n_total > r->n;
    st->length_penalty = r->length_penalty;
    st->priority = r->priority;
    st->rope_len = r->n_tokens + max_new;
    st->salt = page_salt(eng, r, st->rope_len);
    st->seed = eng->opts.seed ? hash_mix(eng->opts.seed, atomic_fetch_add(&eng->next_id, 1)) : rng_entropy();
    st->times.submitted = clock_now_us();
    st->times.n_prompt = r->n_tokens;
    st->deadline_us = r->timeout_us > 0 ? st->times.submitted + r->timeout_us : 0;
    st->notify = notify;
    st->notify_ctx = ctx;
    if (r->id)
        snprintf(st->id, sizeof st->id, "%s", r->id);
    else
        snprintf(st->id, sizeof st->id, "req-%016llx", (unsigned long long)rng_entropy());
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&st->cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&st->lock, NULL);
    atomic_fetch_add(&eng->n_streams, 1);
    atomic_fetch_add(&eng->n_waiting, 1);
    st->submit_msg.type = MSG_SUBMIT;
    st->submit_msg.stream = st;
    *out = st;
    mpsc_push(&eng->inbox, &st->submit_msg.node);
    return true;
nomem:
    if (st) {
        mem_free(st->tokens);
        mem_free(st->params);
        mem_free(st->pooled);
        mem_free(st->mean);
        mem_free(st->choices);
        mem_free(st);
    }
    return err_set(e, ERR_NOMEM, "out of memory for the request");
}

/* ---- operation ---- */

void engine_drain(struct engine *eng) { atomic_store(&eng->draining, true); }

bool engine_alive(const struct engine *eng, int64_t stall_us, struct err *why)
{
    int64_t began = atomic_load_explicit(&eng->step_began_us, memory_order_relaxed), took = began ? clock_now_us() - began : 0;
    if (atomic_load(&eng->lost))
        return err_set(why, ERR_INTERNAL, "%s: the device has failed; restart the server", eng->info.model_name);
    if (stall_us > 0 && took > stall_us)
        return err_set(why, ERR_INTERNAL, "%s: a step has been computing for %lld s", eng->info.model_name, (long long)(took / 1000000));
    return true;
}

bool engine_idle(const struct engine *eng) { return atomic_load(&eng->n_streams) == 0; }
