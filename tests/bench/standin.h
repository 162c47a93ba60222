/* A scripted HTTP server on 127.0.0.1 for tests of clients: plain sockets, a thread a connection, one request each. */
#ifndef QUIRE_TESTS_BENCH_STANDIN_H
#define QUIRE_TESTS_BENCH_STANDIN_H

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum standin_mode {
    STANDIN_STREAM,      /* max_tokens chunks, usage, [DONE] */
    STANDIN_NO_USAGE,    /* the same without usage */
    STANDIN_BYTES,       /* the same, a few bytes a write, lines ended by CR LF */
    STANDIN_400, STANDIN_429, STANDIN_500,
    STANDIN_CUT,         /* two chunks, then the connection is closed */
    STANDIN_CLOSE,       /* closed without an answer */
    STANDIN_NO_DONE,     /* a whole answer without finish reason and [DONE] */
    STANDIN_BAD_JSON, STANDIN_ERROR_EVENT,
    STANDIN_PLAIN,       /* 200 and a JSON object that is no stream */
    STANDIN_HANG,        /* no answer until the client leaves */
    STANDIN_STALL        /* one chunk, then nothing until the client leaves */
};

enum { STANDIN_MAX_THREADS = 512, STANDIN_MAX_BODY = 1 << 20 };

struct standin {
    /* the script */
    enum standin_mode mode;
    int n_good;                 /* so many first requests are answered as STANDIN_STREAM all the same */
    bool alternate;             /* of those after them, every other one too */
    int first_ms, gap_ms;       /* before the first chunk, and between chunks */
    int limit;                  /* a prompt of more ids is a 400; 0: none */
    bool dead_after_400;        /* later requests are closed without an answer */

    char url[64];
    char last_body[4096];       /* the start of the last generation's body */
    _Atomic(int) n_requests, n_threads;
    _Atomic(int) n_now, n_peak;  /* streams under way (only whole ones leave), and at most so far */
    _Atomic(bool) stop, refused;
    int fd;
    pthread_t acceptor, threads[STANDIN_MAX_THREADS];
    pthread_mutex_t lock;
};

struct standin_connection { struct standin *s; int fd; };

static inline void standin_sleep_ms(int ms)
{
    if (ms > 0)
        poll(NULL, 0, ms);
}

static inline bool standin_send(int fd, const char *text)
{
    size_t n = strlen(text);
    return send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static inline void standin_answer(int fd, int status, const char *body)
{
    char head[256];
    snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, strlen(body));
    if (standin_send(fd, head))
        standin_send(fd, body);
}

static inline void standin_event(int fd, const char *data)
{
    char chunk[512], text[400];
    snprintf(text, sizeof text, "data: %s\n\n", data);
    snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", strlen(text), text);
    standin_send(fd, chunk);
}

static inline int standin_count_ids(const char *body)
{
    const char *p = strstr(body, "\"prompt\":[");
    int n = p ? 1 : 0;
    for (p = p ? p + 10 : NULL; p && *p && *p != ']'; p++)
        n += *p == ',';
    return n;
}

