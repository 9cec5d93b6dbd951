"""Putting arrays together, taking them apart, repeating and selecting along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.shapes import atleast_1d, atleast_2d, atleast_3d, flat
from dflow.tracing.arrays import dtypes, sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder
from dflow.tracing.lists import earlier, rows


def promoted(arrays: Sequence[Any], dtype: Any = None, casting: Any = "same_kind") -> list[Value]:
    """Values of one dtype. Python numbers count as arrays here, as in ``np.array([1.0, x])``. Raises TypeError for a
    conversion that the rule ``casting`` does not allow."""
    lifted = [lift(a) for a in arrays]
    common = dtypes.result_type(*(x.dtype for x in lifted)) if dtype is None else np.dtype(dtype)
    for x in lifted:
        if not np.can_cast(x.dtype, common, casting):
            raise TypeError(f"Cannot cast array data from {x.dtype!r} to {common!r} according to the rule {casting!r}")
    return [s.cast(x.value, common) for x in lifted]


@implements(np.concatenate)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Array:
    arrays = s.listed(arrays)
    found = _rows(arrays, dtype, casting) if axis in (0, None) and arrays and s.rank(arrays[0]) else None
    if found is not None:
        n, m, *rest = found.type.static_shape
        return s.result(s.reshaped(found, (math.prod((n, m, *rest)),) if axis is None else (n * m, *rest)), out)
    values = promoted(arrays, dtype, casting)
    if not values:
        raise ValueError("need at least one array to concatenate")
    if axis is None:
        values, axis = [flat(v) for v in values], 0
    if values[0].type.rank == 0:
        raise ValueError("zero-dimensional arrays cannot be concatenated")
    at = s.one_axis(axis, values[0].type.rank)
    for k, v in enumerate(values):
        _check_fit(values[0].type.shape, v.type.shape, at, k)
    return s.result(s.join(values, at), out)


def _check_fit(first: s.Shape, shape: s.Shape, axis: int, k: int) -> None:
    if len(shape) != len(first):
        raise ValueError(
            "all the input array dimensions except for the concatenation axis must match exactly, but the array at "
            f"index 0 has {len(first)} dimension(s) and the array at index {k} has {len(shape)} dimension(s)"
        )
    for d, (a, b) in enumerate(zip(first, shape)):
        if d != axis and sizes.agreed(a, b) is None:
            raise ValueError(
                "all the input array dimensions except for the concatenation axis must match exactly, but along "
                f"dimension {d}, the array at index 0 has size {a} and the array at index {k} has size {b}"
            )


@implements(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    whole = earlier.stacked(arrays)
    arrays = s.listed(arrays) if whole is None else []
    found = _rows(arrays, dtype, casting) if whole is None else promoted([whole], dtype, casting)[0]
    if found is not None:
        return s.result(_first_axis_at(found, s.one_axis(axis, found.type.rank)), out)
    values = promoted(arrays, dtype, casting)
    if not values:
        raise ValueError("need at least one array to stack")
    shape = values[0].type.shape
    if not all(s.same_shape(shape, v.type.shape) for v in values):
        listed = ", ".join(s.show(v.type.shape) for v in values)
        raise ValueError(f"all input arrays must have the same shape, got {listed}")
    at = s.one_axis(axis, len(shape) + 1)
    return s.result(s.join([_with_axis(v, at) for v in values], at), out)


def _rows(arrays: Sequence[Any], dtype: Any, casting: Any) -> Value | None:
    """The array of which the arrays are the rows, if a loop has filled a list with them."""
    found = rows.run(arrays)
    return None if found is None else promoted([found], dtype, casting)[0]


def _first_axis_at(v: Value, axis: int) -> Value:
    others = list(range(1, v.type.rank))
    return v if axis == 0 else builder().transpose(v, perm=(*others[:axis], 0, *others[axis:]))


def _with_axis(v: Value, axis: int) -> Value:
    return builder().reshape(v, shape=(*v.type.shape[:axis], 1, *v.type.shape[axis:]))


def _each(convert: Any, arrays: Any) -> list[Array]:
    return [convert.__wrapped__(a) for a in arrays]


@implements(np.vstack, *(f for name, f in vars(np).items() if name == "row_stack"))
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    whole = earlier.stacked(tup)
    tup = s.listed(tup) if whole is None else tup
    if whole.ndim == 2 if whole is not None else rows.run(tup) is not None and np.ndim(tup[0]) == 1:
        return stack.__wrapped__(tup, 0, dtype=dtype, casting=casting)
    return concatenate.__wrapped__(_each(atleast_2d, tup), 0, dtype=dtype, casting=casting)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    tup = s.listed(tup)
    if rows.run(tup) is not None and np.ndim(tup[0]) < 2:
        join = concatenate if np.ndim(tup[0]) else stack
        return join.__wrapped__(tup, dtype=dtype, casting=casting)
    arrays = _each(atleast_1d, tup)
    axis = 0 if arrays and arrays[0].ndim == 1 else 1
    return concatenate.__wrapped__(arrays, axis, dtype=dtype, casting=casting)


@implements(np.dstack)
def dstack(tup: Any) -> Array:
    return concatenate.__wrapped__(_each(atleast_3d, tup), 2)


@implements(np.column_stack)
def column_stack(tup: Any) -> Array:
    tup = s.listed(tup)
    if rows.run(tup) is not None and np.ndim(tup[0]) == 1:
        return stack.__wrapped__(tup, 1)
    columns = [x if x.ndim > 1 else wrap(_with_axis(flat(x.value), 1)) for x in map(lift, tup)]
    return concatenate.__wrapped__(columns, 1)


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Array:
    return concatenate.__wrapped__((arr, values), axis)


@implements(np.block)
def block(arrays: Any) -> Array:
    """Nested lists joined along the last axes, the innermost along the last one."""
    depth = _depth(arrays)
    return _block(arrays, depth, max(depth, *(lift(a).ndim for a in _leaves(arrays))))


def _depth(x: Any) -> int:
    return 1 + max(map(_depth, x), default=0) if isinstance(x, list) else 0


def _leaves(x: Any) -> list[Any]:
    return [leaf for e in x for leaf in _leaves(e)] if isinstance(x, list) else [x]


def _block(x: Any, depth: int, rank: int) -> Array:
    if not isinstance(x, list):
        shape = s.dims(x)
        return wrap(s.reshaped(lift(x).value, (*(1,) * (rank - len(shape)), *shape)))
    return concatenate.__wrapped__([_block(e, depth - 1, rank) for e in x], -depth)


# -- taking apart ----------------------------------------------------------------------------------------------------


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    x = lift(ary)
    at = s.one_axis(axis, x.ndim)
    (size,) = s.static((s.dims(x)[at],), "np.array_split")
    if np.ndim(indices_or_sections):
        indices_or_sections = [s.static_int(k, "where np.array_split splits") for k in indices_or_sections]
    else:
        indices_or_sections = s.static_int(indices_or_sections, "how many parts np.array_split makes")
    parts = np.array_split(np.arange(size), indices_or_sections)
    return [x[(*(slice(None),) * at, slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0))] for p in parts]


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    if np.ndim(indices_or_sections) == 0:
        size = s.dims(ary)[s.one_axis(axis, lift(ary).ndim)]
        if size % int(indices_or_sections):  # type: ignore[operator]
            raise ValueError(f"array split does not result in an equal division: {size} in {indices_or_sections} parts")
    return array_split.__wrapped__(ary, indices_or_sections, axis)


@implements(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    if lift(ary).ndim < 2:
        raise ValueError("vsplit only works on arrays of 2 or more dimensions")
    return split.__wrapped__(ary, indices_or_sections, 0)


@implements(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    return split.__wrapped__(ary, indices_or_sections, 0 if lift(ary).ndim == 1 else 1)


@implements(getattr(np, "unstack", None))  # since NumPy 2.1
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Array, ...]:
    x = lift(x)
    at = s.one_axis(axis, x.ndim)
    (size,) = s.static((s.dims(x)[at],), "np.unstack")
    return tuple(x[(*(slice(None),) * at, k)] for k in range(size))


# -- repeating -------------------------------------------------------------------------------------------------------


@implements(np.repeat, extra=("total_repeat_length",))
def repeat(a: Any, repeats: Any, axis: Any = None, *, total_repeat_length: Any = None) -> Array:
    """As NumPy's. Traced counts need ``total_repeat_length``, how long the result is: what is beyond is dropped, and
    the last element fills what is missing."""
    v = flat(lift(a).value) if axis is None else lift(a).value
    at = 0 if axis is None else s.one_axis(axis, v.type.rank)
    if isinstance(repeats, Array) and total_repeat_length is not None:
        (size,) = s.static((v.type.shape[at],), "np.repeat")
        ends = np.cumsum(np.broadcast_to(repeats, (size,)))
        total = s.static_int(total_repeat_length, "total_repeat_length")
        which = np.searchsorted(ends, np.arange(total), side="right")
        return take.__wrapped__(wrap(v), np.minimum(which, size - 1), at)
    if isinstance(repeats, Array):
        repeats = s.static_int(repeats, "the number of repeats (without total_repeat_length)")
    if np.size(repeats) == 1:
        return wrap(_repeat(v, int(np.ravel(repeats)[0]), at))
    (size,) = s.static((v.type.shape[at],), "np.repeat")
    return wrap(take_value(v, np.repeat(np.arange(size), repeats), at))


def _repeat(v: Value, times: int, axis: int) -> Value:
    (size,) = s.static((v.type.shape[axis],), "np.repeat")
    before, after = v.type.shape[:axis], v.type.shape[axis + 1 :]
    spread = s.expand(s.reshaped(v, (*before, size, 1, *after)), (*before, size, times, *after))
    return s.reshaped(spread, (*before, size * times, *after))


@implements(np.tile)
def tile(A: Any, reps: Any) -> Array:
    v = lift(A).value
    times = tuple(reps) if isinstance(reps, tuple | list | np.ndarray) else (reps,)
    times = tuple(s.static_int(t, "reps") for t in times)
    shape = s.static(v.type.shape, "np.tile")
    rank = max(len(shape), len(times))
    shape, times = (1,) * (rank - len(shape)) + shape, (1,) * (rank - len(times)) + times
    rows = s.reshaped(v, tuple(d for size in shape for d in (1, size)))
    spread = s.expand(rows, tuple(d for pair in zip(times, shape) for d in pair))
    return wrap(s.reshaped(spread, tuple(t * size for t, size in zip(times, shape))))


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Array, ...]:
    if indexing not in ("xy", "ij"):
        raise ValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    n, out = len(xi), []
    for k, x in enumerate(xi):
        at = 1 - k if indexing == "xy" and n > 1 and k < 2 else k
        v = flat(lift(x).value)
        out.append(s.reshaped(v, tuple(v.type.shape[0] if d == at else 1 for d in range(n))))
    return tuple(map(wrap, out if sparse else s.broadcast(*out)))


# -- selecting -------------------------------------------------------------------------------------------------------


def take_value(v: Value, positions: np.ndarray, axis: int) -> Value:
    """Known positions, all inside, along an axis."""
    b, rank = builder(), v.type.rank
    taken = b.gather(s.transposed(v, [axis, *(k for k in range(rank) if k != axis)]), b.constant(positions))
    perm = list(range(positions.ndim, taken.type.rank))
    perm[axis:axis] = range(positions.ndim)
    return s.transposed(taken, perm)


@implements(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Array:
    x = lift(a)
    x, at = (wrap(flat(x.value)), 0) if axis is None else (x, s.one_axis(axis, x.ndim))
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    if not isinstance(indices, Array):
        indices = np.asarray(indices)
    if mode != "raise":
        (size,) = s.static((s.dims(x)[at],), f"np.take with mode={mode!r}")
        indices = np.mod(indices, size) if mode == "wrap" else np.clip(indices, 0, size - 1)
    return s.result(x[(*(slice(None),) * at, indices)].value, out)


def _along(arr: Array, indices: Any, axis: Any) -> tuple[Array, tuple[Any, ...]]:
    """The array and the index, one entry for each axis, of ``take_along_axis``."""
    if axis is None:
        arr, axis = wrap(flat(arr.value)), 0
    at, rank = s.one_axis(axis, arr.ndim), arr.ndim
    if np.ndim(indices) != rank:
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    if rank == 1:
        return arr, (indices,)
    shape = s.static(s.dims(indices), "np.take_along_axis")
    own = s.static(s.dims(arr), "np.take_along_axis")
    full = np.broadcast_shapes(tuple(1 if k == at else own[k] for k in range(rank)), shape)
    if not isinstance(indices, Array):
        grid = (np.arange(own[k]).reshape([-1 if d == k else 1 for d in range(rank)]) for k in range(rank))
        return arr, tuple(indices if k == at else np.broadcast_to(g, full).copy() for k, g in enumerate(grid))
    # Counted where they are used: as constants they would be as large as the array.
    counts = (s.counter(full, k) if own[k] > 1 else s.full(full, 0, np.int64) for k in range(rank))
    return arr, tuple(wrap(s.expand(indices.value, full) if k == at else c) for k, c in enumerate(counts))


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Array:
    x, index = _along(lift(arr), indices, axis)
    return x[index]


@implements(np.put_along_axis)
def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    if axis is None:
        if np.ndim(indices) != 1:
            raise ValueError("when axis=None, `indices` must have a single dimension.")
        elements = arr.reshape(-1).copy()
        elements[indices] = values
        arr[...] = elements.reshape(arr.shape)
        return
    _, index = _along(arr, indices, axis)
    arr[index] = values


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Array:
    x = lift(a)
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n}")
    if x.ndim == 0:
        raise ValueError("diff requires input that is at least one dimensional")
    at = s.one_axis(axis, x.ndim)
    ends = [None if e is None or e is np._NoValue else _as_end(e, s.dims(x), at) for e in (prepend, append)]
    parts = [p for p in (ends[0], x, ends[1]) if p is not None]
    x = concatenate.__wrapped__(parts, at) if len(parts) > 1 else wrap(x.value)
    for _ in range(n):
        later, earlier = (x[(*(slice(None),) * at, part)] for part in (slice(1, None), slice(None, -1)))
        x = apply(np.not_equal if x.dtype.kind == "b" else np.subtract, later, earlier)
    return wrap(x.value)


def _as_end(e: Any, shape: s.Shape, axis: int) -> Array:
    e = lift(e)
    return e if e.ndim else wrap(s.expand(e.value, tuple(1 if k == axis else d for k, d in enumerate(shape))))


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Array:
    if lift(ary).dtype.kind == "b":
        raise TypeError("numpy boolean subtract, the `-` operator, is not supported, use np.diff")
    steps = diff.__wrapped__(wrap(flat(lift(ary).value)))
    if to_end is None and to_begin is None:
        return steps
    for name, e in (("to_begin", to_begin), ("to_end", to_end)):
        if e is not None and not np.can_cast(lift(e).dtype, steps.dtype, "same_kind"):
            raise TypeError(f"dtype of `{name}` must be compatible with input `ary` under the `same_kind` rule.")
    ends = [None if e is None else s.as_dtype(wrap(flat(lift(e).value)), steps.dtype) for e in (to_begin, to_end)]
    return concatenate.__wrapped__([p for p in (ends[0], steps, ends[1]) if p is not None])


@implements(np.dsplit)
def dsplit(ary: Any, indices_or_sections: Any) -> list[Array]:
    if lift(ary).ndim < 3:
        raise ValueError("dsplit only works on arrays of 3 or more dimensions")
    return split.__wrapped__(ary, indices_or_sections, 2)
