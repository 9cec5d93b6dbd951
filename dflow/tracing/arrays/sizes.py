"""Sizes and positions: integers that are known while tracing, or values of the program.

A size (``Dim``) of a traced array is an ``int`` or a ``Size``: an index value with a bound. Equal sizes are one value
as far as that can be seen: what is computed twice in the same way from the same values is made once (``Region.made``),
and sums are compared in the normal form that ``dflow.ir.passes.intervals`` gives them. Sizes that may or may not be
equal are compared when the program runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from dflow.errors import NeedsStatic, ShapeError, failure
from dflow.ir.core import Value
from dflow.ir.passes.intervals import Form, Interval
from dflow.ir.types import I64, Dim, Size, TensorType
from dflow.tracing.context import Region, builder, region

Int = int | Value
Shape = tuple[Dim, ...]

LARGEST = 2**31 - 2  # elements along an axis: a larger bound, as that of every int32, says nothing
HOW_TO_BOUND = "say how large it can become, `assert n <= 1000`, or derive it from the size of an array"


# -- integers ----------------------------------------------------------------------------------------------------------


def as_int(v: Value) -> Int:
    """An index value as an ``int`` where it is known, else as the one value that stands for all equal to it."""
    form = region().known.form(v)
    if not form.terms:
        return form.constant
    base = next(iter(form.terms))
    if form == Form(0, {base: 1}) and base.type.dtype == I64:
        return base
    return _once((form.constant, frozenset(form.terms.items())), lambda: v)


def _once(key: Any, make: Callable[[], Value]) -> Value:
    """What has been made under this key in the regions around, or else is made now."""
    for r in region().around():
        if key in r.made:
            return r.made[key]
    made = region().made[key] = make()
    return made


def emitted(op: str, *operands: Int) -> Int:
    """An operation on index values, once for each set of operands."""

    def make() -> Value:
        b = builder()
        return b.emit(op, *(b.index(x) for x in operands))

    return as_int(_once((op, *operands), make))


def form_of(x: Int) -> Form:
    return Form(x) if isinstance(x, int) else region().known.form(x)


def interval(x: Int) -> Interval:
    return (x, x) if isinstance(x, int) else region().known.interval(x)


def at_most(x: Int, y: Int) -> bool:
    """Whether ``x <= y`` is known to hold."""
    if isinstance(x, int) and isinstance(y, int):
        return x <= y
    return region().known.most(form_of(x) - form_of(y)) <= 0


def below(x: Int, y: Int) -> bool:
    """Whether ``x < y`` is known to hold."""
    return region().known.most(form_of(x) - form_of(y)) < 0


def plus(x: Int, y: Int) -> Int:
    if isinstance(x, int) and isinstance(y, int):
        return x + y
    return y if x == 0 else x if y == 0 else emitted("add", x, y)


def minus(x: Int, y: Int) -> Int:
    if isinstance(x, int) and isinstance(y, int):
        return x - y
    return x if y == 0 else emitted("sub", x, y)


def times(x: Int, y: Int) -> Int:
    if isinstance(x, int) and isinstance(y, int):
        return x * y
    return y if x == 1 else x if y == 1 else emitted("mul", x, y)


def larger(x: Int, y: Int) -> Int:
    return y if at_most(x, y) else x if at_most(y, x) else emitted("max", x, y)


def smaller(x: Int, y: Int) -> Int:
    return x if at_most(x, y) else y if at_most(y, x) else emitted("min", x, y)


def divided_up(x: Int, by: Int) -> Int:
    """x / by, rounded up, for positive ``by``."""
    if isinstance(x, int) and isinstance(by, int):
        return -(-x // by)
    return x if by == 1 else plus(emitted("floordiv", minus(x, 1), by), 1)


def number(x: Any) -> Int:
    """An integer of the user's, of any dtype."""
    if not hasattr(x, "cell"):
        return int(x)
    v = x.value
    return as_int(v if v.type.dtype == I64 else builder().convert(v, dtype=I64))


# -- sizes -------------------------------------------------------------------------------------------------------------


def dim(x: Int, mend: str = HOW_TO_BOUND) -> Dim:
    """A number that is not negative as a size. Raises NeedsStatic when nothing bounds it."""
    if isinstance(x, Value):
        x = as_int(x)
    if isinstance(x, int):
        return x
    bound = next((r.bounds[x] for r in region().around() if x in r.bounds), None)
    if bound is None:
        bound = max(interval(x)[1], 0)
        if bound > LARGEST:
            raise failure(
                NeedsStatic,
                "the size of this array depends on the run, and nothing says how large it can become",
                mend=mend,
            )
        region().bounds[x] = bound
    region().known.sizes((Size(x, bound),))
    return Size(x, bound)


