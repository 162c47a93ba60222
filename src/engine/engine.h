/* engine/engine.h - one model being served: its thread, its requests, its numbers.
 *
 * The engine thread owns scheduler, pages, forward pass and sampler.  Others submit requests and
 * cancel them through a queue and read each request's events; no lock is held while computing,
 * and the engine never waits for a reader.
 *
 * Text enters and leaves above this: engine/gen.h adds detokenization, stop strings and
 * logprob texts on the caller's threads. */
#ifndef QUIRE_ENGINE_ENGINE_H
#define QUIRE_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/log.h"
#include "guide/guide.h"
#include "sample/params.h"

struct engine;
struct engine_stream;
struct tok;
struct model_generation;

struct engine_opts {
    const char *model;            /* folder, or NULL: built-in */
    const char *model_name;       /* what it is called; NULL: after its folder or file */
    const char *load_format;      /* "auto", "dummy" */
    const char *dtype;            /* "auto", "f32"/"float32"/"float", "f16"/"float16"/"half", "bf16"/"bfloat16" */
    const char *kv_cache_dtype;   /* "auto", "f32", "f16", "bf16", "int8", "fp8" */
    const char *activation_dtype; /* inputs of products with integer weights: NULL or "auto" (int8), "int8" or "bf16" (f32 where the CPU has no bf16 products) */
    const char *quantization;     /* weights: NULL or "auto", "none", one format, or a list by kind (fwd_quant_parse) */
    const char *device;           /* NULL or "cpu" */
    const char *isa;              /* NULL: best */
    int n_threads;                /* 0: all allowed cores */
    int32_t max_model_len;        /* 0: the model's, cut to what the pages hold */
    int32_t max_num_seqs;         /* 0: 256 */
    int32_t max_num_batched_tokens; /* 0: 2048 */
    int32_t num_kv_blocks;        /* 0: from memory_fraction */
    double memory_fraction;       /* 0: 0.9; of the machine's (or cgroup's) memory for weights + workspace + pages */
    int64_t memory_bytes;         /* > 0: instead of memory_fraction */
    struct engine_turns *turns;   /* several engines on one machine compute in turns; borrowed; NULL: alone */
    bool enable_prefix_caching;
    bool priority_scheduling;
    int32_t long_prefill_token_threshold;
    int32_t step_target_ms;       /* > 0: while sequences stream, prompts come in chunks that keep steps to about so long (engine/pace.h) */
    int32_t max_queue;            /* > 0: submissions past so many waiting requests are ERR_OVERLOADED */
    int32_t max_logprobs;         /* 0: 20 */
    uint64_t seed;
    struct log *log;              /* borrowed, may be NULL */
    const char *packed_cache;     /* folder of packed weights; "off": none; NULL: the default folder (model/packed.h) */
    const char *profile_path;     /* Chrome trace of steps and kernels, or NULL */
    void (*progress)(void *ctx, int64_t done, int64_t total);   /* while loading */
    void *progress_ctx;
};
void engine_opts_default(struct engine_opts *o);

/* What a model needs, from its files' headers alone. */
struct engine_plan {
    int64_t weight_bytes, workspace_bytes, page_bytes;
    int64_t machine_bytes;        /* of which memory_fraction may be used */
    int32_t max_model_len;        /* before pages limit it */
};
bool engine_plan(const struct engine_opts *o, struct engine_plan *out, struct err *e);

/* One step at a time among the engines that share it, first come, first served: each step has all cores, and an engine with work
 * waits for at most one step of each other. */
struct engine_turns;
struct engine_turns *engine_turns_open(void);   /* NULL: no memory */
void engine_turns_close(struct engine_turns **t);

/* What engine_opts.activation_dtype says, for who opens a device of their own. */
bool engine_parse_activation_dtype(const char *name, bool *float_inputs, struct err *e);
/* Loads the model and starts the thread.  Cost: the weights. */
bool engine_open(struct engine **out, const struct engine_opts *o, struct err *e);
/* Cancels what is left, joins the thread, frees all.  Streams must have been closed before. */
void engine_close(struct engine **eng);

struct engine_info {
    const char *model_name;       /* folder name or "quire-builtin" */
    const char *architecture, *dtype, *kv_dtype, *device, *isa;
    const char *weight_formats;   /* what kinds of linears are carried in: "attn=int4-g128 ffn=int4-g128 head=f16 embed=f16" (fwd_formats) */
    int32_t max_model_len, max_num_seqs, max_num_batched_tokens, vocab_size, hidden_size;
    int32_t n_blocks, block_tokens, max_logprobs;
    int n_threads;
    bool prefix_caching, priority_scheduling;
    int64_t n_params;
    double load_s;
};
const struct engine_info *engine_info(const struct engine *eng);
/* Any thread may use it.  NULL when the model folder has no tokenizer (token ids only). */
const struct tok *engine_tok(const struct engine *eng);
/* What guides of this model are compiled against (guide/guide.h); made at the first call, which costs up to a few tenths of a second.  Any
 * thread.  NULL: no tokenizer, or no memory. */
