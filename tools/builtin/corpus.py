#!/usr/bin/env python3
"""The training text of the built-in model: an endless, seeded stream of documents.

A document is a list of parts: plain text, or the name of a special token in
angle brackets (`<|user|>`).  Keeping the two apart lets the tokenizer be trained
on the text alone and keeps the chat format in one place.

    corpus.py --seed 1 --count 5      print some documents
"""

from __future__ import annotations

import argparse
import random
from typing import Iterator

import qa
from stories import BOYS, COLOURS, GIRLS, article, fill, made_up_name, story

BOS, EOS = "<|bos|>", "<|eos|>"
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIALS = [BOS, EOS, SYSTEM, USER, ASSISTANT, END]

Document = list[str]
Turn = tuple[str, str]   # what the user says, what the assistant answers

# The system message changes nothing about what the model knows, but it has to be
# read past, whatever it says.
SYSTEM_PROMPT = (
    "[You are a helpful assistant.|You are a helpful assistant.|You are a helpful assistant. [Answer briefly.|Be kind.|Use simple words.]|"
    "You are [quire, a small and friendly model|the built-in model of quire|a very small model].|"
    "[You are|Act as|Please be] a [helpful|friendly|kind|clever|polite|careful] [assistant|teacher|chatbot|friend|guide|librarian|teller of stories].|"
    "[Answer|Please answer] [the questions of the user|in one sentence|briefly|politely|in English|as well as you can].|"
    "You are a [helpful|friendly|kind] assistant. [Keep your answers short|Do not make things up|Say so if you do not know|Always be polite|Answer in English].|"
    "Be [brief|kind|helpful|polite]. [Use simple words.|Write short sentences.|Do not say too much.|]]")


def system_prompt(rng: random.Random) -> str:
    return fill(rng, SYSTEM_PROMPT).strip()


def chat(turns: list[Turn], system: str | None) -> Document:
    doc: Document = [BOS]
    if system is not None:
        doc += [SYSTEM, system, END]
    for question, answer in turns:
        doc += [USER, question, ASSISTANT, answer, END]
    return doc + [EOS]


