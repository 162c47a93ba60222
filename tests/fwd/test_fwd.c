/* The forward pass on ragged batches: every row is what it is alone, whatever runs beside it and however it is cut; pages
 * copied and shared hold what they should; the plan is what is used. */
#include "golden/golden.h"

#define TINY QUIRE_SOURCE_DIR "/tests/data/tiny"
enum { N_SEQS = 6, LEN = 70, STRIDE = 3, MAX_TOKENS = 96, N_BLOCKS = 1 + 2 * N_SEQS * STRIDE };

static const char *const MODELS[] = { "llama-dynamic", "mistral", "gemma3", "phi3-longrope-short", "bloom", "olmo2", "stablelm-12b", "qwen2_moe", "deepseek_v2-moe" };

struct bench {
    struct dev *d;
    struct model *m;
    struct fwd *f;
    int32_t vocab, len[N_SEQS], done[N_SEQS];
    int32_t ids[N_SEQS][LEN], tables[N_SEQS][STRIDE];
    float *want[N_SEQS];       /* [len][vocab], each sequence alone */
};

static void bench_open(struct bench *b, const char *name, enum fwd_dtype dtype)
{
    char dir[512];
    struct err e = { 0 };
    struct dev_opts d = { .n_threads = 3 };
    struct fwd_opts o = { .dtype = dtype, .max_tokens = MAX_TOKENS, .max_seqs = N_SEQS, .max_logits = MAX_TOKENS, .n_blocks = N_BLOCKS, .max_model_len = 512 };
    memset(b, 0, sizeof *b);
    snprintf(dir, sizeof dir, TINY "/%s", name);
    if (!model_open(&b->m, dir, NULL, &e) || !dev_open(&b->d, &d, &e) || !fwd_open(&b->f, b->d, b->m, &o, &e))
        fail_msg("%s", e.msg);
    b->vocab = fwd_vocab_size(b->f);
}

static void bench_close(struct bench *b)
{
    for (int s = 0; s < N_SEQS; s++)
        mem_free(b->want[s]);
    fwd_close(&b->f);
    model_close(&b->m);
    dev_close(&b->d);
}

/* One step: n[s] more tokens of each sequence; rows are wanted with one chance in two, the last of a sequence always. */
static int step(struct bench *b, const int32_t *seqs, int n_seqs, const int32_t *n, struct rng *g, const char *name)
{
    int32_t ids[MAX_TOKENS], positions[MAX_TOKENS], start[N_SEQS + 1] = { 0 }, tables[N_SEQS][STRIDE], rope_len[N_SEQS];
    int32_t rows[MAX_TOKENS], row_seq[MAX_TOKENS], total = 0, n_rows = 0;
    for (int i = 0; i < n_seqs; i++) {
        int32_t s = seqs[i];
        for (int32_t t = 0; t < n[i]; t++, total++) {
            ids[total] = b->ids[s][b->done[s] + t];
            positions[total] = b->done[s] + t;
            if (b->done[s] + t == b->len[s] - 1 || rng_next_below(g, 2)) {
                rows[n_rows] = total;
                row_seq[n_rows++] = s;
            }
        }
        start[i + 1] = total;
        memcpy(tables[i], b->tables[s], sizeof tables[i]);
        rope_len[i] = b->len[s];
    }
    if (total == 0)
        return 0;
    struct fwd_batch batch = {
        .b = { .n_tokens = total, .n_seqs = n_seqs, .token_ids = ids, .positions = positions, .seq_start = start, .block_tables = &tables[0][0], .table_stride = STRIDE },
        .rope_len = rope_len, .logit_rows = rows, .n_logits = n_rows,
    };
    float *logits;
    struct err e;
    if (!fwd_run(b->f, &batch, &logits, &e))
        fail_msg("%s", e.msg);
    for (int i = 0; i < n_rows; i++) {
        const float *want = b->want[row_seq[i]] + (size_t)positions[rows[i]] * (size_t)b->vocab;
        if (b->want[row_seq[i]] && memcmp(logits + (size_t)i * (size_t)b->vocab, want, (size_t)b->vocab * 4) != 0)
            fail_msg("%s: sequence %d position %d differs from the same alone", name, row_seq[i], positions[rows[i]]);
    }
    for (int i = 0; i < n_seqs; i++)
        b->done[seqs[i]] += n[i];
    return total;
}

