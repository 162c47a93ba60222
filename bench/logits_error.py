#!/usr/bin/env python3
"""How far each weight format moves the logits of a model: its logits against those of the same model in F32.

    bench/logits_error.py MODEL [--formats bf16,int8,..] [--kv bf16,int8,fp8] [--tokens 48] [--seed 1] [--quire build/quire]

Random token ids.  Per format: the root of the mean square of the logits' differences as part of the logits' own deviation from their row's mean,
the largest difference by the same measure, the rows whose most likely token stays, and the mean Kullback-Leibler divergence in nats.
Plain Python, no packages."""
import argparse
import array
import math
import os
import random
import subprocess
import sys
import tempfile


def logits(quire, model, ids, folder, options):
    path = os.path.join(folder, "l.npy")
    subprocess.run([quire, "score", model, "--token-ids", ",".join(map(str, ids)), "--no-add-special-tokens", "--max-model-len", str(len(ids) + 1),
                    "--packed-cache", "off", "--logits", path, "--json", *options], check=True, stdout=subprocess.DEVNULL)
    with open(path, "rb") as f:
        data = f.read()
    os.unlink(path)
    head = 10 + int.from_bytes(data[8:10], "little")
    values = array.array("f")
    values.frombytes(data[head:])
    n = len(values) // len(ids)
    return [values[i * n:(i + 1) * n] for i in range(len(ids))]


def log_probabilities(row):
    top = max(row)
    total = math.log(math.fsum(math.exp(x - top) for x in row)) + top
    return [x - total for x in row]


def compare(got, want):
    err = size = worst = kl = 0.0
    same = 0
    for a, b in zip(got, want):
        mean = math.fsum(b) / len(b)
        err += math.fsum((x - y) ** 2 for x, y in zip(a, b))
        size += math.fsum((y - mean) ** 2 for y in b)
        worst = max(worst, max(abs(x - y) for x, y in zip(a, b)))
        same += a.index(max(a)) == b.index(max(b))
        kl += math.fsum(math.exp(q) * (q - p) for p, q in zip(log_probabilities(a), log_probabilities(b)))
    deviation = math.sqrt(size / sum(len(b) for b in want))
    return math.sqrt(err / size), worst / deviation, same, kl / len(want)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--formats", default="bf16,f16,int8,int8-g32,int4,int4-g64,int4-g128,fp8")
    p.add_argument("--kv", default="bf16,int8,fp8")
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--quire", default="build/quire")
    a = p.parse_args()
    r = random.Random(a.seed)
    ids = [r.randrange(1000) for _ in range(a.tokens)]
    runs = []
    for f in filter(None, a.formats.split(",")):
        plain = f in ("bf16", "f16")
        runs.append((f, ["--dtype", f] if plain else ["--dtype", "f32", "--quantization", f], "f32"))
    runs += [("f32, KV " + kv, ["--dtype", "f32"], kv) for kv in filter(None, a.kv.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        want = logits(a.quire, a.model, ids, folder, ["--dtype", "f32", "--kv-cache-dtype", "f32"])
        print("| format | relative error | worst | same token | KL, nats |\n|---|---|---|---|---|")
        for name, options, kv in runs:
            rms, worst, same, kl = compare(logits(a.quire, a.model, ids, folder, options + ["--kv-cache-dtype", kv]), want)
            print(f"| {name} | {rms:.2%} | {worst:.3f} | {same} of {len(ids)} | {kl:.2e} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
