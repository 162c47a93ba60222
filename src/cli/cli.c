/* Option parsing, help, and the small things all commands share. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/vec.h"

/* ---- values ---- */

static bool parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off"};
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0)
            return *out = true, true;
        if (strcasecmp(text, no[i]) == 0)
            return *out = false, true;
    }
    return false;
}

/* Whole numbers with vLLM's suffixes: 1k = 1000, 1K = 1024, m and M likewise. */
static bool parse_i64(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text)
        return false;
    int64_t unit = 1;
    switch (*end) {
    case 'k': unit = 1000; break;
    case 'K': unit = 1024; break;
    case 'm': unit = 1000000; break;
    case 'M': unit = 1048576; break;
    default: break;
    }
    if (unit != 1)
        end++;
    return *end == 0 && !__builtin_mul_overflow((int64_t)v, unit, out);
}

static bool in_range(const struct cli_opt *o, double v)
{
    return o->min >= o->max || (v >= o->min && v <= o->max);
}

static bool list_push(struct cli_list *l, const char *item)
{
    size_t cap = (size_t)l->cap;
    if (!vec_reserve((void **)&l->items, &cap, (size_t)l->n + 1, sizeof *l->items))
        return false;
    l->cap = (int)cap;
    l->items[l->n++] = item;
    return true;
}

static bool set_value(const struct cli_opt *o, const char *text, const char *where, struct err *e)
{
    int64_t i;
    double d;
    char *end;
    switch (o->type) {
    case CLI_FLAG:
        if (parse_bool(text, (bool *)o->out))
            return true;
        return err_set(e, ERR_INVALID, "%s: '%s' is neither true nor false", where, text);
    case CLI_STR:
        *(const char **)o->out = text;
        return true;
    case CLI_LIST:
        return list_push(o->out, text) || err_set(e, ERR_NOMEM, "%s: out of memory", where);
    case CLI_INT:
    case CLI_I64:
        if (!parse_i64(text, &i) || (o->type == CLI_INT && (i > INT32_MAX || i < INT32_MIN)))
            return err_set(e, ERR_INVALID, "%s: '%s' is not a whole number", where, text);
        if (!in_range(o, (double)i))
            return err_set(e, ERR_INVALID, "%s: %lld is outside %.0f..%.0f", where, (long long)i, o->min, o->max);
        if (o->type == CLI_INT)
            *(int32_t *)o->out = (int32_t)i;
        else
            *(int64_t *)o->out = i;
        return true;
    case CLI_F64:
        d = strtod(text, &end);
        if (end == text || *end || d != d)
            return err_set(e, ERR_INVALID, "%s: '%s' is not a number", where, text);
        if (!in_range(o, d))
            return err_set(e, ERR_INVALID, "%s: %g is outside %g..%g", where, d, o->min, o->max);
        *(double *)o->out = d;
        return true;
    }
    return err_set(e, ERR_INTERNAL, "%s: unknown option type", where);
}

/* ---- looking options up ---- */

static const struct cli_opt *find_opt(const struct cli_cmd *cmd, const char *name, size_t len, char letter)
{
    for (const struct cli_opt *const *t = cmd->tables; *t; t++)
        for (const struct cli_opt *o = *t; o->name; o++) {
            if (name && strlen(o->name) == len && strncmp(o->name, name, len) == 0)
                return o;
            if (!name && o->letter && o->letter == letter)
                return o;
        }
    return NULL;
}

static bool set_from_env(const struct cli_cmd *cmd, struct err *e)
{
    for (const struct cli_opt *const *t = cmd->tables; *t; t++)
        for (const struct cli_opt *o = *t; o->name; o++) {
            char name[96];
            int n = snprintf(name, sizeof name, "QUIRE_%s", o->name);
            for (int i = 6; i < n && i < (int)sizeof name; i++)
                name[i] = o->name[i - 6] == '-' ? '_' : (char)toupper((unsigned char)o->name[i - 6]);
            char *text = getenv(name);
            if (!text || !*text)
                continue;
            if (o->type != CLI_LIST) {
                if (!set_value(o, text, name, e))
                    return false;
                continue;
            }
            char *copy = mem_try_strdup(text), *save = NULL;
            for (char *p = copy ? strtok_r(copy, ",", &save) : NULL; p; p = strtok_r(NULL, ",", &save))
                if (!set_value(o, p, name, e))
                    return false; /* copy lives as long as the process: the list points into it */
        }
    return true;
}

