/* Numbers: ranges and multiples as languages of decimal digits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "guide/schema_int.h"

enum { MAX_DIGITS = 15, MAX_REMAINDERS = 20000 };   /* digits that a double keeps */

static int32_t regex(struct schema *s, const char *t) { return regex_parse(s->b, t, strlen(t)); }
static int32_t digit(struct schema *s, int lo, int hi)
{
    return lo > hi ? expr_never(s->b) : expr_set(s->b, &(struct expr_range){(uint32_t)('0' + lo), (uint32_t)('0' + hi)}, 1);
}
static int32_t digits(struct schema *s, int min, int max) { return expr_repeat(s->b, digit(s, 0, 9), min, max); }

/* ---- digit strings of one length, at least / at most d ---- */

static int32_t at_least(struct schema *s, const char *d)
{
    if (!*d)
        return expr_empty(s->b);
    return expr_alt2(s->b, expr_seq2(s->b, digit(s, d[0] - '0' + 1, 9), digits(s, (int)strlen(d) - 1, (int)strlen(d) - 1)),
                     expr_seq2(s->b, digit(s, d[0] - '0', d[0] - '0'), at_least(s, d + 1)));
}

static int32_t at_most(struct schema *s, const char *d)
{
    if (!*d)
        return expr_empty(s->b);
    return expr_alt2(s->b, expr_seq2(s->b, digit(s, 0, d[0] - '1'), digits(s, (int)strlen(d) - 1, (int)strlen(d) - 1)),
                     expr_seq2(s->b, digit(s, d[0] - '0', d[0] - '0'), at_most(s, d + 1)));
}

/* Whole numbers without leading zeros with at most n digits. */
static int32_t natural(struct schema *s, int n)
{
    return expr_alt2(s->b, digit(s, 0, 0), expr_seq2(s->b, digit(s, 1, 9), digits(s, 0, n - 1)));
}

static int32_t natural_at_least(struct schema *s, const char *d, int n)
{
    int len = (int)strlen(d);
    int32_t longer = len < n ? expr_seq2(s->b, digit(s, 1, 9), digits(s, len, n - 1)) : expr_never(s->b);
    return expr_alt2(s->b, at_least(s, d), longer);
}

static int32_t natural_at_most(struct schema *s, const char *d)
{
    int len = (int)strlen(d);
    if (len == 1)
        return digit(s, 0, d[0] - '0');
    /* The same length without a leading zero, or shorter. */
    int32_t same = expr_combine(s->b, at_most(s, d), expr_seq2(s->b, digit(s, 1, 9), digits(s, len - 1, len - 1)), DFA_AND);
    return expr_alt2(s->b, same, natural(s, len - 1));
}

/* ---- fractions: the digits after the point, trailing zeros or none ---- */

/* Digit strings of at most n that are as fractions > 0.d (or >= when or_equal). */
static int32_t fraction_above(struct schema *s, const char *d, int n, bool or_equal)
{
    int len = (int)strlen(d);
    while (len && d[len - 1] == '0')
        len--;
    int32_t x = or_equal ? digits(s, 0, n - len > 0 ? n - len : 0) : expr_seq(s->b, (int32_t[]){digits(s, 0, n), digit(s, 1, 9), digits(s, 0, n)}, 3);
    for (int i = len; i-- > 0;)
        x = expr_alt2(s->b, expr_seq2(s->b, digit(s, d[i] - '0' + 1, 9), digits(s, 0, n)), expr_seq2(s->b, digit(s, d[i] - '0', d[i] - '0'), x));
    return x;
}

static int32_t fraction_below(struct schema *s, const char *d, int n, bool or_equal)
{
    int len = (int)strlen(d);
    while (len && d[len - 1] == '0')
        len--;
    int32_t x = or_equal ? expr_repeat(s->b, digit(s, 0, 0), 0, -1) : expr_never(s->b);
    for (int i = len; i-- > 0;)
        x = expr_alt(s->b, (int32_t[]){expr_empty(s->b), expr_seq2(s->b, digit(s, 0, d[i] - '1'), digits(s, 0, n)),
                                       expr_seq2(s->b, digit(s, d[i] - '0', d[i] - '0'), x)}, 3);
    return x;
}

