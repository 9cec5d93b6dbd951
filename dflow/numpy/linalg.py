"""``np.linalg`` on traced arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.numpy import dispatch
from dflow.numpy.norms import matrix_norm, norm, vector_norm
from dflow.numpy.products import cross, matmul, matrix_power, multi_dot, outer, tensordot, vecdot
from dflow.numpy.shapes import diagonal, matrix_transpose


def __getattr__(name: str) -> Any:
    found = getattr(np.linalg, name)
    return dispatch.refusing(found) if callable(found) and not isinstance(found, type) else found


__all__ = [
    "cross",
    "diagonal",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_transpose",
    "multi_dot",
    "norm",
    "outer",
    "tensordot",
    "vecdot",
    "vector_norm",
]