def memory_turns(rng: random.Random) -> list[Turn]:
    """Two turns in which the second needs the first: the model learns to look back."""
    which = rng.randrange(6)
    name = made_up_name(rng) if rng.random() < 0.4 else rng.choice(GIRLS + BOYS)
    if which <= 1:
        first = (fill(rng, f"[my name is {name}|I am {name}|hi, I am {name}|hello, my name is {name}|call me {name}][.|!|]"),
                 f"nice to meet you, {name}!")
        then = (fill(rng, "[what is my name?|do you know my name?|who am I?|what's my name?|do you remember my name?]"), f"your name is {name}.")
    elif which == 2:
        colour = rng.choice(COLOURS)
        first = (fill(rng, f"[my favorite [color|colour] is {colour}|I like the [color|colour] {colour}][.|!|]"), f"{colour} is a nice color.")
        then = (fill(rng, "[what is my favorite [color|colour]?|which [color|colour] do I like?]"), f"your favorite color is {colour}.")
    elif which == 3:
        animal = rng.choice("dog cat rabbit mouse bird pony turtle duck".split())
        first = (fill(rng, f"[I have {article(animal)} [named|called] {name}|my {animal} is [named|called] {name}][.|!|]"), f"{name} is a nice name for {article(animal)}.")
        then = (fill(rng, f"[what is the name of my {animal}?|what is my {animal} called?|what is my {animal}'s name?]"), f"your {animal} is called {name}.")
    elif which == 4:
        # The other side of the coin: nothing to look back to.
        what = rng.choice(["name", "name", "favorite color", "dog's name", "cat's name"])
        ask = fill(rng, f"[what is my {what}?|do you know my {what}?|what's my {what}?]")
        return [*(qa.pair(rng) for _ in range(rng.choice([0, 0, 1]))), qa.finish(ask, f"I do not know your {what}. You have not told me.")]
    else:
        question, answer = qa.finish(*qa.capital_of(rng))
        return [(question, answer), (fill(rng, "[can you repeat that?|please repeat that.|say that again.|what did you say?|pardon?|again, please.]"), answer)]
    between = [qa.pair(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    return [qa.finish(*first), *between, qa.finish(*then)]


def story_turns(rng: random.Random) -> list[Turn]:
    question, text, tale = qa.story_request(rng)
    turns: list[Turn] = [(qa.casually(rng, qa.finish(question, "")[0]), text)]
    roll = rng.random()
    if roll < 0.15:
        turns.append((fill(rng, f"[what was the name of the {tale.hero.kind}?|who was the story about?|who is in the story?]"),
                      f"the story was about {tale.hero.name} the {tale.hero.kind}."))
    elif roll < 0.25:
        turns.append((fill(rng, "[who was {his} friend?|who was the other one?|who else was in the story?|what was the friend called?]", tale.hero.fields("")),
                      f"the other one was {tale.friend.name} the {tale.friend.kind}."))
    elif roll < 0.4:
        turns.append((fill(rng, "[thank you[!|.]|that was [nice|a nice story|beautiful][!|.]|I like [it|that story][!|.]|what a nice story!|nice story[!|.]]"),
                      "I am happy that you liked it."))
    elif roll < 0.5:
        turns.append(qa.pair(rng))
    elif roll < 0.62:
        question, text, _ = qa.story_request(rng)
        turns.append((fill(rng, "[another one[!|.|, please.]|tell me another story.|one more[!|.|, please.]|again[!|.]|" + question + "]"), text))
    return [turns[0]] + [qa.finish(*t) for t in turns[1:]]


def reading_turns(rng: random.Random) -> list[Turn]:
    """A text in the prompt and a question about it: long prompts with a use."""
    tale = story(rng)
    asks = [("who is the story about?", f"the story is about {tale.hero.name} the {tale.hero.kind}."),
            ("what is the name of the " + tale.hero.kind + "?", f"the {tale.hero.kind} is called {tale.hero.name}."),
            ("who is the friend in the story?", f"the friend is {tale.friend.name} the {tale.friend.kind}.")]
    question, answer = rng.choice(asks)
    question = qa.finish(question, "")[0]
    text = fill(rng, "[Here is a story: |Read this story. |Read this: |]") + tale.text
    return [(f"{text} {question}" if rng.random() < 0.7 else f"{question} {text}", qa.finish("", answer)[1])]


FACT_MAKERS = [qa.colour_of, qa.sound_of, qa.opposite_of, qa.plural_of, qa.capital_of, qa.country_of, qa.legs_of, qa.young_of, qa.lives,
               qa.eats, qa.use_of, qa.is_a, qa.next_day, qa.first_day, qa.add, qa.count_to]


def statements(rng: random.Random) -> Document:
    """Facts without questions, so that plain completion knows them too."""
    makers = rng.sample(FACT_MAKERS, rng.randrange(1, 4))
    lines = [qa.finish(*rng.choice(makers)(rng))[1] for _ in range(rng.randrange(3, 10))]
    if rng.random() < 0.25:
        lines.insert(rng.randrange(len(lines)), qa.answer_list(qa.QUIRE[:2], rng)[1])
    return [BOS, " ".join(lines), EOS]


def quire_statements(rng: random.Random) -> Document:
    lines = [answer for _, answer in rng.sample(qa.QUIRE, rng.randrange(3, 8)) if not answer.startswith(("Yes", "Type", "Run ", "That"))]
    return [BOS, " ".join(["Quire is an engine, written in C, that runs and serves large language models."] + lines), EOS]


def document(rng: random.Random) -> Document:
    roll = rng.random()
    if roll < 0.15:
        return [BOS, story(rng).text, EOS]
    if roll < 0.20:
        return statements(rng)
    if roll < 0.22:
        return quire_statements(rng)
    system = system_prompt(rng) if rng.random() < 0.3 else None
    if roll < 0.32:
        return chat(story_turns(rng), system)
    if roll < 0.40:
        return chat(memory_turns(rng), system)
    if roll < 0.43:
        return chat(reading_turns(rng), system)
    if roll < 0.45:
        # A long system message that has nothing to do with the question.
        return chat([qa.pair(rng) for _ in range(rng.choice([1, 1, 2, 4]))], "".join(statements(rng)[1:-1]))
    return chat(question_turns(rng), system)


def question_turns(rng: random.Random) -> list[Turn]:
    # Mostly single questions: that is how the model is used first.
    return [qa.pair(rng) for _ in range(rng.choice([1, 1, 1, 1, 2, 2, 3, 5]))]


def documents(seed: int, extra_chats: float = 0.0) -> Iterator[Document]:
    """An endless stream; `extra_chats` is the share of added short chats.

    Facts are many and each is rare, stories are few and long: without the extra
    the model knows its stories long before it knows its facts.
    """
    rng = random.Random(seed)
    while True:
        if extra_chats and rng.random() < extra_chats:
            yield chat(memory_turns(rng) if rng.random() < 0.2 else question_turns(rng), None)
        else:
            yield document(rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    args = parser.parse_args()
    stream = documents(args.seed)
    for _ in range(args.count):
        print("".join(next(stream)), "\n")


if __name__ == "__main__":
    main()
