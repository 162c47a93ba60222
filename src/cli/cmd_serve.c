/* quire serve: the HTTP server. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/sd_notify.h"
#include "server/server.h"

/* Readers see a tenth of a second as flowing; prompts cost hardly more in chunks of that length. */
enum { STEP_TARGET_MS = 100 };

struct serve {
    struct cli_engine_flags flags;
    const char *host, *chat_template, *tool_parser, *reasoning_parser, *generation_config, *key_file, *cert_file, *tls_key_file, *ca_file, *access_log_path;
    int32_t cert_reqs, max_per_ip, body_timeout;
    struct api_limits limits;
    struct cli_watermark_flags watermark;
    const char *pooling, *files_dir;
    int64_t files_max_bytes;
    double model_idle_timeout;
    struct cli_list keys, names, origins, compat, models;
    struct cli_models several;
    int32_t max_loaded;
    int32_t port, max_connections, max_concurrent, max_queue, http_threads, idle_timeout;
    int64_t max_body_bytes;
    double request_timeout, drain_timeout, stall_timeout;
    bool metrics_public, request_id_headers, prompt_tokens_details, auto_tools;

    struct log *log, *access_log;
    struct engine *eng;
    struct server *server;
    char *template, *given_name; size_t template_len;
};

/* ---- signals ---- */

static volatile sig_atomic_t n_signals, n_reloads;
static int signal_fd = -1;

/* Of those that ask for an end the first asks for a drain, the second ends the process at once. */
static void on_signal(int sig)
{
    int saved = errno;
    uint64_t one = 1;
    if (sig == SIGHUP)
        n_reloads = 1;
    else if (++n_signals > 1)
        _exit(128 + sig);
    if (write(signal_fd, &one, sizeof one) < 0) {
        /* Nothing to be done here; the counters tell as well. */
    }
    errno = saved;
}

static bool catch_signals(struct err *e)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signal_fd < 0)
        return err_set(e, ERR_IO, "eventfd: %s", strerror(errno));
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    return true;
}

/* Until a signal comes, or timeout_us has passed (< 0: no bound). */
static void wait_for_signal(int64_t timeout_us)
{
    struct pollfd p = {.fd = signal_fd, .events = POLLIN};
    uint64_t n;
    int ms = timeout_us < 0 ? -1 : timeout_us > INT32_MAX ? INT32_MAX : (int)((timeout_us + 999) / 1000);
    if (poll(&p, 1, ms) > 0 && read(signal_fd, &n, sizeof n) < 0) {
        /* Another wait will see it. */
    }
}

/* ---- opening ---- */

/* Every connection is a descriptor: take as many as the system lets us. */
static void raise_fd_limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

static bool open_engine(struct serve *s, const char *model, struct err *e)
{
    struct engine_opts o;
    struct cli_progress bar;
    if (!cli_engine_opts(&s->flags, model, &o, &s->log, e))
        return false;
    o.max_queue = s->max_queue;
    cli_progress_begin(&bar, "loading");
    o.progress = cli_progress_update;
    o.progress_ctx = &bar;
    bool ok = engine_open(&s->eng, &o, e);
    cli_progress_end(&bar);
    return ok;
}

/* One model is loaded at once, with a name if it was given one; several when they are asked for. */
static bool open_models(struct serve *s, const char *model, struct err *e)
{
    if (s->models.n > 1 || (s->models.n == 1 && s->model_idle_timeout > 0))
        return cli_models_open(&s->several, &s->models, s->max_loaded, &s->flags, &s->log, e);
    if (s->models.n == 1) {
        char *name = cli_model_name(s->models.items[0], &model);
        if (!name)
            return err_set(e, ERR_NOMEM, "out of memory");
        s->given_name = name;
        if (!s->names.n && model != s->models.items[0]) {
            s->names.items = mem_try_zalloc(1, sizeof *s->names.items);
            if (!s->names.items)
                return err_set(e, ERR_NOMEM, "out of memory");
            s->names.items[s->names.n++] = name;
        }
    }
    return open_engine(s, model, e);
}

