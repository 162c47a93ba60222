/* The fields of a request and what they mean for the sampler and the engine. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/json.h"
#include "server/api_int.h"

enum { MAX_STOP = 64, MAX_STOP_BYTES = 4096, MAX_BAD_WORDS = 1024, MAX_SALT = 1024, MAX_REQUEST_ID = 128 };

#define AT(member) offsetof(struct api_fields, member)
static const double MANY = INT32_MAX;

/* ---- tables ---- */

static const struct api_field common_fields[] = {
    {"model", API_STR, AT(model), 0, 0},
    {"request_id", API_STR, AT(request_id), 0, 0},
    {"cache_salt", API_STR, AT(cache_salt), 0, 0},
    {"logprobs_mode", API_STR, AT(logprobs_mode), 0, 0},
    {"stream", API_BOOL, AT(stream), 0, 0},
    {"stream_options", API_OBJ, AT(stream_options), 0, 0},
    {"stream_interval", API_INT, AT(stream_interval), 1, MANY},
    {"echo", API_BOOL, AT(echo), 0, 0},
    {"max_tokens", API_INT, AT(max_tokens), 0, MANY},
    {"n", API_INT, AT(n), 1, 65536},
    {"best_of", API_INT, AT(best_of), 1, 65536},
    {"stop", API_ANY, AT(stop), 0, 0},
    {"seed", API_INT, AT(seed), 0, 0},
    {"temperature", API_NUM, AT(temperature), 0, 1e6},
    {"top_p", API_NUM, AT(top_p), 0, 1},
    {"top_k", API_INT, AT(top_k), -1, MANY},
    {"min_p", API_NUM, AT(min_p), 0, 1},
    {"typical_p", API_NUM, AT(typical_p), 0, 1},
    {"repetition_penalty", API_NUM, AT(repetition_penalty), 0, 1e6},
    {"frequency_penalty", API_NUM, AT(frequency_penalty), -2, 2},
    {"presence_penalty", API_NUM, AT(presence_penalty), -2, 2},
    {"length_penalty", API_NUM, AT(length_penalty), -100, 100},
    {"use_beam_search", API_BOOL, AT(use_beam_search), 0, 0},
    {"logit_bias", API_OBJ, AT(logit_bias), 0, 0},
    {"stop_token_ids", API_ARR, AT(stop_token_ids), 0, 0},
    {"allowed_token_ids", API_ARR, AT(allowed_token_ids), 0, 0},
    {"bad_words", API_ARR, AT(bad_words), 0, 0},
    {"include_stop_str_in_output", API_BOOL, AT(include_stop), 0, 0},
    {"ignore_eos", API_BOOL, AT(ignore_eos), 0, 0},
    {"min_tokens", API_INT, AT(min_tokens), 0, MANY},
    {"skip_special_tokens", API_BOOL, AT(skip_special_tokens), 0, 0},
    {"truncate_prompt_tokens", API_INT, AT(truncate_prompt_tokens), -1, MANY},
    {"truncation_side", API_STR, AT(truncation_side), 0, 0},
    {"prompt_logprobs", API_INT, AT(prompt_logprobs), 0, MANY},
    {"add_special_tokens", API_BOOL, AT(add_special_tokens), 0, 0},
    {"priority", API_INT, AT(priority), -MANY, MANY},
    {"return_token_ids", API_BOOL, AT(return_token_ids), 0, 0},
    {"return_timings", API_BOOL, AT(return_timings), 0, 0},
    {"timeout", API_NUM, AT(timeout), 1e-6, 1e9},
    {"return_tokens_as_token_ids", API_BOOL, AT(token_ids_as_text), 0, 0},
    {"response_format", API_OBJ, AT(response_format), 0, 0},
    {"guided_json", API_ANY, AT(guided_json), 0, 0},
    {"guided_regex", API_ANY, AT(guided_regex), 0, 0},
    {"guided_choice", API_ARR, AT(guided_choice), 0, 0},
    {"guided_grammar", API_ANY, AT(guided_grammar), 0, 0},
    {"structured_outputs", API_OBJ, AT(structured_outputs), 0, 0},
    {"structural_tag", API_ANY, AT(structural_tag), 0, 0},
    {"guided_json_object", API_BOOL, AT(guided_json_object), 0, 0},
    {"guided_whitespace_pattern", API_STR, AT(guided_whitespace_pattern), 0, 0},
    {"guided_decoding_backend", API_NOTED, 0, 0, 0},
    {"logits_processors", API_REFUSED, 0, 0, 0},
    {"kv_transfer_params", API_REFUSED, 0, 0, 0},
    {"ec_transfer_params", API_REFUSED, 0, 0, 0},
    {"vllm_xargs", API_REFUSED, 0, 0, 0},
    {"logprob_token_ids", API_REFUSED, 0, 0, 0},
    {"repetition_detection", API_REFUSED, 0, 0, 0},
    {"thinking_token_budget", API_INT, AT(thinking_token_budget), -1, MANY},
    {"spaces_between_special_tokens", API_NOTED, 0, 0, 0}, /* of slow tokenizers only; tokenizer.json has none */
    {"watermark", API_BOOL, AT(watermark), 0, 0},
    {"watermarking", API_BOOL, AT(watermark), 0, 0},
    {"user", API_NOTED, 0, 0, 0},
    {"metadata", API_NOTED, 0, 0, 0},
    {"store", API_NOTED, 0, 0, 0},
    {"service_tier", API_NOTED, 0, 0, 0},
    {"session_id", API_NOTED, 0, 0, 0},
    {"prompt_cache_key", API_NOTED, 0, 0, 0},  /* whatever has the same beginning shares it here */
    {"safety_identifier", API_NOTED, 0, 0, 0},
    {0},
};

