/* The files beside tokenizer.json: which token plays which role, and the chat templates.
 *
 * Roles:      tokenizer_config.json, then special_tokens_map.json by spelling; then
 *             generation_config.json and config.json by id.
 * Templates:  chat_template.jinja, then tokenizer_config.json's chat_template, then chat_template.json.
 * All of these may be missing; one that is there and broken is an error. */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

#define MAX_FILE_BYTES ((size_t)64 << 20)

void tok_texts_free(struct tok_texts *v)
{
    for (size_t i = 0; i < v->n; i++) {
        mem_free(v->items[i].name);
        mem_free(v->items[i].value);
    }
    mem_free(v->items);
    *v = (struct tok_texts){0};
}

/* The first text of a name stays. */
static bool put_text(struct tok_texts *v, const char *name, const char *value, size_t len, struct err *e)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->items[i].name, name) == 0)
            return true;
    if (!vec_reserve((void **)&v->items, &v->cap, v->n + 1, sizeof *v->items))
        return tok_nomem(e);
    struct tok_text x = {mem_try_strdup(name), mem_try_strndup(value, len)};
    if (!x.name || !x.value) {
        mem_free(x.name);
        mem_free(x.value);
        return tok_nomem(e);
    }
    v->items[v->n++] = x;
    return true;
}

/* *j is NULL when the file is missing or is not worth reading. */
static bool read_json(const struct file_set *fs, const char *name, json_t **j, struct err *e)
{
    size_t len;
    *j = NULL;
    if (!file_set_has(fs, name))
        return true;
    char *text = file_set_read(fs, name, MAX_FILE_BYTES, &len, e);
    if (!text)
        return err_prefix(e, "%s", name);
    *j = json_parse(text, len, e);
    mem_free(text);
    if (!*j)
        return err_prefix(e, "%s", name);
    if (json_is_object(*j))
        return true;
    json_decref(*j);
    *j = NULL;
    return err_set(e, ERR_FORMAT, "%s: expected an object", name);
}

/* "eos_token": "</s>" or {"content": "</s>", ..} */
static bool read_special(struct tok *t, const json_t *j, const char *file, struct err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)j, key, v) {
        size_t n = strlen(key);
        if (n < 6 || strcmp(key + n - 6, "_token") != 0 || strncmp(key, "add_", 4) == 0)
            continue;
        const json_t *s = json_is_object(v) ? json_object_get(v, "content") : v;
        if (json_is_null(s) || json_is_boolean(s))
            continue;
        if (!json_is_string(s))
            return err_set(e, ERR_FORMAT, "%s: %s is neither a string nor an object with content", file, key);
        if (!put_text(&t->special, key, json_string_value(s), json_string_length(s), e))
            return false;
    }
    return true;
}

static bool read_template(struct tok *t, const json_t *j, const char *file, struct err *e)
{
    const json_t *v = json_object_get(j, "chat_template"), *item;
    size_t i;
    if (!v || json_is_null(v))
        return true;
    if (json_is_string(v))
        return put_text(&t->templates, "default", json_string_value(v), json_string_length(v), e);
    if (!json_is_array(v))
        return err_set(e, ERR_FORMAT, "%s: chat_template is neither a string nor a list", file);
    json_array_foreach(v, i, item) {
        const json_t *name = json_object_get(item, "name"), *text = json_object_get(item, "template");
        if (!json_is_string(name) || !json_is_string(text))
            return err_set(e, ERR_FORMAT, "%s: chat_template[%zu] lacks name or template", file, i);
        if (!put_text(&t->templates, json_string_value(name), json_string_value(text), json_string_length(text), e))
            return false;
    }
    return true;
}

static bool read_jinja(struct tok *t, const struct file_set *fs, struct err *e)
{
    size_t len;
    if (!file_set_has(fs, "chat_template.jinja"))
        return true;
    char *text = file_set_read(fs, "chat_template.jinja", MAX_FILE_BYTES, &len, e);
    if (!text)
        return err_prefix(e, "chat_template.jinja");
    bool ok = put_text(&t->templates, "default", text, len, e);
    mem_free(text);
    return ok;
}

/* key's id, of a list the first; *id stays when there is none. */
static void read_id(const json_t *j, const char *key, int32_t *id)
{
    const json_t *v = json_object_get(j, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    if (*id < 0 && json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < INT32_MAX)
        *id = (int32_t)json_integer_value(v);
}

static void read_ids(struct tok *t, const json_t *j)
{
    read_id(j, "bos_token_id", &t->bos);
    read_id(j, "eos_token_id", &t->eos);
    read_id(j, "pad_token_id", &t->pad);
}

static void ids_of_texts(struct tok *t)
{
    struct { const char *key; int32_t *id; } roles[] = {
        {"bos_token", &t->bos}, {"eos_token", &t->eos}, {"unk_token", &t->unk}, {"pad_token", &t->pad}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const char *s = tok_special_text(t, roles[i].key);
        int32_t id = *s ? tok_token_id(t, s, strlen(s)) : -1;
        if (id >= 0)
            *roles[i].id = id;
    }
}

bool tok_roles_load(struct tok *t, const struct file_set *fs, struct err *e)
{
    static const char *const texts[] = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.json"};
    static const char *const configs[] = {"generation_config.json", "config.json"};
    json_t *j;
    if (!read_jinja(t, fs, e))
        return false;
    for (int i = 0; i < 3; i++) {
        if (!read_json(fs, texts[i], &j, e))
            return false;
        bool ok = !j || ((i == 2 || read_special(t, j, texts[i], e)) && (i == 1 || read_template(t, j, texts[i], e)));
        json_decref(j);
        if (!ok)
            return false;
    }
    ids_of_texts(t);
    for (int i = 0; i < 2; i++) {
        if (!read_json(fs, configs[i], &j, e))
            return false;
        if (j) {
            read_ids(t, j);
            read_ids(t, json_object_get(j, "text_config"));
        }
        json_decref(j);
    }
    return true;
}
