#include "server/reply.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"

static const char THINK[] = "<think>", THINK_END[] = "</think>";
enum { MAX_NAME = 256 };

/* ---- names ---- */

static const char *const call_names[] = {"none", "hermes", "llama3", "mistral", "pythonic"};
static const char *const thought_names[] = {"none", "deepseek_r1", "qwen3"};

bool reply_calls_parse(const char *name, enum reply_calls *out)
{
    static const struct { const char *name; enum reply_calls calls; } others[] = {
        {"llama3_json", REPLY_CALLS_LLAMA3}, {"llama4_json", REPLY_CALLS_LLAMA3}, {"llama4_pythonic", REPLY_CALLS_PYTHONIC}, {"qwen", REPLY_CALLS_HERMES},
    };
    for (int i = 0; i < REPLY_CALLS_COUNT; i++)
        if (strcmp(name, call_names[i]) == 0)
            return *out = (enum reply_calls)i, true;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i].name) == 0)
            return *out = others[i].calls, true;
    return false;
}

bool reply_thoughts_parse(const char *name, enum reply_thoughts *out)
{
    for (int i = 0; i < REPLY_THOUGHTS_COUNT; i++)
        if (strcmp(name, thought_names[i]) == 0)
            return *out = (enum reply_thoughts)i, true;
    return false;
}

const char *reply_calls_name(enum reply_calls c) { return call_names[c]; }
const char *reply_thoughts_name(enum reply_thoughts t) { return thought_names[t]; }

enum reply_calls reply_calls_detect(const char *t)
{
    if (!strstr(t, "tools"))
        return REPLY_CALLS_NONE;
    if (strstr(t, "[TOOL_CALLS]"))
        return REPLY_CALLS_MISTRAL;
    if (strstr(t, "<tool_call>"))
        return REPLY_CALLS_HERMES;
    if (strstr(t, "[func_name1(") || strstr(t, "func_name(params_name"))
        return REPLY_CALLS_PYTHONIC;
    if (strstr(t, "<|python_tag|>") || strstr(t, "\"parameters\": "))
        return REPLY_CALLS_LLAMA3;
    return REPLY_CALLS_NONE;
}

