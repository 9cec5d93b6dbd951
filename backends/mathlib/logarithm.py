"""log, its relatives, and the inverse hyperbolic functions.

x = 2^k·m with m in [√½, √2); with s = (m - 1)/(m + 1), log m = 2·atanh(s) = 2s + s³·(2/3 + 2/5·s² + ...). All but `log`
evaluate that in double-double (`log_pair`), so that what is added to it, or multiplied with it, does no harm.
"""

from __future__ import annotations

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import F64, Expr, copysign, fabs, muladd, polynomial

INFINITY = float("inf")
NAN = float("nan")

LN2 = (0.6931471805599453, 2.3190468138462996e-17)
LOG2_E = (1.4426950408889634, 2.0355273740931033e-17)
LOG10_E = (0.4342944819032518, 1.098319650216765e-17)
LN2_HI_F32, LN2_LO_F32 = 0.693145751953125, 1.428606765330187e-06

# (2·atanh(s) - 2s) / s³ in s², for s² ≤ 0.0297, to 3.3e-16 and 1.2e-9.
LOG_TAIL = (
    0.666666666666667,
    0.3999999999989322,
    0.28571428628810996,
    0.22222210674238516,
    0.18182922513515942,
    0.15330617306743305,
    0.1463003136412286,
)
LOG_TAIL_F32 = (0.6666666654988318, 0.40000125594554364, 0.28550396959618013, 0.23341943388714562)
# What follows 2s + 2/3·s³ + 2/5·s⁵, over s⁷, to 1.9e-18.
LOG_FAR_TAIL = (
    0.2857142857142857,
    0.22222222222223,
    0.18181818181268566,
    0.15384615532189713,
    0.13333313902684013,
    0.11766091950174559,
    0.10471785182759037,
    0.10628696830810742,
)
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
TWO_FIFTHS = (0.4, -2.2204460492503132e-17)


