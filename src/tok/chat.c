/* chat.c - messages through a chat template, as Hugging Face's apply_chat_template. */
#include "tok/chat.h"

#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tok/jinja_int.h"

struct chat {
    struct jinja *template;
    json_t *specials;      /* bos_token, eos_token ... by name */
    bool loops_content;    /* content given as a list stays one */
};

/* ---- opening ---- */

static bool add_special(json_t *specials, const char *name, const char *text)
{
    return !text || json_object_set_new(specials, name, json_string(text)) == 0;
}

bool chat_open(struct chat **out, const struct tok *t, const char *source, size_t len,
               const char *bos, const char *eos, const char *unk, struct err *e)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
    const char *given[3] = {bos, eos, unk};
    *out = NULL;
    if (!source) {
        source = t ? tok_chat_template(t, NULL) : NULL;
        if (!source)
            return err_set(e, ERR_NOT_FOUND, "the model has no chat template; give one");
        len = strlen(source);
    }
    struct chat *c = mem_try_zalloc(1, sizeof *c);
    if (!c || !(c->specials = json_object())) {
        mem_free(c);
        return err_set(e, ERR_NOMEM, "chat template: out of memory");
    }
    bool ok = true;
    for (size_t i = 0; i < sizeof names / sizeof *names && ok; i++) {
        const char *text = i < 3 && given[i] ? given[i] : t ? tok_special_text(t, names[i]) : i < 3 ? "" : NULL;
        if (text && (*text || !t || (i < 3 && given[i])))
            ok = add_special(c->specials, names[i], text);
    }
    if (!ok)
        err_set(e, ERR_INVALID, "chat template: a special token is not valid UTF-8");
    if (!ok || !jinja_compile(&c->template, source, len, e)) {
        chat_close(&c);
        return false;
    }
    c->loops_content = jinja_loops_content(c->template);
    *out = c;
    return true;
}

void chat_close(struct chat **c)
{
    if (!*c)
        return;
    jinja_free(&(*c)->template);
    json_decref((*c)->specials);
    mem_free(*c);
    *c = NULL;
}

/* ---- content parts ---- */

/* The text of one part, or NULL with an error. */
static const json_t *part_text(const json_t *part, size_t message, struct err *e)
{
    if (json_is_string(part))
        return part;
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");
    if (!json_is_object(part))
        err_set(e, ERR_INVALID, "messages[%zu].content: a part must be an object, found %s", message, json_type_name(part));
    else if (type && strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0 && strcmp(type, "output_text") != 0)
        err_set(e, ERR_UNSUPPORTED, "messages[%zu].content: parts of type '%.60s' are not supported, only 'text'", message, type);
    else if (!json_is_string(text))
        err_set(e, ERR_INVALID, "messages[%zu].content: a text part needs a string 'text'", message);
    else
        return text;
    return NULL;
}

/* A content list as the template wants it: parts {"type":"text","text":..}, or one string joined by newlines. */
static json_t *convert_parts(const json_t *parts, bool keep, size_t message, struct err *e)
{
    json_t *list = keep ? json_array() : NULL, *part;
    struct buf joined;
    size_t i;
    bool ok = !keep || list;
    buf_init(&joined, 0);
    json_array_foreach((json_t *)parts, i, part) {
        const json_t *text = part_text(part, message, e);
        if (!text) {
            buf_free(&joined);
            json_decref(list);
            return NULL;
        }
        if (keep) {
            json_t *copy = json_is_object(part) ? json_copy(part) : json_object();
            ok = ok && copy && json_object_set_new(copy, "type", json_string("text")) == 0 &&
                 json_object_set(copy, "text", (json_t *)text) == 0 && json_array_append(list, copy) == 0;
            json_decref(copy);
        } else {
            if (i > 0)
                buf_putc(&joined, '\n');
            buf_append(&joined, json_string_value(text), json_string_length(text));
        }
    }
    json_t *out = keep ? list : !joined.failed ? json_stringn(joined.data ? joined.data : "", joined.len) : NULL;
    buf_free(&joined);
    if (ok && out)
        return out;
    json_decref(out);
    err_set(e, ERR_NOMEM, "chat: out of memory");
    return NULL;
}

/* The messages with their content lists converted; a new reference. */
static json_t *convert_messages(const struct chat *c, const json_t *messages, struct err *e)
{
    json_t *out, *m;
    size_t i;
    if (!messages || !json_is_array(messages)) {
        err_set(e, ERR_INVALID, "messages must be an array");
        return NULL;
    }
    if (!(out = json_array())) {
        err_set(e, ERR_NOMEM, "chat: out of memory");
        return NULL;
    }
    json_array_foreach((json_t *)messages, i, m) {
        const json_t *content = json_object_get(m, "content");
        if (!json_is_object(m)) {
            err_set(e, ERR_INVALID, "messages[%zu] must be an object, found %s", i, json_type_name(m));
            goto fail;
        }
        if (!json_is_array(content)) {
            if (json_array_append(out, m) != 0)
                goto no_memory;
            continue;
        }
        json_t *copy = json_copy(m), *parts = copy ? convert_parts(content, c->loops_content, i, e) : NULL;
        if (copy && !parts) {
            json_decref(copy);
            goto fail;
        }
        if (!copy || json_object_set_new(copy, "content", parts) != 0 || json_array_append_new(out, copy) != 0)
            goto no_memory;
    }
    return out;
no_memory:
    err_set(e, ERR_NOMEM, "chat: out of memory");
fail:
    json_decref(out);
    return NULL;
}

