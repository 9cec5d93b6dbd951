"""Payne and Hanek's reduction of a huge argument modulo π/2 ("Radian reduction for trigonometric functions", 1983).

x = m·2^e with an integer m. Of the binary digits of 2/π, those that only add multiples of 4 to x·2/π are skipped, and
the next 192 are multiplied with m in integers modulo 4. No f64 lies closer than 2^-62 or so to a multiple of π/2, so
130 digits past the point would do.
"""

from __future__ import annotations

from itertools import pairwise

from llvmlite import ir

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import Expr, fabs

# The digits of 2/π after the point, 32 to a word, behind a word of zeros for exponents that start before the point.
TWO_OVER_PI_DIGITS = (
    0,
    0xA2F9836E,
    0x4E441529,
    0xFC2757D1,
    0xF534DDC0,
    0xDB629599,
    0x3C439041,
    0xFE5163AB,
    0xDEBBC561,
    0xB7246E3A,
    0x424DD2E0,
    0x06492EEA,
    0x09D1921C,
    0xFE1DEB1C,
    0xB129A73E,
    0xE88235F5,
    0x2EBB4484,
    0xE99C7026,
    0xB45F7E41,
    0x3991D639,
    0x835339F4,
    0x9C845F8B,
    0xBDF9283B,
    0x1FF897FF,
    0xDE05980F,
    0xEF2F118B,
    0x5A0A6D1F,
    0x6D367ECF,
    0x27CB09B7,
    0x4F463F66,
    0x9E5FEA2D,
    0x7527BAC7,
    0xEBE5F17B,
    0x3D0739F7,
    0x8A5292EA,
    0x6BFB5FB1,
    0x1F8D5D08,
    0x56033046,
    0xFC7B6BAB,
    0xF0CFBC20,
    0x9AF4361D,
)
LIMBS = 6
LOW_HALF = (1 << 32) - 1
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)


def reduce_huge(x: Expr) -> tuple[Pair, Expr]:
    """(r, q) with |x| = q·π/2 + r modulo 2π and |r| ≤ π/4, for |x| ≥ 2^30; infinity gives NaN."""
    bits = fabs(x).bits()
    mantissa = (bits & ((1 << 52) - 1)) | (1 << 52)
    # e = biased - 1075; the first digit that matters has weight 2^(1 - e), and is preceded by 32 zeros.
    first_digit = (bits >> 52) - (1075 - 30)
    limbs = multiply_modulo(mantissa, digits_from(first_digit))

    # The top two bits of limb 0 are the integer part. Rounding it to nearest leaves a signed fraction.
    top = limbs[0]
    quadrant = (top + (1 << 29)) >> 30
    fraction = to_float(top - (quadrant << 30)) * 2.0**-30
    total = dd.constant(x, 0.0)._replace(hi=fraction)
    for i in range(1, LIMBS):
        total = dd.add_float(total, to_float(limbs[i]) * 2.0 ** (-30 - 32 * i))
    remainder = dd.multiply(total, dd.constant(x, *HALF_PI))
    not_a_number = x - x
    return Pair(remainder.hi + not_a_number, remainder.lo), quadrant


def to_float(n: Expr) -> Expr:
    return Expr(n.builder, n.builder.sitofp(n.value, ir.DoubleType()))


def digits_from(first: Expr) -> list[Expr]:
    """`LIMBS` words of 32 digits from digit `first` on, most significant first."""
    word, offset = first >> 5, first & 31
    words = [load_word(word + i) for i in range(LIMBS + 1)]
    return [((((high << 32) | low) << offset) >> 32) for high, low in pairwise(words)]


def load_word(index: Expr) -> Expr:
    builder = index.builder
    table = digits_table(builder.module)
    address = builder.gep(table, [ir.IntType(32)(0), index.value], inbounds=True)
    return Expr(builder, builder.zext(builder.load(address), ir.IntType(64)))


def digits_table(module: ir.Module) -> ir.GlobalVariable:
    name = "dflow.two_over_pi"
    if name in module.globals:
        return module.globals[name]
    array = ir.ArrayType(ir.IntType(32), len(TWO_OVER_PI_DIGITS))
    table = ir.GlobalVariable(module, array, name)
    table.linkage = "internal"
    table.global_constant = True
    table.initializer = ir.Constant(array, list(TWO_OVER_PI_DIGITS))
    return table


def multiply_modulo(m: Expr, limbs: list[Expr]) -> list[Expr]:
    """m·limbs modulo 2^(32·LIMBS), by schoolbook multiplication with the two halves of `m`."""
    low, high = m & LOW_HALF, m >> 32
    product = [m.const(0)] * LIMBS
    for half, shift in ((low, 0), (high, 1)):
        carry = m.const(0)
        for i in reversed(range(LIMBS - shift)):
            # At most (2^32 - 1)² + 2·(2^32 - 1), which fits.
            total = half * limbs[i + shift] + product[i] + carry
            product[i], carry = total & LOW_HALF, total >> 32
    return product