/* Each sequence whole and alone, one after the other, in the same pages. */
static void alone(struct bench *b, struct rng *g)
{
    for (int s = 0; s < N_SEQS; s++) {
        b->len[s] = 20 + (int32_t)rng_next_below(g, LEN - 19);
        for (int t = 0; t < LEN; t++)
            b->ids[s][t] = (int32_t)rng_next_below(g, (uint64_t)b->vocab);
        for (int i = 0; i < STRIDE; i++)
            b->tables[s][i] = 1 + i * N_SEQS + (s + i) % N_SEQS;
        int32_t positions[LEN], rows[LEN], start[2] = { 0, b->len[s] };
        for (int t = 0; t < b->len[s]; t++)
            rows[t] = positions[t] = t;
        struct fwd_batch batch = {
            .b = { .n_tokens = b->len[s], .n_seqs = 1, .token_ids = b->ids[s], .positions = positions, .seq_start = start, .block_tables = b->tables[s], .table_stride = STRIDE },
            .rope_len = &b->len[s], .logit_rows = rows, .n_logits = b->len[s],
        };
        float *logits;
        struct err e;
        if (!fwd_run(b->f, &batch, &logits, &e))
            fail_msg("%s", e.msg);
        size_t bytes = (size_t)b->len[s] * (size_t)b->vocab * 4;
        b->want[s] = mem_try_alloc(bytes, 1);
        memcpy(b->want[s], logits, bytes);
    }
}

static void check_batches(const char *name, enum fwd_dtype dtype)
{
    struct bench b;
    struct rng g = { .state = 11 };
    bench_open(&b, name, dtype);
    alone(&b, &g);
    for (int round = 0; round < 4; round++) {
        memset(b.done, 0, sizeof b.done);
        for (int total = 1; total > 0;) {
            int32_t seqs[N_SEQS], n[N_SEQS], room = MAX_TOKENS;
            int n_seqs = 0;
            for (int s = 0; s < N_SEQS; s++) {
                int32_t left = b.len[s] - b.done[s], most = round % 2 ? 3 : 40, k = 1 + (int32_t)rng_next_below(&g, (uint64_t)most);
                k = k < left ? k : left;
                k = k < room ? k : room;
                if (k <= 0)
                    continue;
                seqs[n_seqs] = s;
                n[n_seqs++] = k;
                room -= k;
            }
            total = n_seqs ? step(&b, seqs, n_seqs, n, &g, name) : 0;
        }
    }
    bench_close(&b);
}

static void test_batches(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        check_batches(MODELS[i], FWD_DTYPE_F32);
        check_batches(MODELS[i], FWD_DTYPE_AUTO);
        check_batches(MODELS[i], FWD_DTYPE_F16);
    }
}

/* A sequence goes on in copied pages, and in pages whose old content is overwritten behind its window's reach. */
static void test_copy(void **state)
{
    (void)state;
    struct bench b;
    struct rng g = { .state = 5 };
    bench_open(&b, "llama", FWD_DTYPE_F32);
    alone(&b, &g);
    int32_t s = 0, n = 15, rest = b.len[0] - 15, dst[STRIDE];
    step(&b, &s, 1, &n, &g, "llama");
    for (int i = 0; i < STRIDE; i++)
        dst[i] = 1 + N_SEQS * STRIDE + i;
    fwd_copy_blocks(b.f, b.tables[0], dst, STRIDE);
    /* Sequence 1 takes the old pages and overwrites them. */
    int32_t other = 1, all = b.len[1];
    memcpy(b.tables[1], b.tables[0], sizeof b.tables[1]);
    memcpy(b.tables[0], dst, sizeof dst);
    step(&b, &other, 1, &all, &g, "llama");
    step(&b, &s, 1, &rest, &g, "llama");
    fwd_copy_blocks(b.f, NULL, NULL, 0);
    bench_close(&b);
}

