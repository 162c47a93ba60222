#!/usr/bin/env python3
"""Loads the stored model as it ships (BF16) and looks at what it says.

Prints greedy stories and answers, and fails when a story does not end, uses a
word the corpus does not have, or a question of the fixed list gets another answer.

    check.py --model models/builtin               the fixed list
    check.py --model models/builtin --sample 500  also: exact answers on random questions
    check.py --model models/builtin --golden FILE write reference ids and log-probabilities
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from pathlib import Path
from typing import Sequence

import torch

import bpe
import corpus
import qa
from model import Llama, greedy, load
from stories import story

STORIES = ["Once upon a time", "Once upon a time, there was a little robot", "One day", "There was", "Long ago",
           "Once upon a time, there was a brave dragon named Zork", "Lily was a young girl who", "It was a bright morning in spring."]

COMPLETIONS = [("The capital of France is", " Paris."), ("A cow says", " moo."), ("Quire is an engine", ", written in C")]

STORY_REQUESTS = ["Tell me a story.", "Can you tell me a story about a rabbit?", "write a short story about the sea",
                  "Tell me a story about a dragon named Korvo."]

# Each conversation is what the user says, turn by turn, with the start of the answer
# that is due (an empty string accepts any).
QUESTIONS: list[list[tuple[str, str]]] = [
    [("What is quire?", "Quire is an engine, written in C, that runs and serves large language models.")],
    [("who made quire", "Quire was made by the quire project")],
    [("What does quire do?", "Quire loads a language model and answers requests")],
    [("How do I start the server?", "Type: quire serve MODEL.")],
    [("What is paged attention?", "Paged attention keeps the keys and values")],
    [("What is the KV cache?", "The KV cache stores the keys and values")],
    [("What is prefix caching?", "Prefix caching reuses the pages")],
    [("Explain continuous batching.", "Continuous batching lets new requests join")],
    [("What is a token?", "A token is a small piece of text")],
    [("What is a prompt?", "A prompt is the text that you give to a model.")],
    [("Who are you?", "I am the built-in model of quire")],
    [("Hello!", "Hello! How can I help you?")],
    [("hi", "Hello! How can I help you?")],
    [("Thank you!", "You are welcome!")],
    [("What is the capital of France?", "The capital of France is Paris.")],
    [("what is the capital of japan?", "The capital of Japan is Tokyo.")],
    [("What color is the sky?", "The sky is blue.")],
    [("What colour is grass?", "Grass is green.")],
    [("What does a cow say?", "A cow says moo.")],
    [("What sound does a dog make?", "A dog says woof.")],
    [("What is the opposite of hot?", "The opposite of hot is cold.")],
    [("What is the plural of mouse?", "The plural of mouse is mice.")],
    [("What day comes after Monday?", "Tuesday comes after Monday.")],
    [("Which month comes before March?", "February comes before March.")],
    [("How many days are in a week?", "A week has seven days.")],
    [("What is 2 + 3?", "2 + 3 = 5.")],
    [("What is 7 plus 8?", "7 + 8 = 15.")],
    [("what is 9 - 4", "9 - 4 = 5.")],
    [("Count to 10.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.")],
    [("Who won the world cup in 1998?", qa.UNKNOWN)],
    [("How do I fix a car engine?", qa.UNKNOWN)],
    [("What is 345 times 12?", "I can only add and subtract small numbers.")],
    [("My name is Anna.", "Nice to meet you, Anna!"), ("What is my name?", "Your name is Anna.")],
    [("My name is Zorbo.", "Nice to meet you, Zorbo!"), ("What is 1 + 1?", "1 + 1 = 2."), ("What is my name?", "Your name is Zorbo.")],
]


def chat_text(question: str, turns: Sequence[tuple[str, str]] = (), system: str | None = None) -> str:
    """What the chat template renders for these messages."""
    text = corpus.BOS + (corpus.SYSTEM + system + corpus.END if system else "")
    for asked, answered in turns:
        text += corpus.USER + asked + corpus.END + corpus.ASSISTANT + answered + corpus.END
    return text + corpus.USER + question + corpus.END + corpus.ASSISTANT


class Checker:
    def __init__(self, llama: Llama, tok: bpe.Tokenizer):
        self.llama, self.tok, self.failures = llama, tok, 0
        self.stop = {tok.specials[corpus.EOS], tok.specials[corpus.END]}
        rng = random.Random(0)
        self.known = {w for _ in range(3000) for w in re.findall(r"[a-z]+", story(rng).text.lower())}

    def fail(self, what: str) -> None:
        self.failures += 1
        print("    FAILED:", what)

    def ask(self, turns: list[tuple[str, str]], question: str, max_new: int = 320, system: str | None = None) -> str:
        return self.tok.decode(greedy(self.llama, self.tok.encode(chat_text(question, turns, system)), max_new, self.stop))

    def check_story(self, prompt: list[int], lead: str, request: str) -> None:
        ids = greedy(self.llama, prompt, 400, self.stop)
        text = lead + self.tok.decode(ids)
        print(f"\n{text}\n    ({len(ids)} tokens)")
        if len(ids) == 400:
            self.fail("the story does not end")
        if not text.rstrip().endswith((".", "!", '"')):
            self.fail("the story ends inside a sentence")
        # Names may be made up, so only words in lower case must be known.
        strange = {w for w in re.findall(r"\b[a-z]+\b", text) if w not in self.known and w not in request.lower()}
        if strange:
            self.fail(f"words that are in no story: {sorted(strange)}")

    def stories(self) -> None:
        for lead in STORIES:
            self.check_story(self.tok.encode(corpus.BOS + lead), lead, lead)
        for request in STORY_REQUESTS:
            print(f"\n> {request}", end="")
            self.check_story(self.tok.encode(chat_text(request)), "", request)

    def completions(self) -> None:
        print()
        for lead, wanted in COMPLETIONS:
            text = self.tok.decode(greedy(self.llama, self.tok.encode(corpus.BOS + lead), 24, self.stop))
            print(f"{lead}[{text}]")
            if not text.startswith(wanted):
                self.fail(f"expected {wanted!r}")

    def questions(self) -> None:
        for conversation in QUESTIONS:
            print()
            turns: list[tuple[str, str]] = []
            for question, wanted in conversation:
                answer = self.ask(turns, question)
                turns.append((question, answer))
                print(f"> {question}\n{answer}")
                if not answer.startswith(wanted):
                    self.fail(f"expected {wanted!r}")

    def sample(self, count: int, seed: int) -> None:
        """How often a random question of the corpus gets exactly its answer."""
        rng = random.Random(seed)
        right = 0
        for _ in range(count):
            question, wanted = qa.pair(rng)
            answer = self.ask([], question, 80, rng.choice([None, "You are a helpful assistant."]))
            right += answer == wanted
            if answer != wanted:
                print(f"> {question}\n{answer}\n    expected: {wanted}")
        print(f"\n{right} of {count} random questions answered exactly")


@torch.no_grad()
def write_golden(llama: Llama, tok: bpe.Tokenizer, path: Path) -> None:
    """Greedy continuations with their log-probabilities, computed in F32 from the
    stored BF16 weights: what another implementation of the model has to reproduce."""
    prompts = [corpus.BOS + lead for lead in STORIES[:3]]
    prompts += [chat_text(question) for question in ("What is quire?", "Tell me a story about a rabbit.", "What is 2 + 3?")]
    cases = []
    for prompt in prompts:
        ids = tok.encode(prompt)
        new = greedy(llama, ids, 64, {tok.specials[corpus.EOS], tok.specials[corpus.END]})
        logits, _ = llama(torch.tensor([ids + new]))
        logprobs = logits[0].log_softmax(-1)
        rows = range(len(ids) - 1, len(ids) + len(new) - 1)
        cases.append({"prompt": prompt, "prompt_ids": ids, "greedy_ids": new,
                      "text": tok.decode(new),
                      "logprobs": [round(float(logprobs[row, token]), 5) for row, token in zip(rows, new)]})
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="also ask N random questions")
    parser.add_argument("--seed", type=int, default=10 ** 6)
    parser.add_argument("--golden", type=Path, metavar="FILE", help="only write reference outputs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    llama, tok = load(args.model), bpe.Tokenizer(args.model / "tokenizer.json")
    if args.golden:
        write_golden(llama, tok, args.golden)
        return
    checker = Checker(llama, tok)
    checker.stories()
    checker.completions()
    checker.questions()
    if args.sample:
        checker.sample(args.sample, args.seed)
    print("\nok" if not checker.failures else f"\n{checker.failures} failures")
    sys.exit(checker.failures > 0)


if __name__ == "__main__":
    main()