static inline void standin_stream(struct standin *s, int fd, const char *body, enum standin_mode mode)
{
    const char *m = strstr(body, "\"max_tokens\":");
    bool chat = strstr(body, "\"messages\"") != NULL;
    int n = m ? atoi(m + 13) : 1;
    standin_send(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    if (chat)
        standin_event(fd, "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}");
    standin_sleep_ms(s->first_ms);
    for (int i = 0; i < n; i++) {
        standin_sleep_ms(i ? s->gap_ms : 0);
        standin_event(fd, chat ? "{\"choices\":[{\"delta\":{\"content\":\"ab\"},\"finish_reason\":null}]}"
                               : "{\"choices\":[{\"text\":\"ab\",\"finish_reason\":null}]}");
        if (i == 1 && mode == STANDIN_CUT)
            return;
        if (i == 1 && mode == STANDIN_BAD_JSON)
            standin_event(fd, "{\"choices\":[");
        if (i == 1 && mode == STANDIN_ERROR_EVENT)
            standin_event(fd, "{\"error\":{\"message\":\"out of\\npages\"}}");
        for (struct pollfd p = {.fd = fd, .events = POLLIN}; mode == STANDIN_STALL && !s->stop && poll(&p, 1, 20) == 0;)
            ;
    }
    if (mode != STANDIN_NO_DONE)
        standin_event(fd, chat ? "{\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}" : "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}");
    if (mode != STANDIN_NO_USAGE) {
        char usage[160];
        snprintf(usage, sizeof usage, "{\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d}}", chat ? 7 : standin_count_ids(body), n);
        standin_event(fd, usage);
    }
    if (mode != STANDIN_NO_DONE)
        standin_event(fd, "[DONE]");
    s->n_now--;   /* before the client can know */
    standin_send(fd, "0\r\n\r\n");
}

/* Without chunks: the connection's end ends it. */
static inline void standin_stream_bytes(int fd)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n: hello\r\nevent: x\r\ndata: {\"choices\":[{\"text\":\"\xc3\xa4\"}]}\r\n\r\n"
                               "data: {\"choices\":[{\r\ndata: \"text\":\"b\"}]}\r\n\r\n"
                               "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\r\n\r\ndata:[DONE]\r\n\r\n";
    for (size_t i = 0; i < sizeof text - 1; i += 7)
        if (send(fd, text + i, i + 7 < sizeof text ? 7 : sizeof text - 1 - i, MSG_NOSIGNAL) < 0)
            return;
}

static inline void standin_generate(struct standin *s, int fd, const char *body)
{
    int index = s->n_requests++, now = ++s->n_now;
    enum standin_mode mode = index < s->n_good || (s->alternate && (index - s->n_good) % 2) ? STANDIN_STREAM : s->mode;
    for (int peak = s->n_peak; now > peak && !atomic_compare_exchange_weak(&s->n_peak, &peak, now);)
        ;
    pthread_mutex_lock(&s->lock);
    snprintf(s->last_body, sizeof s->last_body, "%s", body);
    pthread_mutex_unlock(&s->lock);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (s->dead_after_400 && s->refused) {
        mode = STANDIN_CLOSE;
    } else if (s->limit && standin_count_ids(body) > s->limit) {
        s->refused = true;
        mode = STANDIN_400;
    }
    if (mode == STANDIN_400)
        standin_answer(fd, 400, "{\"error\":{\"message\":\"too long\",\"code\":400}}");
    else if (mode == STANDIN_429)
        standin_answer(fd, 429, "{\"detail\":\"busy\"}");
    else if (mode == STANDIN_500)
        standin_answer(fd, 500, "<html>\nno\xff JSON</html>");
    else if (mode == STANDIN_PLAIN)
        standin_answer(fd, 200, "{\"choices\":[{\"text\":\"all at once\"}]}");
    else if (mode == STANDIN_BYTES)
        standin_stream_bytes(fd);
    else if (mode == STANDIN_HANG)
        while (!s->stop && poll(&p, 1, 20) == 0)
            ;
    else if (mode != STANDIN_CLOSE)
        standin_stream(s, fd, body, mode);
}

static void *standin_serve(void *arg)
{
    struct standin_connection *c = arg;
    char *text = calloc(1, STANDIN_MAX_BODY);
    size_t len = 0, need = 0;
    for (;;) {
        ssize_t n = recv(c->fd, text + len, STANDIN_MAX_BODY - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "content-length:");
        if (!end)
            continue;
        need = (size_t)(end + 4 - text) + (length ? (size_t)atol(length + 15) : 0);
        if (len < need)
            continue;
        if (strncmp(text, "GET /health ", 12) == 0)
            standin_answer(c->fd, 200, "");
        else if (strncmp(text, "GET /v1/models ", 15) == 0)
            standin_answer(c->fd, 200, "{\"data\":[{\"id\":\"stand-in\"}]}");
        else if (strncmp(text, "POST ", 5) == 0 && strstr(text, "completions"))
            standin_generate(c->s, c->fd, end + 4);
        else
            standin_answer(c->fd, 404, "{\"error\":\"no such route\"}");
        break;
    }
    shutdown(c->fd, SHUT_WR);
    while (len > 0 && recv(c->fd, text, STANDIN_MAX_BODY, MSG_DONTWAIT) > 0)
        ;
    close(c->fd);
    free(text);
    free(c);
    return NULL;
}

static void *standin_accept(void *arg)
{
    struct standin *s = arg;
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    while (!s->stop) {
        if (poll(&p, 1, 20) <= 0)
            continue;
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            continue;
        if (s->n_threads == STANDIN_MAX_THREADS)
            abort();
        struct standin_connection *c = malloc(sizeof *c);
        *c = (struct standin_connection){s, fd};
        if (pthread_create(&s->threads[s->n_threads], NULL, standin_serve, c) != 0)
            abort();
        s->n_threads++;
    }
    return NULL;
}

/* s holds the script. */
static inline void standin_open(struct standin *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(s->fd, 128) != 0 || getsockname(s->fd, (struct sockaddr *)&a, &len) != 0)
        abort();
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", ntohs(a.sin_port));
    pthread_mutex_init(&s->lock, NULL);
    if (pthread_create(&s->acceptor, NULL, standin_accept, s) != 0)
        abort();
}

static inline void standin_close(struct standin *s)
{
    s->stop = true;
    pthread_join(s->acceptor, NULL);
    for (int i = 0; i < s->n_threads; i++)
        pthread_join(s->threads[i], NULL);
    close(s->fd);
    pthread_mutex_destroy(&s->lock);
}

#endif
