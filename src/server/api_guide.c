/* Structured output: the fields that ask for it, by whatever name, to one compiled guide. */
#include <string.h>
#include "base/json.h"
#include "server/api_int.h"

/* What was asked for, and by which field. */
struct ask {
    enum guide_kind kind;
    const json_t *value;          /* a string, or JSON that is the text */
    const json_t *tags;           /* structural_tag instead */
    const char *param, *whitespace;
    int n;                        /* how many were asked for */
};

static void asked(struct ask *a, const char *param, enum guide_kind kind, const json_t *value)
{
    if (!value || json_is_null(value))
        return;
    a->n++;
    a->param = param;
    a->kind = kind;
    a->value = value;
}

/* ---- the fields ---- */

static bool of_type(const json_t *v, json_type type, const char *param, const char *key, const char *expected, struct api_error *e)
{
    if (!v || json_is_null(v) || json_typeof(v) == type)
        return true;
    return api_fail(e, ERR_INVALID, param, "'%s': expected %s, found %s", key, expected, json_type_name(v));
}

static bool is_schema(const json_t *v, const char *param, const char *key, struct api_error *e)
{
    if (!v || json_is_null(v) || json_is_object(v) || json_is_string(v) || json_is_boolean(v))
        return true;
    return api_fail(e, ERR_INVALID, param, "'%s': expected a JSON Schema or its text, found %s", key, json_type_name(v));
}

static bool read_structured(const json_t *o, struct ask *a, struct api_error *e)
{
    static const char param[] = "structured_outputs";
    static const char *const known[] = {"json", "regex", "choice", "grammar", "json_object", "structural_tag", "whitespace_pattern",
                                        "disable_any_whitespace", "disable_fallback", "disable_additional_properties", "backend", "_backend",
                                        "_backend_was_auto"};
    const json_t *v = json_object_get(o, "json_object"), *space = json_object_get(o, "whitespace_pattern");
    for (void *it = json_object_iter((json_t *)o); it; it = json_object_iter_next((json_t *)o, it)) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found |= strcmp(json_object_iter_key(it), known[i]) == 0;
        if (!found)
            return api_fail(e, ERR_INVALID, param, "'structured_outputs' has no field '%.64s'", json_object_iter_key(it));
    }
    if (!is_schema(json_object_get(o, "json"), param, "structured_outputs.json", e) ||
        !of_type(json_object_get(o, "regex"), JSON_STRING, param, "structured_outputs.regex", "string", e) ||
        !of_type(json_object_get(o, "choice"), JSON_ARRAY, param, "structured_outputs.choice", "array", e) ||
        !of_type(json_object_get(o, "grammar"), JSON_STRING, param, "structured_outputs.grammar", "string", e) ||
        !of_type(json_object_get(o, "structural_tag"), JSON_STRING, param, "structured_outputs.structural_tag", "string", e) ||
        !of_type(space, JSON_STRING, param, "structured_outputs.whitespace_pattern", "string", e))
        return false;
    asked(a, param, GUIDE_JSON_SCHEMA, json_object_get(o, "json"));
    asked(a, param, GUIDE_REGEX, json_object_get(o, "regex"));
    asked(a, param, GUIDE_CHOICE, json_object_get(o, "choice"));
    asked(a, param, GUIDE_GRAMMAR, json_object_get(o, "grammar"));
    if (json_is_true(v))
        asked(a, param, GUIDE_JSON_OBJECT, v);
    v = json_object_get(o, "structural_tag");
    if (v && !json_is_null(v)) {
        a->n++;
        a->param = param;
        a->tags = v;
    }
    if (json_is_string(space))
        a->whitespace = json_string_value(space);
    else if (json_is_true(json_object_get(o, "disable_any_whitespace")))
        a->whitespace = "";
    return true;
}

