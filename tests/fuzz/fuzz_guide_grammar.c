/* Grammars, GBNF and Lark: compiled with small limits, then drawn from. */
#include "guide_fuzz.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    gf_run(GUIDE_GRAMMAR, data, size, false);
    return 0;
}
