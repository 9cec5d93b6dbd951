"""What the tracing of a loop has found out, remembered for the next time that the same loop is met in the same state.

A loop in a loop is traced again with each attempt at the outer one, and a loop in a function with each call. Each would
take several attempts of its own; the attempts of nested loops would multiply.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from dflow.tracing.arrays.array import Array
from dflow.tracing.context import region
from dflow.tracing.control.slots import Learnt, Loop
from dflow.tracing.control.state import Undefined

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_FIXED = (type, types.ModuleType, types.BuiltinFunctionType, np.ufunc, np.dtype)
DEEPEST = 4  # functions in closures of functions


class _Unknown(Exception):
    """A value whose state is not told by a key."""


def key_of(loop: Loop, values: Iterable[Any], *more: Hashable) -> Hashable:
    """What the tracing of a loop depends on; None when that is not known. ``values`` are all that the body reads."""
    cells: dict[Any, int] = {}
    try:
        return loop.get.__code__, tuple(_state(v, cells, DEEPEST) for v in values), more
    except _Unknown:
        return None


def recall(key: Hashable) -> Learnt | None:
    """What is remembered under ``key`` in this trace."""
    found = region().root().learnt.get(key)
    return None if key is None or found is None else found.copy()


def remember(key: Hashable, learnt: Learnt) -> None:
    if key is not None and not (learnt.opened or learnt.places or learnt.growing or learnt.optional or learnt.choices):
        region().root().learnt[key] = learnt.copy()


def _state(x: Any, cells: dict[Any, int], depth: int) -> Hashable:
    if isinstance(x, Array):
        t = x.type
        if t.size_values:
            raise _Unknown
        known = region().known.interval(x.value) if t.is_scalar and t.dtype.kind in "iub" else None
        return t, x.weak, known, cells.setdefault(x.cell, len(cells)), bool(x.steps)
    if isinstance(x, _PLAIN):
        return type(x), repr(x)
    if isinstance(x, np.generic):
        return x.dtype, repr(x)
    if isinstance(x, Undefined):
        return "undefined", x.filler, x.perhaps is None
    if type(x) is tuple:
        return tuple(_state(v, cells, depth) for v in x)
    if isinstance(x, _FIXED):
        return x
    if isinstance(x, types.FunctionType) and depth:
        inside = [c.cell_contents for c in x.__closure__ or ()]
        given = [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        return x.__code__, tuple(_state(v, cells, depth - 1) for v in (*inside, *given))
    raise _Unknown