static bool fill_server_opts(struct serve *s, struct server_opts *o, struct err *e)
{
    server_opts_default(o);
    o->api.engine = s->eng;
    o->models = (struct server_models_opts){.models = s->several.models, .n_models = s->several.n, .max_loaded = s->several.max_loaded, .max_parked = s->max_queue};
    o->api.log = s->log;
    o->api.served_names = s->names.items;
    o->api.n_served_names = s->names.n;
    o->api.prompt_tokens_details = s->prompt_tokens_details;
    o->api.request_timeout_us = (int64_t)(s->request_timeout * 1e6);
    o->api.use_generation_config = strcmp(s->generation_config, "auto") == 0;
    if (!o->api.use_generation_config && strcmp(s->generation_config, "none") != 0)
        return err_set(e, ERR_INVALID, "--generation-config: '%s' is neither auto nor none", s->generation_config);
    for (int i = 0; i < s->compat.n; i++) {
        const char *at = s->compat.items[i];   /* names, with commas between them */
        for (size_t n = 0; *at; at += n + (at[n] == ',')) {
            n = strcspn(at, ",");
            bool vllm = n == 4 && memcmp(at, "vllm", 4) == 0, tgi = n == 3 && memcmp(at, "tgi", 3) == 0;
            if (!vllm && !tgi)
                return err_set(e, ERR_INVALID, "--metrics-compat: '%.*s' is neither vllm nor tgi", (int)n, at);
            o->metrics_vllm |= vllm;
            o->metrics_tgi |= tgi;
        }
    }
    for (int i = 0; i < s->keys.n; i++)
        if (!s->keys.items[i][0])
            return err_set(e, ERR_INVALID, "--api-key must not be empty");
    if (s->chat_template) {
        s->template = cli_read(s->chat_template, &s->template_len, e);
        if (!s->template)
            return false;
        o->api.chat_template = s->template;
        o->api.chat_template_len = s->template_len;
    }
    o->api.tool_parser = s->tool_parser;
    o->api.reasoning_parser = s->reasoning_parser;
    o->api.no_auto_tools = !s->auto_tools;
    o->api.limits = s->limits;
    o->files_dir = s->files_dir;
    o->files_max_bytes = (size_t)s->files_max_bytes;
    o->api.pooling = strcmp(s->pooling, "mean") == 0 ? ENGINE_POOL_MEAN : strcmp(s->pooling, "cls") == 0 ? ENGINE_POOL_FIRST : ENGINE_POOL_LAST;
    if (o->api.pooling == ENGINE_POOL_LAST && strcmp(s->pooling, "last") != 0)
        return err_set(e, ERR_INVALID, "--pooling: '%s' is not last, mean or cls", s->pooling);
    if (!cli_watermark(&s->watermark, &o->api.watermark, e))
        return false;
    o->models.idle_us = (int64_t)(s->model_idle_timeout * 1e6);
    o->metrics_public = s->metrics_public;
    o->stall_us = (int64_t)(s->stall_timeout * 1e6);
    o->http.host = s->host;
    o->http.port = s->port;
    o->http.n_threads = s->http_threads;
    o->http.n_workers = s->http_threads < 2 ? 2 : s->http_threads;
    o->http.max_connections = s->max_connections;
    o->http.max_connections_per_ip = s->max_per_ip;
    o->http.body_timeout_s = s->body_timeout;
    o->http.max_concurrent = s->max_concurrent;
    o->http.max_body_bytes = (size_t)s->max_body_bytes;
    o->http.idle_timeout_s = s->idle_timeout;
    o->http.keys = s->keys.items;
    o->http.n_keys = s->keys.n;
    o->http.key_file = s->key_file;
    o->http.access_log = s->access_log;
    o->http.tls = (struct http_tls_opts){.cert_file = s->cert_file, .key_file = s->tls_key_file, .ca_file = s->ca_file};
    int reqs = s->cert_reqs < 0 ? (s->ca_file ? 2 : 0) : s->cert_reqs;
    if (reqs > 0 && !s->ca_file)
        return err_set(e, ERR_INVALID, "--ssl-cert-reqs %d needs --ssl-ca-certs, the authorities that clients' certificates are checked with", reqs);
    o->http.tls.client_certs = reqs == 2 ? HTTP_TLS_CLIENT_REQUIRED : reqs == 1 ? HTTP_TLS_CLIENT_OPTIONAL : HTTP_TLS_CLIENT_NONE;
    o->http.origins = s->origins.items;
    o->http.n_origins = s->origins.n;
    o->http.request_id_headers = s->request_id_headers;
    return true;
}

