/* Downloads: several ranges of several files at once in the caller's thread (curl's multi interface), while a second thread hashes
 * each file as far as it is there without a gap.
 *
 * A job is a file: TODO until its blob's lock is had, ACTIVE while slots fill its segments, DONE when its checksum was right and it is linked.
 * A slot is a connection: one segment of one job at a time.  Shared with the hasher, under lock: a job's frontier, hashed, verdict, hashing. */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/mem.h"
#include "hub/hub_int.h"

enum { MAX_SLOTS = 64, MAX_ACTIVE = 64, HASH_CHUNK = 1 << 20, LOCK_POLL_US = 100000, PROGRESS_US = 100000, REAL_PROGRESS = 1 << 20 };

enum job_state { JOB_TODO, JOB_ACTIVE, JOB_DONE };
enum verdict { VERDICT_NONE, VERDICT_RIGHT, VERDICT_WRONG, VERDICT_IO };

struct job {
    struct hub_file *f;
    enum job_state state;
    int64_t try_us;                /* TODO: not before, another process has the lock */
    int lock_fd;
    struct hub_part part;
    bool *taken;                   /* segments that a slot works on */
    char *url, *direct;            /* the hub's address, and where it sent us */
    bool whole;                    /* the server knows no ranges */
    int n_wrong;

    int64_t frontier, hashed;
    enum verdict verdict;
    bool hashing;
    char found[65];                /* the checksum, when WRONG */
    struct hub_sha sha;
};

enum slot_state { SLOT_IDLE, SLOT_RUNNING, SLOT_PAUSED };

struct slot {
    struct transfer *t;
    struct hub_call call;
    enum slot_state state;
    struct job *job;
    int segment, attempts;
    int64_t until_us, done_before;
    bool direct;
};

struct transfer {
    struct hub_transfer *h;
    CURLM *multi;
    struct job *jobs;
    int n_jobs, n_done, n_active;
    struct slot slots[MAX_SLOTS];
    int n_slots;
    int64_t progress_us;

    pthread_mutex_t lock;
    pthread_cond_t wake, idle;     /* the hasher has work; it has put a job down */
    pthread_t hasher;
    bool has_hasher, stop;
};

/* ---- the hasher ---- */

static struct job *next_to_hash(const struct transfer *t)
{
    for (int i = 0; i < t->n_jobs; i++) {
        struct job *j = &t->jobs[i];
        if (j->state == JOB_ACTIVE && !j->verdict && (j->frontier - j->hashed >= HASH_CHUNK || j->frontier == j->part.size))
            return j;
    }
    return NULL;
}

/* Without the lock: the bytes [hashed, frontier) do not change. */
static enum verdict hash_some(struct job *j, char *chunk, int64_t from, int64_t to, int64_t *now)
{
    char hex[65];
    if (from == 0)
        hub_sha_begin(&j->sha, j->f->sha, (uint64_t)j->part.size);
    size_t want = to - from < HASH_CHUNK ? (size_t)(to - from) : HASH_CHUNK;
    ssize_t got = want ? pread(j->part.fd, chunk, want, from) : 0;
    *now = from;
    if (got < 0 && errno == EINTR)
        return VERDICT_NONE;
    if (got < 0 || (want && got == 0))
        return VERDICT_IO;
    hub_sha_update(&j->sha, chunk, (size_t)got);
    *now = from + got;
    if (*now < j->part.size)
        return VERDICT_NONE;
    hub_sha_end(&j->sha, hex);
    if (j->f->sha != HUB_SHA_NONE && strcmp(hex, j->f->etag) != 0) {
        memcpy(j->found, hex, sizeof hex);
        return VERDICT_WRONG;
    }
    return fdatasync(j->part.fd) == 0 ? VERDICT_RIGHT : VERDICT_IO;
}

