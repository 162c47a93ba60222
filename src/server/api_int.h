/* server/api_int.h - what the api_*.c files share: the parsed request, the running job, its parts. */
#ifndef QUIRE_SERVER_API_INT_H
#define QUIRE_SERVER_API_INT_H

#include <jansson.h>
#include "base/arena.h"
#include "server/api.h"
#include "server/api_fields.h"
#include "server/reply.h"
#include "tok/chat.h"
#include "tok/tok.h"

struct api {
    struct api_opts opts;
    struct engine *eng;
    const struct engine_info *info;
    const struct tok *tok;            /* NULL: token ids only */
    struct chat *chat;                /* NULL: no template */
    char **names; int n_names;
    int64_t created_s;
    size_t longest_token_bytes;
    struct sample_params defaults;
    enum reply_calls calls;           /* how replies are read */
    enum reply_thoughts thoughts;
};

/* ---- the request's fields (api_params.c) ---- */

#define API_UNSET INT64_MIN           /* of integers; NaN of numbers */

struct api_fields {
    const char *model, *request_id, *cache_salt, *logprobs_mode, *chat_template, *reasoning_effort, *truncation_side;
    bool stream, echo, use_beam_search, watermark, include_stop, ignore_eos, skip_special_tokens, return_token_ids,
        token_ids_as_text, return_timings, continue_final_message, chat_logprobs, add_special_tokens, add_generation_prompt,
        parallel_tool_calls, include_reasoning;
    int64_t max_tokens, max_completion_tokens, n, best_of, top_k, seed, min_tokens, logprobs, top_logprobs, prompt_logprobs,
        truncate_prompt_tokens, priority, stream_interval, thinking_token_budget;
    double temperature, top_p, min_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty, length_penalty,
        timeout;
    const json_t *prompt, *messages, *tools, *documents, *chat_template_kwargs, *tool_choice, *response_format, *stop, *stop_token_ids,
        *allowed_token_ids, *bad_words, *logit_bias, *stream_options, *suffix,
        *modalities, *guided_json, *guided_regex, *guided_choice, *guided_grammar, *structured_outputs, *structural_tag;
    const char *guided_whitespace_pattern;
    bool guided_json_object;
    /* of stream_options */
    bool include_usage, continuous_usage;
};

/* ---- one prompt and its choices ---- */

/* Pieces of a choice's log-probabilities, as JSON array elements joined by commas.  Chat uses tokens alone. */
struct api_logprobs { struct buf tokens, values, tops, offsets; int32_t n; };

/* told: of the arguments, so much was sent. */
struct api_call { char id[48]; struct buf name, arguments; size_t told; };

struct api_choice {
    struct reply *reply;              /* reads the text, or NULL: it is content as it comes */
    struct buf thought;               /* likewise */
    struct api_call *called; size_t cap_called;
    int n_called, n_told;             /* n_told: whose name was sent */
    bool show_thoughts;
    struct buf text;                  /* not yet sent, or all of it when the body is whole */
    struct buf ids;                   /* "1,2,3" when asked for */
    struct api_logprobs lp;
    int64_t n_chars;                  /* of token texts so far: text_offset */
    bool begun, started, ended;       /* had an event; was written about; had its last event */
    enum engine_finish finish;
    int32_t stop_index, stop_token;
    int32_t n_completion, n_unsent;   /* n_unsent: tokens since the last event */
};

struct api_prompt {
    const char *text; size_t text_len;   /* as given; NULL for token ids */
    int32_t *ids; int32_t n;             /* in the job's arena */
    struct gen *gen;                     /* NULL: not begun, or over */
    bool done;
    struct api_choice *choices;          /* [n] of the job's */
    struct api_logprobs lp;              /* echo: completion-style logprobs of the prompt */
    int64_t n_chars;
    struct buf prompt_logprobs;          /* elements of prompt_logprobs */
    int32_t n_cached;
};

struct api_job {
    const struct api *api;
    enum api_endpoint endpoint;
    json_t *doc;                      /* the body: fields borrow from it */
    struct arena *arena;
    struct api_fields f;
    struct sample_params params;
    struct gen_request request;
    enum reply_calls calls;           /* how its reply is read */
    enum reply_thoughts thoughts;
    enum reply_start start;
    bool show_special;                /* marks of calls are special tokens */
    struct guide *guide;              /* what the output must be, or NULL; the request borrows it */
    const char **stop; int32_t n_stop;
    int32_t max_tokens;               /* asked for; 0: the rest of the context */
    bool max_tokens_given;
    int32_t max_new;                  /* what the engine was told; of several prompts the most */
    int64_t waited_us;                /* of the request's timeout, before it came here */
    int64_t timeout_us;               /* as the transport was told; 0: nothing was said */
    bool timings; struct engine_times times;   /* asked for; over all prompts: the first of each beginning, the last of each end */
    struct api_responses *responses;  /* of /v1/responses, which is a chat written otherwise; else NULL */
    bool score_only;                  /* echo without generation */
    bool fake_stream;                 /* best_of or beams: one event with the whole body */
    char id[160];
    const char *model;                /* as the response names it */
    int64_t created_s;

    struct api_prompt *prompts; int32_t n_prompts;
    int32_t n;                        /* choices of a prompt */
    int32_t n_done;
    bool finished;                    /* the end was written */
    int status;
};