static bool read_format(const json_t *o, struct ask *a, struct api_error *e)
{
    static const char param[] = "response_format";
    const char *type = json_string_value(json_object_get(o, "type"));
    const json_t *v = json_object_get(o, "json_schema");
    if (!type)
        return api_fail(e, ERR_INVALID, param, "'response_format.type' is required: text, json_object, json_schema, regex, grammar, choice or structural_tag");
    if (strcmp(type, "text") == 0)
        return true;
    if (strcmp(type, "json_object") == 0) {
        asked(a, param, GUIDE_JSON_OBJECT, o);
    } else if (strcmp(type, "json_schema") == 0 || strcmp(type, "json") == 0) {
        if (strcmp(type, "json") == 0 || !v)
            v = json_object_get(o, "value") ? json_object_get(o, "value") : json_object_get(o, "schema");
        else if (!json_is_object(v))
            return api_fail(e, ERR_INVALID, param, "'response_format.json_schema': expected object, found %s", json_type_name(v));
        else
            v = json_object_get(v, "schema");
        if (!v || !is_schema(v, param, "response_format.json_schema.schema", e))
            return v ? false : api_fail(e, ERR_INVALID, param, "'response_format.json_schema.schema' is required");
        asked(a, param, GUIDE_JSON_SCHEMA, v);
    } else if (strcmp(type, "structural_tag") == 0) {
        a->n++;
        a->param = param;
        a->tags = o;
    } else if (strcmp(type, "regex") == 0 || strcmp(type, "grammar") == 0 || strcmp(type, "choice") == 0) {
        bool choice = *type == 'c';
        v = json_object_get(o, type);
        v = v ? v : json_object_get(o, choice ? "choices" : "pattern");
        v = v ? v : json_object_get(o, "value");
        if (!v || !of_type(v, choice ? JSON_ARRAY : JSON_STRING, param, type, choice ? "array" : "string", e))
            return v ? false : api_fail(e, ERR_INVALID, param, "'response_format.%s' is required", type);
        asked(a, param, choice ? GUIDE_CHOICE : *type == 'r' ? GUIDE_REGEX : GUIDE_GRAMMAR, v);
    } else {
        return api_fail(e, ERR_INVALID, param, "'response_format.type' must be text, json_object, json_schema, regex, grammar, choice or "
                                               "structural_tag, found '%.64s'", type);
    }
    return true;
}

static bool read_fields(const struct api_fields *f, struct ask *a, struct api_error *e)
{
    a->whitespace = f->guided_whitespace_pattern;
    if ((f->response_format && !read_format(f->response_format, a, e)) || (f->structured_outputs && !read_structured(f->structured_outputs, a, e)) ||
        !is_schema(f->guided_json, "guided_json", "guided_json", e) ||
        !of_type(f->guided_regex, JSON_STRING, "guided_regex", "guided_regex", "string", e) ||
        !of_type(f->guided_grammar, JSON_STRING, "guided_grammar", "guided_grammar", "string", e))
        return false;
    asked(a, "guided_json", GUIDE_JSON_SCHEMA, f->guided_json);
    asked(a, "guided_regex", GUIDE_REGEX, f->guided_regex);
    asked(a, "guided_choice", GUIDE_CHOICE, f->guided_choice);
    asked(a, "guided_grammar", GUIDE_GRAMMAR, f->guided_grammar);
    if (f->guided_json_object)
        asked(a, "guided_json_object", GUIDE_JSON_OBJECT, json_true());
    if (f->structural_tag) {
        a->n++;
        a->param = "structural_tag";
        a->tags = f->structural_tag;
    }
    if (a->n > 1)
        return api_fail(e, ERR_INVALID, a->param, "'%s': only one of json, regex, choice, grammar, json_object and structural_tag may constrain the output, found %d", a->param, a->n);
    return true;
}

/* ---- structural tags: free text, and from a trigger on a schema between two texts ---- */

static int32_t one_structure(struct guide_builder *b, const json_t *o, const char *whitespace)
{
    const char *begin = json_string_value(json_object_get(o, "begin")), *end = json_string_value(json_object_get(o, "end"));
    const json_t *schema = json_object_get(o, "schema");
    int32_t part[3] = {-1, -1, -1};
    if (begin && end) {
        part[0] = guide_build_text(b, begin, -1);
        part[1] = guide_build_schema(b, schema ? schema : json_true(), whitespace);
        part[2] = guide_build_text(b, end, -1);
    }
    return guide_build_seq(b, part, 3);
}

static bool begins_with_trigger(const json_t *structure, const json_t *triggers)
{
    const char *begin = json_string_value(json_object_get(structure, "begin"));
    for (size_t i = 0; begin && i < json_array_size(triggers); i++) {
        const char *t = json_string_value(json_array_get(triggers, i));
        if (t && *t && strncmp(begin, t, strlen(t)) == 0)
            return true;
    }
    return false;
}

