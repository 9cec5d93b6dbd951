"""Scalar LLVM expressions with Python operators, so that the formulas of the math library read like a textbook.

An `Expr` is a builder and an LLVM value. Python numbers mix in as constants of the other operand's type. Instructions
carry no fast-math flags: the error-free transformations of `double_double` rely on every rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llvmlite import ir

from dflow.backends.emit.types import declare


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: its LLVM types and the layout of its bits."""

    name: str
    float_type: ir.Type
    int_type: ir.IntType
    mantissa_bits: int  # stored ones, so without the implicit one
    bias: int

    @property
    def round_to_int(self) -> float:
        """1.5·2^p: adding it rounds to an integer, which then stands in the low bits of the sum."""
        return 1.5 * 2.0**self.mantissa_bits


F64 = Format("f64", ir.DoubleType(), ir.IntType(64), 52, 1023)
F32 = Format("f32", ir.FloatType(), ir.IntType(32), 23, 127)
FORMATS = {f.name: f for f in (F64, F32)}

Operand = "Expr | float | int"
T = TypeVar("T")


class Expr:
    """An LLVM value in the making. Comparisons are ordered: false when an operand is NaN."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.value = value

    @property
    def format(self) -> Format:
        return F32 if self.value.type in (F32.float_type, F32.int_type) else F64

    @property
    def is_int(self) -> bool:
        return isinstance(self.value.type, ir.IntType)

    def lift(self, other: Any) -> ir.Value:
        """`other` as an LLVM value, a number taking this expression's type."""
        return other.value if isinstance(other, Expr) else ir.Constant(self.value.type, other)

    def pick(self, double: T, single: T) -> T:
        """The one or the other, by the format."""
        return double if self.format is F64 else single

    def const(self, number: float) -> Expr:
        return Expr(self.builder, self.lift(number))

    def _binary(self, float_op: str, int_op: str, left: Any, right: Any) -> Expr:
        emit = getattr(self.builder, int_op if self.is_int else float_op)
        return Expr(self.builder, emit(self.lift(left), self.lift(right)))

    def __add__(self, other: Any) -> Expr:
        return self._binary("fadd", "add", self, other)

    def __radd__(self, other: Any) -> Expr:
        return self._binary("fadd", "add", other, self)

    def __sub__(self, other: Any) -> Expr:
        return self._binary("fsub", "sub", self, other)

    def __rsub__(self, other: Any) -> Expr:
        return self._binary("fsub", "sub", other, self)

    def __mul__(self, other: Any) -> Expr:
        return self._binary("fmul", "mul", self, other)

    def __rmul__(self, other: Any) -> Expr:
        return self._binary("fmul", "mul", other, self)

    def __truediv__(self, other: Any) -> Expr:
        return Expr(self.builder, self.builder.fdiv(self.value, self.lift(other)))

    def __rtruediv__(self, other: Any) -> Expr:
        return Expr(self.builder, self.builder.fdiv(self.lift(other), self.value))

    def __neg__(self) -> Expr:
        return Expr(self.builder, self.builder.neg(self.value) if self.is_int else self.builder.fneg(self.value))

    def __and__(self, other: Any) -> Expr:
        return Expr(self.builder, self.builder.and_(self.value, self.lift(other)))

    def __or__(self, other: Any) -> Expr:
        return Expr(self.builder, self.builder.or_(self.value, self.lift(other)))

    def __xor__(self, other: Any) -> Expr:
        return Expr(self.builder, self.builder.xor(self.value, self.lift(other)))

    def __invert__(self) -> Expr:
        return Expr(self.builder, self.builder.not_(self.value))

    def __lshift__(self, other: Any) -> Expr:
        return Expr(self.builder, self.builder.shl(self.value, self.lift(other)))

    def __rshift__(self, other: Any) -> Expr:
        """A logical shift: zeros come in from the left."""
        return Expr(self.builder, self.builder.lshr(self.value, self.lift(other)))

    def _compare(self, predicate: str, other: Any) -> Expr:
        emit = self.builder.icmp_signed if self.is_int else self.builder.fcmp_ordered
        return Expr(self.builder, emit(predicate, self.value, self.lift(other)))

    def __lt__(self, other: Any) -> Expr:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Expr:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Expr:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Expr:
        return self._compare(">=", other)

    def equals(self, other: Any) -> Expr:
        return self._compare("==", other)

    def is_nan(self) -> Expr:
        return Expr(self.builder, self.builder.fcmp_unordered("uno", self.value, self.value))

    def select(self, if_true: Any, if_false: Any) -> Expr:
        """`if_true` where this condition holds; at least one of the two is an Expr."""
        like = if_true if isinstance(if_true, Expr) else if_false
        return Expr(self.builder, self.builder.select(self.value, like.lift(if_true), like.lift(if_false)))

    def bits(self) -> Expr:
        """The bit pattern of a float as an integer of the same width."""
        return Expr(self.builder, self.builder.bitcast(self.value, self.format.int_type))

    def as_float(self) -> Expr:
        """The float with the bit pattern of this integer."""
        return Expr(self.builder, self.builder.bitcast(self.value, self.format.float_type))

    def to_f64(self) -> Expr:
        return self if self.format is F64 else Expr(self.builder, self.builder.fpext(self.value, F64.float_type))

    def to_f32(self) -> Expr:
        return self if self.format is F32 else Expr(self.builder, self.builder.fptrunc(self.value, F32.float_type))

    def to_i32(self) -> Expr:
        """The low half of a 64-bit integer."""
        return Expr(self.builder, self.builder.trunc(self.value, F32.int_type))

    def intrinsic(self, name: str, *others: Any) -> Expr:
        """`llvm.name` of this value and further ones of its type."""
        args = [self.value] + [self.lift(other) for other in others]
        signature = ir.FunctionType(self.value.type, [self.value.type] * len(args))
        callee = declare(self.builder.module, f"llvm.{name}.{self.format.name}", signature)
        return Expr(self.builder, self.builder.call(callee, args))


