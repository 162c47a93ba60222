/* A TGI request from its body to the engine. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "server/tgi_int.h"

enum { ARENA_LIMIT = 1 << 30 };

#define AT(member) offsetof(struct tgi_params, member)
static const double MANY = INT32_MAX;

static const struct api_field fields[] = {
    {"best_of", API_INT, AT(best_of), 0, MANY},
    {"temperature", API_NUM, AT(temperature), 0, 0},
    {"repetition_penalty", API_NUM, AT(repetition_penalty), 0, 0},
    {"frequency_penalty", API_NUM, AT(frequency_penalty), 0, 0},
    {"top_k", API_INT, AT(top_k), 0, 0},
    {"top_p", API_NUM, AT(top_p), 0, 0},
    {"typical_p", API_NUM, AT(typical_p), 0, 0},
    {"do_sample", API_BOOL, AT(do_sample), 0, 0},
    {"max_new_tokens", API_INT, AT(max_new_tokens), 0, MANY},
    {"return_full_text", API_BOOL, AT(return_full_text), 0, 0},
    {"stop", API_ARR, AT(stop), 0, 0},
    {"truncate", API_INT, AT(truncate), 0, MANY},
    {"watermark", API_BOOL, AT(watermark), 0, 0},
    {"details", API_BOOL, AT(details), 0, 0},
    {"decoder_input_details", API_BOOL, AT(decoder_input_details), 0, 0},
    {"seed", API_INT, AT(seed), 0, 0},
    {"top_n_tokens", API_INT, AT(top_n_tokens), 0, MANY},
    {"grammar", API_OBJ, AT(grammar), 0, 0},
    {"adapter_id", API_STR, AT(adapter_id), 0, 0},
    {0},
};
static const struct api_field *const tables[] = {fields, NULL};

static bool bad(struct api_error *e, const char *param, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool bad(struct api_error *e, const char *param, const char *fmt, ...)
{
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return api_fail(e, ERR_INVALID, param, "%s", msg);
}

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request"); }

/* ---- reading ---- */

static bool read_params(struct tgi_job *t, const json_t *doc, struct api_error *e)
{
    struct tgi_params *p = &t->p;
    const json_t *params = json_object_get(doc, "parameters"), *stream = json_object_get(doc, "stream");
    bool given = params && !json_is_null(params);
    *p = (struct tgi_params){
        .best_of = API_UNSET, .top_k = API_UNSET, .max_new_tokens = API_UNSET, .truncate = API_UNSET, .seed = API_UNSET, .top_n_tokens = API_UNSET,
        .temperature = NAN, .repetition_penalty = NAN, .frequency_penalty = NAN, .top_p = NAN, .typical_p = NAN, .do_sample = !given,
        .return_full_text = t->route == TGI_COMPAT,
    };
    if (given && !json_is_object(params))
        return bad(e, "parameters", "`parameters` must be an object, found %s", json_type_name(params));
    if (stream && !json_is_null(stream) && !json_is_boolean(stream))
        return bad(e, "stream", "`stream` must be a boolean, found %s", json_type_name(stream));
    t->stream = t->route == TGI_GENERATE_STREAM || (t->route == TGI_COMPAT && json_is_true(stream));
    return !given || api_fields_read(params, tables, p, t->job->api->opts.log, e);
}

static bool sampled(const struct tgi_params *p)
{
    return p->do_sample || (!isnan(p->temperature) && p->temperature != 1) || p->top_k != API_UNSET || !isnan(p->top_p) || !isnan(p->typical_p);
}

