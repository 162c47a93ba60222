/* A real server in this process, driven over sockets by several client threads.  Runs under the thread sanitizer. */
#include <curl/curl.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "server/server.h"

static struct engine *eng;
static struct engine_turns *turns;    /* who takes them holds the engine still, between two steps */

static void pause_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

static int open_engine(void **state)
{
    struct engine_opts o;
    struct err e;
    (void)state;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    engine_opts_default(&o);
    o.max_num_seqs = 16;
    o.num_kv_blocks = 400;
    o.n_threads = 2;
    o.turns = turns = engine_turns_open();
    if (engine_open(&eng, &o, &e))
        return 0;
    print_error("%s\n", e.msg);
    return -1;
}

static int close_engine(void **state)
{
    (void)state;
    engine_close(&eng);
    engine_turns_close(&turns);
    curl_global_cleanup();
    return 0;
}

static struct server *open_server(void (*change)(struct server_opts *o))
{
    struct server_opts o;
    struct server *s;
    struct err e;
    server_opts_default(&o);
    o.api.engine = eng;
    o.http.port = 0;
    if (change)
        change(&o);
    if (!server_open(&s, &o, &e))
        fail_msg("%s", e.msg);
    return s;
}

/* ---- a client ---- */

struct reply {
    long status;
    struct buf body, headers;
    size_t hang_up_after;      /* bytes; 0: never */
    CURLcode rc;
};

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    struct reply *r = ctx;
    buf_append(&r->body, p, size * n);
    return r->hang_up_after && r->body.len >= r->hang_up_after ? 0 : size * n;
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
    struct reply *r = ctx;
    buf_append(&r->headers, p, size * n);
    return size * n;
}

struct call { const char *method, *path, *body, *type, *headers[4]; size_t hang_up_after; long timeout_ms; };

static void call(const struct server *s, const struct call *c, struct reply *r)
{
    char url[256], type[128];
    struct curl_slist *list = NULL;
    CURL *h = curl_easy_init();
    *r = (struct reply){.hang_up_after = c->hang_up_after};
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server_port(s), c->path);
    if (c->body) {
        snprintf(type, sizeof type, "Content-Type: %s", c->type ? c->type : "application/json");
        list = curl_slist_append(list, type);
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, c->body);
    }
    for (int i = 0; i < 4 && c->headers[i]; i++)
        list = curl_slist_append(list, c->headers[i]);
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, c->timeout_ms ? c->timeout_ms : 120000L);
    if (c->method)
        curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, c->method);
    if (c->method && strcmp(c->method, "HEAD") == 0)
        curl_easy_setopt(h, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, r);
    r->rc = curl_easy_perform(h);
    curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &r->status);
    curl_slist_free_all(list);
    curl_easy_cleanup(h);
}

static void reply_free(struct reply *r)
{
    buf_free(&r->body);
    buf_free(&r->headers);
}

/* Status of a call whose body does not matter; headers must hold the text, body too when given. */
static void expect(const struct server *s, long status, const char *header, const char *body_part, struct call c)
{
    struct reply r;
    call(s, &c, &r);
    if (r.status != status || (header && !strstr(r.headers.data, header)) || (body_part && (!r.body.data || !strstr(r.body.data, body_part))))
        fail_msg("%s %s: status %ld, expected %ld, '%s', '%s'\n%s%s", c.method ? c.method : "", c.path, r.status, status, header ? header : "",
                 body_part ? body_part : "", r.headers.data ? r.headers.data : "", r.body.data ? r.body.data : "");
    reply_free(&r);
}

static void wait_for_pages(void)
{
    struct engine_metrics m;
    for (int i = 0; i < 1000; i++) {
        engine_metrics(eng, &m);
        if (engine_idle(eng) && m.blocks_held == 0)
            return;
        pause_ms(10);
    }
    fail_msg("%d pages are still held", m.blocks_held);
}

/* ---- tests ---- */

static const char short_request[] = "{\"prompt\":\"Once upon a time\",\"max_tokens\":8,\"temperature\":0}";
static const char long_stream[] = "{\"prompt\":\"Once upon a time\",\"max_tokens\":1000,\"ignore_eos\":true,\"stream\":true}";
static const char long_body[] = "{\"prompt\":\"Once upon a time\",\"max_tokens\":1000,\"ignore_eos\":true}";