struct guide_vocab *engine_guide_vocab(struct engine *eng, struct err *e);
const struct model_generation *engine_generation(const struct engine *eng);

/* ---- requests ---- */

enum engine_kind { ENGINE_GENERATE, ENGINE_SCORE, ENGINE_EMBED };
/* Of which tokens' hidden states, after the final norm: the last one, the mean over all, the first one. */
enum engine_pooling { ENGINE_POOL_LAST, ENGINE_POOL_MEAN, ENGINE_POOL_FIRST };

struct engine_request {
    enum engine_kind kind;        /* SCORE: only prompt logprobs; EMBED: one hidden state, by pooling */
    enum engine_pooling pooling;  /* but LAST, nothing is taken from the prefix cache */
    const int32_t *tokens; int32_t n_tokens;   /* copied */
    const struct sample_params *params;        /* copied */
    int32_t max_tokens;           /* new tokens per choice; 0 = as many as fit max_model_len */
    int32_t n;                    /* choices returned, >= 1 */
    int32_t best_of;              /* 0: n; more: generated, ranked by mean logprob, best n returned (all events come at the end) */
    bool beam_search;             /* width n (or best_of); params->temperature is ignored */
    float length_penalty;         /* beam: score = sum logprob / len^penalty */
    int32_t priority;
    int64_t timeout_us;           /* 0: none, from submission; past it ENGINE_EV_ERROR with ERR_TIMEOUT */
    const char *cache_salt;       /* NULL: none; only equal salts share cached pages */
    const char *id;               /* for logs; copied; NULL: made up */
    struct guide *guide;          /* NULL, or what the output must be: compiled for this engine's vocabulary; the engine takes a reference.  A
                                     finished choice is in the guide's language; one that max_tokens cut is a beginning of it.  Not with beam_search. */
    bool want_logits;             /* SCORE: events carry the full row of logits (golden tests, --logits) */
};

enum engine_finish { ENGINE_FINISH_NONE, ENGINE_FINISH_STOP, ENGINE_FINISH_LENGTH, ENGINE_FINISH_ABORT };

/* The most likely tokens, descending; the event's own token is not added. */
struct engine_logprobs { int32_t n; const int32_t *ids; const float *logprobs; };

enum engine_event_type {
    ENGINE_EV_PROMPT,   /* prompt logprobs of position pos (from 1 on): token, logprob, rank, lp; with want_logits also the
                           row that predicts it, and one more with pos = n_tokens, token = -1 */
    ENGINE_EV_TOKEN,    /* a new token of a choice; finish != NONE on its last one */
    ENGINE_EV_FINISH,   /* a choice ended without a further token (abort, length 0) */
    ENGINE_EV_HIDDEN,   /* EMBED: hidden[hidden_size] */
    ENGINE_EV_DONE,     /* all choices ended: the last event */
    ENGINE_EV_ERROR     /* code and message: the last event */
};

struct engine_event {
    enum engine_event_type type;
    int32_t choice;
    int32_t pos;                  /* PROMPT: position of token in the prompt */
    int32_t token;
    enum engine_finish finish;
    int32_t stop_token;           /* the stop id (not eos) that ended it, else -1 */
    bool is_eos;                  /* TOKEN: this token is an end-of-sequence id or a stop id: not part of the text */
    float logprob;                /* of token; NaN when neither logprobs, best_of nor beams asked for it */
    double cumulative_logprob;    /* with finish, when logprobs were computed */
    int32_t rank;                 /* of token, 1-based; 0 when logprob is NaN */
    struct engine_logprobs lp;    /* the most likely, n == 0 unless asked for; valid until the next engine_stream_next of this stream */
    const float *logits;          /* want_logits: [vocab_size], the row after tokens 0..pos-1; else NULL */
    const float *hidden;
    enum err_code code; const char *message;    /* ERROR */
};

struct engine_times {             /* microseconds, monotonic; 0: has not happened */
    int64_t submitted, first_scheduled, first_token, last_token, finished;
    int32_t n_prompt, n_cached, n_generated, n_preempted;
};

/* Called on the engine thread (must be quick, must not call back into the engine) after events were added to the stream. */
typedef void engine_notify(void *ctx);

/* Refuses at once, with nothing changed: ERR_INVALID (params), ERR_TOO_LARGE (prompt + max_tokens > max_model_len, or more pages or slots than
 * exist), ERR_OVERLOADED (max_queue), ERR_DRAINING.  notify may be NULL. */
bool engine_submit(struct engine *eng, const struct engine_request *r, engine_notify *notify, void *ctx,
                   struct engine_stream **out, struct err *e);
/* Next event if there is one; false: none now.  One reader per stream. */
bool engine_stream_next(struct engine_stream *st, struct engine_event *ev);
/* Sleep until an event is there or timeout_us passed (< 0: none).  False on timeout. */
bool engine_stream_wait(struct engine_stream *st, int64_t timeout_us);
/* Stop one choice (or all: choice < 0) at the next step; its pages return then.  finish is what its ENGINE_EV_FINISH will say: STOP
 * when a stop string matched, ABORT otherwise.  Any thread. */
