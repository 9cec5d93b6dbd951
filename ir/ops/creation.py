"""Tensors from nothing: constants, counters, uninitialised memory, sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.registry import OpDef, Sample, define, require
from dflow.ir.types import ALL, I64, Size, TensorType


def _typed(attrs: Any, types: Any) -> list[TensorType]:
    return [attrs["type"]]


def _constant(attrs: Any) -> Any:
    return np.asarray(attrs["value"], attrs["type"].dtype.numpy)


def _empty(attrs: Any) -> Any:
    return np.zeros(attrs["type"].static_shape, attrs["type"].dtype.numpy)


def _sequence_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(attrs["type"].grows, f"makes a sequence, not {attrs['type']}")
    require(len(types) <= 1 and all(t == TensorType(I64) for t in types), "takes at most a capacity (i64)")
    return [attrs["type"]]


def _sequence(attrs: Any, *capacity: Any) -> Any:
    return np.zeros((0, *attrs["type"].shape[1:]), attrs["type"].dtype.numpy)


def _iota_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(not types, "takes no operands")
    require(isinstance(attrs["size"], int | Size), f"size must be an int or a bounded index, got {attrs['size']}")
    return [TensorType(I64, (attrs["size"],))]


define(
    OpDef(
        "constant",
        "a constant: a scalar, or a dense array",
        _typed,
        _constant,
        lambda b, attrs, xs, ys, ts: [None],
        dtypes=ALL,
        cheap=True,
        samples=(Sample((), {"value": 2, "type": TensorType(I64)}),),
    )
)
define(
    OpDef(
        "empty",
        "a tensor with unspecified elements (the reference evaluator gives zeros)",
        _typed,
        _empty,
        lambda b, attrs, xs, ys, ts: [None],
        cheap=True,
        attributes=("type",),
    )
)
define(
    OpDef(
        "sequence",
        "a new sequence, all zeros; the operand, if any, is how many elements to make room for",
        _sequence_infer,
        _sequence,
        lambda b, attrs, xs, ys, ts: [None],
        attributes=("type",),
    )
)
define(
    OpDef(
        "tape",
        "a new sequence with unspecified elements (the reference evaluator gives zeros); the operand, if any, is how"
        " many to make room for",
        _sequence_infer,
        _sequence,
        lambda b, attrs, xs, ys, ts: [None],
        attributes=("type",),
    )
)
define(
    OpDef(
        "iota",
        "0, 1, ..., size - 1",
        _iota_infer,
        lambda attrs: np.arange(attrs["size"]),
        lambda b, attrs, xs, ys, ts: [None],
        cheap=True,
        samples=(Sample((), {"size": 5}),),
    )
)
