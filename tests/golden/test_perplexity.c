/* Perplexity of the small real model in quantized formats, on the reference's own texts. */
#include "golden/golden.h"
#include "kern/cpu.h"

#define STORIES QUIRE_SOURCE_DIR "/../shared/golden/stories260K"

struct texts { int32_t ids[8][GOLDEN_MAX_IDS]; int n[8], n_texts; };

static void read_texts(struct texts *t)
{
    struct err e;
    json_t *j = json_parse_file(STORIES "/golden.json", 1 << 22, &e);
    if (!j)
        fail_msg("%s", e.msg);
    const json_t *cases = json_object_get(j, "cases");
    t->n_texts = (int)json_array_size(cases);
    assert_true(t->n_texts >= 1 && t->n_texts <= 8);
    for (int i = 0; i < t->n_texts; i++)
        t->n[i] = golden_ids(json_object_get(json_array_get(cases, (size_t)i), "ids"), t->ids[i]);
    json_decref(j);
}

static double perplexity(const char *format, const char *isa, bool wide, const struct texts *t)
{
    struct fwd_opts o = { .dtype = FWD_DTYPE_F32, .kv_dtype = FWD_DTYPE_F32 };
    struct runner r;
    struct err e;
    double sum = 0;
    int count = 0;
    if (!fwd_quant_parse(format, &o.quant, &e))
        fail_msg("%s", e.msg);
    runner_open_on(&r, STORIES "/hf", o, &(struct dev_opts){ .n_threads = 2, .isa = isa, .float_inputs = wide });
    for (int k = 0; k < t->n_texts; k++) {
        float *logits = runner_logits(&r, t->ids[k], t->n[k], 0);
        for (int i = 0; i + 1 < t->n[k]; i++) {
            const float *row = logits + (size_t)i * (size_t)r.vocab;
            double total = 0;
            for (int v = 0; v < r.vocab; v++)
                total += exp((double)row[v]);
            sum += log(total) - (double)row[t->ids[k][i + 1]];
            count++;
        }
        mem_free(logits);
    }
    runner_close(&r);
    return exp(sum / count);
}

static void test_perplexity(void **state)
{
    static const struct { const char *format; double bound; bool wide; } list[] = {
        { "int8", 0.005, false }, { "int8-g32", 0.005, false }, { "fp8", 0.02, false }, { "int4", 0.05, false }, { "int4-g64", 0.12, false }, { "int4-g128", 0.12, false },
        { "int8", 0.005, true }, { "int4", 0.05, true }, { "int4-g128", 0.12, true },
    };
    (void)state;
    if (!file_is_dir(STORIES "/hf"))
        skip();
    struct texts t;
    read_texts(&t);
    for (int isa = KERN_ISA_SCALAR; isa <= (int)kern_isa_best(); isa++) {
        const char *name = kern_isa_name((enum kern_isa)isa);
        double exact = perplexity("none", name, false, &t);
        printf("%-12s f32 %.4f", name, exact);
        for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
            double p = perplexity(list[i].format, name, list[i].wide, &t);
            printf("  %s%s %.4f (%+.2f%%)", list[i].format, list[i].wide ? ", float inputs" : "", p, 100 * (p / exact - 1));
            assert_true(p < exact * (1 + list[i].bound));
        }
        printf("\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_perplexity) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
