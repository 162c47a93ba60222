/* Promise 1 over every weight format, KV type and instruction set: rows of sequences computed together, in random pieces, on three threads
 * are bit for bit those of each sequence computed alone, whole, on one. */
#include <unistd.h>
#include "golden/golden.h"
#include "kern/cpu.h"
#include "sanitized.h"

enum { N_SEQS = 4, LONG = 300, STRIDE = LONG / DEV_BLOCK_TOKENS + 1, MAX_TOKENS = 320, N_BLOCKS = 1 + N_SEQS * STRIDE, VOCAB = 70 };

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":70,\"hidden_size\":144,\"intermediate_size\":160,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":40,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"
    "\"hidden_act\":\"silu\",\"eos_token_id\":3,\"bos_token_id\":1,\"tie_word_embeddings\":false,\"torch_dtype\":\"float32\"}";

static char folder[64];

static int make_config(void **state)
{
    char path[96];
    struct err e;
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/quire-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/config.json", folder);
    return file_write_atomic(path, config, sizeof config - 1, &e) ? 0 : -1;
}

static int remove_config(void **state)
{
    char path[96];
    (void)state;
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    return rmdir(folder);
}

struct setup { struct model *m; struct dev *d; struct fwd *f; };

static void setup_open(struct setup *s, enum dev_format format, enum fwd_dtype kv, const char *isa, int n_threads, bool wide)
{
    struct err e;
    struct model_opts mo = { .load_format = MODEL_LOAD_DUMMY, .dummy_seed = 7 };
    struct dev_opts d = { .n_threads = n_threads, .isa = isa, .float_inputs = wide };
    struct fwd_opts o = { .dtype = FWD_DTYPE_F32, .kv_dtype = kv, .max_tokens = MAX_TOKENS, .max_seqs = N_SEQS, .max_logits = MAX_TOKENS,
                          .n_blocks = N_BLOCKS, .max_model_len = LONG };
    for (int k = 0; k < FWD_KIND_COUNT; k++) {
        o.quant.set[k] = true;
        o.quant.format[k] = format;
    }
    if (!model_open(&s->m, folder, &mo, &e) || !dev_open(&s->d, &d, &e) || !fwd_open(&s->f, s->d, s->m, &o, &e))
        fail_msg("%s", e.msg);
}

static void setup_close(struct setup *s)
{
    fwd_close(&s->f);
    model_close(&s->m);
    dev_close(&s->d);
}

struct seqs {
    int32_t len[N_SEQS], done[N_SEQS], ids[N_SEQS][LONG], tables[N_SEQS][STRIDE];
    float *want[N_SEQS];     /* [len][VOCAB] */
};

/* n[s] more tokens of each sequence; all rows of logits, which go to want (fill) or are compared with it. */
static void step(struct setup *u, struct seqs *q, const int32_t *n, bool fill, const char *what)
{
    int32_t ids[MAX_TOKENS], positions[MAX_TOKENS], rows[MAX_TOKENS], start[N_SEQS + 1] = { 0 }, rope_len[N_SEQS], of[MAX_TOKENS], total = 0, n_seqs = 0;
    int32_t tables[N_SEQS][STRIDE];
    for (int s = 0; s < N_SEQS; s++) {
        if (n[s] == 0)
            continue;
        for (int32_t t = 0; t < n[s]; t++, total++) {
            ids[total] = q->ids[s][q->done[s] + t];
            positions[total] = q->done[s] + t;
            rows[total] = total;
            of[total] = s;
        }
        memcpy(tables[n_seqs], q->tables[s], sizeof tables[0]);
        rope_len[n_seqs++] = q->len[s];
        start[n_seqs] = total;
        q->done[s] += n[s];
    }
    struct fwd_batch b = {
        .b = { .n_tokens = total, .n_seqs = n_seqs, .token_ids = ids, .positions = positions, .seq_start = start, .block_tables = &tables[0][0], .table_stride = STRIDE },
        .rope_len = rope_len, .logit_rows = rows, .n_logits = total,
    };
    float *logits;
    struct err e;
    if (!fwd_run(u->f, &b, &logits, &e))
        fail_msg("%s", e.msg);
    for (int32_t i = 0; i < total; i++) {
        float *want = q->want[of[i]] + (size_t)positions[i] * VOCAB, *got = logits + (size_t)i * VOCAB;
        if (fill)
            memcpy(want, got, VOCAB * sizeof *got);
        else if (memcmp(want, got, VOCAB * sizeof *got) != 0)
            fail_msg("%s: sequence %d position %d differs from the same alone", what, (int)of[i], (int)positions[i]);
    }
}

