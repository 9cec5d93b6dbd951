"""Scalar operations in LLVM, one table for each kind of dtype.

Each entry takes the builder, the operands' dtype and the operands. Floating arithmetic carries ``contract`` (a product
and a sum may become one fused operation) and no other flag: NaN, infinity and signed zero keep their meaning. f16 is
computed in f32 and rounded, which is exact for one operation; what the math library computes in f64 stays f64 until the
last rounding. So is bf16, which is an f32 in registers (`emit_types`), rounded by integer operations.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.emit.types import (
    F16,
    F32,
    F64,
    I1,
    I32,
    I64,
    constant,
    from_storage,
    storage_type,
    to_storage,
    value_type,
)
from dflow.backends.mathlib import MATH_FUNCTIONS, in_single_precision, math_function
from dflow.ir.types import BF16, HALVES, DType
from dflow.ir.types import F16 as F16_DTYPE
from dflow.ir.types import F32 as F32_DTYPE
from dflow.ir.types import F64 as WIDE

Rule = Callable[..., ir.Value]
CONTRACT = ("contract",)


def emit_scalar(
    b: ir.IRBuilder, name: str, attrs: Any, dtypes: Sequence[DType], values: Sequence[ir.Value]
) -> ir.Value:
    """The elementwise operation ``name`` on registers."""
    if name == "select":
        test, x, y = values
        return b.select(test, x, y) if _whole(test) is None else x if test.constant else y
    if name == "convert":
        return convert(b, dtypes[0], attrs["dtype"], values[0])
    if name == "bitcast":
        bits = b.bitcast(to_storage(b, dtypes[0], values[0]), storage_type(attrs["dtype"]))
        return from_storage(b, attrs["dtype"], bits)
    dtype = dtypes[0]
    if dtype in HALVES and not (dtype == F16_DTYPE and name in ON_BITS):
        wide = WIDE if name in MATH_FUNCTIONS and not in_single_precision(name) else F32_DTYPE
        values = [convert(b, dtype, wide, v) for v in values]
        result = emit_scalar(b, name, attrs, [wide] * len(values), values)
        if result.type != value_type(wide) or (dtype == BF16 and name in EXACT):
            return result
        return convert(b, wide, dtype, result)
    if dtype.is_float and name in MATH_FUNCTIONS:
        return b.call(math_function(b.module, name, dtype.name), values)
    rule = TABLES[dtype.kind].get(name)
    if rule is None:
        raise NotImplementedError(f"operation {name} has no machine code for {dtype}")
    return rule(b, dtype, *values)


def intrinsic(b: ir.IRBuilder, name: str, *operands: ir.Value, flags: Sequence[str] = ()) -> ir.Value:
    """A call of an LLVM intrinsic whose result and operands have one type."""
    t = operands[0].type
    function = b.module.declare_intrinsic(name, [t], ir.FunctionType(t, [t] * len(operands)))
    return b.call(function, operands, fastmath=flags)


# --- integers and bools
# What follows from constants alone is found here: positions, where nests are written out. LLVM's passes that see where
# something lies come before those that would find it.


def _whole(x: ir.Value) -> int | None:
    """The number that a constant is."""
    known = isinstance(x, ir.Constant) and isinstance(x.type, ir.IntType) and isinstance(x.constant, int)
    return int(x.constant) if known else None


def _wrapped(dtype: DType, n: int) -> int:
    """What is left of a number in the bits of ``dtype``."""
    low = -(1 << dtype.bits - 1) if dtype.kind == "i" else 0
    return (n - low) % (1 << dtype.bits) + low


def _arithmetic(name: str) -> Rule:
    compute = getattr(operator, name)

    def rule(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
        m, n = _whole(x), _whole(y)
        if m is None or n is None:
            return getattr(b, name)(x, y)
        return x.type(_wrapped(dtype, compute(m, n)))

    return rule


def _sdiv_safe(b: ir.IRBuilder, dtype: DType, y: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """A divisor that cannot trap, and whether `y` is 0 and -1 (where INT_MIN // -1 would)."""
    is_zero = b.icmp_signed("==", y, y.type(0))
    is_minus = b.icmp_signed("==", y, y.type(-1)) if dtype.kind == "i" else I1(0)
    return b.select(b.or_(is_zero, is_minus), y.type(1), y), is_zero, is_minus


def _int_floordiv(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    safe, is_zero, is_minus = _sdiv_safe(b, dtype, y)
    zero = x.type(0)
    if dtype.kind == "u":
        return b.select(is_zero, zero, b.udiv(x, safe))
    quotient, rest = b.sdiv(x, safe), b.srem(x, safe)
    below = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, safe), zero))
    floor = b.sub(quotient, b.zext(below, x.type))
    return b.select(is_zero, zero, b.select(is_minus, b.sub(zero, x), floor))


