/* The tiny models of tests/data/tiny (tools/tinymodels.py) against the logits computed beside them: every architecture and
 * variant, without data from elsewhere. */
#include <dirent.h>
#include "golden/golden.h"

#define TINY QUIRE_SOURCE_DIR "/tests/data/tiny"
enum { MAX_MODELS = 256 };

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void test_tiny(void **state)
{
    (void)state;
    char *names[MAX_MODELS];
    int n = 0;
    DIR *d = opendir(TINY);
    assert_non_null(d);
    for (struct dirent *ent; n < MAX_MODELS && (ent = readdir(d));)
        if (ent->d_name[0] != '.')
            names[n++] = mem_try_strdup(ent->d_name);
    closedir(d);
    assert_true(n >= 30);
    qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) {
        char dir[512];
        snprintf(dir, sizeof dir, TINY "/%s", names[i]);
        /* In a mixture a rounding can tip the choice of an expert: then whole rows differ. */
        bool moe = strstr(names[i], "moe") || strstr(names[i], "mixtral");
        double best = golden_check(dir, FWD_DTYPE_F32, NULL, 2e-5), scalar = golden_check(dir, FWD_DTYPE_F32, "scalar", 2e-5);
        double avx2 = golden_check(dir, FWD_DTYPE_F32, "avx2", 2e-5), stored = golden_check(dir, FWD_DTYPE_AUTO, NULL, moe ? 4.0 : 0.5);
        printf("%-22s best %.1e  scalar %.1e  avx2 %.1e  as stored %.1e\n", names[i], best, scalar, avx2, stored);
        mem_free(names[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tiny) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
