/* jinja_num.c - arithmetic as Python does it, with integers of 64 bits (overflow is an error). */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/utf8.h"
#include "tok/jinja_int.h"

static const char *const SYMBOL[] = {"+", "-", "*", "/", "//", "%", "**"};

static bool too_big(struct jrender *r)
{
    return jinja_fail(r, "the integer result does not fit 64 bits");
}

static bool bad_operands(struct jrender *r, int op, struct jval a, struct jval b)
{
    if (op == JOP_ADD && a.t == JT_STR)
        return jinja_fail(r, "can only concatenate str (not \"%s\") to str", jinja_type_name(b));
    return jinja_fail(r, "unsupported operand types for %s: '%s' and '%s'", SYMBOL[op], jinja_type_name(a), jinja_type_name(b));
}

static bool pow_int(struct jrender *r, int64_t a, int64_t b, struct jval *out)
{
    if (b < 0) {
        if (a == 0)
            return jinja_fail(r, "0 cannot be raised to a negative power");
        *out = jv_float(pow((double)a, (double)b));
        return true;
    }
    int64_t v = 1;
    while (b > 0) {
        if ((b & 1) && __builtin_mul_overflow(v, a, &v))
            return too_big(r);
        b >>= 1;
        if (b > 0 && __builtin_mul_overflow(a, a, &a))
            return too_big(r);
    }
    *out = jv_int(v);
    return true;
}

static bool int_op(struct jrender *r, int op, int64_t a, int64_t b, struct jval *out)
{
    int64_t v = 0;
    bool over = false;
    switch (op) {
    case JOP_ADD: over = __builtin_add_overflow(a, b, &v); break;
    case JOP_SUB: over = __builtin_sub_overflow(a, b, &v); break;
    case JOP_MUL: over = __builtin_mul_overflow(a, b, &v); break;
    case JOP_POW: return pow_int(r, a, b, out);
    default:
        if (b == 0)
            return jinja_fail(r, op == JOP_DIV ? "division by zero" : "integer division or modulo by zero");
        if (op == JOP_DIV) {
            *out = jv_float((double)((long double)a / (long double)b));
            return true;
        }
        if (b == -1) {  /* the one division that overflows */
            over = op == JOP_FLOORDIV && __builtin_sub_overflow(0, a, &v);
            break;
        }
        v = op == JOP_FLOORDIV ? a / b : a % b;
        if (a % b != 0 && (a % b < 0) != (b < 0))
            v += op == JOP_FLOORDIV ? -1 : b;
    }
    if (over)
        return too_big(r);
    *out = jv_int(v);
    return true;
}

static bool float_op(struct jrender *r, int op, double a, double b, struct jval *out)
{
    double v = 0, mod, div;
    switch (op) {
    case JOP_ADD: v = a + b; break;
    case JOP_SUB: v = a - b; break;
    case JOP_MUL: v = a * b; break;
    case JOP_POW:
        if (a == 0 && b < 0)
            return jinja_fail(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(b) && isfinite(a) && b != floor(b))
            return jinja_fail(r, "a negative number to a fractional power is complex, which is not supported");
        v = pow(a, b);
        if (isinf(v) && isfinite(a) && isfinite(b))
            return jinja_fail(r, "the result of ** is out of range");
        break;
    default:
        if (b == 0)
            return jinja_fail(r, op == JOP_MOD ? "float modulo by zero" : "float division by zero");
        if (op == JOP_DIV) {
            v = a / b;
            break;
        }
        mod = fmod(a, b);
        div = (a - mod) / b;
        if (mod != 0) {
            if ((b < 0) != (mod < 0)) {
                mod += b;
                div -= 1;
            }
        } else {
            mod = copysign(0, b);
        }
        v = mod;
        if (op == JOP_FLOORDIV) {
            v = div != 0 ? floor(div) : copysign(0, a / b);
            if (div != 0 && div - v > 0.5)
                v += 1;
        }
    }
    *out = jv_float(v);
    return true;
}

