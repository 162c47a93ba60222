/* The options of every command that loads a model into an engine. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "engine/engine.h"

void cli_engine_flags_default(struct cli_engine_flags *f)
{
    *f = (struct cli_engine_flags){
        .dtype = "auto", .kv_cache_dtype = "auto", .quantization = "auto", .activation_dtype = "auto", .load_format = "auto", .log_level = "warn", .log_format = "text",
        .scheduling_policy = "fcfs", .device = "cpu", .memory_utilization = 0.9, .enable_prefix_caching = true,
        .max_logprobs = 20,
    };
}

void cli_engine_table(struct cli_engine_flags *f, struct cli_opt table[CLI_ENGINE_OPTS])
{
    const struct cli_opt all[] = {
        {"dtype", 0, CLI_STR, &f->dtype, "TYPE", "weights: auto (as stored, integers too), f32, f16 or bf16", 0, 0},
        {"kv-cache-dtype", 0, CLI_STR, &f->kv_cache_dtype, "TYPE", "KV pages: auto (as dtype), f32, f16, bf16, int8 or fp8", 0, 0},
        {"quantization", 0, CLI_STR, &f->quantization, "HOW", "weights: auto (integers as stored), none (those as f16), or rounded at load: int8, int4, int4-g32, int4-g64, int4-g128, int8-g32, fp8, fp8-g128, or attn=..,ffn=..,head=..", 0, 0},
        {"activation-dtype", 0, CLI_STR, &f->activation_dtype, "TYPE", "inputs of products with integer weights: auto (int8), int8 (fast), or bf16 (weights widen to it in the cache; f32 without AVX-512 BF16)", 0, 0},
        {"load-format", 0, CLI_STR, &f->load_format, "HOW", "auto, or dummy: seeded random weights from config.json alone", 0, 0},
        {"device", 0, CLI_STR, &f->device, "NAME", "where to run: cpu", 0, 0},
        {"isa", 0, CLI_STR, &f->isa, "NAME", "scalar, avx2, avx512 or avx512_bf16 instead of the best this CPU has", 0, 0},
        {"threads", 't', CLI_INT, &f->threads, "N", "compute threads; 0: all cores this process may use", 0, 1024},
        {"seed", 0, CLI_I64, &f->seed, "N", "seed of dummy weights and of requests that bring none; 0: from entropy", 0, 0},
        {"max-model-len", 0, CLI_INT, &f->max_model_len, "N", "longest context; 0: the model's, or what memory holds", 0, 1 << 30},
        {"max-num-seqs", 0, CLI_INT, &f->max_num_seqs, "N", "sequences computed together; 0: 256", 0, 65536},
        {"max-num-batched-tokens", 0, CLI_INT, &f->max_num_batched_tokens, "N", "tokens of one step; 0: 2048", 0, 1 << 24},
        {"num-kv-blocks", 0, CLI_INT, &f->num_kv_blocks, "N", "KV pages; 0: as many as memory-utilization allows", 0, INT32_MAX},
        {"memory-utilization", 0, CLI_F64, &f->memory_utilization, "X", "share of this machine's memory that may be used", 0.01, 1.0},
        {"enable-prefix-caching", 0, CLI_FLAG, &f->enable_prefix_caching, NULL, "share KV pages between equal prefixes", 0, 0},
        {"scheduling-policy", 0, CLI_STR, &f->scheduling_policy, "NAME", "fcfs, or priority: lower values of a request's priority first", 0, 0},
        {"long-prefill-token-threshold", 0, CLI_INT, &f->long_prefill_token_threshold, "N", "most tokens one prompt takes of a step; 0: no bound", 0, 1 << 24},
        {"step-target-ms", 0, CLI_INT, &f->step_target_ms, "N", "while sequences stream, prompts come in chunks that keep a step to about so many ms, or to twice that of the streams alone; 0: no such limit", 0, 1 << 20},
        {"max-logprobs", 0, CLI_INT, &f->max_logprobs, "N", "most logprobs a request may ask for", 0, 1 << 20},
        {"packed-cache", 0, CLI_STR, &f->packed_cache, "DIR", "where packed weights are kept for the next start; off: nowhere", 0, 0},
        {"profile", 0, CLI_STR, &f->profile, "FILE", "write a Chrome trace of every step and kernel", 0, 0},
        {"log-level", 0, CLI_STR, &f->log_level, "LEVEL", "error, warn, info, debug or trace", 0, 0},
        {"log-format", 0, CLI_STR, &f->log_format, "FORMAT", "text or json", 0, 0},
    };
    _Static_assert(sizeof all / sizeof all[0] + CLI_HUB_OPTS <= CLI_ENGINE_OPTS, "table is too small");
    memcpy(table, all, sizeof all);
    cli_hub_table(&f->hub, table + sizeof all / sizeof all[0]);
}

bool cli_engine_opts(struct cli_engine_flags *f, const char *model, struct engine_opts *o, struct log **lg, struct err *e)
{
    enum log_level level;
    bool json = strcmp(f->log_format, "json") == 0;
    if (!log_level_parse(f->log_level, &level))
        return err_set(e, ERR_INVALID, "--log-level: '%s' is not error, warn, info, debug or trace", f->log_level);
    if (!json && strcmp(f->log_format, "text") != 0)
        return err_set(e, ERR_INVALID, "--log-format: '%s' is neither text nor json", f->log_format);
    bool by_priority = strcmp(f->scheduling_policy, "priority") == 0;
    if (!by_priority && strcmp(f->scheduling_policy, "fcfs") != 0)
        return err_set(e, ERR_INVALID, "--scheduling-policy: '%s' is neither fcfs nor priority", f->scheduling_policy);
    *lg = log_open(STDERR_FILENO, level, json ? LOG_JSON : LOG_TEXT);
    if (!*lg)
        return err_set(e, ERR_NOMEM, "out of memory");
    const char *path;
    if (!cli_model_path(&f->hub, model, strcmp(f->load_format, "dummy") == 0, *lg, &path, e))
        return false;
    engine_opts_default(o);
    o->model = path;
    o->model_name = path != model ? model : NULL;   /* a snapshot's folder is named by its commit */
    o->load_format = f->load_format;
    o->dtype = f->dtype;
    o->kv_cache_dtype = f->kv_cache_dtype;
    o->quantization = f->quantization;
    o->activation_dtype = f->activation_dtype;
    o->device = f->device;
    o->isa = f->isa;
    o->n_threads = f->threads;
    o->max_model_len = f->max_model_len;
    o->max_num_seqs = f->max_num_seqs;
    o->max_num_batched_tokens = f->max_num_batched_tokens;
    o->num_kv_blocks = f->num_kv_blocks;
    o->memory_fraction = f->memory_utilization;
    o->enable_prefix_caching = f->enable_prefix_caching;
    o->priority_scheduling = by_priority;
    o->long_prefill_token_threshold = f->long_prefill_token_threshold;
    o->step_target_ms = f->step_target_ms;
    o->max_logprobs = f->max_logprobs;
    o->seed = (uint64_t)f->seed;
    o->packed_cache = f->packed_cache;
    o->profile_path = f->profile;
    o->log = *lg;
    return true;
}