static bool check_best_of(struct tgi_job *t, struct api_error *e)
{
    const struct tgi_params *p = &t->p;
    const struct api *a = t->job->api;
    int32_t most = a->opts.limits.best_of > 0 ? a->opts.limits.best_of : a->info->max_num_seqs;
    t->n = p->best_of == API_UNSET ? 1 : (int32_t)p->best_of;
    if (t->n < 1 || t->n > most)
        return bad(e, "best_of", "`best_of` must be > 0 and <= %d. Given: %d", most, t->n);
    if (t->n > 1 && !t->sampling)
        return bad(e, "best_of", "you must use sampling when `best_of` is > 1");
    if (t->n > 1 && p->seed != API_UNSET)
        return bad(e, "seed", "`seed` must not be set when `best_of` > 1");
    if (t->n > 1 && t->stream)
        return bad(e, "best_of", "`best_of` != 1 is not supported when streaming tokens");
    return true;
}

/* Probabilities: 1 is accepted and means off (INTERFACES 0.1). */
static bool is_mass(double x) { return isnan(x) || (x > 0 && x <= 1); }

static bool check_sampling(const struct tgi_job *t, struct api_error *e)
{
    const struct tgi_params *p = &t->p;
    if (!isnan(p->temperature) && !(p->temperature > 0 && p->temperature <= 1e6))
        return bad(e, "temperature", "`temperature` must be strictly positive");
    if (!isnan(p->repetition_penalty) && !(p->repetition_penalty > 0 && p->repetition_penalty <= 1e6))
        return bad(e, "repetition_penalty", "`repetition_penalty` must be strictly positive");
    if (!isnan(p->frequency_penalty) && !(p->frequency_penalty >= -2 && p->frequency_penalty <= 2))
        return bad(e, "frequency_penalty", "`frequency_penalty` must be >= -2.0 and <= 2.0");
    if (!is_mass(p->top_p))
        return bad(e, "top_p", "`top_p` must be > 0.0 and <= 1.0");
    if (!is_mass(p->typical_p))
        return bad(e, "typical_p", "`typical_p` must be > 0.0 and <= 1.0");
    if (p->top_k != API_UNSET && (p->top_k <= 0 || p->top_k > INT32_MAX))
        return bad(e, "top_k", "`top_k` must be strictly positive");
    if (p->seed != API_UNSET && p->seed < 0)
        return bad(e, "seed", "`seed` must be an integer from 0 to 9223372036854775807");
    return true;
}

static bool check_rest(const struct tgi_job *t, struct api_error *e)
{
    const struct tgi_params *p = &t->p;
    const struct api *a = t->job->api;
    int32_t most_stop = a->opts.limits.stop_sequences > 0 ? a->opts.limits.stop_sequences : 64, longest = a->info->max_model_len - 1;
    if (p->top_n_tokens != API_UNSET && p->top_n_tokens > a->info->max_logprobs)
        return bad(e, "top_n_tokens", "`top_n_tokens` must be >= 0 and <= %d. Given: %lld", a->info->max_logprobs, (long long)p->top_n_tokens);
    if (p->decoder_input_details && t->stream)
        return bad(e, "decoder_input_details", "`decoder_input_details` == true is not supported when streaming tokens");
    if (p->max_new_tokens == 0)
        return bad(e, "max_new_tokens", "`max_new_tokens` must be strictly positive");
    if (p->truncate != API_UNSET && (p->truncate < 1 || p->truncate > longest))
        return bad(e, "truncate", "`truncate` must be strictly positive and less than %d. Given: %lld", longest, (long long)p->truncate);
    if (json_array_size(p->stop) > (size_t)most_stop)
        return bad(e, "stop", "`stop` supports up to %d stop sequences. Given: %zu", most_stop, json_array_size(p->stop));
    if (p->adapter_id && *p->adapter_id)
        return bad(e, "adapter_id", "`adapter_id` is not supported: this server has no adapters, found \"%.64s\"", p->adapter_id);
    if (t->inputs_len == 0)
        return bad(e, "inputs", "`inputs` cannot be empty");
    return true;
}

/* A new reference; NULL: e says why.  TGI takes objects, also written as a string, and only those with "properties": its clients count on the
 * refusal of others, such as {} and true, which would allow anything. */