/* A mapping of option names to scalars or sequences of scalars. */
static bool set_from_yaml(const struct cli_cmd *cmd, const char *path, struct err *e)
{
    size_t len;
    char *text = file_read(path, 1 << 20, &len, e);
    if (!text)
        return err_prefix(e, "--config");
    yaml_parser_t parser;
    yaml_document_t doc;
    bool ok = false, have_doc = false;
    if (!yaml_parser_initialize(&parser)) {
        mem_free(text);
        return err_set(e, ERR_NOMEM, "--config: out of memory");
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    if (!yaml_parser_load(&parser, &doc)) {
        err_set(e, ERR_FORMAT, "%s:%zu: %s", path, parser.problem_mark.line + 1, parser.problem ? parser.problem : "not YAML");
        goto done;
    }
    have_doc = true;
    yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (root && root->type != YAML_MAPPING_NODE) {
        err_set(e, ERR_FORMAT, "%s: expected a mapping of option names to values", path);
        goto done;
    }
    for (yaml_node_pair_t *p = root ? root->data.mapping.pairs.start : NULL; root && p < root->data.mapping.pairs.top; p++) {
        yaml_node_t *k = yaml_document_get_node(&doc, p->key), *v = yaml_document_get_node(&doc, p->value);
        if (!k || k->type != YAML_SCALAR_NODE)
            continue;
        char name[96];
        snprintf(name, sizeof name, "%s", (const char *)k->data.scalar.value);
        for (char *c = name; *c; c++)
            *c = *c == '_' ? '-' : *c;
        const struct cli_opt *o = find_opt(cmd, name, strlen(name), 0);
        if (!o) {
            err_set(e, ERR_INVALID, "%s:%zu: unknown option '%s'", path, k->start_mark.line + 1, name);
            goto done;
        }
        bool list = v && v->type == YAML_SEQUENCE_NODE && o->type == CLI_LIST;
        int n = list ? (int)(v->data.sequence.items.top - v->data.sequence.items.start) : 1;
        for (int i = 0; i < n; i++) {
            yaml_node_t *item = list ? yaml_document_get_node(&doc, v->data.sequence.items.start[i]) : v;
            if (!item || item->type != YAML_SCALAR_NODE) {
                err_set(e, ERR_INVALID, "%s:%zu: '%s' needs a plain value", path, k->start_mark.line + 1, name);
                goto done;
            }
            char *value = mem_try_strdup((const char *)item->data.scalar.value); /* kept: options borrow it */
            if (!value || !set_value(o, value, name, e)) {
                err_prefix(e, "%s:%zu", path, k->start_mark.line + 1);
                goto done;
            }
        }
    }
    ok = true;
done:
    if (have_doc)
        yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    mem_free(text);
    return ok;
}

/* ---- help ---- */

static void print_default(const struct cli_opt *o)
{
    switch (o->type) {
    case CLI_STR:
        if (*(const char **)o->out)
            printf(" [%s]", *(const char **)o->out);
        break;
    /* The least integer and NaN stand for "not given": the help text says what holds then. */
    case CLI_INT:
        if (*(int32_t *)o->out != INT32_MIN)
            printf(" [%d]", *(int32_t *)o->out);
        break;
    case CLI_I64:
        if (*(int64_t *)o->out != INT64_MIN)
            printf(" [%lld]", (long long)*(int64_t *)o->out);
        break;
    case CLI_F64:
        if (*(double *)o->out == *(double *)o->out)
            printf(" [%g]", *(double *)o->out);
        break;
    case CLI_FLAG:
        if (*(bool *)o->out)
            printf(" [on]");
        break;
    case CLI_LIST: printf(" (may be repeated)"); break;
    }
}

static void print_help(const struct cli_cmd *cmd)
{
    printf("usage: %s\n\n%s\n\noptions:\n", cmd->usage, cmd->summary);
    for (const struct cli_opt *const *t = cmd->tables; *t; t++)
        for (const struct cli_opt *o = *t; o->name; o++) {
            char left[96];
            const char *neg = o->type == CLI_FLAG && *(bool *)o->out ? "[no-]" : "";
            if (o->letter)
                snprintf(left, sizeof left, "-%c, --%s%s%s%s", o->letter, neg, o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
            else
                snprintf(left, sizeof left, "    --%s%s%s%s", neg, o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
            printf("  %-36s %s", left, o->help);
            print_default(o);
            putchar('\n');
        }
    printf("      --config FILE                  YAML file of these options\n"
           "  -h, --help                         this text\n\n"
           "Every option may also be set by an environment variable: QUIRE_ and its name, as QUIRE_MAX_MODEL_LEN.\n");
}

/* ---- parsing ---- */

int cli_usage_error(const struct cli_cmd *cmd, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "quire: %s: ", cmd->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see 'quire %s --help'\n", cmd->name);
    return CLI_USAGE;
}

int cli_error(const struct cli_cmd *cmd, const struct err *e)
{
    fprintf(stderr, "quire: %s: %s\n", cmd->name, e->msg);
    return CLI_FAILED;
}

/* One "--name", "--name=value", "--no-name", "-x" at argv[*i]; advances *i past its value. */
static bool parse_option(const struct cli_cmd *cmd, int argc, char **argv, int *i, struct err *e)
{
    const char *arg = argv[*i];
    const struct cli_opt *o;
    const char *value = NULL;
    bool negated = false;
    if (arg[1] == '-') {
        const char *name = arg + 2, *eq = strchr(name, '=');
        size_t len = eq ? (size_t)(eq - name) : strlen(name);
        value = eq ? eq + 1 : NULL;
        o = find_opt(cmd, name, len, 0);
        if (!o && len > 3 && strncmp(name, "no-", 3) == 0) {
            o = find_opt(cmd, name + 3, len - 3, 0);
            negated = true;
            if (o && o->type != CLI_FLAG)
                o = NULL;
        }
    } else {
        o = find_opt(cmd, NULL, 0, arg[1]);
        if (o && arg[2])
            value = arg + 2;
    }
    if (!o)
        return err_set(e, ERR_INVALID, "unknown option '%s'", arg);
    if (o->type == CLI_FLAG) {
        if (negated && value)
            return err_set(e, ERR_INVALID, "'%s' takes no value", arg);
        return set_value(o, negated ? "false" : value ? value : "true", arg, e);
    }
    if (!value) {
        if (*i + 1 >= argc)
            return err_set(e, ERR_INVALID, "'%s' needs a value", arg);
        value = argv[++*i];
    }
    char where[128];
    snprintf(where, sizeof where, "--%s", o->name);
    return set_value(o, value, where, e);
}

/* Lists of the command line replace those of the environment and file, so those are parsed first
 * and dropped when the command line names the list. */
static void clear_lists_given(const struct cli_cmd *cmd, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] != '-' || !argv[i][1])
            continue;
        const char *name = argv[i][1] == '-' ? argv[i] + 2 : NULL;
        const struct cli_opt *o = find_opt(cmd, name, name ? strcspn(name, "=") : 0, argv[i][1]);
        if (o && o->type == CLI_LIST)
            ((struct cli_list *)o->out)->n = 0;
    }
}

