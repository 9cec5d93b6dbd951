"""atan, atan2, asin and acos.

atan q = q + q³·P(q²) for |q| ≤ √2 - 1, and every other angle is a multiple of π/4 and such a one. asin s = s + s³·Q(s²)
for s ≤ 1/2, and asin s = π/2 - 2·asin(sqrt((1 - s)/2)) above.
"""

from __future__ import annotations

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import Expr, copysign, fabs, muladd, polynomial, sqrt

INFINITY = float("inf")
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


def sum_of_angles(base: Pair, angle: Expr, rest: Expr) -> Expr:
    """The base, which is zero or larger than the angle, with the angle and its small rest."""
    total = dd.fast_two_sum(base.hi, angle)
    return total.hi + (total.lo + (rest + base.lo))


def atan_tail(q: Expr, z: Expr) -> Expr:
    return q * z * polynomial(z, z.pick(ATAN_TAIL, ATAN_TAIL_F32))


def atan(x: Expr) -> Expr:
    """π/4 + atan((x - 1)/(x + 1)) between √2 - 1 and √2 + 1, π/2 - atan(1/x) above."""
    a = fabs(x)
    far, steep = a > 0.41421356237309503, a > 2.414213562373095
    zero, one = x.const(0.0), x.const(1.0)
    top = steep.select(-one, far.select(a - 1.0, a))
    q = top / steep.select(a, far.select(a + 1.0, one))
    base = dd.select(far, dd.constant(x, *x.pick(QUARTER_PI, QUARTER_PI_F32)), Pair(zero, zero))
    base = dd.select(steep, dd.constant(x, *x.pick(HALF_PI, HALF_PI_F32)), base)
    return copysign(sum_of_angles(base, q, atan_tail(q, q * q)), x)


def atan2(y: Expr, x: Expr) -> Expr:
    """The angle of (x, y), special cases as in C99, annex F.9.1.4: a multiple of π/4 and the angle beside it."""
    a, b = fabs(y), fabs(x)
    steep, left = a > b, x.bits() < 0
    small, large = steep.select(b, a), steep.select(a, b)
    # Their sum must not overflow, and no product be subnormal; of infinite ones the finite one is nothing.
    most, least, lift = x.pick((2.0**1022, 2.0**-900, 2.0**100), (2.0**126, 2.0**-90, 2.0**40))
    factor = (large > most).select(x.const(0.25), (large < least).select(x.const(lift), 1.0))
    infinite = large.equals(INFINITY)
    n = infinite.select(small.equals(INFINITY).select(x.const(1.0), 0.0), small * factor)
    d = (infinite | large.equals(0.0)).select(1.0, large * factor)
    far = n > d * 0.41421356237309503
    q = far.select(n - d, n) / far.select(n + d, d)
    eighths = far.select(x.const(1.0), 0.0)
    eighths = steep.select(2.0 - eighths, eighths)
    eighths = left.select(4.0 - eighths, eighths)
    quarter = x.pick(QUARTER_PI, QUARTER_PI_F32)
    base = dd.two_product(eighths, x.const(quarter[0]))
    angle = (steep ^ left).select(-q, q)
    base = Pair(base.hi, muladd(eighths, quarter[1], base.lo))
    result = sum_of_angles(base, angle, atan_tail(angle, q * q))
    return (x.is_nan() | y.is_nan()).select(x + y, copysign(result, y))


def asin_parts(magnitude: Expr) -> tuple[Expr, Expr, Expr]:
    """(is |x| > ½, s, (asin s - s)/s) for s = |x|, or else sqrt((1 - |x|)/2). Beyond one, s is NaN."""
    far = magnitude > 0.5
    z = far.select((1.0 - magnitude) * 0.5, magnitude * magnitude)
    return far, far.select(sqrt(z), magnitude), z * polynomial(z, z.pick(ASIN_TAIL, ASIN_TAIL_F32))


def asin(x: Expr) -> Expr:
    far, s, tail = asin_parts(fabs(x))
    zero = x.const(0.0)
    base = dd.select(far, dd.constant(x, *x.pick(HALF_PI, HALF_PI_F32)), Pair(zero, zero))
    angle = far.select(s * -2.0, s)
    return copysign(sum_of_angles(base, angle, angle * tail), x)


def acos(x: Expr) -> Expr:
    """π/2 - asin x near zero; 2·asin(sqrt((1 - |x|)/2)) near one, from π near minus one."""
    far, s, tail = asin_parts(fabs(x))
    negative, zero = x < 0.0, x.const(0.0)
    outer = dd.select(negative, dd.constant(x, *x.pick(PI, PI_F32)), Pair(zero, zero))
    base = dd.select(far, outer, dd.constant(x, *x.pick(HALF_PI, HALF_PI_F32)))
    angle = far.select(negative.select(s * -2.0, s * 2.0), -x)
    return sum_of_angles(base, angle, angle * tail)