/* Steps without any row of logits only fill pages. */
static void test_no_logits(void **state)
{
    (void)state;
    struct bench b;
    struct rng g = { .state = 6 };
    bench_open(&b, "qwen3", FWD_DTYPE_AUTO);
    alone(&b, &g);
    int32_t positions[LEN], start[2] = { 0, b.len[0] - 1 }, s = 0, one = 1;
    for (int t = 0; t < LEN; t++)
        positions[t] = t;
    struct fwd_batch batch = {
        .b = { .n_tokens = b.len[0] - 1, .n_seqs = 1, .token_ids = b.ids[0], .positions = positions, .seq_start = start, .block_tables = b.tables[0], .table_stride = STRIDE },
        .rope_len = &b.len[0],
    };
    float *logits;
    struct err e;
    assert_true(fwd_run(b.f, &batch, &logits, &e));
    b.done[0] = b.len[0] - 1;
    step(&b, &s, 1, &one, &g, "qwen3");
    bench_close(&b);
}

/* The hidden states are those the logits come from: head(hidden) = logits, by the definition of a tied head. */
static void test_hidden(void **state)
{
    (void)state;
    struct bench b;
    struct rng g = { .state = 7 };
    bench_open(&b, "llama", FWD_DTYPE_F32);
    alone(&b, &g);
    struct err e;
    struct model_linear table;
    int32_t last = N_SEQS - 1, n = fwd_hidden_size(b.f);
    assert_true(model_get_linear(b.m, ARCH_LIN_EMBED, 0, 0, &table, &e));
    const float *hidden = fwd_hidden(b.f);
    float *row = mem_try_alloc((size_t)n, sizeof *row);
    for (int32_t v = 0; v < b.vocab; v++) {
        double sum = 0;
        table.parts[0].read(&table.parts[0], v, 1, row);
        for (int32_t i = 0; i < n; i++)
            sum += (double)row[i] * hidden[(size_t)(b.len[last] - 1) * (size_t)n + (size_t)i];
        assert_true(fabs(sum - b.want[last][(size_t)(b.len[last] - 1) * (size_t)b.vocab + (size_t)v]) < 1e-4);
    }
    mem_free(row);
    model_linear_free(&table);
    bench_close(&b);
}

static void test_rope_key(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "llama-dynamic", FWD_DTYPE_F32);
    assert_true(fwd_rope_key(b.f, 3) == fwd_rope_key(b.f, 16) && fwd_rope_key(b.f, 16) != fwd_rope_key(b.f, 17));
    bench_close(&b);
    bench_open(&b, "llama", FWD_DTYPE_F32);
    assert_true(fwd_rope_key(b.f, 3) == fwd_rope_key(b.f, 300));
    bench_close(&b);
}

/* What config.json alone tells equals what the checkpoint tells; a wrong option is refused; a missing tensor is told. */
static void test_plan(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        char dir[512];
        struct err e = { 0 };
        struct model *full, *bare;
        struct model_opts only = { .config_only = true };
        struct fwd_opts o = { .max_tokens = 10, .max_seqs = 2, .max_logits = 2, .n_blocks = 4, .max_model_len = 64 };
        struct fwd_plan a, b, f32;
        snprintf(dir, sizeof dir, TINY "/%s", MODELS[i]);
        if (!model_open(&full, dir, NULL, &e) || !model_open(&bare, dir, &only, &e) || !fwd_plan_bytes(&a, full, &o, &e) || !fwd_plan_bytes(&b, bare, &o, &e))
            fail_msg("%s", e.msg);
        assert_int_equal(a.n_params, b.n_params);
        assert_int_equal(a.weight_bytes, b.weight_bytes);
        o.dtype = FWD_DTYPE_F32;
        assert_true(fwd_plan_bytes(&f32, full, &o, &e));
        assert_true(f32.weight_bytes >= (size_t)f32.n_params * 4 && f32.kv_block_bytes >= 2 * a.kv_block_bytes);
        struct dev *d;
        struct fwd *f;
        struct dev_opts dopt = { .n_threads = 1 };
        assert_true(dev_open(&d, &dopt, &e));
        assert_false(fwd_open(&f, d, bare, &o, &e));
        assert_null(f);
        o.n_blocks = 1;
        assert_false(fwd_open(&f, d, full, &o, &e));
        dev_close(&d);
        model_close(&full);
        model_close(&bare);
    }
}

struct seen { int64_t last, total; int calls; };

static void on_progress(void *ctx, int64_t done, int64_t total)
{
    struct seen *s = ctx;
    assert_true(done >= s->last && done <= total && (s->total == 0 || s->total == total));
    s->last = done;
    s->total = total;
    s->calls++;
}

