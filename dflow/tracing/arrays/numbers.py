"""The attributes that Python's numbers have and arrays do not: ``int.bit_length``, ``float.is_integer``, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.types import kind_of
from dflow.tracing.arrays.lift import elementwise, wrap
from dflow.tracing.arrays.operators import numpy_functions


def _is_integer(x: Any) -> Any:
    if kind_of(x.dtype) != "f":
        return True
    whole = elementwise("and", elementwise("eq", x, elementwise("floor", x)), numpy_functions().isfinite(x))
    return wrap(whole.value, weak=True)


def _bit_length(x: Any) -> Any:
    from dflow.numpy.math_functions import call_math

    return call_math(int.bit_length, x)


def _bit_count(x: Any) -> Any:
    from dflow.tracing.python.functions import BUILTINS

    return BUILTINS[int](numpy_functions().bitwise_count(x))


METHODS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "f": {"is_integer": _is_integer},
    "i": {"is_integer": _is_integer, "bit_length": _bit_length, "bit_count": _bit_count},
}
PROPERTIES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "i": {"numerator": lambda x: x, "denominator": lambda x: 1},
}


def number_attribute(x: Any, name: str) -> Any:
    """The attribute of a traced number; None where its Python number has none that is supported."""
    if x.ndim or not hasattr(stands_for(x), name):
        return None
    if name in PROPERTIES.get(kind_of(x.dtype), ()):
        return PROPERTIES[kind_of(x.dtype)][name](x)
    method = METHODS.get(kind_of(x.dtype), {}).get(name)
    return None if method is None else lambda: method(x)


def stands_for(x: Any) -> type:
    """The class of what a traced array stands for."""
    if x.ndim:
        return np.ndarray
    if x.weak:
        return {"f": float, "c": complex, "b": bool}.get(kind_of(x.dtype), int)
    return x.dtype.type