static void small_bodies(struct server_opts *o) { o->http.max_body_bytes = 2000; }

static void routes_and_refusals(void **state)
{
    (void)state;
    struct server *s = open_server(small_bodies);
    char *big = malloc(100001);
    memset(big, ' ', 100000);
    big[100000] = 0;
    expect(s, 200, "X-Request-Id: ", NULL, (struct call){.path = "/health"});
    expect(s, 200, "X-Request-Id: my-id.7\r\n", NULL, (struct call){.path = "/ping", .headers = {"X-Request-Id: my-id.7"}});
    expect(s, 200, NULL, QUIRE_VERSION, (struct call){.path = "/version"});
    expect(s, 200, NULL, "\"server_load\":0", (struct call){.path = "/load"});
    expect(s, 200, "application/json", "quire-builtin", (struct call){.path = "/v1/models"});
    expect(s, 200, NULL, "quire-builtin", (struct call){.path = "/v1/models/quire-builtin"});
    expect(s, 200, "text/plain; version=0.0.4", "quire:num_requests_running{model_name=\"quire-builtin\"", (struct call){.path = "/metrics"});
    expect(s, 200, NULL, NULL, (struct call){.path = "/health", .method = "HEAD"});
    expect(s, 200, NULL, "\"success\":true", (struct call){.path = "/reset_prefix_cache", .body = ""});
    expect(s, 200, "Content-Security-Policy: default-src 'none'", "<title>quire</title>", (struct call){.path = "/"});
    expect(s, 200, "Content-Type: text/css", NULL, (struct call){.path = "/web/style.css"});
    expect(s, 200, "application/json", "\"pages_held\":0", (struct call){.path = "/web/state"});
    expect(s, 200, NULL, "\"running\":0", (struct call){.path = "/web/state/quire-builtin"});
    expect(s, 404, NULL, "no such file", (struct call){.path = "/web/style.cs"});
    expect(s, 404, NULL, "NotFoundError", (struct call){.path = "/v1/models/other"});
    expect(s, 404, NULL, "\"code\":404", (struct call){.path = "/nowhere"});
    expect(s, 405, "Allow: POST, OPTIONS", "MethodNotAllowedError", (struct call){.path = "/v1/completions"});
    expect(s, 405, "Allow: GET, HEAD, OPTIONS", NULL, (struct call){.path = "/metrics", .body = "{}"});
    expect(s, 405, NULL, NULL, (struct call){.path = "/v1/completions", .method = "DELETE"});
    expect(s, 415, NULL, "application/json", (struct call){.path = "/v1/completions", .body = short_request, .type = "text/plain"});
    expect(s, 413, NULL, "PayloadTooLargeError", (struct call){.path = "/v1/completions", .body = big});
    expect(s, 413, NULL, "larger than the 2000", (struct call){.path = "/v1/completions", .body = big, .headers = {"Transfer-Encoding: chunked", "Expect:"}});
    expect(s, 400, NULL, "not valid JSON", (struct call){.path = "/v1/completions", .body = "{"});
    expect(s, 200, NULL, "text_completion", (struct call){.path = "/v1/completions", .body = short_request, .type = "application/json; charset=utf-8"});
    expect(s, 200, NULL, "\"count\":", (struct call){.path = "/tokenize", .body = "{\"prompt\":\"a b\"}"});
    expect(s, 200, NULL, "\"prompt\":", (struct call){.path = "/detokenize", .body = "{\"tokens\":[20]}"});
    expect(s, 200, "text/event-stream", "data: [DONE]", (struct call){.path = "/v1/completions", .body = "{\"prompt\":\"a\",\"max_tokens\":3,\"stream\":true}"});
    free(big);
    server_close(&s);
}

static void with_keys(struct server_opts *o)
{
    static const char *const keys[] = {"first", "second-key"}, *const origins[] = {"https://page.example"}, *const names[] = {"m\"1", "m2"};
    o->http.keys = keys;
    o->http.n_keys = 2;
    o->http.origins = origins;
    o->http.n_origins = 1;
    o->http.request_id_headers = false;
    o->api.served_names = names;
    o->api.n_served_names = 2;
    o->metrics_vllm = true;
}

