/* Selection among candidates without a full sort: quickselect by count or by weight. */
#include <stdlib.h>
#include "sample/sample_int.h"

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->key != b->key ? a->key < b->key : a->id < b->id;
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : before(b, a) ? 1 : 0;
}

void sample_select_sort(struct candidate *c, int32_t n)
{
    if (n > 1)
        qsort(c, (size_t)n, sizeof *c, compare);
}

static void swap(struct candidate *c, int32_t i, int32_t j)
{
    struct candidate t = c[i];
    c[i] = c[j];
    c[j] = t;
}

/* Hoare's step around the median of three; (key, id) pairs are distinct.  Returns the pivot's final place p:
 * everything in [lo, p) is before it, everything in (p, hi) after. */
static int32_t partition(struct candidate *c, int32_t lo, int32_t hi)
{
    int32_t mid = lo + (hi - lo) / 2, last = hi - 1;
    if (before(&c[mid], &c[lo]))
        swap(c, mid, lo);
    if (before(&c[last], &c[lo]))
        swap(c, last, lo);
    if (before(&c[last], &c[mid]))
        swap(c, last, mid);
    swap(c, mid, last); /* the pivot waits at the end */
    int32_t store = lo;
    for (int32_t i = lo; i < last; i++)
        if (before(&c[i], &c[last]))
            swap(c, i, store++);
    swap(c, store, last);
    return store;
}

void sample_select_smallest(struct candidate *c, int32_t n, int32_t n_first)
{
    int32_t lo = 0, hi = n;
    while (hi - lo > 1 && n_first > lo && n_first < hi) {
        int32_t p = partition(c, lo, hi);
        if (p < n_first)
            lo = p + 1;
        else
            hi = p;
    }
}

int32_t sample_select_mass(struct candidate *c, int32_t n, double mass, bool with_ties)
{
    int32_t lo = 0, hi = n;
    double taken = 0; /* weight of [0, lo), all of which belong; below mass */
    while (lo < hi && taken < mass) {
        int32_t p = partition(c, lo, hi);
        double sum = taken;
        for (int32_t i = lo; i < p; i++)
            sum += c[i].weight;
        if (sum >= mass) {
            hi = p;
        } else {
            taken = sum + c[p].weight;
            lo = p + 1;
        }
    }
    if (lo == 0 && n > 0) {
        sample_select_smallest(c, n, 1);
        lo = 1;
    }
    if (with_ties && lo > 0) {
        float last = c[0].key;
        for (int32_t i = 1; i < lo; i++)
            last = c[i].key > last ? c[i].key : last;
        for (int32_t i = lo; i < n; i++)
            if (c[i].key == last)
                swap(c, i, lo++);
    }
    return lo;
}
