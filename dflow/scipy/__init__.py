"""SciPy's functions on traced arrays. Where nothing is traced they are SciPy's own.

``dflow.scipy.stats`` is imported by itself, or when ``scipy.stats`` has been.
"""

from __future__ import annotations

from dflow.scipy import linalg as linalg
from dflow.scipy import special as special

__all__ = ["linalg", "special"]
