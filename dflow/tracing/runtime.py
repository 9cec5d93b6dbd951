"""What rewritten code calls. On concrete values each of these does exactly what the Python that it stands for does."""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dflow.errors import DflowError, ShapeError, TraceError, TraceIndexError, failure
from dflow.ir.core import Block, walk
from dflow.ir.ops.control import ERRORS
from dflow.ir.types import BOOL
from dflow.tracing import lift as _lift
from dflow.tracing.array import Array
from dflow.tracing.branches import choose, if_, raised, traced_condition, truth
from dflow.tracing.calls import call, captured_update, dispatch
from dflow.tracing.context import builder, current, region, tracing
from dflow.tracing.index import refuse_items
from dflow.tracing.loops import for_, while_
from dflow.tracing.objects import Place, outside_change
from dflow.tracing.printing import joined
from dflow.tracing.state import UNSET, Undefined, load

slice = builtins.slice

# -- logic -------------------------------------------------------------------------------------------------------


def not_(x: Any) -> Any:
    if not traced_condition(x):
        return not x
    return _lift.wrap(builder().not_(truth(x)))


def test(x: Any) -> Any:
    """Whether ``x`` is true."""
    return _lift.wrap(truth(x)) if traced_condition(x) else bool(x)


def and_(*operands: Callable[[], Any]) -> Any:
    """``a and b``: b counts (and its checks hold) only where a holds."""
    return _chain(operands, lambda x, rest: choose(x, rest, lambda: x), stops=False)


def or_(*operands: Callable[[], Any]) -> Any:
    return _chain(operands, lambda x, rest: choose(x, lambda: x, rest), stops=True)


def _chain(operands: Any, join: Callable[[Any, Callable[[], Any]], Any], stops: bool) -> Any:
    head, *rest = operands
    x = head()
    if not rest:
        return x
    if not traced_condition(x):
        return x if bool(x) is stops else _chain(rest, join, stops)
    if x.type.dtype is BOOL:
        x = _lift.wrap(truth(x))
    return join(x, lambda: _chain(rest, join, stops))


def _either(x: Any, y: Any) -> Any:
    return or_(lambda: x, lambda: y)


def _in(x: Any, container: Any) -> Any:
    if isinstance(container, Array):
        return container.__contains__(x)
    if isinstance(x, Array) and isinstance(container, list | tuple | range | set):
        found: Any = False
        for item in container:
            found = _either(found, x == item)
        return found
    return x in container


def _is(x: Any, y: Any) -> bool:
    if isinstance(x, Array) and isinstance(y, bool):
        raise failure(
            TraceError, "a traced value is compared by `is`", seen=repr(x), mend="leave out `is True`, or use =="
        )
    return x is y


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "is_": _is,
    "is_not": lambda x, y: not _is(x, y),
    "in_": _in,
    "not_in": lambda x, container: not_(_in(x, container)),
}


def compare(names: tuple[str, ...], left: Any, *rest: Callable[[], Any]) -> Any:
    """A chain of comparisons: ``a < b < c`` evaluates b once, and c only where a < b."""
    right = rest[0]()
    first = _COMPARE[names[0]](left, right)
    if len(names) == 1:
        return first
    return and_(lambda: first, lambda: compare(names[1:], right, *rest[1:]))


def assert_(test: Any, message: Callable[[], Any]) -> None:
    if not traced_condition(test):
        if not test:
            raise AssertionError(message()) if message() != "" else AssertionError
        return
    text = str(message()).replace("{", "{{").replace("}", "}}")
    builder().check(truth(test), error="AssertionError", message=text)


def fold(function: Any, generator: Callable[[], Any], loop: Callable[[Any], Any], *start: Any) -> Any:
    """``sum(generator)`` and its like: while tracing, the loop that it is (``dflow.tracing.folds``)."""
    if not tracing() or function not in (sum, min, max, any, all):
        return call(function, generator(), *start)
    return loop(*start) if start else loop(0 if function is sum else UNSET)


