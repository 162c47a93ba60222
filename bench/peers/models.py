#!/usr/bin/env python3
"""Writes one model of the shape of Llama-3.2-1B with random weights, for quire (a Hugging Face folder) and for its peers (GGUF), the
same bits in both: only its speed means anything.  Plain Python, no packages.

    models.py --out build/peers/models --quantize build/peers/ik/build/bin/llama-quantize

makes   hf/                      config.json, tokenizer.json, generation_config.json, model.safetensors (BF16, 2.5 GB)
        bf16.gguf                the same for llama.cpp and its forks
        q8_0.gguf, q4_0.gguf     by llama-quantize, every matrix in that type (--pure)
Files that are there already are kept."""
import argparse
import array
import json
import os
import random
import struct
import subprocess
import sys

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, CONTEXT = 2048, 16, 32, 8, 64, 8192, 128256, 131072
BOS, EOS = 128000, 128001
BLOCK = 1 << 20    # weights repeat after so many; prime offsets keep rows apart


def layer_tensors():
    """(Hugging Face name, GGUF name, rows, columns); columns 0: a vector of ones."""
    yield "model.embed_tokens.weight", "token_embd.weight", VOCAB, HIDDEN
    for i in range(LAYERS):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        yield hf + "input_layernorm.weight", gg + "attn_norm.weight", HIDDEN, 0
        yield hf + "self_attn.q_proj.weight", gg + "attn_q.weight", HEADS * HEAD_DIM, HIDDEN
        yield hf + "self_attn.k_proj.weight", gg + "attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN
        yield hf + "self_attn.v_proj.weight", gg + "attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN
        yield hf + "self_attn.o_proj.weight", gg + "attn_output.weight", HIDDEN, HEADS * HEAD_DIM
        yield hf + "post_attention_layernorm.weight", gg + "ffn_norm.weight", HIDDEN, 0
        yield hf + "mlp.gate_proj.weight", gg + "ffn_gate.weight", FFN, HIDDEN
        yield hf + "mlp.up_proj.weight", gg + "ffn_up.weight", FFN, HIDDEN
        yield hf + "mlp.down_proj.weight", gg + "ffn_down.weight", HIDDEN, FFN
    yield "model.norm.weight", "output_norm.weight", HIDDEN, 0


