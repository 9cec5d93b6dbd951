"""Sorting and what comes down to it: partitions, ranks, distinct elements, membership.

One operation of the IR gives the order along the last axis (stable, NaN last, as NumPy has it), another the sorted
numbers. Everything else gathers by the order, so the derivative of sorted values goes to the elements that they were.
Where the size of a result depends on the data, it is known when the program runs; or ``size`` says how many elements
it gets: surplus ones are dropped, missing ones filled with ``fill_value``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.joining import take_along_axis
from dflow.numpy.shapes import flat, moveaxis
from dflow.tracing.arrays import masks
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


FEW = 64  # elements that others are compared with one by one
SIZED = ("size", "fill_value")  # what NumPy's functions do not take


def order(v: Value) -> Value:
    """The positions along the last axis in sorted order."""
    if v.type.dtype.kind == "b":
        v = s.cast(v, np.uint8)
    if v.type.dtype.kind == "c":
        return _lexicographic([wrap(v).imag.value, wrap(v).real.value, missing_parts(v)])
    return builder().argsort(v)


def missing_parts(v: Value) -> Value:
    """Which parts of complex numbers are NaN, as NumPy sorts them: 0 neither, 1 the imaginary, 2 the real, 3 both."""
    z = wrap(v)
    return (np.isnan(z.real) * np.uint8(2) + np.isnan(z.imag)).value


def _lexicographic(keys: Sequence[Value]) -> Value:
    """The order by the last key; equal ones by the one before it, and so on: stable sorts, one key after the other."""
    first, *rest = keys
    found = wrap(order(first))
    for key in rest:
        found = np.take_along_axis(found, wrap(order(np.take_along_axis(wrap(key), found, -1).value)), -1)
    return found.value


def axis_last(a: Any, axis: Any) -> tuple[Array, int]:
    x = lift(a)
    if axis is None:
        return wrap(flat(x.value)), 0
    at = s.one_axis(axis, x.ndim)
    return moveaxis.__wrapped__(x, at, -1), at


def _known_kind(kind: Any) -> None:
    if kind is not None and (not isinstance(kind, str) or kind[:1].lower() not in ("q", "m", "h", "s")):
        raise ValueError(f"sort kind must be one of 'quicksort', 'heapsort', 'mergesort' or 'stable', got {kind!r}")


@implements(np.argsort, extra=("descending",))
def argsort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False
) -> Array:
    """The positions that sort ``a``, equal elements in their own order."""
    _known_kind(kind)
    x, at = axis_last(a, axis)
    return moveaxis.__wrapped__(wrap(_falling(x.value) if descending else _order(x.value)), -1, at)


def _falling(v: Value) -> Value:
    """The order from the largest element down: that of the reversed row, reversed."""
    (size,) = s.static(v.type.shape[-1:], "sorting in falling order")
    found = order(wrap(v)[..., ::-1].value)
    return (size - 1 - wrap(found))[..., ::-1].value


_order = order  # NumPy's functions have an argument of this name


@implements(np.sort, extra=("descending",))
def sort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False
) -> Array:
    """The elements of ``a`` along an axis in order. The derivative follows each element to its place."""
    _known_kind(kind)
    x, at = axis_last(a, axis)
    rows = sorted_last(x)
    return moveaxis.__wrapped__(rows[..., ::-1] if descending else rows, -1, at)


def sorted_last(x: Array) -> Array:
    if x.dtype.kind in "bc":
        return take_along_axis.__wrapped__(x, wrap(order(x.value)), -1)
    return wrap(builder().sort(x.value))


@implements(np.sort_complex)
def sort_complex(a: Any) -> Array:
    x = sort.__wrapped__(a)
    narrow = x.dtype.kind in "biu" and x.dtype.itemsize < 4
    return s.as_dtype(x, np.complex64 if narrow else np.result_type(x.dtype, np.complex64))


@implements(np.lexsort)
def lexsort(keys: Any, axis: int = -1) -> Array:
    """The order by the last of the keys, then by the one before it, and so on."""
    values = [moveaxis.__wrapped__(lift(k), axis, -1).value if lift(k).ndim else lift(k).value for k in keys]
    if not values:
        raise TypeError("need sequence of keys with len > 0 in lexsort")
    if not values[0].type.rank:
        return wrap(s.full((), 0, np.int64))
    return moveaxis.__wrapped__(wrap(_lexicographic(s.broadcast(*values))), -1, axis)


# -- places of known number ------------------------------------------------------------------------------------------


def places(mask: Value, size: int) -> tuple[Value, Value]:
    """The positions of the first ``size`` true elements of a vector in order, and which of them exist."""
    b = builder()
    (n,) = s.static(mask.type.shape, "a selection of known size")
    found = order(b.not_(mask))
    found = s.part(found, 0, 0, size) if size <= n else s.join([found, s.full((size - n,), 0, np.int64)], 0)
    count = b.reduce(s.cast(mask, np.int64), kind="sum", axes=(0,))
    return found, b.lt(b.iota(size=size), b.broadcast_scalar(count, (size,)))


def filled(v: Value, exists: Value, fill: Any) -> Array:
    """``v`` along its first axis, ``fill`` (0 if that is None) where nothing exists."""
    fill = 0 if fill is None else fill
    mask = builder().broadcast(exists, shape=v.type.shape, dims=(0,))
    return wrap(builder().select(mask, v, s.expand(s.cast(lift(fill).value, v.type.dtype), v.type.shape)))


@implements(np.flatnonzero, extra=SIZED)
def flatnonzero(a: Any, *, size: Any = None, fill_value: Any = 0) -> Array:
    """The positions of what is not zero: as many as there are when the program runs, or the first ``size`` ones."""
    if size is None:
        return wrap(masks.nonzero(s.cast(flat(lift(a).value), bool))[0].value)
    count = s.static_int(size, "size")
    found, exists = places(s.cast(flat(lift(a).value), bool), count)
    return filled(found, exists, fill_value)


@implements(np.nonzero, extra=SIZED)
def nonzero(a: Any, *, size: Any = None, fill_value: Any = 0) -> tuple[Array, ...]:
    x = lift(a)
    if not x.ndim:
        raise ValueError("Calling nonzero on 0d arrays is not allowed. Use np.atleast_1d(scalar).nonzero() instead.")
    if size is None:
        return tuple(masks.nonzero(s.cast(x.value, bool)))
    count = s.static_int(size, "size")
    found, exists = places(s.cast(flat(x.value), bool), count)
    fills = fill_value if isinstance(fill_value, tuple | list) else [fill_value] * x.ndim
    dims = s.static(s.dims(x), "np.nonzero")
    indices = np.unravel_index(wrap(found), dims) if 0 not in dims else [wrap(found)] * x.ndim
    return tuple(filled(i.value, exists, f) for i, f in zip(indices, fills))


@implements(np.argwhere, extra=SIZED)
def argwhere(a: Any, *, size: Any = None, fill_value: Any = 0) -> Array:
    if not s.rank(a):  # one place without coordinates, or none
        return argwhere.__wrapped__(np.reshape(lift(a), (1,)), size=size, fill_value=fill_value)[:, :0]
    return np.stack(nonzero.__wrapped__(a, size=size, fill_value=fill_value), -1)


@implements(np.compress, extra=SIZED)
def compress(
    condition: Any, a: Any, axis: Any = None, out: Any = None, *, size: Any = None, fill_value: Any = 0
) -> Array:
    """The slices of ``a`` where a condition holds, all of them or the first ``size`` ones."""
    x = lift(a)
    x, at = (wrap(flat(x.value)), 0) if axis is None else (x, s.one_axis(axis, x.ndim))
    if not isinstance(condition, Array) or size is None:
        return s.result(np.take(x, np.flatnonzero(condition), at).value, out)
    found, exists = places(s.cast(condition.value, bool), s.static_int(size, "size"))
    rows = moveaxis.__wrapped__(x, at, 0)
    rows = rows[wrap(found)] if rows.shape[0] else wrap(s.full((size, *rows.shape[1:]), 0, x.dtype))
    return s.result(moveaxis.__wrapped__(filled(rows.value, exists, fill_value), 0, at).value, out)


@implements(np.extract, extra=SIZED)
def extract(condition: Any, arr: Any, *, size: Any = None, fill_value: Any = 0) -> Array:
    flat_condition = wrap(flat(condition.value)) if isinstance(condition, Array) else np.ravel(condition)
    return compress.__wrapped__(flat_condition, wrap(flat(lift(arr).value)), size=size, fill_value=fill_value)


# -- distinct elements -----------------------------------------------------------------------------------------------


class Distinct(NamedTuple):
    """What is known of the distinct elements of a vector."""

    values: Array
    indices: Array
    inverse: Array
    counts: Array


def distinct(x: Array, size: Any, fill: Any, equal_nan: bool) -> Distinct:
    """The distinct elements in order (all, or the first ``size`` ones), where each is met first, which one each element
    is, how often."""
    v, b = flat(x.value), builder()
    (n,) = s.static(v.type.shape, "np.unique")
    sorter = order(v)
    ordered = b.gather(v, sorter)
    starts = beginnings(ordered, n, equal_nan)
    group = b.sub(np.cumsum(wrap(s.cast(starts, np.int64))).value, 1)
    inverse = wrap(b.scatter(b.zeros(group.type), group, sorter))
    if size is None:
        heads = masks.nonzero(starts)[0].value
        counts = b.scatter_add(s.full((n,), 0, np.int64), s.full((n,), 1, np.int64), inverse.value)
        counts = s.part(counts, 0, 0, heads.type.shape[0])
        return Distinct(
            wrap(b.gather(ordered, heads)), wrap(b.gather(sorter, heads)), inverse.reshape(x.shape), wrap(counts)
        )
    size = s.static_int(size, "size")
    heads, exists = places(starts, size)
    values, indices = b.gather(ordered, heads), b.gather(sorter, heads)
    fill = wrap(s.part(ordered, 0, 0)) if fill is None and n else 0 if fill is None else fill
    counts = b.scatter_add(s.full((max(size, n),), 0, np.int64), s.full((n,), 1, np.int64), inverse.value)
    return Distinct(
        filled(values, exists, fill),
        filled(indices, exists, 0),
        inverse.reshape(x.shape),
        wrap(s.part(counts, 0, 0, size)),
    )


def beginnings(ordered: Value, n: int, equal_nan: bool) -> Value:
    """Where in a sorted vector another element begins."""
    b, mask = builder(), ordered.type.with_dtype(s.dtype_of(bool))
    if n < 2:
        return b.full(True, mask)
    later, earlier = wrap(s.part(ordered, 0, 1, n - 1)), wrap(s.part(ordered, 0, 0, n - 1))
    differ = later != earlier
    if equal_nan and ordered.type.dtype.is_inexact:
        differ = differ & ~(np.isnan(later) & np.isnan(earlier))
    return s.join([b.full(True, mask.with_shape((1,))), differ.value], 0)


@implements(np.unique, extra=SIZED)
def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    *,
    equal_nan: bool = True,
    sorted: bool = True,
    size: Any = None,
    fill_value: Any = None,
) -> Any:
    """The distinct elements in order; or ``size`` of them, missing ones being ``fill_value`` (else the smallest)."""
    x = lift(ar)
    at = None if axis is None else s.one_axis(axis, x.ndim)
    if at is not None and x.ndim != 1:
        found = _distinct_slices(x, at, size, fill_value)
    else:
        found = distinct(x, size, fill_value, equal_nan)
    wanted = [found.values]
    wanted += [found.indices] * return_index + [found.inverse] * return_inverse + [found.counts] * return_counts
    return wanted[0] if len(wanted) == 1 else tuple(wanted)


def _distinct_slices(x: Array, axis: int, size: Any, fill: Any) -> Distinct:
    """The distinct slices along an axis, in the order of their elements. The slices are numbered in that order, equal
    ones alike; the distinct numbers tell the distinct slices."""
    n = x.shape[axis]
    flat_slices = np.moveaxis(x, axis, 0).reshape(n, math.prod(x.shape[:axis] + x.shape[axis + 1 :]))
    rank = np.zeros(n, np.int64)
    for k in range(flat_slices.shape[1]):  # the number by the first k columns, refined by the next
        rank = _dense(rank * n + _dense(flat_slices[:, k]))
    found = distinct(lift(rank), size, None, False)
    values = np.take(x, found.indices, axis)
    if size is not None and fill is not None:
        exists = np.arange(found.values.shape[0]) <= np.max(rank)
        shaped = exists.reshape([-1 if k == axis else 1 for k in range(x.ndim)])
        values = np.where(shaped, values, s.as_dtype(lift(fill), x.dtype))
    return found._replace(values=values)


def _dense(v: Array) -> Array:
    """The number of each element among the distinct ones, in order."""
    return distinct(v, v.shape[0], None, True).inverse


class UniqueAll(NamedTuple):
    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


class UniqueCounts(NamedTuple):
    values: Array
    counts: Array


class UniqueInverse(NamedTuple):
    values: Array
    inverse_indices: Array


@implements(np.unique_all, extra=SIZED)
def unique_all(x: Any, *, size: Any = None, fill_value: Any = None) -> UniqueAll:
    return UniqueAll(*distinct(lift(x), size, fill_value, False))


@implements(np.unique_counts, extra=SIZED)
def unique_counts(x: Any, *, size: Any = None, fill_value: Any = None) -> UniqueCounts:
    found = distinct(lift(x), size, fill_value, False)
    return UniqueCounts(found.values, found.counts)


@implements(np.unique_inverse, extra=SIZED)
def unique_inverse(x: Any, *, size: Any = None, fill_value: Any = None) -> UniqueInverse:
    found = distinct(lift(x), size, fill_value, False)
    return UniqueInverse(found.values, found.inverse)


@implements(np.unique_values, extra=SIZED)
def unique_values(x: Any, *, size: Any = None, fill_value: Any = None) -> Array:
    return distinct(lift(x), size, fill_value, False).values


@implements(np.isin)
def isin(
    element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *, kind: Any = None
) -> Array:
    """Whether each element is among others: is compared with each of them, where they are few, or a search in these,
    sorted."""
    common = s.result_type(lift(element), lift(test_elements))
    x, others = (s.as_dtype(lift(a), common) for a in (element, test_elements))
    others = wrap(flat(others.value))
    if not others.size:
        found = wrap(s.full(s.dims(x), False, bool))
    elif isinstance(others.size, int) and others.size <= FEW:
        found = np.any(x[..., None] == others, -1)
    else:
        others = sorted_last(others)
        at = np.minimum(np.searchsorted(others, x), others.size - 1)
        found = others[at] == x
    return ~found if invert else found
