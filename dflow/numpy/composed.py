"""Numerical recipes that NumPy offers ready-made: integrals, differences, interpolation, convolution, covariance."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.ir.types import I64, kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.joining import take_value
from dflow.numpy.products import operands
from dflow.numpy.reductions import SUM, reduce
from dflow.numpy.shapes import flat
from dflow.numpy.sorting import missing_parts
from dflow.numpy.statistics import mean
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way
FEW, LONG = 16, 512  # weights of a filter that are written out, and elements that are worth it


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
    """Differences of second order inside, of first or second order at the ends; spacings or coordinates an axis."""
    x = lift(f)
    if x.dtype.kind == "b":
        raise TypeError("np.gradient of truth values: NumPy does not subtract them")
    x = x if kind_of(x.dtype) in "fc" else s.as_dtype(x, np.float64)
    axes = s.some_axes(None, x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    varargs = tuple(_distances(lift(h)) for h in varargs)
    spacing = list(varargs) * len(axes) if len(varargs) == 1 and not lift(varargs[0]).ndim else list(varargs)
    spacing = spacing or [1.0] * len(axes)
    if len(spacing) != len(axes):
        raise TypeError("invalid number of arguments")
    if edge_order not in (1, 2):
        raise ValueError("'edge_order' greater than 2 not supported")
    out = [_slopes(x, s.one_axis(k, x.ndim), lift(h), edge_order) for k, h in zip(axes, spacing)]
    return out[0] if len(out) == 1 else tuple(out)


def _distances(h: Array) -> Array:
    """Coordinates as floats: differences of integers could wrap around."""
    return s.as_dtype(h, np.float64) if h.ndim and h.dtype.kind in "iu" else h


def _slopes(x: Array, axis: int, h: Array, edge_order: int) -> Array:
    (n,) = s.static(s.dims(x)[axis : axis + 1], "np.gradient")
    if n < edge_order + 1:
        raise ValueError(
            "Shape of array too small to calculate a numerical gradient, at least (edge_order + 1) elements are "
            "required."
        )
    if h.ndim and h.shape != (n,):
        raise ValueError("when 1d, distances must match the length of the corresponding dimension")
    y = np.moveaxis(x, axis, 0)
    if h.ndim:
        width = np.diff(h).reshape((-1, *(1,) * (x.ndim - 1)))
        a, b = width[:-1], width[1:]
        inside = -b / (a * (a + b)) * y[:-2] + (b - a) / (a * b) * y[1:-1] + a / (b * (a + b)) * y[2:]
        first, last = width[0], width[-1]
    else:
        inside = (y[2:] - y[:-2]) / (2.0 * h)
        first = last = a = b = h
    if edge_order == 1:
        ends = [(y[1] - y[0]) / first, (y[-1] - y[-2]) / last]
    else:
        widths = [(a[0], b[0]), (b[-1], a[-1])] if h.ndim else [(h, h), (h, h)]
        ends = [_end(*y[:3], *widths[0]), -_end(*y[:-4:-1], *widths[1])]
    parts = [ends[0][None], inside, ends[1][None]]
    return np.moveaxis(np.concatenate(parts, 0), 0, axis)


def _end(y0: Any, y1: Any, y2: Any, a: Any, b: Any) -> Any:
    """The slope at the first of three points, of the parabola through them."""
    return -(2.0 * a + b) / (a * (a + b)) * y0 + (a + b) / (a * b) * y1 - a / (b * (a + b)) * y2


@implements(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * np.pi) -> Array:
    """Jumps of more than half a period taken back by whole periods."""
    x = lift(p)
    kind = s.result_type(x, period)
    x = s.as_dtype(x, kind) if x.dtype != kind else x
    step = np.diff(x, axis=axis)
    half = period / 2 if kind_of(kind) == "f" else period // 2
    boundary_ambiguous = kind_of(kind) == "f" or period % 2 == 0
    wrapped = (step + half) % period - half
    if boundary_ambiguous:
        wrapped = np.where((wrapped == -half) & (step > 0), half, wrapped)
    correction = np.where(np.abs(step) < (half if discont is None else np.maximum(discont, half)), 0, wrapped - step)
    shape = [1 if k == s.one_axis(axis, x.ndim) else d for k, d in enumerate(x.shape)]
    shifts = np.concatenate([np.zeros(shape, kind), s.as_dtype(np.cumsum(correction, axis), kind)], axis)
    return x + shifts


# -- searching in sorted arrays --------------------------------------------------------------------------------------


def rank_of(points: Value, x: Value, right: bool) -> Value:
    """How many of the sorted ``points`` are below each element of ``x``, or not above it, by binary search."""
    (n,) = s.static(points.type.shape, "a search in a sorted array")
    b, kind = builder(), x.type.with_dtype(I64)
    keys, wanted = _keys(points), _keys(x)

    steps = n.bit_length()

    def double(b: Any, step: Value, low: Value) -> Value:
        """``step`` further, where the point before that is still one to count."""
        further = b.add(low, b.broadcast_scalar(step, low.type.shape))
        last = b.min(further, n)
        before = _all_precede(b, [b.gather(key, b.sub(last, 1)) for key in keys], wanted, right)
        return b.select(b.and_(before, b.eq(last, further)), further, low)

    if n == 0:
        return b.zeros(kind)
    if prod(x.type.bound) >= LONG:  # one pass over memory, or a few
        low = b.zeros(kind)
        for k in reversed(range(steps)):
            low = double(b, b.index(1 << k), low)
        return low

    def body(b: Any, k: Value, low: Value) -> list[Value]:
        return [double(b, b.shr(b.index(1 << (steps - 1)), k), low)]

    return b.for_loop(b.index(steps), [b.zeros(kind)], body)[0]


def _precedes(b: Any, point: Value, x: Value, right: bool) -> Value:
    """Whether a point comes before ``x``; NaN comes after everything else, as sorting has it."""
    before = b.le(point, x) if right else b.lt(point, x)
    if not x.type.dtype.is_float:
        return before
    return b.or_(before, b.isnan(x) if right else b.and_(b.isnan(x), b.not_(b.isnan(point))))


def _keys(v: Value) -> list[Value]:
    """By what numbers are in order: complex ones by the parts that are NaN, the real part and the imaginary one."""
    b = builder()
    return [missing_parts(v), b.real(v), b.imag(v)] if v.type.dtype.kind == "c" else [v]


def _all_precede(b: Any, point: list[Value], x: list[Value], right: bool) -> Value:
    """Whether a point comes before ``x`` by the first key, where they are equal by the next, and so on."""
    if len(x) == 1:
        return _precedes(b, point[0], x[0], right)
    first = _precedes(b, point[0], x[0], False)
    same = b.not_(b.or_(first, _precedes(b, x[0], point[0], False)))
    return b.or_(first, b.and_(same, _all_precede(b, point[1:], x[1:], right)))


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Array:
    if side not in ("left", "right"):
        raise ValueError(f"search side must be 'left' or 'right' (got {side!r})")
    points, x = operands(a if sorter is None else lift(a)[sorter], v)
    return wrap(rank_of(points, x, side == "right"))


@implements(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Array:
    """Linear interpolation between the points (xp, fp), whose xp increase; constant outside."""
    if "c" in (lift(x).dtype.kind, lift(xp).dtype.kind):
        raise TypeError("Cannot cast array data from complex to float64 according to the rule 'safe'")
    if lift(fp).dtype.kind == "c":
        parts = []
        for part in (np.real, np.imag):
            sides = [None if e is None else part(lift(e)) for e in (left, right)]
            parts.append(interp.__wrapped__(x, xp, part(lift(fp)), *sides, period).value)
        return wrap(builder().emit("complex", *parts))
    if period is not None:
        return _periodic(x, xp, fp, period)
    v, px, py = (s.cast(lift(a).value, np.float64) for a in (x, xp, fp))
    if px.type.rank != 1 or px.type.shape != py.type.shape:
        raise ValueError(f"fp and xp are not of the same length: {s.show(py.type.shape)} and {s.show(px.type.shape)}")
    b, (n,) = builder(), s.static(px.type.shape, "np.interp")
    if n == 0:
        raise ValueError("array of sample points is empty")
    ends = [
        s.part(py, 0, k) if e is None else s.cast(lift(e).value, np.float64) for k, e in ((0, left), (n - 1, right))
    ]
    ends = [s.expand(e, v.type.shape) for e in ends]
    first, last = (s.expand(s.part(px, 0, k), v.type.shape) for k in (0, n - 1))
    inside = s.expand(s.part(py, 0, n - 1), v.type.shape)
    if n > 1:
        at = b.min(b.max(b.sub(rank_of(px, v, True), 1), 0), n - 2)
        x0, y0, x1, y1 = (b.gather(p, i) for i in (at, b.add(at, 1)) for p in (px, py))
        slope = b.div(b.sub(y1, y0), b.sub(x1, x0))
        line = b.add(y0, b.mul(slope, b.sub(v, x0)))
        # Where numbers are not finite: from the other point; then a point itself, or what both have in common.
        other = b.add(y1, b.mul(slope, b.sub(v, x1)))
        other = b.select(b.or_(b.eq(v, x0), b.and_(b.isnan(other), b.eq(y0, y1))), y0, other)
        line = b.select(b.isnan(line), other, line)
        inside = b.select(b.eq(v, last), inside, line)
    y = b.select(b.lt(v, first), ends[0], b.select(b.gt(v, last), ends[1], inside))
    return wrap(b.select(b.isnan(v), v, y) if n > 1 else y)


def _periodic(x: Any, xp: Any, fp: Any, period: Any) -> Array:
    """Interpolation on a circle: the points in order, the last one also before the first, the first after the last."""
    period = np.abs(lift(period))
    builder().check((period != 0).value, error="ValueError", message="period must be a non-zero value")
    x, at = lift(x) % period, lift(xp) % period
    order = np.argsort(at)
    at, values = at[order], lift(fp)[order]
    at = np.concatenate([at[-1:] - period, at, at[:1] + period])
    return interp.__wrapped__(x, at, np.concatenate([values[-1:], values, values[:1]]))


# -- polynomials and convolution -------------------------------------------------------------------------------------


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Array:
    """Horner's rule; the highest power first. Coefficients may be arrays, the rows of ``p``."""
    coefficients, x = lift(p), lift(x)
    if not coefficients.ndim:
        raise TypeError("np.polyval takes a sequence of coefficients, not one number")
    (n,) = s.static(s.dims(coefficients)[:1], "np.polyval")
    y = apply(np.multiply, x, 0)
    for k in range(n):
        y = apply(np.add, apply(np.multiply, y, x), coefficients[k])
    return y


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Array:
    x, y = operands(*(lift(z).reshape(-1) if not s.rank(z) else z for z in (a, v)))
    return wrap(_convolved(x, y, mode))


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Array:
    x, y = operands(a, v)
    y = apply(np.conjugate, wrap(y)).value if y.type.dtype.kind == "c" else y
    return wrap(_convolved(x, wrap(y)[::-1].value, mode, turned=x.type.shape < y.type.shape))


