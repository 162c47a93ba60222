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
    size_t bytes;
    bool mapped;             /* panels came from mem_try_map */
    bool borrowed;           /* panels are an image that somebody else keeps */
};

/* The kernels' name of an activation. */
enum gemm_act dev_cpu_gemm_act(enum dev_act act);

#endif
