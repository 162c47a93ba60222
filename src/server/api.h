/* server/api.h - the OpenAI API without its transport: a JSON body in, a JSON body or SSE events out.
 *
 * HTTP (server/server.c) and `quire batch` both run requests through here, so they cannot differ.
 *
 *   api_job_open   parse the body strictly, render, tokenize, check the context, submit to the engine
 *   api_job_pull   take what the engine has produced and append it as output
 *   api_job_close  cancel what still runs
 *
 * A job belongs to one thread at a time; the api is immutable after api_open and shared by all.  Wire formats:
 * INTERFACES 0.1, 1.2, 1.3, 1.5. */
#ifndef QUIRE_SERVER_API_H
#define QUIRE_SERVER_API_H

#include "engine/gen.h"
#include "server/api_error.h"

struct api;
struct api_job;

/* What one request may ask for; 0: no limit but what the engine and memory set. */
struct api_limits { int32_t input_tokens, n, best_of, stop_sequences; };

struct api_opts {
    struct engine *engine;                       /* borrowed */
    const char *const *served_names; int n_served_names;   /* copied; none: the model's own name */
    const char *chat_template; size_t chat_template_len;   /* NULL: the tokenizer's */
    const char *tool_parser, *reasoning_parser;  /* names of server/reply.h; NULL or "auto": what the template teaches */
    bool no_auto_tools;                          /* calls are read only from replies that must call */
    bool use_generation_config;                  /* sampling defaults from generation_config.json */
    bool prompt_tokens_details;                  /* usage tells cached tokens */
    int64_t request_timeout_us;                  /* 0: none */
    struct api_limits limits;
    enum engine_pooling pooling;                 /* of embeddings whose request does not say */
    struct sample_watermark watermark;           /* of requests that ask for it; gamma 0: sample_watermark_default */
    struct log *log;                             /* borrowed, may be NULL */
};

/* A model without a chat template opens fine and refuses chat requests; a broken template is an error here. */
bool api_open(struct api **out, const struct api_opts *o, struct err *e);
void api_close(struct api **a);
int32_t api_max_num_seqs(const struct api *a);     /* of its engine */
const char *api_model_name(const struct api *a);   /* the first served name */
/* Whether a request's "model", when nothing is served under that name, stands for the model that requests get which name none: TGI's
 * clients write "tgi", and its JavaScript client (@huggingface/inference 4) the URL it sends to.  Neither is a name mistyped. */
bool api_model_is_any(const char *model);

enum api_endpoint { API_COMPLETIONS, API_CHAT, API_RESPONSES };

struct api_job_opts {
    const char *request_id;                      /* NULL: made up; becomes part of the response's id */
    bool refuse_stream;                          /* batch: "stream" is an error */
    int64_t waited_us;                           /* of its timeout, before this call */
    int64_t timeout_us;                          /* 0: request_timeout_us; else the smaller of both */
    bool timings;                                /* the answer tells how long what took, as with "return_timings": true */
    engine_notify *notify; void *notify_ctx;     /* called on the engine thread when api_job_pull may have news */
};

/* On false e says why, and nothing runs. */
bool api_job_open(struct api_job **out, const struct api *a, enum api_endpoint endpoint, const char *body, size_t len,
                  const struct api_job_opts *o, struct api_error *e);
/* Cancels what still runs; its pages return at the engine's next step.  NULL is fine. */
void api_job_close(struct api_job **job);

/* Whether the client asked for SSE events rather than one body. */
bool api_job_streams(const struct api_job *job);

enum api_pull { API_PULL_MORE, API_PULL_DONE };
/* Appends what is ready: SSE events, or the whole body once all is there.  MORE with nothing appended means: wait for notify.
 * Output buffered in out is at most a little over 64 KiB when streaming, so call until nothing comes. */
enum api_pull api_job_pull(struct api_job *job, struct buf *out);
/* After DONE: the HTTP status of a whole body. */
int api_job_status(const struct api_job *job);

/* For the access log and the metrics, at any time. */
struct api_job_stats {
    int32_t n_prompt, n_completion, n_cached;
    int32_t max_new;             /* new tokens that a choice may have; of several prompts the most */
    struct engine_times times;   /* of the prompts that are done: the first beginning, the last end */
    int error;                   /* the HTTP status of what ended it instead of its answer; 499: it was cut off; 0: nothing did */
};
void api_job_stats(const struct api_job *job, struct api_job_stats *out);

/* ---- answers that need no engine step ---- */

bool api_write_models(const struct api *a, struct buf *out);
/* An entry of the list.  max_model_len 0: not known, null.  state: NULL, or what "state" says. */
void api_write_card(const char *id, const char *root, int32_t max_model_len, int64_t created_s, const char *state, struct buf *out);
/* One model of the list. */
bool api_write_model(const struct api *a, const char *id, struct buf *out, struct api_error *e);
/* POST /tokenize and /detokenize. */
bool api_tokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e);
bool api_detokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e);

#endif
