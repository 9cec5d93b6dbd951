"""tgamma, lgamma and digamma, in double-double.

Stirling's series serves from 10 on. Below, Γ(x) = Γ(x + 10)/(x·(x + 1)···(x + 9)). Negative arguments are reflected:
Γ(-a) = -π/(a·sin(πa)·Γ(a)).
"""

from __future__ import annotations

from typing import NamedTuple

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.exponential import exp_pair
from dflow.backends.mathlib.expr import Expr, copysign, fabs, floor, minimum, polynomial, rint, scale
from dflow.backends.mathlib.logarithm import INFINITY, NAN, log_pair
from dflow.backends.mathlib.trigonometry import sin_cos

SHIFT = 10
PI = (3.141592653589793, 1.2246467991473532e-16)
HALF_LOG_2PI_MINUS_HALF = (0.4189385332046728, -3.8782941580672414e-17)
# lgamma overflows beyond.
LARGEST = 2.5563481638716906e305

# B(2k)/(2k·(2k - 1)): log Γ(x) = (x - ½)·log x - x + ½·log 2π + sum c[k]/x^(2k - 1); from 10 on to 1.2e-20.
STIRLING = (
    0.08333333333333333,
    -0.002777777777777778,
    0.0007936507936507937,
    -0.0005952380952380953,
    0.0008417508417508417,
    -0.0019175269175269176,
    0.00641025641025641,
    -0.029550653594771242,
    0.17964437236883057,
    -1.3924322169059011,
)
# -B(2k)/2k: ψ(x) = log x - 1/(2x) + sum c[k]/x^(2k).
DIGAMMA_SERIES = (
    -0.08333333333333333,
    0.008333333333333333,
    -0.003968253968253968,
    0.004166666666666667,
    -0.007575757575757576,
    0.021092796092796094,
    -0.08333333333333333,
    0.4432598039215686,
    -3.0539543302701198,
    26.456212121212122,
    -281.46014492753625,
)
# lgamma(1 + t)/t and lgamma(2 + t)/t for |t| ≤ 1/16, to 4e-21 and 1.2e-21.
NEAR_ONE = (
    -0.5772156649015329,
    0.8224670334241132,
    -0.40068563438653143,
    0.2705808084277904,
    -0.20738555102868134,
    0.1695571769854063,
    -0.14404989675534025,
    0.1255096800418862,
    -0.11133427694843749,
    0.10009497965298679,
    -0.09094952195670644,
    0.08426790536162146,
    -0.07781502269136543,
)
NEAR_TWO = (
    0.42278433509846713,
    0.3224670334241132,
    -0.0673523010531981,
    0.020580808427783516,
    -0.007385551028673279,
    0.002890510332219829,
    -0.0011927539125728228,
    0.0005096686607963028,
    -0.00022315429859685762,
    9.967835300790497e-05,
    -4.5034958256185464e-05,
)
# The zero of ψ, and ψ(x)/(x - zero) in x - 1.475 for x in [1.2, 1.75], to 4e-18.
DIGAMMA_ZERO = (1.4616321449683622, 9.549995429965697e-17)
NEAR_DIGAMMA_ZERO = (
    0.9617992571632402,
    -0.4359388648964929,
    0.2520389810100948,
    -0.158303925445793,
    0.1031263810403673,
    -0.0684065907431009,
    0.04581127965370379,
    -0.03084075534751487,
    0.020823869078389436,
    -0.014084164859785106,
    0.009535209152474532,
    -0.006461375025822255,
    0.004378448896529762,
    -0.002936625570457381,
    0.0019905860630125703,
    -0.001583289826285138,
    0.0010733574014461945,
)


class Shifted(NamedTuple):
    """y = x + 10 and product = x·(x + 1)···(x + 9) where x < 10, else x and 1; derivative is the product's."""

    y: Pair
    product: Pair
    derivative: Pair


def shifted(x: Expr) -> Shifted:
    """For x > 0, not so tiny that the product underflows."""
    small = x < SHIFT * 1.0
    base = small.select(x, 1.0)
    product, derivative = Pair(base, x.const(0.0)), dd.constant(x, 1.0)
    for i in range(1, SHIFT):
        factor = dd.two_sum(base, x.const(float(i)))
        derivative = dd.add(dd.multiply(derivative, factor), product)
        product = dd.multiply(product, factor)
    y = dd.two_sum(x, small.select(x.const(float(SHIFT)), 0.0))
    return Shifted(
        y,
        dd.select(small, product, dd.constant(x, 1.0)),
        dd.select(small, derivative, dd.constant(x, 0.0)),
    )


def stirling(y: Pair) -> Pair:
    """log Γ(y) for y ≥ 10, as (y - ½)·(log y - 1) + (½·log 2π - ½) + series, which overflows only at the end."""
    like = y.hi
    main = dd.multiply(dd.add_float(y, like.const(-0.5)), dd.add_float(log_pair(y), like.const(-1.0)))
    inverse = 1.0 / y.hi
    series = inverse * polynomial(inverse * inverse, STIRLING)
    rest = dd.add_float(dd.constant(like, *HALF_LOG_2PI_MINUS_HALF), series)
    return dd.add(main, rest)


class SinCosPi(NamedTuple):
    """sin πa and cos πa for a ≥ 0, less their common sign (-1)^round(a), which is `sign`."""

    sin: Pair
    cos: Pair
    sign: Expr


