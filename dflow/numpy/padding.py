"""``np.pad``, axis by axis: constants and ramps are joined on, the other modes repeat known positions or statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.joining import take_value
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced, lift, wrap

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

REPEATED = ("edge", "reflect", "symmetric", "wrap")
STATISTICS: dict[str, Callable[..., Any]] = {
    "maximum": np.max,
    "mean": np.mean,
    "median": np.median,
    "minimum": np.min,
}
NARROW = 8  # as much of an axis as of what is added at least, where that is joined on
OPTIONS: dict[str, tuple[str, ...]] = {
    "constant": ("constant_values",),
    "linear_ramp": ("end_values",),
    "reflect": ("reflect_type",),
    "symmetric": ("reflect_type",),
    **dict.fromkeys(STATISTICS, ("stat_length",)),
    **dict.fromkeys(("edge", "wrap", "empty"), ()),
}


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Array:
    x = lift(array)
    if callable(mode):
        raise TypeError("np.pad of a traced array takes the name of a mode, not a function")
    if mode not in OPTIONS:
        raise ValueError(f"mode '{mode}' is not supported")
    unknown = [k for k in kwargs if k not in OPTIONS[mode]]
    if unknown:
        raise ValueError(f"unsupported keyword arguments for mode '{mode}': {set(unknown)}")
    widths = _widths(pad_width, x.ndim)
    v = x.value
    if mode in ("constant", "linear_ramp", "empty"):
        ends = _per_side(kwargs.get(OPTIONS[mode][0], 0) if OPTIONS[mode] else 0, x.ndim)
        for axis, (width, end) in enumerate(zip(widths, ends)):
            if any(width):
                v = s.join([_strip(v, axis, width, end, mode, 0), v, _strip(v, axis, width, end, mode, 1)], axis)
    elif mode in REPEATED:
        odd = kwargs.get("reflect_type", "even") == "odd"
        for axis, width in enumerate(widths):
            if any(width):
                v = _reflected(v, axis, width, mode, odd)
    else:
        lengths = _per_side(kwargs.get("stat_length"), x.ndim)
        for axis, (width, length) in enumerate(zip(widths, lengths)):
            if any(width):
                v = _with_statistics(v, axis, width, length, mode)
    return wrap(v)


def _widths(pad_width: Any, rank: int) -> list[list[int]]:
    if isinstance(pad_width, dict):
        given = {s.one_axis(k, rank): w for k, w in pad_width.items()}
        pad_width = [np.broadcast_to(given.get(k, 0), 2) for k in range(rank)]
    widths = np.broadcast_to(np.asarray(pad_width), (rank, 2)).tolist()
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError("index can't contain negative values")
    return widths


def _per_side(values: Any, rank: int) -> Any:
    """One value for each side of each axis."""
    if contains_traced(values):
        both = np.broadcast_to(lift(values), (rank, 2))
        return [[both[k, 0], both[k, 1]] for k in range(rank)]
    return np.broadcast_to(np.asarray(values), (rank, 2)).tolist()


def _strip(v: Value, axis: int, width: Any, ends: Any, mode: str, side: int) -> Value:
    n, end = width[side], ends[side]
    shape = tuple(n if k == axis else d for k, d in enumerate(v.type.shape))
    kind = v.type.dtype.numpy
    if mode != "linear_ramp" or not n:
        return s.expand(s.cast(lift(end).value, kind), shape)
    if v.type.shape[axis] == 0:
        raise ValueError(f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'")
    edge = np.moveaxis(
        wrap(s.part(v, axis, 0 if side == 0 else s.static(v.type.shape, "np.pad")[axis] - 1, 1)), axis, 0
    )[0]
    points = np.linspace(lift(end) + 0 * edge, edge, n, endpoint=False)
    points = points if side == 0 else points[::-1]
    return np.moveaxis(s.as_dtype(points, kind), 0, axis).value


def _reflected(v: Value, axis: int, width: list[int], mode: str, odd: bool) -> Value:
    """The positions padded by NumPy tell what to repeat; an odd reflection is what is seen from its edge."""
    (size,) = s.static((v.type.shape[axis],), "np.pad")
    places = np.arange(size)
    if not odd or mode not in ("reflect", "symmetric"):
        padded = np.pad(places, width, mode=mode)
        if size < NARROW * sum(width):
            return take_value(v, padded, axis)
        ends = padded[: width[0]], padded[width[0] + size :]
        first, last = (take_value(v, positions, axis) if positions.size else None for positions in ends)
        return s.join([part for part in (first, v, last) if part is not None], axis)
    # An odd reflection of a position goes on beyond the ends, by as much as the values have to.
    levels = np.pad(places, width, mode=mode, reflect_type="odd")
    return _odd(v, axis, levels, size, mode)


def _odd(v: Value, axis: int, levels: numpy.ndarray, size: int, mode: str) -> Value:
    """2 * edge - reflection, once for each time that the position passes an end."""
    x = np.moveaxis(wrap(v), axis, 0)
    first, last = x[0], x[-1]
    parts = [_odd_value(x, first, last, int(p), size, mode) for p in levels]
    return np.moveaxis(np.stack(parts), 0, axis).value


def _odd_value(x: Array, first: Array, last: Array, p: int, size: int, mode: str) -> Array:
    sign, total = 1, 0 * first
    if size == 1:
        return first
    while not 0 <= p < size:
        low = p < 0
        total = total + sign * 2 * (first if low else last)
        sign = -sign
        p = -p if low else 2 * (size - 1) - p
    return total + sign * x[p]


def _with_statistics(v: Value, axis: int, width: list[int], lengths: Any, mode: str) -> Value:
    (size,) = s.static((v.type.shape[axis],), "np.pad")
    strips = []
    for side, (n, length) in enumerate(zip(width, lengths)):
        count = size if length is None else min(int(length), size)
        if count < 1:
            raise ValueError("stat_length of 0 yields no value for padding")
        near = wrap(s.part(v, axis, 0 if side == 0 else size - count, count))
        level = STATISTICS[mode](near, axis=axis, keepdims=True)
        if v.type.dtype.kind in "iu":
            level = np.round(level)
        shape = tuple(n if k == axis else d for k, d in enumerate(v.type.shape))
        strips.append(s.expand(s.cast(level.value, v.type.dtype), shape))
    return s.join([strips[0], v, strips[1]], axis)
