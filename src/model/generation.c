/* generation_config.json: what the model's makers want sampling to start from. */
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "model/weights_int.h"

#define FILE_NAME "generation_config.json"

static void add_eos(struct model_generation *g, int64_t id)
{
    for (int i = 0; i < g->n_eos_ids; i++)
        if (g->eos_ids[i] == id)
            return;
    if (g->n_eos_ids < ARCH_MAX_EOS)
        g->eos_ids[g->n_eos_ids++] = (int32_t)id;
}

static bool add_eos_value(struct model_generation *g, const json_t *v, const struct arch *a, struct err *e)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(e, ERR_FORMAT, "'eos_token_id' must be a token id or a list of them");
    /* An id beyond the vocabulary can never be drawn: nothing to stop at. */
    if (json_integer_value(v) < a->vocab_size)
        add_eos(g, (int64_t)json_integer_value(v));
    return true;
}

static bool read_eos(struct model_generation *g, const json_t *j, const struct arch *a, struct err *e)
{
    const json_t *v = json_object_get(j, "eos_token_id");
    if (!v || json_is_null(v))
        return true;
    if (!json_is_array(v))
        return add_eos_value(g, v, a, e);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!add_eos_value(g, json_array_get(v, i), a, e))
            return false;
    return true;
}

static bool read_f64(const json_t *j, const char *key, double min, double max, bool *has, double *out, struct err *e)
{
    const json_t *v = json_object_get(j, key);
    *has = v && !json_is_null(v);
    if (!json_get_f64(j, key, 0.0, out, e))
        return false;
    if (*has && !(*out >= min && *out <= max))
        return err_set(e, ERR_FORMAT, "'%s' must be from %g to %g, found %g", key, min, max, *out);
    return true;
}

static bool read_i64(const json_t *j, const char *key, int64_t max, bool *has, int64_t *out, struct err *e)
{
    const json_t *v = json_object_get(j, key);
    *has = v && !json_is_null(v);
    if (!json_get_i64(j, key, 0, out, e))
        return false;
    if (*has && (*out < -1 || *out > max))
        return err_set(e, ERR_FORMAT, "'%s' must be from -1 to %lld, found %lld", key, (long long)max, (long long)*out);
    return true;
}

static bool read_object(struct model_generation *g, const json_t *j, const struct arch *a, struct err *e)
{
    if (!json_is_object(j))
        return err_set(e, ERR_FORMAT, "must be an object, found %s", json_type_name(j));
    const json_t *sample = json_object_get(j, "do_sample");
    g->has_do_sample = sample && !json_is_null(sample);
    return json_get_bool(j, "do_sample", false, &g->do_sample, e)
        && read_f64(j, "temperature", 0.0, 100.0, &g->has_temperature, &g->temperature, e)
        && read_f64(j, "top_p", 0.0, 1.0, &g->has_top_p, &g->top_p, e)
        && read_f64(j, "min_p", 0.0, 1.0, &g->has_min_p, &g->min_p, e)
        && read_f64(j, "typical_p", 0.0, 1.0, &g->has_typical_p, &g->typical_p, e)
        && read_f64(j, "repetition_penalty", 0.0, 100.0, &g->has_repetition_penalty, &g->repetition_penalty, e)
        && read_i64(j, "top_k", INT32_MAX, &g->has_top_k, &g->top_k, e)
        && read_i64(j, "max_new_tokens", INT32_MAX, &g->has_max_new_tokens, &g->max_new_tokens, e)
        && read_eos(g, j, a, e);
}

bool model_generation_read(struct model_generation *g, const struct arch *a, const struct file_set *files, struct err *e)
{
    *g = (struct model_generation){ 0 };
    if (file_set_has(files, FILE_NAME)) {
        size_t len;
        char *text = file_set_read(files, FILE_NAME, 1 << 20, &len, e);
        if (!text)
            return false;
        json_t *j = json_parse(text, len, e);
        mem_free(text);
        bool ok = j && read_object(g, j, a, e);
        json_decref(j);
        if (!ok)
            return err_prefix(e, FILE_NAME);
    }
    for (int i = 0; i < a->n_eos_ids; i++)
        if (a->eos_ids[i] < a->vocab_size)
            add_eos(g, a->eos_ids[i]);
    return true;
}
