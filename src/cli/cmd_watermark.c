/* quire watermark detect: whether a text bears the watermark. */
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "cli/cli.h"
#include "model/model.h"
#include "sample/watermark.h"
#include "tok/tok.h"

struct detect {
    const char *text, *text_file, *token_ids;
    struct cli_watermark_flags watermark;
    struct cli_hub_flags hub;
    double threshold;
    bool json;
};

static bool open_tok(struct detect *d, const char *model, struct tok **tok, struct err *e)
{
    const struct model_opts opts = {.files_only = true};
    struct model *m = NULL;
    bool ok = cli_model_path(&d->hub, model, true, NULL, &model, e) && model_open(&m, model, &opts, e) && tok_open(tok, model_files(m), e);
    model_close(&m);
    return ok;
}

/* The text's tokens as the model would have written them: without special tokens in front. */
static bool encode(struct detect *d, const char *model, struct tok_ids *ids, struct err *e)
{
    struct tok *tok = NULL;
    size_t len = d->text ? strlen(d->text) : 0;
    char *file = d->text_file ? cli_read(d->text_file, &len, e) : NULL;
    bool ok = (!d->text_file || file) && open_tok(d, model, &tok, e) && tok_encode(tok, file ? file : d->text, len, TOK_ENCODE_PLAIN, ids, e);
    tok_close(&tok);
    mem_free(file);
    return ok;
}

static void print(const struct detect *d, const struct sample_watermark *w, const struct sample_watermark_score *s, size_t n_tokens)
{
    bool marked = s->z >= d->threshold;
    double share = s->n_scored ? (double)s->n_green / (double)s->n_scored : 0;
    if (d->json)
        printf("{\"watermarked\":%s,\"z_score\":%.6g,\"p_value\":%.6g,\"n_tokens\":%zu,\"n_scored\":%lld,\"n_green\":%lld,\"green_fraction\":%.6g,"
               "\"gamma\":%.6g,\"threshold\":%.6g}\n", marked ? "true" : "false", s->z, s->p, n_tokens, (long long)s->n_scored,
               (long long)s->n_green, share, (double)w->gamma, d->threshold);
    else
        printf("%s: z = %.2f (threshold %.2f), p = %.3g\n%lld of %lld scored tokens are green (%.1f%%; chance: %.1f%%)\n",
               marked ? "watermarked" : "no watermark found", s->z, d->threshold, s->p, (long long)s->n_green, (long long)s->n_scored, 100 * share,
               100 * (double)w->gamma);
}

static bool detect(struct detect *d, const char *model, struct err *e)
{
    struct sample_watermark w;
    struct sample_watermark_score score;
    struct tok_ids ids = {0};
    int32_t *given = NULL, n_given = 0;
    bool ok = cli_watermark(&d->watermark, &w, e);
    ok = ok && (d->token_ids ? cli_parse_ids(d->token_ids, &given, &n_given, e) : encode(d, model, &ids, e));
    size_t n = d->token_ids ? (size_t)n_given : ids.n;
    ok = ok && (sample_watermark_detect(&w, d->token_ids ? given : ids.ids, n, &score) || err_set(e, ERR_NOMEM, "out of memory"));
    if (ok)
        print(d, &w, &score, n);
    mem_free(given);
    tok_ids_free(&ids);
    return ok;
}

int cmd_watermark(int argc, char **argv)
{
    struct detect d = {.threshold = 4};
    struct cli_opt hub_table[CLI_HUB_OPTS];
    cli_hub_table(&d.hub, hub_table);
    cli_watermark_flags_default(&d.watermark);
    const struct cli_opt opts[] = {
        {"text", 0, CLI_STR, &d.text, "TEXT", "the text", 0, 0},
        {"text-file", 0, CLI_STR, &d.text_file, "FILE", "the text of a file; -: stdin", 0, 0},
        {"token-ids", 0, CLI_STR, &d.token_ids, "1,2,3", "its tokens", 0, 0},
        {"watermark-key", 0, CLI_STR, &d.watermark.key_file, "FILE", "the secret that the text was marked with", 0, 0},
        {"watermark-gamma", 0, CLI_F64, &d.watermark.gamma, "X", "share of green tokens that the text was marked with", 0, 1},
        {"threshold", 0, CLI_F64, &d.threshold, "Z", "z from which on the text counts as marked; 4 is chance once in 30,000", -1e6, 1e6},
        {"json", 0, CLI_FLAG, &d.json, NULL, "one JSON object", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, hub_table, NULL};
    const struct cli_cmd cmd = {"watermark", "quire watermark detect [MODEL] (--text T | --text-file F | --token-ids IDS) [options]",
                                "Tells whether a text bears the watermark that `quire serve` gives to requests with \"watermark\": true: how many of its\n"
                                "tokens are green for the key, as a z-score and as the probability of so many by chance.  Only the model's\n"
                                "tokenizer is used.", tables, 1, 2};
    const char *args[2];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return status;
    if (strcmp(args[0], "detect") != 0)
        return cli_usage_error(&cmd, "the one thing to do is detect");
    if ((d.text != NULL) + (d.text_file != NULL) + (d.token_ids != NULL) != 1)
        return cli_usage_error(&cmd, "give one of --text, --text-file and --token-ids");
    struct err e;
    return detect(&d, n_args > 1 ? args[1] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
}
