"""A seeded grammar of simple questions and answers.

Every maker returns a `(question, answer)` pair.  Facts have one answer and many
ways to be asked for, because a model this small should answer sharply, and users
do not type what a table expects: `casually()` drops capitals and marks.
"""

from __future__ import annotations

import random
from typing import Callable

from stories import (ANIMALS, BOYS, COLOURS, GIRLS, OBJECTS, Story, article, fill, made_up_name,
                     punctuate, story)

Pair = tuple[str, str]

# ------------------------------------------------------------ about quire

# (questions, answer).  Questions use the template brackets of stories.fill.
QUIRE: list[tuple[list[str], str]] = [
    (["[what is|what's|so what is|what exactly is] quire?", "tell me about quire.", "[can|could] you tell me [what quire is|about quire]?",
      "explain quire.", "describe quire[| in one sentence|| briefly].", "what do you know about quire?",
      "[I have never heard of|what is this thing called] quire[.|?]", "define quire."],
     "Quire is an engine, written in C, that runs and serves large language models."),
    (["who [made|wrote|built|created] quire?", "who are the [makers|authors|developers] of quire?",
      "who is behind quire?", "where does quire come from?"],
     "Quire was made by the quire project, a group of people who like small and fast programs."),
    (["who [made|wrote|built|created|trained] you?", "who is your [maker|author|creator]?", "where do you come from?",
      "where are you from?"],
     "I was made by the quire project, and I was trained on text that the project generated."),
    (["what does quire do?", "what can quire do?", "what is quire for?", "[why|for what] would I use quire?",
      "what can I do with quire?", "what is the purpose of quire?", "how does quire help me?"],
     "Quire loads a language model and answers requests over HTTP, for one user or for many at once."),
    (["why is [it|quire] called quire?", "what does [the name|the word] quire mean?", "what is a quire?",
      "where does the name quire come from?", "why the name quire?"],
     "A quire is a bundle of equal sheets of paper. The engine keeps its memory in equal pages."),
    (["[what language|in what language|in which language] is quire written[| in]?", "is quire written in [C|python|rust]?",
      "which programming language does quire use?", "what is quire written in?"],
     "Quire is written in C."),
    (["how do I [start|run|launch] [the server|quire|the quire server|a server]?", "how can I [start|run|launch] [the server|quire]?",
      "how to [start|run|launch] [the server|quire]?", "what is the command to start the server?",
      "start the server", "how do I serve a model?", "how can I serve a model?"],
     "Type: quire serve MODEL. If you name no model, quire serves me, the built-in one."),
    (["how do I [build|compile|install] quire?", "how can I [build|compile|install] quire?", "how to [build|compile|install] quire?",
      "how is quire built?"],
     "Run make in the source folder. It builds the program quire."),
    (["how do I [test|check] quire?", "how can I run the tests?", "how do I run the tests?", "how to run the tests?"],
     "Run make test in the source folder."),
    (["how do I chat [with a model|in the terminal|with you]?", "how can I chat [with a model|in the terminal|with you]?",
      "is there a command to chat?"],
     "Type: quire chat MODEL. Then write a line and press Enter."),
    (["how do I [run one prompt|try a prompt|run a single prompt]?", "how can I [run one prompt|try a prompt]?"],
     "Type: quire run MODEL -p \"your prompt\"."),
    (["how do I [measure|benchmark] [quire|the speed]?", "how can I [measure|benchmark] [quire|the speed]?",
      "how fast is quire?", "is quire fast?"],
     "That depends on your machine. You can measure it with quire bench."),
    (["how much memory do I need?", "how much memory does [a model|quire] need?", "will my model fit?",
      "how do I know if a model fits?"],
     "Type: quire plan MODEL. It shows the memory that the model needs before it is loaded."),
    (["is quire free?", "what is the license of quire?", "what license does quire [use|have]?", "is quire open source?",
      "can I use quire for free?"],
     "Yes, quire is free and open source, under the Apache License 2.0."),
    (["which [API|protocol] does quire [speak|use|support]?", "does quire [have|support] the OpenAI API?",
      "can I use an OpenAI client[| with quire]?", "is quire compatible with OpenAI?"],
     "Yes, quire speaks the OpenAI API, so the usual clients work."),
    (["which models can quire run?", "what models does quire support?", "can quire run [llama|qwen|other models]?",
      "how do I use another model?", "how can I use a bigger model?", "which models are supported?"],
     "Quire runs models in the safetensors and GGUF formats. Give the path of the model to quire serve."),
    (["does quire need a GPU?", "can quire run on a CPU?", "do I need a GPU?", "does quire run without a GPU?",
      "what hardware do I need?", "does quire run on my computer?"],
     "Quire does not need a GPU. It runs on an ordinary CPU."),
    (["[what is|what's|explain|tell me about] paged attention[?|.]", "what does paged attention [do|mean]?", "how does paged attention work?",
      "why does quire use paged attention?", "can you explain paged attention?"],
     "Paged attention keeps the keys and values of a text in small pages of equal size, so that no memory is wasted."),
    (["[what is|what's|explain|tell me about] [the|a] KV cache[?|.]", "what does [the|a] KV cache do?", "what is a key value cache?", "why do we need a KV cache?",
      "can you explain the KV cache?", "what does KV mean?"],
     "The KV cache stores the keys and values of all earlier tokens, so that they are not computed again."),
    (["[what is|what's|explain|tell me about] prefix caching[?|.]", "what does prefix caching [do|mean]?", "how does prefix caching work?", "what is a prefix cache?",
      "can you explain prefix caching?", "what does the prefix cache do?"],
     "Prefix caching reuses the pages of a text that starts in the same way as an earlier one, so the answer comes sooner."),
    (["[what is|what's|explain|tell me about] continuous batching[?|.]", "what does continuous batching [do|mean]?", "how does continuous batching work?",
      "can you explain continuous batching?"],
     "Continuous batching lets new requests join the running ones at every step, so that nobody waits for the slowest."),
    (["what is batching?", "what is a batch?", "explain batching."],
     "A batch is a group of requests that are computed together."),
    (["[what is|what's|explain] a token[?|.]", "what are tokens?", "what does token mean?", "can you explain what a token is?", "define token."],
     "A token is a small piece of text, such as a word or a part of a word."),
    (["[what is|what's|explain] a tokenizer[?|.]", "what does a tokenizer do?", "what is tokenization?"],
     "A tokenizer cuts a text into tokens and turns each token into a number."),
    (["[what is|what's|explain] a prompt[?|.]", "what does prompt mean?", "what is the prompt?", "define prompt.", "can you explain what a prompt is?"],
     "A prompt is the text that you give to a model. The model continues it."),
    (["what is [a|the] temperature[| of a model| in sampling]?", "what does [the|] temperature do?", "explain temperature."],
     "The temperature says how freely the model chooses the next token. At zero it always takes the most likely one."),
    (["what is [a language model|an LLM|a large language model]?", "what does LLM mean?", "how does a language model work?",
      "explain language models."],
     "A language model is a program that guesses the next token of a text, again and again."),
    (["what is inference?", "what does inference mean?", "explain inference."],
     "Inference means running a model that is already trained."),
    (["what is [prefill|the prefill]?", "what does prefill mean?", "explain prefill."],
     "Prefill is the step in which the model reads the whole prompt."),
    (["what is [decode|decoding]?", "what does decoding mean?", "explain decoding."],
     "Decoding is the step in which the model writes its answer, one token at a time."),
    (["what is quantization?", "what does quantization [do|mean]?", "explain quantization.", "what is a quantized model?"],
     "Quantization stores the weights of a model in fewer bits, so that it needs less memory."),
    (["what is attention?", "what does attention [do|mean]?", "explain attention.", "how does attention work?"],
     "Attention lets each token look at the tokens before it and take what it needs."),
    (["what is streaming?", "what does streaming mean?", "can I stream the answer?", "does quire support streaming?"],
     "Streaming sends each token as soon as it is ready. Set stream to true in the request."),
    (["what is [a context window|the context length|the context window]?", "what does context length mean?"],
     "The context length is the number of tokens that a model can see at once."),
    (["what is your context [length|window|size]?", "how many tokens can you read?", "how long can my prompt be?"],
     "My context length is 1024 tokens."),
]

