"""exp, exp2, expm1 and the hyperbolic functions.

All start from exp(x) = 2^k·exp(r) with r = x - k·ln 2, |r| ≤ (ln 2)/2 (Cody and Waite, "Software manual for the
elementary functions", 1980), and a polynomial P with exp(r) = 1 + r + r²·P(r), interpolated at Chebyshev nodes.
"""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import (
    F64,
    Expr,
    clamp,
    copysign,
    fabs,
    minimum,
    muladd,
    polynomial,
    power_of_two,
    round_to_integer,
    scale_sum,
)

LOG2_E = 1.4426950408889634
LOG2_E_F32 = (1.4426950216293335, 1.925963033500011e-08)
LN2 = (0.6931471805599453, 2.3190468138462996e-17)
LN2_F32 = (0.6931471824645996, -1.9046542121259336e-09)
# ln 2 in two parts, the first with trailing zeros so that its product with k is exact without fma too.
LN2_SPLIT_F64 = (0.6931471803691238, 1.9082149292705877e-10)
LN2_SPLIT_F32 = (0.693145751953125, 1.428606765330187e-06)

# P(r) = (exp(r) - 1 - r) / r² on |r| ≤ 0.3467, to 1.4e-18.
EXP_TAIL = (
    0.5,
    0.1666666666666667,
    0.04166666666666667,
    0.00833333333332612,
    0.0013888888888883737,
    0.00019841269874873975,
    2.480158732558584e-05,
    2.755725533255441e-06,
    2.7557273594799413e-07,
    2.510524515390137e-08,
    2.0914707069612355e-09,
)
# The same to 1.4e-9.
EXP_TAIL_F32 = (
    0.5000000013487226,
    0.16666666681647016,
    0.04166646471137908,
    0.00833331090172597,
    0.0013933673732931852,
    0.0001989101718430203,
)

# (sinh x - x) / x³ in x² ≤ 1, to 1.1e-17 and 8.8e-8.
SINH_TAIL = (
    0.16666666666666666,
    0.008333333333333299,
    0.00019841269841324198,
    2.7557319191381816e-06,
    2.5052117695907823e-08,
    1.6057679623801635e-10,
    7.746178593018927e-13,
)
SINH_TAIL_F32 = (
    0.1666667539661167,
    0.008331762733679632,
    0.0002025888490300239,
)


def reduce(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, what rounding r lost, k) with x = k·ln 2 + r."""
    ln2_hi, ln2_lo = LN2_SPLIT_F64 if x.format is F64 else LN2_SPLIT_F32
    k, exponent = round_to_integer(x, LOG2_E)
    # Exact: both terms are multiples of one ulp that |r| ≤ 0.35 has room for.
    high = muladd(-k, ln2_hi, x)
    r = muladd(-k, ln2_lo, high)
    return r, muladd(-k, ln2_lo, high - r), exponent


def above_line(r: Expr, r_lost: Expr) -> Expr:
    """r²·P(r) + r_lost. The upper part of P joins last, so that nothing waits for the whole of it."""
    tail = EXP_TAIL if r.format is F64 else EXP_TAIL_F32
    square = r * r
    low = muladd(square, polynomial(r, tail[:4]), r_lost)
    return muladd(square * (square * square), polynomial(r, tail[4:]), low)


def exp(x: Expr) -> Expr:
    low, high = (-746.0, 710.0) if x.format is F64 else (-104.0, 89.0)
    r, r_lost, k = reduce(clamp(x, low, high))
    line = dd.fast_two_sum(x.const(1.0), r)
    return scale_sum(line.hi, above_line(r, line.lo + r_lost), k)


def rough_exp(x: Expr) -> Expr:
    """exp x to 2^-32 of itself, for f64 x in ±700."""
    k, exponent = round_to_integer(x, LOG2_E)
    r = muladd(-k, LN2[0], x)
    return muladd(r * r, polynomial(r, EXP_TAIL_F32), 1.0 + r) * power_of_two(exponent)


def exp_pair(x: Pair) -> tuple[Pair, Expr]:
    """(m, k) with exp(x) = m·2^k, m in [0.7, 1.42] and right to 2^-57; x.hi must be in ±1480."""
    line, rest, k = exp_parts(x)
    return dd.fast_two_sum(line, rest), k


def exp_parts(x: Pair) -> tuple[Expr, Expr, Expr]:
    """(l, s, k) with exp(x) = (l + s)·2^k, for a small s."""
    r, r_lost, k = reduce(x.hi)
    line = dd.fast_two_sum(x.hi.const(1.0), r)
    tail = above_line(r, line.lo)
    # exp(r + t) = exp(r)·(1 + t) for the small rest t, which comes last, so that nothing else waits for it.
    return line.hi, muladd(line.hi + tail, r_lost + x.lo, tail), k


def exp_of_pair(x: Pair, factor: Expr | float = 1.0) -> Expr:
    """factor·exp(hi + lo) for any hi; lo is ignored where the result overflows or vanishes. ``factor`` is 1 or -1."""
    low, high = x.hi.pick((-746.0, 710.0), (-104.0, 89.0))
    in_range = (x.hi > low) & (x.hi < high)
    line, rest, k = exp_parts(Pair(clamp(x.hi, low, high), in_range.select(x.lo, 0.0)))
    return scale_sum(line, rest, k) * factor


def exp2(x: Expr) -> Expr:
    """2^x = 2^k·exp((x - k)·ln 2)."""
    ln2_hi, ln2_lo = x.pick(LN2, LN2_F32)
    bounded = clamp(x, *x.pick((-1076.0, 1025.0), (-151.0, 129.0)))
    k, exponent = round_to_integer(bounded)
    fraction = bounded - k
    r = dd.two_product(fraction, x.const(ln2_hi))
    line = dd.fast_two_sum(x.const(1.0), r.hi)
    return scale_sum(line.hi, above_line(r.hi, line.lo + muladd(fraction, ln2_lo, r.lo)), exponent)


def exp_in_hardware(x: Expr) -> Expr:
    """exp of an f32 by a GPU's unit for powers of two: two ulp at most, by a third of the instructions."""
    return _power_in_hardware(x, *LOG2_E_F32)


