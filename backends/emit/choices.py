"""Comparisons by which a loop of unknown length chooses its numbers.

    while hi - lo > 1e-10:
        mid = 0.5 * (lo + hi)
        hi, lo = (mid, lo) if f(mid) > 0 else (hi, mid)

Every round waits for the comparison. With AVX-512, LLVM makes a mask of it at once where there is a single selection.
For several it goes through the flags and a register of integers, which takes 9 cycles longer. So the instruction that
gives a mask is asked for by its name. LLVM knows little of what that does, but it never makes vectors of such loops.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from dflow.backends.emit.types import I8, I32
from dflow.ir.core import Block, Op
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.types import F32, F64, DType

PREDICATES = {"eq": 0, "ne": 4, "lt": 17, "le": 18, "ge": 29, "gt": 30}  # of the instruction, as IEEE 754 has them
AS_IT_IS = 4  # the rounding mode


def choices(body: Block) -> list[Op]:
    """The comparisons of floats in ``body`` by which more than one number is chosen, floats among them."""
    uses, floats = count_uses(body), (F32, F64)
    choosing = {op.operands[0] for op in body.ops if op.name == "select" and op.result.type.dtype in floats}
    several = {v.op for v in choosing if uses[v] > 1}
    return [op for op in body.ops if op in several and op.name in PREDICATES and op.operands[0].type.dtype in floats]


def mask_of(b: ir.IRBuilder, name: str, dtype: DType, values: Sequence[ir.Value]) -> ir.Value:
    """The comparison ``name`` of two numbers."""
    vector = ir.VectorType(values[0].type, 16 // dtype.itemsize)
    pair = [b.insert_element(ir.Constant(vector, ir.Undefined), v, I32(0)) for v in values]
    kind = ir.FunctionType(I8, [vector, vector, I32, I8, I32])
    function_name = f"llvm.x86.avx512.mask.cmp.{'sd' if dtype == F64 else 'ss'}"
    function = b.module.globals.get(function_name) or ir.Function(b.module, kind, function_name)
    bits = b.call(function, [*pair, I32(PREDICATES[name]), I8(1), I32(AS_IT_IS)])
    return b.extract_element(b.bitcast(bits, ir.VectorType(ir.IntType(1), 8)), I32(0))
