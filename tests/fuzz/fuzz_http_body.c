/* Bodies of requests from anywhere: parsed, rendered and tokenized as the server does, short of the engine.
 * The first byte picks the route.  An error must say something and be valid JSON; so must every answer. */
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "server/api_int.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const char tokenizer[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true},{\"id\":1,\"content\":\"</s>\",\"special\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":null,\"decoder\":{\"type\":\"ByteFallback\"},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
    "\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"<s>\":0,\"</s>\":1,\"<unk>\":2,\"a\":3,\"b\":4,\"ab\":5,\" \":6,\"c\":7},\"merges\":[\"a b\"]}}";

static const char template[] =
    "{% for m in messages %}<s>{{ m.role }} {% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}"
    "{% endif %}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant {% endif %}";

static struct api *open_api(void)
{
    static struct engine_info info = {.model_name = "m", .max_model_len = 64, .vocab_size = 8, .max_logprobs = 5, .max_num_seqs = 8};
    static char *names[] = {"m"};
    static struct api a = {.info = &info, .names = names, .n_names = 1, .longest_token_bytes = 5};
    struct tok *t;
    struct err e;
    if (a.tok)
        return &a;
    if (!tok_open_json(&t, tokenizer, sizeof tokenizer - 1, &e) || !chat_open(&a.chat, t, template, sizeof template - 1, "<s>", "</s>", "", &e))
        abort();
    a.tok = t;
    sample_params_default(&a.defaults);
    return &a;
}

static void must_be_json(const struct buf *b)
{
    struct err e;
    json_t *j = json_parse(b->data ? b->data : "", b->len, &e);
    if (!j)
        abort();
    json_decref(j);
}

static void check_error(const struct api_error *e)
{
    struct buf b;
    buf_init(&b, 0);
    if (!e->msg[0] || e->status < 400 || !api_error_write(e, &b))
        abort();
    must_be_json(&b);
    buf_free(&b);
}

/* An echo needs no engine, so its whole answer can be looked at. */
static void check_job(struct api_job *job)
{
    struct buf out;
    for (int32_t i = 0; i < job->n_prompts; i++)
        if (job->prompts[i].n < 1 || job->prompts[i].n > job->api->info->max_model_len)
            abort();
    if (api_job_needs_engine(job))
        return;
    buf_init(&out, 0);
    while (api_job_pull(job, &out) == API_PULL_MORE)
        ;
    if (!api_job_streams(job))
        must_be_json(&out);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const struct api *a = open_api();
    struct api_error e = {0};
    struct api_job *job;
    struct buf out;
    if (size < 1)
        return 0;
    const char *body = (const char *)data + 1;
    size_t len = size - 1;
    buf_init(&out, 0);
    bool ok;
    switch (data[0] % 4) {
    case 0:
    case 1:
        ok = api_job_parse(&job, a, data[0] % 4 ? API_CHAT : API_COMPLETIONS, body, len, &(struct api_job_opts){0}, &e);
        if (ok)
            check_job(job);
        api_job_close(&job);
        break;
    case 2:
        ok = api_tokenize(a, body, len, &out, &e);
        break;
    default:
        ok = api_detokenize(a, body, len, &out, &e);
    }
    if (!ok)
        check_error(&e);
    else if (out.len)
        must_be_json(&out);
    buf_free(&out);
    return 0;
}
