"""Calls outside of any traced function.

They are NumPy's own. With ``DFLOW_EAGER=compile`` in the environment every call is compiled instead, so that suites
which test conformance test the compiler. Functions and arguments that NumPy does not have are always compiled, and so
are calls with bfloat16 that NumPy refuses.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.types import is_bfloat16
from dflow.programs.signature import OnDevice
from dflow.records import has
from dflow.tracing.arrays.lift import supported
from dflow.tracing.context import tracing

MAX_PROGRAMS = 4096

_programs: dict[Any, Any] = {}


def compiles(args: Any, kwargs: Any) -> bool:
    """Whether a call on concrete arrays is to be compiled. Dtypes that programs do not have stay NumPy's affair."""
    if os.environ.get("DFLOW_EAGER") != "compile" or tracing():
        return False
    from dflow import trees

    return all(map(_compilable, trees.flatten((list(args), kwargs))[0]))


def _compilable(x: Any) -> bool:
    if isinstance(x, np.ndarray | np.generic):
        return supported(x.dtype)
    if isinstance(x, np.dtype) or (isinstance(x, type) and (issubclass(x, np.generic) or x is complex)):
        return supported(np.dtype(x))
    return True


def compiled(f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """``f`` compiled for these arguments: arrays are its arguments, all else is part of the program."""
    from dflow import trees
    from dflow.programs.transform import Jit

    leaves, spec = trees.flatten((list(args), kwargs))
    arrays = [x for x in leaves if _is_array(x)]
    fixed = [None if _is_array(x) else x for x in leaves]
    key = (f, spec, tuple(map(_identity, fixed)))
    program = _programs.get(key)
    if program is None:
        is_array = [_is_array(x) for x in leaves]

        def call(*arrays: Any) -> Any:
            given = iter(arrays)
            everything = [next(given) if a else x for a, x in zip(is_array, fixed)]
            args, kwargs = trees.unflatten(spec, everything)
            return f(*args, **kwargs)

        call.__name__ = call.__qualname__ = getattr(f, "__name__", "call")
        if len(_programs) >= MAX_PROGRAMS:
            _programs.pop(next(iter(_programs)))
        program = _programs[key] = Jit(f, call)
    return program(*arrays)


def _is_array(x: Any) -> bool:
    if isinstance(x, np.ndarray | np.generic):
        return supported(x.dtype)
    return isinstance(x, OnDevice) or (has(x, "__array__") and has(x, "__dlpack__"))  # ours, another library's


def holds_bfloat16(args: Any, kwargs: Any) -> bool:
    from dflow import trees

    return any(
        isinstance(x, np.ndarray | np.generic | OnDevice) and is_bfloat16(x.dtype)
        for x in trees.flatten((list(args), kwargs))[0]
    )


def _identity(x: Any) -> Any:
    """What tells one fixed argument from another: -0.0 and 0.0, 1 and True, NaN and -NaN differ, NaN is itself."""
    if isinstance(x, float | complex):
        return (type(x), np.complex128(x).tobytes())
    return (type(x), x) if isinstance(x, bool | int) else x


def size(function: Callable[..., Any], f: Callable[..., Any], extra: Any, args: Any, kwargs: Any) -> dict[str, int]:
    """How large a result is whose size depends on the data, which only the eager caller knows: as the argument of
    ``f`` that says so, if it has one and that is not given."""
    name = next((n for n in ("size", "total_repeat_length") if n in extra), None)
    if name is None or name in kwargs:
        return {}
    axis = inspect.signature(f).bind(*args, **kwargs).arguments.get("axis")
    found = function(*args, **kwargs)
    return {name: np.shape(found[0] if isinstance(found, tuple) else found)[axis or 0]}


def as_array(found: Any) -> Any:
    """A number as NumPy's creation functions give it: an array without axes."""
    return np.asarray(found) if isinstance(found, np.generic | float | int | complex) else found
