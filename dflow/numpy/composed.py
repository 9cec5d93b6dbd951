"""Numerical recipes that NumPy offers ready-made: integrals, differences, interpolation, convolution, covariance."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.types import I64
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.joining import concatenate, take_value
from dflow.numpy.products import operands
from dflow.numpy.reductions import SUM, reduce
from dflow.numpy.shapes import flat
from dflow.numpy.statistics import mean
from dflow.tracing.array import Array
from dflow.tracing.context import builder
from dflow.tracing.lift import lift, wrap


def along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Array:
    """The sum of trapezoids between neighbouring points."""
    y = lift(y)
    at = s.one_axis(axis, y.ndim)
    width: Any = dx
    if x is not None:
        x = lift(x)
        own = 0 if x.ndim == 1 else at
        width = apply(np.subtract, x[along(own, slice(1, None))], x[along(own, slice(None, -1))])
        width = width.reshape((-1, *(1,) * (y.ndim - at - 1))) if x.ndim == 1 else width
    both = apply(np.add, y[along(at, slice(1, None))], y[along(at, slice(None, -1))])
    return reduce(SUM, apply(np.divide, apply(np.multiply, width, both), 2.0), at)


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences inside, one-sided ones at the ends, over evenly spaced points."""
    x = lift(f)
    x = x if x.dtype.kind == "f" else s.as_dtype(x, np.float64)
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    spacing = list(varargs) * len(axes) if len(varargs) == 1 else list(varargs) or [1.0] * len(axes)
    if edge_order != 1 or len(spacing) != len(axes) or any(lift(h).ndim for h in spacing):
        raise TypeError("np.gradient on traced arrays takes numbers as spacings, one or one an axis, and edge_order=1")
    out = [_difference(x, s.one_axis(k, x.ndim), h) for k, h in zip(axes, spacing)]
    return out[0] if len(out) == 1 else tuple(out)


def _difference(x: Array, axis: int, h: Any) -> Array:
    if s.static(s.dims(x), "np.gradient")[axis] < 2:
        raise ValueError(
            "Shape of array too small to calculate a numerical gradient, at least 2 elements are required."
        )

    def slope(late: slice, early: slice, width: float) -> Array:
        rise = apply(np.subtract, x[along(axis, late)], x[along(axis, early)])
        return apply(np.divide, rise, apply(np.multiply, h, width))

    first, last = slope(slice(1, 2), slice(0, 1), 1.0), slope(slice(-1, None), slice(-2, -1), 1.0)
    return concatenate.__wrapped__([first, slope(slice(2, None), slice(None, -2), 2.0), last], axis)


# -- searching in sorted arrays --------------------------------------------------------------------------------------


def rank_of(points: Value, x: Value, right: bool) -> Value:
    """How many of the sorted ``points`` are below each element of ``x``, or not above it, by binary search."""
    (n,) = s.static(points.type.shape, "a search in a sorted array")
    b, kind = builder(), x.type.with_dtype(I64)

    def halve(b: Any, k: Value, low: Value, high: Value) -> list[Value]:
        middle = b.shr(b.add(low, high), 1)
        point = b.gather(points, b.min(middle, n - 1))
        searching = b.lt(low, high)
        before = b.le(point, x) if right else b.lt(point, x)
        return [
            b.select(b.and_(searching, before), b.add(middle, 1), low),
            b.select(b.and_(searching, b.not_(before)), middle, high),
        ]

    if n == 0:
        return b.zeros(kind)
    return b.for_loop(b.index(n.bit_length()), [b.zeros(kind), b.full(n, kind)], halve)[0]


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Array:
    if side not in ("left", "right") or sorter is not None:
        raise ValueError(f"np.searchsorted on traced arrays takes side 'left' or 'right', and no sorter; got {side!r}")
    points, x = operands(a, v)
    return wrap(rank_of(points, x, side == "right"))


