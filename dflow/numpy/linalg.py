"""``np.linalg`` on traced arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.numpy import dispatch
from dflow.numpy.chains import matrix_power, multi_dot
from dflow.numpy.factorizations import cholesky, eig, eigh, eigvals, eigvalsh, qr, svd, svdvals
from dflow.numpy.norms import cond, matrix_norm, norm, vector_norm
from dflow.numpy.products import cross_of_three, matmul, matrix_trace, outer, tensordot, vecdot
from dflow.numpy.shapes import matrix_diagonal, matrix_transpose
from dflow.numpy.systems import det, inv, lstsq, matrix_rank, pinv, slogdet, solve, tensorinv, tensorsolve

diagonal, trace, cross = matrix_diagonal, matrix_trace, cross_of_three


def __getattr__(name: str) -> Any:
    found = getattr(np.linalg, name)
    return dispatch.refusing(found) if callable(found) and not isinstance(found, type) else found


__all__ = [
    "cholesky",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "multi_dot",
    "norm",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "tensorinv",
    "tensorsolve",
    "trace",
    "vecdot",
    "vector_norm",
]
