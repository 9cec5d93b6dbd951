"""SciPy's functions on traced arrays. Where nothing is traced they are SciPy's own.

``dflow.scipy.stats`` is loaded when it is first used, or ``scipy.stats`` is: that takes SciPy itself a while.
"""

from __future__ import annotations

import importlib
from typing import Any

from dflow.scipy import linalg as linalg
from dflow.scipy import special as special


def __getattr__(name: str) -> Any:
    if name == "stats":
        return importlib.import_module("dflow.scipy.stats")
    raise AttributeError(f"module 'dflow.scipy' has no attribute {name!r}")


__all__ = ["linalg", "special", "stats"]