static const struct api_field completion_fields[] = {
    {"prompt", API_ANY, AT(prompt), 0, 0},
    {"logprobs", API_INT, AT(logprobs), 0, MANY},
    {"suffix", API_ANY, AT(suffix), 0, 0},
    {"prompt_embeds", API_REFUSED, 0, 0, 0},
    {0},
};

static const struct api_field chat_fields[] = {
    {"messages", API_ARR, AT(messages), 0, 0},
    {"max_completion_tokens", API_INT, AT(max_completion_tokens), 0, MANY},
    {"logprobs", API_BOOL, AT(chat_logprobs), 0, 0},
    {"top_logprobs", API_INT, AT(top_logprobs), 0, MANY},
    {"tools", API_ARR, AT(tools), 0, 0},
    {"tool_choice", API_ANY, AT(tool_choice), 0, 0},
    {"parallel_tool_calls", API_BOOL, AT(parallel_tool_calls), 0, 0},
    {"include_reasoning", API_BOOL, AT(include_reasoning), 0, 0},
    {"documents", API_ARR, AT(documents), 0, 0},
    {"chat_template", API_STR, AT(chat_template), 0, 0},
    {"chat_template_kwargs", API_OBJ, AT(chat_template_kwargs), 0, 0},
    {"reasoning_effort", API_STR, AT(reasoning_effort), 0, 0},
    {"add_generation_prompt", API_BOOL, AT(add_generation_prompt), 0, 0},
    {"continue_final_message", API_BOOL, AT(continue_final_message), 0, 0},
    {"functions", API_REFUSED, 0, 0, 0},
    {"function_call", API_REFUSED, 0, 0, 0},
    {"mm_processor_kwargs", API_REFUSED, 0, 0, 0},
    {"media_io_kwargs", API_REFUSED, 0, 0, 0},
    {"audio", API_REFUSED, 0, 0, 0},
    {"web_search_options", API_REFUSED, 0, 0, 0},
    {"modalities", API_ARR, AT(modalities), 0, 0},
    {"prediction", API_NOTED, 0, 0, 0},        /* a hint that changes no text */
    {"verbosity", API_NOTED, 0, 0, 0},
    {0},
};

static const struct api_field stream_option_fields[] = {
    {"include_usage", API_BOOL, AT(include_usage), 0, 0},
    {"continuous_usage_stats", API_BOOL, AT(continuous_usage), 0, 0},
    {0},
};

const struct api_field *const api_completion_tables[] = {common_fields, completion_fields, NULL};
const struct api_field *const api_chat_tables[] = {common_fields, chat_fields, NULL};
static const struct api_field *const stream_option_tables[] = {stream_option_fields, NULL};

