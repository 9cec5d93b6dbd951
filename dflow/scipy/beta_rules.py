"""The incomplete beta function, and functions of powers and gamma functions, in operations of the IR."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.scipy.gamma_quotients import betaln, gamma_sign, stirling_rest
from dflow.scipy.special_rules import Rule, full, off, unfinished

SQRT_PI = math.sqrt(math.pi)


def _fraction(b: Any, p: Value, q: Value, x: Value) -> Value:
    """The continued fraction of DLMF 8.17.22, by the method of Lentz. Each element stays as it is from where it has
    converged."""
    total = b.add(p, q)

    def term(b: Any, top: Value, below: Value, d: Value, c: Value) -> tuple[Value, Value]:
        factor = b.div(b.mul(top, x), below)
        return b.div(1.0, b.add(1.0, b.mul(factor, d))), b.add(1.0, b.div(factor, c))

    def step(b: Any, k: Value, d: Value, c: Value, h: Value, going: Value) -> list[Value]:
        m = b.broadcast_scalar(b.convert(b.add(k, 1), dtype=x.type.dtype), x.type.shape)
        at = b.add(p, b.mul(m, 2.0))
        d, c = term(b, b.mul(m, b.sub(q, m)), b.mul(b.sub(at, 1.0), at), d, c)
        even = b.mul(d, c)
        top = b.neg(b.mul(b.add(p, m), b.add(total, m)))
        d, c = term(b, top, b.mul(at, b.add(at, 1.0)), d, c)
        odd = b.mul(d, c)
        grown = b.mul(b.mul(h, even), odd)
        return [b.add(k, 1), d, c, b.select(going, grown, h), b.and_(going, off(b, odd))]

    def more(b: Any, k: Value, d: Value, c: Value, h: Value, going: Value) -> Value:
        return unfinished(b, k, going)

    first = b.div(1.0, b.sub(1.0, b.div(b.mul(total, x), b.add(p, 1.0))))
    start = [b.index(0), first, full(b, x, 1.0), first, off(b, full(b, x, 2.0))]
    *_, found, going = b.while_loop(start, more, step)
    # For huge p and q there are too many terms: NaN, not what is found so far.
    return b.select(going, full(b, x, np.nan), found)


def _log1p_rest(b: Any, u: Value) -> Value:
    """log(1 + u) - u."""
    near = b.lt(b.abs(u), 0.05)
    small, large = b.select(near, u, b.zeros(u.type)), b.select(near, full(b, u, 1.0), u)
    series = b.zeros(u.type)
    for k in range(13, 1, -1):
        series = b.sub(1.0 / k, b.mul(series, small))
    return b.select(near, b.neg(b.mul(b.mul(small, small), series)), b.sub(b.log1p(large), large))


def _peak(b: Any, p: Value, q: Value, x: Value) -> Value:
    """x^p (1 - x)^q / B(p, q) for large p and q: a power of how far x is from p / (p + q), where the logarithms of the
    powers and of the beta function would cancel, times what Stirling's formula leaves of them."""
    total = b.add(p, q)
    away = b.sub(b.mul(x, q), b.mul(b.sub(1.0, x), p))
    exponent = b.add(b.mul(p, _log1p_rest(b, b.div(away, p))), b.mul(q, _log1p_rest(b, b.neg(b.div(away, q)))))
    rest = b.sub(b.add(stirling_rest(b, p), stirling_rest(b, q)), stirling_rest(b, total))
    height = b.sqrt(b.mul(b.div(p, total), b.mul(q, 0.5 / math.pi)))
    return b.mul(height, b.exp(b.sub(exponent, rest)))


def _front(b: Any, p: Value, q: Value, x: Value) -> Value:
    """x^p (1 - x)^q / (p B(p, q)); its derivatives are right at x = 0 and 1 too, where the powers are small."""
    small = b.lt(b.add(p, q), 100.0)
    one, half = full(b, x, 1.0), full(b, x, 0.5)
    near = [b.select(small, v, w) for v, w in ((p, one), (q, one), (x, half))]
    powers = b.mul(b.pow(near[2], near[0]), b.pow(b.sub(1.0, near[2]), near[1]))
    plain = b.mul(powers, b.exp(b.neg(betaln(b, near[0], near[1]))))
    usable = b.and_(b.not_(small), b.and_(b.gt(x, 0.0), b.lt(x, 1.0)))
    wide = [b.select(usable, v, w) for v, w in ((p, one), (q, one), (x, half))]
    exponent = b.add(b.mul(wide[0], b.log(wide[2])), b.mul(wide[1], b.log1p(b.neg(wide[2]))))
    by_logarithm = b.exp(b.sub(exponent, betaln(b, wide[0], wide[1])))
    large = b.and_(usable, b.and_(b.gt(p, 20.0), b.gt(q, 20.0)))
    far = [b.select(large, v, full(b, x, w)) for v, w in ((p, 100.0), (q, 100.0), (x, 0.5))]
    powers_of_large = b.select(large, _peak(b, *far), by_logarithm)
    found = b.select(small, plain, b.select(usable, powers_of_large, b.zeros(x.type)))
    return b.div(found, p)


