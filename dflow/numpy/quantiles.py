"""Medians, percentiles and quantiles, by all of NumPy's methods.

A quantile lies at a *virtual position* among the elements in order, between two neighbours, of which it is a weighted
mean (Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996, number the methods). So derivatives go to the
two neighbours, which are looked for without a sort. With NaN among the elements the result is NaN; the nan-functions
count the others, which come before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.partial_orders import positions
from dflow.numpy.reductions import given
from dflow.numpy.sorting import sorted_last
from dflow.numpy.statistics import mean
from dflow.tracing.arrays import dtypes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced, floating, lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

Position = Callable[[Any, Any], Any]

NO_ELEMENTS = "a quantile of no elements: the array is empty along the axis"
WITH_NAN = "keep the full size, with NaN for what does not count: np.nanquantile(np.where(mask, x, np.nan), 0.5)"


def _plotting(alpha: float, beta: float) -> Position:
    """The position of a method that plots the k-th of n elements at (k - alpha) / (n + 1 - alpha - beta)."""
    return lambda n, q: n * q + (alpha + q * (1.0 - alpha - beta)) - 1.0


# method -> (the virtual position of quantile q among n elements, the weight of the later neighbour by the fraction of
# the position; None for a method that takes elements as they are)
def _fraction(fraction: Any) -> Any:
    return fraction


METHODS: dict[str, tuple[Position, Callable[[Any], Any] | None]] = {
    "inverted_cdf": (lambda n, q: np.ceil(n * q - 1.0), None),
    "averaged_inverted_cdf": (lambda n, q: n * q - 1.0, lambda fraction: np.where(fraction == 0.0, 0.5, 1.0)),
    "closest_observation": (lambda n, q: _to_odd(n * q - 1.5), None),
    "interpolated_inverted_cdf": (_plotting(0.0, 1.0), _fraction),
    "hazen": (_plotting(0.5, 0.5), _fraction),
    "weibull": (_plotting(0.0, 0.0), _fraction),
    "linear": (lambda n, q: (n - 1) * q, _fraction),
    "median_unbiased": (_plotting(1.0 / 3.0, 1.0 / 3.0), _fraction),
    "normal_unbiased": (_plotting(0.375, 0.375), _fraction),
    "lower": (lambda n, q: np.floor((n - 1) * q), None),
    "higher": (lambda n, q: np.ceil((n - 1) * q), None),
    "midpoint": (lambda n, q: (n - 1) * q, lambda fraction: np.where(fraction == 0.0, 0.0, 0.5)),
    "nearest": (lambda n, q: np.round((n - 1) * q), None),
}


def _to_odd(position: Any) -> Any:
    """The next position; an exact one stays where it is odd."""
    down = np.floor(position)
    stays = (position == down) & (down % 2 == 1)
    return np.where(stays, down, down + 1.0)


def _numbers(a: Any, axis: Any) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """Real numbers with a last axis that holds all of ``axis``, the axes, and the shape without them."""
    x = lift(a)
    if x.dtype.kind == "c":
        raise TypeError("a must be an array of real numbers")
    axes = s.some_axes(axis, x.ndim)
    rows = _rows(x, axes)
    return rows, axes, rows.shape[:-1]


def quantiles(a: Any, q: Any, axis: Any, method: str, keepdims: Any, skip_nan: bool) -> Array:
    """Quantiles ``q`` (their axes in front) over ``axis``. Raises ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"{method!r} is not a valid method. Use one of: {', '.join(METHODS)}")
    q = lift(q) if contains_traced(q) else q if _is_weak(q) else np.asarray(q)
    if _is_of_any_number(lift(a), keepdims):
        return _quantiles_of_any_number(lift(a), q, method, skip_nan)
    s.static(s.dims(a), "np.quantile", WITH_NAN)
    x, axes, shape = _numbers(a, axis)
    size = x.shape[-1]
    if not size:
        raise ValueError(NO_ELEMENTS)
    missing = _missing(x)
    count = np.maximum(size - missing, 1) if skip_nan and kind_of(x.dtype) == "f" else size
    kind, q = _kind(x, q), q if isinstance(q, Array) else np.asarray(q)
    position = METHODS[method][0](count, np.reshape(q, (*q.shape, *(1,) * len(shape))))
    out = _read(
        position, METHODS[method][1], kind, lambda ks: _ranked(x, [np.clip(k, 0, count - 1) for k in ks], shape)
    )
    if kind_of(x.dtype) == "f":
        nothing = missing == size if skip_nan else missing > 0
        out = np.where(nothing, np.asarray(np.nan, out.dtype), out)
    return _kept(out, axes, lift(a).ndim, q.ndim) if given(keepdims) and keepdims else out


def _missing(x: Array) -> Any:
    """How many elements of each row are NaN."""
    return np.sum(np.isnan(x), axis=-1) if kind_of(x.dtype) == "f" else lift(np.zeros((), np.int64))