void api_fields_default(struct api_fields *f)
{
    *f = (struct api_fields){
        .skip_special_tokens = true, .add_special_tokens = true, .add_generation_prompt = true, .parallel_tool_calls = true, .include_reasoning = true,
        .stream_interval = 1, .thinking_token_budget = -1, .max_tokens = API_UNSET, .max_completion_tokens = API_UNSET, .n = 1, .best_of = API_UNSET, .top_k = API_UNSET, .seed = API_UNSET,
        .logprobs = API_UNSET, .top_logprobs = API_UNSET, .prompt_logprobs = API_UNSET, .truncate_prompt_tokens = API_UNSET,
        .temperature = NAN, .top_p = NAN, .min_p = NAN, .typical_p = NAN, .repetition_penalty = NAN, .frequency_penalty = NAN,
        .presence_penalty = NAN, .length_penalty = 1, .timeout = NAN,
    };
}

/* ---- checks that need no tokens ---- */

static bool is_served(const struct api *a, const char *model)
{
    for (int i = 0; i < a->n_names; i++)
        if (strcmp(a->names[i], model) == 0)
            return true;
    return false;
}

bool api_model_is_any(const char *model)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
        if (strncasecmp(model, schemes[i], strlen(schemes[i])) == 0 && model[strlen(schemes[i])])
            return true;
    return strcmp(model, "tgi") == 0;
}

const char *api_model_called(const struct api *a, const char *model)
{
    return model && is_served(a, model) ? model : a->names[0];
}

bool api_check_model(const struct api *a, const char *model, struct api_error *e)
{
    if (!model || !*model || is_served(a, model) || api_model_is_any(model))
        return true;
    return api_fail(e, ERR_NOT_FOUND, "model", "The model `%.256s` does not exist.", model);
}

static bool check_stream(struct api_job *job, struct api_error *e)
{
    struct api_fields *f = &job->f;
    if (!f->stream_options)
        return true;
    if (!f->stream)
        return api_fail(e, ERR_INVALID, "stream_options", "'stream_options' is only allowed with 'stream': true");
    f->include_usage = true;
    if (!api_fields_read(f->stream_options, stream_option_tables, f, job->api->opts.log, e))
        return false;
    f->continuous_usage &= f->include_usage;
    return true;
}

static bool check_effort(const struct api_fields *f, struct api_error *e)
{
    static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    for (size_t i = 0; f->reasoning_effort && i < sizeof efforts / sizeof efforts[0]; i++)
        if (strcmp(f->reasoning_effort, efforts[i]) == 0)
            return true;
    return !f->reasoning_effort || api_fail(e, ERR_INVALID, "reasoning_effort", "'reasoning_effort' must be none, minimal, low, medium, high, "
                                                                                "xhigh or max, found '%.64s'", f->reasoning_effort);
}

static bool check_modalities(const struct api_fields *f, struct api_error *e)
{
    for (size_t i = 0; i < json_array_size(f->modalities); i++) {
        const char *m = json_string_value(json_array_get(f->modalities, i));
        if (!m || strcmp(m, "text") != 0)
            return api_fail(e, ERR_UNSUPPORTED, "modalities", "'modalities[%zu]' must be \"text\": nothing else is made here", i);
    }
    return true;
}

static bool check_chat(struct api_fields *f, const json_t *doc, struct api_error *e)
{
    if (f->continue_final_message) {
        if (json_is_true(json_object_get(doc, "add_generation_prompt")))
            return api_fail(e, ERR_INVALID, "continue_final_message",
                            "'continue_final_message' and 'add_generation_prompt' cannot both be true");
        f->add_generation_prompt = false;
    }
    if (f->top_logprobs != API_UNSET && f->top_logprobs > 0 && !f->chat_logprobs)
        return api_fail(e, ERR_INVALID, "top_logprobs", "'top_logprobs' needs 'logprobs': true");
    if (f->chat_logprobs)
        f->logprobs = f->top_logprobs == API_UNSET ? 0 : f->top_logprobs;
    if (f->max_completion_tokens != API_UNSET)
        f->max_tokens = f->max_completion_tokens;
    return check_effort(f, e) && check_modalities(f, e) && api_reply_check(f, e);
}

