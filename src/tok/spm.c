/* SentencePiece models (tokenizer.model): a protobuf of pieces with scores, and how text is normalized.
 *
 * Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.  BPE pieces become a BPE whose merges follow
 * from the scores (scores.c); unigram pieces a Unigram model.  Only fields that change how text is cut are read. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "tok/tok_int.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE, MODEL_WORD, MODEL_CHAR };

/* ---- protobuf ---- */

struct proto { const unsigned char *at, *end; bool bad; };
struct field { uint32_t number; int wire; uint64_t value; struct proto bytes; };

static uint64_t varint(struct proto *p)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (p->at == p->end)
            break;
        unsigned char c = *p->at++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return v;
    }
    p->bad = true;
    return 0;
}

static bool next_field(struct proto *p, struct field *f)
{
    if (p->bad || p->at == p->end)
        return false;
    uint64_t key = varint(p);
    *f = (struct field){.number = (uint32_t)(key >> 3), .wire = (int)(key & 7)};
    size_t n = 0;
    if (f->wire == 0)
        f->value = varint(p);
    else if (f->wire == 1 || f->wire == 5)
        n = f->wire == 1 ? 8 : 4;
    else if (f->wire == 2)
        n = (size_t)varint(p);
    else
        p->bad = true;
    if (p->bad || key >> 3 == 0 || key >> 35 || n > (size_t)(p->end - p->at)) {
        p->bad = true;
        return false;
    }
    f->bytes = (struct proto){p->at, p->at + n, false};
    p->at += n;
    return true;
}

static float float_of(const struct field *f)
{
    uint32_t u = 0;
    float v;
    for (int i = 0; i < 4 && f->wire == 5; i++)
        u |= (uint32_t)f->bytes.at[i] << (8 * i);
    memcpy(&v, &u, sizeof v);
    return v;
}

/* ---- the model ---- */

struct spm {
    struct tok_slow *s;
    struct buf vocab, scores, fixed;  /* JSON */
    struct buf charsmap;
    int64_t n, unk, bos, eos;
    int model;
    bool byte_fallback, dummy_prefix, strip, escape;
};

static void put_text(struct buf *b, const struct proto *p) { json_write_str(b, (const char *)p->at, (size_t)(p->end - p->at)); }

static void put_score(struct buf *b, float score)
{
    buf_printf(b, "%.9g", isfinite(score) ? (double)score : 0.0);
}

static bool read_piece(struct spm *m, struct proto p)
{
    struct proto text = {(const unsigned char *)"", (const unsigned char *)"", false};
    struct field f;
    float score = 0;
    int64_t type = TYPE_NORMAL;
    while (next_field(&p, &f)) {
        if (f.number == 1 && f.wire == 2)
            text = f.bytes;
        else if (f.number == 2 && f.wire == 5)
            score = float_of(&f);
        else if (f.number == 3 && f.wire == 0)
            type = (int64_t)f.value;
    }
    if (p.bad)
        return false;
    bool special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
    const char *comma = m->n ? "," : "";
    if (m->model == MODEL_BPE) {
        buf_puts(&m->vocab, comma);
        put_text(&m->vocab, &text);
        buf_printf(&m->vocab, ":%lld", (long long)m->n);
        buf_puts(&m->scores, comma);
        put_score(&m->scores, score);
        if (special || type == TYPE_BYTE)
            buf_printf(&m->fixed, m->fixed.len ? ",%lld" : "%lld", (long long)m->n);
    } else {
        buf_printf(&m->vocab, "%s[", comma);
        put_text(&m->vocab, &text);
        buf_putc(&m->vocab, ',');
        put_score(&m->vocab, score);
        buf_putc(&m->vocab, ']');
    }
    if (type == TYPE_UNKNOWN && m->unk < 0)
        m->unk = m->n;
    if ((special || type == TYPE_USER) && text.at < text.end)
        tok_slow_add(m->s, m->n, (const char *)text.at, (size_t)(text.end - text.at), special);
    m->n++;
    return true;
}

/* What comes behind the pieces, and says how to read them. */
static bool read_specs(struct spm *m, struct proto p)
{
    struct field f, g;
    while (next_field(&p, &f)) {
        struct proto in = f.bytes;
        if (f.wire != 2 || (f.number != 2 && f.number != 3))
            continue;
        while (next_field(&in, &g)) {
            if (f.number == 2 && g.wire == 0) {
                m->model = g.number == 3 ? (int)(g.value < 100 ? g.value : 100) : m->model;
                m->byte_fallback = g.number == 35 ? g.value != 0 : m->byte_fallback;
                m->bos = g.number == 41 ? (int64_t)(int32_t)g.value : m->bos;
                m->eos = g.number == 42 ? (int64_t)(int32_t)g.value : m->eos;
            } else if (f.number == 3) {
                if (g.number == 2 && g.wire == 2) {
                    buf_clear(&m->charsmap);
                    buf_append(&m->charsmap, g.bytes.at, (size_t)(g.bytes.end - g.bytes.at));
                }
                m->dummy_prefix = g.number == 3 && g.wire == 0 ? g.value != 0 : m->dummy_prefix;
                m->strip = g.number == 4 && g.wire == 0 ? g.value != 0 : m->strip;
                m->escape = g.number == 5 && g.wire == 0 ? g.value != 0 : m->escape;
            }
        }
        if (in.bad)
            return false;
    }
    return !p.bad;
}