static bool compile_tags(struct api_job *job, const struct ask *a, const json_t *tags, struct guide_vocab *v, struct err *err)
{
    const json_t *structures = json_object_get(tags, "structures"), *triggers = json_object_get(tags, "triggers");
    size_t n = json_array_size(structures), m = json_array_size(triggers);
    if (n == 0 || m == 0)
        return err_set(err, ERR_UNSUPPORTED, "a structural tag needs 'structures', a list of {begin, schema, end}, and 'triggers', a list of strings");
    int32_t *alts = arena_try_alloc(job->arena, n, sizeof *alts);
    const char **stops = arena_try_alloc(job->arena, m, sizeof *stops);
    struct guide_builder *b = alts && stops ? guide_build_open(NULL) : NULL;
    if (!b)
        return err_set(err, ERR_NOMEM, "out of memory for the request");
    for (size_t i = 0; i < n; i++) {
        alts[i] = one_structure(b, json_array_get(structures, i), a->whitespace);
        if (!begins_with_trigger(json_array_get(structures, i), triggers)) {
            guide_build_close(&b);
            return err_set(err, ERR_INVALID, "structure %zu of the structural tag needs strings 'begin' and 'end', and 'begin' must begin with a trigger", i);
        }
    }
    for (size_t i = 0; i < m; i++)
        stops[i] = json_is_string(json_array_get(triggers, i)) ? json_string_value(json_array_get(triggers, i)) : "";
    int32_t text = guide_build_until(b, stops, m);
    int32_t part[] = {text, guide_build_alt(b, alts, n)};
    int32_t all[] = {guide_build_repeat(b, guide_build_seq(b, part, 2), 0, -1), text};
    return guide_build_finish(&b, guide_build_seq(b, all, 2), v, &job->guide, err);
}

/* ---- compiling ---- */

/* JSON of a model that thinks first.  Texts of the other kinds are the whole reply. */
static bool compile_thinking(struct api_job *job, const struct ask *a, struct guide_vocab *v, struct err *err)
{
    json_t *schema = a->kind == GUIDE_JSON_OBJECT ? json_pack("{s:s}", "type", "object")
                   : json_is_string(a->value)     ? json_parse(json_string_value(a->value), json_string_length(a->value), err)
                                                  : json_incref((json_t *)a->value);
    if (!schema)
        return false;
    struct guide_builder *b = guide_build_open(NULL);
    bool ok = b ? guide_build_finish(&b, api_reply_behind_thoughts(job, b, guide_build_schema(b, schema, a->whitespace)), v, &job->guide, err)
                : err_set(err, ERR_NOMEM, "out of memory for the request");
    json_decref(schema);
    return ok;
}

static bool compile_text(struct api_job *job, const struct ask *a, struct guide_vocab *v, struct err *err)
{
    struct guide_spec spec = {.kind = a->kind, .whitespace = a->whitespace};
    struct buf text;
    buf_init(&text, 0);
    if (json_is_string(a->value)) {
        spec.text = json_string_value(a->value);
        spec.len = json_string_length(a->value);
    } else if (a->kind != GUIDE_JSON_OBJECT) {
        if (!json_write(a->value, &text)) {
            buf_free(&text);
            return err_set(err, ERR_NOMEM, "out of memory for the request");
        }
        spec.text = text.data;
        spec.len = text.len;
    }
    bool ok = guide_compile(&job->guide, v, &spec, NULL, err);
    buf_free(&text);
    return ok;
}

struct guide_vocab *api_guide_vocab(const struct api_job *job, struct err *e)
{
    if (job->api->eng)
        return engine_guide_vocab(job->api->eng, e);
    err_set(e, ERR_UNSUPPORTED, "structured output needs an engine");
    return NULL;
}

bool api_guide_build(struct api_job *job, struct api_error *e)
{
    struct ask a = {.n = 0};
    struct err err;
    if (!read_fields(&job->f, &a, e))
        return false;
    if (a.n == 0 || job->score_only)
        return true;
    struct guide_vocab *v = api_guide_vocab(job, &err);
    if (!v)
        return api_fail_err(e, a.param, &err);
    bool ok;
    if (a.tags) {
        json_t *doc = json_is_string(a.tags) ? json_parse(json_string_value(a.tags), json_string_length(a.tags), &err) : json_incref((json_t *)a.tags);
        ok = doc && compile_tags(job, &a, doc, v, &err);
        json_decref(doc);
    } else {
        bool thinks = job->endpoint == API_CHAT && job->thoughts != REPLY_THOUGHTS_NONE && job->start != REPLY_START_TALKING;
        bool is_json = a.kind == GUIDE_JSON_SCHEMA || a.kind == GUIDE_JSON_OBJECT;
        ok = thinks && is_json ? compile_thinking(job, &a, v, &err) : compile_text(job, &a, v, &err);
    }
    if (!ok) {
        err_prefix(&err, "'%s'", a.param);
        return api_fail_err(e, a.param, &err);
    }
    job->request.engine.guide = job->guide;
    return true;
}
