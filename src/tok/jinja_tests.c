/* jinja_tests.c - the tests behind `is`, and the global functions. */
#include <string.h>
#include <time.h>
#include "tok/jinja_int.h"

#define TEST(name) static bool name(struct jrender *r, struct jval self, struct jval *argv, struct jargs *args, struct jval *out)
#define UNUSED(x) ((void)(x))

/* ---- tests ---- */

static bool modulo_is(struct jrender *r, struct jval self, struct jval by, int64_t want, struct jval *out)
{
    struct jval rest;
    bool same;
    if (!jinja_binop(r, JOP_MOD, self, by, &rest) || !jinja_eq(r, rest, jv_int(want), &same))
        return false;
    *out = jv_bool(same);
    return true;
}

TEST(t_odd) { UNUSED(args); UNUSED(argv); return modulo_is(r, self, jv_int(2), 1, out); }
TEST(t_even) { UNUSED(args); UNUSED(argv); return modulo_is(r, self, jv_int(2), 0, out); }
TEST(t_divisibleby) { UNUSED(args); return modulo_is(r, self, argv[0], 0, out); }

/* Tests that look at the value alone. */
#define SIMPLE(name, expr) TEST(name) { UNUSED(r); UNUSED(args); UNUSED(argv); *out = jv_bool(expr); return true; }
SIMPLE(t_defined, self.t != JT_UNDEFINED)
SIMPLE(t_undefined, self.t == JT_UNDEFINED)
SIMPLE(t_none, self.t == JT_NONE)
SIMPLE(t_boolean, self.t == JT_BOOL)
SIMPLE(t_false, self.t == JT_BOOL && !self.u.b)
SIMPLE(t_true, self.t == JT_BOOL && self.u.b)
SIMPLE(t_integer, self.t == JT_INT)
SIMPLE(t_float, self.t == JT_FLOAT)
SIMPLE(t_string, self.t == JT_STR)
SIMPLE(t_mapping, self.t == JT_DICT)
SIMPLE(t_number, jv_is_num(self))
SIMPLE(t_sequence, jinja_has_len(self) && self.t != JT_VIEW && self.t != JT_LOOP)
SIMPLE(t_iterable, jinja_iterable(self))
SIMPLE(t_escaped, self.t == JT_STR && self.u.s->markup)
SIMPLE(t_callable, self.t == JT_FUNC || self.t == JT_METHOD || self.t == JT_MACRO || self.t == JT_LOOP || self.t == JT_JOINER || self.t == JT_UNDEFINED)
SIMPLE(t_sameas, jinja_identical(self, argv[0]))

/* Is there a filter, a test, of this name?  A value that cannot be a dict's key is an error, as in the reference. */
static bool is_known(struct jrender *r, struct jval self, const struct jfunc_spec *(*find)(const char *, size_t), struct jval *out)
{
    uint64_t hash;
    *out = jv_bool(self.t == JT_STR && find(self.u.s->s, self.u.s->len));
    return jinja_hash(r, self, &hash);
}

TEST(t_filter) { UNUSED(args); UNUSED(argv); return is_known(r, self, jinja_filter_find, out); }
TEST(t_test) { UNUSED(args); UNUSED(argv); return is_known(r, self, jinja_test_find, out); }

TEST(t_lower)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s;
    if (!jinja_to_str(r, self, &s))
        return false;
    *out = jv_bool(jinja_str_islower(s.u.s));
    return jinja_charge(r, s.u.s->len / 8);
}

TEST(t_upper)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s;
    if (!jinja_to_str(r, self, &s))
        return false;
    *out = jv_bool(jinja_str_isupper(s.u.s));
    return jinja_charge(r, s.u.s->len / 8);
}

static bool compare_test(struct jrender *r, int op, struct jval a, struct jval b, struct jval *out)
{
    bool v;
    if (!jinja_compare(r, op, a, b, &v))
        return false;
    *out = jv_bool(v);
    return true;
}

TEST(t_eq) { UNUSED(args); return compare_test(r, JOP_EQ, self, argv[0], out); }
TEST(t_ne) { UNUSED(args); return compare_test(r, JOP_NE, self, argv[0], out); }
TEST(t_lt) { UNUSED(args); return compare_test(r, JOP_LT, self, argv[0], out); }
TEST(t_le) { UNUSED(args); return compare_test(r, JOP_LE, self, argv[0], out); }
TEST(t_gt) { UNUSED(args); return compare_test(r, JOP_GT, self, argv[0], out); }
TEST(t_ge) { UNUSED(args); return compare_test(r, JOP_GE, self, argv[0], out); }
TEST(t_in) { UNUSED(args); return compare_test(r, JOP_IN, self, argv[0], out); }

