/* Several models in one server, in this process so that the thread and address sanitizers see them: random requests while models are
 * loaded and unloaded, clients that hang up, failures, shutdown in the middle. */
#include <curl/curl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/server.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { N_REQUESTS = 10 };
#else
enum { N_REQUESTS = 40 };
#endif
enum { N_PROMPTS = 6, N_CLIENTS = 5, N_MODELS = 4 };
static const char *const names[N_MODELS] = {"one", "two", "three", "broken"};

static struct server_models_opts fill(struct server_model_opts models[N_MODELS], int max_loaded)
{
    for (int i = 0; i < N_MODELS; i++) {
        models[i].name = names[i];
        engine_opts_default(&models[i].engine);
        models[i].engine.model = i == 3 ? "/no/such/model" : NULL;
        models[i].engine.num_kv_blocks = 64 + 8 * i;
        models[i].engine.max_num_seqs = 8;
        models[i].engine.max_num_batched_tokens = 64;
        models[i].engine.n_threads = 1 + i % 2;
        models[i].engine.packed_cache = "off";
    }
    return (struct server_models_opts){.models = models, .n_models = N_MODELS, .max_loaded = max_loaded};
}

static struct server *open_server(struct server_model_opts models[N_MODELS], int max_loaded, int64_t timeout_us)
{
    struct server_opts o;
    struct server *s;
    struct err e;
    server_opts_default(&o);
    o.models = fill(models, max_loaded);
    o.api.request_timeout_us = timeout_us;
    o.http.port = 0;
    if (!server_open(&s, &o, &e))
        fail_msg("%s", e.msg);
    return s;
}

/* ---- a client ---- */

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    buf_append(ctx, p, size * n);
    return size * n;
}

/* 0 when the connection broke or timed out. */
static long post(const struct server *s, const char *path, const char *body, long timeout_ms, struct buf *out)
{
    char url[128];
    long status = 0;
    CURL *h = curl_easy_init();
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server_port(s), path);
    curl_easy_setopt(h, CURLOPT_URL, url);
    if (body)
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, out);
    if (curl_easy_perform(h) == CURLE_OK)
        curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(list);
    curl_easy_cleanup(h);
    return status;
}

static long complete(const struct server *s, const char *model, int prompt, int max_tokens, long timeout_ms, struct buf *out)
{
    char body[300];
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"prompt\":\"Once upon a time %d\",\"max_tokens\":%d,\"temperature\":%d,\"seed\":%d,\"ignore_eos\":true}", model,
             prompt, max_tokens, prompt % 2, prompt);
    return post(s, "/v1/completions", body, timeout_ms, out);
}

static char *text_of(const struct buf *b)
{
    json_t *j = json_loadb(b->data ? b->data : "", b->len, 0, NULL);
    const char *t = json_string_value(json_object_get(json_array_get(json_object_get(j, "choices"), 0), "text"));
    char *copy = t ? strdup(t) : NULL;
    json_decref(j);
    return copy;
}

/* ---- what one engine alone says ---- */

static char *expected[N_PROMPTS];

static int learn(void **state)
{
    struct engine_opts eo;
    struct server_opts o;
    struct server *s;
    struct engine *eng;
    struct err e;
    (void)state;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    engine_opts_default(&eo);
    eo.num_kv_blocks = 100;
    eo.packed_cache = "off";
    server_opts_default(&o);
    o.http.port = 0;
    if (!engine_open(&eng, &eo, &e))
        return -1;
    o.api.engine = eng;
    if (!server_open(&s, &o, &e))
        return -1;
    for (int i = 0; i < N_PROMPTS; i++) {
        struct buf b = {0};
        if (complete(s, "", i, 12, 60000, &b) != 200)
            return -1;
        expected[i] = text_of(&b);
        buf_free(&b);
    }
    server_close(&s);
    engine_close(&eng);
    return 0;
}

static int forget(void **state)
{
    (void)state;
    for (int i = 0; i < N_PROMPTS; i++)
        free(expected[i]);
    curl_global_cleanup();
    return 0;
}

/* ---- random load ---- */

struct client { const struct server *s; uint64_t seed; pthread_t thread; bool brutal; atomic_int *n_wrong; };