static void print_model(const struct serve *s)
{
    const struct engine_info *info = s->eng ? engine_info(s->eng) : NULL;
    printf("quire serves ");
    for (int i = 0; i < s->several.n; i++)
        printf("%s%s", i ? ", " : "", s->several.names[i]);
    if (info)
        printf("%s (%s, %s, context %d, %d KV pages of %d tokens, %d threads)", s->names.n ? s->names.items[0] : info->model_name, info->architecture,
               info->dtype, info->max_model_len, info->n_blocks - 1, info->block_tokens, info->n_threads);
    else
        printf(" (each loaded when it is first asked for, at most %d at once)", s->several.max_loaded);
}

static void print_banner(const struct serve *s)
{
    bool v6 = strchr(s->host, ':') != NULL, any = strcmp(s->host, "0.0.0.0") == 0 || strcmp(s->host, "::") == 0;
    char url[300];
    snprintf(url, sizeof url, "%s://%s%s%s:%d", s->cert_file ? "https" : "http", v6 && !any ? "[" : "", any ? "127.0.0.1" : s->host, v6 && !any ? "]" : "",
             server_port(s->server));
    print_model(s);
    printf(" at %s\n\n"
           "try:  curl %s/v1/completions -H 'Content-Type: application/json' %s\\\n"
           "           -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 64, \"temperature\": 0}'\n"
           "or open %s/ in a browser\n\n",
           url, url, s->keys.n || s->key_file ? "-H 'Authorization: Bearer KEY' " : "", url);
    fflush(stdout);
}

/* ---- closing ---- */

/* The sign of life that systemd wants, when it is due and there is life. */
static void watch_over(struct serve *s, int64_t now_us, int64_t *pinged_us)
{
    int64_t every = sd_notify_watchdog_us();
    struct err why;
    if (!every || now_us - *pinged_us < every)
        return;
    *pinged_us = now_us;
    if (server_alive(s->server, &why))
        sd_notify_send("WATCHDOG=1");
    else
        log_error(s->log, "serve", "not alive: %s", why.msg);
}

/* What runs may finish within drain_timeout; then it is cut. */
static void drain(struct serve *s)
{
    int64_t until = clock_now_us() + (int64_t)(s->drain_timeout * 1e6);
    log_info(s->log, "serve", "draining: no new requests, those running have %.0f s", s->drain_timeout);
    sd_notify_send("STOPPING=1\nSTATUS=finishing what runs");
    server_drain(s->server);
    for (int64_t pinged = 0, now; !server_idle(s->server) && (now = clock_now_us()) < until; poll(NULL, 0, 20))
        watch_over(s, now, &pinged);
    log_info(s->log, "serve", server_idle(s->server) ? "all requests finished" : "requests were cut off by --drain-timeout");
}

/* ---- running ---- */

/* Files are looked at so often; systemd's watchdog has its own rhythm. */
static const int64_t LOOK_US = 2000000;

static void reload(struct serve *s, const char *why)
{
    struct err e;
    char ready[64];
    snprintf(ready, sizeof ready, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_now_us());
    sd_notify_send(ready);
    if (server_reload(s->server, &e))
        log_info(s->log, "serve", "keys and certificates were read again (%s)", why);
    else
        log_error(s->log, "serve", "keys or certificates stay as they were (%s): %s", why, e.msg);
    if (!log_reopen(s->access_log, &e))
        log_error(s->log, "serve", "the access log stays as it was: %s", e.msg);
    sd_notify_send("READY=1");
}

