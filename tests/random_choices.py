"""Random programs with lists that ``while`` loops fill and empty, and texts, functions and objects that are chosen."""

from __future__ import annotations

import random

HEAD = """
import enum
import math


class Kind(enum.Enum):
    A = 1
    B = 2
    C = 3


class Plus:
    def __init__(self, by):
        self.by = by

    def of(self, v):
        return v + self.by


class Times:
    factor = 0.5

    def __init__(self, by):
        self.by = by
        self.count = 0

    def of(self, v):
        return v * self.by * self.factor

    def bump(self):
        self.by = self.by * 0.9
        self.count += 1


def square(v):
    return v * v * 0.1


def half(v):
    return 0.5 * v
"""

TEXTS = ['"up"', '"down"', '"left"']
KINDS = ["Kind.A", "Kind.B", "Kind.C"]
FUNCTIONS = ["math.sin", "math.cos", "square", "half", "(lambda v: 0.3 * v - 1.0)"]


class Program:
    """The source of ``f(x, n)``: floats ``a b x``, a text ``s``, a member ``k``, a function ``g``, an object ``o``, and
    a list ``xs``."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.loops = 0
        self.options = {
            "s": self.random.sample(TEXTS, self.random.randint(2, 3)),
            "k": self.random.sample(KINDS, 3),
            "g": self.random.sample(FUNCTIONS, self.random.randint(2, 4)),
            "o": ["Plus(a)", "Times(b)", "Plus(b * 0.5)", "Times(0.7)"],
        }
        lines = ["a, b = x * 0.5, 1.0 - x * x * 0.1"]
        lines += [f"{v} = {self.pick(self.options[v])}" for v in "skgo"]
        lines += [f"xs = [{self.pick(['', 'a', 'a, b', 'x, a, 1.0'])}]"]
        lines += self.block(3, self.random.randint(4, 8))
        lines += [
            "for v in xs:",
            "    a = a + v * 0.25",
            "return a + b + len(xs)" + self.pick(["", " + o.by", " * (s == " + TEXTS[0] + ")"]),
        ]
        self.source = HEAD + "\n\ndef f(x, n):\n" + "\n".join("    " + line for line in lines) + "\n"

    def pick(self, items):
        return self.random.choice(items)

    def number(self) -> str:
        r = self.random.random()
        if r < 0.35:
            return self.pick("abx")
        if r < 0.5:
            return f"{self.random.uniform(-1, 1):.2f}"
        if r < 0.62:
            return f"g({self.pick('abx')})"
        if r < 0.72:
            return f"o.of({self.pick('abx')})"
        if r < 0.8:
            return "{" + ", ".join(f"{t}: {self.pick(['a', '0.5', '-b'])}" for t in TEXTS) + "}[s]"
        if r < 0.86:
            return "o.by"
        if r < 0.93:
            return "(xs[-1] if xs else 0.5)"
        return f"math.tanh({self.number()})"

    def test(self) -> str:
        r = self.random.random()
        if r < 0.3:
            return f"{self.pick('abx')} {self.pick('<>')} {self.random.uniform(-1, 1):.2f}"
        if r < 0.5:
            return f"s {self.pick(['==', '!='])} {self.pick(TEXTS)}"
        if r < 0.65:
            return f"k {self.pick(['is', '==', 'is not', '!='])} {self.pick(KINDS)}"
        if r < 0.75:
            return f"s in ({TEXTS[0]}, {TEXTS[2]})"
        if r < 0.85:
            return f"isinstance(o, {self.pick(['Plus', 'Times'])})"
        if r < 0.93:
            return f"len(xs) {self.pick('<>')} {self.random.randint(0, 5)}"
        return f"{self.pick(['not ', ''])}({self.test()} {self.pick(['and', 'or'])} {self.test()})"

    def block(self, depth: int, count: int) -> list[str]:
        return [line for _ in range(count) for line in self.statement(depth)]

    def inner(self, depth: int, count: int | None = None) -> list[str]:
        return ["    " + line for line in self.block(depth - 1, count or self.random.randint(1, 3))]

    def statement(self, depth: int) -> list[str]:
        r = self.random.random()
        if depth and r < 0.28:
            out = [f"if {self.test()}:", *self.inner(depth)]
            return out + (["else:", *self.inner(depth)] if self.random.random() < 0.6 else [])
        if depth and r < 0.42 and self.loops < 4:
            self.loops += 1
            i = f"i{self.loops}"
            body = self.inner(depth, self.random.randint(1, 4))
            way = self.random.random()
            if way < 0.4:
                return [f"{i} = 0", f"while {i} < n and {self.test()}:", f"    {i} += 1", *body]
            if way < 0.6:
                return [f"for {i} in range(n):", *body]
            if way < 0.8:
                return [f"for {i} in range(12):", f"    if {i} > n:", "        break", *body]
            return [
                f"{i} = n",
                f"while xs and {i} > 0:",
                f"    {i} -= 1",
                f"    {self.pick('ab')} = 0.5 * xs.pop() + 0.1",
                *body,
            ]
        if r < 0.56:
            return [f"{self.pick('abx')} = math.sin({self.number()} + 0.5 * {self.number()})"]
        if r < 0.68:
            v = self.pick("skgo")
            return [f"{v} = {self.pick(self.options[v])}"]
        if r < 0.74:
            v = self.pick("skg")
            first, second = self.random.sample(self.options[v], 2)
            return [f"{v} = {first} if {self.test()} else {second}"]
        if r < 0.86:
            return [f"xs.append({self.number()})"]
        if r < 0.91:
            return ["if xs:", "    xs.pop()"]
        if r < 0.95:
            return ["if isinstance(o, Times):", "    o.bump()"]
        return [f"{self.pick('ab')} += {self.number()}"]
