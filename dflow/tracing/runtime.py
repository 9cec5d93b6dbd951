"""What rewritten code calls. On concrete values each of these does exactly what the Python that it stands for does."""

from __future__ import annotations

import builtins
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dflow.errors import CarriedError, DflowError, NoAttributeError, ShapeError, TraceError, TraceIndexError, failure
from dflow.ir.core import Block, Op, walk
from dflow.ir.failures import error_class
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.index import refuse_items
from dflow.tracing.context import Cell, builder, current, note_fresh, region, tracing
from dflow.tracing.control.branches import choose, given, raised, traced_condition, truth
from dflow.tracing.control.logic import and_, compare, comparison, not_, or_, test
from dflow.tracing.control.loops import LONG, MOST_UNROLLED, for_, while_
from dflow.tracing.control.loops import if_filling as if_
from dflow.tracing.control.state import UNSET, Undefined, load
from dflow.tracing.control.switch import switch
from dflow.tracing.lists import earlier, lists_of_numbers, lookup, tables
from dflow.tracing.lists.sequences import as_sequence, most_iterations
from dflow.tracing.python.calls import call, captured_update, dispatch
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.objects import Place, every_part, outside_change
from dflow.tracing.python.optional import Optional, held, settled
from dflow.tracing.python.printing import joined, message_of
from dflow.tracing.python.special_methods import (
    BINARY,
    attribute,
    binary,
    in_place,
    iterated,
    managed,
    refuse_unfollowed,
    set_attribute,
    truth_value,
    unary,
)
from dflow.tracing.python.special_methods import method as special_method

slice = builtins.slice


def assert_(test: Any, message: Callable[[], Any]) -> None:
    test = truth_value(test)
    if not traced_condition(test):
        if not test:
            raise AssertionError(message()) if message() != "" else AssertionError
        return
    text, details = message_of(message())
    builder().check(truth(test), *details, error="AssertionError", message=text)


def fold(function: Any, generator: Callable[[], Any], loop: Callable[[Any], Any], *start: Any) -> Any:
    """``sum(generator)`` and its like: while tracing, the loop that it is (``dflow.tracing.source.folds``)."""
    if not tracing() or function not in (sum, min, max, any, all):
        return call(function, generator(), *start)
    return loop(*start) if start else loop(0 if function is sum else UNSET)


def collected(
    items: Any, comprehension: Callable[[Any], list[Any]], loop: Callable[[Any], list[Any]], chooses: bool
) -> list[Any]:
    """A list comprehension over ``items``: while tracing, the loop that it is, if it is a long one or ``chooses``."""
    sequence = as_sequence(items) if tracing() else None
    if chooses and sequence is not None:
        return loop(items)
    if chooses and (alike := _one_array(items)) is not None:
        mark = region().mark()
        try:
            return comprehension(iterated(items))
        except DflowError:  # which items are left is known only when the program runs
            region().back_to(mark)
            return loop(alike)
    most = 0 if sequence is None else most_iterations(sequence.length)
    if most <= LONG and (sequence is None or most == 0 or isinstance(sequence.length, int)):
        return comprehension(iterated(items))
    if most <= MOST_UNROLLED:
        return loop(items)
    try:
        return loop(items)
    except DflowError:  # Python can run it, however long it takes
        return comprehension(iterated(items))


def _one_array(items: Any) -> Array | None:
    """A list or tuple of traced numbers of one dtype as an array, whose items are the same numbers."""
    if type(items) not in (list, tuple) or not items or not tracing():
        return None
    if not all(isinstance(x, Array) and not x.ndim and not x.weak and x.dtype == items[0].dtype for x in items):
        return None
    return _lift.lift(list(items))


def better(name: str, first: Any, best: Any, x: Any) -> Any:
    """One step of ``min`` or ``max``; ``best`` has no meaning at the ``first``."""
    if isinstance(best, Undefined) or first is True:
        return x
    return choose(first, given(x), functools.partial(call, getattr(builtins, name), best, x))


def not_empty(name: str, first: Any, best: Any) -> Any:
    if first is True:
        raise ValueError(f"{name}() arg is an empty sequence")
    if isinstance(first, Array):
        b = builder()
        b.check(b.not_(truth(first)), error="ValueError", message=f"{name}() arg is an empty sequence")
    return best


# -- items and updates -------------------------------------------------------------------------------------------


def _traced_index(index: Any) -> bool:
    if isinstance(index, builtins.slice):
        return any(isinstance(x, Array) for x in (index.start, index.stop, index.step))
    return any(_traced_index(i) for i in index) if isinstance(index, tuple | list) else isinstance(index, Array)


