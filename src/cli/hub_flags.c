/* Where MODEL comes from: a path, or a hub id found in the cache or downloaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "hub/hub.h"

void cli_hub_table(struct cli_hub_flags *f, struct cli_opt table[CLI_HUB_OPTS])
{
    const struct cli_opt all[] = {
        {"revision", 0, CLI_STR, &f->revision, "REV", "branch, tag or commit of a hub model; main unless its id names one", 0, 0},
        {"download-dir", 0, CLI_STR, &f->download_dir, "DIR", "cache of hub models instead of HF_HUB_CACHE or HF_HOME/hub", 0, 0},
        {"hf-token", 0, CLI_STR, &f->token, "TOKEN", "for private and gated hub models, instead of HF_TOKEN or the token that was saved", 0, 0},
        {"offline", 0, CLI_FLAG, &f->offline, NULL, "hub models from the cache only, as with HF_HUB_OFFLINE=1", 0, 0},
        {0},
    };
    _Static_assert(sizeof all / sizeof all[0] <= CLI_HUB_OPTS, "table is too small");
    memcpy(table, all, sizeof all);
}

/* ---- the environment of Hugging Face's tools ---- */

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static bool env_is_on(const char *name)
{
    const char *v = env(name);
    return v && (strcmp(v, "1") == 0 || strcasecmp(v, "on") == 0 || strcasecmp(v, "yes") == 0 || strcasecmp(v, "true") == 0);
}

static bool put(char *out, size_t cap, struct err *e, const char *a, const char *b)
{
    if (strncmp(a, "~/", 2) == 0 && env("HOME"))
        return (size_t)snprintf(out, cap, "%s%s%s", env("HOME"), a + 1, b) < cap || err_set(e, ERR_INVALID, "%.80s..: too long a path", a);
    return (size_t)snprintf(out, cap, "%s%s", a, b) < cap || err_set(e, ERR_INVALID, "%.80s..: too long a path", a);
}

/* HF_HOME, else XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface; with tail behind it. */
static bool in_home(char *out, size_t cap, const char *tail, struct err *e)
{
    char both[64];
    if (env("HF_HOME"))
        return put(out, cap, e, env("HF_HOME"), tail);
    snprintf(both, sizeof both, "%s/huggingface%s", env("XDG_CACHE_HOME") ? "" : "/.cache", tail);
    const char *base = env("XDG_CACHE_HOME") ? env("XDG_CACHE_HOME") : env("HOME");
    return base ? put(out, cap, e, base, both) : err_set(e, ERR_INVALID, "no place for hub models: set HF_HOME, HOME or --download-dir");
}

static bool find_cache(struct cli_hub_flags *f, struct err *e)
{
    const char *dir = f->download_dir ? f->download_dir : env("HF_HUB_CACHE") ? env("HF_HUB_CACHE") : env("HUGGINGFACE_HUB_CACHE");
    return dir ? put(f->cache, sizeof f->cache, e, dir, "") : in_home(f->cache, sizeof f->cache, "/hub", e);
}

/* The token: from the flag, the environment, or the file where `huggingface-cli login` leaves it. */
static bool find_token(struct cli_hub_flags *f, struct err *e)
{
    char path[sizeof f->cache];
    size_t len;
    const char *token = f->token ? f->token : env("HF_TOKEN") ? env("HF_TOKEN") : env("HUGGING_FACE_HUB_TOKEN");
    f->secret[0] = 0;
    char *text = NULL;
    if (!token && !env_is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
        bool named = env("HF_TOKEN_PATH") ? put(path, sizeof path, e, env("HF_TOKEN_PATH"), "") : in_home(path, sizeof path, "/token", NULL);
        text = named ? file_read(path, sizeof f->secret, &len, NULL) : NULL;
        token = text;
    }
    if (token) {
        const char *start = token + strspn(token, " \t\r\n");
        size_t n = strcspn(start, " \t\r\n");
        if (n >= sizeof f->secret) {
            mem_free(text);
            return err_set(e, ERR_INVALID, "the hub's token is longer than %zu characters", sizeof f->secret - 1);
        }
        memcpy(f->secret, start, n);
        f->secret[n] = 0;
    }
    mem_free(text);
    return true;
}

