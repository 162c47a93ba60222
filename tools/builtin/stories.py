"""A seeded grammar of short stories.

`story(rng)` returns a `Story`: its text and the things it is about, so that
chats can ask for "a story about a rabbit" and get one that is.

Templates are plain strings with two constructs:

    [one|two|[three|four]]   one alternative, chosen at random, may nest
    {name}                   a field of the story's environment
    {a:name}                 the same with "a" or "an" before it

A story fixes its characters, object and place once, so names and pronouns
agree all the way through; sentence starts are capitalised at the end, so a
template may begin a sentence with "{he}".
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache

# ---------------------------------------------------------------- templates


def _parse(text: str, pos: int, depth: int) -> tuple[list, int]:
    """Parse alternatives of `text` from `pos` up to the closing bracket."""
    options: list[list] = [[]]
    start = pos
    while pos < len(text):
        ch = text[pos]
        if ch == "[":
            if pos > start:
                options[-1].append(text[start:pos])
            inner, pos = _parse(text, pos + 1, depth + 1)
            options[-1].append(tuple(inner))
            start = pos
            continue
        if depth and ch in "|]":
            if pos > start:
                options[-1].append(text[start:pos])
            start = pos + 1
            if ch == "]":
                return options, pos + 1
            options.append([])
        pos += 1
    if depth:
        raise ValueError(f"unclosed '[' in {text!r}")
    if pos > start:
        options[-1].append(text[start:pos])
    return options, pos


@lru_cache(maxsize=None)
def _compiled(text: str) -> list:
    return _parse(text, 0, 0)[0][0]


def _expand(rng: random.Random, nodes: list, out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        else:
            _expand(rng, rng.choice(node), out)


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def fill(rng: random.Random, template: str, env: dict[str, str] | None = None) -> str:
    """Expand `template`, choosing alternatives with `rng`."""
    out: list[str] = []
    _expand(rng, _compiled(template), out)
    text = "".join(out)
    if env is None:
        return text

    def field(match: re.Match) -> str:
        key = match.group(1)
        return article(env[key[2:]]) if key.startswith("a:") else env[key]

    return re.sub(r"\{([a-z:A-Z0-9_]+)\}", field, text)


# A sentence starts a slot, follows a full stop, or follows speech that ended in
# a full stop ('." He ...'); after '?"' or '!"' the sentence may go on ('she said').
_SENTENCE_START = re.compile(r'(^|[.!?] |\." )([a-z])')
# Speech starts with a capital unless it only resumes ('"Yes," said Tom, "but ..."').
_SPEECH_START = re.compile(r'(^|[.!?] |\." |said, |asked, )"([a-z])')


def punctuate(text: str) -> str:
    """Capitalise the sentence starts and the starts of speech in `text`."""
    text = _SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)
    return _SPEECH_START.sub(lambda m: m.group(1) + '"' + m.group(2).upper(), text)


# --------------------------------------------------------------- vocabulary

GIRLS = ("Lily Mia Anna Emma Zoe Lucy Ella Rose Ruby Nora Clara Ivy Maya Sara Jane "
         "Amy Kate Molly Daisy Lena").split()
BOYS = ("Tom Ben Max Sam Leo Jack Tim Oscar Finn Noah Adam Theo Paul Hugo Luke "
        "Dan Peter Will Mark Eli").split()
PETS_F = "Pip Luna Bella Coco Poppy Willow Hazel Honey Misty Olive".split()
PETS_M = "Rusty Bruno Fuzzy Momo Biscuit Otto Milo Shadow Teddy Nibbles".split()
ROBOTS = "Bolt Zip Beep Chip Gizmo Rivet Spark Dot".split()

ANIMALS = ("rabbit fox bear mouse cat dog bird duck frog squirrel hedgehog turtle owl "
           "pony lamb kitten puppy elephant monkey penguin lion tiger dragon beaver otter").split()
ROBOT_KINDS = ["robot"]
SIZES = "little small young tiny".split()
TRAITS = ("kind brave curious clever happy shy gentle cheerful quiet friendly "
          "patient careful helpful").split()

# Things a character can own, carry, lose and find again.
OBJECTS = ("ball kite hat scarf book drum bell boat lamp box key coin cup basket "
           "umbrella blanket whistle lantern button map feather shell").split()
COLOURS = "red blue green yellow orange purple pink white golden silver".split()

HOMES = ["a small village", "a little house by the sea", "a quiet forest", "a green valley",
         "a big town", "a house on a hill", "a cottage near the river", "an old farm",
         "a warm little house", "a town by the lake"]
# Places one can go to; each reads well after "went to", "near" and "at".
PLACES = ["the park", "the forest", "the river", "the lake", "the beach", "the old bridge",
          "the meadow", "the hill", "the garden", "the market", "the big oak tree", "the library",
          "the pond", "the mill"]
HIDING = ["under the bed", "behind the door", "in the tall grass", "under a bush", "next to the river",
          "behind a big rock", "under the table", "in the garden", "near the old well",
          "under a pile of leaves", "behind the fence", "inside an old box"]
SNACKS = ["apple", "sandwich", "cookie", "pear", "piece of cake", "slice of bread", "banana",
          "bag of nuts", "bowl of berries", "honey cake"]
HOBBIES = ["play in the garden", "read books", "sing songs", "draw pictures", "climb trees", "look at the stars",
           "run in the meadow", "swim in the lake", "collect shells", "tell jokes", "bake bread", "paint", "dance"]
FLOWERS = ["rose", "sunflower", "tulip", "pumpkin", "tomato", "strawberry plant", "apple tree", "bean"]


def made_up_name(rng: random.Random) -> str:
    """A pronounceable name that is in no list, so that the model learns to copy
    names it has never seen instead of only recalling the usual ones."""
    onset = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "tr", "fl"]
    vowel = ["a", "e", "i", "o", "u", "ee", "oo"]
    coda = ["", "", "n", "l", "r", "s", "x", "m"]
    parts = [rng.choice(onset) + rng.choice(vowel) for _ in range(rng.choice([1, 2, 2]))]
    return ("".join(parts) + rng.choice(coda)).capitalize() + rng.choice(["", "a", "y", "o"])


PRONOUNS = {"f": ("she", "her", "her", "herself"), "m": ("he", "him", "his", "himself"),
            "n": ("it", "it", "its", "itself")}


@dataclass
class Character:
    name: str
    kind: str      # "girl", "rabbit", ...
    gender: str    # key of PRONOUNS
    trait: str

    def fields(self, prefix: str) -> dict[str, str]:
        he, him, his, self_ = PRONOUNS[self.gender]
        name = "N" if prefix == "" else prefix.upper()
        return {name: self.name, prefix + "kind": self.kind, prefix + "trait": self.trait,
                prefix + "he": he, prefix + "him": him, prefix + "his": his, prefix + "self": self_,
                prefix + "He": he.capitalize(), prefix + "His": his.capitalize()}

    def size(self, rng: random.Random) -> str:
        return rng.choice(["little", "small", "young"] if self.kind in ("girl", "boy") else SIZES)

    def called(self, hero: Character) -> str:
        """How the text calls a friend who has not been introduced."""
        if self.kind in ("girl", "boy"):
            return PRONOUNS[hero.gender][2] + " friend " + self.name
        return f"{self.name} the {self.kind}"


def character(rng: random.Random, kind: str | None = None, avoid: str = "") -> Character:
    if kind is None:
        roll = rng.random()
        kind = ("girl" if roll < 0.24 else "boy" if roll < 0.48 else
                "robot" if roll < 0.55 else rng.choice(ANIMALS))
    if kind == "girl":
        gender, names = "f", GIRLS
    elif kind == "boy":
        gender, names = "m", BOYS
    elif kind in ROBOT_KINDS:
        gender, names = "n", ROBOTS
    else:
        gender = rng.choice("fm")
        names = PETS_F if gender == "f" else PETS_M
    name = made_up_name(rng) if rng.random() < 0.12 else rng.choice(names)
    while name == avoid:
        name = rng.choice(names)
    return Character(name, kind, gender, rng.choice(TRAITS))


# ---------------------------------------------------------------- story parts

OPENINGS = [
    "once upon a time, there was {a:size} {kind} named {N}. {he} lived in {home}.",
    "once upon a time, there was {a:size} {kind} named {N} who lived in {home}.",
    "once upon a time, in {home}, there lived {a:trait} {kind} named {N}.",
    "once upon a time, {a:size} {kind} named {N} lived in {home}. {N} was [very|always] {trait}.",
    "there was once {a:trait} {kind} named {N}. {he} lived in {home}.",
    "there was {a:size} {kind} named {N} who lived in {home}. {he} was very {trait}.",
    "long ago, in {home}, there lived {a:size} {kind} named {N}. {he} was {trait} and {trait2}.",
    "in {home} there lived {a:trait} {kind}. {his} name was {N}.",
    "{N} was {a:size} {kind} who lived in {home}. [everyone|everybody] knew that {N} was very {trait}.",
    "a long time ago, {a:trait} {kind} named {N} lived in {home}.",
]
HABITS = [
    "{he} [loved|liked] to {hobby}.",
    "every day {he} [loved|liked] to {hobby}.",
    "more than anything, {N} loved to {hobby}.",
    "when the sun was shining, {he} liked to {hobby}.",
]
# An opening that starts in the middle of the day instead of with a description.
DAY_OPENINGS = [
    "one day, {a:size} {kind} named {N} woke up early. the sun was shining and {he} felt [happy|ready for the day].",
    "one day, {a:trait} {kind} named {N} looked out of the window. [it was a beautiful day|the sky was blue|the birds were singing].",
    "one morning, {a:size} {kind} named {N} [woke up early|got up with the sun]. {he} was {trait} and {trait2}.",
    "it was a [warm|bright|cool|quiet] [morning|day] in [spring|summer|autumn]. {a:size} {kind} named {N} was [sitting near|walking to] {place}.",
    "one [sunny|windy|bright] day, {a:size} {kind} named {N} went out to {hobby}.",
]
DAYS = "[one day|one morning|one sunny day|one afternoon|one bright morning|early one morning|one day in spring|one windy day]"
MEET = ("{his} best friend was {M}, {a:mtrait} {mkind}.|{he} had a good friend named {M}, who was {a:mtrait} {mkind}.|"
        "{his} friend {M} was {a:mtrait} {mkind}.")
ENDINGS = [
    "{N} and {M} [were|stayed] [best friends|good friends] [forever|for a very long time].",
    "[from that day on|after that day], {N} and {M} [met|played together|were together] every day.",
    "that night, {N} [went to sleep|fell asleep] with a smile.",
    "it was the best day of the whole year.",
    "and {N} never forgot that day.",
    "they all lived happily ever after.",
    "{N} went home with a warm heart.",
]


@dataclass
class Story:
    text: str
    plot: str
    hero: Character
    friend: Character
    topics: list[str]     # "a rabbit", "a red ball", "the sea", "sharing" ...


# A plot: theme words for requests, and its paragraphs' sentences in order.  An
# entry that is a list stands for one sentence slot with alternatives; short
# ones are joined with spaces.  Slots that begin with "?" are left out half of
# the time, which varies length without breaking the thread.
PLOTS: dict[str, dict] = {
    "lost": dict(
        topics=["{a:object}", "{a:colour} {object}", "a lost {object}"],
        slots=[
            "{N} had {a:colour} {object} that {he} loved very much.|{N} had {a:colour} {object}. it was a gift from {his} {elder}.",
            "?" + MEET,
            "[" + DAYS + ", the {object} was gone|" + DAYS + ", {N} could not find the {object}].",
            "{N} looked {hide1}, but it was not there.|first {he} looked {hide1}. the {object} was not there.",
            "then {he} looked {hide2}, but [all {he} found was a spider|there was nothing there].",
            "{N} was very sad and began to cry.|{N} sat down and felt very sad.|{N} did not know what to do.",
            "{Mk} came by and asked, \"why are you sad, {N}?\"|just then, {Mk} came along. \"what is wrong?\" {mhe} asked.",
            "\"I lost my {object},\" said {N}. \"[I have looked everywhere|I cannot find it].\"",
            "\"[do not worry|do not cry],\" said {M}. \"[let us look together|I will help you find it].\"",
            "they walked to {place} and looked {hide3}.|they went to {place}. they looked up and down, and then they looked {hide3}.",
            "there it was! the {colour} {object} was {hide3}.|\"look!\" said {M}. the {colour} {object} was right there.",
            "{N} was so happy that {he} [hugged {M}|jumped up and down].|{N} [laughed|smiled] and gave {M} a big hug.",
            "\"thank you, {M},\" said {N}. \"you are a true friend.\"|\"thank you for your help,\" said {N}.",
            "?[on the way home, they sang a song|they played with the {object} until the sun went down].",
        ]),
    "learn": dict(
        topics=["learning", "learning to {skill}", "practice"],
        slots=[
            "{N} wanted to learn to {skill}.|there was one thing that {N} wanted more than anything. {he} wanted to {skill}.",
            "?" + MEET,
            DAYS + ", {he} went to {place} to try.",
            "the first time, {he} {fail}. {he} felt [sad|a little silly].|at first it was very hard. {he} tried once, and {he} {fail}.",
            "\"I cannot do it,\" said {N}. \"[it is too hard|I will never learn].\"",
            "{Mk} was watching. \"everyone has to start somewhere,\" {mhe} said. \"[try again|do not give up].\"|"
            "{Mk} sat down next to {him}. \"I could not do it either when I was small,\" {mhe} said. \"you must practice.\"",
            "so {N} tried again the next day, and the day after that.|so {N} practiced every morning and every evening.",
            "some days it went well, and some days it did not.|each day it was a little easier.",
            "{M} came every day to [watch|help] and always said something kind.|{M} showed {him} what to do, one small step at a time.",
            "at last, after many days, {N} could {skill}!|then, one morning, {he} did it. {N} could {skill}!",
            "\"look at me!\" {he} shouted. {M} clapped and cheered.|{M} cheered so loudly that the birds flew out of the trees.",
            "{N} was very proud. {he} had learned that [hard things become easy with practice|it is good to try again].",
        ]),
    "share": dict(
        topics=["sharing", "{a:snack}", "being kind"],
        slots=[
            DAYS + ", {N} went to {place} with {a:snack} for lunch.|" + DAYS + ", {his} {elder} gave {him} {a:snack}. {N} took it to {place}.",
            "{he} sat down [in the shade|under a tree|in the sun] and was about to eat.",
            "then {he} saw {a:msize} {mkind}. the {mkind} looked [hungry|tired and hungry|cold and hungry].",
            "\"hello,\" said {N}. \"what is your name?\"",
            "\"my name is {M},\" said the {mkind}. \"I have not eaten [all day|since yesterday].\"",
            "{N} looked at the {snack}. {he} was hungry too.|{N} thought about it. it was the only {snack} {he} had.",
            "but {he} was {a:trait} {kind}, so {he} [broke it in two|gave half of it to {M}].",
            "\"here,\" said {N}. \"[half is for you|we can share it].\"",
            "{M} ate and smiled. \"thank you,\" {mhe} said. \"[this is the best {snack} in the world|you are very kind].\"",
            "?they talked and laughed until the sun went down.",
            "the next day, {M} came back with a basket full of [berries|apples|nuts]. \"today I will share with you,\" {mhe} said.",
            "{N} learned that [food tastes better when you share it|a small gift can make a new friend].",
        ]),
    "dark": dict(
        topics=["the dark", "being brave", "the night", "a storm"],
        slots=[
            "{N} was not afraid of many things, but {he} was afraid of [the dark|thunder|storms].",
            "one night, there was a big storm. the wind blew and the rain hit the window.",
            "boom! the thunder was very loud. {N} hid under the blanket.|a loud noise came from outside, and {N} hid under the bed.",
            "\"what was that?\" {he} whispered.",
            "{his} {elder} came in with a small [lamp|candle]. \"are you afraid?\" {ehe} asked.",
            "\"yes,\" said {N}. \"[it is so loud|it is so dark].\"",
            "\"thunder is only the clouds [clapping their hands|playing the drum],\" said {his} {elder}. \"it cannot hurt you here.\"|"
            "\"when I was small, I was afraid too,\" said {his} {elder}. \"then I learned to count. let us count together.\"",
            "they [counted to ten|sang a quiet song] and listened to the rain.|they counted slowly: one, two, three, four, five.",
            "then {N} heard a small sound at the door. it was {M}, {a:msize} {mkind}, who was cold and wet.",
            "\"come in,\" said {N}. \"do not be afraid. it is only the rain.\"",
            "{he} gave {M} a warm blanket, and {M} stopped shaking.",
            "{N} had been so busy helping {M} that {he} forgot to be afraid.|now {N} was not afraid any more, because helping a friend had made {him} brave.",
            "in the morning, the sun came out and there was a rainbow in the sky.",
        ]),
    "rescue": dict(
        topics=["helping", "a rescue", "{a:mkind}", "being brave"],
        slots=[
            DAYS + ", {N} was walking near {place} when {he} heard a small voice.",
            "\"help! help!\" cried the voice.|\"please help me!\" said the voice.",
            "{N} looked around and saw {a:msize} {mkind}. the {mkind} was stuck [in a deep hole|in the mud|between two big rocks].",
            "\"[do not be afraid|stay calm],\" said {N}. \"I will help you. what is your name?\"",
            "\"I am {M},\" said the {mkind}. \"I have been here [all night|since this morning].\"",
            "{N} tried to pull {M} out, but {he} was not strong enough.|{N} pulled and pulled, but {M} did not move.",
            "so {he} ran [home|to the farm|to the village] and came back with a long rope.|then {N} had an idea. {he} found a long [branch|rope] and held on tight.",
            "\"hold on!\" said {N}. {he} counted to three and pulled [with all {his} strength|as hard as {he} could].",
            "one, two, three! {M} was free.|slowly, slowly, {M} came up. at last {mhe} was free.",
            "\"thank you for saving me,\" said {M}. \"how can I thank you?\"",
            "\"you can be my friend,\" said {N} [with a smile|and smiled].",
            "?{M} was tired, so {N} took {mhim} home and made some warm soup.",
        ]),
    "build": dict(
        topics=["building", "{a:thing}", "working together"],
        slots=[
            MEET,
            DAYS + ", {N} said, \"let us build {a:thing}!\"",
            "\"that is a great idea,\" said {M}. \"what do we need?\"",
            "\"we need [wood, paper and string|wood and a little glue|some wood and a lot of time],\" said {N}.",
            "they looked for everything near {place} and worked all morning.",
            "at noon the {thing} was ready. it was big and {colour}.|when they were done, they painted the {thing} {colour}.",
            "but then a strong wind came, and crash! the {thing} fell apart.|but it was not strong. when {N} touched it, it broke into pieces.",
            "{N} was [angry|sad]. \"all our work was for nothing,\" {he} said.",
            "\"no,\" said {M}. \"now we know [what was wrong|how to make it better]. let us try again.\"",
            "so they started again. this time they worked slowly and made every part strong.",
            "?{his} {elder} brought them some [water|lemonade|bread] and helped a little.",
            "in the evening the new {thing} was ready, and it was even better than the first one.",
            "the wind came back, but the {thing} did not break.|\"we did it!\" they shouted, and they danced around the {thing}.",
        ]),
    "garden": dict(
        topics=["a garden", "a seed", "{a:plant}", "waiting"],
        slots=[
            DAYS + ", {his} {elder} gave {him} a tiny seed. \"plant it and be patient,\" {ehe} said.",
            "{N} made a small hole in the ground and put the seed inside.",
            "every morning {he} gave it some water.|every day {he} gave it water and told it a story.",
            "after one day, nothing happened. after two days, nothing happened.|{he} waited and waited, but nothing came up.",
            "\"maybe the seed is [sleeping|broken],\" said {N}.",
            "{Mk} looked at the ground. \"good things take time,\" {mhe} said. \"[give it one more week|wait a little longer].\"",
            "so {N} waited. it rained, and then the sun came out.",
            "one morning there was a tiny green leaf! {N} [could not believe it|jumped for joy].",
            "the plant grew and grew. soon it was as tall as {N}.|each day it was a little bigger, and each day {N} was a little happier.",
            "in the summer it was a beautiful {plant}.|by the end of the summer, it had become a beautiful {plant}.",
            "{N} called all {his} friends to see it. \"how did you do it?\" they asked.",
            "\"[I gave it water and time|I was patient],\" said {N}, and {M} [laughed|smiled].",
        ]),
    "gift": dict(
        topics=["a gift", "a birthday", "a birthday party"],
        slots=[
            "{his} best friend was {M}, {a:mtrait} {mkind}. tomorrow was {mhis} birthday.|{N} had a friend named {M}, {a:mtrait} {mkind}. soon it would be {mhis} birthday.",
            "{N} wanted to give {M} something special, but {he} had no money.",
            "{he} went to the market and saw {a:colour} {object}. it was beautiful, but it cost too much.",
            "{N} walked home slowly. \"what can I do?\" {he} thought.",
            "\"the best gifts come from the heart,\" said {his} {elder}. \"[you can make something|make something with your own hands].\"",
            "so {N} took some paper, [paint and glue|string and paint], and began to work.",
            "{he} worked all day and late into the night.|{he} worked until the stars came out.",
            "in the morning it was ready. it was {a:object} made of paper, and it was {colour}.",
            "at the party, {M} opened [many big gifts|all the other gifts] first. {N} was nervous.",
            "then {M} opened the little gift. {mhis} eyes grew big.",
            "\"did you make this for me?\" {mhe} asked. \"[it is the best gift of all|I love it].\"",
            "{N} was so happy that {his} face turned red.|{N} smiled from ear to ear.",
            "?everyone ate cake and sang until the moon came up.",
        ]),
    "bake": dict(
        topics=["baking", "a cake", "bread", "cooking"],
        slots=[
            "{N} loved the smell of fresh {food}.",
            DAYS + ", {he} wanted to make {food} all by {self}.",
            "{he} took flour, eggs and milk, and mixed them in a big bowl.|{he} put flour, sugar and milk into a bowl and mixed them well.",
            "but then {he} went out to play and forgot all about it.|then {he} sat down to read a book and forgot about the oven.",
            "soon there was smoke in the kitchen. the {food} was black!",
            "\"oh no!\" said {N}. \"I burned it.\"",
            "{Mk} smelled the smoke and ran in. \"are you all right?\" {mhe} asked.",
            "\"yes,\" said {N}, \"but the {food} is not.\" they looked at each other and began to laugh.",
            "\"let us make it again,\" said {M}. \"this time we will watch it together.\"",
            "so they mixed the flour, the eggs and the milk again, and they did not leave the kitchen.",
            "when the {food} was ready, it was golden and warm.",
            "they ate it with [butter|honey|jam] and gave some to {his} {elder}.",
            "\"this is the best {food} I have ever eaten,\" said {his} {elder}.",
        ]),
    "quire": dict(
        topics=["quire", "a library", "pages", "paper"],
        hero="robot",
        slots=[
            "{N} worked in a big library. every day, [children|people] came with questions, and {N} looked for the answers.",
            "{N} wrote each answer on a page, and the pages lay all over the floor.",
            DAYS + ", so many [children|people] came that {N} could not find a free page.",
            "\"please wait,\" said {N}. \"I have too many pages and not enough room.\"",
            "{Mk} lived under the desk. \"why are all your pages of different sizes?\" {mhe} asked.",
            "{N} thought about it. \"you are right,\" it said. \"equal pages are easy to keep.\"",
            "so {N} cut all the paper into equal pages and put them in a neat bundle. \"this is a quire,\" it said.",
            "when two [children|people] asked the same question, {N} used the same page again.|when someone went home, {N} gave the pages back, and the next one could use them.",
            "soon nobody had to wait. the questions came in, and the answers went out.",
            "\"how fast you are!\" said the children.|\"how clever you are!\" said the people.",
            "\"it was {M} who had the idea,\" said {N}, and the {mkind} [smiled|was very proud].",
            "in the evening they counted the pages. not one page was lost.",
        ]),
    "race": dict(
        topics=["a race", "a contest", "running"],
        slots=[
            DAYS + ", there was a big race in the village. everyone wanted to win.",
            "{M}, {a:mtrait} {mkind}, was the fastest of all. \"nobody can beat me,\" {mhe} said.|{Mk} was very fast. \"I will win,\" {mhe} said, \"I always win.\"",
            "{N} was not very fast, but {he} wanted to try.",
            "one, two, three, go! they ran past {place} and over the bridge.",
            "{M} was far ahead. {N} was the last of all, but {he} did not stop.",
            "then {M} fell over a stone and hurt {mhis} foot. the others ran past and did not stop.",
            "when {N} saw {M}, {he} stopped. \"can you walk?\" {he} asked.",
            "\"no,\" said {M}. \"go on, or you will lose the race.\"",
            "\"a friend is more important than a race,\" said {N}. {he} helped {M} to stand up, and they walked together.",
            "they came in last, but everyone clapped and cheered for them.",
            "{his} {elder} gave {N} {a:colour} ribbon. \"this is for the kindest heart,\" {ehe} said.",
            "{M} was not proud any more. \"you are the real winner,\" {mhe} said.",
        ]),
    "truth": dict(
        topics=["telling the truth", "being honest", "a mistake"],
        slots=[
            DAYS + ", {N} was playing with a ball in the house.",
            "{his} {elder} had told {him} to play outside, but {N} did not listen.",
            "the ball hit {a:colour} [vase|cup|bowl], and it fell to the floor and broke.",
            "{N} was afraid. {he} put the pieces behind the door.|{N} did not know what to do, so {he} hid the pieces in a box.",
            "at dinner, {his} {elder} asked, \"what happened here?\"",
            "\"maybe it was {Mk},\" said {N}. but {he} felt bad, and {he} could not eat.|\"I do not know,\" said {N}. but {his} heart felt heavy, and {he} could not look up.",
            "that night {N} could not sleep. {he} thought about it for a long time.",
            "at last {he} got up and went to {his} {elder}. \"I did it,\" {he} said. \"I am sorry.\"",
            "{his} {elder} gave {him} a hug. \"thank you for telling me the truth,\" {ehe} said. \"that was very brave.\"",
            "the next day, they put the pieces together with glue.",
            "it was not perfect, but {N} liked it even more than before.",
            "{N} learned that [the truth is lighter than a lie|it is always better to tell the truth].",
        ]),
    "wish": dict(
        topics=["magic", "a wish", "a magic {object}"],
        slots=[
            DAYS + ", {N} found an old {object} near {place}.",
            "it was dirty, so {he} cleaned it with {his} hand. suddenly the {object} began to shine.",
            "\"hello,\" said a small voice. \"I am a magic {object}. you may have one wish.\"",
            "{N} thought hard. {he} could wish for gold, or for a castle, or for a mountain of candy.",
            "then {he} saw {M}, {a:msize} {mkind}, sitting all alone in the rain.",
            "{M} had no home and no friends. {mhe} looked very [sad|lonely].",
            "\"I know what I want,\" said {N}. \"I wish that {M} had a home.\"",
            "there was a flash of {colour} light. and there, under the trees, stood a little house with a warm fire.",
            "\"is this for me?\" asked {M}. {mhe} could not believe it.",
            "\"yes,\" said {N}, \"and I live just around the corner.\"",
            "\"you had only one wish, and you gave it away,\" said the {object}. \"that is the greatest magic of all.\"",
            "?after that the {object} never spoke again, but {N} kept it on the shelf.",
        ]),
    "journey": dict(
        topics=["a journey", "the sea", "an adventure", "a long walk"],
        slots=[
            "{N} had never seen the sea. {he} had only heard about it in stories.",
            DAYS + ", {he} put some bread and {a:snack} in a bag and began to walk.",
            "{he} walked past {place} and over the hills.",
            "on the way {he} met {a:msize} {mkind}. \"where are you going?\" asked the {mkind}.",
            "\"I am going to see the sea,\" said {N}. \"do you want to come with me?\"",
            "\"yes,\" said the {mkind}. \"my name is {M}.\" so they walked on together.",
            "when it was hot, they rested under a tree. when it was dark, they slept under the stars.",
            "?one day they came to a wide river. there was no bridge, so they built a small boat.",
            "after three days, {N} was tired. \"maybe the sea is only a story,\" {he} said.",
            "\"just one more hill,\" said {M}. so they climbed one more hill.",
            "and there it was! the sea was big and blue, and it went on and on.",
            "they ran down to the water and played in the waves all day.",
            "{N} put a white shell in {his} bag to show to {his} {elder}.",
        ]),
    "snow": dict(
        topics=["snow", "winter", "a snowman"],
        slots=[
            "one winter morning, {N} woke up and everything was white. it had snowed all night.",
            "{he} put on {a:colour} hat and ran outside.",
            "?" + MEET,
            "{Mk} was already there. \"let us make a snowman!\" {mhe} said.",
            "they rolled one big ball, one middle ball and one small ball.",
            "they gave the snowman a carrot for a nose and two stones for eyes.",
            "\"he looks cold,\" said {N}. so {he} gave the snowman {his} {colour} hat.",
            "they played around the snowman until their feet were cold and their faces were red.",
            "then {his} {elder} called them in for warm milk and cookies.",
            "at night {N} looked out of the window. it seemed that the snowman was smiling.",
            "a few days later, the sun was warm and the snowman was gone. only the hat was left.",
            "\"do not be sad,\" said {M}. \"he will come back next winter.\"",
        ]),
    "lostway": dict(
        topics=["the forest", "finding the way home", "getting lost"],
        slots=[
            DAYS + ", {N} went into the forest to look for [berries|mushrooms|nuts].",
            "{he} walked and walked, and {he} did not look where {he} was going.",
            "when the sun began to go down, {N} did not know the way home.",
            "\"every tree looks the same,\" {he} said. {his} voice was very small.",
            "an old owl sat on a branch. \"who are you?\" said the owl.",
            "\"I am {N}, and I am lost,\" {he} said. \"can you help me?\"",
            "\"I can see the whole forest from the top of this tree,\" said the owl. \"follow me.\"",
            "the owl flew from tree to tree, and {N} followed.|the owl flew slowly, and {N} ran after her.",
            "they went over a stream, past a big rock and through the tall grass.",
            "at last {N} saw a light. it was {Mk} with a lantern!",
            "\"there you are!\" said {M}. \"we were all looking for you.\"",
            "{N} turned to thank the owl, but she was gone. there was only a [white|grey] feather on the ground.",
            "{N} kept the feather, and after that day {he} always remembered to look at the way.",
        ]),
    "song": dict(
        topics=["music", "a song", "singing", "being shy"],
        slots=[
            "{N} had a beautiful voice, but {he} was too shy to sing when others could hear.",
            "{he} only sang when {he} was alone near {place}.",
            DAYS + ", {Mk} was walking by and heard the song.",
            "{M} sat down very quietly and listened until the end. then {mhe} clapped.",
            "{N} turned red. \"I did not know that anyone was here,\" {he} said.",
            "\"that was the most beautiful song in the world,\" said {M}. \"will you sing at the [summer|spring] party?\"",
            "\"oh no,\" said {N}. \"I could never do that. everyone would look at me.\"",
            "\"then look only at me,\" said {M}. \"I will stand right in front.\"",
            "on the night of the party, {N} stepped up. {his} legs were shaking.",
            "{he} saw {M}, who smiled at {him}. so {N} closed {his} eyes and began to sing.",
            "nobody moved. even the wind was quiet.|the people stopped talking and listened.",
            "when the song was over, everyone cheered, and {N} laughed with joy.",
        ]),
    "newfriend": dict(
        topics=["friendship", "a new friend", "friends", "being lonely"],
        slots=[
            "{N} had many toys, but {he} had nobody to play with, and {he} was lonely.",
            DAYS + ", a new family came to live next door. they had {a:msize} {mkind} named {M}.",
            "{N} wanted to say hello, but {he} did not know how.",
            "{he} looked over the fence. {M} was sitting alone with {a:colour} {object}.",
            "\"that is a nice {object},\" said {N} in a quiet voice.",
            "{M} looked up. \"thank you,\" {mhe} said. \"do you want to play with me?\"",
            "\"yes, please!\" said {N}, and {he} climbed over the fence.",
            "they played all afternoon. first they ran to {place}, and then they told each other stories.",
            "{M} did not know anyone in {town}, so {N} showed {mhim} everything.",
            "\"I was afraid that I would have no friends here,\" said {M}.",
            "\"I was afraid of that too,\" said {N}. they both laughed.",
            "?when it was time to go home, they promised to meet again the next day.",
        ]),
    "star": dict(
        topics=["a star", "the moon", "the sky", "stars"],
        slots=[
            "every night, {N} looked at the stars and said good night to the smallest one.",
            "one night, the smallest star was not there. {N} looked and looked, but it was gone.",
            "in the morning {he} found something {hide1}. it was small and warm, and it was shining.",
            "\"I fell from the sky,\" said the little star. \"I do not know how to get back.\"",
            "{N} ran to {M}, {a:mtrait} {mkind}. \"how can we bring a star back to the sky?\" {he} asked.",
            "{M} thought for a long time. \"we need [the highest hill|the tallest tree] and the strongest wind,\" {mhe} said.",
            "so they put the star in a basket and climbed up, step by step.",
            "at the top they made a big {colour} kite and tied the basket to it.",
            "the wind was strong. up and up went the kite, until they could not see it any more.",
            "that night, the smallest star was back in the sky. it shone brighter than before.",
            "\"good night, little star,\" said {N}. and the star [seemed to smile|winked] at {him}.",
        ]),
    "picnic": dict(
        topics=["a picnic", "the rain", "a rainy day"],
        slots=[
            MEET,
            DAYS + ", {N} and {M} wanted to have a picnic at {place}.",
            "they put {a:snack}, some cheese and a bottle of [water|lemonade] in a basket.|they packed {a:snack} and {a:colour} blanket.",
            "but when they sat down, dark clouds came over the hills.",
            "\"oh no,\" said {N}. \"now everything will get wet.\"",
            "the first drops fell, and soon it was raining very hard.",
            "?{M} tried to hold the blanket over the food, but the wind was too strong.",
            "they ran as fast as they could and hid [under the old bridge|in an empty barn|under a big tree].",
            "{N} was [sad|angry] because the picnic was over.",
            "\"who says that it is over?\" said {M}. {mhe} put the blanket on the dry ground.",
            "so they had their picnic there, and they listened to the rain.",
            "{M} told a funny story, and {N} laughed so much that {he} dropped {his} {snack}.",
            "when the rain stopped, they jumped in every puddle on the way home.",
            "\"a rainy day can be a good day,\" said {N}.",
        ]),
    "letter": dict(
        topics=["a letter", "an old neighbor", "being kind"],
        slots=[
            "an old woman lived at the end of the street. nobody ever came to see her.",
            DAYS + ", {N} saw her at the window. she looked lonely.",
            "{N} went home and wrote a letter. \"dear neighbor,\" it said, \"I hope you have a nice day.\"",
            "{he} drew {a:colour} [flower|bird|heart] on the letter and put it under her door.",
            "the next morning, there was a letter under {his} own door.",
            "\"thank you, dear {N},\" it said. \"your letter made me smile. please come and have some tea.\"",
            "{N} was a little afraid, so {he} asked {M}, {a:mtrait} {mkind}, to come along.",
            "the old woman opened the door. her house smelled of [apples and honey|fresh bread|roses].",
            "they drank tea, and she told them about [the time when she was young|her travels over the sea].",
            "{M} liked the cookies most of all.",
            "\"may we come back tomorrow?\" asked {N}.",
            "\"you may come every day,\" said the old woman, and her eyes were shining.",
        ]),
    "cloud": dict(
        topics=["a cloud", "the sky", "the wind"],
        slots=[
            "there was a small white cloud that followed {N} everywhere.",
            "when {N} went to {place}, the cloud came too. when {N} went home, it waited over the roof.",
            "\"what do you want, little cloud?\" asked {N}. but the cloud did not answer.",
            DAYS + ", {M} the {mkind} looked up. \"that cloud is sad,\" {mhe} said. \"it has lost its family.\"",
            "{N} looked at the sky. far away, over the hills, there were many white clouds.",
            "\"how can we bring it to them?\" asked {N}. \"we cannot fly.\"",
            "\"we need the wind,\" said {M}. so they climbed to the top of the hill and called the wind.",
            "at first nothing happened. then the leaves began to move.",
            "\"who is calling me?\" asked the wind in a deep voice.",
            "\"please bring our little cloud home,\" said {N}.",
            "the wind blew, and the cloud went up and away over the hills.",
            "the next morning, a few warm drops of rain fell on {his} window. {N} knew that it was the cloud, saying thank you.",
        ]),
    "boat": dict(
        topics=["a boat", "the river", "an island"],
        slots=[
            "{N} had a small boat that was {colour}. it was old, but {he} loved it.",
            MEET,
            DAYS + ", they took the boat out on the water.",
            "the sun was warm, and the water was quiet. {M} closed {mhis} eyes and fell asleep.",
            "when {mhe} woke up, they were far away. they could not see the land any more.",
            "\"where are we?\" asked {M}. \"I do not know,\" said {N}, and {his} voice was shaking.",
            "then {N} saw a small island with one tall tree. they went there and pulled the boat out of the water.",
            "from the top of the tree, {N} could see smoke in the distance. \"that is our village!\" {he} shouted.",
            "they rowed and rowed, first {N} and then {M}.",
            "?a fish jumped out of the water and made them laugh.",
            "when they came home, it was almost dark. {his} {elder} was waiting for them.",
            "\"next time, one of us must stay awake,\" said {N}.",
            "?{M} said that the island would be their secret.",
        ]),
    "painting": dict(
        topics=["a picture", "painting", "colors"],
        slots=[
            "{N} loved to paint. {he} painted the trees, the houses and the sky.",
            DAYS + ", all {his} paint was gone. only {colour} was left.",
            "\"how can I paint with only one color?\" said {N}. {he} was not happy.",
            "{Mk} was sitting on the fence. \"then paint things that are {colour},\" {mhe} said.",
            "{N} looked around. {he} had never looked so carefully before.",
            "there was {a:colour} flower near the door, {a:colour} stone in the grass and {a:colour} light in the evening sky.",
            "{N} painted them all, one after the other.",
            "{M} looked at the picture. \"it is the best one you have ever made,\" {mhe} said.",
            "{his} {elder} put it on the wall, where everyone could see it.",
            "?many people came to look at it, and some of them smiled.",
            "after that, {N} often used only one color, even when {he} had all of them.",
        ]),
    "pet": dict(
        topics=["a pet", "an egg", "taking care"],
        slots=[
            DAYS + ", {N} found {a:colour} egg {hide1}.",
            "there was nobody near it, and it was cold. {N} put it in a box with a soft blanket.",
            "\"what is in it?\" asked {M}, {a:mtrait} {mkind} who lived next door.",
            "\"maybe a chicken,\" said {N}. \"or maybe something bigger.\"",
            "every day they kept it warm and told it stories. every night {N} put it next to {his} bed.",
            "?\"are you sure that it is alive?\" asked {M}. {N} was not sure at all.",
            "on the seventh day, they heard a small noise. crack! the egg opened.",
            "out came a tiny dragon with {colour} wings. it looked at them and sneezed a little cloud of smoke.",
            "\"hello, little one,\" said {N}. \"do not be afraid.\"",
            "the little dragon ate everything in the kitchen and then fell asleep on {his} foot.",
            "\"it needs a lot of care,\" said {his} {elder}. \"are you ready for that?\"",
            "\"yes,\" said {N} and {M} at the same time.",
        ]),
    "clock": dict(
        topics=["a clock", "time", "being late"],
        slots=[
            "{N} was always late. {he} was late for breakfast, late for school and late for dinner.",
            "\"you need a clock,\" said {his} {elder}, and gave {him} a small golden clock.",
            "the clock had a voice. \"tick, tock, time to go,\" it said every morning.",
            "at first {N} liked it. {he} was never late again.",
            "but the clock never stopped talking. it talked when {N} was playing, and it talked when {N} was sleeping.",
            DAYS + ", {N} saw {M} the {mkind} near {place}. {mhe} had hurt {mhis} foot.",
            "\"tick, tock, no time,\" said the clock.",
            "{N} stopped. \"there is always time for a friend,\" {he} said, and {he} carried {M} home.",
            "that day {N} was late for dinner, but nobody was angry.",
            "\"some things are more important than being on time,\" said {his} {elder}.",
            "the clock thought about it. after that it only spoke when someone asked it.",
        ]),
    "dream": dict(
        topics=["a dream", "flying", "the night"],
        slots=[
            "every night, {N} had the same dream. {he} could fly.",
            "in the dream {he} flew over {place}, over the houses and over the sea.",
            DAYS + ", {he} told {M} the {mkind} about it.",
            "\"I wish I could fly too,\" said {M}. \"take me with you tonight.\"",
            "\"how can I take you into a dream?\" asked {N}.",
            "\"hold my hand when you fall asleep,\" said {M}. so they lay down under the stars and closed their eyes.",
            "soon {N} felt the wind. when {he} opened {his} eyes, the ground was far below, and {M} was there.",
            "they flew past the moon and waved to it.",
            "they picked {a:colour} star and put it in a pocket.",
            "in the morning they woke up in the grass. \"did we really fly?\" asked {M}.",
            "{N} put {his} hand in {his} pocket. there was a little {colour} light in it.",
            "they looked at each other and did not say a word.",
        ]),
}

SKILLS = [("swim", "went under the water"), ("ride a bike", "fell into the grass"), ("fly a kite", "let go of the string"),
          ("whistle", "made no sound at all"), ("dance", "stepped on a tail"), ("skate", "fell on the ice"),
          ("draw a horse", "drew something like a potato"), ("play the drum", "dropped the sticks"),
          ("climb the tall tree", "slid down again"), ("juggle", "dropped all the balls"),
          ("row a boat", "went around in a circle"), ("write a poem", "could not find a rhyme")]
THINGS = ["tree house", "boat", "kite", "swing", "bridge", "little cart", "bird house", "raft"]
FOODS = ["bread", "cake", "apple pie", "banana bread"]
# Plots in which only an animal makes sense as the other character, and plots
# that end on their own and need no "they stayed friends".
ANIMAL_FRIEND = {"quire", "truth", "rescue", "cloud", "clock", "dream"}
NO_FRIEND_ENDING = {"star", "truth", "snow", "lostway", "dream", "clock"}
ELDERS = [("mother", "she"), ("father", "he"), ("grandmother", "she"), ("grandfather", "he"), ("teacher", "she"),
          ("aunt", "she"), ("uncle", "he")]


def story(rng: random.Random, hero_kind: str | None = None, plot: str | None = None,
          hero_name: str | None = None) -> Story:
    """One complete story; the arguments pin down what a request asked for."""
    names = list(PLOTS)
    if plot is None:
        plot = rng.choice(names)
        while "hero" in PLOTS[plot] and hero_kind not in (None, PLOTS[plot]["hero"]):
            plot = rng.choice(names)
    spec = PLOTS[plot]
    hero = character(rng, hero_kind or spec.get("hero"))
    if hero_name is not None:
        hero.name = hero_name
    friend = character(rng, avoid=hero.name)
    while friend.kind in (hero.kind, "robot", "owl") or (plot in ANIMAL_FRIEND and friend.kind in ("girl", "boy")):
        friend = character(rng, avoid=hero.name)
    elder, ehe = rng.choice(ELDERS)
    if hero.kind == "robot":
        elder, ehe = rng.choice([("maker", "she"), ("maker", "he")])
    hides = rng.sample(HIDING, 3)
    skill, fail = rng.choice(SKILLS)
    trait2 = rng.choice([t for t in TRAITS if t != hero.trait])
    env = {**hero.fields(""), **friend.fields("m"), "size": hero.size(rng), "msize": friend.size(rng),
           "Mk": friend.called(hero),
           "trait2": trait2, "home": rng.choice(HOMES), "town": rng.choice(["the village", "the town"]),
           "hobby": rng.choice(HOBBIES), "place": rng.choice(PLACES), "object": rng.choice(OBJECTS),
           "colour": rng.choice(COLOURS), "snack": rng.choice(SNACKS), "plant": rng.choice(FLOWERS),
           "thing": rng.choice(THINGS), "food": rng.choice(FOODS), "elder": elder, "ehe": ehe,
           "hide1": hides[0], "hide2": hides[1], "hide3": hides[2], "skill": skill, "fail": fail}

    sentences: list[str] = []
    if rng.random() < 0.25:
        sentences.append(rng.choice(DAY_OPENINGS))
        # The day has begun: the plot must not begin it again.
        later = "[later that day|that day|soon after|after a while]"
    else:
        sentences.append(rng.choice(OPENINGS))
        if rng.random() < 0.7:
            sentences.append(rng.choice(HABITS))
        later = None
    for slot in spec["slots"]:
        options = slot.lstrip("?")
        if slot.startswith("?") and rng.random() < 0.5:
            continue
        options = "[" + options + "]"
        if later and DAYS in options:
            options = options.replace(DAYS, later)
            later = None
        sentences.append(options)
    ending = rng.choice(ENDINGS)
    while plot in NO_FRIEND_ENDING and "{M}" in ending:
        ending = rng.choice(ENDINGS)
    sentences.append(ending)
    if rng.random() < 0.3:
        sentences.append("the end.")
    text = " ".join(punctuate(fill(rng, s, env)) for s in sentences)
    topics = [article(hero.kind)] * 3 + [fill(rng, t, env) for t in spec["topics"]]
    return Story(text, plot, hero, friend, topics)


if __name__ == "__main__":
    import sys
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    sample_rng = random.Random(seed)
    for _ in range(8):
        print(story(sample_rng).text, "\n")
