"""One compiled function for one function and transformation, however often the transformation is asked for.

So ``dflow.grad(f)(x)`` inside a loop compiles once. A function that is made anew each time (a lambda in the loop) is
the same as the last one when its code, the values of its closure and its defaults are the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

MAX_SHARED = 4096
MAX_DEPTH = 4  # of functions in closures of functions

_by_function: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()
_by_code: dict[Any, Any] = {}


class _NotShareable(Exception):
    """A function refers to something whose contents may change."""


def shared(make: Callable[[], Any], function: Any, *key: Any) -> Any:
    """``make()``, or what it made before for the same function and key (which must be hashable)."""
    try:
        identity = _identity(function, 0)
    except _NotShareable:
        return make()
    if identity is not None:
        table, entry = _by_code, (identity, key)
    else:
        try:
            table, entry = _by_function.setdefault(function, {}), key
        except TypeError:  # cannot be hashed or referred to weakly
            return make()
    if entry not in table:
        while len(table) >= MAX_SHARED:
            table.pop(next(iter(table)))
        table[entry] = make()
    return table[entry]


def _identity(function: Any, depth: int) -> Any:
    """What a lambda or a nested function has in common with its next incarnation; None for anything else."""
    code = getattr(function, "__code__", None)
    if code is None or getattr(function, "__dict__", None):
        return None
    if "<locals>" not in function.__qualname__ and "<lambda>" not in function.__qualname__:
        return None
    if depth > MAX_DEPTH:
        raise _NotShareable
    cells = tuple(_cell(c, depth) for c in function.__closure__ or ())
    defaults = tuple(_Same(d, depth) for d in function.__defaults__ or ())
    keywords = tuple((k, _Same(v, depth)) for k, v in (function.__kwdefaults__ or {}).items())
    return code, id(function.__globals__), cells, defaults, keywords


def _cell(cell: Any, depth: int) -> Any:
    try:
        return _Same(cell.cell_contents, depth)
    except ValueError:  # not bound yet
        return None


class _Same:
    """Equal when the same: numbers and strings by type and value, functions as above, anything else by identity."""

    def __init__(self, value: Any, depth: int):
        if isinstance(value, list | dict | set) or hasattr(value, "__array__"):
            raise _NotShareable
        self.value = value  # kept, so that its id stays its own
        if isinstance(value, bool | int | float | str | bytes | type(None)):
            self.key: Any = (type(value), repr(value))
        else:
            self.key = _identity(value, depth + 1) or id(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