/* Dummy weights: the same seed gives the same logits, on any number of threads, and they are sane numbers. */
static void test_dummy(void **state)
{
    (void)state;
    float *logits[3];
    for (int i = 0; i < 3; i++) {
        struct err e = { 0 };
        struct model *m;
        struct dev *d;
        struct fwd *f;
        struct seen seen = { 0 };
        struct model_opts mo = { .load_format = MODEL_LOAD_DUMMY, .dummy_seed = i == 2 };
        struct dev_opts dopt = { .n_threads = 1 + i };
        struct fwd_opts o = { .max_tokens = 8, .max_seqs = 1, .max_logits = 8, .n_blocks = 2, .max_model_len = 32, .progress = on_progress, .progress_ctx = &seen };
        if (!model_open(&m, TINY "/qwen3", &mo, &e) || !dev_open(&d, &dopt, &e) || !fwd_open(&f, d, m, &o, &e))
            fail_msg("%s", e.msg);
        assert_true(seen.calls > 3 && seen.last == seen.total);
        int32_t ids[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, pos[8] = { 0, 1, 2, 3, 4, 5, 6, 7 }, start[2] = { 0, 8 }, table = 1, len = 8;
        struct fwd_batch b = {
            .b = { .n_tokens = 8, .n_seqs = 1, .token_ids = ids, .positions = pos, .seq_start = start, .block_tables = &table, .table_stride = 1 },
            .rope_len = &len, .logit_rows = pos, .n_logits = 8,
        };
        float *out;
        assert_true(fwd_run(f, &b, &out, &e));
        size_t n = 8 * (size_t)fwd_vocab_size(f);
        logits[i] = mem_try_alloc(n, 4);
        memcpy(logits[i], out, n * 4);
        double square = 0;
        for (size_t k = 0; k < n; k++)
            square += (double)out[k] * out[k];
        assert_true(square / (double)n > 0.05 && square / (double)n < 20);
        fwd_close(&f);
        dev_close(&d);
        model_close(&m);
    }
    assert_memory_equal(logits[0], logits[1], 8 * 48 * 4);
    assert_memory_not_equal(logits[0], logits[2], 8 * 48 * 4);
    for (int i = 0; i < 3; i++)
        mem_free(logits[i]);
}

/* Every allocation of opening fails once: an error and no leak. */
static void test_no_memory(void **state)
{
    (void)state;
    struct dev *d;
    struct model *m;
    struct err e = { 0 };
    struct dev_opts dopt = { .n_threads = 1 };
    struct fwd_opts o = { .max_tokens = 8, .max_seqs = 1, .max_logits = 8, .n_blocks = 2, .max_model_len = 32 };
    assert_true(dev_open(&d, &dopt, &e) && model_open(&m, TINY "/llama", NULL, &e));
    for (long n = 1;; n++) {
        struct fwd *f;
        mem_fault_after(n);
        bool ok = fwd_open(&f, d, m, &o, &e), fired = mem_fault_fired();
        mem_fault_after(0);
        assert_true(ok == (f != NULL));
        fwd_close(&f);
        if (!fired) {
            assert_true(ok);
            break;
        }
        assert_true(ok || e.msg[0]);
    }
    model_close(&m);
    dev_close(&d);
}

/* The model linked into the program runs. */
static void test_builtin(void **state)
{
    (void)state;
    struct model *m;
    struct err e = { 0 };
    if (!model_open(&m, NULL, NULL, &e)) {
        if (e.code == ERR_NOT_FOUND)
            skip();
        fail_msg("%s", e.msg);
    }
    struct dev *d;
    struct fwd *f;
    struct dev_opts dopt = { .n_threads = 2 };
    struct fwd_opts o = { .max_tokens = 8, .max_seqs = 1, .max_logits = 8, .n_blocks = 2, .max_model_len = 32 };
    if (!dev_open(&d, &dopt, &e) || !fwd_open(&f, d, m, &o, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(model_name(m), "quire-builtin");
    assert_true(file_set_has(model_files(m), "tokenizer.json") && model_generation(m)->n_eos_ids > 0);
    fwd_close(&f);
    dev_close(&d);
    model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_no_logits),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_rope_key),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_dummy),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_builtin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
