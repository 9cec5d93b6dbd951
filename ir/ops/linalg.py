"""Dense linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.ops.tables import in_single
from dflow.ir.registry import Linear, OpDef, Sample, define, linear_jvp, require
from dflow.ir.types import NUMERIC, TensorType

X = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
Y = [[1.0, -1.0], [0.5, 2.0], [-2.0, 1.0]]


def _matmul_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 2, f"takes 2 operands, got {len(types)}")
    x, y = types
    require(x.dtype == y.dtype and x.dtype in NUMERIC, f"operands must have one number type, got {x} and {y}")
    require(x.rank >= 2 and x.rank == y.rank, f"operands must have one rank of at least 2, got {x} and {y}")
    require(x.shape[:-2] == y.shape[:-2], f"batch axes differ: {x} and {y}")
    require(x.shape[-1] == y.shape[-2], f"inner sizes differ: {x} and {y}")
    return [x.with_shape((*x.shape[:-1], y.shape[-1]))]


def _swap(b: Any, x: Any) -> Any:
    n = x.type.rank
    return b.transpose(x, perm=(*range(n - 2), n - 1, n - 2))


def _matmul_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, y = xs
    if isinstance(x, Linear):
        return [b.matmul(cts[0], _swap(b, y)), None]
    return [None, b.matmul(_swap(b, x), cts[0])]


define(
    OpDef(
        "matmul",
        "matrix product of the last two axes, for each index of the leading ones",
        _matmul_infer,
        lambda attrs, x, y: in_single(np.matmul, x, y),
        linear_jvp("matmul", lambda n: ((0,), (1,))),
        _matmul_transpose,
        ((0,), (1,)),
        NUMERIC,
        samples=(Sample((X, Y)), Sample(([X, X], [Y, Y])), Sample(([[1.0, 2.0]], [[3.0], [4.0]]))),
    )
)