/* ---- one side of zero: |x| between two decimals ---- */

struct decimal { char whole[32], fraction[32]; bool strict, given; };

/* Exactly the number, in plain digits; false when it is too large or too fine for that. */
static bool to_decimal(double x, struct decimal *out)
{
    char text[64];
    x = fabs(x);
    if (!(x < 1e15))
        return false;
    int precision = 15;
    for (; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, x);
        if (strtod(text, NULL) == x)
            break;
    }
    int places = 0;
    for (; places < 25; places++) {
        snprintf(text, sizeof text, "%.*f", places, x);
        if (strtod(text, NULL) == x)
            break;
    }
    if (places >= 25)
        return false;
    char *dot = strchr(text, '.');
    snprintf(out->fraction, sizeof out->fraction, "%.30s", dot ? dot + 1 : "");
    if (dot)
        *dot = 0;
    snprintf(out->whole, sizeof out->whole, "%.30s", text);
    return true;
}

/* Digits of the next or the previous whole number. */
static void whole_plus(const char *d, int64_t add, char out[32]) { snprintf(out, 32, "%lld", (long long)(strtoll(d, NULL, 10) + add)); }

/* whole ( "." fraction )? of magnitude in the bounds.  places 0: whole numbers only. */
static int32_t magnitude(struct schema *s, const struct decimal *lo, const struct decimal *hi, int n_whole, int places)
{
    struct guide_builder *b = s->b;
    int32_t any = digits(s, 1, places > 0 ? places : 1), point = expr_text(b, ".", 1), whole = natural(s, n_whole), result;
    int32_t tail = places ? expr_repeat(b, expr_seq2(b, point, any), 0, 1) : expr_empty(b);
    result = expr_seq2(b, whole, tail);
    char next[32];
    if (lo->given) {
        whole_plus(lo->whole, 1, next);
        int32_t above = expr_seq2(b, natural_at_least(s, next, n_whole), tail), equal;
        bool fraction = strspn(lo->fraction, "0") != strlen(lo->fraction);
        int32_t same = expr_text(b, lo->whole, strlen(lo->whole));
        if (!places)
            equal = fraction || lo->strict ? expr_never(b) : same;
        else if (!fraction && !lo->strict)
            equal = expr_seq2(b, same, tail);
        else
            equal = expr_seq(b, (int32_t[]){same, point, fraction_above(s, lo->fraction, places, !lo->strict)}, 3);
        result = expr_combine(b, result, expr_alt2(b, above, equal), DFA_AND);
    }
    if (hi->given) {
        bool zero = strcmp(hi->whole, "0") == 0, fraction = strspn(hi->fraction, "0") != strlen(hi->fraction);
        whole_plus(hi->whole, -1, next);
        int32_t below = zero ? expr_never(b) : expr_seq2(b, natural_at_most(s, next), tail), equal;
        int32_t same = expr_text(b, hi->whole, strlen(hi->whole));
        if (!places)
            equal = hi->strict && !fraction ? expr_never(b) : same;
        else if (!fraction)
            equal = hi->strict ? expr_never(b) : expr_seq2(b, same, expr_repeat(b, expr_seq2(b, point, expr_repeat(b, digit(s, 0, 0), 1, -1)), 0, 1));
        else
            equal = expr_alt2(b, same, expr_seq(b, (int32_t[]){same, point, fraction_below(s, hi->fraction, places, !hi->strict)}, 3));
        result = expr_combine(b, result, expr_alt2(b, below, equal), DFA_AND);
    }
    return result;
}

/* ---- multiples ---- */