def getitem(base: Any, index: Any) -> Any:
    base, index = held(base), load(held(index))
    for k, x in enumerate((base, index)):
        if isinstance(x, Choice):
            return switch(x, functools.partial(_item_of, index) if k == 0 else functools.partial(getitem, base))
    if isinstance(base, dict) and isinstance(index, tuple):
        for k, x in enumerate(index):
            if isinstance(x, Choice):
                return switch(x, functools.partial(_item_at, base, index, k))
    run = special_method(base, "__getitem__")
    if run is not None:
        return run(index)
    if earlier.earlier(base) is not None:
        return earlier.item(base, index)
    if not isinstance(base, Array) and _traced_index(index):
        if isinstance(base, np.ndarray):
            return _lift.lift(base)[index]
        if isinstance(base, list | tuple | str | range | dict):
            return lookup.item(base, index)
    if tracing() and (made := dispatch().INDEXED.get(type(base))):
        return made(index)
    try:
        return load(base[index])
    except IndexError as e:
        error = located(e)
        if isinstance(error, DflowError) and isinstance(base, list):  # in the first iteration, it may be another way
            error.unroll = True
        raise error from None


def _item_of(index: Any, option: Any) -> Any:
    return getitem(option, index)


def _item_at(base: Any, index: tuple[Any, ...], k: int, option: Any) -> Any:
    return getitem(base, (*index[:k], option, *index[k + 1 :]))


def located(error: Exception) -> Exception:
    """An error of Python or NumPy, its message with the user's line."""
    if isinstance(error, DflowError) or not tracing():
        return error
    return failure(TraceIndexError, str(error))


def setitem(value: Any, base: Any, index: Any) -> None:
    note_fresh(None)
    base, index = held(base), load(held(index))
    for k, x in enumerate((base, index)):
        if isinstance(x, Choice):
            switch(x, functools.partial(_put_item, value, base, index, k))
            return
    run = special_method(base, "__setitem__")
    if run is not None:
        run(index, value)
        return
    if isinstance(base, np.ndarray) and tracing():
        raise captured_update(base)
    known = not isinstance(index, Array) and not isinstance(value, Array)
    new = isinstance(base, dict) and known and index not in base  # a dict may be filled while tracing
    if isinstance(base, list | dict) and not new and tracing() and base in region().root().outside:
        raise outside_change(base, Place(base, index).name)
    table = tables.of(base)
    if table is not None:
        return table.put(index, value)
    earlier.refuse(base, value if isinstance(index, builtins.slice) else None)
    if isinstance(base, list | dict) and isinstance(index, Array):
        static = _lift.static_value(index)
        if static is None and type(base) is list:
            return lookup.put(base, index, value)
        if static is None or static.ndim:
            raise refuse_items(type(base).__name__, index)
        index = static.item()
    if not isinstance(base, Array | list | dict | deque | bytearray):
        refuse_unfollowed(base)
    base[index] = value


def _put_item(value: Any, base: Any, index: Any, k: int, option: Any) -> None:
    setitem(value, *((option, index) if k == 0 else (base, option)))


def augment(op: str, old: Any, value: Any) -> Any:
    """``x op= value``."""
    old = held(old)
    if isinstance(old, np.ndarray) and tracing():
        raise captured_update(old)
    fills = earlier.filling(old)
    if fills is not None and op == "add":
        for x in iterated(value):
            fills.append(x)
        return old
    if op == "add" and type(old) is list and lists_of_numbers.extends(old, value):
        return old
    return in_place(op, old, value)


def augment_item(op: str, base: Any, index: Any, value: Any) -> None:
    """``base[index] op= value``."""
    base, index = held(base), held(index)
    if isinstance(base, Choice):
        return switch(base, functools.partial(_augment_option, op, index, value))
    if isinstance(base, Array) and not isinstance(index, Choice):
        return base.update(index, BINARY[op], value, op)
    old = getitem(base, index)
    return setitem(augment(op, old, value), base, index)


def _augment_option(op: str, index: Any, value: Any, option: Any) -> None:
    augment_item(op, option, index, value)


def begun(base: Any, index: Any) -> tuple[Any, Any, Any]:
    """What ``base[index] op= value`` begins with, where computing ``value`` may change the item: the item is read."""
    base, index = held(base), held(index)
    if isinstance(base, Array) and not isinstance(index, Choice):
        return base, index, region().read(base.cell)
    return base, index, None if isinstance(base, Choice) else getitem(base, index)


def augment_begun(op: str, start: tuple[Any, Any, Any], value: Any) -> None:
    """``base[index] op= value`` after ``begun``."""
    base, index, old = start
    if isinstance(base, Array) and not isinstance(index, Choice):
        if region().read(base.cell) is not old:
            cell = Cell(old, region())
            part = Array(cell, base.type, base.steps)[index]
            if not part.ndim:
                return setitem(BINARY[op](part, value), base, index)
            if part.cell is cell:  # a view, which sees what has changed
                return augment_item(op, base, index, value)
            raise failure(
                CarriedError,
                "elements of an array are updated by what a function gives that updates the array, too",
                mend="call the function before, `v = f(); x[k] += v`",
            )
    elif not isinstance(base, Choice):
        return setitem(augment(op, old, value), base, index)
    return augment_item(op, base, index, value)


def begun_attribute(base: Any, name: str) -> tuple[Any, str, Any]:
    """What ``base.name op= value`` begins with: the attribute is read before ``value`` is computed."""
    return base, name, attribute(base, name)


def augment_attribute(op: str, start: tuple[Any, str, Any], value: Any) -> None:
    """``base.name op= value``."""
    base, name, old = start
    set_attribute(augment(op, old, value), base, name)


