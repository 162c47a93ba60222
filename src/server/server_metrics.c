/* The page of /metrics.  Names and buckets: INTERFACES 0.2 and 3.1. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/mem.h"
#include "server/http_keys.h"
#include "server/server_int.h"
#include "server/server_page.h"

/* vllm_names: further names, separated by spaces, that mean the same to vLLM's dashboards, old and new. */
static void value(struct server_page *p, const char *name, const char *type, double v, const char *vllm_names, const char *help)
{
    server_page_one(p, "quire:", name, type, v, help);
    for (const char *at = vllm_names; p->vllm && at && *at;) {
        char alias[96];
        size_t len = strcspn(at, " ");
        snprintf(alias, sizeof alias, "%.*s", (int)len, at);
        server_page_one(p, "vllm:", alias, type, v, help);
        at += len + (at[len] == ' ');
    }
}

static void hist_as(struct server_page *p, const char *prefix, const char *name, const struct engine_hist *h, const char *help)
{
    server_page_head(p, prefix, name, "histogram", help);
    server_page_engine_hist(p, prefix, name, NULL, h);
}

static void hist(struct server_page *p, const char *name, const struct engine_hist *h, const char *help)
{
    hist_as(p, "quire:", name, h, help);
    if (p->vllm)
        hist_as(p, "vllm:", name, h, help);
}

static void finished_as(struct server_page *p, const char *prefix, const struct engine_metrics *m)
{
    const struct { const char *reason; uint64_t n; } rows[] = {
        {"stop", m->success_stop}, {"length", m->success_length}, {"abort", m->success_abort},
    };
    server_page_head(p, prefix, "request_success_total", "counter", "Requests that ended, by why.");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        buf_printf(p->out, "%srequest_success_total{%s,finished_reason=\"%s\"} %llu\n", prefix, p->labels, rows[i].reason,
                   (unsigned long long)rows[i].n);
}

