"""``finfo`` and ``iinfo`` as the array API standard has them: of dtypes and of arrays, with Python's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir import types
from dflow.tracing.array import Array


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


def iinfo(type: Any, /) -> Any:
    """The limits of an integer, by a dtype or an array of it."""
    return _Info(np.iinfo(_dtype(type)))
