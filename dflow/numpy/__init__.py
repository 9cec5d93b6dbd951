"""NumPy's functions on traced arrays. ``import dflow.numpy as dnp`` works like NumPy where nothing is traced.

Everything that NumPy has and this package does not define (constants, dtypes, functions that are not supported on
traced arrays) is NumPy's own; an unsupported function given a traced array raises with a hint.

Its modules are imported when a name of theirs is asked for: many programs do with the ufuncs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as _np

from dflow.ir.types import bfloat16_dtype as _bfloat16_dtype

if TYPE_CHECKING:
    from dflow.numpy import dispatch as dispatch
    from dflow.numpy import fft as fft
    from dflow.numpy import linalg as linalg
    from dflow.numpy import math_functions as math_functions
    from dflow.numpy import ufunc_methods as ufunc_methods

LATER = ("cumulative_prod", "cumulative_sum", "matvec", "unstack", "vecmat")  # which NumPy 2.0 lacks
_MODULES = ("dispatch", "fft", "linalg", "math_functions", "ufunc_methods")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _module(name)
    if name == "__all__":
        return [*_MODULES, *_exported()]
    if name == "bfloat16":
        return _bfloat16_dtype().type  # when it is asked for: its package takes time to import
    if not hasattr(_np, name) and name not in (*LATER, "topk"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _exported()
    if name in globals():
        return globals()[name]
    found = getattr(_np, name)
    return _module("dispatch").refusing(found) if callable(found) and not isinstance(found, type) else found


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _exported() -> dict[str, Any]:
    """What this package defines, which becomes attributes of it."""
    namespace = _module("namespace")
    globals().update({**namespace.LIMITS, **namespace.EXPORTED})
    exported: dict[str, Any] = namespace.EXPORTED
    return exported


def __dir__() -> list[str]:
    return sorted((*_exported(), "bfloat16", "linalg"))