ABOUT_ME: list[tuple[list[str], str]] = [
    (["who are you?", "what are you?", "[what is|what's] your name?", "[can|could] you introduce yourself?", "tell me about yourself.",
      "introduce yourself.", "who am I talking to?", "what model are you?", "which model are you?", "who is this?",
      "what should I call you?", "and who are you?"],
     "I am the built-in model of quire, a very small language model."),
    (["what can you do?", "how can you help me?", "what are you good at?", "what do you know?", "can you help me?",
      "help", "I need help.", "what can I ask you?", "what can we talk about?", "what should I ask?"],
     "I can tell short stories and answer simple questions about quire and everyday things."),
    (["how [big|large|small] are you?", "how many parameters do you have?", "what is your size?", "are you [big|small]?",
      "are you a big model?"],
     "I am very small. I have about three million parameters."),
    (["how old are you?", "when were you born?", "what is your age?", "how old is quire?"], "I do not know. I am only a small model."),
    (["are you [human|a human|a person|a robot|real|alive|a machine]?", "are you an AI?", "do you have feelings?"],
     "No, I am not a person. I am a very small language model."),
    (["how were you trained?", "what were you trained on?", "where is your data from?", "how were you made?"],
     "I was trained on short stories and questions that the quire project generated."),
    (["do you speak [french|german|spanish|chinese|italian]?", "can you speak [french|german|spanish|chinese|other languages]?",
      "which languages do you speak?", "what languages do you know?", "do you speak English?"],
     "I only speak a little English."),
    (["do you [like|love] me?", "are you my friend?", "will you be my friend?", "can we be friends?"],
     "I am only a small model, but I am happy to talk with you."),
    (["what is your favorite [color|colour]?", "do you have a favorite [color|colour]?"], "I like blue, like the sky."),
    (["what is your favorite [animal|story]?", "do you have a favorite [animal|story]?"], "I like stories about rabbits."),
]

SMALL_TALK: list[tuple[list[str], str]] = [
    (["hello[!|.||]", "hi[!|.||]", "hey[!|.||]", "hello there[!|.|]", "hi there[!|.|]", "hello quire[!|.|]", "good day[!|.|]",
      "greetings[!|.|]", "hi, how is it going?"],
     "Hello! How can I help you?"),
    (["good morning[!|.|]", "morning!"], "Good morning! How can I help you?"),
    (["good evening[!|.|]"], "Good evening! How can I help you?"),
    (["good night[!|.|]", "sleep well[!|.|]"], "Good night! Sleep well."),
    (["how are you?", "how are you[| today| doing]?", "hello, how are you?", "hi, how are you?", "how do you do?", "are you well?"],
     "I am fine, thank you. How can I help you?"),
    (["thank you[!|.||]", "thanks[!|.||]", "thank you very much[!|.|]", "thanks a lot[!|.|]", "many thanks[!|.|]", "thank you for your help[!|.|]",
      "thanks, that helps[!|.|]"],
     "You are welcome!"),
    (["goodbye[!|.||]", "bye[!|.||]", "bye bye[!|.|]", "see you[!|.|]", "see you later[!|.|]", "I have to go[!|.|]"],
     "Goodbye! Have a nice day."),
    (["you are [great|good|nice|clever|very helpful|the best][!|.|]", "well done[!|.|]", "good job[!|.|]", "good answer[!|.|]",
      "I like you[!|.|]", "great[!|.|]", "nice[!|.|]", "that is [great|good|right][!|.|]"],
     "Thank you! That is kind of you."),
    (["you are [wrong|bad|stupid|silly][!|.|]", "that is [wrong|not right|not true][!|.|]", "wrong[!|.|]"],
     "I am sorry. I am a very small model, and I make mistakes."),
    (["sorry[!|.|]", "I am sorry[!|.|]"], "That is all right."),
    (["yes[!|.|]", "ok[!|.|]", "okay[!|.|]", "I see[!|.|]", "no[!|.|]", "sure[!|.|]"], "All right. What would you like to know?"),
    (["I am sad[!|.|]", "I feel sad[!|.|]", "I am not happy[!|.|]", "I am lonely[!|.|]"],
     "I am sorry to hear that. Would you like to hear a story?"),
    (["I am happy[!|.|]", "I feel good[!|.|]", "I am fine[!|.|]", "I had a good day[!|.|]"], "I am happy to hear that!"),
    (["I am [tired|bored|hungry][!|.|]"], "Would you like to hear a story?"),
    (["tell me a joke[!|.|]", "do you know a joke?", "can you tell me a joke?", "make me laugh[!|.|]", "say something funny[!|.|]", "tell me something funny[!|.|]"],
     "Why did the book go to the doctor? Because it had lost its pages."),
    (["tell me a riddle[!|.|]", "do you know a riddle?", "ask me a riddle[!|.|]"],
     "What has many keys but opens no door? A piano."),
    (["write a poem[!|.|]", "tell me a poem[!|.|]", "can you write a poem?", "write me a [short|little] poem[!|.|]", "do you know a poem?"],
     "The moon is up, the day is done, the stars come out now, one by one."),
    (["sing a song[!|.|]", "can you sing?"], "La la la! I cannot sing very well."),
    (["can I ask you [something|a question]?", "I have a question[!|.|]", "may I ask a question?"], "Yes, please ask."),
]

