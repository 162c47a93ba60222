#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

enum { MAX_DEPTH = 16, TEXT_IDS = -1, MAX_ITEMS = 4096 };

static bool push(struct tok_post *p, int32_t id, struct err *e)
{
    if (p->n >= MAX_ITEMS)
        return err_set(e, ERR_TOO_LARGE, "more than %d ids around the text", MAX_ITEMS);
    if (!vec_reserve((void **)&p->items, &p->cap, p->n + 1, sizeof *p->items))
        return tok_nomem(e);
    p->items[p->n++] = id;
    return true;
}

/* What came before is the text of this processor. */
static bool push_text(struct tok_post *to, const struct tok_post *before, struct err *e)
{
    for (size_t i = 0; i < before->n; i++)
        if (!push(to, before->items[i], e))
            return false;
    return true;
}

static bool check_id(const json_t *id, struct err *e)
{
    return (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < 2 * TOK_MAX_IDS) ||
           err_set(e, ERR_FORMAT, "an id is not a number of the vocabulary");
}

/* The ids special_tokens gives for a name. */
static bool push_special(struct tok_post *to, const json_t *j, const char *name, struct err *e)
{
    const json_t *entry = json_object_get(json_object_get(j, "special_tokens"), name), *ids, *id;
    size_t i;
    if (!entry)
        return err_set(e, ERR_FORMAT, "special token '%.60s' is not in special_tokens", name);
    ids = json_object_get(entry, "ids");
    if (!json_is_array(ids))
        return err_set(e, ERR_FORMAT, "special_tokens['%.60s'].ids is not an array", name);
    json_array_foreach(ids, i, id)
        if (!check_id(id, e) || !push(to, (int32_t)json_integer_value(id), e))
            return false;
    return true;
}

static bool load_template(struct tok_post *to, const struct tok_post *before, const json_t *j, struct err *e)
{
    const json_t *single, *piece, *x;
    size_t i;
    const char *name;
    if (!json_get_arr(j, "single", &single, e))
        return false;
    json_array_foreach(single, i, piece) {
        if ((x = json_object_get(piece, "SpecialToken"))) {
            if (!json_is_object(x) || !json_get_str(x, "id", "", &name, e) || !push_special(to, j, name, e))
                return json_is_object(x) ? false : err_set(e, ERR_FORMAT, "single[%zu] is not understood", i);
        } else if ((x = json_object_get(piece, "Sequence"))) {
            if (!json_is_object(x) || !json_get_str(x, "id", "A", &name, e) || strcmp(name, "A") != 0)
                return err_set(e, ERR_FORMAT, "single[%zu] wants another sequence than A", i);
            if (!push_text(to, before, e))
                return false;
        } else {
            return err_set(e, ERR_FORMAT, "single[%zu] is neither SpecialToken nor Sequence", i);
        }
    }
    return true;
}

/* ["</s>", 2] */
static bool push_pair(struct tok_post *to, const json_t *j, const char *key, struct err *e)
{
    const json_t *pair = json_object_get(j, key), *id = json_array_get(pair, 1);
    return (id || err_set(e, ERR_FORMAT, "%s is not a pair of token and id", key)) && check_id(id, e) &&
           push(to, (int32_t)json_integer_value(id), e);
}

static bool load_one(struct tok_post *p, const json_t *j, const char *type, struct err *e)
{
    struct tok_post next = {0};
    bool ok;
    if (strcmp(type, "ByteLevel") == 0)
        return true;             /* it only moves offsets */
    if (strcmp(type, "TemplateProcessing") == 0)
        ok = load_template(&next, p, j, e);
    else if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        ok = push_pair(&next, j, "cls", e) && push_text(&next, p, e) && push_pair(&next, j, "sep", e);
    else
        ok = err_set(e, ERR_UNSUPPORTED, "type '%.60s' is not known", type);
    if (!ok) {
        mem_free(next.items);
        return false;
    }
    mem_free(p->items);
    *p = next;
    p->present = true;
    return true;
}

static bool load_tree(struct tok_post *p, const json_t *j, int depth, struct err *e)
{
    const char *type;
    const json_t *list, *item;
    size_t i;
    if (!json_is_object(j) || depth > MAX_DEPTH)
        return err_set(e, ERR_FORMAT, "expected an object, or nested too deeply");
    if (!json_get_str(j, "type", "", &type, e))
        return false;
    if (strcmp(type, "Sequence") != 0)
        return load_one(p, j, type, e);
    if (!json_get_arr(j, "processors", &list, e))
        return false;
    json_array_foreach(list, i, item)
        if (!load_tree(p, item, depth + 1, e))
            return false;
    return true;
}

bool tok_post_load(struct tok *t, const json_t *j, struct err *e)
{
    if (!push(&t->post, TEXT_IDS, e))
        return false;
    if (!j || json_is_null(j))
        return true;
    return load_tree(&t->post, j, 0, e) || err_prefix(e, "tokenizer.json: post_processor");
}