/* SIGHUP also comes when the terminal that the server was started from is closed. */
static bool terminal_gone(bool had_terminal)
{
    struct pollfd p = {.fd = STDIN_FILENO};
    return had_terminal && poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR | POLLNVAL);
}

/* Until SIGTERM or SIGINT, or until the terminal is closed. */
static void run(struct serve *s, bool had_terminal)
{
    bool files = s->key_file || s->cert_file;
    int64_t watchdog = sd_notify_watchdog_us(), pinged = 0, looked = clock_now_us();
    sd_notify_send("READY=1\nSTATUS=serving");
    while (n_signals == 0) {
        int64_t now = clock_now_us(), wait = files ? LOOK_US : -1;
        if (n_reloads && terminal_gone(had_terminal)) {
            log_info(s->log, "serve", "the terminal was closed");
            return;
        }
        if (n_reloads) {
            n_reloads = 0;
            reload(s, "SIGHUP");
            looked = now;
        } else if (files && now - looked >= LOOK_US) {
            looked = now;
            if (server_files_changed(s->server))
                reload(s, "a file has changed");
        }
        watch_over(s, now, &pinged);
        wait = watchdog && (wait < 0 || watchdog < wait) ? watchdog : wait;
        wait_for_signal(wait);
    }
}

static bool open_access_log(struct serve *s, struct err *e)
{
    enum log_format format = strcmp(s->flags.log_format, "json") == 0 ? LOG_JSON : LOG_TEXT;
    enum log_level level;
    if (!s->access_log_path)
        return true;
    if (strcmp(s->access_log_path, "off") != 0)
        return !log_level_parse(s->flags.log_level, &level) || log_open_file(&s->access_log, s->access_log_path, level, format, e);
    s->access_log = log_open(STDERR_FILENO, LOG_ERROR, format);   /* lines at info are not written */
    return s->access_log || err_set(e, ERR_NOMEM, "out of memory");
}

static bool serve(struct serve *s, const char *model, struct err *e)
{
    struct server_opts o;
    int64_t start = clock_now_us(), loaded;
    bool had_terminal = isatty(STDIN_FILENO);
    raise_fd_limit();
    if (!open_access_log(s, e) || !open_models(s, model, e) || !fill_server_opts(s, &o, e) || !catch_signals(e))
        return false;
    loaded = clock_now_us();
    if (!server_open(&s->server, &o, e))
        return false;
    int64_t ready = clock_now_us();
    log_info(s->log, "serve", "ready in %.0f ms: model %.0f ms, server %.0f ms", (double)(ready - start) / 1e3, (double)(loaded - start) / 1e3,
             (double)(ready - loaded) / 1e3);
    print_banner(s);
    run(s, had_terminal);
    drain(s);
    return true;
}