static void write_engine(struct server_page *p, const struct engine_metrics *m)
{
    value(p, "num_requests_running", "gauge", m->num_requests_running, "num_requests_running", "Sequences being computed.");
    value(p, "num_requests_waiting", "gauge", m->num_requests_waiting, "num_requests_waiting", "Requests waiting for room.");
    value(p, "kv_cache_usage_perc", "gauge", m->kv_cache_usage, "kv_cache_usage_perc gpu_cache_usage_perc",
          "Share of KV pages that running sequences hold, 0 to 1.");
    value(p, "kv_blocks_total", "gauge", m->blocks_total, NULL, "KV pages.");
    value(p, "kv_blocks_free", "gauge", m->blocks_free, NULL, "KV pages that hold nothing.");
    value(p, "kv_blocks_cached", "gauge", m->blocks_cached, NULL, "KV pages that hold evictable prefixes.");
    value(p, "kv_blocks_held", "gauge", m->blocks_held, NULL, "KV pages of running sequences.");
    value(p, "prefix_cache_queries_total", "counter", (double)m->prefix_cache_queries, "prefix_cache_queries_total gpu_prefix_cache_queries_total",
          "Prompt tokens looked up in the prefix cache.");
    value(p, "prefix_cache_hits_total", "counter", (double)m->prefix_cache_hits, "prefix_cache_hits_total gpu_prefix_cache_hits_total",
          "Prompt tokens found in the prefix cache.");
    value(p, "num_preemptions_total", "counter", (double)m->num_preemptions, "num_preemptions_total", "Sequences that gave their pages up.");
    value(p, "prompt_tokens_total", "counter", (double)m->prompt_tokens, "prompt_tokens_total", "Prompt tokens of requests that ended.");
    value(p, "generation_tokens_total", "counter", (double)m->generation_tokens, "generation_tokens_total", "Tokens generated.");
    value(p, "request_errors_total", "counter", (double)m->requests_error, NULL, "Requests that ended with an error.");
    value(p, "guided_forced_tokens_total", "counter", (double)m->forced_tokens, NULL, "Tokens that structured output left no choice about, which no step was made for.");
    value(p, "steps_total", "counter", (double)m->n_steps, NULL, "Steps of the engine.");
    value(p, "step_seconds_total", "counter", m->step_seconds, NULL, "Time in steps.");
    value(p, "forward_seconds_total", "counter", m->forward_seconds, NULL, "Time in the forward pass.");
    value(p, "sample_seconds_total", "counter", m->sample_seconds, NULL, "Time sampling.");
    value(p, "schedule_seconds_total", "counter", m->schedule_seconds, NULL, "Time scheduling.");
    finished_as(p, "quire:", m);
    if (p->vllm)
        finished_as(p, "vllm:", m);
    hist(p, "request_prompt_tokens", &m->prompt_len, "Prompt tokens of a request.");
    hist(p, "request_prefill_kv_computed_tokens", &m->prefill_computed, "Prompt tokens of a request that were not found in the prefix cache.");
    hist(p, "request_generation_tokens", &m->generation_len, "Generated tokens of a request.");
    hist(p, "request_max_num_generation_tokens", &m->max_generation_len, "Tokens of a request's longest choice.");
    hist(p, "request_params_n", &m->params_n, "Choices asked for.");
    hist(p, "request_params_max_tokens", &m->params_max_tokens, "New tokens allowed.");
    hist(p, "iteration_tokens_total", &m->iteration_tokens, "Tokens of a step.");
    hist(p, "time_to_first_token_seconds", &m->ttft, "From submission to the first token.");
    hist(p, "inter_token_latency_seconds", &m->itl, "Between two tokens of a choice.");
    hist(p, "time_per_output_token_seconds", &m->time_per_output_token, "Mean time between tokens of a request.");
    hist(p, "e2e_request_latency_seconds", &m->e2e, "From submission to the end.");
    hist(p, "request_queue_time_seconds", &m->queue_time, "From submission to the first step.");
    hist(p, "request_inference_time_seconds", &m->inference_time, "From the first step to the last token.");
    hist(p, "request_prefill_time_seconds", &m->prefill_time, "From the first step to the first token.");
    hist(p, "request_decode_time_seconds", &m->decode_time, "From the first token to the last.");
    if (p->vllm)
        hist_as(p, "vllm:", "request_time_per_output_token_seconds", &m->time_per_output_token, "Mean time between tokens of a request.");
}

static void cache_info(struct server_page *p, const char *prefix, const struct engine_info *info, bool caching)
{
    server_page_head(p, prefix, "cache_config_info", "gauge", "How the KV cache is set up.");
    buf_printf(p->out,
               "%scache_config_info{%s,block_size=\"%d\",num_gpu_blocks=\"%d\",num_kv_blocks=\"%d\",cache_dtype=\"%s\",enable_prefix_caching=\"%s\"} 1\n",
               prefix, p->labels, info->block_tokens, info->n_blocks, info->n_blocks, info->kv_dtype, caching ? "True" : "False");
}

/* labels: "", or what tells one model's line from another's. */
static void write_info(struct server_page *p, const struct engine_info *info, const char *labels)
{
    cache_info(p, "quire:", info, info->prefix_caching);
    if (p->vllm)
        cache_info(p, "vllm:", info, info->prefix_caching);
    server_page_head(p, "quire:", "build_info", "gauge", "The program and what it runs on.");
    buf_printf(p->out, "quire:build_info{version=\"" QUIRE_VERSION "\",device=\"%s\",isa=\"%s\",dtype=\"%s\",threads=\"%d\"%s%s} 1\n", info->device,
               info->isa, info->dtype, info->n_threads, *labels ? "," : "", labels);
}

/* ---- the process, named as Prometheus' client libraries do ---- */

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

