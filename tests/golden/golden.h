/* Running a model folder against recorded logits: one sequence, cut into steps in any way. */
#ifndef QUIRE_TESTS_GOLDEN_H
#define QUIRE_TESTS_GOLDEN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fwd/fwd.h"

enum { GOLDEN_MAX_IDS = 512, GOLDEN_PAGES = GOLDEN_MAX_IDS / DEV_BLOCK_TOKENS + 1 };

/* float32, C order, two dimensions. */
struct npy { float *data; int64_t rows, cols; };

static inline void npy_read(struct npy *out, const char *path)
{
    size_t len;
    struct err e;
    char *bytes = file_read(path, (size_t)1 << 30, &len, &e);
    if (!bytes)
        fail_msg("%s", e.msg);
    const unsigned char *b = (const unsigned char *)bytes;
    size_t head = 10 + (size_t)b[8] + 256 * (size_t)b[9];
    const char *shape = strstr(bytes + 10, "'shape': (");
    long long r = 0, c = 0;
    assert_true(len > head && memcmp(b, "\x93NUMPY\x01", 7) == 0 && strstr(bytes + 10, "<f4") && shape);
    assert_int_equal(sscanf(shape, "'shape': (%lld, %lld", &r, &c), 2);
    assert_true(len - head == (size_t)(r * c) * 4);
    out->data = mem_try_alloc((size_t)(r * c), 4);
    memcpy(out->data, b + head, len - head);
    out->rows = r;
    out->cols = c;
    mem_free(bytes);
}

static inline int golden_ids(const json_t *list, int32_t *ids)
{
    assert_true(json_is_array(list) && json_array_size(list) <= GOLDEN_MAX_IDS);
    for (size_t i = 0; i < json_array_size(list); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int)json_array_size(list);
}

struct runner {
    struct dev *d;
    struct model *m;
    struct fwd *f;
    int32_t vocab;
    int32_t table[GOLDEN_PAGES];
    int32_t rope_len;
};

/* o: what matters of the options; sizes are set here. */
static inline void runner_open_on(struct runner *r, const char *dir, struct fwd_opts o, const struct dev_opts *d)
{
    struct err e = { 0 };
    o.max_tokens = o.max_logits = o.max_model_len = GOLDEN_MAX_IDS;
    o.max_seqs = 1;
    o.n_blocks = 20;
    memset(r, 0, sizeof *r);
    if (!model_open(&r->m, dir, NULL, &e))
        fail_msg("%s", e.msg);
    const struct arch *a = model_arch(r->m);
    if (a->pos == ARCH_POS_LEARNED && o.max_model_len > a->n_positions - a->position_offset)
        o.max_model_len = a->n_positions - a->position_offset;
    if (!dev_open(&r->d, d, &e) || !fwd_open(&r->f, r->d, r->m, &o, &e))
        fail_msg("%s: %s", dir, e.msg);
    r->vocab = fwd_vocab_size(r->f);
    /* Pages in an order of their own, so that a table that is not followed shows. */
    for (int i = 0; i < GOLDEN_PAGES; i++)
        r->table[i] = 1 + (i * 7 + 3) % 17;
}

static inline void runner_open_with(struct runner *r, const char *dir, struct fwd_opts o, const char *isa, int n_threads)
{
    runner_open_on(r, dir, o, &(struct dev_opts){ .name = "cpu", .n_threads = n_threads, .isa = isa });
}

static inline void runner_open(struct runner *r, const char *dir, enum fwd_dtype dtype, const char *isa, int n_threads)
{
    runner_open_with(r, dir, (struct fwd_opts){ .dtype = dtype }, isa, n_threads);
}

static inline void runner_close(struct runner *r)
{
    fwd_close(&r->f);
    model_close(&r->m);
    dev_close(&r->d);
}

/* Positions [from, from + n) of ids in one step; logits of all rows, or of the last alone. */
static inline void runner_step(struct runner *r, const int32_t *ids, int32_t from, int32_t n, bool all, float *out)
{
    int32_t positions[GOLDEN_MAX_IDS], rows[GOLDEN_MAX_IDS], start[2] = { 0, n }, last = n - 1;
    for (int32_t i = 0; i < n; i++) {
        positions[i] = from + i;
        rows[i] = i;
    }
    struct fwd_batch b = {
        .b = { .n_tokens = n, .n_seqs = 1, .token_ids = ids + from, .positions = positions, .seq_start = start, .block_tables = r->table,
               .table_stride = GOLDEN_PAGES },
        .rope_len = &r->rope_len, .logit_rows = all ? rows : &last, .n_logits = all ? n : 1,
    };
    float *logits;
    struct err e;
    if (!fwd_run(r->f, &b, &logits, &e))
        fail_msg("%s", e.msg);
    memcpy(out, logits, (size_t)(all ? n : 1) * (size_t)r->vocab * sizeof(float));
}