def refuse_globals(names: tuple[str, ...]) -> None:
    """Assigning a global variable would happen once, while tracing, and never when the program runs."""
    if tracing():
        raise failure(
            TraceError,
            f"the function assigns the global variable {names[0]!r}",
            mend="return the value, and assign it outside",
        )


def owned(name: str, x: Any) -> Any:
    """What is assigned to a variable that may be updated: a new NumPy array, of known values, can be then."""
    if type(x) is np.ndarray and tracing() and region().root().fresh is x and _lift.supported(x.dtype):
        x = _lift.lift(x)
    return named(name, x)


def named(name: str, x: Any) -> Any:
    """What is assigned to a variable; the name lives on in the printed program."""
    note_fresh(None)
    if isinstance(x, Array) and x.cell.home is current() and x.cell.value.hint is None and x.cell.value.op:
        x.cell.value.hint = name
    return x


def caught() -> None:
    """At the start of an ``except``: that something cannot be traced is not for the program to handle."""
    error = sys.exc_info()[1]
    if isinstance(error, DflowError) and not isinstance(error, TraceIndexError | ShapeError | NoAttributeError):
        raise error


DIVISIONS = ("div", "floordiv", "rem")  # of Python's numbers: in the compiled program a division by 0 raises nothing


@contextmanager
def trying(kinds: Callable[[], tuple[Any, ...]]) -> Iterator[None]:
    """The body of a ``try`` with handlers: what they would catch must not depend on traced values."""
    if not tracing():
        yield
        return
    here = region().builder
    start = len(here.ops)
    yield
    ops = walk(Block((), here.ops[start:], ()))
    checks = [op for op in ops if op.name == "check" or _may_divide_by_zero(op)]
    if not checks:
        return
    caught = tuple(x for k in kinds() for x in ((BaseException,) if k is None else k if isinstance(k, tuple) else (k,)))
    for op in checks:
        error = op.attrs["error"] if op.name == "check" else "ZeroDivisionError"
        explicit = op.name == "check" or ZeroDivisionError in caught or ArithmeticError in caught
        if explicit and issubclass(error_class(error), caught):
            raise failure(
                TraceError,
                f"{error}: whether it is raised is known only when the program runs; it cannot be caught",
                mend="test for it by an `if`"
                + (", or catch it where the function is called" if op.name == "check" else ""),
                location=op.loc,
            )


def _may_divide_by_zero(op: Op) -> bool:
    if op.name not in DIVISIONS or not op.result.type.is_scalar:
        return False
    by = op.operands[1].op
    return by is None or by.name != "constant" or not by.attrs["value"]


def matched(x: Any, inner: bool, truths: bool) -> Any:
    """What Python matches with patterns of structure by itself. ``inner`` says that there are such in parts of it, and
    ``truths`` that True or False is among them: it would see no traced value as either."""
    if not tracing():
        return x
    x = settled(x)
    for part in every_part(x) if inner else [x]:
        truth = truths and isinstance(part, Array) and part.dtype == np.bool_
        if isinstance(part, Choice | Optional) or truth:
            raise failure(
                TraceError,
                "which case of a `match` this is, is known only when the program runs",
                seen=repr(part),
                mend="ask by `if`: `x is None`, `isinstance(x, C)`, `x == value`; or match the part by itself",
            )
    return x


def unpacked(x: Any) -> Any:
    """What is assigned to several targets."""
    x = earlier.plain(held(x))
    return iterated(x) if isinstance(x, Iterator) else x


def shortened(x: Any) -> None:
    """From ``x`` an item is deleted: not from a list for whose items something else stands."""
    earlier.refuse(held(x))


def listed(*parts: Any) -> list[Any]:
    """``[*xs, *ys]``; what is no part of its own stands in a list of one item."""
    if any(earlier.earlier(p) is not None for p in parts):
        return functools.reduce(lists_of_numbers.joined, parts, [])
    return [x for p in parts for x in p]


def filler(name: str) -> Undefined:
    return Undefined(name, filler=True)


def values(*reads: Callable[[], Any]) -> list[Any]:
    """The variables that have a value."""
    found = []
    for read in reads:
        try:
            found.append(read())
        except NameError:
            continue
    return found


__all__ = [
    "UNSET",
    "Undefined",
    "and_",
    "assert_",
    "attribute",
    "augment",
    "augment_attribute",
    "augment_begun",
    "augment_item",
    "begun",
    "begun_attribute",
    "better",
    "binary",
    "call",
    "caught",
    "choose",
    "collected",
    "compare",
    "comparison",
    "filler",
    "fold",
    "for_",
    "getitem",
    "if_",
    "iterated",
    "joined",
    "listed",
    "load",
    "managed",
    "matched",
    "named",
    "not_",
    "not_empty",
    "or_",
    "owned",
    "raised",
    "refuse_globals",
    "set_attribute",
    "setitem",
    "shortened",
    "slice",
    "test",
    "truth_value",
    "trying",
    "unary",
    "unpacked",
    "values",
    "while_",
]
