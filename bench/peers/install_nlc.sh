#!/bin/sh
# Installs node-llama-cpp (mainline llama.cpp with prebuilt binaries) from npm.  usage: install_nlc.sh [DIR]     DIR: build/peers/nlc
set -eu
dir=${1:-build/peers/nlc}
mkdir -p "$dir"
cd "$dir"
[ -f package.json ] || npm init -y >/dev/null
NODE_LLAMA_CPP_SKIP_DOWNLOAD=true npm install --no-audit --no-fund node-llama-cpp
