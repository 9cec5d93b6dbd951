"""Fourier transforms of rows, or of several columns at once, as functions in LLVM's language.

Stockham's method: a pass for each factor r of the size, which leaves the elements in order. With s the product of the
factors before and m of those behind,

    target[q + s (r p + k)] = w^(p k) sum over j of source[q + s (p + m j)] v^(j k)        w = exp(-2 pi i / r m)

for all q < s, p < m and k < r, where v = exp(-2 pi i / r). Between passes real and imaginary parts lie apart, in
vectors along q: those of a row are consecutive elements, those of columns are columns. The first pass over a row has
s = 1: its vectors are along p, and are turned when they are stored. The inverse transform is the same with the parts
exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from dflow.backends.emit.core import untyped
from dflow.backends.emit.function_writer import FunctionWriter, internal_function
from dflow.backends.emit.types import I8, I32, PTR, ZERO, index, splat
from dflow.ir.ops.fourier import prime_factors, roots
from dflow.ir.types import DType

VECTOR = 64  # bytes
GAP = 320  # bytes between arrays, so that they do not meet in the same sets of a cache
WRITTEN_OUT = 13  # the largest prime factor whose pass has no loop
CONTRACT = ("contract",)
Number = tuple[ir.Value, ir.Value]  # vectors of real and imaginary parts


def lanes_of(dtype: DType) -> int:
    """How many columns go at once."""
    return VECTOR // (dtype.itemsize // 2)


def scratch_bytes(dtype: DType, n: int, columns: int = 1) -> int:
    """The memory that a transform works in."""
    return 4 * (n * columns * dtype.itemsize // 2 + GAP)


def of_row(module: ir.Module, dtype: DType, n: int, inverse: bool) -> ir.Function:
    """``void f(x, y, scratch)`` for ``n`` elements that lie side by side."""
    return _function(module, dtype, n, 1, n, inverse)


def of_columns(module: ir.Module, dtype: DType, n: int, columns: int, step: int, inverse: bool) -> ir.Function:
    """The same for ``columns`` (a power of two) columns that lie side by side; ``step`` elements between rows."""
    return _function(module, dtype, n, columns, step, inverse)


def _function(module: ir.Module, dtype: DType, n: int, columns: int, step: int, inverse: bool) -> ir.Function:
    name = f"dflow.fourier.{dtype.name}.{n}.{columns}.{step}.{'inverse' if inverse else 'forward'}"
    f, fresh = internal_function(module, name, [PTR, PTR, PTR])
    if fresh:
        for arg in f.args:
            arg.add_attribute("noalias")
        _Transform(f, dtype, n, columns, step, inverse).write()
    return f


def radices(n: int) -> list[int]:
    """The factors of the passes: as few as there may be of two, then odd primes."""
    primes = prime_factors(n)
    twos = primes.count(2)
    eights, rest = divmod(twos, 3)
    few = [*[8] * (eights - 1), 4, 4] if rest == 1 and eights else [*[8] * eights, *([1 << rest] if rest else [])]
    return [*few, *(p for p in reversed(primes) if p > 2)] or [1]


class _Transform(FunctionWriter):
    def __init__(self, f: ir.Function, dtype: DType, n: int, columns: int, step: int, inverse: bool):
        super().__init__(f)
        self.x, self.y, scratch = f.args
        self.n, self.columns, self.step, self.inverse = n, columns, step, inverse
        self.bytes = dtype.itemsize // 2
        self.real = np.dtype(f"f{self.bytes}")
        self.t: ir.Type = ir.DoubleType() if self.bytes == 8 else ir.FloatType()
        self.widest = VECTOR // self.bytes
        size = n * columns * self.bytes + GAP
        self.parts = [self.b.gep(scratch, [index(k * size)], source_etype=I8) for k in range(4)]

    def write(self) -> None:
        factors = radices(self.n)
        s, m = 1, self.n
        for k, r in enumerate(factors):
            m //= r
            last = k == len(factors) - 1
            here, there = (self.parts[2 * (j % 2) : 2 * (j % 2) + 2] for j in (k + 1, k))
            read = self.read_given if k == 0 else _between(self.read_apart, here)
            write = self.write_found if last else _between(self.write_apart, there)
            if s == 1 and m > 1 and self.columns == 1:
                self.first_of_row(r, m, there)
            else:
                self.one_pass(r, m, s, read, write)
            s *= r
        self.b.ret_void()

    # --- passes

    def one_pass(self, r: int, m: int, s: int, read: Any, write: Any) -> None:
        w = self.columns if self.columns > 1 else _power(min(self.widest, s))
        table = None
        if m > 1:
            table = self.table(f"{m}.{r}", roots(np.outer(np.arange(m), np.arange(1, r)), r * m, -1, complex))

        def of_p(p: ir.Value) -> None:
            turns = [] if table is None else [self.root(table, p, r, k, w) for k in range(r - 1)]

            def of_q(q: ir.Value) -> None:
                start = self.plus(q, self.times(p, s))
                xs = [read(self.plus(start, index(s * m * j)), w) for j in range(r)]
                ys = self.turned(self.transform(xs), turns)
                start = self.plus(q, self.times(p, s * r))
                for k, v in enumerate(ys):
                    write(self.plus(start, index(s * k)), v)

            self.along(s, 1 if self.columns > 1 else w, of_q)

        self.count(ZERO, index(m), of_p)

    def first_of_row(self, r: int, m: int, there: Sequence[ir.Value]) -> None:
        """With vectors along p, which go to places ``r`` elements apart."""
        w = _power(min(self.widest, m))
        factors = roots(np.outer(np.arange(1, r), np.arange(m)), r * m, -1, complex)
        names = (f"{r}.{m}.{part}" for part in ("real", "imaginary"))
        tables = [self.table(name, part) for name, part in zip(names, (factors.real, factors.imag))]

        def of_p(p: ir.Value) -> None:
            xs = [self.read_given(self.plus(p, index(m * j)), w) for j in range(r)]
            turns = []
            for k in range(r - 1):
                re, im = (self.load(t, self.plus(p, index(m * k)), w) for t in tables)
                turns.append((re, im))
            ys = self.turned(self.transform(xs), turns)
            for part, vectors in zip(there, zip(*ys)):
                self.store_interleaved(part, self.times(p, r), vectors)

        self.along(m, w, of_p)

    def along(self, size: int, w: int, body: Callable[[ir.Value], Any]) -> None:
        """``body(k)`` for vectors from k on that cover ``size`` elements; the last may begin inside of that before."""
        rest = size % w

        def one(k: ir.Value) -> None:
            if rest:
                far = self.b.icmp_signed(">", k, index(size - w))
                k = self.b.select(far, index(size - w), k)
            body(k)

        self.count(ZERO, index(size), one, index(w))

    # --- memory

    def read_given(self, at: ir.Value, w: int) -> Number:
        """Elements of x, whose parts lie side by side."""
        at = self.times(at, 2 * (self.step if self.columns > 1 else 1))
        first, second = (self.load(self.x, self.plus(at, index(k * w)), w) for k in range(2))
        re, im = (self.shuffle(first, second, range(k, 2 * w, 2)) for k in range(2))
        return (im, re) if self.inverse else (re, im)

    def write_found(self, at: ir.Value, v: Number) -> None:
        re, im = v[::-1] if self.inverse else v
        at = self.times(at, 2 * (self.step if self.columns > 1 else 1))
        self.store_interleaved(self.y, at, (re, im))

    def read_apart(self, parts: Sequence[ir.Value], at: ir.Value, w: int) -> Number:
        re, im = (self.load(part, self.times(at, self.columns), w) for part in parts)
        return re, im

    def write_apart(self, parts: Sequence[ir.Value], at: ir.Value, v: Number) -> None:
        for part, x in zip(parts, v):
            self.store(x, part, self.times(at, self.columns))

    def load(self, base: ir.Value, at: ir.Value, w: int) -> ir.Value:
        return self.b.load(self.at(base, at, self.t), typ=ir.VectorType(self.t, w), align=self.bytes)

    def store(self, v: ir.Value, base: ir.Value, at: ir.Value) -> None:
        self.b.store(v, self.at(base, at, self.t), align=self.bytes)

    def store_interleaved(self, base: ir.Value, at: ir.Value, vectors: Sequence[ir.Value]) -> None:
        """Element l of vector k goes to ``at + l * len(vectors) + k``."""
        count, w = len(vectors), vectors[0].type.count
        if count == _power(count):
            for k, v in enumerate(self.interleaved(vectors)):
                self.store(v, base, self.plus(at, index(k * w)))
            return
        for k, v in enumerate(vectors):
            for lane in range(w):
                x = self.b.extract_element(v, I32(lane))
                self.b.store(x, self.at(base, self.plus(at, index(lane * count + k)), self.t))

    def interleaved(self, vectors: Sequence[ir.Value]) -> list[ir.Value]:
        if len(vectors) == 1:
            return list(vectors)
        half, w = len(vectors) // 2, vectors[0].type.count
        order = [k // 2 + w * (k % 2) for k in range(2 * w)]
        pairs = list(zip(vectors[:half], vectors[half:]))
        ends = ([self.shuffle(a, b, part) for a, b in pairs] for part in (order[:w], order[w:]))
        return [v for end in ends for v in self.interleaved(end)]

    def shuffle(self, a: ir.Value, b: ir.Value, places: Sequence[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(I32, len(places)), list(places))
        return self.b.shuffle_vector(a, b, mask)

    def table(self, name: str, numbers: Any) -> ir.Value:
        """Constants, which transforms share; complex ones are pairs."""
        name = f"dflow.roots.{name}.{8 * self.bytes}"
        if name in self.module.globals:
            return self.module.globals[name]
        raw = bytearray(np.ascontiguousarray(numbers).view(float).astype(self.real).tobytes())
        made: Any = untyped(ir.GlobalVariable(self.module, ir.ArrayType(I8, len(raw)), name))
        made.initializer, made.linkage, made.global_constant = ir.Constant(made.value_type, raw), "internal", True
        made.align = VECTOR
        return made

    def root(self, table: ir.Value, p: ir.Value, r: int, k: int, w: int) -> Number:
        """Factor k of the row p of a table, in all lanes."""
        at = self.plus(self.times(p, 2 * (r - 1)), index(2 * k))
        t = ir.VectorType(self.t, w)
        re, im = (
            splat(self.b, self.b.load(self.at(table, self.plus(at, index(j)), self.t), typ=self.t), t) for j in (0, 1)
        )
        return re, im

    def plus(self, a: ir.Value, c: ir.Value) -> ir.Value:
        return self.b.add(a, c, flags=("nsw",))

    def times(self, a: ir.Value, c: int) -> ir.Value:
        return a if c == 1 else self.b.mul(a, index(c), flags=("nsw",))

    # --- arithmetic

    def turned(self, ys: Sequence[Number], turns: Sequence[Number]) -> list[Number]:
        return [ys[0], *(self.multiply(y, t) for y, t in zip(ys[1:], turns))] if turns else list(ys)

    def transform(self, xs: Sequence[Number]) -> list[Number]:
        """Of a few numbers."""
        n = len(xs)
        if n == 1:
            return list(xs)
        if n % 2:
            return self.odd(xs)
        even, odd = self.transform(xs[::2]), self.transform(xs[1::2])
        odd = [self.turn(y, k, n) for k, y in enumerate(odd)]
        return [*map(self.add, even, odd), *map(self.subtract, even, odd)]

    def turn(self, y: Number, k: int, n: int) -> Number:
        """``y`` times exp(-2 pi i k / n), for k below n / 2."""
        re, im = y
        if k == 0:
            return y
        if 4 * k == n:
            return im, self.b.fneg(re)
        angle = -2 * math.pi * k / n
        c, s = self.number(re, math.cos(angle)), self.number(re, math.sin(angle))
        if 8 * k in (n, 3 * n):  # both of the same size
            a, d = self.b.fadd(re, im), self.b.fsub(im, re)
            half = self.number(re, math.sqrt(0.5))
            if 8 * k == n:
                return self.b.fmul(a, half), self.b.fmul(d, half)
            return self.b.fmul(d, half), self.b.fneg(self.b.fmul(a, half))
        return self.multiply(y, (c, s))

    def odd(self, xs: Sequence[Number]) -> list[Number]:
        """A prime size: elements that are as far from the first on both sides have factors that are conjugate."""
        n, first = len(xs), xs[0]
        sums, differences = ([f(xs[j], xs[n - j]) for j in range(1, n // 2 + 1)] for f in (self.add, self.subtract))
        total = first
        for v in sums:
            total = self.add(total, v)
        if n > WRITTEN_OUT:
            return [total, *self.odd_in_loop(first, sums, differences)]
        front, back = [], []
        for k in range(1, n // 2 + 1):
            even, odd = first, None
            for j, (v, d) in enumerate(zip(sums, differences), 1):
                angle = 2 * math.pi * (j * k % n) / n
                even = self.add(even, self.scale(v, math.cos(angle)))
                term = self.scale(d, math.sin(angle))
                odd = term if odd is None else self.add(odd, term)
            assert odd is not None
            turned = odd[1], self.b.fneg(odd[0])  # -i times it
            front.append(self.add(even, turned))
            back.append(self.subtract(even, turned))
        return [total, *front, *reversed(back)]

    def odd_in_loop(self, first: Number, sums: Sequence[Number], differences: Sequence[Number]) -> list[Number]:
        """The same but for the first result, for one frequency and its opposite in each round."""
        half, t = len(sums), first[0].type
        n = 2 * half + 1
        found = [self.room(ir.ArrayType(t, 2 * half)) for _ in range(2)]
        angles = 2 * np.pi * (np.outer(np.arange(1, half + 1), np.arange(1, half + 1)) % n) / n
        table = self.table(f"{n}.prime", np.exp(1j * angles))

        def one(k: ir.Value) -> None:
            even, odd = first, None
            for j, (v, d) in enumerate(zip(sums, differences)):
                c, s = self.root(table, k, half + 1, j, t.count)
                even = self.add(even, self.product(v, c))
                term = self.product(d, s)
                odd = term if odd is None else self.add(odd, term)
            assert odd is not None
            turned = odd[1], self.b.fneg(odd[0])
            for place, v in (
                (k, self.add(even, turned)),
                (self.b.sub(index(2 * half - 1), k), self.subtract(even, turned)),
            ):
                for array, part in zip(found, v):
                    self.b.store(part, self.at(array, place, t))

        self.count(ZERO, index(half), one)
        results = [[self.b.load(self.at(array, index(k), t), typ=t) for k in range(2 * half)] for array in found]
        return list(zip(*results))

    def product(self, a: Number, c: ir.Value) -> Number:
        return self.b.fmul(a[0], c, flags=CONTRACT), self.b.fmul(a[1], c, flags=CONTRACT)

    def number(self, like: ir.Value, value: float) -> ir.Value:
        return ir.Constant(like.type, [ir.Constant(self.t, value)] * like.type.count)

    def scale(self, a: Number, c: float) -> Number:
        return self.product(a, self.number(a[0], c))

    def add(self, a: Number, c: Number) -> Number:
        return self.b.fadd(a[0], c[0], flags=CONTRACT), self.b.fadd(a[1], c[1], flags=CONTRACT)

    def subtract(self, a: Number, c: Number) -> Number:
        return self.b.fsub(a[0], c[0], flags=CONTRACT), self.b.fsub(a[1], c[1], flags=CONTRACT)

    def multiply(self, a: Number, c: Number) -> Number:
        b = self.b
        ac, bd, ad, bc = (b.fmul(a[i], c[j], flags=CONTRACT) for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)))
        return b.fsub(ac, bd, flags=CONTRACT), b.fadd(ad, bc, flags=CONTRACT)


def _between(f: Callable[..., Any], parts: Sequence[ir.Value]) -> Callable[..., Any]:
    return lambda *args: f(parts, *args)


def _power(n: int) -> int:
    """The largest power of two up to n."""
    return 1 << (n.bit_length() - 1)
