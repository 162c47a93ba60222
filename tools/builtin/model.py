"""The architecture: Llama as Hugging Face's LlamaForCausalLM computes it.

RMSNorm, rotary positions on the two halves of each head, grouped-query attention,
SwiGLU, output tied to the embedding.  Parameter names are the published ones, so
`state_dict()` is the checkpoint.  Written for the torch 1.13 that Debian 12 ships
(no scaled_dot_product_attention).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

import safetensors_io


@dataclass
class Config:
    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    def to_hf(self, bos: int, eos: int) -> dict:
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers, "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads, "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings, "rope_theta": self.rope_theta, "rope_scaling": None,
            "rms_norm_eps": self.rms_norm_eps, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
            "attention_dropout": 0.0, "initializer_range": 0.02, "pretraining_tp": 1, "tie_word_embeddings": True,
            "use_cache": True, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "bfloat16",
        }

    @classmethod
    def from_hf(cls, data: dict) -> Config:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rope_tables(cfg: Config, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [n, head_dim]; both halves of a head share their frequencies."""
    inv_freq = cfg.rope_theta ** (-torch.arange(0, cfg.head_dim, 2, dtype=torch.float32) / cfg.head_dim)
    angle = torch.outer(torch.arange(n, dtype=torch.float32), inv_freq)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


Cache = "list[tuple[torch.Tensor, torch.Tensor]]"   # a layer's keys and values so far


class Attention(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.n_head, self.n_kv, self.d = cfg.num_attention_heads, cfg.num_key_value_heads, cfg.head_dim
        self.q_proj = nn.Linear(cfg.hidden_size, self.n_head * self.d, bias=False)
        self.k_proj = nn.Linear(cfg.hidden_size, self.n_kv * self.d, bias=False)
        self.v_proj = nn.Linear(cfg.hidden_size, self.n_kv * self.d, bias=False)
        self.o_proj = nn.Linear(self.n_head * self.d, cfg.hidden_size, bias=False)

    def forward(self, x, cos, sin, mask, past):
        b, t, _ = x.shape
        q = rotate(self.q_proj(x).view(b, t, self.n_head, self.d).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(b, t, self.n_kv, self.d).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(b, t, self.n_kv, self.d).transpose(1, 2)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        group, n = self.n_head // self.n_kv, k.shape[2]
        # The query heads of one group share its keys: fold them into one product.
        q = q.reshape(b * self.n_kv, group * t, self.d)
        score = torch.bmm(q, k.reshape(b * self.n_kv, n, self.d).transpose(1, 2)) * (1.0 / math.sqrt(self.d))
        score = score.view(b, self.n_kv, group, t, n) + mask
        out = torch.bmm(score.softmax(-1).view(b * self.n_kv, group * t, n), v.reshape(b * self.n_kv, n, self.d))
        out = out.view(b, self.n_head, t, self.d).transpose(1, 2).reshape(b, t, self.n_head * self.d)
        return self.o_proj(out), (k, v)


class MLP(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.gate_proj = nn.Linear(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.up_proj = nn.Linear(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.down_proj = nn.Linear(cfg.intermediate_size, cfg.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)
        self.mlp = MLP(cfg)

    def forward(self, x, cos, sin, mask, past):
        attended, kv = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), kv


class Decoder(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.layers = nn.ModuleList(Layer(cfg) for _ in range(cfg.num_hidden_layers))
        self.norm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)


class Llama(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg = cfg
        self.model = Decoder(cfg)
        self.cos, self.sin = rope_tables(cfg, cfg.max_position_embeddings)

    def init_weights(self) -> None:
        residual = 0.02 / math.sqrt(2 * self.cfg.num_hidden_layers)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02)

    def forward(self, ids: torch.Tensor, cache: Cache | None = None) -> tuple[torch.Tensor, Cache]:
        """Logits [batch, t, vocab] of `ids` [batch, t], which follow what `cache` holds."""
        t = ids.shape[1]
        start = cache[0][0].shape[2] if cache else 0
        cos, sin = self.cos[start:start + t], self.sin[start:start + t]
        mask = torch.full((t, start + t), float("-inf")).triu(start + 1)
        x = self.model.embed_tokens(ids)
        new_cache = []
        for i, layer in enumerate(self.model.layers):
            x, kv = layer(x, cos, sin, mask, cache[i] if cache else None)
            new_cache.append(kv)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight), new_cache


def load(folder: Path) -> Llama:
    cfg = Config.from_hf(json.loads((folder / "config.json").read_text()))
    llama = Llama(cfg)
    llama.load_state_dict(safetensors_io.load_bf16(folder / "model.safetensors"))
    return llama.eval()


@torch.no_grad()
def greedy(llama: Llama, prompt: list[int], max_new: int, stop: set[int]) -> list[int]:
    """Greedy continuation of `prompt`, without the stop token that ended it."""
    logits, cache = llama(torch.tensor([prompt]))
    out: list[int] = []
    while len(out) < max_new:
        token = int(logits[0, -1].argmax())
        if token in stop:
            break
        out.append(token)
        logits, cache = llama(torch.tensor([[token]]), cache)
    return out
