#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { MAX_DEPTH = 4096 }; /* above what jansson parses; bounds the recursion of json_write */

/* ---- jansson's memory ----
 * Its reader ignores a failure to make room for one more byte of a string, tries again with the next, and in the end hands out a string that
 * has been cut.  So within a parse the first failure makes all that follow fail at once, and the result is thrown away. */

static _Thread_local bool parsing, starved;

static void *alloc_for_jansson(size_t n)
{
    if (parsing && starved)
        return NULL;
    void *p = malloc(n);
    starved |= parsing && !p;
    return p;
}

static void set_alloc(void) { json_set_alloc_funcs(alloc_for_jansson, free); }

static json_t *load(const char *text, size_t len, size_t flags, json_error_t *je)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_alloc);
    parsing = true;
    starved = false;
    json_t *j = json_loadb(text, len, flags, je);
    parsing = false;
    if (!starved)
        return j;
    json_decref(j);
    snprintf(je->text, sizeof je->text, "out of memory");
    je->text[JSON_ERROR_TEXT_LENGTH - 1] = (char)json_error_out_of_memory; /* where json_error_code looks */
    return NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Whether the integer literal s[0..n) is outside int64. */
static bool beyond_i64(const char *s, size_t n)
{
    char digits[32];
    if (n < 19)
        return false;
    if (n >= sizeof digits)
        return true;
    memcpy(digits, s, n);
    digits[n] = '\0';
    errno = 0;
    (void)strtoll(digits, NULL, 10);
    return errno == ERANGE;
}

/* Copies text to out and makes reals of integers that int64 cannot hold: ".0" is added. */
static bool copy_big_as_real(const char *text, size_t len, struct buf *out)
{
    bool in_string = false;
    for (size_t i = 0; i < len;) {
        size_t from = i;
        if (in_string) {
            if (text[i] == '\\' && i + 1 < len)
                i++;
            else if (text[i] == '"')
                in_string = false;
            i++;
        } else if (is_digit(text[i]) || text[i] == '-') {
            i++;
            while (i < len && is_digit(text[i]))
                i++;
            bool whole = i == len || (text[i] != '.' && text[i] != 'e' && text[i] != 'E');
            bool big = whole && beyond_i64(text + from, i - from);
            buf_append(out, text + from, i - from);
            if (big)
                buf_puts(out, ".0");
            if (!whole) /* the rest of a real: digits there are not integers */
                for (from = i; i < len && (is_digit(text[i]) || strchr(".eE+-", text[i])) && text[i]; i++)
                    buf_putc(out, text[i]);
            continue;
        } else {
            in_string = text[i] == '"';
            i++;
        }
        buf_append(out, text + from, i - from);
    }
    return !out->failed;
}

static json_t *parse_again(const char *text, size_t len, size_t flags, json_error_t *je)
{
    struct buf copy;
    buf_init(&copy, 0);
    json_t *j = NULL;
    if (copy_big_as_real(text, len, &copy))
        j = load(copy.data, copy.len, flags, je);
    buf_free(&copy);
    return j;
}

/* A zero byte is valid nowhere in JSON, but jansson overlooks one that follows a number. */
static bool check_no_nul(const char *text, size_t len, struct err *e)
{
    const char *nul = len ? memchr(text, 0, len) : NULL;
    if (!nul)
        return true;
    size_t line = 1, column = 1;
    for (const char *c = text; c < nul; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    return err_set(e, ERR_INVALID, "not valid JSON: line %zu column %zu: zero byte", line, column);
}

json_t *json_parse(const char *text, size_t len, struct err *e)
{
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    if (!check_no_nul(text, len, e))
        return NULL;
    json_error_t je;
    json_t *j = load(len ? text : "", len, flags, &je);
    if (!j && json_error_code(&je) == json_error_numeric_overflow)
        j = parse_again(text, len, flags, &je);
    if (!j)
        err_set(e, json_error_code(&je) == json_error_out_of_memory ? ERR_NOMEM : ERR_INVALID,
                "not valid JSON: line %d column %d: %s", je.line, je.column, je.text);
    return j;
}

json_t *json_parse_file(const char *path, size_t max_bytes, struct err *e)
{
    size_t len;
    char *text = file_read(path, max_bytes, &len, e);
    if (!text)
        return NULL;
    json_t *j = json_parse(text, len, e);
    mem_free(text);
    if (!j)
        err_prefix(e, "%s", path);
    return j;
}

/* Bytes that stand for themselves inside a JSON string. */
static size_t plain_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' && !(s[i] & 0x80))
        i++;
    return i;
}

static bool write_escape(struct buf *b, char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = memchr(from, c, sizeof from - 1);
    if (at)
        return buf_append(b, (char[2]){'\\', to[at - from]}, 2);
    return buf_printf(b, "\\u%04x", (unsigned)(unsigned char)c);
}

/* At s[0] is a byte >= 0x80: writes the character, or U+FFFD for what cannot become one.
 * Returns the bytes read. */
static size_t write_wide(struct buf *b, const char *s, size_t n)
{
    uint32_t cp;
    int len = utf8_decode(s, n, &cp);
    if (len) {
        buf_append(b, s, (size_t)len);
        return (size_t)len;
    }
    char out[12];
    size_t part = 1; /* the maximal subpart: grow while it is still one replacement */
    while (part < n && part < 3 && utf8_lossy(s, part + 1, out) == 3)
        part++;
    buf_puts(b, "\xef\xbf\xbd");
    return part;
}

bool json_write_str(struct buf *b, const char *s, size_t len)
{
    buf_putc(b, '"');
    for (size_t i = 0; i < len;) {
        size_t run = plain_run(s + i, len - i);
        if (run) {
            buf_append(b, s + i, run);
            i += run;
        } else if (s[i] & 0x80) {
            i += write_wide(b, s + i, len - i);
        } else {
            write_escape(b, s[i++]);
        }
    }
    return buf_putc(b, '"');
}

