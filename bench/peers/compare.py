#!/usr/bin/env python3
"""Runs quire and its peers side by side on this machine and prints the table quire | peer | limit | ratio.

    bench/peers/build_ik.sh; bench/peers/install_nlc.sh        once: the peers
    bench/peers/models.py                                      once: the model
    bench/peers/compare.py [--quick] [--rows REGEX] [--json FILE]

Every round of a row measures the machine (quire devices), quire, the machine again, and the peer, because the speed of shared machines drifts
within minutes; the table has the medians of the rounds.  `limit` is what the machine measured beside quire allows: the larger of the time to
read the weights (and KV) and the time of the arithmetic.  `of limit` compares each engine with the machine as it was just before it, so it can be
trusted where the speed moved; rows whose probes differ by more than a tenth are marked ~.

Only quire and the model are needed: peers that are not there leave their columns empty."""
import argparse
import collections
import json
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
# The model of models.py.
LAYER_WEIGHTS, HEAD_WEIGHTS, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 16 * 60817408, 128256 * 2048, 16, 32, 8, 64

Format = collections.namedtuple("Format", "name quantization gguf peer_args bytes_per_weight rate")
FORMATS = {
    "bf16": Format("bf16", "none", "bf16", ["-rtr", "1"], 2.0, "bf16_gflop_s"),
    "int8": Format("int8", "int8", "q8_0", [], 1.0, "int8_gop_s"),
    # The head too, as the peers' file has it; --quantization int4 alone keeps 8 bits there.
    "int4": Format("int4", "attn=int4,ffn=int4,head=int4", "q4_0", [], 0.5625, "int8_gop_s"),
}


class Failure(Exception):
    pass


# ---- limits, in tokens a second ----

def attention_ops(context, tokens):
    """Of tokens rows that each see about context positions, all layers."""
    return 4.0 * HEADS * HEAD_DIM * LAYERS * context * tokens


def prompt_limit(fmt, tokens):
    def limit(m):
        linear = 2.0 * LAYER_WEIGHTS * tokens / m[fmt.rate]
        return tokens * 1e9 / (linear + attention_ops(tokens / 2, tokens) / m["bf16_gflop_s"])
    return limit


def decode_limit(fmt, batch, context):
    def limit(m):
        kv = 2.0 * 2 * KV_HEADS * HEAD_DIM * LAYERS * context * batch
        memory = (fmt.bytes_per_weight * (LAYER_WEIGHTS + HEAD_WEIGHTS) + kv) / m["read_gb_s"]
        compute = 2.0 * (LAYER_WEIGHTS + HEAD_WEIGHTS) * batch / m[fmt.rate] + attention_ops(context, batch) / m["bf16_gflop_s"]
        return batch * 1e9 / max(memory, compute)
    return limit


# ---- programs ----

class Bench:
    def __init__(self, args):
        self.a = args
        self.prefix = shlex.split(args.prefix)
        self.threads = args.threads or os.cpu_count()

    def command(self, argv, quiet=True, stderr=subprocess.PIPE):
        """Its stdout, and its stderr with stderr=STDOUT.  It runs in a folder of its own: some peers leave log files."""
        argv = (self.prefix if quiet else []) + argv
        with tempfile.TemporaryDirectory() as folder:
            r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace", timeout=self.a.timeout, cwd=folder)
        if r.returncode != 0:
            raise Failure(f"{' '.join(argv)}: {((r.stderr or '').strip() or r.stdout.strip()).splitlines()[-1:] or r.returncode}")
        return r.stdout

    def probe(self):
        return json.loads(self.command([self.a.quire, "devices", "--json"]))["cpu"]

    def quire_flags(self, fmt):
        return ["--quantization", fmt.quantization, "--packed-cache", self.a.packed, "--threads", str(self.a.threads or 0)]

    def latency(self, fmt, prompt, new, batch, iters, quiet=True):
        out = self.command([self.a.quire, "bench", "latency", os.path.join(self.a.models, "hf"), *self.quire_flags(fmt), "--input-len",
                            str(prompt), "--output-len", str(new), "--batch-size", str(batch), "--num-iters", str(iters),
                            "--num-iters-warmup", "1" if prompt * batch <= 4096 else "0", "--json"], quiet)
        return json.loads(out)

    def ik(self, name):
        path = os.path.join(self.a.ik, name)
        return path if os.access(path, os.X_OK) else None

    def gguf(self, fmt):
        return os.path.join(self.a.models, fmt.gguf + ".gguf")

    def llama_bench(self, fmt, tests, repeats, quiet=True):
        tool = self.ik("llama-bench")
        if not tool:
            return None
        out = self.command([tool, "-m", self.gguf(fmt), "-t", str(self.threads), "-fa", "1", *fmt.peer_args, *tests, "-r", str(repeats), "-o",
                            "json"], quiet)
        return statistics.median(json.loads(out[out.index("["):])[-1]["samples_ts"])

    def batched(self, fmt, batch, prompt, new):
        tool = self.ik("llama-batched-bench")
        if not tool:
            return None
        out = self.command([tool, "-m", self.gguf(fmt), "-t", str(self.threads), "-fa", "on", *fmt.peer_args[:1], "-c", str(batch * (prompt + new) + 64),
                            "-b", "2048", "-ub", "512", "-npp", str(prompt), "-ntg", str(new), "-npl", str(batch)], stderr=subprocess.STDOUT)
        rows = [r for r in (re.split(r"\s*\|\s*", line.strip().strip("|").strip()) for line in out.splitlines() if line.startswith("|"))
                if r[0].isdigit()]
        if not rows:
            raise Failure("llama-batched-bench printed no row")
        return float(rows[-1][7])    # PP TG B N_KV T_PP S_PP T_TG S_TG

    def nlc(self, fmt, prompt, new, batch, key):
        if not os.path.isdir(os.path.join(self.a.nlc, "node_modules", "node-llama-cpp")):
            return None
        out = self.command(["node", os.path.join(HERE, "nlc_bench.mjs"), self.a.nlc, self.gguf(fmt), str(prompt), str(new), str(batch),
                            str(self.threads)])
        return json.loads(out.splitlines()[-1])[key]