static json_t *read_schema(json_t *v, struct api_error *e)
{
    struct err err;
    json_t *schema = json_is_string(v) ? json_parse(json_string_value(v), json_string_length(v), &err) : json_incref(v);
    if (!schema)
        bad(e, "grammar", "grammar is not valid: %.400s", err.msg);
    else if (!json_is_object(schema))
        bad(e, "grammar", "grammar is not valid: `value` must be a JSON Schema, an object, found %s", json_type_name(schema));
    else if (!json_object_get(schema, "properties"))
        bad(e, "grammar", "grammar is not valid: Grammar must have a 'properties' field");
    else
        return schema;
    json_decref(schema);
    return NULL;
}

/* {"type": json | json_object | json_schema | regex, "value": ..} as structured_outputs, a new reference; NULL: e says why. */
static json_t *make_structured(const json_t *grammar, struct api_error *e)
{
    const char *type = json_string_value(json_object_get(grammar, "type"));
    json_t *v = json_object_get(grammar, "value");
    bool schema = type && (strcmp(type, "json") == 0 || strcmp(type, "json_object") == 0 || strcmp(type, "json_schema") == 0);
    if (!schema && !(type && strcmp(type, "regex") == 0)) {
        bad(e, "grammar", "grammar is not valid: `type` must be json, json_object, json_schema or regex, found \"%.64s\"", type ? type : "");
        return NULL;
    }
    if (!v || json_is_null(v) || (!schema && !json_is_string(v))) {
        bad(e, "grammar", "grammar is not valid: `value` must be %s", schema ? "a JSON Schema" : "a regular expression");
        return NULL;
    }
    if (strcmp(type, "json_schema") == 0 && json_object_get(v, "schema"))
        v = json_object_get(v, "schema");
    v = schema ? read_schema(v, e) : json_incref(v);
    json_t *out = v ? json_pack("{s:o}", schema ? "json" : "regex", v) : NULL;
    if (v && !out)
        no_memory(e);
    return out;
}

static void set_num(json_t *doc, const char *key, double x, double otherwise)
{
    json_object_set_new(doc, key, json_real(isnan(x) ? otherwise : x));
}

/* The request as the OpenAI API would have it, without its prompt.  Everything is said, so that the model's own defaults have no part. */
static json_t *translate(const struct tgi_job *t, struct api_error *e)
{
    const struct tgi_params *p = &t->p;
    json_t *doc = json_object();
    set_num(doc, "temperature", t->sampling ? p->temperature : 0, 1);
    set_num(doc, "top_p", p->top_p, 1);
    set_num(doc, "typical_p", p->typical_p, 1);
    set_num(doc, "repetition_penalty", p->repetition_penalty, 1);
    set_num(doc, "frequency_penalty", p->frequency_penalty, 0);
    set_num(doc, "presence_penalty", 0, 0);
    set_num(doc, "min_p", 0, 0);
    json_object_set_new(doc, "top_k", json_integer(p->top_k == API_UNSET ? 0 : p->top_k));
    json_object_set_new(doc, "max_tokens", p->max_new_tokens == API_UNSET ? json_null() : json_integer(p->max_new_tokens));
    json_object_set_new(doc, "logprobs", json_integer(p->top_n_tokens == API_UNSET ? 0 : p->top_n_tokens));
    json_object_set_new(doc, "logprobs_mode", json_string("processed"));
    if (p->decoder_input_details)
        json_object_set_new(doc, "prompt_logprobs", json_integer(0));
    json_object_set_new(doc, "watermark", json_boolean(p->watermark));
    if (json_array_size(p->stop))
        json_object_set(doc, "stop", (json_t *)p->stop);
    json_object_set_new(doc, "include_stop_str_in_output", json_true());
    if (p->grammar) {
        json_t *structured = make_structured(p->grammar, e);
        if (!structured) {
            json_decref(doc);
            return NULL;
        }
        json_object_set_new(doc, "structured_outputs", structured);
    }
    if (!doc)
        no_memory(e);
    return doc;
}

