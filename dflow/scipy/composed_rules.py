"""Special functions that are short formulas of others, or short iterations, in operations of the IR."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.scipy.beta_rules import betainc
from dflow.scipy.gamma_quotients import rgamma
from dflow.scipy.incomplete_gamma import GAMMA_RULES
from dflow.scipy.special_rules import Rule, full

_lower, _upper = GAMMA_RULES["gammainc"], GAMMA_RULES["gammaincc"]


def exprel(b: Any, x: Value) -> Value:
    """(exp(x) - 1) / x."""
    near = b.lt(b.abs(x), 1e-3)
    small, large = b.select(near, x, b.zeros(x.type)), b.select(near, full(b, x, 1.0), x)
    series = full(b, x, 1 / 5040)
    for k in (720, 120, 24, 6, 2, 1):
        series = b.add(b.mul(series, small), 1 / k)
    endless = b.eq(large, np.inf)
    plain = b.div(b.expm1(large), b.select(endless, full(b, x, 1.0), large))
    return b.select(near, series, plain)


def _log1p_over(b: Any, z: Value) -> Value:
    """log(1 + z) / z."""
    near = b.lt(b.abs(z), 1e-2)
    small, large = b.select(near, z, b.zeros(z.type)), b.select(near, full(b, z, 1.0), z)
    series = b.zeros(z.type)
    for k in range(9, 0, -1):
        series = b.add(b.mul(b.neg(small), series), 1 / k)
    return b.select(near, series, b.div(b.log1p(large), large))


def _exponent(b: Any, y: Value, power: Value) -> Value:
    """log(1 + power y) / power."""
    return b.mul(y, _log1p_over(b, b.mul(power, y)))


def inv_boxcox(b: Any, y: Value, power: Value) -> Value:
    return b.exp(_exponent(b, y, power))


def inv_boxcox1p(b: Any, y: Value, power: Value) -> Value:
    return b.expm1(_exponent(b, y, power))


def huber(b: Any, delta: Value, r: Value) -> Value:
    size = b.abs(r)
    inside = b.mul(b.mul(r, r), 0.5)
    outside = b.mul(delta, b.sub(size, b.mul(delta, 0.5)))
    return b.select(b.lt(delta, 0.0), full(b, r, np.inf), b.select(b.le(size, delta), inside, outside))


def pseudo_huber(b: Any, delta: Value, r: Value) -> Value:
    """delta^2 (sqrt(1 + (r / delta)^2) - 1), without cancellation for small r."""
    positive = b.gt(delta, 0.0)
    scale = b.select(positive, delta, full(b, r, 1.0))
    ratio = b.div(r, scale)
    square = b.mul(ratio, ratio)
    value = b.div(b.mul(r, r), b.add(1.0, b.sqrt(b.add(1.0, square))))
    ends = b.select(b.lt(delta, 0.0), full(b, r, np.inf), b.zeros(r.type))
    wrong = b.or_(b.isnan(delta), b.isnan(r))
    return b.select(wrong, full(b, r, np.nan), b.select(positive, value, ends))


# -- elliptic integrals ------------------------------------------------------------------------------------------------

_MEANS = 16  # more arithmetic-geometric means than any parameter takes


def _by_means(b: Any, m: Value) -> tuple[Value, Value]:
    """K(m), and what E(m) / K(m) lacks to 1 (DLMF 19.8.5 and 19.8.6), for m < 1."""
    a, g = full(b, m, 1.0), b.sqrt(b.sub(1.0, m))
    lacking, weight = b.mul(m, 0.5), 0.5
    for _ in range(_MEANS):
        c = b.mul(b.sub(a, g), 0.5)
        a, g, weight = b.mul(b.add(a, g), 0.5), b.sqrt(b.mul(a, g)), 2 * weight
        lacking = b.add(lacking, b.mul(b.mul(c, c), weight))
    return b.div(math.pi / 2, a), lacking


def _below_one(b: Any, m: Value) -> tuple[Value, Value]:
    usable = b.lt(m, 1.0)
    return usable, b.select(usable, m, b.zeros(m.type))


def ellipk(b: Any, m: Value) -> Value:
    usable, at = _below_one(b, m)
    endless = b.div(1.0, b.sub(1.0, b.select(usable, b.zeros(m.type), m)))
    outside = b.select(b.eq(m, 1.0), endless, full(b, m, np.nan))
    return b.select(usable, _by_means(b, at)[0], outside)


def ellipe(b: Any, m: Value) -> Value:
    usable, at = _below_one(b, m)
    whole, lacking = _by_means(b, at)
    one = b.add(1.0, b.sqrt(b.sub(1.0, b.select(usable, b.zeros(m.type), m))))  # NaN beyond; falls steeply at 1
    found = b.select(usable, b.mul(whole, b.sub(1.0, lacking)), one)
    return b.select(b.eq(m, -np.inf), full(b, m, np.inf), found)


# -- integrals of Gauss' function --------------------------------------------------------------------------------------

_STEP = 0.2


def dawsn(b: Any, x: Value) -> Value:
    """Dawson's integral, by Rybicki's sum (Press et al., Numerical Recipes, 6.10): the sampling theorem for step h has
    an error of exp(-(pi / (2 h))^2)."""
    endless = b.eq(b.abs(x), np.inf)
    at = b.select(endless, b.zeros(x.type), x)
    near = b.lt(b.abs(at), 0.2)
    small, large = b.select(near, at, b.zeros(x.type)), b.select(near, full(b, x, 1.0), at)
    square, series = b.mul(small, small), b.zeros(x.type)
    for k in range(10, -1, -1):  # DLMF 7.6.1 in powers of -2 x^2
        series = b.sub(1.0, b.mul(b.mul(square, 2 / (2 * k + 3)), series))
    even = b.mul(b.round(b.mul(large, 0.5 / _STEP)), 2.0)
    rest = b.sub(large, b.mul(even, _STEP))
    total = b.zeros(x.type)
    for n in range(-31, 32, 2):
        power = b.sub(b.mul(rest, 2 * n * _STEP), (n * _STEP) ** 2)
        total = b.add(total, b.div(b.exp(power), b.add(even, float(n))))
    sampled = b.mul(b.mul(b.exp(b.neg(b.mul(rest, rest))), total), 1 / math.sqrt(math.pi))
    found = b.select(near, b.mul(small, series), sampled)
    return b.select(endless, b.zeros(x.type), found)


def erfi(b: Any, x: Value) -> Value:
    return b.mul(b.mul(b.exp(b.mul(x, x)), dawsn(b, x)), 2 / math.sqrt(math.pi))


# -- distributions -----------------------------------------------------------------------------------------------------


def chdtr(b: Any, v: Value, x: Value) -> Value:
    return _lower(b, b.mul(v, 0.5), b.mul(x, 0.5))


def chdtrc(b: Any, v: Value, x: Value) -> Value:
    return _upper(b, b.mul(v, 0.5), b.mul(x, 0.5))


def gdtr(b: Any, rate: Value, shape: Value, x: Value) -> Value:
    return _lower(b, shape, b.mul(rate, x))


def gdtrc(b: Any, rate: Value, shape: Value, x: Value) -> Value:
    return _upper(b, shape, b.mul(rate, x))


def fdtr(b: Any, top: Value, bottom: Value, x: Value) -> Value:
    part = b.mul(top, x)
    return betainc(b, b.mul(top, 0.5), b.mul(bottom, 0.5), b.div(part, b.add(bottom, part)))


def fdtrc(b: Any, top: Value, bottom: Value, x: Value) -> Value:
    return betainc(b, b.mul(bottom, 0.5), b.mul(top, 0.5), b.div(bottom, b.add(bottom, b.mul(top, x))))


COMPOSED_RULES: dict[str, Rule] = {
    **{"rgamma": rgamma, "exprel": exprel, "inv_boxcox": inv_boxcox, "inv_boxcox1p": inv_boxcox1p},
    **{"huber": huber, "pseudo_huber": pseudo_huber, "ellipk": ellipk, "ellipe": ellipe},
    **{"dawsn": dawsn, "erfi": erfi, "chdtr": chdtr, "chdtrc": chdtrc, "gdtr": gdtr, "gdtrc": gdtrc},
    **{"fdtr": fdtr, "fdtrc": fdtrc},
}
