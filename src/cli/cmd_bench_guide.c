/* quire bench guide: what structured output costs with a model's vocabulary. */
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "bench/guides.h"
#include "cli/cli.h"
#include "model/model.h"
#include "tok/tok.h"

struct guides {
    struct cli_hub_flags hub;
    struct cli_list schemas, regexes, grammars;
    int32_t tokens, max_len;
    int64_t seed;
    bool json;
    struct guide_vocab *vocab;
    int32_t vocab_size, eos;
    json_t *rows;
};

/* When nothing is given: one of each kind. */
static const struct { const char *name; enum guide_kind kind; const char *text; } samples[] = {
    {"any object", GUIDE_JSON_OBJECT, ""},
    {"order (schema)", GUIDE_JSON_SCHEMA,
     "{\"type\":\"object\",\"required\":[\"id\",\"customer\",\"items\",\"total\"],\"properties\":{\"id\":{\"type\":\"string\",\"format\":\"uuid\"},\"customer\":"
     "{\"type\":\"object\",\"required\":[\"name\",\"email\"],\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":80},\"email\":{\"type\":\"string\","
     "\"format\":\"email\"},\"vip\":{\"type\":\"boolean\"}}},\"items\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"required\":[\"sku\",\"quantity\"],"
     "\"properties\":{\"sku\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}-[0-9]{4}$\"},\"quantity\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":99},\"note\":{\"type\":"
     "[\"string\",\"null\"]}}}},\"status\":{\"enum\":[\"open\",\"paid\",\"shipped\",\"cancelled\"]},\"total\":{\"type\":\"number\",\"minimum\":0}}}"},
    {"tree (schema)", GUIDE_JSON_SCHEMA,
     "{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{\"name\":{\"type\":\"string\"},\"children\":{\"type\":\"array\","
     "\"items\":{\"$ref\":\"#/$defs/node\"}}}}}}"},
    {"e-mail (regex)", GUIDE_REGEX, "[a-z0-9._-]{1,30}@[a-z0-9-]{1,20}\\.(com|org|net)"},
    {"arithmetic (grammar)", GUIDE_GRAMMAR,
     "root ::= sum\nsum ::= product ((\" + \" | \" - \") product)*\nproduct ::= atom ((\" * \" | \" / \") atom)*\natom ::= [0-9]+ | [a-z]+ | \"(\" sum \")\"\n"},
};

static bool open_vocab(struct guides *b, const char *model, struct err *e)
{
    const char *path = NULL;
    struct tok *t = NULL;
    struct model *builtin = NULL;
    struct file_set fs = {.blobs = NULL};
    bool opened = model ? cli_model_path(&b->hub, model, true, NULL, &path, e) : model_open(&builtin, NULL, &(struct model_opts){.load_format = MODEL_LOAD_AUTO}, e);
    fs.dir = path;
    opened = opened && tok_open(&t, model ? &fs : model_files(builtin), e);
    model_close(&builtin);
    if (!opened)
        return false;
    b->vocab_size = tok_vocab_size(t);
    b->eos = tok_eos_id(t);
    int32_t n_eos = b->eos >= 0;
    bool ok = guide_vocab_open(&b->vocab, t, b->vocab_size, &b->eos, n_eos, e);
    tok_close(&t);
    return ok;
}

static bool add(struct guides *b, const char *name, const struct guide_spec *spec, struct err *e)
{
    struct bench_guide_times t;
    if (!bench_guide(b->vocab, b->vocab_size, b->eos, spec, b->tokens, b->max_len, (uint64_t)b->seed, &t, e))
        return err_prefix(e, "%s", name);
    if (!b->json)
        printf("%-28.28s %10.3f %10.1f %9.2f %9.2f %9.1f %9.1f %6d %9.2f\n", name, t.compile_ms, t.first_us, t.mean_us, t.warm_us, t.p99_us, t.max_us,
               t.n_finished, (double)t.bytes / (1 << 20));
    json_array_append_new(b->rows, json_pack("{s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i,s:I}", "name", name, "compile_ms", t.compile_ms, "first_us", t.first_us,
                                             "mean_us", t.mean_us, "warm_us", t.warm_us, "p99_us", t.p99_us, "max_us", t.max_us, "tokens", t.n_tokens,
                                             "finished", t.n_finished, "bytes", (json_int_t)t.bytes));
    return true;
}

