"""Products and quotients of gamma functions, in operations of the IR, which do not overflow or cancel as these do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.scipy.special_rules import Rule, full


def gamma_sign(b: Any, x: Value) -> Value:
    """The sign of the gamma function: below 0 it changes from one integer to the next."""
    return b.select(b.lt(x, 0.0), _parity(b, b.floor(x)), full(b, x, 1.0))


def _parity(b: Any, whole: Value) -> Value:
    """1 for even numbers, -1 for odd ones."""
    half = b.mul(whole, 0.5)
    return b.select(b.eq(half, b.floor(half)), full(b, whole, 1.0), full(b, whole, -1.0))


def _sin_pi(b: Any, x: Value) -> Value:
    """sin(pi x), which is 0 at integers."""
    nearest = b.floor(b.add(x, 0.5))
    return b.mul(_parity(b, nearest), b.sin(b.mul(b.sub(x, nearest), math.pi)))


def _is_whole(b: Any, x: Value) -> Value:
    return b.eq(x, b.floor(x))


def _is_pole(b: Any, x: Value) -> Value:
    return b.and_(b.le(x, 0.0), _is_whole(b, x))


def rgamma(b: Any, x: Value) -> Value:
    """1 / gamma(x), by reflection below 1/2 (DLMF 5.5.3): 0 at the poles, and smooth there."""
    low = b.lt(x, 0.5)
    far = b.and_(b.lt(x, -170.0), _is_whole(b, x))  # the gamma function is infinite there
    gamma = b.tgamma(b.select(low, b.sub(1.0, b.select(far, b.zeros(x.type), x)), x))
    reflected = b.mul(b.mul(_sin_pi(b, x), 1 / math.pi), b.select(low, gamma, full(b, x, 1.0)))
    return b.select(low, reflected, b.div(1.0, b.select(low, full(b, x, 1.0), gamma)))


def stirling_rest(b: Any, x: Value) -> Value:
    """lgamma(x) - ((x - 1/2) log(x) - x + log(2 pi) / 2) for x >= 10 (DLMF 5.11.1)."""
    inverse = b.div(1.0, x)
    square, total = b.mul(inverse, inverse), b.zeros(x.type)
    for c in (1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        total = b.add(b.mul(total, square), c)
    return b.mul(total, inverse)


def _log_beta(b: Any, x: Value, y: Value) -> Value:
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


def _small_or(b: Any, fits: Value, xs: tuple[Value, ...], small: Rule, large: Rule) -> Value:
    """``small(*xs)`` where it ``fits``, so that no gamma function overflows; otherwise ``large(*xs)``."""
    inside = (b.select(fits, x, full(b, x, 1.0)) for x in xs)
    outside = (b.select(fits, full(b, x, 1.0), x) for x in xs)
    return b.select(fits, small(*inside), large(*outside))


def _off_poles(b: Any, x: Value, y: Value, rule: Rule, signed: bool) -> Value:
    """A rule for the beta function or its logarithm also where gamma(x) or gamma(y) has a pole: infinite, but for what
    SciPy takes as the limit where both gamma(-m) and gamma(n - m) have one: (-1)^n B(1 - n + m, n), n > 0."""
    at_x, at_y = _is_pole(b, x), _is_pole(b, y)
    pole, one = b.or_(at_x, at_y), full(b, x, 1.0)
    other = b.select(at_x, y, x)
    mirrored = b.sub(b.sub(1.0, x), y)
    limit = b.and_(b.and_(_is_whole(b, other), b.gt(other, 0.0)), b.gt(mirrored, 0.0))
    p = b.select(pole, b.select(limit, mirrored, one), x)
    q = b.select(pole, b.select(limit, other, one), y)
    found, infinite = rule(b, p, q), full(b, x, np.inf)
    if signed:
        sign = _parity(b, other)
        found = b.select(pole, b.mul(found, sign), found)
        infinite = b.select(_is_pole(b, other), b.mul(infinite, sign), infinite)
    return b.select(b.and_(pole, b.not_(limit)), infinite, found)


def betaln(b: Any, x: Value, y: Value) -> Value:
    return _off_poles(b, x, y, _log_beta, signed=False)


def beta(b: Any, x: Value, y: Value) -> Value:
    return _off_poles(b, x, y, _beta, signed=True)


def _beta(b: Any, x: Value, y: Value) -> Value:
    """From gamma functions where these do not overflow."""

    def by_gamma(x: Value, y: Value) -> Value:
        return b.mul(b.mul(b.tgamma(x), rgamma(b, b.add(x, y))), b.tgamma(y))

    def by_logarithm(x: Value, y: Value) -> Value:
        signs = b.mul(b.mul(gamma_sign(b, x), gamma_sign(b, y)), gamma_sign(b, b.add(x, y)))
        return b.mul(signs, b.exp(_log_beta(b, x, y)))

    return _small_or(b, b.lt(b.add(b.abs(x), b.abs(y)), 150.0), (x, y), by_gamma, by_logarithm)


def binom(b: Any, n: Value, k: Value) -> Value:
    """1 / ((n + 1) B(n - k + 1, k + 1)); NaN where n is a negative integer."""

    def by_gamma(n: Value, k: Value) -> Value:
        low, rest = rgamma(b, b.add(k, 1.0)), rgamma(b, b.add(b.sub(n, k), 1.0))
        return b.mul(b.mul(b.tgamma(b.add(n, 1.0)), low), rest)

    fits = b.and_(b.lt(b.add(b.abs(n), b.abs(k)), 80.0), b.not_(_is_pole(b, b.add(n, 1.0))))
    found = _small_or(b, fits, (n, k), by_gamma, lambda n, k: _large_binom(b, n, k))
    return b.select(_is_pole(b, b.add(n, 1.0)), full(b, n, np.nan), found)


def _large_binom(b: Any, n: Value, k: Value) -> Value:
    """By the logarithm of a beta function, of positive operands: the gamma functions of others by reflection."""
    exchanged, difference = b.lt(k, 0.0), b.sub(n, k)
    k, rest = b.select(exchanged, difference, k), b.select(exchanged, k, difference)
    negative, beyond = b.lt(n, 0.0), b.le(rest, -1.0)
    inner = b.or_(negative, b.not_(beyond))  # 1 / (whole B(p, q)), and where not B(p, q)
    p = b.select(negative, b.neg(n), b.select(beyond, b.add(n, 1.0), b.add(rest, 1.0)))
    q = b.select(inner, b.add(k, 1.0), b.neg(rest))
    whole = b.select(negative, b.neg(rest), b.select(beyond, full(b, n, 1.0), b.add(n, 1.0)))
    logarithm = _log_beta(b, p, q)
    size = b.exp(b.select(inner, b.neg(b.add(logarithm, b.log(whole))), logarithm))
    wave = b.neg(_sin_pi(b, rest))
    around = b.select(negative, b.neg(_sin_pi(b, b.select(negative, n, full(b, n, -0.5)))), full(b, n, math.pi))
    by_sign = b.select(b.and_(negative, _is_whole(b, k)), _parity(b, k), b.div(wave, around))
    factor = b.select(b.or_(negative, beyond), by_sign, full(b, n, 1.0))
    return b.mul(size, factor)


def poch(b: Any, x: Value, n: Value) -> Value:
    """gamma(x + n) / gamma(x), by logarithms; below 0 by reflection, where both may have poles."""
    total = b.add(x, n)
    below, both = b.le(x, 0.0), b.and_(b.le(x, 0.0), b.le(total, 0.0))
    at, to = b.select(below, b.sub(1.0, x), x), b.select(both, b.sub(1.0, total), total)
    pole = _is_pole(b, to)
    top, low = b.lgamma(b.select(pole, full(b, x, 1.0), to)), b.lgamma(at)
    size = b.exp(b.select(both, b.sub(low, top), b.select(below, b.add(low, top), b.sub(top, low))))
    sine = _sin_pi(b, x)
    plain = b.select(both, _sin_pi(b, b.select(_is_whole(b, total), full(b, x, 0.5), total)), full(b, x, math.pi))
    ratio = b.select(b.and_(both, _is_whole(b, n)), _parity(b, n), b.div(sine, plain))
    value = b.mul(b.select(below, ratio, gamma_sign(b, total)), size)
    infinite = b.or_(pole, b.and_(both, b.and_(_is_whole(b, total), b.not_(_is_whole(b, x)))))
    value = b.select(infinite, full(b, x, np.inf), value)
    return b.select(b.eq(n, 0.0), full(b, x, 1.0), value)


QUOTIENTS: dict[str, Rule] = {"beta": beta, "betaln": betaln, "binom": binom, "poch": poch}
