/* Which files of a repository a model needs: the same weights often lie there in several formats. */
#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "base/json.h"
#include "hub/hub_int.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcasecmp(s + n - m, end) == 0;
}

/* ---- text ---- */

static bool is_text(const char *name)
{
    static const char *const names[] = {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json",
        "chat_template.json", "chat_template.jinja", "quantize_config.json", "quant_config.json", "hf_quant_config.json",
        "model.safetensors.index.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    if (strncmp(name, "additional_chat_templates/", 26) == 0)
        return !strchr(name + 26, '/') && ends_with(name, ".jinja");
    return !strchr(name, '/') && (ends_with(name, ".tiktoken") || ends_with(name, ".jinja"));
}

void hub_select_text(struct hub_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (is_text(l->files[i].name))
            l->files[i].wanted = true;
}

/* ---- GGUF ---- */

/* "NAME-00002-of-00005.gguf": the length of NAME, and 2; else 0. */
static size_t split_stem(const char *name, int *no)
{
    enum { TAIL = 20 };
    size_t n = strlen(name);
    int count, used = 0;
    if (n <= TAIL || sscanf(name + n - TAIL, "-%5d-of-%5d.gguf%n", no, &count, &used) != 2 || used != TAIL)
        return 0;
    return n - TAIL;
}

static bool begins_gguf(const char *name)
{
    int no = 1;
    return ends_with(name, ".gguf") && !strcasestr(name, "mmproj") && !strcasestr(name, "imatrix") && (!split_stem(name, &no) || no == 1);
}

/* Whether tag stands in name as a word of its own: Q4_K is not in "x-Q4_K_M.gguf". */
static bool has_tag(const char *name, const char *tag)
{
    size_t n = strlen(tag);
    for (const char *p = strcasestr(name, tag); p; p = strcasestr(p + 1, tag)) {
        bool left = p == name || (!isalnum((unsigned char)p[-1]) && p[-1] != '_'), right = !isalnum((unsigned char)p[n]) && p[n] != '_';
        if (left && right)
            return true;
    }
    return false;
}

static void list_ggufs(const struct hub_list *l, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < l->n && len < cap; i++)
        if (begins_gguf(l->files[i].name)) {
            int n = snprintf(out + len, cap - len, "%s%.80s", len ? ", " : "", l->files[i].name);
            len += n > 0 ? (size_t)n : 0;
        }
}

static struct hub_file *find_tagged(const struct hub_list *l, const char *tag, int *n_found)
{
    struct hub_file *found = NULL;
    *n_found = 0;
    for (size_t i = 0; i < l->n; i++)
        if (begins_gguf(l->files[i].name) && (!*tag || has_tag(l->files[i].name, tag))) {
            if (!found)
                found = &l->files[i];
            ++*n_found;
        }
    return found;
}

static void mark_parts(struct hub_list *l, const char *main_file)
{
    int no;
    size_t stem = split_stem(main_file, &no);
    for (size_t i = 0; i < l->n; i++) {
        struct hub_file *f = &l->files[i];
        if (strcmp(f->name, main_file) == 0 || (stem && split_stem(f->name, &no) == stem && strncmp(f->name, main_file, stem) == 0))
            f->wanted = true;
    }
}

bool hub_select_gguf(struct hub_list *l, const char *what, const char **main_file, struct err *e)
{
    /* Without a word of the user: what keeps most of the model at half a byte a weight, then what is larger. */
    static const char *const usual[] = {"Q4_K_M", "Q4_K_S", "Q4_K", "Q4_0", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16"};
    char names[300];
    int n = 0;
    struct hub_file *f = *what ? hub_list_find(l, what) : NULL;
    if (f && !ends_with(f->name, ".gguf"))
        return err_set(e, ERR_INVALID, "%s is not a .gguf file; fetch others with --include", what);
    if (!f) {
        f = find_tagged(l, what, &n);
        if (!*what && n > 1)
            for (size_t i = 0; i < sizeof usual / sizeof usual[0] && n != 1; i++)
                f = find_tagged(l, usual[i], &n);
    }
    list_ggufs(l, names, sizeof names);
    if (!f && *what)
        return err_set(e, ERR_NOT_FOUND, "no .gguf file is or has '%.80s' in its name; there are: %s", what, *names ? names : "none");
    if (!f || n > 1)
        return err_set(e, ERR_INVALID, "which .gguf file%s%.80s?  Add :FILE or :QUANTIZATION to the id; there are: %s", *what ? " of " : "", what, names);
    *main_file = f->name;
    mark_parts(l, f->name);
    return true;
}

/* ---- weights ---- */

bool hub_list_has_safetensors(const struct hub_list *l)
{
    return hub_list_find(l, "model.safetensors") || hub_list_find(l, "model.safetensors.index.json");
}

static bool mark_indexed(struct hub_list *l, const char *index, size_t index_len, struct err *e)
{
    json_t *j = json_parse(index, index_len, e), *map = json_object_get(j, "weight_map"), *value;
    const char *tensor, *last = "";
    bool ok = json_is_object(map);
    if (!j)
        return err_prefix(e, "model.safetensors.index.json");
    if (!ok)
        err_set(e, ERR_FORMAT, "model.safetensors.index.json: 'weight_map' is not an object");
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        if (!ok || (name && strcmp(name, last) == 0))
            continue;
        struct hub_file *f = name ? hub_list_find(l, name) : NULL;
        if (!f)
            ok = err_set(e, ERR_FORMAT, "model.safetensors.index.json: %.100s is in '%.100s', which the repository does not have", tensor, name ? name : "?");
        else
            f->wanted = true;
        last = name ? name : "";
    }
    json_decref(j);
    return ok;
}

static bool no_weights(const struct hub_list *l, struct err *e)
{
    for (size_t i = 0; i < l->n; i++)
        if (ends_with(l->files[i].name, ".bin") || ends_with(l->files[i].name, ".pth") || ends_with(l->files[i].name, ".safetensors"))
            return err_set(e, ERR_UNSUPPORTED, "it has neither model.safetensors nor a .gguf file; %.100s is not read", l->files[i].name);
    return err_set(e, ERR_NOT_FOUND, "it has no weights: neither model.safetensors nor a .gguf file");
}

bool hub_select_weights(struct hub_list *l, const struct hub_ref *ref, const char *index, size_t index_len, const char **main_file, struct err *e)
{
    int n;
    struct hub_file *single = hub_list_find(l, "model.safetensors");
    *main_file = NULL;
    if (ref->file[0] || !hub_list_has_safetensors(l))
        return ref->file[0] || find_tagged(l, "", &n) ? hub_select_gguf(l, ref->file, main_file, e) : no_weights(l, e);
    if (!single)
        return mark_indexed(l, index, index_len, e);
    single->wanted = true;
    return true;
}

static bool matches(const char *const *patterns, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    return false;
}

void hub_select_patterns(struct hub_list *l, const struct hub_opts *o)
{
    for (size_t i = 0; i < l->n; i++) {
        struct hub_file *f = &l->files[i];
        if (o->n_include)
            f->wanted = matches(o->include, o->n_include, f->name);
        if (matches(o->exclude, o->n_exclude, f->name))
            f->wanted = false;
    }
}