static void keys_and_origins(void **state)
{
    (void)state;
    struct server *s = open_server(with_keys);
    expect(s, 200, NULL, NULL, (struct call){.path = "/health"});
    expect(s, 401, "WWW-Authenticate: Bearer", "AuthenticationError", (struct call){.path = "/v1/models"});
    expect(s, 401, NULL, NULL, (struct call){.path = "/metrics"});
    expect(s, 401, NULL, NULL, (struct call){.path = "/nowhere"});
    static const char *const wrong[] = {"Authorization: Bearer firs", "Authorization: Bearer firstt", "Authorization: Bearer ", "Authorization: first",
                                        "Authorization: Bearer FIRST", "Authorization: Basic first", "Authorization: Bearer firstfirst"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect(s, 401, NULL, NULL, (struct call){.path = "/v1/models", .headers = {wrong[i]}});
    expect(s, 200, NULL, "m2", (struct call){.path = "/v1/models", .headers = {"Authorization: Bearer first"}});
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/models", .headers = {"Authorization: bearer second-key"}});
    expect(s, 200, NULL, "vllm:gpu_cache_usage_perc{model_name=\"m\\\"1\"", (struct call){.path = "/metrics", .headers = {"Authorization: Bearer first"}});
    expect(s, 204, "Access-Control-Allow-Origin: https://page.example", NULL,
           (struct call){.path = "/v1/completions", .method = "OPTIONS", .headers = {"Origin: https://page.example", "Access-Control-Request-Headers: x-y"}});
    struct reply r;
    call(s, &(struct call){.path = "/health", .headers = {"Origin: https://other.example"}}, &r);
    assert_null(strstr(r.headers.data, "Access-Control"));
    assert_null(strstr(r.headers.data, "X-Request-Id"));
    reply_free(&r);
    server_close(&s);
}

static void impatient(struct server_opts *o) { o->stall_us = 1000000; }

/* A device that has failed, and a step that does not end, as the engine's thread would leave them. */
static void health_tells_a_dead_engine(void **state)
{
    (void)state;
    struct server *s = open_server(impatient);
    struct err why;
    atomic_store(&eng->step_began_us, clock_now_us() - 5000000);
    expect(s, 503, "Retry-After: ", "a step has been computing for 5 s", (struct call){.path = "/health"});
    assert_false(server_alive(s, &why));
    atomic_store(&eng->step_began_us, 0);
    expect(s, 200, NULL, NULL, (struct call){.path = "/health"});
    atomic_store(&eng->lost, true);
    expect(s, 503, NULL, "the device has failed", (struct call){.path = "/ping"});
    expect(s, 500, NULL, "the device has failed", (struct call){.path = "/v1/completions", .body = short_request});
    atomic_store(&eng->lost, false);
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = short_request});
    assert_true(server_alive(s, &why));
    server_close(&s);
}

/* Deadlines by header and by field; times that are told. */
static void deadlines_and_timings(void **state)
{
    (void)state;
    struct server *s = open_server(NULL);
    expect(s, 504, NULL, "TimeoutError", (struct call){.path = "/v1/completions", .body = long_body, .headers = {"X-Request-Timeout: 0.02"}});
    expect(s, 504, NULL, "TimeoutError", (struct call){.path = "/v1/completions", .body = "{\"prompt\":\"Once\",\"max_tokens\":1000,\"ignore_eos\":true,\"timeout\":0.02}"});
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = short_request, .headers = {"X-Request-Timeout: 60"}});
    expect(s, 400, NULL, "X-Request-Timeout must be", (struct call){.path = "/v1/completions", .body = short_request, .headers = {"X-Request-Timeout: soon"}});
    expect(s, 400, NULL, "\"param\":\"timeout\"", (struct call){.path = "/v1/completions", .body = "{\"prompt\":\"a\",\"timeout\":0}"});
    expect(s, 200, NULL, ",\"timings\":{\"queue_ms\":", (struct call){.path = "/v1/completions", .body = short_request, .headers = {"X-Quire-Timings: 1"}});
    expect(s, 200, NULL, ",\"choices\":[],\"usage\":{", (struct call){.path = "/v1/completions", .body = "{\"prompt\":\"a\",\"stream\":true,\"max_tokens\":2,\"return_timings\":true}"});
    expect(s, 200, NULL, "\"generated_tokens\":4,", (struct call){.path = "/v1/completions", .body = "{\"prompt\":[\"a\",\"b\"],\"ignore_eos\":true,\"max_tokens\":2,\"return_timings\":true}"});
    struct reply r;
    call(s, &(struct call){.path = "/v1/completions", .body = short_request}, &r);
    assert_null(strstr(r.body.data, "timings"));
    reply_free(&r);
    wait_for_pages();
    server_close(&s);
}

