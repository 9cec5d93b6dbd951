"""Some places of one row's order, as a function in LLVM's language: a sort of the elements that may stand there.

    for each rank:
        unless it is in the window:
            two elements of a sorted sample, between which the element is very likely
            window = the elements from the one to the other, sorted; how many come before them
        result = the window's position at the rank

Windows are sorted with their positions, or, for a few ranks and on processors that sort keys alone sooner
(`quick_sort.py`), without: the position is that of the element with such a key, of equal ones by their number.
A window that turns out not to hold its rank, and one too many, become the whole row. The bounds are those of Floyd and
Rivest, "Expected time bounds for selection" (1975): four standard deviations of the rank in a random sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from llvmlite import ir

from dflow.backends.emit.core import Options
from dflow.backends.emit.function_writer import internal_function
from dflow.backends.emit.quick_sort import SIZES, sort_keys
from dflow.backends.emit.radix_sort import RECORD, sorter
from dflow.backends.emit.sort_keys import Keys
from dflow.backends.emit.types import I8, I64, ONE, PTR, ZERO, index, splat, storage_type
from dflow.ir.types import HALVES, DType

ROOM = 2 * RECORD + 3 * 8  # bytes of scratch memory for each element
SHORT = 1 << 10  # elements of a row that is sorted whole
WINDOWS = 8  # more cost more than a sort
FEW = 8  # ranks whose positions are looked for in the row
SAMPLE = 1 << 13  # elements, at most
LANES = 8
SHARE = 16  # or one of so many


def selector(module: ir.Module, dtype: DType, options: Options, bound: int, ranks: int) -> ir.Function:
    """``void f(row of x, ranks, positions, scratch of ROOM * count bytes, count, how many ranks)`` for rows of up to
    ``bound`` elements and up to so many ranks."""
    long, keys = bound > SHORT, options.avx512 and dtype.itemsize in SIZES and ranks <= FEW
    kind = f"{'some' if long else 'all'}.{'keys' if keys else 'order'}"
    f, fresh = internal_function(module, f"dflow.ranked.{kind}.{dtype.name}", [PTR, PTR, PTR, PTR, I64, I64])
    if fresh:
        (_ByKeys(f, dtype) if keys else _ByOrder(f, dtype, sorter(module, dtype, options.threads))).write(long)
    return f


class _Select(Keys, ABC):
    def __init__(self, f: ir.Function, dtype: DType):
        super().__init__(f, dtype)
        self.x, self.ranks, self.out, scratch, self.size, self.wanted = f.args
        self.item = storage_type(dtype)
        part = self.b.mul(self.size, index(8))
        self.area = scratch  # for the sort, which wants it aligned
        self.values = self.at(scratch, self.b.mul(self.size, index(2 * RECORD)), I8)  # of a window, or of the sample
        self.places = self.at(self.values, part, I8)  # their positions in the row
        self.order = self.at(self.places, part, I8)  # and their order

    @abstractmethod
    def sort(self, row: ir.Value, count: ir.Value) -> None:
        """Brings elements in order."""

    @abstractmethod
    def key_at(self, k: ir.Value) -> ir.Value:
        """The key of the element with place ``k`` of those that were sorted last, which were the values."""

    @abstractmethod
    def sorted_at(self, row: ir.Value, k: ir.Value) -> ir.Value:
        """Which of the elements of a row, which were sorted last, has place ``k`` of their order."""

    def write(self, long: bool) -> None:
        b, row = self.b, self.slot(self.x)
        begin, count, windows = self.slot(ZERO), self.slot(ZERO), self.slot(ZERO)

        def inside(rank: ir.Value) -> ir.Value:
            return b.icmp_unsigned("<", b.sub(rank, self.read(begin)), self.read(count))

        def one(k: ir.Value) -> None:
            rank = self.limited(self.read(self.at(self.ranks, k)), b.sub(self.size, ONE))
            with b.if_then(b.not_(inside(rank))):
                if long:
                    self.increase(windows)
                    few = b.icmp_signed("<=", self.read(windows), index(WINDOWS))
                    with b.if_then(b.and_(few, b.icmp_signed(">", self.size, index(SHORT)))):
                        b.store(self.values, row)
                        self.window(rank, begin, count)
                with b.if_then(b.not_(inside(rank))):
                    b.store(ZERO, begin)
                    b.store(self.size, count)
                    self.count(ZERO, self.size, lambda i: b.store(i, self.at(self.places, i)))
                    b.store(self.x, row)
                    self.sort(self.x, self.size)
            found = self.sorted_at(self.read(row, PTR), b.sub(rank, self.read(begin)))
            b.store(self.read(self.at(self.places, found)), self.at(self.out, k))

        self.count(ZERO, self.wanted, one)
        b.ret_void()

    def window(self, rank: ir.Value, begin: ir.Value, count: ir.Value) -> None:
        """The elements that are likely to have this rank, sorted; how many come before them, and how many they are, 0
        where that has failed."""
        b = self.b
        low, high = self.bounds(rank)
        before, found = self.slot(ZERO), self.slot(ZERO)
        cut = ZERO if self.dtype in HALVES else b.and_(self.size, index(-LANES))
        if self.dtype not in HALVES:
            self.count(ZERO, cut, lambda k: self.collect(k, LANES, low, high, before, found), step=index(LANES))
        self.count(cut, self.size, lambda k: self.collect(k, 1, low, high, before, found))
        b.store(self.read(before), begin)
        b.store(ZERO, count)
        with b.if_then(b.icmp_unsigned("<", b.sub(rank, self.read(before)), self.read(found))):
            self.count(ZERO, self.read(found), lambda k: self.take(k, self.read(self.at(self.places, k))))
            self.sort(self.values, self.read(found))
            b.store(self.read(found), count)

    def collect(
        self, k: ir.Value, lanes: int, low: ir.Value, high: ir.Value, before: ir.Value, found: ir.Value
    ) -> None:
        """Counts those of the elements from ``k`` on that come before the window, and notes those that are in it. What
        is written behind these is overwritten by the next ones."""
        b, key = self.b, self.key_in(self.x, k, lanes)
        if lanes == 1:
            less, within = b.icmp_unsigned("<", key, low), b.icmp_unsigned("<=", key, high)
            b.store(k, self.at(self.places, self.read(found)))
            self.increase(before, b.zext(less, I64))
            self.increase(found, b.zext(b.and_(within, b.not_(less)), I64))
            return
        low, high, first = (splat(self.b, v, key.type) for v in (low, high, k))
        less, within = b.icmp_unsigned("<", key, low), b.icmp_unsigned("<=", key, high)
        within = b.and_(within, b.not_(less))
        positions = b.add(first, key.type(list(range(lanes))))
        b.store(self.compressed(positions, within), self.at(self.places, self.read(found)), align=8)
        self.increase(before, self.lanes_in(less))
        self.increase(found, self.lanes_in(within))

    def bounds(self, rank: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The keys of two elements of a sample, before and behind the rank."""
        b, real = self.b, ir.DoubleType()
        count = self.limited(b.udiv(self.size, index(SHARE)), index(SAMPLE))
        step = b.udiv(self.size, count)
        self.count(ZERO, count, lambda k: self.take(k, b.mul(k, step)))
        self.sort(self.values, count)
        root = self.module.declare_intrinsic("llvm.sqrt", [real], ir.FunctionType(real, [real]))
        margin = b.add(b.fptosi(b.fmul(b.call(root, [b.sitofp(count, real)]), real(2.0)), I64), ONE)
        middle = b.udiv(rank, step)
        low, high = b.sub(middle, margin), b.add(middle, margin)
        least, most = self.sampled(low, count), self.sampled(high, count)
        least = b.select(b.icmp_signed("<", low, ZERO), ZERO, least)
        return least, b.select(b.icmp_signed(">=", high, count), index(-1), most)

    def sampled(self, k: ir.Value, count: ir.Value) -> ir.Value:
        return self.key_at(self.limited(k, self.b.sub(count, ONE)))

    def take(self, k: ir.Value, position: ir.Value) -> None:
        """Element ``position`` of the row becomes number k of the values."""
        found = self.b.load(self.at(self.x, position, self.item), typ=self.item)
        self.b.store(found, self.at(self.values, k, self.item))

    def limited(self, k: ir.Value, most: ir.Value) -> ir.Value:
        """``k`` in the range 0 .. most."""
        b = self.b
        k = b.select(b.icmp_signed("<", k, ZERO), ZERO, k)
        return b.select(b.icmp_signed("<", k, most), k, most)


