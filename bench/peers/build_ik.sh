#!/bin/sh
# Builds ik_llama.cpp, the fastest CPU fork of llama.cpp, from its public repository, for this machine.
# usage: build_ik.sh [DIR]     DIR: build/peers/ik when not given; a checkout that is there already is built as it is
#        IK_REF=<commit> build_ik.sh     another version (default: the newest)
set -eu
dir=${1:-build/peers/ik}
if [ ! -d "$dir" ]; then
    git clone https://github.com/ikawrakow/ik_llama.cpp "$dir"
    [ -z "${IK_REF:-}" ] || git -C "$dir" checkout -q "$IK_REF"
fi
cmake -S "$dir" -B "$dir/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF
cmake --build "$dir/build" --target llama-bench llama-batched-bench llama-server llama-quantize
git -C "$dir" log -1 --format='ik_llama.cpp %H'
