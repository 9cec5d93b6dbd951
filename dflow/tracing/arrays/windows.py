"""Slices, with bounds that may be traced: where they begin and how many positions they have.

The rules are those of Python's ``slice.indices``: negative bounds count from the end, and all are clipped. Work is
emitted only for what is not known: ``i`` in ``A[i, :i]`` is known to lie inside by the loop over ``i``.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from dflow.errors import TraceError, failure
from dflow.ir.types import Dim
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.sizes import Int, at_most, int_of, larger, minus, plus, smaller
from dflow.tracing.context import builder, region


@dataclass(frozen=True)
class Window:
    """Positions ``start``, ``start + step``, ...: ``size`` of them."""

    start: Int
    size: Dim
    step: Int


def window(item: slice, size: Dim) -> Window:
    """The positions of an axis that a slice selects."""
    start, stop, step = (_bound(x) for x in (item.start, item.stop, item.step))
    n = int_of(size)
    if all(x is None or isinstance(x, int) for x in (start, stop, step, n)):
        known = range(*slice(start, stop, step).indices(n))  # type: ignore[arg-type]
        return Window(known.start if known else 0, len(known), known.step)
    step = 1 if step is None else step
    if isinstance(step, int):
        if step == 0:
            raise failure(TraceError, "slice step cannot be zero")
        return _forward(start, stop, step, n) if step > 0 else _backward(start, stop, step, n)
    if at_most(1, step):
        return _forward(start, stop, step, n)
    if at_most(step, -1):
        return _backward(start, stop, step, n)
    b = builder()
    b.check(b.ne(step, b.index(0)), error="ValueError", message="slice step cannot be zero")
    ahead, back = (
        _forward(start, stop, larger(step, 1), n),
        _backward(start, stop, smaller(larger(step, -sizes.LARGEST), -1), n),
    )
    rises = b.gt(step, b.index(0))
    first, count = (
        sizes.as_int(b.select(rises, b.index(x), b.index(y)))
        for x, y in ((ahead.start, back.start), (int_of(ahead.size), int_of(back.size)))
    )
    return Window(first, _size(count), step)


def _bound(x: Any) -> Int | None:
    if x is None:
        return None
    static = _lift.static_value(x)
    if static is not None:
        return operator.index(static[()])
    if x.ndim or x.dtype.kind not in "iu":
        raise failure(
            TraceError, "the bounds of a slice are integers", seen=repr(x), mend="convert with int(), or astype(int)"
        )
    return sizes.number(x)


def _forward(start: Int | None, stop: Int | None, step: Int, n: Int) -> Window:
    first = _inside(larger(_from_front(start, n), 0), 0, n) if start is not None else 0
    last = _inside(smaller(_from_front(stop, n), n), 0, n) if stop is not None else n
    length = minus(last, first)
    _limit(length, start or 0, stop)
    return Window(first, _size(sizes.divided_up(_positive(length), step)), step)


def _backward(start: Int | None, stop: Int | None, step: Int, n: Int) -> Window:
    end = minus(n, 1)
    first = _inside(smaller(_from_front(start, n), end), -1, end) if start is not None else end
    last = _inside(larger(_from_front(stop, n), -1), -1, end) if stop is not None else -1
    length = minus(first, last)
    _limit(length, stop, start)
    return Window(larger(first, 0), _size(sizes.divided_up(_positive(length), minus(0, step))), step)


def _from_front(x: Int, n: Int) -> Int:
    """A bound that may count from the end."""
    if at_most(0, x):
        return x
    moved = plus(x, n)
    if at_most(x, -1):
        return moved
    b = builder()
    return sizes.as_int(b.select(b.lt(x, b.index(0)), b.index(moved), x))


def _inside(x: Int, low: Int, high: Int) -> Int:
    """``x`` clipped on the other side too, where it could be so far outside that counting from it overflows."""
    lowest, highest = sizes.interval(x)
    x = larger(x, low) if lowest < -sizes.LARGEST else x
    return smaller(x, high) if highest > sizes.LARGEST else x


def _positive(length: Int) -> Int:
    return larger(length, 0)


def _limit(length: Int, low: Int | None, high: Int | None) -> None:
    """Notes that ``x[k - 3 : k + 1]`` has at most 4 elements, wherever it is clipped."""
    if isinstance(length, int) or low is None or high is None:
        return
    (first, a), (second, z) = _offset(low), _offset(high)
    if first is second and first is not None and a <= z:
        region().known.restrict(length, (sizes.interval(length)[0], max(z - a, 0)))


def _offset(x: Int) -> tuple[Any, int]:
    """``x`` as a value and what has been added to it."""
    if isinstance(x, int):
        return None, x
    op = x.op
    if op is not None and op.name in ("add", "sub"):
        left, right = (sizes.as_int(v) for v in op.operands)
        if isinstance(right, int) and not isinstance(left, int):
            base, k = _offset(left)
            return base, k + (right if op.name == "add" else -right)
        if isinstance(left, int) and not isinstance(right, int) and op.name == "add":
            base, k = _offset(right)
            return base, k + left
    return x, 0


def _size(n: Int) -> Dim:
    return sizes.dim(n)
