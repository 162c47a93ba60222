/* Aho-Corasick (1975) over bytes.  A state is the longest suffix of the text so far that begins a stop
 * string, so its depth is exactly what must be held back. */
#include "tok/stop.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/vec.h"

enum { MAX_STATES = 1 << 20 };

struct state {
    uint32_t child, sibling;     /* first child and next child of the parent; 0: none */
    uint32_t fail, depth;
    int32_t hit;                 /* longest string that ends here, -1: none */
    uint32_t hit_len;
    unsigned char byte;          /* that leads here */
};

struct stop {
    struct { struct state *items; size_t n, cap; } states;
    uint32_t at;
    int matched;                 /* -1: not yet */
    struct buf held;             /* the last depth bytes of the text, and a cut-off character before them */
};

static uint32_t child_of(const struct stop *s, uint32_t at, unsigned char c)
{
    uint32_t k = s->states.items[at].child;
    while (k && s->states.items[k].byte != c)
        k = s->states.items[k].sibling;
    return k;
}

static uint32_t step(const struct stop *s, uint32_t at, unsigned char c)
{
    uint32_t k;
    while (!(k = child_of(s, at, c)) && at)
        at = s->states.items[at].fail;
    return k;
}

static bool add_state(struct stop *s, struct state x)
{
    if (s->states.n >= MAX_STATES || !vec_reserve((void **)&s->states.items, &s->states.cap, s->states.n + 1, sizeof x))
        return false;
    s->states.items[s->states.n++] = x;
    return true;
}

static bool add_string(struct stop *s, const char *str, size_t len, int32_t index)
{
    uint32_t at = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)str[i];
        uint32_t k = child_of(s, at, c);
        if (!k) {
            struct state x = {.sibling = s->states.items[at].child, .depth = (uint32_t)i + 1, .hit = -1, .byte = c};
            if (!add_state(s, x))
                return false;
            k = (uint32_t)s->states.n - 1;
            s->states.items[at].child = k;
        }
        at = k;
    }
    if (s->states.items[at].hit < 0) {
        s->states.items[at].hit = index;
        s->states.items[at].hit_len = (uint32_t)len;
    }
    return true;
}

/* Failure links, breadth first; queue has room for all states. */
static void link_states(struct stop *s, uint32_t *queue)
{
    struct state *st = s->states.items;
    size_t head = 0, tail = 0;
    queue[tail++] = 0;
    while (head < tail) {
        uint32_t at = queue[head++];
        for (uint32_t k = st[at].child; k; k = st[k].sibling) {
            st[k].fail = at ? step(s, st[at].fail, st[k].byte) : 0;
            if (st[k].hit < 0) {
                st[k].hit = st[st[k].fail].hit;
                st[k].hit_len = st[st[k].fail].hit_len;
            }
            queue[tail++] = k;
        }
    }
}

bool stop_open(struct stop **out, const char *const *strings, const size_t *lens, size_t n, struct err *e)
{
    struct stop *s = mem_try_zalloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "stop strings: out of memory");
    s->matched = -1;
    bool ok = add_state(s, (struct state){.hit = -1});
    for (size_t i = 0; ok && i < n; i++) {
        if (lens[i] == 0) {
            stop_close(&s);
            return err_set(e, ERR_INVALID, "stop[%zu] is empty; a stop string needs at least one character", i);
        }
        ok = add_string(s, strings[i], lens[i], (int32_t)i);
    }
    uint32_t *queue = ok ? mem_try_alloc(s->states.n, sizeof *queue) : NULL;
    if (!queue) {
        ok = s->states.n < MAX_STATES;
        stop_close(&s);
        return ok ? err_set(e, ERR_NOMEM, "stop strings: out of memory")
                  : err_set(e, ERR_TOO_LARGE, "stop strings have more than %d bytes together", MAX_STATES);
    }
    link_states(s, queue);
    mem_free(queue);
    *out = s;
    return true;
}

void stop_close(struct stop **s)
{
    if (!*s)
        return;
    mem_free((*s)->states.items);
    buf_free(&(*s)->held);
    mem_free(*s);
    *s = NULL;
}

int stop_feed(struct stop *s, const char *text, size_t len, bool include_match, struct buf *out)
{
    if (s->matched >= 0)
        return s->matched;
    for (size_t i = 0; i < len; i++) {
        s->at = step(s, s->at, (unsigned char)text[i]);
        const struct state *x = &s->states.items[s->at];
        if (x->hit < 0)
            continue;
        buf_append(&s->held, text, i + 1);
        s->matched = x->hit;
        buf_append(out, s->held.data, s->held.len - (include_match ? 0 : x->hit_len));
        buf_clear(&s->held);
        return s->matched;
    }
    /* All but the bytes of the state, cut back to a whole character. */
    size_t keep = s->states.items[s->at].depth;
    buf_append(&s->held, text, len);
    size_t give = s->held.len - keep;
    while (give > 0 && keep > 0 && ((unsigned char)s->held.data[give] & 0xc0) == 0x80)
        give--;
    buf_append(out, s->held.data ? s->held.data : "", give);
    buf_consume(&s->held, give);
    return -1;
}

void stop_finish(struct stop *s, struct buf *out)
{
    buf_append(out, s->held.data ? s->held.data : "", s->held.len);
    buf_clear(&s->held);
}

size_t stop_held(const struct stop *s)
{
    return s->held.len;
}
