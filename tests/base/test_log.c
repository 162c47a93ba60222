#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

/* A log into a packet pipe: each read returns what one write wrote. */
struct capture { int fd[2]; char text[1 << 16]; size_t len; };

static void capture_open(struct capture *c)
{
    assert_int_equal(pipe2(c->fd, O_DIRECT | O_NONBLOCK), 0);
}

static const char *capture_next(struct capture *c)
{
    ssize_t n = read(c->fd[0], c->text, sizeof c->text - 1);
    c->len = n > 0 ? (size_t)n : 0;
    c->text[c->len] = '\0';
    return c->text;
}

static void capture_close(struct capture *c)
{
    close(c->fd[0]);
    close(c->fd[1]);
}

static void text_lines(void **state)
{
    (void)state;
    static struct capture c;
    capture_open(&c);
    struct log *lg = log_open(c.fd[1], LOG_INFO, LOG_TEXT);
    errno = 77;
    log_info(lg, "request", "id=%s status=%d", "r-1", 200);
    assert_int_equal(errno, 77);
    const char *line = capture_next(&c);
    assert_string_equal(line + 24, " info request id=r-1 status=200\n");
    log_warn(lg, "e", "a\nb\tc\x1b[1m\x7f \xc3\xa9 \xff \xc2\x85");
    assert_string_equal(capture_next(&c) + 24, " warn e a\\nb\\tc\\x1b[1m\\x7f \xc3\xa9 \\xff \\x85\n");
    log_error(lg, "e", "%s", "");
    assert_string_equal(capture_next(&c) + 24, " error e \n");
    log_close(&lg);
    lg = log_open(-1, LOG_INFO, LOG_TEXT);
    log_info(lg, "e", "the write fails");
    assert_int_equal(errno, 77);
    log_close(&lg);
    assert_null(lg);
    log_close(&lg);
    capture_close(&c);
}

static void json_lines(void **state)
{
    (void)state;
    static struct capture c;
    capture_open(&c);
    struct log *lg = log_open(c.fd[1], LOG_TRACE, LOG_JSON);
    log_trace(lg, "st\"ep", "quote \" back \\ nl \n nul-like \x01 bad \xf0\x9f end");
    capture_next(&c);
    assert_true(c.len > 1 && c.text[c.len - 1] == '\n' && !memchr(c.text, '\n', c.len - 1));
    struct err e;
    json_t *j = json_parse(c.text, c.len, &e);
    assert_non_null(j);
    const char *ts, *level, *event, *msg;
    assert_true(json_get_str(j, "ts", NULL, &ts, &e) && json_get_str(j, "level", NULL, &level, &e));
    assert_true(json_get_str(j, "event", NULL, &event, &e) && json_get_str(j, "msg", NULL, &msg, &e));
    assert_int_equal(strlen(ts), 24);
    assert_string_equal(level, "trace");
    assert_string_equal(event, "st\"ep");
    assert_string_equal(msg, "quote \" back \\ nl \n nul-like \x01 bad \xef\xbf\xbd end");
    json_decref(j);
    log_close(&lg);
    capture_close(&c);
}

static void levels(void **state)
{
    (void)state;
    static struct capture c;
    capture_open(&c);
    struct log *lg = log_open(c.fd[1], LOG_WARN, LOG_TEXT);
    assert_true(log_enabled(lg, LOG_ERROR) && log_enabled(lg, LOG_WARN) && !log_enabled(lg, LOG_INFO));
    log_info(lg, "x", "not seen");
    assert_string_equal(capture_next(&c), "");
    log_set_level(lg, LOG_DEBUG);
    assert_true(log_enabled(lg, LOG_DEBUG) && !log_enabled(lg, LOG_TRACE));
    log_debug(lg, "x", "seen");
    assert_true(strlen(capture_next(&c)) > 0);
    log_close(&lg);
    assert_false(log_enabled(NULL, LOG_ERROR));
    log_error(NULL, "x", "nowhere %d", 1);
    enum log_level l;
    static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
    for (int i = 0; i < 5; i++)
        assert_true(log_level_parse(names[i], &l) && (int)l == i);
    assert_false(log_level_parse("INFO", &l) || log_level_parse("", &l) || log_level_parse("infos", &l));
    capture_close(&c);
}

static void long_lines_and_lost_ones(void **state)
{
    (void)state;
    static struct capture c;
    char text[3001];
    memset(text, 'y', 3000);
    text[3000] = 0;
    capture_open(&c);
    struct log *lg = log_open(c.fd[1], LOG_INFO, LOG_TEXT);
    for (int n = 1000; n <= 3000; n += 8) {
        log_info(lg, "e", "%.*s", n, text);
        capture_next(&c);
        assert_int_equal(c.len, 24 + strlen(" info e ") + (size_t)n + 1);
    }
    mem_fault_after(1); /* no room for the message: its beginning */
    log_info(lg, "e", "%s", text);
    capture_next(&c);
    assert_true(c.len > 1000 && c.len < 1100 && c.text[c.len - 1] == '\n');
    mem_fault_after(1); /* no room for the line: a note in its place */
    log_info(lg, "e", "short");
    assert_non_null(strstr(capture_next(&c), "out of memory"));
    log_close(&lg);
    lg = log_open(c.fd[1], LOG_INFO, LOG_JSON);
    mem_fault_after(1);
    log_info(lg, "e", "short");
    capture_next(&c);
    json_t *j = json_parse(c.text, c.len, NULL);
    assert_non_null(j);
    json_decref(j);
    mem_fault_after(1);
    assert_null(log_open(2, LOG_INFO, LOG_TEXT));
    mem_fault_after(0);
    log_close(&lg);
    capture_close(&c);
}

