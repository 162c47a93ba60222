/* uniqueItems of strings: no automaton of a reasonable size remembers which strings an array has had, so the state does.
 *
 * The output of such a guide is JSON from its start, and strings have one spelling in it, so equal texts are equal values.  A scanner follows
 * brackets and strings; when a mask is made, tokens with a quotation mark are tried on it, and those that would complete a string which its
 * array has already are taken out, and those after which nothing but such an end could come.  It holds for the strings of every array of the guide.
 * An array whose strings are few and all used up can still come to an end that is none: then there is no mask, and the request fails. */
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "guide/guide_int.h"

struct item { size_t at, len, depth; };

struct unique {
    char *open; size_t n_open, cap_open;        /* '[' and '{' around */
    struct item *items; size_t n_items, cap_items;   /* strings of the arrays around, outer arrays first */
    struct buf text;
    size_t start;                               /* of the string being read */
    bool in_string, escaped, is_item;
};

struct unique *unique_open(void)
{
    struct unique *u = mem_try_zalloc(1, sizeof *u);
    if (u)
        buf_init(&u->text, 0);
    return u;
}

void unique_close(struct unique *u)
{
    if (!u)
        return;
    mem_free(u->open);
    mem_free(u->items);
    buf_free(&u->text);
    mem_free(u);
}

struct unique *unique_fork(const struct unique *from)
{
    struct unique *u = unique_open();
    if (!u)
        return NULL;
    if (!vec_reserve((void **)&u->open, &u->cap_open, from->n_open, 1) ||
        !vec_reserve((void **)&u->items, &u->cap_items, from->n_items, sizeof *u->items) ||
        (from->text.len && !buf_append(&u->text, from->text.data, from->text.len))) {
        unique_close(u);
        return NULL;
    }
    if (from->n_open)
        memcpy(u->open, from->open, from->n_open);
    if (from->n_items)
        memcpy(u->items, from->items, from->n_items * sizeof *u->items);
    u->n_open = from->n_open;
    u->n_items = from->n_items;
    u->start = from->start;
    u->in_string = from->in_string;
    u->escaped = from->escaped;
    u->is_item = from->is_item;
    return u;
}

/* Whether the array has the string being read, as it is now. */
static bool known(const struct unique *u)
{
    size_t n = u->text.len - u->start;
    const char *s = n ? u->text.data + u->start : "";
    for (size_t i = u->n_items; i-- > 0 && u->items[i].depth == u->n_open;)
        if (u->items[i].len == n && (n == 0 || memcmp(u->text.data + u->items[i].at, s, n) == 0))
            return true;
    return false;
}

enum step { STEP_OK, STEP_REPEATS, STEP_EQUALS, STEP_NOMEM };

static enum step in_string(struct unique *u, char c)
{
    if (u->escaped || c != '"') {
        u->escaped = !u->escaped && c == '\\';
        return !u->is_item || buf_putc(&u->text, c) ? STEP_OK : STEP_NOMEM;
    }
    u->in_string = false;
    if (!u->is_item)
        return STEP_OK;
    size_t len = u->text.len - u->start;
    if (known(u))
        return STEP_REPEATS;
    if (!vec_reserve((void **)&u->items, &u->cap_items, u->n_items + 1, sizeof *u->items))
        return STEP_NOMEM;
    u->items[u->n_items++] = (struct item){u->start, len, u->n_open};
    return STEP_OK;
}

static enum step outside(struct unique *u, char c)
{
    if (c == '"') {
        u->in_string = true;
        u->is_item = u->n_open && u->open[u->n_open - 1] == '[';
        u->start = u->text.len;
    } else if (c == '[' || c == '{') {
        if (!vec_reserve((void **)&u->open, &u->cap_open, u->n_open + 1, 1))
            return STEP_NOMEM;
        u->open[u->n_open++] = c;
    } else if ((c == ']' || c == '}') && u->n_open) {
        while (u->n_items && u->items[u->n_items - 1].depth == u->n_open)
            u->text.len = u->items[--u->n_items].at;
        u->n_open--;
    }
    return STEP_OK;
}

