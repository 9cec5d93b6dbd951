"""The incomplete gamma functions in operations of the IR: by a series, by a continued fraction, and for large ``a`` by
an expansion that holds for all ``x``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.scipy.special_rules import Rule, full, off, unfinished

# From this ``a`` on the series and the fraction would take thousands of terms.
LARGE = 1e5


def _lower_series(b: Any, a: Value, x: Value) -> Value:
    """The sum of x^k / ((a + 1) ... (a + k)) (DLMF 8.7.1)."""

    def step(b: Any, k: Value, term: Value, total: Value) -> list[Value]:
        count = b.broadcast_scalar(b.convert(b.add(k, 1), dtype=x.type.dtype), x.type.shape)
        term = b.mul(term, b.div(x, b.add(a, count)))
        return [b.add(k, 1), term, b.add(total, term)]

    one = full(b, x, 1.0)
    more = lambda b, k, term, total: unfinished(b, k, b.gt(term, b.mul(total, 1e-18)))  # noqa: E731
    return b.while_loop([b.index(0), one, one], more, step)[2]


def upper_fraction(b: Any, a: Value, x: Value) -> Value:
    """The continued fraction of DLMF 8.9.2 (its even part), by the method of Lentz. Each element stays as it is from
    where it has converged."""
    bottom = b.sub(b.add(x, 1.0), a)
    first = b.div(1.0, bottom)

    def step(b: Any, k: Value, d: Value, c: Value, h: Value, going: Value) -> list[Value]:
        i = b.broadcast_scalar(b.convert(b.add(k, 1), dtype=x.type.dtype), x.type.shape)
        top = b.mul(i, b.sub(a, i))
        below = b.add(bottom, b.mul(i, 2.0))
        d = b.div(1.0, b.add(b.mul(top, d), below))
        c = b.add(below, b.div(top, c))
        change = b.mul(c, d)
        return [b.add(k, 1), d, c, b.select(going, b.mul(h, change), h), b.and_(going, off(b, change))]

    def more(b: Any, k: Value, d: Value, c: Value, h: Value, going: Value) -> Value:
        return unfinished(b, k, going)

    start = [b.index(0), first, full(b, x, 1e300), first, off(b, full(b, x, 2.0))]
    return b.while_loop(start, more, step)[3]


def _front(b: Any, a: Value, x: Value, shift: float) -> Value:
    """x^a exp(-x) / gamma(a + shift); its derivatives are right at x = 0 too. As a product where neither factor leaves
    the numbers of f64."""
    small = b.and_(b.lt(a, 100.0), b.lt(x, 200.0))
    power = b.pow(b.select(small, x, full(b, x, 1.0)), b.select(small, a, full(b, a, 1.0)))
    plain = b.mul(power, b.exp(b.neg(b.add(x, b.lgamma(b.add(b.select(small, a, full(b, a, 1.0)), shift))))))
    usable = b.and_(b.not_(small), b.gt(x, 0.0))
    wide_x, wide_a = b.select(usable, x, full(b, x, 1.0)), b.select(usable, a, full(b, a, 1.0))
    exponent = b.sub(b.sub(b.mul(wide_a, b.log(wide_x)), wide_x), b.lgamma(b.add(wide_a, shift)))
    return b.select(small, plain, b.select(usable, b.exp(exponent), b.zeros(x.type)))


# -- large a -----------------------------------------------------------------------------------------------------------

# The expansion of DLMF 8.12.7 and 8.12.8: with eta^2 / 2 = mu - log(1 + mu), mu = x / a - 1, the coefficients of 1,
# 1 / a and 1 / a^2 as series in eta (by the recursion 8.12.11). From a = LARGE on, what is left at |mu| = NEAR is less
# than the smallest number, and there the series have all the digits of f64.
NEAR = 0.13
_BY_ETA = (
    (
        *(-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -1.787551440329218e-04, 3.919263178522438e-05),
        *(-2.185448510679992e-06, -1.85406221071516e-06, 8.296711340953087e-07, -1.7665952736826078e-07),
    ),
    (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 2.0576131687242798e-04),
    (25 / 6048, -139 / 51840),
)
# (mu - log(1 + mu)) / mu^2 = 1/2 - mu/3 + mu^2/4 - ...
_GAP = tuple((-1.0) ** k / (k + 2) for k in range(20))


def _polynomial(b: Any, x: Value, coefficients: tuple[float, ...]) -> Value:
    total = full(b, x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = b.add(b.mul(total, x), c)
    return total


def _uniform(b: Any, a: Value, x: Value, upper: bool) -> Value:
    away = b.div(b.sub(x, a), a)
    near = b.lt(b.abs(away), NEAR)
    mu = b.select(near, away, b.zeros(x.type))
    gap = _polynomial(b, mu, _GAP)
    eta = b.mul(mu, b.sqrt(b.mul(gap, 2.0)))
    rest = b.zeros(x.type)
    for coefficients in reversed(_BY_ETA):
        rest = b.add(b.div(rest, a), _polynomial(b, eta, coefficients))
    density = b.div(b.exp(b.neg(b.mul(a, b.mul(b.mul(mu, mu), gap)))), b.sqrt(b.mul(a, 2 * math.pi)))
    rest = b.mul(density, rest)
    z = b.mul(eta, b.sqrt(b.mul(a, 0.5)))
    tail = b.mul(b.erfc(z if upper else b.neg(z)), 0.5)
    value = b.add(tail, rest) if upper else b.sub(tail, rest)
    ends = [full(b, x, number) for number in ((0.0, 1.0) if upper else (1.0, 0.0))]
    return b.select(near, value, b.select(b.gt(away, 0.0), *ends))


# ----------------------------------------------------------------------------------------------------------------------


def _incomplete(b: Any, a: Value, x: Value, upper: bool) -> Value:
    finite = b.and_(b.lt(a, np.inf), b.lt(x, np.inf))
    inside = b.and_(b.and_(b.gt(a, 0.0), b.ge(x, 0.0)), finite)
    large = b.and_(inside, b.ge(a, LARGE))
    vanishing = b.ge(x, 1e6)  # beside a < LARGE
    direct = b.and_(inside, b.not_(b.or_(large, vanishing)))
    by_series = b.and_(direct, b.lt(x, b.add(a, 1.0)))
    by_fraction = b.and_(direct, b.not_(by_series))
    one = full(b, x, 1.0)
    a_low, x_low = b.select(by_series, a, one), b.select(by_series, x, one)
    low = b.mul(_front(b, a_low, x_low, 1.0), _lower_series(b, a_low, x_low))
    a_high, x_high = b.select(by_fraction, a, one), b.select(by_fraction, x, full(b, x, 4.0))
    high = b.mul(_front(b, a_high, x_high, 0.0), upper_fraction(b, a_high, x_high))
    value = b.select(by_series, b.sub(1.0, low) if upper else low, high if upper else b.sub(1.0, high))
    wide_a, wide_x = (b.select(large, v, full(b, v, 2 * LARGE)) for v in (a, x))
    value = b.select(large, _uniform(b, wide_a, wide_x, upper), value)
    none, all_ = (full(b, x, number) for number in ((1.0, 0.0) if upper else (0.0, 1.0)))
    # Where x is far beyond a, where nothing but x is left, and where a is.
    whole = b.and_(b.lt(a, np.inf), b.and_(b.gt(x, 0.0), b.or_(b.eq(a, 0.0), b.and_(b.gt(a, 0.0), vanishing))))
    value = b.select(b.and_(whole, b.not_(large)), all_, b.select(inside, value, full(b, x, np.nan)))
    return b.select(b.and_(b.and_(b.eq(a, np.inf), b.ge(x, 0.0)), b.lt(x, np.inf)), none, value)


GAMMA_RULES: dict[str, Rule] = {
    "gammainc": lambda b, a, x: _incomplete(b, a, x, False),
    "gammaincc": lambda b, a, x: _incomplete(b, a, x, True),
}