def _int_rem(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    safe, is_zero, _ = _sdiv_safe(b, dtype, y)
    zero = x.type(0)
    if dtype.kind == "u":
        return b.select(is_zero, zero, b.urem(x, safe))
    rest = b.srem(x, safe)  # 0 for the divisors that were replaced
    other_side = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, safe), zero))
    return b.add(rest, b.select(other_side, safe, zero))


def _int_sign(b: ir.IRBuilder, dtype: DType, x: ir.Value) -> ir.Value:
    zero = x.type(0)
    if dtype.kind == "u":
        return b.zext(b.icmp_unsigned("!=", x, zero), x.type)
    return b.sub(b.zext(b.icmp_signed(">", x, zero), x.type), b.zext(b.icmp_signed("<", x, zero), x.type))


def _int_abs(b: ir.IRBuilder, dtype: DType, x: ir.Value) -> ir.Value:
    zero = x.type(0)
    return x if dtype.kind == "u" else b.select(b.icmp_signed("<", x, zero), b.sub(zero, x), x)


def _int_extreme(compare: str) -> Rule:
    return lambda b, d, x, y: b.select(int_compare(b, d, compare, x, y), x, y)


def int_compare(b: ir.IRBuilder, dtype: DType, op: str, x: ir.Value, y: ir.Value) -> ir.Value:
    m, n = _whole(x), _whole(y)
    if m is not None and n is not None:
        return I1(_TESTS[op](_wrapped(dtype, m), _wrapped(dtype, n)))
    return (b.icmp_signed if dtype.kind == "i" else b.icmp_unsigned)(op, x, y)