def given(x: Any) -> Dim:
    """A size that the user gives: it must not be negative, which is checked when the program runs."""
    n = number(x)
    if isinstance(n, int):
        return n
    if not at_most(0, n):
        b = builder()
        b.check(b.ge(n, b.index(0)), n, error="ValueError", message="negative dimensions are not allowed, got {0}")
    return dim(n)


def int_of(d: Dim) -> Int:
    return d.value if isinstance(d, Size) else d  # type: ignore[return-value]


def same(a: Dim, b: Dim) -> bool:
    """Whether two sizes are known to be equal."""
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    difference = form_of(int_of(a)) - form_of(int_of(b))
    return not difference.terms and not difference.constant


def never(a: Dim, b: Dim) -> bool:
    """Whether two sizes are known to differ."""
    lo, hi = region().known.span(form_of(int_of(a)) - form_of(int_of(b)))
    return lo > 0 or hi < 0


def agreed(a: Dim, b: Dim) -> Dim | None:
    """The size that both are, checked when the program runs unless it is known; None when they differ."""
    first = a if isinstance(a, int) or not isinstance(b, int) else b
    if same(a, b):
        return first
    if (isinstance(a, int) and isinstance(b, int)) or never(a, b):
        return None
    build = builder()
    values = [build.size(a), build.size(b)]
    build.check(
        build.eq(*values),
        *values,
        error="ValueError",
        message="operands could not be broadcast together: sizes {0} and {1} "
        "(a size that is known only when the program runs is not stretched from 1)",
    )
    return first


def joint(*shapes: Shape) -> Shape | None:
    """The shape that arrays of these shapes are broadcast to; None when they do not fit."""
    rank = max(map(len, shapes), default=0)
    out: list[Dim] = []
    for column in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes)):
        size: Dim | None = 1
        for d in column:
            if d != 1 and size != d:
                size = d if size == 1 else agreed(size, d)  # type: ignore[arg-type]
            if size is None:
                return None
        out.append(size)  # type: ignore[arg-type]
    return tuple(out)


def recast(v: Value, shape: Shape) -> Value:
    """``v`` under a shape of equal sizes, as far as the types go: ``f64[%n<=5]`` as ``f64[3]`` where n is 3."""
    if v.type.shape == tuple(shape):
        return v
    b = builder()
    index = tuple("all" if d == e else ("slice", e, 1) for d, e in zip(v.type.shape, shape))
    return b.extract(v, *(b.index(0) for e in index if e != "all"), index=index)


def spread(v: Value, shape: Shape) -> Value | None:
    """``v`` broadcast to ``shape``: new axes in front, axes of size 1 repeated. None when it does not fit."""
    shape = tuple(shape)
    if v.type.shape == shape:
        return v
    skip = len(shape) - v.type.rank
    if skip < 0:
        return None
    kept = []
    for k, d in enumerate(v.type.shape):
        if d == shape[skip + k] or (d != 1 and agreed(d, shape[skip + k]) is not None):
            kept.append(k)
        elif d != 1:
            return None
    b = builder()
    if len(kept) < v.type.rank:
        v = b.reshape(v, shape=tuple(v.type.shape[k] for k in kept))
    v = recast(v, tuple(shape[skip + k] for k in kept))
    return v if v.type.shape == shape else b.broadcast(v, shape=shape, dims=tuple(skip + k for k in kept))


def count(shape: Sequence[Dim]) -> Int:
    """The number of elements."""
    total: Int = 1
    for d in shape:
        total = times(total, int_of(d))
    return total


def is_one(shape: Sequence[Dim]) -> bool:
    """Whether there is just one element, as far as is known while tracing."""
    return all(isinstance(d, int) for d in shape) and math.prod(shape) == 1  # type: ignore[arg-type]


def require_elements(shape: Sequence[Dim], axes: Sequence[int], message: str) -> None:
    """Raises ValueError, when the program runs, for an axis without elements. Sizes known to be 0 are left alone."""
    for k in axes:
        n = int_of(shape[k])
        if not isinstance(n, int) and not at_most(1, n):
            b = builder()
            b.check(b.ge(n, b.index(1)), error="ValueError", message=message)


def show(shape: Sequence[Dim]) -> str:
    """A shape as NumPy writes it in messages; a size that depends on the run by its bound."""
    inner = ",".join(str(d) if isinstance(d, int) else _show(d) for d in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def _show(d: Any) -> str:
    return f"{d.value.hint or 'n'}<={d.bound}" if isinstance(d, Size) else repr(d)


def mismatch(what: str, *shapes: Shape) -> Exception:
    return failure(ShapeError, f"{what} {' and '.join(map(show, shapes))}")


def stays(t: TensorType, here: Region) -> bool:
    """Whether the sizes of a type mean something in ``here``."""
    return all(map(here.sees, t.size_values))
