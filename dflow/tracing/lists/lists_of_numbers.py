"""Lists of numbers whose length depends on the run, after the loop that has filled them: slices, order, concatenation.

Such a list holds one object (``Earlier``) in the place of its items. What Python makes of one is another such list,
made of an array of the numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow.errors import CarriedError, DflowError, failure
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.context import builder
from dflow.tracing.control.state import is_number
from dflow.tracing.lists import rows
from dflow.tracing.lists.earlier import Earlier, earlier, filling, length, numbers_of
from dflow.tracing.lists.items import Growth, Held, flattened
from dflow.tracing.lists.sequences import Inside


class Numbers:
    """What is known of a list that stands for the elements of an array."""

    active = False
    least = 0
    before: Sequence[Any] = ()

    def __init__(self, array: Array):
        self.array = array
        held = Held(array.type.with_shape(()), array.weak)
        self.growth = Growth([], 0, flattened(0)[1], (held,), filled=True)

    def length(self) -> Any:
        return self.array.shape[0]

    def item(self, position: Any) -> Any:
        return rows.part(self.array, Inside(position), self.array.weak)

    def whole(self) -> Array:
        return self.array

    def columns(self) -> list[Array | None]:
        return [self.array]

    def one_by_one(self) -> list[Any]:
        raise self.refused()

    def copied(self, xs: list[Any]) -> list[Any]:
        """``xs.copy()``; numbers that do not change may stand in two lists."""
        return list(xs)

    def assign(self, xs: list[Any], items: list[Any]) -> None:
        """Makes ``items`` what stands in the list."""
        xs[:] = items

    def refused(self) -> DflowError:
        return failure(
            CarriedError,
            "a list whose length is known only when the program runs is used in a way that cannot be traced",
            mend="make it an array, `a = np.array(xs)`, and use or return that; of the list there are len(xs), xs[k], "
            "xs[1:], sorted, reversed, sum, min, max, any, all and `for x in xs`",
        )

    def append(self, x: Any) -> None:
        raise self.refused()

    def pop(self) -> Any:
        raise self.refused()


def as_list(array: Any, weak: bool | None) -> list[Any]:
    """A new list of the elements of an array."""
    new = _lift.wrap(array.value, weak)
    return rows.rows(new, new.shape[0], weak) if new.type.is_static else [Earlier(Numbers(new))]


def part(xs: list[Any], index: slice) -> list[Any]:
    """``xs[start:stop:step]``."""
    items = _numbers(xs)
    return as_list(items[index], items.weak)


def in_order(xs: list[Any] | Array, reverse: bool = False) -> list[Any]:
    """``sorted(xs)``, also of an array; equal numbers stay in their order."""
    items, ns = _numbers(xs), numpy_functions()
    if not reverse:
        return as_list(ns.sort(items, kind="stable"), items.weak)
    return as_list(ns.sort(items[::-1], kind="stable")[::-1], items.weak)


def joined(xs: Sequence[Any], ys: Sequence[Any]) -> list[Any]:
    """``[*xs, *ys]``."""
    if earlier(ys) is None:
        return [*xs, *ys]
    ns = numpy_functions()
    parts = [_numbers(p) if earlier(p) is not None else _lift.lift(ns.stack(list(p))) for p in (xs, ys) if len(p)]
    if any(p.dtype != parts[0].dtype or p.ndim != 1 for p in parts):
        raise _refused(ys)
    return as_list(ns.concatenate(parts), functools.reduce(_lift.either, (p.weak for p in parts)))


def extends(xs: list[Any], ys: Any) -> bool:
    """``xs.extend(ys)`` if ``ys`` is such a list; False if it is not."""
    if earlier(ys) is None:
        return False
    xs[:] = joined(xs, ys)
    return True


def method(xs: list[Any], name: str) -> Callable[..., Any] | None:
    """A method that lists of numbers have, but for those that add to their end."""
    return METHODS[name].__get__(xs) if name in METHODS and filling(xs) is None else None


def _numbers(xs: Any) -> Array:
    found = xs if isinstance(xs, Array) else numbers_of(xs)
    if found is None:
        raise _refused(xs)
    return found


def _refused(xs: Any) -> DflowError:
    known = earlier(xs)
    assert known is not None
    return known.refused()


def _assign(xs: list[Any], items: list[Any]) -> None:
    known = earlier(xs)
    if isinstance(known, Numbers):
        known.assign(xs, items)
    else:
        xs[:] = items


def _sort(xs: list[Any], *, reverse: bool = False) -> None:
    _assign(xs, in_order(xs, reverse))


def _reverse(xs: list[Any]) -> None:
    _assign(xs, part(xs, slice(None, None, -1)))


def _copy(xs: list[Any]) -> list[Any]:
    known = earlier(xs)
    return known.copied(xs) if isinstance(known, Numbers) else list(xs)


def _pop(xs: list[Any], at: int = -1) -> Any:
    """The last item, or the first."""
    if at not in (0, -1):
        raise _refused(xs)
    n = _lift.lift(length(xs))
    builder().check((n > 0).value, error="IndexError", message="pop from empty list")
    items = _numbers(xs)
    last = numpy_functions().where(n > 0, n - 1, 0) if at else _lift.lift(0)
    _assign(xs, part(xs, slice(0, -1) if at else slice(1, None)))
    return rows.part(items, Inside(last), items.weak)


def contains(xs: Any, x: Any) -> Any:
    """``x in xs``."""
    return _lift.wrap(numpy_functions().any(_equal(xs, x)).value, weak=True)


def _count(xs: list[Any], x: Any) -> Any:
    return _lift.wrap(numpy_functions().count_nonzero(_equal(xs, x)).value, weak=True)


def _index(xs: list[Any], x: Any) -> Any:
    equal, ns = _equal(xs, x), numpy_functions()
    builder().check(ns.any(equal).value, error="ValueError", message="list.index(x): x not in list")
    room = ns.concatenate([equal, ns.ones(1, bool)])  # an empty list has no greatest element
    return _lift.wrap(ns.argmax(room).value, weak=True)


def _equal(xs: Any, x: Any) -> Array:
    """Which of the items equal a number."""
    items = _numbers(xs)
    if not is_number(x) or np.ndim(x):
        raise _refused(xs)
    return _lift.lift(items == x)


METHODS: dict[str, Any] = {
    "sort": _sort,
    "reverse": _reverse,
    "copy": _copy,
    "pop": _pop,
    "count": _count,
    "index": _index,
}
