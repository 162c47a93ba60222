#!/bin/sh
# Builds the laboratory programs that use the kernels as they are in src/.  usage: bench/lab/build.sh OUTDIR
set -e
out=${1:-/tmp}; mkdir -p "$out/o"
F="$X -std=gnu17 -D_GNU_SOURCE -Isrc -Wall -Wextra -fno-math-errno -ffp-contract=off -g"
V2="-mavx2 -mfma -mf16c"; V5="-mavx512f -mavx512bw -mavx512vl -mavx512dq $V2"; V6="$V5 -mavx512vnni -mavx512bf16 -mavx512vbmi"
for c in src/kern/gemm*.c src/kern/cpu.c src/kern/ref/gemm*.c src/tensor/*.c src/base/mem.c src/base/clock.c src/base/err.c src/base/utf8.c; do
    ${CC:-gcc} $F -O2 -c $c -o "$out/o/$(basename $c .c).o"; done
for c in src/kern/avx2/gemm*.c; do ${CC:-gcc} $F -O3 $V2 -c $c -o "$out/o/$(basename $c .c)_2.o"; done
for c in src/kern/avx512/gemm*.c; do ${CC:-gcc} $F -O3 $V5 -c $c -o "$out/o/$(basename $c .c)_5.o"; done
for c in src/kern/avxvnni/gemm*.c; do ${CC:-gcc} $F -O3 $V2 -mavxvnni -c $c -o "$out/o/$(basename $c .c)_3.o"; done
for c in src/kern/avx512vnni/gemm*.c; do ${CC:-gcc} $F -O3 $V5 -mavx512vnni -c $c -o "$out/o/$(basename $c .c)_4.o"; done
for c in src/kern/avx512bf16/gemm*.c; do ${CC:-gcc} $F -O3 $V6 -c $c -o "$out/o/$(basename $c .c)_6.o"; done
${CC:-gcc} $F -Wno-sign-compare -O3 $V6 bench/lab/gemm_lab.c "$out"/o/*.o -o "$out/gemm_lab" -lm -lpthread
${CC:-gcc} $F -Wno-sign-compare -O3 $V6 bench/lab/tile_lab.c "$out"/o/*.o -o "$out/tile_lab" -lm -lpthread
