"""Lists of numbers, and lists of such lists, that a loop reads or writes at positions that only the run knows.

While the loop is traced an array holds the numbers, a *table*: in the place of its items the list holds one object
(``Earlier``), and so does each list in it, for its row. After the loop the lists hold their items again.

    best = [0.0] * n                       best = [earlier]
    for i in range(n):               ->    for i, table in ...:
        best[i] = best[j] + x[i]               table[i] = table[j] + x[i]

The outermost loop that the list comes from outside of makes the table: it is asked by an error, and traced once more.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow.errors import CarriedError, DflowError, failure
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.index import refuse_items
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.context import Region, region
from dflow.tracing.control.state import is_number
from dflow.tracing.lists import rows
from dflow.tracing.lists.earlier import Earlier, earlier, plain
from dflow.tracing.lists.lists_of_numbers import Numbers
from dflow.tracing.lists.sequences import Inside
from dflow.tracing.python.objects import watch

EXACT = 2**53  # integers up to here are floats, too
MOST_ITEMS = 4096  # a table of more numbers stands for the list also after the loop


@dataclass(frozen=True)
class Wanted:
    """What is asked of a loop: to take a list for a table of a dtype, whose numbers are Python's or not (``weak``)."""

    items: list[Any]
    dtype: np.dtype[Any]
    weak: bool | None


class Table(Numbers):
    """What is known of a list whose numbers stand in an array; ``source`` is the outermost list of those it is in, None
    of numbers that cannot change."""

    def __init__(self, array: Array, weak: bool | None, source: list[Any] | None = None):
        super().__init__(array)
        self.weak, self.source = weak, source

    def item(self, position: Any) -> Any:
        """A number; of a list of lists a list, whose updates reach this one."""
        at = Inside(position) if isinstance(position, Array) else position
        if self.array.ndim == 1:
            return rows.part(self.array, at, self.weak)
        return [Earlier(Table(self.array[at], self.weak, self.source))]

    def one_by_one(self) -> list[Any]:
        n = self.array.shape[0]
        if self.array.ndim == 1:
            return list(rows.rows(_lift.wrap(self.array.value), n, self.weak))
        return [self.item(k) for k in range(n)]

    def copied(self, xs: list[Any]) -> list[Any]:
        return self.one_by_one()

    def assign(self, xs: list[Any], items: list[Any]) -> None:
        self.put(slice(None), items)

    def refused(self) -> DflowError:
        return failure(
            CarriedError,
            "a list that is read or written at positions known only when the program runs is used in a way that cannot "
            "be traced",
            mend="make it an array (np.array, np.zeros), whose rows may be assigned too; of the list there are xs[k], "
            "xs[k] = v, xs[1:], len(xs), sorted, sum, min, max, and `for x in xs`",
        )

    def put(self, index: Any, value: Any) -> None:
        """``xs[index] = value``, also of a slice, whose length stays what it is."""
        if self.source is None:
            raise self.refused()
        part = self.array[index]
        new = _lift.lift(numpy_functions().array(value)) if isinstance(index, slice) else value
        if self.array.ndim > 1 or not is_number(new) or np.shape(new) != part.shape:
            raise self.refused()
        new = _lift.lift(new)
        dtype, weak = common_dtype([part, new]), _lift.either(self.weak, new.weak)
        if dtype is None:
            raise refuse_items("list", index)
        if dtype != part.dtype or weak is not self.weak:
            raise _asking(Wanted(self.source, dtype, weak), index)
        self.array[index] = new


def of(x: Any) -> Table | None:
    """What is known of a list that stands for a table."""
    found = earlier(x)
    return found if isinstance(found, Table) else None


COPYING = frozenset([list, tuple, copy.copy, copy.deepcopy])


def copied(kind: Any, xs: Any) -> Any:
    """What a function of ``COPYING`` gives of a list that stands for a table."""
    items = [copied(kind, x) if kind is copy.deepcopy else x for x in plain(xs)] if of(xs) else xs
    return tuple(items) if kind is tuple else items


def nested(items: Any) -> list[Any] | None:
    """What stands, for reading, for a nested list or tuple of numbers, which must not change any more; None of others,
    and in a loop, which may be unrolled instead, of lists that may change."""
    shape, fixed = shape_of(items, (list, tuple)), _is_fixed(items)
    loops = any(r.loop is not None for r in region().around())
    if shape is None or len(shape) < 2 or math.prod(shape) > MOST_ITEMS or (loops and not fixed):
        return None
    numbers = [_lift.lift(x) for x in leaves_of(items)]
    if common_dtype(numbers) is None:
        return None
    if not fixed:
        watch(region(), [items])
    array = _lift.wrap(_lift.lift(numpy_functions().array(items)).value)
    return [Earlier(Table(array, functools.reduce(_lift.either, (x.weak for x in numbers))))]


def _is_fixed(items: Any) -> bool:
    """Whether nothing in it may change while the program is traced."""
    if isinstance(items, list | tuple):
        return (isinstance(items, tuple) or items in region().root().outside) and all(map(_is_fixed, items))
    return True