/* All logits [n][vocab] of ids in chunks: 0 whole, 1 token by token, otherwise of random lengths seeded by it. */
static inline float *runner_logits(struct runner *r, const int32_t *ids, int32_t n, uint64_t chunks)
{
    float *out = mem_try_alloc((size_t)n * (size_t)r->vocab, sizeof *out);
    struct rng g = { .state = chunks };
    r->rope_len = n;
    for (int32_t from = 0; from < n;) {
        int32_t len = chunks == 0 ? n : chunks == 1 ? 1 : 1 + (int32_t)rng_next_below(&g, 9);
        if (len > n - from)
            len = n - from;
        runner_step(r, ids, from, len, true, out + (size_t)from * (size_t)r->vocab);
        from += len;
    }
    return out;
}

static inline int32_t golden_argmax(const float *x, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Largest difference over the rows that the reference has. */
static inline double golden_diff(const float *got, const struct npy *want, int64_t rows)
{
    double worst = 0;
    for (int64_t i = 0; i < (rows < want->rows ? rows : want->rows) * want->cols; i++) {
        double d = fabs((double)got[i] - want->data[i]);
        if (!(d <= worst))
            worst = d;
    }
    return worst;
}

/* The rows are the same bit for bit however the sequence is cut, on any number of threads, and when only the last
 * row of a step is asked for. */
static inline void golden_check_cuts(struct runner *r, const char *dir, enum fwd_dtype dtype, const char *isa, const int32_t *ids, int32_t n, const float *whole)
{
    size_t bytes = (size_t)n * (size_t)r->vocab * sizeof(float);
    for (uint64_t chunks = 1; chunks < 5; chunks++) {
        float *cut = runner_logits(r, ids, n, chunks);
        if (memcmp(cut, whole, bytes) != 0)
            fail_msg("%s: chunks %d differ from the whole", dir, (int)chunks);
        mem_free(cut);
    }
    float *row = mem_try_alloc((size_t)r->vocab, sizeof *row);
    for (int32_t len = n; len > 0; len -= 1 + len / 3) {
        runner_step(r, ids, 0, len, false, row);
        if (memcmp(row, whole + (size_t)(len - 1) * (size_t)r->vocab, (size_t)r->vocab * sizeof(float)) != 0)
            fail_msg("%s: the last row alone of %d differs", dir, len);
    }
    mem_free(row);
    struct runner one;
    runner_open(&one, dir, dtype, isa, 1);
    float *again = runner_logits(&one, ids, n, 7);
    if (memcmp(again, whole, bytes) != 0)
        fail_msg("%s: one thread differs from several", dir);
    mem_free(again);
    runner_close(&one);
}

/* golden.json (input_ids, greedy_ids) and golden_logits.npy in dir; returns the largest difference. */
static inline double golden_check(const char *dir, enum fwd_dtype dtype, const char *isa, double tolerance)
{
    char path[1024];
    struct err e;
    struct npy want;
    int32_t ids[2 * GOLDEN_MAX_IDS];
    struct runner r;
    snprintf(path, sizeof path, "%s/golden.json", dir);
    json_t *j = json_parse_file(path, 1 << 20, &e);
    if (!j)
        fail_msg("%s: %s", path, e.msg);
    int n_in = golden_ids(json_object_get(j, "input_ids"), ids), n = n_in + golden_ids(json_object_get(j, "greedy_ids"), ids + n_in);
    json_decref(j);
    snprintf(path, sizeof path, "%s/golden_logits.npy", dir);
    npy_read(&want, path);
    runner_open(&r, dir, dtype, isa, 3);
    assert_int_equal(want.cols, r.vocab);
    assert_int_equal(want.rows, n);
    float *got = runner_logits(&r, ids, n, 0);
    double worst = golden_diff(got, &want, n);
    if (!(worst <= tolerance))
        fail_msg("%s: logits differ by %g, allowed %g", dir, worst, tolerance);
    if (dtype == FWD_DTYPE_F32) {
        for (int i = n_in - 1; i < n - 1; i++) {
            int32_t id = golden_argmax(got + (size_t)i * (size_t)r.vocab, r.vocab);
            if (id != ids[i + 1])
                fail_msg("%s: greedy token %d is %d, expected %d", dir, i + 1, id, ids[i + 1]);
        }
    }
    golden_check_cuts(&r, dir, dtype, isa, ids, n, got);
    mem_free(got);
    mem_free(want.data);
    runner_close(&r);
    return worst;
}

#endif