int cli_parse(const struct cli_cmd *cmd, int argc, char **argv, const char **args, int *n_args, bool *done)
{
    struct err e;
    const char *config = NULL;
    *done = true;
    *n_args = 0;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(cmd);
            return CLI_OK;
        }
        if (strncmp(argv[i], "--config", 8) == 0 && (argv[i][8] == '=' || !argv[i][8]))
            config = argv[i][8] ? argv[i] + 9 : i + 1 < argc ? argv[i + 1] : NULL;
    }
    if (!config)
        config = getenv("QUIRE_CONFIG");
    if (config && *config && !set_from_yaml(cmd, config, &e))
        return cli_usage_error(cmd, "%s", e.msg);
    if (!set_from_env(cmd, &e))
        return cli_usage_error(cmd, "%s", e.msg);
    clear_lists_given(cmd, argc, argv);

    bool only_args = false;
    for (int i = 1; i < argc; i++) {
        if (!only_args && strcmp(argv[i], "--") == 0) {
            only_args = true;
        } else if (!only_args && strncmp(argv[i], "--config", 8) == 0 && (argv[i][8] == '=' || !argv[i][8])) {
            if (!argv[i][8] && ++i >= argc)
                return cli_usage_error(cmd, "'--config' needs a file");
        } else if (!only_args && argv[i][0] == '-' && argv[i][1]) {
            if (!parse_option(cmd, argc, argv, &i, &e))
                return cli_usage_error(cmd, "%s", e.msg);
        } else {
            if (cmd->max_args >= 0 && *n_args >= cmd->max_args)
                return cli_usage_error(cmd, "unexpected argument '%s'", argv[i]);
            args[(*n_args)++] = argv[i];
        }
    }
    if (*n_args < cmd->min_args)
        return cli_usage_error(cmd, "too few arguments; usage: %s", cmd->usage);
    *done = false;
    return CLI_OK;
}

