#!/usr/bin/env python3
"""Trains the built-in model on the generated corpus and writes the model folder.

Most batches hold one document a row, padded: a row of many documents would let the
model answer from the ones before, which no request brings along.  Some batches are
rows of the full context length filled with documents one after the other, so that
every position and the way from one document to the next are known too.  No document
is used twice.

    train.py --work BUILD --out models/builtin      train, or go on after a break
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import Iterator

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

import bpe
import corpus
import safetensors_io
from model import Config, Llama


def encode(tok: bpe.Tokenizer, doc: corpus.Document) -> list[int]:
    return [i for part in doc for i in ([tok.specials[part]] if part in tok.specials else tok.encode_text(part))]


PADDING = -100   # what cross_entropy ignores


def single_batches(tok: bpe.Tokenizer, n_tokens: int, seed: int, extra_chats: float, longest: int) -> Iterator[torch.Tensor]:
    """Batches of about `n_tokens` in rows of one document, padded to a common length."""
    lengths = [n for n in (32, 64, 128, 256, 384, 640) if n < longest] + [longest]
    waiting: dict[int, list[list[int]]] = {n: [] for n in lengths}
    for doc in corpus.documents(seed, extra_chats):
        ids = encode(tok, doc)[:longest + 1]
        length = next(n for n in lengths if len(ids) <= n + 1)
        group = waiting[length]
        group.append(ids + [PADDING] * (length + 1 - len(ids)))
        if len(group) >= max(1, n_tokens // length):
            yield torch.tensor(group)
            waiting[length] = []


def packed_batches(tok: bpe.Tokenizer, length: int, size: int, seed: int, extra_chats: float = 0.0) -> Iterator[torch.Tensor]:
    """Batches of `size` rows of `length + 1` tokens, each from the start of a document on."""
    batch: list[list[int]] = []
    row: list[int] = []
    for doc in corpus.documents(seed, extra_chats):
        row += encode(tok, doc)
        if len(row) > length:
            batch.append(row[:length + 1])
            row = []
        if len(batch) == size:
            yield torch.tensor(batch)
            batch = []


def mixed_batches(tok: bpe.Tokenizer, args: argparse.Namespace, seed: int) -> Iterator[torch.Tensor]:
    single = single_batches(tok, args.tokens, seed, args.extra_chats, args.context)
    packed = packed_batches(tok, args.context, max(1, args.tokens // args.context), seed + 1)
    rng = random.Random(seed)
    while True:
        yield next(packed if rng.random() < args.packed else single)


def loss_of(llama: Llama, batch: torch.Tensor, mixed: bool = False) -> torch.Tensor:
    """Mean loss over all positions; `mixed` does the products in BF16."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        logits, _ = llama(batch[:, :-1].clamp(min=0))
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten(), ignore_index=PADDING)


@torch.no_grad()
def held_out(llama: Llama, tok: bpe.Tokenizer, seed: int) -> float:
    """Mean loss on documents whose seed no training stage uses."""
    stream = packed_batches(tok, 512, 4, seed)
    return sum(loss_of(llama, next(stream)).item() for _ in range(8)) / 8


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    warmup = 100
    if step < warmup:
        return peak * (step + 1) / warmup
    along = (step - warmup) / max(1, n_steps - warmup)
    return peak * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * along)))


def make_optimizer(llama: Llama) -> torch.optim.AdamW:
    matrices = [p for p in llama.parameters() if p.dim() > 1]
    gains = [p for p in llama.parameters() if p.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
                             lr=1e-3, betas=(0.9, 0.95), eps=1e-9, foreach=True)


def export(llama: Llama, tok: bpe.Tokenizer, out: Path) -> None:
    bos, eos, end = (tok.specials[s] for s in (corpus.BOS, corpus.EOS, corpus.END))
    out.mkdir(parents=True, exist_ok=True)
    bpe.write_json(out / "config.json", llama.cfg.to_hf(bos, eos))
    bpe.write_json(out / "generation_config.json", {
        "bos_token_id": bos, "eos_token_id": [eos, end], "pad_token_id": eos,
        "do_sample": True, "temperature": 0.7, "top_p": 0.9})
    safetensors_io.save_bf16(out / "model.safetensors", llama.state_dict())