class _ByOrder(_Select):
    """Sorts elements with their positions."""

    def __init__(self, f: ir.Function, dtype: DType, sort: ir.Function):
        super().__init__(f, dtype)
        self.function = sort

    def sort(self, row: ir.Value, count: ir.Value) -> None:
        self.b.call(self.function, [row, self.order, self.area, count])

    def key_at(self, k: ir.Value) -> ir.Value:
        return self.key_in(self.values, self.sorted_at(self.values, k))

    def sorted_at(self, row: ir.Value, k: ir.Value) -> ir.Value:
        return self.read(self.at(self.order, k))


class _ByKeys(_Select):
    """Sorts keys, as integers with a sign, in the place of the order."""

    def __init__(self, f: ir.Function, dtype: DType):
        super().__init__(f, dtype)
        self.width = 8 * dtype.itemsize
        self.key = ir.IntType(self.width)

    def signed(self, row: ir.Value, k: ir.Value) -> ir.Value:
        key = self.key_in(row, k)
        key = key if self.width == 64 else self.b.trunc(key, self.key)
        return self.b.xor(key, self.key(1 << (self.width - 1)))

    def known(self, k: ir.Value) -> ir.Value:
        return self.read(self.at(self.order, k, self.key), self.key)

    def sort(self, row: ir.Value, count: ir.Value) -> None:
        self.count(ZERO, count, lambda k: self.b.store(self.signed(row, k), self.at(self.order, k, self.key)))
        sort_keys(self, self.width, self.order, self.area, count)

    def key_at(self, k: ir.Value) -> ir.Value:
        key = self.b.xor(self.known(k), self.key(1 << (self.width - 1)))
        return key if self.width == 64 else self.b.zext(key, I64)

    def sorted_at(self, row: ir.Value, k: ir.Value) -> ir.Value:
        """As many equal ones as stand before it in the order stand before it in the row."""
        b, key, first, at = self.b, self.known(k), self.slot(k), self.slot(ZERO)

        def follows_equal() -> ir.Value:
            before = self.limited(b.sub(self.read(first), ONE), k)
            return b.and_(b.icmp_signed(">", self.read(first), ZERO), b.icmp_signed("==", self.known(before), key))

        self.repeat(follows_equal, lambda: self.increase(first, index(-1)))
        left = self.slot(b.sub(k, self.read(first)))

        def is_other() -> ir.Value:
            alike = b.icmp_signed("==", self.signed(row, self.read(at)), key)
            self.increase(left, b.sext(alike, I64))
            return b.icmp_signed(">=", self.read(left), ZERO)

        self.repeat(is_other, lambda: self.increase(at))
        return self.read(at)
