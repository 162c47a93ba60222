#include "server/api_fields.h"

#include <math.h>
#include <string.h>
#include "base/json.h"

static const struct api_field *find(const struct api_field *const *tables, const char *name, size_t len)
{
    for (; *tables; tables++)
        for (const struct api_field *f = *tables; f->name; f++)
            if (strlen(f->name) == len && memcmp(f->name, name, len) == 0)
                return f;
    return NULL;
}

static bool wrong_type(struct api_error *e, const struct api_field *f, const char *expected, const json_t *v)
{
    return api_fail(e, ERR_INVALID, f->name, "'%s': expected %s, found %s", f->name, expected, json_type_name(v));
}

static bool in_range(struct api_error *e, const struct api_field *f, double x)
{
    /* Written so that NaN would fail, though JSON has none. */
    if (f->min == f->max || (x >= f->min && x <= f->max))
        return true;
    if (f->max >= INT32_MAX)
        return api_fail(e, ERR_INVALID, f->name, "'%s' must be at least %.10g, found %.10g", f->name, f->min, x);
    return api_fail(e, ERR_INVALID, f->name, "'%s' must be between %.10g and %.10g, found %.10g", f->name, f->min, f->max, x);
}

static bool is_nothing(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool read_number(const json_t *obj, const struct api_field *f, void *at, struct api_error *e)
{
    struct err err;
    if (f->type == API_INT) {
        int64_t x;
        if (!json_get_i64(obj, f->name, 0, &x, &err))
            return api_fail_err(e, f->name, &err);
        *(int64_t *)at = x;
        return in_range(e, f, (double)x);
    }
    double x;
    if (!json_get_f64(obj, f->name, 0, &x, &err))
        return api_fail_err(e, f->name, &err);
    *(double *)at = x;
    return in_range(e, f, x);
}

static bool read_field(const json_t *obj, const json_t *v, const struct api_field *f, void *at, struct api_error *e)
{
    struct err err;
    switch (f->type) {
    case API_BOOL:
        if (!json_is_boolean(v))
            return wrong_type(e, f, "boolean", v);
        *(bool *)at = json_is_true(v);
        return true;
    case API_INT:
    case API_NUM:
        return read_number(obj, f, at, e);
    case API_STR:
        return json_get_str(obj, f->name, NULL, at, &err) || api_fail_err(e, f->name, &err);
    case API_OBJ:
        if (!json_is_object(v))
            return wrong_type(e, f, "object", v);
        break;
    case API_ARR:
        if (!json_is_array(v))
            return wrong_type(e, f, "array", v);
        break;
    case API_ANY:
        break;
    case API_NOTED:
        return true;
    case API_REFUSED:
        return is_nothing(v) || api_fail(e, ERR_UNSUPPORTED, f->name, "'%s' is not supported yet", f->name);
    }
    *(const json_t **)at = v;
    return true;
}

bool api_fields_read(const json_t *obj, const struct api_field *const *tables, void *out, struct log *log, struct api_error *e)
{
    if (!json_is_object(obj))
        return api_fail(e, ERR_INVALID, NULL, "the body must be a JSON object, found %s", json_type_name(obj));
    json_t *it_obj = (json_t *)obj; /* jansson iterates over objects that are not const */
    for (void *it = json_object_iter(it_obj); it; it = json_object_iter_next(it_obj, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *v = json_object_iter_value(it);
        const struct api_field *f = find(tables, key, json_object_iter_key_len(it));
        if (!f) {
            log_debug(log, "api", "unknown field '%.64s' ignored", key);
            continue;
        }
        if (!json_is_null(v) && !read_field(obj, v, f, (char *)out + f->offset, e))
            return false;
    }
    return true;
}

const char *api_fields_find(const struct api_field *const *tables, const char *msg)
{
    size_t len = strspn(msg, "abcdefghijklmnopqrstuvwxyz_0123456789");
    const struct api_field *f = len ? find(tables, msg, len) : NULL;
    return f ? f->name : NULL;
}