static void *client_main(void *arg)
{
    struct client *c = arg;
    struct rng rng = {.state = c->seed};
    for (int i = 0; i < N_REQUESTS; i++) {
        int m = (int)rng_next_below(&rng, 10), prompt = (int)rng_next_below(&rng, N_PROMPTS);
        m = m == 9 ? 3 : m % 3;
        bool impatient = c->brutal && rng_next_below(&rng, 3) == 0;
        struct buf b = {0};
        long status = complete(c->s, names[m], prompt, 12, impatient ? 1 + (long)rng_next_below(&rng, 30) : 120000, &b);
        char *text = status == 200 ? text_of(&b) : NULL;
        bool good = m == 3 ? status == 500 : status == 200 && text && strcmp(text, expected[prompt]) == 0;
        if (!good && !(impatient && status == 0)) {
            print_error("%s, prompt %d: status %ld, %s\n", names[m], prompt, status, b.data ? b.data : "");
            atomic_fetch_add(c->n_wrong, 1);
        }
        if (rng_next_below(&rng, 8) == 0) {
            struct buf page = {0};
            static const char *const paths[] = {"/metrics", "/v1/models", "/v1/models/two", "/reset_prefix_cache"};
            int k = (int)rng_next_below(&rng, 4);
            status = post(c->s, paths[k], k == 3 ? "" : NULL, 60000, &page);
            if (status != 200 && !(k == 3 && status == 409))
                atomic_fetch_add(c->n_wrong, 1);
            buf_free(&page);
        }
        free(text);
        buf_free(&b);
    }
    return NULL;
}

static void run_clients(const struct server *s, uint64_t seed, bool brutal)
{
    struct client clients[N_CLIENTS];
    atomic_int n_wrong = 0;
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){.s = s, .seed = seed + (uint64_t)i, .brutal = brutal, .n_wrong = &n_wrong};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (int i = 0; i < N_CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    assert_int_equal(n_wrong, 0);
}

static void random_places(void **state)
{
    (void)state;
    for (int places = 1; places <= 4; places++) {
        struct server_model_opts models[N_MODELS];
        struct server *s = open_server(models, places, 0);
        run_clients(s, 100 * (uint64_t)places, false);
        server_close(&s);
    }
}

static void random_hang_ups(void **state)
{
    (void)state;
    struct server_model_opts models[N_MODELS];
    struct server *s = open_server(models, 1, 0);
    run_clients(s, 7, true);
    server_close(&s);
}

/* Closed while requests wait for their model, while it loads, and while it answers. */
static void *one_long(void *arg)
{
    struct client *c = arg;
    struct buf b = {0};
    complete(c->s, names[c->seed % 3], 1, 400, 120000, &b);
    buf_free(&b);
    return NULL;
}

static void close_in_the_middle(void **state)
{
    (void)state;
    for (int ms = 0; ms < 60; ms += 12) {
        struct server_model_opts models[N_MODELS];
        struct server *s = open_server(models, 1, 0);
        struct client clients[N_CLIENTS];
        struct timespec t = {0, ms * 1000000L};
        for (int i = 0; i < N_CLIENTS; i++) {
            clients[i] = (struct client){.s = s, .seed = (uint64_t)i};
            assert_int_equal(pthread_create(&clients[i].thread, NULL, one_long, &clients[i]), 0);
        }
        nanosleep(&t, NULL);
        if (ms % 24)
            server_drain(s);
        /* The clients use the server's port: it must be read before s is gone, so they get a moment to start. */
        t.tv_nsec = 50000000L;
        nanosleep(&t, NULL);
        struct server *closing = s;
        server_close(&closing);
        for (int i = 0; i < N_CLIENTS; i++)
            pthread_join(clients[i].thread, NULL);
    }
}

/* What waits for a model longer than --request-timeout is told so, and the model that held the place is not cut by that. */
static void deadline_while_waiting(void **state)
{
    (void)state;
    struct server_model_opts models[N_MODELS];
    struct server *s = open_server(models, 1, 300000);
    struct buf b = {0};
    struct client busy = {.s = s, .seed = 0};
    assert_int_equal(complete(s, "one", 0, 1, 60000, &b) == 200 || b.len > 0, 1);
    assert_int_equal(pthread_create(&busy.thread, NULL, one_long, &busy), 0);
    for (int i = 0; i < 3; i++) {
        buf_clear(&b);
        long status = complete(s, "two", 0, 1, 60000, &b);
        assert_true(status == 200 || status == 504);
    }
    pthread_join(busy.thread, NULL);
    buf_free(&b);
    server_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_places), cmocka_unit_test(random_hang_ups), cmocka_unit_test(close_in_the_middle), cmocka_unit_test(deadline_while_waiting),
    };
    return cmocka_run_group_tests(tests, learn, forget);
}