@implements(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Array:
    """Linear interpolation between the points (xp, fp), whose xp increase; constant outside."""
    if period is not None:
        raise TypeError("np.interp with a period is not supported on traced arrays")
    v, px, py = (s.cast(lift(a).value, np.float64) for a in (x, xp, fp))
    if px.type.rank != 1 or px.type.shape != py.type.shape:
        raise ValueError(f"fp and xp are not of the same length: {s.show(py.type.shape)} and {s.show(px.type.shape)}")
    b, (n,) = builder(), s.static(px.type.shape, "np.interp")
    ends = [
        s.part(py, 0, k) if e is None else s.cast(lift(e).value, np.float64) for k, e in ((0, left), (n - 1, right))
    ]
    ends = [s.expand(e, v.type.shape) for e in ends]
    first, last = (s.expand(s.part(px, 0, k), v.type.shape) for k in (0, n - 1))
    inside = s.expand(s.part(py, 0, n - 1), v.type.shape)
    if n > 1:
        at = b.min(b.max(b.sub(rank_of(px, v, True), 1), 0), n - 2)
        x0, y0, x1, y1 = (b.gather(p, i) for i in (at, b.add(at, 1)) for p in (px, py))
        line = b.add(y0, b.mul(b.div(b.sub(y1, y0), b.sub(x1, x0)), b.sub(v, x0)))
        inside = b.select(b.eq(v, last), inside, line)
    y = b.select(b.lt(v, first), ends[0], b.select(b.gt(v, last), ends[1], inside))
    return wrap(b.select(b.isnan(v), v, y))


# -- polynomials and convolution -------------------------------------------------------------------------------------


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Array:
    """Horner's rule; the highest power first."""
    coefficients, x = lift(p), lift(x)
    (n,) = s.static(s.dims(coefficients), "np.polyval")
    y = apply(np.multiply, x, 0)
    for k in range(n):
        y = apply(np.add, apply(np.multiply, y, x), coefficients[k])
    return y


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Array:
    x, y = operands(a, v)
    return wrap(_convolved(x, y, mode))


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Array:
    x, y = operands(a, v)
    return wrap(_convolved(x, wrap(y)[::-1].value, mode))


def _convolved(x: Value, y: Value, mode: str) -> Value:
    """A loop over the shorter one that adds shifted multiples of the longer one."""
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"mode must be one of 'valid', 'same', or 'full' (got {mode!r})")
    (m,), (n,) = (s.static(v.type.shape, "np.convolve") for v in (x, y))
    if 0 in (m, n):
        raise ValueError("convolve: an array cannot be empty")
    long, short, size = (x, y, min(m, n)) if m >= n else (y, x, min(m, n))
    b, length = builder(), max(m, n)

    def body(b: Any, k: Value, total: Value) -> list[Value]:
        weight = b.broadcast_scalar(b.extract(short, k, index=("at",)), long.type.shape)
        return [b.update_add(total, b.mul(long, weight), k, index=(("slice", length, 1),))]

    (full,) = b.for_loop(b.index(size), [b.zeros(long.type.with_shape((length + size - 1,)))], body)
    kept = {"full": (0, length + size - 1), "same": ((size - 1) // 2, length), "valid": (size - 1, length - size + 1)}
    return s.part(full, 0, *kept[mode])


# -- covariance ------------------------------------------------------------------------------------------------------


@implements(np.cov)
def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None) -> Array:
    x = lift(m)
    if y is not None or x.ndim > 2:
        raise TypeError("np.cov on traced arrays takes one array with at most 2 axes")
    rows = x.reshape((1, -1)) if x.ndim < 2 else x if rowvar else x.T
    rows = rows if rows.dtype.kind == "f" else s.as_dtype(rows, np.float64)
    rows = apply(np.subtract, rows, mean.__wrapped__(rows, 1, keepdims=True))
    freedom = rows.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    product = apply(np.divide, rows @ rows.T, max(freedom, 0))
    return wrap(product.value) if x.ndim == 2 and rows.shape[0] > 1 else product.reshape(())


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Array:
    c = cov.__wrapped__(x, y, rowvar)
    if c.ndim == 0:
        return apply(np.divide, c, c)
    spread = apply(np.sqrt, c.diagonal())
    scaled = apply(np.divide, apply(np.divide, c, spread[:, None]), spread[None, :])
    return apply(np.minimum, apply(np.maximum, scaled, -1.0), 1.0)


# -- known positions -------------------------------------------------------------------------------------------------


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Array:
    v = flat(lift(arr).value) if axis is None else lift(arr).value
    at = 0 if axis is None else s.one_axis(axis, v.type.rank)
    if isinstance(obj, Array):
        obj = s.static_int(obj, "the position that np.delete removes")
    (size,) = s.static((v.type.shape[at],), "np.delete")
    return wrap(take_value(v, np.delete(np.arange(size), obj), at))


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Array:
    v = flat(lift(a).value)
    (size,) = s.static(v.type.shape, "np.resize")
    return wrap(take_value(v, np.resize(np.arange(size), new_shape), 0))


@implements(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Array:
    return s.as_dtype(x, dtype)


@implements(np.isreal)
def isreal(x: Any) -> Array:
    return wrap(s.full(s.dims(lift(x)), True, bool))


@implements(np.iscomplex)
def iscomplex(x: Any) -> Array:
    return wrap(s.full(s.dims(lift(x)), False, bool))