def fma(x: Expr, y: Any, z: Any) -> Expr:
    """x·y + z with one rounding, on every target."""
    return x.intrinsic("fma", y, z)


def muladd(x: Expr, y: Any, z: Any) -> Expr:
    """x·y + z with one rounding or two, whichever is faster."""
    return x.intrinsic("fmuladd", y, z)


def fabs(x: Expr) -> Expr:
    return x.intrinsic("fabs")


def sqrt(x: Expr) -> Expr:
    return x.intrinsic("sqrt")


def floor(x: Expr) -> Expr:
    return x.intrinsic("floor")


def rint(x: Expr) -> Expr:
    return x.intrinsic("rint")


def copysign(magnitude: Expr, sign: Expr) -> Expr:
    return magnitude.intrinsic("copysign", sign)


def minimum(x: Expr, bound: Any) -> Expr:
    """The smaller of the two; NaN in `x` stays."""
    return (x > bound).select(bound, x)


def maximum(x: Expr, bound: Any) -> Expr:
    """The larger of the two; NaN in `x` stays."""
    return (x < bound).select(bound, x)


def clamp(x: Expr, low: float, high: float) -> Expr:
    return minimum(maximum(x, low), high)


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """sum c[i]·x^i by Estrin's scheme: halves are independent, so the chain of dependent operations is short."""
    powers = {1: x}

    def power(n: int) -> Expr:
        if n not in powers:
            powers[n] = power(n // 2) * power(n // 2)
        return powers[n]

    def evaluate(cs: Sequence[float]) -> Expr:
        if len(cs) == 1:
            return x.const(cs[0])
        half = 1 << ((len(cs) - 1).bit_length() - 1)
        return muladd(power(half), evaluate(cs[half:]), evaluate(cs[:half]))

    return evaluate(coefficients)


def round_to_integer(x: Expr, factor: float = 1.0) -> tuple[Expr, Expr]:
    """The integer nearest to x·factor as a float and as an integer, below 2^(p-1); NaN gives NaN and any integer.

    A conversion instruction would do, but NaN makes it poison and AVX2 has none from f64 to i64.
    """
    magic = x.format.round_to_int
    shifted = x + magic if factor == 1.0 else muladd(x, factor, magic)
    return shifted - magic, shifted.bits() - x.const(magic).bits()


def power_of_two(exponent: Expr) -> Expr:
    """2^n for an integer n in the range of normal numbers."""
    fmt = exponent.format
    return ((exponent + fmt.bias) << fmt.mantissa_bits).as_float()


def scale(x: Expr, exponent: Expr, sign: Expr | float = 1.0) -> Expr:
    """x·2^n·sign for |n| up to twice the exponent bias, rounded once, also into subnormals, overflowing to infinity."""
    half, rest = halves(exponent)
    return x * power_of_two(half) * (power_of_two(rest) if sign == 1.0 else power_of_two(rest) * sign)


def scale_sum(x: Expr, y: Expr, exponent: Expr) -> Expr:
    """`scale` of x + y, soon after y is known."""
    half, rest = halves(exponent)
    factor = power_of_two(half)
    return muladd(y, factor, x * factor) * power_of_two(rest)


def halves(exponent: Expr) -> tuple[Expr, Expr]:
    """Two integers with that sum, as 2^n itself may overflow.

    The offset keeps the shifted number positive: AVX2 has no arithmetic shift of 64-bit integers.
    """
    offset = 4 * exponent.format.bias + 4
    half = ((exponent + offset) >> 1) - offset // 2
    return half, exponent - half
