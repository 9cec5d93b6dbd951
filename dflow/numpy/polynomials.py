"""Polynomials as arrays of coefficients, the highest power first."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.tracing.array import Array
from dflow.tracing.lift import lift

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
        raise TypeError("np.poly of a traced matrix is not supported; give its eigenvalues")
    roots = roots * 1.0
    out = lift(np.ones(1, roots.dtype))
    for k in range(roots.size):
        out = np.convolve(out, np.stack([np.ones((), roots.dtype) + 0 * roots[k], -roots[k]]))
    return out
