"""Polynomials as arrays of coefficients, the highest power first."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.ir.types import finfo
from dflow.numpy import support as s
from dflow.numpy.dispatch import CALLABLES, implements
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def _coefficients(p: Any) -> Array:
    return np.atleast_1d(lift(p))


def _together(p: Any, q: Any) -> tuple[Array, Array]:
    """Both with leading zeros, so that they have one length."""
    x, y = _coefficients(p), _coefficients(q)
    n = max(x.size, y.size)
    x, y = (np.concatenate([np.zeros(n - v.size, v.dtype), v]) if v.size < n else v for v in (x, y))
    return x, y


@implements(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Array:
    x, y = _together(a1, a2)
    return x + y


@implements(np.polysub)
def polysub(a1: Any, a2: Any) -> Array:
    x, y = _together(a1, a2)
    return x - y


@implements(np.polymul)
def polymul(a1: Any, a2: Any) -> Array:
    """Leading zeros stay: whether a traced coefficient is 0 is not known."""
    return np.convolve(_coefficients(a1), _coefficients(a2))


@implements(np.polydiv)
def polydiv(u: Any, v: Any) -> tuple[Array, Array]:
    """Quotient and remainder; the remainder keeps its leading zeros."""
    rest, divisor = _coefficients(u) * 1.0, _coefficients(v) * 1.0
    m, n = rest.size - 1, divisor.size - 1
    kind = s.result_type(rest, divisor)
    rest, divisor = s.as_dtype(rest, kind).copy(), s.as_dtype(divisor, kind)
    if m < n:
        return lift(np.zeros(1, kind)), rest
    steps = []
    for k in range(m - n + 1):
        steps.append(rest[k] / divisor[0])
        rest[k : k + n + 1] = rest[k : k + n + 1] - steps[-1] * divisor
    return np.stack(steps), rest[m - n + 1 :] if n else rest[-1:] * 0


@implements(np.polyder)
def polyder(p: Any, m: int = 1) -> Array:
    x, order = _coefficients(p), s.static_int(m, "m")
    if order < 0:
        raise ValueError("Order of derivative must be positive (see polyint)")
    for _ in range(order):
        x = x[:-1] * np.arange(x.size - 1, 0, -1)
    return x


@implements(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Array:
    x, order = _coefficients(p), s.static_int(m, "m")
    if order < 0:
        raise ValueError("Order of integral must be positive (see polyder)")
    constants = np.broadcast_to(lift(0.0 if k is None else k), (order,)) if order else None
    for j in range(order):
        x = np.concatenate([x / np.arange(x.size, 0, -1), constants[j : j + 1]])  # type: ignore[index]
    return x


@implements(np.poly)
def poly(seq_of_zeros: Any) -> Array:
    """The coefficients of the polynomial with the given roots."""
    roots = np.atleast_1d(lift(seq_of_zeros))
    if roots.ndim != 1:
        found = poly.__wrapped__(np.linalg.eigvals(roots))
        return found if roots.dtype.kind == "c" else found.real
    roots = roots * 1.0
    out = lift(np.ones(1, roots.dtype))
    for k in range(roots.size):
        out = np.convolve(out, np.stack([np.ones((), roots.dtype) + 0 * roots[k], -roots[k]]))
    return out


@implements(np.roots)
def roots(p: Any) -> Array:
    """All roots, the eigenvalues of the companion matrix: complex numbers. ValueError where the first coefficient is 0:
    how many roots there are is known when the function is compiled."""
    x = _coefficients(p) * 1.0
    if x.ndim != 1:
        raise ValueError("Input must be a rank-1 array.")
    n = x.size - 1
    if n < 1:
        return lift(np.zeros(0, np.result_type(x.dtype, np.complex64)))
    b = builder()
    message = "np.roots in a compiled function needs a first coefficient that is not zero"
    b.check((x[0] != 0).value, error="ValueError", message=message)
    first = lift(-x[1:] / x[0]).reshape(1, n)
    return np.linalg.eigvals(np.concatenate([first, np.eye(n - 1, n, dtype=x.dtype)]))


@implements(np.polyfit)
def polyfit(x: Any, y: Any, deg: Any, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False) -> Any:
    """As NumPy's. Where columns turn out to be linearly dependent, derivatives are those of ``lstsq``."""
    order = s.static_int(deg, "deg") + 1
    x, y = lift(x) * 1.0, lift(y) * 1.0
    if order < 1:
        raise ValueError("expected deg >= 0")
    if x.ndim != 1 or y.ndim not in (1, 2) or s.dims(x) == (0,) or sizes.agreed(s.dims(x)[0], s.dims(y)[0]) is None:
        raise TypeError("np.polyfit takes a vector x that is not empty, and y of one or two axes and of its length")
    sizes.require_elements(s.dims(x), (0,), "expected non-empty vector for x")
    limit = x.size * finfo(x.dtype).eps if rcond is None else rcond
    left, right = np.vander(x, order), y
    if w is not None:
        weights = lift(w) * 1.0
        left, right = left * weights[:, None], (right.T * weights).T
    scale = np.sqrt((left * left).sum(axis=0))
    c, residuals, rank, singular = np.linalg.lstsq(left / scale, right, limit)
    c = (c.T / scale).T
    if full:
        return c, residuals, rank, singular, limit
    if not cov:
        return c
    (count,) = s.static(s.dims(x), "the covariance of np.polyfit")
    return c, _covariance(left, scale, residuals, count - order, cov, y.ndim == 1)


def _covariance(left: Array, scale: Array, residuals: Array, freedom: int, cov: Any, one: bool) -> Array:
    scaled = left / scale
    base = np.linalg.inv(scaled.T @ scaled) / np.outer(scale, scale)
    if cov == "unscaled":
        return base if one else base[:, :, None]
    if freedom <= 0:
        raise ValueError("the number of data points must exceed order to scale the covariance matrix")
    factor = residuals / freedom
    return base * factor if one else base[:, :, None] * factor


@implements(np.trim_zeros)
def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Array:
    """The array without zeros at the ends of its axes; how large it is shows when the program runs."""
    x = lift(filt)
    if sorted(trim.lower()) not in (["f"], ["b"], ["b", "f"]):
        raise ValueError(f"unexpected character(s) in `trim`: {trim!r}")
    axes = s.some_axes(axis, x.ndim)
    if not axes:
        return x
    masks = [np.any(x != 0, axis=tuple(j for j in range(x.ndim) if j != k)) for k in axes]
    for axis, mask in zip(axes, masks):
        ahead = np.cumsum(mask) > 0 if "f" in trim.lower() else mask | True
        behind = np.cumsum(mask[::-1])[::-1] > 0 if "b" in trim.lower() else mask | True
        x = np.compress(ahead & behind, x, axis=axis)
    return x


CALLABLES[np.poly1d] = lambda p, x: np.polyval(p.coeffs, x)
