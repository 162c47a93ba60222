#include "bench/load.h"

#include <math.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/load_int.h"

enum { MAX_DATASET = 1 << 30 };
/* Streams of random numbers that must not disturb each other. */
enum { SEED_ARRIVALS = 1, SEED_PREFIX, SEED_TEST, SEED_REQUEST };

struct load {
    struct bench_http *client;
    struct bench_load_opts o;
    struct bench_call *calls;    /* [num_prompts] */
    int32_t *sent_len;           /* [num_prompts] */
    double *arrival_s;           /* [num_prompts] */
};

void bench_load_opts_default(struct bench_load_opts *o)
{
    *o = (struct bench_load_opts){.target = {.endpoint = "/v1/completions"}, .num_prompts = 1000, .request_rate = INFINITY, .burstiness = 1,
                                  .input_len = 1024, .output_len = 128, .selected = {true, true, true, false}, .percentiles = {99},
                                  .n_percentiles = 1, .goodput_ms = {NAN, NAN, NAN, NAN}};
}

static struct rng stream(uint64_t seed, uint64_t kind, uint64_t index)
{
    struct rng_block b = rng_philox(seed, kind, index);
    return (struct rng){((uint64_t)b.v[0] << 32) | b.v[1]};
}

/* ---- arrivals ---- */

/* Gamma of mean 1 (Marsaglia and Tsang 2000; shapes below 1 by their boost). */
static double gamma_unit(struct rng *r, double shape)
{
    double boost = 1;
    double k = shape;
    if (k < 1) {
        boost = pow(1 - rng_next_unit(r), 1 / k);
        k += 1;
    }
    double d = k - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = rng_next_normal(r), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(1 - rng_next_unit(r)) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v * boost / shape;
    }
}

static void draw_arrivals(struct load *l)
{
    struct rng r = stream(l->o.seed, SEED_ARRIVALS, 0);
    double at = 0;
    for (int32_t i = 0; i < l->o.num_prompts; i++) {
        l->arrival_s[i] = at;
        if (isfinite(l->o.request_rate))
            at += gamma_unit(&r, l->o.burstiness) / l->o.request_rate;
    }
}

/* ---- prompts ---- */

static int32_t draw_len(struct rng *r, int32_t len, double ratio)
{
    int64_t low = (int64_t)floor(len * (1 - ratio)), high = (int64_t)floor(len * (1 + ratio));
    low = low < 1 ? 1 : low;
    high = high > INT32_MAX ? INT32_MAX : high;
    return high <= low ? (int32_t)low : (int32_t)(low + (int64_t)rng_next_below(r, (uint64_t)(high - low + 1)));
}

/* Request i depends on the seed and i alone, not on what was sent before. */
static bool write_body(const struct load *l, struct rng r, int32_t i, struct buf *body, int32_t *sent_len)
{
    const struct bench_load_opts *o = &l->o;
    int32_t in = draw_len(&r, o->input_len, o->range_ratio), out = draw_len(&r, o->output_len, o->range_ratio);
    if (o->prompts) {
        const json_t *p = json_array_get(o->prompts, (size_t)i % json_array_size(o->prompts));
        *sent_len = json_is_array(p) ? (int32_t)json_array_size(p) : -1;
        return bench_body_write(body, &o->target, NULL, p, out);
    }
    struct buf tokens;
    bool some = false, chat = bench_target_is_chat(&o->target);
    struct rng prefix = stream(o->seed, SEED_PREFIX, 0);
    buf_init(&tokens, 0);
    bool ok = bench_prompt_append(&tokens, chat, &prefix, o->prefix_len, o->vocab, &some) &&
              bench_prompt_append(&tokens, chat, &r, in, o->vocab, &some) && bench_body_write(body, &o->target, &tokens, NULL, out);
    buf_free(&tokens);
    *sent_len = chat ? -1 : o->prefix_len + in;
    return ok;
}

json_t *bench_load_read_dataset(const char *path, bool chat, struct err *e)
{
    size_t len;
    char *text = file_read(path, MAX_DATASET, &len, e);
    json_t *all = text ? json_array() : NULL;
    int number = 0;
    for (char *line = text; all && line && line < text + len; ) {
        char *end = memchr(line, '\n', (size_t)(text + len - line));
        size_t n = end ? (size_t)(end - line) : (size_t)(text + len - line);
        number++;
        if (strspn(line, " \t\r") < n) {
            json_t *doc = json_parse(line, n, e), *p = json_object_get(doc, "prompt");
            bool known = json_is_string(p) || (!chat && json_array_size(p) > 0);
            if (doc && !known)
                err_set(e, ERR_FORMAT, "expected {\"prompt\": %s}", chat ? "text" : "text or an array of token ids");
            bool ok = known && json_array_append(all, p) == 0;
            json_decref(doc);
            if (!ok) {
                err_prefix(e, "%s:%d", path, number);
                json_decref(all);
                all = NULL;
            }
        }
        line = end ? end + 1 : NULL;
    }
    mem_free(text);
    if (all && json_array_size(all) == 0) {
        err_set(e, ERR_FORMAT, "%s holds no prompt", path);
        json_decref(all);
        return NULL;
    }
    return all;
}

