#include "server/embed.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/embed_int.h"

enum { ARENA_LIMIT = 1 << 30, MAX_ITEMS = 4096 };

#define AT(member) offsetof(struct embed_fields, member)
static const double MANY = INT32_MAX;

static const struct api_field common[] = {
    {"model", API_STR, AT(model), 0, 0},
    {"request_id", API_STR, AT(request_id), 0, 0},
    {"truncate_prompt_tokens", API_INT, AT(truncate), -1, MANY},
    {"priority", API_INT, AT(priority), -MANY, MANY},
    {"timeout", API_NUM, AT(timeout), 1e-6, 1e9},
    {"add_special_tokens", API_BOOL, AT(add_special_tokens), 0, 0},
    {"pooling", API_STR, AT(pooling), 0, 0},
    {"user", API_NOTED, 0, 0, 0},
    {"additional_data", API_NOTED, 0, 0, 0},
    {0},
};
static const struct api_field embedding[] = {
    {"input", API_ANY, AT(input), 0, 0},
    {"messages", API_ARR, AT(messages), 0, 0},
    {"encoding_format", API_STR, AT(encoding_format), 0, 0},
    {"dimensions", API_INT, AT(dimensions), 1, MANY},
    {"normalize", API_BOOL, AT(normalize), 0, 0},
    {0},
};
static const struct api_field scoring[] = {
    {"text_1", API_ANY, AT(text_1), 0, 0},
    {"text_2", API_ANY, AT(text_2), 0, 0},
    {"query", API_ANY, AT(query), 0, 0},
    {"documents", API_ARR, AT(documents), 0, 0},
    {"top_n", API_INT, AT(top_n), 0, MANY},
    {"return_documents", API_BOOL, AT(return_documents), 0, 0},
    {"score_by", API_STR, AT(score_by), 0, 0},
    {0},
};

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request"); }
static bool is_scoring(const struct embed_job *job) { return job->endpoint == EMBED_SCORE || job->endpoint == EMBED_RERANK; }

/* ---- fields ---- */

static bool choose_pooling(struct embed_job *job, struct api_error *e)
{
    static const struct { const char *name; enum engine_pooling pooling; } names[] = {
        {"last", ENGINE_POOL_LAST}, {"mean", ENGINE_POOL_MEAN}, {"cls", ENGINE_POOL_FIRST},
    };
    job->pooling = job->api->opts.pooling;
    if (!job->f.pooling)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(job->f.pooling, names[i].name) == 0) {
            job->pooling = names[i].pooling;
            return true;
        }
    return api_fail(e, ERR_INVALID, "pooling", "'pooling' must be last, mean or cls, found '%.64s'", job->f.pooling);
}

static bool read_fields(struct embed_job *job, struct api_error *e)
{
    struct embed_fields *f = &job->f;
    const struct api_field *const tables[] = {common, is_scoring(job) ? scoring : embedding, NULL};
    int32_t hidden = job->api->info->hidden_size;
    *f = (struct embed_fields){.dimensions = API_UNSET, .truncate = API_UNSET, .timeout = NAN, .add_special_tokens = true, .return_documents = true,
                               .normalize = job->endpoint != EMBED_POOLING};
    if (!api_fields_read(job->doc, tables, f, job->api->opts.log, e) || !api_check_model(job->api, f->model, e) || !choose_pooling(job, e))
        return false;
    if (f->encoding_format && strcmp(f->encoding_format, "float") != 0 && strcmp(f->encoding_format, "base64") != 0)
        return api_fail(e, ERR_INVALID, "encoding_format", "'encoding_format' must be float or base64, found '%.64s'", f->encoding_format);
    job->base64 = f->encoding_format && *f->encoding_format == 'b';
    if (f->dimensions != API_UNSET && f->dimensions > hidden)
        return api_fail(e, ERR_INVALID, "dimensions", "'dimensions' may be at most %d, the model's hidden size, found %lld", hidden, (long long)f->dimensions);
    job->dim = f->dimensions == API_UNSET ? hidden : (int32_t)f->dimensions;
    if (f->score_by && strcmp(f->score_by, "embedding") != 0 && strcmp(f->score_by, "logprob") != 0)
        return api_fail(e, ERR_INVALID, "score_by", "'score_by' must be embedding or logprob, found '%.64s'", f->score_by);
    job->by_logprob = f->score_by && *f->score_by == 'l';
    job->model = api_model_called(job->api, f->model);
    return true;
}

