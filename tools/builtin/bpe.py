#!/usr/bin/env python3
"""Byte-level BPE: trains the built-in model's tokenizer and encodes with it.

The result is an ordinary Hugging Face `tokenizer.json`.  Training counts words of
the generated corpus and joins the most frequent pair until the vocabulary is full.

    bpe.py --out DIR      write tokenizer.json and tokenizer_config.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import corpus

# GPT-2's pre-tokenizer.  Python's re has no \p{L} and \p{N}: [^\W\d_] and \d are
# the same for all text the corpus contains (they differ for numbers such as "½").
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def _byte_chars() -> list[str]:
    """GPT-2's printable stand-in for each byte: itself, or a character from 256 up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars, extra = [""] * 256, 0
    for byte in range(256):
        if byte in printable:
            chars[byte] = chr(byte)
        else:
            chars[byte] = chr(256 + extra)
            extra += 1
    return chars


BYTE_CHARS = _byte_chars()
CHAR_BYTES = {c: b for b, c in enumerate(BYTE_CHARS)}


def to_chars(text: str) -> str:
    return "".join(BYTE_CHARS[b] for b in text.encode("utf-8"))


def learn_merges(counts: Counter[str], n_merges: int) -> list[tuple[str, str]]:
    """The `n_merges` most useful merges over words (in byte characters)."""
    words = [list(w) for w in counts]
    weight = list(counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += weight[i]
            where[pair].add(i)
    merges: list[tuple[str, str]] = []
    while len(merges) < n_merges and pairs:
        # Ties are broken by the pair itself, so the result depends on the text alone.
        best = max(pairs, key=lambda p: (pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        for i in where.pop(best):
            word = words[i]
            for pair in zip(word, word[1:]):
                pairs[pair] -= weight[i]
                where[pair].discard(i)
            words[i] = word = merge_pair(word, best)
            for pair in zip(word, word[1:]):
                pairs[pair] += weight[i]
                where[pair].add(i)
        del pairs[best]
    return merges


def merge_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    """Encodes and decodes with the files written by `write_files`."""

    def __init__(self, path: Path):
        data = json.loads(path.read_text(encoding="utf-8"))
        self.vocab: dict[str, int] = data["model"]["vocab"]
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(data["model"]["merges"])}
        self.specials = {t["content"]: t["id"] for t in data["added_tokens"]}
        self.names = {i: t for t, i in self.vocab.items()}
        self._cache: dict[str, list[int]] = {}
        self._split = re.compile("(" + "|".join(re.escape(s) for s in self.specials) + ")")

    def _word(self, word: str) -> list[int]:
        ids = self._cache.get(word)
        if ids is None:
            symbols = list(to_chars(word))
            while len(symbols) > 1:
                pair = min(zip(symbols, symbols[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if pair not in self.rank:
                    break
                symbols = merge_pair(symbols, pair)
            ids = self._cache[word] = [self.vocab[s] for s in symbols]
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Text without special tokens."""
        return [i for word in _WORDS.findall(text) for i in self._word(word)]

    def encode(self, text: str) -> list[int]:
        """Text in which the names of special tokens stand for them."""
        ids: list[int] = []
        for part in self._split.split(text):
            ids += [self.specials[part]] if part in self.specials else self.encode_text(part)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`; special tokens are left out."""
        special = set(self.specials.values())
        raw = bytes(CHAR_BYTES[c] for i in ids if i not in special for c in self.names[i])
        return raw.decode("utf-8", errors="replace")


# The markup holds no newlines or spaces of its own, so each message costs two tokens.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{- raise_exception('Unknown role: ' + message['role'] + '. Use system, user, assistant or tool.') }}"
    "{%- endif %}"
    "{{- '<|' + ('user' if message['role'] == 'tool' else message['role']) + '|>' + (message['content'] or '') | trim + '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def tokenizer_json(merges: list[tuple[str, str]]) -> dict:
    tokens = corpus.SPECIALS + BYTE_CHARS + [a + b for a, b in merges]
    vocab = {token: i for i, token in enumerate(tokens)}
    bos = {"SpecialToken": {"id": corpus.BOS, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, s in enumerate(corpus.SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {corpus.BOS: {"id": corpus.BOS, "ids": [vocab[corpus.BOS]], "tokens": [corpus.BOS]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [a + " " + b for a, b in merges]},
    }


def tokenizer_config(max_length: int) -> dict:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": True}
                                 for i, s in enumerate(corpus.SPECIALS)},
        "bos_token": corpus.BOS,
        "eos_token": corpus.EOS,
        "pad_token": corpus.EOS,
        "unk_token": None,
        "additional_special_tokens": corpus.SPECIALS[2:],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def write_json(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def train(n_vocab: int, n_docs: int, seed: int) -> list[tuple[str, str]]:
    counts: Counter[str] = Counter()
    stream = corpus.documents(seed)
    for _ in range(n_docs):
        for part in next(stream):
            if part not in corpus.SPECIALS:
                counts.update(_WORDS.findall(part))
    words = Counter({to_chars(w): n for w, n in counts.items()})
    return learn_merges(words, n_vocab - 256 - len(corpus.SPECIALS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--docs", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=1024)
    args = parser.parse_args()
    merges = train(args.vocab, args.docs, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "tokenizer.json", tokenizer_json(merges))
    write_json(args.out / "tokenizer_config.json", tokenizer_config(args.max_length))
    print(f"{len(merges)} merges, {len(merges) + 256 + len(corpus.SPECIALS)} tokens")


if __name__ == "__main__":
    main()
