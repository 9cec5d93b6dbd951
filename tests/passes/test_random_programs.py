"""Every optimization pass keeps the meaning of generated programs, and leaves nothing for itself to do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs_ir import Program, random_functions

import dflow.ir.ops  # noqa: F401
from dflow.ir.builder import Builder
from dflow.ir.core import Function, Op, Value, walk
from dflow.ir.evaluator import evaluate
from dflow.ir.passes import PASSES, PIPELINE, optimize
from dflow.ir.passes.ranges import analyse
from dflow.ir.passes.vjp import vjp
from dflow.ir.printer import print_function
from dflow.ir.types import BOOL, F64, I64, Size, TensorType, scalar
from dflow.ir.verifier import verify

FLOAT, INT, TRUTH = scalar(F64), scalar(I64), scalar(BOOL)
VECTOR, MATRIX, INDICES = TensorType(F64, (4,)), TensorType(F64, (3, 4)), TensorType(I64, (4,))
CONSTANTS = {
    FLOAT: [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.25, float("inf"), float("nan")],
    INT: [0, 1, -1, 2, 3, 5, -4],
    TRUTH: [True, False],
}
FLOAT_BINARY = ["add", "sub", "mul", "div", "max", "min", "floordiv", "copysign"]
INT_BINARY = ["add", "sub", "mul", "max", "min", "floordiv", "rem", "and", "or", "xor"]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]


class Generator:
    """Makes a program by random choices."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def function(self) -> Function:
        b = Builder([FLOAT, FLOAT, INT, INT, VECTOR, MATRIX], ["a", "b", "n", "m", "v", "w"])
        pool = list(b.args)
        self.fill(b, pool, 25, 0)
        return b.function("f", self.rng.sample(pool, min(12, len(pool))))

    def fill(self, b: Builder, pool: list[Value], count: int, depth: int) -> None:
        for _ in range(self.rng.randint(1, count)):
            pool.extend(self.step(b, pool, depth))

    def pick(self, b: Builder, pool: list[Value], t: TensorType) -> Value:
        found = [v for v in pool[-12:] if v.type == t] or [v for v in pool if v.type == t]
        if found and self.rng.random() < 0.8:
            return self.rng.choice(found)
        if t.shape:
            return b.full(self.rng.choice(CONSTANTS[scalar(t.dtype)]), t)
        return b.constant(self.rng.choice(CONSTANTS[t]), t.dtype)

    def step(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        kinds = ["float", "float", "int", "int", "compare", "logic", "select", "convert", "shape", "read", "read"]
        kinds += ["write", "write", "check", "slice", "guarded"] + ["if", "for", "while"] * (depth < 3)
        return [*getattr(self, f"_{self.rng.choice(kinds)}")(b, pool, depth)]

    def position(self, b: Builder, pool: list[Value], size: int) -> Value:
        """An index inside of an axis."""
        if self.rng.random() < 0.4:
            return b.index(self.rng.randrange(size))
        return b.rem(self.pick(b, pool, INT), b.index(size))

    def _float(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        t = self.rng.choice([FLOAT, FLOAT, VECTOR, MATRIX])
        if self.rng.random() < 0.25:
            return [b.emit(self.rng.choice(["neg", "abs", "sign", "sqrt"]), self.pick(b, pool, t))]
        return [b.emit(self.rng.choice(FLOAT_BINARY), self.pick(b, pool, t), self.pick(b, pool, t))]

    def _int(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        t = self.rng.choice([INT, INT, INT, INDICES])
        if self.rng.random() < 0.2:
            return [b.emit(self.rng.choice(["neg", "abs", "not"]), self.pick(b, pool, t))]
        return [b.emit(self.rng.choice(INT_BINARY), self.pick(b, pool, t), self.pick(b, pool, t))]

    def _compare(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        t = self.rng.choice([FLOAT, INT, INT])
        return [b.emit(self.rng.choice(COMPARISONS), self.pick(b, pool, t), self.pick(b, pool, t))]

    def _logic(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        x, y = self.pick(b, pool, TRUTH), self.pick(b, pool, TRUTH)
        return [b.not_(x) if self.rng.random() < 0.3 else b.emit(self.rng.choice(["and", "or", "xor", "eq"]), x, y)]

    def _select(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        t = self.rng.choice([FLOAT, INT, TRUTH])
        return [b.select(self.pick(b, pool, TRUTH), self.pick(b, pool, t), self.pick(b, pool, t))]

    def _convert(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        t, to = self.rng.choice([(INT, F64), (TRUTH, I64), (TRUTH, F64), (INDICES, F64), (FLOAT, F64), (INT, BOOL)])
        return [b.convert(self.pick(b, pool, t), dtype=to)]

    def _shape(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        w, v = self.pick(b, pool, MATRIX), self.pick(b, pool, VECTOR)
        choice = self.rng.randrange(6)
        if choice == 0:
            return [b.transpose(b.transpose(w, perm=(1, 0)), perm=(1, 0))]
        if choice == 1:
            return [b.reshape(b.reshape(w, shape=(4, 3)), shape=(3, 4))]
        if choice == 2:
            return [b.broadcast(v, shape=(3, 4), dims=(1,))]
        if choice == 3:
            return [b.reduce(w, kind=self.rng.choice(["sum", "max"]), axes=(0,))]
        if choice == 4:
            return [b.iota(size=4)]
        row = b.reshape(v, shape=(1, 4))
        return [b.concatenate(row, b.reshape(self.pick(b, pool, VECTOR), shape=(1, 4)), row, axis=0)]

    def _read(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        t = self.rng.choice([VECTOR, INDICES, MATRIX])
        x, j = self.pick(b, pool, t), self.position(b, pool, 4)
        if t != MATRIX:
            return [b.extract(x, j, index=("at",))]
        i = self.position(b, pool, 3)
        choice = self.rng.randrange(3)
        if choice == 0:
            return [b.extract(x, i, j, index=("at", "at"))]
        row = b.extract(x, i, index=("at", "all"))
        return [row] if choice == 1 else [row, b.extract(row, j, index=("at",))]

    def _slice(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        """Parts of a known size, and of one that is known when the program runs."""
        v = self.pick(b, pool, VECTOR)
        if self.rng.random() < 0.5:
            part = b.extract(v, b.index(self.rng.randrange(3)), index=(("slice", 2, 1),))
            return [b.update(v, part, b.index(self.rng.randrange(3)), index=(("slice", 2, 1),))]
        if self.rng.random() < 0.3:
            return self._choice_of_parts(b, pool, v)
        size = Size(b.rem(self.pick(b, pool, INT), b.index(5)), 4)
        part = b.extract(v, b.index(0), index=(("slice", size, 1),))
        return [b.update(v, b.mul(part, part), b.index(0), index=(("slice", size, 1),)), size.value]

    def _choice_of_parts(self, b: Builder, pool: list[Value], v: Value) -> list[Value]:
        """Branches that yield a size beside what it bounds."""
        outer = b.rem(self.pick(b, pool, INT), b.index(5))

        def part(inner: Builder) -> list[Value]:
            n = outer if self.rng.random() < 0.5 else inner.rem(self.pick(inner, pool, INT), inner.index(5))
            p = inner.extract(v, inner.index(0), index=(("slice", Size(n, 4), 1),))
            return [n, inner.mul(p, p)]

        n, p = b.if_(self.pick(b, pool, TRUTH), part, part)
        return [n, b.reduce(b.neg(p), kind="sum", axes=(0,))]

    def _write(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        name = self.rng.choice(["update", "update", "update_add"])
        j = self.position(b, pool, 4)
        if self.rng.random() < 0.5:
            x = b.emit(name, self.pick(b, pool, VECTOR), self.pick(b, pool, FLOAT), j, index=("at",))
            return [x, b.extract(x, self.rng.choice([j, self.position(b, pool, 4)]), index=("at",))]
        w, i = self.pick(b, pool, MATRIX), self.position(b, pool, 3)
        return [b.emit(name, w, self.pick(b, pool, VECTOR), i, index=("at", "all"))]

    def _check(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        i = self.pick(b, pool, INT)
        ok = b.or_(b.lt(i, b.index(self.rng.randint(-2, 6))), b.ge(i, b.index(self.rng.randint(-3, 1))))
        b.append("check", [ok, i], {"error": "IndexError", "message": "{0} is outside"})
        return [ok]

    def _guarded(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        """A read at a position that need not be inside, behind a check or a branch."""
        x, i = self.pick(b, pool, VECTOR), self.pick(b, pool, INT)
        if self.rng.random() < 0.5:
            i = b.select(b.lt(i, b.index(0)), b.add(i, b.index(4)), i)
        ok = b.and_(b.ge(i, b.index(0)), b.lt(i, b.index(4)))
        if self.rng.random() < 0.3:
            b.append("check", [ok, i], {"error": "IndexError", "message": "{0} is outside"})
            return [b.extract(x, i, index=("at",))]
        read = lambda inner: [inner.extract(x, i, index=("at",))]  # noqa: E731
        return list(b.if_(ok, read, lambda inner: [inner.constant(0.0)]))

    # -- control flow ----------------------------------------------------------------------------------------------

    def carried(self, b: Builder, pool: list[Value]) -> list[Value]:
        kinds = [self.rng.choice([FLOAT, INT, VECTOR]) for _ in range(self.rng.randint(1, 3))]
        return [self.pick(b, pool, t) for t in kinds]

    def again(self, b: Builder, pool: list[Value], args: Any) -> list[Value]:
        """The next values of what a loop carries: new, unchanged, or counted on."""
        out = []
        for a in args:
            choice = self.rng.random()
            if choice < 0.15:
                out.append(a)
            elif choice < 0.4 and a.type == INT:
                out.append(b.add(a, b.index(self.rng.choice([1, -1, 2]))))
            else:
                out.append(self.pick(b, pool, a.type))
        return out

    def _if(self, b: Builder, pool: list[Value], depth: int) -> Any:
        outer = self.carried(b, pool)

        def region(inner: Builder) -> list[Value]:
            local = [*pool, *outer]
            self.fill(inner, local, 4, depth + 1)
            return self.again(inner, local, outer)

        return b.if_(self.pick(b, pool, TRUTH), region, region)

    def _body(self, pool: list[Value], depth: int) -> Any:
        def body(inner: Builder, *args: Value) -> list[Value]:
            local = [*pool, *args]
            self.fill(inner, local, 5, depth + 1)
            return self.again(inner, local, args)

        return body

    def _for(self, b: Builder, pool: list[Value], depth: int) -> Any:
        count = b.index(self.rng.choice([0, 1, 2, 3]))
        if self.rng.random() < 0.5:
            count = b.rem(self.pick(b, pool, INT), b.index(4))
        body = self._body(pool, depth)
        again = lambda inner, k, *args: body(inner, k, *args)[1:]  # noqa: E731
        return b.for_loop(count, self.carried(b, pool), again)

    def _while(self, b: Builder, pool: list[Value], depth: int) -> Any:
        """A loop that counts down."""
        body = self._body(pool, depth)
        start = b.rem(self.pick(b, pool, INT), b.index(4))
        return b.while_loop(
            [start, *self.carried(b, pool)],
            lambda inner, i, *args: inner.gt(i, inner.index(0)),
            lambda inner, i, *args: [inner.sub(i, inner.index(1)), *body(inner, i, *args)[1:]],
        )


class Counters(Generator):
    """Programs of integers: nested loops over parts of ranges, counters, conditions."""

    def step(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        kinds = ["sum", "sum", "int", "compare", "select", "check", "clamp"] + ["if", "for", "while"] * (depth < 3)
        return [*getattr(self, f"_{self.rng.choice(kinds)}")(b, pool, depth)]

    def carried(self, b: Builder, pool: list[Value]) -> list[Value]:
        return [self.pick(b, pool, INT) for _ in range(self.rng.randint(1, 3))]

    def _sum(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        y = self.pick(b, pool, INT) if self.rng.random() < 0.6 else b.index(self.rng.randint(-3, 3))
        return [b.emit(self.rng.choice(["add", "sub"]), self.pick(b, pool, INT), y)]

    def _clamp(self, b: Builder, pool: list[Value], depth: int) -> list[Value]:
        x = self.pick(b, pool, INT)
        return [b.min(b.max(x, b.index(self.rng.randint(-2, 1))), b.index(self.rng.randint(1, 6)))]

    def _for(self, b: Builder, pool: list[Value], depth: int) -> Any:
        """``for i in range(start, stop, step)``."""
        start, stop = (b.rem(self.pick(b, pool, INT), b.index(6)) for _ in "ab")
        step = self.rng.choice([1, 2, -1, 3])
        low, high = (start, stop) if step > 0 else (stop, start)
        count = b.max(b.floordiv(b.add(b.sub(high, low), b.index(abs(step) - 1)), b.index(abs(step))), b.index(0))
        body = self._body(pool, depth)

        def counted(inner: Builder, k: Value, *args: Value) -> list[Value]:
            i = inner.add(start, inner.mul(k, inner.index(step)))
            for bound in (start, stop):
                ok = inner.emit(self.rng.choice(COMPARISONS), i, bound)
                inner.append("check", [inner.or_(ok, inner.le(start, stop))], {"error": "IndexError", "message": ""})
            return body(inner, i, *args)[1:]

        return b.for_loop(count, self.carried(b, pool), counted)

    def _while(self, b: Builder, pool: list[Value], depth: int) -> Any:
        """``while i < bound: i += 1``, the bound near the start."""
        body = self._body(pool, depth)
        start = b.index(self.rng.choice([0, 0, 1, 2, -1]))
        bound = b.add(b.rem(self.pick(b, pool, INT), b.index(4)), start)
        return b.while_loop(
            [start, *self.carried(b, pool)],
            lambda inner, i, *args: inner.lt(i, bound),
            lambda inner, i, *args: [inner.add(i, inner.index(1)), *body(inner, i, *args)[1:]],
        )


def arguments(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    a, b = rng.choice([0.0, -0.0, 1.5, -2.0, np.nan, np.inf], 2)
    n, m = rng.integers(-6, 7, 2)
    return [float(a), float(b), int(n), int(m), rng.standard_normal(4), rng.integers(-2, 3, (3, 4)).astype(float)]


def run(f: Function, args: list[Any]) -> Any:
    try:
        return evaluate(f, args)
    except IndexError as e:
        return str(e)


def same(x: Any, y: Any) -> bool:
    """Equal bit for bit, but for the kind of NaN."""
    if isinstance(x, str) or isinstance(y, str):
        return x == y
    return all(
        np.array_equal(p, q, equal_nan=p.dtype.kind == "f") and np.array_equal(signs(p), signs(q))
        for p, q in zip(x, y, strict=True)
    )


def signs(x: Any) -> Any:
    return np.signbit(x) & ~np.isnan(x) if x.dtype.kind == "f" else x


programs = st.randoms(use_true_random=False).map(
    lambda rng: (Generator if rng.random() < 0.7 else Counters)(rng).function()
)
counters = st.randoms(use_true_random=False).map(lambda rng: Counters(rng).function())
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", [*dict.fromkeys(PIPELINE), "optimize"])
@SETTINGS
@given(programs, st.integers(0, 1000))
def test_pass_keeps_meaning(name: str, f: Function, seed: int) -> None:
    verify(f)
    before = print_function(f)
    g = optimize(f, check=True) if name == "optimize" else PASSES[name](f)
    verify(g, after=name)
    assert print_function(f) == before, "edited in place"
    for k in range(4):
        args = arguments(seed + k)
        assert same(run(f, args), run(g, args)), f"{f}\nbecame\n{g}\nargs {args}"


@SETTINGS
@given(counters, st.integers(0, 1000))
def test_ranges_hold(f: Function, seed: int) -> None:
    g, known = analyse(f)
    verify(g)
    for k in range(4):
        args, seen = arguments(seed + k), {}
        found = run(f, args)
        assert same(found, run(g, args)), f"{f}\nbecame\n{g}\nargs {args}"
        if not isinstance(found, str):
            evaluate(g, args, on_op=lambda op, results, _, seen=seen: note(seen, op, results))
        for v, (lo, hi) in seen.items():
            low, high = known.interval(v)
            assert low <= lo and hi <= high, f"{g}\nargs {args}: {v} is {lo} to {hi}, thought {low} to {high}"


def note(seen: dict[Value, tuple[int, int]], op: Op, results: Any) -> None:
    """The smallest and the largest number that each integer has been."""
    for v, x in zip(op.results, results):
        if v.type in (INT, TRUTH):
            lo, hi = seen.get(v, (int(x), int(x)))
            seen[v] = min(lo, int(x)), max(hi, int(x))


@pytest.mark.parametrize("name", ["cse", "dce", "licm"])
@SETTINGS
@given(programs)
def test_pass_finds_nothing_left(name: str, f: Function) -> None:
    g = PASSES[name](f)
    assert size(PASSES[name](g)) == size(g)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(random_functions(kinks=True, steps=10))
def test_optimizing_keeps_derivatives(p: Program) -> None:
    """Before and after differentiation."""
    plain, optimized = vjp(p.function), optimize(vjp(optimize(p.function)))
    rng = np.random.default_rng(0)
    cotangents = [rng.standard_normal(t.static_shape) for t in plain.arg_types[len(p.args) :]]
    for x, y in zip(*(evaluate(f, [*p.args, *cotangents]) for f in (plain, optimized)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


def size(f: Function) -> int:
    return sum(1 for _ in walk(f.body))