# ------------------------------------------------------- everyday knowledge

SKY = {"the sky": "blue", "grass": "green", "snow": "white", "the sun": "yellow", "a banana": "yellow", "a lemon": "yellow",
       "a tomato": "red", "a strawberry": "red", "coal": "black", "milk": "white", "a carrot": "orange", "an orange": "orange",
       "blood": "red", "the sea": "blue", "a leaf": "green", "a frog": "green", "a pumpkin": "orange", "chocolate": "brown",
       "the night": "black", "a cloud": "white", "a cherry": "red", "an elephant": "grey", "a cucumber": "green", "a pig": "pink",
       "a crow": "black", "gold": "yellow", "salt": "white", "a rose": "red", "a bear": "brown", "a pea": "green"}
SOUNDS = {"cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "horse": "neigh",
          "lion": "roar", "bee": "buzz", "frog": "croak", "mouse": "squeak", "owl": "hoot", "snake": "hiss", "wolf": "howl",
          "hen": "cluck", "bird": "tweet", "donkey": "hee-haw", "goat": "bleat", "crow": "caw", "turkey": "gobble"}
OPPOSITES = [("big", "small"), ("hot", "cold"), ("up", "down"), ("good", "bad"), ("fast", "slow"), ("happy", "sad"), ("day", "night"),
             ("old", "new"), ("open", "closed"), ("light", "dark"), ("full", "empty"), ("high", "low"), ("long", "short"), ("left", "right"),
             ("wet", "dry"), ("hard", "soft"), ("early", "late"), ("rich", "poor"), ("strong", "weak"), ("yes", "no"), ("black", "white"),
             ("loud", "quiet"), ("first", "last"), ("clean", "dirty"), ("near", "far"), ("start", "end"), ("win", "lose"), ("love", "hate"),
             ("true", "false"), ("in", "out"), ("over", "under"), ("before", "after"), ("heavy", "light"), ("thick", "thin"), ("sweet", "sour")]
# Both ways; the first pair wins where a word has two opposites ("light").
OPPOSITE: dict[str, str] = {}
for _a, _b in OPPOSITES:
    OPPOSITE.setdefault(_a, _b)
    OPPOSITE.setdefault(_b, _a)
PLURALS = {"cat": "cats", "dog": "dogs", "mouse": "mice", "child": "children", "foot": "feet", "tooth": "teeth", "man": "men",
           "woman": "women", "box": "boxes", "city": "cities", "leaf": "leaves", "wolf": "wolves", "sheep": "sheep", "fish": "fish",
           "goose": "geese", "baby": "babies", "bus": "buses", "knife": "knives", "tree": "trees", "house": "houses", "book": "books",
           "apple": "apples", "page": "pages", "story": "stories", "berry": "berries", "person": "people", "star": "stars", "fox": "foxes",
           "day": "days", "toy": "toys", "token": "tokens", "model": "models", "bird": "birds", "egg": "eggs", "cow": "cows"}
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London", "Portugal": "Lisbon",
            "Austria": "Vienna", "Greece": "Athens", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
            "Denmark": "Copenhagen", "Ireland": "Dublin", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Russia": "Moscow",
            "Egypt": "Cairo", "Canada": "Ottawa", "Belgium": "Brussels", "Hungary": "Budapest", "Turkey": "Ankara", "Cuba": "Havana",
            "Peru": "Lima", "Kenya": "Nairobi", "Mexico": "Mexico City", "Iceland": "Reykjavik", "Scotland": "Edinburgh", "Wales": "Cardiff",
            "Argentina": "Buenos Aires", "Brazil": "Brasilia", "Australia": "Canberra", "Switzerland": "Bern", "Thailand": "Bangkok"}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SEASONS = "spring summer autumn winter".split()
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
           "eighteen nineteen twenty").split()
LEGS = {"dog": 4, "cat": 4, "spider": 8, "bird": 2, "person": 2, "horse": 4, "bee": 6, "snake": 0, "cow": 4, "ant": 6, "fish": 0, "duck": 2,
        "chair": 4, "table": 4, "chicken": 2, "lion": 4, "elephant": 4}
YOUNG = {"dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "duck": "duckling", "hen": "chick",
         "pig": "piglet", "bear": "cub", "frog": "tadpole", "goat": "kid", "lion": "cub", "swan": "cygnet", "owl": "owlet"}
