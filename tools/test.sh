#!/usr/bin/env bash
# Runs the checks and closes with "N passed, N failed".  usage: test.sh all|fast|fuzz
#   fast   structure, release build, all tests in it, and end to end
#   all    fast, then everything again under ASan+UBSan, engine and server under TSan, fuzzers
set -u
cd "$(dirname "$0")/.."
what=${1:-all}
jobs=$(nproc)
passed=0
failed=0
failures=()

note() { printf '\n== %s (%s)\n' "$1" "$(date +%H:%M:%S)"; }

# check NAME COMMAND...: one check; its output is shown when it fails.
check() {
    local name=$1 log
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        failures+=("$name")
        echo "FAILED  $name"
        tail -n 60 "$log"
    fi
    rm -f "$log"
}

# suite PRESET [ctest options]: build the tests of a preset and run them; each program counts.
suite() {
    local preset=$1 dir=build log
    shift
    [ "$preset" = release ] || dir=build-$preset
    log=$(mktemp)
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" --target all tests -j "$jobs"; } >"$log" 2>&1; then
        failed=$((failed + 1))
        failures+=("build of $preset")
        echo "FAILED  build of $preset"
        grep -E 'error|FAILED|warning' "$log" | head -n 40
        rm -f "$log"
        return
    fi
    ctest --test-dir "$dir" -j "$jobs" --output-on-failure "$@" >"$log" 2>&1
    local total bad
    total=$(sed -nE 's/.*tests failed out of ([0-9]+)$/\1/p' "$log")
    bad=$(sed -nE 's/.* ([0-9]+) tests failed out of [0-9]+$/\1/p' "$log")
    if [ -z "$total" ]; then
        failed=$((failed + 1))
        failures+=("tests of $preset did not run")
        tail -n 30 "$log"
    else
        passed=$((passed + total - bad))
        failed=$((failed + bad))
        echo "$preset: $((total - bad)) of $total test programs passed"
        if [ "$bad" -ne 0 ]; then
            failures+=("$preset: $(sed -nE 's/^\t *[0-9]+ - (.*) \(.*/\1/p' "$log" | tr '\n' ' ')")
            grep -vE '^ *[0-9]+/[0-9]+ Test .* Passed|^ +Start ' "$log" | tail -n 120
        fi
    fi
    rm -f "$log"
}

fuzz_one() {
    local name=$1 seconds=$2 work
    work=$(mktemp -d)
    mkdir -p "tests/fuzz/corpus/$name"
    "build-fuzz/tests/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$work/" "$work" "tests/fuzz/corpus/$name" >"$work.log" 2>&1
    local rc=$?
    if [ $rc -ne 0 ]; then
        tail -n 40 "$work.log"
        for f in "$work"/crash-* "$work"/timeout-* "$work"/oom-* "$work"/leak-*; do
            [ -f "$f" ] && { echo "input: $f"; base64 "$f" | head -n 20; }
        done
    fi
    return $rc
}

fuzz() {
    local seconds=$1 log
    log=$(mktemp)
    if ! { cmake --preset fuzz && cmake --build --preset fuzz --target fuzzers -j "$jobs"; } >"$log" 2>&1; then
        failed=$((failed + 1))
        failures+=("build of the fuzzers")
        echo "FAILED  build of the fuzzers"
        tail -n 40 "$log"
        rm -f "$log"
        return
    fi
    rm -f "$log"
    local names=() pids=() n=0
    for source in tests/fuzz/fuzz_*.c; do names+=("$(basename "$source" .c)"); done
    while [ "$n" -lt "${#names[@]}" ]; do
        pids=()
        local batch=("${names[@]:n:jobs}") logs=()
        for name in "${batch[@]}"; do
            log=$(mktemp)
            logs+=("$log")
            fuzz_one "$name" "$seconds" >"$log" 2>&1 &
            pids+=($!)
        done
        for i in "${!batch[@]}"; do
            if wait "${pids[$i]}"; then
                passed=$((passed + 1))
                echo "ok      ${batch[$i]} for $seconds s"
            else
                failed=$((failed + 1))
                failures+=("${batch[$i]}")
                echo "FAILED  ${batch[$i]}"
                cat "${logs[$i]}"
            fi
            rm -f "${logs[$i]}"
        done
        n=$((n + ${#batch[@]}))
    done
}

if [ "$what" = fuzz ]; then
    note "fuzzing each parser for ${FUZZ_SECONDS:-600} s"
    fuzz "${FUZZ_SECONDS:-600}"
else
    note "structure"
    check "who includes whom, headers alone" python3 tools/includes.py --headers
    note "release build"
    suite release
    [ -x tools/symbols.sh ] && check "exported symbols carry their module's prefix" tools/symbols.sh build/libquire.a
    check "docs/OPTIONS.md says what --help says" tools/options.sh --check
    note "end to end"
    check "clients against a server, batches" bash tests/e2e/run.sh
    if [ "$what" = all ]; then
        check "clients that behave badly" tests/chaos/run --minutes "${CHAOS_MINUTES:-0.7}"
        check "clients that behave badly, over TLS" tests/chaos/run --tls --minutes "${CHAOS_MINUTES:-0.3}"
        note "address and undefined behaviour sanitizers"
        ASAN_OPTIONS=detect_leaks=1 suite asan
        note "thread sanitizer"
        TSAN_OPTIONS=halt_on_error=1 suite tsan -L '^(base|dev|engine|server|fwd)$'
        note "fuzzers"
        fuzz "${FUZZ_SECONDS:-20}"
    fi
fi

if [ "$failed" -ne 0 ]; then
    printf '\nfailed:\n'
    printf '  %s\n' "${failures[@]}"
fi
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
