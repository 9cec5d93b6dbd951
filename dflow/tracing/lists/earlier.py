"""What the body of a traced loop sees of a list to which it appends; see ``growing``."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.context import builder
from dflow.tracing.lists.items import Growth, Held

if TYPE_CHECKING:
    from dflow.tracing.lists.lists_of_numbers import Numbers
    from dflow.tracing.lists.stacks import Stacks


class Earlier(_lift.Placeholder):
    """Stands, in a list that grows, for all items from before the iteration. It takes part in nothing."""

    __slots__ = ("growing",)

    def __init__(self, growing: Stacks | Numbers):
        self.growing = growing

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else self.growing.refused()

    __hash__ = object.__hash__


def _refusing(self: Earlier, *args: Any, **kwargs: Any) -> Any:
    raise self.growing.refused()


_OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod"
_OTHERS = (
    "eq ne lt le gt ge neg pos abs invert bool int float complex index len iter next contains getitem setitem call"
)
_SHOWN = "round trunc floor ceil repr str format array array_ufunc"
for _name in (*_OPERATORS.split(), *("r" + n for n in _OPERATORS.split()), *_OTHERS.split(), *_SHOWN.split()):
    setattr(Earlier, f"__{_name}__", _refusing)


def earlier(x: Any) -> Stacks | Numbers | None:
    """What is known of a list that grows in a loop that is being traced; None of other objects."""
    if type(x) not in (list, tuple) or not x or type(x[0]) is not Earlier:
        return None
    if any(type(item) is Earlier for item in x[1:]):  # as xs * 2 has
        raise x[0].growing.refused()
    return x[0].growing


def filling(x: Any) -> Stacks | Numbers | None:
    """What fills a list in a loop that is being traced."""
    found = earlier(x)
    return found if found is not None and found.active else None


def to_be_filled(x: list[Any]) -> None:
    """Has the loop around fill a list that was filled before it."""
    known = earlier(x)
    if known is not None and not known.active:
        error = known.refused()
        error.appended = [(x, [item(x, 0)], None)]
        raise error


def refuse(*values: Any) -> None:
    """Refuses a list that grows where Python would look at its items by itself."""
    for x in values:
        found = earlier(x)
        if found is not None:
            raise found.refused()


def plain(x: Any) -> Any:
    """``x`` for what Python looks at by itself; a list of known length that stands for an array as its items."""
    found = earlier(x)
    return x if found is None else [*found.one_by_one(), *x[1:]]


def stacked(x: Any) -> Any:
    """A list whose length depends on the run as an array; None for another."""
    found = earlier(x)
    if found is None or not found.growth.filled:
        return None
    whole = found.whole()
    rest = list(x[1:])
    return numpy_functions().concatenate([whole, numpy_functions().stack(rest)]) if rest else whole


def numbers_of(x: Any) -> Array | None:
    """The items of a list of numbers whose length depends on the run, as one new array; None of another list."""
    known, found = earlier(x), stacked(x)
    if known is None or found is None:
        return None
    whole = known.whole()
    if found.ndim != 1 or found.dtype != whole.dtype:
        return None
    weak = (known.growth.held[0].weak, *(_lift.lift(r).weak for r in x[1:]))
    return _lift.wrap(found.value, functools.reduce(_lift.either, weak))


def columns_of(x: Any) -> tuple[Growth, list[Array | None]] | None:
    """What the items of a list whose length depends on the run are, and each leaf of them as one array (None for those
    that are the same in all items); None of another list."""
    known = earlier(x)
    if known is None or not known.growth.filled:
        return None
    if len(x) == 1:
        return known.growth, known.columns()
    numbers, leaf = numbers_of(x), known.growth.held[0]
    if numbers is None:
        return None
    return dataclasses.replace(known.growth, leaves=(Held(leaf.type, numbers.weak),)), [numbers]


def length(x: list[Any]) -> Any:
    growing = earlier(x)
    if growing is None:
        return len(x)
    return growing.length() + (len(x) - 1) if len(x) > 1 else growing.length()


def item(x: list[Any], index: Any) -> Any:
    """``x[index]`` of a list that grows."""
    growing = earlier(x)
    assert growing is not None
    local = len(x) - 1
    if isinstance(index, slice):
        return _slice(growing, x, index)
    if isinstance(index, Array):
        return _at(growing, x, index)
    index = index.__index__()
    if index < 0:
        if -index <= local:
            return x[index]
        return _checked(growing, growing.length() + (index + local), growing.least + index + local)
    if index < growing.least and earlier(growing.before) is None:
        return growing.before[index]
    return _at(growing, x, _lift.lift(index))


def _at(growing: Stacks | Numbers, x: list[Any], index: Array) -> Any:
    """By a traced index."""
    if len(x) > 1 and growing.growth.filled:
        x = _lists().part(x, slice(None))
        growing = earlier(x) or growing
    if len(x) > 1 or index.ndim or index.dtype.kind not in "iu":
        raise growing.refused()
    index, n = _lift.position(index), growing.length()
    position = numpy_functions().where(index < 0, index + n, index)
    b = builder()
    b.check((position < n).value, error="IndexError", message="list index out of range")
    return _checked(growing, position, -1)


def _checked(growing: Stacks | Numbers, position: Any, least: int) -> Any:
    """The item at a position that is not known to be there, unless ``least``, the lowest that it can be, is none."""
    if earlier(growing.before) is not None and not growing.growth.filled:
        raise growing.refused()
    if least < 0:
        holds = _lift.elementwise("ge", position, 0)
        builder().check(holds.value, error="IndexError", message="list index out of range")
    return growing.item(position)


def _slice(growing: Stacks | Numbers, x: list[Any], index: slice) -> list[Any]:
    """The last items, as many as are known to be there."""
    start, stop, step = index.start, index.stop, index.step
    known = isinstance(start, int) and start < 0 and step in (None, 1) and (stop is None or isinstance(stop, int))
    if not known or (stop is not None and stop >= 0) or growing.least + len(x) - 1 + start < 0:
        return _lists().part(x, index)
    return [item(x, i) for i in range(start, stop or 0)]


def _lists() -> Any:
    from dflow.tracing.lists import lists_of_numbers

    return lists_of_numbers
