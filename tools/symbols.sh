#!/bin/bash
# Every symbol that libquire.a exports starts with a prefix of its module: the name of its
# folder in src/, or one of the table below.  So a name says where to look, and a helper that
# should be static is noticed.  usage: tools/symbols.sh [build/libquire.a]
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
lib=${1:-$top/build/libquire.a}
[ -r "$lib" ] || { echo "symbols.sh: $lib cannot be read: build first" >&2; exit 2; }

# module: prefixes besides its own name
table='
base: err mem arena buf vec hash rng json utf8 log clock tpool mpsc ring file topo
tensor: dtype quant
kern: cpu gemm
model: arch safetensors gguf checkpoint quant packed
tok: detok stop jinja chat
guide: expr nfa dfa machine mask local unique regex schema grammar
sample: sampler
fwd: blk batch rope
par: comm
server: http sse api reply tgi embed batch files
engine: quire ask gen evq stream step request beam metrics trace pace
bench: probe
'

(
    printf '%s\n' "$table" | sed -n 's/^\([a-z]*\): */P \1 \1 /p'
    (cd "$top/src" && find . -name '*.c' -o -name '*.S') | sed 's|^\./||' |
        awk -F/ '{print "F", $1, $NF}'
    # "libquire.a:err.c.o:0000 T err_set" -> "S err.c T err_set"
    nm -A -g --defined-only "$lib" | sed 's/^.*:\([^:]*\)\.o: *[0-9a-f]* \([A-Za-z]\) \(.*\)$/S \1 \2 \3/'
) | awk '
    $1 == "P" { for (i = 3; i <= NF; i++) ok[$2, $i] = 1; next }
    # A file name used in two modules (the archive keeps no folders) may use the prefixes of both.
    $1 == "F" { if (index(" " module[$3] " ", " " $2 " ") == 0) module[$3] = module[$3] " " $2; next }
    $1 == "S" {
        if (!($2 in module)) { printf "%s: no such file in src (stale build?)\n", $2; bad++; next }
        prefix = $4; sub(/_.*/, "", prefix); n++
        fits = 0
        n_m = split(module[$2], m, " ")
        for (i = 1; i <= n_m; i++) if (prefix == m[i] || ((m[i], prefix) in ok)) fits = 1
        if (fits && index($4, "_")) next
        printf "%s: exported symbol %s has no prefix of its module (%s): make it static, rename it, or add the prefix to tools/symbols.sh\n", $2, $4, m[1]
        bad++; next
    }
    { print "symbols.sh: cannot read: " $0; bad++ }
    END { if (n == 0) { print "no symbols found"; bad++ } exit bad ? 1 : 0 }'
