#!/usr/bin/env python3
"""Writes tests/data/tiny: one very small random model an architecture, with its logits.

Each model is a Hugging Face folder (config.json, model.safetensors) plus golden.json (prompt and greedy
tokens) and golden_logits.npy: row i = logits after the tokens 0..i.  The logits are computed here in
float64 by plain Python written from the architectures' published definitions; nothing is shared with the
engine.  Only the rotary frequencies and angles are rounded to float32, because the published
implementations hold them so and a checkpoint means exactly those.

    tools/tinymodels.py [--check] [NAME ...]       --check: only compare with what is there

No packages are needed.  A run of all takes half a minute; another C library may round a last digit otherwise."""
import json
import math
import os
import random
import struct
import sys
import zlib
from operator import mul

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "tiny")
N_PROMPT, N_GREEDY = 10, 14


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bf16(x):
    u = struct.unpack("<I", struct.pack("<f", x))[0]
    u = (u + 0x7FFF + (u >> 16 & 1)) & 0xFFFF0000
    return struct.unpack("<f", struct.pack("<I", u))[0]


# ---- parameters: made when first asked for, from a generator seeded by the name ----

class Params:
    def __init__(self, seed):
        self.seed = seed
        self.tensors = {}  # name -> (shape, flat values, type)

    def _make(self, name, shape, mean, std, dtype):
        if name not in self.tensors:
            rng = random.Random(zlib.crc32(name.encode()) ^ self.seed << 32)
            n = math.prod(shape)
            self.tensors[name] = (list(shape), [bf16(mean + std * rng.gauss(0, 1)) for _ in range(n)], dtype)
        have = self.tensors[name]
        assert have[0] == list(shape), (name, have[0], shape)
        return have[1]

    def matrix(self, name, rows, cols, fan_in=None):
        flat = self._make(name, (rows, cols), 0.0, 1.3 / math.sqrt(fan_in or cols), "BF16")
        return [flat[r * cols:(r + 1) * cols] for r in range(rows)]

    def weight(self, name, n, mean=1.0, shape=None):
        return self._make(name + ".weight", shape or (n,), mean, 0.2, "F32")

    def bias(self, name, n):
        return self._make(name + ".bias", (n,), 0.0, 0.2, "F32")


class Linear:
    """y = W x + b, W [rows, cols]; conv: stored [cols, rows]."""

    def __init__(self, p, name, rows, cols, bias=False, conv=False):
        w = p.matrix(name + ".weight", cols, rows, cols) if conv else p.matrix(name + ".weight", rows, cols)
        self.w = [list(r) for r in zip(*w)] if conv else w
        self.b = p.bias(name, rows) if bias else [0.0] * rows

    def __call__(self, x):
        return [sum(map(mul, r, x)) + b for r, b in zip(self.w, self.b)]


class Rms:
    def __init__(self, p, name, n, eps, plus=0.0):
        self.w, self.eps, self.plus = p.weight(name, n, 1.0 - plus), eps, plus

    def __call__(self, x):
        s = 1.0 / math.sqrt(sum(v * v for v in x) / len(x) + self.eps)
        return [v * s * (w + self.plus) for v, w in zip(x, self.w)]


class LayerNorm:
    def __init__(self, p, name, n, eps, bias=True):
        self.w, self.eps = p.weight(name, n), eps
        self.b = p.bias(name, n) if bias else [0.0] * n

    def __call__(self, x):
        m = sum(x) / len(x)
        s = 1.0 / math.sqrt(sum((v - m) ** 2 for v in x) / len(x) + self.eps)
        return [(v - m) * s * w + b for v, w, b in zip(x, self.w, self.b)]


def silu(x):
    return x / (1.0 + math.exp(-x))


def gelu(x):
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def gelu_tanh(x):
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x ** 3)))


def add(a, b, scale=1.0):
    return [x + scale * y for x, y in zip(a, b)]


def split(x, *sizes):
    out, at = [], 0
    for n in sizes:
        out.append(x[at:at + n])
        at += n
    assert at == len(x)
    return out


def heads(x, n):
    d = len(x) // n
    return [x[i * d:(i + 1) * d] for i in range(n)]


# ---- positions ----

