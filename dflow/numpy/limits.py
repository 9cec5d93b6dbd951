"""``finfo``, ``iinfo`` and ``isdtype`` as the array API standard has them: limits of dtypes and of arrays as Python's
numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir import types
from dflow.tracing.arrays.array import Array


class _Info:
    def __init__(self, info: Any):
        self._info = info
        self.dtype = np.dtype(info.dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._info, name)
        return found.item() if isinstance(found, np.generic) else found

    def __repr__(self) -> str:
        return repr(self._info)


def _dtype(x: Any) -> Any:
    return np.dtype(x.dtype if isinstance(x, Array | np.ndarray | np.generic) else x)


def finfo(type: Any, /) -> Any:
    """The limits of a float (or of a complex number's parts), by a dtype or an array of it."""
    return _Info(types.finfo(_dtype(type)))


def isdtype(dtype: Any, kind: Any) -> bool:
    """``np.isdtype``: whether a dtype is of a kind (``"real floating"``, ...), or of one of several."""
    dtype, kinds = _dtype(dtype), kind if isinstance(kind, tuple) else (kind,)
    special = [k for k in kinds if not isinstance(k, str) and types.is_bfloat16(np.dtype(k))]
    if types.is_bfloat16(dtype):
        return bool(special) or np.isdtype(np.dtype(np.float16), tuple(k for k in kinds if isinstance(k, str)))
    return np.isdtype(dtype, tuple(k for k in kinds if k not in special))


def iinfo(type: Any, /) -> Any:
    """The limits of an integer, by a dtype or an array of it."""
    return _Info(np.iinfo(_dtype(type)))