static const struct jfunc_spec TESTS[] = {
    {"odd", "", t_odd}, {"even", "", t_even}, {"divisibleby", "num!", t_divisibleby}, {"defined", "", t_defined},
    {"undefined", "", t_undefined}, {"filter", "", t_filter}, {"test", "", t_test}, {"none", "", t_none}, {"boolean", "", t_boolean},
    {"false", "", t_false}, {"true", "", t_true}, {"integer", "", t_integer}, {"float", "", t_float}, {"lower", "", t_lower},
    {"upper", "", t_upper}, {"string", "", t_string}, {"mapping", "", t_mapping}, {"number", "", t_number},
    {"sequence", "", t_sequence}, {"iterable", "", t_iterable}, {"callable", "", t_callable}, {"sameas", "other!", t_sameas},
    {"escaped", "", t_escaped}, {"in", "seq!", t_in}, {"==", "other!", t_eq}, {"eq", "other!", t_eq}, {"equalto", "other!", t_eq},
    {"!=", "other!", t_ne}, {"ne", "other!", t_ne}, {">", "other!", t_gt}, {"gt", "other!", t_gt}, {"greaterthan", "other!", t_gt},
    {"ge", "other!", t_ge}, {">=", "other!", t_ge}, {"<", "other!", t_lt}, {"lt", "other!", t_lt}, {"lessthan", "other!", t_lt},
    {"<=", "other!", t_le}, {"le", "other!", t_le}, {NULL, NULL, NULL},
};

const struct jfunc_spec *jinja_test_find(const char *name, size_t len)
{
    return jinja_spec_find(TESTS, name, len);
}

/* ---- globals ---- */

enum { RANGE_MAX = 100000 };  /* the sandbox's MAX_RANGE */