/* ---- continue_final_message ---- */

static void strip(const char **s, size_t *n, bool left, bool right)
{
    uint32_t cp;
    int k;
    while (left && *n > 0 && (k = utf8_decode(*s, *n, &cp)) > 0 && jinja_is_space(cp)) {
        *s += k;
        *n -= (size_t)k;
    }
    while (right && *n > 0) {
        size_t b = *n - 1;
        while (b > 0 && ((unsigned char)(*s)[b] & 0xC0) == 0x80)
            b--;
        if (utf8_decode(*s + b, *n - b, &cp) <= 0 || !jinja_is_space(cp))
            break;
        *n = b;
    }
}

/* The text a continued message ends with: its content, or its last text part. */
static const json_t *final_text(const json_t *messages)
{
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1), *content = json_object_get(last, "content");
    if (json_is_string(content))
        return content;
    for (size_t i = json_array_size(content); i-- > 0;) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        if (json_is_string(text))
            return text;
    }
    return NULL;
}

static size_t find_last(const char *s, size_t n, const char *t, size_t m)
{
    for (size_t at = n; m > 0 && at >= m;) {
        const char *p = memrchr(s, t[0], at - m + 1);
        if (!p)
            break;
        if (memcmp(p, t, m) == 0)
            return (size_t)(p - s);
        at = (size_t)(p - s) + m - 1;
    }
    return m == 0 ? n : SIZE_MAX;
}

/* Cuts text behind the last place of the final message's content, as transformers does: with the content's trailing blanks
 * when the template kept them, else without. */
static bool cut_final(const json_t *messages, struct buf *text, size_t start, struct err *e)
{
    const json_t *final = json_array_size(messages) > 0 ? final_text(messages) : NULL;
    if (!final)
        return err_set(e, ERR_INVALID, "continue_final_message: the final message has no text to continue");
    const char *full = json_string_value(final), *bare = full, *head = full, *out = text->data ? text->data + start : "";
    size_t full_n = json_string_length(final), bare_n = full_n, head_n = full_n, out_n = text->len - start;
    strip(&bare, &bare_n, true, true);
    strip(&head, &head_n, true, false);
    size_t at = find_last(out, out_n, bare, bare_n);
    if (at == SIZE_MAX)
        return err_set(e, ERR_INVALID, "continue_final_message: the final message does not appear in the text that the chat template gives");
    bool kept = head_n == full_n && out_n - at >= head_n && memcmp(out + at, head, head_n) == 0;
    text->len = start + at + (kept ? head_n : bare_n);
    if (text->data)
        text->data[text->len] = 0;
    return true;
}

/* ---- rendering ---- */

static json_t *variables(const struct chat *c, const struct chat_render_opts *o, json_t *messages, struct err *e)
{
    json_t *v = json_copy(c->specials), *null = json_null();
    bool ok = v && json_object_set(v, "messages", messages) == 0 && json_object_set(v, "tools", o->tools ? (json_t *)o->tools : null) == 0 &&
              json_object_set(v, "documents", o->documents ? (json_t *)o->documents : null) == 0 &&
              json_object_set(v, "add_generation_prompt", json_boolean(o->add_generation_prompt)) == 0;
    if (!ok) {
        json_decref(v);
        err_set(e, ERR_NOMEM, "chat: out of memory");
        return NULL;
    }
    if (o->kwargs && (!json_is_object(o->kwargs) || json_object_get(o->kwargs, "messages"))) {
        err_set(e, ERR_INVALID, json_is_object(o->kwargs) ? "chat template kwargs may not contain 'messages'" : "chat template kwargs must be an object");
        json_decref(v);
        return NULL;
    }
    if (o->kwargs)
        json_object_update(v, (json_t *)o->kwargs);
    return v;
}

bool chat_render(const struct chat *c, const struct chat_render_opts *o, struct buf *out, struct err *e)
{
    if (o->add_generation_prompt && o->continue_final_message)
        return err_set(e, ERR_INVALID, "continue_final_message and add_generation_prompt exclude each other");
    json_t *messages = convert_messages(c, o->messages, e), *vars = messages ? variables(c, o, messages, e) : NULL;
    size_t start = out->len;
    bool ok = vars && jinja_render(c->template, vars, o->now_unix, NULL, out, e);
    if (ok && o->continue_final_message && !cut_final(messages, out, start, e)) {
        out->len = start;
        ok = false;
    }
    json_decref(messages);
    json_decref(vars);
    return ok;
}