# ---- servers ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def with_server(argv, port, use):
    """Starts a server, waits for /health, returns use(url)."""
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder)
        try:
            until = time.monotonic() + 300
            while True:
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise Failure(f"{argv[0]} did not start: {log.read()[-300:].decode(errors='replace')}")
                try:
                    with urllib.request.urlopen(url + "/health", timeout=5) as r:
                        if r.status == 200:
                            break
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    time.sleep(0.1)
            return use(url)
        finally:
            stop(process)


def load(b, url, clients, prompts):
    out = b.command([b.a.quire, "bench", "serve", "--base-url", url, "--num-prompts", str(prompts), "--max-concurrency", str(clients),
                     "--random-input-len", "128", "--random-output-len", "64", "--random-vocab", "10000", "--ignore-eos",
                     "--metric-percentiles", "50,99", "--json"], quiet=False)
    r = json.loads(out)
    if r["failed"]:
        raise Failure(f"{r['failed']} of {prompts} requests failed: {r.get('first_error')}")
    return {"output tokens/s": r["output_throughput"], "p99 ITL ms": r["p99_itl_ms"], "median TTFT ms": r["median_ttft_ms"]}


def serve_quire(b, fmt, clients, prompts):
    port = free_port()
    argv = [b.a.quire, "serve", os.path.join(b.a.models, "hf"), "--port", str(port), "--max-model-len", "512", "--max-num-seqs", str(clients),
            "--log-level", "warn", *b.quire_flags(fmt)]
    return with_server(argv, port, lambda url: load(b, url, clients, prompts))


def serve_ik(b, fmt, clients, prompts, slots):
    tool, port = b.ik("llama-server"), free_port()
    if not tool:
        return None
    argv = [tool, "-m", b.gguf(fmt), "--host", "127.0.0.1", "--port", str(port), "-t", str(b.threads), "-fa", "on", *fmt.peer_args[:1],
            "-np", str(slots), "-c", str(slots * 512), "-b", "2048", "-ub", "512"]
    return with_server(argv, port, lambda url: load(b, url, clients, prompts))


# ---- a busy neighbour ----

def while_busy(measure):
    """Another process spins on the last core meanwhile."""
    core = max(os.sched_getaffinity(0))
    spin = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"])
    try:
        time.sleep(0.3)
        return measure()
    finally:
        spin.kill()
        spin.wait()


# ---- rows ----

class Row:
    """quire and the peers are functions that return a number, a dictionary of numbers, or None; a limit is one of the machine's measurements."""

    def __init__(self, name, quire, ik, nlc=None, limit=None, rounds=None):
        self.name, self.quire, self.ik, self.nlc, self.limit, self.rounds = name, quire, ik, nlc, limit, rounds


def one_stream(b, fmt):
    return Row(f"one stream {fmt.name}", lambda: b.latency(fmt, 16, 48, 1, 2)["decode_tok_s"],
               lambda: b.llama_bench(fmt, ["-p", "0", "-n", "48"], 2), lambda: b.nlc(fmt, 16, 32, 1, "decode_tok_s"), decode_limit(fmt, 1, 32))


