"""sin, cos and tan over the whole range.

|x| = q·π/2 + r with |r| ≤ π/4. Up to `BOUND` that is Cody and Waite's reduction with π/2 in three parts, and r comes in
double-double; beyond, Payne and Hanek's (`huge_argument`). The polynomials are those of sin and cos in r², interpolated
at Chebyshev nodes.

The choice between the two would be a branch in the caller's loop and keep it scalar. It stands in a function of its
own, the guard, called with the argument and the result of the short way (`guard`).
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.double_double import Pair
from dflow.backends.mathlib.expr import F32, F64, FORMATS, Expr, fabs, fma, polynomial, round_to_integer
from dflow.backends.mathlib.guard import (
    declare_guard,
    guarded,
    new_function,
    write_guard,
    write_long_way,
    write_vector_form,
)
from dflow.backends.mathlib.huge_argument import reduce_huge

TWO_OVER_PI = 0.6366197723675814
HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
HALF_PI_F32 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
SINGLE_BOUND = 2.0**15  # up to here `reduce` does for f32

# (sin r - r)/r³ and (cos r - 1 + r²/2)/r⁴ in r² ≤ 0.623, to 1.3e-20 and 7e-22; then for f32, to 3e-11 and 3e-12.
SIN_TAIL = (
    -0.16666666666666666,
    0.008333333333333331,
    -0.00019841269841264821,
    2.7557319219150783e-06,
    -2.5052106167335705e-08,
    1.6058521349954986e-10,
    -7.586094789672621e-13,
)
COS_TAIL = (
    0.041666666666666664,
    -0.0013888888888888887,
    2.480158730158451e-05,
    -2.755731922129809e-07,
    2.0876755754879594e-09,
    -1.1470455178216906e-11,
    4.745537017319258e-14,
)
SIN_TAIL_F32 = (-0.16666666663741367, 0.00833333183062943, -0.00019840063040804117, 2.7246868722877944e-06)
COS_TAIL_F32 = (0.04166666666422613, -0.0013888887635227975, 2.4800580601354642e-05, -2.7298407652795173e-07)


class Reduced(NamedTuple):
    """|x| = quadrant·π/2 + remainder, the quadrant modulo 4 in its two low bits."""

    remainder: Pair
    quadrant: Expr


def reduce(x: Expr) -> Reduced:
    """For |x| ≤ 2^30, or `SINGLE_BOUND`; infinity and NaN give NaN."""
    half_pi = x.pick(HALF_PI, HALF_PI_F32)
    magnitude = fabs(x)
    k, quadrant = round_to_integer(magnitude * TWO_OVER_PI)
    # Exact: the difference is a multiple of an ulp that a number below 1 has room for.
    high = fma(-k, half_pi[0], magnitude)
    second = dd.two_product(k, x.const(half_pi[1]))
    remainder = dd.two_sum(high, -second.hi)
    low = fma(-k, half_pi[2], remainder.lo - second.lo)
    return Reduced(Pair(remainder.hi, low), quadrant)


class SinCos(NamedTuple):
    """sin r = sin.hi + sin.lo and likewise cos r; the sums are not normalised."""

    sin: Pair
    cos: Pair


def sin_cos(r: Pair) -> SinCos:
    """For |r| ≤ π/4, slightly more included."""
    is_double = r.hi.format is F64
    z = r.hi * r.hi
    half_z = 0.5 * z
    w = 1.0 - half_z
    sin_tail = polynomial(z, SIN_TAIL if is_double else SIN_TAIL_F32)
    cos_tail = polynomial(z, COS_TAIL if is_double else COS_TAIL_F32)
    cos_low = (1.0 - w) - half_z + fma(z * z, cos_tail, -(r.hi * r.lo))
    return SinCos(Pair(r.hi, fma(r.hi * z, sin_tail, r.lo * w)), Pair(w, cos_low))


def with_sign(magnitude: Expr, sign: Expr) -> Expr:
    """`magnitude` times -1 where the top bit of the integer `sign` is set."""
    top = magnitude.format.int_type.width - 1
    return (magnitude.bits() ^ (sign & (1 << top))).as_float()


def is_odd(quadrant: Expr) -> Expr:
    return (quadrant & 1).equals(1)


def sin_from(x: Expr, reduced: Reduced) -> Expr:
    sin, cos = sin_cos(reduced.remainder)
    magnitude = is_odd(reduced.quadrant).select(cos.rounded(), sin.rounded())
    return with_sign(magnitude, x.bits() ^ reduced.quadrant << (x.format.int_type.width - 2))


def cos_from(x: Expr, reduced: Reduced) -> Expr:
    """The sine a quadrant further on; cos is even."""
    return sin_from(fabs(x), Reduced(reduced.remainder, reduced.quadrant + 1))


def tan_from(x: Expr, reduced: Reduced) -> Expr:
    """sin/cos, or -cos/sin in odd quadrants, in double-double."""
    parts = sin_cos(reduced.remainder)
    sin, cos = dd.fast_two_sum(*parts.sin), dd.fast_two_sum(*parts.cos)
    odd = is_odd(reduced.quadrant)
    ratio = dd.divide(dd.select(odd, cos, sin), dd.select(odd, sin, cos)).rounded()
    # A tiny r leaves nothing for the correction to do but to underflow.
    result = with_sign(ratio, x.bits() ^ (reduced.quadrant << (x.format.int_type.width - 1)))
    return (fabs(x) < 2.0**-28).select(x, result)


FROM_REDUCED = {"sin": sin_from, "cos": cos_from, "tan": tan_from}


def reduce_for_f32(x: Expr) -> Reduced:
    """The reduction of an f32, done in f64, where the rounding of π/2 needs two parts only."""
    wide = x.to_f64()
    magnitude = fabs(wide)
    k, quadrant = round_to_integer(magnitude * TWO_OVER_PI)
    remainder = fma(-k, HALF_PI[1], fma(-k, HALF_PI[0], magnitude))
    return Reduced(Pair(remainder.to_f32(), x.const(0.0)), quadrant.to_i32())


def trigonometric(name: str, x: Expr) -> Expr:
    from_reduced = FROM_REDUCED[name]
    if x.format is F64:
        result = from_reduced(x, reduce(x))
    else:
        result = from_reduced(x, reduce_for_f32(x))
    return guarded(name, x, result)


def in_single_precision(name: str, x: Expr) -> Expr:
    """Of an f32, without f64 up to `SINGLE_BOUND`; a branch leads beyond."""
    b, short = x.builder, FROM_REDUCED[name](x, reduce(x))
    before, is_long = b.block, fabs(x) > SINGLE_BOUND
    with b.if_then(is_long.value, likely=False):
        far, inside = b.call(beyond_single_bound(b.module, name), [x.value]), b.block
    phi = b.phi(x.value.type)
    phi.add_incoming(short.value, before)
    phi.add_incoming(far, inside)
    return Expr(b, phi)


def beyond_single_bound(module: ir.Module, name: str) -> ir.Function:
    """The function of an f32 beyond `SINGLE_BOUND`, done in f64."""
    full_name = f"dflow.{name}.beyond"
    if full_name in module.globals:
        return module.globals[full_name]
    function = ir.Function(module, ir.FunctionType(F32.float_type, [F32.float_type]), full_name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind", "readnone"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    x = Expr(builder, function.args[0]).to_f64()
    moderate = FROM_REDUCED[name](x, reduce(x))
    is_huge = fabs(x) > 2.0**30
    huge = FROM_REDUCED[name](x, reduced_huge(is_huge.select(x, 2.0**30)))
    builder.ret(is_huge.select(huge, moderate).to_f32().value)
    return function


def define_guard(module: ir.Module, name: str, dtype: str) -> list[ir.Function]:
    """The guard of a function, with its body, and what it calls without one."""
    guard, *_ = declare_guard(module, name, FORMATS[dtype])
    return [guard, write_guard(guard)]


def define_long_way(module: ir.Module, name: str, dtype: str) -> list[ir.Function]:
    """What the guard of a function calls where the argument is huge, with its body."""
    full_name = f"dflow.{name}.guard.{dtype}.long"
    function = module.globals.get(full_name) or new_function(module, full_name, FORMATS[dtype].float_type)
    write_long_way(function, lambda huge: FROM_REDUCED[name](huge, reduced_huge(huge)))
    return [function]


def define_vector_forms(module: ir.Module, name: str, dtype: str) -> list[ir.Function]:
    """The vector forms of a guard, with their bodies, which call it."""
    guard, *forms = declare_guard(module, name, FORMATS[dtype])
    for form in forms:
        write_vector_form(form, guard)
    return forms


# What stands in modules of their own, by its kind.
DEFINITIONS = {"guards": define_guard, "long ways": define_long_way, "vectors": define_vector_forms}


def reduced_huge(x: Expr) -> Reduced:
    """`reduce_huge` as a function that a module has once: it is long."""
    parts = x.builder.call(huge_reduction(x.builder.module), [x.value])
    high, low, quadrant = (Expr(x.builder, x.builder.extract_value(parts, k)) for k in range(3))
    return Reduced(Pair(high, low), quadrant)


def huge_reduction(module: ir.Module) -> ir.Function:
    """x -> (high part of the remainder, its low part, quadrant)."""
    name = "dflow.reduce_huge"
    if name in module.globals:
        return module.globals[name]
    t = ir.LiteralStructType([F64.float_type, F64.float_type, F64.int_type])
    function = ir.Function(module, ir.FunctionType(t, [F64.float_type]), name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind", "readnone"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    remainder, quadrant = reduce_huge(Expr(builder, function.args[0]))
    made: ir.Value = ir.Constant(t, ir.Undefined)
    for k, part in enumerate((remainder.hi, remainder.lo, quadrant)):
        made = builder.insert_value(made, part.value, k)
    builder.ret(made)
    return function


def sin(x: Expr) -> Expr:
    return trigonometric("sin", x)


def cos(x: Expr) -> Expr:
    return trigonometric("cos", x)


def tan(x: Expr) -> Expr:
    return trigonometric("tan", x)