static void *hasher_main(void *ctx)
{
    struct transfer *t = ctx;
    char *chunk = mem_try_alloc(HASH_CHUNK, 1);
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        struct job *j = next_to_hash(t);
        if (!j) {
            pthread_cond_wait(&t->wake, &t->lock);
            continue;
        }
        int64_t from = j->hashed, to = j->frontier, now = from;
        j->hashing = true;
        pthread_mutex_unlock(&t->lock);
        enum verdict v = chunk ? hash_some(j, chunk, from, to, &now) : VERDICT_IO;
        pthread_mutex_lock(&t->lock);
        j->hashed = now;
        j->verdict = v;
        j->hashing = false;
        pthread_cond_signal(&t->idle);
        if (v)
            curl_multi_wakeup(t->multi);
    }
    pthread_mutex_unlock(&t->lock);
    mem_free(chunk);
    return NULL;
}

static void set_frontier(struct transfer *t, struct job *j)
{
    int64_t frontier = hub_part_frontier(&j->part);
    pthread_mutex_lock(&t->lock);
    j->frontier = frontier;
    if (frontier - j->hashed >= HASH_CHUNK || frontier == j->part.size)
        pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

/* ---- jobs ---- */

/* The hasher no longer looks at j; the lock is held on return. */
static void take_from_hasher(struct transfer *t, struct job *j)
{
    pthread_mutex_lock(&t->lock);
    while (j->hashing)
        pthread_cond_wait(&t->idle, &t->lock);
}

static bool new_taken(struct job *j, struct err *e)
{
    mem_free(j->taken);
    j->taken = mem_try_zalloc((size_t)j->part.n_segments, sizeof *j->taken);
    return j->taken || err_set(e, ERR_NOMEM, "no memory for the map of a download");
}

/* Everything of j again; no slot works on it. */
static bool reset_job(struct transfer *t, struct job *j, struct err *e)
{
    take_from_hasher(t, j);
    bool ok = hub_part_reset(&j->part, j->whole, e) && new_taken(j, e);
    j->frontier = j->hashed = 0;
    j->verdict = VERDICT_NONE;
    pthread_mutex_unlock(&t->lock);
    return ok;
}

static void end_job(struct transfer *t, struct job *j, bool remove_part)
{
    take_from_hasher(t, j);
    j->state = JOB_DONE;
    pthread_mutex_unlock(&t->lock);
    hub_part_close(&j->part, remove_part);
    if (j->lock_fd >= 0)
        close(j->lock_fd);
    j->lock_fd = -1;
    t->n_active--;
    t->n_done++;
}

static char *file_url(const struct transfer *t, const struct hub_file *f, struct err *e)
{
    char *name = hub_escape(f->name, true, e);
    char *url = name ? hub_path(e, "%s/%s/resolve/%s/%s", t->h->http->endpoint, t->h->repo, t->h->commit, name) : NULL;
    mem_free(name);
    return url;
}

/* TODO to ACTIVE, to DONE when another process has done it; still TODO while another holds the lock. */
static bool open_job(struct transfer *t, struct job *j, struct err *e)
{
    const struct hub_transfer *h = t->h;
    int64_t segment = h->o->segment_bytes > 0 ? h->o->segment_bytes : INT64_C(32) << 20;
    if (!hub_cache_lock(h->cache, j->f, &j->lock_fd, e))
        return false;
    if (j->lock_fd < 0) {
        j->try_us = clock_now_us() + LOCK_POLL_US;
        return true;
    }
    t->n_active++;
    if (hub_cache_has_blob(h->cache, j->f)) {
        end_job(t, j, false);
        return hub_cache_link(h->cache, h->commit, j->f, e);
    }
    j->url = file_url(t, j->f, e);
    bool ok = j->url && hub_part_open(&j->part, h->cache, j->f, segment, e) && new_taken(j, e);
    if (!ok)
        return false;
    pthread_mutex_lock(&t->lock);
    j->state = JOB_ACTIVE;
    pthread_mutex_unlock(&t->lock);
    set_frontier(t, j);
    return true;
}

/* What the hasher found. */
static bool check_job(struct transfer *t, struct job *j, struct err *e)
{
    pthread_mutex_lock(&t->lock);
    enum verdict v = j->verdict;
    pthread_mutex_unlock(&t->lock);
    switch (v) {
    case VERDICT_NONE:
        return true;
    case VERDICT_IO:
        return err_set(e, ERR_IO, "%s: what was downloaded cannot be read back or kept", j->part.path);
    case VERDICT_WRONG:
        if (++j->n_wrong >= 2) {
            err_set(e, ERR_FORMAT, "%s: the checksum is wrong, twice: expected %s, found %s; nothing was kept", j->f->name, j->f->etag, j->found);
            end_job(t, j, true);
            return false;
        }
        log_warn(t->h->o->log, "hub", "%s: the checksum is wrong (expected %s, found %s): downloading it again", j->f->name, j->f->etag, j->found);
        return reset_job(t, j, e);
    case VERDICT_RIGHT:
        break;
    }
    if (j->f->sha == HUB_SHA_NONE)
        log_warn(t->h->o->log, "hub", "%s: the hub gives no checksum; only its length was checked", j->f->name);
    bool ok = hub_part_finish(&j->part, e);
    end_job(t, j, false);
    return ok && hub_cache_link(t->h->cache, t->h->commit, j->f, e);
}

/* ---- slots ---- */

static bool on_data(void *ctx, const char *data, size_t n, struct err *e)
{
    struct slot *s = ctx;
    if (!hub_part_write(&s->job->part, s->segment, data, n, e))
        return false;
    s->t->h->downloaded += (int64_t)n;
    set_frontier(s->t, s->job);
    return true;
}

/* A segment nobody works on; opens a file when those open have none. */
static bool find_work(struct transfer *t, struct job **job, int *segment, struct err *e)
{
    int64_t now = clock_now_us();
    *job = NULL;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < t->n_jobs; i++) {
            struct job *j = &t->jobs[i];
            if (pass == 1 && j->state == JOB_TODO && now >= j->try_us && t->n_active < MAX_ACTIVE && !open_job(t, j, e))
                return err_prefix(e, "%s", j->f->name);
            for (int k = 0; j->state == JOB_ACTIVE && k < j->part.n_segments; k++)
                if (!j->taken[k] && j->part.done[k] < hub_part_segment_len(&j->part, k)) {
                    *job = j;
                    *segment = k;
                    return true;
                }
        }
    return true;
}