def prompt(b, fmt, n, iters):
    return Row(f"prompt {n} {fmt.name}", lambda: b.latency(fmt, n, 1, 1, iters)["prefill_tok_s"],
               lambda: b.llama_bench(fmt, ["-p", str(n), "-n", "0"], iters), (lambda: b.nlc(fmt, n, 0, 1, "prefill_tok_s")) if n <= 512 else None,
               prompt_limit(fmt, n))


def batched(b, fmt, n):
    return Row(f"decode x{n} {fmt.name}", lambda: b.latency(fmt, 32, 32, n, 1)["decode_tok_s"], lambda: b.batched(fmt, n, 32, 32), None,
               decode_limit(fmt, n, 48))


def http(b, fmt, clients, prompts, slots):
    return Row(f"http {clients} clients {fmt.name} (peer: {slots} slots)", lambda: serve_quire(b, fmt, clients, prompts),
               lambda: serve_ik(b, fmt, clients, prompts, slots), rounds=1)


def busy(b, fmt):
    """In percent of the quiet rate, measured just before."""
    def kept(measure):
        quiet = measure()
        return None if quiet is None else 100 * while_busy(measure) / quiet
    return Row(f"decode kept beside a busy core {fmt.name}, %", lambda: kept(lambda: b.latency(fmt, 16, 32, 1, 2, False)["decode_tok_s"]),
               lambda: kept(lambda: b.llama_bench(fmt, ["-p", "0", "-n", "32"], 1, False)), rounds=1)


def context(b, fmt, n):
    def quire():
        r = b.latency(fmt, n, 16, 1, 1)
        return {"prompt tokens/s": r["prefill_tok_s"], "decode tokens/s": r["decode_tok_s"]}

    def ik():
        if not b.ik("llama-bench"):
            return None
        return {"prompt tokens/s": b.llama_bench(fmt, ["-p", str(n), "-n", "0"], 1),
                "decode tokens/s": b.llama_bench(fmt, ["-p", "0", "-n", "0", "-gp", f"{n},16"], 1)}
    return Row(f"context {n} {fmt.name}", quire, ik, None, {"prompt tokens/s": prompt_limit(fmt, n), "decode tokens/s": decode_limit(fmt, 1, n + 8)},
               rounds=1)


def all_rows(b, quick):
    f = FORMATS
    rows = [one_stream(b, x) for x in f.values()]
    rows += [prompt(b, x, 512, 2) for x in f.values()]
    rows += [prompt(b, x, 2048, 1) for x in ([f["int8"]] if quick else f.values())]
    for x in f.values():
        rows += [batched(b, x, n) for n in ([8, 32] if quick else [4, 8, 16, 32, 64])]
    rows += [busy(b, f["int8"])]
    rows += [http(b, f["int8"], 32, 64 if quick else 256, 16)]
    rows += [context(b, f["int8"], 8192)]
    if not quick:
        rows += [http(b, f["int8"], 32, 256, 32), http(b, f["bf16"], 32, 128, 16), http(b, f["int4"], 32, 256, 16)]
        rows += [busy(b, f["bf16"]), context(b, f["bf16"], 8192), context(b, f["int8"], 16384)]
    return rows


# ---- running and printing ----

def as_dict(value):
    return value if isinstance(value, dict) else {"": value} if value is not None else {}


def measure(b, row, rounds):
    """{metric: {"quire": [..], "ik": [..], "nlc": [..], "limit": [..], "quire_of_limit": [..], "ik_of_limit": [..]}}, and the probes."""
    result, probes = collections.defaultdict(lambda: collections.defaultdict(list)), []
    for _ in range(row.rounds or rounds):
        for engine in ("quire", "ik", "nlc"):
            fn = getattr(row, engine)
            if not fn:
                continue
            machine = b.probe()
            try:
                values = as_dict(fn())
            except (Failure, subprocess.TimeoutExpired, OSError, ValueError, KeyError, IndexError) as e:
                print(f"{row.name}: {engine}: {e}", file=sys.stderr)
                continue
            if values:
                probes.append(machine["read_gb_s"])
            for metric, value in values.items():
                result[metric][engine].append(value)
                limit = row.limit.get(metric) if isinstance(row.limit, dict) else row.limit
                if limit:
                    result[metric][engine + "_of_limit"].append(100 * value / limit(machine))
                    if engine == "quire":
                        result[metric]["limit"].append(limit(machine))
    return result, probes


def number(v):
    return "" if v is None else f"{v:.1f}"


