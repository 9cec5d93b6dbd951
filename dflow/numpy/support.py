"""Values of the IR under NumPy's rules: dtypes, broadcasting, axes. What the other modules here are written with."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from dflow.errors import NeedsStatic, failure
from dflow.ir.core import Value
from dflow.ir.types import Dim, TensorType, dtype_of, kind_of
from dflow.tracing.arrays import dtypes, sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced, lift, wrap
from dflow.tracing.context import builder
from dflow.tracing.lists import earlier

Shape = tuple[Dim, ...]


def listed(items: Any) -> list[Any]:
    """Arrays to be put together, as a list."""
    earlier.refuse(items)
    return list(items)


def rank(x: Any) -> int:
    """``np.ndim``, also of a nested sequence with traced numbers."""
    return lift(x).ndim if isinstance(x, list | tuple) and contains_traced(x) else np.ndim(x)


def dims(x: Any) -> Shape:
    """The shape as the IR has it: sizes that are known when the program runs stand in it as ``Size``."""
    return (x if isinstance(x, Value | Array) else lift(x)).type.shape


def size_of(shape: Iterable[Dim]) -> Value:
    """The number of elements, as an index value."""
    return builder().index(sizes.count(tuple(shape)))


FULL_SIZE = "keep arrays in their full size, with zeros for what does not count: np.where(mask, x, 0.0)"


def static(shape: Iterable[Dim], what: str, mend: str = FULL_SIZE) -> tuple[int, ...]:
    """The shape as ints; TypeError when a size is only known at run time."""
    shape = tuple(shape)
    if not all(isinstance(d, int) for d in shape):
        raise failure(
            NeedsStatic,
            f"{what} needs sizes that are known while tracing",
            seen=f"shape {show(shape)}",
            mend=mend,
        )
    return shape  # type: ignore[return-value]


def static_int(x: Any, what: str) -> int:
    """A Python int; TypeError when it is traced."""
    if isinstance(x, Array):
        c = constant_of(x.value)
        if c is None:
            raise failure(NeedsStatic, f"{what} must be known when the function is compiled", seen=repr(x))
        x = c
    return operator.index(x)


show = sizes.show


# -- dtypes ----------------------------------------------------------------------------------------------------------


def weak_or_dtype(x: Any) -> Any:
    """What NumPy's promotion takes: the Python type of a weak number, the dtype of anything else."""
    x = lift(x)
    if x.weak and x.dtype.kind in "ifc":
        return {"i": int, "f": float, "c": complex}[kind_of(x.dtype)]
    return x.dtype


def result_type(*args: Any) -> np.dtype[Any]:
    """``np.result_type`` of arrays, numbers and dtypes; traced Python numbers are weak, as Python's are."""
    sample = {int: 0, float: 0.0, complex: 0j}
    kinds = [
        weak_or_dtype(a) if isinstance(a, Array | np.ndarray | int | float | complex) else np.dtype(a) for a in args
    ]
    return dtypes.result_type(*(sample.get(k, k) for k in kinds))


def cast(v: Value, dtype: Any) -> Value:
    """``v`` with another dtype; scalar constants are folded."""
    d = dtype_of(dtype)
    if v.type.dtype == d:
        return v
    if v.op is not None and v.op.name == "constant" and v.type.is_scalar:
        with np.errstate(all="ignore"):
            return builder().constant(np.asarray(v.op.attrs["value"]).astype(d.numpy), d)
    return builder().convert(v, dtype=d)


def cast_operand(x: Array, dtype: Any) -> Value:
    """An operand in the dtype of its operation; OverflowError for a Python integer that does not fit."""
    c = constant_of(x.value) if x.weak and x.dtype.kind == "i" and np.dtype(dtype).kind in "iu" else None
    if c is not None:
        np.asarray(int(c), dtype)
    return cast(x.value, dtype)


def as_dtype(x: Any, dtype: Any) -> Array:
    return wrap(cast(lift(x).value, dtype))


def whole(x: Any, message: str = "Cannot cast array data from {} to int64 according to the rule 'safe'") -> Array:
    """``x`` as an array of integers; TypeError where it has other numbers."""
    x = lift(x)
    if x.dtype.kind not in "biu":
        raise TypeError(message.format(x.dtype))
    return x


def constant_of(v: Value) -> Any:
    """The number that ``v`` is in every element, where it is a constant; otherwise None."""
    while v.op is not None and v.op.name in ("broadcast", "reshape", "convert"):
        if v.op.name == "convert" and v.type.dtype.kind != v.op.operands[0].type.dtype.kind:
            return None
        v = v.op.operands[0]
    if v.op is None or v.op.name != "constant" or not v.type.is_scalar:
        return None
    return v.op.attrs["value"]