static bool add_file(struct guides *b, const char *path, enum guide_kind kind, struct err *e)
{
    size_t len;
    char *text = file_read(path, 1 << 20, &len, e);
    const char *name = strrchr(path, '/');
    bool ok = text && add(b, name ? name + 1 : path, &(struct guide_spec){.kind = kind, .text = text, .len = len}, e);
    mem_free(text);
    return ok;
}

static bool add_all(struct guides *b, struct err *e)
{
    bool ok = true;
    if (!b->json)
        printf("%-28s %10s %10s %9s %9s %9s %9s %6s %9s\n", "guide", "compile ms", "first us", "mean us", "warm us", "p99 us", "max us", "ended", "MiB");
    if (b->schemas.n + b->regexes.n + b->grammars.n == 0)
        for (size_t i = 0; ok && i < sizeof samples / sizeof samples[0]; i++)
            ok = add(b, samples[i].name, &(struct guide_spec){.kind = samples[i].kind, .text = samples[i].text, .len = strlen(samples[i].text)}, e);
    for (int i = 0; ok && i < b->schemas.n; i++)
        ok = add_file(b, b->schemas.items[i], GUIDE_JSON_SCHEMA, e);
    for (int i = 0; ok && i < b->regexes.n; i++)
        ok = add(b, b->regexes.items[i], &(struct guide_spec){.kind = GUIDE_REGEX, .text = b->regexes.items[i], .len = strlen(b->regexes.items[i])}, e);
    for (int i = 0; ok && i < b->grammars.n; i++)
        ok = add_file(b, b->grammars.items[i], GUIDE_GRAMMAR, e);
    return ok;
}

static bool run(struct guides *b, const char *model, struct err *e)
{
    b->rows = json_array();
    bool ok = b->rows && open_vocab(b, model, e) && add_all(b, e);
    if (ok && b->json) {
        json_t *all = json_pack("{s:i,s:O}", "vocab_size", b->vocab_size, "guides", b->rows);
        ok = (all && json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7)) == 0 && putchar('\n') != EOF && fflush(stdout) == 0) ||
             err_set(e, ERR_IO, "the result could not be written");
        json_decref(all);
    } else if (ok) {
        printf("\nvocabulary of %d tokens: %.1f MiB of trie; times are of a mask and an advance, a token\n", b->vocab_size,
               (double)guide_vocab_bytes(b->vocab) / (1 << 20));
    }
    guide_vocab_close(&b->vocab);
    json_decref(b->rows);
    return ok;
}

int cmd_bench_guide(int argc, char **argv)
{
    struct guides b = {.tokens = 2000, .max_len = 1000, .seed = 1};
    struct cli_opt hub[CLI_HUB_OPTS];
    cli_hub_table(&b.hub, hub);
    const struct cli_opt opts[] = {
        {"schema", 0, CLI_LIST, &b.schemas, "FILE", "a JSON Schema (may be repeated); without any guide, a sample of each kind", 0, 0},
        {"regex", 0, CLI_LIST, &b.regexes, "TEXT", "a regular expression (may be repeated)", 0, 0},
        {"grammar", 0, CLI_LIST, &b.grammars, "FILE", "a GBNF or Lark grammar (may be repeated)", 0, 0},
        {"tokens", 'n', CLI_INT, &b.tokens, "N", "drawn uniformly from the masks, for each guide", 1, 1e8},
        {"max-len", 0, CLI_INT, &b.max_len, "N", "an output that has not ended then is given up", 1, 1e6},
        {"seed", 0, CLI_I64, &b.seed, "N", "of the draws", 0, 0},
        {"json", 0, CLI_FLAG, &b.json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, hub, NULL};
    const struct cli_cmd cmd = {"bench guide", "quire bench guide [MODEL] [options]",
                                "Compiles structured-output guides for a model's vocabulary (only its tokenizer is read) and times masks under uniform draws.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    struct err e;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return status;
    return run(&b, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
}