def better(name: str, first: Any, best: Any, x: Any) -> Any:
    """One step of ``min`` or ``max``; ``best`` has no meaning at the ``first``."""
    if isinstance(best, Undefined) or first is True:
        return x
    return choose(first, lambda: x, lambda: call(getattr(builtins, name), best, x))


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
    if not isinstance(base, Array) and _traced_index(index):
        if isinstance(base, np.ndarray):
            return _lift.lift(base)[index]
        if isinstance(base, list | tuple | str | range | dict):
            static = _lift.static_value(index) if isinstance(index, Array) else None
            if static is None:
                raise refuse_items(type(base).__name__, index)
            return base[static.item()]
    if tracing() and (made := dispatch().INDEXED.get(type(base))):
        return made(index)
    try:
        return base[index]
    except IndexError as e:
        raise located(e) from None


def located(error: Exception) -> Exception:
    """An error of Python or NumPy, its message with the user's line."""
    if isinstance(error, DflowError) or not tracing():
        return error
    return failure(TraceIndexError, str(error))


def setitem(value: Any, base: Any, index: Any) -> None:
    if isinstance(base, np.ndarray) and tracing():
        raise captured_update(base)
    table = isinstance(base, dict) and not isinstance(value, Array) and index not in base  # may be filled while tracing
    if isinstance(base, list | dict) and not table and tracing() and base in region().root().outside:
        raise outside_change(base, Place(base, index).name)
    if isinstance(base, list | dict) and isinstance(index, Array):
        static = _lift.static_value(index)
        if static is None or static.ndim:
            raise refuse_items(type(base).__name__, index)
        index = static.item()
    base[index] = value


def augment(op: str, old: Any, value: Any) -> Any:
    """``x op= value``."""
    if isinstance(old, np.ndarray) and tracing():
        raise captured_update(old)
    return _IN_PLACE[op](old, value)


def augment_item(op: str, base: Any, index: Any, value: Any) -> None:
    """``base[index] op= value``."""
    if isinstance(base, Array):
        return base.update(index, _PLAIN[op], value, op)
    old = getitem(base, index)
    return setitem(_IN_PLACE[op](old, value), base, index)


_OPS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"]
_PLAIN = {name: getattr(operator, name) for name in _OPS}
_IN_PLACE = {name: getattr(operator, "i" + name.rstrip("_")) for name in _OPS}


def refuse_globals(names: tuple[str, ...]) -> None:
    """Assigning a global variable would happen once, while tracing, and never when the program runs."""
    if tracing():
        raise failure(
            TraceError,
            f"the function assigns the global variable {names[0]!r}",
            mend="return the value, and assign it outside",
        )


def named(name: str, x: Any) -> Any:
    """What is assigned to a variable; the name lives on in the printed program."""
    if isinstance(x, Array) and x.cell.home is current() and x.cell.value.hint is None and x.cell.value.op:
        x.cell.value.hint = name
    return x


def caught() -> None:
    """At the start of an ``except``: that something cannot be traced is not for the program to handle."""
    error = sys.exc_info()[1]
    if isinstance(error, DflowError) and not isinstance(error, TraceIndexError | ShapeError):
        raise error


@contextmanager
def trying(kinds: Callable[[], tuple[Any, ...]]) -> Iterator[None]:
    """The body of a ``try`` with handlers: what they would catch must not depend on traced values."""
    if not tracing():
        yield
        return
    here = region().builder
    start = len(here.ops)
    yield
    checks = [op for op in walk(Block((), here.ops[start:], ())) if op.name == "check"]
    if not checks:
        return
    caught = tuple(x for k in kinds() for x in ((BaseException,) if k is None else k if isinstance(k, tuple) else (k,)))
    for op in checks:
        if issubclass(ERRORS[op.attrs["error"]], caught):
            raise failure(
                TraceError,
                f"{op.attrs['error']}: whether it is raised is known only when the program runs; it cannot be caught",
                mend="test for it by an `if`, or catch it where the function is called",
                location=op.loc,
            )


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
    "augment",
    "augment_item",
    "better",
    "call",
    "caught",
    "choose",
    "compare",
    "fold",
    "for_",
    "getitem",
    "if_",
    "joined",
    "load",
    "named",
    "not_",
    "not_empty",
    "or_",
    "raised",
    "refuse_globals",
    "setitem",
    "slice",
    "test",
    "trying",
    "values",
    "while_",
]
