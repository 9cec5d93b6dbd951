"""What ``for`` can run over as one loop: ranges, rows of arrays, and ``enumerate``, ``zip``, ``reversed`` of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, TraceError, failure
from dflow.ir.types import I64
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import builder, region, tracing
from dflow.tracing.lists import rows


class Indexable:
    """Something with a length (an int or a traced number) and an item for every position (an int or traced)."""

    length: Any

    def item(self, k: Any) -> Any:
        raise NotImplementedError

    def lists(self) -> list[list[Any]]:
        """The lists whose items are read: Python sees what a loop over them changes there."""
        return []

    def __len__(self) -> int:
        if isinstance(self.length, int):
            return self.length
        raise failure(
            NeedsStatic,
            "this length is known only when the program runs",
            mend="fill an array of a known size in a `for` loop",
        )

    def __iter__(self) -> Iterator[Any]:
        return (self.item(k) for k in range(len(self)))

    def __getitem__(self, k: Any) -> Any:
        return self.item(k)


class Range(Indexable):
    """``range`` with traced bounds."""

    def __init__(self, start: Any, stop: Any, step: Any = 1):
        for x in (start, stop, step):
            if isinstance(x, Array) and (x.ndim or x.dtype.kind not in "iu"):
                raise failure(TraceError, "range() takes integers", seen=repr(x), mend="convert it: int(n)")
        self.start, self.stop, self.step = start, stop, step
        if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
            self.length: Any = len(range(start, stop, step))
        else:
            self.length = self._traced_length(start, stop, step)

    def _traced_length(self, start: Any, stop: Any, step: Any) -> Any:
        if not isinstance(step, int):
            step = _lift.lift(step)
            b = builder()
            b.check(b.ne(step.value, 0), error="ValueError", message="range() arg 3 must not be zero")
        elif step == 0:
            raise ValueError("range() arg 3 must not be zero")
        distance = stop - start if not (isinstance(start, int) and start == 0) else stop
        count = distance if isinstance(step, int) and step == 1 else -((-distance) // step)
        n = sizes.larger(sizes.number(count), 0)
        return n if isinstance(n, int) else _lift.wrap(n, weak=True)

    def item(self, k: Any) -> Any:
        moved = k if isinstance(self.step, int) and self.step == 1 else k * self.step
        return moved if isinstance(self.start, int) and self.start == 0 else self.start + moved

    def __getitem__(self, k: Any) -> Any:
        n = self.length
        if isinstance(k, slice):
            raise failure(TraceError, "a slice of a range with traced bounds", mend="make the range that you want")
        if isinstance(k, int) and isinstance(n, int):
            return self.item(range(n)[k])
        at = _lift.elementwise("add", k, n * (k < 0))
        inside = _lift.elementwise("and", at >= 0, at < n)
        builder().check(inside.value, error="IndexError", message="range object index out of range")
        return self.item(at)

    def holds(self, x: Any) -> Any:
        """``x in range(...)``."""
        if not isinstance(x, Array | int | float | complex | np.generic):
            return False
        if np.ndim(x):
            raise failure(
                TraceError, "whether an array is in a range", seen=repr(x), mend="ask for one of its elements"
            )
        if np.iscomplexobj(x):
            return _lift.elementwise("and", x.imag == 0, self.holds(x.real))
        wide: Any = x
        if isinstance(x, Array) and x.dtype.kind in "biu":  # a difference of narrow integers wraps around
            wide = _lift.wrap(_lift.convert(x.value, I64))
        ahead = _lift.elementwise("sub", wide, self.start)
        count = ahead // self.step
        inside = _lift.elementwise("and", count >= 0, count < self.length)
        if wide is not x and x.dtype.kind == "u":
            inside = _lift.elementwise("and", inside, wide >= 0)
        return _lift.elementwise("and", inside, ahead % self.step == 0)


class Rows(Indexable):
    """The rows of an array."""

    def __init__(self, array: Array):
        self.array = array
        self.length = array.shape[0]

    def item(self, k: Any) -> Any:
        if isinstance(k, Array):  # inside by construction
            return self.array[Inside(k)]
        return self.array[k]


class Inside(Array):
    """A traced position that needs no check."""

    __slots__ = ()
    inside = True

    def __init__(self, k: Array):
        super().__init__(k.cell, k.type, k.steps, k.weak)


class Once(Indexable):
    """What Python goes through once: a second loop over it would find nothing."""

    gone_through = False

    def refuse_again(self) -> None:
        if self.gone_through:
            raise failure(
                TraceError,
                "the items of an enumerate(), zip() or reversed() are taken again",
                seen="Python gives them once, and none the second time",
                mend="make a new one for each loop, or a list of it",
            )

    def __iter__(self) -> Iterator[Any]:
        self.refuse_again()
        self.gone_through = True
        return super().__iter__()


class Enumerated(Once):
    def __init__(self, inner: Indexable, start: Any):
        self.inner, self.start, self.length = inner, start, inner.length

    def item(self, k: Any) -> Any:
        return (self.start + k if not (isinstance(self.start, int) and self.start == 0) else k), self.inner.item(k)

    def lists(self) -> list[list[Any]]:
        return self.inner.lists()


class Positions(Indexable):
    """``np.ndindex``: the indices of an array's elements, the last one running first."""

    def __init__(self, shape: Sequence[Any]):
        self.shape, self.length = shape, 1
        for n in shape:
            self.length = self.length * n

    def item(self, k: Any) -> Any:
        index: list[Any] = []
        for n in reversed(self.shape):
            index.insert(0, k % n)
            k = k // n
        return tuple(index)