def average_gradients(llama: Llama, n_workers: int) -> None:
    """Replace each worker's gradients by their mean, in one message."""
    grads = [p.grad for p in llama.parameters()]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= n_workers
    offset = 0
    for g in grads:
        g.copy_(flat[offset:offset + g.numel()].view_as(g))
        offset += g.numel()


def work(rank: int, args: argparse.Namespace) -> None:
    """What each worker does; only the first reports, saves and writes the model."""
    torch.set_num_threads(1)
    if args.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{args.work.resolve()}/rendezvous", rank=rank, world_size=args.workers)
    torch.manual_seed(args.seed)
    tok = bpe.Tokenizer(args.out / "tokenizer.json")
    llama = Llama(Config(vocab_size=len(tok.vocab), max_position_embeddings=args.context))
    llama.init_weights()
    optimizer = make_optimizer(llama)
    if rank == 0:
        print(f"{sum(p.numel() for p in llama.parameters())} parameters", flush=True)

    checkpoint = args.work / "checkpoint.pt"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        llama.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        if rank == 0:
            print(f"going on at step {step}", flush=True)

    held_out_seed = 10 ** 9 + args.seed
    # Worker and step are part of the seed: a resumed run reads fresh documents too.
    stream = mixed_batches(tok, args, (args.seed * 100 + rank) * 10 ** 5 + 2 * step)
    began, n_tokens, mean = time.time(), 0, 0.0
    while step < args.steps:
        batch = next(stream)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        loss = loss_of(llama, batch, mixed=not args.f32)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if args.workers > 1:
            average_gradients(llama, args.workers)
        torch.nn.utils.clip_grad_norm_(llama.parameters(), 1.0)
        optimizer.step()
        step += 1
        n_tokens += args.workers * batch.shape[0] * (batch.shape[1] - 1)
        mean += loss.item()
        if rank != 0:
            continue
        if step % args.report == 0:
            print(f"step {step}  loss {mean / args.report:.4f}  {n_tokens / (time.time() - began):.0f} tok/s  "
                  f"{(time.time() - began) / 60:.1f} min", flush=True)
            mean = 0.0
        if step % args.save == 0 or step == args.steps:
            torch.save({"model": llama.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, checkpoint)
            print(f"step {step}  held-out loss {held_out(llama, tok, held_out_seed):.4f}", flush=True)

    if rank != 0:
        return
    export(llama, tok, args.out)
    llama.load_state_dict(safetensors_io.load_bf16(args.out / "model.safetensors"))
    print(f"held-out loss after rounding to BF16: {held_out(llama, tok, held_out_seed):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="model folder; must hold the tokenizer")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--context", type=int, default=1024, help="context length")
    parser.add_argument("--packed", type=float, default=0.15, help="share of batches that are packed rows")
    parser.add_argument("--tokens", type=int, default=2560, help="tokens a step and worker")
    parser.add_argument("--extra-chats", type=float, default=0.75, help="share of short chats added to the corpus")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--f32", action="store_true", help="no BF16 products (weights are always F32 in training)")
    # Workers of one thread each, not threads: at this size threads wait for each
    # other at every product, workers only once a step.
    parser.add_argument("--workers", type=int, default=2, help="processes; each takes --tokens a step")
    parser.add_argument("--report", type=int, default=50, help="steps between reports")
    parser.add_argument("--save", type=int, default=250, help="steps between checkpoints")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "rendezvous").unlink(missing_ok=True)   # left by a run that was stopped
    if args.workers > 1:
        mp.spawn(work, args=(args,), nprocs=args.workers)
    else:
        work(0, args)


if __name__ == "__main__":
    main()
