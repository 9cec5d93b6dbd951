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
from dflow.numpy.sorting import axis_last, order, sorted_last
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

MANY = 1 << 14  # elements that are parted sooner than sorted
NARROW = 4  # bytes of elements that are sorted sooner than parted


def positions(v: Value, ranks: Value) -> Value:
    """Those of the elements that have some ranks in that order, along the last axis; of real numbers."""
    return builder().ranked(s.cast(v, np.uint8) if v.type.dtype.kind == "b" else v, ranks)


@implements(np.partition)
def partition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Array:
    """The elements in order, which is a partition about every position; many long ones are parted about one."""
    _check_kth(kth, a, axis)
    x, at = axis_last(a, axis)
    long = x.dtype.itemsize > NARROW and _only_rank(x, kth) is not None
    rows = take_along_axis.__wrapped__(x, _parted(x, kth), -1) if long else sorted_last(x)
    return moveaxis.__wrapped__(rows, -1, at)


@implements(np.argpartition)
def argpartition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Array:
    _check_kth(kth, a, axis)
    x, at = axis_last(a, axis)
    return moveaxis.__wrapped__(_parted(x, kth), -1, at)


def _parted(x: Array, kth: Any) -> Array:
    """The positions along the last axis of what comes before the element of one rank, of that, and of the rest; of
    few elements, and for several ranks, the order."""
    b, (*batch, size), rank = builder(), s.static(s.dims(x), "np.partition"), _only_rank(x, kth)
    if rank is None:
        return wrap(order(x.value))
    here = np.arange(size)
    middle = wrap(positions(x.value, s.full((*batch, 1), rank, np.int64)))
    pivot = take_along_axis.__wrapped__(x, middle, -1)
    before, alike = x < pivot, x == pivot
    if kind_of(x.dtype) == "f":
        before, alike = before | (np.isnan(pivot) & ~np.isnan(x)), alike | (np.isnan(pivot) & np.isnan(x))
    before = before | (alike & (here < middle))
    count = np.cumsum(before, axis=-1)
    place = np.where(before, count - 1, np.where(here == middle, rank, rank + here - count + (here < middle)))
    shape = (*batch, size)
    rows = [b.broadcast(b.iota(size=n), shape=shape, dims=(k,)) for k, n in enumerate(shape)]
    return wrap(b.scatter(s.full(shape, 0, np.int64), rows[-1], *rows[:-1], lift(place).value))


def _only_rank(x: Array, kth: Any) -> int | None:
    """The rank, if it is one and of so many numbers that they are parted about it."""
    size = s.static(s.dims(x), "np.partition")[-1]
    ranks = {s.static_int(k, "kth") % max(size, 1) for k in np.ravel(kth)}
    return None if len(ranks) != 1 or size < MANY or kind_of(x.dtype) == "c" else ranks.pop()


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
    places = wrap(positions(moved.value, lift(ranks).value) if is_real else order(moved.value))
    if not is_real:
        places = places[..., ::-1][..., :count] if largest else places[..., :count]
    values = take_along_axis.__wrapped__(moved, places, -1)
    return moveaxis.__wrapped__(values, -1, at), moveaxis.__wrapped__(places, -1, at)
