"""log, its relatives, and the inverse hyperbolic functions.

x = 2^k·m with m in [√½, √2); with s = (m - 1)/(m + 1), log m = 2·atanh(s) = 2s + s³·(2/3 + 2/5·s² + ...). Logarithms
are m - 1, whose last bits are known, and a small rest (`log_tail`). Hyperbolic functions and powers evaluate the sum in
double-double (`log_pair`), so that what is added to it, or multiplied with it, does no harm.
"""

from __future__ import annotations

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import F64, Expr, copysign, fabs, fma, muladd, polynomial, sqrt

INFINITY = float("inf")
NAN = float("nan")

LN2 = (0.6931471805599453, 2.3190468138462996e-17)
# The first with trailing zeros, so that its product with k is exact.
LN2_SPLIT = (0.693147180559663, 2.8235290563031577e-13)
LN2_F32 = (0.6931471824645996, -1.9046542121259336e-09)
LOG2_E, LOG10_E, LOG10_2 = 1.4426950408889634, 0.4342944819032518, 0.3010299956639812
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
# What follows 2s + 2/3·s³, over s⁵, to 1e-19 and 1e-9.
LOG_FAR_TAIL = (
    0.4,
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
TWO_THIRDS_F32 = (0.6666666865348816, -1.9868215517249155e-08)
LOG_FAR_TAIL_F32 = (0.4, 0.2857142857142857, 0.2222222222222222, 0.1818181818181818, 0.1538461538461538)


def split(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(m, k, 2^-k) with x = m·2^k and m in [√½, √2), for finite x > 0; k is a float.

    The last is right for normal x below 2^1022 only. For other x, m is in that range all the same, and k is finite.
    """
    fmt = x.format
    lift = fmt.mantissa_bits + 2
    # By the bits, as integers: to compare floats takes longer, and everything waits for this.
    subnormal = x.bits() < 1 << fmt.mantissa_bits
    bits = subnormal.select((x * 2.0**lift).bits(), x.bits())
    mantissa, exponent, biased = split_bits(bits)
    inverse = ((2 * fmt.bias - biased) << fmt.mantissa_bits).as_float()
    return mantissa, exponent - subnormal.select(x.const(float(lift)), 0.0), inverse


def split_bits(bits: Expr) -> tuple[Expr, Expr, Expr]:
    """(m, k, k and the bias as an integer) for the bits of a normal number."""
    fmt = bits.format
    base = Expr(bits.builder, fmt.float_type(2.0**fmt.mantissa_bits))
    # Subtracting the bits of √½ carries into the exponent field exactly where the mantissa reaches √½.
    offset = bits - base.const(0.5**0.5).bits()
    mantissa = (bits - (offset & (-1 << fmt.mantissa_bits))).as_float()
    biased = (offset + (fmt.bias << fmt.mantissa_bits)) >> fmt.mantissa_bits
    # An integer below 2^p under the bits of 2^p is 2^p plus the integer.
    exponent = (biased | base.bits()).as_float() - (2.0**fmt.mantissa_bits + fmt.bias)
    return mantissa, exponent, biased


def rough_log(x: Expr) -> Expr:
    """log x to 2^-35 of itself, for normal f64 x > 0; other x give some number."""
    mantissa, k, _ = split_bits(x.bits())
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    return muladd(k, LN2[0], muladd(s * z, polynomial(z, LOG_TAIL_F32), s + s))


def at_the_ends(x: Expr, inside: Expr) -> Expr:
    """`inside` for 0 < x < inf, and what every logarithm gives elsewhere."""
    at_end = x.equals(0.0).select(x.const(-INFINITY), (x < 0.0).select(x.const(NAN), x))
    bits = x.bits()  # LLVM asks many questions for the class of a float
    return ((bits > 0) & (bits < x.const(INFINITY).bits())).select(inside, at_end)


def log(x: Expr) -> Expr:
    """Everything but s²·s·(2/3 + ...) is ready before that is: what k adds, and what is infinite or NaN."""
    mantissa, k, _ = split(x)
    high, low = log_whole(k, mantissa - 1.0)
    return at_the_ends(x, high) + log_tail(mantissa, low)


def log_whole(k: Expr, f: Expr) -> Pair:
    """k·ln 2 + f - f²/2, of which the high part has but f of log(1 + f)."""
    ln2_hi, ln2_lo = (0.6931471803691238, 1.9082149292705877e-10) if f.format is F64 else (LN2_HI_F32, LN2_LO_F32)
    whole = k * ln2_hi  # exact, and 0 or larger than f
    high = whole + f
    return Pair(high, muladd(k, ln2_lo, (f - (high - whole)) - 0.5 * f * f))


def log_tail(mantissa: Expr, low: Expr) -> Expr:
    """``low`` and what log m has beyond f - f²/2, for f = m - 1; it is an eighth of log m, so that its rounding is an
    eighth of a unit in the last place there."""
    f = mantissa - 1.0
    s = f / (mantissa + 1.0)
    z = s * s
    # 2s = f - s·f, and f·(1 - f/2) carries the rounding of s no further than its own correction.
    return muladd(s * z, polynomial(z, LOG_TAIL if f.format is F64 else LOG_TAIL_F32), muladd(s, 0.5 * f * f, low))


def log_of_mantissa(f: Pair) -> tuple[Expr, Pair]:
    """log(1 + f) for 1 + f in [√½, √2], to 2^-64 of itself, or 2^-36: a number known early, and a smaller rest.

    2s + s·(2/3·z + q) with z = s² and q = z²·(2/5 + ...), which is 2^-12 of the result. Of each other factor the high
    part is ready long before the low one, and all low parts are added up at the end.
    """
    bottom = f.hi + 2.0
    inverse = 1.0 / bottom
    s = f.hi * inverse
    bottom_low = (f.hi - (bottom - 2.0)) + f.lo
    s_low = fma(-s, bottom_low, fma(-s, bottom, f.hi) + f.lo) * inverse
    z, z_low = dd.two_product(s, s)
    z_low = muladd(s + s, s_low, z_low)

    q = z * z * polynomial(z, z.pick(LOG_FAR_TAIL, LOG_FAR_TAIL_F32))
    two_thirds = z.pick(TWO_THIRDS, TWO_THIRDS_F32)
    third, third_low = dd.two_product(z, s.const(two_thirds[0]))
    third_low = muladd(z_low, two_thirds[0], muladd(z, two_thirds[1], third_low))
    outer = dd.fast_two_sum(third, q)
    cubic, cubic_low = dd.two_product(s, outer.hi)
    cubic_low = muladd(s, outer.lo + third_low, muladd(s_low, outer.hi, cubic_low))
    return s + s, Pair(cubic, cubic_low + (s_low + s_low))


def log_parts(x: Pair | Expr) -> tuple[Expr, Pair, Expr]:
    """(a, b, k) with log(hi + lo) = a + b + k·ln 2, for finite x > 0; lo counts where hi is normal."""
    if isinstance(x, Expr):
        mantissa, k, _ = split(x)
        return *log_of_mantissa(Pair(mantissa - 1.0, x.const(-0.0))), k  # to add -0.0 is nothing, also to LLVM
    mantissa, k, inverse = split(x.hi)
    low = (x.hi > x.hi.pick(2.0**1000, 2.0**120)).select(0.0, x.lo * inverse)
    return *log_of_mantissa(dd.fast_two_sum(mantissa - 1.0, low)), k


def log_pair(x: Pair | Expr) -> Pair:
    """log(hi + lo) right to 2^-64 of itself, for finite x > 0; the low part may be twice what a `Pair` has."""
    early, rest, k = log_parts(x)
    ln2_hi, ln2_lo = k.pick(LN2_SPLIT, (LN2_HI_F32, LN2_LO_F32))
    whole = dd.fast_two_sum(k * ln2_hi, early)  # the first exact, and 0 or larger than the second
    total = dd.fast_two_sum(whole.hi, rest.hi)
    return Pair(total.hi, total.lo + muladd(k, ln2_lo, whole.lo + rest.lo))


def log2(x: Expr) -> Expr:
    mantissa, k, _ = split(x)
    f = mantissa - 1.0
    return at_the_ends(x, muladd(f + log_tail(mantissa, -0.5 * f * f), LOG2_E, k))


def log10(x: Expr) -> Expr:
    mantissa, k, _ = split(x)
    f = mantissa - 1.0
    return at_the_ends(x, muladd(k, LOG10_2, (f + log_tail(mantissa, -0.5 * f * f)) * LOG10_E))


def log1p(x: Expr) -> Expr:
    """log u + c/u for 1 + x = u + c; where u is large, that is lost."""
    total = dd.two_sum(x, x.const(1.0))
    mantissa, k, inverse = split(total.hi)
    f = mantissa - 1.0
    high, low = log_whole(k, f)
    lost = (total.hi > 2.0**60).select(0.0, total.lo * inverse)
    low = muladd(lost, 1.0 - f * (1.0 - f * (1.0 - f)), low)  # 1/m to a few bits
    ends = at_the_ends(total.hi, high + log_tail(mantissa, low))
    return (fabs(x) < x.pick(2.0**-54, 2.0**-26)).select(x, ends)


def asinh(x: Expr) -> Expr:
    """log1p(|x| + x²/(1 + sqrt(x² + 1))); beyond 2^60, or 2^30, log 2|x| serves, with no overflow."""
    magnitude = fabs(x)
    huge = magnitude > x.pick(2.0**60, 2.0**30)
    moderate = huge.select(1.0, magnitude)
    square = moderate * moderate
    beyond = moderate + square / (1.0 + sqrt(square + 1.0))
    return copysign(log1p_or_log_double(huge, magnitude, beyond), x)


def acosh(x: Expr) -> Expr:
    """log1p(t + sqrt(t² + 2t)) for x = 1 + t."""
    huge = x > x.pick(2.0**60, 2.0**30)
    t = huge.select(1.0, x) - 1.0
    result = log1p_or_log_double(huge, x, t + sqrt(t * (t + 2.0)))
    return (x < 1.0).select(x.const(NAN), result)


def log1p_or_log_double(huge: Expr, x: Expr, beyond: Expr) -> Expr:
    """log(2x) where `huge`, else log(1 + beyond)."""
    return log1p(huge.select(x, beyond)) + huge.select(x.const(x.pick(LN2, LN2_F32)[0]), 0.0)


def atanh(x: Expr) -> Expr:
    """½·log((1 + |x|) / (1 - |x|)) = ½·log1p(2|x| / (1 - |x|))."""
    magnitude = fabs(x)
    return copysign(log1p((magnitude + magnitude) / (1.0 - magnitude)) * 0.5, x)
