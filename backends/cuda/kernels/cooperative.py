"""Threads that add up one thing together: within a warp by shuffles, within a block through shared memory, and between
blocks by the last of them, or in a second kernel. The order is always the same, so results are too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.emit.core import untyped
from dflow.backends.emit.kernel import accumulate, identity
from dflow.backends.emit.types import I1, I32, I64, PTR, VOID, ZERO, from_storage, index, storage_type, to_storage
from dflow.ir.types import DType

WARP = 32

# Combines what two threads have.
Join = Callable[[Sequence[ir.Value], Sequence[ir.Value]], list[ir.Value]]


def barrier(e: KernelEmitter) -> None:
    f = e.module.declare_intrinsic("llvm.nvvm.barrier0", (), ir.FunctionType(VOID, []))
    e.builder.call(f, [])


def shuffle(e: KernelEmitter, value: ir.Value, by: int, how: str = "bfly") -> ir.Value:
    """The value of the thread of the warp whose number differs in the bit ``by``; with ``how = "up"``, of the one that
    is ``by`` before (of itself, where there is none)."""
    b, t = e.builder, value.type
    if isinstance(t, ir.LiteralStructType):
        made: ir.Value = ir.Constant(t, ir.Undefined)
        for k in range(len(t.elements)):
            made = b.insert_value(made, shuffle(e, b.extract_value(value, k), by, how), k)
        return made
    width = {I1: 1, ir.HalfType(): 16, ir.FloatType(): 32, ir.DoubleType(): 64}.get(t) or t.width
    bits = ir.IntType(width)
    whole = value if isinstance(t, ir.IntType) else b.bitcast(value, bits)
    if width < 32:
        moved = b.trunc(_shuffle(e, b.zext(whole, I32), by, how), bits)
    elif width == 32:
        moved = _shuffle(e, whole, by, how)
    else:
        low, high = (_shuffle(e, b.trunc(b.lshr(whole, I64(s)), I32), by, how) for s in (0, 32))
        moved = b.or_(b.zext(low, I64), b.shl(b.zext(high, I64), I64(32)))
    return moved if isinstance(t, ir.IntType) else b.bitcast(moved, t)


def _shuffle(e: KernelEmitter, value: ir.Value, by: int, how: str) -> ir.Value:
    f = e.module.declare_intrinsic(f"llvm.nvvm.shfl.sync.{how}.i32", (), ir.FunctionType(I32, [I32] * 4))
    return e.builder.call(f, [I32(-1), value, I32(by), I32(31 if how == "bfly" else 0)])


def shared(e: KernelEmitter, t: ir.Type, count: int) -> ir.Value:
    """Memory of the block."""
    name = e.module.get_unique_name(f"{e.function.name}_shared")
    made = ir.GlobalVariable(e.module, ir.ArrayType(t, count), name, addrspace=3)
    made.initializer, made.linkage = ir.Constant(made.value_type, ir.Undefined), "internal"
    made.align = 16
    with e.builder.goto_block(e.entry):  # whoever needs it next may be on another way
        return untyped(e.builder.addrspacecast(made, PTR))


def by_kind(e: KernelEmitter, combine: Sequence[str], dtypes: Sequence[DType]) -> Join:
    """Combines each number in its own way: "sum", "max", ..."""
    return lambda totals, values: [accumulate(e, k, d, t, v) for k, d, t, v in zip(combine, dtypes, totals, values)]


def warp_totals(e: KernelEmitter, join: Join, totals: Sequence[ir.Value]) -> list[ir.Value]:
    """What the threads of a warp have, combined; all of them get it, and all must come here."""
    for by in (16, 8, 4, 2, 1):
        totals = join(totals, [shuffle(e, v, by) for v in totals])
    return list(totals)


def block_totals(
    e: KernelEmitter, join: Join, dtypes: Sequence[DType], totals: Sequence[ir.Value], line: Line | None = None
) -> list[ir.Value]:
    """What the threads of a block have, combined; all of them get it, and all must come here.

    Before the next call, or another use of ``line`` (else there are places for this call alone), there must be a
    barrier.
    """
    b = e.builder
    totals = warp_totals(e, join, totals)
    warps = e.block_size // WARP
    if warps == 1:
        return totals
    me = e.register("tid.x")
    line = line or Line(e, dtypes, warps)
    with b.if_then(b.icmp_unsigned("==", b.and_(me, index(WARP - 1)), ZERO)):
        line.put(b.lshr(me, index(5)), totals)
    barrier(e)
    totals = line.get(ZERO)
    for k in range(1, warps):
        totals = join(totals, line.get(index(k)))
    return list(totals)


class Line:
    """Places in the memory of the block, each for one number of every dtype."""

    def __init__(self, e: KernelEmitter, dtypes: Sequence[DType], count: int):
        self.e, self.dtypes = e, dtypes
        self.rooms = [shared(e, storage_type(d), count) for d in dtypes]

    def _at(self, k: ir.Value) -> list[ir.Value]:
        b = self.e.builder
        return [b.gep(r, [k], inbounds=True, source_etype=storage_type(d)) for r, d in zip(self.rooms, self.dtypes)]

    def put(self, k: ir.Value, values: Sequence[ir.Value]) -> None:
        for to, d, v in zip(self._at(k), self.dtypes, values):
            self.e.builder.store(to_storage(self.e.builder, d, v), to)

    def get(self, k: ir.Value) -> list[ir.Value]:
        b = self.e.builder
        return [from_storage(b, d, b.load(here, typ=storage_type(d))) for here, d in zip(self._at(k), self.dtypes)]


__all__ = ["WARP", "Line", "barrier", "block_totals", "by_kind", "identity", "shared", "warp_totals"]
