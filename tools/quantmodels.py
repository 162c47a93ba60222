#!/usr/bin/env python3
"""Writes tests/data/quant: one very small Llama in each quantized format of safetensors checkpoints.

Codes, zeros and scales are random; what they mean is computed here, by the formats' definitions and bit by bit, and
shares nothing with the engine.  Beside each checkpoint lie the logits of the dequantized model (tools/tinymodels.py) and
dequantized.json: the CRC-32 of each linear's values, [rows, cols] little-endian float32.

    tools/quantmodels.py [--check] [NAME ...]       --check: only compare with what is there

No packages are needed."""
import json
import os
import random
import struct
import sys
import zlib

import tinymodels as tiny
from tinymodels import f32

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "quant")
D, FF, V, L = 64, 160, 40, 1
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": V, "hidden_size": D, "intermediate_size": FF,
    "num_hidden_layers": L, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16",
}
LINEARS = [("self_attn.q_proj", D, D), ("self_attn.k_proj", D // 2, D), ("self_attn.v_proj", D // 2, D), ("self_attn.o_proj", D, D),
           ("mlp.gate_proj", FF, D), ("mlp.up_proj", FF, D), ("mlp.down_proj", D, FF)]


# ---- numbers ----

def f16(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def f8_e4m3(b):
    """OCP E4M3: bias 7, no infinity; 0x7f and 0xff are NaN and are not drawn."""
    e, m = b >> 3 & 15, b & 7
    v = m * 2.0 ** -9 if e == 0 else (8 + m) * 2.0 ** (e - 10)
    return -v if b & 128 else v


def floats(values, dtype):
    if dtype == "F32":
        return struct.pack(f"<{len(values)}f", *values)
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    return b"".join(struct.pack("<f", v)[2:] for v in values)      # BF16: exact already


def words(values, bits):
    """Consecutive values, low bits first, in words of 32 bits; a value may lie in two words."""
    total = sum(v << bits * i for i, v in enumerate(values))
    assert len(values) * bits % 32 == 0
    return [total >> 32 * i & 0xFFFFFFFF for i in range(len(values) * bits // 32)]


def words_whole(values, bits):
    """As many whole values as fit in each word."""
    per = 32 // bits
    return [sum(v << bits * i for i, v in enumerate(values[at:at + per])) for at in range(0, len(values), per)]


def u32(rows):
    return b"".join(struct.pack(f"<{len(r)}I", *r) for r in rows)


def transpose(rows):
    return [list(r) for r in zip(*rows)]


class Draw:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def codes(self, n, bits):
        return [self.r.randrange(1 << bits) for _ in range(n)]

    def scale(self, cols, bits, dtype):
        """So that values have a spread of about 1.3 / sqrt(cols)."""
        s = self.r.uniform(0.6, 1.4) * 1.3 / cols ** 0.5 / (2 ** bits / 12 ** 0.5)
        return {"F16": f16, "BF16": tiny.bf16, "F32": f32}[dtype](s)

    def zero(self, bits):
        return min(max((1 << bits - 1) + self.r.choice([-2, -1, 0, 1]), 0), (1 << bits) - 1)


# ---- formats: (draw, rows, cols) -> ({suffix: (dtype, shape, bytes)}, values) ----

def integers(N, K, q, z, s, group_of):
    return [f32(s[n][group_of[k]] * (q[n][k] - z[n][group_of[k]])) for n in range(N) for k in range(K)]


def gptq(bits, group, sym=False, act_order=False, v2=False, bias=False):
    def make(d, N, K):
        size = K if group < 0 else group
        G = K // size
        idx = [k // size for k in range(K)]
        if act_order:
            d.r.shuffle(idx)
        q = [d.codes(K, bits) for _ in range(N)]
        z = [[1 << bits - 1 if sym else d.zero(bits) for _ in range(G)] for _ in range(N)]
        s = [[d.scale(K, bits, "F16") for _ in range(G)] for _ in range(N)]
        qweight = transpose([words(r, bits) for r in q])
        stored = [[(z[n][g] - (not v2)) % (1 << bits) for n in range(N)] for g in range(G)]
        out = {"qweight": ("I32", [K * bits // 32, N], u32(qweight)), "qzeros": ("I32", [G, N * bits // 32], u32([words(r, bits) for r in stored])),
               "scales": ("F16", [G, N], floats([s[n][g] for g in range(G) for n in range(N)], "F16")),
               "g_idx": ("I32", [K], struct.pack(f"<{K}i", *idx))}
        if bias:
            out["bias"] = ("F16", [N], bytes(2 * N))
        return out, integers(N, K, q, z, s, idx)
    return make


def awq(group):
    order = (0, 2, 4, 6, 1, 3, 5, 7)

    def pack(row):
        return [sum(row[8 * j + order[i]] << 4 * i for i in range(8)) for j in range(len(row) // 8)]

    def make(d, N, K):
        G = K // group
        q = [d.codes(K, 4) for _ in range(N)]
        z = [[d.zero(4) for _ in range(G)] for _ in range(N)]
        s = [[d.scale(K, 4, "F16") for _ in range(G)] for _ in range(N)]
        return ({"qweight": ("I32", [K, N // 8], u32([pack(r) for r in transpose(q)])),
                 "qzeros": ("I32", [G, N // 8], u32([pack(r) for r in transpose(z)])),
                 "scales": ("F16", [G, N], floats([s[n][g] for g in range(G) for n in range(N)], "F16"))},
                integers(N, K, q, z, s, [k // group for k in range(K)]))
    return make


def ct_packed(bits, group, sym, act_order=False):
    def make(d, N, K):
        size = K if group < 0 else group
        G = K // size
        idx = [k // size for k in range(K)]
        if act_order:
            d.r.shuffle(idx)
        q = [d.codes(K, bits) for _ in range(N)]
        z = [[1 << bits - 1 if sym else d.zero(bits) for _ in range(G)] for _ in range(N)]
        s = [[d.scale(K, bits, "BF16") for _ in range(G)] for _ in range(N)]
        rows = [words_whole(r, bits) for r in q]
        out = {"weight_packed": ("I32", [N, len(rows[0])], u32(rows)), "weight_shape": ("I64", [2], struct.pack("<qq", N, K)),
               "weight_scale": ("BF16", [N, G], floats([v for r in s for v in r], "BF16"))}
        if not sym:
            zeros = transpose([words_whole(c, bits) for c in transpose(z)])
            out["weight_zero_point"] = ("I32", [len(zeros), G], u32(zeros))
        if act_order:
            out["weight_g_idx"] = ("I32", [K], struct.pack(f"<{K}i", *idx))
        return out, integers(N, K, q, z, s, idx)
    return make


def ct_int8(strategy, sym=True, static=False):
    def make(d, N, K):
        n = N if strategy == "channel" else 1
        q = [d.codes(K, 8) for _ in range(N)]
        z = [128 if sym else d.zero(8) for _ in range(n)]
        s = [d.scale(K, 8, "F32") for _ in range(n)]
        out = {"weight": ("I8", [N, K], bytes(v ^ 128 for r in q for v in r)), "weight_scale": ("F32", [N, 1] if n == N else [1], floats(s, "F32"))}
        if not sym:
            out["weight_zero_point"] = ("I8", [N, 1] if n == N else [1], struct.pack(f"<{n}b", *(v - 128 for v in z)))
        if static:
            out["input_scale"] = ("F32", [1], floats([0.05], "F32"))
        return out, integers(N, K, q, [[z[i % n]] for i in range(N)], [[s[i % n]] for i in range(N)], [0] * K)
    return make


def fp8(block=None, rows=False, name="weight_scale", static=False):
    def make(d, N, K):
        b = [d.r.choice([v for v in range(256) if v & 127 <= 0x70]) for _ in range(N * K)]
        br, bc = block or (1 if rows else N, K)
        shape = [-(-N // br), -(-K // bc)]
        s = [f32(d.r.uniform(0.6, 1.4) * 1.3 / K ** 0.5 / 20) for _ in range(shape[0] * shape[1])]
        values = [f32(f8_e4m3(b[n * K + k]) * s[n // br * shape[1] + k // bc]) for n in range(N) for k in range(K)]
        out = {"weight": ("F8_E4M3", [N, K], bytes(b)), name: ("F32", shape if block or rows else [], floats(s, "F32"))}
        if static:
            out["input_scale"] = ("F32", [], floats([0.02], "F32"))
        return out, values
    return make


NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
       0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]


def nf4(double):
    def make(d, N, K):
        q, block, nested = d.codes(N * K, 4), 64, 32
        n = -(-N * K // block)
        state = {"quant_type": "nf4", "blocksize": block, "dtype": "float16", "shape": [N, K]}
        out = {"weight": ("U8", [N * K // 2, 1], bytes(q[i] << 4 | q[i + 1] for i in range(0, N * K, 2))), "weight.quant_map": ("F32", [16], floats(NF4, "F32"))}
        if double:
            table = sorted(f32(d.r.uniform(-1, 1)) for _ in range(256))
            codes = d.codes(n, 8)
            outer = [f32(d.r.uniform(0.02, 0.06)) for _ in range(-(-n // nested))]
            offset = f32(1.3 / K ** 0.5 * 2.2)
            absmax = [f32(f32(table[c] * outer[i // nested]) + offset) for i, c in enumerate(codes)]
            out["weight.absmax"] = ("U8", [n], bytes(codes))
            out["weight.nested_absmax"] = ("F32", [len(outer)], floats(outer, "F32"))
            out["weight.nested_quant_map"] = ("F32", [256], floats(table, "F32"))
            state.update(nested_blocksize=nested, nested_dtype="float32", nested_offset=offset)
        else:
            absmax = [f32(d.r.uniform(0.6, 1.4) * 1.3 / K ** 0.5 * 2.2) for _ in range(n)]
            out["weight.absmax"] = ("F32", [n], floats(absmax, "F32"))
        text = json.dumps(state).encode()
        out["weight.quant_state.bitsandbytes__nf4"] = ("U8", [len(text)], text)
        return out, [f32(f32(NF4[c]) * absmax[i // block]) for i, c in enumerate(q)]
    return make


def int8_rows(d, N, K):
    q = [d.codes(K, 8) for _ in range(N)]
    scb = [f32(d.r.uniform(0.6, 1.4) * 1.3 / K ** 0.5 * 1.7) for _ in range(N)]
    s = [[f32(v * f32(1 / 127))] for v in scb]
    return ({"weight": ("I8", [N, K], bytes(v ^ 128 for r in q for v in r)), "SCB": ("F32", [N], floats(scb, "F32")), "weight_format": ("U8", [], b"\0")},
            integers(N, K, q, [[128]] * N, s, [0] * K))


# ---- models ----

def compressed(fmt, weights, ignore, inputs=None, **more):
    return {"quant_method": "compressed-tensors", "format": fmt, "ignore": ignore, "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}}, **more}


def weights(bits, kind="int", strategy="channel", group=None, **more):
    return {"num_bits": bits, "type": kind, "symmetric": True, "strategy": strategy, "group_size": group, **{"dynamic": False, **more}}


def gptq_config(bits, group, **more):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": False, **more}


# name -> (format, quantization config, file that says it, linears that stay as they are)
MODELS = {
    "gptq-4bit": (gptq(4, 32, sym=True, bias=True), gptq_config(4, 32, sym=True), "config.json", []),
    "gptq-3bit-asym": (gptq(3, 32), gptq_config(3, 32, checkpoint_format="gptq"), "config.json", []),
    "gptq-2bit-v2": (gptq(2, 16, v2=True), gptq_config(2, 16, checkpoint_format="gptq_v2"), "config.json", []),
    "gptq-8bit-rows": (gptq(8, -1), {"bits": 8, "group_size": -1, "desc_act": False, "sym": False}, "quantize_config.json", ["mlp.down_proj"]),
    "gptq-4bit-actorder": (gptq(4, 32, act_order=True), gptq_config(4, 32, desc_act=True), "config.json", []),
    "awq": (awq(32), {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
                      "modules_to_not_convert": ["o_proj"]}, "config.json", ["self_attn.o_proj"]),
    "awq-old": (awq(16), {"w_bit": 4, "q_group_size": 16, "zero_point": True, "version": "GEMM"}, "quant_config.json", []),
    "ct-int4-group": (ct_packed(4, 32, False), compressed("pack-quantized", weights(4, strategy="group", group=32, symmetric=False), ["lm_head"]), "config.json", []),
    "ct-int4-actorder": (ct_packed(4, 16, True, True), compressed("pack-quantized", weights(4, strategy="group", group=16, actorder="group"), ["lm_head"]),
                         "config.json", []),
    "ct-int8-packed": (ct_packed(8, -1, True), compressed("pack-quantized", weights(8), ["lm_head", "re:.*down_proj"]), "config.json", ["mlp.down_proj"]),
    "ct-w8a8": (ct_int8("channel"), compressed("int-quantized", weights(8), ["lm_head"], inputs=weights(8, strategy="token", dynamic=True)), "config.json", []),
    "ct-w8a8-tensor-asym": (ct_int8("tensor", False, True), compressed("int-quantized", weights(8, strategy="tensor", symmetric=False), ["lm_head"]),
                            "config.json", []),
    "ct-fp8": (fp8(rows=True), compressed("float-quantized", weights(8, "float"), ["lm_head"]), "config.json", []),
    "ct-fp8-tensor": (fp8(static=True), compressed("float-quantized", weights(8, "float", "tensor"), ["lm_head"]), "config.json", []),
    "fp8": (fp8(static=True), {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["model.layers.0.self_attn.o_proj"]},
            "config.json", ["self_attn.o_proj"]),
    "fp8-block": (fp8(block=(64, 64), name="weight_scale_inv"), {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 64]},
                  "config.json", []),
    "fp8-block128": (fp8(block=(128, 128), name="weight_scale_inv"), {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
                     "config.json", []),
    "bnb-nf4": (nf4(False), {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "config.json", []),
    "bnb-nf4-double": (nf4(True), {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
                                   "llm_int8_skip_modules": ["lm_head"]}, "config.json", []),
    "bnb-int8": (int8_rows, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "config.json", []),
}


def forward(c, p, ids):
    return tiny.llama_like(c, p, ids)


def build(name):
    make, quant, where, plain = MODELS[name]
    config = dict(CONFIG)
    if where == "config.json":
        config["quantization_config"] = quant
    for seed in range(1, 100):
        d = Draw(zlib.crc32(name.encode()) + seed)
        stored, dense = {}, tiny.Params(seed)
        for i in range(L):
            for linear, N, K in LINEARS:
                module = f"model.layers.{i}.{linear}"
                if linear in plain:
                    continue
                raw, values = make(d, N, K)
                stored.update({f"{module}.{k}": v for k, v in raw.items()})
                dense.tensors[f"{module}.weight"] = ([N, K], values, "F32")
        made = greedy(config, dense, seed)
        if made:
            break
    ids, logits = made
    quantized = {f"model.layers.{i}.{linear}.weight" for i in range(L) for linear, _, _ in LINEARS if linear not in plain}
    kinds = {"model.embed_tokens.weight": "F16", "lm_head.weight": "BF16"}
    for n, (shape, values, dtype) in dense.tensors.items():
        if n not in quantized:
            kind = kinds.get(n, dtype)
            stored[n] = (kind, shape, floats(values, kind))
    crc = {n[:-len(".weight")]: zlib.crc32(floats(dense.tensors[n][1], "F32")) for n in sorted(quantized)}
    golden = {"input_ids": ids[:tiny.N_PROMPT], "greedy_ids": ids[tiny.N_PROMPT:], "seed": seed, "made_by": "tools/quantmodels.py"}
    files = {"config.json": text(config), "model.safetensors": safetensors(stored), "golden.json": (json.dumps(golden) + "\n").encode(),
             "golden_logits.npy": tiny.npy(logits), "dequantized.json": text(crc)}
    if where != "config.json":
        files[where] = text(quant)
    return files


def greedy(config, p, seed):
    rng = random.Random(seed + 1)
    ids = [rng.randrange(V) for _ in range(tiny.N_PROMPT)]
    total = tiny.N_PROMPT + tiny.N_GREEDY
    while len(ids) < total:
        last = forward(config, p, ids + [0] * (total - len(ids)))[len(ids) - 1]
        order = sorted(range(V), key=lambda i: -last[i])
        if last[order[0]] - last[order[1]] < 5e-3:
            return None
        ids.append(order[0])
    return ids, forward(config, p, ids)


def text(j):
    return (json.dumps(j, indent=1) + "\n").encode()


def safetensors(tensors):
    header, data = {}, bytearray()
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(data)


def main():
    args = sys.argv[1:]
    check = "--check" in args
    names = [a for a in args if not a.startswith("-")] or list(MODELS)
    bad = 0
    for name in names:
        folder = os.path.join(ROOT, name)
        os.makedirs(folder, exist_ok=True)
        for file, data in build(name).items():
            path = os.path.join(folder, file)
            if check:
                if open(path, "rb").read() != data:
                    print(f"{name}/{file} differs")
                    bad = 1
            else:
                with open(path, "wb") as f:
                    f.write(data)
        print(name)
    return bad


if __name__ == "__main__":
    sys.exit(main())
