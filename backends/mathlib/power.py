"""pow, cbrt, hypot and fmod."""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.exponential import exp_of_pair, rough_exp
from dflow.backends.mathlib.expr import (
    Expr,
    clamp,
    copysign,
    fabs,
    floor,
    fma,
    polynomial,
    power_of_two,
)
from dflow.backends.mathlib.logarithm import log_pair, rough_log

INFINITY = float("inf")
NAN = float("nan")

# Cube root on [1, 2], to 1.4e-5, and the cube roots of 1, 2 and 4.
CUBE_ROOT_START = (
    0.5092481335492415,
    0.7117423866025924,
    -0.2939541180848237,
    0.08307903547963541,
    -0.010102212336338642,
)
CUBE_ROOT_OF_2 = 1.2599210498948732
CUBE_ROOT_OF_4 = 1.5874010519681994


def pow(x: Expr, y: Expr) -> Expr:
    """exp(y·log|x|) in double-double."""
    log_base = log_pair(fabs(x))
    exponent = bounded(y)
    product = dd.two_product(log_at_ends(fabs(x), log_base.hi), exponent)
    return signed_power(x, y, exp_of_pair(Pair(product.hi, fma(log_base.lo, exponent, product.lo))))


def pow_of_f32(x: Expr, y: Expr) -> Expr:
    """The same in f64, in which no f32 is subnormal; rounding makes it infinite, subnormal or zero."""
    log_base = log_at_ends(fabs(x), rough_log(fabs(x).to_f64()))
    product = clamp(log_base * bounded(y).to_f64(), -200.0, 200.0)
    return signed_power(x, y, rough_exp(product).to_f32())


def bounded(y: Expr) -> Expr:
    """Beyond 2^70, or 2^40, every power of a number other than 1 has overflowed or vanished."""
    most = y.pick(2.0**70, 2.0**40)
    return clamp(y, -most, most)


def log_at_ends(x: Expr, inside: Expr) -> Expr:
    """``inside`` for 0 < x < inf."""
    return x.equals(0.0).select(inside.const(-INFINITY), x.equals(INFINITY).select(inside.const(INFINITY), inside))


def signed_power(x: Expr, y: Expr, magnitude: Expr) -> Expr:
    """x^y from |x|^y, which is right but for NaN, and where the result is 1 (C99, annex F.9.4.4)."""
    half = y * 0.5
    integral = floor(y).equals(y)
    odd = integral & ~floor(half).equals(half)
    sign = odd.select(copysign(x.const(1.0), x), 1.0)
    rootless = (x < 0.0) & (x > -INFINITY) & ~integral
    result = (x.is_nan() | y.is_nan() | rootless).select(x.const(NAN), magnitude * sign)
    return (x.equals(1.0) | y.equals(0.0)).select(x.const(1.0), result)


