"""Averages and spreads, and the reductions that pass over NaN.

Integers are averaged in float64 and float16 in float32, as NumPy does. The standard deviation has derivative 0 where it
is 0 (a subgradient).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from dflow.ir.core import Value
from dflow.ir.types import HALVES, kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.reductions import ALL, MAX, MIN, PROD, SUM, given, kept, reduce, reduce_value
from dflow.numpy.ufunc_rules import safe_sqrt
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


def _averaging(x: Array, dtype: Any) -> np.dtype[Any]:
    """The dtype in which NumPy averages."""
    if given(dtype):
        return np.dtype(dtype)
    wide = {"b": np.float64, "i": np.float64, "u": np.float64}.get(x.dtype.kind, x.dtype)
    return np.dtype(np.float32 if s.dtype_of(wide) in HALVES else wide)


def _number(v: Value, axes: tuple[int, ...], where: Any, shape: s.Shape) -> Value:
    """How many elements go into each result, in the dtype of ``v`` and of its shape."""
    b = builder()
    if given(where) and where is not True:
        mask = s.expand(s.cast(lift(where).value, bool), shape)
        return s.cast(kept(reduce_value(s.cast(mask, np.int64), "sum", axes), shape, axes), v.type.dtype)
    count = s.size_of(shape[k] for k in axes)
    return s.expand(s.cast(count, v.type.dtype), v.type.shape) if v.type.rank else b.convert(count, dtype=v.type.dtype)


def _mean_kept(v: Value, axes: tuple[int, ...], where: Any) -> Value:
    shape = v.type.shape
    total = reduce(SUM, wrap(v), axes, v.type.dtype.numpy, keepdims=True, where=where).value
    return apply(np.divide, wrap(total), wrap(_number(total, axes, where, shape))).value


def _narrow(v: Value, x: Array, dtype: Any) -> Value:
    return s.cast(v, x.dtype) if s.dtype_of(x.dtype) in HALVES and not given(dtype) else v


def _finish(v: Value, axes: tuple[int, ...], keepdims: Any, out: Any) -> Array:
    shape = tuple(d for k, d in enumerate(v.type.shape) if k not in axes)
    return s.result(v if given(keepdims) and keepdims else s.reshaped(v, shape), out)


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Array:
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    v = _mean_kept(s.cast(x.value, _averaging(x, dtype)), axes, where)
    return _finish(_narrow(v, x, dtype), axes, keepdims, out)


def _variance(x: Array, axes: tuple[int, ...], dtype: Any, ddof: Any, where: Any, mean: Any) -> Value:
    """Two passes: the mean first, if it is not given, then the mean of squared deviations (no cancellation)."""
    b, v = builder(), s.cast(x.value, _averaging(x, dtype))
    around = mean if given(mean) else wrap(_mean_kept(v, axes, where))
    deviation = apply(np.subtract, wrap(v), around).value
    if v.type.dtype.kind == "c":
        real, imag = b.real(deviation), b.imag(deviation)
        squares = wrap(b.add(b.mul(real, real), b.mul(imag, imag)))
    else:
        squares = wrap(b.mul(deviation, deviation))
    total = reduce(SUM, squares, axes, squares.dtype, keepdims=True, where=where).value
    return b.div(total, _freedom(_number(total, axes, where, v.type.shape), ddof))


def _freedom(number: Value, ddof: Any) -> Value:
    """The number of elements less ``ddof``, not below 0."""
    known = s.constant_of(number)
    if known is not None and not isinstance(ddof, Array):
        return builder().full(max(known - ddof, 0), number.type)
    freedom = apply(np.maximum, apply(np.subtract, wrap(number), ddof), 0)
    return s.cast(freedom.value, number.type.dtype)


def _ddof(ddof: Any, correction: Any) -> Any:
    if given(correction):
        if ddof != 0:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        return correction
    return ddof


@implements(np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = None,
) -> Array:
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    v = _variance(x, axes, dtype, _ddof(ddof, correction), where, mean)
    return _finish(_narrow(v, x, dtype), axes, keepdims, out)


@implements(np.std)
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = None,
) -> Array:
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    v = safe_sqrt(builder(), _variance(x, axes, dtype, _ddof(ddof, correction), where, mean))
    return _finish(_narrow(v, x, dtype), axes, keepdims, out)


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    x = lift(a)
    if weights is None:
        out = mean.__wrapped__(x, axis, keepdims=keepdims)
        count = s.size_of(s.dims(x)[k] for k in s.some_axes(axis, x.ndim))
        total = wrap(s.expand(s.cast(count, out.dtype), s.dims(out)))
        return (out, total) if returned else out
    w, axes = lift(weights), s.some_axes(axis, x.ndim)
    if s.dims(w) != s.dims(x):
        given_axes = axes if axis is None else normalize_axis_tuple(axis, x.ndim)
        if s.dims(w) != tuple(s.dims(x)[k] for k in given_axes):
            raise ValueError("Shape of weights must be consistent with shape of a along specified axis.")
        w = lift(np.transpose(w, np.argsort(given_axes)))
        w = wrap(kept(w.value, s.dims(x), tuple(k for k in range(x.ndim) if k not in axes)))
    dtype = s.result_type(x, w, np.float64) if x.dtype.kind in "biu" else s.result_type(x, w)
    shape = s.dims(x)
    w = wrap(s.expand(s.cast(w.value, dtype), shape))
    total = reduce(SUM, w, axes, keepdims=keepdims)
    weighted = reduce(SUM, apply(np.multiply, s.as_dtype(x, dtype), w), axes, keepdims=keepdims)
    some = apply(np.not_equal, total, 0).all()  # asked behind both sums, which are one loop so
    builder().check(some.value, error="ZeroDivisionError", message="Weights sum to zero, can't be normalized")
    out = apply(np.divide, weighted, total)
    return (out, total) if returned else out


# -- reductions that pass over NaN -----------------------------------------------------------------------------------


def _without_nan(row: tuple[str, np.ufunc, Any], substitute: Any) -> Any:
    def call(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = None,
        where: Any = True,
    ) -> Array:
        x = lift(a)
        if kind_of(x.dtype) in "fc":
            missing = apply(np.isnan, x)
            y = builder().select(missing.value, s.full(s.dims(x), substitute, x.dtype), x.value)
            value = reduce(row, wrap(y), axis, dtype, None, keepdims, initial, where)
            if row in (MAX, MIN) and not given(initial):
                empty = reduce(ALL, missing, axis, keepdims=keepdims)
                nothing = s.full(s.dims(value), np.nan, x.dtype)
                value = wrap(builder().select(empty.value, nothing, value.value))
            return s.result(value.value, out)
        return reduce(row, x, axis, dtype, out, keepdims, initial, where)

    return call


nansum = implements(np.nansum)(_without_nan(SUM, 0.0))
nanprod = implements(np.nanprod)(_without_nan(PROD, 1.0))
_nanmax, _nanmin = _without_nan(MAX, -np.inf), _without_nan(MIN, np.inf)


@implements(np.nanmax)
def nanmax(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return _nanmax(a, axis, None, out, keepdims, initial, where)


@implements(np.nanmin)
def nanmin(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return _nanmin(a, axis, None, out, keepdims, initial, where)


def _present(a: Any, where: Any) -> tuple[Array, Array]:
    """The array with 0 for NaN (which would spoil derivatives even under a mask), and the mask of the others."""
    x = lift(a)
    missing = apply(np.isnan, x).value
    filled = wrap(builder().select(missing, builder().zeros(x.value.type), x.value))
    present = apply(np.logical_not, wrap(missing))
    return filled, present if where is True or not given(where) else apply(np.logical_and, present, where)


@implements(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Array:
    filled, present = _present(a, where)
    return mean.__wrapped__(filled, axis, dtype, out, keepdims, where=present)


def _spread_without_nan(spread: Any) -> Any:
    def call(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: Any = 0,
        keepdims: Any = False,
        *,
        where: Any = True,
        mean: Any = None,
        correction: Any = None,
    ) -> Array:
        ddof = _ddof(ddof, correction)
        filled, present = _present(a, where)
        found = spread.__wrapped__(filled, axis, dtype, None, ddof, keepdims, where=present, mean=mean)
        return _with_freedom(found, present, axis, ddof, keepdims, out)

    return call


nanvar = implements(np.nanvar)(_spread_without_nan(var))
nanstd = implements(np.nanstd)(_spread_without_nan(std))


def _with_freedom(found: Array, present: Array, axis: Any, ddof: Any, keepdims: Any, out: Any) -> Array:
    """NaN where there are no more elements than ``ddof``."""
    count = reduce(SUM, s.as_dtype(present, np.float64), axis, keepdims=keepdims)
    enough = apply(np.greater, count, lift(ddof))
    return s.result(builder().select(enough.value, found.value, s.full(s.dims(found), np.nan, found.dtype)), out)
