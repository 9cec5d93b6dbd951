"""NumPy's functions on traced arrays. ``import dflow.numpy as dnp`` works like NumPy where nothing is traced.

Everything that NumPy has and this package does not define (constants, dtypes, functions that are not supported on
traced arrays) is NumPy's own; an unsupported function given a traced array raises with a hint.
"""

from __future__ import annotations

from typing import Any

import numpy as _np

from dflow.ir.types import bfloat16_dtype as _bfloat16_dtype
from dflow.numpy import cmath_functions as cmath_functions
from dflow.numpy import (
    composed,
    counting,
    creation,
    elementwise,
    introspection,
    joining,
    math_functions,
    miscellany,
    padding,
    polynomials,
    products,
    quantiles,
    reductions,
    running,
    selection,
    sets,
    shapes,
    sorting,
    statistics,
    ufunc_methods,
)
from dflow.numpy import dispatch as dispatch
from dflow.numpy import fft as fft
from dflow.numpy import grids as grids
from dflow.numpy import index_tricks as index_tricks
from dflow.numpy import linalg as linalg
from dflow.numpy.limits import finfo as finfo
from dflow.numpy.limits import iinfo as iinfo
from dflow.numpy.limits import isdtype as isdtype

_EXPORTED: dict[str, Any] = dict(elementwise.PUBLIC)
for _module in (
    elementwise,
    reductions,
    statistics,
    running,
    shapes,
    joining,
    products,
    composed,
    sorting,
    sets,
    counting,
    quantiles,
    selection,
    padding,
    miscellany,
    polynomials,
    creation,
    introspection,
):
    for _name, _f in vars(_module).items():
        if hasattr(_np, _name) and getattr(_f, "__module__", None) == _module.__name__ and hasattr(_f, "__wrapped__"):
            _EXPORTED[_name] = _f
for _alias, _name in (
    ("amax", "max"),
    ("amin", "min"),
    ("around", "round"),
    ("permute_dims", "transpose"),
    ("concat", "concatenate"),
    ("asanyarray", "asarray"),
    ("ascontiguousarray", "asarray"),
    ("may_share_memory", "shares_memory"),
    ("row_stack", "vstack"),
    ("asfortranarray", "require"),
    ("asarray_chkfinite", "require"),
):
    _EXPORTED[_alias] = _EXPORTED[_name]
_EXPORTED["topk"] = sorting.topk
globals().update(_EXPORTED)


def __getattr__(name: str) -> Any:
    if name == "bfloat16":
        return _bfloat16_dtype().type  # when it is asked for: its package takes time to import
    found = getattr(_np, name)  # raises AttributeError for what NumPy does not have either
    return dispatch.refusing(found) if callable(found) and not isinstance(found, type) else found


def __dir__() -> list[str]:
    return sorted((*_EXPORTED, "bfloat16", "linalg"))


__all__ = ["dispatch", "fft", "linalg", "math_functions", "ufunc_methods", *_EXPORTED]
