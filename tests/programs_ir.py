"""Programs for tests of the IR, of passes and of backends.

- ``op_cases()`` lists every sample of every operation for every dtype it takes, ``one_op`` makes a function of one.
- ``random_functions()`` is a hypothesis strategy for well-typed programs with loops, branches, updates and reductions.
  Values stay within about [-4, 4] and derivatives are moderate, so that results of different ways of computing compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dflow.ir.builder import Builder
from dflow.ir.core import Function, Value
from dflow.ir.registry import OPS, OpTypeError, Sample
from dflow.ir.types import F64, I64, DType, Size, TensorType, scalar, type_of_array

# -- one operation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpCase:
    name: str
    sample: Sample
    dtype: DType
    number: int

    def __str__(self) -> str:
        return f"{self.name}-{self.number}-{self.dtype}"


def sample_arrays(sample: Sample, dtype: DType) -> list[np.ndarray]:
    """The operands of a sample with ``dtype``; those that it lists as integer stay integer (or bool)."""
    return [_integer(x) if k in sample.integer else _cast(np.asarray(x), dtype) for k, x in enumerate(sample.operands)]


def _integer(x: Any) -> np.ndarray:
    a = np.asarray(x)
    return a if a.dtype.kind == "b" else a.astype(np.int64)


def _cast(a: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype.is_integer and a.dtype.kind == "f":
        a = np.nan_to_num(a, nan=0.0, posinf=100.0, neginf=-100.0).astype(np.int64)
    return a.astype(dtype.numpy)


def one_op(name: str, sample: Sample, dtype: DType = F64) -> tuple[Function, list[np.ndarray]]:
    """A function of one operation and the arguments for it. Raises OpTypeError when it does not take ``dtype``."""
    arrays = sample_arrays(sample, dtype)
    attrs = {k: a.with_dtype(dtype) if isinstance(a, TensorType) else a for k, a in sample.attrs.items()}
    if name == "constant":
        attrs["value"] = _cast(np.asarray(attrs["value"]), dtype).item()
    b = Builder([type_of_array(a) for a in arrays], [f"x{k}" for k in range(len(arrays))])
    results = b.append(name, b.args, attrs)
    return b.function(name, results), arrays


def op_cases(smooth: bool | None = None, dtypes: Sequence[DType] | None = None) -> list[OpCase]:
    """Every sample for every dtype that its operation takes; ``smooth`` and ``dtypes`` select among them."""
    cases = []
    for name, op in OPS.items():
        for number, sample in enumerate(op.samples):
            for dtype in op.dtypes or (F64,):
                chosen = (smooth is None or sample.smooth == smooth) and (dtypes is None or dtype in dtypes)
                if chosen and _takes(name, sample, dtype):
                    cases.append(OpCase(name, sample, dtype, number))
    return cases


def _takes(name: str, sample: Sample, dtype: DType) -> bool:
    try:
        one_op(name, sample, dtype)
    except OpTypeError:
        return False
    return True


# -- random programs ---------------------------------------------------------------------------------------------------

SHAPES = ((), (2,), (3,), (2, 3), (3, 2))
BOUNDED = ("sin", "cos", "tanh", "atan", "erf")
THRESHOLD = 0.1234567  # no value of a program is equal to it by design, so branches stay clear of their edge


@dataclass(frozen=True)
class Program:
    function: Function
    args: tuple[np.ndarray, ...]

    def __repr__(self) -> str:
        values = "\n".join(f"  {v!r} = {a.tolist()!r}" for v, a in zip(self.function.args, self.args))
        return f"{self.function}\nwith\n{values}"


@st.composite
def random_functions(
    draw: Any, dtype: DType = F64, kinks: bool = False, sizes: bool = True, control: bool = True, steps: int = 6
) -> Program:
    """A program and arguments for it: up to three tensors of ``dtype`` and an ``i64`` scalar ``n`` in 0 .. 3.

    ``kinks`` adds operations without a derivative in some points (abs, max, floor, ...), ``sizes`` slices whose size is
    known only when the program runs; ``control`` (loops and branches) can be left out.
    """
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    b = Builder([*(TensorType(dtype, s) for s in shapes), scalar(I64)], [*"xyz"[: len(shapes)], "n"])
    writer = _Writer(draw, dtype, kinks, sizes)
    scope = _Scope(list(b.args[:-1]), [b.args[-1]])
    writer.steps(b, scope, draw(st.integers(1, steps)), depth=2 if control else 0)
    results = scope.floats[-draw(st.integers(1, 2)) :]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    args = [rng.uniform(-1, 1, s).astype(dtype.numpy) for s in shapes]
    return Program(b.function("random", results), (*args, np.asarray(draw(st.integers(0, 3)))))


@dataclass
class _Scope:
    """The values that the next operation may use."""

    floats: list[Value]
    integers: list[Value]

    def inner(self, floats: Sequence[Value], integers: Sequence[Value]) -> _Scope:
        return _Scope([*self.floats, *floats], [*self.integers, *integers])


class _Writer:
    def __init__(self, draw: Any, dtype: DType, kinks: bool, sizes: bool):
        self.draw = draw
        self.dtype = dtype
        self.plain = ["unary", "smooth", "binary", "quotient", "broadcast", "reduce", "rearrange", "concatenate"]
        self.plain += ["matmul", "extract", "update", "gather", "scatter_add", "choose"]
        self.plain += ["kink"] * kinks + ["prefix"] * sizes
        self.control = ["for_", "while_", "if_"]

    def steps(self, b: Builder, scope: _Scope, count: int, depth: int) -> None:
        """Appends about ``count`` operations; each leaves its results in the scope."""
        for _ in range(count):
            kind = self.draw(st.sampled_from(self.plain + (self.control * 2 if depth else [])))
            if kind in self.control:
                scope.floats += getattr(self, kind)(b, scope, depth - 1)
            else:
                scope.floats.append(getattr(self, kind)(b, scope))

    # -- choices -------------------------------------------------------------------------------------------------

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def value(self, scope: _Scope) -> Value:
        return self.pick(scope.floats[::-1])  # late ones first: examples shrink to these

    def ranked(self, b: Builder, scope: _Scope, rank: int) -> Value:
        """A value of at least this rank, made by broadcasting when there is none."""
        found = [v for v in scope.floats if v.type.rank >= rank]
        return self.pick(found) if found else self.broadcast(b, scope, self.pick([s for s in SHAPES if len(s) >= rank]))

    def like(self, b: Builder, scope: _Scope, t: TensorType) -> Value:
        """A value of this type; always there is one, if only the sum of another, broadcast."""
        found = [v for v in scope.floats if v.type == t]
        if found:
            return self.pick(found)
        x = self.value(scope)
        total = b.reduce(x, kind="sum", axes=tuple(range(x.type.rank))) if x.type.rank else x
        return b.sin(b.broadcast_scalar(total, t.shape))

    def index(self, b: Builder, scope: _Scope, size: int) -> Value:
        """A position in 0 .. size-1: a constant, or an integer of the program taken into the range."""
        i = self.pick([*scope.integers, *range(size)])
        return b.rem(i, size) if isinstance(i, Value) else b.constant(i, I64)

    def condition(self, b: Builder, scope: _Scope) -> Value:
        if self.draw(st.booleans()):
            return b.lt(self.pick(scope.integers), self.draw(st.integers(0, 3)))
        return b.lt(self.like(b, scope, scalar(self.dtype)), THRESHOLD)

    # -- operations, each ends bounded -------------------------------------------------------------------------------

    def unary(self, b: Builder, scope: _Scope) -> Value:
        return b.emit(self.pick(BOUNDED), self.value(scope))

    def smooth(self, b: Builder, scope: _Scope) -> Value:
        x = self.value(scope)
        square = b.add(b.mul(x, x), 1.0)
        kind = self.pick(["sqrt", "log", "exp", "pow"])
        if kind == "exp":
            return b.exp(b.sin(x))
        return b.sin(b.pow(square, b.sin(x)) if kind == "pow" else b.emit(kind, square))

    def binary(self, b: Builder, scope: _Scope) -> Value:
        x = self.value(scope)
        y = self.like(b, scope, x.type)
        return b.sin(b.emit(self.pick(["add", "sub", "mul"]), x, y))

    def quotient(self, b: Builder, scope: _Scope) -> Value:
        x = self.value(scope)
        return b.div(x, b.add(b.cos(self.like(b, scope, x.type)), 4.0))

    def kink(self, b: Builder, scope: _Scope) -> Value:
        x = self.value(scope)
        kind = self.pick(["abs", "sign", "floor", "max", "min", "reduce"])
        if kind == "reduce":
            x = self.ranked(b, scope, 1)
            return b.reduce(x, kind=self.pick(["max", "min"]), axes=(self.pick(range(x.type.rank)),))
        return b.emit(kind, x, self.like(b, scope, x.type)) if kind in ("max", "min") else b.emit(kind, x)

    def choose(self, b: Builder, scope: _Scope) -> Value:
        x = self.value(scope)
        return b.select(b.lt(x, THRESHOLD), self.like(b, scope, x.type), b.cos(x))

    def broadcast(self, b: Builder, scope: _Scope, shape: tuple[int, ...] = (2, 3)) -> Value:
        fits = [v for v in scope.floats if v.type.shape in ((), shape[:1], shape[-1:]) and v.type.rank < len(shape)]
        x = self.pick(fits) if fits else self.like(b, scope, scalar(self.dtype))
        axes = (shape.index(x.type.shape[0]),) if x.type.rank else ()
        return b.broadcast(x, shape=shape, dims=axes)

    def reduce(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 1)
        axes = self.pick([a for a in ((0,), (1,), (0, 1)) if max(a) < x.type.rank])
        return b.sin(b.reduce(x, kind=self.pick(["sum", "prod"]), axes=axes))

    def rearrange(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 2)
        if self.draw(st.booleans()):
            return b.transpose(x, perm=(1, 0))
        return b.reshape(x, shape=x.type.shape[::-1])

    def concatenate(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 1)
        joined = b.concatenate(x, self.like(b, scope, x.type), axis=0)
        rows = x.type.shape[0]
        index = (("slice", rows, self.pick([1, -1])), *("all" for _ in x.type.shape[1:]))
        return b.extract(joined, b.constant(rows - 1 if index[0][2] < 0 else 1, I64), index=index)

    def matmul(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 2)
        y = self.like(b, scope, x.type.with_shape(x.type.shape[::-1]))
        product = b.matmul(x, y)
        return b.sin(b.reduce(product, kind="sum", axes=(self.pick([0, 1]),)))

    def part(self, b: Builder, scope: _Scope, x: Value) -> tuple[list[Value], tuple[Any, ...]]:
        """Positions and index of a part of ``x`` that lies inside."""
        starts, index = [], []
        for size in x.type.shape:
            kind = self.pick(["at", "all", "slice", "back"])
            if kind == "at":
                starts.append(self.index(b, scope, size))
            elif kind != "all":
                width = self.pick(range(1, size))
                starts.append(b.add(self.index(b, scope, size - width + 1), 0 if kind == "slice" else width - 1))
                kind = ("slice", width, 1 if kind == "slice" else -1)
            index.append(kind)
        return starts, tuple(index)

    def extract(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 1)
        starts, index = self.part(b, scope, x)
        return self.back_to_known(b, b.extract(x, *starts, index=index))

    def back_to_known(self, b: Builder, x: Value) -> Value:
        """Sums what has an unusual shape, so that shapes stay few."""
        if x.type.shape in SHAPES:
            return x
        return b.sin(b.reduce(x, kind="sum", axes=tuple(range(x.type.rank))))

    def update(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 1)
        starts, index = self.part(b, scope, x)
        v = b.cos(b.extract(x, *starts, index=index))
        if v.type.is_scalar:
            v = self.like(b, scope, v.type)
        return b.sin(b.emit(self.pick(["update", "update_add"]), x, v, *starts, index=index))

    def positions(self, b: Builder, size: int) -> Value:
        return b.constant(np.array(self.draw(st.lists(st.integers(0, size - 1), min_size=3, max_size=3))))

    def gather(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 1)
        return self.back_to_known(b, b.gather(x, self.positions(b, x.type.shape[0])))

    def scatter_add(self, b: Builder, scope: _Scope) -> Value:
        x = self.ranked(b, scope, 1)
        at = self.positions(b, x.type.shape[0])
        v = self.like(b, scope, x.type.with_shape((3, *x.type.shape[1:])))
        return b.sin(b.emit(self.pick(["scatter_add", "scatter"]), x, v, at))

    def prefix(self, b: Builder, scope: _Scope) -> Value:
        """The sum of a function of ``x[:n]``, whose size is known only at run time."""
        x = self.ranked(b, scope, 1)
        size = x.type.shape[0]
        n = Size(self.index(b, scope, size + 1), size)
        index = (("slice", n, 1), *("all" for _ in x.type.shape[1:]))
        y = b.emit(self.pick(BOUNDED), b.extract(x, b.constant(0, I64), index=index))
        return b.sin(b.reduce(y, kind="sum", axes=(0,)))

    # -- control flow --------------------------------------------------------------------------------------------

    def body(self, scope: _Scope, carried: Sequence[Value], depth: int) -> Callable[..., list[Value]]:
        def build(b: Builder, k: Value, *args: Value) -> list[Value]:
            inner = scope.inner(args, [k])
            self.steps(b, inner, self.draw(st.integers(1, 3)), depth)
            return [self.like(b, inner, v.type) for v in carried]

        return build

    def carried(self, scope: _Scope) -> list[Value]:
        return [self.value(scope) for _ in range(self.draw(st.integers(1, 2)))]

    def for_(self, b: Builder, scope: _Scope, depth: int) -> Sequence[Value]:
        inits = self.carried(scope)
        count = self.pick([*scope.integers[:1], 0, 1, 2, 3])
        return b.for_loop(b.index(count), inits, self.body(scope, inits, depth))

    def while_(self, b: Builder, scope: _Scope, depth: int) -> Sequence[Value]:
        """Ends by a counter, and sometimes before that by a value."""
        inits = self.carried(scope)
        limit, body = self.draw(st.integers(0, 3)), self.body(scope, inits, depth)
        early = inits[0].type.is_scalar and self.draw(st.booleans())

        def go_on(b: Builder, k: Value, *args: Value) -> Value:
            counted = b.lt(k, limit)
            return b.and_(counted, b.gt(args[0], -THRESHOLD)) if early else counted

        def advance(b: Builder, k: Value, *args: Value) -> list[Value]:
            return [b.add(k, 1), *body(b, k, *args)]

        return b.while_loop([b.index(0), *inits], go_on, advance)[1:]

    def if_(self, b: Builder, scope: _Scope, depth: int) -> Sequence[Value]:
        types = [v.type for v in self.carried(scope)]

        def branch(b: Builder) -> list[Value]:
            inner = scope.inner([], [])
            self.steps(b, inner, self.draw(st.integers(1, 3)), depth)
            return [self.like(b, inner, t) for t in types]

        return b.if_(self.condition(b, scope), branch, branch)
