"""Rearranging elements: broadcast, reshape, transpose, concatenate. All are linear."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.registry import Linear, OpDef, Sample, define, linear_jvp, require
from dflow.ir.types import ALL, TensorType

M = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def _linear_in_first(n: int) -> tuple[tuple[int, ...], ...]:
    return ((0,),)


def _broadcast_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    shape, dims = attrs["shape"], attrs["dims"]
    require(len(dims) == x.rank, f"dims {dims} must name a result axis for each of the {x.rank} operand axes")
    require(list(dims) == sorted(set(dims)), f"dims {dims} must increase")
    for i, d in enumerate(dims):
        require(0 <= d < len(shape), f"axis {d} is not an axis of the result {list(shape)}")
        require(shape[d] == x.shape[i], f"operand axis {i} of {x} does not fit result axis {d} of size {shape[d]}")
    return [x.with_shape(shape)]


def _broadcast(attrs: Any, x: Any) -> Any:
    shape, dims = attrs["shape"], attrs["dims"]
    aligned = np.reshape(x, [np.shape(x)[dims.index(k)] if k in dims else 1 for k in range(len(shape))])
    return np.broadcast_to(aligned, shape).copy()


def _broadcast_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    axes = tuple(k for k in range(len(attrs["shape"])) if k not in attrs["dims"])
    return [b.reduce(cts[0], kind="sum", axes=axes) if axes else cts[0]]


define(
    OpDef(
        "copy",
        "x in memory of its own; bufferization inserts it where an update must not be seen through another name",
        lambda attrs, types: [types[0]],
        lambda attrs, x: np.array(x),
        linear_jvp("copy", _linear_in_first),
        lambda b, attrs, xs, cts: [cts[0]],
        ((0,),),
        ALL,
        samples=(Sample((M,)),),
    )
)
define(
    OpDef(
        "broadcast",
        "repeats x along new axes; dims says which axis of the result each axis of x becomes",
        _broadcast_infer,
        _broadcast,
        linear_jvp("broadcast", _linear_in_first),
        _broadcast_transpose,
        ((0,),),
        ALL,
        cheap=True,
        samples=(
            Sample((2.0,), {"shape": (2, 3), "dims": ()}),
            Sample(([1.0, 2.0],), {"shape": (3, 2), "dims": (1,)}),
            Sample(([1.0, 2.0],), {"shape": (2, 3), "dims": (0,)}),
        ),
    )
)


def _reshape_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    shape = attrs["shape"]
    moving = [d for d in x.shape if not isinstance(d, int)]
    require(moving == [d for d in shape if not isinstance(d, int)], f"cannot reshape {x} to {list(shape)}")
    old = int(np.prod([d for d in x.shape if isinstance(d, int)], dtype=np.int64))
    new = int(np.prod([d for d in shape if isinstance(d, int)], dtype=np.int64))
    require(old == new, f"cannot reshape {x} ({old} elements) to {list(shape)} ({new})")
    return [x.with_shape(shape)]


define(
    OpDef(
        "reshape",
        "the same elements in row-major order under another shape",
        _reshape_infer,
        lambda attrs, x: np.reshape(x, attrs["shape"]),
        linear_jvp("reshape", _linear_in_first),
        lambda b, attrs, xs, cts: [b.reshape(cts[0], shape=xs[0].type.shape)],
        ((0,),),
        ALL,
        cheap=True,
        samples=(Sample((M,), {"shape": (3, 2)}), Sample((M,), {"shape": (6,)}), Sample(([2.0],), {"shape": ()})),
    )
)


def _transpose_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    require(
        sorted(attrs["perm"]) == list(range(x.rank)), f"perm {attrs['perm']} is not a permutation of the axes of {x}"
    )
    return [x.with_shape(tuple(x.shape[p] for p in attrs["perm"]))]


def _inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(perm.index(k) for k in range(len(perm)))


define(
    OpDef(
        "transpose",
        "permutes the axes: axis k of the result is axis perm[k] of x",
        _transpose_infer,
        lambda attrs, x: np.transpose(x, attrs["perm"]).copy(),
        linear_jvp("transpose", _linear_in_first),
        lambda b, attrs, xs, cts: [b.transpose(cts[0], perm=_inverse(attrs["perm"]))],
        ((0,),),
        ALL,
        cheap=True,
        samples=(Sample((M,), {"perm": (1, 0)}), Sample(([M, M],), {"perm": (2, 0, 1)})),
    )
)


def _all_operands(n: int) -> tuple[tuple[int, ...], ...]:
    return (tuple(range(n)),)


def _concatenate_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(types, "needs an operand")
    axis, first = attrs["axis"], types[0]
    require(0 <= axis < first.rank, f"{first} has no axis {axis}")
    for t in types:
        fits = t.dtype == first.dtype and t.rank == first.rank
        fits = fits and all(a == b for k, (a, b) in enumerate(zip(t.shape, first.shape)) if k != axis)
        require(fits, f"{t} and {first} differ in more than the size of axis {axis}")
        require(isinstance(t.shape[axis], int), f"the size of axis {axis} of {t} must be static")
    total = sum(t.shape[axis] for t in types)
    return [first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))]


def _concatenate_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    axis, start, out = attrs["axis"], 0, []
    for x in xs:
        size = x.type.shape[axis]
        index = tuple(("slice", size, 1) if k == axis else "all" for k in range(x.type.rank))
        out.append(b.extract(cts[0], b.index(start), index=index) if isinstance(x, Linear) else None)
        start += size
    return out


define(
    OpDef(
        "concatenate",
        "joins tensors along an axis",
        _concatenate_infer,
        lambda attrs, *xs: np.concatenate(xs, attrs["axis"]),
        linear_jvp("concatenate", _all_operands),
        _concatenate_transpose,
        _all_operands,
        ALL,
        samples=(Sample((M, [[7.0, 8.0, 9.0]]), {"axis": 0}), Sample((M, M, M), {"axis": 1})),
    )
)
