"""SciPy's functions on traced arrays. Where nothing is traced they are SciPy's own.

All but ``linalg`` and ``special`` are loaded when they are first used, or SciPy's are: that takes SciPy itself a while.
"""

from __future__ import annotations

import importlib
from typing import Any

from dflow.scipy import linalg as linalg
from dflow.scipy import special as special


def __getattr__(name: str) -> Any:
    if name in ("interpolate", "ndimage", "optimize", "signal", "stats"):
        return importlib.import_module(f"dflow.scipy.{name}")
    raise AttributeError(f"module 'dflow.scipy' has no attribute {name!r}")


__all__ = ["interpolate", "linalg", "ndimage", "optimize", "signal", "special", "stats"]