/* Decimals whose value is a multiple of m / 10^places: remainder and places so far are the state.  A minus sign does not matter. */
static int32_t multiple(struct schema *s, int64_t m, int places)
{
    struct dfa d = {0};
    int64_t scale[20] = {1};
    int32_t n = (int32_t)m, layers = places + 2;
    if (m > MAX_REMAINDERS || m * layers > s->b->limits.max_dfa_states)
        return schema_fail(s, ERR_UNSUPPORTED, "'multipleOf' is too fine or too large");
    for (int i = 1; i <= places; i++)
        scale[i] = scale[i - 1] * 10 % m;
    for (int32_t i = 0; i < n * layers + 1; i++)
        if (dfa_add(s->b, &d) < 0) {
            dfa_free(&d);
            return -1;
        }
    /* State 0 is the start; 1 + layer * m + remainder: layer 0 before the point, layer k + 1 after k places. */
    d.trans['-'] = 0;
    for (int32_t i = 0; i <= n * layers; i++) {
        int32_t layer = i ? (i - 1) / n : 0, rest = i ? (i - 1) % n : 0, next = layer ? layer + 1 : 0;
        for (int c = 0; c < 10 && next < layers; c++)
            d.trans[(size_t)i * 256 + (size_t)('0' + c)] = 1 + next * n + (int32_t)(((int64_t)rest * 10 + c) % m);
        if (i && layer == 0 && places > 0)
            d.trans[(size_t)i * 256 + '.'] = 1 + n + rest;
        d.accept[i] = i && (int64_t)rest * scale[places - (layer ? layer - 1 : 0)] % m == 0;
    }
    return expr_from_dfa(s->b, &d);
}

/* multipleOf v as m / 10^places in lowest places. */
static bool split_multiple(double v, int64_t *m, int *places)
{
    for (*places = 0; *places <= 9; (*places)++) {
        double scaled = v * pow(10, *places), whole = nearbyint(scaled);
        if (whole >= 1 && whole <= 1e9 && fabs(scaled - whole) < 1e-9 * whole)
            return *m = (int64_t)whole, true;
    }
    return false;
}

/* ---- all of it ---- */

static int32_t free_number(struct schema *s, bool integer)
{
    int32_t *rule = integer ? &s->rule_integer : &s->rule_number;
    if (*rule < 0) {
        *rule = expr_rule_new(s->b, integer ? "integer" : "number");
        if (*rule >= 0)
            s->b->rules[*rule].body = regex(s, integer ? "0|-?[1-9][0-9]{0,14}" : "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?");
    }
    return expr_call(s->b, *rule);
}

struct limit { double v; bool strict, given; };

static void read_limit(const json_t *flat, const char *key, const char *strict_key, bool lower, struct limit *out)
{
    const json_t *a = json_object_get(flat, key), *b = json_object_get(flat, strict_key);
    *out = (struct limit){.given = a || b};
    if (a)
        out->v = json_number_value(a);
    if (b && (!a || (lower ? json_number_value(b) >= out->v : json_number_value(b) <= out->v)))
        *out = (struct limit){json_number_value(b), true, true};
}

/* Past what is ever written here is no limit. */
static bool make_decimal(struct schema *s, const struct limit *l, struct decimal *out)
{
    *out = (struct decimal){.strict = l->strict, .given = l->given};
    if (!l->given)
        return true;
    if (fabs(l->v) >= 1e15)
        return out->given = false, true;
    return to_decimal(l->v, out) || (schema_fail(s, ERR_UNSUPPORTED, "a bound of %g has too many decimals", l->v), false);
}

static int32_t bounded(struct schema *s, const struct limit *lo, const struct limit *hi, int places, bool fixed_places)
{
    struct decimal low, high, none = {.given = false}, zero = {.whole = "0", .given = true, .strict = true};
    int32_t positive = -2, negative = -2;
    if (!make_decimal(s, lo, &low) || !make_decimal(s, hi, &high))
        return -1;
    if ((lo->given && lo->v >= 1e15) || (hi->given && hi->v <= -1e15))
        return schema_fail(s, ERR_UNSUPPORTED, "a bound of 1e15 or more leaves no number that is written exactly");
    int n = fixed_places && places > 0 ? 6 : 9; /* a validator divides by multipleOf, in doubles */
    if (low.given && (int)strlen(low.whole) > n)
        n = (int)strlen(low.whole);
    if (high.given && (int)strlen(high.whole) > n)
        n = (int)strlen(high.whole);
    if (places == 0)
        n = MAX_DIGITS;
    if (places > MAX_DIGITS - n)
        places = places == 0 ? 0 : MAX_DIGITS - n;
    int need = (int)strlen(low.fraction) > (int)strlen(high.fraction) ? (int)strlen(low.fraction) : (int)strlen(high.fraction);
    if (places && !fixed_places && need > places && n + need <= 17)
        places = need;
    if (!hi->given || hi->v > 0 || (hi->v == 0 && !hi->strict)) {
        bool from_zero = !lo->given || lo->v < 0;
        positive = magnitude(s, from_zero ? &none : &low, hi->given && hi->v >= 0 ? &high : &none, n, places);
    }
    if (!lo->given || lo->v < 0) {
        bool to_zero = !hi->given || hi->v >= 0;
        negative = expr_seq2(s->b, expr_text(s->b, "-", 1), magnitude(s, to_zero ? &zero : &high, lo->given ? &low : &none, n, places));
    }
    if (positive == -2 && negative == -2)
        return expr_never(s->b);
    return positive == -2 ? negative : negative == -2 ? positive : expr_alt2(s->b, positive, negative);
}