def sin_cos_pi(a: Expr) -> SinCosPi:
    nearest = rint(a)
    r = a - nearest
    far = fabs(r) > 0.25
    # sin πr = cos π(½ - |r|) with the sign of r; both differences are exact.
    angle = dd.multiply_float(dd.constant(a, *PI), far.select(0.5 - fabs(r), r))
    parts = sin_cos(angle)
    sin, cos = dd.fast_two_sum(*parts.sin), dd.fast_two_sum(*parts.cos)
    r_sign = copysign(a.const(1.0), r)
    half = nearest * 0.5
    sign = floor(half).equals(half).select(a.const(1.0), -1.0)
    return SinCosPi(dd.select(far, cos.scaled(r_sign), sin), dd.select(far, sin, cos), sign)


def moderate(a: Expr, largest: float) -> Expr:
    """`a` brought into [2^-60, largest], where nothing underflows; outside, simpler formulas serve."""
    bounded = (a < 2.0**-60).select(1.0, a)
    return minimum(bounded, largest)


def tgamma(x: Expr) -> Expr:
    # The bound is no integer, so that the reflection of what lies beyond still gives a zero rather than NaN.
    a = moderate(fabs(x), 190.5)
    y, product, _ = shifted(a)
    mantissa, k = exp_pair(stirling(y))
    positive = scale(dd.divide(mantissa, product).rounded(), k)

    sin, _, sign = sin_cos_pi(a)
    bottom = dd.multiply(dd.multiply_float(sin, a), mantissa)
    top = dd.multiply(dd.constant(x, *PI), product)
    negative = scale(dd.divide(top, bottom).rounded(), -k) * -sign
    # Far out all that is left of the value is its sign, that of (-1)^ceil(|x|).
    integral = floor(x).equals(x)
    result = (x < 0.0).select(integral.select(x.const(NAN), far_sign(x, negative)), positive)
    result = x.equals(INFINITY).select(x, result)
    return (fabs(x) < 2.0**-60).select(1.0 / x, x.is_nan().select(x, result))


def far_sign(x: Expr, value: Expr) -> Expr:
    """`value` with the sign of Γ(x) for negative x between integers: positive where floor(x) is even."""
    half = floor(x) * 0.5
    sign = floor(half).equals(half).select(x.const(1.0), -1.0)
    return copysign(value, sign)


def lgamma(x: Expr) -> Expr:
    """log|Γ(x)|. Beside its zeros between negative integers the error is 2^-55 at most, not an ulp of the result."""
    magnitude = fabs(x)
    a = moderate(magnitude, LARGEST)
    y, product, _ = shifted(a)
    positive = dd.add(stirling(y), -log_pair(product))

    sine = sin_cos_pi(a).sin
    sign = copysign(x.const(1.0), sine.hi)
    bottom = dd.multiply_float(sine.scaled(sign), minimum(a, 2.0**60))
    ratio = dd.divide(dd.constant(x, *PI), dd.select(bottom.hi > 0.0, bottom, dd.constant(x, 1.0)))
    negative = dd.add(log_pair(ratio), -positive).rounded()

    from_one, from_two = a - 1.0, a - 2.0
    # Adding zero makes lgamma(1) = +0.
    near_one = from_one * polynomial(from_one, NEAR_ONE) + 0.0
    near_two = from_two * polynomial(from_two, NEAR_TWO)
    positive_result = (fabs(from_one) < 0.0625).select(
        near_one, (fabs(from_two) < 0.0625).select(near_two, positive.rounded())
    )

    result = (x < 0.0).select(floor(x).equals(x).select(x.const(INFINITY), negative), positive_result)
    tiny = magnitude < 2.0**-60
    minus_log = -log_pair(Pair(tiny.select(magnitude.equals(0.0).select(1.0, magnitude), 1.0), x.const(0.0))).hi
    result = tiny.select(magnitude.equals(0.0).select(x.const(INFINITY), minus_log), result)
    return (magnitude > LARGEST).select(x.const(INFINITY), x.is_nan().select(x, result))


def digamma(x: Expr) -> Expr:
    """ψ(x) = Γ'(x)/Γ(x); ψ(-a) = ψ(a) + 1/a + π·cot πa. NaN at the negative integers, ∓inf at ±0."""
    magnitude = fabs(x)
    a = moderate(magnitude, 1e308)
    y, product, derivative = shifted(a)
    inverse = 1.0 / y.hi
    square = inverse * inverse
    series = square * polynomial(square, DIGAMMA_SERIES)
    # -1/(2y) with what the division rounds away.
    minus_half_inverse = dd.divide(dd.constant(x, -0.5), Pair(minimum(y.hi, 2.0**900), y.lo))
    at_y = dd.add(log_pair(y), dd.add_float(minus_half_inverse, series))
    positive = dd.add(at_y, -dd.divide(derivative, product))

    sin, cos, _ = sin_cos_pi(a)
    sin = dd.select(sin.hi.equals(0.0), dd.constant(x, 1.0), sin)
    cotangent = dd.multiply(dd.divide(cos, sin), dd.constant(x, *PI))
    one_over_a = dd.divide(dd.constant(x, 1.0), Pair(minimum(a, 2.0**900), x.const(0.0)))
    negative = dd.add(dd.add(positive, one_over_a), cotangent).rounded()

    from_zero = (a - DIGAMMA_ZERO[0]) - DIGAMMA_ZERO[1]
    near_zero = from_zero * polynomial(a - 1.475, NEAR_DIGAMMA_ZERO)
    positive_result = ((a > 1.2) & (a < 1.75)).select(near_zero, positive.rounded())

    result = (x < 0.0).select(floor(x).equals(x).select(x.const(NAN), negative), positive_result)
    result = (magnitude < 2.0**-60).select(-1.0 / x, result)
    return (x.is_nan() | x.equals(INFINITY)).select(x, result)