/* max_tokens: 16 for completions unless null is said; else 0, the rest of the context. */
static bool set_max_tokens(struct api_job *job, struct api_error *e)
{
    const struct api_fields *f = &job->f;
    bool chat = job->endpoint == API_CHAT;
    if (f->max_tokens == 0 && (chat || !f->echo)) {
        const char *field = chat && f->max_completion_tokens != API_UNSET ? "max_completion_tokens" : "max_tokens";
        return api_fail(e, ERR_INVALID, field, "'%s' must be at least 1%s", field, chat ? "" : " (0 only with 'echo')");
    }
    job->max_tokens_given = f->max_tokens != API_UNSET;
    if (job->max_tokens_given)
        job->max_tokens = (int32_t)f->max_tokens;
    else if (!chat && !json_is_null(json_object_get(job->doc, "max_tokens")))
        job->max_tokens = 16;
    job->score_only = job->max_tokens_given && job->max_tokens == 0;
    if (job->max_tokens > 0 && f->min_tokens > job->max_tokens)
        return api_fail(e, ERR_INVALID, "min_tokens", "'min_tokens' must be at most max_tokens (%d), found %lld", job->max_tokens,
                        (long long)f->min_tokens);
    return true;
}

static bool check_strings(const struct api_fields *f, struct api_error *e)
{
    if (f->truncation_side && strcmp(f->truncation_side, "left") != 0 && strcmp(f->truncation_side, "right") != 0)
        return api_fail(e, ERR_INVALID, "truncation_side", "'truncation_side' must be left or right, found '%.64s'", f->truncation_side);
    if (f->cache_salt && (!*f->cache_salt || strlen(f->cache_salt) > MAX_SALT))
        return api_fail(e, ERR_INVALID, "cache_salt", "'cache_salt' must have 1 to %d bytes", MAX_SALT);
    if (f->request_id && (!*f->request_id || strlen(f->request_id) > MAX_REQUEST_ID))
        return api_fail(e, ERR_INVALID, "request_id", "'request_id' must have 1 to %d bytes", MAX_REQUEST_ID);
    return true;
}

bool api_params_read(struct api_job *job, struct api_error *e)
{
    struct api_fields *f = &job->f;
    bool chat = job->endpoint == API_CHAT;
    api_fields_default(f);
    f->add_special_tokens = !chat;
    if (!api_fields_read(job->doc, chat ? api_chat_tables : api_completion_tables, f, job->api->opts.log, e) ||
        !api_check_model(job->api, f->model, e) || !check_strings(f, e) || !check_stream(job, e))
        return false;
    if (f->thinking_token_budget != -1)
        return api_fail(e, ERR_UNSUPPORTED, "thinking_token_budget", "'thinking_token_budget' other than -1 is not supported yet");
    if (f->suffix)
        return api_fail(e, ERR_UNSUPPORTED, "suffix", "suffix is not currently supported");
    if (chat && !check_chat(f, job->doc, e))
        return false;
    if (!set_max_tokens(job, e))
        return false;
    if (f->prompt_logprobs != API_UNSET && f->prompt_logprobs > 0 && f->stream)
        return api_fail(e, ERR_INVALID, "prompt_logprobs", "'prompt_logprobs' is not available when 'stream' is true");
    if (f->best_of != API_UNSET && f->best_of < f->n)
        return api_fail(e, ERR_INVALID, "best_of", "'best_of' must be at least n (%lld), found %lld", (long long)f->n, (long long)f->best_of);
    return true;
}

/* ---- arrays ---- */

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request"); }

bool api_read_ids(struct arena *arena, const json_t *arr, const char *field, int32_t vocab, int32_t **out, int32_t *n, struct api_error *e)
{
    size_t count = json_array_size(arr);
    if (count > INT32_MAX)
        return api_fail(e, ERR_TOO_LARGE, field, "'%s' has too many ids", field);
    int32_t *ids = arena_try_alloc(arena, count, sizeof *ids);
    if (!ids)
        return no_memory(e);
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(arr, i);
        if (!json_is_integer(v))
            return api_fail(e, ERR_INVALID, field, "'%s[%zu]': expected a token id, found %s", field, i, json_type_name(v));
        json_int_t id = json_integer_value(v);
        if (id < 0 || id >= vocab)
            return api_fail(e, ERR_INVALID, field, "'%s[%zu]': token id %lld is outside the vocabulary of %d", field, i, (long long)id, vocab);
        ids[i] = (int32_t)id;
    }
    *out = ids;
    *n = (int32_t)count;
    return true;
}

