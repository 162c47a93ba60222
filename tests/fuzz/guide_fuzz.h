/* What the fuzzers of guides share: compile, draw a few outputs, and stop at anything that must not happen. */
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "guide/guide.h"

enum { GF_EXTRA = 24, GF_EOS = 256 + GF_EXTRA, GF_VOCAB = GF_EOS + 1, GF_TOKENS = 60 };

static const char *const gf_extra[GF_EXTRA] = {"\"", "\":", "{\"", "\"}", "true", "null", "12", "\", \"", "[]", "ab", "abc", "\xc3\xa9", "\xe2\x82", "\xac" "a", "]}", " a",
                                               "\\n", "e+", "00", "-", "://", "@a.", "\n  ", "x\""};

static struct guide_vocab *gf_vocab(void)
{
    static struct guide_vocab *v; /* the fuzzer's only one */
    static char bytes[256];
    const char *tokens[GF_VOCAB] = {0};
    size_t lens[GF_VOCAB] = {0};
    if (v)
        return v;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = &bytes[i];
        lens[i] = 1;
    }
    for (int i = 0; i < GF_EXTRA; i++) {
        tokens[256 + i] = gf_extra[i];
        lens[256 + i] = strlen(gf_extra[i]);
    }
    if (!guide_vocab_open_bytes(&v, tokens, lens, GF_VOCAB, &(int32_t){GF_EOS}, 1, NULL))
        abort();
    return v;
}

/* One output; its length, or -1 when it did not end. */
static int gf_draw(struct guide *g, struct rng *r, char out[1024])
{
    struct guide_state *s;
    struct err e;
    int n = 0, end = -1;
    if (!guide_state_open(&s, g, &e))
        abort();
    for (int i = 0; i < GF_TOKENS; i++) {
        const uint32_t *mask = guide_state_mask(s, &e);
        int32_t allowed[GF_VOCAB], k = 0;
        if (!mask && e.code != ERR_TOO_LARGE)
            abort(); /* all bytes are tokens: something can always come */
        for (int32_t t = 0; mask && t < GF_VOCAB; t++)
            if (mask[t / 32] >> (t % 32) & 1)
                allowed[k++] = t;
        if (!mask)
            break;
        bool accepts = mask[GF_EOS / 32] >> (GF_EOS % 32) & 1;
        if (k == 0 || accepts != guide_state_accepts(s))
            abort();
        int32_t t = accepts && rng_next_below(r, 3) == 0 ? GF_EOS : allowed[rng_next_below(r, (uint64_t)k)];
        if (!guide_state_advance(s, t, &e)) {
            if (e.code != ERR_TOO_LARGE)
                abort();
            break;
        }
        if (t == GF_EOS) {
            end = n;
            break;
        }
        const char *text = t < 256 ? (char[]){(char)t} : gf_extra[t - 256];
        size_t len = t < 256 ? 1 : strlen(text);
        memcpy(out + n, text, len);
        n += (int)len;
    }
    guide_state_close(&s);
    return end;
}

static void gf_run(enum guide_kind kind, const unsigned char *data, size_t size, bool is_json)
{
    struct guide_limits l;
    struct guide *g;
    struct err e;
    struct rng r = {hash_bytes(data, size, 0)};
    char out[1024];
    guide_limits_default(&l);
    l.max_states = 20000;
    l.max_dfa_states = 2000;
    l.max_bytes = 1 << 20;
    l.max_work = 2000000;
    struct guide_spec spec = {.kind = kind, .text = (const char *)data, .len = size};
    if (!guide_compile(&g, gf_vocab(), &spec, &l, &e))
        return;
    for (int i = 0; i < 3; i++) {
        int n = gf_draw(g, &r, out);
        if (n < 0)
            continue;
        if (!guide_matches(g, out, (size_t)n))
            abort();
        json_t *j = is_json ? json_parse(out, (size_t)n, &e) : NULL;
        if (is_json && !j)
            abort();
        json_decref(j);
    }
    guide_unref(&g);
}
