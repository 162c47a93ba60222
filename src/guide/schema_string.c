/* Strings: patterns, formats and lengths as one language of the text itself, then spelled as JSON. */
#include <string.h>
#include "base/json.h"
#include "guide/schema_int.h"

/* Formats as ajv-formats and the RFCs both accept them; where they allow endless or odd forms, the usual ones are produced. */
#define DATE "(([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])))"
#define CLOCK "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?"
#define ZONE "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define HOST LABEL "(\\." LABEL "){0,4}"
#define DOMAIN LABEL "(\\." LABEL "){0,3}\\.[A-Za-z]{2,10}"
#define BYTE4 "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 BYTE4 "(\\." BYTE4 "){3}"
#define H16 "[0-9a-fA-F]{1,4}"
#define PCT "%[0-9A-Fa-f]{2}"
#define PATH "(/([A-Za-z0-9._~!$&'()*+,;=:@-]|" PCT ")*)*"
#define QUERY "(\\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|" PCT ")*)?(#([A-Za-z0-9._~!$&'()*+,;=:@/?-]|" PCT ")*)?"
#define URL "(https?|ftp)://" DOMAIN "(:[1-9][0-9]{0,3})?" PATH QUERY

static const struct { const char *name, *regex; } formats[] = {
    {"date", DATE},
    {"time", CLOCK ZONE},
    {"date-time", DATE "T" CLOCK ZONE},
    {"iso-time", CLOCK ZONE},
    {"iso-date-time", DATE "T" CLOCK ZONE},
    {"duration", "P([0-9]{1,6}W|([0-9]{1,6}Y([0-9]{1,6}M([0-9]{1,6}D)?)?|[0-9]{1,6}M([0-9]{1,6}D)?|[0-9]{1,6}D)(T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M"
                 "([0-9]{1,6}S)?|[0-9]{1,6}S))?|T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S))"},
    {"email", "[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+){0,3}@" DOMAIN},
    {"idn-email", "[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+){0,3}@" DOMAIN},
    {"hostname", HOST},
    {"idn-hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6", "(" H16 ":){7}" H16 "|(" H16 ":){1,6}:" H16 "|(" H16 ":){1,5}(:" H16 "){2}|(" H16 ":){1,4}(:" H16 "){3}|::(" H16 ":){0,5}" H16},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"uri", URL},
    {"url", URL},
    {"iri", URL},
    {"uri-reference", URL "|(/([A-Za-z0-9._~!$&'()*+,;=:@-]|" PCT ")+)+" QUERY},
    {"iri-reference", URL "|(/([A-Za-z0-9._~!$&'()*+,;=:@-]|" PCT ")+)+" QUERY},
    {"uri-template", "(https?://" DOMAIN ")?(/([A-Za-z0-9._~-]+|\\{[A-Za-z0-9_]+\\}))+"},
    {"json-pointer", "(/([^/~\\x00-\\x1f]|~[01])*)*"},
    {"json-pointer-uri-fragment", "#(/([A-Za-z0-9._!$&'()*+,;:=@-]|" PCT "|~[01])*)*"},
    {"relative-json-pointer", "(0|[1-9][0-9]{0,8})(#|(/([^/~\\x00-\\x1f]|~[01])*)*)"},
    {"regex", "[A-Za-z0-9 _-]+"},
    {"byte", "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"},
};

int32_t schema_format(struct schema *s, const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, name) == 0)
            return regex_parse(s->b, formats[i].regex, strlen(formats[i].regex));
    return -2;
}

/* A JSON document's \u0000 is refused by many readers. */
static int32_t any_char(struct schema *s) { return expr_not_set(s->b, &(struct expr_range){0, 0}, 1); }

int32_t schema_quoted(struct schema *s, int32_t language)
{
    return expr_seq(s->b, (int32_t[]){expr_text(s->b, "\"", 1), expr_string(s->b, language), expr_text(s->b, "\"", 1)}, 3);
}

int32_t schema_literal(struct schema *s, const json_t *value)
{
    struct buf out;
    buf_init(&out, 0);
    int32_t id = json_write(value, &out) ? expr_text(s->b, out.data, out.len) : schema_fail(s, ERR_NOMEM, "out of memory");
    buf_free(&out);
    return id;
}

static int64_t bound(const json_t *flat, const char *key, int64_t dflt)
{
    const json_t *v = json_object_get(flat, key);
    double x = json_number_value(v);
    if (!v)
        return dflt;
    int64_t n = (int64_t)x;
    return (double)n < x && strncmp(key, "min", 3) == 0 ? n + 1 : n;
}

/* x and then y, where x may be nothing yet (-2). */
static int32_t both(struct schema *s, int32_t x, int32_t y)
{
    return x == -2 ? y : expr_combine(s->b, x, y, DFA_AND);
}

int32_t schema_string_language(struct schema *s, const json_t *flat)
{
    const json_t *patterns = json_object_get(flat, "pattern"), *names = json_object_get(flat, "format"), *nots = json_object_get(flat, "$not");
    int64_t min = bound(flat, "minLength", 0), max = bound(flat, "maxLength", -1);
    int32_t x = -2;
    for (size_t i = 0; i < json_array_size(patterns) && x != -1; i++) {
        const json_t *p = json_array_get(patterns, i);
        x = both(s, x, regex_parse_search(s->b, json_string_value(p), json_string_length(p)));
    }
    for (size_t i = 0; i < json_array_size(names) && x != -1; i++) {
        int32_t f = schema_format(s, json_string_value(json_array_get(names, i)));
        x = f == -2 ? x : both(s, x, f);
    }
    if (x != -1 && (min > 0 || max >= 0)) {
        if (max >= 0 && max < min)
            x = expr_never(s->b);
        else if (min > 100000)
            x = schema_fail(s, ERR_TOO_LARGE, "'minLength' of more than 100000");
        else
            x = both(s, x, expr_repeat(s->b, any_char(s), (int32_t)min, max > 1000000 ? -1 : (int32_t)max));
    }
    if (x == -2)
        x = expr_repeat(s->b, any_char(s), 0, -1);
    for (size_t i = 0; i < json_array_size(nots) && x != -1; i++) {
        const json_t *other = json_array_get(nots, i), *values = json_object_get(other, "enum");
        int32_t y = values ? expr_never(s->b) : schema_string_language(s, other);
        for (size_t k = 0; k < json_array_size(values); k++)
            if (json_is_string(json_array_get(values, k)))
                y = expr_alt2(s->b, y, expr_text(s->b, json_string_value(json_array_get(values, k)), json_string_length(json_array_get(values, k))));
        x = expr_combine(s->b, x, y, DFA_AND_NOT);
    }
    return s->b->failed ? -1 : x;
}

int32_t schema_string(struct schema *s, const json_t *flat)
{
    size_t was = s->b->failed;
    int32_t x = schema_string_language(s, flat);
    if (x < 0 && !was && s->path.len && strncmp(s->b->err.msg, "JSON schema", 11) != 0)
        err_prefix(&s->b->err, "JSON schema at #%.160s: 'pattern'", s->path.data);
    return schema_quoted(s, x);
}
