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


# --- products of matrices as libraries have them


def _gemm_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 2, f"takes 2 operands, got {len(types)}")
    require(len(attrs["transposed"]) == 2, f"transposed says it of both operands, got {attrs['transposed']}")
    return _matmul_infer({}, [_swapped(t) if turn else t for t, turn in zip(types, attrs["transposed"])])


def _swapped(t: TensorType) -> TensorType:
    require(t.rank >= 2, f"operands must have a rank of at least 2, got {t}")
    return t.with_shape((*t.shape[:-2], t.shape[-1], t.shape[-2]))


def _gemm(attrs: Any, x: Any, y: Any) -> Any:
    return in_single(np.matmul, *(np.swapaxes(v, -1, -2) if t else v for v, t in zip((x, y), attrs["transposed"])))


def _gemm_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    (x, y), (turn_x, turn_y) = xs, attrs["transposed"]
    if isinstance(x, Linear):
        operands, transposed = ((y, cts[0]), (turn_y, True)) if turn_x else ((cts[0], y), (False, not turn_y))
        return [b.gemm(*operands, transposed=transposed), None]
    operands, transposed = ((cts[0], x), (True, turn_x)) if turn_y else ((x, cts[0]), (not turn_x, False))
    return [None, b.gemm(*operands, transposed=transposed)]


def _gemm_decomposed(b: Any, attrs: Any, operands: Any) -> list[Any]:
    return [b.matmul(*(_swap(b, v) if turn else v for v, turn in zip(operands, attrs["transposed"])))]


define(
    OpDef(
        "gemm",
        "matrix product of the last two axes, which are exchanged before in operands that are transposed; fusion makes "
        "it of products, where a library takes it",
        _gemm_infer,
        _gemm,
        linear_jvp("gemm", lambda n: ((0,), (1,))),
        _gemm_transpose,
        ((0,), (1,)),
        NUMERIC,
        samples=(
            Sample((X, Y), {"transposed": (False, False)}),
            Sample((X, X), {"transposed": (True, False)}),
            Sample(([X, X], [X, X]), {"transposed": (False, True)}),
            Sample((X, Y), {"transposed": (True, True)}),
        ),
        decomposition=_gemm_decomposed,
    )
)
