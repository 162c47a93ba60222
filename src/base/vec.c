#include "base/vec.h"

#include <string.h>

#include "base/mem.h"

enum { VEC_FIRST = 8 };

bool vec_reserve(void **items, size_t *cap, size_t need, size_t elem_bytes)
{
    if (need <= *cap)
        return true;
    size_t grown = *cap < VEC_FIRST / 2 ? VEC_FIRST : *cap + *cap / 2 + 1;
    if (grown < need) /* also when the sum above wrapped */
        grown = need;
    /* The slot is really a T *: copied as bytes, so that no object is read as another type. */
    void *old, *p;
    memcpy(&old, (void *)items, sizeof old);
    p = mem_try_realloc(old, grown, elem_bytes);
    if (!p)
        return false;
    memcpy((void *)items, &p, sizeof p);
    *cap = grown;
    return true;
}
