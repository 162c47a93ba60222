/* A server started for one measurement: its URL is read from what it prints. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "bench/context.h"

enum { STOP_TIMEOUT_US = 10 * 1000000, MAX_BANNER = 1 << 16 };

/* Only what may be called between fork and exec. */
static void run_child(char *const argv[], int out, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || dup2(out, STDOUT_FILENO) < 0)
        _exit(127);
    execv(argv[0], argv);
    _exit(127);
}

/* The first complete line with a URL, up to the next blank. */
static bool find_url(const struct buf *text, char *url, size_t cap)
{
    const char *p = text->data ? strstr(text->data, "http://") : NULL;
    if (!p || !strchr(p, '\n'))
        return false;
    size_t n = strcspn(p, " \t\r\n");
    snprintf(url, cap, "%.*s", (int)n, p);
    return n < cap;
}

static bool read_url(struct bench_server *s, double timeout_s, struct buf *text, struct err *e)
{
    int64_t until = clock_now_us() + (int64_t)(timeout_s * 1e6);
    while (!find_url(text, s->url, sizeof s->url)) {
        char chunk[1024];
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        int64_t left = until - clock_now_us();
        if (left <= 0)
            return err_set(e, ERR_TIMEOUT, "the server named no address within %.0f s", timeout_s);
        int r = poll(&p, 1, left > 1000000 ? 1000 : (int)(left / 1000) + 1);
        if (r < 0 && errno != EINTR)
            return err_set(e, ERR_IO, "poll: %s", strerror(errno));
        if (r <= 0)
            continue;
        ssize_t n = read(s->fd, chunk, sizeof chunk);
        if (n == 0)
            return err_set(e, ERR_IO, "the server ended before it named its address");
        if (n > 0 && !buf_append(text, chunk, (size_t)n))
            return err_set(e, ERR_FORMAT, "the server printed %d bytes and no address", MAX_BANNER);
    }
    return true;
}

bool bench_server_start(struct bench_server *s, char *const argv[], double timeout_s, struct err *e)
{
    int fds[2];
    struct buf text;
    *s = (struct bench_server){.fd = -1};
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(e, ERR_IO, "pipe: %s", strerror(errno));
    pid_t parent = getpid();
    s->fd = fds[0];
    s->pid = fork();
    if (s->pid == 0)
        run_child(argv, fds[1], parent);
    close(fds[1]);
    if (s->pid < 0) {
        int error = errno;
        bench_server_stop(s);
        return err_set(e, ERR_IO, "fork: %s", strerror(error));
    }
    buf_init(&text, MAX_BANNER);
    bool ok = read_url(s, timeout_s, &text, e);
    buf_free(&text);
    if (!ok)
        bench_server_stop(s);
    return ok;
}

void bench_server_stop(struct bench_server *s)
{
    int status;
    if (s->pid > 0) {
        int64_t until = clock_now_us() + STOP_TIMEOUT_US;
        kill(s->pid, SIGTERM);
        while (waitpid(s->pid, &status, WNOHANG) == 0) {
            if (clock_now_us() > until) {
                kill(s->pid, SIGKILL);
                waitpid(s->pid, &status, 0);
                break;
            }
            poll(NULL, 0, 10);
        }
        close(s->fd);
    } else if (s->pid < 0) {
        close(s->fd);
    }
    *s = (struct bench_server){.fd = -1};
}