enum reply_thoughts reply_thoughts_detect(const char *t)
{
    if (!strstr(t, THINK_END))
        return REPLY_THOUGHTS_NONE;
    return strstr(t, "enable_thinking") ? REPLY_THOUGHTS_QWEN3 : REPLY_THOUGHTS_DEEPSEEK_R1;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

enum reply_start reply_start_of(const char *prompt, size_t len)
{
    while (len > 0 && is_space(prompt[len - 1]))
        len--;
    if (len >= strlen(THINK_END) && memcmp(prompt + len - strlen(THINK_END), THINK_END, strlen(THINK_END)) == 0)
        return REPLY_START_TALKING;
    if (len >= strlen(THINK) && memcmp(prompt + len - strlen(THINK), THINK, strlen(THINK)) == 0)
        return REPLY_START_THINKING;
    return REPLY_START_OPEN;
}

/* ---- the reader ---- */

/* BEGIN  nothing but blanks yet
 * THINK  in a thought
 * FIRST  talking, nothing but blanks yet: where replies that are calls as a whole begin
 * TALK   content
 * CALL   at a call or at what stands between calls; everything from the mark on is in `in`, in case it is none
 * ARGS   its arguments are being streamed
 * AFTER  behind the arguments, inside the object that holds them */
enum stage { BEGIN, THINK_STAGE, FIRST, TALK, CALL, ARGS, AFTER };

/* A JSON value being passed over. */
struct json_scan { int depth; bool string, escape, begun; };

struct reply {
    enum reply_calls calls;
    enum reply_thoughts thoughts;
    bool one;
    struct reply_sink sink;
    enum stage stage;
    struct buf in;             /* not yet handed out */
    size_t done;               /* of in: inside the unit that is being held or streamed */
    struct json_scan scan;
    size_t n_blanks;           /* of in: blanks at its front that were looked at in TALK */
    bool list;                 /* mistral, pythonic: inside [ ] */
    bool marked;               /* behind a mark, and no call yet */
    bool wrapped;              /* the arguments are in an object with the name */
    bool said;                 /* content was handed out */
    int n_calls;
};

struct reply *reply_open(enum reply_calls calls, enum reply_thoughts thoughts, enum reply_start start, bool one, const struct reply_sink *sink)
{
    struct reply *r = mem_try_zalloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->calls = calls;
    r->thoughts = thoughts;
    r->one = one;
    r->sink = *sink;
    r->stage = thoughts == REPLY_THOUGHTS_NONE || start == REPLY_START_TALKING ? FIRST : start == REPLY_START_THINKING ? THINK_STAGE : BEGIN;
    buf_init(&r->in, 0);
    return r;
}

void reply_close(struct reply **r)
{
    if (!*r)
        return;
    buf_free(&(*r)->in);
    mem_free(*r);
    *r = NULL;
}

int reply_n_calls(const struct reply *r) { return r->n_calls; }

static void drop(struct reply *r, size_t n)
{
    buf_consume(&r->in, n);
    r->done = 0;
}

static void say(struct reply *r, size_t n)
{
    if (n > 0) {
        r->sink.content(r->sink.ctx, r->in.data, n);
        r->said = true;
    }
    drop(r, n);
}

static size_t blanks_from(const struct reply *r, size_t at)
{
    while (at < r->in.len && is_space(r->in.data[at]))
        at++;
    return at;
}

/* How much of the end of text could be the beginning of mark. */
static size_t overlap(const char *text, size_t len, const char *mark)
{
    size_t n = strlen(mark) - 1 < len ? strlen(mark) - 1 : len;
    while (n > 0 && memcmp(text + len - n, mark, n) != 0)
        n--;
    return n;
}

/* The mark at a place: 1 there, 0 not, -1 not yet to be said. */
static int mark_at(const struct reply *r, size_t at, const char *mark, bool end)
{
    size_t n = strlen(mark), have = r->in.len - at;
    if (have >= n)
        return memcmp(r->in.data + at, mark, n) == 0;
    return memcmp(r->in.data + at, mark, have) != 0 || end ? 0 : -1;
}

static size_t find(const struct reply *r, const char *mark)
{
    const char *hit = r->in.len ? memmem(r->in.data, r->in.len, mark, strlen(mark)) : NULL;
    return hit ? (size_t)(hit - r->in.data) : SIZE_MAX;
}

static const char *mark_of(const struct reply *r)
{
    static const char *const marks[] = {
        [REPLY_CALLS_HERMES] = "<tool_call>", [REPLY_CALLS_LLAMA3] = "<|python_tag|>", [REPLY_CALLS_MISTRAL] = "[TOOL_CALLS]", [REPLY_CALLS_COUNT] = NULL,
    };
    return marks[r->calls];
}

/* ---- thoughts and content ---- */

static bool begin(struct reply *r, bool end)
{
    size_t at = blanks_from(r, 0);
    if (at == r->in.len && !end)
        return false;
    int mark = at < r->in.len ? mark_at(r, at, THINK, end) : 0;
    if (mark < 0)
        return false;
    if (mark)
        drop(r, at + strlen(THINK));
    r->stage = mark || (r->thoughts == REPLY_THOUGHTS_DEEPSEEK_R1 && at < r->in.len) ? THINK_STAGE : FIRST;
    r->n_blanks = 0;
    return true;
}

/* Blanks at either end of a thought are left out: n_blanks says whether it has begun. */
static bool think(struct reply *r, bool end)
{
    if (!r->n_blanks) {
        size_t at = blanks_from(r, 0);
        if (at == r->in.len && !end)
            return false;
        drop(r, at);
        r->n_blanks = 1;
    }
    size_t hit = find(r, THINK_END), n = hit != SIZE_MAX ? hit : r->in.len;
    if (hit == SIZE_MAX && !end)
        n -= overlap(r->in.data ? r->in.data : "", r->in.len, THINK_END);
    size_t text = n;
    while (text > 0 && is_space(r->in.data[text - 1]))
        text--;
    if (text > 0)
        r->sink.thought(r->sink.ctx, r->in.data, text);
    if (hit != SIZE_MAX)
        drop(r, hit + strlen(THINK_END));
    else
        drop(r, end ? r->in.len : text);
    if (hit == SIZE_MAX)
        return false;
    r->stage = FIRST;
    return true;
}

/* Where a reply that is a call as a whole may begin; blanks before it are dropped only then, or behind a thought. */
static bool first(struct reply *r, bool end)
{
    size_t at = blanks_from(r, 0);
    if (at == r->in.len && !end)
        return false;
    if (r->thoughts != REPLY_THOUGHTS_NONE)
        drop(r, at), at = 0;
    bool whole = at < r->in.len && ((r->calls == REPLY_CALLS_LLAMA3 && r->in.data[at] == '{') || (r->calls == REPLY_CALLS_PYTHONIC && r->in.data[at] == '['));
    r->stage = whole ? CALL : TALK;
    r->list = false;
    r->n_blanks = 0;
    r->done = whole ? at : 0;
    return true;
}

/* Blanks at the end are held: they are dropped before a call. */
static bool talk(struct reply *r, bool end)
{
    const char *mark = mark_of(r);
    size_t hit = mark ? find(r, mark) : SIZE_MAX, n = hit != SIZE_MAX ? hit : r->in.len;
    if (!mark) {
        say(r, n);
        return false;
    }
    if (hit == SIZE_MAX && !end)
        n -= overlap(r->in.data ? r->in.data : "", r->in.len, mark);
    size_t text = n;
    while (text > 0 && is_space(r->in.data[text - 1]))
        text--;
    if (hit == SIZE_MAX) {
        bool last = end && (r->n_calls == 0 || text > 0);
        say(r, last ? n : text);
        return false;
    }
    say(r, text);
    r->stage = CALL;
    r->list = false;
    r->marked = true;
    r->done = n - text + strlen(mark);
    return true;
}

/* ---- calls ---- */

/* Goes on over a JSON value that begins at r->done; true: it ends there. */
static bool pass_value(struct reply *r, size_t *at)
{
    struct json_scan *s = &r->scan;
    for (; *at < r->in.len; ++*at) {
        char c = r->in.data[*at];
        if (s->string) {
            s->string = s->escape || c != '"';
            s->escape = !s->escape && c == '\\';
            continue;
        }
        s->string = c == '"';
        s->depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        s->begun |= s->depth > 0;
        if (s->begun && s->depth <= 0) {
            ++*at;
            return true;
        }
    }
    return false;
}

static void start_call(struct reply *r, const char *name, size_t len)
{
    if (!r->one || r->n_calls == 0)
        r->sink.call(r->sink.ctx, r->n_calls, name, len);
    r->n_calls++;
    r->marked = false;
}

static void give_arguments(struct reply *r, const char *text, size_t len)
{
    if (len > 0 && (!r->one || r->n_calls == 1))
        r->sink.arguments(r->sink.ctx, r->n_calls - 1, text, len);
}

enum step { MORE, GO, BAD };

/* A literal, blanks before it passed over: moves at. */
static enum step take(const struct reply *r, size_t *at, const char *what)
{
    size_t from = blanks_from(r, *at), n = strlen(what), have = r->in.len - from;
    if (memcmp(r->in.data + from, what, have < n ? have : n) != 0)
        return BAD;
    *at = from + n;
    return have < n ? MORE : GO;
}

static enum step take_name(const struct reply *r, size_t *at, size_t *from, size_t *len)
{
    enum step s = take(r, at, "\"");
    if (s != GO)
        return s;
    *from = *at;
    while (*at < r->in.len && r->in.data[*at] != '"' && r->in.data[*at] != '\\' && r->in.data[*at] != '\n' && *at - *from < MAX_NAME)
        ++*at;
    *len = *at - *from;
    if (*at == r->in.len)
        return MORE;
    ++*at;
    return r->in.data[*at - 1] == '"' && *len > 0 ? GO : BAD;
}

/* {"name": "f", "arguments": {   at r->done: the way calls are usually written, so that arguments can be streamed. */
static enum step read_header(struct reply *r)
{
    size_t at = r->done, name = 0, len = 0, value = 0;
    enum step s;
    if ((s = take(r, &at, "{")) != GO || (s = take(r, &at, "\"name\"")) != GO || (s = take(r, &at, ":")) != GO ||
        (s = take_name(r, &at, &name, &len)) != GO || (s = take(r, &at, ",")) != GO)
        return s;
    value = at;
    if ((s = take(r, &at, "\"arguments\"")) == BAD) {
        at = value;
        s = take(r, &at, "\"parameters\"");
    }
    if (s != GO || (s = take(r, &at, ":")) != GO)
        return s;
    value = at;
    if ((s = take(r, &value, "{")) != GO)
        return s;
    at = value - 1;
    start_call(r, r->in.data + name, len);
    drop(r, at);
    r->scan = (struct json_scan){0};
    r->wrapped = true;
    r->stage = ARGS;
    return GO;
}

/* An object in any order, held until it is whole: "" when it is no call. */
static bool emit_object(struct reply *r, const char *text, size_t len)
{
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *args = json_object_get(o, "arguments");
    const char *name = json_string_value(json_object_get(o, "name"));
    args = args ? args : json_object_get(o, "parameters");
    bool ok = name && *name && (!args || json_is_object(args) || json_is_string(args));
    if (ok) {
        char *dump = json_is_object(args) ? json_dumps(args, JSON_PRESERVE_ORDER) : NULL;
        const char *a = dump ? dump : json_is_string(args) ? json_string_value(args) : "{}";
        start_call(r, name, strlen(name));
        give_arguments(r, a, strlen(a));
        free(dump);
    }
    json_decref(o);
    return ok;
}

/* What was taken for calls is content, up to n. */
static void not_a_call(struct reply *r, size_t n)
{
    say(r, n);
    r->stage = TALK;
    r->list = false;
}

/* The object at r->done. */
static bool read_object(struct reply *r, bool end)
{
    enum step s = read_header(r);
    if (s == GO)
        return true;
    if (s == MORE && !end)
        return false;
    size_t at = r->done;
    r->scan = (struct json_scan){0};
    bool whole = pass_value(r, &at);
    if (!whole && !end)
        return false;
    if (!whole || !emit_object(r, r->in.data + r->done, at - r->done)) {
        not_a_call(r, at);
        return true;
    }
    drop(r, at);
    return true;
}

/* mistral: a name, then [ARGS] or the arguments at once. */
static bool read_named(struct reply *r, bool end)
{
    size_t from = r->done, at = from;
    while (at < r->in.len && at - from < MAX_NAME && (r->in.data[at] == '_' || r->in.data[at] == '-' || r->in.data[at] == '.' || (r->in.data[at] >= '0' && r->in.data[at] <= '9') ||
                                                      ((r->in.data[at] | 32) >= 'a' && (r->in.data[at] | 32) <= 'z')))
        at++;
    size_t name = at - from, brace = at;
    static const char ids[] = "[CALL_ID]", args[] = "[ARGS]";
    if (brace < r->in.len && r->in.data[brace] == '[') {
        int id = mark_at(r, brace, ids, end), direct = mark_at(r, brace, args, end);
        if (id < 0 || direct < 0)
            return false;
        size_t window = r->in.len - brace < MAX_NAME ? r->in.len - brace : MAX_NAME;   /* an id is short */
        const char *hit = id > 0 ? memmem(r->in.data + brace, window, args, strlen(args)) : direct > 0 ? r->in.data + brace : NULL;
        if (id > 0 && !hit && !end && window < MAX_NAME)
            return false;
        if (!hit) {
            not_a_call(r, brace);
            return true;
        }
        brace = (size_t)(hit - r->in.data) + strlen(args);
    }
    brace = blanks_from(r, brace);
    if (brace == r->in.len && !end)
        return false;
    if (name == 0 || brace >= r->in.len || r->in.data[brace] != '{') {
        not_a_call(r, brace);
        return true;
    }
    start_call(r, r->in.data + from, name);
    drop(r, brace);
    r->scan = (struct json_scan){0};
    r->wrapped = false;
    r->stage = ARGS;
    return true;
}

static bool read_python(struct reply *r, bool end)
{
    struct buf name, args;
    ptrdiff_t n = reply_python_length(r->in.data + r->done, r->in.len - r->done);
    if (n == 0 && !end)
        return false;
    buf_init(&name, 0);
    buf_init(&args, 0);
    if (n > 0 && reply_python_call(r->in.data + r->done, (size_t)n, &name, &args)) {
        start_call(r, name.data, name.len);
        give_arguments(r, args.data, args.len);
        drop(r, r->done + (size_t)n);
    } else {
        r->in.failed |= name.failed || args.failed;
        not_a_call(r, n > 0 ? r->done + (size_t)n : r->in.len);
    }
    buf_free(&name);
    buf_free(&args);
    return true;
}

/* Another mark. */
static bool mark_again(struct reply *r, size_t at)
{
    if (r->marked) {
        not_a_call(r, at);
        return true;
    }
    drop(r, at);
    r->marked = true;
    r->done = strlen(mark_of(r));
    return true;
}

/* The end of the calls: what follows is content. */
static bool end_calls(struct reply *r, size_t at)
{
    drop(r, at);
    r->stage = TALK;
    r->list = false;
    return true;
}

/* Between calls. */
static bool call(struct reply *r, bool end)
{
    size_t at = blanks_from(r, r->done);
    if (at == r->in.len) {
        if (end && r->n_calls == 0)
            not_a_call(r, at);
        else if (end)
            end_calls(r, at);
        return end && r->in.len > 0;
    }
    char c = r->in.data[at];
    r->done = at;
    if (r->calls == REPLY_CALLS_HERMES && c == '<') {
        int close = mark_at(r, at, "</tool_call>", end), open = mark_at(r, at, mark_of(r), end);
        if (close < 0 || open < 0)
            return false;
        if (close > 0 && !r->marked)
            return end_calls(r, at + strlen("</tool_call>"));
        if (open > 0)
            return mark_again(r, at);
    }
    if (r->calls == REPLY_CALLS_MISTRAL && !r->list) {
        int again = mark_at(r, at, mark_of(r), end);
        if (again < 0)
            return false;
        if (again > 0)
            return mark_again(r, at);
    }
    if ((r->calls == REPLY_CALLS_MISTRAL || r->calls == REPLY_CALLS_PYTHONIC) && c == '[' && !r->list && (r->marked || r->n_calls == 0)) {
        r->list = true;
        r->done = at + 1;
        return true;
    }
    if (r->list && c == ']')
        return end_calls(r, at + 1);
    bool between = (r->list && c == ',') || (r->calls == REPLY_CALLS_LLAMA3 && r->n_calls > 0 && (c == ';' || c == ','));
    if (between && r->n_calls > 0) {
        r->done = at + 1;
        return true;
    }
    if (c == '{' && r->calls != REPLY_CALLS_PYTHONIC)
        return read_object(r, end);
    if (r->calls == REPLY_CALLS_PYTHONIC && r->list)
        return read_python(r, end);
    if (r->calls == REPLY_CALLS_MISTRAL && !r->list && c != '[')
        return read_named(r, end);
    /* Content behind calls begins with its first letter; behind a mark without a call the mark is content too. */
    if (r->n_calls > 0 && r->done == at && at == blanks_from(r, 0))
        return end_calls(r, at);
    not_a_call(r, at + 1);
    return true;
}

static bool arguments(struct reply *r, bool end)
{
    size_t at = 0;
    bool whole = pass_value(r, &at);
    give_arguments(r, r->in.data, at);
    drop(r, at);
    if (!whole)
        return false;
    r->scan = (struct json_scan){.depth = 1, .begun = true};
    r->stage = r->wrapped ? AFTER : CALL;
    return r->in.len > 0 || end;
}

/* Other members behind the arguments, and the brace. */
static bool after(struct reply *r)
{
    size_t at = 0;
    bool whole = pass_value(r, &at);
    drop(r, at);
    if (whole)
        r->stage = CALL;
    return whole;
}

static bool step(struct reply *r, bool end)
{
    switch (r->stage) {
    case BEGIN: return begin(r, end);
    case THINK_STAGE: return think(r, end);
    case FIRST: return first(r, end);
    case TALK: return talk(r, end);
    case CALL: return call(r, end);
    case ARGS: return arguments(r, end);
    case AFTER: return after(r);
    }
    return false;
}

bool reply_feed(struct reply *r, const char *text, size_t len, bool end)
{
    if (!buf_append(&r->in, text, len))
        return false;
    while (step(r, end)) {
    }
    return !r->in.failed;
}