/* ---- prompts ---- */

static bool check_length(const struct embed_job *job, int64_t n, const char *field, struct api_error *e)
{
    int64_t limit = job->api->info->max_model_len;
    int32_t most = job->api->opts.limits.input_tokens;
    if (n == 0)
        return api_fail(e, ERR_INVALID, field, "'%s' has no tokens", field);
    if (most > 0 && n > most)
        return api_fail(e, ERR_TOO_LARGE, field, "your input has %lld tokens, and this server takes at most %d", (long long)n, most);
    if (n <= limit)
        return true;
    return api_fail(e, ERR_TOO_LARGE, field, "This model's maximum context length is %lld tokens. However, you requested %lld tokens in the input for "
                    "embedding generation. Please reduce the length of the input.", (long long)limit, (long long)n);
}

static bool truncate_item(const struct embed_job *job, struct embed_item *it, struct api_error *e)
{
    int64_t keep = job->f.truncate, limit = job->api->info->max_model_len;
    if (keep == API_UNSET)
        return true;
    if (keep == 0 || keep > limit)
        return api_fail(e, ERR_INVALID, "truncate_prompt_tokens", "'truncate_prompt_tokens' must be -1 or between 1 and %lld, found %lld",
                        (long long)limit, (long long)keep);
    keep = keep == -1 ? limit : keep;
    if (it->n > keep) {
        it->ids += it->n - keep;
        it->n = (int32_t)keep;
    }
    return true;
}

/* Appends the tokens of text to the item's. */
static bool encode(struct embed_job *job, struct embed_item *it, const char *text, size_t len, bool special, const char *field, struct api_error *e)
{
    struct tok_ids ids = {0};
    struct err err;
    if (!job->api->tok)
        return api_fail(e, ERR_UNSUPPORTED, field, "this model has no tokenizer; send token ids");
    if (len / job->api->longest_token_bytes > (size_t)job->api->info->max_model_len && job->f.truncate == API_UNSET)
        return check_length(job, (int64_t)(len / job->api->longest_token_bytes), field, e);
    if (!tok_encode(job->api->tok, text, len, special ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, &ids, &err))
        return api_fail_err(e, field, &err);
    size_t n = (size_t)it->n + ids.n;
    int32_t *all = n < INT32_MAX ? arena_try_alloc(job->arena, n + 1, sizeof *all) : NULL;
    if (all) {
        if (it->n)
            memcpy(all, it->ids, (size_t)it->n * sizeof *all);
        if (ids.n)
            memcpy(all + it->n, ids.ids, ids.n * sizeof *all);
        it->ids = all;
        it->n = (int32_t)n;
    }
    tok_ids_free(&ids);
    return all || no_memory(e);
}

static bool read_text(struct embed_job *job, struct embed_item *it, const json_t *v, const char *field, struct api_error *e)
{
    if (json_is_string(v)) {
        if (!encode(job, it, json_string_value(v), json_string_length(v), job->f.add_special_tokens, field, e))
            return false;
    } else if (json_is_array(v)) {
        if (!api_read_ids(job->arena, v, field, job->api->info->vocab_size, &it->ids, &it->n, e))
            return false;
    } else {
        return api_fail(e, ERR_INVALID, field, "'%s': expected string or array of token ids, found %s", field, json_type_name(v));
    }
    return truncate_item(job, it, e) && check_length(job, it->n, field, e);
}

