"""One row's order, by one thread: a merge sort of positions, bottom up, in as little memory as can be.

One function for each dtype; every sort of the module calls it. It merges runs of 1, 2, 4, ... positions
to and fro between the result and a second array of its size, without a branch that depends on the data.
"""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.function_writer import FunctionWriter, internal_function
from dflow.backends.emit.once import copy_bytes
from dflow.backends.emit.scalar import int_compare, is_nan
from dflow.backends.emit.types import I1, I64, ONE, PTR, ZERO, from_storage, index, storage_type
from dflow.ir.types import DType

MERGE_COST = 16


def sorter(module: ir.Module, dtype: DType) -> ir.Function:
    """``void f(row of x, positions, scratch, count)``."""
    name = f"dflow.argsort.{dtype.name}"
    f, fresh = internal_function(module, name, [PTR, PTR, PTR, I64])
    if fresh:
        for arg in f.args[1:3]:
            arg.add_attribute("noalias")
        _Sorter(f, dtype).write()
    return f


class _Sorter(FunctionWriter):
    def __init__(self, f: ir.Function, dtype: DType):
        super().__init__(f)
        self.x, self.positions, self.scratch, self.size = f.args
        self.dtype = dtype

    def write(self) -> None:
        b = self.b
        self.count(ZERO, self.size, lambda k: b.store(k, self.at(self.positions, k)))
        source, target, width = (self.slot(v) for v in (self.positions, self.scratch, ONE))

        def narrow() -> ir.Value:
            return b.icmp_signed("<", self.read(width), self.size)

        def merge_all() -> None:
            one, other = self.read(source, PTR), self.read(target, PTR)
            step = self.read(width)
            pair = b.shl(step, ONE)
            self.count(ZERO, self.size, lambda low: self.merge(one, other, low, step), pair)
            b.store(other, source)
            b.store(one, target)
            b.store(pair, width)

        self.repeat(narrow, merge_all)
        with b.if_then(b.icmp_unsigned("!=", self.read(source, PTR), self.positions)):
            size = b.mul(self.size, index(8))
            b.call(copy_bytes(self.f.module), [self.positions, self.scratch, size, I1(0)])
        b.ret_void()

    def merge(self, source: ir.Value, target: ir.Value, low: ir.Value, width: ir.Value) -> None:
        """Merges the runs ``low .. middle`` and ``middle .. high``."""
        b = self.b
        middle = self.least(b.add(low, width), self.size)
        high = self.least(b.add(middle, width), self.size)
        last = b.sub(self.size, ONE)
        left, right = self.slot(low), self.slot(middle)

        def take(k: ir.Value) -> None:
            i, j = self.read(left), self.read(right)
            one = b.load(self.at(source, self.least(i, last)), typ=I64)
            other = b.load(self.at(source, self.least(j, last)), typ=I64)
            sooner = b.or_(b.icmp_signed(">=", i, middle), self.before(other, one))
            from_right = b.and_(b.icmp_signed("<", j, high), sooner)
            b.store(b.select(from_right, other, one), self.at(target, k))
            moved = b.zext(from_right, I64)
            b.store(b.add(j, moved), right)
            b.store(b.add(i, b.sub(ONE, moved)), left)

        self.count(low, high, take)

    def before(self, i: ir.Value, j: ir.Value) -> ir.Value:
        """Whether element i comes before element j, which stands first."""
        b, t = self.b, storage_type(self.dtype)
        stored = (b.load(b.gep(self.x, [k], source_etype=t), typ=t) for k in (i, j))
        x, y = (from_storage(b, self.dtype, v) for v in stored)
        if not self.dtype.is_float:
            return int_compare(b, self.dtype, "<", x, y)
        return b.or_(b.fcmp_ordered("<", x, y), b.and_(is_nan(b, y), b.not_(is_nan(b, x))))

    def least(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)
