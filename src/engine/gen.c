#include "engine/gen.h"

#include <string.h>
#include "base/mem.h"
#include "base/utf8.h"
#include "model/model.h"
#include "tok/detok.h"
#include "tok/stop.h"

struct gen_choice {
    struct detok *detok;         /* NULL: no text */
    struct stop *stop;
    int32_t n_completion;
    bool ended;
};

struct gen {
    struct engine_stream *st;
    struct gen_choice *choices;
    int32_t n_choices;
    bool include_stop;
    struct buf raw, text;        /* what a token became, and what of it is safe to show */
};

void gen_request_default(struct gen_request *r)
{
    *r = (struct gen_request){.skip_special_tokens = true};
    r->engine.n = 1;
    r->engine.length_penalty = 1;
}

static bool open_choice(struct gen_choice *c, const struct tok *t, const struct gen_request *r, struct err *e)
{
    if (r->n_stop > 0) {
        size_t lens[64];
        if (r->n_stop > 64)
            return err_set(e, ERR_INVALID, "more than 64 stop strings");
        for (int32_t i = 0; i < r->n_stop; i++)
            lens[i] = strlen(r->stop[i]);
        if (!stop_open(&c->stop, r->stop, lens, (size_t)r->n_stop, e))
            return false;
    }
    return detok_open(&c->detok, t, r->skip_special_tokens ? TOK_DECODE_SKIP_SPECIAL : TOK_DECODE_ALL, r->engine.tokens,
                      (size_t)r->engine.n_tokens, e);
}

bool gen_open(struct gen **out, struct engine *eng, const struct gen_request *r, engine_notify *notify, void *ctx, struct err *e)
{
    const struct tok *t = engine_tok(eng);
    bool text = !r->no_text && t && r->engine.kind == ENGINE_GENERATE;
    *out = NULL;
    if (r->n_stop > 0 && !text)
        return err_set(e, ERR_INVALID, "stop strings need a tokenizer and text output");
    if (r->engine.n < 1)
        return err_set(e, ERR_INVALID, "n must be at least 1");
    struct gen *g = mem_try_zalloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_NOMEM, "out of memory");
    buf_init(&g->raw, 0);
    buf_init(&g->text, 0);
    g->include_stop = r->include_stop;
    g->n_choices = r->engine.n;
    g->choices = mem_try_zalloc((size_t)g->n_choices, sizeof *g->choices);
    bool ok = g->choices || err_set(e, ERR_NOMEM, "out of memory");
    for (int32_t i = 0; ok && text && i < g->n_choices; i++)
        ok = open_choice(&g->choices[i], t, r, e);
    if (!ok || !engine_submit(eng, &r->engine, notify, ctx, &g->st, e)) {
        gen_close(&g);
        return false;
    }
    *out = g;
    return true;
}

void gen_close(struct gen **pg)
{
    struct gen *g = *pg;
    if (!g)
        return;
    *pg = NULL;
    engine_stream_close(&g->st);
    for (int32_t i = 0; g->choices && i < g->n_choices; i++) {
        detok_close(&g->choices[i].detok);
        stop_close(&g->choices[i].stop);
    }
    mem_free(g->choices);
    buf_free(&g->raw);
    buf_free(&g->text);
    mem_free(g);
}

/* raw holds new certain text: pass it through the stop matcher.  Returns the index of a match or -1. */
static int show(struct gen *g, struct gen_choice *c)
{
    int match = -1;
    if (c->stop)
        match = stop_feed(c->stop, g->raw.data ? g->raw.data : "", g->raw.len, g->include_stop, &g->text);
    else
        buf_append(&g->text, g->raw.data ? g->raw.data : "", g->raw.len);
    buf_clear(&g->raw);
    return match;
}

/* The choice's text for this event; sets the finish when a stop string completes or all that was held must go. */
static bool add_text(struct gen *g, struct gen_choice *c, bool has_token, struct gen_event *ev, struct err *e)
{
    if (!c->detok)
        return true;
    bool skip = ev->token_is_eos && !g->include_stop;
    if (has_token && !skip && !detok_push(c->detok, ev->token, &g->raw, e))
        return false;
    ev->stop_index = show(g, c);
    if (ev->stop_index < 0 && ev->finish != ENGINE_FINISH_NONE) {
        if (!detok_finish(c->detok, &g->raw, e))
            return false;
        ev->stop_index = show(g, c);
        if (ev->stop_index < 0 && c->stop)
            stop_finish(c->stop, &g->text);
    }
    if (ev->stop_index >= 0) {
        ev->finish = ENGINE_FINISH_STOP;
        ev->stop_token = -1;
    }
    if (g->text.failed)
        return err_set(e, ERR_NOMEM, "out of memory for text");
    return true;
}