static bool alloc_items(struct embed_job *job, size_t n, const char *field, struct api_error *e)
{
    if (n == 0)
        return api_fail(e, ERR_INVALID, field, "'%s' must not be empty", field);
    if (n > MAX_ITEMS)
        return api_fail(e, ERR_INVALID, field, "'%s' may have at most %d entries, found %zu", field, MAX_ITEMS, n);
    job->items = mem_try_zalloc(n, sizeof *job->items);
    job->n_items = job->items ? (int32_t)n : 0;
    return job->items || no_memory(e);
}

static bool read_messages(struct embed_job *job, struct api_error *e)
{
    struct api_fields chat;
    struct buf text;
    buf_init(&text, 0);
    api_fields_default(&chat);
    chat.messages = job->f.messages;
    chat.add_generation_prompt = false;
    bool ok = alloc_items(job, 1, "messages", e) && api_prompt_render(job->api, &chat, &text, e) &&
              encode(job, &job->items[0], text.data ? text.data : "", text.len, false, "messages", e) && truncate_item(job, &job->items[0], e) &&
              check_length(job, job->items[0].n, "messages", e);
    buf_free(&text);
    return ok;
}

/* A string, strings, token ids, or arrays of them. */
static bool read_input(struct embed_job *job, struct api_error *e)
{
    const json_t *v = job->f.input, *first = json_array_get(v, 0);
    bool many = json_is_string(first) || json_is_array(first);
    if (job->f.messages)
        return v ? api_fail(e, ERR_INVALID, "messages", "give 'input' or 'messages', not both") : read_messages(job, e);
    if (!v)
        return api_fail(e, ERR_INVALID, "input", "'input' is required");
    if (json_is_array(v) && json_array_size(v) == 0)
        return api_fail(e, ERR_INVALID, "input", "'input' must not be empty");
    if (!alloc_items(job, many ? json_array_size(v) : 1, "input", e))
        return false;
    for (int32_t i = 0; i < job->n_items; i++)
        if (!read_text(job, &job->items[i], many ? json_array_get(v, (size_t)i) : v, "input", e))
            return false;
    return true;
}

/* A document of a rerank may be an object with its text. */
static const json_t *text_of(const json_t *v)
{
    const json_t *text = json_object_get(v, "text");
    return text ? text : v;
}

/* text_2 after text_1, whose own log-probability does not count. */
static bool read_pair(struct embed_job *job, struct embed_item *it, const json_t *a, const json_t *b, const char *field_a, const char *field_b,
                      struct api_error *e)
{
    if (!json_is_string(a) || !json_is_string(b))
        return api_fail(e, ERR_INVALID, json_is_string(a) ? field_b : field_a, "'%s': expected string, found %s", json_is_string(a) ? field_b : field_a,
                        json_type_name(json_is_string(a) ? b : a));
    if (!encode(job, it, json_string_value(a), json_string_length(a), job->f.add_special_tokens, field_a, e))
        return false;
    if (it->n == 0)
        return api_fail(e, ERR_INVALID, field_a, "'%s' has no tokens", field_a);
    it->n_given = it->n;
    if (!encode(job, it, json_string_value(b), json_string_length(b), false, field_b, e))
        return false;
    if (it->n == it->n_given)
        return api_fail(e, ERR_INVALID, field_b, "'%s' has no tokens", field_b);
    return check_length(job, it->n, field_b, e);
}