def inv_freq(dim, theta, scaling=None, length=0, max_len=0):
    """Frequencies and the factor on cos and sin."""
    scaling = scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "dynamic":
        n = max(length, max_len)
        theta = theta * ((scaling["factor"] * n / max_len) - (scaling["factor"] - 1)) ** (dim / (dim - 2))
    freqs = [f32(theta ** f32(2 * i / dim)) for i in range(dim // 2)]
    inv = [f32(1.0 / f) for f in freqs]
    if kind in ("default", "dynamic"):
        return inv, 1.0
    if kind == "linear":
        return [f32(f / scaling["factor"]) for f in inv], 1.0
    if kind == "llama3":
        orig, out = scaling["original_max_position_embeddings"], []
        for f in inv:
            wave = f32(2 * math.pi / f)
            if wave < orig / scaling["high_freq_factor"]:
                out.append(f)
            elif wave > orig / scaling["low_freq_factor"]:
                out.append(f32(f / scaling["factor"]))
            else:
                s = (orig / wave - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
                out.append(f32((1 - s) * f / scaling["factor"] + s * f))
        return out, 1.0
    if kind == "yarn":
        orig, factor = scaling["original_max_position_embeddings"], scaling["factor"]

        def turn_dim(turns):
            return dim * math.log(orig / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low = max(math.floor(turn_dim(scaling.get("beta_fast", 32))), 0)
        high = min(math.ceil(turn_dim(scaling.get("beta_slow", 1))), dim - 1)
        high = high + 0.001 if low == high else high
        out = []
        for i, f in enumerate(inv):
            ramp = min(max((i - low) / (high - low), 0.0), 1.0)
            out.append(f32(f / factor * ramp + f * (1 - ramp)))
        return out, scaling.get("attention_factor", 0.1 * math.log(factor) + 1.0)
    if kind == "longrope":
        orig = scaling["original_max_position_embeddings"]
        by = scaling["long_factor"] if length > orig else scaling["short_factor"]
        return [f32(1.0 / (b * f)) for b, f in zip(by, freqs)], math.sqrt(1 + math.log(max_len / orig) / math.log(orig))
    raise ValueError(kind)


class Rope:
    def __init__(self, dim, theta, scaling=None, length=0, max_len=0, pairs=False):
        self.dim, self.pairs = dim, pairs
        self.inv, self.factor = inv_freq(dim, theta, scaling, length, max_len)

    def __call__(self, x, pos):
        half, out = self.dim // 2, list(x)
        for i in range(half):
            angle = f32(pos * self.inv[i])
            c, s = math.cos(angle) * self.factor, math.sin(angle) * self.factor
            a, b = (2 * i, 2 * i + 1) if self.pairs else (i, i + half)
            out[a], out[b] = x[a] * c - x[b] * s, x[b] * c + x[a] * s
        return out


def slopes(n):
    """ALiBi: the series of the power of two below, then every other of the next."""
    near = 2 ** math.floor(math.log2(n))
    base = 2.0 ** (-(2.0 ** -(math.log2(near) - 3)))
    out = [base ** (i + 1) for i in range(near)]
    base = 2.0 ** (-(2.0 ** -(math.log2(2 * near) - 3)))
    return out + [base ** (2 * i + 1) for i in range(n - near)]


def attend(q, k, v, scale, window=0, cap=0.0, bias=None, bias_scale=1.0):
    """q [T][H][d], k and v [T][Hk][d] -> [T][H*d]; causal."""
    group, out = len(q[0]) // len(k[0]), []
    for t, row in enumerate(q):
        y = []
        for h, qh in enumerate(row):
            first = max(0, t - window + 1) if window else 0
            scores = [sum(map(mul, qh, k[j][h // group])) * scale for j in range(first, t + 1)]
            if cap:
                scores = [cap * math.tanh(s / cap) for s in scores]
            if bias:
                scores = [s + bias[h] * bias_scale * j for s, j in zip(scores, range(first, t + 1))]
            top = max(scores)
            e = [math.exp(s - top) for s in scores]
            total = sum(e)
            y += [sum(p * v[first + j][h // group][i] for j, p in enumerate(e)) / total for i in range(len(v[0][0]))]
        out.append(y)
    return out


# ---- the family of Llama ----

def llama_like(c, p, ids, norm=Rms, eps="rms_norm_eps", act=silu, window=lambda i: 0, ropes=None, layer_rope=lambda i: 0, scale=None, cap=0.0,
               final_cap=0.0, embed=1.0, residual=1.0, logit=1.0, qkv_bias=False, o_bias=False, mlp_bias=False, qk=None, post="", parallel=False,
               fused=False, plain="", moe=None, prefix="model.", rotary=1.0, pairs=False):
    D, H, L, F, V = c["hidden_size"], c["num_attention_heads"], c["num_hidden_layers"], c["intermediate_size"], c["vocab_size"]
    K, d, e = c.get("num_key_value_heads", H), c.get("head_dim") or D // H, c[eps]
    table = p.matrix(prefix + "embed_tokens.weight", V, D)
    ropes = ropes or [Rope(int(d * rotary), c["rope_theta"], c.get("rope_scaling"), len(ids), c.get("max_position_embeddings", 0), pairs)]
    X = [[v * embed for v in table[t]] for t in ids]
    T = range(len(ids))
    for i in range(L):
        n = f"{prefix}layers.{i}."
        before = post != "only"
        A = [norm(p, n + "input_layernorm", D, e)(x) for x in X] if before else X
        if fused:
            both = Linear(p, n + "self_attn.qkv_proj", (H + 2 * K) * d, D)
            q, k, v = zip(*[split(both(a), H * d, K * d, K * d) for a in A])
        else:
            q, k, v = ([Linear(p, f"{n}self_attn.{s}_proj", w * d, D, qkv_bias)(a) for a in A] for s, w in (("q", H), ("k", K), ("v", K)))
        if qk == "row":
            q = [Rms(p, n + "self_attn.q_norm", H * d, e)(x) for x in q]
            k = [Rms(p, n + "self_attn.k_norm", K * d, e)(x) for x in k]
        q, k, v = ([heads(x, w) for x in s] for s, w in ((q, H), (k, K), (v, K)))
        if qk and qk != "row":
            q = [[qk(p, n, "q", h, H, d, e)(y) for h, y in enumerate(x)] for x in q]
            k = [[qk(p, n, "k", h, K, d, e)(y) for h, y in enumerate(x)] for x in k]
        r = layer_rope(i)
        if r is not None:
            q, k = ([[ropes[r](y, t) for y in x] for t, x in enumerate(s)] for s in (q, k))
        a = attend(q, k, v, scale or d ** -0.5, window(i), cap)
        o = [Linear(p, n + "self_attn.o_proj", D, H * d, o_bias)(x) for x in a]
        if post:
            o = [norm(p, n + "post_attention_layernorm", D, e)(x) for x in o]
        if parallel:
            B, X = A, [add(x, y, residual) for x, y in zip(X, o)]
        else:
            X = [add(x, y, residual) for x, y in zip(X, o)]
            name = {"": "post_attention_layernorm", "both": "pre_feedforward_layernorm", "only": None}[post]
            B = [norm(p, n + name, D, e)(x) for x in X] if name else X
        if moe and moe(i):
            m = [moe(i)(c, p, n, b) for b in B]
        elif plain:
            up, down = Linear(p, n + "mlp.c_fc", F, D, mlp_bias), Linear(p, n + "mlp.c_proj", D, F, mlp_bias)
            m = [down([act(x) for x in up(b)]) for b in B]
        else:
            if fused:
                both = Linear(p, n + "mlp.gate_up_proj", 2 * F, D)
                gu = [split(both(b), F, F) for b in B]
            else:
                gate, up = (Linear(p, f"{n}mlp.{s}_proj", F, D, mlp_bias) for s in ("gate", "up"))
                gu = [(gate(b), up(b)) for b in B]
            down = Linear(p, n + "mlp.down_proj", D, F, mlp_bias)
            m = [down([act(x) * y for x, y in zip(g, u)]) for g, u in gu]
        if post:
            m = [norm(p, n + "post_feedforward_layernorm", D, e)(x) for x in m]
        X = [add(x, y, residual) for x, y in zip(X, m)]
    X = [norm(p, prefix + "norm", D, e)(x) for x in X]
    head = table if c["tie_word_embeddings"] else p.matrix("lm_head.weight", V, D)
    out = [[logit * sum(map(mul, r, x)) for r in head] for x in X]
    return [[final_cap * math.tanh(y / final_cap) for y in r] for r in out] if final_cap else out


def base(name, **more):
    c = {"architectures": [name], "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
         "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
    c.update(more)
    return c


def no_bias_norm(p, name, n, eps):
    return LayerNorm(p, name, n, eps, bias=False)


def plus_one(p, name, n, eps):
    return Rms(p, name, n, eps, 1.0)


MODELS = {}


def model(name, config):
    def put(f):
        MODELS[name] = (config, f)
        return f
    return put


def simple(name, config, **options):
    MODELS[name] = (config, lambda c, p, ids: llama_like(c, p, ids, **options))


simple("llama", base("LlamaForCausalLM", model_type="llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
       qkv_bias=True, o_bias=True, mlp_bias=True)
simple("llama-llama3", base("LlamaForCausalLM", rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                                "original_max_position_embeddings": 32}, head_dim=16))
simple("llama-dynamic", base("LlamaForCausalLM", max_position_embeddings=16, rope_scaling={"type": "dynamic", "factor": 2.0}))
simple("llama-yarn", base("LlamaForCausalLM", max_position_embeddings=64, head_dim=16, rope_theta=500.0,
                          rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0}))
simple("mistral", base("MistralForCausalLM", head_dim=12, sliding_window=6), window=lambda i: 6)
simple("qwen2", base("Qwen2ForCausalLM", use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True),
       qkv_bias=True, window=lambda i: 5 if i >= 1 else 0)
simple("qwen3", base("Qwen3ForCausalLM", head_dim=16),
       qk=lambda p, n, s, h, nh, d, e: Rms(p, f"{n}self_attn.{s}_norm", d, e))
simple("gemma", base("GemmaForCausalLM", head_dim=16, num_key_value_heads=1, hidden_act="gelu", tie_word_embeddings=True),
       norm=plus_one, act=gelu_tanh, embed=f32(math.sqrt(32)))
simple("gemma2", base("Gemma2ForCausalLM", head_dim=16, hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
                      final_logit_softcapping=3.0, sliding_window=6, num_hidden_layers=3, tie_word_embeddings=True),
       norm=plus_one, act=gelu_tanh, embed=math.sqrt(32), scale=24 ** -0.5, cap=5.0, final_cap=3.0, post="both", window=lambda i: 6 if i % 2 == 0 else 0)
MODELS["gemma3"] = (
    base("Gemma3ForCausalLM", head_dim=16, query_pre_attn_scalar=20, sliding_window=5, sliding_window_pattern=3, num_hidden_layers=4,
         rope_local_base_freq=100.0, rope_theta=1000.0, rope_scaling={"rope_type": "linear", "factor": 8.0}, tie_word_embeddings=True),
    lambda c, p, ids: llama_like(c, p, ids, norm=plus_one, act=gelu_tanh, embed=math.sqrt(32), scale=20 ** -0.5, post="both",
                                 window=lambda i: 0 if (i + 1) % 3 == 0 else 5, layer_rope=lambda i: 0 if (i + 1) % 3 == 0 else 1,
                                 ropes=[Rope(16, 1000.0, c["rope_scaling"]), Rope(16, 100.0)],
                                 qk=lambda p, n, s, h, nh, d, e: Rms(p, f"{n}self_attn.{s}_norm", d, e, 1.0)))
simple("phi3", base("Phi3ForCausalLM", sliding_window=7, partial_rotary_factor=0.5, original_max_position_embeddings=64), fused=True, rotary=0.5,
       window=lambda i: 7)
for _name, _orig in (("phi3-longrope-long", 16), ("phi3-longrope-short", 32)):
    _s = {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.8], "long_factor": [1.5, 2.0, 4.0, 9.0]}
    _c = base("Phi3ForCausalLM", original_max_position_embeddings=_orig, max_position_embeddings=128, rope_scaling=_s)
    MODELS[_name] = (_c, lambda c, p, ids: llama_like(c, p, ids, fused=True, ropes=[
        Rope(8, 10000.0, dict(c["rope_scaling"], original_max_position_embeddings=c["original_max_position_embeddings"]), len(ids), 128)]))
simple("starcoder2", base("Starcoder2ForCausalLM", norm_epsilon=1e-5, hidden_act="gelu_pytorch_tanh", use_bias=True, sliding_window=6, tie_word_embeddings=True),
       norm=LayerNorm, eps="norm_epsilon", act=gelu_tanh, qkv_bias=True, o_bias=True, mlp_bias=True, plain="c", window=lambda i: 6)
simple("olmo2", base("Olmo2ForCausalLM"), qk="row", post="only")
simple("granite", base("GraniteForCausalLM", embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.3, logits_scaling=0.7,
                       tie_word_embeddings=True), embed=3.0, residual=0.5, scale=0.3, logit=1 / 0.7)
simple("cohere", base("CohereForCausalLM", layer_norm_eps=1e-5, logit_scale=0.8, use_qk_norm=True, tie_word_embeddings=True), norm=no_bias_norm,
       eps="layer_norm_eps", parallel=True, pairs=True, logit=0.8,
       qk=lambda p, n, s, h, nh, d, e: HeadNorm(p, f"{n}self_attn.{s}_norm", h, nh, d, e))
simple("cohere2", base("Cohere2ForCausalLM", layer_norm_eps=1e-5, logit_scale=0.9, sliding_window=6, sliding_window_pattern=2, tie_word_embeddings=True),
       norm=no_bias_norm, eps="layer_norm_eps", parallel=True, pairs=True, logit=0.9, window=lambda i: 6 if i % 2 == 0 else 0,
       layer_rope=lambda i: 0 if i % 2 == 0 else None)
simple("stablelm", base("StableLmForCausalLM", layer_norm_eps=1e-5, use_qkv_bias=True, partial_rotary_factor=0.25), norm=LayerNorm, eps="layer_norm_eps",
       qkv_bias=True, rotary=0.25)
simple("stablelm-12b", base("StableLmForCausalLM", layer_norm_eps=1e-5, use_parallel_residual=True, qk_layernorm=True, partial_rotary_factor=0.5),
       norm=LayerNorm, eps="layer_norm_eps", rotary=0.5, parallel=True,
       qk=lambda p, n, s, h, nh, d, e: LayerNorm(p, f"{n}self_attn.{s}_layernorm.norms.{h}", d, e, bias=False))
simple("smollm3", base("SmolLM3ForCausalLM", num_hidden_layers=3, no_rope_layers=[1, 0, 1], tie_word_embeddings=True),
       layer_rope=lambda i: None if i == 1 else 0)


# ---- mixtures of experts ----

def swiglu(p, gate, up, down, F, D):
    g, u, d = Linear(p, gate, F, D), Linear(p, up, F, D), Linear(p, down, D, F)
    return lambda x: d([silu(a) * b for a, b in zip(g(x), u(x))])


def experts(p, router, expert, E, k, renormalize, x):
    """Softmax over all, the k largest, their outputs weighted."""
    logits = Linear(p, router, E, len(x))(x)
    top = max(logits)
    e = [math.exp(v - top) for v in logits]
    probs = [v / sum(e) for v in e]
    chosen = sorted(range(E), key=lambda i: -probs[i])[:k]
    total = sum(probs[i] for i in chosen) if renormalize else 1.0
    y = [0.0] * len(x)
    for i in chosen:
        y = add(y, expert(i)(x), probs[i] / total)
    return y


def mixtral_moe(c, p, n, x):
    b = n + "block_sparse_moe."
    return experts(p, b + "gate", lambda i: swiglu(p, f"{b}experts.{i}.w1", f"{b}experts.{i}.w3", f"{b}experts.{i}.w2", c["intermediate_size"], len(x)),
                   c["num_local_experts"], c["num_experts_per_tok"], True, x)


def qwen_moe(c, p, n, x):
    def one(name, F):
        return swiglu(p, name + ".gate_proj", name + ".up_proj", name + ".down_proj", F, len(x))
    y = experts(p, n + "mlp.gate", lambda i: one(f"{n}mlp.experts.{i}", c["moe_intermediate_size"]), c["num_experts"], c["num_experts_per_tok"],
                c["norm_topk_prob"], x)
    if "shared_expert_intermediate_size" in c:
        gate = 1.0 / (1.0 + math.exp(-Linear(p, n + "mlp.shared_expert_gate", 1, len(x))(x)[0]))
        y = add(y, one(n + "mlp.shared_expert", c["shared_expert_intermediate_size"])(x), gate)
    return y


simple("mixtral", base("MixtralForCausalLM", num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, sliding_window=None),
       moe=lambda i: mixtral_moe)
simple("qwen2_moe", base("Qwen2MoeForCausalLM", num_experts=5, num_experts_per_tok=3, moe_intermediate_size=14, shared_expert_intermediate_size=20,
                         norm_topk_prob=False, num_hidden_layers=3, mlp_only_layers=[1], intermediate_size=24), qkv_bias=True,
       moe=lambda i: None if i == 1 else qwen_moe)
simple("qwen3_moe", base("Qwen3MoeForCausalLM", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True, decoder_sparse_step=2,
                         head_dim=16), qk=lambda p, n, s, h, nh, d, e: Rms(p, f"{n}self_attn.{s}_norm", d, e),
       moe=lambda i: qwen_moe if i == 1 else None)


class HeadNorm:
    """Head h's row of a weight [heads, d]."""

    def __init__(self, p, name, h, n, d, eps):
        self.w, self.eps = p.weight(name, n * d, shape=(n, d))[h * d:(h + 1) * d], eps

    def __call__(self, x):
        m = sum(x) / len(x)
        s = 1.0 / math.sqrt(sum((v - m) ** 2 for v in x) / len(x) + self.eps)
        return [(v - m) * s * w for v, w in zip(x, self.w)]


# ---- the others, each as its makers wrote it ----

def plain_mlp(p, up, down, D, F, act, bias=True, conv=False):
    a, b = Linear(p, up, F, D, bias, conv), Linear(p, down, D, F, bias, conv)
    return lambda x: b([act(v) for v in a(x)])


@model("phi2", base("PhiForCausalLM", layer_norm_eps=1e-5, hidden_act="gelu_new", partial_rotary_factor=0.5, num_key_value_heads=4))
def phi2(c, p, ids):
    D, H, F, V, d = 32, 4, 40, 48, 8
    rope = Rope(4, 10000.0)
    table = p.matrix("model.embed_tokens.weight", V, D)
    X = [table[t] for t in ids]
    for i in range(2):
        n = f"model.layers.{i}."
        A = [LayerNorm(p, n + "input_layernorm", D, 1e-5)(x) for x in X]
        q, k, v = ([heads(Linear(p, f"{n}self_attn.{s}_proj", D, D, True)(a), H) for a in A] for s in "qkv")
        q, k = ([[rope(y, t) for y in x] for t, x in enumerate(s)] for s in (q, k))
        o = [Linear(p, n + "self_attn.dense", D, D, True)(x) for x in attend(q, k, v, d ** -0.5)]
        mlp = plain_mlp(p, n + "mlp.fc1", n + "mlp.fc2", D, F, gelu_tanh)
        X = [add(add(x, y), mlp(a)) for x, y, a in zip(X, o, A)]
    head = Linear(p, "lm_head", V, D, True)
    return [head(LayerNorm(p, "model.final_layernorm", D, 1e-5)(x)) for x in X]


def gpt(c, p, ids, prefix, conv, act, qkv):
    D, H, F, V, d = 32, 4, c.get("n_inner") or 128, 48, 8
    wte, wpe = p.matrix(prefix + "wte.weight", V, D), p.matrix(prefix + "wpe.weight", c["n_positions"], D)
    X = [add(wte[t], wpe[i]) for i, t in enumerate(ids)]
    for i in range(2):
        n = f"{prefix}h.{i}."
        A = [LayerNorm(p, n + "ln_1", D, 1e-5)(x) for x in X]
        q, k, v = qkv(p, n + "attn.c_attn", A)
        o = [Linear(p, n + "attn.c_proj", D, D, True, conv)(x) for x in attend(q, k, v, d ** -0.5)]
        X = [add(x, y) for x, y in zip(X, o)]
        mlp = plain_mlp(p, n + "mlp.c_fc", n + "mlp.c_proj", D, F, act, True, conv)
        X = [add(x, mlp(LayerNorm(p, n + "ln_2", D, 1e-5)(x))) for x in X]
    return [[sum(map(mul, r, y)) for r in wte] for y in (LayerNorm(p, prefix + "ln_f", D, 1e-5)(x) for x in X)]


GPT = {"vocab_size": 48, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 1e-5, "bos_token_id": 0, "eos_token_id": 0}


@model("gpt2", dict(GPT, architectures=["GPT2LMHeadModel"], model_type="gpt2", n_inner=None, activation_function="gelu_new"))
def gpt2(c, p, ids):
    p._make("h.0.attn.bias", (1, 1, 8, 8), 0.0, 1.0, "F32")   # the causal mask, as older files have it

    def qkv(p, name, A):
        lin = Linear(p, name, 96, 32, True, True)
        return ([heads(x, 4) for x in s] for s in zip(*[split(lin(a), 32, 32, 32) for a in A]))
    return gpt(c, p, ids, "", True, gelu_tanh, qkv)


@model("gpt_bigcode", dict(GPT, architectures=["GPTBigCodeForCausalLM"], n_inner=72, multi_query=True, activation_function="gelu_pytorch_tanh"))
def bigcode(c, p, ids):
    def qkv(p, name, A):
        lin = Linear(p, name, 48, 32, True)
        return ([heads(x, n) for x in s] for s, n in zip(zip(*[split(lin(a), 32, 8, 8) for a in A]), (4, 1, 1)))
    return gpt(c, p, ids, "transformer.", False, gelu_tanh, qkv)


def interleaved(p, name, A, bias):
    """Rows [head][q, k, v][8]."""
    lin = Linear(p, name, 96, 32, bias)
    by_head = [[heads(h, 3) for h in heads(lin(a), 4)] for a in A]
    return ([[h[j] for h in x] for x in by_head] for j in range(3))


@model("gpt_bigcode-mha", dict(GPT, architectures=["GPTBigCodeForCausalLM"], n_inner=72, multi_query=False, activation_function="gelu"))
def bigcode_mha(c, p, ids):
    return gpt(c, p, ids, "transformer.", False, gelu, lambda p, name, A: interleaved(p, name, A, True))


def neox(c, p, ids):
    D, F, V, d = 32, 40, 48, 8
    rope = Rope(int(d * c["rotary_pct"]), c["rotary_emb_base"])
    table = p.matrix("gpt_neox.embed_in.weight", V, D)
    X = [table[t] for t in ids]
    for i in range(2):
        n = f"gpt_neox.layers.{i}."
        A = [LayerNorm(p, n + "input_layernorm", D, 1e-5)(x) for x in X]
        q, k, v = interleaved(p, n + "attention.query_key_value", A, True)
        q, k = ([[rope(y, t) for y in x] for t, x in enumerate(s)] for s in (q, k))
        o = [Linear(p, n + "attention.dense", D, D, True)(x) for x in attend(list(q), list(k), list(v), d ** -0.5)]
        mlp, ln2 = plain_mlp(p, n + "mlp.dense_h_to_4h", n + "mlp.dense_4h_to_h", D, F, gelu), LayerNorm(p, n + "post_attention_layernorm", D, 1e-5)
        if c["use_parallel_residual"]:
            X = [add(add(mlp(ln2(x)), y), x) for x, y in zip(X, o)]
        else:
            X = [add(x, y) for x, y in zip(X, o)]
            X = [add(x, mlp(ln2(x))) for x in X]
    head = p.matrix("embed_out.weight", V, D)
    return [[sum(map(mul, r, y)) for r in head] for y in (LayerNorm(p, "gpt_neox.final_layer_norm", D, 1e-5)(x) for x in X)]


for _par in (True, False):
    MODELS["gpt_neox" if _par else "gpt_neox-sequential"] = (
        base("GPTNeoXForCausalLM", layer_norm_eps=1e-5, hidden_act="gelu", rotary_pct=0.25 if _par else 0.5, rotary_emb_base=10000,
             use_parallel_residual=_par), neox)
    del MODELS["gpt_neox" if _par else "gpt_neox-sequential"][0]["rope_theta"]


@model("gptj", dict(GPT, architectures=["GPTJForCausalLM"], n_inner=None, rotary_dim=4, activation_function="gelu_new", tie_word_embeddings=False))
def gptj(c, p, ids):
    D, H, F, V, d = 32, 4, 128, 48, 8
    rope = Rope(4, 10000.0, pairs=True)
    table = p.matrix("transformer.wte.weight", V, D)
    X = [table[t] for t in ids]
    for i in range(2):
        n = f"transformer.h.{i}."
        A = [LayerNorm(p, n + "ln_1", D, 1e-5)(x) for x in X]
        q, k, v = ([heads(Linear(p, f"{n}attn.{s}_proj", D, D)(a), H) for a in A] for s in "qkv")
        q, k = ([[rope(y, t) for y in x] for t, x in enumerate(s)] for s in (q, k))
        o = [Linear(p, n + "attn.out_proj", D, D)(x) for x in attend(q, k, v, d ** -0.5)]
        mlp = plain_mlp(p, n + "mlp.fc_in", n + "mlp.fc_out", D, F, gelu_tanh)
        X = [add(add(y, mlp(a)), x) for x, y, a in zip(X, o, A)]
    head = Linear(p, "lm_head", V, D, True)
    return [head(LayerNorm(p, "transformer.ln_f", D, 1e-5)(x)) for x in X]


def falcon(c, p, ids):
    D, F, V, H, d = 32, 128, 48, 4, 8
    new, bias = c["new_decoder_architecture"], c["bias"]
    table = p.matrix("transformer.word_embeddings.weight", V, D)
    X = [table[t] for t in ids]
    rope = None if c["alibi"] else Rope(d, 10000.0)
    for i in range(2):
        n = f"transformer.h.{i}."
        two = new and c.get("num_ln_in_parallel_attn", 2) == 2
        A = [LayerNorm(p, n + ("ln_attn" if two else "input_layernorm"), D, 1e-5)(x) for x in X]
        name = n + "self_attention.query_key_value"
        if new:
            K = c["num_kv_heads"]
            g = H // K
            rows = [[heads(y, g + 2) for y in heads(Linear(p, name, (H + 2 * K) * d, D, bias)(a), K)] for a in A]
            q, k, v = [[h for y in x for h in y[:g]] for x in rows], [[y[g] for y in x] for x in rows], [[y[g + 1] for y in x] for x in rows]
        elif c["multi_query"]:
            q, k, v = ([heads(x, m) for x in s] for s, m in zip(zip(*[split(Linear(p, name, D + 2 * d, D, bias)(a), D, d, d) for a in A]), (H, 1, 1)))
        else:
            q, k, v = interleaved(p, name, A, bias)
        q, k, v = list(q), list(k), list(v)
        if rope:
            q, k = ([[rope(y, t) for y in x] for t, x in enumerate(s)] for s in (q, k))
            o = attend(list(q), list(k), v, d ** -0.5)
        else:
            o = attend(q, k, v, d ** -0.5, bias=[bf16(s) for s in slopes(H)], bias_scale=d ** -0.5)
        o = [Linear(p, n + "self_attention.dense", D, D, bias)(x) for x in o]
        mlp = plain_mlp(p, n + "mlp.dense_h_to_4h", n + "mlp.dense_4h_to_h", D, F, gelu, bias)
        if c["parallel_attn"]:
            B = [LayerNorm(p, n + "ln_mlp", D, 1e-5)(x) for x in X] if two else A
            X = [add(add(mlp(b), y), x) for x, y, b in zip(X, o, B)]
        else:
            X = [add(x, y) for x, y in zip(X, o)]
            X = [add(x, mlp(LayerNorm(p, n + "post_attention_layernorm", D, 1e-5)(x))) for x in X]
    head = table if c["tie_word_embeddings"] else p.matrix("lm_head.weight", V, D)
    return [[sum(map(mul, r, y)) for r in head] for y in (LayerNorm(p, "transformer.ln_f", D, 1e-5)(x) for x in X)]


FALCON = {"architectures": ["FalconForCausalLM"], "vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "layer_norm_epsilon": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}
MODELS["falcon-7b"] = (dict(FALCON, new_decoder_architecture=False, multi_query=True, parallel_attn=True, bias=False, alibi=False), falcon)
MODELS["falcon-40b"] = (dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, multi_query=True, parallel_attn=True, bias=False, alibi=False,
                             tie_word_embeddings=False), falcon)
MODELS["falcon-11b"] = (dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, multi_query=True, parallel_attn=True,
                             bias=False, alibi=False), falcon)
MODELS["falcon-rw"] = (dict(FALCON, new_decoder_architecture=False, multi_query=False, parallel_attn=False, bias=True, alibi=True), falcon)


@model("bloom", {"architectures": ["BloomForCausalLM"], "vocab_size": 48, "hidden_size": 36, "n_layer": 2, "n_head": 6, "layer_norm_epsilon": 1e-5,
                 "bos_token_id": 1, "eos_token_id": 2})
def bloom(c, p, ids):
    D, H, V, d = 36, 6, 48, 6   # six heads: not a power of two
    table = p.matrix("transformer.word_embeddings.weight", V, D)
    X = [LayerNorm(p, "transformer.word_embeddings_layernorm", D, 1e-5)(table[t]) for t in ids]
    for i in range(2):
        n = f"transformer.h.{i}."
        lin = Linear(p, n + "self_attention.query_key_value", 3 * D, D, True)
        rows = [[heads(h, 3) for h in heads(lin(LayerNorm(p, n + "input_layernorm", D, 1e-5)(x)), H)] for x in X]
        q, k, v = ([[h[j] for h in x] for x in rows] for j in range(3))
        o = attend(q, k, v, d ** -0.5, bias=slopes(H))
        X = [add(x, Linear(p, n + "self_attention.dense", D, D, True)(y)) for x, y in zip(X, o)]
        mlp = plain_mlp(p, n + "mlp.dense_h_to_4h", n + "mlp.dense_4h_to_h", D, 4 * D, gelu_tanh)
        X = [add(x, mlp(LayerNorm(p, n + "post_attention_layernorm", D, 1e-5)(x))) for x in X]
    return [[sum(map(mul, r, y)) for r in table] for y in (LayerNorm(p, "transformer.ln_f", D, 1e-5)(x) for x in X)]


@model("mpt", {"architectures": ["MptForCausalLM"], "vocab_size": 48, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 4, "max_seq_len": 64,
               "no_bias": True, "layer_norm_epsilon": 1e-5, "attn_config": {"alibi": True, "alibi_bias_max": 4, "softmax_scale": 0.4}})
def mpt(c, p, ids):
    D, H, V = 32, 4, 48
    table = p.matrix("transformer.wte.weight", V, D)
    X = [table[t] for t in ids]
    for i in range(2):
        n = f"transformer.blocks.{i}."
        lin = Linear(p, n + "attn.Wqkv", 3 * D, D)
        q, k, v = ([heads(x, H) for x in s] for s in zip(*[split(lin(LayerNorm(p, n + "norm_1", D, 1e-5, False)(x)), D, D, D) for x in X]))
        o = attend(q, k, v, 0.4, bias=[2.0 ** -(4 * (h + 1) / H) for h in range(H)])
        X = [add(x, Linear(p, n + "attn.out_proj", D, D)(y)) for x, y in zip(X, o)]
        mlp = plain_mlp(p, n + "ffn.up_proj", n + "ffn.down_proj", D, 4 * D, gelu, False)
        X = [add(x, mlp(LayerNorm(p, n + "norm_2", D, 1e-5, False)(x))) for x in X]
    return [[sum(map(mul, r, y)) for r in table] for y in (LayerNorm(p, "transformer.norm_f", D, 1e-5, False)(x) for x in X)]


def deepseek_moe(c, p, n, x):
    """Softmax over all; with groups only the best groups' experts; the k largest, scaled; shared experts beside them."""
    E, k, F, b = c["n_routed_experts"], c["num_experts_per_tok"], c["moe_intermediate_size"], n + "mlp."
    logits = Linear(p, b + "gate", E, len(x))(x)
    top = max(logits)
    e = [math.exp(v - top) for v in logits]
    probs = [v / sum(e) for v in e]
    allowed = range(E)
    if c["topk_method"] == "group_limited_greedy":
        size = E // c["n_group"]
        best = sorted(range(c["n_group"]), key=lambda g: -max(probs[g * size:(g + 1) * size]))[:c["topk_group"]]
        allowed = [i for i in range(E) if i // size in best]
    y = swiglu(p, b + "shared_experts.gate_proj", b + "shared_experts.up_proj", b + "shared_experts.down_proj", F * c["n_shared_experts"], len(x))(x)
    for i in sorted(allowed, key=lambda i: -probs[i])[:k]:
        one = swiglu(p, f"{b}experts.{i}.gate_proj", f"{b}experts.{i}.up_proj", f"{b}experts.{i}.down_proj", F, len(x))
        y = add(y, one(x), probs[i] * c["routed_scaling_factor"])
    return y


def deepseek(c, p, ids):
    D, H, V = c["hidden_size"], c["num_attention_heads"], c["vocab_size"]
    nope, pe, vd, rank, qr = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"], c["q_lora_rank"]
    rope = Rope(pe, c["rope_theta"], c.get("rope_scaling"), pairs=True)
    scale = (nope + pe) ** -0.5
    if c.get("rope_scaling"):
        s = c["rope_scaling"]
        m = [0.1 * s[k] * math.log(s["factor"]) + 1.0 for k in ("mscale", "mscale_all_dim")]
        rope.factor, scale = m[0] / m[1], scale * m[1] * m[1]
    table = p.matrix("model.embed_tokens.weight", V, D)
    X = [table[t] for t in ids]
    for i in range(c["num_hidden_layers"]):
        n = f"model.layers.{i}."
        A = [Rms(p, n + "input_layernorm", D, 1e-5)(x) for x in X]
        if qr:
            a, norm, b = Linear(p, n + "self_attn.q_a_proj", qr, D), Rms(p, n + "self_attn.q_a_layernorm", qr, 1e-6), Linear(p, n + "self_attn.q_b_proj", H * (nope + pe), qr)
            q = [b(norm(a(x))) for x in A]
        else:
            q = [Linear(p, n + "self_attn.q_proj", H * (nope + pe), D)(x) for x in A]
        kv_a, norm = Linear(p, n + "self_attn.kv_a_proj_with_mqa", rank + pe, D), Rms(p, n + "self_attn.kv_a_layernorm", rank, 1e-6)
        kv_b = Linear(p, n + "self_attn.kv_b_proj", H * (nope + vd), rank)
        Q, K, W = [], [], []
        for t, x in enumerate(A):
            c_kv, k_pe = split(kv_a(x), rank, pe)
            kv, k_pe = heads(kv_b(norm(c_kv)), H), rope(k_pe, t)
            Q.append([h[:nope] + rope(h[nope:], t) for h in heads(q[t], H)])
            K.append([h[:nope] + k_pe for h in kv])
            W.append([h[nope:] for h in kv])
        o = [Linear(p, n + "self_attn.o_proj", D, H * vd)(x) for x in attend(Q, K, W, scale)]
        X = [add(x, y) for x, y in zip(X, o)]
        B = [Rms(p, n + "post_attention_layernorm", D, 1e-5)(x) for x in X]
        if i < c["first_k_dense_replace"]:
            mlp = swiglu(p, n + "mlp.gate_proj", n + "mlp.up_proj", n + "mlp.down_proj", c["intermediate_size"], D)
            m = [mlp(b) for b in B]
        else:
            m = [deepseek_moe(c, p, n, b) for b in B]
        X = [add(x, y) for x, y in zip(X, m)]
    head = p.matrix("lm_head.weight", V, D)
    return [[sum(map(mul, r, y)) for r in head] for y in (Rms(p, "model.norm", D, 1e-5)(x) for x in X)]


_DS = base("DeepseekV2ForCausalLM", qk_nope_head_dim=10, qk_rope_head_dim=4, v_head_dim=12, kv_lora_rank=16, q_lora_rank=None, n_routed_experts=6,
           num_experts_per_tok=2, moe_intermediate_size=14, n_shared_experts=2, first_k_dense_replace=1, moe_layer_freq=1, topk_method="greedy",
           norm_topk_prob=False, routed_scaling_factor=1.0, scoring_func="softmax", num_key_value_heads=4, rms_norm_eps=1e-5)
MODELS["deepseek_v2-lite-moe"] = (dict(_DS, rope_scaling={"type": "yarn", "factor": 4, "original_max_position_embeddings": 16, "beta_fast": 32, "beta_slow": 1,
                                                      "mscale": 0.7, "mscale_all_dim": 0.9}), deepseek)
MODELS["deepseek_v2-moe"] = (dict(_DS, q_lora_rank=20, topk_method="group_limited_greedy", n_group=3, topk_group=2, routed_scaling_factor=1.6), deepseek)

# A checkpoint that can also see: other names, another place for the text's sizes, tensors that are not needed.
_G3 = MODELS["gemma3"][0]


@model("gemma3-vision", {"architectures": ["Gemma3ForConditionalGeneration"], "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 8},
                         "text_config": {k: v for k, v in _G3.items() if k not in ("architectures", "torch_dtype", "bos_token_id", "eos_token_id")}})
def gemma3_vision(c, p, ids):
    p._make("vision_tower.vision_model.post_layernorm.weight", (8,), 1.0, 0.1, "F32")
    p._make("multi_modal_projector.mm_input_projection_weight", (8, 4), 0.0, 0.1, "F32")
    t = c["text_config"]
    full = lambda i: (i + 1) % 3 == 0
    return llama_like(t, p, ids, norm=plus_one, act=gelu_tanh, embed=math.sqrt(32), scale=20 ** -0.5, post="both", prefix="language_model.model.",
                      window=lambda i: 0 if full(i) else 5, layer_rope=lambda i: 0 if full(i) else 1,
                      ropes=[Rope(16, 1000.0, t["rope_scaling"]), Rope(16, 100.0)],
                      qk=lambda p, n, s, h, nh, d, e: Rms(p, f"{n}self_attn.{s}_norm", d, e, 1.0))


# ---- running and writing ----

def greedy(config, forward, seed):
    """Prompt, then tokens chosen by the model; None when two tokens are too close to tell apart."""
    p = Params(seed)
    rng = random.Random(seed + 1)
    ids = [rng.randrange(config.get("text_config", config)["vocab_size"]) for _ in range(N_PROMPT)]
    total = N_PROMPT + N_GREEDY
    while len(ids) < total:
        # The length by which rope scalings are chosen is that of the whole sequence: pad behind, which causality hides.
        last = forward(config, p, ids + [0] * (total - len(ids)))[len(ids) - 1]
        order = sorted(range(len(last)), key=lambda i: -last[i])
        if last[order[0]] - last[order[1]] < 5e-3:
            return None
        ids.append(order[0])
    return p, ids, forward(config, p, ids)


def safetensors(tensors):
    header, data = {}, bytearray()
    for name, (shape, values, dtype) in tensors.items():
        at = len(data)
        packed = struct.pack(f"<{len(values)}f", *values)
        data += packed if dtype == "F32" else b"".join(packed[i + 2:i + 4] for i in range(0, len(packed), 4))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def npy(rows):
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + b"".join(struct.pack(f"<{len(r)}f", *r) for r in rows)


def build(name):
    config, forward = MODELS[name]
    for seed in range(1, 100):
        made = greedy(config, forward, seed)
        if made:
            break
    p, ids, logits = made
    golden = {"input_ids": ids[:N_PROMPT], "greedy_ids": ids[N_PROMPT:], "seed": seed, "made_by": "tools/tinymodels.py"}
    return {"config.json": (json.dumps(config, indent=1) + "\n").encode(), "model.safetensors": safetensors(p.tensors),
            "golden.json": (json.dumps(golden) + "\n").encode(), "golden_logits.npy": npy(logits)}


def main():
    args = sys.argv[1:]
    check = "--check" in args
    names = [a for a in args if a != "--check"] or list(MODELS)
    bad = 0
    for name in names:
        files = build(name)
        folder = os.path.join(ROOT, name)
        if not check:
            os.makedirs(folder, exist_ok=True)
        for file, data in files.items():
            path = os.path.join(folder, file)
            if check:
                same = os.path.exists(path) and open(path, "rb").read() == data
                bad += not same
                if not same:
                    print(f"{name}/{file} differs from what is made here")
            else:
                with open(path, "wb") as f:
                    f.write(data)
        print(f"{name}: {sum(map(len, files.values()))} bytes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
