/* Bodies of the routes that end in an engine, sent to one: TGI's, embeddings and scores, responses; and bodies of multipart/form-data.  The
 * first byte picks the route.  What is taken is cut off at once; what is refused must say so in valid JSON. */
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "server/api.h"
#include "server/embed.h"
#include "server/http_multipart.h"
#include "server/tgi.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const struct api *open_api(void)
{
    static struct engine *eng;
    static struct api *a;
    struct engine_opts o;
    struct err e;
    if (a)
        return a;
    engine_opts_default(&o);
    o.n_threads = 1;
    o.max_model_len = 128;
    o.num_kv_blocks = 64;
    o.max_num_seqs = 8;
    o.max_num_batched_tokens = 128;
    o.packed_cache = "off";
    if (!engine_open(&eng, &o, &e) || !api_open(&a, &(struct api_opts){.engine = eng, .tool_parser = "hermes", .reasoning_parser = "qwen3"}, &e))
        abort();
    return a;
}

static void must_be_json(const struct buf *b)
{
    struct err e;
    json_t *j = json_parse(b->data ? b->data : "", b->len, &e);
    if (!j)
        abort();
    json_decref(j);
}

static void check_error(const struct api_error *e, bool tgi)
{
    struct buf b;
    int status = e->status;
    buf_init(&b, 0);
    if (!e->msg[0] || e->status < 400 || !(tgi ? tgi_error_write(e, &status, &b) : api_error_write(e, &b)) || status < 400)
        abort();
    must_be_json(&b);
    buf_free(&b);
}

static void read_parts(const char *body, size_t len)
{
    char mark[HTTP_MARK_MAX], type[200];
    const char *nul = memchr(body, 0, len), *at, *end = body + len;
    struct http_part p;
    size_t n = nul ? (size_t)(nul - body) : 0;
    if (!nul || n >= sizeof type)
        return;
    memcpy(type, body, n + 1);
    at = nul + 1;
    if (!http_multipart_mark(type, mark))
        return;
    while (http_multipart_next(&at, end, mark, &p))
        if (p.data < nul || p.data + p.len > end || (p.name && p.name + p.name_len > end) || (p.filename && p.filename + p.filename_len > end))
            abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const struct api *a = open_api();
    const struct api_job_opts o = {.timeout_us = 200000};
    struct api_error e = {0};
    struct buf out;
    bool ok = true, tgi = false;
    if (size < 1 || size > 4000)
        return 0;
    const char *body = (const char *)data + 1;
    size_t len = size - 1;
    unsigned route = data[0] % 12;
    buf_init(&out, 0);
    if (route < 3) {
        struct tgi_job *job;
        tgi = true;
        ok = tgi_job_open(&job, a, (enum tgi_route)route, body, len, &o, &e);
        if (ok)
            tgi_job_pull(job, &out), buf_clear(&out);
        tgi_job_close(&job);
    } else if (route == 3 || route == 4) {
        tgi = true;
        ok = route == 3 ? tgi_tokenize(a, body, len, &out, &e) : tgi_chat_tokenize(a, body, len, &out, &e);
    } else if (route < 9) {
        struct embed_job *job;
        ok = embed_job_open(&job, a, (enum embed_endpoint)(route - 5), body, len, &o, &e);
        embed_job_close(&job);
    } else if (route < 11) {
        struct api_job *job;
        ok = api_job_open(&job, a, route == 9 ? API_RESPONSES : API_CHAT, body, len, &o, &e);
        if (ok)
            api_job_pull(job, &out), buf_clear(&out);
        api_job_close(&job);
    } else {
        read_parts(body, len);
    }
    if (!ok)
        check_error(&e, tgi);
    else if (out.len)
        must_be_json(&out);
    buf_free(&out);
    return 0;
}