# -- shapes ----------------------------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape, or ValueError as NumPy has it."""
    found = sizes.joint(*shapes)
    if found is None:
        raise ValueError(f"operands could not be broadcast together with shapes {' '.join(map(show, shapes))}")
    return found


def expand(v: Value, shape: Shape) -> Value:
    """``v`` broadcast to ``shape``: new axes in front, axes of size 1 repeated."""
    found = sizes.spread(v, shape)
    if found is None:
        raise ValueError(f"could not broadcast input array from shape {show(v.type.shape)} into shape {show(shape)}")
    return found


def same_shape(shape: Shape, other: Shape) -> bool:
    """Whether two shapes are equal; what is not known is checked when the program runs."""
    return len(shape) == len(other) and all(sizes.agreed(a, b) is not None for a, b in zip(shape, other))


def broadcast(*values: Value) -> list[Value]:
    shape = broadcast_shapes(*(v.type.shape for v in values))
    return [expand(v, shape) for v in values]


def reshaped(v: Value, shape: Shape) -> Value:
    return v if v.type.shape == tuple(shape) else builder().reshape(v, shape=tuple(shape))


def transposed(v: Value, perm: Sequence[int]) -> Value:
    return v if list(perm) == list(range(v.type.rank)) else builder().transpose(v, perm=tuple(perm))


def one_axis(axis: Any, rank: int) -> int:
    return int(normalize_axis_index(static_int(axis, "axis"), rank))


def some_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """``axis`` of a reduction as sorted positions; None is all of them."""
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(normalize_axis_tuple(axis, rank)))


def part(v: Value, axis: int, start: int | Value, size: Dim | None = None, step: int = 1) -> Value:
    """``size`` positions along an axis from ``start`` on; one position, and the axis goes, without ``size``."""
    entry = "at" if size is None else ("slice", size, step)
    index = tuple(entry if k == axis else "all" for k in range(v.type.rank))
    b = builder()
    return b.extract(v, b.index(start), index=index)


def join(values: Sequence[Value], axis: int) -> Value:
    """The values, equal in the other sizes, one behind the other along ``axis``."""
    rest = values[0].type.shape
    values = [sizes.recast(v, (*rest[:axis], v.type.shape[axis], *rest[axis + 1 :])) for v in values]
    values = [v for v in values if v.type.shape[axis] != 0] or list(values[:1])
    if len(values) == 1:
        return values[0]
    if all(isinstance(v.type.shape[axis], int) for v in values):
        return builder().emit("concatenate", *values, axis=axis)
    return _joined_in_place(values, axis)


def _joined_in_place(values: Sequence[Value], axis: int) -> Value:
    """Sizes that depend on the run: each is written where the one before ends."""
    b, first = builder(), values[0].type
    starts: list[Any] = [0]
    for v in values:
        starts.append(sizes.plus(starts[-1], sizes.int_of(v.type.shape[axis])))
    total = sizes.dim(starts[-1])
    out = b.zeros(first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :])))
    for v, start in zip(values, starts):
        index = tuple(("slice", v.type.shape[axis], 1) if k == axis else "all" for k in range(first.rank))
        out = b.update(out, v, b.index(start), index=index)
    return out


def counter(shape: Shape, axis: int) -> Value:
    """The position along ``axis``, for every element of ``shape``."""
    b = builder()
    return b.broadcast(b.iota(size=shape[axis]), shape=tuple(shape), dims=(axis,))


def full(shape: Shape, number: Any, dtype: Any) -> Value:
    return builder().full(number, TensorType(dtype_of(dtype), tuple(shape)))


def store(out: Any, v: Value) -> Array:
    """Writes a result into ``out=``, as NumPy casts and broadcasts it."""
    if isinstance(out, tuple) and len(out) == 1:
        (out,) = out
    if not isinstance(out, Array):
        raise TypeError(f"out must be an array of the traced function, not {type(out).__name__}")
    if not same_shape(dims(out), sizes.joint(dims(out), v.type.shape) or ()):
        raise ValueError(f"output array has shape {show(dims(out))}, the result has shape {show(v.type.shape)}")
    out[...] = wrap(cast_to(v, out.dtype))
    return out


def cast_to(v: Value, dtype: Any) -> Value:
    """``v`` as a ufunc writes it to an array of ``dtype``. Raises TypeError where NumPy does not cast."""
    if not dtypes.can_cast(v.type.dtype.numpy, dtype, "same_kind"):
        raise TypeError(f"Cannot cast output from {v.type.dtype.numpy} to {dtype} with casting rule 'same_kind'")
    return cast(v, dtype)


def result(v: Value, out: Any = None) -> Array:
    return wrap(v) if out is None else store(out, v)
