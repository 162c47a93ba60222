#include "bench/context.h"

#include <string.h>
#include "base/mem.h"

struct context {
    struct bench_http *client;
    struct bench_context_opts o;
    struct rng rng;
    struct buf tokens;     /* the prompt so far */
    bool some;
    int64_t n_tokens;
};

static void forget_prompt(struct context *x)
{
    buf_clear(&x->tokens);
    x->some = false;
    x->n_tokens = 0;
}

static bool next_prompt(struct context *x, int32_t n, struct err *e)
{
    if (!x->o.reuse_prefix || n < x->n_tokens)
        forget_prompt(x);
    bool ok = bench_prompt_append(&x->tokens, bench_target_is_chat(&x->o.target), &x->rng, n - (int32_t)x->n_tokens, x->o.vocab, &x->some);
    x->n_tokens = n;
    return ok || err_set(e, ERR_NOMEM, "out of memory for a prompt of %d tokens", n);
}

static bool ask(struct context *x, int32_t n, struct bench_call *call, struct err *e)
{
    struct buf body;
    bench_call_free(call);
    if (!next_prompt(x, n, e))
        return false;
    buf_init(&body, 0);
    if (!bench_body_write(&body, &x->o.target, &x->tokens, NULL, x->o.output_len)) {
        buf_free(&body);
        return err_set(e, ERR_NOMEM, "out of memory for a prompt of %d tokens", n);
    }
    return bench_http_run(x->client, x->o.target.endpoint, &body, call, e);
}

static struct bench_context_row make_row(const struct bench_call *c, int64_t sent)
{
    struct bench_context_row r = {.n_prompt = c->prompt_tokens >= 0 ? c->prompt_tokens : sent, .n_generated = bench_call_out_len(c),
                                  .time_s = bench_call_latency(c), .ttft_s = bench_call_ttft(c)};
    r.itl_s = c->n_gaps ? (r.time_s - r.ttft_s) / (double)c->n_gaps : 0;
    r.tokens_per_s = r.time_s > 0 ? (double)r.n_generated / r.time_s : 0;
    return r;
}

static bool add_row(json_t *rows, const struct bench_context_row *r)
{
    json_t *j = json_pack("{s:I,s:I,s:I,s:f,s:f,s:f,s:f}", "prompt_tokens", (json_int_t)r->n_prompt, "generated_tokens", (json_int_t)r->n_generated,
                          "total_tokens", (json_int_t)(r->n_prompt + r->n_generated), "time_s", r->time_s, "tokens_per_s", r->tokens_per_s,
                          "ttft_ms", r->ttft_s * 1e3, "itl_ms", r->itl_s * 1e3);
    return j && json_array_append_new(rows, j) == 0;
}

/* Rows until the server refuses; e tells why when it is not by a 400. */
static bool grow(struct context *x, struct bench_call *call, bool (*row)(void *, const struct bench_context_row *), void *ctx, json_t *out,
                 struct err *e)
{
    json_t *rows = json_object_get(out, "rows");
    for (int64_t n = x->o.step; n <= x->o.max_prompt; n += x->o.step) {
        if (!ask(x, (int32_t)n, call, e))
            return false;
        if (call->status == 400) {
            if (n == x->o.step)
                return err_set(e, ERR_INVALID, "the first prompt, of %lld tokens, is refused already: %s", (long long)n, call->error);
            json_t *limit = json_pack("{s:i,s:I,s:s}", "status", call->status, "prompt_tokens", (json_int_t)n, "message", call->error);
            return (limit && json_object_set_new(out, "limit", limit) == 0) || err_set(e, ERR_NOMEM, "out of memory");
        }
        if (!call->ok)
            return err_set(e, ERR_IO, "at %lld prompt tokens the server failed instead of answering 400: %s", (long long)n, call->error);
        struct bench_context_row r = make_row(call, n);
        if (!add_row(rows, &r))
            return err_set(e, ERR_NOMEM, "out of memory");
        if (!row(ctx, &r))
            return err_set(e, ERR_IO, "the table could not be written");
    }
    return err_set(e, ERR_INVALID, "no 400 up to %d prompt tokens: the server cuts prompts, or its context is longer (see --max-prompt)",
                   x->o.max_prompt);
}

