"""Programs made at random, as Python has them: control flow with jumps, aliases, views, objects, nested functions."""

from __future__ import annotations

import linecache
import random
from typing import Any

import numpy as np

N = 5
START = """\
class Obj:
    def __init__(self, p, v):
        self.p, self.v = p, v

    def __mul__(self, k):
        return Obj(self.p * k, self.v * k) if self.p > 0 else Obj(self.p + k, self.v)

    @property
    def size(self):
        if self.p > 0.3:
            return self.p + self.v[0]
        return np.tanh(self.v[1])


def f(x, y, n):
    x, y, A = x.copy(), y.copy(), np.outer(x, y)
    t, u, c = 0.1, x[0], n
    items, d, pair, o = [x[1], 0.5, y[2]], {"a": x[2], "b": 1.0}, (y[0], 0.25), Obj(y[1], x * 0.5)

    def bump(z, i, k):
        nonlocal c
        c += 1
        if k > 0.5:
            z[i % len(z)] += 0.1 * k
            return k
        for j in range(len(z)):
            if z[j] > k:
                return np.sin(z[j])
        z[0] = k
        return 0.5

    def scaled(v):
        for w in v:
            yield np.tanh(w) if w > 0 else w * 0.5

"""
END = """\
    return t + u + 0.01 * c + sum(items) + d["a"] * d["b"] + pair[0] - pair[1] + o.p + (x * y).sum() + A.sum() + o.v[2]
"""


