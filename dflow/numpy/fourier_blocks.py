"""Transforms that are larger than the caches, in blocks that are not. Written as a user would: its loops are traced.

A transform of n = p m elements is one of each column of a p by m matrix, factors, and one of each column of the result
(the "four steps" of Bailey, "FFTs in external or hierarchical memory", 1990).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from dflow.tracing.arrays.array import Array

np: Any = numpy  # its functions on traced arrays
Transform = Callable[[Any], Any]  # of each row


def by_columns(z: Array, block: int, transform: Transform) -> Array:
    """Of each column of ``z``, ``block`` of them at a time."""
    out = np.empty(z.shape, z.dtype)
    for k in range(z.shape[1] // block):
        out[:, k * block : k * block + block] = transform(z[:, k * block : k * block + block].T).T
    return out


def turned_columns(z: Array, block: int, transform: Transform, far: Any, near: Any) -> Array:
    """Of each column b of ``z``, ``block`` of them at a time, with factors; they are the rows of the result. The factor
    of b and the frequency c is that of ``e = b c``, a product of one of the multiple of ``len(near)`` and of one of the
    rest: two short tables."""
    p, m = z.shape
    out = np.empty((m, p), z.dtype)
    for k in range(m // block):
        exponents = (k * block + np.arange(block))[:, None] * np.arange(p)
        factors = far[exponents // len(near)] * near[exponents % len(near)]
        out[k * block : k * block + block] = transform(z[:, k * block : k * block + block].T) * factors
    return out
