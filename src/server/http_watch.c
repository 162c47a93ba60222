/* Watches the sockets of waiting requests for clients that hang up.
 *
 * Events carry a key, not a pointer: an event already fetched for a request that ends meanwhile, or for
 * a descriptor that was reused, finds nothing in the map. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "server/http_int.h"

enum { STOP_KEY = 0, N_EVENTS = 64 };

static void client_gone(struct http *h, uint64_t key)
{
    int64_t value;
    pthread_mutex_lock(&h->watch_lock);
    struct http_exchange *x = hash_u64_get(h->watched, key, &value) ? (struct http_exchange *)(intptr_t)value : NULL;
    if (x)
        http_exchange_ref(x);
    pthread_mutex_unlock(&h->watch_lock);
    if (!x)
        return;
    atomic_store(&x->gone, true);
    http_exchange_resume(x);
    http_exchange_unref(x);
}

static void *watch_main(void *arg)
{
    struct http *h = arg;
    struct epoll_event events[N_EVENTS];
    pthread_setname_np(pthread_self(), "quire-watch");
    for (;;) {
        int n = epoll_wait(h->epoll_fd, events, N_EVENTS, -1);
        if (n < 0 && errno != EINTR)
            return NULL;
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == STOP_KEY)
                return NULL;
            client_gone(h, events[i].data.u64);
        }
    }
}

bool http_watch_open(struct http *h, struct err *e)
{
    h->next_key = STOP_KEY + 1;
    h->watched = hash_u64_open(64);
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = STOP_KEY};
    if (!h->watched || h->epoll_fd < 0 || h->stop_fd < 0 || epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->stop_fd, &ev) != 0)
        return err_set(e, ERR_IO, "epoll could not be set up: %s", strerror(errno));
    if (pthread_create(&h->watch_thread, NULL, watch_main, h) != 0)
        return err_set(e, ERR_IO, "the thread that watches clients could not be started");
    h->watch_started = true;
    return true;
}

void http_watch_close(struct http *h)
{
    if (h->watch_started) {
        uint64_t one = 1;
        while (write(h->stop_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
        pthread_join(h->watch_thread, NULL);
    }
    if (h->epoll_fd >= 0)
        close(h->epoll_fd);
    if (h->stop_fd >= 0)
        close(h->stop_fd);
    hash_u64_close(&h->watched);
    pthread_mutex_destroy(&h->watch_lock);
}

static int socket_of(const struct http_exchange *x)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? (int)info->connect_fd : -1;
}

void http_watch_add(struct http_exchange *x)
{
    struct http *h = x->h;
    int fd = socket_of(x);
    pthread_mutex_lock(&h->watch_lock);
    x->key = h->next_key++;
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLONESHOT, .data.u64 = x->key};
    bool known = hash_u64_put(h->watched, x->key, (int64_t)(intptr_t)x);
    if (known && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0)
        x->watched_fd = fd;
    else if (known) /* served all the same; a client that hangs up is noticed when the answer cannot be sent */
        hash_u64_del(h->watched, x->key);
    pthread_mutex_unlock(&h->watch_lock);
}

void http_watch_remove(struct http_exchange *x)
{
    if (x->watched_fd < 0)
        return;
    pthread_mutex_lock(&x->h->watch_lock);
    hash_u64_del(x->h->watched, x->key);
    epoll_ctl(x->h->epoll_fd, EPOLL_CTL_DEL, x->watched_fd, NULL);
    pthread_mutex_unlock(&x->h->watch_lock);
    x->watched_fd = -1;
}