/* What the operator allows. */
static bool check_limits(const struct api_job *job, struct api_error *e)
{
    const struct api_limits *l = &job->api->opts.limits;
    const struct { const char *field; int64_t value; int32_t most; } rows[] = {{"n", job->f.n, l->n}, {"best_of", job->f.best_of, l->best_of}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].most > 0 && rows[i].value != API_UNSET && rows[i].value > rows[i].most)
            return api_fail(e, ERR_INVALID, rows[i].field, "'%s' may be at most %d on this server, found %lld", rows[i].field, rows[i].most,
                            (long long)rows[i].value);
    int32_t tops = job->api->info->max_logprobs;
    if (job->f.top_logprobs != API_UNSET && job->f.top_logprobs > tops)
        return api_fail(e, ERR_INVALID, "top_logprobs", "'top_logprobs' may be at most %d on this server, found %lld", tops, (long long)job->f.top_logprobs);
    if (job->f.priority != 0 && !job->api->info->priority_scheduling)
        return api_fail(e, ERR_INVALID, "priority", "'priority' is %lld, but this server runs requests in the order they come; start it with "
                                                    "--scheduling-policy priority", (long long)job->f.priority);
    return true;
}

static bool read_stop(struct api_job *job, struct api_error *e)
{
    const json_t *stop = job->f.stop;
    if (!stop)
        return true;
    if (!json_is_string(stop) && !json_is_array(stop))
        return api_fail(e, ERR_INVALID, "stop", "'stop': expected string or array, found %s", json_type_name(stop));
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    int32_t allowed = job->api->opts.limits.stop_sequences, most = allowed > 0 && allowed < MAX_STOP ? allowed : MAX_STOP;
    if (n > (size_t)most)
        return api_fail(e, ERR_INVALID, "stop", "'stop' may have at most %d strings, found %zu", most, n);
    job->stop = arena_try_alloc(job->arena, n, sizeof *job->stop);
    if (!job->stop)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(s))
            return api_fail(e, ERR_INVALID, "stop", "'stop[%zu]': expected string, found %s", i, json_type_name(s));
        size_t len = json_string_length(s);
        if (len == 0 || len > MAX_STOP_BYTES || strlen(json_string_value(s)) != len)
            return api_fail(e, ERR_INVALID, "stop", "'stop[%zu]' must have 1 to %d bytes and no \\u0000", i, MAX_STOP_BYTES);
        job->stop[i] = json_string_value(s);
    }
    job->n_stop = (int32_t)n;
    if (n && !job->api->tok)
        return api_fail(e, ERR_UNSUPPORTED, "stop", "'stop' needs a tokenizer, which this model does not have");
    return true;
}

/* {"50256": -100, ...} */
static bool read_bias(struct api_job *job, struct api_error *e)
{
    json_t *obj = (json_t *)job->f.logit_bias; /* jansson iterates over objects that are not const */
    size_t n = json_object_size(obj), k = 0;
    if (!n)
        return true;
    if (n > (size_t)job->api->info->vocab_size)
        return api_fail(e, ERR_INVALID, "logit_bias", "'logit_bias' has more entries than the vocabulary of %d", job->api->info->vocab_size);
    struct sample_bias *bias = arena_try_alloc(job->arena, n, sizeof *bias);
    if (!bias)
        return no_memory(e);
    for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it), k++) {
        const char *key = json_object_iter_key(it);
        const json_t *v = json_object_iter_value(it);
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (end == key || *end || errno || id < 0 || id >= job->api->info->vocab_size)
            return api_fail(e, ERR_INVALID, "logit_bias", "'logit_bias': '%.32s' is not a token id below %d", key, job->api->info->vocab_size);
        if (!json_is_number(v))
            return api_fail(e, ERR_INVALID, "logit_bias", "'logit_bias[%ld]': expected number, found %s", id, json_type_name(v));
        double b = json_number_value(v);
        bias[k] = (struct sample_bias){(int32_t)id, (float)(b > 100 ? 100 : b < -100 ? -100 : b)};
    }
    job->params.bias = bias;
    job->params.n_bias = (int32_t)n;
    return true;
}

