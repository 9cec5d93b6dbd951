"""What each of SciPy's special ufuncs is in operations of the IR: rules as those of ``dflow.numpy.ufunc_rules``.

A choice that is not taken is computed from harmless operands, so that its derivative is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.types import F64
from dflow.numpy.ufunc_rules import FLOAT

Rule = Callable[..., Any]
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def full(b: Any, x: Value, number: float) -> Value:
    return b.full(number, x.type)


def loggamma(b: Any, x: Value) -> Value:
    return b.select(b.lt(x, 0.0), full(b, x, np.nan), b.lgamma(b.abs(x)))


def stirling_rest(b: Any, x: Value) -> Value:
    """lgamma(x) - ((x - 1/2) log(x) - x + log(2 pi) / 2) for x >= 10 (DLMF 5.11.1)."""
    inverse = b.div(1.0, x)
    square, total = b.mul(inverse, inverse), b.zeros(x.type)
    for c in (1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        total = b.add(b.mul(total, square), c)
    return b.mul(total, inverse)


def betaln(b: Any, x: Value, y: Value) -> Value:
    """Where an operand is large, log(gamma) of it and of the sum by Stirling's formula, so that they do not cancel."""
    exchanged = b.lt(x, y)
    q, p = b.select(exchanged, y, x), b.select(exchanged, x, y)
    wide = b.and_(b.gt(p, 0.0), b.and_(b.ge(q, 10.0), b.lt(q, np.inf)))
    large, small = b.select(wide, q, full(b, x, 10.0)), b.select(wide, p, full(b, x, 1.0))
    total = b.add(large, small)
    rest = b.sub(stirling_rest(b, large), stirling_rest(b, total))
    ratio = b.mul(b.sub(large, 0.5), b.log1p(b.div(small, large)))
    far = b.sub(b.add(rest, b.sub(small, ratio)), b.mul(small, b.log(total)))
    near_q, near_p = (b.select(wide, full(b, x, 1.0), v) for v in (q, p))
    near = b.sub(b.lgamma(near_q), b.lgamma(b.add(near_q, near_p)))
    endless = b.and_(b.gt(p, 0.0), b.eq(q, np.inf))
    return b.select(endless, full(b, x, -np.inf), b.add(b.lgamma(p), b.select(wide, far, near)))


def _small_or(b: Any, size: Value, xs: tuple[Value, ...], small: Rule, large: Rule) -> Value:
    """``small(*xs)`` where ``size`` is below 150, so that no gamma function overflows; otherwise ``large(*xs)``."""
    fits = b.lt(size, 150.0)
    inside = (b.select(fits, x, full(b, x, 1.0)) for x in xs)
    outside = (b.select(fits, full(b, x, 1.0), x) for x in xs)
    return b.select(fits, small(*inside), large(*outside))


def beta(b: Any, x: Value, y: Value) -> Value:
    """From gamma functions where these do not overflow."""

    def by_gamma(x: Value, y: Value) -> Value:
        return b.mul(b.div(b.tgamma(x), b.tgamma(b.add(x, y))), b.tgamma(y))

    def by_logarithm(x: Value, y: Value) -> Value:
        signs = b.mul(b.mul(gamma_sign(b, x), gamma_sign(b, y)), gamma_sign(b, b.add(x, y)))
        return b.mul(signs, b.exp(betaln(b, x, y)))

    return _small_or(b, b.add(b.abs(x), b.abs(y)), (x, y), by_gamma, by_logarithm)


def gamma_sign(b: Any, x: Value) -> Value:
    """The sign of the gamma function: below 0 it changes from one integer to the next."""
    half = b.mul(b.floor(x), 0.5)
    negative = b.and_(b.lt(x, 0.0), b.ne(half, b.floor(half)))
    return b.select(negative, full(b, x, -1.0), full(b, x, 1.0))


def binom(b: Any, n: Value, k: Value) -> Value:
    def by_gamma(n: Value, k: Value) -> Value:
        top, left = b.tgamma(b.add(n, 1.0)), b.tgamma(b.add(b.sub(n, k), 1.0))
        return b.div(b.div(top, b.tgamma(b.add(k, 1.0))), left)

    def by_logarithm(n: Value, k: Value) -> Value:
        top, low, rest = b.add(n, 1.0), b.add(k, 1.0), b.add(b.sub(n, k), 1.0)
        signs = b.mul(b.mul(gamma_sign(b, top), gamma_sign(b, low)), gamma_sign(b, rest))
        return b.mul(signs, b.exp(b.sub(b.sub(b.lgamma(top), b.lgamma(low)), b.lgamma(rest))))

    return _small_or(b, b.abs(n), (n, k), by_gamma, by_logarithm)


def ndtr(b: Any, x: Value) -> Value:
    return b.mul(b.erfc(b.mul(x, -math.sqrt(0.5))), 0.5)


def ndtri(b: Any, p: Value) -> Value:
    low = b.lt(p, 0.5)
    tail = b.mul(b.erfcinv(b.select(low, b.mul(p, 2.0), full(b, p, 1.0))), -math.sqrt(2.0))
    upper = b.mul(b.erfinv(b.select(low, b.zeros(p.type), b.sub(b.mul(p, 2.0), 1.0))), math.sqrt(2.0))
    return b.select(low, tail, upper)


