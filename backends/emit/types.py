"""Types and constants of the IR in LLVM.

A scalar lives in a register as its *value type* and in memory as its *storage type*. They differ for ``bool``: one bit
in a register, so that conditions cost nothing, one byte (0 or 1) in memory and in the native interface. And for
``bf16``: an f32 whose lower half is zero in a register, where all is computed, its upper half in memory.
"""

from __future__ import annotations

from typing import Any

import llvmlite
import numpy as np
from llvmlite import ir

from dflow.ir.types import BF16, DType, Size, TensorType

PTR = ir.PointerType()
VOID = ir.VoidType()
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

# LLVM 20 has other words for some things: llvmlite 0.47 is the last with it.
HAS_LLVM_20 = [int(part) for part in llvmlite.__version__.split(".")[:2]] < [0, 48]
NOT_KEPT = "nocapture" if HAS_LLVM_20 else "captures(none)"  # says that a function keeps no copy of a pointer

_VALUE: dict[str, ir.Type] = {
    "bool": I1,
    **{f"{sign}{t.width}": t for sign in "iu" for t in (I8, I16, I32, I64)},
    "f16": F16,
    "bf16": F32,
    "f32": F32,
    "f64": F64,
    "c64": ir.LiteralStructType([F32, F32]),
    "c128": ir.LiteralStructType([F64, F64]),
}


def value_type(dtype: DType) -> ir.Type:
    return _VALUE[dtype.name]


def storage_type(dtype: DType) -> ir.Type:
    return I8 if dtype.kind == "b" else I16 if dtype == BF16 else _VALUE[dtype.name]


def index(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


ZERO, ONE = index(0), index(1)


def declare(module: ir.Module, name: str, signature: ir.FunctionType) -> ir.Function:
    """The function of that name in the module, declared when first asked for."""
    return module.globals.get(name) or ir.Function(module, signature, name)


def splat(b: ir.IRBuilder, value: ir.Value, t: ir.VectorType) -> ir.Value:
    """One number in all lanes of a vector."""
    undefined = ir.Constant(t, ir.Undefined)
    first = b.insert_element(undefined, value, I32(0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, t.count), [I32(0)] * t.count))


def constant(dtype: DType, value: Any) -> ir.Constant:
    """A scalar constant in a register."""
    t = _VALUE[dtype.name]
    if dtype.kind == "c":
        parts = complex(value)
        return ir.Constant(t, [ir.Constant(t.elements[0], p) for p in (parts.real, parts.imag)])
    with np.errstate(over="ignore"):
        number = dtype.numpy.type(value).item()
    return ir.Constant(t, int(number) if dtype.kind in "biu" else float(number))


def to_storage(b: ir.IRBuilder, dtype: DType, value: ir.Value) -> ir.Value:
    if dtype == BF16:
        return b.trunc(b.lshr(b.bitcast(value, I32), I32(16)), I16)
    return b.zext(value, I8) if dtype.kind == "b" else value


def from_storage(b: ir.IRBuilder, dtype: DType, value: ir.Value) -> ir.Value:
    if dtype == BF16:
        return b.bitcast(b.shl(b.zext(value, I32), I32(16)), F32)
    return b.icmp_unsigned("!=", value, I8(0)) if dtype.kind == "b" else value


def strides(t: TensorType) -> tuple[int, ...]:
    """Elements between neighbours along each axis. They follow from the bounds, so they are always static."""
    inner = t.shape[1:]
    bounds = [d.bound if isinstance(d, Size) else int(d) for d in inner]  # type: ignore[arg-type]
    out = [1]
    for size in reversed(bounds):
        out.append(out[-1] * size)
    return tuple(reversed(out))[: t.rank]