class Zipped(Once):
    def __init__(self, parts: Sequence[Indexable]):
        self.parts = parts
        self.length = parts[0].length
        for p in parts[1:]:
            a, b = self.length, p.length
            self.length = min(a, b) if isinstance(a, int) and isinstance(b, int) else _lift.elementwise("min", a, b)

    def item(self, k: Any) -> Any:
        return tuple(p.item(k) for p in self.parts)

    def lists(self) -> list[list[Any]]:
        return [xs for p in self.parts for xs in p.lists()]


class Reversed(Once):
    def __init__(self, inner: Indexable):
        self.inner, self.length = inner, inner.length

    def item(self, k: Any) -> Any:
        return self.inner.item(self.length - 1 - k)

    def lists(self) -> list[list[Any]]:
        return self.inner.lists()


MOST = 1 << 20  # sequences that may be longer have no bound of use


def most_iterations(count: Any) -> int:
    """How often a loop of ``count`` iterations runs, at most; 0 when that is not known."""
    if isinstance(count, int):
        return count
    bound = region().known.interval(count.value)[1] if isinstance(count, Array) else None
    return int(bound) if bound is not None and bound <= MOST else 0


class Items(Indexable):
    """The items of a list that a loop has filled."""

    def __init__(self, columns: rows.Columns):
        self.columns, self.length = columns, len(columns.items)

    def item(self, k: Any) -> Any:
        return self.columns.item(Inside(k)) if isinstance(k, Array) else self.columns.items[k]

    def lists(self) -> list[list[Any]]:
        return [self.columns.items] if isinstance(self.columns.items, list) else []


class Filled(Indexable):
    """A list that grows, or one whose length depends on the run."""

    def __init__(self, items: list[Any]):
        self.grows = items if len(items) == 1 else _earlier().item(items, slice(None))
        self.length = _earlier().length(self.grows)

    def item(self, k: Any) -> Any:
        grows = _earlier().earlier(self.grows)
        return grows.item(_lift.lift(k))


def _earlier() -> Any:
    from dflow.tracing.lists import earlier

    return earlier


def as_sequence(x: Any) -> Indexable | None:
    """``x`` as something to loop over by position; None for what only Python can iterate over."""
    if isinstance(x, Indexable):
        return x
    if isinstance(x, range):
        return Range(x.start, x.stop, x.step)
    if isinstance(x, Array) and x.ndim:
        return Rows(x)
    if isinstance(x, np.ndarray) and x.ndim and _lift.supported(x.dtype):
        return Rows(_lift.lift(x))
    if not tracing():
        return None
    grows = _earlier().earlier(x)
    if grows is not None:
        return Filled(x) if grows.growth.filled or len(x) == 1 else None
    found = rows.columns(x)
    return None if found is None else Items(found)
