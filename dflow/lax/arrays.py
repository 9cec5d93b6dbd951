"""Functions of arrays by the names that they have in ``jax.lax`` alone: slices at traced places, selection, order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from dflow.numpy import topk
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import contains_traced, lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def _starts(x: Any, indices: Any, sizes: Sequence[int]) -> list[Any]:
    """The places where a part of these sizes begins, moved inside the array; negative ones count from the end."""
    if len(indices) != x.ndim or len(sizes) != x.ndim:
        raise ValueError(f"{len(indices)} indices and {len(sizes)} sizes for an array of {x.ndim} axes")
    found = []
    for i, size, whole in zip(indices, sizes, x.shape):
        if size > whole:
            raise ValueError(f"a part of size {size} of an axis of size {whole}")
        found.append(_moved_inside(i, whole, whole - size))
    return found


def _moved_inside(i: Any, whole: int, last: int) -> Any:
    if last == 0:  # the whole axis, whatever is asked for
        return 0
    if not contains_traced(i):
        return min(max(int(i) + (whole if i < 0 else 0), 0), last)
    return np.clip(np.where(i < 0, i + whole, i), 0, last)


@own
def dynamic_slice(operand: Any, start_indices: Any, slice_sizes: Sequence[int]) -> Any:
    """The part of these sizes that begins at ``start_indices``; one that would lie outside is moved inside."""
    x = lift(operand)
    starts = _starts(x, start_indices, slice_sizes)
    return x[tuple(slice(i, i + n) for i, n in zip(starts, slice_sizes))]


@own
def dynamic_update_slice(operand: Any, update: Any, start_indices: Any) -> Any:
    """A copy of ``operand`` with ``update`` in the place that begins at ``start_indices``, moved inside."""
    x, part = lift(operand).copy(), lift(update)
    starts = _starts(x, start_indices, part.shape)
    x[tuple(slice(i, i + n) for i, n in zip(starts, part.shape))] = part
    return x


@own
def dynamic_slice_in_dim(operand: Any, start_index: Any, slice_size: int, axis: int = 0) -> Any:
    """``dynamic_slice`` along one axis."""
    x = lift(operand)
    at = range(x.ndim)[axis]
    sizes = [slice_size if k == at else n for k, n in enumerate(x.shape)]
    return dynamic_slice.__wrapped__(x, [start_index if k == at else 0 for k in range(x.ndim)], sizes)


@own
def dynamic_index_in_dim(operand: Any, index: Any, axis: int = 0, keepdims: bool = True) -> Any:
    """One slice along an axis, which stays with size 1 unless ``keepdims`` is False."""
    part = dynamic_slice_in_dim.__wrapped__(operand, index, 1, axis)
    return part if keepdims else np.squeeze(part, axis)


@own
def dynamic_update_slice_in_dim(operand: Any, update: Any, start_index: Any, axis: int) -> Any:
    """``dynamic_update_slice`` along one axis."""
    x = lift(operand)
    at = range(x.ndim)[axis]
    return dynamic_update_slice.__wrapped__(x, update, [start_index if k == at else 0 for k in range(x.ndim)])


@own
def dynamic_update_index_in_dim(operand: Any, update: Any, index: Any, axis: int) -> Any:
    """A copy of ``operand`` with ``update`` as the slice at ``index`` along an axis."""
    x, part = lift(operand), lift(update)
    if part.ndim < x.ndim:
        part = np.expand_dims(part, axis)
    return dynamic_update_slice_in_dim.__wrapped__(x, part, index, axis)


@own
def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """``np.where``."""
    return np.where(lift(pred), on_true, on_false)


@own
def select_n(which: Any, *cases: Any) -> Any:
    """From each of ``cases`` the elements that ``which`` (bools, or integers) points to."""
    return np.choose(lift(which).astype(np.int64), cases, mode="clip")


@own
def clamp(min: Any, x: Any, max: Any) -> Any:
    """``x`` between ``min`` and ``max``."""
    return np.clip(lift(x), min, max)


@own
def rsqrt(x: Any) -> Any:
    """1 / sqrt(x)."""
    return 1.0 / np.sqrt(lift(x))


@own
def integer_pow(x: Any, y: int) -> Any:
    """``x ** y`` for an integer that is known."""
    return lift(x) ** y


@own
def top_k(operand: Any, k: int, *, axis: int = -1) -> Any:
    """The ``k`` largest elements along an axis, the largest first, and their positions; of equal ones the first."""
    moved = np.moveaxis(lift(operand), axis, -1)
    values, places = topk(moved[..., ::-1], k)  # which has the last of equal ones first
    return tuple(np.moveaxis(x, -1, axis) for x in (values, moved.shape[-1] - 1 - places))
