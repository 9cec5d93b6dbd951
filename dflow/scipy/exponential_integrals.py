"""The exponential integrals of f64 arrays. Their derivatives are rules: what computes them is not differentiated."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.scipy.incomplete_gamma import upper_fraction
from dflow.scipy.special_rules import full, unfinished
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.context import builder
from dflow.transforms.custom import custom_jvp

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

EULER = 0.57721566490153286
FAR = 40.0  # from here on Ei(x) exp(-x) has an asymptotic series of all digits


def _power_series(b: Any, x: Value) -> Value:
    """The sum of x^k / (k k!) from k = 1 on (DLMF 6.6.2)."""

    def step(b: Any, k: Value, power: Value, total: Value, term: Value) -> list[Value]:
        count = b.broadcast_scalar(b.convert(b.add(k, 1), dtype=x.type.dtype), x.type.shape)
        power = b.div(b.mul(power, x), count)
        term = b.div(power, count)
        return [b.add(k, 1), power, b.add(total, term), term]

    def more(b: Any, k: Value, power: Value, total: Value, term: Value) -> Value:
        return unfinished(b, k, b.gt(b.abs(term), b.mul(b.abs(total), 1e-18)))

    start = [b.index(0), full(b, x, 1.0), b.zeros(x.type), full(b, x, 1.0)]
    return b.while_loop(start, more, step)[2]


def _asymptotic(b: Any, x: Value) -> Value:
    """Ei(x) exp(-x) for large x: the sum of k! / x^(k + 1) (DLMF 6.12.2)."""
    total = full(b, x, 1.0)
    for k in range(39, 0, -1):
        total = b.add(1.0, b.mul(total, b.div(float(k), x)))
    return b.div(total, x)


def _choice(b: Any, condition: Value, x: Value, otherwise: float) -> Value:
    return b.select(condition, x, full(b, x, otherwise))


def _near(b: Any, x: Value) -> Value:
    """gamma + log |x| + the sum of x^k / (k k!)."""
    return b.add(b.add(b.log(b.abs(x)), EULER), _power_series(b, x))


def _exp1(b: Any, x: Value) -> Value:
    """By the series up to 1, then by the continued fraction of the incomplete gamma function of order 0."""
    close, far = b.and_(b.gt(x, 0.0), b.le(x, 1.0)), b.and_(b.gt(x, 1.0), b.lt(x, np.inf))
    series = b.neg(_near(b, b.neg(_choice(b, close, x, 0.5))))
    at = _choice(b, far, x, 2.0)
    fraction = b.mul(b.exp(b.neg(at)), upper_fraction(b, b.zeros(x.type), at))
    ends = b.select(b.eq(x, 0.0), full(b, x, np.inf), _choice(b, b.ne(x, np.inf), full(b, x, np.nan), 0.0))
    return b.select(close, series, b.select(far, fraction, ends))


@custom_jvp
def exp1(x: Array) -> Array:
    """E1(x), the integral of exp(-t) / t from x on; NaN for negative x."""
    return wrap(_exp1(builder(), x.value))


@exp1.defjvp
def _exp1_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return exp1(x), -np.exp(-x) / x * t


@custom_jvp
def expi(x: Array) -> Array:
    """Ei(x), the principal value of the integral of exp(t) / t up to x."""
    b, v = builder(), x.value
    negative, far = b.lt(v, 0.0), b.ge(v, FAR)
    close = b.not_(b.or_(negative, far))
    below = b.neg(_exp1(b, b.neg(_choice(b, negative, v, -1.0))))
    near = _near(b, _choice(b, close, v, 1.0))
    at = _choice(b, far, v, FAR)
    beyond = b.mul(b.exp(at), _asymptotic(b, at))
    found = b.select(b.eq(v, np.inf), v, b.select(far, beyond, near))
    return wrap(b.select(negative, below, b.select(b.isnan(v), v, found)))


@expi.defjvp
def _expi_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return expi(x), np.exp(x) / x * t


def expn(n: int, x: Array) -> Array:
    """The integral of exp(-x t) / t^n from 1 on, for x >= 0."""
    if n == 0:
        return np.where(x >= 0, np.exp(-x) / x, np.nan)
    return exp1(x) if n == 1 else _expn_of(n)(x)


def _expn_of(n: int) -> Any:
    @custom_jvp
    def of(x: Array) -> Array:
        b, v = builder(), x.value
        far = b.and_(b.gt(v, 1.0), b.lt(v, np.inf))
        at = _choice(b, far, v, 2.0)
        fraction = b.mul(b.exp(b.neg(at)), upper_fraction(b, full(b, v, 1.0 - n), at))
        small = _choice(b, b.and_(b.gt(v, 0.0), b.le(v, 1.0)), v, 0.5)
        found, power = _exp1(b, small), b.exp(b.neg(small))
        for k in range(1, n):  # DLMF 8.19.12
            found = b.div(b.sub(power, b.mul(small, found)), float(k))
        found = b.select(b.eq(v, 0.0), full(b, v, 1.0 / (n - 1)), found)
        found = b.select(far, fraction, _choice(b, b.ne(v, np.inf), found, 0.0))
        return wrap(b.select(b.ge(v, 0.0), found, full(b, v, np.nan)))

    @of.defjvp
    def of_jvp(primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        return of(x), -expn(n - 1, x) * t

    return of
