/* cli/cli.h - what all commands share: options, help, environment, config files, progress.
 *
 * An option's value comes from the command line, else the environment (QUIRE_<NAME> with dashes as
 * underscores, upper case), else a `--config FILE.yaml` (keys are option names), else its default.
 * Every command: exit status 0 done, 1 failed, 2 bad usage; errors are one line on stderr. */
#ifndef QUIRE_CLI_CLI_H
#define QUIRE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum cli_type {
    CLI_FLAG,     /* bool; --name, --no-name */
    CLI_STR,      /* const char *; valid for the process's life */
    CLI_INT,      /* int32_t; accepts k/K (x1000, x1024) and m/M suffixes */
    CLI_I64,      /* int64_t, likewise */
    CLI_F64,      /* double */
    CLI_LIST      /* struct cli_list; may be given several times; env and yaml: comma separated / sequence */
};

struct cli_list { const char **items; int n, cap; };

struct cli_opt {
    const char *name;        /* long name without dashes; NULL ends a table */
    char letter;             /* one-letter form or 0 */
    enum cli_type type;
    void *out;               /* holds the default before parsing */
    const char *metavar;     /* "N", "FILE"; NULL for flags */
    const char *help;
    double min, max;         /* range for numbers when min < max */
};

struct cli_cmd {
    const char *name;        /* "run" */
    const char *usage;       /* "quire run [MODEL] -p TEXT [options]" */
    const char *summary;     /* a paragraph for --help */
    const struct cli_opt *const *tables;   /* NULL-ended list of option tables */
    int min_args, max_args;  /* positional arguments; max < 0: any number */
};

/* Parses argv[1..).  Positional arguments land in args (borrowed from argv).  On --help prints it and returns
 * CLI_OK with *done set; on bad usage prints one line and returns CLI_USAGE with *done set. */
int cli_parse(const struct cli_cmd *cmd, int argc, char **argv, const char **args, int *n_args, bool *done);