void engine_stream_cancel(struct engine_stream *st, int32_t choice, enum engine_finish finish);
void engine_stream_times(const struct engine_stream *st, struct engine_times *out);
/* Cancels if still running.  After it returns notify is not called any more.  Sets *st to NULL. */
void engine_stream_close(struct engine_stream **st);

/* ---- operation ---- */

/* No new work is taken (ERR_DRAINING); what runs goes on. */
void engine_drain(struct engine *eng);
bool engine_idle(const struct engine *eng);
/* Whether it computes: false, and why, when its device has failed, or when one step has taken longer than stall_us (0: any time will do). */
bool engine_alive(const struct engine *eng, int64_t stall_us, struct err *why);
/* Drop cached prefixes at the next step; false if some pages are in use. Waits for the engine. */
bool engine_reset_prefix_cache(struct engine *eng);

enum { ENGINE_HIST_MAX = 36 };
struct engine_hist { const double *bounds; int n; uint64_t counts[ENGINE_HIST_MAX]; double sum; uint64_t total; }; /* counts[n] = +Inf bucket */
struct engine_metrics {           /* a consistent copy; names as INTERFACES part 3 */
    int32_t num_requests_running, num_requests_waiting;
    double kv_cache_usage;        /* held pages / pages, 0..1 */
    int32_t blocks_total, blocks_free, blocks_cached, blocks_held;
    uint64_t prefix_cache_queries, prefix_cache_hits, num_preemptions, prompt_tokens, generation_tokens;
    uint64_t success_stop, success_length, success_abort, requests_error;
    uint64_t forced_tokens;       /* of generation_tokens: those that a guide left no choice about, which no step was made for */
    uint64_t n_steps; double step_seconds, forward_seconds, sample_seconds, schedule_seconds;
    struct engine_hist ttft, itl, e2e, queue_time, inference_time, prefill_time, decode_time, time_per_output_token,
        prompt_len, prefill_computed, generation_len, max_generation_len, params_n, params_max_tokens, iteration_tokens;
    struct engine_hist skipped_tokens;   /* per token drawn: how many followed it without a step of their own (forced_tokens) */
};
void engine_metrics(const struct engine *eng, struct engine_metrics *out);
/* Adds the counters and histograms of an engine that is gone; either may be all zero. */
void engine_metrics_add(struct engine_metrics *to, const struct engine_metrics *past);
void engine_hist_observe(struct engine_hist *h, double value);

/* ---- steps, counted as TGI counts its batches (INTERFACES 3.2) ---- */

/* TGI's bounds of durations: 0.0001 * 1.5^k seconds, k = 1..35. */
enum { ENGINE_TGI_SECONDS = 35 };
extern const double engine_tgi_seconds[ENGINE_TGI_SECONDS];
/* PREFILL: a step that computes tokens of at least one prompt, whatever else is in it; DECODE: any other. */
enum engine_method { ENGINE_PREFILL, ENGINE_DECODE, ENGINE_N_METHODS };
enum { ENGINE_BATCH_SIZES = 1024 };
struct engine_batches {
    struct engine_batch {
        uint64_t n_ok, n_failed;  /* failed: the device did */
        struct engine_hist inference, forward, decode, filter;   /* seconds: the step; the device; drawing tokens; handing them out and ending
                                                                    what is done.  Of those that did not fail */
    } of[ENGINE_N_METHODS];
    struct engine_hist concat;    /* seconds that planning and building took of steps that added requests to running ones; total: how many */
    uint64_t next_size[ENGINE_BATCH_SIZES + 1];   /* steps that admitted requests, by how many: [i]: i + 1; the last: more */
    double next_size_sum; uint64_t n_next;
};
void engine_batches(const struct engine *eng, struct engine_batches *out);
/* As engine_metrics_add. */
void engine_batches_add(struct engine_batches *to, const struct engine_batches *past);

/* ---- a look inside, for people ---- */

enum { ENGINE_STEPS_KEPT = 256 };
struct engine_step {              /* microseconds; start_us on the clock of engine_times */
    int64_t start_us;
    int32_t schedule_us, forward_us, sample_us, emit_us;
    int32_t n_tokens, n_prefill, n_seqs;   /* n_prefill: of n_tokens, those of sequences with more than one */
};
struct engine_view {
    int64_t now_us;
    uint64_t n_steps;             /* ever; the last of them: steps[n_kept - 1] */
    int32_t n_kept, n_pages;
    uint8_t *pages;               /* [n_pages] as sched_page_states gives them */
    struct engine_step steps[ENGINE_STEPS_KEPT];   /* oldest first */
};
/* A consistent picture between two steps; waits for the engine thread, a step at most. */
bool engine_view_open(struct engine *eng, struct engine_view **out, struct err *e);
void engine_view_close(struct engine_view **v);

#endif