def summary(name, metric, m, drift):
    med = {k: statistics.median(v) for k, v in m.items() if v}
    quire, ik = med.get("quire"), med.get("ik")
    smaller_is_better = metric.endswith(" ms")
    ratio = None if not quire or not ik else ik / quire if smaller_is_better else quire / ik
    return {"row": name + (": " + metric if metric else ""), "quire": quire, "ik": ik, "nlc": med.get("nlc"), "limit": med.get("limit"),
            "quire_of_limit": med.get("quire_of_limit"), "ik_of_limit": med.get("ik_of_limit"), "ratio": ratio, "drift": drift, "samples": m}


def print_row(s):
    share = ["" if s[k] is None else f"{s[k]:.0f}%" for k in ("quire_of_limit", "ik_of_limit")]
    ratio = "" if s["ratio"] is None else f"{s['ratio']:.2f}"
    print(f"| {s['row']}{' ~' if s['drift'] else ''} | {number(s['quire'])} | {number(s['ik'])} | {number(s['nlc'])} | {number(s['limit'])} | "
          f"{share[0]} | {share[1]} | {ratio} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quire", default="build/quire", help="the program (default %(default)s)")
    p.add_argument("--models", default=os.environ.get("PEERS_MODELS", "build/peers/models"), help="made by models.py; $PEERS_MODELS (default %(default)s)")
    p.add_argument("--ik", default=os.environ.get("PEERS_IK", "build/peers/ik/build/bin"), help="ik_llama.cpp's programs; $PEERS_IK (default %(default)s)")
    p.add_argument("--nlc", default=os.environ.get("PEERS_NLC", "build/peers/nlc"), help="node-llama-cpp's folder; $PEERS_NLC (default %(default)s)")
    p.add_argument("--packed", default=os.environ.get("PEERS_PACKED", "build/peers/packed"), help="quire's packed weights; $PEERS_PACKED (default %(default)s)")
    p.add_argument("--threads", type=int, default=0, help="of each engine (default: all cores)")
    p.add_argument("--rounds", type=int, default=0, help="of each row (default 3, with --quick 1)")
    p.add_argument("--quick", action="store_true", help="a choice of rows, in a few minutes")
    p.add_argument("--rows", default="", metavar="REGEX", help="only rows whose name matches")
    p.add_argument("--list", action="store_true", help="only print the names of the rows")
    p.add_argument("--prefix", default="", metavar="CMD", help="put before each measured command, such as 'chrt -r 5' (not servers)")
    p.add_argument("--timeout", type=float, default=600, metavar="S", help="of each command (default %(default)s)")
    p.add_argument("--json", metavar="FILE", help="also write everything measured")
    a = p.parse_args()
    for path in ("quire", "models", "ik", "nlc", "packed"):
        setattr(a, path, os.path.abspath(getattr(a, path)))
    b = Bench(a)
    rows = [r for r in all_rows(b, a.quick) if re.search(a.rows, r.name)]
    if a.list:
        print("\n".join(r.name for r in rows))
        return 0
    if not os.path.exists(os.path.join(a.models, "hf", "model.safetensors")):
        print(f"compare.py: {a.models} has no model: run models.py first", file=sys.stderr)
        return 1
    os.makedirs(a.packed, exist_ok=True)
    for fmt in {r.name.split()[-1]: f for f in FORMATS.values() for r in rows if f.name in r.name}.values():
        b.latency(fmt, 16, 2, 1, 1)    # packs the weights, if they are not yet
    m = b.probe()
    print(f"{m['model']}, {b.threads} threads, {m['kernels']}: read {m['read_gb_s']:.1f} GB/s, bf16 {m['bf16_gflop_s']:.0f} GFLOP/s, "
          f"int8 {m['int8_gop_s']:.0f} GOP/s now\n")
    print("| tokens/s | quire | ik_llama.cpp | node-llama-cpp | limit | quire of limit | ik of limit | quire / ik |\n|---|---|---|---|---|---|---|---|")
    start, all_results = time.monotonic(), []
    for row in rows:
        result, probes = measure(b, row, a.rounds or (1 if a.quick else 3))
        drift = bool(probes) and max(probes) > 1.1 * min(probes)
        for metric, values in result.items():
            s = summary(row.name, metric, values, drift)
            s["read_gb_s"] = probes
            all_results.append(s)
            print_row(s)
        if a.json:
            with open(a.json, "w", encoding="utf-8") as f:
                json.dump({"machine": m, "rows": all_results}, f, indent=1)
    print(f"\n{time.monotonic() - start:.0f} s")
    return 0 if all_results else 1


if __name__ == "__main__":
    sys.exit(main())