struct client { const struct server *s; int index; atomic_int *n_bad; };

/* Streams, bodies, hang-ups in the middle of both, and errors, mixed. */
static void *client_main(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < 6; i++) {
        struct reply r;
        struct call one = {.path = "/v1/completions", .body = short_request};
        switch ((c->index + i) % 5) {
        case 0: break;
        case 1: one.body = "{\"prompt\":\"The\",\"max_tokens\":20,\"n\":2,\"stream\":true,\"seed\":4}"; break;
        case 2: one.body = long_stream; one.hang_up_after = 2000; break;
        case 3: one.body = long_body; one.timeout_ms = 30; break;
        case 4: one.body = "{\"prompt\":7}"; break;
        }
        call(c->s, &one, &r);
        int kind = (c->index + i) % 5;
        bool ok = kind == 4 ? r.status == 400 : kind == 2 ? r.status == 200 : kind == 3 || r.status == 200;
        if (kind == 0)
            ok = ok && r.body.data && strstr(r.body.data, "\"completion_tokens\":8");
        if (kind == 1)
            ok = ok && r.body.data && strstr(r.body.data, "data: [DONE]");
        if (!ok) {
            print_error("kind %d: status %ld, curl %d, %s\n", kind, r.status, r.rc, r.body.data ? r.body.data : "");
            atomic_fetch_add(c->n_bad, 1);
        }
        reply_free(&r);
    }
    return NULL;
}

static void many_clients_and_hang_ups(void **state)
{
    (void)state;
    enum { N = 8 };
    struct server *s = open_server(NULL);
    atomic_int n_bad = 0;
    pthread_t threads[N];
    struct client clients[N];
    for (int i = 0; i < N; i++) {
        clients[i] = (struct client){s, i, &n_bad};
        assert_int_equal(pthread_create(&threads[i], NULL, client_main, &clients[i]), 0);
    }
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&n_bad), 0);
    wait_for_pages();
    for (int i = 0; i < 500 && !server_idle(s); i++)
        pause_ms(10);
    assert_true(server_idle(s));
    server_close(&s);
}

/* A connection that sends a request and then only waits. */
static int open_raw(const struct server *s, const char *body)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server_port(s)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t cap = strlen(body) + 256;
    char *request = malloc(cap);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    int n = snprintf(request, cap, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    assert_int_equal(write(fd, request, (size_t)n), n);
    free(request);
    return fd;
}

/* Clients that hang up while their requests wait, suspended: the pages return although nothing is ever sent to them. */
static void hang_up_while_waiting(void **state)
{
    (void)state;
    enum { N = 24 };
    struct server *s = open_server(NULL);
    int fds[N];
    for (int i = 0; i < N; i++)
        fds[i] = open_raw(s, long_body);
    struct engine_metrics m = {0};
    uint64_t before;
    for (int i = 0; i < 500 && m.num_requests_running == 0; i++) {
        pause_ms(5);
        engine_metrics(eng, &m);
    }
    assert_true(m.num_requests_running > 0);
    before = m.success_abort;
    for (int i = 0; i < N; i++)
        close(fds[i]);
    for (int i = 0; i < 1000 && !server_idle(s); i++)
        pause_ms(5);
    wait_for_pages();
    engine_metrics(eng, &m);
    assert_int_equal(m.success_abort - before, N); /* none ran to its end */
    server_close(&s);
}

