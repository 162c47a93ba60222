#!/usr/bin/env bash
# End to end: the official openai client, the Vercel AI SDK, LangChain and raw sockets against `quire serve`, and `quire batch`.
# usage: tests/e2e/run.sh [test files]     QUIRE=path of the program (default build/quire)
# Each test file starts its own servers, on free ports of 127.0.0.1, and ends them.
set -eu
cd "$(dirname "$0")"
export QUIRE=${QUIRE:-$(cd ../.. && pwd)/build/quire}
[ -x "$QUIRE" ] || { echo "run.sh: $QUIRE is not there; build first" >&2; exit 1; }
if ! cmp -s package.json node_modules/.installed; then
    npm install --silent --no-progress --no-package-lock || { echo "run.sh: npm could not install what package.json names" >&2; exit 1; }
    cp package.json node_modules/.installed
fi
[ $# -gt 0 ] || set -- ./*.test.mjs
exec node --test --test-reporter=spec "$@"   # its last lines say what failed