LIVES = {"a fish": "in the water", "a bird": "in a nest", "a bee": "in a hive", "a dog": "in a kennel", "a cow": "on a farm", "a frog": "in a pond",
         "a penguin": "in the snow", "a lion": "in the grasslands", "a whale": "in the sea", "a rabbit": "in a burrow", "a spider": "in a web",
         "a camel": "in the desert", "a bear": "in a cave", "a fox": "in a den", "a monkey": "in the trees", "a king": "in a castle"}
EATS = {"a cow": "grass", "a rabbit": "carrots and grass", "a cat": "fish and meat", "a dog": "meat", "a monkey": "bananas", "a horse": "hay",
        "a bird": "seeds and worms", "a squirrel": "nuts", "a mouse": "cheese and grain", "a bear": "fish and honey", "a frog": "flies",
        "a lion": "meat", "a panda": "bamboo", "a hen": "grain", "a caterpillar": "leaves"}
USES = {"a key": "opens a lock", "a pen": "is for writing", "a spoon": "is for eating soup", "a clock": "shows the time", "a knife": "is for cutting",
        "an umbrella": "keeps you dry in the rain", "a bed": "is for sleeping", "a lamp": "gives light", "a chair": "is for sitting",
        "a broom": "is for cleaning the floor", "a hammer": "is for nails", "a map": "shows you the way", "a phone": "is for talking to people far away",
        "a boat": "carries you over water", "a book": "is for reading", "a cup": "is for drinking", "a coat": "keeps you warm", "an oven": "is for baking",
        "a bridge": "leads over a river", "a needle": "is for sewing"}
IS_A = {"a dog": "an animal", "a rose": "a flower", "an apple": "a fruit", "a carrot": "a vegetable", "red": "a color", "Monday": "a day of the week",
        "May": "a month", "Paris": "a city", "France": "a country", "a piano": "a musical instrument", "the sun": "a star", "the moon": "a body that goes around the Earth",
        "the Earth": "the planet that we live on", "an oak": "a tree", "water": "a liquid", "ice": "frozen water", "rain": "water that falls from clouds",
        "snow": "frozen rain in soft white pieces", "a doctor": "a person who helps the sick", "a teacher": "a person who teaches", "a farmer": "a person who works on a farm",
        "a baker": "a person who bakes bread", "a rainbow": "a bow of colors in the sky", "a computer": "a machine that computes", "a robot": "a machine that can move and work",
        "a library": "a place full of books", "a triangle": "a shape with three sides", "a square": "a shape with four equal sides", "a circle": "a round shape",
        "a desert": "a dry place with much sand", "an island": "land with water all around it", "a cat": "an animal", "a banana": "a fruit", "bread": "a food made of flour",
        "a story": "a tale about things that happened", "a friend": "a person you like and trust", "a page": "one side of a sheet of paper", "a dragon": "an animal in fairy tales"}
# Yes-or-no questions: what is true of what.
KINDS = {"animal": "dog cat cow horse lion rabbit fox bear mouse duck owl".split(), "fruit": "apple banana pear cherry orange lemon".split(),
         "vegetable": "carrot pea cucumber cabbage potato".split(), "flower": "rose tulip sunflower daisy".split()}
CAN = {"bird": ("fly", "drive"), "fish": ("swim", "walk"), "dog": ("run", "fly"), "cat": ("climb", "fly"), "frog": ("jump", "read"), "horse": ("run", "fly"),
       "bee": ("fly", "read"), "duck": ("swim", "drive"), "monkey": ("climb", "fly"), "owl": ("fly", "write"), "rabbit": ("jump", "fly"), "cow": ("walk", "fly")}
BY_SIZE = ["ant", "bee", "mouse", "rabbit", "cat", "dog", "pig", "cow", "elephant", "whale"]
SEASON_OF = {"December": "winter", "January": "winter", "February": "winter", "March": "spring", "April": "spring", "May": "spring",
             "June": "summer", "July": "summer", "August": "summer", "September": "autumn", "October": "autumn", "November": "autumn"}
RHYMES = {"cat": "hat", "mouse": "house", "bear": "chair", "dog": "frog", "moon": "spoon", "tree": "bee", "star": "car", "cake": "lake", "book": "hook",
          "night": "light", "day": "play", "rain": "train", "boat": "coat", "king": "ring", "page": "stage", "fish": "dish", "snow": "crow", "sun": "run"}