def log_ndtr(b: Any, x: Value) -> Value:
    """By erfc, and from -20 downwards by the asymptotic series (DLMF 7.12.1)."""
    far, upper = b.lt(x, -20.0), b.gt(x, -1.0)
    near = b.select(far, full(b, x, -1.0), x)
    top = b.select(upper, near, b.zeros(x.type))
    high = b.log1p(b.neg(ndtr(b, b.neg(top))))
    low = b.log(ndtr(b, b.select(upper, full(b, x, -1.0), near)))
    y = b.select(far, x, full(b, x, -20.0))
    inverse = b.div(-1.0, b.mul(y, y))
    series = b.zeros(x.type)
    for k in range(11, 0, -1):
        series = b.mul(b.mul(b.add(series, 1.0), inverse), float(2 * k - 1))
    bottom = b.sub(b.sub(b.log1p(series), b.mul(b.mul(y, y), 0.5)), b.add(b.log(b.neg(y)), LOG_SQRT_2PI))
    return b.select(far, bottom, b.select(upper, high, low))


def logit(b: Any, p: Value) -> Value:
    middle = b.lt(b.abs(b.sub(p, 0.5)), 0.2)
    signed = b.sub(b.mul(b.select(middle, p, full(b, p, 0.5)), 2.0), 1.0)
    q = b.select(middle, full(b, p, 0.25), p)
    return b.select(middle, b.mul(b.atanh(signed), 2.0), b.sub(b.log(q), b.log1p(b.neg(q))))


def log_expit(b: Any, x: Value) -> Value:
    rule = FLOAT["logaddexp"]
    assert callable(rule)
    return b.neg(rule(b, b.zeros(x.type), b.neg(x)))


def xlogy(b: Any, x: Value, y: Value) -> Value:
    """0 where x is 0, unless y is NaN; then also the derivatives by both are 0 if y is 0 or less, or infinite."""
    nothing = b.and_(b.eq(x, 0.0), b.or_(b.le(y, 0.0), b.isinf(y)))
    return b.mul(x, b.log(b.select(nothing, full(b, y, 1.0), y)))


def xlog1py(b: Any, x: Value, y: Value) -> Value:
    nothing = b.and_(b.eq(x, 0.0), b.or_(b.le(y, -1.0), b.isinf(y)))
    return b.mul(x, b.log1p(b.select(nothing, b.zeros(y.type), y)))


def entr(b: Any, x: Value) -> Value:
    positive = b.select(b.lt(x, 0.0), full(b, x, 1.0), x)
    return b.select(b.lt(x, 0.0), full(b, x, -np.inf), b.neg(xlogy(b, positive, positive)))


def rel_entr(b: Any, x: Value, y: Value) -> Value:
    """x log(x / y) for positive operands, 0 where x is 0 and y is not negative, otherwise infinite."""
    return _relative(b, x, y, lambda x, y, main: main)


def kl_div(b: Any, x: Value, y: Value) -> Value:
    return _relative(b, x, y, lambda x, y, main: b.add(b.sub(main, x), y))


def _relative(b: Any, x: Value, y: Value, finish: Rule) -> Value:
    both = b.and_(b.gt(x, 0.0), b.gt(y, 0.0))
    ratio = b.div(b.select(both, x, full(b, x, 1.0)), b.select(both, y, full(b, y, 1.0)))
    main = b.select(both, b.mul(x, b.log(ratio)), b.zeros(x.type))
    fine = b.or_(both, b.and_(b.eq(x, 0.0), b.ge(y, 0.0)))
    wrong = b.or_(b.isnan(x), b.isnan(y))
    outside = b.select(wrong, full(b, x, np.nan), full(b, x, np.inf))
    return b.select(fine, finish(x, y, main), outside)


def exp10(b: Any, x: Value) -> Value:
    return b.pow(full(b, x, 10.0), x)


def cosm1(b: Any, x: Value) -> Value:
    half = b.sin(b.mul(x, 0.5))
    return b.mul(b.mul(half, half), -2.0)


# -- iterations --------------------------------------------------------------------------------------------------------


def unfinished(b: Any, k: Value, going_on: Value) -> Value:
    some = b.reduce(going_on, kind="any", axes=tuple(range(going_on.type.rank))) if going_on.type.rank else going_on
    return b.and_(b.lt(k, 20000), some)


def wide(rule: Rule) -> Rule:
    """The rule computed in f64, whatever the operands are: its intermediate results may be out of their range."""

    def call(b: Any, *xs: Value) -> Value:
        dtype = xs[0].type.dtype
        if dtype == F64:
            return rule(b, *xs)
        return b.convert(rule(b, *(b.convert(x, dtype=F64) for x in xs)), dtype=dtype)

    return call


_RULES: dict[str, str | Rule] = {
    **{name: name for name in ("erf", "erfc", "erfinv", "erfcinv", "expit", "i0", "i0e", "i1", "i1e", "j0", "j1")},
    **{"gamma": "tgamma", "gammaln": "lgamma", "psi": "digamma", "loggamma": loggamma},
    **{"beta": beta, "betaln": betaln, "binom": binom, "ndtr": ndtr, "ndtri": ndtri, "log_ndtr": log_ndtr},
    **{"logit": logit, "log_expit": log_expit, "xlogy": xlogy, "xlog1py": xlog1py},
    **{"entr": entr, "rel_entr": rel_entr, "kl_div": kl_div},
    **{"expm1": "expm1", "log1p": "log1p", "exp2": "exp2", "cbrt": "cbrt", "exp10": exp10, "cosm1": cosm1},
}
RULES = {name: wide(rule) if callable(rule) else rule for name, rule in _RULES.items()}