/* ---- sending ---- */

static bool start(struct load *l, int32_t i, struct err *e)
{
    struct buf body;
    buf_init(&body, 0);
    if (!write_body(l, stream(l->o.seed, SEED_REQUEST, (uint64_t)i), i, &body, &l->sent_len[i])) {
        buf_free(&body);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    return bench_http_start(l->client, l->o.target.endpoint, &body, &l->calls[i], e);
}

/* A setup that cannot work is told at once, and connections, tables and caches of the server are warm afterwards. */
static bool test_run(struct load *l, struct err *e)
{
    struct buf body;
    struct bench_call call = {0};
    int32_t len;
    if (l->o.vocab <= 0 && !l->o.prompts && !bench_target_is_chat(&l->o.target) &&
        !bench_vocab_probe(l->client, &l->o.target, &l->o.vocab, e))
        return false;
    buf_init(&body, 0);
    if (!write_body(l, stream(l->o.seed, SEED_TEST, 0), 0, &body, &len)) {
        buf_free(&body);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    bool ok = bench_http_run(l->client, l->o.target.endpoint, &body, &call, e) &&
              (call.ok || err_set(e, ERR_IO, "the test request before the measurement failed: %s", call.error));
    bench_call_free(&call);
    return ok;
}

static bool send_all(struct load *l, void (*progress)(void *, int64_t, int64_t), void *ctx, double *duration_s, struct err *e)
{
    int32_t n = l->o.num_prompts, most = l->o.max_concurrency > 0 ? l->o.max_concurrency : n;
    int64_t begin = clock_now_us();
    for (int32_t next = 0, running = 0, n_done = 0; n_done < n;) {
        int64_t now = clock_now_us() - begin;
        while (next < n && running < most && l->arrival_s[next] * 1e6 <= (double)now) {
            if (!start(l, next, e))
                return false;
            next++;
            running++;
        }
        /* An hour at most, so that the product fits; the loop comes back anyway. */
        double wait = next < n && running < most ? fmin(l->arrival_s[next] * 1e6 - (double)now, 3600e6) : -1;
        if (!bench_http_next(l->client, wait < 0 ? -1 : (int64_t)wait)) {
            if (wait < 0)
                return err_set(e, ERR_INTERNAL, "libcurl lost %d requests", running);
            continue;
        }
        running--;
        n_done++;
        if (progress)
            progress(ctx, n_done, n);
    }
    *duration_s = (double)(clock_now_us() - begin) / 1e6;
    return true;
}

static bool check(const struct bench_load_opts *o, struct err *e)
{
    if (o->num_prompts < 1 || o->input_len < 1 || o->output_len < 1 || o->prefix_len < 0 || o->prefix_len > INT32_MAX / 4 || o->input_len > INT32_MAX / 4)
        return err_set(e, ERR_INVALID, "the number of prompts and their lengths must be positive");
    if (!(o->request_rate > 0) || !(o->burstiness > 0) || !(o->range_ratio >= 0 && o->range_ratio < 1))
        return err_set(e, ERR_INVALID, "request rate and burstiness must be above 0, the range ratio in [0,1)");
    return true;
}

bool bench_load_run(struct bench_http *c, const struct bench_load_opts *o, void (*progress)(void *, int64_t, int64_t), void *ctx,
                    json_t **out, struct err *e)
{
    struct load l = {.client = c, .o = *o};
    double duration_s = 0;
    bool ok = false;
    *out = NULL;
    if (!check(o, e))
        return false;
    l.calls = mem_try_zalloc((size_t)o->num_prompts, sizeof *l.calls);
    l.sent_len = mem_try_zalloc((size_t)o->num_prompts, sizeof *l.sent_len);
    l.arrival_s = mem_try_zalloc((size_t)o->num_prompts, sizeof *l.arrival_s);
    if (!l.calls || !l.sent_len || !l.arrival_s) {
        err_set(e, ERR_NOMEM, "out of memory for %d requests", o->num_prompts);
        goto done;
    }
    for (int32_t i = 0; i < o->num_prompts; i++)
        l.calls[i].keep_text = o->detailed;
    draw_arrivals(&l);
    if (!test_run(&l, e) || !send_all(&l, progress, ctx, &duration_s, e))
        goto done;
    *out = bench_load_result(&l.o, l.calls, l.sent_len, duration_s);
    ok = *out || err_set(e, ERR_NOMEM, "out of memory");
done:
    bench_http_cancel(c);
    for (int32_t i = 0; l.calls && i < o->num_prompts; i++)
        bench_call_free(&l.calls[i]);
    mem_free(l.calls);
    mem_free(l.sent_len);
    mem_free(l.arrival_s);
    return ok;
}
