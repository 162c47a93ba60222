/* Logits and greedy tokens of the reference implementations, for every architecture in the shared golden data. */
#include "golden/golden.h"

#define GOLDEN QUIRE_SOURCE_DIR "/../shared/golden"

static const char *const MODELS[] = {
    "llama-llama3rope", "llama-tied-linear", "mistral-sw16", "qwen2", "qwen3", "bloom", "cohere", "falcon-40b", "falcon-7b", "gpt2",
    "gpt_bigcode-mqa", "gptj", "granite", "mpt", "phi2", "phi3", "mixtral", "qwen3_moe",
};

static void need_golden(void)
{
    if (!file_is_dir(GOLDEN "/models"))
        skip();
}

static void test_models(void **state)
{
    (void)state;
    need_golden();
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        char dir[512];
        snprintf(dir, sizeof dir, GOLDEN "/models/%s", MODELS[i]);
        /* Rounding of activations and pages: eight bits in BF16, eleven in F16. */
        double best = golden_check(dir, FWD_DTYPE_F32, NULL, 2e-4), scalar = golden_check(dir, FWD_DTYPE_F32, "scalar", 2e-4);
        /* In a mixture a rounding can tip the choice of an expert: then whole rows differ. */
        bool moe = strstr(MODELS[i], "moe") || strstr(MODELS[i], "mixtral");
        double bf16 = golden_check(dir, FWD_DTYPE_BF16, NULL, moe ? 4.0 : 0.25), f16 = golden_check(dir, FWD_DTYPE_F16, NULL, moe ? 4.0 : 0.02);
        printf("%-20s f32 %.1e  scalar %.1e  bf16 %.1e  f16 %.1e\n", MODELS[i], best, scalar, bf16, f16);
    }
}

static void check_stories(const char *folder, const char *logits, const json_t *one_case, double tolerance)
{
    char path[512];
    int32_t ids[GOLDEN_MAX_IDS];
    struct npy want;
    struct runner r;
    int n = golden_ids(json_object_get(one_case, "ids"), ids), n_prompt = (int)json_array_size(json_object_get(one_case, "prompt_ids"));
    snprintf(path, sizeof path, GOLDEN "/stories260K/%s", logits);
    npy_read(&want, path);
    snprintf(path, sizeof path, GOLDEN "/stories260K/%s", folder);
    runner_open(&r, path, FWD_DTYPE_F32, NULL, 2);
    float *got = runner_logits(&r, ids, n, 0), *cut = runner_logits(&r, ids, n, 3);
    double worst = golden_diff(got, &want, n);
    printf("stories260K/%-10s %-20s %.1e\n", folder, logits, worst);
    assert_true(worst <= tolerance);
    assert_memory_equal(got, cut, (size_t)n * (size_t)r.vocab * 4);
    for (int i = n_prompt - 1; strcmp(folder, "hf") == 0 && i < n - 1; i++)
        assert_int_equal(golden_argmax(got + (size_t)i * (size_t)r.vocab, r.vocab), ids[i + 1]);
    mem_free(got);
    mem_free(cut);
    mem_free(want.data);
    runner_close(&r);
}

static void test_stories(void **state)
{
    (void)state;
    need_golden();
    struct err e;
    json_t *j = json_parse_file(GOLDEN "/stories260K/golden.json", 1 << 22, &e);
    if (!j)
        fail_msg("%s", e.msg);
    const json_t *cases = json_object_get(j, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        check_stories("hf", json_string_value(json_object_get(c, "logits")), c, 2e-4);
    }
    check_stories("hf-bf16", "logits_bf16_1.npy", json_array_get(cases, 1), 2e-4);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_stories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
