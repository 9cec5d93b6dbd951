"""One compiled function for one function and transformation, however often the transformation is asked for.

So ``dflow.grad(f)(x)`` inside a loop compiles once. A function that is made anew each time (a lambda in the loop) is
the same as the last one when its code, the values of its closure and its defaults are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

import numpy as np

MAX_SHARED = 4096
MAX_DEPTH = 4  # of functions in closures of functions

_ATTRIBUTE = "__dflow__"  # on a function: what was made of it, so that both go away together
_by_code: dict[Any, Any] = {}


class _NotShareable(Exception):
    """A function refers to something whose contents may change."""


def shared(make: Callable[[], Any], function: Any, *key: Any) -> Any:
    """``make()``, or what it made before for the same function and key (which must be hashable)."""
    table = _table_of(function)
    if table is not None and key in table:
        return table[key]
    made = _shared_by_code(make, function, key)
    if table is not None:
        table[key] = made
    return made


def _table_of(function: Any) -> dict[Any, Any] | None:
    """What was made of just this function object; None when it cannot hold that."""
    try:
        return vars(function).setdefault(_ATTRIBUTE, {})
    except (AttributeError, TypeError):
        return None


def _shared_by_code(make: Callable[[], Any], function: Any, key: Any) -> Any:
    try:
        identity = _identity(function, 0)
    except _NotShareable:
        return make()
    if identity is None:
        if not isinstance(function, np.ufunc | BuiltinFunctionType):
            return make()
        identity = function
    entry = (identity, key)
    if entry not in _by_code:
        while len(_by_code) >= MAX_SHARED:
            _by_code.pop(next(iter(_by_code)))
        _by_code[entry] = make()
    return _by_code[entry]


def _identity(function: Any, depth: int) -> Any:
    """What a lambda or a nested function has in common with its next incarnation; None for anything else."""
    code = getattr(function, "__code__", None)
    if code is None or set(getattr(function, "__dict__", ())) - {_ATTRIBUTE}:
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