def _kind(x: Array, q: Any) -> Any:
    whole = x.dtype.kind in "biu" and (_is_weak(q) or kind_of(q.dtype) != "f")
    return dtypes.result_type(np.dtype(np.float64) if whole else x.dtype, *([] if _is_weak(q) else [q.dtype]))


def _read(position: Any, weight: Any, kind: Any, ranked: Callable[[list[Any]], list[Array]]) -> Array:
    """The value at virtual positions among elements of which ``ranked`` gives those that have some ranks."""
    low = np.floor(position)
    if weight is None:
        return ranked([low])[0]
    first, second = ranked([low, low + 1.0])
    return _between(first, second, weight(position - low), kind)


def _is_of_any_number(x: Array, keepdims: Any) -> bool:
    """Whether these are real numbers along one axis whose length is known only when the program runs."""
    plain = x.ndim == 1 and kind_of(x.dtype) != "c" and not (given(keepdims) and keepdims)
    return plain and not x.type.is_static


def _quantiles_of_any_number(x: Array, q: Any, method: str, skip_nan: bool) -> Array:
    missing, size = _missing(x), x.shape[0]
    _check(size > 0, NO_ELEMENTS)
    ordered = np.concatenate([np.sort(x), np.zeros(1, x.dtype)])  # where there are none, there is an element to read
    count = np.maximum(size - missing if skip_nan else size, 1)
    position = METHODS[method][0](count, q if isinstance(q, Array) else np.asarray(q))

    def ranked(ranks: list[Any]) -> list[Array]:
        return [ordered[np.clip(k, 0, count - 1).astype(np.int64)] for k in ranks]

    out = _read(position, METHODS[method][1], _kind(x, q), ranked)
    if kind_of(x.dtype) != "f":
        return out
    return np.where(missing == size if skip_nan else missing > 0, np.asarray(np.nan, out.dtype), out)


def weighted(a: Any, q: Any, weights: Any, axis: Any, keepdims: Any, skip_nan: bool) -> Array:
    """The least elements such that those up to them have at least the part ``q`` of the weight, over ``axis``.
    Elements of weight 0 are never chosen."""
    x, w, q = lift(a), lift(weights) * 1.0, lift(q)
    _check(~(w < 0), "Weights must be non-negative.")
    axes = s.some_axes(axis, x.ndim)
    if w.shape != x.shape:
        if len(axes) != 1 or w.shape != (x.shape[axes[0]],):
            raise TypeError("weights must have the shape of the array, or be a vector along the one axis")
        w = np.broadcast_to(w.reshape(-1, *[1] * (x.ndim - 1 - axes[0])), x.shape)
    rows, weight = _rows(x, axes), _rows(w, axes)
    order = np.argsort(rows, axis=-1)
    rows, weight = (np.take_along_axis(v, order, axis=-1) for v in (rows, weight))
    missing = np.isnan(rows) if kind_of(x.dtype) == "f" else np.zeros(rows.shape, bool)
    total = np.cumsum(np.where(missing, 0.0, weight) if skip_nan else weight, axis=-1)
    whole = total[..., -1:]
    _check((whole > 0) & np.isfinite(whole), "the weights of a quantile need a sum that is positive and finite")
    share = total / whole
    share = np.where(share == 0.0, -1.0, share)
    levels = q.reshape(*q.shape, *[1] * rows.ndim)
    at = np.minimum(np.sum(share < levels, axis=-1), rows.shape[-1] - 1)
    out = _at(rows, at, rows.shape[:-1])
    if kind_of(x.dtype) == "f":
        nothing = np.all(missing, axis=-1) if skip_nan else np.any(missing, axis=-1)
        out = np.where(nothing, np.asarray(np.nan, out.dtype), out)
    return _kept(out, axes, x.ndim, q.ndim) if given(keepdims) and keepdims else out


def _rows(x: Array, axes: tuple[int, ...]) -> Array:
    """``axes`` as one last axis."""
    kept = tuple(k for k in range(x.ndim) if k not in axes)
    size = math.prod(x.shape[k] for k in axes)
    return np.transpose(x, (*kept, *axes)).reshape((*(x.shape[k] for k in kept), size))


def _is_weak(q: Any) -> bool:
    return bool(q.weak) if isinstance(q, Array) else isinstance(q, int | float) and not isinstance(q, np.generic)


def _at(x: Array, position: Any, shape: tuple[int, ...]) -> Array:
    """The elements of sorted rows at positions of shape (q..., rows...)."""
    full = np.broadcast_shapes(np.shape(position), shape)
    at = np.broadcast_to(position.astype(np.int64), full)
    rows = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    return x[(*rows, at)]


def _ranked(x: Array, ranks: list[Any], shape: tuple[int, ...]) -> list[Array]:
    """The elements of rows that have ranks of shape (q..., rows...)."""
    full = np.broadcast_shapes(*map(np.shape, ranks), shape)
    lead = len(full) - len(shape)
    at = np.stack([np.broadcast_to(k.astype(np.int64), full) for k in ranks])
    each = np.moveaxis(at.reshape(len(ranks), math.prod(full[:lead]), *shape), (0, 1), (-1, -2))
    places = wrap(positions(x.value, lift(each.reshape(*shape, -1)).value))
    found = np.take_along_axis(x, places, -1).reshape(each.shape)
    return [np.moveaxis(found[..., k], -1, 0).reshape(full) for k in range(len(ranks))]


