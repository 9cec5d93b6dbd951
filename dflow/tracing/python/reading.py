"""The operators of what stands for another value: whoever does anything with it needs the value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

# Python calls these by itself, where no rewritten code comes between.
_FUNCTIONS = (bool, int, float, complex, len, iter, round, str, format)
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_NAMES = ("neg", "pos", "invert", "abs", "index", *_COMPARISONS, "getitem", "setitem", "delitem", "contains")
_NUMERIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_BITWISE = ("and_", "or_", "xor", "lshift", "rshift")


def gives_operators(cls: type, read: Callable[[Any], Any], but: Collection[str] = ()) -> None:
    """Gives ``cls`` Python's operators, of what ``read`` makes of the operands. Without these, Python would take it for
    an object like any other."""
    functions = {f.__name__: f for f in _FUNCTIONS} | {name: getattr(operator, name) for name in _NAMES}
    for name, f in functions.items():
        if name not in but:
            setattr(cls, f"__{name}__", _reads(f, read))
    for name in (*_NUMERIC, *_BITWISE):
        f, special = getattr(operator, name), name.rstrip("_")
        setattr(cls, f"__{special}__", _reads(f, read))
        setattr(cls, f"__r{special}__", lambda x, other, f=f: f(read(other), read(x)))


def _reads(function: Callable[..., Any], read: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *operands: function(*map(read, operands))