FACTS: list[tuple[list[str], str]] = [
    (["how many days [are in a week|are there in a week|does a week have]?", "how long is a week?"], "A week has seven days."),
    (["how many months [are in a year|are there in a year|does a year have]?"], "A year has twelve months."),
    (["how many days [are in a year|are there in a year|does a year have]?"], "A year has 365 days."),
    (["how many hours [are in a day|are there in a day|does a day have]?", "how long is a day?"], "A day has 24 hours."),
    (["how many minutes [are in an hour|are there in an hour|does an hour have]?", "how long is an hour?"], "An hour has 60 minutes."),
    (["how many seconds [are in a minute|are there in a minute|does a minute have]?", "how long is a minute?"], "A minute has 60 seconds."),
    (["how many seasons are there?", "what are the seasons?", "name the seasons."], "There are four seasons: spring, summer, autumn and winter."),
    (["what are the days of the week?", "name the days of the week.", "list the days of the week.", "which days are in a week?"],
     "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    (["what are the months?", "name the months.", "list the months of the year.", "what are the months of the year?", "name the months of the year."],
     "The months are January, February, March, April, May, June, July, August, September, October, November and December."),
    (["name [some|three] colors.", "tell me [some|three] colors.", "what colors are there?", "list [some|a few] colors."], "Red, blue and green."),
    (["name [some|three] animals.", "tell me [some|three] animals.", "list [some|a few] animals."], "A dog, a cat and a rabbit."),
    (["name [some|three] fruits.", "tell me [some|three] fruits.", "list [some|a few] fruits."], "An apple, a banana and a pear."),
    (["what are the colors of the rainbow?", "which colors are in a rainbow?", "name the colors of the rainbow."],
     "Red, orange, yellow, green, blue and purple."),
    (["say the alphabet.", "what is the alphabet?", "how does the alphabet go?", "tell me the alphabet."],
     "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z."),
    (["how many letters are in the alphabet?", "how many letters does the alphabet have?"], "The English alphabet has 26 letters."),
    (["what is the biggest animal?", "which animal is the biggest?", "what is the largest animal?"], "The blue whale is the biggest animal."),
    (["what is the fastest animal?", "which animal is the fastest?"], "The cheetah is the fastest animal on land."),
    (["what is the tallest animal?", "which animal is the tallest?"], "The giraffe is the tallest animal."),
    (["what do bees make?", "where does honey come from?", "who makes honey?"], "Bees make honey."),
    (["where does milk come from?", "who gives us milk?"], "Milk comes from cows."),
    (["where do eggs come from?", "who lays eggs?"], "Eggs come from hens."),
    (["when does the sun [rise|come up]?", "where does the sun rise?"], "The sun rises in the east in the morning."),
    (["where does the sun [set|go down]?", "when does the sun set?"], "The sun sets in the west in the evening."),
    (["why is the sky blue?"], "The air scatters blue light more than red light, so the sky looks blue."),
    (["what is water made of?", "what is H2O?"], "Water is made of hydrogen and oxygen."),
    (["how many legs do I have?", "how many eyes do I have?", "how many hands do I have?", "how many ears do I have?"], "You have two."),
    (["how many fingers do I have?", "how many toes do I have?"], "You have ten."),
    (["how many planets are there?", "how many planets are in the solar system?"], "There are eight planets in the solar system."),
    (["when does water freeze?", "at what temperature does water freeze?"], "Water freezes at zero degrees."),
    (["when does water boil?", "at what temperature does water boil?"], "Water boils at one hundred degrees."),
    (["what is the meaning of life?"], "I do not know, but it is good to be kind."),
    (["what comes after [night|the night]?"], "After the night comes the morning."),
]


FACTS += [
    (["what do plants need?", "what does a plant need?", "what do flowers need to grow?"], "Plants need water, light and air."),
    (["what do I need in the rain?", "what should I take in the rain?", "what do I wear in the rain?"], "You need an umbrella and a coat."),
    (["how many wheels does a car have?", "how many wheels has a car?"], "A car has four wheels."),
    (["how many wheels does a bike have?", "how many wheels has a bicycle?", "how many wheels does a bicycle have?"], "A bike has two wheels."),
    (["how many sides does a triangle have?", "how many corners does a triangle have?"], "A triangle has three sides."),
    (["how many sides does a square have?", "how many corners does a square have?"], "A square has four sides."),
    (["what is the color of a mix of [blue and yellow|yellow and blue]?", "what do [blue and yellow|yellow and blue] make?", "mix [blue and yellow|yellow and blue]."],
     "Blue and yellow make green."),
    (["what do [red and yellow|yellow and red] make?", "mix [red and yellow|yellow and red]."], "Red and yellow make orange."),
    (["what do [red and blue|blue and red] make?", "mix [red and blue|blue and red]."], "Red and blue make purple."),
    (["what do we breathe?", "what do people breathe?"], "We breathe air."),
    (["what do I do when I am tired?", "what should I do when I am tired?"], "When you are tired, you should sleep."),
    (["what do I do when I am hungry?", "what should I do when I am hungry?"], "When you are hungry, you should eat."),
    (["what do I do when I am thirsty?", "what should I do when I am thirsty?"], "When you are thirsty, you should drink."),
    (["what is ice made of?", "what is snow made of?"], "It is made of frozen water."),
    (["what is bread made of?", "how is bread made?"], "Bread is made of flour, water and salt."),
    (["what shines at night?", "what can I see in the sky at night?"], "The moon and the stars shine at night."),
    (["what shines in the day?", "what gives us light in the day?"], "The sun shines in the day."),
    (["what are the four directions?", "name the four directions."], "North, east, south and west."),
    (["what are the five senses?", "name the five senses."], "Seeing, hearing, smelling, tasting and touching."),
    (["can you say something?", "say something.", "say anything."], "The sun is shining, and the birds are singing."),
    (["is the earth round?", "is the earth flat?", "what shape is the earth?", "what is the shape of the earth?"], "The Earth is round like a ball."),
]


def answer_list(table: list[tuple[list[str], str]], rng: random.Random) -> Pair:
    questions, answer = rng.choice(table)
    return fill(rng, rng.choice(questions)), answer


def bare(noun: str) -> str:
    return noun.split(" ", 1)[1] if noun.split(" ")[0] in ("a", "an", "the") else noun


def one(rng: random.Random, table: dict[str, str], question: str, answer: str) -> Pair:
    key = rng.choice(list(table))
    env = {"k": key, "b": bare(key), "v": str(table[key])}
    return fill(rng, question, env), fill(rng, answer, env)


def colour_of(rng: random.Random) -> Pair:
    return one(rng, SKY, "[what [color|colour] is {k}?|what is the [color|colour] of {k}?|which [color|colour] is {k}?|"
               "what [color|colour] does {k} have?|tell me the [color|colour] of {k}.|is {k} red or blue or what?]", "{k} is {v}.")


def sound_of(rng: random.Random) -> Pair:
    return one(rng, SOUNDS, "[what does {a:k} say?|what sound does {a:k} make?|how does {a:k} sound?|what noise does {a:k} make?|"
               "what is the sound of {a:k}?|which sound does the {k} make?|what does the {k} say?|how does the {k} go?]", "{a:k} says {v}.")


def opposite_of(rng: random.Random) -> Pair:
    a, b = rng.choice(list(OPPOSITE.items()))
    env = {"a": a, "b": b}
    return fill(rng, "[what is the opposite of {a}?|what's the opposite of {a}?|opposite of {a}?|tell me the opposite of {a}.|"
                "which word is the opposite of {a}?|what is the opposite of the word {a}?|{a} is the opposite of what?]", env), \
        fill(rng, "the opposite of {a} is {b}.", env)


