"""Positions of accesses in loops, as sums of counters: whether two accesses can be to the same element."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dflow.ir.core import Op, Value
from dflow.ir.passes.intervals import Form, Known
from dflow.ir.passes.linear_forms import terms
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.passes.structure import entries
from dflow.ir.types import Size

# Positions lie inside of tensors, and equal their sums but for multiples of 2**64. So do their differences, which are
# equal to those of the sums where these are smaller than this.
LARGEST = 2**64 - 2**62
TRIPS = 2**58

Span = tuple[Form, Form] | None  # first and last position on an axis; None where that is not known


def counter(loop: Op) -> Value:
    """What counts the iterations of a ``for``."""
    return loop.regions[0].args[0]


def form(v: Value, base: Callable[[Value], Value | None]) -> Form | None:
    """The sum that an integer is. ``base`` gives the name that a value goes by in sums, None if it has none."""
    total = Form(0)
    for term, factor in terms(v).items():
        if term is None:
            total += factor
        elif (name := base(term)) is None:
            return None
        else:
            total += Form(0, {name: factor})
    return total


def spans(op: Op, base: Callable[[Value], Value | None]) -> Iterator[Span]:
    """Where a read or an update is, axis by axis."""
    for entry, start in entries(op.attrs["index"], op.operands[1 if op.name == "extract" else 2 :]):
        low = None if start is None else form(start, base)
        if low is None or entry == "at":
            yield None if low is None else (low, low)
            continue
        _, size, step = entry
        length = form(size.value, base) if isinstance(size, Size) else Form(size)
        last = None if length is None else low + (length - 1) * step
        yield None if last is None else (low, last) if step > 0 else (last, low)


def note_count(known: Known, k: Value, count: Value, base: Callable[[Value], Value | None]) -> None:
    """Notes that ``k`` counts the iterations of a loop that runs ``count`` times."""
    known.define(k, (0, TRIPS))
    limit = form(_positive(count), base)
    if limit is not None:
        known.at_most_zero(Form(1, {k: 1}) - limit)


def _positive(count: Value) -> Value:
    """``n`` for ``max(n, 0)``, which it is where the loop runs."""
    op = count.op
    if op is not None and op.name == "max":
        for x, y in (op.operands, op.operands[::-1]):
            if constant_of(y) == 0:
                return x
    return count


def apart(known: Known, first: Iterator[Span], second: Iterator[Span]) -> bool:
    """Whether two accesses are certainly to different elements: on some axis, one ends before the other begins."""
    return any(p is not None and q is not None and _distinct(known, p, q) for p, q in zip(first, second))


def _distinct(known: Known, p: tuple[Form, Form], q: tuple[Form, Form]) -> bool:
    for low, high in ((p[1] - q[0], p[0] - q[1]), (q[1] - p[0], q[0] - p[1])):
        if known.most(low) < 0 and known.most(-high) < LARGEST:
            return True
    return False