def random_block():
    """BLOCK + 65536 bf16 weights of deviation 0.02."""
    rng = random.Random(1)
    floats = array.array("f", (rng.gauss(0, 0.02) for _ in range(BLOCK // 8)))
    halves = array.array("H", floats.tobytes())[1::2]    # the upper half of each little-endian f32
    while len(halves) < BLOCK + 65536:
        cut = rng.randrange(1, len(halves))
        halves.extend(halves[cut:] + halves[:cut])
    return halves.tobytes()


def write_matrix(f, block, rows, columns, number):
    left, start = rows * columns * 2, number * 7919 * 2 % 65536 * 2
    while left:
        n = min(left, BLOCK * 2)
        f.write(block[start % 131072:][:n])
        left -= n
        start = (start + 104729 * 2) % 131072


def byte_letters():
    """The printable letter that byte-level BPE gives each byte."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return [table[b] for b in range(256)]


def vocabulary():
    """The bytes, then invented words that no text becomes: prompts are ids here, and answers are words."""
    tokens = byte_letters()
    tokens.append(tokens[ord("a")] + tokens[ord("b")])
    tokens += [f"Ġw{i}" for i in range(len(tokens), 128000)]
    tokens += [f"<|special{i}|>" for i in range(128000, VOCAB)]
    tokens[BOS], tokens[EOS] = "<|begin_of_text|>", "<|end_of_text|>"
    return tokens


# ---- Hugging Face ----

def write_hf(folder, block):
    os.makedirs(folder, exist_ok=True)

    def put(name, value):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f)

    put("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": FFN, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": True,
        "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16", "bos_token_id": BOS, "eos_token_id": EOS})
    put("generation_config.json", {"bos_token_id": BOS, "eos_token_id": EOS})
    tokens = vocabulary()
    put("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                          "special": True} for i in range(BOS, VOCAB)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, "post_processor": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": True, "vocab": {t: i for i, t in enumerate(tokens[:BOS])},
                  "merges": ["a b"]}})
    put("tokenizer_config.json", {"bos_token": tokens[BOS], "eos_token": tokens[EOS], "tokenizer_class": "PreTrainedTokenizerFast"})
    path = os.path.join(folder, "model.safetensors")
    if os.path.exists(path):
        return
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, _, rows, columns in layer_tensors():
        n = rows * (columns or 1) * 2
        header[name] = {"dtype": "BF16", "shape": [rows, columns] if columns else [rows], "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for number, (_, _, rows, columns) in enumerate(layer_tensors()):
            if columns:
                write_matrix(f, block, rows, columns, number)
            else:
                f.write(struct.pack("<H", 0x3F80) * rows)
    os.rename(path + ".part", path)


# ---- GGUF (version 3) ----

U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
GGUF_F32, GGUF_BF16 = 0, 30


def gguf_string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def gguf_value(kind, value):
    if kind == STRING:
        return struct.pack("<I", STRING) + gguf_string(value)
    return struct.pack("<I", kind) + struct.pack("<f" if kind == F32 else "<I", value)


def gguf_array(kind, values):
    if kind == STRING:
        body = b"".join(gguf_string(v) for v in values)
    else:
        body = array.array("i", values).tobytes()
    return struct.pack("<IIQ", ARRAY, kind, len(values)) + body


def write_gguf(path, block):
    if os.path.exists(path):
        return
    tokens = vocabulary()
    meta = [
        ("general.architecture", gguf_value(STRING, "llama")), ("general.name", gguf_value(STRING, "random Llama-3.2-1B shape")),
        ("general.file_type", gguf_value(U32, 32)), ("general.quantization_version", gguf_value(U32, 2)),
        ("llama.block_count", gguf_value(U32, LAYERS)), ("llama.context_length", gguf_value(U32, CONTEXT)),
        ("llama.embedding_length", gguf_value(U32, HIDDEN)), ("llama.feed_forward_length", gguf_value(U32, FFN)),
        ("llama.attention.head_count", gguf_value(U32, HEADS)), ("llama.attention.head_count_kv", gguf_value(U32, KV_HEADS)),
        ("llama.attention.key_length", gguf_value(U32, HEAD_DIM)), ("llama.attention.value_length", gguf_value(U32, HEAD_DIM)),
        ("llama.attention.layer_norm_rms_epsilon", gguf_value(F32, 1e-5)), ("llama.rope.freq_base", gguf_value(F32, 500000.0)),
        ("llama.rope.dimension_count", gguf_value(U32, HEAD_DIM)), ("llama.vocab_size", gguf_value(U32, VOCAB)),
        ("tokenizer.ggml.model", gguf_value(STRING, "gpt2")), ("tokenizer.ggml.pre", gguf_value(STRING, "llama-bpe")),
        ("tokenizer.ggml.tokens", gguf_array(STRING, tokens)),
        ("tokenizer.ggml.token_type", gguf_array(I32, [1] * BOS + [3] * (VOCAB - BOS))),
        ("tokenizer.ggml.merges", gguf_array(STRING, ["a b"])),
        ("tokenizer.ggml.bos_token_id", gguf_value(U32, BOS)), ("tokenizer.ggml.eos_token_id", gguf_value(U32, EOS)),
    ]
    infos, at = [], 0
    for _, name, rows, columns in layer_tensors():
        shape = [columns, rows] if columns else [rows]
        n = rows * (columns * 2 if columns else 4)
        infos.append(gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) +
                     struct.pack("<IQ", GGUF_BF16 if columns else GGUF_F32, at))
        at += (n + 31) // 32 * 32
    with open(path + ".part", "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(meta)))
        for key, value in meta:
            f.write(gguf_string(key) + value)
        f.write(b"".join(infos))
        f.write(b"\0" * (-f.tell() % 32))
        for number, (_, _, rows, columns) in enumerate(layer_tensors()):
            if columns:
                write_matrix(f, block, rows, columns, number)
            else:
                f.write(struct.pack("<f", 1.0) * rows)
            f.write(b"\0" * (-f.tell() % 32))
    os.rename(path + ".part", path)


def quantize(tool, source, target, kind):
    if os.path.exists(target):
        return
    subprocess.run([tool, "--pure", source, target + ".part", kind], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    os.rename(target + ".part", target)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="build/peers/models", help="folder (default %(default)s)")
    p.add_argument("--quantize", default="build/peers/ik/build/bin/llama-quantize", help="llama-quantize (default %(default)s)")
    p.add_argument("--only-hf", action="store_true", help="nothing for peers")
    a = p.parse_args()
    block = random_block()
    write_hf(os.path.join(a.out, "hf"), block)
    if a.only_hf:
        return 0
    bf16 = os.path.join(a.out, "bf16.gguf")
    write_gguf(bf16, block)
    for kind in ("Q8_0", "Q4_0"):
        quantize(a.quantize, bf16, os.path.join(a.out, kind.lower() + ".gguf"), kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