/* One with many, many with as many. */
static bool read_scoring(struct embed_job *job, struct api_error *e)
{
    bool rerank = job->endpoint == EMBED_RERANK;
    const char *name_a = rerank ? "query" : "text_1", *name_b = rerank ? "documents" : "text_2";
    const json_t *a = rerank ? job->f.query : job->f.text_1, *b = rerank ? job->f.documents : job->f.text_2;
    if (!a || !b)
        return api_fail(e, ERR_INVALID, a ? name_b : name_a, "'%s' is required", a ? name_b : name_a);
    bool many_a = json_is_array(a) && !rerank, many_b = json_is_array(b);
    size_t n_a = many_a ? json_array_size(a) : 1, n_b = many_b ? json_array_size(b) : 1;
    if (n_a != 1 && n_a != n_b)
        return api_fail(e, ERR_INVALID, name_a, "'%s' must be one text or as many as '%s' (%zu), found %zu", name_a, name_b, n_b, n_a);
    job->n_pairs = (int32_t)n_b;
    job->n_first = job->by_logprob ? 0 : (int32_t)n_a;
    if (n_b == 0 || n_b > MAX_ITEMS || !alloc_items(job, job->by_logprob ? n_b : n_a + n_b, name_b, e))
        return n_b == 0 ? api_fail(e, ERR_INVALID, name_b, "'%s' must not be empty", name_b) : n_b > MAX_ITEMS ? alloc_items(job, n_b, name_b, e) : false;
    for (size_t i = 0; i < n_b; i++) {
        const json_t *left = many_a ? json_array_get(a, n_a == 1 ? 0 : i) : a, *right = text_of(many_b ? json_array_get(b, i) : b);
        if (job->by_logprob ? !read_pair(job, &job->items[i], left, right, name_a, name_b, e)
                            : (i < n_a && !read_text(job, &job->items[i], left, name_a, e)) || !read_text(job, &job->items[n_a + i], right, name_b, e))
            return false;
    }
    return true;
}

/* ---- opening ---- */

static int64_t time_left(const struct embed_job *job)
{
    const int64_t bounds[] = {job->api->opts.request_timeout_us, job->timeout_us, isnan(job->f.timeout) ? 0 : (int64_t)(job->f.timeout * 1e6)};
    int64_t least = 0;
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
        if (bounds[i] > 0 && (least == 0 || bounds[i] < least))
            least = bounds[i];
    return least == 0 ? 0 : least > job->waited_us ? least - job->waited_us : 1;
}

static bool submit(struct embed_job *job, const struct api_job_opts *o, struct api_error *e)
{
    struct sample_params params;
    struct gen_request r;
    struct err err;
    sample_params_default(&params);
    params.n_prompt_logprobs = job->by_logprob ? 0 : -1;
    gen_request_default(&r);
    r.no_text = true;
    r.engine.kind = job->by_logprob ? ENGINE_SCORE : ENGINE_EMBED;
    r.engine.pooling = job->pooling;
    r.engine.params = &params;
    r.engine.priority = (int32_t)job->f.priority;
    r.engine.timeout_us = time_left(job);
    r.engine.id = job->id;
    for (int32_t i = 0; i < job->n_items; i++) {
        struct embed_item *it = &job->items[i];
        r.engine.tokens = it->ids;
        r.engine.n_tokens = it->n;
        it->state = job->by_logprob ? NULL : arena_try_alloc(job->arena, (size_t)job->dim, sizeof *it->state);
        if (!job->by_logprob && !it->state)
            return no_memory(e);
        if (!gen_open(&it->gen, job->api->eng, &r, o->notify, o->notify_ctx, &err))
            return api_fail_err(e, is_scoring(job) ? NULL : "input", &err);
    }
    return true;
}

