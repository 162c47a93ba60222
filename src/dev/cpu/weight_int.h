/* dev/cpu/weight_int.h - a packed weight, shared by packing (weight.c) and products (linear.c). */
#ifndef QUIRE_DEV_CPU_WEIGHT_INT_H
#define QUIRE_DEV_CPU_WEIGHT_INT_H

#include "dev/dev.h"
#include "kern/gemm.h"

struct dev_weight {
    enum gemm_format format;
    bool gated;
    int64_t n_out, k, n_panels;
    size_t panel_bytes;
    unsigned char *panels;   /* [n_panels][panel_bytes]; owns the memory, bias included */
    float *bias;             /* [n_panels][GEMM_COLS] behind the panels, or NULL */
    int32_t *order;          /* [k] behind those: which input each packed column takes; NULL: its own */
    size_t bytes;
    bool mapped;             /* panels came from mem_try_map */
    bool borrowed;           /* panels are an image that somebody else keeps */
};

/* What is packed of n rows of r from row0: codes as kernels want them.  work: dev_cpu_codes_bytes.  False: a scale is beyond what the format holds. */
size_t dev_cpu_codes_bytes(const struct tensor_quant *q, int64_t n_cols, int n);
bool dev_cpu_pack_codes(const struct dev_weight *w, const struct tensor_rows *r, int64_t row0, int n, void *panel, int col0, void *work);
/* order[k]: columns by their groups, within one in the order they are stored in.  False: groups do not have the sizes that q says. */
bool dev_cpu_codes_order(const struct tensor_quant *q, int64_t n_cols, int32_t *order);

/* out[i] = x[order[i]]: a row of inputs as the weight's columns lie. */
void dev_cpu_take_columns(const int32_t *order, int64_t k, const float *x, float *out);

/* The kernels' name of an activation. */
enum gemm_act dev_cpu_gemm_act(enum dev_act act);

#endif