/* A server that has just refused everything must still answer what it can. */
static bool prove(struct context *x, struct bench_call *call, json_t *out, bool grown, struct err *e)
{
    struct err own;
    bool ran = ask(x, x->o.step, call, &own), alive = ran && call->ok;
    if (json_object_set_new(out, "alive", json_boolean(alive)) != 0)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (alive || !grown)
        return grown;
    return err_set(e, ERR_IO, "after the 400 a normal request failed: %s", ran ? call->error : own.msg);
}

bool bench_context_run(struct bench_http *c, const struct bench_context_opts *o, bool (*row)(void *, const struct bench_context_row *),
                       void *ctx, json_t **out, struct err *e)
{
    struct context x = {.client = c, .o = *o, .rng = {o->seed}};
    struct bench_call call = {0};
    *out = NULL;
    if (o->step < 1 || o->output_len < 1 || o->max_prompt < o->step || o->max_prompt > BENCH_CONTEXT_MAX_PROMPT || o->step > BENCH_CONTEXT_MAX_PROMPT)
        return err_set(e, ERR_INVALID, "step and new tokens must be positive, and step <= max prompt <= %d", BENCH_CONTEXT_MAX_PROMPT);
    if (o->vocab <= 0 && !bench_target_is_chat(&o->target) && !bench_vocab_probe(c, &o->target, &x.o.vocab, e))
        return false;
    *out = json_pack("{s:[],s:n,s:b}", "rows", "limit", "alive", 0);
    if (!*out)
        return err_set(e, ERR_NOMEM, "out of memory");
    buf_init(&x.tokens, 0);
    /* Not counted: it warms the server.  Whatever is wrong with it is told by the first that counts. */
    bool ok = ask(&x, o->step, &call, e);
    forget_prompt(&x);
    ok = ok && grow(&x, &call, row, ctx, *out, e);
    ok = prove(&x, &call, *out, ok, e);
    bench_call_free(&call);
    buf_free(&x.tokens);
    return ok;
}

bool bench_context_plot(const json_t *result, const char *path, struct buf *script, struct err *e)
{
    const json_t *rows = json_object_get(result, "rows"), *r;
    size_t i;
    if (json_array_size(rows) == 0)
        return err_set(e, ERR_INVALID, "there is nothing to plot: no request was answered");
    if (strpbrk(path, "'\n\r"))
        return err_set(e, ERR_INVALID, "--plot: the file name holds a quote or a line end");
    buf_puts(script, "$d << EOD\n");
    json_array_foreach(rows, i, r) {
        buf_printf(script, "%lld %g %g %g\n", (long long)json_integer_value(json_object_get(r, "prompt_tokens")),
                   json_number_value(json_object_get(r, "ttft_ms")) / 1e3, json_number_value(json_object_get(r, "itl_ms")),
                   json_number_value(json_object_get(r, "tokens_per_s")));
    }
    buf_printf(script, "EOD\nset terminal png size 1000,900\nset output '%s'\nset grid\nset key off\nset xrange [0:*]\nset yrange [0:*]\n"
                       "set multiplot layout 3,1\nset ylabel 'TTFT (s)'\nplot $d using 1:2 with linespoints\n"
                       "set ylabel 'ITL (ms)'\nplot $d using 1:3 with linespoints\nset xlabel 'tokens in prompt'\n"
                       "set ylabel 'tokens/s'\nplot $d using 1:4 with linespoints\nunset multiplot\n", path);
    return !script->failed || err_set(e, ERR_NOMEM, "out of memory");
}