/* The ids of prefix + word, into the arena. */
static bool encode_word(struct api_job *job, const char *prefix, const char *word, struct sample_word *out, struct api_error *e)
{
    struct err err;
    struct buf text;
    struct tok_ids ids = {0};
    buf_init(&text, 0);
    buf_puts(&text, prefix);
    buf_puts(&text, word);
    bool ok = !text.failed ? tok_encode(job->api->tok, text.data, text.len, TOK_ENCODE_PLAIN, &ids, &err) || api_fail_err(e, "bad_words", &err)
                           : no_memory(e);
    int32_t *copy = ok ? arena_try_alloc(job->arena, ids.n + 1, sizeof *copy) : NULL;
    if (ok && !copy)
        ok = no_memory(e);
    if (ok) {
        memcpy(copy, ids.ids ? ids.ids : (int32_t[1]){0}, ids.n * sizeof *copy);
        *out = (struct sample_word){copy, (int32_t)ids.n};
    }
    tok_ids_free(&ids);
    buf_free(&text);
    return ok;
}

static bool same_word(const struct sample_word *a, const struct sample_word *b)
{
    return a->n == b->n && memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) == 0;
}

/* A word is forbidden at the start of text and after a space.  (vLLM drops the spelling with a space when it has another number of
 * tokens, which lets common words through.) */
static bool read_bad_words(struct api_job *job, struct api_error *e)
{
    size_t n = json_array_size(job->f.bad_words);
    if (!n)
        return true;
    if (!job->api->tok)
        return api_fail(e, ERR_UNSUPPORTED, "bad_words", "'bad_words' needs a tokenizer, which this model does not have");
    if (n > MAX_BAD_WORDS)
        return api_fail(e, ERR_INVALID, "bad_words", "'bad_words' may have at most %d words, found %zu", MAX_BAD_WORDS, n);
    struct sample_word *words = arena_try_alloc(job->arena, 2 * n, sizeof *words);
    if (!words)
        return no_memory(e);
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(job->f.bad_words, i);
        const char *word = json_is_string(v) ? json_string_value(v) : NULL;
        while (word && *word == ' ')
            word++;
        if (!word || !*word)
            return api_fail(e, ERR_INVALID, "bad_words", "'bad_words[%zu]' must be a string that is not empty", i);
        struct sample_word *plain = &words[count], *spaced = &words[count + 1];
        if (!encode_word(job, "", word, plain, e) || !encode_word(job, " ", word, spaced, e))
            return false;
        if (plain->n < 1)
            return api_fail(e, ERR_INVALID, "bad_words", "'bad_words[%zu]' is no token", i);
        count += same_word(plain, spaced) ? 1 : 2;
    }
    job->params.bad_words = words;
    job->params.n_bad_words = count;
    return true;
}

/* ---- building ---- */

static void override(float *field, double given)
{
    if (!isnan(given))
        *field = (float)given;
}

static bool set_logprobs_mode(struct api_job *job, struct api_error *e)
{
    const char *mode = job->f.logprobs_mode;
    if (!mode || strcmp(mode, "raw") == 0 || strcmp(mode, "raw_logprobs") == 0)
        job->params.logprobs_mode = SAMPLE_LOGPROBS_RAW;
    else if (strcmp(mode, "processed") == 0 || strcmp(mode, "processed_logprobs") == 0)
        job->params.logprobs_mode = SAMPLE_LOGPROBS_PROCESSED;
    else
        return api_fail(e, ERR_INVALID, "logprobs_mode", "'logprobs_mode' must be raw or processed, found '%.64s'", mode);
    return true;
}

