"""SciPy's functions on traced arrays. Where nothing is traced they are SciPy's own."""

from __future__ import annotations

from dflow.scipy import linalg as linalg
from dflow.scipy import special as special
from dflow.scipy import stats as stats

__all__ = ["linalg", "special", "stats"]
