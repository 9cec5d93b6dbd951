"""Parts of an order: partitions, and the largest elements."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements, own
from dflow.numpy.joining import take_along_axis
from dflow.numpy.shapes import moveaxis
from dflow.numpy.sorting import axis_last, sorted_last
from dflow.numpy.sorting import order as in_order
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

MANY = 1 << 10  # elements that are sorted sooner than parted
FEW = 1 << 6  # the same where positions are wanted


def _numbers(v: Value) -> Value:
    return s.cast(v, np.uint8) if v.type.dtype.kind == "b" else v


def positions(v: Value, ranks: Value) -> Value:
    """Those of the elements that have some ranks in that order, along the last axis; of real numbers."""
    return builder().ranked(_numbers(v), ranks)


@implements(np.partition)
def partition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Array:
    """Few elements are brought in order, which is a partition about every position, and so they are for several."""
    _check_kth(kth, a, axis)
    x, at = axis_last(a, axis)
    rank = _only_rank(x, kth, MANY)
    if rank is None:
        rows = sorted_last(x)
    else:
        rows = s.as_dtype(wrap(builder().partition(_numbers(x.value), rank=rank)), x.dtype)
    return moveaxis.__wrapped__(rows, -1, at)


@implements(np.argpartition)
def argpartition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Array:
    _check_kth(kth, a, axis)
    x, at = axis_last(a, axis)
    rank = _only_rank(x, kth, FEW)
    places = in_order(x.value) if rank is None else builder().argpartition(_numbers(x.value), rank=rank)
    return moveaxis.__wrapped__(wrap(places), -1, at)


def _only_rank(x: Array, kth: Any, few: int) -> int | None:
    """The rank, if it is one, of more real numbers than a few."""
    size = s.static(s.dims(x), "np.partition")[-1]
    ranks = {s.static_int(k, "kth") % max(size, 1) for k in np.ravel(kth)}
    return None if len(ranks) != 1 or size <= few or kind_of(x.dtype) == "c" else ranks.pop()


def _check_kth(kth: Any, a: Any, axis: Any) -> None:
    x = lift(a)
    (size,) = s.static((x.size,) if axis is None else (s.dims(x)[s.one_axis(axis, x.ndim)],), "np.partition")
    for k in np.ravel(kth) if x.size != 0 else ():
        if not -size <= s.static_int(k, "kth") < size:
            raise ValueError(f"kth(={k}) out of bounds ({size})")


@own
def topk(x: Any, k: int, /, *, axis: int = -1, largest: bool = True) -> tuple[Array, Array]:
    """The ``k`` largest (or smallest) elements along an axis, in order, and their positions; NaN counts as largest."""
    moved, at = axis_last(x, axis)
    (size,) = s.static(s.dims(moved)[-1:], "topk")
    count = s.static_int(k, "k")
    if not 0 <= count <= size:
        raise ValueError(f"topk of {size} elements along the axis: k must be in 0..{size}, got {count}")
    ranks = np.arange(count)
    ranks = np.broadcast_to(lift(size - 1 - ranks if largest else ranks), (*s.dims(moved)[:-1], count))
    is_real = moved.dtype.kind != "c" and size
    places = wrap(positions(moved.value, lift(ranks).value) if is_real else in_order(moved.value))
    if not is_real:
        places = places[..., ::-1][..., :count] if largest else places[..., :count]
    values = take_along_axis.__wrapped__(moved, places, -1)
    return moveaxis.__wrapped__(values, -1, at), moveaxis.__wrapped__(places, -1, at)