static bool set_params(struct api_job *job, struct api_error *e)
{
    const struct api_fields *f = &job->f;
    struct sample_params *p = &job->params;
    *p = job->api->defaults;
    override(&p->temperature, f->temperature);
    override(&p->top_p, f->top_p);
    override(&p->min_p, f->min_p);
    override(&p->typical_p, f->typical_p);
    override(&p->repetition_penalty, f->repetition_penalty);
    override(&p->frequency_penalty, f->frequency_penalty);
    override(&p->presence_penalty, f->presence_penalty);
    if (f->top_k != API_UNSET)
        p->top_k = (int32_t)f->top_k;
    p->has_seed = f->seed != API_UNSET && f->seed != -1;
    p->seed = p->has_seed ? (uint64_t)f->seed : 0;
    p->min_tokens = job->score_only ? 0 : (int32_t)f->min_tokens;
    p->ignore_eos = f->ignore_eos;
    p->n_logprobs = f->logprobs == API_UNSET || job->score_only ? -1 : (int32_t)f->logprobs;
    int64_t of_prompt = f->prompt_logprobs == API_UNSET && f->echo && job->endpoint == API_COMPLETIONS ? f->logprobs : f->prompt_logprobs;
    p->n_prompt_logprobs = of_prompt == API_UNSET ? -1 : (int32_t)of_prompt;
    p->watermarked = f->watermark;
    p->watermark = job->api->opts.watermark;
    if (f->watermark && f->use_beam_search)
        return api_fail(e, ERR_INVALID, "watermark", "'watermark' and 'use_beam_search' exclude each other: beams are not sampled");
    int32_t vocab = job->api->info->vocab_size;
    if (f->allowed_token_ids && json_array_size(f->allowed_token_ids) == 0)
        return api_fail(e, ERR_INVALID, "allowed_token_ids", "'allowed_token_ids' must not be empty");
    int32_t *stop_ids = NULL, *allowed = NULL;
    if (!set_logprobs_mode(job, e) || !read_bias(job, e) || !read_bad_words(job, e) ||
        (f->stop_token_ids && !api_read_ids(job->arena, f->stop_token_ids, "stop_token_ids", vocab, &stop_ids, &p->n_stop_ids, e)) ||
        (f->allowed_token_ids && !api_read_ids(job->arena, f->allowed_token_ids, "allowed_token_ids", vocab, &allowed, &p->n_allowed, e)))
        return false;
    p->stop_ids = stop_ids;
    p->allowed_ids = allowed;
    return true;
}

/* The sampler's own ranges, so that param names the field. */
static bool check_params(struct api_job *job, struct api_error *e)
{
    struct err err;
    struct sample_limits limits = {.max_logprobs = job->api->info->max_logprobs, .vocab_size = job->api->info->vocab_size};
    if (sample_params_check(&job->params, &limits, &err))
        return true;
    return api_fail_err(e, api_fields_find(job->endpoint == API_CHAT ? api_chat_tables : api_completion_tables, err.msg), &err);
}

static int64_t smaller_bound(int64_t a, int64_t b) { return a <= 0 || (b > 0 && b < a) ? b : a; }

/* The smallest of what the server, the transport and the request allow, less what has passed; 0: no bound. */
static int64_t time_left(const struct api_job *job)
{
    int64_t own = isnan(job->f.timeout) ? 0 : (int64_t)(job->f.timeout * 1e6);
    int64_t timeout = smaller_bound(smaller_bound(job->api->opts.request_timeout_us, job->timeout_us), own), left = timeout - job->waited_us;
    return timeout > 0 && left < 1 ? 1 : timeout > 0 ? left : 0;
}

bool api_params_build(struct api_job *job, struct api_error *e)
{
    const struct api_fields *f = &job->f;
    struct gen_request *r = &job->request;
    if (!check_limits(job, e) || !set_params(job, e) || !check_params(job, e) || !read_stop(job, e))
        return false;
    gen_request_default(r);
    r->engine.kind = job->score_only ? ENGINE_SCORE : ENGINE_GENERATE;
    r->engine.params = &job->params;
    r->engine.n = job->score_only ? 1 : (int32_t)f->n;
    r->engine.beam_search = f->use_beam_search && !job->score_only;
    r->engine.best_of = job->score_only ? 0 : f->use_beam_search ? (int32_t)f->n : f->best_of == API_UNSET ? 0 : (int32_t)f->best_of;
    if (r->engine.beam_search && f->best_of != API_UNSET)
        r->engine.best_of = (int32_t)f->best_of;
    r->engine.length_penalty = (float)f->length_penalty;
    r->engine.priority = (int32_t)f->priority;
    r->engine.timeout_us = time_left(job);
    r->engine.cache_salt = f->cache_salt;
    r->engine.id = job->id;
    r->stop = job->stop;
    r->n_stop = job->score_only ? 0 : job->n_stop;
    r->include_stop = f->include_stop;
    r->skip_special_tokens = f->skip_special_tokens && !job->show_special;
    r->no_text = !job->api->tok;
    if (!api_guide_build(job, e) || !api_reply_guide(job, e))
        return false;
    job->n = (int32_t)f->n;
    job->fake_stream = job->endpoint == API_COMPLETIONS && f->stream && !job->score_only &&
                       (f->use_beam_search || (f->best_of != API_UNSET && f->best_of != f->n));
    return true;
}