def cbrt(x: Expr) -> Expr:
    """x = ±m·2^(3q + r): the root of m·2^r from a polynomial and Newton steps, of which the last has an
    exact residual.

    The steps share one reciprocal slope, off by 1e-4 or less, so that each gains four decimal digits or so.
    """
    magnitude = fabs(x)
    width, bias, lift = x.format.mantissa_bits, x.format.bias, x.pick(54, 24)
    subnormal = magnitude < 2.0 ** (1 - bias)
    lifted = subnormal.select(magnitude * 2.0**lift, magnitude)
    bits = lifted.bits()
    biased = bits >> width
    mantissa = ((bits & ((1 << width) - 1)) | (bias << width)).as_float()
    base = x.const(2.0**width)
    exponent = (biased | base.bits()).as_float() - (2.0**width + bias)
    third = floor((exponent + 0.5) * (1.0 / 3.0))
    remainder = exponent - third * 3.0
    third_bits = (third + x.format.round_to_int).bits() - x.const(x.format.round_to_int).bits()

    start = polynomial(mantissa, CUBE_ROOT_START)
    is_one, is_two = remainder.equals(1.0), remainder.equals(2.0)
    root = start * is_two.select(x.const(CUBE_ROOT_OF_4), is_one.select(x.const(CUBE_ROOT_OF_2), 1.0))
    cube = mantissa * is_two.select(x.const(4.0), is_one.select(x.const(2.0), 1.0))
    inverse_slope = 1.0 / (3.0 * root * root)
    for _ in range(x.pick(2, 1)):
        root = fma(fma(-root, root * root, cube), inverse_slope, root)
    square = dd.two_product(root, root)
    residual = fma(-root, square.hi, cube) - root * square.lo
    root = fma(residual, inverse_slope, root)

    scaled = root * power_of_two(third_bits) * subnormal.select(x.const(2.0 ** -(lift // 3)), 1.0)
    special = magnitude.equals(0.0) | ~(magnitude < INFINITY)
    return special.select(x, copysign(scaled, x))


def hypot(x: Expr, y: Expr) -> Expr:
    """sqrt(a² + b²) with the sum in double-double, scaled by a power of two against overflow and underflow."""
    a, b = fabs(x), fabs(y)
    largest = (a < b).select(b, a)
    most, least, step = x.pick((2.0**500, 2.0**-400, 2.0**600), (2.0**60, 2.0**-40, 2.0**90))
    up, down = largest > most, largest < least
    factor = up.select(x.const(1.0 / step), down.select(x.const(step), 1.0))
    back = up.select(x.const(step), down.select(x.const(1.0 / step), 1.0))
    a, b = a * factor, b * factor
    total = dd.add(dd.two_product(a, a), dd.two_product(b, b))
    result = dd.square_root(total).rounded() * back
    infinite = fabs(x).equals(INFINITY) | fabs(y).equals(INFINITY)
    return infinite.select(x.const(INFINITY), (x.is_nan() | y.is_nan()).select(x + y, result))


def fmod(x: Expr, y: Expr) -> Expr:
    """The exact remainder of x / y with the sign of x, by long division on the integer mantissas.

    Each round brings down 11 bits of the quotient: a 53-bit remainder shifted by 11 fits 64 bits. Quotients below 2^11
    need none but the closing round. The loop keeps callers from being vectorised.
    """
    a, b = fabs(x), fabs(y)
    a_mantissa, a_exponent = integer_parts(a)
    b_mantissa, b_exponent = integer_parts(b)
    builder = x.builder
    entry = builder.block
    loop, body, done = (builder.append_basic_block(name) for name in ("round", "shift", "done"))
    # A zero divisor gives NaN below; here it must not trap.
    divisor = (b > 0.0).select(b_mantissa, 1)
    distance = a_exponent - b_exponent
    builder.branch(loop)

    builder.position_at_end(loop)
    left_phi = builder.phi(ir.IntType(64))
    rest_phi = builder.phi(ir.IntType(64))
    left_phi.add_incoming(distance.value, entry)
    rest_phi.add_incoming(a_mantissa.value, entry)
    left, rest = Expr(builder, left_phi), Expr(builder, rest_phi)
    builder.cbranch((left > 0).value, body, done)

    builder.position_at_end(body)
    shift = (left < 11).select(left, 11)
    shifted = rest << shift
    left_phi.add_incoming((left - shift).value, body)
    rest_phi.add_incoming(builder.urem(shifted.value, divisor.value), body)
    builder.branch(loop)

    builder.position_at_end(done)
    rest = Expr(builder, builder.urem(rest.value, divisor.value))
    remainder = integer_times_power(rest, b_exponent)
    result = (a < b).select(a, remainder)
    invalid = x.is_nan() | y.is_nan() | a.equals(INFINITY) | b.equals(0.0)
    return copysign(invalid.select(x.const(NAN), b.equals(INFINITY).select(a, result)), x)


def integer_parts(x: Expr) -> tuple[Expr, Expr]:
    """(m, e) with x = m·2^(e - 1075) for finite x ≥ 0, both integers."""
    bits = x.bits()
    biased = bits >> 52
    fraction = bits & ((1 << 52) - 1)
    normal = biased > 0
    return normal.select(fraction | (1 << 52), fraction), normal.select(biased, 1)


def integer_times_power(mantissa: Expr, exponent: Expr) -> Expr:
    """m·2^(e - 1075) for m < 2^53 and e ≥ 1, where the result is known to be exact."""
    number = Expr(mantissa.builder, mantissa.builder.uitofp(mantissa.value, ir.DoubleType()))
    high = (exponent > 1000).select(1000, exponent)
    # 2^(e - 1075) in two factors, both normal; the first product is exact because m·2^(high - 600) is normal.
    return number * power_of_two(high - 600) * power_of_two(exponent - high - 475)
