"""One row parted about the element of a rank, as a function in LLVM's language.

    middle = the position of that element (`selection.py`)
    what comes before it goes to the front, what comes after it behind its place, each in its own order

Of elements that are equal to it, those before the middle come before. Where processors compress vectors, several
elements go at a time.
"""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.core import Options
from dflow.backends.emit.function_writer import internal_function
from dflow.backends.emit.selection import LANES, selector
from dflow.backends.emit.sort_keys import Keys
from dflow.backends.emit.types import I64, ONE, PTR, ZERO, index, splat
from dflow.ir.types import HALVES, DType

COMPRESSED = (4, 8)  # bytes of elements that all such processors compress


def parter(module: ir.Module, dtype: DType, options: Options, bound: int, positions: bool) -> ir.Function:
    """``void f(row of x, row of y, scratch as for selection, count, rank)``: y are elements of x or positions there."""
    kind = "positions" if positions else "elements"
    f, fresh = internal_function(module, f"dflow.parted.{kind}.{dtype.name}", [PTR, PTR, PTR, I64, I64])
    if fresh:
        select = selector(module, dtype, options, bound, 1)
        wide = options.avx512 and dtype not in HALVES and (positions or dtype.itemsize in COMPRESSED)
        _Part(f, dtype, positions).write(select, LANES if wide else 1)
    return f


class _Part(Keys):
    def __init__(self, f: ir.Function, dtype: DType, positions: bool):
        super().__init__(f, dtype)
        self.x, self.y, self.scratch, self.size, self.rank = f.args
        self.positions = positions
        self.item = ir.IntType(64 if positions else 8 * dtype.itemsize)
        self.steps = ir.VectorType(I64, LANES)(list(range(LANES)))

    def write(self, select: ir.Function, lanes: int) -> None:
        b, ranks, found = self.b, self.slot(self.rank), self.slot(ZERO)
        b.call(select, [self.x, ranks, found, self.scratch, self.size, ONE])
        middle = self.read(found)
        pivot, behind = self.key_in(self.x, middle), b.add(middle, ONE)
        b.store(self.item_at(middle, 1), self.at(self.y, self.rank, self.item))
        self.front, self.back = self.slot(ZERO), self.slot(b.add(self.rank, ONE))
        self.span(ZERO, middle, "<=", pivot, lanes)
        self.span(behind, self.size, "<", pivot, lanes)
        b.ret_void()

    def span(self, start: ir.Value, stop: ir.Value, sign: str, pivot: ir.Value, lanes: int) -> None:
        b = self.b
        whole = b.add(start, b.and_(b.sub(stop, start), index(-lanes)))
        if lanes > 1:
            self.count(start, whole, lambda k: self.several(k, sign, pivot, lanes), step=index(lanes))
        self.count(whole if lanes > 1 else start, stop, lambda k: self.one(k, sign, pivot))

    def item_at(self, k: ir.Value, lanes: int) -> ir.Value:
        if self.positions:
            if lanes == 1:
                return k
            return self.b.add(splat(self.b, k, self.steps.type), self.steps)
        t = self.item if lanes == 1 else ir.VectorType(self.item, lanes)
        return self.b.load(self.at(self.x, k, self.item), typ=t, align=self.dtype.itemsize)

    def one(self, k: ir.Value, sign: str, pivot: ir.Value) -> None:
        b = self.b
        before = b.icmp_unsigned(sign, self.key_in(self.x, k), pivot)
        place = b.select(before, self.read(self.front), self.read(self.back))
        b.store(self.item_at(k, 1), self.at(self.y, place, self.item))
        step = b.zext(before, I64)
        self.increase(self.front, step)
        self.increase(self.back, b.sub(ONE, step))

    def several(self, k: ir.Value, sign: str, pivot: ir.Value, lanes: int) -> None:
        b, key, items = self.b, self.key_in(self.x, k, lanes), self.item_at(k, lanes)
        before = b.icmp_unsigned(sign, key, splat(b, pivot, key.type))
        for place, mask in ((self.front, before), (self.back, b.not_(before))):
            count = self.lanes_in(mask)
            first = b.icmp_unsigned("<", self.steps, splat(b, count, self.steps.type))
            self.store_where(self.compressed(items, mask), self.at(self.y, self.read(place), self.item), first)
            self.increase(place, count)