static double virtual_bytes(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void plain(struct server_page *p, const char *name, const char *type, double v, const char *help)
{
    server_page_head(p, "", name, type, help);
    buf_printf(p->out, "%s ", name);
    server_page_number(p->out, v);
}

static void write_process(struct server_page *p, const struct server *s)
{
    struct rusage ru;
    struct rlimit rl = {0};
    getrusage(RUSAGE_SELF, &ru);
    getrlimit(RLIMIT_NOFILE, &rl);
    double cpu = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
    plain(p, "process_cpu_seconds_total", "counter", cpu, "User and system time.");
    plain(p, "process_resident_memory_bytes", "gauge", (double)mem_rss_bytes(), "Memory in RAM.");
    plain(p, "process_virtual_memory_bytes", "gauge", virtual_bytes(), "Address space.");
    plain(p, "process_start_time_seconds", "gauge", (double)s->start_unix_s, "Start of serving, since 1970.");
    plain(p, "process_open_fds", "gauge", open_fds(), "Open descriptors.");
    plain(p, "process_max_fds", "gauge", (double)rl.rlim_cur, "Descriptors allowed.");
}

/* A route that nobody has asked for yet has no samples. */
static void write_route(struct server_page *p, const struct http *h, int i, const char *name)
{
    struct http_route_stats r;
    uint64_t below = 0;
    http_route_stats(h, i, &r);
    for (int k = 0; k <= HTTP_DURATION_BUCKETS; k++)
        below += r.buckets[k];
    if (below == 0)
        return;
    below = 0;
    for (int k = 0; k < HTTP_DURATION_BUCKETS; k++) {
        below += r.buckets[k];
        buf_printf(p->out, "%s_bucket{handler=\"%s\",le=\"%.10g\"} %llu\n", name, r.path, http_duration_bounds[k], (unsigned long long)below);
    }
    below += r.buckets[HTTP_DURATION_BUCKETS];
    buf_printf(p->out, "%s_bucket{handler=\"%s\",le=\"+Inf\"} %llu\n%s_sum{handler=\"%s\"} ", name, r.path, (unsigned long long)below, name, r.path);
    server_page_number(p->out, r.sum_s);
    buf_printf(p->out, "%s_count{handler=\"%s\"} %llu\n", name, r.path, (unsigned long long)below);
}

static const char *const classes[] = {"cut", "1xx", "2xx", "3xx", "4xx", "5xx"};

/* As vLLM's own HTTP server names them. */
static void write_http_vllm(struct server_page *p, const struct http *h)
{
    struct http_route_stats r;
    server_page_head(p, "", "http_requests_total", "counter", "HTTP requests answered, by route and class of status.");
    for (int i = 0; i < http_n_routes(h); i++) {
        http_route_stats(h, i, &r);
        for (int k = 1; k < 6; k++)
            if (r.n_by_class[k])
                buf_printf(p->out, "http_requests_total{handler=\"%s\",status=\"%s\"} %llu\n", r.path, classes[k], (unsigned long long)r.n_by_class[k]);
    }
    server_page_head(p, "", "http_request_duration_seconds", "histogram", "From a request's headers to the end of its answer, by route.");
    for (int i = 0; i < http_n_routes(h); i++)
        write_route(p, h, i, "http_request_duration_seconds");
}

static void write_http(struct server_page *p, const struct server *s)
{
    struct http_stats st;
    http_stats(s->http, &st);
    server_page_head(p, "quire:", "http_requests_total", "counter", "HTTP requests answered, by class of status; cut: none was sent.");
    for (int i = 0; i < 6; i++)
        buf_printf(p->out, "quire:http_requests_total{status=\"%s\"} %llu\n", classes[i], (unsigned long long)st.n_by_class[i]);
    plain(p, "quire:http_connections", "gauge", (double)st.n_connections, "Open connections.");
    server_page_head(p, "quire:", "http_request_duration_seconds", "histogram", "From a request's headers to the end of its answer, by route.");
    for (int i = 0; i < http_n_routes(s->http); i++)
        write_route(p, s->http, i, "quire:http_request_duration_seconds");
    if (p->vllm)
        write_http_vllm(p, s->http);
    if (st.certificate_expires_s)
        plain(p, "quire:tls_certificate_expiry_seconds", "gauge", (double)st.certificate_expires_s, "When the certificate expires, since 1970.");
    plain(p, "quire:log_lines_lost_total", "counter", (double)st.n_lost_lines, "Log lines that could not be written.");
    plain(p, "quire:http_requests_active", "gauge", (double)st.n_active, "Generation requests in progress.");
}

/* ---- keys: by the holder's name, never the secret ---- */

struct key_rows { struct http_key_view *v; char (*names)[80]; int n, cap; };

static void note_key(void *ctx, const struct http_key_view *v)
{
    struct key_rows *r = ctx;
    if (!r->v) {
        r->cap++;
        return;
    }
    if (r->n == r->cap)
        return;
    snprintf(r->names[r->n], sizeof r->names[0], "%s", v->name);
    r->v[r->n++] = *v;
}

static void key_family(struct server_page *p, const struct key_rows *r, const char *name, const char *type, const char *help,
                       double (*get)(const struct http_key_view *v))
{
    server_page_head(p, "quire:", name, type, help);
    for (int i = 0; i < r->n; i++) {
        buf_printf(p->out, "quire:%s{key=\"%s\"} ", name, r->names[i]);
        server_page_number(p->out, get(&r->v[i]));
    }
}

static double key_requests(const struct http_key_view *v) { return (double)v->n_requests; }
static double key_refused(const struct http_key_view *v) { return (double)v->n_refused; }
static double key_prompt(const struct http_key_view *v) { return (double)v->prompt_tokens; }
static double key_generated(const struct http_key_view *v) { return (double)v->generated_tokens; }
static double key_active(const struct http_key_view *v) { return (double)v->n_active; }

static void write_keys(struct server_page *p, const struct server *s)
{
    struct http_keys *keys = http_keys_of(s->http);
    struct key_rows r = {0};
    if (!keys)
        return;
    http_keys_visit(keys, note_key, &r);
    r.names = mem_try_zalloc((size_t)r.cap, sizeof *r.names);
    r.v = r.names ? mem_try_zalloc((size_t)r.cap, sizeof *r.v) : NULL;
    if (r.v) {
        http_keys_visit(keys, note_key, &r);
        key_family(p, &r, "api_key_requests_total", "counter", "Generation requests taken, by whose key they had.", key_requests);
        key_family(p, &r, "api_key_refused_total", "counter", "Requests over a limit of the key.", key_refused);
        key_family(p, &r, "api_key_prompt_tokens_total", "counter", "Prompt tokens of requests that ended.", key_prompt);
        key_family(p, &r, "api_key_generation_tokens_total", "counter", "Tokens generated for requests that ended.", key_generated);
        key_family(p, &r, "api_key_requests_active", "gauge", "Generation requests in progress.", key_active);
    } else {
        p->out->failed = true;
    }
    mem_free(r.v);
    mem_free(r.names);
}

/* ---- pages of several models ---- */

static void write_models_info(struct server_page *p, const struct server_model_view *v)
{
    server_page_one(p, "quire:", "model_loaded", "gauge", v->info != NULL, "Whether the model is loaded.");
    server_page_one(p, "quire:", "model_loads_total", "counter", (double)v->n_loads, "Times the model was loaded.");
    server_page_one(p, "quire:", "model_load_failures_total", "counter", (double)v->n_failures, "Times it could not be loaded.");
    server_page_one(p, "quire:", "model_load_seconds_total", "counter", v->load_s, "Time spent loading it.");
    server_page_one(p, "quire:", "model_requests_parked", "gauge", v->n_parked, "Requests that wait for it to be loaded.");
}

struct pages { struct buf *texts; int n, cap; bool vllm, tgi, one; uint64_t n_turned_away; };

static void write_page(void *ctx, const struct server_model_view *v)
{
    struct pages *all = ctx;
    struct buf labels;
    if (all->n == all->cap)
        return;
    struct server_page p = {.out = &all->texts[all->n++], .vllm = all->vllm};
    buf_init(&labels, 0);
    buf_puts(&labels, "model_name=\"");
    server_page_label(&labels, v->name);
    buf_puts(&labels, "\",engine=\"0\"");
    p.labels = labels.failed ? "engine=\"0\"" : labels.data;
    write_engine(&p, &v->metrics);
    if (all->tgi)
        server_write_tgi(&p, v, all->one ? all->n_turned_away : 0);
    if (!all->one)
        write_models_info(&p, v);
    if (v->info)
        write_info(&p, v->info, all->one ? "" : p.labels);
    buf_free(&labels);
}

/* The family that begins at text: its name, where its samples begin, and where it ends. */
struct family { const char *name, *samples, *end; size_t name_len; };

static bool next_family(const char **text, struct family *f)
{
    if (!*text || !**text)
        return false;
    f->name = *text + strlen("# HELP ");
    f->name_len = strcspn(f->name, " ");
    const char *type = strchr(f->name, '\n');
    f->samples = type && strchr(type + 1, '\n') ? strchr(type + 1, '\n') + 1 : f->name + strlen(f->name);
    const char *next = strstr(f->samples - 1, "\n# HELP ");
    f->end = next ? next + 1 : f->samples + strlen(f->samples);
    *text = f->end;
    return true;
}

/* Whether an earlier page has the family, so that it was written already. */
static bool written(const struct pages *all, int page, const struct family *f)
{
    struct family g;
    for (int i = 0; i < page; i++)
        for (const char *at = all->texts[i].data; next_family(&at, &g);)
            if (g.name_len == f->name_len && memcmp(g.name, f->name, g.name_len) == 0)
                return true;
    return false;
}

/* A family's head stands once, above the samples of all models. */
static void merge(const struct pages *all, struct buf *out)
{
    struct family f, g;
    for (int i = 0; i < all->n; i++)
        for (const char *at = all->texts[i].data; next_family(&at, &f);) {
            if (written(all, i, &f))
                continue;
            buf_append(out, f.name - strlen("# HELP "), (size_t)(f.end - f.name) + strlen("# HELP "));
            for (int k = i + 1; k < all->n; k++)
                for (const char *other = all->texts[k].data; next_family(&other, &g);)
                    if (g.name_len == f.name_len && memcmp(g.name, f.name, g.name_len) == 0)
                        buf_append(out, g.samples, (size_t)(g.end - g.samples));
        }
}

static void count(void *ctx, const struct server_model_view *v)
{
    (void)v;
    ++*(int *)ctx;
}

/* Requests for text that found no room before anybody looked at them. */
static uint64_t turned_away(const struct server *s)
{
    uint64_t n = 0;
    for (int i = 0; i < s->n_routes; i++) {
        struct http_route_stats r;
        http_route_stats(s->http, i, &r);
        n += s->routes[i].flags & SERVER_GENERATES ? r.n_turned_away : 0;
    }
    return n;
}

/* What reached none of several models. */
static void write_modelless(struct pages *all, struct server *s)
{
    struct server_page p = {.out = &all->texts[all->n++], .labels = "model_name=\"\""};
    server_write_tgi_modelless(&p, &s->tgi, all->n_turned_away);
}

void server_write_metrics(struct server *s, struct buf *out)
{
    struct server_page p = {.out = out, .vllm = s->o.metrics_vllm};
    struct pages all = {.vllm = s->o.metrics_vllm, .tgi = s->o.metrics_tgi, .one = server_models_is_one(s->models),
                        .n_turned_away = turned_away(s)};
    server_models_visit(s->models, count, &all.cap);
    all.texts = mem_try_zalloc((size_t)all.cap + 1, sizeof *all.texts);
    if (!all.texts) {
        out->failed = true;
        return;
    }
    server_models_visit(s->models, write_page, &all);
    if (all.tgi && !all.one)
        write_modelless(&all, s);
    for (int i = 0; i < all.n; i++)
        out->failed |= all.texts[i].failed;
    merge(&all, out);
    for (int i = 0; i < all.n; i++)
        buf_free(&all.texts[i]);
    mem_free(all.texts);
    write_http(&p, s);
    write_keys(&p, s);
    write_process(&p, s);
}
