"""What sorts compare: keys, numbers without sign in the order of the elements; NaN last, 0.0 and -0.0 alike."""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.function_writer import FunctionWriter
from dflow.backends.emit.scalar import is_nan
from dflow.backends.emit.types import I64, from_storage, storage_type
from dflow.ir.types import DType


class Keys(FunctionWriter):
    """A function of rows of one dtype, whose elements have keys."""

    def __init__(self, f: ir.Function, dtype: DType):
        super().__init__(f)
        self.dtype = dtype

    def key_in(self, row: ir.Value, k: ir.Value, lanes: int = 1) -> ir.Value:
        """The key of element ``k`` of a row, or a vector of the keys from there on."""
        b, item = self.b, storage_type(self.dtype)
        t = item if lanes == 1 else ir.VectorType(item, lanes)
        stored = b.load(self.at(row, k, item), typ=t, align=self.dtype.itemsize)
        v = from_storage(b, self.dtype, stored)
        if self.dtype.is_float:
            return self.float_key(v)
        width = 8 * self.dtype.itemsize
        if self.dtype.kind == "i":
            v = b.xor(v, same(v.type, 1 << (width - 1)))
        return v if width == 64 else b.zext(v, like(v.type, I64))

    def float_key(self, v: ir.Value) -> ir.Value:
        b, width = self.b, 8 * self.dtype.itemsize
        missing = is_nan(b, v)
        if width == 16 and v.type != ir.FloatType():  # where bf16 is in a register
            v = b.fpext(v, ir.FloatType())
        width = max(width, 32)
        t = like(v.type, ir.IntType(width))
        pattern = b.bitcast(b.fadd(v, same(v.type, 0.0)), t)  # -0.0 + 0.0 is 0.0
        sign = b.ashr(pattern, same(t, width - 1))
        found = b.select(missing, same(t, -1), b.xor(pattern, b.or_(sign, same(t, 1 << (width - 1)))))
        return found if width == 64 else b.zext(found, like(v.type, I64))


def like(t: ir.Type, item: ir.Type) -> ir.Type:
    """The type of as many elements."""
    return ir.VectorType(item, t.count) if isinstance(t, ir.VectorType) else item


def same(t: ir.Type, number: float) -> ir.Constant:
    """A constant, in all lanes of a vector."""
    return t([number] * t.count) if isinstance(t, ir.VectorType) else t(number)
