"""Arithmetic of real and complex numbers alike, in registers: what factorizations are written with."""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.scalar import intrinsic
from dflow.backends.emit.types import constant, value_type
from dflow.ir.ops.matrices import real_type
from dflow.ir.types import DType

CONTRACT = ("contract",)


class Numbers:
    """The arithmetic of one dtype. Complex numbers are pairs; their sizes and squares are real."""

    def __init__(self, b: ir.IRBuilder, dtype: DType):
        self.b, self.dtype, self.is_complex = b, dtype, dtype.kind == "c"
        self.real_dtype = real_type(dtype)

    @property
    def zero(self) -> ir.Value:
        return constant(self.dtype, 0)

    def parts(self, x: ir.Value) -> list[ir.Value]:
        return [self.b.extract_value(x, k) for k in (0, 1)]

    def join(self, real: ir.Value, imag: ir.Value) -> ir.Value:
        pair = self.b.insert_value(ir.Constant(value_type(self.dtype), ir.Undefined), real, 0)
        return self.b.insert_value(pair, imag, 1)

    def number(self, real: ir.Value) -> ir.Value:
        """A real number as one of the dtype."""
        return self.join(real, constant(self.real_dtype, 0)) if self.is_complex else real

    def real(self, x: ir.Value) -> ir.Value:
        return self.parts(x)[0] if self.is_complex else x

    def conj(self, x: ir.Value) -> ir.Value:
        if not self.is_complex:
            return x
        real, imag = self.parts(x)
        return self.join(real, self.b.fneg(imag))

    def add(self, x: ir.Value, y: ir.Value) -> ir.Value:
        if not self.is_complex:
            return self.b.fadd(x, y, flags=CONTRACT)
        return self.join(*(self.b.fadd(p, q, flags=CONTRACT) for p, q in zip(self.parts(x), self.parts(y))))

    def sub(self, x: ir.Value, y: ir.Value) -> ir.Value:
        if not self.is_complex:
            return self.b.fsub(x, y, flags=CONTRACT)
        return self.join(*(self.b.fsub(p, q, flags=CONTRACT) for p, q in zip(self.parts(x), self.parts(y))))

    def mul(self, x: ir.Value, y: ir.Value) -> ir.Value:
        b = self.b
        if not self.is_complex:
            return b.fmul(x, y, flags=CONTRACT)
        (p, q), (u, v) = self.parts(x), self.parts(y)
        real = b.fsub(b.fmul(p, u, flags=CONTRACT), b.fmul(q, v, flags=CONTRACT), flags=CONTRACT)
        return self.join(real, b.fadd(b.fmul(p, v, flags=CONTRACT), b.fmul(q, u, flags=CONTRACT), flags=CONTRACT))

    def over_real(self, x: ir.Value, d: ir.Value) -> ir.Value:
        if not self.is_complex:
            return self.b.fdiv(x, d)
        return self.join(*(self.b.fdiv(p, d) for p in self.parts(x)))

    def div(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """By Smith's method: the larger part of the divisor first, so that nothing overflows."""
        b = self.b
        if not self.is_complex:
            return b.fdiv(x, y)
        (p, q), (u, v) = self.parts(x), self.parts(y)
        first = b.fcmp_ordered(">=", intrinsic(b, "llvm.fabs", u), intrinsic(b, "llvm.fabs", v))
        larger, smaller = b.select(first, u, v), b.select(first, v, u)
        ratio = b.fdiv(smaller, larger)
        scale = b.fadd(larger, b.fmul(smaller, ratio))
        near, far = b.select(first, p, q), b.select(first, q, p)
        real = b.fdiv(b.fadd(near, b.fmul(far, ratio)), scale)
        turned = b.fdiv(b.fsub(far, b.fmul(near, ratio)), scale)
        return self.join(real, b.select(first, turned, b.fneg(turned)))

    def size(self, x: ir.Value) -> ir.Value:
        """What pivots are chosen by: the sum of the sizes of the parts, as in LAPACK."""
        parts = self.parts(x) if self.is_complex else [x]
        sizes = [intrinsic(self.b, "llvm.fabs", p) for p in parts]
        return self.b.fadd(*sizes) if self.is_complex else sizes[0]

    def square(self, x: ir.Value) -> ir.Value:
        """The square of the absolute value."""
        parts = self.parts(x) if self.is_complex else [x]
        squares = [self.b.fmul(p, p, flags=CONTRACT) for p in parts]
        return self.b.fadd(*squares, flags=CONTRACT) if self.is_complex else squares[0]

    def is_zero(self, x: ir.Value) -> ir.Value:
        zero = constant(self.real_dtype, 0)
        found = [self.b.fcmp_ordered("==", p, zero) for p in (self.parts(x) if self.is_complex else [x])]
        return self.b.and_(*found) if self.is_complex else found[0]
