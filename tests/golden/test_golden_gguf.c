/* GGUF files against recorded logits: the same models as the folders beside them, and models in block formats. */
#include "golden/golden.h"

#define GOLDEN QUIRE_SOURCE_DIR "/../shared/golden"

static const struct { const char *name; double tolerance; } MODELS[] = {
    { "llama-llama3rope", 2e-4 }, { "llama-tied-linear", 2e-4 }, { "qwen2", 2e-4 }, { "qwen3", 2e-4 }, { "bloom", 2e-4 }, { "cohere", 2e-4 },
    { "falcon-40b", 2e-4 }, { "falcon-7b", 2e-4 }, { "gpt2", 2e-4 }, { "gpt_bigcode-mqa", 2e-4 }, { "granite", 2e-4 }, { "mpt", 2e-4 },
    { "phi2", 2e-4 }, { "phi3", 2e-4 }, { "mixtral", 2e-4 }, { "qwen3_moe", 2e-4 },
};

static void need_golden(void)
{
    if (!file_is_dir(GOLDEN "/models"))
        skip();
}

static double check_file(const char *path, const char *logits, const int32_t *ids, int n, double tolerance)
{
    struct npy want;
    struct runner r;
    npy_read(&want, logits);
    runner_open(&r, path, FWD_DTYPE_F32, NULL, 2);
    float *got = runner_logits(&r, ids, n, 0);
    double worst = golden_diff(got, &want, n);
    if (!(worst <= tolerance))
        fail_msg("%s: logits differ by %g", path, worst);
    mem_free(got);
    mem_free(want.data);
    runner_close(&r);
    return worst;
}

static json_t *read_json(const char *path)
{
    struct err e;
    json_t *j = json_parse_file(path, 1 << 22, &e);
    if (!j)
        fail_msg("%s", e.msg);
    return j;
}

static void test_models(void **state)
{
    (void)state;
    need_golden();
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        char path[512], logits[512];
        int32_t ids[GOLDEN_MAX_IDS];
        snprintf(path, sizeof path, GOLDEN "/models/%s/golden.json", MODELS[i].name);
        json_t *j = read_json(path);
        int n = golden_ids(json_object_get(j, "input_ids"), ids);
        n += golden_ids(json_object_get(j, "greedy_ids"), ids + n);
        snprintf(path, sizeof path, GOLDEN "/models/%s/model.gguf", MODELS[i].name);
        snprintf(logits, sizeof logits, GOLDEN "/models/%s/golden_logits.npy", MODELS[i].name);
        printf("%-20s %.1e\n", MODELS[i].name, check_file(path, logits, ids, n, MODELS[i].tolerance));
        json_decref(j);
    }
}

static void test_quantized(void **state)
{
    (void)state;
    need_golden();
    int32_t ids[GOLDEN_MAX_IDS];
    json_t *j = read_json(GOLDEN "/quant/models/golden.json");
    int n = golden_ids(json_object_get(j, "input_ids"), ids);
    const json_t *models = json_object_get(j, "models");
    assert_true(json_array_size(models) >= 3);
    for (size_t i = 0; i < json_array_size(models); i++) {
        char path[512], logits[512];
        const json_t *m = json_array_get(models, i);
        const char *file = json_string_value(json_object_get(m, "file"));
        snprintf(path, sizeof path, GOLDEN "/quant/models/%s", file);
        snprintf(logits, sizeof logits, GOLDEN "/quant/models/%s", json_string_value(json_object_get(m, "logits")));
        printf("%-20s %.1e\n", file, check_file(path, logits, ids, n, 1e-3));
    }
    json_decref(j);
}

static void test_stories(void **state)
{
    (void)state;
    need_golden();
    json_t *j = read_json(GOLDEN "/stories260K/golden.json");
    const json_t *cases = json_object_get(j, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        char logits[512];
        int32_t ids[GOLDEN_MAX_IDS];
        const json_t *c = json_array_get(cases, i);
        snprintf(logits, sizeof logits, GOLDEN "/stories260K/%s", json_string_value(json_object_get(c, "logits")));
        int n = golden_ids(json_object_get(c, "ids"), ids);
        printf("%-20s %.1e\n", "stories260K", check_file(GOLDEN "/stories260K/stories260K-F32.gguf", logits, ids, n, 2e-4));
    }
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_quantized),
        cmocka_unit_test(test_stories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