def _convolved(x: Value, y: Value, mode: str, turned: bool = False) -> Value:
    """A loop over the shorter one that adds shifted multiples of the longer one. ``turned``: what ``mode`` keeps is
    counted from the other end."""
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"mode must be one of 'valid', 'same', or 'full' (got {mode!r})")
    if x.type.dtype.kind == "b":  # whether any two that meet are true
        found = _convolved(s.cast(x, np.int64), s.cast(y, np.int64), mode, turned)
        return builder().ne(found, 0)
    (m,), (n,) = (s.static(v.type.shape, "np.convolve") for v in (x, y))
    if 0 in (m, n):
        raise ValueError("convolve: an array cannot be empty")
    long, short, size = (x, y, min(m, n)) if m >= n else (y, x, min(m, n))
    b, length = builder(), max(m, n)

    def add(b: Any, k: Value, total: Value) -> Value:
        weight = b.broadcast_scalar(b.extract(short, k, index=("at",)), long.type.shape)
        return b.update_add(total, b.mul(long, weight), k, index=(("slice", length, 1),))

    full = b.zeros(long.type.with_shape((length + size - 1,)))
    if size <= FEW and length >= LONG:
        for k in range(size):
            full = add(b, b.index(k), full)
    else:
        (full,) = b.for_loop(b.index(size), [full], lambda b, k, total: [add(b, k, total)])
    kept = {
        "full": (0, length + size - 1),
        "same": ((size - (not turned)) // 2, length),
        "valid": (size - 1, length - size + 1),
    }
    return s.part(full, 0, *kept[mode])


# -- covariance ------------------------------------------------------------------------------------------------------


@implements(np.cov)
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: Any = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Array:
    rows = _variables(m, rowvar, dtype)
    if y is not None:
        rows = np.concatenate([rows, _variables(y, rowvar, dtype)], 0)
    weights = None
    for w in (fweights, aweights):
        if w is not None:
            weights = lift(w) * 1.0 if weights is None else weights * w
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")
    freedom = (0 if bias else 1) if ddof is None else ddof
    if weights is None:
        total, mean_row = rows.shape[1], mean.__wrapped__(rows, 1, keepdims=True)
    else:
        total = np.sum(weights)
        mean_row = np.sum(rows * weights, 1, keepdims=True) / total
        if aweights is not None and freedom:
            freedom = freedom * np.sum(weights * aweights) / total
    rest = rows - mean_row
    scaled = rest if weights is None else rest * weights
    product = scaled @ np.conj(rest).T
    product = s.as_dtype(product / np.maximum(total - freedom, 0), product.dtype)
    return product.reshape(()) if product.shape[0] == 1 else product


def _variables(m: Any, rowvar: bool, dtype: Any) -> Array:
    """One variable a row, centred nowhere yet."""
    x = lift(m)
    if x.ndim > 2:
        raise ValueError("m has more than 2 dimensions")
    rows = x.reshape((1, -1)) if x.ndim < 2 else x if rowvar else x.T
    kind = s.result_type(rows, np.float64) if dtype is None else dtype
    return s.as_dtype(rows, kind)


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Array:
    c = cov.__wrapped__(x, y, rowvar, dtype=dtype)
    if c.ndim == 0:
        return apply(np.divide, c, c)
    spread = apply(np.sqrt, np.real(c.diagonal()))
    scaled = apply(np.divide, apply(np.divide, c, spread[:, None]), spread[None, :])
    return scaled if scaled.dtype.kind == "c" else apply(np.minimum, apply(np.maximum, scaled, -1.0), 1.0)


# -- known positions -------------------------------------------------------------------------------------------------


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Array:
    v = flat(lift(a).value)
    (size,) = s.static(v.type.shape, "np.resize")
    return wrap(take_value(v, np.resize(np.arange(size), new_shape), 0))


@implements(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Array:
    return lift(x).astype(dtype, copy=copy)