/* "quire: <command>: <message>" on stderr; returns CLI_FAILED (or CLI_USAGE for cli_usage_error). */
int cli_error(const struct cli_cmd *cmd, const struct err *e);
int cli_usage_error(const struct cli_cmd *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- where models come from ---- */
struct log;
struct hub_opts;
struct hub_progress;
struct cli_hub_flags {
    const char *revision, *download_dir, *token;   /* NULL: as the environment or the id says */
    bool offline;
    char path[4096];                               /* what the id became: cli_model_path */
    char endpoint[1024], cache[4096], secret[4096];
};
/* revision, download-dir, hf-token, offline.  Room for CLI_HUB_OPTS entries. */
enum { CLI_HUB_OPTS = 5 };
void cli_hub_table(struct cli_hub_flags *f, struct cli_opt table[CLI_HUB_OPTS]);
/* Endpoint, token and cache folder from flags, else HF_ENDPOINT, HF_TOKEN (or the token's file), HF_HUB_CACHE, HF_HOME; o borrows from f. */
bool cli_hub_opts(struct cli_hub_flags *f, struct hub_opts *o, struct err *e);
/* What to open for MODEL: itself when it is NULL or a path that is there, else the cached or now downloaded copy of the hub id it is.  text_only:
 * no weights are needed.  Valid as long as f. */
bool cli_model_path(struct cli_hub_flags *f, const char *model, bool text_only, struct log *lg, const char **path, struct err *e);
/* A bar of a download: fits hub_opts.progress, with the struct cli_progress that cli_progress_begin has begun. */
void cli_hub_progress(void *progress, const struct hub_progress *p);

/* ---- options of every command that loads an engine ---- */
struct engine_opts;
struct cli_engine_flags {
    const char *dtype, *kv_cache_dtype, *load_format, *isa, *quantization, *activation_dtype, *profile, *packed_cache, *log_level, *log_format, *scheduling_policy, *device;
    int32_t threads, max_model_len, max_num_seqs, max_num_batched_tokens, num_kv_blocks, long_prefill_token_threshold, step_target_ms, max_logprobs;
    double memory_utilization;
    int64_t seed;
    bool enable_prefix_caching;
    struct cli_hub_flags hub;
};
void cli_engine_flags_default(struct cli_engine_flags *f);
/* A table of options bound to *f; room for CLI_ENGINE_OPTS entries. */
enum { CLI_ENGINE_OPTS = 32 };
void cli_engine_table(struct cli_engine_flags *f, struct cli_opt table[CLI_ENGINE_OPTS]);
/* Opens the log as asked (*lg; close with log_close) and fills o; model NULL is the built-in one, a hub id is downloaded when the cache
 * does not have it.  o borrows from f. */
bool cli_engine_opts(struct cli_engine_flags *f, const char *model, struct engine_opts *o, struct log **lg, struct err *e);

/* Runs this program's own `serve` on a free port of 127.0.0.1 with all engine options as they were read here, and waits until it
 * listens (bench/context.h).  Stop it with bench_server_stop. */
struct bench_server;
bool cli_child_serve(struct bench_server *server, const struct cli_engine_flags *flags, const char *model, const char *api_key,
                     double timeout_s, struct err *e);

/* ---- several models (serve_models.c) ---- */
struct server_model_opts;
struct cli_models {
    struct server_model_opts *models;
    struct cli_hub_flags *hubs;      /* hold the models' paths */
    char **names;
    int n, max_loaded;
};
/* NAME=MODEL, or MODEL alone, whose name it then is; a NAME has no '/'.  *model is what follows; empty: the built-in one (NULL). */
char *cli_model_name(const char *text, const char **model);
/* Resolves each of list (downloading what is a hub id) and splits the memory between the max_loaded (0: all) that may be loaded at once.  A
 * model that cannot be opened is warned of and stays: its requests will be told. */
bool cli_models_open(struct cli_models *m, const struct cli_list *list, int max_loaded, struct cli_engine_flags *f, struct log **lg, struct err *e);
void cli_models_free(struct cli_models *m);

/* ---- options of commands that sample ---- */
struct sample_params;
struct gen_request;
struct engine;
struct cli_sample_flags {
    double temperature, top_p, min_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;  /* NaN: not given */
    int32_t top_k, max_tokens, min_tokens, n, best_of, beam_width, logprobs;   /* INT32_MIN: not given */
    int64_t seed;                                       /* INT64_MIN: not given */
    double length_penalty;
    bool ignore_eos, generation_config, skip_special_tokens, include_stop;
    struct cli_list stop;
    const char *stop_token_ids;
    int32_t *stop_ids;                                  /* parsed; freed by cli_sample_flags_free */
};
void cli_sample_flags_default(struct cli_sample_flags *f);
enum { CLI_SAMPLE_OPTS = 24 };
void cli_sample_table(struct cli_sample_flags *f, struct cli_opt table[CLI_SAMPLE_OPTS]);
/* Model defaults overridden by what was given; r->engine.params = p and the rest of r that flags decide.  f must outlive r. */
bool cli_sample_request(struct cli_sample_flags *f, const struct engine *eng, struct sample_params *p, struct gen_request *r, struct err *e);
void cli_sample_flags_free(struct cli_sample_flags *f);

/* ---- the watermark ---- */
struct sample_watermark;
struct cli_watermark_flags { double gamma, delta; const char *key_file; };
void cli_watermark_flags_default(struct cli_watermark_flags *f);
bool cli_watermark(const struct cli_watermark_flags *f, struct sample_watermark *out, struct err *e);

/* ---- progress ---- */
/* A bar on stderr when it is a terminal and the work lasts over a second; nothing otherwise. */
struct cli_progress { const char *label; int64_t start_us, last_us, base; bool shown, tty; };
void cli_progress_begin(struct cli_progress *p, const char *label);
void cli_progress_update(void *p, int64_t done, int64_t total);   /* fits engine_opts.progress */
void cli_progress_end(struct cli_progress *p);

/* Reads a file, or stdin for "-": NUL-terminated, mem_free it. */
char *cli_read(const char *path, size_t *len, struct err *e);
/* "1,2,3" to ids; *out is mem_free'd by the caller. */
bool cli_parse_ids(const char *text, int32_t **out, int32_t *n, struct err *e);

/* ---- commands ---- */
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_batch(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_watermark(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_serve(int argc, char **argv);
int cmd_bench_context(int argc, char **argv);
int cmd_bench_kernels(int argc, char **argv);
int cmd_bench_guide(int argc, char **argv);
int cmd_bench_startup(int argc, char **argv);

#endif
