/* quire pull: a model from a hub into the cache. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "hub/hub.h"

struct pull {
    struct cli_hub_flags hub;
    struct cli_list include, exclude;
    const char *log_level;
    int32_t connections, attempts, stall;
    bool dry_run, verify, text_only, json;
};

static bool print_json(const struct hub_result *r, bool dry_run, struct err *e)
{
    json_t *files = json_array();
    for (int i = 0; i < r->n_files; i++)
        json_array_append_new(files, json_pack("{s:s,s:I,s:b}", "name", r->files[i].name, "size", (json_int_t)r->files[i].size, "cached", r->files[i].cached));
    json_t *j = json_pack("{s:s,s:s,s:s,s:I,s:I,s:b,s:o}", "path", r->path, "snapshot", r->snapshot, "commit", r->commit, "total_bytes",
                          (json_int_t)r->total_bytes, "downloaded_bytes", (json_int_t)r->downloaded_bytes, "dry_run", dry_run, "files", files);
    struct buf b;
    buf_init(&b, 0);
    bool ok = j && json_write(j, &b) && buf_putc(&b, '\n') && fwrite(b.data, 1, b.len, stdout) == b.len && fflush(stdout) == 0;
    json_decref(j);
    buf_free(&b);
    return ok || err_set(e, ERR_IO, "the answer could not be written");
}

static void print_plan(const struct hub_result *r)
{
    for (int i = 0; i < r->n_files; i++)
        printf("%15lld  %s%s\n", (long long)r->files[i].size, r->files[i].name, r->files[i].cached ? "  (in the cache)" : "");
    printf("%15lld  bytes in %d files of commit %s\n", (long long)r->total_bytes, r->n_files, r->commit);
}

static bool pull(struct pull *p, const char *id, struct log *lg, struct err *e)
{
    struct hub_ref ref;
    struct hub_opts o;
    struct hub_result r;
    struct cli_progress bar;
    if (!hub_ref_parse(&ref, id, e) || !cli_hub_opts(&p->hub, &o, e))
        return false;
    if (p->hub.revision && snprintf(ref.revision, sizeof ref.revision, "%s", p->hub.revision) >= (int)sizeof ref.revision)
        return err_set(e, ERR_INVALID, "--revision: too long");
    o.refresh = true;
    o.dry_run = p->dry_run;
    o.verify = p->verify;
    o.want = p->text_only ? HUB_WANT_TEXT : HUB_WANT_MODEL;
    o.include = p->include.items;
    o.n_include = p->include.n;
    o.exclude = p->exclude.items;
    o.n_exclude = p->exclude.n;
    o.n_connections = p->connections;
    o.n_attempts = p->attempts;
    o.stall_s = p->stall;
    o.log = lg;
    o.progress = cli_hub_progress;
    o.progress_ctx = &bar;
    cli_progress_begin(&bar, ref.repo);
    bool ok = hub_get(&r, &ref, &o, e);
    cli_progress_end(&bar);
    if (!ok)
        return false;
    if (p->json)
        ok = print_json(&r, p->dry_run, e);
    else if (p->dry_run)
        print_plan(&r);
    else
        puts(r.path);
    if (ok && !p->json && !p->dry_run && isatty(STDERR_FILENO))
        fprintf(stderr, "%d files, %.3f GB, of which %.3f GB were downloaded now\n", r.n_files, (double)r.total_bytes / 1e9, (double)r.downloaded_bytes / 1e9);
    hub_result_free(&r);
    return ok;
}

int cmd_pull(int argc, char **argv)
{
    struct pull p = {.log_level = "warn"};
    struct cli_opt hub_table[CLI_HUB_OPTS];
    cli_hub_table(&p.hub, hub_table);
    const struct cli_opt opts[] = {
        {"include", 0, CLI_LIST, &p.include, "PATTERN", "these files instead of the ones quire needs, as '*.json'", 0, 0},
        {"exclude", 0, CLI_LIST, &p.exclude, "PATTERN", "not these files", 0, 0},
        {"text-only", 0, CLI_FLAG, &p.text_only, NULL, "configuration and tokenizer, no weights", 0, 0},
        {"verify", 0, CLI_FLAG, &p.verify, NULL, "check the checksums of what is in the cache, and download again what is wrong", 0, 0},
        {"dry-run", 0, CLI_FLAG, &p.dry_run, NULL, "only list the files and their sizes", 0, 0},
        {"connections", 0, CLI_INT, &p.connections, "N", "ranges downloaded at once; 0: 8", 0, 64},
        {"attempts", 0, CLI_INT, &p.attempts, "N", "tries of a request that fails or brings next to nothing; 0: 6", 0, 1000},
        {"stall-timeout", 0, CLI_INT, &p.stall, "S", "seconds below 1 KiB/s after which a connection is cut and tried again; 0: 30", 0, 3600},
        {"json", 0, CLI_FLAG, &p.json, NULL, "one JSON object on stdout: path, commit, files, bytes", 0, 0},
        {"log-level", 0, CLI_STR, &p.log_level, "LEVEL", "error, warn, info, debug or trace", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, hub_table, NULL};
    const struct cli_cmd cmd = {"pull", "quire pull REPO [options]",
                                "Downloads a model from a Hugging Face compatible hub into the cache that Hugging Face's tools share, and prints its\n"
                                "path.  REPO is ORG/NAME, ORG/NAME@REVISION, or ORG/NAME:FILE.gguf (or :Q4_K_M) for one of several GGUF files.\n"
                                "HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE are honoured.", tables, 1, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        enum log_level level;
        if (!log_level_parse(p.log_level, &level))
            status = cli_usage_error(&cmd, "--log-level: '%s' is not error, warn, info, debug or trace", p.log_level);
        else {
            struct log *lg = log_open(STDERR_FILENO, level, LOG_TEXT);
            status = pull(&p, args[0], lg, &e) ? CLI_OK : cli_error(&cmd, &e);
            log_close(&lg);
        }
    }
    mem_free(p.include.items);
    mem_free(p.exclude.items);
    return status;
}