static bool repeat(struct jrender *r, struct jval seq, int64_t n, struct jval *out)
{
    size_t total, len = seq.t == JT_STR ? seq.u.s->len : seq.u.list->n;
    if (n < 0)
        n = 0;
    if (!mem_mul(len, (size_t)n, &total) || total > r->lim.max_memory)
        return jinja_fail_code(r, ERR_TOO_LARGE, "a repeated %s would need more than %zu bytes", jinja_type_name(seq), r->lim.max_memory);
    if (!jinja_charge(r, total / 16))
        return false;
    if (seq.t == JT_STR) {
        char *s = jinja_alloc(r, total + 1, 1);
        if (!s)
            return false;
        if (len == 1)
            memset(s, seq.u.s->s[0], total);
        else
            for (size_t i = 0; len > 0 && i < total; i += len)
                memcpy(s + i, seq.u.s->s, len);
        if (!jinja_str_borrow(r, s, total, out))
            return false;
        out->u.s->markup = seq.u.s->markup;
        return true;
    }
    if (!jinja_list_new(r, seq.t, total, out))
        return false;
    for (size_t i = 0; len > 0 && i < total; i += len)
        memcpy(out->u.list->items + i, seq.u.list->items, len * sizeof(struct jval));
    out->u.list->n = total;
    return true;
}

static bool add_seqs(struct jrender *r, struct jval a, struct jval b, struct jval *out)
{
    if (a.t != JT_STR) {
        size_t n = a.u.list->n, m = b.u.list->n;
        if (!jinja_charge(r, (n + m) / 8) || !jinja_list_new(r, a.t, n + m, out))
            return false;
        if (n)
            memcpy(out->u.list->items, a.u.list->items, n * sizeof(struct jval));
        if (m)
            memcpy(out->u.list->items + n, b.u.list->items, m * sizeof(struct jval));
        out->u.list->n = n + m;
        return true;
    }
    if (a.u.s->markup == b.u.s->markup) {
        if (!jinja_str_concat(r, a.u.s, b.u.s, out))
            return false;
        out->u.s->markup = a.u.s->markup;
        return true;
    }
    struct jval *plain = a.u.s->markup ? &b : &a;
    if (!jinja_escape(r, *plain, plain) || !jinja_str_concat(r, a.u.s, b.u.s, out))
        return false;
    out->u.s->markup = true;
    return true;
}

bool jinja_binop(struct jrender *r, int op, struct jval a, struct jval b, struct jval *out)
{
    if (jv_is_num(a) && jv_is_num(b)) {
        if (a.t == JT_FLOAT || b.t == JT_FLOAT)
            return float_op(r, op, jv_as_float(a), jv_as_float(b), out);
        return int_op(r, op, jv_as_int(a), jv_as_int(b), out);
    }
    if (op == JOP_MOD && a.t == JT_STR)
        return jinja_percent(r, a, b, out);
    if (a.t == JT_UNDEFINED || b.t == JT_UNDEFINED)
        return jinja_fail_undef(r, a.t == JT_UNDEFINED ? a : b);
    bool seq_a = a.t == JT_STR || a.t == JT_LIST || a.t == JT_TUPLE, seq_b = b.t == JT_STR || b.t == JT_LIST || b.t == JT_TUPLE;
    if (op == JOP_ADD && seq_a && a.t == b.t)
        return add_seqs(r, a, b, out);
    if (op == JOP_MUL && seq_a && jv_is_intlike(b))
        return repeat(r, a, jv_as_int(b), out);
    if (op == JOP_MUL && seq_b && jv_is_intlike(a))
        return repeat(r, b, jv_as_int(a), out);
    return bad_operands(r, op, a, b);
}