static bool launch(struct transfer *t, struct slot *s, struct err *e)
{
    struct job *j = s->job;
    int64_t start = s->segment * j->part.segment_bytes;
    s->call.from = start + j->part.done[s->segment];
    s->call.to = start + hub_part_segment_len(&j->part, s->segment);
    s->call.size = j->part.size;
    s->call.sink = on_data;
    s->call.sink_ctx = s;
    s->done_before = j->part.done[s->segment];
    if (!s->call.url || !hub_call_prepare(t->h->http, &s->call, e))
        return s->call.url ? false : err_set(e, ERR_NOMEM, "no memory for a URL");
    curl_easy_setopt((CURL *)s->call.easy, CURLOPT_PRIVATE, (char *)s);
    if (curl_multi_add_handle(t->multi, s->call.easy) != CURLM_OK)
        return err_set(e, ERR_NOMEM, "no memory for a connection");
    s->state = SLOT_RUNNING;
    return true;
}

/* From the job's own address, or the one that led on from there. */
static bool start_at_home(struct transfer *t, struct slot *s, struct err *e)
{
    s->direct = s->job->direct != NULL;
    s->call.n_hops = 0;
    mem_free(s->call.url);
    s->call.url = mem_try_strdup(s->direct ? s->job->direct : s->job->url);
    return launch(t, s, e);
}

static void free_slot(struct transfer *t, struct slot *s)
{
    if (s->state == SLOT_RUNNING)
        curl_multi_remove_handle(t->multi, s->call.easy);
    if (s->state != SLOT_IDLE)
        s->job->taken[s->segment] = false;
    s->state = SLOT_IDLE;
    s->job = NULL;
}

static bool no_ranges(struct transfer *t, struct job *j, struct err *e)
{
    for (int i = 0; i < t->n_slots; i++)
        if (t->slots[i].job == j)
            free_slot(t, &t->slots[i]);
    log_info(t->h->o->log, "hub", "%s: the server sends no ranges; reading it whole", j->f->name);
    if (j->whole)
        return err_set(e, ERR_FORMAT, "%s: the server's answer is not what was asked for", j->f->name);
    j->whole = true;
    return reset_job(t, j, e);
}

