/* The page at /: its files (server/web/, linked in by web.S) and the numbers that its dashboard draws. */
#include <string.h>
#include "base/json.h"
#include "server/server_int.h"

#define FILES(X) \
    X("/", index, "text/html; charset=utf-8") \
    X("/web/style.css", style, "text/css; charset=utf-8") \
    X("/web/app.js", app, "text/javascript; charset=utf-8") \
    X("/web/chat.js", chat, "text/javascript; charset=utf-8") \
    X("/web/markdown.js", markdown, "text/javascript; charset=utf-8") \
    X("/web/live.js", live, "text/javascript; charset=utf-8") \
    X("/web/draw.js", draw, "text/javascript; charset=utf-8") \
    X("/web/icon.svg", icon, "image/svg+xml")

#define DECLARE(path, symbol, type) extern const unsigned char server_web_##symbol[], server_web_##symbol##_end[];
FILES(DECLARE)
#undef DECLARE

static const struct { const char *path, *type; const unsigned char *from, *to; } files[] = {
#define ROW(path, symbol, type) {path, type, server_web_##symbol, server_web_##symbol##_end},
    FILES(ROW)
#undef ROW
};

void server_web_file(void *ctx, struct http_exchange *x)
{
    (void)ctx;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (strcmp(http_path(x), files[i].path) == 0) {
            struct buf out;
            buf_init(&out, 0);
            buf_append(&out, files[i].from, (size_t)(files[i].to - files[i].from));
            http_reply(x, 200, files[i].type, &out);
            return;
        }
    struct api_error e;
    api_fail_status(&e, 404, "there is no such file");
    http_reply_error(x, &e);
}

/* ---- /web/state, or /web/state/MODEL: what the dashboard draws; a page's own business, so it may change with it ---- */

static void write_hist(struct buf *out, const char *name, const struct engine_hist *h)
{
    buf_printf(out, ",\"%s\":{\"bounds\":[", name);
    for (int i = 0; i < h->n; i++)
        buf_printf(out, "%s%.10g", i ? "," : "", h->bounds[i]);
    buf_puts(out, "],\"counts\":[");
    for (int i = 0; i <= h->n; i++)
        buf_printf(out, "%s%llu", i ? "," : "", (unsigned long long)h->counts[i]);
    buf_printf(out, "],\"sum\":%.9g,\"total\":%llu}", h->sum, (unsigned long long)h->total);
}

static void write_counters(struct buf *out, const struct engine_metrics *m)
{
    const struct { const char *name; unsigned long long n; } rows[] = {
        {"running", (unsigned)m->num_requests_running}, {"waiting", (unsigned)m->num_requests_waiting},
        {"pages_total", (unsigned)m->blocks_total}, {"pages_free", (unsigned)m->blocks_free},
        {"pages_cached", (unsigned)m->blocks_cached}, {"pages_held", (unsigned)m->blocks_held},
        {"prefix_queries", m->prefix_cache_queries}, {"prefix_hits", m->prefix_cache_hits}, {"preemptions", m->num_preemptions},
        {"prompt_tokens", m->prompt_tokens}, {"generation_tokens", m->generation_tokens},
        {"finished_stop", m->success_stop}, {"finished_length", m->success_length}, {"finished_abort", m->success_abort},
        {"errors", m->requests_error},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        buf_printf(out, ",\"%s\":%llu", rows[i].name, rows[i].n);
    buf_printf(out, ",\"step_seconds\":%.9g,\"forward_seconds\":%.9g,\"sample_seconds\":%.9g,\"schedule_seconds\":%.9g", m->step_seconds,
               m->forward_seconds, m->sample_seconds, m->schedule_seconds);
    write_hist(out, "ttft", &m->ttft);
    write_hist(out, "itl", &m->itl);
    write_hist(out, "e2e", &m->e2e);
    write_hist(out, "queue", &m->queue_time);
}

/* Runs of equal pages: [state, count, state, count, ...]. */
static void write_pages(struct buf *out, const struct engine_view *v)
{
    buf_puts(out, ",\"pages\":[");
    for (int32_t i = 0, n; i < v->n_pages; i += n) {
        for (n = 1; i + n < v->n_pages && v->pages[i + n] == v->pages[i];)
            n++;
        buf_printf(out, "%s%d,%d", i ? "," : "", v->pages[i], n);
    }
    buf_putc(out, ']');
}

/* [start, schedule, forward, sample, emit, tokens, prefill tokens, sequences], oldest first. */
static void write_steps(struct buf *out, const struct engine_view *v)
{
    buf_printf(out, ",\"n_steps\":%llu,\"steps\":[", (unsigned long long)v->n_steps);
    for (int32_t i = 0; i < v->n_kept; i++) {
        const struct engine_step *s = &v->steps[i];
        buf_printf(out, "%s[%lld,%d,%d,%d,%d,%d,%d,%d]", i ? "," : "", (long long)s->start_us, s->schedule_us, s->forward_us, s->sample_us,
                   s->emit_us, s->n_tokens, s->n_prefill, s->n_seqs);
    }
    buf_putc(out, ']');
}

static void write_info(struct buf *out, const struct engine_info *i)
{
    buf_puts(out, ",\"info\":{\"architecture\":");
    json_write_str(out, i->architecture, strlen(i->architecture));
    buf_printf(out,
               ",\"version\":\"" QUIRE_VERSION "\",\"weights\":\"%s\",\"kv_dtype\":\"%s\",\"device\":\"%s\",\"isa\":\"%s\",\"threads\":%d,"
               "\"max_model_len\":%d,\"max_num_seqs\":%d,\"page_tokens\":%d,\"params\":%lld}",
               i->weight_formats, i->kv_dtype, i->device, i->isa, i->n_threads, i->max_model_len, i->max_num_seqs, i->block_tokens,
               (long long)i->n_params);
}

static void write_name(void *ctx, const struct server_model_view *v)
{
    struct buf *out = ctx;
    if (out->len > 0 && out->data[out->len - 1] == '}')
        buf_putc(out, ',');
    buf_puts(out, "{\"name\":");
    json_write_str(out, v->name, strlen(v->name));
    buf_printf(out, ",\"state\":\"%s\"}", v->state);
}

/* The part of one model's engine; false: no memory. */
static bool write_engine(struct buf *out, struct engine *eng, struct err *e)
{
    struct engine_view *v;
    struct engine_metrics m;
    if (!engine_view_open(eng, &v, e))
        return false;
    engine_metrics(eng, &m);
    buf_printf(out, ",\"now_us\":%lld", (long long)v->now_us);
    write_info(out, engine_info(eng));
    write_counters(out, &m);
    write_steps(out, v);
    write_pages(out, v);
    engine_view_close(&v);
    return true;
}

void server_web_state(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    const char *name = http_path(x) + strlen("/web/state");
    struct buf out;
    struct err err;
    bool ok = true;
    buf_init(&out, 0);
    buf_puts(&out, "{\"models\":[");
    server_models_visit(s->models, write_name, &out);
    buf_putc(&out, ']');
    struct server_model *m = server_models_peek(s->models, *name == '/' ? name + 1 : name);
    if (m) {
        buf_puts(&out, ",\"model\":");
        const char *text = api_model_name(server_model_api(m));
        json_write_str(&out, text, strlen(text));
        ok = write_engine(&out, server_model_engine(m), &err);
        server_model_leave(m);
    }
    buf_putc(&out, '}');
    if (ok) {
        http_reply(x, 200, "application/json", &out);
        return;
    }
    struct api_error e;
    buf_free(&out);
    api_fail_err(&e, NULL, &err);
    http_reply_error(x, &e);
}
