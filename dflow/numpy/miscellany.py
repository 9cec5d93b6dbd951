"""Functions that are a line or two of others: comparisons of whole arrays, windows, series, NaN-skipping positions."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.creation import asarray
from dflow.numpy.dispatch import implements
from dflow.numpy.reductions import EVERYTHING
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


@implements(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> Array:
    x, y = lift(a1), lift(a2)
    try:
        s.broadcast_shapes(s.dims(x), s.dims(y))
    except ValueError:
        return lift(False)
    return np.all(x == y)


def _nan_position(plain: Any, worst: float, name: str) -> Any:
    def call(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = EVERYTHING) -> Array:
        x = lift(a)
        if kind_of(x.dtype) in "fc":
            missing = np.isnan(x)
            empty = np.any(np.all(missing, axis=axis))
            builder().check(builder().not_(empty.value), error="ValueError", message="All-NaN slice encountered")
            x = np.where(missing, np.asarray(worst, x.dtype), x)
        return plain(x, axis=axis, out=out, keepdims=keepdims)

    call.__name__ = name
    return call


nanargmax = implements(np.nanargmax)(_nan_position(np.argmax, -np.inf, "nanargmax"))
nanargmin = implements(np.nanargmin)(_nan_position(np.argmin, np.inf, "nanargmin"))


@implements(np.i0)
def i0(x: Any) -> Array:
    """The modified Bessel function of order 0."""
    x = lift(x)
    if x.dtype.kind == "c":
        raise TypeError("i0 not supported for complex values")
    return wrap(builder().i0((x if kind_of(x.dtype) == "f" else s.as_dtype(x, np.float64)).value))


@implements(np.kaiser)
def kaiser(M: Any, beta: Any) -> Array:
    count = s.static_int(M, "M")
    if count == 1:
        return lift(np.ones(1))
    n = np.arange(count)
    alpha = (count - 1) / 2.0
    beta = lift(beta)
    return i0.__wrapped__(beta * np.sqrt(1 - ((n - alpha) / alpha) ** 2.0)) / i0.__wrapped__(beta)


@implements(np.geomspace)
def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Array:
    """Evenly spaced on a logarithmic scale; both ends, where they belong to it, are exact."""
    first, last = np.broadcast_arrays(lift(start) * 1.0, lift(stop) * 1.0)
    count = s.static_int(num, "the number of points")
    ratio = np.log(last / first)
    shape = (count, *(1,) * first.ndim)
    steps = (np.arange(count) / max(count - 1 if endpoint else count, 1)).reshape(shape)
    points = first * np.exp(ratio * steps)
    if count > 1 and endpoint:
        points = np.concatenate([points[:-1], last[None]], 0)
    return np.moveaxis(s.as_dtype(points, dtype or points.dtype), 0, axis)


@implements(np.real_if_close)
def real_if_close(a: Any, tol: Any = 100) -> Array:
    x = lift(a)
    if x.dtype.kind == "c":
        raise TypeError("whether np.real_if_close gives real numbers depends on the data; take np.real(x)")
    return x


@implements(np.isscalar)
def isscalar(element: Any) -> bool:
    return isinstance(element, Array) and not element.ndim


@implements(np.asarray_chkfinite)
def asarray_chkfinite(a: Any, dtype: Any = None, order: Any = None) -> Array:
    x = asarray.__wrapped__(lift(a), dtype, order)
    if x.dtype.kind in "fc":
        builder().check(np.all(np.isfinite(x)).value, error="ValueError", message="array must not contain infs or NaNs")
    return x


@implements(np.require)
def require(a: Any, dtype: Any = None, requirements: Any = None, *, like: Any = None) -> Array:
    x = asarray.__wrapped__(lift(a), dtype)
    wanted = {str(r).upper()[:1] for r in requirements or ()}  # C, F, and what every array has or must not need
    order = next((o for o in ("F", "C") if o in wanted), "A")
    fits = order == "A" or x.is_contiguous(order)
    return x if fits and wanted.isdisjoint("EO") else x.copy(order)


@implements(np.array_repr, np.array_str)
def array_repr(a: Any, *args: Any, **kwargs: Any) -> str:
    return repr(a)


@implements(np.isreal)
def isreal(x: Any) -> Array:
    return np.imag(lift(x)) == 0


@implements(np.iscomplex)
def iscomplex(x: Any) -> Array:
    return np.imag(lift(x)) != 0


# -- bits ------------------------------------------------------------------------------------------------------------


@implements(np.packbits)
def packbits(a: Any, /, axis: Any = None, bitorder: str = "big") -> Array:
    x = _bits_first(a, axis)
    n = x.shape[0]
    x = np.concatenate([x != 0, np.zeros((-n % 8, *x.shape[1:]), bool)]).reshape(-1, 8, *x.shape[1:])
    weights = _weights(bitorder).reshape(8, *[1] * (x.ndim - 2))
    return _axis_back(s.as_dtype((x * weights).sum(axis=1), np.uint8), axis)


@implements(np.unpackbits)
def unpackbits(a: Any, /, axis: Any = None, count: Any = None, bitorder: str = "big") -> Array:
    x = _bits_first(a, axis)
    if x.dtype != np.uint8:
        raise TypeError("Expected an input array of unsigned byte data type")
    weights = _weights(bitorder).reshape(8, *[1] * (x.ndim - 1)).astype(np.uint8)
    bits = s.as_dtype((x[:, None] & weights) != 0, np.uint8).reshape(-1, *x.shape[1:])
    if count is not None:
        count = s.static_int(count, "count")
        bits = bits[:count] if count <= bits.shape[0] else _padded(bits, count - bits.shape[0])
    return _axis_back(bits, axis)


def _padded(bits: Array, more: int) -> Array:
    return np.concatenate([bits, np.zeros((more, *bits.shape[1:]), np.uint8)])


def _weights(bitorder: str) -> Any:
    if bitorder not in ("big", "little"):
        raise ValueError("'order' must be either 'little' or 'big'")
    found = 2 ** numpy.arange(8)
    return found[::-1] if bitorder == "big" else found


def _bits_first(a: Any, axis: Any) -> Array:
    x = lift(a)
    if x.dtype.kind not in "biu":
        raise TypeError("Expected an input array of integer or boolean data type")
    return x.ravel() if axis is None else np.moveaxis(x, axis, 0)


def _axis_back(x: Array, axis: Any) -> Array:
    return x if axis is None else np.moveaxis(x, 0, axis)