/* The shortest of 15, 16 and 17 digits that reads back as the same number. */
static bool write_real(struct buf *b, double x)
{
    char text[40];
    if (!isfinite(x))
        return buf_puts(b, "null");
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    for (char *c = text; *c; c++)
        if (*c == ',') /* a program around the library may have set a locale */
            *c = '.';
    buf_puts(b, text);
    return strpbrk(text, ".e") ? !b->failed : buf_puts(b, ".0");
}

static bool write_value(const json_t *j, struct buf *b, int depth);

static bool write_object(const json_t *j, struct buf *b, int depth)
{
    json_t *obj = (json_t *)j; /* jansson iterates over objects that are not const */
    buf_putc(b, '{');
    for (void *it = json_object_iter(obj), *first = it; it; it = json_object_iter_next(obj, it)) {
        if (it != first)
            buf_putc(b, ',');
        json_write_str(b, json_object_iter_key(it), json_object_iter_key_len(it));
        buf_putc(b, ':');
        if (!write_value(json_object_iter_value(it), b, depth + 1))
            return false;
    }
    return buf_putc(b, '}');
}

static bool write_array(const json_t *j, struct buf *b, int depth)
{
    buf_putc(b, '[');
    for (size_t i = 0; i < json_array_size(j); i++) {
        if (i)
            buf_putc(b, ',');
        if (!write_value(json_array_get(j, i), b, depth + 1))
            return false;
    }
    return buf_putc(b, ']');
}

static bool write_value(const json_t *j, struct buf *b, int depth)
{
    if (!j || depth > MAX_DEPTH)
        return false;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return write_object(j, b, depth);
    case JSON_ARRAY:
        return write_array(j, b, depth);
    case JSON_STRING:
        return json_write_str(b, json_string_value(j), json_string_length(j));
    case JSON_INTEGER:
        return buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
    case JSON_REAL:
        return write_real(b, json_real_value(j));
    case JSON_TRUE:
        return buf_puts(b, "true");
    case JSON_FALSE:
        return buf_puts(b, "false");
    case JSON_NULL:
        return buf_puts(b, "null");
    }
    return false;
}

bool json_write(const json_t *j, struct buf *b)
{
    return write_value(j, b, 0);
}

const char *json_type_name(const json_t *j)
{
    if (!j)
        return "missing";
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

/* The value, or NULL in *out when missing or null; false when obj is no object. */
static bool get(const json_t *obj, const char *key, const json_t **out, struct err *e)
{
    *out = NULL;
    if (obj && !json_is_object(obj))
        return err_set(e, ERR_INVALID, "'%s': expected an object around it, found %s", key, json_type_name(obj));
    json_t *j = json_object_get(obj, key);
    if (j && !json_is_null(j))
        *out = j;
    return true;
}

static bool wrong_type(const char *key, const char *expected, const json_t *j, struct err *e)
{
    return err_set(e, ERR_INVALID, "'%s': expected %s, found %s", key, expected, json_type_name(j));
}

bool json_get_i64(const json_t *obj, const char *key, int64_t dflt, int64_t *out, struct err *e)
{
    const json_t *j;
    if (!get(obj, key, &j, e))
        return false;
    if (!j) {
        *out = dflt;
        return true;
    }
    if (json_is_integer(j)) {
        *out = json_integer_value(j);
        return true;
    }
    double x = json_is_real(j) ? json_real_value(j) : 0.5;
    if (x != floor(x))
        return wrong_type(key, "integer", j, e);
    if (fabs(x) > 0x1p53) /* from here on a real does not say which integer was meant */
        return err_set(e, ERR_INVALID, "'%s': the integer %.17g is too large", key, x);
    *out = (int64_t)x;
    return true;
}

bool json_get_f64(const json_t *obj, const char *key, double dflt, double *out, struct err *e)
{
    const json_t *j;
    if (!get(obj, key, &j, e))
        return false;
    if (j && !json_is_number(j))
        return wrong_type(key, "number", j, e);
    *out = j ? json_number_value(j) : dflt;
    return true;
}

bool json_get_bool(const json_t *obj, const char *key, bool dflt, bool *out, struct err *e)
{
    const json_t *j;
    if (!get(obj, key, &j, e))
        return false;
    if (j && !json_is_boolean(j))
        return wrong_type(key, "boolean", j, e);
    *out = j ? json_is_true(j) : dflt;
    return true;
}

bool json_get_str(const json_t *obj, const char *key, const char *dflt, const char **out, struct err *e)
{
    const json_t *j;
    if (!get(obj, key, &j, e))
        return false;
    if (j && !json_is_string(j))
        return wrong_type(key, "string", j, e);
    if (j && strlen(json_string_value(j)) != json_string_length(j))
        return err_set(e, ERR_INVALID, "'%s': the string must not contain \\u0000", key);
    *out = j ? json_string_value(j) : dflt;
    return true;
}

bool json_get_obj(const json_t *obj, const char *key, const json_t **out, struct err *e)
{
    const json_t *j;
    *out = NULL;
    if (!get(obj, key, &j, e))
        return false;
    if (j && !json_is_object(j))
        return wrong_type(key, "object", j, e);
    *out = j;
    return true;
}

bool json_get_arr(const json_t *obj, const char *key, const json_t **out, struct err *e)
{
    const json_t *j;
    *out = NULL;
    if (!get(obj, key, &j, e))
        return false;
    if (j && !json_is_array(j))
        return wrong_type(key, "array", j, e);
    *out = j;
    return true;
}