def betainc(b: Any, p: Value, q: Value, x: Value) -> Value:
    return incomplete(b, p, q, x, b.zeros(x.type))


def betaincc(b: Any, p: Value, q: Value, x: Value) -> Value:
    return incomplete(b, p, q, x, full(b, x, 1.0))


def incomplete(b: Any, p: Value, q: Value, x: Value, side: Value) -> Value:
    """``betainc`` where the side is 0, ``betaincc`` where it is 1. By the fraction for x or for 1 - x: whichever
    converges fast."""
    upper = b.gt(side, 0.5)
    finite = b.and_(b.lt(p, np.inf), b.lt(q, np.inf))
    inside = b.and_(b.and_(b.gt(p, 0.0), b.gt(q, 0.0)), b.and_(b.and_(b.ge(x, 0.0), b.le(x, 1.0)), finite))
    one, given = full(b, x, 1.0), (p, q, x)
    p, q, y = b.select(inside, p, one), b.select(inside, q, one), b.select(inside, x, full(b, x, 0.25))
    low = b.le(y, b.div(b.add(p, 1.0), b.add(b.add(p, q), 2.0)))
    first, second = b.select(low, p, q), b.select(low, q, p)
    at = b.select(low, y, b.sub(1.0, y))
    part = b.mul(_front(b, first, second, at), _fraction(b, first, second, at))
    rest = b.sub(1.0, part)
    value = b.select(b.eq(low, upper), rest, part)
    return b.select(inside, value, _at_ends(b, given, upper))


def _at_ends(b: Any, given: tuple[Value, Value, Value], upper: Value) -> Value:
    """Where a parameter is 0 or infinite, all weight is at 0 or at 1; NaN elsewhere."""
    p, q, x = given
    fits = b.and_(b.and_(b.ge(x, 0.0), b.le(x, 1.0)), b.and_(b.ge(p, 0.0), b.ge(q, 0.0)))
    smaller, larger = b.or_(b.eq(p, 0.0), b.eq(q, np.inf)), b.or_(b.eq(q, 0.0), b.eq(p, np.inf))
    below = b.select(b.ge(x, b.select(larger, full(b, x, 1.0), full(b, x, 5e-324))), full(b, x, 1.0), b.zeros(x.type))
    one_end = b.or_(b.and_(smaller, b.not_(larger)), b.and_(larger, b.not_(smaller)))
    value = b.select(upper, b.sub(1.0, below), below)
    return b.select(b.and_(fits, one_end), value, full(b, x, np.nan))


def boxcox(b: Any, x: Value, power: Value) -> Value:
    return _transformed(b, b.log(x), power)


def boxcox1p(b: Any, x: Value, power: Value) -> Value:
    return _transformed(b, b.log1p(x), power)


def _transformed(b: Any, logarithm: Value, power: Value) -> Value:
    """(exp(power logarithm) - 1) / power, near power = 0 by the first terms of its series."""
    z = b.mul(power, logarithm)
    near = b.or_(b.lt(b.abs(z), 1e-5), b.lt(b.abs(power), 1e-273))
    divisor = b.select(near, full(b, z, 1.0), power)
    plain = b.div(b.expm1(b.select(near, full(b, z, 1.0), z)), divisor)
    small = b.select(b.and_(near, b.not_(b.isinf(logarithm))), z, b.zeros(z.type))
    series = b.add(1.0, b.mul(small, b.add(0.5, b.mul(small, b.add(1 / 6, b.mul(small, 1 / 24))))))
    return b.select(near, b.mul(logarithm, series), plain)


def gammasgn(b: Any, x: Value) -> Value:
    """The sign of the gamma function; NaN at its poles."""
    pole = b.and_(b.lt(x, 0.0), b.eq(x, b.floor(x)))
    at_zero = b.copysign(full(b, x, 1.0), x)
    sign = b.select(b.eq(x, 0.0), at_zero, gamma_sign(b, x))
    return b.select(b.or_(pole, b.isnan(x)), full(b, x, np.nan), sign)


def erfcx(b: Any, x: Value) -> Value:
    """exp(x^2) erfc(x), from 25 upwards by the asymptotic series (DLMF 7.12.1)."""
    far = b.gt(x, 25.0)
    near = b.select(far, b.zeros(x.type), x)
    plain = b.mul(b.exp(b.mul(near, near)), b.erfc(near))
    large = b.select(far, x, full(b, x, 25.0))
    inverse = b.div(-0.5, b.mul(large, large))
    series = full(b, x, 1.0)
    for k in range(8, 0, -1):
        series = b.add(1.0, b.mul(series, b.mul(inverse, float(2 * k - 1))))
    return b.select(far, b.div(series, b.mul(large, SQRT_PI)), plain)


BETA_RULES: dict[str, Rule] = {
    "betainc": betainc,
    "betaincc": betaincc,
    "boxcox": boxcox,
    "boxcox1p": boxcox1p,
    "gammasgn": gammasgn,
    "erfcx": erfcx,
}