static void check(enum dev_format format, enum fwd_dtype kv, const char *isa, bool is_long, bool wide, struct rng *g)
{
    static const char *const kv_names[] = { "auto", "f32", "f16", "bf16", "int8", "fp8" };
    struct setup one, three;
    struct seqs q = { 0 };
    char what[96];
    snprintf(what, sizeof what, "%s weights%s, %s KV, %s", dev_format_name(format), wide ? " and float inputs" : "", kv_names[kv], isa);
    setup_open(&one, format, kv, isa, 1, wide);
    setup_open(&three, format, kv, isa, 3, wide);
    assert_int_equal(fwd_vocab_size(one.f), VOCAB);
    for (int s = 0; s < N_SEQS; s++) {
        int32_t n[N_SEQS] = { 0 };
        n[s] = q.len[s] = s == 0 && is_long ? LONG : 1 + (int32_t)rng_next_below(g, 45);
        for (int t = 0; t < q.len[s]; t++)
            q.ids[s][t] = (int32_t)rng_next_below(g, VOCAB);
        for (int i = 0; i < STRIDE; i++)
            q.tables[s][i] = 1 + i * N_SEQS + (s + i) % N_SEQS;
        q.want[s] = mem_must_zalloc((size_t)q.len[s] * VOCAB, sizeof(float));
        step(&one, &q, n, true, what);
    }
    for (int round = 0; round < 2; round++) {
        memset(q.done, 0, sizeof q.done);
        for (bool any = true; any;) {
            int32_t n[N_SEQS];
            any = false;
            for (int s = 0; s < N_SEQS; s++) {
                int32_t left = q.len[s] - q.done[s], most = round == 0 ? 70 : s == 0 ? 20 : 2, k = (int32_t)rng_next_below(g, (uint64_t)most + 1);
                n[s] = k < left ? k : left;
                any |= left > 0;
            }
            if (n[0] + n[1] + n[2] + n[3] > 0)
                step(&three, &q, n, false, what);
        }
    }
    for (int s = 0; s < N_SEQS; s++)
        mem_free(q.want[s]);
    setup_close(&one);
    setup_close(&three);
}

static void check_isa(enum kern_isa isa)
{
    struct rng g = { .state = 3 };
    if (isa > kern_isa_best())
        skip();
    for (int f = 0; f < DEV_FMT_COUNT; f++)
        for (int kv = FWD_DTYPE_F32; kv <= FWD_DTYPE_FP8; kv++)
            if (!SANITIZED || (f + kv) % 5 == 0)
                check((enum dev_format)f, (enum fwd_dtype)kv, kern_isa_name(isa), isa != KERN_ISA_SCALAR || f == kv, false, &g);
    for (int f = DEV_FMT_I8; f <= DEV_FMT_U8_G32; f++)
        if (!SANITIZED || f % 3 == 0)
            check((enum dev_format)f, FWD_DTYPE_BF16, kern_isa_name(isa), isa == KERN_ISA_AVX512_BF16, true, &g);
}

static void test_scalar(void **state) { (void)state; check_isa(KERN_ISA_SCALAR); }
static void test_avx2(void **state) { (void)state; check_isa(KERN_ISA_AVX2); }
static void test_avx512(void **state) { (void)state; check_isa(KERN_ISA_AVX512); }
static void test_avx512_bf16(void **state) { (void)state; check_isa(KERN_ISA_AVX512_BF16); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_avx512_bf16),
    };
    return cmocka_run_group_tests(tests, make_config, remove_config);
}
