#!/usr/bin/env python3
"""Writes the training corpus of the demo model, its test questions and the held-out text. Deterministic.

    python make_corpus.py --out corpus [--seed 1] [--scale 1.0]

corpus/train.jsonl   one document per line: {"kind", "messages"} or {"kind", "text"} (plain text)
corpus/eval.jsonl    {"kind", "messages", "expect"}: test questions; evaluate.py counts those outside the training set
corpus/heldout.txt   plain stories that are not in the training set
All text comes from this file, words.py, facts.py and stories.py.
"""

import argparse
import json
import random
import re
import zlib
from pathlib import Path

import facts as F
import stories as S
from words import (
    BIG_A, CATS, HAIKU, JOKES, NUMW, POEM, RHYMES, SYSTEMS, TOPICS, UNKNOWN_A, UNKNOWN_Q, WORDS,
)


def held_pair(a, b, op):
    """Whether a pair of numbers is held out: one in twenty is no plain sum in training (word problems and follow-ups may use it)."""
    return zlib.crc32(f"{op}{a},{b}".encode()) % 20 == 0


def held_story(adj, kind, obj):
    return zlib.crc32(f"{adj} {kind} {obj}".encode()) % 30 == 0


def held_question(q):
    return zlib.crc32(q.encode()) % 12 == 0


def two(rng):
    return rng.randint(10, 99)


def number(rng):
    return rng.randint(0, 20) if rng.random() < 0.2 else two(rng)


def sum_pair(rng, train=True):
    while True:
        a, b = number(rng), number(rng)
        if not (train and held_pair(a, b, "+")):
            return a, b


def diff_pair(rng, train=True):
    while True:
        a, b = number(rng), number(rng)
        if a < b:
            a, b = b, a
        if not (train and held_pair(a, b, "-")):
            return a, b