bool unique_feed(struct unique *u, const char *s, size_t n)
{
    enum step r = STEP_OK;
    for (size_t i = 0; i < n && r != STEP_NOMEM; i++)
        r = u->in_string ? in_string(u, s[i]) : outside(u, s[i]);
    return r != STEP_NOMEM;
}

/* Whether the token would repeat a string.  Leaves u as it was: past a closing bracket, where things would be forgotten, it only looks whether two
 * more strings could be complete in the rest, which no ordinary token has. */
static enum step would_repeat(struct unique *u, const char *s, size_t n)
{
    struct unique was = *u;
    enum step r = STEP_OK;
    for (size_t i = 0; i < n && r == STEP_OK; i++) {
        if (!u->in_string && (s[i] == ']' || s[i] == '}')) {
            int quotes = 0;
            for (; i < n; i++)
                quotes += s[i] == '"';
            r = quotes >= 4 ? STEP_REPEATS : STEP_OK;
        } else {
            r = u->in_string ? in_string(u, s[i]) : outside(u, s[i]);
        }
    }
    if (r == STEP_OK && u->in_string && u->is_item && known(u))
        r = STEP_EQUALS;
    u->n_open = was.n_open;
    u->n_items = was.n_items;
    u->text.len = was.text.len;
    u->text.failed = false;
    u->start = was.start;
    u->in_string = was.in_string;
    u->escaped = was.escaped;
    u->is_item = was.is_item;
    return r;
}

/* After the token, the string is one that the array has: whether anything but its end can come. */
static bool goes_on(struct guide *g, int32_t cfg, int32_t t)
{
    const struct guide_vocab *v = g->vocab;
    for (int32_t i = v->text_at[t]; cfg >= 0 && i < v->text_at[t + 1]; i++)
        cfg = machine_step(&g->m, cfg, (uint8_t)v->text[i]);
    for (int c = 0; cfg >= 0 && c < 256; c++)
        if (c != '"' && machine_step(&g->m, cfg, (uint8_t)c) >= 0)
            return true;
    return false;
}

static void clear(uint32_t *mask, int32_t t) { mask[t / 32] &= ~((uint32_t)1 << (t % 32)); }

/* The trie's node of s, or -1. */
static int32_t find_node(const struct trie *t, const char *s, size_t n)
{
    int32_t node = 0;
    for (size_t k = 0; k < n; k++) {
        int32_t i = node + 1, end = t->skip[node];
        while (i < end && t->byte[i] != (uint8_t)s[k])
            i = t->skip[i];
        if (i >= end)
            return -1;
        node = i;
    }
    return node;
}

/* Inside a string: tokens that make it equal to one that the array has. */
static void filter_completions(const struct unique *u, struct guide *g, int32_t cfg, uint32_t *mask)
{
    const struct trie *t = &g->vocab->trie;
    size_t len = u->text.len - u->start;
    for (size_t i = u->n_items; u->in_string && u->is_item && i-- > 0 && u->items[i].depth == u->n_open;) {
        const struct item *it = &u->items[i];
        if (it->len <= len || (len && memcmp(u->text.data + it->at, u->text.data + u->start, len) != 0))
            continue;
        int32_t node = find_node(t, u->text.data + it->at + len, it->len - len);
        for (int32_t k = node < 0 ? 0 : t->first[node]; node >= 0 && k < t->first[node + 1]; k++)
            if (mask[t->tokens[k] / 32] >> (t->tokens[k] % 32) & 1 && !goes_on(g, cfg, t->tokens[k]))
                clear(mask, t->tokens[k]);
    }
}

bool unique_filter(struct unique *u, struct guide *g, int32_t cfg, uint32_t *mask)
{
    const struct guide_vocab *v = g->vocab;
    for (int32_t i = 0; i < v->n_quoted; i++) {
        int32_t t = v->quoted[i];
        if (!(mask[t / 32] >> (t % 32) & 1))
            continue;
        enum step r = would_repeat(u, v->text + v->text_at[t], (size_t)(v->text_at[t + 1] - v->text_at[t]));
        if (r == STEP_NOMEM)
            return false;
        if (r == STEP_REPEATS || (r == STEP_EQUALS && !goes_on(g, cfg, t)))
            clear(mask, t);
    }
    filter_completions(u, g, cfg, mask);
    return !g->m.failed;
}
