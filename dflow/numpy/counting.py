"""Counting elements: bins, histograms, and the positions of flattened indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from dflow.errors import NeedsStatic, failure
from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.composed import searchsorted
from dflow.numpy.dispatch import implements
from dflow.numpy.shapes import flat
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced, lift, static_value, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


@implements(np.bincount, extra=("length",))
def bincount(x: Any, /, weights: Any = None, minlength: int = 0, *, length: Any = None) -> Array:
    """How often 0, 1, ... occur, or the sums of their weights. ``length`` is the size of the result: of a traced ``x``
    the largest element is not known, and it is ``minlength``, or must be given. Elements that are not below it raise
    IndexError."""
    at = lift(x)
    if at.ndim != 1:
        raise ValueError(f"object {'too deep' if at.ndim else 'of too small depth'} for desired array")
    if not contains_traced(minlength) and minlength < 0:
        raise ValueError("'minlength' must not be negative")
    if length is None:
        known = static_value(at)
        if known is not None:
            length = int(np.max(known, initial=-1)) + 1
        elif minlength:
            length = minlength
        else:
            raise failure(
                NeedsStatic,
                "how long the result of np.bincount is depends on the data",
                mend="say how long: np.bincount(x, minlength=n), where all elements are below n",
            )
    size = max(s.static_int(length, "length"), s.static_int(minlength, "minlength"))
    at = s.whole(at)
    if weights is not None and lift(weights).dtype.kind == "c":
        raise TypeError("Cannot cast array data from complex to float64 according to the rule 'safe'")
    counts = wrap(s.full((size,), 0, np.int64 if weights is None else np.float64))
    one = 1 if weights is None else s.as_dtype(weights, np.float64)
    _check_positions(at)
    np.add.at(counts, s.as_dtype(at, np.int64), one)
    return counts


def _check_positions(at: Array) -> None:
    if at.dtype.kind == "i" and at.size:
        b = builder()
        low = b.reduce(at.value, kind="min", axes=tuple(range(at.ndim)))
        b.check(b.ge(low, 0), error="ValueError", message="'list' argument must have no negative elements")


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Array:
    """The bin of each element. Bins that neither rise nor fall raise ValueError, traced ones when the program runs."""
    side = "left" if right else "right"
    if lift(x).dtype.kind == "c":
        raise TypeError("x may not be complex")
    if contains_traced(bins):
        bins = lift(bins)
        rises, falls = (~np.any(compare(bins[1:], bins[:-1])) for compare in (np.less, np.greater))
        builder().check((rises | falls).value, error="ValueError", message=_MONOTONIC)
        rising = searchsorted.__wrapped__(bins, x, side)
        return np.where(rises, rising, bins.size - searchsorted.__wrapped__(bins[::-1], x, side))
    bins = np.asarray(bins)
    if not np.any(bins[1:] < bins[:-1]):
        return searchsorted.__wrapped__(bins, x, side)
    if np.any(bins[1:] > bins[:-1]):
        raise ValueError(_MONOTONIC)
    return len(bins) - searchsorted.__wrapped__(bins[::-1].copy(), x, side)


_MONOTONIC = "bins must be monotonically increasing or decreasing"


# -- histograms ------------------------------------------------------------------------------------------------------


@implements(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Array:
    """Evenly spaced edges over ``range``, or from the smallest to the largest element."""
    if isinstance(bins, str):
        raise TypeError("np.histogram of traced arrays takes a number of bins, or their edges; not a rule's name")
    if s.rank(bins):
        return _rising(bins)
    if s.static_int(bins, "bins") < 1:
        raise ValueError("`bins` must be positive, when an integer")
    x = lift(a)
    if range is not None:
        low, high = _checked_range(*range)
    elif not x.size:
        low, high = 0.0, 1.0
    else:
        low, high = (s.as_dtype(f(x), s.result_type(x, 0.5)) for f in (np.min, np.max))
        _check(np.isfinite(low) & np.isfinite(high), "autodetected range of the elements is not finite")
    low, high = lift(low) * 1.0, lift(high) * 1.0
    flat_range = low == high
    low, high = np.where(flat_range, low - 0.5, low), np.where(flat_range, high + 0.5, high)
    kind = np.result_type(x.dtype, 0.5) if kind_of(x.dtype) != "f" else x.dtype
    return s.as_dtype(np.linspace(low, high, s.static_int(bins, "bins") + 1), kind)


def _check(ok: Any, message: str) -> None:
    """ValueError unless ``ok``: now, or for what is traced when the program runs."""
    if isinstance(ok, Array):
        builder().check(ok.value, error="ValueError", message=message)
    elif not ok:
        raise ValueError(message)


def _checked_range(low: Any, high: Any) -> tuple[Any, Any]:
    _check(np.isfinite(low) & np.isfinite(high), "supplied range is not finite")
    _check(low <= high, "max must be larger than min in range parameter.")
    return low, high


def _rising(bins: Any) -> Array:
    """Edges that are given."""
    edges = lift(bins) if contains_traced(bins) else np.asarray(bins)
    if edges.ndim != 1:
        raise ValueError("`bins` must be 1d, when an array")
    _check(np.all(edges[:-1] <= edges[1:]), "`bins` must increase monotonically, when an array")
    return lift(edges)


@implements(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """Counts (or sums of weights) in the bins, of which only the last one is closed on the right."""
    x = lift(a)
    edges = histogram_bin_edges.__wrapped__(x, bins, range)
    counts = _binned([wrap(flat(x.value))], [edges], [not s.rank(bins)], weights)
    if density:
        return counts / np.diff(edges) / np.sum(counts), edges
    return counts, edges


def _binned(columns: Sequence[Array], edges: Sequence[Array], even: Sequence[bool], weights: Any) -> Array:
    """Counts over the product of the columns' bins, some of which are evenly spaced; what lies in none is counted in a
    place that is dropped."""
    shape = tuple(s.static_int(e.size, "bins") - 1 for e in edges)
    position, inside = lift(0), lift(True)
    for x, e, is_even, size in zip(columns, edges, even, shape):
        own = (x >= e[0]) & (x <= e[-1])
        if is_even and kind_of(x.dtype) == "f":
            bin_ = _even_bin(x, e, own, size)
        else:
            bin_ = np.where(x == e[-1], size - 1, np.searchsorted(e, x, "right") - 1)
        inside = inside & own
        position = position * size + bin_
    total = math.prod(shape)
    position = np.where(inside, position, total)
    counts = wrap(s.full((total + 1,), 0, np.int64 if weights is None else lift(weights).dtype))
    np.add.at(counts, position, 1 if weights is None else wrap(flat(lift(weights).value)))
    return counts[:total].copy().reshape(shape)


def _even_bin(x: Array, edges: Array, inside: Array, size: int) -> Array:
    """The bins of the elements inside, computed; rounding may put them into the one before or behind."""
    share = np.where(inside, (x - edges[0]) / (edges[-1] - edges[0]), 0.0)
    guess = np.minimum(s.as_dtype(share * size, np.int64), size - 1)
    guess = guess - (x < edges[guess])
    return guess + ((x >= edges[guess + 1]) & (guess < size - 1))


@implements(np.histogramdd)
def histogramdd(sample: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    columns = _columns(sample)
    n = len(columns)
    bins = bins if isinstance(bins, tuple | list) else [bins] * n
    range = [None] * n if range is None else range
    edges = [histogram_bin_edges.__wrapped__(x, k, r) for x, k, r in zip(columns, bins, range, strict=True)]
    counts = s.as_dtype(_binned(columns, edges, [not s.rank(k) for k in bins], weights), np.float64)
    if density:
        counts = counts / np.sum(counts)
        for axis, e in enumerate(edges):
            counts = counts / np.diff(e).reshape([-1 if k == axis else 1 for k in np.arange(n)])
    return counts, tuple(edges)


def _columns(sample: Any) -> list[Array]:
    if isinstance(sample, tuple | list):
        return [lift(x) for x in sample]
    x = lift(sample)
    x = x.reshape(-1, 1) if x.ndim == 1 else x
    return [x[:, k] for k in np.arange(x.shape[1])]


@implements(np.histogram2d)
def histogram2d(
    x: Any, y: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None
) -> tuple[Array, Array, Array]:
    both = bins if isinstance(bins, tuple | list) and len(bins) == 2 else [bins, bins]
    counts, edges = histogramdd.__wrapped__([x, y], both, range, density, weights)
    return counts, edges[0], edges[1]


# -- flattened indices -----------------------------------------------------------------------------------------------


@implements(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Array, ...]:
    """The index of each flat position."""
    sizes = tuple(np.atleast_1d(shape).tolist())
    rest, out = s.as_dtype(s.whole(indices, "only int indices permitted"), np.int64), []
    inside = np.all((rest >= 0) & (rest < math.prod(sizes)))
    _check(inside, f"an index is out of bounds for an array with size {math.prod(sizes)}")
    for size in sizes if order == "F" else sizes[::-1]:
        out.append(rest % size)
        rest = rest // size
    return tuple(out if order == "F" else out[::-1])


@implements(np.ravel_multi_index)
def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Array:
    """The flat position of each index; ``mode`` says what is done with positions outside: raise, wrap or clip."""
    modes = mode if isinstance(mode, tuple) else (mode,) * len(dims)
    if 0 in dims and any(np.size(i) for i in multi_index):
        raise ValueError("cannot unravel if shape has zero entries (is empty).")
    indices = [s.as_dtype(s.whole(i, "only int indices permitted"), np.int64) for i in multi_index]
    parts = [_brought_inside(i, n, m) for i, n, m in zip(indices, dims, modes, strict=True)]
    pairs = list(zip(parts, dims))
    total = lift(np.int64(0))
    for part, size in pairs if order == "C" else pairs[::-1]:
        total = total * size + part
    return total


def _brought_inside(i: Array, size: int, mode: str) -> Array:
    if mode == "wrap":
        return i % size
    if mode == "clip":
        return np.clip(i, 0, size - 1)
    b = builder()
    inside = ((i >= 0) & (i < size)).all()
    b.check(inside.value, error="ValueError", message="invalid entry in coordinates array")
    return i