/* Clients that reset the connection while a worker still has their request. */
static void reset_while_working(void **state)
{
    (void)state;
    struct server *s = open_server(NULL);
    /* A prompt that takes a worker some milliseconds, although little of it is kept. */
    char *body = malloc(70000), *at = body + sprintf(body, "{\"prompt\":\"");
    for (int i = 0; i < 10000; i++)
        at += sprintf(at, "%c%c%c ", 'a' + i % 26, 'a' + i / 26 % 26, 'a' + i / 676 % 26);
    strcpy(at, "\",\"truncate_prompt_tokens\":5,\"max_tokens\":900,\"ignore_eos\":true,\"stream\":true}");
    for (int i = 0; i < 60; i++) {
        int fd = open_raw(s, body);
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        pause_ms(i % 8);
        close(fd);
    }
    free(body);
    for (int i = 0; i < 1000 && !server_idle(s); i++)
        pause_ms(5);
    wait_for_pages();
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = short_request});
    server_close(&s);
}

static void two_at_once(struct server_opts *o) { o->http.max_concurrent = 2; }

static void limits_and_drain(void **state)
{
    (void)state;
    struct server *s = open_server(two_at_once);
    int a = open_raw(s, long_stream), b = open_raw(s, long_stream);
    for (int i = 0; i < 500; i++) {
        struct reply r;
        call(s, &(struct call){.path = "/load"}, &r);
        bool both = strstr(r.body.data, ":2}") != NULL;
        reply_free(&r);
        if (both)
            break;
        pause_ms(5);
    }
    expect(s, 429, "Retry-After: ", "RateLimitError", (struct call){.path = "/v1/completions", .body = short_request});
    close(a);
    close(b);
    wait_for_pages();
    for (int i = 0; i < 500 && !server_idle(s); i++)
        pause_ms(5);
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = short_request});
    server_close(&s);
}

static void two_at_once_for_tgi(struct server_opts *o)
{
    o->http.max_concurrent = 2;
    o->metrics_tgi = true;
}

/* The sum over all samples of /metrics that begin with name and hold part. */
static double metric(const struct server *s, const char *name, const char *part)
{
    struct reply r;
    double sum = 0;
    call(s, &(struct call){.path = "/metrics"}, &r);
    for (char *at = r.body.data, *end; at && (end = strchr(at, '\n')) != NULL; at = end + 1) {
        *end = 0;
        char *value = strrchr(at, ' ');
        if (strncmp(at, name, strlen(name)) == 0 && at[strlen(name)] == '{' && strstr(at, part))
            sum += strtod(value, NULL);
    }
    reply_free(&r);
    return sum;
}

static double failures(const struct server *s, const char *err) { return metric(s, "tgi_request_failure", err); }

static void wait_until_idle(const struct server *s)
{
    wait_for_pages();
    for (int i = 0; i < 1000 && !server_idle(s); i++)
        pause_ms(5);
    assert_true(server_idle(s));
}