/* ---- progress ---- */

void cli_progress_begin(struct cli_progress *p, const char *label)
{
    *p = (struct cli_progress){.label = label, .start_us = clock_now_us(), .tty = isatty(STDERR_FILENO)};
}

void cli_progress_update(void *arg, int64_t done, int64_t total)
{
    struct cli_progress *p = arg;
    int64_t now = clock_now_us();
    if (!p->tty || total <= 0 || now - p->start_us < 1000000 || (now - p->last_us < 100000 && done < total))
        return;
    p->last_us = now;
    p->shown = true;
    enum { WIDTH = 32 };
    char bar[WIDTH + 1];
    double share = (double)done / (double)total;
    int filled = (int)(share * WIDTH);
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = 0;
    double elapsed = (double)(now - p->start_us) / 1e6;
    fprintf(stderr, "\r%s [%s] %3.0f%%  %.0f s left ", p->label, bar, share * 100, share > 0 ? elapsed * (1 - share) / share : 0.0);
    fflush(stderr);
}

void cli_progress_end(struct cli_progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r%*s\r", 79, "");
}

/* ---- input ---- */

enum { CLI_MAX_INPUT = 1 << 30 };

char *cli_read(const char *path, size_t *len, struct err *e)
{
    if (strcmp(path, "-") != 0)
        return file_read(path, CLI_MAX_INPUT, len, e);
    struct buf b;
    buf_init(&b, CLI_MAX_INPUT);
    char chunk[16384];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        if (!buf_append(&b, chunk, n))
            break;
    *len = b.len;
    if (b.failed || !buf_puts(&b, "")) {
        buf_free(&b);
        err_set(e, ERR_TOO_LARGE, "standard input is larger than %d bytes", CLI_MAX_INPUT);
        return NULL;
    }
    char *text = b.data ? buf_take(&b) : mem_try_strdup("");
    if (!text)
        err_set(e, ERR_NOMEM, "out of memory");
    return text;
}

bool cli_parse_ids(const char *text, int32_t **out, int32_t *n, struct err *e)
{
    size_t cap = 0, count = 0;
    int32_t *ids = NULL;
    for (const char *p = text; *p;) {
        while (*p && strchr(" ,\t\n[]", *p))
            p++;
        if (!*p)
            break;
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v > INT32_MAX || (*end && !strchr(" ,\t\n]", *end))) {
            mem_free(ids);
            return err_set(e, ERR_INVALID, "'%.20s' is not a token id; write ids as 1,2,3", p);
        }
        if (!vec_reserve((void **)&ids, &cap, count + 1, sizeof *ids)) {
            mem_free(ids);
            return err_set(e, ERR_NOMEM, "out of memory");
        }
        ids[count++] = (int32_t)v;
        p = end;
    }
    if (count > INT32_MAX) {
        mem_free(ids);
        return err_set(e, ERR_TOO_LARGE, "too many token ids");
    }
    *out = ids;
    *n = (int32_t)count;
    return true;
}
