"""Conditions in rewritten code: ``and``, ``or``, ``not`` and comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dflow.errors import TraceError, failure
from dflow.ir.types import BOOL
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced, wrap
from dflow.tracing.context import builder, note_fresh
from dflow.tracing.control.branches import choose, given, traced_condition, truth
from dflow.tracing.control.state import Undefined
from dflow.tracing.control.switch import asked
from dflow.tracing.lists import earlier, lists_of_numbers, totals
from dflow.tracing.lists.sequences import Range
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.optional import Optional, held, settled
from dflow.tracing.python.special_methods import PLAIN, dispatched, method, truth_value
from dflow.tracing.source.rewrite import rewritten


def not_(x: Any) -> Any:
    x = truth_value(x)
    if not traced_condition(x):
        return not x
    return wrap(builder().not_(truth(x)), weak=True)


def test(x: Any) -> Any:
    """Whether ``x`` is true."""
    x = truth_value(x)
    return wrap(truth(x), weak=True) if traced_condition(x) else bool(x)


def and_(*operands: Callable[[], Any]) -> Any:
    """``a and b``: b counts (and its checks hold) only where a holds."""
    return _chain(operands, lambda holds, x, rest: choose(holds, rest, given(x)), stops=False)


def or_(*operands: Callable[[], Any]) -> Any:
    return _chain(operands, lambda holds, x, rest: choose(holds, given(x), rest), stops=True)


def _chain(operands: Any, join: Callable[[Any, Any, Callable[[], Any]], Any], stops: bool) -> Any:
    head, *rest = operands
    x = head()
    if not rest:
        return x
    holds = truth_value(x)
    if not traced_condition(holds):
        return x if bool(holds) is stops else _chain(rest, join, stops)
    if holds is x and x.type.dtype is BOOL:
        holds = x = wrap(truth(x), x.weak)
    return join(holds, x, partial(_chain, rest, join, stops))


# -- comparisons ---------------------------------------------------------------------------------------------------


def comparison(name: str, x: Any, y: Any) -> Any:
    """``x op y`` for one of the operators that ``names`` below has."""
    for k, v in enumerate((x, y)):
        if isinstance(v, Choice) and not (isinstance(x, Optional) or isinstance(y, Optional)):
            return asked(v, partial(_compared, name, x, y, k))
    if name in _REFLECTED:
        return _ordered(name, x, y)
    return _OTHERS[name](x, y)


def _compared(name: str, x: Any, y: Any, k: int, option: Any) -> Any:
    """The comparison with ``option`` in the place of one operand."""
    return comparison(name, *((option, y) if k == 0 else (x, option)))


def _ordered(name: str, x: Any, y: Any) -> Any:
    if isinstance(x, Optional) or isinstance(y, Optional):
        return _ordered_optional(name, x, y)
    if type(x) not in PLAIN or type(y) not in PLAIN:
        found = dispatched(f"__{name}__", x, f"__{_REFLECTED[name]}__", y)
        if found is not NotImplemented:
            return found
        if name == "ne" and type(x).__ne__ in (object.__ne__, tuple.__ne__) and method(x, "__eq__"):
            return not_(_ordered("eq", x, y))
    if name in ("eq", "ne") and type(x) is type(y) is list and (earlier.earlier(x) or earlier.earlier(y)):
        same = _equal_lists(*((x, y) if earlier.earlier(x) else (y, x)))
        return same if name == "eq" else not_(same)
    x, y = earlier.plain(x), earlier.plain(y)
    if isinstance(x, list | tuple) and isinstance(y, list | tuple) and (contains_traced(x) or contains_traced(y)):
        return _by_items(name, x, y)
    return note_fresh(getattr(operator, name)(x, y))


def _ordered_optional(name: str, x: Any, y: Any) -> Any:
    """None equals None alone, and has no order."""
    if name not in ("eq", "ne"):
        return comparison(name, held(x), held(y))
    nothing = [test(is_none(v)) for v in (x, y)]
    same = choose(
        or_(lambda: nothing[0], lambda: nothing[1]),
        lambda: and_(lambda: nothing[0], lambda: nothing[1]),
        lambda: test(comparison("eq", held(x), held(y))),
    )
    return same if name == "eq" else not_(same)


def _by_items(name: str, x: Any, y: Any) -> Any:
    """Lists and tuples are compared by their first items that differ."""
    if isinstance(x, list) != isinstance(y, list):
        return getattr(operator, name)(type(x)(), type(y)())
    if name in ("eq", "ne"):
        same = len(x) == len(y) and not_(any_of(not_(comparison("eq", a, b)) for a, b in zip(x, y)))
        return same if name == "eq" else not_(same)
    if not x or not y:
        return getattr(operator, name)(len(x), len(y))
    strictly = name.replace("e", "t")
    ways = partial(_test_of, name, x[1:], y[1:]), partial(_test_of, strictly, x[0], y[0])
    return choose(_test_of("eq", x[0], y[0]), *ways)


def _equal_lists(x: list[Any], y: list[Any]) -> Any:
    """Whether a list whose length depends on the run equals another."""
    if earlier.numbers_of(x) is not None and earlier.numbers_of(y) is not None:
        return rewritten(totals.equal)(x, y)  # type: ignore[arg-type]
    y = earlier.plain(y)

    def same_items() -> Any:
        return not_(any_of(not_(comparison("eq", earlier.item(x, k), item)) for k, item in enumerate(y)))

    return and_(lambda: comparison("eq", earlier.length(x), len(y)), same_items)


def _test_of(name: str, x: Any, y: Any) -> Any:
    return test(comparison(name, x, y))


def _in(x: Any, container: Any) -> Any:
    found = method(container, "__contains__")
    if found is not None:
        return found(x)
    if earlier.earlier(container) is not None:
        return lists_of_numbers.contains(container, x)
    if isinstance(container, Array):
        return container.__contains__(x)
    if isinstance(container, range) and isinstance(x, Array):
        container = Range(container.start, container.stop, container.step)
    if isinstance(container, Range):
        return container.holds(x)
    if isinstance(container, list | tuple | set) and (isinstance(x, Array | Optional) or contains_traced(container)):
        return any_of(test(comparison("eq", x, item)) for item in container)
    return x in container


def any_of(tests: Iterable[Any]) -> Any:
    """Whether one of the conditions holds; all are evaluated where that is not known."""
    found: Any = False
    for holds in tests:
        if traced_condition(holds):
            found = holds if found is False else wrap(builder().or_(truth(found), truth(holds)), weak=True)
        elif holds:
            return True
    return found


def is_none(x: Any) -> Any:
    """Whether ``x`` is None."""
    x = settled(x)
    return not_(x.present) if isinstance(x, Optional) else x is None


def _is(x: Any, y: Any) -> Any:
    x, y = (v.read() if isinstance(v, Undefined) else v for v in (x, y))
    if x is None or y is None:
        return is_none(y if x is None else x)
    x, y = held(x), held(y)
    if x is not y and _may_be_one(x, y):
        raise failure(
            TraceError,
            "whether two values are one object is not known while tracing",
            seen=f"{x!r} is {y!r}",
            mend="compare by ==; for `is True`, leave it out; for arrays, pass a flag that says it",
        )
    return x is y


def _may_be_one(x: Any, y: Any) -> bool:
    """Numbers may be one object in Python where their traced values are two, and so may arrays passed twice."""
    if not all(isinstance(v, Array | bool | int | float | complex) for v in (x, y)):
        return False
    arrays = [v for v in (x, y) if isinstance(v, Array)]
    if len(arrays) == 2 and any(a.ndim for a in arrays):
        return x.type == y.type and x.cell is not y.cell and all(a.cell in a.cell.home.given for a in arrays)
    return bool(arrays) and not any(a.ndim for a in arrays)


_REFLECTED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
_OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "is_": _is,
    "is_not": lambda x, y: not_(_is(x, y)),
    "in_": _in,
    "not_in": lambda x, container: not_(_in(x, container)),
}


def compare(names: tuple[str, ...], left: Any, *rest: Callable[[], Any]) -> Any:
    """A chain of comparisons: ``a < b < c`` evaluates b once, and c only where a < b."""
    right = rest[0]()
    first = comparison(names[0], left, right)
    if len(names) == 1:
        return first
    return and_(lambda: first, partial(compare, names[1:], right, *rest[1:]))