/* What "$notNumber" takes away.  Of whole numbers every value has one spelling; others may have zeros at their end. */
static int32_t taken_away(struct schema *s, const json_t *other, bool integer)
{
    const json_t *values = json_object_get(other, "enum");
    int32_t out = expr_never(s->b);
    if (!values && integer) {
        s->in_not++;
        out = schema_number(s, other, true);
        s->in_not--;
        return out;
    }
    if (!values)
        return regex(s, "-?[0-9]+(\\.0+)?");
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        struct decimal d;
        if (!json_is_number(v) || !to_decimal(json_number_value(v), &d))
            continue;
        size_t n = strlen(d.fraction);
        while (n && d.fraction[n - 1] == '0')
            d.fraction[--n] = 0;
        int32_t zeros = expr_repeat(s->b, digit(s, 0, 0), 0, -1), sign = expr_text(s->b, "-", json_number_value(v) < 0), whole = expr_text(s->b, d.whole, strlen(d.whole));
        int32_t fraction = expr_seq(s->b, (int32_t[]){expr_text(s->b, ".", 1), expr_text(s->b, d.fraction, n), zeros}, 3);
        out = expr_alt2(s->b, out, expr_seq(s->b, (int32_t[]){sign, whole, n ? fraction : expr_repeat(s->b, fraction, 0, 1)}, 3));
    }
    return out;
}

static int32_t ranged(struct schema *s, const json_t *flat, bool integer);

int32_t schema_number(struct schema *s, const json_t *flat, bool integer)
{
    const json_t *nots = json_object_get(flat, "$notNumber");
    int32_t x = ranged(s, flat, integer);
    for (size_t i = 0; i < json_array_size(nots) && x >= 0; i++)
        x = expr_combine(s->b, x, taken_away(s, json_array_get(nots, i), integer), DFA_AND_NOT);
    return x;
}

static int32_t ranged(struct schema *s, const json_t *flat, bool integer)
{
    struct limit lo, hi;
    const json_t *step = json_object_get(flat, "multipleOf");
    bool regular = json_object_get(flat, "$notNumber") || s->in_not; /* combined with others: no rules, one spelling */
    read_limit(flat, "minimum", "exclusiveMinimum", true, &lo);
    read_limit(flat, "maximum", "exclusiveMaximum", false, &hi);
    if (!lo.given && !hi.given && !step && !regular)
        return free_number(s, integer);
    int64_t m = 1;
    int places = integer ? 0 : MAX_DIGITS - 9, step_places = 0;
    if (step && (json_number_value(step) <= 0 || !split_multiple(json_number_value(step), &m, &step_places)))
        return json_number_value(step) <= 0 ? schema_fail(s, ERR_INVALID, "'multipleOf' must be greater than 0")
                                            : schema_fail(s, ERR_UNSUPPORTED, "'multipleOf' of %g has too many decimals", json_number_value(step));
    if (step && step_places < places)
        places = step_places;
    if (integer && step_places > 0) { /* whole multiples of m / 10^k: of m / gcd(m, 10^k) */
        int64_t p = m, q = 1;
        for (int i = 0; i < step_places; i++)
            q *= 10;
        int64_t x = p, y = q;
        while (y) {
            int64_t t = x % y;
            x = y;
            y = t;
        }
        m /= x;
        step_places = 0;
    }
    int32_t x = bounded(s, &lo, &hi, places, step != NULL);
    if (step && !(m == 1 && step_places == places))
        x = expr_combine(s->b, x, multiple(s, m, step_places), DFA_AND);
    return x;
}