def _shl(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    inside = b.icmp_unsigned("<", y, y.type(dtype.bits))
    return b.select(inside, b.shl(x, b.select(inside, y, y.type(0))), x.type(0))


def _shr(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    inside = b.icmp_unsigned("<", y, y.type(dtype.bits))
    if dtype.kind == "i":
        return b.ashr(x, b.select(inside, y, y.type(dtype.bits - 1)))
    return b.select(inside, b.lshr(x, b.select(inside, y, y.type(0))), x.type(0))


_TESTS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
BITS: dict[str, Rule] = {
    "and": lambda b, d, x, y: b.and_(x, y),
    "or": lambda b, d, x, y: b.or_(x, y),
    "xor": lambda b, d, x, y: b.xor(x, y),
    "not": lambda b, d, x: b.not_(x),
    **{name: (lambda b, d, x, y, c=c: int_compare(b, d, c, x, y)) for name, c in COMPARE.items()},
}
INTEGER: dict[str, Rule] = {
    **BITS,
    **{name: _arithmetic(name) for name in ("add", "sub", "mul")},
    "neg": lambda b, d, x: b.sub(x.type(0), x),
    "floordiv": _int_floordiv,
    "rem": _int_rem,
    "sign": _int_sign,
    "abs": _int_abs,
    "max": _int_extreme(">"),
    "min": _int_extreme("<"),
    "shl": _shl,
    "shr": _shr,
}


# --- floats


def _zero(x: ir.Value) -> ir.Constant:
    return ir.Constant(x.type, 0.0)


def number(t: ir.Type, x: float) -> ir.Constant:
    """A constant of a type of numbers, or of a vector of them."""
    return ir.Constant(t, [x] * t.count if isinstance(t, ir.VectorType) else x)


def is_nan(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fcmp_unordered("uno", x, x)


def _float_extreme(compare: str) -> Rule:
    """The inner select is one instruction (maxsd), which gives x when either is NaN; the outer one sees to NaN in y.

    Of the two, the number that is known later is x, so that what follows waits for less.
    """

    def rule(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
        if _lateness(y) >= _lateness(x):
            x, y = y, x
        return b.select(is_nan(b, y), number(y.type, math.nan), b.select(b.fcmp_ordered(compare, y, x), y, x))

    return rule


def _lateness(x: ir.Value) -> int:
    """A guess at how late a number is known: what a loop carries, what is computed, what is in memory, constants."""
    return 3 if isinstance(x, ir.PhiInstr) else 1 if isinstance(x, ir.LoadInstr) else 2 * isinstance(x, ir.Instruction)


def _float_sign(b: ir.IRBuilder, dtype: DType, x: ir.Value) -> ir.Value:
    zero = _zero(x)
    signed = b.select(b.fcmp_ordered(">", x, zero), x.type(1.0), x.type(-1.0))
    return b.select(is_nan(b, x), x, b.select(b.fcmp_ordered("==", x, zero), zero, signed))


def _signbit(b: ir.IRBuilder, dtype: DType, x: ir.Value) -> ir.Value:
    bits = ir.IntType(dtype.bits)
    return b.icmp_signed("<", b.bitcast(x, bits), bits(0))


def _with_remainder(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """fmod(x, y), the remainder with the sign of y, and whether the two differ."""
    rest, zero = b.call(math_function(b.module, "fmod", dtype.name), [x, y]), _zero(x)
    nonzero = b.fcmp_unordered("!=", rest, zero)
    signs_differ = b.xor(b.fcmp_ordered("<", y, zero), b.fcmp_ordered("<", rest, zero))
    moved = b.and_(nonzero, signs_differ)
    with_sign = b.select(nonzero, rest, intrinsic(b, "llvm.copysign", zero, y))
    return rest, b.select(moved, b.fadd(rest, y), with_sign), moved


def _float_rem(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    rest, result, _ = _with_remainder(b, dtype, x, y)
    return b.select(b.fcmp_ordered("==", y, _zero(y)), rest, result)


def _float_floordiv(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    """As NumPy: the quotient without the remainder is nearly an integer, and is snapped to the nearest one."""
    rest, _, moved = _with_remainder(b, dtype, x, y)
    zero, one, ratio = _zero(x), x.type(1.0), b.fdiv(x, y)
    quotient = b.fdiv(b.fsub(x, rest), y)
    quotient = b.select(moved, b.fsub(quotient, one), quotient)
    floor = intrinsic(b, "llvm.floor", quotient)
    snapped = b.select(b.fcmp_ordered(">", b.fsub(quotient, floor), x.type(0.5)), b.fadd(floor, one), floor)
    signed_zero = intrinsic(b, "llvm.copysign", zero, ratio)
    result = b.select(b.fcmp_ordered("==", quotient, zero), signed_zero, snapped)
    return b.select(b.fcmp_ordered("==", y, zero), ratio, result)


def _infinite(compare: str) -> Rule:
    return lambda b, d, x: b.fcmp_ordered(compare, intrinsic(b, "llvm.fabs", x), x.type(math.inf))


def _scale(b: ir.IRBuilder, d: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    zero = x.type(0.0)
    nothing = b.or_(b.fcmp_ordered("==", x, zero), b.fcmp_ordered("==", y, zero))
    return b.select(nothing, zero, b.fmul(x, y))


def _unary(name: str) -> Rule:
    return lambda b, d, x: intrinsic(b, name, x)


FLOAT: dict[str, Rule] = {
    "add": lambda b, d, x, y: b.fadd(x, y, flags=CONTRACT),
    "sub": lambda b, d, x, y: b.fsub(x, y, flags=CONTRACT),
    "mul": lambda b, d, x, y: b.fmul(x, y, flags=CONTRACT),
    "scale": _scale,
    "div": lambda b, d, x, y: b.fdiv(x, y),
    "floordiv": _float_floordiv,
    "rem": _float_rem,
    "neg": lambda b, d, x: b.fneg(x),
    "sign": _float_sign,
    "abs": _unary("llvm.fabs"),
    "max": _float_extreme(">"),
    "min": _float_extreme("<"),
    "copysign": lambda b, d, x, y: intrinsic(b, "llvm.copysign", x, y),
    "floor": _unary("llvm.floor"),
    "ceil": _unary("llvm.ceil"),
    "trunc": _unary("llvm.trunc"),
    "round": _unary("llvm.roundeven"),
    "sqrt": _unary("llvm.sqrt"),
    "isnan": lambda b, d, x: is_nan(b, x),
    "isinf": _infinite("=="),
    "isfinite": _infinite("<"),
    "signbit": _signbit,
    **{name: (lambda b, d, x, y, c=c: b.fcmp_ordered(c, x, y)) for name, c in COMPARE.items()},
    "ne": lambda b, d, x, y: b.fcmp_unordered("!=", x, y),
}


def _parts(b: ir.IRBuilder, z: ir.Value) -> list[ir.Value]:
    return [b.extract_value(z, k) for k in (0, 1)]


def _pair(b: ir.IRBuilder, t: ir.Type, parts: Sequence[ir.Value]) -> ir.Value:
    z: ir.Value = ir.Constant(t, ir.Undefined)
    for k, part in enumerate(parts):
        z = b.insert_value(z, part, k)
    return z


def _by_parts(name: str) -> Rule:
    def rule(b: ir.IRBuilder, d: DType, *zs: ir.Value) -> ir.Value:
        return _pair(b, zs[0].type, [FLOAT[name](b, d, *ps) for ps in zip(*(_parts(b, z) for z in zs))])

    return rule


def _equal(b: ir.IRBuilder, d: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.and_(*(b.fcmp_ordered("==", p, q) for p, q in zip(_parts(b, x), _parts(b, y))))


def _complex_product(b: ir.IRBuilder, d: DType, z: ir.Value, w: ir.Value) -> ir.Value:
    (x, y), (u, v) = _parts(b, z), _parts(b, w)
    mul, add, sub = (FLOAT[name] for name in ("mul", "add", "sub"))
    real = sub(b, d, mul(b, d, x, u), mul(b, d, y, v))
    return _pair(b, z.type, [real, add(b, d, mul(b, d, x, v), mul(b, d, y, u))])


COMPLEX: dict[str, Rule] = {
    "mul": _complex_product,
    **{name: _by_parts(name) for name in ("add", "sub", "neg")},
    "eq": _equal,
    "ne": lambda b, d, x, y: b.not_(_equal(b, d, x, y)),
    "real": lambda b, d, z: b.extract_value(z, 0),
    "imag": lambda b, d, z: b.extract_value(z, 1),
}
FLOAT["complex"] = lambda b, d, x, y: _pair(b, ir.LiteralStructType([x.type, x.type]), [x, y])
TABLES = {"b": BITS, "i": INTEGER, "u": INTEGER, "f": FLOAT, "c": COMPLEX}
ON_BITS = {"signbit"}  # what f16 needs no f32 for, and must not: a NaN's sign may get lost
# What gives a bf16 without rounding.
EXACT = {"neg", "abs", "sign", "max", "min", "copysign", "floor", "ceil", "trunc", "round"}


# --- conversions


def convert(b: ir.IRBuilder, source: DType, target: DType, x: ir.Value) -> ir.Value:
    """As NumPy's ``astype``. Floats outside the integer's range, where C leaves the result open, saturate at the range
    of the integer that the conversion goes through: i32 and i64 for signed ones, i64 for unsigned ones; NaN gives 0."""
    if source == target:
        return x
    if BF16 in (source, target):
        x = convert(b, F32_DTYPE if source == BF16 else source, F32_DTYPE if target == BF16 else target, x)
        return rounded(b, x) if target == BF16 else x
    if target.kind == "c" or source.kind == "c":
        return _convert_complex(b, source, target, x)
    if target.kind == "b":
        return b.fcmp_unordered("!=", x, _zero(x)) if source.is_float else b.icmp_unsigned("!=", x, x.type(0))
    t = value_type(target)
    if source.is_float:
        return float_to_float(b, x, t) if target.is_float else _float_to_int(b, target, x)
    if target.is_float:
        wide = F32 if target.bits == 16 else t  # every integer that f16 can hold is exact in f32
        return float_to_float(b, (b.sitofp if source.kind == "i" else b.uitofp)(x, wide), t)
    if x.type.width >= t.width:
        return b.trunc(x, t) if x.type.width > t.width else x
    return (b.sext if source.kind == "i" else b.zext)(x, t)


def rounded(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """An f32 rounded to the nearest bf16, ties to even. Of a NaN the sign is kept."""
    bits = b.bitcast(x, I32)
    odd = b.and_(b.lshr(bits, I32(16)), I32(1))
    nearest = b.and_(b.add(bits, b.add(odd, I32(0x7FFF))), I32(0xFFFF0000))
    quiet = b.or_(b.and_(bits, I32(0x80000000)), I32(0x7FC00000))
    return b.bitcast(b.select(is_nan(b, x), quiet, nearest), F32)


def float_to_float(b: ir.IRBuilder, x: ir.Value, t: ir.Type) -> ir.Value:
    """Processors know f16 from and to f32 only."""
    if x.type == t:
        return x
    if F16 in (x.type, t) and F64 in (x.type, t):
        return b.fpext(b.fpext(x, F32), t) if t == F64 else b.fptrunc(_round_to_odd(b, x), t)
    rank = [F16, F32, F64].index
    return (b.fpext if rank(t) > rank(x.type) else b.fptrunc)(x, t)


def _round_to_odd(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """f64 to f32, inexact results with an odd last bit, so that rounding once more to f16 gives what one rounding would
    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums")."""
    bits = ir.IntType(32)
    nearest = b.fptrunc(x, F32)
    back, code = b.fpext(nearest, F64), b.bitcast(nearest, bits)
    too_far = b.fcmp_ordered(">", intrinsic(b, "llvm.fabs", back), intrinsic(b, "llvm.fabs", x))
    truncated = b.sub(code, b.zext(too_far, bits))
    return b.bitcast(b.or_(truncated, b.zext(b.fcmp_ordered("!=", back, x), bits)), F32)


def _float_to_int(b: ir.IRBuilder, target: DType, x: ir.Value) -> ir.Value:
    x = b.fpext(x, F32) if x.type == F16 else x
    if target.name == "u64":
        is_large = b.fcmp_ordered(">=", x, x.type(2.0**63))
        return b.select(is_large, _saturate(b, "llvm.fptoui.sat", x, I64), _saturate(b, "llvm.fptosi.sat", x, I64))
    through = ir.IntType(32 if target.kind == "i" and target.bits <= 32 else 64)
    wide = _saturated(b, x, through)
    t = value_type(target)
    return wide if t == through else b.trunc(wide, t)


def _saturated(b: ir.IRBuilder, x: ir.Value, t: ir.IntType) -> ir.Value:
    """``llvm.fptosi.sat``, of which LLVM makes no vectors: NaN is 0, and what lies outside the nearest there is."""
    end = 1 << (t.width - 1)
    low, high = x.type(float(-end)), x.type(float(end))
    below, above = b.fcmp_ordered("<", x, low), b.fcmp_ordered(">=", x, high)
    outside = b.or_(b.or_(below, above), is_nan(b, x))
    found = b.fptosi(b.select(outside, x.type(0.0), x), t)
    return b.select(below, t(-end), b.select(above, t(end - 1), found))


def _saturate(b: ir.IRBuilder, name: str, x: ir.Value, t: ir.Type) -> ir.Value:
    return b.call(b.module.declare_intrinsic(name, [t, x.type], ir.FunctionType(t, [x.type])), [x])


def _convert_complex(b: ir.IRBuilder, source: DType, target: DType, x: ir.Value) -> ir.Value:
    """The real part alone, or both parts."""
    part = DType(f"f{source.bits // 2}", "f", source.bits // 2) if source.kind == "c" else source
    parts = [b.extract_value(x, k) for k in (0, 1)] if source.kind == "c" else [x, constant(source, 0)]
    if target.kind == "b":
        return b.or_(*(convert(b, part, target, p) for p in parts))
    if target.kind != "c":
        return convert(b, part, target, parts[0])
    into = DType(f"f{target.bits // 2}", "f", target.bits // 2)
    result: ir.Value = ir.Constant(value_type(target), ir.Undefined)
    for k, p in enumerate(parts):
        result = b.insert_value(result, convert(b, part, into, p), k)
    return result
