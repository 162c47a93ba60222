/* kern/peak.h - loops that do nothing but what bounds a kernel: reading memory, and multiplying and adding in registers.
 * Timed, they are the ceilings that kernels are compared with (bench/probe.h).
 *
 * Reading is one stream of the widest loads with a short prefetch: on the machines tried more streams, longer distances or
 * other hints read no faster (bench/lab/read_lab.c).  The arithmetic loops run enough independent chains to
 * hide latency; the chains begin differently, or a compiler would make them one. */
#ifndef QUIRE_KERN_PEAK_H
#define QUIRE_KERN_PEAK_H

#include <stddef.h>
#include <stdint.h>
#include "kern/cpu.h"

enum { KERN_PEAK_READ_STEP = 512 };

/* A loop of `rounds` rounds; what it returns depends on all of its work. */
struct kern_peak_loop {
    float (*run)(int64_t rounds);
    int32_t ops;             /* of a round: a multiplication and an addition count as two */
};

struct kern_peak {
    /* Reads bytes (a multiple of KERN_PEAK_READ_STEP) at p, 64-byte aligned. */
    uint64_t (*read)(const void *p, size_t bytes);
    struct kern_peak_loop f32;   /* fused multiply-add where there is one */
    struct kern_peak_loop bf16;  /* pairs of bf16 into f32; run is NULL where kernels widen to f32 instead */
    struct kern_peak_loop int8;  /* bytes into int32, the way the integer kernels of this ISA do it */
};

/* What kernels of this ISA can use on this CPU.  isa must not be better than kern_isa_best(). */
struct kern_peak kern_peak_get(enum kern_isa isa);

uint64_t kern_peak_read_ref(const void *p, size_t bytes), kern_peak_read_avx2(const void *p, size_t bytes),
         kern_peak_read_avx512(const void *p, size_t bytes);
float kern_peak_f32_ref(int64_t rounds), kern_peak_f32_avx2(int64_t rounds), kern_peak_f32_avx512(int64_t rounds);
float kern_peak_bf16_avx512bf16(int64_t rounds);
float kern_peak_int8_ref(int64_t rounds), kern_peak_int8_avx2(int64_t rounds), kern_peak_int8_avxvnni(int64_t rounds),
      kern_peak_int8_avx512vnni(int64_t rounds);

#endif
