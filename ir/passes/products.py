"""Rules for products with a vector: ``v @ A.T`` is ``A @ v``, and needs no transposed copy of the matrix.

    %t = transpose %A {perm = (1, 0)}                     %w = reshape %v {shape = (n, 1)}
    %y = matmul %v, %t : f64[1, m]              ->        %z = matmul %A, %w : f64[m, 1]
                                                          %y = reshape %z {shape = (1, m)}

Reverse mode multiplies with transposed matrices; those with a vector read the matrix just once. A small matrix is
better transposed: in a loop that happens once, and sums along its rows are the faster products.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from dflow.ir.core import Value
from dflow.ir.passes.simplifier import Rules, Simplifier

SMALL = 4096  # elements


def _matmul(b: Simplifier, attrs: Mapping[str, Any], x: Value, y: Value) -> Value | None:
    *batch, m, k = x.type.shape
    n = y.type.shape[-1]
    if m == 1 and (matrix := _swapped(y)) is not None:
        column = b.reshape(x, shape=(*batch, k, 1))
        return b.reshape(b.matmul(matrix, column), shape=(*batch, 1, n))
    if n == 1 and (matrix := _swapped(x)) is not None:
        row = b.reshape(y, shape=(*batch, 1, k))
        return b.reshape(b.matmul(row, matrix), shape=(*batch, m, 1))
    return None


def _swapped(v: Value) -> Value | None:
    """The tensor that ``v`` is with its last two axes exchanged."""
    op, n = v.op, v.type.rank
    if (
        op is None
        or op.name != "transpose"
        or prod(v.type.bound) <= SMALL
        or op.attrs["perm"] != (*range(n - 2), n - 1, n - 2)
    ):
        return None
    return op.operands[0]


PRODUCTS: Rules = {"matmul": (_matmul,)}