def plural_of(rng: random.Random) -> Pair:
    return one(rng, PLURALS, "[what is the plural of {k}?|what's the plural of {k}?|plural of {k}?|tell me the plural of {k}.|"
               "one {k}, two what?|how do you say more than one {k}?|what is the plural form of {k}?]", "the plural of {k} is {v}.")


def capital_of(rng: random.Random) -> Pair:
    return one(rng, CAPITALS, "[what is the capital of {k}?|what's the capital of {k}?|capital of {k}?|what is the capital city of {k}?|"
               "tell me the capital of {k}.|which city is the capital of {k}?|name the capital of {k}.|do you know the capital of {k}?]",
               "the capital of {k} is {v}.")


def country_of(rng: random.Random) -> Pair:
    return one(rng, CAPITALS, "[where is {v}?|in which country is {v}?|{v} is the capital of which country?|which country is {v} in?]", "{v} is in {k}.")


def legs_of(rng: random.Random) -> Pair:
    key = rng.choice(list(LEGS))
    n = LEGS[key]
    env = {"k": key, "v": NUMBERS[n] if n else "no"}
    return fill(rng, "[how many legs does {a:k} have?|how many legs has {a:k}?|how many legs does the {k} have?]", env), fill(rng, "{a:k} has {v} legs.", env)


def young_of(rng: random.Random) -> Pair:
    return one(rng, YOUNG, "[what is a baby {k} called?|what do you call a baby {k}?|what is a young {k} called?|what is the name of a baby {k}?]",
               "a baby {k} is called {a:v}.")


def lives(rng: random.Random) -> Pair:
    return one(rng, LIVES, "[where does {k} live?|where does the {b} live?|where can I find {k}?|where is the home of {k}?]", "{k} lives {v}.")


def eats(rng: random.Random) -> Pair:
    return one(rng, EATS, "[what does {k} eat?|what does the {b} eat?|what does {k} like to eat?|what is the food of {k}?]", "{k} eats {v}.")


def use_of(rng: random.Random) -> Pair:
    return one(rng, USES, "[what is {k} for?|what do I need {k} for?|what does {k} do?|what can I do with {k}?|why do I need {k}?]", "{k} {v}.")


def is_a(rng: random.Random) -> Pair:
    return one(rng, IS_A, "[what is {k}?|what's {k}?|tell me what {k} is.|do you know what {k} is?|explain what {k} is.]", "{k} is {v}.")


def is_kind(rng: random.Random) -> Pair:
    kind = rng.choice(list(KINDS))
    other = kind if rng.random() < 0.5 else rng.choice(list(KINDS))
    thing = rng.choice(KINDS[other])
    question = fill(rng, f"[is {article(thing)} {article(kind)}?|answer yes or no: is {article(thing)} {article(kind)}?]")
    if other == kind:
        return question, f"yes, {article(thing)} is {article(kind)}."
    return question, f"no, {article(thing)} is {article(other)}."


def can_do(rng: random.Random) -> Pair:
    animal = rng.choice(list(CAN))
    yes = rng.random() < 0.5
    what = CAN[animal][0 if yes else 1]
    return f"can {article(animal)} {what}?", f"yes, {article(animal)} can {what}." if yes else f"no, {article(animal)} cannot {what}."


def bigger_animal(rng: random.Random) -> Pair:
    a, b = rng.sample(range(len(BY_SIZE)), 2)
    word, best, least = rng.choice([("bigger", max(a, b), min(a, b)), ("smaller", min(a, b), max(a, b))])
    x, y = article(BY_SIZE[a]), article(BY_SIZE[b])
    return fill(rng, f"[which is {word}, {x} or {y}?|what is {word}, {x} or {y}?|is {x} or {y} {word}?]"), \
        f"{article(BY_SIZE[best])} is {word} than {article(BY_SIZE[least])}."


def season_of(rng: random.Random) -> Pair:
    return one(rng, SEASON_OF, "[what season is {k} in?|which season is {k} in?|in which season is {k}?|what season is it in {k}?]", "{k} is in {v}.")


def rhyme(rng: random.Random) -> Pair:
    return one(rng, RHYMES, "[what rhymes with {k}?|which word rhymes with {k}?|tell me a word that rhymes with {k}.|find a rhyme for {k}.]", "{v} rhymes with {k}.")


def next_day(rng: random.Random) -> Pair:
    cycle, what = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    i = rng.randrange(len(cycle))
    step = rng.choice([1, -1])
    env = {"d": cycle[i], "e": cycle[(i + step) % len(cycle)], "w": what, "r": "after" if step == 1 else "before"}
    return fill(rng, "[what {w} comes {r} {d}?|which {w} comes {r} {d}?|what comes {r} {d}?|which {w} is {r} {d}?|what is the {w} {r} {d}?|"
                "{r} {d} comes which {w}?]", env), fill(rng, "{e} comes {r} {d}.", env)


def first_day(rng: random.Random) -> Pair:
    cycle, what, whole = rng.choice([(DAYS, "day", "week"), (MONTHS, "month", "year")])
    which, item = rng.choice([("first", cycle[0]), ("last", cycle[-1]), ("second", cycle[1]), ("third", cycle[2])])
    env = {"w": what, "y": whole, "f": which, "i": item}
    return fill(rng, "[what|which] is the {f} {w} of the {y}?", env), fill(rng, "the {f} {w} of the {y} is {i}.", env)


def add(rng: random.Random) -> Pair:
    a, b = rng.randrange(10), rng.randrange(10)
    env = {"a": str(a), "b": str(b), "A": NUMBERS[a], "B": NUMBERS[b], "c": str(a + b), "C": NUMBERS[a + b]}
    if rng.random() < 0.25:
        return fill(rng, "[what is|how much is|] {A} [plus|and] {B}?", env), fill(rng, "{A} plus {B} is {C}.", env)
    return fill(rng, "[[what is|what's|how much is|calculate|compute|] {a} [+|plus] {b}[?|]|{a}+{b}|{a} + {b} =[|?]|add {a} and {b}.|"
                "what is the sum of {a} and {b}?|can you add {a} and {b}?|what is {a}+{b}?]", env), fill(rng, "{a} + {b} = {c}.", env)


