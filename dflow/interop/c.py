"""C function pointers, and ``scipy.LowLevelCallable``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from dflow.api import jit
from dflow.backends.native.c_entry import add_c_entry
from dflow.backends.native.generation import compile_plan
from dflow.errors import TraceError, failure, function_location, user_frames_only
from dflow.ir.types import F64, TensorType

_NAME = "dflow_c_entry"
_DOUBLE = ctypes.c_double


class CFunction:
    """A compiled function of numbers behind a C function pointer.

    ``address`` is the pointer, ``pointer`` the same as a ``ctypes`` function, which can be called. The code lives as
    long as this object. In C an error cannot be raised: the function returns NaN.
    """

    def __init__(self, function: Callable[..., Any], count: int, packed: bool, user_data: bool):
        with user_frames_only():
            plan = jit(function).lower(*[0.0] * count).stages.plan
            if [r.type for r in plan.function.results] != [TensorType(F64)]:
                raise failure(
                    TraceError,
                    "a C function of numbers returns one float",
                    seen=", ".join(str(r.type) for r in plan.function.results) or "nothing",
                    location=function_location(function),
                )

        def extend(module: Any, kernel: Any) -> list[str]:
            add_c_entry(module, kernel, count, packed, user_data, _NAME)
            return [_NAME]

        self.function = function
        self._code = compile_plan(plan, name="dflow_program", extend=extend)
        self.address: int = self._code.addresses[_NAME]
        parameters = [ctypes.c_int, ctypes.POINTER(_DOUBLE)] if packed else [_DOUBLE] * count
        self.pointer = ctypes.CFUNCTYPE(_DOUBLE, *parameters, *[ctypes.c_void_p] * user_data)(self.address)
        self.pointer.dflow = self  # type: ignore[attr-defined]  # whoever holds the pointer holds the code

    def low_level_callable(self) -> Any:
        """For ``scipy.integrate``, ``scipy.ndimage`` and others that take a ``scipy.LowLevelCallable``."""
        from scipy import LowLevelCallable

        return LowLevelCallable(self.pointer)


def c_function(
    function: Callable[..., Any], count: int = 1, *, packed: bool = False, user_data: bool = False
) -> CFunction:
    """``function`` of ``count`` floats, which returns a float, as ``double (double, ...)``.

    With ``packed``, as ``double (int, double *)``: the first ``count`` numbers of an array.
    With ``user_data``, there is a ``void *`` at the end, which is not looked at. Raises TraceError when the function
    returns anything else than one float.
    """
    return CFunction(function, count, packed, user_data)


__all__ = ["CFunction", "c_function"]