def split(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(m, k, 2^-k) with x = m·2^k and m in [√½, √2), for finite x > 0; k is a float.

    The last is right for normal x below 2^1022 only.
    """
    fmt = x.format
    lift = fmt.mantissa_bits + 2
    subnormal = x < 2.0 ** (1 - fmt.bias)
    bits = subnormal.select(x * 2.0**lift, x).bits()
    # Subtracting the bits of √½ carries into the exponent field exactly where the mantissa reaches √½.
    root_half = x.const(0.5**0.5).bits()
    offset = bits - root_half + (fmt.bias << fmt.mantissa_bits)
    biased = offset >> fmt.mantissa_bits
    mantissa = (bits - ((biased - fmt.bias) << fmt.mantissa_bits)).as_float()
    # An integer below 2^p under the bits of 2^p is 2^p plus the integer.
    base = 2.0**fmt.mantissa_bits
    exponent = (biased | x.const(base).bits()).as_float() - (base + fmt.bias)
    inverse = ((2 * fmt.bias - biased) << fmt.mantissa_bits).as_float()
    return mantissa, exponent - subnormal.select(x.const(float(lift)), 0.0), inverse


def at_the_ends(x: Expr, inside: Expr) -> Expr:
    """`inside` for 0 < x < inf, and what every logarithm gives elsewhere."""
    at_end = x.equals(0.0).select(x.const(-INFINITY), (x < 0.0).select(x.const(NAN), x))
    return ((x > 0.0) & (x < INFINITY)).select(inside, at_end)


def log(x: Expr) -> Expr:
    is_double = x.format is F64
    ln2_hi, ln2_lo = (0.6931471803691238, 1.9082149292705877e-10) if is_double else (LN2_HI_F32, LN2_LO_F32)
    mantissa, k, _ = split(x)
    f = mantissa - 1.0
    s = f / (f + 2.0)
    z = s * s
    tail = z * polynomial(z, LOG_TAIL if is_double else LOG_TAIL_F32)
    # 2s = f - s·f, and f·(1 - f/2) carries the rounding of s no further than its own correction.
    half_square = 0.5 * f * f
    correction = muladd(s, half_square + tail, k * ln2_lo)
    return at_the_ends(x, muladd(k, ln2_hi, f - (half_square - correction)))


def log_of_mantissa(f: Pair) -> Pair:
    """log(1 + f) for 1 + f in [√½, √2], right to 2^-66 of itself."""
    s = dd.divide(f, dd.add_float(f, f.hi.const(2.0)))
    z = dd.multiply(s, s)
    tail = dd.add_float(dd.constant(f.hi, *TWO_FIFTHS), z.hi * polynomial(z.hi, LOG_FAR_TAIL))
    tail = dd.add(dd.constant(f.hi, *TWO_THIRDS), dd.multiply(z, tail))
    return dd.add(s.scaled(2.0), dd.multiply(dd.multiply(s, z), tail))


def log_parts(x: Pair) -> tuple[Pair, Expr]:
    """(log m, k) with log(hi + lo) = log m + k·ln 2, for finite x > 0; lo counts where hi is normal."""
    mantissa, k, inverse = split(x.hi)
    low = (x.hi > 2.0**1000).select(0.0, x.lo * inverse)
    return log_of_mantissa(dd.two_sum(mantissa - 1.0, low)), k


def log_pair(x: Pair) -> Pair:
    """log(hi + lo) right to 2^-66 of itself, for finite x > 0."""
    mantissa, k = log_parts(x)
    return dd.add(dd.multiply_float(dd.constant(k, *LN2), k), mantissa)


def log2(x: Expr) -> Expr:
    mantissa, k = log_parts(Pair(x, x.const(0.0)))
    scaled = dd.multiply(mantissa, dd.constant(x, *LOG2_E))
    return at_the_ends(x, dd.add_float(scaled, k).rounded())


def log10(x: Expr) -> Expr:
    scaled = dd.multiply(log_pair(Pair(x, x.const(0.0))), dd.constant(x, *LOG10_E))
    return at_the_ends(x, scaled.rounded())


def log1p(x: Expr) -> Expr:
    inside = log_pair(dd.two_sum(x, x.const(1.0))).rounded()
    ends = at_the_ends(x + 1.0, inside)
    return (fabs(x) < 2.0**-54).select(x, ends)


def asinh(x: Expr) -> Expr:
    """log(|x| + sqrt(x² + 1)); beyond 2^30 the one is lost and log 2|x| serves, with no overflow."""
    magnitude = fabs(x)
    huge = magnitude > 2.0**30
    moderate = huge.select(1.0, magnitude)
    root = dd.square_root(dd.add_float(dd.two_product(moderate, moderate), x.const(1.0)))
    result = log_or_log_double(huge, magnitude, dd.add_float(root, moderate))
    result = (magnitude < 2.0**-28).select(magnitude, result)
    return copysign((magnitude < INFINITY).select(result, magnitude), x)


def acosh(x: Expr) -> Expr:
    """log(x + sqrt(x² - 1))."""
    huge = x > 2.0**30
    moderate = huge.select(1.0, x)
    root = dd.square_root(dd.add_float(dd.two_product(moderate, moderate), x.const(-1.0)))
    result = log_or_log_double(huge, x, dd.add_float(root, moderate))
    at_end = (x < 1.0).select(x.const(NAN), x)
    return ((x >= 1.0) & (x < INFINITY)).select(result, at_end)


def log_or_log_double(huge: Expr, x: Expr, otherwise: Pair) -> Expr:
    """log(2x) where `huge`, else log(otherwise)."""
    zero = dd.constant(x, 0.0)
    result = log_pair(dd.select(huge, zero._replace(hi=x), otherwise))
    return dd.add(result, dd.select(huge, dd.constant(x, *LN2), zero)).rounded()


def atanh(x: Expr) -> Expr:
    """½·log((1 + |x|) / (1 - |x|))."""
    magnitude = fabs(x)
    one = x.const(1.0)
    bounded = (magnitude < 1.0).select(magnitude, 0.0)
    ratio = dd.divide(dd.two_sum(one, bounded), dd.two_sum(one, -bounded))
    result = log_pair(ratio).rounded() * 0.5
    result = (magnitude < 2.0**-28).select(magnitude, result)
    at_end = magnitude.equals(1.0).select(x.const(INFINITY), x.const(NAN))
    return copysign((magnitude < 1.0).select(result, at_end), x)
