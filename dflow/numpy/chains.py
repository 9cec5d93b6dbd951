"""Products of several matrices: powers, and chains in the order that costs least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.ops.matrices import identity
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.products import dot, matrix_product
from dflow.numpy.systems import inv
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Array:
    n, v = s.static_int(n, "n"), lift(a).value
    if v.type.rank < 2 or v.type.shape[-1] != v.type.shape[-2]:
        raise np.linalg.LinAlgError(f"Last 2 dimensions of the array must be square, got shape {s.show(v.type.shape)}")
    if n == 0:
        return wrap(identity(builder(), v.type))
    return wrap(_power(inv.__wrapped__(a).value if n < 0 else v, abs(n)))


def _power(v: Value, n: int) -> Value:
    """By repeated squaring."""
    half = _power(matrix_product(v, v), n // 2) if n > 1 else None
    return v if half is None else matrix_product(half, v) if n % 2 else half


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Array:
    """The product of matrices; the first and the last may be vectors."""
    arrays = [lift(a) for a in arrays]
    if len(arrays) < 2:
        raise ValueError("Expecting at least two arrays.")
    shapes = [s.static(s.dims(a), "np.linalg.multi_dot") for a in arrays]
    for shape in shapes[1:-1]:
        if len(shape) != 2:
            raise np.linalg.LinAlgError(f"{len(shape)}-dimensional array given. Array must be two-dimensional")
    rows = [1 if len(shapes[0]) == 1 else shapes[0][0], *(shape[0] for shape in shapes[1:])]
    split = _cheapest(rows, 1 if len(shapes[-1]) == 1 else shapes[-1][1])

    def product(i: int, j: int) -> Array:
        """Of the arrays i .. j."""
        return arrays[i] if i == j else dot.__wrapped__(product(i, split[i, j]), product(split[i, j] + 1, j))

    return s.result(product(0, len(arrays) - 1).value, out)


def _cheapest(rows: Sequence[int], last: int) -> dict[tuple[int, int], int]:
    """Where to split each chain i .. j of matrices (dynamic programming over their lengths)."""
    sizes, count = [*rows, last], len(rows)
    cost = {(i, i): 0 for i in range(count)}
    split = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            ways = {k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)}
            split[i, j] = min(ways, key=ways.__getitem__)
            cost[i, j] = ways[split[i, j]]
    return split