/* However a request ends it is counted once. */
static void tgi_counts_every_end(void **state)
{
    (void)state;
    struct server *s = open_server(two_at_once_for_tgi);
    static const char tgi_short[] = "{\"inputs\":\"Once upon a time\",\"parameters\":{\"max_new_tokens\":8}}";
    static const char message[] = "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":4";
    char chat[256];
    /* well: by three routes, and one that is not for text */
    expect(s, 200, NULL, NULL, (struct call){.path = "/generate", .body = tgi_short});
    expect(s, 200, NULL, NULL, (struct call){.path = "/generate_stream", .body = tgi_short});
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = short_request});
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/embeddings", .body = "{\"input\":\"Once\"}"});
    assert_true(metric(s, "tgi_request_count", "") == 3 && metric(s, "tgi_request_success", "") == 3);
    static const char *const histograms[] = {"tgi_request_duration_count", "tgi_request_validation_duration_count", "tgi_request_queue_duration_count",
                                             "tgi_request_inference_duration_count", "tgi_request_mean_time_per_token_duration_count",
                                             "tgi_request_input_length_count", "tgi_request_max_new_tokens_count"};
    for (size_t i = 0; i < sizeof histograms / sizeof histograms[0]; i++)
        assert_true(metric(s, histograms[i], "") == 3);
    assert_true(metric(s, "tgi_request_generated_tokens_sum", "") == 24);
    /* validation */
    expect(s, 422, NULL, NULL, (struct call){.path = "/generate", .body = "{\"inputs\":\"\"}"});
    expect(s, 400, NULL, NULL, (struct call){.path = "/v1/completions", .body = "{\"prompt\":7}"});
    expect(s, 404, NULL, NULL, (struct call){.path = "/v1/completions", .body = "{\"prompt\":\"a\",\"model\":\"other\"}"});
    assert_true(failures(s, "\"validation\"") == 3);
    /* template */
    snprintf(chat, sizeof chat, "{%s,\"chat_template\":\"{{ raise_exception('no') }}\"}", message);
    expect(s, 400, NULL, "\"param\":\"messages\"", (struct call){.path = "/v1/chat/completions", .body = chat});
    assert_true(failures(s, "\"template\"") == 1);
    /* generation: past the deadline */
    expect(s, 504, NULL, NULL, (struct call){.path = "/v1/completions", .body = long_body, .headers = {"X-Request-Timeout: 0.02"}});
    assert_true(failures(s, "\"generation\"") == 1);
    /* dropped: in the middle of a stream, and before a body; overloaded meanwhile */
    engine_turns_take(turns);
    int a = open_raw(s, long_stream), b = open_raw(s, long_body);
    for (int i = 0; i < 2000 && metric(s, "tgi_request_count", "") < 10; i++)
        pause_ms(2);
    expect(s, 429, NULL, NULL, (struct call){.path = "/generate", .body = tgi_short});
    expect(s, 429, NULL, NULL, (struct call){.path = "/v1/embeddings", .body = "{\"input\":\"Once\"}"});
    assert_true(failures(s, "\"overloaded\"") == 1);
    close(a);
    close(b);
    for (int i = 0; i < 2000 && failures(s, "\"dropped\"") < 2; i++)
        pause_ms(2);
    engine_turns_give(turns);
    wait_until_idle(s);
    assert_true(failures(s, "\"dropped\"") == 2);
    assert_true(failures(s, "\"incomplete\"") == 0);
    assert_true(metric(s, "tgi_request_count", "") == metric(s, "tgi_request_success", "") + failures(s, ""));
    assert_true(metric(s, "tgi_request_count", "") == 11);
    server_close(&s);
}

/* Steps by method, their parts, and what joined what. */
static void tgi_counts_batches(void **state)
{
    (void)state;
    struct server *s = open_server(two_at_once_for_tgi);
    double steps = metric(s, "quire:steps_total", ""), joined = metric(s, "tgi_batch_concat", "chunking"), next = metric(s, "tgi_batch_next_size_sum", "");
    double decodes = metric(s, "tgi_batch_inference_count", "decode"), prefills = metric(s, "tgi_batch_inference_count", "prefill");
    double skipped = metric(s, "tgi_request_skipped_tokens_sum", "");
    assert_true(steps == decodes + prefills);
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = short_request});
    assert_true(metric(s, "tgi_batch_inference_count", "prefill") == prefills + 1);
    assert_true(metric(s, "tgi_batch_inference_count", "decode") == decodes + 7);
    assert_true(metric(s, "tgi_batch_next_size_sum", "") == next + 1);
    assert_true(metric(s, "tgi_batch_concat", "chunking") == joined);
    assert_true(metric(s, "tgi_request_skipped_tokens_sum", "") == skipped);
    /* a prompt of one token is a prompt as well */
    expect(s, 200, NULL, NULL, (struct call){.path = "/v1/completions", .body = "{\"prompt\":[20],\"max_tokens\":2,\"ignore_eos\":true}"});
    assert_true(metric(s, "tgi_batch_inference_count", "prefill") == prefills + 2);
    assert_true(metric(s, "tgi_batch_inference_count", "decode") == decodes + 8);
    next++;
    /* one joins another */
    double came = metric(s, "tgi_request_count", "");
    engine_turns_take(turns);
    int a = open_raw(s, long_stream), b;
    while (metric(s, "tgi_batch_next_size_sum", "") < next + 2) {   /* one step */
        engine_turns_give(turns);
        engine_turns_take(turns);
    }
    b = open_raw(s, short_request);
    while (metric(s, "tgi_request_count", "") < came + 2)
        pause_ms(1);
    engine_turns_give(turns);
    while (metric(s, "tgi_batch_next_size_sum", "") < next + 3)
        pause_ms(1);
    close(a);
    close(b);
    wait_until_idle(s);
    assert_true(metric(s, "tgi_batch_next_size_sum", "") == next + 3);
    assert_true(metric(s, "tgi_batch_concat", "chunking") == joined + 1);
    assert_true(metric(s, "tgi_batch_concat_duration_count", "") == joined + 1);
    static const char *const parts[] = {"tgi_batch_inference_duration_count", "tgi_batch_forward_duration_count", "tgi_batch_decode_duration_count",
                                        "tgi_batch_filter_duration_count", "tgi_batch_inference_success"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_true(metric(s, parts[i], "") == metric(s, "quire:steps_total", ""));
    assert_true(metric(s, "tgi_batch_inference_failure", "") == 0);
    double whole = metric(s, "tgi_batch_inference_duration_sum", ""), forward = metric(s, "tgi_batch_forward_duration_sum", "");
    double decode = metric(s, "tgi_batch_decode_duration_sum", ""), filter = metric(s, "tgi_batch_filter_duration_sum", "");
    assert_true(forward > 0 && decode > 0 && filter > 0 && forward + decode + filter < whole);
    /* structured output that leaves no choice */
    expect(s, 200, NULL, "aaaaaaaa", (struct call){.path = "/v1/completions", .body = "{\"prompt\":\"x\",\"max_tokens\":20,\"guided_regex\":\"aaaaaaaa\"}"});
    assert_true(metric(s, "tgi_request_skipped_tokens_sum", "") > skipped);
    assert_true(metric(s, "tgi_request_skipped_tokens_sum", "") == metric(s, "quire:guided_forced_tokens_total", ""));
    server_close(&s);
}