ADD_Q = ["What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "{a} + {b} = ?", "Add {a} and {b}.", "Calculate {a} + {b}.", "How much is {a} + {b}?", "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "Compute {a} + {b}.", "Please add {a} and {b}.", "What's {a} + {b}?", "What is {a}+{b}?"]
SUB_Q = ["What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "{a} - {b} = ?", "Subtract {b} from {a}.", "Calculate {a} - {b}.", "How much is {a} - {b}?", "How much is {a} minus {b}?", "Take {b} away from {a}.", "Compute {a} - {b}.", "What's {a} - {b}?", "What is {a}-{b}?"]
MUL_Q = ["What is {a} x {b}?", "What is {a} times {b}?", "{a} x {b}", "{a} * {b}", "What is {a} * {b}?", "Multiply {a} and {b}.", "Multiply {a} by {b}.", "Calculate {a} x {b}.", "How much is {a} times {b}?", "Compute {a} * {b}.", "What's {a} times {b}?"]
DIV_Q = ["What is {a} / {b}?", "What is {a} divided by {b}?", "{a} / {b}", "Divide {a} by {b}.", "Calculate {a} / {b}.", "How much is {a} divided by {b}?"]
THINGS = "apples coins shells books stones pens cookies balls flowers eggs stars nuts cards stamps keys".split()


def arithmetic(rng):
    """-> [question, answer]"""
    r = rng.random()
    if r < 0.36:
        a, b = sum_pair(rng)
        return rng.choice(ADD_Q).format(a=a, b=b), f"{a} + {b} = {a + b}."
    if r < 0.60:
        a, b = diff_pair(rng)
        return rng.choice(SUB_Q).format(a=a, b=b), f"{a} - {b} = {a - b}."
    if r < 0.69:
        a, b = rng.randint(0, 12), rng.randint(1, 12)
        return rng.choice(MUL_Q).format(a=a, b=b), f"{a} x {b} = {a * b}."
    if r < 0.72:
        a, b = rng.randint(1, 10), rng.randint(1, 10)
        return rng.choice(DIV_Q).format(a=a * b, b=b), f"{a * b} / {b} = {a}."
    if r < 0.77:
        a, b = rng.sample(range(100), 2)
        hi, lo = max(a, b), min(a, b)
        w, big = rng.choice([("larger", True), ("bigger", True), ("greater", True), ("smaller", False), ("less", False)])
        q = rng.choice([f"Which is {w}, {a} or {b}?", f"Which number is {w}, {a} or {b}?", f"What is {w}: {a} or {b}?", f"Is {a} {w} than {b}?", f"Is {a} {w} than {b}?"])
        if q.startswith("Is"):
            yes = (a > b) == big
            return q, f"Yes, {a} is {w} than {b}." if yes else f"No, {a} is not {w} than {b}."
        return q, f"{hi if big else lo} is {w} than {lo if big else hi}."
    if r < 0.81:
        a = rng.randint(0, 60) if rng.random() < 0.5 else rng.randint(0, 10)
        b = a + rng.randint(2, 11)
        if rng.random() < 0.25:
            return rng.choice([f"Count down from {b} to {a}.", f"Count backwards from {b} to {a}."]), ", ".join(map(str, range(b, a - 1, -1))) + "."
        if rng.random() < 0.3:
            b = rng.choice([3, 5, 8, 10, 12, 15, 20])
            return rng.choice([f"Count to {b}.", f"Count from 1 to {b}.", f"Please count to {b}."]), ", ".join(map(str, range(1, b + 1))) + "."
        return rng.choice([f"Count from {a} to {b}.", f"Please count from {a} to {b}.", f"List the numbers from {a} to {b}."]), ", ".join(map(str, range(a, b + 1))) + "."
    if r < 0.84:
        a = rng.randint(1, 98)
        if rng.random() < 0.5:
            return rng.choice([f"What comes after {a}?", f"Which number comes after {a}?", f"What is the next number after {a}?"]), f"{a + 1} comes after {a}."
        return rng.choice([f"What comes before {a}?", f"Which number comes before {a}?"]), f"{a - 1} comes before {a}."
    if r < 0.87:
        a = rng.randint(0, 99)
        return rng.choice([f"Is {a} even or odd?", f"Is the number {a} even or odd?", f"Even or odd: {a}?"]), f"{a} is {'odd' if a % 2 else 'even'}."
    if r < 0.90:
        a = rng.randint(1, 50)
        if rng.random() < 0.5:
            return rng.choice([f"What is double {a}?", f"Double {a}.", f"What is twice {a}?"]), f"Double {a} is {2 * a}."
        return rng.choice([f"What is half of {2 * a}?", f"Half of {2 * a}?", f"Halve {2 * a}."]), f"Half of {2 * a} is {a}."
    if r < 0.95:
        name, g = S.person(rng, rng.choice(["girl", "boy"]))
        he = "she" if g == "f" else "he"
        t = rng.choice(THINGS)
        a, b = rng.randint(2, 20), rng.randint(2, 20)
        if rng.random() < 0.5:
            q = rng.choice([f"{name} has {a} {t} and gets {b} more. How many {t} does {name} have now?", f"{name} has {a} {t}. A friend gives {name} {b} more {t}. How many {t} does {he} have?",
                            f"{name} finds {a} {t} and then {b} more. How many {t} is that?"])
            return q, f"{a} + {b} = {a + b}, so {name} has {a + b} {t}."
        a = a + b
        q = rng.choice([f"{name} has {a} {t} and gives away {b}. How many {t} does {name} have now?", f"{name} has {a} {t} and loses {b} of them. How many {t} are left?",
                        f"{name} has {a} {t}. {he.capitalize()} gives {b} of them to a friend. How many {t} does {he} have?"])
        return q, f"{a} - {b} = {a - b}, so {name} has {a - b} {t}."
    if r < 0.98:
        x, m, b = rng.randint(0, 10), rng.randint(2, 9), rng.randint(1, 20)
        c = m * x + b
        q = rng.choice([f"Solve {m}x + {b} = {c}.", f"What is x if {m}x + {b} = {c}?", f"Solve the equation {m}x + {b} = {c}.", f"What about solving the {m}x + {b} = {c} equation?", f"What about solving an {m}x + {b} = {c} equation?", f"{m}x + {b} = {c}. What is x?"])
        return q, f"Take {b} from both sides: {m}x = {c - b}. Divide by {m}: x = {x}."
    a, b = rng.randint(100, 9999), rng.randint(1, 9999)
    if rng.random() < 0.5:
        a, b = b, a
    op = rng.choice("+-*x")
    return rng.choice([f"What is {a} {op} {b}?", f"{a} {op} {b}", f"Calculate {a} {op} {b}."]), BIG_A


def join_list(xs):
    return xs[0] if len(xs) == 1 else ", ".join(xs[:-1]) + " and " + xs[-1]


def simple_sentence(rng):
    a, b = rng.sample(S.ANIMALS, 2)
    return rng.choice([f"The {rng.choice(S.ADJS)} {a} likes the {b}.", f"I see a {rng.choice(S.OADJS)} {rng.choice(S.OBJECTS)}.".replace("a old", "an old"), f"The {a} is {rng.choice(S.ADJS)}.", f"We go to the {rng.choice(WORDS)}.",
                       f"The {rng.choice(S.OBJECTS)} is {rng.choice(S.OADJS)}.", "Good morning, my friend.", "I like to read books.", "The sun is warm today."])


def instruction(rng):
    r = rng.random()
    if r < 0.20:
        (one, many), items = rng.choice(list(CATS.items()))
        n = rng.randint(2, min(6, len(items)))
        if rng.random() < 0.15:
            x = rng.choice(items)
            return rng.choice([f"Name a {one}.", f"Name one {one}.", f"Give me one {one}."]).replace("a animal", "an animal").replace("a in", "an in"), f"{x[0].upper() + x[1:]}."
        xs = rng.sample(items, n)
        if rng.random() < 0.5:
            return rng.choice([f"List {NUMW[n]} {many}.", f"List {n} {many}.", f"Give me a list of {NUMW[n]} {many}.", f"Write a list of {n} {many}."]), "\n".join(f"{i + 1}. {x}" for i, x in enumerate(xs))
        s = join_list(xs)
        return rng.choice([f"Name {NUMW[n]} {many}.", f"Name {n} {many}.", f"Tell me {NUMW[n]} {many}.", f"Can you name {NUMW[n]} {many}?"]), s[0].upper() + s[1:] + "."
    if r < 0.27:
        w = rng.choice(WORDS)
        n = rng.randint(2, 6)
        if rng.random() < 0.35:
            s = simple_sentence(rng)
            return rng.choice([f"Repeat after me: {s}", f"Say this: {s}", f"Repeat: {s}", f"Please repeat: {s}"]), s
        t = {2: "twice"}.get(n, NUMW[n] + " times")
        return rng.choice([f"Repeat the word {w} {t}.", f"Say {w} {t}.", f"Write {w} {t}.", f"Write the word {w} {t}."]), " ".join([w] * n)
    if r < 0.34:
        w = rng.choice(WORDS)
        return rng.choice([f"Reverse the word {w}.", f"Write {w} backwards.", f"Reverse {w}.", f"Spell {w} backwards.", f"What is {w} backwards?"]), w[::-1]
    if r < 0.41:
        w = rng.choice(WORDS)
        return rng.choice([f"Spell {w}.", f"Spell the word {w}.", f"How do you spell {w}?", f"How is {w} spelled?"]), "-".join(w.upper())
    if r < 0.45:
        w = rng.choice(WORDS)
        if rng.random() < 0.4:
            return rng.choice([f"How many letters does {w} have?", f"How many letters are in the word {w}?", f"Count the letters of {w}."]), f"The word {w} has {len(w)} letters."
        if rng.random() < 0.5:
            return rng.choice([f"What is the first letter of {w}?", f"Which letter does {w} start with?"]), f"The first letter of {w} is {w[0].upper()}."
        return rng.choice([f"What is the last letter of {w}?", f"Which letter does {w} end with?"]), f"The last letter of {w} is {w[-1].upper()}."
    if r < 0.52:
        w = rng.choice(WORDS)
        if rng.random() < 0.7:
            return rng.choice([f"Write {w} in uppercase.", f"Write the word {w} in capital letters.", f"Uppercase {w}.", f"Make {w} uppercase.", f"Write {w} in capitals."]), w.upper()
        return rng.choice([f"Write {w.upper()} in lowercase.", f"Make {w.upper()} lowercase.", f"Lowercase {w.upper()}."]), w
    if r < 0.62:
        xs = rng.sample(range(100) if rng.random() < 0.6 else range(20), 3)
        t = ", ".join(map(str, xs))
        if rng.random() < 0.6:
            return rng.choice([f"Sort {t}.", f"Sort the numbers {t}.", f"Sort these numbers: {t}.", f"Sort these numbers: {t}", f"Put {t} in order.", f"Order these numbers: {t}."]), ", ".join(map(str, sorted(xs)))
        if rng.random() < 0.3:
            return rng.choice([f"Sort {t} from large to small.", f"Sort these numbers in descending order: {t}."]), ", ".join(map(str, sorted(xs, reverse=True)))
        w, f = rng.choice([("largest", max), ("biggest", max), ("smallest", min)])
        return rng.choice([f"What is the {w} of {t}?", f"Which is the {w}: {t}?", f"Which number is the {w}: {t}?"]), f"The {w} number is {f(xs)}."
    if r < 0.70:
        topic = rng.choice(list(HAIKU))
        a, b, c = HAIKU[topic]
        i = rng.random()
        the = "a " if topic in ("cat", "fox", "mountain", "river", "computer") else "the " if topic in ("moon", "sea", "rain", "night", "snow") else ""
        q = rng.choice(["Write a haiku.", "Tell me a haiku.", "Write me a haiku."]) if i < 0.2 else rng.choice([f"Write a haiku about {the}{topic}.", f"Write a haiku about {topic}.", f"A haiku about {the}{topic}.", f"Write me a haiku about {the}{topic}.", f"Can you write a haiku about {the}{topic}?"])
        return q, f"{rng.choice(a)},\n{rng.choice(b)} -\n{rng.choice(c)}."
    if r < 0.77:
        x = rng.choice(TOPICS)
        k = rng.randrange(3)
        lines = [rng.choice(POEM[0]).format(x=x), rng.choice(POEM[1]), POEM[2][k], POEM[3][k]]
        q = rng.choice([f"Write a poem about the {x}.", f"Write a short poem about the {x}.", f"Write a poem about a {x}.", f"Write me a poem about the {x}.", f"Can you write a poem about the {x}?", f"A poem about the {x}.", "Write a poem.", "Write me a short poem."])
        return q.replace("a owl", "an owl"), "\n".join(lines)
    if r < 0.81:
        return rng.choice(["Tell me a joke.", "Tell a joke.", "Do you know a joke?", "Make me laugh.", "Tell me a funny joke.", "Another joke, please.", "Tell me another joke.", "Joke, please."]), rng.choice(JOKES)
    if r < 0.84:
        a, b = rng.choice(F.table(RHYMES))
        if rng.random() < 0.5:
            a, b = b, a
        return rng.choice([f"What rhymes with {a}?", f"Which word rhymes with {a}?", f"Find a rhyme for {a}."]), f"{b[0].upper() + b[1:]} rhymes with {a}."
    if r < 0.91:
        cats = list(CATS.items())[:9]
        (one, _), items = rng.choice(cats)
        x = rng.choice(items)
        if one in ("colour",):
            return f"Is {x} a colour?", f"Yes, {x} is a colour."
        if rng.random() < 0.35:
            return rng.choice([f"What is {F.an(x)}?", f"What kind of thing is {F.an(x)}?"]) if x not in ("fish",) and one not in ("tool",) else f"What kind of thing is {F.an(x)}?", f"{F.an(x).capitalize()} is {F.an(one)}."
        (other, _), _ = rng.choice([c for c in cats if c[0][0] not in ("colour",)])
        if one == "bird" and other == "animal" or one == "animal" and other == "bird":
            other = one
        return rng.choice([f"Is {F.an(x)} {F.an(other)}?"]), f"Yes, {F.an(x)} is {F.an(one)}." if other == one else f"No, {F.an(x)} is not {F.an(other)}. It is {F.an(one)}."
    if r < 0.94:
        x = rng.choice(S.ANIMALS)
        o, oa, p = rng.choice(S.OBJECTS), rng.choice(S.OADJS), rng.choice(S.PLACES)
        return rng.choice([f"Make a sentence with the word {x}.", f"Write a sentence about a_ {x}.", f"Use {x} in a sentence."]), S.articles(rng.choice([f"The {rng.choice(S.ADJS)} {x} lives {p[1]} the {p[0]}.", f"A_ {x} found a_ {oa} {o} {p[1]} the {p[0]}.", f"I saw a_ {rng.choice(S.ADJS)} {x} {p[1]} the {p[0]}."]))
    if r < 0.97:
        q = rng.choice(UNKNOWN_Q).format(c=rng.choice(CATS[("country", "countries")]), o=rng.choice(S.OBJECTS), s=rng.choice(CATS[("sport", "sports")]), y=rng.randint(1000, 2020), l=rng.choice(["French", "German", "Spanish", "Latin", "Japanese"]),
                                         f=rng.choice(["mother", "father", "boss", "neighbour", "friend", "sister"]), n=rng.randint(2, 9999), j=rng.choice(CATS[("job", "jobs")]), d=rng.choice(S.FOODS), p=rng.choice(["Rust", "Python", "Java", "C"]))
        return q, UNKNOWN_A
    n = rng.randint(2, 5)
    w = rng.choice(CATS[("animal", "animals")])
    return f"Which word does not belong: {', '.join(rng.sample([x for x in CATS[('animal', 'animals')]], 3))} or {rng.choice(CATS[('fruit', 'fruits')])}?".replace("  ", " "), None


def odd_one(rng):
    cats = list(CATS.items())[:9]
    (one, many), items = rng.choice(cats)
    (_, _), other = rng.choice([c for c in cats if c[0][0] != one and not {c[0][0], one} <= {"animal", "bird"}])
    xs = rng.sample(items, 3)
    o = rng.choice(other)
    xs.insert(rng.randrange(4), o)
    return rng.choice([f"Which word does not belong: {', '.join(xs)}?", f"Find the odd one out: {', '.join(xs)}."]), f"{o[0].upper() + o[1:]} does not belong, because the others are {many}."


def instr(rng):
    q, a = instruction(rng)
    if a is None:
        q, a = odd_one(rng)
    return S.articles(q), a


NAMES = S.GIRLS + S.BOYS + "Anton Maria Peter Paul Eva Karl Sara David Laura Simon Julia Martin Alice Bob Carol Dave Frank George Jane John Kate Mark Mike Rose Steve Susan Tina Victor Wendy Linus Grace Ken Dennis Bjarne Guido".split()
LIKES = {
    "colour": "red blue green yellow orange purple pink black white".split(),
    "animal": "fox cat dog horse owl bear rabbit tiger dolphin penguin panda".split(),
    "food": "pizza soup bread cheese apples rice pancakes chocolate noodles cake".split(),
    "city": "Paris Berlin Rome Madrid Tokyo London Vienna Oslo Lima Cairo Athens Dublin".split(),
    "number": "3 7 12 21 42 8 5 17 99 64".split(),
    "hobby": "reading swimming cooking painting running singing dancing chess gardening".split(),
}


def chat(rng, fact_pool):
    """-> messages of two to four turns that refer back."""
    m = []

    def qa(q, a):
        m.append({"role": "user", "content": q})
        m.append({"role": "assistant", "content": a})

    r = rng.random()

    def filler():
        k = rng.random()
        if k < 0.4:
            qa(*fact_q(rng, fact_pool))
        elif k < 0.75:
            qa(*arithmetic(rng))
        else:
            qa(*instr(rng))

    if r < 0.38:
        name = rng.choice(NAMES)
        told = []
        qa(rng.choice(["My name is {n}.", "Hi, I am {n}.", "Hello, my name is {n}.", "I am {n}.", "Hello! I am {n}.", "Call me {n}.", "Hi! My name is {n}.", "I'm {n}."]).format(n=name), f"Hello {name}, nice to meet you!")
        for kind in rng.sample(list(LIKES), rng.choice([0, 0, 1])):
            v = rng.choice(LIKES[kind])
            told.append((kind, v))
            qa(*tell(rng, kind, v))
        for _ in range(rng.choice([0, 1, 1, 2])):
            filler()
        qa(rng.choice(["What is my name?", "Do you remember my name?", "Who am I?", "What's my name?", "Tell me my name.", "Do you know my name?", "What was my name again?"]), f"Your name is {name}.")
        if told and rng.random() < 0.7:
            qa(*ask(rng, *told[0]))
    elif r < 0.58:
        kinds = rng.sample(list(LIKES), rng.choice([1, 1, 2]))
        told = [(k, rng.choice(LIKES[k])) for k in kinds]
        for k, v in told:
            qa(*tell(rng, k, v))
        for _ in range(rng.choice([0, 1])):
            filler()
        rng.shuffle(told)
        for k, v in told:
            qa(*ask(rng, k, v))
    elif r < 0.63:
        qa(rng.choice(["What is my name?", "Do you know my name?", "Who am I?", "Do you remember my name?"]), "I do not know your name. Please tell me.")
        name = rng.choice(NAMES)
        qa(rng.choice(["My name is {n}.", "I am {n}.", "It is {n}."]).format(n=name), f"Hello {name}, nice to meet you!")
        qa(rng.choice(["What is my name?", "So what is my name?", "And what is my name now?"]), f"Your name is {name}.")
    elif r < 0.78:
        a, b = sum_pair(rng)
        c = a + b
        qa(rng.choice(ADD_Q).format(a=a, b=b), f"{a} + {b} = {c}.")
        for _ in range(rng.choice([1, 2])):
            d = rng.randint(1, 10)
            if rng.random() < 0.5 and c < 190:
                qa(rng.choice([f"Now add {d}.", f"Add {d} to that.", f"And plus {d}?", f"Plus {d}?"]), f"{c} + {d} = {c + d}.")
                c += d
            elif c >= d:
                qa(rng.choice([f"Now subtract {d}.", f"Take away {d}.", f"And minus {d}?", f"Minus {d}?"]), f"{c} - {d} = {c - d}.")
                c -= d
    elif r < 0.92:
        q, s, env = S.request(rng, held_story)
        qa(q, s)
        for k in rng.sample(range(3), rng.choice([1, 1, 2])):
            if k == 0:
                qa(rng.choice([f"What was the name of the {env['kind']}?", f"What was the {env['kind']} called?", "Who was the hero of the story?", "Who is the story about?"]), f"The {env['kind']} was called {env['name']}.")
            elif k == 1:
                qa(rng.choice(["Who was the friend in the story?", "Who was the other animal?", f"Who was {env['friend']}?"]), S.articles(f"{env['friend']} was a_ {env['fkind']}."))
            else:
                qa(rng.choice([f"Where did {env['name']} live?", f"Where did the {env['kind']} live?"]), f"{env['name']} lived {env['prep']} {env['theplace']}.")
        if rng.random() < 0.3:
            qa(rng.choice(["Thank you!", "Thanks!", "Thank you."]), "You are welcome!")
    else:
        filler()
        q = m[-2]["content"]
        qa(rng.choice(["What did I just ask?", "What was my last question?", "Repeat my question."]), f"You asked: {q}")
    return m


def tell(rng, kind, v):
    if kind == "city":
        return rng.choice([f"I live in {v}.", f"I am from {v}.", f"My home is in {v}."]), f"{v} is a lovely place to live."
    if kind == "hobby":
        return rng.choice([f"My hobby is {v}.", f"I like {v}."]) if v not in () else "", f"{v[0].upper() + v[1:]} is a nice hobby."
    c = "color" if kind == "colour" and rng.random() < 0.4 else kind
    fav = "favorite" if c == "color" or rng.random() < 0.4 else "favourite"
    return rng.choice([f"My {fav} {c} is {v}.", f"The {c} I like best is {v}."]), f"{v[0].upper() + v[1:]} is a good choice."


def ask(rng, kind, v):
    if kind == "city":
        return rng.choice(["Where do I live?", "In which city do I live?", "Where am I from?"]), f"You live in {v}."
    if kind == "hobby":
        return rng.choice(["What is my hobby?", "Which hobby do I have?"]), f"Your hobby is {v}."
    c = "color" if kind == "colour" and rng.random() < 0.4 else kind
    fav = "favorite" if c == "color" or rng.random() < 0.4 else "favourite"
    return rng.choice([f"What is my {fav} {c}?", f"Which {c} do I like best?", f"Do you remember my {fav} {c}?"]), f"Your favourite {kind} is {v}."


def persona(rng):
    name = rng.choice("Captain Blue;Robo;Luna;Professor Owl;Sparky;Bolt;Nova;Pixel;Doctor Fox;Chip;Echo;Rusty;Aria;Max;Zig;Ferris;Marvin;Ada;Atlas;Iris".split(";"))
    job = rng.choice("a pirate;a robot;a teacher;a knight;a cook;a gardener;a wizard;a detective;a sailor;a librarian;a dragon;a farmer".split(";"))
    m = [{"role": "system", "content": rng.choice([f"You are {name}, {job}.", f"Your name is {name} and you are {job}.", f"You are {job} called {name}."])}]

    def qa(q, a):
        m.append({"role": "user", "content": q})
        m.append({"role": "assistant", "content": a})

    for k in rng.sample(range(3), rng.choice([1, 2])):
        if k == 0:
            qa(rng.choice(["Who are you?", "Introduce yourself.", "What are you?"]), f"I am {name}, {job}.")
        elif k == 1:
            qa(rng.choice(["What is your name?", "Do you have a name?", "Tell me your name."]), f"My name is {name}.")
        else:
            qa(rng.choice(["What is your job?", "What do you do?"]), f"I am {job}.")
    return m


def noisy(rng, q):
    r = rng.random()
    if r < 0.10:
        q = q[0].lower() + q[1:] if rng.random() < 0.3 else q.lower()
    if rng.random() < 0.12 and q[-1:] in ".?!":
        q = q[:-1]
    if rng.random() < 0.03:
        q = rng.choice(["Please tell me: ", "Hi! ", "Hello. ", "Question: ", "Quick question: ", "Can you tell me: "]) + q
    return q


def fact_q(rng, pool):
    qs, a = rng.choice(pool)
    return rng.choice(qs), a


def build(rng, scale, pool):
    docs = []

    def doc(kind, messages, system=0.15, noise=True):
        if noise:
            for x in messages:
                if x["role"] == "user" and "ppercase" not in x["content"] and "owercase" not in x["content"] and not x["content"].startswith(("Repeat", "Say this")):
                    x["content"] = noisy(rng, x["content"])
        if messages[0]["role"] != "system" and rng.random() < system:
            messages.insert(0, {"role": "system", "content": rng.choice(SYSTEMS)})
        docs.append({"kind": kind, "messages": messages})

    def pairs(xs):
        return [y for q, a in xs for y in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]

    n = lambda k: int(k * scale)  # noqa: E731
    for _ in range(n(20000)):
        q, s, _ = S.request(rng, held_story)
        doc("story", pairs([(q, s)]))
    for _ in range(n(1500)):
        docs.append({"kind": "plain", "text": "\n\n".join(S.request(rng, held_story)[1] for _ in range(rng.choice([1, 1, 2])))})
    turns = [1, 1, 1, 2, 3]
    # facts: every question in turn, so that all are equally frequent; hand-written ones twice
    flat = [(q, a) for qs, a in pool for q in qs for _ in range(max(1, round(4 / len(qs))))]
    want, todo = n(62000), []
    while want > 0:
        if len(todo) < 3:
            extra = flat[:]
            rng.shuffle(extra)
            todo += extra
        k = rng.choice(turns)
        doc("fact", pairs([todo.pop() for _ in range(k)]))
        want -= 1
    for _ in range(n(52000)):
        doc("arithmetic", pairs([arithmetic(rng) for _ in range(rng.choice([1, 1, 2, 3]))]))
    for _ in range(n(40000)):
        doc("instruction", pairs([instr(rng) for _ in range(rng.choice(turns))]))
    for _ in range(n(16000)):
        doc("chat", chat(rng, pool))
    for _ in range(n(1200)):
        doc("persona", persona(rng))
    # more of the kinds learned slowly: copying, remembering, sums (the tokenizer is trained without these)
    first, rng = len(docs), random.Random(f"more {rng.random()}")
    words = NAMES + S.ADJS + S.ANIMALS + S.FOLK + S.OBJECTS + [p[0] for p in S.PLACES if " " not in p[0]] + WORDS
    for _ in range(n(9000)):
        xs = []
        for _ in range(rng.choice([1, 1, 2])):
            t = " ".join(rng.sample(words, rng.randint(2, 8)))
            xs.append((rng.choice(["Repeat after me: ", "Say this: ", "Repeat: ", "Please repeat: ", "Repeat these words: ", "Copy this: "]) + t, t))
        doc("extra", pairs(xs), noise=False)
    for _ in range(n(10000)):
        doc("extra", pairs([arithmetic(rng) for _ in range(rng.choice([1, 2, 3]))]))
    for _ in range(n(6000)):
        doc("extra", chat(rng, pool))
    starts = ("Who are you?", "What is your name?", "What can you do?", "How are you?", "Hello.", "Thank you.", "Goodbye.", "Who made you?", "How big are you?", "Are you Phi-3?", "What is Phi-3?", "What is Rust?", "What is WebGPU?", "Why is the sky blue?")
    common = [f for f in pool if f[0][0] in starts]
    for _ in range(n(6000)):  # what people ask first
        doc("extra", pairs([fact_q(rng, common) for _ in range(rng.choice(turns))]), system=0.3)
    for _ in range(n(20000)):
        q, s, _ = S.request(rng, held_story, habits=True)
        doc("extra", pairs([(q, s)]))
    for _ in range(n(1500)):
        docs.append({"kind": "extra", "text": "\n\n".join(S.request(rng, held_story, habits=True)[1] for _ in range(rng.choice([1, 1, 2])))})
    for d in docs[first:]:
        d["kind"] = "extra"
    rng.shuffle(docs)
    return docs


def evaluation(rng, facts):
    out = []

    def add(kind, q, a):
        out.append({"kind": kind, "messages": [{"role": "user", "content": q}] if isinstance(q, str) else q, "expect": a})

    plus = [(a, b) for a in range(10, 100) for b in range(10, 100) if held_pair(a, b, "+")]
    minus = [(a, b) for a in range(10, 100) for b in range(10, a + 1) if held_pair(a, b, "-")]
    for a, b in rng.sample(plus, 200):
        add("add", rng.choice(ADD_Q).format(a=a, b=b), f"{a} + {b} = {a + b}.")
    for a, b in rng.sample(minus, 150):
        add("subtract", rng.choice(SUB_Q).format(a=a, b=b), f"{a} - {b} = {a - b}.")
    for a in range(2, 13):
        for b in range(2, 13):
            add("multiply", rng.choice(MUL_Q).format(a=a, b=b), f"{a} x {b} = {a * b}.")
    count = {}
    while sum(count.values()) < 300:  # the other kinds of sums
        q, a = arithmetic(rng)
        if re.match(r"^\d+ [+x-] \d+ = ", a) and ", so" not in a:
            continue
        count[q] = 1
        add("other sums", q, a)
    for qs, a in facts:
        held = [q for q in qs if held_question(q)]
        seen = [q for q in qs if q not in held] or qs
        add("fact", seen[0], a)
        if len(qs) >= 3 and held:
            add("fact, new wording", held[0], a)
    seen = set()
    while len(seen) < 300:
        q, a = instr(rng)
        open_ended = re.match(r"(?i).*(haiku|poem|joke|laugh|list (of|two|three|four|five|six|\d)|name |tell me|sentence|give me)", q)
        if not open_ended and q not in seen:
            seen.add(q)
            add("instruction", q, a)
    k = 0
    while k < 100:
        m = chat(rng, [(qs, a) for qs, a in facts])
        if re.search(r"Your (name|fav|hobby)|You live", m[-1]["content"]):
            add("recall", m[:-1], m[-1]["content"])
            k += 1
    k = 0
    while k < 40:
        q, s, e = S.request(rng)
        if held_story(e["adj"], e["kind"], e["obj"]):
            add("story", q, s)
            k += 1
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, default=Path("corpus"))
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--scale", type=float, default=1.0)
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    facts = F.all_facts()
    pool = []
    for qs, a in facts:  # some wordings of the questions with three or more are kept for the test
        keep = [q for q in qs if not held_question(q)] if len(qs) >= 3 else qs
        pool.append((keep or qs[:1], a))
    docs = build(random.Random(args.seed), args.scale, pool)
    with open(args.out / "train.jsonl", "w", encoding="utf-8") as f:
        for d in docs:
            f.write(json.dumps(d, ensure_ascii=False) + "\n")
    with open(args.out / "eval.jsonl", "w", encoding="utf-8") as f:
        for d in evaluation(random.Random(args.seed + 1000), facts):
            f.write(json.dumps(d, ensure_ascii=False) + "\n")
    rng = random.Random(args.seed + 2000)
    known = {m["content"] for d in docs if d["kind"] in ("story", "chat") for m in d["messages"]}
    text, size = [], 0
    while size < 4000:
        s = S.make(rng)[0]
        if s not in known:
            text.append(s)
            size += len(s) + 2
    (args.out / "heldout.txt").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    kinds = {}
    for d in docs:
        chars = len(d.get("text", "")) + sum(len(m["content"]) + 16 for m in d.get("messages", ()))
        n, c = kinds.get(d["kind"], (0, 0))
        kinds[d["kind"]] = (n + 1, c + chars)
    for k, (n, c) in sorted(kinds.items()):
        print(f"{k:12} {n:7} documents {c / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
