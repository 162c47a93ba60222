/* jinja_scan.c - does a template loop over the parts of a message's content?
 *
 * The question and the way to answer it are vLLM's (--chat-template-content-format auto): follow the names that
 * stand for `messages`, for one message, and for its content, through assignments and loops, and look for a loop over the
 * last.  Here names are also followed into the parameters of macros, where newer templates keep such loops. */
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "tok/jinja_int.h"

enum role { ALL_MESSAGES, ONE_MESSAGE, CONTENT, N_ROLES };
enum { MAX_NAMES = 64, MAX_PASSES = 8 };

struct names { struct { const char *s; size_t len; } items[MAX_NAMES]; int n; };

struct scan {
    struct names names[N_ROLES];
    const struct jnode **nodes;   /* the sets, loops, macros and calls of the template */
    size_t n, cap;
    bool changed, failed;
};

static bool has(const struct names *v, const char *s, size_t len)
{
    for (int i = 0; i < v->n; i++)
        if (v->items[i].len == len && memcmp(v->items[i].s, s, len) == 0)
            return true;
    return false;
}

static void add(struct scan *s, enum role role, const char *name, size_t len)
{
    struct names *v = &s->names[role];
    if (has(v, name, len) || v->n == MAX_NAMES)
        return;
    v->items[v->n].s = name;
    v->items[v->n++].len = len;
    s->changed = true;
}

static void collect(struct scan *s, const struct jnode *n)
{
    if (!n)
        return;
    if (n->kind == JN_SET || n->kind == JN_FOR || n->kind == JN_MACRO || n->kind == JN_CALL) {
        if (!vec_reserve((void **)&s->nodes, &s->cap, s->n + 1, sizeof *s->nodes)) {
            s->failed = true;
            return;
        }
        s->nodes[s->n++] = n;
    }
    const struct jnode *kids[3] = {n->a, n->b, n->c};
    const struct jnodes *lists[4] = {&n->list, &n->kw, &n->body, &n->orelse};
    for (int k = 0; k < 3; k++)
        collect(s, kids[k]);
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < lists[k]->n; i++)
            collect(s, lists[k]->items[i]);
}

/* What an expression stands for; N_ROLES: nothing of interest.  Filters, tests and slices change nothing. */
static enum role role_of(const struct scan *s, const struct jnode *n)
{
    while (n && (n->kind == JN_FILTER || n->kind == JN_TEST || (n->kind == JN_ITEM && n->b->kind == JN_SLICE)))
        n = n->a;
    if (!n)
        return N_ROLES;
    if (n->kind == JN_NAME) {
        for (int r = ALL_MESSAGES; r < N_ROLES; r++)
            if (has(&s->names[r], n->name, n->name_len))
                return (enum role)r;
        return N_ROLES;
    }
    if (n->kind == JN_ATTR && jinja_str_is(n->value, "content"))
        return role_of(s, n->a) == ONE_MESSAGE ? CONTENT : N_ROLES;
    if (n->kind == JN_ITEM && n->b->kind == JN_CONST && jinja_str_is(n->b->value, "content"))
        return role_of(s, n->a) == ONE_MESSAGE ? CONTENT : N_ROLES;
    if (n->kind == JN_CALL && n->a->kind == JN_ATTR && jinja_str_is(n->a->value, "get") && n->list.n > 0 &&
        n->list.items[0]->kind == JN_CONST && jinja_str_is(n->list.items[0]->value, "content"))
        return role_of(s, n->a->a) == ONE_MESSAGE ? CONTENT : N_ROLES;
    if (n->kind == JN_ITEM)
        return role_of(s, n->a) == ALL_MESSAGES ? ONE_MESSAGE : N_ROLES;
    return N_ROLES;
}

static void follow_call(struct scan *s, const struct jnode *call)
{
    if (call->a->kind != JN_NAME)
        return;
    for (size_t i = 0; i < s->n; i++) {
        const struct jnode *m = s->nodes[i];
        if (m->kind != JN_MACRO || m->name_len != call->a->name_len || memcmp(m->name, call->a->name, m->name_len) != 0)
            continue;
        for (size_t k = 0; k < call->list.n && k < m->list.n; k++) {
            enum role r = role_of(s, call->list.items[k]);
            if (r != N_ROLES)
                add(s, r, m->list.items[k]->name, m->list.items[k]->name_len);
        }
    }
}

/* One pass over the nodes; true when a loop over content was found. */
static bool pass(struct scan *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct jnode *n = s->nodes[i];
        enum role r = n->kind == JN_SET || n->kind == JN_FOR ? role_of(s, n->b) : N_ROLES;
        if (n->kind == JN_FOR && r == CONTENT)
            return true;
        if (n->kind == JN_CALL)
            follow_call(s, n);
        else if (r != N_ROLES && n->a->kind == JN_NAME)
            add(s, n->kind == JN_FOR ? ONE_MESSAGE : r, n->a->name, n->a->name_len);
    }
    return false;
}

bool jinja_loops_content(const struct jinja *j)
{
    struct scan s = {.changed = true};
    bool found = false;
    add(&s, ALL_MESSAGES, "messages", 8);
    for (size_t i = 0; i < j->body.n; i++)
        collect(&s, j->body.items[i]);
    for (int k = 0; k < MAX_PASSES && s.changed && !found && !s.failed; k++) {
        s.changed = false;
        found = pass(&s);
    }
    mem_free(s.nodes);
    return found;
}
