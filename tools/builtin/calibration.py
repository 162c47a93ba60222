#!/usr/bin/env python3
"""The texts that `quire quantize` calibrates with and measures on: documents of the built-in model's
corpus as plain text, from seeds that no training uses.

    calibration.py --out ../../models/calibration
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Iterator

import corpus
from stories import story

TEXTS = {"calibration.txt": (7_000_001, 96 << 10), "heldout.txt": (8_000_003, 64 << 10)}


def documents(seed: int) -> Iterator[corpus.Document]:
    """Stories and statements: what reads as plain text, without the tokens that only the built-in model knows."""
    rng = random.Random(seed)
    while True:
        roll = rng.random()
        yield corpus.statements(rng) if roll < 0.2 else corpus.quire_statements(rng) if roll < 0.25 else [story(rng).text]


def text(seed: int, size: int) -> str:
    """Documents with a form feed between: quire runs them apart."""
    out = ""
    for doc in documents(seed):
        out += ("\f" if out else "") + "".join(part for part in doc if part not in corpus.SPECIALS)
        if len(out.encode()) >= size:
            return out
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (seed, size) in TEXTS.items():
        (args.out / name).write_text(text(seed, size), encoding="utf-8")


if __name__ == "__main__":
    main()
