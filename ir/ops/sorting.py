"""Sorting: one operation gives the order, another some places of it, a third the sorted elements, whose derivative is
that of a gather by the order."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.registry import OpDef, Sample, define, require
from dflow.ir.types import I64, REAL, TensorType


def _argsort_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 1, f"takes 1 operand, got {len(types)}")
    (x,) = types
    require(x.rank >= 1, "takes a tensor with at least one axis")
    require(x.dtype in REAL, f"does not take {x.dtype}")
    require(not x.grows, f"cannot sort the sequence {x}")
    return [TensorType(I64, x.shape)]


def _sort_infer(attrs: Any, types: Any) -> list[TensorType]:
    _argsort_infer(attrs, types)
    return list(types)


def _sort_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    return [_in_order(b, ts[0], b.argsort(xs[0]))]


def _in_order(b: Any, x: Any, order: Any) -> Any:
    """The elements of each row at some positions."""
    shape = order.type.shape
    rows = [b.broadcast(b.iota(size=d), shape=shape, dims=(k,)) for k, d in enumerate(shape[:-1])]
    return b.gather(x, *rows, order)


def _ranked_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 2, f"takes 2 operands, got {len(types)}")
    x, ranks = types
    require(ranks.dtype == I64, f"takes ranks in i64, got {ranks.dtype}")
    require(x.shape[:-1] == ranks.shape[:-1], f"takes ranks for each row of {x}, got {ranks}")
    _argsort_infer(attrs, [x])
    require(x.shape[-1] != 0, f"takes rows with elements, got {x}")
    return [ranks]


def _ranked(attrs: Any, x: Any, ranks: Any) -> Any:
    order = np.argsort(x, axis=-1, kind="stable")
    return np.take_along_axis(order, np.clip(ranks, 0, x.shape[-1] - 1), axis=-1)


def _look_up(b: Any, attrs: Any, xs: Any) -> list[Any]:
    return [_in_order(b, b.argsort(xs[0]), xs[1])]


define(
    OpDef(
        "argsort",
        "the positions along the last axis in the order of the elements there, equal ones in their own order, NaN last",
        _argsort_infer,
        lambda attrs, x: np.argsort(x, axis=-1, kind="stable"),
        dtypes=REAL,
        no_derivative="its result is an index",
        samples=(
            Sample(([3.0, 1.0, 2.0, 1.0, 3.0],)),
            Sample(([[2.0, 2.0, 1.0], [0.0, -1.0, 5.0]],)),
        ),
    )
)
define(
    OpDef(
        "sort",
        "the elements along the last axis in order, NaN last, 0.0 and -0.0 in any order; the derivative of each is "
        "that of the element that it was, of equal ones in their own order",
        _sort_infer,
        lambda attrs, x: np.sort(x, axis=-1, kind="stable"),
        _sort_jvp,
        dtypes=REAL,
        decomposition=lambda b, attrs, xs: [_in_order(b, xs[0], b.argsort(xs[0]))],
        samples=(
            Sample(([3.0, 1.0, 2.0, -1.0, 4.0],)),
            Sample(([[2.0, 2.5, 1.0], [0.0, -1.0, 5.0]],)),
        ),
    )
)
define(
    OpDef(
        "ranked",
        "the elements at some places of that order: for each rank of a row, the position of the element",
        _ranked_infer,
        _ranked,
        dtypes=REAL,
        no_derivative="its result is an index",
        decomposition=_look_up,
        samples=(
            Sample(([3.0, 1.0, 2.0, 1.0, 3.0], [4, 0, 1]), integer=(1,)),
            Sample(([[2.0, 2.0, 1.0], [0.0, -1.0, 5.0]], [[1], [0]]), integer=(1,)),
        ),
    )
)
