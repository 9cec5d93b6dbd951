"""Items of Python's lists, tuples and dicts by a position or a key that only the run knows.

Numbers, and tuples of numbers, that stand in a list are taken as the rows of arrays: a table of known numbers is a
constant. Where the numbers are not known, the arrays are made anew at each place that asks, so lists are short then; a
loop makes one array for all that it reads and writes (``tables``).

Integers among floats have no array that keeps both: in a loop they become floats, as variables do that are integers in
some rounds and floats in others. Elsewhere they are refused: a position that is an argument is known in another try.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

from dflow.errors import NeedsStatic, UndefinedError, failure
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.index import refuse_items
from dflow.tracing.arrays.lift import contains_traced
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.context import builder, region
from dflow.tracing.control.branches import choose, given, truth
from dflow.tracing.control.logic import any_of, comparison, test
from dflow.tracing.control.state import is_number
from dflow.tracing.lists import earlier, lists_of_numbers, rows, tables
from dflow.tracing.python.choice import Choice, is_fixed
from dflow.tracing.python.objects import is_mutable

MOST = 256  # items that are not known, and of which an array is made for one place
FEW = 8  # a loop takes longer lists for tables
MOST_KEYS = 32  # keys that are looked through


def item(base: Any, index: Any) -> Any:
    """``base[index]``."""
    static = _lift.static_value(index) if isinstance(index, Array) else None
    if static is not None:
        return base[static.item()]
    if isinstance(base, dict):
        return _at_key(base, index)
    if isinstance(index, slice) and type(base) is list:
        return _part(base, index)
    if not _is_position(index) or not isinstance(base, list | tuple | range):
        raise refuse_items(type(base).__name__, index)
    columns = rows.columns(base)
    if columns is None and len(base) > FEW and contains_traced(base):
        tables.ask(base, index)
    columns = columns or _columns(base)
    if columns is None and base and all(map(is_fixed, base)):
        return Choice(_inside(index, len(base)), base)
    if columns is None:
        tables.ask(base, index)
        table = tables.nested(base)
        if table is not None:
            return earlier.item(table, index)
        raise refuse_items(type(base).__name__, index)
    return columns.item(index)


def _part(base: list[Any], index: slice) -> list[Any]:
    """``base[start:stop:step]`` of numbers."""
    if len(base) > FEW and contains_traced(base):
        tables.ask(base, index)
    column = _column(base) if base and len(base) <= MOST else None
    if column is None:
        raise refuse_items("list", index)
    array, weak = column
    return lists_of_numbers.as_list(array[index], weak)


def _inside(index: Array, n: int) -> Array:
    """A position in a list of ``n`` items, checked when the program runs, counted from the start."""
    index = _lift.position(index)
    inside = _lift.elementwise("and", index >= -n, index < n)
    builder().check(inside.value, error="IndexError", message="list index out of range")
    return cast("Array", numpy_functions().where(index < 0, index + n, index))


def put(base: list[Any], index: Array, value: Any) -> None:
    """``base[index] = value`` in a list of numbers."""
    if len(base) > FEW:
        tables.ask(base, index)
    column = _column([*base, value]) if _is_position(index) and len(base) <= MOST else None
    if column is None:
        raise refuse_items("list", index)
    array, weak = column
    changed = array[:-1]
    changed[index] = value
    base[:] = rows.rows(_lift.wrap(changed.value), len(base), weak)


def _is_position(index: Any) -> bool:
    return isinstance(index, Array) and not index.ndim and index.dtype.kind in "iu"


def _columns(items: Sequence[Any]) -> rows.Columns | None:
    """Numbers, or tuples of them that are alike, as rows of arrays; None for other items."""
    if not items or (len(items) > MOST and contains_traced(items)):
        return None
    kind = type(items[0])
    if not issubclass(kind, tuple):
        column = _column(items)
        return None if column is None else rows.Columns(items, "leaf", [column[0]], [column[1]])
    if any(type(x) is not kind or len(x) != len(items[0]) for x in items):
        return None
    columns = [c for c in map(_column, zip(*items)) if c is not None]
    if not columns or len(columns) < len(items[0]):
        return None
    return rows.Columns(items, (kind, ("leaf",) * len(columns)), *map(list, zip(*columns)))


def _column(numbers: Sequence[Any]) -> tuple[Array, bool | None] | None:
    """Numbers as a new array, and whether they are Python's."""
    if not all(is_number(x) and not getattr(x, "ndim", 0) for x in numbers):
        return None
    lifted = [_lift.lift(x) for x in numbers]
    if not _alike(lifted) and not (_in_loop() and tables.common_dtype(lifted)):
        return None
    return _lift.lift(list(numbers)), functools.reduce(_lift.either, (x.weak for x in lifted))


def _alike(numbers: Sequence[Array]) -> bool:
    """Whether they are of one dtype."""
    return len({x.dtype for x in numbers}) < 2


def _in_loop() -> bool:
    """Whether this is in the body of a traced loop, whose variables may be of another type in another round."""
    return any(r.loop is not None for r in region().around())


def _at_key(base: dict[Any, Any], key: Any) -> Any:
    """The values one after the other, by keys that may equal ``key``."""
    if len(base) > MOST_KEYS or not base:
        raise refuse_items("dict", key)
    holds = [(test(comparison("eq", key, k)), value) for k, value in base.items() if _may_equal(k, key)]
    values = [x for _, x in holds]
    if any(map(is_mutable, values)):  # an update of what is chosen would not reach the one in the dict
        raise failure(
            NeedsStatic,
            "a dict of lists or objects is read by a key that is known only when the program runs",
            seen=f"key {key!r}",
            mend="ask which key it is (if k == 0: ...), or let the dict hold numbers, tuples or arrays",
        )
    if all(map(is_number, values)) and not _in_loop() and not _alike([_lift.lift(x) for x in values]):
        raise refuse_items("dict", key)
    found = any_of(h for h, _ in holds)
    if found is not True:
        there = truth(found) if isinstance(found, Array) else builder().constant(bool(found))
        builder().check(there, error="KeyError", message="a dict has no such key")
    try:
        return functools.reduce(lambda rest, way: choose(way[0], given(way[1]), given(rest)), holds[:-1], holds[-1][1])
    except UndefinedError:  # functions and the like, which only a known key chooses
        raise refuse_items("dict", key) from None


def _may_equal(x: Any, key: Any) -> bool:
    if isinstance(key, tuple):
        return isinstance(x, tuple) and len(x) == len(key)
    return is_number(x)