def _between(first: Array, second: Array, gamma: Any, kind: Any) -> Array:
    """Linear interpolation, from the nearer side."""
    weight = lift(gamma).astype(kind)
    first, second, rise = (s.as_dtype(v, kind) for v in (first, second, second - first))
    return np.where(weight >= 0.5, second - rise * (1.0 - weight), first + rise * weight)


def _kept(out: Array, axes: tuple[int, ...], rank: int, lead: int) -> Array:
    sizes = iter(out.shape[lead:])
    return out.reshape((*out.shape[:lead], *(1 if k in axes else next(sizes) for k in range(rank))))


def _checked(q: Any, top: float) -> Any:
    """``q`` as fractions; ValueError for those outside 0 .. top, of traced ones when the program runs."""
    kind, high = ("Percentiles", 100) if top != 1.0 else ("Quantiles", 1)
    message = f"{kind} must be in the range [0, {high}]"
    if not contains_traced(q):
        q = float(q) if _is_weak(q) else np.asarray(q, floating(np.asarray(q).dtype))
        if not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= top)):
            raise ValueError(message)
        return q if top == 1.0 else q / top
    q = lift(q)
    _check((q >= 0) & (q <= top), message)
    return q if top == 1.0 else q / top


def _check(ok: Any, message: str) -> None:
    """Raises ValueError, when the program runs, unless all of ``ok`` hold."""
    builder().check(np.all(ok).value, error="ValueError", message=message)


def _function(top: float, skip_nan: bool) -> Any:
    def call(
        a: Any,
        q: Any,
        axis: Any = None,
        out: Any = None,
        overwrite_input: bool = False,
        method: str = "linear",
        keepdims: Any = False,
        *,
        weights: Any = None,
    ) -> Array:
        if weights is not None:
            if method != "inverted_cdf":
                raise ValueError("Only method 'inverted_cdf' supports weights. Got: " + repr(method))
            found = weighted(a, _checked(q, top), weights, axis, keepdims, skip_nan)
            return s.result(found.value, out)
        return s.result(quantiles(a, _checked(q, top), axis, method, keepdims, skip_nan).value, out)

    return call


quantile = implements(np.quantile)(_function(1.0, False))
percentile = implements(np.percentile)(_function(100.0, False))
nanquantile = implements(np.nanquantile)(_function(1.0, True))
nanpercentile = implements(np.nanpercentile)(_function(100.0, True))


def _middle(a: Any, axis: Any, keepdims: Any, skip_nan: bool) -> Array:
    """The mean of the two elements in the middle (one for an odd count). Complex numbers are ordered by the real part,
    then by the imaginary one."""
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    rows = _rows(x if kind_of(x.dtype) in "fc" else s.as_dtype(x, np.float64), axes)
    shape, size = rows.shape[:-1], rows.shape[-1]
    missing = np.sum(np.isnan(rows), axis=-1)
    count = np.maximum(size - missing, 1) if skip_nan else np.full(shape, size)
    places = [(count - 1) // 2, count // 2]
    if kind_of(x.dtype) == "c":
        rows = sorted_last(rows)
        low, high, nothing = (_at(rows, place, shape) for place in (*places, np.full(shape, size - 1)))
    else:
        (low, high), nothing = _ranked(rows, places, shape), np.asarray(np.nan, rows.dtype)
    out = np.where(missing == size if skip_nan else missing > 0, nothing, low * 0.5 + high * 0.5)
    return _kept(out, axes, x.ndim, 0) if given(keepdims) and keepdims else out


def _of_any_number(x: Array, skip_nan: bool) -> Any:
    """The median of one axis whose length is known only when the program runs; of nothing, it is the NaN at the end."""
    x = x if kind_of(x.dtype) == "f" else s.as_dtype(x, np.float64)
    nothing: Any = np.full(1, np.nan, x.dtype)
    ordered, missing = np.concatenate([np.sort(x), nothing]), np.sum(np.isnan(x))
    count = x.shape[0] - missing if skip_nan else x.shape[0]
    middle = ordered[(count - 1) // 2] * 0.5 + ordered[count // 2] * 0.5
    return middle if skip_nan else np.where(missing > 0, nothing[0], middle)


def _median(skip_nan: bool) -> Any:
    def call(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False) -> Array:
        x = lift(a)
        if _is_of_any_number(x, keepdims):
            return s.result(_of_any_number(x, skip_nan).value, out)
        if 0 in s.static(s.dims(x), "np.median", WITH_NAN):
            return mean.__wrapped__(a, axis, None, out, keepdims)
        return s.result(_middle(a, axis, keepdims, skip_nan).value, out)

    return call


median = implements(np.median)(_median(False))
nanmedian = implements(np.nanmedian)(_median(True))