/* Later, unless it was tried too often; what came counts as an attempt only when it was next to nothing. */
static bool pause_slot(struct transfer *t, struct slot *s, int wait_s, struct err *e)
{
    struct job *j = s->job;
    if (j->part.done[s->segment] - s->done_before >= REAL_PROGRESS)
        s->attempts = 0;
    if (++s->attempts >= hub_n_attempts(t->h->o))
        return err_prefix(e, "given up after %d attempts; what came is kept, a later run goes on from there", s->attempts);
    int ms = hub_retry_ms(t->h->o, s->attempts, wait_s);
    log_info(t->h->o->log, "hub", "%s; trying again in %.1f s", e->msg, ms / 1e3);
    s->state = SLOT_PAUSED;
    s->until_us = clock_now_us() + (int64_t)ms * 1000;
    return !j->whole || j->part.done[s->segment] == 0 || (reset_job(t, j, e) && (j->taken[s->segment] = true));
}

static bool follow(struct transfer *t, struct slot *s, struct err *e)
{
    hub_call_follow(&s->call);
    mem_free(s->job->direct);
    s->job->direct = mem_try_strdup(s->call.url);
    s->direct = true;
    return launch(t, s, e);
}

static bool finish_call(struct transfer *t, struct slot *s, CURLcode code, struct err *e)
{
    struct job *j = s->job;
    int wait_s, status;
    curl_multi_remove_handle(t->multi, s->call.easy);
    s->state = SLOT_PAUSED;        /* not in the multi handle any more, but still the segment's owner */
    if (!hub_part_save(&j->part, s->segment, e))
        return false;
    enum hub_verdict v = hub_call_judge(t->h->http, &s->call, (int)code, j->f->name, &wait_s, e);
    status = s->call.status;
    switch (v) {
    case HUB_CALL_OK:
        s->attempts = 0;
        free_slot(t, s);
        set_frontier(t, j);
        return true;
    case HUB_CALL_REDIRECT:
        return follow(t, s, e);
    case HUB_CALL_NO_RANGES:
        return no_ranges(t, j, e);
    case HUB_CALL_AGAIN:
    case HUB_CALL_FAILED:
        break;
    }
    bool expired = s->direct && (status == 401 || status == 403 || status == 404 || status == 410);
    if (s->direct) {               /* signed addresses expire: ask the hub for a new one */
        mem_free(j->direct);
        j->direct = NULL;
    }
    return (expired || v == HUB_CALL_AGAIN) && pause_slot(t, s, wait_s, e);
}

static bool give_work(struct transfer *t, struct err *e)
{
    int64_t now = clock_now_us();
    bool more = true;
    for (int i = 0; i < t->n_slots; i++) {
        struct slot *s = &t->slots[i];
        if (s->state == SLOT_PAUSED && now >= s->until_us && !start_at_home(t, s, e))
            return false;
        if (s->state != SLOT_IDLE || !more)
            continue;
        if (!find_work(t, &s->job, &s->segment, e))
            return false;
        more = s->job != NULL;
        if (!more)
            continue;
        s->job->taken[s->segment] = true;
        s->attempts = 0;
        s->state = SLOT_PAUSED;
        if (!start_at_home(t, s, e))
            return false;
    }
    return true;
}

/* ---- the loop ---- */

static void report(struct transfer *t, bool now)
{
    const struct hub_opts *o = t->h->o;
    struct hub_progress p = {.done_bytes = t->h->base_done, .total_bytes = t->h->total, .n_done = t->h->base_n_done + t->n_done, .n_files = t->h->n_files};
    int64_t time = clock_now_us();
    if (!o->progress || (!now && time - t->progress_us < PROGRESS_US))
        return;
    t->progress_us = time;
    for (int i = 0; i < t->n_jobs; i++) {
        const struct job *j = &t->jobs[i];
        p.done_bytes += j->state == JOB_DONE ? j->f->size : j->state == JOB_ACTIVE ? hub_part_total(&j->part) : 0;
        if (j->state == JOB_ACTIVE && (!p.name || j->f->sha == HUB_SHA256))
            p.name = j->f->name;
    }
    o->progress(o->progress_ctx, &p);
}