/* ---- the prompt ---- */

static bool check_length(struct tgi_job *t, const struct api_prompt *prompt, struct api_error *e)
{
    const struct api *a = t->job->api;
    int32_t total = tgi_max_total_tokens(a), most = tgi_max_input_tokens(a);
    if (prompt->n == 0)
        return bad(e, "inputs", "`inputs` cannot be empty");
    if (prompt->n > most)
        return bad(e, "inputs", "`inputs` must have less than %d tokens. Given: %d", most, prompt->n);
    if (t->p.max_new_tokens != API_UNSET && prompt->n + t->p.max_new_tokens > total)
        return bad(e, "max_new_tokens", "`inputs` tokens + `max_new_tokens` must be <= %d. Given: %d `inputs` tokens and %lld `max_new_tokens`", total,
                   prompt->n, (long long)t->p.max_new_tokens);
    return true;
}

static bool make_prompt(struct tgi_job *t, struct api_error *e)
{
    struct api_job *job = t->job;
    struct err err;
    struct tok_ids ids = {0};
    size_t least = t->inputs_len / job->api->longest_token_bytes;
    if (!job->api->tok)
        return api_fail(e, ERR_UNSUPPORTED, "inputs", "this model has no tokenizer; /v1/completions takes token ids");
    if (t->p.truncate == API_UNSET && least > (size_t)job->api->info->max_model_len)
        return bad(e, "inputs", "`inputs` must have less than %d tokens. Given: at least %zu", job->api->info->max_model_len - 1, least);
    job->prompts = mem_try_zalloc(1, sizeof *job->prompts);
    if (!job->prompts)
        return no_memory(e);
    job->n_prompts = 1;
    struct api_prompt *prompt = &job->prompts[0];
    if (!tok_encode(job->api->tok, t->inputs, t->inputs_len, TOK_ENCODE_SPECIAL, &ids, &err))
        return bad(e, "inputs", "tokenizer error %s", err.msg);
    size_t skip = t->p.truncate != API_UNSET && ids.n > (size_t)t->p.truncate ? ids.n - (size_t)t->p.truncate : 0, n = ids.n - skip;
    prompt->ids = n <= INT32_MAX ? arena_try_alloc(job->arena, n + 1, sizeof *prompt->ids) : NULL;
    if (prompt->ids && n)
        memcpy(prompt->ids, ids.ids + skip, n * sizeof *prompt->ids);
    prompt->n = (int32_t)n;
    tok_ids_free(&ids);
    return prompt->ids ? check_length(t, prompt, e) : no_memory(e);
}

/* ---- opening ---- */

/* Messages of the OpenAI API's checks name a field in other words; a grammar's say what is wrong with it. */
static bool reworded(struct api_error *e)
{
    if (strcmp(e->param, "structured_outputs") == 0) {
        char msg[sizeof e->msg];
        memcpy(msg, e->msg, sizeof msg);
        return bad(e, "grammar", "grammar is not valid: %.480s", msg);
    }
    return false;
}

static bool build(struct tgi_job *t, const struct api_job_opts *o, struct api_error *e)
{
    struct api_job *job = t->job;
    snprintf(job->id, sizeof job->id, "tgi-%s", o->request_id ? o->request_id : "request");
    job->doc = translate(t, e);
    if (!job->doc)
        return false;
    if (!api_params_read(job, e) || !api_params_build(job, e))
        return reworded(e);
    job->params.ties_included = true;
    /* Every answer tells the seed that repeats it. */
    job->params.has_seed = true;
    job->params.seed = t->p.seed == API_UNSET ? rng_entropy() >> 1 : (uint64_t)t->p.seed;
    job->request.engine.n = t->n;
    return true;
}