/* ---- as tokenizer.json ---- */

static void put_base64(struct buf *b, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        char quad[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        buf_append(b, quad, 4);
    }
}

static void write_normalizer(struct spm *m, struct buf *b)
{
    buf_puts(b, "{\"type\":\"Sequence\",\"normalizers\":[");
    if (m->charsmap.len) {
        buf_puts(b, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
        put_base64(b, (const unsigned char *)m->charsmap.data, m->charsmap.len);
        buf_puts(b, "\"},");
    }
    if (m->strip)
        buf_puts(b, "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"},");
    if (m->dummy_prefix)
        buf_printf(b, "{\"type\":\"Prepend\",\"prepend\":\"%s\"},", m->escape ? "▁" : " ");
    buf_printf(b, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"%s\"}]}", m->escape ? "▁" : " ");
}

static void write_model(struct spm *m)
{
    struct buf *b = &m->s->model;
    const char *bytes = m->byte_fallback ? "true" : "false";
    if (m->model == MODEL_BPE) {
        buf_printf(b, "{\"type\":\"BPE\",\"unk_token\":%s,\"fuse_unk\":true,\"byte_fallback\":%s,\"ignore_merges\":false,\"vocab\":{", m->unk < 0 ? "null" : "\"<unk>\"", bytes);
        buf_append(b, m->vocab.data ? m->vocab.data : "", m->vocab.len);
        buf_puts(b, "},\"scores\":[");
        buf_append(b, m->scores.data ? m->scores.data : "", m->scores.len);
        buf_puts(b, "],\"unmergeable\":[");
        buf_append(b, m->fixed.data ? m->fixed.data : "", m->fixed.len);
        buf_puts(b, "]}");
        b->failed |= m->scores.failed || m->fixed.failed;
    } else {
        buf_printf(b, "{\"type\":\"Unigram\",\"unk_id\":%lld,\"byte_fallback\":%s,\"vocab\":[", (long long)(m->unk < 0 ? 0 : m->unk), bytes);
        buf_append(b, m->vocab.data ? m->vocab.data : "", m->vocab.len);
        buf_puts(b, "]}");
    }
    b->failed |= m->vocab.failed;
}

/* Which of its ends a prompt gets: said by tokenizer_config.json, else by what its class is known to do. */
static bool adds(const struct spm *m, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(m->s->config, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

static void choose_ends(struct spm *m, char bos[64], char eos[64])
{
    const char *class = json_string_value(json_object_get(m->s->config, "tokenizer_class"));
    bool both = class && (strstr(class, "XLMRoberta") || strstr(class, "Camembert")), t5 = class ? strstr(class, "T5") != NULL : m->model == MODEL_UNIGRAM;
    const struct { int64_t id; bool wanted; char *text; const char *usual; } ends[] = {
        {m->bos, adds(m, "add_bos_token", both || !t5), bos, "<s>"}, {m->eos, adds(m, "add_eos_token", both || t5), eos, "</s>"}};
    for (int i = 0; i < 2; i++) {
        if (!ends[i].wanted || ends[i].id < 0 || ends[i].id >= m->n)
            continue;
        const json_t *v = json_object_get(m->s->config, i ? "eos_token" : "bos_token");
        const char *name = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
        snprintf(ends[i].text, 64, "%s", name ? name : ends[i].usual);
        if (i)
            m->s->eos = ends[i].text, m->s->eos_id = ends[i].id;
        else
            m->s->bos = ends[i].text, m->s->bos_id = ends[i].id;
    }
}

bool tok_spm_read(struct tok_slow *s, const unsigned char *data, size_t len, struct buf *out, struct err *e)
{
    struct spm m = {.s = s, .unk = -1, .bos = 1, .eos = 2, .model = MODEL_UNIGRAM, .dummy_prefix = true, .strip = true, .escape = true};
    struct proto p = {data, data + len, false}, all = p;
    struct buf normalizer = {0};
    struct field f;
    char bos[64] = "", eos[64] = "";
    bool ok = read_specs(&m, all);
    bool known = m.model == MODEL_UNIGRAM || m.model == MODEL_BPE;
    while (ok && known && next_field(&p, &f))
        if (f.number == 1 && f.wire == 2)
            ok = m.n < TOK_MAX_IDS && read_piece(&m, f.bytes);
    if (ok && !known)
        ok = err_set(e, ERR_UNSUPPORTED, "is a SentencePiece model of words or characters; supported are unigram and BPE");
    else
        ok = (ok && !p.bad && m.n > 0) || err_set(e, ERR_FORMAT, "is not a SentencePiece model");
    if (ok) {
        static const char strip[] = ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}";
        char decoder[400];
        choose_ends(&m, bos, eos);
        write_model(&m);
        write_normalizer(&m, &normalizer);
        snprintf(decoder, sizeof decoder, "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"▁\"},\"content\":\" \"},"
                 "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]}", m.dummy_prefix ? strip : "");
        tok_slow_finish(s, normalizer.data ? normalizer.data : "null", "null", decoder, out);
        out->failed |= normalizer.failed || m.charsmap.failed;
    }
    buf_free(&normalizer);
    buf_free(&m.vocab);
    buf_free(&m.scores);
    buf_free(&m.fixed);
    buf_free(&m.charsmap);
    return ok;
}