/* api_params.c */
extern const struct api_field *const api_completion_tables[], *const api_chat_tables[];
void api_fields_default(struct api_fields *f);
/* Fills job->f from job->doc and what follows from it alone. */
bool api_params_read(struct api_job *job, struct api_error *e);
/* job->params, job->request, job->stop.  After the prompts are known. */
bool api_params_build(struct api_job *job, struct api_error *e);
bool api_check_model(const struct api *a, const char *model, struct api_error *e);
/* What the answer calls a model that passed the check: its own name of those served, or the first. */
const char *api_model_called(const struct api *a, const char *model);
/* [1,2] as ids in the arena. */
bool api_read_ids(struct arena *arena, const json_t *arr, const char *field, int32_t vocab, int32_t **out, int32_t *n, struct api_error *e);

/* api_prompt.c: job->prompts with their ids, checked against the context. */
bool api_prompt_completions(struct api_job *job, struct api_error *e);
bool api_prompt_chat(struct api_job *job, struct api_error *e);
/* Shared with /tokenize: the chat prompt's text appended to out. */
bool api_prompt_render(const struct api *a, const struct api_fields *f, struct buf *out, struct api_error *e);

/* api_guide.c: response_format, structured_outputs and guided_* to job->guide and job->request. */
bool api_guide_build(struct api_job *job, struct api_error *e);
/* The vocabulary that guides are made for; NULL without an engine (api_job_parse alone). */
struct guide_vocab *api_guide_vocab(const struct api_job *job, struct err *e);

/* api_reply.c: chat answers taken apart.  The first two in api_open and while fields are checked. */
bool api_reply_setup(struct api *a, struct err *e);
bool api_reply_check(const struct api_fields *f, struct api_error *e);
/* How job's reply is read, once its prompt is there; then, after api_guide_build, the guide that makes it call. */
void api_reply_begin(struct api_job *job, const char *prompt, size_t len);
bool api_reply_guide(struct api_job *job, struct api_error *e);
/* The form where the model need not think, or has; else behind its thought. */
int32_t api_reply_behind_thoughts(const struct api_job *job, struct guide_builder *b, int32_t form);
bool api_reply_open(const struct api_job *job, struct api_choice *c);    /* false: no memory */
void api_reply_close(struct api_choice *c);
void api_reply_text(struct api_choice *c, const char *text, size_t len, bool end);   /* failures: c->text.failed */
bool api_reply_has_news(const struct api_choice *c);
/* "message":{..} with this content; "delta":{..} with what is new, which is sent then. */
void api_reply_message(const struct api_choice *c, const struct buf *text, struct buf *out);
void api_reply_delta(struct api_choice *c, struct buf *out);

/* api_responses.c.  job->doc becomes the chat request that it stands for; later errors are renamed. */
bool api_responses_open(struct api_job *job, struct api_error *e);
void api_responses_name_fault(struct api_error *e);
void api_responses_close(struct api_responses **r);
void api_responses_begin(struct api_job *job, struct buf *out);     /* the first events */
/* What the choice has pending goes into items, and as events to out unless that is NULL. */
void api_responses_take(struct api_job *job, struct buf *out);
void api_responses_end(struct api_job *job, struct buf *out);       /* the body, or the last events */
void api_responses_fail(struct api_job *job, const struct api_error *e, struct buf *out);   /* an event */

/* api_job.c: api_job_open without the engine. */
bool api_job_parse(struct api_job **out, const struct api *a, enum api_endpoint endpoint, const char *body, size_t len,
                   const struct api_job_opts *o, struct api_error *e);
/* Whether the job has work for the engine (an echo without logprobs has not). */
bool api_job_needs_engine(const struct api_job *job);

/* api_timings.c: "timings", when the job wants them. */
void api_timings_add(struct api_job *job, const struct engine_times *t);
/* Becomes the last member of the object that out ends with (a whole body, or an event with its two newlines). */
void api_timings_write(const struct api_job *job, struct buf *out);

/* api_logprobs.c */
void api_logprobs_free(struct api_logprobs *lp);
void api_logprobs_clear(struct api_logprobs *lp);
/* One token of a completion (or of an echoed prompt); n_chars is advanced by its text.  logprob NaN: null. */
void api_logprobs_completion(struct api_logprobs *lp, const struct api_job *job, int32_t token, float logprob, const struct engine_logprobs *top,
                             int32_t n_top, int64_t *n_chars);
void api_logprobs_chat(struct api_logprobs *lp, const struct api_job *job, int32_t token, float logprob, const struct engine_logprobs *top,
                       int32_t n_top);
/* An element of prompt_logprobs. */
void api_logprobs_prompt(struct buf *out, const struct api_job *job, int32_t token, float logprob, int32_t rank,
                         const struct engine_logprobs *top);
/* {"text_offset":[..],..} */
void api_logprobs_write(const struct api_logprobs *lp, struct buf *out);
void api_logprobs_append(struct api_logprobs *to, const struct api_logprobs *from);

/* api_openai.c: shapes of the two endpoints. */
void api_openai_body(struct api_job *job, struct buf *out);
/* One event with what the choice has pending. */
void api_openai_chunk(struct api_job *job, struct api_prompt *p, int32_t choice, struct buf *out);
/* Chat: the event that gives the role. */
void api_openai_role(struct api_job *job, struct api_prompt *p, int32_t choice, struct buf *out);
void api_openai_usage_chunk(struct api_job *job, struct buf *out);

/* api_write.c: small pieces of JSON. */
void api_write_text(struct buf *out, const char *s, size_t len);           /* quoted */
void api_write_ids(struct buf *out, const int32_t *ids, int32_t n);         /* [1,2] */
void api_write_logprob(struct buf *out, float x);                           /* -inf and NaN: -9999.0 */

#endif
