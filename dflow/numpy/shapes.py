"""Rearranging: reshape, transpose, broadcast, squeeze, flip, roll, and the reading of diagonals and triangles.

Where NumPy gives a view (reshape, transpose, squeeze, flip, ...) so do these: what is written to it reaches the array.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from dflow.errors import TraceError, failure
from dflow.ir.core import Value
from dflow.ir.types import Dim, Size
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.layouts import ordered
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


@implements(np.reshape)
def reshape(a: Any, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None) -> Array:
    x = lift(a).copy() if copy else lift(a)
    wanted = shape if newshape is None else newshape
    target = resolve_shape(s.dims(x), wanted if isinstance(wanted, tuple | list) else (wanted,))
    if order in ("K", "k"):
        raise ValueError("order 'K' is not permitted for reshaping")
    if _in_memory(x, "reshape", order) == "F":
        new = reverse_axes(reverse_axes(x).reshaped_view(target[::-1]))
    else:
        new = x.reshaped_view(target)
    if copy is False and new.cell is not x.cell:
        raise ValueError("Unable to avoid creating a copy while reshaping.")
    return new


def as_dim(d: Any) -> Dim:
    """A size that a user gave: an int, or a traced one, which must have a bound."""
    if isinstance(d, Array):
        if d.ndim or d.dtype.kind not in "iu":
            raise TypeError(f"only integers can be sizes, got {d!r}")
        return sizes.given(d)
    return d if isinstance(d, Size) else s.static_int(d, "a size")


def resolve_shape(shape: s.Shape, target: Sequence[Any]) -> Any:
    """The target of a reshape, its -1 replaced by what is left. Raises ValueError as NumPy does."""
    moving = [d for d in shape if isinstance(d, Size)]
    wanted = [next((m for m in moving if sizes.same(m, d)), d) for d in map(as_dim, target)]
    known = math.prod(d for d in shape if isinstance(d, int))
    if wanted.count(-1) > 1:
        raise ValueError("can only specify one unknown dimension")
    if -1 in wanted:
        left = moving[:]
        for d in wanted:
            if d in left:
                left.remove(d)
        rest = math.prod(d for d in wanted if isinstance(d, int) and d != -1)
        if left and rest == known and len(left) == 1:
            fill: Dim = left[0]
        elif not left and rest and known % rest == 0:
            fill = known // rest
        else:
            raise _cannot_reshape(shape, wanted)
        wanted[wanted.index(-1)] = fill
    counts = [d for d in wanted if isinstance(d, int)]
    if math.prod(counts) != known or [d for d in wanted if isinstance(d, Size)] != moving or any(d < 0 for d in counts):
        raise _cannot_reshape(shape, wanted)
    return tuple(wanted)


def _cannot_reshape(shape: s.Shape, wanted: Sequence[Any]) -> ValueError:
    size = math.prod(shape) if all(isinstance(d, int) for d in shape) else "unknown"  # type: ignore[arg-type]
    return ValueError(f"cannot reshape array of size {size} and shape {s.show(shape)} into shape {s.show(wanted)}")


def _in_memory(x: Array, name: str, order: str) -> str:
    """``order`` as ``"C"`` or ``"F"``: "A" and "K" go by how the array lies in memory."""
    order = order.upper()
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"np.{name}: order must be one of 'C', 'F', 'A', or 'K' (got {order!r})")
    if order in ("C", "F") or x.ndim < 2 or x.is_contiguous():
        return "F" if order == "F" else "C"
    found: str | None = x.memory_order()
    if found is not None and order == "A":
        return "F" if x.is_contiguous("F") else "C"
    if found is None or found == "mixed":
        raise failure(
            TraceError,
            f"np.{name} with order={order!r} goes by how the array lies in memory, which is not known for certain",
            mend="write order='C' or order='F'",
        )
    return found


def permuted(x: Array, perm: Sequence[int]) -> Array:
    """The view with the axes in another order."""
    return x if list(perm) == list(range(x.ndim)) else x.transposed_view(tuple(perm))


def reverse_axes(x: Array) -> Array:
    return permuted(x, range(x.ndim)[::-1])


@implements(np.ravel)
def ravel(a: Any, order: str = "C") -> Array:
    x = lift(a)
    x = reverse_axes(x) if _in_memory(x, "ravel", order) == "F" else x
    shape = resolve_shape(s.dims(x), (-1,)) if 0 not in s.dims(x) else (0,)
    if x.is_contiguous():
        return x.reshaped_view(shape)
    flat = s.reshaped(x.value, shape)
    return wrap(flat) if ordered(x.cell) else x.copied_part(flat)


def flat(v: Value) -> Value:
    return s.reshaped(v, resolve_shape(v.type.shape, (-1,)) if 0 not in v.type.shape else (0,))


@implements(np.transpose)
def transpose(a: Any, axes: Any = None) -> Array:
    x = lift(a)
    if axes is None:
        return reverse_axes(x)
    if len(axes) != x.ndim:
        raise ValueError(f"axes don't match array: axes {tuple(axes)}, shape {s.show(s.dims(x))}")
    return permuted(x, normalize_axis_tuple(axes, x.ndim))


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Array:
    if lift(x).ndim < 2:
        raise ValueError(f"Input array must be at least 2-dimensional, but it is {lift(x).ndim}")
    return swapaxes.__wrapped__(x, -1, -2)


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Array:
    x = lift(a)
    perm = list(range(x.ndim))
    i, j = s.one_axis(axis1, x.ndim), s.one_axis(axis2, x.ndim)
    perm[i], perm[j] = j, i
    return permuted(x, perm)


@implements(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Array:
    x = lift(a)
    rank = x.ndim
    old, new = normalize_axis_tuple(source, rank, "source"), normalize_axis_tuple(destination, rank, "destination")
    if len(old) != len(new):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    perm = [k for k in range(rank) if k not in old]
    for at, axis in sorted(zip(new, old)):
        perm.insert(at, axis)
    return permuted(x, perm)


@implements(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Array:
    x = lift(a)
    sizes = np.rollaxis(np.broadcast_to(0, range(1, x.ndim + 1)), axis, start).shape  # every axis known by its size
    return permuted(x, [k - 1 for k in sizes])


@implements(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Array:
    x = lift(a)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    rank = x.ndim + len(axes)
    new, rest = normalize_axis_tuple(axes, rank), iter(s.dims(x))
    return x.reshaped_view(tuple(1 if k in new else next(rest) for k in range(rank)))


@implements(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Array:
    x = lift(a)
    shape = s.dims(x)
    axes = [k for k, d in enumerate(shape) if d == 1] if axis is None else normalize_axis_tuple(axis, len(shape))
    if any(shape[k] != 1 for k in axes):
        raise ValueError(
            f"cannot select an axis to squeeze out which has size not equal to one: axis {axis}, shape {s.show(shape)}"
        )
    return x.reshaped_view(tuple(d for k, d in enumerate(shape) if k not in axes))


@implements(np.broadcast_to)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Array:
    target = tuple(map(as_dim, shape if isinstance(shape, tuple | list) else (shape,)))
    if any(isinstance(d, int) and d < 0 for d in target):
        raise ValueError("all elements of broadcast shape must be non-negative")
    return wrap(s.expand(lift(array).value, target))


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Array, ...]:
    return tuple(map(wrap, s.broadcast(*(lift(a).value for a in args))))


def _at_least(place: Any) -> Any:
    def call(*arys: Any) -> Any:
        out = tuple(x.reshaped_view(place(s.dims(x))) for x in map(lift, arys))
        return out[0] if len(out) == 1 else out

    return call


def two_dimensional(shape: s.Shape) -> Any:
    return (*(1,) * (2 - len(shape)), *shape)


def _three_dimensional(shape: s.Shape) -> s.Shape:
    return (*two_dimensional(shape), 1) if len(shape) < 3 else shape


atleast_1d = implements(np.atleast_1d)(_at_least(lambda shape: shape or (1,)))
atleast_2d = implements(np.atleast_2d)(_at_least(two_dimensional))
atleast_3d = implements(np.atleast_3d)(_at_least(_three_dimensional))


# -- reversing and rotating ------------------------------------------------------------------------------------------


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Array:
    x = lift(m)
    axes = s.some_axes(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if k in axes else slice(None) for k in range(x.ndim))]


@implements(np.flipud)
def flipud(m: Any) -> Array:
    return flip.__wrapped__(m, 0)


@implements(np.fliplr)
def fliplr(m: Any) -> Array:
    return flip.__wrapped__(m, 1)


@implements(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Array:
    if len(axes) != 2:
        raise ValueError("len(axes) must be 2.")
    first, second = (s.one_axis(a, lift(m).ndim) for a in axes)
    if first == second:
        raise ValueError("Axes must be different.")
    turns = s.static_int(k, "k") % 4
    if turns in (0, 2):
        return flip.__wrapped__(m, (first, second)) if turns else lift(m)
    turned = swapaxes.__wrapped__(m, first, second)
    return flip.__wrapped__(turned, first if turns == 1 else second)


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Array:
    """The elements moved round by ``shift``, which may be traced."""
    x = lift(a)
    if axis is None:
        return wrap(s.reshaped(roll.__wrapped__(wrap(flat(x.value)), shift, 0).value, s.dims(x)))
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    shift = shift if isinstance(shift, tuple | list) else lift(shift)
    single = isinstance(shift, Array) and not shift.ndim
    shifts = [shift] * len(axes) if single else [lift(n) for n in shift]
    axes = axes * len(shifts) if len(axes) == 1 else axes
    v = x.value
    for n, k in zip(shifts, axes, strict=True):
        v = _roll(v, n, s.one_axis(k, v.type.rank))
    return wrap(v)


def _roll(v: Value, shift: Array, axis: int) -> Value:
    (size,) = s.static((v.type.shape[axis],), "np.roll")
    known = s.constant_of(shift.value)
    if known is None and size:
        place = (lift(np.arange(size)) - shift.reshape(()).astype(np.int64)) % size
        return lift(wrap(v)[(*(slice(None),) * axis, place)]).value
    by = operator.index(known) % size if size else 0
    return v if by == 0 else s.join([s.part(v, axis, size - by, by), s.part(v, axis, 0, size - by)], axis)


# -- triangles and diagonals -----------------------------------------------------------------------------------------


def _triangle(compare: str) -> Any:
    def call(m: Any, k: int = 0) -> Array:
        v, b = lift(m).value, builder()
        if v.type.rank == 1:  # NumPy repeats a vector as rows
            v = s.expand(v, (v.type.shape[0], *v.type.shape))
        shape, n = v.type.shape, v.type.rank
        if n < 2:
            raise ValueError(f"np.tril and np.triu need at least one axis, got shape {s.show(shape)}")
        rows, columns = s.counter(shape[-2:], 0), s.counter(shape[-2:], 1)
        inside = b.emit(compare, columns, b.add(rows, s.static_int(k, "k")))
        return wrap(b.select(s.expand(inside, shape), v, b.zeros(v.type)))

    return call


tril = implements(np.tril)(_triangle("le"))
triu = implements(np.triu)(_triangle("ge"))


def _diagonal_positions(shape: Sequence[Dim], offset: int) -> list[Value]:
    b, skipped = builder(), (max(-offset, 0), max(offset, 0))
    rows, columns = (sizes.minus(sizes.int_of(d), k) for d, k in zip(shape, skipped))
    count = sizes.dim(sizes.larger(sizes.smaller(rows, columns), 0))
    if isinstance(count, int):
        return [b.constant(np.arange(k, count + k)) for k in skipped]
    return [b.add(s.counter((count,), 0), s.full((count,), k, np.int64)) for k in skipped]


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    v, b = lift(a).value, builder()
    if v.type.rank < 2:
        raise ValueError(f"diag requires an array of at least two dimensions, got shape {s.show(v.type.shape)}")
    i, j = s.one_axis(axis1, v.type.rank), s.one_axis(axis2, v.type.rank)
    rest = [k for k in range(v.type.rank) if k not in (i, j)]
    places = _diagonal_positions((v.type.shape[i], v.type.shape[j]), s.static_int(offset, "offset"))
    taken = b.gather(s.transposed(v, [i, j, *rest]), *places)
    return wrap(s.transposed(taken, [*range(1, taken.type.rank), 0]))


@implements(np.linalg.diagonal)
def matrix_diagonal(x: Any, /, *, offset: int = 0) -> Array:
    return diagonal.__wrapped__(x, offset, -2, -1)


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Array:
    x, k, b = lift(v).value, s.static_int(k, "k"), builder()
    if x.type.rank == 2:
        return diagonal.__wrapped__(v, k)
    if x.type.rank != 1:
        raise ValueError(f"Input must be 1- or 2-d, got shape {s.show(x.type.shape)}")
    n = sizes.dim(sizes.plus(sizes.int_of(x.type.shape[0]), abs(k)))
    places = _diagonal_positions((n, n), k)
    return wrap(b.scatter(b.zeros(x.type.with_shape((n, n))), sizes.recast(x, places[0].type.shape), *places))


@implements(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Array:
    return diag.__wrapped__(wrap(flat(lift(v).value)), k)


def _diagonal_places(shape: tuple[int, ...], wrap: bool) -> tuple[np.ndarray[Any, Any], ...]:
    if len(shape) > 2 or not wrap:
        return (np.arange(min(shape)),) * len(shape)
    return np.unravel_index(np.arange(0, math.prod(shape), shape[1] + 1), shape)  # another diagonal below a free row


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    x, b = lift(a), builder()
    shape = s.static(s.dims(x), "np.fill_diagonal")
    if len(shape) < 2:
        raise ValueError("array must be at least 2-d")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise ValueError("All dimensions of input must be of equal length")
    places = [b.constant(np.ascontiguousarray(k)) for k in _diagonal_places(shape, wrap)]
    count = places[0].type.shape[0]
    values = s.expand(s.cast_operand(lift(val), x.dtype), (count,))
    s.store(a, b.scatter(x.value, values, *places))