static int pause_ms(const struct transfer *t)
{
    int64_t now = clock_now_us(), until = now + 500000;
    for (int i = 0; i < t->n_slots; i++)
        if (t->slots[i].state == SLOT_PAUSED && t->slots[i].until_us < until)
            until = t->slots[i].until_us;
    for (int i = 0; i < t->n_jobs; i++)
        if (t->jobs[i].state == JOB_TODO && t->jobs[i].try_us && t->jobs[i].try_us < until)
            until = t->jobs[i].try_us;
    return until <= now ? 1 : (int)((until - now) / 1000) + 1;
}

static bool turn(struct transfer *t, struct err *e)
{
    int running, left;
    if (!give_work(t, e))
        return false;
    if (curl_multi_perform(t->multi, &running) != CURLM_OK)
        return err_set(e, ERR_INTERNAL, "curl_multi_perform failed");
    for (CURLMsg *m; (m = curl_multi_info_read(t->multi, &left));) {
        struct slot *s = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        if (!finish_call(t, s, m->data.result, e))
            return false;
    }
    for (int i = 0; i < t->n_jobs; i++)
        if (t->jobs[i].state == JOB_ACTIVE && !check_job(t, &t->jobs[i], e))
            return false;
    report(t, false);
    bool hungry = false;           /* an idle slot may take what the last answers made free */
    for (int i = 0; i < t->n_slots; i++)
        hungry |= t->slots[i].state == SLOT_IDLE;
    if (t->n_done < t->n_jobs)
        curl_multi_poll(t->multi, NULL, 0, hungry && running == 0 ? (pause_ms(t) < 50 ? pause_ms(t) : 50) : pause_ms(t), NULL);
    return true;
}

static void close_all(struct transfer *t)
{
    for (int i = 0; i < t->n_slots; i++) {
        if (t->slots[i].state == SLOT_RUNNING && hub_part_save(&t->slots[i].job->part, t->slots[i].segment, NULL))
            curl_multi_remove_handle(t->multi, t->slots[i].call.easy);
        hub_call_free(&t->slots[i].call);
    }
    if (t->has_hasher) {
        pthread_mutex_lock(&t->lock);
        t->stop = true;
        pthread_cond_signal(&t->wake);
        pthread_mutex_unlock(&t->lock);
        pthread_join(t->hasher, NULL);
    }
    if (t->multi)
        curl_multi_cleanup(t->multi);
    for (int i = 0; t->jobs && i < t->n_jobs; i++) {
        struct job *j = &t->jobs[i];
        if (j->state != JOB_DONE)
            hub_part_close(&j->part, false);
        if (j->lock_fd >= 0)
            close(j->lock_fd);
        mem_free(j->taken);
        mem_free(j->url);
        mem_free(j->direct);
    }
    mem_free(t->jobs);
    pthread_cond_destroy(&t->wake);
    pthread_cond_destroy(&t->idle);
    pthread_mutex_destroy(&t->lock);
}

bool hub_transfer_run(struct hub_transfer *h, struct hub_file *const *files, int n, struct err *e)
{
    struct transfer *t = mem_try_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "no memory for a download");
    t->h = h;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    pthread_cond_init(&t->idle, NULL);
    t->jobs = mem_try_zalloc((size_t)n, sizeof *t->jobs);
    t->n_jobs = n;
    for (int i = 0; t->jobs && i < n; i++)
        t->jobs[i] = (struct job){.f = files[i], .lock_fd = -1, .part.fd = -1};
    t->n_slots = h->o->n_connections > 0 ? h->o->n_connections : 8;
    t->n_slots = t->n_slots > MAX_SLOTS ? MAX_SLOTS : t->n_slots;
    for (int i = 0; i < t->n_slots; i++)
        t->slots[i].t = t;
    t->multi = curl_multi_init();
    bool ok = t->jobs && t->multi && pthread_create(&t->hasher, NULL, hasher_main, t) == 0;
    t->has_hasher = ok;
    if (!ok)
        err_set(e, ERR_NOMEM, "no memory for a download");
    else
        curl_multi_setopt(t->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);   /* a connection a range: one shared by all is slower */
    while (ok && t->n_done < n)
        ok = turn(t, e);
    if (ok)
        report(t, true);
    for (int i = 0; ok && i < n; i++)
        h->base_done += files[i]->size;
    h->base_n_done += ok ? n : 0;
    close_all(t);
    mem_free(t);
    return ok;
}