static void make_id(struct embed_job *job, const struct api_job_opts *o)
{
    static const char *const prefixes[] = {[EMBED_EMBEDDINGS] = "embd", [EMBED_POOLING] = "pool", [EMBED_SCORE] = "score", [EMBED_RERANK] = "rerank"};
    const char *given = job->f.request_id ? job->f.request_id : o->request_id;
    if (given)
        snprintf(job->id, sizeof job->id, "%s-%.128s", prefixes[job->endpoint], given);
    else
        snprintf(job->id, sizeof job->id, "%s-%016llx%016llx", prefixes[job->endpoint], (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
}

static bool open_parts(struct embed_job *job, const char *body, size_t len, const struct api_job_opts *o, struct api_error *e)
{
    struct err err;
    job->arena = arena_open(ARENA_LIMIT);
    if (!job->arena)
        return no_memory(e);
    job->doc = json_parse(body, len, &err);
    if (!job->doc)
        return api_fail_err(e, NULL, &err);
    if (!read_fields(job, e) || !(is_scoring(job) ? read_scoring(job, e) : read_input(job, e)))
        return false;
    make_id(job, o);
    return submit(job, o, e);
}

bool embed_job_open(struct embed_job **out, const struct api *a, enum embed_endpoint endpoint, const char *body, size_t len,
                    const struct api_job_opts *o, struct api_error *e)
{
    *out = NULL;
    struct embed_job *job = mem_try_zalloc(1, sizeof *job);
    if (!job)
        return no_memory(e);
    *job = (struct embed_job){.api = a, .endpoint = endpoint, .waited_us = o->waited_us, .timeout_us = o->timeout_us, .created_s = clock_unix_s(), .status = 200};
    if (!open_parts(job, body, len, o, e)) {
        embed_job_close(&job);
        return false;
    }
    *out = job;
    return true;
}

void embed_job_close(struct embed_job **pj)
{
    struct embed_job *job = *pj;
    if (!job)
        return;
    *pj = NULL;
    for (int32_t i = 0; i < job->n_items; i++)
        gen_close(&job->items[i].gen);
    mem_free(job->items);
    arena_close(&job->arena);
    json_decref(job->doc);
    mem_free(job);
}

int embed_job_status(const struct embed_job *job) { return job->status; }

void embed_job_stats(const struct embed_job *job, struct api_job_stats *out)
{
    *out = (struct api_job_stats){0};
    for (int32_t i = 0; i < job->n_items; i++) {
        out->n_prompt += job->items[i].n;
        out->n_cached += job->items[i].n_cached;
    }
}

/* ---- pulling ---- */

/* The first dim numbers, scaled to length 1 when that is asked for: scores are cosines, so always there. */
static void keep_state(const struct embed_job *job, struct embed_item *it, const float *hidden)
{
    double sum = 0;
    for (int32_t i = 0; i < job->dim; i++)
        sum += (double)hidden[i] * (double)hidden[i];
    double scale = (job->f.normalize || is_scoring(job)) && sum > 0 ? 1 / sqrt(sum) : 1;
    for (int32_t i = 0; i < job->dim; i++)
        it->state[i] = (float)((double)hidden[i] * scale);
}

/* False: it failed. */
static bool pull_item(struct embed_job *job, struct embed_item *it, struct err *e)
{
    struct gen_event ev;
    while (!it->done && gen_next(it->gen, &ev)) {
        if (ev.type == GEN_PROMPT && ev.hidden) {
            keep_state(job, it, ev.hidden);
        } else if (ev.type == GEN_PROMPT && ev.pos >= it->n_given) {
            it->logprob += (double)ev.logprob;
        } else if (ev.type == GEN_ERROR) {
            *e = ev.error;
            return false;
        } else if (ev.type == GEN_DONE) {
            struct engine_times t;
            gen_times(it->gen, &t);
            it->n_cached = t.n_cached;
            it->done = true;
            job->n_done++;
            gen_close(&it->gen);
        }
    }
    return true;
}

static void fail(struct embed_job *job, const struct err *err, struct buf *out)
{
    struct api_error e;
    api_fail_err(&e, NULL, err);
    job->finished = true;
    job->status = e.status;
    for (int32_t i = 0; i < job->n_items; i++)
        gen_close(&job->items[i].gen);
    api_error_write(&e, out);
}

enum api_pull embed_job_pull(struct embed_job *job, struct buf *out)
{
    struct err err;
    for (int32_t i = 0; i < job->n_items && !job->finished; i++)
        if (!pull_item(job, &job->items[i], &err))
            fail(job, &err, out);
    if (!job->finished && job->n_done == job->n_items) {
        job->finished = true;
        embed_write_body(job, out);
        if (out->failed) {
            buf_clear(out);
            fail(job, &(struct err){.code = ERR_NOMEM, .msg = "out of memory for the answer"}, out);
        }
    }
    return job->finished ? API_PULL_DONE : API_PULL_MORE;
}
