"""Sorting: one operation gives the order; sorted values are gathered by it, so their derivative is that of a gather."""

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