static bool submit(struct tgi_job *t, const struct api_job_opts *o, struct api_error *e)
{
    struct api_job *job = t->job;
    struct api_prompt *prompt = &job->prompts[0];
    struct gen_request r = job->request;
    struct err err;
    int32_t room = job->api->info->max_model_len - prompt->n;
    r.engine.tokens = prompt->ids;
    r.engine.n_tokens = prompt->n;
    r.engine.max_tokens = t->p.max_new_tokens == API_UNSET || t->p.max_new_tokens > room ? room : (int32_t)t->p.max_new_tokens;
    t->max_new = r.engine.max_tokens;
    t->submitted_us = clock_now_us();
    return gen_open(&prompt->gen, job->api->eng, &r, o->notify, o->notify_ctx, &err) || api_fail_err(e, NULL, &err);
}

static bool read_request(struct tgi_job *t, const char *body, size_t len, json_t **doc, struct api_error *e)
{
    struct err err;
    *doc = json_parse(body, len, &err);
    if (!*doc)
        return api_fail_err(e, NULL, &err);
    const json_t *inputs = json_object_get(*doc, "inputs");
    if (!inputs)
        return bad(e, "inputs", "missing field `inputs`");
    if (!json_is_string(inputs))
        return bad(e, "inputs", "`inputs` must be a string, found %s", json_type_name(inputs));
    size_t n = json_string_length(inputs);
    char *copy = arena_try_alloc(t->job->arena, n + 1, 1);
    if (!copy)
        return no_memory(e);
    memcpy(copy, json_string_value(inputs), n + 1);
    t->inputs = copy;
    t->inputs_len = n;
    t->n_chars = (int64_t)utf8_length(t->inputs, t->inputs_len);
    if (!read_params(t, *doc, e))
        return false;
    t->sampling = sampled(&t->p);
    return check_best_of(t, e) && check_sampling(t, e) && check_rest(t, e);
}

static bool open_parts(struct tgi_job *t, const struct api *a, const struct api_job_opts *o, struct api_error *e)
{
    struct api_job *job = t->job = mem_try_zalloc(1, sizeof *t->job);
    if (!job)
        return no_memory(e);
    job->api = a;
    job->endpoint = API_COMPLETIONS;
    job->waited_us = o->waited_us;
    job->timeout_us = o->timeout_us;
    job->arena = arena_open(ARENA_LIMIT);
    return job->arena || no_memory(e);
}

bool tgi_job_open(struct tgi_job **out, const struct api *a, enum tgi_route route, const char *body, size_t len, const struct api_job_opts *o,
                  struct api_error *e)
{
    json_t *doc = NULL;
    *out = NULL;
    struct tgi_job *t = mem_try_zalloc(1, sizeof *t);
    if (!t)
        return no_memory(e);
    t->route = route;
    t->status = 200;
    t->opened_us = clock_now_us();
    /* The translation keeps what it needs of doc alive; p's pointers are not used after it. */
    bool ok = open_parts(t, a, o, e) && read_request(t, body, len, &doc, e) && make_prompt(t, e) && build(t, o, e);
    t->p.stop = t->p.grammar = NULL;
    t->p.adapter_id = NULL;
    json_decref(doc);
    t->choices = ok ? mem_try_zalloc((size_t)t->n, sizeof *t->choices) : NULL;
    ok = ok && (t->choices || no_memory(e)) && submit(t, o, e);
    if (!ok) {
        tgi_job_close(&t);
        return false;
    }
    *out = t;
    return true;
}

void tgi_job_close(struct tgi_job **pt)
{
    struct tgi_job *t = *pt;
    if (!t)
        return;
    *pt = NULL;
    for (int32_t i = 0; t->choices && i < t->n; i++) {
        buf_free(&t->choices[i].text);
        buf_free(&t->choices[i].tokens);
        buf_free(&t->choices[i].tops);
    }
    mem_free(t->choices);
    buf_free(&t->prefill);
    api_job_close(&t->job);
    mem_free(t);
}
