"""atan, atan2, asin and acos.

atan(n/d) for 0 ≤ n ≤ d: where n/d > √2 - 1, atan(n/d) = π/4 + atan((n - d)/(n + d)). Then |q| ≤ √2 - 1 and
atan q = q + q³·P(q²). asin s = s + s³·Q(s²) for s ≤ 1/2, and asin s = π/2 - 2·asin(sqrt((1 - s)/2)) above.
"""

from __future__ import annotations

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import Expr, copysign, fabs, polynomial

INFINITY = float("inf")
NAN = float("nan")
PI = (3.141592653589793, 1.2246467991473532e-16)
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
QUARTER_PI = (0.7853981633974483, 3.061616997868383e-17)
PI_F32 = (3.1415927410125732, -8.742277657347586e-08)
HALF_PI_F32 = (1.5707963705062866, -4.371138828673793e-08)
QUARTER_PI_F32 = (0.7853981852531433, -2.1855694143368964e-08)

# (atan q - q)/q³ in q² ≤ 0.1717, to 4.4e-20.
ATAN_TAIL = (
    -0.3333333333333333,
    0.19999999999999993,
    -0.14285714285711498,
    0.11111111110752325,
    -0.09090909066866446,
    0.07692306730961795,
    -0.06666641908302051,
    0.05881923626133301,
    -0.052580257920073425,
    0.04719294405473837,
    -0.04104029750501821,
    0.030626287828475894,
    -0.013908703447288225,
)
ATAN_TAIL_F32 = (  # to 5.4e-10
    -0.33333333279030264,
    0.19999977181137085,
    -0.14284147012133833,
    0.11071287551546859,
    -0.0862409863998892,
    0.05046648875608924,
)
# (asin s - s)/s³ in s² ≤ 1/4, to 1.5e-17.
ASIN_TAIL = (
    0.16666666666666669,
    0.07499999999998433,
    0.04464285714635543,
    0.030381944138531247,
    0.02237217294214989,
    0.017352392720869973,
    0.013971212973552933,
    0.011479177415184906,
    0.01032281435018578,
    0.005457506718640358,
    0.01740087944269402,
    -0.014851887071247204,
    0.028757851367421566,
)
ASIN_TAIL_F32 = (  # to 4.2e-9
    0.1666666633654049,
    0.07500094761172901,
    0.04459931916287114,
    0.031101727829067168,
    0.017143716819253568,
    0.03370072632136513,
)


def atan_of_ratio(numerator: Expr, denominator: Expr) -> Pair:
    """atan(n/d) for 0 ≤ n ≤ d, d > 0, d no larger than 2^1000, or 2^100."""
    far = numerator > denominator * 0.41421356237309503
    zero = numerator.const(0.0)
    top = dd.select(far, dd.two_sum(numerator, -denominator), Pair(numerator, zero))
    bottom = dd.select(far, dd.two_sum(numerator, denominator), Pair(denominator, zero))
    q = dd.divide(top, bottom)
    z = q.hi * q.hi
    angle = Pair(q.hi, q.lo + q.hi * z * polynomial(z, z.pick(ATAN_TAIL, ATAN_TAIL_F32)))
    quarter_pi = z.pick(QUARTER_PI, QUARTER_PI_F32)
    return dd.add(dd.select(far, dd.constant(numerator, *quarter_pi), Pair(zero, zero)), angle)


def subtract_from(constant: tuple[float, float], single: tuple[float, float], angle: Pair) -> Pair:
    return dd.add(dd.constant(angle.hi, *angle.hi.pick(constant, single)), -angle)


def atan(x: Expr) -> Expr:
    magnitude = fabs(x)
    steep = magnitude > 1.0
    one = x.const(1.0)
    # 2^-60 for 1/x is as good as zero, beside π/2.
    bounded = (magnitude > x.pick(2.0**100, 2.0**60)).select(x.pick(2.0**100, 2.0**60), magnitude)
    angle = atan_of_ratio(steep.select(one, bounded), steep.select(bounded, one))
    result = dd.select(steep, subtract_from(HALF_PI, HALF_PI_F32, angle), angle).rounded()
    result = (magnitude < x.pick(2.0**-28, 2.0**-13)).select(magnitude, result)
    return copysign(x.is_nan().select(x, result), x)


def atan2(y: Expr, x: Expr) -> Expr:
    """The angle of (x, y), special cases as in C99, annex F.9.1.4."""
    a, b = fabs(y), fabs(x)
    steep = a > b
    small, large = steep.select(b, a), steep.select(a, b)
    both_infinite = small.equals(INFINITY)
    # Scaled by a power of two to 1/most < large < most. If `small` underflows so does the quotient: see `tiny`.
    most, step, least = x.pick((2.0**400, 2.0**700, 2.0**-500), (2.0**60, 2.0**90, 2.0**-30))
    factor = (large > most).select(x.const(1.0 / step), (large < 1.0 / most).select(x.const(step), 1.0))
    scaled_large = both_infinite.select(1.0, large.equals(0.0).select(1.0, large * factor))
    scaled_large = (scaled_large < INFINITY).select(scaled_large, most)
    scaled_small = both_infinite.select(1.0, large.equals(INFINITY).select(0.0, small * factor))
    angle = atan_of_ratio(scaled_small, scaled_large)

    angle = dd.select(steep, subtract_from(HALF_PI, HALF_PI_F32, angle), angle)
    left = x.bits() < 0
    result = dd.select(left, subtract_from(PI, PI_F32, angle), angle).rounded()
    # A tiny quotient is the angle itself; divided without the double-double, whose parts would underflow.
    tiny = ~steep & ~left & (small < large * least) & (large < INFINITY)
    result = tiny.select(small / large, result)
    return (x.is_nan() | y.is_nan()).select(x + y, copysign(result, y))


def asin_parts(magnitude: Expr) -> tuple[Expr, Pair]:
    """(is |x| > ½, asin of |x| or else of sqrt((1 - |x|)/2))."""
    far = magnitude > 0.5
    half_rest = (1.0 - magnitude) * 0.5
    zero = magnitude.const(0.0)
    root = dd.square_root(Pair(far.select(half_rest, 0.25), zero))
    s = dd.select(far, root, Pair(magnitude, zero))
    z = far.select(half_rest, magnitude * magnitude)
    return far, dd.fast_two_sum(s.hi, s.lo + s.hi * z * polynomial(z, z.pick(ASIN_TAIL, ASIN_TAIL_F32)))


def asin(x: Expr) -> Expr:
    far, angle = asin_parts(fabs(x))
    result = dd.select(far, subtract_from(HALF_PI, HALF_PI_F32, angle.scaled(2.0)), angle).rounded()
    return (fabs(x) <= 1.0).select(copysign(result, x), x.const(NAN))


def acos(x: Expr) -> Expr:
    """π/2 - asin x near zero; 2·asin(sqrt((1 - |x|)/2)) near one, from π near minus one."""
    far, angle = asin_parts(fabs(x))
    negative = x < 0.0
    doubled = angle.scaled(2.0)
    outer = dd.select(negative, subtract_from(PI, PI_F32, doubled), doubled)
    inner = subtract_from(HALF_PI, HALF_PI_F32, dd.select(negative, -angle, angle))
    return (fabs(x) <= 1.0).select(dd.select(far, outer, inner).rounded(), x.const(NAN))
