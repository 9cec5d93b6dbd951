"""Sorting: operations that give the order, some places of it, and the positions when a row is parted about one; and
the elements in order or so parted, whose derivative is that of a gather by the positions."""

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


def _partition_infer(attrs: Any, types: Any) -> list[TensorType]:
    _argsort_infer(attrs, types)
    (x,), rank = types, attrs["rank"]
    (size,) = x.static_shape[-1:]
    require(isinstance(rank, int) and 0 <= rank < size, f"the rank must be in 0..{size - 1}, got {rank}")
    return [x]


def _argpartition_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = _partition_infer(attrs, types)
    return [TensorType(I64, x.shape)]


def _argpartition(attrs: Any, x: Any) -> Any:
    order, k = np.argsort(x, axis=-1, kind="stable"), attrs["rank"]
    return np.concatenate([np.sort(order[..., :k]), order[..., k : k + 1], np.sort(order[..., k + 1 :])], axis=-1)


def _argpartition_by_order(b: Any, attrs: Any, xs: Any) -> list[Any]:
    order, rank = b.argsort(xs[0]), attrs["rank"]
    *batch, size = order.type.shape

    def part(start: int, stop: int) -> Any:
        index = (*("all" for _ in batch), ("slice", stop - start, 1))
        return b.sort(b.extract(order, b.index(start), index=index))

    return [b.concatenate(part(0, rank), part(rank, rank + 1), part(rank + 1, size), axis=len(batch))]


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
define(
    OpDef(
        "argpartition",
        "the positions along the last axis of what comes before the element of a rank in that order, of that, and of "
        "what comes after it, each in their own order",
        _argpartition_infer,
        _argpartition,
        dtypes=REAL,
        no_derivative="its result is an index",
        decomposition=_argpartition_by_order,
        samples=(
            Sample(([3.0, 1.0, 2.0, 1.0, 3.0],), {"rank": 2}),
            Sample(([[2.0, 2.0, 1.0], [0.0, -1.0, 5.0]],), {"rank": 0}),
        ),
    )
)
define(
    OpDef(
        "partition",
        "the elements along the last axis in the order of their positions by ``argpartition``",
        _partition_infer,
        lambda attrs, x: np.take_along_axis(x, _argpartition(attrs, x), axis=-1),
        lambda b, attrs, xs, ys, ts: [_in_order(b, ts[0], b.argpartition(xs[0], **attrs))],
        dtypes=REAL,
        decomposition=lambda b, attrs, xs: [_in_order(b, xs[0], b.argpartition(xs[0], **attrs))],
        samples=(
            Sample(([3.0, 1.0, 2.0, -1.0, 4.0],), {"rank": 3}),
            Sample(([[2.0, 2.5, 1.0], [0.0, -1.0, 5.0]],), {"rank": 1}),
        ),
    )
)