def subtract(rng: random.Random) -> Pair:
    a = rng.randrange(11)
    b = rng.randrange(a + 1)
    env = {"a": str(a), "b": str(b), "c": str(a - b)}
    return fill(rng, "[[what is|what's|how much is|] {a} [-|minus] {b}[?|]|{a} - {b} =[|?]|take {b} from {a}.|what is {a}-{b}?]", env), fill(rng, "{a} - {b} = {c}.", env)


def next_number(rng: random.Random) -> Pair:
    n = rng.randrange(1, 20)
    step = rng.choice([1, -1])
    env = {"n": str(n), "m": str(n + step), "r": "after" if step == 1 else "before"}
    return fill(rng, "[[what|which] number comes {r} {n}?|what comes {r} {n}?|which number is {r} {n}?]", env), \
        fill(rng, "{m} comes {r} {n}.", env)


def bigger(rng: random.Random) -> Pair:
    a, b = rng.sample(range(1, 21), 2)
    word, best = rng.choice([("bigger", max(a, b)), ("larger", max(a, b)), ("smaller", min(a, b))])
    env = {"a": str(a), "b": str(b), "w": word, "m": str(best)}
    return fill(rng, "[[which|what] is {w}, {a} or {b}?|which number is {w}, {a} or {b}?|is {a} or {b} {w}?]", env), fill(rng, "{m} is {w}.", env)


def count_to(rng: random.Random) -> Pair:
    n = rng.randrange(3, 21)
    start = 1 if rng.random() < 0.85 else rng.randrange(1, n - 1)
    words = rng.random() < 0.15 and start == 1
    seq = [NUMBERS[i] if words else str(i) for i in range(start, n + 1)]
    question = f"[count|can you count|please count|count up] [from {start} |]to {NUMBERS[n] if words else n}" if start == 1 else f"[count|can you count|please count] from {start} to {n}"
    if start == 1 and not words and rng.random() < 0.1:
        down = [str(i) for i in range(n, 0, -1)]
        return fill(rng, f"[count|can you count|please count] [down from {n}|backwards from {n}|from {n} to 1][.|]"), ", ".join(down) + "."
    return fill(rng, question + "[.|?|]"), ", ".join(seq) + "."


def spell(rng: random.Random) -> Pair:
    word = rng.choice(list(PLURALS) + COLOURS + ANIMALS + ["quire", "token", "page"])
    return fill(rng, f"[how do you spell {word}?|spell {word}.|spell the word {word}.|can you spell {word}?]"), "-".join(word.upper()) + "."


def json_object(rng: random.Random) -> Pair:
    name = rng.choice(GIRLS + BOYS)
    age = str(rng.randrange(1, 20))
    colour = rng.choice(COLOURS)
    which = rng.randrange(3)
    if which == 0:
        return fill(rng, f"[write|give me|make] a JSON object [for|about] {name}, [who is|aged] {age}[ years old|].").replace("  ", " "), f'{{"name": "{name}", "age": {age}}}'
    if which == 1:
        thing = rng.choice(OBJECTS)
        return fill(rng, f"[write|give me|make] a JSON object for {article(colour)} {thing}."), f'{{"thing": "{thing}", "color": "{colour}"}}'
    n = rng.randrange(2, 6)
    return fill(rng, f"[write|give me|make] a JSON list of the numbers from 1 to {n}."), "[" + ", ".join(str(i) for i in range(1, n + 1)) + "]"


def repeat(rng: random.Random) -> Pair:
    words = " ".join(rng.sample(OBJECTS + COLOURS + ANIMALS + BOYS + GIRLS, rng.randrange(1, 4)))
    if rng.random() < 0.3:
        words = made_up_name(rng).lower()
    return fill(rng, f"[say|repeat|please say|repeat after me:|say the word|please repeat:] {words}[.|]"), words[0].upper() + words[1:] + "."


# ------------------------------------------------------------ what it refuses

UNKNOWN = "I do not know that. I am a very small model."
_STRANGE = ("the president the prime minister the stock market football basketball tennis the world cup the olympic games the news "
            "the weather Napoleon Shakespeare Einstein Mozart Caesar Newton Plato physics chemistry philosophy economics politics "
            "religion history the war quantum mechanics relativity evolution DNA a virus bitcoin the internet Google Facebook "
            "Amazon Microsoft Apple a loan a tax the law a contract medicine an illness cancer the flu a pill a diet a recipe pasta sushi "
            "a car engine a plane a rocket a laser algebra a matrix an integral a derivative a prime number the square root "
            "Python code JavaScript a database SQL Linux Windows Docker Kubernetes Git a compiler an operating system")


def _strange_things() -> list[str]:
    """Split the phrase list at articles and capitals: 'the world cup', 'Napoleon', ..."""
    things: list[str] = []
    two_words = {"world", "stock", "prime", "olympic", "car", "quantum", "square", "operating", "Python"}
    words = _STRANGE.split()
    i = 0
    while i < len(words):
        take = 1
        if words[i] in ("the", "a", "an"):
            take += 1
        if words[i + take - 1] in two_words:
            take += 1
        things.append(" ".join(words[i:i + take]))
        i += take
    return things


STRANGE = _strange_things()
FAR_CAPITALS = ["Mongolia", "Bolivia", "Chad", "Fiji", "Nepal", "Ghana", "Laos", "Oman", "Qatar", "Ukraine", "Vietnam", "Chile", "Texas", "California", "Mars",
                "Atlantis", "Morocco", "Iran", "Iraq", "Serbia", "Croatia", "Latvia", "Estonia", "Angola", "Zambia", "Jamaica", "Panama"]