class Writer:
    """Writes one function ``f(x, y, n)`` on two vectors and a small integer."""

    def __init__(self, rng: random.Random, deepest: int = 4):
        self.rng = rng
        self.deepest = deepest
        self.lines: list[str] = []
        self.count = 0
        self.indices: list[str] = []

    def source(self) -> str:
        self.block(1, self.rng.randint(2, self.deepest), loop=False)
        return START + "\n".join(self.lines) + "\n" + END

    def one_of(self, *options: Any) -> Any:
        return self.rng.choice(options)

    def write(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    # -- expressions -----------------------------------------------------------------------------------------------

    def integer(self) -> str:
        base = self.one_of("n", "c", "2", *self.indices, *self.indices)
        return self.one_of(base, base, f"({base} + 1)", f"({base} * 2 - 1)")

    def array(self) -> str:
        return self.one_of("x", "y", "x", "y", "o.v", f"A[{self.integer()} % {N}]", f"A[:, {self.integer()} % {N}]")

    def number(self) -> str:
        i = self.integer()
        return self.one_of(
            *("t", "u", "t", "u", "items[1]", 'd["a"]', "pair[0]", "pair[1]", "o.p", "o.size"),
            *(f"{self.array()}[{i} % {N}]", f"x[-1 - {i} % {N}]", f"{self.array()}[1:4].sum()", f"0.1 * {i}"),
        )

    def value(self) -> str:
        a, b = self.number(), self.number()
        return self.one_of(
            *(f"np.sin({a} + {b})", f"np.tanh({a} * {b})", f"np.tanh({a}) - 0.3 * np.sin({b})"),
            *(f"({a} if {self.condition()} else np.cos({b}))", f"np.tanh(max({a}, {b}))", f"np.sin(abs({a}))"),
            *(f"np.tanh(sum(v * {a} for v in {self.array()} if v > 0.1))", f"np.sin(sum(scaled(items)) + {a})"),
        )

    def condition(self) -> str:
        a, b, i = self.number(), self.number(), self.integer()
        plain = self.one_of(f"{a} > {b}", f"{a} < 0.4", f"{i} % 3 == 1", f"{i} < 3", f"0.1 < {a} <= 0.9")
        if self.rng.random() < 0.3:
            return self.one_of(f"{plain} and {a} > 0", f"{plain} or {i} > 2", f"not {plain}")
        return plain

    # -- statements ------------------------------------------------------------------------------------------------

    def block(self, depth: int, statements: int, loop: bool) -> None:
        for _ in range(statements):
            kinds = ["plain"] * 3 + (["if", "for", "while", "match"] if depth <= self.deepest else [])
            getattr(self, self.one_of(*kinds))(depth, loop)

    def plain(self, depth: int, loop: bool) -> None:
        a, i, v = self.array(), self.integer(), self.value()
        z = self.name("z")
        options = [
            [f"t = {v}"],
            [f"u = {v}"],
            ["t, u = u, t"],
            [f"t += 0.2 * {v}"],
            [f"c += {self.one_of('1', '2', 'n')}"],
            [f"{a}[{i} % {N}] = {v}"],
            [f"{a}[{i} % {N}] += 0.3 * {v}"],
            [f"{a}[{self.one_of('1:3', ':2', '::2', '-2:')}] *= 0.7"],
            [f"A[{i} % {N}, 1:] = {a}[1:] * 0.5"],
            [f"A[{i} % {N}] += {a}"],
            [f"{z} = {a}", f"{z}[{i} % {N}] = {v}"],
            [f"{z} = {a}[{self.one_of('1:', '::-1', ':3')}]", f"{z}[{i} % 2] -= {v}", f"u = u + {z}[-1]"],
            [f"{z} = x if {self.condition()} else y", f"t = np.tanh(t + {z}[{i} % {N}])"],
            [f"{z} = {a}.copy()", f"{z} += 1.0", f"t = np.sin({z}.mean())"],
            [f"x, y = y, x * {self.one_of('1.0', '0.9')}"],
            [f"items[{self.one_of(0, 1, 2)}] = {v}"],
            [f"items[0], items[2] = items[2], {v}"],
            [f'd["{self.one_of("a", "b")}"] {self.one_of("=", "+=")} {v}'],
            [f"pair = (pair[1], {v})"],
            [f"o.p {self.one_of('=', '+=', '-=')} {v}"],
            [f"o.v[{i} % {N}] += {v}"],
            [f"o = o * {self.one_of('0.5', 't')}"],
            [f"{z} = o", f"{z}.p = {v}", "t = np.tanh(t + o.p)"],
            [f"t = np.tanh(t + bump({a}, {i}, {v}))"],
            [f"u = np.sin(bump({self.one_of('x[1:]', 'o.v', 'y[::-1]')}, {i}, u))"],
            [f"if ({z} := {v}) > 0.2:", f"    t = t * 0.5 + {z}"],
        ]
        if self.rng.random() < 0.06:
            options = [[f"if {self.condition()}:", f"    return t * {self.value()}"]]
        elif loop and self.rng.random() < 0.12:
            options = [[f"if {self.condition()}:", f"    {self.one_of('break', 'continue')}"]]
        for line in self.one_of(*options):
            self.write(depth, line)

    def match(self, depth: int, loop: bool) -> None:
        self.write(depth, f"match {self.integer()} % 4:")
        self.write(depth + 1, "case 0 | 1:")
        self.block(depth + 2, 1, loop)
        self.write(depth + 1, f"case 2 if {self.condition()}:")
        self.block(depth + 2, 1, loop)
        if self.rng.random() < 0.5:
            self.write(depth + 1, "case _:")
            self.block(depth + 2, 1, loop)

    def _if(self, depth: int, loop: bool) -> None:
        self.write(depth, f"if {self.condition()}:")
        self.block(depth + 1, self.rng.randint(1, 2), loop)
        if self.rng.random() < 0.3:
            self.write(depth, f"elif {self.condition()}:")
            self.block(depth + 1, 1, loop)
        if self.rng.random() < 0.5:
            self.write(depth, "else:")
            self.block(depth + 1, 1, loop)

    def _for(self, depth: int, loop: bool) -> None:
        i, w = self.name("i"), self.name("w")
        length = self.one_of("3", f"{N}", "9", "n", "n", "1, n + 2", "c % 4", "5, 0, -1")
        over = self.one_of(
            *(f"{i} in range({length})",) * 5,
            *(f"{i}, {w} in enumerate({self.array()})", f"{w}, {i} in zip({self.array()}, range(n))"),
        )
        self.write(depth, f"for {over}:")
        self.indices.append(i)
        if w in over:
            self.write(depth + 1, f"t = np.tanh(t + {w})")
        self.block(depth + 1, self.rng.randint(1, 3), loop=True)
        self.indices.pop()
        if self.rng.random() < 0.2:
            self.write(depth, "else:")
            self.block(depth + 1, 1, loop)

    def _while(self, depth: int, loop: bool) -> None:
        k = self.name("k")
        self.write(depth, f"{k} = {self.one_of('n', '0', 'c % 3')}")
        endless = self.rng.random() < 0.4
        self.write(depth, "while True:" if endless else f"while {k} < {self.one_of('4', '7', 'n + 2')}:")
        self.write(depth + 1, f"{k} += 1")
        self.indices.append(k)
        if endless:
            self.write(depth + 1, f"if {k} > 6 or {self.condition()}:")
            self.write(depth + 2, "break")
        self.block(depth + 1, self.rng.randint(1, 2), loop=True)
        self.indices.pop()


for _kind in ("if", "for", "while"):
    setattr(Writer, _kind, getattr(Writer, f"_{_kind}"))


def function(source: str) -> Any:
    """The function ``f`` of a source that dflow can read."""
    name = f"<program {abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {"np": np, "__name__": "program"}
    exec(compile(source, name, "exec"), names)
    return names["f"]