bool cli_hub_opts(struct cli_hub_flags *f, struct hub_opts *o, struct err *e)
{
    *o = (struct hub_opts){.offline = f->offline || env_is_on("HF_HUB_OFFLINE") || env_is_on("TRANSFORMERS_OFFLINE")};
    if (!find_cache(f, e) || !find_token(f, e) || !put(f->endpoint, sizeof f->endpoint, e, env("HF_ENDPOINT") ? env("HF_ENDPOINT") : "https://huggingface.co", ""))
        return false;
    for (size_t n = strlen(f->endpoint); n && f->endpoint[n - 1] == '/'; n--)
        f->endpoint[n - 1] = 0;
    o->endpoint = f->endpoint;
    o->token = f->secret[0] ? f->secret : NULL;
    o->cache_dir = f->cache;
    return true;
}

/* ---- progress ---- */

static int terminal_lines(const struct hub_progress *p, double rate, char *out, size_t cap)
{
    double left = rate > 0 ? (double)(p->total_bytes - p->done_bytes) / rate : 0;
    char time[32];
    if (left >= 3600)
        snprintf(time, sizeof time, "%.1f h", left / 3600);
    else
        snprintf(time, sizeof time, "%.0f s", left);
    return snprintf(out, cap, "%3.0f%%  %.2f of %.2f GB, file %d of %d, %.1f MB/s, %s left", p->total_bytes ? 100.0 * (double)p->done_bytes / (double)p->total_bytes : 100.0,
                    (double)p->done_bytes / 1e9, (double)p->total_bytes / 1e9, p->n_done < p->n_files ? p->n_done + 1 : p->n_files, p->n_files, rate / 1e6, time);
}

void cli_hub_progress(void *progress, const struct hub_progress *p)
{
    enum { WIDTH = 20 };
    struct cli_progress *bar = progress;
    char text[160], marks[WIDTH + 1];
    int64_t now = clock_now_us();
    if (!bar->shown && !bar->base)
        bar->base = p->done_bytes + 1;     /* what was there before says nothing about the speed */
    if (!bar->tty || p->total_bytes <= 0 || now - bar->start_us < 1000000)
        return;
    bar->shown = true;
    int filled = (int)(WIDTH * (double)p->done_bytes / (double)p->total_bytes);
    for (int i = 0; i < WIDTH; i++)
        marks[i] = i < filled ? '#' : '.';
    marks[WIDTH] = 0;
    terminal_lines(p, (double)(p->done_bytes + 1 - bar->base) / ((double)(now - bar->start_us) / 1e6), text, sizeof text);
    fprintf(stderr, "\r%s [%s] %s\033[K", bar->label, marks, text);
    fflush(stderr);
}

/* ---- MODEL ---- */

bool cli_model_path(struct cli_hub_flags *f, const char *model, bool text_only, struct log *lg, const char **path, struct err *e)
{
    struct hub_ref ref;
    struct hub_opts o;
    struct hub_result r;
    struct cli_progress bar;
    *path = model;
    if (!model || file_exists(model) || !hub_ref_fits(model))
        return true;
    if (!hub_ref_parse(&ref, model, e) || !cli_hub_opts(f, &o, e))
        return false;
    if (f->revision && snprintf(ref.revision, sizeof ref.revision, "%s", f->revision) >= (int)sizeof ref.revision)
        return err_set(e, ERR_INVALID, "--revision: too long");
    o.want = text_only ? HUB_WANT_TEXT : HUB_WANT_MODEL;
    o.log = lg;
    o.progress = cli_hub_progress;
    o.progress_ctx = &bar;
    cli_progress_begin(&bar, "downloading");
    bool ok = hub_get(&r, &ref, &o, e);
    cli_progress_end(&bar);
    if (!ok)
        return err_prefix(e, "%s is no file or folder here, and as a hub model", model);
    ok = snprintf(f->path, sizeof f->path, "%s", r.path) < (int)sizeof f->path || err_set(e, ERR_INVALID, "%s: too long a path", model);
    hub_result_free(&r);
    *path = f->path;
    return ok;
}