TEST(g_range)
{
    UNUSED(self);
    UNUSED(args);
    int64_t a = 0, b, step = 1;
    if (argv[1].t == JT_MISSING ? !jinja_arg_int(r, argv[0], 0, &b, "range()'s argument")
                                : !jinja_arg_int(r, argv[0], 0, &a, "range()'s start") || !jinja_arg_int(r, argv[1], 0, &b, "range()'s stop"))
        return false;
    if (!jinja_arg_int(r, argv[2], 1, &step, "range()'s step"))
        return false;
    if (step == 0)
        return jinja_fail(r, "range() arg 3 must not be zero");
    __int128 span = step > 0 ? (__int128)b - a : (__int128)a - b, by = step > 0 ? step : -(__int128)step;
    __int128 n = span > 0 ? (span - 1) / by + 1 : 0;
    if (n > RANGE_MAX)
        return jinja_fail_code(r, ERR_TOO_LARGE, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", RANGE_MAX);
    struct jrange *g = jinja_alloc(r, 1, sizeof *g);
    if (!g)
        return false;
    *g = (struct jrange){.start = a, .stop = b, .step = step, .n = (int64_t)n};
    *out = (struct jval){.t = JT_RANGE, .u.range = g};
    return true;
}

/* dict(mapping or pairs, name=value ...) */
TEST(g_dict)
{
    UNUSED(self);
    UNUSED(argv);
    if (args->n_pos > 1)
        return jinja_fail(r, "dict expected at most 1 argument, got %zu", args->n_pos);
    if (!jinja_dict_new(r, out))
        return false;
    struct jdict *d = out->u.dict;
    if (args->n_pos == 1 && args->pos[0].t == JT_DICT) {
        struct jdict *from = args->pos[0].u.dict;
        for (size_t i = 0; i < from->n; i++)
            if (!jinja_charge(r, 1) || !jinja_dict_put(r, d, from->items[i].key, from->items[i].value))
                return false;
    } else if (args->n_pos == 1) {
        struct jval list, pair;
        if (!jinja_to_list(r, args->pos[0], &list))
            return false;
        for (size_t i = 0; i < list.u.list->n; i++) {
            if (!jinja_to_list(r, list.u.list->items[i], &pair))
                return false;
            if (pair.u.list->n != 2)
                return jinja_fail(r, "dictionary update sequence element #%zu has length %zu; 2 is required", i, pair.u.list->n);
            if (!jinja_dict_put(r, d, pair.u.list->items[0], pair.u.list->items[1]))
                return false;
        }
    }
    for (size_t i = 0; i < args->n_kw; i++) {
        struct jval k;
        if (!jinja_str_new(r, args->kw[i].name, args->kw[i].len, &k) || !jinja_dict_put(r, d, k, args->kw[i].v))
            return false;
    }
    return true;
}

TEST(g_namespace)
{
    if (!g_dict(r, self, argv, args, out))
        return false;
    out->t = JT_NAMESPACE;
    return true;
}

TEST(g_cycler)
{
    UNUSED(self);
    UNUSED(argv);
    if (args->n_pos == 0)
        return jinja_fail(r, "at least one item has to be provided");
    struct jcycler *c = jinja_alloc(r, 1, sizeof *c);
    if (!c || !(c->items = jinja_alloc(r, args->n_pos, sizeof *c->items)))
        return false;
    memcpy(c->items, args->pos, args->n_pos * sizeof *c->items);
    c->n = args->n_pos;
    *out = (struct jval){.t = JT_CYCLER, .u.cycler = c};
    return true;
}

TEST(g_joiner)
{
    UNUSED(self);
    UNUSED(args);
    struct jjoiner *j = jinja_alloc(r, 1, sizeof *j);
    if (!j)
        return false;
    j->sep = argv[0];
    *out = (struct jval){.t = JT_JOINER, .u.joiner = j};
    return argv[0].t != JT_MISSING || jinja_str_z(r, ", ", &j->sep);
}

TEST(g_lipsum)
{
    UNUSED(self);
    UNUSED(argv);
    UNUSED(args);
    UNUSED(out);
    return jinja_fail_code(r, ERR_UNSUPPORTED, "lipsum() is not supported");
}

/* The template's own message, as it is. */
TEST(g_raise_exception)
{
    UNUSED(self);
    UNUSED(args);
    UNUSED(out);
    struct jval s;
    if (!jinja_to_str(r, argv[0], &s))
        return false;
    r->failed = true;
    return err_set(r->e, ERR_INVALID, "%.*s", (int)(s.u.s->len < 500 ? s.u.s->len : 500), s.u.s->s);
}

TEST(g_strftime_now)
{
    UNUSED(self);
    UNUSED(args);
    char text[1024], fmt[512];
    size_t k = 0;
    time_t t = (time_t)r->now_unix;
    struct tm tm;
    if (argv[0].t != JT_STR)
        return jinja_fail(r, "strftime_now needs a format string, not %s", jinja_type_name(argv[0]));
    const struct jstr *s = argv[0].u.s;
    if (s->len == 0)
        return jinja_str_z(r, "", out);
    for (size_t i = 0; i < s->len; i++) {
        if (k + 8 > sizeof fmt || s->s[i] == 0)
            return jinja_fail(r, "the format of strftime_now is longer than %zu bytes or has a NUL", sizeof fmt - 8);
        if (s->s[i] == '%' && i + 1 < s->len && s->s[i + 1] == 'f') {  /* microseconds: the clock has none */
            memcpy(fmt + k, "000000", 6);
            k += 6;
            i++;
            continue;
        }
        fmt[k++] = s->s[i];
        if (s->s[i] == '%' && i + 1 < s->len)
            fmt[k++] = s->s[++i];
    }
    fmt[k] = 0;
    if (!gmtime_r(&t, &tm))
        return jinja_fail(r, "the time given is out of range");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(text, sizeof text, fmt, &tm);
#pragma GCC diagnostic pop
    return jinja_str_new(r, text, n, out);
}

static const struct jfunc_spec GLOBALS[] = {
    {"range", "start! stop step", g_range}, {"dict", NULL, g_dict}, {"namespace", NULL, g_namespace}, {"cycler", NULL, g_cycler},
    {"joiner", "sep", g_joiner}, {"lipsum", NULL, g_lipsum}, {"raise_exception", "message!", g_raise_exception},
    {"strftime_now", "format!", g_strftime_now}, {NULL, NULL, NULL},
};

const struct jfunc_spec *jinja_global_find(const char *name, size_t len)
{
    return jinja_spec_find(GLOBALS, name, len);
}