def ask(items: Any, index: Any) -> None:
    """Asks the loop around, if the list comes from outside of one, to take it for a table."""
    if type(items) is not list or not _maker(items, region()) or items in region().root().outside:
        return
    numbers = [] if shape_of(items) is None else [_lift.lift(x) for x in leaves_of(items)]
    dtype = common_dtype(numbers)
    if dtype is not None:
        weak = functools.reduce(_lift.either, (x.weak for x in numbers))
        raise _asking(Wanted(items, dtype, weak), index)


def _asking(wanted: Wanted, index: Any) -> DflowError:
    error = refuse_items("list", index)
    error.table = wanted
    return error


def left_to_another(error: DflowError) -> bool:
    """Whether the error asks a loop around what stands here for a table."""
    return error.table is not None and _maker(error.table.items, region())


class Held:
    """A list, and those in it, while an array stands for its numbers."""

    def __init__(self, wanted: Wanted, array: Array):
        self.wanted, self.array, self.initial = wanted, array, array.value
        self.lists: list[tuple[list[Any], list[Any]]] = []  # with their items
        self.pack(wanted.items, array)

    def pack(self, xs: list[Any], array: Array) -> None:
        items = list(xs)
        for i, inner in enumerate(items if array.ndim > 1 else ()):
            self.pack(inner, array[i])
        self.lists.append((xs, items))
        xs[:] = [Earlier(Table(array, self.wanted.weak, self.wanted.items))]

    def restore(self) -> None:
        """The lists hold what they held."""
        for xs, items in self.lists:
            xs[:] = items

    def settle(self) -> None:
        """The lists hold the numbers that are in the array now; a long one only where they have not changed."""
        if self.array.value is self.initial:
            return self.restore()
        if self.array.size <= MOST_ITEMS:
            self.restore()
            numbers = _lift.wrap(self.array.value).reshape(-1, self.array.shape[-1])
            innermost = [xs for xs, items in self.lists if type(items[0]) is not list]
            for i, xs in enumerate(innermost):
                xs[:] = rows.rows(_lift.wrap(numbers[i].value), len(xs), self.wanted.weak)
        return None


def _maker(items: list[Any], here: Region) -> bool:
    """Whether the list comes from outside of a loop around what stands ``here``, which may take it for a table."""
    loops = [r.loop for r in here.around() if r.loop is not None]
    return any(items in loop.outside and id(items) not in loop.tables.replaced for loop in loops)


class Tables:
    """The lists that one loop takes for tables."""

    def __init__(self) -> None:
        self.wanted: dict[int, Wanted] = {}
        self.replaced: set[int] = set()  # lists in the place of which the loop puts others: they keep their items
        self.held: list[Held] = []
        self.others = False  # whether the lists wanted have changed since the tables were made

    def asked(self, error: DflowError, here: Region) -> bool:
        """Whether the error asks for a table, and this loop is the one to make it."""
        wanted = error.table
        if wanted is None or _maker(wanted.items, here) or id(wanted.items) in self.replaced:
            return False
        if self.wanted.get(id(wanted.items)) == wanted:
            return False
        self.wanted[id(wanted.items)] = wanted
        self.others = True
        return True

    def released(self, *values: Any) -> bool:
        """Whether lists are among the values that are taken for tables; they are not any more."""
        lists = {id(x) for x in values} & self.wanted.keys()
        for k in lists:
            del self.wanted[k]
        self.replaced |= lists
        self.others |= bool(lists)
        return bool(lists)

    def make(self) -> None:
        """Takes the lists for tables, before the loop."""
        for table in reversed(self.held):
            table.restore()
        self.held, self.others = [], False
        for wanted in self.wanted.values():
            made = numpy_functions().array(wanted.items, dtype=wanted.dtype)
            array = _lift.wrap(_lift.lift(made).value)
            self.held.append(Held(wanted, array))

    def settle(self) -> None:
        """The lists hold numbers again, after the loop; what they held, where it has not changed them."""
        for table in self.held:
            table.settle()
        self.held = []


def shape_of(items: Any, kinds: tuple[type, ...] = (list,)) -> tuple[int, ...] | None:
    """The shape of a list of numbers or of a list of lists, all of one length and none there twice; None of others."""
    if type(items) not in kinds or not items or earlier(items) is not None:
        return None
    if all(is_number(x) and not getattr(x, "ndim", 0) for x in items):
        return (len(items),)
    if list in kinds and tuple not in kinds and len(set(map(id, items))) < len(items):
        return None
    shapes = {shape_of(x, kinds) for x in items}
    inner = shapes.pop()
    return None if shapes or inner is None else (len(items), *inner)


def leaves_of(items: Sequence[Any]) -> Iterator[Any]:
    """The numbers of a nested list."""
    for x in items:
        if isinstance(x, list | tuple):
            yield from leaves_of(x)
        else:
            yield x


def common_dtype(numbers: Sequence[Array]) -> np.dtype[Any] | None:
    """The dtype of an array of the numbers; None if none keeps them all.

    Integers among floats become floats, as a loop's variables do that are integers in some rounds and floats in others,
    if they, as far as they are known, are the same as floats.
    """
    dtypes = {x.dtype for x in numbers}
    if len(dtypes) < 2:
        return dtypes.pop() if dtypes else None
    known = [_lift.static_value(x) for x in numbers if x.dtype.kind == "i"]
    exact = all(v is None or bool(np.all(np.abs(v) <= EXACT)) for v in known)
    return np.dtype(np.float64) if exact and dtypes == {np.dtype(np.int64), np.dtype(np.float64)} else None
