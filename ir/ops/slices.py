"""Between the slices of a mapped axis: what a function that is mapped over a *named* axis knows of the other slices.

They have a meaning only inside of the function of one slice; batching (``dflow.ir.passes.batch``) makes a program
without them. ``axis`` is the name, ``size`` how many slices there are.
"""

from __future__ import annotations

from typing import Any

from dflow.ir.registry import OpDef, define, linear_jvp, require
from dflow.ir.types import ALL, I64, TensorType, scalar


def _gather_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    require(x.is_static, f"takes a tensor whose shape is known, got {x}")
    return [x.with_shape((attrs["size"], *x.shape))]


def _scatter_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    require(x.rank > 0 and x.shape[0] == attrs["size"], f"takes one part for each of {attrs['size']} slices, got {x}")
    return [x.with_shape(x.shape[1:])]


define(
    OpDef(
        "gather_slices",
        "the x of all slices, one behind the other; the same in every slice",
        _gather_infer,
        jvp=linear_jvp("gather_slices", lambda n: ((0,),)),
        transpose=lambda b, attrs, xs, cts: [b.scatter_slices(cts[0], **attrs)],
        linear=((0,),),
        dtypes=ALL,
        attributes=("axis", "size"),
    )
)
define(
    OpDef(
        "scatter_slices",
        "the sum of what all slices have for this one: x has a part for every slice",
        _scatter_infer,
        jvp=linear_jvp("scatter_slices", lambda n: ((0,),)),
        transpose=lambda b, attrs, xs, cts: [b.gather_slices(cts[0], **attrs)],
        linear=((0,),),
        dtypes=ALL,
        attributes=("axis", "size"),
    )
)
define(
    OpDef(
        "slice_number",
        "the number of this slice",
        lambda attrs, types: [scalar(I64)],
        jvp=lambda b, attrs, xs, ys, ts: [None],
        attributes=("axis", "size"),
    )
)
