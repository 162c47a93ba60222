#!/usr/bin/env python3
"""CPU time a token that the server and the scheduler add, with many concurrent streams of a tiny model.

usage: bench/overhead.py [--streams 256] [--requests 768] [--output-len 128] [--quire build/quire] [-- serve options]

Starts `quire serve` with the built-in model, loads it with `quire bench serve`, and reads from /proc the CPU time of each of the server's threads, and from
/metrics the time in the forward pass and in sampling.  What the model costs is not counted: the team's threads, and of the engine's thread the time in forward and sample."""
import argparse
import collections
import json
import os
import re
import subprocess
import sys
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")


def threads(pid):
    """CPU seconds by thread name."""
    sums = collections.Counter()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
            ns = int(f.read().split()[0])
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="ascii") as f:
            sums[f.read().strip()] += ns / 1e9
    return sums


def metrics(url):
    page = urllib.request.urlopen(url + "/metrics").read().decode()
    names = ("generation_tokens_total", "forward_seconds_total", "sample_seconds_total", "schedule_seconds_total", "steps_total")
    return {n: float(re.search(rf"^quire:{n}{{[^}}]*}} (\S+)$", page, re.M)[1]) for n in names}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--streams", type=int, default=256)
    p.add_argument("--requests", type=int, default=768)
    p.add_argument("--output-len", type=int, default=128)
    p.add_argument("--quire", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "quire"))
    p.add_argument("--limit", type=float, help="fail when a token costs more microseconds")
    p.add_argument("serve", nargs="*")
    o = p.parse_args()
    server = subprocess.Popen([o.quire, "serve", "--port", "0", "--access-log", "off", "--log-level", "warn", *o.serve], stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r" at (http\S+)", server.stdout.readline())[1]
        bench = [o.quire, "bench", "serve", "--base-url", url, "--max-concurrency", str(o.streams), "--random-input-len", "16", "--random-output-len",
                 str(o.output_len), "--ignore-eos", "--json"]
        subprocess.run([*bench, "--num-prompts", str(o.streams)], check=True, stdout=subprocess.DEVNULL)  # warm
        before, counts = threads(server.pid), metrics(url)
        result = json.loads(subprocess.run([*bench, "--num-prompts", str(o.requests)], check=True, stdout=subprocess.PIPE).stdout)
        after = threads(server.pid)
        counts = {k: v - counts[k] for k, v in metrics(url).items()}
    finally:
        server.terminate()
        server.wait()
    cpu = {k: v - before[k] for k, v in after.items()}
    tokens = counts["generation_tokens_total"]
    engine = max(cpu.pop("quire-engine", 0) - counts["forward_seconds_total"] - counts["sample_seconds_total"], counts["schedule_seconds_total"])
    team = sum(v for k, v in cpu.items() if k.startswith("quire-team"))
    served = sum(v for k, v in cpu.items() if not k.startswith("quire-team"))
    per = lambda s: s / tokens * 1e6
    print(f"{o.streams} streams, {tokens:.0f} tokens in {counts['steps_total']:.0f} steps, {result['output_throughput']:.0f} tokens/s")
    for name, s in sorted(cpu.items(), key=lambda kv: -kv[1]):
        if s > 0 and not name.startswith("quire-team"):
            print(f"  {name:16} {per(s):7.2f} us a token")
    print(f"  {'engine, scheduling':16} {per(engine):6.2f} us a token (in steps {per(counts['schedule_seconds_total']):.2f})")
    print(f"  not counted: forward {per(counts['forward_seconds_total']):.2f} and sampling {per(counts['sample_seconds_total']):.2f} on the engine's thread, team {per(team):.2f}")
    total = per(served + engine)
    print(f"server and scheduler: {total:.1f} us of CPU a token")
    if o.limit and total > o.limit:
        sys.exit(f"more than {o.limit} us")


if __name__ == "__main__":
    main()