static void fail(struct gen *g, struct gen_event *ev, const struct err *e)
{
    engine_stream_cancel(g->st, -1, ENGINE_FINISH_ABORT);
    for (int32_t i = 0; i < g->n_choices; i++)
        g->choices[i].ended = true;
    ev->type = GEN_ERROR;
    ev->error = *e;
}

/* A token or the end of a choice.  False: nothing to tell (the choice was over already). */
static bool on_choice(struct gen *g, const struct engine_event *in, struct gen_event *ev)
{
    struct gen_choice *c = &g->choices[in->choice];
    struct err e;
    if (c->ended)
        return false;
    bool has_token = in->type == ENGINE_EV_TOKEN;
    ev->type = GEN_DELTA;
    ev->choice = in->choice;
    ev->token = has_token ? in->token : -1;
    ev->token_is_eos = has_token && in->is_eos;
    ev->finish = in->finish;
    ev->stop_token = in->stop_token;
    ev->logprob = in->logprob;
    ev->rank = in->rank;
    ev->lp = in->lp;
    ev->cumulative_logprob = in->cumulative_logprob;
    if (has_token)
        c->n_completion++;
    if (!add_text(g, c, has_token, ev, &e)) {
        fail(g, ev, &e);
        return true;
    }
    if (ev->stop_index >= 0 && in->finish == ENGINE_FINISH_NONE)
        engine_stream_cancel(g->st, in->choice, ENGINE_FINISH_STOP);
    c->ended = ev->finish != ENGINE_FINISH_NONE;
    ev->text = g->text.data ? g->text.data : "";
    ev->text_len = g->text.len;
    return true;
}

bool gen_next(struct gen *g, struct gen_event *ev)
{
    struct engine_event in;
    buf_clear(&g->text);
    buf_clear(&g->raw);
    while (engine_stream_next(g->st, &in)) {
        *ev = (struct gen_event){.token = -1, .stop_index = -1, .stop_token = -1, .text = ""};
        switch (in.type) {
        case ENGINE_EV_PROMPT:
            ev->type = GEN_PROMPT;
            ev->pos = in.pos;
            ev->token = in.token;
            ev->logprob = in.logprob;
            ev->rank = in.rank;
            ev->lp = in.lp;
            ev->logits = in.logits;
            return true;
        case ENGINE_EV_HIDDEN:
            ev->type = GEN_PROMPT;
            ev->hidden = in.hidden;
            return true;
        case ENGINE_EV_TOKEN:
        case ENGINE_EV_FINISH:
            if (on_choice(g, &in, ev))
                return true;
            break;
        case ENGINE_EV_DONE:
            ev->type = GEN_DONE;
            return true;
        case ENGINE_EV_ERROR:
            ev->type = GEN_ERROR;
            err_set(&ev->error, in.code, "%s", in.message ? in.message : "");
            return true;
        }
    }
    return false;
}

bool gen_wait(struct gen *g, int64_t timeout_us) { return engine_stream_wait(g->st, timeout_us); }

void gen_cancel(struct gen *g) { engine_stream_cancel(g->st, -1, ENGINE_FINISH_ABORT); }

int32_t gen_n_completion(const struct gen *g, int32_t choice) { return g->choices[choice].n_completion; }

void gen_times(const struct gen *g, struct engine_times *out) { engine_stream_times(g->st, out); }

bool gen_token_text(const struct tok *t, int32_t id, struct buf *out)
{
    size_t len;
    const char *bytes = tok_token_bytes(t, id, &len);
    if (!bytes)
        return true;
    if (!buf_reserve(out, len * 3))
        return false;
    out->len += utf8_lossy(bytes, len, out->data + out->len);
    out->data[out->len] = 0;
    return true;
}

const char *gen_finish_name(enum engine_finish finish)
{
    switch (finish) {
    case ENGINE_FINISH_STOP: return "stop";
    case ENGINE_FINISH_LENGTH: return "length";
    case ENGINE_FINISH_ABORT: return "abort";
    case ENGINE_FINISH_NONE: break;
    }
    return NULL;
}

void gen_default_params(const struct engine *eng, bool use_generation_config, struct sample_params *out)
{
    const struct model_generation *g = engine_generation(eng);
    sample_params_default(out);
    if (!use_generation_config)
        return;
    if (g->has_temperature)
        out->temperature = (float)g->temperature;
    if (g->has_top_p)
        out->top_p = (float)g->top_p;
    if (g->has_top_k)
        out->top_k = (int32_t)g->top_k;
    if (g->has_min_p)
        out->min_p = (float)g->min_p;
    if (g->has_typical_p)
        out->typical_p = (float)g->typical_p;
    if (g->has_repetition_penalty)
        out->repetition_penalty = (float)g->repetition_penalty;
}
