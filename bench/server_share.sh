#!/bin/bash
# What scheduling, sampling and serving cost beside computing: serves MODEL, sends it streamed requests of 32 clients, and prints the engine's own
# seconds by part, CPU seconds by kind of thread, and then what the idle server takes.  Linux.
# usage: bench/server_share.sh MODEL [options of quire serve..]     QUIRE, CLIENTS, REQUESTS, IN, OUT, IDLE_S from the environment
set -eu
quire=${QUIRE:-build/quire} clients=${CLIENTS:-32} requests=${REQUESTS:-64} in=${IN:-32} out=${OUT:-64} idle=${IDLE_S:-10}
port=$(python3 -c "import socket; s=socket.socket(); s.bind(('127.0.0.1',0)); print(s.getsockname()[1])")
log=$(mktemp)
"$quire" serve "$@" --host 127.0.0.1 --port "$port" >"$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -f "$log"' EXIT
url=http://127.0.0.1:$port
for _ in $(seq 300); do curl -sf "$url/health" >/dev/null && break; kill -0 $server || { cat "$log" >&2; exit 1; }; sleep 0.2; done
load() { "$quire" bench serve --base-url "$url" --num-prompts "$1" --max-concurrency "$clients" --random-input-len "$in" --random-output-len "$out" --ignore-eos --temperature 0.8; }
# "thread-name nanoseconds" of every thread, then the engine's counters.
snapshot() {
    for t in /proc/$server/task/*; do echo "$(tr -s ' ' '_' <"$t/comm") $(cut -d' ' -f1 "$t/schedstat")"; done
    curl -s "$url/metrics" | sed -n 's/^quire:\([a-z]*_seconds_total\|generation_tokens_total\){[^}]*} \(.*\)/\1 \2/p'
}
load 4 >/dev/null
before=$(snapshot) start=$(date +%s.%N)
load "$requests" | grep -i -E "throughput|token" || true
after=$(snapshot) end=$(date +%s.%N)
sleep 1
idle_before=$(snapshot); sleep "$idle"; idle_after=$(snapshot)
python3 - "$start" "$end" "$idle" "$before" "$after" "$idle_before" "$idle_after" <<'P'
import collections
import sys
start, end, idle = map(float, sys.argv[1:4])


def read(text):
    d = collections.defaultdict(float)
    for line in text.split("\n"):
        name, value = line.rsplit(" ", 1)
        d[name] += float(value)
    return d


b, a, ib, ia = map(read, sys.argv[4:8])
wall = end - start
counters = [k for k in a if k.endswith("_total")]
step = a["step_seconds_total"] - b["step_seconds_total"]
tokens = a["generation_tokens_total"] - b["generation_tokens_total"]
print(f"{wall:.2f} s, {tokens:.0f} tokens; steps {step:.2f} s")
for k in ("forward_seconds_total", "sample_seconds_total", "schedule_seconds_total"):
    print(f"  {k[:-14]:10} {a[k] - b[k]:8.4f} s {100 * (a[k] - b[k]) / step:6.2f} % of step time")
groups = collections.defaultdict(float)
for k in a:
    if k not in counters:
        groups["compute" if k.startswith(("quire-engine", "quire-team")) else "server"] += (a[k] - b[k]) / 1e9
print(f"CPU of the server's other threads {groups['server']:.4f} s: {1e6 * groups['server'] / max(tokens, 1):.1f} us a token, {100 * groups['server'] / step:.2f} % of step time")
spent = sum(ia[k] - ib[k] for k in ia if k not in counters) / 1e9
print(f"idle: {1e6 * spent:.0f} us of CPU in {idle:.0f} s, {100 * spent / idle:.4f} % of a core")
P