def exp2_in_hardware(x: Expr) -> Expr:
    return _power_in_hardware(x, 1.0, 0.0)


def _power_in_hardware(x: Expr, base: float, base_lo: float) -> Expr:
    """2^(x·base) = 2^k·2^f with f in ±1/2, but where the result overflows or leaves the normal numbers: there 2^k does
    not, and f is what is left. f is a float that the rounding of x·base does not touch."""
    k, exponent = round_to_integer(clamp(x * base, -126.0, 127.0))
    f = muladd(x, base, -k)
    f = muladd(x, base_lo, f) if base_lo else f
    t = x.value.type
    unit = x.builder.module.declare_intrinsic("llvm.nvvm.ex2.approx.ftz.f", (), ir.FunctionType(t, [t]))
    return Expr(x.builder, x.builder.call(unit, [f.value])) * power_of_two(exponent)


def expm1(x: Expr) -> Expr:
    """2^k·((1 - 2^-k) + (exp(r) - 1)); 2^-k is lost long before it leaves the normal numbers."""
    r, r_lost, k = reduce(clamp(x, -50.0, x.pick(710.0, 89.0)))
    grown = dd.fast_two_sum(r, above_line(r, r_lost))
    most = x.pick(200, 100)
    whole = dd.fast_two_sum(1.0 - power_of_two(-((k > most).select(most, k))), grown.hi)
    # exp(x) - 1 = x + x²/2 + ...: tiny x comes back as it is, signed zero and subnormals included.
    return (fabs(x) < x.pick(2.0**-54, 2.0**-26)).select(x, scale_sum(whole.hi, whole.lo + grown.lo, k))


def tanh(x: Expr) -> Expr:
    """tanh|x| = d / (d + 2) with d = exp(2|x|) - 1, in double-double, one division."""
    if x.format is not F64:
        return tanh_f32(x)
    r, r_lost, k = reduce(minimum(fabs(x) * 2.0, 40.0))
    grown = dd.fast_two_sum(r, above_line(r, r_lost))
    # d = 2^k·(exp(r) - 1) + (2^k - 1), the second term the larger or zero.
    two_k = power_of_two(k)
    difference = dd.fast_two_sum(two_k - 1.0, two_k * grown.hi)
    difference = Pair(difference.hi, muladd(two_k, grown.lo, difference.lo))
    bottom = dd.two_sum(difference.hi, x.const(2.0))
    ratio = dd.divide(difference, Pair(bottom.hi, bottom.lo + difference.lo))
    return copysign((fabs(x) < 2.0**-28).select(fabs(x), ratio.rounded()), x)


def tanh_f32(x: Expr) -> Expr:
    """The formula of `tanh` with exp(r) - 1 = r + r²·P(r) in single precision."""
    r, r_lost, k = reduce(minimum(fabs(x) * 2.0, 20.0))
    grown = r + above_line(r, r_lost)
    two_k = power_of_two(k)
    difference = muladd(two_k, grown, two_k - 1.0)
    ratio = difference / (difference + 2.0)
    return copysign((fabs(x) < 2.0**-13).select(fabs(x), ratio), x)


def half_exponential(x: Expr) -> Expr:
    """exp|x| / 2."""
    r, r_lost, k = reduce(minimum(fabs(x), x.pick(711.0, 90.0)))
    line = dd.fast_two_sum(x.const(1.0), r)
    return scale_sum(line.hi, above_line(r, line.lo + r_lost), k - 1)


def sinh(x: Expr) -> Expr:
    half = half_exponential(x)
    magnitude = fabs(x)
    z = magnitude * magnitude
    near = muladd(magnitude * z, polynomial(z, x.pick(SINH_TAIL, SINH_TAIL_F32)), magnitude)
    return copysign((magnitude < 1.0).select(near, half - 0.25 / half), x)


def cosh(x: Expr) -> Expr:
    half = half_exponential(x)
    return half + 0.25 / half
