/* Regular expressions: compiled with small limits, then drawn from. */
#include "guide_fuzz.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    gf_run(GUIDE_REGEX, data, size, false);
    return 0;
}