/* Closing with requests in every state: nothing hangs, nothing is lost. */
static void close_while_busy(void **state)
{
    (void)state;
    enum { N = 12 };
    for (int round = 0; round < 3; round++) {
        struct server *s = open_server(NULL);
        int fds[N];
        for (int i = 0; i < N; i++)
            fds[i] = open_raw(s, i % 2 ? long_stream : long_body);
        pause_ms(round * 20);
        server_close(&s);
        for (int i = 0; i < N; i++)
            close(fds[i]);
        wait_for_pages();
    }
}

/* Last: an engine that drains stays so. */
static void drain_finishes_what_runs(void **state)
{
    (void)state;
    struct server *s = open_server(NULL);
    int fd = open_raw(s, "{\"prompt\":\"Once\",\"max_tokens\":60,\"ignore_eos\":true,\"stream\":true}");
    struct engine_metrics m = {0};
    for (int i = 0; i < 500 && m.num_requests_running == 0; i++) {
        pause_ms(2);
        engine_metrics(eng, &m);
    }
    server_drain(s);
    expect(s, 503, "Retry-After: ", "ServiceUnavailableError", (struct call){.path = "/v1/completions", .body = short_request});
    expect(s, 503, NULL, NULL, (struct call){.path = "/health"});
    char text[65536];
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(fd, text + n, sizeof text - 1 - n)) > 0;) {
        n += (size_t)got;
        text[n] = 0;
        if (strstr(text, "[DONE]"))
            break;
    }
    assert_non_null(strstr(text, "[DONE]"));
    close(fd);
    for (int i = 0; i < 500 && !server_idle(s); i++)
        pause_ms(5);
    assert_true(server_idle(s));
    server_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_and_refusals),  cmocka_unit_test(keys_and_origins), cmocka_unit_test(many_clients_and_hang_ups),
        cmocka_unit_test(health_tells_a_dead_engine), cmocka_unit_test(deadlines_and_timings),
        cmocka_unit_test(hang_up_while_waiting), cmocka_unit_test(reset_while_working), cmocka_unit_test(limits_and_drain), cmocka_unit_test(tgi_counts_every_end),
        cmocka_unit_test(tgi_counts_batches), cmocka_unit_test(close_while_busy),
        cmocka_unit_test(drain_finishes_what_runs),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