bool jinja_unary(struct jrender *r, bool negative, struct jval a, struct jval *out)
{
    if (a.t == JT_UNDEFINED)
        return jinja_fail_undef(r, a);
    if (!jv_is_num(a))
        return jinja_fail(r, "bad operand type for unary %s: '%s'", negative ? "-" : "+", jinja_type_name(a));
    if (a.t == JT_FLOAT) {
        *out = jv_float(negative ? -a.u.f : a.u.f);
        return true;
    }
    int64_t v = jv_as_int(a);
    if (negative && __builtin_sub_overflow(0, v, &v))
        return too_big(r);
    *out = jv_int(v);
    return true;
}

/* round(v, digits) with Python's rounding of the exact decimal value, half to even.  False: no such number. */
bool jinja_round_float(double v, int64_t digits, double *out)
{
    char text[512];
    if (!isfinite(v) || digits > 323) {
        *out = v;
        return true;
    }
    if (digits < -308) {
        *out = copysign(0, v);
        return true;
    }
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)(digits < 330 ? digits : 330), v);  /* glibc rounds exactly, half to even */
        *out = strtod(text, NULL);
        return isfinite(*out);
    }
    snprintf(text, sizeof text, "%.17e", v);
    int64_t kept = atoi(strchr(text, 'e') + 1) + digits;  /* digits behind the first that stay */
    if (kept < 0) {  /* 0 or one unit: at most half of it is 0 */
        double unit = pow(10, (double)-digits);
        *out = copysign(kept == -1 && fabs(v) > unit / 2 ? unit : 0, v);
        return true;
    }
    snprintf(text, sizeof text, "%.*e", (int)kept, v);
    *out = strtod(text, NULL);
    return isfinite(*out);
}

/* int(s, base): blanks around, a sign, digits with single '_' between; base 16, 8 and 2 allow their prefix. */
bool jinja_parse_int(const char *s, size_t n, int base, int64_t *out, bool *overflow)
{
    size_t i = 0;
    *overflow = false;
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        n--;
    while (i < n && isspace((unsigned char)s[i]))
        i++;
    bool neg = i < n && s[i] == '-';
    if (i < n && (s[i] == '-' || s[i] == '+'))
        i++;
    if (i + 1 < n && s[i] == '0') {
        char x = (char)(s[i + 1] | 32);
        int prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
        if (prefix && (base == prefix || base == 0)) {
            base = prefix;
            i += 2;
            if (i < n && s[i] == '_')
                i++;
        } else if (base == 0) {
            base = 10;
        }
    }
    if (base == 0)
        base = 10;
    bool digit_before = false, any = false;
    int64_t v = 0;
    for (; i < n; i++) {
        if (s[i] == '_' && digit_before && i + 1 < n) {
            digit_before = false;
            continue;
        }
        int d = s[i] >= '0' && s[i] <= '9' ? s[i] - '0' : isalpha((unsigned char)s[i]) ? (s[i] | 32) - 'a' + 10 : 99;
        if (d >= base)
            return false;
        digit_before = any = true;
        if (!*overflow && (__builtin_mul_overflow(v, base, &v) || __builtin_sub_overflow(v, d, &v)))
            *overflow = true;  /* v counts downwards: the smallest integer has no positive twin */
    }
    if (!any || !digit_before)
        return false;
    if (!*overflow && !neg && __builtin_sub_overflow(0, v, &v))
        *overflow = true;
    *out = v;
    return !*overflow;
}

/* float(s): what Python takes, which is strtod without hexadecimal and with '_' between digits. */
bool jinja_parse_float(const char *s, size_t n, double *out)
{
    char text[512];
    size_t k = 0;
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        n--;
    while (n > 0 && isspace((unsigned char)*s)) {
        s++;
        n--;
    }
    if (n == 0 || n >= sizeof text)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '_') {
            if (i == 0 || i + 1 >= n || !isdigit((unsigned char)s[i - 1]) || !isdigit((unsigned char)s[i + 1]))
                return false;
            continue;
        }
        if (s[i] == 0 || s[i] == 'x' || s[i] == 'X' || s[i] == '(')
            return false;
        text[k++] = s[i];
    }
    text[k] = 0;
    char *end;
    *out = strtod(text, &end);
    return *end == 0 && end != text;
}
