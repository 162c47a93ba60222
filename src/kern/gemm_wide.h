/* kern/gemm_wide.h - what gemm_wide_body.inc and its includers share. */
#ifndef QUIRE_KERN_GEMM_WIDE_H
#define QUIRE_KERN_GEMM_WIDE_H

#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(64)));   /* 16 columns */

#endif