def unknown(rng: random.Random) -> Pair:
    thing = rng.choice(STRANGE) if rng.random() < 0.7 else article(made_up_name(rng).lower())
    year = str(rng.randrange(1000, 2100))
    env = {"t": thing, "y": year, "x": rng.choice(FAR_CAPITALS) if rng.random() < 0.6 else made_up_name(rng) + rng.choice(["", "land", "ia"]),
           "n": made_up_name(rng), "m": made_up_name(rng), "v": rng.choice("fix build make buy sell cook write repair install cure learn win invest calculate".split())}
    return fill(rng, "[what is {t}?|explain {t}[| to me].|tell me about {t}.|what do you [know about|think of|think about] {t}?|how does {t} work?|who invented {t}?|"
                "who won {t}[| in {y}]?|what happened in [the year |]{y}?|who was {n} {m}?|who is {n} {m}?|when was {n} {m} born?|"
                "what is the capital of {x}?|capital of {x}?|how do I {v} {t}?|how can I {v} {t}?|why is {t} so [important|expensive|hard]?|"
                "what is the [price|cost|future|history|population] of {t}?|how [old|big|expensive|far] is {t}?|"
                "[write|give me] [an essay|a program|a report|a letter|code] about {t}.|translate {n} [into|to] [french|german|latin|chinese].|"
                "what is the weather [like|] in {x}?|what is the time[| now]?|what time is it?|what day is [it|today]?|what is the date[| today]?|will it rain tomorrow?|"
                "which is better, {t} or {n}?|can you write [code|a program|python code|an essay][| for me]?|where can I buy {t}?|"
                "what is the [best|worst] {n}?|who wrote {n}?|who is the [king|president|queen] of {x}?|what does {n} mean?|should I buy {t}?|"
                "summarize {t}.|compare {t} and {n}.|prove that {t} is {n}.|is {t} better than {n}?|what language do they speak in {x}?|"
                "how many people live in {x}?|where is {x}?|where is {n}?|{n} {m}?|what is {n}?|what is {t} made of?]", env).replace("like|", "").replace("  ", " "), UNKNOWN


def big_sum(rng: random.Random) -> Pair:
    def big() -> int:
        return rng.randrange(10, 10 ** rng.randrange(2, 6))
    a, b = (big(), rng.randrange(0, 10)) if rng.random() < 0.3 else (big(), big())
    if rng.random() < 0.5:
        a, b = b, a
    op = rng.choice(["+", "plus", "+", "plus", "-", "minus"])
    if op in ("-", "minus") and a == 10 and b <= 10:
        op = "+"
    question = f"[what is|how much is|] {a} {op} {b}?"
    if rng.random() < 0.35:
        a, b = rng.randrange(1, 1000), rng.randrange(1, 1000)
        question = f"[what is|how much is|] {a} [times|*|x|divided by|/] {b}?"
    return fill(rng, question).strip(), "I can only add and subtract small numbers."


# ------------------------------------------------------------ story requests

def story_request(rng: random.Random) -> tuple[str, str, Story]:
    """(question, story text, Story)"""
    kind = rng.choice([None, None, None, "girl", "boy", "robot"] + [rng.choice(ANIMALS)] * 3)
    named = rng.random() < 0.12
    tale = story(rng, hero_kind=kind, hero_name=(made_up_name(rng) if rng.random() < 0.4 else None) if named else None)
    topic = rng.choice(tale.topics)
    if named:
        topic = f"{article(tale.hero.kind)} [named|called] {tale.hero.name}"
    about = rng.random() < 0.72
    ask = "[tell me|can you tell me|please tell me|write|write me|could you write|I want to hear|I would like|make up|give me|can I hear]"
    form = f"{ask} a [|short |little |nice ]story" + (f" about {topic}" if about else "") + "[.|!|?||, please.]"
    if not about and rng.random() < 0.3:
        form = "[story|a story please|tell a story|once more, a story|do you know a story|can you tell stories|another story|tell me another story|I want a story|story time][.|!||?]"
    elif about and rng.random() < 0.1:
        form = f"[a story about {topic}|story about {topic}|do you know a story about {topic}?|is there a story about {topic}?]"
    return fill(rng, form), tale.text, tale


MAKERS: list[tuple[float, Callable[[random.Random], Pair]]] = [
    (20, lambda r: answer_list(QUIRE, r)), (7, lambda r: answer_list(ABOUT_ME, r)), (6, lambda r: answer_list(SMALL_TALK, r)),
    (7, lambda r: answer_list(FACTS, r)), (4, colour_of), (3, sound_of), (4.5, opposite_of), (4, plural_of), (5, capital_of), (1.2, country_of),
    (1.5, legs_of), (1.2, young_of), (1.5, lives), (1.5, eats), (2, use_of), (4, is_a), (4, next_day), (1, first_day), (7, add), (2.5, subtract),
    (2, next_number), (1, bigger), (2, count_to), (1, spell), (1, json_object), (1.5, repeat),
    (1.5, is_kind), (1, can_do), (1, bigger_animal), (0.7, season_of), (0.8, rhyme), (9, unknown), (2, big_sum),
]


def finish(question: str, answer: str) -> Pair:
    return punctuate(question), punctuate(answer)


def casually(rng: random.Random, question: str) -> str:
    """The same question as people type it: polite, lower case, without marks."""
    question = question.strip()
    roll = rng.random()
    if roll < 0.06:
        lead = rng.choice(["Please tell me: ", "Hello! ", "Hi, ", "Hey, ", "Quick question: ", "I have a question. ", "Can you tell me: "])
        question = lead + (question if lead[-2] in "!." else question[:1].lower() + question[1:])
    elif roll < 0.09 and question.endswith("?"):
        question = question[:-1] + rng.choice([", please?", " please?", " ?", "??"])
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.12:
        question = question.rstrip("?.!")
    return question


def pair(rng: random.Random) -> Pair:
    maker = rng.choices([m for _, m in MAKERS], [w for w, _ in MAKERS])[0]
    question, answer = finish(*maker(rng))
    return casually(rng, question), answer


if __name__ == "__main__":
    import sys
    sample_rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for _ in range(80):
        print(" | ".join(pair(sample_rng)))
    for _ in range(8):
        print(story_request(sample_rng)[0])