int cmd_serve(int argc, char **argv)
{
    struct serve s = {.host = "127.0.0.1", .port = 8000, .auto_tools = true, .tool_parser = "auto", .reasoning_parser = "auto", .generation_config = "auto", .http_threads = 2, .idle_timeout = 120,
                      .max_body_bytes = 32 << 20, .drain_timeout = 60, .stall_timeout = 120, .request_id_headers = true, .cert_reqs = -1, .body_timeout = 300};
    struct cli_opt engine_table[CLI_ENGINE_OPTS];
    cli_engine_flags_default(&s.flags);
    cli_watermark_flags_default(&s.watermark);
    s.pooling = "last";
    s.flags.log_level = "info";
    s.flags.step_target_ms = STEP_TARGET_MS;
    cli_engine_table(&s.flags, engine_table);
    const struct cli_opt opts[] = {
        {"host", 0, CLI_STR, &s.host, "NAME", "address to listen on; 0.0.0.0 for all", 0, 0},
        {"port", 'p', CLI_INT, &s.port, "N", "0: any free one, which is printed", 0, 65535},
        {"api-key", 0, CLI_LIST, &s.keys, "KEY", "clients must send one of these as a bearer token", 0, 0},
        {"api-key-file", 0, CLI_STR, &s.key_file, "FILE", "further keys, one a line: KEY name=.. rpm=.. tpm=.. concurrent=.. (limits a minute); read again when it changes", 0, 0},
        {"ssl-certfile", 0, CLI_STR, &s.cert_file, "FILE", "serve HTTPS with this certificate (PEM, with its chain); read again when it changes", 0, 0},
        {"ssl-keyfile", 0, CLI_STR, &s.tls_key_file, "FILE", "the certificate's private key (PEM)", 0, 0},
        {"ssl-ca-certs", 0, CLI_STR, &s.ca_file, "FILE", "authorities (PEM) that must have signed clients' certificates", 0, 0},
        {"ssl-cert-reqs", 0, CLI_INT, &s.cert_reqs, "N", "clients' certificates: 0 not asked for, 1 checked if sent, 2 required; -1: 2 with --ssl-ca-certs, else 0", -1, 2},
        {"access-log", 0, CLI_STR, &s.access_log_path, "FILE", "one line a request goes there instead of stderr, opened again at SIGHUP; off: nowhere", 0, 0},
        {"served-model-name", 0, CLI_LIST, &s.names, "NAME", "what clients call the model; the first is reported", 0, 0},
        {"model", 0, CLI_LIST, &s.models, "NAME=MODEL", "several models, chosen by the request's model, loaded when asked for; NAME= alone: the built-in one", 0, 0},
        {"max-loaded-models", 0, CLI_INT, &s.max_loaded, "N", "of several, so many at once: unused ones are unloaded, least recently used first; 0: all", 0, 1024},
        {"model-idle-timeout", 0, CLI_F64, &s.model_idle_timeout, "S", "with --model: one that nobody has used for so long is unloaded; 0: never", 0, 1e9},
        {"chat-template", 0, CLI_STR, &s.chat_template, "FILE", "Jinja template instead of the model's own", 0, 0},
        {"tool-call-parser", 0, CLI_STR, &s.tool_parser, "NAME", "how tool calls are written: hermes, llama3, mistral, pythonic, none, or auto (what the chat template teaches)", 0, 0},
        {"enable-auto-tool-choice", 0, CLI_FLAG, &s.auto_tools, NULL, "read tool calls from replies that are free to make them", 0, 0},
        {"reasoning-parser", 0, CLI_STR, &s.reasoning_parser, "NAME", "how thoughts are marked: deepseek_r1, qwen3, none, or auto", 0, 0},
        {"generation-config", 0, CLI_STR, &s.generation_config, "HOW", "auto: sampling defaults from generation_config.json; none: neutral ones", 0, 0},
        {"max-queue", 0, CLI_INT, &s.max_queue, "N", "waiting requests past which new ones get 429; 0: no bound", 0, INT32_MAX},
        {"max-concurrent-requests", 0, CLI_INT, &s.max_concurrent, "N", "requests in progress past which new ones get 429; 0: no bound", 0, INT32_MAX},
        {"max-connections", 0, CLI_INT, &s.max_connections, "N", "open connections; 0: as many as descriptors allow", 0, 1 << 20},
        {"max-connections-per-ip", 0, CLI_INT, &s.max_per_ip, "N", "of them from one address; 0: any number", 0, 1 << 20},
        {"max-body-bytes", 0, CLI_I64, &s.max_body_bytes, "N", "largest request body", 1, 1 << 30},
        {"max-input-tokens", 0, CLI_INT, &s.limits.input_tokens, "N", "longest prompt; 0: what the context takes", 0, INT32_MAX},
        {"max-n", 0, CLI_INT, &s.limits.n, "N", "most choices a request may ask for; 0: --max-num-seqs", 0, 65536},
        {"max-best-of", 0, CLI_INT, &s.limits.best_of, "N", "largest best_of; 0: --max-num-seqs", 0, 65536},
        {"max-stop-sequences", 0, CLI_INT, &s.limits.stop_sequences, "N", "most stop strings of a request; 0: 64", 0, 64},
        {"pooling", 0, CLI_STR, &s.pooling, "HOW", "embeddings are of the last token, the mean over all, or the first (cls)", 0, 0},
        {"files-dir", 0, CLI_STR, &s.files_dir, "DIR", "keep /v1/files and run /v1/batches there; without it they are off", 0, 0},
        {"files-max-bytes", 0, CLI_I64, &s.files_max_bytes, "N", "most bytes of all files there; 0: no bound", 0, 1e15},
        {"watermark-key", 0, CLI_STR, &s.watermark.key_file, "FILE", "the secret that requests with watermark: true are marked with; without it a known one", 0, 0},
        {"watermark-gamma", 0, CLI_F64, &s.watermark.gamma, "X", "share of the vocabulary that the watermark favours at each token", 0, 1},
        {"watermark-delta", 0, CLI_F64, &s.watermark.delta, "X", "how much: what is added to their logits", 0, 100},
        {"request-timeout", 0, CLI_F64, &s.request_timeout, "S", "seconds a request may take, waiting included; 0: no bound", 0, 1e9},
        {"drain-timeout", 0, CLI_F64, &s.drain_timeout, "S", "seconds that running requests have after SIGTERM", 0, 1e9},
        {"stall-timeout", 0, CLI_F64, &s.stall_timeout, "S", "a step of the engine that takes longer makes /health say 503 and systemd's watchdog bark; 0: none does", 0, 1e9},
        {"body-timeout", 0, CLI_INT, &s.body_timeout, "S", "seconds that the body of a request may take to arrive, however steadily it drips; 0: no bound", 0, 1 << 20},
        {"idle-timeout", 0, CLI_INT, &s.idle_timeout, "S", "seconds without progress after which a connection is closed", 1, 1 << 20},
        {"http-threads", 0, CLI_INT, &s.http_threads, "N", "threads for sockets, and as many (at least 2) for parsing", 1, 64},
        {"cors-origin", 0, CLI_LIST, &s.origins, "URL", "web pages of this origin may call; * for any", 0, 0},
        {"metrics-compat", 0, CLI_LIST, &s.compat, "NAME", "vllm, tgi: export metrics under their names too", 0, 0},
        {"metrics-public", 0, CLI_FLAG, &s.metrics_public, NULL, "/metrics needs no key", 0, 0},
        {"enable-request-id-headers", 0, CLI_FLAG, &s.request_id_headers, NULL, "answer with X-Request-Id", 0, 0},
        {"enable-prompt-tokens-details", 0, CLI_FLAG, &s.prompt_tokens_details, NULL, "usage tells how many prompt tokens were cached", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, engine_table, NULL};
    const struct cli_cmd cmd = {"serve", "quire serve [MODEL] [options]",
                                "Serves a model over HTTP: the OpenAI API, health, Prometheus metrics.  MODEL is a folder in Hugging Face\n"
                                "layout, a GGUF file or a hub id (org/name); without one the built-in model is used.  SIGTERM or SIGINT finishes what runs and exits; a second\n"
                                "one exits at once.  SIGHUP reads keys and certificates again.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done && s.models.n && n_args) {
        done = true;
        status = cli_usage_error(&cmd, "give MODEL or --model, not both");
    } else if (!done && s.model_idle_timeout > 0 && !s.models.n) {
        done = true;
        status = cli_usage_error(&cmd, "--model-idle-timeout goes with --model NAME=MODEL, which is loaded when it is asked for");
    } else if (!done && s.names.n && (s.models.n > 1 || s.model_idle_timeout > 0)) {
        done = true;
        status = cli_usage_error(&cmd, "--served-model-name is for one model; write --model NAME=MODEL");
    }
    if (!done) {
        struct err e;
        status = serve(&s, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    server_close(&s.server);
    engine_close(&s.eng);
    cli_models_free(&s.several);
    mem_free(s.given_name);
    log_close(&s.access_log);
    log_close(&s.log);
    mem_free(s.template);
    mem_free(s.models.items);
    mem_free(s.keys.items);
    mem_free(s.names.items);
    mem_free(s.origins.items);
    mem_free(s.compat.items);
    return status;
}