static void *writer(void *arg)
{
    for (int i = 0; i < 500; i++)
        log_info(arg, "thread", "%0200d", i);
    return NULL;
}

static void threads_do_not_mix(void **state)
{
    (void)state;
    char path[] = "/tmp/quire-log-XXXXXX";
    int fd = mkstemp(path), n = 0;
    close(fd);
    fd = open(path, O_WRONLY | O_APPEND);
    struct log *lg = log_open(fd, LOG_INFO, LOG_JSON);
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, writer, lg);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    log_close(&lg);
    close(fd);
    FILE *f = fopen(path, "r");
    char line[1024];
    while (fgets(line, sizeof line, f)) {
        json_t *j = json_parse(line, strlen(line), NULL);
        assert_non_null(j);
        json_decref(j);
        n++;
    }
    fclose(f);
    unlink(path);
    assert_int_equal(n, 2000);
}

static void named_values(void **state)
{
    (void)state;
    struct capture c;
    const struct log_field fields[] = {{"id", "a\"b\n", false}, {"n", "12.5", true}, {"cut", "true", true}};
    capture_open(&c);
    struct log *lg = log_open(c.fd[1], LOG_INFO, LOG_JSON);
    log_fields(lg, LOG_INFO, "http", fields, 3);
    json_t *j = json_loads(capture_next(&c), 0, NULL);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "event")), "http");
    assert_string_equal(json_string_value(json_object_get(j, "id")), "a\"b\n");
    assert_true(json_real_value(json_object_get(j, "n")) == 12.5);
    assert_true(json_is_true(json_object_get(j, "cut")));
    json_decref(j);
    log_fields(lg, LOG_DEBUG, "http", fields, 3);
    assert_string_equal(capture_next(&c), "");
    log_close(&lg);
    lg = log_open(c.fd[1], LOG_INFO, LOG_TEXT);
    log_fields(lg, LOG_INFO, "http", fields, 3);
    assert_non_null(strstr(capture_next(&c), "Z info http id=a\"b\\n n=12.5 cut=true\n"));
    log_close(&lg);
    capture_close(&c);
}

static size_t read_all(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, cap - 1, f) : 0;
    out[n] = 0;
    if (f)
        fclose(f);
    return n;
}

static void rotation(void **state)
{
    (void)state;
    char dir[] = "/tmp/quire-test-log-XXXXXX", path[64], old[64], text[4096];
    struct log *lg;
    struct err e;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.log", dir);
    snprintf(old, sizeof old, "%s/a.log.1", dir);
    assert_true(log_open_file(&lg, path, LOG_INFO, LOG_TEXT, &e));
    log_info(lg, "x", "first");
    assert_int_equal(rename(path, old), 0);
    log_info(lg, "x", "second");
    assert_true(log_reopen(lg, &e));
    log_info(lg, "x", "third");
    read_all(old, text, sizeof text);
    assert_true(strstr(text, "first") && strstr(text, "second") && !strstr(text, "third"));
    read_all(path, text, sizeof text);
    assert_true(strstr(text, "third") && !strstr(text, "second"));
    unlink(path);
    unlink(old);
    rmdir(dir);
    assert_false(log_reopen(lg, &e));        /* the folder is gone: what is open stays open */
    log_info(lg, "x", "fourth");
    assert_int_equal(log_n_lost(lg), 0);
    log_close(&lg);
    assert_false(log_open_file(&lg, path, LOG_INFO, LOG_TEXT, &e));
    assert_non_null(strstr(e.msg, "a.log"));
}

static void full_disk(void **state)
{
    (void)state;
    struct log *lg;
    struct err e;
    if (!log_open_file(&lg, "/dev/full", LOG_INFO, LOG_TEXT, &e))
        skip();
    for (int i = 0; i < 3; i++)
        log_info(lg, "x", "nobody will read this");
    assert_int_equal(log_n_lost(lg), 3);
    log_close(&lg);
}

/* A pipe that nobody reads for a while. */
static void a_reader_that_stops(void **state)
{
    (void)state;
    int fd[2];
    char text[1 << 17];
    struct timespec from, to;
    assert_int_equal(pipe(fd), 0);
    struct log *lg = log_open(fd[1], LOG_INFO, LOG_TEXT);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < 3000; i++)
        log_info(lg, "x", "line %d of very many that fill the pipe before anybody reads", i);
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_true(to.tv_sec - from.tv_sec < 3);
    unsigned long long lost = log_n_lost(lg);
    assert_in_range(lost, 1000, 2999);
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && fcntl(fd[0], F_SETFL, O_NONBLOCK) == 0 && (got = read(fd[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    unsigned long long lines = 0;
    for (char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines + lost, 3000);
    log_info(lg, "x", "read again");
    assert_int_equal(log_n_lost(lg), lost);
    n = (size_t)read(fd[0], text, sizeof text - 1);
    text[n] = 0;
    assert_non_null(strstr(text, "read again\n"));
    log_close(&lg);
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_values), cmocka_unit_test(a_reader_that_stops), cmocka_unit_test(rotation), cmocka_unit_test(full_disk),
        cmocka_unit_test(text_lines), cmocka_unit_test(json_lines), cmocka_unit_test(levels),
        cmocka_unit_test(long_lines_and_lost_ones), cmocka_unit_test(threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
